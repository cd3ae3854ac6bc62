//! The no-secret rule from end to end: what is registered or looks like a token reaches neither side, no file and no log.

#[path = "../../gateway/core/src/secrets/disguises.rs"]
mod disguises;

use crate::support::{PERMIT_ALL, Running, Site, decisions, odd_server, records, refusal};
use disguises::disguises;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use warden_core::journal::record::Body;
use warden_core::outcome::{Happened, Outcome};

const VALUE: &str = "kR7vXq2LmZ9tWc4Yb8Np3HsJ6dGfA1uE";
const TOKEN: &str = "ghp_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3";

/// A site that has [`VALUE`] registered from a file outside of it, so that it can be looked for in all of its files.
struct Kept {
    site: Site,
    dir: tempfile::TempDir,
}

impl Kept {
    fn new(more: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("database-password");
        std::fs::write(&file, format!("{VALUE}\n")).unwrap();
        let site = Site::at(&dir.path().join("site"), &json!({}));
        let mut secrets = json!({ "registered": [{ "name": "database", "file": file }] });
        for (name, value) in more.as_object().unwrap() {
            secrets[name] = value.clone();
        }
        let kept = Self { site, dir };
        kept.site.configure(&json!({ "odd": odd_server(&kept.effects()) }), &json!({ "secrets": secrets }));
        kept.site.policies(PERMIT_ALL);
        kept
    }

    fn effects(&self) -> PathBuf {
        self.dir.path().join("effects")
    }

    /// What the server was asked to do.
    fn asked(&self) -> usize {
        std::fs::read_to_string(self.effects()).unwrap_or_default().lines().count()
    }

