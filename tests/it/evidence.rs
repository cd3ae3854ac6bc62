//! What the log proves: checkpoints, proofs, witnesses, and what is noticed when somebody changes it.

use crate::support::{Site, number, plain_decision, records, scanner, verified};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use warden_adapters::journal::checkpoint::{self, Notary};
use warden_adapters::journal::{Anchor, Journal, OpenError, Options, verify, witness};
use warden_adapters::keys::Keys;
use warden_adapters::world::now;
use warden_core::journal::frame;
use warden_core::journal::note::{Checkpoint, Note, SignerKey};
use warden_core::journal::proof;
use warden_core::journal::record::{Body, Record};
use warden_core::journal::tree::{Hash, leaf};
use warden_core::port::Room;
use warden_core::verdict::Verdict;

fn options() -> Options {
    Options { segment_bytes: 64 << 10, reserved_bytes: 16 << 10, ..Options::default() }
}

fn signer() -> SignerKey {
    SignerKey::new("warden.example/log", &[3; 32]).unwrap()
}

/// A journal of so many decisions, closed, with a last checkpoint.
async fn journal_of(dir: &Path, count: usize) {
    let journal = Journal::open(dir, scanner(), options(), &[]).unwrap();
    let notary = Notary::start(journal.clone(), signer(), Duration::from_secs(3600)).unwrap();
    for n in 0..count {
        let decision = plain_decision(Verdict::Allow, &format!("w{}", n % 5));
        journal.append(Record::new(now(), Body::Decision(decision.into())), Room::Ordinary).await.unwrap();
    }
    journal.close();
    notary.close().unwrap();
}

fn anchors(dir: &Path) -> Vec<Anchor> {
    checkpoint::anchor(&checkpoint::file(dir), &[signer().verifier().clone()]).unwrap().into_iter().collect()
}

fn complaint(dir: &Path) -> String {
    match verify(dir, &anchors(dir), |_, _| {}) {
        Err(e @ OpenError::Damaged { .. }) => e.to_string(),
        other => panic!("{other:?}"),
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    all.sort();
    all
}

/// Writes a segment anew from its records, with all sequence numbers and checksums as they should be.
fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<(u64, Vec<u8>)>)) {
    let bytes = std::fs::read(path).unwrap();
    let header = frame::read_header(&bytes).unwrap().unwrap();
    let mut frames = Vec::new();
    frame::walk(&bytes, header.first_seq, |frame| {
        frames.push((frame.batch, frame.payload.to_vec()));
        Ok::<(), frame::Damage>(())
    })
    .unwrap();
    change(&mut frames);
    let mut made = frame::header(&header).to_vec();
    for (seq, (batch, payload)) in (header.first_seq..).zip(&frames) {
        frame::push(&mut made, seq, (*batch).min(seq), payload);
    }
    made.resize(bytes.len(), 0);
    std::fs::write(path, made).unwrap();
}

