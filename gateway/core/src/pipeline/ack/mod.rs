//! What is held, and what a person's yes makes of it.
//!
//! An escalation leaves the pipeline here, and comes back here: with the same proposal made again, or with an operator's word. What
//! runs is always the proposal that was stored, decided again under the policies of now, once. `operator` is what operators do about it. Whoever changes how a held proposal
//! stands has claimed it first, so that nobody else does at the same time; it is recorded first and changed then.

mod operator;

pub use operator::{Grant, Granted, NotGranted, acknowledging, grant, refuse, revoke};

use super::{
    Answer, Decided, Gate, How, Payload, Permit, Ports, Refusal, Upstream, Weighed, conclude, enforced_by, send, weigh,
};
use crate::ack::scope::Scope;
use crate::ack::{AckChange, AckEvent, Acknowledged, Acks, Ended, Ending, HELD_MAX, Held, Kept, Parked, Runs, Stage};
use crate::catalogue::hash_of;
use crate::decision::{Enforced, Sealed};
use crate::facts;
use crate::invariant::{self, Invariant};
use crate::journal::record::{Body, Record};
use crate::json::{self, Json, Limits};
use crate::mcp;
use crate::outcome::{Happened, Outcome, Reply};
use crate::policy::snapshot::Snapshot;
use crate::port::{JournalError, Room, SealFailed};
use crate::proposal::{Ask, DecisionId, Door, Proposal};
use crate::rpc::Message;
use crate::secrets::Scan;
use crate::verdict::{Evaluation, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What was accepted once is read again in any case.
const STORED: Limits = Limits { bytes_max: usize::MAX, depth_max: 256 };

/// Acknowledgements of the running gateway: ahead of the journal's by what is on its way there.
#[derive(Debug, Default)]
pub struct Live {
    /// How everything stands.
    pub acks: Acks,
    /// What somebody is changing right now.
    busy: HashSet<DecisionId>,
}

impl Live {
    /// As the journal says.
    pub fn of(acks: Acks) -> Self {
        Self { acks, busy: HashSet::new() }
    }
}

/// The right to change how one held proposal stands; given back when dropped.
struct Claim<'g> {
    live: &'g Mutex<Live>,
    id: DecisionId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).busy.remove(&self.id);
    }
}

impl<P: Ports> Gate<P> {
    fn tag(&self, proposal: &Proposal) -> String {
        self.ports.scanner().key().whole(proposal.sameness().as_bytes())
    }
}

