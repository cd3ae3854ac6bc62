//! The data folder: its version, its lock, and files that are replaced whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The layout this Warden writes.
pub const LAYOUT: u32 = 1;

/// A data folder that this process alone writes to.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data folder is not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("no data folder at `{}`: make one with `warden init`", .0.display())]
    Missing(PathBuf),
    /// Another process has it.
    #[error("the data folder `{}` is in use by another Warden: stop that one, or give this one a folder of its own with --data-dir", .0.display())]
    Locked(PathBuf),
    /// Made by a newer Warden.
    #[error("the data folder `{}` has layout {found}, and this Warden reads {LAYOUT}: use a newer Warden", path.display())]
    Layout {
        /// The folder.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// The file system refused.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

impl DataDir {
    /// Makes the folder unless it is there, and opens it.
    pub fn create(path: &Path) -> Result<Self, Error> {
        create_private_dir(path).map_err(|e| io_error("create", path, e))?;
        let version = path.join("VERSION");
        if !version.exists() {
            write_private(&version, format!("{LAYOUT}\n").as_bytes()).map_err(|e| io_error("write", &version, e))?;
        }
        Self::open(path)
    }

    /// Locks the folder for as long as the value lives.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let version = path.join("VERSION");
        let found = match std::fs::read_to_string(&version) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(path.to_owned())),
            other => other.map_err(|e| io_error("read", &version, e))?,
        };
        if found.trim().parse::<u32>().ok().is_none_or(|found| found != LAYOUT) {
            return Err(Error::Layout { path: path.to_owned(), found: found.trim().chars().take(20).collect() });
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|e| io_error("open", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(path.to_owned())),
            Err(TryLockError::Error(e)) => Err(io_error("lock", &lock_path, e)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn io_error(what: &'static str, path: &Path, cause: io::Error) -> Error {
    Error::Io { what, path: path.to_owned(), cause }
}

/// A folder that only its owner reads, with the folders above it as usual.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        }
        other => other,
    }
}

/// Replaces a file of an operator's whole, with the rights it has: a crash or a full disk leaves the old one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let rights = std::fs::metadata(path).map(|metadata| metadata.permissions());
    let mut making = path.as_os_str().to_owned();
    making.push(".tmp");
    let making = PathBuf::from(making);
    let written = (|| {
        let mut file = File::create(&making)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if let Ok(rights) = rights {
            std::fs::set_permissions(&making, rights)?;
        }
        std::fs::rename(&making, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&making);
    }
    written
}

/// Replaces a file whole, readable by its owner only, and durably: a crash leaves the old or the new one.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut making = path.as_os_str().to_owned();
    making.push(".tmp");
    let making = PathBuf::from(making);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&making)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&making, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    crate::sync_dir(parent)
}
