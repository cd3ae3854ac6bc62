//! Tests of registration: what is refused, what is told, and what a node may do afterwards.

use super::super::permission::{Grant, Target};
use super::super::problem::Problem;
use super::super::register::{Caps, Checked, canonical, check};
use super::super::resolve::{MODEL_CLASSES, resolve};
use super::{document, kinds, node};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn classes() -> BTreeSet<String> {
    MODEL_CLASSES.map(str::to_owned).into()
}

/// Enough of a digest for a test.
fn digest(bytes: &[u8]) -> String {
    format!("{:x}", bytes.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte))))
}

fn register(document: &Value) -> Result<Checked, Vec<Problem>> {
    check(document, &Caps::default(), &kinds(), &classes(), digest)
}

fn good(root: Value) -> Checked {
    register(&document(root)).unwrap()
}

fn problems(root: Value) -> Vec<(String, String)> {
    let problems = register(&document(root)).unwrap_err();
    problems.into_iter().map(|problem| (problem.pointer, problem.message)).collect()
}

fn problem(root: Value) -> (String, String) {
    let mut problems = problems(root);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

fn told(pointer: &str, message: &str) -> (String, String) {
    (pointer.to_owned(), message.to_owned())
}

fn kid(more: Value) -> Value {
    node("root", json!({}), vec![node("kid", more, vec![])])
}

fn bash() -> Target<'static> {
    Target::Tool { server: "shell", tool: Some("rm"), is_read: false, is_bash: true }
}

fn tool<'a>(server: &'a str, tool: &'a str) -> Target<'a> {
    Target::Tool { server, tool: Some(tool), is_read: false, is_bash: false }
}

fn provider(server: &str) -> Value {
    json!({"kind": "provider", "providerKind": "mcp_server", "resourceId": server})
}

#[test]
fn s4_01_registration_projects_with_the_one_resolver() {
    let document = document(kid(json!({"instructions": " i ", "permission": {"bash": "ask"}})));
    assert_eq!(register(&document).unwrap().config, resolve(&document, None, &kinds()).unwrap());
}

#[test]
fn s4_04_an_empty_slug_is_refused_at_registration() {
    for odd in ["", "a/b", "a b", "a#", "a@1", "é", &"x".repeat(65)] {
        let found = problem(node("root", json!({}), vec![node(odd, json!({}), vec![])]));
        assert_eq!(found.0, "/root/children/0/agent/slug", "{odd}");
    }
    good(node("root", json!({}), vec![node(&"x".repeat(64), json!({}), vec![]), node("A.b_c-9", json!({}), vec![])]));
    let missing = problems(json!({"children": [{"agent": "x"}, 7]}));
    let pointers: Vec<&str> = missing.iter().map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(pointers, ["/root/agent", "/root/children/0/agent", "/root/children/1"]);
}

#[test]
fn s4_13_a_bad_model_on_a_shadowed_duplicate_is_refused_at_registration() {
    let bad = node("x", json!({"modelOverride": {"kind": "concrete", "modelId": ""}}), vec![]);
    let root = node("root", json!({}), vec![node("x", json!({}), vec![]), bad]);
    assert!(resolve(&document(root.clone()), None, &kinds()).is_ok());
    let message = "concrete modelOverride is missing a modelId, it has \"\"";
    assert_eq!(problem(root), told("/root/children/1/modelOverride/modelId", message));
}

#[test]
fn s4_18_s4_37_keys_that_would_widen_are_listed_and_take_no_effect() {
    let root = json!({"agent": {"slug": "root", "permission": {"bash": "deny", "git": "ask"}},
        "permission": {"bash": "allow", "read": "ask"}, "tools": [provider("git")],
        "children": [{"agent": {"slug": "x", "permission": {"git/push": "allow"}}, "permission": {"read": "allow", "engine": "allow"},
            "tools": [provider("git"), provider("files")]}]});
    let checked = good(root);
    let found: Vec<_> = checked
        .widening
        .iter()
        .map(|w| (w.pointer.as_str(), w.slug.as_str(), w.key.as_str(), w.said, w.bounded))
        .collect();
    assert_eq!(
        found,
        [
            ("/root/permission", "root", "bash", Grant::Allow, Grant::Deny),
            ("/root/children/0/agent/permission", "x", "git/push", Grant::Allow, Grant::Ask),
            ("/root/children/0/permission", "x", "read", Grant::Allow, Grant::Ask),
            ("/root/children/0/tools/1", "x", "tools[1]", Grant::Allow, Grant::Deny),
        ]
    );
    let x = &checked.node("x").unwrap().effective;
    assert_eq!(x.grant(&bash()), Grant::Deny);
    assert_eq!(x.grant(&tool("git", "push")), Grant::Ask);
    assert_eq!(x.grant(&tool("files", "get")), Grant::Deny);
    assert_eq!(x.grant(&Target::Engine { id: "e" }), Grant::Allow);
}

