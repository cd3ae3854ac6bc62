//! The pipeline: every branch a proposal can take, in one place.
//!
//! Proposal → facts → verdict → decision recorded → permit → forwarded → outcome recorded. Whatever is not foreseen ends
//! in a deny. [`handle`] must be driven to its end even when the worker is gone, or an outcome would be missing. What a
//! proposal costs is in `charge`, what is held and acknowledged in `ack`.

pub mod ack;
mod charge;
mod judge;
mod permit;
mod session;

pub use charge::Meter;
pub use judge::preview;
pub use permit::{Cleared, Passage, Payload, Permit};

use crate::ack::{Acknowledged, Held};
use crate::budget::{BudgetFacts, Budgets, Exceeded};
use crate::decision::{Decision, Enforced};
use crate::denials::{Admission, Denials};
use crate::invariant::{self, Invariant};
use crate::journal::record::{Body, Record};
use crate::journal::state::{self, Counted};
use crate::json::Json;
use crate::outcome::{EngineEvent, Happened, Lost, Metered, Outcome, Reply};
use crate::policy::level::{Inbound, Level};
use crate::policy::snapshot::Snapshot;
use crate::port::{Clock, Ids, Journal, JournalError, Room, SealFailed, Vault};
use crate::proposal::{Ask, DecisionId, Door, Proposal, TaskId, Verb};
use crate::secrets::tail::Tails;
use crate::secrets::{Scan, redact};
use crate::session::app::Apps;
use crate::task::scope::Scope;
use crate::verdict::{Evaluation, Verdict};
use ack::Live;
use charge::{OnItsWay, SetAside, settle};
use jiff::{SignedDuration, Timestamp};
use judge::{Given, Seen, enforced_by, held, judge, write_up};
use session::{InSession, Tells};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// All the ports together.
pub trait Ports: Journal + Clock + Ids + Vault {}

impl<T: Journal + Clock + Ids + Vault> Ports for T {}

/// Whatever a permitted proposal is forwarded to.
pub trait Upstream: Send + Sync {
    /// Forwards it and waits for what comes of it. Consumes the permit, so nothing is forwarded twice.
    fn forward(&self, permit: Permit) -> impl Future<Output = Reply> + Send;
}

/// What the worker (or the server that asked) is given.
#[derive(Debug)]
pub enum Answer {
    /// The peer's answer.
    Answered {
        /// The decision.
        id: DecisionId,
        /// Byte for byte.
        payload: Payload,
        /// The same, read: `result` or `error`.
        body: Json,
        /// Whether `body` is an `error`.
        is_error: bool,
        /// Whether it is the answer to a held proposal: under the id that its message had then.
        stored: bool,
    },
    /// No, or not yet, or not all of it.
    Refused(Refusal),
    /// It was allowed, and no answer came.
    Ended {
        /// The decision.
        id: DecisionId,
        /// What is known.
        reply: Reply,
    },
}

/// A refusal. Kind, advice and id are for the worker; the rest is for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The decision.
    pub id: DecisionId,
    /// Deny, or escalate when it is held.
    pub verdict: Verdict,
    /// The reason code.
    pub reason: String,
    /// What the worker can do.
    pub advice: Option<String>,
    /// The budget that it was not within.
    pub exceeded: Option<Box<Exceeded>>,
}

/// The policy snapshot, the ports, and what is watched between proposals.
pub struct Gate<P> {
    /// The ports.
    pub ports: P,
    snapshot: RwLock<Arc<Snapshot>>,
    // A std mutex: nothing awaits while it is held.
    denials: Mutex<Denials>,
    active: AtomicUsize,
    tails: Tails,
    shadow: bool,
    /// Tools that were just seen to be listed otherwise, with the hash they are catalogued by: held until a snapshot knows.
    held: RwLock<HashMap<String, String>>,
    any_held: AtomicBool,
    budgets: Budgets,
    apps: Apps,
    /// What hosts have declared of tasks. A std lock: nothing awaits while it is held.
    scopes: RwLock<HashMap<TaskId, Arc<Scope>>>,
    /// Ahead of the journal's by what is on its way there. A std mutex: nothing awaits while it is held.
    counted: Mutex<Counted>,
    /// So are these.
    acks: Mutex<Live>,
    held_for: SignedDuration,
}

