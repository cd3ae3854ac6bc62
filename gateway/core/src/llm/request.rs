//! What a request asks for, and the most that it can use.

use super::Api;
use crate::json::{self, Json};

/// What is read of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The model, as the worker named it.
    pub model: String,
    /// Whether the answer comes in events.
    pub stream: bool,
    /// Tokens of each answer at most, when it says so.
    pub max_output: Option<u64>,
    /// How many answers.
    pub choices: u64,
    /// Names of the tools that the model may propose to call, sorted.
    pub tools: Vec<String>,
    /// Whether the model gets more than the request holds: a file, an image at an address, an earlier answer, what it finds itself.
    pub refers: bool,
    /// Whether a stream was asked to tell its usage, where that has to be asked for.
    pub asks_usage: bool,
    /// Whether it asks to be served in a way that costs more than the price of its model.
    pub dearer: bool,
}

/// A request that is none of this API. It names the member, and never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}", if at.is_empty() { String::new() } else { format!("`{at}`: ") })]
pub struct Malformed {
    /// The member; empty for the whole.
    pub at: &'static str,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Reads a request. Gemini has the model and whether it streams in the path: `of_path`.
pub fn read(api: Api, body: &Json, of_path: Option<(&str, bool)>) -> Result<Asked, Malformed> {
    if !matches!(body, Json::Object(_)) {
        return Err(Malformed { at: "", what: "a request is one JSON object" });
    }
    let flag = |name: &'static str| match body.get(name) {
        None | Some(Json::Null | Json::Bool(false)) => Ok(false),
        Some(Json::Bool(true)) => Ok(true),
        Some(_) => Err(Malformed { at: name, what: "it is neither true nor false" }),
    };
    let (model, stream) = match (of_path, api) {
        (Some((model, stream)), _) => (model.to_owned(), stream),
        (None, Api::Execute) => (text(body, "model")?.unwrap_or_default(), false),
        (None, _) => match text(body, "model")? {
            Some(model) if !model.is_empty() => (model, flag("stream")?),
            _ => return Err(Malformed { at: "model", what: "it is missing" }),
        },
    };
    // Which other models may answer is not a worker's to say: nobody would have decided on them.
    for name in ["models", "route"] {
        if body.get(name).is_some_and(|value| *value != Json::Null) {
            return Err(Malformed { at: name, what: "a request names one model" });
        }
    }
    let asked = Asked {
        model,
        stream,
        choices: 1,
        tools: tools(api, body),
        refers: refers(body),
        dearer: is_dearer(body),
        ..Asked::default()
    };
    Ok(match api {
        Api::Chat => Asked {
            max_output: larger(count(body, "max_completion_tokens")?, count(body, "max_tokens")?),
            choices: count(body, "n")?.unwrap_or(1).max(1),
            asks_usage: body.get("stream_options").and_then(|options| options.get("include_usage"))
                == Some(&Json::Bool(true)),
            ..asked
        },
        Api::Responses => {
            if flag("background")? {
                // Its answer would be fetched from the provider later, where nobody counts it.
                return Err(Malformed { at: "background", what: "answers that are fetched later are not served here" });
            }
            Asked { max_output: count(body, "max_output_tokens")?, asks_usage: true, ..asked }
        }
        Api::Messages | Api::Execute => Asked { max_output: count(body, "max_tokens")?, asks_usage: true, ..asked },
        Api::Gemini => {
            // Of two spellings of one member the provider takes whichever it likes.
            let of = |names: [&'static str; 2]| {
                let mut most = None;
                for config in ["generationConfig", "generation_config"].into_iter().filter_map(|name| body.get(name)) {
                    for name in names {
                        most = larger(most, config.get(name).map_or(Ok(None), |value| number(name, value))?);
                    }
                }
                Ok(most)
            };
            Asked {
                max_output: of(["maxOutputTokens", "max_output_tokens"])?,
                choices: of(["candidateCount", "candidate_count"])?.unwrap_or(1).max(1),
                asks_usage: true,
                ..asked
            }
        }
    })
}

