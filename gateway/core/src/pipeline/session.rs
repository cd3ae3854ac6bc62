//! What a proposal belongs to: the session whose history it is counted in, the task whose scope it is held against, and what its session
//! is told when it ran.

use super::{Gate, Ports};
use crate::catalogue::Effect;
use crate::composition::tree::is_within;
use crate::decision::presentable;
use crate::json::Json;
use crate::outcome::{Happened, Reply};
use crate::policy::snapshot::Snapshot;
use crate::proposal::{Ask, DecisionId, Door, Proposal, TaskFacts, TaskId, Verb};
use crate::session::app::App;
use crate::session::history::{self, Step};
use crate::session::rule::Matched;
use crate::session::{CountedCall, Ran, Session, SessionFacts, risk, rule, status};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// A field that a terminal tool leaves has at most so many bytes, as JSON.
const FIELD_MAX: usize = 4 << 10;
/// And is nested so deep.
const FIELD_DEPTH_MAX: usize = 8;

/// What a proposal is in its session.
#[derive(Default)]
pub(super) struct InSession {
    pub(super) facts: Option<SessionFacts>,
    /// What it was counted as; to be given back unless it is allowed.
    pub(super) call: Option<CountedCall>,
}

/// What a session will be told of a call, once it ran.
pub(super) struct Tells {
    session: String,
    tool: String,
    app: Arc<App>,
    arguments: Value,
}

/// A session as it stands when a call of it is decided.
struct Stands {
    facts: SessionFacts,
    call: Option<CountedCall>,
}

impl<P: Ports> Gate<P> {
    /// Whether a name is that of a session: of one that is known, whatever became of its app, or of one that an app could have.
    pub fn names_session(&self, name: &str) -> bool {
        self.apps.knows(name) || self.counted(|counted| counted.sessions.get(name).is_some())
    }

