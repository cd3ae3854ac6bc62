//! Exports: a run of records in a file, and beside it (`FILE.proof`) what shows that nothing in it was changed or left out.

mod check;
mod format;

pub use check::{Checked, Wrong, check};
pub use format::Format;

use crate::files::write_private;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use warden_core::journal::proof::RangeProof;

/// The version of the proof's file.
pub const VERSION: u8 = 1;

/// What an export is of: the content of `FILE.proof`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub v: u8,
    /// The log's name.
    pub origin: String,
    /// The first sequence number.
    pub from: u64,
    /// The first that is not in it.
    pub to: u64,
    /// The time that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// And its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The signed checkpoint that covers them.
    pub checkpoint: String,
    /// The key that signed it, as the log says. Whoever checks brings the key that they trust.
    pub verifier: String,
    /// That they are part of it.
    pub range: RangeProof,
    /// The file's format.
    #[serde(default = "ndjson")]
    pub format: Format,
}

fn ndjson() -> Format {
    Format::Ndjson
}

/// What is kept of an export on its way, beside `FILE.part`.
#[derive(Serialize, Deserialize)]
struct Progress {
    manifest: Manifest,
    gzip: bool,
    /// The next record.
    next: u64,
    /// Bytes of the part that are whole.
    bytes: u64,
}

/// Records that become durable at once; an export that is broken off goes on behind them.
const CHUNK: u64 = 8192;
/// Or so many bytes.
const CHUNK_BYTES: usize = 64 << 20;

/// Writes an export. One that was broken off goes on where it was.
pub struct Exporter {
    file: File,
    path: PathBuf,
    progress: Progress,
    chunk: Vec<u8>,
}

impl Exporter {
    /// Starts, or goes on with the one in `path` that has the same times and format. `make` says what a new one is of.
    pub async fn start<E: From<io::Error>>(
        path: &Path,
        (since, until): (Option<Timestamp>, Option<Timestamp>),
        format: Format,
        make: impl AsyncFnOnce() -> Result<Manifest, E>,
    ) -> Result<Self, E> {
        let gzip = path.extension().is_some_and(|ending| ending == "gz");
        let (part, state) = (with(path, "part"), with(path, "part.json"));
        let kept: Option<Progress> = std::fs::read(&state).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let same = |kept: &Progress| {
            let manifest = &kept.manifest;
            (manifest.since, manifest.until, manifest.format, kept.gzip) == (since, until, format, gzip)
        };
        if let Some(progress) = kept.filter(same)
            && let Ok(mut file) = OpenOptions::new().write(true).open(&part)
            && file.metadata()?.len() >= progress.bytes
        {
            file.set_len(progress.bytes)?;
            file.seek(SeekFrom::End(0))?;
            return Ok(Self { file, path: path.to_owned(), progress, chunk: Vec::new() });
        }
        let manifest = Manifest { since, until, format, ..make().await? };
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        let next = manifest.from;
        let mut exporter = Self {
            file,
            path: path.to_owned(),
            progress: Progress { manifest, gzip, next, bytes: 0 },
            chunk: format.head().into_bytes(),
        };
        exporter.settle()?;
        Ok(exporter)
    }

    /// What it is of.
    pub fn manifest(&self) -> &Manifest {
        &self.progress.manifest
    }

    /// The next record that it wants.
    pub fn next(&self) -> u64 {
        self.progress.next
    }

    /// Takes the next record.
    pub fn push(&mut self, seq: u64, stored: &[u8]) -> io::Result<()> {
        if seq != self.next() {
            let state = with(&self.path, "part.json");
            return Err(io::Error::other(format!(
                "record {} is missing ({seq} came instead): retention may have dropped it; remove `{}` to begin anew",
                self.next(),
                state.display()
            )));
        }
        let Manifest { format, origin, .. } = &self.progress.manifest;
        self.chunk.extend_from_slice(format.line(seq, stored, origin)?.as_bytes());
        self.progress.next += 1;
        let is_much = self.chunk.len() >= CHUNK_BYTES;
        if self.progress.next.is_multiple_of(CHUNK) || is_much { self.settle() } else { Ok(()) }
    }

    /// Makes durable what there is. Each such piece is a gzip member of its own.
    fn settle(&mut self) -> io::Result<()> {
        let bytes = if self.progress.gzip && !self.chunk.is_empty() {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(&self.chunk)?;
            gzip.finish()?
        } else {
            std::mem::take(&mut self.chunk)
        };
        self.chunk.clear();
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.progress.bytes += bytes.len() as u64;
        write_private(&with(&self.path, "part.json"), &serde_json::to_vec(&self.progress)?)
    }

    /// All records are there: the file gets its name, its proof before it.
    pub fn finish(mut self) -> io::Result<Manifest> {
        if self.next() < self.progress.manifest.to {
            return Err(io::Error::other(format!("records from {} on are missing", self.next())));
        }
        self.settle()?;
        write_private(&proof_of(&self.path), &serde_json::to_vec_pretty(&self.progress.manifest)?)?;
        std::fs::rename(with(&self.path, "part"), &self.path)?;
        std::fs::remove_file(with(&self.path, "part.json"))?;
        crate::sync_dir(self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        Ok(self.progress.manifest)
    }
}

/// The proof of an export.
pub fn proof_of(path: &Path) -> PathBuf {
    with(path, "proof")
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