#[test]
fn s4_20_a_child_is_bounded_by_the_agents_own_map_and_by_every_node_above() {
    let grandchild = node("c", json!({"permission": {"*": "allow"}}), vec![]);
    let child = json!({"agent": {"slug": "b", "permission": {"git/push": "deny"}}, "children": [grandchild]});
    let checked = good(node("a", json!({"permission": {"bash": "ask"}}), vec![child]));
    let c = &checked.node("b/c").unwrap().effective;
    assert_eq!(
        (c.grant(&tool("git", "push")), c.grant(&bash()), c.grant(&Target::Other)),
        (Grant::Deny, Grant::Ask, Grant::Allow)
    );
    let a = &checked.node("").unwrap().effective;
    assert_eq!(a.grant(&tool("git", "push")), Grant::Allow);
}

#[test]
fn s4_23_an_unknown_kind_of_model_has_a_message_of_its_own() {
    let message = "modelOverride.kind must be \"concrete\" or \"strategy\", not \"weird\"";
    let model = json!({"kind": "weird", "modelId": "m", "modelClass": "review"});
    assert_eq!(problem(kid(json!({"modelOverride": model}))), told("/root/children/0/modelOverride/kind", message));
}

#[test]
fn s4_24_models_are_checked_whole() {
    let model = |model: Value| kid(json!({"modelOverride": model}));
    let message =
        "strategy modelOverride.modelClass must be one of coding, review, creative, planning, utility, not \"nope\"";
    let found = problem(model(json!({"kind": "strategy", "modelClass": "nope"})));
    assert_eq!(found, told("/root/children/0/modelOverride/modelClass", message));
    let found = problems(model(json!({"kind": "concrete", "modelId": "m", "providerSlug": " ", "temperature": "hot"})));
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(problem(model(json!("gpt"))).0, "/root/children/0/modelOverride/kind");
    good(model(json!({"kind": "strategy", "modelClass": "utility", "temperature": 0.1})));
}

#[test]
fn s4_24_a_class_that_nothing_serves_is_noted() {
    let root = kid(json!({"modelOverride": {"kind": "strategy", "modelClass": "review"}}));
    let coding = BTreeSet::from(["coding".to_owned()]);
    let checked = check(&document(root.clone()), &Caps::default(), &kinds(), &coding, digest).unwrap();
    assert_eq!(checked.notes, ["/root/children/0/modelOverride/modelClass: nothing serves the model class review"]);
    assert!(good(root).notes.is_empty());
}

#[test]
fn s4_27_bad_tools_of_any_node_are_refused_at_registration() {
    let tools = json!({"tools": [provider("r"), {"kind": "zzz", "providerKind": "mcp_server", "resourceId": "r"}]});
    let root = kid(tools);
    assert!(resolve(&document(root.clone()), None, &kinds()).is_ok());
    let message = "tools[1].kind must be \"provider\" or \"tool\", not \"zzz\"";
    assert_eq!(problem(root), told("/root/children/0/tools/1/kind", message));
}

#[test]
fn s4_26_members_that_a_tool_loses_are_noted() {
    let entry = json!({"kind": "provider", "providerKind": "builtin", "resourceId": "r", "toolName": "t", "extra": 1});
    let notes = good(kid(json!({"tools": [entry]}))).notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("/root/children/0/tools/0/extra") && notes[1].contains("toolName"), "{notes:?}");
}

#[test]
fn s4_34_a_slug_and_a_version_are_required() {
    let root = || node("root", json!({}), vec![]);
    let pointers = |document: Value| -> Vec<String> {
        register(&document).unwrap_err().into_iter().map(|problem| problem.pointer).collect()
    };
    assert_eq!(pointers(json!({"root": root()})), ["/slug", "/version"]);
    assert_eq!(pointers(json!({"slug": "a+b", "version": "1@2", "root": root()})), ["/slug", "/version"]);
    assert_eq!(pointers(json!({"slug": "a", "version": 1, "root": root()})), ["/version"]);
    assert_eq!(pointers(json!({"slug": "a", "version": "1", "root": root(), "latest": true})), ["/latest"]);
    assert_eq!(pointers(json!({"slug": "a", "version": "1"})), ["/root"]);
    assert_eq!(pointers(json!("a@1")), ["", "/root"]);
    let checked = register(&json!({"slug": "a", "version": "1.0.0-rc.1+b_2", "root": root()})).unwrap();
    assert_eq!((checked.slug.as_str(), checked.version.as_str()), ("a", "1.0.0-rc.1+b_2"));
}

