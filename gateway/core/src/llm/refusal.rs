//! No, in the words of each API: an error that its SDKs turn into the exception their users know.

use super::Api;
use crate::budget::Exceeded;
use serde_json::{Value, json};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct No {
    /// HTTP status.
    pub status: u16,
    /// The reason code.
    pub code: String,
    /// What a worker can do.
    pub message: String,
    /// `denied`, `held`, `withheld`, `malformed`, `unavailable` or `failed`.
    pub kind: &'static str,
    /// The decision, where there is one.
    pub decision: Option<String>,
    /// The budget that has not enough.
    pub exceeded: Option<Box<Exceeded>>,
}

impl No {
    /// What Warden says beside the API's own members.
    fn warden(&self) -> Value {
        let mut own = json!({ "kind": self.kind, "reason": self.code });
        if let Some(decision) = &self.decision {
            own["decision"] = json!(decision);
        }
        if let Some(exceeded) = &self.exceeded {
            own["budget"] = json!(exceeded);
        }
        own
    }

    /// The body of an answer that is nothing else.
    pub fn body(&self, api: Api) -> Value {
        let Self { status, code, message, .. } = self;
        match api {
            Api::Chat | Api::Responses => json!({ "error": { "message": message, "type": self.openai_type(),
                "param": null, "code": code, "warden": self.warden() } }),
            Api::Messages => json!({ "type": "error", "error": { "type": self.anthropic_type(), "message": message,
                "code": code, "warden": self.warden() } }),
            Api::Gemini => json!({ "error": { "code": status, "message": message, "status": self.google_status(),
                "details": [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "warden",
                    "metadata": {} }], "warden": self.warden() } }),
            Api::Execute => json!({ "error": { "code": code, "message": message, "warden": self.warden() } }),
        }
    }

    /// The last event of a stream that has begun.
    pub fn event(&self, api: Api) -> String {
        let body = self.body(api);
        match api {
            Api::Messages => format!("event: error\ndata: {body}\n\n"),
            // Some readers look for the error, others for the end of the response.
            Api::Responses => {
                let own =
                    json!({ "message": self.message, "type": self.openai_type(), "param": null, "code": self.code });
                let error = json!({ "type": "error", "code": self.code, "message": self.message, "param": null,
                    "error": own, "warden": self.warden() });
                // Of the codes that they know, this is the one after which nobody tries again.
                let failed = json!({ "type": "response.failed", "response": { "id": "refused", "object": "response",
                    "status": "failed", "output": [], "error": { "code": "invalid_prompt", "message": self.message } } });
                format!("event: error\ndata: {error}\n\nevent: response.failed\ndata: {failed}\n\n")
            }
            Api::Gemini => {
                let mut event = body;
                event["candidates"] =
                    json!([{ "index": 0, "finishReason": "PROHIBITED_CONTENT", "finishMessage": self.message }]);
                format!("data: {event}\n\n")
            }
            Api::Chat | Api::Execute => format!("data: {body}\n\n"),
        }
    }

    fn openai_type(&self) -> &'static str {
        match self.status {
            402 => "insufficient_quota",
            401 => "authentication_error",
            403 => "permission_error",
            400 | 404 | 413 | 415 => "invalid_request_error",
            _ => "api_error",
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status {
            402 => "billing_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            504 => "timeout_error",
            400..500 => "invalid_request_error",
            _ => "api_error",
        }
    }

    fn google_status(&self) -> &'static str {
        match self.status {
            402 => "RESOURCE_EXHAUSTED",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            504 => "DEADLINE_EXCEEDED",
            503 => "UNAVAILABLE",
            400..500 => "INVALID_ARGUMENT",
            _ => "INTERNAL",
        }
    }
}

/// What stands in the place of a tool call that was refused.
pub fn in_place(tool: &str, reason: &str, advice: Option<&str>) -> String {
    let advice = advice.map(|advice| format!(": {advice}")).unwrap_or_default();
    format!("[The call of the tool `{tool}` was refused ({reason}){advice}.]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Unit;
    use crate::budget::{Per, Phase};
    use expect_test::expect_file;

    #[test]
    fn x13_each_api_has_its_own_shape() {
        let exceeded = Exceeded {
            phase: Phase::Pre,
            budget: "team".into(),
            unit: Unit::Tokens,
            per: Per::Day,
            requested: 700,
            remaining: 300,
            why: None,
        };
        let no = No {
            status: 402,
            code: "budget_exceeded".into(),
            message: exceeded.to_string(),
            kind: "denied",
            decision: Some("0190-d".into()),
            exceeded: Some(Box::new(exceeded)),
        };
        let all = Api::ALL.map(|api| {
            let body = serde_json::to_string_pretty(&no.body(api)).unwrap_or_default();
            format!("{api}\n{body}\n{}", no.event(api))
        });
        expect_file!["./refusals.txt"].assert_eq(&all.join("\n"));
    }
}
