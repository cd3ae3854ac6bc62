//! `GET /v1/proposals/{id}`: what became of a held proposal, for its worker. A result that waits is given once.

use super::worker::WorkerPlane;
use super::{Query, error};
use crate::mcp::held::{self, Stands};
use crate::mcp::link::Nowhere;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use warden_core::ack::Ending;
use warden_core::mcp::result;
use warden_core::outcome::Reply;
use warden_core::pipeline::{Answer, Refusal, ack};
use warden_core::proposal::DecisionId;
use warden_core::verdict::Verdict;

/// The longest that a worker may wait, in seconds.
const WAIT_MAX_S: u64 = 55;

/// The routes.
pub(super) fn routes() -> Router<Arc<WorkerPlane>> {
    Router::new().route("/v1/proposals/{id}", get(show))
}

/// Says where a held proposal can be followed.
pub(super) fn locate(headers: &mut HeaderMap, id: &DecisionId) {
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/proposals/{id}")) {
        headers.insert(header::LOCATION, place);
    }
}

/// What a worker is told of a proposal of its own that is no call: 202 when it is held, 404 for what is not there, 403 by policy.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let held = refusal.verdict == Verdict::Escalate;
    let status = match refusal.reason.as_str() {
        "unknown_node" => StatusCode::NOT_FOUND,
        reason if reason.starts_with("journal_") => StatusCode::SERVICE_UNAVAILABLE,
        _ if held => StatusCode::ACCEPTED,
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = error(status, &refusal.reason, refusal.advice.as_deref().unwrap_or("refused by policy"));
    if let Ok(id) = HeaderValue::from_str(refusal.id.as_str()) {
        response.headers_mut().insert("x-warden-decision", id);
    }
    if held {
        locate(response.headers_mut(), &refusal.id);
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    wait: u64,
}

async fn show(
    State(plane): State<Arc<WorkerPlane>>,
    Path(id): Path<String>,
    Query(Wait { wait }): Query<Wait>,
    headers: HeaderMap,
) -> Response {
    let token = match plane.token(&headers) {
        Ok(token) => token,
        Err(refused) => return *refused,
    };
    let (id, worker) = (DecisionId::new(id), token.worker.as_str());
    let patience = Duration::from_secs(wait.min(WAIT_MAX_S));
    match held::settled(&plane.gate, &id, worker, patience).await {
        Stands::Pending => told(&id, "held", Some("acknowledgement_required")),
        Stands::Granted => {
            let mut said = body(&id, "granted", None);
            said["advice"] = "send the very same call again: it runs what was held, in your session".into();
            Json(said).into_response()
        }
        Stands::Kept if asks_back(&plane, &id, worker) => {
            let mut said = body(&id, "done", None);
            said["advice"] =
                "send the very same call again: its result brings a task or questions of the server".into();
            Json(said).into_response()
        }
        Stands::Kept => match collected(&plane, &id, worker).await {
            Answer::Answered { id: run, payload, is_error, .. } => {
                let mut said = body(&id, "done", None);
                said["run"] = json!(run);
                said["is_error"] = is_error.into();
                // As it came, whatever it is.
                said["result"] = serde_json::from_str(payload.as_str()).unwrap_or_else(|_| payload.as_str().into());
                Json(said).into_response()
            }
            _ => told(&id, "done", Some("acknowledgement_over")),
        },
        Stands::Over(Some(ending)) => {
            let status = json!(ending).as_str().unwrap_or_default().to_owned();
            let reason = (!matches!(ending, Ending::Done | Ending::Unknown)).then(|| ack::over(ending));
            told(&id, &status, reason)
        }
        // Another worker's is as unknown as one that never was.
        Stands::Over(None) => error(StatusCode::NOT_FOUND, "not_found", "nothing of yours is held under this id"),
    }
}

/// Whether a result brings more than itself, which is decided where the call is made.
fn asks_back(plane: &WorkerPlane, id: &DecisionId, worker: &str) -> bool {
    let kept = ack::peek(&plane.gate, id, worker);
    kept.is_some_and(|kept| kept.get("inputRequests").is_some() || result::task(&kept).is_some())
}

/// What is given once is given to its end, also when its worker hangs up.
async fn collected(plane: &Arc<WorkerPlane>, id: &DecisionId, worker: &str) -> Answer {
    let (plane, of, worker) = (plane.clone(), id.clone(), worker.to_owned());
    let work = async move { ack::collect(&plane.gate, &of, &worker, None::<&Nowhere>).await };
    let lost = |_| Answer::Ended { id: id.clone(), reply: Reply::NotSent };
    tokio::spawn(work).await.unwrap_or_else(lost)
}

fn body(id: &DecisionId, status: &str, reason: Option<&str>) -> Value {
    let mut said = json!({ "id": id, "status": status });
    if let Some(reason) = reason {
        said["reason"] = reason.into();
        said["advice"] = warden_core::reason::advice(reason).into();
    }
    said
}

fn told(id: &DecisionId, status: &str, reason: Option<&str>) -> Response {
    Json(body(id, status, reason)).into_response()
}
