//! Real MCP servers behind Warden, driven by real clients: every tool answers as it does without Warden.

use crate::support::{PERMIT_ALL, Site, decisions, warden};
use rmcp::model::CallToolRequestParams;
use rmcp::service::{RoleClient, RunningService, ServiceExt};
use rmcp::transport::TokioChildProcess;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `tests/run` has installed them.
pub fn peers() -> PathBuf {
    let dir = std::env::var_os("WARDEN_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers"), PathBuf::from);
    assert!(dir.join("node_modules").exists(), "the peers are not installed: run `tests/run`");
    dir
}

pub fn node() -> PathBuf {
    peers().join("node_modules/.bin/node")
}

fn script(package: &str) -> PathBuf {
    peers().join("node_modules/@modelcontextprotocol").join(package).join("dist/index.js")
}

/// A server's command with a world of its own that can be made anew.
pub struct Peer {
    pub name: &'static str,
    pub command: Vec<String>,
    world: PathBuf,
}

impl Peer {
    pub fn all(dir: &Path) -> Vec<Self> {
        let peer = |name: &'static str, package: &str, args: &[&Path]| {
            let world = dir.join(name);
            let mut command = vec![node().display().to_string(), script(package).display().to_string()];
            command.extend(args.iter().map(|arg| arg.display().to_string()));
            Self { name, command, world }
        };
        let files = dir.join("filesystem");
        vec![
            peer("everything", "server-everything", &[]),
            peer("filesystem", "server-filesystem", &[&files]),
            peer("memory", "server-memory", &[]),
        ]
    }

    pub fn env(&self) -> Value {
        json!({ "MEMORY_FILE_PATH": self.world.join("memory.jsonl") })
    }

    pub fn make_world(&self) {
        let _ = std::fs::remove_dir_all(&self.world);
        std::fs::create_dir_all(self.world.join("folder")).unwrap();
        std::fs::write(self.world.join("a.txt"), "one\ntwo\nthree\n").unwrap();
        std::fs::write(self.world.join("b.txt"), "other\n").unwrap();
    }

    fn direct(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env_clear()
            .envs(["PATH", "HOME", "LANG", "TMPDIR", "USER"].iter().filter_map(|n| Some((n, std::env::var_os(n)?))));
        command.env("MEMORY_FILE_PATH", self.world.join("memory.jsonl"));
        command
    }

    /// A value for each required argument, and for a few others where these say nothing.
    pub fn arguments(&self, tool: &str, schema: &Value) -> Value {
        let path = |name: &str| json!(self.world.join(name).display().to_string());
        match (self.name, tool) {
            ("filesystem", "read_multiple_files") => json!({ "paths": [path("a.txt"), path("b.txt")] }),
            ("filesystem", "write_file") => json!({ "path": path("new.txt"), "content": "written" }),
            ("filesystem", "edit_file") => {
                json!({ "path": path("a.txt"), "edits": [{ "oldText": "two", "newText": "2" }], "dryRun": false })
            }
            ("filesystem", "create_directory") => json!({ "path": path("made") }),
            ("filesystem", "move_file") => json!({ "source": path("b.txt"), "destination": path("moved.txt") }),
            ("filesystem", "search_files") => json!({ "path": path(""), "pattern": "*.txt" }),
            ("filesystem", "read_text_file") => json!({ "path": path("a.txt"), "head": 2 }),
            ("filesystem", name) if name.contains("file") => json!({ "path": path("a.txt") }),
            ("filesystem", "list_allowed_directories") => json!({}),
            ("filesystem", _) => json!({ "path": path("") }),
            ("memory", "create_entities") => {
                json!({ "entities": [{ "name": "n", "entityType": "t", "observations": ["o"] }] })
            }
            ("memory", "create_relations") => {
                json!({ "relations": [{ "from": "n", "to": "n", "relationType": "is" }] })
            }
            ("memory", "add_observations") => json!({ "observations": [{ "entityName": "n", "contents": ["more"] }] }),
            ("everything", "trigger-long-running-operation") => json!({ "duration": 0.2, "steps": 2 }),
            ("everything", "gzip-file-as-resource") => {
                json!({ "name": "x.gz", "data": "data:text/plain;base64,aGVsbG8=", "outputType": "resource" })
            }
            _ => {
                let required = schema["required"].as_array().cloned().unwrap_or_default();
                let sample = |name: &str| {
                    let property = &schema["properties"][name];
                    match (&property["enum"][0], property["type"].as_str()) {
                        (Value::Null, Some("number" | "integer")) => json!(1),
                        (Value::Null, Some("boolean")) => json!(true),
                        (Value::Null, Some("array")) => json!([]),
                        (Value::Null, Some("object")) => json!({}),
                        (Value::Null, _) => json!("text"),
                        (first, _) => first.clone(),
                    }
                };
                required.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), sample(name))).collect()
            }
        }
    }
}

