//! The resolver: a pure function from a resolved tree, and a step's overlay, to what a worker runs with. It is lenient where
//! the trees that exist are; [`super::register`] is where they are read strictly.

use super::tree::{Tree, TreeNode, is_within, present, text, trimmed};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The version of [`RuntimeAgentConfig`]'s shape. It is shown for inspection and no peer depends on it, so it may change: then
/// this number does.
pub const PROJECTION_VERSION: u32 = 1;
/// The classes a strategy may ask for, in the order in which they are told.
pub const MODEL_CLASSES: [&str; 5] = ["coding", "review", "creative", "planning", "utility"];
/// A permission or a model that is carried over is nested at most this deep: copying and dropping it recurses.
pub const CARRIED_DEPTH_MAX: usize = 128;

/// A tree that cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Composition resolution failed for \"{context}\": {detail}")]
pub struct CompositionResolutionError {
    /// Whose fault it is: `slug@version`, that with `#overlay`, or an agent's slug.
    pub context: String,
    /// What it is.
    pub detail: String,
}

impl CompositionResolutionError {
    /// The error's name, for peers that go by it.
    pub const NAME: &'static str = "CompositionResolutionError";

    fn new(context: &str, detail: impl Into<String>) -> Self {
        Self { context: context.to_owned(), detail: detail.into() }
    }
}

/// What a worker runs with. Maps keep the order in which slugs are first seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeAgentConfig {
    /// `slug@version`.
    pub composition_ref: String,
    /// The root's slug.
    pub primary_agent_slug: String,
    /// The root's instructions with the overlay's after them.
    pub primary_instructions: Option<String>,
    /// The overlay's map, or else the root's. Not what is enforced: that is [`super::effective`].
    pub primary_permission: Option<Value>,
    /// The overlay's model, or else the root's.
    pub primary_model_override: Option<Value>,
    /// Everybody below the root, each slug once.
    pub sub_agent_bindings: Vec<SubAgentBinding>,
    /// Their instructions, trimmed; who has none has no key.
    pub sub_agent_instructions_by_slug: Map<String, Value>,
    /// Their permission maps; who has none, or an empty one, has no key.
    pub sub_agent_permission_by_slug: Map<String, Value>,
    /// Their models; who has none has no key.
    pub sub_agent_model_overrides_by_slug: Map<String, Value>,
    /// The root's skills.
    pub default_skill_slugs: Vec<String>,
    /// All skills of the tree.
    pub all_skill_slugs: Vec<String>,
    /// The root's tools.
    pub default_tool_selection: Vec<ToolSelection>,
}

/// One sub-agent, with what its node says about it as it is written there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubAgentBinding {
    /// Its slug.
    pub slug: String,
    /// The name it goes by here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_override: Option<Value>,
    /// Its instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Value>,
    /// Its permission map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<Value>,
}

/// One choice of tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ToolSelection {
    /// All tools of a provider.
    Provider {
        /// The kind of provider, one of the caller's closed set.
        provider_kind: String,
        /// Which provider of that kind.
        resource_id: String,
    },
    /// One tool of a provider.
    Tool {
        /// The kind of provider, one of the caller's closed set.
        provider_kind: String,
        /// Which provider of that kind.
        resource_id: String,
        /// The tool.
        tool_name: String,
    },
}

/// How much of a tree is collected from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The root alone.
    Root,
    /// The root, then everything below it in pre-order, nodes without a slug included.
    Tree,
}

impl Scope {
    fn of<'t, 'a>(self, tree: &'t Tree<'a>) -> &'t [TreeNode<'a>] {
        match self {
            Scope::Root => tree.nodes().get(..1).unwrap_or_default(),
            Scope::Tree => tree.nodes(),
        }
    }
}

/// Resolves a document `{slug, version, root}`, with the overlay `{instructions, permission, modelOverride}` of the step that
/// runs it. `kinds` are the kinds of provider that exist. The first fault is the error: the root's model, the overlay's, those of
/// sub-agents in their order, then the root's tools.
pub fn resolve(
    resolved: &Value,
    overlay: Option<&Value>,
    kinds: &[String],
) -> Result<RuntimeAgentConfig, CompositionResolutionError> {
    project(&Tree::read(resolved), overlay, kinds)
}

