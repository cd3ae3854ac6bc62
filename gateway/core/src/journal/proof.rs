//! Proofs over the tree: that a record is in it, that a later tree continues an earlier one, and that a run of records
//! is part of it. [RFC 9162 §2.1.3 and §2.1.4](https://www.rfc-editor.org/rfc/rfc9162#section-2.1.3); trees and hashes are
//! those of RFC 6962.

use super::tree::{Frontier, Hash, node};
use serde::{Deserialize, Serialize};

/// Where the hashes of a tree are kept.
pub trait Hashes {
    /// Why a hash cannot be had.
    type Error;

    /// The root of the perfect subtree over the leaves `index << level` to `(index + 1) << level`.
    fn subtree(&mut self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// Leaves in memory.
pub struct Leaves<'l>(pub &'l [Hash]);

/// A subtree reaches beyond the leaves that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are not so many leaves")]
pub struct Beyond;

impl Hashes for Leaves<'_> {
    type Error = Beyond;

    fn subtree(&mut self, level: u32, index: u64) -> Result<Hash, Beyond> {
        let place = |n: u64| n.checked_shl(level).and_then(|n| usize::try_from(n).ok()).ok_or(Beyond);
        let own = self.0.get(place(index)?..place(index + 1)?).ok_or(Beyond)?;
        let mut tree = Frontier::default();
        own.iter().for_each(|leaf| tree.push(*leaf));
        Ok(tree.root())
    }
}

/// The root over the first `size` leaves.
pub fn root<H: Hashes>(hashes: &mut H, size: u64) -> Result<Hash, H::Error> {
    if size == 0 { Ok(Frontier::default().root()) } else { over(hashes, 0, size) }
}

/// The root over the leaves `from` to `to`; `from` is where a subtree of that size may start.
fn over<H: Hashes>(hashes: &mut H, from: u64, to: u64) -> Result<Hash, H::Error> {
    let size = to - from;
    if size.is_power_of_two() {
        return hashes.subtree(size.trailing_zeros(), from / size);
    }
    let half = from + left_of(size);
    Ok(node(&over(hashes, from, half)?, &over(hashes, half, to)?))
}

/// The largest power of two below `size`.
fn left_of(size: u64) -> u64 {
    size.next_power_of_two() / 2
}

