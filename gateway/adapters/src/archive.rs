//! The policies that ever decided, by digest: so that a reviewer sees the text of a rule as it was when it decided.

use crate::files::{create_private_dir, write_private};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use warden_core::policy::snapshot::{Digests, Snapshot};

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
    let part = |digest: &str| digest.trim_start_matches("sha256:").chars().take(32).collect::<String>();
    data_dir.join("archive").join(format!("{}-{}.json", part(&digests.policy), part(&digests.charter)))
}

/// Keeps the rules of a snapshot, before it decides anything.
pub fn keep(data_dir: &Path, snapshot: &Snapshot) -> io::Result<()> {
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
    create_private_dir(&data_dir.join("archive"))?;
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
