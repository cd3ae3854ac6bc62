//! `warden.yaml`: read strictly ([`RawConfig`]), then made into checked values once ([`Config`]).

mod apps;
mod inbox;
mod llm;
mod raw;

pub use apps::{Declared, RawCompositions};
pub use inbox::{Inbox, RawAcknowledgements, RawBrain, RawHub, RawInbox};
pub use llm::{RawBudget, RawEngine, RawLimit, RawPrice, RawPrices, RawZone};
pub use raw::{
    RawAmount, RawConfig, RawInbound, RawJournal, RawLevel, RawLimits, RawPack, RawRegistered, RawRetention,
    RawSecrets, RawServer, RawTasks, RawTier, RawTraces, RawWitness, RawWorker,
};

use llm::Llms;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use warden_adapters::acks::notify::Notify;
use warden_adapters::compositions::{self as registry, Compositions};
use warden_adapters::engines::Engines;
use warden_adapters::govern::Setup;
use warden_adapters::http::llm::Given;
use warden_adapters::journal::witness::{Target, Witness};
use warden_adapters::journal::{Options, Retain};
use warden_adapters::mcp::Settings;
use warden_adapters::mcp::child::ServerCommand;
use warden_adapters::mcp::server::{HttpServer, Reach, Server};
use warden_adapters::secrets::Sources;
use warden_adapters::secrets::packs::Pack;
use warden_adapters::secrets::sources::{From as Place, Source};
use warden_core::budget::Budgets;
use warden_core::catalogue::server_name;
use warden_core::journal::note::VerifierKey;
use warden_core::json::Limits;
use warden_core::policy::level::{ByAction, Inbound, Level, Levels};
use warden_core::policy::snapshot::{Engine, Worker};

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The worker plane's address.
    pub listen: SocketAddr,
    /// The operator plane's TCP address, if any.
    pub operator_listen: Option<SocketAddr>,
    /// Whether workers may share Warden's user id.
    pub same_uid: bool,
    /// User ids of workers that have one.
    pub uids: BTreeMap<String, Option<u32>>,
    /// Further names of this machine.
    pub allowed_hosts: Vec<String>,
    /// Where callers reach the worker plane, if not at its own address.
    pub public_url: Option<String>,
    /// What decides.
    pub setup: Setup,
    /// How the journal is kept.
    pub journal: Options,
    /// How it is signed.
    pub signing: Signing,
    /// Who keeps what is signed.
    pub witnesses: Vec<Witness>,
    /// What is kept of it.
    pub retain: Retain,
    /// How long proposals are held.
    pub held_for: jiff::SignedDuration,
    /// Who is told of that.
    pub notify: Notify,
    /// The inbox that a worker handles.
    pub inbox: Option<Inbox>,
    /// Where registered values and packs of rules are.
    pub secrets: Sources,
    /// All engines, with their zones.
    pub engines: Arc<Engines>,
    /// All budgets.
    pub budgets: Budgets,
    /// What each worker is given of engines.
    pub given: BTreeMap<String, Given>,
    /// Where traces go.
    pub traces: Option<Arc<HttpServer>>,
    /// All declared apps.
    pub apps: Declared,
}

/// How the log is signed.
#[derive(Clone, Debug)]
pub struct Signing {
    /// Between two checkpoints.
    pub every: Duration,
    /// The log's name, for a new key.
    pub origin: Option<String>,
    /// A key that somebody made.
    pub key: Option<PathBuf>,
}

/// What is wrong with the configuration: a sentence that names the file and the key.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {what}", path.display())]
pub struct Error {
    path: PathBuf,
    what: String,
}

/// The data folder that a file names, whatever else stands in it: what a running gateway is asked and told must not wait until a
/// half-edited configuration is whole again.
pub fn data_dir(path: &Path) -> Result<PathBuf, Error> {
    #[derive(Deserialize)]
    struct Place {
        #[serde(default = "raw::default_data_dir")]
        data_dir: PathBuf,
    }
    let Place { data_dir } = read(path)?;
    Ok(base(path).join(data_dir))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let error = |what: String| Error { path: path.to_owned(), what };
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            error("no such file: make one with `warden init`, or name one with --config".into())
        }
        _ => error(e.to_string()),
    })?;
    serde_saphyr::from_str(&text).map_err(|e| error(e.to_string()))
}

