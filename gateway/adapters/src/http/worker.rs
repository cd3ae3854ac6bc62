//! The worker plane: `/mcp/{server}` over Streamable HTTP (MCP 2025-06-18, 2025-11-25 and 2026-07-28, "Transports"),
//! the decision door (see [`super::authzen`]), and `/healthz`.

use super::llm::Llm;
use super::{authzen, bearer, delegates, error, guard, llm, proposals, sessions, tasks};
use crate::govern::Governor;
use crate::identity::{Bound, Identities, Role, Token};
use crate::mcp::connection::Connection;
use crate::mcp::headers::{self, SESSION, VERSION};
use crate::mcp::held::Waiting;
use crate::mcp::link::{Link, Listed, Nowhere, Opens};
use crate::mcp::refusal::{Asked, Told};
use crate::mcp::remote::{Remote, json as told};
use crate::mcp::server::{Reach, Server};
use crate::mcp::tasks::Tasks;
use crate::mcp::{Settings, connection_proposal};
use crate::sessions::SessionBook;
use crate::world::{World, now};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{OnceCell, oneshot};
use warden_core::mcp::{self, LEGACY};
use warden_core::pipeline::{self, Answer, Gate, Passage};
use warden_core::proposal::{Correlation, Proposal, TaskId};
use warden_core::rpc::{Id, Kind, Message};
use warden_core::verdict::Verdict;

/// Child servers a worker may have at once; each is a process.
const CHILDREN_MAX: usize = 32;
/// Connections to servers at a URL a worker may have at once.
const REMOTES_MAX: usize = 1024;
/// A child that nobody uses is ended after this long.
const CHILD_IDLE: Duration = Duration::from_secs(15 * 60);
/// A session at a URL costs nothing to remember; its server ends it when it likes.
const REMOTE_IDLE: Duration = Duration::from_secs(24 * 3600);

/// One connection of a worker.
#[derive(Clone)]
enum Conn {
    Child(Arc<Connection<World>>),
    Remote(Arc<Remote<World>>),
}

impl Conn {
    fn link(&self) -> &Link<World> {
        match self {
            Conn::Child(connection) => &connection.link,
            Conn::Remote(remote) => &remote.link,
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Conn::Child(connection) => connection.is_gone(),
            Conn::Remote(_) => false,
        }
    }

    fn is_idle(&self) -> bool {
        match self {
            Conn::Child(connection) => connection.is_idle(CHILD_IDLE),
            Conn::Remote(remote) => remote.idle_ms().is_some_and(|ms| u128::from(ms) >= REMOTE_IDLE.as_millis()),
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            Conn::Child(connection) => connection.in_flight(),
            Conn::Remote(remote) => remote.in_flight(),
        }
    }

    fn close(&self) {
        match self {
            Conn::Child(connection) => connection.close(),
            Conn::Remote(remote) => remote.close(),
        }
    }

    /// Whether nothing of it is left.
    fn is_ended(&self) -> bool {
        match self {
            Conn::Child(connection) => connection.is_gone() && connection.in_flight() == 0,
            Conn::Remote(remote) => remote.in_flight() == 0,
        }
    }

    async fn post(&self, headers: &HeaderMap, message: Message, modern: bool) -> Response {
        match self {
            Conn::Child(connection) => connection.post(headers, message, modern).await,
            Conn::Remote(remote) => remote.post(headers, message, modern).await,
        }
    }

    async fn listen(&self, headers: &HeaderMap) -> Response {
        match self {
            Conn::Child(connection) => connection.listen(headers).await,
            Conn::Remote(remote) => remote.listen(headers).await,
        }
    }
}

/// Server, and the session's id or the worker's name.
type Key = (String, String);

#[derive(Default)]
struct Connections {
    /// Legacy sessions, by server and session id.
    sessions: HashMap<Key, Conn>,
    /// What carries requests without a session, by server and worker.
    stateless: HashMap<Key, Arc<OnceCell<Conn>>>,
}

