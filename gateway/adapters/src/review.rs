//! One decision as a reviewer wants to see it: with the rules of that time, what came of it, and what stood beside it.

use crate::archive::{self, ArchivedRule};
use crate::journal::Reader;
use crate::keys::Keys;
use crate::view::{self, Found, Query, View};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use warden_core::journal::record::{Body, Record};

/// See the module. Records are as [`shown`] makes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// The decision.
    pub decision: Value,
    /// What really happened; absent when nothing was forwarded, or nobody knows yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Value>,
    /// The yes of a named person to it, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Value>,
    /// The rules that decided, as they stood then.
    pub rules: Vec<ArchivedRule>,
    /// The worker's decisions just before it, oldest first.
    pub before: Vec<Value>,
    /// And just after.
    pub after: Vec<Value>,
}

/// Neighbours on each side.
const NEIGHBOURS: usize = 3;
/// How far later neighbours are looked for.
const LOOK_AHEAD: u64 = 4096;

/// A record as readers see it: with its sequence number, and with what is sealed as far as its key is still there.
pub fn shown(seq: u64, record: &Record, keys: Option<&Keys>) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    if let Body::Decision(decision) = &record.body
        && let Some(sealed) = &decision.input_sealed
    {
        let input = keys.and_then(|keys| keys.unseal_input(&decision.worker, &decision.id, sealed));
        match input.and_then(|input| serde_json::from_slice::<Value>(&input).ok()) {
            Some(input) => value["context"]["input"] = input,
            None => value["erased"] = json!(true),
        }
    }
    if let Some(members) = value.as_object_mut() {
        members.shift_insert(0, "seq".into(), json!(seq));
    }
    value
}

/// The decision of an id or a sequence number; of an outcome's, the decision it is of. Nothing when there is none.
pub fn show(
    view: &View,
    reader: &mut Reader,
    data_dir: &Path,
    keys: Option<&Keys>,
    id: &str,
) -> io::Result<Option<Shown>> {
    let id = match id.parse::<u64>() {
        Ok(seq) => match reader.record(seq)?.map(|record| record.body) {
            Some(Body::Decision(decision)) => decision.id.to_string(),
            Some(Body::Outcome(outcome)) => outcome.decision.to_string(),
            _ => return Ok(None),
        },
        Err(_) => id.to_owned(),
    };
    let (mut decided, mut outcome) = (None, None);
    for (seq, record) in view::of_decision(view, reader, &id)? {
        match &record.body {
            Body::Decision(decision) => decided = Some((seq, decision.clone(), record.clone())),
            _ => outcome = Some(shown(seq, &record, keys)),
        }
    }
    let Some((seq, decision, record)) = decided else { return Ok(None) };
    let own = Query { worker: Some(decision.worker.clone()), kind: Some("decision".into()), ..Query::default() };
    let before = Query { before: Some(seq), limit: Some(NEIGHBOURS), ..own.clone() };
    let mut before = all_shown(&view::run(view, reader, &before)?, keys);
    before.reverse();
    let mut after = Vec::new();
    for next in seq + 1..seq + LOOK_AHEAD {
        let Some(record) = reader.record(next)?.filter(|_| after.len() < NEIGHBOURS) else { break };
        if own.matches(&record) {
            after.push(shown(next, &record, keys));
        }
    }
    Ok(Some(Shown {
        decision: shown(seq, &record, keys),
        outcome,
        acknowledgement: decision.acknowledged.as_ref().and_then(|by| serde_json::to_value(by).ok()),
        rules: archive::rules(data_dir, &decision.digests, &decision.policies)?,
        before,
        after,
    }))
}

/// Records as readers see them.
pub fn all_shown(found: &[Found], keys: Option<&Keys>) -> Vec<Value> {
    found.iter().map(|(seq, record)| shown(*seq, record, keys)).collect()
}
