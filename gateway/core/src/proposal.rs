//! What a worker asks to do, in one form whatever door it came through.

use crate::amount::Amount;
use crate::json::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt;

/// The way a proposal came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// The Model Context Protocol.
    Mcp,
    /// The AuthZEN door: the caller enforces the decision.
    Authzen,
    /// `warden decide`: nothing is forwarded.
    Decide,
    /// A worker's request to the operator plane.
    OperatorPlane,
    /// An LLM provider's API.
    Llm,
    /// The state document of a task.
    State,
    /// A run of the inbox worker.
    Inbox,
    /// A worker begins something: a session, or a delegate.
    WorkerPlane,
}

/// How a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing but a plan.
    DryRun,
    /// For real.
    #[default]
    Execute,
    /// For real, started by a schedule.
    Scheduled,
}

impl Mode {
    /// The id of the Cedar entity.
    pub fn name(self) -> &'static str {
        match self {
            Mode::DryRun => "dry_run",
            Mode::Execute => "execute",
            Mode::Scheduled => "scheduled",
        }
    }
}

/// A verb of the policy model: the action of everything that is not one catalogued tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Opens a connection; stands for all its protocol chatter.
    Connect,
    /// Lists tools.
    ListTools,
    /// Lists resources or their templates.
    ListResources,
    /// Lists prompts.
    ListPrompts,
    /// Reads a resource.
    ReadResource,
    /// Subscribes to a resource or takes that back.
    SubscribeResource,
    /// Listens for what changes: lists, resources, tasks.
    Listen,
    /// Gets a prompt.
    GetPrompt,
    /// Asks for completions of an argument.
    Complete,
    /// Asks about, or cancels, a task of this connection.
    FollowTask,
    /// A server asks the worker's model for a completion.
    Sample,
    /// A server asks the worker's user.
    Elicit,
    /// A server asks for the worker's roots.
    ListRoots,
    /// A worker reaches for the operator plane.
    Operate,
    /// Calls an engine.
    CallEngine,
    /// An engine's answer would have the worker call a tool.
    ProposeToolCall,
    /// Writes to the state document of a task.
    WriteState,
    /// Answers a message of the inbox with a route of the routing catalogue.
    RouteAnswer,
    /// Answers a message of the inbox.
    Reply,
    /// Leaves a note of progress at the hub.
    ProgressNote,
    /// Marks a message of the inbox as read.
    MarkRead,
    /// Proposes a change of the routing catalogue.
    ProposeCatalogDiff,
    /// An operator acknowledges a held proposal.
    Acknowledge,
    /// Starts a session of an app.
    StartSession,
    /// Starts a delegate: a node of the worker's own composition, below it.
    StartDelegate,
}

