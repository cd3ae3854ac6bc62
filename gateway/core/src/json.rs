//! JSON read strictly: no member twice at any depth, numbers as they were written, bounded depth and size.
//!
//! `serde_json::Value` keeps the last of two equal members while another reader may keep the first, and it rounds
//! what does not fit a float. Either would let an upstream see another argument than policy did, so the bytes
//! that are forwarded must have exactly one meaning ([RFC 8259 §4](https://www.rfc-editor.org/rfc/rfc8259#section-4)).

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

/// One JSON value. Objects keep the order of their members; numbers keep their text.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number exactly as written, for example `1.50` or `9223372036854775808`.
    Number(String),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; every name occurs once.
    Object(Vec<(String, Json)>),
}

/// How much is read before giving up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest text, in bytes.
    pub bytes_max: usize,
    /// The deepest nesting; a scalar has depth 0.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 4 << 20, depth_max: 64 }
    }
}

/// Why a text is not accepted. The value itself is never part of the message: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`Limits::bytes_max`].
    #[error("{bytes} bytes of JSON, and at most {bytes_max} are read")]
    TooLong {
        /// The text's length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Deeper than [`Limits::depth_max`].
    #[error("JSON nested deeper than {depth_max} levels at `{pointer}`")]
    TooDeep {
        /// The limit.
        depth_max: usize,
        /// JSON pointer ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)) of the place.
        pointer: String,
    },
    /// The same member twice in one object.
    #[error("member `{pointer}` is there twice")]
    Duplicate {
        /// JSON pointer of the member.
        pointer: String,
    },
    /// Not UTF-8.
    #[error("not UTF-8 after byte {valid_up_to}")]
    NotUtf8 {
        /// Bytes that were still well formed.
        valid_up_to: usize,
    },
    /// Not JSON.
    #[error("not JSON: {what} at line {line}, column {column}")]
    Syntax {
        /// What the parser met, without the text.
        what: &'static str,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
}

/// Reads one JSON value and nothing after it.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Json, Error> {
    let text = text(bytes, limits)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| syntax(&e))?;
    read(raw.get(), &mut String::new(), 0, limits)
}

/// The same as a plain value, for documents that are kept or handed on: numbers are numbers.
pub fn document(bytes: &[u8], limits: Limits) -> Result<serde_json::Value, Error> {
    parse(bytes, limits)?;
    serde_json::from_slice(bytes).map_err(|e| syntax(&e))
}

/// The members of one JSON object with the exact text of each, unread. Refuses a name that is there twice.
pub fn members(bytes: &[u8], limits: Limits) -> Result<Vec<(String, &str)>, Error> {
    let text = text(bytes, limits)?;
    object(text, &mut String::new())
}

/// Reads the text of one value that [`members`] returned; `at` is its place, for messages.
pub fn parse_at(text: &str, at: &str, limits: Limits) -> Result<Json, Error> {
    let mut pointer = at.to_owned();
    read(text, &mut pointer, at.matches('/').count(), limits)
}

/// The text of an object with one more member, which it does not have yet.
pub fn with_member(text: &str, name: &str, value: &str) -> Option<String> {
    let (before, after) = text.split_at(text.find('{')? + 1);
    let name = serde_json::Value::from(name);
    let comma = if after.trim_start().starts_with('}') { "" } else { "," };
    Some(format!("{before}{name}:{value}{comma}{after}"))
}

/// `text` with the value at `path`, member by member (or item by item) from the outermost, replaced by `by` and every other byte as it was.
/// Nothing when there is no such value.
pub fn replaced(text: &str, path: &[&str], by: &str) -> Option<String> {
    let mut place = text;
    for step in path {
        place = match place.trim_start().as_bytes().first()? {
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(place).ok()?;
                items.get(step.parse::<usize>().ok()?)?.get()
            }
            _ => object(place, &mut String::new()).ok()?.into_iter().find(|(name, _)| name == step)?.1,
        };
    }
    // `place` is a part of `text`, so its address says where.
    let start = (place.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some([text.get(..start)?, by, text.get(start + place.len()..)?].concat())
}

