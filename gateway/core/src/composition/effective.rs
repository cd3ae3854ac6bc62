//! What a node may do at most: the minimum over every map and every choice of tools that has a say about it, and over all that
//! bounds the node above it. Whatever is added can only lower it.

use super::permission::{Grant, PermissionMap, Rule, Target};
use super::resolve::ToolSelection;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The kind of provider that is an MCP server, and so named by its `resourceId` at Warden's door.
pub const MCP_SERVER: &str = "mcp_server";

/// A node's choice of tools. One without any entry does not narrow; one whose entries are all of other kinds leaves no tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolList {
    narrows: bool,
    servers: BTreeSet<String>,
    tools: BTreeMap<String, BTreeSet<String>>,
}

impl ToolList {
    /// The list of these entries.
    pub fn of(entries: &[ToolSelection]) -> Self {
        let mut list = Self { narrows: !entries.is_empty(), ..Self::default() };
        for entry in entries {
            match entry.clone() {
                ToolSelection::Provider { provider_kind, resource_id } if provider_kind == MCP_SERVER => {
                    list.servers.insert(resource_id);
                }
                ToolSelection::Tool { provider_kind, resource_id, tool_name } if provider_kind == MCP_SERVER => {
                    list.tools.entry(resource_id).or_default().insert(tool_name);
                }
                _ => {}
            }
        }
        list
    }

    /// Whether it leaves a tool, or with none the server as a whole: its resources, and tools that no catalogue lists.
    pub fn allows(&self, server: &str, tool: Option<&str>) -> bool {
        let chosen = |tool| self.tools.get(server).is_some_and(|tools| tools.contains(tool));
        !self.narrows || self.servers.contains(server) || tool.is_some_and(chosen)
    }

    fn grant(&self, target: &Target<'_>) -> Grant {
        let allowed = match target {
            Target::Tool { server, tool, .. } => self.allows(server, *tool),
            Target::Server { server, .. } => self.allows(server, None),
            Target::Engine { .. } | Target::Delegate { .. } | Target::Other => true,
        };
        if allowed { Grant::Allow } else { Grant::Deny }
    }
}

/// All that is said of one agent. Nodes of the same agent share it.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// Maps, in any order.
    pub maps: Vec<Arc<PermissionMap>>,
    /// Choices of tools, in any order.
    pub lists: Vec<Arc<ToolList>>,
}

/// What bounds a node: what is said of its agent, and what bounds the node above it. Copies share everything.
#[derive(Clone, Default)]
pub struct Effective(Option<Arc<Layer>>);

struct Layer {
    bounds: Arc<Bounds>,
    above: Effective,
}

impl Effective {
    /// The bounds of something below. What is already held is not held twice, so a chain is never larger than what was said.
    ///
    /// The overlay of a step bounds the root and so everything below it: a node's own effective, narrowed by the overlay, is what
    /// bounds the node in that step.
    pub fn narrowed(&self, bounds: Arc<Bounds>) -> Self {
        if self.layers().any(|layer| Arc::ptr_eq(&layer.bounds, &bounds)) {
            return self.clone();
        }
        Self(Some(Arc::new(Layer { bounds, above: self.clone() })))
    }

    /// [`Effective::narrowed`] by one map alone.
    pub fn narrowed_by(&self, map: Arc<PermissionMap>) -> Self {
        self.narrowed(Arc::new(Bounds { maps: vec![map], lists: Vec::new() }))
    }

    /// What a call gets. Where nobody says anything it is allowed, as far as compositions go.
    pub fn grant(&self, target: &Target<'_>) -> Grant {
        let of = |layer: &Layer| {
            let maps = layer.bounds.maps.iter().filter_map(|map| map.grant(target));
            maps.chain(layer.bounds.lists.iter().map(|list| list.grant(target))).min()
        };
        self.layers().filter_map(of).min().unwrap_or(Grant::Allow)
    }

    /// What everything that a key is about gets at most.
    pub fn grant_of(&self, key: &Rule) -> Grant {
        let of = |layer: &Layer| layer.bounds.maps.iter().filter_map(|map| map.grant_of(key)).min();
        self.layers().filter_map(of).min().unwrap_or(Grant::Allow)
    }

    /// The keys of a map that say more than these bounds leave, with what they leave. They do not take effect.
    pub fn exceeded_by<'m>(&self, map: &'m PermissionMap) -> Vec<(&'m Rule, Grant)> {
        let more = map.rules().iter().filter(|rule| rule.grant() > Grant::Deny);
        let bounded = more.map(|rule| (rule, self.grant_of(rule)));
        bounded.filter(|(rule, bound)| rule.grant() > *bound).collect()
    }

    /// All maps that have a say, the node's own first.
    pub fn maps(&self) -> impl Iterator<Item = &PermissionMap> {
        self.layers().flat_map(|layer| layer.bounds.maps.iter().map(Arc::as_ref))
    }

    /// Whether any choice of tools narrows.
    pub fn narrows_tools(&self) -> bool {
        self.layers().flat_map(|layer| &layer.bounds.lists).any(|list| list.narrows)
    }

    /// Whether all choices of tools leave this one. Other kinds of provider are not bounded.
    pub fn leaves(&self, entry: &ToolSelection) -> bool {
        let (kind, server, tool) = match entry {
            ToolSelection::Provider { provider_kind, resource_id } => (provider_kind, resource_id, None),
            ToolSelection::Tool { provider_kind, resource_id, tool_name } => {
                (provider_kind, resource_id, Some(tool_name.as_str()))
            }
        };
        kind != MCP_SERVER || self.layers().flat_map(|layer| &layer.bounds.lists).all(|list| list.allows(server, tool))
    }

    /// From the node's own upwards.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::successors(self.0.as_deref(), |layer| layer.above.0.as_deref())
    }
}

impl fmt::Debug for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.layers().map(|layer| &layer.bounds)).finish()
    }
}

impl Drop for Layer {
    /// A chain is taken apart link by link: dropped by itself, a long one would need a long stack.
    fn drop(&mut self) {
        let mut next = self.above.0.take();
        while let Some(mut layer) = next.and_then(Arc::into_inner) {
            next = layer.above.0.take();
        }
    }
}
