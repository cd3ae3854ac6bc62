//! The views of a text: as it stands, without its white space, and decoded, each of them again.

use super::decode::{self, Step};
use super::detect::{Detectors, Scope, Tier};
use super::document::Document;
use super::fold;
use super::registered::{Known, Registered};
use super::text::Gaps;
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

/// Encodings within encodings.
const DEPTH_MAX: usize = 5;
/// Bytes that are looked at besides the text itself, as a multiple of it, and at least.
const DERIVED_TIMES: usize = 3;
const DERIVED_MIN: usize = 1 << 10;

/// One scan.
pub(super) struct Pass<'e> {
    detectors: &'e Detectors,
    registered: &'e Registered,
    pub(super) hits: Vec<Hit>,
    hits_max: usize,
    /// Where the document ends.
    end: usize,
    left: usize,
    via: Vec<Step>,
    /// Whether something was not looked at, because there would be too much of it.
    pub(super) is_over: bool,
    /// From where on more text could still make a value.
    pub(super) open: Option<usize>,
}

/// What a derived text comes from.
#[derive(Clone)]
enum Origin<'o> {
    /// The document's text.
    Itself,
    /// All of it from here.
    Part(Range<usize>),
    /// Parts of the document's text, from these places.
    Squeezed(&'o Gaps),
}

impl<'e> Pass<'e> {
    pub(super) fn new(detectors: &'e Detectors, registered: &'e Registered, length: usize, hits_max: usize) -> Self {
        Self {
            detectors,
            registered,
            hits: Vec::new(),
            hits_max,
            end: length,
            left: (length * DERIVED_TIMES).max(DERIVED_MIN),
            via: Vec::new(),
            is_over: false,
            open: None,
        }
    }

    pub(super) fn document(&mut self, document: &Document) {
        let text = &document.text;
        self.look(text, &Gaps::NONE, Scope::Whole, &Origin::Itself);
        let mut squeezed = Vec::with_capacity(text.len());
        let mut gaps = Gaps::default();
        for leaf in document.leaves.iter().filter(|leaf| !leaf.is_name) {
            squeeze(text, leaf.span.clone(), &mut squeezed, &mut gaps);
        }
        // With one gap, that of its beginning, it is the text itself.
        if gaps.len() > 1 || document.leaves.len() > 1 {
            self.look(&squeezed, &gaps, Scope::Squeezed, &Origin::Squeezed(&gaps));
        }
        self.derived(text, &Origin::Itself);
        for blob in &document.blobs {
            // Outside the budget: its type vouches for it.
            let place = Origin::Part(text.len()..text.len());
            let mut bytes = blob.bytes.clone();
            decode::keep_text(&mut bytes);
            self.look(&bytes, &Gaps::NONE, Scope::Whole, &place);
        }
    }

    /// One text, and nothing that comes of it.
    fn look(&mut self, text: &[u8], gaps: &Gaps, scope: Scope, origin: &Origin<'_>) {
        let Self { detectors, registered, hits, hits_max, via, is_over, .. } = self;
        let open = detectors.find(text, gaps, scope, &mut |found| {
            if has_room(hits, found.tier, *hits_max, is_over) {
                let mut via = via.clone();
                via.extend((scope == Scope::Squeezed).then_some(Step::Spaces));
                via.extend(found.backwards.then_some(Step::Backwards));
                let (span, is_exact) = origin.of(&found.span);
                let value = Zeroizing::new(found.value);
                let hit =
                    Hit { format: found.format.to_owned(), tier: found.tier, span, is_exact, via, value, known: None };
                keep(hits, hit);
            }
        });
        registered.find(text, |span, known| {
            if has_room(hits, Tier::Finding, *hits_max, is_over) {
                let mut via = via.clone();
                via.extend((scope == Scope::Squeezed).then_some(Step::Spaces));
                let format = if known.canary { "canary" } else { "registered_value" };
                let value = Zeroizing::new(text[span.clone()].to_vec());
                let (span, is_exact) = origin.of(&span);
                let hit = Hit {
                    format: format.to_owned(),
                    tier: Tier::Finding,
                    span,
                    is_exact,
                    via,
                    value,
                    known: Some(known.clone()),
                };
                keep(hits, hit);
            }
        });
        for open in [open, registered.open(text)].into_iter().flatten() {
            if let Some(open) = origin.open(open, self.end) {
                self.opens(open);
            }
        }
    }

    fn opens(&mut self, at: usize) {
        self.open = Some(self.open.map_or(at, |open| open.min(at)));
    }

