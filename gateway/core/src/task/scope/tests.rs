//! Tests of scopes: what is found in a prompt or a directory, and what only looks as if it were.

use super::*;
use crate::catalogue::authority;
use proptest::prelude::*;
use serde_json::json;

fn scope(prompt: &str, directory: &[&str]) -> Scope {
    let directory = directory.iter().map(|&entry| entry.into()).collect();
    Scope::new(Source { tools: vec!["mail/send".into()], prompt: prompt.into(), directory }).unwrap()
}

fn to() -> Marks {
    Marks::of_names(&["to".into()])
}

fn facts(scope: &Scope, marks: &Marks, arguments: serde_json::Value) -> ScopeFacts {
    scope.facts("mail", "send", marks, &Json::from(&arguments))
}

/// Whether the prompt vouches for one value.
fn vouched(prompt: &str, value: serde_json::Value) -> bool {
    let facts = facts(&scope(prompt, &[]), &to(), json!({"to": value}));
    assert_ne!(facts.input_from_prompt.contains(&"to".into()), facts.unvouched.contains(&"to".into()));
    facts.unvouched.is_empty()
}

#[test]
fn the_prompt_vouches_for_whole_words_as_people_write_them() {
    for (prompt, value) in [
        ("Send it to 'janeLong@google.com'.", json!("JaneLong@Google.com")),
        ("Post in Bob's inbox", json!("Bob")),
        ("add Bob to #general, please", json!("general")),
        ("add Bob to general", json!("#general")),
        ("ask @bob", json!("bob")),
        ("read www.example.com.", json!("https://www.example.com/")),
        ("open 'bill.txt'", json!("bill.txt")),
        ("pay GB29NWBK60161331926819 now", json!("gb29nwbk60161331926819")),
        ("book Chez L\u{2019}Ami Jean?", json!("Chez L'Ami Jean")),
        ("stay at Mom's Home!", json!("Mom's Home")),
        ("mail a@x.com and b@y.com", json!("a@x.com, b@y.com")),
        ("write to Smith, John", json!("Smith, John")),
        ("from Acme Inc. today", json!("Acme Inc.")),
        ("delete file 13.", json!(13)),
        ("delete file 13.", json!(13.0)),
        ("pay 1.5 to her", json!(1.5)),
        ("see (http://a.b/c/)", json!("http://a.b/c")),
        ("in \u{201e}Zum Ba\u{308}ren\u{201c} essen", json!("zum ba\u{308}ren")),
    ] {
        assert!(vouched(prompt, value.clone()), "{prompt}: {value}");
    }
}

#[test]
fn the_prompt_does_not_vouch_for_near_misses() {
    for (prompt, value) in [
        ("mail john.doe@gmail.com", json!("doe@gmail.com")),
        ("is anybody here?", json!("@here")),
        ("all of them", json!("all")),
        ("ask bob", json!("@bob")),
        ("read https://example.com", json!("http://example.com")),
        ("read www.example.com", json!("www.example.com/bob")),
        ("read www.example.com", json!("www.example.com?u=bob")),
        ("read www.example.com", json!("https://www.example.com@evil.com")),
        ("open 'bill.txt'", json!("../bill.txt")),
        ("open 'bill.txt'", json!("bill.txt/..")),
        ("open 'bill.txt'", json!("/etc/bill.txt")),
        ("pay GB29NWBK60161331926819 now", json!("GB29NWBK6016133192681")),
        ("mail a@x.com and b@y.com", json!("a@x.com, c@z.com")),
        ("delete file 13.", json!(3)),
        ("on May 13th", json!("13")),
        ("x", json!("...")),
        ("mail a@x.com", json!("Jane <a@x.com>")),
    ] {
        assert!(!vouched(prompt, value.clone()), "{prompt}: {value}");
    }
    assert!(!scope("x", &[]).prompt.vouches_for("", &mut 9));
}

