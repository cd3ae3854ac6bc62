//! `POST /v1/tokens`: a worker lets a node of its own composition act, with a token that is bound to what the worker says here and to
//! nothing that the node says later.

use super::worker::WorkerPlane;
use super::{error, proposals};
use crate::identity::{Token, hash};
use crate::keys::{hex, random};
use crate::world::now;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use warden_core::composition::delegate::{Delegate, DelegateChange, DelegateEvent, LIVE_MAX};
use warden_core::journal::record::{Body as RecordBody, Record};
use warden_core::json::Json as Strict;
use warden_core::outcome::Reply;
use warden_core::pipeline::{self, Answer, Permit, Upstream};
use warden_core::port::{Journal, Room};
use warden_core::proposal::{Ask, Correlation, Door, Mode, Proposal, is_within, root_of};

type Plane = State<Arc<WorkerPlane>>;

/// What a delegate's token begins with, so that people and scanners know it for one.
pub(super) const PREFIX: &str = "wdd_";
/// How long a delegate acts unless its worker says otherwise, in seconds.
const TTL_S: u32 = 900;
/// The longest that one may act.
const TTL_MAX_S: u32 = 24 * 3600;

/// The routes.
pub(super) fn routes() -> Router<Arc<WorkerPlane>> {
    Router::new().route("/v1/tokens", post(start).get(list)).route("/v1/tokens/{id}", delete(end))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    /// The node below the caller: slugs joined by `/`.
    node: String,
    /// For how long, in seconds.
    ttl_s: Option<u32>,
}

async fn start(State(plane): Plane, headers: HeaderMap, body: Body) -> Response {
    match started(&plane, &headers, body).await {
        Ok(response) => response,
        Err(refused) => *refused,
    }
}

async fn started(plane: &WorkerPlane, headers: &HeaderMap, body: Body) -> Result<Response, Box<Response>> {
    let refuse = |status, code: &str, message: &str| Box::new(error(status, code, message));
    let token = plane.token(headers)?;
    let said: Start = serde_json::from_slice(&plane.body(body).await?).map_err(|e| {
        let message = format!("say `node` and, if you like, `ttl_s` (line {}, column {})", e.line(), e.column());
        refuse(StatusCode::BAD_REQUEST, "malformed_request", &message)
    })?;
    let ttl_s = said.ttl_s.unwrap_or(TTL_S);
    if ttl_s == 0 || ttl_s > TTL_MAX_S {
        let message = format!("`ttl_s`: {ttl_s}, and a delegate acts for 1 to {TTL_MAX_S} seconds");
        return Err(refuse(StatusCode::BAD_REQUEST, "malformed_request", &message));
    }
    let acting = acting(plane, root_of(&token.worker), |_, _| ()).len();
    if acting >= LIVE_MAX {
        let message = format!("{LIVE_MAX} delegates of this worker act, and no more may: end one first");
        return Err(refuse(StatusCode::TOO_MANY_REQUESTS, "too_many_delegates", &message));
    }
    let belongs = plane.belongs(&token, headers);
    let node = format!("{}/{}", token.worker, said.node.trim_matches('/'));
    let arguments = Strict::Object(vec![
        ("node".into(), Strict::String(node.clone())),
        ("ttl_s".into(), Strict::Number(ttl_s.to_string())),
    ]);
    let proposal = Proposal {
        door: Door::WorkerPlane,
        worker: token.worker.clone(),
        connection: String::new(),
        server: String::new(),
        method: "tokens/start".into(),
        payload: arguments.to_string(),
        arguments,
        envelope: Strict::Null,
        ask: Ask::Delegate { node: node.clone() },
        caller: None,
        correlation: belongs.clone(),
        mode: Mode::default(),
        barred: None,
    };
    let begins = Begins { plane, token: &token, node: &node, belongs: &belongs, ttl_s, made: Mutex::default() };
    let answer = pipeline::handle(&plane.gate, proposal, &begins).await;
    let made = begins.made.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = made {
        let body = json!({ "token": made.secret, "id": made.id, "node": node, "expires": made.delegate.expires,
            "session": made.delegate.session, "task": made.delegate.task });
        return Ok((StatusCode::CREATED, Json(body)).into_response());
    }
    match answer {
        Answer::Refused(refusal) => Err(Box::new(proposals::refused(&refusal))),
        Answer::Answered { .. } | Answer::Ended { .. } => Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the delegate could not be recorded: try again later",
        )),
    }
}

