//! One run: every unread message is scanned, planned, held against the guardrails, decided and, where that is allowed, acted upon. One bad
//! message never stops it.

use super::act::{self, Executor, Proposes};
use super::brain::{Brain, Kind, LlmConnectBrain, RuleBrain};
use super::{Setup, schedule};
use crate::files::write_private;
use crate::http::llm::Llm;
use crate::hub::{HubError, PAGE};
use crate::world::{World, decision_id, now};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use warden_core::ack::Ending;
use warden_core::inbox::message::{BYTES_MAX, Message};
use warden_core::inbox::plan::{Action, Plan, validate};
use warden_core::inbox::routing::Routing;
use warden_core::inbox::{
    Acted, Basis, Came, Handled, Inbox, InboxChange, InboxEvent, Schedule, Seen, Summary, prompt, rules,
};
use warden_core::journal::record::{Body, OperatorAct, Record};
use warden_core::json::Json;
use warden_core::outcome::Reply;
use warden_core::pipeline::{self, Answer, Gate};
use warden_core::port::{Journal as _, JournalError, Room};
use warden_core::proposal::{Mode, Proposal};
use warden_core::verdict::Verdict;

/// How long a lease of the inbox holds, in seconds; it is renewed with every message.
const LEASE_S: u64 = 900;
/// Longer texts of a sender are cut where they are shown and remembered.
const SHOWN_MAX: usize = 500;
/// Pages of messages that one run looks at.
const PAGES_MAX: usize = 1000;

/// A run that somebody asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How.
    pub mode: Mode,
    /// With which brain; the configured one when absent.
    pub brain: Option<Kind>,
    /// Who; nobody when it is the schedule.
    pub operator: Option<String>,
    /// The digest of a changed brief that the operator accepts.
    pub accept_brief: Option<String>,
}

/// Why a run did not begin.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotRun {
    /// One is on.
    #[error("a run of this inbox is on already")]
    AlreadyRunning,
    /// What it would stand on is not what it was, or it may not.
    #[error("{0}")]
    Refused(String),
    /// A file cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// It could not be recorded.
    #[error("the run could not be recorded: {0}")]
    Journal(#[from] JournalError),
}

/// What a run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Its id.
    pub run: String,
    /// The inbox.
    pub inbox: String,
    /// The worker.
    pub worker: String,
    /// How it ran.
    pub mode: Mode,
    /// With which brain.
    pub brain: Kind,
    /// What it stood on.
    pub basis: Basis,
    /// Message by message.
    pub messages: Vec<Told>,
    /// In numbers.
    pub summary: Summary,
}

/// A message in a report. Whatever a sender has written is for a screen that shows no control characters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// What became of it.
    #[serde(flatten)]
    pub handled: Handled,
    /// Whom it is from, secrets masked.
    pub from: String,
    /// Its subject, secrets masked.
    pub subject: String,
    /// Why, in the brain's words, secrets masked.
    pub why: String,
}

/// See the module.
pub struct Runner {
    gate: Arc<Gate<World>>,
    llm: Arc<Llm>,
    executor: Arc<Executor>,
    setup: Setup,
    kept: PathBuf,
    /// The digest of the brief that operators have accepted: that of the start, until they accept another.
    brief: Mutex<String>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

/// What one run works with.
struct Run<'a> {
    fence: Option<u64>,
    runner: &'a Runner,
    id: String,
    mode: Mode,
    basis: Basis,
    brain: Arc<dyn Brain>,
    routing: Routing,
    known: Inbox,
}

/// A message's plan, and what became of it.
struct Outcome {
    came: Came,
    reason: String,
    why: String,
    actions: Vec<Acted>,
    /// Whether the brain was asked, and had no draft.
    unplanned: bool,
}

impl Outcome {
    fn of(came: Came, reason: &str) -> Self {
        Self { came, reason: reason.to_owned(), why: String::new(), actions: Vec::new(), unplanned: false }
    }
}

