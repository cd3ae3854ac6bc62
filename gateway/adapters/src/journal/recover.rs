//! Opening a journal: what a crash leaves is mended, what only damage leaves is refused, by file and byte.

use super::disk::{self, Disk};
use super::hashes::TreeFiles;
use super::segment::{self, Segment};
use super::{Head, Options};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use warden_core::catalogue::sha256_hex;
use warden_core::journal::frame::{self, Damage, SegmentHeader, Tail};
use warden_core::journal::proof;
use warden_core::journal::record::{Body, Record, Unreadable};
use warden_core::journal::state::State;
use warden_core::journal::tree::{Frontier, Hash, leaf};

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
    /// It was written by a newer Warden.
    #[error("`{}` was written by a newer Warden, and is as it should be as far as this one can tell: use the newer one ({what})", path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Which version, and where.
        what: String,
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

    pub(super) fn damaged(path: &Path, what: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.to_string() }
    }
}

/// What a journal must be, since somebody signed that it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Number of records.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Hash,
    /// Where that stands, for people.
    pub from: String,
}

pub(super) struct Recovered {
    pub(super) segment: Segment,
    pub(super) head: Head,
    pub(super) tree: TreeFiles,
    /// Hashes that are not in the tree's files yet.
    pub(super) leaves: Vec<Hash>,
}

/// A hot-state snapshot's file.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    v: u8,
    tree: Frontier,
    state: State,
}

pub(super) fn open(dir: &Path, options: &Options, anchors: &[Anchor]) -> Result<Recovered, OpenError> {
    let (disk, journal) = (&options.disk, dir.join("journal"));
    for folder in [&journal, &dir.join("state")] {
        std::fs::create_dir_all(folder).map_err(|e| OpenError::io("create", folder, e))?;
    }
    segment::sweep(&journal).map_err(|e| OpenError::io("clean up", &journal, e))?;
    let segments = segment::list(&journal).map_err(|e| OpenError::io("list", &journal, e))?;
    if segments.is_empty() {
        Walk::new(Head::default(), anchors).end(&journal)?;
        let header = SegmentHeader { first_seq: 0, root_before: Frontier::default().root() };
        let begun = segment::zero_filled_spare(&**disk, &journal, options.segment_bytes)
            .and_then(|file| Segment::begin(disk, &journal, file, &header));
        let segment = begun.map_err(|e| OpenError::io("create a segment in", &journal, e))?;
        segment::reserve(&**disk, &journal, options.reserved_bytes);
        let tree = open_tree(dir, disk, 0)?;
        return Ok(Recovered { segment, head: Head::default(), tree, leaves: Vec::new() });
    }
    let (start, head) = newest_snapshot(dir, &segments)?;
    let mut tree = whole_tree(dir, disk, &segments[..start], &head.tree)?;
    if first_differing(&mut tree, head.tree.size(), anchors).is_some() {
        // Are the hashes wrong, or what they are of?
        tree = mend_tree(dir, disk, tree, &segments[..start], &head.tree)?;
        if let Some(anchor) = first_differing(&mut tree, head.tree.size(), anchors) {
            return Err(OpenError::damaged(&journal, differs(anchor, None)));
        }
    }
    let mut walk = Walk { stored: TreeFiles::read_only(dir).ok().map(Stored::new), ..Walk::new(head, anchors) };
    let last = segments.len() - 1;
    let mut ended = None;
    for (number, (first_seq, path)) in segments.iter().enumerate().skip(start) {
        ended = Some((path, walk.segment(path, *first_seq, number == last)?));
    }
    walk.end(&journal)?;
    let Some((path, tail)) = ended else {
        return Err(OpenError::damaged(&journal, "no segment to go on in"));
    };
    let Walk { head, leaves, .. } = walk;
    let end = tail.offset();
    let segment =
        Segment::resume(disk, path, end as u64, head.tree.size()).map_err(|e| OpenError::io("open", path, e))?;
    let settled = std::fs::read(path)
        .and_then(|bytes| segment.settle(bytes.get(..end).unwrap_or_default()))
        .and_then(|()| disk.sync_dir(&journal));
    settled.map_err(|e| OpenError::io("make durable", path, e))?;
    if let Tail::Torn(at) = tail {
        tracing::warn!(file = %path.display(), byte = at, next_seq = head.tree.size(),
            "the last write was cut off and is cleared; nothing in it was acknowledged");
        segment.clear_tail().map_err(|e| OpenError::io("clear the tail of", path, e))?;
    }
    segment::reserve(&**disk, &journal, options.reserved_bytes);
    all_there(&journal, segments[0].0, head.state.first_seq)?;
    drop_rest(&**disk, &journal, &segments[..=start], head.state.first_seq);
    Ok(Recovered { segment, head, tree, leaves })
}

