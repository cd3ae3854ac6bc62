//! Secret values in a stream of events, such as an LLM's answer as it is written: the text of each channel is looked at as a
//! whole, and an event goes on as soon as none of it can belong to a value any more.
//!
//! An event is held from the first byte of something that may become a value: the beginning of a published token, four bytes of
//! a registered value, sixteen of an encoding. A held event holds those behind it. Views that need a whole message, such as
//! text read backwards, may find a value when its beginning is gone.

use super::document::Document;
use super::hits::{Hit, Hits};
use super::{FINDINGS_MAX, Finding, Scan, Scanner, Tier, between_characters};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of text that are held at most; with more the stream ends.
pub const HELD_MAX: usize = 16 << 10;
/// Bytes behind that are kept to understand what comes.
const CONTEXT: usize = 4 << 10;
/// Events that are held at most.
const HELD_EVENTS_MAX: usize = 16 << 10;
/// Channels of one stream.
const CHANNELS_MAX: usize = 1024;

/// A text in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it continues: a choice, or a block. Findings are told to be there.
    pub channel: String,
    /// What it adds.
    pub text: String,
}

/// An event that may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released<E> {
    /// As it came.
    pub event: E,
    /// For each of its pieces the text that stands in its place, when a value in it was replaced.
    pub texts: Vec<Option<String>>,
}

/// What becomes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow<E> {
    /// These may go on; none, while they are held.
    On(Vec<Released<E>>),
    /// It ends here. What was held does not go on.
    Ends,
}

/// One stream. `E` is an event as it is to be forwarded.
#[derive(Debug)]
pub struct Stream<E> {
    scanner: Arc<Scanner>,
    /// Whether values are replaced; else the first one ends the stream.
    replaces: bool,
    channels: Vec<Channel>,
    held: VecDeque<Held<E>>,
    scan: Scan,
    is_over: bool,
}

#[derive(Debug)]
struct Held<E> {
    event: E,
    /// Channel and place of each piece.
    pieces: Vec<(usize, Range<usize>)>,
}

/// The text of a choice or block. Places are counted from its beginning.
#[derive(Debug)]
struct Channel {
    name: String,
    /// The end of it, from `base` on.
    text: String,
    base: usize,
    /// Up to here nothing can become a value any more.
    safe: usize,
    /// Up to here it went on.
    gone: usize,
    /// Up to here it was looked at.
    seen: usize,
    /// What stands in place of values, in order.
    replaced: Vec<(Range<usize>, String)>,
}

impl<E> Stream<E> {
    /// A stream in which values are replaced by `[secret:FORMAT:FINGERPRINT]`, or that the first one ends.
    pub fn new(scanner: Arc<Scanner>, replaces: bool) -> Self {
        Self { scanner, replaces, channels: Vec::new(), held: VecDeque::new(), scan: Scan::default(), is_over: false }
    }

    /// Everything found so far.
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Takes the next event with its texts.
    pub fn push(&mut self, event: E, pieces: &[Piece]) -> Flow<E> {
        let mut held = Held { event, pieces: Vec::new() };
        for piece in pieces {
            let Some(channel) = self.channel(&piece.channel) else { return self.ends() };
            let start = self.channels[channel].end();
            self.channels[channel].text.push_str(&piece.text);
            held.pieces.push((channel, start..start + piece.text.len()));
        }
        let mut touched: Vec<usize> = held.pieces.iter().map(|(channel, _)| *channel).collect();
        touched.dedup();
        self.held.push_back(held);
        for channel in touched {
            self.look(channel, false);
        }
        let flow = self.flow();
        // What is held after all that could go went. One event may be longer: it is there in any case.
        let held: usize = self.channels.iter().map(|channel| channel.end() - channel.gone).sum();
        let own: usize = pieces.iter().map(|piece| piece.text.len()).sum();
        if held.saturating_sub(own) > HELD_MAX || self.held.len() > HELD_EVENTS_MAX {
            self.scan.unscannable = true;
            return self.ends();
        }
        flow
    }

    /// Takes the end: what is held is complete now.
    pub fn finish(&mut self) -> Flow<E> {
        (0..self.channels.len()).for_each(|channel| self.look(channel, true));
        self.flow()
    }

    fn channel(&mut self, name: &str) -> Option<usize> {
        if let Some(at) = self.channels.iter().position(|channel| channel.name == name) {
            return Some(at);
        }
        if self.channels.len() == CHANNELS_MAX {
            self.scan.unscannable = true;
            return None;
        }
        self.channels.push(Channel::new(name));
        Some(self.channels.len() - 1)
    }

    fn ends(&mut self) -> Flow<E> {
        self.is_over = true;
        self.held.clear();
        Flow::Ends
    }

