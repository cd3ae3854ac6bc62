//! A refusal in the protocol's words. A refused tool call is a normal result with `isError`, so that the model can go on
//! with something else; any other method gets a JSON-RPC error. The worker sees kind, advice and decision id.

use serde_json::json;
use warden_core::outcome::{Lost, Reply};
use warden_core::pipeline::Refusal;
use warden_core::proposal::DecisionId;
use warden_core::rpc::{self, Id};
use warden_core::verdict::Verdict;

/// Denied.
pub const DENIED: i64 = -31003;
/// Held until a person acknowledges it.
pub const HELD: i64 = -31004;
/// Allowed, and no answer came.
pub const NO_ANSWER: i64 = -31005;

/// What a worker is told of a refusal.
pub fn kind(refusal: &Refusal) -> &'static str {
    match (refusal.verdict, refusal.reason.as_str()) {
        (Verdict::Escalate, _) => "held",
        (_, "result_withheld") => "withheld",
        (_, reason) if reason.starts_with("journal_") || reason == "seal_failed" => "unavailable",
        _ => "denied",
    }
}

/// What a worker is told, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// One JSON-RPC message.
    pub line: String,
    /// Whether it is the server's own, byte for byte.
    pub verbatim: bool,
    /// The decision it goes back to; none for chatter.
    pub decision: Option<DecisionId>,
    /// The code, where it is an error.
    pub code: Option<i64>,
}

/// A request as far as its answer depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its id.
    pub id: &'a Id,
    /// Its method.
    pub method: &'a str,
    /// Whether it is of the modern generation.
    pub modern: bool,
}

impl Asked<'_> {
    /// The answer to a refused request.
    pub fn refused(&self, refusal: &Refusal) -> Told {
        let kind = kind(refusal);
        let what = match kind {
            "held" => {
                "held: a person has to acknowledge this call before it runs. Once that is done, the very same call runs what was held, or collects its result"
            }
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
        self.tell(code, &text, kind, &refusal.id)
    }

    /// The answer to a held request whose client can come back with a state (MCP 2026-07-28, "Multi Round-Trip Requests"). The server has no
    /// question for the client: a person is asked elsewhere.
    pub fn comes_back(&self, refusal: &Refusal, state: &str) -> Told {
        let result = json!({
            "resultType": "input_required",
            "requestState": state,
            "_meta": { "warden/kind": "held", "warden/decision": refusal.id },
        });
        let decision = Some(refusal.id.clone());
        Told { line: rpc::result(self.id, &result), verbatim: false, decision, code: None }
    }

    /// The answer to a request that was allowed and came to no answer.
    pub fn ended(&self, decision: &DecisionId, reply: &Reply) -> Told {
        let what = match reply {
            Reply::NotSent => "the server could not be reached; nothing was done",
            Reply::Cancelled => "cancelled; whether it was done is not known",
            Reply::Lost(Lost::TimedOut) => "the server did not answer in time; whether it was done is not known",
            Reply::Lost(Lost::Garbled) => {
                "the server answered with something unreadable; whether it was done is not known"
            }
            Reply::Lost(Lost::Aborted) => "the gateway is shutting down; whether it was done is not known",
            Reply::Lost(Lost::Gone | Lost::Crashed) | Reply::Answered { .. } | Reply::Passed { .. } => {
                "the server is gone; whether it was done is not known"
            }
        };
        self.tell(NO_ANSWER, &format!("{what} (decision {decision})"), "no_answer", decision)
    }

    /// The answer to chatter that came to none.
    pub fn unanswered(&self, what: &str) -> Told {
        let line = rpc::error(self.id, NO_ANSWER, what, None);
        Told { line, verbatim: false, decision: None, code: Some(NO_ANSWER) }
    }

    /// A message that is not even asked about.
    pub fn malformed(&self, code: i64, what: &str) -> Told {
        Told { line: rpc::error(self.id, code, what, None), verbatim: false, decision: None, code: Some(code) }
    }

    fn tell(&self, code: i64, text: &str, kind: &str, decision: &DecisionId) -> Told {
        if self.method != "tools/call" {
            let line = rpc::error(self.id, code, text, Some(json!({ "kind": kind, "decision": decision })));
            return Told { line, verbatim: false, decision: Some(decision.clone()), code: Some(code) };
        }
        let mut result = json!({
            "content": [{ "type": "text", "text": text }],
            "isError": true,
            "_meta": { "warden/kind": kind, "warden/decision": decision },
        });
        if self.modern {
            result["resultType"] = "complete".into();
        }
        Told { line: rpc::result(self.id, &result), verbatim: false, decision: Some(decision.clone()), code: None }
    }
}
