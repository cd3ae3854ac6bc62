//! The hub: where messages to agents are. A port with two adapters: [`remote`] speaks `docs/hub.md` over HTTP, [`embedded`] is a hub in the
//! data folder. Every write has an idempotency key: the same one again changes nothing and gets the same answer.

pub mod embedded;
pub mod remote;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use warden_core::inbox::message::Message;

/// Messages of one page.
pub const PAGE: usize = 50;

/// Unread messages, the oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// As the hub has them; whatever is no message stays what it is, and is told of.
    pub messages: Vec<Value>,
    /// What to ask for next with `after`; nothing at the end.
    #[serde(default)]
    pub next: Option<String>,
}

/// The right to work an inbox: one at a time, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Greater than that of every lease before. Writes bring it along, and a hub refuses what an older one brings.
    pub token: u64,
    /// Seconds.
    pub ttl_s: u64,
}

/// Why a hub did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// It was not reached: nothing was done.
    #[error("the hub was not reached")]
    NotSent,
    /// It was reached, and nobody knows.
    #[error("the hub gave no answer")]
    Lost,
    /// It said no.
    #[error("the hub answered {0}")]
    Refused(u16),
    /// Somebody else has the lease.
    #[error("another run works this inbox")]
    Leased,
    /// Its answer makes no sense.
    #[error("the hub's answer cannot be read: {0}")]
    Garbled(&'static str),
}

/// What a write brings along.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The same for the same write, however often it is tried.
    pub key: &'a str,
    /// The lease under which it is done; none for operators.
    pub fence: Option<u64>,
}

/// A note of progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The message that it is about.
    pub message: String,
    /// What was done: an action, or `note`.
    pub event: String,
    /// The note itself, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The run.
    pub run: String,
}

/// The port.
pub trait Hub: Send + Sync {
    /// A page of the unread messages of `agent`.
    fn unread<'a>(&'a self, agent: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Page, HubError>>;

    /// Answers a message; the answer goes to its sender of record.
    fn reply<'a>(&'a self, id: &'a str, body: &'a str, write: Write<'a>) -> BoxFuture<'a, Result<(), HubError>>;

    /// Marks a message as read.
    fn mark_read<'a>(&'a self, id: &'a str, write: Write<'a>) -> BoxFuture<'a, Result<(), HubError>>;

    /// Leaves a note of progress.
    fn progress<'a>(
        &'a self,
        agent: &'a str,
        note: &'a Progress,
        write: Write<'a>,
    ) -> BoxFuture<'a, Result<(), HubError>>;

    /// Takes or renews the lease of an inbox.
    fn lease<'a>(&'a self, agent: &'a str, holder: &'a str, ttl_s: u64) -> BoxFuture<'a, Result<Lease, HubError>>;

    /// Gives it back.
    fn release<'a>(&'a self, agent: &'a str, holder: &'a str) -> BoxFuture<'a, Result<(), HubError>>;
}

/// What somebody sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sending {
    /// The agent it is for.
    pub to: String,
    /// Whom it is from.
    pub from: String,
    /// Its subject.
    #[serde(default)]
    pub subject: String,
    /// Its text.
    #[serde(default)]
    pub body: String,
    /// What is attached.
    #[serde(default)]
    pub attachments: Vec<warden_core::inbox::message::Attachment>,
}

impl Sending {
    /// As a message with this id.
    pub fn with_id(self, id: String) -> Message {
        let Self { to, from, subject, body, attachments } = self;
        Message { id, to, from, subject, body, attachments }
    }
}
