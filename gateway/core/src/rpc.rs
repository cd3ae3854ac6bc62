//! The JSON-RPC 2.0 envelope of MCP, read strictly and kept as it came.
//!
//! What was authorised is byte for byte what is forwarded, so [`Message::raw`] is the original text, and nothing is ever
//! re-serialised. Towards a stdio server, where a message is one line, [`one_line`] turns line breaks into spaces.
//! Sources: <https://www.jsonrpc.org/specification>, MCP 2025-11-25 "Base protocol".

use crate::json::{self, Json, Limits};
use std::borrow::Cow;

/// One message, in either direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The text, byte for byte as it came.
    pub raw: String,
    /// What it is.
    pub kind: Kind,
}

/// The four things a message can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Asks for an answer.
    Request {
        /// The id as it was written: `1`, `"a"`.
        id: Id,
        /// The method, unescaped.
        method: String,
        /// `params`, or null.
        params: Json,
    },
    /// Asks for none.
    Notification {
        /// The method, unescaped.
        method: String,
        /// `params`, or null.
        params: Json,
    },
    /// Answers a request.
    Result {
        /// The id of the request.
        id: Id,
        /// `result`.
        result: Json,
    },
    /// Answers a request that failed.
    Error {
        /// The id of the request; `null` when the peer could not read it.
        id: Id,
        /// `error`.
        error: Json,
    },
}

/// A request's id. Echoed as the JSON text that was sent; compared by what it means, as its reader compares it, so that
/// `"a"` and `"\u0061"` are one id, and `1` and `"1"` are two.
#[derive(Clone, Debug)]
pub struct Id {
    raw: String,
    key: String,
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Id {}

impl std::hash::Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl Id {
    /// The JSON text, to be echoed as it is.
    pub fn as_json(&self) -> &str {
        &self.raw
    }

    /// The id itself: the text of a string, unescaped, or the digits of a number.
    pub fn decoded(&self) -> &str {
        self.key.trim_start_matches('"')
    }

    fn new(raw: &str) -> Result<Self, Error> {
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        let key = match serde_json::from_str::<String>(raw) {
            Ok(text) => format!("\"{text}"),
            Err(_) if raw == "null" => raw.to_owned(),
            // `1.0` and `1e0` would be another text for the same id.
            Err(_) if raw != "-0" && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => raw.to_owned(),
            Err(_) => return Err(Error::Shape("`id` is not a string or a whole number")),
        };
        Ok(Self { raw: raw.to_owned(), key })
    }

    /// `null`, for errors that belong to no readable request.
    pub fn null() -> Self {
        Self { raw: "null".into(), key: "null".into() }
    }

    /// A number, as it was written.
    pub fn number(text: &str) -> Self {
        Self { raw: text.into(), key: text.into() }
    }

