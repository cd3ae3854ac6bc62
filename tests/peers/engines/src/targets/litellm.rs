//! The proxy of litellm, from PyPI: a process of Python per core. It wants a master key; it has no database and calls
//! nobody back, which is the least that it can do.

use super::{Kind, Place, Started, Target};
use crate::Outcome;
use crate::answers::{KEY, MODEL};
use crate::ask::Door;
use crate::process::{Process, command};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Long enough for it.
const MASTER: &str = "sk-6e2f0a9c51d84b37a0c5f7e19b3d6284";
/// It would otherwise look for newer lists of models and headers on the network.
const OFFLINE: [&str; 2] = ["LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"];
/// Seconds that a worker may be busy with its start before it is replaced.
const HEALTH: &str = "120";

/// Serves.
pub(super) async fn start(place: &mut Place) -> Outcome<Started> {
    let Some(peers) = &place.peers else {
        return Ok(Started::Absent("no folder is named with --peers".to_owned()));
    };
    let (venv, port) = (peers.join("litellm"), place.ports.next()?);
    let Ok(venv) = venv.canonicalize() else {
        return Ok(Started::Absent(format!("`{}` is not there", venv.display())));
    };
    let model = json!({ "model": format!("openai/{MODEL}"), "api_base": place.url(), "api_key": KEY });
    let config = json!({
        "model_list": [{ "model_name": MODEL, "litellm_params": model }],
        "general_settings": { "master_key": MASTER },
    });
    let file = place.dir.join("litellm.yaml");
    // JSON is YAML.
    std::fs::write(&file, config.to_string())?;
    let mut serve = command(&venv.join("bin/litellm"), &place.dir);
    serve.envs(OFFLINE.map(|name| (name, "True"))).env("LITELLM_LOG", "ERROR").arg("--config").arg(&file);
    serve.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--timeout_worker_healthcheck", HEALTH]);
    serve.args(["--num_workers", &place.workers.to_string()]);
    let process = Process::start(serve, "litellm", &place.dir, port).await?;
    let target = Target { kind: Kind::Litellm, door: Door::new(port, MASTER)?, process: Arc::new(process) };
    Ok(Started::Runs(target, format!("{}, {} workers", version(&venv), place.workers)))
}

/// As its installation is named: `lib/python3.11/site-packages/litellm-1.2.3.dist-info`.
fn version(venv: &Path) -> String {
    let below = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let packages = below(&venv.join("lib")).flat_map(|python| below(&python.join("site-packages")).collect::<Vec<_>>());
    let version = |path: std::path::PathBuf| {
        let name = path.file_name()?.to_str()?;
        Some(name.strip_prefix("litellm-")?.strip_suffix(".dist-info")?.to_owned())
    };
    packages.into_iter().find_map(version).unwrap_or_else(|| "?".to_owned())
}
