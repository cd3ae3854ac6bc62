//! redb: one transaction a batch, on the disk when its commit returns.

use super::Engine;
use crate::Outcome;
use redb::{Database, Durability, TableDefinition};
use std::path::Path;

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

/// See the module.
pub(super) struct Redb {
    db: Database,
    next_seq: u64,
}

impl Redb {
    pub(super) fn open(dir: &Path) -> Outcome<Self> {
        Ok(Self { db: Database::create(dir.join("records.redb"))?, next_seq: 0 })
    }
}

impl Engine for Redb {
    fn commit(&mut self, batch: &[Vec<u8>]) -> Outcome<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for (seq, record) in (self.next_seq..).zip(batch) {
                records.insert(seq, record.as_slice())?;
            }
        }
        transaction.commit()?;
        self.next_seq += batch.len() as u64;
        Ok(())
    }
}
