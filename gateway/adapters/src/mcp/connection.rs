//! One connection: a worker on one side, a child server of its own on the other, the gate between.
//!
//! Chatter passes under the connection's own decision; everything else, from either side, goes through
//! `pipeline::handle` in a task of its own, so that an outcome is recorded even when the worker is gone.

use super::child::{Child, Line, ServerCommand};
use super::{Settings, list, refusal};
use crate::metrics::Metrics;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, mpsc, oneshot};
use warden_core::catalogue::hash_of;
use warden_core::json::Json;
use warden_core::mcp::{self, From};
use warden_core::outcome::{Lost, Reply};
use warden_core::pipeline::{self, Answer, Cleared, Gate, Passage, Payload, Permit, Ports, Upstream};
use warden_core::proposal::{Ask, Proposal, Verb};
use warden_core::rpc::{self, Id, Kind, Message};

/// Messages for a worker that listens nowhere are kept up to this many; then the oldest go.
const QUEUE_MAX: usize = 256;
/// Requests of one side that may be on their way at once.
const BUSY_MAX: usize = 256;
/// Ids that are remembered after their request was given up.
const GIVEN_UP_MAX: usize = 4096;

/// Told of the definitions in a list that are not those of the catalogue, by server.
pub type Listed = Arc<dyn Fn(&str, Vec<serde_json::Value>) + Send + Sync>;

/// See the module.
pub struct Connection<P> {
    gate: Arc<Gate<P>>,
    passage: Passage,
    child: Child,
    settings: Settings,
    metrics: Arc<Metrics>,
    listed: Listed,
    /// Requests of the worker that the server has not answered.
    of_worker: Mutex<HashMap<Id, Open>>,
    /// Requests of the server that the worker has not answered.
    of_server: Mutex<HashMap<Id, oneshot::Sender<Reply>>>,
    /// Ids of requests that timed out or were cancelled, until their answers come.
    given_up: Mutex<HashSet<Id>>,
    busy: AtomicUsize,
    outbox: Mutex<Outbox>,
    gone: AtomicBool,
    stopping: AtomicBool,
    started: Instant,
    last_used_ms: AtomicU64,
}

struct Open {
    reply: oneshot::Sender<Reply>,
    cancelled: Arc<Notify>,
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

/// Where messages of the server's own go: the listening stream, else the answer stream opened last, else the queue.
#[derive(Default)]
struct Outbox {
    listening: Option<mpsc::Sender<String>>,
    answering: Vec<(u64, mpsc::Sender<String>)>,
    next: u64,
    queue: VecDeque<String>,
}

/// What became of a message from the worker.
pub enum Taken {
    /// Nothing to answer.
    Accepted,
    /// The answer comes here, once.
    Answer(oneshot::Receiver<String>),
    /// A protocol error: HTTP status 400 and this line.
    Malformed(String),
}

/// Starts the child once the connection is allowed.
struct Starter<'a> {
    server: &'a str,
    command: &'a ServerCommand,
    line_max: usize,
    started: OnceLock<Mutex<Option<Started>>>,
}

type Started = (Passage, Child, mpsc::Receiver<Line>);

impl Upstream for Starter<'_> {
    async fn forward(&self, permit: Permit) -> Reply {
        let Some(passage) = permit.into_passage() else { return Reply::NotSent };
        match Child::spawn(self.server, self.command, self.line_max) {
            Ok((child, lines)) => {
                let _ = self.started.set(Mutex::new(Some((passage, child, lines))));
                Reply::Answered { raw: String::new(), body: Json::Null, is_error: false }
            }
            Err(e) => {
                tracing::error!(server = self.server, program = %self.command.program, error = %e, "cannot start the server");
                Reply::NotSent
            }
        }
    }
}

