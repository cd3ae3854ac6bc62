//! What runs once a person has said yes, in a session of Warden's own; and who is told that a person is needed ([`notify`]).

pub mod notify;

use crate::govern::Governor;
use crate::inbox::{Executor, Runner};
use crate::mcp::client::{Client, Failed};
use crate::mcp::server::Server;
use crate::mcp::{Settings, reply};
use crate::world::World;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use warden_core::ack::{Runs, Stage};
use warden_core::json::replaced;
use warden_core::mcp::{META_VERSION, is_modern, meta};
use warden_core::outcome::{Lost, Reply};
use warden_core::pipeline::{self, Answer, Gate, Payload, Permit, Upstream, ack};
use warden_core::proposal::{Ask, DecisionId, Door, Proposal};
use warden_core::rpc::{Id, Kind, Message};

/// Launchers may install a server first.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Acker {
    gate: Arc<Gate<World>>,
    governor: Arc<Governor>,
    settings: Settings,
    inbox: Option<(Arc<Executor>, Arc<Runner>)>,
    /// What had no room when it was to run: how often, and when it is tried next.
    again: Mutex<HashMap<DecisionId, (u32, Instant)>>,
}

/// The first pause before something is tried again; it doubles.
const PAUSE: Duration = Duration::from_secs(5);
/// How often the pause doubles.
const DOUBLES_MAX: u32 = 7;

impl Acker {
    /// For what `governor` knows of servers; `inbox` acts at the hub.
    pub fn new(
        gate: Arc<Gate<World>>,
        governor: Arc<Governor>,
        settings: Settings,
        inbox: Option<(Arc<Executor>, Arc<Runner>)>,
    ) -> Self {
        Self { gate, governor, settings, inbox, again: Mutex::default() }
    }

    /// Where a proposal runs once it is acknowledged. A legacy session is its worker's, and what it acts on may be; an operator knows
    /// better of a server, and says so with `own_session`.
    pub fn runs(&self, stored: &Proposal) -> Runs {
        let now = match (stored.door, &stored.ask) {
            (Door::Inbox, _) => self.inbox.is_some(),
            (Door::Mcp, Ask::Tool { .. }) => {
                let server = self.governor.setup().servers.get(&stored.server);
                server.is_some_and(|server| server.own_session) || is_modern_call(stored)
            }
            _ => false,
        };
        if now { Runs::Now } else { Runs::OnRepeat }
    }

    /// Takes a proposal of Warden's own through the pipeline, in a session of its own at the server.
    pub async fn handle(&self, proposal: Proposal) -> Answer {
        pipeline::handle(&self.gate, proposal, &OwnSession { acker: self }).await
    }

    /// Runs what was granted to run at once.
    pub fn start(self: &Arc<Self>, id: DecisionId) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let stored = ack::open(&this.gate, &id).await.ok();
            let answer = ack::run_now(&this.gate, &id, &OwnSession { acker: &this }).await;
            let done = matches!(answer, Answer::Answered { is_error: false, .. });
            if let (true, Some(stored), Some((_, runner))) =
                (done, stored.filter(|s| s.door == Door::Inbox), &this.inbox)
            {
                runner.follow_up(&stored).await;
                // Its worker is Warden itself, which knows by now.
                ack::collect(&this.gate, &id, &stored.worker, None::<&OwnSession<'_>>).await;
            }
        });
    }

    /// Runs what was granted to run at once and has not begun: the gateway stopped, or there was no room for it.
    pub fn take_up(self: &Arc<Self>) {
        let granted: Vec<DecisionId> = self.gate.acks(|live| {
            let now = |stage: &Stage| matches!(stage, Stage::Granted { runs: Runs::Now, .. });
            live.acks
                .parked
                .iter()
                .filter(|(id, parked)| now(&parked.stage) && !live.is_busy(id))
                .map(|(id, _)| id.clone())
                .collect()
        });
        let now = Instant::now();
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        again.retain(|id, _| granted.contains(id));
        let due = granted.into_iter().filter(|id| again.get(id).is_none_or(|(_, at)| *at <= now));
        let due: Vec<DecisionId> = due.collect();
        for id in due {
            let (tries, at) = again.entry(id.clone()).or_insert((0, now));
            *at = now + PAUSE * 2u32.pow(*tries);
            *tries = (*tries + 1).min(DOUBLES_MAX);
            self.start(id);
        }
    }

    async fn call(&self, name: &str, server: &Server, payload: &Payload) -> Reply {
        let Ok(message) = Message::parse(payload.as_str().as_bytes(), self.settings.worker) else {
            return Reply::NotSent;
        };
        let (Kind::Request { params, .. }, id) = (&message.kind, Id::text(&uuid::Uuid::new_v4().to_string())) else {
            return Reply::NotSent;
        };
        let Some(text) = replaced(payload.as_str(), &["id"], id.as_json()) else { return Reply::NotSent };
        let mut client = match Client::open(name, server, self.settings, &self.gate.ports.scanner) {
            Ok(client) => client,
            Err(e) => {
                tracing::error!(error = e, "an acknowledged call was not sent");
                return Reply::NotSent;
            }
        };
        if meta(params, META_VERSION).and_then(|v| v.as_str()).is_some_and(is_modern) {
            client.begin_modern();
        } else {
            let begun = tokio::time::timeout(HANDSHAKE, client.begin_legacy()).await;
            if !matches!(begun, Ok(Ok(_))) {
                tracing::error!(server = name, "an acknowledged call was not sent: the server began no session");
                client.end().await;
                return Reply::NotSent;
            }
        }
        let tool = params.get("name").and_then(|name| name.as_str());
        let patience = server.timeout(tool, self.settings.call_timeout);
        let snapshot = self.gate.snapshot();
        let declared = tool.map(|tool| snapshot.header_params(name, tool)).unwrap_or_default();
        let asked = client.forward(Payload::own(text), &message, &id, declared);
        let answer = match tokio::time::timeout(patience, asked).await {
            Ok(Ok(answer)) => reply(answer),
            Ok(Err(Failed { why, not_sent })) => {
                tracing::warn!(server = name, why, "an acknowledged call came to no answer");
                if not_sent { Reply::NotSent } else { Reply::Lost(Lost::Gone) }
            }
            Err(_) => Reply::Lost(Lost::TimedOut),
        };
        client.end().await;
        answer
    }
}

fn is_modern_call(stored: &Proposal) -> bool {
    let meta = stored.envelope.get("params").and_then(|params| meta(params, META_VERSION));
    meta.and_then(|version| version.as_str()).is_some_and(is_modern)
}

/// Whatever a held proposal acts on, reached by Warden itself.
struct OwnSession<'a> {
    acker: &'a Acker,
}

impl Upstream for OwnSession<'_> {
    async fn forward(&self, permit: Permit) -> Reply {
        let proposal = permit.proposal();
        match proposal.door {
            Door::Mcp => {
                let name = proposal.server.clone();
                let Some(server) = self.acker.governor.setup().servers.get(&name) else { return Reply::NotSent };
                self.acker.call(&name, server, &permit.into_payload()).await
            }
            Door::Inbox => match &self.acker.inbox {
                Some((executor, _)) => executor.forward(permit).await,
                None => Reply::NotSent,
            },
            _ => Reply::NotSent,
        }
    }
}
