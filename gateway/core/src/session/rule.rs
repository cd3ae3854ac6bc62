//! What ends a session: the newest call of its worker that really ran and that a rule of its app knows.

use super::app::{App, Rule, Source};
use super::status::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The field whose value tells who a session was handed to.
pub const TEAM: &str = "team";
/// Why a session has the default status.
pub const NO_TERMINAL_TOOL: &str = "no terminal tool ran";

/// How a session ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Finalised {
    /// The status that it gets.
    pub status: String,
    /// What is kept of the call, in the order of the rule.
    pub fields: Map<String, Value>,
    /// Why, when no rule says so.
    pub reason: Option<String>,
    /// The team that it was handed to, when the status means that and the call says whom.
    pub escalated_to: Option<String>,
}

/// What a rule makes of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// The rule's place in the app's `terminal_tools`, from 0.
    pub rule: usize,
    /// The status that it leads to.
    pub status: String,
    /// The fields that the session keeps.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// How a session ends whose worker is through. `newest` is the newest of its calls that really ran and that a rule fits. Without one, or
/// where that rule's status is none any more by which a session ends, it is the app's default; nothing in an app that has none: such a
/// session stays as it is.
pub fn finalise(app: &App, newest: Option<&Matched>) -> Option<Finalised> {
    let default = |reason: String, fields: Map<String, Value>| {
        let status = app.default_terminal_status.clone()?;
        Some(Finalised { status, fields, reason: Some(reason), escalated_to: None })
    };
    let Some(Matched { status, fields, .. }) = newest else {
        return default(NO_TERMINAL_TOOL.to_owned(), Map::new());
    };
    let Some(means) = app.status(status).filter(|status| status.terminal) else {
        return default(format!("the app has no terminal status `{status}` any more"), fields.clone());
    };
    let escalates = means.kind == Kind::Escalation;
    let team = fields.get(TEAM).filter(|_| escalates).and_then(Value::as_str);
    let escalated_to = team.map(str::to_owned);
    Some(Finalised { status: status.clone(), fields: fields.clone(), reason: None, escalated_to })
}

/// What an app's rules make of a call that ran.
pub fn known(app: &App, tool: &str, args: &Value, result: Option<&Value>) -> Option<Matched> {
    let place = matched(app, tool, args)?;
    let rule = app.terminal_tools.get(place)?;
    let fields = extract(&rule.extract_fields, args, result);
    Some(Matched { rule: place, status: rule.status.clone(), fields })
}

/// The place of the first rule that fits a call, from 0.
pub fn matched(app: &App, tool: &str, args: &Value) -> Option<usize> {
    app.terminal_tools.iter().position(|rule| names(&rule.tool_name, tool) && rule.fits(args))
}

impl Rule {
    /// Whether arguments are those that it asks for: the same JSON, neither `"1"` for `1` nor nothing for `null`.
    pub fn fits(&self, args: &Value) -> bool {
        self.match_args.iter().all(|(name, value)| args.get(name) == Some(value))
    }
}

/// Whether a tool that was called is the one that a rule names: the very name, or that after a server and one of `/`, `:`
/// and the `__` of names that models see. `__` is a part of the tool's own name where a `/` or `:` says which the server is.
pub fn names(rule_tool: &str, called: &str) -> bool {
    let Some(before) = called.strip_suffix(rule_tool).filter(|_| !rule_tool.is_empty()) else { return false };
    let is_server = |server: Option<&str>| server.is_some_and(|server| !server.is_empty());
    before.is_empty()
        || is_server(before.strip_suffix(['/', ':']))
        || (!called.contains(['/', ':']) && is_server(before.strip_suffix("__")))
}

/// What is kept of a call: for each name the first of its places that holds anything.
pub fn extract(wanted: &[(String, Vec<Source>)], args: &Value, result: Option<&Value>) -> Map<String, Value> {
    let result = result.and_then(result_object);
    let at = |source: &Source| match source {
        Source::Args(name) => args.get(name),
        Source::Result(name) => result.as_ref().and_then(|result| result.get(name)),
    };
    let first = |sources: &[Source]| sources.iter().filter_map(at).find(|value| holds(value)).cloned();
    wanted.iter().filter_map(|(name, sources)| Some((name.clone(), first(sources)?))).collect()
}

