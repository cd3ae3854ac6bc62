//! What the pipeline needs of the world. Adapters implement these; each has one suite of tests for all of them.

use crate::decision::{Decision, Sealed};
use crate::journal::record::Record;
use crate::proposal::DecisionId;
use crate::secrets::Scanner;
use jiff::Timestamp;
use std::future::Future;
use std::sync::Arc;

/// Proof that a record is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its sequence number.
    pub seq: u64,
}

/// Which room a record may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// What is left on the disk.
    Ordinary,
    /// The reserved segment as well: denials, outcomes, operators' acts.
    Reserved,
}

/// Why a record was not written. Each means: not recorded, so nothing may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// No room, or none of the kind that was asked for.
    #[error("the journal's disk is full")]
    Full,
    /// A write or a sync failed before; nothing is written until a restart has verified the journal.
    #[error("the journal failed and takes no more records")]
    Failed,
    /// Too many records wait.
    #[error("too many records wait to be written")]
    Busy,
}

impl JournalError {
    /// The reason code of the denial it leads to.
    pub fn reason(self) -> &'static str {
        match self {
            JournalError::Full => "journal_full",
            JournalError::Failed => "journal_failed",
            JournalError::Busy => "journal_busy",
        }
    }
}

/// The append-only log.
pub trait Journal: Send + Sync {
    /// Writes a record and waits until it would survive a power cut.
    fn append(&self, record: Record, room: Room) -> impl Future<Output = Result<Receipt, JournalError>> + Send;

    /// Puts a record in its place in the order and does not wait for the disk: for what is only told afterwards. It takes
    /// the reserved room as well. A crash may lose it; a later record that survives never stands without it.
    fn note(&self, record: Record) -> impl Future<Output = ()> + Send;

    /// The decision in the record with this number; nothing when there is none, or it cannot be read.
    fn decision_at(&self, seq: u64) -> impl Future<Output = Option<Decision>> + Send;
}

/// The time.
pub trait Clock: Send + Sync {
    /// UTC.
    fn now(&self) -> Timestamp;
}

/// Fresh names.
pub trait Ids: Send + Sync {
    /// An id that sorts by `now`.
    fn decision(&self, now: Timestamp) -> DecisionId;
}

/// The keys.
pub trait Vault: Send + Sync {
    /// Encrypts a held proposal, with a key of its own that is on the disk when this returns.
    fn seal(&self, id: &DecisionId, proposal: &[u8]) -> Result<Sealed, SealFailed>;

    /// Decrypts it.
    fn unseal(&self, id: &DecisionId, sealed: &Sealed) -> Result<Vec<u8>, SealFailed>;

    /// Keeps what came of a held proposal, encrypted with its key; it is on the disk when this returns.
    fn keep(&self, id: &DecisionId, result: &[u8]) -> Result<(), SealFailed>;

    /// What was kept.
    fn kept(&self, id: &DecisionId) -> Result<Vec<u8>, SealFailed>;

    /// Destroys the key of a held proposal, and what was kept of it: neither can ever be read again.
    fn destroy(&self, id: &DecisionId) -> Result<(), SealFailed>;

    /// Encrypts what a record says of a worker's arguments, with a key of that worker.
    fn seal_input(&self, worker: &str, id: &DecisionId, input: &[u8]) -> Result<Sealed, SealFailed>;

    /// What looks for secret values, with the key of their fingerprints.
    fn scanner(&self) -> &Arc<Scanner>;
}

/// Sealing failed; the proposal cannot be held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SealFailed(pub String);
