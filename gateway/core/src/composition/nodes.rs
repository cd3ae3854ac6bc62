//! The nodes of a registered tree, with what bounds each of them, and what of the tree has no effect.

use super::effective::{Bounds, Effective, ToolList};
use super::permission::{Grant, PermissionMap};
use super::resolve::{RuntimeAgentConfig, ToolSelection};
use super::tree::Tree;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one node of the document says, read.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Its agent's own map.
    pub authored: Option<Arc<PermissionMap>>,
    /// The map that the composition puts on it.
    pub own: Option<Arc<PermissionMap>>,
    /// Its choice of tools.
    pub tools: Vec<ToolSelection>,
}

/// A node that workers can be bound to. Siblings of the same slug are one.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// The slugs from below the root to it, joined by `/`; empty of the root.
    pub path: String,
    /// Its agent's slug.
    pub slug: String,
    /// Where it first stands in the document: a JSON pointer.
    pub pointer: String,
    /// The index of the node above it; none of the root.
    pub parent: Option<usize>,
    /// What bounds it.
    #[serde(skip)]
    pub effective: Effective,
    /// The model that the projection gives its agent.
    pub model: Option<Value>,
    /// Whether the projection gives its agent instructions.
    pub has_instructions: bool,
}

/// A node that the projection leaves out, since its slug stands further up in the document. Its permission bounds all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// The slug.
    pub slug: String,
    /// Where the left-out node stands: a JSON pointer.
    pub pointer: String,
    /// Which of instructions, permission, modelOverride and alias it has.
    pub dropped: Vec<&'static str>,
}

/// A key that says more than what bounds its node leaves. It is not an error: the lower one takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Widening {
    /// Where the map or the choice of tools stands: a JSON pointer.
    pub pointer: String,
    /// The node's agent.
    pub slug: String,
    /// The key of the map, or `tools[i]`.
    pub key: String,
    /// What it says.
    pub said: Grant,
    /// What takes effect.
    pub bounded: Grant,
}

/// Later nodes of a slug, in the order of the document.
pub fn shadowed(tree: &Tree<'_>) -> Vec<Shadowed> {
    let mut seen = BTreeSet::new();
    let below = tree.nodes().iter().enumerate().skip(1);
    let later = below.filter(|(_, node)| !seen.insert(node.slug()));
    later
        .map(|(at, node)| {
            let carried = ["instructions", "permission", "modelOverride", "alias"];
            let dropped = carried.into_iter().filter(|name| node.get(name).is_some()).collect();
            Shadowed { slug: node.slug().to_owned(), pointer: tree.pointer(at), dropped }
        })
        .collect()
}

/// The nodes, the root first and each after the one above it, and what has no effect. `said` has one entry for each node of the
/// tree.
pub fn build(tree: &Tree<'_>, said: &[Said], config: &RuntimeAgentConfig) -> (Vec<Node>, Vec<Widening>) {
    let bounds = bounds_by_slug(tree, said);
    let mut nodes: Vec<Node> = Vec::new();
    let mut merged: BTreeMap<(Option<usize>, &str), usize> = BTreeMap::new();
    let mut place_of: Vec<usize> = Vec::with_capacity(said.len());
    let mut widened = Vec::new();
    for (at, (node, said)) in tree.nodes().iter().zip(said).enumerate() {
        let (slug, pointer) = (node.slug(), tree.pointer(at));
        let parent = node.parent().and_then(|parent| place_of.get(parent)).copied();
        let above = parent.and_then(|parent| nodes.get(parent));
        let bound = above.map(|node| node.effective.clone()).unwrap_or_default();
        widened.extend(widenings(said, &bound, slug, &pointer));
        let place = *merged.entry((parent, slug)).or_insert(nodes.len());
        place_of.push(place);
        if place == nodes.len() {
            let path = above
                .map(|above| if above.path.is_empty() { slug.to_owned() } else { format!("{}/{slug}", above.path) });
            let effective = bounds.get(slug).map_or(bound.clone(), |bounds| bound.narrowed(bounds.clone()));
            let (model, has_instructions) = projected(config, slug, parent.is_none());
            let path = path.unwrap_or_default();
            nodes.push(Node { path, slug: slug.to_owned(), pointer, parent, effective, model, has_instructions });
        }
    }
    (nodes, widened)
}

/// Whatever any node says of an agent bounds the agent wherever it stands: which of them is first must not matter.
fn bounds_by_slug<'a>(tree: &Tree<'a>, said: &[Said]) -> BTreeMap<&'a str, Arc<Bounds>> {
    let mut gathered: BTreeMap<&str, Bounds> = BTreeMap::new();
    for (node, said) in tree.nodes().iter().zip(said) {
        let bounds = gathered.entry(node.slug()).or_default();
        bounds.maps.extend(said.authored.iter().chain(&said.own).cloned());
        bounds.lists.extend((!said.tools.is_empty()).then(|| Arc::new(ToolList::of(&said.tools))));
    }
    gathered.into_iter().map(|(slug, bounds)| (slug, Arc::new(bounds))).collect()
}

fn projected(config: &RuntimeAgentConfig, slug: &str, is_root: bool) -> (Option<Value>, bool) {
    if is_root {
        return (config.primary_model_override.clone(), config.primary_instructions.is_some());
    }
    let model = config.sub_agent_model_overrides_by_slug.get(slug).cloned();
    (model, config.sub_agent_instructions_by_slug.contains_key(slug))
}

/// The agent's own map is held against what bounds the node above; the composition's against the agent's as well.
fn widenings(said: &Said, above: &Effective, slug: &str, pointer: &str) -> Vec<Widening> {
    let with_agent = said.authored.iter().fold(above.clone(), |bound, map| bound.narrowed_by(map.clone()));
    let authored = said.authored.iter().map(|map| (map, above, format!("{pointer}/agent/permission")));
    let own = said.own.iter().map(|map| (map, &with_agent, format!("{pointer}/permission")));
    let keys = authored.chain(own).flat_map(|(map, bound, pointer)| widening_keys(map, bound, slug, &pointer));
    let lost = said.tools.iter().enumerate().filter(|(_, entry)| !above.leaves(entry)).map(|(nth, _)| Widening {
        pointer: format!("{pointer}/tools/{nth}"),
        slug: slug.to_owned(),
        key: format!("tools[{nth}]"),
        said: Grant::Allow,
        bounded: Grant::Deny,
    });
    keys.chain(lost).collect()
}

/// The keys of a map at `pointer` that say more than `bound` leaves; so may a step's overlay be held against the root.
pub fn widening_keys(map: &PermissionMap, bound: &Effective, slug: &str, pointer: &str) -> Vec<Widening> {
    let exceeding = bound.exceeded_by(map).into_iter();
    exceeding
        .map(|(rule, bounded)| Widening {
            pointer: pointer.to_owned(),
            slug: slug.to_owned(),
            key: rule.key().to_owned(),
            said: rule.grant(),
            bounded,
        })
        .collect()
}
