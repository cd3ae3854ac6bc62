//! Characters that look like ASCII, and those that are not seen at all: what a reader, or a model, takes `ｇｈｐ_` for.
//!
//! Compatibility decomposition ([UAX #15](https://www.unicode.org/reports/tr15/)), then the prototype of a confusable character
//! ([UTS #39](https://www.unicode.org/reports/tr39/)); marks and invisible characters go.

use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::confusable_detection::skeleton;

/// For each character of the first plane: 0 when it stays, 1 when it goes, 2 when more than one byte takes its place, else the
/// byte that does.
static PLANE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..0x1_0000)
        .map(|code| match char::from_u32(code).map(slow) {
            None | Some(Fold::Stays) => 0,
            Some(Fold::Goes) => 1,
            Some(Fold::Becomes(text)) => match text.as_bytes() {
                [byte] => *byte,
                _ => 2,
            },
        })
        .collect()
});

enum Fold {
    Stays,
    Goes,
    Becomes(String),
}

/// Makes the table now.
pub(super) fn prepare() {
    LazyLock::force(&PLANE);
}

/// Appends `text` folded to `folded`, and tells whether ASCII came of it or something went: if not, there is nothing new to find.
pub(super) fn fold(text: &str, folded: &mut Vec<u8>) -> bool {
    fold_with(text, folded, |_, _| {})
}

/// The same, and `moved` is told of each place behind which bytes stand elsewhere than before: the new one and the old one.
pub(super) fn fold_with(text: &str, folded: &mut Vec<u8>, mut moved: impl FnMut(usize, usize)) -> bool {
    let mut changed = false;
    let mut is_behind = true;
    for (at, c) in text.char_indices() {
        if c.is_ascii() {
            if is_behind {
                moved(folded.len(), at);
            }
            is_behind = false;
            folded.push(c as u8);
            continue;
        }
        moved(folded.len(), at);
        is_behind = true;
        let known = usize::try_from(u32::from(c)).ok().and_then(|code| PLANE.get(code)).copied();
        match known {
            Some(0) => folded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Some(1) => changed = true,
            Some(byte) if byte > 2 => {
                folded.push(byte);
                changed = true;
            }
            _ => match slow(c) {
                Fold::Stays => folded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                Fold::Goes => changed = true,
                Fold::Becomes(text) => {
                    folded.extend_from_slice(text.as_bytes());
                    changed = true;
                }
            },
        }
    }
    changed
}

fn slow(c: char) -> Fold {
    if c.is_ascii() {
        return Fold::Becomes(c.to_string());
    }
    if is_invisible(c) {
        return Fold::Goes;
    }
    let mut ascii = String::new();
    for part in c.nfkd().filter(|part| !is_combining_mark(*part) && !is_invisible(*part)) {
        match look(part) {
            Some(byte) => ascii.push(byte),
            None => return Fold::Stays,
        }
    }
    if ascii.is_empty() { Fold::Goes } else { Fold::Becomes(ascii) }
}

/// The ASCII character that one looks like. A capital that looks like a small letter is read by its own small letter: a `І` could be an `l` as well.
fn look(c: char) -> Option<char> {
    if c.is_ascii() {
        return Some(c);
    }
    let one = |c: char| {
        let mut looks = std::iter::once(c).collect::<String>();
        looks = skeleton(&looks).collect();
        let mut looks = looks.chars();
        looks.next().filter(|look| look.is_ascii() && looks.next().is_none())
    };
    if let Some(capital) = one(c).filter(char::is_ascii_uppercase).filter(|_| c.is_uppercase()) {
        return Some(capital);
    }
    let small: Vec<char> = c.to_lowercase().collect();
    if let [small] = small[..]
        && small != c
        && let Some(look) = one(small).filter(char::is_ascii_lowercase)
    {
        return Some(look.to_ascii_uppercase());
    }
    one(c)
}

/// Format controls, fillers, variation selectors, tags: nothing is drawn for them.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0x7f..=0x9f | 0xad | 0x34f | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
        | 0x202a..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffc
        | 0x110bd | 0x110cd | 0x13430..=0x1343f | 0x1bca0..=0x1bca3 | 0x1d159 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> (String, bool) {
        let mut bytes = Vec::new();
        let changed = fold(text, &mut bytes);
        (String::from_utf8(bytes).unwrap(), changed)
    }

    #[test]
    fn what_looks_the_same_reads_the_same() {
        for (text, reads) in [
            ("ｇｈｐ＿Ａ１", "ghp_A1"),
            ("g\u{200b}h\u{ad}p\u{feff}_", "ghp_"),
            ("ɡһр_", "ghp_"),
            ("АКІА", "AKIA"),
            ("𝐠𝒉𝓅_", "ghp_"),
            ("ǵḧṕ", "ghp"),
            ("g\u{301}h", "gh"),
            ("ﬁle①", "file1"),
            ("\u{e0067}g", "g"),
        ] {
            assert_eq!(folded(text), (reads.to_owned(), true), "{text}");
        }
    }

    #[test]
    fn other_scripts_stay() {
        for text in ["日本語", "한국어", "plain"] {
            assert_eq!(folded(text), (text.to_owned(), false), "{text}");
        }
    }
}