#[tokio::test]
async fn w08_three_kinds_of_tampering_have_three_exact_complaints() {
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path(), 1000).await;
    let good = verify(dir.path(), &anchors(dir.path()), |_, _| {}).unwrap();
    assert_eq!((good.signed[0].size, good.records), (good.records, good.records));
    let all = segments(dir.path());
    assert!(all.len() > 5);

    // A byte of a record.
    let whole = std::fs::read(&all[2]).unwrap();
    let first: u64 = all[2].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let mut flipped = whole.clone();
    flipped[200] ^= 1;
    std::fs::write(&all[2], &flipped).unwrap();
    let said = complaint(dir.path());
    assert!(
        said.contains(&format!(
            "bytes that were synced have changed at byte 64, where sequence number {first} belongs"
        )),
        "{said}"
    );
    std::fs::write(&all[2], &whole).unwrap();

    // A record left out, everything behind it renumbered with good checksums.
    rewrite(&all[2], |frames| drop(frames.remove(5)));
    let said = complaint(dir.path());
    let named = format!("sequence number {} is the first that was changed, left out or put in", first + 5);
    assert!(said.contains("comes next") && said.contains(&named), "{said}");
    std::fs::write(&all[2], &whole).unwrap();
    let last = segments(dir.path()).pop().unwrap();
    let whole = std::fs::read(&last).unwrap();
    let first: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    rewrite(&last, |frames| drop(frames.remove(5)));
    let said = complaint(dir.path());
    let named = format!("sequence number {} is the first that was changed, left out or put in", first + 5);
    assert!(said.contains(&named) && said.contains("are not those that"), "{said}");
    std::fs::write(&last, &whole).unwrap();
    rewrite(&last, |frames| {
        let (batch, again) = frames[7].clone();
        frames[5] = (batch.min(frames[5].0), again);
    });
    let said = complaint(dir.path());
    assert!(said.contains(&named) && said.contains("are not those that"), "{said}");
    let refused = Journal::open(dir.path(), scanner(), options(), &anchors(dir.path())).err().unwrap().to_string();
    assert!(refused.contains(&named), "a start refuses it as well: {refused}");
    std::fs::write(&last, &whole).unwrap();

    // The end cut off, cleanly.
    rewrite(&last, |frames| frames.truncate(5));
    let said = complaint(dir.path());
    assert!(said.contains(&format!("it ends before sequence number {}", first + 5)), "{said}");
    let refused = Journal::open(dir.path(), scanner(), options(), &anchors(dir.path())).err().unwrap().to_string();
    assert!(refused.contains("what followed was cut off"), "{refused}");
    std::fs::write(&last, &whole).unwrap();

    // Both the journal and its own checkpoint, and a witness still knows.
    let kept = dir.path().join("elsewhere");
    std::fs::write(&kept, std::fs::read(checkpoint::file(dir.path())).unwrap()).unwrap();
    rewrite(&last, |frames| frames.truncate(5));
    std::fs::remove_file(checkpoint::file(dir.path())).unwrap();
    verify(dir.path(), &[], |_, _| {}).expect("alone the journal looks good");
    let seen = witness::anchor(&kept, &[signer().verifier().clone()]).unwrap();
    let said = verify(dir.path(), &[seen], |_, _| {}).err().unwrap().to_string();
    assert!(said.contains("`") && said.contains("elsewhere") && said.contains("was cut off"), "{said}");
}

#[tokio::test]
async fn w08_a_forger_who_writes_everything_anew_is_stopped_by_the_signature() {
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path(), 300).await;
    let first = &segments(dir.path())[0];
    rewrite(first, |frames| frames[3] = (frames[3].0, frames[4].1.clone()));
    // The tree's files as well; headers of later segments are left, and one segment has none behind it.
    let said = complaint(dir.path());
    assert!(said.contains("sequence number 3 is the first that was changed"), "{said}");
    let forged = SignerKey::new("warden.example/log", &[4; 32]).unwrap();
    let note = forged.note(&Checkpoint { origin: "warden.example/log".into(), size: 1, root: [0; 32] });
    std::fs::write(checkpoint::file(dir.path()), note.to_string()).unwrap();
    let refused = checkpoint::anchor(&checkpoint::file(dir.path()), &[signer().verifier().clone()]).unwrap_err();
    assert!(refused.to_string().contains("no signature by a known key holds"), "{refused}");
}

#[tokio::test]
async fn damaged_tree_files_are_named_and_made_anew_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path(), 1000).await;
    let leaves = dir.path().join("tree/0");
    let mut bytes = std::fs::read(&leaves).unwrap();
    bytes[32 * 10] ^= 1;
    std::fs::write(&leaves, &bytes).unwrap();
    let said = complaint(dir.path());
    assert!(said.contains("tree/0") && said.contains("the hash of sequence number 10 "), "{said}");
    std::fs::remove_dir_all(dir.path().join("tree")).unwrap();
    let journal = Journal::open(dir.path(), scanner(), options(), &anchors(dir.path())).unwrap();
    let (size, root) = (journal.next_seq(), journal.head().tree.root());
    assert_eq!(journal.prove(|tree| proof::root(tree, size)).unwrap(), root);
    journal.close();
    verify(dir.path(), &anchors(dir.path()), |_, _| {}).unwrap();
}

