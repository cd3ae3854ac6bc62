//! How the log is kept: retention and holds, levels and erasure, exports.

use crate::support::{PERMIT_ALL, Site, odd_server, plain_decision, records, scanner, verified, warden};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use warden_adapters::export::{Exporter, Format, Manifest};
use warden_adapters::journal::checkpoint::Notary;
use warden_adapters::journal::{Anchor, Journal, Options, Retain, verify};
use warden_adapters::world::now;
use warden_core::journal::note::SignerKey;
use warden_core::journal::proof;
use warden_core::journal::record::{Body, Hold, HoldChange, Record};
use warden_core::policy::level::Level;
use warden_core::port::Room;
use warden_core::verdict::Verdict;

fn options() -> Options {
    Options { segment_bytes: 64 << 10, reserved_bytes: 16 << 10, ..Options::default() }
}

fn open(dir: &Path) -> Journal {
    Journal::open(dir, scanner(), options(), &[]).unwrap()
}

async fn fill(journal: &Journal, count: usize, verdict: Verdict) {
    for n in 0..count {
        let decision = plain_decision(verdict, &format!("w{}", n % 5));
        journal.append(Record::new(now(), Body::Decision(decision.into())), Room::Ordinary).await.unwrap();
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    all.sort();
    all
}

const LITTLE: Retain = Retain { age: None, bytes: Some(200 << 10) };

#[tokio::test]
async fn old_segments_go_their_hashes_stay_and_earlier_proofs_still_hold() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 1500, Verdict::Deny).await;
    let (size, root) = (journal.next_seq(), journal.head().tree.root());
    let early = journal.prove(|tree| proof::inclusion(tree, 7, size)).unwrap();
    let before = segments(dir.path()).len();
    let dropped = journal.retain(LITTLE, now(), None).await.unwrap().unwrap();
    assert!(dropped.segments > 3 && dropped.first_seq == 0, "{dropped:?}");
    assert_eq!((before - segments(dir.path()).len()) as u64, dropped.segments);
    assert_eq!(journal.retain(LITTLE, now(), None).await.unwrap(), None, "nothing more to drop");
    assert!(journal.reader().record(7).unwrap().is_none());
    assert_eq!(journal.prove(|tree| proof::inclusion(tree, 7, size)).unwrap(), early);
    let leaf = journal.prove(|tree| tree.leaf(7)).unwrap();
    assert!(proof::is_included(leaf, 7, size, &early, &root));
    fill(&journal, 10, Verdict::Deny).await;
    journal.close();
    let signed = Anchor { size, root, from: "a checkpoint of before".into() };
    let early = Anchor { size: 1, root: leaf_root(&journal), from: "an early checkpoint".into() };
    let found = verify(dir.path(), &[signed.clone(), early.clone()], |_, _| {}).unwrap();
    assert_eq!(found.first_seq, dropped.next_seq);
    drop(journal);
    let journal = Journal::open(dir.path(), scanner(), options(), &[signed.clone(), early]).unwrap();
    assert_eq!(journal.head().state.first_seq, dropped.next_seq);
    fill(&journal, 200, Verdict::Deny).await;
    journal.close();
    // Somebody else drops one more.
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    let said = verify(dir.path(), &[signed], |_, _| {}).unwrap_err().to_string();
    assert!(said.contains("no record says that retention dropped them"), "{said}");
}

fn leaf_root(journal: &Journal) -> warden_core::journal::tree::Hash {
    journal.prove(|tree| proof::root(tree, 1)).unwrap()
}

