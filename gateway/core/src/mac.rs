//! Keyed tags: a reviewer can see that two values are the same without seeing either. And what is encrypted, as it is written down.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Something encrypted, see `keys/`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The key's id. A destroyed key makes this unreadable for good.
    pub kid: String,
    /// Hex.
    pub nonce: String,
    /// Hex.
    pub ct: String,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({}, {} hex digits)", self.kid, self.ct.len())
    }
}

/// An HMAC-SHA-256 key with its id.
#[derive(Clone)]
pub struct MacKey {
    kid: String,
    key: Zeroizing<[u8; 32]>,
}

impl MacKey {
    /// A key of the folder `keys/`.
    pub fn new(kid: impl Into<String>, key: [u8; 32]) -> Self {
        Self { kid: kid.into(), key: Zeroizing::new(key) }
    }

    /// The key's id, with which each tag begins.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// `KID:` and 16 bytes of the tag in hex.
    pub fn tag(&self, bytes: &[u8]) -> String {
        let mut text = format!("{}:", self.kid);
        // HMAC takes keys of any length, so this cannot fail.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.as_slice()) {
            mac.update(bytes);
            crate::catalogue::push_hex(&mut text, &mac.finalize().into_bytes()[..16]);
        }
        text
    }

    /// The whole tag in hex: a value that nobody makes without the key.
    pub fn whole(&self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(64);
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.as_slice()) {
            mac.update(bytes);
            crate::catalogue::push_hex(&mut text, &mac.finalize().into_bytes());
        }
        text
    }

    /// Whether `tag` is that of `bytes`, in a time that tells nothing.
    pub fn is_whole(&self, bytes: &[u8], tag: &str) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.as_slice()) else { return false };
        mac.update(bytes);
        crate::catalogue::from_hex(tag).is_some_and(|tag| mac.verify_slice(&tag).is_ok())
    }

    /// Eight bytes of the tag, to be compared in memory only.
    pub(crate) fn short(&self, bytes: &[u8]) -> u64 {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.as_slice()) else { return 0 };
        mac.update(bytes);
        let mut head = [0; 8];
        head.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        u64::from_le_bytes(head)
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MacKey({}, ****)", self.kid)
    }
}