/// A delegate that was made.
struct Made {
    id: String,
    secret: String,
    delegate: Delegate,
}

/// Makes a permitted delegate: its record, and then its token is good.
struct Begins<'p> {
    plane: &'p WorkerPlane,
    token: &'p Token,
    node: &'p str,
    belongs: &'p Correlation,
    ttl_s: u32,
    made: Mutex<Option<Made>>,
}

impl Upstream for Begins<'_> {
    async fn forward(&self, permit: Permit) -> Reply {
        let (Ok(secret), Ok(id)) = (random(), random()) else { return Reply::NotSent };
        let (secret, id) = (format!("{PREFIX}{}", hex(&secret)), hex(&id)[..16].to_owned());
        let at = now();
        let Correlation { session, task, run, .. } = self.belongs.clone();
        let gate = &self.plane.gate;
        // It ends with whatever it comes from, and says so.
        let own = at.checked_add(SignedDuration::from_secs(self.ttl_s.into())).unwrap_or(at);
        let above = gate.counted(|counted| counted.delegates.get(&self.token.id).map(|above| above.expires));
        let expires = above.map_or(own, |above| own.min(above));
        let delegate = Delegate {
            node: self.node.to_owned(),
            by: self.token.worker.clone(),
            by_token: self.token.id.clone(),
            decision: permit.decision().to_string(),
            session,
            task,
            run,
            expires,
            hash: hash(&secret),
        };
        let change = DelegateChange { delegate: id.clone(), event: DelegateEvent::Started(delegate.clone()) };
        if gate.ports.append(Record::new(at, RecordBody::Delegate(change.clone())), Room::Ordinary).await.is_err() {
            return Reply::NotSent;
        }
        gate.counted(|counted| counted.delegates.apply(at, &change));
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(Made { id, secret, delegate });
        Reply::Passed { bytes: permit.into_payload().as_str().len() as u64, failed: false, finding: None }
    }
}

/// The delegates that act now, of a worker and of all below it.
fn acting<T>(plane: &WorkerPlane, worker: &str, each: impl Fn(&str, &Delegate) -> T) -> Vec<T> {
    let identities = plane.identities.read().unwrap_or_else(PoisonError::into_inner);
    plane.gate.counted(|counted| {
        let of = counted.delegates.of(worker, now(), |id| identities.has_token(id));
        of.map(|(id, delegate)| each(id, delegate)).collect()
    })
}

/// The delegates below the caller.
async fn list(State(plane): Plane, headers: HeaderMap) -> Response {
    let token = match plane.token(&headers) {
        Ok(token) => token,
        Err(refused) => return *refused,
    };
    let nodes = plane.gate.snapshot().nodes_of(&token.worker).to_vec();
    // One whose node the composition has no more acts no more.
    let live = acting(&plane, &token.worker, |id, delegate| {
        let shown = json!({ "id": id, "node": delegate.node, "by": delegate.by, "expires": delegate.expires,
            "session": delegate.session, "task": delegate.task });
        nodes.contains(&delegate.node).then_some(shown)
    });
    let live: Vec<Value> = live.into_iter().flatten().collect();
    Json(json!({ "nodes": nodes, "delegates": live })).into_response()
}

/// Ends a delegate below the caller, and so all below it.
async fn end(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let token = match plane.token(&headers) {
        Ok(token) => token,
        Err(refused) => return *refused,
    };
    let below = |node: &str| node != token.worker && is_within(node, &token.worker);
    let known = plane.gate.counted(|counted| counted.delegates.get(&id).is_some_and(|delegate| below(&delegate.node)));
    if !known {
        return error(StatusCode::NOT_FOUND, "unknown_delegate", "no such delegate of this worker");
    }
    let change = DelegateChange { delegate: id, event: DelegateEvent::Ended { by: token.worker } };
    let at = now();
    if plane.gate.ports.append(Record::new(at, RecordBody::Delegate(change.clone())), Room::Reserved).await.is_err() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "its end could not be recorded: try again");
    }
    plane.gate.counted(|counted| counted.delegates.apply(at, &change));
    StatusCode::NO_CONTENT.into_response()
}
