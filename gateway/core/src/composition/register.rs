//! Registration: a document is read strictly and as a whole, before anybody is bound to it. What the resolver lets pass where it
//! has no effect is refused here: a fault in a node that is shadowed today decides tomorrow, when the first one goes.

use super::nodes::{Node, Said, Shadowed, Widening, build, shadowed};
use super::permission::PermissionMap;
use super::problem::{Problem, Problems, join, shown, shown_text};
use super::resolve::{MODEL_CLASSES, RuntimeAgentConfig, ToolSelection, checked_tool, is_blank, project};
use super::tree::{Tree, TreeNode, is_within, present, text};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The document as a whole is nested at most this deep, in levels of JSON: hashing it recurses.
pub const JSON_DEPTH_MAX: usize = 256;
/// Slugs and versions are at most this long, in characters.
pub const SLUG_MAX: usize = 64;

const DOCUMENT_MEMBERS: [&str; 3] = ["slug", "version", "root"];
const NODE_MEMBERS: [&str; 10] =
    ["agent", "skills", "tools", "instructions", "permission", "modelOverride", "alias", "children", "ref", "$ref"];
const MODEL_MEMBERS: [&str; 5] = ["kind", "modelId", "modelClass", "providerSlug", "temperature"];
const TOOL_MEMBERS: [&str; 4] = ["kind", "providerKind", "resourceId", "toolName"];

/// How large a composition may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Nodes on the way from the root to the deepest one, both included.
    pub depth: usize,
    /// Children of a node.
    pub fan_out: usize,
    /// Nodes.
    pub nodes: usize,
    /// A node's instructions, in characters.
    pub instructions: usize,
    /// Skills of a node.
    pub skills: usize,
    /// Entries of a node's choice of tools.
    pub tools: usize,
    /// Keys of all permission maps together. One map has at most [`super::permission::KEYS_MAX`].
    pub keys: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { depth: 16, fan_out: 64, nodes: 1000, instructions: 32 << 10, skills: 256, tools: 256, keys: 4000 }
    }
}

/// A document that was found good.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The composition's slug.
    pub slug: String,
    /// Its version.
    pub version: String,
    /// The hash of the document's [`canonical`] bytes.
    pub hash: String,
    /// What a worker runs with, without a step's overlay.
    pub config: RuntimeAgentConfig,
    /// Nodes that the projection leaves out.
    pub shadowed: Vec<Shadowed>,
    /// Keys that say more than takes effect.
    pub widening: Vec<Widening>,
    /// What its author may not have meant, in plain English, with the place.
    pub notes: Vec<String>,
    /// Its nodes, the root first, each after the one above it.
    pub nodes: Vec<Node>,
}

impl Checked {
    /// The node at a path; the root's is empty.
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.path == path)
    }
}

/// Checks a resolved document. `kinds` are the kinds of provider that exist, `classes` the model classes that something serves: one
/// that nothing does is noted. `hash` is a digest of bytes as text. The error is every problem, at most
/// [`super::problem::PROBLEMS_MAX`]; of a tree that is too large or too deep only that.
pub fn check(
    document: &Value,
    caps: &Caps,
    kinds: &[String],
    classes: &BTreeSet<String>,
    hash: impl Fn(&[u8]) -> String,
) -> Result<Checked, Vec<Problem>> {
    let tree = Tree::read(document);
    check_size(document, &tree, caps)?;
    let mut reader =
        Reader { tree: &tree, caps, kinds, classes, problems: Problems::default(), notes: Vec::new(), keys: 0 };
    reader.document(document);
    let said: Vec<Said> = tree.nodes().iter().enumerate().map(|(at, node)| reader.node(at, node)).collect();
    let Reader { problems, notes, .. } = reader;
    problems.or(())?;
    let config = project(&tree, None, kinds)
        .map_err(|error| vec![Problem { pointer: String::new(), message: error.to_string() }])?;
    let (nodes, widening) = build(&tree, &said, &config);
    let member = |name| text(document.get(name)).unwrap_or_default().to_owned();
    let (slug, version, hash) = (member("slug"), member("version"), hash(&canonical(document)));
    Ok(Checked { slug, version, hash, config, shadowed: shadowed(&tree), widening, notes, nodes })
}

/// A document as bytes that do not depend on the order of its members: JSON without space, members sorted. It is hashed.
pub fn canonical(document: &Value) -> Vec<u8> {
    sorted(document).to_string().into_bytes()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            members.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}

