//! A text without the secret values in it.

use super::decode::Step;
use super::detect::Tier;
use super::document::Document;
use super::hits::{Hit, Hits};
use super::{Engine, Scanner, between_characters};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Values that are masked in one text; with more than these all of it is.
const MASKED_MAX: usize = 1024;
/// How often a text is looked at until nothing is left to mask: what is left of it now ends elsewhere.
const ROUNDS_MAX: usize = 5;

impl Scanner {
    /// `text` with each secret, sure or suspected, replaced by its format and fingerprint.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.without(text, Tier::Suspicion, |hit| self.stamp(hit))
    }

    /// `text` with each secret replaced by its format: for what has no fingerprints.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.without(text, Tier::Suspicion, |hit| format!("[secret:{}]", hit.format))
    }

    /// `text` with each secret value that is sure replaced by its format and fingerprint, for a worker to read. What may
    /// pass stays.
    pub fn redacted<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.without(text, Tier::Finding, |hit| self.stamp(hit))
    }

    /// What stands in place of a value.
    pub(super) fn stamp(&self, hit: &Hit) -> String {
        format!("[secret:{}:{}]", hit.format, self.fingerprint(hit))
    }

    fn without<'t>(&self, text: &'t str, least: Tier, with: impl Fn(&Hit) -> String) -> Cow<'t, str> {
        let mut left = Cow::Borrowed(text);
        for _ in 0..ROUNDS_MAX {
            match self.once_without(&left, least, &with) {
                Some(less) => left = Cow::Owned(less),
                None => return left,
            }
        }
        Cow::Borrowed("[secret]")
    }

    /// Nothing when there is nothing to replace.
    fn once_without(&self, text: &str, least: Tier, with: impl Fn(&Hit) -> String) -> Option<String> {
        let engine = self.engine();
        let document = Document::of_text(text);
        let excused = |hit: &Hit| least == Tier::Finding && self.is_allowed(&engine, hit);
        let mut pass = Engine::pass(&engine, &document, Hits::new(MASKED_MAX, &excused), self.key.kid());
        // What is not looked at is not written down either. A worker is not given it in any case.
        if pass.is_over && least == Tier::Suspicion {
            return Some("[secret:unscannable]".into());
        }
        let are_too_many = pass.hits.all.len() >= MASKED_MAX;
        pass.hits.all.retain(|hit| hit.tier >= least);
        let first = pass.hits.all.first()?;
        let spans = if are_too_many { None } else { spans(text, &document, &pass.hits.all) };
        let Some(spans) = spans else { return Some(with(first)) };
        let (mut masked, mut done) = (String::with_capacity(text.len()), 0);
        for (span, hit) in spans {
            // Of overlapping findings the later ones still hide what the first left over.
            if span.end > done {
                let start = span.start.max(done);
                masked.push_str(&text[done..start]);
                masked.push_str(&with(hit));
                done = span.end;
            }
        }
        masked.push_str(&text[done..]);
        Some(masked)
    }
}

/// The parts of `text` that show these hits, in order; nothing when all of it does.
fn spans<'h>(text: &str, document: &Document, hits: &'h [Hit]) -> Option<Vec<(Range<usize>, &'h Hit)>> {
    let (mut spans, mut nested) = (Vec::new(), BTreeMap::new());
    for hit in hits {
        if document.leaf_at(hit.span.start).is_some_and(|leaf| !leaf.is_nested) {
            let within = hit.span.start.min(text.len())..hit.span.end.min(text.len());
            spans.push((between_characters(text, within), hit));
        } else {
            nested.entry(&*hit.value).or_insert(hit);
        }
    }
    // In JSON in a string a value may stand as it is. Disguised, or escaped, the whole string has to go.
    for (value, hit) in nested {
        let is_plain = hit.via.iter().all(|step| *step == Step::Json);
        let value = std::str::from_utf8(value).ok().filter(|value| is_plain && !value.is_empty())?;
        let before = spans.len();
        spans.extend(text.match_indices(value).map(|(at, _)| (at..at + value.len(), hit)));
        if spans.len() == before {
            return None;
        }
    }
    spans.sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
    Some(spans)
}
