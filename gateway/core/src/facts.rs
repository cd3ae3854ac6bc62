//! Everything policy may see about a proposal, gathered before deciding. Callers can set none of it.

use crate::budget::BudgetFacts;
use crate::catalogue::input::{self, Input, Refusal};
use crate::catalogue::is_path_name;
use crate::catalogue::ty::Ty;
use crate::json::Json;
pub use crate::proposal::Mode;
use crate::proposal::{Ask, Proposal, TaskFacts};
use crate::secrets::{Finding, Scan, Scanner};
use crate::session::SessionFacts;
use std::borrow::Cow;

/// The facts of one proposal: the base fields of `context`, and its input.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether a person has acknowledged this exact proposal.
    pub acknowledged: bool,
    /// How the worker runs.
    pub mode: Mode,
    /// Secret values in what would be forwarded.
    pub findings: Vec<Finding>,
    /// What looks like a secret value there and proves nothing.
    pub suspicions: Vec<Finding>,
    /// Whether a path argument has a `..` segment.
    pub dot_segments: bool,
    /// The budgets of a call that costs something.
    pub budget: Option<BudgetFacts>,
    /// The task that encloses it.
    pub task: Option<TaskFacts>,
    /// The session that it belongs to, or would start.
    pub session: Option<SessionFacts>,
    /// The arguments.
    pub input: Input,
}

/// The facts, or the arguments' refusal together with what was found in them.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// What was found in what would have been forwarded.
    pub scan: Scan,
}

/// What is found in everything that would be forwarded.
pub fn scan(proposal: &Proposal, scanner: &Scanner) -> Scan {
    let envelope = scanner.scan(&proposal.envelope, "").outbound("");
    envelope.and(scanner.scan(&proposal.arguments, "/params/arguments").outbound("/params/arguments"))
}

/// Gathers the facts of `proposal`, whose arguments have the type `ty`. `paths` are further names of path arguments,
/// `scan` is what [`scan`] found.
pub fn gather(proposal: &Proposal, ty: &Ty, paths: &[String], scan: Scan) -> Result<Facts, Refused> {
    match input::read(ty, &proposal.arguments) {
        Err(refusal) => Err(Refused { refusal, scan }),
        Ok(input) => Ok(Facts {
            acknowledged: false,
            mode: proposal.mode,
            findings: scan.findings,
            suspicions: scan.suspicions,
            dot_segments: has_dot_segments(&proposal.arguments, paths, false),
            budget: None,
            task: match &proposal.ask {
                Ask::Engine(ask) => Some(ask.facts.clone()),
                _ => None,
            },
            session: None,
            input,
        }),
    }
}

/// Whether a string below a path argument has a `..` segment.
fn has_dot_segments(json: &Json, paths: &[String], is_path: bool) -> bool {
    match json {
        Json::String(text) => is_path && climbs(text),
        Json::Array(items) => items.iter().any(|item| has_dot_segments(item, paths, is_path)),
        Json::Object(members) => members.iter().any(|(name, value)| {
            let is_path = is_path || is_path_name(name) || paths.iter().any(|path| path == name);
            has_dot_segments(value, paths, is_path)
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

/// More rounds of percent-encoding than anybody has a reason for.
const DECODINGS_MAX: usize = 8;

/// Whether a path has a `..` segment, plain or percent-encoded; also when it is encoded too often to be looked at.
fn climbs(path: &str) -> bool {
    let mut path = Cow::Borrowed(path.as_bytes());
    for _ in 0..DECODINGS_MAX {
        if path.split(|b| matches!(b, b'/' | b'\\')).any(|segment| segment == b"..") {
            return true;
        }
        match percent_decoded(&path) {
            Some(decoded) => path = Cow::Owned(decoded),
            None => return false,
        }
    }
    true
}

/// One round of decoding, or nothing when there is nothing to decode.
fn percent_decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let hex = |b: u8| char::from(b).to_digit(16);
    let (mut decoded, mut at, mut changed) = (Vec::with_capacity(bytes.len()), 0, false);
    while at < bytes.len() {
        let pair = match bytes.get(at + 1..at + 3) {
            Some([a, b]) if bytes[at] == b'%' => hex(*a).zip(hex(*b)),
            _ => None,
        };
        if let Some((a, b)) = pair {
            decoded.push(u8::try_from(a * 16 + b).unwrap_or(b'%'));
            at += 3;
            changed = true;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    changed.then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_seen_in_every_spelling() {
        for path in [
            "..",
            "/srv/../etc",
            "a/..",
            "..\\a",
            "%2e%2e/a",
            "/a%2f..%2fb",
            "%252e%252e%252fa",
            "file:///a/%2E./b",
            "a%5c..%5cb",
        ] {
            assert!(climbs(path), "{path}");
        }
        for path in ["/srv/a..b", "...", "/a/.b", "%2e", "100%", "a%zz", ".../x"] {
            assert!(!climbs(path), "{path}");
        }
        assert!(climbs(&format!("%{}", "25".repeat(1 << 12))), "encoded too often to be looked at");
    }

    #[test]
    fn only_path_arguments_count_at_any_depth() {
        let read = |text: &str| crate::json::parse(text.as_bytes(), crate::json::Limits::default()).unwrap();
        assert!(has_dot_segments(&read(r#"{"edits":[{"path":"../a"}]}"#), &[], false));
        assert!(has_dot_segments(&read(r#"{"paths":["a",{"x":"../a"}]}"#), &[], false));
        assert!(!has_dot_segments(&read(r#"{"text":"../a"}"#), &[], false));
        assert!(has_dot_segments(&read(r#"{"text":"../a"}"#), &["text".into()], false));
    }
}
