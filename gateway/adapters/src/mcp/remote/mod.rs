//! A worker's connection to a server at a URL: one legacy session, or all its requests without one.
//!
//! Each request of the worker is one request upstream, and the answer goes back as it comes: JSON as JSON, events as events.
//! What is decided about a request ends with its final message, wherever that arrives: in the answer itself or, when a
//! legacy stream broke, on the stream with which the worker resumed.
//!
//! `relay` takes a request to the server and its answer back, `events` looks at what a stream carries, `answer` reads
//! whole answers.

mod answer;
mod events;
mod relay;

use super::exchange::Exchange;
use super::headers;
use super::held::{self, Waits};
use super::link::{Link, Nowhere};
use super::refusal::{Asked, Told};
use super::server::{HttpServer, Server};
use super::{id_of, lock, reply, request_id};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, response};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot, watch};
use warden_core::json::{self as core_json, Json};
use warden_core::mcp::{self, From};
use warden_core::outcome::{Lost, Reply};
use warden_core::passing::{Passing, Stop};
use warden_core::pipeline::{self, Answer, Cleared, Payload, Permit, Ports, Upstream};
use warden_core::proposal::{Ask, Proposal, Verb};
use warden_core::rpc::{self, Id, Kind, Message};
use warden_core::sse::{Event, Events, Item, Large};

/// Answers up to this are held whole, so that they can be refused in words. Larger ones are scanned as they pass.
const HOLD_MAX: usize = 1 << 20;
/// Requests of one connection that may be on their way at once.
const BUSY_MAX: usize = 1024;
/// Answered requests whose answer may be replayed when the worker resumes a stream.
const REPLAYS_MAX: usize = 256;
/// Streams of the server's own messages that a connection may have open.
const LISTENING_MAX: usize = 32;

/// See the module.
pub struct Remote<P> {
    /// What every connection has.
    pub link: Link<P>,
    server: Server,
    http: Arc<HttpServer>,
    /// The server's id of the session.
    session: OnceLock<HeaderValue>,
    /// Requests of a session that wait for their final message.
    open: Mutex<HashMap<Id, Open>>,
    replays: Mutex<Replays>,
    /// Requests of the server that the worker has not answered, with what they said.
    of_server: Mutex<HashMap<Id, (String, oneshot::Sender<Reply>)>>,
    busy: AtomicUsize,
    listening: AtomicUsize,
    closing: watch::Sender<bool>,
    started: Instant,
    last_used_ms: AtomicU64,
}

/// A request of a session on its way.
struct Open {
    elsewhere: oneshot::Sender<Final>,
    cancelled: Arc<Notify>,
}

/// A final message that came on another stream than its request's; `told` says what of it the worker is given.
struct Final {
    reply: Reply,
    told: oneshot::Sender<Told>,
}

/// What was asked by the requests that were answered, the oldest first.
#[derive(Default)]
struct Replays {
    asked: HashMap<Id, (Ask, String)>,
    order: VecDeque<Id>,
}

/// Counts for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One request of the worker on its way.
struct Call<'a> {
    exchange: &'a Exchange,
    headers: &'a HeaderMap,
    id: &'a Id,
    modern: bool,
    patience: Option<Duration>,
    /// What its worker hears of meanwhile, if it takes events.
    token: Option<Id>,
    /// Whether its answer is content, which is passed on while it is read when it is large. Anything else is looked at whole.
    content: bool,
    held: Mutex<Option<Held>>,
    /// Whether its stream had events that a worker can ask for again.
    resumable: AtomicBool,
    /// Whether Warden has begun its stream by itself, to say that it is held.
    waited: AtomicBool,
}

/// How the final message came, and so how it goes on.
enum Held {
    /// As the body of an answer with this head.
    Whole(StatusCode, HeaderMap),
    /// As an event of a stream that may go on.
    Event(Event, Stream),
    /// On another stream, which waits for it.
    Elsewhere(oneshot::Sender<Told>),
}

/// A stream of events.
struct Stream {
    body: Incoming,
    events: Events,
    resumable: bool,
}

/// What a stream is for.
#[derive(Clone, Copy)]
enum Carries<'a> {
    /// The answer to this request.
    Answer(&'a Id),
    /// What follows an answer, which is not answered again.
    Afterwards,
    /// What the server says by itself, and what its worker has missed.
    Anything,
}

/// What became of an event.
enum Flow {
    /// It went on, or led nowhere.
    On,
    /// It is the final message that was waited for.
    Final(Reply, Event),
}

