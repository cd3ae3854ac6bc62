//! What a stdio server says by itself, on its way to the streams of its worker, and kept a while for one that resumes
//! (MCP 2025-11-25, "Resumability and Redelivery").
//!
//! A stream is a row of numbered messages. Whoever carries it pulls from the row, so a slow worker delays nobody else, and
//! one that lost its connection goes on where it was.

use super::exchange::Exchange;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use warden_core::sse;

/// Messages of one stream that are kept; then the oldest go.
const KEPT: usize = 256;
/// Bytes of all messages that are kept.
const BYTES_MAX: usize = 4 << 20;
/// Streams that are over and kept.
const OVER_MAX: usize = 32;

/// The stream of a `GET`, which is there from the beginning.
pub const LISTENING: u64 = 0;

/// The streams of one connection.
pub struct Outbox {
    // A std mutex: nothing awaits while it is held.
    rows: Mutex<Rows>,
    /// Whether events have ids, with which a worker can ask for what follows.
    resumable: bool,
}

struct Rows {
    rows: BTreeMap<u64, Row>,
    next: u64,
    bytes: usize,
    /// How many carry the listening stream now.
    listeners: usize,
    gone: bool,
}

#[derive(Default)]
struct Row {
    messages: VecDeque<Arc<str>>,
    /// The number of the first message that is kept.
    first: u64,
    /// Messages before this one were given to somebody.
    given: u64,
    over: bool,
    news: Arc<Notify>,
}

impl Row {
    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }
}

