//! That the charter holds, whatever operators write.
//!
//! A site's policies are evaluated beside the charter, and a request is allowed only when the charter forbids none of it. So
//! whatever is permitted lies within *the charter and a permit for everything*. When that is disjoint from a region, no
//! site, no composition and nobody's acknowledgement gets a request of that region allowed.

use super::universe::{Environment, Universe};
use super::witness::Witness;
use super::{Answered, Prover, Query};
use cedar_policy::{Authorizer, Decision, Entities, Policy, PolicyId, PolicySet, Schema};
use serde::Serialize;
use serde_json::Value;
use std::time::Instant;
use warden_core::authoring::region::{REGIONS, SHUT};
use warden_core::policy::est;
use warden_core::policy::layer::{Rule, Standing};
use warden_core::policy::load::Loaded;

/// How much a failing obligation matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It has to be proved.
    Theorem,
    /// It is worth knowing.
    Note,
}

/// What came of one obligation in one environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds for all requests.
    Proved,
    /// There is a request for which it does not hold, and the engine says so too.
    Refuted,
    /// Neither.
    Unknown,
}

/// One obligation in one environment.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `never: a secret value passes`.
    pub theorem: String,
    /// Whether it has to be proved.
    pub kind: Kind,
    /// The environment.
    pub environment: String,
    /// What came of it.
    pub state: State,
    /// Milliseconds it took.
    pub ms: f64,
    /// Why it is not proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// A request for which it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<Value>,
}

/// What is to be proved.
pub struct Task<'t> {
    /// The layers and the schema.
    pub loaded: &'t Loaded,
    /// The site rules that are looked at one by one.
    pub changed: Vec<&'t Rule>,
    /// The workers and tools that there are: a request that shows something is about them, where it can be.
    pub real: &'t Entities,
    /// Only theorems whose name holds this.
    pub only: Option<&'t str>,
}

/// Proves, row by row.
pub async fn run(prover: &mut Prover, task: &Task<'_>, mut progress: impl FnMut(&Row)) -> Result<Vec<Row>, String> {
    let universe = Universe::of(&task.loaded.schema)?;
    let mut work = Work {
        prover,
        universe: &universe,
        schema: &task.loaded.schema,
        real: task.real,
        only: task.only,
        rows: Vec::new(),
        progress: &mut progress,
    };
    let charter: Vec<&Policy> = task.loaded.charter.rules.iter().map(|rule| &rule.policy).collect();
    work.regions(&charter).await?;
    work.alive(&charter).await?;
    for rule in &task.loaded.charter.rules {
        work.never_errors(rule, Kind::Theorem).await?;
    }
    // What stands in shadow decides nothing.
    let live: Vec<&Rule> = task.loaded.site.rules.iter().filter(|rule| rule.standing == Standing::Live).collect();
    if !task.changed.is_empty() {
        work.monotone(&live).await?;
        for rule in &task.changed {
            work.never_errors(rule, Kind::Note).await?;
            work.not_dead(rule).await?;
        }
        work.open(&live, &charter).await?;
    }
    Ok(work.rows)
}

struct Work<'w> {
    prover: &'w mut Prover,
    universe: &'w Universe,
    schema: &'w Schema,
    real: &'w Entities,
    only: Option<&'w str>,
    rows: Vec<Row>,
    progress: &'w mut dyn FnMut(&Row),
}

/// What a row came to, before it is one.
struct Found {
    state: State,
    why: Option<String>,
    witness: Option<Value>,
}

impl Found {
    fn proved() -> Self {
        Self { state: State::Proved, why: None, witness: None }
    }

    fn unknown(why: String) -> Self {
        Self { state: State::Unknown, why: Some(why), witness: None }
    }

    /// A witness counts when the engine agrees with it.
    fn refuted(witness: &Witness, why: String, confirmed: bool) -> Self {
        let shown = Some(witness.to_json());
        match confirmed {
            true => Self { state: State::Refuted, why: Some(why), witness: shown },
            false => Self {
                state: State::Unknown,
                why: Some("the solver's witness does not hold on the engine".into()),
                witness: shown,
            },
        }
    }
}

fn everything() -> Result<Policy, String> {
    Policy::parse(Some(PolicyId::new("everything")), "permit (principal, action, resource);").map_err(|e| e.to_string())
}

/// Whether the engine allows a witness under these policies, without an error.
fn allows<'p>(policies: impl IntoIterator<Item = &'p Policy>, witness: &Witness) -> bool {
    let Ok(set) = PolicySet::from_policies(policies.into_iter().cloned()) else { return false };
    let response = Authorizer::new().is_authorized(&witness.request, &set, &witness.entities);
    response.decision() == Decision::Allow && response.diagnostics().errors().next().is_none()
}

