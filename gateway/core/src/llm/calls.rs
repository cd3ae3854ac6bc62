//! The tool calls that an answer proposes to the worker, and an answer without those that were refused: in the place of each
//! stands a text that says so, in the API's own shape.

use super::Api;
use crate::json::Json;
use serde_json::{Value, json};

/// A tool call that an answer proposes.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The tool, as the model names it.
    pub tool: String,
    /// What it would be called with, and everything else that comes with the call.
    pub call: Json,
}

/// Items of a Responses answer that the provider has run by itself: nobody can refuse them any more.
const RUN_BY_PROVIDER: [&str; 6] = [
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
    "tool_search_call",
];

/// Whether an item of a Responses answer is a call that the worker would make.
pub(super) fn is_call(item: &Json) -> bool {
    let kind = item.get("type").and_then(Json::as_str).unwrap_or_default();
    kind.ends_with("_call") && !RUN_BY_PROVIDER.contains(&kind)
}

fn items(of: Option<&Json>) -> impl Iterator<Item = &Json> {
    match of {
        Some(Json::Array(items)) => items.iter(),
        _ => [].iter(),
    }
}

/// The tool call that a value is: `function` or `custom` inside, or the name beside its arguments.
pub(super) fn tool_call(call: &Json) -> ToolCall {
    let named =
        ["function", "custom", "functionCall", "function_call"].iter().find_map(|name| call.get(name)?.get("name"));
    let name = named.or_else(|| call.get("name")).or_else(|| call.get("type")).and_then(Json::as_str);
    ToolCall { tool: name.unwrap_or_default().to_owned(), call: call.clone() }
}

/// Every tool call of a whole answer, in order.
pub fn of(api: Api, body: &Json) -> Vec<ToolCall> {
    let mut calls = Vec::new();
    match api {
        Api::Chat => {
            for message in items(body.get("choices")).filter_map(|choice| choice.get("message")) {
                calls.extend(items(message.get("tool_calls")).map(tool_call));
                calls.extend(message.get("function_call").filter(|call| **call != Json::Null).map(tool_call));
            }
        }
        Api::Responses => calls.extend(items(body.get("output")).filter(|item| is_call(item)).map(tool_call)),
        Api::Messages => {
            let is_use = |item: &&Json| item.get("type").and_then(Json::as_str) == Some("tool_use");
            calls.extend(items(body.get("content")).filter(is_use).map(tool_call));
        }
        Api::Gemini => {
            // Without `alt=sse` a stream is one array.
            let answers = if let Json::Array(answers) = body { &answers[..] } else { std::slice::from_ref(body) };
            for candidate in answers.iter().flat_map(|answer| items(answer.get("candidates"))) {
                let parts = items(candidate.get("content").and_then(|content| content.get("parts")));
                calls.extend(parts.filter(|part| part.get("functionCall").is_some()).map(tool_call));
            }
        }
        Api::Execute => {}
    }
    calls
}

/// The text of an answer without the calls that were refused: `said[n]` is what stands in the place of the `n`th of [`of`]. Nothing
/// when the text is not what was read.
pub fn without(api: Api, text: &str, said: &[Option<String>]) -> Option<String> {
    let mut body: Value = serde_json::from_str(text).ok()?;
    let mut said = said.iter();
    match api {
        Api::Chat => {
            for choice in body.get_mut("choices")?.as_array_mut()? {
                chat_choice(choice, &mut said);
            }
        }
        Api::Responses => {
            for item in body.get_mut("output")?.as_array_mut()? {
                let read = crate::json::parse(item.to_string().as_bytes(), crate::json::Limits::default()).ok()?;
                if is_call(&read)
                    && let Some(text) = said.next()?
                {
                    *item = responses_message(item, text);
                }
            }
        }
        Api::Messages => {
            let mut left = false;
            for block in body.get_mut("content")?.as_array_mut()? {
                if block["type"] == "tool_use" {
                    match said.next()? {
                        Some(text) => *block = json!({ "type": "text", "text": text }),
                        None => left = true,
                    }
                }
            }
            if !left && body["stop_reason"] == "tool_use" {
                body["stop_reason"] = json!("end_turn");
            }
        }
        Api::Gemini => {
            let answers = match &mut body {
                Value::Array(answers) => answers.iter_mut().collect(),
                answer => vec![answer],
            };
            for answer in answers {
                gemini_answer(answer, &mut said);
            }
        }
        Api::Execute => {}
    }
    Some(body.to_string())
}

type Said<'s> = std::slice::Iter<'s, Option<String>>;

