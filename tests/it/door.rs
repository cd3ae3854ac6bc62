//! The MCP door: what passes, what does not, and what bad input comes to.

use crate::support::{INITIALIZE, Site, Worker, decisions, records, refusal, verified};
use serde_json::{Value, json};
use warden_core::journal::record::Body;
use warden_core::outcome::{Happened, Lost};
use warden_core::verdict::Verdict;

fn outcomes(site: &Site) -> Vec<(Happened, Option<Lost>)> {
    let outcome = |record: warden_core::journal::record::Record| match record.body {
        Body::Outcome(outcome) => Some((outcome.happened, outcome.lost)),
        _ => None,
    };
    records(&site.data()).into_iter().filter_map(outcome).collect()
}

#[tokio::test]
async fn w01_an_allowed_call_passes_untouched_and_is_recorded_before_and_after() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let answer = worker.call("echo", json!({ "text": "héllo" })).await;
    assert_eq!(answer["result"]["content"][0]["text"], "héllo");
    assert_eq!(answer["result"]["x-vendor"], json!({ "kept": null }));
    running.stop();
    let last = decisions(&site.data()).pop().unwrap();
    assert_eq!((last.verdict, last.action.as_str(), last.reason.as_str()), (Verdict::Allow, "odd/echo", "allowed"));
    assert_eq!(last.context.input, json!({ "text": "héllo" }));
    assert_eq!(last.policies, ["site/all"]);
    assert!(outcomes(&site).contains(&(Happened::Done, None)));
}

#[tokio::test]
async fn unlisted_risky_and_secret_calls_are_refused_each_in_its_way() {
    let site = Site::odd();
    let running = site.serve_classified();
    site.ok(&["tools", "classify", "odd/die", "irreversible"]);
    let mut worker = site.worker().await;
    let unlisted = worker.call("format_disk", json!({})).await;
    assert_eq!(refusal(&unlisted).0, "held", "permit-all permits it once acknowledged");
    let risky = worker.call("die", json!({})).await;
    assert_eq!(refusal(&risky).0, "held");
    let token = format!("ghp_{}", "aB3dE5gH7j".repeat(4).chars().take(36).collect::<String>());
    let secret = worker.call("echo", json!({ "text": token })).await;
    assert_eq!(refusal(&secret).0, "denied");
    assert_eq!(site.effects(), Vec::<String>::new(), "nothing was forwarded");
    running.stop();
    let found = decisions(&site.data());
    let of = |answer: &Value| found.iter().find(|d| d.id.as_str() == refusal(answer).1).unwrap();
    assert_eq!(of(&unlisted).reason, "production_effect");
    assert_eq!(of(&risky).reason, "irreversible_effect");
    assert!(of(&risky).sealed.is_some());
    assert_eq!(
        (of(&secret).reason.as_str(), of(&secret).policies.as_slice()),
        ("secret_found", &["charter/no_secret".to_owned()][..])
    );
}

