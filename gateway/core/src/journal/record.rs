//! Record format version 7: one JSON object a record. Version 6 lacked the kinds `session` and `delegate`, of a decision `delegate`, `history`,
//! `context.session` and the scope in `context.task`, and of an outcome `ran`. Version 5 lacked the kinds `ack` and `inbox`, and of a decision `held`, `again` and
//! `acknowledged`. Version 4 lacked the kinds `budget` and `task`, and what has to do with engines
//! and budgets: of a decision `engine`, `reserved`, `context.budget` and `context.task`, of an outcome `engine` and `settled`. Version 3 lacked what a decision would have been, and of a change of what decides
//! the shadow and the modes of rules. Version 2 lacked the suspicions of a decision and their number in an
//! outcome, the fingerprint and the disguises of a finding, and redacted answers. Version 1 lacked the kinds `read`, `retention`,
//! `hold` and `key` as well, and of a decision `session`, `task`, `run`, `level` and `input_sealed`. All are read as they stand.

use crate::ack::AckChange;
use crate::amount::Amount;
use crate::composition::delegate::DelegateChange;
use crate::decision::Decision;
use crate::inbox::InboxChange;
use crate::outcome::Outcome;
use crate::policy::layer::Standing;
use crate::policy::snapshot::Digests;
use crate::secrets::Scanner;
use crate::session::SessionChange;
use crate::task::TaskChange;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version that is written. Readers accept this and every older one.
pub const VERSION: u8 = 7;

/// One record. Its sequence number is its frame's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub v: u8,
    /// UTC, microseconds.
    pub ts: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// Before anything moves.
    Decision(Arc<Decision>),
    /// After it moved.
    Outcome(Outcome),
    /// What decides from here on.
    Policy(PolicyChange),
    /// An operator's act, before it takes effect.
    Operator(OperatorAct),
    /// A hot-state snapshot that was written, by its hash.
    State(StateMark),
    /// Somebody read the log.
    Read(Read),
    /// Segments that are dropped next.
    Retention(Retention),
    /// A time whose segments are not dropped, or may be again.
    Hold(HoldChange),
    /// What checkpoints are signed with from here on.
    Key(KeyChange),
    /// An operator's change of a budget, before it takes effect.
    Budget(BudgetChange),
    /// A task that is opened or over.
    Task(TaskChange),
    /// A step of an acknowledgement, before it takes effect.
    Ack(AckChange),
    /// What a run of the inbox worker came to, and its schedule.
    Inbox(Box<InboxChange>),
    /// A change of a session, before it takes effect.
    Session(Box<SessionChange>),
    /// A delegate that may speak, or may not any more.
    Delegate(DelegateChange),
}

/// A change of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetChange {
    /// Which: a configured one, or a share of one.
    pub budget: String,
    /// Who.
    pub operator: String,
    /// The time that it counts in. Never earlier than that of a reservation before it.
    pub at: Timestamp,
    /// What it is given beside its limits: for ever, and in the windows of that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Amount>,
    /// Whether it is frozen from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
}

/// A change of what decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Why.
    pub event: PolicyEvent,
    /// What decides from here on.
    pub digests: Digests,
    /// Who applied it; nobody at a start, or when a first listing filled the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Tools that were added or classified, as `SERVER/TOOL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Rules whose mode an operator has changed, and to what. Absent in records of version 3 and before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modes: BTreeMap<String, Standing>,
    /// Whether the site is in shadow: its rules are recorded and not enforced.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// The ways in which what decides changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyEvent {
    /// The gateway started with it.
    Started,
    /// An operator applied a pending policy folder.
    Applied,
    /// `serve --watch` applied it by itself.
    Watched,
    /// A server's first listing filled the catalogue.
    Catalogued,
    /// An operator classified tools.
    Classified,
    /// A server lists known tools with another definition: they wait for an operator.
    Quarantined,
    /// An operator took a tool in, or approved its new definition.
    Approved,
    /// An operator dismissed a tool's new definition: it is held until its server lists the known one again.
    Pinned,
    /// Servers list tools as they are known again, whose other definition an operator has dismissed.
    Returned,
    /// A change that was recorded could not be written: what decided before still does.
    Kept,
    /// An operator promoted or demoted a rule.
    Moded,
    /// An operator registered a composition.
    Composed,
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorAct {
    /// The operator's name.
    pub operator: String,
    /// What: `token_issue`, `token_revoke`, `operator_add`, `operator_revoke`, `policy_apply`, `policy_promote`, `policy_demote`, `tools_classify`,
    /// `tools_pin`, `tools_approve`,
    /// `worker_erase`, `secret_register`, `secret_forget`, `secret_allow`, `secret_disallow`, `brief_accept`.
    pub act: String,
    /// To what.
    pub object: String,
}

