//! What is held, for operators: looking, granting, refusing, and taking back what was acknowledged in advance.

use super::operator::{By, OperatorPlane, Plane, unavailable};
use super::{Query, audit, error};
use crate::acks::notify;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use warden_core::ack::scope::{Scope, Wanted};
use warden_core::ack::{Acks, Ending, Kept, Parked, Runs, Stage};
use warden_core::decision::Decision;
use warden_core::json::Json as Strict;
use warden_core::pipeline::ack::{self, Grant, NotGranted};
use warden_core::pipeline::preview;
use warden_core::port::Journal as _;
use warden_core::proposal::DecisionId;
use warden_core::verdict::Verdict;

/// The longest that an operator may wait for news, in seconds.
const WAIT_MAX_S: u64 = 55;
const LOOK: Duration = Duration::from_millis(100);
/// Longer strings of what is held are cut for showing; their length is told.
const SHOWN_MAX: usize = 8 << 10;

/// The routes.
pub(super) fn routes() -> Router<Arc<OperatorPlane>> {
    Router::new()
        .route("/v1/acks", get(list))
        .route("/v1/acks/{id}", get(show).post(decide))
        .route("/v1/acks/scopes/{id}/revoke", post(revoke))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    /// Seconds to wait for a change.
    #[serde(default)]
    wait: u64,
    /// Only this worker's.
    worker: Option<String>,
    /// What is over as well.
    #[serde(default)]
    over: bool,
}

fn stage(stage: &Stage) -> Value {
    match stage {
        Stage::Waiting => json!({ "status": "held" }),
        Stage::Granted { operator, runs } => json!({ "status": "granted", "operator": operator, "runs": runs }),
        Stage::Running { decision } => json!({ "status": "running", "run": decision }),
    }
}

fn parked(id: &DecisionId, parked: &Parked) -> Value {
    let mut shown = json!({ "decision": id, "worker": parked.worker, "action": parked.action, "since": parked.since,
        "expires": parked.held.as_ref().map(|held| held.expires) });
    if let (Value::Object(shown), Value::Object(stage)) = (&mut shown, stage(&parked.stage)) {
        shown.extend(stage);
    }
    shown
}

fn kept(id: &DecisionId, kept: &Kept) -> Value {
    json!({ "decision": id, "worker": kept.worker, "status": "ran", "run": kept.decision, "expires": kept.expires })
}

fn listed(acks: &Acks, of: Option<&str>, over: bool) -> Value {
    let ours = |worker: &str| of.is_none_or(|of| of == worker);
    let held = acks.parked.iter().filter(|(_, p)| ours(&p.worker)).map(|(id, p)| parked(id, p));
    let kept = acks.kept.iter().filter(|(_, k)| ours(&k.worker)).map(|(id, k)| kept(id, k));
    let held: Vec<Value> = held.chain(kept).collect();
    let scopes: Vec<&Scope> = acks.scopes.values().filter(|scope| ours(&scope.worker)).collect();
    let mut all = json!({ "held": held, "scopes": scopes });
    if over {
        let ended = acks.ended.iter().filter(|(_, ended)| ours(&ended.worker));
        let ended = ended.map(|(id, e)| json!({ "decision": id, "worker": e.worker, "status": e.ending }));
        all["over"] = ended.collect();
    }
    all
}

async fn list(State(plane): Plane, Query(asked): Query<Wait>) -> Response {
    let look = || plane.gate.acks(|live| listed(&live.acks, asked.worker.as_deref(), asked.over));
    Json(changed(asked.wait, look).await).into_response()
}

/// What `look` sees, once that is something else than at first, or the time is over.
async fn changed(wait_s: u64, look: impl Fn() -> Value) -> Value {
    let (first, until) = (look(), tokio::time::Instant::now() + Duration::from_secs(wait_s.min(WAIT_MAX_S)));
    loop {
        let now = look();
        if now != first || tokio::time::Instant::now() >= until {
            return now;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn show(
    State(plane): Plane,
    Extension(by): Extension<By>,
    Path(id): Path<String>,
    Query(asked): Query<Wait>,
) -> Response {
    let id = DecisionId::new(id);
    let standing = || plane.gate.acks(|live| status(&live.acks, &id).unwrap_or_default());
    let stands = changed(asked.wait, standing).await;
    if stands.is_null() {
        return error(StatusCode::NOT_FOUND, "not_found", &NotGranted::Unknown.to_string());
    }
    // What is sealed is shown to nobody before that is recorded.
    if !audit::recorded(&plane, &by, "ack_show", json!({ "decision": id })).await {
        return unavailable("that it was looked at could not be recorded");
    }
    let parked = plane.gate.acks(|live| live.acks.parked.get(&id).cloned());
    let Some(parked) = parked else { return Json(stands).into_response() };
    let Some(decision) = plane.gate.ports.decision_at(parked.seq).await else {
        return unavailable("its record cannot be read");
    };
    let mut shown = notify::shown(&decision);
    if let (Value::Object(shown), Value::Object(stands)) = (&mut shown, stands) {
        shown.extend(stands);
    }
    match ack::open(&plane.gate, &id).await {
        Ok(stored) => {
            shown["arguments"] = cut(&plane, &stored.arguments);
            // What policies do not see is sent as well.
            shown["also"] = cut(&plane, &stored.envelope);
            shown["runs"] = shown.get("runs").cloned().unwrap_or_else(|| json!(plane.acker.runs(&stored)));
            shown["verdict_now"] = verdict_now(&plane, &stored);
        }
        Err(e) if parked.sealed => shown["unreadable"] = e.to_string().into(),
        // Its caller has it, and asks again.
        Err(_) => shown["runs"] = json!(Runs::OnRepeat),
    }
    let now = plane.gate.snapshot().digests.clone();
    shown["digests"] =
        json!({ "then": parked.digests, "now": now, "changed": differs(&json!(parked.digests), &json!(now)) });
    shown["may_acknowledge"] = may(&plane, &decision).into();
    Json(shown).into_response()
}

fn status(acks: &Acks, id: &DecisionId) -> Option<Value> {
    acks.parked
        .get(id)
        .map(|p| parked(id, p))
        .or_else(|| acks.kept.get(id).map(|k| kept(id, k)))
        .or_else(|| acks.ended.get(id).map(|e| json!({ "decision": id, "worker": e.worker, "status": e.ending })))
}

/// Arguments for an operator's eyes: no secret, and long texts cut.
fn cut(plane: &OperatorPlane, json: &Strict) -> Value {
    let scanner = &plane.gate.ports.scanner;
    let text = |text: &str| {
        let masked = scanner.mask(text);
        match masked.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => format!("{}… ({} bytes in all)", &masked[..end], masked.len()),
            None => masked.into_owned(),
        }
    };
    match json {
        Strict::String(s) => text(s).into(),
        Strict::Array(items) => items.iter().map(|item| cut(plane, item)).collect(),
        Strict::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (text(name), cut(plane, value))).collect())
        }
        other => other.to_value(),
    }
}

