//! `warden policy check`.

use super::desk::{Desk, Prefer};
use crate::cli::{Desk as Args, ErrorFormat, Global};
use crate::commands::{plain_lines, say};
use crate::diagnostics::shown;
use crate::exit::{Failure, INVALID, Outcome};
use serde_json::json;
use warden_core::authoring::lint::lint;
use warden_core::policy::layer::digest;
use warden_core::policy::load;
use warden_core::policy::{Problems, Severity};

/// More problems than these are no help to a reader.
const SHOWN_MAX: usize = 50;

/// Loads a folder, as the gateway would, and says everything that is wrong or doubtful.
pub(super) fn run(global: &Global, args: &Args, format: ErrorFormat, deny_warnings: bool) -> Outcome {
    let desk = Desk::open(global, args, Prefer::Live)?;
    let format = if global.json { ErrorFormat::Json } else { format };
    let mut files = desk.source.site.clone();
    let (count, found) = (files.len(), digest(&files));
    let (problems, rules) = match desk.snapshot(desk.source.clone()) {
        Ok(snapshot) => (lint(&snapshot), snapshot.layers.iter().map(|layer| layer.rules.len()).sum::<usize>()),
        Err(Problems(problems)) => (problems, 0),
    };
    files.extend(desk.charter.unwrap_or_else(load::charter));
    let most = if format == ErrorFormat::Human { SHOWN_MAX } else { problems.len() };
    for problem in problems.iter().take(most) {
        let end = if format == ErrorFormat::Human { "\n" } else { "" };
        say(plain_lines(&shown(problem, &files, format)) + end);
    }
    if problems.len() > most {
        say(format!("… and {} more: `--error-format plain` lists all of them", problems.len() - most));
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    if errors > 0 {
        return Err(Failure { code: INVALID, message: counted(errors, "problem") });
    }
    if format == ErrorFormat::Json {
        say(json!({ "valid": true, "files": count, "policies": rules, "warnings": warnings, "digest": found }));
    } else {
        say(format!("valid: {}, {rules} policies with the charter\n{found}", counted(count, "file")));
    }
    if deny_warnings && warnings > 0 {
        return Err(Failure { code: INVALID, message: counted(warnings, "warning") });
    }
    Ok(0)
}
