//! `warden-core` decides. The life of a request, in the order of the modules:
//!
//! 1. a worker's wish becomes a [`proposal`], whatever door it came through;
//! 2. [`facts`] are gathered about it: its secrets, its arguments by the [`catalogue`]'s types;
//! 3. the [`policy`] snapshot gives a [`verdict`]: allow, escalate or deny;
//! 4. the [`decision`] is recorded in the [`journal`], and only then exists;
//! 5. a recorded allow mints a [`pipeline::Permit`], which forwarding consumes;
//! 6. what happened is the [`outcome`], recorded as well;
//! 7. [`pipeline::handle`] is the one function that holds these branches.
//!
//! [`authoring`] stands beside that path: what people who write policies ask of them before they decide anything.
//!
//! **Invariant:** this crate never does I/O, reads no clock and knows no runtime: it depends on no crate that could.
//! The pipeline is an `async fn` over the traits of [`port`]; whoever implements those brings the runtime.

// The order is that of a request, and a module uses only those above it: `tests/it/architecture.rs` holds both.
pub mod invariant;
pub mod reason;
pub mod json;
pub mod glob;
pub mod rpc;
pub mod sse;
pub mod catalogue;
pub mod mac;
pub mod amount;
pub mod proposal;
pub mod mcp;
pub mod secrets;
pub mod task;
pub mod session;
pub mod budget;
pub mod composition;
pub mod llm;
pub mod facts;
pub mod policy;
pub mod verdict;
pub mod outcome;
pub mod ack;
pub mod inbox;
pub mod decision;
pub mod passing;
pub mod journal;
pub mod denials;
pub mod port;
pub mod pipeline;
pub mod authoring;
