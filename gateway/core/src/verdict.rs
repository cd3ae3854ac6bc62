//! The verdict: Cedar asked once or twice, and never trusted past an error.
//!
//! Cedar **skips** a policy that errors, so a failing `forbid` would let a call through. Any error of any policy is a
//! deny, with its own reason, and never a question for a person.

use crate::facts::Facts;
use crate::policy::layer::LayerName;
use crate::policy::slice::Slice;
use crate::policy::snapshot::{Case, Snapshot};
use cedar_policy::{Authorizer, Decision as CedarDecision, Entities, Policy, PolicyId, PolicySet, Request};
use serde::{Deserialize, Serialize};

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may run.
    Allow,
    /// It would be allowed if a named person acknowledged this exact proposal.
    Escalate,
    /// It may not run.
    Deny,
}

impl Verdict {
    /// The name in JSON, logs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Escalate => "escalate",
            Verdict::Deny => "deny",
        }
    }

    /// 0 deny, 1 escalate, 2 allow.
    pub fn rank(self) -> u8 {
        match self {
            Verdict::Deny => 0,
            Verdict::Escalate => 1,
            Verdict::Allow => 2,
        }
    }
}

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The verdict.
    pub verdict: Verdict,
    /// A stable code, see [`crate::reason`], or the `@reason` of the rule.
    pub reason: String,
    /// What a worker can do instead.
    pub advice: Option<String>,
    /// The policies that decided, sorted.
    pub policies: Vec<String>,
    /// What went wrong while deciding, for operators. Contains no values.
    pub errors: Vec<String>,
    /// What it would have been with the rules in shadow or, where nothing was enforced, by the rules.
    pub would_be: Option<Box<WouldBe>>,
    /// Whether it was let through although the rules say otherwise: the site is in shadow.
    pub unenforced: bool,
}

/// A verdict that did not decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldBe {
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason code.
    pub reason: String,
    /// The policies that would have decided.
    pub policies: Vec<String>,
}

impl From<Evaluation> for WouldBe {
    fn from(evaluation: Evaluation) -> Self {
        let Evaluation { verdict, reason, policies, .. } = evaluation;
        Self { verdict, reason, policies }
    }
}

impl Evaluation {
    /// A deny that no policy had to be asked for.
    pub fn deny(reason: &str, error: Option<String>) -> Self {
        Self {
            verdict: Verdict::Deny,
            reason: reason.into(),
            advice: crate::reason::advice(reason).map(str::to_owned),
            policies: Vec::new(),
            errors: error.into_iter().collect(),
            would_be: None,
            unenforced: false,
        }
    }
}

/// One question's answer.
enum Answer {
    Yes(Vec<PolicyId>),
    No(Vec<PolicyId>),
    /// The site would, and the composition does not.
    Outside,
    Error(Vec<String>),
}

/// Decides a case. Total: a fault is one more reason to refuse. A node of a composition is asked about together with everything above it:
/// the least of their verdicts is its own.
pub fn evaluate(snapshot: &Snapshot, case: &Case<'_>, facts: &Facts) -> Evaluation {
    let mut least = evaluate_alone(snapshot, case, facts);
    for above in snapshot.above(case) {
        if least.verdict == Verdict::Deny {
            break;
        }
        let other = match above {
            Some(above) => evaluate_alone(snapshot, &above, facts),
            None => Evaluation::deny("composition_unresolved", None),
        };
        if other.verdict.rank() < least.verdict.rank() {
            least = other;
        }
    }
    least
}

/// The same without what is above a node.
pub(crate) fn evaluate_alone(snapshot: &Snapshot, case: &Case<'_>, facts: &Facts) -> Evaluation {
    let Some(slice) = &case.slice else {
        return Evaluation::deny("composition_unresolved", None);
    };
    let request = match snapshot.least_request(case, slice, facts) {
        Ok(request) => request,
        // The text may quote a value, so it is not kept.
        Err(_) => return Evaluation::deny("request_invalid", Some("the request does not fit the schema".into())),
    };
    let evaluation = decide(snapshot, slice, &request, case.in_composition);
    let Some(beside) = &slice.beside else { return evaluation };
    let other = decide(snapshot, beside, &request, case.in_composition);
    let differs = other.verdict != evaluation.verdict || other.policies != evaluation.policies;
    Evaluation { would_be: differs.then(|| Box::new(other.into())), ..evaluation }
}

/// What the charter alone makes of a case, as if everything else permitted it. Nothing when there is nobody to ask about.
pub fn under_charter(snapshot: &Snapshot, case: &Case<'_>, facts: &Facts) -> Option<Evaluation> {
    let slice = case.slice.as_deref()?;
    let request = snapshot.request(case, facts).ok()?;
    let alone = |set: &PolicySet| {
        let charter = set.policies().filter(|policy| LayerName::of(policy.id()) == Some(LayerName::Charter)).cloned();
        let everything = [LayerName::Site, LayerName::Composition].into_iter().filter_map(|layer| {
            let id = PolicyId::new(format!("{}everything", layer.prefix()));
            Policy::parse(Some(id), "permit (principal, action, resource);").ok()
        });
        PolicySet::from_policies(charter.chain(everything)).ok()
    };
    let charter = Slice {
        plain: alone(&slice.plain)?,
        acknowledged: Some(alone(slice.acknowledged.as_ref().unwrap_or(&slice.plain))?),
        liftable: slice.liftable.clone(),
        permits_more: false,
        reads: slice.reads.clone(),
        reads_principal: true,
        listed: false,
        beside: None,
    };
    Some(decide(snapshot, &charter, &request, case.in_composition))
}

