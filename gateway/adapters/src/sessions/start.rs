//! The start of a session: what it is started with is looked at first, then policy is asked, and only then it gets its id.

use super::SessionBook;
use crate::world::now;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use warden_core::composition::tree::is_within as is_within_levels;
use warden_core::journal::record::{Body, Record};
use warden_core::json::Json;
use warden_core::outcome::Reply;
use warden_core::pipeline::{self, Answer, Permit, Refusal, Upstream};
use warden_core::port::{Journal, Room};
use warden_core::proposal::{Ask, Correlation, Door, Mode, Proposal};
use warden_core::session::app::App;
use warden_core::session::{SessionChange, SessionEvent, Started};

/// What a session is started with has at most so many bytes: it is in the record of each of its decisions.
const OVERRIDES_MAX: usize = 16 << 10;
/// And is nested so deep.
const OVERRIDES_DEPTH_MAX: usize = 8;

/// What sessions may be started with, by app.
#[derive(Clone, Default)]
pub struct Schemas(BTreeMap<String, Arc<jsonschema::Validator>>);

impl Schemas {
    /// Reads the schema of an app. Fails with a sentence when it is none.
    pub fn add(&mut self, app: &str, schema: &Value) -> Result<(), String> {
        let validator = jsonschema::validator_for(schema).map_err(|e| format!("it is no JSON Schema: {e}"))?;
        self.0.insert(app.to_owned(), Arc::new(validator));
        Ok(())
    }

    /// What is wrong with what a session of an app would be started with: a place and a sentence, never a value.
    fn problem(&self, app: &str, overrides: &Value) -> Option<String> {
        let validator = self.0.get(app)?;
        let error = validator.iter_errors(overrides).next()?;
        let at = error.instance_path().to_string();
        let place = if at.is_empty() { "state_overrides".to_owned() } else { format!("state_overrides{at}") };
        let masked = error.masked().to_string();
        Some(format!("`{place}`: {masked}"))
    }
}

/// Why a session is not started.
#[derive(Debug)]
pub enum NotStarted {
    /// There is no such app.
    App,
    /// What it would be started with.
    Overrides(String),
    /// As many of the app are open as may be.
    TooMany(u32),
    /// Policy.
    Refused(Box<Refusal>),
    /// It was allowed and could not be recorded.
    Journal,
}

/// A place among the sessions of an app, kept while one is started.
struct Starting<'b> {
    starting: &'b Mutex<HashMap<String, u64>>,
    app: String,
    is_taken: AtomicBool,
}

impl Starting<'_> {
    /// The session is there from here on, and counted by itself. Nobody sees it counted twice.
    fn becomes(&self, a_session: impl FnOnce()) {
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        a_session();
        give_back(&mut starting, &self.app);
        self.is_taken.store(true, Ordering::Release);
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if !self.is_taken.load(Ordering::Acquire) {
            give_back(&mut self.starting.lock().unwrap_or_else(PoisonError::into_inner), &self.app);
        }
    }
}

fn give_back(starting: &mut HashMap<String, u64>, app: &str) {
    if let Some(count) = starting.get_mut(app) {
        *count = count.saturating_sub(1);
    }
}

impl SessionBook {
    /// Starts a session of `worker`; `by` is who asks, where that is another one. `None` members of `overrides` are left out.
    pub async fn start(
        &self,
        worker: &str,
        by: Option<&str>,
        app: &str,
        overrides: Map<String, Value>,
    ) -> Result<String, NotStarted> {
        let app = self.gate.apps().get(app).cloned().ok_or(NotStarted::App)?;
        let overrides: Map<String, Value> = overrides.into_iter().filter(|(_, value)| !value.is_null()).collect();
        if let Some(name) = overrides.keys().find(|name| self.reserved.holds(name)) {
            return Err(NotStarted::Overrides(format!(
                "`state_overrides/{}` is reserved for the host",
                name.escape_debug()
            )));
        }
        let whole = Value::Object(overrides.clone());
        let bytes = whole.to_string().len();
        if bytes > OVERRIDES_MAX || !is_within_levels(&whole, OVERRIDES_DEPTH_MAX) {
            return Err(NotStarted::Overrides(format!(
                "`state_overrides`: {bytes} bytes; at most {OVERRIDES_MAX} are kept, nested {OVERRIDES_DEPTH_MAX} levels deep"
            )));
        }
        if let Some(problem) = self.schemas.problem(&app.name, &whole) {
            return Err(NotStarted::Overrides(problem));
        }
        let place = self.place(&app).ok_or(NotStarted::TooMany(app.max_sessions))?;
        let begins =
            Begins { book: self, place: &place, app: &app, worker, by, overrides: &overrides, id: Mutex::default() };
        let proposal = Proposal {
            door: Door::WorkerPlane,
            worker: worker.to_owned(),
            connection: String::new(),
            server: String::new(),
            method: "sessions/start".into(),
            arguments: Json::Object(vec![("app".into(), Json::String(app.name.clone()))]),
            envelope: Json::Object(vec![("state_overrides".into(), Json::from(&Value::Object(overrides.clone())))]),
            payload: json!({ "app": app.name, "state_overrides": overrides }).to_string(),
            ask: Ask::Session { app: app.name.clone(), overrides: overrides.clone() },
            caller: by.map(str::to_owned),
            correlation: Correlation::default(),
            mode: Mode::default(),
            barred: None,
        };
        match pipeline::handle(&self.gate, proposal, &begins).await {
            Answer::Refused(refusal) => Err(NotStarted::Refused(Box::new(refusal))),
            Answer::Answered { .. } | Answer::Ended { .. } => {
                begins.id.into_inner().unwrap_or_else(PoisonError::into_inner).ok_or(NotStarted::Journal)
            }
        }
    }

    fn place(&self, app: &App) -> Option<Starting<'_>> {
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = starting.entry(app.name.clone()).or_default();
        let open = self.gate.counted(|counted| counted.sessions.open_of(&app.name));
        (open + *count < u64::from(app.max_sessions)).then(|| {
            *count += 1;
            Starting { starting: &self.starting, app: app.name.clone(), is_taken: AtomicBool::new(false) }
        })
    }
}

/// Makes a permitted session: its id, its record, and then it is there.
struct Begins<'b> {
    book: &'b SessionBook,
    place: &'b Starting<'b>,
    app: &'b App,
    worker: &'b str,
    by: Option<&'b str>,
    overrides: &'b Map<String, Value>,
    id: Mutex<Option<String>>,
}

impl Upstream for Begins<'_> {
    async fn forward(&self, permit: Permit) -> Reply {
        let gate = &self.book.gate;
        let at = now();
        let today = at.to_zoned(TimeZone::UTC).date();
        let id = gate.counted(|counted| counted.sessions.mint(&self.app.session_id_prefix, today));
        let started = Started {
            app: self.app.name.clone(),
            worker: self.worker.to_owned(),
            by: self.by.map(str::to_owned),
            decision: permit.decision().clone(),
            overrides: self.overrides.clone(),
        };
        let change = SessionChange { session: id.clone(), event: SessionEvent::Started(started) };
        let record = Record::new(at, Body::Session(Box::new(change.clone())));
        if gate.ports.append(record, Room::Ordinary).await.is_err() {
            return Reply::NotSent;
        }
        self.place.becomes(|| gate.counted(|counted| counted.sessions.apply(at, &change)));
        *self.id.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        Reply::Passed { bytes: permit.into_payload().as_str().len() as u64, failed: false, finding: None }
    }
}
