//! What a server's stream carries: final messages, notifications, and requests of the server's own.

use super::*;

impl<P: Ports + 'static> Remote<P> {
    /// One event of a stream, on its way to the worker.
    pub(super) async fn event(
        self: &Arc<Self>,
        exchange: &Exchange,
        headers: &HeaderMap,
        event: Event,
        carries: Carries<'_>,
        modern: bool,
    ) -> Flow {
        let mut event = event;
        if !self.is_clean(event.fields().as_bytes()) {
            // Ids, names and comments are nobody's content: without them the message says the same.
            self.link.metrics.dropped("secret_in_an_event");
            let Some(data) = &event.data else { return Flow::On };
            event.raw = warden_core::sse::event(&rpc::one_line(data), None);
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
    pub(super) fn replayable(&self, call: &Call<'_>, ask: Ask, method: &str, told: &Told) {
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
    pub(super) async fn server_asks(
        self: &Arc<Self>,
        exchange: &Exchange,
        headers: &HeaderMap,
        raw: Vec<u8>,
        message: Message,
    ) {
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

    pub(super) fn answered_by_worker(&self, message: Message) {
        let waiting = match &message.kind {
            Kind::Result { id, .. } | Kind::Error { id, .. } => lock(&self.of_server).remove(id),
            Kind::Request { .. } | Kind::Notification { .. } => None,
        };
        match waiting {
            Some((_, waiting)) => drop(waiting.send(reply(message))),
            None => self.link.metrics.dropped("answer_without_request"),
        }
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
