//! An MCP client as far as load needs one: it asks, and says exactly what came back.

use crate::Outcome;
use crate::http::Http;
use crate::upstream::{LEGACY, META_VERSION, MODERN, SESSION, TEXT};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

/// How a server is reached.
#[derive(Clone)]
pub(crate) struct Door {
    /// On loopback.
    pub(crate) port: u16,
    /// In the URL.
    pub(crate) path: &'static str,
    /// The worker's.
    pub(crate) token: Option<String>,
    /// Whether without sessions.
    pub(crate) modern: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The tool `echo`, answered at once.
    Echo,
    /// The same, answered as events with news of its progress.
    Progress,
    /// The tool `erase`.
    Erase,
    /// `tools/list`.
    List,
}

/// What came back.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// What it was the answer to.
    id: u64,
    /// All messages of it, in their order.
    messages: Vec<Value>,
}

/// One client with one connection.
pub(crate) struct Client {
    door: Door,
    http: Http,
    session: Option<HeaderValue>,
    next: u64,
}

impl Client {
    /// Connects, without a session.
    pub(crate) async fn connect(door: Door) -> Outcome<Self> {
        Ok(Self { http: Http::connect(door.port).await?, door, session: None, next: 1 })
    }

    /// Begins a session or, where there are none, asks what the server is.
    pub(crate) async fn open(&mut self) -> Outcome<()> {
        self.session = None;
        if self.door.modern {
            let answer = self.request("server/discover", json!({})).await?;
            return answer.result().map(drop);
        }
        let client = json!({ "name": "gate", "version": "1" });
        let params = json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client });
        let message = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let response = self.post("initialize", None, &message).await?;
        let session = response.headers().get(SESSION).cloned();
        Answer::read(0, response).await?.result()?;
        self.session = Some(session.ok_or("no session was given")?);
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let response = self.post("notifications/initialized", None, &message).await?;
        let status = response.status();
        response.into_body().collect().await?;
        if status == StatusCode::ACCEPTED { Ok(()) } else { Err(format!("notifications/initialized: {status}").into()) }
    }

    /// Whether there is a session.
    pub(crate) fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// The server has forgotten the session.
    pub(crate) fn forget(&mut self) {
        self.session = None;
    }

    /// Asks. `text` is the argument of a tool.
    pub(crate) async fn ask(&mut self, ask: Ask, text: &str) -> Outcome<Answer> {
        match ask {
            Ask::Echo => self.request("tools/call", json!({ "name": "echo", "arguments": { "text": text } })).await,
            Ask::Progress => {
                let params = json!({
                    "name": "echo", "arguments": { "text": text }, "_meta": { "progressToken": self.next },
                });
                self.request("tools/call", params).await
            }
            Ask::Erase => self.request("tools/call", json!({ "name": "erase", "arguments": { "text": text } })).await,
            Ask::List => self.request("tools/list", json!({})).await,
        }
    }

    /// Opens the stream of the server's own messages, over a connection of its own.
    pub(crate) async fn listen(&self) -> Outcome<Response<Incoming>> {
        let mut http = Http::connect(self.door.port).await?;
        let response = http.send(self.head(Method::GET).body(Full::default())?).await?;
        if response.status() == StatusCode::OK {
            Ok(response)
        } else {
            Err(format!("GET: {}", response.status()).into())
        }
    }

    /// Ends the session, if there is one.
    pub(crate) async fn close(mut self) -> Outcome<()> {
        if self.session.is_none() {
            return Ok(());
        }
        let response = self.http.send(self.head(Method::DELETE).body(Full::default())?).await?;
        let status = response.status();
        response.into_body().collect().await?;
        if status.is_success() { Ok(()) } else { Err(format!("DELETE: {status}").into()) }
    }

    async fn request(&mut self, method: &str, mut params: Value) -> Outcome<Answer> {
        let id = self.next;
        self.next += 1;
        if self.door.modern {
            params["_meta"][META_VERSION] = MODERN.into();
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let response = self.post(method, message["params"]["name"].as_str(), &message).await?;
        Answer::read(id, response).await
    }

    async fn post(&mut self, method: &str, name: Option<&str>, message: &Value) -> Outcome<Response<Incoming>> {
        let mut head = self.head(Method::POST).header(CONTENT_TYPE, "application/json");
        if self.door.modern {
            head = head.header("mcp-method", method);
            head = name.into_iter().fold(head, |head, name| head.header("mcp-name", name));
        }
        self.http.send(head.body(Full::new(Bytes::from(message.to_string())))?).await
    }

    fn head(&self, method: Method) -> hyper::http::request::Builder {
        let version = if self.door.modern { MODERN } else { LEGACY };
        let head = Request::builder()
            .method(method)
            .uri(self.door.path)
            .header(HOST, format!("127.0.0.1:{}", self.door.port))
            .header(ACCEPT, "application/json, text/event-stream");
        let head =
            self.door.token.iter().fold(head, |head, token| head.header(AUTHORIZATION, format!("Bearer {token}")));
        match &self.session {
            Some(session) => head.header("mcp-protocol-version", version).header(SESSION, session),
            None if self.door.modern => head.header("mcp-protocol-version", version),
            None => head,
        }
    }
}

impl Answer {
    /// Reads it to its end. A body that breaks off ends there.
    async fn read(id: u64, response: Response<Incoming>) -> Outcome<Self> {
        let (head, mut body) = response.into_parts();
        let mut text = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            text.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        }
        let events =
            head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let messages = if events {
            let text = String::from_utf8_lossy(&text);
            text.split("\n\n").filter_map(data).filter_map(|data| serde_json::from_str(&data).ok()).collect()
        } else {
            serde_json::from_slice(&text).into_iter().collect()
        };
        Ok(Self { status: head.status, id, messages })
    }

    /// The final messages: there should be one.
    pub(crate) fn finals(&self) -> impl Iterator<Item = &Value> {
        self.messages.iter().filter(|message| message["id"] == self.id && message.get("method").is_none())
    }

    /// How many pieces of news of this request's progress there are.
    pub(crate) fn progress(&self) -> usize {
        self.messages.iter().filter(|message| message["params"]["progressToken"] == self.id).count()
    }

    /// The one result; what else came is an error.
    pub(crate) fn result(&self) -> Outcome<&Value> {
        let mut finals = self.finals();
        match (finals.next().and_then(|message| message.get("result")), finals.next()) {
            (Some(result), None) if self.status == StatusCode::OK => Ok(result),
            _ => Err(self.shown().into()),
        }
    }

    /// For whoever reads what went wrong.
    pub(crate) fn shown(&self) -> String {
        let messages: Vec<String> = self.messages.iter().map(Value::to_string).collect();
        format!("status {}: {}", self.status, messages.join(" ")).chars().take(400).collect()
    }
}

/// Whether a result echoes the text.
pub(crate) fn echoes(result: &Value, text: &str) -> bool {
    let said = result.pointer("/content/0/text").and_then(Value::as_str);
    said.and_then(|said| said.strip_prefix(TEXT)) == Some(text) && result["isError"] != true
}

/// The data of an event.
fn data(event: &str) -> Option<String> {
    let lines: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
