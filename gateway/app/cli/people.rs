//! `warden ack`, `warden worker`, `warden hub`.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What is held for a person.
#[derive(Debug, Subcommand)]
pub enum Ack {
    /// List what is held, what was granted and waits, and what is acknowledged in advance
    List {
        /// Only this worker's
        #[arg(long)]
        worker: Option<String>,
        /// The last ones that are over as well
        #[arg(long)]
        over: bool,
        /// Wait so many seconds for a change, at most 55
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
    },
    /// Show one: what would run, why it is held, who may say yes, and what has changed since
    Show {
        /// The decision's id
        id: String,
        /// Wait so many seconds for a change, at most 55
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
    },
    /// Say yes: exactly what was held runs, once
    ///
    /// It is decided again by the policies of now. Where it runs at once, its result waits for the worker; otherwise it runs as soon as
    /// the worker repeats the call. With --for, further calls of the same tool are acknowledged in advance as well.
    Grant(AckGrant),
    /// Say no. What was granted and has not run yet is taken back
    Refuse {
        /// The decision's id
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Take back what was acknowledged in advance
    Revoke {
        /// The scope's id, from the list
        scope: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

/// A yes.
#[derive(Debug, Args)]
pub struct AckGrant {
    /// The decision's id
    pub id: String,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// The hash that `ack show` has shown: another proposal is refused
    #[arg(long)]
    pub hash: Option<String>,
    /// Acknowledge further calls like it for so long, such as 1h
    #[arg(long = "for", value_name = "TIME")]
    pub time: Option<String>,
    /// With --for: so many further calls, and no more
    #[arg(long, requires = "time")]
    pub times: Option<u64>,
    /// With --for: within the session of this call alone
    #[arg(long, requires = "time")]
    pub session: bool,
    /// With --for: arguments that have to be as in this call. All of them when neither this nor --when is given
    #[arg(long, requires = "time", value_name = "ARGUMENT", conflicts_with = "when")]
    pub same: Vec<String>,
    /// With --for: a condition in Cedar instead, such as 'context.input.path like "/srv/drafts/*"'
    #[arg(long, requires = "time", value_name = "CEDAR")]
    pub when: Option<String>,
}

/// The inbox worker.
#[derive(Debug, Subcommand)]
pub enum Worker {
    /// Handle the messages of the inbox
    ///
    /// A dry run unless --execute is given: it shows what would be done, and does nothing. Exit codes: 0 done, 1 with --strict when a message
    /// failed, 2 usage or refused, 5 already running.
    Run(WorkerRun),
    /// When it runs by itself
    #[command(subcommand)]
    Schedule(Schedule),
}

/// A run.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("how").args(["dry_run", "execute"])))]
pub struct WorkerRun {
    /// One pass and an end. Otherwise it looks again every --every seconds, until it is stopped
    #[arg(long)]
    pub once: bool,
    /// Show what would be done. The default
    #[arg(long)]
    pub dry_run: bool,
    /// Do it
    #[arg(long)]
    pub execute: bool,
    /// Who plans: fixed rules, or a model
    #[arg(long)]
    pub brain: Option<BrainName>,
    /// Exit code 1 when a message failed
    #[arg(long)]
    pub strict: bool,
    /// Seconds between two passes, without --once
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub every: u64,
    /// Accept the brief as it is now; its digest is in the refusal that names it
    #[arg(long, value_name = "DIGEST")]
    pub accept_brief: Option<String>,
}

/// Who plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BrainName {
    /// Fixed rules and the routing catalogue
    Rule,
    /// A model, with the brief
    Llm,
}

/// When the inbox worker runs by itself.
#[derive(Debug, Subcommand)]
pub enum Schedule {
    /// Whether it is on, when it runs next, and what the last dry run has shown
    Status,
    /// Switch it on, after a clean dry run
    Enable {
        /// When, in UTC: minute hour day month weekday, such as "*/15 8-18 * * 1-5"
        cron: String,
    },
    /// Switch it off
    Disable,
}

/// The hub in the data folder.
#[derive(Debug, Subcommand)]
pub enum Hub {
    /// Send a message to an agent
    Send {
        /// The agent
        #[arg(long)]
        to: String,
        /// Whom it is from; the operator when absent
        #[arg(long)]
        from: Option<String>,
        /// Its subject
        #[arg(long, default_value = "")]
        subject: String,
        /// Its text; `-` for stdin
        #[arg(default_value = "-")]
        body: String,
        /// A text file to attach
        #[arg(long = "attach", value_name = "FILE")]
        attachments: Vec<PathBuf>,
        /// Sending twice with one key sends once
        #[arg(long)]
        key: Option<String>,
    },
    /// Show the messages of an agent
    Inbox {
        /// The agent; the configured inbox when absent
        agent: Option<String>,
        /// Those that were read as well
        #[arg(long)]
        all: bool,
        /// Notes of progress instead
        #[arg(long, conflicts_with_all = ["all", "kept"])]
        progress: bool,
        /// Changes of the routing catalogue that wait for a person instead
        #[arg(long, conflicts_with = "all")]
        kept: bool,
        /// Mark this message as read: a person has seen to it
        #[arg(long, value_name = "ID", conflicts_with_all = ["all", "kept", "progress"])]
        mark_read: Option<String>,
    },
}
