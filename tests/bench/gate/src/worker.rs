//! One worker of a soak: it asks for this and that at its own pace, and notes what became of each call.

use crate::Outcome;
use crate::client::{Answer, Ask, Client, Door, echoes};
use crate::stats::Chance;
use http_body_util::BodyExt;
use hyper::StatusCode;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// What takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Milliseconds from one call to the next, at least and at most.
const PAUSE: (u64, u64) = (500, 2_000);
/// One worker of so many keeps a stream open.
const LISTENS: usize = 10;
/// Odd answers that are kept to be shown.
const SHOWN: usize = 10;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The tool's own answer came.
    Answered,
    /// The list came.
    Listed,
    /// Policy refused it.
    Refused,
    /// It was not sent, and Warden says that nothing was done.
    Unsent,
    /// Warden says that nobody knows whether it was done.
    Unknown,
    /// The server no longer knew the session.
    Forgotten,
    /// Something else came.
    Odd,
    /// Nothing came.
    Lost,
}

impl End {
    /// Every one with its name.
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::Answered, "answered"),
        (Self::Listed, "listed"),
        (Self::Refused, "refused"),
        (Self::Unsent, "unsent"),
        (Self::Unknown, "unknown"),
        (Self::Forgotten, "forgotten"),
        (Self::Odd, "odd"),
        (Self::Lost, "lost"),
    ];
}

/// What all workers have done so far.
#[derive(Default)]
pub(crate) struct Counts {
    ends: [AtomicU64; End::ALL.len()],
    /// Sessions begun.
    pub(crate) sessions: AtomicU64,
    /// Sessions that could not be begun at the time.
    pub(crate) not_begun: AtomicU64,
    /// Streams of the server opened.
    pub(crate) streams: AtomicU64,
    /// Pieces that came on these.
    pub(crate) heard: AtomicU64,
    odd: Mutex<Vec<String>>,
}

impl Counts {
    /// Calls that ended so.
    pub(crate) fn of(&self, end: End) -> u64 {
        self.ends[end as usize].load(Ordering::Relaxed)
    }

    /// What was odd or lost, as far as it is kept.
    pub(crate) fn odd(&self) -> Vec<String> {
        self.odd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, end: End, what: impl FnOnce() -> String) {
        self.ends[end as usize].fetch_add(1, Ordering::Relaxed);
        let mut odd = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(end, End::Odd | End::Lost) && odd.len() < SHOWN {
            odd.push(what());
        }
    }
}

/// A worker before its first call.
pub(crate) struct Worker {
    number: usize,
    door: Door,
    until: Instant,
    chance: Chance,
    counts: Arc<Counts>,
}

impl Worker {
    /// What it will do follows from the seed and its number alone.
    pub(crate) fn new(number: usize, door: Door, until: Instant, seed: u64, counts: Arc<Counts>) -> Self {
        let mut chance = Chance(seed);
        let mixed = chance.below(u64::MAX) ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { number, door, until, chance: Chance(mixed), counts }
    }

    /// Works until it is time: each call by its key, with its end.
    pub(crate) async fn work(mut self) -> Outcome<Vec<(String, End)>> {
        let (mut client, mut calls) = (Client::connect(self.door.clone()).await?, Vec::new());
        loop {
            sleep(Duration::from_millis(PAUSE.0 + self.chance.below(PAUSE.1 - PAUSE.0))).await;
            if Instant::now() >= self.until {
                return Ok(calls);
            }
            let key = format!("worker {} call {}", self.number, calls.len());
            if !client.is_open() && !self.open(&mut client, &key).await {
                continue;
            }
            let ask = match self.chance.below(10) {
                0..=5 => Ask::Echo,
                6..=7 => Ask::Progress,
                8 => Ask::List,
                _ => Ask::Erase,
            };
            let (end, what) = match timeout(PATIENCE, client.ask(ask, &key)).await {
                Ok(Ok(answer)) => (judge(ask, &key, &answer), answer.shown()),
                Ok(Err(e)) => (End::Lost, e.to_string()),
                Err(e) => (End::Lost, e.to_string()),
            };
            self.counts.note(end, || format!("{key}, {ask:?}: {what}"));
            match end {
                End::Forgotten => client.forget(),
                // Its connection may still be waiting for that answer.
                End::Lost => client = Client::connect(self.door.clone()).await?,
                _ => {}
            }
            calls.push((key, end));
        }
    }

    /// Begins a session. While the server is away that fails, and is tried again after a pause.
    async fn open(&self, client: &mut Client, key: &str) -> bool {
        match timeout(PATIENCE, client.open()).await {
            Ok(Ok(())) => {
                self.counts.sessions.fetch_add(1, Ordering::Relaxed);
                if self.number.is_multiple_of(LISTENS) {
                    match timeout(PATIENCE, client.listen()).await {
                        Ok(Ok(response)) => drop(tokio::spawn(hear(response.into_body(), self.counts.clone()))),
                        Ok(Err(e)) => self.counts.note(End::Odd, || format!("{key}, stream: {e}")),
                        Err(e) => self.counts.note(End::Lost, || format!("{key}, stream: {e}")),
                    }
                }
                true
            }
            Ok(Err(_)) => {
                self.counts.not_begun.fetch_add(1, Ordering::Relaxed);
                client.forget();
                false
            }
            Err(e) => {
                self.counts.note(End::Lost, || format!("{key}, session: {e}"));
                false
            }
        }
    }
}

/// Listens until the stream ends.
async fn hear(mut body: hyper::body::Incoming, counts: Arc<Counts>) {
    counts.streams.fetch_add(1, Ordering::Relaxed);
    while let Some(Ok(_)) = body.frame().await {
        counts.heard.fetch_add(1, Ordering::Relaxed);
    }
}

/// What an answer means. One call has one.
fn judge(ask: Ask, key: &str, answer: &Answer) -> End {
    let mut finals = answer.finals();
    let (Some(message), None) = (finals.next(), finals.next()) else {
        return match answer.status {
            StatusCode::NOT_FOUND => End::Forgotten,
            StatusCode::OK if answer.finals().next().is_none() => End::Lost,
            _ => End::Odd,
        };
    };
    let (result, error) = (&message["result"], &message["error"]);
    let kind = result["_meta"]["warden/kind"].as_str().or(error["data"]["kind"].as_str());
    let told = result.pointer("/content/0/text").or(error.get("message")).and_then(Value::as_str).unwrap_or_default();
    let lists = |name: &str| result["tools"].as_array().is_some_and(|all| all.iter().any(|tool| tool["name"] == name));
    match (ask, kind) {
        (_, Some("no_answer")) if told.contains("nothing was done") => End::Unsent,
        (_, Some("no_answer")) => End::Unknown,
        (Ask::Erase, Some("denied")) if result["isError"] == true => End::Refused,
        (Ask::Echo, None) if echoes(result, key) => End::Answered,
        (Ask::Progress, None) if echoes(result, key) && answer.progress() == 2 => End::Answered,
        (Ask::List, None) if lists("echo") && !lists("erase") => End::Listed,
        _ => End::Odd,
    }
}
