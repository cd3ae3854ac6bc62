//! `warden decide`.

use super::{config, say};
use crate::cli::Global;
use crate::config::Config;
use crate::exit::{ESCALATE, Failure, NO, Outcome};
use std::io::Read;
use std::path::Path;
use warden_adapters::govern;
use warden_adapters::keys::Keys;
use warden_adapters::policy_folder;
use warden_adapters::secrets;
use warden_adapters::world::now;
use warden_core::json::{self, Json, Limits};
use warden_core::mcp::{self, Class, From};
use warden_core::pipeline;
use warden_core::policy::snapshot::Snapshot;
use warden_core::proposal::{Ask, Correlation, Door, Mode, Proposal, Verb};
use warden_core::secrets::Scanner;
use warden_core::verdict::Verdict;

/// The proposal of a file or, of `-`, of stdin.
pub(super) fn proposal(file: &Path) -> Result<Proposal, Failure> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes)?;
    } else {
        bytes = std::fs::read(file).map_err(|e| Failure::invalid(format!("cannot read `{}`: {e}", file.display())))?;
    }
    read(&bytes).map_err(|e| Failure::invalid(format!("`{}`: {e}", file.display())))
}

/// What looks for secret values, as the gateway has it.
pub(super) fn scanner(config: &Config) -> Result<Scanner, Failure> {
    let keys = Keys::open(&config.setup.data_dir)?;
    let engine = secrets::load(&config.setup.data_dir, &keys, &config.secrets)?;
    let scanner = Scanner::new(engine, keys.mac().clone());
    scanner.tick(now());
    Ok(scanner)
}

/// Evaluates one proposal by what decides (or would, at a first start). Records nothing.
pub fn run(global: &Global, file: &Path) -> Outcome {
    let config = config(global)?;
    let proposal = proposal(file)?;
    let site = match policy_folder::applied(&config.setup.data_dir)? {
        Some(site) => site,
        None => govern::read_site(&config.setup)?,
    };
    let snapshot = Snapshot::build(govern::source_at_rest(&config.setup, &site)?).map_err(Failure::invalid)?;
    let scanner = scanner(&config)?;
    let evaluation = pipeline::preview(&snapshot, &proposal, &scanner);
    if global.json {
        say(
            serde_json::json!({ "verdict": evaluation.verdict, "reason": evaluation.reason, "advice": evaluation.advice,
            "policies": evaluation.policies, "errors": evaluation.errors }),
        );
    } else {
        say(format!("{} {}", evaluation.verdict.name(), evaluation.reason));
        for policy in &evaluation.policies {
            say(format!("  policy {policy}"));
        }
        for line in evaluation.advice.iter().chain(&evaluation.errors) {
            say(format!("  {line}"));
        }
    }
    Ok(match evaluation.verdict {
        Verdict::Allow => 0,
        Verdict::Deny => NO,
        Verdict::Escalate => ESCALATE,
    })
}

fn read(bytes: &[u8]) -> Result<Proposal, String> {
    let Json::Object(members) = json::parse(bytes, Limits::default()).map_err(|e| e.to_string())? else {
        return Err("the proposal is not an object".into());
    };
    let (mut worker, mut server, mut tool, mut method) = (None, None, None, None);
    let (mut arguments, mut params) = (Json::Object(vec![]), Json::Object(vec![]));
    for (name, value) in members {
        let text = |value: &Json| value.as_str().map(str::to_owned).ok_or_else(|| format!("`{name}` is not a string"));
        match name.as_str() {
            "worker" => worker = Some(text(&value)?),
            "server" => server = Some(text(&value)?),
            "tool" => tool = Some(text(&value)?),
            "method" => method = Some(text(&value)?),
            "arguments" => arguments = value,
            "params" => params = value,
            other => {
                return Err(format!(
                    "unknown member `{}`: worker, server, tool, arguments, method or params",
                    other.escape_debug()
                ));
            }
        }
    }
    let worker = worker.ok_or("`worker` is missing")?;
    let server = server.ok_or("`server` is missing")?;
    let (ask, method, arguments) = match (tool, method) {
        (Some(name), None) => (Ask::Tool { name }, "tools/call".to_owned(), arguments),
        (None, Some(method)) => {
            let ask = match mcp::class(From::Worker, &method) {
                Class::Gated(verb) => Ask::Verb(verb),
                Class::Chatter => Ask::Verb(Verb::Connect),
                Class::CallTool => return Err("give a call's tool as `tool`".into()),
                Class::Unknown => Ask::Unknown,
            };
            (ask, method, params)
        }
        _ => return Err("give either `tool` or `method`".into()),
    };
    let envelope = Json::String(method.clone());
    Ok(Proposal {
        door: Door::Decide,
        worker,
        connection: String::new(),
        server,
        method,
        ask,
        arguments,
        envelope,
        payload: String::new(),
        caller: None,
        correlation: Correlation::default(),
        mode: Mode::default(),
        barred: None,
    })
}
