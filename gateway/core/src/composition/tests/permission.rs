//! Tests of the lattice: what maps grant, alone and together.

use super::super::effective::{Bounds, Effective, ToolList};
use super::super::permission::{Grant, PermissionMap, Target};
use super::super::resolve::ToolSelection;
use crate::glob::Glob;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use std::sync::Arc;

use Grant::{Allow, Ask, Deny};

fn map(value: Value) -> PermissionMap {
    PermissionMap::read(&value).unwrap()
}

fn effective(values: &[Value]) -> Effective {
    let maps = values.iter().map(|value| Arc::new(map(value.clone()))).collect();
    Effective::default().narrowed(Arc::new(Bounds { maps, lists: Vec::new() }))
}

fn tool<'a>(server: &'a str, tool: &'a str) -> Target<'a> {
    Target::Tool { server, tool: Some(tool), is_read: false, is_bash: false }
}

fn reading<'a>(server: &'a str, tool: &'a str) -> Target<'a> {
    Target::Tool { server, tool: Some(tool), is_read: true, is_bash: false }
}

fn running<'a>(server: &'a str, tool: &'a str) -> Target<'a> {
    Target::Tool { server, tool: Some(tool), is_read: false, is_bash: true }
}

#[test]
fn s4_18_grants_are_ordered_and_escalate_is_ask() {
    assert!(Deny < Ask && Ask < Allow);
    let read = |name: &str| serde_json::from_value::<Grant>(json!(name)).ok();
    for (name, grant) in [("deny", Deny), ("ask", Ask), ("escalate", Ask), ("allow", Allow)] {
        assert_eq!((Grant::named(name), read(name)), (Some(grant), Some(grant)));
    }
    assert_eq!((Grant::named("Allow"), read("Allow")), (None, None));
    assert_eq!(json!(Ask), json!("ask"));
}

#[test]
fn s4_18_the_most_specific_key_of_a_map_decides() {
    let map = map(json!({"*": "deny", "read": "ask", "git": "allow", "git/push": "deny"}));
    assert_eq!(map.grant(&tool("git", "push")), Some(Deny));
    assert_eq!(map.grant(&tool("git", "log")), Some(Allow));
    assert_eq!(map.grant(&reading("git", "log")), Some(Allow));
    assert_eq!(map.grant(&reading("files", "get")), Some(Ask));
    assert_eq!(map.grant(&tool("files", "put")), Some(Deny));
    assert_eq!(map.grant(&Target::Server { server: "git", is_read: false }), Some(Allow));
    assert_eq!(map.grant(&Target::Server { server: "files", is_read: true }), Some(Ask));
    assert_eq!(map.grant(&Target::Engine { id: "e" }), Some(Deny));
    assert_eq!(map.grant(&Target::Other), Some(Deny));
}

#[test]
fn s4_18_of_equally_specific_keys_the_lowest_decides() {
    let both = Target::Tool { server: "s", tool: Some("t"), is_read: true, is_bash: true };
    assert_eq!(map(json!({"read": "allow", "bash": "deny"})).grant(&both), Some(Deny));
    assert_eq!(map(json!({"s/*": "ask", "s/t": "allow"})).grant(&tool("s", "t")), Some(Ask));
    assert_eq!(map(json!({"s": {"t": "allow"}, "*/t": "deny"})).grant(&tool("s", "t")), Some(Deny));
}

#[test]
fn s4_18_keys_that_say_nothing_of_a_call_leave_it_to_others() {
    let map = map(json!({"bash": "deny", "git/push": "deny"}));
    assert_eq!(map.grant(&tool("git", "log")), None);
    assert_eq!(map.grant(&Target::Delegate { slug: "x" }), None);
    assert_eq!(PermissionMap::default().grant(&running("s", "t")), None);
    assert_eq!(Effective::default().grant(&running("s", "t")), Allow);
}

