//! What an answer asks of its worker, or brings it: questions in place of a result, and tasks.

use super::{From, propose};
use crate::json::Json;
use crate::proposal::Proposal;
use crate::rpc::{Id, Kind, Message};

/// The server's questions in a result that asks for input (`resultType: "input_required"`), each as the request it would have been in the legacy protocol. Nothing when one
/// of them is none.
pub fn questions(result: &Json, worker: &str, connection: &str, server: &str) -> Option<Vec<Proposal>> {
    let members = match result.get("inputRequests") {
        None | Some(Json::Null) => return Some(Vec::new()),
        Some(Json::Object(members)) => members,
        Some(_) => return None,
    };
    members
        .iter()
        .map(|(key, question)| {
            let method = question.get("method")?.as_str()?.to_owned();
            let params = question.get("params").cloned().unwrap_or(Json::Null);
            // Nothing else is in it that would reach the worker unseen.
            let Json::Object(parts) = question else { return None };
            parts.iter().all(|(name, _)| name == "method" || name == "params").then_some(())?;
            let raw = question.to_value().to_string();
            let message = Message { raw, kind: Kind::Request { id: Id::text(key), method, params } };
            propose(From::Server, message, worker, connection, server).ok()
        })
        .collect()
}

/// The id of a task that a result starts: legacy `{"task": {"taskId": …}}`, modern `{"resultType": "task", "taskId": …}`.
pub fn task(result: &Json) -> Option<&str> {
    let legacy = result.get("task").and_then(|task| task.get("taskId"));
    let modern = || {
        let is_task = result.get("resultType").and_then(Json::as_str) == Some("task");
        result.get("taskId").filter(|_| is_task)
    };
    legacy.or_else(modern)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Limits, parse};
    use crate::proposal::{Ask, Verb};

    fn read(text: &str) -> Json {
        parse(text.as_bytes(), Limits::default()).unwrap()
    }

    #[test]
    fn questions_are_the_requests_they_stand_for() {
        let result = read(
            r#"{"resultType":"input_required","requestState":"s","inputRequests":{"a":{"method":"elicitation/create","params":{"message":"m"}},"b":{"method":"roots/list"}}}"#,
        );
        let asked = questions(&result, "w", "c", "s").unwrap();
        let verbs: Vec<_> = asked.into_iter().map(|proposal| proposal.ask).collect();
        assert_eq!(verbs, [Ask::Verb(Verb::Elicit), Ask::Verb(Verb::ListRoots)]);
        for odd in [
            r#"{"inputRequests":[]}"#,
            r#"{"inputRequests":{"a":1}}"#,
            r#"{"inputRequests":{"a":{"method":"x","y":1}}}"#,
        ] {
            assert_eq!(questions(&read(odd), "w", "c", "s"), None, "{odd}");
        }
    }

    #[test]
    fn tasks_are_found_in_both_generations() {
        assert_eq!(task(&read(r#"{"task":{"taskId":"t"}}"#)), Some("t"));
        assert_eq!(task(&read(r#"{"resultType":"task","taskId":"t"}"#)), Some("t"));
        assert_eq!(task(&read(r#"{"resultType":"complete","taskId":"t"}"#)), None);
    }
}
