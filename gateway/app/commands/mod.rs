//! One file a command.

pub mod ack;
pub mod apps;
pub mod audit;
pub mod budget;
pub mod composition;
pub mod decide;
pub mod demo;
pub mod doctor;
pub mod engines;
pub mod hub;
pub mod init;
pub mod mcp;
pub mod operator;
pub mod policy;
pub mod secrets;
pub mod serve;
pub mod session;
pub mod token;
pub mod tools;
pub mod validate;
pub mod worker;

use crate::cli::Global;
use crate::config::Config;
use crate::exit::Failure;
use std::io::Write;
use std::path::PathBuf;
use warden_core::catalogue::is_invisible;

fn config(global: &Global) -> Result<Config, Failure> {
    Ok(Config::load(&global.config, global.data_dir.as_deref())?)
}

/// The data folder alone, for commands that need no more of the configuration.
fn data_dir(global: &Global) -> Result<PathBuf, Failure> {
    match &global.data_dir {
        Some(dir) => Ok(dir.clone()),
        None => Ok(crate::config::data_dir(&global.config)?),
    }
}

/// A time, or how long ago: `7d`, `12h`, `90m`.
fn time(flag: &str, text: Option<String>) -> Result<Option<jiff::Timestamp>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let ago = |span: jiff::Span| {
        let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours())?;
        jiff::Timestamp::now().checked_sub(duration.abs())
    };
    let parsed = text.parse::<jiff::Timestamp>().ok().or_else(|| ago(text.parse().ok()?).ok());
    let refuse = || {
        Failure::invalid(format!(
            "--{flag} `{text}`: give a time such as 2026-01-31T12:00:00Z, or how long ago, such as 7d"
        ))
    };
    parsed.map(Some).ok_or_else(refuse)
}

/// Data goes to stdout. A reader that has gone away ends the talk, not the work.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Talk goes to stderr. Where nobody reads it, or its disk is full, the work goes on.
fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Rows as an aligned table.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// As [`plain`], line by line.
fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Text from a worker or a server, safe for a terminal: nothing in it can move the cursor or turn the direction.
fn plain(text: &str) -> String {
    let shown = |c: char| if is_invisible(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] };
    text.chars().flat_map(shown).collect()
}

/// The items of a list in an answer, none where it is absent.
fn each(of: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    of.as_array().into_iter().flatten()
}

/// A field of an answer as plain text, empty where it is absent.
fn text(of: &serde_json::Value, name: &str) -> String {
    plain(of[name].as_str().unwrap_or_default())
}
