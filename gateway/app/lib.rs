//! The application: command line, configuration, and the gateway with everything wired.
//!
//! Commands are small files under [`commands`]; [`gateway`] starts and stops the whole thing; data goes to stdout, talk to
//! stderr.

pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod diagnostics;
pub mod exit;
pub mod file_server;
pub mod gateway;
pub mod log;

use cli::{Cli, Command};
use exit::Outcome;

/// Runs one command.
pub async fn run(cli: Cli) -> Outcome {
    let quiet = !matches!(cli.command, Command::Serve(_));
    let shadow = matches!(cli.command, Command::Serve(cli::Serve { shadow: true, .. }));
    log::start(cli.global.log_format, quiet, shadow);
    let global = &cli.global;
    match cli.command {
        Command::Init { dir, operator, worker } => commands::init::run(&dir, &operator, &worker),
        Command::Serve(serve) => commands::serve::run(global, &serve).await,
        Command::Doctor => commands::doctor::run(global).await,
        Command::Validate => commands::validate::run(global),
        Command::Demo { once } => commands::demo::run(global, once).await,
        Command::Decide { file } => commands::decide::run(global, &file),
        Command::Mcp { server: Some(server), token_file, .. } => {
            commands::mcp::bridge(global, &server, token_file).await
        }
        Command::Mcp { server: None, name, command, .. } => commands::mcp::alone(global, &name, command).await,
        Command::Token(token) => commands::token::run(global, token).await,
        Command::Operator(operator) => commands::operator::run(global, operator).await,
        Command::Tools(tools) => commands::tools::run(global, tools).await,
        Command::Policy(policy) => commands::policy::run(global, policy).await,
        Command::Apps(apps) => commands::apps::run(global, apps).await,
        Command::Session(session) => commands::session::run(global, session).await,
        Command::Composition(composition) => commands::composition::run(global, composition).await,
        Command::Ack(ack) => commands::ack::run(global, ack).await,
        Command::Worker(worker) => commands::worker::run(global, worker).await,
        Command::Hub(hub) => commands::hub::run(global, hub).await,
        Command::Budget(budget) => commands::budget::run(global, budget).await,
        Command::Engines(engines) => commands::engines::run(global, engines).await,
        Command::Secrets(secrets) => commands::secrets::run(global, secrets).await,
        Command::Audit(audit) => commands::audit::run(global, audit).await,
        Command::FileServer { root } => file_server::run(&root).await,
    }
}
