//! The command line.

mod people;
mod work;
mod policy;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use people::{Ack, AckGrant, BrainName, Hub, Schedule, Worker, WorkerRun};
pub use policy::{
    Desk, ErrorFormat, NewRule, Policy, PolicyDiff, PolicyExplain, PolicyMode, PolicyNew, PolicyProve, PolicyReplay,
    PolicyTest,
};
use std::path::PathBuf;
use warden_adapters::identity::Role;
use warden_core::catalogue::Effect;
pub use work::{Apps, Composition, Session, SessionResume};

/// Stands between AI workers and their tools: Cedar decides, a fsynced journal remembers, only then anything moves.
///
/// Start with `warden demo`, or with `warden init` and `warden serve`. Exit codes: 0 done or yes, 1 failed, 2 no,
/// 3 invalid input or usage, 4 only when acknowledged, 5 already running.
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
    Serve(Serve),
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
    /// What is held for a person: look, say yes, say no
    #[command(subcommand)]
    Ack(Ack),
    /// The inbox worker: run it, and say when it runs by itself
    #[command(subcommand)]
    Worker(Worker),
    /// The hub in the data folder: send messages, and look into inboxes
    #[command(subcommand)]
    Hub(Hub),
    /// Declared apps: check them, list them
    #[command(subcommand)]
    Apps(Apps),
    /// Sessions: look, let them go on, end them
    #[command(subcommand)]
    Session(Session),
    /// Compositions: trees of agents that can only narrow
    #[command(subcommand)]
    Composition(Composition),
    /// Budgets: what was spent, what is left, more of it, a stop to it
    #[command(subcommand)]
    Budget(Budget),
    /// Engines: the LLM providers that workers reach through Warden
    #[command(subcommand)]
    Engines(Engines),
    /// Secret values: find, register, allow, measure
    #[command(subcommand)]
    Secrets(Secrets),
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

/// How the gateway is run.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Serve {
    /// Apply a changed policy folder at once, without an operator. For development
    #[arg(long)]
    pub watch: bool,
    /// Accept that the log is signed with another key from here on. `warden audit rotate-key` needs no restart
    #[arg(long)]
    pub new_checkpoint_key: bool,
    /// Record what the site's policies say, and enforce none of it. For first days; the charter is always enforced
    ///
    /// Decisions that only the site refuses are let through, as `enforced: shadow` with `would_be`. Every log line and /readyz say so.
    #[arg(long)]
    pub shadow: bool,
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
    /// A server's own annotations are only a suggestion. A tool that nobody classified counts as irreversible.
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
        /// A group it is in, for compositions: `bash` for what runs commands; `none` takes it out
        #[arg(long = "group", value_name = "GROUP", value_parser = ["bash", "none"])]
        groups: Vec<String>,
        /// An argument that carries authority, in place of those that its schema suggests: whom something is sent to, what is acted on;
        /// `none` for no argument, `suggested` for the suggestion
        #[arg(long = "authority", value_name = "ARGUMENT")]
        authority: Vec<String>,
    },
    /// Take in a new tool, or the new definition of a changed one, after looking at it
    ///
    /// Without a hash it shows what is new, and the command to accept exactly that. Until then a changed tool is held for a person, and a
    /// new one denied.
    Approve {
        /// `SERVER/TOOL`
        tool: String,
        /// The hash of the definition that was shown
        hash: Option<String>,
        /// What it can do; nobody has said when absent
        #[arg(long)]
        effect: Option<Effect>,
    },
    /// Keep to the definition in the catalogue, and dismiss the new one after looking at it
    ///
    /// The tool is held until its server lists the known definition again.
    Pin {
        /// `SERVER/TOOL`
        tool: String,
        /// The hash of the definition that was shown
        hash: Option<String>,
    },
}

/// Budgets.
#[derive(Debug, Subcommand)]
pub enum Budget {
    /// List budgets with what is left, and what was spent by worker, engine or task
    List {
        /// What was spent by whom, in place of the budgets
        #[arg(long, value_name = "WHAT")]
        by: Option<By>,
    },
    /// Show one budget: its limits, and the shares of sessions, runs, tasks and workers in it
    Show {
        /// Its name, or that of a share: `team/session/ID`
        budget: String,
    },
    /// Give a budget more
    ///
    /// It counts beside the limits: for ever for lifetime totals, and in the hour and the day of now for those. It is recorded
    /// under your name before it takes effect. Budgets above it still hold.
    #[command(group(clap::ArgGroup::new("much").required(true).multiple(true)))]
    Grant {
        /// Its name
        budget: String,
        /// Tokens
        #[arg(long, group = "much")]
        tokens: Option<u64>,
        /// US dollars, such as 2.50
        #[arg(long, group = "much", value_parser = micro_usd)]
        usd: Option<u64>,
    },
    /// Stop every call that is charged to a budget, or let them go on
    Freeze {
        /// Its name
        budget: String,
        /// Let calls go on
        #[arg(long)]
        off: bool,
    },
}

