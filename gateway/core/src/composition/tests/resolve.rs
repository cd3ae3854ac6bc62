//! Tests of the projection.

use super::super::resolve::*;
use super::super::tree::{Tree, trimmed};
use super::{document, kinds, node};
use proptest::prelude::*;
use serde_json::{Value, json};

fn projected(root: Value) -> RuntimeAgentConfig {
    resolve(&document(root), None, &kinds()).unwrap()
}

#[test]
fn s4_06_absent_members_of_a_binding_are_omitted_and_an_empty_alias_is() {
    let kid = node("x", json!({"alias": "", "permission": null, "instructions": ""}), vec![]);
    let config = projected(node("root", json!({}), vec![kid]));
    assert_eq!(json!(config.sub_agent_bindings), json!([{"slug": "x", "instructions": ""}]));
}

#[test]
fn s4_07_models_of_sub_agents_survive_the_way_through_a_manifest() {
    let model = json!({"kind": "concrete", "modelId": "m"});
    let manifest = document(node(
        "root",
        json!({}),
        vec![node(
            "x",
            json!({"defaultModel": model, "children": [node("y", json!({"defaultModel": model}), vec![])]}),
            vec![],
        )],
    ));
    let config = resolve(&from_manifest(&manifest).unwrap(), None, &kinds()).unwrap();
    assert_eq!(json!(config.sub_agent_model_overrides_by_slug), json!({"x": model, "y": model}));
    assert_eq!(json!(config.sub_agent_bindings[1]), json!({"slug": "y", "modelOverride": model}));
}

#[test]
fn s4_07_where_a_manifest_says_both_its_default_model_counts() {
    let (model, other) = (json!({"kind": "concrete", "modelId": "m"}), json!({"kind": "concrete", "modelId": "o"}));
    for members in
        [json!({"defaultModel": model, "modelOverride": other}), json!({"modelOverride": other, "defaultModel": model})]
    {
        let manifest = document(node("root", members, vec![]));
        assert_eq!(from_manifest(&manifest).unwrap()["root"]["modelOverride"], model);
    }
}

#[test]
fn s4_39_a_manifest_passes_through_what_is_given_and_omits_what_is_not() {
    let manifest = json!({"slug": "c", "version": "2", "root": {
        "agent": {"slug": "root", "name": "R"},
        "permission": {}, "instructions": " ", "defaultModel": {"kind": "strategy", "modelClass": "review"},
        "alias": null,
        "children": [{"agent": {"slug": "a"}}, {"agent": {"slug": "b"}, "children": []}],
    }});
    let resolved = json!({"slug": "c", "version": "2", "root": {
        "agent": {"slug": "root", "name": "R"},
        "permission": {}, "instructions": " ", "modelOverride": {"kind": "strategy", "modelClass": "review"},
        "children": [{"agent": {"slug": "a"}}, {"agent": {"slug": "b"}, "children": []}],
    }});
    assert_eq!(from_manifest(&manifest).unwrap().to_string(), resolved.to_string());
}

#[test]
fn s4_08_skills_without_a_slug_and_lists_that_are_none_are_dropped() {
    let root =
        node("r", json!({"skills": [{"slug": 7}, "s", {"slug": "b"}, {}, {"slug": "a"}, {"slug": "b"}]}), vec![]);
    assert_eq!(collect_skills(&Tree::of_root(&root), Scope::Root), ["b", "a"]);
    for odd in [json!("skills"), json!({"slug": "s"}), json!(null)] {
        let root = node("r", json!({"skills": odd, "tools": odd}), vec![]);
        assert!(collect_skills(&Tree::of_root(&root), Scope::Tree).is_empty());
        assert_eq!(collect_tools(&Tree::of_root(&root), Scope::Tree, &kinds()), Ok(vec![]));
    }
}

#[test]
fn s4_11_trimming_is_that_of_the_original() {
    let all_space =
        "\u{9}\u{a}\u{b}\u{c}\u{d}\u{20}\u{a0}\u{1680}\u{2000}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";
    assert_eq!(trimmed(all_space), "");
    assert_eq!(trimmed("\u{feff}x\u{feff} "), "x");
    for kept in ["\u{85}", "\u{200b}", "\u{180e}", "\u{2060}"] {
        assert_eq!(trimmed(kept), kept);
    }
    let kids = vec![
        node("mark", json!({"instructions": "\u{feff} "}), vec![]),
        node("next_line", json!({"instructions": "\u{85}"}), vec![]),
    ];
    let config = projected(node("root", json!({}), kids));
    assert_eq!(json!(config.sub_agent_instructions_by_slug), json!({"next_line": "\u{85}"}));
}

