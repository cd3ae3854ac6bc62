//! The journal on files: append-only segments, group commit, `fdatasync`, then the receipt.
//!
//! One thread writes. It takes whatever waits, writes it as one batch, syncs once and answers all. A failed write or
//! sync poisons it for good: what the disk holds is unknown then, and retrying a failed sync reports success without
//! the data being there. Only a restart, which verifies, goes on.

pub mod checkpoint;
mod disk;
mod hashes;
mod read;
mod recover;
mod retention;
mod segment;
pub mod witness;

pub use disk::{Disk, Real};
pub use hashes::TreeFiles;
pub use read::Reader;
pub use recover::{Anchor, OpenError, Signed, Verified, verify};
pub use retention::Retain;

use recover::Recovered;
use segment::{Segment, Spare};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot};
use warden_core::journal::frame::{self, PAYLOAD_MAX, SEGMENT_HEADER, SegmentHeader};
use warden_core::journal::record::{Body, Record, StateMark};
use warden_core::journal::state::State;
use warden_core::journal::tree::{Frontier, Hash, leaf};
use warden_core::port::{JournalError, Receipt, Room};
use warden_core::secrets::Scanner;

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of the reserved segment.
    pub reserved_bytes: u64,
    /// Records that may wait; more are refused.
    pub queue_max: usize,
    /// What it writes to.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, reserved_bytes: 8 << 20, queue_max: 4096, disk: Arc::new(Real) }
    }
}

/// A batch is closed at this many bytes, so that nobody waits for a very long write.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// The end of the reserved segment is for operators.
const OPERATORS_ROOM: u64 = 64 << 10;
/// How long a full disk is left alone before room is looked for again.
const FULL_RETRY: Duration = Duration::from_secs(2);

/// A record that is on the disk.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its sequence number.
    pub seq: u64,
    /// The record.
    pub record: Arc<Record>,
}

/// How long a note waits for a record that is synced anyway.
const NOTES_WAIT: std::time::Duration = std::time::Duration::from_millis(10);
/// Between two tries to put a record in a full line.
const NOTE_AGAIN: std::time::Duration = std::time::Duration::from_millis(2);

/// What the journal adds up to after some sequence number.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The tree.
    pub tree: Frontier,
    /// The hot state.
    pub state: State,
}

/// The running journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    scanner: Arc<Scanner>,
}

struct Shared {
    queue: Mutex<Option<SyncSender<Queued>>>,
    /// Notes that go with the next record that somebody waits for.
    notes: Mutex<Vec<Waiting>>,
    /// Whether the writer waits for the queue alone.
    resting: AtomicBool,
    notes_max: usize,
    head: Mutex<Head>,
    /// Leaves that are not in the tree's files yet.
    fresh: Mutex<Vec<Hash>>,
    tree: Mutex<Tree>,
    disk: Arc<dyn Disk>,
    committed: broadcast::Sender<Committed>,
    next_seq: AtomicU64,
    health: Mutex<Health>,
    thread: Mutex<Option<JoinHandle<()>>>,
    dir: PathBuf,
}

/// The tree's files. After one failed write or sync they are left alone: the next start makes them anew.
struct Tree {
    files: TreeFiles,
    failed: bool,
}

/// How the journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes records.
    Good,
    /// No room for ordinary records.
    Full,
    /// Poisoned.
    Failed(String),
}

struct Waiting {
    record: Record,
    bytes: Vec<u8>,
    /// Its hash, made by whoever appends: the writer has the disk to wait for.
    leaf: Hash,
    room: Room,
    /// Nobody waits for a note.
    done: Option<Done>,
}

/// What wakes the writer: a record, or nothing but a nudge to look at the notes.
type Queued = Option<Waiting>;
type Done = oneshot::Sender<Result<Receipt, JournalError>>;

impl Waiting {
    fn new(record: Record, bytes: Vec<u8>, room: Room, done: Option<Done>) -> Self {
        Self { leaf: leaf(&bytes), record, bytes, room, done }
    }

