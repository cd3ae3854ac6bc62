//! Engine calls as OpenTelemetry spans, over [OTLP/HTTP](https://opentelemetry.io/docs/specs/otlp/#otlphttp) with JSON bodies.
//!
//! Made of committed records, off the path of any call: what is slow or gone at the collector loses spans, and nothing else.
//! Attributes are those of the GenAI conventions in [`CONVENTIONS`]. No prompt and no answer is ever in one.

use crate::journal::{Committed, Journal};
use crate::mcp::server::HttpServer;
use crate::metrics::Metrics;
use axum::http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use warden_core::decision::Decision;
use warden_core::journal::record::Body;
use warden_core::outcome::{Happened, Outcome};
use warden_core::proposal::{DecisionId, Verb};
use warden_core::verdict::Verdict;

/// The version of the OpenTelemetry semantic conventions that attributes are named by.
pub const CONVENTIONS: &str = "1.37.0";
/// Spans that wait for a batch; then it is sent at once.
const BATCH_MAX: usize = 256;
/// Calls on their way that are remembered; with more, all are forgotten.
const OPEN_MAX: usize = 10_000;
/// Between two batches.
const EVERY: Duration = Duration::from_secs(2);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends spans to a collector, from a start to [`finish`](Self::finish).
#[derive(Debug)]
pub struct Tracer {
    over: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Tracer {
    /// Tells `collector` of every engine call that `journal` commits from now on.
    pub fn start(journal: &Journal, collector: Arc<HttpServer>, metrics: Arc<Metrics>) -> Self {
        let (over, finished) = oneshot::channel();
        let task = tokio::spawn(trace(journal.committed(), collector, metrics, finished));
        Self { over, task }
    }

    /// Tells what was committed until now, and ends. Call it when nothing is committed any more.
    pub async fn finish(self) {
        let _ = self.over.send(());
        // One batch is perhaps on its way, and one is left.
        let _ = tokio::time::timeout(PATIENCE * 2, self.task).await;
    }
}

async fn trace(
    mut committed: broadcast::Receiver<Committed>,
    collector: Arc<HttpServer>,
    metrics: Arc<Metrics>,
    mut finished: oneshot::Receiver<()>,
) {
    let mut spans = Spans::default();
    let mut tick = tokio::time::interval(EVERY);
    loop {
        let over = tokio::select! {
            news = committed.recv() => match news {
                Ok(Committed { record, .. }) => {
                    spans.take(record.ts, &record.body);
                    if spans.done.len() < BATCH_MAX {
                        continue;
                    }
                    false
                }
                Err(RecvError::Lagged(_)) => {
                    // Ends that were missed never come again.
                    spans.open.clear();
                    metrics.dropped("traces");
                    continue;
                }
                Err(RecvError::Closed) => true,
            },
            _ = tick.tick() => false,
            _ = &mut finished => {
                while let Ok(Committed { record, .. }) = committed.try_recv() {
                    spans.take(record.ts, &record.body);
                }
                true
            }
        };
        let batch = std::mem::take(&mut spans.done);
        if !batch.is_empty() && !send(&collector, batch).await {
            metrics.dropped("traces");
        }
        if over {
            return;
        }
    }
}

async fn send(collector: &HttpServer, spans: Vec<Value>) -> bool {
    let own = |name: &str, value: &str| json!({ "key": name, "value": { "stringValue": value } });
    let body = json!({ "resourceSpans": [{
        "resource": { "attributes": [own("service.name", "warden"), own("service.version", env!("CARGO_PKG_VERSION"))] },
        "scopeSpans": [{
            "scope": { "name": "warden", "version": env!("CARGO_PKG_VERSION") },
            "schemaUrl": format!("https://opentelemetry.io/schemas/{CONVENTIONS}"),
            "spans": spans,
        }],
    }] });
    let headers = HeaderMap::new();
    let sent = collector.send(Method::POST, &headers, body.to_string());
    matches!(tokio::time::timeout(PATIENCE, sent).await, Ok(Ok(response)) if response.status().is_success())
}

/// Calls on their way, and spans that are whole.
#[derive(Default)]
struct Spans {
    open: HashMap<DecisionId, (Timestamp, Arc<Decision>)>,
    done: Vec<Value>,
}

impl Spans {
    fn take(&mut self, ts: Timestamp, body: &Body) {
        match body {
            Body::Decision(decision) if decision.action == Verb::CallEngine.action() => match decision.verdict {
                Verdict::Allow => {
                    if self.open.len() >= OPEN_MAX {
                        self.open.clear();
                    }
                    self.open.insert(decision.id.clone(), (ts, decision.clone()));
                }
                Verdict::Deny | Verdict::Escalate => self.done.push(span(decision, None, ts, ts)),
            },
            Body::Outcome(outcome) => {
                if let Some((since, decision)) = self.open.remove(&outcome.decision) {
                    self.done.push(span(&decision, Some(outcome), since, ts));
                }
            }
            _ => {}
        }
    }
}

/// A call as a span. Its trace has the decision's id, so that the one leads to the other.
fn span(decision: &Decision, outcome: Option<&Outcome>, since: Timestamp, until: Timestamp) -> Value {
    let input = |name: &str| decision.context.input.get(name).and_then(Value::as_str).unwrap_or_default();
    let text = |name: &str, value: &str| json!({ "key": name, "value": { "stringValue": value } });
    let count = |name: &str, value: u64| json!({ "key": name, "value": { "intValue": value.to_string() } });
    let model = input("model");
    let operation = if input("api") == "gemini" { "generate_content" } else { "chat" };
    let provider = match decision.resource.get("kind").and_then(Value::as_str).unwrap_or_default() {
        "gemini" => "gcp.gemini",
        other => other,
    };
    let mut attributes = vec![
        text("gen_ai.operation.name", operation),
        text("gen_ai.provider.name", provider),
        text("gen_ai.request.model", model),
        text("warden.decision", decision.id.as_str()),
        text("warden.verdict", decision.verdict.name()),
        text("warden.worker", &decision.worker),
        text("warden.engine", decision.engine.as_deref().unwrap_or_default()),
        text("warden.task", decision.task.as_deref().unwrap_or_default()),
    ];
    attributes.extend(decision.session.as_deref().map(|session| text("gen_ai.conversation.id", session)));
    let most = decision.context.input.get("max_tokens").and_then(Value::as_u64);
    attributes.extend(most.map(|tokens| count("gen_ai.request.max_tokens", tokens)));
    if let Some(usage) = outcome.and_then(|outcome| outcome.engine.as_ref()?.usage) {
        attributes.push(count("gen_ai.usage.input_tokens", usage.input));
        attributes.push(count("gen_ai.usage.output_tokens", usage.output));
    }
    let happened = outcome.map(|outcome| serde_json::to_value(outcome.happened).unwrap_or_default());
    let failed = match (outcome, &happened) {
        (None, _) => Some(decision.reason.clone()),
        (Some(Outcome { happened: Happened::Done | Happened::Redacted, .. }), _) => None,
        (Some(_), happened) => happened.as_ref().and_then(Value::as_str).map(str::to_owned),
    };
    attributes.extend(failed.as_ref().map(|why| text("error.type", why)));
    let nanos = |at: Timestamp| at.as_nanosecond().to_string();
    let trace: String = decision.id.as_str().chars().filter(char::is_ascii_hexdigit).collect();
    json!({ "traceId": trace, "spanId": trace.get(trace.len().saturating_sub(16)..).unwrap_or_default(),
        "name": format!("{operation} {model}"), "kind": 3, "startTimeUnixNano": nanos(since), "endTimeUnixNano": nanos(until),
        "attributes": attributes, "status": if failed.is_some() { json!({ "code": 2 }) } else { json!({}) } })
}
