//! Compositions on the operator plane: looked at, tried out, registered.

use super::error;
use super::operator::{By, OperatorPlane, Plane};
use crate::compositions::{DOCUMENT_MAX, PROVIDER_KINDS, Registered, document, read, reference};
use crate::govern::NotRegistered;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use warden_core::composition::register::Checked;
use warden_core::composition::resolve::{PROJECTION_VERSION, resolve};

/// The routes.
pub(super) fn routes() -> Router<Arc<OperatorPlane>> {
    Router::new()
        .route("/v1/compositions", get(list).post(register))
        .route("/v1/compositions/resolve", post(project))
        .route("/v1/compositions/{reference}", get(show))
        .layer(DefaultBodyLimit::max(DOCUMENT_MAX))
}

async fn list(State(plane): Plane) -> Response {
    let all = plane.governor.compositions().await;
    let shown = all.iter().map(|(name, registered)| {
        let checked = &registered.checked;
        json!({ "composition": name, "hash": checked.hash, "nodes": checked.nodes.len(), "shadowed": checked.shadowed.len(),
            "widening_ignored": checked.widening.len(), "workers": bound(&plane, name) })
    });
    Json(json!({ "compositions": shown.collect::<Vec<_>>() })).into_response()
}

fn bound(plane: &OperatorPlane, name: &str) -> Vec<String> {
    let workers = plane.governor.setup().workers.iter();
    workers.filter(|worker| worker.composition.as_deref() == Some(name)).map(|worker| worker.name.clone()).collect()
}

async fn show(State(plane): Plane, Path(name): Path<String>) -> Response {
    match plane.governor.compositions().await.get(&name) {
        Some(Registered { document, checked }) => {
            let mut said = shown(checked, plane.governor.idle_keys(checked).await);
            said["workers"] = json!(bound(&plane, &name));
            said["document"] = json!(**document);
            Json(said).into_response()
        }
        None => error(
            StatusCode::NOT_FOUND,
            "unknown_composition",
            "no such composition: `warden composition show` lists them",
        ),
    }
}

/// What is told of a checked composition; `idle` are notes on keys that name nothing there is.
pub fn shown(checked: &Checked, idle: Vec<String>) -> Value {
    let notes: Vec<String> = checked.notes.iter().cloned().chain(idle).collect();
    json!({ "composition": reference(checked), "hash": checked.hash, "nodes": checked.nodes, "shadowed": checked.shadowed,
        "widening_ignored": checked.widening, "notes": notes, "config": checked.config })
}

async fn register(State(plane): Plane, Extension(by): Extension<By>, body: Bytes) -> Response {
    let document = match document(&body) {
        Ok(document) => document,
        Err(e) => return malformed(&e.to_string()),
    };
    match plane.governor.register(&by.0, document).await {
        Ok((registered, is_new)) => {
            let idle = plane.governor.idle_keys(&registered.checked).await;
            let mut said = shown(&registered.checked, idle);
            said["new"] = is_new.into();
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            (status, Json(said)).into_response()
        }
        Err(NotRegistered::Problems(problems)) => {
            let problems: Vec<Value> =
                problems.iter().map(|p| json!({ "pointer": p.pointer, "message": p.message })).collect();
            let error = json!({ "code": "composition_invalid", "message": "the composition cannot be registered", "problems": problems });
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response()
        }
        Err(e @ NotRegistered::Other { .. }) => error(StatusCode::CONFLICT, "composition_exists", &e.to_string()),
        Err(NotRegistered::Change(e)) => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &e.to_string()),
    }
}

fn malformed(why: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "malformed_request", why)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Project {
    resolved: Value,
    overlay: Option<Value>,
}

/// What a worker would run with: for a look, and registered nowhere.
async fn project(State(plane): Plane, body: Bytes) -> Response {
    let asked = document(&body).map_err(|e| e.to_string());
    let asked: Project = match asked.and_then(|asked| serde_json::from_value(asked).map_err(|e| e.to_string())) {
        Ok(asked) => asked,
        Err(why) => return malformed(&why),
    };
    let kinds = PROVIDER_KINDS.map(str::to_owned);
    match resolve(&asked.resolved, asked.overlay.as_ref(), &kinds) {
        Ok(config) => {
            let checked = read(&asked.resolved, &plane.governor.setup().classes());
            let (shadowed, problems) = match &checked {
                Ok(checked) => (json!(checked.shadowed), json!([])),
                Err(problems) => (
                    json!([]),
                    problems.iter().map(|p| json!({ "pointer": p.pointer, "message": p.message })).collect(),
                ),
            };
            Json(json!({ "version": PROJECTION_VERSION, "config": config, "shadowed": shadowed, "problems": problems }))
                .into_response()
        }
        Err(e) => error(StatusCode::UNPROCESSABLE_ENTITY, "composition_invalid", &e.to_string()),
    }
}
