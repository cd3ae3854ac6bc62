//! The ports as the running gateway has them: the journal, the clock, ids, the keys; with every record told to log and
//! metrics as it is committed.

use crate::journal::Journal;
use crate::keys::Keys;
use crate::metrics::Metrics;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use warden_core::decision::{Decision, Sealed};
use warden_core::journal::record::{Body, Record};
use warden_core::port::{self, JournalError, Receipt, Room, SealFailed};
use warden_core::proposal::DecisionId;
use warden_core::secrets::Scanner;
use warden_core::verdict::Verdict;

/// See the module.
pub struct World {
    /// The journal.
    pub journal: Journal,
    /// The keys.
    pub keys: Keys,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What looks for secret values.
    pub scanner: Arc<Scanner>,
}

impl port::Journal for World {
    async fn append(&self, record: Record, room: Room) -> Result<Receipt, JournalError> {
        let started = Instant::now();
        if let Body::Outcome(outcome) = &record.body {
            self.metrics.called(outcome);
        }
        let verdict = match &record.body {
            Body::Decision(decision) => Some(decision.verdict),
            _ => None,
        };
        // What is allowed is the ordinary case, and stands in the journal: the log tells it only where it was asked to.
        let told = verdict.is_some_and(|verdict| verdict != Verdict::Allow) || tracing::enabled!(tracing::Level::DEBUG);
        let said = told.then(|| Said::of(&record)).flatten();
        let receipt = self.journal.append(record, room).await;
        self.metrics.appended(started.elapsed(), receipt.is_ok());
        match &receipt {
            Ok(receipt) => {
                if let Some(verdict) = verdict {
                    self.metrics.decided(verdict.name());
                }
                if let Some(said) = said {
                    said.tell(receipt.seq);
                }
            }
            Err(e) => tracing::error!(error = %e, id = said.map(|said| said.id), "not recorded"),
        }
        receipt
    }

    async fn note(&self, record: Record) {
        if let Body::Outcome(outcome) = &record.body {
            self.metrics.called(outcome);
        }
        self.journal.note(record).await;
    }

    async fn decision_at(&self, seq: u64) -> Option<Decision> {
        let mut reader = self.journal.reader();
        let read = tokio::task::spawn_blocking(move || reader.record(seq)).await;
        match read.ok()?.ok()??.body {
            Body::Decision(decision) => Some(Arc::unwrap_or_clone(decision)),
            _ => None,
        }
    }
}

/// What the log says of a decision: no argument, no body.
struct Said {
    id: String,
    worker: String,
    action: String,
    verdict: &'static str,
    reason: String,
}

impl Said {
    fn of(record: &Record) -> Option<Self> {
        match &record.body {
            Body::Decision(d) => Some(Self {
                id: d.id.to_string(),
                worker: d.worker.clone(),
                action: d.action.clone(),
                verdict: d.verdict.name(),
                reason: d.reason.clone(),
            }),
            _ => None,
        }
    }

    fn tell(&self, seq: u64) {
        let Self { id, worker, action, verdict, reason } = self;
        if *verdict == Verdict::Allow.name() {
            tracing::debug!(seq, id, worker, action, verdict, reason, "decision");
        } else {
            tracing::info!(seq, id, worker, action, verdict, reason, "decision");
        }
    }
}

impl port::Clock for World {
    fn now(&self) -> Timestamp {
        now()
    }
}

impl port::Ids for World {
    fn decision(&self, now: Timestamp) -> DecisionId {
        decision_id(now)
    }
}

impl port::Vault for World {
    fn seal(&self, id: &DecisionId, proposal: &[u8]) -> Result<Sealed, SealFailed> {
        self.keys.seal(id, proposal)
    }

    fn unseal(&self, id: &DecisionId, sealed: &Sealed) -> Result<Vec<u8>, SealFailed> {
        self.keys.unseal(id, sealed).map_err(|e| SealFailed(e.to_string()))
    }

    fn keep(&self, id: &DecisionId, result: &[u8]) -> Result<(), SealFailed> {
        self.keys.keep(id, result).map_err(|e| SealFailed(format!("cannot keep a result: {e}")))
    }

    fn kept(&self, id: &DecisionId) -> Result<Vec<u8>, SealFailed> {
        self.keys.kept(id).map_err(|e| SealFailed(format!("cannot read a result: {e}")))
    }

    fn destroy(&self, id: &DecisionId) -> Result<(), SealFailed> {
        self.keys.destroy(id).map_err(|e| SealFailed(format!("cannot destroy a key: {e}")))
    }

    fn seal_input(&self, worker: &str, id: &DecisionId, input: &[u8]) -> Result<Sealed, SealFailed> {
        self.keys.seal_input(worker, id, input)
    }

    fn scanner(&self) -> &Arc<Scanner> {
        &self.scanner
    }
}

/// The time in microseconds, which is what records keep.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// A UUID version 7 ([RFC 9562 §5.7](https://www.rfc-editor.org/rfc/rfc9562#section-5.7)): sorts by time.
pub fn decision_id(now: Timestamp) -> DecisionId {
    let ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    let ts = uuid::Timestamp::from_unix(uuid::NoContext, ms / 1000, u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000);
    DecisionId::new(uuid::Uuid::new_v7(ts).to_string())
}
