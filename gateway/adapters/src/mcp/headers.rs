//! Headers of MCP over HTTP: which go on, and whether those of a modern request say what its body says.
//!
//! Policy decides on the body, and a server may route on the headers: were they to differ, one thing would be decided and
//! another done. Source: MCP 2026-07-28, "Streamable HTTP", and its tasks extension for `Mcp-Name` of `tasks/*`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use warden_core::catalogue::HeaderParam;
use warden_core::json::Json;
use warden_core::mcp::{self, META_CAPABILITIES, META_VERSION};
use warden_core::rpc::{Id, Kind, Message};

/// The session of the legacy protocol.
pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The protocol's version.
pub const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The last event that a client has seen.
pub const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const PARAM: &str = "mcp-param-";

/// A header and its body disagree.
const MISMATCH: i64 = -32020;
/// The parameters are not what a modern request has.
const PARAMS: i64 = -32602;

/// Why a request is refused with status 400, as a JSON-RPC error.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The code.
    pub code: i64,
    /// What is wrong.
    pub message: String,
}

/// Headers of a worker that a server gets. Everything else, the credential above all, stays here.
pub fn for_server(headers: &HeaderMap) -> HeaderMap {
    let goes = |name: &HeaderName| {
        let text = name.as_str();
        text.starts_with("mcp-")
            || [header::ACCEPT, header::CONTENT_TYPE, header::USER_AGENT, LAST_EVENT].contains(name)
            || ["traceparent", "tracestate", "baggage"].contains(&text)
    };
    headers.iter().filter(|(name, _)| goes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Headers of a server that a worker gets.
pub fn for_worker(headers: &HeaderMap) -> HeaderMap {
    let goes = |name: &HeaderName| {
        name.as_str().starts_with("mcp-")
            || [header::CONTENT_TYPE, header::CACHE_CONTROL, header::ALLOW, header::RETRY_AFTER].contains(name)
    };
    headers.iter().filter(|(name, _)| goes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// What clients say in every request.
const USUAL: [&[u8]; 7] = [
    b"application/json",
    b"application/json, text/event-stream",
    b"text/event-stream",
    b"*/*",
    b"2025-06-18",
    b"2025-11-25",
    b"2026-07-28",
];

/// The header texts that are a worker's own words, as JSON, to be scanned like the body. The session's id is the server's.
pub fn to_scan(headers: &HeaderMap) -> Option<Json> {
    let usual = |name: &HeaderName, value: &HeaderValue| *name == SESSION || USUAL.contains(&value.as_bytes());
    let text = |value: &HeaderValue| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        decoded(&value).unwrap_or(value)
    };
    let own = headers.iter().filter(|(name, value)| !usual(name, value));
    let texts: Vec<_> = own.map(|(name, value)| (name.to_string(), Json::String(text(value)))).collect();
    (!texts.is_empty()).then_some(Json::Object(texts))
}

/// A bridge from stdio, where there are no headers, asks for them to be made of the body.
pub const BRIDGE: HeaderName = HeaderName::from_static("x-warden-bridge");

/// The headers that a modern client sends with `message`.
pub fn fill(headers: &mut HeaderMap, message: &Message, declared: &[HeaderParam]) {
    let (method, params) = match &message.kind {
        Kind::Request { method, params, .. } | Kind::Notification { method, params } => (method, params),
        Kind::Result { .. } | Kind::Error { .. } => return,
    };
    let mut set = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(&encoded(text)) {
            headers.insert(name, value);
        }
    };
    if let Some(version) = mcp::meta(params, META_VERSION).and_then(Json::as_str) {
        set(VERSION, version);
    }
    set(METHOD, method);
    if let Some(name) = name_member(method).and_then(|member| params.get(member)).and_then(Json::as_str) {
        set(NAME, name);
    }
    for param in declared {
        let body = param.path.iter().try_fold(params.get("arguments"), |at, step| Some(at?.get(step))).flatten();
        let text = match body {
            Some(Json::String(text) | Json::Number(text)) => text.clone(),
            Some(Json::Bool(yes)) => yes.to_string(),
            _ => continue,
        };
        if let Ok(name) = HeaderName::try_from(format!("{PARAM}{}", param.header).to_ascii_lowercase()) {
            set(name, &text);
        }
    }
}

/// A text as it may stand in a header.
fn encoded(text: &str) -> String {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b)) && text.trim() == text;
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    if plain && !looks_encoded { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
}

/// Whether a request is of the modern generation: by its body or, before that was read, by its header.
pub fn is_modern(headers: &HeaderMap, message: &Message) -> bool {
    let claimed = |params: &Json| mcp::meta(params, META_VERSION).and_then(Json::as_str).is_some_and(mcp::is_modern);
    let by_body = match &message.kind {
        Kind::Request { params, .. } | Kind::Notification { params, .. } => claimed(params),
        Kind::Result { .. } | Kind::Error { .. } => false,
    };
    by_body || headers.get(VERSION).and_then(|v| v.to_str().ok()).is_some_and(mcp::is_modern)
}

/// Holds a modern message's headers against its body. `declared` are those of its tool's arguments that go into headers.
pub fn check(headers: &HeaderMap, message: &Message, declared: &[HeaderParam]) -> Result<(), Refused> {
    let mismatch = |message: String| Err(Refused { code: MISMATCH, message: format!("Header mismatch: {message}") });
    let version = one(headers, &VERSION)?;
    let method = one(headers, &METHOD)?;
    match &message.kind {
        Kind::Request { method: asked, params, .. } => {
            let said = envelope(params)?;
            if version != Some(said) {
                return mismatch(format!("MCP-Protocol-Version is not `{META_VERSION}` of the body"));
            }
            if method != Some(asked) {
                return mismatch("Mcp-Method is not `method` of the body".into());
            }
            named(headers, asked, params)?;
            arguments(headers, params, declared)
        }
        Kind::Notification { method: asked, params } => {
            let said = mcp::meta(params, META_VERSION).and_then(Json::as_str);
            if said.is_some() && version.is_some() && said != version {
                return mismatch(format!("MCP-Protocol-Version is not `{META_VERSION}` of the body"));
            }
            if method.is_some_and(|method| method != asked) {
                return mismatch("Mcp-Method is not `method` of the body".into());
            }
            Ok(())
        }
        // There is no session that it could belong to.
        Kind::Result { .. } | Kind::Error { .. } => {
            Err(Refused { code: -32600, message: "an answer belongs to no modern request".into() })
        }
    }
}

/// The version that a modern request says, which it must, as its client's capabilities.
fn envelope(params: &Json) -> Result<&str, Refused> {
    let missing = |name: &str| Refused { code: PARAMS, message: format!("`params._meta` has no valid `{name}`") };
    let version = mcp::meta(params, META_VERSION).and_then(Json::as_str).ok_or_else(|| missing(META_VERSION))?;
    match mcp::meta(params, META_CAPABILITIES) {
        Some(Json::Object(_)) => Ok(version),
        _ => Err(missing(META_CAPABILITIES)),
    }
}

/// A header's text. Two of one name could be read as either.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refused> {
    let mut all = headers.get_all(name).iter();
    let refused = |what: &str| Refused { code: MISMATCH, message: format!("Header mismatch: {name} {what}") };
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(refused("is there twice"));
    }
    value.to_str().map(|text| Some(text.trim_matches([' ', '\t']))).map_err(|_| refused("is not plain text"))
}

