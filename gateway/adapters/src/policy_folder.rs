//! The operators' files: policies, schema fragments and entities as they stand, and the applied copy that decides.

use crate::files::{create_private_dir, write_private};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use warden_core::policy::layer::{SourceFile, Stood};

/// Refuses a folder whose `apps` holds policies: those are examples, and a rule that stands there and is not read would guard nothing.
pub fn examples_apart(dir: &Path) -> io::Result<()> {
    let mut examples = Vec::new();
    let apps = dir.join("apps");
    if apps.is_dir() {
        collect(&apps, "apps/", ".cedar", &mut examples)?;
    }
    match examples.first() {
        None => Ok(()),
        Some(file) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "`{}` is not read as a policy, since `apps` is for examples: move it into `{}` itself, or elsewhere",
                dir.join(&file.name).display(),
                dir.display()
            ),
        )),
    }
}

/// Reads `*.cedar` of a folder and its subfolders but `charter`, `cases` and `apps`, sorted by name. See [`examples_apart`] for the last.
pub fn read(dir: &Path) -> io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    collect(dir, "", ".cedar", &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Reads `*.cedarschema` of a folder, sorted by name. None is no fragment.
pub fn read_schemas(dir: &Path) -> io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    if dir.is_dir() {
        collect(dir, "schemas/", ".cedarschema", &mut files)?;
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Reads the file of entities, if it is there.
pub fn read_entities(file: &Path) -> io::Result<Option<SourceFile>> {
    match std::fs::read_to_string(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::new(e.kind(), format!("cannot read `{}`: {e}", file.display()))),
        Ok(text) => Ok(Some(SourceFile { name: "entities.json".into(), text })),
    }
}

fn collect(dir: &Path, prefix: &str, ending: &str, files: &mut Vec<SourceFile>) -> io::Result<()> {
    let at = |e: io::Error, path: &Path| io::Error::new(e.kind(), format!("cannot read `{}`: {e}", path.display()));
    for entry in std::fs::read_dir(dir).map_err(|e| at(e, dir))? {
        let entry = entry.map_err(|e| at(e, dir))?;
        let path = entry.path();
        let name = entry
            .file_name()
            .into_string()
            .map_err(|_| io::Error::other(format!("`{}` holds a file whose name is not UTF-8", dir.display())))?;
        if name.starts_with('.') {
            continue;
        }
        let full = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(|e| at(e, &path))?;
        if kind.is_dir() && !(prefix.is_empty() && ["charter", "cases", "apps"].contains(&name.as_str())) {
            collect(&path, &format!("{full}/"), ending, files)?;
        } else if !kind.is_dir() && name.ends_with(ending) && path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(|e| at(e, &path))?;
            files.push(SourceFile { name: full, text });
        }
    }
    Ok(())
}

/// The applied copy in the data folder; nothing when none was ever applied.
pub fn applied(data_dir: &Path) -> io::Result<Option<Vec<SourceFile>>> {
    let path = data_dir.join("policies.applied.json");
    match std::fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::new(e.kind(), format!("cannot read `{}`: {e}", path.display()))),
        Ok(bytes) => {
            let pairs: Vec<(String, String)> = serde_json::from_slice(&bytes)
                .map_err(|e| io::Error::other(format!("`{}` is not what Warden wrote: {e}", path.display())))?;
            Ok(Some(pairs.into_iter().map(|(name, text)| SourceFile { name, text }).collect()))
        }
    }
}

/// The rules whose standing operators have changed, by `@id`.
pub fn standings(data_dir: &Path) -> io::Result<BTreeMap<String, Stood>> {
    let path = data_dir.join("policies.standings.json");
    match std::fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(io::Error::new(e.kind(), format!("cannot read `{}`: {e}", path.display()))),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| io::Error::other(format!("`{}` is not what Warden wrote: {e}", path.display()))),
    }
}

/// Keeps the standings.
pub fn keep_standings(data_dir: &Path, standings: &BTreeMap<String, Stood>) -> io::Result<()> {
    write_private(&data_dir.join("policies.standings.json"), &serde_json::to_vec_pretty(standings)?)
}

/// Keeps `files` as the applied copy. What decides is this copy, so a changed folder waits until somebody applies it.
pub fn keep_applied(data_dir: &Path, files: &[SourceFile]) -> io::Result<()> {
    let pairs: Vec<(&str, &str)> = files.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
    create_private_dir(data_dir)?;
    write_private(&data_dir.join("policies.applied.json"), &serde_json::to_vec_pretty(&pairs)?)
}
