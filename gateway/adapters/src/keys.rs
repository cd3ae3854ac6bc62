//! `keys/`: the MAC key, and one sealing key per held proposal. Kept apart from everything that is exported.

use crate::files::{self, write_private};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use warden_core::catalogue::push_hex;
use warden_core::decision::Sealed;
use warden_core::journal::note::{SignerKey, VerifierKey};
use warden_core::mac::MacKey;
use warden_core::port::SealFailed;
use warden_core::proposal::{DecisionId, root_of};
use zeroize::{Zeroize, Zeroizing};

/// The keys of a data folder.
#[derive(Clone, Debug)]
pub struct Keys {
    dir: PathBuf,
    mac: MacKey,
    workers: Arc<Mutex<HashMap<String, WorkerKey>>>,
}

/// What the recorded arguments of one worker are encrypted with.
#[derive(Clone)]
struct WorkerKey {
    kid: String,
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for WorkerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WorkerKey({}, ****)", self.kid)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    kid: String,
    key: String,
}

impl Keys {
    /// Makes the folder and the MAC key unless they are there.
    pub fn create(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("keys");
        files::create_private_dir(&dir.join("parked"))?;
        files::create_private_dir(&dir)?;
        let path = dir.join("mac.json");
        if !path.exists() {
            let mut key = random()?;
            let stored = Stored { kid: format!("k{}", &hex(&random()?)[..8]), key: hex(&key) };
            key.zeroize();
            write_private(&path, &serde_json::to_vec(&stored)?)?;
        }
        Self::open(data_dir)
    }

