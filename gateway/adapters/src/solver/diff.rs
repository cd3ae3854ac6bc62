//! What one set of policies allows that another does not.

use super::universe::Universe;
use super::witness::Witness;
use super::{Answered, Prover, Query};
use cedar_policy::{Authorizer, Decision, Entities, Policy, PolicySet, Schema};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use warden_core::authoring::question::{self, Answer};
use warden_core::policy::layer::{Rule, Standing};
use warden_core::policy::load::Loaded;
use warden_core::verdict::Verdict;

/// A difference, or that there may be one.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Where.
    pub environment: String,
    /// Which way.
    pub direction: Direction,
    /// A request that shows it; absent when the solver did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// The verdict of the first on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Verdict>,
    /// The verdict of the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Verdict>,
    /// The rules that make the difference: those of the allowing side, or of the denying side when it forbids.
    pub rules: Vec<String>,
    /// Why nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Which way two sets differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The second allows what the first does not.
    Wider,
    /// The first allows what the second does not.
    Narrower,
    /// The solver gave no answer.
    Unknown,
}

/// What was looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Looked {
    /// Environments in all.
    pub environments: usize,
    /// Those that a changed rule concerns.
    pub concerned: usize,
    /// Rules that only the first has.
    pub removed: Vec<String>,
    /// Rules that only the second has.
    pub added: Vec<String>,
}

/// Compares two sets over the same schema.
pub async fn run(
    prover: &mut Prover,
    before: &Loaded,
    after: &Loaded,
    real: &Entities,
    mut progress: impl FnMut(&str),
) -> Result<(Vec<Difference>, Looked), String> {
    if before.schema_digest != after.schema_digest {
        return Err("the two have different schemas: their requests are not the same".into());
    }
    let universe = Universe::of(&after.schema)?;
    let (old, new) = (live(before), live(after));
    let (removed, added) = (only(&old, &new), only(&new, &old));
    let ids = |rules: &[&Rule]| rules.iter().map(|rule| rule.policy.id().to_string()).collect();
    let mut looked =
        Looked { environments: universe.environments.len(), concerned: 0, removed: ids(&removed), added: ids(&added) };
    let mut found = Vec::new();
    for environment in &universe.environments {
        if !removed.iter().chain(&added).any(|rule| universe.concerns(&rule.policy, environment)) {
            continue;
        }
        looked.concerned += 1;
        progress(&environment.name);
        let policies = |rules: &[&Rule]| rules.iter().map(|rule| rule.policy.clone()).collect::<Vec<Policy>>();
        let (a, b) = (policies(&old), policies(&new));
        let sets = universe.set(environment, &a).and_then(|a| Ok((a, universe.set(environment, &b)?)));
        let (old_set, new_set) = match sets {
            Ok(sets) => sets,
            Err(why) => {
                found.push(unknown(&environment.name, why));
                continue;
            }
        };
        // What fails is skipped by Cedar and denied by Warden: where a changed rule can fail, the solver's sets are not ours.
        let here = removed.iter().chain(&added).filter(|rule| universe.concerns(&rule.policy, environment));
        for rule in here {
            let answer = match universe.policy(environment, &rule.policy) {
                Ok(policy) => prover.ask(Query::NeverErrors(&policy)).await,
                Err(why) => Answered::Unknown(why),
            };
            let id = rule.policy.id();
            match answer {
                Answered::Yes => {}
                Answered::Unknown(why) => {
                    found.push(unknown(&environment.name, format!("whether `{id}` can fail: {why}")))
                }
                Answered::No(witness) => {
                    let both = [Direction::Wider, Direction::Narrower].map(|direction| {
                        confirmed(&environment.name, direction, (*witness).clone(), &after.schema, real, [&a, &b])
                    });
                    let shown = both.into_iter().find(|difference| difference.direction != Direction::Unknown);
                    let why = format!("`{id}` can fail, and what fails is denied: the solver cannot compare that");
                    found.extend(shown.or_else(|| Some(unknown(&environment.name, why))));
                }
            }
        }
        for (direction, query) in [
            (Direction::Wider, Query::Implies(&new_set, &old_set)),
            (Direction::Narrower, Query::Implies(&old_set, &new_set)),
        ] {
            match prover.ask(query).await {
                Answered::Yes => {}
                Answered::Unknown(why) => found.push(unknown(&environment.name, why)),
                Answered::No(witness) => {
                    found.push(confirmed(&environment.name, direction, *witness, &after.schema, real, [&a, &b]));
                }
            }
        }
    }
    Ok((found, looked))
}

