//! What a composition lets its agents do: maps from kinds of calls to deny, ask or allow. A map is authored as
//!
//! ```yaml
//! "*": ask                # every call
//! read: allow             # a group of calls: bash, read, engine (which LLM) or task (which delegate)
//! git: allow              # every call of a server
//! git/push: deny          # tools, by patterns of the server and the tool
//! files: {"*": ask, "delete_*": deny}   # under a server: patterns of its tools
//! task: {"*": deny, reviewer: allow}    # under task or engine: patterns of delegates or engines
//! bash: {"*": deny, "shell/ls": allow}  # under bash, read and *: patterns of servers and tools
//! ```
//!
//! Within one map the most specific key decides: a name beats a server, a server a group, a group `*`. Of equally specific ones
//! the lowest decides. A nested `*` is as specific as the key that it stands under: it is what the key would say alone.
//! A server that has the name of a group is meant by `SERVER/*`.

use super::problem::{Problem, Problems, join, shown, shown_text};
use crate::glob::{Glob, PATTERN_MAX};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Keys of one map, nested ones included.
pub const KEYS_MAX: usize = 1000;
/// The longest key, in bytes.
pub const KEY_MAX: usize = 256;

/// What a map says of a call, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// It is not made.
    Deny,
    /// Somebody is asked first. `escalate` is another name of it.
    #[serde(alias = "escalate")]
    Ask,
    /// It may be made, as far as this map goes.
    Allow,
}

impl Grant {
    /// The grant of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "deny" => Some(Grant::Deny),
            "ask" | "escalate" => Some(Grant::Ask),
            "allow" => Some(Grant::Allow),
            _ => None,
        }
    }

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Grant::Deny => "deny",
            Grant::Ask => "ask",
            Grant::Allow => "allow",
        }
    }
}

/// A call, as far as permissions see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A call of a tool.
    Tool {
        /// The server that has it.
        server: &'a str,
        /// The tool; none if the catalogue does not list it, for then its name is only what the worker says.
        tool: Option<&'a str>,
        /// Whether it only reads.
        is_read: bool,
        /// Whether it runs commands.
        is_bash: bool,
    },
    /// Any other request to a server: resources, prompts.
    Server {
        /// The server.
        server: &'a str,
        /// Whether it only reads.
        is_read: bool,
    },
    /// A call of an LLM engine.
    Engine {
        /// Which.
        id: &'a str,
    },
    /// Work handed to a delegate.
    Delegate {
        /// Its slug.
        slug: &'a str,
    },
    /// Anything else.
    Other,
}

/// One map, read strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionMap {
    rules: Vec<Rule>,
    notes: Vec<String>,
}

/// One key of a map with what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    key: String,
    group: Group,
    names: Names,
    grant: Grant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Any,
    Bash,
    Read,
    Engine,
    Task,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    Server(String),
    Tool(Glob, Glob),
    /// An engine or a delegate.
    One(Glob),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Any,
    Group,
    Server,
    Name,
}

impl PermissionMap {
    /// Reads a map. The errors name the key as a JSON pointer, and the value.
    pub fn read(value: &Value) -> Result<Self, Vec<String>> {
        let told = |problem: Problem| format!("`{}`: {}", problem.pointer, problem.message);
        Self::read_at(value, "").map_err(|problems| problems.into_iter().map(told).collect())
    }

    /// Reads the map that stands at `pointer` of a document.
    pub fn read_at(value: &Value, pointer: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let Some(members) = value.as_object() else {
            problems.push(pointer, format!("a permission map is an object, not {}", shown(Some(value))));
            return problems.or(Self::default());
        };
        let count = members.values().map(|value| value.as_object().map_or(1, |nested| 1 + nested.len())).sum::<usize>();
        if count > KEYS_MAX {
            problems.push(pointer, format!("{count} keys, and a permission map has at most {KEYS_MAX}"));
            return problems.or(Self::default());
        }
        let mut map = Self::default();
        for (key, value) in members {
            let at = join(pointer, key);
            match Rule::outer(key) {
                Ok(outer) => map.take_in(outer, value, &at, &mut problems),
                Err(why) => problems.push(at, why),
            }
        }
        problems.or(map)
    }