impl<'w> Work<'w> {
    fn row(&mut self, theorem: &str, kind: Kind, environment: &Environment, since: Instant, found: Found) {
        let ms = since.elapsed().as_secs_f64() * 1e3;
        let Found { state, why, witness } = found;
        let row = Row { theorem: theorem.into(), kind, environment: environment.name.clone(), state, ms, why, witness };
        (self.progress)(&row);
        self.rows.push(row);
    }

    /// The charter and a permit for everything allow nothing of a region, and the region is not empty.
    async fn regions(&mut self, charter: &[&Policy]) -> Result<(), String> {
        let all = everything()?;
        for region in REGIONS {
            let theorem = format!("never: {}", region.says);
            if !self.wants(&theorem) {
                continue;
            }
            let policy = Policy::parse(Some(PolicyId::new(region.name)), region.policy).map_err(|e| e.to_string())?;
            for environment in &self.universe.environments {
                if !self.universe.concerns(&policy, environment) {
                    continue;
                }
                let since = Instant::now();
                let most: Vec<&Policy> = charter.iter().copied().chain([&all]).collect();
                let found =
                    match (self.universe.set(environment, most.clone()), self.universe.set(environment, [&policy])) {
                        (Ok(most_set), Ok(region_set)) => {
                            match self.prover.ask(Query::Disjoint(&most_set, &region_set)).await {
                                Answered::Yes => match self.prover.ask(Query::AlwaysDenies(&region_set)).await {
                                    Answered::No(_) => Found::proved(),
                                    Answered::Yes => Found::unknown("nothing is in the region: it says nothing".into()),
                                    Answered::Unknown(why) => Found::unknown(why),
                                },
                                Answered::No(witness) => {
                                    let allowed =
                                        |witness: &Witness| allows(most.clone(), witness) && allows([&policy], witness);
                                    let confirmed = allowed(&witness);
                                    let witness = self.plain(*witness, confirmed, allowed);
                                    Found::refuted(&witness, "the charter allows this request".into(), confirmed)
                                }
                                Answered::Unknown(why) => Found::unknown(why),
                            }
                        }
                        (Err(why), _) | (_, Err(why)) => Found::unknown(why),
                    };
                self.row(&theorem, Kind::Theorem, environment, since, found);
            }
        }
        Ok(())
    }

    /// The charter lets something pass: a charter that forbids everything would keep every promise.
    async fn alive(&mut self, charter: &[&Policy]) -> Result<(), String> {
        const THEOREM: &str = "the charter lets something pass";
        let all = everything()?;
        for environment in &self.universe.environments {
            if !self.wants(THEOREM) || SHUT.iter().any(|shut| self.universe.is_in(environment, shut)) {
                continue;
            }
            let since = Instant::now();
            let most: Vec<&Policy> = charter.iter().copied().chain([&all]).collect();
            let found = match self.universe.set(environment, most.clone()) {
                Ok(set) => match self.prover.ask(Query::AlwaysDenies(&set)).await {
                    Answered::No(witness) if allows(most, &witness) => Found::proved(),
                    Answered::No(_) => Found::unknown("the solver's witness does not hold on the engine".into()),
                    Answered::Yes => Found {
                        state: State::Refuted,
                        why: Some("the charter forbids every request".into()),
                        witness: None,
                    },
                    Answered::Unknown(why) => Found::unknown(why),
                },
                Err(why) => Found::unknown(why),
            };
            self.row(THEOREM, Kind::Theorem, environment, since, found);
        }
        Ok(())
    }

    /// A rule never fails to be evaluated: Cedar skips those that do.
    async fn never_errors(&mut self, rule: &Rule, kind: Kind) -> Result<(), String> {
        let theorem = match kind {
            Kind::Theorem => "no rule of the charter fails".to_owned(),
            Kind::Note => format!("`{}` never fails", rule.policy.id()),
        };
        if !self.wants(&theorem) {
            return Ok(());
        }
        for environment in self.concerned(rule) {
            let since = Instant::now();
            let found = match self.universe.policy(environment, &rule.policy) {
                Ok(policy) => match self.prover.ask(Query::NeverErrors(&policy)).await {
                    Answered::Yes => Found::proved(),
                    Answered::No(witness) => {
                        let set = PolicySet::from_policies([rule.policy.clone()]).unwrap_or_default();
                        let fails = |witness: &Witness| {
                            let response = Authorizer::new().is_authorized(&witness.request, &set, &witness.entities);
                            response.diagnostics().errors().next().is_some()
                        };
                        let confirmed = fails(&witness);
                        let witness = self.plain(*witness, confirmed, fails);
                        Found::refuted(&witness, format!("`{}` fails for this request", rule.policy.id()), confirmed)
                    }
                    Answered::Unknown(why) => Found::unknown(why),
                },
                Err(why) => Found::unknown(why),
            };
            self.row(&theorem, kind, environment, since, found);
        }
        Ok(())
    }

