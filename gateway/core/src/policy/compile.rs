//! The composition layer: what a node may do at most, written as Cedar permits.
//!
//! allow → a permit, ask → a permit when acknowledged, deny → nothing. Written anew for each snapshot, so that a tool that is catalogued or
//! classified later is held against the same keys. Nodes that may do the same share one layer, named by what it says.

use super::entities::uid;
use super::layer::SourceFile;
use super::snapshot::{Source, Worker};
use crate::catalogue::{Effect, Tool, sha256_hex};
use crate::composition::effective::Effective;
use crate::composition::nodes::Node;
use crate::composition::permission::{Grant, Target};
use crate::glob::fits;
use crate::proposal::{DoneTo, Verb};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The same source with every node of bound compositions as a worker, and the layers of all of them.
pub(super) fn with_nodes(mut source: Source) -> Source {
    let mut nodes = Vec::new();
    let mut layers = BTreeMap::new();
    let bound = source.workers.iter().enumerate();
    let bound: Vec<(usize, String)> =
        bound.filter_map(|(at, worker)| Some((at, worker.composition.clone()?))).collect();
    for (at, reference) in bound {
        // One that is not registered is bound to nothing, which denies everything.
        let Some(tree) = source.trees.get(&reference).cloned() else { continue };
        let root = source.workers[at].clone();
        for node in &tree.nodes {
            let name = if node.path.is_empty() { root.name.clone() } else { format!("{}/{}", root.name, node.path) };
            let below: Vec<(String, &str)> = tree
                .nodes
                .iter()
                .filter(|below| is_below(&below.path, &node.path))
                .map(|below| (format!("{}/{}", root.name, below.path), below.slug.as_str()))
                .collect();
            let text = Writer { source: &source, effective: &node.effective }.layer(node, &below);
            let digest = sha256_hex(text.as_bytes());
            let layer = format!("{reference}/{}", &digest[7..39]);
            let file = SourceFile { name: format!("composition/{layer}.cedar"), text };
            layers.insert(layer.clone(), vec![file]);
            match node.path.is_empty() {
                true => source.workers[at].composition = Some(layer),
                false => nodes.push(Worker { name, composition: Some(layer), ..root.clone() }),
            }
        }
    }
    source.workers.extend(nodes);
    source.compositions.extend(layers);
    source
}

/// By worker or node: the whole names of the nodes below it.
pub(super) fn nodes(source: &Source) -> BTreeMap<String, Vec<String>> {
    let mut below: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in source.workers.iter().filter(|worker| worker.name.contains('/')) {
        for (at, _) in node.name.match_indices('/') {
            below.entry(node.name[..at].to_owned()).or_default().push(node.name.clone());
        }
    }
    below
}

fn is_below(path: &str, above: &str) -> bool {
    match path.strip_prefix(above) {
        Some(rest) if above.is_empty() => !rest.is_empty(),
        Some(rest) => rest.starts_with('/'),
        None => false,
    }
}

struct Writer<'s> {
    source: &'s Source,
    effective: &'s Effective,
}

/// What is granted, by what it is granted on.
#[derive(Default)]
struct Granted {
    allow: Vec<String>,
    ask: Vec<String>,
}

impl Granted {
    fn add(&mut self, grant: Grant, action: String) {
        match grant {
            Grant::Allow => self.allow.push(action),
            Grant::Ask => self.ask.push(action),
            Grant::Deny => {}
        }
    }
}

