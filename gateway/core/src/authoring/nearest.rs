//! The nearest changes of a request that get it a better verdict: found by looking at the clauses that stand in the way, and
//! believed only when the engine says so.

use super::cover::{Parts, RuleState, Truth};
use super::question::{Question, answer};
use crate::catalogue::recorded;
use crate::catalogue::ty::Ty;
use crate::policy::est::{self, Clause};
use crate::policy::layer::Rule;
use crate::policy::snapshot::Snapshot;
use crate::verdict::Verdict;
use cedar_policy::{Effect, PolicySet};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{HashSet, VecDeque};

/// A way to a better verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// What the request would get.
    pub verdict: Verdict,
    /// What would be different about it.
    pub changes: Vec<String>,
}

/// Requests that are tried.
const TRIED_MAX: usize = 600;
/// More changes at once are no advice to anybody.
const CHANGES_MAX: usize = 4;
/// Ways that are shown.
const WAYS_MAX: usize = 3;

/// One change of a context.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    path: Vec<String>,
    to: To,
}

#[derive(Clone, Debug, PartialEq)]
enum To {
    Value(Value),
    Gone,
    With(Value),
    Without(Value),
}

/// The ways from `from` to something better.
pub(super) fn ways(
    snapshot: &Snapshot,
    question: &Question,
    rules: &[&Rule],
    parts: &Parts,
    (ty, in_composition): (&Ty, bool),
    from: Verdict,
) -> Vec<Way> {
    let set = PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone())).unwrap_or_default();
    let mut found: Vec<Way> = Vec::new();
    let mut seen = HashSet::from([question.context.to_string()]);
    let mut open = VecDeque::from([(question.clone(), Vec::<String>::new())]);
    let mut tried = 0;
    while let Some((at, changes)) = open.pop_front() {
        let requests = (at.request(snapshot, None), at.request(snapshot, Some(true)));
        // A change that does not fit the tool's types is none.
        let (Ok(plain), Ok(acknowledged)) = requests else { continue };
        if at.context.get("input").is_some_and(|input| !recorded::fits(ty, input)) {
            continue;
        }
        tried += 1;
        if tried > TRIED_MAX {
            break;
        }
        let states = [&plain, &acknowledged].map(|request| parts.look(request, snapshot.entities()));
        let verdict = answer(&[plain, acknowledged], &set, snapshot.entities(), in_composition).verdict;
        let better = verdict.rank() > from.rank();
        if better && !found.iter().any(|way| way.verdict == verdict && way.changes.len() < changes.len()) {
            found.push(Way { verdict, changes: changes.clone() });
        }
        if (better && verdict == Verdict::Allow) || changes.len() >= CHANGES_MAX {
            continue;
        }
        let changes_here = states.iter().flat_map(|states| obstacles(parts, states));
        for change in changes_here.take(TRIED_MAX.saturating_sub(open.len())) {
            let mut next = at.clone();
            let mut said = changes.clone();
            // Of a tool without a schema everything is unseen, however it is called.
            if *ty == Ty::Unseen && change.iter().any(|one| one.path == ["unseen"]) {
                continue;
            }
            for one in &change {
                if one.apply(&mut next.context) {
                    said.push(one.says());
                }
            }
            said.dedup();
            if said.len() <= CHANGES_MAX && seen.insert(next.context.to_string()) {
                open.push_back((next, said));
            }
        }
    }
    found.sort_by_key(|way| (std::cmp::Reverse(way.verdict.rank()), way.changes.len()));
    found.dedup_by(|a, b| a == b);
    let mut kept: Vec<Way> = Vec::new();
    for way in found {
        if kept.iter().filter(|known| known.verdict == way.verdict).count() < WAYS_MAX {
            kept.push(way);
        }
    }
    kept
}

/// What could be changed: a clause of a forbid that matches, or all clauses that keep a permit from it.
fn obstacles(parts: &Parts, states: &[RuleState]) -> Vec<Vec<Change>> {
    let mut all = Vec::new();
    for (rule, state) in parts.rules().iter().zip(states).filter(|(_, state)| state.scope) {
        match rule.effect {
            Effect::Forbid if state.matches() => {
                for clause in &rule.clauses {
                    all.extend(wanted(&clause.body, clause.unless));
                }
            }
            Effect::Permit if !state.matches() => {
                let mut together: Vec<Vec<Change>> = vec![Vec::new()];
                for (clause, _) in rule.clauses.iter().zip(&state.clauses).filter(|(_, truth)| **truth != Truth::Holds)
                {
                    together = joined(&together, &holding(clause));
                }
                all.extend(together.into_iter().filter(|changes| !changes.is_empty()));
            }
            _ => {}
        }
    }
    all
}

