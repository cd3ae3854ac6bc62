//! `warden serve`.

use super::config;
use crate::cli::Global;
use crate::exit::{Failure, Outcome};
use crate::gateway::Gateway;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until it is told to stop.
pub async fn run(global: &Global, watch: bool, new_checkpoint_key: bool) -> Outcome {
    let config = config(global)?;
    if watch {
        writable_by_workers(&config)?;
        tracing::warn!("--watch: whoever can write the policy folder decides, with no operator asked");
    }
    let gateway = Gateway::start(&config, watch, new_checkpoint_key).await?;
    tracing::info!(address = %gateway.address, operators = %gateway.socket.display(), "Warden serves");
    stopped().await?;
    tracing::info!("stopping: what is in flight is finished or recorded as aborted");
    gateway.stop().await;
    Ok(0)
}

/// Waits for SIGTERM or SIGINT.
pub async fn stopped() -> Result<(), Failure> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    Ok(())
}

/// `--watch` is refused where a worker could write the policies.
fn writable_by_workers(config: &crate::config::Config) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let dir = &config.setup.policy_dir;
    let meta = std::fs::metadata(dir).map_err(|e| Failure::failed(format!("`{}`: {e}", dir.display())))?;
    let own = config.uids.values().flatten().any(|uid| *uid == meta.uid());
    if own || (meta.mode() & 0o022 != 0 && config.uids.values().any(Option::is_some)) {
        return Err(Failure::invalid(format!(
            "--watch: a worker's user could write `{}`: make it writable by its owner only",
            dir.display()
        )));
    }
    Ok(())
}