impl<P> Gate<P> {
    /// A look at, or a change of, how held proposals stand. Nothing may await meanwhile.
    pub fn acks<T>(&self, look: impl FnOnce(&mut Live) -> T) -> T {
        look(&mut self.acks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn claim(&self, id: &DecisionId) -> Option<Claim<'_>> {
        self.acks(|live| live.busy.insert(id.clone())).then(|| Claim { live: &self.acks, id: id.clone() })
    }
}

/// Encrypts a proposal that is to be held. What can be read from its message again is left out.
pub(super) fn seal<P: Ports>(gate: &Gate<P>, id: &DecisionId, proposal: &Proposal) -> Result<Sealed, SealFailed> {
    let text = match proposal.door {
        Door::Mcp => serde_json::to_vec(&Proposal { arguments: Json::Null, envelope: Json::Null, ..proposal.clone() }),
        _ => serde_json::to_vec(proposal),
    };
    let text = text.map_err(|e| SealFailed(format!("cannot be written: {e}")))?;
    gate.ports.seal(id, &text)
}

fn read(text: &[u8]) -> Result<Proposal, SealFailed> {
    let bad = |e: String| SealFailed(format!("what is held cannot be read: {e}"));
    let stored: Proposal = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
    if stored.door != Door::Mcp {
        return Ok(stored);
    }
    let from = match stored.ask {
        Ask::Verb(verb) if verb.is_server_request() => mcp::From::Server,
        _ => mcp::From::Worker,
    };
    let message = match stored.payload.as_str() {
        // A connection that no message of its own opens.
        "" => return Ok(Proposal { arguments: Json::Object(Vec::new()), ..stored }),
        text => Message::parse(text.as_bytes(), STORED).map_err(|e| bad(e.to_string()))?,
    };
    let again = mcp::propose(from, message, &stored.worker, &stored.connection, &stored.server)
        .map_err(|e| bad(e.to_string()))?;
    if again.ask != stored.ask || again.method != stored.method {
        return Err(bad("it is not what it was".into()));
    }
    Ok(Proposal { arguments: again.arguments, envelope: again.envelope, ..stored })
}

/// What is held under `id`, as it was proposed.
pub async fn open<P: Ports>(gate: &Gate<P>, id: &DecisionId) -> Result<Proposal, SealFailed> {
    let gone = || SealFailed("nothing is held under this id".into());
    let seq = gate.acks(|live| live.acks.parked.get(id).map(|parked| parked.seq)).ok_or_else(gone)?;
    let decision = gate.ports.decision_at(seq).await.filter(|decision| decision.id == *id);
    let sealed = decision.and_then(|decision| decision.sealed);
    let sealed = sealed.ok_or_else(|| SealFailed("its record cannot be read, or nothing is sealed in it".into()))?;
    read(&gate.ports.unseal(id, &sealed)?)
}

/// By what a held tool is known: its definition, and the one that its server lists instead.
fn pin(snapshot: &Snapshot, proposal: &Proposal) -> Option<String> {
    let Ask::Tool { name } = &proposal.ask else { return None };
    let tool = snapshot.catalogue().tool(&proposal.server, name)?;
    Some(match (&tool.changed, &tool.dismissed) {
        (Some(changed), _) => format!("{} {}", tool.hash, hash_of(changed)),
        (None, Some(dismissed)) => format!("{} {dismissed}", tool.hash),
        (None, None) => tool.hash.clone(),
    })
}

/// An escalation: acknowledged in advance, or before, or held from here on.
pub(super) async fn escalated<P: Ports>(
    gate: &Gate<P>,
    proposal: Proposal,
    weighed: Weighed<'_, P>,
    now: Timestamp,
) -> Decided {
    // Who may acknowledge is no question for another acknowledgement.
    if matches!(proposal.ask, Ask::Acknowledge(_)) {
        let evaluation = Evaluation { verdict: Verdict::Deny, ..weighed.evaluation };
        return Decided::of(conclude(gate, proposal, Weighed { evaluation, ..weighed }, How::Plain, now).await);
    }
    let tag = gate.tag(&proposal);
    let Known { same, kept, refused, full } = gate.acks(|live| live.known(&proposal.worker, &tag, now));
    if let Some(id) = kept {
        drop(weighed);
        return deliver(gate, &id, now).await;
    }
    let claimed = match &same {
        None => None,
        Some((id, Some(Stage::Granted { runs: Runs::OnRepeat, .. }))) => {
            drop(weighed);
            return match gate.claim(id) {
                Some(claim) => Decided::of(run(gate, &claim, Some(proposal), now).await),
                // Its twin came first, or an operator is at it: it may be asked again.
                None => Decided::Refused(still_held(id)),
            };
        }
        // What is acknowledged in advance covers what waits; nobody else may be at it.
        Some((id, Some(Stage::Waiting))) => gate.claim(id),
        Some((id, _)) => return Decided::of(conclude(gate, proposal, weighed, How::Again(id.clone()), now).await),
    };
    if refused {
        let weighed = denied("acknowledgement_refused", weighed);
        return Decided::of(conclude(gate, proposal, weighed, How::Plain, now).await);
    }
    let weighed = match (&same, &claimed) {
        (Some(_), None) => Err(Box::new(weighed)),
        _ => in_scope(gate, &proposal, weighed, now),
    };
    let weighed = match weighed {
        Ok((weighed, used)) => {
            let held = claimed.as_ref().map(|claim| claim.id.clone());
            let how = How::By(Acknowledged {
                operator: used.operator.clone(),
                held: held.clone(),
                scope: Some(used.id.clone()),
            });
            let concluded = conclude(gate, proposal, weighed, how, now).await;
            if concluded.is_ok() {
                used.keep();
                // It runs from memory, and cannot run again.
                let _ = held.map(|held| gate.ports.destroy(&held));
            }
            return Decided::of(concluded);
        }
        Err(weighed) => *weighed,
    };
    match same {
        Some((id, _)) => Decided::of(conclude(gate, proposal, weighed, How::Again(id), now).await),
        None if full => {
            let weighed = denied("too_many_held", weighed);
            Decided::of(conclude(gate, proposal, weighed, How::Plain, now).await)
        }
        None => {
            let held = Held { expires: later(now, gate.held_for), tag, pin: pin(&weighed.snapshot, &proposal) };
            Decided::of(conclude(gate, proposal, weighed, How::Park(held), now).await)
        }
    }
}

/// The result of what was held, when a proposal that may run now asks for it: it is not run a second time.
pub(super) fn waits_for<P: Ports>(gate: &Gate<P>, proposal: &Proposal, now: Timestamp) -> Option<DecisionId> {
    let any = gate.acks(|live| live.acks.kept.values().any(|kept| kept.worker == proposal.worker));
    any.then(|| gate.tag(proposal)).and_then(|tag| gate.acks(|live| live.known(&proposal.worker, &tag, now)).kept)
}

/// What is known of a proposal that is made again.
struct Known {
    /// It is held; without a stage, it has just run, and what came of it is being kept.
    same: Option<(DecisionId, Option<Stage>)>,
    /// Its result waits.
    kept: Option<DecisionId>,
    /// A person has refused it.
    refused: bool,
    /// Too many of this worker's are held.
    full: bool,
}

impl Live {
    fn known(&self, worker: &str, tag: &str, now: Timestamp) -> Known {
        let acks = &self.acks;
        let ours = |ended: &Ended| ended.worker == worker && ended.tag == tag;
        let same = acks.same(worker, tag).map(|(id, parked)| (id.clone(), Some(parked.stage.clone())));
        let just_ran = || {
            let found = acks.ended.iter().find(|(id, ended)| ours(ended) && self.busy.contains(*id));
            found.map(|(id, _)| (id.clone(), None))
        };
        let kept = acks.kept.iter().find(|(_, kept)| kept.worker == worker && kept.tag == tag);
        Known {
            same: same.or_else(just_ran),
            kept: kept.map(|(id, _)| id.clone()),
            refused: acks.ended.values().any(|e| e.ending == Ending::Refused && ours(e) && e.expires > now),
            full: acks.held_of(worker) >= HELD_MAX,
        }
    }

