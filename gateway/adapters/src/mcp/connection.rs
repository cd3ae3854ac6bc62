//! A worker's connection to a child server of its own: one legacy session, or all its modern requests.
//!
//! Chatter passes under the connection's own decision; everything else, from either side, goes through
//! `pipeline::handle` in a task of its own, so that an outcome is recorded even when the worker is gone.
//!
//! Modern requests have no session, so two of them may come with one id. The child must be able to tell them apart: the
//! later one's id and progress token are replaced on the way in, and put back on the way out.

use super::child::{Child, Line, ServerCommand};
use super::exchange::Exchange;
use super::headers;
use super::held::{self, Waits};
use super::link::{Link, Nowhere};
use super::outbox::{LISTENING, Outbox};
use super::refusal::{Asked, Told};
use super::remote::{json, status_of};
use super::server::Server;
use super::{id_of, lock, reply, request_id};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};
use warden_core::json::{Json, replaced};
use warden_core::mcp::{self, From, META_LOG_LEVEL, META_SUBSCRIPTION};
use warden_core::outcome::{Lost, Reply};
use warden_core::pipeline::{self, Answer, Cleared, Payload, Permit, Ports, Upstream};
use warden_core::proposal::{Ask, Proposal};
use warden_core::rpc::{self, Id, Kind, Message};

/// Requests of one side that may be on their way at once.
const BUSY_MAX: usize = 256;
/// Ids that are remembered after their request was given up.
const GIVEN_UP_MAX: usize = 4096;
/// Comments that keep proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A request that takes longer is answered with a stream, so that its worker can resume.
const STREAM_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Connection<P> {
    /// What every connection has.
    pub link: Link<P>,
    server: Server,
    child: Child,
    /// Whether it carries modern requests, each for itself.
    stateless: bool,
    /// Requests of the worker that the server has not answered, by the id that the server knows.
    of_worker: Mutex<HashMap<Id, Open>>,
    /// Requests of the server that the worker has not answered.
    of_server: Mutex<HashMap<Id, oneshot::Sender<Reply>>>,
    /// Ids of requests that timed out or were cancelled, until their answers come.
    given_up: Mutex<HashSet<Id>>,
    busy: AtomicUsize,
    outbox: Outbox,
    gone: AtomicBool,
    stopping: AtomicBool,
    started: Instant,
    last_used_ms: AtomicU64,
}

/// A request of the worker on its way.
struct Open {
    reply: oneshot::Sender<Reply>,
    cancelled: Arc<Notify>,
    /// Where messages about it go.
    stream: Option<u64>,
    /// The worker's own id, where the server knows another.
    id: Option<Id>,
    /// The progress token that the server knows, and the worker's own.
    token: Option<(Id, Id)>,
    /// Whether it asked for log messages.
    logs: bool,
}

/// Counts a request for as long as its task lives, however that ends.
struct Busy<P>(Arc<Connection<P>>);

impl<P> Busy<P> {
    fn new(connection: &Arc<Connection<P>>) -> Self {
        connection.busy.fetch_add(1, Ordering::AcqRel);
        Self(connection.clone())
    }
}

impl<P> Drop for Busy<P> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One request of the worker, as its task knows it.
struct Call {
    id: Id,
    method: String,
    modern: bool,
    stream: Option<u64>,
    /// Whether the worker would rather have a stream. The modern protocol says an error by the status, so there the stream
    /// begins once it is none.
    at_once: bool,
    /// How long a quiet stream is kept open, for a worker that comes back.
    hold: Option<Duration>,
    patience: Option<Duration>,
    /// The worker has gone, which cancels a modern request.
    left: Arc<Notify>,
}

impl Call {
    fn asked(&self) -> Asked<'_> {
        Asked { id: &self.id, method: &self.method, modern: self.modern }
    }
}

