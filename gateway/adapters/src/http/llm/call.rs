//! One call of a worker, from its first try to its last: each try is a proposal of its own, decided, reserved and recorded.

use super::Llm;
use super::answer::{DECISION, TASK, ended, refused, response};
use super::door::Caller;
use super::headers;
use super::relay::Relay;
use crate::engines::Engine;
use crate::mcp::exchange::Exchange;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use warden_core::amount::Amount;
use warden_core::json::Json;
use warden_core::llm::Api;
use warden_core::llm::request::{self, Additions, Asked};
use warden_core::outcome::{Lost, Reply};
use warden_core::pipeline::{self, Answer, Refusal};
use warden_core::proposal::{DecisionId, Proposal, Verb};
use warden_core::verdict::Verdict;

/// What a worker asks, read.
pub(super) struct Call {
    pub(super) api: Api,
    /// Below the provider's base URL.
    pub(super) path: String,
    /// The body, byte for byte.
    pub(super) text: String,
    /// The same, read.
    pub(super) body: Json,
    pub(super) asked: Asked,
    /// The headers that go on.
    pub(super) headers: HeaderMap,
    pub(super) caller: Caller,
    /// Whether it only counts its tokens, which costs none.
    pub(super) counts: bool,
    pub(super) started: Instant,
}

/// The first pause before a call is tried again; it doubles.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that a provider's `retry-after` gets.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// Statuses of a provider that is busy or broken for now.
const TRY_AGAIN: [u16; 8] = [408, 409, 429, 500, 502, 503, 504, 529];

/// What one try came to.
pub(super) struct Tried {
    pub(super) answer: Answer,
    /// The provider's status and headers, when it answered.
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    /// Whether its time was over before anything was sent.
    pub(super) late: bool,
}

impl Tried {
    /// Whether another engine may do better: it failed, or this one was not allowed.
    pub(super) fn is_worth_another_engine(&self) -> bool {
        let silent = matches!(self.answer, Answer::Ended { reply: Reply::Lost(Lost::TimedOut), .. });
        silent
            || self.is_worth_another()
            || matches!(&self.answer, Answer::Refused(refusal) if is_of_this_engine(refusal))
    }

    /// Whether another try of the same engine may do better.
    pub(super) fn is_worth_another(&self) -> bool {
        match &self.answer {
            Answer::Answered { is_error: true, .. } => {
                self.head.as_ref().is_some_and(|(status, _)| TRY_AGAIN.contains(&status.as_u16()))
            }
            Answer::Ended { reply: Reply::NotSent | Reply::Lost(Lost::Gone), .. } => !self.late,
            _ => false,
        }
    }

    /// How long the provider asks to be left alone.
    fn pause(&self, tries: u32) -> Duration {
        let header = |name: &str| self.head.as_ref()?.1.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let asked = header("retry-after-ms").map(Duration::from_millis);
        let asked = asked.or_else(|| header("retry-after").map(Duration::from_secs));
        asked.unwrap_or(PAUSE * 2u32.saturating_pow(tries.min(8))).min(PAUSE_MAX)
    }
}

/// Whether a refusal is about the engine that was asked. One that is held waits for a person, an answer that is withheld was given, and
/// a budget or a disk that is full is so for all.
fn is_of_this_engine(refusal: &Refusal) -> bool {
    let general = refusal.reason == "result_withheld" || refusal.reason.starts_with("journal_");
    refusal.verdict == Verdict::Deny && refusal.exceeded.is_none() && !general
}

/// Tries the engines in order, each as often as its retries allow, and answers.
pub(super) async fn run(llm: &Llm, call: Call, engines: Vec<Arc<Engine>>, exchange: &Exchange) {
    let mut last: Option<Tried> = None;
    for engine in &engines {
        let patience = call.caller.patience.unwrap_or(engine.timeout).min(engine.timeout);
        let deadline = call.started + patience;
        if last.is_some() && deadline <= Instant::now() {
            continue;
        }
        let mut goes_on = false;
        for tries in 0..=engine.retries {
            let tried = attempt(llm, &call, engine, exchange, deadline).await;
            if exchange.begun() {
                return;
            }
            let (again, pause) = (tried.is_worth_another(), tried.pause(tries));
            goes_on = tried.is_worth_another_engine();
            // A worker that may not have another try is told what the first one came to.
            let refused_again = last.is_some() && matches!(tried.answer, Answer::Refused(_));
            if !refused_again {
                last = Some(tried);
            }
            if !again || tries == engine.retries || Instant::now() + pause >= deadline {
                break;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = exchange.left() => return,
            }
        }
        if !goes_on {
            break;
        }
    }
    if let Some(tried) = last {
        exchange.whole(told(&call, tried));
    }
}