    /// Whether somebody is just changing how it stands.
    pub fn is_busy(&self, id: &DecisionId) -> bool {
        self.busy.contains(id)
    }
}

/// The same with a denial that no policy had to be asked for.
fn denied<'g, P>(reason: &str, weighed: Weighed<'g, P>) -> Weighed<'g, P> {
    Weighed { evaluation: Evaluation::deny(reason, None), ..weighed }
}

fn later(now: Timestamp, by: jiff::SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// What a worker is told that asks about what is held.
fn still_held(id: &DecisionId) -> Refusal {
    let reason = "acknowledgement_required";
    let advice = crate::reason::advice(reason).map(str::to_owned);
    Refusal { id: id.clone(), verdict: Verdict::Escalate, reason: reason.to_owned(), advice, exceeded: None }
}

/// A use of a scope, given back unless it is kept.
struct Used<'g> {
    live: &'g Mutex<Live>,
    id: String,
    operator: String,
    kept: bool,
}

impl Used<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(scope) = live.acks.scopes.get_mut(&self.id) {
                scope.uses_left = scope.uses_left.map(|left| left + 1);
            }
        }
    }
}

/// The same proposal acknowledged by a scope that holds it; else the verdict that it had.
fn in_scope<'g, P: Ports>(
    gate: &'g Gate<P>,
    proposal: &Proposal,
    weighed: Weighed<'g, P>,
    now: Timestamp,
) -> Result<(Weighed<'g, P>, Used<'g>), Box<Weighed<'g, P>>> {
    let live: Vec<Scope> =
        gate.acks(|live| live.acks.scopes.values().filter(|scope| scope.is_live(proposal, now)).cloned().collect());
    // A tool that its server lists otherwise since a moment is in no scope.
    if live.is_empty() || gate.holds(proposal) {
        return Err(Box::new(weighed));
    }
    let snapshot = Arc::clone(&weighed.snapshot);
    let pinned = pin(&snapshot, proposal);
    let held = |scope: &&Scope| {
        if scope.pin != pinned || scope.charter != snapshot.digests.charter {
            return false;
        }
        let case = snapshot.case(&proposal.worker, &proposal.server, &proposal.ask).ok();
        let facts = case.as_ref().and_then(|case| gather(gate, case, proposal));
        case.zip(facts).is_some_and(|(case, facts)| scope.holds(&snapshot, &case, &facts))
    };
    let Some(scope) = live.iter().find(held) else { return Err(Box::new(weighed)) };
    let taken = gate.acks(|live| {
        let there = live.acks.scopes.get(&scope.id).is_some_and(|scope| scope.is_live(proposal, now));
        if there {
            live.acks.used(&scope.id);
        }
        there
    });
    if !taken {
        return Err(Box::new(weighed));
    }
    let used = Used { live: &gate.acks, id: scope.id.clone(), operator: scope.operator.clone(), kept: false };
    let mut weighed = weighed;
    weighed.set_aside.give_back();
    let again = weigh(gate, proposal, true, now);
    if again.evaluation.verdict == Verdict::Allow { Ok((again, used)) } else { Err(Box::new(weighed)) }
}

