//! An answer that comes in events. They go on as they come, but for tool calls: the events of one are held until it is whole and
//! was decided. What was refused is taken out, and a text stands in its place.

use super::calls::{self, ToolCall};
use super::{Api, usage};
use crate::amount::Usage;
use crate::json::{self, Json, Limits};
use crate::sse::Event;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One event, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// As it came, or as Warden made it.
    pub event: Event,
    /// Its data; nothing for a comment, and for `[DONE]`.
    pub json: Option<Json>,
}

/// Something in a stream that is no event of its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is not JSON, or too much of a tool call is held")]
pub struct Garbled;

/// What becomes of events.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It goes on.
    Pass(Frame),
    /// These calls are decided first.
    Ask(Asks),
}

/// Tool calls that are whole, with the events they came in.
#[derive(Debug, PartialEq)]
pub struct Asks {
    /// The calls.
    pub calls: Vec<ToolCall>,
    held: Vec<Frame>,
    /// The choice and number of each call of a chat, and which of that number it is.
    numbers: Vec<(u64, u64, u64)>,
}

/// Bytes of events that are held for one call.
const HELD_MAX: usize = 16 << 20;
const LIMITS: Limits = Limits { bytes_max: 16 << 20, depth_max: 128 };
const DONE: &str = "[DONE]";
/// The number of a call in the form before `tool_calls`, which has none.
const LEGACY: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub struct Assembler {
    api: Api,
    /// Whether the event that tells usage alone is kept from the worker, who did not ask for it.
    hides_usage: bool,
    usage: Option<Usage>,
    /// Of a chat.
    held: Vec<Frame>,
    held_bytes: usize,
    /// Of a chat: the calls so far, and the choices that are not finished.
    partial: Vec<Partial>,
    unfinished: BTreeSet<u64>,
    /// Of the others: the blocks or items that are not whole, by their place.
    open: BTreeMap<u64, Vec<Frame>>,
    /// Places of items of a Responses answer that were decided, and what was.
    decided: BTreeSet<u64>,
    known: BTreeSet<String>,
    /// What stands in the place of items of a Responses answer.
    replaced: BTreeMap<u64, Value>,
    allowed: usize,
    refused: usize,
    is_complete: bool,
    failed: bool,
}

#[derive(Debug, Default)]
struct Partial {
    choice: u64,
    index: u64,
    /// The how manyth call of its number: some providers give two calls one number.
    again: u64,
    id: String,
    tool: String,
    arguments: String,
}

impl Frame {
    /// Reads an event.
    pub fn read(event: Event) -> Result<Self, Garbled> {
        let json = match event.data.as_deref() {
            None => None,
            Some(data) if data.trim() == DONE => None,
            Some(data) => Some(json::parse(data.as_bytes(), LIMITS).map_err(|_| Garbled)?),
        };
        Ok(Self { event, json })
    }

    fn is_done(&self) -> bool {
        self.event.data.as_deref().is_some_and(|data| data.trim() == DONE)
    }

    fn value(&self) -> Option<Value> {
        serde_json::from_str(self.event.data.as_deref()?).ok()
    }

    /// The same event with other data.
    #[must_use]
    pub fn with(&self, data: &str) -> Self {
        // Between strings a line break is only white space, and within one it is escaped.
        let data = data.replace(['\n', '\r'], " ");
        let raw = self.event.with_data(&data);
        let json = json::parse(data.as_bytes(), LIMITS).ok();
        Self { event: Event { raw, data: Some(data), id: self.event.id.clone() }, json }
    }

    /// An event of Warden's own.
    fn own(name: &str, data: &Value) -> Self {
        let data = data.to_string();
        let raw = format!("event: {name}\ndata: {data}\n\n").into_bytes();
        let json = json::parse(data.as_bytes(), LIMITS).ok();
        Self { event: Event { raw, data: Some(data), id: None }, json }
    }
}

fn number(of: &Json, name: &str) -> Option<u64> {
    match of.get(name) {
        Some(Json::Number(text)) => text.parse().ok(),
        _ => None,
    }
}