/// Where relative paths in a file start.
fn base(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Config {
    /// Reads a file. Relative paths in it start where the file stands.
    pub fn load(path: &Path, data_dir: Option<&Path>) -> Result<Self, Error> {
        let env = |name: &str| std::env::var(name).ok();
        let built = Self::build(read(path)?, base(path), data_dir, env);
        built.map_err(|what| Error { path: path.to_owned(), what })
    }

    /// Checks a configuration.
    pub fn build(
        mut raw: RawConfig,
        base: &Path,
        data_dir: Option<&Path>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        inbox::engine_of_environment(&mut raw, &env)?;
        let expand = |key: &str, text: &str| expand(text, &env).map_err(|e| format!("{key}: {e}"));
        let address = |key: &str, text: &str| -> Result<SocketAddr, String> {
            let text = expand(key, text)?;
            text.parse().map_err(|_| format!("{key}: `{text}` is not an address such as 127.0.0.1:7171"))
        };
        let mut servers = BTreeMap::new();
        for (name, server) in &raw.servers {
            let key = format!("servers.{name}");
            server_name(name).map_err(|e| format!("{key}: {e}"))?;
            let reach = reach(&key, server, base, &expand)?;
            let mut timeouts = BTreeMap::new();
            for (tool, seconds) in &server.tool_timeouts_s {
                if *seconds == 0 {
                    return Err(format!("{key}.tool_timeouts_s.{tool}: 0 would refuse every answer"));
                }
                timeouts.insert(tool.clone(), Duration::from_secs(*seconds));
            }
            servers.insert(name.clone(), Server { reach, timeouts, own_session: server.own_session });
        }
        let Llms { engines, budgets, given, keys } = llm::build(&raw, base, &expand)?;
        let spoken_of = engines.iter().map(|engine| Engine {
            id: engine.id.clone(),
            kind: engine.kind.name().to_owned(),
            zone: engine.zone.clone(),
        });
        let spoken_of = spoken_of.collect();
        let mut workers = Vec::new();
        for (name, worker) in &raw.workers {
            let fine = |text: &str| {
                !text.is_empty()
                    && text.len() <= 64
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            };
            if let Some(bad) = [name].into_iter().chain(&worker.groups).find(|text| !fine(text)) {
                return Err(format!(
                    "workers.{}: `{}`: use 1 to 64 letters, digits, `.`, `_`, `-`",
                    name.escape_debug(),
                    bad.escape_debug()
                ));
            }
            if let Some(composition) = worker
                .composition
                .as_ref()
                .filter(|name| name.split_once('@').is_none_or(|(slug, version)| slug.is_empty() || version.is_empty()))
            {
                return Err(format!(
                    "workers.{name}.composition: `{}` is no `SLUG@VERSION`",
                    composition.escape_debug()
                ));
            }
            workers.push(Worker {
                name: name.clone(),
                groups: worker.groups.clone(),
                composition: worker.composition.clone(),
                owner: worker.owner.clone(),
            });
        }
        for (key, value) in [
            ("limits.message_bytes", raw.limits.message_bytes),
            ("limits.result_bytes", raw.limits.result_bytes),
            ("limits.depth", raw.limits.depth),
            ("limits.message_timeout_s", usize::try_from(raw.limits.message_timeout_s).unwrap_or(usize::MAX)),
            ("limits.call_timeout_s", usize::try_from(raw.limits.call_timeout_s).unwrap_or(usize::MAX)),
            ("limits.stream_hold_s", usize::try_from(raw.limits.stream_hold_s).unwrap_or(usize::MAX)),
            ("journal.queue_max", raw.journal.queue_max),
            ("journal.segment_mb", raw.journal.segment_mb as usize),
            ("journal.checkpoint_every_s", usize::try_from(raw.journal.checkpoint_every_s).unwrap_or(usize::MAX)),
            ("journal.retention.days", raw.journal.retention.days.map_or(1, |days| days as usize)),
            (
                "journal.retention.mb",
                raw.journal.retention.mb.map_or(1, |mb| usize::try_from(mb).unwrap_or(usize::MAX)),
            ),
        ] {
            if value == 0 {
                return Err(format!("{key}: 0 would refuse everything"));
            }
        }
        if raw.limits.message_bytes > 8 << 20 {
            return Err(format!(
                "limits.message_bytes: {}: a held message must fit into a record, so at most 8388608",
                raw.limits.message_bytes
            ));
        }
        let operator_listen =
            raw.operator_listen.as_deref().map(|text| address("operator_listen", text)).transpose()?;
        if operator_listen.is_some_and(|address| !address.ip().is_loopback()) {
            return Err("operator_listen: operators are reached over loopback only".into());
        }
        // A default need not be there; what somebody named must be, or rules about it would silently match nothing.
        let named = |key: &str, given: Option<&Path>, default: &str| match given.map(|path| base.join(path)) {
            Some(path) if !path.exists() => Err(format!("{key}: `{}` is not there", path.display())),
            Some(path) => Ok(path),
            None => Ok(base.join(default)),
        };
        let public_url = raw.public_url.as_deref().map(|url| expand("public_url", url)).transpose()?;
        if let Some(url) = &public_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            return Err(format!("public_url: `{url}` is not `http://…` or `https://…`"));
        }
        if let Some(origin) = raw.journal.origin.as_ref().filter(|origin| {
            origin.is_empty() || origin.contains(|c: char| c == '+' || c.is_whitespace() || c.is_control())
        }) {
            return Err(format!("journal.origin: `{}`: a name without spaces and `+`", origin.escape_debug()));
        }
        let mut witnesses = Vec::new();
        for (number, witness) in raw.witness.iter().enumerate() {
            witnesses.push(self::witness(&format!("witness[{number}]"), witness, base, &expand)?);
        }
        let level = |level: RawLevel| match level {
            RawLevel::Facts => Level::Facts,
            RawLevel::Sealed => Level::Sealed,
            RawLevel::Metadata => Level::Metadata,
        };
        let levels = raw.journal.levels.iter().map(|(name, of)| (name.clone(), level(*of))).collect();
        let levels = Levels::new(levels);
        let inbound = |inbound: RawInbound| match inbound {
            RawInbound::Withhold => Inbound::Withhold,
            RawInbound::Redact => Inbound::Redact,
        };
        let results =
            ByAction::new(raw.secrets.results.iter().map(|(name, of)| (name.clone(), inbound(*of))).collect());
        let packs = raw.secrets.packs.iter();
        let packs = packs.map(|pack| Pack { file: base.join(&pack.file), is_weak: pack.tier == RawTier::Suspicion });
        let mut secrets = Sources { packs: packs.collect(), ..Sources::default() };
        for (number, source) in raw.secrets.registered.iter().enumerate() {
            secrets.registered.push(registered(&format!("secrets.registered[{number}]"), source, base)?);
        }
        secrets.registered.extend(keys);
        let traces = raw.traces.as_ref().map(|traces| {
            let mut headers = BTreeMap::new();
            for (name, value) in &traces.headers {
                headers.insert(name.clone(), expand(&format!("traces.headers.{name}"), value)?);
            }
            let url = expand("traces.url", &traces.url)?;
            HttpServer::new(&url, &headers, None).map(Arc::new).map_err(|e| format!("traces.{e}"))
        });
        let apps = apps::declared(&raw, base)?;
        let model_classes = apps::model_classes(&raw)?;
        let inbox = inbox::inbox(&raw, base, &expand)?;
        let (notify, held_wait) = inbox::acknowledgements(&raw.acknowledgements, &expand)?;
        Ok(Self {
            engines: Arc::new(engines),
            budgets,
            given,
            traces: traces.transpose()?,
            listen: address("listen", &raw.listen)?,
            operator_listen,
            same_uid: raw.same_uid,
            uids: raw.workers.iter().map(|(name, worker)| (name.clone(), worker.uid)).collect(),
            allowed_hosts: raw.allowed_hosts,
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            setup: Setup {
                data_dir: data_dir.map_or_else(|| base.join(&raw.data_dir), Path::to_owned),
                policy_dir: base.join(&raw.policies),
                schema_dir: named("schemas", raw.schemas.as_deref(), "schemas/site")?,
                entities_file: named("entities", raw.entities.as_deref(), "entities.json")?,
                workers,
                servers,
                engines: spoken_of,
                apps: apps.shapes.clone(),
                model_classes,
                inboxes: inbox.iter().map(|inbox| inbox.setup.agent.clone()).collect(),
                reserved_keys: raw.tasks.reserved_keys.clone(),
                settings: Settings {
                    worker: Limits { bytes_max: raw.limits.message_bytes, depth_max: raw.limits.depth },
                    server: Limits { bytes_max: raw.limits.result_bytes, depth_max: 128 },
                    message_timeout: Duration::from_secs(raw.limits.message_timeout_s),
                    call_timeout: Duration::from_secs(raw.limits.call_timeout_s),
                    stream_hold: Duration::from_secs(raw.limits.stream_hold_s),
                    held_wait,
                    ..Settings::default()
                },
                levels,
                results,
            },
            secrets,
            journal: Options {
                segment_bytes: u64::from(raw.journal.segment_mb) << 20,
                reserved_bytes: u64::from(raw.journal.reserved_mb) << 20,
                queue_max: raw.journal.queue_max,
                ..Options::default()
            },
            signing: Signing {
                every: Duration::from_secs(raw.journal.checkpoint_every_s),
                origin: raw.journal.origin,
                key: raw.journal.checkpoint_key.map(|path| base.join(path)),
            },
            witnesses,
            retain: Retain {
                age: raw.journal.retention.days.map(|days| Duration::from_secs(u64::from(days) * 86_400)),
                bytes: raw.journal.retention.mb.map(|mb| mb.saturating_mul(1 << 20)),
            },
            notify,
            inbox,
            apps,
            held_for: jiff::SignedDuration::from_hours(i64::from(raw.held_for_h)),
        })
    }

    /// The registered compositions of the data folder.
    pub fn compositions(&self) -> std::io::Result<Compositions> {
        registry::load(&self.setup.data_dir, &self.setup.classes())
    }

    /// Workers that share Warden's user id although `same_uid` is not set.
    pub fn workers_with_our_uid(&self) -> Vec<&str> {
        let own = rustix::process::getuid().as_raw();
        let shares = |uid: &Option<u32>| uid.is_none_or(|uid| uid == own);
        if self.same_uid {
            Vec::new()
        } else {
            self.uids.iter().filter(|(_, uid)| shares(uid)).map(|(name, _)| name.as_str()).collect()
        }
    }
}

