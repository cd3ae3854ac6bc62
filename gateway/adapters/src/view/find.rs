//! Finding records: block by block, the newest first.

use super::block::{self, Block, Column};
use super::query::Query;
use super::{View, block_of, posting_prefix};
use crate::journal::Reader;
use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;
use warden_core::journal::record::{Body, Record};

/// A record with its sequence number.
pub type Found = (u64, Record);

pub(super) fn offsets(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn hashes(bytes: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    bytes.as_chunks::<6>().0.iter().map(|[a, b, hash @ ..]| (u16::from_le_bytes([*a, *b]), u32::from_le_bytes(*hash)))
}

pub(super) fn times(bytes: &[u8]) -> impl Iterator<Item = i64> {
    bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes))
}

/// Which records of a block are looked for.
pub(super) struct Mask {
    pub(super) first: u64,
    bits: Vec<u64>,
}

impl Mask {
    fn all(first: u64, count: usize) -> Self {
        let mut bits = vec![u64::MAX; count.div_ceil(64)];
        if let (Some(last), rest @ 1..) = (bits.last_mut(), count % 64) {
            *last = (1 << rest) - 1;
        }
        Self { first, bits }
    }

    pub(super) fn has(&self, offset: u16) -> bool {
        self.bits.get(usize::from(offset / 64)).is_some_and(|bits| bits >> (offset % 64) & 1 == 1)
    }

    /// Keeps only these.
    fn keep(&mut self, offsets: impl Iterator<Item = u16>) {
        let mut kept = vec![0u64; self.bits.len()];
        for offset in offsets.filter(|offset| self.has(*offset)) {
            kept[usize::from(offset / 64)] |= 1 << (offset % 64);
        }
        self.bits = kept;
    }

    fn is_empty(&self) -> bool {
        self.bits.iter().all(|bits| *bits == 0)
    }

    /// Sequence numbers, the newest first.
    fn newest_first(&self) -> impl Iterator<Item = u64> {
        let offsets = (0..self.bits.len() * 64).rev().filter_map(|n| u16::try_from(n).ok());
        offsets.filter(|offset| self.has(*offset)).map(|offset| self.first + u64::from(offset))
    }
}

impl View {
    /// The newest block that starts before `before` and may have what is looked for; none when there is no more.
    fn block_before(&self, query: &Query, before: u64) -> io::Result<Option<u64>> {
        let prefix = match (query.columns().first(), query.postings().first()) {
            (Some((column, _)), _) => vec![b'c', column.letter()],
            (None, Some((index, value))) => posting_prefix(index.letter(), value),
            (None, None) => b"t".to_vec(),
        };
        let end = [prefix.as_slice(), &before.to_be_bytes()].concat();
        let wanted = query.columns().first().map(|(_, value)| block::hash(value));
        let mut blocks = self.db.range(prefix.clone()..end);
        while let Some((key, value)) = blocks.next_back().transpose()? {
            if !key.starts_with(&prefix) {
                break;
            }
            // A column is there in nearly every block: what has no such value is passed over without another look.
            if wanted.is_none_or(|wanted| hashes(&value).any(|(_, hash)| hash == wanted)) {
                return Ok(block_of(&key));
            }
        }
        Ok(None)
    }

    /// Records of a stored block that are looked for, as far as the view can tell.
    pub(super) fn mask(&self, query: &Query, first: u64) -> io::Result<Option<Mask>> {
        let key = |prefix: Vec<u8>| [prefix.as_slice(), &first.to_be_bytes()].concat();
        let Some(stored) = self.db.get(key(b"t".to_vec()))? else { return Ok(None) };
        let mut mask = Mask::all(first, stored.len() / 8);
        let left = self.first.load(Ordering::Relaxed);
        if left > first {
            mask.keep(
                (0..stored.len() / 8).filter_map(|n| u16::try_from(n).ok()).filter(|n| first + u64::from(*n) >= left),
            );
        }
        if query.since.is_some() || query.until.is_some() {
            let in_time = times(&stored).map(|time| is_in_time(query, time));
            mask.keep(in_time.enumerate().filter(|(_, fits)| *fits).filter_map(|(n, _)| u16::try_from(n).ok()));
        }
        for (index, value) in query.postings() {
            match self.db.get(key(posting_prefix(index.letter(), value)))? {
                Some(found) => mask.keep(offsets(&found)),
                None => return Ok(None),
            }
        }
        for (column, value) in query.columns() {
            let wanted = block::hash(value);
            match self.db.get(key(vec![b'c', column.letter()]))? {
                Some(found) => mask.keep(hashes(&found).filter(|(_, hash)| *hash == wanted).map(|(offset, _)| offset)),
                None => return Ok(None),
            }
        }
        Ok((!mask.is_empty()).then_some(mask))
    }