impl Connections {
    fn all(&self) -> impl Iterator<Item = &Conn> {
        self.sessions.values().chain(self.stateless.values().filter_map(|cell| cell.get()))
    }

    /// Forgets the session at a URL that a worker has not used for longest.
    fn forget_idlest(&mut self, worker: &str) {
        let idle = |conn: &Conn| match conn {
            Conn::Remote(remote) if remote.link.passage.worker() == worker => remote.idle_ms(),
            _ => None,
        };
        let idlest = self.sessions.iter().filter_map(|(key, conn)| Some((idle(conn)?, key.clone()))).max();
        if let Some((_, key)) = idlest {
            self.sessions.remove(&key);
        }
    }

    /// Forgets connections that are `over`, and ends them.
    fn forget(&mut self, over: impl Fn(&Conn) -> bool) {
        let stays = |conn: &Conn| {
            let over = over(conn);
            if over {
                conn.close();
            }
            !over
        };
        self.sessions.retain(|_, conn| stays(conn));
        self.stateless.retain(|_, cell| cell.get().is_none_or(stays));
    }
}

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
    /// Where callers reach this plane, if not at its own address.
    pub public_url: Option<String>,
    /// Engines, tasks, and who is given what of them.
    pub llm: Arc<Llm>,
    /// Sessions.
    pub sessions: Arc<SessionBook>,
    // A std mutex: nothing awaits while it is held.
    connections: Mutex<Connections>,
    tasks: Arc<Tasks>,
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

/// A refusal, as an answer. Boxed, since it is large and rare.
type Refused = Box<Response>;

impl WorkerPlane {
    /// With no connection yet.
    #[expect(clippy::too_many_arguments, reason = "each is one part of what the plane works with")]
    pub fn new(
        gate: Arc<Gate<World>>,
        governor: Arc<Governor>,
        identities: Arc<RwLock<Identities>>,
        settings: Settings,
        allowed_hosts: Vec<String>,
        public_url: Option<String>,
        llm: Arc<Llm>,
        sessions: Arc<SessionBook>,
    ) -> Self {
        Self {
            llm,
            sessions,
            gate,
            governor,
            identities,
            settings,
            allowed_hosts,
            public_url,
            connections: Mutex::default(),
            tasks: Arc::default(),
            stopping: AtomicBool::new(false),
            opening: AtomicUsize::new(0),
        }
    }

