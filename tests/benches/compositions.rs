//! `cargo bench`: what a tree of agents costs to resolve, and what a composition and a session's history add to a verdict.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a bench says what it means")]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use warden_adapters::compositions::{PROVIDER_KINDS, read};
use warden_core::catalogue::{Catalogue, Effect, Tool, input};
use warden_core::composition::resolve::resolve;
use warden_core::facts::{Facts, Mode};
use warden_core::json::Json;
use warden_core::policy::layer::SourceFile;
use warden_core::policy::shape::AppShape;
use warden_core::policy::snapshot::{Case, Snapshot, Source, Worker};
use warden_core::proposal::Ask;
use warden_core::session::SessionFacts;
use warden_core::session::history::Value as Fact;
use warden_core::verdict::{Verdict, evaluate};

const NODES: usize = 1_000;
const FACTS: usize = 10;
const ROUNDS: usize = 31;
const TURNS: usize = 2_000;

/// Ten below each node.
fn tree(nodes: usize) -> Value {
    fn node(number: usize, nodes: usize) -> Value {
        let children: Vec<Value> =
            (1..=10).map(|n| number * 10 + n).filter(|n| *n < nodes).map(|n| node(n, nodes)).collect();
        json!({ "agent": { "slug": format!("a{number}") }, "skills": [{ "slug": format!("s{}", number % 50) }], "children": children,
            "tools": [], "instructions": "do this and that", "permission": { "files": "allow", "files/delete": "deny", "read": "allow" } })
    }
    json!({ "slug": "tree", "version": "1", "root": node(0, nodes) })
}

fn main() {
    let tree = tree(NODES);
    let kinds = PROVIDER_KINDS.map(str::to_owned);
    let resolved = median(ROUNDS, || {
        black_box(resolve(&tree, None, &kinds).unwrap());
    });
    let registered = median(ROUNDS.min(9), || {
        black_box(read(&tree, &BTreeSet::new()).unwrap());
    });
    println!(
        "resolve a tree of {NODES} nodes: {:.2} ms; read it strictly, as registering does: {:.2} ms",
        resolved / 1e6,
        registered / 1e6
    );

    let large = Source {
        trees: BTreeMap::from([("tree@1".to_owned(), Arc::new(read(&tree, &BTreeSet::new()).unwrap()))]),
        workers: vec![Worker { name: "w".into(), composition: Some("tree@1".into()), ..Worker::default() }],
        ..source(false)
    };
    let built = median(3, || {
        black_box(Snapshot::build(large.clone()).unwrap_or_else(|problems| panic!("{problems}")));
    });
    println!("put it in force for one worker: {:.0} ms", built / 1e6);

    let typical = snapshot(false);
    let plain = asked(&typical, "plain", None);
    let bound = asked(&typical, "bound", Some(session()));
    let node = asked(&typical, "bound/reader", Some(session()));
    for (case, facts) in [&plain, &bound, &node] {
        assert_eq!(evaluate(&typical, case, facts).verdict, Verdict::Allow);
    }
    // Only what policies read of a session is in a request: here one rule reads every fact.
    let reader = snapshot(true);
    let (plain_read, read) = (asked(&reader, "plain", None), asked(&reader, "bound", Some(session())));
    assert_eq!(evaluate(&reader, &read.0, &read.1).verdict, Verdict::Allow);
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let asked =
            [(&typical, &plain), (&typical, &bound), (&typical, &node), (&reader, &plain_read), (&reader, &read)];
        for (times, (snapshot, asked)) in times.iter_mut().zip(asked) {
            times.push(each(snapshot, asked));
        }
    }
    let [one, two, three, plain_read, read] = times.map(middle);
    println!("decide without: {one:.0} ns");
    println!(
        "decide with a composition and {FACTS} facts of a session: {two:.0} ns, {:.2} times (expected < 1.5)",
        two / one
    );
    println!("the same as a node below the worker: {three:.0} ns, {:.2} times", three / one);
    println!(
        "the same where a rule reads all {FACTS} facts: {plain_read:.0} ns without, {read:.0} ns with, {:.2} times",
        read / plain_read
    );
}