#[tokio::test]
async fn bad_input_is_a_clear_protocol_error_and_nothing_is_forwarded() {
    let site = Site::odd();
    let _running = site.serve_classified();
    let worker = site.worker().await;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{}1{}}}}}"#,
        r#"{"a":"#.repeat(70),
        "}".repeat(70)
    );
    for (body, code, says) in [
        (br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#.to_vec(), -32600, "batch"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a","text":"b"}}}"#.to_vec(), -32600, "/params/arguments/text"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","Name":"die"}}"#.to_vec(), -32602, "not known"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#.to_vec(), -32602, "params.name"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":"x"}}"#.to_vec(), -32602, "params.arguments"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}".to_vec(), -32700, "UTF-8"),
        (deep.into_bytes(), -32600, "deeper"),
        (b"{".to_vec(), -32700, "JSON"),
        (b"{}".to_vec(), -32600, "jsonrpc"),
    ] {
        let (status, answer) = worker.raw(body).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{answer} lacks {says}");
    }
    let huge = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{}"}}}}}}"#,
        "x".repeat(5 << 20)
    );
    assert_eq!(worker.raw(huge).await.0, 413);
    assert_eq!(site.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn arguments_that_the_schema_does_not_know_are_denied_and_recorded() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    for (tool, arguments, reason) in [
        ("echo", r#"{"text":"a","more":1}"#, "argument_undeclared"),
        ("echo", r#"{}"#, "argument_missing"),
        ("echo", r#"{"text":1}"#, "argument_wrong_type"),
        ("number", r#"{"n":9223372036854775808}"#, "argument_out_of_range"),
        ("number", r#"{"n":1,"opt_f":0.12345}"#, "argument_out_of_range"),
        ("number", r#"{"n":1.5}"#, "argument_out_of_range"),
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        );
        let (_, answer) = worker.raw(body).await;
        assert_eq!(refusal(&answer).0, "denied", "{arguments} {answer}");
        let last = decisions(&site.data()).into_iter().find(|d| d.id.as_str() == refusal(&answer).1).unwrap();
        assert_eq!(last.reason, reason, "{arguments}");
    }
    let answer = worker.call("number", json!({ "n": 3, "opt_f": 0.5 })).await;
    assert_eq!(answer["result"]["isError"], Value::Null, "{answer}");
    let unseen = worker.call("free", json!({ "opt_data": { "any": 1 } })).await;
    assert_eq!(refusal(&unseen).0, "held", "what policy cannot see never runs unattended");
    assert_eq!(site.effects(), ["number \"\""]);
    running.stop();
}

#[tokio::test]
async fn a_server_that_dies_babbles_or_is_silent_hangs_nobody_and_is_unknown() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    for (tool, says) in [("garbage", "unreadable"), ("never", "in time"), ("die", "gone")] {
        let answer = worker.call(tool, json!({})).await;
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.contains(says) && text.contains("not known"), "{tool}: {answer}");
    }
    let (status, _) = worker.raw(r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#).await;
    assert_eq!(status, 404, "the connection ended with its server");
    worker.session = None;
    worker.open().await;
    assert_eq!(worker.call("echo", json!({ "text": "again" })).await["result"]["content"][0]["text"], "again");
    running.stop();
    let lost: Vec<_> = outcomes(&site)
        .into_iter()
        .filter_map(|(happened, lost)| (happened == Happened::Unknown).then_some(lost?))
        .collect();
    assert_eq!(lost, [Lost::Garbled, Lost::TimedOut, Lost::Gone]);
    assert_eq!(site.effects().len(), 4, "each was forwarded once");
}

#[tokio::test]
async fn w04_a_secret_in_a_result_reaches_nobody() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let answer = worker.call("leak", json!({})).await;
    assert_eq!(refusal(&answer).0, "withheld");
    assert!(!answer.to_string().contains("ghp_"), "{answer}");
    let failed = worker.call("fail", json!({})).await;
    assert_eq!(failed["result"]["content"][0]["text"], "it failed");
    running.stop();
    let kinds: Vec<_> = outcomes(&site).into_iter().map(|(happened, _)| happened).collect();
    assert!(kinds.contains(&Happened::Withheld) && kinds.contains(&Happened::Failed), "{kinds:?}");
}

#[tokio::test]
async fn x09_a_canary_in_every_field_is_in_no_file_no_log_and_no_answer() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let canary = format!("ghp_{}", "zZ9yY8xX7w".repeat(4).chars().take(36).collect::<String>());
    let mut answers = Vec::new();
    answers.push(worker.call("echo", json!({ "text": format!("a {canary} b") })).await);
    answers.push(worker.call("free", json!({ "opt_data": { canary.clone(): canary } })).await);
    answers.push(worker.call(&canary, json!({})).await);
    answers.push(worker.request(&canary, json!({})).await);
    answers.push(worker.request("ping", json!({ "_meta": { "x": canary } })).await);
    answers.push(worker.request("resources/read", json!({ "uri": format!("file:///{canary}") })).await);
    worker
        .raw(
            json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "message": canary } })
                .to_string(),
        )
        .await;
    answers.push(worker.raw(json!({ "jsonrpc": "2.0", "id": canary, "method": "ping" }).to_string()).await.1);
    answers.pop();
    running.stop();
    for answer in answers {
        assert!(!answer.to_string().contains(&canary), "{answer}");
    }
    let mut files = vec![site.dir.clone()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(canary.len()).any(|w| w == canary.as_bytes()), "{}", path.display());
        }
    }
    assert_eq!(site.effects(), Vec::<String>::new());
    assert!(
        decisions(&site.data())
            .iter()
            .filter(|d| d.reason == "secret_found" || !d.context.secret_findings.is_empty())
            .count()
            >= 6
    );
}

#[tokio::test]
async fn methods_nobody_knows_are_denied_in_both_directions() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let answer = worker.request("tools/destroy", json!({})).await;
    assert_eq!(answer["error"]["code"], -32601, "{answer}");
    let answer = worker.call("ask", json!({ "method": "shell/run" })).await;
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("-32601"), "{answer}");
    running.stop();
    let unknown = decisions(&site.data()).into_iter().filter(|d| d.reason == "unknown_method").count();
    assert_eq!(unknown, 2);
}

