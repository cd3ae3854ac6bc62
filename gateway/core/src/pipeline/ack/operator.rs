//! What operators do about what is held: grant it, refuse it, take back what was acknowledged in advance.

use super::{Claim, changed_since, gather, later, open, over, pin, step, void};
use crate::ack::scope::{self, NotScoped, Scope, Wanted};
use crate::ack::{AckChange, AckEvent, Ending, Parked, Runs, Stage};
use crate::decision::Decision;
use crate::json::Json;
use crate::outcome::Reply;
use crate::pipeline::charge::SetAside;
use crate::pipeline::{Answer, Gate, Permit, Ports, Refusal, Upstream, Weighed, handle, weigh};
use crate::policy::snapshot::{Digests, Snapshot};
use crate::port::JournalError;
use crate::proposal::{AcknowledgeAsk, Ask, Correlation, DecisionId, Door, EntityName, Mode, Proposal, Verb};
use crate::verdict::Verdict;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};

/// A reason that a person gives is a sentence, not a report.
const REASON_MAX: usize = 2000;

/// An operator's yes.
#[derive(Debug)]
pub struct Grant<'a> {
    /// To this.
    pub id: &'a DecisionId,
    /// Who.
    pub operator: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The hash of what the operator looked at, when that was said.
    pub hash: Option<&'a str>,
    /// To more than this one.
    pub scope: Option<&'a Wanted>,
}

/// What a yes has led to.
#[derive(Clone, Debug)]
pub struct Granted {
    /// Where it runs.
    pub runs: Runs,
    /// Until when.
    pub until: Timestamp,
    /// What decided when it was held, and what decides now.
    pub digests: [Arc<Digests>; 2],
    /// The scope that was acknowledged with it.
    pub scope: Option<Scope>,
    /// The decision that let the operator acknowledge it.
    pub decision: DecisionId,
}

/// Why a yes, or a no, has led to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotGranted {
    /// There is no such proposal, or nothing is known of it any more.
    #[error("nothing is held, or acknowledged in advance, under this id")]
    Unknown,
    /// Somebody else is at it.
    #[error("somebody else is deciding on it, or it is just being run")]
    Busy,
    /// It is granted already.
    #[error("it was granted before, by `{0}`")]
    Already(String),
    /// It is on its way.
    #[error("it runs already")]
    Running,
    /// It ended.
    #[error("it is over: {}", over(*.0))]
    Over(Ending),
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// What was looked at is something else.
    #[error("the hash is not that of what is held")]
    OtherHash,
    /// No reason, or a very long one.
    #[error("a reason is needed, of at most {REASON_MAX} bytes")]
    NoReason,
    /// It cannot be read any more.
    #[error("what is held cannot be read: {0}")]
    Unreadable(String),
    /// It is not allowed even when acknowledged, or is no more what it was.
    #[error("it cannot be granted any more: {0}")]
    Void(String),
    /// This operator may not.
    #[error("you may not acknowledge this: {} (decision {})", .0.reason, .0.id)]
    MayNot(Box<Refusal>),
    /// There is no such scope.
    #[error(transparent)]
    Scope(#[from] NotScoped),
    /// It could not be recorded.
    #[error("it could not be recorded: {0}")]
    Journal(#[from] JournalError),
}

/// The question whether an operator may acknowledge what is held, of which `held` is the record.
pub fn acknowledging(snapshot: &Snapshot, operator: &str, held: &Decision, reason: &str, scope: bool) -> Proposal {
    let text = |text: &str| Json::String(text.to_owned());
    let of = |name: &str| held.resource.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let resource = EntityName { ty: of("type"), id: of("id") };
    Proposal {
        door: Door::OperatorPlane,
        worker: held.worker.clone(),
        connection: String::new(),
        server: held.server.clone(),
        method: Verb::Acknowledge.action().to_owned(),
        arguments: Json::Object(vec![
            ("worker".into(), text(&held.worker)),
            ("action".into(), text(&held.action)),
            ("own".into(), Json::Bool(snapshot.is_own(operator, &held.worker))),
            ("scope".into(), Json::Bool(scope)),
        ]),
        ask: Ask::Acknowledge(Box::new(AcknowledgeAsk { operator: operator.to_owned(), resource })),
        envelope: text(reason),
        payload: String::new(),
        caller: None,
        correlation: Correlation::default(),
        mode: Mode::default(),
        barred: None,
    }
}

/// Grants a held proposal: asks whether the operator may, decides it again, and records the yes. `runs` says where it will run.
pub async fn grant<P: Ports>(
    gate: &Gate<P>,
    asked: Grant<'_>,
    runs: impl Fn(&Proposal) -> Runs + Send + Sync,
) -> Result<Granted, NotGranted> {
    if asked.reason.trim().is_empty() || asked.reason.len() > REASON_MAX {
        return Err(NotGranted::NoReason);
    }
    let claim = waiting(gate, asked.id)?;
    let parked = held(gate, &claim)?;
    let decision = gate.ports.decision_at(parked.seq).await.filter(|decision| decision.id == *asked.id);
    let decision = decision.ok_or_else(|| NotGranted::Unreadable("its record is gone".into()))?;
    if asked.hash.is_some_and(|hash| decision.payload_tag != hash) {
        return Err(NotGranted::OtherHash);
    }
    // What a caller holds back, it has in its own hands.
    let stored = match parked.sealed {
        true => Some(open(gate, asked.id).await.map_err(|e| NotGranted::Unreadable(e.0))?),
        false => None,
    };
    let snapshot = gate.snapshot();
    let question = acknowledging(&snapshot, asked.operator, &decision, asked.reason, asked.scope.is_some());
    let granting = Granting { gate, asked, parked, stored, runs, done: Mutex::new(None) };
    let answer = handle(gate, question, &granting).await;
    let done = granting.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(claim);
    match (answer, done) {
        (Answer::Refused(refusal), None) => Err(NotGranted::MayNot(Box::new(refusal))),
        (Answer::Answered { id, .. } | Answer::Ended { id, .. }, Some(done)) => {
            done.map(|granted| Granted { decision: id, ..granted })
        }
        _ => Err(NotGranted::Busy),
    }
}

/// Grants what an operator may grant.
struct Granting<'a, P, R> {
    gate: &'a Gate<P>,
    asked: Grant<'a>,
    parked: Parked,
    /// Nothing where its caller has it.
    stored: Option<Proposal>,
    runs: R,
    done: Mutex<Option<Result<Granted, NotGranted>>>,
}

