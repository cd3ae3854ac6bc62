//! A refusal in the protocol's words. A refused tool call is a normal result with `isError`, so that the model can go on
//! with something else; any other method gets a JSON-RPC error. The worker sees kind, advice and decision id.

use serde_json::json;
use warden_core::outcome::{Lost, Reply};
use warden_core::pipeline::Refusal;
use warden_core::proposal::DecisionId;
use warden_core::rpc::{self, Id};
use warden_core::verdict::Verdict;

/// Denied.
pub const DENIED: i64 = -32003;
/// Held until a person acknowledges it.
pub const HELD: i64 = -32004;
/// Allowed, and no answer came.
pub const NO_ANSWER: i64 = -32005;

/// What a worker is told of a refusal.
pub fn kind(refusal: &Refusal) -> &'static str {
    match (refusal.verdict, refusal.reason.as_str()) {
        (Verdict::Escalate, _) => "held",
        (_, "result_withheld") => "withheld",
        (_, reason) if reason.starts_with("journal_") || reason == "seal_failed" => "unavailable",
        _ => "denied",
    }
}

/// The answer to a refused request.
pub fn line(id: &Id, method: &str, refusal: &Refusal) -> String {
    let kind = kind(refusal);
    let what = match kind {
        "held" => "held: a person has to acknowledge this call before it runs",
        "withheld" => "the call ran, and its result is withheld",
        "unavailable" => "denied: the gateway cannot record decisions now",
        _ => "denied by policy",
    };
    let advice = refusal.advice.as_deref().map(|advice| format!("; {advice}")).unwrap_or_default();
    let text = format!("{what}{advice} (decision {})", refusal.id);
    let code = match (kind, refusal.reason.as_str()) {
        ("held", _) => HELD,
        (_, "unknown_method") => -32601,
        _ => DENIED,
    };
    answer(id, method, code, &text, kind, &refusal.id)
}

/// The answer to a request that was allowed and came to no answer.
pub fn ended(id: &Id, method: &str, decision: &DecisionId, reply: &Reply) -> String {
    let what = match reply {
        Reply::NotSent => "the server could not be reached; nothing was done",
        Reply::Cancelled => "cancelled; whether it was done is not known",
        Reply::Lost(Lost::TimedOut) => "the server did not answer in time; whether it was done is not known",
        Reply::Lost(Lost::Garbled) => "the server answered with something unreadable; whether it was done is not known",
        Reply::Lost(Lost::Aborted) => "the gateway is shutting down; whether it was done is not known",
        Reply::Lost(Lost::Gone | Lost::Crashed) | Reply::Answered { .. } => {
            "the server is gone; whether it was done is not known"
        }
    };
    answer(id, method, NO_ANSWER, &format!("{what} (decision {decision})"), "no_answer", decision)
}

fn answer(id: &Id, method: &str, code: i64, text: &str, kind: &str, decision: &DecisionId) -> String {
    if method == "tools/call" {
        let result = json!({
            "content": [{ "type": "text", "text": text }],
            "isError": true,
            "_meta": { "warden/kind": kind, "warden/decision": decision },
        });
        rpc::result(id, &result)
    } else {
        rpc::error(id, code, text, Some(json!({ "kind": kind, "decision": decision })))
    }
}
