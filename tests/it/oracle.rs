//! The verdict held against its definition: three full policy sets, evaluated each by itself.

use crate::support::number;
use crate::support_policy::{facts, snapshot};
use cedar_policy::{Authorizer, Decision, Entities, Policy, PolicyId, PolicySet, Request};
use expect_test::{Expect, expect};
use warden_core::catalogue::input;
use warden_core::catalogue::ty::Ty;
use warden_core::facts::Facts;
use warden_core::json::{self, Json, Limits};
use warden_core::policy::layer::LayerName;
use warden_core::policy::snapshot::{Case, Snapshot};
use warden_core::proposal::{Ask, Verb};
use warden_core::secrets::Finding;
use warden_core::session::SessionFacts;
use warden_core::session::history::Value as Fact;
use warden_core::verdict::{Verdict, evaluate};

/// SplitMix64: the same for the same seed, everywhere.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

const ERRORS: &str = "9223372036854775807 + context.secret_suspicions > 0";

/// A policy that loads. Some of them fail when they are evaluated.
fn policy(chance: &mut Chance, n: usize) -> String {
    let permit = chance.below(100) < 65;
    let principal = chance.one(&[
        "principal",
        "principal",
        "principal == Worker::\"ann\"",
        "principal == Worker::\"eve\"",
        "principal in Group::\"staff\"",
        "principal is Worker",
    ]);
    let exact = chance.one(&["alpha/read", "alpha/write", "alpha/wipe", "beta/read", "beta/wipe"]);
    let (action, is_call, has_input) = match chance.below(8) {
        0 => ("action".to_owned(), false, false),
        1 => ("action in Action::\"protocol\"".to_owned(), false, false),
        2 => ("action in Action::\"alpha/*\"".to_owned(), true, false),
        3 | 4 => (format!("action == Action::\"{exact}\""), true, true),
        5 => ("action in [Action::\"alpha/read\", Action::\"beta/*\"]".to_owned(), true, false),
        _ => ("action in Action::\"call_tool\"".to_owned(), true, false),
    };
    let resource = if is_call {
        chance.one(&[
            "resource",
            "resource",
            "resource in Server::\"alpha\"",
            "resource == Tool::\"alpha/read\"",
            "resource is Tool",
            "resource is Tool in Server::\"beta\"",
        ])
    } else {
        "resource"
    };
    let mut conditions = Vec::new();
    for _ in 0..chance.below(3) {
        if chance.below(3) == 0 {
            conditions.push(format!("when {{ {} }}", of_session(chance)));
            continue;
        }
        let plain = match chance.below(if has_input {
            8
        } else if is_call {
            6
        } else {
            4
        }) {
            0 => "context.dot_segments".to_owned(),
            1 => "!context.unseen.isEmpty()".to_owned(),
            2 => ERRORS.replace("suspicions", if chance.below(4) == 0 { "suspicions" } else { "findings" }),
            3 => "context.mode == Mode::\"execute\"".to_owned(),
            4 => format!("resource.effect == Effect::\"{}\"", chance.one(&["read", "write", "irreversible"])),
            5 => "resource.listed".to_owned(),
            6 => format!("context.input.path like \"{}\"", chance.one(&["/srv/*", "*", "/etc*"])),
            _ => format!("context.input.count {} 5", chance.one(&["<", ">", "=="])),
        };
        let acknowledged = chance.one(&["", "", "", " && ACK", " || ACK"]);
        let ack = if permit { "context.acknowledged" } else { "!context.acknowledged" };
        conditions.push(format!("when {{ ({plain}){} }}", acknowledged.replace("ACK", ack)));
    }
    if chance.below(5) == 0 {
        conditions
            .push(if permit { "when { context.acknowledged }" } else { "unless { context.acknowledged }" }.to_owned());
    }
    let effect = if permit { "permit" } else { "forbid" };
    format!("@id(\"p{n}\") {effect} ({principal}, {action}, {resource}) {};", conditions.join(" "))
}