/// The verdict of the policies of a slice on one request.
pub(crate) fn decide(snapshot: &Snapshot, slice: &Slice, request: &Request, in_composition: bool) -> Evaluation {
    let entities = snapshot.entities();
    match ask(&slice.plain, request, entities, in_composition) {
        Answer::Yes(permits) => Evaluation {
            verdict: Verdict::Allow,
            reason: "allowed".into(),
            advice: None,
            policies: names(permits),
            errors: Vec::new(),
            would_be: None,
            unenforced: false,
        },
        Answer::Error(errors) => Evaluation { errors, ..Evaluation::deny("policy_error", None) },
        answer @ (Answer::No(_) | Answer::Outside) => {
            let (forbids, outside) = match answer {
                Answer::No(forbids) => (forbids, false),
                _ => (Vec::new(), true),
            };
            let hard: Vec<PolicyId> = forbids.iter().filter(|id| !slice.liftable.contains(id)).cloned().collect();
            if !hard.is_empty() {
                return refusal(snapshot, Verdict::Deny, "forbidden", hard);
            }
            // No second pass where an acknowledgement could neither lift a forbid nor add a permit.
            let may_help = !forbids.is_empty() || slice.permits_more;
            let acknowledged = slice.acknowledged.as_ref().filter(|_| may_help);
            match acknowledged.map(|set| ask(set, request, entities, in_composition)) {
                Some(Answer::Yes(permits)) => {
                    let why = if forbids.is_empty() { permits } else { forbids };
                    refusal(snapshot, Verdict::Escalate, "acknowledgement_required", why)
                }
                Some(Answer::Error(errors)) => Evaluation { errors, ..Evaluation::deny("policy_error", None) },
                Some(Answer::No(still)) => refusal(snapshot, Verdict::Deny, "not_on_allowlist", still),
                None if !outside => refusal(snapshot, Verdict::Deny, "not_on_allowlist", Vec::new()),
                Some(Answer::Outside) | None => refusal(snapshot, Verdict::Deny, "not_in_composition", Vec::new()),
            }
        }
    }
}

/// Cedar's allow, no error, and a permit of the site and, where one is bound, of the composition.
fn ask(set: &PolicySet, request: &Request, entities: &Entities, in_composition: bool) -> Answer {
    let response = Authorizer::new().is_authorized(request, set, entities);
    let diagnostics = response.diagnostics();
    // The messages may quote values; which policy failed is what an operator needs.
    let errors: Vec<String> = diagnostics
        .errors()
        .map(|e| match e {
            cedar_policy::AuthorizationError::PolicyEvaluationError(e) => format!("policy `{}` failed", e.policy_id()),
        })
        .collect();
    if !errors.is_empty() {
        return Answer::Error(errors);
    }
    let reason: Vec<PolicyId> = diagnostics.reason().cloned().collect();
    let permitted = |layer| reason.iter().any(|id| LayerName::of(id) == Some(layer));
    match response.decision() {
        CedarDecision::Deny => Answer::No(reason),
        CedarDecision::Allow
            if permitted(LayerName::Site) && (!in_composition || permitted(LayerName::Composition)) =>
        {
            Answer::Yes(reason)
        }
        CedarDecision::Allow if permitted(LayerName::Site) => Answer::Outside,
        CedarDecision::Allow => Answer::No(Vec::new()),
    }
}

fn refusal(snapshot: &Snapshot, verdict: Verdict, reason: &str, policies: Vec<PolicyId>) -> Evaluation {
    let policies = names(policies);
    // Ids sort by layer, the charter first: its rule speaks for the refusal.
    let rule = policies.iter().find_map(|id| snapshot.rule(&PolicyId::new(id)));
    let forbid = rule.filter(|rule| rule.policy.effect() == cedar_policy::Effect::Forbid);
    let reason = match forbid {
        Some(rule) => rule.reason.clone().unwrap_or_else(|| "forbidden".into()),
        None => reason.to_owned(),
    };
    let advice = rule.and_then(|rule| rule.advice.clone());
    Evaluation {
        verdict,
        advice: advice.or_else(|| crate::reason::advice(&reason).map(str::to_owned)),
        reason,
        policies,
        errors: Vec::new(),
        would_be: None,
        unenforced: false,
    }
}

fn names(ids: Vec<PolicyId>) -> Vec<String> {
    let rank = |id: &PolicyId| LayerName::of(id).map_or(3, |layer| layer as u8);
    let mut ids = ids;
    ids.sort_by(|a, b| (rank(a), a).cmp(&(rank(b), b)));
    ids.into_iter().map(|id| id.to_string()).collect()
}
