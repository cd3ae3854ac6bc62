//! What is done at the hub, once it was permitted.

use crate::hub::{Hub, HubError, Progress, Write};
use crate::keys::hex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use warden_core::inbox::message::Message;
use warden_core::inbox::plan::Action;
use warden_core::json::{self, Json, Limits};
use warden_core::outcome::{Lost, Reply};
use warden_core::pipeline::{Permit, Upstream};
use warden_core::proposal::{Ask, Correlation, Door, Mode, Proposal, Verb};

/// What a permit for the hub carries: all that the hub is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Doing {
    message: String,
    /// The whole message's tag: an answer to another text is another answer.
    tag: String,
    body: String,
    /// Of a note about something that was done.
    event: Option<String>,
}

/// A proposal of the inbox worker.
#[derive(Clone, Copy, Debug)]
pub struct Proposes<'a> {
    /// The inbox.
    pub inbox: &'a str,
    /// The worker.
    pub worker: &'a str,
    /// The run.
    pub run: &'a str,
    /// How it runs.
    pub mode: Mode,
    /// The message's tag.
    pub tag: &'a str,
}

impl Proposes<'_> {
    /// To do `action` about `message`.
    pub fn action(&self, message: &Message, action: &Action) -> Proposal {
        let text = |text: &str| Json::String(text.to_owned());
        let mut seen = vec![("message".to_owned(), text(&message.id))];
        match action {
            Action::RouteAnswer { route, body } => {
                seen.push(("to".into(), text(&message.from)));
                seen.push(("route".into(), text(route)));
                seen.push(("length".into(), Json::Number(body.len().to_string())));
            }
            Action::Reply { body } => {
                seen.push(("to".into(), text(&message.from)));
                seen.push(("length".into(), Json::Number(body.len().to_string())));
            }
            Action::ProposeCatalogDiff { diff } => seen.push(("hash".into(), text(&hash(diff)))),
            Action::ProgressNote { .. } | Action::MarkRead => {}
        }
        self.proposal(action.verb(), message, seen, action.text(), None)
    }

    /// To leave a note at the hub that `event` was done.
    pub fn note(&self, message: &Message, event: &str) -> Proposal {
        let seen = vec![("message".to_owned(), Json::String(message.id.clone()))];
        self.proposal(Verb::ProgressNote, message, seen, "", Some(event))
    }

    fn proposal(
        &self,
        verb: Verb,
        message: &Message,
        seen: Vec<(String, Json)>,
        body: &str,
        event: Option<&str>,
    ) -> Proposal {
        let doing = Doing {
            message: message.id.clone(),
            tag: self.tag.to_owned(),
            body: body.to_owned(),
            event: event.map(str::to_owned),
        };
        Proposal {
            door: Door::Inbox,
            worker: self.worker.to_owned(),
            connection: self.run.to_owned(),
            server: String::new(),
            method: verb.action().to_owned(),
            ask: Ask::Inbox { inbox: self.inbox.to_owned(), verb },
            arguments: Json::Object(seen),
            envelope: Json::Array(vec![Json::String(body.to_owned()), Json::String(message.from.clone())]),
            payload: json!(doing).to_string(),
            caller: None,
            correlation: Correlation { run: Some(self.run.to_owned()), ..Correlation::default() },
            mode: self.mode,
            barred: None,
        }
    }
}

/// What a stored proposal of an inbox is about: enough of its message to go on with it, and its tag.
pub fn about(stored: &Proposal) -> Option<(Message, String)> {
    let doing: Doing = serde_json::from_str(&stored.payload).ok()?;
    let from = stored.arguments.get("to").and_then(Json::as_str).unwrap_or_default().to_owned();
    Some((Message { id: doing.message, from, ..Message::default() }, doing.tag))
}

/// The hash under which a catalogue diff is kept.
pub fn hash(diff: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(diff.as_bytes())))
}

/// Does at the hub what was permitted.
pub struct Executor {
    hub: Arc<dyn Hub>,
    /// The lease of the run that is on; none when nothing runs.
    fence: AtomicU64,
}

impl Executor {
    /// At `hub`.
    pub fn new(hub: Arc<dyn Hub>) -> Self {
        Self { hub, fence: AtomicU64::new(0) }
    }

    /// The hub.
    pub fn hub(&self) -> &Arc<dyn Hub> {
        &self.hub
    }

    /// From here on writes bring this lease along.
    pub fn under(&self, fence: Option<u64>) {
        self.fence.store(fence.unwrap_or_default(), Ordering::Release);
    }

    async fn act(&self, proposal: &Proposal, doing: &Doing) -> Result<(), HubError> {
        let Ask::Inbox { inbox, verb } = &proposal.ask else { return Err(HubError::NotSent) };
        // The same for the same action on the same text, whichever run does it: what was done is not done again.
        // A note says which run it is of, so each run leaves its own.
        let run = (*verb == Verb::ProgressNote).then_some(&proposal.connection);
        // A message is answered once, whatever a brain would say the second time, and however it would call it.
        let answers = matches!(verb, Verb::RouteAnswer | Verb::Reply);
        let what = if answers { json!("answer") } else { json!([verb, doing.body]) };
        let key = json!([inbox, what, doing.message, doing.tag, doing.event, run]).to_string();
        let key = hex(&Sha256::digest(key.as_bytes()));
        let fence = Some(self.fence.load(Ordering::Acquire)).filter(|fence| *fence > 0);
        let write = Write { key: &key, fence };
        match verb {
            Verb::RouteAnswer | Verb::Reply => match self.hub.reply(&doing.message, &doing.body, write).await {
                // Under this key something else was said before: it is answered.
                Err(HubError::Refused(409)) => Ok(()),
                other => other,
            },
            Verb::MarkRead => self.hub.mark_read(&doing.message, write).await,
            Verb::ProgressNote => {
                let note = Progress {
                    message: doing.message.clone(),
                    event: doing.event.clone().unwrap_or_else(|| "note".into()),
                    text: Some(doing.body.clone()).filter(|text| !text.is_empty()),
                    run: proposal.connection.clone(),
                };
                self.hub.progress(inbox, &note, write).await
            }
            _ => Err(HubError::NotSent),
        }
    }
}

impl Upstream for Executor {
    async fn forward(&self, permit: Permit) -> Reply {
        let Ok(doing) = serde_json::from_str::<Doing>(permit.proposal().payload.as_str()) else {
            return Reply::NotSent;
        };
        match self.act(permit.proposal(), &doing).await {
            Ok(()) => answered(&json!({ "result": { "done": true } }), false),
            Err(HubError::NotSent) => Reply::NotSent,
            Err(HubError::Lost) => Reply::Lost(Lost::Gone),
            Err(HubError::Garbled(_)) => Reply::Lost(Lost::Garbled),
            // In the hub's number alone: its words may quote anything.
            Err(e @ (HubError::Refused(_) | HubError::Leased)) => {
                answered(&json!({ "error": { "message": e.to_string() } }), true)
            }
        }
    }
}

fn answered(body: &serde_json::Value, is_error: bool) -> Reply {
    let raw = body.to_string();
    match json::parse(raw.as_bytes(), Limits::default()) {
        Ok(body) => Reply::Answered { raw, body, is_error },
        Err(_) => Reply::Lost(Lost::Garbled),
    }
}
