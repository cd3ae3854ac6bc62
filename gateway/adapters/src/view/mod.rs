//! The queryable decision log: a sled view of the journal. Never the truth, never read by a decision.
//!
//! It is written in blocks of up to 1024 records: for each value of an index the offsets of its records, for each column a
//! short hash a record, and the records' times. One key per index and record is too slow (4,300 decisions/s were measured).
//! What is not written yet is kept in memory, and after a restart it is read from the journal again. A view that is
//! missing, behind, of another layout or unopenable is thrown away and rebuilt.

mod block;
mod find;
mod query;
mod stats;

pub use block::{Column, Index};
pub use find::{Found, of_decision, run, timeline};
pub use query::Query;
pub use stats::{Stats, stats};

use crate::journal::Reader;
use block::{BLOCK, Block};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use warden_core::journal::record::Record;

/// How sled says that somebody holds its lock.
const LOCKED: &str = "could not acquire lock";
/// How long the lock is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Between two tries.
const LOCK_AGAIN: Duration = Duration::from_millis(5);
/// Keys of sled: `!NAME`, `t` + block, `p` + index + value + 0 + block, `c` + column + block; a block is its first sequence
/// number, big endian. `m` + block is the latest time of that block and all before it.
const NEXT: &[u8] = b"!next";
const LAYOUT: &[u8] = b"!layout";
const LAYOUT_NOW: &[u8] = b"6";

/// See the module.
pub struct View {
    db: sled::Db,
    /// The first sequence number that retention has left.
    first: AtomicU64,
    pending: Mutex<Block>,
}

/// Where the running gateway keeps its view: empty while it is opened, or opened anew.
#[derive(Default)]
pub struct Shelf(RwLock<Option<Arc<View>>>);

impl Shelf {
    /// The view, once it is open.
    pub fn get(&self) -> Option<Arc<View>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts it there, or takes it away.
    pub fn put(&self, view: Option<Arc<View>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

/// The latest time before a block.
fn latest_before(db: &sled::Db, block: u64) -> io::Result<i64> {
    let end = [b"m", &block.to_be_bytes()[..]].concat();
    let entry = db.range(b"m".to_vec()..end).next_back().transpose()?;
    Ok(entry.and_then(|(_, time)| find::times(&time).next()).unwrap_or(i64::MIN))
}

impl View {
    /// Opens the view in `dir`, or a fresh one where that cannot be used. `records` is how many the journal has, from `first` on.
    pub fn open(dir: &Path, first: u64, records: u64) -> io::Result<Self> {
        match Self::try_open(dir, first) {
            Ok(view) if (first..=records).contains(&view.next()) => Ok(view),
            opened => {
                match opened {
                    Ok(view) => {
                        tracing::warn!(
                            view = view.next(),
                            journal = records,
                            "the view is not of this journal and is rebuilt"
                        );
                        drop(view);
                    }
                    Err(e) => tracing::warn!(error = %e, "the view cannot be opened and is rebuilt"),
                }
                match std::fs::remove_dir_all(dir) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                Self::try_open(dir, first)
            }
        }
    }

    fn try_open(dir: &Path, first: u64) -> io::Result<Self> {
        // sled panics on files that something else has written to.
        let opened = std::panic::catch_unwind(|| Self::lock_and_open(dir));
        let db = opened.map_err(|_| io::Error::other("its files are damaged"))??;
        match db.get(LAYOUT)? {
            Some(layout) if layout == LAYOUT_NOW => {}
            None if db.is_empty() => {
                db.insert(LAYOUT, LAYOUT_NOW)?;
            }
            _ => return Err(io::Error::other("it has another layout")),
        }
        let next = db.get(NEXT)?.and_then(|bytes| number(&bytes)).unwrap_or(first);
        Ok(Self { db, first: AtomicU64::new(first), pending: Mutex::new(Block::starting(next)) })
    }

    /// sled lets go of its lock a moment after its last handle is dropped. Whoever does not wait for it takes a good view for one that
    /// cannot be opened.
    fn lock_and_open(dir: &Path) -> sled::Result<sled::Db> {
        let since = Instant::now();
        loop {
            match sled::Config::default().path(dir).cache_capacity(8 << 20).open() {
                Err(sled::Error::Io(e)) if e.to_string().contains(LOCKED) && since.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_AGAIN);
                }
                opened => return opened,
            }
        }
    }

    /// The first sequence number that is not indexed yet.
    pub fn next(&self) -> u64 {
        self.lock().next()
    }

    /// Indexes what the journal has and the view has not. `progress` is told now and then how far that is.
    pub fn catch_up(&self, reader: &mut Reader, records: u64, mut progress: impl FnMut(u64, u64)) -> io::Result<()> {
        let from = self.next();
        for seq in from..records {
            match reader.record(seq)? {
                Some(record) => self.add(seq, &record)?,
                // Retention may drop what a slow view has not read.
                None if reader.first()? > seq => return self.restart(reader.first()?, reader, records, progress),
                None => return Err(io::Error::other(format!("record {seq} is missing from the journal"))),
            }
            if (seq - from).is_multiple_of(4096) {
                progress(seq - from, records - from);
            }
        }
        Ok(())
    }