fn gather<P: Ports>(
    gate: &Gate<P>,
    case: &crate::policy::snapshot::Case<'_>,
    proposal: &Proposal,
) -> Option<facts::Facts> {
    let scan = facts::scan(proposal, gate.ports.scanner());
    facts::gather(proposal, &case.target.input, &case.target.paths, scan).ok()
}

/// Why what was held is no more what it was.
fn changed_since(snapshot: &Snapshot, parked: &Parked, stored: &Proposal) -> Option<&'static str> {
    if parked.digests.charter != snapshot.digests.charter {
        return Some("charter_changed");
    }
    let held = parked.held.as_ref().and_then(|held| held.pin.clone());
    (held != pin(snapshot, stored)).then_some("tool_changed_since")
}

/// Runs what was granted: decides the stored proposal again, acknowledged. A caller that enforces by itself has it in its hands.
async fn run<P: Ports>(
    gate: &Gate<P>,
    claim: &Claim<'_>,
    present: Option<Proposal>,
    now: Timestamp,
) -> Result<Permit, Refusal> {
    let id = &claim.id;
    let parked = gate.acks(|live| live.acks.parked.get(id).cloned());
    let granted = parked.filter(|parked| parked.held.as_ref().is_some_and(|held| held.expires > now));
    let Some((parked, operator)) = granted.and_then(|parked| match parked.stage.clone() {
        Stage::Granted { operator, .. } => Some((parked, operator)),
        Stage::Waiting | Stage::Running { .. } => None,
    }) else {
        return Err(still_held(id));
    };
    let stored = match present.filter(|_| !parked.sealed) {
        Some(present) => present,
        None => match open(gate, id).await {
            Ok(stored) => stored,
            Err(e) => return Err(void(gate, id, &operator, &e.to_string()).await),
        },
    };
    let weighed = weigh(gate, &stored, true, now);
    if let Some(why) = changed_since(&weighed.snapshot, &parked, &stored) {
        drop(weighed);
        return Err(void(gate, id, &operator, why).await);
    }
    if weighed.evaluation.verdict != Verdict::Allow {
        let reason = weighed.evaluation.reason.clone();
        let denied = match weighed.evaluation.verdict {
            Verdict::Deny => weighed,
            _ => denied("tool_changed_since", weighed),
        };
        let concluded = conclude(gate, stored, denied, How::Plain, now).await;
        // A budget fills up again, and a disk is emptied: the yes stays. What policy says now does not pass.
        let passes = ["budget_exceeded", "budget_frozen", "price_missing"].contains(&reason.as_str());
        if !passes {
            void(gate, id, &operator, &reason).await;
        }
        return concluded;
    }
    invariant::check(operator != stored.worker, Invariant::W5);
    let by = Acknowledged { operator, held: Some(id.clone()), scope: None };
    let runs_now = matches!(parked.stage, Stage::Granted { runs: Runs::Now, .. });
    let is_callers = enforced_by(stored.door) == Enforced::Caller;
    let concluded = conclude(gate, stored, weighed, How::By(by), now).await;
    if let Ok(permit) = &concluded {
        if is_callers {
            gate.acks(|live| live.acks.over(permit.decision(), Happened::Done));
        }
        // From here on it is in memory alone; a result that waits is sealed with the same key. A key that stays is destroyed by the next
        // start, and what it opens cannot run again: the decision says that it did.
        if !runs_now {
            let _ = gate.ports.destroy(id);
        }
    }
    concluded
}