    fn look(&mut self, channel: usize, is_last: bool) {
        let channel = &mut self.channels[channel];
        // A held text is not looked at anew for each byte of it.
        let is_soon = channel.end() - channel.seen <= (channel.end() - channel.safe) / 16;
        if !is_last && is_soon {
            return;
        }
        channel.look(&self.scanner, &mut self.scan, is_last);
    }

    fn flow(&mut self) -> Flow<E> {
        if self.is_over || self.scan.unscannable || !self.replaces && !self.scan.findings.is_empty() {
            return self.ends();
        }
        let mut released = Vec::new();
        while let Some(held) = self.held.front() {
            if held.pieces.iter().any(|(channel, span)| span.end > self.channels[*channel].safe) {
                break;
            }
            let Some(Held { event, pieces }) = self.held.pop_front() else { break };
            let texts = pieces.into_iter().map(|(channel, span)| self.channels[channel].go(span)).collect();
            released.push(Released { event, texts });
        }
        Flow::On(released)
    }
}

impl Channel {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), text: String::new(), base: 0, safe: 0, gone: 0, seen: 0, replaced: Vec::new() }
    }

    fn end(&self) -> usize {
        self.base + self.text.len()
    }

    /// Looks at what is there of the text, and tells what is certain.
    fn look(&mut self, scanner: &Scanner, scan: &mut Scan, is_last: bool) {
        let engine = scanner.engine();
        let bytes = self.text.as_bytes();
        let excused = |hit: &Hit| scanner.is_allowed(&engine, hit);
        let document = Document::unfinished(bytes);
        let pass = engine.pass(&document, Hits::new(FINDINGS_MAX, &excused), scanner.key().kid());
        let opens = [pass.open, engine.detectors.begins(bytes)];
        let open = opens.into_iter().flatten().min().filter(|_| !is_last).unwrap_or(bytes.len());
        scan.unscannable |= pass.is_over || pass.hits.is_over;
        let (mut safe, mut found) = (open, Vec::new());
        for hit in &pass.hits.all {
            if hit.span.end > open {
                // What comes next may still change what it is.
                safe = safe.min(hit.span.start);
            } else {
                found.push(hit);
            }
        }
        for hit in found {
            self.found(hit, scanner, scan);
        }
        self.seen = self.end();
        self.safe = self.safe.max(self.base + safe);
        self.forget();
    }

    fn found(&mut self, hit: &Hit, scanner: &Scanner, scan: &mut Scan) {
        let fingerprint = scanner.fingerprint(hit);
        let via = hit.via.iter().map(|step| step.name().to_owned()).collect();
        let finding =
            Finding { format: hit.format.clone(), at: self.name.clone(), fingerprint: Some(fingerprint), via };
        scan.add(finding, hit.tier);
        if hit.tier < Tier::Finding {
            return;
        }
        let span = between_characters(&self.text, hit.span.clone());
        let mut span = self.base + span.start..self.base + span.end;
        span.start = span.start.max(self.gone);
        // Of overlapping values the later ones still hide what the first left over.
        for (other, _) in &self.replaced {
            if other.start <= span.start {
                span.start = span.start.max(other.end);
            }
        }
        if span.start < span.end {
            self.replaced.push((span, scanner.stamp(hit)));
            self.replaced.sort_by_key(|(span, _)| span.start);
        }
    }

    /// Lets go of what is too far behind to matter.
    fn forget(&mut self) {
        let behind = self.safe.min(self.gone) - self.base;
        if behind > 2 * CONTEXT {
            let mut cut = behind - CONTEXT;
            while !self.text.is_char_boundary(cut) {
                cut += 1;
            }
            self.text.drain(..cut);
            self.base += cut;
        }
        let gone = self.gone;
        self.replaced.retain(|(span, _)| span.end > gone.saturating_sub(2 * CONTEXT));
    }

    /// The text at `span` as it goes on; nothing when that is as it came.
    fn go(&mut self, span: Range<usize>) -> Option<String> {
        self.gone = self.gone.max(span.end);
        let mut inside =
            self.replaced.iter().filter(|(value, _)| value.start < span.end && span.start < value.end).peekable();
        inside.peek()?;
        let (mut text, mut done) = (String::new(), span.start);
        for (value, stamp) in inside {
            if value.start >= span.start {
                text.push_str(self.part(done..value.start.max(done)));
                text.push_str(stamp);
            }
            done = done.max(value.end.min(span.end));
        }
        text.push_str(self.part(done..span.end));
        Some(text)
    }

    fn part(&self, span: Range<usize>) -> &str {
        self.text.get(span.start - self.base..span.end - self.base).unwrap_or_default()
    }
}
