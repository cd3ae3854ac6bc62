//! The composition layer beside the lattice that it is written from: what Cedar says is what the maps say, for any tree and any call.

use crate::support_policy::facts;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warden_adapters::compositions::read;
use warden_core::authoring::case::Suite;
use warden_core::authoring::matrix::cell;
use warden_core::authoring::redecide::{Cannot, Recorded, Redecider};
use warden_core::catalogue::input::{Input, read as read_input};
use warden_core::catalogue::{Catalogue, Effect, Tool};
use warden_core::composition::permission::{Grant, Target};
use warden_core::composition::register::Checked;
use warden_core::facts::Facts;
use warden_core::json::Json;
use warden_core::policy::layer::SourceFile;
use warden_core::policy::snapshot::{Engine, Snapshot, Source, Worker};
use warden_core::proposal::{Ask, EngineAsk, TaskFacts, TaskId, Verb};
use warden_core::verdict::{Verdict, evaluate};

const TOOLS: [(&str, Effect, bool); 5] = [
    ("read_a", Effect::Read, false),
    ("read_b", Effect::Read, true),
    ("write_a", Effect::Write, false),
    ("run", Effect::Write, true),
    ("a/b-c.d", Effect::Write, false),
];

fn catalogue() -> Catalogue {
    let tool = |(name, effect, is_bash): (&str, Effect, bool)| {
        let listed = Tool::listed(json!({ "name": name, "inputSchema": { "type": "object" } }));
        let groups = if is_bash { BTreeSet::from(["bash".to_owned()]) } else { BTreeSet::new() };
        (name.to_owned(), Tool { effect: Some(effect), groups, ..listed })
    };
    let servers = ["git", "mail"].map(|server| (server.to_owned(), TOOLS.map(tool).into()));
    Catalogue { servers: servers.into(), ..Catalogue::default() }
}

fn snapshot(tree: &Value) -> (Snapshot, Arc<Checked>) {
    let checked = Arc::new(read(tree, &BTreeSet::new()).unwrap_or_else(|problems| panic!("{problems:?}")));
    let everything = "@id(\"all\") @unscoped(\"here\") permit (principal, action, resource);";
    let source = Source {
        site: vec![SourceFile { name: "all.cedar".into(), text: everything.into() }],
        trees: BTreeMap::from([("t@1".to_owned(), checked.clone())]),
        workers: vec![Worker { name: "w".into(), composition: Some("t@1".into()), ..Worker::default() }],
        servers: vec!["git".into(), "mail".into()],
        engines: vec![Engine { id: "e".into(), kind: "openai".into(), zone: String::new() }],
        catalogue: catalogue(),
        ..Source::default()
    };
    (Snapshot::build(source).unwrap(), checked)
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "*",
        "bash",
        "read",
        "engine",
        "task",
        "git",
        "mail",
        "git/*",
        "git/read_*",
        "mail/run",
        "*/write_a",
        "g?t/run",
        "git/a/b-c.d",
    ])
    .prop_map(str::to_owned)
}

fn grant() -> impl Strategy<Value = Value> {
    prop::sample::select(vec!["deny", "ask", "allow"]).prop_map(Value::from)
}

fn map() -> impl Strategy<Value = Value> {
    let nested = (
        prop::sample::select(vec!["git", "task", "read"]),
        prop::sample::select(vec!["*", "read_a", "s1", "git/*"]),
        grant(),
    )
        .prop_map(|(key, inner, grant)| {
            let inner = if key == "read" { "git/read_a" } else { inner };
            (key.to_owned(), json!({ inner: grant }))
        });
    let plain = (key(), grant());
    prop::collection::vec(prop_oneof![4 => plain, 1 => nested], 0..5)
        .prop_map(|keys| Value::Object(keys.into_iter().collect()))
}

fn tools() -> impl Strategy<Value = Value> {
    let one = prop_oneof![
        Just(json!({ "kind": "provider", "providerKind": "mcp_server", "resourceId": "git" })),
        Just(json!({ "kind": "tool", "providerKind": "mcp_server", "resourceId": "mail", "toolName": "run" })),
        Just(json!({ "kind": "provider", "providerKind": "builtin", "resourceId": "x" })),
    ];
    prop_oneof![3 => Just(json!([])), 1 => prop::collection::vec(one, 1..3).prop_map(Value::from)]
}