/// One try: a proposal, and whatever becomes of it.
async fn attempt(llm: &Llm, call: &Call, engine: &Engine, exchange: &Exchange, deadline: Instant) -> Tried {
    let Call { api, asked, .. } = call;
    let budgeted = llm.gate.budgets().charges(&call.caller.worker);
    let hides_usage = *api == Api::Chat && asked.stream && !asked.asks_usage && engine.asks_usage;
    let bound = engine.bound(*api);
    let additions = Additions {
        usage: hides_usage,
        max_output: (budgeted && asked.max_output.is_none() && !call.counts).then_some(bound),
        model: None,
    };
    let changed = match additions == Additions::default() {
        true => None,
        false => request::with(*api, &call.text, &call.body, additions),
    };
    let payload = changed.unwrap_or_else(|| call.text.clone());
    let cost = if call.counts {
        (Amount::ZERO, true)
    } else if budgeted {
        engine.at_most(asked, payload.len())
    } else {
        Default::default()
    };
    let mut proposal = call.caller.propose(llm, &engine.id, Verb::CallEngine, cost);
    proposal.method = api.name().to_owned();
    proposal.arguments = arguments(*api, asked);
    proposal.envelope = Json::Array(vec![call.body.clone(), headers::to_scan(&call.headers)]);
    proposal.payload = payload;
    let relay = Relay::new(llm, call, engine, exchange, deadline, hides_usage);
    let answer = pipeline::handle(&llm.gate, proposal, &relay).await;
    Tried { answer, late: relay.was_late(), head: relay.into_head() }
}

/// What policies see of a call.
pub(super) fn arguments(api: Api, asked: &Asked) -> Json {
    let text = |text: &str| Json::String(text.to_owned());
    let mut members = vec![
        ("api".to_owned(), text(api.name())),
        ("model".to_owned(), text(&asked.model)),
        ("stream".to_owned(), Json::Bool(asked.stream)),
        ("tools".to_owned(), Json::Array(asked.tools.iter().map(|tool| text(tool)).collect())),
    ];
    let tokens = asked.max_output.map(|tokens| tokens.min(i64::MAX as u64).to_string());
    members.extend(tokens.map(|tokens| ("max_tokens".to_owned(), Json::Number(tokens))));
    Json::Object(members)
}

fn told(call: &Call, Tried { answer, head, late }: Tried) -> Response {
    let task = call.caller.task.as_str();
    match answer {
        Answer::Ended { id, .. } if late => response(call.api, &super::answer::late(&id), Some(task)),
        Answer::Refused(refusal) => response(call.api, &refused(&refusal), Some(task)),
        Answer::Ended { id, reply } => response(call.api, &ended(&id, &reply), Some(task)),
        Answer::Answered { id, payload, .. } => {
            let mut response = Response::new(Body::from(payload.into_text()));
            if let Some((status, headers)) = head {
                *response.status_mut() = status;
                *response.headers_mut() = headers;
            }
            name(response.headers_mut(), &id, task);
            response
        }
    }
}

/// Says which decision and which task an answer belongs to.
pub(super) fn name(headers: &mut HeaderMap, id: &DecisionId, task: &str) {
    for (header, value) in [(DECISION, id.as_str()), (TASK, task)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(header, value);
        }
    }
}

/// What a try tells of itself where an answer proposes more.
pub(super) fn of_tool(call: &Call, proposal: Proposal, tool: &str, call_of: Json) -> Proposal {
    let text = |text: &str| Json::String(text.to_owned());
    Proposal {
        method: call.api.name().to_owned(),
        arguments: Json::Object(vec![
            ("api".into(), text(call.api.name())),
            ("model".into(), text(&call.asked.model)),
            ("tool".into(), text(tool)),
        ]),
        payload: call_of.to_value().to_string(),
        envelope: call_of,
        ..proposal
    }
}
