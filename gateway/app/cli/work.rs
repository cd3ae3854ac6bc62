//! `warden apps`, `warden session`, `warden composition`.

use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

/// Declared apps.
#[derive(Debug, Subcommand)]
pub enum Apps {
    /// Check the apps of the configuration and of `apps/`, and tell what may not be meant
    Check,
    /// List them, with how many sessions of each are open
    List,
}

/// Sessions.
#[derive(Debug, Subcommand)]
pub enum Session {
    /// List sessions
    List {
        /// Only of this app
        #[arg(long)]
        app: Option<String>,
        /// Only of this worker
        #[arg(long)]
        worker: Option<String>,
        /// Only with this status, such as `awaiting_input`
        #[arg(long)]
        status: Option<String>,
    },
    /// Show one: how it stands, what it counts, and what became of it
    Show {
        /// The session's id
        id: String,
    },
    /// Tell what happened in a session: decisions, what came of them, changes of status; oldest first
    Timeline {
        /// The session's id
        id: String,
        /// At most so many decisions, the newest
        #[arg(long, default_value_t = 200)]
        limit: usize,
    },
    /// Let one that waits for a person go on, with what you write to its worker; or hand it to a team
    ///
    /// Calls that are held in it are refused by that: to let one run as it is, `warden ack grant` it instead.
    Resume(SessionResume),
    /// End one
    Stop {
        /// The session's id
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

/// What is wanted of a session that waits.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["input", "escalate"])))]
pub struct SessionResume {
    /// The session's id
    pub id: String,
    /// What its worker is to go on with; `-` for stdin. It is looked at for secrets like anything that reaches a worker
    #[arg(long)]
    pub input: Option<String>,
    /// Hand it to a team: the app's own tool tells the team, and the session gets the status of that tool
    #[arg(long)]
    pub escalate: bool,
    /// The team; the app's own default when absent
    #[arg(long, requires = "escalate")]
    pub team: Option<String>,
}

/// Compositions.
#[derive(Debug, Subcommand)]
pub enum Composition {
    /// Check a composition as `register` would, and change nothing
    Check {
        /// The file, in JSON or YAML; `-` for stdin
        file: PathBuf,
    },
    /// Show what a worker would run with: instructions, model, tools, sub-agents
    Resolve {
        /// The file, in JSON or YAML; `-` for stdin
        file: PathBuf,
        /// A file with the overlay of a session or a step
        #[arg(long, value_name = "FILE")]
        overlay: Option<PathBuf>,
        /// The file is a manifest, which says `defaultModel` for `modelOverride`
        #[arg(long)]
        manifest: bool,
    },
    /// Register a composition with the running gateway, so that workers can be bound to it
    ///
    /// A version is never changed: what differs is another version. Workers are bound in `warden.yaml`: `composition: SLUG@VERSION`.
    Register {
        /// The file, in JSON or YAML; `-` for stdin
        file: PathBuf,
    },
    /// Show a registered composition, or list them all
    Show {
        /// `SLUG@VERSION`
        composition: Option<String>,
    },
}
