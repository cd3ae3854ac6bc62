//! `warden demo`: the main job, with nothing else installed.

use super::{plain, say};
use crate::cli::{Global, Serve};
use crate::config::{Config, RawAcknowledgements, RawConfig, RawServer, RawWorker};
use crate::exit::{Failure, Outcome};
use crate::gateway::Gateway;
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::broadcast;
use warden_adapters::files::{DataDir, create_private_dir, write_private};
use warden_adapters::govern::Classify;
use warden_adapters::identity::{Identities, Role};
use warden_adapters::journal::Committed;
use warden_adapters::keys::Keys;
use warden_adapters::world::now;
use warden_core::catalogue::Effect;
use warden_core::journal::record::Body;
use warden_core::policy::snapshot::Snapshot;

const WORKER: &str = "demo-worker";
const SERVER: &str = "files";

/// Starts a gateway on the shipped policies in front of the bundled file server, and drives a scripted worker through it.
pub async fn run(global: &Global, once: bool) -> Outcome {
    let (dir, is_temporary) = match &global.data_dir {
        Some(dir) => (dir.clone(), false),
        None => (std::env::temp_dir().join(format!("warden-demo-{}", std::process::id())), true),
    };
    let prepared = prepare(&dir)?;
    let gateway = Gateway::start(&prepared.config, &Serve::default()).await?;
    let shown = show(global.json, &gateway, &prepared).await;
    let shown = match shown {
        Ok(()) if !once => {
            stay(global.json, &gateway, &prepared, &dir);
            super::serve::stopped().await
        }
        other => other,
    };
    gateway.stop().await;
    if is_temporary {
        std::fs::remove_dir_all(&dir)
            .map_err(|e| Failure::failed(format!("cannot remove `{}`: {e}", dir.display())))?;
    }
    shown.map(|()| 0)
}

struct Prepared {
    config: Config,
    token: String,
    token_file: PathBuf,
    sandbox: PathBuf,
}

