//! The state document of a task: a worker's JSON object, in which some members are the host's alone.
//!
//! A write is judged by what it does, however it is spelled: it is applied to the whole document, and refused when any
//! reserved member is another one afterwards.

use super::convention::{ENGINE_FACTORY_KEY, RESERVED_KEYS};
use crate::json::{self, Json, Limits};
use serde_json::{Map, Value};

/// Bytes of a document.
pub const BYTES_MAX: usize = 1 << 20;
/// Nesting of a document.
const DEPTH_MAX: usize = 64;
/// Operations of one JSON Patch.
const OPERATIONS_MAX: usize = 1000;

/// A way of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// All of it anew. Reserved members may be left out, and stay.
    Replace,
    /// JSON Merge Patch ([RFC 7396](https://www.rfc-editor.org/rfc/rfc7396)).
    Merge,
    /// JSON Patch ([RFC 6902](https://www.rfc-editor.org/rfc/rfc6902)).
    Patch,
}

/// What a write would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The document afterwards.
    pub document: Map<String, Value>,
    /// The outermost members that it changes, sorted.
    pub keys: Vec<String>,
    /// The first of them that is reserved.
    pub reserved: Option<String>,
}

/// Why a write cannot be done at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The text.
    #[error("{0}")]
    Json(#[from] json::Error),
    /// What it says.
    #[error("{0}")]
    Patch(String),
}

/// Reserved names: the convention's, and an operator's further ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved(Vec<String>);

impl Reserved {
    /// With further names.
    pub fn with(more: Vec<String>) -> Self {
        Self(more)
    }

    /// Whether an outermost member is the host's.
    pub fn holds(&self, name: &str) -> bool {
        RESERVED_KEYS.contains(&name) || self.0.iter().any(|own| own == name)
    }

    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        RESERVED_KEYS.into_iter().chain(self.0.iter().map(String::as_str))
    }
}

/// What a write does to `document`, which holds the host's members as well.
pub fn write(document: &Map<String, Value>, how: How, text: &[u8], reserved: &Reserved) -> Result<Written, Unwritable> {
    let said = json::parse(text, Limits { bytes_max: BYTES_MAX, depth_max: DEPTH_MAX })?;
    let before = Value::Object(document.clone());
    let after = match how {
        How::Replace => {
            let Json::Object(_) = said else {
                return Err(Unwritable::Patch("a state is one JSON object".into()));
            };
            let mut after = said.to_value();
            if let Value::Object(members) = &mut after {
                for (name, value) in document.iter().filter(|(name, _)| reserved.holds(name)) {
                    members.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            after
        }
        How::Merge => {
            if !matches!(said, Json::Object(_)) {
                return Err(Unwritable::Patch("a merge patch of a state is one JSON object".into()));
            }
            let mut after = before.clone();
            json_patch::merge(&mut after, &said.to_value());
            after
        }
        How::Patch => {
            let operations: json_patch::Patch = serde_json::from_value(said.to_value())
                .map_err(|_| Unwritable::Patch("it is no JSON Patch: an array of operations (RFC 6902)".into()))?;
            if operations.0.len() > OPERATIONS_MAX {
                return Err(Unwritable::Patch(format!("a patch has at most {OPERATIONS_MAX} operations")));
            }
            patched(&before, &operations)?
        }
    };
    let Value::Object(after) = after else {
        return Err(Unwritable::Patch("a state is one JSON object, and would be none afterwards".into()));
    };
    let all = document.keys().chain(after.keys());
    let mut keys: Vec<String> = all.filter(|name| document.get(*name) != after.get(*name)).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    let named = keys.iter().find(|name| reserved.holds(name)).cloned();
    // A name that is hidden deeper, in overrides that a host may lay over the state one day, is an attempt as well.
    let hidden = || keys.iter().find_map(|name| smuggled(name, after.get(name)?, reserved));
    let reserved = named.or_else(hidden);
    if Value::Object(after.clone()).to_string().len() > BYTES_MAX {
        return Err(Unwritable::Patch(format!("a state has at most {BYTES_MAX} bytes")));
    }
    Ok(Written { document: after, keys, reserved })
}

/// Each operation may double what is there, so its size is looked at after each.
fn patched(before: &Value, operations: &json_patch::Patch) -> Result<Value, Unwritable> {
    let mut after = before.clone();
    for (number, operation) in operations.0.iter().enumerate() {
        json_patch::patch(&mut after, std::slice::from_ref(operation))
            .map_err(|_| Unwritable::Patch(format!("operation {number} of the patch does not apply")))?;
        let grows = matches!(operation, json_patch::PatchOperation::Copy(_) | json_patch::PatchOperation::Move(_));
        if grows && is_deeper(&after, DEPTH_MAX) {
            return Err(Unwritable::Patch(format!("a state is nested {DEPTH_MAX} levels deep at most")));
        }
        if grows && after.to_string().len() > 2 * BYTES_MAX {
            return Err(Unwritable::Patch(format!("a state has at most {BYTES_MAX} bytes")));
        }
    }
    Ok(after)
}

/// Whether a value is nested deeper than this. Looked at level by level: one that is too deep must not be walked into.
fn is_deeper(value: &Value, depth_max: usize) -> bool {
    let mut level = vec![value];
    for _ in 0..=depth_max {
        level = level
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(members) => members.values().collect(),
                _ => Vec::new(),
            })
            .collect();
        if level.is_empty() {
            return false;
        }
    }
    true
}

