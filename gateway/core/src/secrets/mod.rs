//! The no-secret fact: secret values in decoded strings, whatever common disguise they wear.
//!
//! Scanning looks at strings as they are after JSON is unescaped, member names included, never at wire bytes: there a
//! `\u0067hp_…` would pass. One pass over all strings finds published [formats](Engine::formats), structures such as private
//! keys, assignments that look like secrets, and [registered values](registered); its [views](view) are the text without white
//! space and across string ends, read backwards, folded from lookalikes, and decoded, to a depth and within a budget. A
//! finding keeps its format, place and keyed fingerprint, and never the value.

mod assign;
mod decode;
mod detect;
mod document;
mod fold;
mod format;
mod near;
pub mod pack;
mod random;
pub mod redact;
pub mod registered;
mod shape;
pub mod stream;
mod structure;
pub mod tail;
mod text;
mod view;

#[cfg(test)]
mod disguises;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

pub use detect::Tier;
pub use format::Format;

use crate::json::{Json, push_pointer};
use crate::mac::MacKey;
use decode::Step;
use detect::{Detectors, Scope};
use document::Document;
use jiff::Timestamp;
use registered::{Known, Registered, Registration};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use text::Gaps;
use view::{Hit, Pass};

/// A secret value, by what and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The token format, for example `github_token`.
    pub format: String,
    /// JSON pointer of the string. Masked, since a member's name can be a secret as well.
    pub at: String,
    /// Keyed fingerprint of the value: the same value has the same one, however it was hidden. Absent in records of
    /// version 2 and before, and where something could not be scanned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How it was hidden, the outermost first: `json`, `base64`, `hex`, `escapes`, `lookalikes`, `spaces`, `backwards`, `pieces`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
}

/// The format of what was too much to be looked at.
pub const UNSCANNABLE: &str = "unscannable";

impl Finding {
    /// Something that could not be scanned.
    pub fn unscannable(at: &str) -> Self {
        Self { format: UNSCANNABLE.into(), at: at.into(), fingerprint: None, via: Vec::new() }
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Secret values: for the charter.
    pub findings: Vec<Finding>,
    /// What may be secret values: for a site's policy.
    pub suspicions: Vec<Finding>,
    /// Whether there was more than could be looked at.
    pub unscannable: bool,
}

impl Scan {
    /// Whether there is no secret value in it, and all of it was looked at.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && !self.unscannable
    }

    /// What it is on the way out, where what could not be looked at counts as found.
    pub fn outbound(mut self, at: &str) -> Self {
        if self.unscannable {
            self.findings.push(Finding::unscannable(at));
        }
        self
    }

    fn add(&mut self, finding: Finding, tier: Tier) {
        let list = if tier == Tier::Finding { &mut self.findings } else { &mut self.suspicions };
        if !list.contains(&finding) {
            list.push(finding);
        }
    }

    /// Both scans as one.
    pub fn and(mut self, other: Self) -> Self {
        self.findings.extend(other.findings);
        self.suspicions.extend(other.suspicions);
        self.unscannable |= other.unscannable;
        self
    }
}

/// Findings that are told of one value.
const FINDINGS_MAX: usize = 64;
/// Values that are masked in one text; with more than these all of it is.
const MASKED_MAX: usize = 1024;
/// How often a text is masked until nothing is left to mask.
const MASKINGS_MAX: usize = 4;
/// Bytes of a finding's pointer; a member's name can be very long.
const POINTER_MAX: usize = 256;

/// The published formats, in our own words.
const CATALOGUE: [&str; 5] = [
    include_str!("formats/a-c.txt"),
    include_str!("formats/d-g.txt"),
    include_str!("formats/h-o.txt"),
    include_str!("formats/p-z.txt"),
    include_str!("formats/common.txt"),
];

#[expect(clippy::expect_used, reason = "the catalogue is a constant, and a test reads it")]
static SHIPPED: LazyLock<Arc<Detectors>> = LazyLock::new(|| {
    fold::prepare();
    Arc::new(Detectors::new(shipped_formats(), Vec::new()).expect("the catalogue is a fixed size"))
});

#[expect(clippy::expect_used, reason = "the catalogue is a constant, and a test reads it")]
fn shipped_formats() -> Vec<Format> {
    format::read(&CATALOGUE.join("\n")).expect("the catalogue is well formed")
}

/// Why an engine cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A rule of a pack.
    #[error("rule {index} of the pack: {why}")]
    Rule {
        /// From 0.
        index: usize,
        /// What is wrong with it.
        why: pack::Broken,
    },
    /// A registered value.
    #[error("registered value `{name}`: {why}")]
    Value {
        /// What its operator calls it.
        name: String,
        /// What is wrong with it.
        why: registered::Unfit,
    },
    /// Too many or too long keywords.
    #[error("the packs' keywords need too much memory")]
    Keywords,
}

/// What an engine is made of besides the shipped catalogue.
#[derive(Debug, Default)]
pub struct Sources {
    /// Rules of operators' packs.
    pub rules: Vec<pack::Rule>,
    /// Values to be found exactly.
    pub values: Vec<Registration>,
    /// Fingerprints of values that may pass, each until then. A registered value never may.
    pub allowed: BTreeMap<String, Option<Timestamp>>,
    /// Whether the shipped catalogue is left out, to measure a pack alone.
    pub without_catalogue: bool,
}

