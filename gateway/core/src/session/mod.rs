//! Sessions: cases with a status, which any app declares in configuration.
//!
//! [`raw`] is what people write and [`check`] what makes it an [`app::App`]. A session belongs to one worker and one app: it is called as
//! [`id`] says and stands as [`status`] says. What ends it are the tools that really ran ([`rule`]); how sure its worker is, they were told
//! ([`harvest`]); which calls wait for a person, [`risk`] says, and whom it is handed to, [`team`]. What its calls add up to is seen by
//! policy ([`history`]). Everything of a session is folded from records, and changed by one writer at a time ([`locks`]).

pub mod ordered;
pub mod id;
pub mod status;
pub mod history;
pub mod app;
pub mod rule;
pub mod harvest;
pub mod risk;
pub mod team;
pub mod raw;
pub mod check;
pub mod unknown;
pub mod locks;
#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod fixture;

use crate::mac::Sealed;
use crate::proposal::{DecisionId, is_within};
use harvest::Harvest;
use history::{Step, Tally};
use jiff::Timestamp;
use jiff::civil::Date;
use rule::Matched;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use status::Kind;
use std::collections::{BTreeMap, VecDeque};

/// Sessions that are over and still known, with their facts. Older ones are in the journal alone.
const OVER_MAX: usize = 10_000;
/// Events of one session that are still told of.
const EVENTS_MAX: usize = 256;

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its app.
    pub app: String,
    /// Whose it is.
    pub worker: String,
    /// Who started it, where that is not the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Since when.
    pub started: Timestamp,
    /// What it was started with, as its app's schema has it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub overrides: Map<String, Value>,
    /// Its status, unless it waits for a person because something is held.
    pub status: String,
    /// Whether that is the end.
    pub terminal: bool,
    /// What that means.
    pub kind: Kind,
    /// Since when it has this status.
    pub since: Timestamp,
    /// Fields that terminal tools have left.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    /// Why it has this status, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The team it was handed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalated_to: Option<String>,
    /// What its tools have said of it.
    #[serde(default)]
    pub harvest: Harvest,
    /// How often it was tried again.
    #[serde(default)]
    pub retries: u32,
    /// Calls of tools that were allowed in it.
    #[serde(default)]
    pub calls: u64,
    /// The same by `SERVER/TOOL`.
    #[serde(default)]
    pub tools: BTreeMap<String, u64>,
    /// What its app's facts add up to.
    #[serde(default)]
    pub history: BTreeMap<String, Tally>,
    /// The newest call that ran and has a status of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Latest>,
    /// What became of it, the newest last.
    #[serde(default)]
    pub events: VecDeque<(u64, Timestamp, SessionEvent)>,
    /// The number of the next event.
    #[serde(default)]
    pub next_event: u64,
}

/// A call that ran and says what became of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// Its decision. Decisions sort by time, and the newest counts.
    pub decision: DecisionId,
    /// `SERVER/TOOL`.
    pub tool: String,
    /// What it says.
    #[serde(flatten)]
    pub said: Matched,
}

/// What a call that ran tells its session; a part of its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Which session.
    pub session: String,
    /// `SERVER/TOOL`.
    pub tool: String,
    /// The status it leads to, when its app has a rule for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Matched>,
    /// Confidence, signal and rationale from here on, when it says anything of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harvest: Option<Harvest>,
}

/// The record of a session's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionChange {
    /// Which.
    pub session: String,
    /// What.
    #[serde(flatten)]
    pub event: SessionEvent,
}

/// What becomes of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SessionEvent {
    /// It goes on from here.
    Started(Started),
    /// It has another status.
    Status(Changed),
    /// A person wanted it to go on or to be handed on, and that could not be done: it waits as before.
    ResumeFailed {
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
}

/// A session's begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its app.
    pub app: String,
    /// Whose it is.
    pub worker: String,
    /// Who started it, where that is not the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The decision that allowed it.
    pub decision: DecisionId,
    /// What it was started with.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub overrides: Map<String, Value>,
}

/// A change of status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The status before.
    pub from: String,
    /// The status from here on.
    pub to: String,
    /// Whether that is the end.
    pub terminal: bool,
    /// What it means. A record's own `kind` stands beside it.
    pub means: Kind,
    /// What led to it.
    pub cause: Cause,
    /// Who asked for it, where that is neither the session's worker nor an operator: a host, or a delegate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Fields that the tool has left.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The team it was handed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalated_to: Option<String>,
    /// What a person wrote to the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Written>,
}

/// What a person wrote, encrypted with the key of the session's worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What it is sealed under.
    pub id: DecisionId,
    /// The text.
    pub sealed: Sealed,
}

