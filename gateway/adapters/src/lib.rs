//! `warden-adapters` touches the world: journal files, keys, the sled view, MCP children, listeners.
//!
//! Each module implements a port of `warden_core::port`, or is a door that makes proposals. None of them decides.

pub mod acks;
pub mod archive;
pub mod compositions;
pub mod engines;
pub mod export;
pub mod files;
pub mod govern;
pub mod http;
pub mod hub;
pub mod identity;
pub mod inbox;
pub mod journal;
pub mod keys;
pub mod mcp;
pub mod metrics;
pub mod pattern;
pub mod policy_folder;
pub mod replay;
pub mod review;
pub mod secrets;
pub mod sessions;
pub mod solver;
pub mod tasks;
pub mod traces;
pub mod view;
pub mod world;

use std::io;
use std::path::Path;

/// Makes new names in a folder durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}