    /// A string.
    pub fn text(id: &str) -> Self {
        Self { raw: Json::String(id.into()).to_value().to_string(), key: format!("\"{id}") }
    }
}

/// Why a message is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the JSON we accept.
    #[error(transparent)]
    Json(#[from] json::Error),
    /// An array. Batches left MCP with 2025-06-18.
    #[error("a batch: send one message at a time")]
    Batch,
    /// JSON, but not JSON-RPC.
    #[error("not a JSON-RPC 2.0 message: {0}")]
    Shape(&'static str),
}

impl Error {
    /// The JSON-RPC error code: -32700 when it is not JSON, else -32600.
    pub fn code(&self) -> i64 {
        match self {
            Error::Json(json::Error::Syntax { .. } | json::Error::NotUtf8 { .. }) => -32700,
            _ => -32600,
        }
    }
}

const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

impl Message {
    /// Reads one message.
    pub fn parse(whole: &[u8], limits: Limits) -> Result<Self, Error> {
        let bytes = whole.trim_ascii();
        if bytes.first() == Some(&b'[') {
            return Err(Error::Batch);
        }
        let (mut version, mut id, mut method) = (None, None, None);
        let mut request = None;
        let (mut params, mut result, mut error) = (None, None, None);
        for (name, text) in json::members(bytes, limits)? {
            let place = match name.as_str() {
                "jsonrpc" => &mut version,
                "id" => &mut id,
                "method" => &mut method,
                "params" => &mut params,
                "result" => &mut result,
                "error" => &mut error,
                // A reader that ignores case would take `Params` for `params`.
                other if MEMBERS.iter().any(|m| m.eq_ignore_ascii_case(other)) => {
                    return Err(Error::Shape("a member differs from a known one in case only"));
                }
                _ => return Err(Error::Shape("it has a member that JSON-RPC does not know")),
            };
            *place = Some(json::parse_at(text, &format!("/{name}"), limits)?);
            if name == "id" {
                request = Some(Id::new(text.trim())?);
            }
        }
        if version.as_ref().and_then(Json::as_str) != Some("2.0") {
            return Err(Error::Shape("`jsonrpc` is not \"2.0\""));
        }
        let id = request;
        if !matches!(params, None | Some(Json::Object(_) | Json::Null)) {
            return Err(Error::Shape("`params` is not an object"));
        }
        let kind = match (method, id, result, error) {
            (Some(Json::String(method)), id, None, None) => {
                let params = params.unwrap_or(Json::Null);
                match id {
                    Some(id) if id == Id::null() => return Err(Error::Shape("`id` is null")),
                    Some(id) => Kind::Request { id, method, params },
                    None => Kind::Notification { method, params },
                }
            }
            (Some(_), _, None, None) => return Err(Error::Shape("`method` is not a string")),
            (None, Some(id), Some(result), None) if params.is_none() => Kind::Result { id, result },
            (None, id, None, Some(error)) if params.is_none() => Kind::Error { id: id.unwrap_or_else(Id::null), error },
            _ => return Err(Error::Shape("it is neither a request, a notification, a result nor an error")),
        };
        // It was read, so it is UTF-8.
        Ok(Self { raw: String::from_utf8_lossy(whole).into_owned(), kind })
    }
}

/// A message on one line. Raw line breaks can only stand between tokens: inside strings JSON forbids them.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\n', '\r']) { Cow::Owned(text.replace(['\n', '\r'], " ")) } else { Cow::Borrowed(text) }
}

/// A progress notification (MCP, "Progress") about the request with this token.
pub fn progress(token: &Id, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":0,"message":{message}}}}}"#,
        token.as_json()
    )
}

/// An error answer, ready to be sent.
pub fn error(id: &Id, code: i64, message: &str, data: Option<serde_json::Value>) -> String {
    let mut error = serde_json::json!({ "code": code, "message": message });
    if let Some(data) = data {
        error["data"] = data;
    }
    format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, id.as_json())
}

/// A result answer, ready to be sent.
pub fn result(id: &Id, result: &serde_json::Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.as_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Message, Error> {
        Message::parse(text.as_bytes(), Limits::default())
    }

    #[test]
    fn four_kinds_and_their_ids() {
        let call = read(r#" {"jsonrpc":"2.0","id":"a","method":"tools\u002fcall","params":{"x":1.0}} "#).unwrap();
        assert!(
            matches!(&call.kind, Kind::Request { id, method, .. } if id.as_json() == "\"a\"" && method == "tools/call")
        );
        assert_eq!(call.raw, r#" {"jsonrpc":"2.0","id":"a","method":"tools\u002fcall","params":{"x":1.0}} "#);
        assert!(matches!(read(r#"{"jsonrpc":"2.0","method":"m"}"#).unwrap().kind, Kind::Notification { .. }));
        assert!(matches!(read(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap().kind, Kind::Result { .. }));
        assert!(matches!(read(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#).unwrap().kind, Kind::Error { .. }));
    }

    #[test]
    fn ids_are_compared_by_what_they_mean() {
        assert_eq!(Id::new(r#""\u0061""#).unwrap(), Id::text("a"));
        assert_ne!(Id::new(r#""1""#).unwrap(), Id::number("1"));
        assert_eq!(Id::new(r#""\u0061""#).unwrap().as_json(), r#""\u0061""#);
    }

    #[test]
    fn line_breaks_become_spaces_and_nothing_else_changes() {
        let message = read("{\"jsonrpc\":\"2.0\",\n \"id\":1,\r\n\"method\":\"ping\"}").unwrap();
        assert_eq!(one_line(&message.raw), "{\"jsonrpc\":\"2.0\",  \"id\":1,  \"method\":\"ping\"}");
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        for text in [
            "[]",
            "1",
            "{}",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1e2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","extra":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":{"b":1,"b":2}}}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
