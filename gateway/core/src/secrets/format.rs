//! The catalogue's grammar. A block is an id with its provider, shapes, and what else has to hold; `formats/README.md`
//! describes it.

use super::shape::{Edges, Literal, Part, Set, Shape};

/// A published token format.
#[derive(Clone, Debug)]
pub struct Format {
    /// For example `github_personal_access_token`.
    pub id: String,
    /// Whose it is.
    pub provider: String,
    /// Words of which one stands shortly before the value; none when the shape alone tells.
    pub near: Vec<String>,
    /// Whether the value alone proves nothing: a client id, an account's name.
    pub is_weak: bool,
    pub(super) shapes: Vec<Shape>,
    pub(super) edges: Edges,
    /// Least Shannon entropy of the value, in bits a byte.
    pub(super) entropy: f32,
    /// How the provider's checksum is made, if there is one.
    pub(super) checksum: Option<Checksum>,
}

/// A checksum in the token. It raises confidence and excuses nothing: a value is found with a wrong one as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// The last six characters are the CRC-32 of what is before them and after the prefix, in base 62.
    Crc32,
}

impl Format {
    /// Whether the value has the provider's checksum, so that it is no chance.
    pub(super) fn has_checksum(&self, value: &[u8]) -> bool {
        match self.checksum {
            None => false,
            Some(Checksum::Crc32) => {
                let body = value.iter().rposition(|byte| *byte == b'_').map_or(value, |at| &value[at + 1..]);
                body.split_last_chunk::<6>().is_some_and(|(body, last)| base62(crc32fast::hash(body)) == *last)
            }
        }
    }
}

/// Six digits of base 62, in the order `0-9A-Za-z`.
fn base62(mut number: u32) -> [u8; 6] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = [b'0'; 6];
    for place in text.iter_mut().rev() {
        *place = DIGITS[usize::try_from(number % 62).unwrap_or_default()];
        number /= 62;
    }
    text
}

/// A mistake in a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct Mistake {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

const DIGIT: Set = Set::NONE.range(b'0', b'9');
const XDIGIT: Set = DIGIT.range(b'a', b'f').range(b'A', b'F');
const ALPHA: Set = Set::NONE.range(b'A', b'Z').range(b'a', b'z');
const ALNUM: Set = ALPHA.range(b'0', b'9');
/// No token is longer than this.
const LENGTH_MAX: usize = 4096;

/// A class by its name.
fn class(name: &str) -> Option<Set> {
    Some(match name {
        "upper" => Set::NONE.range(b'A', b'Z'),
        "lower" => Set::NONE.range(b'a', b'z'),
        "digit" => DIGIT,
        "alpha" => ALPHA,
        "alnum" => ALNUM,
        "lowernum" => DIGIT.range(b'a', b'z'),
        "uppernum" => DIGIT.range(b'A', b'Z'),
        "hex" => DIGIT.range(b'a', b'f'),
        "xdigit" => XDIGIT,
        "base32" => Set::NONE.range(b'A', b'Z').range(b'2', b'7'),
        "word" => ALNUM.with(b'_'),
        "url" => ALNUM.with(b'_').with(b'-'),
        "base64" => ALNUM.with(b'+').with(b'/'),
        "visible" => Set::NONE.range(b'!', b'~').without(b'"').without(b'\'').without(b'`'),
        _ => return None,
    })
}

/// Reads a catalogue.
pub(super) fn read(text: &str) -> Result<Vec<Format>, Mistake> {
    let mut formats: Vec<Format> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mistake = |what: String| Mistake { line: index + 1, what };
        let told = line.trim_end();
        if told.trim_start().is_empty() || told.starts_with('#') {
            continue;
        }
        let Some(property) = told.strip_prefix("  ") else {
            let (id, provider) = told.split_once(": ").ok_or_else(|| mistake("`ID: PROVIDER` is expected".into()))?;
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
                return Err(mistake(format!("`{id}` is no id of small letters, digits and `_`")));
            }
            if formats.iter().any(|format| format.id == id) {
                return Err(mistake(format!("`{id}` is there twice")));
            }
            formats.push(Format {
                id: id.to_owned(),
                provider: provider.to_owned(),
                near: Vec::new(),
                is_weak: false,
                shapes: Vec::new(),
                edges: Edges::default(),
                entropy: 0.0,
                checksum: None,
            });
            continue;
        };
        let format = formats.last_mut().ok_or_else(|| mistake("no `ID: PROVIDER` stands before it".into()))?;
        property_of(format, property.trim()).map_err(mistake)?;
    }
    for format in &mut formats {
        finish(format).map_err(|what| Mistake { line: text.lines().count(), what })?;
    }
    Ok(formats)
}

fn property_of(format: &mut Format, property: &str) -> Result<(), String> {
    let (word, rest) = property.split_once(' ').ok_or_else(|| format!("`{property}` has no value"))?;
    match (word, rest) {
        ("=", shape) => format.shapes.extend(shapes(shape)?),
        ("near", words) => {
            for word in words.split(',').map(str::trim) {
                if word.len() < 3 || word.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(format!("`{word}` is no companion: three bytes or more, in small letters"));
                }
                format.near.push(word.to_owned());
            }
        }
        ("tier", "suspicion") => format.is_weak = true,
        ("checksum", "crc32") => format.checksum = Some(Checksum::Crc32),
        ("left", "any") => format.edges.left_any = true,
        ("right", "any") => format.edges.right_any = true,
        ("entropy", bits) => format.entropy = bits.parse().map_err(|_| format!("`{bits}` is no number"))?,
        _ => return Err(format!("`{property}` is no property of a format")),
    }
    Ok(())
}

