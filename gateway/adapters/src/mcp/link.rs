//! What a worker's connection to a server has, whatever carries it: a passage for its chatter, the gate for everything else,
//! and what an answer must go through before the worker sees it.

use super::held::{self, CameBack, Stands, Waiting, Waits};
use super::refusal::{Asked, Told};
use super::tasks::Tasks;
use super::{Settings, headers, list};
use crate::metrics::Metrics;
use axum::http::HeaderMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use warden_core::catalogue::hash_of;
use warden_core::facts;
use warden_core::json::{Json, replaced};
use warden_core::mcp::{self, From, result};
use warden_core::outcome::Reply;
use warden_core::pipeline::{self, Answer, Gate, Passage, Permit, Ports, Refusal, Upstream};
use warden_core::proposal::{Ask, DecisionId, Proposal, Verb};
use warden_core::rpc::Message;
use warden_core::verdict::Verdict;

/// Told of the definitions in a list that are not those of the catalogue, by server.
pub type Listed = Arc<dyn Fn(&str, Vec<serde_json::Value>) + Send + Sync>;

/// See the module.
pub struct Link<P> {
    /// The gate.
    pub gate: Arc<Gate<P>>,
    /// The decision that opened it.
    pub passage: Passage,
    /// Bounds.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who hears of unknown tools.
    pub listed: Listed,
    /// Whose tasks are whose; none when the server serves this worker alone.
    pub tasks: Option<Arc<Tasks>>,
    /// Requests that wait for a person.
    pub waiting: Waiting,
}

impl<P: Ports> Link<P> {
    /// The proposal that a worker's message is.
    pub fn propose_modern(
        &self,
        message: Message,
        modern: bool,
        headers: &HeaderMap,
    ) -> Result<Proposal, mcp::Malformed> {
        let mut proposal = self.propose(From::Worker, message)?;
        proposal.correlation = headers::correlated(headers);
        if modern && mcp::is_legacy_only(&proposal.method) {
            proposal.barred = Some("unknown_method");
        }
        Ok(proposal)
    }

    /// The proposal that a message is.
    pub fn propose(&self, from: From, message: Message) -> Result<Proposal, mcp::Malformed> {
        let mut proposal =
            mcp::propose(from, message, self.passage.worker(), self.passage.connection(), self.passage.server())?;
        if from == From::Worker && !self.may_follow(&proposal) {
            proposal.barred = Some("task_of_another");
        }
        Ok(proposal)
    }

    fn may_follow(&self, proposal: &Proposal) -> bool {
        let ours = |task: &Json| task.as_str().is_some_and(|task| self.owns(task));
        match &proposal.ask {
            Ask::Verb(Verb::FollowTask) => proposal.arguments.get("taskId").is_none_or(ours),
            Ask::Verb(Verb::Listen) => match proposal.arguments.get("tasks") {
                Some(Json::Array(tasks)) => tasks.iter().all(ours),
                _ => true,
            },
            _ => true,
        }
    }

    fn owns(&self, task: &str) -> bool {
        let (worker, server) = (self.passage.worker(), self.passage.server());
        self.tasks.as_ref().is_none_or(|tasks| tasks.is_of(server, task, worker))
    }

