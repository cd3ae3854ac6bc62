//! Reading records by sequence number, beside the writer or without one.

use super::segment;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use warden_core::journal::frame::{self, FRAME_HEADER, SEGMENT_HEADER};
use warden_core::journal::record::Record;

/// One offset in so many frames is remembered.
const EVERY: u64 = 16;
/// Records this near are walked to.
const NEAR: u64 = 32;
/// Bytes that are looked at for a frame.
const PROBE: u64 = 16 << 10;

/// Segments that are open at once.
const OPEN_MAX: usize = 4;

/// Finds records in the segment files. Remembers some offsets, so reading nearby records is quick.
pub struct Reader {
    dir: PathBuf,
    segments: Vec<(u64, PathBuf)>,
    open: HashMap<u64, Open>,
}

struct Open {
    file: std::fs::File,
    /// Offsets of some frames by sequence number, that of the first one among them.
    offsets: BTreeMap<u64, u64>,
}

impl Reader {
    /// Of the folder `journal/`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), segments: Vec::new(), open: HashMap::new() }
    }

    /// The first sequence number that is there.
    pub fn first(&mut self) -> io::Result<u64> {
        self.segments = segment::list(&self.dir)?;
        Ok(self.segments.first().map_or(0, |(first, _)| *first))
    }

    /// The stored bytes of a record; nothing when there is no such record.
    pub fn bytes(&mut self, seq: u64) -> io::Result<Option<Vec<u8>>> {
        if self.segments.last().is_none_or(|(first, _)| *first <= seq) {
            self.segments = segment::list(&self.dir)?;
            // What was dropped must not keep its room.
            let segments = &self.segments;
            self.open.retain(|first, _| segments.binary_search_by_key(first, |(first, _)| *first).is_ok());
        }
        let number = self.segments.partition_point(|(first, _)| *first <= seq);
        let Some((first, path)) = number.checked_sub(1).map(|n| self.segments[n].clone()) else { return Ok(None) };
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&first) {
            self.open.clear();
        }
        let open = match self.open.entry(first) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                match std::fs::File::open(&path) {
                    Ok(file) => place.insert(Open { file, offsets: BTreeMap::from([(first, SEGMENT_HEADER as u64)]) }),
                    // Retention dropped it.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(e),
                }
            }
        };
        open.find(seq)
    }

    /// A record.
    pub fn record(&mut self, seq: u64) -> io::Result<Option<Record>> {
        let Some(bytes) = self.bytes(seq)? else { return Ok(None) };
        Record::from_bytes(&bytes).map(Some).map_err(io::Error::other)
    }
}

impl Open {
    fn find(&mut self, wanted: u64) -> io::Result<Option<Vec<u8>>> {
        self.approach(wanted)?;
        let Some((seq, offset)) = self.offsets.range(..=wanted).next_back() else { return Ok(None) };
        let (mut seq, mut offset) = (*seq, *offset);
        loop {
            let Some(length) = self.length(offset, seq)? else { return Ok(None) };
            if seq == wanted {
                let mut bytes = vec![0; frame::length_of(length)];
                self.file.read_exact_at(&mut bytes, offset)?;
                return match frame::at(&bytes, 0) {
                    Some(frame) => Ok(Some(frame.payload.to_vec())),
                    None => Err(io::Error::other(format!("record {seq} is damaged: run `warden audit verify`"))),
                };
            }
            offset += frame::length_of(length) as u64;
            seq += 1;
            if seq.is_multiple_of(EVERY) {
                self.offsets.insert(seq, offset);
            }
        }
    }

    /// Halves what is left between known places until the record is near. A frame is known by its checksum, and no record holds
    /// the bytes of one: it is JSON text, which has no zeros.
    fn approach(&mut self, wanted: u64) -> io::Result<()> {
        let mut end = match self.offsets.range(wanted + 1..).next() {
            Some((_, offset)) => *offset,
            None => self.file.metadata()?.len(),
        };
        loop {
            let Some((seq, offset)) = self.offsets.range(..=wanted).next_back().map(|(seq, at)| (*seq, *at)) else {
                return Ok(());
            };
            if wanted - seq <= NEAR || end.saturating_sub(offset) <= PROBE * 2 {
                return Ok(());
            }
            let middle = (offset + (end - offset) / 2).next_multiple_of(8);
            let mut bytes = vec![0; usize::try_from(PROBE.min(end - middle)).unwrap_or_default()];
            self.file.read_exact_at(&mut bytes, middle)?;
            let found = (0..bytes.len()).step_by(8).find_map(|at| Some((frame::at(&bytes, at)?.seq, at as u64)));
            match found {
                Some((seq, at)) if seq <= wanted => drop(self.offsets.insert(seq, middle + at)),
                // Behind the record, or behind all of them. A record longer than the probe looks like that too, and costs a longer walk.
                _ => end = middle,
            }
        }
    }

    /// The payload length of the frame at `offset`, if it is the one of `seq`.
    fn length(&self, offset: u64, seq: u64) -> io::Result<Option<usize>> {
        let mut head = [0; FRAME_HEADER];
        match self.file.read_exact_at(&mut head, offset) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let (length, rest) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
        let found = u64::from_le_bytes(rest[4..12].try_into().unwrap_or_default());
        Ok((length > 0 && length <= frame::PAYLOAD_MAX && found == seq).then_some(length))
    }
}
