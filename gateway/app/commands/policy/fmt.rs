//! `warden policy fmt`.

use crate::cli::Global;
use crate::commands::{config, say};
use crate::exit::{Failure, NO, Outcome};
use cedar_policy_formatter::{Config, policies_str_to_pretty};
use std::path::{Path, PathBuf};

/// Formats the files of a folder, or single files. With `check` nothing is written.
pub(super) fn run(global: &Global, path: Option<PathBuf>, check: bool) -> Outcome {
    let path = match path {
        Some(path) => path,
        None => config(global)?.setup.policy_dir,
    };
    let files = files(&path)?;
    // All of them are read before any is written.
    let mut changes = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file)
            .map_err(|e| std::io::Error::new(e.kind(), format!("cannot read `{}`: {e}", file.display())))?;
        let pretty =
            pretty(&text).map_err(|e| Failure { message: format!("{}: {}", file.display(), e.message), ..e })?;
        changes.extend((pretty != text).then_some((file, pretty)));
    }
    let different = changes.len();
    for (file, pretty) in changes {
        say(file.display());
        if !check {
            warden_adapters::files::replace(file, pretty.as_bytes())?;
        }
    }
    match check && different > 0 {
        true => Err(Failure { code: NO, message: format!("{different} of {} files are not formatted", files.len()) }),
        false => Ok(0),
    }
}

/// A file of policies as it is formatted here.
pub(super) fn pretty(text: &str) -> Result<String, Failure> {
    policies_str_to_pretty(text, &Config { line_width: 100, indent_width: 2 }).map_err(|e| Failure::invalid(causes(&e)))
}

fn causes(error: &miette::Report) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !path.is_dir() {
        return Err(Failure::invalid(format!("`{}` is neither a file nor a folder", path.display())));
    }
    let (mut open, mut found) = (vec![path.to_owned()], Vec::new());
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // Links to folders are not followed: they may lead in circles.
            if entry.file_type()?.is_dir() && !hidden {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "cedar") && path.is_file() && !hidden {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
