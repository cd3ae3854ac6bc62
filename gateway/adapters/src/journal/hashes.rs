//! `tree/`: the hashes of the Merkle tree, so that a proof reads a few of them and no record.
//!
//! `tree/0` holds the leaf hashes in order, 32 bytes each; `tree/8` the roots of perfect subtrees of 256 leaves, `tree/16` of
//! 65,536, and so on. Leaves stay when retention drops their records. Up to the last sealed segment the files are synced; what
//! comes after that is in the journal as well, and is written anew from it at the next start.

use super::disk::Disk;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warden_core::journal::proof::Hashes;
use warden_core::journal::tree::{Frontier, Hash};

const HASH: u64 = 32;
/// Kept free for hashes, so that a full disk can still be made room on: old segments go only after their hashes are safe.
const RESERVED: &str = "reserved.tmp";
const RESERVED_BYTES: usize = 1 << 20;
/// Levels between two files, and the number of hashes that one of the upper file stands for.
const STRIDE: u32 = 8;
const FAN: u64 = 1 << STRIDE;

/// See the module.
#[derive(Debug)]
pub struct TreeFiles {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    levels: Vec<File>,
    size: u64,
}

impl TreeFiles {
    /// Opens the files below a data folder for writing, with at most `size` leaves: what is beyond was not synced.
    pub(super) fn open(dir: &Path, disk: Arc<dyn Disk>, size: u64) -> io::Result<Self> {
        let dir = dir.join("tree");
        std::fs::create_dir_all(&dir)?;
        let leaves = disk.open(&dir.join("0"))?;
        let size = size.min(leaves.metadata()?.len() / HASH);
        let mut files = Self { dir, disk, levels: vec![leaves], size };
        // The upper files follow from the leaves.
        for level in 1.. {
            let due = size >> (STRIDE * level);
            if due == 0 {
                break;
            }
            let file = files.disk.open(&files.path(level))?;
            let have = (file.metadata()?.len() / HASH).min(due);
            files.levels.push(file);
            for index in have..due {
                files.fold(level, index)?;
            }
        }
        Ok(files)
    }

    /// Keeps some room, unless it is kept already or there is none.
    pub(super) fn reserve(&self) {
        let path = self.dir.join(RESERVED);
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= RESERVED_BYTES as u64) {
            return;
        }
        let made = self.disk.create(&path).and_then(|file| self.disk.write(&file, &vec![0; RESERVED_BYTES], 0));
        if let Err(e) = made {
            let _ = self.disk.remove(&path);
            tracing::warn!(error = %e, file = %path.display(), "no room is kept for hashes");
        }
    }

    /// Gives the kept room up; whether there was some.
    pub(super) fn give_room(&self) -> bool {
        self.disk.remove(&self.dir.join(RESERVED)).is_ok()
    }

    /// Opens the files for reading alone.
    pub fn read_only(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("tree");
        let mut levels = Vec::new();
        for level in 0.. {
            match File::open(dir.join((level * STRIDE).to_string())) {
                Ok(file) => levels.push(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            }
        }
        let size = levels.first().map_or(Ok(0), |file| file.metadata().map(|meta| meta.len() / HASH))?;
        Ok(Self { dir, disk: Arc::new(super::disk::Real), levels, size })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn path(&self, level: u32) -> PathBuf {
        self.dir.join((level * STRIDE).to_string())
    }

    /// Appends leaves. They are not synced yet.
    pub(super) fn append(&mut self, leaves: &[Hash]) -> io::Result<()> {
        self.disk.write(&self.levels[0], leaves.as_flattened(), self.size * HASH)?;
        let (before, after) = (self.size, self.size + leaves.len() as u64);
        for level in 1.. {
            let (have, due) = (before >> (STRIDE * level), after >> (STRIDE * level));
            if due == 0 {
                break;
            }
            if self.levels.len() <= level as usize {
                let file = self.disk.open(&self.path(level))?;
                self.levels.push(file);
            }
            for index in have..due {
                self.fold(level, index)?;
            }
        }
        // Only now: what failed half way is written to the same places the next time.
        self.size = after;
        Ok(())
    }

    /// Makes the upper files anew from the leaves.
    pub(super) fn refold(&mut self) -> io::Result<()> {
        for level in 1..self.levels.len() {
            let level = u32::try_from(level).map_err(io::Error::other)?;
            (0..self.size >> (STRIDE * level)).try_for_each(|index| self.fold(level, index))?;
        }
        Ok(())
    }

    /// Makes everything durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.levels.iter().try_for_each(|file| self.disk.sync(file))?;
        self.disk.sync_dir(&self.dir)
    }

    /// Writes number `index` of a file from the 256 of the one below.
    fn fold(&self, level: u32, index: u64) -> io::Result<()> {
        let root = self.fold_of(level as usize - 1, index * FAN, FAN)?;
        self.disk.write(&self.levels[level as usize], &root, index * HASH)
    }

    /// The root over `count` hashes of a file.
    fn fold_of(&self, level: usize, from: u64, count: u64) -> io::Result<Hash> {
        let file = self.levels.get(level).ok_or_else(|| missing(from))?;
        let mut tree = Frontier::default();
        for hash in hashes(file, from, count)? {
            tree.push(hash);
        }
        Ok(tree.root())
    }

    /// The leaf hash of a record.
    pub fn leaf(&self, seq: u64) -> io::Result<Hash> {
        self.leaves(seq, 1)?.first().copied().ok_or_else(|| missing(seq))
    }

    /// Leaf hashes in order.
    pub fn leaves(&self, from: u64, count: u64) -> io::Result<Vec<Hash>> {
        let file = self.levels.first().ok_or_else(|| missing(from))?;
        hashes(file, from, count)
    }

    /// The tree over the first `size` leaves.
    pub fn frontier(&self, size: u64) -> io::Result<Frontier> {
        let mut tree = Frontier::default();
        let mut at = 0;
        while at < size {
            let count = (size - at).min(1 << 16);
            self.leaves(at, count)?.into_iter().for_each(|leaf| tree.push(leaf));
            at += count;
        }
        Ok(tree)
    }
}

