//! From a proposal to its verdict, and to what is written down of both.

use super::{Gate, Ports};
use crate::budget::{BudgetFacts, Exceeded};
use crate::decision::{Context, Decision, Enforced, presentable, short};
use crate::facts::{self, Facts};
use crate::policy::level::{Inbound, Level};
use crate::policy::snapshot::{Case, NoCase, Snapshot};
use crate::proposal::{Ask, DecisionId, Door, Proposal, ScopeFacts, TaskFacts, Verb};
use crate::secrets::tail::Tails;
use crate::secrets::{Scan, Scanner};
use crate::session::SessionFacts;
use crate::verdict::{Evaluation, Verdict, evaluate, under_charter};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was seen of a proposal, for the record.
pub(super) struct Seen {
    pub(super) scan: Scan,
    pub(super) inbound: Inbound,
    pub(super) unseen: Vec<String>,
    pub(super) dot_segments: bool,
    pub(super) budget: Option<BudgetFacts>,
    pub(super) task: Option<TaskFacts>,
    pub(super) session: Option<SessionFacts>,
    pub(super) input: Value,
    pub(super) acknowledged: bool,
}

/// What stands beside a proposal while it is judged.
pub(super) struct Given<'e> {
    /// Whether the site is in shadow.
    pub(super) shadow: bool,
    /// Whether a person has acknowledged it.
    pub(super) acknowledged: bool,
    /// What its budgets have left, or which of them has not enough.
    pub(super) budget: Result<Option<BudgetFacts>, &'e Exceeded>,
    /// The session that it belongs to, or why it cannot belong to one: a reason code.
    pub(super) session: Result<Option<SessionFacts>, &'static str>,
    /// The task that encloses it.
    pub(super) task: Option<TaskFacts>,
}

impl Given<'_> {
    /// Nothing but the proposal itself.
    fn nothing(shadow: bool) -> Self {
        Self { shadow, acknowledged: false, budget: Ok(None), session: Ok(None), task: None }
    }
}

pub(super) fn judge(
    snapshot: &Snapshot,
    proposal: &Proposal,
    scanner: &Scanner,
    tails: &Tails,
    Given { shadow, acknowledged, budget, session, task }: Given<'_>,
) -> (Evaluation, Seen) {
    let scan = facts::scan(proposal, scanner).and(tails.scan(proposal, scanner));
    let blind = |evaluation, scan| {
        let inbound = Inbound::default();
        let seen = Seen {
            scan,
            inbound,
            unseen: Vec::new(),
            dot_segments: false,
            budget: None,
            task: None,
            session: None,
            input: Value::Null,
            acknowledged,
        };
        (evaluation, seen)
    };
    if let Some(reason) = proposal.barred.or(session.as_ref().err().copied()) {
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
            facts.session = session.unwrap_or_default();
            facts.task = task.or(facts.task);
            facts.acknowledged = acknowledged;
            let evaluation = match budget.map_or_else(
                |exceeded| Evaluation::deny(exceeded.reason(), Some(exceeded.to_string())),
                |_| evaluate(snapshot, &case, &facts),
            ) {
                refused if budget.is_err() => refused,
                // Who may acknowledge is the operators' own affair, and no worker is kept from working by it.
                refused
                    if shadow && refused.verdict != Verdict::Allow && !matches!(proposal.ask, Ask::Acknowledge(_)) =>
                {
                    let_through(snapshot, &case, &facts, refused)
                }
                evaluation => evaluation,
            };
            let seen = Seen {
                scan: Scan { findings: facts.findings, suspicions: facts.suspicions, unscannable: false },
                inbound: case.target.inbound,
                unseen: facts.input.unseen,
                dot_segments: facts.dot_segments,
                budget: facts.budget,
                task: facts.task,
                session: facts.session,
                input: facts.input.record,
                acknowledged,
            };
            (evaluation, seen)
        }
    }
}

/// What the charter's rule on changed tools will say as soon as the snapshot knows.
pub(super) fn held(evaluation: Evaluation) -> Evaluation {
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
    judge(snapshot, proposal, scanner, &Tails::default(), Given::nothing(false)).0
}

impl<P: Ports> Gate<P> {
    /// The verdict that a proposal would get now, recorded nowhere: also where the site is in shadow.
    pub fn foresee(&self, proposal: &Proposal) -> Evaluation {
        let (snapshot, now) = (self.snapshot(), self.ports.now());
        let session = self.stands_in(&snapshot, proposal, now);
        let task = self.in_task(&snapshot, proposal, now);
        let given = Given { session, task, ..Given::nothing(self.is_in_shadow()) };
        judge(&snapshot, proposal, self.ports.scanner(), &Tails::default(), given).0
    }
}