/// How long proposals are held where nobody says otherwise.
const HELD_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Counts a proposal for as long as it is on its way.
struct Active<'g>(&'g AtomicUsize);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<P: Ports> Gate<P> {
    /// A gate that decides by `snapshot`.
    pub fn new(ports: P, snapshot: Snapshot) -> Self {
        Self {
            ports,
            snapshot: RwLock::new(Arc::new(snapshot)),
            denials: Mutex::default(),
            active: AtomicUsize::new(0),
            tails: Tails::default(),
            shadow: false,
            held: RwLock::default(),
            any_held: AtomicBool::new(false),
            budgets: Budgets::default(),
            apps: Apps::default(),
            scopes: RwLock::default(),
            counted: Mutex::default(),
            acks: Mutex::default(),
            held_for: HELD_FOR,
        }
    }

    /// The same with what the journal says of held proposals, which are held for so long.
    #[must_use]
    pub fn holding(self, acks: crate::ack::Acks, held_for: SignedDuration) -> Self {
        Self { acks: Mutex::new(Live::of(acks)), held_for, ..self }
    }

    /// The same with these budgets, and what the journal says was spent.
    #[must_use]
    pub fn counting(self, budgets: Budgets, counted: Counted) -> Self {
        Self { budgets, counted: Mutex::new(counted), ..self }
    }

    /// The same with these apps.
    #[must_use]
    pub fn serving(self, apps: Apps) -> Self {
        Self { apps, ..self }
    }

    /// All apps.
    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    /// What a host has declared of a task; nothing any more without it.
    pub fn scope(&self, task: &TaskId, scope: Option<Arc<Scope>>) {
        let mut scopes = self.scopes.write().unwrap_or_else(PoisonError::into_inner);
        match scope {
            Some(scope) => drop(scopes.insert(task.clone(), scope)),
            None => drop(scopes.remove(task)),
        }
    }

