//! A block of the view: what up to 1024 records in a row can be found by.

use std::collections::{BTreeMap, BTreeSet};
use warden_core::decision::Decision;
use warden_core::journal::record::{Body, Record};
use warden_core::secrets::Finding;

/// Records a block holds.
pub(super) const BLOCK: usize = 1024;

/// Values that many records share: each has the offsets of its records in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// Worker's name.
    Worker,
    /// Server's name.
    Server,
    /// `SERVER/TOOL`; where there is no tool, the action.
    Tool,
    /// The action.
    Action,
    /// The verdict.
    Verdict,
    /// Who enforces it.
    Enforced,
    /// The deciding policies.
    Policy,
    /// The reason code.
    Reason,
    /// The kind of record.
    Kind,
}

impl Index {
    pub(super) fn letter(self) -> u8 {
        match self {
            Index::Worker => b'w',
            Index::Server => b's',
            Index::Tool => b't',
            Index::Action => b'a',
            Index::Verdict => b'v',
            Index::Enforced => b'e',
            Index::Policy => b'p',
            Index::Reason => b'r',
            Index::Kind => b'k',
        }
    }
}

/// Values that few records share: each record has the first bytes of their hash, and whoever looks reads the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// The decision's id, of a decision and of its outcome.
    Decision,
    /// The session.
    Session,
    /// The task.
    Task,
    /// The run.
    Run,
    /// The payload's tag, and the fingerprints of what was found in it.
    Fingerprint,
}

impl Column {
    pub(super) fn letter(self) -> u8 {
        match self {
            Column::Decision => b'D',
            Column::Session => b'S',
            Column::Task => b'T',
            Column::Run => b'R',
            Column::Fingerprint => b'F',
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) first: u64,
    /// The time of each record, in microseconds since 1970.
    pub(super) times: Vec<i64>,
    pub(super) postings: BTreeMap<(u8, String), Vec<u16>>,
    pub(super) columns: BTreeMap<u8, Vec<(u16, u32)>>,
}

impl Block {
    pub(super) fn starting(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    pub(super) fn next(&self) -> u64 {
        self.first + self.times.len() as u64
    }

    pub(super) fn push(&mut self, record: &Record) {
        let offset = u16::try_from(self.times.len()).unwrap_or(u16::MAX);
        self.times.push(record.ts.as_microsecond());
        for (index, value) in terms(record) {
            self.postings.entry((index.letter(), value)).or_default().push(offset);
        }
        for (column, value) in values(record) {
            self.columns.entry(column.letter()).or_default().push((offset, hash(value)));
        }
    }
}

/// What a value is found by in a column.
pub(super) fn hash(value: &str) -> u32 {
    // FNV-1a. Any even hash does: values that share one are told apart by their records.
    value.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The tool as people name it.
pub(super) fn tool(decision: &Decision) -> String {
    match &decision.tool {
        Some(tool) => format!("{}/{tool}", decision.server),
        None => decision.action.clone(),
    }
}

/// Of everything that was found in a payload or in an answer.
pub(super) fn fingerprints(body: &Body) -> impl Iterator<Item = &str> {
    let (findings, suspicions): (&[Finding], &[Finding]) = match body {
        Body::Decision(decision) => (&decision.context.secret_findings, &decision.context.suspicions),
        Body::Outcome(outcome) => (&outcome.secret_findings, &[]),
        _ => (&[], &[]),
    };
    findings.iter().chain(suspicions).filter_map(|finding| finding.fingerprint.as_deref())
}

fn terms(record: &Record) -> BTreeSet<(Index, String)> {
    let mut terms = BTreeSet::from([(Index::Kind, record.body.kind().to_owned())]);
    if let Body::Decision(decision) = &record.body {
        terms.insert((Index::Worker, decision.worker.clone()));
        terms.insert((Index::Server, decision.server.clone()));
        terms.insert((Index::Tool, tool(decision)));
        terms.insert((Index::Action, decision.action.clone()));
        terms.insert((Index::Verdict, decision.verdict.name().into()));
        terms.insert((Index::Enforced, decision.enforced.name().into()));
        terms.insert((Index::Reason, decision.reason.clone()));
        terms.extend(decision.policies.iter().map(|policy| (Index::Policy, policy.clone())));
    }
    terms
}

fn values(record: &Record) -> Vec<(Column, &str)> {
    match &record.body {
        Body::Decision(decision) => {
            let mut values = vec![(Column::Decision, decision.id.as_str())];
            values.extend(decision.session.as_deref().map(|session| (Column::Session, session)));
            values.extend(decision.task.as_deref().map(|task| (Column::Task, task)));
            values.extend(decision.run.as_deref().map(|run| (Column::Run, run)));
            values.push((Column::Fingerprint, &decision.payload_tag));
            values.extend(fingerprints(&record.body).map(|fingerprint| (Column::Fingerprint, fingerprint)));
            values
        }
        Body::Outcome(outcome) => {
            let found = fingerprints(&record.body).map(|fingerprint| (Column::Fingerprint, fingerprint));
            std::iter::once((Column::Decision, outcome.decision.as_str())).chain(found).collect()
        }
        Body::Session(change) => vec![(Column::Session, change.session.as_str())],
        _ => Vec::new(),
    }
}