/// Everything that is looked for, prepared.
#[derive(Debug)]
pub struct Engine {
    detectors: Arc<Detectors>,
    registered: Registered,
    allowed: BTreeMap<String, Option<Timestamp>>,
}

impl Engine {
    /// Prepares everything. `keys` are random bytes that nobody else needs; `key` makes fingerprints.
    pub fn new(sources: Sources, keys: [u8; 56], key: &MacKey) -> Result<Self, Unusable> {
        let Sources { rules, values, allowed, without_catalogue } = sources;
        let rules = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| pack::Compiled::new(rule).map_err(|why| Unusable::Rule { index, why }));
        let rules: Vec<_> = rules.collect::<Result<_, _>>()?;
        let detectors = if rules.is_empty() && !without_catalogue {
            Arc::clone(&SHIPPED)
        } else {
            fold::prepare();
            let formats = if without_catalogue { Vec::new() } else { shipped_formats() };
            Arc::new(Detectors::new(formats, rules).map_err(|_| Unusable::Keywords)?)
        };
        let registered = Registered::new(&values, keys, key)
            .map_err(|(at, why)| Unusable::Value { name: values[at].name.clone(), why })?;
        Ok(Self { detectors, registered, allowed })
    }

    /// The catalogue alone.
    pub fn shipped() -> Self {
        Self { detectors: Arc::clone(&SHIPPED), registered: Registered::default(), allowed: BTreeMap::new() }
    }

    /// The published formats that are looked for.
    pub fn formats(&self) -> &[Format] {
        self.detectors.formats()
    }

    /// The registered values, by name and fingerprint.
    pub fn registered(&self) -> &[Known] {
        self.registered.values()
    }

    /// The texts by which candidates are found.
    pub fn keywords(&self) -> &[Vec<u8>] {
        self.detectors.keywords()
    }

    fn pass(&self, document: &Document, hits_max: usize) -> (Vec<Hit>, bool) {
        let pass = self.passed(document, hits_max);
        (pass.hits, pass.is_over)
    }

    fn passed(&self, document: &Document, hits_max: usize) -> Pass<'_> {
        let mut pass = Pass::new(&self.detectors, &self.registered, document.text.len(), hits_max);
        pass.document(document);
        pass
    }
}

/// The engine of now, and the key of its fingerprints. Everything that must not hold a secret value is shown to it.
#[derive(Debug)]
pub struct Scanner {
    engine: RwLock<Arc<Engine>>,
    key: MacKey,
    /// Seconds since the epoch, as last told: entries of the allowlist end.
    now: AtomicI64,
}

impl Scanner {
    /// A scanner by `engine`.
    pub fn new(engine: Engine, key: MacKey) -> Self {
        Self { engine: RwLock::new(Arc::new(engine)), key, now: AtomicI64::new(0) }
    }

    /// By the shipped catalogue alone.
    pub fn shipped(key: MacKey) -> Self {
        Self::new(Engine::shipped(), key)
    }

    /// The key of fingerprints and tags.
    pub fn key(&self) -> &MacKey {
        &self.key
    }

