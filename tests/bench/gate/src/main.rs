//! `gate`: load on a real Warden. `load` says what it costs beside a bare proxy, `soak` whether it keeps its promises
//! for long.

mod check;
mod client;
mod disk;
mod http;
mod load;
mod measure;
mod process;
mod proxy;
mod report;
mod site;
mod soak;
mod stats;
mod upstream;
mod worker;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// What may fail, with a sentence for whoever runs it.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Load on a real Warden, over loopback.
#[derive(Debug, Parser)]
#[command(name = "gate", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare one MCP call with a server itself, through a bare proxy and through Warden
    ///
    /// Exit codes: 0 measured, 1 an answer was wrong or missing.
    Load(load::Load),
    /// Keep many workers busy while policies change and the server is killed, and check what came of each call
    ///
    /// Exit codes: 0 all held, 2 not, 1 the run itself failed.
    Soak(soak::Soak),
    /// An MCP server
    #[command(hide = true)]
    Upstream {
        /// Where it listens, on loopback
        #[arg(long)]
        port: u16,
        /// Where each executed call is written down. With it there are streams, and a second tool
        #[arg(long)]
        log: Option<PathBuf>,
    },
    /// An HTTP proxy that passes everything through
    #[command(hide = true)]
    Proxy {
        /// Where it listens, on loopback
        #[arg(long)]
        port: u16,
        /// The port it passes on to
        #[arg(long)]
        upstream: u16,
    },
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // One thread makes the load: waking another would be a part of each figure.
    let mut runtime =
        if matches!(command, Command::Load(_)) { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let ended = runtime.enable_all().build().map_err(Into::into).and_then(|runtime| {
        let ended = runtime.block_on(run(command));
        runtime.shutdown_background();
        ended
    });
    ended.unwrap_or_else(|e| {
        eprintln!("gate: {e}");
        ExitCode::FAILURE
    })
}

async fn run(command: Command) -> Outcome<ExitCode> {
    match command {
        Command::Load(load) => until_stopped(load.run()).await,
        Command::Soak(soak) => until_stopped(soak.run()).await,
        Command::Upstream { port, log } => upstream::serve(port, log.as_deref()).await,
        Command::Proxy { port, upstream } => proxy::serve(port, upstream).await,
    }
}

/// When it is interrupted, what it has started ends with the values that hold it.
async fn until_stopped(work: impl Future<Output = Outcome<ExitCode>>) -> Outcome<ExitCode> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ended = work => return ended,
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Err("interrupted".into())
}