fn list<'j>(of: &'j Json, name: &str) -> &'j [Json] {
    match of.get(name) {
        Some(Json::Array(items)) => items,
        _ => &[],
    }
}

fn there<'j>(of: &'j Json, name: &str) -> Option<&'j Json> {
    of.get(name).filter(|value| **value != Json::Null)
}

fn kind(json: &Json) -> &str {
    json.get("type").and_then(Json::as_str).unwrap_or_default()
}

impl Assembler {
    /// For one answer. `hides_usage` where Warden asked for the usage, and the worker did not.
    pub fn new(api: Api, hides_usage: bool) -> Self {
        Self {
            api,
            hides_usage,
            usage: None,
            held: Vec::new(),
            held_bytes: 0,
            partial: Vec::new(),
            unfinished: BTreeSet::new(),
            open: BTreeMap::new(),
            decided: BTreeSet::new(),
            known: BTreeSet::new(),
            replaced: BTreeMap::new(),
            allowed: 0,
            refused: 0,
            is_complete: false,
            failed: false,
        }
    }

    /// What the provider has said so far that it used.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Whether the answer came to its end.
    pub fn is_complete(&self) -> bool {
        self.is_complete && !self.is_holding()
    }

    /// Whether the provider said that it failed.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Takes the next event.
    pub fn push(&mut self, frame: Frame) -> Result<Vec<Step>, Garbled> {
        if let Some(json) = &frame.json {
            if let Some(now) = usage::read(self.api, json) {
                self.usage = Some(usage::later(self.usage, now));
            }
            self.failed |= there(json, "error").is_some() || matches!(kind(json), "error" | "response.failed");
        }
        self.held_bytes += if self.is_holding() { frame.event.raw.len() } else { 0 };
        if self.held_bytes > HELD_MAX {
            return Err(Garbled);
        }
        match self.api {
            Api::Chat => self.chat(frame),
            Api::Responses => self.responses(frame),
            Api::Messages => self.messages(frame),
            Api::Gemini => Ok(self.gemini(frame)),
            Api::Execute => Ok(vec![Step::Pass(frame)]),
        }
    }

    fn is_holding(&self) -> bool {
        !self.held.is_empty() || !self.open.is_empty()
    }

    fn asks(&mut self, calls: Vec<ToolCall>, held: Vec<Frame>) -> Step {
        if !self.is_holding() {
            self.held_bytes = 0;
        }
        Step::Ask(Asks { calls, held, numbers: Vec::new() })
    }

    fn chat(&mut self, frame: Frame) -> Result<Vec<Step>, Garbled> {
        let Some(json) = &frame.json else {
            if !frame.is_done() {
                return Ok(vec![Step::Pass(frame)]);
            }
            self.is_complete = true;
            let mut steps: Vec<Step> = self.ask_of_chat().into_iter().collect();
            steps.push(Step::Pass(frame));
            return Ok(steps);
        };
        let choices = list(json, "choices");
        if self.hides_usage && choices.is_empty() && there(json, "usage").is_some() {
            return Ok(Vec::new());
        }
        let (mut holds, mut finishes) = (false, false);
        for (at, choice) in choices.iter().enumerate() {
            let choice_number = number(choice, "index").unwrap_or(at as u64);
            // A whole message in an event would be read by whoever looks for one.
            if there(choice, "message").is_some_and(|message| !calls_of(message).is_ok_and(|calls| calls.is_empty())) {
                return Err(Garbled);
            }
            for (at, call) in there(choice, "delta").map_or(Ok(Vec::new()), calls_of)?.into_iter().enumerate() {
                self.add(choice_number, at as u64, call)?;
                self.unfinished.insert(choice_number);
                holds = true;
            }
            let finish = choice.get("finish_reason").and_then(Json::as_str).unwrap_or_default();
            if !finish.is_empty() {
                self.is_complete = true;
                finishes |= self.unfinished.remove(&choice_number);
            }
        }
        // What comes after something that is held stays behind it.
        if !holds && !finishes && self.held.is_empty() {
            return Ok(vec![Step::Pass(frame)]);
        }
        self.held.push(frame);
        Ok(if self.unfinished.is_empty() { self.ask_of_chat().into_iter().collect() } else { Vec::new() })
    }