    /// An acknowledgement never takes anything away: with it, the site allows all that it allows without it.
    async fn monotone(&mut self, rules: &[&Rule]) -> Result<(), String> {
        const THEOREM: &str = "acknowledging never takes away";
        if !self.wants(THEOREM) {
            return Ok(());
        }
        let mut pairs = Vec::new();
        for rule in rules {
            let with = |value| {
                est::with_acknowledged(&rule.policy, value)
                    .ok_or_else(|| format!("`{}` cannot be prepared", rule.policy.id()))
            };
            pairs.push((rule, with(false)?, with(true)?));
        }
        for environment in &self.universe.environments {
            let here = || pairs.iter().filter(|(rule, ..)| self.universe.concerns(&rule.policy, environment));
            if !here().any(|(rule, ..)| est::mentions_acknowledged(&rule.policy)) {
                continue;
            }
            let since = Instant::now();
            let (without, with): (Vec<&Policy>, Vec<&Policy>) = here().map(|(_, a, b)| (a, b)).unzip();
            let compiled =
                (self.universe.set(environment, without.clone()), self.universe.set(environment, with.clone()));
            let found = match compiled {
                (Ok(a), Ok(b)) => match self.prover.ask(Query::Implies(&a, &b)).await {
                    Answered::Yes => Found::proved(),
                    Answered::No(witness) => {
                        let confirmed = allows(without, &witness) && !allows(with, &witness);
                        Found::refuted(&witness, "acknowledging this request denies it".into(), confirmed)
                    }
                    Answered::Unknown(why) => Found::unknown(why),
                },
                (Err(why), _) | (_, Err(why)) => Found::unknown(why),
            };
            self.row(THEOREM, Kind::Theorem, environment, since, found);
        }
        Ok(())
    }

    /// A rule matches some request.
    async fn not_dead(&mut self, rule: &Rule) -> Result<(), String> {
        let theorem = format!("`{}` can decide", rule.policy.id());
        if !self.wants(&theorem) {
            return Ok(());
        }
        let mut unknown = None;
        for environment in self.concerned(rule) {
            let since = Instant::now();
            match self.universe.policy(environment, &rule.policy) {
                Ok(policy) => match self.prover.ask(Query::NeverMatches(&policy)).await {
                    Answered::No(_) => {
                        self.row(&theorem, Kind::Note, environment, since, Found::proved());
                        return Ok(());
                    }
                    Answered::Yes => {}
                    Answered::Unknown(why) => unknown = Some(why),
                },
                Err(why) => unknown = Some(why),
            }
        }
        let found = match unknown {
            Some(why) => Found::unknown(why),
            None => {
                Found { state: State::Refuted, why: Some("no request matches it: it is dead".into()), witness: None }
            }
        };
        if let Some(environment) = self.universe.environments.first() {
            let since = Instant::now();
            let before = self.rows.len();
            self.row(&theorem, Kind::Note, environment, since, found);
            if let Some(row) = self.rows.get_mut(before) {
                row.environment = "all".into();
            }
        }
        Ok(())
    }

    /// Where the site allows everything that the charter lets pass.
    async fn open(&mut self, rules: &[&Rule], charter: &[&Policy]) -> Result<(), String> {
        const THEOREM: &str = "the site says no to something";
        if !self.wants(THEOREM) {
            return Ok(());
        }
        let all = everything()?;
        for environment in &self.universe.environments {
            let site: Vec<&Policy> = rules.iter().map(|rule| &rule.policy).collect();
            if SHUT.iter().any(|shut| self.universe.is_in(environment, shut))
                || !site.iter().any(|policy| self.universe.concerns(policy, environment))
            {
                continue;
            }
            let since = Instant::now();
            let most = self.universe.set(environment, charter.iter().copied().chain([&all]));
            let own = self.universe.set(environment, charter.iter().copied().chain(site));
            let found = match (most, own) {
                (Ok(most), Ok(own)) => match self.prover.ask(Query::Implies(&most, &own)).await {
                    Answered::No(_) => Found::proved(),
                    Answered::Yes => Found {
                        state: State::Refuted,
                        why: Some("the site allows everything that the charter lets pass".into()),
                        witness: None,
                    },
                    Answered::Unknown(why) => Found::unknown(why),
                },
                (Err(why), _) | (_, Err(why)) => Found::unknown(why),
            };
            self.row(THEOREM, Kind::Note, environment, since, found);
        }
        Ok(())
    }

    /// A witness that the engine confirms, with as little about it as can be.
    fn plain(&self, witness: Witness, confirmed: bool, holds: impl Fn(&Witness) -> bool) -> Witness {
        if confirmed { witness.simplest(self.schema, self.real, holds) } else { witness }
    }

    fn wants(&self, theorem: &str) -> bool {
        self.only.is_none_or(|only| theorem.contains(only))
    }

    fn concerned(&self, rule: &Rule) -> Vec<&'w Environment> {
        let universe = self.universe;
        universe.environments.iter().filter(|e| universe.concerns(&rule.policy, e)).collect()
    }
}