fn missing(seq: u64) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the tree's files hold no hash for sequence number {seq}"))
}

fn hashes(file: &File, from: u64, count: u64) -> io::Result<Vec<Hash>> {
    let mut all = vec![[0; 32]; usize::try_from(count).map_err(io::Error::other)?];
    file.read_exact_at(all.as_flattened_mut(), from * HASH).map_err(|_| missing(from))?;
    Ok(all)
}

impl Hashes for TreeFiles {
    type Error = io::Error;

    fn subtree(&mut self, level: u32, index: u64) -> io::Result<Hash> {
        let (file, above) = (level / STRIDE, level % STRIDE);
        self.fold_of(file as usize, index << above, 1 << above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::Real;
    use warden_core::journal::proof;
    use warden_core::journal::tree::leaf;

    #[test]
    fn x07_roots_from_files_are_the_trees_own_also_after_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let leaves: Vec<Hash> = (0..70_000u32).map(|n| leaf(&n.to_be_bytes())).collect();
        let root = |size: usize| {
            let mut tree = Frontier::default();
            leaves[..size].iter().for_each(|leaf| tree.push(*leaf));
            tree.root()
        };
        let mut files = TreeFiles::open(dir.path(), Arc::new(Real), u64::MAX).unwrap();
        for part in leaves.chunks(7_777) {
            files.append(part).unwrap();
        }
        for size in [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, 70_000] {
            assert_eq!(proof::root(&mut files, size as u64).unwrap(), root(size), "{size}");
            assert_eq!(files.frontier(size as u64).unwrap().root(), root(size), "{size}");
        }
        drop(files);
        // What was written behind the cut counts for nothing, in the upper files as well.
        let mut files = TreeFiles::open(dir.path(), Arc::new(Real), 300).unwrap();
        files.append(&leaves[600..1_000]).unwrap();
        let mut tree = Frontier::default();
        leaves[..300].iter().chain(&leaves[600..1_000]).for_each(|leaf| tree.push(*leaf));
        assert_eq!(proof::root(&mut files, 700).unwrap(), tree.root());
        assert!(files.leaf(70_000).is_err());
    }
}
