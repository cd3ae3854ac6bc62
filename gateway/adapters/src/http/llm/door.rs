//! A request of a worker, read: who asks, in which task, of which engine, what it may use at most.

use super::answer::{malformed, refused, response};
use super::call::{self, Call};
use super::{Llm, headers};
use crate::engines::over_http::is_path_segment;
use crate::http::worker::WorkerPlane;
use crate::identity::{Bound, Role, Token};
use crate::mcp::exchange::Exchange;
use crate::mcp::headers::correlation;
use crate::mcp::link::Nowhere;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use warden_core::amount::Amount;
use warden_core::json::{self, Json};
use warden_core::llm::Api;
use warden_core::llm::refusal::No;
use warden_core::llm::request::{self, Asked};
use warden_core::pipeline::{self, Answer};
use warden_core::proposal::{Ask, Correlation, Door, EngineAsk, Mode, Proposal, TaskFacts, TaskId, Verb};
use warden_core::session::Session;
use warden_core::task::Task;

const LEASE: &str = "x-warden-lease";
const ENGINE: &str = "x-warden-engine";
const TIMEOUT: &str = "x-warden-timeout-ms";

/// Who asks, and for which task.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The worker that it is done for.
    pub(super) worker: String,
    /// The host that asks for it, if that is another one.
    pub(super) host: Option<String>,
    /// The task. Its id is empty when there is none, which is refused and recorded.
    pub(super) task: TaskId,
    /// What is known of it.
    pub(super) of: Option<Task>,
    /// The delegate that asks: the id of its token.
    pub(super) delegate: Option<String>,
    /// Why there is none.
    pub(super) barred: Option<&'static str>,
    /// The engine that the request names.
    pub(super) wants: Option<String>,
    /// How long it may take, if the request says.
    pub(super) patience: Option<Duration>,
}

impl Caller {
    /// The zone that counts, the task's before the worker's.
    pub(super) fn zone(&self, llm: &Llm) -> Option<String> {
        self.of.as_ref().and_then(|task| task.zone.clone()).or_else(|| llm.given(&self.worker).zone)
    }

    /// Why the call is refused whatever policy says: its task was closed meanwhile, or the engine is not for it. A task narrows its
    /// worker's zone and never widens it.
    fn bars(&self, llm: &Llm, engine: &str) -> Option<&'static str> {
        let open = || self.of.is_none() || llm.tasks.of(&self.task, Some(&self.worker)).is_ok();
        let zones = [self.zone(llm), llm.given(&self.worker).zone];
        let admitted = || zones.iter().all(|zone| llm.engines.admits(zone.as_deref(), engine));
        match self.barred {
            Some(reason) => Some(reason),
            None if !open() => Some("no_enclosing_task"),
            None if !engine.is_empty() && !admitted() => Some("engine_not_in_zone"),
            None => None,
        }
    }

    /// The engines that are wanted, the strongest wish first.
    pub(super) fn wanted(&self, llm: &Llm) -> [Option<String>; 3] {
        let leased = self.of.as_ref().and_then(|task| task.engine.clone());
        [leased, self.wants.clone(), llm.given(&self.worker).engine]
    }

    /// A proposal of something that has to do with an engine.
    pub(super) fn propose(&self, llm: &Llm, engine: &str, verb: Verb, (at_most, priced): (Amount, bool)) -> Proposal {
        let zone = self.zone(llm);
        let barred = self.bars(llm, engine);
        let ambient = self.of.as_ref().is_some_and(|task| task.ambient);
        let facts = TaskFacts { id: self.task.to_string(), ambient, zone, ..TaskFacts::default() };
        let ask = EngineAsk { engine: engine.to_owned(), verb, task: self.task.clone(), facts, at_most, priced };
        Proposal {
            door: Door::Llm,
            worker: self.worker.clone(),
            connection: self.task.to_string(),
            server: String::new(),
            method: String::new(),
            ask: Ask::Engine(Box::new(ask)),
            arguments: Json::Object(Vec::new()),
            envelope: Json::Null,
            payload: String::new(),
            caller: self.host.clone(),
            correlation: Correlation {
                session: self.of.as_ref().and_then(|task| task.session.clone()),
                task: Some(self.task.to_string()).filter(|task| !task.is_empty()),
                run: self.of.as_ref().and_then(|task| task.run.clone()),
                delegate: self.delegate.clone(),
            },
            mode: Mode::default(),
            barred,
        }
    }
}

