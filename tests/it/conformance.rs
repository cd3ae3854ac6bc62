//! The official conformance suite, run against a server directly and through Warden, in both generations and in front of
//! both kinds of server; and every byte of it compared on both sides of the gateway.

use crate::peers::{Peer, node, peers};
use crate::support::{PERMIT_ALL, Site, Worker, number, records, warden};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use warden_core::journal::record::{Body, Record};
use warden_core::outcome::Happened;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(name)
}

/// A helper process that says where it listens.
struct Helper {
    child: Child,
    url: String,
}

impl Helper {
    fn start(script_name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(node());
        command.arg(script(script_name)).args(args).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{script_name}: {e}: {line}"));
        Self { child, url: said["url"].as_str().unwrap().to_owned() }
    }

    fn base(&self) -> &str {
        self.url.strip_suffix("/mcp").unwrap_or(&self.url)
    }

    /// Lets it write down what is open.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Results {
    passed: BTreeSet<String>,
    failed: Vec<Value>,
}

fn suite(url: &str, version: &str, out: &Path) -> Results {
    let mut command = Command::new(node());
    command.arg(script("run.mjs")).args(["--url", url, "--spec-version", version, "--out"]).arg(out);
    command.arg("--conformance").arg(peers().join("node_modules/.bin/conformance")).arg("--node").arg(node());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let passed = said["passed"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    Results { passed, failed: said["failed"].as_array().unwrap().clone() }
}

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";
/// What the fixture itself is to pass, at least.
const EXPECTED: [(&str, usize); 2] = [(LEGACY, 80), (MODERN, 120)];

fn recorded(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A permit-all site in front of the fixture over HTTP (`conf`) and as a child (`child`), with a tap on every side.
struct Bench {
    site: Site,
    _server: Helper,
    upstream: Helper,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Without its own checks of headers: those are to come from the gateway.
        let server = Helper::start("server.mjs", &["--http", "0"]);
        let record = dir.path().join("upstream.ndjson").display().to_string();
        let upstream = Helper::start("tap.mjs", &["--listen", "0", "--to", server.base(), "--record", &record]);
        let lines = dir.path().join("child-%p.ndjson").display().to_string();
        let (node, tap, fixture) = (node(), script("tap.mjs"), script("server.mjs"));
        let servers = json!({
            "conf": { "url": format!("{}/mcp", upstream.base()) },
            "child": { "command": [node, tap, "--stdio", lines, "--", node, fixture, "--stdio"] },
        });
        let site = Site::temporary(&servers);
        site.configure(&servers, &json!({ "limits": { "call_timeout_s": 20, "stream_hold_s": 1 } }));
        site.policies(PERMIT_ALL);
        Self { site, _server: server, upstream, dir }
    }

    /// The worker's side of one server.
    fn worker(&self, server: &str) -> Helper {
        let record = self.dir.path().join(format!("worker-{server}.ndjson")).display().to_string();
        let token = self.site.dir.join("worker.token").display().to_string();
        let (to, path) = (format!("http://127.0.0.1:{}", self.site.port), format!("/mcp/{server}"));
        let args = ["--listen", "0", "--to", &to, "--record", &record, "--bearer", &token, "--upstream-path", &path];
        Helper::start("tap.mjs", &args)
    }
}

#[test]
fn no_check_is_lost_and_no_byte_is_changed() {
    let bench = Bench::new();
    let out = bench.dir.path().join("results");
    let guarded = Helper::start("server.mjs", &["--http", "0", "--guard"]);
    let mut direct = HashMap::new();
    for (version, least) in EXPECTED {
        let results = suite(&guarded.url, version, &out);
        assert!(results.passed.len() >= least, "{version}: {} passed, {:?}", results.passed.len(), results.failed);
        direct.insert(version, results.passed);
    }
    drop(guarded);
    let running = bench.site.serve_classified();
    for server in ["conf", "child"] {
        let worker = bench.worker(server);
        for (version, _) in EXPECTED {
            let through = suite(&worker.url, version, &out);
            // The fixture behind Warden checks no header: what it would fail directly, Warden makes good.
            let lost: Vec<_> = direct[version].difference(&through.passed).collect();
            assert!(lost.is_empty(), "{server} {version}: lost {lost:#?}, failed {:#?}", through.failed);
        }
        worker.stop();
    }
    let Bench { upstream, dir, .. } = bench;
    running.stop();
    upstream.stop();
    let workers = recorded(&dir.path().join("worker-conf.ndjson"));
    same_over_http(&workers, &recorded(&dir.path().join("upstream.ndjson")));
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("child-") {
            lines.extend(recorded(&path));
        }
    }
    let same = same_as_lines(&recorded(&dir.path().join("worker-child.ndjson")), &lines);
    assert!(same > 300, "{same} messages were the same");
}

