//! `inbox` and `acknowledgements` of `warden.yaml`.

use super::RawConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use warden_adapters::acks::notify::Notify;
use warden_adapters::inbox::Setup;
use warden_adapters::inbox::brain::Kind;
use warden_adapters::mcp::child::ServerCommand;
use warden_adapters::mcp::server::HttpServer;

/// Acknowledgements of held proposals.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAcknowledgements {
    /// Seconds that the MCP client of a held call waits for a person, before it is told how to go on. Most clients give up after 60.
    pub wait_s: u64,
    /// An address that each held proposal is posted to, as JSON.
    pub webhook: Option<String>,
    /// Headers for it. Credentials belong here, as `${NAME}`.
    pub headers: BTreeMap<String, String>,
    /// A program and its arguments that each held proposal is piped into, as JSON on stdin.
    pub command: Vec<String>,
}

impl Default for RawAcknowledgements {
    fn default() -> Self {
        Self { wait_s: 10, webhook: None, headers: BTreeMap::new(), command: Vec::new() }
    }
}

/// An inbox that a worker handles: `warden worker run`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawInbox {
    /// The worker in whose name it is handled; one of `workers`.
    pub worker: String,
    /// The agent whose messages they are. The worker's name when absent.
    #[serde(default)]
    pub agent: Option<String>,
    /// The hub that has the messages. The one in the data folder when absent: `warden hub send`.
    #[serde(default)]
    pub hub: Option<RawHub>,
    /// A file with the brief: what a brain with a model is told beside Warden's own words.
    #[serde(default)]
    pub brief: Option<PathBuf>,
    /// A file with the routing catalogue, in TOML.
    #[serde(default)]
    pub routing: Option<PathBuf>,
    /// The brain of runs that name none.
    #[serde(default)]
    pub brain: RawBrain,
    /// The engine of a brain with a model; the worker's own when absent.
    #[serde(default)]
    pub engine: Option<String>,
    /// Whether runs may do anything. With `false` there are dry runs alone.
    #[serde(default = "yes")]
    pub execution: bool,
    /// Messages that one run looks at.
    #[serde(default = "messages_max")]
    pub messages_max: usize,
}

/// A hub at a URL.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawHub {
    /// Its base URL, below which `docs/hub.md` names the paths.
    pub url: String,
    /// Headers that every request to it gets. Credentials belong here, as `${NAME}`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// A brain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawBrain {
    /// Fixed rules and the routing catalogue.
    #[default]
    Rule,
    /// A model, with the brief.
    Llm,
}

fn yes() -> bool {
    true
}

fn messages_max() -> usize {
    200
}

/// An inbox, checked.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// How it is handled.
    pub setup: Setup,
    /// The hub at a URL, if it is not the one in the data folder.
    pub hub: Option<Arc<HttpServer>>,
}

/// `LLM_CONNECT_URL` names an engine for the inbox, where the configuration names none.
pub(super) fn engine_of_environment(raw: &mut RawConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    const NAME: &str = "llm-connect";
    let Some(url) = env("LLM_CONNECT_URL").filter(|url| !url.trim().is_empty()) else { return Ok(()) };
    let Some(inbox) = raw.inbox.as_mut().filter(|inbox| inbox.engine.is_none()) else { return Ok(()) };
    inbox.engine = Some(NAME.to_owned());
    if raw.engines.contains_key(NAME) {
        return Ok(());
    }
    let text = serde_json::json!({ "kind": NAME, "url": url.trim().trim_end_matches('/') }).to_string();
    let engine = serde_saphyr::from_str(&text).map_err(|e| format!("LLM_CONNECT_URL: {e}"))?;
    raw.engines.insert(NAME.to_owned(), engine);
    Ok(())
}

type Expand<'e> = &'e dyn Fn(&str, &str) -> Result<String, String>;

fn http(
    key: &str,
    url: &str,
    headers: &BTreeMap<String, String>,
    expand: Expand<'_>,
) -> Result<Arc<HttpServer>, String> {
    let mut all = BTreeMap::new();
    for (name, value) in headers {
        all.insert(name.clone(), expand(&format!("{key}.headers.{name}"), value)?);
    }
    let url = expand(&format!("{key}.url"), url)?;
    HttpServer::new(url.trim_end_matches('/'), &all, None).map(Arc::new).map_err(|e| format!("{key}.{e}"))
}

/// The inbox, if there is one.
pub(super) fn inbox(raw: &RawConfig, base: &Path, expand: Expand<'_>) -> Result<Option<Inbox>, String> {
    let Some(inbox) = &raw.inbox else { return Ok(None) };
    if !raw.workers.contains_key(&inbox.worker) {
        return Err(format!("inbox.worker: `{}` is none of `workers`", inbox.worker.escape_debug()));
    }
    let agent = inbox.agent.clone().unwrap_or_else(|| inbox.worker.clone());
    if agent.is_empty() || agent.len() > 128 || agent.chars().any(char::is_control) {
        return Err("inbox.agent: use 1 to 128 characters".into());
    }
    if let Some(engine) = inbox.engine.as_ref().filter(|engine| !raw.engines.contains_key(*engine)) {
        return Err(format!("inbox.engine: `{}` is none of `engines`", engine.escape_debug()));
    }
    if inbox.messages_max == 0 {
        return Err("inbox.messages_max: 0 would handle nothing".into());
    }
    let file = |key: &str, path: &Option<PathBuf>| match path.as_ref().map(|path| base.join(path)) {
        Some(path) if !path.exists() => Err(format!("inbox.{key}: `{}` is not there", path.display())),
        path => Ok(path),
    };
    Ok(Some(Inbox {
        hub: inbox.hub.as_ref().map(|hub| http("inbox.hub", &hub.url, &hub.headers, expand)).transpose()?,
        setup: Setup {
            agent,
            worker: inbox.worker.clone(),
            brief: file("brief", &inbox.brief)?,
            routing: file("routing", &inbox.routing)?,
            brain: match inbox.brain {
                RawBrain::Rule => Kind::Rule,
                RawBrain::Llm => Kind::Llm,
            },
            engine: inbox.engine.clone(),
            execution: inbox.execution,
            messages_max: inbox.messages_max,
        },
    }))
}

/// Who is told of what is held, and how long its worker waits.
pub(super) fn acknowledgements(raw: &RawAcknowledgements, expand: Expand<'_>) -> Result<(Notify, Duration), String> {
    let key = "acknowledgements";
    if raw.webhook.is_none() && !raw.headers.is_empty() {
        return Err(format!("{key}.headers: they are for a `webhook`"));
    }
    let webhook =
        raw.webhook.as_ref().map(|url| http(&format!("{key}.webhook"), url, &raw.headers, expand)).transpose()?;
    let mut command = Vec::new();
    for (number, part) in raw.command.iter().enumerate() {
        command.push(expand(&format!("{key}.command[{number}]"), part)?);
    }
    let mut parts = command.into_iter();
    let command =
        parts.next().map(|program| ServerCommand { program, args: parts.collect(), env: BTreeMap::new(), cwd: None });
    Ok((Notify { webhook, command }, Duration::from_secs(raw.wait_s)))
}
