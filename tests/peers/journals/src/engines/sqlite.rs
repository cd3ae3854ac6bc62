//! SQLite: a table in WAL mode. With synchronous=FULL it syncs the WAL at every commit; one transaction a batch.

use super::Engine;
use crate::Outcome;
use rusqlite::Connection;
use std::path::Path;

/// See the module.
pub(super) struct Sqlite(Connection);

impl Sqlite {
    pub(super) fn open(dir: &Path) -> Outcome<Self> {
        let connection = Connection::open(dir.join("records.db"))?;
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(format!("there is no WAL: its journal mode stays `{mode}`").into());
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, record BLOB NOT NULL)", [])?;
        Ok(Self(connection))
    }
}

impl Engine for Sqlite {
    fn commit(&mut self, batch: &[Vec<u8>]) -> Outcome<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO records (record) VALUES (?1)")?;
            for record in batch {
                insert.execute([record])?;
            }
        }
        Ok(transaction.commit()?)
    }
}
