//! Warden as an MCP client, in a session of its own: over a child's pipes or over HTTP, in either generation.

use super::Settings;
use super::child::{Child, Line};
use super::headers::{self, SESSION, VERSION};
use super::server::{Reach, Server};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use warden_core::catalogue::HeaderParam;
use warden_core::json::Limits;
use warden_core::mcp::{META_CAPABILITIES, META_VERSION, MODERN};
use warden_core::pipeline::Payload;
use warden_core::rpc::{Id, Kind, Message};
use warden_core::secrets::Scanner;
use warden_core::sse::{Events, Item};

/// The newest generation with a handshake.
pub const PROTOCOL_VERSION: &str = "2025-11-25";
const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";

fn itself() -> Value {
    json!({ "name": "warden", "version": env!("CARGO_PKG_VERSION") })
}

/// The parameters that every modern request has.
pub fn modern_params() -> Value {
    json!({ "_meta": { META_VERSION: MODERN, META_CAPABILITIES: {}, META_CLIENT: itself() } })
}

/// See the module.
pub struct Client<'a> {
    way: Way<'a>,
    limits: Limits,
}

enum Way<'a> {
    Child { child: Child, lines: mpsc::Receiver<Line> },
    Http { server: &'a super::server::HttpServer, headers: HeaderMap },
}

/// Why a request has no answer.
#[derive(Debug)]
pub struct Failed {
    /// A sentence.
    pub why: String,
    /// Whether it was surely never sent.
    pub not_sent: bool,
}

fn failed(why: impl Into<String>) -> Failed {
    Failed { why: why.into(), not_sent: false }
}

impl<'a> Client<'a> {
    /// A session with a server that has not heard of it yet.
    pub fn open(name: &str, server: &'a Server, settings: Settings, scanner: &Arc<Scanner>) -> Result<Self, String> {
        let way = match &server.reach {
            Reach::Command(command) => {
                let (child, lines) = Child::spawn(name, command, settings.server.bytes_max, scanner)
                    .map_err(|e| format!("server `{name}`: cannot start `{}`: {e}", command.program))?;
                Way::Child { child, lines }
            }
            Reach::Url(server) => Way::Http { server, headers: HeaderMap::new() },
        };
        Ok(Self { way, limits: settings.server })
    }

    /// Whether it is a child, which may have to be installed first.
    pub fn is_child(&self) -> bool {
        matches!(self.way, Way::Child { .. })
    }

