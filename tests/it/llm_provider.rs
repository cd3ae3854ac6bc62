//! A provider that speaks the APIs and does whatever a prompt tells it to, the worst included; and a site in front of it.

use crate::support::{Running, Site};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Came {
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

/// A provider on loopback, for as long as it is held.
pub struct Provider {
    pub port: u16,
    pub calls: Arc<AtomicUsize>,
    pub came: Arc<Mutex<Vec<Came>>>,
}

impl Provider {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider =
            Self { port: listener.local_addr().unwrap().port(), calls: Arc::default(), came: Arc::default() };
        let (calls, came) = (provider.calls.clone(), provider.came.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (calls, came) = (calls.clone(), came.clone());
                std::thread::spawn(move || drop(serve(stream, &calls, &came)));
            }
        });
        provider
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn last(&self) -> Came {
        self.came.lock().unwrap().last().cloned().unwrap()
    }

    /// The engines of a site in front of it, one of each kind.
    pub fn engines(&self) -> Value {
        let url = format!("http://127.0.0.1:{}", self.port);
        let prices = json!({ "as_of": "2026-11-01", "models": { "*": { "input": 1_000_000, "output": 2_000_000 } } });
        let engine = |kind: &str, url: String, models: &str| {
            json!({ "kind": kind, "url": url, "key": "provider-key", "models": [models], "retries": 0, "prices": prices,
                "max_output_tokens": 100, "context_tokens": 100_000, "timeout_s": 20, "silence_s": 3 })
        };
        json!({
            "mock": engine("openai", format!("{url}/v1"), "gpt-*"),
            "claude": engine("anthropic", url.clone(), "claude-*"),
            "gemini": engine("gemini", url.clone(), "gemini-*"),
            "connect": { "kind": "llm-connect", "url": url, "retries": 0, "models": ["connect-*"], "model": "connect-1", "prices": prices },
        })
    }
}

fn serve(stream: TcpStream, calls: &AtomicUsize, came: &Mutex<Vec<Came>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut headers, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap_or(0);
            }
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        came.lock().unwrap().push(Came { headers, body: body.clone() });
        calls.fetch_add(1, Ordering::SeqCst);
        if !answer(&stream, &path, &body)? {
            return Ok(());
        }
    }
}

/// The body of one request, which is answered with nothing.
pub fn one_post(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim_end().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut to = stream;
    write!(
        to,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    )
    .ok()?;
    serde_json::from_slice(&body).ok()
}

/// What the last prompt says, whatever API it came through.
fn prompt(body: &Value) -> String {
    let last = |name: &str| body[name].as_array().and_then(|all| all.last()).map(Value::to_string);
    let text = last("messages").or_else(|| last("contents")).or_else(|| last("input"));
    text.unwrap_or_else(|| body["prompt"].as_str().or(body["input"].as_str()).unwrap_or_default().to_owned())
}

/// The words of an order, such as `usage=7,3`.
fn order<'p>(prompt: &'p str, name: &str) -> Option<&'p str> {
    let rest = &prompt[prompt.find(&format!("{name}="))? + name.len() + 1..];
    Some(rest.split([' ', '"', '\\']).next().unwrap_or_default())
}

const SECRET: &str = "ghp_aB3daB3daB3daB3daB3daB3daB3daB3daB3d";

