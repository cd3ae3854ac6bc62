//! Hot state: what the records add up to, changed in journal order only.

use crate::ack::{Acks, Parked, Stage};
use crate::amount::Amount;
use crate::budget::ledger::Ledger;
use crate::composition::delegate::Delegates;
use crate::decision::{Decision, Enforced};
use crate::inbox::Inboxes;
use crate::invariant::{self, Invariant};
use crate::journal::record::{Body, BudgetChange, Hold, Record};
use crate::outcome::Happened;
use crate::policy::snapshot::Digests;
use crate::proposal::{DecisionId, Door, TaskId, Verb};
use crate::session::{CountedCall, Sessions};
use crate::task::{TaskChange, TaskEvent, Tasks};
use crate::verdict::Verdict;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Held proposals, and what became of them.
    #[serde(flatten)]
    pub acks: Acks,
    /// Allowed proposals whose outcome is not recorded yet. After a crash these are unknown, never done.
    pub open: BTreeMap<DecisionId, Timestamp>,
    /// What decides now.
    pub digests: Digests,
    /// Times whose segments are not dropped, by name.
    #[serde(default)]
    pub holds: BTreeMap<String, Hold>,
    /// What checkpoints are signed with, as a verifier key.
    #[serde(default)]
    pub verifier: Option<String>,
    /// The first sequence number that retention has left.
    #[serde(default)]
    pub first_seq: u64,
    /// What is counted: budgets, tasks, and what was spent by whom.
    #[serde(default)]
    pub counted: Counted,
    /// The inbox worker: what it has seen, and its schedule.
    #[serde(default)]
    pub inbox: Inboxes,
}

/// What counts, and is told apart from the rest because the running gateway keeps one that is ahead of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Budgets.
    #[serde(default)]
    pub ledger: Ledger,
    /// Tasks.
    #[serde(default)]
    pub tasks: Tasks,
    /// What was spent, by worker and by engine.
    #[serde(default)]
    pub spend: Spend,
    /// Sessions.
    #[serde(default)]
    pub sessions: Sessions,
    /// Delegates.
    #[serde(default)]
    pub delegates: Delegates,
    /// Calls on their way: who makes them, where, and in which task.
    #[serde(default)]
    pub calls: BTreeMap<DecisionId, Call>,
}

/// Whose call it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The worker.
    pub worker: String,
    /// The engine; none for a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
}

/// Sums over all that was settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// By worker.
    #[serde(default)]
    pub workers: BTreeMap<String, Spent>,
    /// By engine.
    #[serde(default)]
    pub engines: BTreeMap<String, Spent>,
}

/// One sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Calls that cost something.
    pub calls: u64,
    /// What they came to.
    #[serde(flatten)]
    pub amount: Amount,
}

impl Counted {
    /// A call was allowed.
    pub fn began(&mut self, id: &DecisionId, call: Call) {
        self.ledger.keep(id);
        if let Some(task) = &call.task {
            self.tasks.called(task);
        }
        invariant::check(call.engine.is_none() || call.task.is_some(), Invariant::W7);
        self.calls.insert(id.clone(), call);
    }

    /// A decision that allows has been recorded: what was set aside for it is kept.
    pub fn allowed(&mut self, decision: &Decision) {
        if let Some(call) = Call::of(decision) {
            self.began(&decision.id, call);
        }
        if let Some(session) = decision.session.as_deref().filter(|_| decision.tool.is_some() && is_forwarded(decision))
        {
            self.sessions.began(&decision.id, session);
        }
    }

    /// A call is over. What was set aside for it is given back, and `used` is taken in its place.
    pub fn ended(&mut self, id: &DecisionId, used: Option<Amount>) {
        self.ledger.settle(id, used);
        let Some(call) = self.calls.remove(id) else { return };
        let amount = used.unwrap_or_default();
        let add = |spent: &mut Spent| {
            // What was refused or never sent is no call that anybody pays for.
            spent.calls += u64::from(amount != Amount::ZERO);
            spent.amount = spent.amount.plus(amount);
        };
        add(self.spend.workers.entry(call.worker).or_default());
        if let Some(engine) = call.engine {
            add(self.spend.engines.entry(engine).or_default());
        }
        if let Some(task) = &call.task {
            self.tasks.cost(task, amount);
            // It may have been closed while this was on its way.
            if self.tasks.open_or_expired(task).is_none() {
                self.ledger.forget_task(task.as_str());
            }
        }
    }

    /// An operator changed a budget.
    pub fn changed(&mut self, change: &BudgetChange) {
        if let Some(amount) = change.granted {
            self.ledger.grant(&change.budget, amount, change.at);
        }
        if let Some(frozen) = change.frozen {
            self.ledger.freeze(&change.budget, frozen, change.at);
        }
    }

    /// A task was opened, or is over.
    pub fn task(&mut self, change: &TaskChange) {
        self.tasks.apply(change);
        if matches!(change.event, TaskEvent::Closed(_) | TaskEvent::Expired(_)) {
            self.ledger.forget_task(change.task.as_str());
        }
    }

