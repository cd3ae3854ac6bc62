//! Acknowledgements end to end: held at a door, decided by a person, run once, collected.

use crate::support::{Site, Worker, decisions, odd_server, records, refusal};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use warden_core::ack::AckEvent;
use warden_core::journal::record::Body;
use warden_core::verdict::Verdict;

/// Every call of a tool is held; everything else runs.
const HELD: &str = r#"
    @id("calls") permit (principal, action in Action::"call_tool", resource) when { context.acknowledged };
    @id("rest") permit (principal, action in [Action::"protocol", Action::"read_resource", Action::"write_state"], resource);
    @id("people") permit (principal is Operator, action == Action::"acknowledge", resource);
"#;

fn held_site() -> Site {
    let site = Site::odd();
    site.policies(HELD);
    site
}

fn configure(site: &Site, own_session: bool, more: &Value) {
    let mut server = odd_server(&site.dir.join("effects"));
    server["own_session"] = own_session.into();
    site.configure(&json!({ "odd": server }), more);
}

fn json_of(site: &Site, args: &[&str]) -> Value {
    let all: Vec<&str> = [args, &["--json"]].concat();
    serde_json::from_str(&site.ok(&all)).unwrap()
}

/// The exit code, and what was said.
fn said(site: &Site, args: &[&str]) -> (i32, String) {
    let output = site.run(args);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn events(site: &Site) -> Vec<AckEvent> {
    let event = |record: warden_core::journal::record::Record| match record.body {
        Body::Ack(change) => Some(change.event),
        _ => None,
    };
    records(&site.data()).into_iter().filter_map(event).collect()
}

async fn hold(worker: &mut Worker, marker: &str) -> String {
    let answer = worker.call("mark", json!({ "marker": marker })).await;
    assert_eq!(refusal(&answer).0, "held", "{answer}");
    refusal(&answer).1.to_owned()
}

async fn proposal(site: &Site, id: &str, wait: u64, token: &str) -> (u16, Value) {
    let url = format!("http://127.0.0.1:{}/v1/proposals/{id}?wait={wait}", site.port);
    let answer = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

async fn until(site: &Site, id: &str, status: &str) -> Value {
    for _ in 0..100 {
        let all = json_of(site, &["ack", "list", "--over"]);
        let of = |name: &str| all[name].as_array().unwrap().iter().find(|a| a["decision"] == id).cloned();
        if let Some(found) = of("held").or_else(|| of("over")).filter(|found| found["status"] == status) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} never was `{status}`: {}", json_of(site, &["ack", "list", "--over"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w05_what_was_held_before_a_kill_runs_once_with_its_arguments_when_its_worker_repeats_it() {
    let site = held_site();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let id = hold(&mut worker, "first").await;
    assert_eq!(site.effects(), Vec::<String>::new());
    running.kill();

    let running = site.serve();
    let shown = json_of(&site, &["ack", "show", &id]);
    assert_eq!(shown["arguments"], json!({ "marker": "first" }));
    assert_eq!((&shown["status"], &shown["runs"]), (&json!("held"), &json!("on_repeat")));
    assert_eq!(shown["may_acknowledge"], json!(["operator"]));
    let hash = shown["hash"].as_str().unwrap();
    let granted = json_of(&site, &["ack", "grant", &id, "--reason", "looks fine", "--hash", hash]);
    assert_eq!(granted["runs"], "on_repeat");
    assert_eq!(site.effects(), Vec::<String>::new(), "it waits for its worker");

    // Another session of the protocol, another id of the request, another order of nothing: the same call.
    let mut worker = site.worker().await;
    worker.call("mark", json!({ "marker": "other" })).await;
    let answer = worker.call("mark", json!({ "marker": "first" })).await;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    assert_eq!(site.effects(), ["mark \"first\""]);
    // Delivered once; then it is a new proposal.
    let again = hold(&mut worker, "first").await;
    assert_ne!(again, id);
    assert_eq!(site.effects().len(), 1);
    running.stop();
    let all = decisions(&site.data());
    let ran = all.iter().find(|d| d.acknowledged.is_some()).unwrap();
    assert_eq!((ran.verdict, ran.context.acknowledged), (Verdict::Allow, true));
    let by = ran.acknowledged.as_ref().unwrap();
    assert_eq!((by.operator.as_str(), by.held.as_ref().unwrap().as_str()), ("operator", id.as_str()));
    assert_eq!(ran.context.input, json!({ "marker": "first" }));
    assert!(all.iter().any(|d| d.action == "acknowledge" && d.verdict == Verdict::Allow), "{all:?}");
    assert_eq!(crate::support::verified(&site.data()).unwrap().held, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w05_in_a_session_of_its_own_it_runs_at_once_and_its_result_waits_and_is_given_once() {
    let site = held_site();
    configure(&site, true, &json!({}));
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let (by_id, by_repeat) = (hold(&mut worker, "a").await, hold(&mut worker, "b").await);
    for id in [&by_id, &by_repeat] {
        assert_eq!(json_of(&site, &["ack", "grant", id, "--reason", "r"])["runs"], "now");
        until(&site, id, "ran").await;
    }
    let mut effects = site.effects();
    effects.sort();
    assert_eq!(effects, ["mark \"a\"", "mark \"b\""]);
    // Only its own worker has it.
    let other = site.ok(&["token", "issue", "other"]);
    let other = other.split_whitespace().find(|word| word.starts_with("wt")).map_or(other.trim(), |word| word);
    assert_eq!(proposal(&site, &by_id, 0, other).await.0, 404);
    let (status, answer) = proposal(&site, &by_id, 5, &site.token()).await;
    assert_eq!((status, &answer["status"]), (200, &json!("done")), "{answer}");
    assert_eq!(answer["result"]["result"]["content"][0]["text"], "done", "{answer}");
    let (_, answer) = proposal(&site, &by_id, 0, &site.token()).await;
    assert!(answer.get("result").is_none(), "{answer}");
    // A result that waits survives a kill.
    running.kill();
    let running = site.serve();
    let mut worker = site.worker().await;
    let answer = worker.call("mark", json!({ "marker": "b" })).await;
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(2), &json!("done")), "{answer}");
    assert_eq!(site.effects().len(), 2);
    hold(&mut worker, "b").await;
    running.stop();
    let all = events(&site);
    let count = |event| all.iter().filter(|e| **e == event).count();
    assert_eq!((count(AckEvent::Granted), count(AckEvent::Ran), count(AckEvent::Collected)), (2, 2, 2), "{all:?}");
    let left: Vec<_> = std::fs::read_dir(site.data().join("keys/parked")).unwrap().collect();
    assert_eq!(left.len(), 1, "keys of what is over are gone: {left:?}");
}

/// The rule counts the run itself, and must not take its result away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w05_what_may_run_once_alone_is_answered_with_its_result_when_it_ran() {
    let site = held_site();
    site.policies(&format!(
        r#"{HELD} @id("start") permit (principal, action == Action::"start_session", resource);
        @id("once") forbid (principal, action == Action::"odd/mark", resource)
        when {{ context has session && context.session.facts.marks >= 1 }};"#
    ));
    configure(
        &site,
        true,
        &json!({ "apps": { "case": { "session_id_prefix": "CASE", "facts": { "marks": { "count": "odd/mark" } } } } }),
    );
    let running = site.serve_classified();
    let url = format!("http://127.0.0.1:{}/v1/sessions", site.port);
    let started = reqwest::Client::new().post(url).bearer_auth(site.token()).json(&json!({ "app": "case" }));
    let started: Value = started.send().await.unwrap().json().await.unwrap();
    let session = started["session"].as_str().unwrap_or_else(|| panic!("{started}"));
    let once = json!({ "marker": "a" });
    let mut worker = site.worker().await;
    worker.headers.push(("x-warden-session", session.to_owned()));
    let mut mark = async || worker.call("mark", once.clone()).await;
    let held = mark().await;
    let id = refusal(&held).1.to_owned();
    assert_eq!(json_of(&site, &["ack", "grant", &id, "--reason", "r"])["runs"], "now");
    until(&site, &id, "ran").await;
    let answer = mark().await;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    assert_eq!(refusal(&mark().await).0, "denied");
    assert_eq!(site.effects().len(), 1);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_46_a_no_is_a_no_and_whatever_is_no_yes_is_none() {
    let site = held_site();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let id = hold(&mut worker, "x").await;
    // A second time it is the same that is held.
    assert_eq!(hold(&mut worker, "x").await, id);
    let http = reqwest::Client::builder().unix_socket(site.data().join("operator.sock")).build().unwrap();
    let operator = std::fs::read_to_string(site.data().join("operator.token")).unwrap();
    for body in [
        json!({}),
        json!({ "reason": "r" }),
        json!({ "decision": "yes", "reason": "r" }),
        json!({ "decision": "grant" }),
        json!({ "decision": "grant", "reason": " " }),
        json!({ "decision": null, "reason": "r" }),
        json!({ "decision": "grant", "reason": "r", "approved": true }),
        json!({ "decision": "grant", "reason": "r", "hash": "k1:00" }),
    ] {
        let answer = http
            .post(format!("http://localhost/v1/acks/{id}"))
            .bearer_auth(operator.trim())
            .json(&body)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_client_error(), "{body}: {}", answer.status());
    }
    // A worker's token opens nothing here.
    let tried = http.post(format!("http://localhost/v1/acks/{id}")).bearer_auth(site.token());
    let tried = tried.json(&json!({ "decision": "grant", "reason": "r" })).send().await.unwrap();
    assert_eq!(tried.status(), 403);
    assert_eq!(said(&site, &["ack", "grant", "nothing", "--reason", "r"]).0, 2);
    assert_eq!(json_of(&site, &["ack", "show", &id])["status"], "held");

    site.ok(&["ack", "refuse", &id, "--reason", "not today"]);
    let answer = worker.call("mark", json!({ "marker": "x" })).await;
    assert_eq!(refusal(&answer).0, "denied", "{answer}");
    assert!(answer.to_string().contains("a person has refused this"), "{answer}");
    let (code, text) = said(&site, &["ack", "grant", &id, "--reason", "r"]);
    assert!(code == 2 && text.contains("acknowledgement_refused"), "{text}");
    assert_eq!(proposal(&site, &id, 0, &site.token()).await.1["status"], "refused");
    // Granted, and taken back before its worker came.
    let id = hold(&mut worker, "y").await;
    site.ok(&["ack", "grant", &id, "--reason", "r"]);
    let (code, text) = said(&site, &["ack", "grant", &id, "--reason", "r"]);
    assert!(code == 2 && text.contains("granted before, by `operator`"), "{text}");
    site.ok(&["ack", "refuse", &id, "--reason", "on second thoughts"]);
    assert_eq!(refusal(&worker.call("mark", json!({ "marker": "y" })).await).0, "denied");
    assert_eq!(site.effects(), Vec::<String>::new());
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w05_nobody_acknowledges_for_a_worker_of_their_own_and_policy_says_who_else() {
    let site = held_site();
    site.policies(&HELD.replace(
        r#"permit (principal is Operator, action == Action::"acknowledge", resource)"#,
        r#"permit (principal is Operator, action == Action::"acknowledge", resource in Server::"odd")
        when { [Operator::"operator", Operator::"assistant"].contains(principal) }"#,
    ));
    configure(&site, false, &json!({ "workers": { "assistant": { "owner": "operator" }, "other": {} } }));
    let running = site.serve_classified();
    let (own, third) =
        (site.ok(&["operator", "add", "assistant", "--json"]), site.ok(&["operator", "add", "carol", "--json"]));
    let token = |text: &str| {
        let said: Value = serde_json::from_str(text).unwrap();
        said["token"].as_str().unwrap().to_owned()
    };
    let mut worker = site.worker().await;
    let id = hold(&mut worker, "x").await;
    assert_eq!(json_of(&site, &["ack", "show", &id])["may_acknowledge"], json!([]));
    let (code, text) = said(&site, &["ack", "grant", &id, "--reason", "r"]);
    assert!(code == 2 && text.contains("own_proposal"), "the owner: {text}");
    let http = reqwest::Client::builder().unix_socket(site.data().join("operator.sock")).build().unwrap();
    for (token, reason) in [(token(&own), "own_proposal"), (token(&third), "not_on_allowlist")] {
        let asked = http.post(format!("http://localhost/v1/acks/{id}")).bearer_auth(token);
        let answer = asked.json(&json!({ "decision": "grant", "reason": "r" })).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert_eq!((status, &body["error"]["code"]), (403, &json!(reason)), "{body}");
    }
    // Each try stands in the log.
    running.stop();
    let tried: Vec<_> = decisions(&site.data()).into_iter().filter(|d| d.action == "acknowledge").collect();
    assert_eq!(tried.len(), 3);
    assert!(tried.iter().all(|d| d.verdict == Verdict::Deny && d.worker == "assistant"));
    assert_eq!(site.effects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_void_when_the_tool_has_changed_or_policy_does_not_allow_it_any_more() {
    let site = held_site();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let by_tool = hold(&mut worker, "x").await;
    let by_policy = refusal(&worker.call("echo", json!({ "text": "a" })).await).1.to_owned();
    let later = refusal(&worker.call("echo", json!({ "text": "b" })).await).1.to_owned();
    site.ok(&["ack", "grant", &later, "--reason", "r"]);
    // Another effect changes what policies say, and `ack show` says that something has changed.
    let status = |site: &Site, id: &str| json_of(site, &["ack", "show", id]);
    std::fs::write(
        site.dir.join("policies/more.cedar"),
        r#"@id("no_echo") forbid (principal, action == Action::"odd/echo", resource);"#,
    )
    .unwrap();
    let pending = json_of(&site, &["policy", "list"])["pending"].as_str().unwrap().to_owned();
    site.ok(&["policy", "apply", &pending]);
    let shown = status(&site, &by_policy);
    assert_eq!(shown["digests"]["changed"], json!(["policy"]), "{shown}");
    assert_eq!(shown["verdict_now"]["verdict"], "deny");
    let (code, text) = said(&site, &["ack", "grant", &by_policy, "--reason", "r"]);
    assert!(code == 2 && text.contains("cannot be granted any more"), "{text}");
    assert_eq!(status(&site, &by_policy)["status"], "void");
    // Granted before, and decided again when it is to run.
    let answer = worker.call("echo", json!({ "text": "b" })).await;
    assert_eq!(refusal(&answer).0, "denied", "{answer}");
    let _ = later;
    // The tool is another one.
    running.stop();
    let mut server = odd_server(&site.dir.join("effects"));
    let mut command = server["command"].as_array().unwrap().clone();
    command.push("changed".into());
    server["command"] = command.into();
    site.configure(&json!({ "odd": server }), &json!({}));
    let catalogue = site.data().join("catalogue.json");
    let text = std::fs::read_to_string(&catalogue).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["servers"]["odd"]["mark"]["hash"] = "sha256:00".into();
    std::fs::write(&catalogue, value.to_string()).unwrap();
    let running = site.serve();
    let (code, text) = said(&site, &["ack", "grant", &by_tool, "--reason", "r"]);
    assert!(code == 2 && text.contains("tool_changed_since"), "{text}");
    assert_eq!(status(&site, &by_tool)["status"], "void");
    assert!(site.effects().is_empty());
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_acknowledges_what_is_alike_so_often_and_not_longer() {
    let site = held_site();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let id = hold(&mut worker, "a").await;
    for bad in [
        "context.input.marker == 1",
        "context.nothing",
        "true) || (true",
        "",
        "true; permit (principal, action, resource)",
    ] {
        let (code, text) = said(&site, &["ack", "grant", &id, "--reason", "r", "--for", "1h", "--when", bad]);
        assert!(code == 3 && text.contains("condition"), "{bad}: {code} {text}");
    }
    let (code, _) = said(&site, &["ack", "grant", &id, "--reason", "r", "--for", "1h", "--same", "nothing"]);
    assert_eq!(code, 3);
    let when = r#"context.input.marker like "ok-*""#;
    let granted =
        json_of(&site, &["ack", "grant", &id, "--reason", "r", "--for", "1h", "--times", "2", "--when", when]);
    let policy = granted["scope"]["policy"].as_str().unwrap();
    assert!(policy.contains("Worker::\"assistant\"") && policy.contains(when), "{policy}");
    for marker in ["ok-1", "ok-2"] {
        let answer = worker.call("mark", json!({ "marker": marker })).await;
        assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    }
    // Used up, and what is not alike never was in it.
    hold(&mut worker, "ok-3").await;
    hold(&mut worker, "no").await;
    // The same arguments, any number of times; taken back.
    let id = hold(&mut worker, "same").await;
    let granted = json_of(&site, &["ack", "grant", &id, "--reason", "r", "--for", "30m"]);
    let scope = granted["scope"]["id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(worker.call("mark", json!({ "marker": "same" })).await["result"]["content"][0]["text"], "done");
    }
    let listed = site.ok(&["ack", "list"]);
    assert!(listed.contains("acknowledged in advance") && listed.contains("any number of times"), "{listed}");
    site.ok(&["ack", "revoke", &scope, "--reason", "enough"]);
    running.kill();
    let running = site.serve();
    let mut worker = site.worker().await;
    // The first of the three was the held one itself; now nothing is left.
    hold(&mut worker, "same").await;
    running.stop();
    let scoped =
        decisions(&site.data()).into_iter().filter(|d| d.acknowledged.as_ref().is_some_and(|a| a.scope.is_some()));
    assert_eq!(scoped.count(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_waits_hears_of_it_and_gets_its_answer_in_the_same_request() {
    let site = held_site();
    configure(&site, false, &json!({ "acknowledgements": { "wait_s": 30 }, "limits": { "call_timeout_s": 5 } }));
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    worker.accept = "application/json, text/event-stream";
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "mark",
        "arguments": { "marker": "w" }, "_meta": { "progressToken": "p" } } });
    let mut asked = worker.send(body.to_string().into_bytes()).await.unwrap();
    let mut text = String::new();
    let mut id = None;
    while let Some(chunk) = asked.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&chunk));
        if id.is_none() && text.contains("notifications/progress") {
            let held = json_of(&site, &["ack", "list"])["held"][0]["decision"].as_str().unwrap().to_owned();
            assert!(text.contains(&held) && text.contains("\"progressToken\":\"p\""), "{text}");
            site.ok(&["ack", "grant", &held, "--reason", "r"]);
            id = Some(held);
        }
    }
    assert!(id.is_some() && text.contains("\"id\": 7") && text.contains("done"), "{text}");
    assert_eq!(site.effects(), ["mark \"w\""]);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_its_worker_takes_back_while_it_waits_does_not_run() {
    let site = held_site();
    configure(&site, false, &json!({ "acknowledgements": { "wait_s": 30 } }));
    let running = site.serve_classified();
    let worker = site.worker().await;
    let body = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": { "name": "mark",
        "arguments": { "marker": "gone" } } });
    let asked = worker.send(body.to_string().into_bytes());
    let (answer, id) = tokio::join!(asked, async {
        let mut held = None;
        while held.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            held = json_of(&site, &["ack", "list"])["held"][0]["decision"].as_str().map(str::to_owned);
        }
        let gone = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 9 } });
        worker.send(gone.to_string().into_bytes()).await.unwrap();
        held.unwrap()
    });
    // It is told at once that it is held, and a yes waits for the next time.
    assert!(answer.unwrap().text().await.unwrap().contains("held"));
    site.ok(&["ack", "grant", &id, "--reason", "r"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(site.effects(), Vec::<String>::new());
    running.stop();
}

/// A request of the modern generation.
async fn modern(site: &Site, id: u64, marker: &str, state: Option<&str>) -> Value {
    let mut params = json!({ "name": "mark", "arguments": { "marker": marker }, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" } } });
    if let Some(state) = state {
        params["requestState"] = state.into();
    }
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    let mut worker = Worker::new(site.port, "odd", &site.token());
    worker.headers = vec![
        ("mcp-protocol-version", "2026-07-28".into()),
        ("mcp-method", "tools/call".into()),
        ("mcp-name", "mark".into()),
    ];
    worker.accept = "application/json, text/event-stream";
    worker.raw(body.to_string()).await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modern_client_comes_back_with_a_state_that_nobody_else_can_make_or_use() {
    let site = held_site();
    let running = site.serve_classified();
    let asked = modern(&site, 1, "m", None).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let state = asked["result"]["requestState"].as_str().unwrap().to_owned();
    let id = asked["result"]["_meta"]["warden/decision"].as_str().unwrap().to_owned();
    assert!(asked["result"].get("inputRequests").is_none(), "no question for the client: {asked}");
    // Still held: the same state, and no second proposal.
    let again = modern(&site, 2, "m", Some(&state)).await;
    assert_eq!((&again["id"], &again["result"]["requestState"]), (&json!(2), &json!(state)), "{again}");
    // With other arguments, a made-up state, and another one's.
    for (marker, state) in [("n", state.as_str()), ("m", "warden.held.made.up"), ("m", "warden.held.")] {
        let answer = modern(&site, 3, marker, Some(state)).await;
        assert_eq!(refusal(&answer).0, "denied", "{answer}");
    }
    site.ok(&["ack", "grant", &id, "--reason", "r"]);
    until(&site, &id, "ran").await;
    let answer = modern(&site, 4, "m", Some(&state)).await;
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(4), &json!("done")), "{answer}");
    let over = modern(&site, 5, "m", Some(&state)).await;
    assert_ne!(over["result"]["content"][0]["text"], "done", "delivered once: {over}");
    assert_eq!(site.effects(), ["mark \"m\""]);
    running.stop();
    let all = decisions(&site.data());
    let calls = all.iter().filter(|d| d.action == "odd/mark");
    let barred = calls.filter(|d| d.reason == "not_the_held_call").count();
    assert_eq!(barred, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_enforces_is_answered_with_yes_once_it_was_acknowledged_and_once_only() {
    let site = held_site();
    let running = site.serve_classified();
    let ask = || async {
        let question = json!({ "subject": { "type": "Worker", "id": "assistant" }, "action": { "name": "odd/mark" },
            "resource": { "type": "Tool", "id": "odd/mark" }, "context": { "marker": "q" } });
        let url = format!("http://127.0.0.1:{}/access/v1/evaluation", site.port);
        let answer = reqwest::Client::new().post(url).bearer_auth(site.token()).json(&question).send().await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    let held = ask().await;
    assert_eq!((&held["decision"], &held["context"]["verdict"]), (&json!(false), &json!("escalate")), "{held}");
    let id = held["context"]["id"].as_str().unwrap();
    assert_eq!(ask().await["context"]["id"], id, "it is held once");
    site.ok(&["ack", "show", id]);
    site.ok(&["ack", "grant", id, "--reason", "r"]);
    assert_eq!(ask().await["decision"], true);
    let then = ask().await;
    assert_eq!(then["decision"], false, "{then}");
    assert_ne!(then["context"]["id"], id);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_told_and_what_a_worker_wrote_reaches_a_command_on_stdin_alone() {
    let site = held_site();
    let hook = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = hook.local_addr().unwrap().port();
    let posted = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut all = Vec::new();
        while all.len() < 2 {
            let (mut stream, _) = hook.accept().await.unwrap();
            let mut text = Vec::new();
            let mut part = [0; 8192];
            while !String::from_utf8_lossy(&text).contains("\"show\"") {
                let n = stream.read(&mut part).await.unwrap();
                text.extend_from_slice(&part[..n]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
            all.push(String::from_utf8_lossy(&text).into_owned());
        }
        all
    });
    let script = "import json, os, sys; notice = sys.stdin.read(); open(sys.argv[1], 'a').write(json.dumps([sys.argv[2:], dict(os.environ), json.loads(notice)]) + '\\n')";
    let told = site.dir.join("told");
    configure(
        &site,
        false,
        &json!({ "acknowledgements": { "wait_s": 0, "webhook": format!("http://127.0.0.1:{port}/hook"),
            "headers": { "x-key": "k" }, "command": ["python3", "-c", script, told, "fixed"] } }),
    );
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let id = hold(&mut worker, "$(touch /tmp/never); `id`").await;
    site.ok(&["ack", "refuse", &id, "--reason", "no"]);
    let posts = tokio::time::timeout(Duration::from_secs(20), posted).await.unwrap().unwrap();
    assert!(
        posts.iter().any(|p| p.contains("\"event\":\"held\"") && p.contains("x-key: k") && p.contains(&id)),
        "{posts:?}"
    );
    let lines = || std::fs::read_to_string(&told).unwrap_or_default();
    for _ in 0..200 {
        if lines().lines().count() == 2 && events(&site).contains(&AckEvent::Told) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for line in lines().lines() {
        let [arguments, environment, notice] = serde_json::from_str::<[Value; 3]>(line).unwrap();
        assert_eq!(arguments, json!(["fixed"]));
        assert!(!environment.to_string().contains("never"), "{environment}");
        assert_eq!(notice["held"]["decision"], json!(id), "{notice}");
    }
    assert_eq!(lines().lines().count(), 2, "held, and refused");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_doors_say_accepted_and_where_to_look() {
    let site = held_site();
    site.policies(&HELD.replace(", Action::\"write_state\"", "").replace(
        "@id(\"people\")",
        "@id(\"states\") permit (principal, action == Action::\"write_state\", resource) when { context.acknowledged }; @id(\"people\")",
    ));
    let running = site.serve_classified();
    let base = format!("http://127.0.0.1:{}", site.port);
    let http = reqwest::Client::new();
    let task: Value = {
        let opened = http.post(format!("{base}/v1/tasks")).bearer_auth(site.token()).json(&json!({}));
        opened.send().await.unwrap().json().await.unwrap()
    };
    let task = task["task"].as_str().or(task["id"].as_str()).unwrap().to_owned();
    let write = |note: u32| {
        let (base, http, task, token) = (base.clone(), http.clone(), task.clone(), site.token());
        async move {
            let url = format!("{base}/v1/tasks/{task}/state");
            let sent = http.put(url).bearer_auth(token).json(&json!({ "note": note })).send().await.unwrap();
            let place = sent.headers().get("location").map(|place| place.to_str().unwrap().to_owned());
            (sent.status().as_u16(), place)
        }
    };
    let (status, place) = write(1).await;
    assert_eq!(status, 202);
    let id = place.unwrap().rsplit('/').next().unwrap().to_owned();
    assert_eq!(proposal(&site, &id, 0, &site.token()).await.1["status"], "held");
    site.ok(&["ack", "grant", &id, "--reason", "r"]);
    assert_eq!(proposal(&site, &id, 5, &site.token()).await.1["status"], "granted");
    assert_eq!(write(1).await.0, 200);
    assert_eq!(write(2).await.0, 202, "another one");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w05_a_scope_runs_nothing_twice_and_lifts_nothing_that_is_looked_at_each_time() {
    let site = held_site();
    configure(&site, true, &json!({}));
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    // Granted at once and in advance: the repeat collects what ran, and does not run it again.
    let id = hold(&mut worker, "a").await;
    site.ok(&["ack", "grant", &id, "--reason", "r", "--for", "1h"]);
    until(&site, &id, "ran").await;
    assert_eq!(worker.call("mark", json!({ "marker": "a" })).await["result"]["content"][0]["text"], "done");
    assert_eq!(site.effects(), ["mark \"a\""]);
    assert_eq!(worker.call("mark", json!({ "marker": "a" })).await["result"]["content"][0]["text"], "done");
    assert_eq!(site.effects().len(), 2, "the next one is the scope's");
    // What waits and is covered by a scope runs by it, and is not held any more.
    let waits = hold(&mut worker, "b1").await;
    let other = hold(&mut worker, "b2").await;
    site.ok(&["ack", "grant", &other, "--reason", "r", "--for", "1h", "--when", "context.input.marker like \"b*\""]);
    until(&site, &other, "ran").await;
    assert_eq!(worker.call("mark", json!({ "marker": "b1" })).await["result"]["content"][0]["text"], "done");
    assert_eq!(said(&site, &["ack", "grant", &waits, "--reason", "r"]).0, 2, "it ran");
    assert_eq!(site.effects().iter().filter(|effect| effect.contains("b1")).count(), 1);
    // What looks like a secret is a person's each time, in a scope or not.
    let suspicious = format!("b password = {}", "Kx7mQ2pV9tLw4Rz8");
    let answer = worker.call("mark", json!({ "marker": suspicious })).await;
    assert_ne!(refusal(&answer).0, "none", "{answer}");
    // A tool that is classified otherwise is another tool.
    site.ok(&["tools", "classify", "odd/mark", "irreversible"]);
    hold(&mut worker, "b3").await;
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_of_a_state_is_written_alone_or_not_at_all() {
    let site = held_site();
    site.policies(&HELD.replace(", Action::\"write_state\"", "").replace(
        "@id(\"people\")",
        "@id(\"states\") permit (principal, action == Action::\"write_state\", resource) when { context.input.key != \"zz\" && context.acknowledged }; @id(\"people\")",
    ));
    let running = site.serve_classified();
    let (base, http) = (format!("http://127.0.0.1:{}", site.port), reqwest::Client::new());
    let opened = http.post(format!("{base}/v1/tasks")).bearer_auth(site.token()).json(&json!({}));
    let task: Value = opened.send().await.unwrap().json().await.unwrap();
    let task = task["task"].as_str().or(task["id"].as_str()).unwrap().to_owned();
    let url = format!("{base}/v1/tasks/{task}/state");
    for _ in 0..2 {
        let sent = http.put(&url).bearer_auth(site.token()).json(&json!({ "aa": 1, "zz": 2 })).send().await.unwrap();
        assert_eq!(sent.status(), 403);
        assert!(sent.text().await.unwrap().contains("held_with_others"));
    }
    assert_eq!(json_of(&site, &["ack", "list"])["held"], json!([]));
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_of_keys_is_gone_with_the_next_start() {
    let site = held_site();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let id = hold(&mut worker, "x").await;
    running.kill();
    let keys = site.data().join("keys/parked");
    std::fs::write(keys.join("01a20125-0000-7000-8000-000000000000.key"), "00").unwrap();
    std::fs::write(keys.join("01a20125-0000-7000-8000-000000000000.result"), "{}").unwrap();
    let running = site.serve();
    let left: Vec<String> =
        std::fs::read_dir(&keys).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(left, [format!("{id}.key")]);
    running.stop();
}

#[test]
fn held_arguments_are_nowhere_in_the_data_folder_in_the_clear() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let site = held_site();
    let text = site.dir.join("warden.yaml");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&text).unwrap()).unwrap();
    config["journal"]["levels"] = json!({ "*": "metadata" });
    std::fs::write(&text, config.to_string()).unwrap();
    let running = site.serve_classified();
    runtime.block_on(async {
        let mut worker = site.worker().await;
        let id = hold(&mut worker, "unmistakable-argument").await;
        assert_eq!(json_of(&site, &["ack", "show", &id])["arguments"]["marker"], "unmistakable-argument");
    });
    running.stop();
    let mut open = vec![site.data()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            assert!(!holds(&bytes, b"unmistakable-argument"), "{}", Path::new(&path).display());
        }
    }
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
