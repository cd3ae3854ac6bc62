//! A decision: one evaluated verdict with everything Cedar saw, as it is written down.

use crate::ack::{Acknowledged, Held};
use crate::budget::BudgetFacts;
use crate::budget::ledger::Reservation;
use crate::facts::Mode;
pub use crate::mac::Sealed;
use crate::policy::level::Level;
use crate::policy::snapshot::Digests;
use crate::proposal::{DecisionId, Door, TaskFacts};
use crate::secrets::{Finding, Scanner};
use crate::session::SessionFacts;
use crate::session::history::Step;
use crate::verdict::{Verdict, WouldBe};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longer strings are cut in the record, and a keyed tag of the whole stands beside the head.
pub const TEXT_MAX: usize = 256;

/// Who holds the worker to the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforced {
    /// Warden itself: it forwards or it does not.
    Gateway,
    /// The caller who asked for the decision.
    Caller,
    /// Nobody: the site is in shadow, and only its own rules refuse it. Where Warden forwards, an outcome follows as ever.
    Shadow,
}

impl Enforced {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Enforced::Gateway => "gateway",
            Enforced::Caller => "caller",
            Enforced::Shadow => "shadow",
        }
    }
}

/// The base fields of `context`, as recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Whether a person had acknowledged it.
    pub acknowledged: bool,
    /// How the worker ran.
    pub mode: Mode,
    /// Secret values, by format and place.
    pub secret_findings: Vec<Finding>,
    /// How many values look like secrets and prove nothing.
    pub secret_suspicions: i64,
    /// Those, by format and place. Absent in records of version 2 and before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspicions: Vec<Finding>,
    /// JSON pointers of arguments that policy could not see.
    pub unseen: Vec<String>,
    /// Whether a path argument had a `..` segment.
    pub dot_segments: bool,
    /// What a call that costs something needed at most, and what its budgets had left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetFacts>,
    /// The task that encloses it. In records of version 6 and before only of what has to do with an engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// The session it belongs to, or would start. Absent in records of version 6 and before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionFacts>,
    /// `context.input` with long strings cut and secrets masked; null when there was none.
    pub input: Value,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id, told to the worker as well.
    pub id: DecisionId,
    /// The door of the proposal.
    pub door: Door,
    /// Who enforces it.
    pub enforced: Enforced,
    /// The worker's name.
    pub worker: String,
    /// Who asked, where that is not the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The connection.
    pub connection: String,
    /// The session that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The delegate that asks: the id of its token. Absent in records of version 6 and before, as is `history`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<String>,
    /// The server, empty where there is none.
    pub server: String,
    /// The protocol's name of what was asked.
    pub method: String,
    /// The tool as the worker named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The engine that it calls, or whose answer proposes it. Absent in records of version 4 and before, as is `reserved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// What is set aside for it, until its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reservation>,
    /// What it counts as in its session, by fact, from an allow on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub history: BTreeMap<String, Step>,
    /// The principal entity: type, id, parents.
    pub principal: Arc<Value>,
    /// The action's id.
    pub action: String,
    /// The resource entity: type, id, parents, attributes.
    pub resource: Arc<Value>,
    /// What Cedar saw.
    pub context: Context,
    /// How much of what Cedar saw stands here.
    #[serde(default, skip_serializing_if = "Level::is_facts")]
    pub level: Level,
    /// `context.input` at level `sealed`, encrypted with a key of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_sealed: Option<Sealed>,
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason code.
    pub reason: String,
    /// What the worker was advised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// What went wrong while deciding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What rules in shadow would have made of it; where nothing was enforced, what the rules said. Absent when that is the same, and in
    /// records of version 3 and before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_be: Option<Box<WouldBe>>,
    /// What it was decided with.
    pub digests: Arc<Digests>,
    /// Keyed tag of the whole payload, so that the same call can be recognised.
    pub payload_tag: String,
    /// What a held proposal is recognised by, and until when. Absent in records of version 5 and before, as is `acknowledged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// The held proposal that this one is again: it is not held twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<DecisionId>,
    /// The yes that it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
    /// A held proposal, encrypted with a key of its own. In records of version 5 and before only its payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// How many identical denials since the last record this one stands for besides itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeated: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// `value` as it may be written down: every string and member name masked, and long strings cut to
/// `{"cut": HEAD, "bytes": LENGTH, "tag": HMAC}`.
pub fn presentable(value: &Value, scanner: &Scanner) -> Value {
    match value {
        Value::String(text) => {
            let masked = scanner.mask(text);
            match head(&masked) {
                Some(head) => {
                    serde_json::json!({ "cut": head, "bytes": text.len(), "tag": scanner.key().tag(text.as_bytes()) })
                }
                None => Value::from(masked.into_owned()),
            }
        }
        Value::Array(items) => items.iter().map(|item| presentable(item, scanner)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, v)| (short(name, scanner), presentable(v, scanner))).collect()
        }
        other => other.clone(),
    }
}

/// `text` masked, and cut when it is long.
pub fn short(text: &str, scanner: &Scanner) -> String {
    let masked = scanner.mask(text);
    match head(&masked) {
        Some(head) => format!("{head}… [{} bytes, {}]", text.len(), scanner.key().tag(text.as_bytes())),
        None => masked.into_owned(),
    }
}

/// The first [`TEXT_MAX`] bytes of a longer text, cut between characters.
fn head(text: &str) -> Option<&str> {
    (text.len() > TEXT_MAX).then(|| {
        let mut end = TEXT_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        &text[..end]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x09_records_hold_heads_tags_and_no_secret() {
        let key = Scanner::shipped(crate::mac::MacKey::new("k1", [1; 32]));
        let token = format!("ghp_{}", "aB3d".repeat(9));
        let long = format!("{}{token}", "é".repeat(300));
        let shown = presentable(&serde_json::json!({ "a": [token, long], &token: 1 }), &key).to_string();
        assert!(!shown.contains(&token), "{shown}");
        assert!(shown.contains("[secret:github_personal_access_token:k1:"), "{shown}");
        assert!(shown.contains("\"bytes\":640") && shown.contains("\"tag\":\"k1:"), "{shown}");
        assert!(short(&"x".repeat(300), &key).len() < 330);
    }
}
