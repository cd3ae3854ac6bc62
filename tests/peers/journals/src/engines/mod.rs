//! What is measured, each in a file of its own.

mod bare;
mod fjall;
mod redb;
mod sled;
mod sqlite;
mod warden;

use crate::cell::{Figures, Span};
use crate::records::Records;
use crate::stop::Stop;
use crate::{Outcome, group};
use clap::ValueEnum;
use std::path::Path;
use tokio::runtime::Runtime;

/// A store that makes batches durable. One thread has it.
pub(crate) trait Engine: Send + 'static {
    /// Returns once every record of `batch` would survive a power cut.
    fn commit(&mut self, batch: &[Vec<u8>]) -> Outcome<()>;
}

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A file of zeros, write and fdatasync
    Bare,
    /// The gateway's journal
    Warden,
    /// SQLite with a WAL, synchronous=FULL
    Sqlite,
    /// sled, with an fdatasync after its flush
    Sled,
    /// fjall, SyncData
    Fjall,
    /// redb, durability immediate
    Redb,
}

impl Kind {
    /// As it is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare",
            Kind::Warden => "warden",
            Kind::Sqlite => "sqlite",
            Kind::Sled => "sled",
            Kind::Fjall => "fjall",
            Kind::Redb => "redb",
        }
    }

    /// Opens it in an empty folder and measures it.
    pub(crate) fn measure(
        self,
        dir: &Path,
        runtime: &Runtime,
        records: &Records,
        span: Span,
        stop: &Stop,
    ) -> Outcome<Figures> {
        match self {
            Kind::Bare => group::measure(bare::Bare::open(dir)?, runtime, records, span, stop),
            Kind::Warden => warden::measure(dir, runtime, records, span, stop),
            Kind::Sqlite => group::measure(sqlite::Sqlite::open(dir)?, runtime, records, span, stop),
            Kind::Sled => group::measure(sled::Sled::open(dir)?, runtime, records, span, stop),
            Kind::Fjall => group::measure(fjall::Fjall::open(dir)?, runtime, records, span, stop),
            Kind::Redb => group::measure(redb::Redb::open(dir)?, runtime, records, span, stop),
        }
    }
}
