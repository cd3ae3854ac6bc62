//! Asking a server for its tools, before any worker does: Warden as an MCP client, for one question in each generation.

use super::Settings;
use super::child::{Child, Line, ServerCommand};
use super::headers::{SESSION, VERSION};
use super::server::{HttpServer, Reach, Server};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use warden_core::mcp::{META_CAPABILITIES, META_VERSION, MODERN};
use warden_core::pipeline::Payload;
use warden_core::secrets::Scanner;
use warden_core::sse::{Events, Item};

/// The newest generation with a handshake.
pub const PROTOCOL_VERSION: &str = "2025-11-25";
/// Launchers may install a server first.
const CHILD_PATIENCE: Duration = Duration::from_secs(60);
/// A server at a URL is there or it is not.
const URL_PATIENCE: Duration = Duration::from_secs(10);
/// By the time the other generation is asked for, the server has started.
const OTHER_PATIENCE: Duration = Duration::from_secs(3);
const PAGES_MAX: usize = 100;
const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";

fn client() -> Value {
    json!({ "name": "warden", "version": env!("CARGO_PKG_VERSION") })
}

/// All tools of a server, or a sentence that says why not.
pub async fn tools(
    name: &str,
    server: &Server,
    settings: Settings,
    scanner: &Arc<Scanner>,
) -> Result<Vec<Value>, String> {
    let mut peer = match &server.reach {
        Reach::Command(command) => Peer::child(name, command, settings, scanner)?,
        Reach::Url(server) => Peer::Http { server, headers: HeaderMap::new(), bytes_max: settings.server.bytes_max },
    };
    let tools = peer.both().await.map_err(|e| format!("server `{name}`: {e}"));
    peer.end().await;
    tools
}

async fn within<T>(patience: Duration, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {} s", patience.as_secs()));
    tokio::time::timeout(patience, asked).await.unwrap_or_else(late)
}

enum Peer<'a> {
    Child { child: Child, lines: mpsc::Receiver<Line> },
    Http { server: &'a HttpServer, headers: HeaderMap, bytes_max: usize },
}