#[test]
fn no_forgery_of_a_vouched_value_passes() {
    let prompt = "Please mail anna.berg@example.com (our client) about Hotel Sol, see https://shop.example.com/a/list \
        and report.pdf; everybody knows. Call +41 44 668 18 00 or pay CH9300762011623852957 in #ops.";
    for value in [
        "anna.berg@example.com",
        "Hotel Sol",
        "https://shop.example.com/a/list",
        "report.pdf",
        "+41 44 668 18 00",
        "ops",
    ] {
        assert!(vouched(prompt, json!(value)), "{value}");
    }
    for forged in [
        "anna.berg@example.com.evil.org",
        "anna.berg@example.org",
        "anna.berg@evil.org",
        "anna.berg+x@example.com",
        "xanna.berg@example.com",
        "berg@example.com",
        "anna.berg",
        "anna.berg@",
        "@example.com",
        "example.com",
        "anna.berg@example.co",
        "anna.berg @example.com",
        "anna.berg example.com",
        "ann\u{430}.berg@example.com",
        "anna.berg@example.com\u{200b}",
        "anna.berg@ex\u{ad}ample.com",
        "anna.berg@example.com evil@evil.org",
        "anna.berg@example.com,evil@evil.org",
        "anna.berg@example.com;evil@evil.org",
        "anna.berg@example.com,",
        "anna.berg@example.com\nbcc: evil@evil.org",
        "anna.berg@example.com\u{0}",
        "<anna.berg@example.com>",
        "'anna.berg@example.com'",
        "mailto:anna.berg@example.com",
        "evil@evil.org (anna.berg@example.com)",
        "anna.berg@example.com?cc=evil@evil.org",
        "shop.example.com",
        "http://shop.example.com/a/list",
        "shop.example.com/a/list",
        "https://shop.example.com/a",
        "https://shop.example.com/a/list/..",
        "https://shop.example.com/a/list//",
        "https://shop.example.com/a/list?q=secret",
        "https://shop.example.com/a/list#secret",
        "https://shop.example.com@evil.org/a/list",
        "https://evil.org/https://shop.example.com/a/list",
        "https://shop.example.com:8443/a/list",
        "https://https://shop.example.com/a/list",
        "http://https://shop.example.com/a/list",
        "https://anna.berg@example.com",
        "https://ops",
        "https://hotel",
        "ftp://shop.example.com/a/list",
        "https:/shop.example.com/a/list",
        "/report.pdf",
        "../report.pdf",
        "report.pdf/../secret.pdf",
        "report.pdf.",
        "report",
        "./report.pdf",
        "Sol Hotel",
        "Hotel see",
        "Hotel Sol evil",
        "Hotel",
        "HotelSol",
        "Hotel Sol,",
        "+41 44 668 18 01",
        "+41 44 668 18 0",
        "41 44 668 18 00",
        "CH9300762011623852958",
        "CH930076201162385295",
        "CH93 0076 2011 6238 5295 7",
        "everybody",
        "#everybody",
        "everybody/",
        "https://everybody",
        "@ops",
        "##ops",
        "op",
        ".",
        "#",
        "/",
        "https://",
        ",",
        ";,",
        "\u{200b}",
    ] {
        // A single word of a name is in the prompt, and that is enough for it.
        assert_eq!(vouched(prompt, json!(forged)), forged == "Hotel", "{forged}");
    }
    // The Kelvin sign is not the letter that its lower case is.
    assert!(vouched("mail kim@x.org", json!("KIM@x.org")) && !vouched("mail kim@x.org", json!("\u{212a}im@x.org")));
}

#[test]
fn the_directory_vouches_for_whole_entries_and_never_for_parts() {
    let scope = scope("nothing", &["Anna.Berg@example.com", "Hotel  Sol", "", "13"]);
    let facts = |value: serde_json::Value| facts(&scope, &to(), json!({"to": value}));
    for value in [json!("anna.berg@EXAMPLE.com"), json!(" hotel sol"), json!(13), json!(["13", "Hotel Sol"])] {
        assert_eq!(facts(value.clone()).input_from_directory, ["to"], "{value}");
        assert!(facts(value).unvouched.is_empty());
    }
    for value in ["example.com", "Hotel", "Sol", "Hotel Sol 13", "13, Hotel Sol", "anna.berg@example.com."] {
        assert_eq!(facts(json!(value)).unvouched, ["to"], "{value}");
        assert!(facts(json!(value)).input_from_directory.is_empty());
    }
}

