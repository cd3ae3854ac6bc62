//! A yes to more than one proposal: a tool with constraints on its arguments, for a session, for a while, so many times.
//!
//! It is a Cedar permit of its own. It enters no layer: where the layers would escalate, it is asked whether a person has said
//! yes already, and then the layers are asked again, acknowledged.

use crate::catalogue::ty::Ty;
use crate::facts::Facts;
use crate::policy::snapshot::{Case, Snapshot};
use crate::proposal::{Correlation, DecisionId, Proposal};
use cedar_policy::{Authorizer, Decision, Policy, PolicyId, PolicySet, ValidationMode, Validator};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write;

/// One.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Its id.
    pub id: String,
    /// Whose proposals.
    pub worker: String,
    /// The action.
    pub action: String,
    /// What it amounts to, in Cedar.
    pub policy: String,
    /// Until when.
    pub until: Timestamp,
    /// How often it can still be used; any number of times when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u64>,
    /// Only within this session, as a host names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Only within this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// The hash of the tool's definition then: another definition is another tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// The charter of then.
    pub charter: String,
    /// The held proposal that it was made from.
    pub of: DecisionId,
    /// Who acknowledged it.
    pub operator: String,
}

/// What an operator asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Seconds.
    pub for_s: u64,
    /// How often.
    pub times: Option<u64>,
    /// Within the session of the held proposal.
    pub session: bool,
    /// Arguments that must be as in the held proposal. All that policy sees, when neither this nor `when` says anything.
    pub same: Vec<String>,
    /// A condition in Cedar, in place of `same`: over `context.input`.
    pub when: Option<String>,
}

/// Why there is no such scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotScoped {
    /// It says nothing of time, or too long.
    #[error("say for how long: at least a second, at most 31 days")]
    Time,
    /// No use at all.
    #[error("say how often: at least once")]
    Times,
    /// What policy cannot see cannot be compared.
    #[error("policy cannot see all its arguments, so only this one proposal can be acknowledged")]
    Unseen,
    /// What is held is out of the ordinary in a way that a person has to look at each time.
    #[error(
        "it has `..` in a path, something that looks like a secret, answers to a server's questions, or a tool that has changed: only this one proposal can be acknowledged"
    )]
    OneByOne,
    /// An argument that is not there, or that cannot be written as a condition.
    #[error("argument `{0}`: it is not there, or too long or too deep to be compared; say it in Cedar with `when`")]
    Argument(String),
    /// The condition is no Cedar, or does not fit the tool.
    #[error("the condition does not hold up: {0}")]
    Condition(String),
    /// Only calls of tools that are in the catalogue.
    #[error("only calls of tools in the catalogue can be acknowledged in advance")]
    NotATool,
}

const LONGEST_S: u64 = 31 * 24 * 3600;
/// Longer strings are said in Cedar by a person, or not at all.
const TEXT_MAX: usize = 4096;

/// The permit that a scope amounts to, checked against the schema of `snapshot`.
pub fn permit(snapshot: &Snapshot, case: &Case<'_>, facts: &Facts, wanted: &Wanted) -> Result<String, NotScoped> {
    if !(1..=LONGEST_S).contains(&wanted.for_s) {
        return Err(NotScoped::Time);
    }
    if wanted.when.is_some() && !wanted.same.is_empty() {
        return Err(NotScoped::Condition("give either `same` or `when`".into()));
    }
    if wanted.times == Some(0) {
        return Err(NotScoped::Times);
    }
    if !facts.input.unseen.is_empty() {
        return Err(NotScoped::Unseen);
    }
    let listed = case.resource_record.value().get("listed") == Some(&Value::Bool(true));
    if !listed {
        return Err(NotScoped::NotATool);
    }
    let effect = case.resource_record.value().get("effect").and_then(Value::as_str).unwrap_or_default();
    let changed = case.resource_record.value().get("changed") == Some(&Value::Bool(true));
    if facts.dot_segments || !facts.suspicions.is_empty() || changed {
        return Err(NotScoped::OneByOne);
    }
    // What a person has to look at each time is in no scope, and neither is a tool that is classified otherwise by then.
    let mut conditions = vec![
        "context.unseen.isEmpty()".to_owned(),
        "!context.dot_segments".to_owned(),
        "context.secret_suspicions == 0".to_owned(),
        "!resource.changed".to_owned(),
        format!("resource.effect == Effect::{}", quoted(effect)),
    ];
    match &wanted.when {
        Some(_) => {}
        None => conditions.extend(same_arguments(&facts.input.record, &wanted.same)?),
    }
    if wanted.when.is_none() && wanted.same.is_empty() {
        conditions.extend(left_out(&case.target.input, &facts.input.record));
    }
    let mut text = format!(
        "permit (\n  principal == {},\n  action == {},\n  resource == {}\n)\n",
        case.principal, case.target.action, case.resource
    );
    let _ = write!(text, "when {{ {} }}", conditions.join(" && "));
    // A clause of its own: whatever it says, the other one holds as well.
    if let Some(when) = &wanted.when {
        let _ = write!(text, "\nwhen {{ {when} }}");
    }
    text.push_str(";\n");
    checked(snapshot, &text)?;
    Ok(text)
}

