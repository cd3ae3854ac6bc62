//! Takes a permitted call to its provider and the answer back: whole, or event by event as it comes.

use super::Llm;
use super::call::{Call, name, of_tool};
use super::headers::for_worker;
use crate::engines::Engine;
use crate::engines::over_http::ANTHROPIC_VERSION;
use crate::mcp::exchange::Exchange;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use warden_core::amount::Amount;
use warden_core::json::{self, Json};
use warden_core::llm::calls::{self, ToolCall};
use warden_core::llm::refusal::{No, in_place};
use warden_core::llm::stream::{Assembler, Frame, Step};
use warden_core::llm::{Api, texts, usage};
use warden_core::outcome::{Lost, Metered, Reply};
use warden_core::pipeline::{self, Answer, Meter, Permit, Upstream};
use warden_core::policy::level::Inbound;
use warden_core::proposal::{DecisionId, Verb};
use warden_core::secrets::stream::{Flow, Piece, Released, Stream};
use warden_core::secrets::{Finding, redact};
use warden_core::sse::{Events, Item};
use warden_core::verdict::Verdict;

/// See the module.
pub(super) struct Relay<'a> {
    llm: &'a Llm,
    call: &'a Call,
    engine: &'a Engine,
    exchange: &'a Exchange,
    deadline: Instant,
    hides_usage: bool,
    head: Mutex<Option<(StatusCode, HeaderMap)>>,
    /// Whether its time was over before anything was sent.
    late: AtomicBool,
}

/// Bytes of one event.
const EVENT_MAX: usize = 16 << 20;

/// How long the rest of a withheld answer is read.
const READ_ON: Duration = Duration::from_secs(10);
/// How long a worker may take to read the last event of a stream that was broken off.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Why nothing more is read.
enum Over {
    /// The worker is gone.
    Left,
    /// The gateway is shutting down.
    Closing,
    /// The provider was silent for too long, or the time is over.
    Late,
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        llm: &'a Llm,
        call: &'a Call,
        engine: &'a Engine,
        exchange: &'a Exchange,
        deadline: Instant,
        hides_usage: bool,
    ) -> Self {
        Self {
            llm,
            call,
            engine,
            exchange,
            deadline,
            hides_usage,
            head: Mutex::default(),
            late: AtomicBool::new(false),
        }
    }

    /// Whether its time was over before anything was sent.
    pub(super) fn was_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// The provider's status and headers, when it answered whole.
    pub(super) fn into_head(self) -> Option<(StatusCode, HeaderMap)> {
        self.head.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something from the provider, but not for ever and for nobody.
    async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Over> {
        let silent = (Instant::now() + self.engine.silence).min(self.deadline);
        tokio::select! {
            biased;
            done = timeout_at(silent, work) => done.map_err(|_| Over::Late),
            () = self.exchange.left() => Err(Over::Left),
            () = self.llm.closed() => Err(Over::Closing),
        }
    }

    /// What a call has used, with its price.
    fn used(&self, usage: Option<warden_core::amount::Usage>) -> Option<Metered> {
        usage.map(|usage| Metered::Used(usage, self.engine.cost(&self.call.asked.model, usage)))
    }

    async fn send(&self, permit: Permit) -> Reply {
        let Some(http) = &self.engine.http else { return Reply::NotSent };
        if self.deadline <= Instant::now() {
            self.late.store(true, Ordering::Relaxed);
            return Reply::NotSent;
        }
        let (meter, inbound, id) = (permit.meter(), permit.inbound(), permit.decision().clone());
        let mut headers = self.call.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.call.api == Api::Messages && !headers.contains_key("anthropic-version") {
            headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
        }
        let sent = http.send_to(&self.call.path, Method::POST, &headers, permit.into_payload().into_text());
        let response = match self.wait(sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(reply)) => return reply,
            Err(over) => return over.reply(),
        };
        let (head, body) = response.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if head.status.is_success() && kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream") {
            let mut headers = for_worker(&head.headers);
            name(&mut headers, &id, self.call.caller.task.as_str());
            return Streaming::new(self, meter, inbound, id, headers).run(body).await;
        }
        self.whole(head.status, &head.headers, body, &meter).await
    }

    async fn whole(&self, status: StatusCode, headers: &HeaderMap, mut body: Incoming, meter: &Meter) -> Reply {
        let mut bytes = Vec::new();
        loop {
            match self.wait(body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Ok(Some(Err(_))) => return Reply::Lost(Lost::Gone),
                Err(over) => return over.reply(),
            }
            if bytes.len() > self.llm.settings.server.bytes_max {
                return Reply::Lost(Lost::Garbled);
            }
        }
        let is_error = !status.is_success();
        let read = json::parse(&bytes, self.llm.settings.server);
        let said = read.as_ref().ok().filter(|_| !self.call.counts);
        let used = said.and_then(|body| self.used(usage::read(self.call.api, body)));
        if let Some(metered) = used.or(is_refusal(status).then_some(Metered::Refused)) {
            meter.tell(metered);
        }
        let Ok(raw) = String::from_utf8(bytes) else { return Reply::Lost(Lost::Garbled) };
        let (mut raw, mut body) = match read {
            Ok(body) => (raw, body),
            // A proxy in between says no in its own words.
            Err(_) if is_error => (raw.clone(), Json::String(raw)),
            Err(_) => return Reply::Lost(Lost::Garbled),
        };
        if !is_error {
            let mut said = Vec::new();
            for tool_call in calls::of(self.call.api, &body) {
                said.push(self.propose(&tool_call).await);
            }
            if said.iter().any(Option::is_some) {
                let without = calls::without(self.call.api, &raw, &said)
                    .and_then(|raw| Some((json::parse(raw.as_bytes(), self.llm.settings.server).ok()?, raw)));
                let Some((without, text)) = without else { return Reply::Lost(Lost::Garbled) };
                (raw, body) = (text, without);
            }
        }
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some((status, for_worker(headers)));
        Reply::Answered { raw, body, is_error }
    }

    /// Decides a tool call that an answer proposes: what stands in its place when it is refused.
    async fn propose(&self, call: &ToolCall) -> Option<String> {
        let ToolCall { tool, call: whole } = call;
        let proposal = self.call.caller.propose(self.llm, &self.engine.id, Verb::ProposeToolCall, (Amount::ZERO, true));
        let proposal = of_tool(self.call, proposal, tool, whole.clone());
        match pipeline::handle(&self.llm.gate, proposal, &HandsOn).await {
            Answer::Refused(refusal) => {
                let held = refusal.verdict == Verdict::Escalate;
                let reason = if held { "held for a person" } else { refusal.reason.as_str() };
                Some(in_place(tool, reason, refusal.advice.as_deref()))
            }
            Answer::Answered { .. } | Answer::Ended { .. } => None,
        }
    }
}