    /// Takes in a record that was committed. Those of calls the running gateway has taken in before.
    pub fn apply(&mut self, record: &Record) {
        match &record.body {
            Body::Decision(decision) if decision.verdict == Verdict::Allow => {
                if let Some(reserved) = &decision.reserved {
                    self.ledger.set_aside(decision.id.clone(), reserved.clone());
                }
                if let Some(call) = CountedCall::of(decision) {
                    // It was counted when it was allowed, so there is room for it.
                    let _ = self.sessions.count(&decision.id, &call, record.ts);
                }
                self.allowed(decision);
            }
            Body::Outcome(outcome) => {
                if let Some(ran) = &outcome.ran {
                    self.sessions.tell(&outcome.decision, ran);
                }
                self.sessions.over(&outcome.decision);
                self.ended(&outcome.decision, outcome.settled.as_ref().map(|settled| settled.amount));
            }
            Body::Budget(change) => {
                self.changed(change);
            }
            Body::Task(change) => self.task(change),
            Body::Session(change) => self.sessions.apply(record.ts, change),
            Body::Delegate(change) => self.delegates.apply(record.ts, change),
            _ => {}
        }
    }
}

impl CountedCall {
    /// What an allowing decision of a tool was counted as in its session. A worker's own question whether it might is none.
    pub fn of(decision: &Decision) -> Option<Self> {
        if decision.door == Door::Authzen && decision.caller.is_none() {
            return None;
        }
        let session = decision.session.clone()?;
        let tool = decision.tool.as_ref()?;
        Some(Self { session, tool: format!("{}/{tool}", decision.server), steps: decision.history.clone() })
    }
}

impl Call {
    /// The call that an allowing decision is, when it costs something or goes to an engine.
    pub fn of(decision: &Decision) -> Option<Self> {
        let calls = decision.reserved.is_some() || decision.action == Verb::CallEngine.action();
        calls.then(|| Self {
            worker: decision.worker.clone(),
            engine: decision.engine.clone(),
            task: decision.task.as_deref().filter(|_| decision.engine.is_some()).map(TaskId::new),
        })
    }
}

impl State {
    /// Takes in the record with number `seq`.
    pub fn apply(&mut self, seq: u64, record: &Record) {
        self.counted.apply(record);
        match &record.body {
            Body::Decision(decision) => self.decided(seq, record.ts, decision),
            Body::Outcome(outcome) => {
                self.open.remove(&outcome.decision);
                self.acks.over(&outcome.decision, outcome.happened);
            }
            Body::Ack(change) => self.acks.apply(record.ts, change),
            Body::Inbox(change) => self.inbox.apply(record.ts, change),
            Body::Policy(change) => self.digests = change.digests.clone(),
            Body::Retention(dropped) => self.first_seq = dropped.next_seq,
            Body::Hold(change) => match &change.keeps {
                Some(hold) => drop(self.holds.insert(change.name.clone(), hold.clone())),
                None => drop(self.holds.remove(&change.name)),
            },
            Body::Key(change) => self.verifier = Some(change.verifier.clone()),
            Body::Operator(_) | Body::State(_) | Body::Read(_) | Body::Budget(_) | Body::Task(_) => {}
            Body::Session(_) | Body::Delegate(_) => {}
        }
    }

    fn decided(&mut self, seq: u64, at: Timestamp, decision: &Decision) {
        match decision.verdict {
            Verdict::Allow => {
                if is_forwarded(decision) {
                    self.open.insert(decision.id.clone(), at);
                }
                if let Some(by) = &decision.acknowledged {
                    self.acks.allowed(&decision.id, by);
                    if !is_forwarded(decision) {
                        // Its caller does it; nobody tells what came of it.
                        self.acks.over(&decision.id, Happened::Done);
                    }
                }
            }
            Verdict::Escalate if decision.again.is_none() && (is_forwarded(decision) || decision.held.is_some()) => {
                self.acks.park(decision.id.clone(), parked(seq, at, decision));
            }
            Verdict::Escalate | Verdict::Deny => {}
        }
    }
}

/// What is remembered of a held proposal.
pub fn parked(seq: u64, since: Timestamp, decision: &Decision) -> Parked {
    Parked {
        seq,
        worker: decision.worker.clone(),
        session: decision.session.clone(),
        since,
        action: decision.action.clone(),
        held: decision.held.clone(),
        digests: Arc::clone(&decision.digests),
        sealed: decision.sealed.is_some(),
        stage: Stage::Waiting,
    }
}

/// Whether Warden itself forwards what is allowed, so that an outcome is expected: also where it did not enforce the site's policies.
fn is_forwarded(decision: &Decision) -> bool {
    match decision.enforced {
        Enforced::Gateway => true,
        Enforced::Shadow => decision.door != Door::Authzen,
        Enforced::Caller => false,
    }
}
