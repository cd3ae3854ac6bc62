//! Tests of marks: what the names and types of arguments say of them.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn tool(name: &str, properties: Value) -> Marks {
    marks(name, &json!({"type": "object", "properties": properties}), None, None)
}

/// The values of a call, as text.
fn found(marks: &Marks, arguments: Value) -> Vec<(String, Vec<String>)> {
    let arguments = Json::from(&arguments);
    let text = |value: &&Json| match value {
        Json::String(text) | Json::Number(text) => text.clone(),
        Json::Object(_) => "{}".into(),
        other => format!("{other:?}"),
    };
    marks.values(&arguments).into_iter().map(|(name, values)| (name, values.iter().map(text).collect())).collect()
}

fn field(name: &str, values: &[&str]) -> (String, Vec<String>) {
    (name.into(), values.iter().map(|&value| value.into()).collect())
}

fn text() -> Value {
    json!({"type": "string"})
}

#[test]
fn names_are_cut_into_words_in_every_spelling() {
    for (name, expected) in [
        ("start_time", "start time"),
        ("fileURLPath", "file url path"),
        ("userId", "user id"),
        ("x-api.key", "x api key"),
        ("IBAN", "iban"),
        ("v2Host", "v2 host"),
        ("__a__", "a"),
        ("_", ""),
    ] {
        assert_eq!(words(name).join(" "), expected, "{name}");
    }
}

#[test]
fn a_tools_name_suggests_its_effect_and_doubt_falls_on_the_worse_side() {
    for (name, effect) in [
        ("get_balance", Effect::Read),
        ("search_emails", Effect::Read),
        ("get_or_create_user", Effect::Write),
        ("check_out_and_pay", Effect::Irreversible),
        ("create_file", Effect::Write),
        ("frobnicate", Effect::Write),
        ("", Effect::Write),
        ("bulkDelete", Effect::Irreversible),
        ("post_webpage", Effect::Irreversible),
        // No plurals here: `orders` are looked at.
        ("list_orders", Effect::Read),
    ] {
        assert_eq!(suggested(name), effect, "{name}");
    }
}

#[test]
fn names_tell_what_a_field_is() {
    for (names, class) in [
        ("url webhook_uri file_path download-dirs targetHost websites", Class::Place),
        ("email userEmails iban phone user_name_handle email_address", Class::Address),
        ("n max_recipients number_of_guests amount page_size total_users count", Class::Count),
        ("password roles role_id client_secret", Class::Grant),
        ("recipient to cc user_id channel_name account_number companies people target", Class::Party),
        ("body subject attachments user_query", Class::Content),
        ("date end_time due_date", Class::Time),
    ] {
        for name in names.split(' ') {
            assert_eq!(class_of_name(name), Some(class), "{name}");
        }
    }
    for name in ["email_id", "file_id", "host_name", "translate_to", "city", "", "_"] {
        assert_eq!(class_of_name(name), None, "{name}");
    }
}

#[test]
fn tools_of_a_bank_are_marked_where_money_goes_and_files_are_read() {
    let amount = json!({"type": "number", "description": "How much, in the account's currency"});
    let optional = json!({"anyOf": [{"type": "string"}, {"type": "null"}], "default": null});
    let transfer = json!({"recipient": text(), "amount": amount, "subject": text(), "date": text()});
    let change = json!({"id": {"type": "integer"}, "recipient": optional, "amount": amount, "date": optional,
        "recurring": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}});
    let person = json!({"first_name": optional, "last_name": optional, "street": optional, "city": optional});
    for (name, properties, expected) in [
        ("send_money", transfer.clone(), vec!["/recipient"]),
        ("schedule_transaction", transfer, vec!["/recipient"]),
        ("update_scheduled_transaction", change, vec!["/recipient"]),
        ("get_balance", json!({}), vec![]),
        ("get_most_recent_transactions", json!({"n": {"type": "integer"}}), vec![]),
        ("read_file", json!({"file_path": text()}), vec!["/file_path"]),
        ("update_password", json!({"password": text()}), vec!["/password"]),
        ("update_user_info", person, vec![]),
    ] {
        assert_eq!(tool(name, properties).names(), expected, "{name}");
    }
}

