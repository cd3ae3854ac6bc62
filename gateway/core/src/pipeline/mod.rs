//! The pipeline: every branch a proposal can take, in one place.
//!
//! Proposal → facts → verdict → decision recorded → permit → forwarded → outcome recorded. Whatever is not foreseen ends
//! in a deny. [`handle`] must be driven to its end even when the worker is gone, or an outcome would be missing. What a
//! proposal costs is in `charge`.

mod charge;

pub use charge::Meter;

use crate::budget::{BudgetFacts, Budgets, Exceeded};
use crate::decision::{Context, Decision, Enforced, presentable, short};
use crate::denials::{Admission, Denials};
use crate::facts::{self, Facts, Mode};
use crate::invariant::{self, Invariant};
use crate::journal::record::{Body, Record};
use crate::journal::state::{Call, Counted};
use crate::json::Json;
use crate::mcp::{self, Class, From};
use crate::outcome::{EngineEvent, Happened, Lost, Metered, Outcome, Reply};
use crate::policy::level::{Inbound, Level};
use crate::policy::snapshot::{Case, NoCase, Snapshot};
use crate::port::{Clock, Ids, Journal, JournalError, Receipt, Room, SealFailed, Vault};
use crate::proposal::{Ask, DecisionId, Door, Proposal, TaskId, Verb};
use crate::rpc::{Kind, Message};
use crate::secrets::tail::Tails;
use crate::secrets::{Scan, Scanner, redact};
use crate::verdict::{Evaluation, Verdict, evaluate, under_charter};
use charge::{OnItsWay, SetAside, settle};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashMap;
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

/// Proof that an allowing decision was recorded. Only this module makes one.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    proposal: Proposal,
    decision: DecisionId,
    receipt: Receipt,
    inbound: Inbound,
    scanner: Arc<Scanner>,
    meter: Meter,
}

impl Permit {
    /// What was permitted.
    pub fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// The decision.
    pub fn decision(&self) -> &DecisionId {
        &self.decision
    }

    /// Where the decision is recorded.
    pub fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Where to say what the call has used.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// What becomes of an answer with a secret value in it.
    pub fn inbound(&self) -> Inbound {
        self.inbound
    }

    /// The bytes that may go on their way.
    pub fn into_payload(self) -> Payload {
        Payload(self.proposal.payload)
    }

    /// For a permitted connection: the right to pass its chatter.
    pub fn into_passage(self) -> Option<Passage> {
        let Proposal { ask, worker, connection, server, .. } = self.proposal;
        let scanner = self.scanner;
        (ask == Ask::Verb(Verb::Connect)).then_some(Passage { worker, connection, server, scanner })
    }
}

/// Text that may be sent. It comes out of a permit, a passage, a scanned reply, or is Warden's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(String);

