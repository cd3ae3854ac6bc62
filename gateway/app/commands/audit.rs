//! `warden audit`.

use super::{data_dir, plain, say};
use crate::cli::{Audit, Global, Query as Flags};
use crate::client::Client;
use crate::exit::{Failure, NO, Outcome};
use serde_json::Value;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;
use warden_adapters::files::DataDir;
use warden_adapters::http::operator::{find, shown};
use warden_adapters::journal::{OpenError, Reader, verify};
use warden_adapters::view::{self, Query, View};

/// Shows the log: through the running gateway, or from the folder when none runs.
pub async fn run(global: &Global, audit: Audit) -> Outcome {
    let dir = data_dir(global)?;
    match audit {
        Audit::Verify => check(global, &dir),
        Audit::Tail { follow, lines } => tail(global, &dir, follow, lines).await,
        Audit::Query(flags) => {
            let query = flags.query()?;
            let found = Log::open(&dir).await?.query(&query).await?;
            found.iter().for_each(|record| print(global, record));
            Ok(0)
        }
        Audit::Show { id } => {
            let found = Log::open(&dir).await?.show(&id).await?;
            if found.is_empty() {
                return Err(Failure::no(format!("no decision `{id}` in this journal")));
            }
            for record in found {
                say(if global.json {
                    record.to_string()
                } else {
                    serde_json::to_string_pretty(&record).unwrap_or_default()
                });
            }
            Ok(0)
        }
    }
}

fn check(global: &Global, dir: &Path) -> Outcome {
    let show = std::io::stderr().is_terminal();
    let verified = verify(dir, |done, all| {
        if show && all > 1 {
            super::tell(format_args!("segment {} of {all}", done + 1));
        }
    });
    match verified {
        Ok(verified) if global.json => say(serde_json::json!(verified)),
        Ok(verified) => {
            say(format!(
                "good: {} records in {} segments\nroot    {}\nheld    {}\nunknown {}",
                verified.records, verified.segments, verified.root, verified.held, verified.unknown
            ));
            if let Some(at) = verified.torn_at {
                say(format!("torn    {at}: a write was cut off there; nothing in it was acknowledged"));
            }
        }
        Err(e @ OpenError::Damaged { .. }) => {
            if global.json {
                say(serde_json::json!({ "good": false, "error": e.to_string() }));
            }
            return Err(Failure { code: NO, message: e.to_string() });
        }
        Err(e) => return Err(e.into()),
    }
    Ok(0)
}

async fn tail(global: &Global, dir: &Path, follow: bool, lines: usize) -> Outcome {
    let log = Log::open(dir).await?;
    if follow && matches!(log, Log::Folder { .. }) {
        return Err(Failure::failed("nothing to follow: no gateway runs on this data folder"));
    }
    let newest = Query { limit: Some(lines), ..Query::default() };
    let mut records = log.query(&newest).await?;
    records.reverse();
    records.iter().for_each(|record| print(global, record));
    if !follow {
        return Ok(0);
    }
    let mut last = records.last().and_then(|record| record["seq"].as_u64());
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let fresh = log.since(last).await?;
        fresh.iter().for_each(|record| print(global, record));
        last = fresh.last().and_then(|record| record["seq"].as_u64()).or(last);
    }
}