/// What stays the same between two runs: everything but times, sizes of folders and other figures.
fn settled(answer: &Value) -> String {
    let text = serde_json::to_string(answer).unwrap();
    let mut settled = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_digit() => {
                if !settled.ends_with('#') {
                    settled.push('#');
                }
            }
            c => settled.push(c),
        }
    }
    settled
}

type Client = RunningService<RoleClient, ()>;

async fn call_all(peer: &Peer, client: &Client) -> Vec<(String, String)> {
    let mut answers = Vec::new();
    for tool in client.list_all_tools().await.unwrap() {
        let name = tool.name.to_string();
        let schema = serde_json::to_value(&tool.input_schema).unwrap();
        let mut call = CallToolRequestParams::new(name.clone());
        call.arguments = peer.arguments(&name, &schema).as_object().cloned();
        let answer = match tokio::time::timeout(std::time::Duration::from_secs(20), client.call_tool(call))
            .await
            .expect(&name)
        {
            Ok(answer) => serde_json::to_value(answer).unwrap(),
            Err(e) => json!({ "error": e.to_string() }),
        };
        answers.push((name, settled(&answer)));
    }
    answers
}

/// All peers, each with its world, behind a site that permits everything.
fn guarded(dir: &Path) -> (Vec<Peer>, Site) {
    let all = Peer::all(dir);
    let servers: Value =
        all.iter().map(|peer| (peer.name.to_owned(), json!({ "command": peer.command, "env": peer.env() }))).collect();
    all.iter().for_each(Peer::make_world);
    let site = Site::temporary(&servers);
    site.configure(&servers, &json!({ "limits": { "call_timeout_s": 30 } }));
    site.policies(PERMIT_ALL);
    (all, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_of_real_servers_answers_as_it_does_directly() {
    let temp = tempfile::tempdir().unwrap();
    let (all, site) = guarded(temp.path());
    let running = site.serve_classified();
    let mut called = 0;
    for peer in &all {
        peer.make_world();
        let client = ().serve(TokioChildProcess::new(peer.direct()).unwrap()).await.unwrap();
        let direct = call_all(peer, &client).await;
        client.cancel().await.unwrap();
        peer.make_world();
        let mut bridge = tokio::process::Command::from(warden());
        bridge.arg("--config").arg(site.dir.join("warden.yaml")).args(["mcp", peer.name]);
        let client = ().serve(TokioChildProcess::new(bridge).unwrap()).await.unwrap();
        let guarded = call_all(peer, &client).await;
        client.cancel().await.unwrap();
        assert!(direct.len() >= 9, "{}: {} tools", peer.name, direct.len());
        for (one, other) in direct.iter().zip(&guarded) {
            assert_eq!(one, other, "{}", peer.name);
        }
        assert_eq!(direct.len(), guarded.len(), "{}", peer.name);
        called += guarded.len();
    }
    running.stop();
    let recorded = decisions(&site.data()).into_iter().filter(|d| d.tool.is_some()).count();
    assert_eq!(recorded, called, "one decision a call");
    println!("{called} tools of {} servers answered as directly", all.len());
}

/// The official inspector's command line, in front of the bridge.
#[tokio::test(flavor = "multi_thread")]
async fn the_official_inspector_lists_and_calls_through_warden() {
    let temp = tempfile::tempdir().unwrap();
    let (all, site) = guarded(temp.path());
    let running = site.serve_classified();
    for (peer, tool, argument, says) in [
        ("everything", "echo", "message=hello".to_owned(), "hello"),
        ("filesystem", "read_text_file", format!("path={}", all[1].world.join("a.txt").display()), "three"),
        ("memory", "search_nodes", "query=nothing".to_owned(), "entities"),
    ] {
        let listed = inspect(&site, temp.path(), peer, &["--method", "tools/list"]);
        assert!(listed.contains(&format!("\"{tool}\"")), "{peer}: {listed}");
        let called = inspect(
            &site,
            temp.path(),
            peer,
            &["--method", "tools/call", "--tool-name", tool, "--tool-arg", &argument],
        );
        assert!(called.contains(says), "{peer}: {called}");
    }
    running.stop();
}

fn inspect(site: &Site, home: &Path, server: &str, args: &[&str]) -> String {
    let launcher = peers().join("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let output = Command::new(node())
        .arg(launcher)
        .arg("--cli")
        .args(args)
        .arg("--")
        .arg(env!("CARGO_BIN_EXE_warden"))
        .arg("--config")
        .arg(site.dir.join("warden.yaml"))
        .args(["mcp", server])
        .env("HOME", home)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{server} {args:?}: {said}");
    said
}