/// A condition on a session: what of it a request holds follows what is read here.
fn of_session(chance: &mut Chance) -> &'static str {
    chance.one(&[
        "context has session",
        "context has session && context.session.terminal",
        "context has session && !context.session.facts.seen && context.session.facts.sum < 5",
        "context has session.overrides.region && context.session.overrides.region == \"eu\"",
        "context has session && context.session has confidence && context.session.confidence < 500",
        "context has session && (context.session.overrides has region || context.session[\"status\"] == \"done\")",
        "context has session && {s: context.session}.s.facts.sum + context.session.calls > 6",
        "if context has session then context.session.facts.sum + 9223372036854775800 > 0 else true",
        "if context has session.signal then context.session.signal == \"failed\" else context.dot_segments",
        "context has session && context.session == context.session && context.session.app == App::\"desk\"",
    ])
}

/// A session in any state, or none.
fn session(chance: &mut Chance) -> Option<SessionFacts> {
    let long = |n: usize| i64::try_from(n).unwrap();
    let some = |chance: &mut Chance| chance.below(2) == 0;
    some(chance).then(|| SessionFacts {
        id: "DESK-20260101-001".into(),
        app: "desk".into(),
        status: chance.one(&["running", "done"]).into(),
        terminal: some(chance),
        calls: long(chance.below(10)),
        confidence: some(chance).then(|| long(chance.below(1_000))),
        signal: some(chance).then(|| chance.one(&["failed", "success"]).into()),
        handling: "auto".into(),
        overrides: match chance.below(3) {
            0 => serde_json::Map::new(),
            _ => [("region".to_owned(), chance.one(&["eu", "us"]).into())].into_iter().collect(),
        },
        facts: [
            ("seen".to_owned(), Fact::Seen(some(chance))),
            ("sum".to_owned(), Fact::Number(long(chance.below(12)))),
        ]
        .into_iter()
        .skip(chance.below(2))
        .collect(),
        ..SessionFacts::default()
    })
}

pub fn set(chance: &mut Chance, size: usize) -> String {
    (0..size).map(|n| policy(chance, n)).collect::<Vec<_>>().join("\n")
}

enum Asked {
    Yes,
    No,
    Error,
}

/// One question to every full layer by itself.
fn ask(layers: &[PolicySet], request: &Request, entities: &Entities) -> Asked {
    let responses: Vec<_> = layers.iter().map(|set| Authorizer::new().is_authorized(request, set, entities)).collect();
    if responses.iter().any(|r| r.diagnostics().errors().next().is_some()) {
        return Asked::Error;
    }
    if responses.iter().all(|r| r.decision() == Decision::Allow) { Asked::Yes } else { Asked::No }
}

fn layers(snapshot: &Snapshot, case: &Case<'_>) -> Vec<PolicySet> {
    let of = |layer: &&warden_core::policy::layer::Layer| layer.name != LayerName::Composition || case.in_composition;
    let sets = snapshot.layers.iter().filter(of).map(|layer| {
        let mut set = layer.set();
        if layer.name == LayerName::Charter {
            set.add(Policy::parse(Some(PolicyId::new("top")), "permit(principal, action, resource);").unwrap())
                .unwrap();
        }
        set
    });
    sets.collect()
}

fn arguments(chance: &mut Chance) -> Json {
    let text = format!(r#"{{"path":"{}","count":{}}}"#, chance.one(&["/srv/a", "/etc/x", "b"]), chance.below(10));
    json::parse(text.as_bytes(), Limits::default()).unwrap()
}

/// A random site, and proposals to it.
pub struct Drawn<'s> {
    /// What it was drawn with.
    pub place: String,
    pub snapshot: &'s Snapshot,
    pub case: Case<'s>,
    pub facts: Facts,
}