    /// First sequence numbers of all stored blocks, in order.
    pub(super) fn blocks(&self) -> io::Result<Vec<u64>> {
        self.db.scan_prefix(b"t").keys().map(|key| Ok(block_of(&key?).unwrap_or_default())).collect()
    }

    /// Sequence numbers of records that have `value` in a column, in order, from `from` on.
    fn in_column(&self, column: Column, wanted: &HashSet<u32>, from: u64) -> io::Result<Vec<u64>> {
        let pending = self.lock();
        let mut found = Vec::new();
        let prefix = [b'c', column.letter()];
        // The block that `from` is in starts at or before it.
        let start = self.db.range([b"t", &[0; 8][..]].concat()..=[b"t", &from.to_be_bytes()[..]].concat()).next_back();
        let start = start.transpose()?.and_then(|(key, _)| block_of(&key)).unwrap_or(from);
        let mut take = |first: u64, offset: u16, hash: u32| {
            if wanted.contains(&hash) && first + u64::from(offset) >= from {
                found.push(first + u64::from(offset));
            }
        };
        for entry in self.db.range([&prefix[..], &start.to_be_bytes()].concat()..) {
            let (key, value) = entry?;
            if !key.starts_with(&prefix) {
                break;
            }
            let first = block_of(&key).unwrap_or_default();
            hashes(&value).for_each(|(offset, hash)| take(first, offset, hash));
        }
        for (offset, hash) in pending.columns.get(&column.letter()).into_iter().flatten() {
            take(pending.first, *offset, *hash);
        }
        Ok(found)
    }
}

fn is_in_time(query: &Query, time: i64) -> bool {
    query.since.is_none_or(|since| time >= since.as_microsecond())
        && query.until.is_none_or(|until| time < until.as_microsecond())
}

/// Records of the block in memory that are looked for.
pub(super) fn mask_of(query: &Query, block: &Block) -> Mask {
    let mut mask = Mask::all(block.first, block.times.len());
    let in_time = block.times.iter().map(|time| is_in_time(query, *time));
    mask.keep(in_time.enumerate().filter(|(_, fits)| *fits).filter_map(|(n, _)| u16::try_from(n).ok()));
    for (index, value) in query.postings() {
        let value: String = value.chars().filter(|c| *c != '\0').collect();
        mask.keep(block.postings.get(&(index.letter(), value)).into_iter().flatten().copied());
    }
    for (column, value) in query.columns() {
        let wanted = block::hash(value);
        let found = block.columns.get(&column.letter()).into_iter().flatten();
        mask.keep(found.filter(|(_, hash)| *hash == wanted).map(|(offset, _)| *offset));
    }
    mask
}

/// The records that match, newest first. Records of a page are read from the journal, and have the last word.
pub fn run(view: &View, reader: &mut Reader, query: &Query) -> io::Result<Vec<Found>> {
    let limit = query.limit.unwrap_or(50);
    let mut found = Vec::new();
    let end = query.before.unwrap_or(u64::MAX);
    let (mask, mut before) = {
        let pending = view.lock();
        (mask_of(query, &pending), pending.first)
    };
    take(&mask, end, limit, reader, query, &mut found)?;
    before = before.min(end);
    while found.len() < limit {
        let Some(first) = view.block_before(query, before)? else { break };
        if let Some(mask) = view.mask(query, first)? {
            take(&mask, end, limit, reader, query, &mut found)?;
        } else if query.since.is_some_and(|since| view.ends_before(first, since)) {
            break;
        }
        before = first;
    }
    Ok(found)
}

