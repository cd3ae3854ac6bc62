//! What the disk itself asks for making a small write durable.

use crate::Outcome;
use crate::records::RECORD;
use crate::stats::median;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// Writes start over at its front.
const FILE: usize = 4 << 20;
const TMPFS: i64 = 0x0102_1994;

/// A preallocated file, and how long each write into it took.
pub(crate) struct Disk {
    file: File,
    at: usize,
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

    /// Some more writes of a record's size, each followed by fdatasync. Their median, in microseconds.
    pub(crate) fn measure(&mut self, writes: usize) -> Outcome<f64> {
        let before = self.micros.len();
        for _ in 0..writes {
            let begun = Instant::now();
            self.file.write_all_at(&[b'x'; RECORD], self.at as u64)?;
            self.file.sync_data()?;
            self.micros.push(begun.elapsed().as_secs_f64() * 1e6);
            self.at = (self.at + RECORD) % (FILE - RECORD);
        }
        Ok(median(self.micros[before..].to_vec()))
    }

    /// Waits until the filesystem has written all it was given, removed files included.
    pub(crate) fn settle(&self) -> Outcome<()> {
        Ok(rustix::fs::syncfs(&self.file)?)
    }

    /// Microseconds for each so far, sorted.
    pub(crate) fn micros(&self) -> Vec<f64> {
        let mut micros = self.micros.clone();
        micros.sort_by(f64::total_cmp);
        micros
    }
}
