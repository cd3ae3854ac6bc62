//! The end of what each worker sent in a session, so that a registered value in ordered pieces over several calls is found
//! once enough of it has joined: twelve bytes, or twenty-four of words.

use super::decode::Step;
use super::registered::PLAIN_MIN;
use super::{Finding, Scan, Scanner};
use crate::json::{Json, push_pointer};
use crate::proposal::Proposal;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
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
    /// By the hash of the place: its names are the sender's, and as long as it likes.
    places: HashMap<u64, Tail>,
    all: Tail,
}

/// See the module.
#[derive(Default)]
pub struct Tails {
    sessions: Mutex<HashMap<String, Arc<Mutex<Session>>>>,
    hasher: RandomState,
}

impl Tails {
    fn session(&self, key: String) -> Arc<Mutex<Session>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&key) {
            sessions.clear();
        }
        Arc::clone(sessions.entry(key).or_default())
    }

    /// What joins with the ends of earlier calls, place by place and over all strings.
    pub fn scan(&self, proposal: &Proposal, scanner: &Scanner) -> Scan {
        let engine = scanner.engine();
        if engine.registered.values().is_empty() {
            return Scan::default();
        }
        let session = proposal.correlation.session.as_deref().unwrap_or(&proposal.connection);
        let key = format!("{}\n{session}", proposal.worker);
        let session = self.session(key);
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let Session { places, all } = &mut *session;
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
        let mut walk = Walk { hasher: &self.hasher, pointer: String::new() };
        walk.values(&proposal.arguments, 0, &mut |place, pointer, text| {
            let plain: Tail = Zeroizing::new(text.bytes().filter(|byte| *byte > b' ').collect());
            if places.len() < PLACES_MAX || places.contains_key(&place) {
                look(places.entry(place).or_default(), &plain, pointer);
            }
            look(all, &plain, pointer);
        });
        scan
    }
}

/// Every string that is no name, with the hash of its place and its pointer.
struct Walk<'h> {
    hasher: &'h RandomState,
    pointer: String,
}

impl Walk<'_> {
    fn values(&mut self, json: &Json, place: u64, see: &mut impl FnMut(u64, &str, &str)) {
        let end = self.pointer.len();
        match json {
            Json::String(text) => see(place, &self.pointer, text),
            Json::Array(items) => {
                // Pieces may stand in any place of a list.
                push_pointer(&mut self.pointer, "-");
                let place = self.hasher.hash_one((place, "-"));
                items.iter().for_each(|item| self.values(item, place, see));
            }
            Json::Object(members) => {
                for (name, value) in members {
                    push_pointer(&mut self.pointer, name);
                    self.values(value, self.hasher.hash_one((place, name)), see);
                    self.pointer.truncate(end);
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
        self.pointer.truncate(end);
    }
}