#[test]
fn a_field_of_both_sources_stands_in_neither_list_and_is_vouched_for() {
    let scope = scope("mail a@x.org", &["b@y.org"]);
    let both = facts(&scope, &to(), json!({"to": ["a@x.org", "b@y.org"]}));
    assert_eq!(both, ScopeFacts { in_scope: true, ..ScopeFacts::default() });
    let worse = facts(&scope, &to(), json!({"to": ["a@x.org", "b@y.org", "c@z.org"]}));
    assert_eq!(worse.unvouched, ["to"]);
    let twice = facts(&super::tests::scope("b@y.org", &["b@y.org"]), &to(), json!({"to": "b@y.org"}));
    assert_eq!((twice.input_from_prompt, twice.input_from_directory), (vec!["to".to_owned()], vec!["to".to_owned()]));
}

#[test]
fn any_plain_argument_may_stand_in_the_prompt_and_only_marked_ones_are_unvouched() {
    let scope = scope("say Hello World to a@x.org, 3 times", &["Lab"]);
    let arguments = json!({
        "to": "a@x.org", "body": "hello world", "count": 3, "tags": ["say", 3], "site": "lab", "title": "other",
        "options": {"a": "say"}, "mixed": ["say", true], "deep": [["say"]], "empty": [], "blank": " ", "flag": true,
        "none": null, "a/b": "say",
    });
    let facts = facts(&scope, &to(), arguments);
    assert_eq!(facts.input_from_prompt, ["a~1b", "body", "count", "tags", "to"]);
    assert_eq!(facts.input_from_directory, ["site"]);
    assert!(facts.unvouched.is_empty());
}

#[test]
fn nested_marked_fields_stand_under_their_path() {
    let schema = json!({"properties": {"files": {"items": {"properties": {"url": {"type": "string"}}}}}});
    let marks = authority::marks("create_it", &schema, None, None);
    let scope = scope("get www.a.org and www.b.org", &[]);
    let call = |urls: &[&str]| json!({"files": urls.iter().map(|url| json!({"url": url})).collect::<Vec<_>>()});
    assert_eq!(facts(&scope, &marks, call(&["www.a.org", "www.b.org"])).input_from_prompt, ["files/url"]);
    assert_eq!(facts(&scope, &marks, call(&["www.a.org", "www.c.org"])).unvouched, ["files/url"]);
}

#[test]
fn tools_are_in_scope_by_their_whole_name_by_server_or_by_bare_name() {
    let tools = ["mail/send", "files/*", "search", "a/b/c"].map(String::from).to_vec();
    let scope = Scope::new(Source { tools, ..Source::default() }).unwrap();
    let includes = |server, tool| scope.facts(server, tool, &Marks::default(), &Json::Null).in_scope;
    for (server, tool) in [("mail", "send"), ("files", "delete"), ("files", "x/y"), ("web", "search"), ("a", "b/c")] {
        assert!(includes(server, tool), "{server}/{tool}");
    }
    for (server, tool) in [
        ("mail", "delete"),
        ("mail", "Send"),
        ("web", "send"),
        ("web", "mail/send"),
        ("file", "s/x"),
        ("a/b", "c"),
        ("", ""),
        ("web", "find"),
    ] {
        assert!(!includes(server, tool), "{server}/{tool}");
    }
    assert!(!Scope::new(Source::default()).unwrap().facts("a", "b", &Marks::default(), &Json::Null).in_scope);
}

#[test]
fn what_is_odd_is_not_vouched_for() {
    let scope = scope("a@x.org x", &[]);
    let unvouched = |arguments: serde_json::Value| facts(&scope, &to(), arguments).unvouched;
    assert_eq!(unvouched(json!({"to": {"a@x.org": "a@x.org"}})), ["to"]);
    assert_eq!(unvouched(json!({"to": ["a@x.org", {"x": 1}]})), ["to"]);
    assert_eq!(unvouched(json!(["a@x.org"])), [""]);
    assert_eq!(unvouched(json!("a@x.org")), [""]);
    assert!(unvouched(json!(null)).is_empty() && unvouched(json!({})).is_empty());
    assert!(unvouched(json!({"to": null})).is_empty());
}

