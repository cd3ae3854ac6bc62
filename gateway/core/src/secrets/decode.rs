//! Runs of an encoding in a text, and what they stand for.

use super::text::Gaps;
use std::ops::Range;

/// How something was hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A string in a string.
    Json,
    Base64,
    Hex,
    /// `%67`, `\u0067`, `\x67`, `&#103;`.
    Escapes,
    /// Lookalikes and invisible characters.
    Lookalikes,
    /// White space, or the ends of strings.
    Spaces,
    Backwards,
    /// Pieces in several calls.
    Pieces,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Step::Json => "json",
            Step::Base64 => "base64",
            Step::Hex => "hex",
            Step::Escapes => "escapes",
            Step::Lookalikes => "lookalikes",
            Step::Spaces => "spaces",
            Step::Backwards => "backwards",
            Step::Pieces => "pieces",
        }
    }
}

/// The shortest run that is decoded.
pub(super) const RUN_MIN: usize = 16;
/// Lines of an encoded text that was folded are at least this long.
const LINE_MIN: usize = 40;
/// So many bytes may stand between two of them.
const BETWEEN_MAX: usize = 8;
/// Decoded, so many bytes of text in a row make it worth a look.
const STRETCH_MIN: usize = 8;

const BASE64: u8 = 1;
const HEX: u8 = 2;
const CAPITAL: u8 = 4;
const SMALL: u8 = 8;
const ESCAPE: u8 = 16;
const WIDE: u8 = 32;
const DIGIT: u8 = 64;

static CLASS: [u8; 256] = {
    let mut class = [0u8; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_') {
            class[at] |= BASE64;
        }
        if byte.is_ascii_hexdigit() {
            class[at] |= HEX;
        }
        if byte.is_ascii_uppercase() {
            class[at] |= CAPITAL;
        }
        if byte.is_ascii_lowercase() {
            class[at] |= SMALL;
        }
        if matches!(byte, b'%' | b'\\' | b'&') {
            class[at] |= ESCAPE;
        }
        if byte.is_ascii_digit() {
            class[at] |= DIGIT;
        }
        if byte >= 128 {
            class[at] |= WIDE;
        }
        at += 1;
    }
    class
};

/// Whether a byte may stand between two lines.
fn is_between(byte: &u8) -> bool {
    b" \t\r\n\"',".contains(byte)
}

/// What there is to decode in a text.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub(super) encoded: Vec<(Range<usize>, Step)>,
    /// Places of bytes that may begin an escape.
    pub(super) escapes: Vec<usize>,
    pub(super) is_wide: bool,
    /// Where the text ends with a run that may still become one of an encoding.
    last: Option<usize>,
}

/// One pass over the classes of the bytes.
pub(super) fn runs(text: &[u8]) -> Runs {
    let mut runs = Runs::default();
    let mut start = 0;
    let (mut any, mut all) = (0u8, u8::MAX);
    for (at, byte) in text.iter().enumerate() {
        let class = CLASS[usize::from(*byte)];
        if class & BASE64 != 0 {
            any |= class;
            all &= class;
            continue;
        }
        if at - start >= RUN_MIN {
            runs.run(text, start..at, any, all);
        }
        (start, any, all) = (at + 1, 0, u8::MAX);
        if class & ESCAPE != 0 {
            runs.escapes.push(at);
        }
        runs.is_wide |= class & WIDE != 0;
    }
    if text.len() - start >= RUN_MIN {
        runs.run(text, start..text.len(), any, all);
        runs.last = (any & DIGIT != 0).then_some(start);
    }
    runs
}

impl Runs {
    /// Where an encoded run begins that goes on if the text does.
    pub(super) fn open(&self, text: &[u8]) -> Option<usize> {
        if self.last.is_some() {
            return self.last;
        }
        let (run, _) = self.encoded.last()?;
        // A folded one goes on in the next line.
        let is_between =
            run.len() >= LINE_MIN && text.len() - run.end <= BETWEEN_MAX && text[run.end..].iter().all(is_between);
        (run.end == text.len() || is_between).then_some(run.start)
    }

