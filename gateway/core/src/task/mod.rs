//! Tasks: units of LLM work. An engine call belongs to one that is open, and an engine is leased to it: the lease is bound to
//! the worker, the session and the task, and is worth nothing anywhere else or any later.

pub mod convention;
pub mod scope;
pub mod state;

use crate::amount::Amount;
use crate::mac::MacKey;
use crate::proposal::{TaskId, is_within};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Open tasks of one worker; more are refused.
pub const OPEN_MAX: usize = 1000;
/// Tasks that are over and still told of.
const RECENT_MAX: usize = 256;

/// An open task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Whose work it is.
    pub worker: String,
    /// The session it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The engine that is leased to it; the worker's own choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The zone whose engines it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether it was said to need an engine: one that never called any is suspected of having gone around.
    #[serde(default)]
    pub llm: bool,
    /// Whether Warden opened it by itself, for a worker that named none.
    #[serde(default)]
    pub ambient: bool,
    /// Whether its host has declared what it is for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub scoped: bool,
    /// Who opened it, where that is not the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Since when.
    pub opened: Timestamp,
    /// Until when, unless it is closed before.
    pub expires: Timestamp,
}

impl Task {
    /// Whether a worker works in it: its own, or a node below that.
    pub fn is_of(&self, worker: &str) -> bool {
        is_within(worker, &self.worker)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TaskEvent {
    /// It is open from here on.
    Opened(Task),
    /// Its worker closed it.
    Closed(Ended),
    /// Nobody closed it in time.
    Expired(Ended),
    /// An engine was asked for on the task's behalf, and there was none.
    Unresolved {
        /// Why: a reason code.
        reason: String,
    },
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Whose it was.
    pub worker: String,
    /// Calls of engines that were allowed in it.
    pub engine_events: u64,
    /// What they cost.
    pub spent: Amount,
    /// Whether it was said to need an engine and called none: its worker may have gone around the gateway.
    #[serde(default)]
    pub engine_bypass_suspected: bool,
}

/// The record of a task's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskChange {
    /// Which.
    pub task: TaskId,
    /// What.
    #[serde(flatten)]
    pub event: TaskEvent,
}

/// A task with what it has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// Calls of engines that were allowed in it.
    #[serde(default)]
    pub engine_events: u64,
    /// What they cost so far.
    #[serde(default)]
    pub spent: Amount,
}

impl Work {
    /// How it would end now.
    pub fn ended(&self) -> Ended {
        Ended {
            worker: self.task.worker.clone(),
            engine_events: self.engine_events,
            spent: self.spent,
            engine_bypass_suspected: self.task.llm && self.engine_events == 0,
        }
    }
}

/// All open tasks, and the last that are over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    open: BTreeMap<TaskId, Work>,
    #[serde(default)]
    recent: VecDeque<(TaskId, Ended)>,
}

impl Tasks {
    /// Takes in a recorded change.
    pub fn apply(&mut self, change: &TaskChange) {
        match &change.event {
            TaskEvent::Opened(task) => {
                let work = Work { task: task.clone(), engine_events: 0, spent: Amount::ZERO };
                self.open.insert(change.task.clone(), work);
            }
            TaskEvent::Closed(_) | TaskEvent::Expired(_) => {
                // By now it may have called more than when its end was written.
                if let Some(work) = self.open.remove(&change.task) {
                    if self.recent.len() == RECENT_MAX {
                        self.recent.pop_front();
                    }
                    self.recent.push_back((change.task.clone(), work.ended()));
                }
            }
            TaskEvent::Unresolved { .. } => {}
        }
    }

    /// An engine call was allowed in a task.
    pub fn called(&mut self, task: &TaskId) {
        if let Some(work) = self.open.get_mut(task) {
            work.engine_events += 1;
        }
    }

    /// What a call in a task cost. It may have been closed meanwhile.
    pub fn cost(&mut self, task: &TaskId, amount: Amount) {
        let spent = match self.open.get_mut(task) {
            Some(work) => Some(&mut work.spent),
            None => self.recent.iter_mut().rev().find(|(id, _)| id == task).map(|(_, ended)| &mut ended.spent),
        };
        if let Some(spent) = spent {
            *spent = spent.plus(amount);
        }
    }

    /// A task that is open at a time.
    pub fn get(&self, task: &TaskId, now: Timestamp) -> Option<&Work> {
        self.open.get(task).filter(|work| work.task.expires > now)
    }

    /// The task that Warden opened for a worker's calls without one.
    pub fn ambient(
        &self,
        worker: &str,
        session: Option<&str>,
        run: Option<&str>,
        now: Timestamp,
    ) -> Option<(&TaskId, &Work)> {
        self.open.iter().find(|(_, work)| {
            let Task { ambient, worker: whose, session: of, run: in_run, expires, .. } = &work.task;
            let fits = of.as_deref() == session && in_run.as_deref() == run;
            *ambient && whose == worker && fits && *expires > now
        })
    }

    /// How many a worker has open that Warden did not open by itself.
    pub fn count(&self, worker: &str) -> usize {
        self.open.values().filter(|work| work.task.worker == worker && !work.task.ambient).count()
    }

