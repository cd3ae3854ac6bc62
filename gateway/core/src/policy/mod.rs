//! Policies: three layers, loaded strictly, kept ready as slices.
//!
//! [`layer`] reads text, [`schema`] says what it can speak about, [`site`] what operators add to that, [`est`] looks into conditions, [`slice`](mod@slice) prepares what
//! one worker and one target need, [`snapshot`] holds it all together, and [`probe`] refuses a snapshot that allows
//! what must never be allowed.

pub mod est;
pub mod layer;
pub mod level;
pub mod probe;
pub mod schema;
pub mod site;
pub mod slice;
pub mod snapshot;

use serde::{Deserialize, Serialize};
use std::fmt;

/// Something that keeps policies from being loaded: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable code.
    pub code: String,
    /// The file, relative to the policy folder.
    pub file: String,
    /// From 1; 0 when it concerns no line.
    pub line: usize,
    /// From 1; 0 when it concerns no column.
    pub column: usize,
    /// The policy's `@id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(policy) = &self.policy {
            write!(f, " (policy `{policy}`)")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong at once, so that an author mends it in one go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// From byte offset to line and column, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}
