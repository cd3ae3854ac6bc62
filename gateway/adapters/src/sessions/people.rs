//! What people do about a session that waits for them: go on with what they write, hand it to a team, or end it.

use super::{Refused, SessionBook, change};
use crate::world::now;
use serde_json::{Value, json};
use warden_core::ack::Stage;
use warden_core::json::Limits;
use warden_core::mcp;
use warden_core::pipeline::{Answer, ack};
use warden_core::port::{Ids, Room, Vault};
use warden_core::proposal::{Correlation, DecisionId};
use warden_core::rpc::Message;
use warden_core::session::app::App;
use warden_core::session::locks::Writer;
use warden_core::session::rule::names;
use warden_core::session::status;
use warden_core::session::team::{Escalation, escalation};
use warden_core::session::{Cause, Changed, Session, SessionEvent, Written};

/// The longest text that a person writes to a worker, in bytes.
const TEXT_MAX: usize = 64 << 10;

/// What a person wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The worker goes on with this.
    Input(String),
    /// A team takes over.
    Escalate(Option<String>),
    /// It ends here.
    Stop(Option<String>),
}

impl Resume {
    fn name(&self) -> &'static str {
        match self {
            Resume::Input(_) => "resume_with_input",
            Resume::Escalate(_) => "escalate",
            Resume::Stop(_) => "stop",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The change.
    pub changed: Changed,
    /// Held calls that were refused by it.
    pub refused: usize,
    /// Held calls that could not be refused just now: the session waits for these.
    pub still_held: Vec<DecisionId>,
}

impl SessionBook {
    /// Does what a person wants with a session. A session that does not wait can only be stopped.
    pub async fn resume(&self, id: &str, operator: &str, wanted: Resume) -> Result<Resumed, Refused> {
        let (writer, session) = self.write(id)?;
        // Whatever became of its app, a person can end it.
        let app = match wanted {
            Resume::Stop(_) => self.gate.apps().get(&session.app).cloned(),
            Resume::Input(_) | Resume::Escalate(_) => Some(self.app(&session)?),
        };
        let stands = self.status(id, &session);
        let waits = stands == status::AWAITING_INPUT;
        let (fits, code) = match wanted {
            Resume::Stop(_) => (!session.terminal, "is_over"),
            Resume::Input(_) | Resume::Escalate(_) => (waits, "not_awaiting_input"),
        };
        if !fits {
            return Err(Refused::Not(format!("{code} (status={stands})")));
        }
        let cause = Cause::Operator { operator: operator.to_owned(), act: wanted.name().to_owned() };
        let changed = match &wanted {
            Resume::Input(text) => {
                let text = Some(self.written(&session, text)?);
                Changed { text, ..change(app.as_deref(), &stands, status::RUNNING, cause) }
            }
            Resume::Stop(reason) => {
                let reason = reason.as_deref().map(|reason| self.masked(reason));
                Changed { reason, ..change(app.as_deref(), &stands, status::STOPPED, cause) }
            }
            Resume::Escalate(team) => {
                let app = self.app(&session)?;
                let planned = escalation(&app, team.as_deref()).map_err(Refused::Invalid)?;
                if let Err(why) = self.hand_on(&writer, (&app, &session), &planned, operator).await {
                    let failed = SessionEvent::ResumeFailed { operator: operator.to_owned(), reason: why.clone() };
                    self.record(&writer, failed, Room::Reserved).await?;
                    return Err(Refused::Not(format!("resume_failed: {why}")));
                }
                // An app without a status for it leaves the session as it is.
                let to = planned.status.as_deref().unwrap_or(&session.status);
                let mut changed = change(Some(&app), &stands, to, cause);
                if let Some(team) = &planned.team {
                    changed.fields.insert(planned.team_field.clone(), json!(team));
                }
                changed.escalated_to = planned.team;
                changed
            }
        };
        self.record(&writer, SessionEvent::Status(changed.clone()), Room::Reserved).await?;
        let (refused, still_held) = self.refuse_held(id, operator, wanted.name()).await;
        Ok(Resumed { changed, refused, still_held })
    }

    /// A person has answered otherwise: what was held is refused, and what was granted and has not run is taken back. Whatever is not stays
    /// as it is, and the session waits for it.
    async fn refuse_held(&self, id: &str, operator: &str, act: &str) -> (usize, Vec<DecisionId>) {
        let (mut refused, mut still_held) = (0, Vec::new());
        for decision in self.parked(id, |parked| !matches!(parked.stage, Stage::Running { .. })) {
            match ack::refuse(&self.gate, &decision, operator, &format!("the session was answered with {act}")).await {
                Ok(()) => refused += 1,
                Err(e) => {
                    tracing::warn!(error = %e, %decision, session = id, "a held call could not be refused");
                    still_held.push(decision);
                }
            }
        }
        (refused, still_held)
    }

