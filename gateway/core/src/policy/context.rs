//! The context of a request: facts written as Cedar has them. From pairs, never from JSON, which would be parsed.

use super::entities::uid;
use super::reads::Reads;
use super::shape::{self, AppShape};
use crate::budget::BudgetFacts;
use crate::catalogue::input;
use crate::catalogue::ty::Ty;
use crate::facts::{Facts, Mode};
use crate::json::Json;
use crate::proposal::TaskFacts;
use crate::session::SessionFacts;
use crate::session::history::Value;
use cedar_policy::{Context, EntityUid, RestrictedExpression as Expression};
use std::collections::BTreeMap;

/// What of the context depends on the snapshot, prepared.
pub(super) struct Shape {
    modes: [(Mode, EntityUid); 3],
    apps: BTreeMap<String, EntityUid>,
    overrides: Ty,
    /// Every declared fact, as it is where nothing was counted.
    facts: BTreeMap<String, Value>,
}

type Pair = (String, Expression);

impl Shape {
    pub(super) fn of(apps: &[AppShape]) -> Result<Self, String> {
        let mode = |mode: Mode| uid("Mode", mode.name()).map(|uid| (mode, uid));
        let none = |is_flag| if is_flag { Value::Seen(false) } else { Value::Number(0) };
        Ok(Self {
            modes: [mode(Mode::DryRun)?, mode(Mode::Execute)?, mode(Mode::Scheduled)?],
            apps: apps
                .iter()
                .map(|app| Ok((app.name.clone(), uid("App", &app.name)?)))
                .collect::<Result<_, String>>()?,
            overrides: shape::overrides(apps)?,
            facts: shape::facts(apps).into_iter().map(|(name, is_flag)| (name.to_owned(), none(is_flag))).collect(),
        })
    }

    /// What of the facts is read. What every action has is always there; of what only some have, no more than that.
    pub(super) fn context(&self, facts: &Facts, reads: &Reads) -> Result<Context, String> {
        let mode = self.modes.iter().find(|(mode, _)| *mode == facts.mode).map(|(_, uid)| uid.clone());
        let mode = mode.ok_or("no such mode")?;
        let count = |n: usize| long(i64::try_from(n).unwrap_or(i64::MAX));
        let mut pairs = vec![
            pair("acknowledged", Expression::new_bool(facts.acknowledged)),
            pair("mode", Expression::new_entity_uid(mode)),
            pair("secret_findings", count(facts.findings.len())),
            pair("secret_suspicions", count(facts.suspicions.len())),
            pair("unseen", texts(&facts.input.unseen)),
            pair("dot_segments", Expression::new_bool(facts.dot_segments)),
        ];
        if let Some(budget) = facts.budget.as_ref().filter(|_| reads.has("budget")) {
            pairs.push(pair("budget", record(budget_fields(budget))?));
        }
        if let Some(task) = facts.task.as_ref().filter(|_| reads.has("task")) {
            pairs.push(pair("task", record(task_fields(task))?));
        }
        if let Some((session, reads)) = facts.session.as_ref().zip(reads.member("session")) {
            pairs.push(pair("session", record(self.session_fields(session, reads)?)?));
        }
        pairs.extend(facts.input.cedar.clone().map(|input| pair("input", input)));
        Context::from_pairs(pairs).map_err(|e| e.to_string())
    }

    fn session_fields(&self, session: &SessionFacts, reads: &Reads) -> Result<Vec<Pair>, String> {
        // A session of an app that is not configured any more has no place in the schema: where it is read, the request is refused.
        let app = self.apps.get(&session.app).ok_or_else(|| format!("no app `{}`", session.app))?;
        let mut fields = Vec::new();
        let mut field = |name: &str, value: &dyn Fn() -> Expression| {
            if reads.has(name) {
                fields.push(pair(name, value()));
            }
        };
        field("id", &|| text(&session.id));
        field("app", &|| Expression::new_entity_uid(app.clone()));
        field("status", &|| text(&session.status));
        field("terminal", &|| Expression::new_bool(session.terminal));
        field("age_s", &|| long(session.age_s));
        field("calls", &|| long(session.calls));
        field("same_tool", &|| long(session.same_tool));
        field("handling", &|| text(&session.handling));
        field("gated", &|| Expression::new_bool(session.gated));
        if let Some(thousandths) = session.confidence {
            field("confidence", &|| long(thousandths));
        }
        if let Some(signal) = &session.signal {
            field("signal", &|| text(signal));
        }
        if reads.has("overrides") {
            fields.push(pair("overrides", self.overrides(session)?));
        }
        if let Some(reads) = reads.member("facts") {
            fields.push(pair("facts", self.history(session, reads)?));
        }
        Ok(fields)
    }

    fn overrides(&self, session: &SessionFacts) -> Result<Expression, String> {
        if session.overrides.is_empty() {
            return record(Vec::new());
        }
        let given = Json::from(&serde_json::Value::Object(session.overrides.clone()));
        // What its app's schema let through and policy cannot see is left out: policies read what is there.
        let read = input::read(&self.overrides, &given).map_err(|e| e.to_string())?;
        read.cedar.map_or_else(|| record(Vec::new()), Ok)
    }

    fn history(&self, session: &SessionFacts, reads: &Reads) -> Result<Expression, String> {
        let value = |value: &Value| match value {
            Value::Seen(seen) => Expression::new_bool(*seen),
            Value::Number(n) => long(*n),
        };
        let read = self.facts.iter().filter(|(name, _)| reads.has(name));
        record(read.map(|(name, none)| (name.clone(), value(session.facts.get(name).unwrap_or(none)))).collect())
    }
}

fn pair(name: &str, value: Expression) -> Pair {
    (name.to_owned(), value)
}

fn long(n: i64) -> Expression {
    Expression::new_long(n)
}

fn text(text: &str) -> Expression {
    Expression::new_string(text.to_owned())
}

fn texts(texts: &[String]) -> Expression {
    Expression::new_set(texts.iter().map(|t| text(t)))
}

fn record(fields: Vec<Pair>) -> Result<Expression, String> {
    Expression::new_record(fields).map_err(|e| e.to_string())
}

/// Counts that are too large for Cedar's integers are its largest.
fn budget_fields(budget: &BudgetFacts) -> Vec<Pair> {
    let number = |n: u64| long(i64::try_from(n).unwrap_or(i64::MAX));
    let mut fields = vec![pair("tokens", number(budget.tokens)), pair("micro_usd", number(budget.micro_usd))];
    fields.extend(budget.tokens_left.map(|left| pair("tokens_left", number(left))));
    fields.extend(budget.micro_usd_left.map(|left| pair("micro_usd_left", number(left))));
    fields
}

fn task_fields(task: &TaskFacts) -> Vec<Pair> {
    let mut fields = vec![
        pair("id", text(&task.id)),
        pair("ambient", Expression::new_bool(task.ambient)),
        pair("in_scope", Expression::new_bool(task.scope.in_scope)),
        pair("input_from_prompt", texts(&task.scope.input_from_prompt)),
        pair("input_from_directory", texts(&task.scope.input_from_directory)),
        pair("unvouched", texts(&task.scope.unvouched)),
    ];
    fields.extend(task.zone.as_ref().map(|zone| pair("zone", text(zone))));
    fields
}
