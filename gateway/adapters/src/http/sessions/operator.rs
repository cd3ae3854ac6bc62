//! Sessions for people: all of them, and what a person does about one that waits.

use super::super::Query;
use super::super::operator::{By, OperatorPlane, Plane};
use super::{Which, answered, listed, refused, shown};
use crate::http::error;
use crate::sessions::{Resume, Resumed};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// The routes.
pub(in crate::http) fn routes() -> Router<Arc<OperatorPlane>> {
    Router::new()
        .route("/v1/sessions", get(list))
        .route("/v1/sessions/{id}", get(show))
        .route("/v1/sessions/{id}/resume", post(resume))
        .route("/v1/sessions/{id}/stop", post(stop))
}

async fn list(State(plane): Plane, Query(which): Query<Which>) -> Response {
    Json(listed(&plane.sessions, &which, None, None)).into_response()
}

async fn show(State(plane): Plane, Path(id): Path<String>) -> Response {
    let done = plane.sessions.get(&id).map_err(|e| refused(&e)).map(|session| {
        let mut said = shown(&id, &session, &plane.sessions.held(&id));
        let events = session.events.iter().map(|(number, at, event)| {
            let mut told = super::told(event);
            told["number"] = json!(number);
            told["at"] = json!(at);
            told
        });
        said["events"] = events.collect();
        said["tools"] = json!(session.tools);
        Json(said).into_response()
    });
    answered(done)
}

/// There is no default: what is missing or not known is nothing that a person wants.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    action: String,
    input: Option<String>,
    team: Option<String>,
}

async fn resume(
    State(plane): Plane,
    Extension(by): Extension<By>,
    Path(id): Path<String>,
    Json(wanted): Json<Wanted>,
) -> Response {
    let resume = match (wanted.action.as_str(), wanted.input, wanted.team) {
        ("resume_with_input", Some(input), None) => Resume::Input(input),
        ("escalate", None, team) => Resume::Escalate(team),
        ("stop", None, None) => Resume::Stop(None),
        _ => {
            let message =
                "say `action`: `resume_with_input` with `input`, `escalate` with a `team` if you like, or `stop`";
            return error(StatusCode::BAD_REQUEST, "malformed_request", message);
        }
    };
    done(&plane, &id, &by, resume).await
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stop {
    reason: Option<String>,
}

async fn stop(
    State(plane): Plane,
    Extension(by): Extension<By>,
    Path(id): Path<String>,
    Json(Stop { reason }): Json<Stop>,
) -> Response {
    done(&plane, &id, &by, Resume::Stop(reason)).await
}

async fn done(plane: &OperatorPlane, id: &str, by: &By, wanted: Resume) -> Response {
    let Resumed { changed, refused: held, still_held } = match plane.sessions.resume(id, &by.0, wanted).await {
        Ok(resumed) => resumed,
        Err(e) => return *refused(&e),
    };
    let session = plane.sessions.get(id).map_err(|e| refused(&e));
    answered(session.map(|session| {
        let mut said = shown(id, &session, &plane.sessions.held(id));
        said["from"] = json!(changed.from);
        said["refused"] = json!(held);
        if !still_held.is_empty() {
            said["still_held"] = json!(still_held);
        }
        Json(said).into_response()
    }))
}
