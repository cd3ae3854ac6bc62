//! The inbox worker: [`run`] takes the messages of an inbox from the hub, [`brain`] plans what to do, [`act`] does what was allowed, and
//! [`schedule`] starts runs by itself.

pub mod act;
pub mod brain;
pub mod run;
pub mod schedule;

pub use act::Executor;
pub use run::{Asked, NotRun, Report, Runner};

use std::path::PathBuf;

/// An inbox as it is configured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The inbox: the agent whose messages they are.
    pub agent: String,
    /// The worker in whose name it is worked.
    pub worker: String,
    /// The brief's file; Warden's own when there is none.
    pub brief: Option<PathBuf>,
    /// The routing catalogue's file; an empty one when there is none.
    pub routing: Option<PathBuf>,
    /// The brain of runs that name none.
    pub brain: brain::Kind,
    /// The engine of a brain that has a model.
    pub engine: Option<String>,
    /// Whether runs may do anything.
    pub execution: bool,
    /// Messages of one run.
    pub messages_max: usize,
}
