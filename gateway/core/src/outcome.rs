//! What really happened after a permit, "we do not know" included.

use crate::amount::{Amount, Usage};
use crate::budget::Exceeded;
use crate::budget::ledger::Basis;
use crate::json::Json;
use crate::proposal::{DecisionId, TaskId};
use crate::secrets::{Finding, Scan};
use crate::session::Ran;
use serde::{Deserialize, Serialize};

/// What a peer answered, or why it did not.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A whole answer.
    Answered {
        /// Byte for byte.
        raw: String,
        /// The same, read; `result` or `error`.
        body: Json,
        /// Whether `body` is an `error`.
        is_error: bool,
    },
    /// A whole answer that was too large to be held: it was scanned and handed on piece by piece.
    Passed {
        /// Its length.
        bytes: u64,
        /// Whether it said that it failed: an `error`, or a result with `isError`.
        failed: bool,
        /// The secret value that ended it half way.
        finding: Option<Finding>,
    },
    /// Whoever asked took it back, and no answer came.
    Cancelled,
    /// It was sent, and then the peer was gone, silent for too long, or answered garbage. Whether it was done is not known.
    Lost(Lost),
    /// It was never sent.
    NotSent,
}

/// How an answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// The peer closed or died.
    Gone,
    /// No answer in time.
    TimedOut,
    /// Something that is no answer, or one too long to read.
    Garbled,
    /// The gateway was shutting down.
    Aborted,
    /// The gateway stopped before an outcome was recorded; found at the next start.
    Crashed,
}

/// The kinds of outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// Answered with a result.
    Done,
    /// Answered that it failed.
    Failed,
    /// Answered, and nobody was given it: it held a secret value, or cost more than its budget had.
    Withheld,
    /// Answered, and handed on with every secret value in it replaced.
    Redacted,
    /// Taken back.
    Cancelled,
    /// Sent, and nobody knows.
    Unknown,
    /// Allowed, and never sent.
    NotSent,
    /// Held, and nobody acknowledged it in time; its key is destroyed.
    Expired,
}

/// What an upstream knows of what a call has used, beside its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metered {
    /// Nothing: what was set aside is taken for it.
    #[default]
    Nothing,
    /// The provider refused it, and said of no use: nothing.
    Refused,
    /// What it said.
    Used(Usage, Amount),
}

/// What a call of an engine came to. It cannot be made without its task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineEvent {
    /// The engine.
    pub engine: String,
    /// The task that encloses it (W7).
    pub task: TaskId,
    /// What the provider said it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What was taken for a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// How much.
    #[serde(flatten)]
    pub amount: Amount,
    /// By what.
    pub basis: Basis,
    /// The budget that it went over, when the provider used more than was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overshot: Option<Exceeded>,
}

/// The record of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The decision that allowed it.
    pub decision: DecisionId,
    /// What happened.
    pub happened: Happened,
    /// How an answer was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// The answer's length in bytes; bodies are never recorded.
    pub bytes: u64,
    /// From the decision's record to the answer, in milliseconds.
    pub took_ms: u64,
    /// Secret values in the answer, by format and place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_findings: Vec<Finding>,
    /// How many values in it look like secrets and prove nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub secret_suspicions: u64,
    /// Of a call of an engine. Absent in records of version 4 and before, as is `settled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineEvent>,
    /// What it tells the session it belongs to. Absent in records of version 6 and before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Ran>,
    /// What was taken for it, of what had been set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Outcome {
    /// The outcome that a reply is. `found` is what its answer holds.
    pub fn of(decision: DecisionId, reply: &Reply, found: Scan, took_ms: u64) -> Self {
        let plain = |happened, lost| Self {
            decision: decision.clone(),
            happened,
            lost,
            bytes: 0,
            took_ms,
            secret_findings: Vec::new(),
            secret_suspicions: 0,
            engine: None,
            settled: None,
            ran: None,
        };
        let suspicions = found.suspicions.len() as u64;
        match reply {
            Reply::Cancelled => plain(Happened::Cancelled, None),
            Reply::Lost(lost) => plain(Happened::Unknown, Some(*lost)),
            Reply::NotSent => plain(Happened::NotSent, None),
            Reply::Passed { bytes, failed, finding } => {
                let happened = match (finding, failed) {
                    (Some(_), _) => Happened::Withheld,
                    (None, true) => Happened::Failed,
                    (None, false) => Happened::Done,
                };
                let secret_findings = finding.iter().cloned().collect();
                Self { bytes: *bytes, secret_findings, ..plain(happened, None) }
            }
            Reply::Answered { raw, body, is_error } => {
                let secret_findings = found.outbound(if *is_error { "/error" } else { "/result" }).findings;
                let secret_suspicions = suspicions;
                let failed = *is_error || body.get("isError") == Some(&Json::Bool(true));
                let happened = match (secret_findings.is_empty(), failed) {
                    (false, _) => Happened::Withheld,
                    (true, true) => Happened::Failed,
                    (true, false) => Happened::Done,
                };
                Self { bytes: raw.len() as u64, secret_findings, secret_suspicions, ..plain(happened, None) }
            }
        }
    }
}