/// What a verb is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneTo {
    /// A server.
    Server,
    /// An engine.
    Engine,
    /// A member of a state document.
    StateKey,
    /// The operator plane.
    Plane,
    /// An inbox.
    Inbox,
    /// Whatever a held proposal is done to.
    Held,
    /// An app.
    App,
    /// A node of a worker's composition.
    Node,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 25] = [
        Verb::Connect,
        Verb::ListTools,
        Verb::ListResources,
        Verb::ListPrompts,
        Verb::ReadResource,
        Verb::SubscribeResource,
        Verb::Listen,
        Verb::GetPrompt,
        Verb::Complete,
        Verb::FollowTask,
        Verb::Sample,
        Verb::Elicit,
        Verb::ListRoots,
        Verb::Operate,
        Verb::CallEngine,
        Verb::ProposeToolCall,
        Verb::WriteState,
        Verb::RouteAnswer,
        Verb::Reply,
        Verb::ProgressNote,
        Verb::MarkRead,
        Verb::ProposeCatalogDiff,
        Verb::Acknowledge,
        Verb::StartSession,
        Verb::StartDelegate,
    ];

    /// What can be done to an inbox.
    pub const OF_INBOX: [Verb; 5] =
        [Verb::RouteAnswer, Verb::Reply, Verb::ProgressNote, Verb::MarkRead, Verb::ProposeCatalogDiff];

    /// The action's id in Cedar.
    pub fn action(self) -> &'static str {
        match self {
            Verb::Connect => "connect",
            Verb::ListTools => "list_tools",
            Verb::ListResources => "list_resources",
            Verb::ListPrompts => "list_prompts",
            Verb::ReadResource => "read_resource",
            Verb::SubscribeResource => "subscribe_resource",
            Verb::Listen => "listen",
            Verb::GetPrompt => "get_prompt",
            Verb::Complete => "complete",
            Verb::FollowTask => "follow_task",
            Verb::Sample => "sample",
            Verb::Elicit => "elicit",
            Verb::ListRoots => "list_roots",
            Verb::Operate => "operate",
            Verb::CallEngine => "call_engine",
            Verb::ProposeToolCall => "propose_tool_call",
            Verb::WriteState => "write_state",
            Verb::RouteAnswer => "route_answer",
            Verb::Reply => "reply",
            Verb::ProgressNote => "progress_note",
            Verb::MarkRead => "mark_read",
            Verb::ProposeCatalogDiff => "propose_catalog_diff",
            Verb::Acknowledge => "acknowledge",
            Verb::StartSession => "start_session",
            Verb::StartDelegate => "start_delegate",
        }
    }

    /// What it is done to.
    pub fn done_to(self) -> DoneTo {
        match self {
            Verb::Operate => DoneTo::Plane,
            Verb::CallEngine | Verb::ProposeToolCall => DoneTo::Engine,
            Verb::WriteState => DoneTo::StateKey,
            Verb::RouteAnswer | Verb::Reply | Verb::ProgressNote | Verb::MarkRead | Verb::ProposeCatalogDiff => {
                DoneTo::Inbox
            }
            Verb::Acknowledge => DoneTo::Held,
            Verb::StartSession => DoneTo::App,
            Verb::StartDelegate => DoneTo::Node,
            _ => DoneTo::Server,
        }
    }

    /// Whether a server asks it of a worker.
    pub fn is_server_request(self) -> bool {
        matches!(self, Verb::Sample | Verb::Elicit | Verb::ListRoots)
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A call of a tool.
    Tool {
        /// The tool's name as the worker wrote it.
        name: String,
    },
    /// Anything else that the policy model knows.
    Verb(Verb),
    /// A call of an engine, or what an engine's answer proposes.
    Engine(Box<EngineAsk>),
    /// A write to a member of a state document.
    State {
        /// The outermost member.
        key: String,
    },
    /// Something done to an inbox, at the hub.
    Inbox {
        /// The inbox: the agent whose messages they are.
        inbox: String,
        /// One of [`Verb::OF_INBOX`].
        verb: Verb,
    },
    /// The start of a session.
    Session {
        /// The app.
        app: String,
        /// What it is started with, as the app's schema has it.
        overrides: Map<String, Value>,
    },
    /// The start of a delegate.
    Delegate {
        /// The node's whole name: `WORKER/SLUG/…`.
        node: String,
    },
    /// An operator's yes to a held proposal.
    Acknowledge(Box<AcknowledgeAsk>),
    /// An action of the site's own schema.
    Site(Box<SiteAsk>),
    /// Something it does not know; never allowed.
    Unknown,
}

/// Who would acknowledge what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgeAsk {
    /// The operator.
    pub operator: String,
    /// What the held proposal is done to.
    pub resource: EntityName,
}

/// What has to do with an engine. It cannot be made without its task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineAsk {
    /// The engine's id.
    pub engine: String,
    /// [`Verb::CallEngine`] or [`Verb::ProposeToolCall`].
    pub verb: Verb,
    /// The task that it belongs to (W7).
    pub task: TaskId,
    /// What policy may see of that task.
    pub facts: TaskFacts,
    /// The most that it can use.
    pub at_most: Amount,
    /// Whether it is known what that costs.
    pub priced: bool,
}