/// [`resolve`] of a tree that is already laid out.
pub fn project(
    tree: &Tree<'_>,
    overlay: Option<&Value>,
    kinds: &[String],
) -> Result<RuntimeAgentConfig, CompositionResolutionError> {
    let (reference, root) = (tree.reference(), tree.root());
    let over = |name: &str| present(overlay.and_then(|overlay| overlay.get(name)));
    // Both are checked, so that a bad model of the root is not found out only when an overlay goes.
    let root_model = root.get("modelOverride").map(|model| checked_model(model, &reference)).transpose()?;
    let over_model =
        over("modelOverride").map(|model| checked_model(model, &format!("{reference}#overlay"))).transpose()?;
    let says = |permission: &&Value| !is_empty(permission);
    let permission = over("permission").filter(says).or_else(|| root.get("permission").filter(says));
    let base = trimmed(text(root.get("instructions")).unwrap_or_default());
    let instructions = append_instructions(base, text(over("instructions")));

    let bindings = flatten(tree)?;
    let (mut texts, mut permissions, mut models) = (Map::new(), Map::new(), Map::new());
    for binding in &bindings {
        let slug = &binding.slug;
        let said = trimmed(text(binding.instructions.as_ref()).unwrap_or_default());
        if !said.is_empty() {
            texts.insert(slug.clone(), said.into());
        }
        if let Some(permission) = binding.permission.as_ref().filter(says) {
            permissions.insert(slug.clone(), permission.clone());
        }
        if let Some(model) = &binding.model_override {
            models.insert(slug.clone(), checked_model(model, slug)?);
        }
    }
    Ok(RuntimeAgentConfig {
        primary_agent_slug: root.slug().to_owned(),
        primary_instructions: Some(instructions).filter(|text| !text.is_empty()),
        primary_permission: permission.map(|permission| carried(permission, "permission", &reference)).transpose()?,
        primary_model_override: over_model.or(root_model),
        sub_agent_bindings: bindings,
        sub_agent_instructions_by_slug: texts,
        sub_agent_permission_by_slug: permissions,
        sub_agent_model_overrides_by_slug: models,
        default_skill_slugs: collect_skills(tree, Scope::Root),
        all_skill_slugs: collect_skills(tree, Scope::Tree),
        default_tool_selection: collect_tools(tree, Scope::Root, kinds)?,
        composition_ref: reference,
    })
}

/// Everybody below the root in pre-order. The first node of a slug is its binding; a later one is left out, but not those below
/// it. A node without a slug is left out with all that is below it. The root's own slug may occur again.
pub fn flatten(tree: &Tree<'_>) -> Result<Vec<SubAgentBinding>, CompositionResolutionError> {
    let mut seen = BTreeSet::new();
    let firsts = tree.named().filter(|node| seen.insert(node.slug()));
    firsts.map(|node| binding(&node)).collect()
}

fn binding(node: &TreeNode<'_>) -> Result<SubAgentBinding, CompositionResolutionError> {
    let slug = node.slug();
    let member = |name| node.get(name).map(|value| carried(value, name, slug)).transpose();
    Ok(SubAgentBinding {
        slug: slug.to_owned(),
        alias: text(node.get("alias")).filter(|alias| !alias.is_empty()).map(str::to_owned),
        model_override: member("modelOverride")?,
        instructions: member("instructions")?,
        permission: member("permission")?,
    })
}

/// The slugs of skills, each once, in the order in which they are first seen. Entries without a slug are left out.
pub fn collect_skills(tree: &Tree<'_>, scope: Scope) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let slugs = scope.of(tree).iter().flat_map(|node| node.list("skills")).filter_map(|skill| text(skill.get("slug")));
    slugs.filter(|slug| !slug.is_empty() && seen.insert(*slug)).map(str::to_owned).collect()
}

/// The choices of tools, as often as they are made. The first bad entry is the error, told of its node's slug.
pub fn collect_tools(
    tree: &Tree<'_>,
    scope: Scope,
    kinds: &[String],
) -> Result<Vec<ToolSelection>, CompositionResolutionError> {
    let entries =
        scope.of(tree).iter().flat_map(|node| node.list("tools").iter().enumerate().map(move |at| (node, at)));
    entries
        .map(|(node, (nth, entry))| {
            checked_tool(entry, nth, kinds).map_err(|(_, detail)| CompositionResolutionError::new(node.slug(), detail))
        })
        .collect()
}

/// `base`, an empty line, and the text without its surrounding space. A text that is only space leaves `base` as it is.
pub fn append_instructions(base: &str, text: Option<&str>) -> String {
    match (base, trimmed(text.unwrap_or_default())) {
        (base, "") => base.to_owned(),
        ("", text) => text.to_owned(),
        (base, text) => format!("{base}\n\n{text}"),
    }
}