#[test]
fn x07_proofs_agree_with_two_other_implementations() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (journal, stored) = runtime.block_on(async {
        let journal = Journal::open(dir.path(), scanner(), options(), &[]).unwrap();
        for n in 0..600 {
            let decision = plain_decision(Verdict::Deny, &format!("w{n}"));
            journal.append(Record::new(now(), Body::Decision(decision.into())), Room::Ordinary).await.unwrap();
        }
        let mut reader = journal.reader();
        let stored: Vec<Vec<u8>> = (0..journal.next_seq()).map(|seq| reader.bytes(seq).unwrap().unwrap()).collect();
        (journal, stored)
    });
    let theirs = |hash: Hash| tlog_tiles::tlog::Hash(hash);
    let tree_of = |size: usize| {
        let mut tree = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
        stored[..size].iter().for_each(|bytes| tree.push(bytes.clone()));
        tree
    };
    let sizes = 1..=stored.len();
    proptest!(ProptestConfig::with_cases(60), |(size in sizes, old in any::<prop::sample::Index>(), at in any::<prop::sample::Index>())| {
        let (old, at) = (old.index(size) as u64 + 1, at.index(size) as u64);
        let all = tree_of(size);
        let size = size as u64;
        let root = journal.prove(|tree| proof::root(tree, size)).unwrap();
        let expected = all.root();
        prop_assert_eq!(expected.as_bytes().as_slice(), root.as_slice());

        let path = journal.prove(|tree| proof::inclusion(tree, at, size)).unwrap();
        let expected = all.prove_inclusion(usize::try_from(at).unwrap());
        prop_assert_eq!(expected.as_bytes(), path.as_flattened());
        let own = leaf(&stored[usize::try_from(at).unwrap()]);
        prop_assert!(proof::is_included(own, at, size, &path, &root));
        let as_theirs = path.iter().map(|hash| theirs(*hash)).collect();
        prop_assert!(tlog_tiles::tlog::check_record(&as_theirs, size, theirs(root), at, theirs(own)).is_ok());

        let old_root = journal.prove(|tree| proof::root(tree, old)).unwrap();
        let path = journal.prove(|tree| proof::consistency(tree, old, size)).unwrap();
        prop_assert!(proof::is_consistent((old, &old_root), (size, &root), &path));
        let as_theirs = path.iter().map(|hash| theirs(*hash)).collect();
        prop_assert!(tlog_tiles::tlog::check_tree(&as_theirs, size, theirs(root), old, theirs(old_root)).is_ok());
        if old < size {
            let expected = all.prove_consistency(usize::try_from(size - old).unwrap());
            prop_assert_eq!(expected.as_bytes(), path.as_flattened());
        }
    });
    journal.close();
}

#[test]
fn x07_checkpoints_are_notes_that_another_implementation_reads_and_trusts() {
    use signed_note::Verifier as _;
    let note = signer().note(&Checkpoint { origin: "warden.example/log".into(), size: 12, root: [9; 32] });
    let theirs = signed_note::Note::from_bytes(note.to_string().as_bytes()).unwrap();
    let verifier = signed_note::StandardVerifier::new(&signer().verifier().to_string()).unwrap();
    assert_eq!(verifier.name(), "warden.example/log");
    let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
    let (good, other) = theirs.verify(&known).unwrap();
    assert_eq!((good.len(), other.len()), (1, 0));
    let checkpoint = tlog_tiles::checkpoint::Checkpoint::from_bytes(theirs.text()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size(), checkpoint.hash().0), ("warden.example/log", 12, [9; 32]));
    signed_note::StandardSigner::new(&signer().to_private()).unwrap();
}

