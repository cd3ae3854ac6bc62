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
    /// The choice and number of each call of a chat.
    numbers: Vec<(u64, u64)>,
}

/// Bytes of events that are held for one call.
const HELD_MAX: usize = 4 << 20;
const LIMITS: Limits = Limits { bytes_max: 16 << 20, depth_max: 128 };
const DONE: &str = "[DONE]";

/// See the module.
#[derive(Debug)]
pub struct Assembler {
    api: Api,
    /// Whether the event that tells usage alone is kept from the worker, who did not ask for it.
    hides_usage: bool,
    usage: Option<Usage>,
    held: Vec<Frame>,
    held_bytes: usize,
    /// Of a chat: the calls so far by choice and number, and the choices that are not finished.
    partial: BTreeMap<(u64, u64), Partial>,
    unfinished: BTreeSet<u64>,
    /// The block or item that is held.
    open: Option<u64>,
    /// What stands in the place of items of a Responses answer.
    replaced: BTreeMap<u64, Value>,
    allowed: usize,
    refused: usize,
    is_complete: bool,
    failed: bool,
}

#[derive(Debug, Default)]
struct Partial {
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
        let raw = self.event.with_data(data);
        let json = json::parse(data.as_bytes(), LIMITS).ok();
        Self { event: Event { raw, data: Some(data.to_owned()), id: self.event.id.clone() }, json }
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
            partial: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            open: None,
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
        self.is_complete && self.held.is_empty()
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
        Ok(match self.api {
            Api::Chat => self.chat(frame),
            Api::Responses => self.responses(frame),
            Api::Messages => self.messages(frame),
            Api::Gemini => self.gemini(frame),
            Api::Execute => vec![Step::Pass(frame)],
        })
    }

    fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    fn asks(&mut self, calls: Vec<ToolCall>, numbers: Vec<(u64, u64)>) -> Step {
        self.held_bytes = 0;
        Step::Ask(Asks { calls, held: std::mem::take(&mut self.held), numbers })
    }

    fn chat(&mut self, frame: Frame) -> Vec<Step> {
        let Some(json) = &frame.json else {
            if !frame.is_done() {
                return vec![Step::Pass(frame)];
            }
            self.is_complete = true;
            let mut steps: Vec<Step> = self.ask_of_chat().into_iter().collect();
            steps.push(Step::Pass(frame));
            return steps;
        };
        let choices = list(json, "choices");
        if self.hides_usage && choices.is_empty() && there(json, "usage").is_some() {
            return Vec::new();
        }
        let (mut holds, mut finishes) = (false, false);
        for (at, choice) in choices.iter().enumerate() {
            let choice_number = number(choice, "index").unwrap_or(at as u64);
            if let Some(delta) = there(choice, "delta") {
                for (at, call) in list(delta, "tool_calls").iter().enumerate() {
                    let partial =
                        self.partial.entry((choice_number, number(call, "index").unwrap_or(at as u64))).or_default();
                    partial.add(call.get("function").or_else(|| call.get("custom")));
                    holds = true;
                }
                if let Some(call) = there(delta, "function_call") {
                    self.partial.entry((choice_number, 0)).or_default().add(Some(call));
                    holds = true;
                }
                if holds {
                    self.unfinished.insert(choice_number);
                }
            }
            if there(choice, "finish_reason").is_some() {
                self.is_complete = true;
                finishes |= self.unfinished.remove(&choice_number);
            }
        }
        if !holds && !finishes {
            return vec![Step::Pass(frame)];
        }
        self.held.push(frame);
        if self.unfinished.is_empty() { self.ask_of_chat().into_iter().collect() } else { Vec::new() }
    }

    fn ask_of_chat(&mut self) -> Option<Step> {
        self.unfinished.clear();
        let partial = std::mem::take(&mut self.partial);
        if partial.is_empty() && self.held.is_empty() {
            return None;
        }
        let (numbers, calls) = partial
            .into_iter()
            .map(|(number, Partial { tool, arguments })| (number, ToolCall { tool, call: Json::String(arguments) }))
            .unzip();
        Some(self.asks(calls, numbers))
    }

    fn responses(&mut self, frame: Frame) -> Vec<Step> {
        let Some(json) = &frame.json else { return vec![Step::Pass(frame)] };
        let (kind, place) = (kind(json), number(json, "output_index"));
        let item = there(json, "item");
        match kind {
            "response.output_item.added" if item.is_some_and(calls::is_call) => {
                // One that was never done is not known whole, and does not go on.
                self.held = vec![frame];
                self.open = place;
                Vec::new()
            }
            "response.output_item.done" if item.is_some_and(calls::is_call) => {
                let call = item.map(calls::tool_call);
                self.open = None;
                self.held.push(frame);
                vec![self.asks(call.into_iter().collect(), Vec::new())]
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.is_complete = true;
                vec![Step::Pass(self.without_replaced(frame))]
            }
            _ if self.open.is_some() && place == self.open => {
                self.held.push(frame);
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
            // By place, and by what it is: a place may be counted otherwise.
            let id = item["id"].as_str().map(|id| format!("msg_{id}"));
            let by_id = self.replaced.values().find(|message| message["id"].as_str() == id.as_deref());
            let by = by_id.or_else(|| self.replaced.get(&(at as u64)));
            let is_call = item["type"].as_str().is_some_and(|kind| kind.ends_with("_call"));
            if let Some(message) = by.filter(|_| is_call) {
                *item = message.clone();
            }
        }
        frame.with(&value.to_string())
    }

    fn messages(&mut self, frame: Frame) -> Vec<Step> {
        let Some(json) = &frame.json else { return vec![Step::Pass(frame)] };
        let place = number(json, "index");
        match kind(json) {
            "content_block_start" if there(json, "content_block").map(kind) == Some("tool_use") => {
                self.held = vec![frame];
                self.open = place;
                Vec::new()
            }
            "content_block_stop" if self.open.is_some() && place == self.open => {
                self.open = None;
                self.held.push(frame);
                let call = self.call_of_block();
                vec![self.asks(vec![call], Vec::new())]
            }
            "message_delta" if self.refused > 0 && self.allowed == 0 => vec![Step::Pass(end_turn(frame))],
            "message_stop" => {
                self.is_complete = true;
                vec![Step::Pass(frame)]
            }
            _ if self.open.is_some() && place == self.open => {
                self.held.push(frame);
                Vec::new()
            }
            _ => vec![Step::Pass(frame)],
        }
    }

    fn call_of_block(&self) -> ToolCall {
        let block = self.held.first().and_then(|frame| frame.json.as_ref()?.get("content_block"));
        let tool = block.and_then(|block| block.get("name")).and_then(Json::as_str).unwrap_or_default().to_owned();
        let parts = self.held.iter().filter_map(|frame| frame.json.as_ref()?.get("delta")?.get("partial_json")?.as_str());
        let arguments: String = parts.collect();
        let input = block.and_then(|block| block.get("input")).cloned().unwrap_or(Json::Null);
        ToolCall { tool, call: Json::Array(vec![input, Json::String(arguments)]) }
    }

    fn gemini(&mut self, frame: Frame) -> Vec<Step> {
        let Some(json) = &frame.json else { return vec![Step::Pass(frame)] };
        self.is_complete |= list(json, "candidates").iter().any(|candidate| there(candidate, "finishReason").is_some());
        let calls = calls::of(Api::Gemini, json);
        if calls.is_empty() {
            return vec![Step::Pass(frame)];
        }
        self.held = vec![frame];
        vec![self.asks(calls, Vec::new())]
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

    fn responses_without(&mut self, asks: &Asks, said: &[Option<String>]) -> Vec<Frame> {
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
        let numbers: Vec<&Value> = values.iter().map(|value| &value["sequence_number"]).filter(|n| !n.is_null()).collect();
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

impl Partial {
    fn add(&mut self, call: Option<&Json>) {
        let Some(call) = call else { return };
        let text = |name: &str| call.get(name).and_then(Json::as_str).unwrap_or_default();
        self.tool.push_str(text("name"));
        self.arguments.push_str(text("arguments"));
        self.arguments.push_str(text("input"));
    }
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
    let start = json!({ "type": "content_block_start", "index": place, "content_block": { "type": "text", "text": "" } });
    let delta = json!({ "type": "content_block_delta", "index": place, "delta": { "type": "text_delta", "text": text } });
    vec![first.with(&start.to_string()), Frame::own("content_block_delta", &delta), last.clone()]
}

fn chat_without(asks: &Asks, said: &[Option<String>]) -> Vec<Frame> {
    let refused: BTreeMap<(u64, u64), &String> =
        asks.numbers.iter().copied().zip(said).filter_map(|(number, text)| Some((number, text.as_ref()?))).collect();
    let left = |choice: u64| asks.numbers.iter().filter(|n| n.0 == choice && !refused.contains_key(n)).count();
    // Those that are left are counted anew: readers put them into a list.
    let renumbered = |choice: u64, number: u64| {
        asks.numbers.iter().filter(|n| n.0 == choice && n.1 < number && !refused.contains_key(n)).count()
    };
    let mut frames = Vec::new();
    let mut told = BTreeSet::new();
    for frame in &asks.held {
        let Some(mut value) = frame.value() else { continue };
        let mut texts = Vec::new();
        let Some(choices) = value.get_mut("choices").and_then(Value::as_array_mut) else { continue };
        for (at, choice) in choices.iter_mut().enumerate() {
            let number = choice["index"].as_u64().unwrap_or(at as u64);
            if let Some(delta) = choice.get_mut("delta").and_then(Value::as_object_mut) {
                if let Some(calls) = delta.get_mut("tool_calls").and_then(Value::as_array_mut) {
                    let numbered = |at: usize, call: &Value| call["index"].as_u64().unwrap_or(at as u64);
                    let all = std::mem::take(calls).into_iter().enumerate();
                    let kept = all.map(|(at, call)| (numbered(at, &call), call));
                    let kept = kept.filter(|(call, _)| !refused.contains_key(&(number, *call)));
                    *calls = kept
                        .map(|(was, mut call)| {
                            call["index"] = json!(renumbered(number, was));
                            call
                        })
                        .collect();
                    if calls.is_empty() {
                        delta.shift_remove("tool_calls");
                    }
                }
                if delta.get("function_call").is_some_and(|call| !call.is_null()) && refused.contains_key(&(number, 0)) {
                    delta.shift_remove("function_call");
                }
            }
            if choice["finish_reason"].is_string() {
                let all = refused.iter().filter(|(call, _)| call.0 == number).map(|(_, text)| text.as_str());
                let text = all.collect::<Vec<_>>().join("\n");
                if !text.is_empty() && told.insert(number) {
                    texts.push((number, text));
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
        for (number, text) in texts {
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
    fn run(api: Api, hides: bool, data: &[Value], decide: impl Fn(&ToolCall) -> Option<&'static str>) -> (String, Assembler) {
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
        out.lines().filter_map(|line| line.strip_prefix("data: ")).filter_map(|data| serde_json::from_str(data).ok()).collect()
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
        let data = [json!({ "candidates": [{ "content": { "parts": [{ "functionCall": { "name": "a", "args": {} } }] }, "finishReason": "STOP" }], "usageMetadata": { "promptTokenCount": 3, "candidatesTokenCount": 1 } })];
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
