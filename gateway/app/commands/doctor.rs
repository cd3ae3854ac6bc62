//! `warden doctor`.

use super::{config, say};
use crate::cli::Global;
use crate::client::Client;
use crate::exit::{NO, Outcome};
use crate::gateway::anchors;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use warden_adapters::keys::Keys;
use warden_adapters::mcp::server::Reach;
use warden_adapters::{govern, journal, secrets};
use warden_core::policy::snapshot::Snapshot;

/// One finding.
struct Finding {
    level: &'static str,
    what: String,
    next: String,
}

/// Looks at everything, and says what should be better. Exit code 2 when something is broken.
pub async fn run(global: &Global) -> Outcome {
    let mut findings = Vec::new();
    let mut find = |level, what: String, next: &str| findings.push(Finding { level, what, next: next.into() });
    let config = config(global)?;
    find("ok", format!("configuration `{}`", global.config.display()), "");
    let data = config.setup.data_dir.clone();
    let shared = config.workers_with_our_uid();
    if !shared.is_empty() {
        find(
            "bad",
            format!("worker `{}` has Warden's own user id", shared.join("`, `")),
            "give it another with `uid:`, or set `same_uid: true`",
        );
    } else if config.same_uid {
        find(
            "warn",
            "`same_uid: true`: a worker's code could read the operators' credentials".into(),
            "run workers under user ids of their own",
        );
    }
    if !config.listen.ip().is_loopback() {
        find(
            "warn",
            format!("`listen: {}` is reachable from other machines, without TLS", config.listen),
            "put something that speaks TLS in front, and listen on loopback",
        );
    }
    match std::fs::metadata(&data) {
        Err(e) => find("bad", format!("data folder `{}`: {e}", data.display()), "make one with `warden init`"),
        Ok(_) => {
            for (path, wanted) in
                [(data.clone(), 0o700), (data.join("keys"), 0o700), (data.join("operator.token"), 0o600)]
            {
                match std::fs::metadata(&path) {
                    Ok(meta) if meta.permissions().mode() & 0o777 & !wanted != 0 => {
                        find(
                            "bad",
                            format!("`{}` has mode {:o}", path.display(), meta.permissions().mode() & 0o777),
                            "others can read it: chmod it back",
                        );
                    }
                    _ => {}
                }
            }
            free_room(&data, &config, &mut find);
            match Keys::open(&data)
                .map_err(secrets::Error::from)
                .and_then(|keys| secrets::load(&data, &keys, &config.secrets))
            {
                Ok(engine) if engine.registered().is_empty() => find(
                    "warn",
                    "no secret value is registered: only what looks like one is found".into(),
                    "name yours with `secrets.registered:` in warden.yaml, or `warden secrets register`",
                ),
                Ok(engine) => find("ok", format!("{} registered secret values", engine.registered().len()), ""),
                Err(e) => find("bad", e.to_string(), "put it right in `warden.yaml`: the gateway does not start so"),
            }
            let running = Client::connect(&data)?;
            match &running {
                Some(client) => match client.get("/readyz").await {
                    Ok(ready) => {
                        find(
                            "ok",
                            format!(
                                "a gateway runs, {} records, journal {}",
                                ready["records"],
                                ready["journal"].as_str().unwrap_or("?")
                            ),
                            "",
                        );
                    }
                    Err(e) => find("bad", format!("a gateway runs and is not ready: {}", e.message), "look at its log"),
                },
                None => find("ok", "no gateway runs on this data folder".into(), ""),
            }
            if config.witnesses.is_empty() {
                find(
                    "warn",
                    "no witness is set: whoever can write the data folder could cut the end of the log off unseen"
                        .into(),
                    "name one with `witness:` in warden.yaml, such as a file on another mount",
                );
            }
            let anchors = Keys::open(&data).and_then(|keys| anchors(&data, &keys.verifiers()?, &config.witnesses));
            if let Err(e) = &anchors {
                find("bad", e.to_string(), "put the right file or key back");
            }
            match journal::verify(&data, &anchors.unwrap_or_default(), |_, _| {}) {
                Ok(verified) => {
                    find("ok", format!("journal: {} records, {}", verified.records, verified.root), "");
                    if verified.unknown > 0 && running.is_none() {
                        find(
                            "warn",
                            format!("{} allowed proposals have no outcome", verified.unknown),
                            "the next start records them as unknown",
                        );
                    }
                }
                Err(journal::OpenError::Io { .. }) if !data.join("journal").exists() => {
                    find("ok", "no journal yet: the first start makes it".into(), "");
                }
                Err(e) => find("bad", e.to_string(), "keep the folder as it is, and restore it from a copy"),
            }
        }
    }
    match govern::read_site(&config.setup) {
        Err(e) => find("bad", e.to_string(), "make the folder, or point `policies` at it"),
        Ok(folder) => {
            let catalogue = govern::load_catalogue(&data)?;
            match Snapshot::build(govern::source_at_rest(&config.setup, &folder)?) {
                Ok(snapshot) => find("ok", format!("policies: {}", snapshot.digests.policy), ""),
                Err(problems) => {
                    find("bad", format!("policies:\n{problems}"), "mend them; `warden policy check` looks again")
                }
            }
            let tools = catalogue.servers.values().flatten();
            let silent = tools.filter(|(_, tool)| tool.effect.is_none()).count();
            if silent > 0 {
                find(
                    "warn",
                    format!("{silent} tools are not classified and count as irreversible"),
                    "`warden tools list`, then `warden tools classify`",
                );
            }
        }
    }
    for (name, server) in &config.setup.servers {
        match &server.reach {
            Reach::Command(command) if !runnable(&command.program) => find(
                "bad",
                format!("server `{name}`: no program `{}` on the PATH", command.program),
                "install it, or give its full path",
            ),
            Reach::Url(http) if http.is_exposed() => find(
                "warn",
                format!("server `{name}`: {} is not encrypted, and carries the gateway's credential", http.place()),
                "use `https`",
            ),
            Reach::Command(_) | Reach::Url(_) => {}
        }
    }
    for Finding { level, what, next } in &findings {
        if global.json {
            say(serde_json::json!({ "level": level, "what": what, "next": next }));
        } else {
            let hint = if next.is_empty() { String::new() } else { format!("\n      → {next}") };
            say(format!("{level:4}  {what}{hint}"));
        }
    }
    Ok(if findings.iter().any(|finding| finding.level == "bad") { NO } else { 0 })
}

fn free_room(data: &Path, config: &crate::config::Config, find: &mut impl FnMut(&'static str, String, &str)) {
    let Ok(stat) = rustix::fs::statvfs(data) else { return };
    let free = stat.f_bavail * stat.f_frsize;
    if free < config.journal.segment_bytes * 4 {
        find(
            "warn",
            format!("{} MiB are free for the data folder", free >> 20),
            "make room: on a full disk everything is denied",
        );
    }
}

fn runnable(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).exists();
    }
    std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|dir| dir.join(program).exists()))
}