/// A reserved name within a member: the engine's anywhere, the others in overrides.
fn smuggled(outer: &str, value: &Value, reserved: &Reserved) -> Option<String> {
    let is_override = outer == "state_overrides";
    let found = |name: &str| name == ENGINE_FACTORY_KEY || is_override && reserved.holds(name);
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if let Some(name) = members.keys().find(|name| found(name)) {
                    return Some(format!("{outer}/{name}"));
                }
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn document() -> Map<String, Value> {
        let document = json!({ "worker_engine_factory": { "lease": "L" }, "meta": { "engine_id": "e", "task_id": "t" },
            "_trace": [1], "notes": { "a": 1 }, "list": [1, 2] });
        document.as_object().cloned().unwrap()
    }

    fn refused(how: How, text: &str) -> Option<String> {
        write(&document(), how, text.as_bytes(), &Reserved::with(vec!["mine".into()])).unwrap().reserved
    }

    #[test]
    fn s0_09_every_form_of_write_to_the_engines_key_is_seen() {
        for (how, text) in [
            (How::Replace, r#"{"worker_engine_factory":{"lease":"forged"}}"#),
            (How::Replace, r#"{"worker_engine_factor\u0079":null}"#),
            (How::Merge, r#"{"worker_engine_factory":null}"#),
            (How::Merge, r#"{"worker_engine_factory":{"lease":"forged"}}"#),
            (How::Merge, r#"{"worker_engine_factor\u0079":{"more":1}}"#),
            (How::Merge, r#"{"state_overrides":{"worker_engine_factory":1}}"#),
            (How::Merge, r#"{"notes":{"deep":[{"worker_engine_factory":1}]}}"#),
            (How::Patch, r#"[{"op":"remove","path":"/worker_engine_factory"}]"#),
            (How::Patch, r#"[{"op":"replace","path":"/worker_engine_factory/lease","value":1}]"#),
            (How::Patch, r#"[{"op":"add","path":"/worker_engine_factor\u0079/x","value":1}]"#),
            (How::Patch, r#"[{"op":"move","from":"/worker_engine_factory","path":"/notes/x"}]"#),
            (How::Patch, r#"[{"op":"move","from":"/notes","path":"/worker_engine_factory"}]"#),
            (How::Patch, r#"[{"op":"copy","from":"/notes","path":"/worker_engine_factory"}]"#),
            (How::Patch, r#"[{"op":"replace","path":"","value":{"notes":1}}]"#),
            (How::Patch, r#"[{"op":"add","path":"/state_overrides","value":{"_meta":1}}]"#),
        ] {
            assert!(refused(how, text).is_some(), "{text}");
        }
    }

    #[test]
    fn s0_10_s0_11_the_other_reserved_keys_are_guarded_the_same_way() {
        for name in ["_meta", "_errors", "_workflow", "mine", "meta"] {
            assert_eq!(refused(How::Merge, &format!(r#"{{"{name}":{{"engine_id":"x"}}}}"#)).as_deref(), Some(name));
        }
        assert_eq!(refused(How::Patch, r#"[{"op":"add","path":"/_trace/-","value":2}]"#).as_deref(), Some("_trace"));
        assert_eq!(refused(How::Patch, r#"[{"op":"remove","path":"/meta/engine_id"}]"#).as_deref(), Some("meta"));
        for text in [r#"{"notes":{"_meta":1}}"#, r#"{"meta":{"engine_id":"e"}}"#, r#"{"notes":null,"new":1}"#] {
            assert_eq!(refused(How::Merge, text), None, "{text}");
        }
    }

    #[test]
    fn a_worker_that_never_reads_the_reserved_keys_writes_as_it_always_did() {
        let written = write(&document(), How::Replace, br#"{"notes":7}"#, &Reserved::default()).unwrap();
        assert_eq!((written.reserved, written.keys), (None, vec!["list".to_owned(), "notes".to_owned()]));
        assert_eq!(written.document["worker_engine_factory"]["lease"], "L");
        let written = write(
            &document(),
            How::Patch,
            br#"[{"op":"test","path":"/meta/engine_id","value":"e"},{"op":"add","path":"/list/0","value":0}]"#,
            &Reserved::default(),
        )
        .unwrap();
        assert_eq!((written.reserved, written.keys), (None, vec!["list".to_owned()]));
    }

    #[test]
    fn what_is_no_state_is_refused_in_words() {
        for (how, text) in [
            (How::Replace, "[]"),
            (How::Merge, "null"),
            (How::Patch, "{}"),
            (How::Patch, r#"[{"op":"fly","path":"/a"}]"#),
            (How::Patch, r#"[{"op":"remove","path":"/none"}]"#),
            (How::Patch, r#"[{"op":"replace","path":"","value":1}]"#),
            (How::Merge, r#"{"a":1,"a":2}"#),
        ] {
            assert!(write(&document(), how, text.as_bytes(), &Reserved::default()).is_err(), "{text}");
        }
        let double = |n: usize| format!(r#"{{"op":"copy","from":"","path":"/k{n}"}}"#);
        let bomb = format!("[{}]", (0..40).map(double).collect::<Vec<_>>().join(","));
        assert!(write(&document(), How::Patch, bomb.as_bytes(), &Reserved::default()).is_err());
    }

    #[test]
    fn a_state_is_not_nested_by_copying_it_into_itself() {
        let mut path = "/a".to_owned();
        let mut operations = vec![json!({ "op": "add", "path": "/a", "value": [0] })];
        for _ in 0..14 {
            operations.push(json!({ "op": "copy", "from": "/a", "path": format!("{path}/-") }));
            path.push_str("/1");
        }
        let said = |operations: &[Value]| {
            write(&document(), How::Patch, json!(operations).to_string().as_bytes(), &Reserved::default())
        };
        assert!(said(&operations[..4]).is_ok(), "a little is fine");
        assert!(said(&operations).unwrap_err().to_string().contains("nested"));
    }

    proptest! {
        /// Whatever is written, either it is refused or the host's members are as they were.
        #[test]
        fn w02_reserved_members_never_change(path in "(/(worker_engine_factory|meta|_trace|notes|list|0|-|engine_id)){0,3}", from in "(/(worker_engine_factory|meta|_trace|notes|list|0)){0,2}", op in "add|remove|replace|move|copy") {
            let text = json!([{ "op": op, "path": path, "from": from, "value": { "x": 1 } }]).to_string();
            if let Ok(written) = write(&document(), How::Patch, text.as_bytes(), &Reserved::default())
                && written.reserved.is_none()
            {
                let before = document();
                for name in RESERVED_KEYS {
                    prop_assert_eq!(before.get(name), written.document.get(name));
                }
            }
        }
    }
}
