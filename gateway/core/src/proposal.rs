//! What a worker asks to do, in one form whatever door it came through.

use crate::amount::Amount;
use crate::json::Json;
use serde::{Deserialize, Serialize};
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
}

/// A verb of the policy model: the action of everything that is not one catalogued tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 17] = [
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
    ];

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
        }
    }

    /// What it is done to.
    pub fn done_to(self) -> DoneTo {
        match self {
            Verb::Operate => DoneTo::Plane,
            Verb::CallEngine | Verb::ProposeToolCall => DoneTo::Engine,
            Verb::WriteState => DoneTo::StateKey,
            _ => DoneTo::Server,
        }
    }

    /// Whether a server asks it of a worker.
    pub fn is_server_request(self) -> bool {
        matches!(self, Verb::Sample | Verb::Elicit | Verb::ListRoots)
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
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
    /// An action of the site's own schema.
    Site(Box<SiteAsk>),
    /// Something it does not know; never allowed.
    Unknown,
}

/// What has to do with an engine. It cannot be made without its task.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// A question about things that the site's own schema declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteAsk {
    /// Who would do it.
    pub principal: EntityName,
    /// The action's id.
    pub action: String,
    /// What it would be done to.
    pub resource: EntityName,
}

/// An entity as a caller names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityName {
    /// Its type.
    pub ty: String,
    /// Its id.
    pub id: String,
}

/// What a host says a proposal belongs to. Recorded, so that a reviewer finds what goes together; decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Correlation {
    /// `x-warden-session`.
    pub session: Option<String>,
    /// `x-warden-task`.
    pub task: Option<String>,
    /// `x-warden-run`.
    pub run: Option<String>,
}

/// One proposal.
#[derive(Clone, Debug, PartialEq)]
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
    /// A reason code for which its door refuses it, whatever policy says; it is recorded like any other denial.
    pub barred: Option<&'static str>,
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
