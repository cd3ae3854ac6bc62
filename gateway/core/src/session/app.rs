//! An app, checked: what its sessions are called, how they end, and what of them waits for people.

use super::history::Fact;
use super::id;
use super::ordered;
use super::risk::{Gates, Risk};
use super::status::{self, StatusDef};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// An app. Its checks are those of [`super::check`]; whoever makes one otherwise sees to them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct App {
    /// What it is called.
    pub name: String,
    /// What the names of its sessions begin with.
    pub session_id_prefix: String,
    /// Its statuses, beside Warden's own.
    pub statuses: BTreeMap<String, StatusDef>,
    /// The status of a session that ended without a rule. Without one such a session stays as it is.
    pub default_terminal_status: Option<String>,
    /// The rules that end a session, the first that fits wins.
    pub terminal_tools: Vec<Rule>,
    /// Tools that say how sure a worker is and end nothing.
    pub harvest_terminal_tools: Vec<String>,
    /// Tools whose argument `patch` says how sure a worker is.
    pub patch_tools: Vec<String>,
    /// The tool that tells people of an escalation.
    pub escalate_action_tool_name: Option<String>,
    /// The team of an escalation that names none.
    pub escalate_action_default_team: Option<String>,
    /// Teams that sessions may be handed to; any when empty.
    pub escalation_teams: Vec<String>,
    /// The MCP servers of its sessions.
    pub servers: Vec<String>,
    /// The file of the JSON Schema that what a session is started with has to meet.
    pub state_overrides_schema: Option<String>,
    /// The signals that workers may give.
    pub signals: Vec<String>,
    /// The risk of tools.
    pub risk: BTreeMap<String, Risk>,
    /// The same in gated environments, where it is higher.
    pub production_risk: BTreeMap<String, Risk>,
    /// What waits for a person.
    pub gates: Gates,
    /// Sessions that are open at once.
    pub max_sessions: u32,
    /// Seconds after which an open session is over.
    pub max_open_s: Option<u64>,
    /// Facts of its sessions, by name.
    #[serde(skip)]
    pub facts: BTreeMap<String, Fact>,
}

impl App {
    /// A status by its name, Warden's own included.
    pub fn status(&self, name: &str) -> Option<StatusDef> {
        status::built_in(name).or_else(|| self.statuses.get(name).cloned())
    }

    /// Whether a session of this status may be ended by rules: it runs, or its app says that it is not over. One that waits
    /// for a person, broke, or is over already stays as it is.
    pub fn may_finalise(&self, status: &str) -> bool {
        status == status::RUNNING || self.statuses.get(status).is_some_and(|declared| !declared.terminal)
    }
}

/// All apps of a gateway, and whose each server is.
#[derive(Clone, Debug, Default)]
pub struct Apps {
    all: BTreeMap<String, Arc<App>>,
    /// Apps by the servers that they have for their own.
    servers: HashMap<String, Vec<String>>,
}

impl Apps {
    /// These apps.
    pub fn new(all: BTreeMap<String, App>) -> Self {
        let mut servers: HashMap<String, Vec<String>> = HashMap::new();
        for (name, app) in &all {
            for server in &app.servers {
                servers.entry(server.clone()).or_default().push(name.clone());
            }
        }
        Self { all: all.into_iter().map(|(name, app)| (name, Arc::new(app))).collect(), servers }
    }

    /// One by its name.
    pub fn get(&self, name: &str) -> Option<&Arc<App>> {
        self.all.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Arc<App>)> {
        self.all.iter()
    }

    /// Whether a server is for sessions of some app alone.
    pub fn claims(&self, server: &str) -> bool {
        self.servers.contains_key(server)
    }

    /// Whether a name has the shape of a session of one of these apps.
    pub fn knows(&self, session: &str) -> bool {
        id::split(session).is_some_and(|(prefix, ..)| self.all.values().any(|app| app.session_id_prefix == prefix))
    }
}

/// A rule: a call of this tool with these arguments gives a session this status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// The tool, as its server calls it.
    pub tool_name: String,
    /// The status.
    pub status: String,
    /// What is kept of the call: names, and for each the places that are looked at in turn.
    #[serde(serialize_with = "ordered::serialize")]
    pub extract_fields: Vec<(String, Vec<Source>)>,
    /// Arguments that the call has to have. Any call fits when empty.
    pub match_args: BTreeMap<String, Value>,
}

/// A place in a call. Names are taken whole: `args.a.b` is the argument `a.b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An argument.
    Args(String),
    /// A member of the result.
    Result(String),
}

impl Source {
    /// Reads `args.NAME` and `result.NAME`. Nothing else is a place.
    pub fn parse(text: &str) -> Option<Self> {
        let (scope, name) = text.split_once('.').filter(|(_, name)| !name.is_empty())?;
        match scope {
            "args" => Some(Self::Args(name.to_owned())),
            "result" => Some(Self::Result(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Args(name) => write!(f, "args.{name}"),
            Self::Result(name) => write!(f, "result.{name}"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixture::{app, bare};

    #[test]
    fn s2_21_a_place_is_an_argument_or_a_member_of_the_result() {
        assert_eq!(Source::parse("args.a.b"), Some(Source::Args("a.b".into())));
        assert_eq!(Source::parse("result.text"), Some(Source::Result("text".into())));
        for text in ["", "args", "args.", ".a", "result", "foo.a", "Args.a", " args.a", "argsa"] {
            assert_eq!(Source::parse(text), None, "{text:?}");
        }
        assert_eq!(Source::parse("result.a.b").unwrap().to_string(), "result.a.b");
    }

    #[test]
    fn s2_26_only_what_is_under_way_may_be_ended_by_rules() {
        for (status, may) in [
            ("running", true),
            ("in_progress", true),
            ("awaiting_input", false),
            ("stopped", false),
            ("error", false),
            ("done", false),
            ("needs_review", false),
            ("ghost", false),
        ] {
            assert_eq!(app().may_finalise(status), may, "{status}");
        }
        assert!(bare().may_finalise("running"));
        assert_eq!(app().status("stopped").map(|status| status.terminal), Some(true));
        assert_eq!(app().status("done").map(|status| status.name), Some("done".into()));
        assert_eq!(app().status("ghost"), None);
    }
}
