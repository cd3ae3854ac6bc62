//! The journal on files: what holds under load, on a full disk, and after damage; and the view of it.

use crate::support::{number, plain_decision, scanner};
use std::sync::Arc;
use tempfile::TempDir;
use warden_adapters::journal::{Health, Journal, OpenError, Options, Reader, verify};
use warden_adapters::view::{self, Query, View};
use warden_adapters::world::now;
use warden_core::journal::record::{Body, OperatorAct, Record};
use warden_core::journal::tree::{Frontier, leaf};
use warden_core::port::{JournalError, Room};
use warden_core::verdict::Verdict;

fn record(text: &str) -> Record {
    Record::new(now(), Body::Operator(OperatorAct { operator: "o".into(), act: "test".into(), object: text.into() }))
}

fn small() -> Options {
    Options { segment_bytes: 64 << 10, reserved_bytes: 16 << 10, queue_max: 4096, ..Options::default() }
}

fn open(dir: &TempDir) -> Journal {
    Journal::open(dir.path(), scanner(), small(), &[]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn w08_what_is_acknowledged_is_there_in_order_and_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir);
    let records = number("WARDEN_RECORDS", 10_000);
    let (tasks, each) = (50, records / 50);
    let receipts = futures::future::join_all((0..tasks).map(|task| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut receipts = Vec::new();
            for n in 0..each {
                let text = format!("{task}/{n}");
                receipts.push((journal.append(record(&text), Room::Ordinary).await.unwrap().seq, text));
            }
            receipts
        })
    }))
    .await;
    let (root, next) = (journal.head().tree.root(), journal.next_seq());
    journal.close();
    assert_eq!(journal.append(record("late"), Room::Ordinary).await, Err(JournalError::Failed));
    drop(journal);
    let mut reader = Reader::new(&dir.path().join("journal"));
    for (seq, text) in receipts.into_iter().flat_map(Result::unwrap) {
        assert!(
            matches!(reader.record(seq).unwrap().unwrap().body, Body::Operator(act) if act.object == text),
            "{seq}"
        );
    }
    let mut tree = Frontier::default();
    (0..next).for_each(|seq| tree.push(leaf(&reader.bytes(seq).unwrap().unwrap())));
    assert_eq!(tree.root(), root);
    let verified = verify(dir.path(), &[], |_, _| {}).unwrap();
    assert_eq!((verified.records, verified.torn_at), (next, None));
    assert!(verified.segments > 5, "segments were rolled");
    let again = open(&dir);
    assert_eq!(
        (again.next_seq(), again.head().tree.root()),
        (next, root),
        "a snapshot and the rest add up to the same"
    );
}

#[tokio::test]
async fn a_cut_off_last_write_is_cleared_and_an_earlier_change_refuses_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir);
    for n in 0..5 {
        journal.append(record(&n.to_string()), Room::Ordinary).await.unwrap();
    }
    journal.close();
    let segment = dir.path().join("journal/00000000000000000000.seg");
    let whole = std::fs::read(&segment).unwrap();
    let last = whole.iter().rposition(|b| *b != 0).unwrap();
    let mut torn = whole.clone();
    torn[last - 10] ^= 1;
    std::fs::write(&segment, &torn).unwrap();
    assert!(verify(dir.path(), &[], |_, _| {}).unwrap().torn_at.is_some());
    let journal = open(&dir);
    assert_eq!(journal.next_seq(), 4);
    assert_eq!(journal.append(record("after"), Room::Ordinary).await.unwrap().seq, 4);
    journal.close();
    assert_eq!(verify(dir.path(), &[], |_, _| {}).unwrap().torn_at, None);
    let mut damaged = whole;
    damaged[100] ^= 1;
    std::fs::write(&segment, &damaged).unwrap();
    let Err(OpenError::Damaged { path, what }) = Journal::open(dir.path(), scanner(), small(), &[]) else {
        panic!("opened")
    };
    assert!(path.ends_with("00000000000000000000.seg") && what.contains("byte 64"), "{what}");
}

#[tokio::test]
async fn a_missing_or_swapped_segment_and_a_forged_snapshot_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir);
    for n in 0..2000 {
        journal.append(record(&n.to_string()), Room::Ordinary).await.unwrap();
    }
    let root = journal.head().tree.root();
    journal.close();
    drop(journal);
    let mut states: Vec<_> = std::fs::read_dir(dir.path().join("state")).unwrap().map(|e| e.unwrap().path()).collect();
    states.sort();
    let newest = states.last().unwrap();
    let text = std::fs::read_to_string(newest).unwrap();
    std::fs::write(newest, text.replace("\"parked\":{}", "\"parked\": {}")).unwrap();
    assert_eq!(open(&dir).head().tree.root(), root, "a snapshot that does not match its hash is not used");
    let mut segments: Vec<_> = std::fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    let taken = std::fs::read(&segments[1]).unwrap();
    std::fs::remove_file(&segments[1]).unwrap();
    let Err(OpenError::Damaged { what, .. }) = verify(dir.path(), &[], |_, _| {}) else { panic!("verified") };
    assert!(what.contains("comes next"), "{what}");
    std::fs::write(&segments[1], &taken).unwrap();
    verify(dir.path(), &[], |_, _| {}).unwrap();
}

