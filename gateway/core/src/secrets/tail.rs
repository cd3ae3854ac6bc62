//! The end of what each worker sent in a session, so that a registered value in ordered pieces over several calls is found
//! once enough of it has joined: twelve bytes, or twenty-four of words.

use super::decode::Step;
use super::registered::PLAIN_MIN;
use super::{Finding, Scan, Scanner};
use crate::json::Json;
use crate::proposal::Proposal;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// Sessions that are remembered; then all begin anew.
const SESSIONS_MAX: usize = 4096;
/// Places of one session that are remembered.
const PLACES_MAX: usize = 64;
/// Bytes of each end: one less than is needed of words.
const TAIL: usize = PLAIN_MIN - 1;

type Tail = Zeroizing<Vec<u8>>;

#[derive(Default)]
struct Session {
    places: HashMap<String, Tail>,
    all: Tail,
}

/// See the module.
#[derive(Default)]
pub struct Tails(Mutex<HashMap<String, Session>>);

impl Tails {
    /// What joins with the ends of earlier calls, place by place and over all strings.
    pub fn scan(&self, proposal: &Proposal, scanner: &Scanner) -> Scan {
        let engine = scanner.engine();
        if engine.registered.values().is_empty() {
            return Scan::default();
        }
        let session = proposal.correlation.session.as_deref().unwrap_or(&proposal.connection);
        let key = format!("{}\n{session}", proposal.worker);
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&key) {
            sessions.clear();
        }
        let Session { places, all } = sessions.entry(key).or_default();
        let mut scan = Scan::default();
        let mut look = |tail: &mut Tail, text: &[u8], pointer: &str| {
            let mut joined = Zeroizing::new(Vec::with_capacity(TAIL * 2));
            joined.extend_from_slice(tail);
            joined.extend_from_slice(&text[..text.len().min(TAIL)]);
            let mut found = None;
            // What lies on one side was seen there.
            let joint = tail.len();
            engine.registered.find(&joined, |span, known| {
                if span.start < joint && joint < span.end {
                    found = Some(known.clone());
                }
            });
            if let Some(known) = found {
                let finding = Finding {
                    format: if known.canary { "canary" } else { "registered_value" }.into(),
                    at: format!("/params/arguments{}", scanner.hide_pointer(pointer)),
                    fingerprint: Some(known.fingerprint),
                    via: vec![Step::Pieces.name().into()],
                };
                if !scan.findings.contains(&finding) {
                    scan.findings.push(finding);
                }
            }
            let mut kept = Zeroizing::new(tail.to_vec());
            kept.extend_from_slice(&text[text.len().saturating_sub(TAIL)..]);
            let cut = kept.len().saturating_sub(TAIL);
            *tail = Zeroizing::new(kept[cut..].to_vec());
        };
        values(&proposal.arguments, &mut String::new(), &mut |pointer, text| {
            let plain: Tail = Zeroizing::new(text.bytes().filter(|byte| *byte > b' ').collect());
            if places.len() < PLACES_MAX || places.contains_key(pointer) {
                look(places.entry(pointer.to_owned()).or_default(), &plain, pointer);
            }
            look(all, &plain, pointer);
        });
        scan
    }
}

/// Every string that is no name.
fn values(json: &Json, pointer: &mut String, see: &mut impl FnMut(&str, &str)) {
    let end = pointer.len();
    match json {
        Json::String(text) => see(pointer, text),
        Json::Array(items) => {
            for item in items {
                // Pieces may stand in any place of a list.
                crate::json::push_pointer(pointer, "-");
                values(item, pointer, see);
                pointer.truncate(end);
            }
        }
        Json::Object(members) => {
            for (name, value) in members {
                crate::json::push_pointer(pointer, name);
                values(value, pointer, see);
                pointer.truncate(end);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}
