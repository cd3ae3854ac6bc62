//! Brains: whoever drafts what to do about a message. None of them is trusted; guardrails come after each.

use crate::http::llm::Llm;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use warden_core::catalogue::sha256_hex;
use warden_core::inbox::message::Message;
use warden_core::inbox::plan::Draft;
use warden_core::inbox::routing::Routing;
use warden_core::inbox::{answer, prompt, rules};
use warden_core::secrets::Scanner;

/// The brains that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Fixed rules and the routing catalogue.
    #[default]
    Rule,
    /// A model, with the brief.
    Llm,
}

impl Kind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rule => "rule",
            Kind::Llm => "llm",
        }
    }
}

/// Why a brain has no draft; each leaves the message to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoDraft {
    /// `brain_malformed`, `brain_empty`, `brain_transport`, or what refused its call.
    pub reason: String,
}

/// A brain.
pub trait Brain: Send + Sync {
    /// What it would do about a message, in the run `run`.
    fn draft<'a>(&'a self, message: &'a Message, run: &'a str) -> BoxFuture<'a, Result<Draft, NoDraft>>;

    /// Whether each draft is a call of an engine.
    fn calls_engines(&self) -> bool {
        false
    }

    /// What it is made of, so that it can be seen when it has changed.
    fn digest(&self) -> String;
}

/// Fixed rules.
pub struct RuleBrain {
    /// The routing catalogue.
    pub routing: Routing,
}

impl Brain for RuleBrain {
    fn draft<'a>(&'a self, message: &'a Message, _run: &'a str) -> BoxFuture<'a, Result<Draft, NoDraft>> {
        Box::pin(async { Ok(rules::draft(message, &self.routing)) })
    }

    fn digest(&self) -> String {
        let routing = serde_json::to_string(&self.routing).unwrap_or_default();
        sha256_hex(format!("rule 1 {routing}").as_bytes())
    }
}

/// A model behind an engine, which takes a prompt and says something.
pub struct LlmConnectBrain {
    /// The engines, behind the pipeline.
    pub llm: Arc<Llm>,
    /// What makes fences that nobody can guess.
    pub scanner: Arc<Scanner>,
    /// In whose name it is called.
    pub worker: String,
    /// Which engine; the worker's own when absent.
    pub engine: Option<String>,
    /// The brief.
    pub brief: String,
    /// The routing catalogue.
    pub routing: Routing,
}

impl Brain for LlmConnectBrain {
    fn draft<'a>(&'a self, message: &'a Message, run: &'a str) -> BoxFuture<'a, Result<Draft, NoDraft>> {
        Box::pin(async move {
            let no = |reason: &str| NoDraft { reason: reason.to_owned() };
            let tag = self.scanner.key().whole(serde_json::json!([run, message]).to_string().as_bytes());
            let fence = format!("=== message {} ===", &tag[..24]);
            let prompt = prompt::prompt(&self.brief, &self.routing, message, &fence);
            let said = self.llm.complete(&self.worker, self.engine.as_deref(), prompt, run).await;
            match said {
                Err(reason) if is_ours(&reason) => Err(no(&reason)),
                Err(_) => Err(no("brain_transport")),
                Ok(said) if said.trim().is_empty() => Err(no("brain_empty")),
                Ok(said) => answer::extract(&said).ok_or_else(|| no("brain_malformed")),
            }
        })
    }

    fn calls_engines(&self) -> bool {
        true
    }

    fn digest(&self) -> String {
        let routing = serde_json::to_string(&self.routing).unwrap_or_default();
        let engine = self.engine.clone().or_else(|| self.llm.given(&self.worker).engine);
        let engine = engine.as_deref().and_then(|engine| self.llm.engines.get(engine));
        let engine = engine.map(|engine| {
            let place = engine.http.as_ref().map(|http| http.place().to_owned());
            (engine.id.clone(), engine.kind.name(), place, engine.model.clone())
        });
        let parts = serde_json::json!(["llm 1", engine, prompt::digest(&self.brief), routing]);
        sha256_hex(parts.to_string().as_bytes())
    }
}

/// Reasons of Warden's own for which the call was refused: they say more than that nothing came.
fn is_ours(reason: &str) -> bool {
    warden_core::reason::REASONS.iter().any(|known| known.code == reason) && !["timed_out", "empty"].contains(&reason)
}
