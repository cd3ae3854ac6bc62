//! What a proposal costs: set aside before the verdict, kept by a recorded allow, and settled by what came of it.

use super::{Gate, Ports, enforced_by};
use crate::amount::Amount;
use crate::budget::ledger::{Basis, Reservation};
use crate::budget::{BudgetFacts, Exceeded};
use crate::decision::Enforced;
use crate::invariant::{self, Invariant};
use crate::outcome::{Happened, Metered, Reply, Settled};
use crate::proposal::{Ask, Correlation, DecisionId, Proposal, Verb};
use crate::session::CountedCall;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};

/// Where an upstream says what a call has used.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Metered>>);

impl Meter {
    /// Says it; the last word counts.
    pub fn tell(&self, metered: Metered) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = metered;
    }

    pub(super) fn read(&self) -> Metered {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is set aside for a proposal, and what it was counted as: given back unless it is kept.
pub(super) struct SetAside<'g, P> {
    pub(super) gate: &'g Gate<P>,
    pub(super) id: DecisionId,
    pub(super) kept: bool,
    pub(super) call: Option<CountedCall>,
}

impl<P> SetAside<'_, P> {
    pub(super) fn give_back(&mut self) {
        if !std::mem::replace(&mut self.kept, true) {
            let mut counted = self.gate.counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted.ledger.settle(&self.id, None);
            if let Some(call) = &self.call {
                counted.sessions.give_back(&self.id, call);
            }
        }
    }
}

impl<P> Drop for SetAside<'_, P> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A permitted call on its way. Whatever breaks off there is settled at what was set aside; its record follows at the next start.
pub(super) struct OnItsWay<'g, P> {
    pub(super) gate: &'g Gate<P>,
    pub(super) id: DecisionId,
    pub(super) ended: bool,
}

impl<P> Drop for OnItsWay<'_, P> {
    fn drop(&mut self) {
        if !self.ended {
            let mut counted = self.gate.counted.lock().unwrap_or_else(PoisonError::into_inner);
            let at_most = counted.ledger.reservation(&self.id).map(|reservation| reservation.amount);
            counted.ended(&self.id, at_most);
            counted.sessions.over(&self.id);
            drop(counted);
            self.gate.acks(|live| live.acks.over(&self.id, Happened::Unknown));
        }
    }
}

impl<P: Ports> Gate<P> {
    /// Sets aside what a proposal needs at most. Nothing for one that costs nothing.
    pub(super) fn reserve(
        &self,
        id: &DecisionId,
        proposal: &Proposal,
        now: Timestamp,
    ) -> Result<Option<(Reservation, BudgetFacts)>, Exceeded> {
        // What is refused in any case holds nothing back from others; of what its caller enforces nobody tells the end.
        if proposal.barred.is_some() || enforced_by(proposal.door) == Enforced::Caller {
            return Ok(None);
        }
        let (amount, priced) = match &proposal.ask {
            Ask::Engine(ask) if ask.verb == Verb::CallEngine => (ask.at_most, ask.priced),
            Ask::Tool { name } => match self.budgets.tool_cost(&proposal.server, name) {
                Amount::ZERO => return Ok(None),
                cost => (cost, true),
            },
            _ => return Ok(None),
        };
        // By the names that records have.
        let scanner = self.ports.scanner();
        let masked = |name: &Option<String>| name.as_ref().map(|name| scanner.mask(name).into_owned());
        let Correlation { session, task, run, .. } = &proposal.correlation;
        let belongs = Correlation { session: masked(session), task: masked(task), run: masked(run), delegate: None };
        let chain = self.budgets.chain(&proposal.worker, &belongs);
        if chain.is_empty() {
            return Ok(None);
        }
        self.counted(|counted| {
            let reserved = counted.ledger.reserve(&self.budgets, id, chain.clone(), (amount, priced), now);
            invariant::check(reserved.is_err() || counted.ledger.holds(&self.budgets, &chain), Invariant::W6);
            reserved.map(Some)
        })
    }
}

/// What is taken for a call by what came of it: nothing, where nothing was used. Once something was sent, nothing is given back for
/// want of knowledge. It is recorded first, and then counted.
pub(super) fn settle<P: Ports>(
    gate: &Gate<P>,
    id: &DecisionId,
    reply: &Reply,
    metered: Metered,
) -> Option<(Settled, Option<Reservation>)> {
    gate.counted(|counted| {
        let is_engine = counted.calls.get(id)?.engine.is_some();
        let reserved = counted.ledger.reservation(id).cloned();
        let at_most = reserved.as_ref().map_or(Amount::ZERO, |reserved| reserved.amount);
        let chain = reserved.as_ref().map_or(&[][..], |reserved| &reserved.budgets);
        let (used, basis) = match (reply, metered) {
            (Reply::NotSent, _) | (_, Metered::Refused) => (None, Basis::Released),
            (_, Metered::Used(_, amount)) => (Some(amount), Basis::Reported),
            (Reply::Answered { .. } | Reply::Passed { .. }, Metered::Nothing) => {
                (Some(at_most), if is_engine { Basis::Estimated } else { Basis::Fixed })
            }
            (Reply::Cancelled | Reply::Lost(_), Metered::Nothing) if gate.budgets.releases_unknown(chain) => {
                (None, Basis::Unknown)
            }
            (Reply::Cancelled | Reply::Lost(_), Metered::Nothing) => (Some(at_most), Basis::Unknown),
        };
        let amount = used.unwrap_or_default();
        let overshot = reserved.as_ref().and_then(|of| counted.ledger.overshot(&gate.budgets, of, amount));
        Some((Settled { amount, basis, overshot }, reserved))
    })
}
