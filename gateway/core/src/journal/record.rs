//! Record format version 1: one JSON object a record.

use crate::decision::Decision;
use crate::mac::MacKey;
use crate::outcome::Outcome;
use crate::policy::snapshot::Digests;
use crate::secrets;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The version that is written. Readers accept this and every older one.
pub const VERSION: u8 = 1;

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
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorAct {
    /// The operator's name.
    pub operator: String,
    /// What: `token_issue`, `token_revoke`, `operator_add`, `operator_revoke`, `policy_apply`, `tools_classify`.
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

/// Stored bytes that are no record.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not the JSON of a record.
    #[error("not a record: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer Warden.
    #[error("record version {0}, and this Warden reads up to {VERSION}")]
    Version(u8),
}

impl Record {
    /// A record of now.
    pub fn new(ts: Timestamp, body: Body) -> Self {
        Self { v: VERSION, ts, body }
    }

    /// The bytes that are stored and hashed. The one place where anything becomes part of the journal, so the last
    /// look for secrets is here (W4).
    pub fn to_bytes(&self, key: &MacKey) -> Vec<u8> {
        if let Ok(text) = serde_json::to_string(self)
            // An escape hides what stands beside it; with one, every string is looked at on its own.
            && !text.contains('\\')
            && secrets::first(&text).is_none()
        {
            return text.into_bytes();
        }
        let mut value = serde_json::to_value(self).unwrap_or(Value::Null);
        let sealed = value.as_object_mut().and_then(|members| members.remove("sealed"));
        mask(&mut value, key);
        if let (Some(members), Some(sealed)) = (value.as_object_mut(), sealed) {
            members.insert("sealed".into(), sealed);
        }
        value.to_string().into_bytes()
    }

    /// Reads stored bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: Self = serde_json::from_slice(bytes)?;
        if record.v > VERSION { Err(Unreadable::Version(record.v)) } else { Ok(record) }
    }
}

fn mask(value: &mut Value, key: &MacKey) {
    match value {
        Value::String(text) => {
            if let std::borrow::Cow::Owned(masked) = secrets::mask(text, key) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, key)),
        Value::Object(members) => {
            if members.keys().any(|name| matches!(secrets::mask(name, key), std::borrow::Cow::Owned(_))) {
                let old = std::mem::take(members);
                members.extend(old.into_iter().map(|(name, v)| (secrets::mask(&name, key).into_owned(), v)));
            }
            members.values_mut().for_each(|value| mask(value, key));
        }
        _ => {}
    }
}
