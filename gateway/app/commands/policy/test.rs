//! `warden policy test`.

use super::desk::{Desk, Prefer};
use crate::cli::{Global, PolicyTest};
use crate::commands::{say, table, tell};
use crate::exit::{Failure, INVALID, NO, Outcome};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use similar::TextDiff;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use warden_core::authoring::case::{self, Case, Suite};
use warden_core::authoring::cover::Covered;
use warden_core::authoring::{matrix, mutate};
use warden_core::policy::snapshot::Snapshot;

/// Files of the folder of cases that hold no cases.
const NO_CASES: [&str; 2] = ["catalogue.json", "workers.json"];

/// Runs the cases of a folder, compares the matrix, and shows what the cases leave open.
pub(super) fn run(global: &Global, args: &PolicyTest) -> Outcome {
    let desk = Desk::open(global, &args.desk, Prefer::Pinned)?;
    let cases = read(&desk.cases())?;
    let snapshot = desk.snapshot(desk.source.clone()).map_err(Failure::invalid)?;
    let suite = Suite::new(&snapshot, cases);
    let failed = suite.run();
    let matrix = Matrix::of(&desk.cases(), &snapshot, args.update)?;
    // A site's cases are about the site: the charter has cases of its own.
    let with_charter = args.with_charter || args.desk.charter.is_some() || desk.dir.join("charter").is_dir();
    let looked_at = |id: &str| with_charter || !id.starts_with("charter/");
    let mut coverage = suite.coverage();
    coverage.retain(|covered| looked_at(&covered.rule));
    let survivors = args.mutate.then(|| survivors(&snapshot, &suite, looked_at));

    if global.json {
        say(json!({
            "cases": suite.len(), "failed": failed,
            "matrix": matrix.state.name(), "matrix_diff": matrix.difference,
            "coverage": coverage.iter().map(|c| json!({ "rule": c.rule, "matched": c.matched,
                "clauses": c.clauses.iter().map(|(text, decided)| json!({ "clause": text, "decided": decided })).collect::<Vec<_>>() })).collect::<Vec<_>>(),
            "mutants": survivors.as_ref().map(|s| json!({ "tried": s.tried, "survived": s.rows })),
        }));
    } else {
        for case in &failed {
            say(format!("FAILED  {}", case.name));
            case.why.iter().for_each(|why| say(format!("        {why}")));
        }
        say(format!("{} cases, {} failed", suite.len(), failed.len()));
        if suite.is_empty() {
            tell(format_args!(
                "no cases in `{}`: docs/policy-language.md says how to write one",
                desk.cases().display()
            ));
        }
        matrix.tell(&desk.cases());
        tell_coverage(&coverage, args.coverage);
        if let Some(survivors) = &survivors {
            survivors.tell();
        }
    }
    let charter_survives = survivors.is_some_and(|s| {
        s.rows.iter().any(|row| row["rule"].as_str().is_some_and(|rule| rule.starts_with("charter/")))
    });
    let why = match () {
        () if suite.is_empty() && matrix.state == State::Absent => {
            return Err(Failure::invalid("there is nothing to test: neither cases nor a matrix"));
        }
        () if !failed.is_empty() => "cases failed",
        () if matrix.state == State::Differs => "the matrix differs: look at the change, then `--update`",
        () if charter_survives => "a mutant of the charter survives: no case holds that rule",
        () => return Ok(0),
    };
    Err(Failure { code: NO, message: why.into() })
}

fn read(dir: &Path) -> Result<Vec<Case>, Failure> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?,
    };
    let holds_cases = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".json") && !name.starts_with('.') && !NO_CASES.contains(&name.as_ref())
    };
    files.retain(holds_cases);
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .map_err(|e| Failure { code: INVALID, message: format!("cannot read `{}`: {e}", file.display()) })?;
        let cases = case::read(&text)
            .map_err(|e| Failure::invalid(format!("{}:{}:{}: {}", file.display(), e.line, e.column, e.message)))?;
        all.extend(cases);
    }
    Ok(all)
}

