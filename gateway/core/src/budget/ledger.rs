//! What was spent, and what is reserved for calls on their way. Changed by records alone, in their order; the running gateway
//! keeps one that is ahead of the journal by what is being written.

use super::{BudgetFacts, Budgets, Exceeded, Limit, Per, Phase, Why};
use crate::amount::{Amount, Unit};
use crate::proposal::DecisionId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sessions, runs, tasks and workers with a share of their own.
const NODES_MAX: usize = 50_000;
/// A share that nobody used for so long is forgotten when room is needed.
const IDLE: SignedDuration = SignedDuration::from_hours(24 * 30);

/// What is set aside for one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// What it is charged to, the narrowest first.
    pub budgets: Vec<String>,
    /// The most that it can cost.
    #[serde(flatten)]
    pub amount: Amount,
    /// The time that it counts in. Never earlier than that of a reservation before it, so a clock that is put back opens no
    /// window anew.
    pub at: Timestamp,
}

/// One budget, or one share of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Set aside for calls on their way.
    #[serde(default)]
    pub reserved: Amount,
    /// Spent and granted, from the beginning.
    #[serde(default)]
    pub life: Account,
    /// In the hour.
    #[serde(default)]
    pub hour: Window,
    /// In the day.
    #[serde(default)]
    pub day: Window,
    /// Whether an operator froze it.
    #[serde(default)]
    pub frozen: bool,
    /// When it was last used.
    pub last: Timestamp,
}

/// What was spent, and granted beside the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Spent.
    #[serde(default)]
    pub spent: Amount,
    /// Granted by operators.
    #[serde(default)]
    pub granted: Amount,
}

/// An account of one window of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The window's number.
    pub number: i64,
    /// What counts in it.
    #[serde(flatten)]
    pub account: Account,
}

impl Window {
    /// Goes on to a later window; an earlier one is never opened anew.
    fn reach(&mut self, number: i64) {
        if number > self.number {
            *self = Self { number, account: Account::default() };
        }
    }

    fn in_window(&mut self, number: i64) -> Option<&mut Account> {
        self.reach(number);
        (self.number == number).then_some(&mut self.account)
    }
}

impl Node {
    /// What counts for a limit at a time.
    pub fn account(&self, per: Per, at: Timestamp) -> Account {
        match per {
            Per::Life => self.life,
            Per::Hour | Per::Day => {
                let window = if per == Per::Hour { self.hour } else { self.day };
                if window.number >= per.window(at) { window.account } else { Account::default() }
            }
        }
    }

    /// What is left of a limit at a time.
    pub fn left(&self, limit: &Limit, at: Timestamp) -> u64 {
        let Account { spent, granted } = self.account(limit.per, at);
        let total = limit.total.saturating_add(granted.of(limit.unit));
        total.saturating_sub(spent.of(limit.unit)).saturating_sub(self.reserved.of(limit.unit))
    }

    /// Every account that a time belongs to.
    fn each_account(&mut self, at: Timestamp, mut change: impl FnMut(&mut Account)) {
        change(&mut self.life);
        for (window, per) in [(&mut self.hour, Per::Hour), (&mut self.day, Per::Day)] {
            window.in_window(per.window(at)).map(&mut change);
        }
    }
}

/// What came of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// What the provider said it used.
    Reported,
    /// It said nothing, or something that cannot be: the estimate.
    Estimated,
    /// What an operator said that the tool costs.
    Fixed,
    /// It was sent, and nobody knows what came of it: the estimate.
    Unknown,
    /// Nothing was used.
    Released,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Ledger {
    nodes: BTreeMap<String, Node>,
    open: BTreeMap<DecisionId, Reservation>,
    /// The latest time of any reservation or grant.
    #[serde(default)]
    latest: Timestamp,
}