/// Where checkpoints go.
fn witness(
    key: &str,
    witness: &RawWitness,
    base: &Path,
    expand: &impl Fn(&str, &str) -> Result<String, String>,
) -> Result<Witness, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in &witness.headers {
        headers.insert(name.clone(), expand(&format!("{key}.headers.{name}"), value)?);
    }
    let http = |what: &str, url: &str, path: &str| {
        let url = expand(&format!("{key}.{what}"), url)?;
        let server = HttpServer::new(&format!("{}{path}", url.trim_end_matches('/')), &headers, None);
        server.map(Arc::new).map_err(|e| format!("{key}.{what}: {e}"))
    };
    match witness {
        RawWitness { file: Some(file), url: None, tlog: None, key: None, .. } => {
            let file = base.join(expand(&format!("{key}.file"), &file.to_string_lossy())?);
            Ok(Witness { name: file.display().to_string(), target: Target::File(file) })
        }
        RawWitness { file: None, url: Some(url), tlog: None, key: None, .. } => {
            let http = http("url", url, "")?;
            // The path may hold a credential; two endpoints of one host are two witnesses.
            let hash = warden_core::catalogue::sha256_hex(url.as_bytes());
            Ok(Witness { name: format!("{}#{}", http.place(), &hash[7..15]), target: Target::Http(http) })
        }
        RawWitness { file: None, url: None, tlog: Some(tlog), key: Some(verifier), .. } => {
            let verifier = VerifierKey::parse(verifier).map_err(|e| format!("{key}.key: {e}"))?;
            let http = http("tlog", tlog, "/add-checkpoint")?;
            Ok(Witness { name: verifier.name().to_owned(), target: Target::Tlog(http, verifier) })
        }
        _ => Err(format!("{key}: give one of `file`, `url`, or `tlog` with `key`")),
    }
}