    /// Takes a worker's request through the pipeline, and its answer through what a worker may see of it. One that is held waits for a
    /// while.
    pub async fn ask(&self, mut proposal: Proposal, asked: Asked<'_>, upstream: &impl Waits) -> Told {
        let ask = proposal.ask.clone();
        let back = if asked.modern { held::came_back(&self.gate, &proposal) } else { CameBack::No };
        // It is not what runs, but its headers may go on.
        let clean = || facts::scan(&proposal, self.gate.ports.scanner()).is_clean();
        let back = if matches!(back, CameBack::For(_)) && !clean() { CameBack::Wrongly } else { back };
        let answer = match back {
            CameBack::For(id) => {
                let patience = self.settings.held_wait.max(held::PATIENCE_MIN);
                self.wait(&id, patience, None, upstream).await
            }
            CameBack::Wrongly => {
                proposal.barred = Some("not_the_held_call");
                pipeline::handle(&self.gate, proposal, upstream).await
            }
            CameBack::No => match pipeline::handle(&self.gate, proposal, upstream).await {
                Answer::Refused(refusal) if refusal.verdict == Verdict::Escalate => {
                    let id = refusal.id.clone();
                    self.wait(&id, self.settings.held_wait, Some(refusal), upstream).await
                }
                answer => answer,
            },
        };
        match answer {
            Answer::Answered { id, payload, body, is_error, stored } => {
                if !is_error && let Err(refused) = self.brings(&body).await {
                    return asked.refused(&refused);
                }
                let mut raw = payload.into_text();
                if stored {
                    // A result that was kept came under another id.
                    raw = replaced(&raw, &["id"], asked.id.as_json()).unwrap_or(raw);
                }
                let shown = if is_error { None } else { self.shown(&ask, asked.method, &raw) };
                let verbatim = shown.is_none();
                let code = is_error.then(|| code_of(&body)).flatten();
                Told { line: shown.unwrap_or(raw), verbatim, decision: Some(id), code }
            }
            Answer::Refused(refused) => self.refused(&refused, asked),
            Answer::Ended { id, reply } => asked.ended(&id, &reply),
        }
    }

    /// Waits for a person, and then for what was held. `refusal` is what is told while nobody has decided.
    async fn wait(
        &self,
        id: &DecisionId,
        patience: Duration,
        refusal: Option<Refusal>,
        upstream: &impl Waits,
    ) -> Answer {
        let worker = self.passage.worker();
        let stands = held::waited(&self.gate, id, worker, patience, upstream).await;
        match refusal {
            Some(refusal) if stands == Stands::Pending => Answer::Refused(refusal),
            // Nobody has decided, or its worker does not wait any more: nothing runs for it.
            None if stands == Stands::Pending => pipeline::ack::collect(&self.gate, id, worker, None::<&Nowhere>).await,
            _ => pipeline::ack::collect(&self.gate, id, worker, Some(upstream)).await,
        }
    }

    fn refused(&self, refusal: &Refusal, asked: Asked<'_>) -> Told {
        let comes_back = asked.modern && matches!(asked.method, "tools/call" | "resources/read" | "prompts/get");
        if refusal.verdict == Verdict::Escalate && comes_back {
            let (worker, server) = (self.passage.worker(), self.passage.server());
            let state = held::state(self.gate.ports.scanner().key(), &refusal.id, worker, server);
            return asked.comes_back(refusal, &state);
        }
        asked.refused(refusal)
    }

    /// The answer to chatter.
    pub fn released(&self, reply: Reply, asked: Asked<'_>) -> Told {
        let code = match &reply {
            Reply::Answered { body, is_error: true, .. } => code_of(body),
            Reply::Answered { body, .. } if body.get("inputRequests").is_some() => {
                return asked.unanswered("the server answered with questions, which this request cannot bring");
            }
            Reply::Answered { .. } => None,
            _ => return asked.unanswered("the server gave no answer"),
        };
        match self.passage.release(reply) {
            Some(payload) => Told { line: payload.into_text(), verbatim: true, decision: None, code },
            None => asked.unanswered("the answer holds a secret and is withheld"),
        }
    }

