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
    /// Places of items of a Responses answer that were decided, and their ids.
    decided: BTreeSet<u64>,
    decided_ids: BTreeSet<String>,
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
            decided_ids: BTreeSet::new(),
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
            Api::Responses => Ok(self.responses(frame)),
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
                self.add(choice_number, at as u64, call);
                self.unfinished.insert(choice_number);
                holds = true;
            }
            let finish = choice.get("finish_reason").and_then(Json::as_str).unwrap_or_default();
            if !finish.is_empty() {
                self.is_complete = true;
                finishes |= self.unfinished.remove(&choice_number);
            }
        }
        if !holds && !finishes {
            return Ok(vec![Step::Pass(frame)]);
        }
        self.held.push(frame);
        Ok(if self.unfinished.is_empty() { self.ask_of_chat().into_iter().collect() } else { Vec::new() })
    }

    /// Adds a fragment to its call. One with another id is another call, whatever its number.
    fn add(&mut self, choice: u64, at: u64, call: &Json) {
        let function = there(call, "function").or_else(|| there(call, "custom")).unwrap_or(call);
        let text = |of: &Json, name: &str| of.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let (id, tool) = (text(call, "id"), text(function, "name"));
        let index = number(call, "index").unwrap_or(at);
        let last = self.partial.iter_mut().rev().find(|partial| partial.choice == choice && partial.index == index);
        let again = last.as_ref().map_or(0, |last| last.again + 1);
        let partial = match last {
            Some(last) if id.is_empty() || last.id.is_empty() || last.id == id => last,
            _ => {
                self.partial.push(Partial { choice, index, again, ..Partial::default() });
                let Some(partial) = self.partial.last_mut() else { return };
                partial
            }
        };
        if partial.id.is_empty() {
            partial.id = id;
        }
        // Some providers repeat the name in every fragment.
        if partial.tool != tool {
            partial.tool.push_str(&tool);
        }
        partial.arguments.push_str(&text(function, "arguments"));
        partial.arguments.push_str(&text(function, "input"));
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

    fn responses(&mut self, frame: Frame) -> Vec<Step> {
        let Some(json) = &frame.json else { return vec![Step::Pass(frame)] };
        let kind = kind(json);
        // What does not say where it belongs belongs together.
        let place = number(json, "output_index").unwrap_or(u64::MAX);
        let item = there(json, "item");
        let is_call = item.is_some_and(calls::is_call);
        match kind {
            "response.output_item.done" if is_call => {
                let call: Vec<ToolCall> = item.map(calls::tool_call).into_iter().collect();
                let id = item.and_then(|item| item.get("id")).and_then(Json::as_str).map(str::to_owned);
                self.decided.insert(place);
                self.decided_ids.extend(id);
                let mut held = self.open.remove(&place).unwrap_or_default();
                held.push(frame);
                vec![self.asks(call, held)]
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.is_complete = true;
                // What was never whole does not go on, and what the end brings for the first time is decided here.
                self.open.clear();
                let response = there(json, "response");
                let items = response.map_or(&[][..], |response| list(response, "output")).iter().enumerate();
                let known = |at: usize, item: &Json| {
                    let id = item.get("id").and_then(Json::as_str);
                    self.decided.contains(&(at as u64)) || id.is_some_and(|id| self.decided_ids.contains(id))
                };
                let fresh = items.filter(|(at, item)| calls::is_call(item) && !known(*at, item));
                let fresh: Vec<ToolCall> = fresh.map(|(_, item)| calls::tool_call(item)).collect();
                match fresh.is_empty() {
                    true => vec![Step::Pass(self.without_replaced(frame))],
                    false => vec![self.asks(fresh, vec![frame])],
                }
            }
            _ if is_call || self.open.contains_key(&place) || is_of_call(kind) && !self.decided.contains(&place) => {
                self.open.entry(place).or_default().push(frame);
                Vec::new()
            }
            _ => vec![Step::Pass(frame)],
        }
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
        for (at, item) in items.into_iter().flatten().enumerate() {
            let read = json::parse(item.to_string().as_bytes(), LIMITS).unwrap_or(Json::Null);
            let id = item["id"].as_str().unwrap_or_default();
            if calls::is_call(&read)
                && !self.decided.contains(&(at as u64))
                && !self.decided_ids.contains(id)
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
        let Some(mut value) = frame.value() else { continue };
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
                if delta.get("function_call").is_some_and(|call| !call.is_null()) && !texts(number).is_empty() {
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
        let is_left = !choices.is_empty();
        for (number, text) in said_here {
            let mut said = value.clone();
            said["choices"] = json!([{ "index": number, "delta": { "content": text }, "finish_reason": null }]);
            frames.push(frame.with(&said.to_string()));
        }
        if is_left {
            frames.push(frame.with(&value.to_string()));
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Events, Item};

    /// A stream of these data, each decided by `decide`; what goes on, and the assembler.
    fn run(
        api: Api,
        hides: bool,
        data: &[Value],
        decide: impl Fn(&ToolCall) -> Option<&'static str>,
    ) -> (String, Assembler) {
        let mut text = String::new();
        for value in data {
            let name = value["type"].as_str().map(|name| format!("event: {name}\n")).unwrap_or_default();
            let data = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!("{name}data: {data}\n\n"));
        }
        let (mut events, mut assembler, mut out) = (Events::new(1 << 20), Assembler::new(api, hides), Vec::new());
        events.push(text.as_bytes());
        while let Some(Item::Event(event)) = events.next_item() {
            for step in assembler.push(Frame::read(event).unwrap()).unwrap() {
                match step {
                    Step::Pass(frame) => out.extend(frame.event.raw),
                    Step::Ask(asks) => {
                        let said: Vec<_> = asks.calls.iter().map(|call| decide(call).map(str::to_owned)).collect();
                        assembler.resolve(asks, &said).into_iter().for_each(|frame| out.extend(frame.event.raw));
                    }
                }
            }
        }
        let out = String::from_utf8(out).unwrap();
        if !hides && data.iter().all(|value| value.is_object() || value == DONE) && out.len() == text.len() {
            assert_eq!(out, text, "what is not changed passes byte for byte");
        }
        (out, assembler)
    }

    fn datas(out: &str) -> Vec<Value> {
        out.lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect()
    }

    fn chunk(delta: Value, finish: Option<&str>) -> Value {
        json!({ "id": "c", "object": "chat.completion.chunk", "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] })
    }

    fn call(index: u64, name: Option<&str>, arguments: &str) -> Value {
        let mut function = json!({ "arguments": arguments });
        if let Some(name) = name {
            function["name"] = json!(name);
        }
        json!({ "tool_calls": [{ "index": index, "id": name, "function": function }] })
    }

    fn chat() -> Vec<Value> {
        vec![
            chunk(json!({ "role": "assistant", "content": "hm" }), None),
            chunk(call(0, Some("a"), ""), None),
            chunk(call(0, None, "{\"x\":"), None),
            chunk(call(1, Some("b"), ""), None),
            chunk(call(0, None, "1}"), None),
            chunk(call(1, None, "{}"), None),
            chunk(json!({}), Some("tool_calls")),
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 3 } }),
            json!("[DONE]"),
        ]
    }

    #[test]
    fn allowed_calls_pass_byte_for_byte_once_they_are_whole() {
        let seen = std::cell::RefCell::new(Vec::new());
        let (out, assembler) = run(Api::Chat, false, &chat(), |call| {
            seen.borrow_mut().push(call.clone());
            None
        });
        let calls = seen.into_inner();
        assert_eq!(calls[0], ToolCall { tool: "a".into(), call: Json::String("{\"x\":1}".into()) });
        assert_eq!(calls.len(), 2);
        assert_eq!(datas(&out).len(), 8);
        assert_eq!(assembler.usage().map(|usage| (usage.input, usage.output)), Some((7, 3)));
        assert!(assembler.is_complete());
    }

    #[test]
    fn what_warden_asked_for_is_hidden() {
        let (out, assembler) = run(Api::Chat, true, &chat(), |_| None);
        assert!(!out.contains("usage") && out.ends_with("data: [DONE]\n\n"), "{out}");
        assert!(assembler.usage().is_some());
    }

    #[test]
    fn a_refused_call_of_a_chat_is_a_text_and_the_others_are_counted_anew() {
        let (out, _) = run(Api::Chat, false, &chat(), |call| (call.tool == "a").then_some("no a"));
        let all = datas(&out);
        let calls: Vec<&Value> = all.iter().filter_map(|data| data.pointer("/choices/0/delta/tool_calls/0")).collect();
        assert!(calls.iter().all(|call| call["index"] == 0), "{out}");
        assert_eq!(calls[0]["function"]["name"], "b");
        assert!(!out.contains("\"x\\\""), "no fragment of the refused call: {out}");
        assert!(all.iter().any(|data| data.pointer("/choices/0/delta/content") == Some(&json!("no a"))));
        assert!(all.iter().any(|data| data.pointer("/choices/0/finish_reason") == Some(&json!("tool_calls"))));
        let (out, _) = run(Api::Chat, false, &chat(), |_| Some("no"));
        assert!(!out.contains("tool_calls") && out.contains("\"finish_reason\":\"stop\""), "{out}");
    }

    #[test]
    fn two_calls_of_one_number_are_two_calls() {
        let mut second = call(0, Some("rm"), "{}");
        second["tool_calls"][0]["id"] = json!("other");
        let data =
            [chunk(call(0, Some("get_time"), "{}"), None), chunk(second, None), chunk(json!({}), Some("tool_calls"))];
        let seen = std::cell::RefCell::new(Vec::new());
        let (out, _) = run(Api::Chat, false, &data, |call| {
            seen.borrow_mut().push(call.tool.clone());
            (call.tool == "rm").then_some("no")
        });
        assert_eq!(seen.into_inner(), ["get_time", "rm"]);
        assert!(!out.contains("tool_calls"), "which fragment is whose cannot be told: {out}");
    }

    #[test]
    fn a_name_that_is_repeated_is_one_name_and_a_message_in_an_event_is_none() {
        let data = [
            chunk(call(0, Some("rm"), "{"), None),
            chunk(call(0, Some("rm"), "}"), None),
            chunk(json!({}), Some("tool_calls")),
        ];
        run(Api::Chat, false, &data, |call| {
            assert_eq!((call.tool.as_str(), &call.call), ("rm", &Json::String("{}".into())));
            None
        });
        for bad in [
            json!({ "choices": [{ "message": { "tool_calls": [{ "id": "x" }] } }] }),
            json!({ "choices": [{ "delta": { "tool_calls": { "0": {} } } }] }),
        ] {
            let event = Event { raw: Vec::new(), data: Some(bad.to_string()), id: None };
            assert_eq!(Assembler::new(Api::Chat, false).push(Frame::read(event).unwrap()), Err(Garbled), "{bad}");
        }
    }

    #[test]
    fn a_call_that_only_the_end_brings_is_decided_at_the_end() {
        let end = vec![responses().pop().unwrap()];
        let (out, _) = run(Api::Responses, false, &end, |_| Some("no"));
        assert!(!out.contains("function_call") && out.contains("\"text\":\"no\""), "{out}");
        let (out, _) = run(Api::Responses, false, &end, |_| None);
        assert_eq!(datas(&out), end);
        // Begun and never done.
        let mut half = responses();
        half.remove(3);
        let (out, assembler) = run(Api::Responses, false, &half, |_| Some("no"));
        assert!(!out.contains("function_call") && assembler.is_complete(), "{out}");
    }

    #[test]
    fn items_that_come_interleaved_are_held_apart() {
        let item = |n: u64| json!({ "type": "function_call", "id": format!("fc_{n}"), "name": format!("t{n}"), "arguments": "{}" });
        let data = [
            json!({ "type": "response.output_item.added", "output_index": 0, "item": item(0) }),
            json!({ "type": "response.output_item.added", "output_index": 1, "item": item(1) }),
            json!({ "type": "response.function_call_arguments.delta", "output_index": 0, "delta": "zero" }),
            json!({ "type": "response.function_call_arguments.delta", "output_index": 1, "delta": "one" }),
            json!({ "type": "response.output_item.done", "output_index": 0, "item": item(0) }),
            json!({ "type": "response.output_item.done", "output_index": 1, "item": item(1) }),
            json!({ "type": "response.completed", "response": { "output": [item(0), item(1)] } }),
        ];
        let (out, _) = run(Api::Responses, false, &data, |call| (call.tool == "t1").then_some("no"));
        assert!(out.contains("zero") && !out.contains("\"one\"") && !out.contains("t1"), "{out}");
    }

    #[test]
    fn a_call_that_never_ends_never_goes_on() {
        let (out, assembler) = run(Api::Chat, false, &chat()[..5], |_| None);
        assert_eq!(datas(&out).len(), 1);
        assert!(!assembler.is_complete());
        let (out, _) = run(Api::Messages, false, &messages()[..4], |_| None);
        assert!(!out.contains("tool_use"), "{out}");
    }

    fn messages() -> Vec<Value> {
        vec![
            json!({ "type": "message_start", "message": { "usage": { "input_tokens": 9, "output_tokens": 1 } } }),
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "tool_use", "id": "t", "name": "a", "input": {} } }),
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "input_json_delta", "partial_json": "{\"x\":" } }),
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "input_json_delta", "partial_json": "1}" } }),
            json!({ "type": "content_block_stop", "index": 0 }),
            json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" }, "usage": { "output_tokens": 30 } }),
            json!({ "type": "message_stop" }),
        ]
    }

    #[test]
    fn a_refused_block_is_a_text_block_and_the_turn_ends() {
        let (out, assembler) = run(Api::Messages, false, &messages(), |_| Some("no"));
        assert!(!out.contains("tool_use") && out.contains("\"text\":\"no\"") && out.contains("end_turn"), "{out}");
        assert!(out.contains("event: content_block_start\n"));
        assert_eq!(assembler.usage().map(|usage| (usage.input, usage.output)), Some((9, 30)));
        let (out, assembler) = run(Api::Messages, false, &messages(), |_| None);
        assert_eq!(datas(&out), messages());
        assert!(assembler.is_complete());
    }

    fn responses() -> Vec<Value> {
        let item = json!({ "type": "function_call", "id": "fc_1", "call_id": "c", "name": "a", "arguments": "{}" });
        vec![
            json!({ "type": "response.created", "sequence_number": 0, "response": {} }),
            json!({ "type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item }),
            json!({ "type": "response.function_call_arguments.delta", "sequence_number": 2, "output_index": 0, "delta": "{}" }),
            json!({ "type": "response.output_item.done", "sequence_number": 3, "output_index": 0, "item": item }),
            json!({ "type": "response.completed", "sequence_number": 4, "response": { "output": [item], "usage": { "input_tokens": 5, "output_tokens": 2 } } }),
        ]
    }

    #[test]
    fn a_refused_item_is_a_message_in_the_events_and_in_the_end() {
        let (out, assembler) = run(Api::Responses, false, &responses(), |_| Some("no"));
        assert!(!out.contains("function_call"), "{out}");
        let all = datas(&out);
        assert_eq!(all.last().unwrap()["response"]["output"][0]["content"][0]["text"], "no");
        let numbers: Vec<u64> = all.iter().filter_map(|data| data["sequence_number"].as_u64()).collect();
        assert!(numbers.is_sorted() && assembler.is_complete(), "{numbers:?}");
        let (out, _) = run(Api::Responses, false, &responses(), |_| None);
        assert_eq!(datas(&out), responses());
    }

    #[test]
    fn gemini_calls_come_whole_and_are_replaced_in_place() {
        let data = [
            json!({ "candidates": [{ "content": { "parts": [{ "functionCall": { "name": "a", "args": {} } }] }, "finishReason": "STOP" }], "usageMetadata": { "promptTokenCount": 3, "candidatesTokenCount": 1 } }),
        ];
        let (out, assembler) = run(Api::Gemini, false, &data, |_| Some("no"));
        assert!(out.contains("{\"text\":\"no\"}") && !out.contains("functionCall"), "{out}");
        assert!(assembler.is_complete() && assembler.usage().is_some());
        assert_eq!(datas(&run(Api::Gemini, false, &data, |_| None).0), data);
    }

    #[test]
    fn garbage_is_no_event() {
        let event = |data: &str| Frame::read(Event { raw: Vec::new(), data: Some(data.into()), id: None });
        for data in ["half a", "{\"a\":1,\"a\":2}", "{"] {
            assert_eq!(event(data), Err(Garbled), "{data}");
        }
        assert!(event("[DONE]").is_ok());
    }
}