#[test]
fn tools_of_a_chat_are_marked_where_people_and_channels_are_changed_and_pages_reached() {
    for (name, properties, expected) in [
        ("get_channels", json!({}), vec![]),
        ("add_user_to_channel", json!({"user": text(), "channel": text()}), vec!["/channel", "/user"]),
        ("read_channel_messages", json!({"channel": text()}), vec![]),
        ("read_inbox", json!({"user": text()}), vec![]),
        ("send_direct_message", json!({"recipient": text(), "body": text()}), vec!["/recipient"]),
        ("send_channel_message", json!({"channel": text(), "body": text()}), vec!["/channel"]),
        ("invite_user_to_slack", json!({"user": text(), "user_email": text()}), vec!["/user", "/user_email"]),
        ("remove_user_from_slack", json!({"user": text()}), vec!["/user"]),
        ("get_webpage", json!({"url": text()}), vec!["/url"]),
        ("post_webpage", json!({"url": text(), "content": text()}), vec!["/url"]),
    ] {
        assert_eq!(tool(name, properties).names(), expected, "{name}");
    }
}

#[test]
fn what_an_operator_says_of_the_effect_wins() {
    let schema = json!({"properties": {"file": text(), "user": text(), "url": text()}});
    let names = |effect| marks("do_it", &schema, None, effect).names();
    assert_eq!(names(Some(Effect::Read)), ["/url"]);
    assert_eq!(names(Some(Effect::Write)), ["/url", "/user"]);
    assert_eq!(names(Some(Effect::Irreversible)), ["/file", "/url", "/user"]);
    assert_eq!(names(Some(Effect::Production)), ["/file", "/url", "/user"]);
    assert_eq!(names(None), ["/url", "/user"]);
}

#[test]
fn listed_values_truths_and_fractions_are_not_marked() {
    let schema = json!({
        "$defs": {"Role": {"enum": ["r", "rw"]}},
        "properties": {
            "role": {"$ref": "#/$defs/Role"},
            "channel": {"anyOf": [{"const": "a"}, {"type": "boolean"}, {"type": "null"}]},
            "account": {"type": "number"},
            "group": {"type": "array", "items": {"enum": ["x"]}},
            "member": {"type": "integer"},
            "owner": {"anyOf": [{"enum": ["me"]}, {"type": "string"}]},
            "user": {"$ref": "#/$defs/None"},
        }
    });
    assert_eq!(marks("set_it", &schema, None, None).names(), ["/member", "/owner", "/user"]);
}

#[test]
fn formats_count_behind_lists_and_alternatives() {
    let formatted = |format: &str| json!({"type": "string", "format": format});
    let marks = tool(
        "set_it",
        json!({
            "a": formatted("uri"),
            "b": {"type": "array", "items": formatted("email")},
            "c": {"anyOf": [formatted("hostname"), {"type": "null"}]},
            "d": {"format": "idn-email", "anyOf": [{"type": "string"}, {"type": "null"}]},
            "e": formatted("byte"),
            "user": formatted("date"),
            "group": {"anyOf": [formatted("date"), {"type": "string"}]},
        }),
    );
    assert_eq!(marks.names(), ["/a", "/b", "/c", "/d", "/group"]);
}

#[test]
fn what_is_said_of_a_field_counts_when_its_name_says_nothing() {
    let said = |text: &str| json!({"type": "string", "description": text});
    let properties = json!({
        "dst": said("The IBANs to credit. Never empty."),
        "whom": said("E-mail addresses of those who are told"),
        "x": said("A thing. The recipient is elsewhere"),
        "note": said("Sent to the recipient"),
        "y": said("Whether the libanese one"),
        "z": text(),
        "w": text(),
    });
    let schema = json!({"properties": properties});
    let description = "Does it.\n\nArgs:\n  z: phone number to call\n  - `w` (str): account number";
    assert_eq!(marks("do_it", &schema, None, None).names(), ["/dst", "/whom"]);
    assert_eq!(marks("do_it", &schema, Some(description), None).names(), ["/dst", "/w", "/whom", "/z"]);
    assert_eq!(marks("do_it", &schema, Some("zz: the recipient\nz"), None).names(), ["/dst", "/whom"]);
}