    fn tell(self, result: Result<Receipt, JournalError>) {
        match (self.done, result) {
            // The worker may have given up waiting; the record stands all the same.
            (Some(done), result) => drop(done.send(result)),
            (None, Err(e)) => tracing::error!(error = %e, "an outcome was not recorded: it reads as unknown"),
            (None, Ok(_)) => {}
        }
    }
}

/// Tells a whole batch that it is on the disk. A wake from another thread costs a system call; one task within the runtime
/// that is woken once wakes all the others for nothing.
struct Herald(Option<mpsc::UnboundedSender<Vec<(Done, Receipt)>>>);

impl Herald {
    /// In the runtime of now; without one, everybody is told from the writer's thread.
    fn start() -> Self {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Self(None) };
        let (batches, mut told) = mpsc::unbounded_channel::<Vec<(Done, Receipt)>>();
        runtime.spawn(async move {
            while let Some(batch) = told.recv().await {
                Self::tell_all(batch);
            }
        });
        Self(Some(batches))
    }

    fn tell(&self, batch: Vec<(Done, Receipt)>) {
        match &self.0 {
            Some(batches) if batch.len() > 1 => {
                if let Err(mpsc::error::SendError(batch)) = batches.send(batch) {
                    Self::tell_all(batch);
                }
            }
            _ => Self::tell_all(batch),
        }
    }

    fn tell_all(batch: Vec<(Done, Receipt)>) {
        for (done, receipt) in batch {
            // The worker may have given up waiting; the record stands all the same.
            let _ = done.send(Ok(receipt));
        }
    }
}