fn open_tree(dir: &Path, disk: &std::sync::Arc<dyn Disk>, size: u64) -> Result<TreeFiles, OpenError> {
    TreeFiles::open(dir, disk.clone(), size).map_err(|e| OpenError::io("open", &dir.join("tree"), e))
}

/// The tree's files up to a snapshot. Where they are not what they were, they are made anew from the records before it.
fn whole_tree(
    dir: &Path,
    disk: &std::sync::Arc<dyn Disk>,
    before: &[(u64, PathBuf)],
    expected: &Frontier,
) -> Result<TreeFiles, OpenError> {
    let mut tree = open_tree(dir, disk, expected.size())?;
    let is_whole = proof::root(&mut tree, expected.size()).is_ok_and(|root| root == expected.root());
    if tree.size() == expected.size() && is_whole { Ok(tree) } else { mend_tree(dir, disk, tree, before, expected) }
}

/// The anchor up to `size` that the tree's files do not agree with.
fn first_differing<'a>(tree: &mut TreeFiles, size: u64, anchors: &'a [Anchor]) -> Option<&'a Anchor> {
    let mut below = anchors.iter().filter(|anchor| anchor.size <= size);
    below.find(|anchor| proof::root(tree, anchor.size).map_or(true, |root| root != anchor.root))
}

/// Nothing is missing at the front but what retention dropped.
fn all_there(journal: &Path, first: u64, dropped: u64) -> Result<(), OpenError> {
    if first <= dropped {
        return Ok(());
    }
    let what = format!(
        "the segments before sequence number {first} are missing, and no record says that retention dropped them"
    );
    Err(OpenError::damaged(journal, what))
}

/// Finishes a drop that was broken off after it was recorded.
fn drop_rest(disk: &dyn Disk, journal: &Path, segments: &[(u64, PathBuf)], dropped: u64) {
    let over = segments.windows(2).take_while(|pair| pair[1].0 <= dropped);
    for pair in over {
        if let Err(e) = disk.remove(&pair[0].1) {
            tracing::warn!(error = %e, file = %pair[0].1.display(), "what retention dropped is still there");
            return;
        }
    }
    if let Err(e) = disk.sync_dir(journal) {
        tracing::warn!(error = %e, "what retention dropped may come back after a power cut");
    }
}

/// Makes the tree's upper files anew from its leaves and, where these are wrong, all of it from the records.
fn mend_tree(
    dir: &Path,
    disk: &std::sync::Arc<dyn Disk>,
    mut tree: TreeFiles,
    before: &[(u64, PathBuf)],
    expected: &Frontier,
) -> Result<TreeFiles, OpenError> {
    let size = expected.size();
    if tree.size() == size && tree.frontier(size).is_ok_and(|leaves| leaves.root() == expected.root()) {
        let mended = tree.refold().and_then(|()| tree.sync());
        mended.map_err(|e| OpenError::io("write", &dir.join("tree"), e))?;
        return Ok(tree);
    }
    let path = dir.join("tree");
    if expected.size() > 0 && before.first().is_none_or(|(first, _)| *first > 0) {
        return Err(OpenError::damaged(&path, "it does not hold the hashes of the records that retention has dropped"));
    }
    tracing::warn!(folder = %path.display(), records = expected.size(), "the tree's hashes are made anew from the journal");
    drop(tree);
    match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(OpenError::io("remove", &path, e)),
        _ => {}
    }
    let mut tree = open_tree(dir, disk, 0)?;
    let mut walk = Walk::new(Head::default(), &[]);
    for (first_seq, segment) in before {
        walk.segment(segment, *first_seq, false)?;
        tree.append(&std::mem::take(&mut walk.leaves)).map_err(|e| OpenError::io("write", &path, e))?;
    }
    tree.sync().map_err(|e| OpenError::io("make durable", &path, e))?;
    Ok(tree)
}

/// The last segment that starts with the mark of a snapshot that is there and whole, and what it holds.
fn newest_snapshot(dir: &Path, segments: &[(u64, PathBuf)]) -> Result<(usize, Head), OpenError> {
    for (number, (first_seq, path)) in segments.iter().enumerate().rev() {
        if let Some(head) = snapshot_of(dir, *first_seq, path)? {
            return Ok((number, head));
        }
    }
    match segments.first() {
        Some((0, _)) | None => Ok((0, Head::default())),
        Some((first, path)) => Err(OpenError::damaged(
            path,
            format!("it starts at sequence number {first}, and what came before is missing, as is a snapshot of it"),
        )),
    }
}