#[test]
fn nested_fields_are_found_through_lists_references_and_alternatives() {
    let schema = json!({
        "$defs": {"File": {"type": "object", "properties": {"url": text(), "size": {"type": "integer"}}}},
        "properties": {
            "files": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/File"}}, {"type": "null"}]},
            "place": {"type": "object", "properties": {"webhook": text(), "city": text()}},
            "body": {"type": "object", "properties": {"url": text()}},
        }
    });
    let marks = marks("create_it", &schema, None, None);
    assert_eq!(marks.names(), ["/files/*/url", "/place/webhook"]);
    let arguments = json!({
        "files": [{"url": "a", "size": 1}, {"url": "b"}, null, [{"url": "c"}]],
        "place": {"webhook": "d", "city": "e"},
        "body": {"url": "f"},
    });
    assert_eq!(found(&marks, arguments), [field("files/url", &["a", "b", "c"]), field("place/webhook", &["d"])]);
}

#[test]
fn members_that_no_schema_declares_are_judged_by_name() {
    let marks = tool("create_it", json!({"options": {"type": "object"}, "city": text()}));
    assert!(marks.names().is_empty());
    let arguments = json!({
        "to": "a", "thing": "b", "body": {"to": "c"},
        "options": {"x": [{"callbackUrl": "d"}], "bcc": ["e"]}, "city": {"email": "f"},
    });
    let expected = [
        field("city/email", &["f"]),
        field("options/bcc", &["e"]),
        field("options/x/callbackUrl", &["d"]),
        field("to", &["a"]),
    ];
    assert_eq!(found(&marks, arguments), expected);
    assert_eq!(found(&tool("delete_it", json!({})), json!({"thing": "b"})), [field("thing", &["b"])]);
}

#[test]
fn what_carries_no_authority_is_left_out() {
    let marks = tool("send_it", json!({"to": {"type": "array"}}));
    for nothing in [json!(null), json!([]), json!({}), json!(" \t"), json!(true), json!([null, "", [], false])] {
        assert_eq!(found(&marks, json!({"to": nothing})), [], "{nothing}");
    }
    assert_eq!(found(&marks, json!({"to": [null, "a", ["b", 7], ""]})), [field("to", &["a", "b", "7"])]);
}

#[test]
fn an_object_is_entered_only_as_far_as_its_members_are_declared() {
    let person = json!({"type": "object", "properties": {"email": text(), "name": text(), "vip": {"type": "boolean"}}});
    let marks = tool(
        "send_it",
        json!({"to": text(), "recipients": {"type": "array", "items": person}, "cc": {"type": "object"}}),
    );
    let arguments = |to: Value, recipients: Value, cc: Value| json!({"to": to, "recipients": recipients, "cc": cc});
    assert_eq!(
        found(
            &marks,
            arguments(json!({"a": "b"}), json!([{"email": "x", "name": "y", "vip": true}]), json!({"eve": true}))
        ),
        [field("cc", &["{}"]), field("recipients", &["x", "y"]), field("to", &["{}"])]
    );
    assert_eq!(found(&marks, json!({"recipients": [{"email": "x", "eve": true}]})), [field("recipients", &["{}"])]);
}

#[test]
fn an_operator_names_exactly_the_arguments_that_are_marked() {
    let marks = Marks::of_names(&["city".into(), "a/b".into()]);
    assert_eq!(marks.names(), ["/a~1b", "/city"]);
    let arguments = json!({"city": ["x", 1], "to": "y", "options": {"url": "z"}, "a/b": {"c": "d"}});
    assert_eq!(found(&marks, arguments), [field("a~1b", &["{}"]), field("city", &["x", "1"])]);
    assert_eq!(found(&Marks::of_names(&[]), json!({"to": "y"})), []);
}

