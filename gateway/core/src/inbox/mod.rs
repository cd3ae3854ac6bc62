//! The inbox worker: messages in, a plan out, each action a proposal. What it has seen, and its schedule, are hot state.
//!
//! A [`message`] becomes a draft, by [`rules`] or in the [`answer`] of a model that was given a [`prompt`]; guardrails leave a [`plan`] of
//! it. [`routing`] is who answers for what.

pub mod answer;
pub mod message;
pub mod plan;
pub mod prompt;
pub mod routing;
pub mod rules;

use crate::proposal::{DecisionId, Mode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Messages of one inbox whose handling is remembered.
const SEEN_MAX: usize = 10_000;

/// What a run stands on. When any of it changes, what was shown before shows nothing any more. Each is `sha256:` and hex.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The compiled-in charter.
    pub charter: String,
    /// The brief: the text that the brain is given with every message.
    pub brief: String,
    /// The site's policies, the allowlist among them.
    pub policy: String,
    /// The brain: which, with which routing catalogue, engine and model.
    pub brain: String,
}

impl Basis {
    /// What differs, by name.
    pub fn changed(&self, now: &Basis) -> Vec<&'static str> {
        let parts = [
            ("charter", &self.charter, &now.charter),
            ("brief", &self.brief, &now.brief),
            ("policy", &self.policy, &now.policy),
            ("brain", &self.brain, &now.brain),
        ];
        parts.into_iter().filter(|(_, then, now)| then != now).map(|(name, ..)| name).collect()
    }
}

/// What a message came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// All its actions ran.
    Executed,
    /// In a dry run: all its actions would have run.
    Planned,
    /// A person has to look at it: nothing of it ran.
    Escalated,
    /// A person has to do something that no worker may: what it proposes is kept.
    LeftForHuman,
    /// There was nothing to do, or nothing had changed since it was last looked at.
    Skipped,
    /// Something went wrong; what was left of it did not run.
    Failed,
}

impl Came {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Came::Executed => "executed",
            Came::Planned => "planned",
            Came::Escalated => "escalated",
            Came::LeftForHuman => "left_for_human",
            Came::Skipped => "skipped",
            Came::Failed => "failed",
        }
    }
}

/// What became of one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// The action.
    pub kind: String,
    /// `done`, `held`, `left_for_human`, `refused`, `skipped`, `failed`, `unknown` or `not_tried`; of a dry run `would_run`,
    /// `would_be_refused` (held or denied) or `would_be_left_for_human`.
    pub outcome: String,
    /// The reason code, where it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionId>,
    /// Of a catalogue diff: the hash under which it is kept for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// What became of one message. Its text is nowhere in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    /// The message's id.
    pub id: String,
    /// A keyed tag of the whole message: another one is another message.
    pub tag: String,
    /// What it came to.
    pub came: Came,
    /// The reason code of that.
    pub reason: String,
    /// Its actions.
    pub actions: Vec<Acted>,
}

/// How many messages of a run came to what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Messages that were looked at.
    pub messages: u64,
    /// By what they came to.
    pub came: BTreeMap<String, u64>,
    /// Calls of engines.
    pub engine_calls: u64,
    /// Messages for which the brain had no plan at all: its call was refused, or its engine did not answer, or said something else.
    #[serde(default)]
    pub unplanned: u64,
    /// Why the run ended before its last message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Summary {
    /// Counts a message.
    pub fn count(&mut self, came: Came) {
        self.messages += 1;
        *self.came.entry(came.name().to_owned()).or_default() += 1;
    }

    /// How many came to this.
    pub fn of(&self, came: Came) -> u64 {
        self.came.get(came.name()).copied().unwrap_or_default()
    }

    /// Whether it shows that a schedule may be switched on: messages were looked at, and nothing went wrong. What guardrails have escalated
    /// is no error; a brain that has no plan is.
    pub fn is_clean(&self) -> bool {
        let looked_at = self.messages - self.of(Came::Skipped).min(self.messages);
        looked_at > 0 && self.of(Came::Failed) == 0 && self.unplanned == 0 && self.error.is_none()
    }
}

/// What is recorded of an inbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InboxChange {
    /// What.
    pub event: InboxEvent,
    /// The inbox.
    pub inbox: String,
    /// The worker whose it is.
    pub worker: String,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What it stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// Of `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Handled>,
    /// Of `run_ended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Who started the run or changed the schedule; nobody when it was the schedule, or Warden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Of `schedule_enabled`: when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Why a schedule was disabled, or a run refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The events of an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InboxEvent {
    /// A run begins.
    RunStarted,
    /// A run did not begin.
    RunRefused,
    /// A message was handled.
    Message,
    /// A run is over.
    RunEnded,
    /// An operator switched the schedule on.
    ScheduleEnabled,
    /// The schedule is off from here on.
    ScheduleDisabled,
}