fn prepare(dir: &Path) -> Result<Prepared, Failure> {
    let (sandbox, policies) = (dir.join("sandbox"), dir.join("policies"));
    create_private_dir(dir)?;
    let lock = DataDir::create(dir)?;
    for folder in [&sandbox, &policies] {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(sandbox.join("welcome.txt"), "This file was read through Warden.\n")?;
    std::fs::write(sandbox.join("report.txt"), "Quarterly numbers: all fine.\n")?;
    for (name, text) in super::init::STARTER {
        std::fs::write(policies.join(name), text)?;
    }
    Keys::create(lock.path())?;
    let mut identities = Identities::load(lock.path())?;
    if identities.operators.is_empty() {
        let operator = identities.add_operator("demo", &now().to_string())?;
        write_private(&dir.join("operator.token"), format!("{operator}\n").as_bytes())?;
    }
    let (token, _) = identities.issue(WORKER, Role::Worker, &now().to_string())?;
    identities.save(lock.path())?;
    let token_file = dir.join("worker.token");
    write_private(&token_file, format!("{token}\n").as_bytes())?;
    let program = std::env::current_exe()?.display().to_string();
    let command = vec![program, "file-server".into(), sandbox.display().to_string()];
    let raw = RawConfig {
        listen: "127.0.0.1:0".into(),
        data_dir: dir.to_owned(),
        policies,
        same_uid: true,
        workers: [(WORKER.to_owned(), RawWorker { groups: vec!["assistants".into()], ..RawWorker::default() })].into(),
        servers: [(SERVER.to_owned(), RawServer { command, ..RawServer::default() })].into(),
        // The scripted worker goes on at once.
        acknowledgements: RawAcknowledgements { wait_s: 0, ..RawAcknowledgements::default() },
        ..serde_saphyr::from_str("{}").map_err(Failure::failed)?
    };
    // Absolute paths are kept as they are.
    let base = std::env::current_dir()?;
    let config = Config::build(raw, &base, None, |_| None).map_err(Failure::invalid)?;
    Ok(Prepared { config, token, token_file, sandbox })
}

/// What the scripted worker tries, with a word on why.
fn script() -> Vec<(&'static str, &'static str, Value)> {
    // Made here, so that no scanner of this repository finds a token in it.
    let token = format!("ghp_{}", "aB3dE5gH7j".repeat(4).chars().take(36).collect::<String>());
    vec![
        ("lists the folder", "list_files", json!({ "path": "." })),
        ("reads a file", "read_file", json!({ "path": "welcome.txt" })),
        ("writes a file", "write_file", json!({ "path": "notes.txt", "text": "hello" })),
        ("deletes a file for good", "delete_file", json!({ "path": "report.txt" })),
        ("leaves the folder", "read_file", json!({ "path": "../../etc/passwd" })),
        ("calls a tool nobody listed", "format_disk", json!({ "path": "/" })),
        ("sends an argument the tool does not know", "read_file", json!({ "path": "welcome.txt", "as_root": true })),
        ("writes a secret into a file", "write_file", json!({ "path": "env.txt", "text": format!("TOKEN={token}") })),
    ]
}

async fn show(as_json: bool, gateway: &Gateway, prepared: &Prepared) -> Result<(), Failure> {
    let talk = |text: &str| {
        if !as_json {
            say(text);
        }
    };
    talk(&format!(
        "Warden serves workers on http://{} in front of the bundled file server ({}).\n",
        gateway.address,
        prepared.sandbox.display()
    ));
    for (tools, effect) in [
        ("files/list_files", Effect::Read),
        ("files/read_file", Effect::Read),
        ("files/write_file", Effect::Write),
        ("files/delete_file", Effect::Irreversible),
    ] {
        let says = Classify { tools: tools.into(), effect: Some(effect), ..Classify::default() };
        gateway.governor.classify("demo", &says).await?;
    }
    let mut records = gateway.gate.ports.journal.committed();
    let url = format!("http://{}/mcp/{SERVER}", gateway.address);
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(prepared.token.clone());
    let transport = StreamableHttpClientTransport::from_config(config);
    let worker = ().serve(transport).await.map_err(|e| Failure::failed(format!("the worker cannot connect: {e}")))?;
    talk("The worker connects");
    print_next(as_json, gateway, &mut records).await?;
    let tools = worker.list_all_tools().await.map_err(Failure::failed)?;
    talk(&format!(
        "The worker lists its tools: {}",
        tools.iter().map(|tool| tool.name.as_ref()).collect::<Vec<_>>().join(", ")
    ));
    print_next(as_json, gateway, &mut records).await?;
    for (what, tool, arguments) in script() {
        talk(&format!("The worker {what}: {tool} {}", plain(&gateway.gate.ports.scanner.hide(&arguments.to_string()))));
        let mut call = CallToolRequestParams::new(tool);
        call.arguments = arguments.as_object().cloned();
        let answer = worker.call_tool(call).await.map_err(Failure::failed)?;
        print_next(as_json, gateway, &mut records).await?;
        let text: String = answer.content.iter().filter_map(|c| c.as_text()).map(|c| c.text.clone()).collect();
        talk(&format!("  it gets  {}\n", plain(text.trim_end())));
    }
    worker.cancel().await.map_err(Failure::failed)?;
    Ok(())
}

/// The next decision that was recorded.
async fn print_next(
    as_json: bool,
    gateway: &Gateway,
    records: &mut broadcast::Receiver<Committed>,
) -> Result<(), Failure> {
    let next = async {
        loop {
            let Committed { seq, record } = records.recv().await.map_err(Failure::failed)?;
            if let Body::Decision(decision) = &record.body {
                return Ok::<_, Failure>((seq, decision.clone()));
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), next).await;
    let (seq, decision) = waited.map_err(|_| Failure::failed("no decision was recorded for what the worker did"))??;
    if as_json {
        let resource = format!(
            "{}::\"{}\"",
            decision.resource["type"].as_str().unwrap_or_default(),
            decision.resource["id"].as_str().unwrap_or_default()
        );
        say(json!({ "id": decision.id, "worker": decision.worker, "action": decision.action, "resource": resource,
            "verdict": decision.verdict, "policies": decision.policies, "reason": decision.reason, "seq": seq }));
        return Ok(());
    }
    let color = |text: &str| {
        let code = match text {
            "allow" => "32",
            "escalate" => "33",
            _ => "31",
        };
        if std::io::stdout().is_terminal() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    say(format!("  {}  {} (record {seq}, decision {})", color(decision.verdict.name()), decision.reason, decision.id));
    let snapshot = gateway.gate.snapshot();
    for policy in &decision.policies {
        say(format!("  by       {policy}{}", place(&snapshot, policy)));
    }
    if let Some(advice) = &decision.advice {
        say(format!("  advice   {advice}"));
    }
    Ok(())
}

fn place(snapshot: &Snapshot, id: &str) -> String {
    let rules = snapshot.layers.iter().flat_map(|layer| &layer.rules);
    rules
        .filter(|rule| rule.policy.id().to_string() == id)
        .map(|rule| format!("  {}:{}", rule.file, rule.line))
        .collect()
}

fn stay(as_json: bool, gateway: &Gateway, prepared: &Prepared, dir: &Path) {
    let text = format!(
        "Warden stays up. Connect an MCP client to http://{}/mcp/{SERVER} with the header\n  Authorization: Bearer $(cat {})\nRead its log:\n  warden --data-dir {} audit tail\nSay yes to what is held:\n  warden --data-dir {} ack list\nStop it with Ctrl-C.",
        gateway.address,
        prepared.token_file.display(),
        dir.display(),
        dir.display()
    );
    if as_json { super::tell(format_args!("{text}")) } else { say(text) }
}