fn answer(mut to: &TcpStream, path: &str, body: &Value) -> std::io::Result<bool> {
    let prompt = prompt(body);
    if let Some(ms) = order(&prompt, "wait") {
        std::thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
    }
    if prompt.contains("hang-up-first") {
        return Ok(false);
    }
    let usage: Vec<i64> = order(&prompt, "usage").unwrap_or("5,3").split(',').filter_map(|n| n.parse().ok()).collect();
    let usage = (usage.len() == 2).then(|| (usage[0], usage[1]));
    if let Some(status) = order(&prompt, "status") {
        let text = json!({ "error": { "message": "the provider says no", "type": "x", "code": null } }).to_string();
        write!(
            to,
            "HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        )?;
        return Ok(true);
    }
    let said = if prompt.contains("say-secret") { format!("it is {SECRET} ok") } else { "hello world".to_owned() };
    let streams = body["stream"] == true || path.contains("streamGenerateContent");
    if !streams {
        let text = if prompt.contains("garbage") {
            "<html>busy</html>".to_owned()
        } else {
            whole(path, &said, usage, prompt.contains("call-tool")).to_string()
        };
        write!(
            to,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        )?;
        return Ok(true);
    }
    write!(to, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut chunk = |text: &str| write!(to, "{:x}\r\n{text}\r\n", text.len());
    if prompt.contains("huge-line") {
        let part = "x".repeat(1 << 20);
        chunk("data: \"")?;
        for _ in 0..20 {
            chunk(&part)?;
        }
        chunk("\"\n\n")?;
        chunk("")?;
        return Ok(true);
    }
    let events = events(path, &said, usage, prompt.contains("call-tool"));
    let half = if prompt.contains("half") { events.len() / 2 } else { events.len() };
    for (number, event) in events.iter().enumerate().take(half) {
        if let Some(ms) = order(&prompt, "slow").filter(|_| number > 0) {
            std::thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
        }
        chunk(event)?;
    }
    if prompt.contains("silent") {
        std::thread::sleep(Duration::from_secs(30));
    }
    if half < events.len() {
        return Ok(false);
    }
    chunk("")?;
    Ok(true)
}

fn whole(path: &str, said: &str, usage: Option<(i64, i64)>, calls_tool: bool) -> Value {
    let counts = |input: &str, output: &str| usage.map(|(a, b)| json!({ input: a, output: b }));
    if path.contains("generateContent") {
        let part = if calls_tool {
            json!({ "functionCall": { "name": "wipe", "args": { "path": "/a" } } })
        } else {
            json!({ "text": said })
        };
        return json!({ "candidates": [{ "content": { "role": "model", "parts": [part] }, "finishReason": "STOP" }],
            "usageMetadata": counts("promptTokenCount", "candidatesTokenCount") });
    }
    if path.contains("/messages") {
        let block = if calls_tool {
            json!({ "type": "tool_use", "id": "t", "name": "wipe", "input": { "path": "/a" } })
        } else {
            json!({ "type": "text", "text": said })
        };
        return json!({ "id": "msg", "type": "message", "role": "assistant", "content": [block],
            "stop_reason": if calls_tool { "tool_use" } else { "end_turn" }, "usage": counts("input_tokens", "output_tokens") });
    }
    if path.contains("/responses") {
        let item = if calls_tool {
            json!({ "type": "function_call", "id": "fc", "call_id": "c", "name": "wipe", "arguments": "{}" })
        } else {
            json!({ "type": "message", "id": "m", "role": "assistant", "content": [{ "type": "output_text", "text": said, "annotations": [] }] })
        };
        return json!({ "id": "resp", "object": "response", "output": [item], "usage": counts("input_tokens", "output_tokens") });
    }
    if path.contains("/execute") {
        return json!({ "content": said, "usage": counts("input_tokens", "output_tokens") });
    }
    let message = if calls_tool {
        json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "c", "type": "function", "function": { "name": "wipe", "arguments": "{\"path\":\"/a\"}" } }] })
    } else {
        json!({ "role": "assistant", "content": said })
    };
    json!({ "id": "c", "object": "chat.completion", "vendor": 1.50, "choices": [{ "index": 0, "message": message,
        "finish_reason": if calls_tool { "tool_calls" } else { "stop" } }], "usage": counts("prompt_tokens", "completion_tokens") })
}

