//! `warden secrets`.

mod eval;

use super::{config, data_dir, plain, say, table, tell};
use crate::cli::{AllowArgs, Global, RegisterArgs, Secrets};
use crate::client::Client;
use crate::exit::{ESCALATE, Failure, NO, Outcome};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use warden_adapters::keys::{self, Keys};
use warden_adapters::secrets::sources::bounded;
use warden_adapters::secrets::{self};
use warden_adapters::world::now;
use warden_core::json::{self, Limits};
use warden_core::mac::MacKey;
use warden_core::secrets::{Engine, Finding, Scan, Scanner};
use zeroize::Zeroizing;

/// Scans and measures without a gateway; registers and allows through the running one.
pub async fn run(global: &Global, secrets: Secrets) -> Outcome {
    match secrets {
        Secrets::Scan { file } => scan(global, &file),
        Secrets::Formats => formats(global),
        Secrets::List => list(global).await,
        Secrets::Explain { fingerprint } => explain(global, &fingerprint).await,
        Secrets::Register(args) => register(global, args).await,
        Secrets::Forget { name } => {
            let client = Client::need(&data_dir(global)?)?;
            let answer = client.delete(&format!("/v1/secrets/registered/{name}")).await?;
            say(if global.json { answer.to_string() } else { format!("`{}` is forgotten", plain(&name)) });
            Ok(0)
        }
        Secrets::Allow(args) => allow(global, args).await,
        Secrets::Disallow { fingerprint } => {
            let client = Client::need(&data_dir(global)?)?;
            let answer = client.delete(&format!("/v1/secrets/allowed/{fingerprint}")).await?;
            say(if global.json { answer.to_string() } else { format!("`{}` passes no longer", plain(&fingerprint)) });
            Ok(0)
        }
        Secrets::Eval { file, packs, packs_only } => eval::run(global, &file, &packs, packs_only),
    }
}

/// The site's scanner where there is a data folder, else the shipped catalogue with a key that nobody keeps.
fn scanner(global: &Global) -> Result<(Scanner, bool), Failure> {
    // A configuration that is there and broken is no reason to look for less.
    let site = if global.config.exists() { Some(config(global)?) } else { None };
    let site = site.filter(|config| config.setup.data_dir.join("keys").exists());
    let scanner = match &site {
        Some(config) => {
            let keys = Keys::open(&config.setup.data_dir)?;
            let engine = secrets::load(&config.setup.data_dir, &keys, &config.secrets)?;
            Scanner::new(engine, keys.mac().clone())
        }
        None => Scanner::new(Engine::shipped(), MacKey::new("none", keys::random()?)),
    };
    scanner.tick(now());
    Ok((scanner, site.is_some()))
}

fn scan(global: &Global, file: &Path) -> Outcome {
    let (scanner, has_site) = scanner(global)?;
    let bytes = input(file, SCANNED_MAX)?;
    let limits = Limits { bytes_max: usize::MAX, depth_max: 128 };
    let scan = match json::parse(&bytes, limits) {
        Ok(json) => scanner.scan(&json, ""),
        Err(_) => scanner.scan_text(&String::from_utf8_lossy(&bytes), ""),
    };
    show(global, &scan);
    if !has_site {
        tell(format_args!(
            "no data folder: the shipped catalogue alone was used, and fingerprints are of this scan only"
        ));
    }
    Ok(match (scan.is_clean(), scan.suspicions.is_empty()) {
        (false, _) => NO,
        (true, false) => ESCALATE,
        (true, true) => 0,
    })
}

