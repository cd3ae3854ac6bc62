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

fn node(left: &Hash, right: &Hash) -> Hash {
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
        let mut hash = leaf;
        // Each trailing one of the size is a subtree as tall as the one just made.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
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