/// Whether a status says that the provider itself did nothing. One of a proxy in front of it may come after the work was done.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400..=407 | 409..=499 | 500 | 503 | 529)
}

impl Upstream for Relay<'_> {
    async fn forward(&self, permit: Permit) -> Reply {
        self.send(permit).await
    }
}

/// A tool call goes to its worker with the answer that proposes it.
struct HandsOn;

impl Upstream for HandsOn {
    async fn forward(&self, permit: Permit) -> Reply {
        let bytes = permit.into_payload().as_str().len() as u64;
        Reply::Passed { bytes, failed: false, finding: None }
    }
}

impl Over {
    fn reply(self) -> Reply {
        match self {
            Over::Left => Reply::Cancelled,
            Over::Closing => Reply::Lost(Lost::Aborted),
            Over::Late => Reply::Lost(Lost::TimedOut),
        }
    }
}

/// An event, with the places of its running texts.
struct Passing {
    frame: Frame,
    paths: Vec<Vec<String>>,
}

/// Why a stream ends before its end.
enum Stop {
    Secret(Option<Finding>),
    Reply(Reply),
}

/// One answer in events.
struct Streaming<'r> {
    relay: &'r Relay<'r>,
    meter: Meter,
    id: DecisionId,
    headers: Option<HeaderMap>,
    redacts: bool,
    assembler: Assembler,
    scan: Stream<Passing>,
    events: Events,
    /// The rest of the last event that was scanned by itself: most events differ in their running text alone.
    seen: String,
    /// The lines beside the data of the last event.
    fields: String,
    /// Whether a value was replaced.
    cut: bool,
    bytes: u64,
}

