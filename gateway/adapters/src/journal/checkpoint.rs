//! Checkpoints: what the log is, signed every second while there is something new.
//!
//! The newest one stands in `checkpoint` of the data folder, replaced whole. A start holds the journal against it.

use super::disk;
use super::recover::Anchor;
use super::{Journal, lock};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use warden_core::journal::note::{Checkpoint, Note, SignerKey, VerifierKey};

/// A checkpoint with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// The note.
    pub note: Note,
}

/// Signs. Cheap to clone.
#[derive(Clone)]
pub struct Notary {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Journal,
    path: PathBuf,
    /// The key of now; behind it one that it replaces, until both have signed.
    signers: Mutex<Vec<SignerKey>>,
    /// The newest one; signing holds the place of one another.
    latest: watch::Sender<Option<Signed>>,
    signing: Mutex<()>,
    end: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Notary {
    /// Signs what `journal` is now, and then every so often.
    pub fn start(journal: Journal, signer: SignerKey, every: Duration) -> io::Result<Self> {
        let path = file(&journal.shared.dir);
        let (latest, _) = watch::channel(None);
        let inner = Inner {
            journal,
            path,
            signers: Mutex::new(vec![signer]),
            latest,
            signing: Mutex::default(),
            end: Mutex::default(),
        };
        let notary = Self { inner: Arc::new(inner) };
        if let Err(e) = notary.sign() {
            tracing::error!(error = %e, "no checkpoint could be signed");
        }
        let (end, ended) = channel();
        let inner = notary.clone();
        let mut told = false;
        let thread = std::thread::Builder::new().name("notary".into()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
                match inner.sign() {
                    Ok(()) => told = false,
                    // On a full disk this goes on for a while; the last checkpoint still stands.
                    Err(e) if !told => {
                        told = true;
                        tracing::error!(error = %e, "no checkpoint could be signed");
                    }
                    Err(_) => {}
                }
            }
        })?;
        *lock(&notary.inner.end) = Some((end, thread));
        Ok(notary)
    }

    /// Signs what the journal is now, unless that is signed already.
    pub fn sign(&self) -> io::Result<()> {
        let inner = &*self.inner;
        let _one_at_a_time = lock(&inner.signing);
        let signers = lock(&inner.signers).clone();
        let (size, root) = inner.journal.tip();
        let is_new = inner.latest.borrow().as_ref().is_none_or(|last| last.checkpoint.size < size);
        let Some(signer) = signers.first().filter(|_| is_new || signers.len() > 1) else { return Ok(()) };
        // So that a later look can say which record differs from what was signed.
        if let Err(e) = inner.journal.shared.flush_tree(false) {
            tracing::debug!(error = %e, "the tree's files are behind");
        }
        let checkpoint = Checkpoint { origin: signer.verifier().name().to_owned(), size, root };
        let text = checkpoint.text();
        let note = Note { signatures: signers.iter().map(|signer| signer.sign(&text)).collect(), text };
        disk::replace(&*inner.journal.shared.disk, &inner.path, note.to_string().as_bytes())?;
        lock(&inner.signers).truncate(1);
        inner.latest.send_replace(Some(Signed { checkpoint, note }));
        Ok(())
    }

    /// Signs with another key from here on. The first checkpoint has both signatures, so whoever trusts the old one finds the
    /// new one.
    pub fn rotate(&self, signer: SignerKey) -> io::Result<()> {
        {
            let _one_at_a_time = lock(&self.inner.signing);
            lock(&self.inner.signers).insert(0, signer);
        }
        self.sign()
    }

    /// What signatures of now are checked with.
    pub fn verifier(&self) -> VerifierKey {
        // There is always one.
        lock(&self.inner.signers)[0].verifier().clone()
    }

    /// The newest checkpoint, and those that follow.
    pub fn latest(&self) -> watch::Receiver<Option<Signed>> {
        self.inner.latest.subscribe()
    }

    /// Signs a last time and stops. The journal is closed before.
    pub fn close(&self) -> io::Result<()> {
        if let Some((end, thread)) = lock(&self.inner.end).take() {
            drop(end);
            let _ = thread.join();
        }
        self.sign()
    }
}

/// Where the newest checkpoint of a data folder stands.
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("checkpoint")
}

/// What a file of a signed note holds a journal to. Nothing when there is no such file.
pub fn anchor(path: &Path, keys: &[VerifierKey]) -> io::Result<Option<Anchor>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| at(path, e))?,
    };
    let trusted = Note::parse(&text).map_err(Into::into).and_then(|note| note.checkpoint(keys));
    let Checkpoint { size, root, .. } = trusted.map_err(|e| at(path, e))?;
    Ok(Some(Anchor { size, root, from: format!("`{}`", path.display()) }))
}

pub(super) fn at(path: &Path, e: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("`{}`: {e}", path.display()))
}