#[test]
fn s4_34_references_are_refused_as_cyclic_or_unknown() {
    let with = |name: &str, value: Value| node("root", json!({}), vec![json!({name: value})]);
    let (pointer, message) = problem(with("ref", json!("comp@1.2.0")));
    assert_eq!(pointer, "/root/children/0/ref");
    assert!(message.starts_with("cyclic reference \"comp@1.2.0\""), "{message}");
    assert!(problem(with("ref", json!("comp"))).1.starts_with("cyclic reference"));
    for other in [json!("comp@1.1.0"), json!("other@1"), json!(7), json!(null)] {
        let (pointer, message) = problem(with("$ref", other));
        assert_eq!(pointer, "/root/children/0/$ref");
        assert!(message.starts_with("unknown reference"), "{message}");
    }
}

#[test]
fn s4_35_depth_fan_out_and_nodes_are_bounded() {
    let chain = |length: usize| (0..length).fold(Vec::new(), |below, _| vec![node("n", json!({}), below)]).remove(0);
    let fan = |width: usize| {
        node("root", json!({}), (0..width).map(|nth| node(&format!("n{nth}"), json!({}), vec![])).collect())
    };
    good(chain(16));
    assert_eq!(problem(chain(17)).1, "deeper than 16 nodes, the root included");
    good(fan(64));
    assert_eq!(problem(fan(65)), told("/root/children", "65 children, and a node has at most 64"));
    let caps = Caps { nodes: 10, ..Caps::default() };
    let few = |root| check(&document(root), &caps, &kinds(), &classes(), digest);
    assert!(few(fan(9)).is_ok());
    assert_eq!(few(fan(10)).unwrap_err()[0].message, "11 nodes, and a composition has at most 10");
}

#[test]
fn s4_37_shadowed_nodes_are_listed_with_what_they_lose() {
    let later = json!({"instructions": "i", "permission": {"bash": "deny"}, "alias": "al", "modelOverride": {"kind": "concrete", "modelId": "m"}});
    let below = node("y", json!({}), vec![node("x", later, vec![])]);
    let checked = good(node("root", json!({}), vec![node("x", json!({}), vec![]), below]));
    let shadowed = json!([{"slug": "x", "pointer": "/root/children/1/children/0",
        "dropped": ["instructions", "permission", "modelOverride", "alias"]}]);
    assert_eq!(json!(checked.shadowed), shadowed);
    // What is dropped from the projection still bounds: there and at the first node.
    for path in ["x", "y/x"] {
        let node = checked.node(path).unwrap();
        assert_eq!(node.effective.grant(&bash()), Grant::Deny, "{path}");
        assert_eq!((node.model.is_some(), node.has_instructions), (false, false), "{path}");
    }
    assert_eq!(checked.node("y").unwrap().effective.grant(&bash()), Grant::Allow);
}

#[test]
fn s4_37_siblings_of_one_slug_are_one_node() {
    let one = node("x", json!({"tools": [provider("git")]}), vec![node("a", json!({}), vec![])]);
    let other = node(
        "x",
        json!({"permission": {"bash": "deny"}}),
        vec![node("b", json!({}), vec![]), node("a", json!({}), vec![])],
    );
    let checked = good(node("root", json!({}), vec![one, other]));
    let nodes: Vec<_> =
        checked.nodes.iter().map(|node| (node.path.as_str(), node.pointer.as_str(), node.parent)).collect();
    let expected = [
        ("", "/root", None),
        ("x", "/root/children/0", Some(0)),
        ("x/a", "/root/children/0/children/0", Some(1)),
        ("x/b", "/root/children/1/children/0", Some(1)),
    ];
    assert_eq!(nodes, expected);
    assert_eq!(
        checked.shadowed.iter().map(|node| node.pointer.as_str()).collect::<Vec<_>>(),
        ["/root/children/1", "/root/children/1/children/1"]
    );
    for path in ["x", "x/a", "x/b"] {
        let bounds = &checked.node(path).unwrap().effective;
        assert_eq!((bounds.grant(&bash()), bounds.grant(&tool("db", "get"))), (Grant::Deny, Grant::Deny), "{path}");
        assert_eq!(bounds.grant(&tool("git", "log")), Grant::Allow);
    }
}

