//! The MCP door: a raw JSON-RPC proxy, in front of stdio servers and of servers at a URL, for both generations.
//!
//! [`server`] says how a server is reached. [`link`] is what every connection has; [`connection`] is one to a [`child`],
//! [`remote`] one to a URL. [`exchange`] answers a worker over HTTP, [`headers`] holds
//! headers against bodies, [`held`] lets a worker wait for a person, [`tasks`] remembers whose task is whose, [`client`] is Warden in a session of its own, [`discover`] asks a server for its tools with one, [`list`]
//! filters what a worker is shown, [`refusal`] says no in the protocol's own words.

pub mod child;
pub mod client;
pub mod connection;
pub mod discover;
pub mod exchange;
pub mod headers;
pub mod held;
pub mod link;
pub mod list;
pub mod outbox;
pub mod refusal;
pub mod remote;
pub mod server;
pub mod tasks;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use warden_core::json::{Json, Limits};
use warden_core::outcome::{Lost, Reply};
use warden_core::proposal::{Ask, Correlation, Door, Mode, Proposal, Verb};
use warden_core::rpc::{Id, Kind, Message};

/// Bounds of the door.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of a message from a worker.
    pub worker: Limits,
    /// Of a message from a server.
    pub server: Limits,
    /// How long a worker may take to send a message.
    pub message_timeout: Duration,
    /// How long a server may be silent while an answer is due.
    pub call_timeout: Duration,
    /// How long an answer may still come after it was cancelled.
    pub cancel_grace: Duration,
    /// How long the worker of a held call waits for a person, before it is told how to go on.
    pub held_wait: Duration,
    /// How long a quiet stream in front of a stdio server is kept open for a worker that can come back.
    pub stream_hold: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            worker: Limits::default(),
            server: Limits { bytes_max: 64 << 20, depth_max: 128 },
            message_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(5),
            held_wait: Duration::ZERO,
            stream_hold: Duration::from_secs(60),
        }
    }
}

/// Asks for a connection that no message of its own opens: the first request without a session does.
pub fn connection_proposal(worker: &str, connection: &str, server: &str) -> Proposal {
    Proposal {
        door: Door::Mcp,
        worker: worker.to_owned(),
        connection: connection.to_owned(),
        server: server.to_owned(),
        method: "connect".into(),
        ask: Ask::Verb(Verb::Connect),
        arguments: Json::Object(Vec::new()),
        envelope: Json::Null,
        payload: String::new(),
        caller: None,
        correlation: Correlation::default(),
        mode: Mode::default(),
        barred: None,
    }
}

/// The request that a `notifications/cancelled` is about.
fn request_id(params: &Json) -> Option<Id> {
    params.get("requestId").and_then(id_of)
}

fn id_of(value: &Json) -> Option<Id> {
    match value {
        Json::String(text) => Some(Id::text(text)),
        Json::Number(text) => Some(Id::number(text)),
        _ => None,
    }
}

/// The reply that an answer is.
pub fn reply(message: Message) -> Reply {
    match message.kind {
        Kind::Result { result, .. } => Reply::Answered { raw: message.raw, body: result, is_error: false },
        Kind::Error { error, .. } => Reply::Answered { raw: message.raw, body: error, is_error: true },
        Kind::Request { .. } | Kind::Notification { .. } => Reply::Lost(Lost::Garbled),
    }
}

// Std mutexes everywhere: nothing awaits while one is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