/// How a server is reached.
fn reach(
    key: &str,
    server: &RawServer,
    base: &Path,
    expand: &impl Fn(&str, &str) -> Result<String, String>,
) -> Result<Reach, String> {
    let expand_all = |what: &str, texts: &BTreeMap<String, String>| -> Result<BTreeMap<String, String>, String> {
        let all = texts.iter().map(|(name, value)| Ok((name.clone(), expand(&format!("{key}.{what}.{name}"), value)?)));
        all.collect()
    };
    let Some(url) = &server.url else {
        if !server.headers.is_empty() || server.ca_file.is_some() {
            return Err(format!("{key}: `headers` and `ca_file` are for a server with a `url`"));
        }
        let mut command = Vec::new();
        for (number, part) in server.command.iter().enumerate() {
            command.push(expand(&format!("{key}.command[{number}]"), part)?);
        }
        let mut command = command.into_iter();
        let program = command.next().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| format!("{key}: name a program in `command`, or an address in `url`"))?;
        let cwd = server.cwd.as_ref().map(|cwd| base.join(cwd));
        let env = expand_all("env", &server.env)?;
        return Ok(Reach::Command(ServerCommand { program, args: command.collect(), env, cwd }));
    };
    if !server.command.is_empty() || !server.env.is_empty() || server.cwd.is_some() {
        return Err(format!("{key}: `url` and `command` (with `env` and `cwd`) exclude each other"));
    }
    let url = expand(&format!("{key}.url"), url)?;
    let ca = server.ca_file.as_ref().map(|file| base.join(file));
    let headers = expand_all("headers", &server.headers)?;
    HttpServer::new(&url, &headers, ca.as_deref()).map(Arc::new).map(Reach::Url).map_err(|e| format!("{key}.{e}"))
}