    /// All budgets.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// What was counted so far. Nothing may await while it is looked at.
    pub fn counted<T>(&self, look: impl FnOnce(&mut Counted) -> T) -> T {
        look(&mut self.counted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds a tool at once, whose server lists another definition than the catalogue's. Making a snapshot that knows takes a while.
    pub fn hold(&self, server: &str, tool: &str) {
        let snapshot = self.snapshot();
        let known = snapshot.catalogue().tool(server, tool).filter(|tool| tool.changed.is_none());
        let Some(known) = known.map(|tool| tool.hash.clone()) else { return };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.insert(format!("{server}/{tool}"), known);
        self.any_held.store(true, Ordering::Release);
    }

    /// Whether a proposal calls a tool that is held.
    fn holds(&self, proposal: &Proposal) -> bool {
        let Ask::Tool { name } = &proposal.ask else { return false };
        self.any_held.load(Ordering::Acquire) && {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            held.contains_key(&format!("{}/{name}", proposal.server))
        }
    }

    /// The same with the site in shadow: what its rules say is recorded and not enforced. The charter still is.
    #[must_use]
    pub fn in_shadow(self, shadow: bool) -> Self {
        Self { shadow, ..self }
    }

    /// Whether the site is in shadow.
    pub fn is_in_shadow(&self) -> bool {
        self.shadow
    }

    /// The snapshot of now. A proposal keeps the one it started with.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another snapshot in place, for all proposals from here on.
    pub fn serve(&self, snapshot: Snapshot) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        // What the snapshot knows to have changed is its to hold; what is catalogued otherwise by now, an operator has seen.
        held.retain(|tool, hash| {
            let (server, name) = tool.split_once('/').unwrap_or_default();
            snapshot.catalogue().tool(server, name).is_some_and(|tool| tool.changed.is_none() && tool.hash == *hash)
        });
        self.any_held.store(!held.is_empty(), Ordering::Release);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// Counts a proposal until what this returns is dropped.
    fn enter(&self) -> Active<'_> {
        self.active.fetch_add(1, Ordering::AcqRel);
        Active(&self.active)
    }

    /// Proposals that are on their way. At a shutdown the journal is closed when there are none.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Records denials that were only counted so far: of windows that are over, or of all when `shutdown`.
    pub async fn sweep(&self, shutdown: bool) {
        let now = self.ports.now();
        let counted = {
            let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
            denials.sweep((!shutdown).then_some(now))
        };
        for decision in counted {
            let decision = Decision { id: self.ports.decision(now), ..decision };
            let record = Record::new(now, Body::Decision(Arc::new(decision)));
            // A failure is what `journal_failed` tells every later proposal.
            let _ = self.ports.append(record, Room::Reserved).await;
        }
    }

    /// Records a denial, or counts it. Answers in either case.
    async fn deny(&self, decision: Decision, now: Timestamp) -> Refusal {
        let refusal = Refusal {
            id: decision.id.clone(),
            verdict: Verdict::Deny,
            reason: decision.reason.clone(),
            advice: decision.advice.clone(),
            exceeded: None,
        };
        let admission = {
            let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
            denials.admit(&decision, now)
        };
        match admission {
            Admission::Count(id) => Refusal { id, ..refusal },
            Admission::Record { repeated } => {
                let record = Record::new(now, Body::Decision(Arc::new(Decision { repeated, ..decision })));
                // A denial that finds no room is a denial all the same; the journal says why in the log.
                let _ = self.ports.append(record, Room::Reserved).await;
                refusal
            }
        }
    }

    /// A verdict that could not be recorded becomes a denial, which may still find room.
    async fn deny_unrecorded(&self, decision: Arc<Decision>, error: JournalError, now: Timestamp) -> Refusal {
        let evaluation = Evaluation::deny(error.reason(), Some(error.to_string()));
        let denial = Decision {
            verdict: Verdict::Deny,
            reason: evaluation.reason,
            advice: evaluation.advice,
            errors: evaluation.errors,
            sealed: None,
            held: None,
            again: None,
            acknowledged: None,
            reserved: None,
            history: BTreeMap::new(),
            // A denial is enforced, also where the site is in shadow.
            enforced: enforced_by(decision.door),
            would_be: None,
            ..Arc::unwrap_or_clone(decision)
        };
        self.deny(denial, now).await
    }
}

/// Takes a proposal from its facts to its outcome.
pub async fn handle<P: Ports, U: Upstream>(gate: &Gate<P>, proposal: Proposal, upstream: &U) -> Answer {
    let _active = gate.enter();
    let since = gate.ports.now();
    match decide(gate, proposal, since).await {
        Decided::Permit(permit) => send(gate, permit, upstream, since).await,
        Decided::Refused(refusal) => Answer::Refused(refusal),
        Decided::Kept(answer) => answer,
    }
}

/// Takes a proposal that its caller will enforce to its recorded decision: there is nothing to forward, and no outcome.
pub async fn advise<P: Ports>(gate: &Gate<P>, proposal: Proposal) -> Result<DecisionId, Refusal> {
    let _active = gate.enter();
    let now = gate.ports.now();
    match decide(gate, proposal, now).await {
        Decided::Permit(permit) => Ok(permit.decision),
        Decided::Refused(refusal) => Err(refusal),
        // Only what Warden forwards has a result to keep.
        Decided::Kept(_) => Err(Refusal::of(gate.ports.decision(now), "acknowledgement_over")),
    }
}

/// Forwards a permit, and records what came of it.
async fn send<P: Ports, U: Upstream>(gate: &Gate<P>, permit: Permit, upstream: &U, since: Timestamp) -> Answer {
    let sent = Sent::of(gate, &permit);
    let mut on_its_way = OnItsWay { gate, id: sent.id.clone(), ended: false };
    // A session that was stopped while the decision was written down runs nothing more.
    let reply = match gate.is_stopped(&permit.proposal) {
        true => Reply::NotSent,
        false => upstream.forward(permit).await,
    };
    let answer = complete(gate, sent, reply, since).await;
    on_its_way.ended = true;
    answer
}

/// What a proposal comes to before anything moves.
enum Decided {
    Permit(Permit),
    Refused(Refusal),
    /// The result of what was held, which has waited for this.
    Kept(Answer),
}

/// A proposal with its verdict, and what was set aside for it.
struct Weighed<'g, P> {
    id: DecisionId,
    snapshot: Arc<Snapshot>,
    evaluation: Evaluation,
    seen: Seen,
    reserved: Result<Option<(crate::budget::ledger::Reservation, BudgetFacts)>, Exceeded>,
    set_aside: SetAside<'g, P>,
}