    /// Adds a fragment to its call. One with another id is another call, whatever its number.
    fn add(&mut self, choice: u64, at: u64, call: &Json) -> Result<(), Garbled> {
        let inner = there(call, "function").or_else(|| there(call, "custom"));
        let function = inner.unwrap_or(call);
        let text = |of: &Json, name: &str| match there(of, name) {
            None => Ok(String::new()),
            Some(Json::String(text)) => Ok(text.clone()),
            // What another reader makes of it nobody knows.
            Some(_) => Err(Garbled),
        };
        let (id, tool) = (text(call, "id")?, text(function, "name")?);
        let is_legacy = inner.is_none() && there(call, "type").is_none() && there(call, "index").is_none();
        let index = if is_legacy { LEGACY } else { number(call, "index").unwrap_or(at) };
        let last = self.partial.iter_mut().rev().find(|partial| partial.choice == choice && partial.index == index);
        let again = last.as_ref().map_or(0, |last| last.again + 1);
        let partial = match last {
            Some(last) if id.is_empty() || last.id.is_empty() || last.id == id => last,
            _ => {
                self.partial.push(Partial { choice, index, again, ..Partial::default() });
                self.partial.last_mut().ok_or(Garbled)?
            }
        };
        if partial.id.is_empty() {
            partial.id = id;
        }
        // Some providers repeat the name in every fragment. With two names nobody knows which one counts.
        if partial.tool.is_empty() {
            partial.tool = tool;
        } else if !tool.is_empty() && partial.tool != tool {
            return Err(Garbled);
        }
        partial.arguments.push_str(&text(function, "arguments")?);
        partial.arguments.push_str(&text(function, "input")?);
        Ok(())
    }

    fn ask_of_chat(&mut self) -> Option<Step> {
        self.unfinished.clear();
        self.held_bytes = 0;
        let partial = std::mem::take(&mut self.partial);
        if partial.is_empty() && self.held.is_empty() {
            return None;
        }
        let numbers = partial.iter().map(|partial| (partial.choice, partial.index, partial.again)).collect();
        let calls =
            partial.into_iter().map(|Partial { tool, arguments, .. }| ToolCall { tool, call: Json::String(arguments) });
        Some(Step::Ask(Asks { calls: calls.collect(), held: std::mem::take(&mut self.held), numbers }))
    }

    fn responses(&mut self, frame: Frame) -> Result<Vec<Step>, Garbled> {
        let Some(json) = &frame.json else { return Ok(vec![Step::Pass(frame)]) };
        let kind = kind(json);
        let item = there(json, "item").filter(|item| calls::is_call(item));
        let is_of_call = item.is_some() || is_of_call(kind);
        let is_end = ["response.completed", "response.incomplete", "response.failed"].contains(&kind);
        let output = there(json, "response").map_or(&[][..], |response| list(response, "output"));
        // A call has its place, and is decided there once; nothing but the end repeats one.
        let place = number(json, "output_index").or(if is_of_call { None } else { Some(u64::MAX) }).ok_or(Garbled)?;
        if is_of_call && self.decided.contains(&place) || !is_end && output.iter().any(calls::is_call) {
            return Err(Garbled);
        }
        Ok(match (kind, item) {
            ("response.output_item.done", Some(item)) => {
                let mut held = self.open.remove(&place).unwrap_or_default();
                if !held.iter().all(|frame| begins(frame, item)) || !adds_up(&held, item) {
                    return Err(Garbled);
                }
                let call = calls::tool_call(item);
                self.decided.insert(place);
                self.known.insert(identity(item));
                held.push(frame);
                vec![self.asks(vec![call], held)]
            }
            _ if is_end => {
                self.is_complete = true;
                // What was never whole does not go on, and what the end brings for the first time is decided here.
                self.open.clear();
                let fresh = output.iter().filter(|item| calls::is_call(item) && !self.known.contains(&identity(item)));
                let fresh: Vec<ToolCall> = fresh.map(calls::tool_call).collect();
                match fresh.is_empty() {
                    true => vec![Step::Pass(self.without_replaced(frame))],
                    false => vec![self.asks(fresh, vec![frame])],
                }
            }
            _ if is_of_call || self.open.contains_key(&place) => {
                self.open.entry(place).or_default().push(frame);
                Vec::new()
            }
            _ => vec![Step::Pass(frame)],
        })
    }