#[test]
fn s4_18_maps_one_level_down_name_tools_delegates_and_engines() {
    let map = map(json!({
        "files": {"*": "ask", "delete_*": "deny", "read_?": "allow"},
        "task": {"*": "deny", "review*": "allow"},
        "engine": {"big/*": "ask"},
        "bash": {"*": "deny", "shell/ls": "allow"},
        "*": {"*": "allow", "*/drop": "deny"},
    }));
    assert_eq!(map.grant(&tool("files", "move")), Some(Ask));
    assert_eq!(map.grant(&tool("files", "delete_all")), Some(Deny));
    assert_eq!(map.grant(&tool("files", "read_1")), Some(Allow));
    assert_eq!(map.grant(&Target::Delegate { slug: "reviewer" }), Some(Allow));
    assert_eq!(map.grant(&Target::Delegate { slug: "coder" }), Some(Deny));
    assert_eq!(map.grant(&Target::Engine { id: "big/model" }), Some(Ask));
    assert_eq!(map.grant(&Target::Engine { id: "small" }), Some(Allow));
    assert_eq!(map.grant(&running("shell", "ls")), Some(Allow));
    assert_eq!(map.grant(&running("shell", "rm")), Some(Deny));
    assert_eq!(map.grant(&tool("shell", "rm")), Some(Allow));
    assert_eq!(map.grant(&tool("db", "drop")), Some(Deny));
}

#[test]
fn s4_18_a_nested_map_for_a_delegate_says_nothing_of_others() {
    let map = map(json!({"task": {"x": "allow"}}));
    assert_eq!(map.grant(&Target::Delegate { slug: "x" }), Some(Allow));
    assert_eq!(map.grant(&Target::Delegate { slug: "y" }), None);
    assert_eq!(map.notes().len(), 1);
}

#[test]
fn s4_18_a_tool_that_no_catalogue_lists_gets_the_least_that_it_may_be() {
    let unlisted = Target::Tool { server: "git", tool: None, is_read: false, is_bash: false };
    assert_eq!(map(json!({"*": "allow", "git/push": "deny"})).grant(&unlisted), Some(Deny));
    assert_eq!(map(json!({"git": "ask", "git/push": "allow"})).grant(&unlisted), Some(Ask));
    assert_eq!(map(json!({"git": {"*": "allow", "push": "ask"}})).grant(&unlisted), Some(Ask));
    assert_eq!(map(json!({"bash": {"g*/rm": "deny"}})).grant(&unlisted), Some(Deny));
    assert_eq!(map(json!({"*": "allow", "files/rm": "deny"})).grant(&unlisted), Some(Allow));
}

#[test]
fn s4_18_names_of_tools_may_hold_a_slash() {
    let map = map(json!({"git/repo/push": "deny", "git/admin/*": "ask"}));
    assert_eq!(map.grant(&tool("git", "repo/push")), Some(Deny));
    assert_eq!(map.grant(&tool("git", "admin/a/b")), Some(Ask));
    assert_eq!(map.grant(&tool("git", "push")), None);
}

#[test]
fn s4_18_a_bad_map_names_every_key_and_value_at_fault() {
    let errors = PermissionMap::read(&json!({
        "": "deny", "bash": "maybe", "read": 7, "Git": "deny", "/x": "deny", "g*t": "ask", "git/push": {"a": "deny"},
        "files": {"a": {"b": "deny"}, "": "deny", "c": null}, "read/": "deny", "*": {"nope": "deny"},
        "a": ["deny"],
    }));
    let expected = [
        "`/`: an empty key",
        "`/bash`: \"maybe\" is none of deny, ask, allow",
        "`/read`: 7 is none of deny, ask, allow",
        "`/Git`: \"Git\" is no server, no SERVER/TOOL and no group of actions",
        "`/~1x`: \"/x\" is no SERVER/TOOL",
        "`/g*t`: \"g*t\" is no server, no SERVER/TOOL and no group of actions",
        "`/git~1push`: \"git/push\" names tools: it has a grant, not a map",
        "`/files/a`: nested deeper than one level",
        "`/files/`: an empty key",
        "`/files/c`: null is none of deny, ask, allow",
        "`/read~1`: \"read/\" is no SERVER/TOOL",
        "`/*/nope`: \"nope\" is no SERVER/TOOL",
        "`/a`: a list of 1 is none of deny, ask, allow",
    ];
    assert_eq!(errors.unwrap_err(), expected);
    for odd in [json!("deny"), json!(null), json!([])] {
        assert!(PermissionMap::read(&odd).unwrap_err()[0].contains("a permission map is an object, not"), "{odd}");
    }
}

