//! Whose task is whose. A server that is shared by workers knows them all by one credential, so Warden remembers who
//! started which.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Tasks that are remembered; then the oldest are forgotten, and are nobody's.
const TASKS_MAX: usize = 100_000;

type Key = (String, String);

/// By server and task.
#[derive(Debug, Default)]
pub struct Tasks {
    // A std mutex: nothing awaits while it is held.
    known: Mutex<(HashMap<Key, String>, VecDeque<Key>)>,
}

impl Tasks {
    /// The task was started by this worker. The first who is told of it keeps it.
    pub fn bind(&self, server: &str, task: &str, worker: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (server.to_owned(), task.to_owned());
        if known.0.contains_key(&key) {
            return;
        }
        if known.1.len() == TASKS_MAX
            && let Some(oldest) = known.1.pop_front()
        {
            known.0.remove(&oldest);
        }
        known.1.push_back(key.clone());
        known.0.insert(key, worker.to_owned());
    }

    /// Whether this worker started it.
    pub fn is_of(&self, server: &str, task: &str, worker: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.get(&(server.to_owned(), task.to_owned())).is_some_and(|owner| owner == worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_of_the_worker_who_started_it() {
        let tasks = Tasks::default();
        tasks.bind("s", "t", "a");
        tasks.bind("s", "t", "b");
        assert!(tasks.is_of("s", "t", "a"));
        assert!(!tasks.is_of("s", "t", "b") && !tasks.is_of("other", "t", "a") && !tasks.is_of("s", "u", "a"));
    }
}
