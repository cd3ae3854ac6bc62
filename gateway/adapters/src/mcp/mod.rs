//! The MCP door: a raw JSON-RPC proxy in front of stdio servers, one child a worker and connection.
//!
//! [`child`] runs a server, [`connection`] stands between it and its worker, [`discover`] asks a server for its tools,
//! [`list`] filters what a worker is shown, [`refusal`] says no in the protocol's own words.

pub mod child;
pub mod connection;
pub mod discover;
pub mod list;
pub mod refusal;

use std::time::Duration;
use warden_core::json::Limits;

/// Bounds of the door.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of a message from a worker.
    pub worker: Limits,
    /// Of a message from a server.
    pub server: Limits,
    /// How long a server may take for an answer.
    pub call_timeout: Duration,
    /// How long an answer may still come after it was cancelled.
    pub cancel_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            worker: Limits::default(),
            server: Limits { bytes_max: 64 << 20, depth_max: 128 },
            call_timeout: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(5),
        }
    }
}
