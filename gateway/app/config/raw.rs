//! `warden.yaml` as people write it. Unknown keys are refused at every level.

use super::{RawAcknowledgements, RawBudget, RawCompositions, RawEngine, RawInbox, RawZone};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use warden_core::session::raw::RawApp;

/// The configuration file. Unknown keys are refused. In values, `${NAME}` stands for an environment variable.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "warden.yaml")]
pub struct RawConfig {
    /// Where workers reach Warden. Keep it on loopback unless something in front of it speaks TLS.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// A TCP address for operators beside the socket; loopback only. Off when absent.
    #[serde(default)]
    pub operator_listen: Option<String>,
    /// The folder that holds the journal, the keys and everything else Warden writes.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The folder of the site's `.cedar` files.
    #[serde(default = "default_policies")]
    pub policies: PathBuf,
    /// Whether a worker may run under Warden's own user id. Such a worker's code can read the operators' credentials.
    #[serde(default)]
    pub same_uid: bool,
    /// Further names under which this machine may be addressed (`Host` and `Origin`).
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// The folder of schema fragments (`*.cedarschema`) that add entity types and actions for the decision door.
    /// `schemas/site` when absent, if it is there.
    #[serde(default)]
    pub schemas: Option<PathBuf>,
    /// The file of the site's entities, in Cedar's JSON form.
    /// `entities.json` when absent, if it is there.
    #[serde(default)]
    pub entities: Option<PathBuf>,
    /// The address under which callers reach the worker plane, such as `https://warden.example`, where something in front
    /// of it speaks TLS.
    #[serde(default)]
    pub public_url: Option<String>,
    /// The workers, by name.
    #[serde(default)]
    pub workers: BTreeMap<String, RawWorker>,
    /// The MCP servers, by name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`.
    #[serde(default)]
    pub servers: BTreeMap<String, RawServer>,
    /// The engines: LLM providers, by name.
    #[serde(default)]
    pub engines: BTreeMap<String, RawEngine>,
    /// The budgets, by name.
    #[serde(default)]
    pub budgets: BTreeMap<String, RawBudget>,
    /// The zones, by name: which engines a worker or a task of the zone may use.
    #[serde(default)]
    pub zones: BTreeMap<String, RawZone>,
    /// Tasks, and their state documents.
    #[serde(default)]
    pub tasks: RawTasks,
    /// Where traces of engine calls go. Nowhere when absent.
    #[serde(default)]
    pub traces: Option<RawTraces>,
    /// Bounds of messages and calls.
    #[serde(default)]
    pub limits: RawLimits,
    /// How the journal is kept.
    #[serde(default)]
    pub journal: RawJournal,
    /// Who keeps signed checkpoints of the log where nobody can change them together with it.
    #[serde(default)]
    pub witness: Vec<RawWitness>,
    /// What is a secret here, beside the published formats, and what becomes of answers that hold one.
    #[serde(default)]
    pub secrets: RawSecrets,
    /// Who is told of what is held, and how long its worker waits.
    #[serde(default)]
    pub acknowledgements: RawAcknowledgements,
    /// An inbox that a worker handles.
    #[serde(default)]
    pub inbox: Option<RawInbox>,
    /// The apps whose sessions workers run, by name. Further ones stand in files beside this one: `apps/NAME.yaml`.
    #[serde(default)]
    pub apps: BTreeMap<String, RawApp>,
    /// Compositions: trees of agents that workers are bound to.
    #[serde(default)]
    pub compositions: RawCompositions,
    /// Hours after which a held proposal that nobody acknowledged expires.
    #[serde(default = "default_held_for_h")]
    pub held_for_h: u32,
}

/// A worker.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawWorker {
    /// The groups it is in, for policies: `principal in Group::"NAME"`.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The user id it runs under. Absent counts as Warden's own, which needs `same_uid: true`.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The budget that its calls are charged to. Without one nothing limits them.
    #[serde(default)]
    pub budget: Option<String>,
    /// The engine of its calls that name none.
    #[serde(default)]
    pub engine: Option<String>,
    /// The operator whose worker it is: nobody acknowledges what a worker of their own asks for.
    #[serde(default)]
    pub owner: Option<String>,
    /// The registered composition whose root it acts as: `SLUG@VERSION`. One that is not registered lets it do nothing.
    #[serde(default)]
    pub composition: Option<String>,
    /// The zone whose engines it may use. Without one it may use all.
    #[serde(default)]
    pub zone: Option<String>,
    /// Whether it has to name a task for each engine call. Otherwise Warden opens one for those that name none.
    #[serde(default)]
    pub names_task: bool,
}

/// An MCP server: one that Warden starts as a child for each connection (`command`), or one at a URL (`url`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawServer {
    /// The program and its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Its environment, beside PATH, HOME, LANG, TMPDIR and USER. Credentials belong here, as `${NAME}`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Where it speaks Streamable HTTP: `http://…` or `https://…`.
    #[serde(default)]
    pub url: Option<String>,
    /// Headers that every request to it gets. Credentials belong here, as `${NAME}`; a worker's own never go on.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A file of PEM certificates to trust beside the system's, for `https`.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Seconds that a call of a tool may be silent, by tool, where `limits.call_timeout_s` does not fit.
    #[serde(default)]
    pub tool_timeouts_s: BTreeMap<String, u64>,
    /// Whether an acknowledged call runs at once in a session of Warden's own, although it was made in a session of its worker. Say so of
    /// servers that keep nothing between two calls. Otherwise such a call runs once its worker repeats it.
    #[serde(default)]
    pub own_session: bool,
    /// What a call of a tool costs, by tool, charged to its worker's budget.
    #[serde(default)]
    pub cost: BTreeMap<String, RawAmount>,
}