/// A hot-state snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMark {
    /// The first sequence number that is not in it.
    pub next_seq: u64,
    /// SHA-256 of the file, `sha256:` and hex.
    pub hash: String,
}

/// A look into the log, recorded before it is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// Who.
    pub operator: String,
    /// How: `query`, `show`, `timeline`, `stats`, `stream`, `export`, `ack_show`.
    pub how: String,
    /// What was asked for.
    pub query: Value,
}

/// Whole segments that retention drops. Their leaf hashes stay, so earlier proofs still hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How many segments.
    pub segments: u64,
    /// The first sequence number that goes.
    pub first_seq: u64,
    /// The first that stays.
    pub next_seq: u64,
    /// The Merkle root over everything before that, `sha256:` and hex.
    pub root: String,
    /// Why: `age`, `size` or `operator`.
    pub why: String,
    /// Who asked for it, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

/// A hold, placed or released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldChange {
    /// Its name.
    pub name: String,
    /// What it keeps; absent when it is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<Hold>,
    /// By whom.
    pub operator: String,
}

/// A time whose records are kept, whatever retention says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// From; the beginning when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Before; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A key that signs checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// What its signatures are checked with: `NAME+ID+BASE64`.
    pub verifier: String,
    /// The one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Who rotated it; nobody when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

/// Stored bytes that are no record.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not the JSON of a record.
    #[error("not a record: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer Warden.
    #[error("record version {0}, and this Warden reads up to {VERSION}")]
    Version(u64),
}

impl Body {
    /// Whether it says what an operator did, or what follows from it.
    pub fn is_of_operators(&self) -> bool {
        matches!(
            self,
            Body::Operator(_)
                | Body::Policy(_)
                | Body::Retention(_)
                | Body::Hold(_)
                | Body::Key(_)
                | Body::State(_)
                | Body::Budget(_)
                | Body::Ack(_)
        )
    }

    /// The kind, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Body::Decision(_) => "decision",
            Body::Outcome(_) => "outcome",
            Body::Policy(_) => "policy",
            Body::Operator(_) => "operator",
            Body::State(_) => "state",
            Body::Read(_) => "read",
            Body::Retention(_) => "retention",
            Body::Hold(_) => "hold",
            Body::Key(_) => "key",
            Body::Budget(_) => "budget",
            Body::Task(_) => "task",
            Body::Ack(_) => "ack",
            Body::Inbox(_) => "inbox",
            Body::Session(_) => "session",
            Body::Delegate(_) => "delegate",
        }
    }
}

impl Record {
    /// A record of now.
    pub fn new(ts: Timestamp, body: Body) -> Self {
        Self { v: VERSION, ts, body }
    }

    /// The bytes that are stored and hashed. The one place where anything becomes part of the journal, so the last
    /// look for secrets is here (W4).
    pub fn to_bytes(&self, scanner: &Scanner) -> Vec<u8> {
        if let Ok(text) = serde_json::to_string(self)
            // An escape hides what stands beside it; with one, every string is looked at on its own.
            && !text.contains('\\')
            && scanner.is_plain(&text)
        {
            return text.into_bytes();
        }
        let mut value = serde_json::to_value(self).unwrap_or(Value::Null);
        // What is encrypted shows nothing, and must be read back whole.
        let mut sealed = Vec::new();
        if let Some(members) = value.as_object_mut() {
            // What a person wrote to a worker is encrypted, and its place is a session's alone.
            sealed.extend(
                ["sealed", "input_sealed", "text"].into_iter().filter_map(|name| members.shift_remove_entry(name)),
            );
        }
        mask(&mut value, scanner);
        if let Some(members) = value.as_object_mut() {
            members.extend(sealed);
        }
        value.to_string().into_bytes()
    }

    /// Reads stored bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            v: u64,
        }
        let record: Result<Self, _> = serde_json::from_slice(bytes);
        match record {
            Ok(record) if record.v <= VERSION => Ok(record),
            // A newer one may be anything else.
            read => match (serde_json::from_slice::<Versioned>(bytes), read) {
                (Ok(Versioned { v }), _) if v > u64::from(VERSION) => Err(Unreadable::Version(v)),
                (_, Err(e)) => Err(e.into()),
                (_, Ok(record)) => Err(Unreadable::Version(record.v.into())),
            },
        }
    }
}

fn mask(value: &mut Value, scanner: &Scanner) {
    match value {
        Value::String(text) => {
            if let std::borrow::Cow::Owned(masked) = scanner.mask(text) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, scanner)),
        Value::Object(members) => {
            if members.keys().any(|name| matches!(scanner.mask(name), std::borrow::Cow::Owned(_))) {
                let old = std::mem::take(members);
                members.extend(old.into_iter().map(|(name, v)| (scanner.mask(&name).into_owned(), v)));
            }
            members.values_mut().for_each(|value| mask(value, scanner));
        }
        _ => {}
    }
}
