//! The worker plane: `/mcp/{server}` over Streamable HTTP (MCP 2025-11-25, "Transports") and `/healthz`.

use super::{bearer, error, guard};
use crate::govern::Governor;
use crate::identity::{Identities, Token};
use crate::mcp::Settings;
use crate::mcp::connection::{self, Connection, Taken};
use crate::world::World;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;
use warden_core::mcp::{self, From};
use warden_core::pipeline::{self, Gate};
use warden_core::rpc::{self, Kind, Message};
use warden_core::verdict::Verdict;

/// The session header of MCP.
pub const SESSION: &str = "mcp-session-id";
/// Versions with sessions that this door speaks.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// Connections a worker may have at once; each is a process.
const CONNECTIONS_MAX: usize = 32;
/// A connection nobody uses is closed after this long.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Comments that keep proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Sessions = HashMap<String, Arc<Connection<World>>>;

/// What the worker plane works with.
pub struct WorkerPlane {
    /// The gate.
    pub gate: Arc<Gate<World>>,
    /// What decides, for servers that were never listed.
    pub governor: Arc<Governor>,
    /// Who may speak.
    pub identities: Arc<RwLock<Identities>>,
    /// Bounds.
    pub settings: Settings,
    /// Further names of this machine.
    pub allowed_hosts: Vec<String>,
    // A std mutex: nothing awaits while it is held.
    sessions: Mutex<Sessions>,
    stopping: AtomicBool,
    /// Connections that are being opened.
    opening: AtomicUsize,
}

/// A place among the connections, kept while one is opened.
struct Opening<'p>(&'p AtomicUsize);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl WorkerPlane {
    /// With no connection yet.
    pub fn new(
        gate: Arc<Gate<World>>,
        governor: Arc<Governor>,
        identities: Arc<RwLock<Identities>>,
        settings: Settings,
        allowed_hosts: Vec<String>,
    ) -> Self {
        let (sessions, stopping, opening) = (Mutex::default(), AtomicBool::new(false), AtomicUsize::new(0));
        Self { gate, governor, identities, settings, allowed_hosts, sessions, stopping, opening }
    }

    /// The routes.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/mcp/{server}", post(take).get(listen).delete(end))
            .layer(axum::middleware::from_fn(super::to_its_end))
            .layer(DefaultBodyLimit::max(self.settings.worker.bytes_max))
            .with_state(self)
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes connections that nobody uses, and forgets those whose server has ended.
    pub fn sweep(&self) {
        self.sessions().retain(|_, connection| {
            let over = connection.is_gone() || connection.is_idle(IDLE);
            if over {
                connection.close();
            }
            !over
        });
    }

