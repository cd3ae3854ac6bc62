//! What the provider answers, and how to tell that an answer is whole.

use bytes::Bytes;
use clap::ValueEnum;
use memchr::memmem::{Finder, find};
use serde_json::{Value, json};

/// The model that is asked.
pub(crate) const MODEL: &str = "mock";
/// The provider's key. Whoever asks the provider has to have it.
pub(crate) const KEY: &str = "sk-mock";

/// The answer, as it is streamed.
const PIECES: [&str; 20] = [
    "Small ",
    "boats ",
    "lie ",
    "along ",
    "the inner ",
    "wall, ",
    "where ",
    "water ",
    "stays ",
    "quiet ",
    "even ",
    "in ",
    "autumn; ",
    "larger ",
    "ones ",
    "wait ",
    "outside ",
    "until ",
    "it ",
    "turns.",
];
/// What else a long answer says, so that it has about as many bytes as usual.
const REST: &str = " Nobody pays on the first day. On the second the fee is due in the morning, and whoever has not paid \
                    is asked to leave with the next tide.";
const END: &[u8] = b"data: [DONE]";

/// How an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// As one JSON object
    Unary,
    /// As events
    Sse,
}

impl Mode {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Unary => "unary",
            Mode::Sse => "SSE",
        }
    }
}

/// One JSON object, of about 600 bytes.
pub(crate) fn whole() -> Bytes {
    let message = json!({ "role": "assistant", "content": PIECES.concat() + REST, "refusal": null });
    let answer = json!({
        "id": "chatcmpl-000000000000000000000001", "object": "chat.completion", "created": 1_760_000_000, "model": MODEL,
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": "stop" }],
        "usage": usage(), "system_fingerprint": "fp_0000000000",
    });
    answer.to_string().into()
}

/// The events, in their order: the text, how it ended, the usage if that was asked for, and the end.
pub(crate) fn events(usage_asked: bool) -> Vec<Bytes> {
    let mut events: Vec<Bytes> = PIECES.iter().map(|piece| chunk(&json!({ "content": piece }), &Value::Null)).collect();
    events.push(chunk(&json!({}), &"stop".into()));
    if usage_asked {
        events.push(event(&json!([]), usage()));
    }
    events.push(Bytes::from([END, b"\n\n"].concat()));
    events
}

fn chunk(delta: &Value, finish_reason: &Value) -> Bytes {
    event(&json!([{ "index": 0, "delta": delta, "finish_reason": finish_reason }]), Value::Null)
}

fn event(choices: &Value, usage: Value) -> Bytes {
    let mut event = json!({
        "id": "chatcmpl-000000000000000000000001", "object": "chat.completion.chunk", "created": 1_760_000_000,
        "model": MODEL, "choices": choices,
    });
    if !usage.is_null() {
        event["usage"] = usage;
    }
    format!("data: {event}\n\n").into()
}

fn usage() -> Value {
    json!({ "prompt_tokens": 64, "completion_tokens": 48, "total_tokens": 112 })
}

/// Knows a whole answer.
pub(crate) struct Check {
    /// What stands in it, in this order.
    parts: Vec<Finder<'static>>,
    end: &'static [u8],
}

impl Check {
    /// Of answers that come so, with their usage.
    pub(crate) fn new(mode: Mode) -> Self {
        let usage = "\"total_tokens\"".to_owned();
        let (parts, end) = match mode {
            Mode::Unary => (vec![format!("\"{}\"", PIECES.concat() + REST), usage], b"}".as_slice()),
            Mode::Sse => (PIECES.iter().map(|piece| format!("\"{piece}\"")).chain([usage]).collect(), END),
        };
        Self { parts: parts.iter().map(|part| Finder::new(part.as_bytes()).into_owned()).collect(), end }
    }

    /// Whether nothing is missing.
    pub(crate) fn passes(&self, answer: &[u8]) -> bool {
        let mut rest = answer;
        for part in &self.parts {
            let Some(at) = part.find(rest) else { return false };
            rest = &rest[at + part.needle().len()..];
        }
        answer.trim_ascii_end().ends_with(self.end) && find(rest, self.end).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_has_the_usual_size_and_passes() {
        let whole = whole();
        assert!(whole.len().abs_diff(600) < 60, "{}", whole.len());
        assert!(Check::new(Mode::Unary).passes(&whole));
        assert!(!Check::new(Mode::Unary).passes(&whole[..whole.len() - 1]));
        assert!(!Check::new(Mode::Unary).passes(br#"{"error":{}}"#));
    }

    #[test]
    fn a_stream_passes_when_nothing_is_missing() {
        let (check, events) = (Check::new(Mode::Sse), events(true));
        assert_eq!(events.len(), 23);
        assert!(check.passes(&events.concat()));
        for missing in (0..20).chain([21, 22]) {
            let mut events = events.clone();
            events.remove(missing);
            assert!(!check.passes(&events.concat()), "{missing}");
        }
    }

    #[test]
    fn usage_comes_when_asked_for() {
        assert!(!Check::new(Mode::Sse).passes(&events(false).concat()));
    }
}
