//! The worker-engine convention: a host may put an engine into a worker's state, under a key that only the host writes. A worker
//! that finds one uses it; one that finds none works as it always did. Nothing here fails: what is absent or malformed is *no
//! engine*.
//!
//! ```
//! use serde_json::json;
//! use warden_core::task::convention::{ENGINE_FACTORY_KEY, extract_engine_factory, has_engine_context, resolve_engine};
//!
//! let state = json!({ ENGINE_FACTORY_KEY: {
//!     "kind": "warden.engine_lease/1", "lease": format!("wdl_{}", "0".repeat(64)), "task": "t-1", "engine": null,
//!     "base_url": "http://127.0.0.1:7171", "expires": "2026-11-01T00:00:00Z" } });
//! assert!(has_engine_context(&state));
//! assert_eq!(extract_engine_factory(&state).unwrap().task, "t-1");
//! let engine = resolve_engine(&state, Some("fast"), |lease, id| Ok::<_, std::io::Error>((lease.base_url.clone(), id.map(str::to_owned))), |_| ());
//! assert_eq!(engine, Some(("http://127.0.0.1:7171".into(), Some("fast".into()))));
//! assert!(!has_engine_context(&json!({})));
//! ```

use super::LEASE;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The key of a worker's state that holds its engine. Renaming it would break every worker.
pub const ENGINE_FACTORY_KEY: &str = "worker_engine_factory";

/// Keys that a host writes and a worker never does. An operator can add to them.
pub const RESERVED_KEYS: [&str; 6] = [ENGINE_FACTORY_KEY, "meta", "_meta", "_errors", "_trace", "_workflow"];

/// What stands under [`ENGINE_FACTORY_KEY`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineLease {
    /// [`KIND`].
    pub kind: String,
    /// The lease, for the header `x-warden-lease`.
    pub lease: String,
    /// The task that it is bound to, for the header `x-warden-task`.
    pub task: String,
    /// The engine, when the host has chosen one.
    pub engine: Option<String>,
    /// Where the gateway is.
    pub base_url: String,
    /// Until when it is worth anything (RFC 3339).
    pub expires: String,
}

/// The kind of lease that this is.
pub const KIND: &str = "warden.engine_lease/1";

impl EngineLease {
    fn is_well_formed(&self) -> bool {
        let secret = self.lease.strip_prefix(LEASE).unwrap_or_default();
        self.kind == KIND
            && secret.len() == 64
            && secret.bytes().all(|b| b.is_ascii_hexdigit())
            && !self.task.is_empty()
            && !self.base_url.is_empty()
    }
}

/// The engine that a host put into a state, if it is one.
pub fn extract_engine_factory(state: &Value) -> Option<EngineLease> {
    let lease: EngineLease = serde_json::from_value(state.get(ENGINE_FACTORY_KEY)?.clone()).ok()?;
    lease.is_well_formed().then_some(lease)
}

/// The engine that a host chose for this state, or `default`.
pub fn extract_engine_id<'s>(state: &'s Value, default: Option<&'s str>) -> Option<&'s str> {
    let chosen = state.get("meta").and_then(|meta| meta.get("engine_id")).and_then(Value::as_str);
    chosen.filter(|id| !id.is_empty()).or(default)
}

/// Whether a host put an engine into a state.
pub fn has_engine_context(state: &Value) -> bool {
    extract_engine_factory(state).is_some()
}

