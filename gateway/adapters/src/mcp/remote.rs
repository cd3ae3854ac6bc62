//! A worker's connection to a server at a URL: one legacy session, or all its requests without one.
//!
//! Each request of the worker is one request upstream, and the answer goes back as it comes: JSON as JSON, events as events.
//! What is decided about a request ends with its final message, wherever that arrives: in the answer itself or, when a
//! legacy stream broke, on the stream with which the worker resumed.

use super::exchange::Exchange;
use super::headers;
use super::link::{Link, Nowhere};
use super::refusal::{Asked, Told};
use super::server::{HttpServer, Server};
use super::sse::{Event, Events, Item, Large};
use super::{lock, reply, request_id};
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
use warden_core::mcp::From;
use warden_core::outcome::{Lost, Reply};
use warden_core::passing::{Passing, Stop};
use warden_core::pipeline::{self, Answer, Cleared, Payload, Permit, Ports, Upstream};
use warden_core::proposal::{Ask, Proposal, Verb};
use warden_core::rpc::{self, Id, Kind, Message};
use warden_core::secrets;

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
    /// What of its answer is held, to be looked at as a whole.
    hold_max: usize,
    held: Mutex<Option<Held>>,
    /// Whether its stream had events that a worker can ask for again.
    resumable: AtomicBool,
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
        if self.busy.load(Ordering::Acquire) >= BUSY_MAX {
            self.link.metrics.dropped("too_many_requests");
            let told = Asked { id: &id, method: &method, modern }
                .unanswered("too many requests are on their way: wait for an answer");
            return json(StatusCode::TOO_MANY_REQUESTS, HeaderMap::new(), told);
        }
        // What is found there goes into the proposal, which is denied for it.
        let found = headers::to_scan(&headers).filter(|texts| !secrets::scan(texts, "").is_empty());
        let cleared = match &found {
            None => self.link.passage.clear(From::Worker, message),
            Some(_) => Cleared::Decide(message),
        };
        let work = match cleared {
            Cleared::Pass(payload) => {
                self.link.metrics.chatter.inc();
                if notification {
                    if let Some(open) = cancels.and_then(|id| lock(&self.open).get(&id).map(|o| o.cancelled.clone())) {
                        open.notify_one();
                    }
                    return self.notify(&headers, payload).await;
                }
                Work::Chat(payload)
            }
            Cleared::Decide(message) => match self.link.propose_modern(message, modern) {
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
        tokio::spawn(async move { this.work(work, exchange, headers, id, method, modern, notification).await });
        awaited.response().await
    }

    #[expect(clippy::too_many_arguments, reason = "they are one request, taken apart to move into its task")]
    async fn work(
        self: Arc<Self>,
        work: Work,
        exchange: Exchange,
        headers: HeaderMap,
        id: Id,
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
            hold_max: self.hold_max(&method),
            held: Mutex::default(),
            resumable: AtomicBool::new(false),
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

    /// Answers that are content are passed on when they are large. Lists, tasks and the like are looked at as a whole.
    fn hold_max(&self, method: &str) -> usize {
        match method {
            "tools/call" | "resources/read" | "prompts/get" => HOLD_MAX,
            _ => self.link.settings.server.bytes_max,
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
        if headers::to_scan(&headers).is_some_and(|texts| !secrets::scan(&texts, "/headers").is_empty()) {
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
        if headers::to_scan(&headers).is_some_and(|texts| !secrets::scan(&texts, "/headers").is_empty()) {
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

    // -- a request on its way -------------------------------------------------------------------------------------

    /// Sends a request and waits for its final message. What comes before it goes to the worker at once.
    async fn relay(self: &Arc<Self>, call: &Call<'_>, payload: Payload) -> Reply {
        let (mut elsewhere, cancelled) = (None, Arc::new(Notify::new()));
        if self.session.get().is_some() {
            let mut open = lock(&self.open);
            // Two requests with one id: nobody could tell their answers apart.
            if open.contains_key(call.id) {
                return Reply::NotSent;
            }
            let (sender, receiver) = oneshot::channel();
            elsewhere = Some(receiver);
            open.insert(call.id.clone(), Open { elsewhere: sender, cancelled: cancelled.clone() });
            drop(open);
            // The id means this request from now on.
            let mut replays = lock(&self.replays);
            replays.asked.remove(call.id);
            replays.order.retain(|id| id != call.id);
        }
        let registered = elsewhere.is_some();
        let grace = self.link.settings.cancel_grace;
        let reply = tokio::select! {
            reply = self.relay_registered(call, payload, elsewhere) => reply,
            () = async { cancelled.notified().await; tokio::time::sleep(grace).await; } => Reply::Cancelled,
            () = self.closed() => Reply::Lost(Lost::Aborted),
        };
        if registered {
            lock(&self.open).remove(call.id);
        }
        reply
    }

    /// Aborts what is on its way.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    async fn relay_registered(
        self: &Arc<Self>,
        call: &Call<'_>,
        payload: Payload,
        elsewhere: Option<oneshot::Receiver<Final>>,
    ) -> Reply {
        let sent = self.http.send(Method::POST, call.headers, payload.into_text());
        let response = tokio::select! {
            response = within(call.patience, sent) => match response {
                Some(Ok(response)) => response,
                Some(Err(reply)) => return reply,
                None => return Reply::Lost(Lost::TimedOut),
            },
            () = call.cancelled() => return Reply::Cancelled,
        };
        let (head, body) = response.into_parts();
        if is_events(&head) {
            call.exchange.begin_events(headers::for_worker(&head.headers));
            let stream = Stream::new(body, call.hold_max);
            self.relay_stream(call, stream, elsewhere).await
        } else {
            self.relay_whole(call, head, body).await
        }
    }

    async fn relay_whole(&self, call: &Call<'_>, head: response::Parts, mut body: Incoming) -> Reply {
        let mut bytes = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = within(call.patience, body.frame()) => frame,
                () = call.cancelled() => return Reply::Cancelled,
            };
            match frame {
                None => return Reply::Lost(Lost::TimedOut),
                Some(Some(Err(_))) => return Reply::Lost(Lost::Gone),
                Some(Some(Ok(frame))) => bytes.extend_from_slice(frame.data_ref().unwrap_or(&bytes::Bytes::new())),
                Some(None) => break,
            }
            if bytes.len() > call.hold_max {
                return match head.status.is_success() && is_json(&head) && call.hold_max == HOLD_MAX {
                    true => self.pass_body(call, &head, &bytes, body).await,
                    false => Reply::Lost(Lost::Garbled),
                };
            }
        }
        let (status, headers, reply) = self.read_answer(&head, bytes, Some(call.id));
        *lock(&call.held) = Some(Held::Whole(status, headers));
        reply
    }

    /// A large answer: on it goes, scanned a block behind.
    async fn pass_body(&self, call: &Call<'_>, head: &response::Parts, first: &[u8], mut body: Incoming) -> Reply {
        call.exchange.begin(head.status, headers::for_worker(&head.headers));
        let mut passing = Passing::default();
        let mut next = Ok(bytes::Bytes::copy_from_slice(first));
        loop {
            match next {
                Ok(bytes) => match passing.push(&bytes) {
                    Ok(free) => drop(call.exchange.send(free).await),
                    Err(stop) => return self.stopped(call, stop).await,
                },
                Err(lost) => {
                    call.exchange.abort().await;
                    return Reply::Lost(lost);
                }
            }
            let frame = tokio::select! {
                frame = within(call.patience, body.frame()) => frame,
                () = call.cancelled() => return Reply::Cancelled,
            };
            next = match frame {
                None => Err(Lost::TimedOut),
                Some(Some(Err(_))) => Err(Lost::Gone),
                Some(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
                Some(None) => break,
            };
        }
        self.passed(call, passing, |rest| rest).await
    }

    async fn passed(&self, call: &Call<'_>, passing: Passing, frame: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Reply {
        match passing.end() {
            Ok((rest, end)) if end.id.as_ref() == Some(call.id) => {
                call.exchange.send(frame(rest)).await;
                call.exchange.end();
                Reply::Passed { bytes: end.bytes, failed: end.failed, finding: None }
            }
            Ok(_) => self.stopped(call, Stop::NotAnAnswer("it answers another request")).await,
            Err(stop) => self.stopped(call, stop).await,
        }
    }

    async fn stopped(&self, call: &Call<'_>, stop: Stop) -> Reply {
        call.exchange.abort().await;
        match stop {
            Stop::Secret(finding) => Reply::Passed { bytes: 0, failed: false, finding: Some(finding) },
            Stop::NotAnAnswer(why) => {
                tracing::warn!(server = self.link.passage.server(), why, "the server's answer cannot be one");
                Reply::Lost(Lost::Garbled)
            }
        }
    }

    async fn relay_stream(
        self: &Arc<Self>,
        call: &Call<'_>,
        mut stream: Stream,
        mut elsewhere: Option<oneshot::Receiver<Final>>,
    ) -> Reply {
        loop {
            let item = tokio::select! {
                biased;
                item = stream.next(call.patience) => item,
                resumed = arrived(&mut elsewhere) => return call.resumed(resumed),
                () = call.cancelled() => return Reply::Cancelled,
            };
            match item {
                Ok(Some(Item::Event(event))) => {
                    match self.event(call.exchange, call.headers, event, Carries::Answer(call.id), call.modern).await {
                        Flow::On => {}
                        Flow::Final(reply, event) => {
                            call.resumable.store(stream.resumable, Ordering::Release);
                            *lock(&call.held) = Some(Held::Event(event, stream));
                            return reply;
                        }
                    }
                }
                Ok(Some(Item::Large(_))) if call.hold_max != HOLD_MAX => return Reply::Lost(Lost::Garbled),
                Ok(Some(Item::Large(first))) => return self.pass_event(call, first, stream).await,
                // The worker may resume where the stream broke, and the answer comes there.
                Ok(None) | Err(Lost::Gone) if elsewhere.is_some() && stream.resumable => {
                    call.exchange.end();
                    drop(stream);
                    return match within(call.patience, arrived(&mut elsewhere)).await {
                        Some(resumed) => call.resumed(resumed),
                        None => Reply::Lost(Lost::TimedOut),
                    };
                }
                Ok(None) => return Reply::Lost(Lost::Gone),
                Err(lost) => return Reply::Lost(lost),
            }
        }
    }

    /// A large final message in a stream of events.
    async fn pass_event(&self, call: &Call<'_>, first: Vec<u8>, mut stream: Stream) -> Reply {
        let (mut large, mut passing, mut begun) = (Large::default(), Passing::default(), false);
        let mut bytes = first;
        loop {
            let (data, after) = large.push(&bytes);
            let over = after.is_some();
            match passing.push(&data) {
                Ok(free) if free.is_empty() => {}
                Ok(free) => {
                    let mut out = Vec::new();
                    if !begun {
                        // Lines that come later would fall into the midst of the data: they follow it.
                        out = large.fields();
                        if secrets::first(&String::from_utf8_lossy(&out)).is_some() {
                            return self.stopped(call, Stop::NotAnAnswer("a field of its event holds a secret")).await;
                        }
                        out.extend_from_slice(b"data: ");
                        begun = true;
                    }
                    out.extend(data_lines(&free));
                    call.exchange.send(out).await;
                }
                Err(stop) => return self.stopped(call, stop).await,
            }
            if over {
                break;
            }
            let frame = tokio::select! {
                frame = within(call.patience, stream.body.frame()) => frame,
                () = call.cancelled() => return Reply::Cancelled,
            };
            bytes = match frame {
                Some(Some(Ok(frame))) => frame.into_data().unwrap_or_default().to_vec(),
                Some(Some(Err(_)) | None) => return self.stopped(call, Stop::NotAnAnswer("it breaks off")).await,
                None => {
                    call.exchange.abort().await;
                    return Reply::Lost(Lost::TimedOut);
                }
            };
        }
        let prefix: &[u8] = if begun { b"" } else { b"data: " };
        let fields = large.fields();
        if secrets::first(&String::from_utf8_lossy(&fields)).is_some() {
            return self.stopped(call, Stop::NotAnAnswer("a field of its event holds a secret")).await;
        }
        self.passed(call, passing, |rest| [prefix, &data_lines(&rest), b"\n", &fields, b"\n"].concat()).await
    }

    /// Gives the worker what it is told, the way the final message came.
    async fn tell(self: &Arc<Self>, call: &Call<'_>, told: Told) {
        let held = lock(&call.held).take();
        match held {
            Some(Held::Whole(status, headers)) => {
                let status = if told.verbatim { status } else { status_of(call.modern, &told) };
                call.exchange.whole(json(status, headers, told));
            }
            Some(Held::Event(event, mut stream)) => {
                let raw = if told.verbatim { event.raw } else { event.with_data(&rpc::one_line(&told.line)) };
                call.exchange.send(raw).await;
                // What follows the final message is the server's affair, and goes on like what came before it.
                let rest = async {
                    while let Ok(Some(Item::Event(event))) = stream.next(Some(self.link.settings.call_timeout)).await {
                        self.event(call.exchange, call.headers, event, Carries::Afterwards, call.modern).await;
                    }
                };
                tokio::select! {
                    () = rest => {}
                    () = call.exchange.left() => {}
                    () = self.closed() => {}
                }
                call.exchange.end();
            }
            Some(Held::Elsewhere(waiting)) => drop(waiting.send(told)),
            None if call.exchange.begun() => {
                call.exchange.send(super::sse::event(&told.line, None)).await;
                call.exchange.end();
            }
            None => {
                let status = status_of(call.modern, &told);
                call.exchange.whole(json(status, HeaderMap::new(), told));
            }
        }
    }

    // -- messages of the server -----------------------------------------------------------------------------------

    /// One event of a stream, on its way to the worker.
    async fn event(
        self: &Arc<Self>,
        exchange: &Exchange,
        headers: &HeaderMap,
        event: Event,
        carries: Carries<'_>,
        modern: bool,
    ) -> Flow {
        let mut event = event;
        if secrets::first(&event.fields()).is_some() {
            // Ids, names and comments are nobody's content: without them the message says the same.
            self.link.metrics.dropped("secret_in_an_event");
            let Some(data) = &event.data else { return Flow::On };
            event.raw = super::sse::event(&rpc::one_line(data), None);
        }
        let Some(data) = &event.data else {
            exchange.send(event.raw).await;
            return Flow::On;
        };
        let message = match Message::parse(data.as_bytes(), self.link.settings.server) {
            Ok(message) => message,
            Err(e) => {
                tracing::warn!(
                    server = self.link.passage.server(),
                    code = e.code(),
                    bytes = data.len(),
                    "the server wrote something that is no message"
                );
                self.link.metrics.dropped("garbage_from_server");
                return Flow::On;
            }
        };
        match &message.kind {
            Kind::Result { id, .. } | Kind::Error { id, .. } => {
                let id = id.clone();
                let reply = reply(message);
                match carries {
                    Carries::Answer(own) if *own == id => return Flow::Final(reply, event),
                    Carries::Afterwards => {
                        self.link.metrics.dropped("answer_without_request");
                        return Flow::On;
                    }
                    Carries::Answer(_) | Carries::Anything => {}
                }
                if let Some(line) = self.of_another_stream(&id, reply).await {
                    let raw = if line == *data { event.raw } else { event.with_data(&rpc::one_line(&line)) };
                    exchange.send(raw).await;
                }
            }
            Kind::Notification { .. } => match self.link.passage.clear(From::Server, message) {
                Cleared::Pass(payload) if self.tells_of_a_task_of_ours(&payload).await => {
                    self.link.metrics.chatter.inc();
                    exchange.send(event.raw).await;
                }
                Cleared::Pass(_) => self.link.metrics.dropped("task_of_another"),
                Cleared::Decide(message) => {
                    if let Ok(proposal) = self.link.propose(From::Server, message) {
                        pipeline::handle(&self.link.gate, proposal, &Nowhere).await;
                    }
                }
            },
            // In the modern protocol a server asks in its results, never on a stream.
            Kind::Request { .. } if modern => self.link.metrics.dropped("request_on_a_modern_stream"),
            Kind::Request { .. } => self.server_asks(exchange, headers, event.raw, message).await,
        }
        Flow::On
    }

    /// `notifications/tasks` tells of somebody's task, and may hold questions of the server, like a result.
    async fn tells_of_a_task_of_ours(&self, payload: &Payload) -> bool {
        let Ok(message) = Message::parse(payload.as_str().as_bytes(), self.link.settings.server) else { return false };
        match &message.kind {
            Kind::Notification { method, params } if method == "notifications/tasks" => self.link.tells(params).await,
            _ => true,
        }
    }

    /// A final message that is not this stream's: of a request whose own stream broke, or one that is replayed. What the
    /// worker is given of it.
    async fn of_another_stream(&self, id: &Id, reply: Reply) -> Option<String> {
        let waiting = lock(&self.open).remove(id);
        if let Some(waiting) = waiting {
            let (told, answer) = oneshot::channel();
            waiting.elsewhere.send(Final { reply, told }).ok()?;
            return answer.await.ok().map(|told| told.line);
        }
        let asked = lock(&self.replays).asked.get(id).cloned();
        match (asked, self.link.passage.release(reply)) {
            (Some((ask, method)), Some(payload)) => {
                let raw = payload.into_text();
                Some(self.link.shown(&ask, &method, &raw).unwrap_or(raw))
            }
            _ => {
                self.link.metrics.dropped("answer_without_request");
                None
            }
        }
    }

    /// The worker may ask again for an answer that had an event id.
    fn replayable(&self, call: &Call<'_>, ask: Ask, method: &str, told: &Told) {
        // What the worker was not given the first time, it is not given now.
        let given = told.verbatim || matches!(ask, Ask::Verb(Verb::ListTools)) || method == "tasks/list";
        if self.session.get().is_none() || !call.resumable.load(Ordering::Acquire) || !given {
            return;
        }
        let mut replays = lock(&self.replays);
        if replays.order.len() == REPLAYS_MAX
            && let Some(oldest) = replays.order.pop_front()
        {
            replays.asked.remove(&oldest);
        }
        replays.order.push_back(call.id.clone());
        replays.asked.insert(call.id.clone(), (ask, method.to_owned()));
    }

    /// A server's request is a proposal too: to the worker it would reach. Returns once it was sent, or is not going to be,
    /// so that events keep their order.
    async fn server_asks(self: &Arc<Self>, exchange: &Exchange, headers: &HeaderMap, raw: Vec<u8>, message: Message) {
        let id = headers::id_of(&message);
        // A resumed stream tells again what was asked; the decision stands.
        if lock(&self.of_server).get(&id).is_some_and(|(said, _)| *said == message.raw) {
            exchange.send(raw).await;
            return;
        }
        if self.busy.load(Ordering::Acquire) >= BUSY_MAX {
            self.link.metrics.dropped("too_many_requests");
            return;
        }
        let (reply, answered) = oneshot::channel();
        let said = message.raw.clone();
        let (sent, was_sent) = oneshot::channel();
        let (this, headers) = (self.clone(), headers.clone());
        let work = match self.link.passage.clear(From::Server, message) {
            Cleared::Pass(payload) => {
                self.link.metrics.chatter.inc();
                Work::Chat(payload)
            }
            Cleared::Decide(message) => match self.link.propose(From::Server, message) {
                Ok(proposal) => Work::Ask(proposal),
                Err(_) => return,
            },
        };
        let upstream = ToWorker {
            remote: this.clone(),
            id: id.clone(),
            slot: Mutex::new(Some((said, reply, answered))),
            sent: Mutex::new(Some(sent)),
        };
        tokio::spawn(async move {
            let _busy = Counted::new(&this.busy);
            let asked = |method: &'static str| Asked { id: &id, method, modern: false };
            let answer = match work {
                Work::Chat(payload) => {
                    let reply = upstream.ask(payload).await;
                    let released = this.link.passage.release(reply).map(Payload::into_text);
                    released.unwrap_or_else(|| asked("ping").unanswered("the client gave no answer").line)
                }
                Work::Ask(proposal) => match pipeline::handle(&this.link.gate, proposal, &upstream).await {
                    Answer::Answered { payload, .. } => payload.into_text(),
                    Answer::Refused(refused) => asked("").refused(&refused).line,
                    Answer::Ended { id: decision, reply } => asked("").ended(&decision, &reply).line,
                },
            };
            drop(upstream);
            let mut headers = headers;
            headers.remove(headers::LAST_EVENT);
            let accept = HeaderValue::from_static("application/json, text/event-stream");
            headers.insert(header::ACCEPT, accept);
            let sent = this.http.send(Method::POST, &headers, answer);
            match tokio::time::timeout(this.link.settings.call_timeout, sent).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(server = this.link.passage.server(), "the worker's answer did not arrive");
                }
            }
        });
        if was_sent.await.is_ok() {
            exchange.send(raw).await;
        }
    }

    fn answered_by_worker(&self, message: Message) {
        let waiting = match &message.kind {
            Kind::Result { id, .. } | Kind::Error { id, .. } => lock(&self.of_server).remove(id),
            Kind::Request { .. } | Kind::Notification { .. } => None,
        };
        match waiting {
            Some((_, waiting)) => drop(waiting.send(reply(message))),
            None => self.link.metrics.dropped("answer_without_request"),
        }
    }

    /// A whole answer: what it is, and with which head it goes on. `id` is the request's.
    fn read_answer(&self, head: &response::Parts, bytes: Vec<u8>, id: Option<&Id>) -> (StatusCode, HeaderMap, Reply) {
        let headers = headers::for_worker(&head.headers);
        let status = head.status;
        if status.is_redirection()
            || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED)
        {
            let what = match status.is_redirection() {
                true => "the server redirects, and redirects are not followed: configure its final address",
                false => "the server does not accept the gateway's credential",
            };
            tracing::error!(server = self.link.passage.server(), %status, "{what}");
            let raw = rpc::error(id.unwrap_or(&Id::null()), super::refusal::NO_ANSWER, what, None);
            let reply = Reply::Answered { raw, body: Json::String(what.into()), is_error: true };
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return (StatusCode::BAD_GATEWAY, headers, reply);
        }
        if is_json(head)
            && let Ok(message) = Message::parse(&bytes, self.link.settings.server)
        {
            let of = match &message.kind {
                Kind::Result { id, .. } | Kind::Error { id, .. } => Some(id),
                Kind::Request { .. } | Kind::Notification { .. } => None,
            };
            let is_answer = match (of, id) {
                (Some(of), Some(id)) => of == id || (*of == Id::null() && !status.is_success()),
                (of, None) => of.is_some(),
                (None, _) => false,
            };
            let reply = if is_answer { reply(message) } else { Reply::Lost(Lost::Garbled) };
            return (status, headers, reply);
        }
        match (String::from_utf8(bytes), id) {
            (Ok(raw), id) if !status.is_success() || id.is_none() => {
                // Escapes hide nothing where a reader would take it for JSON.
                let read = core_json::parse(raw.as_bytes(), self.link.settings.server).ok();
                if read.as_ref().is_some_and(|json| json.get("result").is_some() || json.get("method").is_some()) {
                    return (StatusCode::BAD_GATEWAY, HeaderMap::new(), Reply::Lost(Lost::Garbled));
                }
                let body = Json::Array([read, Some(Json::String(raw.clone()))].into_iter().flatten().collect());
                (status, headers, Reply::Answered { raw, body, is_error: !status.is_success() })
            }
            _ => (StatusCode::BAD_GATEWAY, headers, Reply::Lost(Lost::Garbled)),
        }
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

impl Stream {
    fn new(body: Incoming, hold_max: usize) -> Self {
        Self { body, events: Events::new(hold_max), resumable: false }
    }

    /// The next event; nothing at the end. `patience` counts from one piece to the next.
    async fn next(&mut self, patience: Option<Duration>) -> Result<Option<Item>, Lost> {
        loop {
            if let Some(item) = self.events.next_item() {
                self.resumable |= matches!(&item, Item::Event(event) if event.id.is_some());
                return Ok(Some(item));
            }
            match within(patience, self.body.frame()).await {
                None => return Err(Lost::TimedOut),
                Some(None) => return Ok(None),
                Some(Some(Err(_))) => return Err(Lost::Gone),
                Some(Some(Ok(frame))) => self.events.push(frame.data_ref().unwrap_or(&bytes::Bytes::new())),
            }
        }
    }
}

/// Towards the server.
struct ToServer<'a, P> {
    remote: &'a Arc<Remote<P>>,
    call: &'a Call<'a>,
}

impl<P: Ports + 'static> Upstream for ToServer<'_, P> {
    async fn forward(&self, permit: Permit) -> Reply {
        self.remote.relay(self.call, permit.into_payload()).await
    }
}

/// What a worker's answer needs to be found.
type Slot = (String, oneshot::Sender<Reply>, oneshot::Receiver<Reply>);

/// Towards the worker, on a stream that it has open.
struct ToWorker<P> {
    remote: Arc<Remote<P>>,
    id: Id,
    slot: Mutex<Option<Slot>>,
    sent: Mutex<Option<oneshot::Sender<()>>>,
}

impl<P: Ports + 'static> ToWorker<P> {
    /// Lets the request go, and waits for the worker's answer, which comes in a request of its own.
    async fn ask(&self, _payload: Payload) -> Reply {
        let Some((said, reply, answered)) = lock(&self.slot).take() else { return Reply::NotSent };
        {
            let mut open = lock(&self.remote.of_server);
            if open.contains_key(&self.id) || open.len() >= BUSY_MAX {
                return Reply::NotSent;
            }
            open.insert(self.id.clone(), (said, reply));
        }
        if let Some(sent) = lock(&self.sent).take() {
            let _ = sent.send(());
        }
        let reply = match tokio::time::timeout(self.remote.link.settings.call_timeout, answered).await {
            Ok(reply) => reply.unwrap_or(Reply::Lost(Lost::Gone)),
            Err(_) => Reply::Lost(Lost::TimedOut),
        };
        lock(&self.remote.of_server).remove(&self.id);
        reply
    }
}

impl<P: Ports + 'static> Upstream for ToWorker<P> {
    async fn forward(&self, permit: Permit) -> Reply {
        self.ask(permit.into_payload()).await
    }
}

/// The final message of a request, should it come on another stream.
async fn arrived(elsewhere: &mut Option<oneshot::Receiver<Final>>) -> Final {
    if let Some(receiver) = elsewhere {
        if let Ok(resumed) = receiver.await {
            return resumed;
        }
        *elsewhere = None;
    }
    std::future::pending().await
}

async fn within<T>(patience: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match patience {
        Some(patience) => tokio::time::timeout(patience, work).await.ok(),
        None => Some(work.await),
    }
}

/// Line breaks in a message's data stand between tokens; each begins a `data` line.
fn data_lines(data: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = data.split(|b| *b == b'\n').collect();
    lines.join(&b"\ndata: "[..])
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