/// What a witness does: takes checkpoints that continue the last one, signs them, and remembers.
struct TlogWitness {
    key: SignerKey,
    log: warden_core::journal::note::VerifierKey,
    seen: Mutex<(u64, Hash)>,
}

impl TlogWitness {
    fn answer(&self, body: &str) -> (u16, String) {
        use base64::Engine;
        let (head, note) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let old: u64 = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let path: Vec<Hash> =
            lines.map(|line| base64::prelude::BASE64_STANDARD.decode(line).unwrap().try_into().unwrap()).collect();
        let note = Note::parse(note).unwrap();
        let new = note.checkpoint(std::slice::from_ref(&self.log)).unwrap();
        let mut seen = self.seen.lock().unwrap();
        if seen.0 != old {
            return (409, format!("{}\n", seen.0));
        }
        if old > 0 && !proof::is_consistent((old, &seen.1), (new.size, &new.root), &path) {
            return (422, "it does not continue the last one".into());
        }
        *seen = (new.size, new.root);
        (200, self.key.cosign(&note.text, 1_700_000_000).to_string())
    }
}

async fn serve_witness(witness: Arc<TlogWitness>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = async move |body: String| {
        let (status, text) = witness.answer(&body);
        (axum::http::StatusCode::from_u16(status).unwrap(), text)
    };
    let router = axum::Router::new().route("/add-checkpoint", axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w08_witnesses_get_each_checkpoint_and_know_when_the_log_was_cut() {
    let site = Site::odd();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("warden.checkpoints");
    let signer = Keys::open(&site.data()).unwrap().signer(None, Some("warden.example/log")).unwrap();
    let tlog = Arc::new(TlogWitness {
        key: SignerKey::witness("witness.example", &[9; 32]).unwrap(),
        log: signer.verifier().clone(),
        seen: Mutex::new((0, [0; 32])),
    });
    let url = serve_witness(tlog.clone()).await;
    let servers = json!({ "odd": crate::support::odd_server(&site.dir.join("effects")) });
    let witness = json!([{ "file": file }, { "tlog": url, "key": tlog.key.verifier().to_string() }]);
    site.configure(&servers, &json!({ "witness": witness }));
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    for n in 0..5 {
        worker.call("mark", json!({ "marker": format!("m{n}") })).await;
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    worker.call("mark", json!({ "marker": "last" })).await;
    let shown: Value = serde_json::from_str(&site.ok(&["--json", "audit", "checkpoint"])).unwrap();
    assert_eq!(shown["verifier"], signer.verifier().to_string());
    assert_eq!(shown["witnesses"].as_array().unwrap().len(), 2);
    running.stop();
    let size = verified(&site.data()).unwrap().records;
    assert_eq!(tlog.seen.lock().unwrap().0, size, "the last checkpoint reached the witness");
    let notes = std::fs::read_to_string(&file).unwrap();
    assert!(notes.matches("warden.example/log\n").count() >= 2, "each checkpoint is appended: {notes}");
    let output = site.ok(&["audit", "verify"]);
    assert!(output.contains("window  0 records are newer"), "{output}");

    // Somebody cuts the log, with its checkpoint; the file elsewhere still says how long it was.
    let last = segments(&site.data()).pop().unwrap();
    rewrite(&last, |frames| frames.truncate(4));
    std::fs::remove_file(checkpoint::file(&site.data())).unwrap();
    let output = site.run(&["audit", "verify"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("it ends before sequence number 4") && said.contains("was cut off"), "{said}");
    let output = site.run(&["serve"]);
    assert_eq!(output.status.code(), Some(2), "a start refuses it: {output:?}");

    // Without that file as well, the tlog-witness remembers, and says so while the gateway runs.
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_dir_all(site.data().join("witnessed")).unwrap();
    std::fs::remove_dir_all(site.data().join("tree")).unwrap();
    let running = site.serve();
    let mut error = String::new();
    for _ in 0..200 {
        let shown: Value = serde_json::from_str(&site.ok(&["--json", "audit", "checkpoint"])).unwrap();
        error = shown["witnesses"][1]["error"].as_str().unwrap_or_default().to_owned();
        if !error.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(error.contains("somebody cut this log"), "{error}");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_signs_on_and_a_swapped_one_refuses_to_start() {
    let site = Site::odd();
    let running = site.serve();
    let before: Value = serde_json::from_str(&site.ok(&["--json", "audit", "checkpoint"])).unwrap();
    let rotated: Value = serde_json::from_str(&site.ok(&["--json", "audit", "rotate-key"])).unwrap();
    assert_eq!(rotated["replaces"], before["verifier"]);
    let after: Value = serde_json::from_str(&site.ok(&["--json", "audit", "checkpoint"])).unwrap();
    assert_eq!(after["verifier"], rotated["verifier"]);
    assert_eq!(after["checkpoint"].as_str().unwrap().matches("— ").count(), 2, "signed with both: {after}");
    running.stop();
    site.serve().stop();
    verified(&site.data()).unwrap();
    let keys: Vec<String> = records(&site.data())
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Key(change) => Some(change.verifier),
            _ => None,
        })
        .collect();
    assert_eq!(keys, [before["verifier"].as_str().unwrap(), rotated["verifier"].as_str().unwrap()]);

    let other = Keys::new_signer(rotated["verifier"].as_str().unwrap().split('+').next().unwrap()).unwrap();
    let path = site.data().join("keys/checkpoint.key");
    let own = std::fs::read(&path).unwrap();
    std::fs::write(&path, format!("{}\n", *other.to_private())).unwrap();
    let output = site.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(rotated["verifier"].as_str().unwrap()) && said.contains("--new-checkpoint-key"), "{said}");
    assert!(!said.contains("PRIVATE+KEY"), "{said}");
    std::fs::write(&path, "not a key\n").unwrap();
    let output = site.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("checkpoint.key") && !said.contains("not a key"), "{said}");
    std::fs::write(&path, own).unwrap();
    site.serve().stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_come_while_there_is_something_new_and_each_continues_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), scanner(), options(), &[]).unwrap();
    let notary = Notary::start(journal.clone(), signer(), Duration::from_millis(20)).unwrap();
    let mut latest = notary.latest();
    let mut seen = Vec::new();
    let writing = {
        let journal = journal.clone();
        tokio::spawn(async move {
            for n in 0..number("WARDEN_RECORDS", 2_000).min(20_000) {
                let decision = plain_decision(Verdict::Allow, &format!("w{n}"));
                journal.append(Record::new(now(), Body::Decision(decision.into())), Room::Ordinary).await.unwrap();
            }
        })
    };
    while !writing.is_finished() {
        if tokio::time::timeout(Duration::from_millis(200), latest.changed()).await.is_ok() {
            seen.extend(latest.borrow_and_update().clone());
        }
    }
    journal.close();
    notary.close().unwrap();
    seen.extend(notary.latest().borrow().clone());
    assert!(seen.len() > 2, "{}", seen.len());
    for pair in seen.windows(2) {
        let [old, new] = pair else { continue };
        let (old, new) = (&old.checkpoint, &new.checkpoint);
        let path = journal.prove(|tree| proof::consistency(tree, old.size, new.size)).unwrap();
        assert!(proof::is_consistent((old.size, &old.root), (new.size, &new.root), &path));
    }
    assert_eq!(seen.last().unwrap().checkpoint.size, journal.next_seq(), "the last one covers everything");
}

