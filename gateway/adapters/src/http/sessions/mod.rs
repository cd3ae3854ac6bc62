//! Sessions of apps, for their workers: started, looked at, followed, ended. [`operator`] is the same for people.

pub(super) mod operator;

use super::worker::WorkerPlane;
use super::{Query, error, proposals};
use crate::identity::{Role, Token};
use crate::sessions::{Act, NotStarted, Refused, SessionBook};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use warden_core::json::{self, Limits};
use warden_core::proposal::DecisionId;
use warden_core::reason::advice;
use warden_core::session::{Changed, Session, SessionEvent};

type Plane = State<Arc<WorkerPlane>>;

/// The longest that anybody waits for news, in seconds.
const WAIT_MAX_S: u64 = 55;
/// Sessions on one page, unless it is asked for fewer or more.
const LISTED: usize = 1000;
const LISTED_MAX: usize = 10_000;
const LOOK: Duration = Duration::from_millis(100);

/// The routes.
pub(super) fn routes() -> Router<Arc<WorkerPlane>> {
    Router::new()
        .route("/v1/sessions", post(start).get(list))
        .route("/v1/sessions/{id}", get(show))
        .route("/v1/sessions/{id}/events", get(events))
        .route("/v1/sessions/{id}/finalise", post(finalise))
        .route("/v1/sessions/{id}/{act}", post(act))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    /// The app.
    app: String,
    /// What the session is started with, as the app's schema has it.
    #[serde(default)]
    state_overrides: Option<Map<String, Value>>,
    /// For another worker. A host's to say.
    #[serde(default)]
    worker: Option<String>,
}

async fn start(State(plane): Plane, headers: HeaderMap, body: Body) -> Response {
    let done = async {
        let token = plane.token(&headers)?;
        let said: Start = read(&plane.body(body).await?)?;
        let other = said.worker.filter(|worker| *worker != token.worker);
        if other.is_some() && token.role != Role::Host {
            let message = "`worker` is a host's to say: `warden token issue WORKER --role host`";
            return Err(Box::new(error(StatusCode::FORBIDDEN, "hosts_only", message)));
        }
        let worker = other.as_deref().unwrap_or(&token.worker);
        let by = other.as_ref().map(|_| token.worker.as_str());
        let id = plane.sessions.start(worker, by, &said.app, said.state_overrides.unwrap_or_default()).await;
        let id = id.map_err(|e| Box::new(not_started(&e)))?;
        let mut response = (StatusCode::CREATED, Json(told_of(&plane, &id)?)).into_response();
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-warden-session", value);
        }
        Ok(response)
    };
    answered(done.await)
}

/// Whose sessions a token is good for: its own worker's, or with a host's everybody's.
fn whose(token: &Token) -> Option<&str> {
    (token.role != Role::Host).then_some(token.worker.as_str())
}

/// The session of a path, when it is this caller's. A delegate is in the one that its token names, and in no other of its worker's.
fn found(plane: &WorkerPlane, headers: &HeaderMap, id: &str) -> Result<Token, Box<Response>> {
    let token = plane.token(headers)?;
    let is_bound_elsewhere = token.bound.as_ref().is_some_and(|bound| bound.session.as_deref() != Some(id));
    if is_bound_elsewhere || !plane.sessions.is_of(id, whose(&token)) {
        return Err(refused(&Refused::Unknown));
    }
    Ok(token)
}

