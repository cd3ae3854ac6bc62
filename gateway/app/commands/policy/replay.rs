//! `warden policy replay`.

use super::desk::{Desk, Prefer};
use crate::cli::{Desk as DeskArgs, Global, PolicyReplay};
use crate::commands::{data_dir, plain, say, table, time};
use crate::exit::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::num::NonZero;
use std::path::Path;
use warden_adapters::replay::{self, Replayed, Span};
use warden_core::policy::snapshot::Snapshot;

/// Decides the recorded proposals again under a candidate folder.
pub(super) fn run(global: &Global, args: &PolicyReplay) -> Outcome {
    let desk_args = DeskArgs { dir: args.candidate.clone(), catalogue: args.catalogue.clone(), charter: None };
    let desk = Desk::open(global, &desk_args, Prefer::Live)?;
    let dir = data_dir(global)?;
    // A candidate that cannot be loaded is said before the log is read.
    let candidate = desk.dir.display().to_string();
    let snapshot = Snapshot::build(desk.source)
        .map_err(|e| Failure::invalid(format!("`{candidate}` cannot be loaded, so nothing was replayed:\n{e}")))?;
    let span = Span {
        since: time("since", Some(args.since.clone()))?,
        until: time("until", args.until.clone())?,
        worker: args.worker.clone(),
    };
    let replayed = shown(&dir, &snapshot, &span, args.threads)?;
    if global.json {
        say(as_json(&snapshot, &replayed));
    } else {
        tell(&snapshot, &replayed);
    }
    Ok(0)
}

/// Replays, with a progress bar where somebody looks.
pub(super) fn shown(dir: &Path, snapshot: &Snapshot, span: &Span, threads: Option<usize>) -> Result<Replayed, Failure> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0).with_style(
            ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        false => ProgressBar::hidden(),
    };
    let replayed = replay::run(dir, snapshot, span, threads, |read, total| {
        bar.set_length(total);
        bar.set_position(read.min(total));
    });
    bar.finish_and_clear();
    Ok(replayed?)
}

pub(super) fn as_json(snapshot: &Snapshot, replayed: &Replayed) -> serde_json::Value {
    let rules: Vec<_> = snapshot.live_rules().map(|rule| rule.policy.id().to_string()).collect();
    let coverage: serde_json::Map<String, serde_json::Value> =
        rules.into_iter().map(|id| (id.clone(), json!(replayed.coverage.get(&id).copied().unwrap_or(0)))).collect();
    let changes: Vec<_> = replayed
        .ranked()
        .into_iter()
        .map(|(change, group)| {
            json!({ "from": change.from, "to": change.to, "worker": change.worker, "tool": change.tool,
                "by": change.by, "count": group.count, "example": group.example })
        })
        .collect();
    let left_out: Vec<_> = replayed
        .left_out
        .iter()
        .map(|(why, group)| json!({ "why": why.says(), "count": group.count, "example": group.example }))
        .collect();
    json!({ "policy": snapshot.digests.policy, "coverage": coverage, "decided": replayed.decided, "same": replayed.same,
        "changes": changes, "left_out": left_out, "seconds": replayed.took.as_secs_f64(),
        "per_second_and_thread": per_second(replayed) })
}

fn per_second(replayed: &Replayed) -> f64 {
    let worked = replayed.worked.as_secs_f64();
    if worked > 0.0 { replayed.decided as f64 / worked } else { 0.0 }
}

pub(super) fn tell(snapshot: &Snapshot, replayed: &Replayed) {
    let mut rows = vec![["RULE", "DECIDES"].map(str::to_owned).to_vec()];
    let mut silent = 0;
    for rule in snapshot.live_rules() {
        let id = rule.policy.id().to_string();
        let count = replayed.coverage.get(&id).copied().unwrap_or(0);
        silent += usize::from(count == 0);
        if count > 0 {
            rows.push(vec![id, count.to_string()]);
        }
    }
    let said = rows.len() - 1;
    say(format!("coverage: {said} of {} rules decided something, {silent} nothing", said + silent));
    if said > 0 {
        say(table(&rows));
    }
    let changed = replayed.decided - replayed.same;
    say(format!("\n{} decisions replayed: {} as before, {changed} change", replayed.decided, replayed.same));
    if changed > 0 {
        let head = ["COUNT", "CHANGE", "WORKER", "TOOL", "BY", "FOR EXAMPLE"].map(str::to_owned).to_vec();
        let row = |(change, group): (&replay::Change, &replay::Group)| {
            vec![
                group.count.to_string(),
                format!("{} → {}", change.from, change.to),
                plain(&change.worker),
                plain(&change.tool),
                plain(&change.by),
                group.example.clone(),
            ]
        };
        say(table(&std::iter::once(head).chain(replayed.ranked().into_iter().map(row)).collect::<Vec<_>>()));
    }
    for (why, group) in &replayed.left_out {
        say(format!("not replayed: {:>8}  {} (for example {})", group.count, why.says(), group.example));
    }
    say(format!("\n{:.1} s, {:.0} decisions a second and thread", replayed.took.as_secs_f64(), per_second(replayed)));
}
