//! Values behind a companion word, as in `adafruit_key = "…"`: the shape alone would not tell them from other text.

use super::detect::Scope;
use super::text::Text;
use std::ops::Range;

/// How far behind its companion word a value begins.
pub(super) const REACH: usize = 64;
/// The shortest value that a companion word gives away.
const LENGTH_MIN: usize = 4;
/// Without a digit a run is at least so long.
const LONG_MIN: usize = 16;
/// How much of a run is measured.
const LENGTH: usize = 128;
/// How much farther is read, to be asked less often.
const AHEAD: usize = 256;
/// The work of trying a format in one place.
pub(super) const EFFORT: usize = 64;
/// How far before the companion word the name of what is assigned begins.
const NAME: usize = 24;

/// Where there was nothing but ordinary words. Companion words come one after another, and their neighbourhoods overlap.
#[derive(Debug, Default)]
pub(super) struct Words(Range<usize>);

impl Words {
    /// The runs behind a companion word, from `from` on and beginning before `to`, in which there may be something that a
    /// generator made. All in reading direction.
    pub(super) fn others<'t>(
        &mut self,
        text: Text<'t>,
        from: usize,
        to: usize,
        scope: Scope,
    ) -> impl Iterator<Item = Range<usize>> + use<'t> {
        let mut at = if self.is_all(text, from, to, scope) { to } else { from };
        std::iter::from_fn(move || {
            while at < to {
                let (start, limit) = (at, text.len().min(at + LENGTH));
                let end = (start..limit).find(|at| !text.get(*at).is_some_and(is_of_values)).unwrap_or(limit);
                at = end + 1;
                let has_digit = || (start..end).any(|at| text.get(at).is_some_and(|byte| byte.is_ascii_digit()));
                if end - start >= LENGTH_MIN && (end - start >= LONG_MIN || has_digit()) {
                    // One that is longer than was read is as long as is asked for.
                    return Some(start..if end - start == LENGTH { usize::MAX } else { end });
                }
            }
            None
        })
    }

    fn is_all(&mut self, text: Text<'_>, from: usize, to: usize, scope: Scope) -> bool {
        let span = text.span(from.min(to), text.len().min(to + LENGTH));
        let follows = self.0.contains(&span.start) && span.end > self.0.start;
        if follows && span.end <= self.0.end {
            return true;
        }
        let start = if follows { self.0.end.saturating_sub(LONG_MIN) } else { span.start };
        let is_words = |end: usize| (start < end && !may_be_made(&text.bytes()[start..end], scope)).then_some(end);
        // Mostly there are words behind words.
        let Some(end) = is_words(text.len().min(span.end + AHEAD)).or_else(|| is_words(span.end)) else { return false };
        self.0 = if follows { self.0.start..end } else { span.start..end };
        true
    }
}

/// Whether there is a digit, or so long a run that it needs none, see `detect::looks_made`. Without white
/// space all runs are long.
fn may_be_made(text: &[u8], scope: Scope) -> bool {
    // All of them, without a way out: this is done many bytes at once.
    text.iter().fold(false, |any, byte| any | byte.is_ascii_digit())
        || scope != Scope::Squeezed
            && (LONG_MIN - 1..text.len()).step_by(LONG_MIN).any(|at| {
                let before = text[..at].iter().rev().take(LONG_MIN).take_while(|byte| is_of_values(**byte)).count();
                let after = text[at..].iter().take(LONG_MIN).take_while(|byte| is_of_values(**byte)).count();
                before + after >= LONG_MIN
            })
}

/// Whether a byte can be one of such a value.
fn is_of_values(byte: u8) -> bool {
    static OF_VALUES: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = b'!';
        while byte < 127 {
            table[byte as usize] = !matches!(byte, b'"' | b'\'' | b'`');
            byte += 1;
        }
        table
    };
    OF_VALUES[usize::from(byte)]
}

/// Whether a byte assigns what follows it.
fn is_operator(byte: u8) -> bool {
    matches!(byte, b'=' | b':' | b'>')
}

/// Whether a word at `start` is the end of another one.
pub(super) fn is_within_word(text: Text<'_>, start: usize) -> bool {
    let is_small = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(|byte| byte.is_ascii_lowercase());
    is_small(Some(start)) && is_small(start.checked_sub(1)) && !text.is_edge(start)
}

/// From where on a value may begin. Without white space whatever stood in the next sentence is near: only what is assigned counts.
pub(super) fn from(text: Text<'_>, word_end: usize, scope: Scope) -> usize {
    let limit = text.len().min(word_end + REACH);
    match scope {
        Scope::Squeezed => {
            let bytes = &text.bytes()[text.span(word_end, limit)];
            let operator = match text.is_backwards() {
                true => memchr::memrchr3(b'=', b':', b'>', bytes).map(|at| bytes.len() - 1 - at),
                false => memchr::memchr3(b'=', b':', b'>', bytes),
            };
            operator.map_or(limit, |at| word_end + at + 1)
        }
        Scope::Whole | Scope::Typed => word_end,
    }
}

/// Whether an assignment to a name that says secret stands between a companion word and a value.
pub(super) fn is_assigned(text: Text<'_>, word: Range<usize>, value: usize) -> bool {
    let name = text.slice(word.start.saturating_sub(NAME), value).to_ascii_lowercase();
    let nouns = [&b"key"[..], b"token", b"secret", b"pass", b"pwd", b"auth", b"cred", b"pat"];
    text.slice(word.end, value).into_iter().any(is_operator)
        && nouns.iter().any(|noun| name.windows(noun.len()).any(|part| part == *noun))
}