#[test]
fn w08_a_witness_file_says_the_most_that_was_ever_signed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("witness");
    let keys = [signer().verifier().clone()];
    let note = |size: u64, key: &SignerKey| {
        let root = [u8::try_from(size % 251).unwrap(); 32];
        key.note(&Checkpoint { origin: "warden.example/log".into(), size, root }).to_string()
    };
    let target = witness::Witness { name: "w".into(), target: witness::Target::File(file.clone()) };
    let anchors =
        || witness::anchors(dir.path(), std::slice::from_ref(&target), &keys).map(|all| all.first().map(|a| a.size));
    assert_eq!(anchors().unwrap(), None, "no file yet");
    for nothing in ["", "warden.example/log\n12\n", "\n"] {
        std::fs::write(&file, nothing).unwrap();
        assert_eq!(anchors().unwrap(), None, "a file that was made, and nothing whole in it: {nothing:?}");
        assert!(witness::anchor(&file, &keys).is_err(), "whoever names one means it");
    }
    let other = SignerKey::new("warden.example/log", &[4; 32]).unwrap();
    let (small, large, forged) = (note(52, &signer()), note(553, &signer()), note(9999, &other));
    // Somebody who can only append appends an older one, one of their own, and half a one.
    std::fs::write(&file, format!("{small}\n{large}\n{small}\n{forged}\n{}", &large[..30])).unwrap();
    assert_eq!(anchors().unwrap(), Some(553));
    assert_eq!(witness::anchor(&file, &keys).unwrap().size, 553);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(anchors().unwrap_err().to_string().contains("is no regular file"));
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, format!("{forged}\n")).unwrap();
    assert!(anchors().unwrap_err().to_string().contains("no signature by a known key holds"));
}