fn finish(format: &mut Format) -> Result<(), String> {
    if format.shapes.is_empty() {
        return Err(format!("`{}` has no shape", format.id));
    }
    if format.near.is_empty() && format.shapes.iter().any(|shape| shape.anchor.is_none()) {
        return Err(format!("`{}` has a shape that nothing could be found by", format.id));
    }
    let squeezed: Vec<_> = format.shapes.iter().filter_map(Shape::squeezed).collect();
    format.shapes.extend(squeezed);
    if !format.near.is_empty() && format.entropy == 0.0 {
        format.entropy = 2.0;
    }
    Ok(())
}

/// A shape with each of its optional parts there or not.
fn shapes(text: &str) -> Result<Vec<Shape>, String> {
    // Of each level the parts so far, once for every choice within it.
    let mut levels: Vec<Vec<Vec<Part>>> = vec![vec![Vec::new()]];
    for word in words(text) {
        let ends = levels.last_mut().ok_or("a `)?` closes nothing")?;
        match word.as_str() {
            "(" => levels.push(vec![Vec::new()]),
            ")?" => {
                let inner = levels.pop().unwrap_or_default();
                let outer = levels.last_mut().ok_or("a `)?` closes nothing")?;
                let with = outer.iter().flat_map(|so_far| inner.iter().map(|more| [&so_far[..], more].concat()));
                let with: Vec<_> = with.collect();
                outer.extend(with);
            }
            "uuid" => ends.iter_mut().for_each(|parts| parts.extend(uuid())),
            word => {
                let part = match word.trim_start_matches('i').starts_with('"') {
                    true => Part::Literal(literals(word)?),
                    false => run(word)?,
                };
                ends.iter_mut().for_each(|parts| parts.push(part.clone()));
            }
        }
    }
    match levels.pop() {
        Some(ends) if levels.is_empty() && ends.iter().all(|parts| !parts.is_empty()) => {
            Ok(ends.into_iter().map(Shape::new).collect())
        }
        Some(_) if levels.is_empty() => Err("the shape may be empty".into()),
        _ => Err("a `(` is not closed".into()),
    }
}

/// [RFC 9562 §4](https://www.rfc-editor.org/rfc/rfc9562#section-4), in either case.
fn uuid() -> Vec<Part> {
    let run = |count| Part::Run { set: XDIGIT, min: count, max: count };
    let dash = || Part::Literal(vec![Literal { text: b"-".to_vec(), any_case: false }]);
    vec![run(8), dash(), run(4), dash(), run(4), dash(), run(4), dash(), run(12)]
}

fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        quoted ^= c == '"';
        if c == ' ' && !quoted {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        } else {
            word.push(c);
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// `"a"|i"b"`: a `|` parts them, and within quotes it is a character like any other.
fn literals(word: &str) -> Result<Vec<Literal>, String> {
    let (mut literals, mut rest) = (Vec::new(), word);
    loop {
        let any_case = rest.starts_with('i');
        let quoted = rest.strip_prefix('i').unwrap_or(rest).strip_prefix('"');
        let Some((text, after)) = quoted.and_then(|quoted| quoted.split_once('"')) else {
            return Err(format!("`{word}` is no literal"));
        };
        if text.is_empty() || !text.is_ascii() {
            return Err(format!("`{word}` has a literal that is empty or not ASCII"));
        }
        literals.push(Literal { text: text.as_bytes().to_vec(), any_case });
        match after.strip_prefix('|') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(literals),
            None => return Err(format!("`{word}`: a `|` is missing between two literals")),
        }
    }
}

fn run(word: &str) -> Result<Part, String> {
    let wrong = || format!("`{word}` is no part of a shape");
    let (name, counts) = word.rsplit_once('{').ok_or_else(wrong)?;
    let counts = counts.strip_suffix('}').ok_or_else(wrong)?;
    let (min, max) = match counts.split_once(',') {
        None => (counts, counts),
        Some((min, "")) => (min, "4096"),
        Some(both) => both,
    };
    let (min, max) = (min.parse().map_err(|_| wrong())?, max.parse().map_err(|_| wrong())?);
    let set = match name.strip_prefix('[').and_then(|set| set.strip_suffix(']')) {
        Some(set) => bracket(set).ok_or_else(wrong)?,
        None => class(name).ok_or_else(wrong)?,
    };
    if min > max || max == 0 || max > LENGTH_MAX {
        return Err(wrong());
    }
    Ok(Part::Run { set, min, max })
}

fn bracket(text: &str) -> Option<Set> {
    let bytes = text.as_bytes();
    let (mut set, mut at) = (Set::NONE, 0);
    while at < bytes.len() {
        match bytes.get(at + 1..at + 3) {
            Some([b'-', last]) if bytes[at] <= *last => {
                set = set.range(bytes[at], *last);
                at += 3;
            }
            Some([b'-', _]) => return None,
            _ => {
                set = set.with(bytes[at]);
                at += 1;
            }
        }
    }
    (at > 0).then_some(set)
}