impl Ledger {
    /// Sets aside what a call needs at most, on every node of its chain or on none. `amount` has no money when the model has no
    /// price, which `priced` says.
    pub fn reserve(
        &mut self,
        budgets: &Budgets,
        id: &DecisionId,
        chain: Vec<String>,
        (amount, priced): (Amount, bool),
        now: Timestamp,
    ) -> Result<(Reservation, BudgetFacts), Exceeded> {
        let at = now.max(self.latest);
        let mut facts = BudgetFacts { tokens: amount.tokens, micro_usd: amount.micro_usd, ..BudgetFacts::default() };
        let absent = Node::default();
        for name in &chain {
            let node = self.nodes.get(name).unwrap_or(&absent);
            let limits = budgets.limits(name);
            let exceeded = |why, limit: &Limit| Exceeded {
                phase: Phase::Pre,
                budget: name.clone(),
                unit: limit.unit,
                per: limit.per,
                requested: amount.of(limit.unit),
                remaining: node.left(limit, at),
                why,
            };
            let none = Limit { unit: Unit::Tokens, total: 0, per: Per::Life };
            if node.frozen {
                return Err(Exceeded { remaining: 0, ..exceeded(Some(Why::Frozen), limits.first().unwrap_or(&none)) });
            }
            for limit in limits {
                if limit.unit == Unit::MicroUsd && !priced {
                    return Err(exceeded(Some(Why::PriceMissing), limit));
                }
                let left = node.left(limit, at);
                // Nothing goes through an empty budget, not even what is free.
                if amount.of(limit.unit) > left || left == 0 {
                    return Err(exceeded(None, limit));
                }
                let least = match limit.unit {
                    Unit::Tokens => &mut facts.tokens_left,
                    Unit::MicroUsd => &mut facts.micro_usd_left,
                };
                *least = Some(least.map_or(left, |least| least.min(left)));
            }
        }
        for name in &chain {
            if !self.nodes.contains_key(name) && self.nodes.len() >= NODES_MAX && !self.forget_one(at) {
                let requested = amount.tokens;
                let (budget, phase, unit, per) = (name.clone(), Phase::Pre, Unit::Tokens, Per::Life);
                return Err(Exceeded { phase, budget, unit, per, requested, remaining: 0, why: Some(Why::TooMany) });
            }
        }
        let reservation = Reservation { budgets: chain, amount, at };
        self.set_aside(id.clone(), reservation.clone());
        Ok((reservation, facts))
    }

    /// Takes in a reservation that was made, as a record says it.
    pub fn set_aside(&mut self, id: DecisionId, reservation: Reservation) {
        if self.open.contains_key(&id) {
            return;
        }
        self.latest = self.latest.max(reservation.at);
        for name in &reservation.budgets {
            let node = self.nodes.entry(name.clone()).or_default();
            node.reserved = node.reserved.plus(reservation.amount);
            node.last = node.last.max(reservation.at);
            node.hour.reach(Per::Hour.window(reservation.at));
            node.day.reach(Per::Day.window(reservation.at));
        }
        self.open.insert(id, reservation);
    }

    /// Ends a reservation with what was really used; nothing gives it back. Ended once, it is over.
    pub fn settle(&mut self, id: &DecisionId, used: Option<Amount>) -> Option<Reservation> {
        let reservation = self.open.remove(id)?;
        for name in &reservation.budgets {
            let node = self.nodes.entry(name.clone()).or_default();
            node.reserved = node.reserved.minus(reservation.amount);
            if let Some(used) = used {
                node.each_account(reservation.at, |account| account.spent = account.spent.plus(used));
            }
        }
        Some(reservation)
    }

    /// What a call is short of once it used more than was set aside: the first of its nodes that is over its ceiling.
    pub fn overshot(&self, budgets: &Budgets, chain: &[String], used: Amount, at: Timestamp) -> Option<Exceeded> {
        for name in chain {
            let Some(node) = self.nodes.get(name) else { continue };
            for limit in budgets.limits(name) {
                let Account { spent, granted } = node.account(limit.per, at);
                let total = limit.total.saturating_add(granted.of(limit.unit));
                let spent = spent.of(limit.unit).saturating_add(node.reserved.of(limit.unit));
                if spent > total {
                    let requested = used.of(limit.unit);
                    let remaining = total.saturating_sub(spent.saturating_sub(requested));
                    return Some(Exceeded {
                        phase: Phase::Post,
                        budget: name.clone(),
                        unit: limit.unit,
                        per: limit.per,
                        requested,
                        remaining,
                        why: None,
                    });
                }
            }
        }
        None
    }

    /// Gives a budget more: to its lifetime, and to the windows of now.
    pub fn grant(&mut self, name: &str, amount: Amount, at: Timestamp) {
        self.latest = self.latest.max(at);
        let node = self.nodes.entry(name.to_owned()).or_default();
        node.last = node.last.max(at);
        node.each_account(at, |account| account.granted = account.granted.plus(amount));
    }

    /// Freezes a budget, or lets it go on.
    pub fn freeze(&mut self, name: &str, frozen: bool, at: Timestamp) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        node.last = node.last.max(at);
        node.frozen = frozen;
    }

    /// What is set aside for a call.
    pub fn reservation(&self, id: &DecisionId) -> Option<&Reservation> {
        self.open.get(id)
    }

    /// Calls on their way.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// One budget or share, as far as it was ever used.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All of them.
    pub fn nodes(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter()
    }

    /// Makes room by forgetting a share that nobody has used for long. Budgets themselves are never forgotten.
    fn forget_one(&mut self, now: Timestamp) -> bool {
        let idle = |node: &Node| {
            node.reserved == Amount::ZERO && !node.frozen && now.duration_since(node.last) > IDLE
        };
        let oldest = self.nodes.iter().filter(|(name, node)| name.contains('/') && idle(node));
        let oldest = oldest.min_by_key(|(_, node)| node.last).map(|(name, _)| name.clone());
        oldest.is_some_and(|name| self.nodes.remove(&name).is_some())
    }
}
