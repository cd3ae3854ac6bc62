//! The decoded strings of a JSON value, one after another in one text: nested JSON is read as what it stands for.

use crate::json::{Json, push_pointer};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::ops::Range;

/// A string of the value.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// Where it lies in the text.
    pub(super) span: Range<usize>,
    /// Which string it is, counted as [`Json::each_string`] goes.
    pub(super) number: usize,
    /// Whether it is a member's name.
    pub(super) is_name: bool,
    /// Whether it is a string of JSON that stands in a string.
    pub(super) is_nested: bool,
}

/// A file in a string, whose first bytes are those of its type: its base64 is scanned decoded, and not as text.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) number: usize,
    pub(super) bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// `NAME=` and `VALUE\n`: as an assignment would stand in a text.
    pub(super) text: Vec<u8>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) blobs: Vec<Blob>,
    strings: usize,
}

/// JSON in JSON in JSON: deeper than this it is read as text.
const NESTED_MAX: usize = 4;
/// Shorter texts are no JSON worth reading.
const NESTED_MIN: usize = 8;
/// Shorter files are scanned as text.
const BLOB_MIN: usize = 256;

impl Document {
    /// One string.
    pub(super) fn of_text(text: &str) -> Self {
        let mut document = Self::default();
        document.leaf(text, false);
        document
    }

    /// A text that is not yet complete, as it stands.
    pub(super) fn unfinished(text: &[u8]) -> Self {
        let leaf = Leaf { span: 0..text.len(), number: 0, is_name: false, is_nested: false };
        Self { text: text.to_vec(), leaves: vec![leaf], ..Self::default() }
    }

    pub(super) fn of(json: &Json) -> Self {
        let mut document = Self::default();
        document.walk(json);
        document
    }