    /// Hexadecimal digits that something else touches, as in `0x67…` and `/v1/67…`.
    fn hex_within(&mut self, text: &[u8], span: Range<usize>) {
        let is_hex = |byte: &u8| CLASS[usize::from(*byte)] & HEX != 0;
        let mut at = span.start + RUN_MIN - 1;
        // So many in a row stand in one of these places.
        while at < span.end {
            if is_hex(&text[at]) {
                let start = at - text[span.start..at].iter().rev().take_while(|byte| is_hex(byte)).count();
                let end = at + text[at..span.end].iter().take_while(|byte| is_hex(byte)).count();
                if end - start >= RUN_MIN {
                    self.encoded.push((start..end, Step::Hex));
                }
                at = end;
            }
            at += RUN_MIN;
        }
    }

    fn run(&mut self, text: &[u8], span: Range<usize>, any: u8, all: u8) {
        let step = match (all & HEX != 0, any & CAPITAL != 0 && any & SMALL != 0) {
            (true, _) => Step::Hex,
            (false, true) => Step::Base64,
            // Base64 of a text has capitals and small letters; words, paths and numbers need no look.
            _ => return self.hex_within(text, span),
        };
        if step == Step::Base64 {
            self.hex_within(text, span.clone());
        }
        // A text that was folded into lines is one run.
        if let Some((last, before)) = self.encoded.last_mut()
            && *before == step
            && span.start - last.end <= BETWEEN_MAX
            && last.len() >= LINE_MIN
            && text[last.end..span.start].iter().all(is_between)
        {
            last.end = span.end;
        } else {
            self.encoded.push((span, step));
        }
    }
}

/// The text in what a run stands for, if there is any.
pub(super) fn decoded(run: &[u8], step: Step) -> Option<Vec<u8>> {
    let bytes = match step {
        Step::Hex => hex(run),
        _ => {
            let mut bytes = base64(run);
            keep_text(&mut bytes);
            bytes
        }
    };
    (!bytes.is_empty()).then_some(bytes)
}

/// Leaves of `bytes` the stretches with enough to read, a line each. Control characters between them break nothing: a zero byte
/// is that of a wider encoding.
pub(super) fn keep_text(bytes: &mut Vec<u8>) {
    let (mut kept, mut start, mut at, mut readable) = (0, 0, 0, 0);
    while at < bytes.len() {
        let length = match bytes[at] {
            b' '..=b'~' => {
                readable += 1;
                1
            }
            0..b' ' => 1,
            _ => {
                let length = wide(&bytes[at..]);
                readable += usize::from(length > 0);
                length
            }
        };
        at += length.max(1);
        if length == 0 || at == bytes.len() {
            let end = if length == 0 { at - 1 } else { at };
            if readable >= STRETCH_MIN {
                bytes.copy_within(start..end, kept);
                kept += end - start;
                if length == 0 {
                    bytes[kept] = b'\n';
                    kept += 1;
                }
            }
            (start, readable) = (at, 0);
        }
    }
    bytes.truncate(kept);
}

/// The length of the character beyond ASCII that `bytes` begins with ([RFC 3629 §4](https://www.rfc-editor.org/rfc/rfc3629#section-4));
/// 0 when that is none.
fn wide(bytes: &[u8]) -> usize {
    let length = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return 0,
    };
    let is_one = matches!(bytes.get(1), Some(0x80..=0xbf))
        && bytes.get(..length).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
    if is_one { length } else { 0 }
}

/// The text from the first digit, or from the second: whichever gives more to read.
fn hex(run: &[u8]) -> Vec<u8> {
    let text = |digits: &[u8]| {
        let value = |byte: u8| (byte & 15) + 9 * (byte >> 6);
        let mut bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect();
        keep_text(&mut bytes);
        bytes
    };
    if run.iter().any(|byte| !byte.is_ascii_hexdigit()) {
        let digits: Vec<u8> = run.iter().copied().filter(u8::is_ascii_hexdigit).collect();
        return text(&digits);
    }
    let first = text(run);
    // One digit too many is glued to its beginning or its end.
    if run.len().is_multiple_of(2) {
        return first;
    }
    let second = text(&run[1..]);
    if second.len() > first.len() { second } else { first }
}

/// The 6 bits of a character of either alphabet ([RFC 4648](https://www.rfc-editor.org/rfc/rfc4648)); 64 for any other.
static SEXTETS: [u8; 256] = {
    let mut sextets = [64u8; 256];
    let mut at = 0;
    while at < 26 {
        sextets[b'A' as usize + at] = at as u8;
        sextets[b'a' as usize + at] = at as u8 + 26;
        at += 1;
    }
    let mut at = 0;
    while at < 10 {
        sextets[b'0' as usize + at] = at as u8 + 52;
        at += 1;
    }
    sextets[b'+' as usize] = 62;
    sextets[b'-' as usize] = 62;
    sextets[b'/' as usize] = 63;
    sextets[b'_' as usize] = 63;
    sextets
};

