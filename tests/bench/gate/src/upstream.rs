//! A small MCP server over HTTP, of both generations, that remembers what it did and forgets its sessions when it ends.

use crate::{Outcome, http};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The header that names a session.
pub(crate) const SESSION: &str = "mcp-session-id";
/// The newest generation with a handshake.
pub(crate) const LEGACY: &str = "2025-11-25";
/// The generation without sessions.
pub(crate) const MODERN: &str = "2026-07-28";
/// What marks a request of that.
pub(crate) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Every answer begins with it: about a kilobyte, as a page of notes would be.
pub(crate) const TEXT: &str = "\
    The harbour office keeps a list of every boat that comes in before noon. Each line of the list holds the name \
    of the boat, the name of the person who steers it, the place where it was last repaired and what it brings: \
    fish, timber, wool or nothing at all. In the afternoon a clerk reads the list aloud, and those who wait on the \
    pier may ask for a berth. Small boats are moored along the inner wall, where the water is quiet even in \
    autumn. Larger ones stay outside until the tide has turned. Nobody pays on the first day. On the second day \
    the fee is due in the morning, and a boat that has not paid is asked to leave with the next tide, which \
    happens perhaps twice in a year. When there is fog the bell on the outer wall is rung every two minutes, and \
    the list is kept in pencil, since the order in which the boats arrive is then not the order in which they are \
    seen. The clerk says that the old lists are in the attic, and that anyone may read them who does not mind the \
    stairs. This line of the list was asked for as: ";

const PIECE: Duration = Duration::from_millis(20);
const COMMENT: Duration = Duration::from_secs(5);

type Body = Either<Full<Bytes>, Channel<Bytes>>;

struct Upstream {
    /// Its time of birth, since no two lives may share a session's id.
    born: u128,
    next: AtomicU64,
    sessions: Mutex<HashSet<String>>,
    log: Option<File>,
}

/// Serves. With a `log`, each executed call is a line of it before it is answered.
pub(crate) async fn serve(port: u16, log: Option<&Path>) -> Outcome<ExitCode> {
    let log = log.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
    let born = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let upstream = Arc::new(Upstream { born, next: AtomicU64::new(1), sessions: Mutex::default(), log });
    http::serve(port, move |request| {
        let upstream = upstream.clone();
        async move { upstream.answer(request).await }
    })
    .await
}

impl Upstream {
    async fn answer(&self, request: Request<Incoming>) -> Outcome<Response<Body>> {
        let session = request.headers().get(SESSION).and_then(|id| id.to_str().ok()).map(str::to_owned);
        match *request.method() {
            Method::POST => {
                let message: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
                self.take(session.as_deref(), &message)
            }
            Method::DELETE => {
                let ended = session.is_some_and(|id| self.sessions().remove(&id));
                Ok(empty(if ended { StatusCode::OK } else { StatusCode::NOT_FOUND }))
            }
            Method::GET if self.log.is_some() => match session {
                Some(id) if self.sessions().contains(&id) => Ok(stream(listening)),
                _ => Ok(empty(StatusCode::NOT_FOUND)),
            },
            _ => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    fn take(&self, session: Option<&str>, message: &Value) -> Outcome<Response<Body>> {
        let (method, params) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
        let modern = params["_meta"][META_VERSION].is_string();
        if method == "initialize" && !modern {
            return Ok(self.begin(&message["id"]));
        }
        match session {
            _ if modern => {}
            None => return Ok(empty(StatusCode::BAD_REQUEST)),
            Some(id) if self.sessions().contains(id) => {}
            Some(_) => return Ok(empty(StatusCode::NOT_FOUND)),
        }
        let Some(id) = message.get("id") else { return Ok(empty(StatusCode::ACCEPTED)) };
        let mut result = match method {
            "server/discover" => json!({ "supportedVersions": [MODERN], "capabilities": { "tools": {} } }),
            "tools/list" => json!({ "tools": self.tools() }),
            "tools/call" => self.call(params)?,
            "ping" => json!({}),
            _ => {
                return Ok(whole(
                    &json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "unknown" } }),
                ));
            }
        };
        if modern {
            result["resultType"] = "complete".into();
            if method != "tools/call" {
                result["ttlMs"] = 0.into();
                result["cacheScope"] = "private".into();
            }
        }
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        match params["_meta"].get("progressToken") {
            Some(token) if self.log.is_some() => {
                let token = token.clone();
                Ok(stream(async move |sender| progress(sender, &token, &answer).await))
            }
            _ => Ok(whole(&answer)),
        }
    }

    fn begin(&self, id: &Value) -> Response<Body> {
        let session = format!("{}-{}", self.born, self.next.fetch_add(1, Ordering::Relaxed));
        let mut response = whole(&json!({ "jsonrpc": "2.0", "id": id, "result": {
            "protocolVersion": LEGACY, "capabilities": { "tools": {} },
            "serverInfo": { "name": "upstream", "version": "1" },
        } }));
        if let Ok(value) = HeaderValue::from_str(&session) {
            response.headers_mut().insert(SESSION, value);
        }
        self.sessions().insert(session);
        response
    }

    /// `erase` is there to be refused.
    fn tools(&self) -> Vec<Value> {
        let names = if self.log.is_some() { &["echo", "erase"][..] } else { &["echo"] };
        let schema = json!({
            "type": "object", "properties": { "text": { "type": "string" } },
            "required": ["text"], "additionalProperties": false,
        });
        names.iter().map(|name| json!({ "name": name, "inputSchema": schema })).collect()
    }

    fn call(&self, params: &Value) -> Outcome<Value> {
        let text = params["arguments"]["text"].as_str().unwrap_or_default();
        if let Some(mut log) = self.log.as_ref() {
            log.write_all(format!("{text}\n").as_bytes())?;
        }
        Ok(json!({ "content": [{ "type": "text", "text": format!("{TEXT}{text}") }] }))
    }

    // Nothing awaits while it is held.
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's own stream: it says now and then that it is there.
async fn listening(mut sender: Sender<Bytes>) {
    while sender.send_data(Bytes::from_static(b": here\n\n")).await.is_ok() {
        tokio::time::sleep(COMMENT).await;
    }
}

/// Two pieces of news, then the answer.
async fn progress(mut sender: Sender<Bytes>, token: &Value, answer: &Value) {
    for step in 1..=2 {
        let params = json!({ "progressToken": token, "progress": step, "total": 2 });
        let news = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
        if sender.send_data(event(&news)).await.is_err() {
            return;
        }
        tokio::time::sleep(PIECE).await;
    }
    let _ = sender.send_data(event(answer)).await;
}

fn event(message: &Value) -> Bytes {
    format!("event: message\ndata: {message}\n\n").into()
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

fn whole(message: &Value) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(message.to_string())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn stream<F: Future<Output = ()> + Send + 'static>(write: impl FnOnce(Sender<Bytes>) -> F) -> Response<Body> {
    let (sender, channel) = Channel::new(4);
    tokio::spawn(write(sender));
    let mut response = Response::new(Either::Right(channel));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}
