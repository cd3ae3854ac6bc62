//! Who may speak: workers by bearer token, operators by theirs. Stored as SHA-256, so the file gives nobody access.

use crate::files::write_private;
use crate::keys::{hex, random};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use warden_core::composition::delegate::Delegate;

/// What a token may do besides acting as its own worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nothing more.
    Worker,
    /// Declares a task's tools, prompt and directory, or acts for another worker.
    Host,
    /// Asks about other subjects.
    Pep,
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "worker" => Ok(Role::Worker),
            "host" => Ok(Role::Host),
            "pep" => Ok(Role::Pep),
            other => Err(format!("unknown role `{other}`: worker, host or pep")),
        }
    }
}

/// A worker's token, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Names it in lists and for revoking.
    pub id: String,
    /// The worker it speaks for.
    pub worker: String,
    /// Its role.
    pub role: Role,
    /// When it was issued, RFC 3339.
    pub issued: String,
    hash: String,
    /// What a delegate's token is bound to. Nothing of it is said by whoever shows the token.
    #[serde(skip)]
    pub bound: Option<Bound>,
}

/// What a delegate is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The session of all it does.
    pub session: Option<String>,
    /// The task.
    pub task: Option<String>,
    /// The run.
    pub run: Option<String>,
}

/// An operator, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// The person's name.
    pub name: String,
    /// When they were added, RFC 3339.
    pub added: String,
    hash: String,
}

/// All of them: the data folder's `identities.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identities {
    /// Workers' tokens.
    pub tokens: Vec<Token>,
    /// Operators.
    pub operators: Vec<Operator>,
}

impl Token {
    /// The token of a delegate.
    pub fn of_delegate(id: &str, delegate: &Delegate) -> Self {
        let Delegate { session, task, run, .. } = delegate.clone();
        Self {
            id: id.to_owned(),
            worker: delegate.node.clone(),
            role: Role::Worker,
            issued: String::new(),
            hash: String::new(),
            bound: Some(Bound { session, task, run }),
        }
    }
}

impl Identities {
    /// Reads the file; none is nobody.
    pub fn load(data_dir: &Path) -> io::Result<Self> {
        let path = file(data_dir);
        match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(io::Error::new(e.kind(), format!("cannot read `{}`: {e}", path.display()))),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| io::Error::other(format!("`{}` is not what Warden wrote: {e}", path.display()))),
        }
    }

    /// Writes the file.
    pub fn save(&self, data_dir: &Path) -> io::Result<()> {
        write_private(&file(data_dir), &serde_json::to_vec_pretty(self)?)
    }

    /// A fresh token, told once.
    pub fn issue(&mut self, worker: &str, role: Role, now: &str) -> io::Result<(String, Token)> {
        let secret = format!("wdn_{}", hex(&random()?));
        let token = Token {
            id: hex(&random()?)[..8].to_owned(),
            worker: worker.into(),
            role,
            issued: now.into(),
            hash: hash(&secret),
            bound: None,
        };
        self.tokens.push(token.clone());
        Ok((secret, token))
    }

    /// Adds an operator with a fresh token, told once. A name is used once.
    pub fn add_operator(&mut self, name: &str, now: &str) -> io::Result<String> {
        fine_name(name).map_err(io::Error::other)?;
        if self.operators.iter().any(|operator| operator.name == name) {
            return Err(io::Error::other(format!("operator `{name}` is there already: revoke them first")));
        }
        let secret = format!("wdo_{}", hex(&random()?));
        self.operators.push(Operator { name: name.into(), added: now.into(), hash: hash(&secret) });
        Ok(secret)
    }

    /// Takes a token back; whether there was one.
    pub fn revoke_token(&mut self, id: &str) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|token| token.id != id);
        self.tokens.len() < before
    }

    /// Takes an operator's access back; whether there was one.
    pub fn revoke_operator(&mut self, name: &str) -> bool {
        let before = self.operators.len();
        self.operators.retain(|operator| operator.name != name);
        self.operators.len() < before
    }

    /// The worker's token that `secret` is. Hashes are compared, so timing tells nothing of a stored one.
    pub fn worker(&self, secret: &str) -> Option<&Token> {
        let hash = hash(secret);
        self.tokens.iter().find(|token| token.hash == hash)
    }

    /// Whether a worker's own token is still good.
    pub fn has_token(&self, id: &str) -> bool {
        self.tokens.iter().any(|token| token.id == id)
    }

    /// The operator whose token `secret` is.
    pub fn operator(&self, secret: &str) -> Option<&Operator> {
        let hash = hash(secret);
        self.operators.iter().find(|operator| operator.hash == hash)
    }
}

/// Whether a name can be told, typed and stand in a path: 1 to 64 letters, digits, `.`, `_`, `-`, with spaces within.
pub fn fine_name(name: &str) -> Result<(), String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._- ".contains(&b);
    if name.is_empty() || name.len() > 64 || name.trim() != name || !name.bytes().all(fine) {
        let shown: String = name.chars().take(64).collect();
        return Err(format!("`{}`: use 1 to 64 letters, digits, `.`, `_`, `-`", shown.escape_debug()));
    }
    Ok(())
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("identities.json")
}

/// What is kept of a token.
pub fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}
