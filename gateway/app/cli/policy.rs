//! `warden policy …`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check a policy folder: everything that keeps it from being loaded, and what is hardly meant
    Check {
        /// What is checked
        #[command(flatten)]
        desk: Desk,
        /// How problems are shown
        #[arg(long, default_value = "human", value_name = "FORMAT")]
        error_format: ErrorFormat,
        /// Warnings fail the check as well
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Format policy files
    Fmt {
        /// A folder or a file; the configuration's policy folder when absent
        path: Option<PathBuf>,
        /// Write nothing; exit code 2 when a file is not formatted
        #[arg(long)]
        check: bool,
    },
    /// Write a first policy, by asking what to allow; or from flags
    ///
    /// For example `warden policy new allow --tool files/write --group assistants --argument path --like "/srv/scratch/*"`. It is written
    /// only if it loads with the others, and decides nothing before it is applied.
    New(PolicyNew),
    /// Hold policies to the cases of their folder, and show what the cases leave open
    ///
    /// Cases are JSON files in `cases/`, in the form of the Cedar CLI's `run-tests`; a decision may also be `escalate`.
    /// `cases/matrix.txt` is the reviewed table of workers and tools.
    Test(PolicyTest),
    /// Prove that the charter holds whatever operators write, and look at changed rules one by one
    ///
    /// Needs the solver cvc5. For every kind of request: the charter and a permit for everything allow nothing that must never
    /// be allowed; no rule of the charter fails; acknowledging never takes anything away. Exit code 2 when anything is not proved.
    Prove(PolicyProve),
    /// What B allows that A does not, and the reverse, each with a request that shows it
    ///
    /// Needs the solver cvc5. Exit code 2 when B is wider.
    Diff(PolicyDiff),
    /// Why a proposal or a recorded decision got its verdict, and what would have to be different about it
    ///
    /// A recorded decision is explained by the policies of its time. Each nearest change was tried on the engine.
    Explain(PolicyExplain),
    /// Decide the recorded proposals again under a candidate folder: what would have been different
    ///
    /// Reads the journal of the data folder, beside a running gateway or without one, and changes nothing. A record that cannot be
    /// decided again is counted and named.
    Replay(PolicyReplay),
    /// List the policies that decide, and whether the folder differs from them
    List,
    /// Let a rule decide that is in shadow, after showing what that changes
    Promote(PolicyMode),
    /// Take a rule into shadow: it is evaluated and recorded, and decides nothing. After showing what that changes
    Demote(PolicyMode),
    /// Make the policy folder decide, if it still has this digest
    Apply {
        /// From `warden policy list`
        digest: String,
    },
}

/// A policy folder, and the tools it speaks about.
#[derive(Clone, Debug, Args)]
pub struct Desk {
    /// The policy folder; the configuration's when absent
    ///
    /// Without a configuration file the folder speaks for itself: `cases/workers.json` and `cases/catalogue.json`.
    pub dir: Option<PathBuf>,
    /// A tool catalogue to use instead of the data folder's
    #[arg(long, value_name = "FILE")]
    pub catalogue: Option<PathBuf>,
    /// A charter to try out instead of the compiled-in one. Nothing ever serves it
    #[arg(long, value_name = "DIR")]
    pub charter: Option<PathBuf>,
}

/// What is proved.
#[derive(Debug, Args)]
pub struct PolicyProve {
    /// What is proved
    #[command(flatten)]
    pub desk: Desk,
    /// Look at every site rule, not only at those that differ from the applied ones
    #[arg(long)]
    pub all: bool,
    /// Only theorems whose name holds this text
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// How long the solver may think about one question
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub solver_limit: u64,
}

/// What is compared.
#[derive(Debug, Args)]
pub struct PolicyDiff {
    /// The policy folder as it was
    pub a: PathBuf,
    /// The policy folder as it would be
    pub b: PathBuf,
    /// A tool catalogue to use instead of the data folder's
    #[arg(long, value_name = "FILE")]
    pub catalogue: Option<PathBuf>,
    /// A charter to try out instead of the compiled-in one
    #[arg(long, value_name = "DIR")]
    pub charter: Option<PathBuf>,
    /// How long the solver may think about one question
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub solver_limit: u64,
}

/// What is explained.
#[derive(Debug, Args)]
pub struct PolicyExplain {
    /// A file with a proposal (`-` for stdin), as `warden decide` takes it; or a decision's id or sequence number
    #[arg(value_name = "PROPOSAL|DECISION_ID")]
    pub what: String,
    /// A recorded decision by the policies of now
    #[arg(long)]
    pub now: bool,
    /// By the policies of this folder
    #[arg(long, value_name = "DIR", conflicts_with = "now")]
    pub policies: Option<PathBuf>,
}

/// A rule that changes its mode.
#[derive(Debug, Args)]
pub struct PolicyMode {
    /// The rule's `@id`, as `warden policy list` shows it
    pub id: String,
    /// What is replayed: from then on
    #[arg(long, default_value = "7d", value_name = "TIME")]
    pub since: String,
    /// Do it, once the replay was shown. Asked for otherwise
    #[arg(long)]
    pub yes: bool,
}

/// What a new policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NewRule {
    /// The call runs unattended.
    Allow,
    /// The call runs when a person acknowledges it.
    Hold,
    /// The call never runs.
    Deny,
}

impl NewRule {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            NewRule::Allow => "allow",
            NewRule::Hold => "hold",
            NewRule::Deny => "deny",
        }
    }
}

/// A new policy.
#[derive(Debug, Args)]
pub struct PolicyNew {
    /// What it does; asked for when absent
    pub kind: Option<NewRule>,
    /// Its `@id` and the name of its file
    #[arg(long)]
    pub name: Option<String>,
    /// `SERVER/TOOL`, or `SERVER/*` for all of a server
    #[arg(long)]
    pub tool: Option<String>,
    /// Only for this worker
    #[arg(long, conflicts_with = "group")]
    pub worker: Option<String>,
    /// Only for workers of this group
    #[arg(long)]
    pub group: Option<String>,
    /// Only where this argument …
    #[arg(long, requires = "like")]
    pub argument: Option<String>,
    /// … is this: `*` stands for anything, a number is the most it may be
    #[arg(long, requires = "argument")]
    pub like: Option<String>,
    /// The policy folder; the configuration's when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What is replayed.
#[derive(Debug, Args)]
pub struct PolicyReplay {
    /// The candidate; the configuration's policy folder when absent
    pub candidate: Option<PathBuf>,
    /// From then on: `7d`, `12h`, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, default_value = "7d", value_name = "TIME")]
    pub since: String,
    /// Until then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only of this worker
    #[arg(long)]
    pub worker: Option<String>,
    /// A tool catalogue to use instead of the data folder's
    #[arg(long, value_name = "FILE")]
    pub catalogue: Option<PathBuf>,
    /// Threads; one for each core when absent
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// What is tested.
#[derive(Debug, Args)]
pub struct PolicyTest {
    /// What is tested
    #[command(flatten)]
    pub desk: Desk,
    /// Write `cases/matrix.txt` as it is now
    #[arg(long)]
    pub update: bool,
    /// Show the coverage of every rule, not only what is missing
    #[arg(long)]
    pub coverage: bool,
    /// Make small mistakes in every rule, and show those that no case notices
    #[arg(long)]
    pub mutate: bool,
    /// Look at the charter's rules as well, in coverage and mutants; so it is by itself where the folder has a `charter`
    #[arg(long)]
    pub with_charter: bool,
}

/// How problems are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ErrorFormat {
    /// With help.
    Human,
    /// One line each.
    Plain,
    /// One JSON object each.
    Json,
}
