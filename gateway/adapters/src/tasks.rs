//! Tasks as the running gateway keeps them: opened and closed by recorded events, each with a state document of its own.

use crate::files;
use crate::world::{World, now};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use warden_core::journal::record::{Body, Record};
use warden_core::pipeline::Gate;
use warden_core::port::{Journal, JournalError, Room};
use warden_core::proposal::TaskId;
use warden_core::task::convention::{ENGINE_FACTORY_KEY, EngineLease, KIND};
use warden_core::task::scope::Scope;
use warden_core::task::state::Reserved;
use warden_core::task::{OPEN_MAX, Task, TaskChange, TaskEvent, is_lease, lease};

/// How long a task is open that Warden opened by itself.
const AMBIENT: SignedDuration = SignedDuration::from_hours(24);

/// See the module.
pub struct TaskBook {
    gate: Arc<Gate<World>>,
    dir: PathBuf,
    /// Members of states that are the host's.
    pub reserved: Reserved,
    /// Where workers reach the gateway, for leases.
    base_url: OnceLock<String>,
    /// Tasks that Warden opened by itself.
    ambient: Mutex<HashMap<Ambient, TaskId>>,
    /// One change of a task at a time.
    changing: tokio::sync::Mutex<()>,
    /// One write of a state at a time.
    pub writing: tokio::sync::Mutex<()>,
}

/// Worker, session and run.
type Ambient = (String, Option<String>, Option<String>);

/// Why there is no such task, or no new one: a reason code.
pub type Refused = &'static str;

