//! One look at one text: an Aho-Corasick automaton over every prefix, companion word and trigger says where to look, and the
//! detector that belongs to it looks.

use super::assign::{self, NOUNS, Noun};
use super::decode::RUN_MIN;
use super::format::Format;
use super::near;
use super::pack::Compiled;
use super::random::{distinct, entropy, roughness};
use super::shape::{Attempt, Part, Shape};
use super::structure::{PRIVATE_KEY, Structure, TRIGGERS};
use super::text::{Gaps, Text};
use aho_corasick::automaton::Automaton;
use aho_corasick::{Anchored, MatchKind, dfa};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// How sure a detector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// It may be a secret value: for a site's policy.
    Suspicion,
    /// It is one: for the charter.
    Finding,
}

/// A value in a text.
#[derive(Clone, Debug)]
pub(super) struct Match<'d> {
    /// The format's id.
    pub(super) format: &'d str,
    pub(super) tier: Tier,
    /// Where it lies in the text's bytes.
    pub(super) span: Range<usize>,
    /// It as it is meant to be read.
    pub(super) value: Vec<u8>,
    pub(super) backwards: bool,
}

/// No longer beginning of a token is waited for.
const BEGINNING_MAX: usize = 32;

#[derive(Clone, Copy, Debug)]
enum What {
    Shape {
        format: usize,
        shape: usize,
        literal: usize,
    },
    /// The formats with this companion word, as an index into [`Detectors::groups`].
    Near {
        group: usize,
    },
    Structure(Structure),
    Noun(Noun),
    Pack(usize),
}

#[derive(Debug, Default)]
struct Action {
    forwards: Vec<What>,
    backwards: Vec<What>,
}

/// What a look tells besides the values.
#[derive(Debug)]
pub(super) struct Looked {
    /// The first byte from which more text could still make a value.
    pub(super) open: Option<usize>,
    /// Whether it took too much work, so that something was not looked at.
    pub(super) is_over: bool,
}

/// Work that may be done for each byte of a text, and for any text: a unit is about a byte that a detector reads.
const EFFORT_TIMES: usize = 64;
const EFFORT_MIN: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Detectors {
    formats: Vec<Format>,
    packs: Vec<Compiled>,
    always: Vec<usize>,
    automaton: dfa::DFA,
    actions: Vec<Action>,
    groups: Vec<Vec<usize>>,
    /// How tokens that are told by their shape begin, in small letters, sorted.
    beginnings: Vec<Vec<u8>>,
    keywords: Vec<Vec<u8>>,
}

/// What a text leaves out, and so what need not be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// A text as it stands.
    Whole,
    /// A text without its white space: only what the white space hid is of interest.
    Squeezed,
    /// As [`Scope::Whole`], for the last look at what is written down: no guesses.
    Typed,
}