    fn take_in(&mut self, outer: Rule, value: &Value, at: &str, problems: &mut Problems) {
        let nested = match value {
            Value::Object(nested) => nested,
            value => match grant(value) {
                Ok(grant) => return self.say(Rule { grant, ..outer }),
                Err(why) => return problems.push(at, why),
            },
        };
        if matches!(outer.names, Names::Tool(..)) {
            return problems.push(at, format!("{} names tools: it has a grant, not a map", shown_text(&outer.key)));
        }
        if !nested.contains_key("*") {
            self.notes.push(format!("{} says nothing of what its map does not name: it has no `*`", outer.key));
        }
        self.take_nested(&outer, nested, at, problems);
    }

    fn take_nested(&mut self, outer: &Rule, nested: &Map<String, Value>, at: &str, problems: &mut Problems) {
        for (key, value) in nested {
            let rule = outer.inner(key).and_then(|rule| Ok(Rule { grant: grant(value)?, ..rule }));
            match rule {
                Ok(rule) => self.say(rule),
                Err(_) if value.is_object() => problems.push(join(at, key), "nested deeper than one level"),
                Err(why) => problems.push(join(at, key), why),
            }
        }
    }

    fn say(&mut self, rule: Rule) {
        if rule.names.is_all_tools() {
            self.notes.push(format!("{} is about tools: resources and prompts of the server are not meant", rule.key));
        }
        self.rules.push(rule);
    }

    /// What it says of a call; nothing if no key is about it. Of a tool that the catalogue does not list, every key that may be
    /// about it counts, and such a key only lowers.
    pub fn grant(&self, target: &Target<'_>) -> Option<Grant> {
        let decided = decide(self.rules.iter().filter(|rule| rule.is_about(target)));
        let Target::Tool { server, tool: None, .. } = target else { return decided };
        let possible = self.rules.iter().filter(|rule| rule.names.may_be_of(server)).map(|rule| rule.grant);
        possible.chain(decided).min()
    }

    /// What it says of everything that a key of another map is about; nothing if no key is about all of that.
    pub fn grant_of(&self, key: &Rule) -> Option<Grant> {
        decide(self.rules.iter().filter(|rule| rule.covers(key)))
    }

    /// Its keys, in the order of the map.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What its author may not have meant, in plain English.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The most specific rules decide; of equally specific ones the lowest.
fn decide<'r>(rules: impl Iterator<Item = &'r Rule>) -> Option<Grant> {
    rules.map(|rule| (std::cmp::Reverse(rule.rank()), rule.grant)).min().map(|(_, grant)| grant)
}

impl Rule {
    /// The key as it is told: `git/push`, or `task: reviewer` of a nested one.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it says.
    pub fn grant(&self) -> Grant {
        self.grant
    }

    /// Whether it names something, and is not about all of a group.
    pub(super) fn names_one(&self) -> bool {
        !matches!(self.names, Names::All)
    }

    /// A key of a map. It says nothing yet.
    fn outer(key: &str) -> Result<Self, String> {
        check_length(key)?;
        let (group, names) = match key {
            "*" => (Group::Any, Names::All),
            "bash" => (Group::Bash, Names::All),
            "read" => (Group::Read, Names::All),
            "engine" => (Group::Engine, Names::All),
            "task" => (Group::Task, Names::All),
            _ if key.contains('/') => (Group::Any, tools(key)?),
            _ if is_server(key, "") => (Group::Any, Names::Server(key.to_owned())),
            _ => return Err(format!("{} is no server, no SERVER/TOOL and no group of actions", shown_text(key))),
        };
        Ok(Self { key: key.to_owned(), group, names, grant: Grant::Deny })
    }

