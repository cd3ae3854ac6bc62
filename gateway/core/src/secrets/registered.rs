//! Registered values: an operator's real secrets, found exactly, in whatever common encoding, and in pieces of twelve bytes.
//!
//! The index holds no value, only keyed hashes of the twelve-byte windows of each value and of its encodings. A text is looked
//! at in every fifth place: eight bytes from there lie inside any twelve. What passes that filter is looked up by a keyed hash
//! of the window, and confirmed by HMAC-SHA-256.

use super::fold;
use super::random::{distinct, entropy, roughness};
use crate::mac::MacKey;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Bytes of a window: the shortest piece of a value that is found.
pub const WINDOW: usize = 12;
/// Bytes that the filter looks at, and how far apart: any window holds such eight.
const GRAM: usize = 8;
const STRIDE: usize = WINDOW - GRAM + 1;
/// A registered value is no longer than this.
pub const VALUE_MAX: usize = 16 << 10;
/// Of a window that could be ordinary words, so many bytes have to follow each other.
pub(super) const PLAIN_MIN: usize = 24;
/// With fewer different bytes a window says nothing.
const DISTINCT_MIN: usize = 5;
/// Bytes by which the beginning of a value is told in a stream.
const START: usize = 4;

/// A value that is to be registered.
#[derive(Clone)]
pub struct Registration {
    /// What an operator calls it.
    pub name: String,
    /// Whether it is a canary: a value that nobody uses, and whose appearance is an alarm.
    pub canary: bool,
    /// The value.
    pub value: zeroize::Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registration({}, ****)", self.name)
    }
}

/// Why a value cannot be registered. Names its length at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It would be found everywhere.
    #[error("it has {0} bytes, and with fewer than {WINDOW} it would be found in ordinary text")]
    Short(usize),
    /// It is no single value.
    #[error("it has {0} bytes, and one value is no longer than {VALUE_MAX}")]
    Long(usize),
    /// It would be found everywhere.
    #[error("it is too regular (too few different characters): it would be found in ordinary text")]
    Regular,
}

/// A value as the index knows it.
#[derive(Clone, Debug)]
pub struct Known {
    /// What an operator calls it.
    pub name: String,
    /// Whether it is a canary.
    pub canary: bool,
    /// Keyed fingerprint of the whole value.
    pub fingerprint: String,
}

#[derive(Clone, Copy)]
struct Window {
    tag: u64,
    variant: u32,
    offset: u32,
    /// Whether it alone proves the value.
    strong: bool,
}

struct Variant {
    value: u32,
    length: usize,
}

/// See the module.
#[derive(Default)]
pub struct Registered {
    keys: [u64; 3],
    confirm: Option<MacKey>,
    filter: Vec<u64>,
    windows: HashMap<u64, Vec<Window>>,
    variants: Vec<Variant>,
    values: Vec<Known>,
    starts: HashSet<u32>,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registered({} values)", self.values.len())
    }
}

/// Whether a value can be registered.
pub fn check(value: &[u8]) -> Result<(), Unfit> {
    let value = value.trim_ascii();
    if value.len() < WINDOW {
        return Err(Unfit::Short(value.len()));
    }
    if value.len() > VALUE_MAX {
        return Err(Unfit::Long(value.len()));
    }
    let body = secret_part(value);
    if distinct(&body) < DISTINCT_MIN + 2 || entropy(&body) < 2.5 {
        return Err(Unfit::Regular);
    }
    Ok(())
}

/// The part of a value that is secret. Of a PEM block what is between its lines: they are the same in every key. Of a URI its
/// password, if that is long enough: the host is named in ordinary talk.
fn secret_part(value: &[u8]) -> Vec<u8> {
    if !value.starts_with(b"-----BEGIN") {
        return password(value).filter(|password| password.len() >= WINDOW).unwrap_or(value).to_vec();
    }
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.starts_with(b"-----") && !line.contains(&b':')).flatten().copied().collect()
}

fn password(value: &[u8]) -> Option<&[u8]> {
    let authority = value.windows(3).position(|three| three == b"://")? + 3;
    let at = value[authority..].iter().rposition(|byte| *byte == b'@')?;
    let user_info = &value[authority..authority + at];
    let colon = user_info.iter().position(|byte| *byte == b':')?;
    Some(&user_info[colon + 1..])
}

/// A spelling of a value, and for each of its bytes the byte of the value that it comes from.
struct Spelling {
    bytes: Vec<u8>,
    origin: Vec<usize>,
}

impl Spelling {
    /// `each` encoded one by one.
    fn by_bytes(value: &[u8], each: impl Fn(u8) -> Vec<u8>) -> Self {
        let mut spelling = Self { bytes: Vec::new(), origin: Vec::new() };
        for (index, byte) in value.iter().enumerate() {
            let bytes = each(*byte);
            spelling.origin.extend(std::iter::repeat_n(index, bytes.len()));
            spelling.bytes.extend(bytes);
        }
        spelling
    }