/// What a policy sees of a task, in `context.task`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Its id.
    pub id: String,
    /// Whether Warden opened it by itself.
    #[serde(default)]
    pub ambient: bool,
    /// The zone whose engines it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What its scope says of this call.
    #[serde(flatten)]
    pub scope: ScopeFacts,
}

/// What the scope of a task says of a call of a tool. A worker's own task has none, and nothing is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScopeFacts {
    /// Whether its host has declared the tool.
    #[serde(skip_serializing_if = "is_false")]
    pub in_scope: bool,
    /// Arguments whose values stand in the user's prompt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input_from_prompt: Vec<String>,
    /// Arguments whose values stand in the tenant's directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input_from_directory: Vec<String>,
    /// Arguments that carry authority, and whose values stand in neither.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unvouched: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// A question about things that the site's own schema declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteAsk {
    /// Who would do it.
    pub principal: EntityName,
    /// The action's id.
    pub action: String,
    /// What it would be done to.
    pub resource: EntityName,
}

/// An entity as a caller names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityName {
    /// Its type.
    pub ty: String,
    /// Its id.
    pub id: String,
}

/// What a proposal belongs to: as a host says it, as a worker says it of its own, or as a delegate's token has it. A session that Warden knows
/// is a fact for policy; any other name is only recorded, so that a reviewer finds what goes together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Correlation {
    /// `x-warden-session`.
    pub session: Option<String>,
    /// `x-warden-task`.
    pub task: Option<String>,
    /// `x-warden-run`.
    pub run: Option<String>,
    /// The delegate that asks: the id of its token, which says who started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<String>,
}

/// One proposal. Written and read again, it is the same: that is how one is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The way it came in.
    pub door: Door,
    /// The worker that asks or, for a server's request, the worker it would reach.
    pub worker: String,
    /// The connection it belongs to.
    pub connection: String,
    /// The server it is for or from; empty where there is none.
    pub server: String,
    /// The protocol's own name of it, for example `tools/call`.
    pub method: String,
    /// What is asked.
    pub ask: Ask,
    /// The arguments that policy may see.
    pub arguments: Json,
    /// Everything else that would be forwarded, decoded, to be scanned.
    pub envelope: Json,
    /// What would be forwarded, byte for byte.
    pub payload: String,
    /// Who asks, where that is not the worker: a policy enforcement point.
    pub caller: Option<String>,
    /// The session, task and run it says it belongs to.
    pub correlation: Correlation,
    /// How its worker runs.
    #[serde(default)]
    pub mode: Mode,
    /// A reason code for which its door refuses it, whatever policy says; it is recorded like any other denial.
    #[serde(skip)]
    pub barred: Option<&'static str>,
}

impl Proposal {
    /// A text that two proposals share when one is the other, made again: same worker, session, door, and everything that would be
    /// done, member order aside. What the protocol changes with every message (its id, `_meta`) is not in it.
    pub fn sameness(&self) -> String {
        let Self { door, worker, server, method, ask, arguments, caller, correlation, .. } = self;
        let rest = match (door, self.envelope.get("params")) {
            (Door::Mcp, Some(Json::Object(params))) => {
                // What a server asks goes on as it says it now, so all of it counts.
                let all = matches!(ask, Ask::Verb(verb) if verb.is_server_request());
                let kept = params.iter().filter(|(name, _)| all || name != "_meta").cloned().collect();
                Json::Object(kept).sorted().to_string()
            }
            (Door::Mcp, _) => String::new(),
            _ => self.payload.clone(),
        };
        json!([door, worker, caller, correlation.session, server, method, ask, arguments.sorted().to_string(), rest])
            .to_string()
    }
}

/// Whether a worker is `above`, or a node of a composition below it. Only nodes have a `/` in their names.
pub fn is_within(worker: &str, above: &str) -> bool {
    worker.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The configured worker that a node comes from; the worker itself when it is none.
pub fn root_of(worker: &str) -> &str {
    worker.split('/').next().unwrap_or(worker)
}

/// Names a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(String);

impl TaskId {
    /// An id that Warden made.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a decision; sorts by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DecisionId(String);

impl DecisionId {
    /// An id made by the id port.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