#[tokio::test]
async fn holds_and_held_proposals_keep_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = now();
    fill(&journal, 700, Verdict::Deny).await;
    let keeps = |keeps| Record::new(now(), Body::Hold(HoldChange { name: "case".into(), keeps, operator: "o".into() }));
    let hold = Hold { since: Some(start), until: Some(now()) };
    fill(&journal, 700, Verdict::Deny).await;
    journal.append(keeps(Some(hold)), Room::Reserved).await.unwrap();
    assert_eq!(journal.retain(LITTLE, now(), None).await.unwrap(), None, "the oldest segment is held");
    journal.append(keeps(None), Room::Reserved).await.unwrap();
    fill(&journal, 1, Verdict::Escalate).await;
    let held = journal.next_seq() - 1;
    fill(&journal, 700, Verdict::Deny).await;
    let dropped = journal.retain(LITTLE, now(), None).await.unwrap().unwrap();
    assert!(dropped.next_seq <= held, "a held proposal's record stays: {dropped:?}");
    assert!(journal.reader().record(held).unwrap().is_some());
    assert_eq!(dropped.why, "size");
    let old = Retain { age: Some(Duration::ZERO), bytes: None };
    assert!(journal.retain(old, now(), Some("a person")).await.unwrap().is_none_or(|d| d.next_seq <= held));
    journal.close();
    verify(dir.path(), &[], |_, _| {}).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_gateway_drops_what_is_not_kept_and_its_view_forgets_it() {
    let site = Site::odd();
    site.policies(PERMIT_ALL);
    let servers = json!({ "odd": odd_server(&site.dir.join("effects")) });
    site.configure(&servers, &json!({ "journal": { "segment_mb": 1, "reserved_mb": 1 } }));
    let running = site.serve_classified();
    let text = "x".repeat(250);
    let lanes = (0..8).map(|_| async {
        let mut worker = site.worker().await;
        for _ in 0..260 {
            worker.call("echo", json!({ "text": text })).await;
        }
    });
    futures::future::join_all(lanes).await;
    site.ok(&["audit", "hold", "add", "case 7"]);
    assert!(site.ok(&["audit", "hold", "list"]).contains("case 7"));
    assert!(site.ok(&["audit", "drop", "--keep-mb", "1"]).contains("nothing to drop"));
    site.ok(&["audit", "hold", "release", "case 7"]);
    assert_eq!(site.run(&["audit", "hold", "release", "case 7"]).status.code(), Some(2));
    let said = site.ok(&["audit", "drop", "--keep-mb", "1"]);
    assert!(said.contains("segments dropped"), "{said}");
    assert_eq!(site.run(&["audit", "drop"]).status.code(), Some(3));
    let oldest = site.ok(&["--json", "audit", "query", "--limit", "10000"]);
    let first = oldest.lines().last().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap());
    assert!(first > Some(0), "{first:?}");
    running.stop();
    let found = verified(&site.data()).unwrap();
    assert_eq!(Some(found.first_seq), first);
    let running = site.serve();
    assert!(!site.ok(&["audit", "tail"]).is_empty());
    running.stop();
    assert!(site.ok(&["audit", "verify"]).contains("by retention"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_say_what_is_written_down_and_what_is_sealed_can_be_erased() {
    let site = Site::odd();
    site.policies(PERMIT_ALL);
    let servers = json!({ "odd": odd_server(&site.dir.join("effects")) });
    let levels = json!({ "odd/echo": "sealed", "odd/mark": "metadata" });
    site.configure(&servers, &json!({ "journal": { "segment_mb": 4, "reserved_mb": 1, "levels": levels } }));
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    worker.call("echo", json!({ "text": "personal-7391" })).await;
    worker.call("mark", json!({ "marker": "dropped-5520" })).await;
    worker.call("number", json!({ "n": 77_231_187 })).await;
    let query = |tool: &str| -> Value {
        let found = site.ok(&["--json", "audit", "query", "--tool", tool, "--limit", "1"]);
        serde_json::from_str(found.lines().next().unwrap()).unwrap()
    };
    let echo = query("odd/echo");
    assert_eq!((&echo["level"], &echo["context"]["input"]["text"]), (&json!("sealed"), &json!("personal-7391")));
    let mark = query("odd/mark");
    assert_eq!((&mark["level"], &mark["context"]["input"]), (&json!("metadata"), &Value::Null));
    assert_eq!(query("odd/number")["context"]["input"]["n"], 77_231_187);
    for stored in records(&site.data()) {
        let text = serde_json::to_string(&stored).unwrap();
        assert!(!text.contains("personal-7391") && !text.contains("dropped-5520"), "{text}");
    }
    let said = site.ok(&["audit", "erase", "--worker", "assistant"]);
    assert!(said.contains("is destroyed"), "{said}");
    let echo = query("odd/echo");
    assert_eq!((&echo["erased"], &echo["context"]["input"]), (&json!(true), &Value::Null));
    // What comes later has another key.
    worker.call("echo", json!({ "text": "later-4471" })).await;
    assert_eq!(query("odd/echo")["context"]["input"]["text"], "later-4471");
    running.stop();
    verified(&site.data()).expect("no record changed");
    site.configure(&servers, &json!({ "journal": { "levels": { "cal_tool": "facts" } } }));
    let output = site.run(&["validate"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("journal.levels: `cal_tool`"), "{output:?}");
}

const FORMATS: [(&str, &str); 4] =
    [("ndjson", "e.ndjson.gz"), ("ocsf", "e.ocsf.json"), ("cloudevents", "e.ce.json.gz"), ("csv", "e.csv")];

fn text_of(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    match bytes.starts_with(&[0x1f, 0x8b]) {
        true => drop(flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap()),
        false => text = String::from_utf8(bytes).unwrap(),
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_checked_with_nothing_but_its_proof_and_the_public_key() {
    let site = Site::odd();
    site.policies(PERMIT_ALL);
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    worker.call("echo", json!({ "text": "line\nbreak, \"quotes\" and ü" })).await;
    worker.call("=HYPERLINK(1)", json!({})).await;
    let since = jiff::Timestamp::now().to_string();
    worker.call("mark", json!({ "marker": "within" })).await;
    let until = jiff::Timestamp::now().to_string();
    worker.call("mark", json!({ "marker": "after" })).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let shown: Value = serde_json::from_str(&site.ok(&["--json", "audit", "checkpoint"])).unwrap();
    let key = shown["verifier"].as_str().unwrap().to_owned();
    let check = |path: &Path, key: &str| {
        warden()
            .current_dir(elsewhere.path())
            .args(["audit", "verify"])
            .arg(path)
            .args(["--key", key])
            .output()
            .unwrap()
    };
    for (format, name) in FORMATS {
        let path = elsewhere.path().join(name);
        site.ok(&["audit", "export", "--format", format, "-o", path.to_str().unwrap()]);
        let good = check(&path, &key);
        assert!(good.status.success(), "{format}: {good:?}");
        let text = text_of(&path);
        assert!(text.contains("within") && text.contains("after"));
        let proof = elsewhere.path().join(format!("{name}.proof"));
        // Each change is noticed: a byte of a record, a line left out, what is shown beside the record, the end.
        let changes: [&dyn Fn(&str) -> String; 3] = [
            &|text| text.replacen("within", "withiN", 1),
            &|text| {
                let n = text.lines().count() / 2;
                text.split_inclusive('\n').enumerate().filter(|(at, _)| *at != n).map(|(_, line)| line).collect()
            },
            &|text| {
                let kept = text.trim_end().rsplit_once('\n').unwrap().0;
                format!("{kept}\n")
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let changed = elsewhere.path().join(format!("changed-{number}-{name}"));
            std::fs::write(&changed, change(&text)).unwrap();
            std::fs::copy(&proof, format!("{}.proof", changed.display())).unwrap();
            let output = check(&changed, &key);
            assert_eq!(output.status.code(), Some(2), "{format}, change {number}: {output:?}");
        }
        let other = SignerKey::new(key.split('+').next().unwrap(), &[1; 32]).unwrap();
        assert_eq!(check(&path, &other.verifier().to_string()).status.code(), Some(2), "another key");
        if format == "csv" {
            assert!(text.contains(",'=HYPERLINK(1),"), "{text}");
            let shown = elsewhere.path().join("shown.csv");
            std::fs::write(&shown, text.replacen(",allow,", ",deny,", 1)).unwrap();
            std::fs::copy(&proof, format!("{}.proof", shown.display())).unwrap();
            let output = check(&shown, &key);
            assert!(String::from_utf8_lossy(&output.stderr).contains("is not what its record says"), "{output:?}");
        }
        let mut manifest: Value = serde_json::from_slice(&std::fs::read(&proof).unwrap()).unwrap();
        manifest["to"] = json!(manifest["to"].as_u64().unwrap() - 1);
        std::fs::write(&proof, manifest.to_string()).unwrap();
        assert_eq!(check(&path, &key).status.code(), Some(2), "{format}: the proof says less");
    }
    let part = elsewhere.path().join("part.ndjson");
    site.ok(&["audit", "export", "--since", &since, "--until", &until, "-o", part.to_str().unwrap()]);
    let text = text_of(&part);
    assert!(text.contains("within") && !text.contains("\"after\"") && !text.contains("quotes"), "{text}");
    assert!(check(&part, &key).status.success());
    assert_eq!(
        site.run(&["audit", "export", "-o", part.to_str().unwrap()]).status.code(),
        Some(2),
        "nothing is overwritten"
    );
    let without = warden().current_dir(elsewhere.path()).args(["audit", "verify"]).arg(&part).output().unwrap();
    assert_eq!(without.status.code(), Some(3), "a key is needed: {without:?}");
    running.stop();
    let offline = elsewhere.path().join("offline.ndjson");
    site.ok(&["audit", "export", "-o", offline.to_str().unwrap()]);
    assert!(check(&offline, &key).status.success());
}

#[tokio::test]
async fn an_export_that_was_broken_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let signer = SignerKey::new("warden.example/log", &[3; 32]).unwrap();
    let notary = Notary::start(journal.clone(), signer.clone(), Duration::from_secs(3600)).unwrap();
    let part: Vec<_> =
        (0..20_000).map(|_| Record::new(now(), Body::Decision(plain_decision(Verdict::Deny, "w").into()))).collect();
    for part in part.chunks(2000) {
        let appends = part.iter().map(|record| journal.append(record.clone(), Room::Ordinary));
        futures::future::join_all(appends).await;
    }
    notary.sign().unwrap();
    let signed = notary.latest().borrow().clone().unwrap();
    let size = signed.checkpoint.size;
    let make = async || -> std::io::Result<Manifest> {
        Ok(Manifest {
            v: 1,
            origin: signed.checkpoint.origin.clone(),
            from: 0,
            to: size,
            since: None,
            until: None,
            checkpoint: signed.note.to_string(),
            verifier: signer.verifier().to_string(),
            range: journal.prove(|tree| proof::range(tree, 0, size, size))?,
            format: Format::Ndjson,
        })
    };
    let whole = dir.path().join("whole.ndjson.gz");
    let broken = dir.path().join("broken.ndjson.gz");
    let mut reader = journal.reader();
    let mut exporter = Exporter::start(&whole, (None, None), Format::Ndjson, make).await.unwrap();
    for seq in 0..size {
        exporter.push(seq, &reader.bytes(seq).unwrap().unwrap()).unwrap();
    }
    assert!(exporter.push(size + 5, b"{}").is_err(), "a gap is refused");
    exporter.finish().unwrap();
    let mut starts = Vec::new();
    for stop in [9_000, 17_500, size] {
        let mut exporter = Exporter::start(&broken, (None, None), Format::Ndjson, make).await.unwrap();
        starts.push(exporter.next());
        for seq in exporter.next()..stop {
            exporter.push(seq, &reader.bytes(seq).unwrap().unwrap()).unwrap();
        }
        if stop == size {
            exporter.finish().unwrap();
        } else {
            // What a crash leaves half written.
            let mut file =
                std::fs::OpenOptions::new().append(true).open(dir.path().join("broken.ndjson.gz.part")).unwrap();
            file.write_all(b"half a piece").unwrap();
        }
    }
    assert_eq!(starts, [0, 8192, 16_384]);
    assert_eq!(text_of(&whole), text_of(&broken));
    warden_adapters::export::check(&broken, &[signer.verifier().clone()], |_, _| {}).unwrap();
    journal.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x09_what_must_not_be_kept_is_in_no_file_of_the_gateway() {
    let site = Site::odd();
    site.policies(PERMIT_ALL);
    let servers = json!({ "odd": odd_server(&site.dir.join("effects")) });
    let levels = json!({ "odd/echo": "sealed", "odd/mark": "metadata" });
    site.configure(&servers, &json!({ "journal": { "segment_mb": 4, "reserved_mb": 1, "levels": levels } }));
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let canary = |n: u32| format!("canary{n}x{}", "q".repeat(12));
    worker.headers = vec![("x-anything", canary(1)), ("x-warden-session", canary(2)), ("baggage", canary(3))];
    worker.call("echo", json!({ "text": canary(4) })).await;
    worker.call("mark", json!({ "marker": canary(5) })).await;
    worker.call("free", json!({ "opt_data": { "long": format!("{}{}", "x".repeat(300), canary(6)) } })).await;
    // What the server answers: a result, an error's text.
    let answer = worker.request("resources/read", json!({ "uri": "file:///none" })).await;
    assert!(answer["error"].is_object() || answer["result"].is_object());
    let result = worker.call("ask", json!({ "method": "roots/list" })).await;
    assert!(result.is_object());
    let mut unauthorised = worker_with(&site, &canary(7));
    unauthorised.headers = vec![];
    let _ = unauthorised.send(b"{}".to_vec()).await.unwrap();
    worker.url = format!("{}?token={}", worker.url, canary(8));
    worker.call("never_there", json!({})).await;
    let export = site.dir.join("export.csv");
    site.ok(&["audit", "export", "--format", "csv", "-o", export.to_str().unwrap()]);
    let metrics = reqwest::Client::builder().unix_socket(site.data().join("operator.sock")).build().unwrap();
    let metrics = metrics.get("http://localhost/metrics").send().await.unwrap().text().await.unwrap();
    running.stop();
    let mut open = vec![site.data(), site.dir.join("log"), export];
    let mut looked = 0;
    let mut texts = vec![("metrics".to_owned(), metrics.into_bytes())];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            texts.push((path.display().to_string(), bytes));
        }
    }
    for (name, bytes) in texts {
        looked += 1;
        for n in 1..=8 {
            let canary = canary(n);
            assert!(!bytes.windows(canary.len()).any(|w| w == canary.as_bytes()), "{canary} is in {name}");
        }
    }
    assert!(looked > 15, "{looked}");
    let effects = std::fs::read_to_string(site.dir.join("effects")).unwrap();
    assert!(effects.contains(&canary(5)), "they did arrive where they were meant to");
    assert!(
        records(&site.data())
            .iter()
            .any(|r| matches!(&r.body, Body::Decision(d) if d.level == Level::Sealed && d.input_sealed.is_some()))
    );
}

fn worker_with(site: &Site, token: &str) -> crate::support::Worker {
    crate::support::Worker::new(site.port, "odd", token)
}

#[tokio::test]
async fn what_somebody_else_took_away_is_never_called_retention() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 1500, Verdict::Deny).await;
    for path in &segments(dir.path())[..2] {
        std::fs::remove_file(path).unwrap();
    }
    let said = journal.retain(LITTLE, now(), None).await.unwrap_err().to_string();
    assert!(said.contains("no record says that retention dropped it"), "{said}");
    journal.close();
    let said = Journal::open(dir.path(), scanner(), options(), &[]).err().unwrap().to_string();
    assert!(said.contains("no record says that retention dropped them"), "{said}");
}

#[tokio::test]
async fn a_drop_that_a_crash_broke_off_is_finished_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 1500, Verdict::Deny).await;
    let all = segments(dir.path());
    let copies: Vec<_> = all.iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let dropped = journal.retain(LITTLE, now(), None).await.unwrap().unwrap();
    journal.close();
    // As if only the first file had been removed.
    for (path, bytes) in &copies[1..usize::try_from(dropped.segments).unwrap()] {
        std::fs::write(path, bytes).unwrap();
    }
    verify(dir.path(), &[], |_, _| {}).unwrap();
    open(dir.path()).close();
    let first: u64 = segments(dir.path())[0].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(first, dropped.next_seq);
    verify(dir.path(), &[], |_, _| {}).unwrap();
}

