//! Rule packs in gitleaks' TOML format. Of a pack count its rules' ids, expressions, keywords, entropies, groups and
//! allowlists of values; allowlists of paths and commits mean nothing here.

use serde::Deserialize;
use std::path::PathBuf;
use warden_core::secrets::Unusable;
use warden_core::secrets::pack::{self, Rule};

/// A file of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Where it is.
    pub file: PathBuf,
    /// Whether what it finds is only suspected.
    pub is_weak: bool,
}

/// A rule and where it comes from.
#[derive(Clone, Debug)]
pub struct Owned {
    /// The file.
    pub file: PathBuf,
    /// The rule.
    pub rule: Rule,
}

/// Why a pack cannot be used. Quotes nothing of it: a pack may hold the value it is to find.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {what}", file.display())]
pub struct Error {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub what: String,
}

/// Bytes of a pack.
const BYTES_MAX: u64 = 8 << 20;

#[derive(Deserialize)]
struct RawPack {
    #[serde(default)]
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
struct RawRule {
    id: String,
    /// Absent where a rule is for file names.
    #[serde(default)]
    regex: Option<String>,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(default)]
    entropy: Option<f32>,
    #[serde(default, rename = "secretGroup")]
    secret_group: usize,
    #[serde(default)]
    allowlist: Option<RawAllowlist>,
    #[serde(default)]
    allowlists: Vec<RawAllowlist>,
}

#[derive(Default, Deserialize)]
struct RawAllowlist {
    #[serde(default)]
    regexes: Vec<String>,
    #[serde(default)]
    stopwords: Vec<String>,
    #[serde(default, rename = "regexTarget")]
    target: Option<String>,
    #[serde(default)]
    condition: Option<String>,
    #[serde(default)]
    paths: Vec<String>,
}

/// The rules of all packs.
pub fn read(packs: &[Pack]) -> Result<Vec<Owned>, Error> {
    let mut rules = Vec::new();
    for pack in packs {
        let error = |what: String| Error { file: pack.file.clone(), what };
        let size = std::fs::metadata(&pack.file).map_err(|e| error(e.to_string()))?.len();
        if size > BYTES_MAX {
            return Err(error(format!("it has {size} bytes, and a pack has at most {BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(&pack.file).map_err(|e| error(e.to_string()))?;
        let raw: RawPack = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            error(format!("line {line}: not a pack of rules in TOML"))
        })?;
        for rule in raw.rules {
            let Some(regex) = rule.regex else { continue };
            let lists: Vec<_> = rule.allowlists.into_iter().chain(rule.allowlist).collect();
            // A list that also needs a path, or looks at more than the value, excuses nothing here.
            let of_values = lists.into_iter().filter(|list| {
                let is_and = list.condition.as_deref().is_some_and(|condition| condition.eq_ignore_ascii_case("and"));
                (!is_and || list.paths.is_empty()) && !matches!(list.target.as_deref(), Some("line" | "match"))
            });
            let (mut allowed, mut stopwords) = (Vec::new(), Vec::new());
            for list in of_values {
                allowed.extend(list.regexes);
                stopwords.extend(list.stopwords);
            }
            rules.push(Owned {
                file: pack.file.clone(),
                rule: Rule {
                    is_weak: pack.is_weak || rule.id.contains("generic"),
                    id: rule.id,
                    regex,
                    keywords: rule.keywords,
                    entropy: rule.entropy,
                    secret_group: rule.secret_group,
                    allowed,
                    stopwords,
                },
            });
        }
    }
    Ok(rules)
}

/// An engine's refusal of a rule, with the file that it stands in.
pub fn named(e: Unusable, owners: &[(PathBuf, String)]) -> super::Error {
    match e {
        Unusable::Rule { index, why } if index < owners.len() => {
            let (file, id) = &owners[index];
            let number = owners[..=index].iter().filter(|(other, _)| other == file).count();
            let id = if why == pack::Broken::Id || !plain(id) { String::new() } else { format!(" (`{id}`)") };
            Error { file: file.clone(), what: format!("rule {number}{id}: {why}") }.into()
        }
        other => other.into(),
    }
}

/// Whether an id can be shown: words, not a value.
fn plain(id: &str) -> bool {
    id.len() <= 64 && id.split(['-', '_', '.']).all(|word| word.len() <= 20)
}
