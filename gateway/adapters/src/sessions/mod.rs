//! Sessions as the running gateway keeps them: started, ended, paused and taken up again by recorded changes. One writer of a session at a
//! time; whoever comes second is told so at once.

mod people;
mod start;

pub use people::{Resume, Resumed};
pub use start::{NotStarted, Schemas};

use crate::acks::Acker;
use crate::world::{World, now};
use jiff::SignedDuration;
use serde_json::Map;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use warden_core::journal::record::{Body, Record};
use warden_core::pipeline::Gate;
use warden_core::port::{Journal, JournalError, Room};
use warden_core::proposal::DecisionId;
use warden_core::session::app::App;
use warden_core::session::locks::{Locks, Writer};
use warden_core::session::rule::{NO_TERMINAL_TOOL, TEAM};
use warden_core::session::status::{self, Kind};
use warden_core::session::{Cause, Changed, Session, SessionChange, SessionEvent};
use warden_core::task::state::Reserved;

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 1000;

/// See the module.
pub struct SessionBook {
    gate: Arc<Gate<World>>,
    acker: Arc<Acker>,
    schemas: Schemas,
    reserved: Reserved,
    locks: Locks,
    /// Sessions of each app that are being started. A std mutex: nothing awaits while it is held.
    starting: Mutex<HashMap<String, u64>>,
}

/// Why a session is not changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is none, or it is somebody else's.
    #[error("no such session")]
    Unknown,
    /// Somebody is at it, or a call of it is on its way.
    #[error("somebody is changing the session, or a call of it is on its way: try again")]
    Busy,
    /// It stands otherwise.
    #[error("{0}")]
    Not(String),
    /// What was said cannot be.
    #[error("{0}")]
    Invalid(String),
    /// It holds a secret value, which no worker is given.
    #[error("the text holds a secret value ({0}), and nobody is given one: take it out")]
    Secret(String),
    /// It could not be recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Refused {
    /// The reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::Unknown => "unknown_session",
            Refused::Busy => "session_busy",
            Refused::Not(_) => "session_state",
            Refused::Invalid(_) => "malformed_request",
            Refused::Secret(_) => "secret_found",
            Refused::Journal(e) => e.reason(),
        }
    }
}

/// What a worker says of its own session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It needs a person.
    Pause,
    /// It cannot go on.
    Fail,
    /// It tries once more.
    Retry,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Act::Pause => "pause",
            Act::Fail => "fail",
            Act::Retry => "retry",
        }
    }
}

impl SessionBook {
    /// Of apps whose sessions are started as `schemas` says.
    pub fn new(gate: Arc<Gate<World>>, acker: Arc<Acker>, schemas: Schemas, reserved: Reserved) -> Self {
        Self { gate, acker, schemas, reserved, locks: Locks::default(), starting: Mutex::default() }
    }

    /// One session; with a worker, only its own.
    pub fn get(&self, id: &str, worker: Option<&str>) -> Result<Session, Refused> {
        let found = self.gate.counted(|counted| counted.sessions.get(id).cloned());
        found.filter(|session| worker.is_none_or(|worker| session.is_of(worker))).ok_or(Refused::Unknown)
    }

    /// The sessions that `wanted` wants, by id.
    pub fn all(&self, wanted: impl Fn(&Session) -> bool) -> Vec<(String, Session)> {
        self.gate.counted(|counted| {
            let all = counted.sessions.iter().filter(|(_, session)| wanted(session));
            all.map(|(id, session)| (id.clone(), session.clone())).collect()
        })
    }

    /// The calls of a session that wait for a person.
    pub fn held(&self, id: &str) -> Vec<DecisionId> {
        self.gate.acks(|live| {
            let parked = live.acks.parked.iter().filter(|(_, parked)| parked.waits_in(id));
            parked.map(|(id, _)| id.clone()).collect()
        })
    }

    /// The status as people see it: what waits for one of them waits for input.
    pub fn status(&self, id: &str, session: &Session) -> String {
        if !session.terminal && !self.held(id).is_empty() {
            status::AWAITING_INPUT.to_owned()
        } else {
            session.status.clone()
        }
    }

    /// The right to change a session that there is.
    fn write(&self, id: &str, worker: Option<&str>) -> Result<(Writer<'_>, Session), Refused> {
        self.get(id, worker)?;
        let writer = self.locks.try_write(id).ok_or(Refused::Busy)?;
        // As it is now that nobody else changes it.
        let session = self.get(id, worker)?;
        Ok((writer, session))
    }

    fn app(&self, session: &Session) -> Result<Arc<App>, Refused> {
        let gone = || Refused::Not(format!("its app `{}` is not configured any more", session.app));
        self.gate.apps().get(&session.app).cloned().ok_or_else(gone)
    }