fn show(global: &Global, scan: &Scan) {
    if global.json {
        return say(json!({
            "findings": scan.findings, "suspicions": scan.suspicions, "unscannable": scan.unscannable,
        }));
    }
    let row = |tier: &str, finding: &Finding| {
        let at = if finding.at.is_empty() { "/" } else { &finding.at };
        let fingerprint = finding.fingerprint.clone().unwrap_or_default();
        vec![tier.to_owned(), finding.format.clone(), plain(at), finding.via.join(" › "), fingerprint]
    };
    let findings = scan.findings.iter().map(|finding| row("finding", finding));
    let rows: Vec<_> = findings.chain(scan.suspicions.iter().map(|finding| row("suspicion", finding))).collect();
    if rows.is_empty() && !scan.unscannable {
        return tell(format_args!("nothing that looks like a secret value"));
    }
    let head = ["", "FORMAT", "AT", "HIDDEN BY", "FINGERPRINT"].map(str::to_owned).to_vec();
    say(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    if scan.unscannable {
        tell(format_args!("there is more in it than is looked at: as a message it would be refused as `unscannable`"));
    }
}

fn formats(global: &Global) -> Outcome {
    let engine = Engine::shipped();
    if global.json {
        for format in engine.formats() {
            say(
                json!({ "id": format.id, "provider": format.provider, "near": format.near, "tier": tier(format.is_weak) }),
            );
        }
        return Ok(0);
    }
    let head = ["FORMAT", "PROVIDER", "TIER", "NEAR"].map(str::to_owned).to_vec();
    let rows = engine.formats().iter().map(|format| {
        vec![format.id.clone(), format.provider.clone(), tier(format.is_weak).into(), format.near.join(", ")]
    });
    say(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    Ok(0)
}

fn tier(is_weak: bool) -> &'static str {
    if is_weak { "suspicion" } else { "finding" }
}

async fn list(global: &Global) -> Outcome {
    let answer = Client::need(&data_dir(global)?)?.get("/v1/secrets").await?;
    if global.json {
        say(&answer);
        return Ok(0);
    }
    let cell = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    say(format!("{} published formats", answer["formats"]));
    let rows = |key: &str, names: [&str; 4]| -> Vec<Vec<String>> {
        let each = answer[key].as_array().into_iter().flatten();
        each.map(|entry| names.iter().map(|name| plain(&cell(&entry[*name]))).collect()).collect()
    };
    let kind = |entry: &Value| if entry["canary"] == true { "canary" } else { "value" };
    let mut registered = vec![["REGISTERED", "KIND", "FROM", "FINGERPRINT"].map(str::to_owned).to_vec()];
    for entry in answer["registered"].as_array().into_iter().flatten() {
        registered.push(vec![
            plain(&cell(&entry["name"])),
            kind(entry).into(),
            cell(&entry["from"]),
            cell(&entry["fingerprint"]),
        ]);
    }
    say(table(&registered));
    let mut allowed = vec![["ALLOWED", "OWNER", "UNTIL", "REASON"].map(str::to_owned).to_vec()];
    allowed.extend(rows("allowed", ["fingerprint", "owner", "until", "reason"]));
    say(table(&allowed));
    Ok(0)
}

async fn explain(global: &Global, fingerprint: &str) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    let known = client.get("/v1/secrets").await?;
    let of = |key: &str| {
        let mut entries = known[key].as_array().into_iter().flatten();
        entries.find(|entry| entry["fingerprint"] == fingerprint).cloned().unwrap_or(Value::Null)
    };
    let seen = client.get(&format!("/v1/decisions?limit=20&fingerprint={fingerprint}")).await?;
    let seen = seen["records"].as_array().cloned().unwrap_or_default();
    let (registered, allowed) = (of("registered"), of("allowed"));
    if global.json {
        say(json!({ "fingerprint": fingerprint, "registered": registered, "allowed": allowed, "seen": seen }));
        return Ok(if registered.is_null() && allowed.is_null() && seen.is_empty() { NO } else { 0 });
    }
    if let Some(name) = registered["name"].as_str() {
        let kind = if registered["canary"] == true { "canary" } else { "registered value" };
        say(format!("{kind} `{}`", plain(name)));
    }
    if let Some(owner) = allowed["owner"].as_str() {
        let until = allowed["until"].as_str().map_or_else(String::new, |until| format!(" until {until}"));
        say(format!("may pass{until}: {} ({})", plain(allowed["reason"].as_str().unwrap_or_default()), plain(owner)));
    }
    for record in &seen {
        let text = |pointer: &str| plain(record.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
        let all = ["/context/secret_findings", "/context/suspicions", "/secret_findings"];
        let found = all.iter().filter_map(|pointer| record.pointer(pointer)?.as_array()).flatten();
        for finding in found.filter(|finding| finding["fingerprint"] == fingerprint) {
            let via = finding["via"].as_array().into_iter().flatten().filter_map(Value::as_str);
            say(format!(
                "{}  {}  {}  {} at {} {}",
                text("/ts"),
                text("/worker"),
                // An outcome names its decision.
                if record.get("decision").is_some_and(Value::is_string) { text("/decision") } else { text("/id") },
                plain(finding["format"].as_str().unwrap_or_default()),
                plain(finding["at"].as_str().unwrap_or_default()),
                via.collect::<Vec<_>>().join(" › ")
            ));
        }
    }
    if registered.is_null() && allowed.is_null() && seen.is_empty() {
        return Err(Failure::no(format!(
            "nothing is known of `{}`: it was not found, registered or allowed here",
            plain(fingerprint)
        )));
    }
    if registered.is_null() && allowed.is_null() {
        tell(format_args!(
            "rotate the value if it is real; if it grants nothing: warden secrets allow {fingerprint} --owner WHO --reason WHY --until WHEN"
        ));
    }
    Ok(0)
}

async fn register(global: &Global, args: RegisterArgs) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    let value = match (&args.env, &args.file) {
        (Some(variable), _) => {
            let value = std::env::var_os(variable)
                .ok_or_else(|| Failure::invalid(format!("the environment variable `{variable}` is not set")))?;
            Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value))
        }
        (None, Some(file)) => input(file, REGISTERED_MAX)?,
        (None, None) => input(Path::new("-"), REGISTERED_MAX)?,
    };
    let text = std::str::from_utf8(value.trim_ascii())
        .map_err(|_| Failure::invalid("the value is not UTF-8: register its base64 or hex form instead"))?;
    let body = Zeroizing::new(json!({ "name": args.name, "value": text, "canary": args.canary }).to_string());
    let answer = client.post_text("/v1/secrets/registered", &body).await?;
    if global.json {
        say(&answer);
    } else {
        let kind = if args.canary { "canary" } else { "value" };
        say(format!(
            "{kind} `{}` is registered as {}",
            plain(&args.name),
            answer["fingerprint"].as_str().unwrap_or_default()
        ));
    }
    Ok(0)
}

async fn allow(global: &Global, args: AllowArgs) -> Outcome {
    let client = Client::need(&data_dir(global)?)?;
    let body = json!({
        "fingerprint": args.fingerprint, "owner": args.owner, "reason": args.reason, "until": args.until,
    });
    let answer = client.post("/v1/secrets/allowed", &body).await?;
    let until = args.until.map_or_else(|| "until it is disallowed".to_owned(), |until| format!("until {until}"));
    say(if global.json { answer.to_string() } else { format!("`{}` may pass {until}", plain(&args.fingerprint)) });
    Ok(0)
}

/// Bytes of a file that is scanned, and of one that holds a value.
const SCANNED_MAX: u64 = 128 << 20;
const REGISTERED_MAX: u64 = 4 << 20;

fn input(file: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let read = |reader: Box<dyn Read>| bounded(reader, most);
    let bytes = if file == Path::new("-") {
        read(Box::new(std::io::stdin()))
    } else {
        std::fs::File::open(file).and_then(|file| read(Box::new(file)))
    };
    bytes.map_err(|e| Failure::invalid(format!("cannot read `{}`: {e}", file.display())))
}