#[test]
fn a_value_that_is_too_long_is_not_looked_up() {
    let long = "a".repeat(VALUE_BYTES_MAX);
    let scope = scope(&format!("{long} {long}b"), &[]);
    assert!(facts(&scope, &to(), json!({"to": long})).unvouched.is_empty());
    assert_eq!(facts(&scope, &to(), json!({"to": format!("{long}b")})).unvouched, ["to"]);
}

#[test]
fn numbers_keep_their_exact_value() {
    let number = |text: &str| Json::Object(vec![("to".into(), Json::Number(text.into()))]);
    let scope = scope("13 1.5 9007199254740993 1e3 0.10", &[]);
    for (text, vouched) in [
        ("13", true),
        ("13.0", true),
        ("13.000", true),
        ("1.50", true),
        ("0.1", false),
        ("0.10", true),
        ("9007199254740993", true),
        ("9007199254740992", false),
        ("1e3", true),
        ("1000", false),
        ("13e0", false),
        ("130", false),
        ("-13", false),
    ] {
        assert_eq!(scope.facts("mail", "send", &to(), &number(text)).unvouched.is_empty(), vouched, "{text}");
    }
}

#[test]
fn limits_are_refused_with_the_place_and_the_size_and_without_the_text() {
    let texts = |count: usize| vec!["a".to_owned(); count];
    let message = |source: Source| Scope::new(source).unwrap_err().to_string();
    let ok = Source { tools: texts(256), prompt: "a".repeat(65_536), directory: texts(10_000) };
    assert!(Scope::new(ok.clone()).is_ok());
    assert_eq!(message(Source { tools: texts(257), ..ok.clone() }), "`tools` has 257 items, and at most 256 are taken");
    let directory = Source { directory: texts(10_001), ..ok.clone() };
    assert_eq!(message(directory), "`directory` has 10001 items, and at most 10000 are taken");
    let prompt = Source { prompt: "\u{e4}".repeat(32_769), ..ok.clone() };
    assert_eq!(message(prompt), "`prompt` has 65538 bytes, and at most 65536 are taken");
    let mut long = ok.clone();
    long.directory[7] = "b".repeat(513);
    assert_eq!(message(long), "`directory[7]` has 513 bytes, and at most 512 are taken");
    let mut long = ok;
    long.tools[0] = "b".repeat(513);
    assert_eq!(message(long), "`tools[0]` has 513 bytes, and at most 512 are taken");
}

#[test]
fn what_names_no_tool_is_refused_with_its_place() {
    for tool in ["", " ", "*", "files/read_*", "*/read", "/*"] {
        let refused = Scope::new(Source { tools: vec!["files/*".into(), tool.into()], ..Source::default() });
        assert_eq!(refused.unwrap_err(), Error::NoTool { index: 1 }, "{tool}");
    }
    let tools = ["files/*", "read", "files/read", "files/a/b-c.d"].map(str::to_owned).to_vec();
    assert!(Scope::new(Source { tools, ..Source::default() }).is_ok());
}