#[test]
fn s4_38_the_hash_is_of_the_content_and_not_of_its_order() {
    let one: Value = serde_json::from_str(r#"{"b":{"y":1,"x":[{"d":1,"c":2}]},"a":"é"}"#).unwrap();
    assert_eq!(String::from_utf8(canonical(&one)).unwrap(), r#"{"a":"é","b":{"x":[{"c":2,"d":1}],"y":1}}"#);
    let root = json!({"agent": {"slug": "r", "permission": {"bash": "deny"}}});
    let same = json!({"root": root, "version": "1", "slug": "c"});
    let checked = register(&json!({"slug": "c", "version": "1", "root": root})).unwrap();
    assert_eq!(checked.hash, register(&same).unwrap().hash);
    assert_eq!(checked.hash, digest(&canonical(&same)));
    let mut other = same.clone();
    other["root"]["agent"]["permission"]["bash"] = json!("ask");
    assert_ne!(checked.hash, register(&other).unwrap().hash);
}

#[test]
fn s4_40_lengths_are_checked_at_registration() {
    let caps = Caps { instructions: 4, skills: 2, tools: 2, keys: 3, ..Caps::default() };
    let checked = |more: Value| check(&document(kid(more)), &caps, &kinds(), &classes(), digest);
    let only = |more: Value| checked(more).unwrap_err().into_iter().map(|p| (p.pointer, p.message)).collect::<Vec<_>>();
    assert!(checked(json!({"instructions": "éééé", "skills": [{"slug": "a"}, {"slug": "b"}]})).is_ok());
    assert_eq!(
        only(json!({"instructions": "ééééé"})),
        [told("/root/children/0/instructions", "5 characters, and instructions has at most 4")]
    );
    let three = |entry: Value| json!([entry, entry, entry]);
    let skills = told("/root/children/0/skills", "3 skills, and a node has at most 2");
    assert_eq!(only(json!({"skills": three(json!({"slug": "s"}))})), [skills]);
    assert_eq!(
        only(json!({"tools": three(provider("r"))})),
        [told("/root/children/0/tools", "3 tools, and a node has at most 2")]
    );
    let keys = told("/root/children/0/permission", "more than 3 keys in the permission maps so far");
    assert_eq!(only(json!({"permission": {"a": "deny", "b": "deny", "c": "deny", "d": "deny"}})), [keys]);
    let long = "x".repeat((32 << 10) + 1);
    assert_eq!(problem(kid(json!({"instructions": long}))).0, "/root/children/0/instructions");
    assert!(resolve(&document(kid(json!({"instructions": long}))), None, &kinds()).is_ok());
}

#[test]
fn s4_40_members_of_another_type_and_unknown_ones_are_refused() {
    let odd =
        json!({"skills": "s", "tools": {}, "instructions": 7, "alias": [], "permission": "deny", "note": 1, "a/b~": 2});
    let found = problems(kid(odd));
    let at = |name: &str| format!("/root/children/0/{name}");
    let expected = [
        (at("note"), "unknown member \"note\"".to_owned()),
        (at("a~1b~0"), "unknown member \"a/b~\"".to_owned()),
        (at("skills"), "skills is a list, not \"s\"".to_owned()),
        (at("tools"), "tools is a list, not an object of 0".to_owned()),
        (at("instructions"), "instructions is a text, not 7".to_owned()),
        (at("alias"), "alias is a text, not a list of 0".to_owned()),
        (at("permission"), "a permission map is an object, not \"deny\"".to_owned()),
    ];
    assert_eq!(found, expected);
    assert_eq!(problem(kid(json!({"skills": [{"slug": "a"}, {"slug": " "}]}))).0, at("skills/1"));
    let map = json!({"agent": {"slug": "root", "permission": {"bash": {"*": "nope"}}}});
    assert_eq!(problem(map), told("/root/agent/permission/bash/*", "\"nope\" is none of deny, ask, allow"));
}

#[test]
fn s4_40_problems_are_at_most_a_hundred_and_values_are_cut() {
    let tools: Vec<Value> =
        (0..150).map(|_| json!({"kind": "k".repeat(10_000), "providerKind": "builtin", "resourceId": "r"})).collect();
    let found = problems(kid(json!({"tools": tools})));
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|(_, message)| message.chars().count() < 150));
    let (pointer, message) = problem(kid(json!({"m".repeat(10_000): 1})));
    assert!(pointer.chars().count() < 120 && message.chars().count() < 120);
}

#[test]
fn s4_40_maps_that_may_not_mean_what_they_say_are_noted() {
    let notes = good(kid(json!({"permission": {"task": {"x": "allow"}, "git/*": "deny"}}))).notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| note.starts_with("/root/children/0/permission: ")), "{notes:?}");
}

