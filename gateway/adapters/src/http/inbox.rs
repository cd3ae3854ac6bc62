//! Runs of the inbox worker, its schedule, and what it has kept for a person; for operators, and for whatever they let trigger runs.

use super::error;
use super::operator::{By, OperatorPlane, Plane, unavailable};
use crate::inbox::brain::Kind;
use crate::inbox::{Asked, NotRun, Runner, schedule};
use crate::world::now;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use warden_core::proposal::Mode;

/// The routes.
pub(super) fn routes() -> Router<Arc<OperatorPlane>> {
    Router::new()
        .route("/v1/worker/runs", post(run))
        .route("/v1/worker/schedule", get(status).post(change))
        .route("/v1/worker/kept", get(kept))
}

fn runner(plane: &OperatorPlane) -> Result<Arc<Runner>, Box<Response>> {
    let message = "no inbox is configured: set `inbox` in warden.yaml";
    plane.runner.clone().ok_or_else(|| Box::new(error(StatusCode::NOT_FOUND, "no_inbox", message)))
}

fn not_run(e: &NotRun) -> Response {
    let (status, code) = match e {
        NotRun::AlreadyRunning => (StatusCode::CONFLICT, "already_running"),
        NotRun::Refused(_) => (StatusCode::CONFLICT, "refused"),
        NotRun::Unreadable(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        NotRun::Hub(_) => (StatusCode::BAD_GATEWAY, "hub_failed"),
        NotRun::Journal(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    error(status, code, &e.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    mode: Mode,
    brain: Option<Kind>,
    accept_brief: Option<String>,
}

impl Default for Wanted {
    fn default() -> Self {
        // Nothing is done that was not asked for.
        Self { mode: Mode::DryRun, brain: None, accept_brief: None }
    }
}

async fn run(State(plane): Plane, Extension(by): Extension<By>, Json(wanted): Json<Wanted>) -> Response {
    let runner = match runner(&plane) {
        Ok(runner) => runner,
        Err(refused) => return *refused,
    };
    let Wanted { mode, brain, accept_brief } = wanted;
    if mode == Mode::Scheduled {
        return error(StatusCode::BAD_REQUEST, "malformed_request", "mode: `dry_run` or `execute`");
    }
    match runner.run(Asked { mode, brain, operator: Some(by.0), accept_brief }).await {
        Ok(report) => Json(report).into_response(),
        Err(e) => not_run(&e),
    }
}

async fn shown(runner: &Runner) -> Value {
    // What has changed switches it off before it is shown.
    let schedule = runner.schedule_of_now().await;
    let known = runner.known();
    let at = schedule.as_ref().and_then(|schedule| schedule::next(&schedule::cron(&schedule.cron).ok()?, now()));
    let basis = runner.basis(runner.setup().brain);
    let changed = match (&known.shakedown, &basis) {
        (Some(shown), Ok(basis)) => shown.basis.changed(basis),
        _ => Vec::new(),
    };
    json!({ "inbox": runner.setup().agent, "worker": runner.setup().worker, "enabled": schedule.is_some(),
        "schedule": schedule, "next": at, "shakedown": known.shakedown, "changed_since_shakedown": changed,
        "basis": basis.as_ref().ok(), "problem": basis.as_ref().err().map(ToString::to_string),
        "execution": runner.setup().execution, "last_run": known.last_run })
}

async fn status(State(plane): Plane) -> Response {
    match runner(&plane) {
        Ok(runner) => Json(shown(&runner).await).into_response(),
        Err(refused) => *refused,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    enabled: bool,
    cron: Option<String>,
}

async fn change(State(plane): Plane, Extension(by): Extension<By>, Json(change): Json<Change>) -> Response {
    let runner = match runner(&plane) {
        Ok(runner) => runner,
        Err(refused) => return *refused,
    };
    let done = match (change.enabled, &change.cron) {
        (true, Some(cron)) => runner.enable(cron, &by.0).await.map(drop),
        (true, None) => Err(NotRun::Unreadable("cron: say when, such as `*/15 * * * *`".into())),
        (false, _) => runner.disable(&by.0).await,
    };
    match done {
        Ok(()) => Json(shown(&runner).await).into_response(),
        Err(e) => not_run(&e),
    }
}

async fn kept(State(plane): Plane) -> Response {
    match runner(&plane).map(|runner| runner.kept()) {
        Ok(Ok(kept)) => Json(json!({ "kept": kept })).into_response(),
        Ok(Err(e)) => unavailable(&e.to_string()),
        Err(refused) => *refused,
    }
}