impl NoCase {
    /// The reason code of the denial it leads to.
    pub fn reason(self) -> &'static str {
        match self {
            NoCase::Worker => "unknown_worker",
            NoCase::Server => "unknown_server",
            NoCase::Engine => "unknown_engine",
            NoCase::Inbox => "unknown_inbox",
            NoCase::App => "unknown_app",
            NoCase::Node => "unknown_node",
            NoCase::Action => "unknown_method",
            NoCase::Type => "unknown_type",
        }
    }
}

pub(super) fn write_up(
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
        delegate: correlated(&proposal.correlation.delegate),
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
        history: BTreeMap::new(),
        caller: proposal.caller.as_ref().map(|caller| short(caller, scanner)),
        action: case.as_ref().map_or_else(
            || match &proposal.ask {
                Ask::Engine(ask) => ask.verb.action().to_owned(),
                Ask::Inbox { verb, .. } => verb.action().to_owned(),
                Ask::Acknowledge(_) => Verb::Acknowledge.action().to_owned(),
                Ask::Session { .. } => Verb::StartSession.action().to_owned(),
                Ask::Delegate { .. } => Verb::StartDelegate.action().to_owned(),
                _ => short(&proposal.method, scanner),
            },
            action,
        ),
        resource: case.as_ref().map_or_else(
            || match &proposal.ask {
                Ask::Site(ask) => named(&ask.resource.ty, &ask.resource.id),
                Ask::Engine(ask) => named("Engine", &ask.engine),
                Ask::Inbox { inbox, .. } => named("Inbox", inbox),
                Ask::Session { app, .. } => named("App", app),
                Ask::Delegate { node } => named("Worker", node),
                Ask::Acknowledge(ask) => named(&ask.resource.ty, &ask.resource.id),
                _ => named("Server", &proposal.server),
            },
            |c| shown(&c.resource_record, scanner),
        ),
        principal: case.map_or_else(
            || match &proposal.ask {
                Ask::Site(ask) => named(&ask.principal.ty, &ask.principal.id),
                Ask::Acknowledge(ask) => named("Operator", &ask.operator),
                _ => named("Worker", &proposal.worker),
            },
            |c| shown(&c.principal_record, scanner),
        ),
        context: Context {
            acknowledged: seen.acknowledged,
            mode: proposal.mode,
            secret_suspicions: i64::try_from(seen.scan.suspicions.len()).unwrap_or(i64::MAX),
            secret_findings: seen.scan.findings,
            suspicions: seen.scan.suspicions,
            unseen: seen.unseen.iter().map(|pointer| short(&scanner.hide_pointer(pointer), scanner)).collect(),
            dot_segments: seen.dot_segments,
            budget: seen.budget,
            task: seen.task.map(|task| shown_task(task, scanner)),
            session: seen.session.map(|session| shown_session(session, scanner)),
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
        held: None,
        again: None,
        acknowledged: None,
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

/// A task as it may be written down: the names of arguments may be anything.
fn shown_task(task: TaskFacts, scanner: &Scanner) -> TaskFacts {
    let names = |names: Vec<String>| names.iter().map(|name| short(name, scanner)).collect();
    let ScopeFacts { in_scope, input_from_prompt, input_from_directory, unvouched } = task.scope;
    let scope = ScopeFacts {
        in_scope,
        input_from_prompt: names(input_from_prompt),
        input_from_directory: names(input_from_directory),
        unvouched: names(unvouched),
    };
    TaskFacts { scope, ..task }
}

/// A session as it may be written down.
fn shown_session(session: SessionFacts, scanner: &Scanner) -> SessionFacts {
    let overrides = match presentable(&Value::Object(session.overrides), scanner) {
        Value::Object(overrides) => overrides,
        _ => serde_json::Map::new(),
    };
    SessionFacts { overrides, ..session }
}

pub(super) fn enforced_by(door: Door) -> Enforced {
    match door {
        Door::Mcp | Door::Decide | Door::OperatorPlane | Door::Llm | Door::State | Door::Inbox | Door::WorkerPlane => {
            Enforced::Gateway
        }
        Door::Authzen => Enforced::Caller,
    }
}
