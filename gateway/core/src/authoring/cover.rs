//! Which rules decided, and which clause of a rule kept it from deciding.

use crate::policy::est::{self, Clause};
use crate::policy::layer::Rule;
use cedar_policy::{Authorizer, Effect, Entities, Policy, PolicyId, PolicySet, Request};
use serde::Serialize;
use serde_json::json;
use std::collections::HashSet;

/// Rules taken apart, so that each clause can be asked by itself.
pub struct Parts {
    set: PolicySet,
    rules: Vec<RuleParts>,
}

/// A rule and its clauses.
pub struct RuleParts {
    /// Its id.
    pub id: String,
    /// Permit or forbid.
    pub effect: Effect,
    /// In the order in which Cedar looks at them.
    pub clauses: Vec<Clause>,
}

/// What one clause came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// It holds. Of an `unless`: what it says does not hold.
    Holds,
    /// It keeps the rule from matching.
    Fails,
    /// It cannot be evaluated by itself: it asks for what is not there, and a clause before it sees to that.
    Errors,
}

/// What a rule came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleState {
    /// Whether principal, action and resource are such as its scope says.
    pub scope: bool,
    /// Of each clause.
    pub clauses: Vec<Truth>,
}

impl RuleState {
    /// Whether the rule matches.
    pub fn matches(&self) -> bool {
        self.scope && self.clauses.iter().all(|truth| *truth == Truth::Holds)
    }

    /// The one clause that alone keeps the rule from matching.
    pub fn deciding(&self) -> Option<usize> {
        let mut fails = self.clauses.iter().enumerate().filter(|(_, truth)| **truth == Truth::Fails);
        match (self.scope, fails.next(), fails.next()) {
            (true, Some((number, _)), None) => Some(number),
            _ => None,
        }
    }
}

impl Parts {
    /// Takes rules apart.
    pub fn of<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Self {
        let (mut policies, mut parts) = (Vec::new(), Vec::new());
        for (number, rule) in rules.into_iter().enumerate() {
            let clauses = est::clauses(&rule.policy);
            let probe = |id: String, clauses: &[Clause]| {
                let mut est = rule.policy.to_json().ok()?;
                est["effect"] = json!("permit");
                est["conditions"] = clauses.iter().map(Clause::condition).collect();
                Policy::from_json(Some(PolicyId::new(id)), est).ok()
            };
            policies.extend(probe(number.to_string(), &[]));
            for (clause, body) in clauses.iter().enumerate() {
                policies.extend(probe(format!("{number}/{clause}"), std::slice::from_ref(body)));
            }
            parts.push(RuleParts { id: rule.policy.id().to_string(), effect: rule.policy.effect(), clauses });
        }
        Self { set: PolicySet::from_policies(policies).unwrap_or_default(), rules: parts }
    }

    /// The rules, in the order of [`Parts::look`].
    pub fn rules(&self) -> &[RuleParts] {
        &self.rules
    }

    /// What each rule and clause comes to.
    pub fn look(&self, request: &Request, entities: &Entities) -> Vec<RuleState> {
        // All of them are permits, so every one that matches is named.
        let response = Authorizer::new().is_authorized(request, &self.set, entities);
        let holds: HashSet<&str> = response.diagnostics().reason().map(AsRef::as_ref).collect();
        let errors: HashSet<String> = response
            .diagnostics()
            .errors()
            .map(|e| match e {
                cedar_policy::AuthorizationError::PolicyEvaluationError(e) => e.policy_id().to_string(),
            })
            .collect();
        let truth = |id: String| match (holds.contains(id.as_str()), errors.contains(&id)) {
            (true, _) => Truth::Holds,
            (_, true) => Truth::Errors,
            _ => Truth::Fails,
        };
        let state = |(number, rule): (usize, &RuleParts)| RuleState {
            scope: holds.contains(number.to_string().as_str()),
            clauses: (0..rule.clauses.len()).map(|clause| truth(format!("{number}/{clause}"))).collect(),
        };
        self.rules.iter().enumerate().map(state).collect()
    }
}

/// What cases showed of the rules.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    matched: Vec<usize>,
    decided: Vec<Vec<usize>>,
}

/// What cases showed of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// Its id.
    pub rule: String,
    /// In how many cases it matched.
    pub matched: usize,
    /// Of each clause: its text, and in how many cases it alone kept the rule from matching.
    pub clauses: Vec<(String, usize)>,
}

impl Covered {
    /// Whether a case showed everything of it.
    pub fn is_complete(&self) -> bool {
        self.matched > 0 && self.clauses.iter().all(|(_, count)| *count > 0)
    }
}

impl Coverage {
    /// Nothing shown yet.
    pub fn new(parts: &Parts) -> Self {
        Self {
            matched: vec![0; parts.rules.len()],
            decided: parts.rules.iter().map(|rule| vec![0; rule.clauses.len()]).collect(),
        }
    }

    /// Adds what one request shows.
    pub fn add(&mut self, states: &[RuleState]) {
        for ((state, matched), decided) in states.iter().zip(&mut self.matched).zip(&mut self.decided) {
            *matched += usize::from(state.matches());
            if let Some(count) = state.deciding().and_then(|number| decided.get_mut(number)) {
                *count += 1;
            }
        }
    }

    /// By rule.
    pub fn of(&self, parts: &Parts) -> Vec<Covered> {
        let rules = parts.rules.iter().zip(&self.matched).zip(&self.decided);
        rules
            .map(|((rule, matched), decided)| Covered {
                rule: rule.id.clone(),
                matched: *matched,
                clauses: rule.clauses.iter().map(Clause::text).zip(decided.iter().copied()).collect(),
            })
            .collect()
    }
}