#[tokio::test]
async fn wrong_hashes_do_not_accuse_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), scanner(), options(), &[]).unwrap();
    let mut early = None;
    for n in 0..1000 {
        let decision = plain_decision(Verdict::Allow, &format!("w{n}"));
        journal.append(Record::new(now(), Body::Decision(decision.into())), Room::Ordinary).await.unwrap();
        if n == 300 {
            let (size, root) = journal.tip();
            early = Some(Anchor { size, root, from: "a slow witness".into() });
        }
    }
    journal.close();
    drop(journal);
    let early = early.unwrap();
    let leaves = dir.path().join("tree/0");
    let mut bytes = std::fs::read(&leaves).unwrap();
    bytes[32 * 299] ^= 1;
    std::fs::write(&leaves, &bytes).unwrap();
    Journal::open(dir.path(), scanner(), options(), std::slice::from_ref(&early))
        .expect("the records are as they were")
        .close();
    verify(dir.path(), &[early], |_, _| {}).expect("and the hashes are again");
}

#[tokio::test]
async fn an_empty_segment_a_torn_snapshot_and_a_disk_that_takes_nothing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path(), 600).await;
    let last = segments(dir.path()).pop().unwrap();
    let whole = std::fs::read(&last).unwrap();
    std::fs::write(&last, b"").unwrap();
    let refused = Journal::open(dir.path(), scanner(), options(), &[]).err().unwrap().to_string();
    assert!(refused.contains(last.to_str().unwrap()) && refused.contains("the file is empty"), "{refused}");
    std::fs::write(&last, &whole).unwrap();
    for entry in std::fs::read_dir(dir.path().join("state")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    Journal::open(dir.path(), scanner(), options(), &anchors(dir.path()))
        .expect("older ones, or none, do as well")
        .close();

    let Some(mount) = crate::journal::Tmpfs::mount(4 << 20) else { return };
    journal_of(mount.dir.path(), 50).await;
    let remount = |how: &str| {
        let done = std::process::Command::new("mount").args(["-o", how]).arg(mount.dir.path()).status();
        assert!(done.unwrap().success());
    };
    remount("remount,ro");
    let refused = Journal::open(mount.dir.path(), scanner(), options(), &anchors(mount.dir.path())).err().unwrap();
    let said =
        format!("{refused}: {}", std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default());
    assert!(said.contains(mount.dir.path().to_str().unwrap()) && said.contains("Read-only"), "{said}");
    verify(mount.dir.path(), &anchors(mount.dir.path()), |_, _| {}).expect("reading needs no writing");
    remount("remount,rw");
}
