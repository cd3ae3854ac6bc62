//! Tasks of workers: opened, closed, their state documents, and the engines that are leased to them.

use super::error;
use super::llm::Llm;
use super::worker::WorkerPlane;
use crate::identity::{Role, Token};
use crate::tasks::TaskBook;
use crate::world::now;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use warden_core::json::{self, Json as Strict, Limits};
use warden_core::outcome::Reply;
use warden_core::pipeline::{self, Answer, Permit, Refusal, Upstream};
use warden_core::proposal::{Ask, Correlation, Door, Mode, Proposal, TaskId};
use warden_core::task::Task;
use warden_core::task::scope::{Scope, Source};
use warden_core::task::state::{How, Written, write};
use warden_core::verdict::Verdict;

type Plane = State<Arc<WorkerPlane>>;
type Refused = Box<Response>;

/// How long a task is open unless it says otherwise.
const TTL_S: u64 = 3600;
/// The longest that one may be open.
const TTL_MAX_S: u64 = 7 * 24 * 3600;
/// Members of a state that one write changes.
const KEYS_MAX: usize = 64;
/// Characters of a name.
const NAME_MAX: usize = 128;

/// The routes.
pub(super) fn routes() -> Router<Arc<WorkerPlane>> {
    Router::new()
        .route("/v1/tasks", post(open))
        .route("/v1/tasks/{id}", get(show).delete(close))
        .route("/v1/tasks/{id}/engine", post(engine))
        .route("/v1/tasks/{id}/state", get(state).put(replace).patch(patch))
}

/// What is said of a new task. All of it can be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Open {
    /// Whether the task needs an engine: one that never calls any is reported.
    llm: bool,
    /// The engine that is leased to it.
    engine: Option<String>,
    /// How long it is open at most, in seconds.
    ttl_s: Option<u64>,
    /// For another worker. A host's to say, as are the session, the run and the zone.
    worker: Option<String>,
    session: Option<String>,
    run: Option<String>,
    zone: Option<String>,
    /// What the task is for: the tools that it needs, the prompt it was given in, and the people, accounts and hosts that its tenant knows.
    tools: Option<Vec<String>>,
    prompt: Option<String>,
    directory: Option<Vec<String>>,
}

fn refused(status: StatusCode, code: &str, message: &str) -> Refused {
    Box::new(error(status, code, message))
}

/// The disk, and not the worker, is to blame.
fn unkept() -> Refused {
    refused(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "the state of the task cannot be read or written: try again later",
    )
}

