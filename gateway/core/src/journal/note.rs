//! Signed checkpoints: what the log was at some size, fixed by an Ed25519 signature that anybody can check.
//!
//! [C2SP signed-note](https://c2sp.org/signed-note), [tlog-checkpoint](https://c2sp.org/tlog-checkpoint) and, for what a witness
//! adds, [tlog-cosignature](https://c2sp.org/tlog-cosignature).

use super::tree::Hash;
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use ed25519_dalek::{Signature as Ed25519, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// What a log was when it had `size` records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name: unique, and the same for as long as it is one log.
    pub origin: String,
    /// Number of records.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// Reads that text; lines that follow are extensions and are not looked at.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut lines = text.lines();
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(Malformed("no origin in the first line"))?;
        let size = lines.next().unwrap_or_default();
        let plain =
            !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = plain.then(|| size.parse().ok()).flatten().ok_or(Malformed("no tree size in the second line"))?;
        let root = BASE64.decode(lines.next().unwrap_or_default()).ok().and_then(|root| root.try_into().ok());
        Ok(Self { origin: origin.to_owned(), size, root: root.ok_or(Malformed("no root hash in the third line"))? })
    }
}

/// Text that is no checkpoint, no note or no key. It says what is missing, and never what stood there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// A signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The key's name.
    pub name: String,
    /// The first four bytes of the key's hash.
    pub id: u32,
    /// What follows the id.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.id.to_be_bytes().to_vec();
        all.extend_from_slice(&self.bytes);
        writeln!(f, "— {} {}", self.name, BASE64.encode(all))
    }
}

impl Signature {
    /// Reads one line.
    pub fn parse(line: &str) -> Result<Self, Malformed> {
        let bad = Malformed("a signature line is `— NAME BASE64`");
        let (name, signature) = line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')).ok_or(bad)?;
        let bytes = BASE64.decode(signature).map_err(|_| bad)?;
        let (id, bytes) = bytes.split_first_chunk::<4>().ok_or(bad)?;
        Ok(Self { name: name.to_owned(), id: u32::from_be_bytes(*id), bytes: bytes.to_vec() })
    }
}

/// A text with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text, its last line break included.
    pub text: String,
    /// The signatures.
    pub signatures: Vec<Signature>,
}

impl Note {
    /// Reads a note.
    pub fn parse(note: &str) -> Result<Self, Malformed> {
        let (text, signatures) =
            note.rsplit_once("\n\n").ok_or(Malformed("no signature: a note ends with signature lines"))?;
        let signatures: Result<Vec<_>, _> = signatures.lines().map(Signature::parse).collect();
        let signatures = signatures?;
        if signatures.is_empty() {
            return Err(Malformed("no signature: a note ends with signature lines"));
        }
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// The one of `keys` that signed it.
    pub fn signer<'k>(&self, keys: &'k [VerifierKey]) -> Option<&'k VerifierKey> {
        keys.iter().find(|key| self.signatures.iter().any(|signature| key.verify(&self.text, signature)))
    }

    /// The checkpoint that it is, if one of `keys` signed it.
    pub fn checkpoint(&self, keys: &[VerifierKey]) -> Result<Checkpoint, Untrusted> {
        if self.signer(keys).is_some() {
            return Ok(Checkpoint::parse(&self.text)?);
        }
        let by = |signature: &Signature| format!("{}+{:08x}", signature.name, signature.id);
        Err(Untrusted::Signer(self.signatures.iter().map(by).collect::<Vec<_>>().join(", ")))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

/// Why a note counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No known key signed it, or a signature is wrong.
    #[error("no signature by a known key holds; it names {0}")]
    Signer(String),
}

/// Signature algorithms of keys.
const ED25519: u8 = 1;
const COSIGNATURE: u8 = 4;

/// What a signature is checked with: `NAME+ID+BASE64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    algorithm: u8,
    key: [u8; 32],
}