impl InboxChange {
    /// An event with nothing but its inbox.
    pub fn new(event: InboxEvent, inbox: &str, worker: &str) -> Self {
        Self {
            event,
            inbox: inbox.to_owned(),
            worker: worker.to_owned(),
            run: None,
            mode: None,
            basis: None,
            message: None,
            summary: None,
            operator: None,
            cron: None,
            reason: None,
        }
    }
}

/// All inboxes, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inboxes(BTreeMap<String, Inbox>);

/// What is remembered of one inbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inbox {
    /// Messages that ended without anybody reading them away, by id.
    pub seen: BTreeMap<String, Seen>,
    /// The last clean dry run.
    pub shakedown: Option<Shakedown>,
    /// The schedule, while it is on.
    pub schedule: Option<Schedule>,
    /// The last run that was for real.
    pub last_run: Option<Timestamp>,
}

/// A message that was handled, and what was known then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When.
    pub at: Timestamp,
    /// Of the message.
    pub tag: String,
    /// What it was handled on.
    pub basis: Basis,
    /// What it came to.
    pub came: Came,
    /// Whether it was answered: it is not answered again.
    #[serde(default)]
    pub answered: bool,
    /// The answer to it that is held for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<DecisionId>,
}

/// A clean dry run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shakedown {
    /// When it ended.
    pub at: Timestamp,
    /// Which.
    pub run: String,
    /// What it stood on.
    pub basis: Basis,
    /// How many messages it looked at.
    pub messages: u64,
}

/// A schedule that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// When it runs, as a cron expression.
    pub cron: String,
    /// What it was enabled on.
    pub basis: Basis,
    /// Who enabled it.
    pub operator: String,
    /// Since when.
    pub since: Timestamp,
}

impl Inboxes {
    /// One of them.
    pub fn of(&self, inbox: &str) -> Inbox {
        self.0.get(inbox).cloned().unwrap_or_default()
    }

    /// Takes in what was recorded at `at`.
    pub fn apply(&mut self, at: Timestamp, change: &InboxChange) {
        let inbox = self.0.entry(change.inbox.clone()).or_default();
        match change.event {
            InboxEvent::RunStarted | InboxEvent::RunRefused => {}
            InboxEvent::Message => {
                // A dry run changes nothing, so that the run after it does what it has shown.
                if change.mode == Some(Mode::DryRun) {
                    return;
                }
                let (Some(message), Some(basis)) = (&change.message, &change.basis) else { return };
                // Nothing was looked at, so what was seen before still holds.
                if message.came == Came::Skipped {
                    return;
                }
                let is_answer = |acted: &&Acted| matches!(acted.kind.as_str(), "route_answer" | "reply");
                let seen = Seen {
                    at,
                    tag: message.tag.clone(),
                    basis: basis.clone(),
                    came: message.came,
                    answered: message.actions.iter().filter(is_answer).any(|acted| acted.outcome == "done"),
                    held: message
                        .actions
                        .iter()
                        .filter(is_answer)
                        .find(|acted| acted.outcome == "held")
                        .and_then(|acted| acted.decision.clone()),
                };
                inbox.seen.insert(message.id.clone(), seen);
                if inbox.seen.len() > SEEN_MAX {
                    let oldest = inbox.seen.iter().min_by_key(|(_, seen)| seen.at).map(|(id, _)| id.clone());
                    oldest.map(|id| inbox.seen.remove(&id));
                }
            }
            InboxEvent::RunEnded => {
                let (Some(summary), Some(basis)) = (&change.summary, &change.basis) else { return };
                match change.mode {
                    Some(Mode::DryRun) if summary.is_clean() => {
                        let run = change.run.clone().unwrap_or_default();
                        let messages = summary.messages;
                        inbox.shakedown = Some(Shakedown { at, run, basis: basis.clone(), messages });
                    }
                    // An empty inbox shows nothing, and takes nothing back.
                    Some(Mode::DryRun) if summary.messages == 0 && summary.error.is_none() => {}
                    Some(Mode::DryRun) => inbox.shakedown = None,
                    _ => inbox.last_run = Some(at),
                }
            }
            InboxEvent::ScheduleEnabled => {
                inbox.schedule = Some(Schedule {
                    cron: change.cron.clone().unwrap_or_default(),
                    basis: change.basis.clone().unwrap_or_default(),
                    operator: change.operator.clone().unwrap_or_default(),
                    since: at,
                });
            }
            InboxEvent::ScheduleDisabled => inbox.schedule = None,
        }
    }
}

#[cfg(test)]
mod tests;
