//! Streams of each API, whole and broken, with calls that are allowed and refused.

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
    let item = |n: u64| json!({ "type": "function_call", "id": format!("fc_{n}"), "name": format!("t{n}"), "arguments": format!("{{{n}}}") });
    let data = [
        json!({ "type": "response.output_item.added", "output_index": 0, "item": item(0) }),
        json!({ "type": "response.output_item.added", "output_index": 1, "item": item(1) }),
        json!({ "type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{0}" }),
        json!({ "type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{1}" }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item(0) }),
        json!({ "type": "response.output_item.done", "output_index": 1, "item": item(1) }),
        json!({ "type": "response.completed", "response": { "output": [item(0), item(1)] } }),
    ];
    let (out, _) = run(Api::Responses, false, &data, |call| (call.tool == "t1").then_some("no"));
    assert!(out.contains("{0}") && !out.contains("{1}") && !out.contains("t1"), "{out}");
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

/// Whether a stream of these ends as no answer of its API.
fn is_garbled(api: Api, data: &[Value]) -> bool {
    let mut assembler = Assembler::new(api, false);
    data.iter().any(|value| {
        let event = Event { raw: Vec::new(), data: Some(value.to_string()), id: None };
        assembler.push(Frame::read(event).unwrap()).is_err()
    })
}

#[test]
fn a_call_is_what_was_decided_and_nothing_else() {
    let item = |name: &str, arguments: &str| json!({ "type": "function_call", "id": "fc", "name": name, "arguments": arguments });
    let added = |item: Value| json!({ "type": "response.output_item.added", "output_index": 0, "item": item });
    let done = |item: Value| json!({ "type": "response.output_item.done", "output_index": 0, "item": item });
    let delta =
        |text: &str| json!({ "type": "response.function_call_arguments.delta", "output_index": 0, "delta": text });
    let fine = [added(item("a", "")), delta("{1"), delta("}"), done(item("a", "{1}"))];
    assert!(!is_garbled(Api::Responses, &fine));
    for bad in [
        vec![added(item("rm", "")), done(item("a", "{1}"))],
        vec![added(item("a", "{2}")), done(item("a", "{1}"))],
        vec![delta("{2}"), done(item("a", "{1}"))],
        vec![done(item("a", "{1}")), delta("{2}")],
        vec![json!({ "type": "response.function_call_arguments.delta", "delta": "{2}" })],
        vec![json!({ "type": "response.created", "response": { "output": [item("a", "{1}")] } })],
    ] {
        assert!(is_garbled(Api::Responses, &bad), "{bad:?}");
    }
    // Another call under the name of one that was allowed is decided at the end.
    let end = json!({ "type": "response.completed", "response": { "output": [item("rm", "{1}")] } });
    let data = [fine.to_vec(), vec![end]].concat();
    let (out, _) = run(Api::Responses, false, &data, |call| (call.tool == "rm").then_some("no"));
    assert!(!out.contains("\"rm\""), "{out}");
    let start = |name: &str| json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "tool_use", "name": name, "input": {} } });
    assert!(is_garbled(Api::Messages, &[start("a"), start("rm")]));
    assert!(is_garbled(
        Api::Messages,
        &[json!({ "type": "content_block_start", "content_block": { "type": "tool_use", "name": "a" } })]
    ));
}

#[test]
fn a_call_of_the_old_form_is_not_taken_for_one_of_the_new() {
    let old = chunk(json!({ "function_call": { "name": "rm", "arguments": "{}" } }), None);
    let data = [chunk(call(0, Some("get_time"), "{}"), None), old, chunk(json!({}), Some("tool_calls"))];
    let seen = std::cell::RefCell::new(Vec::new());
    let (out, _) = run(Api::Chat, false, &data, |call| {
        seen.borrow_mut().push(call.tool.clone());
        (call.tool == "rm").then_some("no")
    });
    assert_eq!(seen.into_inner(), ["get_time", "rm"]);
    assert!(out.contains("get_time") && !out.contains("function_call"), "{out}");
    let two = [chunk(call(0, Some("a"), ""), None), chunk(call(0, Some("rm"), ""), None)];
    let mut two = two.to_vec();
    two[1]["choices"][0]["delta"]["tool_calls"][0]["id"] = json!(null);
    assert!(is_garbled(Api::Chat, &two), "two names of one call");
}

#[test]
fn what_follows_a_held_call_stays_behind_it_and_an_end_without_a_word_is_told() {
    let data = [
        chunk(
            json!({ "content": "A", "tool_calls": [{ "index": 0, "id": "x", "function": { "name": "a", "arguments": "{}" } }] }),
            None,
        ),
        chunk(json!({ "content": "B" }), None),
        json!("[DONE]"),
    ];
    let (out, _) = run(Api::Chat, false, &data, |_| None);
    assert!(out.find("\"A\"") < out.find("\"B\""), "{out}");
    let (out, _) = run(Api::Chat, false, &data, |_| Some("no"));
    assert!(out.contains("\"A\"") && out.contains("\"no\"") && !out.contains("tool_calls"), "{out}");
}
