//! fjall: one batch, written to its journal and synced with fdatasync.

use super::Engine;
use crate::Outcome;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

/// See the module.
pub(super) struct Fjall {
    records: Keyspace,
    db: Database,
    next_seq: u64,
}

impl Fjall {
    pub(super) fn open(dir: &Path) -> Outcome<Self> {
        let db = Database::builder(dir).open()?;
        let records = db.keyspace("records", KeyspaceCreateOptions::default)?;
        Ok(Self { records, db, next_seq: 0 })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, batch: &[Vec<u8>]) -> Outcome<()> {
        let mut records = self.db.batch().durability(Some(PersistMode::SyncData));
        for (seq, record) in (self.next_seq..).zip(batch) {
            records.insert(&self.records, seq.to_be_bytes(), record.as_slice());
        }
        records.commit()?;
        self.next_seq += batch.len() as u64;
        Ok(())
    }
}
