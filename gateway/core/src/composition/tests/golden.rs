//! The vectors that were observed on the original resolver, byte for byte.

use super::super::resolve::*;
use super::super::tree::Tree;
use super::{document, kinds, node};
use serde_json::{Value, json};

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../../../tests/composition_golden.json")).unwrap()
}

fn vector(name: &str) -> Value {
    vectors().into_iter().find(|vector| vector["name"] == name).unwrap_or_else(|| panic!("no vector {name}"))
}

/// The one vector without an input: only its error tells what the input was.
fn bad_kid() -> Value {
    let bad = json!({"tools": [{"kind": "provider", "providerKind": "mcp_server", "resourceId": " "}]});
    node("root", json!({}), vec![node("kid", bad, vec![])])
}

fn run(vector: &Value) -> Result<Value, CompositionResolutionError> {
    let name = vector["name"].as_str().unwrap();
    let input = &vector["input"];
    let scope = if name.contains("tree") { Scope::Tree } else { Scope::Root };
    if name.starts_with("append") {
        return Ok(append_instructions(input[0].as_str().unwrap(), input[1].as_str()).into());
    }
    if name.starts_with("collectSkills") {
        return Ok(collect_skills(&Tree::of_root(input), scope).into());
    }
    if name.starts_with("collectTools") {
        let missing = bad_kid();
        let root = if input.is_null() { &missing } else { input };
        return Ok(json!(collect_tools(&Tree::of_root(root), scope, &kinds())?));
    }
    Ok(serde_json::to_value(resolve(&input["resolved"], input.get("overlay"), &kinds())?).unwrap())
}

fn mismatch(vector: &Value) -> Option<String> {
    // As text, so that the order of members counts.
    let told = match run(vector) {
        Ok(found) => (found.to_string(), String::new()),
        Err(error) => (error.to_string(), CompositionResolutionError::NAME.to_owned()),
    };
    let expected = match vector.get("ok") {
        Some(ok) => (ok.to_string(), String::new()),
        None => (vector["err"].as_str().unwrap().to_owned(), vector["errName"].as_str().unwrap().to_owned()),
    };
    (told != expected).then(|| format!("{}\n   found {told:?}\nexpected {expected:?}", vector["name"]))
}

#[test]
fn s4_02_to_s4_27_all_vectors_hold_to_the_byte() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 37);
    let mismatches: Vec<String> = vectors.iter().filter_map(mismatch).collect();
    assert!(mismatches.is_empty(), "{} of 37:\n{}", mismatches.len(), mismatches.join("\n"));
}

macro_rules! holds {
    ($($test:ident: $($name:literal),+;)+) => {$(
        #[test]
        fn $test() {
            for name in [$($name),+] {
                assert_eq!(mismatch(&vector(name)), None);
            }
        }
    )+};
}

holds! {
    s4_02_flatten_is_pre_order_without_the_root: "full tree pre-order", "duplicate: first without overlay shadows later";
    s4_03_children_of_a_dropped_duplicate_are_visited: "duplicate slug still descended";
    s4_04_an_empty_slug_hides_its_subtree_from_flatten_and_not_from_skills:
        "empty slug subtree skipped in flatten but not skills", "collectTools tree (no dedupe; empty-slug node included)";
    s4_05_a_descendant_with_the_roots_slug_is_emitted: "descendant with root slug is emitted";
    s4_06_bindings_carry_the_trio_verbatim: "whitespace instructions carried raw in binding, absent in map";
    s4_08_skills_are_collected_from_the_tree_once: "collectSkills default=tree, empty skill slug dropped", "collectSkills root";
    s4_09_tools_are_collected_from_the_root_or_from_the_tree_with_repeats:
        "collectTools default", "collectTools tree (no dedupe; empty-slug node included)";
    s4_10_the_first_of_a_slug_decides_even_without_a_value: "duplicate: first without overlay shadows later";
    s4_11_instructions_by_slug_are_trimmed: "instructions raw in binding, trimmed in map";
    s4_12_an_empty_permission_has_no_key: "whitespace instructions carried raw in binding, absent in map";
    s4_13_models_of_first_nodes_are_checked_and_of_later_ones_not:
        "bad child model ctx = child slug", "bad model on shadowed duplicate is NOT caught";
    s4_14_instructions_are_appended:
        "append [\"base\",\" x \"]", "append [\"base\",\"  \"]", "append [\"base\",null]", "append [\"\",\"x\"]",
        "append [\"\",null]", "append [\"base\\n\",\"x\"]";
    s4_15_primary_instructions_are_the_roots_and_the_overlays:
        "overlay instructions append", "overlay instructions only", "no instructions => null";
    s4_16_both_primary_models_are_checked:
        "overlay model wins", "bad root model ctx = ref", "bad overlay model ctx = ref#overlay";
    s4_17_the_overlays_permission_replaces_the_roots_in_the_projection:
        "overlay permission replaces wholesale", "overlay empty permission => root";
    s4_22_a_concrete_model_has_an_id_and_keeps_it_untrimmed: "model id kept untrimmed", "bad root model ctx = ref";
    s4_23_any_other_kind_is_read_as_a_strategy: "unknown model kind treated as strategy";
    s4_24_the_classes_are_told_in_their_order: "bad overlay model ctx = ref#overlay";
    s4_25_the_first_fault_of_a_tool_wins:
        "tool bad providerKind", "tool bad resourceId", "tool missing toolName", "tool bad kind",
        "tool check order: providerKind before resourceId before kind", "collectTools tree bad child ctx";
    s4_26_tools_lose_what_is_not_theirs: "tool extra fields stripped";
    s4_27_bad_tools_of_children_do_not_reach_the_projection: "child bad tool not seen by default projection";
    s4_31_aliases_are_carried: "full tree pre-order", "descendant with root slug is emitted";
}

#[test]
fn s4_16_a_bad_model_of_the_root_fails_even_where_the_overlay_wins() {
    let root = node("root", json!({"modelOverride": {"kind": "concrete"}}), vec![]);
    let overlay = json!({"modelOverride": {"kind": "concrete", "modelId": "good"}});
    let error = resolve(&document(root), Some(&overlay), &kinds()).unwrap_err();
    assert_eq!(error.context, "comp@1.2.0");
}
