//! The queryable decision log: a sled view of the journal. Never the truth, never read by a decision.
//!
//! Postings are written in blocks: for each index and value, the sequence numbers of at least 256 records at once (one
//! key per index and record is too slow). What is not written yet is kept in memory, and after a restart it is read
//! from the journal again. A view that is missing, behind or unopenable is thrown away and rebuilt.

use crate::journal::Reader;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use warden_core::journal::record::{Body, Record};

/// Records a block holds.
const BLOCK: usize = 256;
/// How sled says that somebody holds its lock.
const LOCKED: &str = "could not acquire lock";
/// How long the lock is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Between two tries.
const LOCK_AGAIN: Duration = Duration::from_millis(5);
const NEXT: &[u8] = b"!next";
const LAYOUT: &[u8] = b"!layout";
const LAYOUT_NOW: &[u8] = b"1";

/// What to look for. Absent fields match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Worker's name.
    pub worker: Option<String>,
    /// Server's name.
    pub server: Option<String>,
    /// `SERVER/TOOL`, or an action's id.
    pub tool: Option<String>,
    /// `allow`, `escalate` or `deny`.
    pub verdict: Option<String>,
    /// A deciding policy's id.
    pub policy: Option<String>,
    /// Kind of record.
    pub kind: Option<String>,
    /// Not before; RFC 3339.
    pub since: Option<jiff::Timestamp>,
    /// Before; RFC 3339.
    pub until: Option<jiff::Timestamp>,
    /// Only with smaller sequence numbers: the cursor of the next page.
    pub before: Option<u64>,
    /// At most so many, newest first.
    pub limit: Option<usize>,
}

/// See the module.
pub struct View {
    db: sled::Db,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    next: u64,
    count: usize,
    first_ts: Option<jiff::Timestamp>,
    first_seq: u64,
    postings: BTreeMap<Vec<u8>, Vec<u64>>,
}

impl View {
    /// Opens the view in `dir`, or a fresh one where that cannot be used. `records` is how many the journal has.
    pub fn open(dir: &Path, records: u64) -> io::Result<Self> {
        match Self::try_open(dir) {
            Ok(view) if view.next() <= records => Ok(view),
            opened => {
                match opened {
                    Ok(view) => {
                        tracing::warn!(
                            view = view.next(),
                            journal = records,
                            "the view is ahead of the journal and is rebuilt"
                        );
                        drop(view);
                    }
                    Err(e) => tracing::warn!(error = %e, "the view cannot be opened and is rebuilt"),
                }
                match std::fs::remove_dir_all(dir) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                Self::try_open(dir)
            }
        }
    }

