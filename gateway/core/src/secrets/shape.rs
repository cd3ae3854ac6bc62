//! The shape of a token: literals and runs of a class, one after another.

use super::text::Text;
use std::cell::Cell;

/// ASCII bytes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u128);

impl Set {
    pub(super) const NONE: Self = Self(0);

    pub(super) const fn without(self, byte: u8) -> Self {
        if byte < 128 { Self(self.0 & !(1 << byte)) } else { self }
    }

    pub(super) const fn with(self, byte: u8) -> Self {
        if byte < 128 { Self(self.0 | 1 << byte) } else { self }
    }

    pub(super) const fn range(mut self, first: u8, last: u8) -> Self {
        let mut byte = first;
        while byte <= last {
            self = self.with(byte);
            byte += 1;
        }
        self
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline]
    pub(super) const fn has(self, byte: u8) -> bool {
        let half = if byte < 64 { self.0 as u64 } else { (self.0 >> 64) as u64 };
        byte < 128 && half >> (byte & 63) & 1 == 1
    }

    /// Every byte of it.
    #[cfg(test)]
    pub(super) fn bytes(self) -> Vec<u8> {
        (0..128).filter(|byte| self.has(*byte)).collect()
    }
}

/// A piece of a shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// One of these texts.
    Literal(Vec<Literal>),
    /// So many of a class, as many as there are.
    Run {
        /// The class.
        set: Set,
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
}

/// A fixed text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    pub(super) text: Vec<u8>,
    pub(super) any_case: bool,
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) parts: Vec<Part>,
    /// What its first byte can be.
    pub(super) first: Set,
    /// The class of its last run; what follows the token is not of it.
    pub(super) last: Set,
    /// The literal by which candidates are found, as an index into `parts`.
    pub(super) anchor: Option<usize>,
    /// Bytes before the anchor, at least and at most.
    pub(super) before: (usize, usize),
    pub(super) length_min: usize,
    /// Whether it is a shape without its spaces, for texts that have none.
    pub(super) is_squeezed: bool,
}

/// Trials of one candidate. A shape whose runs cannot be told apart would take for ever on a text made for it.
const TRIALS_MAX: usize = 4096;

/// One attempt.
pub(super) struct Attempt<'t> {
    text: Text<'t>,
    trials: Cell<usize>,
    /// Whether it looked past the end: more text could change the answer.
    open: Cell<bool>,
}

impl<'t> Attempt<'t> {
    pub(super) fn new(text: Text<'t>) -> Self {
        Self { text, trials: Cell::new(TRIALS_MAX), open: Cell::new(false) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.get()
    }

    fn get(&self, at: usize) -> Option<u8> {
        let byte = self.text.get(at);
        if byte.is_none() {
            self.open.set(true);
        }
        byte
    }

    fn literal(&self, literal: &Literal, at: usize) -> bool {
        literal.text.iter().enumerate().all(|(index, wanted)| {
            self.get(at + index)
                .is_some_and(|byte| byte == *wanted || literal.any_case && byte.eq_ignore_ascii_case(wanted))
        })
    }

    /// Where the parts end that begin at `at`. Out of trials it is a match: what is made to be hard to read is refused.
    fn end(&self, parts: &[Part], at: usize) -> Option<usize> {
        let Some((part, rest)) = parts.split_first() else { return Some(at) };
        let left = self.trials.get();
        if left == 0 {
            return Some(at);
        }
        self.trials.set(left - 1);
        match part {
            Part::Literal(literals) => literals
                .iter()
                .filter(|literal| self.literal(literal, at))
                .find_map(|literal| self.end(rest, at + literal.text.len())),
            Part::Run { set, min, max } => {
                let mut count = 0;
                while count < *max && self.get(at + count).is_some_and(|byte| set.has(byte)) {
                    count += 1;
                }
                if count < *min {
                    return None;
                }
                if rest.is_empty() {
                    return Some(at + count);
                }
                let shortest = if begins_outside(rest, *set) { count } else { *min };
                (shortest..=count).rev().find_map(|count| self.end(rest, at + count))
            }
        }
    }
}

/// Whether what comes next cannot begin with a byte of the run before it.
fn begins_outside(rest: &[Part], set: Set) -> bool {
    match rest.first() {
        Some(Part::Literal(literals)) => literals.iter().all(|literal| {
            literal
                .text
                .first()
                .is_some_and(|byte| !(set.has(*byte) || literal.any_case && set.has(byte.to_ascii_lowercase() ^ 0x20)))
        }),
        _ => false,
    }
}

/// What a token must not touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Edges {
    /// Whatever stands before it is fine.
    pub(super) left_any: bool,
    /// Whatever stands behind it is fine.
    pub(super) right_any: bool,
}

