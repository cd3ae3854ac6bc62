//! Delegates: a worker lets a node of its own composition act, below itself, for a while. What a delegate is bound to stands in its
//! token's record and nowhere else, so it says nothing of itself.

use crate::proposal::is_within;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Delegates of one worker and all below it that are live at once; more are refused.
pub const LIVE_MAX: usize = 256;

/// A delegate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegate {
    /// The node: `WORKER/SLUG/…`.
    pub node: String,
    /// Who started it: the worker, or a delegate above it.
    pub by: String,
    /// The id of the token that did: the worker's own, or another delegate's. It ends with that one.
    pub by_token: String,
    /// The decision that allowed it.
    pub decision: String,
    /// The session that everything it does belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Until when.
    pub expires: Timestamp,
    /// SHA-256 of its token, in hex. The token has 256 random bits, so this gives nobody access.
    pub hash: String,
}

/// The record of a delegate's begin or end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegateChange {
    /// The id of its token.
    pub delegate: String,
    /// What.
    #[serde(flatten)]
    pub event: DelegateEvent,
}

/// What becomes of a delegate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DelegateEvent {
    /// It may act from here on.
    Started(Delegate),
    /// It may not any more: whoever started it has taken that back.
    Ended {
        /// Who.
        by: String,
    },
}

/// All that are live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegates {
    live: BTreeMap<String, Delegate>,
}

impl Delegates {
    /// Takes in a recorded change.
    pub fn apply(&mut self, at: Timestamp, change: &DelegateChange) {
        match &change.event {
            DelegateEvent::Started(delegate) => {
                self.live.retain(|_, delegate| delegate.expires > at);
                self.live.insert(change.delegate.clone(), delegate.clone());
            }
            DelegateEvent::Ended { .. } => self.end(&change.delegate),
        }
    }

    /// It ends with all below it.
    fn end(&mut self, id: &str) {
        let mut ended = vec![id.to_owned()];
        while let Some(id) = ended.pop() {
            self.live.remove(&id);
            ended.extend(self.live.iter().filter(|(_, below)| below.by_token == id).map(|(id, _)| id.clone()));
        }
    }

    /// The one with this token's hash that acts at a time, with its id. `is_token` says whether a worker's own token is still good:
    /// a delegate ends with any that it comes from.
    pub fn find(&self, hash: &str, now: Timestamp, is_token: impl Fn(&str) -> bool) -> Option<(&str, &Delegate)> {
        let (id, found) = self.live.iter().find(|(_, delegate)| delegate.hash == hash)?;
        self.acts(found, now, &is_token).then_some((id.as_str(), found))
    }

    fn acts(&self, delegate: &Delegate, now: Timestamp, is_token: &impl Fn(&str) -> bool) -> bool {
        let mut at = delegate;
        // A chain is as long as its tree is deep; each is started by an older one.
        for _ in 0..=self.live.len() {
            if at.expires <= now {
                return false;
            }
            match self.live.get(&at.by_token) {
                Some(above) => at = above,
                None => return is_token(&at.by_token),
            }
        }
        false
    }

    /// One by its id.
    pub fn get(&self, id: &str) -> Option<&Delegate> {
        self.live.get(id)
    }

    /// All of a worker, and of the nodes below it, that act at a time, by id. `is_token` as in [`Self::find`].
    pub fn of<'d>(
        &'d self,
        worker: &'d str,
        now: Timestamp,
        is_token: impl Fn(&str) -> bool + 'd,
    ) -> impl Iterator<Item = (&'d String, &'d Delegate)> {
        let below = self.live.iter().filter(move |(_, delegate)| is_within(&delegate.node, worker));
        below.filter(move |(_, delegate)| self.acts(delegate, now, &is_token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(id: &str, by_token: &str, expires: i64) -> DelegateChange {
        let delegate = Delegate {
            node: format!("w/{id}"),
            by: "w".into(),
            by_token: by_token.into(),
            decision: "d".into(),
            session: None,
            task: None,
            run: None,
            expires: Timestamp::from_second(expires).unwrap(),
            hash: format!("hash of {id}"),
        };
        DelegateChange { delegate: id.into(), event: DelegateEvent::Started(delegate) }
    }

    #[test]
    fn s4_20_a_delegate_ends_with_whatever_it_comes_from() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut delegates = Delegates::default();
        for change in [started("a", "token", 50), started("b", "a", 90), started("c", "b", 90)] {
            delegates.apply(at(0), &change);
        }
        let finds = |delegates: &Delegates, id: &str, second, token| {
            delegates
                .find(&format!("hash of {id}"), at(second), |id| token && id == "token")
                .map(|(id, _)| id.to_owned())
        };
        assert_eq!(finds(&delegates, "c", 10, true).as_deref(), Some("c"));
        assert_eq!(finds(&delegates, "c", 10, false), None, "the worker's token was revoked");
        assert_eq!(finds(&delegates, "c", 60, true), None, "one above it has expired");
        assert_eq!(finds(&delegates, "x", 10, true), None);
        let ended = DelegateChange { delegate: "b".into(), event: DelegateEvent::Ended { by: "w".into() } };
        delegates.apply(at(20), &ended);
        assert_eq!(finds(&delegates, "c", 20, true), None, "one above it was ended: nothing vouches for it");
        assert_eq!(finds(&delegates, "a", 20, true).as_deref(), Some("a"));
        let of = |worker: &str, token| delegates.of(worker, at(20), move |_| token).count();
        assert_eq!((of("w", true), of("v", true), of("w", false)), (1, 0, 0), "what ended is in nobody's way");
    }
}