    /// The last event repeats the whole answer.
    fn without_replaced(&mut self, frame: Frame) -> Frame {
        if self.replaced.is_empty() {
            return frame;
        }
        let Some(mut value) = frame.value() else { return frame };
        let items = value.pointer_mut("/response/output").and_then(Value::as_array_mut);
        for (at, item) in items.into_iter().flatten().enumerate() {
            // By what it is; by place, where it has no name.
            let id = item["id"].as_str().map(|id| format!("msg_{id}"));
            let by = match &id {
                Some(id) => self.replaced.values().find(|message| message["id"].as_str() == Some(id)),
                None => self.replaced.get(&(at as u64)),
            };
            let is_call = item["type"].as_str().is_some_and(|kind| kind.ends_with("_call"));
            if let Some(message) = by.filter(|_| is_call) {
                *item = message.clone();
            }
        }
        frame.with(&value.to_string())
    }

    fn messages(&mut self, frame: Frame) -> Result<Vec<Step>, Garbled> {
        let Some(json) = &frame.json else { return Ok(vec![Step::Pass(frame)]) };
        let place = number(json, "index").unwrap_or(u64::MAX);
        let kind_of = kind(json);
        Ok(match kind_of {
            // A message begins empty. One with calls in it would bring them undecided.
            "message_start"
                if there(json, "message").is_some_and(|message| !calls::of(Api::Messages, message).is_empty()) =>
            {
                return Err(Garbled);
            }
            // A block begins once, and says which one it is.
            "content_block_start"
                if self.open.contains_key(&place)
                    || place == u64::MAX && there(json, "content_block").map(kind) == Some("tool_use") =>
            {
                return Err(Garbled);
            }
            "content_block_start" if there(json, "content_block").map(kind) == Some("tool_use") => {
                self.open.entry(place).or_default().push(frame);
                Vec::new()
            }
            "content_block_stop" if self.open.contains_key(&place) => {
                let mut held = self.open.remove(&place).unwrap_or_default();
                held.push(frame);
                let call = call_of_block(&held);
                vec![self.asks(vec![call], held)]
            }
            "message_delta" if self.refused > 0 && self.allowed == 0 => vec![Step::Pass(end_turn(frame))],
            "message_stop" => {
                self.is_complete = true;
                self.open.clear();
                vec![Step::Pass(frame)]
            }
            _ if self.open.contains_key(&place) && kind_of.starts_with("content_block") => {
                self.open.entry(place).or_default().push(frame);
                Vec::new()
            }
            _ => vec![Step::Pass(frame)],
        })
    }

    fn gemini(&mut self, frame: Frame) -> Vec<Step> {
        let Some(json) = &frame.json else { return vec![Step::Pass(frame)] };
        self.is_complete |= list(json, "candidates").iter().any(|candidate| there(candidate, "finishReason").is_some());
        // A prompt that was refused has no candidates.
        self.is_complete |= there(json, "promptFeedback").and_then(|feedback| there(feedback, "blockReason")).is_some();
        let calls = calls::of(Api::Gemini, json);
        if calls.is_empty() {
            return vec![Step::Pass(frame)];
        }
        vec![self.asks(calls, vec![frame])]
    }

