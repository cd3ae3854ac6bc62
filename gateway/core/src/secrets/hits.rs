//! What one scan found, each value once.

use super::decode::Step;
use super::detect::Tier;
use super::registered::Known;
use std::ops::Range;
use zeroize::Zeroizing;

/// A value, where it is in the document, and how it was hidden.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) format: String,
    pub(super) tier: Tier,
    /// In the document's text.
    pub(super) span: Range<usize>,
    /// Whether the span holds the value and nothing else.
    pub(super) is_exact: bool,
    pub(super) via: Vec<Step>,
    pub(super) value: Zeroizing<Vec<u8>>,
    /// Of a registered value.
    pub(super) known: Option<Known>,
}

/// See the module.
pub(super) struct Hits<'h> {
    pub(super) all: Vec<Hit>,
    /// Of each tier at most so many.
    most: usize,
    /// Whether there are more findings. More guesses are no matter.
    pub(super) is_over: bool,
    /// Whether a hit is none, because an operator said so.
    excused: &'h dyn Fn(&Hit) -> bool,
}

impl<'h> Hits<'h> {
    pub(super) fn new(most: usize, excused: &'h dyn Fn(&Hit) -> bool) -> Self {
        Self { all: Vec::new(), most, is_over: false, excused }
    }

    /// Takes a hit, unless it is there already. The same value may be found in several views, and a part of it by several
    /// detectors: the plainest counts, and what is registered before what only looks like something.
    pub(super) fn add(&mut self, hit: Hit) {
        let is_there = match &hit.known {
            Some(known) => self.has_known(&hit, &known.fingerprint),
            None => self.all.iter().rev().take(32).any(|other| covers(other, &hit)),
        };
        if is_there || hit.known.is_none() && (self.excused)(&hit) {
            return;
        }
        if hit.known.is_some() {
            let is_same = |other: &Hit| other.value == hit.value || hit.is_exact && is_within(other, &hit);
            self.all.retain(|other| other.known.is_some() || !is_same(other));
        }
        if self.all.iter().filter(|other| other.tier == hit.tier).count() < self.most {
            self.all.push(hit);
        } else {
            self.is_over |= hit.tier == Tier::Finding;
        }
    }

    fn has_known(&self, hit: &Hit, fingerprint: &str) -> bool {
        let is_same = |other: &Hit| other.known.as_ref().is_some_and(|known| known.fingerprint == fingerprint);
        self.all.iter().any(|other| is_same(other) && is_within(hit, other))
    }
}

fn is_within(hit: &Hit, other: &Hit) -> bool {
    other.span.start <= hit.span.start && hit.span.end <= other.span.end
}

fn covers(other: &Hit, hit: &Hit) -> bool {
    let is_part = other.is_exact && hit.is_exact && hit.tier == Tier::Suspicion;
    is_within(hit, other) && other.tier >= hit.tier && (other.value == hit.value || is_part)
}
