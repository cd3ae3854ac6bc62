//! Policies: three layers, loaded strictly, kept ready as slices.
//!
//! [`layer`] reads text, [`schema`] says what it can speak about, [`site`] what operators add to that, [`est`] and [`reads`] look
//! into conditions, [`check`] validates, [`load`] does all of this, [`slice`](mod@slice) prepares what one worker and one target
//! need, [`snapshot`] holds it all together, and [`probe`] refuses a snapshot that allows what must never be allowed.

mod case;
pub mod check;
mod compile;
mod context;
pub(crate) mod entities;
pub mod est;
pub mod layer;
pub mod level;
pub mod load;
pub mod probe;
pub mod reads;
pub mod schema;
pub mod shape;
pub mod site;
pub mod slice;
pub mod snapshot;
mod targets;
mod text;

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It keeps policies from being loaded.
    #[default]
    Error,
    /// It loads, and hardly means what was meant.
    Warning,
}

impl Severity {
    fn is_error(&self) -> bool {
        *self == Severity::Error
    }
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub offset: usize,
    /// How many.
    pub length: usize,
}

/// What is wrong with policies: what, where, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable code.
    pub code: String,
    /// Whether it keeps them from being loaded. Absent in JSON when it does.
    #[serde(default, skip_serializing_if = "Severity::is_error")]
    pub severity: Severity,
    /// The file, relative to the policy folder.
    pub file: String,
    /// From 1; 0 when it concerns no line.
    pub line: usize,
    /// From 1; 0 when it concerns no column.
    pub column: usize,
    /// The bytes it is about; absent when it concerns none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// The policy's `@id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        let weight = if self.severity.is_error() { "" } else { "warning: " };
        write!(f, ": {weight}{}", self.message)?;
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

impl Problem {
    /// One that concerns no place in a file.
    pub fn general(message: impl Into<String>) -> Self {
        Self { code: "snapshot".into(), file: "policies".into(), message: message.into(), ..Self::default() }
    }

    /// One about a span of `file`.
    pub fn at(file: &layer::SourceFile, span: Span, code: &str, message: impl Into<String>) -> Self {
        let (line, column) = place(&file.text, span.offset);
        Self {
            code: code.into(),
            file: file.name.clone(),
            line,
            column,
            span: Some(span),
            message: message.into(),
            ..Self::default()
        }
    }

    /// One about a rule as a whole.
    pub fn of(rule: &layer::Rule, code: &str, message: impl Into<String>, help: Option<String>) -> Self {
        Self {
            code: code.into(),
            file: rule.file.clone(),
            line: rule.line,
            column: 1,
            span: Some(rule.span),
            policy: Some(rule.policy.id().to_string()),
            message: message.into(),
            help,
            ..Self::default()
        }
    }
}

impl Problem {
    /// Points at where `text` stands in the rule, when it stands there once.
    fn narrow_to(&mut self, rule: &layer::Rule, text: &str) {
        let Some(source) = rule.policy.to_cedar() else { return };
        let mut found = source.match_indices(text);
        if let (Some((at, _)), None) = (found.next(), found.next()) {
            self.narrow(rule, Span { offset: rule.span.offset + at, length: text.len() });
        }
    }

    /// Points at a span of the rule's file.
    fn narrow(&mut self, rule: &layer::Rule, span: Span) {
        let Some(source) = rule.policy.to_cedar() else { return };
        let Some(inside) = span.offset.checked_sub(rule.span.offset).filter(|inside| *inside <= source.len()) else {
            return;
        };
        let (line, column) = place(&source, inside);
        // A rule starts at the beginning of its line, as good as always.
        (self.line, self.column, self.span) = (rule.line + line - 1, column, Some(span));
    }
}

/// The name of `known` that is most like `name`, when one is like it at all.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    const ALIKE: f64 = 0.8;
    let rated = known.into_iter().map(|other| (strsim::jaro_winkler(name, other), other));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(alike, _)| *alike >= ALIKE).map(|(_, other)| other)
}

/// From byte offset to line and column, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}