    /// The engine of now.
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another engine in place, for all scans from here on.
    pub fn serve(&self, engine: Engine) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(engine);
    }

    /// Tells the time.
    pub fn tick(&self, now: Timestamp) {
        self.now.store(now.as_second(), Ordering::Relaxed);
    }

    /// Every secret in the strings and member names of `json`. `at` is where `json` stands.
    pub fn scan(&self, json: &Json, at: &str) -> Scan {
        let engine = self.engine();
        let document = Document::of(json);
        self.told(&engine, &document, |number| format!("{at}{}", self.hide_pointer(&document::pointer(json, number))))
    }

    /// Every secret in one text.
    pub fn scan_text(&self, text: &str, at: &str) -> Scan {
        let engine = self.engine();
        self.told(&engine, &Document::of_text(text), |_| at.to_owned())
    }

    fn told(&self, engine: &Engine, document: &Document, place: impl Fn(usize) -> String) -> Scan {
        let (hits, unscannable) = engine.pass(document, FINDINGS_MAX);
        let mut scan = Scan { unscannable, ..Scan::default() };
        for hit in hits {
            let fingerprint = self.fingerprint(&hit);
            if self.is_allowed(engine, &hit, &fingerprint) {
                continue;
            }
            let leaf = document.leaf_at(hit.span.start);
            let blob = document.blobs.first().filter(|_| hit.span.start >= document.text.len());
            let number = blob.map(|blob| blob.number).or(leaf.map(|leaf| leaf.number)).unwrap_or_default();
            let nested = leaf.is_some_and(|leaf| leaf.is_nested).then_some(Step::Json);
            let via = nested.iter().chain(&hit.via).map(|step| step.name().to_owned()).collect();
            let finding = Finding { format: hit.format, at: place(number), fingerprint: Some(fingerprint), via };
            scan.add(finding, hit.tier);
        }
        scan
    }

    fn fingerprint(&self, hit: &Hit) -> String {
        hit.known.as_ref().map_or_else(|| self.key.tag(&hit.value), |known| known.fingerprint.clone())
    }

    /// Whether an operator said that this value is none. Of a registered one nobody can.
    fn is_allowed(&self, engine: &Engine, hit: &Hit, fingerprint: &str) -> bool {
        let now = self.now.load(Ordering::Relaxed);
        let until = engine.allowed.get(fingerprint);
        hit.known.is_none() && until.is_some_and(|until| until.is_none_or(|until| until.as_second() > now))
    }

    /// Whether `text` holds no secret value as it stands, guesses and disguises aside: the last look at what was masked before.
    pub fn is_plain(&self, text: &str) -> bool {
        let engine = self.engine();
        let mut is_plain = true;
        engine
            .detectors
            .find(text.as_bytes(), &Gaps::NONE, Scope::Typed, &mut |found| is_plain &= found.tier < Tier::Finding);
        engine.registered.find(text.as_bytes(), |_, _| is_plain = false);
        is_plain
    }

    /// `text` with each secret, sure or suspected, replaced by its format and fingerprint.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.without(text, |hit| self.stamp(hit))
    }

    /// `text` with each secret replaced by its format: for what has no fingerprints.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.without(text, |hit| format!("[secret:{}]", hit.format))
    }

    /// `text` with each secret value that is sure replaced by its format and fingerprint: for a worker to read.
    pub fn redacted<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let is_meant = |engine: &Engine, hit: &Hit| {
            hit.tier == Tier::Finding && !self.is_allowed(engine, hit, &self.fingerprint(hit))
        };
        self.replace(text, is_meant, |hit| self.stamp(hit))
    }

    /// What is left of a text when something in it was replaced can look like a secret itself: it now ends there.
    fn without<'t>(&self, text: &'t str, with: impl Fn(&Hit) -> String) -> Cow<'t, str> {
        let mut masked = self.replace(text, |_, _| true, &with);
        for _ in 0..MASKINGS_MAX {
            if matches!(masked, Cow::Borrowed(_)) || self.is_plain(&masked) {
                return masked;
            }
            masked = Cow::Owned(self.replace(&masked, |_, _| true, &with).into_owned());
        }
        if self.is_plain(&masked) { masked } else { Cow::Borrowed("[secret]") }
    }

    /// What stands in place of a value.
    fn stamp(&self, hit: &Hit) -> String {
        format!("[secret:{}:{}]", hit.format, self.fingerprint(hit))
    }

    fn replace<'t>(
        &self,
        text: &'t str,
        is_meant: impl Fn(&Engine, &Hit) -> bool,
        with: impl Fn(&Hit) -> String,
    ) -> Cow<'t, str> {
        let engine = self.engine();
        let document = Document::of_text(text);
        let (mut hits, _) = engine.pass(&document, MASKED_MAX);
        let are_too_many = hits.len() >= MASKED_MAX;
        hits.retain(|hit| is_meant(&engine, hit));
        if hits.is_empty() {
            return Cow::Borrowed(text);
        }
        let each = hits.iter().flat_map(|hit| shown(text, &document, hit).into_iter().map(move |span| (span, hit)));
        let mut spans: Vec<(Range<usize>, &Hit)> = each.collect();
        if are_too_many {
            spans = vec![(0..text.len(), &hits[0])];
        }
        spans.sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
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
        Cow::Owned(masked)
    }

    /// A JSON pointer with each secret among its member names replaced by its format. Names are looked at unescaped: a `/`
    /// in one stands as `~1` in the pointer.
    pub fn hide_pointer(&self, pointer: &str) -> String {
        let mut hidden = String::with_capacity(pointer.len());
        for step in pointer.split('/').skip(1) {
            if hidden.len() + step.len() > POINTER_MAX {
                hidden.push_str("/…");
                break;
            }
            // Short ones, and those are nearly all, hold nothing.
            if step.len() < registered::WINDOW {
                hidden.push('/');
                hidden.push_str(step);
            } else {
                push_pointer(&mut hidden, &self.hide(&step.replace("~1", "/").replace("~0", "~")));
            }
        }
        hidden
    }
}

/// The parts of `text` that show a hit.
fn shown(text: &str, document: &Document, hit: &Hit) -> Vec<Range<usize>> {
    let whole = 0..text.len();
    if document.leaf_at(hit.span.start).is_some_and(|leaf| !leaf.is_nested) {
        return vec![between_characters(text, hit.span.start.min(text.len())..hit.span.end.min(text.len()))];
    }
    // In JSON in a string the value may stand as it is; escaped, the whole string has to go.
    let value = std::str::from_utf8(&hit.value).unwrap_or_default();
    let places: Vec<_> = match value.is_empty() {
        true => Vec::new(),
        false => text.match_indices(value).map(|(at, _)| at..at + value.len()).collect(),
    };
    if places.is_empty() { vec![whole] } else { places }
}

fn between_characters(text: &str, span: Range<usize>) -> Range<usize> {
    let (mut start, mut end) = (span.start, span.end);
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}