impl<P: Ports, R: Fn(&Proposal) -> Runs + Send + Sync> Upstream for Granting<'_, P, R> {
    async fn forward(&self, _permit: Permit) -> Reply {
        let done = self.grant().await;
        let is_error = done.is_err();
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        Reply::Answered { raw: String::new(), body: Json::Null, is_error }
    }
}

impl<P: Ports, R: Fn(&Proposal) -> Runs + Send + Sync> Granting<'_, P, R> {
    async fn grant(&self) -> Result<Granted, NotGranted> {
        let Self { gate, asked, parked, stored, .. } = self;
        let now = gate.ports.now();
        if parked.held.as_ref().is_none_or(|held| held.expires <= now) {
            return Err(NotGranted::Expired);
        }
        let snapshot = gate.snapshot();
        let mut scope = None;
        if let Some(stored) = stored {
            let why = changed_since(&snapshot, parked, stored).map(str::to_owned).or_else(|| {
                let Weighed { evaluation, set_aside, .. } = weigh(gate, stored, true, now);
                // Nothing runs yet, so nothing is set aside.
                drop::<SetAside<'_, P>>(set_aside);
                // A budget that is used up now may not be by then.
                let passes = ["budget_exceeded", "budget_frozen"].contains(&evaluation.reason.as_str());
                (evaluation.verdict != Verdict::Allow && !passes).then_some(evaluation.reason)
            });
            if let Some(why) = why {
                void(gate, asked.id, asked.operator, &why).await;
                return Err(NotGranted::Void(why));
            }
            scope = asked.scope.map(|wanted| self.scope(&snapshot, stored, wanted, now)).transpose()?;
        } else if asked.scope.is_some() {
            return Err(NotScoped::NotATool.into());
        }
        let runs = stored.as_ref().map_or(Runs::OnRepeat, &self.runs);
        let until = later(now, gate.held_for);
        let by = |event| AckChange {
            operator: Some(asked.operator.to_owned()),
            reason: Some(asked.reason.trim().to_owned()),
            ..AckChange::of(event, asked.id)
        };
        let digests = Some(Arc::clone(&snapshot.digests));
        let granted =
            AckChange { runs: Some(runs), until: Some(until), digests, scope: scope.clone(), ..by(AckEvent::Granted) };
        step(gate, granted).await?;
        Ok(Granted {
            runs,
            until,
            digests: [Arc::clone(&parked.digests), Arc::clone(&snapshot.digests)],
            scope,
            // Filled in by whoever knows it.
            decision: asked.id.clone(),
        })
    }

    fn scope(
        &self,
        snapshot: &Snapshot,
        stored: &Proposal,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<Scope, NotScoped> {
        if scope::says_more(stored) {
            return Err(NotScoped::OneByOne);
        }
        let case = snapshot.case(&stored.worker, &stored.server, &stored.ask).map_err(|_| NotScoped::NotATool)?;
        let facts = gather(self.gate, &case, stored).ok_or(NotScoped::Unseen)?;
        let policy = scope::permit(snapshot, &case, &facts, wanted)?;
        let seconds = i64::try_from(wanted.for_s).unwrap_or(i64::MAX);
        let session = stored.correlation.session.clone().filter(|_| wanted.session);
        Ok(Scope {
            id: self.gate.ports.decision(now).to_string(),
            worker: stored.worker.clone(),
            action: case.target.action.id().unescaped().to_owned(),
            policy,
            until: later(now, jiff::SignedDuration::from_secs(seconds)),
            uses_left: wanted.times,
            connection: (wanted.session && session.is_none()).then(|| stored.connection.clone()),
            session,
            pin: pin(snapshot, stored),
            charter: snapshot.digests.charter.clone(),
            of: self.asked.id.clone(),
            operator: self.asked.operator.to_owned(),
        })
    }
}