/// Whether a value is more than nothing, zero, false or empty.
fn holds(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// The object that a result is. An MCP result is its `structuredContent`, or its first text where that is the JSON of an
/// object; a string is taken for such a text, and any other object for itself.
pub fn result_object(result: &Value) -> Option<Map<String, Value>> {
    let members = match result {
        Value::String(text) => return object(text),
        Value::Object(members) => members,
        _ => return None,
    };
    if let Some(Value::Object(structured)) = members.get("structuredContent") {
        return Some(structured.clone());
    }
    match members.get("content") {
        Some(Value::Array(parts)) => {
            let is_text = |part: &&Value| part.get("type").and_then(Value::as_str) == Some("text");
            object(parts.iter().find(is_text)?.get("text")?.as_str()?)
        }
        _ => Some(members.clone()),
    }
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixture::{app, bare, rule};
    use serde_json::json;

    /// Of calls that all ran, the newest first.
    fn ended(app: &App, calls: &[(&str, &Value)]) -> Option<Finalised> {
        let newest = calls.iter().find_map(|(tool, args)| known(app, tool, args, None));
        finalise(app, newest.as_ref())
    }

    fn status(app: &App, oldest_first: &[(&str, Value)]) -> Option<String> {
        let calls: Vec<(&str, &Value)> = oldest_first.iter().rev().map(|(tool, args)| (*tool, args)).collect();
        Some(ended(app, &calls)?.status)
    }

    #[test]
    fn s2_18_the_newest_call_that_a_rule_knows_decides() {
        let mut app = app();
        app.terminal_tools.push(rule("judge", "failed").given("verdict", json!("no")));
        app.terminal_tools.push(rule("judge", "done").given("verdict", json!("yes")));
        let (no, yes) = (json!({"verdict": "no"}), json!({"verdict": "yes"}));
        let none = json!({});
        for (calls, expected) in [
            (vec![("desk/mark_done", none.clone())], "done"),
            (vec![("desk/mark_done", none.clone()), ("pager/call_people", none.clone())], "handed_on"),
            (vec![("pager/call_people", none.clone()), ("desk/mark_done", none.clone())], "done"),
            (vec![("desk/mark_done", none.clone()), ("desk/look", none.clone())], "done"),
            // The newest is of a terminal tool and no rule fits it: an older one decides.
            (vec![("desk/mark_done", none.clone()), ("desk/judge", json!({"verdict": "later"}))], "done"),
            (vec![("desk/judge", yes.clone()), ("desk/judge", no.clone())], "failed"),
            (vec![("desk/judge", no), ("desk/judge", yes)], "done"),
        ] {
            assert_eq!(status(&app, &calls).as_deref(), Some(expected), "{calls:?}");
        }
    }

    #[test]
    fn s2_18_rules_are_tried_in_the_order_of_the_file() {
        let mut app = app();
        app.terminal_tools = vec![rule("judge", "failed").given("hard", json!(true)), rule("judge", "done")];
        assert_eq!(matched(&app, "judge", &json!({"hard": true})), Some(0));
        assert_eq!(matched(&app, "judge", &json!({"hard": false})), Some(1));
        app.terminal_tools.reverse();
        assert_eq!(matched(&app, "judge", &json!({"hard": true})), Some(0));
    }

    #[test]
    fn s2_19_a_tool_is_named_bare_or_after_its_server() {
        for (rule, called, same) in [
            ("mark_done", "mark_done", true),
            ("mark_done", "desk:mark_done", true),
            ("mark_done", "desk/mark_done", true),
            ("mark_done", "desk__mark_done", true),
            ("mark_done", "a:b:mark_done", true),
            ("mark_done", "a/b:mark_done", true),
            ("mark_done", "a__b__mark_done", true),
            ("mark_done", "my_desk__x/mark_done", true),
            ("mark_done", "xmark_done", false),
            ("mark_done", "desk_mark_done", false),
            ("mark_done", "desk.mark_done", false),
            ("mark_done", "desk-mark_done", false),
            ("mark_done", "desk/xmark_done", false),
            ("mark_done", "mark_done_now", false),
            ("mark_done", "mark_done/", false),
            ("mark_done", "Mark_Done", false),
            ("mark_done", "mark_done ", false),
            ("mark_done", "", false),
            // Without a server before it, that is another tool's whole name.
            ("mark_done", "/mark_done", false),
            ("mark_done", ":mark_done", false),
            ("mark_done", "__mark_done", false),
            ("get__all", "get__all", true),
            ("get__all", "desk/get__all", true),
            ("get__all", "desk__get__all", true),
            // `desk` is the server, so the tool is `get__all` and not `all`.
            ("all", "desk/get__all", false),
            ("all", "desk:get__all", false),
            ("_x", "desk___x", true),
            ("desk/close", "desk/close", true),
            ("desk/close", "other/close", false),
            ("close", "дом/close", true),
            ("", "", false),
            ("", "desk/", false),
        ] {
            assert_eq!(names(rule, called), same, "{rule:?} {called:?}");
        }
    }

    #[test]
    fn s2_20_arguments_fit_when_they_are_the_same_json() {
        let asks = |value: Value| rule("judge", "done").given("verdict", value);
        for (value, args, fits) in [
            (json!("approve"), json!({"verdict": "approve", "more": 1}), true),
            (json!("approve"), json!({"verdict": "Approve"}), false),
            (json!("approve"), json!({"verdict": "request_changes"}), false),
            (json!("approve"), json!({}), false),
            (json!("approve"), json!({"other": "approve"}), false),
            (json!(1), json!({"verdict": 1}), true),
            (json!(1), json!({"verdict": "1"}), false),
            (json!("1"), json!({"verdict": 1}), false),
            (json!(1), json!({"verdict": true}), false),
            (json!(true), json!({"verdict": true}), true),
            (json!(null), json!({"verdict": null}), true),
            (json!(null), json!({}), false),
            (json!({"a": 1, "b": 2}), json!({"verdict": {"b": 2, "a": 1}}), true),
            (json!(["a", "b"]), json!({"verdict": ["b", "a"]}), false),
            (json!("approve"), json!(["approve"]), false),
            (json!("approve"), json!("approve"), false),
            (json!("approve"), json!(null), false),
        ] {
            assert_eq!(asks(value.clone()).fits(&args), fits, "{value} {args}");
        }
        for args in [json!({}), json!(null), json!([1]), json!("text")] {
            assert!(rule("judge", "done").fits(&args), "a rule that asks for nothing fits {args}");
        }
        let both = asks(json!("approve")).given("by", json!("me"));
        assert!(!both.fits(&json!({"verdict": "approve"})) && both.fits(&json!({"by": "me", "verdict": "approve"})));
    }

    #[test]
    fn s2_20_one_tool_ends_three_ways_by_its_argument() {
        let mut app = app();
        let judge = |verdict: &str, status: &str| rule("judge", status).given("verdict", json!(verdict));
        app.terminal_tools = vec![judge("approve", "done"), judge("changes", "failed"), judge("comment", "handed_on")];
        for (verdict, expected) in
            [("approve", "done"), ("changes", "failed"), ("comment", "handed_on"), ("else", "needs_review")]
        {
            assert_eq!(status(&app, &[("r/judge", json!({ "verdict": verdict }))]).as_deref(), Some(expected));
        }
    }

    #[test]
    fn s2_21_the_first_place_that_holds_anything_gives_the_value() {
        let wanted = rule("t", "s").taking("field", &["args.a", "result.b", "args.a.b"]).extract_fields;
        let of = |args: &Value, result: Value| extract(&wanted, args, Some(&result)).get("field").cloned();
        assert_eq!(of(&json!({"a": "x"}), json!({"b": "y"})), Some(json!("x")));
        for nothing in [json!(null), json!(""), json!(0), json!(0.0), json!(-0.0), json!(false), json!([]), json!({})] {
            assert_eq!(of(&json!({ "a": nothing }), json!({"b": "y"})), Some(json!("y")), "{nothing}");
        }
        for something in [json!(" "), json!("0"), json!(1e-300), json!(-1), json!(true), json!([0]), json!({"x": null})]
        {
            assert_eq!(of(&json!({ "a": something }), json!({"b": "y"})), Some(something));
        }
        assert_eq!(of(&json!({"a": {"b": "deep"}}), json!({})), Some(json!({"b": "deep"})), "one level, not a path");
        assert_eq!(of(&json!({"a.b": "flat"}), json!({})), Some(json!("flat")));
        assert_eq!(of(&json!({}), json!({"a": "not asked for"})), None);
        assert_eq!(of(&json!("no object"), json!([1])), None);
    }

    #[test]
    fn s2_21_names_are_filled_independently_and_in_their_order() {
        let rule = rule("t", "s").taking("z", &["args.z"]).taking("gone", &["args.gone"]).taking("a", &["result.a"]);
        let kept = extract(&rule.extract_fields, &json!({"z": 1}), Some(&json!({"a": 2})));
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), [("z".into(), json!(1)), ("a".into(), json!(2))]);
        assert!(extract(&rule.extract_fields, &json!({}), None).is_empty());
    }

    #[test]
    fn s2_22_a_result_is_an_object_or_the_text_of_one() {
        let text = |text: &str| json!({"content": [{"type": "image", "data": "…"}, {"type": "text", "text": text}]});
        let structured = json!({"structuredContent": {"a": 1}, "content": [{"type": "text", "text": "{\"a\":2}"}]});
        for (result, a) in [
            (json!({"a": 1}), Some(json!(1))),
            (json!("{\"a\": 1}"), Some(json!(1))),
            (structured, Some(json!(1))),
            (text("{\"a\":2}"), Some(json!(2))),
            (json!({"structuredContent": null, "content": [{"type": "text", "text": "{\"a\":3}"}]}), Some(json!(3))),
            (json!({"content": "a member of its own", "a": 4}), Some(json!(4))),
            (text("not json"), None),
            (text("[1]"), None),
            (text("{\"a\":1} and more"), None),
            (json!({"content": []}), None),
            (json!({"content": [{"type": "text"}]}), None),
            (json!("{\"a\": 1"), None),
            (json!("[{\"a\": 1}]"), None),
            (json!("\"{}\""), None),
            (json!(""), None),
            (json!(null), None),
            (json!([{"a": 1}]), None),
            (json!(7), None),
        ] {
            assert_eq!(result_object(&result).and_then(|object| object.get("a").cloned()), a, "{result}");
        }
        let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        assert_eq!(result_object(&json!(deep)), None, "too deep to read, and no harm done");
    }

    #[test]
    fn s2_22_fields_come_from_the_text_of_a_result() {
        let (args, result) = (json!({"summary": ""}), json!("{\"text\": \"restarted\"}"));
        let known = known(&app(), "desk/mark_done", &args, Some(&result)).unwrap();
        assert_eq!(known.fields.get("resolution"), Some(&json!("restarted")));
    }

    #[test]
    fn s2_23_without_a_rule_the_default_says_how_it_ends_and_why() {
        let args = json!({});
        for calls in [vec![], vec![("desk/look", &args)]] {
            let ended = ended(&app(), &calls).unwrap();
            assert_eq!(ended.status, "needs_review");
            assert_eq!(ended.reason.as_deref(), Some("no terminal tool ran"));
            assert!(ended.fields.is_empty() && ended.escalated_to.is_none());
        }
    }

    #[test]
    fn s2_23_a_rule_that_fires_needs_no_reason() {
        let args = json!({"team": "a"});
        let known = known(&app(), "pager/call_people", &args, None).unwrap();
        assert_eq!((known.rule, known.status.as_str()), (1, "handed_on"));
        assert_eq!(finalise(&app(), Some(&known)).unwrap().reason, None);
    }

    #[test]
    fn s2_23_a_status_that_the_app_has_no_more_ends_no_session() {
        let args = json!({"summary": "restarted"});
        let known = known(&app(), "desk/mark_done", &args, None).unwrap();
        let (mut renamed, mut goes_on) = (app(), app());
        renamed.statuses.remove("done");
        goes_on.statuses.get_mut("done").unwrap().terminal = false;
        for now in [renamed, goes_on] {
            let ended = finalise(&now, Some(&known)).unwrap();
            assert_eq!((ended.status.as_str(), &ended.fields), ("needs_review", &known.fields));
            assert_eq!(ended.reason.as_deref(), Some("the app has no terminal status `done` any more"));
        }
        assert_eq!(finalise(&bare(), Some(&known)), None);
    }

    #[test]
    fn s2_12_s2_23_an_app_that_declares_nothing_leaves_its_sessions_alone() {
        let args = json!({});
        assert_eq!(ended(&bare(), &[("desk/mark_done", &args)]), None);
        assert_eq!(ended(&bare(), &[]), None);
    }

    #[test]
    fn s2_24_the_default_is_that_of_the_app() {
        let mut app = app();
        app.default_terminal_status = Some("failed".into());
        assert_eq!(status(&app, &[]).as_deref(), Some("failed"));
    }

    #[test]
    fn s2_25_an_escalation_tells_whom_when_the_call_does() {
        let to = |app: &App, tool: &str, args: Value| ended(app, &[(tool, &args)]).unwrap().escalated_to;
        let app = app();
        assert_eq!(to(&app, "pager/call_people", json!({"team": "network"})).as_deref(), Some("network"));
        assert_eq!(to(&app, "pager/call_people", json!({})), None);
        assert_eq!(to(&app, "pager/call_people", json!({"team": 7})), None);
        // Any other kind of status hands nothing on, whatever it keeps.
        let mut kept = app.clone();
        kept.terminal_tools = vec![rule("mark_done", "done").taking("team", &["args.team"])];
        assert_eq!(to(&kept, "desk/mark_done", json!({"team": "network"})), None);
        // And another name than `team` is not the team.
        let mut other = app;
        other.terminal_tools = vec![rule("call_people", "handed_on").taking("whom", &["args.team"])];
        assert_eq!(to(&other, "pager/call_people", json!({"team": "network"})), None);
    }
}
