//! What authors are told, held against what decides: on random sites and proposals.

use crate::oracle::{Chance, Drawn, draw, seed, set};
use crate::support::number;
use crate::support_policy::{facts, source};
use cedar_policy::{Authorizer, Effect, PolicySet};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use warden_core::authoring::cover::{Parts, Truth};
use warden_core::authoring::explain::explain;
use warden_core::authoring::matrix;
use warden_core::authoring::question::Question;
use warden_core::authoring::redecide::{Cannot, Recorded, Redecider};
use warden_core::catalogue::input;
use warden_core::facts::Facts;
use warden_core::json::{self, Limits};
use warden_core::policy::layer::{Standing, Stood};
use warden_core::policy::snapshot::{Case, Snapshot};
use warden_core::verdict::{Verdict, evaluate, under_charter};

fn cases() -> usize {
    (number("WARDEN_ORACLE_CASES", 4_000) / 4).min(5_000)
}

/// The whole layers of a case, as one set.
fn whole(snapshot: &Snapshot, case: &Case<'_>, context: Value) -> (Question, PolicySet) {
    let question = Question {
        principal: case.principal.clone().into_owned(),
        action: case.target.action.clone(),
        resource: case.resource.clone().into_owned(),
        context,
    };
    let set = question.layers(snapshot);
    (question, set)
}

fn context(snapshot: &Snapshot, case: &Case<'_>, facts: &Facts) -> Value {
    snapshot.request(case, facts).unwrap().context().unwrap().to_json_value().unwrap()
}

#[test]
fn cases_answer_as_the_gateway_decides() {
    draw(cases(), seed(), |Drawn { place, snapshot, case, facts }| {
        let (question, set) = whole(snapshot, &case, context(snapshot, &case, &facts));
        let answer = question.answer(snapshot, &set, snapshot.entities()).unwrap();
        let decided = evaluate(snapshot, &case, &facts);
        assert_eq!(answer.verdict, decided.verdict, "{place}");
        if decided.reason != "not_on_allowlist" {
            assert!(
                decided.policies.iter().all(|policy| answer.policies.contains(policy)),
                "{answer:?} {decided:?} {place}"
            );
        }
    });
}

#[test]
fn a_rule_matches_when_its_scope_and_all_its_clauses_do() {
    let mut failed_alone = 0;
    draw(cases(), seed(), |Drawn { place, snapshot, case, facts }| {
        let parts = Parts::of(snapshot.live_rules());
        let request = snapshot.request(&case, &facts).unwrap();
        for (rule, state) in snapshot.live_rules().zip(parts.look(&request, snapshot.entities())) {
            let alone = PolicySet::from_policies([rule.policy.clone()]).unwrap();
            let response = Authorizer::new().is_authorized(&request, &alone, snapshot.entities());
            let matched = response.diagnostics().reason().next().is_some();
            assert_eq!(state.matches(), matched, "{} {state:?} {place}", rule.policy.id());
            if let Some(number) = state.deciding() {
                assert!(!matched && state.clauses[number] == Truth::Fails, "{place}");
                failed_alone += 1;
            }
        }
    });
    assert!(failed_alone > 100, "{failed_alone}");
}

