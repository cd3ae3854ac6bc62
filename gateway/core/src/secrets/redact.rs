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
    let by = values(scanner, raw);
    let body = json::parse(by.as_bytes(), LIMITS).ok()?;
    scanner.scan(&body, "").is_clean().then_some((by, body))
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