fn holding(clause: &Clause) -> Vec<Vec<Change>> {
    // What is only acknowledged needs no change of the request.
    match est::context_path(&clause.body).as_deref() {
        Some(["acknowledged"]) => vec![Vec::new()],
        _ => wanted(&clause.body, !clause.unless),
    }
}

/// Each of the one with each of the other.
fn joined(one: &[Vec<Change>], other: &[Vec<Change>]) -> Vec<Vec<Change>> {
    const ALTERNATIVES_MAX: usize = 16;
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| a.iter().chain(b).cloned().collect()));
    pairs.take(ALTERNATIVES_MAX).collect()
}

/// Alternatives that would make an expression true, or false.
fn wanted(expression: &Value, truth: bool) -> Vec<Vec<Change>> {
    if let Some(path) = changeable(expression) {
        return vec![vec![Change { path, to: To::Value(truth.into()) }]];
    }
    let Some((operator, operands)) = est::operation(expression) else { return Vec::new() };
    let side = |name: &str| operands.get(name).unwrap_or(&Value::Null);
    match (operator, truth) {
        ("!", _) => wanted(side("arg"), !truth),
        ("&&", true) | ("||", false) => joined(&wanted(side("left"), truth), &wanted(side("right"), truth)),
        ("&&", false) | ("||", true) => {
            wanted(side("left"), truth).into_iter().chain(wanted(side("right"), truth)).collect()
        }
        ("==" | "!=", _) => {
            let same = (operator == "==") == truth;
            either(operands, |path, literal| match (same, literal) {
                (true, literal) => vec![set(path, literal.clone())],
                (false, Value::Number(n)) if n.as_i64() != Some(0) => vec![set(path, 0.into())],
                (false, Value::Number(_)) => vec![set(path, 1.into())],
                (false, Value::Bool(b)) => vec![set(path, (!b).into())],
                (false, Value::String(text)) => vec![set(path, format!("{text}x").into())],
                _ => Vec::new(),
            })
        }
        ("<" | "<=" | ">" | ">=", _) => compared(operator, operands, truth),
        ("like", _) => match changeable(side("left")) {
            Some(path) if truth => vec![vec![set(path, instance(side("pattern")).into())]],
            Some(path) => vec![vec![set(path, "x".into())]],
            None => Vec::new(),
        },
        ("isEmpty", true) => change_of(side("arg"), To::Value(json!([]))),
        ("has", true) => {
            let samples = [json!(""), json!(0), json!(false), json!([])];
            let path = attribute(operands);
            path.into_iter().flat_map(|path| samples.clone().map(|sample| vec![set(path.clone(), sample)])).collect()
        }
        ("has", false) => attribute(operands).map(|path| vec![vec![Change { path, to: To::Gone }]]).unwrap_or_default(),
        ("contains", _) => match (literal(side("right")), side("left").get("Set").and_then(Value::as_array)) {
            (Some(item), None) => change_of(side("left"), if truth { To::With(item) } else { To::Without(item) }),
            (None, Some(items)) => {
                let path = changeable(side("right"));
                let values: Vec<Value> =
                    if truth { items.iter().filter_map(literal).collect() } else { vec!["x".into(), 0.into()] };
                path.into_iter()
                    .flat_map(|path| values.iter().map(move |v| vec![set(path.clone(), v.clone())]).collect::<Vec<_>>())
                    .collect()
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn set(path: Vec<String>, value: Value) -> Change {
    Change { path, to: To::Value(value) }
}

fn change_of(expression: &Value, to: To) -> Vec<Vec<Change>> {
    changeable(expression).map(|path| vec![vec![Change { path, to }]]).unwrap_or_default()
}

/// An attribute that a worker can do something about by asking differently.
fn changeable(expression: &Value) -> Option<Vec<String>> {
    let path = est::context_path(expression)?;
    let fine = match path.as_slice() {
        ["input", _, ..] => true,
        [one] => ["secret_findings", "secret_suspicions", "dot_segments", "unseen"].contains(one),
        _ => false,
    };
    fine.then(|| path.into_iter().map(str::to_owned).collect())
}

fn attribute(operands: &Value) -> Option<Vec<String>> {
    let mut path: Vec<String> = est::context_path(operands.get("left")?)?.into_iter().map(str::to_owned).collect();
    match operands.get("attr")? {
        Value::String(name) => path.push(name.clone()),
        Value::Array(names) => path.extend(names.iter().filter_map(|name| Some(name.as_str()?.to_owned()))),
        _ => return None,
    }
    (path.first().is_some_and(|first| first == "input") && path.len() > 1).then_some(path)
}

/// Facts stand in Cedar's JSON as they are.
fn literal(expression: &Value) -> Option<Value> {
    expression.get("Value").cloned()
}

fn either(operands: &Value, changes: impl Fn(Vec<String>, &Value) -> Vec<Change>) -> Vec<Vec<Change>> {
    let sides = [("left", "right"), ("right", "left")];
    let of = |(one, other): (&str, &str)| Some((changeable(operands.get(one)?)?, literal(operands.get(other)?)?));
    sides.into_iter().filter_map(of).map(|(path, literal)| changes(path, &literal)).filter(|c| !c.is_empty()).collect()
}

fn compared(operator: &str, operands: &Value, truth: bool) -> Vec<Vec<Change>> {
    let sides = [("left", "right", false), ("right", "left", true)];
    let of = |(one, other, turned): (&str, &str, bool)| {
        let (path, bound) = (changeable(operands.get(one)?)?, literal(operands.get(other)?)?.as_i64()?);
        let operator = match (operator, turned, truth) {
            ("<", false, true) | (">", true, true) | (">=", false, false) | ("<=", true, false) => "<",
            ("<=", false, true) | (">=", true, true) | (">", false, false) | ("<", true, false) => "<=",
            (">", false, true) | ("<", true, true) | ("<=", false, false) | (">=", true, false) => ">",
            _ => ">=",
        };
        let value = match operator {
            "<" => bound.checked_sub(1)?,
            ">" => bound.checked_add(1)?,
            _ => bound,
        };
        Some(vec![set(path, value.into())])
    };
    sides.into_iter().filter_map(of).collect()
}

/// A text that a pattern matches.
fn instance(pattern: &Value) -> String {
    let part = |part: &Value| match part.get("Literal").and_then(Value::as_str) {
        Some(literal) => literal.to_owned(),
        None => "x".to_owned(),
    };
    pattern.as_array().into_iter().flatten().map(part).collect()
}

impl Change {
    /// Whether anything changed.
    fn apply(&self, context: &mut Value) -> bool {
        let before = context.clone();
        let Some((last, path)) = self.path.split_last() else { return false };
        let mut at = &mut *context;
        for name in path {
            let Some(members) = at.as_object_mut() else { return false };
            at = members.entry(name.clone()).or_insert_with(|| json!({}));
        }
        let Some(members) = at.as_object_mut() else { return false };
        match &self.to {
            To::Value(value) => drop(members.insert(last.clone(), value.clone())),
            To::Gone => drop(members.shift_remove(last)),
            To::With(item) => {
                if let Some(items) = members.entry(last.clone()).or_insert_with(|| json!([])).as_array_mut()
                    && !items.contains(item)
                {
                    items.push(item.clone());
                }
            }
            To::Without(item) => {
                if let Some(items) = members.get_mut(last).and_then(Value::as_array_mut) {
                    items.retain(|other| other != item);
                }
            }
        }
        *context != before
    }

    fn says(&self) -> String {
        let fact = match self.path.as_slice() {
            [one] => Some(one.as_str()),
            _ => None,
        };
        let name = self.path.get(1..).unwrap_or_default().join(".");
        match (fact, &self.to) {
            (Some("secret_findings"), To::Value(n)) if *n == 0 => "it holds no secret value".into(),
            (Some("secret_suspicions"), To::Value(n)) if *n == 0 => {
                "it holds nothing that looks like a secret value".into()
            }
            (Some("dot_segments"), To::Value(b)) if *b == false => "its paths have no `..`".into(),
            (Some("unseen"), To::Value(_)) => "it has no arguments that policy cannot see".into(),
            (Some(fact), _) => format!("another `context.{fact}`"),
            (None, To::Value(value)) => format!("`{name}` is {value}"),
            (None, To::Gone) => format!("`{name}` is left out"),
            (None, To::With(item)) => format!("`{name}` contains {item}"),
            (None, To::Without(item)) => format!("`{name}` does not contain {item}"),
        }
    }
}
