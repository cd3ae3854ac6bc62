//! What was spent, and what is reserved for calls on their way. Changed by records alone, in their order; the running gateway
//! keeps one that is ahead of the journal by what is being written.

use super::{BudgetFacts, Budgets, Each, Exceeded, Limit, Per, Phase, Why};
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
        if let Some(name) = chain.iter().find(|name| !self.nodes.contains_key(*name) && self.nodes.len() >= NODES_MAX) {
            let requested = amount.tokens;
            let (budget, phase, unit, per) = (name.clone(), Phase::Pre, Unit::Tokens, Per::Life);
            return Err(Exceeded { phase, budget, unit, per, requested, remaining: 0, why: Some(Why::TooMany) });
        }
        let reservation = Reservation { budgets: chain, amount, at };
        for name in &reservation.budgets {
            let node = self.nodes.entry(name.clone()).or_default();
            node.reserved = node.reserved.plus(amount);
        }
        self.open.insert(id.clone(), reservation.clone());
        Ok((reservation, facts))
    }

    /// A reservation was recorded: from here on it counts in its time.
    pub fn keep(&mut self, id: &DecisionId) {
        let Some(reservation) = self.open.get(id) else { return };
        let at = reservation.at;
        self.latest = self.latest.max(at);
        for name in &reservation.budgets {
            let node = self.nodes.entry(name.clone()).or_default();
            node.last = node.last.max(at);
            node.hour.reach(Per::Hour.window(at));
            node.day.reach(Per::Day.window(at));
        }
        if self.nodes.len() >= NODES_MAX {
            // Budgets themselves are never forgotten.
            let idle =
                |node: &Node| node.reserved == Amount::ZERO && !node.frozen && at.duration_since(node.last) > IDLE;
            self.nodes.retain(|name, node| !name.contains('/') || !idle(node));
        }
    }

    /// Takes in a reservation as a record says it.
    pub fn set_aside(&mut self, id: DecisionId, reservation: Reservation) {
        if self.open.contains_key(&id) {
            return;
        }
        for name in &reservation.budgets {
            let node = self.nodes.entry(name.clone()).or_default();
            node.reserved = node.reserved.plus(reservation.amount);
        }
        self.open.insert(id.clone(), reservation);
        self.keep(&id);
    }

    /// Ends a reservation with what was really used; nothing gives it back. Ended once, it is over.
    pub fn settle(&mut self, id: &DecisionId, used: Option<Amount>) -> Option<Reservation> {
        let reservation = self.open.remove(id)?;
        for name in &reservation.budgets {
            let Some(node) = self.nodes.get_mut(name) else { continue };
            node.reserved = node.reserved.minus(reservation.amount);
            if let Some(used) = used {
                node.each_account(reservation.at, |account| account.spent = account.spent.plus(used));
            }
            // What was never kept leaves nothing behind.
            if *node == Node::default() {
                self.nodes.remove(name);
            }
        }
        Some(reservation)
    }

    /// Forgets the shares of a task that is over. Calls of it that are still on their way keep theirs.
    pub fn forget_task(&mut self, task: &str) {
        let share = format!("/{}/{task}", Each::Task.name());
        self.nodes.retain(|name, node| !name.ends_with(&share) || node.reserved != Amount::ZERO);
    }

    /// The time that counts now: never earlier than any before it.
    pub fn time(&self, now: Timestamp) -> Timestamp {
        now.max(self.latest)
    }

    /// What a call is short of that used more than is set aside for it: the first of its nodes that will be over its ceiling.
    pub fn overshot(&self, budgets: &Budgets, reservation: &Reservation, used: Amount) -> Option<Exceeded> {
        if !used.exceeds(reservation.amount) {
            return None;
        }
        for name in &reservation.budgets {
            let Some(node) = self.nodes.get(name) else { continue };
            for limit in budgets.limits(name) {
                let Account { spent, granted } = node.account(limit.per, reservation.at);
                let total = limit.total.saturating_add(granted.of(limit.unit));
                let others = node.reserved.minus(reservation.amount);
                let before = spent.of(limit.unit).saturating_add(others.of(limit.unit));
                let requested = used.of(limit.unit);
                if before.saturating_add(requested) > total {
                    let remaining = total.saturating_sub(before);
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

    /// The shares of a budget.
    pub fn shares(&self, name: &str) -> impl Iterator<Item = (&String, &Node)> {
        let prefix = format!("{name}/");
        self.nodes.range(prefix.clone()..).take_while(move |(node, _)| node.starts_with(&prefix))
    }

    /// Whether every configured ceiling holds over its whole time (W6), overshoots of providers aside.
    pub fn holds(&self, budgets: &Budgets, chain: &[String]) -> bool {
        chain.iter().all(|name| {
            let Some(node) = self.nodes.get(name) else { return true };
            budgets.limits(name).iter().filter(|limit| limit.per == Per::Life).all(|limit| {
                let Account { spent, granted } = node.life;
                let used = spent.of(limit.unit).saturating_add(node.reserved.of(limit.unit));
                used <= limit.total.saturating_add(granted.of(limit.unit))
            })
        })
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
}
