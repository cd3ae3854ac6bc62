//! The no-secret fact: secret values in decoded strings, whatever common disguise they wear.
//!
//! Scanning looks at strings as they are after JSON is unescaped, member names included, never at wire bytes: there a
//! `\u0067hp_…` would pass. One pass over all strings finds published [formats](Engine::formats), structures such as private
//! keys, assignments that look like secrets, and [registered values](registered); its views are the text without white
//! space and across string ends, read backwards, folded from lookalikes, and decoded, to a depth and within a budget. A
//! finding keeps its format, place and keyed fingerprint, and never the value.

mod assign;
mod decode;
mod detect;
mod document;
mod fold;
mod format;
mod hits;
mod mask;
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
use hits::{Hit, Hits};
use jiff::Timestamp;
use registered::{Known, Registered, Registration};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use text::Gaps;
use view::Pass;

/// A secret value, by what and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The format, for example `github_personal_access_token`, or `registered_value`.
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
        if list.len() < FINDINGS_MAX && !list.contains(&finding) {
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

    /// Everything in a document. `stamped_by` is the id of the key of Warden's own stamps.
    fn pass<'e>(&'e self, document: &Document, hits: Hits<'e>, stamped_by: &'e str) -> Pass<'e> {
        let mut pass = Pass::new(&self.detectors, &self.registered, hits, stamped_by, document.text.len());
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
        self.told(&engine, &document, |numbers| {
            let pointers = document::pointers(json, numbers);
            pointers.iter().map(|pointer| format!("{at}{}", self.hide_pointer(pointer))).collect()
        })
    }

    /// Every secret in one text.
    pub fn scan_text(&self, text: &str, at: &str) -> Scan {
        let engine = self.engine();
        self.told(&engine, &Document::of_text(text), |numbers| vec![at.to_owned(); numbers.len()])
    }

    fn told(&self, engine: &Engine, document: &Document, places: impl Fn(&[usize]) -> Vec<String>) -> Scan {
        let excused = |hit: &Hit| self.is_allowed(engine, hit);
        let pass = engine.pass(document, Hits::new(FINDINGS_MAX, &excused), self.key.kid());
        let mut scan = Scan { unscannable: pass.is_over || pass.hits.is_over, ..Scan::default() };
        let leaf = |hit: &Hit| document.leaf_at(hit.span.start).filter(|_| hit.span.start < document.text.len());
        let number = |hit: &Hit| match leaf(hit) {
            Some(leaf) => leaf.number,
            None => document.blobs.get(hit.span.start - document.text.len()).map_or(0, |blob| blob.number),
        };
        let numbers: Vec<usize> = pass.hits.all.iter().map(number).collect();
        for (hit, at) in pass.hits.all.iter().zip(places(&numbers)) {
            let nested = leaf(hit).is_some_and(|leaf| leaf.is_nested).then_some(Step::Json);
            let via = nested.iter().chain(&hit.via).map(|step| step.name().to_owned()).collect();
            let finding = Finding { format: hit.format.clone(), at, fingerprint: Some(self.fingerprint(hit)), via };
            scan.add(finding, hit.tier);
        }
        scan
    }

    fn fingerprint(&self, hit: &Hit) -> String {
        hit.known.as_ref().map_or_else(|| self.key.tag(&hit.value), |known| known.fingerprint.clone())
    }

    /// Whether an operator said that this value is none. Of a registered one nobody can.
    fn is_allowed(&self, engine: &Engine, hit: &Hit) -> bool {
        if engine.allowed.is_empty() || hit.known.is_some() {
            return false;
        }
        let now = self.now.load(Ordering::Relaxed);
        let until = engine.allowed.get(&self.fingerprint(hit));
        until.is_some_and(|until| until.is_none_or(|until| until.as_second() > now))
    }

    /// Whether `text` holds no secret value as it stands, guesses and disguises aside: the last look at what was masked before.
    pub fn is_plain(&self, text: &str) -> bool {
        let engine = self.engine();
        let (bytes, mut is_plain) = (text.as_bytes(), true);
        let looked = engine.detectors.find(bytes, &Gaps::NONE, Scope::Typed, &mut |found| {
            is_plain &= found.tier < Tier::Finding || view::is_stamped(bytes, &found.span, self.key.kid());
        });
        is_plain &= !looked.is_over;
        engine.registered.find(bytes, |_, _| is_plain = false);
        is_plain
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