impl<P: Ports + 'static> Connection<P> {
    /// Starts the child of a connection that was allowed.
    pub fn start(link: Link<P>, server: Server, command: &ServerCommand, stateless: bool) -> io::Result<Arc<Self>> {
        let (child, lines) =
            Child::spawn(link.passage.server(), command, link.settings.server.bytes_max, link.passage.scanner())?;
        link.metrics.connections.inc();
        let connection = Arc::new(Self {
            link,
            server,
            child,
            stateless,
            of_worker: Mutex::default(),
            of_server: Mutex::default(),
            given_up: Mutex::default(),
            busy: AtomicUsize::new(0),
            outbox: Outbox::new(!stateless),
            gone: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            last_used_ms: AtomicU64::new(0),
        });
        tokio::spawn(connection.clone().read(lines));
        Ok(connection)
    }

    /// Takes one message of the worker.
    pub async fn post(self: &Arc<Self>, headers: &HeaderMap, message: Message, modern: bool) -> Response {
        self.touch();
        let (id, method, params) = match &message.kind {
            Kind::Result { .. } | Kind::Error { .. } => {
                self.answered_by_worker(message);
                return StatusCode::ACCEPTED.into_response();
            }
            Kind::Request { id, method, params } => (Some(id.clone()), method.clone(), params),
            Kind::Notification { method, params } => (None, method.clone(), params),
        };
        let Some(id) = id else {
            let cancels = (method == "notifications/cancelled").then(|| request_id(params)).flatten();
            self.notify(message, cancels).await;
            return StatusCode::ACCEPTED.into_response();
        };
        let asked = Asked { id: &id, method: &method, modern };
        if self.in_flight() >= BUSY_MAX {
            self.link.metrics.dropped("too_many_requests");
            let told = asked.unanswered("too many requests are on their way: wait for an answer");
            return json(StatusCode::TOO_MANY_REQUESTS, HeaderMap::new(), told);
        }
        let wishes = Wishes::of(params);
        let work = match self.link.passage.clear(From::Worker, message) {
            Cleared::Pass(payload) => {
                self.link.metrics.chatter.inc();
                Work::Chat(payload)
            }
            Cleared::Decide(message) => match self.link.propose_modern(message, modern, headers) {
                Ok(proposal) => Work::Ask(proposal),
                Err(e) => {
                    self.link.metrics.dropped("malformed");
                    let told = asked.malformed(-32602, &e.to_string());
                    return json(StatusCode::BAD_REQUEST, HeaderMap::new(), told);
                }
            },
        };
        let streaming = Streaming::of(headers);
        self.answer(
            work,
            wishes,
            Call {
                patience: self.patience(&method, None, modern),
                id,
                method,
                modern,
                stream: (streaming != Streaming::Never).then(|| self.outbox.open()),
                at_once: streaming == Streaming::AtOnce,
                hold: can_resume(headers, modern).then_some(self.link.settings.stream_hold),
                left: Arc::default(),
            },
        )
        .await
    }

    /// Listening has no end; anything else has to show a sign of life.
    fn patience(&self, method: &str, tool: Option<&str>, modern: bool) -> Option<Duration> {
        let default = self.link.settings.call_timeout;
        (!modern || method != "subscriptions/listen").then(|| self.server.timeout(tool, default))
    }

    async fn answer(self: &Arc<Self>, work: Work, wishes: Wishes, mut call: Call) -> Response {
        if let Work::Ask(Proposal { ask: Ask::Tool { name }, .. }) = &work {
            call.patience = self.patience(&call.method, Some(name), call.modern);
        }
        let (exchange, awaited) = Exchange::new(Some(KEEP_ALIVE));
        let (call, exchange) = (Arc::new(call), Arc::new(exchange));
        let (done, answer) = oneshot::channel();
        let (this, busy, working) = (self.clone(), Busy::new(self), call.clone());
        tokio::spawn(async move {
            let _busy = busy;
            let told = match work {
                Work::Chat(payload) => this.chat(payload, &wishes, &working).await,
                Work::Ask(proposal) => {
                    let upstream = ToServer { connection: &this, call: &working, wishes: &wishes };
                    this.link.ask(proposal, working.asked(), &upstream).await
                }
            };
            // A worker that is gone misses the answer, not the outcome.
            let _ = done.send(told);
        });
        tokio::spawn(self.clone().give(call, exchange, answer));
        awaited.response().await
    }

    /// Gives the worker its answer: whole, or as the end of a stream once something else was said.
    async fn give(self: Arc<Self>, call: Arc<Call>, exchange: Arc<Exchange>, mut answer: oneshot::Receiver<Told>) {
        let whole = |told: Option<Told>| {
            let told = told.unwrap_or_else(|| call.asked().unanswered("the request was dropped"));
            exchange.whole(json(status_of(call.modern, &told), HeaderMap::new(), told));
        };
        let Some(stream) = call.stream else {
            tokio::select! {
                told = &mut answer => whole(told.ok()),
                () = exchange.left() => call.left.notify_one(),
            }
            return;
        };
        let pause = async {
            // A stream that says nothing is worth it only where a worker can resume it.
            match (call.modern, call.at_once) {
                (true, _) => std::future::pending().await,
                (false, true) => {}
                (false, false) => tokio::time::sleep(STREAM_AFTER).await,
            }
        };
        tokio::select! {
            biased;
            () = self.outbox.news(stream) => {}
            told = &mut answer => {
                self.outbox.close(stream, None);
                match told {
                    Ok(told) if call.at_once && told.code.is_none() => {
                        exchange.begin_events(HeaderMap::new());
                        exchange.send(warden_core::sse::event(&rpc::one_line(&told.line), None)).await;
                    }
                    told => whole(told.ok()),
                }
                return;
            }
            () = pause => {}
            () = exchange.left(), if call.modern => {
                call.left.notify_one();
                self.outbox.close(stream, None);
                return;
            }
        }
        exchange.begin_events(HeaderMap::new());
        if !call.modern {
            exchange.send(self.outbox.primer(stream)).await;
        }
        let carried = self.outbox.carry(stream, 0, &exchange, call.hold);
        tokio::pin!(carried);
        let told = tokio::select! {
            told = &mut answer => told.ok(),
            // Gone, or held long enough: a modern request is cancelled, a legacy one goes on for a worker that comes back.
            () = &mut carried => {
                call.left.notify_one();
                let told = answer.await.ok();
                self.outbox.close(stream, told.as_ref().filter(|_| !call.modern).map(|told| told.line.as_str()));
                return;
            }
        };
        let told = told.unwrap_or_else(|| call.asked().unanswered("the request was dropped"));
        self.outbox.close(stream, Some(&rpc::one_line(&told.line)));
        carried.await;
        if call.modern {
            self.outbox.forget(stream);
        }
    }

    async fn chat(self: &Arc<Self>, payload: Payload, wishes: &Wishes, call: &Call) -> Told {
        let reply = self.relay(payload, wishes, call).await;
        self.link.released(reply, call.asked())
    }

    async fn notify(self: &Arc<Self>, message: Message, cancels: Option<Id>) {
        match self.link.passage.clear(From::Worker, message) {
            Cleared::Pass(payload) => {
                self.link.metrics.chatter.inc();
                if let Some(id) = cancels {
                    self.link.waiting.take_back(&id);
                    if let Some(open) = lock(&self.of_worker).get(&id).map(|open| open.cancelled.clone()) {
                        open.notify_one();
                    }
                }
                self.child.send(payload).await;
            }
            Cleared::Decide(message) => {
                // Nobody waits for the answer to a notification, and none of them is ever permitted.
                if let Ok(proposal) = self.link.propose(From::Worker, message) {
                    let this = self.clone();
                    tokio::spawn(async move { pipeline::handle(&this.link.gate, proposal, &Nowhere).await });
                }
            }
        }
    }

    /// Sends a request to the server and waits for its answer.
    async fn relay(&self, payload: Payload, wishes: &Wishes, call: &Call) -> Reply {
        let (reply, answered) = oneshot::channel();
        let cancelled = Arc::new(Notify::new());
        let (id, payload) = {
            let mut open = lock(&self.of_worker);
            if self.gone.load(Ordering::Acquire) {
                return Reply::NotSent;
            }
            // The late answer to an id that was given up would pass for the answer to this one.
            let taken = |id: &Id| {
                let given_up = lock(&self.given_up);
                // Past what is remembered, every id may have been given up.
                open.contains_key(id) || given_up.contains(id) || given_up.len() >= GIVEN_UP_MAX
            };
            let (id, mut text) = match taken(&call.id) {
                false => (call.id.clone(), payload.into_text()),
                true if !self.stateless => return Reply::NotSent,
                true => {
                    let id = Self::fresh_id();
                    match replaced(payload.as_str(), &["id"], id.as_json()) {
                        Some(text) => (id, text),
                        None => return Reply::NotSent,
                    }
                }
            };
            let mut token = wishes.token.clone().map(|token| (token.clone(), token));
            let used = |token: &Id| open.values().any(|open| open.token.as_ref().is_some_and(|(t, _)| t == token));
            if self.stateless
                && let Some((known, _)) = &mut token
                && used(known)
            {
                let fresh = Self::fresh_id();
                if let Some(with) = replaced(&text, &["params", "_meta", "progressToken"], fresh.as_json()) {
                    (*known, text) = (fresh, with);
                }
            }
            let own = (id != call.id).then(|| call.id.clone());
            let (stream, logs) = (call.stream, wishes.logs);
            open.insert(id.clone(), Open { reply, cancelled: cancelled.clone(), stream, id: own, token, logs });
            (id, Payload::own(text))
        };
        let grace = self.link.settings.cancel_grace;
        let answered = async { if self.child.send(payload).await { answered.await } else { Ok(Reply::NotSent) } };
        let reply = tokio::select! {
            reply = answered => reply.unwrap_or(Reply::Lost(self.how_lost())),
            () = patience(call.patience) => Reply::Lost(Lost::TimedOut),
            () = async { cancelled.notified().await; tokio::time::sleep(grace).await; } => Reply::Cancelled,
            () = call.left.notified(), if call.modern => {
                self.cancel(&id).await;
                Reply::Cancelled
            }
        };
        if lock(&self.of_worker).remove(&id).is_some() && !matches!(reply, Reply::NotSent) {
            let mut given_up = lock(&self.given_up);
            if given_up.len() < GIVEN_UP_MAX {
                given_up.insert(id.clone());
            }
        }
        match reply {
            Reply::Answered { raw, body, is_error } if id != call.id => {
                let raw = replaced(&raw, &["id"], call.id.as_json()).unwrap_or(raw);
                Reply::Answered { raw, body, is_error }
            }
            reply => reply,
        }
    }

    /// Nobody can have chosen it before.
    fn fresh_id() -> Id {
        Id::text(&uuid::Uuid::new_v4().to_string())
    }

    /// Tells the server that nobody waits any more (MCP 2026-07-28, "Cancellation").
    async fn cancel(&self, id: &Id) {
        let line = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}}"#,
            id.as_json()
        );
        // A server that reads nothing is not waited for.
        let _ = tokio::time::timeout(self.link.settings.cancel_grace, self.child.send(Payload::own(line))).await;
    }

    fn how_lost(&self) -> Lost {
        if self.stopping.load(Ordering::Acquire) { Lost::Aborted } else { Lost::Gone }
    }

    fn answered_by_worker(&self, message: Message) {
        let waiting = match &message.kind {
            Kind::Result { id, .. } | Kind::Error { id, .. } => lock(&self.of_server).remove(id),
            Kind::Request { .. } | Kind::Notification { .. } => None,
        };
        match waiting {
            Some(waiting) => drop(waiting.send(reply(message))),
            None => self.link.metrics.dropped("answer_without_request"),
        }
    }

    /// Reads what the server writes, until it ends.
    async fn read(self: Arc<Self>, mut lines: mpsc::Receiver<Line>) {
        while let Some(line) = lines.recv().await {
            match line {
                Line::Text(line) => match Message::parse(&line, self.link.settings.server) {
                    Ok(message) => self.from_server(message).await,
                    Err(e) => {
                        tracing::warn!(
                            server = self.link.passage.server(),
                            code = e.code(),
                            bytes = line.len(),
                            "the server wrote something that is no message"
                        );
                        self.link.metrics.dropped("garbage_from_server");
                        self.lose_garbled(&line);
                    }
                },
                Line::TooLong => {
                    tracing::error!(
                        server = self.link.passage.server(),
                        bytes_max = self.link.settings.server.bytes_max,
                        "the server wrote too long a message and is stopped"
                    );
                    for (_, open) in lock(&self.of_worker).drain() {
                        let _ = open.reply.send(Reply::Lost(Lost::Garbled));
                    }
                    break;
                }
            }
        }
        self.gone.store(true, Ordering::Release);
        // Dropping the senders tells everybody who waits.
        lock(&self.of_worker).clear();
        lock(&self.of_server).clear();
        self.outbox.end();
        self.child.stop();
        self.link.metrics.connections.dec();
    }

    /// An unreadable line that still shows whose answer it was meant to be.
    fn lose_garbled(&self, line: &[u8]) {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else { return };
        let id = match value.get("id") {
            Some(serde_json::Value::String(text)) => Id::text(text),
            Some(serde_json::Value::Number(n)) => Id::number(&n.to_string()),
            _ => return,
        };
        if let Some(open) = lock(&self.of_worker).remove(&id) {
            let _ = open.reply.send(Reply::Lost(Lost::Garbled));
        }
    }

    async fn from_server(self: &Arc<Self>, message: Message) {
        let id = match &message.kind {
            Kind::Result { id, .. } | Kind::Error { id, .. } => {
                match lock(&self.of_worker).remove(id) {
                    Some(open) => drop(open.reply.send(reply(message))),
                    None => {
                        lock(&self.given_up).remove(id);
                        self.link.metrics.dropped("answer_without_request");
                    }
                }
                return;
            }
            Kind::Request { id, .. } => Some(id.clone()),
            Kind::Notification { .. } => None,
        };
        if let (true, Some(id)) = (self.stateless, &id) {
            // In the modern protocol a server asks in its results; nobody would answer this.
            self.link.metrics.dropped("request_on_a_modern_stream");
            self.child.send(Payload::own(rpc::error(id, -32601, "there is no session to ask in", None))).await;
            return;
        }
        let place = self.place(&message);
        let questions = match &message.kind {
            Kind::Notification { method, params } if method == "notifications/tasks" => Some(params.clone()),
            _ => None,
        };
        match (self.link.passage.clear(From::Server, message), id) {
            (Cleared::Pass(payload), None) => {
                self.link.metrics.chatter.inc();
                let brings = match &questions {
                    Some(params) => self.link.tells(params).await,
                    None => true,
                };
                if brings {
                    self.post_notification(payload, &place);
                }
            }
            (Cleared::Pass(payload), Some(id)) => {
                self.link.metrics.chatter.inc();
                let this = self.clone();
                tokio::spawn(async move {
                    let reply = this.relay_to_worker(payload, &id).await;
                    let asked = Asked { id: &id, method: "ping", modern: false };
                    let answer = this.link.passage.release(reply);
                    let answer =
                        answer.unwrap_or_else(|| Payload::own(asked.unanswered("the client gave no answer").line));
                    this.child.send(answer).await;
                });
            }
            (Cleared::Decide(message), id) => {
                let Ok(proposal) = self.link.propose(From::Server, message) else { return };
                if self.in_flight() >= BUSY_MAX {
                    self.link.metrics.dropped("too_many_requests");
                    return;
                }
                let (this, busy) = (self.clone(), Busy::new(self));
                tokio::spawn(async move {
                    let _busy = busy;
                    this.ask_worker(proposal, id).await;
                });
            }
        }
    }

    /// Where a message of the server's own belongs, and what of it has to be put back.
    fn place(&self, message: &Message) -> Place {
        let (method, params) = match &message.kind {
            Kind::Notification { method, params } | Kind::Request { method, params, .. } => (method.as_str(), params),
            Kind::Result { .. } | Kind::Error { .. } => return Place::default(),
        };
        let about_lists = method.ends_with("/list_changed")
            || matches!(method, "notifications/resources/updated" | "notifications/tasks/status");
        let open = lock(&self.of_worker);
        let mut place = Place { of_a_request: !about_lists, ..Place::default() };
        if method == "notifications/progress"
            && let Some(token) = params.get("progressToken").and_then(id_of)
        {
            let found = open.values().find(|open| open.token.as_ref().is_some_and(|(known, _)| *known == token));
            place.stream = found.and_then(|open| open.stream);
            place.back = found
                .and_then(|open| open.token.clone())
                .filter(|(known, own)| known != own)
                .map(|(_, own)| (vec!["params", "progressToken"], own));
        } else if let Some(id) = mcp::meta(params, META_SUBSCRIPTION).and_then(id_of) {
            let found = open.get(&id);
            place.stream = found.and_then(|open| open.stream);
            let own = found.and_then(|open| open.id.clone());
            place.back = own.map(|own| (vec!["params", "_meta", META_SUBSCRIPTION], own));
        } else if method == "notifications/message" {
            let newest = open.values().filter(|open| open.logs).filter_map(|open| open.stream).max();
            place.stream = newest;
        }
        place
    }

    fn post_notification(&self, payload: Payload, place: &Place) {
        let text = match &place.back {
            Some((path, own)) => replaced(payload.as_str(), path, own.as_json()).unwrap_or_default(),
            None => payload.into_text(),
        };
        let text = rpc::one_line(&text);
        let put = place.stream.is_some_and(|stream| self.outbox.put(stream, &text));
        match (put, self.stateless) {
            (true, _) => {}
            // Without a session there is nobody else whom it could be for.
            (false, true) => self.link.metrics.dropped("notification_without_request"),
            (false, false) => self.outbox.post(&text, place.of_a_request),
        }
    }

    /// A server's request is a proposal too: to the worker it would reach.
    async fn ask_worker(self: Arc<Self>, proposal: Proposal, id: Option<Id>) {
        let Some(id) = id else {
            pipeline::handle(&self.link.gate, proposal, &Nowhere).await;
            return;
        };
        let method = proposal.method.clone();
        let asked = Asked { id: &id, method: &method, modern: false };
        let upstream = ToWorker { connection: &self, id: &id };
        let answer = match pipeline::handle(&self.link.gate, proposal, &upstream).await {
            Answer::Answered { payload, .. } => payload,
            Answer::Refused(refused) => Payload::own(asked.refused(&refused).line),
            Answer::Ended { id: decision, reply } => Payload::own(asked.ended(&decision, &reply).line),
        };
        self.child.send(answer).await;
    }

    async fn relay_to_worker(&self, payload: Payload, id: &Id) -> Reply {
        let (reply, answered) = oneshot::channel();
        {
            let mut open = lock(&self.of_server);
            if open.contains_key(id) {
                return Reply::NotSent;
            }
            open.insert(id.clone(), reply);
        }
        self.outbox.post(&rpc::one_line(payload.as_str()), true);
        let reply = tokio::select! {
            reply = answered => reply.unwrap_or(Reply::Lost(self.how_lost())),
            () = tokio::time::sleep(self.link.settings.call_timeout) => Reply::Lost(Lost::TimedOut),
        };
        lock(&self.of_server).remove(id);
        reply
    }

    /// The stream of the server's own messages, or the rest of one that broke.
    pub async fn listen(self: &Arc<Self>, headers: &HeaderMap) -> Response {
        self.touch();
        let (number, next) = match headers.get(headers::LAST_EVENT).map(|event| event.to_str().unwrap_or_default()) {
            None => (LISTENING, self.outbox.unheard()),
            Some(event) => match self.outbox.after(event) {
                Some(place) => place,
                None => {
                    let told = Asked { id: &Id::null(), method: "", modern: false }
                        .malformed(-32600, "no such event is kept: listen without `Last-Event-ID`");
                    return json(StatusCode::NOT_FOUND, HeaderMap::new(), told);
                }
            },
        };
        let (exchange, awaited) = Exchange::new(Some(KEEP_ALIVE));
        let (this, hold) = (self.clone(), can_resume(headers, false).then_some(self.link.settings.stream_hold));
        tokio::spawn(async move {
            exchange.begin_events(HeaderMap::new());
            this.outbox.carry(number, next, &exchange, hold.filter(|_| number != LISTENING)).await;
        });
        awaited.response().await
    }

    /// Whether the server has ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Requests that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.busy.load(Ordering::Acquire)
    }

    /// Whether nobody listens, nothing is in flight, and nothing came for so long.
    pub fn is_idle(&self, for_long: Duration) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let idle = now.saturating_sub(self.last_used_ms.load(Ordering::Relaxed));
        !self.outbox.is_heard() && self.in_flight() == 0 && u128::from(idle) >= for_long.as_millis()
    }

    fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used_ms.store(now, Ordering::Relaxed);
    }

    /// Ends the server; what is in flight is recorded as aborted.
    pub fn close(&self) {
        self.stopping.store(true, Ordering::Release);
        self.child.stop();
    }
}