impl Journal {
    /// Opens the journal in `dir` (`journal/`, `tree/` and `state/` below it), verifying what is needed to go on, and that it
    /// still is what was signed.
    pub fn open(dir: &Path, scanner: Arc<Scanner>, options: Options, anchors: &[Anchor]) -> Result<Self, OpenError> {
        let Recovered { segment, head, tree, leaves } = recover::open(dir, &options, anchors)?;
        tree.reserve();
        let (queue, waiting) = sync_channel(options.queue_max);
        let (committed, _) = broadcast::channel(4096);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Some(queue)),
            notes: Mutex::default(),
            resting: AtomicBool::new(false),
            notes_max: options.queue_max,
            next_seq: AtomicU64::new(segment.next_seq),
            head: Mutex::new(head),
            fresh: Mutex::new(leaves),
            tree: Mutex::new(Tree { files: tree, failed: false }),
            disk: options.disk.clone(),
            committed,
            health: Mutex::new(Health::Good),
            thread: Mutex::new(None),
            dir: dir.to_owned(),
        });
        let spare = Spare::prepare(&options.disk, &dir.join("journal"), options.segment_bytes);
        let writer = Writer {
            shared: shared.clone(),
            options,
            segment,
            spare,
            full: None,
            scanner: scanner.clone(),
            buffer: Vec::new(),
            herald: Herald::start(),
        };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(&waiting))
            .map_err(|e| OpenError::io("start the writer of", dir, e))?;
        *lock(&shared.thread) = Some(thread);
        Ok(Self { shared, scanner })
    }

    /// Writes a record and waits until it would survive a power cut.
    pub async fn append(&self, record: Record, room: Room) -> Result<Receipt, JournalError> {
        let bytes = record.to_bytes(&self.scanner);
        if bytes.len() > PAYLOAD_MAX {
            return Err(JournalError::Full);
        }
        let (done, receipt) = oneshot::channel();
        let waiting = Waiting::new(record, bytes, room, Some(done));
        {
            let queue = lock(&self.shared.queue);
            let queue = queue.as_ref().ok_or(JournalError::Failed)?;
            match queue.try_send(Some(waiting)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return Err(JournalError::Busy),
                Err(TrySendError::Disconnected(_)) => return Err(JournalError::Failed),
            }
        }
        // The writer answers everybody or is gone.
        receipt.await.unwrap_or(Err(JournalError::Failed))
    }

    /// Puts a record in line and does not wait for the disk. It wakes nobody either: it goes with the next record that somebody
    /// waits for, or soon by itself. A full line is waited for: what happened is told.
    pub async fn note(&self, record: Record) {
        let bytes = record.to_bytes(&self.scanner);
        let mut waiting = Some(Waiting::new(record, bytes, Room::Reserved, None));
        while waiting.is_some() {
            {
                // Held until the note is in its place: whoever closes the queue after that writes it.
                let queue = lock(&self.shared.queue);
                let Some(queue) = queue.as_ref() else {
                    tracing::error!("the journal is closed: an outcome was not recorded, and reads as unknown");
                    return;
                };
                let mut notes = lock(&self.shared.notes);
                if notes.len() < self.shared.notes_max {
                    notes.extend(waiting.take());
                }
                drop(notes);
                if self.shared.resting.swap(false, Ordering::SeqCst) {
                    // Full: then the writer has enough to wake for.
                    let _ = queue.try_send(None);
                }
            }
            if waiting.is_some() {
                tokio::time::sleep(NOTE_AGAIN).await;
            }
        }
    }

    /// Every record from now on, as it is committed. A reader that is too slow is told how many it missed.
    pub fn committed(&self) -> broadcast::Receiver<Committed> {
        self.shared.committed.subscribe()
    }

    /// The sequence number of the next record: how many there are.
    pub fn next_seq(&self) -> u64 {
        self.shared.next_seq.load(Ordering::Acquire)
    }

    /// Number of records, and the Merkle root over them.
    pub fn tip(&self) -> (u64, Hash) {
        let head = lock(&self.shared.head);
        (head.tree.size(), head.tree.root())
    }

    /// The tree and hot state of now.
    pub fn head(&self) -> Head {
        lock(&self.shared.head).clone()
    }

    /// A look at the tree and hot state of now. The writer waits meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Head) -> T) -> T {
        look(&lock(&self.shared.head))
    }

    /// How it is.
    pub fn health(&self) -> Health {
        lock(&self.shared.health).clone()
    }

    /// Reads records by their sequence number.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.shared.dir.join("journal"))
    }

    /// What `make` computes from the tree's files, with every committed record in them.
    pub fn prove<T>(&self, make: impl FnOnce(&mut TreeFiles) -> std::io::Result<T>) -> std::io::Result<T> {
        self.shared.flush_tree(false)?;
        make(&mut lock(&self.shared.tree).files)
    }

    /// Writes what waits and stops. Later records are refused.
    pub fn close(&self) {
        drop(lock(&self.shared.queue).take());
        if let Some(thread) = lock(&self.shared.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Puts what is new into the tree's files and, when `durable`, onto the disk.
    fn flush_tree(&self, durable: bool) -> std::io::Result<()> {
        let mut tree = lock(&self.tree);
        if tree.failed {
            lock(&self.fresh).clear();
            return Err(std::io::Error::other(
                "the tree's files failed before, and are left alone until the next start",
            ));
        }
        // The writer puts more there meanwhile, and must not wait for the disk here.
        let taken = std::mem::take(&mut *lock(&self.fresh));
        let mut written = tree.files.append(&taken);
        if let Err(e) = &written
            && tree.files.give_room()
        {
            tracing::warn!(error = %e, "the room that was kept for hashes is used now");
            written = tree.files.append(&taken);
        }
        if let Err(e) = written {
            // What is not written now, for want of room, is written to the same place the next time.
            lock(&self.fresh).splice(..0, taken);
            return Err(e);
        }
        if durable {
            let synced = tree.files.sync();
            tree.failed = synced.is_err();
            return synced;
        }
        Ok(())
    }
}

// A std mutex: nothing awaits while it is held, and a poisoned one still holds what was last written whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    shared: Arc<Shared>,
    options: Options,
    segment: Segment,
    spare: Spare,
    /// Since when only the reserved segment is left.
    full: Option<Instant>,
    scanner: Arc<Scanner>,
    buffer: Vec<u8>,
    herald: Herald,
}