    fn walk(&mut self, json: &Json) {
        match json {
            Json::String(text) => self.leaf(text, false),
            Json::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Json::Object(members) => {
                for (name, value) in members {
                    self.leaf(name, true);
                    match (value, blob(json, name, value)) {
                        (Json::String(_), Some(bytes)) => {
                            self.blobs.push(Blob { number: self.strings, bytes });
                            self.strings += 1;
                        }
                        _ => self.walk(value),
                    }
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }

    fn leaf(&mut self, text: &str, is_name: bool) {
        let number = self.strings;
        self.strings += 1;
        let (mark, leaves) = (self.text.len(), self.leaves.len());
        let inner = text.trim_start();
        let is_json = inner.len() >= NESTED_MIN && matches!(inner.as_bytes().first(), Some(b'{' | b'[' | b'"'));
        if is_json && self.nested(inner, number, 1) {
            return;
        }
        self.text.truncate(mark);
        self.leaves.truncate(leaves);
        self.push(text, number, is_name, false);
    }

    fn push(&mut self, text: &str, number: usize, is_name: bool, is_nested: bool) {
        let start = self.text.len();
        self.text.extend_from_slice(text.as_bytes());
        self.leaves.push(Leaf { span: start..self.text.len(), number, is_name, is_nested });
        self.text.push(if is_name { b'=' } else { b'\n' });
    }

    /// Reads `text` as JSON. Whether it is some.
    fn nested(&mut self, text: &str, number: usize, depth: usize) -> bool {
        let mut reader = serde_json::Deserializer::from_str(text);
        Nested { document: self, number, depth }.deserialize(&mut reader).and_then(|()| reader.end()).is_ok()
    }

    /// The leaf that `at` of the text belongs to.
    pub(super) fn leaf_at(&self, at: usize) -> Option<&Leaf> {
        let next = self.leaves.partition_point(|leaf| leaf.span.start <= at);
        self.leaves.get(next.checked_sub(1)?)
    }
}

/// The pointers of these strings of `json`, by their numbers, in one walk.
pub(super) fn pointers(json: &Json, numbers: &[usize]) -> Vec<String> {
    let mut wanted: Vec<(usize, usize)> =
        numbers.iter().copied().enumerate().map(|(place, number)| (number, place)).collect();
    wanted.sort_unstable();
    let mut walk = Walk { wanted: &wanted, found: vec![String::new(); numbers.len()], next: 0, path: Vec::new() };
    walk.value(json);
    walk.found
}

enum Place<'j> {
    Member(&'j str),
    Item(usize),
}

struct Walk<'j, 'w> {
    /// Numbers of strings, ascending, and the places of their pointers.
    wanted: &'w [(usize, usize)],
    found: Vec<String>,
    next: usize,
    path: Vec<Place<'j>>,
}

impl<'j> Walk<'j, '_> {
    fn value(&mut self, json: &'j Json) {
        match json {
            _ if self.wanted.is_empty() => {}
            Json::String(_) => self.string(),
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push(Place::Item(index));
                    self.value(item);
                    self.path.pop();
                }
            }
            Json::Object(members) => {
                for (name, value) in members {
                    self.path.push(Place::Member(name));
                    self.string();
                    self.value(value);
                    self.path.pop();
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }

    /// A string, or a member's name.
    fn string(&mut self) {
        while let [(number, place), rest @ ..] = self.wanted
            && *number == self.next
        {
            for step in &self.path {
                match step {
                    Place::Member(name) => push_pointer(&mut self.found[*place], name),
                    Place::Item(index) => push_pointer(&mut self.found[*place], &index.to_string()),
                }
            }
            self.wanted = rest;
        }
        self.next += 1;
    }
}

/// The bytes of a file that stands where its type is told beside it: MCP's `image`, `audio` and `blob`, image and file parts of LLM APIs.
fn blob(object: &Json, name: &str, value: &Json) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let text = value.as_str().filter(|text| text.len() >= BLOB_MIN)?;
    let (ty, text) = match name {
        "data" | "blob" => {
            let ty = ["mimeType", "media_type", "mime_type"].into_iter().find_map(|name| object.get(name)?.as_str())?;
            (ty, text)
        }
        "url" | "image_url" | "file_data" => text.strip_prefix("data:")?.split_once(";base64,")?,
        _ => return None,
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    begins_as(&bytes, ty).then_some(bytes)
}

/// Whether a file of this type begins like that.
fn begins_as(bytes: &[u8], ty: &str) -> bool {
    let magic: &[&[u8]] = match ty.split(';').next().unwrap_or_default().trim() {
        "image/png" => &[b"\x89PNG\r\n\x1a\n"],
        "image/jpeg" | "image/jpg" => &[b"\xff\xd8\xff"],
        "image/gif" => &[b"GIF87a", b"GIF89a"],
        "image/webp" | "audio/wav" | "audio/wave" | "audio/x-wav" => &[b"RIFF"],
        "image/bmp" => &[b"BM"],
        "image/tiff" => &[b"II*\0", b"MM\0*"],
        "audio/mpeg" | "audio/mp3" => &[b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"],
        "audio/ogg" | "video/ogg" => &[b"OggS"],
        "audio/flac" => &[b"fLaC"],
        "video/webm" | "audio/webm" => &[b"\x1a\x45\xdf\xa3"],
        "application/pdf" => &[b"%PDF-"],
        "application/gzip" => &[b"\x1f\x8b"],
        "video/mp4" | "audio/mp4" | "image/heic" | "image/avif" => {
            return bytes.get(4..8) == Some(b"ftyp");
        }
        ty if ty == "application/zip" || ty.starts_with("application/vnd.openxmlformats") => &[b"PK\x03\x04"],
        _ => return false,
    };
    magic.iter().any(|magic| bytes.starts_with(magic))
}

struct Nested<'d> {
    document: &'d mut Document,
    number: usize,
    depth: usize,
}

impl Nested<'_> {
    fn again(&mut self) -> Nested<'_> {
        Nested { document: self.document, number: self.number, depth: self.depth }
    }

    fn string(&mut self, text: &str, is_name: bool) {
        let (mark, leaves) = (self.document.text.len(), self.document.leaves.len());
        let inner = text.trim_start();
        let is_json = inner.len() >= NESTED_MIN && matches!(inner.as_bytes().first(), Some(b'{' | b'[' | b'"'));
        if is_json && self.depth < NESTED_MAX && self.document.nested(inner, self.number, self.depth + 1) {
            return;
        }
        self.document.text.truncate(mark);
        self.document.leaves.truncate(leaves);
        self.document.push(text, self.number, is_name, true);
    }
}

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.string(text, false);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<std::borrow::Cow<'_, str>>()? {
            self.string(&name, true);
            members.next_value_seed(self.again())?;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
