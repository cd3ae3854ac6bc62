//! Checking an export offline: with the file, its proof, and the public key.

use super::format::carried;
use super::{Format, Manifest, VERSION, proof_of};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use warden_core::journal::note::{Note, Untrusted, VerifierKey};
use warden_core::journal::proof::RangeCheck;
use warden_core::journal::record::Record;
use warden_core::journal::tree::leaf;

/// What an export turned out to be.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Checked {
    /// Its records.
    pub records: u64,
    /// The first sequence number.
    pub from: u64,
    /// The first that is not in it.
    pub to: u64,
    /// The log's name.
    pub origin: String,
    /// Number of records of the checkpoint.
    pub size: u64,
    /// The key that signed it.
    pub verifier: String,
}

/// Why an export is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// It cannot be read.
    #[error("cannot read `{file}`: {cause}")]
    Io {
        /// Which file.
        file: String,
        /// Why not.
        cause: io::Error,
    },
    /// It is not what the log was.
    #[error("`{file}`: {what}")]
    Changed {
        /// Which file.
        file: String,
        /// What and where.
        what: String,
    },
}

/// Checks the export in `path` against `keys`.
pub fn check(path: &Path, keys: &[VerifierKey], mut progress: impl FnMut(u64, u64)) -> Result<Checked, Wrong> {
    let proof = proof_of(path);
    let shown = |path: &Path| path.display().to_string();
    let io = |path: &Path| {
        let file = shown(path);
        move |cause: io::Error| match cause.kind() {
            // Packed or written otherwise than Warden does.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
                Wrong::Changed { file, what: format!("its content is damaged: {cause}") }
            }
            _ => Wrong::Io { file, cause },
        }
    };
    let bad = |path: &Path, what: String| Wrong::Changed { file: shown(path), what };
    let text = std::fs::read(&proof).map_err(io(&proof))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| bad(&proof, format!("it is no proof of an export: {e}")))?;
    if manifest.v > VERSION {
        return Err(bad(&proof, format!("version {} of the proof, and this Warden reads up to {VERSION}", manifest.v)));
    }
    let trusted = Note::parse(&manifest.checkpoint).map_err(Into::into).and_then(|note| {
        let checkpoint = note.checkpoint(keys)?;
        Ok::<_, Untrusted>((checkpoint, note.signer(keys).map(ToString::to_string).unwrap_or_default()))
    });
    let (checkpoint, verifier) = trusted.map_err(|e| bad(&proof, format!("its checkpoint: {e}")))?;
    if checkpoint.origin != manifest.origin {
        let what = format!("its checkpoint is of the log `{}`, not of `{}`", checkpoint.origin, manifest.origin);
        return Err(bad(&proof, what));
    }
    let run = RangeCheck::new(manifest.from, checkpoint.size, manifest.range.clone());
    if manifest.to < manifest.from || manifest.to > checkpoint.size {
        let what = format!("{} to {} is no part of a log of {} records", manifest.from, manifest.to, checkpoint.size);
        return Err(bad(&proof, what));
    }
    let mut run = run.ok_or_else(|| bad(&proof, "its hashes are not those of such a place in the log".into()))?;
    let mut lines = lines(path).map_err(io(path))?;
    let (mut line, mut number) = (String::new(), 0u64);
    if manifest.format == Format::Csv {
        (&mut lines).take(HEAD_MAX).read_line(&mut line).map_err(io(path))?;
        number += 1;
        if line != manifest.format.head() {
            return Err(bad(path, "line 1: the columns are others".into()));
        }
    }
    loop {
        line.clear();
        if !next_line(&mut lines, &mut line, manifest.format).map_err(io(path))? {
            break;
        }
        number += 1;
        let wrong = |what: String| bad(path, format!("line {number}: {what}"));
        let (seq, stored) = carried(manifest.format, &line).map_err(wrong)?;
        if seq != run.next() {
            return Err(wrong(format!("sequence number {seq} stands where {} belongs", run.next())));
        }
        if Record::from_bytes(stored.as_bytes()).is_err() {
            return Err(wrong(format!("the record of sequence number {seq} cannot be read")));
        }
        let own = manifest.format.line(seq, stored.as_bytes(), &manifest.origin);
        if own.map_err(|e| wrong(e.to_string()))? != line {
            return Err(wrong(format!("what it shows of sequence number {seq} is not what its record says")));
        }
        run.push(leaf(stored.as_bytes()));
        if seq.is_multiple_of(4096) {
            progress(seq - manifest.from, manifest.to - manifest.from);
        }
    }
    let to = run.next();
    if to != manifest.to {
        return Err(bad(
            path,
            format!("it ends before sequence number {to}, and {} belongs to it", manifest.to.saturating_sub(1)),
        ));
    }
    if run.root() != Some(checkpoint.root) {
        let (from, last) = (manifest.from, to.saturating_sub(1));
        return Err(bad(
            path,
            format!(
                "its records {from} to {last} are not those that the checkpoint covers: one was changed, or the proof was"
            ),
        ));
    }
    Ok(Checked {
        records: to - manifest.from,
        from: manifest.from,
        to,
        origin: manifest.origin,
        size: checkpoint.size,
        verifier,
    })
}

/// The longest line: a record of the journal, escaped.
const LINE_MAX: u64 = 256 << 20;
/// The longest line of columns.
const HEAD_MAX: u64 = 4096;

/// One line, or for CSV one row, whose cells may hold line breaks.
fn next_line(lines: &mut dyn BufRead, line: &mut String, format: Format) -> io::Result<bool> {
    let mut quotes = 0;
    loop {
        let start = line.len();
        if lines.take(LINE_MAX).read_line(line)? == 0 {
            return Ok(!line.is_empty());
        }
        quotes += line[start..].bytes().filter(|b| *b == b'"').count();
        if format != Format::Csv || quotes.is_multiple_of(2) {
            return Ok(true);
        }
        if line.len() as u64 > LINE_MAX {
            return Err(io::Error::other("a line is too long"));
        }
    }
}

/// The lines of a file, unpacked when it is packed.
fn lines(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let packed = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0))?;
    Ok(if packed { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(BufReader::new(file)) })
}