/// From the facts to the verdict.
fn weigh<'g, P: Ports>(gate: &'g Gate<P>, proposal: &Proposal, acknowledged: bool, now: Timestamp) -> Weighed<'g, P> {
    let id = gate.ports.decision(now);
    let snapshot = gate.snapshot();
    let reserved = gate.reserve(&id, proposal, now);
    let mut set_aside = SetAside { gate, id: id.clone(), kept: false, call: None };
    let session = gate.in_session(&id, &snapshot, proposal, now).map(|InSession { facts, call }| {
        set_aside.call = call;
        facts
    });
    let budget = reserved.as_ref().map(|reserved| reserved.as_ref().map(|(_, facts)| *facts));
    let task = gate.in_task(&snapshot, proposal, now);
    let given = Given { shadow: gate.shadow, acknowledged, budget, session, task };
    let (mut evaluation, seen) = judge(&snapshot, proposal, gate.ports.scanner(), &gate.tails, given);
    if evaluation.verdict == Verdict::Allow && gate.holds(proposal) {
        evaluation = held(evaluation);
    }
    Weighed { id, snapshot, evaluation, seen, reserved, set_aside }
}

/// From the verdict to the recorded decision: a permit, or why there is none.
async fn decide<P: Ports>(gate: &Gate<P>, proposal: Proposal, now: Timestamp) -> Decided {
    let weighed = weigh(gate, &proposal, false, now);
    match weighed.evaluation.verdict {
        Verdict::Escalate => ack::escalated(gate, proposal, weighed, now).await,
        // What has run once it was granted is not asked about again, also where a rule would have it run once alone.
        Verdict::Allow | Verdict::Deny => match ack::waits_for(gate, &proposal, now).filter(|_| is_decided(&weighed)) {
            None => Decided::of(conclude(gate, proposal, weighed, How::Plain, now).await),
            Some(id) => {
                drop(weighed);
                ack::deliver(gate, &id, now).await
            }
        },
    }
}

/// Whether it is allowed, or a rule denies it: not what the gateway refuses by itself.
fn is_decided<P>(weighed: &Weighed<'_, P>) -> bool {
    weighed.evaluation.verdict == Verdict::Allow || !weighed.evaluation.policies.is_empty()
}

impl Decided {
    fn of(concluded: Result<Permit, Refusal>) -> Self {
        concluded.map_or_else(Decided::Refused, Decided::Permit)
    }
}

/// What a decision says of acknowledgements.
enum How {
    /// Nothing.
    Plain,
    /// It is held from here on.
    Park(Held),
    /// It is held already.
    Again(DecisionId),
    /// It was acknowledged.
    By(Acknowledged),
}

/// Records a verdict, and makes of it what it is: a permit, something held, a denial.
async fn conclude<P: Ports>(
    gate: &Gate<P>,
    proposal: Proposal,
    weighed: Weighed<'_, P>,
    how: How,
    now: Timestamp,
) -> Result<Permit, Refusal> {
    let Weighed { id, snapshot, evaluation, seen, reserved, mut set_aside } = weighed;
    let scanner = gate.ports.scanner();
    let exceeded = reserved.as_ref().err().filter(|exceeded| evaluation.reason == exceeded.reason()).cloned();
    let inbound = seen.inbound;
    let verdict = evaluation.verdict;
    let mut decision = write_up(id.clone(), &snapshot, &proposal, evaluation, seen, scanner);
    if verdict != Verdict::Allow {
        // Given back before anything is waited for.
        set_aside.give_back();
    } else {
        decision.reserved = reserved.ok().flatten().map(|(reservation, _)| reservation);
        decision.history = set_aside.call.as_ref().map(|call| call.steps.clone()).unwrap_or_default();
    }
    if let Err(e) = level(&mut decision, &gate.ports) {
        return Err(gate.deny(denied_unsealed(decision, &e), now).await);
    }
    match verdict {
        Verdict::Deny => Err(Refusal { exceeded: exceeded.map(Box::new), ..gate.deny(decision, now).await }),
        Verdict::Escalate => {
            let told = match how {
                How::Park(held) => {
                    // What a caller holds back is not Warden's to run, so there is nothing to seal.
                    if decision.enforced == Enforced::Gateway {
                        match ack::seal(gate, &id, &proposal) {
                            Ok(sealed) => decision.sealed = Some(sealed),
                            Err(e) => return Err(gate.deny(denied_unsealed(decision, &e), now).await),
                        }
                    }
                    decision.held = Some(held);
                    id.clone()
                }
                How::Again(first) => {
                    decision.again = Some(first.clone());
                    first
                }
                How::Plain | How::By(_) => id.clone(),
            };
            let (reason, advice) = (decision.reason.clone(), decision.advice.clone());
            let decision = Arc::new(decision);
            let record = Record::new(now, Body::Decision(decision.clone()));
            Err(match gate.ports.append(record, Room::Ordinary).await {
                Ok(receipt) => {
                    if decision.held.is_some() {
                        let parked = state::parked(receipt.seq, now, &decision);
                        gate.acks(|live| live.acks.park(id, parked));
                    }
                    Refusal { id: told, verdict, reason, advice, exceeded: None }
                }
                Err(error) => {
                    // What was sealed for nothing is nobody's.
                    if decision.sealed.is_some() {
                        let _ = gate.ports.destroy(&id);
                    }
                    gate.deny_unrecorded(decision, error, now).await
                }
            })
        }
        Verdict::Allow => {
            if let How::By(by) = how {
                decision.acknowledged = Some(by);
            }
            // Operators' acts have room on a full disk.
            let room = if decision.action == Verb::Acknowledge.action() { Room::Reserved } else { Room::Ordinary };
            let stored = decision.acknowledged.as_ref().is_some_and(|by| by.held.is_some());
            let decision = Arc::new(decision);
            let record = Record::new(now, Body::Decision(decision.clone()));
            match gate.ports.append(record, room).await {
                Ok(receipt) => {
                    set_aside.kept = true;
                    gate.counted(|counted| {
                        counted.allowed(&decision);
                        counted.sessions.decided(&id);
                    });
                    if let Some(by) = decision.acknowledged.as_ref().filter(|_| stored) {
                        gate.acks(|live| live.acks.allowed(&id, by));
                    }
                    let (decision, scanner, meter) = (id.clone(), Arc::clone(scanner), Meter::default());
                    Ok(Permit { proposal, decision, receipt, inbound, scanner, meter, stored })
                }
                Err(error) => Err(gate.deny_unrecorded(decision, error, now).await),
            }
        }
    }
}