impl Writer<'_> {
    fn layer(&self, node: &Node, below: &[(String, &str)]) -> String {
        let mut text = String::from("// What this node may do at most. Written by Warden from its composition.\n");
        for server in &self.source.servers {
            self.server(&mut text, server);
        }
        self.engines(&mut text, node.model.as_ref());
        self.delegates(&mut text, below);
        let rest = self.effective.grant(&Target::Other);
        let actions =
            [Verb::WriteState.action(), Verb::StartSession.action(), "inbox"].map(|name| literal("Action", name));
        permit(&mut text, rest, "other", &format!("action in [{}]", actions.join(", ")), "resource", "");
        text
    }

    /// Nodes below that are all granted alike are one policy, so that nodes that may do the same have one layer: which are below is in the
    /// question already.
    fn delegates(&self, text: &mut String, below: &[(String, &str)]) {
        let action = "action == Action::\"start_delegate\"";
        let grants: Vec<Grant> =
            below.iter().map(|(_, slug)| self.effective.grant(&Target::Delegate { slug })).collect();
        match grants.as_slice() {
            [] => {}
            [first, rest @ ..] if rest.iter().all(|grant| grant == first) => {
                permit(text, *first, "delegates", action, "resource", "")
            }
            _ => below.iter().zip(grants).for_each(|((name, _), grant)| {
                permit(text, grant, &format!("delegate {name}"), action, &on("Worker", name), "");
            }),
        }
    }

    fn tools<'t>(&'t self, server: &'t str) -> impl Iterator<Item = (&'t String, &'t Tool)> {
        self.source.catalogue.servers.get(server).into_iter().flatten()
    }

    fn tool(&self, server: &str, name: &str, tool: &Tool) -> Grant {
        let (is_read, is_bash) = (tool.effect() == Effect::Read, tool.groups.contains("bash"));
        self.effective.grant(&Target::Tool { server, tool: Some(name), is_read, is_bash })
    }

    /// A tool that is not in the catalogue may be any: whatever would be denied to one kind of it is denied.
    fn unlisted(&self, server: &str) -> Grant {
        let kinds = [(false, false), (false, true), (true, false), (true, true)].into_iter();
        let grants = kinds
            .map(|(is_read, is_bash)| self.effective.grant(&Target::Tool { server, tool: None, is_read, is_bash }));
        grants.min().unwrap_or(Grant::Deny)
    }

    fn server(&self, text: &mut String, server: &str) {
        let mut granted = Granted::default();
        for (name, tool) in self.tools(server) {
            granted.add(self.tool(server, name, tool), literal("Action", &format!("{server}/{name}")));
        }
        for (grant, actions) in [(Grant::Allow, &granted.allow), (Grant::Ask, &granted.ask)] {
            if !actions.is_empty() {
                permit(
                    text,
                    grant,
                    &format!("tools {server}"),
                    &format!("action in [{}]", actions.join(", ")),
                    "resource",
                    "",
                );
            }
        }
        let unlisted = self.unlisted(server);
        let resource = on("Tool", &format!("{server}/*"));
        permit(
            text,
            unlisted,
            &format!("unlisted {server}"),
            "action == Action::\"call_tool/unlisted\"",
            &resource,
            "",
        );
        let resource = on("Server", server);
        let mut whole = Granted::default();
        let mut reaches = unlisted > Grant::Deny || !granted.allow.is_empty() || !granted.ask.is_empty();
        for verb in Verb::ALL.into_iter().filter(|verb| verb.done_to() == DoneTo::Server && !is_of_any(*verb)) {
            let is_read = !verb.is_server_request();
            let grant = self.effective.grant(&Target::Server { server, is_read });
            reaches |= grant > Grant::Deny;
            whole.add(grant, literal("Action", verb.action()));
        }
        for (grant, actions) in [(Grant::Allow, &whole.allow), (Grant::Ask, &whole.ask)] {
            if !actions.is_empty() {
                permit(
                    text,
                    grant,
                    &format!("server {server}"),
                    &format!("action in [{}]", actions.join(", ")),
                    &resource,
                    "",
                );
            }
        }
        if reaches {
            // Who may call one of its tools may connect to it, and see which they are.
            let any =
                Verb::ALL.into_iter().filter(|verb| is_of_any(*verb)).map(|verb| literal("Action", verb.action()));
            let action = format!("action in [{}]", any.collect::<Vec<_>>().join(", "));
            permit(text, Grant::Allow, &format!("connect {server}"), &action, &resource, "");
        }
    }

    fn engines(&self, text: &mut String, model: Option<&Value>) {
        for engine in &self.source.engines {
            let grant = self.effective.grant(&Target::Engine { id: &engine.id });
            let Some(models) = self.models(&engine.id, model) else { continue };
            let resource = on("Engine", &engine.id);
            permit(
                text,
                grant,
                &format!("engine {}", engine.id),
                "action == Action::\"call_engine\"",
                &resource,
                &models,
            );
            if grant > Grant::Deny {
                let proposes = self.proposes();
                let action = "action == Action::\"propose_tool_call\"";
                // What an answer proposes is decided once more when it is called.
                permit(text, Grant::Allow, &format!("answers {}", engine.id), action, &resource, &proposes);
            }
        }
    }

    /// The condition on the model of a call, empty when any will do; nothing when this engine has none that would.
    fn models(&self, engine: &str, model: Option<&Value>) -> Option<String> {
        let Some(model) = model else { return Some(String::new()) };
        let member = |name: &str| model.get(name).and_then(Value::as_str);
        match (member("kind"), member("modelId"), member("modelClass")) {
            (Some("concrete"), Some(id), _) => member("providerSlug")
                .is_none_or(|slug| slug == engine)
                .then(|| format!("context.input.model == {}", string(id))),
            (Some("strategy"), _, Some(class)) => {
                // A class that nobody has filled has no model.
                let patterns = self.source.model_classes.get(class).map_or(&[][..], Vec::as_slice);
                let models = patterns.iter().filter_map(|pattern| {
                    let (engines, models) = pattern.split_once('/').unwrap_or((pattern, "*"));
                    fits(engines, engine).then(|| format!("context.input.model like {}", string(models)))
                });
                let models: Vec<String> = models.collect();
                (!models.is_empty()).then(|| models.join(" || "))
            }
            _ => None,
        }
    }

    /// The condition on a tool call that an engine's answer proposes. Models know tools by names of several shapes; a name of no catalogued
    /// tool is the worker's own affair, unless a list says which tools there are.
    fn proposes(&self) -> String {
        let (mut granted, mut denied) = (BTreeSet::new(), BTreeSet::new());
        for server in &self.source.servers {
            for (name, tool) in self.tools(server) {
                let names = if self.tool(server, name, tool) > Grant::Deny { &mut granted } else { &mut denied };
                names.insert(name.clone());
                names.extend(["__", "/", ":", "."].map(|between| format!("{server}{between}{name}")));
                names.insert(format!("mcp__{server}__{name}"));
            }
        }
        let set = |names: Vec<&String>| names.into_iter().map(|name| string(name)).collect::<Vec<_>>().join(", ");
        if self.effective.narrows_tools() {
            return match granted.is_empty() {
                true => "false".to_owned(),
                false => format!("[{}].contains(context.input.tool)", set(granted.iter().collect())),
            };
        }
        match denied.difference(&granted).collect::<Vec<_>>() {
            denied if denied.is_empty() => String::new(),
            denied => format!("!([{}].contains(context.input.tool))", set(denied)),
        }
    }
}