/// Finds out who asks. A task that is named is the worker's own, with its lease; a host may name any.
pub(super) async fn caller(llm: &Llm, token: &Token, headers: &HeaderMap) -> Caller {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_host = token.role == Role::Host;
    let named = correlation(headers);
    if let Some(bound) = &token.bound {
        return delegate(llm, token, bound, headers).await;
    }
    let mut caller = Caller {
        worker: token.worker.clone(),
        host: None,
        task: TaskId::new(""),
        of: None,
        delegate: None,
        barred: None,
        wants: text(ENGINE),
        patience: text(TIMEOUT).and_then(|ms| ms.parse().ok()).map(Duration::from_millis),
    };
    if headers.contains_key("x-warden-task") || headers.contains_key(LEASE) {
        let id = TaskId::new(named.task.clone().unwrap_or_default());
        match llm.tasks.of(&id, (!is_host).then_some(token.worker.as_str())) {
            Err(reason) => caller.barred = Some(reason),
            Ok(task) => {
                let lease = text(LEASE);
                let holds = lease.as_ref().is_some_and(|lease| llm.tasks.is_lease(&id, &task, lease));
                // A host's own word is enough, unless it shows a lease that is wrong.
                if !holds && (!is_host || lease.is_some()) {
                    caller.barred = Some("lease_invalid");
                }
                if task.worker != token.worker {
                    caller.host = Some(token.worker.clone());
                    caller.worker = task.worker.clone();
                }
                // What a host says of it must be so.
                let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
                if is_host && (differs(&named.session, &task.session) || differs(&named.run, &task.run)) {
                    caller.barred = Some("no_enclosing_task");
                }
                (caller.task, caller.of) = (id, Some(task));
            }
        }
        return caller;
    }
    if llm.given(&token.worker).names_task {
        caller.barred = Some("no_enclosing_task");
        return caller;
    }
    let masked =
        |name: Option<String>| name.filter(|_| is_host).map(|name| llm.gate.ports.scanner.mask(&name).into_owned());
    // A session that Warden knows is its worker's to name.
    let session = match named.session {
        Some(session) if llm.gate.names_session(&session) => {
            // Nothing is opened for a session that is not the worker's.
            let of = |session: &Session| session.is_of(&token.worker);
            if !llm.gate.counted(|counted| counted.sessions.get(&session).is_some_and(of)) {
                caller.barred = Some("unknown_session");
                return caller;
            }
            Some(session)
        }
        other => masked(other),
    };
    match llm.tasks.ambient(&token.worker, session, masked(named.run)).await {
        Ok((id, task)) => (caller.task, caller.of) = (id, Some(task)),
        Err(reason) => caller.barred = Some(reason),
    }
    caller
}

/// A delegate: what it belongs to stands in its token, whatever its headers say. The task that it is bound to needs no lease of it.
async fn delegate(llm: &Llm, token: &Token, bound: &Bound, headers: &HeaderMap) -> Caller {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut caller = Caller {
        worker: token.worker.clone(),
        host: None,
        task: TaskId::new(bound.task.clone().unwrap_or_default()),
        of: None,
        delegate: Some(token.id.clone()),
        barred: None,
        wants: text(ENGINE),
        patience: text(TIMEOUT).and_then(|ms| ms.parse().ok()).map(Duration::from_millis),
    };
    let found = match bound.task {
        Some(_) => llm.tasks.of(&caller.task, Some(&token.worker)).map(|task| (caller.task.clone(), task)),
        None => llm.tasks.ambient(&token.worker, bound.session.clone(), bound.run.clone()).await,
    };
    match found {
        // Whatever its task belongs to, a delegate is in the session of its token.
        Ok((id, task)) => {
            let session = bound.session.clone().or(task.session.clone());
            (caller.task, caller.of) = (id, Some(Task { session, ..task }));
        }
        Err(reason) => caller.barred = Some(reason),
    }
    caller
}

