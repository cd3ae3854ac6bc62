//! `engines`: what a chat completion costs through Warden, beside a bare proxy and other LLM gateways.

mod answers;
mod ask;
mod bare;
mod cell;
mod client;
mod http;
mod measure;
mod mock;
mod ports;
mod process;
mod report;
mod run;
mod stats;
mod targets;
mod tree;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// What may fail, with a sentence for whoever runs it.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A chat completion through LLM gateways, over loopback.
///
/// Exit codes: 0 measured, 1 an answer was wrong or missing, or the run failed.
#[derive(Debug, Parser)]
#[command(name = "engines", max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    run: run::Run,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// A provider
    #[command(hide = true)]
    Mock {
        /// Where it listens, on loopback
        #[arg(long)]
        port: u16,
    },
    /// An HTTP proxy that passes everything through
    #[command(hide = true)]
    Bare {
        /// Where it listens, on loopback
        #[arg(long)]
        port: u16,
        /// The port it passes on to
        #[arg(long)]
        upstream: u16,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread makes the load, and one answers it: waking another would be a part of each figure. The proxy has as
    // many as there are cores, as a gateway has.
    let mut runtime = match cli.role {
        Some(Role::Bare { .. }) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let ended = runtime.enable_all().build().map_err(Into::into).and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        runtime.shutdown_background();
        ended
    });
    ended.unwrap_or_else(|e| {
        eprintln!("engines: {e}");
        ExitCode::FAILURE
    })
}

async fn run(cli: Cli) -> Outcome<ExitCode> {
    match cli.role {
        None => until_stopped(cli.run.run()).await,
        Some(Role::Mock { port }) => mock::serve(port).await,
        Some(Role::Bare { port, upstream }) => bare::serve(port, upstream).await,
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