    /// Opens what [`Keys::create`] made.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("keys");
        let path = dir.join("mac.json");
        let bad = |what: String| io::Error::other(format!("`{}`: {what}", path.display()));
        let text = Zeroizing::new(std::fs::read(&path).map_err(|e| bad(e.to_string()))?);
        let stored: Stored = serde_json::from_slice(&text).map_err(|_| bad("not a key file".into()))?;
        let key = unhex::<32>(&stored.key).ok_or_else(|| bad("the key is not 32 bytes of hex".into()))?;
        Ok(Self { dir, mac: MacKey::new(stored.kid, key), workers: Arc::default() })
    }

    /// The key of tags.
    pub fn mac(&self) -> &MacKey {
        &self.mac
    }

    /// Encrypts with a fresh key that is on the disk when this returns.
    pub fn seal(&self, id: &DecisionId, payload: &[u8]) -> Result<Sealed, SealFailed> {
        let seal = || -> io::Result<Sealed> {
            let key = Zeroizing::new(random()?);
            let sealed = encrypt(format!("parked/{id}"), &key, id, payload)?;
            write_private(&self.parked(id), hex(key.as_slice()).as_bytes())?;
            Ok(sealed)
        };
        seal().map_err(|e| SealFailed(format!("cannot seal: {e}")))
    }

    /// Decrypts what was sealed for a held proposal.
    pub fn unseal(&self, id: &DecisionId, sealed: &Sealed) -> io::Result<Vec<u8>> {
        let key = self.parked_key(id)?;
        decrypt(&key, id, sealed).ok_or_else(|| io::Error::other("the sealed arguments cannot be read"))
    }

    /// Keeps what came of a held proposal, encrypted with its key.
    pub fn keep(&self, id: &DecisionId, result: &[u8]) -> io::Result<()> {
        let key = self.parked_key(id)?;
        let sealed = encrypt(format!("parked/{id}"), &key, id, result)?;
        write_private(&self.result(id), &serde_json::to_vec(&sealed)?)
    }

    /// What was kept.
    pub fn kept(&self, id: &DecisionId) -> io::Result<Vec<u8>> {
        let sealed: Sealed = serde_json::from_slice(&std::fs::read(self.result(id))?)?;
        let key = self.parked_key(id)?;
        decrypt(&key, id, &sealed).ok_or_else(|| io::Error::other("it cannot be decrypted"))
    }

    fn parked_key(&self, id: &DecisionId) -> io::Result<Zeroizing<[u8; 32]>> {
        let text = Zeroizing::new(std::fs::read_to_string(self.parked(id))?);
        let key = unhex::<32>(&text).ok_or_else(|| io::Error::other("the key is no key"))?;
        Ok(Zeroizing::new(key))
    }

    /// Encrypts what a record says of a worker's arguments. The worker's key is made when there is none.
    pub fn seal_input(&self, worker: &str, id: &DecisionId, input: &[u8]) -> Result<Sealed, SealFailed> {
        let failed = |e: io::Error| SealFailed(format!("cannot seal: {e}"));
        let WorkerKey { kid, key } = self.worker_key(worker).map_err(failed)?;
        encrypt(kid, &key, id, input).map_err(failed)
    }

    /// Decrypts that. Nothing when the key was destroyed, or is of another folder.
    pub fn unseal_input(&self, worker: &str, id: &DecisionId, sealed: &Sealed) -> Option<Vec<u8>> {
        let WorkerKey { kid, key } = self.read_worker_key(worker).ok()??;
        (kid == sealed.kid).then(|| decrypt(&key, id, sealed)).flatten()
    }

    /// Encrypts a registered value with the folder's own key, which is made when there is none.
    pub fn seal_registered(&self, name: &str, value: &[u8]) -> io::Result<Sealed> {
        let path = self.dir.join("registered.json");
        let (kid, key) = match read_key(&path)? {
            Some(known) => known,
            None => {
                let (kid, key) = (format!("registered/{}", &hex(&random()?)[..16]), Zeroizing::new(random()?));
                let stored =
                    Zeroizing::new(serde_json::to_vec(&Stored { kid: kid.clone(), key: hex(key.as_slice()) })?);
                write_private(&path, &stored)?;
                (kid, key)
            }
        };
        encrypt(kid, &key, &DecisionId::new(name), value)
    }

    /// Decrypts that.
    pub fn unseal_registered(&self, name: &str, sealed: &Sealed) -> io::Result<Vec<u8>> {
        let (_, key) = read_key(&self.dir.join("registered.json"))?
            .ok_or_else(|| io::Error::other("the key of registered values is not there"))?;
        decrypt(&key, &DecisionId::new(name), sealed)
            .ok_or_else(|| io::Error::other(format!("the registered value `{name}` cannot be decrypted")))
    }

    /// Destroys a worker's key: its sealed arguments can never be read again. Whether there was one.
    pub fn destroy_worker(&self, worker: &str) -> io::Result<bool> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.remove(root_of(worker));
        match std::fs::remove_file(self.worker_file(worker)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
            Ok(()) => crate::sync_dir(&self.dir.join("workers")).map(|()| true),
        }
    }

    fn worker_key(&self, worker: &str) -> io::Result<WorkerKey> {
        let worker = root_of(worker);
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = workers.get(worker) {
            return Ok(key.clone());
        }
        let key = match self.read_worker_key(worker)? {
            Some(key) => key,
            None => {
                let kid = format!("worker/{}", &hex(&random()?)[..16]);
                let key = Zeroizing::new(random()?);
                let stored =
                    Zeroizing::new(serde_json::to_vec(&Stored { kid: kid.clone(), key: hex(key.as_slice()) })?);
                files::create_private_dir(&self.dir.join("workers"))?;
                write_private(&self.worker_file(worker), &stored)?;
                WorkerKey { kid, key }
            }
        };
        workers.insert(worker.to_owned(), key.clone());
        Ok(key)
    }

    fn read_worker_key(&self, worker: &str) -> io::Result<Option<WorkerKey>> {
        Ok(read_key(&self.worker_file(worker))?.map(|(kid, key)| WorkerKey { kid, key }))
    }

    /// A worker and the nodes that come from it have one key: erasing one erases all.
    fn worker_file(&self, worker: &str) -> PathBuf {
        let worker = root_of(worker);
        // Names of workers that were never configured reach this as well.
        let name: String =
            worker.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '.' }).collect();
        self.dir.join("workers").join(format!(
            "w-{}-{}.json",
            name.chars().take(64).collect::<String>(),
            short_hash(worker)
        ))
    }

    /// What checkpoints are signed with: the key in `given`, or one of this folder, made when there is none.
    pub fn signer(&self, given: Option<&Path>, origin: Option<&str>) -> io::Result<SignerKey> {
        let path = given.map_or_else(|| self.dir.join("checkpoint.key"), Path::to_owned);
        let bad = |what: String| io::Error::other(format!("`{}`: {what}", path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => SignerKey::parse(&Zeroizing::new(text)).map_err(|e| bad(e.to_string())),
            Err(e) if e.kind() == io::ErrorKind::NotFound && given.is_none() => {
                let name = match origin {
                    Some(origin) => origin.to_owned(),
                    None => format!("warden-log/{}", &hex(&random()?)[..16]),
                };
                let signer = Self::new_signer(&name)?;
                self.keep_signer(&signer)?;
                Ok(signer)
            }
            Err(e) => Err(bad(e.to_string())),
        }
    }

    /// A fresh key of that name.
    pub fn new_signer(name: &str) -> io::Result<SignerKey> {
        let seed = Zeroizing::new(random()?);
        SignerKey::new(name, &seed)
            .ok_or_else(|| io::Error::other(format!("`{name}` cannot name a log: no spaces, no `+`")))
    }

    /// Makes `signer` the folder's own.
    pub fn keep_signer(&self, signer: &SignerKey) -> io::Result<()> {
        write_private(&self.dir.join("checkpoint.key"), format!("{}\n", *signer.to_private()).as_bytes())
    }

    /// Everything this log's checkpoints were ever signed with, the newest last.
    pub fn verifiers(&self) -> io::Result<Vec<VerifierKey>> {
        let path = self.dir.join("checkpoint.verifiers");
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let keys: Result<Vec<_>, _> = text.lines().map(VerifierKey::parse).collect();
        keys.map_err(|e| io::Error::other(format!("`{}`: {e}", path.display())))
    }

    /// Remembers what checkpoints are checked with.
    pub fn keep_verifier(&self, verifier: &VerifierKey) -> io::Result<()> {
        let mut all = self.verifiers()?;
        if all.last() == Some(verifier) {
            return Ok(());
        }
        all.retain(|known| known != verifier);
        all.push(verifier.clone());
        let text: String = all.iter().map(|key| format!("{key}\n")).collect();
        write_private(&self.dir.join("checkpoint.verifiers"), text.as_bytes())
    }

    /// Destroys the key of a held proposal, and what was kept of it: neither can ever be read again.
    pub fn destroy(&self, id: &DecisionId) -> io::Result<()> {
        for path in [self.parked(id), self.result(id)] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        crate::sync_dir(&self.dir.join("parked"))
    }

    /// Destroys the keys and results of everything that is not `held` any more: what a crash left behind.
    pub fn tidy(&self, held: &[DecisionId]) -> io::Result<usize> {
        let kept: Vec<PathBuf> = held.iter().flat_map(|id| [self.parked(id), self.result(id)]).collect();
        let mut gone = 0;
        for entry in std::fs::read_dir(self.dir.join("parked"))? {
            let path = entry?.path();
            if !kept.contains(&path) {
                std::fs::remove_file(&path)?;
                gone += 1;
            }
        }
        if gone > 0 {
            crate::sync_dir(&self.dir.join("parked"))?;
        }
        Ok(gone)
    }

    fn result(&self, id: &DecisionId) -> PathBuf {
        self.parked(id).with_extension("result")
    }

    fn parked(&self, id: &DecisionId) -> PathBuf {
        // Ids are made by Warden and hold no separator; anything else must not name a file elsewhere.
        let name: String = id.as_str().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        self.dir.join("parked").join(format!("{name}.key"))
    }
}

