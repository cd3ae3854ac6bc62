//! The tool catalogue: what Warden knows of each tool, from a server's listing and from operators.
//!
//! A server's own annotations are shown to operators as a suggestion and never trusted: only an operator sets an
//! effect, and a tool without one counts as `irreversible`.

pub mod alike;
pub mod authority;
pub mod input;
pub mod recorded;
pub mod ty;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How much a tool can do. Ordered from harmless to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Changes something that can be changed back.
    Write,
    /// Cannot be taken back, or nobody has said.
    Irreversible,
    /// Touches production.
    Production,
}

impl Effect {
    /// All of them.
    pub const ALL: [Effect; 4] = [Effect::Read, Effect::Write, Effect::Irreversible, Effect::Production];

    /// The name in Cedar, JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Effect::Read => "read",
            Effect::Write => "write",
            Effect::Irreversible => "irreversible",
            Effect::Production => "production",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Effect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|effect| effect.name() == text)
            .ok_or_else(|| format!("unknown effect `{text}`: read, write, irreversible or production"))
    }
}

/// One tool of one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// The definition as the server listed it: name, description, `inputSchema`, annotations and all the rest.
    pub definition: Value,
    /// SHA-256 of the definition, `sha256:` and hex.
    pub hash: String,
    /// Set by operators; unset counts as `irreversible`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Whether it reaches beyond the machines its operators run; unset counts as true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world: Option<bool>,
    /// Arguments that are paths besides those with a usual name (see [`is_path_name`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Groups it is in besides its server's: `bash` for what runs commands. Set by operators, for compositions.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Arguments that carry authority: whom something is sent to, what is acted on. As its schema suggests when nobody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Vec<String>>,
    /// A different definition that the server listed later; waits for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Value>,
    /// The hash of a different definition that an operator has dismissed: the tool is held until its server lists the known one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dismissed: Option<String>,
}

impl Tool {
    /// A tool as listed, with nothing said about it.
    pub fn listed(definition: Value) -> Self {
        let hash = hash_of(&definition);
        Self {
            definition,
            hash,
            effect: None,
            open_world: None,
            paths: Vec::new(),
            groups: BTreeSet::new(),
            authority: None,
            changed: None,
            dismissed: None,
        }
    }

    /// What policy sees.
    pub fn effect(&self) -> Effect {
        self.effect.unwrap_or(Effect::Irreversible)
    }

    /// The effect that the server's own annotations claim. A suggestion for operators, never used in a decision.
    pub fn suggestion(&self) -> Effect {
        let hint = |name: &str| self.definition.pointer(&format!("/annotations/{name}")).and_then(Value::as_bool);
        // Absent hints take MCP's defaults: not read-only, destructive.
        match (hint("readOnlyHint").unwrap_or(false), hint("destructiveHint").unwrap_or(true)) {
            (true, _) => Effect::Read,
            (false, false) => Effect::Write,
            (false, true) => Effect::Irreversible,
        }
    }

    /// Arguments that its schema has repeated in headers: `x-mcp-header`, reached through `properties` alone (MCP
    /// 2026-07-28, "Streamable HTTP").
    pub fn header_params(&self) -> Vec<HeaderParam> {
        let mut found = Vec::new();
        let schema = self.definition.get("inputSchema").unwrap_or(&Value::Null);
        collect_header_params(schema, &mut Vec::new(), &mut found);
        found
    }

    /// Its arguments that carry authority: as an operator said or, until one has, as its definition suggests.
    pub fn marks(&self) -> authority::Marks {
        if let Some(names) = &self.authority {
            return authority::Marks::of_names(names);
        }
        let text = |name: &str| self.definition.get(name).and_then(Value::as_str);
        let schema = self.definition.get("inputSchema").unwrap_or(&Value::Null);
        authority::marks(text("name").unwrap_or_default(), schema, text("description"), self.effect)
    }

    /// The type of its arguments.
    pub fn input(&self) -> ty::Ty {
        self.definition.get("inputSchema").map_or(ty::Ty::Unseen, ty::Ty::of_input_schema)
    }
}

/// An argument that a modern client repeats in a header of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderParam {
    /// The header's name after `Mcp-Param-`.
    pub header: String,
    /// Where the argument stands, name by name.
    pub path: Vec<String>,
}

/// Deeper than this no argument is looked for.
const HEADER_DEPTH_MAX: usize = 8;

fn collect_header_params(schema: &Value, path: &mut Vec<String>, found: &mut Vec<HeaderParam>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    if path.len() == HEADER_DEPTH_MAX {
        return;
    }
    for (name, schema) in properties.into_iter().flatten() {
        path.push(name.clone());
        if let Some(header) = schema.get("x-mcp-header").and_then(Value::as_str) {
            found.push(HeaderParam { header: header.to_owned(), path: path.clone() });
        }
        collect_header_params(schema, path, found);
        path.pop();
    }
}

/// All known tools, by server and name. The data folder's `catalogue.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// By server, then by tool.
    pub servers: BTreeMap<String, BTreeMap<String, Tool>>,
    /// Definitions that were listed later, by server and tool. Until an operator approves them they are unlisted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<String, BTreeMap<String, Value>>,
}

/// More new tools of one server are not kept for an operator to look at.
const WAITING_MAX: usize = 1_000;

/// What a listing changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Tools that were catalogued, because the server had none yet.
    pub added: Vec<String>,
    /// Tools that appeared or changed later, and wait for an operator.
    pub waiting: Vec<String>,
    /// Names that cannot be catalogued, with why.
    pub refused: Vec<String>,
    /// Known tools that waited already, and are listed with yet another definition.
    pub again: Vec<String>,
    /// Known tools that are listed as they are known again, after an operator has dismissed the other definition.
    pub returned: Vec<String>,
}