    /// The events of calls that were decided: `said[n]` is the text in the place of the `n`th, when it was refused.
    pub fn resolve(&mut self, asks: Asks, said: &[Option<String>]) -> Vec<Frame> {
        let refused = said.iter().flatten().count();
        self.refused += refused;
        self.allowed += said.len() - refused;
        if refused == 0 {
            return asks.held;
        }
        match self.api {
            Api::Chat => chat_without(&asks, said),
            Api::Responses => self.responses_without(&asks, said),
            Api::Messages => messages_without(&asks, said),
            Api::Gemini => asks
                .held
                .into_iter()
                .filter_map(|frame| {
                    let mut value = frame.value()?;
                    calls::gemini_answer(&mut value, &mut said.iter());
                    Some(frame.with(&value.to_string()))
                })
                .collect(),
            Api::Execute => Vec::new(),
        }
    }

    /// The end of an answer, with what it brought for the first time and was refused.
    fn end_without(&mut self, end: &Frame, said: &[Option<String>]) -> Frame {
        let Some(mut value) = self.without_replaced(end.clone()).value() else { return end.clone() };
        let mut said = said.iter();
        let items = value.pointer_mut("/response/output").and_then(Value::as_array_mut);
        for item in items.into_iter().flatten() {
            let read = json::parse(item.to_string().as_bytes(), LIMITS).unwrap_or(Json::Null);
            if calls::is_call(&read)
                && !self.known.contains(&identity(&read))
                && let Some(Some(text)) = said.next()
            {
                *item = calls::responses_message(item, text);
            }
        }
        end.with(&value.to_string())
    }

    fn responses_without(&mut self, asks: &Asks, said: &[Option<String>]) -> Vec<Frame> {
        if let [end] = &asks.held[..]
            && end.json.as_ref().is_some_and(|json| there(json, "response").is_some())
        {
            return vec![self.end_without(end, said)];
        }
        let values: Vec<Value> = asks.held.iter().filter_map(Frame::value).collect();
        let (Some(last), Some(Some(text))) = (values.last(), said.first()) else { return Vec::new() };
        let place = last["output_index"].clone();
        let message = calls::responses_message(&last["item"], text);
        self.replaced.insert(place.as_u64().unwrap_or_default(), message.clone());
        let begun = json!({ "id": message["id"], "type": "message", "status": "in_progress", "role": "assistant", "content": [] });
        let empty = json!({ "type": "output_text", "text": "", "annotations": [], "logprobs": [] });
        let part = message["content"][0].clone();
        let at = |mut event: Value| {
            event["item_id"] = message["id"].clone();
            event["content_index"] = json!(0);
            event
        };
        let events = [
            json!({ "type": "response.output_item.added", "item": begun }),
            at(json!({ "type": "response.content_part.added", "part": empty })),
            at(json!({ "type": "response.output_text.delta", "delta": text, "logprobs": [] })),
            at(json!({ "type": "response.output_text.done", "text": text, "logprobs": [] })),
            at(json!({ "type": "response.content_part.done", "part": part })),
            json!({ "type": "response.output_item.done", "item": message }),
        ];
        let numbers: Vec<&Value> =
            values.iter().map(|value| &value["sequence_number"]).filter(|n| !n.is_null()).collect();
        let events = events.into_iter().enumerate().map(|(n, mut event)| {
            event["output_index"] = place.clone();
            // No number is made up: later events have theirs already.
            if let Some(number) = numbers.get(n).or(numbers.last()) {
                event["sequence_number"] = (*number).clone();
            }
            Frame::own(event["type"].as_str().unwrap_or_default(), &event)
        });
        events.collect()
    }
}

/// The calls of a message or of what is added to one. What cannot be read as such is no message.
fn calls_of(of: &Json) -> Result<Vec<&Json>, Garbled> {
    let mut calls = match there(of, "tool_calls") {
        None => Vec::new(),
        Some(Json::Array(calls)) => calls.iter().collect(),
        Some(_) => return Err(Garbled),
    };
    calls.extend(there(of, "function_call"));
    Ok(calls)
}

/// Whether an event of a Responses answer belongs to a call that the worker would make.
fn is_of_call(kind: &str) -> bool {
    ["response.function_call", "response.custom_tool_call", "response.local_shell_call", "response.computer_call"]
        .iter()
        .any(|begins| kind.starts_with(begins))
}