#[tokio::test]
async fn nothing_is_dropped_whose_hashes_are_wrong_and_a_start_mends_what_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 1500, Verdict::Deny).await;
    let upper = dir.path().join("tree/8");
    let mut bytes = std::fs::read(&upper).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&upper, &bytes).unwrap();
    let said = journal.retain(LITTLE, now(), None).await.unwrap_err().to_string();
    assert!(said.contains("nothing is dropped"), "{said}");
    journal.close();
    let journal = open(dir.path());
    journal.retain(LITTLE, now(), None).await.unwrap().unwrap();
    journal.close();
    // Now the leaves are all that is left of what was dropped; the files above them follow from these.
    bytes[40] ^= 3;
    std::fs::write(&upper, &bytes).unwrap();
    open(dir.path()).close();
    verify(dir.path(), &[], |_, _| {}).unwrap();
}

#[tokio::test]
async fn a_hold_keeps_what_a_clock_that_was_set_back_put_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let early = now() - jiff::SignedDuration::from_hours(2);
    fill(&journal, 300, Verdict::Deny).await;
    let decision = plain_decision(Verdict::Deny, "w");
    journal.append(Record::new(early, Body::Decision(decision.into())), Room::Ordinary).await.unwrap();
    fill(&journal, 1200, Verdict::Deny).await;
    let keeps = Some(Hold { since: Some(early), until: Some(early + jiff::SignedDuration::from_mins(1)) });
    let hold = HoldChange { name: "case".into(), keeps, operator: "o".into() };
    journal.append(Record::new(now(), Body::Hold(hold)), Room::Reserved).await.unwrap();
    assert_eq!(journal.retain(LITTLE, now(), None).await.unwrap(), None);
    journal.close();
}