#[test]
fn a_source_is_kept_and_gives_the_same_scope_again() {
    let scope = scope("mail a@x.org", &["b@y.org"]);
    let kept = serde_json::to_string(scope.source()).unwrap();
    let again = Scope::new(serde_json::from_str(&kept).unwrap()).unwrap();
    assert_eq!(again.source(), scope.source());
    let arguments = json!({"to": "a@x.org", "cc": "b@y.org"});
    assert_eq!(facts(&again, &to(), arguments.clone()), facts(&scope, &to(), arguments));
    assert_eq!(serde_json::from_str::<Source>("{}").unwrap(), Source::default());
    assert!(serde_json::from_str::<Source>(r#"{"promt": "x"}"#).is_err());
}

#[test]
fn a_prompt_of_one_word_makes_no_call_slow() {
    let scope = scope(&"a ".repeat(32_000), &[]);
    let value = format!("{}b", "a ".repeat(2_000));
    let odd = format!("{} a,b", "a ".repeat(2_000));
    assert_eq!(facts(&scope, &to(), json!({"to": vec![value; 50], "cc": vec![odd; 50]})).unvouched, ["to"]);
    let halves = super::tests::scope(&format!("{}{}", "a ".repeat(16_000), "b ".repeat(16_000)), &[]);
    assert_eq!(facts(&halves, &to(), json!({"to": vec!["b a"; 50_000]})).unvouched, ["to"]);
    // The rarest word first: a long quotation costs its length.
    let words: Vec<String> = (0..9_000).map(|n| format!("w{n}")).collect();
    let quoted = words[100..700].join(" ");
    assert!(facts(&super::tests::scope(&words.join(" "), &[]), &to(), json!({"to": quoted})).unvouched.is_empty());
    let mut steps = 3;
    assert!(!scope.prompt.vouches_for("a a a a", &mut steps) && steps == 0);
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        ".{0,8}".prop_map(Json::Number),
        "-?[0-9]{1,3}(\\.[0-9]{1,3})?".prop_map(Json::Number),
        ".{0,16}".prop_map(Json::String),
        "[a-c#@/ ,;.':]{0,9}".prop_map(Json::String),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::Array),
            prop::collection::vec(("to|url|x|.{0,4}", inner), 0..5).prop_map(Json::Object),
        ]
    })
}

proptest! {
    #[test]
    fn a_run_of_words_of_the_prompt_is_found(
        words in prop::collection::vec("[a-z0-9\u{e0}-\u{f6}][a-zA-Z0-9@._/:-]{0,8}[a-z0-9]", 1..30),
        start in any::<prop::sample::Index>(),
        length in 1usize..6,
    ) {
        let start = start.index(words.len());
        let end = (start + length).min(words.len());
        let run = words[start..end].join(" ");
        prop_assume!(!BROADCAST.contains(&run.as_str()));
        prop_assert!(vouched(&words.join(" "), json!(run)));
        prop_assert!(vouched(&words.join("\n"), json!(run.to_uppercase())));
        let spoken = format!("Send it to \"{run}\", please.");
        prop_assert!(vouched(&spoken, json!(run)));
    }

    #[test]
    fn one_changed_character_within_a_word_is_not_found(
        words in prop::collection::vec("[a-f]{3,9}", 1..12),
        word in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        by in "[g-z0-9.@/'\u{430}\u{200b}]",
    ) {
        let prompt = words.join(" ");
        let mut words = words;
        let word = word.index(words.len());
        let mut chars: Vec<char> = words[word].chars().collect();
        let middle = 1 + at.index(chars.len() - 2);
        chars[middle] = by.chars().next().unwrap();
        words[word] = chars.into_iter().collect();
        prop_assert!(!vouched(&prompt, json!(words[word])));
        prop_assert!(!vouched(&prompt, json!(words.join(" "))));
    }

    #[test]
    fn facts_of_any_arguments_are_sorted_and_never_contradict_themselves(
        arguments in any_json(),
        prompt in ".{0,40}",
        names in prop::collection::vec("to|x", 0..3),
        read in any::<bool>(),
    ) {
        let marks = if read { authority::marks("send", &json!({}), None, None) } else { Marks::of_names(&names) };
        let facts = scope(&prompt, &[&prompt]).facts("mail", "send", &marks, &arguments);
        for names in [&facts.input_from_prompt, &facts.input_from_directory, &facts.unvouched] {
            prop_assert!(names.is_sorted_by(|a, b| a < b));
        }
        for name in &facts.unvouched {
            prop_assert!(!facts.input_from_prompt.contains(name) && !facts.input_from_directory.contains(name));
        }
    }

    #[test]
    fn a_longer_prompt_or_directory_never_takes_a_voucher_away(value in "[a-c/@. ]{1,9}", prompt in "[a-c/@. ]{0,20}") {
        prop_assume!(!value.trim().is_empty());
        if vouched(&prompt, json!(value)) {
            let longer = format!("{prompt} and more");
            prop_assert!(vouched(&longer, json!(value)));
        }
        let listed = facts(&scope(&prompt, &[&value]), &to(), json!({"to": value}));
        prop_assert!(listed.unvouched.is_empty());
    }
}