impl Detectors {
    pub(super) fn new(formats: Vec<Format>, packs: Vec<Compiled>) -> Result<Self, aho_corasick::BuildError> {
        let mut by_text: BTreeMap<Vec<u8>, Action> = BTreeMap::new();
        let mut add = |text: &[u8], what: What, both: bool| {
            let mut text = text.to_ascii_lowercase();
            by_text.entry(text.clone()).or_default().forwards.push(what);
            if both {
                text.reverse();
                by_text.entry(text).or_default().backwards.push(what);
            }
        };
        let mut companions: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, format) in formats.iter().enumerate() {
            for word in &format.near {
                let words = [word.clone(), word.replace(' ', "")];
                for word in words.into_iter().collect::<BTreeSet<_>>() {
                    companions.entry(word).or_default().push(at);
                }
            }
            for (index, shape) in format.shapes.iter().enumerate().filter(|_| format.near.is_empty()) {
                let literals = shape.anchor.map(|anchor| &shape.parts[anchor]);
                if let Some(Part::Literal(literals)) = literals {
                    for (literal, anchor) in literals.iter().enumerate() {
                        add(&anchor.text, What::Shape { format: at, shape: index, literal }, true);
                    }
                }
            }
        }
        let mut beginnings = vec![PRIVATE_KEY.as_bytes().to_vec()];
        for shape in formats.iter().filter(|format| format.near.is_empty()).flat_map(|format| &format.shapes) {
            if let Some(Part::Literal(literals)) = shape.parts.first() {
                beginnings.extend(literals.iter().map(|literal| literal.text.to_ascii_lowercase()));
            }
        }
        beginnings.sort();
        let mut groups = Vec::new();
        for (word, group) in companions {
            add(word.as_bytes(), What::Near { group: groups.len() }, true);
            groups.push(group);
        }
        for (trigger, structure) in TRIGGERS {
            add(trigger.as_bytes(), What::Structure(structure), false);
        }
        for (noun, kind) in NOUNS {
            add(noun.as_bytes(), What::Noun(kind), false);
        }
        let mut always = Vec::new();
        for (at, pack) in packs.iter().enumerate() {
            pack.keywords.iter().for_each(|word| add(word.as_bytes(), What::Pack(at), false));
            always.extend(pack.keywords.is_empty().then_some(at));
        }
        let keywords: Vec<Vec<u8>> = by_text.keys().cloned().collect();
        let automaton =
            dfa::Builder::new().ascii_case_insensitive(true).match_kind(MatchKind::Standard).build(&keywords)?;
        Ok(Self {
            formats,
            packs,
            always,
            automaton,
            actions: by_text.into_values().collect(),
            groups,
            beginnings,
            keywords,
        })
    }

    /// Where `text` ends with the beginning of a token: with less than the text by which it would be found.
    pub(super) fn begins(&self, text: &[u8]) -> Option<usize> {
        let gaps = Gaps::NONE;
        let whole = Text::new(text, &gaps);
        (text.len().saturating_sub(BEGINNING_MAX)..text.len()).filter(|at| whole.is_edge(*at)).find(|at| {
            let rest = text[*at..].to_ascii_lowercase();
            // A full stop alone ends a sentence; dashes alone are a rule.
            if !rest.iter().any(u8::is_ascii_alphanumeric) {
                return false;
            }
            let next = self.beginnings.partition_point(|beginning| *beginning < rest);
            self.beginnings.get(next).is_some_and(|beginning| beginning.starts_with(&rest))
        })
    }

    pub(super) fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// The texts that the automaton looks for: what a bare one is measured with.
    pub(super) fn keywords(&self) -> &[Vec<u8>] {
        &self.keywords
    }

    /// Every keyword in `bytes`, overlapping ones too. The automaton's own search begins anew behind each of them. What is seen is
    /// handled elsewhere, so that the loop stays as small as it is.
    fn each_keyword(&self, bytes: &[u8], see: &mut dyn FnMut(usize, Range<usize>)) {
        let automaton = &self.automaton;
        let Ok(mut state) = automaton.start_state(Anchored::No) else { return };
        let mut at = 0;
        while let Some(rest) = bytes.get(at..) {
            let Some(length) = rest.iter().position(|byte| {
                state = automaton.next_state(Anchored::No, state, *byte);
                automaton.is_special(state)
            }) else {
                return;
            };
            at += length + 1;
            for index in 0..if automaton.is_match(state) { automaton.match_len(state) } else { 0 } {
                let keyword = automaton.match_pattern(state, index);
                see(keyword.as_usize(), at - automaton.pattern_len(keyword)..at);
            }
        }
    }

    /// Calls `found` with each value in `bytes`.
    pub(super) fn find<'d>(
        &'d self,
        bytes: &[u8],
        gaps: &Gaps,
        scope: Scope,
        found: &mut impl FnMut(Match<'d>),
    ) -> Looked {
        let text = Text::new(bytes, gaps);
        let effort = bytes.len() * EFFORT_TIMES + EFFORT_MIN;
        let mut look = Look {
            detectors: self,
            text,
            scope,
            open: None,
            packs: BTreeSet::new(),
            words: near::Words::default(),
            effort,
        };
        self.each_keyword(bytes, &mut |keyword, hit| {
            let action = &self.actions[keyword];
            for what in &action.forwards {
                look.at(text, *what, hit.clone(), found);
            }
            if !action.backwards.is_empty() {
                let (mirrored, range) = (text.backwards(), text.backwards().span(hit.start, hit.end));
                for what in &action.backwards {
                    look.at(mirrored, *what, range.clone(), found);
                }
            }
        });
        if scope == Scope::Whole {
            look.packs.extend(&self.always);
            for pack in std::mem::take(&mut look.packs) {
                let pack = &self.packs[pack];
                pack.find(bytes, |span| {
                    let tier = if pack.is_weak { Tier::Suspicion } else { Tier::Finding };
                    found(Match {
                        format: &pack.id,
                        tier,
                        value: bytes[span.clone()].to_vec(),
                        span,
                        backwards: false,
                    });
                });
            }
        }
        Looked { open: look.open, is_over: look.effort == 0 }
    }
}

/// One look.
struct Look<'d, 't> {
    detectors: &'d Detectors,
    text: Text<'t>,
    scope: Scope,
    open: Option<usize>,
    packs: BTreeSet<usize>,
    words: near::Words,
    /// What is left of the work that may be done.
    effort: usize,
}

