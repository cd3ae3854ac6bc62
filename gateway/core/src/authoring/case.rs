//! Written cases: a request, and the answer it must get. The form is that of the Cedar CLI's `run-tests`, whose `decision` may
//! also be `escalate`.

use super::cover::{Coverage, Parts, RuleState};
use super::question::{self, Answer, Question};
use crate::policy::entities::deepest;
use crate::policy::layer::{LayerName, Rule};
use crate::policy::nearest;
use crate::policy::snapshot::Snapshot;
use crate::verdict::Verdict;
use cedar_policy::{Entities, EntityUid, Policy, PolicySet, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// One case as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A sentence.
    pub name: String,
    /// What is asked.
    pub request: Asked,
    /// The entities it names, in Cedar's JSON form; those of the configuration and the catalogue when absent.
    #[serde(default)]
    pub entities: Option<Value>,
    /// The answer it must get.
    pub decision: Verdict,
    /// The policies that decide, or, where one fails, those that fail: no more and no less. Not compared when absent.
    #[serde(default)]
    pub reason: Option<Vec<String>>,
    /// How many policies fail.
    #[serde(default)]
    pub num_errors: usize,
}

/// What a case asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// `Worker::"demo"`
    pub principal: String,
    /// `Action::"files/read"`
    pub action: String,
    /// `Tool::"files/read"`
    pub resource: String,
    /// In Cedar's JSON form. Base fields that are missing are plain ones.
    #[serde(default)]
    pub context: Map<String, Value>,
}

/// What is wrong with a file of cases, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Unreadable {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What, and what to write instead.
    pub message: String,
}

/// Reads a file of cases.
pub fn read(text: &str) -> Result<Vec<Case>, Unreadable> {
    serde_json::from_str(text).map_err(|e| {
        let said = e.to_string();
        let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
        let help = match text.trim_start().chars().next() {
            Some('[') => {
                "a case is {\"name\": …, \"request\": {\"principal\": …, \"action\": …, \"resource\": …, \"context\": {…}}, \"decision\": \"allow\", \"escalate\" or \"deny\"}"
            }
            _ => "a file of cases is one JSON array: [{\"name\": …, \"request\": …, \"decision\": …}, …]",
        };
        Unreadable { line: e.line().max(1), column: e.column().max(1), message: format!("{what}; {help}") }
    })
}

/// Why a case fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The case.
    pub name: String,
    /// What is different.
    pub why: Vec<String>,
}

/// A case, ready to be asked of several sets.
pub struct Ready {
    case: Case,
    entities: Entities,
    /// The worker's own question and, of a node, those of all above it. The least answer counts.
    sides: Vec<Side>,
}

/// One question of a case.
struct Side {
    asked: [Request; 2],
    in_composition: bool,
    /// The policies whose scope fits: no other can matter.
    set: PolicySet,
    states: Vec<RuleState>,
}

/// Cases against a snapshot.
pub struct Suite {
    parts: Parts,
    ready: Vec<Ready>,
    failed: Vec<Failed>,
}

impl Suite {
    /// Makes requests of the cases. Those that cannot be made are failures.
    pub fn new(snapshot: &Snapshot, cases: Vec<Case>) -> Self {
        let live = || snapshot.live_rules();
        let parts = Parts::of(live());
        let (mut ready, mut failed) = (Vec::new(), Vec::new());
        for case in cases {
            match prepare(snapshot, &parts, case) {
                Ok(case) => ready.push(case),
                Err(why) => failed.push(why),
            }
        }
        Self { parts, ready, failed }
    }

