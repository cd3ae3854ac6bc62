//! Engines that take a prompt over HTTP, each in its own API.

use super::Kind;
use super::prompt::{Adapter, Completion, Failed, Prompt};
use crate::mcp::server::HttpServer;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use futures::future::BoxFuture;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use std::sync::Arc;
use warden_core::json::{self, Json, Limits};
use warden_core::llm::{Api, usage};
use warden_core::outcome::{Lost, Reply};

/// See the module.
pub struct OverHttp {
    api: Api,
    /// The member that bounds an answer.
    bound: String,
    http: Arc<HttpServer>,
}

/// Bytes of an answer.
const ANSWER_MAX: usize = 16 << 20;
/// Tokens of an answer, where an API has to be told.
const OUTPUT: u64 = 4096;
/// The version of Anthropic's API, where a worker names none.
pub const ANTHROPIC_VERSION: &str = "2023-06-01";

impl OverHttp {
    /// For an engine of this kind.
    pub fn new(kind: Kind, chat_bound: Option<String>, http: Arc<HttpServer>) -> Self {
        let api = match kind {
            Kind::Anthropic => Api::Messages,
            Kind::Gemini => Api::Gemini,
            Kind::LlmConnect | Kind::ClaudeCode => Api::Execute,
            Kind::OpenAi | Kind::OpenRouter => Api::Chat,
        };
        let bound = chat_bound.filter(|_| api == Api::Chat).unwrap_or_else(|| kind.bounds_output(api).to_owned());
        Self { api, bound, http }
    }

    /// The path and the body of a prompt.
    fn request(&self, prompt: &Prompt) -> (String, Value) {
        let Prompt { prompt: text, system, model, max_tokens } = prompt;
        let user = json!({ "role": "user", "content": text });
        let mut body = match self.api {
            Api::Chat | Api::Responses => {
                let system = system.iter().map(|system| json!({ "role": "system", "content": system }));
                json!({ "model": model, "messages": system.chain([user]).collect::<Vec<_>>() })
            }
            Api::Messages => json!({ "model": model, "max_tokens": max_tokens.unwrap_or(OUTPUT), "messages": [user] }),
            Api::Gemini => json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }] }),
            Api::Execute => json!({ "prompt": text }),
        };
        let path = match self.api {
            Api::Gemini => format!("{}/{model}:generateContent", Api::Gemini.path()),
            api => api.path().to_owned(),
        };
        match (self.api, system) {
            (Api::Messages | Api::Execute, Some(system)) => body["system"] = json!(system),
            (Api::Gemini, Some(system)) => body["systemInstruction"] = json!({ "parts": [{ "text": system }] }),
            _ => {}
        }
        match (self.api, max_tokens) {
            (Api::Gemini, Some(tokens)) => body["generationConfig"] = json!({ &self.bound: tokens }),
            (_, Some(tokens)) => body[&self.bound] = json!(tokens),
            (_, None) => {}
        }
        if self.api == Api::Execute && !model.is_empty() {
            body["model"] = json!(model);
        }
        (path, body)
    }
}

impl Adapter for OverHttp {
    fn execute<'a>(&'a self, prompt: &'a Prompt) -> BoxFuture<'a, Result<Completion, Failed>> {
        Box::pin(async move {
            if self.api == Api::Gemini && !is_path_segment(&prompt.model) {
                return Err(Failed::NotSent("the model is no name".into()));
            }
            let (path, body) = self.request(prompt);
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            if self.api == Api::Messages {
                headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
            }
            let sent = self.http.send_to(&path, Method::POST, &headers, body.to_string()).await;
            let response = sent.map_err(|reply| match reply {
                Reply::NotSent => Failed::NotSent(format!("{} cannot be reached", self.http.place())),
                _ => Failed::Lost(Lost::Gone),
            })?;
            let status = response.status();
            let whole = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let bytes = whole.map_err(|e| match e.is::<LengthLimitError>() {
                true => Failed::Lost(Lost::Garbled),
                false => Failed::Lost(Lost::Gone),
            });
            let bytes = bytes?.to_bytes();
            let read = json::parse(&bytes, Limits { bytes_max: ANSWER_MAX, depth_max: 128 });
            let used = read.as_ref().ok().and_then(|body| usage::read(self.api, body));
            if !status.is_success() {
                let message = read.as_ref().ok().and_then(message).unwrap_or("the engine gave no reason").to_owned();
                return Err(Failed::Refused { status: status.as_u16(), message, usage: used });
            }
            let body = read.map_err(|_| Failed::Lost(Lost::Garbled))?;
            let content = content(self.api, &body).ok_or(Failed::Lost(Lost::Garbled))?;
            let model = ["model", "modelVersion"].into_iter().find_map(|name| body.get(name)?.as_str());
            Ok(Completion { content, model: model.map(str::to_owned), usage: used })
        })
    }
}

