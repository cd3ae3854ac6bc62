//! What to look for.

use super::block::{Column, Index};
use serde::{Deserialize, Serialize};
use warden_core::journal::record::{Body, Record};

/// Absent fields match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Worker's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The session that a host named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Server's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// `SERVER/TOOL`; where there is no tool, the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// An action's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `allow`, `escalate` or `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// `gateway`, `caller` or `shadow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<String>,
    /// A deciding policy's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// A reason code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A payload's tag: the same call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Kind of record. Without one, all but `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Not before; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<jiff::Timestamp>,
    /// Before; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<jiff::Timestamp>,
    /// Only with smaller sequence numbers: the cursor of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most so many, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Waits until the view has this sequence number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_seq: Option<u64>,
}

/// Kinds that are shown only to those who ask for them.
const HIDDEN: &str = "read";

impl Query {
    /// Whether its values are such as there are. The error names the one that is not.
    pub fn check(&self) -> Result<(), String> {
        let kinds = [
            "decision",
            "outcome",
            "policy",
            "operator",
            "state",
            "read",
            "retention",
            "hold",
            "key",
            "budget",
            "task",
            "ack",
            "inbox",
            "session",
            "delegate",
        ];
        let all: [(&str, &Option<String>, &[&str]); 3] = [
            ("verdict", &self.verdict, &["allow", "escalate", "deny"]),
            ("enforced", &self.enforced, &["gateway", "caller", "shadow"]),
            ("kind", &self.kind, &kinds),
        ];
        for (name, value, known) in all {
            if let Some(value) = value.as_deref().filter(|value| !known.contains(value)) {
                return Err(format!("{name} `{}`: one of {}", value.escape_debug(), known.join(", ")));
            }
        }
        if self.limit == Some(0) {
            return Err("limit `0`: at least 1".into());
        }
        Ok(())
    }

    /// Values to find in indexes.
    pub(super) fn postings(&self) -> Vec<(Index, &str)> {
        let all = [
            (Index::Worker, &self.worker),
            (Index::Server, &self.server),
            (Index::Tool, &self.tool),
            (Index::Action, &self.action),
            (Index::Verdict, &self.verdict),
            (Index::Enforced, &self.enforced),
            (Index::Policy, &self.policy),
            (Index::Reason, &self.reason),
            (Index::Kind, &self.kind),
        ];
        all.into_iter().filter_map(|(index, value)| Some((index, value.as_deref()?))).collect()
    }

    /// Values to find in columns.
    pub(super) fn columns(&self) -> Vec<(Column, &str)> {
        let all = [
            (Column::Session, &self.session),
            (Column::Task, &self.task),
            (Column::Run, &self.run),
            (Column::Fingerprint, &self.fingerprint),
        ];
        all.into_iter().filter_map(|(column, value)| Some((column, value.as_deref()?))).collect()
    }

    /// Whether a record is one that is looked for. The last word: the view only says where to look.
    pub fn matches(&self, record: &Record) -> bool {
        let kind = record.body.kind();
        let right_kind = self.kind.as_ref().map_or(kind != HIDDEN, |wanted| wanted == kind);
        let in_time =
            self.since.is_none_or(|since| record.ts >= since) && self.until.is_none_or(|until| record.ts < until);
        if !right_kind || !in_time {
            return false;
        }
        let Body::Decision(decision) = &record.body else {
            // Of an outcome nothing but its findings is known here.
            let decisive = self.postings().iter().any(|(index, _)| *index != Index::Kind)
                || self.columns().iter().any(|(column, _)| *column != Column::Fingerprint);
            return !decisive && self.is_found_in(&record.body);
        };
        let same = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let optional = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        let tool = || super::block::tool(decision);
        same(&self.worker, &decision.worker)
            && optional(&self.session, &decision.session)
            && optional(&self.task, &decision.task)
            && optional(&self.run, &decision.run)
            && same(&self.server, &decision.server)
            && self.tool.as_ref().is_none_or(|wanted| *wanted == tool())
            && same(&self.action, &decision.action)
            && same(&self.verdict, decision.verdict.name())
            && same(&self.enforced, decision.enforced.name())
            && self.policy.as_ref().is_none_or(|wanted| decision.policies.contains(wanted))
            && same(&self.reason, &decision.reason)
            && (same(&self.fingerprint, &decision.payload_tag) || self.is_found_in(&record.body))
    }

    /// Whether the secret value that is looked for was found there.
    fn is_found_in(&self, body: &Body) -> bool {
        self.fingerprint.as_ref().is_none_or(|wanted| super::block::fingerprints(body).any(|found| found == wanted))
    }
}
