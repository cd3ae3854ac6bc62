//! The command line as people use it, and the gateway under bad conditions.

use crate::support::{INITIALIZE, Site, Worker, decisions, odd_server, refusal, verified, warden};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;
use warden_core::verdict::Verdict;

#[test]
fn the_demo_shows_every_verdict_as_json_lines() {
    let output = warden().args(["demo", "--once", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let members: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["id", "worker", "action", "resource", "verdict", "policies", "reason", "seq"]);
    }
    for verdict in ["allow", "escalate", "deny"] {
        assert!(lines.iter().any(|line| line["verdict"] == verdict), "{verdict}");
    }
    assert!(!lines.iter().any(|line| line.to_string().contains("ghp_")));
}

#[test]
fn the_demo_keeps_its_journal_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("demo");
    for _ in 0..2 {
        let output = warden().args(["demo", "--once", "--data-dir"]).arg(&data).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let verify = warden().args(["audit", "verify", "--data-dir"]).arg(&data).output().unwrap();
    assert!(String::from_utf8(verify.stdout).unwrap().starts_with("good: "));
    assert!(decisions(&data).iter().filter(|d| d.verdict == Verdict::Allow).count() >= 8);
}

#[test]
fn init_overwrites_nothing_and_says_what_is_next() {
    let dir = tempfile::tempdir().unwrap();
    let init = || warden().arg("init").arg(dir.path()).output().unwrap();
    let first = init();
    assert!(first.status.success());
    assert!(String::from_utf8(first.stdout).unwrap().contains("serve"));
    assert_eq!(init().status.code(), Some(2));
    let config = dir.path().join("warden.yaml");
    for command in
        [vec!["validate"], vec!["doctor"], vec!["policy", "check"], vec!["policy", "list"], vec!["tools", "list"]]
    {
        let output = warden().arg("--config").arg(&config).args(&command).output().unwrap();
        assert!(output.status.success(), "{command:?} {output:?}");
    }
}

#[test]
fn usage_and_input_errors_are_3_and_name_the_place() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(warden().arg("srve").output().unwrap().status.code(), Some(3));
    let missing = warden().args(["--config", "/nowhere/warden.yaml", "serve"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("warden init"));
    let file = dir.path().join("warden.yaml");
    std::fs::write(&file, "listen: 127.0.0.1:0\nserverz: {}\n").unwrap();
    let typo = warden().arg("--config").arg(&file).arg("validate").output().unwrap();
    let said = String::from_utf8(typo.stderr).unwrap();
    assert_eq!(typo.status.code(), Some(3));
    assert!(said.contains("serverz") && said.contains("warden.yaml"), "{said}");
}