/// A request whose body says everything.
pub(super) async fn take(State(plane): State<Arc<WorkerPlane>>, api: Api, headers: HeaderMap, body: Body) -> Response {
    let path = api.path().strip_prefix("/v1").unwrap_or(api.path());
    let path = if api == Api::Messages { "/v1/messages".to_owned() } else { path.to_owned() };
    serve(plane, api, headers, body, None, path).await
}

/// A request to count the tokens of a message.
pub(super) async fn take_count(State(plane): State<Arc<WorkerPlane>>, headers: HeaderMap, body: Body) -> Response {
    serve(plane, Api::Messages, headers, body, None, "/v1/messages/count_tokens".into()).await
}

/// Streams over WebSockets are not served; a client that tries them first is told so at once.
pub(super) async fn no_upgrade() -> Response {
    response(
        Api::Responses,
        &malformed(426, "no_websockets", "stream over HTTP: `POST` with `stream: true`".into()),
        None,
    )
}

/// A request of Gemini, whose path says the model and what to do.
pub(super) async fn take_gemini(
    State(plane): State<Arc<WorkerPlane>>,
    Path(model): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    mut headers: HeaderMap,
    body: Body,
) -> Response {
    let (model, verb) = model.rsplit_once(':').unwrap_or((&model, ""));
    let streams = match verb {
        "generateContent" => false,
        "streamGenerateContent" => true,
        "countTokens" => false,
        _ => {
            let message = "generateContent, streamGenerateContent and countTokens are served here";
            return response(Api::Gemini, &malformed(404, "unknown_method", message.into()), None);
        }
    };
    if !is_path_segment(model) {
        return response(Api::Gemini, &malformed(400, "malformed_request", "the model is no name".into()), None);
    }
    if let Some(key) = query.get("key").and_then(|key| format!("Bearer {key}").parse().ok())
        && !headers.contains_key("authorization")
    {
        headers.insert("authorization", key);
    }
    let events = query.get("alt").is_some_and(|alt| alt == "sse");
    let path = format!("{}/{model}:{verb}{}", Api::Gemini.path(), if events { "?alt=sse" } else { "" });
    let (model, streams) = (model.to_owned(), streams && events);
    serve(plane, Api::Gemini, headers, body, Some((model, streams)), path).await
}

async fn serve(
    plane: Arc<WorkerPlane>,
    api: Api,
    request_headers: HeaderMap,
    body: Body,
    of_path: Option<(String, bool)>,
    path: String,
) -> Response {
    let read = read(&plane, api, &request_headers, body, of_path).await;
    let (token, text, body, asked) = match read {
        Ok(read) => read,
        Err(no) => return response(api, &no, None),
    };
    let llm = plane.llm.clone();
    let (exchange, awaited) = Exchange::new(None);
    let on = headers::for_provider(&request_headers);
    // Whatever was begun is ended, also when the worker is gone.
    tokio::spawn(async move {
        let caller = caller(&llm, &token, &request_headers).await;
        let zone = caller.zone(&llm);
        let wanted = caller.wanted(&llm);
        let wanted: Vec<Option<&str>> = wanted.iter().map(Option::as_deref).collect();
        match llm.engines.choose(api, &asked.model, &wanted, zone.as_deref()) {
            Err(reason) => exchange.whole(nowhere(&llm, &caller, api, &asked, reason).await),
            Ok(first) => {
                let engines: Vec<_> = llm.engines.instead_of(&first, api, &asked.model);
                let engines = std::iter::once(first).chain(engines).collect();
                let counts = path.ends_with("count_tokens") || path.ends_with(":countTokens");
                let call = Call { counts, api, path, text, body, asked, headers: on, caller, started: Instant::now() };
                call::run(&llm, call, engines, &exchange).await;
            }
        }
    });
    awaited.response().await
}