fn any_permission() -> impl Strategy<Value = Value> {
    let key = select(vec!["*", "bash", "read", "git", "git/push", "files/*", "engine", "task"]);
    let maps = prop::collection::btree_map(key, select(vec!["deny", "ask", "allow"]), 0..3);
    maps.prop_map(|map| json!(map))
}

fn any_tree() -> impl Strategy<Value = Value> {
    let slug = || select(vec!["a", "b", "c", "d", "e", "f"]);
    let tools = || prop::collection::vec(select(vec!["git", "files"]).prop_map(provider), 0..2);
    let members = move || (slug(), any_permission(), any_permission(), tools());
    let build = |(slug, authored, own, tools): (&str, Value, Value, Vec<Value>), below: Vec<Value>| json!({"agent": {"slug": slug, "permission": authored}, "permission": own, "tools": tools, "children": below});
    let leaf = members().prop_map(move |members| build(members, vec![]));
    leaf.prop_recursive(4, 30, 4, move |below| {
        (members(), prop::collection::vec(below, 0..4)).prop_map(move |(members, below)| build(members, below))
    })
}

fn any_target() -> impl Strategy<Value = Target<'static>> {
    let (server, tool) = (select(vec!["git", "files", "db"]), prop::option::of(select(vec!["push", "get"])));
    prop_oneof![
        4 => (server, tool, any::<bool>(), any::<bool>())
            .prop_map(|(server, tool, is_read, is_bash)| Target::Tool { server, tool, is_read, is_bash }),
        1 => Just(Target::Server { server: "git", is_read: true }),
        1 => Just(Target::Engine { id: "e" }),
        1 => Just(Target::Delegate { slug: "a" }),
        1 => Just(Target::Other),
    ]
}

/// Every occurrence of a node, with its path.
fn occurrences<'a>(node: &'a Value, path: &str, into: &mut Vec<(String, &'a Value)>) {
    into.push((path.to_owned(), node));
    for child in node["children"].as_array().unwrap() {
        let slug = child["agent"]["slug"].as_str().unwrap();
        occurrences(child, &if path.is_empty() { slug.to_owned() } else { format!("{path}/{slug}") }, into);
    }
}

proptest! {
    #[test]
    fn s4_20_a_delegate_never_gets_more_than_its_parent(root in any_tree(), target in any_target()) {
        let checked = good(root);
        for node in &checked.nodes {
            if let Some(parent) = node.parent {
                prop_assert!(node.effective.grant(&target) <= checked.nodes[parent].effective.grant(&target));
            }
        }
    }

    #[test]
    fn s4_37_a_node_gets_the_minimum_of_all_that_is_said_of_its_slug_and_of_its_parent(root in any_tree(), target in any_target()) {
        use super::super::permission::PermissionMap;
        let checked = good(root.clone());
        let mut all = Vec::new();
        occurrences(&root, "", &mut all);
        for node in &checked.nodes {
            let same = all.iter().map(|(_, value)| *value).filter(|value| value["agent"]["slug"] == node.slug.as_str());
            let maps = same.clone().flat_map(|value| [&value["agent"]["permission"], &value["permission"]]);
            let said = maps.filter_map(|value| PermissionMap::read(value).unwrap().grant(&target));
            let (Target::Tool { server, .. } | Target::Server { server, .. }) = target else { continue };
            let lists = same.map(|value| value["tools"].as_array().unwrap());
            let chosen = lists.map(|list| list.is_empty() || list.iter().any(|entry| entry["resourceId"] == server));
            let listed = chosen.map(|chosen| if chosen { Grant::Allow } else { Grant::Deny });
            let above = node.parent.map(|parent| checked.nodes[parent].effective.grant(&target));
            let expected = said.chain(listed).chain(above).min().unwrap_or(Grant::Allow);
            prop_assert_eq!(node.effective.grant(&target), expected, "{}", node.path);
        }
        let paths: BTreeSet<&str> = all.iter().map(|(path, _)| path.as_str()).collect();
        prop_assert_eq!(paths, checked.nodes.iter().map(|node| node.path.as_str()).collect());
        prop_assert_eq!(all.len() - checked.config.sub_agent_bindings.len() - 1, checked.shadowed.len());
    }

    #[test]
    fn s4_38_registration_is_determined_by_its_input(root in any_tree()) {
        let again: Value = serde_json::from_str(&root.to_string()).unwrap();
        prop_assert_eq!(format!("{:?}", good(root)), format!("{:?}", good(again)));
    }
}