    fn try_open(dir: &Path) -> io::Result<Self> {
        let db = Self::lock_and_open(dir)?;
        match db.get(LAYOUT)? {
            Some(layout) if layout == LAYOUT_NOW => {}
            None if db.is_empty() => {
                db.insert(LAYOUT, LAYOUT_NOW)?;
            }
            _ => return Err(io::Error::other("another layout")),
        }
        let next = db.get(NEXT)?.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes);
        Ok(Self { db, pending: Mutex::new(Pending { next, ..Pending::default() }) })
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
        self.lock().next
    }

    /// Indexes what the journal has and the view has not.
    pub fn catch_up(&self, reader: &mut Reader, records: u64) -> io::Result<()> {
        for seq in self.next()..records {
            match reader.record(seq)? {
                Some(record) => self.add(seq, &record)?,
                None => return Err(io::Error::other(format!("record {seq} is missing from the journal"))),
            }
        }
        Ok(())
    }

    /// Indexes the next record. Others are ignored: they were indexed before, or come with [`View::catch_up`].
    pub fn add(&self, seq: u64, record: &Record) -> io::Result<()> {
        let mut pending = self.lock();
        if seq != pending.next {
            return Ok(());
        }
        if pending.count == 0 {
            pending.first_seq = seq;
            pending.first_ts = None;
        }
        // The earliest time of the block, since times of neighbours may cross.
        pending.first_ts = Some(pending.first_ts.map_or(record.ts, |first| first.min(record.ts)));
        for (index, value) in terms(record) {
            pending.postings.entry(key(index, &value)).or_default().push(seq);
        }
        pending.next = seq + 1;
        pending.count += 1;
        if pending.count >= BLOCK { self.flush(&mut pending) } else { Ok(()) }
    }

    fn flush(&self, pending: &mut Pending) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (mut key, seqs) in std::mem::take(&mut pending.postings) {
            key.extend_from_slice(&seqs[0].to_be_bytes());
            let value: Vec<u8> = seqs.iter().flat_map(|seq| seq.to_be_bytes()).collect();
            batch.insert(key, value);
        }
        if let Some(ts) = pending.first_ts.take() {
            let mut key = b"t\0".to_vec();
            key.extend_from_slice(&pending.first_seq.to_be_bytes());
            batch.insert(key, &ts.as_microsecond().to_be_bytes());
        }
        batch.insert(NEXT, &pending.next.to_be_bytes());
        pending.count = 0;
        self.db.apply_batch(batch)?;
        Ok(())
    }

    /// Matching sequence numbers, newest first.
    pub fn find(&self, query: &Query) -> io::Result<Vec<u64>> {
        let limit = query.limit.unwrap_or(50);
        let filters: Vec<Vec<u8>> = [
            ("w", &query.worker),
            ("s", &query.server),
            ("a", &query.tool),
            ("v", &query.verdict),
            ("p", &query.policy),
            ("k", &query.kind),
        ]
        .into_iter()
        .filter_map(|(index, value)| Some(key(index, value.as_ref()?)))
        .collect();
        // Held while reading, so that no block moves from memory to sled in between.
        let pending = self.lock();
        let mut found = Vec::new();
        let mut before = query.before.unwrap_or(u64::MAX).min(pending.next);
        before = before.min(self.block_after(query.until, pending.next)?);
        let not_before = self.block_of(query.since)?;
        let mut lists: Vec<Postings<'_>> =
            filters.into_iter().map(|key| Postings::new(&self.db, &pending, key)).collect();
        while found.len() < limit && before > not_before {
            let mut candidate = before - 1;
            let mut agreed = true;
            for list in &mut lists {
                match list.at_or_before(candidate)? {
                    None => return Ok(found),
                    Some(seq) if seq < candidate => {
                        (candidate, agreed) = (seq, false);
                        break;
                    }
                    Some(_) => {}
                }
            }
            if agreed {
                if candidate >= not_before {
                    found.push(candidate);
                }
                before = candidate;
            } else {
                before = candidate + 1;
            }
        }
        Ok(found)
    }

    /// The first sequence number of the block in which records since `since` start.
    fn block_of(&self, since: Option<jiff::Timestamp>) -> io::Result<u64> {
        let Some(since) = since else { return Ok(0) };
        // Blocks overlap in time by what was in flight, so one more is looked at; records are filtered by time later.
        let mut blocks = self.blocks(since)?;
        blocks.next();
        Ok(blocks.next().unwrap_or(0))
    }

    /// The first sequence number of the block in which records of about that time start.
    pub fn first_around(&self, ts: jiff::Timestamp) -> io::Result<u64> {
        let _pending = self.lock();
        self.block_of(Some(ts))
    }

    fn block_after(&self, until: Option<jiff::Timestamp>, end: u64) -> io::Result<u64> {
        let Some(until) = until else { return Ok(end) };
        for entry in self.db.scan_prefix(b"t\0") {
            let (key, value) = entry?;
            if number(&value).is_some_and(|ts| ts.cast_signed() > until.as_microsecond() + 5_000_000) {
                return Ok(number(&key[2..]).unwrap_or(end));
            }
        }
        Ok(end)
    }

    /// First sequence numbers of blocks that start before `ts`, newest first.
    fn blocks(&self, ts: jiff::Timestamp) -> io::Result<impl Iterator<Item = u64>> {
        let mut firsts = Vec::new();
        for entry in self.db.scan_prefix(b"t\0") {
            let (key, value) = entry?;
            if number(&value).is_none_or(|first| first.cast_signed() >= ts.as_microsecond()) {
                break;
            }
            firsts.push(number(&key[2..]).unwrap_or(0));
        }
        Ok(firsts.into_iter().rev())
    }

    /// Writes what is in memory; called at a graceful end.
    pub fn close(&self) -> io::Result<()> {
        let mut pending = self.lock();
        if pending.count > 0 {
            self.flush(&mut pending)?;
        }
        self.db.flush()?;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records that match, newest first, with their sequence numbers. Times are compared exactly here.
pub fn run(view: &View, reader: &mut Reader, query: &Query) -> io::Result<Vec<(u64, Record)>> {
    let limit = query.limit.unwrap_or(50);
    let mut found = Vec::new();
    let mut page = Query { limit: Some(limit.max(64)), ..query.clone() };
    loop {
        let seqs = view.find(&page)?;
        let Some(last) = seqs.last().copied() else { return Ok(found) };
        for seq in seqs {
            let Some(record) = reader.record(seq)? else { continue };
            let in_time =
                query.since.is_none_or(|since| record.ts >= since) && query.until.is_none_or(|until| record.ts < until);
            if in_time {
                found.push((seq, record));
            }
            if found.len() == limit {
                return Ok(found);
            }
        }
        page.before = Some(last);
    }
}

struct Postings<'v> {
    db: &'v sled::Db,
    prefix: Vec<u8>,
    memory: &'v [u64],
    /// The block that was read last, ascending.
    block: Vec<u64>,
}