/// What makes two mentions of a call one call.
fn identity(item: &Json) -> String {
    let members = ["type", "id", "name", "arguments", "input", "action", "operation"];
    members.map(|name| item.get(name).map(|value| value.to_value().to_string()).unwrap_or_default()).join("\n")
}

/// Whether an event that was held for a call begins the one that came of it.
fn begins(frame: &Frame, done: &Json) -> bool {
    let Some(begun) = frame.json.as_ref().and_then(|json| there(json, "item")) else { return true };
    ["type", "id", "name"].iter().all(|name| there(begun, name).is_none_or(|value| there(done, name) == Some(value)))
}

/// Whether the arguments that came piece by piece are those of the whole call.
fn adds_up(held: &[Frame], done: &Json) -> bool {
    let whole = ["arguments", "input"].into_iter().find_map(|name| there(done, name)?.as_str());
    let mut pieces = String::new();
    for json in held.iter().filter_map(|frame| frame.json.as_ref()) {
        if let Some(text) = there(json, "delta").and_then(Json::as_str) {
            pieces.push_str(text);
        }
        let said = ["arguments", "input"].into_iter().find_map(|name| there(json, name)?.as_str());
        let begun = there(json, "item")
            .and_then(|item| ["arguments", "input"].into_iter().find_map(|name| there(item, name)?.as_str()));
        // An item may begin without its arguments, and never with others.
        if said.is_some_and(|said| Some(said) != whole)
            || begun.is_some_and(|begun| !begun.is_empty() && Some(begun) != whole)
        {
            return false;
        }
    }
    pieces.is_empty() || Some(pieces.as_str()) == whole
}

fn call_of_block(held: &[Frame]) -> ToolCall {
    let block = held.first().and_then(|frame| frame.json.as_ref()?.get("content_block"));
    let tool = block.and_then(|block| block.get("name")).and_then(Json::as_str).unwrap_or_default().to_owned();
    let parts = held.iter().filter_map(|frame| frame.json.as_ref()?.get("delta")?.get("partial_json")?.as_str());
    let arguments: String = parts.collect();
    let input = block.and_then(|block| block.get("input")).cloned().unwrap_or(Json::Null);
    ToolCall { tool, call: Json::Array(vec![input, Json::String(arguments)]) }
}

/// A turn that ended with tool calls, when none of them is left.
fn end_turn(frame: Frame) -> Frame {
    match frame.value() {
        Some(mut value) if value["delta"]["stop_reason"] == "tool_use" => {
            value["delta"]["stop_reason"] = json!("end_turn");
            frame.with(&value.to_string())
        }
        _ => frame,
    }
}

fn messages_without(asks: &Asks, said: &[Option<String>]) -> Vec<Frame> {
    let (Some(first), Some(last), Some(Some(text))) = (asks.held.first(), asks.held.last(), said.first()) else {
        return Vec::new();
    };
    let place = first.value().map(|value| value["index"].clone()).unwrap_or_default();
    let start =
        json!({ "type": "content_block_start", "index": place, "content_block": { "type": "text", "text": "" } });
    let delta =
        json!({ "type": "content_block_delta", "index": place, "delta": { "type": "text_delta", "text": text } });
    vec![first.with(&start.to_string()), Frame::own("content_block_delta", &delta), last.clone()]
}