#[test]
fn s4_18_maps_keys_patterns_and_messages_are_bounded() {
    let numbered = |count: usize| (0..count).map(|nth| (format!("s{nth}"), json!("deny"))).collect::<Map<_, _>>();
    assert!(PermissionMap::read(&Value::Object(numbered(1000))).is_ok());
    let error = PermissionMap::read(&json!({"files": numbered(1000)})).unwrap_err();
    assert_eq!(error, ["``: 1001 keys, and a permission map has at most 1000"]);
    assert!(PermissionMap::read(&json!({"s": {"t".repeat(256): "deny"}})).is_ok());
    assert!(PermissionMap::read(&json!({"s": {"t".repeat(257): "deny"}})).unwrap_err()[0].contains("257 bytes"));
    assert!(PermissionMap::read(&json!({"s": {format!("*{}", "t".repeat(63)): "deny"}})).is_ok());
    let long = format!("*{}", "t".repeat(64));
    assert!(PermissionMap::read(&json!({"s": {long: "deny"}})).unwrap_err()[0].contains("more than 63"));
    let error = PermissionMap::read(&json!({"bash": "é".repeat(100_000)})).unwrap_err();
    assert!(error[0].chars().count() < 130 && error[0].contains('…'), "{error:?}");
}

#[test]
fn s4_19_an_overlay_that_replaces_the_map_in_the_projection_does_not_lift_a_deny() {
    let bounds = effective(&[json!({"bash": "deny"})]);
    let overlay = Arc::new(map(json!({"read": "allow"})));
    let bounded = bounds.narrowed_by(overlay.clone());
    assert_eq!(overlay.grant(&running("shell", "rm")), None);
    assert_eq!(bounded.grant(&running("shell", "rm")), Deny);
    assert_eq!(bounded.grant(&reading("shell", "cat")), Allow);
    let wide = bounds.narrowed_by(Arc::new(map(json!({"*": "allow", "bash": "allow", "shell/*": "allow"}))));
    assert_eq!(wide.grant(&running("shell", "rm")), Deny);
}

#[test]
fn s4_18_keys_that_would_widen_are_found() {
    let bounds = effective(&[json!({"bash": "deny", "git": {"*": "allow", "push*": "ask"}, "task": {"*": "deny"}})]);
    let over =
        map(json!({"bash": "allow", "git/push": "allow", "git/pull": "allow", "task": {"x": "ask", "y": "deny"},
        "git/push_?": "allow", "read": "allow", "*": "allow"}));
    let found: Vec<_> = bounds.exceeded_by(&over).into_iter().map(|(rule, bound)| (rule.key(), bound)).collect();
    assert_eq!(found, [("bash", Deny), ("git/push", Ask), ("task: x", Deny), ("git/push_?", Ask)]);
    let all = effective(&[json!({"*": "deny"})]);
    assert_eq!(all.exceeded_by(&over).len(), over.rules().len() - 1, "every key but the one that denies");
}

#[test]
fn s4_20_what_is_said_once_is_held_once() {
    let bounds = Arc::new(Bounds { maps: vec![Arc::new(map(json!({"bash": "deny"})))], lists: vec![] });
    let once = Effective::default().narrowed(bounds.clone());
    let between = once.narrowed(Arc::new(Bounds::default()));
    assert_eq!(format!("{:?}", once.narrowed(bounds.clone())), format!("{once:?}"));
    assert_eq!(format!("{:?}", between.narrowed(bounds)), format!("{between:?}"));
}

fn entry(kind: &str, server: &str, tool: Option<&str>) -> ToolSelection {
    let (provider_kind, resource_id) = (kind.to_owned(), server.to_owned());
    match tool {
        None => ToolSelection::Provider { provider_kind, resource_id },
        Some(tool) => ToolSelection::Tool { provider_kind, resource_id, tool_name: tool.to_owned() },
    }
}

#[test]
fn s4_20_a_choice_of_tools_narrows_to_what_it_names() {
    let list = ToolList::of(&[entry("mcp_server", "git", None), entry("mcp_server", "files", Some("read"))]);
    assert!(list.allows("git", Some("push")) && list.allows("git", None) && list.allows("files", Some("read")));
    assert!(!list.allows("files", Some("write")) && !list.allows("files", None) && !list.allows("db", Some("read")));
    assert!(ToolList::of(&[]).allows("db", None));
    let other = ToolList::of(&[entry("builtin", "git", None), entry("builtin", "git", Some("push"))]);
    assert!(!other.allows("git", Some("push")) && !other.allows("git", None));
}

