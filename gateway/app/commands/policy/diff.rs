//! `warden policy diff`.

use super::desk::{Desk, Prefer};
use crate::cli::{Desk as DeskArgs, Global, PolicyDiff};
use crate::commands::say;
use crate::exit::{FAILED, Failure, NO, Outcome};
use serde_json::json;
use std::time::Duration;
use warden_adapters::solver::diff::{self, Difference, Direction, Looked};
use warden_adapters::solver::{Prover, deep};
use warden_core::policy::layer::SourceFile;
use warden_core::policy::site::is_entities;
use warden_core::verdict::Verdict;

/// Compares what two folders allow.
pub(super) async fn run(global: &Global, args: &PolicyDiff) -> Outcome {
    let desk_args =
        DeskArgs { dir: Some(args.a.clone()), catalogue: args.catalogue.clone(), charter: args.charter.clone() };
    let desk = Desk::open(global, &desk_args, Prefer::Live)?;
    let entities =
        |site: &[SourceFile]| site.iter().filter(|f| is_entities(f)).map(|f| f.text.clone()).collect::<Vec<_>>();
    if entities(&desk.source.site) != entities(&desk.with_folder(&args.b)?.site) {
        return Err(Failure::invalid(
            "the two have different entities: who is in what is no policy, and is not compared",
        ));
    }
    let before = desk.loaded(&desk.source).map_err(|e| Failure::invalid(format!("{}:\n{e}", args.a.display())))?;
    let other = desk.with_folder(&args.b)?;
    let after = desk.loaded(&other).map_err(|e| Failure::invalid(format!("{}:\n{e}", args.b.display())))?;
    let limit = Duration::from_secs(args.solver_limit.max(1));
    Prover::find(limit).await.map_err(Failure::failed)?;
    let snapshot = desk.on_trial().map_err(Failure::invalid)?;
    let bar = super::spinner();
    let compared = deep(|| async {
        let mut prover = Prover::find(limit).await.map_err(|e| e.to_string())?;
        let tell = |environment: &str| {
            bar.set_message(environment.to_owned());
            bar.inc(1);
        };
        diff::run(&mut prover, &before, &after, snapshot.entities(), tell).await
    });
    bar.finish_and_clear();
    let (found, looked) = compared?.map_err(Failure::failed)?;
    let count = |direction| found.iter().filter(|difference| difference.direction == direction).count();
    let (wider, narrower, unknown) = (count(Direction::Wider), count(Direction::Narrower), count(Direction::Unknown));
    let word = match (wider, narrower, unknown) {
        (0, 0, 0) => "equivalent",
        (0, _, 0) => "narrower",
        (0, ..) => "unknown",
        _ => "wider",
    };
    if global.json {
        say(json!({ "answer": word, "differences": found, "looked": looked }));
    } else {
        tell(args, &found, &looked, word);
    }
    match word {
        "wider" => Err(Failure { code: NO, message: format!("{} is wider", args.b.display()) }),
        "unknown" => Err(Failure { code: FAILED, message: "the solver did not answer everything".into() }),
        _ => Ok(0),
    }
}

fn tell(args: &PolicyDiff, found: &[Difference], looked: &Looked, word: &str) {
    let (a, b) = (args.a.display(), args.b.display());
    say(format!(
        "{} rules removed, {} added; they concern {} of {} kinds of request",
        looked.removed.len(),
        looked.added.len(),
        looked.concerned,
        looked.environments
    ));
    for difference in found {
        let name = |verdict: Option<Verdict>| verdict.map_or("?", Verdict::name);
        match difference.direction {
            Direction::Wider => {
                say(format!("\nWIDER    {}: {b} allows something that {a} did not", difference.environment))
            }
            Direction::Narrower => {
                say(format!("\nNARROWER {}: {a} allowed something that {b} does not", difference.environment))
            }
            Direction::Unknown => {
                let why = difference.why.as_deref().unwrap_or_default();
                say(format!("\nUNKNOWN  {}: {why}", difference.environment));
            }
        }
        if difference.direction != Direction::Unknown {
            say(format!(
                "  {} → {}, by {}",
                name(difference.before),
                name(difference.after),
                difference.rules.join(", ")
            ));
        }
        if let Some(request) = &difference.request {
            super::tell_request(request);
        }
    }
    say(format!("\n{word}"));
}