impl Outbox {
    /// With nothing said yet.
    pub fn new(resumable: bool) -> Self {
        let rows = [(LISTENING, Row::default())].into();
        Self { rows: Mutex::new(Rows { rows, next: 1, bytes: 0, listeners: 0, gone: false }), resumable }
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream beside one answer. What nobody was given so far comes with it.
    pub fn open(&self) -> u64 {
        let mut rows = self.rows();
        let number = rows.next;
        rows.next += 1;
        let mut row = Row::default();
        if rows.listeners == 0
            && let Some(waiting) = rows.rows.get_mut(&LISTENING)
        {
            let unread = usize::try_from(waiting.given.saturating_sub(waiting.first)).unwrap_or(usize::MAX);
            row.messages = waiting.messages.split_off(unread.min(waiting.messages.len()));
        }
        rows.rows.insert(number, row);
        number
    }

    /// The stream is over: `last` is its final message, if it was begun; it is forgotten if not.
    pub fn close(&self, number: u64, last: Option<&str>) {
        let mut rows = self.rows();
        match last {
            Some(last) => {
                rows.push(number, last);
                if let Some(row) = rows.rows.get_mut(&number) {
                    row.over = true;
                    row.news.notify_waiters();
                }
                let over: Vec<u64> = rows.rows.iter().filter(|(_, row)| row.over).map(|(n, _)| *n).collect();
                for oldest in over.iter().take(over.len().saturating_sub(OVER_MAX)) {
                    rows.forget(*oldest);
                }
            }
            None => rows.forget(number),
        }
    }

    /// The stream was told to its end, and cannot be asked for again.
    pub fn forget(&self, number: u64) {
        self.rows().forget(number);
    }

    /// Puts a message into the stream of a number; whether there is one.
    pub fn put(&self, number: u64, message: &str) -> bool {
        let mut rows = self.rows();
        let open = rows.rows.get(&number).is_some_and(|row| !row.over);
        if open {
            rows.push(number, message);
        }
        open
    }

    /// Puts a message where a worker sees it: beside the answer that was begun last, or on the listening stream, which
    /// comes first when nobody's request is behind the message.
    pub fn post(&self, message: &str, of_a_request: bool) {
        let mut rows = self.rows();
        let answering =
            rows.rows.iter().rev().find(|(number, row)| **number != LISTENING && !row.over).map(|(n, _)| *n);
        let number = match answering {
            Some(number) if of_a_request || rows.listeners == 0 => number,
            _ => LISTENING,
        };
        rows.push(number, message);
    }

    /// Whether a stream has a message.
    pub fn has_news(&self, number: u64) -> bool {
        self.rows().rows.get(&number).is_some_and(|row| !row.messages.is_empty())
    }

    /// Waits until a stream has a message, or is over.
    pub async fn news(&self, number: u64) {
        let Some(news) = self.rows().rows.get(&number).map(|row| row.news.clone()) else { return };
        let told = news.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if !self.has_news(number) {
            told.await;
        }
    }

    /// Where a worker goes on that has seen `event`; nothing when that is not kept.
    pub fn after(&self, event: &str) -> Option<(u64, u64)> {
        let (number, seen) = event.split_once('-')?;
        let (number, seen): (u64, u64) = (number.parse().ok()?, seen.parse().ok()?);
        let rows = self.rows();
        let row = rows.rows.get(&number)?;
        (seen >= row.first && seen <= row.end()).then_some((number, seen))
    }

    /// Where the listening stream goes on.
    pub fn unheard(&self) -> u64 {
        self.rows().rows.get(&LISTENING).map_or(0, |row| row.given.max(row.first))
    }

    /// The event that tells a worker, before anything is said, from where it can resume.
    pub fn primer(&self, number: u64) -> Vec<u8> {
        format!("id: {number}-0\nretry: 1000\ndata:\n\n").into_bytes()
    }

    /// Carries a stream from message `next` to its end, until the worker is gone, or until nothing was said for `hold`: then
    /// the worker is to come back for the rest.
    pub async fn carry(&self, number: u64, mut next: u64, exchange: &Exchange, hold: Option<Duration>) {
        let listens = number == LISTENING;
        if listens {
            self.rows().listeners += 1;
        }
        loop {
            let (batch, over, news) = {
                let rows = self.rows();
                let Some(row) = rows.rows.get(&number) else { break };
                let skip = usize::try_from(next.saturating_sub(row.first)).unwrap_or(usize::MAX);
                next = next.max(row.first);
                let batch: Vec<_> = row.messages.iter().skip(skip).cloned().collect();
                (batch, row.over || (rows.gone && listens), row.news.clone())
            };
            let told = news.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let mut there = true;
            for message in &batch {
                next += 1;
                let id = self.resumable.then(|| format!("{number}-{next}"));
                there = there && exchange.send(sse::event(message, id.as_deref())).await;
                if there && let Some(row) = self.rows().rows.get_mut(&number) {
                    row.given = row.given.max(next);
                }
            }
            if !there || (over && batch.is_empty()) {
                break;
            }
            // Something may have come between the look and the wait.
            if batch.is_empty() && !self.has_after(number, next) {
                tokio::select! {
                    () = told => {}
                    () = exchange.left() => break,
                    () = pause(hold) => break,
                }
            }
        }
        if listens {
            self.rows().listeners -= 1;
        }
        exchange.end();
    }

    fn has_after(&self, number: u64, next: u64) -> bool {
        let rows = self.rows();
        (rows.gone && number == LISTENING) || rows.rows.get(&number).is_none_or(|row| row.end() > next || row.over)
    }

    /// The server is gone: streams end once everything is told.
    pub fn end(&self) {
        let mut rows = self.rows();
        rows.gone = true;
        rows.rows.values().for_each(|row| row.news.notify_waiters());
    }

    /// Whether somebody carries the listening stream.
    pub fn is_heard(&self) -> bool {
        self.rows().listeners > 0
    }
}

async fn pause(hold: Option<Duration>) {
    match hold {
        Some(hold) => tokio::time::sleep(hold).await,
        None => std::future::pending().await,
    }
}

impl Rows {
    fn push(&mut self, number: u64, message: &str) {
        let Some(row) = self.rows.get_mut(&number) else { return };
        self.bytes += message.len();
        row.messages.push_back(message.into());
        row.news.notify_waiters();
        // What is over goes first, then what somebody was given, and what nobody has heard last of all.
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.rows.iter().find(|(n, row)| row.over && **n != number).map(|(n, _)| *n)
        {
            self.forget(oldest);
        }
        let Some(row) = self.rows.get_mut(&number) else { return };
        while row.messages.len() > KEPT || (self.bytes > BYTES_MAX && row.first < row.given && row.messages.len() > 1) {
            let oldest = row.messages.pop_front();
            row.first += 1;
            self.bytes -= oldest.map_or(0, |message| message.len());
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(row) = self.rows.remove(&number) {
            self.bytes -= row.messages.iter().map(|message| message.len()).sum::<usize>();
            row.news.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_where_a_worker_sees_them() {
        let outbox = Outbox::new(true);
        outbox.post("early", true);
        let stream = outbox.open();
        assert!(outbox.has_news(stream), "what nobody was given comes with the next answer");
        outbox.post("beside", true);
        outbox.rows().listeners = 1;
        outbox.post("changed", false);
        outbox.post("asks", true);
        let rows = outbox.rows();
        let said = |n: u64| rows.rows[&n].messages.iter().map(|m| m.to_string()).collect::<Vec<_>>();
        assert_eq!(said(stream), ["early", "beside", "asks"]);
        assert_eq!(said(LISTENING), ["changed"]);
    }

    #[test]
    fn a_stream_is_kept_within_bounds() {
        let outbox = Outbox::new(true);
        let stream = outbox.open();
        for _ in 0..KEPT + 10 {
            assert!(outbox.put(stream, "x"));
        }
        assert_eq!(outbox.after(&format!("{stream}-3")), None, "the oldest are gone");
        assert_eq!(outbox.after(&format!("{stream}-20")), Some((stream, 20)));
        for bad in ["", "1", "x-y", "9-1", "1-99999999"] {
            assert_eq!(outbox.after(bad), None, "{bad}");
        }
        outbox.close(stream, Some("last"));
        assert!(!outbox.put(stream, "late"));
        for _ in 0..OVER_MAX {
            let next = outbox.open();
            outbox.close(next, Some("done"));
        }
        assert_eq!(outbox.after(&format!("{stream}-20")), None, "and so is a stream that is long over");
    }
}