/// What anybody does at a server who may do anything there.
fn is_of_any(verb: Verb) -> bool {
    matches!(verb, Verb::Connect | Verb::ListTools | Verb::ListResources | Verb::ListPrompts | Verb::FollowTask)
}

fn permit(text: &mut String, grant: Grant, id: &str, action: &str, resource: &str, when: &str) {
    let (word, asks) = match grant {
        Grant::Deny => return,
        Grant::Ask => ("ask", Some("context.acknowledged")),
        Grant::Allow => ("allow", None),
    };
    // Nothing is ever granted by a condition that cannot hold.
    if when == "false" {
        return;
    }
    let when = (!when.is_empty()).then(|| format!("({when})"));
    let conditions: Vec<&str> = asks.into_iter().chain(when.as_deref()).collect();
    let _ = write!(text, "@id({})\npermit (principal, {action}, {resource})", string(&format!("{word} {id}")));
    if !conditions.is_empty() {
        let _ = write!(text, " when {{ {} }}", conditions.join(" && "));
    }
    text.push_str(";\n");
}

fn on(ty: &str, id: &str) -> String {
    format!("resource == {}", literal(ty, id))
}

/// An entity as Cedar writes it.
fn literal(ty: &str, id: &str) -> String {
    uid(ty, id).map(|uid| uid.to_string()).unwrap_or_default()
}

fn string(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_another_by_whole_steps() {
        assert!(is_below("a", "") && is_below("a/b", "a") && is_below("a/b/c", "a"));
        assert!(!is_below("", "") && !is_below("a", "a") && !is_below("ab", "a") && !is_below("a", "a/b"));
    }
}
