//! Hot state: what the records add up to, changed in journal order only.

use crate::decision::{Decision, Enforced};
use crate::journal::record::{Body, Hold, Record};
use crate::policy::snapshot::Digests;
use crate::proposal::{DecisionId, Door};
use crate::verdict::Verdict;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Held proposals: allowed once a named person acknowledges them.
    pub parked: BTreeMap<DecisionId, Parked>,
    /// Allowed proposals whose outcome is not recorded yet. After a crash these are unknown, never done.
    pub open: BTreeMap<DecisionId, Timestamp>,
    /// What decides now.
    pub digests: Digests,
    /// Times whose segments are not dropped, by name.
    #[serde(default)]
    pub holds: BTreeMap<String, Hold>,
    /// What checkpoints are signed with, as a verifier key.
    #[serde(default)]
    pub verifier: Option<String>,
    /// The first sequence number that retention has left.
    #[serde(default)]
    pub first_seq: u64,
}

/// A held proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Its record.
    pub seq: u64,
    /// The worker that asked.
    pub worker: String,
    /// When it was held.
    pub since: Timestamp,
}

impl State {
    /// Takes in the record with number `seq`.
    pub fn apply(&mut self, seq: u64, record: &Record) {
        match &record.body {
            Body::Decision(decision) if is_forwarded(decision) => match decision.verdict {
                Verdict::Allow => {
                    self.open.insert(decision.id.clone(), record.ts);
                }
                Verdict::Escalate => {
                    let parked = Parked { seq, worker: decision.worker.clone(), since: record.ts };
                    self.parked.insert(decision.id.clone(), parked);
                }
                Verdict::Deny => {}
            },
            Body::Outcome(outcome) => {
                self.open.remove(&outcome.decision);
                self.parked.remove(&outcome.decision);
            }
            Body::Policy(change) => self.digests = change.digests.clone(),
            Body::Retention(dropped) => self.first_seq = dropped.next_seq,
            Body::Hold(change) => match &change.keeps {
                Some(hold) => drop(self.holds.insert(change.name.clone(), hold.clone())),
                None => drop(self.holds.remove(&change.name)),
            },
            Body::Key(change) => self.verifier = Some(change.verifier.clone()),
            Body::Decision(_) | Body::Operator(_) | Body::State(_) | Body::Read(_) => {}
        }
    }
}

/// Whether Warden itself forwards what is allowed, so that an outcome is expected: also where it did not enforce the site's policies.
fn is_forwarded(decision: &Decision) -> bool {
    match decision.enforced {
        Enforced::Gateway => true,
        Enforced::Shadow => decision.door != Door::Authzen,
        Enforced::Caller => false,
    }
}