/// Draws random sites, with and without a composition, and random proposals to each.
pub fn draw(cases: usize, seed: u64, mut see: impl FnMut(Drawn<'_>)) {
    let mut chance = Chance(seed);
    let mut done = 0;
    while done < cases {
        let sizes = (4 + chance.below(14), 2 + chance.below(6));
        let composition = (chance.below(2) == 0).then(|| set(&mut chance, sizes.1));
        let site = set(&mut chance, sizes.0);
        let snapshot = snapshot(&site, composition.as_deref()).unwrap_or_else(|e| panic!("seed={seed}: {e}\n{site}"));
        let mut all: Vec<Case<'_>> = snapshot.cases().collect();
        all.sort_by_key(|case| {
            (case.principal.to_string(), case.target.action.to_string(), case.target.resource.to_string())
        });
        for _ in 0..200.min(cases - done) {
            let case = all[chance.below(all.len())].clone();
            let given = match &case.target.input {
                Ty::Record(fields, _) if fields.contains_key("path") => arguments(&mut chance),
                Ty::Record(fields, _) if !fields.is_empty() => {
                    let text = || Json::String("x".into());
                    let of = |ty: &Ty| if let Ty::Set(_) = ty { Json::Array(vec![text()]) } else { text() };
                    Json::Object(fields.iter().map(|(name, field)| (name.clone(), of(&field.ty))).collect())
                }
                _ => Json::Object(vec![]),
            };
            let input = input::read(&case.target.input, &given).unwrap();
            let findings = usize::from(chance.below(6) == 0);
            let unseen: &[&str] = if chance.below(5) == 0 { &["/x"] } else { &[] };
            let mut facts = facts(findings, chance.below(5) == 0, unseen, input);
            facts.session = session(&mut chance);
            facts.suspicions = (chance.below(12) == 0).then(|| Finding::unscannable("")).into_iter().collect();
            let place = format!(
                "seed={seed} case={done} {} {} on {}\n{site}\n{composition:?}",
                case.principal, case.target.action, case.target.resource
            );
            see(Drawn { place, snapshot: &snapshot, case, facts });
            done += 1;
        }
    }
}

/// The seed of this run.
pub fn seed() -> u64 {
    number("WARDEN_SEED", 20_261_121) as u64
}

#[test]
fn w02_w03_x03_x04_the_verdict_is_that_of_three_full_sets() {
    let (mut done, mut counts, mut errors, mut helped) = (0, [0usize; 3], 0, 0);
    draw(number("WARDEN_ORACLE_CASES", 4_000), seed(), |Drawn { place, snapshot, case, mut facts }| {
        let given_verdict = evaluate(snapshot, &case, &facts).verdict;
        let full = layers(snapshot, &case);
        let first = ask(&full, &snapshot.request(&case, &facts).unwrap(), snapshot.entities());
        facts.acknowledged = true;
        let second = ask(&full, &snapshot.request(&case, &facts).unwrap(), snapshot.entities());
        let expected = match (&first, &second) {
            (Asked::Error, _) => Verdict::Deny,
            (Asked::Yes, _) => Verdict::Allow,
            (Asked::No, Asked::Yes) => Verdict::Escalate,
            (Asked::No, _) => Verdict::Deny,
        };
        assert_eq!(given_verdict, expected, "{place}");
        // An acknowledgement can meet an error that was not reached before, and then it does not help; it never hurts.
        assert!(!matches!((&first, &second), (Asked::Yes, Asked::No)), "acknowledging hurt: {place}");
        errors += usize::from(matches!(first, Asked::Error));
        helped += usize::from(expected == Verdict::Escalate);
        counts[usize::from(expected.rank())] += 1;
        done += 1;
    });
    println!(
        "{done} cases: {} allowed, {} escalated, {} denied, {errors} of them for an error",
        counts[2], counts[1], counts[0]
    );
    assert!(counts.iter().all(|count| count * 100 > done) && errors * 100 > done && helped > 0, "{counts:?} {errors}");
}

fn check(site: &str, findings: usize, dots: bool, expected: Expect) {
    let shown = match snapshot(site, None) {
        Err(problems) => problems
            .0
            .iter()
            .map(|p| format!("{} {}:{} {}", p.code, p.file, p.line, p.message.lines().next().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join("\n"),
        Ok(snapshot) => {
            let verdict = |worker: &str, ask: Ask| {
                let case = snapshot.case(worker, "alpha", &ask).unwrap();
                let given = if matches!(ask, Ask::Tool { .. }) { r#"{"path":"/srv/a","count":1}"# } else { "{}" };
                let given = json::parse(given.as_bytes(), Limits::default()).unwrap();
                let facts = facts(findings, dots, &[], input::read(&case.target.input, &given).unwrap());
                let evaluation = evaluate(&snapshot, &case, &facts);
                format!("{} {}", evaluation.verdict.name(), evaluation.reason)
            };
            let tool = |name: &str| Ask::Tool { name: name.into() };
            ["read", "write", "wipe", "unheard_of"]
                .map(|name| format!("{name}: {}", verdict("ann", tool(name))))
                .into_iter()
                .chain([
                    format!("list: {}", verdict("ann", Ask::Verb(Verb::ListTools))),
                    format!("bob reads: {}", verdict("bob", tool("read"))),
                ])
                .collect::<Vec<_>>()
                .join("\n")
        }
    };
    expected.assert_eq(&shown);
}

#[test]
fn x05_an_empty_site_denies_everything() {
    check(
        "",
        0,
        false,
        expect![[r#"
        read: deny not_on_allowlist
        write: deny not_on_allowlist
        wipe: deny not_on_allowlist
        unheard_of: deny not_on_allowlist
        list: deny not_on_allowlist
        bob reads: deny not_on_allowlist"#]],
    );
}

#[test]
fn x03_escalate_is_what_an_acknowledgement_would_allow() {
    check(
        "@id(\"a\") permit (principal, action, resource);",
        0,
        false,
        expect![[r#"
        read: allow allowed
        write: allow allowed
        wipe: escalate irreversible_effect
        unheard_of: escalate production_effect
        list: allow allowed
        bob reads: allow allowed"#]],
    );
    check(
        "@id(\"a\") permit (principal, action, resource);",
        1,
        false,
        expect![[r#"
        read: deny secret_found
        write: deny secret_found
        wipe: deny secret_found
        unheard_of: deny secret_found
        list: deny secret_found
        bob reads: deny secret_found"#]],
    );
    check(
        "@id(\"a\") permit (principal, action, resource);",
        0,
        true,
        expect![[r#"
        read: escalate dot_segments
        write: escalate dot_segments
        wipe: escalate dot_segments
        unheard_of: escalate dot_segments
        list: escalate dot_segments
        bob reads: escalate dot_segments"#]],
    );
    check(
        "@id(\"a\") permit (principal in Group::\"staff\", action in Action::\"call_tool\", resource) when { context.acknowledged };",
        0,
        false,
        expect![[r#"
            read: escalate acknowledgement_required
            write: escalate acknowledgement_required
            wipe: escalate irreversible_effect
            unheard_of: escalate production_effect
            list: deny not_on_allowlist
            bob reads: deny not_on_allowlist"#]],
    );
    check(
        "@id(\"a\") permit (principal, action, resource);\n@id(\"b\") @reason(\"not_today\") forbid (principal, action == Action::\"alpha/read\", resource) when { context.input.path like \"/srv/*\" };",
        0,
        false,
        expect![[r#"
            read: deny not_today
            write: allow allowed
            wipe: escalate irreversible_effect
            unheard_of: escalate production_effect
            list: allow allowed
            bob reads: deny not_today"#]],
    );
}

#[test]
fn x04_an_erroring_forbid_never_allows() {
    check(
        "@id(\"a\") permit (principal, action, resource);\n@id(\"b\") forbid (principal, action == Action::\"alpha/read\", resource) when { 9223372036854775807 + context.input.count < 0 };",
        0,
        false,
        expect![[r#"
            read: deny policy_error
            write: allow allowed
            wipe: escalate irreversible_effect
            unheard_of: escalate production_effect
            list: allow allowed
            bob reads: deny policy_error"#]],
    );
    // Allowed once acknowledged, but failing before: not a question for a person.
    check(
        "@id(\"a\") permit (principal, action == Action::\"alpha/read\", resource) when { context.acknowledged || 9223372036854775807 + context.input.count < 0 };",
        0,
        false,
        expect![[r#"
            read: deny policy_error
            write: deny not_on_allowlist
            wipe: deny not_on_allowlist
            unheard_of: deny not_on_allowlist
            list: deny not_on_allowlist
            bob reads: deny policy_error"#]],
    );
}

#[test]
fn x05_what_cannot_be_trusted_is_not_loaded() {
    for (site, expected) in [
        ("permit (principal, action, resource);", expect!["missing_id test.cedar:1 a policy without `@id`"]),
        (
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
            expect!["duplicate_id test.cedar:2 `@id` stands at test.cedar:1 already"],
        ),
        (
            "@id(\"a\") permit (principal == ?principal, action, resource);",
            expect!["template test.cedar:1 templates are not accepted"],
        ),
        (
            "@id(\"a\") permit (principal, action == Action::\"alpha/raed\", resource);",
            expect![[r#"invalid test.cedar:1 unrecognized action `Action::"alpha/raed"` (and 2 more)"#]],
        ),
        (
            "@id(\"a\") permit (principal, action in Action::\"call_tool\", resource) when { resource.effect == Effect::\"raed\" };",
            expect![[
                r#"invalid test.cedar:1 entity `Effect::"raed"` is of an enumerated entity type, but `"raed"` is not declared as a valid eid"#
            ]],
        ),
        (
            "@id(\"a\") permit (principal, action == Action::\"alpha/read\", resource) when { context.input.pth == \"x\" };",
            expect![[r#"invalid test.cedar:1 attribute `input.pth` in context for Action::"alpha/read" not found"#]],
        ),
        (
            "@id(\"a\") permit (principal, action in Action::\"call_tool\", resource) when { context.input.path == \"x\" };",
            expect![[
                r#"invalid test.cedar:1 attribute `input` in context for Action::"call_tool/unlisted" not found"#
            ]],
        ),
        (
            "@id(\"a\") permit (principal, action in Action::\"call_tool\", resource in Server::\"alhpa\");",
            expect![[
                r#"invalid test.cedar:1 entity `Server::"alhpa"` is of an enumerated entity type, but `"alhpa"` is not declared as a valid eid"#
            ]],
        ),
        (
            "@id(\"a\") permit (principal == Worker::\"annn\", action, resource);",
            expect![[r#"unknown_entity test.cedar:1 no such entity: `Worker::"annn"`"#]],
        ),
        (
            "@id(\"a\") forbid (principal, action, resource) when { context.acknowledged };",
            expect!["acknowledgement_polarity test.cedar:1 acknowledging could make something less allowed"],
        ),
        (
            "@id(\"a\") permit (principal, action, resource) when { {x: context}.x.acknowledged };",
            expect!["bare_context test.cedar:1 `context` is used as a value"],
        ),
        (
            "@id(\"a\") @reason(\"Not Today\") forbid (principal, action, resource);",
            expect!["reason_code test.cedar:1 `@reason` is a code in snake_case"],
        ),
        (
            "@id(\"a\") permit (principal, action, resource) when { false };",
            expect![
                "invalid test.cedar:1 policy is impossible: the policy expression evaluates to false for all valid requests"
            ],
        ),
        ("@id(\"a\") permit (principal action, resource);", expect!["syntax test.cedar:1 unexpected token `action`"]),
    ] {
        check(site, 0, false, expected);
    }
}

#[test]
fn a_composition_narrows_and_never_widens() {
    let all = "@id(\"a\") permit (principal, action, resource);";
    let reads = "@id(\"r\") permit (principal, action == Action::\"alpha/read\", resource);";
    let verdict = |site: &str, composition: Option<&str>, tool: &str| {
        let snapshot = snapshot(site, composition).unwrap();
        let case = snapshot.case("eve", "alpha", &Ask::Tool { name: tool.into() }).unwrap();
        let given = json::parse(br#"{"path":"a","count":1}"#, Limits::default()).unwrap();
        let evaluation =
            evaluate(&snapshot, &case, &facts(0, false, &[], input::read(&case.target.input, &given).unwrap()));
        (evaluation.verdict, snapshot.is_listed("eve", "alpha", &Ask::Tool { name: tool.into() }))
    };
    assert_eq!(verdict(all, None, "write"), (Verdict::Allow, true));
    assert_eq!(verdict(all, Some(reads), "read"), (Verdict::Allow, true));
    assert_eq!(verdict(all, Some(reads), "write"), (Verdict::Deny, false));
    assert_eq!(verdict(reads, Some(all), "write"), (Verdict::Deny, false));
    assert_eq!(verdict(reads, Some(all), "read"), (Verdict::Allow, true));
}

#[test]
fn a_worker_whose_composition_is_unknown_is_denied() {
    let mut source = crate::support_policy::source("@id(\"a\") permit (principal, action, resource);", None);
    source.workers[2].composition = Some("nowhere".into());
    let snapshot = Snapshot::build(source).unwrap();
    let case = snapshot.case("eve", "alpha", &Ask::Verb(Verb::ListTools)).unwrap();
    let evaluation = evaluate(
        &snapshot,
        &case,
        &facts(0, false, &[], input::read(&case.target.input, &Json::Object(vec![])).unwrap()),
    );
    assert_eq!((evaluation.verdict, evaluation.reason.as_str()), (Verdict::Deny, "composition_unresolved"));
}