fn key_id(name: &str, algorithm: u8, key: &[u8; 32]) -> u32 {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', algorithm]).chain_update(key).finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn fine_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('+') && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

impl VerifierKey {
    /// Reads `NAME+ID+BASE64`, of a log (Ed25519) or of a witness (cosignature/v1).
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed("a verifier key is `NAME+ID+BASE64`, of Ed25519");
        let (name, rest) = text.trim().split_once('+').ok_or(bad)?;
        let (id, key) = rest.split_once('+').ok_or(bad)?;
        let key = BASE64.decode(key).map_err(|_| bad)?;
        let (algorithm, key) = key.split_first().ok_or(bad)?;
        let key: [u8; 32] = key.try_into().map_err(|_| bad)?;
        let id = u32::from_str_radix(id, 16).map_err(|_| bad)?;
        if !fine_name(name) || ![ED25519, COSIGNATURE].contains(algorithm) || VerifyingKey::from_bytes(&key).is_err() {
            return Err(bad);
        }
        if id != key_id(name, *algorithm, &key) {
            return Err(Malformed("the verifier key's id is not the one of its name and key"));
        }
        Ok(Self { name: name.to_owned(), id, algorithm: *algorithm, key })
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `signature` is this key's on `text`.
    pub fn verify(&self, text: &str, signature: &Signature) -> bool {
        if (signature.name.as_str(), signature.id) != (self.name.as_str(), self.id) {
            return false;
        }
        let Ok(key) = VerifyingKey::from_bytes(&self.key) else { return false };
        let holds = |bytes: &[u8], text: &str| {
            Ed25519::from_slice(bytes).is_ok_and(|signature| key.verify_strict(text.as_bytes(), &signature).is_ok())
        };
        match self.algorithm {
            COSIGNATURE => match signature.bytes.split_first_chunk::<8>() {
                Some((time, bytes)) => holds(bytes, &cosigned(u64::from_be_bytes(*time), text)),
                None => false,
            },
            _ => holds(&signature.bytes, text),
        }
    }
}

/// What a witness signs, at a time in seconds since 1970.
fn cosigned(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.algorithm];
        key.extend_from_slice(&self.key);
        write!(f, "{}+{:08x}+{}", self.name, self.id, BASE64.encode(key))
    }
}

/// What a log signs with.
#[derive(Clone)]
pub struct SignerKey {
    verifier: VerifierKey,
    key: SigningKey,
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({}, ****)", self.verifier)
    }
}

impl SignerKey {
    /// A log's key from 32 random bytes. Nothing when the name cannot be one.
    pub fn new(name: &str, seed: &[u8; 32]) -> Option<Self> {
        Self::of(name, ED25519, seed)
    }

    /// A witness's key, for tests of what speaks to one.
    pub fn witness(name: &str, seed: &[u8; 32]) -> Option<Self> {
        Self::of(name, COSIGNATURE, seed)
    }

    fn of(name: &str, algorithm: u8, seed: &[u8; 32]) -> Option<Self> {
        let key = SigningKey::from_bytes(seed);
        let public = key.verifying_key().to_bytes();
        let id = key_id(name, algorithm, &public);
        let verifier = VerifierKey { name: name.to_owned(), id, algorithm, key: public };
        fine_name(name).then_some(Self { verifier, key })
    }

