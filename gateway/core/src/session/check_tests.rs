//! Tests of [`super::check`] and [`super::raw`].

use super::app::App;
use super::check::{Checked, apps};
use super::raw::RawApp;
use super::risk::Risk;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// An app with everything in it, which is in order.
fn whole() -> Value {
    json!({
        "session_id_prefix": "A",
        "statuses": {
            "in_progress": { "name": "in_progress", "terminal": false, "kind": "pending" },
            "done": { "name": "done", "terminal": true, "kind": "success" },
            "handed_on": { "name": "handed_on", "terminal": true, "kind": "escalation" },
            "needs_review": { "name": "needs_review", "terminal": true, "kind": "needs_review" }
        },
        "default_terminal_status": "needs_review",
        "terminal_tools": [
            { "tool_name": "mark_done", "status": "done", "match_args": { "verdict": "approve" },
              "extract_fields": { "resolution": ["args.summary", "result.text"], "by": ["args.by"] } },
            { "tool_name": "call_people", "status": "handed_on" }
        ],
        "harvest_terminal_tools": ["hand_in"],
        "patch_tools": ["note"],
        "escalate_action_tool_name": "call_people",
        "escalate_action_default_team": "network",
        "escalation_teams": ["network", "data centre"],
        "servers": ["desk", "pager"],
        "state_overrides_schema": "schemas/over-rides v2.json",
        "signals": ["success", "retry"],
        "risk": { "desk/*": "low", "desk/restart": "medium", "call_people": "high" },
        "production_risk": { "desk/*": "medium" },
        "gates": { "risks": ["high"], "environments": ["production"], "environment_field": "environment",
                   "min_confidence": 0.75 },
        "max_sessions": 5,
        "max_open_s": 3600,
        "facts": { "refunds": { "count": "pay/refund" } }
    })
}

/// The same with one value set, by its JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut app = whole();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = app.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        parent => parent[key] = value,
    }
    app
}

fn raw(app: Value) -> RawApp {
    serde_json::from_value(app).unwrap()
}

fn check(app: Value) -> Checked<App> {
    App::check("case", raw(app), &known(), &["meta", "worker_engine_factory"])
}

fn known() -> BTreeSet<String> {
    ["desk", "pager", "zoo"].map(str::to_owned).into()
}

fn problems(app: Value) -> Vec<String> {
    check(app).map(|(app, _)| panic!("nothing is wrong with {app:?}")).unwrap_or_else(|problems: Vec<String>| problems)
}

/// That one thing is wrong, said exactly so.
#[track_caller]
fn only(app: Value, problem: &str) {
    assert_eq!(problems(app), [problem]);
}

/// That one thing is wrong, and that it is told with all of these.
#[track_caller]
fn says(app: Value, parts: &[&str]) {
    let problems = problems(app);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(parts.iter().all(|part| problems[0].contains(part)), "{problems:?} without one of {parts:?}");
}

#[track_caller]
fn warned(app: Value, parts: &[&str]) {
    let (_, warnings) = check(app).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(parts.iter().all(|part| warnings[0].contains(part)), "{warnings:?} without one of {parts:?}");
}

#[test]
fn s2_05_to_s2_15_an_app_with_everything_is_in_order() {
    let (app, warnings) = check(whole()).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!((app.name.as_str(), app.session_id_prefix.as_str(), app.statuses.len()), ("case", "A", 4));
    assert_eq!((app.gates.min_confidence, app.max_sessions, app.max_open_s), (750, 5, Some(3600)));
    assert_eq!(app.risk.get("desk/restart"), Some(&Risk::Medium));
    assert_eq!(app.facts["refunds"].tools, ["pay/refund"]);
}

