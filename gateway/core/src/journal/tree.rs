//! The Merkle tree over the stored bytes of all records: [RFC 6962 §2.1](https://www.rfc-editor.org/rfc/rfc6962#section-2.1).
//!
//! The stored bytes are hashed, never a re-serialisation, so that key order cannot make one record look like two.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// The hash of one record's stored bytes.
pub fn leaf(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(bytes).finalize().into()
}

/// The hash of an inner node.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The right edge of the tree: enough to append to it and to know its root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier {
    size: u64,
    /// The roots of the perfect subtrees that the size's binary digits stand for, largest first.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_subtree(0, leaf);
    }

    /// The right edge of a tree of `size` leaves from its perfect subtrees, largest first. Nothing when their number is another.
    pub fn of_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() as u64 == u64::from(size.count_ones())).then_some(Self { size, peaks })
    }

    /// Appends a perfect subtree of `1 << level` leaves; the size must be a multiple of that.
    pub fn push_subtree(&mut self, level: u32, root: Hash) {
        let mut hash = root;
        // Each trailing one is a subtree as tall as the one just made.
        for _ in 0..(self.size >> level).trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1 << level;
    }

    /// The root. That of the empty tree is the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Sha256::digest([]).into(),
            Some(last) => peaks.fold(*last, |right, left| node(left, &right)),
        }
    }
}

/// Lower-case hex.
pub fn hex(hash: &Hash) -> String {
    let mut text = String::with_capacity(64);
    crate::catalogue::push_hex(&mut text, hash);
    text
}

/// Bytes of lower-case hex; nothing when it is none.
pub fn unhex(text: &str) -> Option<Hash> {
    let text = text.as_bytes();
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let bytes: Option<Vec<u8>> =
        text.chunks(2).map(|pair| Some(digit(pair[0])? * 16 + digit(*pair.get(1)?)?)).collect();
    bytes?.try_into().ok()
}

/// Lists of hashes as JSON lists of hex.
pub mod hex_list {
    use super::{Hash, hex, unhex};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes.
    pub fn serialize<S: Serializer>(hashes: &[Hash], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(hashes.iter().map(hex))
    }

    /// Reads.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Hash>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| unhex(text).ok_or_else(|| D::Error::custom("a hash is 64 hex digits"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The RFC's definition, word for word.
    fn reference(leaves: &[Hash]) -> Hash {
        match leaves.len() {
            0 => Sha256::digest([]).into(),
            1 => leaves[0],
            n => {
                let k = n.next_power_of_two() / 2;
                node(&reference(&leaves[..k]), &reference(&leaves[k..]))
            }
        }
    }

    #[test]
    fn roots_agree_with_the_definition_and_with_known_ones() {
        let mut frontier = Frontier::default();
        let mut leaves = Vec::new();
        assert_eq!(hex(&frontier.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for n in 0..130u32 {
            leaves.push(leaf(&n.to_be_bytes()));
            frontier.push(leaves[n as usize]);
            assert_eq!(frontier.root(), reference(&leaves), "{n}");
        }
        // The leaf hash of the empty string, from the test vectors of certificate transparency.
        assert_eq!(hex(&leaf(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }
}
