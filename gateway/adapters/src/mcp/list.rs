//! Lists as a worker is shown them: what it could never call is left out, the rest stays byte for byte.

use serde_json::Value;
use serde_json::value::RawValue;
use warden_core::json::{Limits, members};

/// A `tools/list` answer with only those tools that `keep`, by name and definition. Nothing when all are kept, so that the
/// original goes on, or when it is not such an answer.
pub fn filter_tools(raw: &str, limits: Limits, mut keep: impl FnMut(&str, &Value) -> bool) -> Option<String> {
    let answer = members(raw.as_bytes(), limits).ok()?;
    let result = answer.iter().find(|(name, _)| name == "result")?.1;
    let result_members = members(result.as_bytes(), limits).ok()?;
    let tools = result_members.iter().find(|(name, _)| name == "tools")?.1;
    let tools: Vec<&RawValue> = serde_json::from_str(tools).ok()?;
    let kept: Vec<&str> = tools
        .iter()
        .filter(|tool| {
            let definition: Value = serde_json::from_str(tool.get()).unwrap_or_default();
            definition.get("name").and_then(Value::as_str).is_some_and(|name| keep(name, &definition))
        })
        .map(|tool| tool.get())
        .collect();
    if kept.len() == tools.len() {
        return None;
    }
    let tools = format!("[{}]", kept.join(","));
    let result = object(&result_members, "tools", &tools);
    Some(object(&answer, "result", &result))
}

/// The definitions in a `tools/list` answer.
pub fn tools(result: &Value) -> Vec<Value> {
    result.get("tools").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn object(members: &[(String, &str)], replaced: &str, by: &str) -> String {
    let members = members.iter().map(|(name, text)| {
        let text = if name == replaced { by } else { *text };
        format!("{}:{text}", Value::from(name.as_str()))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
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
}