    /// Finds the session of a proposal and counts it there, in one step: of two calls at once, one sees the other.
    pub(super) fn in_session(
        &self,
        id: &DecisionId,
        snapshot: &Snapshot,
        proposal: &Proposal,
        now: Timestamp,
    ) -> Result<InSession, &'static str> {
        // What is refused in any case is counted nowhere.
        if proposal.barred.is_some() {
            return Ok(InSession::default());
        }
        // A worker's own question whether it might is no call; only a policy enforcement point holds anybody to the answer.
        let counts = proposal.door != Door::Authzen || proposal.caller.is_some();
        self.with_session(snapshot, proposal, now, |sessions, stands| match stands {
            None => Ok(InSession::default()),
            Some(Stands { facts, call }) => {
                let call = call.filter(|_| counts);
                if let Some(call) = &call {
                    sessions.count(id, call, now)?;
                    sessions.weighs(id, call);
                }
                Ok(InSession { facts: Some(facts), call })
            }
        })
    }

    /// Whether somebody has stopped the session of a call since that was decided.
    pub(super) fn is_stopped(&self, proposal: &Proposal) -> bool {
        let Some(name) = proposal.correlation.session.as_ref().filter(|_| needs_session(&proposal.ask)) else {
            return false;
        };
        self.counted(|counted| counted.sessions.get(name).is_some_and(|session| session.status == status::STOPPED))
    }

    /// As [`Self::in_session`], without counting it.
    pub(super) fn stands_in(
        &self,
        snapshot: &Snapshot,
        proposal: &Proposal,
        now: Timestamp,
    ) -> Result<Option<SessionFacts>, &'static str> {
        self.with_session(snapshot, proposal, now, |_, stands| Ok(stands.map(|stands| stands.facts)))
    }

    fn with_session<T>(
        &self,
        snapshot: &Snapshot,
        proposal: &Proposal,
        now: Timestamp,
        then: impl FnOnce(&mut crate::session::Sessions, Option<Stands>) -> Result<T, &'static str>,
    ) -> Result<T, &'static str> {
        if let Ask::Session { app, overrides } = &proposal.ask {
            let facts = self.apps.get(app).map(|app| to_be_started(app, overrides));
            return self
                .counted(|counted| then(&mut counted.sessions, facts.map(|facts| Stands { facts, call: None })));
        }
        let Some(name) = &proposal.correlation.session else {
            return match self.apps.claims(&proposal.server) && needs_session(&proposal.ask) {
                true => Err("server_of_an_app"),
                false => self.counted(|counted| then(&mut counted.sessions, None)),
            };
        };
        // A person is needed as long as something of it is held.
        let waits = self.acks(|live| live.acks.parked.values().any(|parked| parked.waits_in(name)));
        let known = self.counted(|counted| {
            let session = counted.sessions.get(name)?;
            Some((session.is_of(&proposal.worker), session.app.clone()))
        });
        let Some((is_own, app)) = known else {
            // Any other name is only what a host calls it.
            return match self.apps.knows(name) {
                true => Err("unknown_session"),
                false if self.apps.claims(&proposal.server) && needs_session(&proposal.ask) => Err("server_of_an_app"),
                false => self.counted(|counted| then(&mut counted.sessions, None)),
            };
        };
        if !is_own {
            return Err("unknown_session");
        }
        let app = self.apps.get(&app).ok_or("unknown_app")?;
        if self.apps.claims(&proposal.server) && !app.servers.contains(&proposal.server) {
            return Err("server_of_an_app");
        }
        // Looked at before anybody else has to wait for it.
        let call = self.call(snapshot, app, name, proposal)?;
        self.counted(|counted| {
            let session = counted.sessions.get(name).ok_or("unknown_session")?;
            if session.status == status::STOPPED && needs_session(&proposal.ask) {
                return Err("session_stopped");
            }
            let facts = facts(app, (name, session), call.as_ref(), waits, now);
            then(&mut counted.sessions, Some(Stands { facts, call }))
        })
    }

    /// What a proposal counts as in a session, when it calls a tool.
    fn call(
        &self,
        snapshot: &Snapshot,
        app: &App,
        session: &str,
        proposal: &Proposal,
    ) -> Result<Option<CountedCall>, &'static str> {
        let Ask::Tool { name } = &proposal.ask else { return Ok(None) };
        let tool = format!("{}/{name}", proposal.server);
        let known = snapshot.catalogue().tool(&proposal.server, name);
        let effect = known.map_or(Effect::Production, crate::catalogue::Tool::effect);
        let call = history::Call { tool: &tool, effect, arguments: &proposal.arguments };
        let key = self.ports.scanner().key();
        let mut steps: BTreeMap<String, Step> = BTreeMap::new();
        for (name, fact) in &app.facts {
            steps.extend(fact.step(call, &|text| key.tag(text.as_bytes()))?.map(|step| (name.clone(), step)));
        }
        Ok(Some(CountedCall { session: session.to_owned(), tool, steps }))
    }

    /// What the task of a tool's call says of it. Engines' calls bring their own.
    pub(super) fn in_task(&self, snapshot: &Snapshot, proposal: &Proposal, now: Timestamp) -> Option<TaskFacts> {
        let Ask::Tool { name } = &proposal.ask else { return None };
        let id = TaskId::new(proposal.correlation.task.clone()?);
        let mut facts = self.counted(|counted| {
            let task = &counted.tasks.get(&id, now)?.task;
            task.is_of(&proposal.worker).then(|| TaskFacts {
                id: id.to_string(),
                ambient: task.ambient,
                zone: task.zone.clone(),
                ..TaskFacts::default()
            })
        })?;
        let scope = self.scopes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(scope) = scope {
            let marks = snapshot.marks(&proposal.server, name);
            facts.scope = scope.facts(&proposal.server, name, marks, &proposal.arguments);
        }
        Some(facts)
    }

    /// What the session of a call is told when it ran; nothing when its app does not listen to that tool.
    pub(super) fn tells(&self, proposal: &Proposal) -> Option<Tells> {
        let Ask::Tool { name } = &proposal.ask else { return None };
        let session = proposal.correlation.session.clone()?;
        let app = self.counted(|counted| counted.sessions.get(&session).map(|session| session.app.clone()))?;
        let app = Arc::clone(self.apps.get(&app)?);
        let tool = format!("{}/{name}", proposal.server);
        let listens = app.terminal_tools.iter().any(|rule| rule::names(&rule.tool_name, &tool))
            || app.harvest_terminal_tools.iter().chain(&app.patch_tools).any(|named| rule::names(named, &tool));
        listens.then(|| Tells { session, tool, app, arguments: plain(&proposal.arguments) })
    }

    /// What a call that ran tells its session. What failed, or of which nobody knows, tells nothing.
    pub(super) fn ran(&self, id: &DecisionId, tells: Tells, reply: &Reply, happened: Happened) -> Option<Ran> {
        let Tells { session, tool, app, arguments } = tells;
        // An answer that nobody is given is read by nobody.
        let result = match reply {
            Reply::Answered { body, .. } if happened != Happened::Withheld => Some(plain(body)),
            _ => None,
        };
        if !has_run(happened, result.as_ref()) {
            return None;
        }
        let scanner = self.ports.scanner();
        let said = rule::known(&app, &tool, &arguments, result.as_ref()).map(|known| {
            let fields = match presentable(&bounded(Value::Object(known.fields)), scanner) {
                Value::Object(fields) => fields,
                _ => Map::new(),
            };
            Matched { fields, ..known }
        });
        self.counted(|counted| {
            let before = &counted.sessions.get(&session)?.harvest;
            let harvest = before.after((&app, &tool, &arguments), |text| scanner.mask(text).into_owned());
            let ran = Ran { session, tool, said, harvest };
            counted.sessions.tell(id, &ran);
            (ran.said.is_some() || ran.harvest.is_some()).then_some(ran)
        })
    }
}

/// JSON with numbers as numbers: rules compare and read them.
fn plain(json: &Json) -> Value {
    serde_json::from_str(&json.to_string()).unwrap_or_default()
}

