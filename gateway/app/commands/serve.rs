//! `warden serve`.

use super::config;
use crate::cli::{Global, Serve};
use crate::exit::{Failure, Outcome};
use crate::gateway::Gateway;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves until it is told to stop.
pub async fn run(global: &Global, serve: &Serve) -> Outcome {
    let config = config(global)?;
    if serve.watch {
        writable_by_workers(&config)?;
        tracing::warn!("--watch: whoever can write the policy folder decides, with no operator asked");
    }
    if serve.shadow {
        tracing::warn!("--shadow: the site's policies are recorded and NOT enforced; the charter is");
    }
    // Whoever reaches the gateway can also stop it in good order.
    let mut stop = Stop::new()?;
    let gateway = Gateway::start(&config, serve).await?;
    tracing::info!(address = %gateway.address, operators = %gateway.socket.display(), "Warden serves");
    stop.asked().await;
    tracing::info!("stopping: what is in flight is finished or recorded as aborted");
    gateway.stop().await;
    Ok(0)
}

/// SIGTERM and SIGINT, which from now on end nothing by themselves.
pub struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    /// Takes both.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them; one that came before counts.
    pub async fn asked(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.int.recv() => {} }
    }
}

/// Waits for SIGTERM or SIGINT from now on.
pub async fn stopped() -> Result<(), Failure> {
    Stop::new()?.asked().await;
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
