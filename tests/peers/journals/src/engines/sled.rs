//! sled: one batch, one flush. Its flush hands the bytes to the kernel and starts writing them, and does not make the
//! disk's own cache durable, so an fdatasync of its file follows.

use super::Engine;
use crate::Outcome;
use std::fs::File;
use std::path::Path;

/// See the module.
pub(super) struct Sled {
    db: sled::Db,
    /// Its log, which holds every record; other files are written only for values that are larger than its segments.
    log: File,
    next_seq: u64,
}

impl Sled {
    pub(super) fn open(dir: &Path) -> Outcome<Self> {
        // Nothing is flushed in between: each batch is.
        let db = sled::Config::new().path(dir).flush_every_ms(None).open()?;
        let log = File::open(dir.join("db"))?;
        Ok(Self { db, log, next_seq: 0 })
    }
}

impl Engine for Sled {
    fn commit(&mut self, batch: &[Vec<u8>]) -> Outcome<()> {
        let mut records = sled::Batch::default();
        for (seq, record) in (self.next_seq..).zip(batch) {
            records.insert(&seq.to_be_bytes(), record.as_slice());
        }
        self.db.apply_batch(records)?;
        self.db.flush()?;
        self.log.sync_data()?;
        self.next_seq += batch.len() as u64;
        Ok(())
    }
}