    /// The characters of base64 which `value` alone determines when `shift` unknown bytes stand before it.
    fn base64(value: &[u8], shift: usize, engine: &impl base64::Engine) -> Self {
        let padded = [&vec![0; shift][..], value].concat();
        let text = engine.encode(&padded).into_bytes();
        let (first, last) = ((shift * 8).div_ceil(6), padded.len() * 8 / 6);
        let origin = (first..last).map(|at| (at * 6 / 8).saturating_sub(shift).min(value.len() - 1)).collect();
        Self { bytes: text[first..last].to_vec(), origin }
    }
}

fn spellings(value: &[u8]) -> Vec<Spelling> {
    let plain = |bytes: &[u8]| Spelling::by_bytes(bytes, |byte| vec![byte]);
    let mut all = vec![plain(value)];
    let reversed: Vec<u8> = value.iter().rev().copied().collect();
    all.push(Spelling { origin: (0..value.len()).rev().collect(), bytes: reversed });
    for shift in 0..3 {
        all.push(Spelling::base64(value, shift, &STANDARD_NO_PAD));
        all.push(Spelling::base64(value, shift, &URL_SAFE_NO_PAD));
    }
    all.push(Spelling::by_bytes(value, |byte| format!("{byte:02x}").into_bytes()));
    all.push(Spelling::by_bytes(value, |byte| format!("{byte:02X}").into_bytes()));
    // RFC 3986 §2.1: all but the unreserved characters.
    all.push(Spelling::by_bytes(value, |byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain { vec![byte] } else { format!("%{byte:02X}").into_bytes() }
    }));
    // RFC 8259 §7.
    all.push(Spelling::by_bytes(value, |byte| match byte {
        b'"' => b"\\\"".to_vec(),
        b'\\' => b"\\\\".to_vec(),
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        b'\t' => b"\\t".to_vec(),
        byte => vec![byte],
    }));
    all.push(Spelling::by_bytes(value, |byte| if byte.is_ascii_whitespace() { Vec::new() } else { vec![byte] }));
    let mut folded = Vec::new();
    if std::str::from_utf8(value).is_ok_and(|text| fold::fold(text, &mut folded)) {
        all.push(plain(&folded));
    }
    let mut seen = HashSet::new();
    all.retain(|spelling| spelling.bytes.len() >= WINDOW && seen.insert(spelling.bytes.clone()));
    all
}

