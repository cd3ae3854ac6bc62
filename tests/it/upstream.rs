//! Servers at a URL that behave well, badly, and like a worker's neighbour.

use crate::support::{PERMIT_ALL, Site, Worker, records, refusal};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use warden_core::journal::record::Body;
use warden_core::outcome::{Happened, Lost, Outcome};

/// One HTTP request, read.
#[derive(Clone, Debug)]
struct Asked {
    head: String,
    body: Value,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        found.map(|line| line.split_once(':').unwrap().1.trim())
    }

    fn tool(&self) -> &str {
        self.body["params"]["name"].as_str().unwrap_or_default()
    }
}

type Log = Arc<Mutex<Vec<Asked>>>;

/// A server of one file: what it answers to a call depends on the tool's name.
struct Server {
    port: u16,
    log: Log,
}

const TOOLS: [&str; 21] = [
    "fine",
    "half",
    "twice",
    "other_id",
    "redirect",
    "leak",
    "leak_event",
    "large",
    "large_leak",
    "large_event",
    "slow",
    "drop",
    "asks",
    "task",
    "unauthorized",
    "garbage",
    "notifies",
    "marked",
    "large_asks",
    "large_fields",
    "hangs",
];

fn token() -> String {
    format!("ghp_{}", "aB3d".repeat(9))
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, log) = (listener.local_addr().unwrap().port(), Log::default());
        let seen = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, seen.clone(), port));
            }
        });
        Self { port, log }
    }

    fn config(&self) -> Value {
        json!({ "up": { "url": format!("http://127.0.0.1:{}/mcp", self.port), "headers": { "Authorization": "Bearer upstream-credential" },
            "tool_timeouts_s": { "slow": 1 } } })
    }

    fn site(&self) -> Site {
        let site = Site::temporary(&self.config());
        site.policies(PERMIT_ALL);
        site
    }

    fn calls(&self, tool: &str) -> Vec<Asked> {
        self.log.lock().unwrap().iter().filter(|asked| asked.tool() == tool).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, log: Log, port: u16) {
    let Some(asked) = read(&mut stream).await else { return };
    log.lock().unwrap().push(asked.clone());
    let id = &asked.body["id"];
    let done = |result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
    let text = |text: &str| done(json!({ "content": [{ "type": "text", "text": text }] }));
    let session = asked.header("mcp-session-id").unwrap_or_default().to_owned();
    if !asked.head.starts_with("POST") {
        return send(&mut stream, "405 Method Not Allowed", "allow: POST\r\n", "").await;
    }
    match asked.body["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let answer = done(
                json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": { "name": "up", "version": "1" } }),
            );
            let session = format!(
                "mcp-session-id: s-{}\r\ncontent-type: application/json\r\nset-cookie: a=b\r\n",
                log.lock().unwrap().len()
            );
            return send(&mut stream, "200 OK", &session, &answer).await;
        }
        "server/discover" if asked.header("mcp-protocol-version") == Some("2026-07-28") => {
            let answer = done(
                json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} }, "ttlMs": 0, "cacheScope": "public" }),
            );
            return send(&mut stream, "200 OK", JSON, &answer).await;
        }
        "tools/list" => {
            let tools: Vec<_> = TOOLS
                .iter()
                .map(|name| json!({ "name": name, "inputSchema": { "type": "object", "properties": {} } }))
                .collect();
            let answer =
                done(json!({ "tools": tools, "ttlMs": 60000, "cacheScope": "public", "resultType": "complete" }));
            return send(&mut stream, "200 OK", JSON, &answer).await;
        }
        "tasks/get" => {
            return send(&mut stream, "200 OK", JSON, &done(json!({ "taskId": "t-1", "status": "working" }))).await;
        }
        method if method.starts_with("notifications/") || asked.body["method"].is_null() => {
            return send(&mut stream, "202 Accepted", "", "").await;
        }
        _ => {}
    }
    if session == "s-over" {
        return send(
            &mut stream,
            "404 Not Found",
            JSON,
            r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"no session"}}"#,
        )
        .await;
    }
    let event = |data: &str| format!("event: message\ndata: {data}\n\n");
    match asked.tool() {
        "half" => {
            raw(&mut stream, "text/event-stream", &format!(": hi\n\nevent: message\ndata: {}", &text("cut")[..20]))
                .await
        }
        "twice" => {
            raw(&mut stream, "text/event-stream", &[event(&text("first")), event(&text("second"))].concat()).await
        }
        "other_id" => send(&mut stream, "200 OK", JSON, r#"{"jsonrpc":"2.0","id":"another","result":{}}"#).await,
        "redirect" => {
            send(&mut stream, "307 Temporary Redirect", &format!("location: http://127.0.0.1:{port}/elsewhere\r\n"), "")
                .await
        }
        "unauthorized" => send(&mut stream, "401 Unauthorized", "www-authenticate: Bearer realm=\"up\"\r\n", "").await,
        "garbage" => send(&mut stream, "200 OK", JSON, "<html>").await,
        "leak" => send(&mut stream, "200 OK", JSON, &text(&token())).await,
        "leak_event" => raw(&mut stream, "text/event-stream", &event(&text(&token()))).await,
        "notifies" => {
            let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": 1, "progress": 1, "x-vendor": 1.50 } });
            raw(
                &mut stream,
                "text/event-stream",
                &[event(&progress.to_string()), format!(": c\nid: 9\nretry: 7\n{}", event(&text("told")))].concat(),
            )
            .await;
        }
        "large" => send(&mut stream, "200 OK", JSON, &text(&"x y ".repeat(1 << 20))).await,
        "large_leak" => {
            let before = "x y ".repeat(700_000);
            send(&mut stream, "200 OK", JSON, &text(&format!("{before} {} {before}", token()))).await;
        }
        "large_event" => {
            raw(
                &mut stream,
                "text/event-stream",
                &format!("id: 7\nevent: message\ndata: {}\n\n", text(&"x y ".repeat(1 << 20))),
            )
            .await
        }
        "slow" => {
            // Until the other side has had enough.
            let mut rest = [0; 1];
            let _ = stream.read(&mut rest).await;
            log.lock()
                .unwrap()
                .push(Asked { head: "closed".into(), body: json!({ "params": { "name": "slow-closed" } }) });
        }
        "marked" => raw(&mut stream, "text/event-stream", &format!("\u{feff}{}", event(&text(&token())))).await,
        "large_asks" => {
            let questions = json!({ "q": { "method": "sampling/createMessage", "params": { "messages": [] } } });
            let result =
                json!({ "pad": " ".repeat(2 << 20), "resultType": "input_required", "inputRequests": questions });
            send(&mut stream, "200 OK", JSON, &done(result)).await;
        }
        "large_fields" => {
            // A line that is no data, in the midst of the data of one event.
            let whole = text(&"x y ".repeat(1 << 20)).replace("\"jsonrpc\"", "\n\"jsonrpc\"");
            let (before, after) = whole.split_at(whole.find('\n').unwrap_or(whole.len() - 1));
            let lines =
                format!("data: {before}\nnote: \"inputRequests\":{{}},\ndata:{after}\n\n").replace("data:\n", "data:");
            raw(&mut stream, "text/event-stream", &lines).await;
        }
        "hangs" => tokio::time::sleep(Duration::from_secs(20)).await,
        "drop" => {}
        "asks" => {
            let questions = json!({ "q": { "method": "sampling/createMessage", "params": { "messages": [] } } });
            send(
                &mut stream,
                "200 OK",
                JSON,
                &done(json!({ "resultType": "input_required", "inputRequests": questions, "requestState": "s" })),
            )
            .await;
        }
        "task" => {
            send(
                &mut stream,
                "200 OK",
                JSON,
                &done(json!({ "task": { "taskId": "t-1", "status": "working", "ttl": null } })),
            )
            .await
        }
        _ => send(&mut stream, "200 OK", JSON, &text("fine")).await,
    }
}

