//! What a client sends.

use crate::Outcome;
use crate::answers::{MODEL, Mode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use serde_json::json;

/// Where a chat completion is asked for.
pub(crate) const PATH: &str = "/v1/chat/completions";

/// How a target is reached.
#[derive(Clone)]
pub(crate) struct Door {
    /// On loopback.
    pub(crate) port: u16,
    headers: HeaderMap,
}

impl Door {
    /// With a credential.
    pub(crate) fn new(port: u16, token: &str) -> Outcome<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::try_from(format!("127.0.0.1:{port}"))?);
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { port, headers })
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Outcome<Self> {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value)?);
        Ok(self)
    }
}

/// A request that is sent again and again.
#[derive(Clone)]
pub(crate) struct Ask {
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    /// For an answer that comes so.
    pub(crate) fn new(door: &Door, mode: Mode) -> Self {
        let mut headers = door.headers.clone();
        let mut body = json!({
            "model": MODEL, "max_tokens": 256, "temperature": 0.2,
            "messages": [
                { "role": "system", "content": "You know the harbour. Answer in few words, and say what is free of charge." },
                { "role": "user", "content": "Where do small boats lie in autumn, and when does somebody have to pay?" },
            ],
        });
        match mode {
            Mode::Unary => headers.insert(ACCEPT, HeaderValue::from_static("application/json")),
            Mode::Sse => {
                body["stream"] = true.into();
                body["stream_options"] = json!({ "include_usage": true });
                headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"))
            }
        };
        Self { headers, body: body.to_string().into() }
    }

    /// Once more.
    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hyper::Uri::from_static(PATH);
        *request.headers_mut() = self.headers.clone();
        request
    }
}
