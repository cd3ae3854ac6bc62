//! Every single step on the disk fails once: what was acknowledged is there afterwards, and nothing is acknowledged any more.

use crate::support::{plain_decision, scanner};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use warden_adapters::journal::checkpoint::{self, Notary};
use warden_adapters::journal::{Disk, Health, Journal, Options, Reader, Real, verify};
use warden_adapters::world::now;
use warden_core::journal::note::SignerKey;
use warden_core::journal::record::{Body, Record};
use warden_core::port::{JournalError, Room};
use warden_core::verdict::Verdict;

/// Fails at one step: `write`, `sync`, `rename` or `create`, at the n-th time.
#[derive(Debug)]
struct Faulty {
    step: &'static str,
    left: AtomicUsize,
    error: i32,
}

impl Faulty {
    fn at(&self, step: &str) -> io::Result<()> {
        if step != self.step {
            return Ok(());
        }
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(1) => Err(io::Error::from_raw_os_error(self.error)),
            _ => Ok(()),
        }
    }

    fn happened(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.at("create")?;
        Real.create(path)
    }

    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if let Err(e) = self.at("write") {
            // Half of it arrives.
            Real.write(file, &bytes[..bytes.len() / 2], at)?;
            return Err(e);
        }
        Real.write(file, bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.at("sync")?;
        Real.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.at("rename")?;
        Real.rename(from, to)
    }
}

fn options(disk: Arc<dyn Disk>) -> Options {
    Options { segment_bytes: 32 << 10, reserved_bytes: 16 << 10, queue_max: 64, disk }
}

fn signer() -> SignerKey {
    SignerKey::new("warden.example/log", &[3; 32]).unwrap()
}

#[tokio::test]
async fn w01_w03_no_failed_step_loses_what_was_acknowledged_or_acknowledges_what_is_lost() {
    let mut reached: BTreeMap<&str, usize> = BTreeMap::new();
    for (step, times) in [("sync", 60), ("write", 90), ("rename", 12), ("create", 12)] {
        for n in 1..=times {
            // EIO and, for what makes files longer, ENOSPC.
            for error in if n % 2 == 0 { [5].as_slice() } else { &[28] } {
                if one_fault(step, n, *error).await {
                    *reached.entry(step).or_default() += 1;
                }
            }
        }
    }
    assert!(reached.values().all(|count| *count >= 3) && reached.len() == 4, "faults happened: {reached:?}");
}

/// A workload with one fault in it, and then a start on a good disk. Whether the fault was reached.
async fn one_fault(step: &'static str, n: usize, error: i32) -> bool {
    let at = format!("{step} {n}, error {error}");
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty { step, left: AtomicUsize::new(n), error });
    let mut acknowledged = BTreeMap::new();
    if let Ok(journal) = Journal::open(dir.path(), scanner(), options(disk.clone()), &[]) {
        let notary = Notary::start(journal.clone(), signer(), Duration::from_secs(3600)).ok();
        let mut failed = false;
        for number in 0..150 {
            let decision = plain_decision(Verdict::Allow, &format!("w{number}"));
            match journal.append(Record::new(now(), Body::Decision(decision.into())), Room::Ordinary).await {
                Ok(receipt) => {
                    assert!(!failed || error == 28, "{at}: something was acknowledged after a failure");
                    acknowledged.insert(receipt.seq, format!("w{number}"));
                }
                Err(e) => {
                    failed = true;
                    assert!(matches!(e, JournalError::Failed | JournalError::Full), "{at}: {e}");
                    // The writer answers just before it says how it is.
                    while journal.health() == Health::Good {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            if number % 40 == 0
                && let Some(notary) = &notary
            {
                // A checkpoint that cannot be written is an error, never a wrong checkpoint.
                let _ = notary.sign();
            }
        }
        journal.close();
        if let Some(notary) = &notary {
            let _ = notary.close();
        }
    }
    let anchors: Vec<_> = checkpoint::anchor(&checkpoint::file(dir.path()), &[signer().verifier().clone()])
        .unwrap()
        .into_iter()
        .collect();
    let journal =
        Journal::open(dir.path(), scanner(), options(Arc::new(Real)), &anchors).unwrap_or_else(|e| panic!("{at}: {e}"));
    let mut reader = Reader::new(&dir.path().join("journal"));
    for (seq, worker) in &acknowledged {
        let record = reader.record(*seq).unwrap().unwrap_or_else(|| panic!("{at}: {seq} is lost"));
        assert!(matches!(record.body, Body::Decision(d) if d.worker == *worker), "{at}: {seq} is another one");
    }
    let decision = plain_decision(Verdict::Allow, "after");
    journal.append(Record::new(now(), Body::Decision(decision.into())), Room::Ordinary).await.unwrap();
    journal.close();
    verify(dir.path(), &anchors, |_, _| {}).unwrap_or_else(|e| panic!("{at}: {e}"));
    disk.happened()
}