#[test]
fn a_cell_of_the_matrix_holds_every_verdict_that_arguments_can_bring_about() {
    let mut chance = Chance(seed());
    let (mut depends, mut both) = (0, 0);
    for _ in 0..cases() / 10 {
        let rule = |n: usize, chance: &mut Chance| {
            let permit = chance.below(3) > 0;
            let argument = chance.one(&[
                "context.input.path like \"/srv/*\"",
                "context.input.count < 5",
                "context.input.path == \"b\"",
            ]);
            let acked = if permit { "context.acknowledged" } else { "!context.acknowledged" };
            let form = chance.one(&["ARG", "ARG && ACK", "ARG || ACK", "ACK", "!(ARG)", "resource.listed && ARG"]);
            let when = form.replace("ARG", argument).replace("ACK", acked);
            let kind = if chance.below(4) == 0 && form == "ARG" { "unless" } else { "when" };
            format!(
                "@id(\"p{n}\") {} (principal, action == Action::\"alpha/write\", resource) {kind} {{ {when} }};",
                if permit { "permit" } else { "forbid" }
            )
        };
        let text: Vec<String> = (0..1 + chance.below(4)).map(|n| rule(n, &mut chance)).collect();
        let snapshot = Snapshot::build(source(&text.join("\n"), None)).unwrap();
        let ask = warden_core::proposal::Ask::Tool { name: "write".into() };
        let case = snapshot.case("ann", "alpha", &ask).unwrap();
        let marks: Vec<char> = matrix::cell(&snapshot, &case).mark().chars().collect();
        let rank = |mark: char| "✘?✔".chars().position(|known| known == mark).unwrap();
        let (best, worst) = (rank(marks[0]), rank(*marks.last().unwrap()));
        let mut seen = std::collections::BTreeSet::new();
        for (path, count) in [("/srv/a", 1), ("/srv/a", 9), ("b", 1), ("b", 9), ("c", 1), ("c", 9)] {
            let given =
                json::parse(json!({ "path": path, "count": count }).to_string().as_bytes(), Limits::default()).unwrap();
            let facts = facts(0, false, &[], input::read(&case.target.input, &given).unwrap());
            seen.insert(usize::from(evaluate(&snapshot, &case, &facts).verdict.rank()));
        }
        assert!(seen.iter().all(|rank| (worst..=best).contains(rank)), "{seen:?} is not within {marks:?}\n{text:#?}");
        depends += usize::from(marks.len() > 1);
        both += usize::from(seen.contains(&best) && seen.contains(&worst));
    }
    // Mostly it is not only a bound: both ends do happen.
    assert!(depends > 20 && both * 2 > cases() / 10, "{depends} {both}");
}

/// A decision's record, as much of it as replay reads.
fn recorded(case: &Case<'_>, facts: &Facts, verdict: Verdict, digest: &str) -> String {
    let action: &str = case.target.action.id().as_ref();
    let (server, tool) = match (action, action.split_once('/')) {
        ("call_tool/unlisted", _) => {
            (case.resource_record.value()["parents"][0].as_str().unwrap_or_default(), Some("unheard_of"))
        }
        (_, Some((server, tool))) => (server, Some(tool)),
        _ => (case.resource_record.value()["id"].as_str().unwrap_or_default(), None),
    };
    let resource = case.resource_record.value();
    let findings: Vec<Value> = facts.findings.iter().map(|_| json!({})).collect();
    json!({ "ts": "2026-11-21T08:00:00Z", "id": "d", "worker": case.principal.id().unescaped(), "server": server, "tool": tool,
        "principal": { "type": "Worker", "id": "x" }, "action": action, "resource": { "type": resource["type"], "id": resource["id"] },
        "context": { "acknowledged": false, "mode": "execute", "secret_findings": findings, "secret_suspicions": facts.suspicions.len(),
            "unseen": facts.input.unseen, "dot_segments": facts.dot_segments, "session": facts.session, "input": facts.input.record },
        "verdict": verdict, "reason": "allowed", "policies": [], "enforced": "gateway", "digests": { "catalogue": digest } })
    .to_string()
}

#[test]
fn what_was_recorded_is_decided_again_the_same() {
    let mut again = 0;
    draw(cases(), seed(), |Drawn { place, snapshot, case, facts }| {
        let decided = evaluate(snapshot, &case, &facts);
        let text = recorded(&case, &facts, decided.verdict, &snapshot.digests.catalogue);
        let record: Recorded<'_> = serde_json::from_str(&text).unwrap();
        let none = |_: &str| None;
        let mut redecider = Redecider::new(snapshot, &none);
        let replayed = redecider.decide(&record).unwrap_or_else(|why| panic!("{}: {text} {place}", why.says()));
        assert_eq!(replayed, decided, "{place}");
        // An argument that is lost matters exactly when a rule reads it, and then nothing is guessed.
        if let Some(path) = facts.input.record.get("path").and_then(Value::as_str) {
            let cut = text
                .replace(&json!(path).to_string(), &json!({ "cut": path, "bytes": 9999, "tag": "k:0" }).to_string());
            let record: Recorded<'_> = serde_json::from_str(&cut).unwrap();
            match redecider.decide(&record) {
                Ok(same) => assert_eq!(same, decided, "{place}"),
                Err(why) => assert_eq!(why, Cannot::Cut, "{place}"),
            }
            again += 1;
        }
    });
    assert!(again > 50, "{again}");
}

