//! The floor: a file that was filled with zeros before, one write and one fdatasync a batch.

use super::Engine;
use crate::Outcome;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A segment of the gateway's journal has as many.
const FILE: usize = 64 << 20;
const CHUNK: usize = 1 << 20;

/// See the module.
pub(super) struct Bare {
    file: File,
    at: usize,
    buffer: Vec<u8>,
}

impl Bare {
    pub(super) fn open(dir: &Path) -> Outcome<Self> {
        let file = File::create(dir.join("bare"))?;
        let zeros = vec![0; CHUNK];
        for at in (0..FILE).step_by(CHUNK) {
            file.write_all_at(&zeros, at as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0, buffer: Vec::new() })
    }
}

impl Engine for Bare {
    fn commit(&mut self, batch: &[Vec<u8>]) -> Outcome<()> {
        self.buffer.clear();
        for record in batch {
            self.buffer.extend_from_slice(record);
        }
        if self.at + self.buffer.len() > FILE {
            // A floor does not pay for new files.
            self.at = 0;
        }
        self.file.write_all_at(&self.buffer, self.at as u64)?;
        self.file.sync_data()?;
        self.at += self.buffer.len();
        Ok(())
    }
}
