//! The views of a text: as it stands, without its white space, and decoded, each of them again.

use super::decode::{self, Step};
use super::detect::{Detectors, Scope, Tier};
use super::document::Document;
use super::fold;
use super::hits::{Hit, Hits};
use super::registered::Registered;
use super::text::Gaps;
use std::ops::Range;
use zeroize::Zeroizing;

/// Encodings within encodings.
const DEPTH_MAX: usize = 5;
/// Bytes that are looked at besides the text itself, as a multiple of it, and at least.
const DERIVED_TIMES: usize = 3;
const DERIVED_MIN: usize = 1 << 10;
/// How much of a string can join with what stands beside it: more than is needed of any value.
const JOINT: usize = 64;

/// One scan.
pub(super) struct Pass<'e> {
    detectors: &'e Detectors,
    registered: &'e Registered,
    pub(super) hits: Hits<'e>,
    /// The id of the key that Warden's own stamps were made with.
    stamped_by: &'e str,
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
    /// A part of the document's text, with other spellings from these places, and its end.
    Spelled(&'o Gaps, usize),
    /// From these places of a text that itself comes from there.
    Through(&'o Gaps, &'o Origin<'o>),
}

impl<'e> Pass<'e> {
    pub(super) fn new(
        detectors: &'e Detectors,
        registered: &'e Registered,
        hits: Hits<'e>,
        stamped_by: &'e str,
        length: usize,
    ) -> Self {
        Self {
            detectors,
            registered,
            hits,
            stamped_by,
            end: length,
            left: (length * DERIVED_TIMES).max(DERIVED_MIN),
            via: Vec::new(),
            is_over: false,
            open: None,
        }
    }

    pub(super) fn document(&mut self, document: &Document) {
        let text = &document.text;
        self.typed(text, &Gaps::NONE, Scope::Whole, &Origin::Itself);
        let mut squeezed = Vec::with_capacity(text.len());
        let mut gaps = Gaps::with_room(text.len());
        for leaf in document.leaves.iter().filter(|leaf| !leaf.is_name) {
            squeeze(text, leaf.span.clone(), &mut squeezed, &mut gaps);
        }
        // One value with one gap, that of its beginning, is the text itself.
        let has_name = document.leaves.first().is_some_and(|leaf| leaf.is_name);
        if gaps.len() > 1 || document.leaves.len() > 1 || has_name {
            self.look(&squeezed, &gaps, Scope::Squeezed, &Origin::Squeezed(&gaps));
            self.derived_squeezed(&squeezed, &gaps);
            self.names(document);
        } else {
            self.known(text, &Gaps::NONE, &Origin::Itself);
        }
        self.derived(text, &Origin::Itself);
        for (at, blob) in (text.len()..).zip(&document.blobs) {
            // Outside the budget: its type vouches for it. It stands in no text, so each has a place behind it.
            let place = Origin::Part(at..at + 1);
            let mut bytes = blob.bytes.clone();
            decode::keep_text(&mut bytes);
            self.look(&bytes, &Gaps::NONE, Scope::Whole, &place);
        }
    }

    /// One text, and nothing that comes of it.
    fn look(&mut self, text: &[u8], gaps: &Gaps, scope: Scope, origin: &Origin<'_>) {
        self.typed(text, gaps, scope, origin);
        self.known(text, gaps, origin);
    }

    fn typed(&mut self, text: &[u8], gaps: &Gaps, scope: Scope, origin: &Origin<'_>) {
        let Self { detectors, hits, via, stamped_by, .. } = self;
        let looked = detectors.find(text, gaps, scope, &mut |found| {
            if is_stamped(text, &found.span, stamped_by) {
                return;
            }
            let mut via = via.clone();
            via.extend((scope == Scope::Squeezed).then_some(Step::Spaces));
            via.extend(found.backwards.then_some(Step::Backwards));
            let (span, is_exact) = origin.of(&found.span);
            let value = Zeroizing::new(found.value);
            hits.add(Hit {
                format: found.format.to_owned(),
                tier: found.tier,
                span,
                is_exact,
                via,
                value,
                known: None,
            });
        });
        self.is_over |= looked.is_over;
        self.opens(looked.open, origin);
    }

    /// Registered values. Each is indexed without its white space as well.
    fn known(&mut self, text: &[u8], gaps: &Gaps, origin: &Origin<'_>) {
        let Self { registered, hits, via, .. } = self;
        registered.find(text, |span, known| {
            let mut via = via.clone();
            via.extend(gaps.is_any_after(span.start, span.end).then_some(Step::Spaces));
            let format = if known.canary { "canary" } else { "registered_value" }.to_owned();
            let value = Zeroizing::new(text[span.clone()].to_vec());
            let (span, is_exact) = origin.of(&span);
            hits.add(Hit { format, tier: Tier::Finding, span, is_exact, via, value, known: Some(known.clone()) });
        });
        self.opens(self.registered.open(text), origin);
    }

    /// Members' names: each without its white space, and for registered values all strings in their order.
    fn names(&mut self, document: &Document) {
        let text = &document.text;
        let is_spaced = |name: &&super::document::Leaf| text[name.span.clone()].iter().any(|byte| is_dropped(*byte));
        for name in document.leaves.iter().filter(|leaf| leaf.is_name).filter(is_spaced) {
            let (mut squeezed, mut gaps) = (Vec::new(), Gaps::default());
            squeeze(text, name.span.clone(), &mut squeezed, &mut gaps);
            self.look(&squeezed, &gaps, Scope::Squeezed, &Origin::Squeezed(&gaps));
        }
        if self.registered.values().is_empty() || !document.leaves.iter().any(|leaf| leaf.is_name) {
            return;
        }
        let mut joined = Vec::with_capacity(text.len());
        join(document, &mut |part| match &text[part] {
            solid if is_solid(solid) => joined.extend_from_slice(solid),
            part => joined.extend(part.iter().filter(|byte| !is_dropped(**byte))),
        });
        let mut is_there = false;
        self.registered.find(&joined, |_, _| is_there = true);
        if is_there {
            // Where it all stood is asked for now.
            let (mut joined, mut gaps) = (Vec::with_capacity(text.len()), Gaps::with_room(text.len()));
            join(document, &mut |part| squeeze(text, part, &mut joined, &mut gaps));
            self.known(&joined, &gaps, &Origin::Squeezed(&gaps));
        }
    }

    /// What comes of a text without its white space by decoding what the white space parted.
    fn derived_squeezed(&mut self, squeezed: &[u8], gaps: &Gaps) {
        for (span, step) in decode::runs(squeezed).encoded {
            if !gaps.is_any_after(span.start, span.end) {
                continue;
            }
            let run = &squeezed[span.clone()];
            // Words that lost their spaces look like base64 as well.
            let bytes = if step == Step::Hex { decode::decoded(run, step) } else { decode::parted_base64(run) };
            if let Some(bytes) = bytes {
                self.via.push(Step::Spaces);
                self.again(&bytes, step, &Origin::Squeezed(gaps).within(span));
                self.via.pop();
            }
        }
    }

    /// Something may begin at this place of a text.
    fn opens(&mut self, at: Option<usize>, origin: &Origin<'_>) {
        if let Some(at) = at.and_then(|at| origin.open(at, self.end)) {
            self.open = Some(self.open.map_or(at, |open| open.min(at)));
        }
    }

    /// What comes of a text by decoding it.
    fn derived(&mut self, text: &[u8], origin: &Origin<'_>) {
        let runs = decode::runs(text);
        if let Origin::Itself = origin {
            self.opens(runs.open(text), origin);
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
                let (folded, places, is_new) = folded(text, line.clone());
                if is_new {
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
            self.look(&squeezed, &gaps, Scope::Squeezed, &Origin::Through(&gaps, origin));
        }
        self.derived(bytes, &whole);
        self.via.pop();
    }
}

/// A part of a text folded, where its bytes stood, and whether there is anything new in it. What is no UTF-8 stays.
fn folded(text: &[u8], part: Range<usize>) -> (Vec<u8>, Gaps, bool) {
    let (mut folded, mut places, mut is_new) = (Vec::with_capacity(part.len()), Gaps::spelling(), false);
    let mut start = part.start;
    for chunk in text[part].utf8_chunks() {
        is_new |= fold::fold_with(chunk.valid(), &mut folded, |at, from| places.push(at, start + from));
        start += chunk.valid().len();
        places.push(folded.len(), start);
        folded.extend_from_slice(chunk.invalid());
        start += chunk.invalid().len();
    }
    (folded, places, is_new)
}

/// Whether what is found at `span` stands in a `[secret:FORMAT:FINGERPRINT]` that Warden wrote itself.
pub(super) fn is_stamped(text: &[u8], span: &Range<usize>, by: &str) -> bool {
    const OPENS: &[u8] = b"[secret:";
    const WITHIN: usize = 192;
    let from = span.start.saturating_sub(WITHIN);
    let Some(before) = text.get(from..text.len().min(span.start + OPENS.len())) else { return false };
    let Some(stamp) = before.windows(OPENS.len()).rposition(|bytes| bytes == OPENS).map(|at| from + at) else {
        return false;
    };
    let inside = &text[stamp + OPENS.len()..text.len().min(stamp + WITHIN)];
    let Some(end) = inside.iter().position(|byte| *byte == b']') else { return false };
    let mut parts = inside[..end].split(|byte| *byte == b':');
    let format = parts.next().is_some_and(|id| id.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'));
    let key = parts.next() == Some(by.as_bytes());
    let tag = parts.next().is_some_and(|tag| tag.len() == 32 && tag.iter().all(u8::is_ascii_hexdigit));
    format && key && tag && parts.next().is_none() && span.end <= stamp + OPENS.len() + end + 1
}

impl Origin<'_> {
    fn of(&self, span: &Range<usize>) -> (Range<usize>, bool) {
        match self {
            Origin::Itself => (span.clone(), true),
            Origin::Part(part) => (part.clone(), false),
            Origin::Squeezed(gaps) => (gaps.origin_of(span.start)..gaps.origin_after(span.end), true),
            Origin::Through(gaps, origin) => origin.of(&(gaps.origin_of(span.start)..gaps.origin_after(span.end))),
            Origin::Spelled(gaps, end) => {
                (gaps.origin_of(span.start).min(*end)..gaps.origin_after(span.end).min(*end), true)
            }
        }
    }

    /// Where in the document a candidate begins that `at` of the derived text opens, when it ends where the document does.
    fn open(&self, at: usize, end: usize) -> Option<usize> {
        match self {
            Origin::Itself => Some(at),
            Origin::Part(part) => (part.end >= end && part.start < end).then_some(part.start),
            Origin::Squeezed(gaps) => Some(gaps.origin_of(at)),
            Origin::Through(gaps, origin) => origin.open(gaps.origin_of(at), end),
            Origin::Spelled(gaps, part_end) => (*part_end >= end).then(|| gaps.origin_of(at).min(end)),
        }
    }

    /// Of a part whose bytes stand at these places of the text.
    fn through<'p>(&self, part: Range<usize>, places: &'p Gaps) -> Origin<'p> {
        match self {
            Origin::Itself => Origin::Spelled(places, part.end),
            Origin::Part(_) | Origin::Squeezed(_) | Origin::Spelled(..) | Origin::Through(..) => self.within(part),
        }
    }

    fn within(&self, span: Range<usize>) -> Origin<'static> {
        Origin::Part(self.of(&span).0)
    }
}

/// The parts of all strings that could join with what stands beside them.
fn join(document: &Document, part: &mut impl FnMut(Range<usize>)) {
    for leaf in &document.leaves {
        let Range { start, end } = leaf.span;
        if leaf.is_name || end - start <= 2 * JOINT {
            part(start..end);
        } else {
            // What is between them was looked at in its string, and what is joined over it is no value.
            part(start..start + JOINT);
            part(end - JOINT..end);
        }
    }
}

fn is_dropped(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

/// Whether nothing is dropped of it. All bytes are looked at, without a way out: many at once.
fn is_solid(text: &[u8]) -> bool {
    !text.iter().fold(false, |any, byte| any | is_dropped(*byte))
}

/// Appends a part of `text` without white space and control characters.
fn squeeze(text: &[u8], span: Range<usize>, squeezed: &mut Vec<u8>, gaps: &mut Gaps) {
    let mut at = span.start;
    // The end of a string is a gap as well.
    if is_solid(&text[span.clone()]) && !span.is_empty() {
        gaps.push(squeezed.len(), at);
        squeezed.extend_from_slice(&text[span]);
        return;
    }
    while at < span.end {
        let kept = text[at..span.end].iter().position(|byte| is_dropped(*byte)).unwrap_or(span.end - at);
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
