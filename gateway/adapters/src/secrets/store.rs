//! `secrets/` of the data folder: values that operators registered, sealed, and fingerprints that they allowed.

use crate::files::{create_private_dir, write_private};
use crate::keys::Keys;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use warden_core::decision::Sealed;
use warden_core::secrets::registered::Registration;
use zeroize::Zeroizing;

/// A value that may pass although it looks like a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// The value's keyed fingerprint, as findings have it.
    pub fingerprint: String,
    /// Who answers for it.
    pub owner: String,
    /// Why it may.
    pub reason: String,
    /// Until when; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The operator who said so.
    pub by: String,
    /// When.
    pub since: Timestamp,
}

/// A registered value as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    canary: bool,
    sealed: Sealed,
}

fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("secrets")
}

fn allowed_file(data_dir: &Path) -> PathBuf {
    dir(data_dir).join("allowed.json")
}

fn registered_file(data_dir: &Path) -> PathBuf {
    dir(data_dir).join("registered.json")
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Vec<T>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io::Error::new(e.kind(), format!("`{}`: {e}", path.display()))),
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|_| io::Error::other(format!("`{}` is not what Warden wrote there", path.display()))),
    }
}

fn write<T: Serialize>(data_dir: &Path, path: &Path, all: &[T]) -> io::Result<()> {
    create_private_dir(&dir(data_dir))?;
    write_private(path, &serde_json::to_vec_pretty(all)?)
}

/// What operators registered.
pub fn registered(data_dir: &Path, keys: &Keys) -> io::Result<Vec<Registration>> {
    let stored: Vec<Stored> = read(&registered_file(data_dir))?;
    let open = |stored: Stored| {
        let value = keys.unseal_registered(&stored.name, &stored.sealed)?;
        Ok(Registration { name: stored.name, canary: stored.canary, value: Zeroizing::new(value) })
    };
    stored.into_iter().map(open).collect()
}

/// Keeps one more value, sealed.
pub fn register(data_dir: &Path, keys: &Keys, registration: &Registration) -> io::Result<()> {
    let path = registered_file(data_dir);
    let mut all: Vec<Stored> = read(&path)?;
    let sealed = keys.seal_registered(&registration.name, &registration.value)?;
    all.retain(|stored| stored.name != registration.name);
    all.push(Stored { name: registration.name.clone(), canary: registration.canary, sealed });
    write(data_dir, &path, &all)
}

/// The names of kept values.
pub fn names(data_dir: &Path) -> io::Result<Vec<String>> {
    Ok(read::<Stored>(&registered_file(data_dir))?.into_iter().map(|stored| stored.name).collect())
}

/// Forgets a kept value. Whether there was one.
pub fn forget(data_dir: &Path, name: &str) -> io::Result<bool> {
    let path = registered_file(data_dir);
    let mut all: Vec<Stored> = read(&path)?;
    let before = all.len();
    all.retain(|stored| stored.name != name);
    write(data_dir, &path, &all)?;
    Ok(all.len() < before)
}

/// What may pass.
pub fn allowed(data_dir: &Path) -> io::Result<Vec<Allowed>> {
    read(&allowed_file(data_dir))
}

/// Lets one more pass, or the same for another time.
pub fn allow(data_dir: &Path, entry: Allowed) -> io::Result<()> {
    let mut all = allowed(data_dir)?;
    all.retain(|other| other.fingerprint != entry.fingerprint);
    all.push(entry);
    write(data_dir, &allowed_file(data_dir), &all)
}

/// Lets one pass no longer. Whether it did.
pub fn disallow(data_dir: &Path, fingerprint: &str) -> io::Result<bool> {
    let mut all = allowed(data_dir)?;
    let before = all.len();
    all.retain(|entry| entry.fingerprint != fingerprint);
    write(data_dir, &allowed_file(data_dir), &all)?;
    Ok(all.len() < before)
}
