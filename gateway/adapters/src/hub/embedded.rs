//! A hub in the data folder: a file of events, one JSON object a line, each synced before it is answered.

use super::{Hub, HubError, Lease, PAGE, Page, Progress, Sending, Write};
use crate::files;
use crate::world::{decision_id, now};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use warden_core::inbox::message::Message;

/// Bytes of a message, all its texts together.
const MESSAGE_MAX: usize = 8 << 20;
/// Notes of progress that are shown.
const NOTES_MAX: usize = 1000;

/// See the module.
#[derive(Clone)]
pub struct Embedded(Arc<Mutex<Inner>>);

struct Inner {
    file: File,
    /// A write failed: nothing is taken any more, since nobody knows what is on the disk.
    failed: bool,
    state: State,
    leases: HashMap<String, Held>,
}

struct Held {
    holder: String,
    token: u64,
    until: Instant,
}

#[derive(Default)]
struct State {
    messages: BTreeMap<String, Entry>,
    /// By idempotency key: what was written with it.
    keys: HashMap<String, Event>,
    notes: Vec<Noted>,
    token: u64,
}

/// A message and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// It.
    #[serde(flatten)]
    pub message: Message,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// Whether it has been read.
    pub read: bool,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
}

/// A note of progress with its time.
#[derive(Clone, Debug, Serialize)]
pub struct Noted {
    /// When.
    pub at: Timestamp,
    /// The agent's.
    pub agent: String,
    /// What.
    #[serde(flatten)]
    pub note: Progress,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Sent {
        at: Timestamp,
        key: String,
        message: Message,
        #[serde(default)]
        answers: Option<String>,
    },
    Read {
        at: Timestamp,
        key: String,
        id: String,
    },
    Noted {
        at: Timestamp,
        key: String,
        agent: String,
        note: Progress,
    },
    Leased {
        at: Timestamp,
        agent: String,
        holder: String,
        token: u64,
    },
}

impl State {
    fn apply(&mut self, event: Event) {
        match &event {
            Event::Sent { at, key, message, answers } => {
                let entry = Entry { message: message.clone(), sent_at: *at, read: false, answers: answers.clone() };
                self.messages.insert(message.id.clone(), entry);
                self.keys.insert(key.clone(), event.clone());
            }
            Event::Read { key, id, .. } => {
                if let Some(entry) = self.messages.get_mut(id) {
                    entry.read = true;
                }
                self.keys.insert(key.clone(), event.clone());
            }
            Event::Noted { at, key, agent, note } => {
                if self.notes.len() == NOTES_MAX {
                    self.notes.remove(0);
                }
                self.notes.push(Noted { at: *at, agent: agent.clone(), note: note.clone() });
                self.keys.insert(key.clone(), event.clone());
            }
            Event::Leased { token, .. } => self.token = self.token.max(*token),
        }
    }
}

/// Why something was not sent.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// It makes no message.
    #[error("{0}")]
    Invalid(String),
    /// The key was used for another one.
    #[error("this idempotency key was used for something else")]
    OtherKey,
    /// The disk.
    #[error("the hub's file cannot be written")]
    Failed,
}

impl Embedded {
    /// Opens `hub/` in the data folder. What a power cut left half written at the end is taken away: nobody was told that it is there.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("hub");
        files::create_private_dir(&dir)?;
        let path = dir.join("events.ndjson");
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let mut state = State::default();
        for (number, line) in text[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty()).enumerate() {
            let event = serde_json::from_slice(line).map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("`{}`: line {} is no event of a hub", path.display(), number + 1),
                )
            })?;
            state.apply(event);
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        file.set_len(whole as u64)?;
        file.sync_all()?;
        crate::sync_dir(&dir)?;
        Ok(Self(Arc::new(Mutex::new(Inner { file, failed: false, state, leases: HashMap::new() }))))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message. The same key again sends nothing, and gives the message of then.
    pub fn send(&self, sending: Sending, key: &str) -> Result<Message, NotSent> {
        for (name, text) in [("to", &sending.to), ("from", &sending.from)] {
            if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
                return Err(NotSent::Invalid(format!(
                    "{name}: use 1 to 256 characters, and none that controls a terminal"
                )));
            }
        }
        let at = now();
        let message = sending.with_id(decision_id(at).to_string());
        if message.bytes() > MESSAGE_MAX {
            return Err(NotSent::Invalid(format!("{} bytes, and at most {MESSAGE_MAX} are taken", message.bytes())));
        }
        let mut inner = self.inner();
        match inner.state.keys.get(key) {
            Some(Event::Sent { message: known, .. }) => {
                let same = Message { id: message.id.clone(), ..known.clone() } == message;
                return if same { Ok(known.clone()) } else { Err(NotSent::OtherKey) };
            }
            Some(_) => return Err(NotSent::OtherKey),
            None => {}
        }
        let event = Event::Sent { at, key: key.to_owned(), message: message.clone(), answers: None };
        inner.write(event).map_err(|_| NotSent::Failed)?;
        Ok(message)
    }

    /// The messages of an agent, the oldest first.
    pub fn messages(&self, agent: &str, unread: bool) -> Vec<Entry> {
        let inner = self.inner();
        let of = |entry: &&Entry| entry.message.to == agent && !(unread && entry.read);
        inner.state.messages.values().filter(of).cloned().collect()
    }

    /// The last notes of progress of an agent.
    pub fn notes(&self, agent: &str) -> Vec<Noted> {
        self.inner().state.notes.iter().filter(|noted| noted.agent == agent).cloned().collect()
    }

    /// Writes what `event` makes of the state, unless that was done with the same key before.
    async fn once(
        &self,
        write: Write<'_>,
        agent: impl Fn(&State) -> Option<String> + Send + 'static,
        event: impl FnOnce(&State, String) -> Option<Event> + Send + 'static,
    ) -> Result<(), HubError> {
        let (this, key, fence) = (self.clone(), write.key.to_owned(), write.fence);
        let done = tokio::task::spawn_blocking(move || {
            let mut inner = this.inner();
            let agent = agent(&inner.state).ok_or(HubError::Refused(404))?;
            // Whoever had the lease before must not write any more.
            let token = inner.leases.get(&agent).map_or(inner.state.token, |held| held.token);
            if fence.is_some_and(|fence| fence < token) {
                return Err(HubError::Refused(412));
            }
            let event = event(&inner.state, key.clone()).ok_or(HubError::Refused(404))?;
            match inner.state.keys.get(&key) {
                Some(known) if same(known, &event) => Ok(()),
                Some(_) => Err(HubError::Refused(409)),
                None => inner.write(event),
            }
        });
        done.await.unwrap_or(Err(HubError::Lost))
    }
}

