//! A composition laid out flat. The nodes stand in pre-order in one list and borrow from the document, so that reading,
//! walking, cloning and dropping a [`Tree`] take no stack however deep it is. A document that is itself nested very deeply
//! is its owner's to drop; none can come from a parser that bounds its depth.

use serde_json::{Map, Value};

/// A composition, read leniently: what is missing or of another type counts as not given.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    slug: &'a str,
    version: &'a str,
    nodes: Vec<TreeNode<'a>>,
}

/// One node: an agent, with what the composition puts on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TreeNode<'a> {
    members: Option<&'a Map<String, Value>>,
    parent: Option<usize>,
    nth: usize,
    depth: usize,
    end: usize,
}

impl<'a> TreeNode<'a> {
    /// All its members, unless it is no object.
    pub fn members(&self) -> Option<&'a Map<String, Value>> {
        self.members
    }

    /// A member; `null` counts as not given.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        present(self.members?.get(name))
    }

    /// A member that is a list; empty if it is none.
    pub fn list(&self, name: &str) -> &'a [Value] {
        self.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Its agent's slug; empty if it has none.
    pub fn slug(&self) -> &'a str {
        self.get("agent").and_then(|agent| text(agent.get("slug"))).unwrap_or_default()
    }

    /// The index of the node above it; none of the root.
    pub fn parent(&self) -> Option<usize> {
        self.parent
    }

    /// How many nodes stand on the way from the root to it, both included.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

impl<'a> Tree<'a> {
    /// The tree of a whole document: `slug`, `version` and `root`.
    pub fn read(document: &'a Value) -> Self {
        let named = |name| text(document.get(name)).unwrap_or_default();
        let root = document.get("root").unwrap_or(&Value::Null);
        Self { slug: named("slug"), version: named("version"), ..Self::of_root(root) }
    }

    /// The tree under a root that stands in no document.
    pub fn of_root(root: &'a Value) -> Self {
        let mut nodes: Vec<TreeNode<'a>> = Vec::new();
        let mut waiting = vec![(root, None, 0, 1)];
        while let Some((value, parent, nth, depth)) = waiting.pop() {
            let at = nodes.len();
            let node = TreeNode { members: value.as_object(), parent, nth, depth, end: at + 1 };
            nodes.push(node);
            // The last one in is the first one out, so the first child comes next.
            let children = node.list("children").iter().enumerate().rev();
            waiting.extend(children.map(|(nth, child)| (child, Some(at), nth, depth + 1)));
        }
        for at in (0..nodes.len()).rev() {
            let Some(TreeNode { parent: Some(parent), end, .. }) = nodes.get(at).copied() else { continue };
            if let Some(above) = nodes.get_mut(parent) {
                above.end = above.end.max(end);
            }
        }
        Self { slug: "", version: "", nodes }
    }

    /// The composition's slug; empty if it has none.
    pub fn slug(&self) -> &'a str {
        self.slug
    }

    /// What the composition is pinned by: `slug@version`.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.slug, self.version)
    }

    /// Its root.
    pub fn root(&self) -> TreeNode<'a> {
        self.nodes.first().copied().unwrap_or_default()
    }

    /// All nodes in pre-order, the root first. A node stands after the one above it.
    pub fn nodes(&self) -> &[TreeNode<'a>] {
        &self.nodes
    }

    /// The nodes below the root in pre-order, without those that have no slug and all that is below those.
    pub fn named(&self) -> impl Iterator<Item = TreeNode<'a>> {
        let mut at = 1;
        std::iter::from_fn(move || {
            loop {
                let node = self.nodes.get(at)?;
                if !node.slug().is_empty() {
                    at += 1;
                    return Some(*node);
                }
                at = node.end;
            }
        })
    }

    /// The JSON pointer of a node in its document.
    pub fn pointer(&self, at: usize) -> String {
        let up = std::iter::successors(self.nodes.get(at), |node| self.nodes.get(node.parent?));
        let mut places: Vec<usize> = up.filter(|node| node.parent.is_some()).map(|node| node.nth).collect();
        places.reverse();
        let segments = places.iter().map(|nth| format!("/children/{nth}"));
        std::iter::once("/root".to_owned()).chain(segments).collect()
    }
}

/// A member that is given: JSON's `null` is not.
pub fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

/// A member that is a text.
pub fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

/// The text without what ECMAScript's `trim` takes off: unlike Rust's, a byte order mark goes and U+0085 stays.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\u{feff}' || c.is_whitespace() && c != '\u{85}')
}

/// Whether a value is nested in at most `levels` levels; a scalar has none.
pub fn is_within(value: &Value, levels: usize) -> bool {
    let mut waiting = vec![(value, 0)];
    while let Some((value, depth)) = waiting.pop() {
        if !(value.is_array() || value.is_object()) {
            continue;
        }
        if depth == levels {
            return false;
        }
        match value {
            Value::Array(items) => waiting.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(members) => waiting.extend(members.values().map(|member| (member, depth + 1))),
            _ => {}
        }
    }
    true
}
