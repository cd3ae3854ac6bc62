//! The cases of `policies/cases/`: requests to the charter and the starter, with the answers they must get.

use cedar_policy::{Authorizer, Context, Decision, Entities, PolicySet, Request, Schema};
use serde_json::{Value, json};
use std::path::Path;
use warden::commands::init::STARTER;
use warden_core::catalogue::{Catalogue, hash_of};
use warden_core::policy::layer::SourceFile;
use warden_core::policy::snapshot::{Snapshot, Source, Worker};

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/cases").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn snapshot() -> Snapshot {
    let catalogue: Catalogue = serde_json::from_value(read("catalogue.json")).unwrap();
    for tool in catalogue.servers.values().flat_map(|tools| tools.values()) {
        assert_eq!(tool.hash, hash_of(&tool.definition));
    }
    let site = STARTER.map(|(name, text)| SourceFile { name: name.into(), text: text.into() });
    let worker = Worker { name: "demo".into(), groups: vec!["assistants".into()], composition: None };
    let servers = vec!["files".into()];
    Snapshot::build(Source { site: site.into(), workers: vec![worker], servers, catalogue, ..Source::default() })
        .unwrap()
}

#[test]
fn the_starter_loads_before_any_server_is_configured() {
    let site = STARTER.map(|(name, text)| SourceFile { name: name.into(), text: text.into() });
    Snapshot::build(Source { site: site.into(), ..Source::default() }).unwrap();
}

#[test]
fn s1_25_charter_and_starter_answer_as_their_cases_say() {
    let snapshot = snapshot();
    let (schema, _) = Schema::from_cedarschema_str(snapshot.schema_text()).unwrap();
    let mut all = PolicySet::new();
    for layer in &snapshot.layers {
        all.merge(&layer.set(), false).unwrap();
    }
    let mut used = std::collections::BTreeSet::new();
    let cases: Vec<Value> =
        ["charter.json", "site.json"].iter().flat_map(|name| read(name).as_array().unwrap().clone()).collect();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let entities = Entities::from_json_value(case["entities"].clone(), Some(&schema)).unwrap();
        let ask = |acknowledged: Option<bool>| {
            let asked = &case["request"];
            let uid = |part: &str| asked[part].as_str().unwrap().parse().unwrap();
            let mut context = asked["context"].clone();
            if let Some(acknowledged) = acknowledged {
                context["acknowledged"] = json!(acknowledged);
            }
            let action = uid("action");
            let context =
                Context::from_json_value(context, Some((&schema, &action))).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let request = Request::new(uid("principal"), action, uid("resource"), context, Some(&schema)).unwrap();
            Authorizer::new().is_authorized(&request, &all, &entities)
        };
        let response = ask(None);
        let allowed = |decision| decision == Decision::Allow;
        assert_eq!(allowed(response.decision()), case["decision"] == "allow", "{name}");
        assert_eq!(json!(response.diagnostics().errors().count()), case["num_errors"], "{name}");
        let reasons: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        for reason in case["reason"].as_array().unwrap() {
            assert!(reasons.iter().any(|r| reason == r), "{name}: {reason} is not among {reasons:?}");
        }
        let verdict = match (allowed(response.decision()), allowed(ask(Some(true)).decision())) {
            (true, _) => "allow",
            (false, true) => "escalate",
            (false, false) => "deny",
        };
        assert_eq!(case["verdict"], verdict, "{name}");
        used.extend(reasons);
    }
    for rule in snapshot.layers.iter().flat_map(|layer| &layer.rules) {
        assert!(used.contains(&rule.policy.id().to_string()), "no case shows `{}`", rule.policy.id());
    }
    assert!(cases.len() >= 30);
}
