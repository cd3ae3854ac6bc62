//! Repeated identical denials, coalesced: a worker that loops cannot fill the disk.

use crate::decision::{Decision, Enforced};
use crate::proposal::DecisionId;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// Identical denials of one worker that are recorded one by one within a window.
pub const EACH_MAX: u64 = 4;
/// The window.
pub const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// Different denials that are watched at once; more are recorded one by one.
const WATCHED_MAX: usize = 4096;

/// What becomes of a denial.
#[derive(Debug, PartialEq)]
pub enum Admission {
    /// Record it; it stands for so many unrecorded ones besides itself.
    Record {
        /// How many.
        repeated: u64,
    },
    /// It is counted, and answered with the id of the last recorded one.
    Count(DecisionId),
}

#[derive(Debug)]
struct Seen {
    since: Timestamp,
    recorded: u64,
    counted: u64,
    last: Decision,
}

/// The denials of the running window.
#[derive(Debug, Default)]
pub struct Denials {
    seen: HashMap<String, Seen>,
}

impl Denials {
    /// Takes in a denial.
    pub fn admit(&mut self, denial: &Decision, now: Timestamp) -> Admission {
        let key = key(denial);
        if self.seen.len() >= WATCHED_MAX && !self.seen.contains_key(&key) {
            return Admission::Record { repeated: 0 };
        }
        let seen =
            self.seen.entry(key).or_insert_with(|| Seen { since: now, recorded: 0, counted: 0, last: denial.clone() });
        if now.duration_since(seen.since) >= WINDOW {
            *seen = Seen { since: now, recorded: 0, counted: seen.counted, last: denial.clone() };
        }
        if seen.recorded < EACH_MAX {
            seen.recorded += 1;
            seen.last = denial.clone();
            return Admission::Record { repeated: std::mem::take(&mut seen.counted) };
        }
        seen.counted += 1;
        Admission::Count(seen.last.id.clone())
    }

    /// Forgets windows that are over; each one that counted something is returned, to be recorded once more. With
    /// `now` absent all windows are over.
    pub fn sweep(&mut self, now: Option<Timestamp>) -> Vec<Decision> {
        let over = |seen: &Seen| now.is_none_or(|now| now.duration_since(seen.since) >= WINDOW);
        let mut counted = Vec::new();
        self.seen.retain(|_, seen| {
            if over(seen) && seen.counted > 0 {
                // It stands for those that were counted, of which it is one itself.
                counted.push(Decision { repeated: seen.counted - 1, ..seen.last.clone() });
            }
            !over(seen)
        });
        counted
    }
}

fn key(denial: &Decision) -> String {
    let tool = denial.tool.as_deref().unwrap_or_default();
    // What a caller asked about is somebody else each time.
    let asked = if denial.enforced == Enforced::Caller { denial.payload_tag.as_str() } else { "" };
    // What rules in shadow say is recorded, so it is not counted away.
    let beside = denial.would_be.as_ref().map_or("", |would_be| would_be.verdict.name());
    let engine = denial.engine.as_deref().unwrap_or_default();
    // Of one state document or task, or of another.
    let task = denial.task.as_deref().unwrap_or_default();
    let resource = denial.resource.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
    let model = denial.context.input.get("model").and_then(serde_json::Value::as_str).unwrap_or_default();
    let of = [&denial.worker, &denial.server, &denial.method, tool, &denial.reason, asked, beside];
    let parts = of.into_iter().chain([engine, task, resource, model]);
    parts.map(|part| part.len().to_string() + ":" + part).collect()
}
