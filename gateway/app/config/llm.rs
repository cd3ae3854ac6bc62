//! Engines, budgets and zones in `warden.yaml`.

use super::{RawConfig, RawServer};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use warden_adapters::engines::claude_code::ClaudeCode;
use warden_adapters::engines::over_http::OverHttp;
use warden_adapters::engines::prompt::Adapter;
use warden_adapters::engines::{Engine, Engines, Kind, Zone};
use warden_adapters::http::llm::Given;
use warden_adapters::mcp::child::ServerCommand;
use warden_adapters::mcp::server::HttpServer;
use warden_adapters::pattern::Pattern;
use warden_adapters::secrets::sources::{From as Place, Source};
use warden_core::amount::{Amount, Price, Unit};
use warden_core::budget::{Budget, Budgets, Each, Limit, Per};
use warden_core::llm::Api;
use warden_core::llm::request::Bounds;

/// An engine: an LLM provider that Warden calls with a key of its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEngine {
    /// `openai` (or whatever speaks its APIs at another `url`), `anthropic`, `gemini`, `openrouter`, `llm-connect`, `claude-code`.
    pub kind: String,
    /// Its base URL. The provider's own when absent; `llm-connect` needs one.
    #[serde(default)]
    pub url: Option<String>,
    /// Its key, as `${NAME}`. It is registered as a secret value, and found wherever it appears.
    #[serde(default)]
    pub key: Option<String>,
    /// A file that holds the key, in place of `key`.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Further headers of every request to it.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A file of PEM certificates to trust beside the system's, for `https`.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The program of `claude-code` and its arguments. `claude` when absent.
    #[serde(default)]
    pub command: Vec<String>,
    /// The program's environment, beside PATH, HOME, LANG, TMPDIR and USER.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names of the models that go there; `*` stands for any part. All when absent.
    #[serde(default)]
    pub models: Vec<String>,
    /// The model of prompts (`/execute`) that name none.
    #[serde(default)]
    pub model: Option<String>,
    /// The APIs that it speaks: `chat`, `responses`, `messages`, `gemini`, `execute`. By its kind when absent.
    #[serde(default)]
    pub speaks: Vec<String>,
    /// Where it is, for policies: `resource.zone == "eu"`.
    #[serde(default)]
    pub zone: Option<String>,
    /// What its models cost. A model without a price is refused to workers whose budget counts money.
    #[serde(default)]
    pub prices: Option<RawPrices>,
    /// Tokens of an answer at most, where a request of a worker with a budget says nothing. Warden adds the bound to the request.
    #[serde(default = "default_output")]
    pub max_output_tokens: u64,
    /// Tokens that its models read at most. A request is never taken to use more. When absent, 200000 is assumed for requests that
    /// refer to what they do not hold, such as files and images.
    #[serde(default)]
    pub context_tokens: Option<u64>,
    /// Seconds that a call may take, with everything that is tried for it.
    #[serde(default = "default_timeout")]
    pub timeout_s: u64,
    /// Seconds that it may be silent.
    #[serde(default = "default_silence")]
    pub silence_s: u64,
    /// How often a call is tried again when the engine is busy, broken or gone. Each try is decided, reserved and recorded.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Engines that stand in for it when it fails, in this order. Each is a proposal of its own.
    #[serde(default)]
    pub fallback: Vec<String>,
    /// The member of a Chat Completions request that bounds its answer: `max_completion_tokens` for `openai`, `max_tokens` for others.
    #[serde(default)]
    pub chat_bound: Option<String>,
    /// Whether streams of Chat Completions are asked to tell their usage (`stream_options.include_usage`).
    #[serde(default = "yes")]
    pub asks_usage: bool,
}

/// What models cost.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPrices {
    /// The day on which somebody looked them up, such as 2026-11-01.
    pub as_of: String,
    /// By model; `*` stands for any part, and the longest name that fits counts.
    pub models: BTreeMap<String, RawPrice>,
}

