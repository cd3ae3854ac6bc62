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
use warden_core::ack::Parked;
use warden_core::journal::record::{Body, Record};
use warden_core::pipeline::Gate;
use warden_core::port::{Journal, JournalError, Room};
use warden_core::proposal::DecisionId;
use warden_core::session::app::App;
use warden_core::session::locks::{Locks, Writer};
use warden_core::session::rule::{Finalised, finalise};
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

    /// One session.
    pub fn get(&self, id: &str) -> Result<Session, Refused> {
        self.gate.counted(|counted| counted.sessions.get(id).cloned()).ok_or(Refused::Unknown)
    }

    /// Whether there is a session of this id; with a worker, one of its own.
    pub fn is_of(&self, id: &str, worker: Option<&str>) -> bool {
        let of = |session: &Session| worker.is_none_or(|worker| session.is_of(worker));
        self.gate.counted(|counted| counted.sessions.get(id).is_some_and(of))
    }

    /// Whether something became of it behind this event.
    pub fn has_news(&self, id: &str, after: Option<u64>) -> bool {
        let news = |session: &Session| after.is_none_or(|after| session.next_event > after.saturating_add(1));
        self.gate.counted(|counted| counted.sessions.get(id).is_none_or(news))
    }

    /// What `show` makes of the first sessions that fit, by id, and whether there are more. With a status only those that have it.
    pub fn listed<T>(
        &self,
        fits: impl Fn(&str, &Session) -> bool,
        status: Option<&str>,
        limit: usize,
        show: impl Fn(&str, &Session, &[DecisionId]) -> T,
    ) -> (Vec<T>, bool) {
        let mut held: HashMap<String, Vec<DecisionId>> = HashMap::new();
        self.gate.acks(|live| {
            for (id, parked) in &live.acks.parked {
                if let Some(session) = parked.session.as_ref().filter(|session| parked.waits_in(session)) {
                    held.entry(session.clone()).or_default().push(id.clone());
                }
            }
        });
        let of = |id: &str| held.get(id).map_or(&[][..], Vec::as_slice);
        self.gate.counted(|counted| {
            let all = counted.sessions.iter().filter(|(id, session)| {
                fits(id, session) && status.is_none_or(|status| session.shown_status(!of(id).is_empty()) == status)
            });
            let mut shown: Vec<T> = all.take(limit + 1).map(|(id, session)| show(id, session, of(id))).collect();
            let more = shown.len() > limit;
            shown.truncate(limit);
            (shown, more)
        })
    }

    /// The calls of a session that wait for a person.
    pub fn held(&self, id: &str) -> Vec<DecisionId> {
        self.parked(id, |parked| parked.waits_in(id))
    }

    fn parked(&self, id: &str, wanted: impl Fn(&Parked) -> bool) -> Vec<DecisionId> {
        self.gate.acks(|live| {
            let parked = live.acks.parked.iter().filter(|(_, parked)| parked.session.as_deref() == Some(id));
            parked.filter(|(_, parked)| wanted(parked)).map(|(id, _)| id.clone()).collect()
        })
    }

    fn status(&self, id: &str, session: &Session) -> String {
        session.shown_status(!self.held(id).is_empty()).to_owned()
    }

    /// The right to change a session that there is.
    fn write(&self, id: &str) -> Result<(Writer<'_>, Session), Refused> {
        self.get(id)?;
        let writer = self.locks.try_write(id).ok_or(Refused::Busy)?;
        // As it is now that nobody else changes it.
        let session = self.get(id)?;
        Ok((writer, session))
    }

    /// A session as it is when no call of it is on its way: what one comes to may be what counts.
    fn at_rest(&self, id: &str) -> Result<Session, Refused> {
        self.gate.counted(|counted| match counted.sessions.is_flying(id) {
            true => Err(Refused::Busy),
            false => counted.sessions.get(id).cloned().ok_or(Refused::Unknown),
        })
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
    pub async fn finalise(&self, id: &str, caller: &str) -> Result<Option<Changed>, Refused> {
        let (writer, session) = self.write(id)?;
        let app = self.app(&session)?;
        if !app.may_finalise(&self.status(id, &session)) {
            return Ok(None);
        }
        let session = self.at_rest(id)?;
        let Some(changed) = ended(&app, &session) else { return Ok(None) };
        let changed = Changed { caller: other(caller, &session), ..changed };
        self.record(&writer, SessionEvent::Status(changed.clone()), Room::Ordinary).await?;
        Ok(Some(changed))
    }

    /// What a worker says of its own session, or whoever may speak for it: `caller`.
    pub async fn act(&self, id: &str, caller: &str, act: Act, reason: Option<&str>) -> Result<Changed, Refused> {
        let (writer, session) = self.write(id)?;
        let app = self.app(&session)?;
        if act != Act::Pause {
            self.at_rest(id)?;
        }
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
        let caller = other(caller, &session);
        let changed = Changed { reason, caller, ..change(Some(&app), &stands, to, cause) };
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
            let Ok((writer, _)) = self.write(&id) else { continue };
            let Ok(session) = self.at_rest(&id) else { continue };
            if session.terminal {
                continue;
            }
            let late = "it was open for longer than its app allows";
            let stop = || change(Some(&app), &session.status, status::STOPPED, Cause::DefaultTerminalStatus);
            let changed = Changed { reason: Some(late.to_owned()), ..ended(&app, &session).unwrap_or_else(stop) };
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

/// Whoever asks, where that is not the session's own worker.
fn other(caller: &str, session: &Session) -> Option<String> {
    (caller != session.worker).then(|| caller.to_owned())
}

/// How a session ends whose worker is through.
fn ended(app: &App, session: &Session) -> Option<Changed> {
    let newest = session.latest.as_ref();
    let Finalised { status, fields, reason, escalated_to } = finalise(app, newest.map(|latest| &latest.said))?;
    // Only the default comes with a reason.
    let cause = match newest.filter(|_| reason.is_none()) {
        Some(latest) => Cause::Tool { tool: latest.tool.clone(), decision: latest.decision.clone() },
        None => Cause::DefaultTerminalStatus,
    };
    Some(Changed { fields, reason, escalated_to, ..change(Some(app), &session.status, &status, cause) })
}

/// A change to a status of an app; without one to a status that every session has.
fn change(app: Option<&App>, from: &str, to: &str, cause: Cause) -> Changed {
    let status = app.map_or_else(|| status::built_in(to), |app| app.status(to));
    Changed {
        from: from.to_owned(),
        to: to.to_owned(),
        terminal: status.as_ref().is_some_and(|status| status.terminal),
        means: status.map_or(Kind::Pending, |status| status.kind),
        cause,
        caller: None,
        fields: Map::new(),
        reason: None,
        escalated_to: None,
        text: None,
    }
}
