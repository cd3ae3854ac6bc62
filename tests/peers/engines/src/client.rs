//! A client with one connection that is kept.

use crate::answers::{Check, Mode};
use crate::ask::{Ask, Door};
use crate::{Outcome, http};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::client::conn::http1::SendRequest;
use std::time::Duration;

/// An answer takes no longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// As much of a wrong answer is told.
const TOLD: usize = 300;

/// See the module.
pub(crate) struct Client {
    port: u16,
    ask: Ask,
    check: Check,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Not connected yet.
    pub(crate) fn new(door: &Door, mode: Mode) -> Self {
        Self { port: door.port, ask: Ask::new(door, mode), check: Check::new(mode), sender: None }
    }

    /// Asks, and reads the answer to its end. Anything but a whole one is an error, and ends the connection.
    pub(crate) async fn call(&mut self) -> Outcome<()> {
        let called = tokio::time::timeout(PATIENCE, self.exchange()).await;
        let called = called.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()).into()));
        if called.is_err() {
            self.sender = None;
        }
        called
    }

    /// Connects, if it is not connected.
    pub(crate) async fn connect(&mut self) -> Outcome<()> {
        let closed = match &mut self.sender {
            Some(sender) => sender.ready().await.is_err(),
            None => true,
        };
        if closed {
            self.sender = Some(http::connect(self.port).await?);
        }
        Ok(())
    }

    async fn exchange(&mut self) -> Outcome<()> {
        self.connect().await?;
        let sender = self.sender.as_mut().ok_or("no connection")?;
        let response = sender.send_request(self.ask.request()).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        if status == StatusCode::OK && self.check.passes(&answer) {
            return Ok(());
        }
        let what = if status == StatusCode::OK { "not whole" } else { "refused" };
        let text = String::from_utf8_lossy(&answer[answer.len().saturating_sub(TOLD)..]).into_owned();
        Err(format!("{what}: {status}, {} bytes, at their end: {text}", answer.len()).into())
    }
}
