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
use warden_core::proposal::Correlation;
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

/// What a host says a request belongs to.
const CORRELATION: [HeaderName; 3] = [
    HeaderName::from_static("x-warden-session"),
    HeaderName::from_static("x-warden-task"),
    HeaderName::from_static("x-warden-run"),
];

/// The session, task and run of a request. Names are visible ASCII, at most 128 characters; others are no names.
pub fn correlation(headers: &HeaderMap) -> Correlation {
    let [session, task, run] = CORRELATION.map(|name| {
        let text = headers.get(name)?.to_str().ok()?;
        (!text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
    });
    Correlation { session, task, run, delegate: None }
}

/// Puts in their place what counts: not everybody's word does.
pub fn correlate(headers: &mut HeaderMap, belongs: &Correlation) {
    let Correlation { session, task, run, delegate } = belongs;
    let names = CORRELATION.into_iter().chain([DELEGATE]);
    for (name, value) in names.zip([session, task, run, delegate]) {
        headers.remove(&name);
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
}

/// What [`correlate`] has put there.
pub fn correlated(headers: &HeaderMap) -> Correlation {
    let delegate = headers.get(DELEGATE).and_then(|id| id.to_str().ok()).map(str::to_owned);
    Correlation { delegate, ..correlation(headers) }
}

/// The delegate that asks. Warden's own word: whatever a request brings under this name is taken away.
const DELEGATE: HeaderName = HeaderName::from_static("x-warden-delegate");

/// Headers that go on in both generations: none of them says what is to be done.
const PLAIN: [HeaderName; 6] = [
    VERSION,
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// Headers of a worker that a server gets, each once. Everything else, the credential above all, stays here. The type of a
/// body is Warden's to say: it read the body as UTF-8, and a server must not read it as anything else.
pub fn for_server(headers: &HeaderMap, modern: bool) -> HeaderMap {
    let names = if modern { [METHOD, NAME] } else { [SESSION, LAST_EVENT] };
    let known = PLAIN.into_iter().chain(names);
    // With an underscore some servers would take it for another header.
    let param = |name: &&HeaderName| {
        modern
            && name.as_str().starts_with(PARAM)
            && name.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let params = headers.keys().filter(param).cloned();
    known.chain(params).filter_map(|name| headers.get(&name).map(|value| (name, value.clone()))).collect()
}

/// Whether a header that matters is there twice: no two readers would agree on it.
pub fn is_ambiguous(headers: &HeaderMap) -> bool {
    let matters = |name: &HeaderName| {
        name.as_str().starts_with("mcp-")
            || [LAST_EVENT, header::CONTENT_TYPE, header::AUTHORIZATION, header::HOST].contains(name)
    };
    headers.keys().any(|name| matters(name) && headers.get_all(name).iter().nth(1).is_some())
}

/// Headers of a server that a worker gets. What Warden read as JSON is said to be JSON, in no other encoding.
pub fn for_worker(headers: &HeaderMap) -> HeaderMap {
    let goes = [SESSION, VERSION, header::CACHE_CONTROL, header::ALLOW, header::RETRY_AFTER];
    let mut on: HeaderMap =
        goes.into_iter().filter_map(|name| headers.get(&name).map(|value| (name, value.clone()))).collect();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let said = match kind {
        "" => return on,
        kind if kind.eq_ignore_ascii_case("application/json") => "application/json",
        kind if kind.eq_ignore_ascii_case("text/event-stream") => "text/event-stream",
        _ => "text/plain; charset=utf-8",
    };
    on.insert(header::CONTENT_TYPE, HeaderValue::from_static(said));
    on
}

/// Whether a body is said to be JSON in UTF-8 ([RFC 8259 §8.1](https://www.rfc-editor.org/rfc/rfc8259#section-8.1)).
pub fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let other = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    json && !parts.any(other)
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
            (None | Some(Json::Null | Json::Array(_) | Json::Object(_)), None) => continue,
            (None | Some(Json::Null | Json::Array(_) | Json::Object(_)), Some(_)) => false,
            (Some(_), None) => return Err(refused("is missing")),
            (Some(Json::String(text)), Some(header)) => text == header,
            (Some(Json::Bool(yes)), Some(header)) => header == if *yes { "true" } else { "false" },
            (Some(Json::Number(text)), Some(header)) => text == header || whole(text) == whole(header),
        };
        if !same {
            return Err(refused("is not the argument of the body"));
        }
    }
    Ok(())
}

/// A number without the zeros behind its point: `42.0` is `42`. Nothing else is reckoned with, so nothing is rounded.
fn whole(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        _ => text,
    }
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
            ("eu", "42.01", MISMATCH),
        ] {
            let headers = headers(&[("mcp-param-region", region), ("mcp-param-n", n)]);
            assert_eq!(code(&headers, &message, &declared), expected, "{region} {n}");
        }
        assert_eq!(code(&headers(&[]), &call(r#"{"region":null}"#), &declared), 0);
        assert_eq!(code(&headers(&[("mcp-param-region", "us")]), &call("{}"), &declared), MISMATCH);
        let large = call(r#"{"in":{"n":9007199254740993}}"#);
        assert_eq!(code(&headers(&[("mcp-param-n", "9007199254740992")]), &large, &declared), MISMATCH);
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
    fn the_workers_credential_stays_here_and_nothing_goes_on_under_two_names() {
        let headers = headers(&[
            ("authorization", "Bearer x"),
            ("cookie", "a"),
            ("x-api-key", "k"),
            ("accept", "*/*"),
            ("content-type", "application/json; charset=utf-7"),
            ("mcp-session_id", "s"),
            ("mcp-session-id", "s"),
            ("mcp-param-a_b", "v"),
            ("mcp-param-a", "v"),
        ]);
        let names = |modern| {
            let on = for_server(&headers, modern);
            let mut names: Vec<String> = on.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(true), ["accept", "mcp-method", "mcp-name", "mcp-param-a", "mcp-protocol-version"]);
        assert_eq!(names(false), ["accept", "mcp-protocol-version", "mcp-session-id"]);
    }

    #[test]
    fn a_body_is_read_in_one_encoding() {
        let typed = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            headers
        };
        for (value, fine) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=utf-7", false),
            ("application/json; charset=utf-8; charset=utf-16", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_json(&typed(value)), fine, "{value}");
        }
        assert_eq!(for_worker(&typed("application/json; charset=utf-7"))[header::CONTENT_TYPE], "application/json");
    }
}
