//! Counts of decisions, without reading one.

use super::View;
use super::block::Index;
use super::find::{mask_of, offsets};
use super::query::Query;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io;

/// How many decisions, by what. A query's values in columns are compared by a short hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// All of them.
    pub decisions: u64,
    /// By verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// By `SERVER/TOOL`; where there is no tool, by action.
    pub tools: BTreeMap<String, u64>,
    /// By deciding policy; a decision may have several.
    pub policies: BTreeMap<String, u64>,
    /// By reason code.
    pub reasons: BTreeMap<String, u64>,
    /// By worker.
    pub workers: BTreeMap<String, u64>,
}

/// Counts the decisions that match.
pub fn stats(view: &View, query: &Query) -> io::Result<Stats> {
    let query = Query { kind: Some("decision".into()), ..query.clone() };
    let pending = view.lock();
    let mut masks = HashMap::new();
    for first in view.blocks()? {
        if let Some(mask) = view.mask(&query, first)? {
            masks.insert(first, mask);
        }
    }
    let last = mask_of(&query, &pending);
    let count = |index: Index| -> io::Result<BTreeMap<String, u64>> {
        let mut counts = BTreeMap::new();
        let prefix = [b'p', index.letter()];
        for entry in view.db.scan_prefix(prefix) {
            let (key, value) = entry?;
            let Some(mask) = super::block_of(&key).and_then(|block| masks.get(&block)) else { continue };
            let among = offsets(&value).filter(|offset| mask.has(*offset)).count() as u64;
            if among > 0 {
                let name = String::from_utf8_lossy(&key[prefix.len()..key.len() - 9]).into_owned();
                *counts.entry(name).or_default() += among;
            }
        }
        for ((_, value), offsets) in pending.postings.iter().filter(|((letter, _), _)| *letter == index.letter()) {
            let among = offsets.iter().filter(|offset| last.has(**offset)).count() as u64;
            if among > 0 {
                *counts.entry(value.clone()).or_default() += among;
            }
        }
        Ok(counts)
    };
    let verdicts = count(Index::Verdict)?;
    Ok(Stats {
        decisions: verdicts.values().sum(),
        verdicts,
        tools: count(Index::Tool)?,
        policies: count(Index::Policy)?,
        reasons: count(Index::Reason)?,
        workers: count(Index::Worker)?,
    })
}