    /// What comes of a text by decoding it.
    fn derived(&mut self, text: &[u8], origin: &Origin<'_>) {
        let runs = decode::runs(text);
        if let (Origin::Itself, Some(start)) = (origin, runs.open(text)) {
            self.opens(start);
        }
        for (span, step) in runs.encoded {
            if let Some(bytes) = decode::decoded(&text[span.clone()], step) {
                self.again(&bytes, step, &origin.within(span));
            }
        }
        if !runs.escapes.is_empty() {
            for part in decode::unescaped(text, &runs.escapes) {
                let from = origin.through(part.span, &part.places);
                self.again(&part.bytes, Step::Escapes, &from);
            }
        }
        if runs.is_wide && self.via.last() != Some(&Step::Lookalikes) {
            for line in wide_parts(text) {
                let (mut folded, mut places) = (Vec::with_capacity(line.len()), Gaps::spelling());
                // What is no UTF-8 was left out of decoded bytes before, and strings have none.
                let Ok(wide) = std::str::from_utf8(&text[line.clone()]) else { continue };
                if fold::fold_with(wide, &mut folded, |at, from| places.push(at, line.start + from)) {
                    let from = origin.through(line, &places);
                    self.again(&folded, Step::Lookalikes, &from);
                }
            }
        }
    }

    fn again(&mut self, bytes: &[u8], step: Step, origin: &Origin<'_>) {
        if self.via.len() >= DEPTH_MAX || bytes.len() > self.left {
            self.is_over = true;
            return;
        }
        self.left -= bytes.len();
        self.via.push(step);
        self.look(bytes, &Gaps::NONE, Scope::Whole, origin);
        let (mut squeezed, mut gaps) = (Vec::with_capacity(bytes.len()), Gaps::default());
        squeeze(bytes, 0..bytes.len(), &mut squeezed, &mut gaps);
        let whole = Origin::Part(origin.of(&(0..bytes.len())).0);
        if gaps.len() > 1 {
            self.look(&squeezed, &gaps, Scope::Squeezed, &whole);
        }
        self.derived(bytes, &whole);
        self.via.pop();
    }
}

/// Whether another hit can be told of. What is more than that is too much; guesses are not.
fn has_room(hits: &[Hit], tier: Tier, most: usize, is_over: &mut bool) -> bool {
    let has_room = hits.iter().filter(|hit| hit.tier == tier).count() < most;
    *is_over |= !has_room && tier == Tier::Finding;
    has_room
}

/// The same value may be found in several views, and a part of it by several detectors; the plainest counts, and what is
/// registered before what only looks like something.
fn keep(hits: &mut Vec<Hit>, hit: Hit) {
    if let Some(known) = &hit.known {
        let is_same = |other: &Hit| other.known.as_ref().is_some_and(|other| other.fingerprint == known.fingerprint);
        let overlaps = |other: &Hit| other.span.start < hit.span.end && hit.span.start < other.span.end;
        if hits.iter().any(|other| is_same(other) && overlaps(other)) {
            return;
        }
        hits.retain(|other| {
            other.known.is_some() || other.span.start < hit.span.start || hit.span.end < other.span.end
        });
        hits.push(hit);
        return;
    }
    let is_known = hits.iter().rev().take(32).any(|other| {
        let same_place = other.span.start <= hit.span.start && hit.span.end <= other.span.end;
        let covers = other.is_exact && hit.is_exact && hit.tier == Tier::Suspicion;
        same_place && other.tier >= hit.tier && (other.value == hit.value || covers)
    });
    if !is_known {
        hits.push(hit);
    }
}

impl Origin<'_> {
    fn of(&self, span: &Range<usize>) -> (Range<usize>, bool) {
        match self {
            Origin::Itself => (span.clone(), true),
            Origin::Part(part) => (part.clone(), false),
            Origin::Squeezed(gaps) => (gaps.origin_of(span.start)..gaps.origin_after(span.end), true),
        }
    }

    /// Where in the document a candidate begins that `at` of the derived text opens, when it ends where the document does.
    fn open(&self, at: usize, end: usize) -> Option<usize> {
        match self {
            Origin::Itself => Some(at),
            Origin::Part(part) => (part.end >= end && part.start < end).then_some(part.start),
            Origin::Squeezed(gaps) => Some(gaps.origin_of(at)),
        }
    }

    /// Of a part whose bytes stand at these places of the text.
    fn through<'p>(&self, part: Range<usize>, places: &'p Gaps) -> Origin<'p> {
        match self {
            Origin::Itself => Origin::Squeezed(places),
            Origin::Part(_) | Origin::Squeezed(_) => self.within(part),
        }
    }

    fn within(&self, span: Range<usize>) -> Origin<'static> {
        Origin::Part(self.of(&span).0)
    }
}

/// Appends a part of `text` without white space and control characters.
fn squeeze(text: &[u8], span: Range<usize>, squeezed: &mut Vec<u8>, gaps: &mut Gaps) {
    let mut at = span.start;
    // The end of a string is a gap as well.
    while at < span.end {
        let kept = text[at..span.end].iter().position(|byte| *byte <= b' ').unwrap_or(span.end - at);
        if kept > 0 {
            gaps.push(squeezed.len(), at);
            squeezed.extend_from_slice(&text[at..at + kept]);
        }
        at += kept + 1;
    }
}

/// The lines that have bytes beyond ASCII, and not more than needed around them.
fn wide_parts(text: &[u8]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let end = start + line.len();
        if line.iter().any(|byte| *byte >= 128) {
            match parts.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => parts.push(start..end),
            }
        }
        start = end;
    }
    parts
}