#[tokio::test]
async fn w03_a_full_disk_takes_denials_only_and_recovers() {
    let Some(mount) = Tmpfs::mount(600 << 10) else { return };
    let journal = Journal::open(mount.dir.path(), scanner(), small(), &[]).unwrap();
    let filler = mount.dir.path().join("filler");
    let mut written = 0;
    let full = loop {
        match journal.append(record("ordinary"), Room::Ordinary).await {
            Ok(_) => written += 1,
            Err(e) => break e,
        }
        assert!(written < 100_000);
    };
    assert_eq!(full, JournalError::Full);
    assert_eq!(journal.health(), Health::Full);
    let denial = journal.append(record("denial"), Room::Reserved).await.expect("the reserved segment has room");
    assert_eq!(denial.seq, journal.next_seq() - 1);
    let _ = std::fs::remove_file(&filler);
    let mut oldest: Vec<_> =
        std::fs::read_dir(mount.dir.path().join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    oldest.sort();
    mount.grow(4 << 20);
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let _ = journal.append(record("looks for room"), Room::Ordinary).await;
    journal.append(record("there is room again"), Room::Ordinary).await.unwrap();
    assert_eq!(journal.health(), Health::Good);
    journal.close();
    verify(mount.dir.path(), &[], |_, _| {}).unwrap();
}

/// A file system of a size, where this is root; else the test says so and ends.
pub struct Tmpfs {
    pub dir: TempDir,
}

impl Tmpfs {
    pub fn mount(bytes: usize) -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            println!("skipped: mounting a small file system needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .status();
        if !done.is_ok_and(|status| status.success()) {
            println!("skipped: no file system can be mounted here");
            return None;
        }
        Some(Self { dir })
    }

    fn grow(&self, bytes: usize) {
        let done = std::process::Command::new("mount")
            .args(["-o", &format!("remount,size={bytes}")])
            .arg(self.dir.path())
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

#[tokio::test]
async fn w08_a_rebuilt_view_equals_the_one_it_replaces_and_finds_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir);
    let made = View::open(&dir.path().join("view"), 0, 0).unwrap();
    let mut all = Vec::new();
    for n in 0..1500 {
        let verdict = [Verdict::Allow, Verdict::Deny, Verdict::Escalate][n % 3];
        let mut decision = plain_decision(verdict, &format!("w{}", n % 7));
        decision.server = format!("s{}", n % 2);
        let record = Record::new(now(), Body::Decision(decision.into()));
        let seq = journal.append(record.clone(), Room::Ordinary).await.unwrap().seq;
        all.push((seq, record));
    }
    // What the journal itself added counts as well.
    made.catch_up(&mut journal.reader(), journal.next_seq(), |_, _| {}).unwrap();
    let rebuilt = View::open(&dir.path().join("view2"), 0, 0).unwrap();
    rebuilt.catch_up(&mut journal.reader(), journal.next_seq(), |_, _| {}).unwrap();
    assert_eq!(view::contents(&made).unwrap(), view::contents(&rebuilt).unwrap());
    let mut reader = journal.reader();
    for (worker, verdict, limit) in
        [(Some("w3"), None, 50), (Some("w3"), Some("deny"), 10), (None, Some("escalate"), 1000), (Some("w9"), None, 5)]
    {
        let query = Query {
            worker: worker.map(str::to_owned),
            verdict: verdict.map(str::to_owned),
            limit: Some(limit),
            ..Query::default()
        };
        let found: Vec<u64> = view::run(&made, &mut reader, &query).unwrap().into_iter().map(|(seq, _)| seq).collect();
        let expected: Vec<u64> = all
            .iter()
            .rev()
            .filter(|(_, record)| match &record.body {
                Body::Decision(d) => {
                    worker.is_none_or(|w| d.worker == w) && verdict.is_none_or(|v| d.verdict.name() == v)
                }
                _ => false,
            })
            .map(|(seq, _)| *seq)
            .take(limit)
            .collect();
        assert_eq!(found, expected, "{worker:?} {verdict:?}");
    }
    let middle = all[700].1.ts;
    let query = Query { since: Some(middle), kind: Some("decision".into()), limit: Some(10_000), ..Query::default() };
    let since = view::run(&made, &mut reader, &query).unwrap();
    assert_eq!(since.len(), all.iter().filter(|(_, record)| record.ts >= middle).count());
    let shared = Arc::new(made);
    shared.close().unwrap();
    drop(shared);
    let again = View::open(&dir.path().join("view"), 0, journal.next_seq()).unwrap();
    assert_eq!(again.next(), journal.next_seq());
    drop(again);
    let behind = View::open(&dir.path().join("view"), 0, 3).unwrap();
    assert_eq!(behind.next(), 0, "a view ahead of its journal is thrown away");
}

#[tokio::test]
async fn a_view_that_was_just_closed_opens_again_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("view");
    let record = Record::new(now(), Body::Decision(plain_decision(Verdict::Allow, "w").into()));
    for round in 0..100 {
        let view = View::open(&at, 0, round * 600).unwrap();
        assert_eq!(view.next(), round * 600, "round {round}");
        for seq in round * 600..(round + 1) * 600 {
            view.add(seq, &record).unwrap();
        }
        view.close().unwrap();
    }
}