fn check_size(document: &Value, tree: &Tree<'_>, caps: &Caps) -> Result<(), Vec<Problem>> {
    let mut problems = Problems::default();
    let count = tree.nodes().len();
    if count > caps.nodes {
        problems.push("/root", format!("{count} nodes, and a composition has at most {}", caps.nodes));
    }
    if let Some(at) = tree.nodes().iter().position(|node| node.depth() > caps.depth) {
        problems.push(tree.pointer(at), format!("deeper than {} nodes, the root included", caps.depth));
    } else if !is_within(document, JSON_DEPTH_MAX) {
        problems.push("", format!("nested deeper than {JSON_DEPTH_MAX} levels"));
    }
    problems.or(())
}

struct Reader<'a> {
    tree: &'a Tree<'a>,
    caps: &'a Caps,
    kinds: &'a [String],
    classes: &'a BTreeSet<String>,
    problems: Problems,
    notes: Vec<String>,
    keys: usize,
}

impl Reader<'_> {
    fn document(&mut self, document: &Value) {
        let Some(members) = document.as_object() else {
            return self.problems.push("", format!("a composition is an object, not {}", shown(Some(document))));
        };
        self.only(members, &DOCUMENT_MEMBERS, "");
        self.slug(members.get("slug"), "", "/slug");
        self.slug(members.get("version"), "+", "/version");
    }

    fn node(&mut self, at: usize, node: &TreeNode<'_>) -> Said {
        let pointer = self.tree.pointer(at);
        let Some(members) = node.members() else {
            self.problems.push(pointer, "a node is an object");
            return Said::default();
        };
        self.only(members, &NODE_MEMBERS, &pointer);
        if self.is_reference(node, &pointer) {
            return Said::default();
        }
        self.lists(node, &pointer);
        self.texts(node, &pointer);
        self.model(node.get("modelOverride"), &format!("{pointer}/modelOverride"));
        let agent = node.get("agent");
        match agent {
            Some(Value::Object(agent)) => self.slug(agent.get("slug"), "", &format!("{pointer}/agent/slug")),
            other => {
                self.problems.push(format!("{pointer}/agent"), format!("an agent is an object, not {}", shown(other)))
            }
        }
        Said {
            authored: self.map(agent.and_then(|agent| agent.get("permission")), &format!("{pointer}/agent/permission")),
            own: self.map(node.get("permission"), &format!("{pointer}/permission")),
            tools: self.tools(node.list("tools"), &format!("{pointer}/tools")),
        }
    }

    fn only(&mut self, members: &Map<String, Value>, known: &[&str], pointer: &str) {
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            self.problems.push(join(pointer, name), format!("unknown member {}", shown_text(name)));
        }
    }

    /// Members that change nothing, where whoever writes compositions may leave more than is read.
    fn note_rest(&mut self, value: &Value, known: &[&str], pointer: &str) {
        let rest = value.as_object().into_iter().flatten().filter(|(name, _)| !known.contains(&name.as_str()));
        self.notes.extend(rest.map(|(name, _)| format!("{}: not read", join(pointer, name))));
    }

    fn slug(&mut self, value: Option<&Value>, more: &str, pointer: &str) {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || more.contains(c);
        let is_good = |slug: &&str| (1..=SLUG_MAX).contains(&slug.chars().count()) && slug.chars().all(good);
        if text(value).filter(is_good).is_none() {
            let quotes = if value.is_some_and(Value::is_number) { ": write it in quotes" } else { "" };
            let why =
                format!("a text of 1 to {SLUG_MAX} letters, digits and any of ._-{more}, not {}{quotes}", shown(value));
            self.problems.push(pointer, why);
        }
    }

    /// Trees are registered whole: a node that stands for another composition is never looked up.
    fn is_reference(&mut self, node: &TreeNode<'_>, pointer: &str) -> bool {
        let found = ["ref", "$ref"].into_iter().find_map(|name| node.members()?.get(name).map(|value| (name, value)));
        let Some((name, value)) = found else { return false };
        let is_own = value.as_str().is_some_and(|named| named == self.tree.reference() || named == self.tree.slug());
        let kind = if is_own { "cyclic reference" } else { "unknown reference" };
        self.problems.push(join(pointer, name), format!("{kind} {}: a tree is registered whole", shown(Some(value))));
        true
    }

    fn lists(&mut self, node: &TreeNode<'_>, pointer: &str) {
        let caps = [("children", self.caps.fan_out), ("skills", self.caps.skills), ("tools", self.caps.tools)];
        for (name, cap) in caps {
            let at = format!("{pointer}/{name}");
            match node.get(name) {
                Some(Value::Array(items)) if items.len() > cap => {
                    self.problems.push(at, format!("{} {name}, and a node has at most {cap}", items.len()));
                }
                None | Some(Value::Array(_)) => {}
                other => self.problems.push(at, format!("{name} is a list, not {}", shown(other))),
            }
        }
        for (nth, skill) in node.list("skills").iter().enumerate().filter(|(_, skill)| is_blank(skill.get("slug"))) {
            let why = format!("a skill has a slug, not {}", shown(skill.get("slug")));
            self.problems.push(format!("{pointer}/skills/{nth}"), why);
        }
    }

    fn texts(&mut self, node: &TreeNode<'_>, pointer: &str) {
        for (name, cap) in [("instructions", self.caps.instructions), ("alias", SLUG_MAX)] {
            let at = format!("{pointer}/{name}");
            match node.get(name) {
                Some(Value::String(text)) => {
                    let length = text.chars().count();
                    if length > cap {
                        self.problems.push(at, format!("{length} characters, and {name} has at most {cap}"));
                    }
                }
                None => {}
                other => self.problems.push(at, format!("{name} is a text, not {}", shown(other))),
            }
        }
    }

    fn model(&mut self, model: Option<&Value>, pointer: &str) {
        let Some(model) = model else { return };
        let member = |name: &str| present(model.get(name));
        match text(member("kind")) {
            Some("concrete") if is_blank(member("modelId")) => {
                let why = format!("concrete modelOverride is missing a modelId, it has {}", shown(member("modelId")));
                self.problems.push(format!("{pointer}/modelId"), why);
            }
            Some("concrete") => {}
            Some("strategy") => self.class(member("modelClass"), &format!("{pointer}/modelClass")),
            _ => {
                let why =
                    format!("modelOverride.kind must be \"concrete\" or \"strategy\", not {}", shown(member("kind")));
                self.problems.push(format!("{pointer}/kind"), why);
            }
        }
        if member("providerSlug").is_some() && is_blank(member("providerSlug")) {
            let why = format!("providerSlug is a text, not {}", shown(member("providerSlug")));
            self.problems.push(format!("{pointer}/providerSlug"), why);
        }
        if member("temperature").is_some_and(|value| !value.is_number()) {
            let why = format!("temperature is a number, not {}", shown(member("temperature")));
            self.problems.push(format!("{pointer}/temperature"), why);
        }
        self.note_rest(model, &MODEL_MEMBERS, pointer);
    }

    fn class(&mut self, class: Option<&Value>, pointer: &str) {
        match text(class).filter(|class| MODEL_CLASSES.contains(class)) {
            None => {
                let classes = MODEL_CLASSES.join(", ");
                let why = format!("strategy modelOverride.modelClass must be one of {classes}, not {}", shown(class));
                self.problems.push(pointer, why);
            }
            Some(class) if !self.classes.contains(class) => {
                self.notes.push(format!("{pointer}: nothing serves the model class {class}"));
            }
            Some(_) => {}
        }
    }

    fn map(&mut self, value: Option<&Value>, pointer: &str) -> Option<Arc<PermissionMap>> {
        match PermissionMap::read_at(present(value)?, pointer) {
            Ok(map) => {
                let before = self.keys;
                self.keys += map.rules().len();
                if before <= self.caps.keys && self.keys > self.caps.keys {
                    let why = format!("more than {} keys in the permission maps so far", self.caps.keys);
                    self.problems.push(pointer, why);
                }
                self.notes.extend(map.notes().iter().map(|note| format!("{pointer}: {note}")));
                Some(Arc::new(map))
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    fn tools(&mut self, entries: &[Value], pointer: &str) -> Vec<ToolSelection> {
        let mut tools = Vec::new();
        for (nth, entry) in entries.iter().enumerate() {
            match checked_tool(entry, nth, self.kinds) {
                Ok(tool) => tools.push(tool),
                Err((name, why)) => {
                    let why = format!("{why}, not {}", shown(entry.get(name)));
                    self.problems.push(format!("{pointer}/{nth}/{name}"), why);
                }
            }
            let at = format!("{pointer}/{nth}");
            self.note_rest(entry, &TOOL_MEMBERS, &at);
            if text(entry.get("kind")) == Some("provider") && entry.get("toolName").is_some() {
                self.notes.push(format!("{at}/toolName: not read, a provider is chosen with all its tools"));
            }
        }
        tools
    }
}