/// What is to be done with a request.
enum Work {
    Chat(Payload),
    Ask(Proposal),
}

/// What a request wishes to hear of meanwhile.
struct Wishes {
    token: Option<Id>,
    logs: bool,
}

impl Wishes {
    fn of(params: &Json) -> Self {
        let token = mcp::meta(params, "progressToken").and_then(id_of);
        Self { token, logs: mcp::meta(params, META_LOG_LEVEL).is_some() }
    }
}

/// Whether an answer may be a stream of events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Streaming {
    Never,
    /// Once something is said before the answer.
    Later,
    /// The worker names it first.
    AtOnce,
}

impl Streaming {
    fn of(headers: &HeaderMap) -> Self {
        let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let (events, json) = (accept.iter().any(|v| v.contains(EVENTS)), accept.iter().any(|v| v.contains("json")));
        match accept.first() {
            Some(first) if first.trim_start().starts_with(EVENTS) || (events && !json) => Self::AtOnce,
            _ if events => Self::Later,
            _ => Self::Never,
        }
    }
}

const EVENTS: &str = "text/event-stream";

/// Whether the worker knows that a stream may end before its answer (MCP 2025-11-25, "Sending Messages to the Server").
fn can_resume(headers: &HeaderMap, modern: bool) -> bool {
    !modern && headers.get(headers::VERSION).is_some_and(|version| version.as_bytes() >= &b"2025-11-25"[..])
}