impl<'d> Look<'d, '_> {
    /// Takes some work. Whether there is any left.
    fn works(&mut self, units: usize) -> bool {
        self.effort = self.effort.saturating_sub(units);
        self.effort > 0
    }

    fn at(&mut self, text: Text<'_>, what: What, hit: Range<usize>, found: &mut impl FnMut(Match<'d>)) {
        match what {
            What::Shape { format, shape, literal } => {
                let format = &self.detectors.formats[format];
                if format.shapes[shape].is_squeezed && self.scope != Scope::Squeezed {
                    return;
                }
                let attempt = Attempt::new(text);
                let place = format.shapes[shape].around(&attempt, hit.start, literal, format.edges);
                if attempt.is_open() {
                    self.opens(text, place.map_or(hit.start, |(start, _)| start));
                }
                if let Some((start, end)) = place {
                    let tier = if format.is_weak { Tier::Suspicion } else { Tier::Finding };
                    self.found(text, format, tier, start..end, start, found);
                }
            }
            What::Near { group } if self.scope != Scope::Typed => self.near(text, group, hit, found),
            What::Structure(structure) if self.scope != Scope::Squeezed => {
                self.structure(structure, hit, found);
            }
            What::Noun(noun) if self.scope == Scope::Whole => self.assigned(noun, hit, found),
            What::Pack(at) => {
                self.packs.insert(at);
            }
            What::Near { .. } | What::Structure(_) | What::Noun(_) => {}
        }
    }

    fn opens(&mut self, text: Text<'_>, at: usize) {
        if !text.is_backwards() {
            self.open = Some(self.open.map_or(at, |open| open.min(at)));
        }
    }

    fn found(
        &self,
        text: Text<'_>,
        format: &'d Format,
        tier: Tier,
        place: Range<usize>,
        begins: usize,
        found: &mut impl FnMut(Match<'d>),
    ) {
        let value = text.slice(place.start, place.end);
        if entropy(&value) < format.entropy && !format.has_checksum(&value) {
            return;
        }
        // Read backwards or without its gaps, much looks like something: only what looks made counts.
        let is_hidden = text.is_backwards() || self.scope == Scope::Squeezed;
        if is_hidden && !looks_made(&value) && !format.has_checksum(&value) {
            return;
        }
        if self.scope == Scope::Squeezed && !text.has_gap(begins, place.end) && !text.is_backwards() {
            return;
        }
        let span = text.span(place.start, place.end);
        found(Match { format: &format.id, tier, span, value, backwards: text.is_backwards() });
    }

    /// Values shortly behind a companion word.
    fn near(&mut self, text: Text<'_>, group: usize, word: Range<usize>, found: &mut impl FnMut(Match<'d>)) {
        let detectors = self.detectors;
        if near::is_within_word(text, word.start) {
            return;
        }
        let from = near::from(text, word.end, self.scope);
        let limit = text.len().min(word.end + near::REACH);
        if from >= limit {
            return;
        }
        let attempt = Attempt::new(text);
        for run in self.words.others(text, from, limit, self.scope) {
            if run.end == text.len() && run.len() >= RUN_MIN && self.scope == Scope::Whole {
                self.opens(text, run.start);
            }
            for start in (run.start..limit.min(run.end)).filter(|start| text.is_edge(*start)) {
                for format in &detectors.groups[group] {
                    if !self.works(near::EFFORT) {
                        return;
                    }
                    let format = &detectors.formats[*format];
                    let fits = |shape: &&Shape| {
                        shape.length_min <= run.end - start && (!shape.is_squeezed || self.scope == Scope::Squeezed)
                    };
                    for shape in format.shapes.iter().filter(fits) {
                        let Some(end) = shape.at(&attempt, start, format.edges) else { continue };
                        self.near_value(text, format, shape, word.clone(), start..end, found);
                    }
                }
            }
        }
    }

    fn near_value(
        &self,
        text: Text<'_>,
        format: &'d Format,
        shape: &Shape,
        word: Range<usize>,
        value: Range<usize>,
        found: &mut impl FnMut(Match<'d>),
    ) {
        let bytes = text.slice(value.start, value.end);
        let is_made = looks_made(&bytes) || shape.is_grouped() && roughness(&bytes) >= 0.15;
        if !is_made {
            return;
        }
        let assigned = near::is_assigned(text, word.clone(), value.start);
        if assigned || self.scope != Scope::Squeezed {
            let tier = if assigned && !format.is_weak { Tier::Finding } else { Tier::Suspicion };
            self.found(text, format, tier, value, word.start, found);
        }
    }

    fn structure(&mut self, structure: Structure, hit: Range<usize>, found: &mut impl FnMut(Match<'d>)) {
        if !self.works(structure.effort()) {
            return;
        }
        let bytes = self.text.bytes();
        let (place, open) = structure.at(bytes, hit.clone());
        if open {
            self.opens(self.text, hit.start);
        }
        if let Some(place) = place
            && (self.scope == Scope::Whole || !place.is_weak)
        {
            let tier = if place.is_weak { Tier::Suspicion } else { Tier::Finding };
            let value = bytes[place.span.clone()].to_vec();
            found(Match { format: structure.id(), tier, span: place.span, value, backwards: false });
        }
    }

    fn assigned(&mut self, noun: Noun, hit: Range<usize>, found: &mut impl FnMut(Match<'d>)) {
        let bytes = self.text.bytes();
        if self.effort == 0 {
            return;
        }
        if let Some(assigned) = assign::suspicious(bytes, hit, noun, &mut self.effort) {
            let value = bytes[assigned.clone()].to_vec();
            found(Match { format: "assigned_value", tier: Tier::Suspicion, span: assigned, value, backwards: false });
        }
    }
}

/// Whether a value looks as if a generator had made it.
pub(super) fn looks_made(value: &[u8]) -> bool {
    let digits = value.iter().any(u8::is_ascii_digit);
    let letters = value.iter().any(u8::is_ascii_alphabetic);
    digits && (letters && roughness(value) >= 0.2 || !letters && distinct(value) >= 5)
        || value.len() >= 24 && roughness(value) >= 0.45
}