    /// The routes.
    pub fn router(self: Arc<Self>) -> Router {
        let own = tasks::routes()
            .merge(sessions::routes())
            .merge(delegates::routes())
            .layer(axum::middleware::from_fn(super::to_its_end));
        let decisions = authzen::routes().layer(axum::middleware::from_fn(super::to_its_end));
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/mcp/{server}", post(take).get(listen).delete(end))
            .merge(decisions)
            .merge(llm::routes())
            .merge(own)
            .merge(proposals::routes())
            .fallback(async || nothing_here(StatusCode::NOT_FOUND, "no_such_path", "no such path is served here"))
            .method_not_allowed_fallback(async || {
                nothing_here(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path takes other methods")
            })
            .with_state(self)
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes connections that nobody uses, and forgets those whose server has ended.
    pub fn sweep(&self) {
        self.connections().forget(|conn| conn.is_over() || conn.is_idle());
    }

    /// Takes nothing new, waits for what is in flight, and ends all servers.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.store(true, Ordering::Release);
        let waited = async {
            while self.gate.active() > 0 || self.connections().all().any(|conn| conn.in_flight() > 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(patience, waited).await;
        self.llm.abort();
        let open: Vec<Conn> = {
            let mut connections = self.connections();
            let open = connections.all().cloned().collect();
            *connections = Connections::default();
            open
        };
        open.iter().for_each(Conn::close);
        // Each records what it aborts once its server is gone.
        let ended = async {
            while !open.iter().all(Conn::is_ended) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(8), ended).await;
    }

    /// The token of a request, whose `Host` and `Origin` are checked first.
    pub(super) fn token(&self, headers: &HeaderMap) -> Result<Token, Refused> {
        guard(headers, &self.allowed_hosts)?;
        let token = bearer(headers).and_then(|secret| self.token_of(secret));
        token.ok_or_else(|| {
            let message = "a worker's bearer token is needed: `warden token issue WORKER`";
            let mut response = error(StatusCode::UNAUTHORIZED, "unauthorized", message);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            Box::new(response)
        })
    }

    /// Whether nothing new is taken.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The same wherever a provider's SDK puts its key; else the status of the refusal.
    pub(super) fn token_of_any(&self, headers: &HeaderMap) -> Result<Token, u16> {
        guard(headers, &self.allowed_hosts).map_err(|refused| refused.status().as_u16())?;
        let key = |name: &str| headers.get(name)?.to_str().ok();
        let keys = [bearer(headers), key("x-api-key"), key("x-goog-api-key"), key("api-key")];
        keys.into_iter().flatten().find_map(|secret| self.token_of(secret)).ok_or(401)
    }

    /// The token that a secret is: a worker's own, or a delegate's that is live and whose node is still there.
    fn token_of(&self, secret: &str) -> Option<Token> {
        let identities = self.identities.read().unwrap_or_else(PoisonError::into_inner);
        if !secret.starts_with(delegates::PREFIX) {
            return identities.worker(secret).cloned();
        }
        let hash = crate::identity::hash(secret);
        let found = self.gate.counted(|counted| {
            let found = counted.delegates.find(&hash, now(), |id| identities.has_token(id));
            found.map(|(id, delegate)| Token::of_delegate(id, delegate))
        });
        found.filter(|token| self.gate.snapshot().is_known(&token.worker))
    }

    /// What a request belongs to: what a delegate's token says, what a host says, or what a worker says of its own. Whatever else a worker
    /// says is nobody's business.
    pub(super) fn belongs(&self, token: &Token, headers: &HeaderMap) -> Correlation {
        let said = headers::correlation(headers);
        if let Some(bound) = &token.bound {
            let Bound { session, task, run } = bound.clone();
            return Correlation { session, task, run, delegate: Some(token.id.clone()) };
        }
        if token.role == Role::Host {
            return said;
        }
        self.own(&token.worker, said)
    }

    /// Of what a worker says, what it may say: sessions, which the gate holds against their owner, and its own open tasks.
    fn own(&self, worker: &str, said: Correlation) -> Correlation {
        let session = said.session.filter(|session| self.gate.names_session(session));
        let is_own = |task: &String| self.llm.tasks.of(&TaskId::new(task.clone()), Some(worker)).is_ok();
        Correlation { session, task: said.task.filter(is_own), run: None, delegate: None }
    }

    /// What a message says of it by itself, in `_meta`, where no header does (`warden/session`, `warden/task`, `warden/run`).
    fn in_meta(&self, token: &Token, message: &Message) -> Correlation {
        let Kind::Request { params, .. } = &message.kind else { return Correlation::default() };
        let text = |name: &str| mcp::meta(params, name).and_then(|value| value.as_str()).map(str::to_owned);
        let fine = |text: &String| !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        let of = |name: &str| text(name).filter(fine);
        let said = Correlation {
            session: of("warden/session"),
            task: of("warden/task"),
            run: of("warden/run"),
            delegate: None,
        };
        if token.role == Role::Host { said } else { self.own(&token.worker, said) }
    }

    /// A request's body, within its bounds of size and time.
    pub(super) async fn body(&self, body: Body) -> Result<Vec<u8>, Refused> {
        let (bytes_max, patience) = (self.settings.worker.bytes_max, self.settings.message_timeout);
        match tokio::time::timeout(patience, axum::body::to_bytes(body, bytes_max)).await {
            Ok(Ok(bytes)) => Ok(bytes.into()),
            Ok(Err(_)) => {
                let message = format!("a message has at most {bytes_max} bytes");
                Err(Box::new(protocol(StatusCode::PAYLOAD_TOO_LARGE, &message)))
            }
            Err(_) => {
                let message = format!("the message did not come within {} s", patience.as_secs());
                Err(Box::new(protocol(StatusCode::REQUEST_TIMEOUT, &message)))
            }
        }
    }

    /// The session of a request. One of another worker or server is as unknown as one that never was.
    fn session(&self, id: &HeaderValue, worker: &str, server: &str) -> Result<Conn, Refused> {
        let id = id.to_str().unwrap_or_default();
        let found = self.connections().sessions.get(&(server.to_owned(), id.to_owned())).cloned();
        let ours = found.filter(|conn| conn.link().passage.worker() == worker && !conn.is_over());
        ours.ok_or_else(|| Box::new(protocol(StatusCode::NOT_FOUND, "no such session: send `initialize` again")))
    }

    /// The connection of a request that is not `initialize`.
    async fn connection(
        self: &Arc<Self>,
        headers: &HeaderMap,
        token: &Token,
        server: &str,
        modern: bool,
        asked: Asked<'_>,
    ) -> Result<Conn, Refused> {
        if let Some(id) = headers.get(SESSION).filter(|_| !modern) {
            return self.session(id, &token.worker, server);
        }
        let is_child = self.governor.setup().servers.get(server).is_some_and(|s| matches!(s.reach, Reach::Command(_)));
        if !modern && is_child {
            return Err(Box::new(protocol(StatusCode::BAD_REQUEST, "no session: send `initialize` first")));
        }
        self.stateless(&token.worker, server, asked).await
    }

    /// What carries a worker's requests without a session, opened by the first of them.
    async fn stateless(self: &Arc<Self>, worker: &str, server: &str, asked: Asked<'_>) -> Result<Conn, Refused> {
        let open = || async {
            let connection = uuid::Uuid::new_v4().to_string();
            self.open(connection_proposal(worker, &connection, server), true).await
        };
        let refused = |e: NotOpened| match e {
            NotOpened::Busy(refused) => refused,
            NotOpened::Refused(answer) => Box::new(not_opened(asked, &answer)),
        };
        // A place is kept for servers that there are.
        if !self.governor.setup().servers.contains_key(server) {
            return open().await.map_err(refused);
        }
        let cell = {
            let mut connections = self.connections();
            let key = (server.to_owned(), worker.to_owned());
            let cell = connections.stateless.entry(key).or_default();
            if cell.get().is_some_and(Conn::is_over) {
                *cell = Arc::default();
            }
            cell.clone()
        };
        cell.get_or_try_init(open).await.cloned().map_err(refused)
    }

    /// Opens a connection, if it is allowed. Runs to its end even when the worker is gone; nobody's connection is closed.
    async fn open(self: &Arc<Self>, proposal: Proposal, stateless: bool) -> Result<Conn, NotOpened> {
        let (this, (opened, waiting)) = (self.clone(), oneshot::channel());
        tokio::spawn(async move {
            if let Err(Ok(conn)) = opened.send(this.open_here(proposal, stateless).await) {
                conn.close();
            }
        });
        let failed = || NotOpened::Busy(Box::new(protocol(StatusCode::INTERNAL_SERVER_ERROR, "failed")));
        waiting.await.unwrap_or_else(|_| Err(failed()))
    }

    async fn open_here(self: &Arc<Self>, proposal: Proposal, stateless: bool) -> Result<Conn, NotOpened> {
        let busy = |status, what| NotOpened::Busy(Box::new(protocol(status, what)));
        if self.stopping.load(Ordering::Acquire) {
            return Err(busy(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down"));
        }
        let (worker, name) = (proposal.worker.clone(), proposal.server.clone());
        let Some(server) = self.governor.setup().servers.get(&name) else {
            // Asked and denied like anything else, so that it stands in the log.
            let answer = pipeline::handle(&self.gate, proposal, &Nowhere).await;
            return Err(NotOpened::Refused(Box::new(answer)));
        };
        self.connections().forget(Conn::is_over);
        // Counted before the first wait, so that many at once are no way around the limit.
        let opening = self.opening.fetch_add(1, Ordering::AcqRel);
        let _opening = Opening(&self.opening);
        let (is_child, limit) = match server.reach {
            Reach::Command(_) => (true, CHILDREN_MAX),
            Reach::Url(_) => (false, REMOTES_MAX),
        };
        let like = |conn: &&Conn| conn.link().passage.worker() == worker && matches!(conn, Conn::Child(_)) == is_child;
        // Those being opened may be of any worker; of processes there must not be too many in any case.
        let others = if is_child { opening } else { 0 };
        let full = |plane: &Self| others + plane.connections().all().filter(like).count() >= limit;
        if !is_child && full(self) {
            self.connections().forget_idlest(&worker);
        }
        if full(self) {
            return Err(busy(StatusCode::TOO_MANY_REQUESTS, "too many connections: close one with DELETE"));
        }
        // A server is not even asked for its tools for a worker that may not connect.
        let may =
            || pipeline::preview(&self.gate.snapshot(), &proposal, &self.gate.ports.scanner).verdict == Verdict::Allow;
        if self.gate.is_in_shadow() || may() {
            self.governor.ensure_listed(&name).await;
        }
        let opens = Opens::new(|passage| self.start(passage, server, stateless));
        let answer = pipeline::handle(&self.gate, proposal, &opens).await;
        let Some(conn) = opens.into_opened() else { return Err(NotOpened::Refused(Box::new(answer))) };
        if self.stopping.load(Ordering::Acquire) {
            conn.close();
        }
        Ok(conn)
    }

    /// What an allowed connection is carried by.
    fn start(&self, passage: Passage, server: &Server, stateless: bool) -> Option<Conn> {
        let name = passage.server().to_owned();
        let link = |tasks| Link {
            gate: self.gate.clone(),
            passage,
            settings: self.settings,
            metrics: self.gate.ports.metrics.clone(),
            listed: self.listed(),
            tasks,
            waiting: Waiting::default(),
        };
        match &server.reach {
            Reach::Url(http) => {
                let link = link(Some(self.tasks.clone()));
                Some(Conn::Remote(Arc::new(Remote::new(link, server.clone(), http.clone()))))
            }
            Reach::Command(command) => match Connection::start(link(None), server.clone(), command, stateless) {
                Ok(connection) => Some(Conn::Child(connection)),
                Err(e) => {
                    tracing::error!(server = name, program = %command.program, error = %e, "cannot start the server");
                    None
                }
            },
        }
    }

    fn listed(&self) -> Listed {
        let governor = self.governor.clone();
        Arc::new(move |server, tools| {
            let (governor, server) = (governor.clone(), server.to_owned());
            tokio::spawn(async move { governor.compare(&server, &tools).await });
        })
    }

    /// A worker's `initialize`: a connection of its own and, where the server has sessions, its session.
    async fn initialize(
        self: &Arc<Self>,
        headers: HeaderMap,
        message: Message,
        token: &Token,
        server: &str,
    ) -> Result<Response, Refused> {
        let id = headers::id_of(&message);
        let asked = Asked { id: &id, method: "initialize", modern: false };
        let connection = uuid::Uuid::new_v4().to_string();
        let mut proposal = mcp::propose(mcp::From::Worker, message.clone(), &token.worker, &connection, server)
            .map_err(|e| Box::new(protocol(StatusCode::BAD_REQUEST, &e.to_string())))?;
        proposal.correlation = headers::correlated(&headers);
        let conn = self.open(proposal, false).await.map_err(|e| match e {
            NotOpened::Busy(refused) => refused,
            NotOpened::Refused(answer) => Box::new(not_opened(asked, &answer)),
        })?;
        match &conn {
            Conn::Child(_) => {
                self.connections().sessions.insert((server.to_owned(), connection.clone()), conn.clone());
                let mut response = conn.post(&headers, message, false).await;
                if let Ok(session) = HeaderValue::from_str(&connection) {
                    response.headers_mut().insert(SESSION, session);
                }
                Ok(response)
            }
            Conn::Remote(remote) => {
                let response = conn.post(&headers, message, false).await;
                if !response.status().is_success() {
                    return Ok(response);
                }
                let mut connections = self.connections();
                match response.headers().get(SESSION).cloned() {
                    Some(session) => {
                        let key = (server.to_owned(), session.to_str().unwrap_or_default().to_owned());
                        let other = connections.sessions.get(&key);
                        if other.is_some_and(|other| other.link().passage.worker() != token.worker) {
                            tracing::error!(server, "the server gave two workers one session");
                            return Err(Box::new(protocol(
                                StatusCode::BAD_GATEWAY,
                                "the server gave no session of its own",
                            )));
                        }
                        remote.begin_session(session);
                        connections.sessions.insert(key, conn.clone());
                    }
                    None => {
                        let key = (server.to_owned(), token.worker.clone());
                        connections.stateless.insert(key, Arc::new(OnceCell::new_with(Some(conn.clone()))));
                    }
                }
                drop(connections);
                Ok(response)
            }
        }
    }

    fn forget_session(&self, server: &str, session: Option<&HeaderValue>) -> Option<Conn> {
        let id = session?.to_str().ok()?;
        self.connections().sessions.remove(&(server.to_owned(), id.to_owned()))
    }
}

/// In a shape that SDKs of all APIs read.
fn nothing_here(status: StatusCode, code: &str, message: &str) -> Response {
    let error = serde_json::json!({ "type": "not_found_error", "code": code, "message": message, "param": null });
    (status, axum::Json(serde_json::json!({ "type": "error", "error": error }))).into_response()
}

/// Why a connection was not opened.
enum NotOpened {
    /// It was not even asked for.
    Busy(Refused),
    /// It was refused, or its server could not be started.
    Refused(Box<Answer>),
}

async fn take(
    State(plane): State<Arc<WorkerPlane>>,
    Path(server): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match take_checked(&plane, &server, headers, body).await {
        Ok(response) => response,
        Err(response) => *response,
    }
}

async fn take_checked(
    plane: &Arc<WorkerPlane>,
    server: &str,
    mut headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let token = plane.token(&headers)?;
    let mut belongs = plane.belongs(&token, &headers);
    if !headers::is_json(&headers) || headers::is_ambiguous(&headers) {
        return Err(Box::new(protocol(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send `Content-Type: application/json` in UTF-8, and no header twice",
        )));
    }
    let body = plane.body(body).await?;
    let message = Message::parse(&body, plane.settings.worker).map_err(|e| {
        plane.gate.ports.metrics.dropped("malformed");
        let asked = Asked { id: &Id::null(), method: "", modern: false };
        Box::new(told(StatusCode::BAD_REQUEST, HeaderMap::new(), asked.malformed(e.code(), &e.to_string())))
    })?;
    if token.bound.is_none() {
        let meta = plane.in_meta(&token, &message);
        belongs.session = belongs.session.or(meta.session);
        belongs.task = belongs.task.or(meta.task);
        belongs.run = belongs.run.or(meta.run);
    }
    headers::correlate(&mut headers, &belongs);
    let modern = headers::is_modern(&headers, &message);
    let (id, method) = (headers::id_of(&message), method_of(&message).to_owned());
    let asked = Asked { id: &id, method: &method, modern };
    if modern {
        let snapshot = plane.gate.snapshot();
        let declared = tool_of(&message).map(|tool| snapshot.header_params(server, tool)).unwrap_or_default();
        if headers.remove(headers::BRIDGE).is_some() {
            headers::fill(&mut headers, &message, declared);
        }
        headers::check(&headers, &message, declared).map_err(|refused| {
            plane.gate.ports.metrics.dropped("header_mismatch");
            let refused = asked.malformed(refused.code, &refused.message);
            Box::new(told(StatusCode::BAD_REQUEST, HeaderMap::new(), refused))
        })?;
        // There are no sessions; a header that says otherwise is nobody's business.
        headers.remove(SESSION);
        headers.remove(headers::LAST_EVENT);
    } else if let Some(version) = headers.get(VERSION).map(|version| version.to_str().unwrap_or("?"))
        && !LEGACY.contains(&version)
    {
        let message = format!("this MCP protocol version is not served here: {}", LEGACY.join(", "));
        return Err(Box::new(protocol(StatusCode::BAD_REQUEST, &message)));
    }
    let has_session = headers.contains_key(SESSION);
    if method == "initialize" && !modern && !has_session && matches!(message.kind, Kind::Request { .. }) {
        return plane.initialize(headers, message, &token, server).await;
    }
    let conn = plane.connection(&headers, &token, server, modern, asked).await?;
    let response = conn.post(&headers, message, modern).await;
    if response.status() == StatusCode::NOT_FOUND && !modern && matches!(conn, Conn::Remote(_)) {
        // The server has ended it: the worker initializes again.
        plane.forget_session(server, headers.get(SESSION));
    }
    Ok(response)
}

async fn listen(State(plane): State<Arc<WorkerPlane>>, Path(server): Path<String>, headers: HeaderMap) -> Response {
    match found(&plane, &server, &headers).await {
        Ok(conn) => conn.listen(&headers).await,
        Err(response) => *response,
    }
}

async fn end(State(plane): State<Arc<WorkerPlane>>, Path(server): Path<String>, headers: HeaderMap) -> Response {
    match found(&plane, &server, &headers).await {
        Ok(Conn::Child(connection)) => {
            plane.forget_session(&server, headers.get(SESSION));
            connection.close();
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(Conn::Remote(remote)) => {
            let response = remote.end(&headers).await;
            if response.status().is_success() || response.status() == StatusCode::NOT_FOUND {
                plane.forget_session(&server, headers.get(SESSION));
            }
            response
        }
        Err(response) => *response,
    }
}

/// The connection of a `GET` or `DELETE`, which the legacy protocol alone knows.
async fn found(plane: &Arc<WorkerPlane>, server: &str, headers: &HeaderMap) -> Result<Conn, Refused> {
    let token = plane.token(headers)?;
    if headers::is_ambiguous(headers) {
        return Err(Box::new(protocol(StatusCode::BAD_REQUEST, "a header is there twice")));
    }
    if headers.get(VERSION).and_then(|version| version.to_str().ok()).is_some_and(mcp::is_modern) {
        let mut response = protocol(StatusCode::METHOD_NOT_ALLOWED, "this protocol version has POST alone");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Err(Box::new(response));
    }
    let asked = Asked { id: &Id::null(), method: "", modern: false };
    plane.connection(headers, &token, server, false, asked).await
}

fn method_of(message: &Message) -> &str {
    match &message.kind {
        Kind::Request { method, .. } | Kind::Notification { method, .. } => method,
        Kind::Result { .. } | Kind::Error { .. } => "",
    }
}

fn tool_of(message: &Message) -> Option<&str> {
    match &message.kind {
        Kind::Request { method, params, .. } if method == "tools/call" => params.get("name")?.as_str(),
        _ => None,
    }
}

/// The answer to a request whose connection was not opened.
fn not_opened(asked: Asked<'_>, answer: &Answer) -> Response {
    let (status, refused): (_, Told) = match answer {
        Answer::Refused(refused) if refused.reason == "unknown_server" => {
            (StatusCode::NOT_FOUND, asked.refused(refused))
        }
        Answer::Refused(refused) => (StatusCode::FORBIDDEN, asked.refused(refused)),
        Answer::Ended { id, reply } => (StatusCode::BAD_GATEWAY, asked.ended(id, reply)),
        Answer::Answered { id, .. } => {
            (StatusCode::BAD_GATEWAY, asked.ended(id, &warden_core::outcome::Reply::NotSent))
        }
    };
    // A refused call is a result that its model can read.
    let status = if refused.code.is_none() { StatusCode::OK } else { status };
    told(status, HeaderMap::new(), refused)
}

/// A JSON-RPC error that belongs to no request.
pub(super) fn protocol(status: StatusCode, message: &str) -> Response {
    let asked = Asked { id: &Id::null(), method: "", modern: false };
    told(status, HeaderMap::new(), asked.malformed(-32600, message))
}
