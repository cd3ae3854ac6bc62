//! Acknowledgements: how a held proposal stands, and what records make of it. [`scope`] is a yes to more than one.
//!
//! A proposal is held once. A person says yes, or no, or nobody says anything in time. After a yes it runs once: at once, in a
//! session of Warden's own, or as soon as its worker repeats it. Its result is given to its worker once.

pub mod scope;

use crate::outcome::Happened;
use crate::policy::snapshot::Digests;
use crate::proposal::{DecisionId, is_within};
use jiff::Timestamp;
use scope::Scope;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Held proposals that are remembered after they are over.
const ENDED_MAX: usize = 4096;
/// Proposals of one worker that may be held at once.
pub const HELD_MAX: usize = 1000;

/// What a decision says of being held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// When nobody can acknowledge it any more.
    pub expires: Timestamp,
    /// Keyed tag by which the same proposal is recognised, see [`crate::proposal::Proposal::sameness`].
    pub tag: String,
    /// The hash of the tool's definition, and of the one that its server lists instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// The yes that a decision was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Who said it.
    pub operator: String,
    /// The proposal that was held, when the yes was to that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<DecisionId>,
    /// The scope, when the yes was to several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// Where an acknowledged proposal runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// At once, in a session of Warden's own. The result waits for its worker.
    Now,
    /// In its worker's own session, as soon as the worker repeats it: what it acts on may be that session's.
    OnRepeat,
}

/// How a held proposal stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nobody has said anything.
    #[default]
    Waiting,
    /// A person said yes.
    Granted {
        /// Who.
        operator: String,
        /// Where it runs.
        runs: Runs,
    },
    /// It is allowed and on its way.
    Running {
        /// The decision that allowed it.
        decision: DecisionId,
    },
}

/// A held proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Its record.
    pub seq: u64,
    /// The worker that asked.
    pub worker: String,
    /// The session that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// When it was held.
    pub since: Timestamp,
    /// What it asks for, as policies call it.
    #[serde(default)]
    pub action: String,
    /// What its record says of that. Absent where it was held by an older Warden: such a one can only expire.
    #[serde(default)]
    pub held: Option<Held>,
    /// What it was decided with.
    #[serde(default)]
    pub digests: Arc<Digests>,
    /// Whether Warden has it sealed; a caller that enforces keeps it itself.
    #[serde(default)]
    pub sealed: bool,
    /// How it stands.
    #[serde(default)]
    pub stage: Stage,
}

impl Parked {
    /// Whether it keeps a session waiting for a person.
    pub fn waits_in(&self, session: &str) -> bool {
        self.stage == Stage::Waiting && self.session.as_deref() == Some(session)
    }
}

/// A result that waits for its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Whose.
    pub worker: String,
    /// Of what was held: the same proposal collects it.
    pub tag: String,
    /// The decision that allowed it.
    pub decision: DecisionId,
    /// When it is destroyed.
    pub expires: Timestamp,
}

/// How a held proposal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It ran, and its worker was given what came of it, or could have been.
    Done,
    /// It ran, and nobody knows what came of it.
    Unknown,
    /// A person said no.
    Refused,
    /// A person said yes, and by then it was no more what it had been, or not allowed.
    Void,
    /// Nobody said anything in time, or nobody came for it.
    Expired,
}

/// A held proposal that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Whose.
    pub worker: String,
    /// As long as a refusal is remembered, the same proposal is not asked about again.
    pub tag: String,
    /// When it would have expired.
    pub expires: Timestamp,
    /// How.
    pub ending: Ending,
}

