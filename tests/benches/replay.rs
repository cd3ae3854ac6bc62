//! `cargo bench --bench replay`: a log of a million decisions, made by the pipeline, decided again under 10 and 1,000 policies, beside
//! bare unsliced Cedar on the same policies in the same run.
//!
//! WARDEN_DECISIONS sets the number.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a bench says what it means")]

#[path = "site.rs"]
mod site;

use cedar_policy::{Authorizer, PolicySet};
use futures::StreamExt;
use site::{Chance, SEED, SERVERS, TOOLS, WORKERS, source};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use warden_adapters::journal::{Journal, Options};
use warden_adapters::keys::Keys;
use warden_adapters::metrics::Metrics;
use warden_adapters::replay::{self, Replayed, Span};
use warden_adapters::world::World;
use warden_core::authoring::question::plain;
use warden_core::json::{self, Json, Limits};
use warden_core::pipeline::{Gate, advise};
use warden_core::policy::snapshot::Snapshot;
use warden_core::proposal::{Ask, Correlation, Door, Mode, Proposal};
use warden_core::secrets::Scanner;

const LANES: usize = 256;

fn main() {
    let wanted: usize = std::env::var("WARDEN_DECISIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let home = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    record(home.path(), wanted);
    println!("{wanted} decisions recorded in {:.0} s, by the policies of seed {SEED}\n", begun.elapsed().as_secs_f64());
    println!(
        "{:>8} {:>10} {:>9} {:>12} {:>12} {:>7}",
        "policies", "replayed", "changed", "replay ns", "bare ns", "ratio"
    );
    for (size, expected) in [(10, 0.3), (1_000, 5.0)] {
        let snapshot = Snapshot::build(source(size, &mut Chance(SEED + 1))).unwrap_or_else(|e| panic!("{e}"));
        let before = bare(&snapshot);
        let replayed = replay::run(home.path(), &snapshot, &Span::default(), 2, |_, _| ()).unwrap();
        let bare = f64::midpoint(before, bare(&snapshot));
        let Replayed { decided, same, worked, left_out, .. } = &replayed;
        assert!(left_out.is_empty() && *decided >= wanted as u64, "{decided} of {wanted}, {left_out:?}");
        let each = worked.as_secs_f64() * 1e9 / *decided as f64;
        println!(
            "{size:>8} {decided:>10} {:>9} {each:>12.0} {bare:>12.0} {:>7.2}   (expected >= {expected})",
            decided - same,
            bare / each
        );
        let ranked = replayed.ranked();
        if let Some((change, group)) = ranked.first() {
            println!(
                "         for example {} of {} by {}: {} → {}, {}",
                group.count, change.worker, change.by, change.from, change.to, group.example
            );
        }
    }
}

/// Decides and records, as the decision door does.
#[tokio::main]
async fn record(home: &Path, wanted: usize) {
    let keys = Keys::create(home).unwrap();
    let scanner = Arc::new(Scanner::shipped(keys.mac().clone()));
    let journal = Journal::open(home, scanner.clone(), Options::default(), &[]).unwrap();
    let snapshot = Snapshot::build(source(10, &mut Chance(SEED))).unwrap_or_else(|e| panic!("{e}"));
    let world = World { journal: journal.clone(), keys, metrics: Arc::new(Metrics::new()), scanner };
    let gate = Gate::new(world, snapshot);
    let proposals = (0..wanted).map(|n| advise(&gate, proposal(n)));
    futures::stream::iter(proposals).for_each_concurrent(LANES, |asked| async { drop(asked.await) }).await;
    gate.sweep(true).await;
    journal.close();
}

fn proposal(n: usize) -> Proposal {
    let mut chance = Chance(n as u64);
    let (worker, server, tool) = (chance.below(WORKERS), chance.below(SERVERS), chance.below(TOOLS));
    let given = format!(r#"{{"path":"/srv/{}/{n}.txt","lines":20}}"#, chance.below(50));
    Proposal {
        door: Door::Authzen,
        worker: format!("w{worker}"),
        connection: String::new(),
        server: format!("s{server}"),
        method: "tools/call".into(),
        ask: Ask::Tool { name: format!("t{tool}") },
        arguments: json::parse(given.as_bytes(), Limits::default()).unwrap(),
        envelope: Json::Object(Vec::new()),
        // What tells one denial from the next: each is a record of its own.
        payload: given,
        caller: None,
        correlation: Correlation::default(),
        mode: Mode::default(),
        barred: None,
    }
}

/// Nanoseconds of `is_authorized` on the whole set, the request being there already.
fn bare(snapshot: &Snapshot) -> f64 {
    let mut whole = PolicySet::new();
    for layer in &snapshot.layers {
        whole.merge(&layer.set(), false).unwrap();
    }
    let requests: Vec<_> = (0..500)
        .map(|n| {
            let mut chance = Chance(n);
            let (worker, server, tool) = (chance.below(WORKERS), chance.below(SERVERS), chance.below(TOOLS));
            let mut context = plain();
            context.insert(
                "input".into(),
                serde_json::json!({ "path": format!("/srv/{}/{n}.txt", chance.below(50)), "lines": 20 }),
            );
            let uids = [
                format!("Worker::\"w{worker}\""),
                format!("Action::\"s{server}/t{tool}\""),
                format!("Tool::\"s{server}/t{tool}\""),
            ];
            let question = warden_core::authoring::question::Question::new(
                snapshot,
                uids.each_ref().map(String::as_str),
                &context,
            );
            question.and_then(|question| question.request(snapshot, None)).unwrap()
        })
        .collect();
    let begun = Instant::now();
    for request in &requests {
        black_box(Authorizer::new().is_authorized(request, &whole, snapshot.entities()));
    }
    begun.elapsed().as_secs_f64() * 1e9 / requests.len() as f64
}