    /// Records a change, and takes it in.
    async fn record(&self, writer: &Writer<'_>, event: SessionEvent, room: Room) -> Result<(), JournalError> {
        let change = SessionChange { session: writer.session().to_owned(), event };
        let at = now();
        self.gate.ports.append(Record::new(at, Body::Session(Box::new(change.clone()))), room).await?;
        self.gate.counted(|counted| counted.sessions.apply(at, &change));
        Ok(())
    }

    /// Ends a session whose worker is through: with the status of the newest terminal tool that really ran, or with its app's default.
    /// Nothing when it is over, waits for a person, or has no default.
    pub async fn finalise(&self, id: &str, worker: Option<&str>) -> Result<Option<Changed>, Refused> {
        let (writer, session) = self.write(id, worker)?;
        let app = self.app(&session)?;
        if !app.may_finalise(&self.status(id, &session)) {
            return Ok(None);
        }
        // What a call on its way comes to may be what counts.
        if self.gate.counted(|counted| counted.sessions.is_flying(id)) {
            return Err(Refused::Busy);
        }
        let Some(changed) = ended(&app, &session) else { return Ok(None) };
        self.record(&writer, SessionEvent::Status(changed.clone()), Room::Ordinary).await?;
        Ok(Some(changed))
    }

    /// What a worker says of its own session.
    pub async fn act(&self, id: &str, worker: Option<&str>, act: Act, reason: Option<&str>) -> Result<Changed, Refused> {
        let (writer, session) = self.write(id, worker)?;
        let app = self.app(&session)?;
        let stands = self.status(id, &session);
        let fits = match act {
            Act::Pause | Act::Fail => app.may_finalise(&stands),
            Act::Retry => stands == status::ERROR,
        };
        if !fits {
            return Err(Refused::Not(format!("`{}` is not for a session that is `{stands}`", act.name())));
        }
        let to = match act {
            Act::Pause => status::AWAITING_INPUT,
            Act::Fail => status::ERROR,
            Act::Retry => status::RUNNING,
        };
        let reason = reason.map(|text| self.masked(text));
        let cause = Cause::Worker { act: act.name().to_owned() };
        let changed = Changed { reason, ..change(&app, &stands, to, cause) };
        self.record(&writer, SessionEvent::Status(changed.clone()), Room::Ordinary).await?;
        Ok(changed)
    }

    /// Ends sessions that are open for longer than their app lets them be.
    pub async fn sweep(&self) {
        let time = now();
        let late: Vec<(String, Arc<App>)> = self.gate.counted(|counted| {
            let open = counted.sessions.iter().filter(|(_, session)| !session.terminal);
            let late = open.filter_map(|(id, session)| {
                let app = self.gate.apps().get(&session.app)?;
                let most = SignedDuration::from_secs(i64::try_from(app.max_open_s?).unwrap_or(i64::MAX));
                (time.duration_since(session.started) > most).then(|| (id.clone(), app.clone()))
            });
            late.collect()
        });
        for (id, app) in late {
            let Ok((writer, session)) = self.write(&id, None) else { continue };
            if session.terminal || self.gate.counted(|counted| counted.sessions.is_flying(&id)) {
                continue;
            }
            let to = app.default_terminal_status.as_deref().unwrap_or(status::STOPPED);
            let reason = Some("it was open for longer than its app allows".to_owned());
            let changed = Changed { reason, ..change(&app, &self.status(&id, &session), to, Cause::DefaultTerminalStatus) };
            if let Err(e) = self.record(&writer, SessionEvent::Status(changed), Room::Reserved).await {
                tracing::error!(error = %e, session = id, "a session that is open for too long could not be ended");
            }
        }
    }

    fn masked(&self, text: &str) -> String {
        let cut: String = text.trim().chars().take(REASON_MAX).collect();
        self.gate.ports.scanner.mask(&cut).into_owned()
    }
}

/// How a session ends whose worker is through.
fn ended(app: &App, session: &Session) -> Option<Changed> {
    let Some(latest) = &session.latest else {
        let to = app.default_terminal_status.as_deref()?;
        let reason = Some(NO_TERMINAL_TOOL.to_owned());
        return Some(Changed { reason, ..change(app, &session.status, to, Cause::DefaultTerminalStatus) });
    };
    let cause = Cause::Tool { tool: latest.tool.clone(), decision: latest.decision.clone() };
    let mut changed = change(app, &session.status, &latest.said.status, cause);
    if changed.means == Kind::Escalation {
        changed.escalated_to = latest.said.fields.get(TEAM).and_then(|team| team.as_str()).map(str::to_owned);
    }
    changed.fields.clone_from(&latest.said.fields);
    Some(changed)
}

fn change(app: &App, from: &str, to: &str, cause: Cause) -> Changed {
    let status = app.status(to);
    Changed {
        from: from.to_owned(),
        to: to.to_owned(),
        terminal: status.as_ref().is_some_and(|status| status.terminal),
        means: status.map_or(Kind::Pending, |status| status.kind),
        cause,
        fields: Map::new(),
        reason: None,
        escalated_to: None,
        text: None,
    }
}
