//! What a task is for: the tools it needs, the words it was given in, and the addresses its tenant knows.
//!
//! From these follow facts about each call, which policy decides by. A value is vouched for when the person who gave
//! the task wrote it, or when it stands in the directory. Nothing else vouches, in particular nothing that a call
//! returned: that is where a foreign instruction comes from.
//!
//! Comparing is strict because a near miss is how a forgery looks: whole words, in the order and without a gap, only
//! upper and lower case alike. Only the prompt is a natural language, so only its words are trimmed of punctuation;
//! a value is a datum and stays as it is. To be mentioned is enough: "do not write to Eve" vouches for Eve.

use crate::catalogue::authority::Marks;
use crate::json::{Json, push_pointer};
use crate::proposal::ScopeFacts;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// Most tools of one scope.
pub const TOOLS_MAX: usize = 256;
/// The longest name of a tool, in bytes.
pub const TOOL_BYTES_MAX: usize = 512;
/// The longest prompt, in bytes.
pub const PROMPT_BYTES_MAX: usize = 64 << 10;
/// Most entries of the directory.
pub const DIRECTORY_MAX: usize = 10_000;
/// The longest entry of the directory, in bytes.
pub const ENTRY_BYTES_MAX: usize = 512;
/// A longer value is not looked up, in bytes: nothing that names somebody or some place is so long.
const VALUE_BYTES_MAX: usize = 4 << 10;
/// Words compared for one call; what is left then is not vouched for. A prompt of one word over and over would
/// otherwise make a call as slow as its arguments like.
const STEPS_MAX: usize = 1_000_000;

/// Where a word of the prompt ends besides white space: brackets, quotes and what separates items. No character that
/// is a part of addresses, paths or names.
const CUTS: &[char] = &[
    '"', '`', '\u{201c}', '\u{201d}', '\u{201e}', '\u{ab}', '\u{bb}', '(', ')', '[', ']', '{', '}', '<', '>', '|', ',',
    ';', '*', '\u{2014}', '\u{2026}',
];
/// What closes a sentence and is no part of its last word.
const CLOSING: &[char] = &['.', ':', '!', '?', '\''];
/// What separates items that one string holds.
const SEPARATORS: &[char] = &[',', ';'];
/// Words of common speech that many services take for everybody: "is anybody here?" admits nobody.
const BROADCAST: &[&str] = &["all", "any", "anyone", "anybody", "everyone", "everybody", "public", "world"];
/// Left out in speech. Never the other way round: the prompt's own scheme stays.
const SCHEMES: &[&str] = &["https://", "http://"];

/// What a scope is made of, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Tools the task needs: `SERVER/TOOL`, `SERVER/*` for all tools of a server, or `TOOL` of any server.
    #[serde(default)]
    pub tools: Vec<String>,
    /// The task in the words of the person who gave it.
    #[serde(default)]
    pub prompt: String,
    /// Addresses and names that the tenant vouches for, each as a whole.
    #[serde(default)]
    pub directory: Vec<String>,
}

/// Why a scope is not accepted. What it holds is no part of the message: it may be private.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More items than a list may have.
    #[error("`{list}` has {count} items, and at most {count_max} are taken")]
    TooMany {
        /// `tools` or `directory`.
        list: &'static str,
        /// How many there are.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// A text longer than it may be.
    #[error("`{at}` has {bytes} bytes, and at most {bytes_max} are taken")]
    TooLong {
        /// `prompt`, or a list and the position in it, such as `directory[3]`.
        at: String,
        /// How long it is, in bytes.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Something that no tool is called: it would be in no call's scope, and nobody would know why.
    #[error("`tools[{index}]` names no tool: write `SERVER/TOOL`, `SERVER/*` or `TOOL`; there are no other patterns")]
    NoTool {
        /// The position in the list.
        index: usize,
    },
}

/// The scope of one task, prepared for looking up.
#[derive(Clone)]
pub struct Scope {
    source: Source,
    tools: HashSet<String>,
    prompt: Prompt,
    directory: HashSet<Vec<String>>,
}

/// Nothing of the prompt and the directory: they are their tenant's.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} tools, {} entries)", self.source.tools.len(), self.source.directory.len())
    }
}

impl Scope {
    /// Prepares a scope. Refuses what is over a limit.
    pub fn new(source: Source) -> Result<Self, Error> {
        check_list("tools", &source.tools, TOOLS_MAX, TOOL_BYTES_MAX)?;
        if let Some(index) = source.tools.iter().position(|tool| !names_a_tool(tool)) {
            return Err(Error::NoTool { index });
        }
        check_length("prompt", &source.prompt, PROMPT_BYTES_MAX)?;
        check_list("directory", &source.directory, DIRECTORY_MAX, ENTRY_BYTES_MAX)?;
        Ok(Self {
            tools: source.tools.iter().cloned().collect(),
            prompt: Prompt::read(&source.prompt),
            directory: source.directory.iter().map(|entry| words(entry)).collect(),
            source,
        })
    }

