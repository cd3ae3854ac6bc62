//! What is wrong with a document, and where.

use serde::Serialize;
use serde_json::Value;

/// A value in a message is at most this long, in characters.
pub const SHOWN_MAX: usize = 80;
/// More problems of one document are not listed.
pub const PROBLEMS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where: a JSON pointer ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)). A segment that is very long is cut.
    pub pointer: String,
    /// What, with the offending value, cut at [`SHOWN_MAX`] characters.
    pub message: String,
}

/// The problems found so far; those after [`PROBLEMS_MAX`] are let go.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn push(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < PROBLEMS_MAX {
            self.0.push(Problem { pointer: pointer.into(), message: message.into() });
        }
    }

    /// Adds several.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        let room = PROBLEMS_MAX.saturating_sub(self.0.len());
        self.0.extend(problems.into_iter().take(room));
    }

    /// `value`, unless something was found.
    pub fn or<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A value as a message shows it: scalars as JSON text, lists and objects only as what they are.
pub fn shown(value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => shown_text(text),
        Some(Value::Array(items)) => format!("a list of {}", items.len()),
        Some(Value::Object(members)) => format!("an object of {}", members.len()),
        Some(scalar) => cut(&scalar.to_string()),
    }
}

/// A text as a message shows it: quoted, escaped, and cut.
pub fn shown_text(text: &str) -> String {
    // What is cut off anyway is not escaped first: it may be megabytes.
    let head: String = text.chars().take(SHOWN_MAX).collect();
    cut(&Value::String(head).to_string())
}

/// `pointer` and one more segment.
pub fn join(pointer: &str, segment: &str) -> String {
    format!("{pointer}/{}", cut(segment).replace('~', "~0").replace('/', "~1"))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => text.to_owned(),
        Some(_) => text.chars().take(SHOWN_MAX - 1).chain(['…']).collect(),
    }
}