impl TaskBook {
    /// With state documents in `dir`.
    pub fn new(gate: Arc<Gate<World>>, dir: PathBuf, reserved: Reserved) -> Self {
        Self {
            gate,
            dir,
            reserved,
            base_url: OnceLock::new(),
            ambient: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Says where workers reach the gateway, once it listens.
    pub fn reached_at(&self, base_url: String) {
        let _ = self.base_url.set(base_url);
    }

    /// Where workers reach the gateway.
    pub fn base_url(&self) -> &str {
        self.base_url.get().map(String::as_str).unwrap_or_default()
    }

    async fn record(&self, change: TaskChange, room: Room) -> Result<(), JournalError> {
        self.gate.ports.append(Record::new(now(), Body::Task(change.clone())), room).await?;
        self.gate.counted(|counted| counted.task(&change));
        Ok(())
    }

    /// Opens a task: recorded, then in force.
    pub async fn open(&self, task: Task, scope: Option<Scope>) -> Result<(TaskId, Task), Refused> {
        let _one_at_a_time = self.changing.lock().await;
        self.open_here(task, scope).await
    }

    async fn open_here(&self, task: Task, scope: Option<Scope>) -> Result<(TaskId, Task), Refused> {
        if !task.ambient && self.gate.counted(|counted| counted.tasks.count(&task.worker)) >= OPEN_MAX {
            return Err("too_many_tasks");
        }
        let id = TaskId::new(uuid::Uuid::now_v7().to_string());
        if let Some(scope) = &scope {
            // It is the tenant's own text, so it stands beside the state of the task and in no record.
            self.keep_scope(&id, scope).map_err(|e| {
                tracing::error!(error = %e, task = %id, "the scope of a task cannot be written");
                "journal_failed"
            })?;
        }
        let change = TaskChange { task: id.clone(), event: TaskEvent::Opened(task.clone()) };
        if let Err(e) = self.record(change, Room::Ordinary).await {
            let _ = std::fs::remove_file(self.scope_file(&id));
            return Err(e.reason());
        }
        self.gate.scope(&id, scope.map(Arc::new));
        Ok((id, task))
    }

    /// The task that encloses a worker's calls when it names none.
    pub async fn ambient(
        &self,
        worker: &str,
        session: Option<String>,
        run: Option<String>,
    ) -> Result<(TaskId, Task), Refused> {
        let key = (worker.to_owned(), session.clone(), run.clone());
        let known = |book: &Self| {
            let id = lock(&book.ambient).get(&key).cloned()?;
            let task = book.gate.counted(|counted| counted.tasks.get(&id, now()).map(|work| work.task.clone()))?;
            Some((id, task))
        };
        if let Some(found) = known(self) {
            return Ok(found);
        }
        let _one_at_a_time = self.changing.lock().await;
        if let Some(found) = known(self) {
            return Ok(found);
        }
        let open = self.gate.counted(|counted| {
            let found = counted.tasks.ambient(worker, session.as_deref(), run.as_deref(), now());
            found.map(|(id, work)| (id.clone(), work.task.clone()))
        });
        let (id, task) = match open {
            Some(found) => found,
            None => {
                let opened = now();
                let expires = opened.checked_add(AMBIENT).unwrap_or(opened);
                let task = Task {
                    worker: worker.to_owned(),
                    session,
                    run,
                    engine: None,
                    zone: None,
                    llm: false,
                    ambient: true,
                    scoped: false,
                    by: None,
                    opened,
                    expires,
                };
                self.open_here(task, None).await?
            }
        };
        lock(&self.ambient).insert(key, id.clone());
        Ok((id, task))
    }

    /// An open task of a worker; with `lease`, only if that is its own. A task of somebody else is as unknown as none.
    pub fn of(&self, id: &TaskId, worker: Option<&str>) -> Result<Task, Refused> {
        let task = self.gate.counted(|counted| counted.tasks.get(id, now()).map(|work| work.task.clone()));
        let ours = task.filter(|task| worker.is_none_or(|worker| task.is_of(worker)));
        ours.ok_or("no_enclosing_task")
    }

    /// Whether a lease is that of a task.
    pub fn is_lease(&self, id: &TaskId, task: &Task, lease: &str) -> bool {
        is_lease(self.gate.ports.scanner.key(), id, task, lease)
    }

    /// What stands in a task's state under the engine's key.
    pub fn lease(&self, id: &TaskId, task: &Task) -> EngineLease {
        EngineLease {
            kind: KIND.into(),
            lease: lease(self.gate.ports.scanner.key(), id, task),
            task: id.to_string(),
            engine: task.engine.clone(),
            base_url: self.base_url().to_owned(),
            expires: task.expires.to_string(),
        }
    }

    /// Closes a task. Nothing when it is not open.
    pub async fn close(&self, id: &TaskId) -> Result<Option<warden_core::task::Ended>, Refused> {
        self.end(id, TaskEvent::Closed).await.map_err(JournalError::reason)
    }

    async fn end(
        &self,
        id: &TaskId,
        event: impl Fn(warden_core::task::Ended) -> TaskEvent,
    ) -> Result<Option<warden_core::task::Ended>, JournalError> {
        let _one_at_a_time = self.changing.lock().await;
        let ended = self.gate.counted(|counted| counted.tasks.open_or_expired(id).map(|work| work.ended()));
        let Some(ended) = ended else { return Ok(None) };
        self.record(TaskChange { task: id.clone(), event: event(ended.clone()) }, Room::Reserved).await?;
        let metrics = &self.gate.ports.metrics;
        if ended.engine_bypass_suspected {
            metrics.bypasses.inc();
            tracing::warn!(task = %id, worker = ended.worker, "a task that said it needs an engine called none: was it gone around?");
        }
        self.gate.scope(id, None);
        let _nobody_writes = self.writing.lock().await;
        for file in [self.file(id), self.scope_file(id)] {
            if let Err(e) = std::fs::remove_file(file)
                && e.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(error = %e, task = %id, "the state of a task that is over stays on the disk");
            }
        }
        Ok(Some(ended))
    }

    /// Records that an engine was asked for, and there is none.
    pub async fn unresolved(&self, id: &TaskId, reason: &str) {
        let change = TaskChange { task: id.clone(), event: TaskEvent::Unresolved { reason: reason.to_owned() } };
        let _ = self.record(change, Room::Ordinary).await;
    }

    /// Removes what tasks left behind that are not open: a crash came between their end and this.
    pub fn tidy(&self) -> io::Result<()> {
        let files = match std::fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for file in files {
            let path = file?.path();
            let id = TaskId::new(path.file_stem().unwrap_or_default().to_string_lossy());
            if self.gate.counted(|counted| counted.tasks.open_or_expired(&id).is_none()) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Ends tasks whose time is over.
    pub async fn sweep(&self) {
        for id in self.gate.counted(|counted| counted.tasks.expired(now())) {
            if let Err(e) = self.end(&id, TaskEvent::Expired).await {
                tracing::error!(error = %e, task = %id, "the end of a task could not be recorded");
            }
        }
        let time = now();
        lock(&self.ambient).retain(|_, id| self.gate.counted(|counted| counted.tasks.get(id, time).is_some()));
    }

    fn keep_scope(&self, id: &TaskId, scope: &Scope) -> io::Result<()> {
        files::create_private_dir(&self.dir)?;
        files::write_private(&self.scope_file(id), &serde_json::to_vec(scope.source())?)
    }

    /// Takes up what hosts have declared of tasks that are still open. A task whose scope cannot be read has none: nothing is in it.
    pub fn take_up(&self) {
        let scoped: Vec<TaskId> = self.gate.counted(|counted| {
            let open = counted.tasks.all_open().filter(|(_, work)| work.task.scoped);
            open.map(|(id, _)| id.clone()).collect()
        });
        for id in scoped {
            let read = || -> io::Result<Scope> {
                let source = serde_json::from_slice(&std::fs::read(self.scope_file(&id))?)?;
                Scope::new(source).map_err(io::Error::other)
            };
            match read() {
                Ok(scope) => self.gate.scope(&id, Some(Arc::new(scope))),
                Err(e) => {
                    tracing::error!(error = %e, task = %id, "the scope of a task cannot be read: nothing is in it")
                }
            }
        }
    }

    fn scope_file(&self, id: &TaskId) -> PathBuf {
        self.dir.join(format!("{id}.scope"))
    }

    fn file(&self, id: &TaskId) -> PathBuf {
        // Ids are Warden's own, of hex digits and dashes.
        self.dir.join(format!("{id}.json"))
    }

    /// A task's whole state: what its worker wrote, and the host's members.
    pub fn state(&self, id: &TaskId, task: &Task) -> io::Result<Map<String, Value>> {
        let mut state = match std::fs::read(self.file(id)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(e),
            Ok(bytes) => serde_json::from_slice(&bytes)?,
        };
        state.insert(ENGINE_FACTORY_KEY.into(), json!(self.lease(id, task)));
        let mut meta = json!({ "task_id": id });
        if let Some(engine) = &task.engine {
            meta["engine_id"] = json!(engine);
        }
        if let Some(session) = &task.session {
            meta["session"] = json!(session);
        }
        state.insert("meta".into(), meta);
        Ok(state)
    }

    /// Keeps what a worker wrote. The host's members are made anew each time.
    pub fn keep(&self, id: &TaskId, mut state: Map<String, Value>) -> io::Result<()> {
        [ENGINE_FACTORY_KEY, "meta"].iter().for_each(|name| drop(state.shift_remove(*name)));
        files::create_private_dir(&self.dir)?;
        files::write_private(&self.file(id), Value::Object(state).to_string().as_bytes())
    }
}

// A std mutex: nothing awaits while it is held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
