//! Why a proposal got its verdict, rule by rule, and what would have to be different about it.

use super::cover::{Parts, RuleParts, RuleState, Truth};
use super::nearest::{self, Way};
use super::question::Question;
use crate::facts::{self, Facts};
use crate::policy::layer::{LayerName, Rule};
use crate::policy::snapshot::{Case, NoCase, Snapshot};
use crate::proposal::Proposal;
use crate::secrets::Scanner;
use crate::verdict::{Verdict, evaluate};
use serde::Serialize;
use std::collections::HashSet;

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason code.
    pub reason: String,
    /// What the worker is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What went wrong while deciding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Layer by layer, the charter first.
    pub layers: Vec<LayerView>,
    /// What would get a better verdict, the smallest change first. Each was tried on the engine.
    pub nearest: Vec<Way>,
}

/// One layer's part in it.
#[derive(Clone, Debug, Serialize)]
pub struct LayerView {
    /// Its name.
    pub layer: &'static str,
    /// What it says, in a sentence.
    pub says: String,
    /// The rules whose scope fits: those that match, and of the others the first few.
    pub rules: Vec<RuleView>,
    /// How many more there are whose scope fits and that do not match.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// How many others it has.
    pub elsewhere: usize,
}

/// So many rules that do not match are shown.
const IDLE_MAX: usize = 20;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// One rule's part in it.
#[derive(Clone, Debug, Serialize)]
pub struct RuleView {
    /// Its id.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: String,
    /// File and line.
    pub at: String,
    /// Whether it matches as things stand.
    pub matches: bool,
    /// The clauses that keep it from matching.
    pub fails_at: Vec<String>,
    /// Whether it would match once acknowledged.
    pub acknowledged: bool,
}

/// The case and the facts of a proposal; the reason code when it is refused before any policy is asked.
pub fn look<'s>(
    snapshot: &'s Snapshot,
    proposal: &Proposal,
    scanner: &Scanner,
) -> Result<(Case<'s>, Facts), &'static str> {
    let case = snapshot.case(&proposal.worker, &proposal.server, &proposal.ask).map_err(NoCase::reason)?;
    let scan = facts::scan(proposal, scanner);
    match facts::gather(proposal, &case.target.input, &case.target.paths, scan) {
        Ok(facts) => Ok((case, facts)),
        Err(refused) => Err(refused.refusal.code()),
    }
}

/// Explains a case.
pub fn explain(snapshot: &Snapshot, case: &Case<'_>, facts: &Facts) -> Result<Explanation, String> {
    let evaluation = evaluate(snapshot, case, facts);
    let request = snapshot.request(case, facts)?;
    let context = request.context().ok_or("the request has no context")?.to_json_value().map_err(|e| e.to_string())?;
    let question = Question {
        principal: case.principal.clone().into_owned(),
        action: case.target.action.clone(),
        resource: case.resource.clone().into_owned(),
        context,
    };
    let concerned: HashSet<String> =
        case.slice.iter().flat_map(|slice| slice.plain.policies()).map(|policy| policy.id().to_string()).collect();
    let rules: Vec<&Rule> =
        snapshot.live_rules().filter(|rule| concerned.contains(AsRef::<str>::as_ref(rule.policy.id()))).collect();
    let parts = Parts::of(rules.iter().copied());
    let plain = parts.look(&question.request(snapshot, None)?, snapshot.entities());
    let acknowledged = parts.look(&question.request(snapshot, Some(true))?, snapshot.entities());
    let views = rules.iter().zip(parts.rules()).zip(plain.iter().zip(&acknowledged));
    let views: Vec<RuleView> = views.map(|((rule, parts), (state, acked))| view(rule, parts, state, acked)).collect();
    let mut layers = Vec::new();
    for layer in &snapshot.layers {
        let own: HashSet<String> = layer.rules.iter().map(|rule| rule.policy.id().to_string()).collect();
        let mut rules: Vec<RuleView> = views.iter().filter(|view| own.contains(&view.id)).cloned().collect();
        if layer.name == LayerName::Composition && rules.is_empty() {
            continue;
        }
        let name = match layer.name {
            LayerName::Charter => "charter",
            LayerName::Site => "site",
            LayerName::Composition => "composition",
        };
        let (says, fitting) = (says(layer.name, &rules), rules.len());
        let mut idle = 0;
        rules.retain(|rule| {
            idle += usize::from(!rule.matches);
            rule.matches || idle <= IDLE_MAX
        });
        let (elsewhere, left_out) = (own.len() - fitting, fitting - rules.len());
        layers.push(LayerView { layer: name, says, rules, left_out, elsewhere });
    }
    let nearest = match evaluation.verdict {
        Verdict::Allow => Vec::new(),
        from => nearest::ways(snapshot, &question, &rules, &parts, (&case.target.input, case.in_composition), from),
    };
    Ok(Explanation {
        verdict: evaluation.verdict,
        reason: evaluation.reason,
        advice: evaluation.advice,
        errors: evaluation.errors,
        layers,
        nearest,
    })
}

fn view(rule: &Rule, parts: &RuleParts, state: &RuleState, acknowledged: &RuleState) -> RuleView {
    let fails = parts.clauses.iter().zip(&state.clauses).filter(|(_, truth)| **truth == Truth::Fails);
    RuleView {
        id: rule.policy.id().to_string(),
        effect: rule.policy.effect().to_string(),
        at: format!("{}:{}", rule.file, rule.line),
        matches: state.matches(),
        fails_at: fails.map(|(clause, _)| clause.text()).collect(),
        acknowledged: acknowledged.matches(),
    }
}

fn says(layer: LayerName, rules: &[RuleView]) -> String {
    let ids = |effect: &str, of: fn(&RuleView) -> bool| -> Vec<&str> {
        rules.iter().filter(|rule| rule.effect == effect && of(rule)).map(|rule| rule.id.as_str()).collect()
    };
    let (forbids, permits) = (ids("forbid", |r| r.matches), ids("permit", |r| r.matches));
    let held: Vec<&str> = ids("forbid", |r| r.matches && !r.acknowledged);
    match (layer, forbids.is_empty(), permits.is_empty()) {
        (_, false, _) if held.len() == forbids.len() => {
            format!("forbids it, unless a person acknowledges it: {}", forbids.join(", "))
        }
        (_, false, _) => format!("forbids it: {}", forbids.join(", ")),
        (LayerName::Charter, true, _) => "forbids nothing of it".into(),
        (_, true, false) => format!("permits it: {}", permits.join(", ")),
        (_, true, true) => match ids("permit", |r| r.acknowledged).as_slice() {
            [] => "permits it by no rule".into(),
            once => format!("permits it once a person acknowledges it: {}", once.join(", ")),
        },
    }
}
