//! What ever decided, by digest: so that a reviewer sees the text of a rule as it was when it decided, and an operator can ask
//! the policies of then.

use crate::files::{create_private_dir, write_private};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use warden_core::catalogue::{Catalogue, sha256_hex};
use warden_core::policy::layer::{SourceFile, Stood};
use warden_core::policy::load;
use warden_core::policy::snapshot::{Digests, Snapshot, Source, Worker};

/// A rule as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedRule {
    /// Its id, layer first.
    pub id: String,
    /// File and line.
    pub at: String,
    /// Its text.
    pub text: String,
    /// `@advice`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

fn file(data_dir: &Path, digests: &Digests) -> PathBuf {
    data_dir.join("archive").join(format!("{}-{}.json", part(&digests.policy), part(&digests.charter)))
}

/// Everything a snapshot was built from but its catalogue, which is kept once for all snapshots that share it.
#[derive(Serialize, Deserialize)]
struct ArchivedSource {
    charter: Vec<(String, String)>,
    site: Vec<(String, String)>,
    compositions: BTreeMap<String, Vec<(String, String)>>,
    workers: Vec<ArchivedWorker>,
    servers: Vec<String>,
    standings: BTreeMap<String, Stood>,
}

#[derive(Serialize, Deserialize)]
struct ArchivedWorker {
    name: String,
    groups: Vec<String>,
    composition: Option<String>,
}

fn texts(files: &[SourceFile]) -> Vec<(String, String)> {
    files.iter().map(|file| (file.name.clone(), file.text.clone())).collect()
}

fn files(texts: Vec<(String, String)>) -> Vec<SourceFile> {
    texts.into_iter().map(|(name, text)| SourceFile { name, text }).collect()
}

fn source_file(data_dir: &Path, digests: &Digests) -> PathBuf {
    let all = serde_json::json!(digests).to_string();
    data_dir.join("archive/sources").join(format!("{}.json", part(&sha256_hex(all.as_bytes()))))
}

fn catalogue_file(data_dir: &Path, digests: &Digests) -> PathBuf {
    data_dir.join("archive/catalogues").join(format!("{}.json", part(&digests.catalogue)))
}

/// The tool catalogue of a digest; nothing when it is not kept.
pub fn catalogue(data_dir: &Path, digest: &str) -> io::Result<Option<Catalogue>> {
    let digests = Digests { catalogue: digest.to_owned(), ..Digests::default() };
    match std::fs::read(catalogue_file(data_dir, &digests)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(serde_json::from_slice(&other?)?)),
    }
}

/// What a snapshot was built from, and the charter it was under; nothing when that is not kept.
pub fn source(data_dir: &Path, digests: &Digests) -> io::Result<Option<(Source, Vec<SourceFile>)>> {
    let read = |path: PathBuf| match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    let Some(bytes) = read(source_file(data_dir, digests))? else { return Ok(None) };
    let Some(catalogue) = read(catalogue_file(data_dir, digests))? else { return Ok(None) };
    let kept: ArchivedSource = serde_json::from_slice(&bytes)?;
    let worker = |worker: ArchivedWorker| Worker {
        name: worker.name,
        groups: worker.groups,
        composition: worker.composition,
        owner: None,
    };
    let source = Source {
        site: files(kept.site),
        compositions: kept.compositions.into_iter().map(|(name, texts)| (name, files(texts))).collect(),
        workers: kept.workers.into_iter().map(worker).collect(),
        servers: kept.servers,
        catalogue: serde_json::from_slice(&catalogue)?,
        standings: kept.standings,
        ..Source::default()
    };
    Ok(Some((source, files(kept.charter))))
}

fn keep_source(data_dir: &Path, digests: &Digests, source: &Source) -> io::Result<()> {
    let catalogue = catalogue_file(data_dir, digests);
    if !catalogue.exists() {
        create_private_dir(&data_dir.join("archive/catalogues"))?;
        write_private(&catalogue, &serde_json::to_vec(&source.catalogue)?)?;
    }
    let path = source_file(data_dir, digests);
    if path.exists() {
        return Ok(());
    }
    let kept = ArchivedSource {
        charter: texts(&load::charter()),
        site: texts(&source.site),
        compositions: source.compositions.iter().map(|(name, files)| (name.clone(), texts(files))).collect(),
        workers: source
            .workers
            .iter()
            .map(|worker| ArchivedWorker {
                name: worker.name.clone(),
                groups: worker.groups.clone(),
                composition: worker.composition.clone(),
            })
            .collect(),
        servers: source.servers.clone(),
        standings: source.standings.clone(),
    };
    create_private_dir(&data_dir.join("archive/sources"))?;
    write_private(&path, &serde_json::to_vec(&kept)?)
}

/// The first part of a digest, which names a file.
fn part(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(32).collect()
}

/// Keeps a snapshot's rules, and what it was built from, before it decides anything.
pub fn keep(data_dir: &Path, snapshot: &Snapshot, source: &Source) -> io::Result<()> {
    create_private_dir(&data_dir.join("archive"))?;
    keep_source(data_dir, &snapshot.digests, source)?;
    let path = file(data_dir, &snapshot.digests);
    if path.exists() {
        return Ok(());
    }
    let rules = snapshot.layers.iter().flat_map(|layer| &layer.rules).map(|rule| ArchivedRule {
        id: rule.policy.id().to_string(),
        at: format!("{}:{}", rule.file, rule.line),
        text: rule.policy.to_string(),
        advice: rule.advice.clone(),
    });
    write_private(&path, &serde_json::to_vec_pretty(&rules.collect::<Vec<_>>())?)
}

/// The rules of that time, of those ids. One that is not kept is missing.
pub fn rules(data_dir: &Path, digests: &Digests, ids: &[String]) -> io::Result<Vec<ArchivedRule>> {
    let kept: Vec<ArchivedRule> = match std::fs::read(file(data_dir, digests)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => serde_json::from_slice(&other?)?,
    };
    let by_id: BTreeMap<&str, &ArchivedRule> = kept.iter().map(|rule| (rule.id.as_str(), rule)).collect();
    Ok(ids.iter().filter_map(|id| by_id.get(id.as_str()).map(|rule| (*rule).clone())).collect())
}