/// What was granted is void: recorded, and its key destroyed.
async fn void<P: Ports>(gate: &Gate<P>, id: &DecisionId, operator: &str, why: &str) -> Refusal {
    let change = AckChange {
        operator: Some(operator.to_owned()),
        reason: Some(why.to_owned()),
        digests: Some(Arc::clone(&gate.snapshot().digests)),
        ..AckChange::of(AckEvent::Void, id)
    };
    // Without the record it stays granted, and what is granted is decided again each time.
    if step(gate, change).await.is_ok() {
        let _ = gate.ports.destroy(id);
    }
    Refusal::of(id.clone(), "acknowledgement_void")
}

/// Records a step, and takes it in.
async fn step<P: Ports>(gate: &Gate<P>, change: AckChange) -> Result<(), JournalError> {
    let now = gate.ports.now();
    gate.ports.append(Record::new(now, Body::Ack(change.clone())), Room::Reserved).await?;
    gate.acks(|live| live.acks.apply(now, &change));
    Ok(())
}

/// Runs what was granted to run at once, and keeps what came of it for its worker. `upstream` opens a session of its own.
pub async fn run_now<P: Ports, U: Upstream>(gate: &Gate<P>, id: &DecisionId, upstream: &U) -> Answer {
    let _active = gate.enter();
    let since = gate.ports.now();
    let Some(claim) = gate.claim(id) else { return Answer::Refused(still_held(id)) };
    let is_now = gate.acks(|live| {
        live.acks.parked.get(id).is_some_and(|parked| matches!(parked.stage, Stage::Granted { runs: Runs::Now, .. }))
    });
    if !is_now {
        return Answer::Refused(still_held(id));
    }
    let answer = match run(gate, &claim, None, since).await {
        Ok(permit) => send(gate, permit, upstream, since).await,
        Err(refusal) => return Answer::Refused(refusal),
    };
    match &answer {
        Answer::Answered { id: run, payload, is_error, .. } => {
            let kept = RanTo { raw: payload.as_str().to_owned(), is_error: *is_error };
            let until = later(gate.ports.now(), gate.held_for);
            let text = serde_json::to_vec(&kept).unwrap_or_default();
            let is_kept = gate.ports.keep(id, &text).is_ok();
            let change = AckChange { run: Some(run.clone()), until: Some(until), ..AckChange::of(AckEvent::Ran, id) };
            if !is_kept || step(gate, change).await.is_err() {
                let _ = gate.ports.destroy(id);
            }
        }
        // Nothing came, or nobody may have it.
        Answer::Refused(_) | Answer::Ended { .. } => drop(gate.ports.destroy(id)),
    }
    answer
}