/// Where a message of the server's own belongs.
#[derive(Default)]
struct Place {
    stream: Option<u64>,
    /// A value that was replaced on the way in: where it stands, and the worker's own.
    back: Option<(Vec<&'static str>, Id)>,
    of_a_request: bool,
}

/// Towards the child.
struct ToServer<'a, P> {
    connection: &'a Arc<Connection<P>>,
    call: &'a Call,
    wishes: &'a Wishes,
}

impl<P: Ports + 'static> Upstream for ToServer<'_, P> {
    async fn forward(&self, permit: Permit) -> Reply {
        match held::payload(permit, &self.call.id, self.wishes.token.as_ref()) {
            Some(payload) => self.connection.relay(payload, self.wishes, self.call).await,
            None => Reply::NotSent,
        }
    }
}

impl<P: Ports + 'static> Waits for ToServer<'_, P> {
    async fn tell(&self, message: &str) {
        if let (Some(stream), Some(token)) = (self.call.stream, &self.wishes.token) {
            self.connection.outbox.put(stream, &rpc::progress(token, message));
        }
    }

    async fn left(&self) {
        let gone = async {
            // A legacy worker may come back for the answer.
            if !self.call.modern && self.call.stream.is_some() {
                std::future::pending::<()>().await;
            }
            self.call.left.notified().await;
            // Whoever comes after this sees it as well.
            self.call.left.notify_one();
        };
        tokio::select! { () = gone => {}, () = self.connection.link.waiting.taken_back(&self.call.id) => {} }
    }
}

/// Towards the worker.
struct ToWorker<'a, P> {
    connection: &'a Arc<Connection<P>>,
    id: &'a Id,
}

impl<P: Ports + 'static> Upstream for ToWorker<'_, P> {
    async fn forward(&self, permit: Permit) -> Reply {
        match held::payload(permit, self.id, None) {
            Some(payload) => self.connection.relay_to_worker(payload, self.id).await,
            None => Reply::NotSent,
        }
    }
}

async fn patience(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}