/// A reason code, with its advice.
fn because(reason: &str) -> Refused {
    let status = match reason {
        "no_enclosing_task" => StatusCode::NOT_FOUND,
        "too_many_tasks" => StatusCode::TOO_MANY_REQUESTS,
        "unknown_engine" | "unknown_worker" => StatusCode::BAD_REQUEST,
        "engine_not_in_zone" => StatusCode::FORBIDDEN,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    refused(status, reason, warden_core::reason::advice(reason).unwrap_or("ask an operator"))
}

fn answered(done: Result<Response, Refused>) -> Response {
    done.unwrap_or_else(|refused| *refused)
}

async fn open(State(plane): Plane, headers: HeaderMap, body: Body) -> Response {
    answered(opened(&plane, &headers, body).await)
}

async fn opened(plane: &WorkerPlane, headers: &HeaderMap, body: Body) -> Result<Response, Refused> {
    let token = plane.token(headers)?;
    let bytes = plane.body(body).await?;
    let said: Open = match bytes.is_empty() {
        true => Open::default(),
        false => read(&bytes).map_err(|what| refused(StatusCode::BAD_REQUEST, "malformed_request", &what))?,
    };
    let belongs = plane.belongs(&token, headers);
    let is_host = token.role == Role::Host;
    let hosts = [("worker", &said.worker), ("session", &said.session), ("run", &said.run), ("zone", &said.zone)];
    if let Some((name, _)) = hosts.into_iter().find(|(_, value)| !is_host && value.is_some()) {
        let message = format!("`{name}` is a host's to say: `warden token issue WORKER --role host`");
        return Err(refused(StatusCode::FORBIDDEN, "hosts_only", &message));
    }
    let scoped =
        [("tools", said.tools.is_some()), ("prompt", said.prompt.is_some()), ("directory", said.directory.is_some())];
    if let Some((name, _)) = scoped.into_iter().find(|(_, said)| *said && !is_host) {
        let message = format!("`{name}` is a host's to say: `warden token issue WORKER --role host`");
        return Err(refused(StatusCode::FORBIDDEN, "hosts_only", &message));
    }
    let is_scoped = scoped.iter().any(|(_, said)| *said);
    let scope = is_scoped.then(|| {
        Scope::new(Source {
            tools: said.tools.clone().unwrap_or_default(),
            prompt: said.prompt.clone().unwrap_or_default(),
            directory: said.directory.clone().unwrap_or_default(),
        })
    });
    let scope = scope.transpose().map_err(|e| refused(StatusCode::BAD_REQUEST, "malformed_request", &e.to_string()))?;
    let fine = |text: &str| !text.is_empty() && text.len() <= NAME_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    let unfit = |(_, value): &(&str, &Option<String>)| value.as_deref().is_some_and(|value| !fine(value));
    let named = hosts.into_iter().chain([("engine", &said.engine)]).find(unfit).map(|(name, _)| name);
    if let Some(name) = named {
        let message = format!("`{name}`: use 1 to {NAME_MAX} printable ASCII characters");
        return Err(refused(StatusCode::BAD_REQUEST, "malformed_request", &message));
    }
    let ttl = said.ttl_s.unwrap_or(TTL_S);
    if ttl == 0 || ttl > TTL_MAX_S {
        let message = format!("`ttl_s`: {ttl}, and a task is open for 1 to {TTL_MAX_S} seconds");
        return Err(refused(StatusCode::BAD_REQUEST, "malformed_request", &message));
    }
    let llm = &plane.llm;
    let worker = said.worker.clone().unwrap_or_else(|| token.worker.clone());
    if !llm.given.contains_key(&worker) {
        return Err(because("unknown_worker"));
    }
    let zone = said.zone.or_else(|| llm.given(&worker).zone);
    if let Some(zone) = zone.as_deref().filter(|zone| !llm.engines.has_zone(zone)) {
        let message = format!("`zone`: `{zone}` is not configured");
        return Err(refused(StatusCode::BAD_REQUEST, "engine_not_in_zone", &message));
    }
    if let Some(engine) = &said.engine {
        match llm.engines.get(engine) {
            None => return Err(because("unknown_engine")),
            Some(_)
                if !llm.engines.admits(zone.as_deref(), engine)
                    || !llm.engines.admits(llm.given(&worker).zone.as_deref(), engine) =>
            {
                return Err(because("engine_not_in_zone"));
            }
            Some(_) => {}
        }
    }
    // In records names are masked; a lease is bound to what stands there.
    let masked = |name: Option<String>| name.map(|name| plane.gate.ports.scanner.mask(&name).into_owned());
    let opened = now();
    let length = SignedDuration::from_secs(i64::try_from(ttl).unwrap_or(i64::MAX));
    let task = Task {
        session: masked(said.session.or(belongs.session)),
        run: masked(said.run.or(belongs.run)),
        engine: said.engine.or_else(|| llm.given(&worker).engine),
        zone,
        llm: said.llm,
        ambient: false,
        scoped: scope.is_some(),
        by: (worker != token.worker).then(|| token.worker.clone()),
        worker,
        opened,
        expires: opened.checked_add(length).unwrap_or(opened),
    };
    let (id, task) = llm.tasks.open(task, scope).await.map_err(because)?;
    let body = json!({ "task": id, "expires": task.expires, "worker_engine_factory": llm.tasks.lease(&id, &task) });
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert("x-warden-task", value);
    }
    Ok(response)
}

/// What serde says of a body, which may quote a value, down to what is wrong with it.
/// What serde says may quote a value, so only the place is told.
fn read(bytes: &[u8]) -> Result<Open, String> {
    json::parse(bytes, Limits { bytes_max: bytes.len(), ..Limits::default() })
        .map_err(|e| format!("the body is no task: {e}"))?;
    serde_json::from_slice(bytes).map_err(|e| describe(&e.to_string(), e.line(), e.column()))
}

fn describe(said: &str, line: usize, column: usize) -> String {
    match said.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        Some((name, _)) if name.len() <= NAME_MAX => format!("`{}` is no member of a task", name.escape_debug()),
        _ => format!("the body is no task (line {line}, column {column})"),
    }
}

/// The task of a path, when it is this caller's.
fn found(plane: &WorkerPlane, headers: &HeaderMap, id: &str) -> Result<(Token, TaskId, Task), Refused> {
    let token = plane.token(headers)?;
    let id = TaskId::new(id);
    let worker = (token.role != Role::Host).then_some(token.worker.as_str());
    let task = plane.llm.tasks.of(&id, worker).map_err(because)?;
    // A delegate is in the task that its token names, and in no other of its worker's.
    if token.bound.as_ref().is_some_and(|bound| bound.task.as_deref() != Some(id.as_str())) {
        return Err(because("no_enclosing_task"));
    }
    Ok((token, id, task))
}

