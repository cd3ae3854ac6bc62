//! `cargo bench`: what a verdict costs, beside bare unsliced Cedar in the same run.
//!
//! Prints nanoseconds and, since machines are noisy, ratios against a baseline that was measured in turn with it.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a bench says what it means")]

#[path = "site.rs"]
mod site;

use cedar_policy::{Authorizer, Decision, PolicySet};
use site::{Chance, GROUPS, SEED, SERVERS, TOOLS, WORKERS, source};
use std::hint::black_box;
use std::time::Instant;
use warden_core::catalogue::input;
use warden_core::facts::{Facts, Mode};
use warden_core::json::{self, Limits};
use warden_core::policy::snapshot::{Case, Snapshot};
use warden_core::proposal::Ask;
use warden_core::verdict::{Verdict, evaluate};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
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
                    budget: None,
                    task: None,
                    session: None,
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
