//! Tells people that something is held, and what became of it, or that something ran of which an app wants them to know: with a webhook, with a command, or both.
//!
//! What a worker has written stands in the JSON text alone, which a command is given on stdin: its arguments and its environment are the
//! configuration's.

use crate::mcp::child::ServerCommand;
use crate::mcp::server::HttpServer;
use crate::world::World;
use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, watch};
use warden_core::ack::AckEvent;
use warden_core::decision::Decision;
use warden_core::journal::record::{Body, Record};
use warden_core::pipeline::{Gate, ack};
use warden_core::port::Journal as _;
use warden_core::proposal::DecisionId;
use warden_core::verdict::Verdict;

/// How long a webhook or a command may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a webhook is tried, with a pause that doubles.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// Notices on their way at once.
const AT_ONCE: usize = 8;

/// Who is told.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    /// A URL that each notice is posted to.
    pub webhook: Option<Arc<HttpServer>>,
    /// A program that each notice is piped into.
    pub command: Option<ServerCommand>,
}

impl Notify {
    /// Follows the journal until `stopped`.
    pub fn start(self, gate: Arc<Gate<World>>, mut stopped: watch::Receiver<bool>) {
        if self.webhook.is_none() && self.command.is_none() {
            return;
        }
        let (this, mut committed) = (Arc::new(self), gate.ports.journal.committed());
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let mut known = Known::new();
        tokio::spawn(async move {
            loop {
                let news = tokio::select! {
                    news = committed.recv() => news,
                    _ = stopped.wait_for(|stop| *stop) => return,
                };
                let notice = match news {
                    Ok(news) => notice(&gate, &news.record, &mut known).await,
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(
                            missed,
                            "people were not told of everything: `warden ack list` shows what is held"
                        );
                        None
                    }
                    Err(RecvError::Closed) => return,
                };
                let (Some((id, is_new, notice)), Ok(slot)) = (notice, Arc::clone(&slots).acquire_owned().await) else {
                    continue;
                };
                let (this, gate) = (Arc::clone(&this), Arc::clone(&gate));
                tokio::spawn(async move {
                    let told = this.tell(notice.to_string()).await;
                    if is_new && let Err(e) = ack::told(&gate, &id, &told).await {
                        tracing::warn!(error = %e, "that people were told is not recorded");
                    }
                    drop(slot);
                });
            }
        });
    }

    async fn tell(&self, text: String) -> String {
        let mut told = Vec::new();
        if let Some(webhook) = &self.webhook {
            told.push(format!("webhook: {}", post(webhook, &text).await));
        }
        if let Some(command) = &self.command {
            told.push(format!("command: {}", pipe(command, &text).await));
        }
        told.join("; ")
    }
}

async fn post(webhook: &HttpServer, text: &str) -> String {
    let mut last = String::new();
    for tries in 0..TRIES {
        let headers = HeaderMap::new();
        let sent = webhook.send(Method::POST, &headers, text.to_owned());
        last = match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(response)) if response.status().is_success() => return "told".into(),
            Ok(Ok(response)) => format!("failed: status {}", response.status().as_u16()),
            Ok(Err(_)) => "failed: no answer".into(),
            Err(_) => "failed: no answer in time".into(),
        };
        tokio::time::sleep(PAUSE * 2u32.saturating_pow(tries)).await;
    }
    tracing::warn!(place = webhook.place(), why = last, "the webhook for acknowledgements failed");
    last
}

async fn pipe(command: &ServerCommand, text: &str) -> String {
    let mut process = command.process();
    process.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let run = async {
        let mut child = process.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that reads nothing has its reasons.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        child.wait().await
    };
    let said = match tokio::time::timeout(PATIENCE, run).await {
        Ok(Ok(status)) if status.success() => return "told".into(),
        Ok(Ok(status)) => format!("failed: {status}"),
        Ok(Err(e)) => format!("failed: {e}"),
        Err(_) => "failed: it took too long and was ended".into(),
    };
    tracing::warn!(program = command.program, why = said, "the command for acknowledgements failed");
    said
}

/// What was told of what is held, to be told again with its end.
type Known = HashMap<DecisionId, Value>;
/// More than this is not remembered.
const KNOWN_MAX: usize = 4096;

/// What is told of a record, and whether it is that something is held from here on.
async fn notice(gate: &Gate<World>, record: &Record, known: &mut Known) -> Option<(DecisionId, bool, Value)> {
    match &record.body {
        Body::Decision(decision) if decision.held.is_some() => {
            let held = shown(decision);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(decision.id.clone(), held.clone());
            Some((decision.id.clone(), true, json!({ "event": "held", "at": record.ts, "held": held })))
        }
        // An app's risk table wants people to know of it, and nobody to be asked.
        Body::Decision(decision) if is_to_be_told(decision) => {
            let mut allowed = shown(decision);
            allowed["show"] = format!("warden audit show {}", decision.id).into();
            let notice = json!({ "event": "allowed", "at": record.ts, "allowed": allowed });
            Some((decision.id.clone(), false, notice))
        }
        Body::Ack(change) if matches!(change.event, AckEvent::Granted | AckEvent::Refused | AckEvent::Void) => {
            let id = change.decision.clone()?;
            let mut held = known.get(&id).cloned();
            if change.event != AckEvent::Granted {
                known.remove(&id);
            }
            if held.is_none()
                && let Some(seq) = gate.acks(|live| live.acks.parked.get(&id).map(|parked| parked.seq))
            {
                held = gate.ports.decision_at(seq).await.as_ref().map(shown);
            }
            let (operator, reason) = (&change.operator, &change.reason);
            let notice = json!({ "event": change.event, "at": record.ts, "decision": id, "operator": operator,
                "reason": reason, "held": held });
            Some((id, false, notice))
        }
        _ => None,
    }
}

fn is_to_be_told(decision: &Decision) -> bool {
    let handling = decision.context.session.as_ref().map(|session| session.handling.as_str());
    decision.verdict == Verdict::Allow && decision.tool.is_some() && handling == Some("notify")
}

/// A held proposal as people are told of it: what its record holds, secrets masked and long texts cut.
pub fn shown(decision: &Decision) -> Value {
    json!({ "decision": decision.id, "worker": decision.worker, "session": decision.session, "task": decision.task,
        "server": decision.server, "action": decision.action, "resource": decision.resource,
        "reason": decision.reason, "advice": decision.advice, "policies": decision.policies,
        "input": decision.context.input, "unseen": decision.context.unseen, "hash": decision.payload_tag,
        "expires": decision.held.as_ref().map(|held| held.expires), "show": format!("warden ack show {}", decision.id) })
}
