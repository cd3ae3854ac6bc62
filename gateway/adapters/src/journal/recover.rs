//! Opening a journal: what a crash leaves is mended, what only damage leaves is refused, by file and byte.

use super::segment::{self, Segment};
use super::{Head, Options};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use warden_core::catalogue::sha256_hex;
use warden_core::journal::frame::{self, Damage, SegmentHeader, Tail};
use warden_core::journal::record::{Body, Record};
use warden_core::journal::state::State;
use warden_core::journal::tree::{Frontier, leaf};

/// Why a journal is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The journal was changed by something else than Warden.
    #[error("journal damaged: `{}`: {what}; keep the folder as it is, and restore it from a copy or start with an empty one", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// What and where.
        what: String,
    },
}

impl OpenError {
    pub(super) fn io(what: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), cause }
    }

    fn damaged(path: &Path, what: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.to_string() }
    }
}

pub(super) struct Recovered {
    pub(super) segment: Segment,
    pub(super) head: Head,
}

/// A hot-state snapshot's file.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    v: u8,
    tree: Frontier,
    state: State,
}

pub(super) fn open(dir: &Path, options: Options) -> Result<Recovered, OpenError> {
    let journal = dir.join("journal");
    for folder in [&journal, &dir.join("state")] {
        std::fs::create_dir_all(folder).map_err(|e| OpenError::io("create", folder, e))?;
    }
    segment::sweep(&journal).map_err(|e| OpenError::io("clean up", &journal, e))?;
    let mut segments = segment::list(&journal).map_err(|e| OpenError::io("list", &journal, e))?;
    if segments.is_empty() {
        let header = SegmentHeader { first_seq: 0, root_before: Frontier::default().root() };
        let begun = segment::zero_filled_spare(&journal, options.segment_bytes)
            .and_then(|file| Segment::begin(&journal, file, &header));
        let segment = begun.map_err(|e| OpenError::io("create a segment in", &journal, e))?;
        segment::reserve(&journal, options.reserved_bytes);
        return Ok(Recovered { segment, head: Head::default() });
    }
    let (start, mut head) = newest_snapshot(dir, &segments)?;
    let mut end = 0;
    let last = segments.len() - 1;
    for (number, (first_seq, path)) in segments.drain(..).enumerate().skip(start) {
        let read = read_segment(&path, first_seq, &mut head, number == last)?;
        if number == last {
            end = read.offset();
            let segment =
                Segment::resume(&path, end as u64, head.tree.size()).map_err(|e| OpenError::io("open", &path, e))?;
            let settled = std::fs::read(&path)
                .and_then(|bytes| segment.settle(bytes.get(..end).unwrap_or_default()))
                .and_then(|()| crate::sync_dir(&journal));
            settled.map_err(|e| OpenError::io("make durable", &path, e))?;
            if let Tail::Torn(at) = read {
                tracing::warn!(file = %path.display(), byte = at, next_seq = head.tree.size(),
                    "the last write was cut off and is cleared; nothing in it was acknowledged");
                segment.clear_tail().map_err(|e| OpenError::io("clear the tail of", &path, e))?;
            }
            segment::reserve(&journal, options.reserved_bytes);
            return Ok(Recovered { segment, head });
        }
    }
    Err(OpenError::damaged(&journal, format!("no segment to go on in after byte {end}")))
}

/// The last segment that starts with the mark of a snapshot that is there and whole, and what it holds.
fn newest_snapshot(dir: &Path, segments: &[(u64, PathBuf)]) -> Result<(usize, Head), OpenError> {
    for (number, (first_seq, path)) in segments.iter().enumerate().rev() {
        let bytes = head_of(path).map_err(|e| OpenError::io("read", path, e))?;
        let Some(frame) = frame::at(&bytes, frame::SEGMENT_HEADER) else { continue };
        let Ok(Record { body: Body::State(mark), .. }) = Record::from_bytes(frame.payload) else { continue };
        let Ok(Some(header)) = frame::read_header(&bytes) else { continue };
        if mark.next_seq != *first_seq || header.first_seq != *first_seq {
            continue;
        }
        let Ok(text) = std::fs::read(snapshot_path(dir, *first_seq)) else { continue };
        if sha256_hex(&text) != mark.hash {
            tracing::warn!(file = %snapshot_path(dir, *first_seq).display(), "a hot-state snapshot does not match its hash and is not used");
            continue;
        }
        let Ok(Snapshot { tree, state, .. }) = serde_json::from_slice(&text) else { continue };
        if tree.size() == *first_seq && tree.root() == header.root_before {
            return Ok((number, Head { tree, state }));
        }
    }
    match segments.first() {
        Some((0, _)) | None => Ok((0, Head::default())),
        Some((first, path)) => Err(OpenError::damaged(
            path,
            format!("it starts at sequence number {first}, and what came before is missing"),
        )),
    }
}

fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(1 << 16).read_to_end(&mut bytes)?;
    Ok(bytes)
}

enum Wrong {
    Damage(Damage),
    Record(String),
}

impl From<Damage> for Wrong {
    fn from(damage: Damage) -> Self {
        Wrong::Damage(damage)
    }
}

/// Reads one segment onto `head`, checking that it follows what is there.
fn read_segment(path: &Path, first_seq: u64, head: &mut Head, is_last: bool) -> Result<Tail, OpenError> {
    let bytes = std::fs::read(path).map_err(|e| OpenError::io("read", path, e))?;
    let header = frame::read_header(&bytes).map_err(|e| OpenError::damaged(path, e))?;
    let header = header.ok_or_else(|| OpenError::damaged(path, "the segment has no header"))?;
    if header.first_seq != first_seq || first_seq != head.tree.size() {
        let what = format!("it starts at sequence number {}, and {} comes next", header.first_seq, head.tree.size());
        return Err(OpenError::damaged(path, what));
    }
    if header.root_before != head.tree.root() {
        return Err(OpenError::damaged(
            path,
            format!("its header names another Merkle root for the {first_seq} records before it"),
        ));
    }
    let walked = frame::walk(&bytes, first_seq, |frame| {
        let record = Record::from_bytes(frame.payload)
            .map_err(|e| Wrong::Record(format!("{e} at byte {}, sequence number {}", frame.offset, frame.seq)))?;
        head.tree.push(leaf(frame.payload));
        head.state.apply(frame.seq, &record);
        Ok(())
    });
    match walked {
        Ok((_, Tail::Torn(at))) if !is_last => {
            Err(OpenError::damaged(path, format!("a write is cut off at byte {at}, and another segment follows")))
        }
        Ok((_, tail)) => Ok(tail),
        Err(Wrong::Damage(damage)) => Err(OpenError::damaged(path, damage)),
        Err(Wrong::Record(what)) => Err(OpenError::damaged(path, what)),
    }
}

/// What a whole journal turned out to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// Number of records.
    pub records: u64,
    /// Number of segments.
    pub segments: usize,
    /// The Merkle root, `sha256:` and hex.
    pub root: String,
    /// Allowed proposals without a recorded outcome.
    pub unknown: usize,
    /// Held proposals.
    pub held: usize,
    /// Where a cut-off write starts: legal after a crash, and nothing in it was acknowledged.
    pub torn_at: Option<String>,
}

/// Reads every record of the journal in `dir` from the first, changing nothing.
pub fn verify(dir: &Path, mut progress: impl FnMut(usize, usize)) -> Result<Verified, OpenError> {
    let journal = dir.join("journal");
    let segments = segment::list(&journal).map_err(|e| OpenError::io("list", &journal, e))?;
    let mut head = Head::default();
    let mut torn_at = None;
    for (number, (first_seq, path)) in segments.iter().enumerate() {
        progress(number, segments.len());
        if let Tail::Torn(at) = read_segment(path, *first_seq, &mut head, number + 1 == segments.len())? {
            torn_at = Some(format!("{}, byte {at}", path.display()));
        }
    }
    Ok(Verified {
        records: head.tree.size(),
        segments: segments.len(),
        root: super::root_text(&head.tree.root()),
        unknown: head.state.open.len(),
        held: head.state.parked.len(),
        torn_at,
    })
}

fn snapshot_path(dir: &Path, next_seq: u64) -> PathBuf {
    dir.join("state").join(format!("{next_seq:020}.json"))
}

/// Writes the hot state, durably, and returns its hash.
pub(super) fn write_snapshot(dir: &Path, next_seq: u64, head: &Head) -> io::Result<String> {
    let snapshot = Snapshot { v: 1, tree: head.tree.clone(), state: head.state.clone() };
    let bytes = serde_json::to_vec(&snapshot)?;
    let path = snapshot_path(dir, next_seq);
    let making = path.with_extension("tmp");
    let mut file = std::fs::File::create(&making)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&making, &path)?;
    crate::sync_dir(&dir.join("state"))?;
    Ok(sha256_hex(&bytes))
}
