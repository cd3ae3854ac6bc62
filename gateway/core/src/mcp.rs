//! What each MCP method means to policy. Every method is an action, or it is denied.
//!
//! Source: MCP specification 2025-11-25 and, for the chatter of newer peers, 2026-07-28.

use crate::json::Json;
use crate::proposal::{Ask, Door, Proposal, Verb};
use crate::rpc::{Id, Kind, Message};

/// Which side a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From the worker, towards the server.
    Worker,
    /// From the server, towards the worker.
    Server,
}

/// What a method is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Decided once per connection, with [`Verb::Connect`].
    Chatter,
    /// A call of a tool.
    CallTool,
    /// A proposal with this verb.
    Gated(Verb),
    /// Not known; never passes.
    Unknown,
}

/// What `method`, sent by `from`, is.
pub fn class(from: From, method: &str) -> Class {
    match (from, method) {
        (From::Worker, "tools/call") => Class::CallTool,
        (From::Worker, "tools/list") => Class::Gated(Verb::ListTools),
        (From::Worker, "resources/list" | "resources/templates/list") => Class::Gated(Verb::ListResources),
        (From::Worker, "prompts/list") => Class::Gated(Verb::ListPrompts),
        (From::Worker, "resources/read") => Class::Gated(Verb::ReadResource),
        (From::Worker, "resources/subscribe" | "resources/unsubscribe") => Class::Gated(Verb::SubscribeResource),
        (From::Worker, "prompts/get") => Class::Gated(Verb::GetPrompt),
        (From::Worker, "completion/complete") => Class::Gated(Verb::Complete),
        (From::Server, "sampling/createMessage") => Class::Gated(Verb::Sample),
        (From::Server, "elicitation/create") => Class::Gated(Verb::Elicit),
        (From::Server, "roots/list") => Class::Gated(Verb::ListRoots),
        (_, "tasks/get" | "tasks/result" | "tasks/list" | "tasks/cancel") => Class::Gated(Verb::FollowTask),
        (_, "ping")
        | (From::Worker, "initialize" | "server/discover" | "logging/setLevel")
        | (_, "notifications/cancelled" | "notifications/progress" | "notifications/tasks/status")
        | (From::Worker, "notifications/initialized" | "notifications/roots/list_changed")
        | (
            From::Server,
            "notifications/message"
            | "notifications/tools/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated"
            | "notifications/prompts/list_changed"
            | "notifications/elicitation/complete",
        ) => Class::Chatter,
        _ => Class::Unknown,
    }
}

/// A tool call that cannot be read as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// `params.name` is absent or not a string.
    #[error("`params.name` is not a string")]
    Name,
    /// `params.arguments` is not an object.
    #[error("`params.arguments` is not an object")]
    Arguments,
    /// Another member than `name`, `arguments`, `_meta` and `task`.
    #[error("`params` has a member that is not known")]
    Unknown,
}

/// The proposal that a message is. `message` must be a request or a notification.
pub fn propose(
    from: From,
    message: Message,
    worker: &str,
    connection: &str,
    server: &str,
) -> Result<Proposal, Malformed> {
    let Message { raw, kind } = message;
    let (id, method, params) = match kind {
        Kind::Request { id, method, params } => (id, method, params),
        Kind::Notification { method, params } => (Id::null(), method, params),
        Kind::Result { id, .. } | Kind::Error { id, .. } => (id, String::new(), Json::Null),
    };
    let class = class(from, &method);
    let (ask, arguments, rest) = match class {
        Class::CallTool => {
            let (name, arguments, rest) = tool_call(params)?;
            (Ask::Tool { name }, arguments, rest)
        }
        Class::Gated(verb) => {
            let (arguments, rest) = without_meta(params);
            (Ask::Verb(verb), arguments, rest)
        }
        Class::Chatter => (Ask::Verb(Verb::Connect), Json::Object(vec![]), params),
        Class::Unknown => (Ask::Unknown, Json::Object(vec![]), params),
    };
    let envelope = Json::Object(vec![
        ("id".into(), Json::String(id.decoded().to_owned())),
        ("method".into(), Json::String(method.clone())),
        ("params".into(), rest),
    ]);
    Ok(Proposal {
        door: Door::Mcp,
        worker: worker.to_owned(),
        connection: connection.to_owned(),
        server: server.to_owned(),
        method,
        ask,
        arguments,
        envelope,
        payload: raw,
    })
}

fn tool_call(params: Json) -> Result<(String, Json, Json), Malformed> {
    let Json::Object(members) = params else { return Err(Malformed::Name) };
    let (mut tool, mut arguments, mut rest) = (None, Json::Object(vec![]), Vec::new());
    for (name, value) in members {
        match (name.as_str(), value) {
            ("name", Json::String(text)) => tool = Some(text),
            ("name", _) => return Err(Malformed::Name),
            ("arguments", object @ Json::Object(_)) => arguments = object,
            ("arguments", Json::Null) => {}
            ("arguments", _) => return Err(Malformed::Arguments),
            ("_meta" | "task", value) => rest.push((name, value)),
            // Some readers fold case, and not in ASCII alone: to them `argument\u{17f}` is `arguments`. What is not known
            // is not forwarded.
            _ => return Err(Malformed::Unknown),
        }
    }
    Ok((tool.ok_or(Malformed::Name)?, arguments, Json::Object(rest)))
}

fn without_meta(params: Json) -> (Json, Json) {
    match params {
        Json::Object(members) => {
            let (meta, own) = members.into_iter().partition(|(name, _)| name == "_meta");
            (Json::Object(own), Json::Object(meta))
        }
        _ => (Json::Object(vec![]), Json::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Limits;

    fn read(text: &str) -> Result<Proposal, Malformed> {
        propose(From::Worker, Message::parse(text.as_bytes(), Limits::default()).unwrap(), "w", "c", "fs")
    }

    #[test]
    fn a_call_names_its_tool_and_keeps_its_bytes() {
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"forbi\u0064den","arguments":{"a":1},"_meta":{"t":2}}}"#;
        let proposal = read(text).unwrap();
        assert_eq!(proposal.ask, Ask::Tool { name: "forbidden".into() });
        assert_eq!(proposal.payload, text);
        assert!(proposal.envelope.get("params").unwrap().get("_meta").is_some());
    }

    #[test]
    fn malformed_calls_are_not_guessed_at() {
        for params in [
            r#"{}"#,
            r#"{"name":1}"#,
            r#"{"name":"a","arguments":[]}"#,
            r#"{"name":"a","Name":"b"}"#,
            r#"{"name":"a","arguments":"{}"}"#,
            r#"{"name":"a","Arguments":{}}"#,
            r#"{"name":"a","argument\u017f":{}}"#,
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            assert!(read(&text).is_err(), "{params}");
        }
    }

    #[test]
    fn what_is_not_known_is_unknown_in_both_directions() {
        assert_eq!(class(From::Worker, "tools/Call"), Class::Unknown);
        assert_eq!(class(From::Worker, "sampling/createMessage"), Class::Unknown);
        assert_eq!(class(From::Server, "tools/call"), Class::Unknown);
        assert_eq!(class(From::Worker, "notifications/x"), Class::Unknown);
    }
}