fn snapshot(reads_all: bool) -> Snapshot {
    Snapshot::build(source(reads_all)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn source(reads_all: bool) -> Source {
    let mut site = r#"
        @id("reads") permit (principal, action in Action::"call_tool", resource) when { resource.effect == Effect::"read" };
        @id("writes") permit (principal, action in Action::"call_tool", resource) when { resource.effect == Effect::"write" && context.acknowledged };
        @id("srv") permit (principal, action == Action::"files/read", resource) when { context.input.path like "/srv/*" };
        @id("over") forbid (principal, action in Action::"call_tool", resource) when { context has session && context.session.terminal && resource.effect != Effect::"read" };
        @id("many") forbid (principal, action in Action::"call_tool", resource) when { context has session && context.session.facts.f3 > 100 } unless { context.acknowledged };"#
        .to_owned();
    if reads_all {
        let fact = |n: usize| format!("context.session.facts.f{n} {}", if is_flag(n) { "== false" } else { "> 100" });
        let any = (0..FACTS).map(fact).collect::<Vec<_>>().join(" || ");
        site += &format!(
            "@id(\"all\") forbid (principal, action in Action::\"call_tool\", resource) when {{ context has session && ({any}) }};"
        );
    }
    let tool = |name: &str, effect| {
        let schema = json!({ "type": "object", "properties": { "path": { "type": "string" } }, "required": ["path"] });
        (name.to_owned(), Tool { effect: Some(effect), ..Tool::listed(json!({ "name": name, "inputSchema": schema })) })
    };
    let files = BTreeMap::from([
        tool("read", Effect::Read),
        tool("write", Effect::Write),
        tool("delete", Effect::Irreversible),
    ]);
    let node = |slug: &str, children: Value| json!({ "agent": { "slug": slug }, "skills": [], "tools": [], "children": children, "permission": { "files": "allow" } });
    let team = json!({ "slug": "team", "version": "1", "root": node("root", json!([node("reader", json!([]))])) });
    let worker = |name: &str, composition: Option<&str>| Worker {
        name: name.into(),
        composition: composition.map(str::to_owned),
        ..Worker::default()
    };
    let facts = (0..FACTS).map(|n| (format!("f{n}"), is_flag(n))).collect();
    Source {
        site: vec![SourceFile { name: "site.cedar".into(), text: site }],
        trees: BTreeMap::from([("team@1".to_owned(), Arc::new(read(&team, &BTreeSet::new()).unwrap()))]),
        workers: vec![worker("plain", None), worker("bound", Some("team@1"))],
        servers: vec!["files".into()],
        apps: vec![AppShape { name: "app".into(), facts, ..AppShape::default() }],
        catalogue: Catalogue { servers: BTreeMap::from([("files".to_owned(), files)]), ..Catalogue::default() },
        ..Source::default()
    }
}

fn is_flag(fact: usize) -> bool {
    fact.is_multiple_of(3) && fact != 3
}

fn session() -> SessionFacts {
    let fact = |n: usize| if is_flag(n) { Fact::Seen(true) } else { Fact::Number(7) };
    SessionFacts {
        id: "APP-20260101-001".into(),
        app: "app".into(),
        status: "running".into(),
        age_s: 60,
        calls: 12,
        handling: "auto".into(),
        facts: (0..FACTS).map(|n| (format!("f{n}"), fact(n))).collect(),
        ..SessionFacts::default()
    }
}

fn asked<'s>(snapshot: &'s Snapshot, worker: &str, session: Option<SessionFacts>) -> (Case<'s>, Facts) {
    let case = snapshot.case(worker, "files", &Ask::Tool { name: "read".into() }).unwrap();
    let input = input::read(&case.target.input, &Json::from(&json!({ "path": "/srv/notes.txt" }))).unwrap();
    let facts = Facts {
        acknowledged: false,
        mode: Mode::Execute,
        findings: vec![],
        suspicions: vec![],
        dot_segments: false,
        budget: None,
        task: None,
        session,
        input,
    };
    (case, facts)
}

/// Nanoseconds a decision.
fn each(snapshot: &Snapshot, (case, facts): &(Case<'_>, Facts)) -> f64 {
    let started = Instant::now();
    for _ in 0..TURNS {
        black_box(evaluate(snapshot, case, facts));
    }
    started.elapsed().as_nanos() as f64 / TURNS as f64
}

fn median(rounds: usize, mut work: impl FnMut()) -> f64 {
    let times = (0..rounds).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed().as_nanos() as f64
    });
    middle(times.collect())
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