/// The snapshot with which a segment starts, if it is there and whole.
pub(super) fn snapshot_of(dir: &Path, first_seq: u64, path: &Path) -> Result<Option<Head>, OpenError> {
    let bytes = head_of(path).map_err(|e| OpenError::io("read", path, e))?;
    let Some(frame) = frame::at(&bytes, frame::SEGMENT_HEADER) else { return Ok(None) };
    let Ok(Record { body: Body::State(mark), .. }) = Record::from_bytes(frame.payload) else { return Ok(None) };
    let Ok(Some(header)) = frame::read_header(&bytes) else { return Ok(None) };
    if mark.next_seq != first_seq || header.first_seq != first_seq {
        return Ok(None);
    }
    let at = snapshot_path(dir, first_seq);
    let Ok(text) = std::fs::read(&at) else { return Ok(None) };
    if sha256_hex(&text) != mark.hash {
        tracing::warn!(file = %at.display(), "a hot-state snapshot does not match its hash and is not used");
        return Ok(None);
    }
    let Ok(Snapshot { tree, state, .. }) = serde_json::from_slice(&text) else { return Ok(None) };
    let fits = tree.size() == first_seq && tree.root() == header.root_before;
    Ok(fits.then_some(Head { tree, state }))
}

/// The first bytes of a segment: its header and, unless it is huge, its first record.
fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(1 << 16).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first record of a segment; nothing where none can be read.
pub(super) fn first_record(path: &Path) -> Option<Record> {
    let bytes = head_of(path).ok()?;
    Record::from_bytes(frame::at(&bytes, frame::SEGMENT_HEADER)?.payload).ok()
}

/// Reads segments in order, and holds them against each other and against what was signed.
struct Walk {
    head: Head,
    /// Of the records that were read.
    leaves: Vec<Hash>,
    anchors: Vec<Anchor>,
    /// The tree's files, to say where a difference is.
    stored: Option<Stored>,
    /// The first record whose hash is another one there.
    differing: Option<u64>,
}

/// Leaf hashes of the tree's files, read ahead.
struct Stored {
    tree: TreeFiles,
    from: u64,
    leaves: Vec<Hash>,
}

impl Stored {
    fn new(tree: TreeFiles) -> Self {
        Self { tree, from: 0, leaves: Vec::new() }
    }

    fn leaf(&mut self, seq: u64) -> Option<Hash> {
        if seq < self.from || seq >= self.from + self.leaves.len() as u64 {
            let count = self.tree.size().checked_sub(seq)?.min(4096);
            (self.from, self.leaves) = (seq, self.tree.leaves(seq, count).ok()?);
        }
        self.leaves.get(usize::try_from(seq - self.from).ok()?).copied()
    }
}

const CHANGED: &str = "is the first that was changed, left out or put in";

fn differs(anchor: &Anchor, at: Option<u64>) -> String {
    let Anchor { size, from, .. } = anchor;
    let place = match at {
        Some(seq) => format!("sequence number {seq} {CHANGED}"),
        None => format!("one of the sequence numbers 0 to {} was changed, left out or put in", size.saturating_sub(1)),
    };
    format!("its first {size} records are not those that {from} signed: {place}")
}

impl Walk {
    fn new(head: Head, anchors: &[Anchor]) -> Self {
        let mut anchors = anchors.to_vec();
        anchors.retain(|anchor| anchor.size > head.tree.size());
        anchors.sort_by_key(|anchor| anchor.size);
        Self { head, leaves: Vec::new(), anchors, stored: None, differing: None }
    }

