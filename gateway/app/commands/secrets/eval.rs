//! `warden secrets eval`: what the catalogue, or a pack, finds of labelled texts.

use super::super::{say, table};
use crate::cli::Global;
use crate::exit::{Failure, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use warden_adapters::keys;
use warden_adapters::secrets::packs::{self, Pack};
use warden_core::json::{self, Limits};
use warden_core::mac::MacKey;
use warden_core::secrets::{Engine, Scan, Scanner, Sources};

/// A labelled text.
#[derive(Deserialize)]
struct Row {
    source: String,
    label: Label,
    text_b64: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Label {
    /// It holds a secret value.
    Secret,
    /// It nearly does: a negative of one rule.
    NearMiss,
    /// It holds what names something and grants nothing.
    Identifier,
    /// A payload of ordinary work.
    Real,
}

#[derive(Default)]
struct Count {
    n: u64,
    refused: u64,
    suspected: u64,
}

impl Count {
    fn add(&mut self, scan: &Scan) {
        self.n += 1;
        self.refused += u64::from(!scan.is_clean());
        self.suspected += u64::from(scan.is_clean() && !scan.suspicions.is_empty());
    }

    fn json(&self) -> serde_json::Value {
        json!({ "n": self.n, "refused": self.refused, "suspected": self.suspected })
    }

    fn row(&self, name: &str) -> Vec<String> {
        let share = |count: u64| if self.n == 0 { "-".into() } else { format!("{:.3}", count as f64 / self.n as f64) };
        let (refused, either) = (share(self.refused), share(self.refused + self.suspected));
        vec![name.to_owned(), self.n.to_string(), self.refused.to_string(), self.suspected.to_string(), refused, either]
    }
}

/// Scans every row and counts, by source.
pub(super) fn run(global: &Global, file: &Path, packs: &[PathBuf], packs_only: bool) -> Outcome {
    let packs: Vec<_> = packs.iter().map(|file| Pack { file: file.clone(), is_weak: false }).collect();
    let rules = packs::read(&packs).map_err(Failure::invalid)?;
    let owners: Vec<_> = rules.iter().map(|rule| (rule.file.clone(), rule.rule.id.clone())).collect();
    let key = MacKey::new("eval", keys::random()?);
    let rules = rules.into_iter().map(|rule| rule.rule).collect();
    let sources = Sources { rules, without_catalogue: packs_only, ..Sources::default() };
    let engine = Engine::new(sources, [0; 56], &key).map_err(|e| Failure::invalid(packs::named(e, &owners)))?;
    let scanner = Scanner::new(engine, key);
    let rows = rows(file)?;
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} texts {eta}").map_err(Failure::failed)?;
    let bar = ProgressBar::new(rows.len() as u64).with_style(style);
    let mut sources: BTreeMap<String, Count> = BTreeMap::new();
    let (mut real, mut near, mut identifiers) = (Count::default(), Count::default(), Count::default());
    for (number, row) in rows.iter().enumerate() {
        let wrong = |what: &str| Failure::invalid(format!("`{}`: line {}: {what}", file.display(), number + 1));
        let text = STANDARD.decode(&row.text_b64).map_err(|_| wrong("`text_b64` is not base64"))?;
        let limits = Limits { bytes_max: usize::MAX, depth_max: 128 };
        let scan = match json::parse(&text, limits) {
            Ok(json) => scanner.scan(&json, ""),
            Err(_) => scanner.scan_text(&String::from_utf8_lossy(&text), ""),
        };
        match row.label {
            Label::Secret => sources.entry(row.source.clone()).or_default(),
            Label::Real => &mut real,
            Label::NearMiss => &mut near,
            Label::Identifier => &mut identifiers,
        }
        .add(&scan);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if global.json {
        let sources: BTreeMap<_, _> = sources.iter().map(|(name, count)| (name, count.json())).collect();
        say(json!({
            "sources": sources, "real": real.json(), "near_miss": near.json(), "identifier": identifiers.json(),
        }));
        return Ok(0);
    }
    let head = ["", "TEXTS", "REFUSED", "SUSPECTED", "REFUSED/TEXTS", "EITHER/TEXTS"].map(str::to_owned).to_vec();
    let found = sources.iter().map(|(name, count)| count.row(name));
    let others = [("(real payloads)", &real), ("(near misses)", &near), ("(identifiers)", &identifiers)];
    let others = others.into_iter().map(|(name, count)| count.row(name));
    say(table(&std::iter::once(head).chain(found).chain(others).collect::<Vec<_>>()));
    Ok(0)
}

fn rows(file: &Path) -> Result<Vec<Row>, Failure> {
    let wrong = |what: String| Failure::invalid(format!("`{}`: {what}", file.display()));
    let opened = std::fs::File::open(file).map_err(|e| wrong(e.to_string()))?;
    let reader: Box<dyn Read> = match file.extension().is_some_and(|extension| extension == "gz") {
        true => Box::new(flate2::read::MultiGzDecoder::new(opened)),
        false => Box::new(opened),
    };
    let mut rows = Vec::new();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.map_err(|e| wrong(format!("line {}: {e}", number + 1)))?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Result<Row, _> = serde_json::from_str(&line);
        rows.push(row.map_err(|_| {
            wrong(format!(
                "line {}: a row has `source`, `label` (secret, near_miss, identifier, real) and `text_b64`",
                number + 1
            ))
        })?);
    }
    Ok(rows)
}