impl<'r> Streaming<'r> {
    fn new(relay: &'r Relay<'r>, meter: Meter, inbound: Inbound, id: DecisionId, headers: HeaderMap) -> Self {
        let redacts = inbound == Inbound::Redact;
        Self {
            meter,
            id,
            headers: Some(headers),
            redacts,
            assembler: Assembler::new(relay.call.api, relay.hides_usage),
            events: Events::new(EVENT_MAX),
            scan: Stream::new(relay.llm.gate.ports.scanner.clone(), redacts),
            relay,
            seen: String::new(),
            fields: String::new(),
            cut: false,
            bytes: 0,
        }
    }

    async fn run(mut self, mut body: Incoming) -> Reply {
        let done = self.pass(&mut body).await;
        if let Err(Stop::Secret(_)) = &done {
            self.end_with("result_withheld", 403, "withheld").await;
            // Nobody is given the rest; what it says of its usage is worth a moment.
            let _ = tokio::time::timeout(READ_ON, self.read_on(&mut body)).await;
        }
        let metered = self.relay.used(self.assembler.usage());
        match done {
            Ok(()) => {
                // What a stream that failed has said so far is not all that it used.
                if let Some(metered) = metered.filter(|_| self.assembler.is_complete()) {
                    self.meter.tell(metered);
                }
                self.relay.exchange.end();
                Reply::Passed { bytes: self.bytes, failed: self.assembler.failed(), finding: None }
            }
            Err(Stop::Secret(finding)) => {
                if let Some(metered) = metered.filter(|_| self.assembler.is_complete()) {
                    self.meter.tell(metered);
                }
                let finding = finding.or_else(|| self.scan.scan().findings.first().cloned());
                let finding = finding.unwrap_or_else(|| Finding::unscannable(""));
                Reply::Passed { bytes: self.bytes, failed: false, finding: Some(finding) }
            }
            // Whoever has all of it has also been told what it used.
            Err(Stop::Reply(reply)) => {
                if let Some(metered) = metered.filter(|_| self.assembler.is_complete()) {
                    self.meter.tell(metered);
                }
                if self.relay.exchange.begun() {
                    let no = super::answer::ended(&self.id, &reply);
                    self.last_word(no.event(self.relay.call.api)).await;
                }
                reply
            }
        }
    }

    /// Ends what has begun, in words of the API.
    async fn end_with(&mut self, code: &str, status: u16, kind: &'static str) {
        let advice = warden_core::reason::advice(code).unwrap_or_default();
        let no = No {
            status,
            code: code.to_owned(),
            message: format!("{code}: {advice}"),
            kind,
            decision: Some(self.id.to_string()),
            exceeded: None,
        };
        self.begin();
        self.last_word(no.event(self.relay.call.api)).await;
    }

    /// Says it and ends. A worker that reads nothing is not waited for.
    async fn last_word(&self, text: String) {
        let _ = tokio::time::timeout(LAST_WORD, self.relay.exchange.send(text)).await;
        self.relay.exchange.end();
    }

    fn begin(&mut self) {
        if let Some(headers) = self.headers.take() {
            self.relay.exchange.begin_events(headers);
        }
    }

    /// Reads to the end of an answer that nobody is given, for its usage.
    async fn read_on(&mut self, body: &mut Incoming) {
        let mut events = std::mem::replace(&mut self.events, Events::new(EVENT_MAX));
        let mut over = false;
        loop {
            while let Some(Item::Event(event)) = events.next_item() {
                let Ok(frame) = Frame::read(event) else { return };
                for step in self.assembler.push(frame).unwrap_or_default() {
                    if let Step::Ask(asks) = step {
                        self.assembler.resolve(asks, &[]);
                    }
                }
            }
            if over {
                return;
            }
            match body.frame().await {
                Some(Ok(frame)) => events.push(&frame.into_data().unwrap_or_default()),
                // The end of the last event may be missing.
                _ => {
                    events.push(b"\n\n");
                    over = true;
                }
            }
        }
    }