impl Peer<'_> {
    fn child(name: &str, command: &ServerCommand, settings: Settings, scanner: &Arc<Scanner>) -> Result<Self, String> {
        let (child, lines) = Child::spawn(name, command, settings.server.bytes_max, scanner)
            .map_err(|e| format!("server `{name}`: cannot start `{}`: {e}", command.program))?;
        Ok(Self::Child { child, lines })
    }

    /// A server of both generations may have other tools in each; of two with one name the legacy one is kept.
    async fn both(&mut self) -> Result<Vec<Value>, String> {
        let patience = match self {
            Self::Child { .. } => CHILD_PATIENCE,
            Self::Http { .. } => URL_PATIENCE,
        };
        let legacy = within(patience, self.legacy()).await;
        match (legacy, within(OTHER_PATIENCE, self.modern()).await) {
            (Ok(mut tools), Ok(others)) => {
                let known: HashSet<String> = tools.iter().map(|tool| tool["name"].to_string()).collect();
                tools.extend(others.into_iter().filter(|tool| !known.contains(&tool["name"].to_string())));
                Ok(tools)
            }
            (Ok(tools), Err(_)) | (Err(_), Ok(tools)) => Ok(tools),
            (Err(legacy), Err(modern)) => Err(format!("{legacy}; {modern}")),
        }
    }

    async fn legacy(&mut self) -> Result<Vec<Value>, String> {
        let hello = json!({ "protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client() });
        let welcome = self.request("initialize", hello).await?;
        if let (Self::Http { headers, .. }, Some(version)) = (&mut *self, welcome["protocolVersion"].as_str())
            && let Ok(version) = HeaderValue::from_str(version)
        {
            headers.insert(VERSION, version);
        }
        self.tell(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
        match welcome.pointer("/capabilities/tools") {
            Some(_) => self.pages(json!({})).await,
            None => Ok(Vec::new()),
        }
    }

    async fn modern(&mut self) -> Result<Vec<Value>, String> {
        let session = match self {
            Self::Http { headers, .. } => {
                headers.insert(VERSION, HeaderValue::from_static(MODERN));
                headers.remove(SESSION)
            }
            Self::Child { .. } => None,
        };
        let meta = json!({ META_VERSION: MODERN, META_CAPABILITIES: {}, META_CLIENT: client() });
        let params = json!({ "_meta": meta });
        // A server that does not know the question would take the next one for a legacy request.
        let tools = match self.request("server/discover", params.clone()).await {
            Ok(_) => self.pages(params).await,
            Err(e) => Err(e),
        };
        if let (Self::Http { headers, .. }, Some(session)) = (self, session) {
            headers.insert(SESSION, session);
            headers.insert(VERSION, HeaderValue::from_static(PROTOCOL_VERSION));
        }
        tools
    }

    async fn pages(&mut self, params: Value) -> Result<Vec<Value>, String> {
        let (mut all, mut params) = (Vec::new(), params);
        for _ in 0..PAGES_MAX {
            let page = self.request("tools/list", params.clone()).await?;
            all.extend(super::list::tools(&page));
            match page.get("nextCursor") {
                Some(next) if !next.is_null() => params["cursor"] = next.clone(),
                _ => return Ok(all),
            }
        }
        Err(format!("its list of tools has no end after {PAGES_MAX} pages"))
    }

    async fn tell(&mut self, message: Value) -> Result<(), String> {
        match self {
            Self::Child { child, .. } => {
                let sent = child.send(Payload::own(message.to_string())).await;
                sent.then_some(()).ok_or_else(|| "it ended before it answered".into())
            }
            Self::Http { .. } => self.post(message, None).await.map(drop),
        }
    }

    async fn request(&mut self, method: &str, params: Value) -> Result<Value, String> {
        let id = format!("warden:{method}");
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        match self {
            Self::Child { .. } => {
                self.tell(message).await?;
                self.answer(method, &id).await
            }
            Self::Http { headers, .. } => {
                if let Ok(method) = HeaderValue::from_str(method) {
                    headers.insert("mcp-method", method);
                }
                self.post(message, Some(&id)).await
            }
        }
    }

    async fn answer(&mut self, method: &str, id: &str) -> Result<Value, String> {
        loop {
            let Self::Child { lines, .. } = self else { return Ok(Value::Null) };
            match lines.recv().await {
                None => return Err(format!("it ended before it answered `{method}`")),
                Some(Line::TooLong) => return Err(format!("its answer to `{method}` is too long")),
                Some(Line::Text(line)) => {
                    let Ok(message) = serde_json::from_slice::<Value>(&line) else { continue };
                    if message.get("method").is_some() {
                        if let Some(asked) = message.get("id") {
                            let no = json!({ "jsonrpc": "2.0", "id": asked, "error": { "code": -32601, "message": "not offered" } });
                            self.tell(no).await?;
                        }
                    } else if message["id"] == id {
                        return result(message, method);
                    }
                }
            }
        }
    }

    /// Sends a message over HTTP, and waits for the answer to `id`, if there is to be one.
    async fn post(&mut self, message: Value, id: Option<&str>) -> Result<Value, String> {
        let Self::Http { server, headers, bytes_max } = self else { return Ok(Value::Null) };
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let response = server
            .send(Method::POST, headers, message.to_string())
            .await
            .map_err(|_| format!("no answer from {}", server.place()))?;
        let (head, mut body) = response.into_parts();
        if let Some(session) = head.headers.get(SESSION) {
            headers.insert(SESSION, session.clone());
        }
        let Some(id) = id else { return Ok(Value::Null) };
        let events =
            head.headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
        let (mut read, mut whole) = (Events::new(*bytes_max), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| format!("it broke off its answer to `{method}`"))?;
            let bytes = frame.into_data().unwrap_or_default();
            if events {
                read.push(&bytes);
                while let Some(item) = read.next_item() {
                    let Item::Event(event) = item else { return Err(format!("its answer to `{method}` is too long")) };
                    let data = event.data.and_then(|data| serde_json::from_str::<Value>(&data).ok());
                    if let Some(message) = data.filter(|message| message["id"] == id && message.get("method").is_none())
                    {
                        return result(message, &method);
                    }
                }
            } else {
                whole.extend_from_slice(&bytes);
                if whole.len() > *bytes_max {
                    return Err(format!("its answer to `{method}` is too long"));
                }
            }
        }
        match serde_json::from_slice::<Value>(&whole) {
            Ok(message) if message.get("result").is_some() || message.get("error").is_some() => {
                result(message, &method)
            }
            _ => Err(format!("it answered `{method}` with status {} and no message", head.status)),
        }
    }

    async fn end(self) {
        match self {
            Self::Child { child, .. } => child.stop(),
            Self::Http { server, headers, .. } if headers.contains_key(SESSION) => {
                let ended = server.send(Method::DELETE, &headers, String::new());
                let _ = tokio::time::timeout(Duration::from_secs(5), ended).await;
            }
            Self::Http { .. } => {}
        }
    }
}

fn result(mut message: Value, method: &str) -> Result<Value, String> {
    match message.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(format!("it answered `{method}` with an error")),
    }
}
