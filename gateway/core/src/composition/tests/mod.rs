//! Tests of compositions. The vectors were observed on the original resolver.

mod golden;
mod resolve;
mod deep;
mod permission;
mod register;

use serde_json::{Value, json};

/// The provider kinds of the vectors.
fn kinds() -> Vec<String> {
    vec!["mcp_server".to_owned(), "builtin".to_owned()]
}

/// A document around a root.
fn document(root: Value) -> Value {
    json!({"slug": "comp", "version": "1.2.0", "root": root})
}

/// A node with the members of `more`.
fn node(slug: &str, more: Value, children: Vec<Value>) -> Value {
    let mut node = json!({"agent": {"slug": slug}, "skills": [], "tools": [], "children": children});
    for (name, value) in more.as_object().unwrap() {
        node[name] = value.clone();
    }
    node
}

/// Drops a value that is nested too deeply to drop itself.
fn dismantle(value: Value) {
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Array(items) => waiting.extend(items),
            Value::Object(members) => waiting.extend(members.into_iter().map(|(_, member)| member)),
            _ => {}
        }
    }
}