/// Whether a tier is asked for that costs more.
fn is_dearer(body: &Json) -> bool {
    const PLAIN: [&str; 6] = ["auto", "default", "flex", "standard", "standard_only", "batch"];
    match body.get("service_tier").or_else(|| body.get("serviceTier")) {
        None | Some(Json::Null) => false,
        Some(tier) => tier.as_str().is_none_or(|tier| !PLAIN.contains(&tier)),
    }
}

fn larger(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).max()
}

fn text(body: &Json, name: &'static str) -> Result<Option<String>, Malformed> {
    match body.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Malformed { at: name, what: "it is no text" }),
    }
}

fn count(body: &Json, name: &'static str) -> Result<Option<u64>, Malformed> {
    body.get(name).map_or(Ok(None), |value| number(name, value))
}

/// A count; one that is too large to be counted is the largest.
fn number(at: &'static str, value: &Json) -> Result<Option<u64>, Malformed> {
    match value {
        Json::Null => Ok(None),
        Json::Number(text) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(text.parse().unwrap_or(u64::MAX))),
        _ => Err(Malformed { at, what: "it is no whole number from 0" }),
    }
}

fn items<'j>(body: &'j Json, name: &str) -> &'j [Json] {
    match body.get(name) {
        Some(Json::Array(items)) => items,
        _ => &[],
    }
}

/// Every tool: of the request itself, of a group of them, and of what its input adds.
fn all_tools(body: &Json) -> Vec<&Json> {
    let added =
        items(body, "input").iter().filter(|item| item.get("type").and_then(Json::as_str) == Some("additional_tools"));
    let added = added.flat_map(|item| items(item, "tools"));
    let mut open: Vec<&Json> = items(body, "tools").iter().chain(items(body, "functions")).chain(added).collect();
    let mut all = Vec::new();
    while let Some(tool) = open.pop() {
        all.push(tool);
        // A group holds its tools; a server's own name stands beside them.
        if tool.get("type").and_then(Json::as_str) == Some("namespace") {
            open.extend(items(tool, "tools"));
        }
    }
    all
}

