//! Frames: what a segment file is made of, and what a crash may leave of it.
//!
//! ```text
//! segment  magic "WARDENJ1" · version u32 · crc u32 · first seq u64 · root before it [32]      (64 bytes, zero padded)
//! frame    length u32 · crc u32 · seq u64 · batch u64 · payload · zeros to a multiple of 8     (little endian)
//! ```
//!
//! The CRC (CRC-32C) covers length, sequence number, batch and payload. `batch` is the sequence number of the first frame
//! that was synced together with this one. A batch is written only after the one before it is on the disk. So when
//! a frame cannot be read, a readable one behind it of the *same* batch is what an interrupted write may leave, and one
//! of a *later* batch proves that synced bytes were changed.

use crate::journal::tree::Hash;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 64;
/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 24;
/// The longest payload. Longer ones are refused before they are written.
pub const PAYLOAD_MAX: usize = 32 << 20;

const MAGIC: &[u8; 8] = b"WARDENJ1";
const VERSION: u32 = 1;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The sequence number of its first frame.
    pub first_seq: u64,
    /// The Merkle root of everything before it.
    pub root_before: Hash,
}

/// One frame that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// Where it starts in the segment.
    pub offset: usize,
    /// Its sequence number.
    pub seq: u64,
    /// The first sequence number of its batch.
    pub batch: u64,
    /// The record's bytes.
    pub payload: &'b [u8],
}

impl Frame<'_> {
    /// Where the next one starts.
    pub fn end(&self) -> usize {
        self.offset + length_of(self.payload.len())
    }
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Zeros, or nothing at all, from this byte on.
    Clean(usize),
    /// A write was cut off at this byte; nothing that was ever acknowledged stands behind it.
    Torn(usize),
}

impl Tail {
    /// Where the next frame goes.
    pub fn offset(self) -> usize {
        match self {
            Tail::Clean(offset) | Tail::Torn(offset) => offset,
        }
    }
}

/// Bytes that no crash leaves behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}, where sequence number {seq} belongs")]
pub struct Damage {
    /// What is wrong.
    pub what: &'static str,
    /// The byte of the segment.
    pub offset: usize,
    /// The sequence number that should stand there.
    pub seq: u64,
}

/// The bytes that a payload takes, header and padding included.
pub fn length_of(payload: usize) -> usize {
    (FRAME_HEADER + payload).next_multiple_of(8)
}

/// Appends a frame.
pub fn push(buffer: &mut Vec<u8>, seq: u64, batch: u64, payload: &[u8]) {
    let start = buffer.len();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&crc(length, seq, batch, payload).to_le_bytes());
    buffer.extend_from_slice(&seq.to_le_bytes());
    buffer.extend_from_slice(&batch.to_le_bytes());
    buffer.extend_from_slice(payload);
    buffer.resize(start + length_of(payload.len()), 0);
}

/// A segment's first bytes.
pub fn header(header: &SegmentHeader) -> [u8; SEGMENT_HEADER] {
    let mut bytes = [0; SEGMENT_HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.first_seq.to_le_bytes());
    bytes[24..56].copy_from_slice(&header.root_before);
    let crc = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a segment's header. All zeros is none: the segment was made and never used.
pub fn read_header(bytes: &[u8]) -> Result<Option<SegmentHeader>, Damage> {
    let damage = |what| Damage { what, offset: 0, seq: 0 };
    let Some(bytes) = bytes.get(..SEGMENT_HEADER) else {
        return if bytes.iter().all(|b| *b == 0) { Ok(None) } else { Err(damage("a segment header cut short")) };
    };
    if bytes.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    if &bytes[..8] != MAGIC {
        return Err(damage("no segment header"));
    }
    if u32_at(bytes, 8) != Some(VERSION) {
        return Err(damage("a segment version this Warden does not read"));
    }
    if u32_at(bytes, 12) != Some(crc32c::crc32c(&bytes[16..])) {
        return Err(damage("a damaged segment header"));
    }
    let mut root_before = [0; 32];
    root_before.copy_from_slice(&bytes[24..56]);
    Ok(Some(SegmentHeader { first_seq: u64_at(bytes, 16).unwrap_or_default(), root_before }))
}

/// The frame at `offset`, if a whole one stands there.
pub fn at(segment: &[u8], offset: usize) -> Option<Frame<'_>> {
    let length = usize::try_from(u32_at(segment, offset)?).ok()?;
    let (seq, batch) = (u64_at(segment, offset + 8)?, u64_at(segment, offset + 16)?);
    // No record is empty, so zeros are never a frame.
    if length == 0 || length > PAYLOAD_MAX || batch > seq {
        return None;
    }
    let payload = segment.get(offset + FRAME_HEADER..offset + FRAME_HEADER + length)?;
    let fits = u32_at(segment, offset + 4)? == crc(u32_at(segment, offset)?, seq, batch, payload);
    fits.then_some(Frame { offset, seq, batch, payload })
}