impl Payload {
    /// Words of Warden itself, or of a worker's answer rewritten by it.
    pub fn own(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, to be sent.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A connection that was allowed: its protocol chatter passes without a decision each.
#[derive(Debug)]
pub struct Passage {
    worker: String,
    connection: String,
    server: String,
    scanner: Arc<Scanner>,
}

/// What chatter turned out to be.
#[derive(Debug, PartialEq)]
pub enum Cleared {
    /// It passes.
    Pass(Payload),
    /// It is a proposal, or holds something that must be decided and recorded.
    Decide(Message),
}

impl Passage {
    /// Whose it is.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Its connection.
    pub fn connection(&self) -> &str {
        &self.connection
    }

    /// Its server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What looks for secret values.
    pub fn scanner(&self) -> &Arc<Scanner> {
        &self.scanner
    }

    /// A reply to chatter, if it holds no secret value.
    pub fn release(&self, reply: Reply) -> Option<Payload> {
        match reply {
            Reply::Answered { raw, body, .. } if self.scanner.scan(&body, "").is_clean() => Some(Payload(raw)),
            _ => None,
        }
    }

    /// Lets clean chatter pass.
    pub fn clear(&self, from: From, message: Message) -> Cleared {
        let (method, params, id) = match &message.kind {
            Kind::Request { method, params, id } => (method, params, Some(id)),
            Kind::Notification { method, params } => (method, params, None),
            Kind::Result { .. } | Kind::Error { .. } => return Cleared::Decide(message),
        };
        let id = id.map(crate::rpc::Id::decoded).unwrap_or_default();
        let clean = || {
            self.scanner.scan(params, "/params").is_clean()
                && [method.as_str(), id].into_iter().all(|text| self.scanner.scan_text(text, "").is_clean())
        };
        if mcp::class(from, method) == Class::Chatter && clean() {
            Cleared::Pass(Payload(message.raw))
        } else {
            Cleared::Decide(message)
        }
    }
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
    /// Ahead of the journal's by what is on its way there. A std mutex: nothing awaits while it is held.
    counted: Mutex<Counted>,
}

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
            counted: Mutex::default(),
        }
    }

    /// The same with these budgets, and what the journal says was spent.
    #[must_use]
    pub fn counting(self, budgets: Budgets, counted: Counted) -> Self {
        Self { budgets, counted: Mutex::new(counted), ..self }
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
            reserved: None,
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
    gate.active.fetch_add(1, Ordering::AcqRel);
    let _active = Active(&gate.active);
    let since = gate.ports.now();
    match decide(gate, proposal, since).await {
        Ok(permit) => {
            let sent = Sent::of(&permit);
            let mut on_its_way = OnItsWay { gate, id: sent.id.clone(), ended: false };
            let reply = upstream.forward(permit).await;
            let answer = complete(gate, sent, reply, since).await;
            on_its_way.ended = true;
            answer
        }
        Err(refusal) => Answer::Refused(refusal),
    }
}

/// Takes a proposal that its caller will enforce to its recorded decision: there is nothing to forward, and no outcome.
pub async fn advise<P: Ports>(gate: &Gate<P>, proposal: Proposal) -> Result<DecisionId, Refusal> {
    gate.active.fetch_add(1, Ordering::AcqRel);
    let _active = Active(&gate.active);
    let now = gate.ports.now();
    decide(gate, proposal, now).await.map(|permit| permit.decision)
}