/// Micro-USD for a million tokens: 250000 is 0.25 USD.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPrice {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
    /// Of the prompt, out of the provider's cache. As `input` when absent.
    #[serde(default)]
    pub cached_input: Option<u64>,
    /// Of the prompt, into the provider's cache. As `input` when absent.
    #[serde(default)]
    pub cache_write: Option<u64>,
}

/// A budget: ceilings over what calls may cost.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBudget {
    /// The budget that it is a part of: what it spends, that one spends as well.
    pub parent: Option<String>,
    /// Its ceilings.
    pub limits: Vec<RawLimit>,
    /// Ceilings of each worker in it.
    pub each_worker: Vec<RawLimit>,
    /// Ceilings of each session in it. Calls that name none share one.
    pub each_session: Vec<RawLimit>,
    /// Ceilings of each run in it.
    pub each_run: Vec<RawLimit>,
    /// Ceilings of each task in it.
    pub each_task: Vec<RawLimit>,
    /// What becomes of an answer that turned out dearer than the budget: `withhold` (the default) or `return`.
    pub overshoot: RawOvershoot,
    /// What becomes of the estimate of a call that was sent and of which nobody knows what it used: `settle` (the default) or `release`.
    pub unknown: RawUnknown,
}

/// A ceiling: `tokens` or `micro_usd`, in an `hour`, a `day` (UTC) or a `life`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimit {
    /// Tokens. 0 lets nothing through.
    pub tokens: Option<u64>,
    /// Millionths of a US dollar. 0 lets nothing through.
    pub micro_usd: Option<u64>,
    /// In which time.
    pub per: RawPer,
}

/// A time over which a ceiling counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPer {
    /// The hour, of UTC.
    Hour,
    /// The day, of UTC.
    Day,
    /// For ever.
    #[default]
    Life,
}

/// What becomes of an answer that turned out dearer than its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawOvershoot {
    /// The worker is not given it.
    #[default]
    Withhold,
    /// The worker is given it all the same.
    Return,
}

/// What becomes of an estimate when nobody knows what was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawUnknown {
    /// It counts as spent.
    #[default]
    Settle,
    /// It is given back.
    Release,
}

/// A zone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawZone {
    /// Engines that may be used in it; all but the denied ones when empty.
    pub allow: BTreeSet<String>,
    /// Engines that may not, whatever is allowed.
    pub deny: BTreeSet<String>,
}

fn default_output() -> u64 {
    16_384
}

fn default_timeout() -> u64 {
    600
}

fn default_silence() -> u64 {
    120
}

fn default_retries() -> u32 {
    2
}

fn yes() -> bool {
    true
}

/// What this part of the file comes to.
pub(super) struct Llms {
    pub(super) engines: Engines,
    pub(super) budgets: Budgets,
    pub(super) given: BTreeMap<String, Given>,
    /// Where the engines' keys are, to be registered as secret values.
    pub(super) keys: Vec<Source>,
}

/// A day.
const SECONDS_MAX: u64 = 86_400;

type Expand<'e> = &'e dyn Fn(&str, &str) -> Result<String, String>;