/// A result as it is kept.
#[derive(Serialize, Deserialize)]
struct RanTo {
    raw: String,
    is_error: bool,
}

/// Gives a kept result to its worker, once.
pub(super) async fn deliver<P: Ports>(gate: &Gate<P>, id: &DecisionId, now: Timestamp) -> Decided {
    let lost = || Decided::Refused(Refusal::of(id.clone(), "acknowledgement_over"));
    let Some(_claim) = gate.claim(id) else { return Decided::Refused(still_held(id)) };
    let kept: Option<Kept> = gate.acks(|live| live.acks.kept.get(id).cloned()).filter(|kept| kept.expires > now);
    let Some(kept) = kept else { return lost() };
    let read = || -> Option<RanTo> { serde_json::from_slice(&gate.ports.kept(id).ok()?).ok() };
    let read = read();
    if step(gate, AckChange::of(AckEvent::Collected, id)).await.is_err() {
        return Decided::Refused(Refusal::of(id.clone(), "journal_failed"));
    }
    let _ = gate.ports.destroy(id);
    let Some(RanTo { raw, is_error }) = read else { return lost() };
    // What a protocol wraps around its answer is read by whoever asked.
    let body = json::parse(raw.as_bytes(), STORED).unwrap_or(Json::Null);
    let body = match &body {
        Json::Object(_) => body.get(if is_error { "error" } else { "result" }).cloned().unwrap_or(body),
        _ => body,
    };
    Decided::Kept(Answer::Answered { id: kept.decision, payload: Payload(raw), body, is_error, stored: true })
}

/// A look at a result that waits for its worker; it goes on waiting.
pub fn peek<P: Ports>(gate: &Gate<P>, id: &DecisionId, worker: &str) -> Option<Json> {
    gate.acks(|live| live.acks.kept.get(id).filter(|kept| kept.worker == worker).map(drop))?;
    let ran: RanTo = serde_json::from_slice(&gate.ports.kept(id).ok()?).ok()?;
    let whole = json::parse(ran.raw.as_bytes(), STORED).ok()?;
    whole.get("result").cloned()
}

/// What a worker gets that asks for a held proposal by its id: what it came to, or that it is still held. What waits for its worker's
/// repeat runs through `upstream`, which must be that worker's own session.
pub async fn collect<P: Ports, U: Upstream>(
    gate: &Gate<P>,
    id: &DecisionId,
    worker: &str,
    upstream: Option<&U>,
) -> Answer {
    let _active = gate.enter();
    let now = gate.ports.now();
    let stands = gate.acks(|live| {
        let acks = &live.acks;
        if let Some(parked) = acks.parked.get(id).filter(|parked| parked.worker == worker) {
            return Some(Stands::Held(parked.stage.clone()));
        }
        if acks.kept.get(id).is_some_and(|kept| kept.worker == worker) {
            return Some(Stands::Kept);
        }
        let ended = acks.ended.get(id).filter(|ended| ended.worker == worker);
        // What has just ended may still be given a result to keep.
        ended.map(|ended| if live.is_busy(id) { Stands::Held(Stage::Waiting) } else { Stands::Ended(ended.ending) })
    });
    let decided = match (stands, upstream) {
        (Some(Stands::Kept), _) => deliver(gate, id, now).await,
        (Some(Stands::Held(Stage::Granted { runs: Runs::OnRepeat, .. })), Some(_)) => match gate.claim(id) {
            Some(claim) => Decided::of(run(gate, &claim, None, now).await),
            None => Decided::Refused(still_held(id)),
        },
        (Some(Stands::Held(_)), _) => Decided::Refused(still_held(id)),
        (Some(Stands::Ended(ending)), _) => Decided::Refused(Refusal::of(id.clone(), over(ending))),
        (None, _) => Decided::Refused(Refusal::of(id.clone(), "acknowledgement_over")),
    };
    match (decided, upstream) {
        (Decided::Permit(permit), Some(upstream)) => send(gate, permit, upstream, now).await,
        (Decided::Permit(permit), None) => Answer::Ended { id: permit.decision, reply: Reply::NotSent },
        (Decided::Refused(refusal), _) => Answer::Refused(refusal),
        (Decided::Kept(answer), _) => answer,
    }
}

