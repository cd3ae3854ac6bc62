//! What the disk itself asks for making a small write durable: the floor under every journal.

use crate::Outcome;
use crate::stats::median;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// About a record of the journal.
const WRITE: usize = 600;
/// More than one run writes.
const FILE: usize = 4 << 20;
const TMPFS: i64 = 0x0102_1994;

/// A preallocated file, and how long each write into it took.
pub(crate) struct Disk {
    file: File,
    at: u64,
    micros: Vec<f64>,
}

impl Disk {
    /// In a folder of the filesystem in question, which has to be one on a disk.
    pub(crate) fn open(dir: &Path) -> Outcome<Self> {
        if rustix::fs::statfs(dir)?.f_type == TMPFS {
            return Err(format!("`{}` is in memory: name a folder on a disk with --dir", dir.display()).into());
        }
        let file = File::create(dir.join("disk"))?;
        file.write_all_at(&vec![0; FILE], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0, micros: Vec::new() })
    }

    /// Some more writes, each followed by fdatasync.
    pub(crate) fn measure(&mut self, writes: usize) -> Outcome<()> {
        for _ in 0..writes {
            let begun = Instant::now();
            self.file.write_all_at(&[b'x'; WRITE], self.at)?;
            self.file.sync_data()?;
            self.micros.push(begun.elapsed().as_secs_f64() * 1e6);
            self.at = (self.at + WRITE as u64) % (FILE - WRITE) as u64;
        }
        Ok(())
    }

    /// Microseconds for one.
    pub(crate) fn median(&self) -> f64 {
        median(self.micros.clone())
    }
}