impl Writer {
    /// Writes what comes, all of it that is there at once. Notes wait a moment for a record that somebody waits for: a sync of
    /// their own would only be in that record's way.
    fn run(mut self, queue: &Receiver<Queued>) {
        loop {
            let next = self.next(queue);
            let over = matches!(next, Err(RecvTimeoutError::Disconnected));
            let mut awaited: Vec<Waiting> = next.ok().flatten().into_iter().collect();
            let mut bytes: usize = awaited.iter().map(|waiting| waiting.bytes.len()).sum();
            while bytes < BATCH_BYTES_MAX {
                let Ok(next) = queue.try_recv() else { break };
                bytes += next.as_ref().map_or(0, |waiting| waiting.bytes.len());
                awaited.extend(next);
            }
            // A note that was put before a record of this batch is here by now, and stands before it.
            let mut batch = std::mem::take(&mut *lock(&self.shared.notes));
            batch.append(&mut awaited);
            if let Err(e) = self.write(batch) {
                self.poison(&e);
                // Dropping the queue answers everybody who waits; new ones find it gone.
                return;
            }
            if over {
                return;
            }
        }
    }

    /// The next record, or the time to write notes without one. With neither it rests until something comes.
    fn next(&self, queue: &Receiver<Queued>) -> Result<Queued, RecvTimeoutError> {
        match queue.recv_timeout(NOTES_WAIT) {
            Err(RecvTimeoutError::Timeout) if lock(&self.shared.notes).is_empty() => {}
            next => return next,
        }
        self.shared.resting.store(true, Ordering::SeqCst);
        if !lock(&self.shared.notes).is_empty() {
            self.shared.resting.store(false, Ordering::SeqCst);
            return Ok(None);
        }
        let next = queue.recv().map_err(|_| RecvTimeoutError::Disconnected);
        self.shared.resting.store(false, Ordering::SeqCst);
        // The nudge tells that there is a note; company may come for it.
        match next {
            Ok(None) => queue.recv_timeout(NOTES_WAIT),
            next => next,
        }
    }

    fn poison(&self, e: &std::io::Error) {
        tracing::error!(error = %e, file = %self.segment.path.display(),
            "the journal failed: every proposal is denied until a restart has verified it");
        *lock(&self.shared.health) = Health::Failed(format!("{}: {e}", self.segment.path.display()));
        drop(lock(&self.shared.queue).take());
    }

    /// Writes a batch, in parts where a segment ends. An error is one that poisons.
    fn write(&mut self, batch: Vec<Waiting>) -> std::io::Result<()> {
        let mut batch = batch.into_iter().peekable();
        while batch.peek().is_some() {
            let mut part = Vec::new();
            let mut end = self.segment.end;
            while let Some(next) = batch.peek() {
                let length = frame::length_of(next.bytes.len()) as u64;
                if end + length > self.segment.size {
                    break;
                }
                end += length;
                part.extend(batch.next());
            }
            let part = self.admit(part)?;
            if !part.is_empty() {
                self.commit(part)?;
            }
            if let Some(next) = batch.peek() {
                let needed = SEGMENT_HEADER as u64 + frame::length_of(next.bytes.len()) as u64;
                if !self.roll(needed)?
                    && let Some(refused) = batch.next()
                {
                    refused.tell(Err(JournalError::Full));
                }
            }
        }
        Ok(())
    }

    /// While the disk is full only denials, outcomes and operators' records go on; at last only those of operators, who can make room.
    fn admit(&mut self, part: Vec<Waiting>) -> std::io::Result<Vec<Waiting>> {
        if self.full.is_none() {
            return Ok(part);
        }
        let left = self.segment.size.saturating_sub(self.segment.end);
        let little = left < OPERATORS_ROOM.min(self.options.reserved_bytes / 8);
        let goes_on = |w: &Waiting| w.room == Room::Reserved && (!little || w.record.body.is_of_operators());
        let (reserved, ordinary): (Vec<_>, Vec<_>) = part.into_iter().partition(goes_on);
        for waiting in ordinary {
            waiting.tell(Err(JournalError::Full));
        }
        // Room is looked for after they were answered; nobody waits for it.
        if self.full.is_some_and(|since| since.elapsed() >= FULL_RETRY) && reserved.is_empty() {
            self.roll(0)?;
        }
        Ok(reserved)
    }

