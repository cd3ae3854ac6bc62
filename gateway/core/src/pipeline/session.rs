//! What a proposal belongs to: the session whose history it is counted in, the task whose scope it is held against, and what its session
//! is told when it ran.

use super::{Gate, Ports};
use crate::catalogue::Effect;
use crate::decision::presentable;
use crate::json::Json;
use crate::outcome::{Happened, Reply};
use crate::policy::snapshot::Snapshot;
use crate::proposal::{Ask, DecisionId, Proposal, TaskFacts, TaskId, Verb};
use crate::session::app::App;
use crate::session::history::{self, Step};
use crate::session::{CountedCall, Ran, Said, Session, SessionFacts, risk, rule, status};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

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
        self.with_session(snapshot, proposal, now, |sessions, stands| match stands {
            None => Ok(InSession::default()),
            Some(Stands { facts, call }) => {
                if let Some(call) = &call {
                    sessions.count(id, call, now)?;
                }
                Ok(InSession { facts: Some(facts), call })
            }
        })
    }

    /// The same without counting it.
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
            return self.counted(|counted| then(&mut counted.sessions, facts.map(|facts| Stands { facts, call: None })));
        }
        let Some(name) = &proposal.correlation.session else {
            return match self.apps.claims(&proposal.server) && needs_session(&proposal.ask) {
                true => Err("server_of_an_app"),
                false => self.counted(|counted| then(&mut counted.sessions, None)),
            };
        };
        // A person is needed as long as something of it is held.
        let waits = self.acks(|live| live.acks.parked.values().any(|parked| parked.waits_in(name)));
        self.counted(|counted| {
            let Some(session) = counted.sessions.get(name) else {
                // Any other name is only what a host calls it.
                return match self.apps.knows(name) {
                    true => Err("unknown_session"),
                    false if self.apps.claims(&proposal.server) && needs_session(&proposal.ask) => Err("server_of_an_app"),
                    false => then(&mut counted.sessions, None),
                };
            };
            if !session.is_of(&proposal.worker) {
                return Err("unknown_session");
            }
            let app = self.apps.get(&session.app).ok_or("unknown_app")?;
            if self.apps.claims(&proposal.server) && !app.servers.contains(&proposal.server) {
                return Err("server_of_an_app");
            }
            let stands = self.stands(snapshot, app, (name, session), proposal, (waits, now))?;
            then(&mut counted.sessions, Some(stands))
        })
    }

    fn stands(
        &self,
        snapshot: &Snapshot,
        app: &App,
        (id, session): (&str, &Session),
        proposal: &Proposal,
        (waits, now): (bool, Timestamp),
    ) -> Result<Stands, &'static str> {
        let tool = match &proposal.ask {
            Ask::Tool { name } => Some(format!("{}/{name}", proposal.server)),
            _ => None,
        };
        let effect = || {
            let (server, name) = tool.as_deref().and_then(|tool| tool.split_once('/')).unwrap_or_default();
            snapshot.catalogue().tool(server, name).map_or(Effect::Production, crate::catalogue::Tool::effect)
        };
        let mut steps: BTreeMap<String, Step> = BTreeMap::new();
        if let Some(tool) = &tool {
            let call = history::Call { tool, effect: effect(), arguments: &proposal.arguments };
            let key = self.ports.scanner().key();
            for (name, fact) in &app.facts {
                steps.extend(fact.step(call, &|text| key.tag(text.as_bytes()))?.map(|step| (name.clone(), step)));
            }
        }
        let value = |(name, fact): (&String, &history::Fact)| {
            (name.clone(), fact.value(session.history.get(name), steps.get(name), now))
        };
        let long = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let environment = session.overrides.get(&app.gates.environment_field).and_then(Value::as_str);
        let confidence = session.harvest.confidence;
        let facts = SessionFacts {
            id: id.to_owned(),
            app: app.name.clone(),
            status: if waits && !session.terminal { status::AWAITING_INPUT.to_owned() } else { session.status.clone() },
            terminal: session.terminal,
            age_s: now.duration_since(session.started).as_secs().max(0),
            calls: long(session.calls),
            same_tool: tool.as_ref().and_then(|tool| session.tools.get(tool)).copied().map_or(0, long),
            confidence: confidence.map(i64::from),
            signal: session.harvest.signal.clone(),
            handling: tool.as_deref().map_or("auto", |tool| handling(app, tool, environment)).to_owned(),
            gated: tool.as_deref().is_some_and(|tool| risk::gated(app, tool, environment, confidence)),
            overrides: session.overrides.clone(),
            facts: app.facts.iter().map(value).collect(),
        };
        let call = tool.map(|tool| CountedCall { session: id.to_owned(), tool, steps });
        Ok(Stands { facts, call })
    }

    /// What the task of a tool's call says of it. Engines' calls bring their own.
    pub(super) fn in_task(&self, snapshot: &Snapshot, proposal: &Proposal, now: Timestamp) -> Option<TaskFacts> {
        let Ask::Tool { name } = &proposal.ask else { return None };
        let id = TaskId::new(proposal.correlation.task.clone()?);
        let mut facts = self.counted(|counted| {
            let task = &counted.tasks.get(&id, now)?.task;
            task.is_of(&proposal.worker).then(|| TaskFacts { id: id.to_string(), ambient: task.ambient, zone: task.zone.clone(), ..TaskFacts::default() })
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
        if !matches!(happened, Happened::Done | Happened::Redacted | Happened::Withheld) {
            return None;
        }
        let Tells { session, tool, app, arguments } = tells;
        // An answer that nobody is given is read by nobody.
        let result = match reply {
            Reply::Answered { body, is_error: false, .. } if happened != Happened::Withheld => Some(plain(body)),
            Reply::Answered { is_error: true, .. } => return None,
            _ => None,
        };
        if result.as_ref().is_some_and(|result| result.get("isError") == Some(&Value::Bool(true))) {
            return None;
        }
        let scanner = self.ports.scanner();
        let said = rule::matched(&app, &tool, &arguments).and_then(|number| {
            let rule = app.terminal_tools.get(number)?;
            let fields = Value::Object(rule::extract(&rule.extract_fields, &arguments, result.as_ref()));
            let fields = match presentable(&fields, scanner) {
                Value::Object(fields) => fields,
                _ => Map::new(),
            };
            Some(Said { rule: number, status: rule.status.clone(), fields })
        });
        self.counted(|counted| {
            let mut harvest = counted.sessions.get(&session)?.harvest.clone();
            harvest.take(&app, &tool, &arguments);
            harvest.rationale = harvest.rationale.map(|text| scanner.mask(&text).into_owned());
            let changed = counted.sessions.get(&session).is_some_and(|session| session.harvest != harvest);
            let ran = Ran { session, tool, said, harvest: changed.then_some(harvest) };
            counted.sessions.tell(id, &ran);
            (ran.said.is_some() || ran.harvest.is_some()).then_some(ran)
        })
    }
}

/// JSON with numbers as numbers: rules compare and read them.
fn plain(json: &Json) -> Value {
    serde_json::from_str(&json.to_string()).unwrap_or_default()
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