/// Names of tools; of those that the provider runs itself, their type.
fn tools(api: Api, body: &Json) -> Vec<String> {
    let mut names = Vec::new();
    for tool in all_tools(body) {
        let declared = items(tool, "functionDeclarations").iter().chain(items(tool, "function_declarations"));
        let function = tool.get("function").or_else(|| tool.get("custom")).unwrap_or(tool);
        let name = function.get("name").or_else(|| tool.get("type")).and_then(Json::as_str);
        names.extend(name.map(str::to_owned));
        names.extend(declared.filter_map(|declared| declared.get("name")?.as_str()).map(str::to_owned));
        if let (Api::Gemini, Json::Object(members)) = (api, tool) {
            let own = members.iter().map(|(name, _)| name);
            names.extend(own.filter(|name| !name.starts_with("function")).cloned());
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Members that have the model read what the request does not hold.
const REFERENCES: [&str; 25] = [
    "item_reference",
    "inlineData",
    "inline_data",
    "input_audio",
    "googleSearchRetrieval",
    "google_search_retrieval",
    "url_context",
    "fileSearch",
    "codeExecution",
    "previous_response_id",
    "conversation",
    "file_id",
    "file_url",
    "fileData",
    "file_data",
    "fileUri",
    "file_uri",
    "cachedContent",
    "cached_content",
    "mcp_servers",
    "container",
    "web_search_options",
    "googleSearch",
    "google_search",
    "urlContext",
];
/// Members that hold a worker's or a tool's own data, whatever its names are.
const OPAQUE: [&str; 9] = [
    "parameters",
    "parametersJsonSchema",
    "parameters_json_schema",
    "input_schema",
    "input",
    "args",
    "arguments",
    "metadata",
    "schema",
];
/// Types of content that a model reads in another way than as the text it is sent as.
const MEDIA: [&str; 6] = ["image", "document", "input_image", "input_file", "file", "image_url"];
/// Tools whose content the request holds.
const OWN_TOOLS: [&str; 7] = ["function", "custom", "local_shell", "shell", "apply_patch", "namespace", "tool_search"];

fn refers(body: &Json) -> bool {
    // A prompt kept by the provider; the text under this name is a message's own elsewhere.
    if matches!(body.get("prompt"), Some(Json::Object(_))) {
        return true;
    }
    let served = |tool: &Json| match tool.get("type").and_then(Json::as_str) {
        Some(kind) => !OWN_TOOLS.contains(&kind),
        None => false,
    };
    if all_tools(body).into_iter().any(served) {
        return true;
    }
    let mut open = vec![body];
    while let Some(json) = open.pop() {
        match json {
            Json::Object(members) => {
                // `input` holds the messages themselves in one API, and a call's arguments in another.
                let is_call = json
                    .get("type")
                    .and_then(Json::as_str)
                    .is_some_and(|kind| kind.contains("tool_use") || kind.ends_with("_call"));
                if json.get("type").and_then(Json::as_str).is_some_and(|kind| MEDIA.contains(&kind)) {
                    return true;
                }
                for (name, value) in members {
                    if OPAQUE.contains(&name.as_str()) && (name != "input" || is_call) {
                        continue;
                    }
                    let there = !matches!(value, Json::Null);
                    let is_address = |text: &str| text.starts_with("http://") || text.starts_with("https://");
                    let address =
                        matches!(name.as_str(), "url" | "image_url") && value.as_str().is_some_and(is_address);
                    if there && REFERENCES.contains(&name.as_str()) || address {
                        return true;
                    }
                    open.push(value);
                }
            }
            Json::Array(items) => open.extend(items),
            _ => {}
        }
    }
    false
}

/// What an engine's models can take and give, for requests that do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Tokens that a model reads at most, when an operator has said so.
    pub context: Option<u64>,
    /// Tokens of an answer, where a request says nothing.
    pub output: u64,
}

/// What a model is taken to read of things that a request only refers to.
const CONTEXT: u64 = 200_000;
/// What a provider puts around tools, in tokens.
const TOOLS_OVERHEAD: u64 = 1024;
/// And around every request.
const OVERHEAD: u64 = 32;

impl Asked {
    /// Tokens in and out, at most. No tokenizer makes more tokens of a text than it has bytes, and no model reads more than its context.
    pub fn at_most(&self, bytes: usize, bounds: Bounds) -> (u64, u64) {
        let around = if self.tools.is_empty() { OVERHEAD } else { TOOLS_OVERHEAD };
        let said = (bytes as u64).saturating_add(around);
        let input = match (self.refers, bounds.context) {
            (true, context) => context.unwrap_or(CONTEXT).max(said),
            (false, context) => said.min(context.unwrap_or(u64::MAX)),
        };
        let output = self.max_output.unwrap_or(bounds.output).saturating_mul(self.choices);
        (input, output)
    }
}

/// What Warden adds to a request; every other byte goes on as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Additions<'a> {
    /// Has a stream tell its usage, where that has to be asked for.
    pub usage: bool,
    /// Bounds the answer, under a budget: by this member, to so many tokens.
    pub max_output: Option<(&'a str, u64)>,
    /// The model's name at the provider, where that is another one.
    pub model: Option<&'a str>,
}

/// The request with what Warden adds to it. Nothing when it cannot be added, which no well-formed request leads to.
pub fn with(api: Api, text: &str, body: &Json, additions: Additions<'_>) -> Option<String> {
    let mut text = text.to_owned();
    if let Some(model) = additions.model.filter(|_| body.get("model").is_some()) {
        text = json::replaced(&text, &["model"], &serde_json::Value::from(model).to_string())?;
    }
    if additions.usage {
        text = match body.get("stream_options") {
            None => json::with_member(&text, "stream_options", r#"{"include_usage":true}"#)?,
            Some(options) => {
                let mut options = options.to_value();
                if !options.is_object() {
                    options = serde_json::json!({});
                }
                options["include_usage"] = true.into();
                json::replaced(&text, &["stream_options"], &options.to_string())?
            }
        };
    }
    let Some((name, tokens)) = additions.max_output else { return Some(text) };
    let tokens = tokens.to_string();
    if api != Api::Gemini {
        return match body.get(name) {
            None => json::with_member(&text, name, &tokens),
            // It is there, and null.
            Some(_) => json::replaced(&text, &[name], &tokens),
        };
    }
    let config = ["generationConfig", "generation_config"].into_iter().find(|config| body.get(config).is_some());
    let Some(config) = config else {
        return json::with_member(&text, "generationConfig", &format!("{{\"{name}\":{tokens}}}"));
    };
    let members = json::members(text.as_bytes(), json::Limits { bytes_max: usize::MAX, depth_max: 128 }).ok()?;
    let raw = members.iter().find(|(member, _)| member == config)?.1.to_owned();
    let by = match body.get(config).and_then(|config| config.get(name)) {
        None => json::with_member(&raw, name, &tokens)?,
        Some(_) => json::replaced(&raw, &[name], &tokens)?,
    };
    json::replaced(&text, &[config], &by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Limits, parse};

    fn json(text: &str) -> Json {
        parse(text.as_bytes(), Limits::default()).unwrap()
    }

    fn asked(api: Api, text: &str) -> Asked {
        read(api, &json(text), None).unwrap()
    }

    #[test]
    fn each_api_says_in_its_own_way_what_it_asks_for() {
        let chat = asked(
            Api::Chat,
            r#"{"model":"m","n":3,"max_tokens":5,"max_completion_tokens":7,"stream":true,"stream_options":{"include_usage":true},"tools":[{"type":"function","function":{"name":"b"}},{"type":"function","function":{"name":"a"}}]}"#,
        );
        assert_eq!((chat.max_output, chat.choices, chat.stream, chat.asks_usage), (Some(7), 3, true, true));
        assert_eq!((chat.tools, chat.refers), (vec!["a".to_owned(), "b".to_owned()], false));
        let responses = asked(Api::Responses, r#"{"model":"m","max_output_tokens":9,"tools":[{"type":"web_search"}]}"#);
        assert_eq!(
            (responses.max_output, responses.tools, responses.refers),
            (Some(9), vec!["web_search".to_owned()], true)
        );
        let gemini = json(
            r#"{"generationConfig":{"candidateCount":2,"maxOutputTokens":4},"tools":[{"functionDeclarations":[{"name":"f"}]}]}"#,
        );
        let gemini = read(Api::Gemini, &gemini, Some(("g", true))).unwrap();
        assert_eq!((gemini.model.as_str(), gemini.choices, gemini.max_output, gemini.stream), ("g", 2, Some(4), true));
        assert_eq!(gemini.tools, ["f"]);
    }

    #[test]
    fn what_is_malformed_names_the_member() {
        for (text, at) in [
            ("[]", ""),
            ("{}", "model"),
            (r#"{"model":7}"#, "model"),
            (r#"{"model":""}"#, "model"),
            (r#"{"model":"m","stream":"yes"}"#, "stream"),
            (r#"{"model":"m","max_tokens":-1}"#, "max_tokens"),
            (r#"{"model":"m","n":1.5}"#, "n"),
            (r#"{"model":"m","models":["other"]}"#, "models"),
        ] {
            assert_eq!(read(Api::Chat, &json(text), None).unwrap_err().at, at, "{text}");
        }
        assert_eq!(
            read(Api::Responses, &json(r#"{"model":"m","background":true}"#), None).unwrap_err().at,
            "background"
        );
    }

    #[test]
    fn s3_07_the_most_is_never_less_than_it_can_be() {
        let bounds = Bounds { context: Some(10_000), output: 500 };
        assert_eq!(asked(Api::Chat, r#"{"model":"m"}"#).at_most(100, bounds), (132, 500));
        assert_eq!(asked(Api::Chat, r#"{"model":"m","n":4,"max_tokens":9}"#).at_most(100, bounds), (132, 36));
        assert_eq!(asked(Api::Chat, r#"{"model":"m"}"#).at_most(1 << 20, bounds).0, 10_000, "no more than the context");
        let huge = asked(Api::Chat, r#"{"model":"m","n":2,"max_tokens":99999999999999999999999}"#);
        assert_eq!(huge.at_most(1, bounds).1, u64::MAX);
        let added = r#"{"model":"m","input":[{"type":"additional_tools","tools":[{"type":"namespace","name":"ns","tools":[{"type":"function","name":"rm_rf"}]}]}]}"#;
        assert_eq!(asked(Api::Responses, added).tools, ["ns", "rm_rf"]);
        assert!(!asked(Api::Responses, added).refers);
        assert!(asked(Api::Responses, &added.replace("function", "web_search")).refers);
        let own = r#"{"model":"m","tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"file_id":{},"container":{}}}}}],"messages":[{"content":[{"type":"tool_use","input":{"url":"https://h"}}]}]}"#;
        assert_eq!(asked(Api::Chat, own).at_most(100, bounds).0, 1124, "a tool's own words");
        let both = json(r#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":100}}"#);
        assert_eq!(read(Api::Gemini, &both, Some(("g", false))).unwrap().max_output, Some(100));
        assert!(asked(Api::Chat, r#"{"model":"m","service_tier":"priority"}"#).dearer);
        for refers in [
            r#"{"model":"m","messages":[{"content":[{"type":"image","source":{"type":"base64","data":"aaaa"}}]}]}"#,
            r#"{"model":"m","contents":[{"parts":[{"inlineData":{"data":"aaaa"}}]}]}"#,
            r#"{"model":"m","input":[{"type":"item_reference","id":"x"},{"file_id":"x"}]}"#,
            r#"{"model":"m","previous_response_id":"r"}"#,
            r#"{"model":"m","messages":[{"content":[{"type":"image_url","image_url":{"url":"https://h/i.png"}}]}]}"#,
        ] {
            assert_eq!(asked(Api::Chat, refers).at_most(100, bounds).0, 10_000, "{refers}");
        }
    }

    #[test]
    fn what_is_added_leaves_every_other_byte() {
        let text = r#" { "model" : "m",  "x":1.0}"#;
        let plus = |text: &str, additions| with(Api::Chat, text, &json(text), additions).unwrap();
        assert_eq!(plus(text, Additions::default()), text);
        let usage = Additions { usage: true, ..Additions::default() };
        assert_eq!(plus(text, usage), r#" {"stream_options":{"include_usage":true}, "model" : "m",  "x":1.0}"#);
        assert_eq!(
            plus(r#"{"model":"m","stream_options":{"x":1,"include_usage":false}}"#, usage),
            r#"{"model":"m","stream_options":{"x":1,"include_usage":true}}"#
        );
        let bound = Additions { max_output: Some(("max_tokens", 7)), ..Additions::default() };
        assert_eq!(plus(r#"{"model":"m","max_tokens":null}"#, bound), r#"{"model":"m","max_tokens":7}"#);
        let bound = Additions { max_output: Some(("maxOutputTokens", 7)), ..Additions::default() };
        let gemini = |text: &str| with(Api::Gemini, text, &json(text), bound).unwrap();
        assert_eq!(gemini("{}"), r#"{"generationConfig":{"maxOutputTokens":7}}"#);
        assert_eq!(gemini(r#"{"generationConfig":{"a":1}}"#), r#"{"generationConfig":{"maxOutputTokens":7,"a":1}}"#);
        let model = Additions { model: Some("n"), ..Additions::default() };
        assert_eq!(plus(text, model), r#" { "model" : "n",  "x":1.0}"#);
    }
}
