//! Sessions of apps, for their workers: started, looked at, followed, ended. [`operator`] is the same for people.

pub(super) mod operator;

use super::worker::WorkerPlane;
use super::{error, proposals};
use crate::identity::{Role, Token};
use crate::sessions::{Act, NotStarted, Refused, SessionBook};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use warden_core::reason::advice;
use warden_core::session::{Changed, Session, SessionEvent};
use warden_core::verdict::Verdict;

type Plane = State<Arc<WorkerPlane>>;

/// The longest that anybody waits for news, in seconds.
const WAIT_MAX_S: u64 = 55;
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
        let session = plane.sessions.get(&id, None).map_err(|e| refused(&e))?;
        let mut response = (StatusCode::CREATED, Json(shown(&plane.sessions, &id, &session))).into_response();
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
        NotStarted::Refused(refusal) => {
            let held = refusal.verdict == Verdict::Escalate;
            let status = match refusal.reason.starts_with("journal_") {
                true => StatusCode::SERVICE_UNAVAILABLE,
                false if held => StatusCode::ACCEPTED,
                false => StatusCode::FORBIDDEN,
            };
            let mut response = error(status, &refusal.reason, refusal.advice.as_deref().unwrap_or("refused by policy"));
            if let Ok(value) = HeaderValue::from_str(refusal.id.as_str()) {
                response.headers_mut().insert("x-warden-decision", value);
            }
            if held {
                proposals::locate(response.headers_mut(), &refusal.id);
            }
            response
        }
        NotStarted::Journal => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the session could not be recorded: try again later"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    app: Option<String>,
    worker: Option<String>,
    status: Option<String>,
}

async fn list(State(plane): Plane, Query(which): Query<Which>, headers: HeaderMap) -> Response {
    let done = plane.token(&headers).map(|token| {
        // Whatever is asked for, only their own; a host's are everybody's.
        Json(listed(&plane.sessions, &which, whose(&token))).into_response()
    });
    answered(done)
}

fn listed(book: &SessionBook, which: &Which, of: Option<&str>) -> Value {
    let all = book.all(|session| {
        of.is_none_or(|worker| session.is_of(worker))
            && which.app.as_ref().is_none_or(|app| *app == session.app)
            && which.worker.as_ref().is_none_or(|worker| *worker == session.worker)
    });
    let all = all.iter().map(|(id, session)| shown(book, id, session));
    let fits = |shown: &Value| which.status.as_ref().is_none_or(|status| shown["status"] == status.as_str());
    json!({ "sessions": all.filter(fits).collect::<Vec<_>>() })
}

async fn show(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let done = plane.token(&headers).and_then(|token| {
        let session = plane.sessions.get(&id, whose(&token)).map_err(|e| refused(&e))?;
        Ok(Json(shown(&plane.sessions, &id, &session)).into_response())
    });
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

/// What became of a session. What a person has written is given to its worker here and nowhere else.
async fn events(
    State(plane): Plane,
    Path(id): Path<String>,
    Query(Since { after, wait }): Query<Since>,
    headers: HeaderMap,
) -> Response {
    let token = match plane.token(&headers) {
        Ok(token) => token,
        Err(refused) => return *refused,
    };
    let until = tokio::time::Instant::now() + Duration::from_secs(wait.min(WAIT_MAX_S));
    loop {
        let session = match plane.sessions.get(&id, whose(&token)) {
            Ok(session) => session,
            Err(e) => return *refused(&e),
        };
        let news = session.events.iter().filter(|(number, ..)| after.is_none_or(|after| *number > after));
        let news: Vec<Value> = news
            .map(|(number, at, event)| {
                let mut shown = told(event);
                shown["number"] = json!(number);
                shown["at"] = json!(at);
                if let SessionEvent::Status(Changed { text: Some(written), .. }) = event {
                    shown["input"] = json!(plane.sessions.read(&session, written));
                }
                shown
            })
            .collect();
        if !news.is_empty() || tokio::time::Instant::now() >= until || plane.is_stopping() {
            let status = plane.sessions.status(&id, &session);
            return Json(json!({ "session": id, "status": status, "events": news })).into_response();
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn finalise(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let done = async {
        let token = plane.token(&headers)?;
        let changed = plane.sessions.finalise(&id, whose(&token)).await.map_err(|e| refused(&e))?;
        let session = plane.sessions.get(&id, None).map_err(|e| refused(&e))?;
        let mut said = shown(&plane.sessions, &id, &session);
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

async fn act(
    State(plane): Plane,
    Path((id, act)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let done = async {
        let token = plane.token(&headers)?;
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
        plane.sessions.act(&id, whose(&token), act, why.reason.as_deref()).await.map_err(|e| refused(&e))?;
        let session = plane.sessions.get(&id, None).map_err(|e| refused(&e))?;
        Ok(Json(shown(&plane.sessions, &id, &session)).into_response())
    };
    answered(done.await)
}

/// What is told of a session: to its worker, and to people.
fn shown(book: &SessionBook, id: &str, session: &Session) -> Value {
    let mut shown = json!({ "session": id, "app": session.app, "worker": session.worker, "status": book.status(id, session),
        "terminal": session.terminal, "kind": session.kind, "started": session.started, "since": session.since,
        "state_overrides": session.overrides, "fields": session.fields, "calls": session.calls, "retries": session.retries,
        "confidence": session.harvest.confidence.map(|thousandths| f64::from(thousandths) / 1000.0),
        "signal": session.harvest.signal, "rationale": session.harvest.rationale });
    for (name, value) in [
        ("by", json!(session.by)),
        ("reason", json!(session.reason)),
        ("escalated_to", json!(session.escalated_to)),
        ("held", json!(book.held(id))),
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
