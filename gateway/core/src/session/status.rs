//! How a session stands: a few states of Warden's own, and those that its app declares.

use serde::{Deserialize, Serialize};

/// What a status means, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The work is done.
    Success,
    /// The work is not done.
    Failure,
    /// People took over.
    Escalation,
    /// Somebody has to look at what came out.
    NeedsReview,
    /// It goes on.
    Pending,
}

/// A status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusDef {
    /// What it is called.
    pub name: String,
    /// Whether a session stays in it for good.
    pub terminal: bool,
    /// What it means.
    pub kind: Kind,
}

/// A session that works. Each begins here.
pub const RUNNING: &str = "running";
/// A session that waits for a person.
pub const AWAITING_INPUT: &str = "awaiting_input";
/// A session that a person ended.
pub const STOPPED: &str = "stopped";
/// A session that broke, and may be tried again.
pub const ERROR: &str = "error";

/// Names of Warden's own states. No app declares them.
pub const BUILT_IN: [&str; 4] = [RUNNING, AWAITING_INPUT, STOPPED, ERROR];

/// One of Warden's own states, by its name.
pub fn built_in(name: &str) -> Option<StatusDef> {
    let (terminal, kind) = match name {
        RUNNING | AWAITING_INPUT => (false, Kind::Pending),
        STOPPED => (true, Kind::Failure),
        ERROR => (false, Kind::Failure),
        _ => return None,
    };
    Some(StatusDef { name: name.to_owned(), terminal, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn s2_06_built_in_states_mean_what_their_names_say() {
        let all: Vec<_> = BUILT_IN.iter().filter_map(|name| built_in(name)).map(|s| (s.terminal, s.kind)).collect();
        let pending = (false, Kind::Pending);
        assert_eq!(all, [pending, pending, (true, Kind::Failure), (false, Kind::Failure)]);
        assert_eq!(built_in("Running"), None);
    }

    #[test]
    fn s2_06_a_status_has_five_kinds_and_no_looks() {
        for kind in ["success", "failure", "escalation", "needs_review", "pending"] {
            let read = serde_json::from_value::<Kind>(json!(kind)).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), kind);
        }
        assert!(serde_json::from_value::<Kind>(json!("bogus")).is_err());
        for looks in ["color", "label"] {
            let status = json!({ "name": "done", "terminal": true, "kind": "success", looks: "red" });
            let error = serde_json::from_value::<StatusDef>(status).unwrap_err().to_string();
            assert!(error.contains(looks), "{error}");
        }
    }
}