/// Beginnings of a run that are tried, and how far into it.
const PHASES_MAX: usize = 12;
const PHASES_WITHIN: usize = 256;
/// Bytes that have to be text for a beginning to make sense.
const SAMPLE: usize = 18;

/// Both alphabets at once, without padding, from the character where it begins to make sense: what stands before it, as in
/// a path, may be of the alphabet as well.
fn base64(run: &[u8]) -> Vec<u8> {
    let parts =
        run.iter().take(PHASES_WITHIN).enumerate().filter(|(_, byte)| b"/-_+".contains(byte)).map(|(at, _)| at + 1);
    let starts = (0..4).chain(parts).filter(|start| run.len() - start >= RUN_MIN).take(PHASES_MAX);
    let is_text = |byte: u8| is_ascii_text(byte) || byte == 0 || byte >= 128;
    let loose = || starts.into_iter().find(|start| octets(&run[*start..]).take(SAMPLE).all(is_text));
    from(run, begins(run).or_else(loose).unwrap_or(0))
}

fn from(run: &[u8], start: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((run.len() - start) * 3 / 4 + 3);
    bytes.extend(octets(&run[start..]));
    bytes
}

/// The text in a run of base64 that lost its white space, if it begins to make sense somewhere.
pub(super) fn parted_base64(run: &[u8]) -> Option<Vec<u8>> {
    // Words have no digits, and base64 hardly ever has none.
    if !run.iter().fold(false, |any, byte| any | byte.is_ascii_digit()) {
        return None;
    }
    let mut bytes = from(run, begins(run)?);
    keep_text(&mut bytes);
    (!bytes.is_empty()).then_some(bytes)
}

fn is_ascii_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t')
}

/// Where base64 of ASCII text begins in a run, whatever it is glued to.
fn begins(run: &[u8]) -> Option<usize> {
    // The first six bits of a byte that can be printed.
    static FIRST: [bool; 256] = {
        let mut first = [false; 256];
        let mut at = 0;
        while at < 256 {
            first[at] = SEXTETS[at] >= 8 && SEXTETS[at] < 32;
            at += 1;
        }
        first
    };
    const CHARACTERS: usize = SAMPLE / 3 * 4;
    run.windows(CHARACTERS).position(|window| {
        window.iter().step_by(4).all(|byte| FIRST[usize::from(*byte)]) && octets(window).all(is_ascii_text)
    })
}

/// The bytes that base64 characters stand for; what is none of them is left out.
fn octets(run: &[u8]) -> impl Iterator<Item = u8> {
    let mut sextets = run.iter().map(|byte| SEXTETS[usize::from(*byte)]).filter(|sextet| *sextet < 64);
    let (mut bits, mut count) = (0u32, 0);
    std::iter::from_fn(move || {
        while count < 8 {
            bits = bits << 6 | u32::from(sextets.next()?);
            count += 6;
        }
        count -= 8;
        Some((bits >> count).to_le_bytes()[0])
    })
}

/// How far before an escape a companion word may stand.
const BEFORE: usize = 96;
/// How long a word before it may be.
const WORD_MAX: usize = 4 << 10;
/// Bytes around an escape that are read at most.
const AROUND_MAX: usize = 64 << 10;

/// A part of a text, unescaped.
#[derive(Debug)]
pub(super) struct Unescaped {
    pub(super) span: Range<usize>,
    pub(super) bytes: Vec<u8>,
    /// Where in the text its bytes stand.
    pub(super) places: Gaps,
    /// Whether it goes on behind its end.
    is_cut: bool,
}

