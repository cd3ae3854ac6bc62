//! What goes on of a worker's headers to a provider, and of a provider's to a worker.

use axum::http::{HeaderMap, HeaderName, header};
use warden_core::json::Json;

/// Headers of a worker that stay here: what belongs to this hop, what names others, and what Warden sets itself.
const STAY: [&str; 16] = [
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-encoding",
    "content-type",
    "accept-encoding",
    "expect",
    "origin",
    "referer",
    "forwarded",
    "x-real-ip",
];

/// Words in the names of headers that say who somebody is, or whose account pays: neither is a worker's to say.
const STAY_WORDS: [&str; 9] =
    ["auth", "key", "token", "secret", "credential", "cookie", "account", "organization", "project"];

/// Beginnings of names that stay here.
const STAY_PREFIXES: [&str; 4] = ["x-warden-", "x-forwarded-", "sec-", "proxy-"];

/// Of a provider's headers what a worker's SDK looks at.
const COME: [&str; 9] = [
    "content-type",
    "request-id",
    "x-request-id",
    "openai-processing-ms",
    "openai-version",
    "openai-model",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
];
const COME_PREFIXES: [&str; 2] = ["x-ratelimit-", "anthropic-ratelimit-"];

/// A worker's headers that a provider gets.
pub(super) fn for_provider(headers: &HeaderMap) -> HeaderMap {
    let stays = |name: &HeaderName| {
        let name = name.as_str();
        STAY.contains(&name)
            || STAY_WORDS.iter().any(|word| name.contains(word))
            || STAY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    // What `connection` names belongs to this hop as well.
    let hop: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let goes = |name: &HeaderName| !stays(name) && !hop.iter().any(|own| own == name.as_str());
    headers.iter().filter(|(name, _)| goes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A provider's headers that a worker gets.
pub(super) fn for_worker(headers: &HeaderMap) -> HeaderMap {
    let comes = |name: &HeaderName| {
        let name = name.as_str();
        COME.contains(&name) || COME_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    headers.iter().filter(|(name, _)| comes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The texts of headers, to be scanned with the body that they come with.
pub(super) fn to_scan(headers: &HeaderMap) -> Json {
    let text = |bytes: &[u8]| Json::String(String::from_utf8_lossy(bytes).into_owned());
    Json::Array(
        headers.iter().flat_map(|(name, value)| [text(name.as_str().as_bytes()), text(value.as_bytes())]).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn w04_a_workers_credential_never_goes_on_and_what_an_sdk_says_does() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "cookie",
            "x-warden-lease",
            "x-hop",
            "openai-organization",
            "chatgpt-account-id",
            "x-portkey-api-key",
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("mine"));
        }
        headers.insert("connection", HeaderValue::from_static("close, X-Hop"));
        for name in ["anthropic-version", "x-stainless-lang", "user-agent"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("theirs"));
        }
        let on = for_provider(&headers);
        assert_eq!(on.len(), 3);
        assert!(on.values().all(|value| value == "theirs"));
        let mut came = HeaderMap::new();
        came.insert("set-cookie", HeaderValue::from_static("x"));
        came.insert("x-ratelimit-remaining", HeaderValue::from_static("1"));
        assert_eq!(for_worker(&came).len(), 1);
    }
}
