//! An app as people write it. Unknown keys are refused at every level, and so is a key that is there twice.

use super::{id, ordered};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Signals of apps that name none.
const SIGNALS: [&str; 3] = ["success", "failed", "needs_input"];
/// Sessions that are open at once in apps that set no limit.
const SESSIONS_MAX: u32 = 100;

/// An app: a kind of session, declared whole in configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawApp {
    /// What the names of its sessions begin with: 1 to 16 ASCII letters, digits and hyphens. No two apps share one.
    pub session_id_prefix: String,
    /// The statuses that its sessions can get, by name, beside `running`, `awaiting_input`, `stopped` and `error`.
    #[serde(deserialize_with = "ordered::once")]
    pub statuses: BTreeMap<String, RawStatus>,
    /// The status of a session that ended without a rule; a terminal one. Needed as soon as there are statuses.
    pub default_terminal_status: Option<String>,
    /// What ends a session: calls of tools, looked at from the newest. The first rule that fits a call wins.
    pub terminal_tools: Vec<RawRule>,
    /// Tools that end a worker's part of the work and not the session: their arguments `confidence` and
    /// `confidence_rationale` count, and the signal is `success`.
    pub harvest_terminal_tools: Vec<String>,
    /// Tools whose argument `patch` may hold `confidence`, `confidence_rationale` and `signal`.
    pub patch_tools: Vec<String>,
    /// The tool that is called when a person hands a session to a team. None is when absent.
    pub escalate_action_tool_name: Option<String>,
    /// The team that gets a session when the person names none.
    pub escalate_action_default_team: Option<String>,
    /// The teams that sessions can be handed to. Any name will do when empty.
    pub escalation_teams: Vec<String>,
    /// The MCP servers of its sessions, in order; each one of the file's `servers`.
    pub servers: Vec<String>,
    /// A file with the JSON Schema of what sessions are started with. Nothing is checked when absent.
    pub state_overrides_schema: Option<String>,
    /// The signals that workers can give.
    pub signals: Vec<String>,
    /// The risk of tools: `SERVER/TOOL` or a tool's own name, with `*` for any part. A tool that is not listed waits for a person.
    #[serde(deserialize_with = "ordered::once")]
    pub risk: BTreeMap<String, RawRisk>,
    /// The same for sessions in a gated environment. It raises a risk and never lowers one.
    #[serde(deserialize_with = "ordered::once")]
    pub production_risk: BTreeMap<String, RawRisk>,
    /// What waits for a person.
    pub gates: RawGates,
    /// How many of its sessions are open at once. More are refused.
    #[schemars(range(min = 1))]
    pub max_sessions: u32,
    /// Seconds after which an open session is over. Never when absent.
    #[schemars(range(min = 1))]
    pub max_open_s: Option<u64>,
    /// What policies see of the history of its sessions, by name, in `context.session.facts`.
    #[serde(deserialize_with = "ordered::once")]
    pub facts: BTreeMap<String, RawFact>,
}

impl Default for RawApp {
    fn default() -> Self {
        Self {
            session_id_prefix: id::PREFIX.to_owned(),
            statuses: BTreeMap::new(),
            default_terminal_status: None,
            terminal_tools: Vec::new(),
            harvest_terminal_tools: Vec::new(),
            patch_tools: Vec::new(),
            escalate_action_tool_name: None,
            escalate_action_default_team: None,
            escalation_teams: Vec::new(),
            servers: Vec::new(),
            state_overrides_schema: None,
            signals: SIGNALS.map(str::to_owned).to_vec(),
            risk: BTreeMap::new(),
            production_risk: BTreeMap::new(),
            gates: RawGates::default(),
            max_sessions: SESSIONS_MAX,
            max_open_s: None,
            facts: BTreeMap::new(),
        }
    }
}

/// A status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStatus {
    /// Its name: the key that it stands under.
    pub name: String,
    /// Whether a session stays in it for good.
    pub terminal: bool,
    /// What it means.
    pub kind: RawKind,
}

/// What a status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawKind {
    /// The work is done.
    Success,
    /// The work is not done.
    Failure,
    /// People took over.
    Escalation,
    /// Somebody has to look at what came out.
    NeedsReview,
    /// It goes on. No terminal status is of this kind.
    Pending,
}

/// A rule: a call of this tool with these arguments gives a session this status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    /// The tool, as its server calls it.
    pub tool_name: String,
    /// The status; a terminal one.
    pub status: String,
    /// What the session keeps of the call: fields, and for each the places where it is looked for, in turn. A place is
    /// `args.NAME` or `result.NAME`.
    #[serde(default, with = "ordered")]
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    pub extract_fields: Vec<(String, Vec<String>)>,
    /// Arguments that the call has to have, each with exactly this value. Any call fits when empty.
    #[serde(default, deserialize_with = "ordered::once")]
    pub match_args: BTreeMap<String, Value>,
}

/// The risk of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawRisk {
    /// Nobody needs to know.
    Low,
    /// People are told.
    Medium,
    /// A person decides.
    High,
}

/// What waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawGates {
    /// Tools of these risks, everywhere.
    pub risks: Vec<RawRisk>,
    /// Environments in which every tool but those of low risk waits.
    pub environments: Vec<String>,
    /// The field of a session that says which environment it works in.
    pub environment_field: String,
    /// How sure a worker has to be for any tool but those of low risk: 0 to 1, with at most three decimals.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_confidence: f64,
}

impl Default for RawGates {
    fn default() -> Self {
        Self {
            risks: vec![RawRisk::High],
            environments: vec!["production".to_owned()],
            environment_field: "environment".to_owned(),
            min_confidence: 0.6,
        }
    }
}

/// A fact: exactly one of `count`, `sum`, `distinct` and `seen`, with the tools whose calls it is about: `SERVER/TOOL`, with `*` and `?`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawFact {
    /// How many calls there were.
    pub count: Option<OneOrMany>,
    /// What the argument `of` of these calls adds up to: whole numbers, none of them negative.
    pub sum: Option<OneOrMany>,
    /// How many different values the argument `of` had.
    pub distinct: Option<OneOrMany>,
    /// Whether there was such a call; with `of`, whether there was one with each value that this argument has now.
    pub seen: Option<OneOrMany>,
    /// The argument.
    pub of: Option<String>,
    /// Arguments that must fit a pattern, with `*` and `?`.
    #[serde(rename = "where", deserialize_with = "ordered::once")]
    pub given: BTreeMap<String, String>,
    /// Only tools of this effect: `read`, `write`, `irreversible` or `production`.
    pub effect: Option<String>,
    /// For how many seconds a call counts. As long as the session lasts when absent.
    #[schemars(range(min = 1))]
    pub within_s: Option<u32>,
}

/// One pattern, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}