#[test]
fn s4_12_a_permission_that_is_not_empty_is_verbatim() {
    let odd = json!({"bash": {"*": 7}, "b": null, "a": "maybe"});
    let config = projected(node("root", json!({}), vec![node("x", json!({"permission": odd}), vec![])]));
    assert_eq!(config.sub_agent_permission_by_slug["x"].to_string(), odd.to_string());
}

#[test]
fn s4_18_the_projection_does_not_merge_maps() {
    let root = node("root", json!({"permission": {"bash": "deny"}}), vec![]);
    let config = resolve(&document(root), Some(&json!({"permission": {"bash": "allow"}})), &kinds()).unwrap();
    assert_eq!(config.primary_permission, Some(json!({"bash": "allow"})));
}

#[test]
fn s4_21_the_error_has_its_text_and_its_name() {
    let tools = json!({"tools": [{"kind": "provider", "providerKind": "builtin"}]});
    let error = resolve(&document(node("a \"b\"", tools, vec![])), None, &kinds()).unwrap_err();
    let text = "Composition resolution failed for \"a \"b\"\": tools[0].resourceId must be a non-empty string";
    assert_eq!(error.to_string(), text);
    assert_eq!(CompositionResolutionError::NAME, "CompositionResolutionError");
}

#[test]
fn s4_22_a_model_id_is_a_text_with_something_in_it() {
    for bad in [json!(7), json!(""), json!("\u{feff}\n"), json!(null)] {
        let root = node("root", json!({"modelOverride": {"kind": "concrete", "modelId": bad}}), vec![]);
        let error = resolve(&document(root), None, &kinds()).unwrap_err();
        assert_eq!(error.detail, "concrete modelOverride is missing a modelId");
    }
}

#[test]
fn s4_24_every_class_is_taken_and_a_model_keeps_its_options() {
    for class in MODEL_CLASSES {
        let model = json!({"kind": "strategy", "modelClass": class, "temperature": 0.5});
        let config = projected(node("root", json!({"modelOverride": model}), vec![]));
        assert_eq!(config.primary_model_override, Some(model));
    }
    let model = json!({"kind": "concrete", "modelId": "m", "providerSlug": "p", "temperature": 1});
    assert_eq!(projected(node("root", json!({"modelOverride": model}), vec![])).primary_model_override, Some(model));
}

#[test]
fn s4_25_s4_26_a_tool_keeps_exactly_its_members() {
    let tool = json!({"toolName": " t ", "x": 1, "resourceId": " r ", "providerKind": "builtin", "kind": "tool"});
    let config = projected(node("root", json!({"tools": [tool]}), vec![]));
    let kept = r#"[{"kind":"tool","providerKind":"builtin","resourceId":" r ","toolName":" t "}]"#;
    assert_eq!(json!(config.default_tool_selection).to_string(), kept);
    let kinds = ["only".to_owned()];
    let error = resolve(&document(node("root", json!({"tools": [null]}), vec![])), None, &kinds).unwrap_err();
    assert_eq!(error.detail, "tools[0].providerKind must be one of only");
}

#[test]
fn s4_29_s4_30_the_shape_of_this_version_is_this_one() {
    // Whoever changes the members changes the version with them.
    assert_eq!(PROJECTION_VERSION, 1);
    let config = projected(node("root", json!({}), vec![node("x", json!({}), vec![])]));
    let text = concat!(
        r#"{"compositionRef":"comp@1.2.0","primaryAgentSlug":"root","primaryInstructions":null,"primaryPermission":null,"#,
        r#""primaryModelOverride":null,"subAgentBindings":[{"slug":"x"}],"subAgentInstructionsBySlug":{},"#,
        r#""subAgentPermissionBySlug":{},"subAgentModelOverridesBySlug":{},"defaultSkillSlugs":[],"allSkillSlugs":[],"#,
        r#""defaultToolSelection":[]}"#
    );
    assert_eq!(serde_json::to_string(&config).unwrap(), text);
    assert_eq!(serde_json::from_str::<RuntimeAgentConfig>(text).unwrap(), config);
}

