//! `cargo bench`: what a verdict costs, beside bare unsliced Cedar in the same run.
//!
//! Prints nanoseconds and, since machines are noisy, ratios against a baseline that was measured in turn with it.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a bench says what it means")]

use cedar_policy::{Authorizer, Decision, PolicySet};
use serde_json::json;
use std::hint::black_box;
use std::time::Instant;
use warden_core::catalogue::{Catalogue, Effect, Tool, input};
use warden_core::facts::{Facts, Mode};
use warden_core::json::{self, Limits};
use warden_core::policy::layer::SourceFile;
use warden_core::policy::snapshot::{Case, Snapshot, Source, Worker};
use warden_core::proposal::Ask;
use warden_core::verdict::{Verdict, evaluate};

const SEED: u64 = 20_261_121;
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const SERVERS: usize = 5;
const TOOLS: usize = 20;
const WORKERS: usize = 20;
const GROUPS: usize = 5;
const ROUNDS: usize = 15;

fn main() {
    println!(
        "{TOOLS} tools on each of {SERVERS} servers, {WORKERS} workers in {GROUPS} groups, seed {SEED}; medians of {ROUNDS} rounds\n"
    );
    println!(
        "{:>8} {:>9} {:>12} {:>12} {:>12} {:>8} {:>8}",
        "policies", "load ms", "decide ns", "unbuilt ns", "bare ns", "ratio", "p99 ns"
    );
    let rows: Vec<Row> = SIZES.into_iter().map(measure).collect();
    let of = |size: usize| rows.iter().find(|row| row.size == size).unwrap();
    println!("\nratio at 1,000: {:.1} (expected >= 25)", of(1_000).bare / of(1_000).decide);
    println!("cost at 10,000 / cost at 10: {:.2} (expected <= 3)", of(10_000).decide / of(10).decide);
}

struct Row {
    size: usize,
    decide: f64,
    bare: f64,
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}

/// 95 % scoped to one worker and one tool, 5 % to a group and a server, and five open ones at every size.
fn policies(size: usize, chance: &mut Chance) -> String {
    let mut text = String::new();
    for n in 0..size {
        let effect = if chance.below(10) == 0 { "forbid" } else { "permit" };
        let policy = if n < 5 {
            let (effect, condition) = [
                ("forbid", "context.dot_segments && !context.acknowledged"),
                ("forbid", "context.mode == Mode::\"dry_run\""),
                ("forbid", "context.secret_suspicions > 3"),
                ("forbid", "!context.unseen.isEmpty() && !context.acknowledged"),
                ("permit", "resource.effect == Effect::\"read\""),
            ][n];
            format!("{effect} (principal, action in Action::\"call_tool\", resource) when {{ {condition} }};")
        } else if chance.below(100) < 95 {
            format!(
                "{effect} (principal == Worker::\"w{}\", action == Action::\"s{}/t{}\", resource) when {{ context.input.path like \"/srv/{}/*\" }};",
                chance.below(WORKERS),
                chance.below(SERVERS),
                chance.below(TOOLS),
                chance.below(50)
            )
        } else {
            format!(
                "{effect} (principal in Group::\"g{}\", action in Action::\"call_tool\", resource in Server::\"s{}\") when {{ resource.effect == Effect::\"write\" && !context.dot_segments }};",
                chance.below(GROUPS),
                chance.below(SERVERS)
            )
        };
        text.push_str(&format!("@id(\"p{n}\") {policy}\n"));
    }
    text
}

fn source(size: usize, chance: &mut Chance) -> Source {
    let mut catalogue = Catalogue::default();
    for server in 0..SERVERS {
        for tool in 0..TOOLS {
            let definition = json!({ "name": format!("t{tool}"), "inputSchema": { "type": "object", "required": ["path"],
                "properties": { "path": { "type": "string" }, "lines": { "type": "integer" } } } });
            let effect = [Effect::Read, Effect::Write, Effect::Read, Effect::Irreversible][tool % 4];
            let tools = catalogue.servers.entry(format!("s{server}")).or_default();
            tools.insert(format!("t{tool}"), Tool { effect: Some(effect), ..Tool::listed(definition) });
        }
    }
    let workers = (0..WORKERS).map(|n| Worker {
        name: format!("w{n}"),
        groups: vec![format!("g{}", n % GROUPS)],
        composition: None,
    });
    Source {
        site: vec![SourceFile { name: "bench.cedar".into(), text: policies(size, chance) }],
        workers: workers.collect(),
        servers: (0..SERVERS).map(|n| format!("s{n}")).collect(),
        catalogue,
        ..Source::default()
    }
}