/// What is held under a claim.
fn held<P: Ports>(gate: &Gate<P>, claim: &Claim<'_>) -> Result<Parked, NotGranted> {
    gate.acks(|live| live.acks.parked.get(&claim.id).cloned()).ok_or(NotGranted::Unknown)
}

/// Claims what nobody has decided on.
fn waiting<'g, P: Ports>(gate: &'g Gate<P>, id: &DecisionId) -> Result<Claim<'g>, NotGranted> {
    let claim = gate.claim(id).ok_or(NotGranted::Busy)?;
    let stands = gate.acks(|live| match live.acks.parked.get(id) {
        Some(parked) => Ok(parked.stage.clone()),
        None if live.acks.kept.contains_key(id) => Err(NotGranted::Over(Ending::Done)),
        None => Err(live.acks.ended.get(id).map_or(NotGranted::Unknown, |ended| NotGranted::Over(ended.ending))),
    })?;
    match stands {
        Stage::Waiting => Ok(claim),
        Stage::Granted { operator, .. } => Err(NotGranted::Already(operator)),
        Stage::Running { .. } => Err(NotGranted::Running),
    }
}

/// An operator's no. What was granted and did not run yet is taken back by it.
pub async fn refuse<P: Ports>(gate: &Gate<P>, id: &DecisionId, operator: &str, reason: &str) -> Result<(), NotGranted> {
    if reason.trim().is_empty() || reason.len() > REASON_MAX {
        return Err(NotGranted::NoReason);
    }
    let _claim = match waiting(gate, id) {
        Err(NotGranted::Already(_)) => gate.claim(id).ok_or(NotGranted::Busy)?,
        other => other?,
    };
    let still =
        gate.acks(|live| live.acks.parked.get(id).is_some_and(|parked| !matches!(parked.stage, Stage::Running { .. })));
    if !still {
        return Err(NotGranted::Running);
    }
    let change = AckChange {
        operator: Some(operator.to_owned()),
        reason: Some(reason.trim().to_owned()),
        ..AckChange::of(AckEvent::Refused, id)
    };
    step(gate, change).await?;
    let _ = gate.ports.destroy(id);
    Ok(())
}

/// Takes a scope back.
pub async fn revoke<P: Ports>(gate: &Gate<P>, id: &str, operator: &str, reason: &str) -> Result<Scope, NotGranted> {
    if reason.trim().is_empty() || reason.len() > REASON_MAX {
        return Err(NotGranted::NoReason);
    }
    let scope = gate.acks(|live| live.acks.scopes.get(id).cloned()).ok_or(NotGranted::Unknown)?;
    let change = AckChange {
        operator: Some(operator.to_owned()),
        reason: Some(reason.trim().to_owned()),
        scope: Some(scope.clone()),
        ..AckChange::new(AckEvent::Revoked)
    };
    step(gate, change).await?;
    Ok(scope)
}