    /// What the server answers next.
    fn told(&self, result: &Value) {
        std::fs::write(self.dir.path().join("effects.told"), result.to_string()).unwrap();
    }
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut open, mut found) = (vec![dir.to_owned()], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.metadata().is_ok_and(|meta| meta.is_file()) {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// Neither the value nor any of its disguises stands in a file of the site.
fn assert_nowhere(site: &Site, value: &str) {
    let mut needles = vec![("plain", value.to_owned())];
    for (disguise, json) in disguises(value) {
        let text = json["text"].as_str().map_or_else(|| value.to_owned(), str::to_owned);
        needles.push((disguise, text));
    }
    for (path, bytes) in files(&site.dir) {
        for (disguise, needle) in &needles {
            let is_there = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!is_there, "{disguise} stands in {}", path.display());
        }
    }
}

fn outcomes(site: &Site) -> Vec<Outcome> {
    let outcome = |body| if let Body::Outcome(outcome) = body { Some(outcome) } else { None };
    records(&site.data()).into_iter().filter_map(|record| outcome(record.body)).collect()
}

fn stopped(running: Running) {
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w04_s1_30_no_disguise_of_a_value_reaches_a_server_a_worker_or_a_file() {
    let kept = Kept::new(&json!({}));
    let running = kept.site.serve_classified();
    let issued: Value =
        serde_json::from_str(&kept.site.ok(&["--json", "token", "issue", "assistant", "--role", "pep"])).unwrap();
    let pep = reqwest::Client::new();
    let mut worker = kept.site.worker().await;
    for value in [VALUE, TOKEN] {
        for (disguise, hidden) in disguises(value) {
            // What a worker sends.
            let answer = worker.call("free", json!({ "opt_data": hidden })).await;
            assert_eq!(refusal(&answer).0, "denied", "{disguise}: {answer}");
            assert_eq!(kept.asked(), 0, "{disguise}");
            // What somebody asks about.
            let question = json!({
                "subject": { "type": "Worker", "id": "assistant" }, "action": { "name": "odd/free" },
                "resource": { "type": "Tool", "id": "odd/free" },
                "context": { "opt_data": hidden },
            });
            let url = format!("http://127.0.0.1:{}/access/v1/evaluation", kept.site.port);
            let request =
                pep.post(url).bearer_auth(issued["token"].as_str().unwrap()).header("content-type", "application/json");
            let answer = request.body(question.to_string()).send().await.unwrap().text().await.unwrap();
            assert!(answer.contains(r#""decision":false"#) && !answer.contains(value), "{disguise}: {answer}");
        }
    }
    for value in [VALUE, TOKEN] {
        for (disguise, hidden) in disguises(value) {
            // What a server answers, as JSON and as an event stream.
            for accept in ["application/json", "application/json, text/event-stream"] {
                worker.accept = accept;
                kept.told(&json!({ "content": [{ "type": "text", "text": "here" }], "structuredContent": { "said": hidden } }));
                let body = json!({ "jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": { "name": "told", "arguments": {} } });
                let response = worker.send(body.to_string().into_bytes()).await.unwrap();
                let text = response.text().await.unwrap();
                assert!(text.contains("withheld"), "{disguise}: {text}");
                let shown = hidden["text"].as_str().unwrap_or(value);
                assert!(!text.contains(value) && !text.contains(shown), "{disguise}: {text}");
            }
            worker.accept = "application/json";
        }
    }
    stopped(running);
    assert_nowhere(&kept.site, VALUE);
    assert_nowhere(&kept.site, TOKEN);
    let all = decisions(&kept.site.data());
    let found = all.iter().filter(|decision| decision.reason == "secret_found");
    let denied: usize = found.map(|decision| 1 + usize::try_from(decision.repeated).unwrap()).sum();
    assert_eq!(denied, 4 * disguises(VALUE).len(), "each of them is on record");
    let withheld = outcomes(&kept.site).iter().filter(|outcome| outcome.happened == Happened::Withheld).count();
    assert_eq!(withheld, 4 * disguises(VALUE).len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_32_ordered_pieces_over_several_calls_are_refused_once_they_join() {
    let kept = Kept::new(&json!({}));
    let running = kept.site.serve_classified();
    for size in [8, 9, 11] {
        let mut worker = kept.site.worker().await;
        let before = kept.asked();
        let pieces: Vec<&str> =
            VALUE.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
        let mut denied = 0;
        for (number, piece) in pieces.iter().enumerate() {
            // In different places, so that only their order joins them.
            let (tool, place) = if number % 2 == 0 { ("echo", "text") } else { ("mark", "marker") };
            let answer = worker.call(tool, json!({ place: piece })).await;
            denied += usize::from(refusal(&answer).0 == "denied");
        }
        assert_eq!(kept.asked() - before + denied, pieces.len());
        assert!(kept.asked() - before <= 2, "pieces of {size}");
    }
    // Another session knows nothing of it.
    let mut other = kept.site.worker().await;
    let answer = other.call("echo", json!({ "text": &VALUE[8..16] })).await;
    assert_eq!(refusal(&answer).0, "none", "{answer}");
    stopped(running);
    let pieces = decisions(&kept.site.data());
    let joined =
        pieces.iter().flat_map(|decision| &decision.context.secret_findings).filter(|found| found.via == ["pieces"]);
    assert!(joined.clone().count() > 0 && joined.clone().all(|found| found.format == "registered_value"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_31_a_redacted_answer_has_a_fingerprint_in_place_of_the_value_and_the_rest_as_it_was() {
    let kept = Kept::new(&json!({ "results": { "odd/told": "redact" } }));
    let running = kept.site.serve_classified();
    let mut worker = kept.site.worker().await;
    kept.told(&json!({ "content": [{ "type": "text", "text": format!("password {VALUE} and {TOKEN} é\u{1F600}") }], "x-vendor": 1.50 }));
    let answer = worker.call("told", json!({})).await;
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("password [secret:registered_value:")
            && text.contains("[secret:github_personal_access_token:"),
        "{text}"
    );
    assert!(text.ends_with("] é\u{1F600}") && answer["result"]["x-vendor"] == 1.5, "{answer}");
    // What cannot be cut out is withheld.
    kept.told(
        &json!({ "content": [{ "type": "text", "text": &VALUE[..16] }, { "type": "text", "text": &VALUE[16..] }] }),
    );
    let halves = worker.call("told", json!({})).await;
    assert!(!halves.to_string().contains(&VALUE[..12]) && !halves.to_string().contains(&VALUE[20..]), "{halves}");
    // Where nobody said so, it is withheld.
    let leaked = worker.call("leak", json!({})).await;
    assert_eq!(refusal(&leaked).0, "withheld");
    stopped(running);
    assert_nowhere(&kept.site, VALUE);
    let all = outcomes(&kept.site);
    let redacted = all.iter().find(|outcome| outcome.happened == Happened::Redacted).unwrap();
    assert_eq!(redacted.secret_findings.len(), 2);
    assert!(all.iter().any(|outcome| outcome.happened == Happened::Withheld));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_tells_a_worker_the_kind_alone() {
    let kept = Kept::new(&json!({}));
    let running = kept.site.serve_classified();
    let mut worker = kept.site.worker().await;
    let mut told = Vec::new();
    for text in [VALUE, &VALUE[4..20], TOKEN, "postgres://admin:hunter2Pass9@db.example.com/x"] {
        let mut answer = worker.call("echo", json!({ "text": text })).await;
        let id = refusal(&answer).1.to_owned();
        answer["id"] = json!(0);
        told.push(answer.to_string().replace(&id, "ID"));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        !told[0].contains("registered") && !told[0].contains("github") && !told[0].contains("database"),
        "{told:?}"
    );
    stopped(running);
}

/// Runs a command with something on its stdin.
fn with_stdin(site: &Site, args: &[&str], text: &str) -> (Option<i32>, String) {
    let mut command = crate::support::warden();
    let command = command.arg("--config").arg(site.dir.join("warden.yaml")).args(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_24_operators_register_forget_allow_and_explain_while_it_runs_and_it_holds_over_a_restart() {
    let kept = Kept::new(&json!({}));
    let site = &kept.site;
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let value = "Qz81LpTx72MvRw35KyBn";
    let send = json!({ "text": format!("use {value}") });

    // Unfit values, and names that are taken, are refused and nothing is changed.
    let unfit: [(&[&str], &str, &str); 4] = [
        (&["secrets", "register", "tiny"], "x", "has 1 byte"),
        (&["secrets", "register", "regular"], "aaaaaaaaaaaaaaaaaaaaaa", "too regular"),
        (&["secrets", "register", "long"], &"aB3xZ9".repeat(200_000), "longer than"),
        (&["secrets", "register", "database"], value, "`warden.yaml`"),
    ];
    for (args, text, says) in unfit {
        let (code, said) = with_stdin(site, args, text);
        assert!(code != Some(0) && said.contains(says), "{args:?}: {code:?} {said}");
        assert!(text.len() < 12 || !said.contains(text), "{said}");
    }
    let (code, said) = with_stdin(site, &["secrets", "register", "queue"], value);
    assert_eq!(code, Some(0), "{said}");
    let fingerprint = said.split(" as ").nth(1).unwrap().trim().to_owned();
    assert_eq!(refusal(&worker.call("echo", send.clone()).await).0, "denied");
    let explained = site.ok(&["secrets", "explain", &fingerprint]);
    assert!(explained.contains("registered value `queue`") && explained.contains("assistant"), "{explained}");
    assert!(explained.contains("/params/arguments/text"), "{explained}");
    let listed = site.ok(&["secrets", "list"]);
    assert!(listed.contains("queue") && listed.contains("database") && listed.contains("warden.yaml"), "{listed}");
    // A registered value never passes.
    let refused = site.run(&["secrets", "allow", &fingerprint, "--owner", "ops", "--reason", "test"]);
    assert!(!refused.status.success());
    stopped(running);
    assert_nowhere(site, value);
    assert_nowhere(site, VALUE);

    // Kept sealed, and in force after a restart.
    let running = site.serve();
    let mut worker = site.worker().await;
    assert_eq!(refusal(&worker.call("echo", send.clone()).await).0, "denied");
    site.ok(&["secrets", "forget", "queue"]);
    assert_eq!(refusal(&worker.call("echo", send).await).0, "none");

    // A published format of a value that grants nothing.
    let example = json!({ "text": TOKEN });
    let answer = worker.call("echo", example.clone()).await;
    assert_eq!(refusal(&answer).0, "denied");
    let id = refusal(&answer).1.to_owned();
    let shown: Value = serde_json::from_str(&site.ok(&["--json", "audit", "show", &id])).unwrap();
    let shown = shown.to_string();
    let fingerprint = shown.split(r#""fingerprint":""#).nth(1).unwrap().split('"').next().unwrap();
    let upper = fingerprint.to_uppercase();
    assert!(!site.run(&["secrets", "allow", &upper, "--owner", "ops", "--reason", "an example"]).status.success());
    assert!(!site.run(&["secrets", "allow", fingerprint, "--owner", "", "--reason", "an example"]).status.success());
    site.ok(&[
        "secrets",
        "allow",
        fingerprint,
        "--owner",
        "ops",
        "--reason",
        "an example",
        "--until",
        "2099-01-01T00:00:00Z",
    ]);
    assert_eq!(refusal(&worker.call("echo", example.clone()).await).0, "none");
    let explained = site.ok(&["secrets", "explain", fingerprint]);
    assert!(explained.contains("may pass until 2099-01-01") && explained.contains("an example"), "{explained}");
    site.ok(&["secrets", "disallow", fingerprint]);
    assert_eq!(refusal(&worker.call("echo", example).await).0, "denied");
    stopped(running);
    let acts: Vec<String> = records(&site.data())
        .into_iter()
        .filter_map(|record| if let Body::Operator(act) = record.body { Some(act.act.clone()) } else { None })
        .filter(|act| act.starts_with("secret_"))
        .collect();
    assert_eq!(acts, ["secret_register", "secret_forget", "secret_allow", "secret_disallow"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_like_a_secret_waits_for_a_person_by_the_starter_policies() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::at(&dir.path().join("site"), &json!({ "odd": odd_server(&dir.path().join("effects")) }));
    let running = site.serve();
    site.ok(&["tools", "classify", "*", "read"]);
    let mut worker = site.worker().await;
    let answer = worker.call("echo", json!({ "text": "the db_password = hunter7!xQ9 today" })).await;
    assert_eq!(refusal(&answer).0, "held", "{answer}");
    let plain = worker
        .call("echo", json!({ "text": "commit 3f785ae9bdc0127d4a1e9b6c5f2d8e7a90b1c2d3 of https://example.com/a" }))
        .await;
    assert_eq!(refusal(&plain).0, "none", "{plain}");
    stopped(running);
    let decision = decisions(&site.data()).into_iter().find(|decision| decision.reason == "secret_suspected").unwrap();
    assert_eq!(decision.context.suspicions[0].format, "assigned_value");
    assert!(decision.context.secret_findings.is_empty());
    let text = serde_json::to_string(&decision).unwrap();
    assert!(!text.contains("hunter7"), "{text}");
}

#[test]
fn sources_and_packs_that_cannot_be_read_are_named_and_nothing_starts() {
    let kept = Kept::new(&json!({}));
    let (site, dir) = (&kept.site, kept.dir.path());
    std::fs::write(dir.join("broken.toml"), "[[rules]]\nid = \"x\"\nregex = '''(unclosed'''\n").unwrap();
    std::fs::write(dir.join("slow.toml"), "[[rules]]\nid = \"slow\"\nregex = '''((a{1,1000}){1,1000}){1,1000}'''\n")
        .unwrap();
    std::fs::write(dir.join("short"), "abc").unwrap();
    let cases = [
        (json!({ "registered": [{ "file": dir.join("none") }] }), "none"),
        (json!({ "registered": [{ "env": "WARDEN_TEST_NOT_THERE" }] }), "WARDEN_TEST_NOT_THERE"),
        (json!({ "registered": [{ "command": ["false"] }] }), "false"),
        (json!({ "registered": [{ "name": "short", "file": dir.join("short") }] }), "has 3 bytes"),
        (json!({ "registered": [{ "env": "A", "file": "B" }] }), "registered"),
        (json!({ "packs": [{ "file": dir.join("broken.toml") }] }), "broken.toml"),
        (json!({ "packs": [{ "file": dir.join("slow.toml") }] }), "slow"),
        (json!({ "results": { "odd/*": "shred" } }), "shred"),
    ];
    for (secrets, says) in cases {
        site.configure(&json!({}), &json!({ "secrets": secrets }));
        let output = site.run(&["serve"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{secrets}: {said}");
    }
}

#[test]
fn scan_tells_what_is_in_a_file_and_what_hid_it() {
    let kept = Kept::new(&json!({}));
    let site = &kept.site;
    let (code, said) = with_stdin(site, &["secrets", "scan"], &format!("{{\"a\": {{\"note\": \"{TOKEN}\"}}}}"));
    assert!(
        code == Some(2) && said.contains("github_personal_access_token") && said.contains("/a/note"),
        "{code:?} {said}"
    );
    assert!(!said.contains(TOKEN));
    let (code, said) = with_stdin(site, &["secrets", "scan"], "db_password = hunter7!xQ9");
    assert!(code == Some(4) && said.contains("suspicion"), "{code:?} {said}");
    let (code, _) = with_stdin(site, &["secrets", "scan"], "nothing here");
    assert_eq!(code, Some(0));
    std::fs::write(site.dir.join("warden.yaml"), "listen: [").unwrap();
    let (code, said) = with_stdin(site, &["secrets", "scan"], "nothing here");
    assert!(code == Some(3), "a broken configuration is no reason to look for less: {code:?} {said}");
}