fn measure(size: usize) -> Row {
    let mut chance = Chance(SEED);
    let source = source(size, &mut chance);
    let started = Instant::now();
    let snapshot = Snapshot::build(source).unwrap_or_else(|e| panic!("{e}"));
    let load = started.elapsed().as_secs_f64() * 1e3;
    let mut whole = PolicySet::new();
    for layer in &snapshot.layers {
        whole.merge(&layer.set(), false).unwrap();
    }
    let questions: Vec<(String, String, Ask)> = (0..200)
        .map(|_| {
            (
                format!("w{}", chance.below(WORKERS)),
                format!("s{}", chance.below(SERVERS)),
                Ask::Tool { name: format!("t{}", chance.below(TOOLS)) },
            )
        })
        .collect();
    let asked: Vec<(Case<'_>, Facts)> = questions
        .iter()
        .map(|(worker, server, ask)| {
            let case = snapshot.case(worker, server, ask).unwrap();
            let given = format!(r#"{{"path":"/srv/{}/notes.txt","lines":20}}"#, chance.below(50));
            let given = json::parse(given.as_bytes(), Limits::default()).unwrap();
            let input = input::read(&case.target.input, &given).unwrap();
            (
                case,
                Facts {
                    acknowledged: false,
                    mode: Mode::Execute,
                    findings: vec![],
                    suspicions: vec![],
                    dot_segments: false,
                    input,
                },
            )
        })
        .collect();
    let requests: Vec<_> = asked.iter().map(|(case, facts)| snapshot.request(case, facts).unwrap()).collect();
    // Both say the same, or the figures would compare different things.
    for ((case, facts), request) in asked.iter().zip(&requests) {
        let response = Authorizer::new().is_authorized(request, &whole, snapshot.entities());
        let allowed = evaluate(&snapshot, case, facts).verdict == Verdict::Allow;
        assert_eq!(response.decision() == Decision::Allow, allowed);
    }
    let bare_each = (20_000 / size).clamp(2, 200);
    let (mut decide, mut bare, mut build, mut each) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        decide.push(time(asked.len() * 5, |n| {
            let (case, facts) = &asked[n % asked.len()];
            black_box(evaluate(&snapshot, case, facts));
        }));
        build.push(time(asked.len() * 5, |n| {
            let (case, facts) = &asked[n % asked.len()];
            black_box(snapshot.request(case, facts).unwrap());
        }));
        bare.push(time(bare_each, |n| {
            black_box(Authorizer::new().is_authorized(&requests[n % requests.len()], &whole, snapshot.entities()));
        }));
        for (case, facts) in &asked {
            each.push(time(1, |_| {
                black_box(evaluate(&snapshot, case, facts));
            }));
        }
    }
    let (decide, bare, build) = (quantile(&mut decide, 0.5), quantile(&mut bare, 0.5), quantile(&mut build, 0.5));
    println!(
        "{size:>8} {load:>9.0} {decide:>12.0} {:>12.0} {bare:>12.0} {:>8.1} {:>8.0}",
        decide - build,
        bare / decide,
        quantile(&mut each, 0.99)
    );
    Row { size, decide, bare }
}

/// Nanoseconds a turn.
fn time(turns: usize, mut work: impl FnMut(usize)) -> f64 {
    let started = Instant::now();
    (0..turns).for_each(&mut work);
    started.elapsed().as_secs_f64() * 1e9 / turns as f64
}

fn quantile(figures: &mut [f64], q: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[((figures.len() - 1) as f64 * q) as usize]
}