    /// Reads one segment, checking that it follows what is there.
    fn segment(&mut self, path: &Path, first_seq: u64, is_last: bool) -> Result<Tail, OpenError> {
        let bytes = std::fs::read(path).map_err(|e| OpenError::io("read", path, e))?;
        let header = frame::read_header(&bytes).map_err(|e| OpenError::damaged(path, e))?;
        let header = header.ok_or_else(|| {
            let what = if bytes.is_empty() { "the file is empty" } else { "the segment has no header" };
            OpenError::damaged(path, format!("{what}, and sequence number {} belongs there", self.head.tree.size()))
        })?;
        let place = || {
            let at = self.differing.map(|seq| format!("; sequence number {seq} {CHANGED}"));
            at.unwrap_or_default()
        };
        if header.first_seq != first_seq || first_seq != self.head.tree.size() {
            let next = self.head.tree.size();
            let what = format!("it starts at sequence number {}, and {next} comes next{}", header.first_seq, place());
            return Err(OpenError::damaged(path, what));
        }
        if header.root_before != self.head.tree.root() {
            let what = format!("its header names another Merkle root for the {first_seq} records before it{}", place());
            return Err(OpenError::damaged(path, what));
        }
        // The folder of the journal is what a difference to a checkpoint is about.
        let journal = path.parent().unwrap_or(path);
        let walked = frame::walk(&bytes, first_seq, |frame| {
            let record = Record::from_bytes(frame.payload).map_err(|e| {
                let what = format!("{e} at byte {}, sequence number {}", frame.offset, frame.seq);
                match e {
                    Unreadable::Version(_) => Wrong::Open(OpenError::Newer { path: path.to_owned(), what }),
                    Unreadable::Json(_) => Wrong::Record(what),
                }
            })?;
            self.record(frame.seq, frame.payload, &record, journal).map_err(Wrong::Open)
        });
        match walked {
            Ok((_, Tail::Torn(at))) if !is_last => {
                Err(OpenError::damaged(path, format!("a write is cut off at byte {at}, and another segment follows")))
            }
            Ok((_, tail)) => Ok(tail),
            Err(Wrong::Damage(damage)) => Err(OpenError::damaged(path, damage)),
            Err(Wrong::Record(what)) => Err(OpenError::damaged(path, what)),
            Err(Wrong::Open(error)) => Err(error),
        }
    }

    fn record(&mut self, seq: u64, payload: &[u8], record: &Record, journal: &Path) -> Result<(), OpenError> {
        let leaf = leaf(payload);
        if self.differing.is_none()
            && let Some(stored) = &mut self.stored
            && stored.leaf(seq).is_some_and(|stored| stored != leaf)
        {
            self.differing = Some(seq);
        }
        if let Body::Retention(dropped) = &record.body
            && dropped.first_seq > self.head.state.first_seq
        {
            let what = format!(
                "sequence number {seq} says that {} was the first record then, and retention had left {}: what is between was taken away by somebody else",
                dropped.first_seq, self.head.state.first_seq
            );
            return Err(OpenError::damaged(journal, what));
        }
        self.head.tree.push(leaf);
        self.head.state.apply(seq, record);
        self.leaves.push(leaf);
        while let Some(anchor) = self.anchors.first().filter(|anchor| anchor.size == self.head.tree.size()) {
            if anchor.root != self.head.tree.root() {
                return Err(OpenError::damaged(journal, differs(anchor, self.differing)));
            }
            self.anchors.remove(0);
        }
        Ok(())
    }

    /// There is nothing more to read, and nobody signed that there was.
    fn end(&self, journal: &Path) -> Result<(), OpenError> {
        let (size, Some(anchor)) = (self.head.tree.size(), self.anchors.last()) else { return Ok(()) };
        let what = match self.differing {
            Some(_) => differs(anchor, self.differing),
            None => format!(
                "it ends before sequence number {size}, and {} signed {} records: what followed was cut off",
                anchor.from, anchor.size
            ),
        };
        Err(OpenError::damaged(journal, what))
    }
}

enum Wrong {
    Damage(Damage),
    Record(String),
    Open(OpenError),
}

impl From<Damage> for Wrong {
    fn from(damage: Damage) -> Self {
        Wrong::Damage(damage)
    }
}

/// What a whole journal turned out to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// Number of records, dropped ones included.
    pub records: u64,
    /// The first sequence number that is still there; what is before it was dropped by retention.
    pub first_seq: u64,
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
    /// What was signed of it, and holds.
    pub signed: Vec<Signed>,
}

/// A checkpoint that a journal was held against.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Signed {
    /// Where it stands.
    pub by: String,
    /// Number of records that it covers.
    pub size: u64,
}

/// Reads every record of the journal in `dir` from the first, changing nothing, and holds it against what was signed of it.
pub fn verify(dir: &Path, anchors: &[Anchor], mut progress: impl FnMut(usize, usize)) -> Result<Verified, OpenError> {
    let mut tries = 0;
    loop {
        match verify_once(dir, anchors, &mut progress) {
            // A running gateway may have dropped a segment meanwhile.
            Err(OpenError::Io { cause, .. })
                if cause.kind() == io::ErrorKind::NotFound && tries < 10 && dir.join("journal").exists() =>
            {
                tries += 1;
            }
            done => return done,
        }
    }
}