/// The parts of a text that have an escape in them, unescaped.
pub(super) fn unescaped(text: &[u8], escapes: &[usize]) -> Vec<Unescaped> {
    let mut parts: Vec<Unescaped> = Vec::new();
    let ends = |byte: &u8| byte.is_ascii_whitespace();
    let mut at = 0;
    while let Some(place) = escapes.get(at) {
        let Some(start) = one(&text[*place..]).map(|_| *place) else {
            at += 1;
            continue;
        };
        // What was cut off goes on in the next part.
        let done = parts
            .last()
            .map_or(0, |part| part.span.end - if part.is_cut { WORD_MAX.min(part.span.len() / 2) } else { 0 });
        let word =
            text[done.max(start.saturating_sub(WORD_MAX))..start].iter().rev().take_while(|byte| !ends(byte)).count();
        let floor = start.saturating_sub(word.max(BEFORE)).max(done);
        let mut next = at;
        let limit = text.len().min(start + AROUND_MAX);
        let mut end = start;
        // Up to white space behind the last escape that is near.
        while end < limit {
            end += text[end..limit].iter().position(ends).unwrap_or(limit - end);
            next += escapes[next..].iter().take_while(|place| **place < end).count();
            match escapes.get(next).filter(|next| **next < (end + BEFORE).min(limit)) {
                Some(next) => end = *next + 1,
                None => break,
            }
        }
        let (mut plain, mut places) = (Vec::with_capacity(end - floor), Gaps::spelling());
        let mut read = floor;
        places.push(0, floor);
        while read < end {
            match one(&text[read..end.max((read + 12).min(text.len()))]) {
                Some((length, bytes)) => {
                    places.push(plain.len(), read);
                    plain.extend_from_slice(bytes.get());
                    read += length;
                    places.push(plain.len(), read);
                }
                None => {
                    plain.push(text[read]);
                    read += 1;
                }
            }
        }
        let end = end.max(read);
        parts.push(Unescaped { span: floor..end, bytes: plain, places, is_cut: end >= limit && end < text.len() });
        at = next.max(at + 1);
        at += escapes[at..].iter().take_while(|place| **place < end).count();
    }
    parts
}

/// One escape: its length, and what it stands for.
fn one(text: &[u8]) -> Option<(usize, Plain)> {
    let number = |digits: &[u8], radix: u32| {
        let digit = |number: Option<u32>, byte: &u8| {
            number?.checked_mul(radix)?.checked_add(char::from(*byte).to_digit(radix)?)
        };
        digits.iter().fold((!digits.is_empty()).then_some(0), digit)
    };
    match text {
        [b'%', a, b, ..] => Some((3, Plain::byte(number(&[*a, *b], 16)?))),
        [b'\\', b'u', b'{', rest @ ..] => {
            let digits = rest.iter().take(7).position(|byte| *byte == b'}')?;
            Some((digits + 4, Plain::character(number(&rest[..digits], 16)?)))
        }
        [b'\\', b'u', rest @ ..] => {
            let unit = number(rest.get(..4)?, 16)?;
            let low = match (unit, rest.get(4..10)) {
                (0xd800..=0xdbff, Some([b'\\', b'u', low @ ..])) => {
                    number(low, 16).filter(|low| (0xdc00..=0xdfff).contains(low))
                }
                _ => None,
            };
            Some(match low {
                Some(low) => (12, Plain::character(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))),
                None => (6, Plain::character(unit)),
            })
        }
        [b'\\', b'x', a, b, ..] => Some((4, Plain::byte(number(&[*a, *b], 16)?))),
        [b'\\', byte @ (b'/' | b'\\' | b'_' | b'-' | b'.' | b'"' | b'=' | b'+'), ..] => {
            Some((2, Plain::byte(u32::from(*byte))))
        }
        [b'\\', b't', ..] => Some((2, Plain::byte(u32::from(b'\t')))),
        [b'\\', b'n' | b'r', ..] => Some((2, Plain::byte(u32::from(b'\n')))),
        [b'&', b'#', b'x' | b'X', rest @ ..] => {
            let digits = rest.iter().take(7).position(|byte| *byte == b';')?;
            Some((digits + 4, Plain::character(number(&rest[..digits], 16)?)))
        }
        [b'&', b'#', rest @ ..] => {
            let digits = rest.iter().take(8).position(|byte| *byte == b';')?;
            Some((digits + 3, Plain::character(number(&rest[..digits], 10)?)))
        }
        _ => None,
    }
}

/// The bytes that an escape stands for.
struct Plain {
    bytes: [u8; 4],
    length: usize,
}

impl Plain {
    fn byte(code: u32) -> Self {
        Self { bytes: [u8::try_from(code).unwrap_or(b'?'), 0, 0, 0], length: 1 }
    }

    fn character(code: u32) -> Self {
        let mut bytes = [0; 4];
        let length = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut bytes).len();
        Self { bytes, length }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
