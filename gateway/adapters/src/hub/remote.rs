//! A hub at a URL, as `docs/hub.md` and `schemas/hub.openapi.json` describe it.

use super::{Hub, HubError, Lease, PAGE, Page, Progress, Write};
use crate::mcp::server::HttpServer;
use axum::http::{HeaderMap, HeaderValue, Method};
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use warden_core::outcome::Reply;

/// How long a hub may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const ANSWER_MAX: usize = 64 << 20;
/// A write that may have got lost is tried again: its key makes it one.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// See the module.
pub struct RemoteHub {
    http: Arc<HttpServer>,
}

impl RemoteHub {
    /// At a base URL, with the credentials that Warden holds for it.
    pub fn new(http: Arc<HttpServer>) -> Self {
        Self { http }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        write: Option<Write<'_>>,
    ) -> Result<Value, HubError> {
        let mut headers = HeaderMap::new();
        if let Some(Write { key, fence }) = write {
            let key = HeaderValue::from_str(key).map_err(|_| HubError::NotSent)?;
            headers.insert("idempotency-key", key);
            if let Some(fence) = fence {
                headers.insert("x-hub-fence", HeaderValue::from(fence));
            }
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        let asked = async {
            let sent = self.http.send_to(path, method, &headers, text).await;
            let response = sent.map_err(|reply| match reply {
                Reply::NotSent => HubError::NotSent,
                _ => HubError::Lost,
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|_| HubError::Lost)?.to_bytes();
            match head.status.as_u16() {
                200..300 if body.is_empty() => Ok(Value::Null),
                200..300 => serde_json::from_slice(&body).map_err(|_| HubError::Garbled("it is no JSON")),
                status => Err(HubError::Refused(status)),
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(HubError::Lost))
    }

    async fn write(&self, path: String, body: Value, write: Write<'_>) -> Result<(), HubError> {
        let mut tries = 1;
        loop {
            let done = self.ask(Method::POST, &path, Some(&body), Some(write)).await;
            let again = matches!(done, Err(HubError::NotSent | HubError::Lost | HubError::Refused(429 | 500..600)));
            if !again || tries == TRIES {
                return done.map(drop);
            }
            tokio::time::sleep(PAUSE * tries).await;
            tries += 1;
        }
    }
}

/// One step of a path, whatever stands in it.
fn step(text: &str) -> String {
    let mut safe = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => safe.push(char::from(byte)),
            other => safe.push_str(&format!("%{other:02X}")),
        }
    }
    safe
}

impl Hub for RemoteHub {
    fn unread<'a>(&'a self, agent: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Page, HubError>> {
        Box::pin(async move {
            let after = after.map(|after| format!("&after={}", step(after))).unwrap_or_default();
            let path = format!("/agents/{}/messages?status=unread&limit={PAGE}{after}", step(agent));
            let page = self.ask(Method::GET, &path, None, None).await?;
            serde_json::from_value(page).map_err(|_| HubError::Garbled("it is no page of messages"))
        })
    }

    fn reply<'a>(&'a self, id: &'a str, body: &'a str, write: Write<'a>) -> BoxFuture<'a, Result<(), HubError>> {
        Box::pin(self.write(format!("/messages/{}/replies", step(id)), json!({ "body": body }), write))
    }

    fn mark_read<'a>(&'a self, id: &'a str, write: Write<'a>) -> BoxFuture<'a, Result<(), HubError>> {
        Box::pin(self.write(format!("/messages/{}/read", step(id)), json!({}), write))
    }

    fn progress<'a>(
        &'a self,
        agent: &'a str,
        note: &'a Progress,
        write: Write<'a>,
    ) -> BoxFuture<'a, Result<(), HubError>> {
        Box::pin(self.write(format!("/agents/{}/progress", step(agent)), json!(note), write))
    }

    fn lease<'a>(&'a self, agent: &'a str, holder: &'a str, ttl_s: u64) -> BoxFuture<'a, Result<Lease, HubError>> {
        Box::pin(async move {
            let path = format!("/agents/{}/lease", step(agent));
            let body = json!({ "holder": holder, "ttl_s": ttl_s });
            match self.ask(Method::POST, &path, Some(&body), None).await {
                Err(HubError::Refused(409)) => Err(HubError::Leased),
                Ok(lease) => serde_json::from_value(lease).map_err(|_| HubError::Garbled("it is no lease")),
                Err(e) => Err(e),
            }
        })
    }

    fn release<'a>(&'a self, agent: &'a str, holder: &'a str) -> BoxFuture<'a, Result<(), HubError>> {
        Box::pin(async move {
            let path = format!("/agents/{}/lease?holder={}", step(agent), step(holder));
            self.ask(Method::DELETE, &path, None, None).await.map(drop)
        })
    }
}