/// Checks it.
pub(super) fn build(raw: &RawConfig, base: &Path, expand: Expand<'_>) -> Result<Llms, String> {
    let (mut engines, mut keys) = (Vec::new(), Vec::new());
    for (id, engine) in &raw.engines {
        let key = format!("engines.{id}");
        fine_name(&key, id)?;
        let (made, source) = self::engine(&key, id, engine, base, expand)?;
        engines.push(made);
        keys.extend(source);
        // Whatever else it is given of the environment may be a credential.
        for name in engine.headers.values().chain(engine.env.values()).flat_map(|value| references(value)) {
            let known = |source: &Source| source.from == Place::Env(name.to_owned());
            let value = expand(&key, &format!("${{{name}}}"))?;
            if is_registrable(&value) && !keys.iter().any(known) {
                let from = Place::Env(name.to_owned());
                keys.push(Source { name: format!("{key}.{name}"), from, lines: false, canary: false });
            }
        }
    }
    let zone = |(name, zone): (&String, &RawZone)| {
        fine_name(&format!("zones.{name}"), name)?;
        Ok((name.clone(), Zone { allow: zone.allow.clone(), deny: zone.deny.clone() }))
    };
    let zones = raw.zones.iter().map(zone).collect::<Result<BTreeMap<_, _>, String>>()?;
    let engines = Engines::new(engines, zones)?;
    let mut budgets = BTreeMap::new();
    for (name, budget) in &raw.budgets {
        let key = format!("budgets.{name}");
        fine_name(&key, name)?;
        budgets.insert(name.clone(), self::budget(&key, budget)?);
    }
    let mut given = BTreeMap::new();
    let mut charged = BTreeMap::new();
    for (name, worker) in &raw.workers {
        let key = format!("workers.{name}");
        if let Some(engine) = worker.engine.as_ref().filter(|engine| engines.get(engine).is_none()) {
            return Err(format!("{key}.engine: there is no engine `{engine}`"));
        }
        if let Some(zone) = worker.zone.as_ref().filter(|zone| !engines.has_zone(zone)) {
            return Err(format!("{key}.zone: there is no zone `{zone}`"));
        }
        if let Some(engine) = worker.engine.as_ref().filter(|engine| !engines.admits(worker.zone.as_deref(), engine)) {
            return Err(format!("{key}.engine: `{engine}` is not allowed in the worker's zone"));
        }
        charged.extend(worker.budget.clone().map(|budget| (name.clone(), budget)));
        let of = Given { engine: worker.engine.clone(), zone: worker.zone.clone(), names_task: worker.names_task };
        given.insert(name.clone(), of);
    }
    let tools = raw.servers.iter().flat_map(|(server, of)| costs(server, of));
    let budgets = Budgets::new(budgets, charged, tools.collect())?;
    Ok(Llms { engines, budgets, given, keys })
}

fn costs<'c>(server: &'c str, of: &'c RawServer) -> impl Iterator<Item = (String, Amount)> + 'c {
    let amount = |cost: &super::RawAmount| Amount { tokens: cost.tokens, micro_usd: cost.micro_usd };
    of.cost.iter().map(move |(tool, cost)| (format!("{server}/{tool}"), amount(cost)))
}

fn fine_name(key: &str, name: &str) -> Result<(), String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match !name.is_empty() && name.len() <= 64 && name.bytes().all(fine) {
        true => Ok(()),
        false => Err(format!("{}: use 1 to 64 letters, digits, `.`, `_`, `-`", key.escape_debug())),
    }
}

fn budget(key: &str, raw: &RawBudget) -> Result<Budget, String> {
    let mut each = BTreeMap::new();
    for (kind, of) in [
        (Each::Worker, &raw.each_worker),
        (Each::Session, &raw.each_session),
        (Each::Run, &raw.each_run),
        (Each::Task, &raw.each_task),
    ] {
        if !of.is_empty() {
            each.insert(kind, limits(&format!("{key}.each_{}", kind.name()), of)?);
        }
    }
    Ok(Budget {
        parent: raw.parent.clone(),
        limits: limits(&format!("{key}.limits"), &raw.limits)?,
        each,
        returns_overshoot: raw.overshoot == RawOvershoot::Return,
        releases_unknown: raw.unknown == RawUnknown::Release,
    })
}

fn limits(key: &str, raw: &[RawLimit]) -> Result<Vec<Limit>, String> {
    let mut all: Vec<Limit> = Vec::new();
    for (number, limit) in raw.iter().enumerate() {
        let per = match limit.per {
            RawPer::Hour => Per::Hour,
            RawPer::Day => Per::Day,
            RawPer::Life => Per::Life,
        };
        let units = [(Unit::Tokens, limit.tokens), (Unit::MicroUsd, limit.micro_usd)];
        let said: Vec<Limit> =
            units.into_iter().filter_map(|(unit, total)| Some(Limit { unit, total: total?, per })).collect();
        if said.is_empty() {
            return Err(format!("{key}[{number}]: say how much, with `tokens`, `micro_usd` or both"));
        }
        if let Some(twice) = said.iter().find(|limit| all.iter().any(|l| l.unit == limit.unit && l.per == limit.per)) {
            return Err(format!("{key}[{number}]: {} per {} is there twice", twice.unit, twice.per));
        }
        all.extend(said);
    }
    Ok(all)
}