const JSON: &str = "content-type: application/json\r\n";

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let asked = Asked { head, body: Value::Null };
            let length: usize = asked.header("content-length").map_or(0, |n| n.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default();
                return Some(Asked { body, ..asked });
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

async fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
}

/// Until the connection closes.
async fn raw(stream: &mut TcpStream, kind: &str, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{body}");
    let _ = stream.write_all(head.as_bytes()).await;
}

async fn events(worker: &Worker, tool: &str) -> (u16, String) {
    let body = json!({ "jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": { "name": tool } }).to_string();
    let request = worker.http.post(&worker.url).bearer_auth(&worker.token).header("content-type", "application/json");
    let request = request.header("mcp-session-id", worker.session.as_deref().unwrap());
    let response = request.header("accept", "application/json, text/event-stream").body(body).send().await.unwrap();
    let status = response.status().as_u16();
    let mut text = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(chunk)) = futures::StreamExt::next(&mut stream).await {
        text.extend_from_slice(&chunk);
    }
    (status, String::from_utf8(text).unwrap())
}

/// The outcome of a decision.
fn outcome(site: &Site, id: &str) -> Outcome {
    let all = records(&site.data());
    let found = all.into_iter().find_map(|record| match record.body {
        Body::Outcome(outcome) if outcome.decision.as_str() == id => Some(outcome),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no outcome of {id}"))
}

/// The last decision about a tool.
fn decided(site: &Site, tool: &str) -> String {
    let all = crate::support::decisions(&site.data());
    all.iter().rev().find(|d| d.tool.as_deref() == Some(tool)).unwrap().id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_misbehaviour_is_told_and_recorded() {
    let server = Server::start().await;
    let site = server.site();
    let running = site.serve_classified();
    let mut worker = site.worker_of("up").await;
    let answer = worker.call("fine", json!({})).await;
    assert_eq!(answer["result"]["content"][0]["text"], "fine", "{answer}");
    for (tool, kind, happened) in [
        ("half", "no_answer", Happened::Unknown),
        ("other_id", "no_answer", Happened::Unknown),
        ("garbage", "no_answer", Happened::Unknown),
        ("drop", "no_answer", Happened::Unknown),
        ("slow", "no_answer", Happened::Unknown),
        ("leak", "withheld", Happened::Withheld),
    ] {
        let answer = match tool {
            "half" => {
                let (_, text) = events(&worker, tool).await;
                let last = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap();
                serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {text}"))
            }
            _ => worker.call(tool, json!({})).await,
        };
        let (told, id) = refusal(&answer);
        assert_eq!(told, kind, "{tool}: {answer}");
        let id = id.to_owned();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(outcome(&site, &id).happened, happened, "{tool}");
    }
    for (tool, said) in [("redirect", "redirects are not followed"), ("unauthorized", "gateway's credential")] {
        let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": tool } });
        let (status, answer) = worker.raw(body.to_string()).await;
        assert_eq!(status, 502);
        assert!(answer["error"]["message"].as_str().unwrap().contains(said), "{answer}");
    }
    assert!(!server.log.lock().unwrap().iter().any(|asked| asked.head.contains("/elsewhere")));
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_as_they_came() {
    let server = Server::start().await;
    let site = server.site();
    let running = site.serve_classified();
    let worker = site.worker_of("up").await;
    let (_, text) = events(&worker, "notifies").await;
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1,"x-vendor":1.5}}"#;
    let last = r#"{"jsonrpc":"2.0","id":77,"result":{"content":[{"type":"text","text":"told"}]}}"#;
    assert_eq!(
        text,
        format!("event: message\ndata: {progress}\n\n: c\nid: 9\nretry: 7\nevent: message\ndata: {last}\n\n")
    );
    let (_, text) = events(&worker, "twice").await;
    assert!(text.contains("first") && !text.contains("second"), "one id is answered once: {text}");
    let (_, text) = events(&worker, "leak_event").await;
    assert!(text.contains("withheld") && !text.contains(&token()[..8]), "{text}");
    for tool in ["large", "large_event"] {
        let (status, text) = events(&worker, tool).await;
        assert_eq!((status, text.matches("x y ").count()), (200, 1 << 20), "{tool}");
        assert_eq!(text.starts_with("id: 7\nevent: message\ndata: {"), tool == "large_event");
    }
    let (_, text) = events(&worker, "large_leak").await;
    assert!(!text.contains("ghp_") && text.len() < 2_900_000, "{}", text.len());
    running.stop();
    for (tool, happened) in
        [("large", Happened::Done), ("large_event", Happened::Done), ("large_leak", Happened::Withheld)]
    {
        let outcome = outcome(&site, &decided(&site, tool));
        assert_eq!(outcome.happened, happened, "{tool}");
        assert_eq!(outcome.secret_findings.len(), usize::from(happened == Happened::Withheld));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_and_sessions_stay_whose_they_are() {
    let server = Server::start().await;
    let site = server.site();
    let running = site.serve_classified();
    let mut worker = site.worker_of("up").await;
    worker.call("fine", json!({})).await;
    let arrived = server.calls("fine").pop().unwrap();
    assert_eq!(arrived.header("authorization"), Some("Bearer upstream-credential"));
    assert!(!arrived.head.contains(&site.token()));
    assert_eq!(arrived.header("accept-encoding"), Some("identity"));
    // Another worker's session is as unknown as one that never was.
    let issued: Value = serde_json::from_str(&site.ok(&["--json", "token", "issue", "other"])).unwrap();
    let mut other = Worker::new(site.port, "up", issued["token"].as_str().unwrap());
    other.session.clone_from(&worker.session);
    let before = server.log.lock().unwrap().len();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "fine" } }).to_string();
    assert_eq!(other.raw(body.clone()).await.0, 404);
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = other.http.request(method, &other.url).bearer_auth(&other.token);
        let request = request.header("mcp-session-id", other.session.as_deref().unwrap());
        assert_eq!(request.send().await.unwrap().status(), 404);
    }
    other.session = Some("s-never".into());
    assert_eq!(other.raw(body).await.0, 404);
    assert_eq!(server.log.lock().unwrap().len(), before, "nothing of it arrived");
    let version = |version: &str| {
        let request =
            worker.http.post(&worker.url).bearer_auth(&worker.token).header("content-type", "application/json");
        request
            .header("mcp-protocol-version", version.to_owned())
            .body("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}")
            .send()
    };
    for wrong in ["1.0", "2025-11-26", "x"] {
        assert_eq!(version(wrong).await.unwrap().status(), 400, "{wrong}");
    }
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_followed_by_the_worker_who_started_it() {
    let server = Server::start().await;
    let site = server.site();
    let running = site.serve_classified();
    let mut worker = site.worker_of("up").await;
    assert_eq!(worker.call("task", json!({})).await["result"]["task"]["taskId"], "t-1");
    let own = worker.request("tasks/get", json!({ "taskId": "t-1" })).await;
    assert_eq!(own["result"]["status"], "working", "{own}");
    let issued: Value = serde_json::from_str(&site.ok(&["--json", "token", "issue", "other"])).unwrap();
    let mut other = Worker::new(site.port, "up", issued["token"].as_str().unwrap());
    other.open().await;
    for id in ["t-1", "t-2"] {
        let refused = other.request("tasks/get", json!({ "taskId": id })).await;
        assert_eq!(refused["error"]["data"]["kind"], "denied", "{refused}");
    }
    running.stop();
    let all = crate::support::decisions(&site.data());
    assert_eq!(all.iter().filter(|d| d.reason == "task_of_another").count(), 2);
}

/// A modern request, complete.
async fn modern(worker: &Worker, id: u64, tool: &str) -> reqwest::Result<reqwest::Response> {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool, "_meta": meta } });
    let request = worker.http.post(&worker.url).bearer_auth(&worker.token).header("content-type", "application/json");
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
    request
        .header("mcp-name", tool)
        .header("accept", "application/json, text/event-stream")
        .body(body.to_string())
        .send()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_modern_protocol_leaving_cancels_and_questions_are_decided() {
    let server = Server::start().await;
    let site = server.site();
    site.policies("@id(\"all\") permit (principal, action, resource);\n@id(\"no_samples\") @reason(\"no_samples\") forbid (principal, action == Action::\"sample\", resource);\n");
    let running = site.serve_classified();
    let worker = Worker::new(site.port, "up", &site.token());
    let answer: Value = serde_json::from_str(&modern(&worker, 1, "fine").await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "fine", "{answer}");
    let answer: Value = serde_json::from_str(&modern(&worker, 2, "asks").await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(refusal(&answer).0, "denied", "a question that policy forbids does not reach the worker: {answer}");
    assert_eq!(answer["result"]["resultType"], "complete");
    let leaving = tokio::time::timeout(Duration::from_millis(300), modern(&worker, 3, "slow")).await;
    assert!(leaving.is_err(), "it takes longer than that");
    let closed = async {
        while server.calls("slow-closed").is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), closed).await.expect("the server is told by its closed connection");
    running.stop();
    assert_eq!(outcome(&site, &decided(&site, "slow")).happened, Happened::Cancelled);
    let all = crate::support::decisions(&site.data());
    assert!(all.iter().any(|d| d.action == "sample" && d.reason == "no_samples"));
    assert_eq!(all.iter().filter(|d| d.action == "connect").count(), 1, "one connection for all its requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_legacy_protocol_leaving_cancels_nothing() {
    let server = Server::start().await;
    let site = server.site();
    let running = site.serve_classified();
    let worker = site.worker_of("up").await;
    let leaving = tokio::time::timeout(Duration::from_millis(200), events(&worker, "slow")).await;
    assert!(leaving.is_err());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    running.stop();
    // The server had a second of its own time-out, and used it up.
    let outcome = outcome(&site, &decided(&site, "slow"));
    assert_eq!(outcome.happened, Happened::Unknown, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_never_ends_is_given_up() {
    let server = Server::start().await;
    let site = server.site();
    site.configure(&server.config(), &json!({ "limits": { "message_timeout_s": 1, "message_bytes": 4096 } }));
    let running = site.serve();
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).await.unwrap();
    let head = format!(
        "POST /mcp/up HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        site.token()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = vec![0; 256];
    let n = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut said)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&said[..n]).starts_with("HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said[..n]));
    let worker = Worker::new(site.port, "up", &site.token());
    assert_eq!(worker.raw(vec![b'x'; 5000]).await.0, 413);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_reaches_a_worker_that_was_not_looked_at() {
    let server = Server::start().await;
    let site = server.site();
    let running = site.serve_classified();
    let worker = site.worker_of("up").await;
    let (_, text) = events(&worker, "marked").await;
    assert!(text.contains("withheld") && !text.contains("ghp_"), "a byte order mark hides nothing: {text}");
    let (_, text) = events(&worker, "large_asks").await;
    assert!(!text.contains("createMessage"), "a question is no content, however large its result");
    let (_, text) = events(&worker, "large_fields").await;
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
    let read: Value = serde_json::from_str(&data.concat()).unwrap();
    assert!(read["result"].get("inputRequests").is_none());
    assert_eq!(read["result"]["content"][0]["text"].as_str().unwrap().len(), 4 << 20);
    running.stop();
    assert_eq!(outcome(&site, &decided(&site, "marked")).happened, Happened::Withheld);
    assert_eq!(outcome(&site, &decided(&site, "large_asks")).happened, Happened::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_readers_could_read_differently_is_refused() {
    let server = Server::start().await;
    let site = server.site();
    let running = site.serve_classified();
    let worker = site.worker_of("up").await;
    let send = async |kind: &str, more: &[(&str, &str)]| {
        let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": "fine" } });
        let mut request = worker.http.post(&worker.url).bearer_auth(&worker.token).header("content-type", kind);
        request = request.header("mcp-session-id", worker.session.as_deref().unwrap());
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        request.body(body.to_string()).send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("application/json; charset=utf-7", &[]).await, 415);
    assert_eq!(send("application/json", &[("mcp-session-id", "another")]).await, 415);
    assert_eq!(send("application/json", &[("content-type", "text/plain")]).await, 415);
    assert!(server.calls("fine").is_empty());
    assert_eq!(send("application/json; charset=utf-8", &[("mcp-session_id", "x"), ("mcp-name", "other")]).await, 200);
    let arrived = server.calls("fine").pop().unwrap();
    assert_eq!(arrived.header("content-type"), Some("application/json"));
    assert!(!arrived.head.contains("session_id") && arrived.header("mcp-name").is_none(), "{}", arrived.head);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_or_cut_off_by_a_shutdown_has_its_outcome() {
    let server = Server::start().await;
    let site = server.site();
    let settings = json!({ "limits": { "call_timeout_s": 60 } });
    site.configure(&server.config(), &settings);
    let running = site.serve_classified();
    let worker = site.worker_of("up").await;
    let url = worker.url.clone();
    let slow = tokio::spawn(async move {
        let mut worker = worker;
        let answer = worker.call("hangs", json!({})).await;
        (worker, answer)
    });
    while server.calls("hangs").is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let session = server.calls("hangs")[0].header("mcp-session-id").unwrap().to_owned();
    let mut other = Worker::new(site.port, "up", &site.token());
    (other.session, other.url) = (Some(session), url);
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } });
    assert_eq!(other.raw(cancel.to_string()).await.0, 202);
    let (mut worker, _) = slow.await.unwrap();
    let taken_back = decided(&site, "hangs");
    let aborted = tokio::spawn(async move { worker.call("hangs", json!({})).await });
    while server.calls("hangs").len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::task::spawn_blocking(|| running.stop()).await.unwrap();
    aborted.abort();
    assert_eq!(outcome(&site, &taken_back).happened, Happened::Cancelled);
    let aborted = outcome(&site, &decided(&site, "hangs"));
    assert_eq!((aborted.happened, aborted.lost), (Happened::Unknown, Some(Lost::Aborted)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_a_header_that_goes_on_is_found() {
    let server = Server::start().await;
    let site = server.site();
    let running = site.serve_classified();
    let worker = site.worker_of("up").await;
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": "fine" } });
    let request = worker.http.post(&worker.url).bearer_auth(&worker.token).header("content-type", "application/json");
    let request = request.header("mcp-session-id", worker.session.as_deref().unwrap()).header("baggage", token());
    let answer: Value =
        serde_json::from_str(&request.body(body.to_string()).send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(refusal(&answer).0, "denied", "{answer}");
    assert!(server.calls("fine").is_empty());
    running.stop();
}
