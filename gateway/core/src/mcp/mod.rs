//! What each MCP method means to policy. Every method is an action, or it is denied.
//!
//! Two generations live side by side. **Legacy** (to 2025-11-25) begins with `initialize` and has sessions; **modern** (from
//! 2026-07-28) says its version in every request and has none. Sources: MCP specification 2025-06-18, 2025-11-25 and
//! 2026-07-28, and its tasks extension of 2026-07-28. [`result`] reads what an answer asks or brings.

pub mod result;

use crate::json::Json;
use crate::proposal::{Ask, Correlation, Door, Mode, Proposal, Verb};
use crate::rpc::{Id, Kind, Message};

/// The legacy versions, oldest first.
pub const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The first modern version.
pub const MODERN: &str = "2026-07-28";
/// Where a modern request says its version, its client's capabilities, and whether it wants log messages.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// See [`META_VERSION`].
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// See [`META_VERSION`].
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Where a modern notification says which `subscriptions/listen` it is for.
pub const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// Whether a version is modern. Versions are dates, so later ones compare greater.
pub fn is_modern(version: &str) -> bool {
    version >= MODERN
}

/// Whether a method left MCP with [`MODERN`]. The chatter among them is the server's to refuse.
pub fn is_legacy_only(method: &str) -> bool {
    matches!(method, "resources/subscribe" | "resources/unsubscribe" | "tasks/list" | "tasks/result")
}

/// A member of the `_meta` of some parameters.
pub fn meta<'p>(params: &'p Json, name: &str) -> Option<&'p Json> {
    params.get("_meta")?.get(name)
}

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
        (From::Worker, "subscriptions/listen") => Class::Gated(Verb::Listen),
        (From::Worker, "prompts/get") => Class::Gated(Verb::GetPrompt),
        (From::Worker, "completion/complete") => Class::Gated(Verb::Complete),
        (From::Server, "sampling/createMessage") => Class::Gated(Verb::Sample),
        (From::Server, "elicitation/create") => Class::Gated(Verb::Elicit),
        (From::Server, "roots/list") => Class::Gated(Verb::ListRoots),
        (_, "tasks/get" | "tasks/result" | "tasks/list" | "tasks/cancel") | (From::Worker, "tasks/update") => {
            Class::Gated(Verb::FollowTask)
        }
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
            | "notifications/elicitation/complete"
            | "notifications/subscriptions/acknowledged"
            | "notifications/tasks",
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
    /// Another member than `name`, `arguments`, `_meta`, `task`, `inputResponses` and `requestState`.
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
        Class::Gated(Verb::Listen) => {
            let (arguments, rest) = listen(params);
            (Ask::Verb(Verb::Listen), arguments, rest)
        }
        Class::Gated(verb) => {
            let (arguments, rest) = without_meta(params, verb);
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
        caller: None,
        correlation: Correlation::default(),
        mode: Mode::default(),
        barred: None,
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
            ("_meta" | "task" | "inputResponses" | "requestState", value) => rest.push((name, value)),
            // Some readers fold case, and not in ASCII alone: to them `argument\u{17f}` is `arguments`. What is not known
            // is not forwarded.
            _ => return Err(Malformed::Unknown),
        }
    }
    Ok((tool.ok_or(Malformed::Name)?, arguments, Json::Object(rest)))
}

/// What an author sees of the parameters of a verb, and the rest, which is scanned. A round that answers a server's
/// questions (`inputResponses`, `requestState`) is a proposal like the first one.
fn without_meta(params: Json, verb: Verb) -> (Json, Json) {
    let asks_back = matches!(verb, Verb::ReadResource | Verb::GetPrompt);
    let follows = verb == Verb::FollowTask;
    let beside = |name: &str| match name {
        "_meta" => true,
        "inputResponses" => asks_back || follows,
        "requestState" => asks_back,
        _ => false,
    };
    match params {
        Json::Object(members) => {
            let (rest, own) = members.into_iter().partition(|(name, _)| beside(name));
            (Json::Object(own), Json::Object(rest))
        }
        _ => (Json::Object(vec![]), Json::Null),
    }
}

/// The resources and tasks that a `subscriptions/listen` names, as `uris` and `tasks`; the rest is which lists it follows.
/// A member that is not known is kept with the arguments, where it is refused.
fn listen(params: Json) -> (Json, Json) {
    let Json::Object(members) = params else { return (Json::Null, Json::Null) };
    let (mut arguments, mut rest) = (Vec::new(), Vec::new());
    for (name, value) in members {
        match (name.as_str(), value) {
            ("_meta", value) => rest.push((name, value)),
            ("notifications", Json::Object(asked)) => {
                for (kind, value) in asked {
                    match kind.as_str() {
                        "resourceSubscriptions" => arguments.push(("uris".to_owned(), value)),
                        "taskIds" => arguments.push(("tasks".to_owned(), value)),
                        "toolsListChanged" | "promptsListChanged" | "resourcesListChanged" => rest.push((kind, value)),
                        _ => arguments.push((kind, value)),
                    }
                }
            }
            (_, value) => arguments.push((name, value)),
        }
    }
    (Json::Object(arguments), Json::Object(rest))
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

    #[test]
    fn what_a_listener_follows_is_seen() {
        let listen = |asked: &str| {
            read(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{asked},"_meta":{{}}}}}}"#
            ))
            .unwrap()
            .arguments
        };
        let seen = listen(r#"{"toolsListChanged":true,"resourceSubscriptions":["file:///a"],"taskIds":["t"]}"#);
        let text = |text: &str| Json::Array(vec![Json::String(text.into())]);
        assert_eq!(seen, Json::Object(vec![("uris".into(), text("file:///a")), ("tasks".into(), text("t"))]));
        assert!(listen(r#"{"ResourceSubscriptions":["file:///a"]}"#).get("ResourceSubscriptions").is_some());
    }

    #[test]
    fn a_round_that_answers_questions_is_scanned_and_not_mistaken_for_arguments() {
        let text = r#"{"jsonrpc":"2.0","id":2,"method":"resources/read","params":{"uri":"file:///a","requestState":"s","inputResponses":{"k":{"action":"accept"}}}}"#;
        let proposal = read(text).unwrap();
        assert_eq!(proposal.arguments, Json::Object(vec![("uri".into(), Json::String("file:///a".into()))]));
        assert!(proposal.envelope.get("params").unwrap().get("inputResponses").is_some());
    }
}