impl Shape {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        let anchor = best_literal(&parts);
        let before = anchor.map_or((0, 0), |anchor| lengths(&parts[..anchor]));
        let (length_min, _) = lengths(&parts);
        Self { first: first(&parts), last: last(&parts), anchor, before, length_min, parts, is_squeezed: false }
    }

    /// The same without the spaces of its literals; nothing when there are none.
    pub(super) fn squeezed(&self) -> Option<Self> {
        let mut parts = self.parts.clone();
        for part in &mut parts {
            if let Part::Literal(literals) = part {
                literals.iter_mut().for_each(|literal| literal.text.retain(|byte| *byte != b' '));
            }
        }
        (parts != self.parts).then(|| Self { is_squeezed: true, ..Self::new(parts) })
    }

    /// Whether it is made of groups with something between them, as in `abcd-efgh-ijkl`.
    pub(super) fn is_grouped(&self) -> bool {
        self.parts.iter().skip(1).filter(|part| matches!(part, Part::Literal(_))).count() > 1
    }

    /// The end of a token that begins at `at`, if one does.
    pub(super) fn at(&self, attempt: &Attempt<'_>, at: usize, edges: Edges) -> Option<usize> {
        if !attempt.get(at).is_some_and(|byte| self.first.has(byte)) {
            return None;
        }
        if !edges.left_any && !attempt.text.is_edge(at) {
            return None;
        }
        let end = attempt.end(&self.parts, at)?;
        let fits = edges.right_any
            || attempt.text.is_gap(end)
            || attempt.get(end).is_none_or(|next| !self.last.has(next) && attempt.text.is_edge(end));
        fits.then_some(end)
    }

    /// The longest token whose anchor, by this literal, stands at `at`.
    pub(super) fn around(
        &self,
        attempt: &Attempt<'_>,
        at: usize,
        literal: usize,
        edges: Edges,
    ) -> Option<(usize, usize)> {
        // Candidates are found in any case.
        let Some(Part::Literal(literals)) = self.anchor.map(|anchor| &self.parts[anchor]) else { return None };
        if !attempt.literal(&literals[literal], at) {
            return None;
        }
        let (min, max) = self.before;
        let starts = (at.saturating_sub(max)..=at.checked_sub(min)?).rev();
        // The longest one: what stands before the anchor is a run of a class.
        let mut found = None;
        for start in starts {
            if let Some(end) = self.at(attempt, start, edges) {
                found = Some((start, end));
            }
        }
        found
    }
}

fn lengths(parts: &[Part]) -> (usize, usize) {
    parts.iter().fold((0, 0), |(min, max), part| {
        let (low, high) = match part {
            Part::Literal(literals) => {
                let lengths = || literals.iter().map(|literal| literal.text.len());
                (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0))
            }
            Part::Run { min, max, .. } => (*min, *max),
        };
        (min + low, max + high)
    })
}

fn first(parts: &[Part]) -> Set {
    let mut set = Set::default();
    for part in parts {
        match part {
            Part::Literal(literals) => {
                for literal in literals {
                    if let Some(byte) = literal.text.first() {
                        set = set.with(*byte);
                        if literal.any_case {
                            set = set.with(byte.to_ascii_lowercase()).with(byte.to_ascii_uppercase());
                        }
                    }
                }
                return set;
            }
            Part::Run { set: class, min, .. } => {
                set = set.or(*class);
                if *min > 0 {
                    return set;
                }
            }
        }
    }
    set
}

fn last(parts: &[Part]) -> Set {
    match parts.last() {
        Some(Part::Run { set, .. }) => *set,
        Some(Part::Literal(_)) | None => Set::default(),
    }
}

/// The first literal, unless a later one says much more and can be reached from there.
fn best_literal(parts: &[Part]) -> Option<usize> {
    let worth = |part: &Part| match part {
        Part::Literal(literals) => literals.iter().map(|literal| literal.text.len()).min().unwrap_or(0),
        _ => 0,
    };
    let reachable = |index: usize| lengths(&parts[..index]).1 <= REACH_MAX;
    let best = (0..parts.len()).filter(|index| worth(&parts[*index]) >= 2 && reachable(*index));
    best.max_by_key(|index| (worth(&parts[*index]).min(4), std::cmp::Reverse(*index)))
}

/// How far before its anchor a token can begin.
const REACH_MAX: usize = 160;