fn chat_without(asks: &Asks, said: &[Option<String>]) -> Vec<Frame> {
    // Two calls of one number cannot be told apart in the events: then all of their choice are refused with the one.
    let twice = |choice: u64| asks.numbers.iter().any(|(of, _, again)| *of == choice && *again > 0);
    let texts = |choice: u64| {
        let of = asks.numbers.iter().zip(said).filter(move |(number, _)| number.0 == choice);
        of.filter_map(|(_, text)| text.as_deref()).collect::<Vec<_>>()
    };
    let is_refused = |choice: u64, index: u64| {
        let own = asks
            .numbers
            .iter()
            .zip(said)
            .any(|(number, text)| number.0 == choice && number.1 == index && text.is_some());
        own || twice(choice) && !texts(choice).is_empty()
    };
    let left = |choice: u64| asks.numbers.iter().filter(|n| n.0 == choice && !is_refused(choice, n.1)).count();
    // Those that are left are counted anew: readers put them into a list.
    let renumbered = |choice: u64, index: u64| {
        asks.numbers.iter().filter(|n| n.0 == choice && n.1 < index && !is_refused(choice, n.1)).count()
    };
    let mut frames = Vec::new();
    let mut told = BTreeSet::new();
    for frame in &asks.held {
        let whole = frame.value();
        let touched = whole.as_ref().is_some_and(is_touched);
        let Some((mut value, true)) = whole.map(|value| (value, touched)) else {
            frames.push(frame.clone());
            continue;
        };
        let mut said_here = Vec::new();
        let Some(choices) = value.get_mut("choices").and_then(Value::as_array_mut) else { continue };
        for (at, choice) in choices.iter_mut().enumerate() {
            let number = choice["index"].as_u64().unwrap_or(at as u64);
            if let Some(delta) = choice.get_mut("delta").and_then(Value::as_object_mut) {
                if let Some(calls) = delta.get_mut("tool_calls").and_then(Value::as_array_mut) {
                    let all = std::mem::take(calls).into_iter().enumerate();
                    let numbered = all.map(|(at, call)| (call["index"].as_u64().unwrap_or(at as u64), call));
                    *calls = numbered
                        .filter(|(index, _)| !is_refused(number, *index))
                        .map(|(was, mut call)| {
                            call["index"] = json!(renumbered(number, was));
                            call
                        })
                        .collect();
                    if calls.is_empty() {
                        delta.shift_remove("tool_calls");
                    }
                }
                if delta.get("function_call").is_some_and(|call| !call.is_null()) && is_refused(number, LEGACY) {
                    delta.shift_remove("function_call");
                }
            }
            if choice["finish_reason"].as_str().is_some_and(|finish| !finish.is_empty()) {
                let text = texts(number).join("\n");
                if !text.is_empty() && told.insert(number) {
                    said_here.push((number, text));
                    if left(number) == 0 {
                        choice["finish_reason"] = json!("stop");
                    }
                }
            }
        }
        let empty = |choice: &Value| {
            choice["delta"].as_object().is_none_or(serde_json::Map::is_empty) && !choice["finish_reason"].is_string()
        };
        choices.retain(|choice| !empty(choice));
        let is_left = !choices.is_empty() || value.get("usage").is_some_and(|usage| !usage.is_null());
        for (number, text) in said_here {
            let mut said = value.clone();
            said["choices"] = json!([{ "index": number, "delta": { "content": text }, "finish_reason": null }]);
            frames.push(frame.with(&said.to_string()));
        }
        if is_left {
            frames.push(frame.with(&value.to_string()));
        }
    }
    // A choice that ended without saying so is told as well.
    let untold: BTreeSet<u64> =
        asks.numbers.iter().map(|number| number.0).filter(|choice| !told.contains(choice)).collect();
    for choice in untold.into_iter().filter(|choice| !texts(*choice).is_empty()) {
        if let Some((frame, mut value)) = asks.held.last().and_then(|frame| Some((frame, frame.value()?))) {
            let text = texts(choice).join("\n");
            value["choices"] = json!([{ "index": choice, "delta": { "content": text }, "finish_reason": "stop" }]);
            frames.push(frame.with(&value.to_string()));
        }
    }
    frames
}

/// Whether an event brings calls, or the end of a choice.
fn is_touched(value: &Value) -> bool {
    let choices = value["choices"].as_array().into_iter().flatten();
    let there = |value: &Value| !value.is_null();
    let mut touches = choices.map(|choice| {
        let delta = &choice["delta"];
        there(&delta["tool_calls"]) || there(&delta["function_call"]) || choice["finish_reason"].is_string()
    });
    touches.any(|touches| touches)
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