    /// The handshake of the legacy generation; what the server can do.
    pub async fn begin_legacy(&mut self) -> Result<Value, String> {
        let hello = json!({ "protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": itself() });
        let welcome = self.request("initialize", hello).await?;
        if let (Way::Http { headers, .. }, Some(version)) = (&mut self.way, welcome["protocolVersion"].as_str())
            && let Ok(version) = HeaderValue::from_str(version)
        {
            headers.insert(VERSION, version);
        }
        self.tell(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
        Ok(welcome)
    }

    /// Speaks the modern generation from here on. Gives the legacy session that it had, to go back to.
    pub fn begin_modern(&mut self) -> Option<HeaderValue> {
        match &mut self.way {
            Way::Http { headers, .. } => {
                headers.insert(VERSION, HeaderValue::from_static(MODERN));
                headers.remove(SESSION)
            }
            Way::Child { .. } => None,
        }
    }

    /// Goes back to a legacy session.
    pub fn back_to(&mut self, session: Option<HeaderValue>) {
        if let (Way::Http { headers, .. }, Some(session)) = (&mut self.way, session) {
            headers.insert(SESSION, session);
            headers.insert(VERSION, HeaderValue::from_static(PROTOCOL_VERSION));
        }
    }

    /// Asks, and waits for the result.
    pub async fn request(&mut self, method: &str, params: Value) -> Result<Value, String> {
        let id = format!("warden:{method}");
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        if let Way::Http { headers, .. } = &mut self.way
            && let Ok(method) = HeaderValue::from_str(method)
        {
            headers.insert("mcp-method", method);
        }
        let answer = self.send(message.to_string(), &Id::text(&id), method, None).await.map_err(|failed| failed.why)?;
        match serde_json::from_str::<Value>(&answer.raw)
            .ok()
            .and_then(|mut answer| Some(answer.get_mut("result")?.take()))
        {
            Some(result) => Ok(result),
            None => Err(format!("it answered `{method}` with an error")),
        }
    }

    /// Sends a request byte for byte, and waits for its answer, byte for byte. `declared` are the arguments that go into headers too.
    pub async fn forward(
        &mut self,
        payload: Payload,
        message: &Message,
        id: &Id,
        declared: &[HeaderParam],
    ) -> Result<Message, Failed> {
        let Kind::Request { method, .. } = &message.kind else { return Err(failed("it is no request")) };
        let more = match &mut self.way {
            Way::Http { headers, .. } => {
                let mut all = headers.clone();
                if !all.contains_key(SESSION) {
                    headers::fill(&mut all, message, declared);
                }
                Some(all)
            }
            Way::Child { .. } => None,
        };
        self.send(payload.into_text(), id, method, more).await
    }

    async fn tell(&mut self, message: Value) -> Result<(), String> {
        match &mut self.way {
            Way::Child { child, .. } => {
                let sent = child.send(Payload::own(message.to_string())).await;
                sent.then_some(()).ok_or_else(|| "it ended before it answered".into())
            }
            Way::Http { .. } => self.post(message.to_string(), None, "", None).await.map(drop).map_err(|e| e.why),
        }
    }

    async fn send(
        &mut self,
        text: String,
        id: &Id,
        method: &str,
        headers: Option<HeaderMap>,
    ) -> Result<Message, Failed> {
        match &mut self.way {
            Way::Child { child, .. } => {
                if !child.send(Payload::own(text)).await {
                    return Err(Failed { why: "it ended before it was asked".into(), not_sent: true });
                }
                self.answer(id, method).await
            }
            Way::Http { .. } => {
                let answer = self.post(text, Some(id), method, headers).await?;
                answer.ok_or_else(|| failed(format!("it gave no answer to `{method}`")))
            }
        }
    }

    /// What a server asks meanwhile is not offered here.
    async fn answer(&mut self, id: &Id, method: &str) -> Result<Message, Failed> {
        loop {
            let Way::Child { lines, .. } = &mut self.way else { return Err(failed("it is no child")) };
            match lines.recv().await {
                None => return Err(failed(format!("it ended before it answered `{method}`"))),
                Some(Line::TooLong) => return Err(failed(format!("its answer to `{method}` is too long"))),
                Some(Line::Text(line)) => {
                    let Ok(message) = Message::parse(&line, self.limits) else { continue };
                    match &message.kind {
                        Kind::Result { id: of, .. } | Kind::Error { id: of, .. } if of == id => return Ok(message),
                        Kind::Request { id: asked, .. } => {
                            let no = warden_core::rpc::error(asked, -32601, "not offered", None);
                            let no: Value = serde_json::from_str(&no).unwrap_or_default();
                            self.tell(no).await.map_err(failed)?;
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Sends a message over HTTP, and waits for the answer to `id`, if there is to be one.
    async fn post(
        &mut self,
        text: String,
        id: Option<&Id>,
        method: &str,
        own: Option<HeaderMap>,
    ) -> Result<Option<Message>, Failed> {
        let limits = self.limits;
        let Way::Http { server, headers } = &mut self.way else { return Err(failed("it is no server at a URL")) };
        let mut all = own.unwrap_or_else(|| headers.clone());
        all.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let response = server.send(Method::POST, &all, text).await.map_err(|reply| Failed {
            why: format!("no answer from {}", server.place()),
            not_sent: reply == warden_core::outcome::Reply::NotSent,
        })?;
        let (head, mut body) = response.into_parts();
        if let Some(session) = head.headers.get(SESSION) {
            headers.insert(SESSION, session.clone());
        }
        let Some(id) = id else { return Ok(None) };
        let is_answer = |message: &Message| match &message.kind {
            Kind::Result { id: of, .. } => of == id,
            // An error may not know whose it is.
            Kind::Error { id: of, .. } => of == id || *of == Id::null(),
            Kind::Request { .. } | Kind::Notification { .. } => false,
        };
        let events =
            head.headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
        let (mut read, mut whole) = (Events::new(limits.bytes_max), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| failed(format!("it broke off its answer to `{method}`")))?;
            let bytes = frame.into_data().unwrap_or_default();
            if events {
                read.push(&bytes);
                while let Some(item) = read.next_item() {
                    let Item::Event(event) = item else {
                        return Err(failed(format!("its answer to `{method}` is too long")));
                    };
                    let data = event.data.and_then(|data| Message::parse(data.as_bytes(), limits).ok());
                    if let Some(message) = data.filter(is_answer) {
                        return Ok(Some(message));
                    }
                }
            } else {
                whole.extend_from_slice(&bytes);
                if whole.len() > limits.bytes_max {
                    return Err(failed(format!("its answer to `{method}` is too long")));
                }
            }
        }
        match Message::parse(&whole, limits) {
            Ok(message) if is_answer(&message) => Ok(Some(message)),
            _ => Err(failed(format!("it answered `{method}` with status {} and no message", head.status))),
        }
    }

    /// Ends the session.
    pub async fn end(self) {
        match self.way {
            Way::Child { child, .. } => child.stop(),
            Way::Http { server, headers } if headers.contains_key(SESSION) => {
                let ended = server.send(Method::DELETE, &headers, String::new());
                let _ = tokio::time::timeout(Duration::from_secs(5), ended).await;
            }
            Way::Http { .. } => {}
        }
    }
}