#[test]
fn every_nearest_change_is_one_that_the_engine_confirms_and_charter_findings_stay() {
    let (mut ways, mut explained) = (0, 0);
    draw(cases() / 4, seed(), |Drawn { place, snapshot, case, facts }| {
        let explanation = explain(snapshot, &case, &facts).unwrap();
        let decided = evaluate(snapshot, &case, &facts);
        assert_eq!((explanation.verdict, &explanation.reason), (decided.verdict, &decided.reason), "{place}");
        for layer in &explanation.layers {
            for rule in layer.rules.iter().filter(|rule| rule.matches && rule.effect == "forbid") {
                assert_ne!(decided.verdict, Verdict::Allow, "{} forbids: {place}", rule.id);
            }
        }
        for way in &explanation.nearest {
            assert!(way.verdict.rank() > decided.verdict.rank() && !way.changes.is_empty(), "{way:?} {place}");
            // With a secret value in it, every way is one without.
            assert!(
                facts.findings.is_empty() || way.changes.iter().any(|c| c.contains("no secret value")),
                "{way:?} {place}"
            );
            ways += 1;
        }
        explained += 1;
    });
    assert!(ways > 12, "{ways} of {explained}");
}

#[test]
fn w02_rules_in_shadow_decide_nothing_and_say_what_they_would() {
    let mut chance = Chance(seed());
    let (mut beside, mut through) = (0, 0);
    for round in 0..cases() / 100 {
        let text = set(&mut chance, 12);
        let whole = source(&text, None);
        let full = Snapshot::build(whole.clone()).unwrap();
        let mut standings = BTreeMap::new();
        let mut kept = String::new();
        for (line, rule) in text.lines().zip(full.live_rules().filter(|rule| rule.file == "test.cedar")) {
            if chance.below(3) == 0 {
                let id = rule.policy.id().to_string().replace("site/", "");
                standings.insert(id, Stood { standing: Standing::Shadow, of: rule.hash() });
            } else {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        let mut shadowed = whole.clone();
        shadowed.standings = standings;
        let shadowed = Snapshot::build(shadowed).unwrap();
        let without = Snapshot::build(source(&kept, None)).unwrap();
        for case in shadowed.cases() {
            let text = r#"{"path":"/srv/a","count":3}"#;
            let given = json::parse(text.as_bytes(), Limits::default()).unwrap();
            let Ok(input) = input::read(&case.target.input, &given) else { continue };
            let facts = facts(usize::from(chance.below(8) == 0), chance.below(5) == 0, &[], input);
            let decided = evaluate(&shadowed, &case, &facts);
            let Some((server, tool)) = case.target.action.id().unescaped().split_once('/') else { continue };
            let ask = warden_core::proposal::Ask::Tool { name: tool.to_owned() };
            let worker = case.principal.id().unescaped();
            if server == "call_tool" {
                continue;
            }
            let of = |snapshot: &Snapshot| evaluate(snapshot, &snapshot.case(worker, server, &ask).unwrap(), &facts);
            let (live, all) = (of(&without), of(&full));
            assert_eq!(
                (decided.verdict, &decided.policies),
                (live.verdict, &live.policies),
                "round {round}\n{text}\n{kept}"
            );
            match &decided.would_be {
                Some(would_be) => assert_eq!((would_be.verdict, &would_be.policies), (all.verdict, &all.policies)),
                None => assert_eq!((decided.verdict, &decided.policies), (all.verdict, &all.policies)),
            }
            beside += usize::from(decided.would_be.is_some());
            // What the charter says is the same, whatever stands in shadow.
            let charter = under_charter(&shadowed, &case, &facts).unwrap().verdict;
            assert!(decided.verdict.rank() <= charter.rank());
            through += usize::from(charter == Verdict::Allow && decided.verdict == Verdict::Deny);
        }
    }
    assert!(beside > 20 && through > 20, "{beside} {through}");
}

#[test]
fn a_mutant_is_another_policy_and_loads() {
    use warden_core::authoring::mutate::mutants;
    let mut chance = Chance(seed());
    let mut count = 0;
    for _ in 0..10 {
        let snapshot = Snapshot::build(source(&set(&mut chance, 10), None)).unwrap();
        for rule in snapshot.live_rules() {
            let own = rule.policy.to_json().unwrap();
            for mutant in mutants(&snapshot, rule) {
                let Some(policy) = mutant.policy else { continue };
                assert_ne!(policy.to_json().unwrap(), own, "{}", mutant.what);
                assert_eq!((policy.id(), policy.effect()), (rule.policy.id(), rule.policy.effect()));
                assert!([Effect::Permit, Effect::Forbid].contains(&policy.effect()));
                count += 1;
            }
        }
    }
    assert!(count > 100, "{count}");
}
