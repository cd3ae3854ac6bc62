//! The official SDKs against an independent provider: directly and through Warden, which must make no difference.

use crate::support::Site;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Below target/, where `tests/run` installs them.
fn peers() -> Option<PathBuf> {
    let peers = PathBuf::from(std::env::var_os("WARDEN_PEERS")?);
    peers.join("sdks/bin/python").exists().then_some(peers)
}

struct Provider(Child);

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sdk")
}

#[test]
fn the_official_sdks_see_no_difference_and_no_secret() {
    let Some(peers) = peers() else {
        assert!(std::env::var_os("CI").is_none(), "the SDKs are missing: tests/run installs them");
        println!("the SDKs are not installed: run tests/run");
        return;
    };
    let (port, tap) = (free_port(), free_port());
    let node = peers.join("node_modules/node/bin/node");
    let provider = Command::new(&node)
        .arg(peers.join("node_modules/@copilotkit/aimock/dist/cli.js"))
        .args(["--port", &port.to_string(), "--host", "127.0.0.1", "--fixtures"])
        .arg(script().join("fixtures.json"))
        .env("AIMOCK_API_KEYS", "provider-key")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _provider = Provider(provider);
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(60), "the provider does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let site = Site::temporary(&json!({}));
    let engine = |kind: &str, path: &str, models: &[&str]| json!({ "kind": kind, "url": format!("http://127.0.0.1:{tap}{path}"), "key": "provider-key", "models": models, "retries": 0 });
    site.configure(
        &json!({}),
        &json!({
            "engines": {
                "mock": engine("openai", "/v1", &["gpt-*", "gpt-4o-mini"]),
                "claude": engine("anthropic", "", &["claude-*"]),
                "gemini": engine("gemini", "", &["gemini-*"]),
            },
            "budgets": { "team": { "limits": [{ "tokens": 1_000_000_000 }] } },
            "workers": { "assistant": { "groups": ["assistants"], "budget": "team" }, "other": {} },
        }),
    );
    let running = site.serve();
    for group in [&[][..], &["--group", "refusals"]] {
        let output = Command::new(peers.join("sdks/bin/python"))
            .arg(script().join("run.py"))
            .args([
                "--direct",
                &format!("http://127.0.0.1:{port}"),
                "--through",
                &format!("http://127.0.0.1:{}", site.port),
            ])
            .args(["--tap", &tap.to_string(), "--token-file"])
            .arg(site.dir.join("worker.token"))
            .args(group)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{said}");
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(" passed, 0 failed"), "{said}");
    }
    running.stop();
}