/// Leaves of what Cedar saw what the action's level lets stand.
fn level<P: Vault>(decision: &mut Decision, vault: &P) -> Result<(), SealFailed> {
    if decision.level == Level::Facts {
        return Ok(());
    }
    let input = std::mem::take(&mut decision.context.input);
    if decision.level == Level::Sealed && !input.is_null() {
        let sealed = vault.seal_input(&decision.worker, &decision.id, input.to_string().as_bytes())?;
        decision.input_sealed = Some(sealed);
    }
    Ok(())
}

fn denied_unsealed(decision: Decision, error: &SealFailed) -> Decision {
    let evaluation = Evaluation::deny("seal_failed", Some(error.to_string()));
    Decision {
        verdict: Verdict::Deny,
        reason: evaluation.reason,
        advice: evaluation.advice,
        errors: evaluation.errors,
        enforced: enforced_by(decision.door),
        would_be: None,
        reserved: None,
        history: BTreeMap::new(),
        held: None,
        acknowledged: None,
        ..decision
    }
}

impl Refusal {
    /// A denial for a reason of Warden's own.
    fn of(id: DecisionId, reason: &str) -> Self {
        let advice = crate::reason::advice(reason).map(str::to_owned);
        Self { id, verdict: Verdict::Deny, reason: reason.to_owned(), advice, exceeded: None }
    }
}

/// What is remembered of a permit while it is forwarded.
struct Sent {
    id: DecisionId,
    inbound: Inbound,
    door: Door,
    /// The engine that is called, and the task.
    engine: Option<(String, TaskId)>,
    meter: Meter,
    stored: bool,
    /// What its session will be told, when it ran.
    tells: Option<Tells>,
}

impl Sent {
    fn of<P: Ports>(gate: &Gate<P>, permit: &Permit) -> Self {
        let engine = match &permit.proposal.ask {
            Ask::Engine(ask) if ask.verb == Verb::CallEngine => Some((ask.engine.clone(), ask.task.clone())),
            _ => None,
        };
        Self {
            id: permit.decision.clone(),
            inbound: permit.inbound,
            door: permit.proposal.door,
            engine,
            meter: permit.meter(),
            stored: permit.stored,
            tells: gate.tells(&permit.proposal),
        }
    }
}