fn engine(
    key: &str,
    id: &str,
    raw: &RawEngine,
    base: &Path,
    expand: Expand<'_>,
) -> Result<(Engine, Option<Source>), String> {
    let kind: Kind = raw.kind.parse().map_err(|e| format!("{key}.kind: {e}"))?;
    for (name, value) in [
        ("timeout_s", raw.timeout_s),
        ("silence_s", raw.silence_s),
        ("max_output_tokens", raw.max_output_tokens),
        ("context_tokens", raw.context_tokens.unwrap_or(1)),
    ] {
        if value == 0 {
            return Err(format!("{key}.{name}: 0 would refuse everything"));
        }
    }
    for (name, value) in [("timeout_s", raw.timeout_s), ("silence_s", raw.silence_s)] {
        if value > SECONDS_MAX {
            return Err(format!("{key}.{name}: {value}, and at most {SECONDS_MAX} seconds"));
        }
    }
    let mut speaks: BTreeSet<Api> = kind.speaks().iter().copied().collect();
    if !raw.speaks.is_empty() {
        let said = raw.speaks.iter().map(|api| api.parse::<Api>().map_err(|e| format!("{key}.speaks: {e}")));
        speaks = said.collect::<Result<_, _>>()?;
        if kind == Kind::ClaudeCode && speaks.iter().any(|api| *api != Api::Execute) {
            return Err(format!("{key}.speaks: `claude-code` takes prompts alone (`execute`)"));
        }
    }
    let (http, command, adapter, source) = match kind {
        Kind::ClaudeCode => {
            let command = command(key, raw, base, expand)?;
            let adapter: Arc<dyn Adapter> = Arc::new(ClaudeCode::new(command.clone()));
            (None, Some(command), adapter, None)
        }
        kind => {
            let (http, source) = self::http(key, id, kind, raw, base, expand)?;
            let adapter: Arc<dyn Adapter> = Arc::new(OverHttp::new(kind, raw.chat_bound.clone(), http.clone()));
            (Some(http), None, adapter, source)
        }
    };
    let engine = Engine {
        id: id.to_owned(),
        kind,
        zone: raw.zone.clone().unwrap_or_default(),
        models: raw.models.iter().map(Pattern::new).collect(),
        speaks,
        prices: raw.prices.as_ref().map_or(Ok(Vec::new()), |raw| prices(key, raw))?,
        prices_as_of: raw.prices.as_ref().map(|prices| prices.as_of.clone()).unwrap_or_default(),
        bounds: Bounds { context: raw.context_tokens, output: raw.max_output_tokens },
        timeout: Duration::from_secs(raw.timeout_s),
        silence: Duration::from_secs(raw.silence_s),
        retries: raw.retries,
        fallback: raw.fallback.clone(),
        asks_usage: raw.asks_usage,
        chat_bound: raw.chat_bound.clone(),
        model: raw.model.clone(),
        http,
        command,
        adapter,
    };
    Ok((engine, source))
}

fn command(key: &str, raw: &RawEngine, base: &Path, expand: Expand<'_>) -> Result<ServerCommand, String> {
    if raw.url.is_some() || raw.key.is_some() || raw.key_file.is_some() || !raw.headers.is_empty() {
        return Err(format!(
            "{key}: `claude-code` is a program: it has `command` and `env`, and no `url`, `key` or `headers`"
        ));
    }
    let words = raw.command.iter().enumerate();
    let words = words.map(|(number, word)| expand(&format!("{key}.command[{number}]"), word));
    let mut words = words.collect::<Result<Vec<_>, _>>()?.into_iter();
    let env = raw.env.iter().map(|(name, value)| Ok((name.clone(), expand(&format!("{key}.env.{name}"), value)?)));
    let env = env.collect::<Result<_, String>>()?;
    let program = words.next().unwrap_or_else(|| "claude".into());
    // It does not run in the folder of the configuration, where a path may begin.
    let program = if program.contains('/') { base.join(program).to_string_lossy().into_owned() } else { program };
    Ok(ServerCommand { program, args: words.collect(), env, cwd: None })
}

