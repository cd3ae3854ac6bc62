//! Ports that nobody listens on.

use crate::Outcome;
use std::net::{Ipv4Addr, TcpListener};

/// They lie below those that the system gives to connections.
const FIRST: u16 = 20_000;

/// One after the other, each once.
pub(crate) struct Ports(u16);

impl Ports {
    /// Two runs at once begin at different ones.
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self(FIRST + u16::try_from(std::process::id() % 10_000)?))
    }

    /// The next.
    pub(crate) fn next(&mut self) -> Outcome<u16> {
        let from = self.0;
        for port in from..from + 200 {
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                self.0 = port + 1;
                return Ok(port);
            }
        }
        Err(format!("no port from {from} on is free").into())
    }
}