/// Whether two events do the same, whenever they do it.
fn same(one: &Event, other: &Event) -> bool {
    match (one, other) {
        (Event::Sent { message: a, answers: x, .. }, Event::Sent { message: b, answers: y, .. }) => {
            x == y && Message { id: String::new(), ..a.clone() } == Message { id: String::new(), ..b.clone() }
        }
        (Event::Read { id: a, .. }, Event::Read { id: b, .. }) => a == b,
        (Event::Noted { agent: a, note: x, .. }, Event::Noted { agent: b, note: y, .. }) => a == b && x == y,
        _ => false,
    }
}

impl Inner {
    fn write(&mut self, event: Event) -> Result<(), HubError> {
        if self.failed {
            return Err(HubError::NotSent);
        }
        let mut line = serde_json::to_vec(&event).map_err(|_| HubError::NotSent)?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(e) = written {
            self.failed = true;
            tracing::error!(error = %e, "the hub's file cannot be written: it takes nothing until the next start");
            return Err(HubError::Lost);
        }
        self.state.apply(event);
        Ok(())
    }
}

impl Hub for Embedded {
    fn unread<'a>(&'a self, agent: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Page, HubError>> {
        Box::pin(async move {
            let all = self.messages(agent, true);
            let later = all.into_iter().filter(|entry| after.is_none_or(|after| entry.message.id.as_str() > after));
            let page: Vec<Entry> = later.take(PAGE).collect();
            let next = (page.len() == PAGE).then(|| page.last().map(|entry| entry.message.id.clone())).flatten();
            let messages = page.iter().map(|entry| serde_json::to_value(entry).unwrap_or(Value::Null)).collect();
            Ok(Page { messages, next })
        })
    }

    fn reply<'a>(&'a self, id: &'a str, body: &'a str, write: Write<'a>) -> BoxFuture<'a, Result<(), HubError>> {
        let (of, id, body) = (id.to_owned(), id.to_owned(), body.to_owned());
        Box::pin(self.once(
            write,
            move |state| Some(state.messages.get(&of)?.message.to.clone()),
            move |state, key| {
                let asked = &state.messages.get(&id)?.message;
                let at = now();
                let message = Message {
                    id: decision_id(at).to_string(),
                    to: asked.from.clone(),
                    from: asked.to.clone(),
                    subject: format!("Re: {}", asked.subject),
                    body,
                    attachments: Vec::new(),
                };
                Some(Event::Sent { at, key, message, answers: Some(id) })
            },
        ))
    }

    fn mark_read<'a>(&'a self, id: &'a str, write: Write<'a>) -> BoxFuture<'a, Result<(), HubError>> {
        let (of, id) = (id.to_owned(), id.to_owned());
        Box::pin(self.once(
            write,
            move |state| Some(state.messages.get(&of)?.message.to.clone()),
            move |_, key| Some(Event::Read { at: now(), key, id }),
        ))
    }

    fn progress<'a>(
        &'a self,
        agent: &'a str,
        note: &'a Progress,
        write: Write<'a>,
    ) -> BoxFuture<'a, Result<(), HubError>> {
        let (of, agent, note) = (agent.to_owned(), agent.to_owned(), note.clone());
        Box::pin(self.once(
            write,
            move |_| Some(of.clone()),
            move |_, key| Some(Event::Noted { at: now(), key, agent, note }),
        ))
    }

    fn lease<'a>(&'a self, agent: &'a str, holder: &'a str, ttl_s: u64) -> BoxFuture<'a, Result<Lease, HubError>> {
        Box::pin(async move {
            let (this, agent, holder) = (self.clone(), agent.to_owned(), holder.to_owned());
            let leased = tokio::task::spawn_blocking(move || {
                let mut inner = this.inner();
                let until = Instant::now() + Duration::from_secs(ttl_s);
                if let Some(held) = inner.leases.get_mut(&agent).filter(|held| held.until > Instant::now()) {
                    if held.holder != holder {
                        return Err(HubError::Leased);
                    }
                    held.until = until;
                    return Ok(Lease { token: held.token, ttl_s });
                }
                let token = inner.state.token + 1;
                inner.write(Event::Leased { at: now(), agent: agent.clone(), holder: holder.clone(), token })?;
                inner.leases.insert(agent, Held { holder, token, until });
                Ok(Lease { token, ttl_s })
            });
            leased.await.unwrap_or(Err(HubError::Lost))
        })
    }

    fn release<'a>(&'a self, agent: &'a str, holder: &'a str) -> BoxFuture<'a, Result<(), HubError>> {
        Box::pin(async move {
            let mut inner = self.inner();
            if inner.leases.get(agent).is_some_and(|held| held.holder == holder) {
                inner.leases.remove(agent);
            }
            Ok(())
        })
    }
}
