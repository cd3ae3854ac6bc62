//! Mutants: rules with one small mistake each. One that no case notices shows what the cases do not hold.

use crate::policy::est::{self, Clause};
use crate::policy::layer::Rule;
use crate::policy::snapshot::Snapshot;
use cedar_policy::{Policy, PolicySet, ValidationMode, Validator};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A rule with a mistake.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The mistake: `dropped`, `without "unless context.acknowledged"`, …
    pub what: String,
    /// The rule with it; nothing when it is gone.
    pub policy: Option<Policy>,
}

/// All mutants of a rule that still are policies by the schema.
pub fn mutants(snapshot: &Snapshot, rule: &Rule) -> Vec<Mutant> {
    let clauses = est::clauses(&rule.policy);
    let mut all = vec![Mutant { what: "dropped".into(), policy: None }];
    let mut seen = BTreeSet::from([rule.policy.to_json().unwrap_or_default().to_string()]);
    let validator = Validator::new(snapshot.schema().clone());
    let mut add = |what: String, clauses: &[Clause]| {
        let Some(policy) = est::with_conditions(&rule.policy, clauses) else { return };
        let is_new = seen.insert(policy.to_json().unwrap_or_default().to_string());
        let set = PolicySet::from_policies([policy.clone()]).unwrap_or_default();
        // What cannot be loaded is no mistake that anybody could make.
        if is_new && validator.validate(&set, ValidationMode::Strict).validation_passed() {
            all.push(Mutant { what, policy: Some(policy) });
        }
    };
    // The rule as clauses is no mutant of itself.
    add(String::new(), &clauses);
    for (number, clause) in clauses.iter().enumerate() {
        let mut without = clauses.clone();
        without.remove(number);
        add(format!("without `{}`", clause.text()), &without);
        for (what, body) in changes(&clause.body) {
            let mut changed = clauses.clone();
            changed[number].body = body;
            add(what, &changed);
        }
    }
    all.retain(|mutant| !mutant.what.is_empty());
    all
}

/// An expression with one small change, each with what was changed.
fn changes(expression: &Value) -> Vec<(String, Value)> {
    let mut all = vec![(format!("`{}` negated", est::text_of(expression)), json!({ "!": { "arg": expression } }))];
    inner(expression, &mut |changed, what| all.push((what, changed)));
    all
}

const SWAPS: [(&str, &[&str]); 8] = [
    ("==", &["!="]),
    ("!=", &["=="]),
    ("<", &["<=", ">="]),
    ("<=", &["<", ">"]),
    (">", &[">=", "<="]),
    (">=", &[">", "<"]),
    ("&&", &["||"]),
    ("||", &["&&"]),
];

/// Operators exchanged, at any depth.
fn inner(expression: &Value, found: &mut dyn FnMut(Value, String)) {
    let Some((operator, operands)) = est::operation(expression) else { return };
    let others = SWAPS.iter().find(|(own, _)| *own == operator).map_or(&[][..], |(_, others)| others);
    for other in others {
        found(json!({ *other: operands }), format!("`{operator}` for `{other}` in `{}`", est::text_of(expression)));
    }
    let count = est::parts(expression).len();
    for number in 0..count {
        let mut changed = Vec::new();
        if let Some(part) = est::parts(expression).get(number) {
            inner(part, &mut |part, what| changed.push((part, what)));
        }
        for (part, what) in changed {
            let mut whole = expression.clone();
            if let Some(place) = est::parts_mut(&mut whole).into_iter().nth(number) {
                *place = part;
            }
            found(whole, what);
        }
    }
}