/// A call that no engine takes is refused by name, and that is recorded.
pub(super) async fn nowhere(llm: &Llm, caller: &Caller, api: Api, asked: &Asked, reason: &'static str) -> Response {
    let mut proposal = caller.propose(llm, "", Verb::CallEngine, (Amount::ZERO, true));
    proposal.method = api.name().to_owned();
    proposal.arguments = Json::Object(vec![("model".into(), Json::String(asked.model.clone()))]);
    proposal.barred = caller.barred.or(Some(reason));
    let no = match pipeline::handle(&llm.gate, proposal, &Nowhere).await {
        Answer::Refused(refusal) => refused(&refusal),
        Answer::Answered { id, .. } | Answer::Ended { id, .. } => {
            super::answer::ended(&id, &warden_core::outcome::Reply::NotSent)
        }
    };
    response(api, &no, None)
}

/// Whether a text can be the name of a model.
pub(super) fn fine_model(model: &str) -> bool {
    model.len() <= 200 && model.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@+~".contains(&b))
}

/// What is refused before anything is read: a gateway that stops, and a time that is none.
pub(super) fn checked(plane: &WorkerPlane, request_headers: &HeaderMap) -> Result<(), No> {
    if plane.is_stopping() {
        return Err(malformed(503, "aborted", "the gateway is shutting down".into()));
    }
    let time = request_headers.get(TIMEOUT);
    let is_time = |value: &axum::http::HeaderValue| value.to_str().is_ok_and(|ms| ms.parse::<u32>().is_ok());
    match time.is_none_or(is_time) {
        true => Ok(()),
        false => Err(malformed(400, "malformed_request", format!("`{TIMEOUT}`: it is no number of milliseconds"))),
    }
}

/// The worker's credential wherever its SDK puts it.
pub(super) fn token(plane: &WorkerPlane, request_headers: &HeaderMap) -> Result<Token, No> {
    let found = plane.token_of_any(request_headers);
    found.map_err(|status| {
        let (code, message) = match status {
            401 => ("unauthorized", "a worker's token is needed as the API key: `warden token issue WORKER`"),
            _ => ("forbidden_origin", "this `Host` or `Origin` is not served; add it to `allowed_hosts`"),
        };
        No { status, code: code.into(), message: message.into(), kind: "denied", decision: None, exceeded: None }
    })
}

/// The body of a request as text, and read.
pub(super) async fn body_of(plane: &WorkerPlane, body: Body) -> Result<(String, Json), No> {
    let bytes = plane.body(body).await.map_err(|refused| {
        let status = refused.status().as_u16();
        let (code, what) = match status {
            413 => ("too_large", format!("a request has at most {} bytes", plane.settings.worker.bytes_max)),
            _ => ("too_slow", "the request did not come in time".to_owned()),
        };
        malformed(status, code, what)
    })?;
    let read = json::parse(&bytes, plane.settings.worker);
    let body = read.map_err(|e| {
        plane.gate.ports.metrics.dropped("malformed");
        malformed(400, "malformed_request", e.to_string())
    })?;
    // It was read as UTF-8.
    Ok((String::from_utf8(bytes).unwrap_or_default(), body))
}

type Read = (Token, String, Json, Asked);

async fn read(
    plane: &WorkerPlane,
    api: Api,
    request_headers: &HeaderMap,
    body: Body,
    of_path: Option<(String, bool)>,
) -> Result<Read, No> {
    checked(plane, request_headers)?;
    let token = token(plane, request_headers)?;
    let (text, body) = body_of(plane, body).await?;
    let of_path = of_path.as_ref().map(|(model, stream)| (model.as_str(), *stream));
    let asked = request::read(api, &body, of_path).map_err(|e| {
        plane.gate.ports.metrics.dropped("malformed");
        malformed(400, "malformed_request", e.to_string())
    })?;
    Ok((token, text, body, asked))
}