fn print(global: &Global, record: &Value) {
    if global.json {
        say(record);
        return;
    }
    let text = |pointer: &str| plain(record.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let (seq, ts, kind) = (record["seq"].as_u64().unwrap_or_default(), text("/ts"), text("/kind"));
    let rest = match kind.as_str() {
        "decision" => {
            let tool = match record["tool"].as_str() {
                Some(tool) => format!("{}/{}", text("/server"), plain(tool)),
                None => format!("{} {}", text("/action"), text("/server")),
            };
            let repeated = record["repeated"]
                .as_u64()
                .filter(|n| *n > 0)
                .map(|n| format!(" (and {n} like it)"))
                .unwrap_or_default();
            format!("{:8} {} {tool} {} {}{repeated}", text("/verdict"), text("/worker"), text("/reason"), text("/id"))
        }
        "outcome" => format!("{} {}", text("/happened"), text("/decision")),
        "policy" => format!("{} {}", text("/event"), text("/digests/policy")),
        "operator" => format!("{} {} {}", text("/operator"), text("/act"), text("/object")),
        _ => String::new(),
    };
    say(format!("{seq:>8} {ts} {kind:8} {rest}"));
}

/// The log, through the gateway or from the folder.
enum Log {
    Gateway(Client),
    Folder { _lock: DataDir, view: View, records: u64, journal: std::path::PathBuf },
}

impl Log {
    async fn open(dir: &Path) -> Result<Self, Failure> {
        if let Some(client) = Client::connect(dir)? {
            return Ok(Self::Gateway(client));
        }
        let lock = DataDir::open(dir)?;
        let verified = verify(dir, |_, _| {})?;
        let view = View::open(&dir.join("view"), verified.records)?;
        let journal = dir.join("journal");
        view.catch_up(&mut Reader::new(&journal), verified.records)?;
        Ok(Self::Folder { _lock: lock, view, records: verified.records, journal })
    }

    async fn query(&self, query: &Query) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Gateway(client) => {
                let pairs = serde_json::to_value(query).unwrap_or_default();
                let pairs = pairs.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
                let text = pairs.map(|(name, value)| {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    format!("{name}={}", percent(&value))
                });
                let path = format!("/v1/decisions?{}", text.collect::<Vec<_>>().join("&"));
                Ok(client.get(&path).await?["records"].as_array().cloned().unwrap_or_default())
            }
            Self::Folder { view, journal, .. } => {
                let found = view::run(view, &mut Reader::new(journal), query)?;
                Ok(found.iter().map(|(seq, record)| shown(*seq, record)).collect())
            }
        }
    }

    /// The records after `last`, oldest first.
    async fn since(&self, last: Option<u64>) -> Result<Vec<Value>, Failure> {
        let mut fresh = Vec::new();
        let mut page = Query { limit: Some(200), ..Query::default() };
        // Pages backwards until what was shown before.
        loop {
            let records = self.query(&page).await?;
            let unseen = |record: &Value| record["seq"].as_u64() > last;
            let done = records.is_empty() || last.is_none() || !records.iter().all(unseen);
            page.before = records.last().and_then(|record| record["seq"].as_u64());
            fresh.extend(records.into_iter().filter(unseen));
            if done {
                fresh.reverse();
                return Ok(fresh);
            }
        }
    }

    async fn show(&self, id: &str) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Gateway(client) => match client.get(&format!("/v1/decisions/{}", percent(id))).await {
                Ok(answer) => Ok(answer["records"].as_array().cloned().unwrap_or_default()),
                Err(failure) if failure.code == NO => Ok(Vec::new()),
                Err(failure) => Err(failure),
            },
            Self::Folder { view, records, journal, .. } => {
                let found = find(Some(view), &mut Reader::new(journal), *records, id)?;
                Ok(found.iter().map(|(seq, record)| shown(*seq, record)).collect())
            }
        }
    }
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

impl Flags {
    fn query(self) -> Result<Query, Failure> {
        let time = |flag: &str, text: Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let parsed = text.parse().map(Some);
            parsed.map_err(|_| Failure::invalid(format!("--{flag} `{text}`: give a time such as 2026-01-31T12:00:00Z")))
        };
        if let Some(verdict) = self.verdict.as_deref().filter(|v| !["allow", "escalate", "deny"].contains(v)) {
            return Err(Failure::invalid(format!("--verdict `{verdict}`: allow, escalate or deny")));
        }
        Ok(Query {
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            worker: self.worker,
            server: self.server,
            tool: self.tool,
            verdict: self.verdict,
            policy: self.policy,
            kind: self.kind,
            before: self.before,
            limit: Some(self.limit),
        })
    }
}