/// By what spending is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// By worker
    Worker,
    /// By engine
    Engine,
    /// By task: the open ones, and the last that are over
    Task,
}

/// US dollars as micro-USD, without ever being a float.
fn micro_usd(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no amount of US dollars such as 2.50");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || part.len() > 6 || !digits(whole) || !digits(part) {
        return Err(bad());
    }
    let part: u64 = format!("{part:0<6}").parse().map_err(|_| bad())?;
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(part)).ok_or_else(bad)
}

/// Engines.
#[derive(Debug, Subcommand)]
pub enum Engines {
    /// List engines: where they are, what goes there, what it costs
    List,
    /// Ask engines whether they are there and take their key. Costs no tokens
    Ping {
        /// Its id; all when absent
        engine: Option<String>,
    },
}

/// Secret values.
#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Look for secret values in a file, as a proposal would be looked at
    ///
    /// JSON is read as JSON, anything else as text. Exit code 0 nothing, 2 a secret value, 4 something that looks like one.
    Scan {
        /// A file, or `-` for stdin
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// List the published formats that are found
    Formats,
    /// List registered values, by name and fingerprint, and what may pass
    List,
    /// What is known of a fingerprint: whose it is, whether it may pass, where it was seen
    Explain {
        /// From a finding, for example `k1a2b3c4:5d6e…`
        fingerprint: String,
    },
    /// Register one of your secret values, so that it is found in every encoding
    ///
    /// The value is read from stdin unless --env or --file names a place; it is never an argument, since others could see that. It
    /// is kept sealed in the data folder. Values that live elsewhere are better named under `secrets.registered` in warden.yaml.
    Register(RegisterArgs),
    /// Forget a value that was registered here
    Forget {
        /// Its name
        name: String,
    },
    /// Let one value pass although it looks like a secret
    ///
    /// For test values and examples. A registered value never passes.
    Allow(AllowArgs),
    /// Let it pass no longer
    Disallow {
        /// Its fingerprint
        fingerprint: String,
    },
    /// Measure what is found of labelled texts
    ///
    /// Each line of the file is JSON: `source`, `label` (secret, near_miss, identifier, real) and `text_b64`. `refused` counts texts with a
    /// finding, `suspected` those with suspicions only.
    Eval {
        /// JSON lines, gzipped if it ends in `.gz`
        file: PathBuf,
        /// A pack of rules in gitleaks' TOML format, used as well
        #[arg(long = "pack", value_name = "FILE")]
        packs: Vec<PathBuf>,
        /// Use the packs and not the shipped catalogue
        #[arg(long, requires = "packs")]
        packs_only: bool,
    },
}

/// What to register.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// What findings call it
    pub name: String,
    /// Take the value from an environment variable
    #[arg(long, value_name = "VARIABLE", conflicts_with = "file")]
    pub env: Option<String>,
    /// Take the value from a file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// It is a canary: nobody uses it, so seeing it is an alarm
    #[arg(long)]
    pub canary: bool,
}