impl Registered {
    /// Makes the index. `keys` are random and live as long as the index; `fingerprints` makes what is recorded.
    pub fn new(values: &[Registration], keys: [u8; 56], fingerprints: &MacKey) -> Result<Self, (usize, Unfit)> {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&keys[at..at + 8]);
            u64::from_le_bytes(bytes) | 1
        };
        let mut confirm = [0; 32];
        confirm.copy_from_slice(&keys[24..]);
        let mut index = Self {
            keys: [number(0), number(8), number(16)],
            confirm: Some(MacKey::new("w", confirm)),
            ..Self::default()
        };
        let mut grams = HashSet::new();
        for (at, registration) in values.iter().enumerate() {
            check(&registration.value).map_err(|unfit| (at, unfit))?;
            index.add(registration, fingerprints, &mut grams);
        }
        // Sixteen bits for each: about one in a hundred of other places passes.
        index.filter = vec![0; (grams.len() / 4).next_power_of_two().max(16)];
        for gram in grams {
            let (word, bits) = index.place(gram);
            index.filter[word] |= bits;
        }
        Ok(index)
    }

    fn add(&mut self, registration: &Registration, fingerprints: &MacKey, grams: &mut HashSet<u64>) {
        let trimmed = registration.value.trim_ascii();
        let value = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.push(Known {
            name: registration.name.clone(),
            canary: registration.canary,
            fingerprint: fingerprints.tag(trimmed),
        });
        let body = secret_part(trimmed);
        let strong = strong_windows(&body);
        for spelling in spellings(&body) {
            let variant = u32::try_from(self.variants.len()).unwrap_or(u32::MAX);
            self.variants.push(Variant { value, length: spelling.bytes.len() });
            if let Some(start) = spelling.bytes.first_chunk::<START>() {
                self.starts.insert(self.start(*start));
            }
            for (offset, window) in spelling.bytes.windows(WINDOW).enumerate() {
                if distinct(window) < DISTINCT_MIN {
                    continue;
                }
                let (first, last) = (spelling.origin[offset], spelling.origin[offset + WINDOW - 1]);
                let at = first.min(last).min(strong.len().saturating_sub(1));
                let entry = Window {
                    tag: self.tag(window),
                    variant,
                    offset: u32::try_from(offset).unwrap_or(u32::MAX),
                    strong: strong.get(at).copied().unwrap_or(false),
                };
                self.windows.entry(self.hash(window)).or_default().push(entry);
                grams.extend(window.windows(GRAM).map(gram));
            }
        }
    }

    /// What is registered.
    pub fn values(&self) -> &[Known] {
        &self.values
    }

    fn start(&self, bytes: [u8; START]) -> u32 {
        let mixed = (u64::from(u32::from_le_bytes(bytes)) ^ self.keys[2]).wrapping_mul(self.keys[0]);
        u32::try_from(mixed >> 32).unwrap_or_default()
    }

    /// Where in `text` a spelling of a value begins of which there is not enough yet to tell.
    pub(super) fn open(&self, text: &[u8]) -> Option<usize> {
        if self.values.is_empty() {
            return None;
        }
        (text.len().saturating_sub(PLAIN_MIN - 1)..text.len()).find(|at| {
            let rest = &text[*at..];
            let begins = rest.first_chunk::<START>().is_some_and(|start| self.starts.contains(&self.start(*start)));
            let is_one = || {
                self.windows
                    .get(&self.hash(rest))
                    .is_some_and(|all| all.iter().any(|one| one.tag == self.tag(&rest[..WINDOW])))
            };
            begins && (rest.len() < WINDOW || is_one())
        })
    }

    #[inline]
    fn place(&self, gram: u64) -> (usize, u64) {
        let mixed = (gram ^ self.keys[0]).wrapping_mul(self.keys[1]);
        let mixed = mixed ^ mixed >> 29;
        let bits = 1 << (mixed & 63) | 1 << (mixed >> 6 & 63) | 1 << (mixed >> 12 & 63);
        let word = (mixed >> 20) as usize & (self.filter.len() - 1);
        (word, bits)
    }

    fn hash(&self, window: &[u8]) -> u64 {
        let (head, tail) = (gram(window), gram(&window[WINDOW - GRAM..]));
        let mixed = (head ^ self.keys[2]).wrapping_mul(self.keys[1]);
        (mixed ^ mixed >> 31 ^ tail).wrapping_mul(self.keys[0])
    }

    fn tag(&self, window: &[u8]) -> u64 {
        self.confirm.as_ref().map_or(0, |key| key.short(window))
    }

    /// Calls `found` with each piece of a registered value in `text`, from the first to the last byte that belongs to it.
    pub(super) fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>, &Known)) {
        if self.values.is_empty() || text.len() < WINDOW {
            return;
        }
        let mut done = 0;
        for (step, at) in (0..=text.len() - GRAM).step_by(STRIDE).enumerate() {
            let (word, bits) = self.place(gram(&text[at..]));
            if self.filter[word] & bits != bits {
                continue;
            }
            debug_assert_eq!(at, step * STRIDE);
            for start in at.saturating_sub(STRIDE - 1).max(done)..=at.min(text.len() - WINDOW) {
                if let Some((span, value)) = self.piece(text, start) {
                    done = span.end;
                    found(span, &self.values[value as usize]);
                    break;
                }
            }
        }
    }

    /// The piece of a value around the window at `start`.
    fn piece(&self, text: &[u8], start: usize) -> Option<(Range<usize>, u32)> {
        let window = &text[start..start + WINDOW];
        let entries = self.windows.get(&self.hash(window))?;
        let tag = self.tag(window);
        entries.iter().filter(|entry| entry.tag == tag).find_map(|entry| {
            let follows = |at: usize, offset: u32| {
                let there = text.get(at..at + WINDOW).and_then(|window| self.windows.get(&self.hash(window)));
                there.into_iter().flatten().find(|next| next.variant == entry.variant && next.offset == offset)
            };
            let (mut first, mut last, mut strong) = (start, start, entry.strong);
            while let Some(before) = first.checked_sub(1) {
                let Some(offset) = entry.offset.checked_sub(u32::try_from(start - before).ok()?) else { break };
                let Some(next) = follows(before, offset) else { break };
                (first, strong) = (before, strong || next.strong);
            }
            while let Some(next) = follows(last + 1, entry.offset + u32::try_from(last + 1 - start).ok()?) {
                (last, strong) = (last + 1, strong || next.strong);
            }
            let span = first..last + WINDOW;
            let variant = &self.variants[entry.variant as usize];
            let whole = span.len() >= PLAIN_MIN.min(variant.length);
            (strong || whole).then_some((span, variant.value))
        })
    }
}

/// For each window of a value whether it is random enough to prove the value alone.
fn strong_windows(value: &[u8]) -> Vec<bool> {
    value.windows(WINDOW.min(value.len())).map(|window| distinct(window) >= 7 && roughness(window) >= 0.4).collect()
}

#[inline]
fn gram(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<GRAM>().map_or(0, |gram| u64::from_le_bytes(*gram))
}