/// The engine of a state, made by `make` from its lease; the host's own choice when `engine_id` is absent or empty. Whatever goes
/// wrong in `make`, a panic included, is no engine, and `failed` is told the kind of failure, never its words.
pub fn resolve_engine<T, E>(
    state: &Value,
    engine_id: Option<&str>,
    make: impl FnOnce(&EngineLease, Option<&str>) -> Result<T, E>,
    failed: impl FnOnce(&'static str),
) -> Option<T> {
    let lease = extract_engine_factory(state)?;
    let id = engine_id.filter(|id| !id.is_empty()).or(lease.engine.as_deref());
    match catch_unwind(AssertUnwindSafe(|| make(&lease, id))) {
        Ok(Ok(engine)) => Some(engine),
        Ok(Err(_)) => {
            failed(std::any::type_name::<E>());
            None
        }
        Err(_) => {
            failed("panic");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn leased() -> Value {
        json!({ "kind": KIND, "lease": format!("wdl_{}", "a1".repeat(32)), "task": "t", "engine": "mine",
            "base_url": "http://h", "expires": "2026-01-01T00:00:00Z" })
    }

    fn with(value: Value) -> Value {
        json!({ ENGINE_FACTORY_KEY: value })
    }

    #[test]
    fn s0_01_the_key_is_exactly_this() {
        assert_eq!(ENGINE_FACTORY_KEY, "worker_engine_factory");
    }

    #[test]
    fn s0_03_a_factory_is_a_well_formed_lease_and_nothing_else() {
        assert!(extract_engine_factory(&with(leased())).is_some());
        assert_eq!(extract_engine_factory(&json!({})), None);
        for state in [json!(null), json!("text"), json!([1]), json!(7)] {
            assert_eq!(extract_engine_factory(&state), None, "{state}");
        }
        for value in [json!("text"), json!(42), json!(null), json!([]), json!({}), json!(true)] {
            assert_eq!(extract_engine_factory(&with(value.clone())), None, "{value}");
        }
        for (name, bad) in
            [("lease", json!("wdl_short")), ("kind", json!("other")), ("task", json!(7)), ("base_url", json!(""))]
        {
            let mut lease = leased();
            lease[name] = bad;
            assert_eq!(extract_engine_factory(&with(lease)), None, "{name}");
        }
    }

    #[test]
    fn s0_04_the_engine_id_is_a_text_that_is_not_empty() {
        let of = |meta: Value| json!({ "meta": meta });
        assert_eq!(extract_engine_id(&of(json!({ "engine_id": "a" })), Some("d")), Some("a"));
        assert_eq!(extract_engine_id(&json!({}), Some("d")), Some("d"));
        for meta in [json!("text"), json!([1]), json!({ "engine_id": 42 }), json!({ "engine_id": "" }), json!(null)] {
            assert_eq!(extract_engine_id(&of(meta.clone()), Some("d")), Some("d"), "{meta}");
            assert_eq!(extract_engine_id(&of(meta), None), None);
        }
        assert_eq!(extract_engine_id(&json!("state"), Some("d")), Some("d"));
        assert_eq!(extract_engine_id(&of(json!({ "engine_id": "  " })), None), Some("  "), "as it is");
    }

    #[test]
    fn s0_05_resolving_takes_the_named_engine_or_the_hosts_choice() {
        let resolve = |state: &Value, id: Option<&str>| {
            resolve_engine(state, id, |_, id| Ok::<_, ()>(id.map(str::to_owned)), |_| panic!("nothing failed"))
        };
        assert_eq!(resolve(&with(leased()), Some("other")), Some(Some("other".into())));
        assert_eq!(resolve(&with(leased()), None), Some(Some("mine".into())));
        assert_eq!(resolve(&with(leased()), Some("")), Some(Some("mine".into())), "empty is no name");
        assert_eq!(resolve(&json!({}), Some("other")), None);
        assert_eq!(resolve(&json!(null), None), None);
    }

    #[test]
    fn s0_06_a_factory_that_fails_or_panics_is_no_engine_and_its_words_are_not_told() {
        let mut told = Vec::new();
        let failing = |_: &EngineLease, _: Option<&str>| Err::<(), _>(std::fmt::Error);
        assert_eq!(resolve_engine(&with(leased()), None, failing, |class| told.push(class)), None);
        let panicking =
            |_: &EngineLease, _: Option<&str>| -> Result<(), ()> { std::panic::resume_unwind(Box::new("hunter2")) };
        assert_eq!(resolve_engine(&with(leased()), Some("x"), panicking, |class| told.push(class)), None);
        assert_eq!(told, ["core::fmt::Error", "panic"]);
    }

    #[test]
    fn s0_07_a_context_is_there_when_a_factory_is() {
        assert!(has_engine_context(&with(leased())));
        for state in [json!({}), with(json!(null)), with(json!("text")), with(json!([1]))] {
            assert!(!has_engine_context(&state), "{state}");
        }
    }
}