    /// What a result brings beside itself: a task, which is this worker's from now on, and questions of the server, each of
    /// which is a proposal to the worker it would reach.
    pub async fn brings(&self, result: &Json) -> Result<(), Refusal> {
        let (worker, server) = (self.passage.worker(), self.passage.server());
        if let (Some(tasks), Some(task)) = (&self.tasks, result::task(result)) {
            tasks.bind(server, task, worker);
        }
        let questions = result::questions(result, worker, self.passage.connection(), server);
        // What cannot be read as a question is refused, and that is recorded.
        let unreadable = || Proposal {
            method: "input_required".into(),
            ask: Ask::Unknown,
            barred: Some("malformed_request"),
            ..super::connection_proposal(worker, self.passage.connection(), server)
        };
        for question in questions.unwrap_or_else(|| vec![unreadable()]) {
            if let Answer::Refused(refused) = pipeline::handle(&self.gate, question, &WithTheResult).await {
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Whether a `notifications/tasks` may be told: the task is this worker's, and its questions are allowed.
    pub async fn tells(&self, task: &Json) -> bool {
        task.get("taskId").and_then(Json::as_str).is_some_and(|id| self.owns(id)) && self.brings(task).await.is_ok()
    }

    /// A list as this worker may see it; nothing when that is the whole list.
    pub fn shown(&self, ask: &Ask, method: &str, raw: &str) -> Option<String> {
        match (ask, method) {
            (Ask::Verb(Verb::ListTools), _) => self.tools_shown(raw),
            (_, "tasks/list") => list::filter_tasks(raw, self.settings.server, |task| self.owns(task)),
            _ => None,
        }
    }

    /// A list of tools without those that the worker could never call, and without those whose definition is not the
    /// one in the catalogue: they wait for an operator.
    fn tools_shown(&self, raw: &str) -> Option<String> {
        let (snapshot, server) = (self.gate.snapshot(), self.passage.server());
        let mut unknown = Vec::new();
        let filtered = list::filter_tools(raw, self.settings.server, |name, definition| {
            let known = snapshot.catalogue().tool(server, name);
            let same = known.is_some_and(|tool| tool.hash == hash_of(definition));
            if !same {
                // At once: a worker may know the name.
                self.gate.hold(server, name);
            }
            if !same || known.is_some_and(|tool| tool.dismissed.is_some()) {
                unknown.push(definition.clone());
            }
            let ask = Ask::Tool { name: name.to_owned() };
            // In shadow a call would pass that no permit fits.
            let shown = self.gate.is_in_shadow() || snapshot.is_listed(self.passage.worker(), server, &ask);
            (same || known.is_none()) && shown
        });
        if !unknown.is_empty() {
            (self.listed)(server, unknown);
        }
        filtered
    }
}

/// The code of a JSON-RPC error.
fn code_of(error: &Json) -> Option<i64> {
    match error.get("code") {
        Some(Json::Number(text)) => text.parse().ok(),
        _ => None,
    }
}

/// A server's question goes to the worker in the result that holds it.
struct WithTheResult;

impl Upstream for WithTheResult {
    async fn forward(&self, permit: Permit) -> Reply {
        Reply::Answered { raw: permit.into_payload().into_text(), body: Json::Null, is_error: false }
    }
}

/// For what is never permitted.
pub struct Nowhere;

impl Upstream for Nowhere {
    async fn forward(&self, _permit: Permit) -> Reply {
        Reply::NotSent
    }
}

/// Opens a connection once it is allowed.
pub struct Opens<T, F> {
    open: F,
    opened: Mutex<Option<T>>,
}

impl<T, F: Fn(Passage) -> Option<T>> Opens<T, F> {
    /// By `open`, which gives nothing when the server cannot be started.
    pub fn new(open: F) -> Self {
        Self { open, opened: Mutex::new(None) }
    }

    /// The connection, if it was allowed and opened.
    pub fn into_opened(self) -> Option<T> {
        self.opened.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send, F: Fn(Passage) -> Option<T> + Send + Sync> Upstream for Opens<T, F> {
    async fn forward(&self, permit: Permit) -> Reply {
        let Some(opened) = permit.into_passage().and_then(&self.open) else { return Reply::NotSent };
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Reply::Answered { raw: String::new(), body: Json::Null, is_error: false }
    }
}