    async fn pass(&mut self, body: &mut Incoming) -> Result<(), Stop> {
        let lost = |lost| Stop::Reply(Reply::Lost(lost));
        loop {
            let frame = match self.relay.wait(body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(lost(Lost::Gone)),
                Err(over) => return Err(Stop::Reply(over.reply())),
            };
            self.events.push(&frame.into_data().unwrap_or_default());
            let mut out = Vec::new();
            while let Some(item) = self.events.next_item() {
                let Item::Event(event) = item else { return Err(lost(Lost::Garbled)) };
                let frame = Frame::read(event).map_err(|_| lost(Lost::Garbled))?;
                for step in self.assembler.push(frame).map_err(|_| lost(Lost::Garbled))? {
                    self.step(step, &mut out).await?;
                }
            }
            self.send(out).await?;
        }
        // The end of the last event may be missing.
        self.events.push(b"\n\n");
        let mut out = Vec::new();
        while let Some(Item::Event(event)) = self.events.next_item() {
            if event.data.is_some() {
                let frame = Frame::read(event).map_err(|_| lost(Lost::Gone))?;
                for step in self.assembler.push(frame).map_err(|_| lost(Lost::Garbled))? {
                    self.step(step, &mut out).await?;
                }
            }
        }
        let rest = self.scan.finish();
        self.release(rest, &mut out)?;
        self.send(out).await?;
        if self.assembler.is_complete() || self.assembler.failed() { Ok(()) } else { Err(lost(Lost::Gone)) }
    }

    async fn step(&mut self, step: Step, out: &mut Vec<u8>) -> Result<(), Stop> {
        match step {
            Step::Pass(frame) => self.look(frame, out),
            Step::Ask(asks) => {
                let mut said = Vec::new();
                for call in &asks.calls {
                    said.push(self.relay.propose(call).await);
                }
                self.assembler.resolve(asks, &said).into_iter().try_for_each(|frame| self.look(frame, out))
            }
        }
    }

    /// Scans an event: its running texts with what came before, the rest by itself.
    fn look(&mut self, frame: Frame, out: &mut Vec<u8>) -> Result<(), Stop> {
        let api = self.relay.call.api;
        let scanner = self.relay.llm.gate.ports.scanner.clone();
        // Its lines beside the data go on as they are.
        let fields = frame.event.fields();
        if fields != self.fields {
            let found = scanner.scan_text(&fields, "");
            if !found.is_clean() {
                return Err(Stop::Secret(found.findings.into_iter().next()));
            }
            self.fields = fields;
        }
        let Some(event) = &frame.json else {
            let flow = self.scan.push(Passing { frame, paths: Vec::new() }, &[]);
            return self.release(flow, out);
        };
        let running = texts::running(api, event);
        let rest = texts::rest(event, &running);
        let mut frame = frame;
        if rest != self.seen {
            let found = scanner.scan_text(&rest, "");
            if found.is_clean() {
                self.seen = rest;
            } else {
                // Where values are replaced, those of an event that repeats the whole are as well.
                let data = frame.event.data.as_deref().unwrap_or_default();
                match self.redacts.then(|| redact::whole(&scanner, data)).flatten() {
                    Some((text, _)) => frame = frame.with(&text),
                    None => return Err(Stop::Secret(found.findings.into_iter().next())),
                }
            }
        }
        let (paths, pieces): (Vec<_>, Vec<Piece>) = running.into_iter().map(|text| (text.path, text.piece)).unzip();
        let flow = self.scan.push(Passing { frame, paths }, &pieces);
        self.release(flow, out)
    }

    fn release(&mut self, flow: Flow<Passing>, out: &mut Vec<u8>) -> Result<(), Stop> {
        let Flow::On(released) = flow else { return Err(Stop::Secret(None)) };
        for Released { event: Passing { frame, paths }, texts } in released {
            let is_clean = texts.iter().all(Option::is_none);
            self.cut |= !is_clean;
            // From the first value on, what repeats the text token by token is left out as well.
            if is_clean && !(self.cut && frame.event.data.as_deref().is_some_and(|data| data.contains("logprobs"))) {
                out.extend_from_slice(&frame.event.raw);
                continue;
            }
            let mut data = frame.event.data.clone().unwrap_or_default();
            for (path, text) in paths.iter().zip(texts) {
                let Some(text) = text else { continue };
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let text = serde_json::Value::from(text).to_string();
                data = json::replaced(&data, &path, &text).ok_or(Stop::Secret(None))?;
            }
            let data = redact::without_probabilities(&data).ok_or(Stop::Secret(None))?;
            out.extend_from_slice(&frame.with(&data).event.raw);
        }
        Ok(())
    }

    async fn send(&mut self, out: Vec<u8>) -> Result<(), Stop> {
        if out.is_empty() {
            return Ok(());
        }
        self.begin();
        self.bytes += out.len() as u64;
        // A worker that reads nothing holds nobody for ever.
        match self.relay.wait(self.relay.exchange.send(out)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Reply(Reply::Cancelled)),
            Err(over) => Err(Stop::Reply(over.reply())),
        }
    }
}