#[test]
fn an_export_that_was_made_to_stop_its_reader_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let signer = SignerKey::new("warden.example/log", &[3; 32]).unwrap();
    let checkpoint =
        warden_core::journal::note::Checkpoint { origin: "warden.example/log".into(), size: 10, root: [0; 32] };
    let check = |name: &str, manifest: &Value, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::write(dir.path().join(format!("{name}.proof")), manifest.to_string()).unwrap();
        warden_adapters::export::check(&path, &[signer.verifier().clone()], |_, _| {}).unwrap_err().to_string()
    };
    let manifest = |from: u64, to: u64, format: &str| {
        json!({ "v": 1, "origin": "warden.example/log", "from": from, "to": to, "checkpoint": signer.note(&checkpoint).to_string(),
            "verifier": "", "range": { "before": [], "after": [] }, "format": format })
    };
    let said = check("wrong-way", &manifest(8, 3, "ndjson"), b"");
    assert!(said.contains("8 to 3 is no part of a log of 10 records"), "{said}");
    assert!(check("beyond", &manifest(0, u64::MAX, "ndjson"), b"").contains("is no part of"));
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zeros.write_all(&vec![0; 64 << 20]).unwrap();
    let said = check("bomb.csv.gz", &manifest(0, 3, "csv"), &zeros.finish().unwrap());
    assert!(said.contains("line 1: the columns are others"), "{said}");
    let quotes = "seq,".to_owned() + &"\"a\n".repeat(300_000);
    assert!(check("quotes.csv", &manifest(0, 3, "csv"), quotes.as_bytes()).contains("line 1"));
    let said = check("bytes", &manifest(0, 3, "ndjson"), b"\xff\xfe\n");
    assert!(said.contains("its content is damaged"), "{said}");
}