    /// How many cases there are.
    pub fn len(&self) -> usize {
        self.ready.len() + self.failed.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All cases that fail.
    pub fn run(&self) -> Vec<Failed> {
        let differ = |ready: &Ready| {
            let why = ready.differs(None);
            (!why.is_empty()).then(|| Failed { name: ready.case.name.clone(), why })
        };
        self.failed.iter().cloned().chain(self.ready.iter().filter_map(differ)).collect()
    }

    /// What the cases show of the rules.
    pub fn coverage(&self) -> Vec<super::cover::Covered> {
        let mut coverage = Coverage::new(&self.parts);
        self.ready.iter().flat_map(|ready| &ready.sides).for_each(|side| coverage.add(&side.states));
        coverage.of(&self.parts)
    }

    /// Whether a case notices that `rule` is replaced by `other`, or dropped.
    pub fn notices(&self, rule: &Rule, other: Option<&Policy>) -> bool {
        self.ready.iter().any(|ready| ready.concerns(rule) && !ready.differs(Some((rule, other))).is_empty())
    }
}

fn prepare(snapshot: &Snapshot, parts: &Parts, case: Case) -> Result<Ready, Failed> {
    let refuse = |why: String| Failed { name: case.name.clone(), why: vec![why] };
    let Asked { principal, action, resource, context } = &case.request;
    let question = Question::new(snapshot, [principal, action, resource], context).map_err(refuse)?;
    let entities = match &case.entities {
        None => {
            known(snapshot, &question.principal).and_then(|()| known(snapshot, &question.resource)).map_err(refuse)?;
            snapshot.entities().clone()
        }
        Some(entities) => Entities::from_json_value(entities.clone(), Some(snapshot.schema()))
            .map_err(|e| refuse(format!("the entities do not fit the schema: {}", deepest(&e))))?,
    };
    let mut sides = vec![Side::new(snapshot, parts, &entities, &question, true).map_err(refuse)?];
    for above in question.above(snapshot) {
        sides.push(Side::new(snapshot, parts, &entities, &above, false).map_err(refuse)?);
    }
    Ok(Ready { entities, sides, case })
}

impl Side {
    /// A node's own question has its composition's layer; what is above it is asked of the charter and the site alone.
    fn new(
        snapshot: &Snapshot,
        parts: &Parts,
        entities: &Entities,
        question: &Question,
        is_own: bool,
    ) -> Result<Self, String> {
        let asked = [question.request(snapshot, None)?, question.request(snapshot, Some(true))?];
        let states = parts.look(&asked[0], entities);
        let fits = parts.rules().iter().zip(&states).filter(|(_, state)| state.scope);
        let fits: HashSet<&str> = fits.map(|(rule, _)| rule.id.as_str()).collect();
        let whole = question.layers(snapshot);
        let counts = |policy: &&Policy| is_own || LayerName::of(policy.id()) != Some(LayerName::Composition);
        let fitting = whole.policies().filter(|policy| fits.contains(AsRef::<str>::as_ref(policy.id())));
        let set = PolicySet::from_policies(fitting.filter(counts).cloned()).unwrap_or_default();
        let in_composition = is_own && snapshot.composition(question.principal.id().unescaped()).is_some();
        Ok(Self { asked, in_composition, set, states })
    }

    fn answer(&self, entities: &Entities, instead: Option<(&Rule, Option<&Policy>)>) -> Answer {
        let ask = |set: &PolicySet| question::answer(&self.asked, set, entities, self.in_composition);
        match instead.filter(|(rule, _)| self.has(rule)) {
            None => ask(&self.set),
            Some((rule, other)) => {
                let kept = self.set.policies().filter(|policy| policy.id() != rule.policy.id());
                ask(&PolicySet::from_policies(kept.chain(other).cloned()).unwrap_or_default())
            }
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        self.set.policy(rule.policy.id()).is_some()
    }
}

/// A worker or a tool that a case names has to be there, unless it brings its own entities: a typo would pass as a denial.
fn known(snapshot: &Snapshot, uid: &EntityUid) -> Result<(), String> {
    let ty = uid.type_name().basename();
    if !["Worker", "Tool"].contains(&ty) || snapshot.entities().get(uid).is_some() {
        return Ok(());
    }
    let alike = snapshot.entities().iter().filter(|other| other.uid().type_name() == uid.type_name());
    let ids: Vec<String> = alike.map(|other| other.uid().id().unescaped().to_owned()).collect();
    let help = match nearest(uid.id().unescaped(), ids.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "give it in the case's `entities`, if it is meant to be made up".into(),
    };
    Err(format!("there is no {uid}: {help}"))
}

impl Ready {
    /// Whether a rule can matter for it.
    fn concerns(&self, rule: &Rule) -> bool {
        self.sides.iter().any(|side| side.has(rule))
    }

    /// What is answered otherwise than the case says, with another rule, or none, instead of one.
    fn differs(&self, instead: Option<(&Rule, Option<&Policy>)>) -> Vec<String> {
        let answers = self.sides.iter().map(|side| side.answer(&self.entities, instead));
        let Some(Answer { verdict, policies, errors }) = answers.min_by_key(|answer| answer.verdict.rank()) else {
            return Vec::new();
        };
        let mut why = Vec::new();
        if verdict != self.case.decision {
            let by = if policies.is_empty() { String::new() } else { format!(" by {}", policies.join(", ")) };
            why.push(format!("expected {}, got {}{by}", self.case.decision.name(), verdict.name()));
        }
        if errors.len() != self.case.num_errors {
            why.push(format!(
                "expected {} failing policies, got {}{}{}",
                self.case.num_errors,
                errors.len(),
                if errors.is_empty() { "" } else { ": " },
                errors.join(", ")
            ));
        }
        let said = if errors.is_empty() { &policies } else { &errors };
        let listed = |ids: &[String]| if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
        if let Some(wanted) = &self.case.reason {
            let mut wanted = wanted.clone();
            wanted.sort_unstable();
            if wanted != *said {
                why.push(format!("expected {} to decide, got {}", listed(&wanted), listed(said)));
            }
        }
        why
    }
}