#[tokio::test]
async fn what_a_server_asks_of_a_worker_is_a_proposal_too() {
    let site = Site::odd();
    site.policies("@id(\"tools\") permit (principal, action in [Action::\"call_tool\", Action::\"protocol\", Action::\"list_roots\"], resource);");
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let denied = worker.call("ask", json!({ "method": "sampling/createMessage" })).await;
    assert!(denied["result"]["content"][0]["text"].as_str().unwrap().contains("denied"), "{denied}");
    // The worker listens, and answers what it is asked.
    let mut asked = worker
        .http
        .get(&worker.url)
        .bearer_auth(&worker.token)
        .header("mcp-session-id", worker.session.clone().unwrap())
        .send()
        .await
        .unwrap();
    let answering = tokio::spawn({
        let (http, url, token, session) =
            (worker.http.clone(), worker.url.clone(), worker.token.clone(), worker.session.clone().unwrap());
        async move {
            let event = String::from_utf8(asked.chunk().await.unwrap().unwrap().to_vec()).unwrap();
            assert!(event.contains("roots/list"), "{event}");
            let answer = r#"{"jsonrpc":"2.0","id":"s1","result":{"roots":[{"uri":"file:///srv"}]}}"#;
            http.post(url)
                .bearer_auth(token)
                .header("mcp-session-id", session)
                .header("content-type", "application/json")
                .body(answer)
                .send()
                .await
                .unwrap();
        }
    });
    let allowed = worker.call("ask", json!({ "method": "roots/list" })).await;
    answering.await.unwrap();
    assert!(allowed["result"]["content"][0]["text"].as_str().unwrap().contains("file:///srv"), "{allowed}");
    running.stop();
    let actions: Vec<_> = decisions(&site.data()).into_iter().map(|d| (d.action, d.verdict)).collect();
    assert!(
        actions.contains(&("sample".into(), Verdict::Deny)) && actions.contains(&("list_roots".into(), Verdict::Allow)),
        "{actions:?}"
    );
}