#[tokio::test]
async fn a_full_disk_can_be_made_room_on_and_started_on() {
    let Some(mount) = crate::journal::Tmpfs::mount(2_600 << 10) else { return };
    let journal = open(mount.dir.path());
    fill(&journal, 1200, Verdict::Deny).await;
    let filler = mount.dir.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 1024]).is_ok() {}
    // Until the journal itself has no room either.
    let mut refused = false;
    for _ in 0..3000 {
        let decision = plain_decision(Verdict::Allow, "w");
        let record = Record::new(now(), Body::Decision(decision.into()));
        refused |= journal.append(record, Room::Ordinary).await.is_err();
        if refused {
            break;
        }
    }
    assert!(refused);
    // Denials without end leave room for operators.
    for _ in 0..200 {
        let record = Record::new(now(), Body::Decision(plain_decision(Verdict::Deny, "w").into()));
        let _ = journal.append(record, Room::Reserved).await;
    }
    journal.close();
    drop(journal);
    let journal = Journal::open(mount.dir.path(), scanner(), options(), &[]).expect("starts on a full disk");
    let dropped = journal.retain(LITTLE, now(), Some("a person")).await.unwrap().unwrap();
    assert!(dropped.segments > 0);
    std::fs::remove_file(&filler).unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let _ = journal
        .append(Record::new(now(), Body::Decision(plain_decision(Verdict::Deny, "w").into())), Room::Ordinary)
        .await;
    fill(&journal, 5, Verdict::Deny).await;
    journal.close();
    verify(mount.dir.path(), &[], |_, _| {}).unwrap();
}