/// How it is reached, and where its key is.
fn http(
    key: &str,
    id: &str,
    kind: Kind,
    raw: &RawEngine,
    base: &Path,
    expand: Expand<'_>,
) -> Result<(Arc<HttpServer>, Option<Source>), String> {
    if !raw.command.is_empty() || !raw.env.is_empty() {
        return Err(format!("{key}: `command` and `env` are for `claude-code`"));
    }
    let url = match &raw.url {
        Some(url) => expand(&format!("{key}.url"), url)?,
        None => kind.url().ok_or_else(|| format!("{key}.url: say where it is"))?.to_owned(),
    };
    if url.contains('?') {
        return Err(format!("{key}.url: a query there would be lost: give a base URL without one"));
    }
    let is_local = is_local(&url);
    let mut headers = BTreeMap::new();
    for (name, value) in &raw.headers {
        let name = name.to_ascii_lowercase();
        if kind.credential("").0 == name && !value.contains("${") && !is_local {
            return Err(format!("{key}.headers.{name}: give the credential as `${{NAME}}`"));
        }
        let value = expand(&format!("{key}.headers.{name}"), value)?;
        headers.insert(name, value);
    }
    let (secret, place) = match (&raw.key, &raw.key_file) {
        (Some(_), Some(_)) => return Err(format!("{key}: `key` and `key_file` exclude each other")),
        (None, None) => (None, None),
        (Some(said), None) => {
            let variable = said.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            if variable.is_none() && !is_local {
                return Err(format!("{key}.key: give it as `${{NAME}}`, or in a file with `key_file`"));
            }
            (Some(expand(&format!("{key}.key"), said)?), variable.map(|variable| Place::Env(variable.to_owned())))
        }
        (None, Some(file)) => {
            let file = base.join(file);
            let text =
                std::fs::read_to_string(&file).map_err(|e| format!("{key}.key_file: `{}`: {e}", file.display()))?;
            (Some(text.trim().to_owned()), Some(Place::File(file)))
        }
    };
    if secret.as_deref() == Some("") {
        return Err(format!("{key}: its key is empty"));
    }
    // A short or regular one would be found in ordinary text.
    let is_secret = secret.as_deref().is_some_and(is_registrable);
    if let Some(secret) = &secret {
        let (header, value) = kind.credential(secret);
        headers.insert(header.into(), value);
    }
    let ca = raw.ca_file.as_ref().map(|file| base.join(file));
    let http = HttpServer::new(&url, &headers, ca.as_deref()).map_err(|e| format!("{key}.{e}"))?;
    let source = place.filter(|_| is_secret).map(|from| Source {
        name: format!("engines.{id}.key"),
        from,
        lines: false,
        canary: false,
    });
    Ok((Arc::new(http), source))
}

/// Whether an address is on this machine.
fn is_local(url: &str) -> bool {
    let host = url.parse::<axum::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The environment variables that a text refers to.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

/// Whether a key can be told from ordinary text.
fn is_registrable(key: &str) -> bool {
    let different: BTreeSet<u8> = key.bytes().collect();
    key.len() >= 16 && different.len() >= 8
}

fn prices(key: &str, raw: &RawPrices) -> Result<Vec<(Pattern, Price)>, String> {
    if raw.as_of.parse::<jiff::civil::Date>().is_err() {
        let said = raw.as_of.chars().take(32).collect::<String>();
        return Err(format!("{key}.prices.as_of: `{}` is no day such as 2026-11-01", said.escape_debug()));
    }
    let price = |price: &RawPrice| Price {
        input: price.input,
        output: price.output,
        cached_input: price.cached_input.unwrap_or(price.input),
        cache_write: price.cache_write.unwrap_or(price.input),
    };
    let mut all: Vec<_> = raw.models.iter().map(|(model, of)| (Pattern::new(model), price(of))).collect();
    // The longest name first: it says the most.
    all.sort_by_key(|(pattern, _)| (!pattern.is_exact(), std::cmp::Reverse(pattern.as_str().len())));
    Ok(all)
}