#[test]
fn s2_01_a_prefix_is_one_to_sixteen_ascii_letters_digits_and_hyphens() {
    for prefix in ["INC", "REVIEW", "HR", "SES", "A1", "MY-APP", "ABCDEFGHIJKLMNOP", "1A", "-", "a"] {
        assert_eq!(check(with("/session_id_prefix", json!(prefix))).unwrap().0.session_id_prefix, prefix);
    }
    for prefix in [
        "",
        " ",
        "has space",
        "INC!",
        "ABCDEFGHIJKLMNOPQ",
        "under_score",
        "INC\n",
        "\nINC",
        "٣",
        "Ä",
        "IN\u{0}C",
        "INC\r\n",
    ] {
        let shown = format!("apps.case.session_id_prefix='{}' is not 1 to 16", prefix.escape_debug());
        says(with("/session_id_prefix", json!(prefix)), &[&shown]);
    }
    assert_eq!(check(json!({})).unwrap().0.session_id_prefix, "SES");
    let long = problems(with("/session_id_prefix", json!("x".repeat(5000))));
    assert!(long[0].len() < 300, "a message repeats no more of a value than it takes to find it");
}

#[test]
fn s2_03_two_apps_never_share_a_prefix_or_one_that_looks_like_it() {
    let both = |one: Value, other: Value| {
        let app =
            |prefix: Value| if prefix.is_null() { raw(json!({})) } else { raw(json!({"session_id_prefix": prefix})) };
        apps([("one".to_owned(), app(one)), ("other".to_owned(), app(other))].into(), &known(), &[])
    };
    for (one, other) in
        [("INC", "INC-X"), ("INC", "INCX"), ("A", "A-20260101"), ("A-B", "A-C"), ("-A", "A"), ("A", "A-1")]
    {
        assert!(both(json!(one), json!(other)).is_ok(), "{one} {other}");
    }
    for (one, other, how) in [
        ("INC", "INC", "is the prefix 'INC' of apps.one"),
        ("INC", "inc", "is easily taken for the prefix 'INC' of apps.one"),
        ("INC", "INC-", "is easily taken for"),
        ("INC--", "Inc-", "is easily taken for"),
        ("-", "--", "is easily taken for"),
    ] {
        let problems = both(json!(one), json!(other)).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("apps.other.session_id_prefix='{other}' ")), "{problems:?}");
        assert!(problems[0].contains(how), "{problems:?}");
    }
    assert!(both(json!(null), json!(null)).unwrap_err()[0].contains("'SES'"), "the default is a prefix as well");
    assert!(both(json!(null), json!("A")).is_ok());
}