    /// What it was made of.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What is true of a call of `tool` of `server`, whose marked fields `marks` tells.
    ///
    /// A field with no value, such as null or an empty list, stands nowhere. Arguments that are no object are not
    /// vouched for, under the empty name.
    pub fn facts(&self, server: &str, tool: &str, marks: &Marks, arguments: &Json) -> ScopeFacts {
        let mut facts = ScopeFacts { in_scope: self.includes(server, tool), ..ScopeFacts::default() };
        if !matches!(arguments, Json::Object(_) | Json::Null) {
            facts.unvouched.push(String::new());
            return facts;
        }
        let mut fields = plain_values(arguments);
        fields
            .extend(marks.values(arguments).into_iter().map(|(name, values)| (name, Values { marked: true, values })));
        let mut steps = STEPS_MAX;
        for (name, field) in fields {
            let found: Vec<_> = field.values.iter().map(|value| self.find(value, &mut steps)).collect();
            if found.iter().all(|found| found.in_prompt) {
                facts.input_from_prompt.push(name.clone());
            }
            if found.iter().all(|found| found.in_directory) {
                facts.input_from_directory.push(name.clone());
            }
            if field.marked && found.iter().any(|found| !found.in_prompt && !found.in_directory) {
                facts.unvouched.push(name);
            }
        }
        facts
    }

    /// A name without a slash is a tool's, so no server's tool can pass for another server's by a slash in its name.
    fn includes(&self, server: &str, tool: &str) -> bool {
        let whole = || self.tools.contains(&format!("{server}/{tool}")) || self.tools.contains(&format!("{server}/*"));
        (!server.contains('/') && whole()) || (!tool.contains('/') && self.tools.contains(tool))
    }

    fn find(&self, value: &Json, steps: &mut usize) -> Found {
        let mut found = Found::default();
        for text in texts(value) {
            found.in_prompt |= self.prompt.vouches_for(text, steps);
            found.in_directory |= self.lists(text);
        }
        found
    }

    /// Whether the whole value is one whole entry.
    fn lists(&self, text: &str) -> bool {
        let words = words(text);
        !words.is_empty() && self.directory.contains(&words)
    }
}

/// Where a value stands.
#[derive(Clone, Copy, Default)]
struct Found {
    in_prompt: bool,
    in_directory: bool,
}

/// The values of one field; never none.
struct Values<'j> {
    marked: bool,
    values: Vec<&'j Json>,
}

/// Arguments that are a text, a number or a list of these, marked or not.
fn plain_values(arguments: &Json) -> BTreeMap<String, Values<'_>> {
    let mut fields: BTreeMap<String, Values<'_>> = BTreeMap::new();
    let Json::Object(members) = arguments else { return fields };
    for (name, value) in members {
        let items = if let Json::Array(items) = value { items.as_slice() } else { std::slice::from_ref(value) };
        let plain = items.iter().all(|item| matches!(item, Json::String(_) | Json::Number(_)));
        let values: Vec<_> = items.iter().filter(|item| !is_blank(item)).collect();
        if plain && !values.is_empty() {
            let mut pointer = String::new();
            push_pointer(&mut pointer, name);
            let name = pointer.strip_prefix('/').unwrap_or(&pointer).to_owned();
            fields.entry(name).or_insert(Values { marked: false, values: Vec::new() }).values.extend(values);
        }
    }
    fields
}

fn is_blank(value: &Json) -> bool {
    matches!(value, Json::String(text) if text.trim().is_empty())
}

/// The texts that mean exactly this value, none for what is not looked up. A number may be written with zeros at its
/// end; one with an exponent is only itself.
fn texts(value: &Json) -> Vec<&str> {
    match value {
        Json::String(text) if text.len() <= VALUE_BYTES_MAX => vec![text],
        Json::Number(text) if text.len() <= VALUE_BYTES_MAX => {
            let mut texts = vec![text.as_str()];
            if text.contains('.') && !text.contains(['e', 'E']) {
                texts.push(text.trim_end_matches('0').trim_end_matches('.'));
            }
            texts
        }
        _ => Vec::new(),
    }
}

/// No tool has a star in its name.
fn names_a_tool(text: &str) -> bool {
    let name = text.strip_suffix("/*").unwrap_or(text);
    !name.trim().is_empty() && !name.contains('*')
}

fn check_list(list: &'static str, items: &[String], count_max: usize, bytes_max: usize) -> Result<(), Error> {
    if items.len() > count_max {
        return Err(Error::TooMany { list, count: items.len(), count_max });
    }
    items.iter().enumerate().try_for_each(|(index, item)| check_length(&format!("{list}[{index}]"), item, bytes_max))
}

fn check_length(at: &str, text: &str, bytes_max: usize) -> Result<(), Error> {
    match text.len() {
        bytes if bytes > bytes_max => Err(Error::TooLong { at: at.to_owned(), bytes, bytes_max }),
        _ => Ok(()),
    }
}