#[test]
fn arguments_that_are_no_object_are_one_value() {
    let marks = tool("send_it", json!({}));
    assert_eq!(found(&marks, json!("eve")), [field("", &["eve"])]);
    assert_eq!(found(&marks, json!(null)), []);
}

#[test]
fn a_member_that_stands_twice_gives_both_values() {
    let marks = tool("send_it", json!({"to": text()}));
    let to = |text: &str| ("to".to_owned(), Json::String(text.into()));
    let arguments = Json::Object(vec![to("a"), to("b")]);
    assert_eq!(marks.values(&arguments).len(), 1);
    assert_eq!(marks.values(&arguments)[0].1.len(), 2);
}

#[test]
fn schemas_that_contain_themselves_end_and_are_marked_further_by_name() {
    let many: serde_json::Map<_, _> = (0..10).map(|n| (format!("x{n}"), json!({"$ref": "#/$defs/T"}))).collect();
    let mut node = json!({"type": "object", "properties": many});
    node["properties"]["url"] = text();
    let schema = json!({"$defs": {"T": node, "L": {"$ref": "#/$defs/L"}},
        "properties": {"tree": {"$ref": "#/$defs/T"}, "loop": {"$ref": "#/$defs/L"}, "self": {"$ref": "#"}, "to": text()}});
    let marks = marks("create_it", &schema, None, None);
    assert!(marks.names().contains(&"/tree/url".into()) && marks.names().contains(&"/to".into()));
    assert!(marks.names().len() < 20_000);
    let deep = (0..40).fold(json!({"url": "a"}), |inner, _| json!({"x9": inner}));
    assert_eq!(found(&marks, json!({"tree": deep})).len(), 1);
}

#[test]
fn a_property_of_several_alternatives_is_marked_when_one_of_them_says_so() {
    let either = json!({"oneOf": [
        {"type": "object", "properties": {"v": {"type": "string", "format": "uri"}}},
        {"type": "object", "properties": {"v": {"type": "integer"}}},
    ]});
    assert_eq!(tool("create_it", json!({"thing": either})).names(), ["/thing/v"]);
}

fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(7)),
        Just(json!({"$ref": "#/properties/to"})),
        Just(json!({"$ref": "#"})),
        "string|integer|array|object|null|odd".prop_map(|ty| json!({"type": ty})),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(("to|url|body|x|user_id", inner.clone()), 0..4).prop_map(
                |members| json!({"type": "object", "properties": members.into_iter().collect::<serde_json::Map<_, _>>()})
            ),
            (prop_oneof![Just("items"), Just("properties"), Just("$ref"), Just("format")], inner.clone())
                .prop_map(|(key, inner)| json!({"type": "array", key: inner})),
            (prop_oneof![Just("anyOf"), Just("oneOf"), Just("allOf")], prop::collection::vec(inner, 0..4))
                .prop_map(|(key, inner)| json!({key: inner})),
        ]
    })
}

proptest! {
    #[test]
    fn any_schema_and_any_name_give_marks(name in ".{0,12}", schema in schema(), arguments in schema()) {
        let marks = marks(&name, &schema, Some(&name), None);
        let names = marks.names();
        prop_assert!(names.is_sorted());
        let arguments = Json::from(&arguments);
        prop_assert!(marks.values(&arguments).iter().all(|(_, values)| !values.is_empty()));
    }

    #[test]
    fn a_place_is_marked_whatever_the_tool(name in "[a-zA-Z_]{0,20}", field in "(x_|target)?(url|webhookUrl|path)") {
        let field = if field.starts_with("target") { field.replace("target", "target_") } else { field };
        prop_assert_eq!(tool(&name, json!({&field: text()})).names(), vec![format!("/{field}")]);
    }
}
