//! `warden policy prove`.

use super::desk::{Desk, Prefer};
use crate::cli::{Global, PolicyProve};
use crate::commands::{say, table};
use crate::exit::{Failure, NO, Outcome};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use warden_adapters::policy_folder;
use warden_adapters::solver::prove::{self, Kind, Row, State, Task};
use warden_adapters::solver::{Prover, deep};
use warden_core::policy::layer::{Layer, LayerName, Rule};
use warden_core::policy::load::Loaded;

/// Proves that the charter holds, and looks at the site's changed rules one by one.
pub(super) async fn run(global: &Global, args: &PolicyProve) -> Outcome {
    let desk = Desk::open(global, &args.desk, Prefer::Live)?;
    let loaded = desk.loaded(&desk.source).map_err(Failure::invalid)?;
    let limit = Duration::from_secs(args.solver_limit.max(1));
    Prover::find(limit).await.map_err(Failure::failed)?;
    let snapshot = desk.on_trial().map_err(Failure::invalid)?;
    let changed = changed(&desk, &loaded, args.all)?;
    let task = Task { changed, loaded: &loaded, real: snapshot.entities(), only: args.only.as_deref() };
    let bar = super::spinner();
    let proved = deep(|| async {
        let mut prover = Prover::find(limit).await.map_err(|e| e.to_string())?;
        let rows = prove::run(&mut prover, &task, |row| {
            bar.set_message(format!("{} ({})", row.theorem, row.environment));
            bar.inc(1);
        });
        Ok::<_, String>((rows.await?, prover.restarts))
    });
    bar.finish_and_clear();
    let (rows, restarts) = proved?.map_err(Failure::failed)?;
    if rows.is_empty() {
        return Err(Failure::invalid(format!("no theorem is called `{}`", args.only.as_deref().unwrap_or_default())));
    }
    let open = rows.iter().filter(|row| row.kind == Kind::Theorem && row.state != State::Proved).count();
    if global.json {
        say(
            json!({ "proved": open == 0, "rows": rows, "site_rules": task.changed.len(), "solver_restarts": restarts }),
        );
    } else {
        tell(&rows, task.changed.len());
    }
    match open {
        0 => Ok(0),
        n => Err(Failure { code: NO, message: format!("{n} of {} obligations are not proved", theorems(&rows)) }),
    }
}

fn theorems(rows: &[Row]) -> usize {
    rows.iter().filter(|row| row.kind == Kind::Theorem).count()
}

/// The site's rules that differ from the applied ones; all of them where nothing was applied.
fn changed<'l>(desk: &Desk, loaded: &'l Loaded, all: bool) -> Result<Vec<&'l Rule>, Failure> {
    let applied = match &desk.config {
        Some(config) if !all => policy_folder::applied(&config.setup.data_dir)?,
        _ => None,
    };
    let text = |rule: &Rule| rule.policy.to_cedar().unwrap_or_default();
    let before: BTreeSet<String> = match applied {
        None => BTreeSet::new(),
        // What was applied did load once; what does not load any more counts as changed.
        Some(files) => {
            let policies: Vec<_> = files.into_iter().filter(|file| file.name.ends_with(".cedar")).collect();
            Layer::load(LayerName::Site, &policies)
                .map(|layer| layer.rules.iter().map(text).collect())
                .unwrap_or_default()
        }
    };
    Ok(loaded.site.rules.iter().filter(|rule| !before.contains(&text(rule))).collect())
}

fn tell(rows: &[Row], rules: usize) {
    let mut names: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.kind == Kind::Theorem) {
        if !names.contains(&row.theorem.as_str()) {
            names.push(&row.theorem);
        }
    }
    let mut lines = vec![["THEOREM", "ENVIRONMENTS", "PROVED", "MS", "SLOWEST MS"].map(str::to_owned).to_vec()];
    for name in names {
        let of: Vec<&Row> = rows.iter().filter(|row| row.theorem == name).collect();
        let proved = of.iter().filter(|row| row.state == State::Proved).count();
        let total: f64 = of.iter().map(|row| row.ms).sum();
        let slowest = of.iter().map(|row| row.ms).fold(0.0, f64::max);
        lines.push(vec![
            name.into(),
            of.len().to_string(),
            proved.to_string(),
            format!("{total:.0}"),
            format!("{slowest:.0}"),
        ]);
    }
    say(table(&lines));
    let mut open: BTreeMap<(&str, bool), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.kind == Kind::Theorem && row.state != State::Proved) {
        open.entry((&row.theorem, row.state == State::Refuted)).or_default().push(row);
    }
    for ((theorem, refuted), rows) in open {
        let Some((first, rest)) = rows.split_first() else { continue };
        let state = if refuted { "NOT TRUE" } else { "NOT PROVED" };
        say(format!("\n{state}  {theorem}\n  {}: {}", first.environment, first.why.as_deref().unwrap_or_default()));
        if let Some(witness) = &first.witness {
            super::tell_request(witness);
        }
        if !rest.is_empty() {
            let names: Vec<&str> = rest.iter().map(|row| row.environment.as_str()).collect();
            say(format!("  and in {}", names.join(", ")));
        }
    }
    let total: f64 = rows.iter().map(|row| row.ms).sum();
    let notes: Vec<&Row> = rows.iter().filter(|row| row.kind == Kind::Note && row.state != State::Proved).collect();
    say(format!("\n{} theorems, {rules} site rules looked at, {:.1} s", theorems(rows), total / 1e3));
    for row in notes {
        say(format!("note: {} ({}): {}", row.theorem, row.environment, row.why.as_deref().unwrap_or_default()));
    }
}
