//! A request on its way to the server, and its answer on its way back: whole, as events, or passed on while it is read.

use super::*;

impl<P: Ports + 'static> Remote<P> {
    /// Sends a request and waits for its final message. What comes before it goes to the worker at once.
    pub(super) async fn relay(self: &Arc<Self>, call: &Call<'_>, payload: Payload) -> Reply {
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
            let stream = Stream::new(body, self.hold_max(call));
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
            if bytes.len() > self.hold_max(call) {
                return match head.status.is_success() && is_json(&head) && call.content {
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
        let mut passing = Passing::new(self.link.passage.scanner().clone());
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

    pub(super) async fn relay_stream(
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
                Ok(Some(Item::Large(_))) if !call.content => return Reply::Lost(Lost::Garbled),
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
        let (mut large, mut passing, mut begun) =
            (Large::default(), Passing::new(self.link.passage.scanner().clone()), false);
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
                        if !self.is_clean(&out) {
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
        if !self.is_clean(&fields) {
            return self.stopped(call, Stop::NotAnAnswer("a field of its event holds a secret")).await;
        }
        self.passed(call, passing, |rest| [prefix, &data_lines(&rest), b"\n", &fields, b"\n"].concat()).await
    }

    /// Gives the worker what it is told, the way the final message came.
    pub(super) async fn tell(self: &Arc<Self>, call: &Call<'_>, told: Told) {
        let (held, begun) = (lock(&call.held).take(), call.exchange.begun());
        match held {
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
            None | Some(Held::Whole(..)) if begun => {
                call.exchange.send(warden_core::sse::event(&rpc::one_line(&told.line), None)).await;
                call.exchange.end();
            }
            Some(Held::Whole(status, headers)) => {
                let status = if told.verbatim { status } else { status_of(call.modern, &told) };
                call.exchange.whole(json(status, headers, told));
            }
            None => {
                let status = status_of(call.modern, &told);
                call.exchange.whole(json(status, HeaderMap::new(), told));
            }
        }
    }
}

impl Stream {
    pub(super) fn new(body: Incoming, hold_max: usize) -> Self {
        Self { body, events: Events::new(hold_max), resumable: false }
    }

    /// The next event; nothing at the end. `patience` counts from one piece to the next.
    pub(super) async fn next(&mut self, patience: Option<Duration>) -> Result<Option<Item>, Lost> {
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

/// Line breaks in a message's data stand between tokens; each begins a `data` line.
fn data_lines(data: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = data.split(|b| *b == b'\n').collect();
    lines.join(&b"\ndata: "[..])
}
