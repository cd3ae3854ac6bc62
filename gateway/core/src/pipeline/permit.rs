//! What a recorded allow is worth: the permit that forwarding uses up, the text that may go on its way, and the passage of chatter.

use super::Meter;
use crate::mcp::{self, Class, From};
use crate::outcome::Reply;
use crate::policy::level::Inbound;
use crate::port::Receipt;
use crate::proposal::{Ask, DecisionId, Proposal, Verb};
use crate::rpc::{Kind, Message};
use crate::secrets::Scanner;
use std::sync::Arc;

/// Proof that an allowing decision was recorded. Only this module makes one.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    pub(super) proposal: Proposal,
    pub(super) decision: DecisionId,
    pub(super) receipt: Receipt,
    pub(super) inbound: Inbound,
    pub(super) scanner: Arc<Scanner>,
    pub(super) meter: Meter,
    pub(super) stored: bool,
}

impl Permit {
    /// What was permitted.
    pub fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// The decision.
    pub fn decision(&self) -> &DecisionId {
        &self.decision
    }

    /// Where the decision is recorded.
    pub fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Whether it is a held proposal that runs now: its bytes are those of then, the message's id among them.
    pub fn is_stored(&self) -> bool {
        self.stored
    }

    /// Where to say what the call has used.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// What becomes of an answer with a secret value in it.
    pub fn inbound(&self) -> Inbound {
        self.inbound
    }

    /// The bytes that may go on their way.
    pub fn into_payload(self) -> Payload {
        Payload(self.proposal.payload)
    }

    /// For a permitted connection: the right to pass its chatter.
    pub fn into_passage(self) -> Option<Passage> {
        let Proposal { ask, worker, connection, server, .. } = self.proposal;
        let scanner = self.scanner;
        (ask == Ask::Verb(Verb::Connect)).then_some(Passage { worker, connection, server, scanner })
    }
}

/// Text that may be sent. It comes out of a permit, a passage, a scanned reply, or is Warden's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(pub(super) String);

impl Payload {
    /// Words of Warden itself, or of a worker's answer rewritten by it.
    pub fn own(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, to be sent.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A connection that was allowed: its protocol chatter passes without a decision each.
#[derive(Debug)]
pub struct Passage {
    worker: String,
    connection: String,
    server: String,
    scanner: Arc<Scanner>,
}

/// What chatter turned out to be.
#[derive(Debug, PartialEq)]
pub enum Cleared {
    /// It passes.
    Pass(Payload),
    /// It is a proposal, or holds something that must be decided and recorded.
    Decide(Message),
}

impl Passage {
    /// Whose it is.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Its connection.
    pub fn connection(&self) -> &str {
        &self.connection
    }

    /// Its server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What looks for secret values.
    pub fn scanner(&self) -> &Arc<Scanner> {
        &self.scanner
    }

    /// A reply to chatter, if it holds no secret value.
    pub fn release(&self, reply: Reply) -> Option<Payload> {
        match reply {
            Reply::Answered { raw, body, .. } if self.scanner.scan(&body, "").is_clean() => Some(Payload(raw)),
            _ => None,
        }
    }

    /// Lets clean chatter pass.
    pub fn clear(&self, from: From, message: Message) -> Cleared {
        let (method, params, id) = match &message.kind {
            Kind::Request { method, params, id } => (method, params, Some(id)),
            Kind::Notification { method, params } => (method, params, None),
            Kind::Result { .. } | Kind::Error { .. } => return Cleared::Decide(message),
        };
        let id = id.map(crate::rpc::Id::decoded).unwrap_or_default();
        let clean = || {
            self.scanner.scan(params, "/params").is_clean()
                && [method.as_str(), id].into_iter().all(|text| self.scanner.scan_text(text, "").is_clean())
        };
        if mcp::class(from, method) == Class::Chatter && clean() {
            Cleared::Pass(Payload(message.raw))
        } else {
            Cleared::Decide(message)
        }
    }
}