/// `${NAME}` replaced by the variable; `$${` stands for `${`.
fn expand(text: &str, env: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            done.push_str(&rest[..at - 1]);
            done.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        done.push_str(&rest[..at]);
        let (name, after) = rest[at + 2..].split_once('}').ok_or("`${` without `}`")?;
        done.push_str(&env(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?);
        rest = after;
    }
    done.push_str(rest);
    Ok(done)
}

/// The JSON Schema of the file, for editors: `schemas/config.json`.
pub fn json_schema() -> String {
    let mut text = serde_json::to_string_pretty(&schemars::schema_for!(RawConfig)).unwrap_or_default();
    text.push('\n');
    text
}

fn registered(key: &str, raw: &RawRegistered, base: &Path) -> Result<Source, String> {
    let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (from, default) = match (&raw.env, &raw.file, raw.command.first()) {
        (Some(env), None, None) => (Place::Env(env.clone()), env.clone()),
        (None, Some(file), None) => (Place::File(base.join(file)), name_of(file)),
        (None, None, Some(program)) => (Place::Command(raw.command.clone()), name_of(Path::new(program))),
        _ => return Err(format!("{key}: one of `env`, `file` and `command` says where the value is")),
    };
    let name = raw.name.clone().unwrap_or(default);
    if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("{key}: `name`: use 1 to 64 characters without spaces"));
    }
    Ok(Source { name, from, lines: raw.lines, canary: raw.canary })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(yaml: &str) -> Result<Config, String> {
        let raw: RawConfig = serde_saphyr::from_str(yaml).map_err(|e| e.to_string())?;
        Config::build(raw, Path::new("/etc/warden"), None, |name| (name == "TOKEN").then(|| "t0p".into()))
    }

    #[test]
    fn x10_a_typo_is_refused_wherever_it_stands() {
        for yaml in [
            "lisen: a",
            "workers: { a: { gruops: [] } }",
            "servers: { a: { command: [x], evn: {} } }",
            "limits: { depht: 1 }",
            "journal: { segment: 1 }",
            "servers: { a: { command: [x] }, a: { command: [y] } }",
        ] {
            let error = build(yaml).unwrap_err();
            assert!(error.contains("line") || error.contains(':'), "{yaml}: {error}");
        }
    }

    #[test]
    fn x11_errors_name_the_key() {
        for (yaml, key) in [
            ("listen: here", "listen"),
            ("servers: { A: { command: [x] } }", "servers.A"),
            ("servers: { a: { command: [] } }", "servers.a: name a program"),
            ("servers: { a: { command: [x], url: 'http://h' } }", "servers.a: `url` and `command`"),
            ("servers: { a: { url: 'ftp://h' } }", "servers.a.url"),
            ("servers: { a: { url: 'http://u:p@h' } }", "servers.a.url: credentials"),
            ("servers: { a: { url: 'http://h', headers: { A: '${NOPE}' } } }", "servers.a.headers.A"),
            ("servers: { a: { url: 'http://h', headers: { Host: x } } }", "servers.a.headers.Host"),
            ("servers: { a: { url: 'https://h', ca_file: none.pem } }", "servers.a.ca_file"),
            ("servers: { a: { command: [x], headers: { A: b } } }", "servers.a: `headers`"),
            ("servers: { a: { command: [x], tool_timeouts_s: { t: 0 } } }", "servers.a.tool_timeouts_s.t"),
            ("servers: { a: { command: [x], env: { K: '${NOPE}' } } }", "servers.a.env.K"),
            ("workers: { 'a b': {} }", "workers.a b"),
            ("operator_listen: 0.0.0.0:1", "operator_listen"),
            ("limits: { depth: 0 }", "limits.depth"),
            ("limits: { call_timeout_s: 0 }", "limits.call_timeout_s"),
            ("entities: nowhere.json", "entities"),
        ] {
            let error = build(yaml).unwrap_err();
            assert!(error.contains(key), "{yaml}: {error}");
        }
    }

    #[test]
    fn s1_13_the_environment_may_name_the_engine_of_an_inbox() {
        let build = |yaml: &str, url: &str| {
            let raw: RawConfig = serde_saphyr::from_str(yaml).unwrap();
            let env = |name: &str| (name == "LLM_CONNECT_URL").then(|| url.to_owned());
            Config::build(raw, Path::new("/etc/warden"), None, env)
        };
        let inbox = "workers: { ops: {} }\ninbox: { worker: ops }";
        let config = build(inbox, "http://127.0.0.1:8900/").unwrap();
        assert_eq!(config.inbox.unwrap().setup.engine.as_deref(), Some("llm-connect"));
        assert!(config.engines.get("llm-connect").is_some());
        assert!(build(inbox, "nowhere").unwrap_err().contains("llm-connect"));
        // Without an inbox nobody uses it.
        assert!(build("workers: { ops: {} }", "nowhere").is_ok());
    }

    #[test]
    fn references_are_filled_in_and_paths_start_at_the_file() {
        let config = build("servers: { a: { command: [x, '$${TOKEN}'], env: { K: 'Bearer ${TOKEN}' } } }").unwrap();
        let Reach::Command(command) = &config.setup.servers["a"].reach else { panic!("a command") };
        assert_eq!(command.env["K"], "Bearer t0p");
        assert_eq!(command.args, ["${TOKEN}"]);
        assert_eq!(config.setup.data_dir, Path::new("/etc/warden/data"));
        assert!(!format!("{config:?}").contains("t0p"));
    }
}