#[test]
fn s4_20_choices_of_tools_bound_calls_of_servers_and_nothing_else() {
    let list = Arc::new(ToolList::of(&[entry("mcp_server", "git", Some("log"))]));
    let bounds = Effective::default().narrowed(Arc::new(Bounds { maps: vec![], lists: vec![list] }));
    assert_eq!(bounds.grant(&tool("git", "log")), Allow);
    assert_eq!(bounds.grant(&tool("git", "push")), Deny);
    assert_eq!(bounds.grant(&Target::Tool { server: "git", tool: None, is_read: true, is_bash: false }), Deny);
    assert_eq!(bounds.grant(&Target::Server { server: "git", is_read: true }), Deny);
    assert_eq!(bounds.grant(&Target::Engine { id: "e" }), Allow);
    assert_eq!(bounds.grant(&Target::Delegate { slug: "d" }), Allow);
    assert!(!bounds.leaves(&entry("mcp_server", "git", None)) && bounds.leaves(&entry("builtin", "x", None)));
}

#[test]
fn patterns_of_any_shape_are_matched_in_one_reading() {
    let glob = |text: &str| Glob::new(text).unwrap();
    for (pattern, name, is) in [
        ("*", "", true),
        ("**", "x", true),
        ("?", "", false),
        ("?", "é", true),
        ("a*c", "abcbc", true),
        ("a*c", "abcb", false),
        ("*a*b", "xaybab", true),
        ("a?", "a", false),
        ("?*?", "ab", true),
        ("?*?", "a", false),
        ("abc", "abcd", false),
        ("ab*", "xab", false),
    ] {
        assert_eq!(glob(pattern).matches(name), is, "{pattern} {name}");
    }
    let worst = glob(&("*a".repeat(63)));
    assert!(!worst.matches(&("a".repeat(1_000_000) + "b")));
}

/// By the definition, with recursion.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], name) => name.is_empty(),
        (['*', rest @ ..], name) => matches(rest, name) || !name.is_empty() && matches(pattern, &name[1..]),
        ([one, rest @ ..], [other, more @ ..]) => (*one == '?' || one == other) && matches(rest, more),
        _ => false,
    }
}

fn any_grant() -> impl Strategy<Value = &'static str> {
    select(vec!["deny", "ask", "allow"])
}

/// Maps of few names, so that keys meet.
fn any_map() -> impl Strategy<Value = Value> {
    let scalar = any_grant().prop_map(Value::from);
    let nested = |keys: &'static [&'static str]| {
        prop::collection::vec((select(keys), any_grant()), 0..3)
            .prop_map(|all| Value::Object(all.into_iter().map(|(key, grant)| (key.to_owned(), grant.into())).collect()))
    };
    let tools = &["*", "s/t", "s/*", "*/t?", "?/u", "*/*"][..];
    let pair = prop_oneof![
        (select(vec!["*", "bash", "read", "s", "r", "engine", "task", "s/t", "s/*", "r/t?", "*/u"]), scalar),
        (select(vec!["*", "bash", "read"]), nested(tools)),
        (select(vec!["s", "r"]), nested(&["*", "t", "t*", "?"])),
        (select(vec!["engine", "task"]), nested(&["*", "t", "t*", "?"])),
    ];
    prop::collection::vec(pair, 0..6)
        .prop_map(|all| Value::Object(all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}

fn any_target() -> impl Strategy<Value = Target<'static>> {
    let name = || select(vec!["t", "tt", "u", "v"]);
    let server = || select(vec!["s", "r", "q"]);
    prop_oneof![
        4 => (server(), prop::option::weighted(0.8, name()), any::<bool>(), any::<bool>())
            .prop_map(|(server, tool, is_read, is_bash)| Target::Tool { server, tool, is_read, is_bash }),
        1 => (server(), any::<bool>()).prop_map(|(server, is_read)| Target::Server { server, is_read }),
        1 => name().prop_map(|id| Target::Engine { id }),
        1 => name().prop_map(|slug| Target::Delegate { slug }),
        1 => Just(Target::Other),
    ]
}

