//! A gateway as an operator would set it up, and a worker that speaks raw HTTP to it.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use warden_adapters::journal::{OpenError, Reader, Verified, verify};
use warden_adapters::keys::Keys;
use warden_core::decision::{Context, Decision, Enforced};
use warden_core::facts::Mode;
use warden_core::journal::record::{Body, Record};
use warden_core::mac::MacKey;
use warden_core::policy::level::Level;
use warden_core::policy::snapshot::Digests;
use warden_core::proposal::Door;
use warden_core::secrets::Scanner;
use warden_core::verdict::Verdict;

pub const PERMIT_ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";

/// A folder with a configuration, made by `warden init`.
pub struct Site {
    pub dir: PathBuf,
    pub port: u16,
    _temp: Option<tempfile::TempDir>,
}

pub struct Running {
    pub child: Child,
    dir: PathBuf,
}

pub fn warden() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warden"));
    command.env_remove("WARDEN_TOKEN").env_remove("WARDEN_OPERATOR_TOKEN").env("WARDEN_LOG", "warn");
    command
}

pub fn odd_server(effects: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/servers/odd.py");
    json!({ "command": ["python3", script, effects] })
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Site {
    /// With the odd server under the name `odd`, everything permitted.
    pub fn odd() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("site");
        let mut site = Self::at(&dir, &json!({ "odd": odd_server(&dir.join("effects")) }));
        site._temp = Some(temp);
        site.policies(PERMIT_ALL);
        site
    }

    pub fn temporary(servers: &Value) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut site = Self::at(&temp.path().join("site"), servers);
        site._temp = Some(temp);
        site
    }

    pub fn at(dir: &Path, servers: &Value) -> Self {
        let made = warden().args(["init"]).arg(dir).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let site = Self { dir: dir.to_owned(), port: free_port(), _temp: None };
        site.configure(servers, &json!({}));
        site
    }

    /// JSON is YAML.
    pub fn configure(&self, servers: &Value, more: &Value) {
        let mut config = json!({
            "listen": format!("127.0.0.1:{}", self.port), "same_uid": true,
            "workers": { "assistant": { "groups": ["assistants"] }, "other": {} },
            "servers": servers, "limits": { "call_timeout_s": 3 }, "journal": { "segment_mb": 4, "reserved_mb": 1 },
            "acknowledgements": { "wait_s": 0 },
        });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        std::fs::write(self.dir.join("warden.yaml"), config.to_string()).unwrap();
    }

    /// Only this policy.
    pub fn policies(&self, text: &str) {
        for entry in std::fs::read_dir(self.dir.join("policies")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        std::fs::write(self.dir.join("policies/test.cedar"), text).unwrap();
    }

    pub fn run(&self, args: &[&str]) -> Output {
        warden().arg("--config").arg(self.dir.join("warden.yaml")).args(args).output().unwrap()
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn serve(&self) -> Running {
        self.serve_with(&[])
    }

    pub fn serve_with(&self, args: &[&str]) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        let child = warden()
            .arg("--config")
            .arg(self.dir.join("warden.yaml"))
            .arg("serve")
            .args(args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut running = Running { child, dir: self.dir.clone() };
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = running.child.try_wait().unwrap();
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap();
            assert!(ended.is_none(), "the gateway ended: {ended:?} {}", log());
            assert!(started.elapsed() < Duration::from_secs(90), "the gateway does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        running
    }

    /// All tools are classed `write`.
    pub fn serve_classified(&self) -> Running {
        let running = self.serve();
        self.ok(&["tools", "classify", "*", "write"]);
        running
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.dir.join("worker.token")).unwrap().trim().to_owned()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn effects(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("effects")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub async fn worker(&self) -> Worker {
        self.worker_of("odd").await
    }

    pub async fn worker_of(&self, server: &str) -> Worker {
        let mut worker = Worker::new(self.port, server, &self.token());
        worker.open().await;
        worker
    }
}

impl Running {
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end it comes to.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        assert!(status.success(), "{status:?} {log}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Worker {
    pub http: reqwest::Client,
    pub url: String,
    pub token: String,
    pub session: Option<String>,
    pub accept: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    next: u64,
}

pub const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;

impl Worker {
    pub fn new(port: u16, server: &str, token: &str) -> Self {
        let url = format!("http://127.0.0.1:{port}/mcp/{server}");
        Self {
            http: reqwest::Client::new(),
            url,
            token: token.into(),
            session: None,
            accept: "application/json",
            headers: Vec::new(),
            next: 1,
        }
    }

    pub async fn open(&mut self) {
        self.try_open().await.unwrap();
    }

    /// An error when the gateway goes away meanwhile.
    pub async fn try_open(&mut self) -> reqwest::Result<()> {
        let response = self.send(INITIALIZE.as_bytes().to_vec()).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await?;
        assert!(status.is_success(), "{status} {text}");
        self.session = Some(headers["mcp-session-id"].to_str().unwrap().to_owned());
        self.send(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_vec()).await.map(drop)
    }

    pub async fn send(&self, body: Vec<u8>) -> reqwest::Result<reqwest::Response> {
        let mut request = self.http.post(&self.url).bearer_auth(&self.token).header("content-type", "application/json");
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.header("accept", self.accept).body(body).send().await
    }

    /// Status and JSON.
    pub async fn raw(&self, body: impl Into<Vec<u8>>) -> (u16, Value) {
        let response = self.send(body.into()).await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let body = json!({ "jsonrpc": "2.0", "id": self.next, "method": method, "params": params });
        self.raw(body.to_string()).await.1
    }

    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }
}

/// What the refusal of a call says.
pub fn refusal(answer: &Value) -> (&str, &str) {
    let meta = &answer["result"]["_meta"];
    (meta["warden/kind"].as_str().unwrap_or("none"), meta["warden/decision"].as_str().unwrap_or("none"))
}

/// The whole journal, held against its own last checkpoint.
pub fn verified(data: &Path) -> Result<Verified, OpenError> {
    let keys = Keys::open(data).unwrap();
    let anchors = warden::gateway::anchors(data, &keys.verifiers().unwrap(), &[]).unwrap();
    verify(data, &anchors, |_, _| {})
}

/// Every record of a data folder, read from its files.
pub fn records(data: &Path) -> Vec<Record> {
    let mut reader = Reader::new(&data.join("journal"));
    (0..).map_while(|seq| reader.record(seq).unwrap()).collect()
}

pub fn decisions(data: &Path) -> Vec<Decision> {
    let decision = |record: Record| match record.body {
        Body::Decision(decision) => Some(std::sync::Arc::unwrap_or_clone(decision)),
        _ => None,
    };
    records(data).into_iter().filter_map(decision).collect()
}

pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A decision with nothing special about it.
pub fn plain_decision(verdict: Verdict, worker: &str) -> Decision {
    Decision {
        id: warden_adapters::world::decision_id(warden_adapters::world::now()),
        door: Door::Mcp,
        enforced: Enforced::Gateway,
        worker: worker.into(),
        caller: None,
        connection: "c".into(),
        session: None,
        task: None,
        run: None,
        delegate: None,
        level: Level::Facts,
        input_sealed: None,
        server: "s".into(),
        method: "tools/call".into(),
        tool: Some("t".into()),
        engine: None,
        reserved: None,
        history: std::collections::BTreeMap::new(),
        principal: json!({}).into(),
        action: "s/t".into(),
        resource: json!({}).into(),
        context: Context {
            acknowledged: false,
            mode: Mode::Execute,
            secret_findings: vec![],
            suspicions: vec![],
            secret_suspicions: 0,
            unseen: vec![],
            dot_segments: false,
            budget: None,
            task: None,
            session: None,
            input: Value::Null,
        },
        verdict,
        reason: "allowed".into(),
        advice: None,
        policies: vec!["site/p".into()],
        errors: vec![],
        digests: Digests::default().into(),
        payload_tag: String::new(),
        held: None,
        again: None,
        acknowledged: None,
        sealed: None,
        would_be: None,
        repeated: 0,
    }
}

/// A scanner of the shipped catalogue.
pub fn scanner() -> Arc<Scanner> {
    Arc::new(Scanner::shipped(MacKey::new("test", [1; 32])))
}