/// Records what came of a permit. Nobody waits for that record: the effect has happened, and whether its outcome survives
/// a power cut changes nothing of the answer. Lost, it reads as unknown.
async fn complete<P: Ports>(
    gate: &Gate<P>,
    Sent { id, inbound, door, engine, meter, stored, tells }: Sent,
    reply: Reply,
    since: Timestamp,
) -> Answer {
    let now = gate.ports.now();
    let took_ms = u64::try_from(now.duration_since(since).as_millis()).unwrap_or_default();
    let scanner = gate.ports.scanner();
    let found = match &reply {
        Reply::Answered { body, .. } if door == Door::Llm => scanner.scan(body, ""),
        Reply::Answered { body, is_error, .. } => scanner.scan(body, if *is_error { "/error" } else { "/result" }),
        _ => Scan::default(),
    };
    let redacted = match &reply {
        Reply::Answered { raw, is_error, .. } if inbound == Inbound::Redact && !found.findings.is_empty() => {
            if door == Door::Llm { redact::whole(scanner, raw) } else { redact::answer(scanner, raw, *is_error) }
        }
        _ => None,
    };
    let mut outcome = Outcome::of(id.clone(), &reply, found, took_ms);
    let metered = meter.read();
    let (settled, reserved) = settle(gate, &id, &reply, metered).unzip();
    let used = settled.as_ref().map(|settled| settled.amount);
    let at_most = reserved.flatten().map(|reserved| reserved.amount);
    outcome.settled = settled;
    outcome.engine = engine.map(|(engine, task)| {
        let usage = if let Metered::Used(usage, _) = metered { Some(usage) } else { None };
        EngineEvent { engine, task, usage }
    });
    let overshot = outcome.settled.as_ref().and_then(|settled| settled.overshot.clone());
    // More than a crash would take for it is on the disk before anybody goes on.
    let is_more = used.zip(at_most).is_some_and(|(used, at_most)| used.exceeds(at_most));
    let is_answered = matches!(reply, Reply::Answered { .. });
    let kept_back = overshot.filter(|exceeded| is_answered && gate.budgets.withholds(&exceeded.budget));
    if kept_back.is_some() {
        outcome.happened = Happened::Withheld;
    }
    let reply = match redacted {
        Some((raw, body)) => {
            outcome.happened = Happened::Redacted;
            let is_error = matches!(reply, Reply::Answered { is_error: true, .. });
            Reply::Answered { raw, body, is_error }
        }
        None => reply,
    };
    let happened = outcome.happened;
    outcome.ran = tells.and_then(|tells| gate.ran(&id, tells, &reply, happened));
    let record = Record::new(now, Body::Outcome(outcome));
    if is_more {
        let _ = gate.ports.append(record, Room::Reserved).await;
    } else {
        gate.ports.note(record).await;
    }
    // Whoever is given the room that is free now stands behind that record.
    gate.counted(|counted| {
        counted.sessions.over(&id);
        if used.is_some() {
            counted.ended(&id, used);
        }
    });
    if stored {
        gate.acks(|live| live.acks.over(&id, happened));
    }
    match reply {
        _ if kept_back.is_some() => {
            Answer::Refused(Refusal { exceeded: kept_back.map(Box::new), ..Refusal::of(id, "budget_exceeded") })
        }
        Reply::Answered { .. } if happened == Happened::Withheld => Answer::Refused(Refusal::of(id, "result_withheld")),
        Reply::Answered { raw, body, is_error } => {
            invariant::check(happened != Happened::Withheld, Invariant::W4);
            Answer::Answered { id, payload: Payload(raw), body, is_error, stored }
        }
        reply => Answer::Ended { id, reply },
    }
}

/// Allowed proposals that a crash left without an outcome: unknown, never done.
pub async fn settle_crashed<P: Ports>(gate: &Gate<P>, open: Vec<DecisionId>) -> Result<(), JournalError> {
    for decision in open {
        let now = gate.ports.now();
        let reply = Reply::Lost(Lost::Crashed);
        let call = gate.counted(|counted| counted.calls.get(&decision).cloned());
        let engine = call.and_then(|call| Some(EngineEvent { engine: call.engine?, task: call.task?, usage: None }));
        let settled = settle(gate, &decision, &reply, Metered::Nothing).map(|(settled, _)| settled);
        let used = settled.as_ref().map(|settled| settled.amount);
        let outcome = Outcome { engine, settled, ..Outcome::of(decision.clone(), &reply, Scan::default(), 0) };
        let happened = outcome.happened;
        gate.ports.append(Record::new(now, Body::Outcome(outcome)), Room::Reserved).await?;
        gate.counted(|counted| {
            counted.sessions.over(&decision);
            if used.is_some() {
                counted.ended(&decision, used);
            }
        });
        let held = gate.acks(|live| {
            let held = live.acks.running.get(&decision).cloned();
            live.acks.over(&decision, happened);
            held
        });
        // It ran, and nobody knows what came of it: there is nothing to keep a key for.
        let _ = held.map(|held| gate.ports.destroy(&held));
    }
    Ok(())
}