impl<'v> Postings<'v> {
    fn new(db: &'v sled::Db, pending: &'v Pending, prefix: Vec<u8>) -> Self {
        let memory = pending.postings.get(&prefix).map_or(&[][..], Vec::as_slice);
        Self { db, prefix, memory, block: Vec::new() }
    }

    /// The greatest posting up to `seq`.
    fn at_or_before(&mut self, seq: u64) -> io::Result<Option<u64>> {
        if let Some(found) = last_up_to(self.memory, seq) {
            return Ok(Some(found));
        }
        if self.block.first().is_none_or(|first| *first > seq) || self.block.last().is_some_and(|last| *last < seq) {
            let mut end = self.prefix.clone();
            end.extend_from_slice(&seq.to_be_bytes());
            let entry = self.db.range(self.prefix.clone()..=end).next_back().transpose()?;
            self.block = match entry {
                Some((_, value)) => value.chunks_exact(8).filter_map(number).collect(),
                None => Vec::new(),
            };
        }
        Ok(last_up_to(&self.block, seq))
    }
}

fn last_up_to(seqs: &[u64], seq: u64) -> Option<u64> {
    seqs.partition_point(|s| *s <= seq).checked_sub(1).map(|n| seqs[n])
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Index, value and a terminator that neither holds.
fn key(index: &str, value: &str) -> Vec<u8> {
    let mut key = index.as_bytes().to_vec();
    key.push(0);
    key.extend(value.bytes().filter(|b| *b != 0));
    key.push(0);
    key
}

fn terms(record: &Record) -> BTreeSet<(&'static str, String)> {
    let mut terms = BTreeSet::new();
    let kind = match &record.body {
        Body::Decision(decision) => {
            terms.insert(("w", decision.worker.clone()));
            terms.insert(("s", decision.server.clone()));
            terms.insert(("a", decision.action.clone()));
            if let Some(tool) = &decision.tool {
                terms.insert(("a", format!("{}/{tool}", decision.server)));
            }
            terms.insert(("v", decision.verdict.name().into()));
            terms.extend(decision.policies.iter().map(|policy| ("p", policy.clone())));
            "decision"
        }
        Body::Outcome(_) => "outcome",
        Body::Policy(_) => "policy",
        Body::Operator(_) => "operator",
        Body::State(_) => "state",
    };
    terms.insert(("k", kind.into()));
    terms
}

/// Counts of postings by value, for tests that compare a rebuilt view with the one it replaces.
pub fn contents(view: &View) -> io::Result<HashMap<String, BTreeSet<u64>>> {
    let pending = view.lock();
    let mut all: HashMap<String, BTreeSet<u64>> = HashMap::new();
    for entry in view.db.iter() {
        let (key, value) = entry?;
        if key.len() > 10 && !key.starts_with(b"t\0") && key[0] != b'!' {
            let name = String::from_utf8_lossy(&key[..key.len() - 8]).into_owned();
            all.entry(name).or_default().extend(value.chunks_exact(8).filter_map(number));
        }
    }
    for (key, seqs) in &pending.postings {
        all.entry(String::from_utf8_lossy(key).into_owned()).or_default().extend(seqs);
    }
    Ok(all)
}