async fn show(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answered(found(&plane, &headers, &id).map(|(_, id, _)| {
        let work = plane.gate.counted(|counted| counted.tasks.get(&id, now()).cloned());
        let mut shown = serde_json::to_value(work).unwrap_or_default();
        shown["id"] = json!(id);
        Json(shown).into_response()
    }))
}

async fn close(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let done = async {
        let (token, id, _) = found(&plane, &headers, &id)?;
        if token.bound.is_some() {
            let message = "a task is closed by whoever opened it, and not by a delegate in it";
            return Err(refused(StatusCode::FORBIDDEN, "not_a_delegates", message));
        }
        let ended = plane.llm.tasks.close(&id).await.map_err(because)?.ok_or_else(|| because("no_enclosing_task"))?;
        Ok(Json(json!({ "task": id, "engine_events": ended.engine_events, "spent": ended.spent,
            "engine_bypass_suspected": ended.engine_bypass_suspected }))
        .into_response())
    };
    answered(done.await)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Resolve {
    engine_id: Option<String>,
}

/// The engine that a worker asks for, or none with the reason: never an error that a worker has to handle.
async fn engine(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let done = async {
        let (_, id, task) = found(&plane, &headers, &id)?;
        let bytes = plane.body(body).await?;
        let asked: Resolve =
            if bytes.is_empty() { Resolve::default() } else { serde_json::from_slice(&bytes).unwrap_or_default() };
        let llm = &plane.llm;
        let none = |reason: &str| json!({ "engine": null, "reason": reason });
        let shown = match resolve(llm, &task, asked.engine_id.as_deref()) {
            Ok(engine) => engine,
            Err(reason) => {
                tracing::warn!(task = %id, worker = task.worker, reason, "no engine was resolved");
                llm.tasks.unresolved(&id, reason).await;
                none(reason)
            }
        };
        Ok(Json(shown).into_response())
    };
    answered(done.await)
}

fn resolve(llm: &Llm, task: &Task, asked: Option<&str>) -> Result<Value, &'static str> {
    // A leased engine is the only one of its task.
    let wanted = [task.engine.clone(), asked.map(str::to_owned), llm.given(&task.worker).engine];
    let wanted: Vec<&str> = wanted.iter().flatten().map(String::as_str).filter(|id| !id.is_empty()).collect();
    let named = wanted.iter().find_map(|id| llm.engines.get(id));
    let any = || llm.engines.iter().find(|engine| llm.engines.admits(task.zone.as_deref(), &engine.id));
    let engine = match (wanted.is_empty(), named) {
        (_, Some(engine)) => engine,
        (true, None) => any().ok_or("unknown_engine")?,
        (false, None) => return Err("unknown_engine"),
    };
    if !llm.engines.admits(task.zone.as_deref(), &engine.id) {
        return Err("engine_not_in_zone");
    }
    Ok(json!({ "engine": { "id": engine.id, "kind": engine.kind.name(), "capabilities": engine.capabilities(),
        "base_url": llm.tasks.base_url() } }))
}

async fn state(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answered(
        found(&plane, &headers, &id).and_then(|(_, id, task)| Ok(Json(document(&plane, &id, &task)?).into_response())),
    )
}

fn document(plane: &WorkerPlane, id: &TaskId, task: &Task) -> Result<Map<String, Value>, Refused> {
    plane.llm.tasks.state(id, task).map_err(|e| {
        tracing::error!(error = %e, task = %id, "the state of a task cannot be read");
        unkept()
    })
}

async fn replace(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    answered(written(&plane, &id, &headers, How::Replace, body).await)
}

async fn patch(State(plane): Plane, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let how = match kind.split(';').next().unwrap_or_default().trim() {
        "application/merge-patch+json" => How::Merge,
        "application/json-patch+json" => How::Patch,
        _ => {
            let message = "send `application/merge-patch+json` (RFC 7396) or `application/json-patch+json` (RFC 6902)";
            return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message);
        }
    };
    answered(written(&plane, &id, &headers, how, body).await)
}