/// What may pass.
#[derive(Debug, Args)]
pub struct AllowArgs {
    /// The value's fingerprint, from a finding
    pub fingerprint: String,
    /// Who answers for it
    #[arg(long)]
    pub owner: String,
    /// Why it may pass
    #[arg(long)]
    pub reason: String,
    /// Until when (RFC 3339)
    #[arg(long)]
    pub until: Option<String>,
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
    ///
    /// All conditions must hold. A page that is full ends with the `--before` of the next one.
    Query(Query),
    /// One decision: the rules of that time, what came of it, what the worker did before and after
    Show {
        /// Its id or sequence number
        id: String,
    },
    /// What belongs together, oldest first
    Timeline(Timeline),
    /// How many decisions, by verdict, tool, rule, reason and worker
    Stats(Query),
    /// Check every byte of the journal, or an export, against what was signed
    ///
    /// Without a file the whole journal is read, and held against its checkpoint and its witnesses. With one, an export is
    /// checked with nothing but its `.proof` and the public key. Exit code 2 when anything was changed.
    Verify {
        /// An export, made by `audit export`
        file: Option<PathBuf>,
        /// The log's public key (`NAME+ID+BASE64`), or a file that holds it. The data folder's own when absent
        #[arg(long, value_name = "KEY")]
        key: Vec<String>,
        /// A file of signed checkpoints that the journal must agree with, such as a copy of a witness's
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        witness: Vec<PathBuf>,
    },
    /// Write the records of a time to a file, with a proof that nothing is missing from it
    ///
    /// The proof is FILE.proof: keep both. A name that ends in `.gz` is compressed. An export that was broken off goes on where
    /// it was when the same command is given again.
    Export {
        /// Not before this time (RFC 3339)
        #[arg(long)]
        since: Option<String>,
        /// Before this time (RFC 3339)
        #[arg(long)]
        until: Option<String>,
        /// How records are written
        #[arg(long, default_value = "ndjson")]
        format: ExportFormat,
        /// The file
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// The newest signed checkpoint, with the key it is checked with and who has seen it
    Checkpoint,
    /// Show that a record is in the log
    Proof {
        /// Its sequence number
        seq: u64,
        /// In the log as it was with so many records; as it is when absent
        #[arg(long)]
        size: Option<u64>,
    },
    /// Sign the log with a fresh key from here on
    RotateKey,
    /// Times whose records are kept, whatever retention says
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Drop old segments now
    ///
    /// Whole segments go, the oldest first, and never one that a hold or a held proposal needs. Their hashes stay, so earlier
    /// proofs still hold.
    #[command(group(clap::ArgGroup::new("keep").required(true).multiple(true)))]
    Drop {
        /// Keep what is younger than so many days
        #[arg(long, group = "keep")]
        keep_days: Option<u32>,
        /// Keep so many MiB
        #[arg(long, group = "keep")]
        keep_mb: Option<u64>,
    },
    /// Make the sealed arguments of a worker unreadable for good
    ///
    /// Destroys the keys: of what was recorded at level `sealed`, and of proposals that are held. No record changes, so all
    /// proofs still hold. What was recorded at level `facts` stays readable until retention drops it.
    Erase {
        /// The worker's name
        #[arg(long)]
        worker: String,
    },
}

/// Holds.
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// Keep the records of a time
    Add {
        /// A name for it
        name: String,
        /// From this time (RFC 3339); from the beginning when absent
        #[arg(long)]
        since: Option<String>,
        /// To this time (RFC 3339); for ever when absent
        #[arg(long)]
        until: Option<String>,
    },
    /// List holds
    List,
    /// Let go of one
    Release {
        /// Its name
        name: String,
    },
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One JSON object a line, as they are stored
    Ndjson,
    /// OCSF 1.5.0, class API Activity
    Ocsf,
    /// CloudEvents 1.0
    Cloudevents,
    /// Comma-separated, safe for spreadsheets
    Csv,
}

/// What belongs together.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("of").required(true)))]
pub struct Timeline {
    /// Of a session
    #[arg(long, group = "of")]
    pub session: Option<String>,
    /// Of a task
    #[arg(long, group = "of")]
    pub task: Option<String>,
    /// Of a run
    #[arg(long, group = "of")]
    pub run: Option<String>,
    /// Only decisions with smaller sequence numbers
    #[arg(long)]
    pub before: Option<u64>,
    /// At most so many decisions, the newest
    #[arg(long, default_value_t = 1000)]
    pub limit: usize,
}

/// What to look for.
#[derive(Debug, Args)]
pub struct Query {
    /// Worker's name
    #[arg(long)]
    pub worker: Option<String>,
    /// The session that a host named
    #[arg(long)]
    pub session: Option<String>,
    /// The task
    #[arg(long)]
    pub task: Option<String>,
    /// The run
    #[arg(long)]
    pub run: Option<String>,
    /// Server's name
    #[arg(long)]
    pub server: Option<String>,
    /// `SERVER/TOOL`
    #[arg(long)]
    pub tool: Option<String>,
    /// An action, for example `read_resource`
    #[arg(long)]
    pub action: Option<String>,
    /// allow, escalate or deny
    #[arg(long)]
    pub verdict: Option<String>,
    /// gateway, caller or shadow
    #[arg(long)]
    pub enforced: Option<String>,
    /// A policy that decided, for example `charter/no_secret`
    #[arg(long)]
    pub policy: Option<String>,
    /// A reason code, for example `not_on_allowlist`
    #[arg(long)]
    pub reason: Option<String>,
    /// The tag of a payload (`payload_tag`): the same call. Or the fingerprint of a secret value: wherever it was found
    #[arg(long)]
    pub fingerprint: Option<String>,
    /// decision, outcome, policy, operator, state, read, retention, hold, key, budget, task, ack, inbox, session or delegate. Without it, all but `read`
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
    /// Wait until the view has this sequence number
    #[arg(long)]
    pub min_seq: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// Keep showing new ones, as the journal has them
    #[arg(long, short)]
    pub follow: bool,
}