#[tokio::test]
async fn real_servers_are_carried_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (tap, record) = (script("tap.mjs").display().to_string(), |name: &str| dir.path().join(name));
    let peers = Peer::all(dir.path());
    let mut servers = json!({});
    for peer in &peers {
        let lines = record(&format!("lines-{}.ndjson", peer.name)).display().to_string();
        let mut command = vec![node().display().to_string(), tap.clone(), "--stdio".into(), lines, "--".into()];
        command.extend(peer.command.iter().cloned());
        servers[peer.name] = json!({ "command": command, "env": peer.env() });
        peer.make_world();
    }
    let site = Site::temporary(&servers);
    site.configure(&servers, &json!({ "limits": { "call_timeout_s": 20 } }));
    site.policies(PERMIT_ALL);
    let running = site.serve_classified();
    let token = site.dir.join("worker.token").display().to_string();
    for peer in &peers {
        peer.make_world();
        let file = record(&format!("worker-{}.ndjson", peer.name)).display().to_string();
        let (to, path) = (format!("http://127.0.0.1:{}", site.port), format!("/mcp/{}", peer.name));
        let tap = ["--listen", "0", "--to", &to, "--record", &file, "--bearer", &token, "--upstream-path", &path];
        let tap = Helper::start("tap.mjs", &tap);
        let mut worker = Worker::new(site.port, peer.name, "");
        worker.url.clone_from(&tap.url);
        worker.open().await;
        let tools = worker.request("tools/list", json!({})).await["result"]["tools"].as_array().unwrap().clone();
        assert!(!tools.is_empty());
        for tool in tools {
            let name = tool["name"].as_str().unwrap();
            worker.call(name, peer.arguments(name, &tool["inputSchema"])).await;
        }
        for list in ["resources/list", "resources/templates/list", "prompts/list"] {
            let listed = worker.request(list, json!({})).await;
            for resource in listed["result"]["resources"].as_array().into_iter().flatten().take(5) {
                worker.request("resources/read", json!({ "uri": resource["uri"] })).await;
            }
            for prompt in listed["result"]["prompts"].as_array().into_iter().flatten() {
                worker.request("prompts/get", json!({ "name": prompt["name"], "arguments": {} })).await;
            }
        }
        tap.stop();
    }
    running.stop();
    let mut same = 0;
    for peer in &peers {
        let lines = recorded(&record(&format!("lines-{}.ndjson", peer.name)));
        same += same_as_lines(&recorded(&record(&format!("worker-{}.ndjson", peer.name))), &lines);
    }
    assert!(same > 80, "{same} messages were the same");
}

/// The most memory a process has had, in MiB.
fn peak_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_any_length_takes_the_same_memory() {
    let bench = Bench::new();
    let running = bench.site.serve_classified();
    let mut worker = Worker::new(bench.site.port, "conf", &bench.site.token());
    worker.accept = "application/json, text/event-stream";
    worker.open().await;
    let megabytes = number("WARDEN_LARGE_MB", 160) as u64;
    let before = peak_mb(running.child.id());
    for sse in [false, true] {
        let params = json!({ "name": "big", "arguments": { "bytes": megabytes << 20, "sse": sse } });
        let body = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params }).to_string();
        let request =
            worker.http.post(&worker.url).bearer_auth(&worker.token).header("content-type", "application/json");
        let request = request.header("mcp-session-id", worker.session.as_deref().unwrap());
        let response = request.header("accept", "application/json, text/event-stream").body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let (mut stream, mut bytes) = (response.bytes_stream(), 0);
        while let Some(chunk) = futures::StreamExt::next(&mut stream).await {
            bytes += chunk.unwrap().iter().filter(|b| **b == b'x').count() as u64;
        }
        assert!(bytes >= megabytes << 20, "sse {sse}: {bytes} bytes");
    }
    let grown = peak_mb(running.child.id()) - before;
    assert!(grown < 64, "{grown} MiB for answers of {megabytes} MiB");
    running.stop();
}