/// The member of the parameters that `Mcp-Name` repeats.
fn name_member(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

fn named(headers: &HeaderMap, method: &str, params: &Json) -> Result<(), Refused> {
    let Some(member) = name_member(method) else { return Ok(()) };
    let body = params.get(member).and_then(Json::as_str);
    let header = one(headers, &NAME)?.map(|text| readable(NAME.as_str(), text)).transpose()?;
    match (body, header) {
        (Some(body), Some(header)) if body == header => Ok(()),
        (None, _) => Ok(()),
        (Some(_), _) => {
            Err(Refused { code: MISMATCH, message: format!("Header mismatch: Mcp-Name is not `{member}` of the body") })
        }
    }
}

fn arguments(headers: &HeaderMap, params: &Json, declared: &[HeaderParam]) -> Result<(), Refused> {
    for param in declared {
        let name = format!("{PARAM}{}", param.header);
        let refused = |what: &str| Refused { code: MISMATCH, message: format!("Header mismatch: {name} {what}") };
        let Ok(header_name) = HeaderName::try_from(name.to_ascii_lowercase()) else { continue };
        let body = param.path.iter().try_fold(params.get("arguments"), |at, step| Some(at?.get(step))).flatten();
        let header = one(headers, &header_name)?.map(|text| readable(&name, text)).transpose()?;
        let same = match (body, &header) {
            (None | Some(Json::Null | Json::Array(_) | Json::Object(_)), _) => continue,
            (Some(_), None) => return Err(refused("is missing")),
            (Some(Json::String(text)), Some(header)) => text == header,
            (Some(Json::Bool(yes)), Some(header)) => header == if *yes { "true" } else { "false" },
            (Some(Json::Number(text)), Some(header)) => {
                let number = |text: &str| text.parse::<f64>().ok();
                text == header || (number(text).is_some() && number(text) == number(header))
            }
        };
        if !same {
            return Err(refused("is not the argument of the body"));
        }
    }
    Ok(())
}

/// A value as its sender meant it. One that looks encoded and is not refused, so that no two readers differ.
fn readable(name: &str, text: &str) -> Result<String, Refused> {
    let encoded = text.starts_with("=?base64?") && text.ends_with("?=") && text.len() >= "=?base64??=".len();
    match decoded(text) {
        Some(text) => Ok(text),
        None if encoded => {
            Err(Refused { code: MISMATCH, message: format!("Header mismatch: {name} is not valid base64 of UTF-8") })
        }
        None => Ok(text.to_owned()),
    }
}

/// What `=?base64?…?=` stands for.
fn decoded(text: &str) -> Option<String> {
    let inner = text.strip_prefix("=?base64?")?.strip_suffix("?=")?;
    String::from_utf8(STANDARD.decode(inner).ok()?).ok()
}

/// The id to answer with.
pub fn id_of(message: &Message) -> Id {
    match &message.kind {
        Kind::Request { id, .. } => id.clone(),
        _ => Id::null(),
    }
}

/// The HTTP status that goes with a JSON-RPC error of the modern protocol.
pub fn status_of(code: i64) -> u16 {
    match code {
        -32601 => 404,
        -32700 | -32600 | -32020 | -32021 | -32022 => 400,
        _ => 200,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warden_core::json::Limits;

    fn call(arguments: &str) -> Message {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"a b","arguments":{arguments},"_meta":{{"{META_VERSION}":"2026-07-28","{META_CAPABILITIES}":{{}}}}}}}}"#
        );
        Message::parse(text.as_bytes(), Limits::default()).unwrap()
    }

    fn headers(more: &[(&str, &str)]) -> HeaderMap {
        let all = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "a b")];
        let mut headers = HeaderMap::new();
        for (name, value) in all.iter().chain(more) {
            let name: HeaderName = name.parse().unwrap();
            match *value {
                "-" => drop(headers.remove(&name)),
                value => drop(headers.insert(name, value.parse().unwrap())),
            }
        }
        headers
    }

    fn code(headers: &HeaderMap, message: &Message, declared: &[HeaderParam]) -> i64 {
        check(headers, message, declared).err().map_or(0, |refused| refused.code)
    }

    #[test]
    fn headers_say_what_the_body_says() {
        let message = call("{}");
        for (more, expected) in [
            (("x", "y"), 0),
            (("mcp-name", "=?base64?YSBi?="), 0),
            (("mcp-name", "=?base64?YSBi"), MISMATCH),
            (("mcp-name", "=?base64?YSB?="), MISMATCH),
            (("mcp-name", "a"), MISMATCH),
            (("mcp-name", "-"), MISMATCH),
            (("mcp-method", "TOOLS/CALL"), MISMATCH),
            (("mcp-method", "-"), MISMATCH),
            (("mcp-protocol-version", "2025-11-25"), MISMATCH),
            (("mcp-protocol-version", "-"), MISMATCH),
        ] {
            assert_eq!(code(&headers(&[more]), &message, &[]), expected, "{more:?}");
        }
        let mut twice = headers(&[]);
        twice.append("mcp-name", "a b".parse().unwrap());
        assert_eq!(code(&twice, &message, &[]), MISMATCH);
    }

    #[test]
    fn arguments_in_headers_are_those_of_the_body() {
        let param = |header: &str, path: &[&str]| HeaderParam {
            header: header.into(),
            path: path.iter().map(|step| (*step).to_owned()).collect(),
        };
        let declared = [param("Region", &["region"]), param("n", &["in", "n"])];
        let message = call(r#"{"region":"eu","in":{"n":42}}"#);
        for (region, n, expected) in [
            ("eu", "42", 0),
            ("=?base64?ZXU=?=", "42.0", 0),
            ("us", "42", MISMATCH),
            ("eu", "43", MISMATCH),
            ("eu", "-", MISMATCH),
            ("=?base64?ZX!=?=", "42", MISMATCH),
        ] {
            let headers = headers(&[("mcp-param-region", region), ("mcp-param-n", n)]);
            assert_eq!(code(&headers, &message, &declared), expected, "{region} {n}");
        }
        assert_eq!(code(&headers(&[]), &call(r#"{"region":null}"#), &declared), 0);
    }

    #[test]
    fn a_modern_request_names_its_version_and_its_client() {
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
        let message = Message::parse(text.as_bytes(), Limits::default()).unwrap();
        assert_eq!(code(&headers(&[("mcp-method", "tools/list")]), &message, &[]), PARAMS);
    }

    #[test]
    fn headers_made_of_the_body_agree_with_it() {
        let declared = [HeaderParam { header: "R".into(), path: vec!["region".into()] }];
        for region in [r#""eu""#, r#"" eu é""#, r#""=?base64?ZXU=?=""#, "42", "true", "null"] {
            let message = call(&format!(r#"{{"region":{region}}}"#));
            let mut headers = HeaderMap::new();
            fill(&mut headers, &message, &declared);
            assert_eq!(code(&headers, &message, &declared), 0, "{region}: {headers:?}");
        }
    }

    #[test]
    fn the_workers_credential_stays_here() {
        let headers = headers(&[("authorization", "Bearer x"), ("cookie", "a"), ("x-api-key", "k"), ("accept", "*/*")]);
        let on = for_server(&headers);
        assert!(on.contains_key("accept") && on.contains_key("mcp-name"));
        assert!(!on.contains_key("authorization") && !on.contains_key("cookie") && !on.contains_key("x-api-key"));
    }
}
