//! Segment files: zero-filled before they are used, so that an append changes data and no metadata.

use super::disk::Disk;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use warden_core::journal::frame::{self, SEGMENT_HEADER, SegmentHeader};

const SPARE: &str = "spare.tmp";
const RESERVED: &str = "reserved.tmp";
/// Kept until room was found again, so that no crash leaves the journal without a reserve by accident.
const RESERVED_MAKING: &str = "reserved.making.tmp";

/// The segment that is written to.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    disk: Arc<dyn Disk>,
    file: File,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Bytes of the file.
    pub(super) size: u64,
    pub(super) next_seq: u64,
}

impl Segment {
    /// Gives a zero-filled file its header and its name.
    pub(super) fn begin(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        spare: ZeroFilled,
        header: &SegmentHeader,
    ) -> io::Result<Self> {
        let ZeroFilled { path: from, file, size } = spare;
        disk.write(&file, &frame::header(header), 0)?;
        disk.sync(&file)?;
        let path = dir.join(name(header.first_seq));
        disk.rename(&from, &path)?;
        disk.sync_dir(dir)?;
        let (disk, end) = (disk.clone(), SEGMENT_HEADER as u64);
        Ok(Self { path, disk, file, end, size, next_seq: header.first_seq })
    }

    /// Goes on in a segment that recovery has read.
    pub(super) fn resume(disk: &Arc<dyn Disk>, path: &Path, end: u64, next_seq: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), disk: disk.clone(), file, end, size, next_seq })
    }

    /// Makes durable what was read. It may stand in the cache alone: after a kill between write and sync, or after a
    /// failed sync, whose pages count as clean and would never be written. So every kept byte is written again.
    pub(super) fn settle(&self, kept: &[u8]) -> io::Result<()> {
        self.disk.write(&self.file, kept, 0)?;
        self.disk.sync(&self.file)
    }

    /// Writes zeros from the end on: what a cut-off write left behind.
    pub(super) fn clear_tail(&self) -> io::Result<()> {
        let mut at = self.end;
        let zeros = vec![0; 1 << 20];
        while at < self.size {
            let length = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(zeros.len());
            self.disk.write(&self.file, &zeros[..length], at)?;
            at += length as u64;
        }
        self.disk.sync(&self.file)
    }

    /// Writes frames and syncs them.
    pub(super) fn append(&mut self, frames: &[u8], count: u64) -> io::Result<()> {
        self.disk.write(&self.file, frames, self.end)?;
        self.disk.sync(&self.file)?;
        self.end += frames.len() as u64;
        self.next_seq += count;
        Ok(())
    }
}

/// A file of zeros, on the disk.
pub(super) struct ZeroFilled {
    path: PathBuf,
    file: File,
    size: u64,
}

/// The next segment, made while this one is written.
pub(super) struct Spare {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    making: Option<JoinHandle<io::Result<ZeroFilled>>>,
}

impl Spare {
    pub(super) fn prepare(disk: &Arc<dyn Disk>, dir: &Path, size: u64) -> Self {
        let (to, of) = (disk.clone(), dir.to_owned());
        let make = move || zero_filled(&*to, &of, SPARE, size);
        let making = std::thread::Builder::new().name("journal-spare".into()).spawn(make);
        Self { disk: disk.clone(), dir: dir.to_owned(), making: making.ok() }
    }

    /// The spare if there is one of that size, else one made now.
    pub(super) fn take(&mut self, size: u64) -> io::Result<ZeroFilled> {
        if let Some(made) = self.making.take().and_then(|making| making.join().ok()) {
            match made {
                Ok(file) if file.size >= size => return Ok(file),
                _ => {}
            }
        }
        zero_filled(&*self.disk, &self.dir, SPARE, size)
    }
}

/// A segment's file name: its first sequence number.
pub(super) fn name(first_seq: u64) -> String {
    format!("{first_seq:020}.seg")
}

/// All segments by first sequence number.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".seg"));
        if let Some(first_seq) = stem.and_then(|stem| stem.parse().ok()) {
            segments.push((first_seq, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Makes the reserved segment unless it is there. Without room there is none, which is logged.
pub(super) fn reserve(disk: &dyn Disk, dir: &Path, size: u64) {
    let reserved = dir.join(RESERVED);
    if std::fs::metadata(&reserved).is_ok_and(|meta| meta.len() >= size) {
        return;
    }
    let made = zero_filled(disk, dir, RESERVED_MAKING, size).and_then(|_| {
        disk.rename(&dir.join(RESERVED_MAKING), &reserved)?;
        disk.sync_dir(dir)
    });
    if let Err(e) = made {
        tracing::warn!(error = %e, file = %reserved.display(), "no reserved segment: a full disk will lose denials");
    }
}

/// The reserved segment, to be used now.
pub(super) fn take_reserve(dir: &Path) -> io::Result<ZeroFilled> {
    let path = dir.join(RESERVED);
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let size = file.metadata()?.len();
    Ok(ZeroFilled { path, file, size })
}

/// Unfinished files of an earlier run.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    for name in [SPARE, RESERVED_MAKING] {
        match std::fs::remove_file(dir.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn zero_filled_spare(disk: &dyn Disk, dir: &Path, size: u64) -> io::Result<ZeroFilled> {
    zero_filled(disk, dir, SPARE, size)
}

fn zero_filled(disk: &dyn Disk, dir: &Path, name: &str, size: u64) -> io::Result<ZeroFilled> {
    let path = dir.join(name);
    let fill = || {
        let file = disk.create(&path)?;
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < size {
            let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(zeros.len());
            disk.write(&file, &zeros[..length], at)?;
            at += length as u64;
        }
        // The length is metadata that reading needs, so this writes it as well.
        disk.sync(&file)?;
        Ok(file)
    };
    match fill() {
        Ok(file) => Ok(ZeroFilled { path, file, size }),
        Err(e) => {
            // Half a spare would keep the very room that is missing.
            let _ = std::fs::remove_file(&path);
            Err(e)
        }
    }
}