impl Catalogue {
    /// One tool.
    pub fn tool(&self, server: &str, name: &str) -> Option<&Tool> {
        self.servers.get(server)?.get(name)
    }

    /// Takes in one page of a server's `tools/list`. The first listing fills the catalogue with effects unset;
    /// a later difference is noted and waits.
    pub fn learn(&mut self, server: &str, tools: &[Value], first: bool) -> Learnt {
        let mut learnt = Learnt::default();
        let known = self.servers.entry(server.to_owned()).or_default();
        for definition in tools {
            let Some(name) = definition.get("name").and_then(Value::as_str) else {
                learnt.refused.push("a tool without a name".into());
                continue;
            };
            if let Err(why) = tool_name(name) {
                learnt.refused.push(why);
                continue;
            }
            match known.get_mut(name) {
                None if first => {
                    known.insert(name.to_owned(), Tool::listed(definition.clone()));
                    learnt.added.push(name.to_owned());
                }
                None => {
                    let waiting = self.waiting.entry(server.to_owned()).or_default();
                    if waiting.len() >= WAITING_MAX && !waiting.contains_key(name) {
                        learnt.refused.push(format!("more than {WAITING_MAX} tools wait for an operator"));
                    } else if waiting.insert(name.to_owned(), definition.clone()).as_ref() != Some(definition) {
                        learnt.waiting.push(name.to_owned());
                    }
                }
                Some(tool) if tool.hash == hash_of(definition) => {
                    // What was listed in between still waits for an operator, unless one has dismissed it: a server could show one
                    // definition now and another then.
                    if tool.dismissed.take().is_some() {
                        tool.changed = None;
                        learnt.returned.push(name.to_owned());
                    }
                }
                Some(tool) => {
                    if tool.changed.as_ref() != Some(definition) {
                        // Whoever changes it again and again is noted once.
                        let news = if tool.changed.is_none() { &mut learnt.waiting } else { &mut learnt.again };
                        news.push(name.to_owned());
                        if tool.dismissed.as_ref() != Some(&hash_of(definition)) {
                            tool.dismissed = None;
                        }
                        tool.changed = Some(definition.clone());
                    }
                }
            }
        }
        learnt
    }

    /// SHA-256 of the whole, `sha256:` and hex.
    pub fn digest(&self) -> String {
        let mut servers = json!(self.servers);
        // That a tool is listed otherwise matters, and not how.
        for tool in servers.as_object_mut().into_iter().flat_map(|s| s.values_mut()).filter_map(Value::as_object_mut) {
            for tool in tool.values_mut().filter(|tool| tool.get("changed").is_some()) {
                tool["changed"] = true.into();
            }
        }
        hash_of(&servers)
    }
}

/// SHA-256 over the value's JSON with sorted members, `sha256:` and hex.
pub fn hash_of(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    sha256_hex(sorted.to_string().as_bytes())
}

/// `sha256:` and hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    push_hex(&mut text, &Sha256::digest(bytes));
    text
}

/// Appends lower-case hex.
pub fn push_hex(text: &mut String, bytes: &[u8]) {
    use fmt::Write;
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
}

/// The bytes that hex stands for.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    is_hex.then(|| digits.chunks(2).map(pair).collect()).flatten()
}

/// Whether an argument of this name is taken for a path unless the catalogue says more.
pub fn is_path_name(name: &str) -> bool {
    matches!(name, "path" | "paths" | "source" | "destination" | "uri" | "file")
}

/// A server's name: lower-case letters, digits, `.`, `_`, `-`, at most 64. A `/` would make two tools one action.
pub fn server_name(name: &str) -> Result<(), String> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if name == "call_tool" {
        return Err("server name `call_tool` is reserved".into());
    }
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fine) {
        return Err(format!("server name `{}`: use 1 to 64 of a-z, 0-9, `.`, `_`, `-`", name.escape_debug()));
    }
    Ok(())
}

/// Control characters, marks of direction, and what has no width.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A tool's name: 1 to 128 characters, not `*` (the group's name), nothing that cannot be seen.
pub fn tool_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > 128 || name == "*" || name.chars().any(is_invisible) {
        return Err(format!(
            "tool name `{}`: it must have 1 to 128 visible characters and not be `*`",
            name.escape_debug().take(160).collect::<String>()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_file() -> Value {
        json!({"name": "read", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}})
    }

    #[test]
    fn the_first_listing_fills_and_later_differences_wait() {
        let mut catalogue = Catalogue::default();
        assert_eq!(catalogue.learn("fs", &[read_file()], true).added, ["read"]);
        assert_eq!(catalogue.tool("fs", "read").unwrap().effect(), Effect::Irreversible);
        assert_eq!(catalogue.tool("fs", "read").unwrap().suggestion(), Effect::Read);
        let mut changed = read_file();
        changed["description"] = json!("now with more");
        let before = catalogue.tool("fs", "read").unwrap().hash.clone();
        let later = catalogue.learn("fs", &[changed, json!({"name": "new"})], false);
        assert_eq!((later.added.len(), later.waiting), (0, vec!["read".to_owned(), "new".to_owned()]));
        assert_eq!(catalogue.tool("fs", "read").unwrap().hash, before);
        assert!(catalogue.tool("fs", "new").is_none());
        assert!(catalogue.waiting["fs"].contains_key("new"));
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        for name in ["*", "", "a\u{202e}b", "a\nb", "\u{200b}"] {
            assert!(tool_name(name).is_err(), "{name:?}");
        }
        for name in ["a/b", "a-b.c", "a/*", "日本", "if"] {
            assert!(tool_name(name).is_ok(), "{name}");
        }
        for name in ["a/b", "A", "", "call_tool", "é"] {
            assert!(server_name(name).is_err(), "{name}");
        }
    }
}