impl Json {
    /// The member `name` of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same with the members of every object in the order of their names.
    #[must_use]
    pub fn sorted(&self) -> Json {
        match self {
            Json::Array(items) => Json::Array(items.iter().map(Json::sorted).collect()),
            Json::Object(members) => {
                let mut members: Vec<_> = members.iter().map(|(name, value)| (name.clone(), value.sorted())).collect();
                members.sort_by(|(a, _), (b, _)| a.cmp(b));
                Json::Object(members)
            }
            other => other.clone(),
        }
    }

    /// Calls `see` with every string of the value, member names included, and the pointer of each.
    pub fn each_string(&self, pointer: &mut String, see: &mut impl FnMut(&str, &str)) {
        let end = pointer.len();
        match self {
            Json::String(text) => see(pointer, text),
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    push_pointer(pointer, &index.to_string());
                    item.each_string(pointer, see);
                    pointer.truncate(end);
                }
            }
            Json::Object(members) => {
                for (name, value) in members {
                    push_pointer(pointer, name);
                    see(pointer, name);
                    value.each_string(pointer, see);
                    pointer.truncate(end);
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }

    /// The same value for serde. A number too large for 64 bits becomes its text, never a rounded one.
    pub fn to_value(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(text) => match text.parse::<i64>() {
                Ok(n) => Value::from(n),
                Err(_) => Value::from(text.as_str()),
            },
            Json::String(text) => Value::from(text.as_str()),
            Json::Array(items) => items.iter().map(Json::to_value).collect(),
            Json::Object(members) => Value::Object(members.iter().map(|(n, v)| (n.clone(), v.to_value())).collect()),
        }
    }
}

/// As JSON, numbers as they were written.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(b) => serializer.serialize_bool(*b),
            Json::Number(text) => {
                RawValue::from_string(text.clone()).map_err(serde::ser::Error::custom)?.serialize(serializer)
            }
            Json::String(text) => serializer.serialize_str(text),
            Json::Array(items) => serializer.collect_seq(items),
            Json::Object(members) => serializer.collect_map(members.iter().map(|(name, value)| (name, value))),
        }
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::Number(number) => Json::Number(number.to_string()),
            Value::String(text) => Json::String(text.clone()),
            Value::Array(items) => Json::Array(items.iter().map(Json::from).collect()),
            Value::Object(members) => {
                Json::Object(members.iter().map(|(name, value)| (name.clone(), Json::from(value))).collect())
            }
        }
    }
}

/// Of a text that [`Json`] was written to.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = Box::deserialize(deserializer)?;
        let limits = Limits { bytes_max: usize::MAX, depth_max: 256 };
        parse(raw.get().as_bytes(), limits).map_err(de::Error::custom)
    }
}

/// Appends one step to a JSON pointer.
pub fn push_pointer(pointer: &mut String, step: &str) {
    pointer.push('/');
    for c in step.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

fn text(bytes: &[u8], limits: Limits) -> Result<&str, Error> {
    if bytes.len() > limits.bytes_max {
        return Err(Error::TooLong { bytes: bytes.len(), bytes_max: limits.bytes_max });
    }
    std::str::from_utf8(bytes).map_err(|e| Error::NotUtf8 { valid_up_to: e.valid_up_to() })
}

/// Each nested value is skipped once and then read, so the work is at most depth times length.
fn read(text: &str, pointer: &mut String, depth: usize, limits: Limits) -> Result<Json, Error> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r']);
    let end = pointer.len();
    let nested = matches!(text.as_bytes().first(), Some(b'{' | b'['));
    if nested && depth >= limits.depth_max {
        return Err(Error::TooDeep { depth_max: limits.depth_max, pointer: pointer.clone() });
    }
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let mut members = Vec::new();
            for (name, raw) in object(text, pointer)? {
                push_pointer(pointer, &name);
                let value = read(raw, pointer, depth + 1, limits)?;
                pointer.truncate(end);
                members.push((name, value));
            }
            Json::Object(members)
        }
        Some(b'[') => {
            let raws: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| syntax(&e))?;
            let mut items = Vec::with_capacity(raws.len());
            for (index, raw) in raws.into_iter().enumerate() {
                push_pointer(pointer, &index.to_string());
                items.push(read(raw.get(), pointer, depth + 1, limits)?);
                pointer.truncate(end);
            }
            Json::Array(items)
        }
        Some(b'"') => Json::String(serde_json::from_str(text).map_err(|e| syntax(&e))?),
        Some(b't') => Json::Bool(true),
        Some(b'f') => Json::Bool(false),
        Some(b'n') => Json::Null,
        _ => Json::Number(text.trim_end().to_owned()),
    })
}