fn any_maps() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(any_map(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn s4_18_the_result_is_at_most_what_each_map_says(maps in any_maps(), target in any_target()) {
        let result = effective(&maps).grant(&target);
        let says: Vec<Grant> = maps.iter().filter_map(|value| map(value.clone()).grant(&target)).collect();
        prop_assert!(says.iter().all(|said| result <= *said));
        prop_assert_eq!(result, says.into_iter().min().unwrap_or(Allow));
    }

    #[test]
    fn s4_18_a_map_twice_is_the_map_once(value in any_map(), target in any_target()) {
        prop_assert_eq!(effective(&[value.clone(), value.clone()]).grant(&target), effective(&[value]).grant(&target));
    }

    #[test]
    fn s4_18_another_map_never_raises(maps in any_maps(), more in any_map(), target in any_target()) {
        let before = effective(&maps);
        let after = before.narrowed_by(Arc::new(map(more)));
        prop_assert!(after.grant(&target) <= before.grant(&target));
    }

    #[test]
    fn s4_18_the_order_of_maps_does_not_matter(maps in any_maps(), target in any_target()) {
        let reversed: Vec<Value> = maps.iter().rev().cloned().collect();
        prop_assert_eq!(effective(&maps).grant(&target), effective(&reversed).grant(&target));
        // Nor does who said it: as layers they give the same.
        let layered = maps.iter().fold(Effective::default(), |above, value| above.narrowed_by(Arc::new(map(value.clone()))));
        prop_assert_eq!(layered.grant(&target), effective(&maps).grant(&target));
    }

    #[test]
    fn s4_18_the_order_of_keys_does_not_matter(value in any_map(), target in any_target()) {
        let reversed = Value::Object(value.as_object().unwrap().clone().into_iter().rev().collect());
        prop_assert_eq!(map(value).grant(&target), map(reversed).grant(&target));
    }

    #[test]
    fn s4_19_whatever_an_overlay_says_a_deny_of_the_root_stays(mut root in any_map(), over in any_map(), target in any_target()) {
        root["bash"] = json!("deny");
        let root_alone = effective(&[root]);
        let both = root_alone.narrowed_by(Arc::new(map(over)));
        if root_alone.grant(&target) == Deny {
            prop_assert_eq!(both.grant(&target), Deny);
        }
    }

    #[test]
    fn s4_18_an_unlisted_tool_gets_no_more_than_any_listed_one(value in any_map(), name in "[tuvw]{1,2}", read: bool, bash: bool) {
        let map = map(value);
        let target = |tool| Target::Tool { server: "s", tool, is_read: read, is_bash: bash };
        let (unlisted, listed) = (map.grant(&target(None)), map.grant(&target(Some(&name))));
        prop_assert!(unlisted.unwrap_or(Allow) <= listed.unwrap_or(Allow));
    }

    #[test]
    fn s4_18_the_bound_of_a_key_that_names_one_call_is_the_bound_of_the_call(maps in any_maps(), name in select(vec!["t", "tt", "u"])) {
        let (bounds, key) = (effective(&maps), map(json!({format!("s/{name}"): "allow"})));
        prop_assert_eq!(bounds.grant_of(&key.rules()[0]), bounds.grant(&tool("s", name)));
        let key = map(json!({"task": {name: "allow"}}));
        prop_assert_eq!(bounds.grant_of(&key.rules()[0]), bounds.grant(&Target::Delegate { slug: name }));
    }

    #[test]
    fn patterns_match_as_they_are_defined(pattern in "[ab*?]{0,7}", name in "[ab]{0,8}") {
        let (chars, name_chars): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
        prop_assert_eq!(Glob::new(&pattern).unwrap().matches(&name), matches(&chars, &name_chars));
    }

    #[test]
    fn patterns_that_cover_match_whatever_the_other_matches(one in "[ab*?]{0,5}", other in "[ab*?]{0,5}", name in "[ab]{0,5}") {
        let (one, other) = (Glob::new(&one).unwrap(), Glob::new(&other).unwrap());
        prop_assert!(one.covers(&one));
        if one.covers(&other) && other.matches(&name) {
            prop_assert!(one.matches(&name));
        }
    }
}
