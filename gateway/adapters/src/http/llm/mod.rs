//! The LLM doors: the APIs of OpenAI, Anthropic and Gemini, and llm-connect's prompt, as their SDKs speak them.
//!
//! `door` reads a request, `call` takes it to an engine, again or to the next one when that failed, `relay` passes it on and
//! its answer back, `execute` does so for a prompt alone, `models` lists what there is, `answer` says no in each API's own
//! words, `headers` says what goes on of a request's and an answer's headers.

mod answer;
mod call;
mod door;
mod execute;
mod headers;
mod models;
mod relay;

use super::worker::WorkerPlane;
use crate::engines::Engines;
use crate::mcp::Settings;
use crate::tasks::TaskBook;
use crate::world::World;
use axum::Router;
use axum::routing::{get, post};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use warden_core::llm::Api;
use warden_core::pipeline::Gate;
use warden_core::proposal::root_of;

/// What a worker is given of engines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The engine of its calls that name none.
    pub engine: Option<String>,
    /// The zone whose engines it may use.
    pub zone: Option<String>,
    /// Whether its calls have to name a task.
    pub names_task: bool,
}

/// What the doors work with.
pub struct Llm {
    /// The gate.
    pub gate: Arc<Gate<World>>,
    /// All engines.
    pub engines: Arc<Engines>,
    /// What each worker is given.
    pub given: BTreeMap<String, Given>,
    /// The tasks.
    pub tasks: Arc<TaskBook>,
    /// Bounds.
    pub settings: Settings,
    closing: watch::Sender<bool>,
}

impl Llm {
    /// With no call on its way.
    pub fn new(
        gate: Arc<Gate<World>>,
        engines: Arc<Engines>,
        given: BTreeMap<String, Given>,
        tasks: Arc<TaskBook>,
        settings: Settings,
    ) -> Self {
        Self { gate, engines, given, tasks, settings, closing: watch::Sender::new(false) }
    }

    /// What a worker is given.
    pub fn given(&self, worker: &str) -> Given {
        // A delegate is given what the worker is that it comes from.
        self.given.get(root_of(worker)).cloned().unwrap_or_default()
    }

    /// Breaks off every call that is on its way.
    pub fn abort(&self) {
        self.closing.send_replace(true);
    }

    /// Puts a prompt of Warden's own to an engine, in the name of `worker`: decided, charged and recorded like any other. What the engine
    /// said, or the reason code of why it said nothing.
    pub async fn complete(
        &self,
        worker: &str,
        engine: Option<&str>,
        prompt: String,
        run: &str,
    ) -> Result<String, String> {
        execute::complete(self, worker, engine, prompt, run).await
    }

    async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

/// The routes.
pub fn routes() -> Router<Arc<WorkerPlane>> {
    Router::new()
        .route(
            "/v1/chat/completions",
            post(async |state, headers, body| door::take(state, Api::Chat, headers, body).await),
        )
        .route(
            "/v1/responses",
            post(async |state, headers, body| door::take(state, Api::Responses, headers, body).await)
                .get(door::no_upgrade),
        )
        .route("/v1/messages", post(async |state, headers, body| door::take(state, Api::Messages, headers, body).await))
        .route("/v1/messages/count_tokens", post(door::take_count))
        .route("/execute", post(execute::take))
        .route("/v1/engines", get(models::engines))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::one).post(door::take_gemini))
        .route("/v1beta/models", get(models::gemini))
        .route("/v1beta/models/{*model}", post(door::take_gemini))
}