/// Whether a model's name can stand in a path, and be nothing else there.
pub fn is_path_segment(model: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    !model.is_empty() && !model.contains("..") && model.bytes().all(fine)
}

fn message(body: &Json) -> Option<&str> {
    let error = body.get("error")?;
    error.as_str().or_else(|| error.get("message")?.as_str())
}

fn first<'j>(of: &'j Json, name: &str) -> Option<&'j Json> {
    match of.get(name)? {
        Json::Array(items) => items.first(),
        _ => None,
    }
}

/// The text of an answer.
fn content(api: Api, body: &Json) -> Option<String> {
    let texts = |parts: Option<&Json>| -> Option<String> {
        let Some(Json::Array(parts)) = parts else { return None };
        Some(parts.iter().filter_map(|part| part.get("text")?.as_str()).collect())
    };
    match api {
        // An answer may have no text: it was cut off before, or the model refused.
        Api::Chat | Api::Responses => {
            let message = first(body, "choices")?.get("message")?;
            let said = |name: &str| message.get(name).and_then(Json::as_str);
            Some(said("content").or_else(|| said("refusal")).unwrap_or_default().to_owned())
        }
        Api::Messages => texts(body.get("content")),
        Api::Gemini => {
            let candidate = first(body, "candidates")?;
            Some(texts(candidate.get("content").and_then(|content| content.get("parts"))).unwrap_or_default())
        }
        Api::Execute => body.get("content")?.as_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::super::prompt::gather;
    use super::*;
    use axum::Router;
    use axum::routing::post;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use tokio::net::TcpListener;
    use tokio::runtime::Builder;
    use tokio::sync::Barrier;
    use tokio::task::spawn_blocking;

    #[test]
    fn s3_15_http_engines_wait_without_a_thread() {
        // The one thread that there is beside the runtime's own is parked until the end.
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (ends, parked) = std::sync::mpsc::channel::<()>();
            let thread = spawn_blocking(move || parked.recv());
            let other = spawn_blocking(|| ());
            // It answers when four have come: with fewer at once nobody would ever be answered.
            let all = Arc::new(Barrier::new(4));
            let answer = move |body: String| {
                let all = all.clone();
                async move {
                    all.wait().await;
                    let asked: Value = serde_json::from_str(&body).unwrap();
                    json!({ "content": asked["prompt"] }).to_string()
                }
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let router = Router::new().route("/execute", post(answer));
            let server = tokio::spawn(async move { axum::serve(listener, router).await });
            let http = Arc::new(HttpServer::new(&url, &BTreeMap::new(), None).unwrap());
            let engine = OverHttp::new(Kind::LlmConnect, None, http);
            let calls = ["a", "b", "c", "d"].map(|text| {
                let engine: &dyn Adapter = &engine;
                (engine, Prompt { prompt: text.into(), ..Prompt::default() })
            });
            let answers = gather(&calls, Duration::from_secs(60)).await;
            let said: Vec<String> = answers.into_iter().map(|answer| answer.unwrap().content).collect();
            assert_eq!(said, ["a", "b", "c", "d"]);
            assert!(!thread.is_finished() && !other.is_finished(), "there was a thread to wait on");
            drop(ends);
            server.abort();
        });
    }
}
