//! Reading records by sequence number, beside the writer or without one.

use super::segment;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use warden_core::journal::frame::{self, FRAME_HEADER, SEGMENT_HEADER};
use warden_core::journal::record::Record;

/// One offset in so many frames is remembered.
const EVERY: u64 = 16;

/// Finds records in the segment files. Remembers some offsets, so reading nearby records is quick.
pub struct Reader {
    dir: PathBuf,
    segments: Vec<(u64, PathBuf)>,
    open: HashMap<u64, Open>,
}

struct Open {
    file: std::fs::File,
    /// Offsets of the frames `first + n * EVERY`, as far as they were walked.
    offsets: Vec<u64>,
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
        }
        let number = self.segments.partition_point(|(first, _)| *first <= seq);
        let Some((first, path)) = number.checked_sub(1).map(|n| self.segments[n].clone()) else { return Ok(None) };
        let open = match self.open.entry(first) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                match std::fs::File::open(&path) {
                    Ok(file) => place.insert(Open { file, offsets: vec![SEGMENT_HEADER as u64] }),
                    // Retention dropped it.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(e),
                }
            }
        };
        open.find(first, seq)
    }

    /// A record.
    pub fn record(&mut self, seq: u64) -> io::Result<Option<Record>> {
        let Some(bytes) = self.bytes(seq)? else { return Ok(None) };
        Record::from_bytes(&bytes).map(Some).map_err(io::Error::other)
    }
}

impl Open {
    fn find(&mut self, first: u64, wanted: u64) -> io::Result<Option<Vec<u8>>> {
        let known = (self.offsets.len() as u64 - 1).min((wanted - first) / EVERY);
        let mut seq = first + known * EVERY;
        let mut offset = self.offsets[usize::try_from(known).unwrap_or_default()];
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
            if (seq - first).is_multiple_of(EVERY) && (seq - first) / EVERY == self.offsets.len() as u64 {
                self.offsets.push(offset);
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