/// A key file: its id and the key; nothing when it is not there.
fn read_key(path: &Path) -> io::Result<Option<(String, Zeroizing<[u8; 32]>)>> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => Zeroizing::new(other?),
    };
    let bad = || io::Error::other(format!("`{}` is not a key file", path.display()));
    let stored: Stored = serde_json::from_slice(&text).map_err(|_| bad())?;
    let key = Zeroizing::new(unhex::<32>(&stored.key).ok_or_else(bad)?);
    Ok(Some((stored.kid, key)))
}

fn encrypt(kid: String, key: &[u8; 32], id: &DecisionId, payload: &[u8]) -> io::Result<Sealed> {
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let cipher = XChaCha20Poly1305::new_from_slice(key).map_err(io::Error::other)?;
    let payload = Payload { msg: payload, aad: id.as_str().as_bytes() };
    let ct = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| io::Error::other("encryption failed"))?;
    Ok(Sealed { kid, nonce: hex(&nonce), ct: hex(&ct) })
}

fn decrypt(key: &[u8; 32], id: &DecisionId, sealed: &Sealed) -> Option<Vec<u8>> {
    let nonce = unhex::<24>(&sealed.nonce)?;
    let cipher = XChaCha20Poly1305::new_from_slice(key).ok()?;
    let ct = unhex_vec(&sealed.ct)?;
    cipher.decrypt(&XNonce::from(nonce), Payload { msg: &ct, aad: id.as_str().as_bytes() }).ok()
}

fn short_hash(text: &str) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(text.as_bytes()))[..8].to_owned()
}

/// 32 random bytes.
pub fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

fn unhex_vec(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().as_bytes();
    text.len().is_multiple_of(2).then_some(())?;
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.chunks(2).map(|pair| Some(digit(pair[0])? * 16 + digit(pair[1])?)).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    unhex_vec(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_bound_to_its_decision_and_gone_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::create(dir.path()).unwrap();
        let id = DecisionId::new("0190-a");
        let sealed = keys.seal(&id, b"transfer 5").unwrap();
        assert_eq!(Keys::open(dir.path()).unwrap().unseal(&id, &sealed).unwrap(), b"transfer 5");
        assert!(keys.unseal(&DecisionId::new("0190-b"), &sealed).is_err());
        let mut changed = sealed.clone();
        changed.ct.replace_range(0..1, if sealed.ct.starts_with('0') { "1" } else { "0" });
        assert!(keys.unseal(&id, &changed).is_err());
        keys.destroy(&id).unwrap();
        assert!(keys.unseal(&id, &sealed).is_err());
    }
}
