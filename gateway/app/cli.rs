//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use warden_adapters::identity::Role;
use warden_core::catalogue::Effect;

/// Stands between AI workers and their tools: Cedar decides, a fsynced journal remembers, only then anything moves.
///
/// Start with `warden demo`, or with `warden init` and `warden serve`. Exit codes: 0 done or yes, 1 failed, 2 no,
/// 3 invalid input or usage, 4 only when acknowledged.
#[derive(Debug, Parser)]
#[command(name = "warden", version, max_term_width = 100)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The configuration file.
    #[arg(long, global = true, env = "WARDEN_CONFIG", default_value = "warden.yaml", value_name = "FILE")]
    pub config: PathBuf,
    /// The data folder, instead of the configuration's.
    #[arg(long, global = true, env = "WARDEN_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// How log lines look on stderr. What is logged: WARDEN_LOG, for example `debug`.
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a configuration, starter policies, keys, the first operator and the first worker's token
    Init {
        /// Where
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// The first operator's name
        #[arg(long, default_value = "operator")]
        operator: String,
        /// The first worker's name
        #[arg(long, default_value = "assistant")]
        worker: String,
    },
    /// Run the gateway
    Serve {
        /// Apply a changed policy folder at once, without an operator. For development
        #[arg(long)]
        watch: bool,
    },
    /// Look at the set-up and say what should be better
    Doctor,
    /// Check the configuration and the policies, and change nothing
    Validate,
    /// Show the whole thing at work, with nothing else installed
    Demo {
        /// End after the scripted worker is done
        #[arg(long)]
        once: bool,
    },
    /// Decide a proposal from a file or stdin. Records nothing, needs no gateway
    ///
    /// The proposal: {"worker": "assistant", "server": "files", "tool": "read_file", "arguments": {"path": "/a"}}, or
    /// with "method" and "params" instead of "tool" and "arguments". Exit code 0 allow, 2 deny, 4 escalate.
    Decide {
        /// A file, or `-` for stdin
        file: PathBuf,
    },
    /// Put Warden between an MCP client and a server, over stdio
    ///
    /// `warden mcp SERVER` is a bridge to a server of the running gateway. `warden mcp -- COMMAND…` is a whole gateway
    /// with a data folder of its own, for one server.
    Mcp {
        /// A server of the running gateway
        #[arg(required_unless_present = "command", conflicts_with = "command")]
        server: Option<String>,
        /// The file that holds the worker's token; WARDEN_TOKEN goes before it
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// With a command: the server's name in policies and in the log
        #[arg(long, default_value = "local")]
        name: String,
        /// The server's program and arguments
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Workers' tokens
    #[command(subcommand)]
    Token(Token),
    /// Operators
    #[command(subcommand)]
    Operator(Operator),
    /// The tool catalogue
    #[command(subcommand)]
    Tools(Tools),
    /// Policies
    #[command(subcommand)]
    Policy(Policy),
    /// The decision log
    #[command(subcommand)]
    Audit(Audit),
    /// A small MCP file server over stdio, as the demo uses it
    #[command(hide = true)]
    FileServer {
        /// The folder it serves
        root: PathBuf,
    },
}

/// Workers' tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Issue a token, shown once
    Issue {
        /// A worker of the configuration
        worker: String,
        /// worker, host or pep
        #[arg(long, default_value = "worker")]
        role: Role,
    },
    /// List tokens, without the tokens
    List,
    /// Take a token back
    Revoke {
        /// Its id, from the list
        id: String,
    },
}

/// Operators.
#[derive(Debug, Subcommand)]
pub enum Operator {
    /// Add a named person; their token is shown once
    Add {
        /// The person's name
        name: String,
    },
    /// List operators
    List,
    /// Take a person's access back
    Revoke {
        /// The person's name
        name: String,
    },
}

/// The tool catalogue.
#[derive(Debug, Subcommand)]
pub enum Tools {
    /// List known tools with their effects, and what their servers suggest
    List {
        /// Only of this server
        server: Option<String>,
    },
    /// Show one tool
    Show {
        /// `SERVER/TOOL`
        tool: String,
    },
    /// Say how much tools can do
    ///
    /// A server's own annotations are only a suggestion. A tool that nobody classified counts as irreversible. A changed
    /// definition is accepted with it.
    Classify {
        /// `SERVER/TOOL`; `*` stands for any part: `files/read_*`
        tools: String,
        /// read, write, irreversible or production
        effect: Option<Effect>,
        /// Whether it reaches beyond the operators' machines
        #[arg(long, value_name = "BOOL")]
        open_world: Option<bool>,
        /// An argument that is a path, beside path, paths, source, destination, uri and file
        #[arg(long = "path", value_name = "ARGUMENT")]
        paths: Vec<String>,
    },
}

/// Policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check the policy folder as it stands
    Check {
        /// How problems are shown
        #[arg(long, default_value = "human", value_name = "FORMAT")]
        error_format: ErrorFormat,
    },
    /// List the policies that decide, and whether the folder differs from them
    List,
    /// Make the policy folder decide, if it still has this digest
    Apply {
        /// From `warden policy list`; its first characters are enough
        digest: String,
    },
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

/// The decision log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The newest records, oldest first
    Tail {
        /// Keep showing new ones
        #[arg(long, short)]
        follow: bool,
        /// How many
        #[arg(long, short = 'n', default_value_t = 20)]
        lines: usize,
    },
    /// Records that match, newest first
    Query(Query),
    /// One decision with what came of it
    Show {
        /// Its id or sequence number
        id: String,
    },
    /// Read the whole journal and check every byte of it
    Verify,
}

/// What to look for.
#[derive(Debug, Args)]
pub struct Query {
    /// Worker's name
    #[arg(long)]
    pub worker: Option<String>,
    /// Server's name
    #[arg(long)]
    pub server: Option<String>,
    /// `SERVER/TOOL`, or an action
    #[arg(long)]
    pub tool: Option<String>,
    /// allow, escalate or deny
    #[arg(long)]
    pub verdict: Option<String>,
    /// A policy that decided, for example `charter/no_secret`
    #[arg(long)]
    pub policy: Option<String>,
    /// decision, outcome, policy, operator or state
    #[arg(long)]
    pub kind: Option<String>,
    /// Not before this time (RFC 3339)
    #[arg(long)]
    pub since: Option<String>,
    /// Before this time (RFC 3339)
    #[arg(long)]
    pub until: Option<String>,
    /// Only with smaller sequence numbers: the next page
    #[arg(long)]
    pub before: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
}