/// The words of a prompt: for each form that a word can be meant in, the places where it stands, ascending.
#[derive(Clone, Debug)]
struct Prompt {
    places: HashMap<String, Vec<usize>>,
}

impl Prompt {
    fn read(text: &str) -> Self {
        let text = fold(text);
        let pieces = text.split(|c: char| c.is_whitespace() || CUTS.contains(&c));
        let pieces = pieces.map(|piece| piece.trim_matches('\'')).filter(|piece| !piece.is_empty());
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, piece) in pieces.enumerate() {
            for form in forms(piece) {
                let known = places.entry(form.to_owned()).or_default();
                if known.last() != Some(&place) {
                    known.push(place);
                }
            }
        }
        Self { places }
    }

    /// Whether the value stands in the prompt as one run of words, or else each of the items that it lists does.
    fn vouches_for(&self, value: &str, steps: &mut usize) -> bool {
        self.holds(&words(value), steps)
            || (value.contains(SEPARATORS) && value.split(SEPARATORS).all(|item| self.holds(&words(item), steps)))
    }

    fn holds(&self, words: &[String], steps: &mut usize) -> bool {
        if let [word] = words
            && meanings(word).any(|word| BROADCAST.contains(&word))
        {
            return false;
        }
        if *steps == 0 {
            return false;
        }
        let places: Vec<Vec<&[usize]>> = words.iter().map(|word| self.places_of(word)).collect();
        // From the rarest word, since most values fail there.
        let count = |places: &Vec<&[usize]>| places.iter().map(|places| places.len()).sum::<usize>();
        let Some((offset, rarest)) = places.iter().enumerate().min_by_key(|(_, places)| count(places)) else {
            return false;
        };
        let mut starts = rarest.iter().copied().flatten().filter_map(|place| place.checked_sub(offset));
        starts.any(|start| places.iter().zip(start..).all(|(places, place)| take(steps) && stands(places, place)))
    }

    fn places_of(&self, word: &str) -> Vec<&[usize]> {
        meanings(word).filter_map(|word| self.places.get(word)).map(Vec::as_slice).collect()
    }
}

fn stands(places: &[&[usize]], place: usize) -> bool {
    places.iter().any(|places| places.binary_search(&place).is_ok())
}

fn take(steps: &mut usize) -> bool {
    let left = *steps;
    *steps = left.saturating_sub(1);
    left > 0
}

/// A word of the prompt as it may be meant: with and without what closes a sentence, the genitive, the sign before a
/// channel or a person, and the slash at the end.
fn forms(piece: &str) -> impl Iterator<Item = &str> {
    let bare = piece.trim_end_matches(CLOSING);
    [Some(piece), Some(bare), bare.strip_suffix("'s")]
        .into_iter()
        .flatten()
        .flat_map(|form| [Some(form), without_sign(form, &['#', '@'])])
        .flatten()
        .flat_map(|form| [Some(form), form.strip_suffix('/')])
        .flatten()
        .filter(|form| !form.is_empty())
}

/// A word of a value as a prompt may spell it: with and without the slash at its end, and without its scheme.
fn meanings(word: &str) -> impl Iterator<Item = &str> {
    [Some(word), word.strip_suffix('/')]
        .into_iter()
        .flatten()
        .flat_map(|word| [Some(word), without_scheme(word)])
        .flatten()
        .filter(|word| !word.is_empty())
}

/// `www.example.org` for `https://www.example.org`. Only what may be a host: a scheme before any word would make an
/// address of it, and one before `anna@example.org` reaches `example.org`, which nobody asked for.
fn without_scheme(word: &str) -> Option<&str> {
    let rest = SCHEMES.iter().find_map(|scheme| word.strip_prefix(scheme))?;
    (rest.contains(['.', ':']) && !rest.contains('@') && !rest.contains("://")).then_some(rest)
}

/// The words of a value: a datum, so only the sign before a channel is no part of it.
fn words(value: &str) -> Vec<String> {
    let bare = |word: &str| without_sign(word, &['#']).unwrap_or(word).to_owned();
    fold(value).split_whitespace().map(bare).collect()
}

/// `ops` for `#ops`. Not for `##ops`, which is another channel.
fn without_sign<'w>(word: &'w str, signs: &[char]) -> Option<&'w str> {
    word.strip_prefix(signs).filter(|bare| !bare.is_empty() && !bare.starts_with(['#', '@']))
}

/// Lower case, and one apostrophe for all. A letter that merely looks like an ASCII one, such as the Kelvin sign, does
/// not become it.
fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{2018}' | '\u{2019}' => folded.push('\''),
            c if !c.is_ascii() && c.to_lowercase().any(|lower| lower.is_ascii()) => folded.push(c),
            c => folded.extend(c.to_lowercase()),
        }
    }
    folded
}

#[cfg(test)]
mod tests;
