//! Budgets: ceilings over what calls may cost, in a tree. A call is charged to its worker's budget and to everything above
//! it, so a child never spends what its parent has not got.
//!
//! [`Budgets`] is what operators configured and never changes while it is served; [`ledger`] is what was spent.

pub mod ledger;

use crate::amount::{Amount, Unit};
use crate::proposal::{Correlation, root_of};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The time over which a limit counts. Windows are of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// The hour.
    Hour,
    /// The day.
    Day,
    /// For ever.
    #[default]
    Life,
}

impl Per {
    /// The number of the window that `at` is in; 0 of one without end.
    pub fn window(self, at: Timestamp) -> i64 {
        match self {
            Per::Hour => at.as_second().div_euclid(3600),
            Per::Day => at.as_second().div_euclid(86_400),
            Per::Life => 0,
        }
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Per::Hour => "hour",
            Per::Day => "day",
            Per::Life => "life",
        })
    }
}

/// One ceiling. A total of 0 lets nothing through, which is not the same as no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What it counts.
    pub unit: Unit,
    /// How much of it.
    pub total: u64,
    /// In which time.
    pub per: Per,
}

/// What gets a share of its own in a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Each {
    /// Each task.
    Task,
    /// Each run.
    Run,
    /// Each session.
    Session,
    /// Each worker.
    Worker,
}

impl Each {
    /// All of them, the narrowest first.
    pub const ALL: [Each; 4] = [Each::Task, Each::Run, Each::Session, Each::Worker];

    /// As it stands in a node's name.
    pub fn name(self) -> &'static str {
        match self {
            Each::Task => "task",
            Each::Run => "run",
            Each::Session => "session",
            Each::Worker => "worker",
        }
    }
}

/// One budget, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The budget that it is a part of.
    pub parent: Option<String>,
    /// Its ceilings.
    pub limits: Vec<Limit>,
    /// The ceilings of each task, run, session or worker in it.
    pub each: BTreeMap<Each, Vec<Limit>>,
    /// Whether an answer that turned out dearer than the ceiling is handed on all the same.
    pub returns_overshoot: bool,
    /// Whether a call that was sent and of which nobody knows what it used is given back. It counts as the estimate otherwise.
    pub releases_unknown: bool,
}

/// All budgets, who is charged to which, and what tools cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    all: BTreeMap<String, Budget>,
    workers: BTreeMap<String, String>,
    tools: BTreeMap<String, Amount>,
}

/// Between a budget's name and what has a share of it.
const SHARE: char = '/';

impl Budgets {
    /// Checks the tree. `workers` says to which budget each is charged, `tools` what a call of `SERVER/TOOL` costs.
    pub fn new(
        all: BTreeMap<String, Budget>,
        workers: BTreeMap<String, String>,
        tools: BTreeMap<String, Amount>,
    ) -> Result<Self, String> {
        for (name, budget) in &all {
            if let Some(parent) = budget.parent.as_ref().filter(|parent| !all.contains_key(*parent)) {
                return Err(format!("budgets.{name}.parent: there is no budget `{parent}`"));
            }
            let mut seen = BTreeSet::new();
            let mut at = Some(name);
            while let Some(here) = at {
                if !seen.insert(here) {
                    return Err(format!("budgets.{name}.parent: `{here}` is above itself"));
                }
                at = all.get(here).and_then(|budget| budget.parent.as_ref());
            }
        }
        match workers.iter().find(|(_, budget)| !all.contains_key(*budget)) {
            Some((worker, budget)) => Err(format!("workers.{worker}.budget: there is no budget `{budget}`")),
            None => Ok(Self { all, workers, tools }),
        }
    }

    /// Everything that a worker's call is charged to, the narrowest first. Nothing for a worker without a budget.
    pub fn chain(&self, worker: &str, belongs: &Correlation) -> Vec<String> {
        // A delegate spends what the worker has that it comes from.
        let worker = root_of(worker);
        let (mut chain, mut at) = (Vec::new(), self.workers.get(worker));
        while let Some((name, budget)) = at.and_then(|name| Some((name, self.all.get(name)?))) {
            for each in Each::ALL.into_iter().filter(|each| budget.each.contains_key(each)) {
                let whose = match each {
                    Each::Task => belongs.task.as_deref(),
                    Each::Run => belongs.run.as_deref(),
                    Each::Session => belongs.session.as_deref(),
                    Each::Worker => Some(worker),
                };
                // What says nothing of its session shares the session without a name: leaving a header out frees nobody.
                chain.push(format!("{name}{SHARE}{}{SHARE}{}", each.name(), whose.unwrap_or_default()));
            }
            chain.push(name.clone());
            at = budget.parent.as_ref();
        }
        chain
    }

    /// The ceilings of a node of the tree.
    pub fn limits(&self, node: &str) -> &[Limit] {
        let Some((name, share)) = node.split_once(SHARE) else {
            return self.all.get(node).map_or(&[], |budget| &budget.limits);
        };
        let kind = share.split_once(SHARE).map_or(share, |(kind, _)| kind);
        let each = Each::ALL.into_iter().find(|each| each.name() == kind);
        let limits = each.and_then(|each| self.all.get(name)?.each.get(&each));
        limits.map_or(&[], Vec::as_slice)
    }

    /// The configured budget that a node is, or is a share of.
    pub fn of_node(&self, node: &str) -> Option<&Budget> {
        self.all.get(node.split_once(SHARE).map_or(node, |(name, _)| name))
    }

    /// The budget of a name, if it is configured.
    pub fn get(&self, name: &str) -> Option<&Budget> {
        self.all.get(name)
    }