/// What leads to a change of status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Cause {
    /// A terminal tool that ran.
    Tool {
        /// `SERVER/TOOL`.
        tool: String,
        /// Its decision.
        decision: DecisionId,
    },
    /// No terminal tool ran: the app's own default.
    DefaultTerminalStatus,
    /// Its worker said so.
    Worker {
        /// `pause`, `fail` or `retry`.
        act: String,
    },
    /// A person said so.
    Operator {
        /// Who.
        operator: String,
        /// `resume_with_input`, `escalate` or `stop`.
        act: String,
    },
}

/// All sessions that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    all: BTreeMap<String, Session>,
    /// By prefix: the last day of which an id was made, and how many.
    #[serde(default)]
    minted: BTreeMap<String, (Date, u64)>,
    /// Those that are over, the oldest first.
    #[serde(default)]
    over: VecDeque<String>,
    /// Calls that are counted and not decided yet, and their sessions. A restart knows of none.
    #[serde(skip)]
    deciding: BTreeMap<DecisionId, String>,
    /// Allowed calls without an outcome, and their sessions.
    #[serde(default)]
    flying: BTreeMap<DecisionId, String>,
    /// Sessions that are not over, by app.
    #[serde(default)]
    open: BTreeMap<String, u64>,
}

/// What a call was counted as, until its verdict is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountedCall {
    /// The session.
    pub session: String,
    /// `SERVER/TOOL`.
    pub tool: String,
    /// By fact.
    pub steps: BTreeMap<String, Step>,
}

impl Sessions {
    /// One of them.
    pub fn get(&self, id: &str) -> Option<&Session> {
        self.all.get(id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Session)> {
        self.all.iter()
    }

    /// How many of an app are not over.
    pub fn open_of(&self, app: &str) -> u64 {
        self.open.get(app).copied().unwrap_or_default()
    }

    /// Whether a session has calls on their way, or about to be.
    pub fn is_flying(&self, id: &str) -> bool {
        self.deciding.values().chain(self.flying.values()).any(|session| session == id)
    }

    /// The id of a prefix's next session. A day that a clock goes back to gives no id twice.
    fn next_id(&self, prefix: &str, today: Date) -> String {
        let (date, number) = match self.minted.get(prefix) {
            Some((date, number)) if *date >= today => (*date, number + 1),
            _ => (today, 1),
        };
        id::mint(prefix, date, number)
    }

    /// The same, and it is given to nobody else.
    pub fn mint(&mut self, prefix: &str, today: Date) -> String {
        let id = self.next_id(prefix, today);
        if let Some((_, date, number)) = id::split(&id) {
            self.minted.insert(prefix.to_owned(), (date, number));
        }
        id
    }

    /// Takes in a recorded change.
    pub fn apply(&mut self, at: Timestamp, change: &SessionChange) {
        let id = &change.session;
        if let SessionEvent::Started(started) = &change.event {
            if let Some((prefix, date, number)) = id::split(id) {
                let last = self.minted.entry(prefix.to_owned()).or_insert((date, number));
                *last = (*last).max((date, number));
            }
            *self.open.entry(started.app.clone()).or_default() += 1;
            self.all.insert(id.clone(), Session::new(at, started));
        }
        let Some(session) = self.all.get_mut(id) else { return };
        session.tell(at, &change.event);
        if let SessionEvent::Status(changed) = &change.event {
            let was_over = session.terminal;
            session.becomes(at, changed);
            if !was_over && session.terminal {
                let app = session.app.clone();
                self.open.entry(app).and_modify(|open| *open = open.saturating_sub(1));
                self.over.push_back(id.clone());
                self.forget();
            }
        }
    }

    fn forget(&mut self) {
        while self.over.len() > OVER_MAX {
            if let Some(id) = self.over.pop_front() {
                self.all.remove(&id);
            }
        }
    }

    /// Counts a call before its verdict.
    pub fn count(&mut self, id: &DecisionId, call: &CountedCall, now: Timestamp) -> Result<(), history::Uncounted> {
        let Some(session) = self.all.get_mut(&call.session) else { return Ok(()) };
        let mut done = Vec::new();
        for (fact, step) in &call.steps {
            if let Err(why) = session.history.entry(fact.clone()).or_default().count(id, step, now) {
                for fact in done {
                    session.take_back(fact, id, &call.steps);
                }
                session.history.retain(|_, tally| *tally != Tally::default());
                return Err(why);
            }
            done.push(fact);
        }
        session.calls += 1;
        *session.tools.entry(call.tool.clone()).or_default() += 1;
        Ok(())
    }

    /// A counted call is about to be decided.
    pub fn weighs(&mut self, id: &DecisionId, call: &CountedCall) {
        self.deciding.insert(id.clone(), call.session.clone());
    }

    /// It is allowed: what it counted as is kept.
    pub fn decided(&mut self, id: &DecisionId) {
        self.deciding.remove(id);
    }

    /// Takes a call back that was not allowed.
    pub fn give_back(&mut self, id: &DecisionId, call: &CountedCall) {
        self.decided(id);
        let Some(session) = self.all.get_mut(&call.session) else { return };
        for fact in call.steps.keys() {
            session.take_back(fact, id, &call.steps);
        }
        session.calls = session.calls.saturating_sub(1);
        if let Some(count) = session.tools.get_mut(&call.tool) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                session.tools.remove(&call.tool);
            }
        }
    }

    /// An allowed call is on its way.
    pub fn began(&mut self, id: &DecisionId, session: &str) {
        if self.all.contains_key(session) {
            self.flying.insert(id.clone(), session.to_owned());
        }
    }

    /// A call has an outcome.
    pub fn over(&mut self, id: &DecisionId) {
        self.flying.remove(id);
    }

    /// A call that ran says something of its session.
    pub fn tell(&mut self, id: &DecisionId, ran: &Ran) {
        // One that is over is never touched again.
        let Some(session) = self.all.get_mut(&ran.session).filter(|session| !session.terminal) else { return };
        if let Some(harvest) = ran.harvest.as_ref().filter(|harvest| harvest.turn >= session.harvest.turn) {
            session.harvest = harvest.clone();
        }
        let is_newer = session.latest.as_ref().is_none_or(|latest| latest.decision < *id);
        if let Some(said) = ran.said.as_ref().filter(|_| is_newer) {
            session.latest = Some(Latest { decision: id.clone(), tool: ran.tool.clone(), said: said.clone() });
        }
    }
}