impl<P: Ports + 'static> Remote<P> {
    /// Whether what stands beside a message holds no secret value.
    fn is_clean(&self, text: &[u8]) -> bool {
        self.link.passage.scanner().scan_text(&String::from_utf8_lossy(text), "").is_clean()
    }

    /// A connection that was allowed.
    pub fn new(link: Link<P>, server: Server, http: Arc<HttpServer>) -> Self {
        link.metrics.connections.inc();
        Self {
            link,
            server,
            http,
            session: OnceLock::new(),
            open: Mutex::default(),
            replays: Mutex::default(),
            of_server: Mutex::default(),
            busy: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            closing: watch::Sender::new(false),
            started: Instant::now(),
            last_used_ms: AtomicU64::new(0),
        }
    }

    /// The server has given it a session.
    pub fn begin_session(&self, id: HeaderValue) {
        let _ = self.session.set(id);
    }

    /// Takes one message of the worker, whose headers were checked.
    pub async fn post(self: &Arc<Self>, headers: &HeaderMap, message: Message, modern: bool) -> Response {
        self.touch();
        let headers = headers::for_server(headers, modern);
        if matches!(message.kind, Kind::Result { .. } | Kind::Error { .. }) {
            self.answered_by_worker(message);
            return StatusCode::ACCEPTED.into_response();
        }
        let id = headers::id_of(&message);
        let cancels = match &message.kind {
            Kind::Notification { method, params } if method == "notifications/cancelled" => request_id(params),
            _ => None,
        };
        let method = match &message.kind {
            Kind::Request { method, .. } | Kind::Notification { method, .. } => method.clone(),
            Kind::Result { .. } | Kind::Error { .. } => String::new(),
        };
        let notification = matches!(message.kind, Kind::Notification { .. });
        let token = match &message.kind {
            Kind::Request { params, .. } => mcp::meta(params, "progressToken").and_then(id_of),
            _ => None,
        };
        if self.busy.load(Ordering::Acquire) >= BUSY_MAX {
            self.link.metrics.dropped("too_many_requests");
            let told = Asked { id: &id, method: &method, modern }
                .unanswered("too many requests are on their way: wait for an answer");
            return json(StatusCode::TOO_MANY_REQUESTS, HeaderMap::new(), told);
        }
        // What is found there goes into the proposal, which is denied for it.
        let found = headers::to_scan(&headers).filter(|texts| !self.link.passage.scanner().scan(texts, "").is_clean());
        let cleared = match &found {
            None => self.link.passage.clear(From::Worker, message),
            Some(_) => Cleared::Decide(message),
        };
        let work = match cleared {
            Cleared::Pass(payload) => {
                self.link.metrics.chatter.inc();
                if notification {
                    if let Some(id) = cancels {
                        self.link.waiting.take_back(&id);
                        if let Some(open) = lock(&self.open).get(&id).map(|open| open.cancelled.clone()) {
                            open.notify_one();
                        }
                    }
                    return self.notify(&headers, payload).await;
                }
                Work::Chat(payload)
            }
            Cleared::Decide(message) => match self.link.propose_modern(message, modern, &headers) {
                Ok(mut proposal) => {
                    if let (Json::Object(members), Some(found)) = (&mut proposal.envelope, found) {
                        members.push(("headers".into(), found));
                    }
                    Work::Ask(proposal)
                }
                Err(e) => {
                    self.link.metrics.dropped("malformed");
                    let told = Asked { id: &id, method: &method, modern }.malformed(-32602, &e.to_string());
                    return json(StatusCode::BAD_REQUEST, HeaderMap::new(), told);
                }
            },
        };
        let this = self.clone();
        let (exchange, awaited) = Exchange::new(None);
        tokio::spawn(
            async move { this.work(work, exchange, headers, (id, token), method, modern, notification).await },
        );
        awaited.response().await
    }

    #[expect(clippy::too_many_arguments, reason = "they are one request, taken apart to move into its task")]
    async fn work(
        self: Arc<Self>,
        work: Work,
        exchange: Exchange,
        headers: HeaderMap,
        (id, token): (Id, Option<Id>),
        method: String,
        modern: bool,
        notification: bool,
    ) {
        let _busy = Counted::new(&self.busy);
        let tool = match &work {
            Work::Ask(Proposal { ask: Ask::Tool { name }, .. }) => Some(name.as_str()),
            _ => None,
        };
        // Listening has no end.
        let patience =
            (method != "subscriptions/listen").then(|| self.server.timeout(tool, self.link.settings.call_timeout));
        let call = Call {
            exchange: &exchange,
            headers: &headers,
            id: &id,
            modern,
            patience,
            token: token.filter(|_| takes_events(&headers)),
            content: is_content(&method),
            held: Mutex::default(),
            resumable: AtomicBool::new(false),
            waited: AtomicBool::new(false),
        };
        let asked = Asked { id: &id, method: &method, modern };
        let told = match work {
            Work::Ask(proposal) if notification => {
                // Nobody waits for the answer to a notification, and none of them is ever permitted.
                pipeline::handle(&self.link.gate, proposal, &Nowhere).await;
                exchange.whole(StatusCode::ACCEPTED.into_response());
                return;
            }
            Work::Ask(proposal) => {
                let ask = proposal.ask.clone();
                let told = self.link.ask(proposal, asked, &ToServer { remote: &self, call: &call }).await;
                self.replayable(&call, ask, &method, &told);
                told
            }
            Work::Chat(payload) => {
                let told = self.chat(payload, asked, &call).await;
                self.replayable(&call, Ask::Verb(Verb::Connect), &method, &told);
                told
            }
        };
        self.tell(&call, told).await;
    }

    /// How much of an answer is held.
    fn hold_max(&self, call: &Call<'_>) -> usize {
        // A stream that Warden has begun takes whole messages alone.
        if call.content && !call.waited.load(Ordering::Acquire) {
            HOLD_MAX
        } else {
            self.link.settings.server.bytes_max
        }
    }

    async fn chat(self: &Arc<Self>, payload: Payload, asked: Asked<'_>, call: &Call<'_>) -> Told {
        let reply = self.relay(call, payload).await;
        self.link.released(reply, asked)
    }

    /// A notification is accepted by the server itself.
    async fn notify(&self, headers: &HeaderMap, payload: Payload) -> Response {
        let sent = self.http.send(Method::POST, headers, payload.into_text());
        match tokio::time::timeout(self.link.settings.call_timeout, sent).await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                let text = self.small(body).await.unwrap_or_default();
                let (status, headers, reply) = self.read_answer(&head, text, None);
                match self.link.passage.release(reply) {
                    Some(payload) if !payload.as_str().is_empty() => {
                        (status, headers, payload.into_text()).into_response()
                    }
                    _ => status.into_response(),
                }
            }
            Ok(Err(_)) => StatusCode::BAD_GATEWAY.into_response(),
            Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
        }
    }

    /// The stream of the server's own messages, and of those that a worker has missed.
    pub async fn listen(self: &Arc<Self>, headers: &HeaderMap) -> Response {
        self.touch();
        let headers = headers::for_server(headers, false);
        if headers::to_scan(&headers)
            .is_some_and(|texts| !self.link.passage.scanner().scan(&texts, "/headers").is_clean())
        {
            return StatusCode::BAD_REQUEST.into_response();
        }
        if self.listening.load(Ordering::Acquire) >= LISTENING_MAX {
            self.link.metrics.dropped("too_many_streams");
            return StatusCode::TOO_MANY_REQUESTS.into_response();
        }
        let (exchange, awaited) = Exchange::new(None);
        let this = self.clone();
        tokio::spawn(async move { this.follow(&exchange, &headers).await });
        awaited.response().await
    }

    async fn follow(self: &Arc<Self>, exchange: &Exchange, headers: &HeaderMap) {
        let _listening = Counted::new(&self.listening);
        let sent = self.http.send(Method::GET, headers, String::new());
        let response = tokio::select! {
            response = sent => response,
            () = exchange.left() => return,
        };
        let Ok(response) = response else {
            exchange.whole(StatusCode::BAD_GATEWAY.into_response());
            return;
        };
        let (head, body) = response.into_parts();
        if !is_events(&head) {
            exchange.whole(self.small_answer(&head, body).await);
            return;
        }
        exchange.begin_events(headers::for_worker(&head.headers));
        let mut stream = Stream::new(body, self.link.settings.server.bytes_max);
        loop {
            let item = tokio::select! {
                item = stream.next(None) => item,
                () = exchange.left() => return,
                () = self.closed() => return,
            };
            match item {
                Ok(Some(Item::Event(event))) => {
                    if let Flow::Final(..) = self.event(exchange, headers, event, Carries::Anything, false).await {
                        return;
                    }
                }
                Ok(Some(Item::Large(_))) => {
                    self.link.metrics.dropped("garbage_from_server");
                    return;
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Ends the session, if the server lets it.
    pub async fn end(&self, headers: &HeaderMap) -> Response {
        let headers = headers::for_server(headers, false);
        if headers::to_scan(&headers)
            .is_some_and(|texts| !self.link.passage.scanner().scan(&texts, "/headers").is_clean())
        {
            return StatusCode::BAD_REQUEST.into_response();
        }
        let sent = self.http.send(Method::DELETE, &headers, String::new());
        match tokio::time::timeout(self.link.settings.call_timeout, sent).await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                self.small_answer(&head, body).await
            }
            Ok(Err(_)) => StatusCode::BAD_GATEWAY.into_response(),
            Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
        }
    }

    async fn small_answer(&self, head: &response::Parts, body: Incoming) -> Response {
        let text = self.small(body).await.unwrap_or_default();
        let (status, headers, reply) = self.read_answer(head, text, None);
        match self.link.passage.release(reply) {
            Some(payload) => (status, headers, payload.into_text()).into_response(),
            None => status.into_response(),
        }
    }

    async fn small(&self, body: Incoming) -> Option<Vec<u8>> {
        let limited = http_body_util::Limited::new(body, HOLD_MAX);
        let all = tokio::time::timeout(self.link.settings.call_timeout, limited.collect()).await;
        Some(all.ok()?.ok()?.to_bytes().to_vec())
    }

    /// Aborts what is on its way.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Requests that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.busy.load(Ordering::Acquire)
    }

    /// For how long it was not used; nothing while it is.
    pub fn idle_ms(&self) -> Option<u64> {
        let used = self.in_flight() > 0 || self.listening.load(Ordering::Acquire) > 0;
        (!used).then(|| self.now_ms().saturating_sub(self.last_used_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn touch(&self) {
        self.last_used_ms.store(self.now_ms(), Ordering::Relaxed);
    }
}

impl<P> Drop for Remote<P> {
    fn drop(&mut self) {
        self.link.metrics.connections.dec();
    }
}

/// What is to be done with a message.
enum Work {
    Chat(Payload),
    Ask(Proposal),
}

impl Call<'_> {
    /// In the modern protocol a worker that leaves cancels; in the legacy one it may come back.
    async fn cancelled(&self) {
        if self.modern { self.exchange.left().await } else { std::future::pending().await }
    }

    fn resumed(&self, resumed: Final) -> Reply {
        self.resumable.store(true, Ordering::Release);
        *lock(&self.held) = Some(Held::Elsewhere(resumed.told));
        resumed.reply
    }
}

/// Towards the server.
struct ToServer<'a, P> {
    remote: &'a Arc<Remote<P>>,
    call: &'a Call<'a>,
}

impl<P: Ports + 'static> Upstream for ToServer<'_, P> {
    async fn forward(&self, permit: Permit) -> Reply {
        match held::payload(permit, self.call.id, self.call.token.as_ref()) {
            Some(payload) => self.remote.relay(self.call, payload).await,
            None => Reply::NotSent,
        }
    }
}

impl<P: Ports + 'static> Waits for ToServer<'_, P> {
    async fn tell(&self, message: &str) {
        // The modern protocol says an error by the status, which a stream that has begun has given away.
        let (false, Some(token)) = (self.call.modern, &self.call.token) else { return };
        let exchange = self.call.exchange;
        if !self.call.waited.swap(true, Ordering::AcqRel) {
            exchange.begin_events(HeaderMap::new());
        }
        exchange.send(warden_core::sse::event(&rpc::progress(token, message), None)).await;
    }

    async fn left(&self) {
        let taken_back = self.remote.link.waiting.taken_back(self.call.id);
        tokio::select! { () = self.call.exchange.left() => {}, () = taken_back => {} }
    }
}

fn takes_events(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|v| v.to_str().is_ok_and(|v| v.contains("text/event-stream")))
}

fn is_content(method: &str) -> bool {
    matches!(method, "tools/call" | "resources/read" | "prompts/get")
}

async fn within<T>(patience: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match patience {
        Some(patience) => tokio::time::timeout(patience, work).await.ok(),
        None => Some(work.await),
    }
}

fn is_events(head: &response::Parts) -> bool {
    head.status.is_success() && has_type(head, "text/event-stream")
}

fn is_json(head: &response::Parts) -> bool {
    has_type(head, "application/json")
}

fn has_type(head: &response::Parts, wanted: &str) -> bool {
    let value = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

/// The status of an answer: in the modern protocol an error's code says it.
pub fn status_of(modern: bool, told: &Told) -> StatusCode {
    let code = told.code.filter(|_| modern).map_or(200, headers::status_of);
    StatusCode::from_u16(code).unwrap_or(StatusCode::OK)
}

/// One message as a whole answer.
pub fn json(status: StatusCode, mut headers: HeaderMap, told: Told) -> Response {
    if !told.verbatim || !headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(id) = told.decision.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        headers.insert("x-warden-decision", id);
    }
    let mut response = Response::new(Body::from(told.line));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
