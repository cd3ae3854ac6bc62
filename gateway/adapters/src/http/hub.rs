//! The embedded hub over HTTP, on the operator plane: the same interface as any hub's (`docs/hub.md`).

use super::operator::{OperatorPlane, Plane};
use super::{Query, error};
use crate::hub::embedded::{Embedded, NotSent};
use crate::hub::{Hub, HubError, Progress, Sending, Write};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// A message with everything around it.
const BODY_MAX: usize = 20 << 20;

/// The routes.
pub(super) fn routes() -> Router<Arc<OperatorPlane>> {
    Router::new()
        .route("/v1/hub/messages", post(send).layer(DefaultBodyLimit::max(BODY_MAX)))
        .route("/v1/hub/messages/{id}/read", post(read))
        .route("/v1/hub/messages/{id}/replies", post(reply))
        .route("/v1/hub/agents/{agent}/messages", get(messages))
        .route("/v1/hub/agents/{agent}/progress", get(notes).post(progress))
        .route("/v1/hub/agents/{agent}/lease", post(lease).delete(release))
}

type Refused = Box<Response>;

fn hub(plane: &OperatorPlane) -> Result<&Embedded, Refused> {
    let message = "there is no hub here: the inbox worker uses the one that `inbox.hub` names";
    plane.hub.as_ref().ok_or_else(|| Box::new(error(StatusCode::NOT_FOUND, "no_hub", message)))
}

/// What a write brings along: a key, which it needs, and a lease.
fn write(headers: &HeaderMap) -> Result<Write<'_>, Refused> {
    let bad = |what: &str| Box::new(error(StatusCode::BAD_REQUEST, "malformed_request", what));
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).filter(|key| !key.is_empty());
    let key =
        key.filter(|key| key.len() <= 256).ok_or_else(|| bad("`Idempotency-Key`: 1 to 256 characters are needed"))?;
    let fence = headers.get("x-hub-fence").map(|fence| fence.to_str().ok().and_then(|fence| fence.parse().ok()));
    match fence {
        Some(None) => Err(bad("`x-hub-fence`: it is no number")),
        fence => Ok(Write { key, fence: fence.flatten() }),
    }
}

fn done(done: Result<(), HubError>) -> Response {
    match done {
        Ok(()) => Json(json!({ "done": true })).into_response(),
        Err(e) => refused(&e),
    }
}

fn refused(e: &HubError) -> Response {
    let (status, code, message) = match e {
        HubError::Refused(404) => (StatusCode::NOT_FOUND, "not_found", "there is no such message"),
        HubError::Refused(412) => (StatusCode::PRECONDITION_FAILED, "lease_lost", "the lease is another run's by now"),
        HubError::Refused(_) => (StatusCode::CONFLICT, "conflict", "this idempotency key was used for something else"),
        HubError::Leased => (StatusCode::CONFLICT, "leased", "another run works this inbox"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the hub's file cannot be written"),
    };
    error(status, code, message)
}

async fn send(State(plane): Plane, headers: HeaderMap, Json(sending): Json<Sending>) -> Response {
    let hub = match hub(&plane) {
        Ok(hub) => hub.clone(),
        Err(refused) => return *refused,
    };
    let key = match write(&headers) {
        Ok(write) => write.key.to_owned(),
        Err(refused) => return *refused,
    };
    let sent = tokio::task::spawn_blocking(move || hub.send(sending, &key)).await;
    match sent {
        Ok(Ok(message)) => (StatusCode::CREATED, Json(message)).into_response(),
        Ok(Err(e @ NotSent::Invalid(_))) => error(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &e.to_string()),
        Ok(Err(e @ NotSent::OtherKey)) => error(StatusCode::CONFLICT, "conflict", &e.to_string()),
        Ok(Err(NotSent::Failed)) | Err(_) => refused(&HubError::NotSent),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    status: Option<Status>,
    after: Option<String>,
    #[serde(rename = "limit")]
    _limit: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Unread,
    All,
}

async fn messages(State(plane): Plane, Path(agent): Path<String>, Query(asked): Query<Asked>) -> Response {
    let hub = match hub(&plane) {
        Ok(hub) => hub,
        Err(refused) => return *refused,
    };
    if asked.status == Some(Status::All) {
        return Json(json!({ "messages": hub.messages(&agent, false), "next": null })).into_response();
    }
    match hub.unread(&agent, asked.after.as_deref()).await {
        Ok(page) => Json(page).into_response(),
        Err(e) => refused(&e),
    }
}

async fn notes(State(plane): Plane, Path(agent): Path<String>) -> Response {
    match hub(&plane) {
        Ok(hub) => Json(json!({ "progress": hub.notes(&agent) })).into_response(),
        Err(refused) => *refused,
    }
}

async fn read(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match (hub(&plane), write(&headers)) {
        (Ok(hub), Ok(write)) => done(hub.mark_read(&id, write).await),
        (Err(refused), _) | (_, Err(refused)) => *refused,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    body: String,
}

async fn reply(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap, Json(asked): Json<Reply>) -> Response {
    match (hub(&plane), write(&headers)) {
        (Ok(hub), Ok(write)) => done(hub.reply(&id, &asked.body, write).await),
        (Err(refused), _) | (_, Err(refused)) => *refused,
    }
}

async fn progress(
    State(plane): Plane,
    Path(agent): Path<String>,
    headers: HeaderMap,
    Json(note): Json<Progress>,
) -> Response {
    match (hub(&plane), write(&headers)) {
        (Ok(hub), Ok(write)) => done(hub.progress(&agent, &note, write).await),
        (Err(refused), _) | (_, Err(refused)) => *refused,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leasing {
    holder: String,
    ttl_s: u64,
}

async fn lease(State(plane): Plane, Path(agent): Path<String>, Json(asked): Json<Leasing>) -> Response {
    let hub = match hub(&plane) {
        Ok(hub) => hub,
        Err(refused) => return *refused,
    };
    match hub.lease(&agent, &asked.holder, asked.ttl_s.clamp(1, 3600)).await {
        Ok(lease) => Json(lease).into_response(),
        Err(e) => refused(&e),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Releasing {
    holder: String,
}

async fn release(State(plane): Plane, Path(agent): Path<String>, Query(asked): Query<Releasing>) -> Response {
    match hub(&plane) {
        Ok(hub) => done(hub.release(&agent, &asked.holder).await),
        Err(refused) => *refused,
    }
}