fn not_started(e: &NotStarted) -> Response {
    match e {
        NotStarted::App => error(StatusCode::NOT_FOUND, "unknown_app", advice("unknown_app").unwrap_or_default()),
        NotStarted::Overrides(what) => error(StatusCode::UNPROCESSABLE_ENTITY, "overrides_invalid", what),
        NotStarted::TooMany(most) => {
            let message = format!("{most} sessions of this app are open, and no more may be: end one first");
            let mut response = error(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", &message);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            response
        }
        NotStarted::Refused(refusal) => proposals::refused(refusal),
        NotStarted::Journal => {
            error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the session could not be recorded: try again later")
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    app: Option<String>,
    worker: Option<String>,
    status: Option<String>,
    /// Only sessions with an id behind this one.
    after: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

async fn list(State(plane): Plane, Query(which): Query<Which>, headers: HeaderMap) -> Response {
    let done = plane.token(&headers).map(|token| {
        // Whatever is asked for, only their own; a host's are everybody's, and a delegate's the one that its token names.
        let bound = token.bound.as_ref().map(|bound| bound.session.clone().unwrap_or_default());
        Json(listed(&plane.sessions, &which, whose(&token), bound.as_deref())).into_response()
    });
    answered(done)
}

fn listed(book: &SessionBook, which: &Which, of: Option<&str>, only: Option<&str>) -> Value {
    let fits = |id: &str, session: &Session| {
        of.is_none_or(|worker| session.is_of(worker))
            && only.is_none_or(|only| only == id)
            && which.after.as_deref().is_none_or(|after| id > after)
            && which.app.as_ref().is_none_or(|app| *app == session.app)
            && which.worker.as_ref().is_none_or(|worker| *worker == session.worker)
    };
    let limit = which.limit.unwrap_or(LISTED).min(LISTED_MAX);
    let status = which.status.as_deref();
    let (sessions, more) = book.listed(fits, status, limit, shown);
    let next_after = more.then(|| sessions.last().map(|last| last["session"].clone())).flatten();
    json!({ "sessions": sessions, "next_after": next_after })
}

async fn show(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let done = found(&plane, &headers, &id).and_then(|_| Ok(Json(told_of(&plane, &id)?).into_response()));
    answered(done)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    /// Only events with a larger number.
    after: Option<u64>,
    /// Seconds to wait for one.
    #[serde(default)]
    wait: u64,
}

/// What became of a session. What a person has written is given to its worker, or its host, here and nowhere else.
async fn events(
    State(plane): Plane,
    Path(id): Path<String>,
    Query(Since { after, wait }): Query<Since>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = found(&plane, &headers, &id) {
        return *refused;
    }
    let until = tokio::time::Instant::now() + Duration::from_secs(wait.min(WAIT_MAX_S));
    while !plane.sessions.has_news(&id, after) && tokio::time::Instant::now() < until && !plane.is_stopping() {
        tokio::time::sleep(LOOK).await;
    }
    let session = match plane.sessions.get(&id) {
        Ok(session) => session,
        Err(e) => return *refused(&e),
    };
    let news = session.events.iter().filter(|(number, ..)| after.is_none_or(|after| *number > after));
    let news = news.map(|(number, at, event)| {
        let mut shown = told(event);
        shown["number"] = json!(number);
        shown["at"] = json!(at);
        if let SessionEvent::Status(Changed { text: Some(written), .. }) = event {
            shown["input"] = json!(plane.sessions.read(&session, written));
        }
        shown
    });
    let status = session.shown_status(!plane.sessions.held(&id).is_empty());
    Json(json!({ "session": id, "status": status, "events": news.collect::<Vec<_>>() })).into_response()
}

/// Nothing can be said: what ran says how a session ends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn finalise(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let done = async {
        let token = found(&plane, &headers, &id)?;
        let bytes = plane.body(body).await?;
        if !bytes.is_empty() {
            read::<Nothing>(&bytes)?;
        }
        let changed = plane.sessions.finalise(&id, &token.worker).await.map_err(|e| refused(&e))?;
        let mut said = told_of(&plane, &id)?;
        said["transitioned"] = changed.is_some().into();
        if let Some(changed) = changed {
            said["from"] = json!(changed.from);
            said["cause"] = json!(changed.cause);
        }
        Ok(Json(said).into_response())
    };
    answered(done.await)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Why {
    reason: Option<String>,
}

async fn act(State(plane): Plane, Path((id, act)): Path<(String, String)>, headers: HeaderMap, body: Body) -> Response {
    let done = async {
        let token = found(&plane, &headers, &id)?;
        let act = match act.as_str() {
            "pause" => Act::Pause,
            "fail" => Act::Fail,
            "retry" => Act::Retry,
            _ => {
                let message = "a worker can `finalise`, `pause`, `fail` and `retry` its session";
                return Err(Box::new(error(StatusCode::NOT_FOUND, "no_such_path", message)));
            }
        };
        let bytes = plane.body(body).await?;
        let why: Why = if bytes.is_empty() { Why::default() } else { read(&bytes)? };
        plane.sessions.act(&id, &token.worker, act, why.reason.as_deref()).await.map_err(|e| refused(&e))?;
        Ok(Json(told_of(&plane, &id)?).into_response())
    };
    answered(done.await)
}

fn told_of(plane: &WorkerPlane, id: &str) -> Result<Value, Box<Response>> {
    let session = plane.sessions.get(id).map_err(|e| refused(&e))?;
    Ok(shown(id, &session, &plane.sessions.held(id)))
}

/// What is told of a session: to its worker, and to people.
fn shown(id: &str, session: &Session, held: &[DecisionId]) -> Value {
    let mut shown = json!({ "session": id, "app": session.app, "worker": session.worker, "status": session.shown_status(!held.is_empty()),
        "terminal": session.terminal, "kind": session.kind, "started": session.started, "since": session.since,
        "state_overrides": session.overrides, "fields": session.fields, "calls": session.calls, "retries": session.retries,
        "confidence": session.harvest.confidence.map(|thousandths| f64::from(thousandths) / 1000.0),
        "signal": session.harvest.signal, "rationale": session.harvest.rationale });
    for (name, value) in [
        ("by", json!(session.by)),
        ("reason", json!(session.reason)),
        ("escalated_to", json!(session.escalated_to)),
        ("held", json!(held)),
    ] {
        if !value.is_null() && value != json!([]) {
            shown[name] = value;
        }
    }
    shown
}

/// An event without what only its worker may read.
fn told(event: &SessionEvent) -> Value {
    let mut shown = json!(event);
    if let Some(members) = shown.as_object_mut() {
        members.shift_remove("text");
    }
    shown
}

/// The body of a request. What serde says of it may quote a value, so only the place is told.
fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Box<Response>> {
    json::parse(bytes, Limits { depth_max: 128, ..Limits::default() })
        .map_err(|e| Box::new(error(StatusCode::BAD_REQUEST, "malformed_request", &e.to_string())))?;
    serde_json::from_slice(bytes).map_err(|e| {
        let said = e.to_string();
        let message = match said.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
            Some((name, _)) if name.len() <= 64 => format!("`{}` is no member of this request", name.escape_debug()),
            _ => format!("the body is not what is asked for (line {}, column {})", e.line(), e.column()),
        };
        Box::new(error(StatusCode::BAD_REQUEST, "malformed_request", &message))
    })
}

fn refused(e: &Refused) -> Box<Response> {
    let status = match e {
        Refused::Unknown => StatusCode::NOT_FOUND,
        Refused::Busy => StatusCode::TOO_MANY_REQUESTS,
        Refused::Not(_) => StatusCode::CONFLICT,
        Refused::Invalid(_) => StatusCode::BAD_REQUEST,
        Refused::Secret(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refused::Journal(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = error(status, e.code(), &e.to_string());
    if matches!(e, Refused::Busy) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Box::new(response)
}

fn answered(done: Result<Response, Box<Response>>) -> Response {
    done.unwrap_or_else(|refused| *refused)
}
