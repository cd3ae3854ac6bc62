//! What a worker is told when the answer is not the provider's.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use warden_core::llm::Api;
use warden_core::llm::refusal::No;
use warden_core::outcome::{Lost, Reply};
use warden_core::pipeline::Refusal;
use warden_core::proposal::DecisionId;
use warden_core::verdict::Verdict;

/// The header that names the decision.
pub(super) const DECISION: &str = "x-warden-decision";
/// The header that names the task.
pub(super) const TASK: &str = "x-warden-task";

/// A refusal of the pipeline.
pub(super) fn refused(refusal: &Refusal) -> No {
    let reason = refusal.reason.as_str();
    let status = match reason {
        "budget_exceeded" | "budget_frozen" => 402,
        "unknown_model" | "unknown_engine" => 404,
        "engine_lacks_api" | "malformed_request" => 400,
        "journal_full" | "journal_failed" | "journal_busy" | "seal_failed" => 503,
        _ => 403,
    };
    let kind = match (reason, refusal.verdict) {
        ("result_withheld", _) => "withheld",
        (_, Verdict::Escalate) => "held",
        _ if status == 503 => "unavailable",
        _ => "denied",
    };
    let advice = refusal.advice.as_deref().unwrap_or("refused by policy");
    // Many clients show their users the message alone.
    let id = &refusal.id;
    let message = match &refusal.exceeded {
        Some(exceeded) => format!("{reason}: {exceeded}; {advice} (decision {id})"),
        None => format!("{reason}: {advice} (decision {id})"),
    };
    let decision = Some(refusal.id.to_string());
    No { status, code: reason.to_owned(), message, kind, decision, exceeded: refusal.exceeded.clone() }
}

/// An allowed call without an answer.
pub(super) fn ended(id: &DecisionId, reply: &Reply) -> No {
    let (status, code, message) = match reply {
        Reply::NotSent => (502, "not_sent", "the engine cannot be reached; nothing was sent"),
        Reply::Lost(Lost::TimedOut) => {
            (504, "timed_out", "the engine did not answer in time; it may have done the work")
        }
        Reply::Lost(Lost::Garbled) => (502, "garbled", "the engine answered with something that is no answer"),
        Reply::Lost(Lost::Aborted) => (503, "aborted", "the gateway is shutting down"),
        _ => (502, "lost", "the engine was gone before it answered"),
    };
    No {
        status,
        code: code.into(),
        message: message.into(),
        kind: "failed",
        decision: Some(id.to_string()),
        exceeded: None,
    }
}

/// An allowed call that had no time left: nothing was sent.
pub(super) fn late(id: &DecisionId) -> No {
    let message = "the time was over before anything was sent".to_owned();
    let decision = Some(id.to_string());
    No { status: 504, code: "timed_out".into(), message, kind: "failed", decision, exceeded: None }
}

/// A request that cannot be read.
pub(super) fn malformed(status: u16, code: &str, message: String) -> No {
    No { status, code: code.into(), message, kind: "malformed", decision: None, exceeded: None }
}

/// As an answer of its own.
pub(super) fn response(api: Api, no: &No, task: Option<&str>) -> Response {
    let mut response = Response::new(Body::from(no.body(api).to_string()));
    // SDKs of providers take any success for an answer; Warden's own interface says that it is accepted, and not done.
    let status = if no.kind == "held" && api == Api::Execute { 202 } else { no.status };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [(DECISION, no.decision.as_deref()), (TASK, task)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    if let ("held", Some(id)) = (no.kind, &no.decision) {
        crate::http::proposals::locate(headers, &DecisionId::new(id));
    }
    if (400..500).contains(&no.status) && ![408, 409, 429].contains(&no.status) {
        // Trying again does not help, and SDKs need not.
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    response
}
