//! Warden, set up as an operator would do it: with its own command line, its default policies, and a budget that lasts.

use super::{Kind, Place, Started, Target};
use crate::Outcome;
use crate::answers::KEY;
use crate::ask::Door;
use crate::process::{Process, command};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const WORKER: &str = "assistant";
const TOKENS: u64 = 1_000_000_000_000_000;
/// What making a site may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a site, and serves it.
pub(super) async fn start(place: &mut Place) -> Outcome<Started> {
    let Some(program) = &place.warden else {
        return Ok(Started::Absent("no program is named with --warden".to_owned()));
    };
    let program = program.canonicalize().map_err(|e| format!("`{}`: {e}", program.display()))?;
    let (site, port) = (place.dir.join("site"), place.ports.next()?);
    init(&program, &place.dir, &site).await?;
    let config = json!({
        "listen": format!("127.0.0.1:{port}"), "same_uid": true, "servers": {},
        "engines": { "mock": { "kind": "openai", "url": place.url(), "key": KEY } },
        "budgets": { "load": { "limits": [{ "tokens": TOKENS }] } },
        "workers": { WORKER: { "groups": ["assistants"], "budget": "load" } },
    });
    let file = site.join("warden.yaml");
    // JSON is YAML.
    std::fs::write(&file, config.to_string())?;
    let mut serve = command(&program, &place.dir);
    serve.env("WARDEN_LOG", "warn").arg("--config").arg(&file).arg("serve");
    let process = Process::start(serve, "warden", &place.dir, port).await?;
    let token = std::fs::read_to_string(site.join("worker.token"))?;
    let target = Target { kind: Kind::Warden, door: Door::new(port, token.trim())?, process: Arc::new(process) };
    Ok(Started::Runs(target, "default policies, a budget, a durable journal".to_owned()))
}

async fn init(program: &Path, home: &Path, site: &Path) -> Outcome<()> {
    let mut init = command(program, home);
    init.args(["init", "--worker", WORKER]).arg(site).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, init.output()).await.map_err(|_| "`init` does not end")??;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`init`: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
}