    /// Those that are over by themselves.
    pub fn expired(&self, now: Timestamp) -> Vec<TaskId> {
        self.open.iter().filter(|(_, work)| work.task.expires <= now).map(|(id, _)| id.clone()).collect()
    }

    /// One that is open, expired or not.
    pub fn open_or_expired(&self, task: &TaskId) -> Option<&Work> {
        self.open.get(task)
    }

    /// All open ones.
    pub fn all_open(&self) -> impl Iterator<Item = (&TaskId, &Work)> {
        self.open.iter()
    }

    /// The last that are over, the newest last.
    pub fn recent(&self) -> impl Iterator<Item = &(TaskId, Ended)> {
        self.recent.iter()
    }
}

/// What a lease begins with, so that people and scanners know it for one.
pub const LEASE: &str = "wdl_";

/// The lease of a task: nobody makes it without the gateway's key, and none is kept anywhere.
pub fn lease(key: &MacKey, id: &TaskId, task: &Task) -> String {
    format!("{LEASE}{}", key.whole(&bound(id, task)))
}

/// Whether a lease is that of this task.
pub fn is_lease(key: &MacKey, id: &TaskId, task: &Task, lease: &str) -> bool {
    lease.strip_prefix(LEASE).is_some_and(|tag| key.is_whole(&bound(id, task), tag))
}

/// What a lease is bound to. Lengths first, so that no two read the same.
fn bound(id: &TaskId, task: &Task) -> Vec<u8> {
    let parts = ["lease", id.as_str(), &task.worker, task.session.as_deref().unwrap_or_default()];
    let opened = task.opened.as_microsecond().to_string();
    let parts = parts.into_iter().chain([opened.as_str()]);
    parts.flat_map(|part| format!("{}:{part}", part.len()).into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(worker: &str, session: Option<&str>) -> Task {
        Task {
            worker: worker.into(),
            session: session.map(str::to_owned),
            run: None,
            engine: None,
            zone: None,
            llm: true,
            ambient: false,
            scoped: false,
            by: None,
            opened: Timestamp::UNIX_EPOCH,
            expires: Timestamp::from_second(60).unwrap(),
        }
    }

    #[test]
    fn s0_16_a_lease_is_bound_to_worker_session_and_task() {
        let key = MacKey::new("k", [3; 32]);
        let id = TaskId::new("t1");
        let own = lease(&key, &id, &task("w", Some("s")));
        assert!(is_lease(&key, &id, &task("w", Some("s")), &own));
        for (other, whose) in [
            ("t2", task("w", Some("s"))),
            ("t1", task("v", Some("s"))),
            ("t1", task("w", None)),
            ("t1", task("ws", Some(""))),
            ("t1", Task { opened: Timestamp::from_second(1).unwrap(), ..task("w", Some("s")) }),
        ] {
            assert!(!is_lease(&key, &TaskId::new(other), &whose, &own), "{other}");
        }
        for guess in ["", "wdl_", "wdl_00", &own[4..], &own[..own.len() - 1], &format!("{own}0")] {
            assert!(!is_lease(&key, &id, &task("w", Some("s")), guess), "{guess}");
        }
        assert!(!is_lease(&MacKey::new("k", [4; 32]), &id, &task("w", Some("s")), &own));
    }

    #[test]
    fn s0_13_a_task_that_said_llm_and_called_no_engine_is_suspected() {
        let mut tasks = Tasks::default();
        let id = TaskId::new("t1");
        let opened = |task| TaskChange { task: TaskId::new("t1"), event: TaskEvent::Opened(task) };
        tasks.apply(&opened(task("w", None)));
        assert!(tasks.get(&id, Timestamp::UNIX_EPOCH).unwrap().ended().engine_bypass_suspected);
        tasks.called(&id);
        assert!(!tasks.get(&id, Timestamp::UNIX_EPOCH).unwrap().ended().engine_bypass_suspected);
        tasks.apply(&opened(Task { llm: false, ..task("w", None) }));
        assert!(!tasks.get(&id, Timestamp::UNIX_EPOCH).unwrap().ended().engine_bypass_suspected, "rules alone");
    }

    #[test]
    fn s0_12_a_task_ends_when_it_expires_or_is_closed_and_keeps_its_sum() {
        let mut tasks = Tasks::default();
        let id = TaskId::new("t1");
        tasks.apply(&TaskChange { task: id.clone(), event: TaskEvent::Opened(task("w", None)) });
        let (before, after) = (Timestamp::from_second(59).unwrap(), Timestamp::from_second(60).unwrap());
        assert!(tasks.get(&id, before).is_some() && tasks.get(&id, after).is_none());
        assert_eq!(tasks.expired(after), std::slice::from_ref(&id));
        let ended = tasks.open_or_expired(&id).unwrap().ended();
        tasks.apply(&TaskChange { task: id.clone(), event: TaskEvent::Expired(ended) });
        tasks.cost(&id, Amount { tokens: 5, micro_usd: 0 });
        assert_eq!(tasks.recent().next().unwrap().1.spent.tokens, 5);
        assert!(tasks.get(&id, before).is_none() && tasks.expired(after).is_empty());
    }
}