/// The members of an object. Names are compared after unescaping, so `a` and `\u0061` are one name.
fn object<'t>(text: &'t str, pointer: &mut String) -> Result<Vec<(String, &'t str)>, Error> {
    let mut duplicate = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = Members { duplicate: &mut duplicate }
        .deserialize(&mut reader)
        .and_then(|members| reader.end().map(|()| members));
    if let Some(name) = duplicate {
        push_pointer(pointer, &name);
        return Err(Error::Duplicate { pointer: pointer.clone() });
    }
    members.map_err(|e| syntax(&e))
}

fn syntax(e: &serde_json::Error) -> Error {
    use serde_json::error::Category;
    let what = match e.classify() {
        Category::Eof => "the text ends too early",
        Category::Data => "not what is expected there",
        Category::Syntax | Category::Io => "a syntax error",
    };
    Error::Syntax { what, line: e.line(), column: e.column() }
}

struct Members<'a> {
    duplicate: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = Vec<(String, &'de str)>;

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<(String, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, &'de str)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
            if !names.insert(name.clone()) {
                *self.duplicate = Some(name);
                return Err(de::Error::custom("duplicate member"));
            }
            members.push((name, raw.get()));
        }
        Ok(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(de::Error::custom("an array"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Json, Error> {
        parse(text.as_bytes(), Limits { bytes_max: 1 << 16, depth_max: 8 })
    }

    #[test]
    fn numbers_keep_their_text() {
        for n in ["0", "-1", "1.50", "1e400", "123456789012345678901234567890"] {
            assert_eq!(check(n), Ok(Json::Number(n.into())));
        }
        assert!(check("01").is_err() && check("+1").is_err() && check("NaN").is_err());
    }

    #[test]
    fn a_member_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"x":[{"a":1,"a":2}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(matches!(check(text), Err(Error::Duplicate { .. })), "{text}");
        }
        assert_eq!(check(r#"{"x":[{"a":1,"a":2}]}"#), Err(Error::Duplicate { pointer: "/x/0/a".into() }));
    }

    #[test]
    fn x15_depth_and_length_are_bounded() {
        assert!(check(&format!("{}1{}", "[".repeat(8), "]".repeat(8))).is_ok());
        assert!(matches!(check(&format!("{}1{}", "[".repeat(9), "]".repeat(9))), Err(Error::TooDeep { .. })));
        assert!(matches!(check(&"[".repeat(60_000)), Err(Error::Syntax { .. })));
        assert!(matches!(check(&format!("\"{}\"", "a".repeat(1 << 16))), Err(Error::TooLong { .. })));
    }

    #[test]
    fn one_value_is_replaced_and_no_other_byte() {
        let text = " {\"id\" : 1.0,\n\"params\":{\"_meta\":{\"progressToken\": \"a\" },\"x\":1e2}} ";
        let by = replaced(text, &["params", "_meta", "progressToken"], "7").unwrap();
        assert_eq!(by, " {\"id\" : 1.0,\n\"params\":{\"_meta\":{\"progressToken\": 7 },\"x\":1e2}} ");
        assert_eq!(replaced(text, &["params", "none"], "7"), None);
        assert_eq!(replaced(text, &["id", "x"], "7"), None);
    }

    #[test]
    fn bad_text_says_where_and_not_what() {
        assert_eq!(parse(b"\"\xff\"", Limits::default()), Err(Error::NotUtf8 { valid_up_to: 1 }));
        let message = check("{\"hunter2\": tru}").unwrap_err().to_string();
        assert!(!message.contains("hunter2"), "{message}");
        for text in ["", "{} {}", "{\"a\" 1}", "tru", "\"\\ud800\"", "[1,]"] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_serde_reads_without_duplicates_reads_the_same(text in "[\\[\\]{}\",:0-9a-z.\\-e \\\\u]{0,40}") {
            if let Ok(ours) = check(&text) {
                let theirs: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                if let Json::Object(members) = &ours {
                    proptest::prop_assert_eq!(members.len(), theirs.as_object().map_or(0, serde_json::Map::len));
                }
            }
        }
    }
}