    /// Reads `PRIVATE+KEY+NAME+ID+BASE64`, as Go's `sumdb/note` writes it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed("a signing key is `PRIVATE+KEY+NAME+ID+BASE64`, of Ed25519");
        let rest = text.trim().strip_prefix("PRIVATE+KEY+").ok_or(bad)?;
        let (name, rest) = rest.split_once('+').ok_or(bad)?;
        let (id, seed) = rest.split_once('+').ok_or(bad)?;
        let seed = Zeroizing::new(BASE64.decode(seed).map_err(|_| bad)?);
        let (algorithm, seed) = seed.split_first().ok_or(bad)?;
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.try_into().map_err(|_| bad)?);
        let key = Self::of(name, *algorithm, &seed).filter(|_| *algorithm == ED25519).ok_or(bad)?;
        if u32::from_str_radix(id, 16) != Ok(key.verifier.id) {
            return Err(Malformed("the signing key's id is not the one of its name and key"));
        }
        Ok(key)
    }

    /// The text that [`SignerKey::parse`] reads. A secret.
    pub fn to_private(&self) -> Zeroizing<String> {
        let mut key = Zeroizing::new(vec![self.verifier.algorithm]);
        key.extend_from_slice(self.key.as_bytes());
        let VerifierKey { name, id, .. } = &self.verifier;
        Zeroizing::new(format!("PRIVATE+KEY+{name}+{id:08x}+{}", BASE64.encode(&*key)))
    }

    /// What its signatures are checked with.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs a text.
    pub fn sign(&self, text: &str) -> Signature {
        let VerifierKey { name, id, .. } = &self.verifier;
        Signature { name: name.clone(), id: *id, bytes: self.key.sign(text.as_bytes()).to_bytes().to_vec() }
    }

    /// Signs a text as a witness does, at a time in seconds since 1970.
    pub fn cosign(&self, text: &str, time: u64) -> Signature {
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.key.sign(cosigned(time, text).as_bytes()).to_bytes());
        Signature { bytes, ..self.sign("") }
    }

    /// Signs a checkpoint.
    pub fn note(&self, checkpoint: &Checkpoint) -> Note {
        let text = checkpoint.text();
        let signatures = vec![self.sign(&text)];
        Note { text, signatures }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SignerKey {
        SignerKey::new("warden.example/log", &[7; 32]).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "warden.example/log".into(), size: 12, root: [9; 32] }
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_its_keys_too() {
        let (key, note) = (key(), key().note(&checkpoint()));
        let text = note.to_string();
        assert_eq!(Note::parse(&text).unwrap(), note);
        assert_eq!(note.checkpoint(&[key.verifier().clone()]).unwrap(), checkpoint());
        assert_eq!(VerifierKey::parse(&key.verifier().to_string()).unwrap(), *key.verifier());
        assert_eq!(SignerKey::parse(&key.to_private()).unwrap().verifier(), key.verifier());
        assert!(!format!("{key:?}").contains(&BASE64.encode([7; 32])[..20]));
    }

    #[test]
    fn a_witness_signs_the_text_and_the_time() {
        let witness = SignerKey::witness("witness.example", &[8; 32]).unwrap();
        let text = checkpoint().text();
        let signature = witness.cosign(&text, 1_700_000_000);
        assert!(witness.verifier().verify(&text, &signature));
        assert!(!witness.verifier().verify("other\n", &signature));
        let mut later = signature;
        later.bytes[7] ^= 1;
        assert!(!witness.verifier().verify(&text, &later));
    }

    #[test]
    fn what_is_no_key_says_so_without_showing_it() {
        for text in ["", "x", "PRIVATE+KEY+n+00000000+AAAA", "PRIVATE+KEY+a b+1+AQ=="] {
            assert!(SignerKey::parse(text).is_err(), "{text}");
            assert!(VerifierKey::parse(text).is_err(), "{text}");
        }
        let swapped = key().verifier().to_string().replacen("+", "x+", 1);
        assert_eq!(
            VerifierKey::parse(&swapped).unwrap_err().to_string(),
            "the verifier key's id is not the one of its name and key"
        );
        for text in ["o\n01\nAAAA\n", "o\n-1\n\n", "\n1\n\n", "o\n1\nAAAA\n"] {
            assert!(Checkpoint::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn w08_no_changed_note_is_trusted(place in any::<prop::sample::Index>(), flip in 1u8..128) {
            let (key, text) = (key(), key().note(&checkpoint()).to_string());
            let mut bytes = text.clone().into_bytes();
            let at = place.index(bytes.len());
            bytes[at] ^= flip;
            let trusted = String::from_utf8(bytes).ok().and_then(|text| Note::parse(&text).ok())
                .and_then(|note| note.checkpoint(&[key.verifier().clone()]).ok());
            prop_assert!(trusted.is_none_or(|trusted| trusted == checkpoint()));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(— )?[a-z+ \\n]{0,40}") {
            let _ = (Note::parse(&text), SignerKey::parse(&text), VerifierKey::parse(&text), Checkpoint::parse(&text));
        }
    }
}