/// The resolved document that a manifest stands for. A manifest has the same shape, except that a node says `defaultModel` where
/// a resolved one says `modelOverride`. All else is passed through as it is, and what is not given stays not given. Where a node says both, `defaultModel` counts. The result is
/// nested as deeply as the manifest.
pub fn from_manifest(manifest: &Value) -> Result<Value, CompositionResolutionError> {
    let tree = Tree::read(manifest);
    let reference = tree.reference();
    let rest = || manifest.as_object().into_iter().flatten().filter(|(name, _)| *name != "root");
    // Looked at before anything is built: half a tree that is very deep could not be dropped.
    for (name, value) in rest().chain(tree.nodes().iter().flat_map(|node| own_members(node))) {
        within(value, name, &reference)?;
    }
    // From the last node to the first, everything below a node is built when its turn comes: no recursion.
    let mut below: Vec<Vec<Value>> = vec![Vec::new(); tree.nodes().len()];
    let mut document: Map<String, Value> = rest().map(|(name, value)| (name.clone(), value.clone())).collect();
    for (at, node) in tree.nodes().iter().enumerate().rev() {
        let mut children = below.get_mut(at).map(std::mem::take).unwrap_or_default();
        children.reverse();
        let built = reconstructed(node, children);
        match node.parent().and_then(|parent| below.get_mut(parent)) {
            Some(siblings) => siblings.push(built),
            None => drop(document.insert("root".to_owned(), built)),
        }
    }
    Ok(Value::Object(document))
}

fn own_members<'a>(node: &TreeNode<'a>) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let given = node.members().into_iter().flatten().filter(|(_, value)| !value.is_null());
    given.filter(|(name, value)| *name != "children" || !value.is_array())
}

fn reconstructed(node: &TreeNode<'_>, children: Vec<Value>) -> Value {
    let Some(members) = node.members() else { return Value::Null };
    let model_is_default = node.get("defaultModel").is_some();
    let mut built = Map::new();
    for (name, value) in own_members(node) {
        match name.as_str() {
            "defaultModel" => built.insert("modelOverride".to_owned(), value.clone()),
            "modelOverride" if model_is_default => None,
            _ => built.insert(name.clone(), value.clone()),
        };
    }
    if members.get("children").is_some_and(Value::is_array) {
        built.insert("children".to_owned(), children.into());
    }
    Value::Object(built)
}

/// A model that can be asked for. Any kind but `concrete` is read as a strategy.
fn checked_model(model: &Value, context: &str) -> Result<Value, CompositionResolutionError> {
    let fault = |detail: String| Err(CompositionResolutionError::new(context, detail));
    if text(model.get("kind")) == Some("concrete") {
        if is_blank(model.get("modelId")) {
            return fault("concrete modelOverride is missing a modelId".to_owned());
        }
    } else if !text(model.get("modelClass")).is_some_and(|class| MODEL_CLASSES.contains(&class)) {
        return fault(format!("strategy modelOverride.modelClass must be one of {}", MODEL_CLASSES.join(", ")));
    }
    carried(model, "modelOverride", context)
}

/// A choice of tools, with nothing but what such a choice has. The error is the member at fault, and the detail.
pub(super) fn checked_tool(
    entry: &Value,
    nth: usize,
    kinds: &[String],
) -> Result<ToolSelection, (&'static str, String)> {
    let known = text(entry.get("providerKind")).filter(|kind| kinds.iter().any(|known| known == kind));
    let Some(provider_kind) = known.map(str::to_owned) else {
        return Err(("providerKind", format!("tools[{nth}].providerKind must be one of {}", kinds.join(", "))));
    };
    let Some(resource_id) = filled(entry.get("resourceId")) else {
        return Err(("resourceId", format!("tools[{nth}].resourceId must be a non-empty string")));
    };
    match text(entry.get("kind")) {
        Some("provider") => Ok(ToolSelection::Provider { provider_kind, resource_id }),
        Some("tool") => match filled(entry.get("toolName")) {
            Some(tool_name) => Ok(ToolSelection::Tool { provider_kind, resource_id, tool_name }),
            None => Err(("toolName", format!("tools[{nth}].toolName must be a non-empty string for kind='tool'"))),
        },
        _ => Err(("kind", format!("tools[{nth}].kind must be \"provider\" or \"tool\""))),
    }
}

/// Whether it is no text, or one without anything in it but space.
pub(super) fn is_blank(value: Option<&Value>) -> bool {
    text(value).is_none_or(|text| trimmed(text).is_empty())
}

fn filled(value: Option<&Value>) -> Option<String> {
    text(value).filter(|_| !is_blank(value)).map(str::to_owned)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// A copy of a value that is not nested too deeply to be copied.
fn carried(value: &Value, name: &str, context: &str) -> Result<Value, CompositionResolutionError> {
    within(value, name, context).map(|()| value.clone())
}

fn within(value: &Value, name: &str, context: &str) -> Result<(), CompositionResolutionError> {
    if is_within(value, CARRIED_DEPTH_MAX) {
        return Ok(());
    }
    let detail = format!("{name} is nested deeper than {CARRIED_DEPTH_MAX} levels");
    Err(CompositionResolutionError::new(context, detail))
}