impl Runner {
    /// For an inbox. The brief of now is the accepted one.
    pub fn new(
        gate: Arc<Gate<World>>,
        llm: Arc<Llm>,
        executor: Arc<Executor>,
        setup: Setup,
        data_dir: &Path,
    ) -> Result<Self, NotRun> {
        let brief = prompt::digest(&read_brief(&setup)?);
        let runner = Self {
            gate,
            llm,
            executor,
            setup,
            kept: data_dir.join("inbox"),
            brief: Mutex::new(brief),
            one_at_a_time: tokio::sync::Mutex::default(),
        };
        runner.routing()?;
        Ok(runner)
    }

    /// How the inbox is configured.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    fn routing(&self) -> Result<Routing, NotRun> {
        let Some(path) = &self.setup.routing else { return Ok(Routing::default()) };
        let bad = |e: String| NotRun::Unreadable(format!("`{}`: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let routing: Routing = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        routing.check().map_err(|e| bad(e.to_string()))?;
        Ok(routing)
    }

    fn brain(&self, kind: Kind) -> Result<(Arc<dyn Brain>, Routing, String), NotRun> {
        let (routing, brief) = (self.routing()?, read_brief(&self.setup)?);
        let digest = prompt::digest(&brief);
        let brain: Arc<dyn Brain> = match kind {
            Kind::Rule => Arc::new(RuleBrain { routing: routing.clone() }),
            Kind::Llm => Arc::new(LlmConnectBrain {
                llm: self.llm.clone(),
                scanner: self.gate.ports.scanner.clone(),
                worker: self.setup.worker.clone(),
                engine: self.setup.engine.clone(),
                brief,
                routing: routing.clone(),
            }),
        };
        Ok((brain, routing, digest))
    }

    /// What a run with this brain would stand on now.
    pub fn basis(&self, kind: Kind) -> Result<Basis, NotRun> {
        let (brain, _, brief) = self.brain(kind)?;
        Ok(self.basis_of(brain.as_ref(), brief))
    }

    fn basis_of(&self, brain: &dyn Brain, brief: String) -> Basis {
        let digests = self.gate.snapshot().digests.clone();
        let (charter, policy) = (digests.charter.clone(), digests.policy.clone());
        Basis { charter, brief, policy, brain: brain.digest() }
    }

    /// What is remembered of the inbox.
    pub fn known(&self) -> Inbox {
        self.gate.ports.journal.look(|head| head.state.inbox.of(&self.setup.agent))
    }

    fn change(&self, event: InboxEvent) -> InboxChange {
        InboxChange::new(event, &self.setup.agent, &self.setup.worker)
    }

    async fn record(&self, change: InboxChange) -> Result<(), JournalError> {
        self.gate.ports.append(Record::new(now(), Body::Inbox(Box::new(change))), Room::Ordinary).await.map(drop)
    }

    /// The schedule, while it is on and what it was enabled on is unchanged. What has changed switches it off.
    pub async fn schedule_of_now(&self) -> Option<Schedule> {
        let schedule = self.known().schedule?;
        let changed = match self.basis(self.setup.brain) {
            Ok(basis) => schedule.basis.changed(&basis),
            Err(_) => vec!["brief"],
        };
        if changed.is_empty() {
            return Some(schedule);
        }
        let reason = format!("changed since it was enabled: {}", changed.join(", "));
        tracing::warn!(reason, "the schedule of the inbox worker is switched off");
        let off = InboxChange { reason: Some(reason), ..self.change(InboxEvent::ScheduleDisabled) };
        // Unrecorded it stays on, and is not run all the same.
        let _ = self.record(off).await;
        None
    }

    /// Switches the schedule on, if a clean dry run has shown what it would do.
    pub async fn enable(&self, cron: &str, operator: &str) -> Result<Schedule, NotRun> {
        schedule::cron(cron).map_err(NotRun::Unreadable)?;
        if !self.setup.execution {
            return Err(NotRun::Refused("runs may do nothing here: `inbox.execution` is false".into()));
        }
        let basis = self.basis(self.setup.brain)?;
        self.brief_is_accepted(&basis)?;
        let shown = self.known().shakedown;
        let needed = "`warden worker run --dry-run` with messages in the inbox, and look at its plan";
        match shown {
            None => return Err(NotRun::Refused(format!("no clean dry run is on record: first {needed}"))),
            Some(shown) => {
                let changed = shown.basis.changed(&basis);
                if !changed.is_empty() {
                    let changed = changed.join(", ");
                    return Err(NotRun::Refused(format!(
                        "since the last clean dry run this has changed: {changed}. Again {needed}"
                    )));
                }
            }
        }
        let (text, by) = (Some(cron.to_owned()), Some(operator.to_owned()));
        let on =
            InboxChange { cron: text, basis: Some(basis), operator: by, ..self.change(InboxEvent::ScheduleEnabled) };
        self.record(on).await?;
        self.known().schedule.ok_or_else(|| NotRun::Refused("it was switched off meanwhile".into()))
    }

    /// Switches the schedule off.
    pub async fn disable(&self, operator: &str) -> Result<(), NotRun> {
        let off = InboxChange { operator: Some(operator.to_owned()), ..self.change(InboxEvent::ScheduleDisabled) };
        Ok(self.record(off).await?)
    }

    fn brief_is_accepted(&self, basis: &Basis) -> Result<(), NotRun> {
        let accepted = self.brief.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if accepted == basis.brief {
            return Ok(());
        }
        Err(NotRun::Refused(format!(
            "the brief has changed: look at it, and accept it with `warden worker run --accept-brief {}`",
            basis.brief
        )))
    }

    async fn accept(&self, digest: &str, operator: &str, basis: &Basis) -> Result<(), NotRun> {
        if digest != basis.brief {
            return Err(NotRun::Refused(format!(
                "the brief's digest is {}, and another one was to be accepted",
                basis.brief
            )));
        }
        let act = OperatorAct { operator: operator.to_owned(), act: "brief_accept".into(), object: digest.to_owned() };
        self.gate.ports.append(Record::new(now(), Body::Operator(act)), Room::Reserved).await?;
        *self.brief.lock().unwrap_or_else(PoisonError::into_inner) = digest.to_owned();
        Ok(())
    }

    /// Runs once.
    pub async fn run(self: &Arc<Self>, asked: Asked) -> Result<Report, NotRun> {
        let id = decision_id(now()).to_string();
        match self.begin(&id, &asked).await {
            Ok(report) => Ok(report),
            Err(e) => {
                let (operator, reason) = (asked.operator.clone(), Some(e.to_string()));
                let refused = self.change(InboxEvent::RunRefused);
                let _ = self
                    .record(InboxChange { run: Some(id), mode: Some(asked.mode), operator, reason, ..refused })
                    .await;
                Err(e)
            }
        }
    }

    async fn begin(self: &Arc<Self>, id: &str, asked: &Asked) -> Result<Report, NotRun> {
        let Ok(_alone) = self.one_at_a_time.try_lock() else { return Err(NotRun::AlreadyRunning) };
        let kind = asked.brain.unwrap_or(self.setup.brain);
        let (brain, routing, brief) = self.brain(kind)?;
        let basis = self.basis_of(brain.as_ref(), brief);
        let enabled_on = self.known().schedule.map(|schedule| schedule.basis);
        if asked.mode == Mode::Scheduled && enabled_on.as_ref() != Some(&basis) {
            return Err(NotRun::Refused("the schedule was enabled on something else, or is off".into()));
        }
        if let (Some(digest), Some(operator)) = (&asked.accept_brief, &asked.operator) {
            self.accept(digest, operator, &basis).await?;
        }
        self.brief_is_accepted(&basis)?;
        if asked.mode != Mode::DryRun && !self.setup.execution {
            return Err(NotRun::Refused("runs may do nothing here: `inbox.execution` is false".into()));
        }
        let hub = self.executor.hub();
        let mut fence = None;
        // A dry run writes nothing, not even a lease.
        if asked.mode != Mode::DryRun {
            let lease = hub.lease(&self.setup.agent, id, LEASE_S).await.map_err(|e| match e {
                HubError::Leased => NotRun::AlreadyRunning,
                e => NotRun::Hub(e),
            })?;
            self.executor.under(Some(lease.token));
            fence = Some(lease.token);
        }
        let run = Run {
            fence,
            runner: self,
            id: id.to_owned(),
            mode: asked.mode,
            basis,
            brain,
            routing,
            known: self.known(),
        };
        let report = run.all(kind, asked.operator.clone()).await;
        self.executor.under(None);
        if asked.mode != Mode::DryRun {
            let _ = hub.release(&self.setup.agent, id).await;
        }
        report
    }

    /// Catalogue diffs that wait for a person.
    pub fn kept(&self) -> std::io::Result<Vec<Value>> {
        let entries = match std::fs::read_dir(&self.kept) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for entry in entries {
            all.push(serde_json::from_slice(&std::fs::read(entry?.path())?)?);
        }
        all.sort_by_key(|diff: &Value| diff["at"].to_string());
        Ok(all)
    }

    fn keep(&self, message: &Message, diff: &str) -> std::io::Result<String> {
        let hash = act::hash(diff);
        crate::files::create_private_dir(&self.kept)?;
        let kept = json!({ "hash": hash, "at": now(), "message": message.id, "from": message.from, "diff": diff,
            "status": "left_for_human" });
        let name = format!("{}.json", hash.trim_start_matches("sha256:"));
        write_private(&self.kept.join(name), kept.to_string().as_bytes())?;
        Ok(hash)
    }

    /// After a held answer has run: its message is marked as read, and the hub told.
    pub async fn follow_up(&self, stored: &Proposal) {
        let Some((message, tag)) = act::about(stored) else { return };
        let proposes = Proposes {
            inbox: &self.setup.agent,
            worker: &self.setup.worker,
            run: &stored.connection,
            mode: stored.mode,
            tag: &tag,
        };
        let noted = proposes.note(&message, &stored.method);
        pipeline::handle(&self.gate, noted, self.executor.as_ref()).await;
        if matches!(stored.method.as_str(), "route_answer" | "reply") {
            let marks = proposes.action(&message, &Action::MarkRead);
            pipeline::handle(&self.gate, marks, self.executor.as_ref()).await;
        }
    }
}

fn read_brief(setup: &Setup) -> Result<String, NotRun> {
    let Some(path) = &setup.brief else { return Ok(prompt::DEFAULT_BRIEF.to_owned()) };
    std::fs::read_to_string(path).map_err(|e| NotRun::Unreadable(format!("`{}`: {e}", path.display())))
}

impl Run<'_> {
    async fn all(self, kind: Kind, operator: Option<String>) -> Result<Report, NotRun> {
        let of_run = |event| InboxChange {
            run: Some(self.id.clone()),
            mode: Some(self.mode),
            basis: Some(self.basis.clone()),
            operator: operator.clone(),
            ..self.runner.change(event)
        };
        self.runner.record(of_run(InboxEvent::RunStarted)).await?;
        let (mut summary, mut told) = (Summary::default(), Vec::new());
        // What waits for a person keeps nobody else from being looked at.
        let looked_at = |summary: &Summary| summary.messages - summary.of(Came::Skipped).min(summary.messages);
        let mut ids = HashSet::new();
        let mut after: Option<String> = None;
        'pages: for _ in 0..PAGES_MAX {
            let hub = self.runner.executor.hub();
            let page = match hub.unread(&self.runner.setup.agent, after.as_deref()).await {
                Ok(page) => page,
                Err(e) => {
                    summary.error = Some(e.to_string());
                    break;
                }
            };
            let messages = page.messages.len();
            for value in page.messages {
                if looked_at(&summary) >= self.runner.setup.messages_max as u64 {
                    break 'pages;
                }
                let message: Option<Message> =
                    serde_json::from_value(value).ok().filter(|m: &Message| !m.id.is_empty());
                let message = message.unwrap_or_default();
                if !message.id.is_empty() && !ids.insert(message.id.clone()) {
                    continue;
                }
                if let Err(why) = self.goes_on().await {
                    summary.error = Some(why);
                    break 'pages;
                }
                let (one, calls, unplanned) = self.one(message).await;
                summary.engine_calls += u64::from(calls);
                summary.count(one.handled.came);
                summary.unplanned += u64::from(unplanned);
                let change = InboxChange { message: Some(one.handled.clone()), ..of_run(InboxEvent::Message) };
                // What waits for a person is counted, and not told again with every run.
                let is_news = one.handled.came != Came::Skipped;
                if is_news && let Err(e) = self.runner.record(change).await {
                    summary.error = Some(e.to_string());
                    told.push(one);
                    break 'pages;
                }
                told.push(one);
            }
            match page.next {
                Some(next) if messages > 0 && messages <= PAGE && after.as_ref() != Some(&next) => after = Some(next),
                _ => break,
            }
        }
        let ended = InboxChange { summary: Some(summary.clone()), ..of_run(InboxEvent::RunEnded) };
        self.runner.record(ended).await?;
        Ok(Report {
            run: self.id,
            inbox: self.runner.setup.agent.clone(),
            worker: self.runner.setup.worker.clone(),
            mode: self.mode,
            brain: kind,
            basis: self.basis,
            messages: told,
            summary,
        })
    }

    /// Whether it is still this run's turn, on what it stands on.
    async fn goes_on(&self) -> Result<(), String> {
        let policy = self.runner.gate.snapshot().digests.policy.clone();
        if self.mode == Mode::Scheduled && policy != self.basis.policy {
            return Err("policies have changed, which switches the schedule off".into());
        }
        let Some(fence) = self.fence else { return Ok(()) };
        match self.runner.executor.hub().lease(&self.runner.setup.agent, &self.id, LEASE_S).await {
            Ok(lease) if lease.token == fence => Ok(()),
            Ok(_) => Err("the lease of the inbox ran out while a message was handled".into()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// One message, whatever it does: what breaks with it breaks alone. Also whether an engine was called, and whether the brain had no
    /// draft.
    async fn one(&self, message: Message) -> (Told, bool, bool) {
        let scanner = &self.runner.gate.ports.scanner;
        let tag = scanner.key().tag(json!(message).to_string().as_bytes());
        let calls = std::sync::atomic::AtomicBool::new(false);
        let work = std::panic::AssertUnwindSafe(self.handle(&message, &tag, &calls));
        let outcome = match futures::FutureExt::catch_unwind(work).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::of(Came::Failed, "worker_failed"),
        };
        let hide = |text: &str| scanner.hide(text).chars().take(SHOWN_MAX).collect::<String>();
        let Outcome { came, reason, why, actions, unplanned } = outcome;
        let handled = Handled { id: hide(&message.id), tag, came, reason, actions };
        let told = Told { handled, from: hide(&message.from), subject: hide(&message.subject), why: hide(&why) };
        (told, calls.into_inner(), unplanned)
    }

    async fn handle(&self, message: &Message, tag: &str, calls: &std::sync::atomic::AtomicBool) -> Outcome {
        if message.id.is_empty() {
            return Outcome::of(Came::Failed, "message_unreadable");
        }
        if message.to != self.runner.setup.agent {
            return Outcome::of(Came::Skipped, "message_of_another");
        }
        let known = self.runner.gate.ports.scanner.hide(&message.id).chars().take(SHOWN_MAX).collect::<String>();
        if let Some(seen) = self.known.seen.get(&known).filter(|seen| seen.tag == tag) {
            if seen.answered || self.was_acknowledged(seen) {
                return self.act(message, tag, vec![Action::MarkRead]).await;
            }
            // Nobody is asked again until something is different.
            if matches!(seen.came, Came::Escalated | Came::LeftForHuman) && seen.basis == self.basis {
                return Outcome::of(Came::Skipped, "unchanged");
            }
        }
        if message.bytes() > BYTES_MAX {
            return Outcome::of(Came::Escalated, "message_too_large");
        }
        if let Some(reason) = self.unclean(message.texts().map(|(at, text)| (at, text.to_owned()))) {
            return Outcome::of(Came::Escalated, reason);
        }
        if rules::speaks_of_secrets(message) {
            return Outcome::of(Came::Escalated, "secret_custody");
        }
        calls.store(self.brain.calls_engines(), std::sync::atomic::Ordering::Relaxed);
        let draft = match self.brain.draft(message, &self.id).await {
            Ok(draft) => draft,
            Err(no) => return Outcome { unplanned: true, ..Outcome::of(Came::Escalated, &no.reason) },
        };
        let plan = validate(&draft, message, &self.routing);
        let mut outcome = match plan {
            Plan::Escalate(reason) => Outcome::of(Came::Escalated, reason),
            Plan::Act(actions) => {
                let texts = actions.iter().enumerate();
                let texts = texts.map(|(number, action)| (format!("/actions/{number}"), action.text().to_owned()));
                match self.unclean(texts) {
                    Some(_) => Outcome::of(Came::Escalated, "secret_in_plan"),
                    None => self.act(message, tag, actions).await,
                }
            }
        };
        outcome.why = draft.reason;
        outcome
    }

    /// Whether the answer to a message that was held for a person has run since.
    fn was_acknowledged(&self, seen: &Seen) -> bool {
        let Some(held) = &seen.held else { return false };
        self.runner.gate.acks(|live| {
            let ended = live.acks.ended.get(held).is_some_and(|ended| ended.ending == Ending::Done);
            ended || live.acks.kept.contains_key(held)
        })
    }

    /// Why texts are not shown to any brain, and not sent to anybody: a secret value, or what looks like one.
    fn unclean(&self, texts: impl Iterator<Item = (String, String)>) -> Option<&'static str> {
        let members = texts.map(|(at, text)| (at, Json::String(text))).collect();
        let scan = self.runner.gate.ports.scanner.scan(&Json::Object(members), "");
        (!scan.is_clean() || !scan.suspicions.is_empty()).then_some("secret_in_message")
    }

    fn proposes<'p>(&'p self, tag: &'p str) -> Proposes<'p> {
        Proposes {
            inbox: &self.runner.setup.agent,
            worker: &self.runner.setup.worker,
            run: &self.id,
            // What a dry run shows is what a run would get.
            mode: if self.mode == Mode::DryRun { Mode::Execute } else { self.mode },
            tag,
        }
    }

    /// Asks about every action first: one that may not run makes the whole message a person's.
    async fn act(&self, message: &Message, tag: &str, actions: Vec<Action>) -> Outcome {
        let proposes = self.proposes(tag);
        let mut all: Vec<(Action, Proposal)> = Vec::new();
        for action in actions {
            let is_answer = matches!(action, Action::RouteAnswer { .. } | Action::Reply { .. });
            let marks = is_answer && !action.is_empty();
            all.push((action.clone(), proposes.action(message, &action)));
            if marks {
                all.push((Action::MarkRead, proposes.action(message, &Action::MarkRead)));
            }
        }
        let verdicts: Vec<_> = all.iter().map(|(_, proposal)| self.runner.gate.foresee(proposal)).collect();
        let stops = verdicts.iter().position(|evaluation| evaluation.verdict != Verdict::Allow);
        let acted = |action: &Action, outcome: &str, reason: Option<&str>| Acted {
            kind: action.verb().action().to_owned(),
            outcome: outcome.to_owned(),
            reason: reason.map(str::to_owned),
            decision: None,
            hash: None,
        };
        if let Some(at) = stops {
            return self.stopped(message, all, at, &verdicts[at].reason.clone()).await;
        }
        if self.mode == Mode::DryRun {
            let actions: Vec<Acted> = all
                .iter()
                .map(|(action, _)| match action.is_empty() {
                    true => acted(action, "skipped", Some("empty")),
                    false => acted(action, "would_run", None),
                })
                .collect();
            let nothing = actions.iter().all(|acted| acted.outcome == "skipped");
            let (came, reason) = if nothing { (Came::LeftForHuman, "empty") } else { (Came::Planned, "allowed") };
            return Outcome { actions, ..Outcome::of(came, reason) };
        }
        let (mut done, mut came) = (Vec::new(), Outcome::of(Came::Executed, "allowed"));
        for (action, proposal) in all {
            if came.came == Came::Failed {
                done.push(acted(&action, "not_tried", None));
                continue;
            }
            if action.is_empty() {
                done.push(acted(&action, "skipped", Some("empty")));
                continue;
            }
            let one = self.execute(proposal).await;
            let ran = one.outcome == "done";
            if !ran {
                came = Outcome::of(Came::Failed, one.reason.as_deref().unwrap_or("hub_refused"));
            }
            done.push(Acted { kind: action.verb().action().to_owned(), ..one });
            if ran {
                // That it was done is told; that it could not be told changes nothing of it.
                let noted = self.execute(proposes.note(message, action.verb().action())).await;
                if noted.outcome != "done" {
                    tracing::warn!(run = self.id, reason = noted.reason, "the hub has no note of what was done");
                }
            }
        }
        if done.iter().all(|acted| acted.outcome == "skipped") {
            // Nothing was said, so the message stays as it is.
            came = Outcome::of(Came::LeftForHuman, "empty");
        }
        Outcome { actions: done, ..came }
    }

    async fn execute(&self, proposal: Proposal) -> Acted {
        let acted = |outcome: &str, reason: Option<String>| Acted {
            kind: proposal.method.clone(),
            outcome: outcome.to_owned(),
            reason,
            decision: None,
            hash: None,
        };
        let kind = acted("", None);
        match pipeline::handle(&self.runner.gate, proposal, self.runner.executor.as_ref()).await {
            Answer::Answered { id, is_error, .. } => {
                let (outcome, reason) = if is_error { ("failed", Some("hub_refused")) } else { ("done", None) };
                Acted { outcome: outcome.into(), reason: reason.map(str::to_owned), decision: Some(id), ..kind }
            }
            Answer::Refused(refusal) => {
                let outcome = if refusal.verdict == Verdict::Escalate { "held" } else { "refused" };
                Acted { outcome: outcome.into(), reason: Some(refusal.reason), decision: Some(refusal.id), ..kind }
            }
            Answer::Ended { id, reply } => {
                let (outcome, reason) = match reply {
                    Reply::NotSent => ("failed", "hub_not_reached"),
                    _ => ("unknown", "hub_no_answer"),
                };
                Acted { outcome: outcome.into(), reason: Some(reason.into()), decision: Some(id), ..kind }
            }
        }
    }

    /// A message with an action that may not run unattended: that is recorded, held where a person may acknowledge it, and nothing runs.
    async fn stopped(&self, message: &Message, all: Vec<(Action, Proposal)>, at: usize, reason: &str) -> Outcome {
        let mut actions = Vec::new();
        let mut came = Outcome::of(Came::Escalated, reason);
        // Acknowledged by itself, it would mark a message that nobody has answered.
        let alone = matches!(all[at].0, Action::MarkRead) && at > 0;
        for (number, (action, proposal)) in all.into_iter().enumerate() {
            let kind = action.verb().action().to_owned();
            let not_tried =
                Acted { kind: kind.clone(), outcome: "not_tried".into(), reason: None, decision: None, hash: None };
            if number != at || alone {
                let reason = (number == at).then(|| reason.to_owned());
                actions.push(Acted { reason, ..not_tried });
                continue;
            }
            let is_diff = matches!(action, Action::ProposeCatalogDiff { .. });
            let mut hash = None;
            if is_diff {
                came = Outcome::of(Came::LeftForHuman, reason);
                hash = Some(act::hash(action.text()));
            }
            if self.mode == Mode::DryRun {
                let outcome = if is_diff { "would_be_left_for_human" } else { "would_be_refused" };
                actions.push(Acted { outcome: outcome.into(), reason: Some(reason.to_owned()), hash, ..not_tried });
                continue;
            }
            if is_diff && let Err(e) = self.runner.keep(message, action.text()) {
                tracing::error!(error = %e, "a catalogue diff could not be kept");
                came = Outcome::of(Came::Failed, "not_kept");
            }
            let acted = self.execute(proposal).await;
            let outcome = if is_diff { "left_for_human".to_owned() } else { acted.outcome.clone() };
            actions.push(Acted { kind, outcome, hash, ..acted });
        }
        Outcome { actions, ..came }
    }
}