fn live(loaded: &Loaded) -> Vec<&Rule> {
    let rules = [&loaded.charter, &loaded.site].into_iter().flat_map(|layer| &layer.rules);
    rules.filter(|rule| rule.standing == Standing::Live).collect()
}

/// Rules of `own` that say what no rule of `other` says; annotations are no part of that.
fn only<'r>(own: &[&'r Rule], other: &[&Rule]) -> Vec<&'r Rule> {
    let mut there: BTreeMap<String, usize> = BTreeMap::new();
    other.iter().for_each(|rule| *there.entry(rule.hash()).or_default() += 1);
    own.iter()
        .filter(|rule| match there.get_mut(&rule.hash()) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        })
        .copied()
        .collect()
}

fn unknown(environment: &str, why: String) -> Difference {
    Difference {
        environment: environment.into(),
        direction: Direction::Unknown,
        request: None,
        before: None,
        after: None,
        rules: Vec::new(),
        why: Some(why),
    }
}

/// The difference, if the engine sees it too.
fn confirmed(
    environment: &str,
    direction: Direction,
    witness: Witness,
    schema: &Schema,
    real: &Entities,
    [a, b]: [&[Policy]; 2],
) -> Difference {
    let differs = |witness: &Witness| {
        let (old, new) = (allows(a, witness).0, allows(b, witness).0);
        if direction == Direction::Wider { new && !old } else { old && !new }
    };
    let witness = if differs(&witness) { witness.simplest(schema, real, differs) } else { witness };
    let witness = &witness;
    let (old, new) = match asked(schema, a, witness).and_then(|old| Ok((old, asked(schema, b, witness)?))) {
        Ok(both) => both,
        Err(why) => return unknown(environment, why),
    };
    let (more, less) = if direction == Direction::Wider { (&new, &old) } else { (&old, &new) };
    if !more.allowed || less.allowed {
        let mut difference = unknown(environment, "the solver's witness does not hold on the engine".into());
        difference.request = Some(witness.to_json());
        return difference;
    }
    // Who forbids is more to the point than who would permit.
    let rules =
        if direction == Direction::Narrower && !less.policies.is_empty() { &less.policies } else { &more.policies };
    Difference {
        environment: environment.into(),
        direction,
        request: Some(witness.to_json()),
        before: Some(old.answer.verdict),
        after: Some(new.answer.verdict),
        rules: rules.clone(),
        why: None,
    }
}

struct Asked {
    allowed: bool,
    policies: Vec<String>,
    answer: Answer,
}

/// What the engine says of a witness: as it stands, and as a proposal that nobody has acknowledged yet.
fn asked(schema: &Schema, policies: &[Policy], witness: &Witness) -> Result<Asked, String> {
    let set = PolicySet::from_policies(policies.iter().cloned()).map_err(|e| e.to_string())?;
    let request = |acknowledged: bool| witness.with_acknowledged(schema, acknowledged);
    let asked = [request(false)?, request(true)?];
    let answer = question::answer(&asked, &set, &witness.entities, false);
    let (allowed, policies) = allows(policies, witness);
    Ok(Asked { allowed, policies, answer })
}

/// Whether the engine allows a witness as it stands, and by which policies it decides.
fn allows(policies: &[Policy], witness: &Witness) -> (bool, Vec<String>) {
    let set = PolicySet::from_policies(policies.iter().cloned()).unwrap_or_default();
    let response = Authorizer::new().is_authorized(&witness.request, &set, &witness.entities);
    let clean = response.diagnostics().errors().next().is_none();
    let mut policies: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    policies.sort_unstable();
    (response.decision() == Decision::Allow && clean, policies)
}