/// What something costs.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAmount {
    /// Tokens.
    pub tokens: u64,
    /// Millionths of a US dollar.
    pub micro_usd: u64,
}

/// Traces over OTLP/HTTP with JSON bodies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTraces {
    /// The collector's address for traces, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    /// Headers for it. Credentials belong here, as `${NAME}`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Tasks.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTasks {
    /// Members of state documents that no worker writes, beside those of the convention.
    pub reserved_keys: Vec<String>,
}

/// Bounds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Bytes of a message from a worker.
    pub message_bytes: usize,
    /// Bytes of a message from a server.
    pub result_bytes: usize,
    /// Nesting of a message from a worker.
    pub depth: usize,
    /// Seconds a worker may take to send a message.
    pub message_timeout_s: u64,
    /// Seconds a server may be silent while an answer is due.
    pub call_timeout_s: u64,
    /// Seconds after which a stream that says nothing is closed in front of a stdio server. Its worker comes back for the
    /// answer (MCP 2025-11-25), and no proxy between them has to keep a quiet connection.
    pub stream_hold_s: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            result_bytes: 64 << 20,
            depth: 64,
            message_timeout_s: 30,
            call_timeout_s: 60,
            stream_hold_s: 60,
        }
    }
}

/// The journal.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawJournal {
    /// MiB of a segment.
    pub segment_mb: u32,
    /// MiB kept free for denials and operators' records on a full disk.
    pub reserved_mb: u32,
    /// Records that may wait; more are denied.
    pub queue_max: usize,
    /// Seconds between two signed checkpoints, while there is something new.
    pub checkpoint_every_s: u64,
    /// The log's name in its checkpoints, such as `example.com/warden`. Used when the signing key is made; a random one when
    /// absent.
    pub origin: Option<String>,
    /// A file with the signing key (`PRIVATE+KEY+NAME+ID+BASE64`), in place of the one that Warden makes.
    pub checkpoint_key: Option<PathBuf>,
    /// What is kept. Everything, unless it says otherwise.
    pub retention: RawRetention,
    /// How much of a decision is written down, by action or group: `facts` (everything that policy saw, the default), `sealed`
    /// (the arguments encrypted, so that they can be erased) or `metadata` (no arguments).
    pub levels: BTreeMap<String, RawLevel>,
}

/// How much of a decision is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawLevel {
    /// Everything that policy saw.
    Facts,
    /// The same, with the arguments encrypted under a key of the worker.
    Sealed,
    /// Everything but the arguments.
    Metadata,
}

/// What is kept of the journal. Whole segments are dropped, the oldest first.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRetention {
    /// Nothing older than so many days.
    pub days: Option<u32>,
    /// No more than so many MiB.
    pub mb: Option<u64>,
}

/// A witness: a `file` on another mount, an endpoint (`url`), or a tlog-witness (`tlog`, with its `key`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawWitness {
    /// A file to which each checkpoint is appended.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// An address to which each checkpoint is posted.
    #[serde(default)]
    pub url: Option<String>,
    /// The prefix of a C2SP tlog-witness; Warden adds `/add-checkpoint`.
    #[serde(default)]
    pub tlog: Option<String>,
    /// The tlog-witness's verifier key, `NAME+ID+BASE64`.
    #[serde(default)]
    pub key: Option<String>,
    /// Headers for it. Credentials belong here, as `${NAME}`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl Default for RawJournal {
    fn default() -> Self {
        Self {
            segment_mb: 64,
            reserved_mb: 8,
            queue_max: 4096,
            checkpoint_every_s: 1,
            origin: None,
            checkpoint_key: None,
            retention: RawRetention::default(),
            levels: BTreeMap::new(),
        }
    }
}

/// Secrets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSecrets {
    /// Where this site's secret values are. They are read at each start, found in every encoding, and never written down.
    pub registered: Vec<RawRegistered>,
    /// Files of rules in gitleaks' TOML format, besides the shipped catalogue.
    pub packs: Vec<RawPack>,
    /// What becomes of an answer with a secret value in it, by action or group: `withhold` (the default) or `redact` (it is
    /// handed on with `[secret:FORMAT:FINGERPRINT]` in place of the value).
    pub results: BTreeMap<String, RawInbound>,
}

/// Where a value is: in an environment variable (`env`), a `file`, or what a `command` prints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRegistered {
    /// What findings call it. The variable's, file's or program's name when absent.
    pub name: Option<String>,
    /// An environment variable of the gateway.
    pub env: Option<String>,
    /// A file that holds the value.
    pub file: Option<PathBuf>,
    /// A program and its arguments.
    pub command: Vec<String>,
    /// Whether each line is a value of its own.
    pub lines: bool,
    /// Whether it is a canary: nobody uses it, so seeing it is an alarm.
    pub canary: bool,
}

/// A file of rules.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPack {
    /// The file.
    pub file: PathBuf,
    /// Whether what it finds is a `finding`, which the charter forbids, or a `suspicion`, for the site's policies.
    #[serde(default)]
    pub tier: RawTier,
}

/// How sure a pack is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawTier {
    /// It is a secret value.
    #[default]
    Finding,
    /// It may be one.
    Suspicion,
}

/// What becomes of an answer with a secret value in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawInbound {
    /// Nobody is given it.
    Withhold,
    /// It is handed on with the value replaced.
    Redact,
}

fn default_listen() -> String {
    "127.0.0.1:7171".into()
}

pub(super) fn default_data_dir() -> PathBuf {
    "data".into()
}

fn default_policies() -> PathBuf {
    "policies".into()
}

fn default_held_for_h() -> u32 {
    24
}