#[test]
fn s4_29_maps_keep_the_order_in_which_slugs_are_seen() {
    let kid = |slug| node(slug, json!({"instructions": "i"}), vec![]);
    let config = projected(node("root", json!({}), vec![kid("z"), kid("a"), kid("m"), kid("a")]));
    assert_eq!(config.sub_agent_instructions_by_slug.keys().collect::<Vec<_>>(), ["z", "a", "m"]);
}

#[test]
fn s4_31_a_tree_of_slugs_and_aliases_alone_resolves() {
    let bare = json!({"slug": "c", "version": "1", "root": {"agent": {"slug": "r"},
        "children": [{"agent": {"slug": "a"}, "alias": "first"}, {"agent": {"slug": "b"}}]}});
    let config = resolve(&bare, None, &[]).unwrap();
    assert_eq!(json!(config.sub_agent_bindings), json!([{"slug": "a", "alias": "first"}, {"slug": "b"}]));
}

#[test]
fn s4_32_instructions_append_models_override_permissions_replace_in_the_projection() {
    let own = json!({"instructions": "base", "permission": {"bash": "deny"},
        "modelOverride": {"kind": "concrete", "modelId": "a"}});
    let over = json!({"instructions": "more", "permission": {"read": "ask"},
        "modelOverride": {"kind": "concrete", "modelId": "b"}});
    let config = resolve(&document(node("root", own, vec![])), Some(&over), &kinds()).unwrap();
    assert_eq!(config.primary_instructions.as_deref(), Some("base\n\nmore"));
    assert_eq!(config.primary_model_override, Some(over["modelOverride"].clone()));
    assert_eq!(config.primary_permission, Some(over["permission"].clone()));
}

#[test]
fn documents_that_are_none_resolve_to_nothing_and_do_not_panic() {
    for odd in [json!(null), json!([]), json!({"root": 7}), json!({"root": {"children": [null, 3, {"agent": "x"}]}})] {
        let config = resolve(&odd, Some(&json!("overlay")), &kinds()).unwrap();
        assert_eq!(config.composition_ref, "@");
        assert!(config.sub_agent_bindings.is_empty());
    }
}

/// Trees with few slugs, so that they repeat.
pub(super) fn any_root() -> impl Strategy<Value = Value> {
    let slug = prop::sample::select(vec!["a", "b", "c", "root", ""]);
    let trio = prop_oneof![
        Just(json!({})),
        Just(json!({"instructions": " i "})),
        Just(json!({"permission": {"bash": "deny"}, "alias": "al"})),
        Just(json!({"modelOverride": {"kind": "concrete", "modelId": "m"}, "skills": [{"slug": "s"}]})),
    ];
    let leaf = (slug.clone(), trio.clone()).prop_map(|(slug, trio)| node(slug, trio, vec![]));
    leaf.prop_recursive(4, 24, 4, move |below| {
        (slug.clone(), trio.clone(), prop::collection::vec(below, 0..4))
            .prop_map(|(slug, trio, below)| node(slug, trio, below))
    })
}

/// What the ledger says, said once more with recursion.
fn flattened(node: &Value, into: &mut Vec<String>) {
    for child in node["children"].as_array().unwrap() {
        let slug = child["agent"]["slug"].as_str().unwrap();
        if !slug.is_empty() {
            if !into.iter().any(|seen| seen == slug) {
                into.push(slug.to_owned());
            }
            flattened(child, into);
        }
    }
}

proptest! {
    #[test]
    fn s4_02_s4_03_s4_04_flatten_is_what_a_recursive_walk_gives(root in any_root()) {
        let mut expected = Vec::new();
        flattened(&root, &mut expected);
        let found: Vec<String> = flatten(&Tree::of_root(&root)).unwrap().into_iter().map(|binding| binding.slug).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn s4_38_the_same_input_gives_the_same_bytes(root in any_root()) {
        let bytes = |root: &Value| serde_json::to_vec(&projected(root.clone())).unwrap();
        let again: Value = serde_json::from_str(&root.to_string()).unwrap();
        prop_assert_eq!(bytes(&root), bytes(&again));
    }

    #[test]
    fn s4_39_a_manifest_without_models_is_the_tree_itself(root in any_root()) {
        let mut document = document(root);
        let manifest: Value = serde_json::from_str(&document.to_string().replace("modelOverride", "defaultModel")).unwrap();
        let found = from_manifest(&manifest).unwrap();
        document.sort_all_objects();
        let mut found = found;
        found.sort_all_objects();
        prop_assert_eq!(found, document);
    }
}