/// Walks the frames of a segment. `see` gets each; its result ends the walk early when it is an error.
pub fn walk<'b, E: From<Damage>>(
    segment: &'b [u8],
    first_seq: u64,
    mut see: impl FnMut(Frame<'b>) -> Result<(), E>,
) -> Result<(u64, Tail), E> {
    let (mut offset, mut seq) = (SEGMENT_HEADER, first_seq);
    while let Some(frame) = at(segment, offset) {
        if frame.seq != seq {
            return Err(Damage { what: "a frame of another sequence number", offset, seq }.into());
        }
        offset = frame.end();
        seq = seq.checked_add(1).ok_or(Damage { what: "a sequence number that nothing can follow", offset, seq })?;
        see(frame)?;
    }
    Ok((seq, tail(segment, offset, seq)?))
}

fn tail(segment: &[u8], offset: usize, seq: u64) -> Result<Tail, Damage> {
    let rest = segment.get(offset..).unwrap_or_default();
    if rest.iter().all(|b| *b == 0) {
        return Ok(Tail::Clean(offset));
    }
    // Frames start at multiples of 8, counted from the segment's start as the header is 64 bytes.
    let later = (offset..segment.len()).step_by(8).filter_map(|at_byte| at(segment, at_byte));
    for frame in later {
        if frame.batch > seq {
            return Err(Damage { what: "bytes that were synced have changed", offset, seq });
        }
    }
    Ok(Tail::Torn(offset))
}

fn crc(length: u32, seq: u64, batch: u64, payload: &[u8]) -> u32 {
    let mut head = [0; 20];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..12].copy_from_slice(&seq.to_le_bytes());
    head[12..].copy_from_slice(&batch.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Batches of payload lengths, as a segment with zeros behind.
    fn segment(batches: &[Vec<usize>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(&SegmentHeader { first_seq: 5, root_before: [3; 32] }).to_vec();
        let (mut seq, mut ends) = (5, vec![SEGMENT_HEADER]);
        for batch in batches {
            let first = seq;
            for length in batch {
                push(&mut bytes, seq, first, &vec![b'x'; *length + 1]);
                seq += 1;
            }
            ends.push(bytes.len());
        }
        bytes.resize(bytes.len() + 4096, 0);
        (bytes, ends)
    }

    fn read(bytes: &[u8]) -> Result<(u64, Tail), Damage> {
        walk(bytes, 5, |_| Ok::<(), Damage>(()))
    }

    proptest! {
        #[test]
        fn w08_a_changed_synced_byte_is_damage(
            batches in prop::collection::vec(prop::collection::vec(0usize..300, 1..4), 2..6),
            place in any::<prop::sample::Index>(), flip in 1u8..=255,
        ) {
            let (mut bytes, ends) = segment(&batches);
            prop_assert_eq!(read(&bytes).unwrap().1, Tail::Clean(ends[ends.len() - 1]));
            // Anywhere but in the last batch, whose loss only a checkpoint can show.
            let place = SEGMENT_HEADER + place.index(ends[ends.len() - 2] - SEGMENT_HEADER);
            bytes[place] ^= flip;
            let mut payloads = Vec::new();
            let outcome = walk(&bytes, 5, |f| { payloads.push(f.payload.to_vec()); Ok::<(), Damage>(()) });
            // A flipped padding byte changes nothing that is hashed.
            prop_assert!(outcome.is_err() || payloads.iter().all(|p| p.iter().all(|b| *b == b'x')));
            if let Ok((next, _)) = outcome {
                prop_assert_eq!(next, 5 + batches.iter().map(|b| b.len() as u64).sum::<u64>());
            }
        }

        #[test]
        fn a_cut_off_last_write_is_a_torn_tail(
            batches in prop::collection::vec(prop::collection::vec(0usize..300, 1..4), 2..6),
            lost in prop::collection::vec(any::<bool>(), 8),
        ) {
            let (mut bytes, ends) = segment(&batches);
            // Any 512-byte blocks of the last batch may not have reached the disk, in any order.
            let (start, end) = (ends[ends.len() - 2], ends[ends.len() - 1]);
            let mut changed = false;
            for (block, lost) in (start..end).step_by(512).zip(lost) {
                if lost { bytes[block..(block + 512).min(end)].fill(0); changed = true; }
            }
            let (next, tail) = read(&bytes).unwrap();
            let synced = 5 + batches[..batches.len() - 1].iter().map(|b| b.len() as u64).sum::<u64>();
            prop_assert!(next >= synced);
            prop_assert!(changed || tail == Tail::Clean(end));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read_header(&bytes);
            let _ = read(&bytes);
        }
    }

    #[test]
    fn headers_survive_and_damage_is_named() {
        let mut bytes = header(&SegmentHeader { first_seq: 9, root_before: [7; 32] });
        assert_eq!(read_header(&bytes).unwrap().unwrap().first_seq, 9);
        bytes[30] ^= 1;
        assert_eq!(read_header(&bytes).unwrap_err().what, "a damaged segment header");
        assert_eq!(read_header(&[0; 64]), Ok(None));
    }
}