    /// What a person writes is looked at like anything else that reaches a worker.
    fn written(&self, session: &Session, text: &str) -> Result<Written, Refused> {
        if text.trim().is_empty() {
            return Err(Refused::Invalid("`input` is empty: say what the worker is to go on with".into()));
        }
        if text.len() > TEXT_MAX {
            return Err(Refused::Invalid(format!("`input` has {} bytes, and at most {TEXT_MAX} are kept", text.len())));
        }
        let scan = self.gate.ports.scanner.scan_text(text, "/input");
        if let Some(found) = scan.findings.first() {
            return Err(Refused::Secret(found.format.clone()));
        }
        let id = self.gate.ports.decision(now());
        let sealed = self.gate.ports.seal_input(&session.worker, &id, text.as_bytes());
        let sealed = sealed.map_err(|e| Refused::Not(format!("the text cannot be sealed: {e}")))?;
        Ok(Written { id, sealed })
    }

    /// What a person wrote, for the worker; nothing when its key was destroyed.
    pub fn read(&self, session: &Session, written: &Written) -> Option<String> {
        let bytes = self.gate.ports.keys.unseal_input(&session.worker, &written.id, &written.sealed)?;
        String::from_utf8(bytes).ok()
    }

    /// Calls the tool that tells a team, through the pipeline like any other call of the session's worker. `writer` is held meanwhile, so
    /// that nobody is told twice.
    async fn hand_on(
        &self,
        writer: &Writer<'_>,
        (app, session): (&App, &Session),
        planned: &Escalation,
        operator: &str,
    ) -> Result<(), String> {
        let Some(tool) = &planned.tool else { return Ok(()) };
        let (server, name) = self.find(app, tool).ok_or_else(|| format!("no server of the app lists `{tool}`"))?;
        let mut arguments = serde_json::Map::new();
        if let Some(team) = &planned.team {
            arguments.insert(planned.team_field.clone(), json!(team));
        }
        arguments.insert("session".into(), json!(writer.session()));
        let arguments = self.declared(&server, &name, arguments);
        let id = uuid::Uuid::new_v4().to_string();
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": name, "arguments": arguments } });
        let limits = Limits::default();
        let message = Message::parse(call.to_string().as_bytes(), limits).map_err(|e| e.to_string())?;
        let mut proposal =
            mcp::propose(mcp::From::Worker, message, &session.worker, &id, &server).map_err(|e| e.to_string())?;
        proposal.caller = Some(operator.to_owned());
        proposal.correlation = Correlation { session: Some(writer.session().to_owned()), ..Correlation::default() };
        match self.acker.handle(proposal).await {
            Answer::Answered { is_error: false, body, .. }
                if body.get("isError").is_none_or(|e| e.to_value() != Value::Bool(true)) =>
            {
                Ok(())
            }
            Answer::Answered { .. } => Err(format!("`{server}/{name}` failed")),
            Answer::Refused(refusal) => {
                Err(format!("`{server}/{name}` was not called: {} ({})", refusal.reason, refusal.id))
            }
            Answer::Ended { id, .. } => Err(format!("`{server}/{name}` came to no answer ({id})")),
        }
    }

    /// The tool that an app means: the first of its servers that lists it.
    fn find(&self, app: &App, tool: &str) -> Option<(String, String)> {
        let snapshot = self.gate.snapshot();
        let listed = |server: &String| snapshot.catalogue().servers.get(server);
        app.servers.iter().find_map(|server| {
            let found = listed(server)?.keys().find(|name| names(tool, &format!("{server}/{name}")))?;
            Some((server.clone(), found.clone()))
        })
    }

    /// Only what the tool declares: one that closes its schema refuses the rest.
    fn declared(&self, server: &str, tool: &str, mut arguments: serde_json::Map<String, Value>) -> Value {
        let snapshot = self.gate.snapshot();
        let properties =
            snapshot.catalogue().tool(server, tool).and_then(|tool| tool.definition.pointer("/inputSchema/properties"));
        if let Some(properties) = properties.and_then(Value::as_object) {
            arguments.retain(|name, _| properties.contains_key(name));
        }
        Value::Object(arguments)
    }
}
