//! The two planes over HTTP: [`worker`] for workers, [`operator`] for named persons. Separate listeners, separate
//! credentials.

mod acks;
mod audit;
pub mod authzen;
mod budgets;
pub mod compositions;
mod delegates;
mod hub;
mod inbox;
pub mod listener;
pub mod llm;
pub mod operator;
mod proposals;
mod secrets;
mod sessions;
mod tasks;
pub mod worker;

use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;

/// The bearer token of a request ([RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1)).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// `{"error": {code, message}}` with a status.
fn error(status: axum::http::StatusCode, code: &str, message: &str) -> Response {
    (status, axum::Json(json!({ "error": { "code": code, "message": message } }))).into_response()
}

/// What stands behind the `?` of a request. What is not asked for is refused in the form that everything else is.
struct Query<T>(T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let asked = axum::extract::Query::try_from_uri(&parts.uri);
        let refuse = |e: QueryRejection| error(e.status(), "malformed_request", &e.body_text());
        asked.map(|axum::extract::Query(asked)| Self(asked)).map_err(refuse)
    }
}

/// Whether a `Host` or `Origin` names this machine by a loopback name or one that was configured: a page in a browser must
/// not reach a loopback listener by another name.
fn is_local(authority: &str, allowed: &[String]) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    matches!(host, "localhost" | "127.0.0.1" | "::1") || allowed.iter().any(|a| a == host || a == authority)
}

/// Runs a handler in a task of its own: a client that hangs up must not stop what was begun half way, or a decision would
/// have no outcome.
async fn to_its_end(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let done = tokio::spawn(next.run(request)).await;
    done.unwrap_or_else(|_| error(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "failed", "the request failed"))
}

/// Checks `Host` and `Origin`.
fn guard(headers: &HeaderMap, allowed: &[String]) -> Result<(), Box<Response>> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let forbidden = |what: &str| Box::new(error(axum::http::StatusCode::FORBIDDEN, "forbidden_origin", what));
    if let Some(host) = text(header::HOST)
        && !is_local(host, allowed)
    {
        return Err(forbidden("this `Host` is not served; add it to `allowed_hosts`"));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
        if !is_local(authority, allowed) {
            return Err(forbidden("this `Origin` is not served; add it to `allowed_hosts`"));
        }
    }
    Ok(())
}