/// What a client on stdio gets through `warden mcp SERVER`.
struct Bridged {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Bridged {
    fn new(site: &Site, server: &str) -> Self {
        let mut command = warden();
        command.arg("--config").arg(site.dir.join("warden.yaml")).args(["mcp", server]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn say(&mut self, message: &Value) {
        let mut stdin = self.child.stdin.as_ref().unwrap();
        std::io::Write::write_all(&mut stdin, format!("{message}\n").as_bytes()).unwrap();
    }

    /// The answer to an id; what comes before it is passed over.
    fn answer(&mut self, id: u64) -> Value {
        loop {
            let line: Value = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
            if line["id"] == id && line.get("method").is_none() {
                return line;
            }
        }
    }
}

#[test]
fn clients_on_stdio_are_bridged_in_both_generations() {
    let bench = Bench::new();
    let running = bench.site.serve_classified();
    for server in ["conf", "child"] {
        let mut client = Bridged::new(&bench.site, server);
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {}, "progressToken": "p" });
        let call = |id: u64, tool: &str, arguments: Value| {
            json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
                "params": { "name": tool, "arguments": arguments, "_meta": meta } })
        };
        client.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": { "_meta": meta } }));
        let found = client.answer(1);
        assert_eq!(found["result"]["supportedVersions"][0], MODERN, "{server}: {found}");
        client.say(&call(2, "slow", json!({ "ms": 15_000 })));
        client.say(&call(3, "test_x_mcp_header", json!({ "region": " eu é" })));
        assert_eq!(client.answer(3)["result"]["resultType"], "complete", "nobody waits for the slow one");
        client.say(&call(4, "ticks", json!({ "count": 2, "ms": 5 })));
        let progress = loop {
            let line: Value = serde_json::from_str(&client.lines.next().unwrap().unwrap()).unwrap();
            if line["method"] == "notifications/progress" {
                break line;
            }
        };
        assert_eq!(progress["params"]["progressToken"], "p");
        client.answer(4);
        client.say(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } }));
        drop(client.child.stdin.take());
        client.child.wait().unwrap();

        let mut client = Bridged::new(&bench.site, server);
        let hello =
            json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
        client.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello }));
        assert_eq!(client.answer(1)["result"]["protocolVersion"], LEGACY);
        client.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        let params = json!({ "name": "test_reconnection", "arguments": {} });
        client.say(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params }));
        let answer = client.answer(2);
        assert!(answer["result"]["content"][0]["text"].is_string(), "a stream that ended is taken up: {answer}");
        drop(client.child.stdin.take());
        client.child.wait().unwrap();
    }
    running.stop();
    let all = records(&bench.site.data());
    let slow = |record: &Record| match &record.body {
        Body::Decision(decision) if decision.tool.as_deref() == Some("slow") => Some(decision.id.clone()),
        _ => None,
    };
    let slow: Vec<_> = all.iter().filter_map(slow).collect();
    let happened = |record: &Record| match &record.body {
        Body::Outcome(outcome) if slow.contains(&outcome.decision) => Some(outcome.happened),
        _ => None,
    };
    let happened: Vec<_> = all.iter().filter_map(happened).collect();
    assert_eq!(happened, [Happened::Cancelled, Happened::Cancelled], "giving up reaches the gateway");
}

/// Whatever is not byte for byte the same, and why. Everything else must be.
const EXCEPTIONS: [(&str, &str); 4] = [
    ("tools/list", "a list is each worker's own: what it can never call is left out, and `cacheScope` is private"),
    ("tasks/list", "a list is each worker's own"),
    ("id", "two modern requests with one id are told apart in front of a child: the later one's id is replaced"),
    ("refused", "what Warden refuses never arrives, and the answer is its own"),
];

fn excepted(what: &str) -> bool {
    EXCEPTIONS.iter().any(|(name, _)| *name == what)
}