#[test]
fn decide_answers_by_its_exit_code_and_records_nothing() {
    let site = Site::odd();
    let running = site.serve_classified();
    running.stop();
    let before = decisions(&site.data()).len();
    let decide = |text: &str| {
        let mut child = warden()
            .arg("--config")
            .arg(site.dir.join("warden.yaml"))
            .args(["decide", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap().status.code().unwrap()
    };
    assert_eq!(decide(r#"{"worker":"assistant","server":"odd","tool":"echo","arguments":{"text":"a"}}"#), 0);
    assert_eq!(decide(r#"{"worker":"assistant","server":"odd","tool":"echo","arguments":{}}"#), 2);
    assert_eq!(decide(r#"{"worker":"assistant","server":"odd","tool":"unheard_of","arguments":{}}"#), 4);
    assert_eq!(decide(r#"{"worker":"stranger","server":"odd","method":"tools/list"}"#), 2);
    assert_eq!(decide(r#"{"worker":"assistant","worker":"x"}"#), 3);
    assert_eq!(decide("nonsense"), 3);
    assert_eq!(decisions(&site.data()).len(), before);
}

#[tokio::test]
async fn a_changed_policy_folder_waits_until_it_is_applied() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    site.policies("@id(\"none\") forbid (principal, action, resource);");
    assert_eq!(worker.call("echo", json!({ "text": "a" })).await["result"]["content"][0]["text"], "a");
    let listed: Value = serde_json::from_str(&site.ok(&["policy", "list", "--json"])).unwrap();
    let pending = listed["pending"].as_str().unwrap().to_owned();
    assert_eq!(site.run(&["policy", "apply", "sha256:00000000"]).status.code(), Some(2));
    site.ok(&["policy", "apply", &pending]);
    assert_eq!(refusal(&worker.call("echo", json!({ "text": "a" })).await).0, "denied");
    site.policies("@id(\"typo\") permit (principal, action == Action::\"odd/ehco\", resource);");
    let check = site.run(&["policy", "check", "--error-format", "plain"]);
    assert_eq!(check.status.code(), Some(3));
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.starts_with("test.cedar:1:42: invalid:") && said.contains("odd/ehco"), "{said}");
    let listed: Value = serde_json::from_str(&site.ok(&["policy", "list", "--json"])).unwrap();
    assert_eq!(listed["problems"].as_array().unwrap().len(), 1);
    let digest = listed["pending"].as_str().unwrap().to_owned();
    assert_eq!(site.run(&["policy", "apply", &digest]).status.code(), Some(3), "what does not load is not applied");
    running.stop();
    let again = site.serve();
    let mut worker = Worker::new(site.port, "odd", &site.token());
    let (status, _) = worker.raw(INITIALIZE).await;
    assert_eq!(status, 403, "the applied copy decides after a restart, not the broken folder");
    worker.session = None;
    again.stop();
}

#[tokio::test]
async fn audit_shows_what_happened_with_and_without_a_gateway() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    worker.call("echo", json!({ "text": "a" })).await;
    let denied = worker.call("echo", json!({})).await;
    let id = refusal(&denied).1.to_owned();
    for round in 0..2 {
        let query = |args: &[&str]| {
            let output = site.ok(&[&["audit", "query", "--json"], args].concat());
            output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
        };
        for _ in 0..100 {
            if query(&["--verdict", "deny"]).len() == 1 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(query(&["--verdict", "deny"])[0]["id"], json!(id), "round {round}");
        assert_eq!(query(&["--tool", "odd/echo"]).len(), 2);
        assert_eq!(query(&["--worker", "assistant", "--verdict", "allow", "--limit", "1"])[0]["tool"], "echo");
        assert_eq!(query(&["--policy", "site/all", "--tool", "odd/echo"]).len(), 1);
        assert_eq!(query(&["--since", "2100-01-01T00:00:00Z"]).len(), 0);
        assert_eq!(query(&["--until", "2000-01-01T00:00:00Z"]).len(), 0);
        let shown = site.ok(&["audit", "show", &id]);
        assert!(shown.contains("argument_missing"), "{shown}");
        assert!(site.ok(&["audit", "tail", "-n", "3"]).lines().count() == 3);
        assert_eq!(site.run(&["audit", "show", "00000000-0000-7000-8000-000000000000"]).status.code(), Some(2));
        assert!(site.ok(&["audit", "verify"]).starts_with("good: "));
        if round == 0 {
            let pid = rustix::process::Pid::from_child(&running.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            while site.data().join("operator.sock").exists() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            // The lock is the process's; it ends right after its socket is gone.
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
    }
}

#[test]
fn two_gateways_on_one_folder_are_one_too_many() {
    let site = Site::odd();
    let _running = site.serve();
    let second = site.run(&["serve"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("in use by another Warden") && said.contains("--data-dir"), "{said}");
}

#[test]
fn a_damaged_journal_is_refused_by_file_and_byte() {
    let site = Site::odd();
    site.serve().stop();
    site.serve().stop();
    let segment = site.data().join("journal/00000000000000000000.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[64 + 40] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    for command in [["serve"].as_slice(), &["audit", "verify"]] {
        let output = site.run(command);
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("00000000000000000000.seg") && said.contains("byte 64") && said.contains("sequence number 0"),
            "{said}"
        );
    }
}

#[test]
fn a_shared_user_id_has_to_be_accepted_and_doctor_says_so() {
    let site = Site::odd();
    site.configure(&json!({}), &json!({ "same_uid": false }));
    let output = site.run(&["serve"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("same_uid"));
    assert_eq!(site.run(&["doctor"]).status.code(), Some(2));
}

#[tokio::test]
async fn x16_sigterm_finishes_what_is_in_flight() {
    let site = Site::odd();
    let running = site.serve_classified();
    let worker = site.worker().await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "wait", "arguments": { "seconds": 1 } } });
    let call = worker.raw(body.to_string());
    let stop = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    };
    let ((status, answer), ()) = tokio::join!(call, stop);
    assert_eq!((status, &answer["result"]["content"][0]["text"]), (200, &json!("waited")));
    let verified = verified(&site.data()).unwrap();
    assert_eq!(verified.unknown, 0);
}

#[test]
fn the_bridge_without_a_gateway_answers_every_request_with_an_error() {
    let site = Site::odd();
    let mut child = warden()
        .arg("--config")
        .arg(site.dir.join("warden.yaml"))
        .args(["mcp", "odd"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = format!("{INITIALIZE}\nnot json\n{{\"jsonrpc\":\"2.0\",\"id\":\"b\",\"method\":\"tools/list\"}}\n");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.iter().map(|a| &a["id"]).collect::<Vec<_>>(), [&json!(0), &json!(null), &json!("b")]);
    assert!(answers[0]["error"]["message"].as_str().unwrap().contains("warden serve"), "{answers:?}");
    assert_eq!(site.effects(), Vec::<String>::new());
}

#[test]
fn a_whole_gateway_over_stdio_keeps_a_log_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (data, effects) = (dir.path().join("own"), dir.path().join("effects"));
    let command = odd_server(&effects);
    let mut child = warden()
        .args(["mcp", "--name", "odd", "--data-dir"])
        .arg(&data)
        .arg("--")
        .args(command["command"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = format!(
        "{INITIALIZE}\n{}\n{}\n",
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a"}}}"#
    );
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Answers come in the order they are ready.
    let answer = answers.iter().find(|answer| answer["id"] == 1).unwrap();
    assert_eq!(refusal(answer).0, "held", "nobody has classified the tool: {answers:?}");
    assert!(decisions(&data).iter().any(|d| d.reason == "irreversible_effect" && d.worker == "local"));
    assert!(!effects.exists() || std::fs::read_to_string(effects).unwrap().is_empty());
}