/// That leaf `index` is in the tree of `size` leaves: its neighbours, from the leaf up. Nothing for an index beyond it.
pub fn inclusion<H: Hashes>(hashes: &mut H, index: u64, size: u64) -> Result<Vec<Hash>, H::Error> {
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    if index >= size {
        return Ok(path);
    }
    while to - from > 1 {
        let half = from + left_of(to - from);
        if index < half {
            path.push(over(hashes, half, to)?);
            to = half;
        } else {
            path.push(over(hashes, from, half)?);
            from = half;
        }
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` shows that `leaf` is number `index` of the tree with that root.
pub fn is_included(leaf: Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for neighbour in path {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            hash = node(neighbour, &hash);
            while at.is_multiple_of(2) && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node(&hash, neighbour);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// That the tree of `new` leaves continues the tree of `old` leaves. Empty for equal sizes and for an empty old tree.
pub fn consistency<H: Hashes>(hashes: &mut H, old: u64, new: u64) -> Result<Vec<Hash>, H::Error> {
    let mut path = Vec::new();
    if old == 0 || old >= new {
        return Ok(path);
    }
    // The subproof of RFC 6962 §2.1.2, from the top down.
    let (mut from, mut to, mut whole) = (0, new, true);
    loop {
        if to == old {
            if !whole {
                path.push(over(hashes, from, to)?);
            }
            path.reverse();
            return Ok(path);
        }
        let half = from + left_of(to - from);
        if old <= half {
            path.push(over(hashes, half, to)?);
            to = half;
        } else {
            path.push(over(hashes, from, half)?);
            (from, whole) = (half, false);
        }
    }
}

/// Whether `path` shows that the tree `new` continues the tree `old`; each is its size and root.
pub fn is_consistent(old: (u64, &Hash), new: (u64, &Hash), path: &[Hash]) -> bool {
    if old.0 == new.0 {
        return path.is_empty() && old.1 == new.1;
    }
    if old.0 == 0 {
        return path.is_empty() && *old.1 == Frontier::default().root();
    }
    if old.0 > new.0 {
        return false;
    }
    let (mut at, mut last) = (old.0 - 1, new.0 - 1);
    while at % 2 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let mut path = path.iter();
    // An old tree that is perfect is its own first hash.
    let first = if old.0.is_power_of_two() { Some(old.1) } else { path.next() };
    let Some(first) = first else { return false };
    let (mut of_old, mut of_new) = (*first, *first);
    for hash in path {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            of_old = node(hash, &of_old);
            of_new = node(hash, &of_new);
            while at.is_multiple_of(2) && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            of_new = node(&of_new, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && of_old == *old.1 && of_new == *new.1
}

/// That a run of records is part of a tree: the subtrees before it and after it. Its own leaves fill the middle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeProof {
    /// Subtrees over everything before the run, from the left.
    #[serde(with = "super::tree::hex_list")]
    pub before: Vec<Hash>,
    /// Subtrees over everything after it, from the left.
    #[serde(with = "super::tree::hex_list")]
    pub after: Vec<Hash>,
}

/// Levels of the perfect subtrees over the leaves `from` to `to`, from the left.
fn cover(mut from: u64, to: u64) -> impl Iterator<Item = (u32, u64)> {
    std::iter::from_fn(move || {
        (from < to).then(|| {
            let fits = (to - from).ilog2();
            let level = if from == 0 { fits } else { from.trailing_zeros().min(fits) };
            let index = from >> level;
            from += 1 << level;
            (level, index)
        })
    })
}

/// The proof for the leaves `from` to `to` of the tree of `size` leaves.
pub fn range<H: Hashes>(hashes: &mut H, from: u64, to: u64, size: u64) -> Result<RangeProof, H::Error> {
    let mut all = |from, to| -> Result<Vec<Hash>, H::Error> {
        cover(from, to).map(|(level, index)| hashes.subtree(level, index)).collect()
    };
    Ok(RangeProof { before: all(0, from)?, after: all(to, size)? })
}

/// Checks a run of records against a root while its leaves go by.
pub struct RangeCheck {
    tree: Frontier,
    size: u64,
    after: Vec<Hash>,
}

impl RangeCheck {
    /// For a run that starts at `from`, in a tree of `size` leaves. Nothing when the proof cannot be one of that place.
    pub fn new(from: u64, size: u64, proof: RangeProof) -> Option<Self> {
        Some(Self { tree: Frontier::of_peaks(from, proof.before)?, size, after: proof.after })
    }

    /// Takes the next leaf of the run.
    pub fn push(&mut self, leaf: Hash) {
        self.tree.push(leaf);
    }

    /// The sequence number that comes next.
    pub fn next(&self) -> u64 {
        self.tree.size()
    }

    /// The root that the run and its proof add up to; nothing when they do not fit together.
    pub fn root(mut self) -> Option<Hash> {
        let mut after = self.after.into_iter();
        for (level, _) in cover(self.tree.size(), self.size) {
            self.tree.push_subtree(level, after.next()?);
        }
        (after.next().is_none() && self.tree.size() == self.size).then(|| self.tree.root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tree::leaf;
    use proptest::prelude::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf(&n.to_be_bytes())).collect()
    }

    fn frontier(leaves: &Leaves<'_>, size: u64) -> Frontier {
        let mut tree = Frontier::default();
        leaves.0.iter().take(usize::try_from(size).unwrap()).for_each(|leaf| tree.push(*leaf));
        tree
    }

    #[test]
    fn x07_every_proof_of_small_trees_holds_and_none_holds_for_another() {
        let all = leaves(40);
        let mut all = Leaves(&all);
        for size in 0..40 {
            let root_now = root(&mut all, size).unwrap();
            assert_eq!(root_now, frontier(&all, size).root(), "{size}");
            for index in 0..size {
                let path = inclusion(&mut all, index, size).unwrap();
                let own = all.0[usize::try_from(index).unwrap()];
                assert!(is_included(own, index, size, &path, &root_now), "{index} of {size}");
                assert!(!is_included(leaf(b"other"), index, size, &path, &root_now));
                assert!(!is_included(own, index + 1, size, &path, &root_now), "{index} of {size}, another place");
            }
            for old in 0..=size {
                let old_root = root(&mut all, old).unwrap();
                let path = consistency(&mut all, old, size).unwrap();
                assert!(is_consistent((old, &old_root), (size, &root_now), &path), "{old} to {size}");
                assert!(!is_consistent((old, &leaf(b"x")), (size, &root_now), &path), "{old} to {size}, another root");
                if old < size && old > 0 {
                    assert!(!is_consistent((old, &old_root), (size, &leaf(b"x")), &path));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn x07_a_run_of_records_shows_in_its_tree_and_a_changed_one_does_not(
            size in 1u64..300, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
            changed in any::<prop::sample::Index>(),
        ) {
            let all = leaves(size);
            let mut all = Leaves(&all);
            let (a, b) = (a.index(usize::try_from(size).unwrap() + 1) as u64, b.index(usize::try_from(size).unwrap() + 1) as u64);
            let (from, to) = (a.min(b), a.max(b));
            let proof = range(&mut all, from, to, size).unwrap();
            let whole = frontier(&all, size).root();
            let run = all.0[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].to_vec();
            let check = |run: &[Hash]| {
                let mut check = RangeCheck::new(from, size, proof.clone()).unwrap();
                run.iter().for_each(|leaf| check.push(*leaf));
                check.root()
            };
            prop_assert_eq!(check(&run), Some(whole));
            if !run.is_empty() {
                let mut other = run.clone();
                other[changed.index(run.len())] = leaf(b"changed");
                prop_assert_ne!(check(&other), Some(whole));
                prop_assert_ne!(check(&run[1..]), Some(whole));
            }
        }
    }
}
