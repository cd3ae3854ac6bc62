//! `warden validate`.

use super::{config, say};
use crate::cli::Global;
use crate::exit::{Failure, Outcome};
use warden_adapters::{govern, secrets};
use warden_core::policy::snapshot::Snapshot;

/// Checks the configuration with its packs, and the policy folder, and changes nothing. Registered values are not fetched.
pub fn run(global: &Global) -> Outcome {
    let config = config(global)?;
    let shared = config.workers_with_our_uid();
    if !shared.is_empty() {
        return Err(Failure::invalid(format!(
            "worker `{}` runs under Warden's own user id: set `uid:` or `same_uid: true`",
            shared.join("`, `")
        )));
    }
    secrets::check_packs(&config.secrets)?;
    let folder = govern::read_site(&config.setup)?;
    let snapshot = Snapshot::build(govern::source_at_rest(&config.setup, &folder)?).map_err(Failure::invalid)?;
    let digest = &snapshot.digests.policy;
    let rules: usize = snapshot.layers.iter().map(|layer| layer.rules.len()).sum();
    if global.json {
        say(
            serde_json::json!({ "valid": true, "workers": config.setup.workers.len(), "servers": config.setup.servers.len(), "policies": rules, "digest": digest }),
        );
    } else {
        say(format!(
            "valid: {} workers, {} servers, {rules} policies with the charter, {digest}",
            config.setup.workers.len(),
            config.setup.servers.len()
        ));
    }
    Ok(0)
}