/// The matrix beside the one that was reviewed.
struct Matrix {
    state: State,
    difference: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Same,
    Differs,
    Written,
    Absent,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Same => "same",
            State::Differs => "differs",
            State::Written => "written",
            State::Absent => "absent",
        }
    }
}

impl Matrix {
    fn of(cases: &Path, snapshot: &Snapshot, update: bool) -> Result<Self, Failure> {
        let file = cases.join("matrix.txt");
        let now = matrix::render(snapshot);
        let before = match std::fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            other => Some(other?),
        };
        Ok(match before {
            Some(before) if before == now => Self { state: State::Same, difference: None },
            _ if update => {
                std::fs::create_dir_all(cases)?;
                warden_adapters::files::replace(&file, now.as_bytes())?;
                Self { state: State::Written, difference: None }
            }
            None => Self { state: State::Absent, difference: None },
            Some(before) => {
                let difference = TextDiff::from_lines(&before, &now);
                let text = difference.unified_diff().context_radius(1).header("reviewed", "now").to_string();
                Self { state: State::Differs, difference: Some(text) }
            }
        })
    }

    fn tell(&self, cases: &Path) {
        let file = cases.join("matrix.txt");
        match self.state {
            State::Same => say(format!("matrix: as in {}", file.display())),
            State::Written => say(format!("matrix: written to {}", file.display())),
            State::Absent => say(format!("matrix: none yet; `--update` writes {}", file.display())),
            State::Differs => {
                say(format!("matrix: differs from {}", file.display()));
                say(self.difference.as_deref().unwrap_or_default());
            }
        }
    }
}

fn tell_coverage(coverage: &[Covered], all: bool) {
    let open: Vec<&Covered> = coverage.iter().filter(|covered| !covered.is_complete()).collect();
    say(format!("coverage: {} of {} rules shown from both sides", coverage.len() - open.len(), coverage.len()));
    let mut rows = Vec::new();
    for covered in if all { coverage.iter().collect() } else { open } {
        let seen = |count: usize| if count == 0 { "no case".to_owned() } else { count.to_string() };
        rows.push(vec![covered.rule.clone(), "matches".into(), seen(covered.matched)]);
        for (text, count) in covered.clauses.iter().filter(|(_, count)| all || *count == 0) {
            rows.push(vec![covered.rule.clone(), format!("fails at `{text}`"), seen(*count)]);
        }
    }
    rows.retain(|row| all || row[2] == "no case");
    if !rows.is_empty() {
        rows.insert(0, ["RULE", "SIDE", "CASES"].map(str::to_owned).to_vec());
        say(table(&rows));
    }
}

/// Mutants that no case notices.
struct Survivors {
    tried: usize,
    rows: Vec<Value>,
}

fn survivors(snapshot: &Snapshot, suite: &Suite, looked_at: impl Fn(&str) -> bool) -> Survivors {
    let rules: Vec<_> = snapshot.live_rules().filter(|rule| looked_at(rule.policy.id().as_ref())).collect();
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(rules.len() as u64).with_message("rules"),
        false => ProgressBar::hidden(),
    };
    let (mut tried, mut rows) = (0, Vec::new());
    for rule in bar.wrap_iter(rules.into_iter()) {
        for mutant in mutate::mutants(snapshot, rule) {
            tried += 1;
            if !suite.notices(rule, mutant.policy.as_ref()) {
                rows.push(json!({ "rule": rule.policy.id().to_string(), "mutant": mutant.what }));
            }
        }
    }
    Survivors { tried, rows }
}

impl Survivors {
    fn tell(&self) {
        say(format!("mutants: {} tried, {} survive", self.tried, self.rows.len()));
        if self.rows.is_empty() {
            return;
        }
        let mut rows = vec![["RULE", "NO CASE NOTICES"].map(str::to_owned).to_vec()];
        let cell = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        rows.extend(self.rows.iter().map(|row| vec![cell(row, "rule"), cell(row, "mutant")]));
        say(table(&rows));
    }
}
