//! Trees that are far deeper or wider than anybody writes: nothing may need a stack for them.

use super::super::effective::Effective;
use super::super::permission::{Grant, PermissionMap, Target};
use super::super::register::{Caps, check};
use super::super::resolve::*;
use super::super::tree::Tree;
use super::{dismantle, document, kinds};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const MANY: usize = 100_000;

/// Every tenth has all that a node can have.
fn numbered(nth: usize) -> Map<String, Value> {
    let mut node = Map::new();
    node.insert("agent".to_owned(), json!({"slug": format!("n{nth}")}));
    if nth.is_multiple_of(10) {
        node.insert("skills".to_owned(), json!([{"slug": "s"}]));
        node.insert("tools".to_owned(), json!([{"kind": "provider", "providerKind": "builtin", "resourceId": "r"}]));
        node.insert("instructions".to_owned(), json!(" i "));
        node.insert("permission".to_owned(), json!({"bash": "deny"}));
        node.insert("defaultModel".to_owned(), json!({"kind": "concrete", "modelId": "m"}));
    }
    node
}

/// `json!` would copy what is below a node for every node, with recursion.
fn around(root: Value) -> Value {
    let mut around = document(Value::Null).as_object().unwrap().clone();
    around.insert("root".to_owned(), root);
    Value::Object(around)
}

fn chain(length: usize) -> Value {
    let mut below = Value::Array(vec![]);
    for nth in (0..length).rev() {
        let mut node = numbered(nth);
        node.insert("children".to_owned(), below);
        below = Value::Array(vec![Value::Object(node)]);
    }
    let Value::Array(mut root) = below else { unreachable!() };
    around(root.remove(0))
}

fn fan(width: usize) -> Value {
    let mut root = numbered(0);
    root.insert("children".to_owned(), (1..width).map(|nth| Value::Object(numbered(nth))).collect());
    around(Value::Object(root))
}

fn walk(manifest: Value) {
    let resolved = from_manifest(&manifest).unwrap();
    let tree = Tree::read(&resolved);
    let config = project(&tree.clone(), None, &kinds()).unwrap();
    assert_eq!(config.sub_agent_bindings.len(), MANY - 1);
    assert_eq!(config.sub_agent_model_overrides_by_slug.len(), MANY / 10 - 1);
    assert_eq!(config.sub_agent_bindings.last().unwrap().slug, format!("n{}", MANY - 1));
    assert_eq!(collect_tools(&tree, Scope::Tree, &kinds()).unwrap().len(), MANY / 10);
    assert_eq!(config.all_skill_slugs, ["s"]);
    assert!(tree.pointer(MANY - 1).starts_with("/root/children/"));
    let problems = check(&resolved, &Caps::default(), &kinds(), &Default::default(), |_| String::new()).unwrap_err();
    assert!(problems[0].message.starts_with("100000 nodes"), "{problems:?}");
    drop(config.clone());
    drop(config);
    drop(tree);
    dismantle(resolved);
    dismantle(manifest);
}

/// A test's thread has 2 MiB of stack, and each of these walks would need more if it recursed.
#[test]
fn s4_41_a_hundred_thousand_nodes_below_each_other_are_walked() {
    walk(chain(MANY));
}

#[test]
fn s4_41_a_hundred_thousand_nodes_beside_each_other_are_walked() {
    walk(fan(MANY));
}

#[test]
fn s4_41_a_value_nested_too_deeply_to_copy_is_an_error() {
    let mut deep = Value::Null;
    for _ in 0..MANY {
        deep = Value::Array(vec![deep]);
    }
    let mut kid = numbered(1);
    kid.insert("permission".to_owned(), deep);
    let mut root = numbered(0);
    root.insert("children".to_owned(), Value::Array(vec![Value::Object(kid)]));
    let resolved = around(Value::Object(root));
    let error = resolve(&resolved, None, &kinds()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Composition resolution failed for \"n1\": permission is nested deeper than 128 levels"
    );
    assert!(from_manifest(&resolved).is_err());
    let problems = check(&resolved, &Caps::default(), &kinds(), &Default::default(), |_| String::new()).unwrap_err();
    assert_eq!(problems[0].message, "nested deeper than 256 levels");
    dismantle(resolved);
}

#[test]
fn s4_41_bounds_of_a_very_deep_node_are_walked_and_dropped() {
    let mut effective =
        Effective::default().narrowed_by(Arc::new(PermissionMap::read(&json!({"bash": "deny"})).unwrap()));
    for _ in 0..10_000 {
        effective = effective.narrowed_by(Arc::new(PermissionMap::default()));
    }
    let bash = Target::Tool { server: "s", tool: Some("t"), is_read: false, is_bash: true };
    assert_eq!(effective.grant(&bash), Grant::Deny);
    assert_eq!(effective.grant(&Target::Other), Grant::Allow);
}
