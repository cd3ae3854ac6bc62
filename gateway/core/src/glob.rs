//! Patterns of names that people write into configuration: `*` stands for any characters, none included, and `?` for exactly one.
//! Nothing escapes them. [`fits`] asks once; a [`Glob`] is prepared, and can be held against another.

use std::fmt;

/// Whether a pattern fits the whole of a text. Takes time in proportion to both at worst, and no stack.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || text.get(t) == Some(&c) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

/// A pattern has at most this many characters besides its stars. Names without wildcards may be longer.
pub const PATTERN_MAX: usize = 63;

/// A pattern. Matching reads a name once, whatever the pattern: all places that the pattern may be at are the bits of one word.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    automaton: Option<Automaton>,
}

/// Bit `i` stands for: `i` characters of the pattern are behind us, stars not counted.
#[derive(Clone, PartialEq, Eq)]
struct Automaton {
    /// Where each character goes on; sorted.
    goes_on: Vec<(char, u64)>,
    /// Where any character goes on.
    any: u64,
    /// Where any character stays.
    stays: u64,
    /// Where the pattern is at its end.
    end: u64,
}

impl Glob {
    /// The pattern that is written like this; none if it is longer than [`PATTERN_MAX`].
    pub fn new(pattern: &str) -> Option<Self> {
        let automaton = if pattern.contains(['*', '?']) { Some(Automaton::new(pattern)?) } else { None };
        Some(Self { text: pattern.to_owned(), automaton })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it stands for `name`.
    pub fn matches(&self, name: &str) -> bool {
        match &self.automaton {
            None => self.text == name,
            Some(automaton) => automaton.runs(name, |at, c| automaton.step(at, c)),
        }
    }

    /// Whether it stands for every name that `other` stands for. There are patterns that do and are not found out.
    pub fn covers(&self, other: &Glob) -> bool {
        match (&self.automaton, &other.automaton) {
            (None, _) => self.text == other.text,
            (Some(_), None) => self.matches(&other.text),
            // A star may be longer than any one character, so only a star takes it.
            (Some(own), Some(_)) => {
                own.runs(&other.text, |at, c| if c == '*' { at & own.stays } else { own.step(at, c) })
            }
        }
    }
}

impl Automaton {
    fn new(pattern: &str) -> Option<Self> {
        let mut goes_on: Vec<(char, u64)> = Vec::new();
        let (mut any, mut stays, mut end) = (0, 0, 1u64);
        for c in pattern.chars() {
            match c {
                '*' => stays |= end,
                '?' => any |= end,
                c => match goes_on.binary_search_by_key(&c, |(known, _)| *known) {
                    Ok(at) => goes_on.get_mut(at)?.1 |= end,
                    Err(at) => goes_on.insert(at, (c, end)),
                },
            }
            if c != '*' {
                end = end.checked_mul(2)?;
            }
        }
        Some(Self { goes_on, any, stays, end })
    }

    fn runs(&self, name: &str, step: impl Fn(u64, char) -> u64) -> bool {
        name.chars().try_fold(1, |at, c| Some(step(at, c)).filter(|at| *at != 0)).is_some_and(|at| at & self.end != 0)
    }

    fn step(&self, at: u64, c: char) -> u64 {
        let found = self.goes_on.binary_search_by_key(&c, |(known, _)| *known).ok();
        let own = found.and_then(|at| self.goes_on.get(at)).map_or(0, |(_, places)| *places);
        (at & (own | self.any)) << 1 | at & self.stays
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::{Glob, fits};
    use proptest::prelude::*;

    #[test]
    fn stars_take_any_run_and_question_marks_one_character() {
        for (pattern, text) in
            [("*", ""), ("a*", "a"), ("a*c", "abbc"), ("*/read", "fs/read"), ("a?c", "aéc"), ("**", "x")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", ""), ("a?", "a"), ("*/read", "fs/reads"), ("A", "a"), ("a*b", "acc")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    /// The definition, slowly.
    fn slowly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|n| slowly(rest, &text[n..])),
            (Some((b'?', rest)), Some((_, after))) => slowly(rest, after),
            (Some((p, rest)), Some((t, after))) => p == t && slowly(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_is_what_the_definition_says(pattern in "[ab*?]{0,7}", text in "[ab]{0,9}") {
            prop_assert_eq!(fits(&pattern, &text), slowly(pattern.as_bytes(), text.as_bytes()));
            prop_assert_eq!(Glob::new(&pattern).unwrap().matches(&text), fits(&pattern, &text));
        }
    }
}