fn text<'a>(exchange: &'a Value, member: &str) -> &'a str {
    exchange[member].as_str().unwrap_or_default()
}

fn method(body: &str) -> String {
    serde_json::from_str::<Value>(body).ok().and_then(|v| Some(v["method"].as_str()?.to_owned())).unwrap_or_default()
}

/// Answers of Warden itself: its refusals of headers, hosts, sessions and unknown methods.
fn refused(exchange: &Value) -> bool {
    let status = exchange["status"].as_u64().unwrap_or_default();
    (400..500).contains(&status)
}

fn same_over_http(workers: &[Value], upstream: &[Value]) {
    let mut arrived: HashMap<&str, Vec<&Value>> = HashMap::new();
    for exchange in upstream {
        arrived.entry(text(exchange, "request_body")).or_default().push(exchange);
    }
    let (mut same, mut changed) = (0, BTreeSet::new());
    for exchange in workers.iter().filter(|exchange| exchange["method"] == "POST") {
        let body = text(exchange, "request_body");
        let mut none = Vec::new();
        let candidates = arrived.get_mut(body).unwrap_or(&mut none);
        // One request may have been sent often, and been answered differently each time.
        let answer = text(exchange, "response_body");
        let found = candidates
            .iter()
            .position(|other| text(other, "response_body") == answer && other["status"] == exchange["status"]);
        if let Some(found) = found {
            candidates.swap_remove(found);
            same += 1;
            continue;
        }
        if refused(exchange) && excepted("refused") {
            changed.insert("refused".to_owned());
            continue;
        }
        // A worker that leaves has a part of what was on its way.
        let left = exchange["aborted"] == true;
        if left && candidates.iter().any(|other| text(other, "response_body").starts_with(answer)) {
            continue;
        }
        let method = method(body);
        assert!(excepted(&method), "{method}:\n{exchange}\nupstream:\n{candidates:#?}");
        changed.insert(method);
    }
    assert!(same > 150, "{same} exchanges were the same");
    assert!(changed.contains("refused"), "{changed:?}");
}

/// Messages of an answer: the body, or the data of its events.
fn messages(exchange: &Value) -> Vec<String> {
    let body = text(exchange, "response_body");
    let kind = exchange["response_headers"]["content-type"].as_str().unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        return vec![body.to_owned()].into_iter().filter(|body| !body.is_empty()).collect();
    }
    body.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// How many messages are the same on both sides; what is not, and is no exception, is shown.
fn same_as_lines(workers: &[Value], lines: &[Value]) -> usize {
    let said = |from: &str| -> BTreeSet<&str> {
        lines.iter().filter(|line| line["from"] == from).filter_map(|line| line["line"].as_str()).collect()
    };
    let (to_server, to_worker) = (said("client"), said("server"));
    let without_id = |text: &str| {
        let mut value: Value = serde_json::from_str(text).unwrap_or_default();
        value["id"].take();
        value.pointer_mut("/params/_meta/progressToken").map(Value::take);
        value.pointer_mut("/params/progressToken").map(Value::take);
        let subscription = "/params/_meta/io.modelcontextprotocol~1subscriptionId";
        value.pointer_mut(subscription).map(Value::take);
        value.pointer_mut(&subscription.replace("/params", "/result")).map(Value::take);
        value.to_string()
    };
    let renumbered = |set: &BTreeSet<&str>| set.iter().map(|text| without_id(text)).collect::<BTreeSet<_>>();
    let (to_server_any, to_worker_any) = (renumbered(&to_server), renumbered(&to_worker));
    let mut same = 0;
    for exchange in workers.iter().filter(|exchange| !refused(exchange)) {
        let body = text(exchange, "request_body");
        if !body.is_empty() {
            let there = to_server.contains(body);
            assert!(there || (excepted("id") && to_server_any.contains(&without_id(body))), "never arrived: {body}");
            same += usize::from(there);
        }
        for message in messages(exchange) {
            let there = to_worker.contains(message.as_str());
            let renumbered = excepted("id") && to_worker_any.contains(&without_id(&message));
            assert!(there || renumbered || excepted(&method(body)), "nobody said this: {message}\nto {body}");
            same += usize::from(there);
        }
    }
    same
}