/// At most four levels, with slugs that come back.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = (prop::sample::select(vec!["s0", "s1", "s2"]), map(), map(), tools()).prop_map(|(slug, authored, own, tools)| {
        json!({ "agent": { "slug": slug, "permission": authored }, "skills": [], "tools": tools, "permission": own, "children": [] })
    });
    let node = leaf.prop_recursive(3, 8, 3, |inner| {
        (prop::sample::select(vec!["s0", "s1", "s2"]), map(), tools(), prop::collection::vec(inner, 0..3)).prop_map(
            |(slug, own, tools, children)| {
                json!({ "agent": { "slug": slug }, "skills": [], "tools": tools, "permission": own, "children": children })
            },
        )
    });
    node.prop_map(|root| json!({ "slug": "t", "version": "1", "root": root }))
}

/// The verdict that a grant comes to where everything else permits.
fn verdict(grant: Grant) -> Verdict {
    match grant {
        Grant::Deny => Verdict::Deny,
        Grant::Ask => Verdict::Escalate,
        Grant::Allow => Verdict::Allow,
    }
}

/// Nothing remarkable about it; arguments as `input` has them.
fn plain(input: Input) -> Facts {
    facts(0, false, &[], input)
}

fn says(snapshot: &Snapshot, worker: &str, server: &str, ask: &Ask) -> Verdict {
    let case = snapshot.case(worker, server, ask).unwrap_or_else(|why| panic!("{worker} {server} {ask:?}: {why:?}"));
    let arguments = match ask {
        Ask::Delegate { node } => json!({ "node": node, "ttl_s": 1 }),
        Ask::Engine(_) => json!({ "api": "chat", "model": "m", "stream": false, "tools": [] }),
        _ => json!({}),
    };
    let input = read_input(&case.target.input, &Json::from(&arguments)).unwrap();
    let input = Input { unseen: Vec::new(), ..input };
    evaluate(snapshot, &case, &plain(input)).verdict
}

