//! Lists as a worker is shown them: what it could never call is left out, the rest stays byte for byte.

use serde_json::Value;
use serde_json::value::RawValue;
use warden_core::json::{Limits, members, replaced};
use warden_core::rpc::{Kind, Message};

/// A `tools/list` answer with only those tools that `keep`, by name and definition, and marked as this worker's own: a
/// shared cache must not show it to another. Nothing when that is the original, so that it goes on, or when it is not such
/// an answer.
pub fn filter_tools(raw: &str, limits: Limits, mut keep: impl FnMut(&str, &Value) -> bool) -> Option<String> {
    let filtered = filter(raw, "tools", limits, |tool| {
        tool.get("name").and_then(Value::as_str).is_some_and(|name| keep(name, tool))
    });
    let text = filtered.as_deref().unwrap_or(raw);
    let scope = ["result", "cacheScope"];
    let public = Message::parse(text.as_bytes(), limits).ok().is_some_and(|message| match message.kind {
        Kind::Result { result, .. } => result.get("cacheScope").is_some_and(|scope| scope.as_str() != Some("private")),
        _ => false,
    });
    let private = public.then(|| replaced(text, &scope, "\"private\"")).flatten();
    private.or(filtered)
}

/// A `tasks/list` answer with only those tasks that `keep`, by id.
pub fn filter_tasks(raw: &str, limits: Limits, keep: impl Fn(&str) -> bool) -> Option<String> {
    filter(raw, "tasks", limits, |task| task.get("taskId").and_then(Value::as_str).is_some_and(&keep))
}

fn filter(raw: &str, list: &str, limits: Limits, mut keep: impl FnMut(&Value) -> bool) -> Option<String> {
    let answer = members(raw.as_bytes(), limits).ok()?;
    let result = answer.iter().find(|(name, _)| name == "result")?.1;
    let result = members(result.as_bytes(), limits).ok()?;
    let items: Vec<&RawValue> = serde_json::from_str(result.iter().find(|(name, _)| name == list)?.1).ok()?;
    let kept: Vec<&str> = items
        .iter()
        .filter(|item| keep(&serde_json::from_str(item.get()).unwrap_or_default()))
        .map(|item| item.get())
        .collect();
    (kept.len() < items.len()).then(|| replaced(raw, &["result", list], &format!("[{}]", kept.join(",")))).flatten()
}

/// The definitions in a `tools/list` answer.
pub fn tools(result: &Value) -> Vec<Value> {
    result.get("tools").and_then(Value::as_array).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_untouched() {
        let raw = r#"{"jsonrpc":"2.0","id":1,"result":{"x-vendor":1.50,"tools":[{"name":"a","n":1.0,"outputSchema":null},{"name":"b"}],"nextCursor":"c"}}"#;
        let keep = |wanted: &'static str| filter_tools(raw, Limits::default(), move |name, _| name == wanted);
        assert_eq!(
            keep("a").unwrap(),
            r#"{"jsonrpc":"2.0","id":1,"result":{"x-vendor":1.50,"tools":[{"name":"a","n":1.0,"outputSchema":null}],"nextCursor":"c"}}"#
        );
        assert_eq!(filter_tools(raw, Limits::default(), |_, _| true), None);
        assert!(filter_tools(raw, Limits::default(), |_, _| false).unwrap().contains(r#""tools":[]"#));
    }

    #[test]
    fn a_filtered_list_is_nobody_elses() {
        let raw =
            r#"{"jsonrpc":"2.0","id":1,"result":{ "tools":[{"name":"a"}], "ttlMs":1.0, "cacheScope" : "public" }}"#;
        assert_eq!(
            filter_tools(raw, Limits::default(), |_, _| true).unwrap(),
            r#"{"jsonrpc":"2.0","id":1,"result":{ "tools":[{"name":"a"}], "ttlMs":1.0, "cacheScope" : "private" }}"#
        );
        let tasks = r#"{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"taskId":"a"},{"taskId":"b"}]}}"#;
        let ours = filter_tasks(tasks, Limits::default(), |id| id == "b").unwrap();
        assert_eq!(ours, r#"{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"taskId":"b"}]}}"#);
    }
}