#[tokio::test]
async fn a_list_shows_what_could_be_called_and_nothing_else() {
    let site = Site::odd();
    site.policies("@id(\"connect\") permit (principal, action in Action::\"protocol\", resource);\n@id(\"echo\") permit (principal, action == Action::\"odd/echo\", resource) when { context.input.text like \"a*\" };\n@id(\"mark\") permit (principal, action == Action::\"odd/mark\", resource);\n@id(\"no_mark\") forbid (principal, action == Action::\"odd/mark\", resource);");
    let _running = site.serve_classified();
    let mut worker = site.worker().await;
    let answer = worker.request("tools/list", json!({})).await;
    let names: Vec<_> =
        answer["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["echo"]);
    assert_eq!(worker.call("echo", json!({ "text": "abc" })).await["result"]["content"][0]["text"], "abc");
    assert_eq!(refusal(&worker.call("echo", json!({ "text": "xyz" })).await).0, "denied");
}

#[tokio::test]
async fn a_changed_definition_is_hidden_until_an_operator_accepts_it() {
    let site = Site::odd();
    let running = site.serve_classified();
    running.stop();
    let mut command = crate::support::odd_server(&site.dir.join("effects"));
    command["command"].as_array_mut().unwrap().push("changed".into());
    site.configure(&json!({ "odd": command }), &json!({}));
    let _running = site.serve();
    let mut worker = site.worker().await;
    let listed = |answer: &Value| {
        answer["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = worker.request("tools/list", json!({})).await;
    assert!(!listed(&before).contains(&"echo".to_owned()), "{before}");
    // The comparison is made beside the answer.
    let shown = |site: &Site| site.ok(&["tools", "list"]);
    for _ in 0..200 {
        if shown(&site).contains("has changed") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Known by name, it is held: the definition that was looked at is not the one that would run.
    let held = worker.call("echo", json!({ "text": "a" })).await;
    assert!(held.to_string().contains("tool_changed") || held.to_string().contains("definition"), "{held}");
    assert!(!site.effects().iter().any(|line| line.starts_with("echo")));
    // Classifying says nothing of a definition that nobody has looked at.
    site.ok(&["tools", "classify", "odd/echo", "read", "--path", "text"]);
    assert!(shown(&site).contains("has changed"));
    assert_eq!(site.run(&["tools", "classify", "odd/late", "read"]).status.code(), Some(2));
    let (echo, late) = (approval(&site, "odd/echo"), approval(&site, "odd/late"));
    assert!(echo.1.contains("and now a little more"), "the difference is shown: {}", echo.1);
    assert_eq!(site.run(&["tools", "approve", "odd/echo", "0123456789ab"]).status.code(), Some(2), "another hash");
    assert_eq!(site.run(&["tools", "approve", "odd/echo", &echo.0[..12]]).status.code(), Some(2), "too little of one");
    // Dismissed, it is held all the same: its server would run something else than what is in the catalogue.
    site.ok(&["tools", "pin", "odd/echo", &echo.0]);
    assert!(shown(&site).contains("was dismissed"));
    assert_eq!(refusal(&worker.call("echo", json!({ "text": "a" })).await).0, "held");
    site.ok(&["tools", "approve", "odd/echo", &echo.0, "--effect", "read"]);
    let echo: Value = serde_json::from_str(&site.ok(&["--json", "tools", "show", "odd/echo"])).unwrap();
    assert_eq!(echo["paths"], json!(["text"]), "what narrows outlives the definition");
    site.ok(&["tools", "approve", "odd/late", &late.0, "--effect", "read"]);
    let events: Vec<String> = records(&site.data())
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Policy(change) => Some(format!("{:?} {}", change.event, change.tools.join(","))),
            _ => None,
        })
        .collect();
    for event in ["Quarantined odd/echo", "Pinned odd/echo", "Approved odd/echo", "Approved odd/late"] {
        assert!(events.iter().any(|said| said == event), "{event} in {events:?}");
    }
    let after = listed(&worker.request("tools/list", json!({})).await);
    assert!(after.contains(&"echo".to_owned()) && after.contains(&"late".to_owned()), "{after:?}");
    assert_eq!(worker.call("late", json!({})).await["result"]["content"][0]["text"], "done");
}

/// The hash to approve, and what is shown with it.
fn approval(site: &Site, tool: &str) -> (String, String) {
    let shown = site.ok(&["tools", "approve", tool]);
    let command = shown.lines().find(|line| line.trim().starts_with("warden tools approve")).unwrap().to_owned();
    (command.rsplit(' ').next().unwrap().to_owned(), shown)
}

#[tokio::test]
async fn strangers_other_workers_and_browsers_are_turned_away() {
    let site = Site::odd();
    let _running = site.serve_classified();
    let mut worker = site.worker().await;
    let other = site.ok(&["token", "issue", "other"]).trim().to_owned();
    let mut thief = Worker::new(site.port, "odd", &other);
    thief.session = worker.session.clone();
    assert_eq!(thief.raw(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await.0, 404, "a session is its worker's");
    let stranger = Worker::new(site.port, "odd", "wdn_nonsense");
    assert_eq!(stranger.raw(INITIALIZE).await.0, 401);
    let unknown = Worker::new(site.port, "nowhere", &site.token());
    assert_eq!(unknown.raw(INITIALIZE).await.0, 404);
    for (name, value) in [("origin", "https://evil.example"), ("host", "evil.example")] {
        let response = worker
            .http
            .post(&worker.url)
            .bearer_auth(&worker.token)
            .header("content-type", "application/json")
            .header(name, value)
            .body(INITIALIZE)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 403, "{name}");
    }
    let answer = worker.request("ping", json!({})).await;
    assert_eq!(answer["result"], json!({}));
    let id = site.ok(&["token", "list", "--json"]);
    let id: Value = serde_json::from_str(&id).unwrap();
    let id = id["tokens"].as_array().unwrap().iter().find(|t| t["worker"] == "other").unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    site.ok(&["token", "revoke", &id]);
    assert_eq!(Worker::new(site.port, "odd", &other).raw(INITIALIZE).await.0, 401, "a revoked token is nobody's");
}

#[tokio::test]
async fn a_worker_that_reaches_for_the_operator_plane_is_refused_and_recorded() {
    let site = Site::odd();
    let running = site.serve();
    let http = reqwest::Client::builder().unix_socket(site.data().join("operator.sock")).build().unwrap();
    let response = http.get("http://localhost/v1/decisions").bearer_auth(site.token()).send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(http.get("http://localhost/v1/decisions").send().await.unwrap().status(), 401);
    assert_eq!(http.get("http://evil.example/readyz").send().await.unwrap().status(), 403);
    let ready: Value = http.get("http://localhost/readyz").send().await.unwrap().json().await.unwrap();
    assert_eq!((&ready["ready"], &ready["journal"]), (&json!(true), &json!("good")));
    let metrics = http.get("http://localhost/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("warden_decisions_total{verdict=\"deny\"} 1"), "{metrics}");
    assert!(metrics.contains("warden_invariant_violations{invariant=\"W1\"} 0"), "{metrics}");
    running.stop();
    let last = decisions(&site.data()).pop().unwrap();
    assert_eq!(
        (last.action.as_str(), last.reason.as_str(), last.verdict),
        ("operate", "operators_only", Verdict::Deny)
    );
}

#[tokio::test]
async fn a_worker_that_vanishes_leaves_an_outcome_and_a_child_gets_no_credentials() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let environment =
        worker.call("environment", json!({})).await["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(!environment.contains("WARDEN") && environment.contains("PATH"), "{environment}");
    let body = json!({ "jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": { "name": "wait", "arguments": { "seconds": 1 } } });
    let gone = tokio::time::timeout(std::time::Duration::from_millis(200), worker.raw(body.to_string())).await;
    assert!(gone.is_err(), "the worker gave up");
    running.stop();
    assert_eq!(
        outcomes(&site).into_iter().filter(|(happened, _)| *happened == Happened::Done).count(),
        3,
        "connect, environment, wait"
    );
}

#[tokio::test]
async fn repeated_denials_are_coalesced_and_none_is_lost() {
    let site = Site::odd();
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    for _ in 0..50 {
        assert_eq!(refusal(&worker.call("echo", json!({})).await).0, "denied");
    }
    running.stop();
    let denied: Vec<_> = decisions(&site.data()).into_iter().filter(|d| d.verdict == Verdict::Deny).collect();
    assert!(denied.len() <= 6, "{}", denied.len());
    assert_eq!(denied.iter().map(|d| d.repeated + 1).sum::<u64>(), 50);
}

#[tokio::test]
async fn parallel_calls_each_run_once() {
    let site = Site::odd();
    let running = site.serve_classified();
    let worker = site.worker().await;
    let calls = (0..40).map(|n| {
        let body = json!({ "jsonrpc": "2.0", "id": n, "method": "tools/call", "params": { "name": "mark", "arguments": { "marker": format!("m{n}") } } });
        worker.raw(body.to_string())
    });
    for (n, (status, answer)) in futures::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!((status, &answer["id"]), (200, &json!(n)));
    }
    running.stop();
    let mut effects = site.effects();
    effects.sort();
    effects.dedup();
    assert_eq!(effects.len(), 40);
}

#[tokio::test]
async fn w03_on_a_full_disk_nothing_moves_and_with_room_again_everything_does() {
    let Some(disk) = crate::journal::Tmpfs::mount(16 << 20) else { return };
    let effects = tempfile::tempdir().unwrap();
    let effects = effects.path().join("effects");
    let site = Site::at(&disk.dir.path().join("site"), &json!({}));
    let servers = json!({ "odd": crate::support::odd_server(&effects) });
    site.configure(&servers, &json!({ "journal": { "segment_mb": 1, "reserved_mb": 1 } }));
    site.policies(crate::support::PERMIT_ALL);
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let filler = disk.dir.path().join("filler");
    let _ = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(&filler).unwrap());
    let mut answered = 0;
    let refused = loop {
        let answer = worker.call("mark", json!({ "marker": format!("m{answered}") })).await;
        if refusal(&answer).0 != "none" {
            break answer;
        }
        answered += 1;
        assert!(answered < 5_000, "the disk never fills: {answer}");
    };
    assert_eq!(refusal(&refused).0, "unavailable", "{refused}");
    assert_eq!(refusal(&worker.call("mark", json!({ "marker": "no" })).await).0, "unavailable");
    let forwarded = std::fs::read_to_string(&effects).unwrap().lines().count();
    assert_eq!(forwarded, answered, "nothing moved that was not recorded");
    let denied = decisions(&site.data()).into_iter().filter(|d| d.reason == "journal_full").count();
    assert!(denied >= 1, "the denial found room in the reserved segment");
    std::fs::remove_file(&filler).unwrap();
    let mut tries = 0;
    while refusal(&worker.call("mark", json!({ "marker": "again" })).await).0 != "none" {
        tries += 1;
        assert!(tries < 100, "room is never found again");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    running.stop();
    verified(&site.data()).unwrap();
}