impl Session {
    fn new(at: Timestamp, started: &Started) -> Self {
        Self {
            app: started.app.clone(),
            worker: started.worker.clone(),
            by: started.by.clone(),
            started: at,
            overrides: started.overrides.clone(),
            status: status::RUNNING.to_owned(),
            terminal: false,
            kind: Kind::Pending,
            since: at,
            fields: Map::new(),
            reason: None,
            escalated_to: None,
            harvest: Harvest::default(),
            retries: 0,
            calls: 0,
            tools: BTreeMap::new(),
            history: BTreeMap::new(),
            latest: None,
            events: VecDeque::new(),
            next_event: 0,
        }
    }

    /// Whether a worker works in it: its own, or a node below that.
    pub fn is_of(&self, worker: &str) -> bool {
        is_within(worker, &self.worker)
    }

    /// The status as people see it: what waits for one of them waits for input.
    pub fn shown_status(&self, waits: bool) -> &str {
        if waits && !self.terminal { status::AWAITING_INPUT } else { &self.status }
    }

    fn tell(&mut self, at: Timestamp, event: &SessionEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((self.next_event, at, event.clone()));
        self.next_event += 1;
    }

    fn becomes(&mut self, at: Timestamp, changed: &Changed) {
        self.status.clone_from(&changed.to);
        (self.terminal, self.kind, self.since) = (changed.terminal, changed.means, at);
        self.fields.extend(changed.fields.clone());
        self.reason.clone_from(&changed.reason);
        if changed.escalated_to.is_some() {
            self.escalated_to.clone_from(&changed.escalated_to);
        }
        if matches!(&changed.cause, Cause::Worker { act } if act == "retry") {
            self.retries += 1;
            // What ran before it failed says nothing of the next try.
            self.latest = None;
        }
    }

    fn take_back(&mut self, fact: &str, id: &DecisionId, steps: &BTreeMap<String, Step>) {
        if let (Some(tally), Some(step)) = (self.history.get_mut(fact), steps.get(fact)) {
            tally.give_back(id, step);
            if *tally == Tally::default() {
                self.history.remove(fact);
            }
        }
    }
}

/// What policy sees of a session, in `context.session`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Its id; empty while it is to be started.
    pub id: String,
    /// Its app.
    pub app: String,
    /// Its status.
    pub status: String,
    /// Whether that is the end.
    pub terminal: bool,
    /// Seconds since it was started.
    pub age_s: i64,
    /// Calls of tools that were allowed in it before this one.
    pub calls: i64,
    /// The same of this tool.
    pub same_tool: i64,
    /// Thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<i64>,
    /// What its tools say of it: one of its app's signals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// How a call of this tool is handled by its app's risk table: `auto`, `notify`, `approve` or `unlisted`.
    pub handling: String,
    /// Whether its app's gates want a person for this call.
    pub gated: bool,
    /// What it was started with.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub overrides: Map<String, Value>,
    /// What its app's facts say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, history::Value>,
}
