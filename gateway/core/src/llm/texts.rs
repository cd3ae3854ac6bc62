//! What of an event is running text: it goes on where an earlier event of its channel ended, so that it has to be scanned with
//! what came before. The rest of an event is scanned by itself.

use super::Api;
use crate::json::{Json, push_pointer};
use crate::secrets::stream::Piece;

/// Where a running text stands in its event, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Member by member, for [`crate::json::replaced`].
    pub path: Vec<String>,
    /// The text, with its channel.
    pub piece: Piece,
}

/// Members of a delta that name something.
const NAMES: [&str; 9] =
    ["role", "type", "id", "name", "call_id", "item_id", "signature", "thoughtSignature", "encrypted_content"];

/// The running texts of an event.
pub fn running(api: Api, event: &Json) -> Vec<Running> {
    let mut found = Vec::new();
    let kind = event.get("type").and_then(Json::as_str).unwrap_or_default();
    match api {
        Api::Chat => {
            for (at, choice) in list(event.get("choices")) {
                let number = index(choice, at);
                if let Some(delta) = choice.get("delta") {
                    let path = vec!["choices".into(), at.to_string(), "delta".into()];
                    strings(delta, path, &format!("/choices/{number}"), &mut found);
                }
            }
        }
        Api::Responses if kind.ends_with(".delta") => {
            if let Some(Json::String(text)) = event.get("delta") {
                let mut channel = format!("/{kind}");
                for name in ["output_index", "content_index", "summary_index"] {
                    if let Some(Json::Number(number)) = event.get(name) {
                        channel = format!("{channel}/{number}");
                    }
                }
                found.push(Running { path: vec!["delta".into()], piece: Piece { channel, text: text.clone() } });
            }
        }
        Api::Messages if kind == "content_block_delta" => {
            if let Some(delta) = event.get("delta") {
                strings(delta, vec!["delta".into()], &format!("/content/{}", index(event, 0)), &mut found);
            }
        }
        Api::Gemini => {
            for (at, candidate) in list(event.get("candidates")) {
                let number = index(candidate, at);
                let parts = candidate.get("content").and_then(|content| content.get("parts"));
                for (part_at, part) in list(parts) {
                    if let Some(Json::String(text)) = part.get("text") {
                        let channel = format!("/candidates/{number}/text");
                        let path = ["candidates", &at.to_string(), "content", "parts", &part_at.to_string(), "text"];
                        let path = path.map(str::to_owned).into();
                        found.push(Running { path, piece: Piece { channel, text: text.clone() } });
                    }
                }
            }
        }
        _ => {}
    }
    found
}

/// The strings of an event that are no running text, names included, one a line.
pub fn rest(event: &Json, running: &[Running]) -> String {
    let pointers: Vec<String> = running.iter().map(|text| pointer(&text.path)).collect();
    let mut rest = String::new();
    event.each_string(&mut String::new(), &mut |at, text| {
        // A member's name has the pointer of its value, and another text.
        let runs = running.iter().zip(&pointers).any(|(running, pointer)| pointer == at && running.piece.text == text);
        if !runs {
            rest.push_str(text);
            rest.push('\n');
        }
    });
    rest
}

fn pointer(path: &[String]) -> String {
    let mut pointer = String::new();
    path.iter().for_each(|step| push_pointer(&mut pointer, step));
    pointer
}

fn list(of: Option<&Json>) -> impl Iterator<Item = (usize, &Json)> {
    match of {
        Some(Json::Array(items)) => items.iter().enumerate(),
        _ => [].iter().enumerate(),
    }
}

/// The number that something says it has, or else its place.
fn index(of: &Json, place: usize) -> String {
    match of.get("index") {
        Some(Json::Number(number)) => number.clone(),
        _ => place.to_string(),
    }
}

/// Every string of a delta but names; items of a list by the number they say they have.
fn strings(of: &Json, path: Vec<String>, channel: &str, found: &mut Vec<Running>) {
    match of {
        Json::String(text) => {
            found.push(Running { path, piece: Piece { channel: channel.to_owned(), text: text.clone() } });
        }
        Json::Object(members) => {
            for (name, value) in members.iter().filter(|(name, _)| !NAMES.contains(&name.as_str())) {
                let mut path = path.clone();
                path.push(name.clone());
                strings(value, path, &format!("{channel}/{name}"), found);
            }
        }
        Json::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let mut path = path.clone();
                path.push(at.to_string());
                strings(item, path, &format!("{channel}/{}", index(item, at)), found);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Limits, parse};

    fn of(api: Api, text: &str) -> (Vec<(String, String)>, String) {
        let event = parse(text.as_bytes(), Limits::default()).unwrap();
        let running = running(api, &event);
        for text_of in &running {
            let path: Vec<&str> = text_of.path.iter().map(String::as_str).collect();
            assert!(crate::json::replaced(text, &path, "\"\"").is_some(), "the path leads somewhere");
        }
        let rest = rest(&event, &running);
        (running.into_iter().map(|running| (running.piece.channel, running.piece.text)).collect(), rest)
    }

    #[test]
    fn running_texts_are_told_from_the_rest() {
        let (texts, rest) = of(
            Api::Chat,
            r#"{"id":"x","choices":[{"index":2,"delta":{"role":"assistant","content":"a","tool_calls":[{"index":1,"id":"i","function":{"name":"f","arguments":"b"}}]}}]}"#,
        );
        assert_eq!(
            texts,
            [
                ("/choices/2/content".into(), "a".into()),
                ("/choices/2/tool_calls/1/function/arguments".to_owned(), "b".to_owned())
            ]
        );
        assert!(rest.contains("assistant") && !rest.split('\n').any(|line| line == "a" || line == "b"), "{rest}");
        let (texts, _) = of(
            Api::Responses,
            r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"a"}"#,
        );
        assert_eq!(texts, [("/response.output_text.delta/1/0".to_owned(), "a".to_owned())]);
        let (texts, rest) =
            of(Api::Responses, r#"{"type":"response.completed","response":{"output":[{"text":"all"}]}}"#);
        assert!(texts.is_empty() && rest.contains("all"));
        let (texts, _) = of(
            Api::Messages,
            r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"a"}}"#,
        );
        assert_eq!(texts, [("/content/3/partial_json".to_owned(), "a".to_owned())]);
        let (texts, _) =
            of(Api::Gemini, r#"{"candidates":[{"content":{"parts":[{"text":"a"},{"functionCall":{"name":"f"}}]}}]}"#);
        assert_eq!(texts, [("/candidates/0/text".to_owned(), "a".to_owned())]);
    }
}