    /// All budgets by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Budget)> {
        self.all.iter()
    }

    /// The workers that are charged to a budget.
    pub fn workers_of(&self, name: &str) -> Vec<&str> {
        self.workers.iter().filter(|(_, budget)| *budget == name).map(|(worker, _)| worker.as_str()).collect()
    }

    /// What a call of a tool costs.
    pub fn tool_cost(&self, server: &str, tool: &str) -> Amount {
        if self.tools.is_empty() {
            return Amount::ZERO;
        }
        self.tools.get(&format!("{server}/{tool}")).copied().unwrap_or_default()
    }

    /// Whether a worker's calls are charged to anything.
    pub fn charges(&self, worker: &str) -> bool {
        self.workers.contains_key(root_of(worker))
    }

    /// Whether an answer that went over this node's ceiling is kept back.
    pub fn withholds(&self, node: &str) -> bool {
        self.of_node(node).is_none_or(|budget| !budget.returns_overshoot)
    }

    /// Whether what nobody knows is given back to these nodes: only when all of them say so.
    pub fn releases_unknown(&self, chain: &[String]) -> bool {
        !chain.is_empty() && chain.iter().all(|node| self.of_node(node).is_some_and(|budget| budget.releases_unknown))
    }
}

/// Why a call is not within its budgets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceeded {
    /// Before the call (`pre`), or after it, by what the provider used (`post`).
    pub phase: Phase,
    /// The budget that has not enough: the narrowest of them.
    pub budget: String,
    /// What it is short of.
    pub unit: Unit,
    /// In which time.
    pub per: Per,
    /// What the call needs at most or, afterwards, used.
    pub requested: u64,
    /// What is left.
    pub remaining: u64,
    /// Why, where it is not for want of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// When a budget was found to be exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before anything was sent.
    Pre,
    /// After the call.
    Post,
}

/// Other reasons for which a budget lets nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// An operator froze it.
    Frozen,
    /// It counts money, and nobody has said what the model costs.
    PriceMissing,
    /// There are more sessions, runs and tasks with a share than are kept.
    TooMany,
}

impl Exceeded {
    /// The reason code of the denial it leads to.
    pub fn reason(&self) -> &'static str {
        match self.why {
            Some(Why::Frozen) => "budget_frozen",
            Some(Why::PriceMissing) => "price_missing",
            Some(Why::TooMany) | None => "budget_exceeded",
        }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { budget, unit, per, requested, remaining, .. } = self;
        match (self.why, self.phase) {
            (Some(Why::Frozen), _) => write!(f, "budget `{budget}` is frozen"),
            (Some(Why::PriceMissing), _) => {
                write!(f, "budget `{budget}` counts money, and the model has no price")
            }
            (Some(Why::TooMany), _) => write!(f, "budget `{budget}` has too many shares"),
            (None, Phase::Pre) => {
                write!(
                    f,
                    "budget `{budget}` has {remaining} {unit} left (per {per}), and the call needs up to {requested}"
                )
            }
            (None, Phase::Post) => {
                write!(f, "the call used {requested} {unit}, and budget `{budget}` had {remaining} left (per {per})")
            }
        }
    }
}

/// What a policy sees of the budgets of a call, in `context.budget`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetFacts {
    /// The most that the call uses.
    pub tokens: u64,
    /// The most that it costs.
    pub micro_usd: u64,
    /// Tokens that were left before it; absent where nothing limits them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_left: Option<u64>,
    /// Money that was left before it; absent where nothing limits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_usd_left: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(pairs: &[(&str, Option<&str>)]) -> Result<Budgets, String> {
        let all = pairs.iter().map(|(name, parent)| {
            ((*name).to_owned(), Budget { parent: parent.map(str::to_owned), ..Budget::default() })
        });
        Budgets::new(all.collect(), BTreeMap::new(), BTreeMap::new())
    }

    #[test]
    fn s3_09_a_circle_and_an_unknown_parent_are_refused_by_name() {
        let error = tree(&[("a", Some("b")), ("b", Some("a"))]).unwrap_err();
        assert!(error.contains("budgets.a.parent") && error.contains("above itself"), "{error}");
        assert!(tree(&[("a", Some("a"))]).is_err());
        assert!(tree(&[("a", Some("c"))]).unwrap_err().contains("no budget `c`"));
        assert!(tree(&[("a", None), ("b", Some("a")), ("c", Some("b"))]).is_ok());
    }

    #[test]
    fn s3_09_a_call_is_charged_to_everything_above_it_and_leaving_out_a_header_frees_nobody() {
        let limit = vec![Limit { unit: Unit::Tokens, total: 5, per: Per::Life }];
        let shares = BTreeMap::from([(Each::Session, limit.clone()), (Each::Task, limit)]);
        let team = Budget { parent: Some("all".into()), each: shares, ..Budget::default() };
        let all = BTreeMap::from([("all".to_owned(), Budget::default()), ("team".to_owned(), team)]);
        let budgets = Budgets::new(all, BTreeMap::from([("w".into(), "team".into())]), BTreeMap::new()).unwrap();
        let belongs = Correlation { session: Some("s".into()), task: Some("t".into()), ..Correlation::default() };
        assert_eq!(budgets.chain("w", &belongs), ["team/task/t", "team/session/s", "team", "all"]);
        assert_eq!(budgets.chain("w", &Correlation::default())[1], "team/session/");
        assert_eq!(budgets.limits("team/session/with/slashes").len(), 1);
        assert!(budgets.limits("team").is_empty() && budgets.limits("nobody").is_empty());
        assert!(budgets.chain("other", &belongs).is_empty());
    }
}