    /// Takes nothing new, waits for what is in flight, and ends all servers.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.store(true, Ordering::Release);
        let waited = async {
            while self.sessions().values().any(|connection| connection.in_flight() > 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(patience, waited).await;
        let open: Vec<_> = self.sessions().drain().map(|(_, connection)| connection).collect();
        open.iter().for_each(|connection| connection.close());
        // Each records what it aborts once its server is gone.
        let ended = async {
            while open.iter().any(|c| !c.is_gone() || c.in_flight() > 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(8), ended).await;
    }

    fn token(&self, headers: &HeaderMap) -> Result<Token, Box<Response>> {
        guard(headers, &self.allowed_hosts)?;
        let identities = self.identities.read().unwrap_or_else(PoisonError::into_inner);
        let token = bearer(headers).and_then(|secret| identities.worker(secret)).cloned();
        token.ok_or_else(|| {
            let message = "a worker's bearer token is needed: `warden token issue WORKER`";
            let mut response = error(StatusCode::UNAUTHORIZED, "unauthorized", message);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            Box::new(response)
        })
    }

    /// The connection of a request. One of another worker or server is as unknown as one that never was.
    fn session(
        &self,
        headers: &HeaderMap,
        worker: &str,
        server: &str,
    ) -> Result<Arc<Connection<World>>, Box<Response>> {
        let Some(id) = headers.get(SESSION).and_then(|id| id.to_str().ok()) else {
            return Err(Box::new(protocol(StatusCode::BAD_REQUEST, "no session: send `initialize` first")));
        };
        let found = self
            .sessions()
            .get(id)
            .cloned()
            .filter(|c| c.passage().worker() == worker && c.passage().server() == server && !c.is_gone());
        found.ok_or_else(|| Box::new(protocol(StatusCode::NOT_FOUND, "no such session: send `initialize` again")))
    }
}

async fn take(
    State(plane): State<Arc<WorkerPlane>>,
    Path(server): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    match take_checked(plane, server, headers, body).await {
        Ok(response) => response,
        Err(response) => *response,
    }
}

async fn take_checked(
    plane: Arc<WorkerPlane>,
    server: String,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Box<Response>> {
    let token = plane.token(&headers)?;
    let body = body.map_err(|_| {
        let message = format!("a message has at most {} bytes", plane.settings.worker.bytes_max);
        Box::new(protocol(StatusCode::PAYLOAD_TOO_LARGE, &message))
    })?;
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.starts_with("application/json"));
    if !json {
        return Err(Box::new(protocol(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send `Content-Type: application/json`")));
    }
    let version = headers.get("mcp-protocol-version").map(|v| v.to_str().unwrap_or("?"));
    if version.is_some_and(|version| !VERSIONS.contains(&version)) {
        return Err(Box::new(protocol(
            StatusCode::BAD_REQUEST,
            "this MCP protocol version is not served here: send `initialize`",
        )));
    }
    let (connection, fresh) = if headers.contains_key(SESSION) {
        (plane.session(&headers, &token.worker, &server)?, None)
    } else {
        let (connection, id) = open(&plane, &token.worker, &server, &body).await?;
        (connection, Some(id))
    };
    let wants_stream =
        headers.get_all(header::ACCEPT).iter().any(|v| v.to_str().is_ok_and(|v| v.contains("text/event-stream")));
    let mut response = match connection.take(&body).await {
        Taken::Accepted => StatusCode::ACCEPTED.into_response(),
        Taken::Malformed(line) => json_response(StatusCode::BAD_REQUEST, line),
        Taken::Answer(answer) if wants_stream => stream_answer(connection, answer),
        Taken::Answer(answer) => match answer.await {
            Ok(line) => json_response(StatusCode::OK, line),
            Err(_) => protocol(StatusCode::INTERNAL_SERVER_ERROR, "the request was dropped"),
        },
    };
    if let Some(id) = fresh.and_then(|id| header::HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(SESSION, id);
    }
    Ok(response)
}

type Opened = (Arc<Connection<World>>, String);

/// A connection for a worker that says `initialize`.
async fn open(plane: &Arc<WorkerPlane>, worker: &str, server: &str, body: &[u8]) -> Result<Opened, Box<Response>> {
    if plane.stopping.load(Ordering::Acquire) {
        return Err(Box::new(protocol(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down")));
    }
    let message = Message::parse(body, plane.settings.worker).map_err(|e| {
        Box::new(json_response(StatusCode::BAD_REQUEST, rpc::error(&rpc::Id::null(), e.code(), &e.to_string(), None)))
    })?;
    let id = match &message.kind {
        Kind::Request { id, method, .. } if method == "initialize" => id.clone(),
        _ => return Err(Box::new(protocol(StatusCode::BAD_REQUEST, "no session: send `initialize` first"))),
    };
    plane.sweep_gone();
    // Counted before the first wait, so that many at once are no way around the limit.
    let opening = plane.opening.fetch_add(1, Ordering::AcqRel);
    let _opening = Opening(&plane.opening);
    if opening + plane.sessions().values().filter(|c| c.passage().worker() == worker).count() >= CONNECTIONS_MAX {
        return Err(Box::new(protocol(StatusCode::TOO_MANY_REQUESTS, "too many connections: close one with DELETE")));
    }
    let session = uuid::Uuid::new_v4().to_string();
    let proposal = mcp::propose(From::Worker, message, worker, &session, server)
        .map_err(|e| Box::new(protocol(StatusCode::BAD_REQUEST, &e.to_string())))?;
    let Some(command) = plane.governor.setup().servers.get(server) else {
        // Asked and denied like anything else, so that it stands in the log.
        let answer = pipeline::handle(&plane.gate, proposal, &connection::Nowhere).await;
        return Err(Box::new(json_response(StatusCode::NOT_FOUND, connection::not_opened(&id, &answer))));
    };
    // A server is not even asked for its tools for a worker that may not connect.
    if pipeline::preview(&plane.gate.snapshot(), &proposal).verdict == Verdict::Allow {
        plane.governor.ensure_listed(server).await;
    }
    let (metrics, governor) = (plane.gate.ports.metrics.clone(), plane.governor.clone());
    let listed: connection::Listed = Arc::new(move |server, tools| {
        let (governor, server) = (governor.clone(), server.to_owned());
        tokio::spawn(async move { governor.compare(&server, &tools).await });
    });
    let opened = connection::open(plane.gate.clone(), proposal, command, plane.settings, metrics, listed).await;
    let connection = opened
        .map_err(|answer| Box::new(json_response(StatusCode::FORBIDDEN, connection::not_opened(&id, &answer))))?;
    plane.sessions().insert(session.clone(), connection.clone());
    if plane.stopping.load(Ordering::Acquire) {
        connection.close();
    }
    Ok((connection, session))
}

impl WorkerPlane {
    fn sweep_gone(&self) {
        self.sessions().retain(|_, connection| !connection.is_gone());
    }
}

async fn listen(State(plane): State<Arc<WorkerPlane>>, Path(server): Path<String>, headers: HeaderMap) -> Response {
    let session = plane.token(&headers).and_then(|token| plane.session(&headers, &token.worker, &server));
    match session {
        Ok(connection) => event_stream(connection.listen()),
        Err(response) => *response,
    }
}

async fn end(State(plane): State<Arc<WorkerPlane>>, Path(server): Path<String>, headers: HeaderMap) -> Response {
    let session = plane.token(&headers).and_then(|token| plane.session(&headers, &token.worker, &server));
    match session {
        Ok(connection) => {
            plane.sessions().remove(connection.passage().connection());
            connection.close();
            StatusCode::NO_CONTENT.into_response()
        }
        Err(response) => *response,
    }
}

/// The answer as the last event of a stream, after what the server has to say meanwhile.
fn stream_answer(connection: Arc<Connection<World>>, answer: tokio::sync::oneshot::Receiver<String>) -> Response {
    let (events, stream) = mpsc::channel(64);
    let (number, mut messages) = connection.begin_answering();
    tokio::spawn(async move {
        let mut answer = answer;
        let last = loop {
            tokio::select! {
                biased;
                Some(message) = messages.recv() => {
                    if events.send(message).await.is_err() { break None }
                }
                line = &mut answer => break line.ok(),
            }
        };
        connection.end_answering(number);
        if let Some(line) = last {
            let _ = events.send(line).await;
        }
    });
    event_stream(stream)
}

fn event_stream(messages: mpsc::Receiver<String>) -> Response {
    let events = futures::stream::unfold(messages, |mut messages| async move {
        let event = match tokio::time::timeout(KEEP_ALIVE, messages.recv()).await {
            Ok(None) => return None,
            Ok(Some(message)) => format!("event: message\ndata: {message}\n\n"),
            Err(_) => ": keep-alive\n\n".to_owned(),
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(event)), messages))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

fn json_response(status: StatusCode, line: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], line).into_response()
}

/// A JSON-RPC error that belongs to no request.
fn protocol(status: StatusCode, message: &str) -> Response {
    json_response(status, rpc::error(&rpc::Id::null(), -32600, message, None))
}
