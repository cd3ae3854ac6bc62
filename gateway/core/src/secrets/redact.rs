//! An answer with every secret value in it replaced, and every string without one as it was, byte for byte.

use super::Scanner;
use crate::json::{self, Json, Limits};

/// What an answer may be; it was read before, within narrower limits.
const LIMITS: Limits = Limits { bytes_max: usize::MAX, depth_max: 128 };

/// The answer `raw` with each secret value in its `result` or `error` replaced by `[secret:FORMAT:FINGERPRINT]`, and that member
/// read. Nothing when something is still found then: what cannot be cut out is withheld.
pub fn answer(scanner: &Scanner, raw: &str, is_error: bool) -> Option<(String, Json)> {
    let name = if is_error { "error" } else { "result" };
    let members = json::members(raw.as_bytes(), LIMITS).ok()?;
    let (_, value) = members.iter().find(|(member, _)| member == name)?;
    let by = values(scanner, value);
    let raw = json::replaced(raw, &[name], &by)?;
    let body = json::parse(by.as_bytes(), LIMITS).ok()?;
    scanner.scan(&body, "").is_clean().then_some((raw, body))
}

/// The same of an answer that is all body.
pub fn whole(scanner: &Scanner, raw: &str) -> Option<(String, Json)> {
    let by = without_probabilities(&values(scanner, raw))?;
    let body = json::parse(by.as_bytes(), LIMITS).ok()?;
    scanner.scan(&body, "").is_clean().then_some((by, body))
}

/// An answer without its tokens' probabilities: they repeat its text token by token. One that has none stays as it is.
pub fn without_probabilities(text: &str) -> Option<String> {
    const NAMES: [&str; 2] = ["logprobs", "logprobsResult"];
    if !NAMES.iter().any(|name| text.contains(name)) {
        return Some(text.to_owned());
    }
    let mut value: serde_json::Value = serde_json::from_str(text).ok()?;
    let mut open = vec![&mut value];
    while let Some(value) = open.pop() {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    if NAMES.contains(&name.as_str()) {
                        *value = serde_json::Value::Null;
                    } else {
                        open.push(value);
                    }
                }
            }
            serde_json::Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    Some(value.to_string())
}

/// A JSON text with each secret value in its strings replaced.
fn values(scanner: &Scanner, text: &str) -> String {
    strings(text, |text| match scanner.redacted(text) {
        std::borrow::Cow::Borrowed(_) => None,
        std::borrow::Cow::Owned(text) => Some(text),
    })
}

/// A JSON text with each string, names included, replaced where `by` has another.
fn strings(text: &str, by: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        let mut escaped = false;
        let length = rest[start + 1..].bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let Some(length) = length else { break };
        let end = start + length + 2;
        let token = &rest[start..end];
        let replaced = serde_json::from_str::<String>(token).ok().and_then(|text| by(&text));
        out.push_str(&rest[..start]);
        match replaced {
            Some(text) => out.push_str(&serde_json::Value::from(text).to_string()),
            None => out.push_str(token),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}
