//! What the no-secret engine is made of: registered values from the places an operator named, packs of rules, and what
//! operators registered or allowed while the gateway ran.

pub mod packs;
pub mod sources;
pub mod store;

use crate::keys::{self, Keys};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use warden_core::mac::MacKey;
use warden_core::secrets::registered::Registration;
use warden_core::secrets::{Engine, Sources as Parts};
use zeroize::Zeroizing;

/// What the configuration says about secrets.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Places of values that are registered at every start.
    pub registered: Vec<sources::Source>,
    /// Files of rules.
    pub packs: Vec<packs::Pack>,
}

/// Why the engine cannot be made. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A place of values.
    #[error("secrets.registered: {0}")]
    Source(#[from] sources::Error),
    /// A file of rules.
    #[error("secrets.packs: {0}")]
    Pack(#[from] packs::Error),
    /// A value, or all of it.
    #[error("{0}")]
    Unusable(#[from] warden_core::secrets::Unusable),
    /// What operators registered cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads everything again and makes the engine of it.
pub fn load(data_dir: &Path, keys: &Keys, sources: &Sources) -> Result<Engine, Error> {
    let mut values = sources::read(&sources.registered)?;
    values.extend(store::registered(data_dir, keys)?);
    one_name_each(&values)?;
    let allowed = store::allowed(data_dir)?;
    let allowed: BTreeMap<_, _> = allowed.into_iter().map(|entry| (entry.fingerprint, entry.until)).collect();
    load_with(packs::read(&sources.packs)?, values, allowed, keys.mac())
}

/// Reads the packs, and tells whether an engine can be made with them.
pub fn check_packs(sources: &Sources) -> Result<(), Error> {
    load_with(packs::read(&sources.packs)?, Vec::new(), BTreeMap::new(), &MacKey::new("none", keys::random()?))
        .map(drop)
}

fn load_with(
    rules: Vec<packs::Owned>,
    values: Vec<Registration>,
    allowed: BTreeMap<String, Option<jiff::Timestamp>>,
    key: &MacKey,
) -> Result<Engine, Error> {
    let owners: Vec<(PathBuf, String)> = rules.iter().map(|rule| (rule.file.clone(), rule.rule.id.clone())).collect();
    let parts =
        Parts { rules: rules.into_iter().map(|rule| rule.rule).collect(), values, allowed, without_catalogue: false };
    Engine::new(parts, window_keys()?, key).map_err(|e| packs::named(e, &owners))
}

fn one_name_each(values: &[Registration]) -> Result<(), Error> {
    let mut names = std::collections::HashSet::new();
    match values.iter().find(|value| !names.insert(value.name.as_str())) {
        None => Ok(()),
        Some(value) => {
            Err(sources::Error { name: value.name.clone(), what: "two values have this name".into() }.into())
        }
    }
}

/// Random bytes for an index that lives as long as the process.
pub fn window_keys() -> io::Result<[u8; 56]> {
    let (first, second) = (Zeroizing::new(keys::random()?), Zeroizing::new(keys::random()?));
    let mut all = [0; 56];
    all[..32].copy_from_slice(first.as_slice());
    all[32..].copy_from_slice(&second[..24]);
    Ok(all)
}
