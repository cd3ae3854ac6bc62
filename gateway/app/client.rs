//! The CLI as a client of the running gateway, over the operator socket.

use crate::exit::Failure;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A client of the operator plane.
pub struct Client {
    http: reqwest::Client,
    token: String,
}

impl Client {
    /// A client when a gateway runs on that data folder; nothing when none does.
    pub fn connect(data_dir: &Path) -> Result<Option<Self>, Failure> {
        let socket = data_dir.join("operator.sock");
        if std::os::unix::net::UnixStream::connect(&socket).is_err() {
            return Ok(None);
        }
        let http = reqwest::Client::builder().no_proxy().unix_socket(socket).build().map_err(Failure::failed)?;
        Ok(Some(Self { http, token: operator_token(data_dir)? }))
    }

    /// The same, where a running gateway is needed.
    pub fn need(data_dir: &Path) -> Result<Self, Failure> {
        Self::connect(data_dir)?.ok_or_else(|| {
            Failure::failed(format!("no gateway runs on `{}`: start it with `warden serve`", data_dir.display()))
        })
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.http.get(url(path))).await
    }

    /// `GET path`, as text.
    pub async fn text(&self, path: &str) -> Result<String, Failure> {
        let response = Self::good(self.http.get(url(path)).bearer_auth(&self.token)).await?;
        response.text().await.map_err(|e| Failure::of(&e))
    }

    /// `GET path`, line by line, for as long as lines come.
    pub async fn lines(&self, path: &str, mut take: impl FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut response = Self::good(self.http.get(url(path)).bearer_auth(&self.token)).await?;
        let mut rest = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|e| Failure::of(&e))? {
            rest.extend_from_slice(&part);
            let Some(end) = rest.iter().rposition(|b| *b == b'\n') else { continue };
            let whole: Vec<u8> = rest.drain(..=end).collect();
            let text = std::str::from_utf8(&whole).map_err(Failure::failed)?;
            text.lines().try_for_each(&mut take)?;
        }
        if rest.is_empty() { Ok(()) } else { Err(Failure::failed("the answer broke off in the middle of a line")) }
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(self.http.post(url(path)).json(body)).await
    }

    /// The same with a header.
    pub async fn post_with(&self, path: &str, body: &Value, (name, value): (&str, &str)) -> Result<Value, Failure> {
        self.send(self.http.post(url(path)).header(name, value).json(body)).await
    }

    /// `POST path` with a JSON body; a refusal comes with its code.
    pub async fn post_coded(&self, path: &str, body: &Value) -> Result<Value, (String, Failure)> {
        let sent = self.http.post(url(path)).json(body).bearer_auth(&self.token).send().await;
        let response = sent.map_err(|e| (String::new(), Failure::of(&e)))?;
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        Err((body["error"]["code"].as_str().unwrap_or_default().to_owned(), refused(status, &body)))
    }

    /// `POST path` with a JSON body that was made already.
    pub async fn post_text(&self, path: &str, body: &str) -> Result<Value, Failure> {
        let request = self.http.post(url(path)).header("content-type", "application/json");
        self.send(request.body(body.to_owned())).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.http.delete(url(path))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let response = Self::good(request.bearer_auth(&self.token)).await?;
        Ok(response.json().await.unwrap_or_default())
    }

    /// The answer, or why there is none.
    async fn good(request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let response = request.send().await.map_err(|e| Failure::of(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(refused(status, &response.json().await.unwrap_or_default()))
    }
}

/// Why the gateway said no.
fn refused(status: reqwest::StatusCode, body: &Value) -> Failure {
    let message = body
        .pointer("/error/message")
        .and_then(Value::as_str)
        .map_or_else(|| format!("the gateway answered {status}"), str::to_owned);
    match status.as_u16() {
        409 | 404 | 403 => Failure::no(message),
        422 | 400 => Failure::invalid(message),
        401 => Failure::failed(format!("{message}; or put the token into WARDEN_OPERATOR_TOKEN")),
        _ => Failure::failed(message),
    }
}

fn url(path: &str) -> String {
    format!("http://localhost{path}")
}

/// `WARDEN_OPERATOR_TOKEN`, else the file that `init` wrote.
fn operator_token(data_dir: &Path) -> Result<String, Failure> {
    if let Ok(token) = std::env::var("WARDEN_OPERATOR_TOKEN") {
        return Ok(token);
    }
    let file: PathBuf = data_dir.join("operator.token");
    std::fs::read_to_string(&file).map(|text| text.trim().to_owned()).map_err(|e| {
        Failure::failed(format!("no operator's token: WARDEN_OPERATOR_TOKEN is not set, and `{}`: {e}", file.display()))
    })
}