fn take(
    mask: &Mask,
    end: u64,
    limit: usize,
    reader: &mut Reader,
    query: &Query,
    found: &mut Vec<Found>,
) -> io::Result<()> {
    for seq in mask.newest_first().filter(|seq| *seq < end) {
        if found.len() >= limit {
            break;
        }
        // Retention may have dropped it.
        let Some(record) = reader.record(seq)? else { continue };
        if query.matches(&record) {
            found.push((seq, record));
        }
    }
    Ok(())
}

impl View {
    /// The sequence numbers from the first record since `since` to behind the last one before `until`.
    pub fn span(&self, since: Option<jiff::Timestamp>, until: Option<jiff::Timestamp>) -> io::Result<(u64, u64)> {
        let query = Query { since, until, ..Query::default() };
        let pending = self.lock();
        let (mut from, mut to) = (u64::MAX, 0);
        let mut take = |first: u64, time: i64, n: usize| {
            if is_in_time(&query, time) {
                (from, to) = (from.min(first + n as u64), to.max(first + n as u64 + 1));
            }
        };
        for entry in self.db.scan_prefix(b"t") {
            let (key, value) = entry?;
            let first = block_of(&key).unwrap_or_default();
            times(&value).enumerate().for_each(|(n, time)| take(first, time, n));
        }
        pending.times.iter().enumerate().for_each(|(n, time)| take(pending.first, *time, n));
        Ok(if from < to { (from, to) } else { (pending.next(), pending.next()) })
    }
}

impl View {
    /// Whether neither a stored block nor any before it has records since then. Times of neighbours may cross, and a clock
    /// may be set back, so their own order says nothing.
    fn ends_before(&self, first: u64, since: jiff::Timestamp) -> bool {
        let latest = self.db.get([b"m", &first.to_be_bytes()[..]].concat()).ok().flatten();
        let latest = latest.and_then(|stored| times(&stored).next());
        latest.is_some_and(|latest| latest < since.as_microsecond())
    }
}

/// The decision of that id, and what came of it.
pub fn of_decision(view: &View, reader: &mut Reader, id: &str) -> io::Result<Vec<Found>> {
    let seqs = view.in_column(Column::Decision, &HashSet::from([block::hash(id)]), 0)?;
    let mut found = Vec::new();
    for seq in seqs {
        let Some(record) = reader.record(seq)? else { continue };
        if belongs_to(&record, |own| own == id) {
            found.push((seq, record));
        }
    }
    Ok(found)
}

fn belongs_to(record: &Record, is: impl Fn(&str) -> bool) -> bool {
    match &record.body {
        Body::Decision(decision) => is(decision.id.as_str()),
        Body::Outcome(outcome) => is(outcome.decision.as_str()),
        _ => false,
    }
}

/// The newest decisions that match, with what came of each, oldest first.
pub fn timeline(view: &View, reader: &mut Reader, query: &Query) -> io::Result<Vec<Found>> {
    let decisions = run(view, reader, &Query { kind: Some("decision".into()), ..query.clone() })?;
    // A page that is not full goes back to the beginning.
    let is_full = query.limit.is_some_and(|limit| decisions.len() >= limit);
    let first = decisions.last().map(|(seq, _)| *seq).filter(|_| is_full || query.session.is_none());
    let first = &match (first, &query.session) {
        (Some(first), _) => first,
        (None, Some(_)) => 0,
        (None, None) => return Ok(Vec::new()),
    };
    let ids: HashSet<&str> = decisions
        .iter()
        .filter_map(|(_, record)| match &record.body {
            Body::Decision(decision) => Some(decision.id.as_str()),
            _ => None,
        })
        .collect();
    let wanted = ids.iter().map(|id| block::hash(id)).collect();
    let mut all = Vec::new();
    for seq in view.in_column(Column::Decision, &wanted, *first)? {
        let Some(record) = reader.record(seq)? else { continue };
        if belongs_to(&record, |own| ids.contains(own)) {
            all.push((seq, record));
        }
    }
    if let Some(session) = &query.session {
        for seq in view.in_column(Column::Session, &HashSet::from([block::hash(session)]), *first)? {
            let Some(record) = reader.record(seq)? else { continue };
            let before = query.before.is_none_or(|before| seq < before);
            if before && matches!(&record.body, Body::Session(change) if change.session == *session) {
                all.push((seq, record));
            }
        }
        all.sort_by_key(|(seq, _)| *seq);
    }
    Ok(all)
}