fn engine() -> Ask {
    Ask::Engine(Box::new(EngineAsk {
        engine: "e".into(),
        verb: Verb::CallEngine,
        task: TaskId::new("t"),
        facts: TaskFacts::default(),
        at_most: warden_core::amount::Amount::ZERO,
        priced: true,
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn s4_18_s4_20_what_is_compiled_says_what_the_lattice_says_and_nobody_exceeds_what_is_above(tree in tree()) {
        let (snapshot, checked) = snapshot(&tree);
        for node in &checked.nodes {
            let worker = if node.path.is_empty() { "w".to_owned() } else { format!("w/{}", node.path) };
            let above = node.parent.map(|parent| &checked.nodes[parent]);
            for server in ["git", "mail"] {
                for (name, effect, is_bash) in TOOLS {
                    let target = Target::Tool { server, tool: Some(name), is_read: effect == Effect::Read, is_bash };
                    let grant = node.effective.grant(&target);
                    let said = says(&snapshot, &worker, server, &Ask::Tool { name: name.to_owned() });
                    prop_assert_eq!(said, verdict(grant), "{} {}/{}", worker, server, name);
                    if let Some(above) = above {
                        prop_assert!(grant <= above.effective.grant(&target));
                    }
                }
                // A tool that nobody has listed gets no more than any that could stand under its name.
                let unlisted = says(&snapshot, &worker, server, &Ask::Tool { name: "unheard_of".into() });
                let least = TOOLS.iter().map(|(name, effect, is_bash)| node.effective.grant(&Target::Tool {
                    server, tool: Some(name), is_read: *effect == Effect::Read, is_bash: *is_bash })).max();
                prop_assert!(unlisted.rank() <= verdict(least.unwrap()).rank(), "{} unlisted of {}", worker, server);
            }
            prop_assert_eq!(says(&snapshot, &worker, "", &engine()), verdict(node.effective.grant(&Target::Engine { id: "e" })));
            for below in snapshot.nodes_of(&worker) {
                let slug = below.rsplit('/').next().unwrap();
                let said = says(&snapshot, &worker, "", &Ask::Delegate { node: below.clone() });
                prop_assert_eq!(said, verdict(node.effective.grant(&Target::Delegate { slug })), "{} lets {} act", worker, below);
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("WARDEN_LATTICE_CASES").map_or(24, |cases| cases.parse().unwrap())
}

/// The site's own rules bind a node as they bind the worker that it comes from.
#[test]
fn s4_20_a_rule_on_the_worker_binds_its_nodes_and_a_permit_for_a_node_alone_gives_nothing() {
    let node = |slug: &str, children: Value| json!({ "agent": { "slug": slug }, "skills": [], "tools": [], "children": children });
    let tree =
        json!({ "slug": "t", "version": "1", "root": node("root", json!([node("a", json!([node("b", json!([]))]))])) });
    let checked = Arc::new(read(&tree, &BTreeSet::new()).unwrap());
    let site = r#"
        @id("reads") permit (principal in Worker::"w", action in Action::"git/*", resource);
        @id("not_this") forbid (principal == Worker::"w", action == Action::"git/run", resource);
        @id("node_alone") permit (principal == Worker::"w/a", action == Action::"mail/run", resource);
        @id("asked") forbid (principal == Worker::"w/a", action == Action::"git/write_a", resource) unless { context.acknowledged };"#;
    let snapshot = Snapshot::build(Source {
        site: vec![SourceFile { name: "site.cedar".into(), text: site.into() }],
        trees: BTreeMap::from([("t@1".to_owned(), checked)]),
        workers: vec![Worker { name: "w".into(), composition: Some("t@1".into()), ..Worker::default() }],
        servers: vec!["git".into(), "mail".into()],
        catalogue: catalogue(),
        ..Source::default()
    })
    .unwrap();
    let says =
        |worker: &str, server: &str, name: &str| says(&snapshot, worker, server, &Ask::Tool { name: name.into() });
    for worker in ["w", "w/a", "w/a/b"] {
        assert_eq!(says(worker, "git", "read_a"), Verdict::Allow, "{worker}");
        assert_eq!(says(worker, "git", "run"), Verdict::Deny, "{worker}");
        assert_eq!(says(worker, "mail", "run"), Verdict::Deny, "{worker}");
    }
    assert_eq!(
        ["w", "w/a", "w/a/b"].map(|worker| says(worker, "git", "write_a")),
        [Verdict::Allow, Verdict::Escalate, Verdict::Escalate]
    );
    // A list shows what is not sure to be refused, there or above.
    for worker in ["w", "w/a", "w/a/b"] {
        let shown = |name: &str| snapshot.is_listed(worker, "git", &Ask::Tool { name: name.into() });
        assert_eq!(["read_a", "write_a", "run"].map(shown), [true, true, false], "{worker}");
    }
}

/// What operators are told of a node is what the gateway says, with what is above it.
#[test]
fn s4_20_the_matrix_and_cases_and_replay_ask_what_is_above_a_node() {
    let node = |slug: &str, children: Value| json!({ "agent": { "slug": slug }, "skills": [], "tools": [], "children": children });
    let tree = json!({ "slug": "t", "version": "1", "root": node("root", json!([node("a", json!([]))])) });
    let site = r#"
        @id("all") @unscoped("here") permit (principal, action, resource);
        @id("not_this") forbid (principal == Worker::"w", action == Action::"git/run", resource);
        @id("not_there") forbid (principal == Worker::"w", action == Action::"git/write_a", resource) when { context.input.to == "eve" };"#;
    let schema = json!({ "type": "object", "required": ["to"], "properties": { "to": { "type": "string" } } });
    let tool =
        Tool { effect: Some(Effect::Write), ..Tool::listed(json!({ "name": "write_a", "inputSchema": schema })) };
    let mut catalogue = catalogue();
    catalogue.servers.get_mut("git").unwrap().insert("write_a".into(), tool);
    let snapshot = Snapshot::build(Source {
        site: vec![SourceFile { name: "site.cedar".into(), text: site.into() }],
        trees: BTreeMap::from([("t@1".to_owned(), Arc::new(read(&tree, &BTreeSet::new()).unwrap()))]),
        workers: vec![Worker { name: "w".into(), composition: Some("t@1".into()), ..Worker::default() }],
        servers: vec!["git".into(), "mail".into()],
        catalogue,
        ..Source::default()
    })
    .unwrap();
    let mark = |worker: &str, tool: &str| {
        let case = snapshot.case(worker, "git", &Ask::Tool { name: tool.into() }).unwrap();
        cell(&snapshot, &case).mark()
    };
    assert_eq!(["read_a", "run", "write_a"].map(|tool| mark("w/a", tool)), ["✔", "✘", "✔✘"]);

    let case = |decision: &str| {
        let request =
            json!({ "principal": "Worker::\"w/a\"", "action": "Action::\"git/run\"", "resource": "Tool::\"git/run\"" });
        serde_json::from_value(json!({ "name": decision, "request": request, "decision": decision })).unwrap()
    };
    let failed = Suite::new(&snapshot, vec![case("allow"), case("deny")]).run();
    assert_eq!(failed.iter().map(|failed| failed.name.as_str()).collect::<Vec<_>>(), ["allow"]);

    // Without its arguments nobody can say what the rule above it makes of a call.
    let recorded = json!({ "ts": "2026-11-21T08:00:00Z", "id": "d", "worker": "w/a", "server": "git", "tool": "write_a",
        "principal": { "type": "Worker", "id": "w/a" }, "action": "git/write_a", "resource": { "type": "Tool", "id": "git/write_a" },
        "context": { "acknowledged": false, "mode": "execute", "secret_findings": [], "secret_suspicions": 0, "unseen": [],
            "dot_segments": false, "input": null },
        "level": "metadata", "verdict": "deny", "reason": "forbidden", "policies": [], "enforced": "gateway",
        "digests": { "catalogue": snapshot.digests.catalogue } })
    .to_string();
    let none = |_: &str| None;
    let replayed = Redecider::new(&snapshot, &none).decide(&serde_json::from_str::<Recorded<'_>>(&recorded).unwrap());
    assert_eq!(replayed.unwrap_err(), Cannot::NoInput);
}

/// A model override binds the engine door.
#[test]
fn s4_07_s4_24_a_model_override_is_what_its_node_may_call() {
    let node = |slug: &str, model: Value, children: Value| json!({ "agent": { "slug": slug }, "skills": [], "tools": [], "children": children, "modelOverride": model });
    let concrete = json!({ "kind": "concrete", "modelId": "m1", "providerSlug": "e" });
    let elsewhere = json!({ "kind": "concrete", "modelId": "m1", "providerSlug": "other" });
    // What does not belong to its kind says nothing.
    let class = json!({ "kind": "strategy", "modelClass": "review", "modelId": "m1" });
    let empty = json!({ "kind": "strategy", "modelClass": "coding" });
    let children = json!([
        node("one", concrete, json!([])),
        node("two", elsewhere, json!([])),
        node("three", class, json!([])),
        node("four", empty, json!([]))
    ]);
    let tree = json!({ "slug": "t", "version": "1", "root": node("root", json!({ "kind": "concrete", "modelId": "m0" }), children) });
    let checked = Arc::new(read(&tree, &BTreeSet::new()).unwrap());
    let snapshot = Snapshot::build(Source {
        site: vec![SourceFile {
            name: "s.cedar".into(),
            text: "@id(\"all\") permit (principal, action, resource);".into(),
        }],
        trees: BTreeMap::from([("t@1".to_owned(), checked)]),
        workers: vec![Worker { name: "w".into(), composition: Some("t@1".into()), ..Worker::default() }],
        engines: vec![Engine { id: "e".into(), kind: "openai".into(), zone: String::new() }],
        model_classes: BTreeMap::from([("review".to_owned(), vec!["e/big-*".to_owned()])]),
        ..Source::default()
    })
    .unwrap();
    let calls = |worker: &str, model: &str| {
        let case = snapshot.case(worker, "", &engine()).unwrap();
        let arguments = json!({ "api": "chat", "model": model, "stream": false, "tools": [] });
        let input = read_input(&case.target.input, &Json::from(&arguments)).unwrap();
        evaluate(&snapshot, &case, &plain(input)).verdict == Verdict::Allow
    };
    for (worker, m1, big) in [
        ("w", false, false),
        ("w/one", true, false),
        ("w/two", false, false),
        ("w/three", false, true),
        ("w/four", false, false),
    ] {
        assert_eq!((calls(worker, "m1"), calls(worker, "big-7")), (m1, big), "{worker}");
    }
}