fn chat_choice(choice: &mut Value, said: &mut Said<'_>) {
    let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) else { return };
    let mut texts: Vec<String> =
        message.get("content").and_then(Value::as_str).map(str::to_owned).into_iter().collect();
    let before = texts.len();
    let mut left = 0;
    if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
        calls.retain(|_| match said.next() {
            Some(Some(text)) => {
                texts.push(text.clone());
                false
            }
            _ => true,
        });
        left = calls.len();
        if left == 0 {
            message.shift_remove("tool_calls");
        }
    }
    if message.get("function_call").is_some_and(|call| !call.is_null()) {
        match said.next() {
            Some(Some(text)) => {
                texts.push(text.clone());
                message.shift_remove("function_call");
            }
            _ => left += 1,
        }
    }
    if texts.len() > before {
        message.insert("content".into(), json!(texts.join("\n")));
        if left == 0 {
            choice["finish_reason"] = json!("stop");
        }
    }
}

/// The message that stands in the place of a call.
pub(super) fn responses_message(call: &Value, text: &str) -> Value {
    let id = call["id"].as_str().unwrap_or("refused");
    json!({ "id": format!("msg_{id}"), "type": "message", "status": "completed", "role": "assistant",
        "content": [{ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }] })
}

/// A Gemini answer, or an event of one, without the calls that were refused.
pub(super) fn gemini_answer(answer: &mut Value, said: &mut Said<'_>) {
    for candidate in answer.get_mut("candidates").and_then(Value::as_array_mut).into_iter().flatten() {
        let parts = candidate.pointer_mut("/content/parts").and_then(Value::as_array_mut);
        for part in parts.into_iter().flatten() {
            if part.get("functionCall").is_some()
                && let Some(Some(text)) = said.next()
            {
                *part = json!({ "text": text });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Limits, parse};

    fn check(api: Api, text: &str, tools: &[&str], said: &[Option<&str>], after: Value) {
        let body = parse(text.as_bytes(), Limits::default()).unwrap();
        let found = of(api, &body);
        assert_eq!(found.iter().map(|call| call.tool.as_str()).collect::<Vec<_>>(), tools);
        let said: Vec<_> = said.iter().map(|text| text.map(str::to_owned)).collect();
        let without: Value = serde_json::from_str(&without(api, text, &said).unwrap()).unwrap();
        assert_eq!(without, after);
    }

    #[test]
    fn chat_calls_go_and_a_text_says_why() {
        let text = r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"a","arguments":"{}"}},{"id":"2","type":"function","function":{"name":"b","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"x":1.5}"#;
        let one = json!({"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"no a","tool_calls":[{"id":"2","type":"function","function":{"name":"b","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"x":1.5});
        check(Api::Chat, text, &["a", "b"], &[Some("no a"), None], one);
        let none = json!({"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"no a\nno b"},"finish_reason":"stop"}],"x":1.5});
        check(Api::Chat, text, &["a", "b"], &[Some("no a"), Some("no b")], none);
    }

    #[test]
    fn responses_calls_become_messages_and_what_the_provider_ran_stays() {
        let text = r#"{"output":[{"type":"web_search_call","id":"w"},{"type":"function_call","id":"f","name":"a","arguments":"{}"},{"type":"local_shell_call","id":"l"}]}"#;
        let after = json!({"output":[{"type":"web_search_call","id":"w"},{"id":"msg_f","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"no","annotations":[],"logprobs":[]}]},{"type":"local_shell_call","id":"l"}]});
        check(Api::Responses, text, &["a", "local_shell_call"], &[Some("no"), None], after);
    }

    #[test]
    fn anthropic_blocks_become_text_and_the_turn_ends() {
        let text = r#"{"content":[{"type":"text","text":"hm"},{"type":"tool_use","id":"t","name":"a","input":{}}],"stop_reason":"tool_use"}"#;
        let after =
            json!({"content":[{"type":"text","text":"hm"},{"type":"text","text":"no"}],"stop_reason":"end_turn"});
        check(Api::Messages, text, &["a"], &[Some("no")], after);
    }

    #[test]
    fn gemini_parts_become_text_in_an_array_as_well() {
        let one = r#"{"candidates":[{"content":{"parts":[{"text":"hm"},{"functionCall":{"name":"a","args":{}}}]}}]}"#;
        let after = json!({"candidates":[{"content":{"parts":[{"text":"hm"},{"text":"no"}]}}]});
        check(Api::Gemini, one, &["a"], &[Some("no")], after.clone());
        check(Api::Gemini, &format!("[{one}]"), &["a"], &[Some("no")], json!([after]));
    }
}