fn same_arguments(record: &Value, wanted: &[String]) -> Result<Vec<String>, NotScoped> {
    let Some(members) = record.as_object() else { return Ok(Vec::new()) };
    if let Some(absent) = wanted.iter().find(|name| !members.contains_key(*name)) {
        return Err(NotScoped::Argument(absent.clone()));
    }
    let mut all = Vec::new();
    for (name, value) in members.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        let bad = || NotScoped::Argument(name.clone());
        let literal = match value {
            Value::String(text) if text.len() <= TEXT_MAX => quoted(text),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) if n.is_i64() => n.to_string(),
            Value::Array(items) if items.iter().all(Value::is_string) && items.len() <= 64 => {
                let items: Vec<String> = items.iter().filter_map(Value::as_str).map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
            _ => return Err(bad()),
        };
        let field = quoted(name);
        all.push(format!("context.input has {field} && context.input[{field}] == {literal}"));
    }
    Ok(all)
}

/// What the held proposal left out stays left out.
fn left_out(ty: &Ty, record: &Value) -> Vec<String> {
    let Ty::Record(fields, _) = ty else { return Vec::new() };
    let absent = fields.keys().filter(|name| record.get(name.as_str()).is_none());
    absent.map(|name| format!("!(context.input has {})", quoted(name))).collect()
}

/// A string literal of Cedar.
fn quoted(text: &str) -> String {
    let mut literal = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            c if c.is_control() || !c.is_ascii() => {
                let _ = write!(literal, "\\u{{{:x}}}", u32::from(c));
            }
            c => literal.push(c),
        }
    }
    literal.push('"');
    literal
}

/// One permit, valid by the strict rules that every policy is held to.
fn checked(snapshot: &Snapshot, text: &str) -> Result<PolicySet, NotScoped> {
    let bad = |e: String| NotScoped::Condition(e);
    let policy = Policy::parse(Some(PolicyId::new("scope")), text).map_err(|e| bad(e.to_string()))?;
    // A condition that closes the permit and opens another one would be a second policy, which does not parse as one.
    let set = PolicySet::from_policies([policy]).map_err(|e| bad(e.to_string()))?;
    let checked = Validator::new(snapshot.schema().clone()).validate(&set, ValidationMode::Strict);
    let problem = checked.validation_errors().next().map(ToString::to_string);
    match problem.or_else(|| checked.validation_warnings().next().map(ToString::to_string)) {
        Some(problem) => Err(bad(problem)),
        None => Ok(set),
    }
}

/// Whether a call says more than its arguments: answers to questions of its server, or a task to run it in.
pub fn says_more(proposal: &Proposal) -> bool {
    let params = proposal.envelope.get("params");
    ["inputResponses", "requestState", "task"]
        .iter()
        .any(|name| params.is_some_and(|params| params.get(name).is_some()))
}

impl Scope {
    /// Whether it may still be used for `proposal` at `now`, its condition aside.
    pub fn is_live(&self, proposal: &Proposal, now: Timestamp) -> bool {
        let Correlation { session, .. } = &proposal.correlation;
        !says_more(proposal)
            && self.worker == proposal.worker
            && self.until > now
            && self.uses_left != Some(0)
            && self.session.as_ref().is_none_or(|named| session.as_ref() == Some(named))
            && self.connection.as_ref().is_none_or(|named| *named == proposal.connection)
    }

    /// Whether a case is in it. Whatever fails is not.
    pub fn holds(&self, snapshot: &Snapshot, case: &Case<'_>, facts: &Facts) -> bool {
        let Ok(policy) = Policy::parse(Some(PolicyId::new("scope")), &self.policy) else { return false };
        let (Ok(set), Ok(request)) = (PolicySet::from_policies([policy]), snapshot.request(case, facts)) else {
            return false;
        };
        let response = Authorizer::new().is_authorized(&request, &set, snapshot.entities());
        response.decision() == Decision::Allow && response.diagnostics().errors().next().is_none()
    }
}