fn verify_once(dir: &Path, anchors: &[Anchor], progress: &mut impl FnMut(usize, usize)) -> Result<Verified, OpenError> {
    let journal = dir.join("journal");
    let segments = segment::list(&journal).map_err(|e| OpenError::io("list", &journal, e))?;
    // Where a drop was broken off, what is left in front of the first snapshot belongs to it.
    let mut segments = segments;
    if segments.first().is_some_and(|(first, _)| *first > 0) {
        let mut front = 0;
        while front < segments.len() && snapshot_of(dir, segments[front].0, &segments[front].1)?.is_none() {
            front += 1;
        }
        segments.drain(..if front == segments.len() { 0 } else { front });
    }
    let first_seq = segments.first().map_or(0, |(first, _)| *first);
    let mut torn_at = None;
    let mut stored = TreeFiles::read_only(dir).ok();
    let mut head = Head::default();
    if let (Some((first, path)), true) = (segments.first(), first_seq > 0) {
        head = dropped(dir, *first, path, stored.as_mut())?;
        for anchor in anchors.iter().filter(|anchor| anchor.size <= first_seq) {
            let root = stored.as_mut().and_then(|tree| proof::root(tree, anchor.size).ok());
            if root != Some(anchor.root) {
                return Err(OpenError::damaged(&journal, differs(anchor, None)));
            }
        }
    }
    // The tree's files are synced with each snapshot.
    let mut sealed = 0;
    for (first, path) in segments.iter().rev() {
        if snapshot_of(dir, *first, path)?.is_some() {
            sealed = *first;
            break;
        }
    }
    let mut walk = Walk { stored: stored.map(Stored::new), ..Walk::new(head, anchors) };
    for (number, (first_seq, path)) in segments.iter().enumerate() {
        progress(number, segments.len());
        if let Tail::Torn(at) = walk.segment(path, *first_seq, number + 1 == segments.len())? {
            torn_at = Some(format!("{}, byte {at}", path.display()));
        }
        walk.leaves.clear();
    }
    walk.end(&journal)?;
    let head = walk.head;
    all_there(&journal, first_seq, head.state.first_seq)?;
    // Behind the last seal the tree's files are not synced, and a crash may leave anything there.
    if let Some(seq) = walk.differing.filter(|seq| *seq < sealed) {
        return Err(OpenError::damaged(
            &dir.join("tree/0"),
            format!(
                "the hash of sequence number {seq} is another one than its record's, which agrees with everything else"
            ),
        ));
    }
    Ok(Verified {
        records: head.tree.size(),
        first_seq,
        segments: segments.len(),
        root: super::root_text(&head.tree.root()),
        unknown: head.state.open.len(),
        held: head.state.acks.parked.len(),
        torn_at,
        signed: anchors.iter().map(|anchor| Signed { by: anchor.from.clone(), size: anchor.size }).collect(),
    })
}

/// What dropped records added up to: the snapshot with which the first segment starts, which the tree's files must agree with.
fn dropped(dir: &Path, first: u64, path: &Path, stored: Option<&mut TreeFiles>) -> Result<Head, OpenError> {
    let missing = |what: &str| OpenError::damaged(path, format!("it starts at sequence number {first}, and {what}"));
    let head =
        snapshot_of(dir, first, path)?.ok_or_else(|| missing("what came before is missing, as is a snapshot of it"))?;
    let tree = stored.and_then(|tree| tree.frontier(first).ok());
    if tree.is_none_or(|tree| tree.root() != head.tree.root()) {
        return Err(missing("the hashes of what came before, in `tree/0`, are missing or were changed"));
    }
    Ok(head)
}

fn snapshot_path(dir: &Path, next_seq: u64) -> PathBuf {
    dir.join("state").join(format!("{next_seq:020}.json"))
}

/// Snapshots older than the newest few, which no start needs.
pub(super) fn old_snapshots(dir: &Path, keep: usize) -> io::Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(dir.join("state"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    all.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    all.sort_unstable();
    all.truncate(all.len().saturating_sub(keep));
    Ok(all)
}

/// Writes the hot state, durably, and returns its hash.
pub(super) fn write_snapshot(disk: &dyn Disk, dir: &Path, next_seq: u64, head: &Head) -> io::Result<String> {
    let snapshot = Snapshot { v: 1, tree: head.tree.clone(), state: head.state.clone() };
    let bytes = serde_json::to_vec(&snapshot)?;
    disk::replace(disk, &snapshot_path(dir, next_seq), &bytes)?;
    Ok(sha256_hex(&bytes))
}