/// A write: applied to the whole document, decided for each member that it changes, and kept when all of them are allowed.
async fn written(
    plane: &WorkerPlane,
    id: &str,
    headers: &HeaderMap,
    how: How,
    body: Body,
) -> Result<Response, Refused> {
    let (token, id, task) = found(plane, headers, id)?;
    let bytes = plane.body(body).await?;
    let tasks = &plane.llm.tasks;
    let _one_at_a_time = tasks.writing.lock().await;
    let before = document(plane, &id, &task)?;
    let written = write(&before, how, &bytes, &tasks.reserved)
        .map_err(|e| refused(StatusCode::BAD_REQUEST, "malformed_request", &e.to_string()))?;
    let Written { document, keys, reserved } = written;
    if keys.len() > KEYS_MAX {
        let message = format!("one write changes at most {KEYS_MAX} members of the state, and this one {}", keys.len());
        return Err(refused(StatusCode::BAD_REQUEST, "malformed_request", &message));
    }
    // What is reserved is refused by its name, whatever else the write does; the host's members are nobody else's.
    let asked = match &reserved {
        Some(key) => vec![key.split('/').next_back().unwrap_or_default().to_owned()],
        None => keys,
    };
    let said = json::parse(&bytes, plane.settings.worker).unwrap_or(Strict::Null);
    let mut proposals = Vec::new();
    for key in asked {
        proposals.push(Proposal {
            door: Door::State,
            worker: if token.bound.is_some() { token.worker.clone() } else { task.worker.clone() },
            connection: id.to_string(),
            server: String::new(),
            method: match how {
                How::Replace => "replace",
                How::Merge => "merge_patch",
                How::Patch => "json_patch",
            }
            .into(),
            ask: Ask::State { key: key.clone() },
            arguments: Strict::Object(vec![
                ("key".into(), Strict::String(key.clone())),
                ("task".into(), Strict::String(id.to_string())),
            ]),
            // It is looked at once.
            envelope: if proposals.is_empty() { said.clone() } else { Strict::Null },
            payload: String::from_utf8_lossy(&bytes).into_owned(),
            caller: (token.bound.is_none() && token.worker != task.worker).then(|| token.worker.clone()),
            correlation: Correlation {
                session: task.session.clone(),
                task: Some(id.to_string()),
                run: task.run.clone(),
                delegate: token.bound.as_ref().map(|_| token.id.clone()),
            },
            mode: Mode::default(),
            barred: None,
        });
    }
    // One that is refused is refused alone, before the others are said to be done.
    let allowed =
        |proposal: &Proposal| plane.gate.is_in_shadow() || plane.gate.foresee(proposal).verdict == Verdict::Allow;
    if let Some(at) = proposals.iter().position(|proposal| !allowed(proposal)) {
        let others = proposals.len() > 1;
        let mut first = proposals.swap_remove(at);
        let verdict = plane.gate.foresee(&first).verdict;
        // Once somebody acknowledged the one member, the others would be written with it, which nobody was asked about.
        if others && verdict == Verdict::Escalate {
            first.barred = Some("held_with_others");
        }
        proposals = vec![first];
    }
    let keeps =
        Keeps { tasks: tasks.clone(), id: id.clone(), document: document.clone(), failed: AtomicBool::new(false) };
    let last = proposals.len().saturating_sub(1);
    for (number, proposal) in proposals.into_iter().enumerate() {
        let Ask::State { key } = proposal.ask.clone() else { continue };
        let answer = match number == last {
            true => pipeline::handle(&plane.gate, proposal, &keeps).await,
            false => pipeline::handle(&plane.gate, proposal, &WithTheLast).await,
        };
        if let Answer::Refused(refusal) = answer {
            let advice = refusal.advice.as_deref().unwrap_or("refused by policy");
            let advice = Some(format!("`{key}`: {advice}"));
            return Err(Box::new(super::proposals::refused(&Refusal { advice, ..refusal })));
        }
    }
    match keeps.failed.load(Ordering::Acquire) {
        true => Err(unkept()),
        false => Ok(Json(document).into_response()),
    }
}

/// Writes a state, once everything that it changes was allowed.
struct Keeps {
    tasks: Arc<TaskBook>,
    id: TaskId,
    document: Map<String, Value>,
    failed: AtomicBool,
}

impl Upstream for Keeps {
    async fn forward(&self, permit: Permit) -> Reply {
        let bytes = permit.into_payload().as_str().len() as u64;
        // It may have been closed while this one waited.
        let open = self.tasks.of(&self.id, None).is_ok();
        let (book, id, document) = (self.tasks.clone(), self.id.clone(), self.document.clone());
        let done = tokio::task::spawn_blocking(move || if open { book.keep(&id, document) } else { Ok(()) }).await;
        match done.map_err(std::io::Error::other).and_then(|done| done) {
            Ok(()) => Reply::Passed { bytes, failed: false, finding: None },
            Err(e) => {
                tracing::error!(error = %e, task = %self.id, "the state of a task cannot be written");
                self.failed.store(true, Ordering::Release);
                Reply::NotSent
            }
        }
    }
}

/// A member that is written together with the last one.
struct WithTheLast;

impl Upstream for WithTheLast {
    async fn forward(&self, permit: Permit) -> Reply {
        let bytes = permit.into_payload().as_str().len() as u64;
        Reply::Passed { bytes, failed: false, finding: None }
    }
}