    fn commit(&mut self, part: Vec<Waiting>) -> std::io::Result<()> {
        let first = self.segment.next_seq;
        self.buffer.clear();
        for (seq, waiting) in (first..).zip(&part) {
            frame::push(&mut self.buffer, seq, first, &waiting.bytes);
        }
        self.segment.append(&self.buffer, part.len() as u64)?;
        {
            let mut head = lock(&self.shared.head);
            // Whoever sees the head finds its leaves here or in the files.
            lock(&self.shared.fresh).extend(part.iter().map(|waiting| waiting.leaf));
            for (seq, waiting) in (first..).zip(&part) {
                head.tree.push(waiting.leaf);
                head.state.apply(seq, &waiting.record);
            }
        }
        self.shared.next_seq.store(self.segment.next_seq, Ordering::Release);
        let mut waited_for = Vec::with_capacity(part.len());
        let mut records = Vec::with_capacity(part.len());
        for (seq, Waiting { record, done, .. }) in (first..).zip(part) {
            waited_for.extend(done.map(|done| (done, Receipt { seq })));
            records.push(Committed { seq, record: Arc::new(record) });
        }
        self.herald.tell(waited_for);
        for record in records {
            let _ = self.shared.committed.send(record);
        }
        Ok(())
    }

    /// Goes on in the next segment; in the reserved one when there is no room. False: not even there.
    fn roll(&mut self, needed: u64) -> std::io::Result<bool> {
        let dir = self.shared.dir.join("journal");
        // The mark of the hot state comes first and takes some of it.
        let size = self.options.segment_bytes.max(needed + 4096);
        let head = lock(&self.shared.head).clone();
        let header = SegmentHeader { first_seq: self.segment.next_seq, root_before: head.tree.root() };
        let was_full = self.full.is_some();
        if self.full.is_some_and(|since| since.elapsed() < FULL_RETRY) {
            return Ok(false);
        }
        match self.spare.take(size) {
            Ok(file) => {
                self.segment = Segment::begin(&self.options.disk, &dir, file, &header)?;
                self.full = None;
                if was_full {
                    tracing::info!("there is room again: the journal takes all records");
                    segment::reserve(&*self.options.disk, &dir, self.options.reserved_bytes);
                    lock(&self.shared.tree).files.reserve();
                }
                *lock(&self.shared.health) = Health::Good;
            }
            Err(e) if was_full => {
                self.full = Some(Instant::now());
                tracing::warn!(error = %e, "still no room for the journal");
                return Ok(false);
            }
            Err(e) => {
                tracing::error!(error = %e, "no room for the journal: only denials and operators' records are taken");
                self.full = Some(Instant::now());
                *lock(&self.shared.health) = Health::Full;
                match segment::take_reserve(&dir) {
                    Ok(file) => self.segment = Segment::begin(&self.options.disk, &dir, file, &header)?,
                    Err(e) => {
                        tracing::error!(error = %e, "the reserved segment cannot be used");
                        return Ok(false);
                    }
                }
                return Ok(needed <= self.segment.size);
            }
        }
        self.spare = Spare::prepare(&self.options.disk, &dir, self.options.segment_bytes);
        self.snapshot(&head)?;
        Ok(true)
    }

    /// The hot state beside the seal of a segment, and its hash as the next segment's first record.
    fn snapshot(&mut self, head: &Head) -> std::io::Result<()> {
        // A snapshot stands for what is in the tree's files as well.
        let written = self
            .shared
            .flush_tree(true)
            .and_then(|()| recover::write_snapshot(&*self.options.disk, &self.shared.dir, self.segment.next_seq, head));
        let mark = match written {
            Ok(hash) => StateMark { next_seq: self.segment.next_seq, hash },
            Err(e) => {
                // Only the next start is slower for it.
                tracing::warn!(error = %e, "no hot-state snapshot was written");
                return Ok(());
            }
        };
        let ts = crate::world::now();
        let record = Record::new(ts, Body::State(mark));
        let bytes = record.to_bytes(&self.scanner);
        self.commit(vec![Waiting::new(record, bytes, Room::Reserved, None)])
    }
}

/// The root of a tree as people write it.
pub fn root_text(root: &Hash) -> String {
    format!("sha256:{}", warden_core::journal::tree::hex(root))
}

/// The segments of the data folder `dir`, with their first sequence numbers, in order.
pub fn segments(dir: &Path) -> std::io::Result<Vec<(u64, std::path::PathBuf)>> {
    segment::list(&dir.join("journal"))
}
