//! `keys/`: the MAC key, and one sealing key per held proposal. Kept apart from everything that is exported.

use crate::files::{self, write_private};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use warden_core::catalogue::push_hex;
use warden_core::decision::Sealed;
use warden_core::mac::MacKey;
use warden_core::port::SealFailed;
use warden_core::proposal::DecisionId;
use zeroize::{Zeroize, Zeroizing};

/// The keys of a data folder.
#[derive(Clone, Debug)]
pub struct Keys {
    dir: PathBuf,
    mac: MacKey,
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
        Ok(Self { dir, mac: MacKey::new(stored.kid, key) })
    }

    /// The key of tags.
    pub fn mac(&self) -> &MacKey {
        &self.mac
    }

    /// Encrypts with a fresh key that is on the disk when this returns.
    pub fn seal(&self, id: &DecisionId, payload: &[u8]) -> Result<Sealed, SealFailed> {
        let seal = || -> io::Result<Sealed> {
            let key = Zeroizing::new(random()?);
            let mut nonce = [0; 24];
            getrandom::fill(&mut nonce).map_err(io::Error::other)?;
            let cipher = XChaCha20Poly1305::new_from_slice(key.as_slice()).map_err(io::Error::other)?;
            let aad = id.as_str().as_bytes();
            let ct = cipher
                .encrypt(&XNonce::from(nonce), Payload { msg: payload, aad })
                .map_err(|_| io::Error::other("encryption failed"))?;
            write_private(&self.parked(id), hex(key.as_slice()).as_bytes())?;
            Ok(Sealed { kid: format!("parked/{id}"), nonce: hex(&nonce), ct: hex(&ct) })
        };
        seal().map_err(|e| SealFailed(format!("cannot seal: {e}")))
    }

    /// Decrypts what was sealed for a held proposal.
    pub fn unseal(&self, id: &DecisionId, sealed: &Sealed) -> io::Result<Vec<u8>> {
        let text = Zeroizing::new(std::fs::read_to_string(self.parked(id))?);
        let bad = || io::Error::other("the sealed arguments cannot be read");
        let key = Zeroizing::new(unhex::<32>(&text).ok_or_else(bad)?);
        let nonce = unhex::<24>(&sealed.nonce).ok_or_else(bad)?;
        let cipher = XChaCha20Poly1305::new_from_slice(key.as_slice()).map_err(|_| bad())?;
        let ct = unhex_vec(&sealed.ct).ok_or_else(bad)?;
        let aad = id.as_str().as_bytes();
        cipher.decrypt(&XNonce::from(nonce), Payload { msg: &ct, aad }).map_err(|_| bad())
    }

    /// Destroys the key of a held proposal: its arguments can never be read again.
    pub fn destroy(&self, id: &DecisionId) -> io::Result<()> {
        match std::fs::remove_file(self.parked(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => crate::sync_dir(&self.dir.join("parked")),
        }
    }

    fn parked(&self, id: &DecisionId) -> PathBuf {
        // Ids are made by Warden and hold no separator; anything else must not name a file elsewhere.
        let name: String = id.as_str().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        self.dir.join("parked").join(format!("{name}.key"))
    }
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