/// A step of an acknowledgement, as it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AckChange {
    /// Which.
    pub event: AckEvent,
    /// The held proposal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionId>,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Why, in that person's words; of `void` and `told` what Warden says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of `granted`: where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Runs>,
    /// Of `granted` and `ran`: until when it can be repeated or collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Of `ran`: the decision that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<DecisionId>,
    /// Of `granted` and `void`: what decided then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digests: Option<Arc<Digests>>,
    /// Of `granted` and `revoked`: what else is acknowledged from here on, or not any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckEvent {
    /// People were told that a proposal is held, or could not be.
    Told,
    /// An operator said yes.
    Granted,
    /// An operator said no.
    Refused,
    /// An operator said yes, and it could not be granted.
    Void,
    /// It ran, and its result waits.
    Ran,
    /// Its worker was given the result.
    Collected,
    /// An operator took a scope back.
    Revoked,
}

impl AckChange {
    /// A step with nothing but its name and proposal.
    pub fn of(event: AckEvent, decision: &DecisionId) -> Self {
        Self { decision: Some(decision.clone()), ..Self::new(event) }
    }

    /// A step with nothing but its name.
    pub fn new(event: AckEvent) -> Self {
        Self {
            event,
            decision: None,
            operator: None,
            reason: None,
            runs: None,
            until: None,
            run: None,
            digests: None,
            scope: None,
        }
    }
}

/// All acknowledgements, as records add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acks {
    /// Held proposals.
    pub parked: BTreeMap<DecisionId, Parked>,
    /// Held proposals that are on their way, by the decision that allowed them.
    #[serde(default)]
    pub running: BTreeMap<DecisionId, DecisionId>,
    /// Results that wait for their workers, by held proposal.
    #[serde(default)]
    pub kept: BTreeMap<DecisionId, Kept>,
    /// The last that are over.
    #[serde(default)]
    pub ended: BTreeMap<DecisionId, Ended>,
    /// What is acknowledged in advance, by id.
    #[serde(default)]
    pub scopes: BTreeMap<String, Scope>,
}

impl Acks {
    /// A proposal is held from here on.
    pub fn park(&mut self, id: DecisionId, parked: Parked) {
        self.parked.insert(id, parked);
    }

    /// Takes in a step that was recorded at `at`.
    pub fn apply(&mut self, at: Timestamp, change: &AckChange) {
        let id = change.decision.as_ref();
        self.scopes.retain(|_, scope| scope.until > at);
        match change.event {
            AckEvent::Told => {}
            AckEvent::Granted => {
                let Some(parked) = id.and_then(|id| self.parked.get_mut(id)) else { return };
                if let (Some(held), Some(until)) = (&mut parked.held, change.until) {
                    held.expires = until;
                }
                parked.stage = Stage::Granted {
                    operator: change.operator.clone().unwrap_or_default(),
                    runs: change.runs.unwrap_or(Runs::OnRepeat),
                };
                self.scopes.extend(change.scope.clone().map(|scope| (scope.id.clone(), scope)));
            }
            AckEvent::Refused => self.end(id, Ending::Refused),
            AckEvent::Void => self.end(id, Ending::Void),
            AckEvent::Ran => {
                let (Some(id), Some(run), Some(until)) = (id, &change.run, change.until) else { return };
                // Its outcome has ended it.
                let Some(ended) = self.ended.remove(id) else { return };
                let Ended { worker, tag, .. } = ended;
                self.kept.insert(id.clone(), Kept { worker, tag, decision: run.clone(), expires: until });
            }
            AckEvent::Collected => {
                if let Some((id, kept)) = id.and_then(|id| self.kept.remove_entry(id)) {
                    self.remember(
                        id,
                        Ended { worker: kept.worker, tag: kept.tag, expires: kept.expires, ending: Ending::Done },
                    );
                }
            }
            AckEvent::Revoked => {
                if let Some(scope) = &change.scope {
                    self.scopes.remove(&scope.id);
                }
            }
        }
    }

    /// A proposal was allowed by somebody's yes.
    pub fn allowed(&mut self, decision: &DecisionId, by: &Acknowledged) {
        if let Some((held, parked)) = by.held.as_ref().and_then(|held| Some((held, self.parked.get_mut(held)?))) {
            parked.stage = Stage::Running { decision: decision.clone() };
            self.running.insert(decision.clone(), held.clone());
        }
        if let Some(scope) = &by.scope {
            self.used(scope);
        }
    }