enum Stands {
    Held(Stage),
    Kept,
    Ended(Ending),
}

/// The reason code of what is over.
pub fn over(ending: Ending) -> &'static str {
    match ending {
        Ending::Done | Ending::Unknown => "acknowledgement_over",
        Ending::Refused => "acknowledgement_refused",
        Ending::Void => "acknowledgement_void",
        Ending::Expired => "acknowledgement_expired",
    }
}

/// People were told of a held proposal, or could not be.
pub async fn told<P: Ports>(gate: &Gate<P>, id: &DecisionId, what: &str) -> Result<(), JournalError> {
    step(gate, AckChange { reason: Some(what.to_owned()), ..AckChange::of(AckEvent::Told, id) }).await
}

/// Lets go of what has expired.
pub async fn expire<P: Ports>(gate: &Gate<P>) -> Result<(), Unexpired> {
    let now = gate.ports.now();
    let over = gate.acks(|live| {
        live.acks.scopes.retain(|_, scope| scope.until > now);
        live.acks.expired(now, gate.held_for)
    });
    // What was granted meanwhile has a later end.
    match let_go_of(gate, over, |acks, id| acks.expired(now, gate.held_for).contains(id)).await {
        // It is looked at again with the next sweep.
        Err(Unexpired::Busy(_)) => Ok(()),
        other => other,
    }
}

/// Lets go of what is held, and of results that wait: keys first, so that nothing can be read that is said to be gone.
pub async fn let_go<P: Ports>(gate: &Gate<P>, ids: Vec<DecisionId>) -> Result<(), Unexpired> {
    let_go_of(gate, ids, |acks, id| {
        let running = |parked: &Parked| matches!(parked.stage, Stage::Running { .. });
        acks.parked.get(id).is_some_and(|parked| !running(parked)) || acks.kept.contains_key(id)
    })
    .await
}

async fn let_go_of<P: Ports>(
    gate: &Gate<P>,
    ids: Vec<DecisionId>,
    goes: impl Fn(&Acks, &DecisionId) -> bool,
) -> Result<(), Unexpired> {
    let mut busy = Ok(());
    for id in ids {
        let Some(_claim) = gate.claim(&id) else {
            busy = Err(Unexpired::Busy(id));
            continue;
        };
        if !gate.acks(|live| goes(&live.acks, &id)) {
            continue;
        }
        gate.ports.destroy(&id).map_err(|e| Unexpired::Key(id.clone(), e))?;
        let outcome =
            Outcome { happened: Happened::Expired, ..Outcome::of(id.clone(), &Reply::NotSent, Scan::default(), 0) };
        gate.ports.append(Record::new(gate.ports.now(), Body::Outcome(outcome)), Room::Reserved).await?;
        gate.acks(|live| live.acks.over(&id, Happened::Expired));
    }
    busy
}

/// Why something that has expired is still there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unexpired {
    /// Its key.
    #[error("the key of `{0}` could not be destroyed: {1}")]
    Key(DecisionId, SealFailed),
    /// Somebody is at it.
    #[error("`{0}` is just being decided on or run: try again")]
    Busy(DecisionId),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