    /// A key of the map that stands under this one.
    fn inner(&self, key: &str) -> Result<Self, String> {
        check_length(key)?;
        let names = match (&self.names, self.group) {
            (names, _) if key == "*" => names.clone(),
            (Names::Server(server), _) => Names::Tool(pattern(server)?, pattern(key)?),
            (_, Group::Engine | Group::Task) => Names::One(pattern(key)?),
            _ => tools(key)?,
        };
        Ok(Self { key: format!("{}: {key}", self.key), group: self.group, names, grant: Grant::Deny })
    }

    fn rank(&self) -> Rank {
        match (&self.names, self.group) {
            (Names::Tool(..) | Names::One(_), _) => Rank::Name,
            (Names::Server(_), _) => Rank::Server,
            (Names::All, Group::Any) => Rank::Any,
            (Names::All, _) => Rank::Group,
        }
    }

    pub(super) fn is_about(&self, target: &Target<'_>) -> bool {
        let in_group = match (self.group, target) {
            (Group::Any, _) => true,
            (Group::Bash, Target::Tool { is_bash, .. }) => *is_bash,
            (Group::Read, Target::Tool { is_read, .. } | Target::Server { is_read, .. }) => *is_read,
            (Group::Engine, Target::Engine { .. }) | (Group::Task, Target::Delegate { .. }) => true,
            _ => false,
        };
        in_group
            && match (&self.names, target) {
                (Names::All, _) => true,
                (Names::Server(named), Target::Tool { server, .. } | Target::Server { server, .. }) => named == server,
                (Names::Tool(of, named), Target::Tool { server, tool: Some(tool), .. }) => {
                    of.matches(server) && named.matches(tool)
                }
                (Names::One(named), Target::Engine { id: name } | Target::Delegate { slug: name }) => {
                    named.matches(name)
                }
                _ => false,
            }
    }

    fn covers(&self, other: &Rule) -> bool {
        (self.group == Group::Any || self.group == other.group)
            && match (&self.names, &other.names) {
                (Names::All, _) => true,
                (Names::Server(one), Names::Server(other)) => one == other,
                (Names::Server(one), Names::Tool(of, _)) => one == of.as_str(),
                (Names::Tool(of, tool), Names::Tool(other, other_tool)) => of.covers(other) && tool.covers(other_tool),
                (Names::One(one), Names::One(other)) => one.covers(other),
                _ => false,
            }
    }
}

impl Names {
    fn may_be_of(&self, server: &str) -> bool {
        matches!(self, Names::Tool(of, _) if of.matches(server))
    }

    fn is_all_tools(&self) -> bool {
        matches!(self, Names::Tool(_, tool) if tool.as_str() == "*")
    }
}

fn check_length(key: &str) -> Result<(), String> {
    match key.len() {
        0 => Err("an empty key".to_owned()),
        length if length > KEY_MAX => {
            Err(format!("the key {} has {length} bytes, and may have {KEY_MAX}", shown_text(key)))
        }
        _ => Ok(()),
    }
}

/// `SERVER/TOOL`. Names of tools may hold a `/`, those of servers never do.
fn tools(key: &str) -> Result<Names, String> {
    match key.split_once('/') {
        Some((server, tool)) if is_server(server, "*?") && !tool.is_empty() => {
            Ok(Names::Tool(pattern(server)?, pattern(tool)?))
        }
        _ => Err(format!("{} is no SERVER/TOOL", shown_text(key))),
    }
}

fn pattern(text: &str) -> Result<Glob, String> {
    let too_long = || format!("the pattern {} has more than {PATTERN_MAX} characters", shown_text(text));
    Glob::new(text).ok_or_else(too_long)
}

fn is_server(name: &str, wild: &str) -> bool {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-') || wild.contains(c);
    !name.is_empty() && name.chars().all(allowed)
}

fn grant(value: &Value) -> Result<Grant, String> {
    let named = value.as_str().and_then(Grant::named);
    named.ok_or_else(|| format!("{} is none of deny, ask, allow", shown(Some(value))))
}