#[test]
fn s2_03_all_apps_are_checked_before_any_is_refused() {
    let broken = raw(json!({"session_id_prefix": "A", "signals": []}));
    let all =
        [("b".to_owned(), raw(json!({"max_sessions": 0}))), ("c".to_owned(), broken.clone()), ("d".to_owned(), broken)];
    let problems = apps(all.into(), &known(), &[]).unwrap_err().join("\n");
    for part in ["apps.b.max_sessions", "apps.c.signals", "apps.d.signals", "apps.d.session_id_prefix"] {
        assert!(problems.contains(part), "{problems}");
    }
    let (fine, _) = apps([("b".to_owned(), raw(json!({})))].into(), &known(), &[]).unwrap();
    assert_eq!(fine.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn s2_03_the_name_of_an_app_is_plain() {
    for name in ["", "A", "a b", "a/b", "a\n"] {
        let problems = App::check(name, RawApp::default(), &known(), &[]).unwrap_err();
        assert!(problems[0].contains(&format!("'{}'", name.escape_debug())), "{problems:?}");
    }
}

#[test]
fn s2_05_a_rule_names_a_tool_and_a_status() {
    for (key, value) in [("tool_name", ""), ("tool_name", " "), ("tool_name", "a b"), ("status", ""), ("status", "\t")]
    {
        let at = format!("apps.case.terminal_tools[1].{key}='{}'", value.escape_debug());
        says(with(&format!("/terminal_tools/1/{key}"), json!(value)), &[&at]);
    }
    for gone in ["tool_name", "status"] {
        let mut app = whole();
        app["terminal_tools"][0].as_object_mut().unwrap().remove(gone);
        assert!(serde_json::from_value::<RawApp>(app).unwrap_err().to_string().contains(gone));
    }
}

#[test]
fn s2_05_s2_06_s2_13_a_key_that_nobody_knows_is_refused_at_every_level() {
    for place in ["/extra", "/terminal_tools/0/extra", "/statuses/done/color", "/statuses/done/label", "/gates/extra"] {
        let key = place.rsplit('/').next().unwrap();
        let error = serde_json::from_value::<RawApp>(with(place, json!("x"))).unwrap_err().to_string();
        assert!(error.contains(&format!("unknown field `{key}`")), "{place}: {error}");
    }
}

#[test]
fn s2_06_a_status_has_a_known_kind_and_the_name_of_its_key() {
    let error = serde_json::from_value::<RawApp>(with("/statuses/done/kind", json!("bogus"))).unwrap_err().to_string();
    assert!(error.contains("bogus") && error.contains("needs_review"), "{error}");
    only(
        with("/statuses/in_progress/name", json!("busy")),
        "apps.case.statuses['in_progress'].name='busy' is not the key that it stands under",
    );
    let nameless = with("/statuses/", json!({ "name": "", "terminal": true, "kind": "failure" }));
    only(nameless, "apps.case.statuses[''] is empty");
    let blank = with("/statuses/a b", json!({ "name": "a b", "terminal": true, "kind": "failure" }));
    says(blank, &["apps.case.statuses['a b'] has blanks"]);
}

#[test]
fn s2_06_a_terminal_status_is_not_pending() {
    says(
        with("/statuses/in_progress/terminal", json!(true)),
        &["statuses['in_progress'].kind='pending'", "terminal=true"],
    );
}

#[test]
fn s2_06_built_in_statuses_are_not_declared() {
    for name in ["running", "awaiting_input", "stopped", "error"] {
        let status = json!({ "name": name, "terminal": false, "kind": "failure" });
        says(
            with(&format!("/statuses/{name}"), status),
            &[&format!("apps.case.statuses['{name}'] is a status that every")],
        );
    }
}

#[test]
fn s2_07_statuses_need_a_default() {
    only(
        with("/default_terminal_status", json!(null)),
        "apps.case.default_terminal_status is required when statuses is non-empty",
    );
}

#[test]
fn s2_08_the_default_is_declared() {
    only(
        with("/default_terminal_status", json!("ghost")),
        "apps.case.default_terminal_status='ghost' is no declared status; declared: done, handed_on, in_progress, needs_review",
    );
    says(with("/default_terminal_status", json!("stopped")), &["='stopped' is no declared status"]);
}

#[test]
fn s2_09_the_default_is_terminal() {
    only(
        with("/default_terminal_status", json!("in_progress")),
        "apps.case.default_terminal_status='in_progress' references a non-terminal status; \
         terminal: done, handed_on, needs_review",
    );
}

#[test]
fn s2_10_error_names_index_and_value() {
    let declared = "is no declared status; declared: done, handed_on, in_progress, needs_review";
    only(
        with("/terminal_tools/0/status", json!("ghost")),
        &format!("apps.case.terminal_tools[0].status='ghost' (tool_name='mark_done') {declared}"),
    );
    only(
        with("/terminal_tools/1/status", json!("ghost")),
        &format!("apps.case.terminal_tools[1].status='ghost' (tool_name='call_people') {declared}"),
    );
}

#[test]
fn s2_11_without_statuses_there_is_neither_default_nor_rule() {
    let (default, rules) =
        (json!({"default_terminal_status": "done"}), json!({"terminal_tools": whole()["terminal_tools"]}));
    only(default, "apps.case.default_terminal_status='done' is set, and statuses is empty");
    only(rules, "apps.case.terminal_tools has 2 of them, and statuses is empty");
}

#[test]
fn s2_12_an_app_that_declares_nothing_is_in_order() {
    let (app, warnings) = check(json!({})).unwrap();
    assert_eq!((app.statuses.len(), app.terminal_tools.len(), app.default_terminal_status), (0, 0, None));
    assert_eq!(app.signals, ["success", "failed", "needs_input"]);
    assert_eq!((app.session_id_prefix.as_str(), app.max_sessions, app.max_open_s), ("SES", 100, None));
    assert_eq!((app.gates.min_confidence, app.gates.environment_field.as_str()), (600, "environment"));
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn s2_14_a_rule_gives_a_terminal_status() {
    says(
        with("/terminal_tools/1/status", json!("in_progress")),
        &[
            "apps.case.terminal_tools[1].status='in_progress' (tool_name='call_people')",
            "non-terminal",
            "done, handed_on",
        ],
    );
}

#[test]
fn s2_15_a_rule_that_an_earlier_one_hides_is_warned_of() {
    let rule = |args: Value| json!({ "tool_name": "call_people", "status": "done", "match_args": args });
    let hidden = ["apps.case.terminal_tools[2] (tool_name='call_people')", "terminal_tools[1]"];
    warned(with("/terminal_tools/-", rule(json!({ "a": 1 }))), &hidden);
    warned(with("/terminal_tools/-", rule(json!({}))), &hidden);
    let asks = |args: Value| json!({ "tool_name": "mark_done", "status": "done", "match_args": args });
    // It asks for the same and for more.
    warned(with("/terminal_tools/-", asks(json!({ "verdict": "approve", "by": "me" }))), &["terminal_tools[2]", "[0]"]);
    for reached in [json!({ "verdict": "comment" }), json!({}), json!({ "by": "me" })] {
        assert!(check(with("/terminal_tools/-", asks(reached))).unwrap().1.is_empty());
    }
}

#[test]
fn s2_16_a_rule_is_written_with_everything_in_it_and_read_back_the_same() {
    let dumped = serde_json::to_value(raw(whole())).unwrap();
    let rule = r#"{"tool_name":"call_people","status":"handed_on","extract_fields":{},"match_args":{}}"#;
    assert_eq!(dumped["terminal_tools"][1].to_string(), rule);
    assert_eq!(raw(dumped.clone()), raw(whole()));
    assert_eq!(serde_json::to_value(raw(dumped.clone())).unwrap(), dumped);
    // And as it is known once it is checked.
    let (app, _) = check(whole()).unwrap();
    assert_eq!(serde_json::to_value(app.terminal_tools).unwrap(), dumped["terminal_tools"]);
}

#[test]
fn s2_21_a_field_is_taken_from_arguments_or_result() {
    for place in ["foo.x", "summary", "args", "args.", "Result.x", ""] {
        let at = format!("apps.case.terminal_tools[0].extract_fields['resolution'][1]='{place}' is neither");
        says(with("/terminal_tools/0/extract_fields/resolution/1", json!(place)), &[&at]);
    }
    let at = "apps.case.terminal_tools[0].extract_fields['by'] names no place";
    says(with("/terminal_tools/0/extract_fields/by", json!([])), &[at]);
    assert!(check(with("/terminal_tools/0/extract_fields/by", json!(["args.a.b"]))).is_ok());
}

#[test]
fn s2_21_a_reserved_field_is_no_destination() {
    for key in ["meta", "worker_engine_factory"] {
        let at = format!("apps.case.terminal_tools[1].extract_fields['{key}'] is reserved");
        says(with("/terminal_tools/1/extract_fields", json!({ key: ["args.x"] })), &[&at]);
    }
    says(with("/terminal_tools/1/extract_fields", json!({ "": ["args.x"] })), &["extract_fields[''] is empty"]);
}

#[test]
fn s2_32_tools_in_two_lists_are_warned_of() {
    warned(
        with("/harvest_terminal_tools/0", json!("mark_done")),
        &["harvest_terminal_tools[0]='mark_done'", "it ends"],
    );
    warned(with("/patch_tools/0", json!("mark_done")), &["patch_tools[0]='mark_done'", "not read"]);
    warned(with("/patch_tools/0", json!("hand_in")), &["patch_tools[0]='hand_in'", "not read"]);
}

#[test]
fn s2_31_s2_32_lists_of_tools_have_no_blanks_and_nothing_twice() {
    for at in ["harvest_terminal_tools", "patch_tools"] {
        says(with(&format!("/{at}/0"), json!("")), &[&format!("apps.case.{at}[0]='' is empty")]);
        says(
            with(&format!("/{at}"), json!(["a", "b", "a"])),
            &[&format!("apps.case.{at}[2]='a' is there already: {at}[0]")],
        );
    }
}

#[test]
fn s2_36_a_vocabulary_has_words_and_each_once() {
    says(with("/signals", json!([])), &["apps.case.signals is empty"]);
    says(with("/signals/1", json!(" ")), &["apps.case.signals[1]=' '"]);
    says(with("/signals/-", json!("Success")), &["apps.case.signals[2]='Success' is there already: signals[0]"]);
    let mut app = whole();
    app.as_object_mut().unwrap().remove("signals");
    assert_eq!(check(app).unwrap().0.signals, ["success", "failed", "needs_input"]);
}

#[test]
fn s2_38_s2_41_the_default_team_is_one_of_the_roster() {
    says(
        with("/escalate_action_default_team", json!("marketing")),
        &["apps.case.escalate_action_default_team='marketing'", "network, data centre"],
    );
    says(with("/escalate_action_default_team", json!("")), &["escalate_action_default_team='' is empty"]);
    says(with("/escalation_teams/-", json!(" x")), &["apps.case.escalation_teams[2]=' x' has blanks"]);
    says(
        with("/escalation_teams/-", json!("network")),
        &["apps.case.escalation_teams[2]='network'", "escalation_teams[0]"],
    );
    says(with("/escalate_action_tool_name", json!("")), &["apps.case.escalate_action_tool_name='' is empty"]);
    let mut app = with("/escalate_action_default_team", json!("marketing"));
    app["escalation_teams"] = json!([]);
    assert!(check(app).is_ok(), "without a roster any team will do");
}

#[test]
fn s2_40_fields_keep_the_order_of_the_file() {
    let fields = |rule: &str| {
        let text = format!(
            r#"{{"statuses":{{"s":{{"name":"s","terminal":true,"kind":"escalation"}}}},"default_terminal_status":"s",
               "terminal_tools":[{{"tool_name":"t","status":"s","extract_fields":{rule}}}]}}"#
        );
        let app = App::check("case", serde_json::from_str(&text)?, &known(), &[]).unwrap().0;
        let fields = app.terminal_tools[0].extract_fields.iter().map(|(field, _)| field.clone());
        Ok::<_, serde_json::Error>(fields.collect::<Vec<_>>())
    };
    assert_eq!(fields(r#"{"z":["args.z"],"a":["args.a"],"m":["args.m"]}"#).unwrap(), ["z", "a", "m"]);
    let error = fields(r#"{"z":["args.z"],"a":["args.a"],"z":["args.b"]}"#).unwrap_err().to_string();
    assert!(error.contains("key `z` is there twice"), "{error}");
}

#[test]
fn s2_40_no_map_of_an_app_has_a_key_twice() {
    for text in [
        r#"{"risk":{"a/b":"high","a/b":"low"}}"#,
        r#"{"production_risk":{"a":"high","a":"low"}}"#,
        r#"{"facts":{"a":{"count":"*"},"a":{"count":"*"}}}"#,
        r#"{"statuses":{"s":{"name":"s","terminal":true,"kind":"success"},"s":{"name":"s","terminal":true,"kind":"failure"}}}"#,
        r#"{"terminal_tools":[{"tool_name":"t","status":"s","match_args":{"a":1,"a":2}}]}"#,
    ] {
        let error = serde_json::from_str::<RawApp>(text).unwrap_err().to_string();
        assert!(error.contains("is there twice"), "{text}: {error}");
    }
}

#[test]
fn s2_47_servers_are_configured_ones_and_each_once() {
    only(
        with("/servers/1", json!("ghost")),
        "apps.case.servers[1]='ghost' is no configured server; configured: desk, pager, zoo",
    );
    says(with("/servers/-", json!("desk")), &["apps.case.servers[2]='desk' is there already: servers[0]"]);
    says(with("/servers/0", json!("")), &["apps.case.servers[0]='' is no configured server"]);
    let mut app = with("/servers", json!([]));
    app["risk"] = json!({});
    app["production_risk"] = json!({});
    assert!(check(app).unwrap().0.servers.is_empty(), "no server is fine");
    assert_eq!(
        check(with("/servers", json!(["zoo", "desk"]))).unwrap().0.servers,
        ["zoo", "desk"],
        "in the order of the file"
    );
}

#[test]
fn s2_52_the_path_of_a_schema_is_absent_or_something() {
    for path in ["", " ", "\t", "a.json ", "\na.json", "a\0.json"] {
        let at = format!("apps.case.state_overrides_schema='{}'", path.escape_debug());
        says(with("/state_overrides_schema", json!(path)), &[&at]);
    }
    assert_eq!(check(with("/state_overrides_schema", json!(null))).unwrap().0.state_overrides_schema, None);
    let path = check(with("/state_overrides_schema", json!("a-b.json"))).unwrap().0.state_overrides_schema;
    assert_eq!(path.as_deref(), Some("a-b.json"));
}

#[test]
fn s2_60_a_risk_is_that_of_a_tool_or_of_a_server_and_a_tool() {
    for (pattern, part) in
        [("", "is empty"), ("a b", "has blanks"), ("/", "neither"), ("desk/", "neither"), ("/x", "neither")]
    {
        for list in ["risk", "production_risk"] {
            // Not as a pointer, which would split it.
            let mut app = whole();
            app[list][pattern] = json!("high");
            says(app, &[&format!("apps.case.{list}['{pattern}'] "), part]);
        }
    }
    let mut app = whole();
    app["risk"]["zoo/feed"] = json!("low");
    warned(app, &["apps.case.risk['zoo/feed'] is of no server of this app; servers: desk, pager"]);
    let mut app = whole();
    app["risk"]["*/feed*"] = json!("low");
    assert!(check(app).unwrap().1.is_empty());
    let bogus = with("/production_risk", json!({"x": "extreme"}));
    assert!(serde_json::from_value::<RawApp>(bogus).unwrap_err().to_string().contains("extreme"));
}

#[test]
fn s2_60_production_may_not_be_set_lower() {
    for (pattern, there, fine) in [
        ("desk/restart", "low", false),
        ("desk/restart", "medium", true),
        ("desk/restart", "high", true),
        ("call_people", "medium", false),
        ("desk/look", "low", true),
        ("desk/*", "low", true),
        ("pager/call_people", "medium", false),
        ("pager/unlisted", "low", true),
    ] {
        let mut app = whole();
        app["production_risk"] = json!({ pattern: there });
        if fine {
            assert!(check(app).is_ok(), "{pattern} {there}");
        } else {
            says(app, &[&format!("apps.case.production_risk['{pattern}'] is lower")]);
        }
    }
}

#[test]
fn s2_61_gates_are_whole_thousandths_of_named_environments() {
    for least in [json!(-0.1), json!(1.001), json!(60), json!(0.1234)] {
        says(
            with("/gates/min_confidence", least.clone()),
            &[&format!("apps.case.gates.min_confidence={least} is not")],
        );
    }
    for (least, thousandths) in
        [(json!(0), 0), (json!(1), 1000), (json!(0.6), 600), (json!(0.289), 289), (json!(0.001), 1)]
    {
        assert_eq!(check(with("/gates/min_confidence", least)).unwrap().0.gates.min_confidence, thousandths);
    }
    says(with("/gates/environments/-", json!("")), &["apps.case.gates.environments[1]='' is empty"]);
    says(with("/gates/environments/-", json!("Production")), &["apps.case.gates.environments[1]='Production'"]);
    says(with("/gates/environment_field", json!("")), &["apps.case.gates.environment_field='' is empty"]);
    warned(with("/gates/risks", json!(["medium"])), &["apps.case.gates.risks lacks 'high'"]);
}

#[test]
fn s2_56_limits_let_something_through() {
    says(with("/max_sessions", json!(0)), &["apps.case.max_sessions=0"]);
    says(with("/max_open_s", json!(0)), &["apps.case.max_open_s=0"]);
    assert!(serde_json::from_value::<RawApp>(with("/max_sessions", json!(-1))).is_err());
}

#[test]
fn s2_10_everything_that_is_wrong_is_told_at_once() {
    let mut app = whole();
    app["session_id_prefix"] = json!("a b");
    app["default_terminal_status"] = json!("ghost");
    app["terminal_tools"][0]["status"] = json!("phantom");
    app["terminal_tools"][1]["extract_fields"] = json!({ "meta": ["foo.x"] });
    app["servers"] = json!(["ghost", "desk", "desk"]);
    app["signals"] = json!([]);
    let problems = problems(app);
    assert_eq!(problems.len(), 8, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.starts_with("apps.case.")));
}

#[test]
fn s2_13_every_key_of_the_schema_is_explained() {
    fn unexplained(schema: &Value, at: &str, found: &mut Vec<String>) {
        if let Some(members) = schema.get("properties").and_then(Value::as_object) {
            for (name, member) in members {
                if member.get("description").is_none() {
                    found.push(format!("{at}.{name}"));
                }
            }
            if schema.get("additionalProperties") != Some(&json!(false)) {
                found.push(format!("{at} takes unknown keys"));
            }
        }
    }
    let schema = schemars::schema_for!(RawApp).to_value();
    let mut found = Vec::new();
    unexplained(&schema, "app", &mut found);
    for (name, part) in schema["$defs"].as_object().unwrap() {
        unexplained(part, name, &mut found);
    }
    assert_eq!(found, [""; 0]);
    assert_eq!(
        schema["$defs"]["RawRule"]["properties"]["extract_fields"]["additionalProperties"]["items"]["type"],
        "string"
    );
}

proptest! {
    #[test]
    fn s2_01_what_a_prefix_may_be_is_what_names_can_be_made_of(prefix in "\\PC{0,18}") {
        let day = jiff::civil::date(2026, 1, 2);
        let accepted = check(json!({ "session_id_prefix": prefix })).is_ok();
        let read = super::id::parse(&prefix, &super::id::mint(&prefix, day, 7));
        prop_assert_eq!(accepted.then_some((day, 7)), read);
    }

    #[test]
    fn s2_03_apps_that_are_accepted_together_never_make_the_same_name(
        prefixes in proptest::collection::vec("[Aa1-]{1,4}", 2..5), number in 0u64..2000,
    ) {
        let raw: BTreeMap<_, _> = prefixes.iter().enumerate()
            .map(|(i, prefix)| (format!("app{i}"), raw(json!({ "session_id_prefix": prefix })))).collect();
        if let Ok((all, _)) = apps(raw, &known(), &[]) {
            let day = jiff::civil::date(2026, 1, 2);
            let ids: BTreeSet<_> = all.values().map(|app| super::id::mint(&app.session_id_prefix, day, number).to_lowercase()).collect();
            prop_assert_eq!(ids.len(), prefixes.len());
        }
    }
}