/// From the facts to the recorded decision: a permit, or why there is none.
async fn decide<P: Ports>(gate: &Gate<P>, proposal: Proposal, now: Timestamp) -> Result<Permit, Refusal> {
    let id = gate.ports.decision(now);
    let snapshot = gate.snapshot();
    let scanner = gate.ports.scanner();
    let reserved = gate.reserve(&id, &proposal, now);
    let mut set_aside = SetAside { gate, id: &id, kept: !matches!(reserved, Ok(Some(_))) };
    let budget = reserved.as_ref().map(|reserved| reserved.as_ref().map(|(_, facts)| *facts));
    let (mut evaluation, seen) = judge(&snapshot, &proposal, scanner, &gate.tails, (gate.shadow, budget));
    let exceeded = reserved.as_ref().err().filter(|exceeded| evaluation.reason == exceeded.reason()).cloned();
    if evaluation.verdict == Verdict::Allow && gate.holds(&proposal) {
        evaluation = held(evaluation);
    }
    let inbound = seen.inbound;
    let verdict = evaluation.verdict;
    let mut decision = write_up(id.clone(), &snapshot, &proposal, evaluation, seen, scanner);
    if verdict != Verdict::Allow {
        // Given back before anything is waited for.
        set_aside.give_back();
    } else {
        decision.reserved = reserved.ok().flatten().map(|(reservation, _)| reservation);
    }
    if let Err(e) = level(&mut decision, &gate.ports) {
        return Err(gate.deny(denied_unsealed(decision, &e), now).await);
    }
    match verdict {
        Verdict::Deny => Err(Refusal { exceeded: exceeded.map(Box::new), ..gate.deny(decision, now).await }),
        Verdict::Escalate => {
            // What a caller holds back is not Warden's to run, so there is nothing to seal.
            if decision.enforced == Enforced::Gateway {
                match gate.ports.seal(&id, proposal.payload.as_bytes()) {
                    Ok(sealed) => decision.sealed = Some(sealed),
                    Err(e) => return Err(gate.deny(denied_unsealed(decision, &e), now).await),
                }
            }
            let (reason, advice) = (decision.reason.clone(), decision.advice.clone());
            let decision = Arc::new(decision);
            let record = Record::new(now, Body::Decision(decision.clone()));
            Err(match gate.ports.append(record, Room::Ordinary).await {
                Ok(_) => Refusal { id: id.clone(), verdict, reason, advice, exceeded: None },
                Err(error) => gate.deny_unrecorded(decision, error, now).await,
            })
        }
        Verdict::Allow => {
            let decision = Arc::new(decision);
            let record = Record::new(now, Body::Decision(decision.clone()));
            match gate.ports.append(record, Room::Ordinary).await {
                Ok(receipt) => {
                    set_aside.kept = true;
                    if let Some(call) = Call::of(&decision) {
                        gate.counted(|counted| counted.began(&id, call));
                    }
                    let (decision, scanner, meter) = (id.clone(), Arc::clone(scanner), Meter::default());
                    Ok(Permit { proposal, decision, receipt, inbound, scanner, meter })
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
        ..decision
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
}

impl Sent {
    fn of(permit: &Permit) -> Self {
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
        }
    }
}

/// Records what came of a permit. Nobody waits for that record: the effect has happened, and whether its outcome survives
/// a power cut changes nothing of the answer. Lost, it reads as unknown.
async fn complete<P: Ports>(
    gate: &Gate<P>,
    Sent { id, inbound, door, engine, meter }: Sent,
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
    let record = Record::new(now, Body::Outcome(outcome));
    if is_more {
        let _ = gate.ports.append(record, Room::Reserved).await;
    } else {
        gate.ports.note(record).await;
    }
    // Whoever is given the room that is free now stands behind that record.
    if used.is_some() {
        gate.counted(|counted| counted.ended(&id, used));
    }
    match reply {
        _ if kept_back.is_some() => Answer::Refused(Refusal {
            id,
            verdict: Verdict::Deny,
            reason: "budget_exceeded".into(),
            advice: crate::reason::advice("budget_exceeded").map(str::to_owned),
            exceeded: kept_back.map(Box::new),
        }),
        Reply::Answered { .. } if happened == Happened::Withheld => Answer::Refused(Refusal {
            id,
            verdict: Verdict::Deny,
            reason: "result_withheld".into(),
            advice: crate::reason::advice("result_withheld").map(str::to_owned),
            exceeded: None,
        }),
        Reply::Answered { raw, body, is_error } => {
            invariant::check(happened != Happened::Withheld, Invariant::W4);
            Answer::Answered { id, payload: Payload(raw), body, is_error }
        }
        reply => Answer::Ended { id, reply },
    }
}

/// What was seen of a proposal, for the record.
struct Seen {
    scan: Scan,
    inbound: Inbound,
    unseen: Vec<String>,
    dot_segments: bool,
    budget: Option<BudgetFacts>,
    input: Value,
}

fn judge(
    snapshot: &Snapshot,
    proposal: &Proposal,
    scanner: &Scanner,
    tails: &Tails,
    (shadow, budget): (bool, Result<Option<BudgetFacts>, &Exceeded>),
) -> (Evaluation, Seen) {
    let scan = facts::scan(proposal, scanner).and(tails.scan(proposal, scanner));
    let blind = |evaluation, scan| {
        let inbound = Inbound::default();
        let seen = Seen { scan, inbound, unseen: Vec::new(), dot_segments: false, budget: None, input: Value::Null };
        (evaluation, seen)
    };
    if let Some(reason) = proposal.barred {
        return blind(Evaluation::deny(reason, None), scan);
    }
    let case = match snapshot.case(&proposal.worker, &proposal.server, &proposal.ask) {
        Ok(case) => case,
        Err(no_case) => return blind(Evaluation::deny(no_case.reason(), None), scan),
    };
    match facts::gather(proposal, &case.target.input, &case.target.paths, scan) {
        Err(refused) => {
            let refusal = refused.refusal.with_pointer(|pointer| scanner.hide_pointer(pointer));
            blind(Evaluation::deny(refusal.code(), Some(refusal.to_string())), refused.scan)
        }
        Ok(mut facts) => {
            facts.budget = budget.unwrap_or_default();
            let evaluation = match budget.map_or_else(
                |exceeded| Evaluation::deny(exceeded.reason(), Some(exceeded.to_string())),
                |_| evaluate(snapshot, &case, &facts),
            ) {
                refused if budget.is_err() => refused,
                refused if shadow && refused.verdict != Verdict::Allow => let_through(snapshot, &case, &facts, refused),
                evaluation => evaluation,
            };
            let seen = Seen {
                scan: Scan { findings: facts.findings, suspicions: facts.suspicions, unscannable: false },
                inbound: case.target.inbound,
                unseen: facts.input.unseen,
                dot_segments: facts.dot_segments,
                budget: facts.budget,
                input: facts.input.record,
            };
            (evaluation, seen)
        }
    }
}

/// What the charter's rule on changed tools will say as soon as the snapshot knows.
fn held(evaluation: Evaluation) -> Evaluation {
    Evaluation {
        verdict: Verdict::Escalate,
        reason: "tool_changed".into(),
        advice: crate::reason::advice("tool_changed").map(str::to_owned),
        policies: vec!["charter/changed_tool_attended".into()],
        unenforced: false,
        ..evaluation
    }
}

/// In a site that is in shadow: what only its own rules refuse is let through, and says so. What the charter refuses is refused.
fn let_through(snapshot: &Snapshot, case: &Case<'_>, facts: &Facts, refused: Evaluation) -> Evaluation {
    match under_charter(snapshot, case, facts) {
        Some(charter) if charter.verdict == Verdict::Allow => Evaluation {
            verdict: Verdict::Allow,
            reason: "not_enforced".into(),
            advice: None,
            policies: Vec::new(),
            errors: refused.errors.clone(),
            would_be: Some(Box::new(refused.into())),
            unenforced: true,
        },
        _ => refused,
    }
}

/// A verdict on a proposal, recorded nowhere: what `warden decide` shows.
pub fn preview(snapshot: &Snapshot, proposal: &Proposal, scanner: &Scanner) -> Evaluation {
    judge(snapshot, proposal, scanner, &Tails::default(), (false, Ok(None))).0
}

impl NoCase {
    /// The reason code of the denial it leads to.
    pub fn reason(self) -> &'static str {
        match self {
            NoCase::Worker => "unknown_worker",
            NoCase::Server => "unknown_server",
            NoCase::Engine => "unknown_engine",
            NoCase::Action => "unknown_method",
            NoCase::Type => "unknown_type",
        }
    }
}

fn write_up(
    id: DecisionId,
    snapshot: &Snapshot,
    proposal: &Proposal,
    evaluation: Evaluation,
    seen: Seen,
    scanner: &Scanner,
) -> Decision {
    let case = snapshot.case(&proposal.worker, &proposal.server, &proposal.ask).ok();
    let named =
        |ty: &str, id: &str| Arc::new(serde_json::json!({ "type": short(ty, scanner), "id": short(id, scanner) }));
    let action = |case: &Case<'_>| {
        let id: &str = case.target.action.id().as_ref();
        id.to_owned()
    };
    let correlated = |name: &Option<String>| name.as_ref().map(|name| short(name, scanner));
    let tool = match &proposal.ask {
        Ask::Tool { name } => Some(short(name, scanner)),
        _ => None,
    };
    Decision {
        id,
        door: proposal.door,
        enforced: if evaluation.unenforced { Enforced::Shadow } else { enforced_by(proposal.door) },
        worker: short(&proposal.worker, scanner),
        connection: proposal.connection.clone(),
        session: correlated(&proposal.correlation.session),
        task: correlated(&proposal.correlation.task),
        run: correlated(&proposal.correlation.run),
        level: case.as_ref().map_or_else(Level::default, |case| case.target.level),
        input_sealed: None,
        server: short(&proposal.server, scanner),
        method: short(&proposal.method, scanner),
        tool,
        engine: match &proposal.ask {
            Ask::Engine(ask) => Some(ask.engine.clone()),
            _ => None,
        },
        reserved: None,
        caller: proposal.caller.as_ref().map(|caller| short(caller, scanner)),
        action: case.as_ref().map_or_else(
            || match &proposal.ask {
                Ask::Engine(ask) => ask.verb.action().to_owned(),
                _ => short(&proposal.method, scanner),
            },
            action,
        ),
        resource: case.as_ref().map_or_else(
            || match &proposal.ask {
                Ask::Site(ask) => named(&ask.resource.ty, &ask.resource.id),
                Ask::Engine(ask) => named("Engine", &ask.engine),
                _ => named("Server", &proposal.server),
            },
            |c| shown(&c.resource_record, scanner),
        ),
        principal: case.map_or_else(
            || match &proposal.ask {
                Ask::Site(ask) => named(&ask.principal.ty, &ask.principal.id),
                _ => named("Worker", &proposal.worker),
            },
            |c| shown(&c.principal_record, scanner),
        ),
        context: Context {
            acknowledged: false,
            mode: Mode::default(),
            secret_suspicions: i64::try_from(seen.scan.suspicions.len()).unwrap_or(i64::MAX),
            secret_findings: seen.scan.findings,
            suspicions: seen.scan.suspicions,
            unseen: seen.unseen.iter().map(|pointer| short(&scanner.hide_pointer(pointer), scanner)).collect(),
            dot_segments: seen.dot_segments,
            budget: seen.budget,
            task: match &proposal.ask {
                Ask::Engine(ask) => Some(ask.facts.clone()),
                _ => None,
            },
            input: presentable(&seen.input, scanner),
        },
        verdict: evaluation.verdict,
        reason: evaluation.reason,
        advice: evaluation.advice,
        policies: evaluation.policies,
        errors: evaluation.errors.iter().map(|error| short(error, scanner)).collect(),
        would_be: evaluation.would_be,
        digests: snapshot.digests.clone(),
        payload_tag: scanner.key().tag(proposal.payload.as_bytes()),
        sealed: None,
        repeated: 0,
    }
}

/// An entity as it may be written down.
fn shown(record: &crate::policy::snapshot::Record<'_>, scanner: &Scanner) -> Arc<Value> {
    use crate::policy::snapshot::Record;
    match record {
        Record::Known(value) => Arc::clone(value),
        Record::Named(value) => Arc::new(presentable(value, scanner)),
    }
}

fn enforced_by(door: Door) -> Enforced {
    match door {
        Door::Mcp | Door::Decide | Door::OperatorPlane | Door::Llm | Door::State => Enforced::Gateway,
        Door::Authzen => Enforced::Caller,
    }
}

/// Held proposals that nobody acknowledged in time. Their keys must be destroyed first.
pub async fn expire<P: Ports>(gate: &Gate<P>, held: Vec<DecisionId>) -> Result<(), JournalError> {
    for decision in held {
        let outcome =
            Outcome { happened: Happened::Expired, ..Outcome::of(decision, &Reply::NotSent, Scan::default(), 0) };
        gate.ports.append(Record::new(gate.ports.now(), Body::Outcome(outcome)), Room::Reserved).await?;
    }
    Ok(())
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
        gate.ports.append(Record::new(now, Body::Outcome(outcome)), Room::Reserved).await?;
        if used.is_some() {
            gate.counted(|counted| counted.ended(&decision, used));
        }
    }
    Ok(())
}