/// Asks for a connection with the worker's first message; allowed, the server is started.
pub async fn open<P: Ports + 'static>(
    gate: Arc<Gate<P>>,
    proposal: Proposal,
    command: &ServerCommand,
    settings: Settings,
    metrics: Arc<Metrics>,
    listed: Listed,
) -> Result<Arc<Connection<P>>, Answer> {
    let server = proposal.server.clone();
    let starter = Starter { server: &server, command, line_max: settings.server.bytes_max, started: OnceLock::new() };
    let answer = pipeline::handle(&gate, proposal, &starter).await;
    let started =
        starter.started.into_inner().and_then(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    let Some((passage, child, lines)) = started else { return Err(answer) };
    metrics.connections.inc();
    let connection = Arc::new(Connection {
        gate,
        passage,
        child,
        settings,
        metrics,
        listed,
        of_worker: Mutex::default(),
        of_server: Mutex::default(),
        given_up: Mutex::default(),
        busy: AtomicUsize::new(0),
        outbox: Mutex::default(),
        gone: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        started: Instant::now(),
        last_used_ms: AtomicU64::new(0),
    });
    tokio::spawn(connection.clone().read(lines));
    Ok(connection)
}

impl<P: Ports + 'static> Connection<P> {
    /// Takes one message of the worker.
    pub async fn take(self: &Arc<Self>, bytes: &[u8]) -> Taken {
        self.touch();
        let message = match Message::parse(bytes, self.settings.worker) {
            Ok(message) => message,
            Err(e) => {
                self.metrics.dropped("malformed");
                return Taken::Malformed(rpc::error(&Id::null(), e.code(), &e.to_string(), None));
            }
        };
        let id = match &message.kind {
            Kind::Result { .. } | Kind::Error { .. } => {
                self.answered_by_worker(message);
                return Taken::Accepted;
            }
            Kind::Request { id, .. } => Some(id.clone()),
            Kind::Notification { .. } => None,
        };
        if id.is_some() && self.busy.load(Ordering::Acquire) >= BUSY_MAX {
            self.metrics.dropped("too_many_requests");
            let id = id.unwrap_or_else(Id::null);
            return Taken::Malformed(rpc::error(
                &id,
                refusal::NO_ANSWER,
                "too many requests are on their way: wait for an answer",
                None,
            ));
        }
        match (self.passage.clear(From::Worker, message), id) {
            (Cleared::Pass(payload), None) => {
                self.metrics.chatter.inc();
                self.note_cancel(payload.as_str());
                self.child.send(payload).await;
                Taken::Accepted
            }
            (Cleared::Pass(payload), Some(id)) => {
                self.metrics.chatter.inc();
                self.answer_later(async move |this: Arc<Self>| this.chat(payload, &id).await)
            }
            (Cleared::Decide(message), None) => {
                // Nobody waits for the answer to a notification, and none of them is ever permitted.
                if let Ok(proposal) = self.propose(From::Worker, message) {
                    let this = self.clone();
                    tokio::spawn(async move { pipeline::handle(&this.gate, proposal, &Nowhere).await });
                }
                Taken::Accepted
            }
            (Cleared::Decide(message), Some(id)) => match self.propose(From::Worker, message) {
                Ok(proposal) => self.answer_later(async move |this: Arc<Self>| this.ask(proposal, &id).await),
                Err(e) => {
                    self.metrics.dropped("malformed");
                    Taken::Malformed(rpc::error(&id, -32602, &e.to_string(), None))
                }
            },
        }
    }

    fn answer_later<F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) -> Taken
    where
        F: Future<Output = String> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let work = work(self.clone());
        let busy = Busy::new(self);
        tokio::spawn(async move {
            let _busy = busy;
            // A worker that is gone misses the answer, not the outcome.
            let _ = done.send(work.await);
        });
        Taken::Answer(answer)
    }

    fn propose(&self, from: From, message: Message) -> Result<Proposal, mcp::Malformed> {
        mcp::propose(from, message, self.passage.worker(), self.passage.connection(), self.passage.server())
    }

    async fn chat(self: Arc<Self>, payload: Payload, id: &Id) -> String {
        let reply = self.relay(payload, id).await;
        let lost = match &reply {
            Reply::Answered { .. } => None,
            _ => Some("the server gave no answer"),
        };
        match self.passage.release(reply) {
            Some(payload) => payload.as_str().to_owned(),
            None => {
                rpc::error(id, refusal::NO_ANSWER, lost.unwrap_or("the answer holds a secret and is withheld"), None)
            }
        }
    }

    async fn ask(self: Arc<Self>, proposal: Proposal, id: &Id) -> String {
        let (method, ask) = (proposal.method.clone(), proposal.ask.clone());
        let upstream = ToServer { connection: &self, id };
        match pipeline::handle(&self.gate, proposal, &upstream).await {
            Answer::Answered { payload, is_error: false, .. } if ask == Ask::Verb(Verb::ListTools) => {
                self.shown(payload.as_str())
            }
            Answer::Answered { payload, .. } => payload.as_str().to_owned(),
            Answer::Refused(refused) => refusal::line(id, &method, &refused),
            Answer::Ended { id: decision, reply } => refusal::ended(id, &method, &decision, &reply),
        }
    }

    /// A list of tools without those that the worker could never call, and without those whose definition is not the
    /// one in the catalogue: they wait for an operator.
    fn shown(&self, raw: &str) -> String {
        let (snapshot, server) = (self.gate.snapshot(), self.passage.server());
        let mut unknown = Vec::new();
        let filtered = list::filter_tools(raw, self.settings.server, |name, definition| {
            let known = snapshot.catalogue().tool(server, name);
            let same = known.is_some_and(|tool| tool.hash == hash_of(definition));
            if !same {
                unknown.push(definition.clone());
            }
            let ask = Ask::Tool { name: name.to_owned() };
            (same || known.is_none()) && snapshot.is_listed(self.passage.worker(), server, &ask)
        });
        if !unknown.is_empty() {
            (self.listed)(server, unknown);
        }
        filtered.unwrap_or_else(|| raw.to_owned())
    }

    /// Sends a request to the server and waits for its answer.
    async fn relay(&self, payload: Payload, id: &Id) -> Reply {
        let (reply, answered) = oneshot::channel();
        let cancelled = Arc::new(Notify::new());
        {
            let mut open = lock(&self.of_worker);
            // The late answer to an id that was given up would pass for the answer to this one.
            if self.gone.load(Ordering::Acquire) || open.contains_key(id) || lock(&self.given_up).contains(id) {
                return Reply::NotSent;
            }
            open.insert(id.clone(), Open { reply, cancelled: cancelled.clone() });
        }
        let answered = async { if self.child.send(payload).await { answered.await } else { Ok(Reply::NotSent) } };
        let reply = tokio::select! {
            reply = answered => reply.unwrap_or(Reply::Lost(self.how_lost())),
            () = tokio::time::sleep(self.settings.call_timeout) => Reply::Lost(Lost::TimedOut),
            () = async { cancelled.notified().await; tokio::time::sleep(self.settings.cancel_grace).await; } => Reply::Cancelled,
        };
        if lock(&self.of_worker).remove(id).is_some() && !matches!(reply, Reply::NotSent) {
            let mut given_up = lock(&self.given_up);
            if given_up.len() < GIVEN_UP_MAX {
                given_up.insert(id.clone());
            }
        }
        reply
    }

    fn how_lost(&self) -> Lost {
        if self.stopping.load(Ordering::Acquire) { Lost::Aborted } else { Lost::Gone }
    }

    fn note_cancel(&self, line: &str) {
        let Ok(message) = Message::parse(line.as_bytes(), self.settings.worker) else { return };
        let Kind::Notification { method, params } = message.kind else { return };
        if method != "notifications/cancelled" {
            return;
        }
        let id = match params.get("requestId") {
            Some(Json::String(text)) => Some(Id::text(text)),
            Some(Json::Number(text)) => Some(Id::number(text)),
            _ => None,
        };
        if let Some(open) = id.and_then(|id| lock(&self.of_worker).get(&id).map(|open| open.cancelled.clone())) {
            open.notify_one();
        }
    }

    fn answered_by_worker(&self, message: Message) {
        let waiting = match &message.kind {
            Kind::Result { id, .. } | Kind::Error { id, .. } => lock(&self.of_server).remove(id),
            Kind::Request { .. } | Kind::Notification { .. } => None,
        };
        match waiting {
            Some(waiting) => drop(waiting.send(reply(message))),
            None => self.metrics.dropped("answer_without_request"),
        }
    }

    /// Reads what the server writes, until it ends.
    async fn read(self: Arc<Self>, mut lines: mpsc::Receiver<Line>) {
        while let Some(line) = lines.recv().await {
            match line {
                Line::Text(line) => match Message::parse(&line, self.settings.server) {
                    Ok(message) => self.from_server(message).await,
                    Err(e) => {
                        tracing::warn!(
                            server = self.passage.server(),
                            code = e.code(),
                            bytes = line.len(),
                            "the server wrote something that is no message"
                        );
                        self.metrics.dropped("garbage_from_server");
                        self.lose_garbled(&line);
                    }
                },
                Line::TooLong => {
                    tracing::error!(
                        server = self.passage.server(),
                        bytes_max = self.settings.server.bytes_max,
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
        {
            let mut outbox = lock(&self.outbox);
            outbox.listening = None;
            outbox.answering.clear();
        }
        self.child.stop();
        self.metrics.connections.dec();
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
                        self.metrics.dropped("answer_without_request");
                    }
                }
                return;
            }
            Kind::Request { id, .. } => Some(id.clone()),
            Kind::Notification { .. } => None,
        };
        match (self.passage.clear(From::Server, message), id) {
            (Cleared::Pass(payload), None) => {
                self.metrics.chatter.inc();
                self.post(payload);
            }
            (Cleared::Pass(payload), Some(id)) => {
                self.metrics.chatter.inc();
                let this = self.clone();
                tokio::spawn(async move {
                    let reply = this.relay_to_worker(payload, &id).await;
                    let answer = this.passage.release(reply).unwrap_or_else(|| {
                        Payload::own(rpc::error(&id, refusal::NO_ANSWER, "the client gave no answer", None))
                    });
                    this.child.send(answer).await;
                });
            }
            (Cleared::Decide(message), id) => {
                let Ok(proposal) = self.propose(From::Server, message) else { return };
                if self.busy.load(Ordering::Acquire) >= BUSY_MAX {
                    self.metrics.dropped("too_many_requests");
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

    /// A server's request is a proposal too: to the worker it would reach.
    async fn ask_worker(self: Arc<Self>, proposal: Proposal, id: Option<Id>) {
        let Some(id) = id else {
            pipeline::handle(&self.gate, proposal, &Nowhere).await;
            return;
        };
        let method = proposal.method.clone();
        let upstream = ToWorker { connection: &self, id: &id };
        let answer = match pipeline::handle(&self.gate, proposal, &upstream).await {
            Answer::Answered { payload, .. } => payload,
            Answer::Refused(refused) => Payload::own(refusal::line(&id, &method, &refused)),
            Answer::Ended { id: decision, reply } => Payload::own(refusal::ended(&id, &method, &decision, &reply)),
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
        self.post(payload);
        let reply = tokio::select! {
            reply = answered => reply.unwrap_or(Reply::Lost(self.how_lost())),
            () = tokio::time::sleep(self.settings.call_timeout) => Reply::Lost(Lost::TimedOut),
        };
        lock(&self.of_server).remove(id);
        reply
    }

    /// Hands the worker a message of the server's own.
    fn post(&self, payload: Payload) {
        let mut outbox = lock(&self.outbox);
        let mut line = payload.as_str().to_owned();
        let streams: Vec<_> =
            outbox.listening.iter().chain(outbox.answering.iter().rev().map(|(_, s)| s)).cloned().collect();
        for stream in streams {
            match stream.try_send(line) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => line = back,
            }
        }
        if outbox.queue.len() == QUEUE_MAX {
            outbox.queue.pop_front();
            self.metrics.dropped("worker_does_not_listen");
        }
        outbox.queue.push_back(line);
    }

    /// The stream of the server's own messages; a later one takes the place of an earlier.
    pub fn listen(&self) -> mpsc::Receiver<String> {
        self.touch();
        let (stream, messages) = mpsc::channel(QUEUE_MAX * 2);
        let mut outbox = lock(&self.outbox);
        while let Some(line) = outbox.queue.pop_front() {
            let _ = stream.try_send(line);
        }
        outbox.listening = (!self.gone.load(Ordering::Acquire)).then_some(stream);
        messages
    }

    /// A stream beside one answer, for workers that listen nowhere else. Ends with [`Connection::end_answering`].
    pub fn begin_answering(&self) -> (u64, mpsc::Receiver<String>) {
        let (stream, messages) = mpsc::channel(QUEUE_MAX * 2);
        let mut outbox = lock(&self.outbox);
        if outbox.listening.as_ref().is_none_or(mpsc::Sender::is_closed) {
            while let Some(line) = outbox.queue.pop_front() {
                let _ = stream.try_send(line);
            }
        }
        outbox.next += 1;
        let number = outbox.next;
        outbox.answering.push((number, stream));
        (number, messages)
    }

    /// See [`Connection::begin_answering`].
    pub fn end_answering(&self, number: u64) {
        lock(&self.outbox).answering.retain(|(n, _)| *n != number);
    }

    /// Whose it is.
    pub fn passage(&self) -> &Passage {
        &self.passage
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
    pub fn is_idle(&self, for_long: std::time::Duration) -> bool {
        let listening = lock(&self.outbox).listening.as_ref().is_some_and(|stream| !stream.is_closed());
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let idle = now.saturating_sub(self.last_used_ms.load(Ordering::Relaxed));
        !listening && self.in_flight() == 0 && u128::from(idle) >= for_long.as_millis()
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

/// Towards the child.
struct ToServer<'a, P> {
    connection: &'a Arc<Connection<P>>,
    id: &'a Id,
}

impl<P: Ports + 'static> Upstream for ToServer<'_, P> {
    async fn forward(&self, permit: Permit) -> Reply {
        self.connection.relay(permit.into_payload(), self.id).await
    }
}

/// Towards the worker.
struct ToWorker<'a, P> {
    connection: &'a Arc<Connection<P>>,
    id: &'a Id,
}

impl<P: Ports + 'static> Upstream for ToWorker<'_, P> {
    async fn forward(&self, permit: Permit) -> Reply {
        self.connection.relay_to_worker(permit.into_payload(), self.id).await
    }
}

/// For what is never permitted.
pub struct Nowhere;

impl Upstream for Nowhere {
    async fn forward(&self, _permit: Permit) -> Reply {
        Reply::NotSent
    }
}

fn reply(message: Message) -> Reply {
    match message.kind {
        Kind::Result { result, .. } => Reply::Answered { raw: message.raw, body: result, is_error: false },
        Kind::Error { error, .. } => Reply::Answered { raw: message.raw, body: error, is_error: true },
        Kind::Request { .. } | Kind::Notification { .. } => Reply::Lost(Lost::Garbled),
    }
}

// A std mutex: nothing awaits while it is held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer to a worker whose connection was not opened.
pub fn not_opened(id: &Id, answer: &Answer) -> String {
    match answer {
        Answer::Refused(refused) => refusal::line(id, "initialize", refused),
        Answer::Ended { id: decision, reply } => refusal::ended(id, "initialize", decision, reply),
        Answer::Answered { id: decision, .. } => refusal::ended(id, "initialize", decision, &Reply::NotSent),
    }
}