/// Whether a call did what it is for: only then it says anything of its session. What failed, what only began (a task of MCP 2025-11-25),
/// what asks back before it does anything (2026-07-28), and of what nobody knows has not.
fn has_run(happened: Happened, result: Option<&Value>) -> bool {
    let answered = matches!(happened, Happened::Done | Happened::Redacted | Happened::Withheld);
    let unfinished = |result: &Value| {
        let begun = ["task", "inputRequests"].iter().any(|name| result.get(*name).is_some());
        begun || result.get("isError") == Some(&Value::Bool(true))
    };
    answered && !result.is_some_and(unfinished)
}

/// Fields that a record can hold: of one that is too large or too deep only its size stays.
fn bounded(fields: Value) -> Value {
    let Value::Object(fields) = fields else { return fields };
    let fine = |value: &Value| is_within(value, FIELD_DEPTH_MAX) && value.to_string().len() <= FIELD_MAX;
    let kept =
        |value: Value| if fine(&value) { value } else { Value::from(format!("… (more than {FIELD_MAX} bytes)")) };
    Value::Object(fields.into_iter().map(|(name, value)| (name, kept(value))).collect())
}

/// Whether it does something at a server. Opening a connection and listing do not, and what a server asks is not its worker's doing.
fn needs_session(ask: &Ask) -> bool {
    match ask {
        Ask::Tool { .. } => true,
        Ask::Verb(verb) => {
            let is_protocol = matches!(verb, Verb::Connect | Verb::ListTools | Verb::ListResources | Verb::ListPrompts);
            !is_protocol && !verb.is_server_request()
        }
        _ => false,
    }
}

/// What policy sees of a session before this call of it.
fn facts(
    app: &App,
    (id, session): (&str, &Session),
    call: Option<&CountedCall>,
    waits: bool,
    now: Timestamp,
) -> SessionFacts {
    let tool = call.map(|call| call.tool.as_str());
    let value = |(name, fact): (&String, &history::Fact)| {
        let step = call.and_then(|call| call.steps.get(name));
        (name.clone(), fact.value(session.history.get(name), step, now))
    };
    let long = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let environment = session.overrides.get(&app.gates.environment_field).and_then(Value::as_str);
    let confidence = session.harvest.confidence;
    SessionFacts {
        id: id.to_owned(),
        app: app.name.clone(),
        status: session.shown_status(waits).to_owned(),
        terminal: session.terminal,
        age_s: now.duration_since(session.started).as_secs().max(0),
        calls: long(session.calls),
        same_tool: tool.and_then(|tool| session.tools.get(tool)).copied().map_or(0, long),
        confidence: confidence.map(i64::from),
        signal: session.harvest.signal.clone(),
        handling: tool.map_or("auto", |tool| handling(app, tool, environment)).to_owned(),
        gated: tool.is_some_and(|tool| risk::gated(app, tool, environment, confidence)),
        overrides: session.overrides.clone(),
        facts: app.facts.iter().map(value).collect(),
    }
}

fn to_be_started(app: &App, overrides: &Map<String, Value>) -> SessionFacts {
    SessionFacts {
        app: app.name.clone(),
        status: "new".to_owned(),
        handling: "auto".to_owned(),
        overrides: overrides.clone(),
        ..SessionFacts::default()
    }
}

fn handling(app: &App, tool: &str, environment: Option<&str>) -> &'static str {
    match risk::risk(app, tool, environment).map(risk::Risk::handling) {
        None => "unlisted",
        Some(risk::Handling::Auto) => "auto",
        Some(risk::Handling::Notify) => "notify",
        Some(risk::Handling::Approve) => "approve",
    }
}

#[cfg(test)]
mod tests {
    use super::{Happened, bounded, has_run};
    use serde_json::json;

    #[test]
    fn s2_28_only_what_really_ran_says_anything_of_its_session() {
        for (happened, runs) in [
            (Happened::Done, true),
            (Happened::Redacted, true),
            (Happened::Withheld, true),
            (Happened::Failed, false),
            (Happened::Cancelled, false),
            (Happened::Unknown, false),
            (Happened::NotSent, false),
            (Happened::Expired, false),
        ] {
            assert_eq!(has_run(happened, None), runs, "{happened:?}");
            assert_eq!(has_run(happened, Some(&json!({ "content": [] }))), runs, "{happened:?}");
            for unfinished in [json!({ "isError": true }), json!({ "task": {} }), json!({ "inputRequests": [] })] {
                assert!(!has_run(happened, Some(&unfinished)), "{happened:?} {unfinished}");
            }
        }
    }

    #[test]
    fn s2_21_a_field_that_no_record_should_hold_is_told_by_its_size_alone() {
        let deep = (0..20).fold(json!(1), |inner, _| json!([inner]));
        let kept = bounded(json!({ "fine": { "a": [1, "b"] }, "large": "x".repeat(5000), "deep": deep }));
        assert_eq!(kept["fine"], json!({ "a": [1, "b"] }));
        assert!(kept["large"].as_str().unwrap().len() < 100 && kept["deep"].is_string());
    }
}