    /// One use of a scope is gone.
    pub fn used(&mut self, scope: &str) {
        if let Some(scope) = self.scopes.get_mut(scope) {
            scope.uses_left = scope.uses_left.map(|left| left.saturating_sub(1));
        }
    }

    /// What came of a decision: of one that was held, or of one that ran what was held.
    pub fn over(&mut self, decision: &DecisionId, happened: Happened) {
        if self.parked.contains_key(decision) || self.kept.contains_key(decision) {
            self.end(Some(decision), Ending::Expired);
            return;
        }
        let Some(held) = self.running.remove(decision) else { return };
        let ending = match happened {
            Happened::Unknown | Happened::Cancelled => Ending::Unknown,
            _ => Ending::Done,
        };
        self.end(Some(&held), ending);
    }

    /// The held proposals of a worker that are the same as one with this tag: those that a person has said yes to first.
    pub fn same(&self, worker: &str, tag: &str) -> Option<(&DecisionId, &Parked)> {
        let of = |parked: &Parked| {
            parked.worker == worker && parked.held.as_ref().is_some_and(|held| !tag.is_empty() && held.tag == tag)
        };
        let rank = |parked: &Parked| match parked.stage {
            Stage::Granted { .. } => 0,
            Stage::Running { .. } => 1,
            Stage::Waiting => 2,
        };
        self.parked.iter().filter(|(_, parked)| of(parked)).min_by_key(|(_, parked)| rank(parked))
    }

    /// All that is kept of a worker, but for what is on its way: held proposals and results.
    pub fn of(&self, worker: &str) -> Vec<DecisionId> {
        let parked = self
            .parked
            .iter()
            .filter(|(_, parked)| is_within(&parked.worker, worker) && !matches!(parked.stage, Stage::Running { .. }));
        let kept = self.kept.iter().filter(|(_, kept)| is_within(&kept.worker, worker));
        parked.map(|(id, _)| id).chain(kept.map(|(id, _)| id)).cloned().collect()
    }

    /// How many proposals of a worker are held.
    pub fn held_of(&self, worker: &str) -> usize {
        self.parked.values().filter(|parked| parked.worker == worker).count()
    }

    /// What has expired by `now`: held proposals that are not on their way, and results. `held_for` is for those that do not say.
    pub fn expired(&self, now: Timestamp, held_for: jiff::SignedDuration) -> Vec<DecisionId> {
        let over = |parked: &Parked| match &parked.held {
            Some(held) => held.expires <= now,
            None => now.duration_since(parked.since) >= held_for,
        };
        let parked = self
            .parked
            .iter()
            .filter(|(_, parked)| !matches!(parked.stage, Stage::Running { .. }) && over(parked))
            .map(|(id, _)| id.clone());
        let kept = self.kept.iter().filter(|(_, kept)| kept.expires <= now).map(|(id, _)| id.clone());
        parked.chain(kept).collect()
    }

    fn end(&mut self, id: Option<&DecisionId>, ending: Ending) {
        let Some(id) = id else { return };
        let ended = if let Some(parked) = self.parked.remove(id) {
            let (tag, expires) = parked.held.map(|held| (held.tag, held.expires)).unwrap_or_default();
            Ended { worker: parked.worker, tag, expires, ending }
        } else if let Some(kept) = self.kept.remove(id) {
            Ended { worker: kept.worker, tag: kept.tag, expires: kept.expires, ending }
        } else {
            return;
        };
        self.remember(id.clone(), ended);
    }

    fn remember(&mut self, id: DecisionId, ended: Ended) {
        self.ended.insert(id.clone(), ended);
        if self.ended.len() > ENDED_MAX {
            // Whatever would have expired first, but for the one that has just ended.
            let others = self.ended.iter().filter(|(other, _)| **other != id);
            let first = others.min_by_key(|(_, ended)| ended.expires).map(|(other, _)| other.clone());
            first.map(|first| self.ended.remove(&first));
        }
    }
}