/// The same in events. A text comes in pieces of three characters.
fn events(path: &str, said: &str, usage: Option<(i64, i64)>, calls_tool: bool) -> Vec<String> {
    let pieces: Vec<String> =
        said.as_bytes().chunks(3).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    let named = |value: &Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or("x"));
    let plain = |value: &Value| format!("data: {value}\n\n");
    if path.contains("GenerateContent") {
        let mut all: Vec<String> = pieces
            .iter()
            .map(|text| plain(&json!({ "candidates": [{ "content": { "parts": [{ "text": text }] } }] })))
            .collect();
        all.push(plain(&whole("generateContent", "", usage, calls_tool)));
        return all;
    }
    if path.contains("/messages") {
        let (input, output) = usage.unwrap_or((0, 0));
        let mut all = vec![
            named(
                &json!({ "type": "message_start", "message": { "id": "m", "role": "assistant", "content": [], "usage": { "input_tokens": input, "output_tokens": 1 } } }),
            ),
            named(
                &json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
            ),
        ];
        all.extend(pieces.iter().map(|text| {
            named(
                &json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } }),
            )
        }));
        all.push(named(&json!({ "type": "content_block_stop", "index": 0 })));
        if calls_tool {
            all.push(named(&json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "tool_use", "id": "t", "name": "wipe", "input": {} } })));
            all.push(named(&json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "input_json_delta", "partial_json": "{\"path\":\"/a\"}" } })));
            all.push(named(&json!({ "type": "content_block_stop", "index": 1 })));
        }
        all.push(named(&json!({ "type": "message_delta", "delta": { "stop_reason": if calls_tool { "tool_use" } else { "end_turn" } }, "usage": { "output_tokens": output } })));
        all.push(named(&json!({ "type": "message_stop" })));
        return all;
    }
    let chunk = |delta: Value, finish: Option<&str>| {
        plain(
            &json!({ "id": "c", "object": "chat.completion.chunk", "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] }),
        )
    };
    let mut all = vec![chunk(json!({ "role": "assistant", "content": "" }), None)];
    all.extend(pieces.iter().map(|text| chunk(json!({ "content": text }), None)));
    if calls_tool {
        for arguments in ["{\"path\":", "\"/a\"}"] {
            let named = if arguments.starts_with('{') { json!("wipe") } else { json!(null) };
            all.push(chunk(json!({ "tool_calls": [{ "index": 0, "id": named, "function": { "name": named, "arguments": arguments } }] }), None));
        }
    }
    all.push(chunk(json!({}), Some(if calls_tool { "tool_calls" } else { "stop" })));
    if let Some((input, output)) = usage {
        all.push(plain(
            &json!({ "id": "c", "choices": [], "usage": { "prompt_tokens": input, "completion_tokens": output } }),
        ));
    }
    all.push("data: [DONE]\n\n".into());
    all
}

/// A site with every kind of engine; `team` is the budget of `assistant`.
pub struct LlmSite {
    pub site: Site,
    pub provider: Provider,
    pub http: reqwest::Client,
}

impl LlmSite {
    pub fn new(budgets: &Value) -> Self {
        Self::with(budgets, &json!({}))
    }

    /// `more` stands beside everything else in the configuration.
    pub fn with(budgets: &Value, more: &Value) -> Self {
        let provider = Provider::start();
        let site = Site::temporary(&json!({}));
        let this = Self { site, provider, http: reqwest::Client::new() };
        this.configure(budgets, more);
        this
    }

    pub fn configure(&self, budgets: &Value, more: &Value) {
        let mut all = json!({ "engines": self.provider.engines(), "budgets": budgets });
        if budgets.get("team").is_some() {
            all["workers"] = json!({ "assistant": { "groups": ["assistants"], "budget": "team" }, "other": {} });
        }
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        self.site.configure(&json!({}), &all);
    }

    pub fn serve(&self) -> Running {
        self.site.serve()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.site.port)
    }

    pub fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(self.url(path)).bearer_auth(self.site.token()).json(body)
    }

    pub async fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        answered(self.post(path, body).send().await.unwrap()).await
    }

    /// A chat with one message.
    pub async fn chat(&self, text: &str) -> (u16, Value) {
        self.ask("/v1/chat/completions", &chat(text)).await
    }

    /// The text of a stream.
    pub async fn stream(&self, path: &str, body: &Value) -> String {
        self.post(path, body).send().await.unwrap().text().await.unwrap_or_else(|e| format!("broken off: {e}"))
    }

    pub fn operator(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        let text = self.site.ok(&all);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if lines.len() == 1 { lines[0].clone() } else { Value::Array(lines) }
    }

    /// What was spent of the budget `team`, and what is set aside, in tokens.
    pub fn spent(&self) -> (u64, u64) {
        let team = self.operator(&["budget", "show", "team"]);
        (team["spent"]["tokens"].as_u64().unwrap(), team["reserved"]["tokens"].as_u64().unwrap())
    }
}

pub async fn answered(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

pub fn chat(text: &str) -> Value {
    json!({ "model": "gpt-x", "max_tokens": 10, "messages": [{ "role": "user", "content": text }] })
}

/// The same request in each streaming API, and its path.
pub fn streams(text: &str) -> [(&'static str, Value); 3] {
    [
        (
            "/v1/chat/completions",
            json!({ "model": "gpt-x", "stream": true, "max_tokens": 50, "messages": [{ "role": "user", "content": text }] }),
        ),
        (
            "/v1/messages",
            json!({ "model": "claude-x", "stream": true, "max_tokens": 50, "messages": [{ "role": "user", "content": text }] }),
        ),
        (
            "/v1beta/models/gemini-x:streamGenerateContent?alt=sse",
            json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }] }),
        ),
    ]
}