/// What policies of now say of it, before anybody has acknowledged it.
fn verdict_now(plane: &OperatorPlane, stored: &warden_core::proposal::Proposal) -> Value {
    let evaluation = preview(&plane.gate.snapshot(), stored, &plane.gate.ports.scanner);
    json!({ "verdict": evaluation.verdict, "reason": evaluation.reason, "policies": evaluation.policies })
}

fn differs(then: &Value, now: &Value) -> Vec<String> {
    let of = |value: &Value, name: &str| value.get(name).cloned();
    let names = ["charter", "policy", "schema", "catalogue"];
    names.iter().filter(|name| of(then, name) != of(now, name)).map(|name| (*name).to_owned()).collect()
}

/// The operators whom policy lets acknowledge it.
fn may(plane: &OperatorPlane, decision: &Decision) -> Vec<String> {
    let names: Vec<String> = {
        let identities = plane.identities.read().unwrap_or_else(PoisonError::into_inner);
        identities.operators.iter().map(|operator| operator.name.clone()).collect()
    };
    let snapshot = plane.gate.snapshot();
    let may = |name: &String| {
        let question = ack::acknowledging(&snapshot, name, decision, "", false);
        preview(&snapshot, &question, &plane.gate.ports.scanner).verdict == Verdict::Allow
    };
    names.into_iter().filter(may).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decide {
    decision: Word,
    reason: String,
    hash: Option<String>,
    scope: Option<Wanted>,
}

/// There is no default: what is missing or not known is no yes.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Grant,
    Refuse,
}

async fn decide(
    State(plane): Plane,
    Extension(by): Extension<By>,
    Path(id): Path<String>,
    Json(asked): Json<Decide>,
) -> Response {
    let id = DecisionId::new(id);
    let Decide { decision, reason, hash, scope } = asked;
    match decision {
        Word::Refuse => match ack::refuse(&plane.gate, &id, &by.0, &reason).await {
            Ok(()) => Json(json!({ "decision": id, "status": Ending::Refused })).into_response(),
            Err(e) => not_granted(&e),
        },
        Word::Grant => {
            let grant =
                Grant { id: &id, operator: &by.0, reason: &reason, hash: hash.as_deref(), scope: scope.as_ref() };
            match ack::grant(&plane.gate, grant, |stored| plane.acker.runs(stored)).await {
                Ok(granted) => {
                    if granted.runs == Runs::Now {
                        plane.acker.start(id.clone());
                    }
                    let [then, now] = granted.digests.map(|digests| json!(digests));
                    let mut said = json!({ "decision": id, "status": "granted", "runs": granted.runs, "until": granted.until,
                        "scope": granted.scope, "changed": differs(&then, &now), "by": granted.decision });
                    if plane.same_uid {
                        said["warning"] = "it holds against the model, not against code that the worker runs: a worker may have the gateway's user id".into();
                    }
                    Json(said).into_response()
                }
                Err(e) => not_granted(&e),
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    reason: String,
}

async fn revoke(
    State(plane): Plane,
    Extension(by): Extension<By>,
    Path(id): Path<String>,
    Json(asked): Json<Revoke>,
) -> Response {
    match ack::revoke(&plane.gate, &id, &by.0, &asked.reason).await {
        Ok(scope) => Json(json!({ "scope": scope, "status": "revoked" })).into_response(),
        Err(e) => not_granted(&e),
    }
}

fn not_granted(e: &NotGranted) -> Response {
    let (status, code) = match e {
        NotGranted::Unknown => (StatusCode::NOT_FOUND, "not_found"),
        NotGranted::NoReason => (StatusCode::BAD_REQUEST, "reason_needed"),
        NotGranted::Scope(_) => (StatusCode::UNPROCESSABLE_ENTITY, "scope_invalid"),
        NotGranted::MayNot(refusal) if refusal.reason.starts_with("journal_") => {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        }
        NotGranted::MayNot(refusal) => (StatusCode::FORBIDDEN, refusal.reason.as_str()),
        NotGranted::Journal(_) | NotGranted::Unreadable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        NotGranted::Void(_) => (StatusCode::CONFLICT, "acknowledgement_void"),
        NotGranted::OtherHash => (StatusCode::CONFLICT, "other_hash"),
        NotGranted::Busy | NotGranted::Already(_) | NotGranted::Running | NotGranted::Over(_) | NotGranted::Expired => {
            (StatusCode::CONFLICT, "not_held")
        }
    };
    error(status, code, &e.to_string())
}