    fn restart(&self, first: u64, reader: &mut Reader, records: u64, progress: impl FnMut(u64, u64)) -> io::Result<()> {
        *self.lock() = Block::starting(first);
        self.forget_before(first)?;
        self.catch_up(reader, records, progress)
    }

    /// Indexes the next record. Others are ignored: they were indexed before, or come with [`View::catch_up`].
    pub fn add(&self, seq: u64, record: &Record) -> io::Result<()> {
        let mut pending = self.lock();
        if seq != pending.next() {
            return Ok(());
        }
        pending.push(record);
        if pending.times.len() >= BLOCK { self.flush(&mut pending) } else { Ok(()) }
    }

    fn flush(&self, pending: &mut Block) -> io::Result<()> {
        let next = pending.next();
        let mut batch = sled::Batch::default();
        let first = pending.first.to_be_bytes();
        for ((index, value), offsets) in &pending.postings {
            let bytes: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            batch.insert([posting_prefix(*index, value).as_slice(), &first].concat(), bytes);
        }
        for (column, hashes) in &pending.columns {
            let hashes = hashes.iter().flat_map(|(offset, hash)| {
                let (offset, hash) = (offset.to_le_bytes(), hash.to_le_bytes());
                offset.into_iter().chain(hash)
            });
            batch.insert([&[b'c', *column], &first[..]].concat(), hashes.collect::<Vec<u8>>());
        }
        let times: Vec<u8> = pending.times.iter().flat_map(|time| time.to_le_bytes()).collect();
        let own = pending.times.iter().copied().max().unwrap_or(i64::MIN);
        let latest = own.max(latest_before(&self.db, pending.first)?);
        batch.insert([b"m", &first[..]].concat(), latest.to_le_bytes().to_vec());
        batch.insert([b"t", &first[..]].concat(), times);
        batch.insert(NEXT, &next.to_be_bytes());
        self.db.apply_batch(batch)?;
        *pending = Block::starting(next);
        Ok(())
    }

    /// Forgets blocks of which retention has left nothing.
    pub fn forget_before(&self, first_seq: u64) -> io::Result<()> {
        let _pending = self.lock();
        self.first.store(first_seq, Ordering::Relaxed);
        let mut gone = BTreeSet::new();
        for entry in self.db.scan_prefix(b"t") {
            let (key, times) = entry?;
            let first = number(&key[1..]).unwrap_or_default();
            if first + (times.len() / 8) as u64 > first_seq {
                break;
            }
            gone.insert(first);
        }
        if gone.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for key in self.db.iter().keys() {
            let key = key?;
            if key[0] != b'!' && block_of(&key).is_some_and(|block| gone.contains(&block)) {
                batch.remove(key);
            }
        }
        self.db.apply_batch(batch)?;
        Ok(())
    }

    /// Writes what is in memory; called at a graceful end.
    pub fn close(&self) -> io::Result<()> {
        let mut pending = self.lock();
        if !pending.times.is_empty() {
            self.flush(&mut pending)?;
        }
        self.db.flush()?;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Block> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// The block that a key is of.
fn block_of(key: &[u8]) -> Option<u64> {
    key.len().checked_sub(8).and_then(|at| number(&key[at..]))
}

/// Index, value and a terminator that neither holds.
fn posting_prefix(index: u8, value: &str) -> Vec<u8> {
    let mut key = vec![b'p', index];
    key.extend(value.bytes().filter(|b| *b != 0));
    key.push(0);
    key
}

/// Sequence numbers by everything that they are found by, for tests that compare a rebuilt view with the one it replaces.
pub fn contents(view: &View) -> io::Result<BTreeMap<String, BTreeSet<u64>>> {
    let pending = view.lock();
    let mut all: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for entry in view.db.iter() {
        let (key, value) = entry?;
        let (Some(first), false) = (block_of(&key), key[0] == b'!') else { continue };
        let name = String::from_utf8_lossy(&key[..key.len() - 8]).into_owned();
        match key[0] {
            // Follows from the times.
            b'm' => {}
            b'p' => all.entry(name).or_default().extend(find::offsets(&value).map(|offset| first + u64::from(offset))),
            b'c' => find::hashes(&value).for_each(|(offset, hash)| {
                all.entry(format!("{name} {hash:08x}")).or_default().insert(first + u64::from(offset));
            }),
            _ => find::times(&value).enumerate().for_each(|(n, time)| {
                all.entry(format!("{name} {time}")).or_default().insert(first + n as u64);
            }),
        }
    }
    let at = |offset: u16| pending.first + u64::from(offset);
    for ((index, value), offsets) in &pending.postings {
        let name = String::from_utf8_lossy(&posting_prefix(*index, value)).into_owned();
        all.entry(name).or_default().extend(offsets.iter().map(|offset| at(*offset)));
    }
    for (column, hashes) in &pending.columns {
        for (offset, hash) in hashes {
            all.entry(format!("c{} {hash:08x}", char::from(*column))).or_default().insert(at(*offset));
        }
    }
    for (n, time) in pending.times.iter().enumerate() {
        all.entry(format!("t {time}")).or_default().insert(pending.first + n as u64);
    }
    Ok(all)
}
