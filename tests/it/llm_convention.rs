//! Tasks, leases and state documents, as workers and hosts use them.

use crate::llm_provider::{LlmSite, answered, chat};
use crate::support::{decisions, records};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use warden_core::journal::record::Body;
use warden_core::task::convention::{ENGINE_FACTORY_KEY, extract_engine_factory, has_engine_context};

struct Site {
    llm: LlmSite,
    other: String,
    host: String,
}

impl Site {
    fn start(more: &Value) -> (Self, crate::support::Running) {
        let llm = LlmSite::with(&json!({ "team": { "limits": [{ "tokens": 1_000_000 }] } }), more);
        let running = llm.serve();
        let token = |args: &[&str]| llm.operator(args)["token"].as_str().unwrap().to_owned();
        let (other, host) =
            (token(&["token", "issue", "other"]), token(&["token", "issue", "assistant", "--role", "host"]));
        (Self { llm, other, host }, running)
    }

    async fn send(&self, method: Method, path: &str, token: &str, kind: &str, body: String) -> (u16, Value) {
        let request = self.llm.http.request(method, self.llm.url(path)).bearer_auth(token);
        answered(request.header("content-type", kind).body(body).send().await.unwrap()).await
    }

    async fn open(&self, body: &Value) -> Value {
        let (status, task) =
            self.send(Method::POST, "/v1/tasks", &self.llm.site.token(), "application/json", body.to_string()).await;
        assert_eq!(status, 201, "{task}");
        task
    }

    async fn call(&self, token: &str, task: &str, lease: Option<&str>) -> (u16, Value) {
        let mut request = self.llm.http.post(self.llm.url("/v1/chat/completions")).bearer_auth(token);
        request = request.header("x-warden-task", task);
        if let Some(lease) = lease {
            request = request.header("x-warden-lease", lease);
        }
        answered(request.json(&chat("hello")).send().await.unwrap()).await
    }
}

fn lease(task: &Value) -> (String, String) {
    let lease = &task["worker_engine_factory"];
    (lease["task"].as_str().unwrap().to_owned(), lease["lease"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_12_s0_16_a_lease_is_good_for_its_worker_its_task_and_its_time() {
    let (site, running) = Site::start(&json!({}));
    let own = site.llm.site.token();
    let task = site.open(&json!({ "llm": true })).await;
    let (id, secret) = lease(&task);
    assert_eq!(site.call(&own, &id, Some(&secret)).await.0, 200);
    let (other_id, other_secret) = lease(&site.open(&json!({})).await);
    let guess = format!("wdl_{}", "0".repeat(64));
    for (token, id, lease, code) in [
        (&own, id.as_str(), None, "lease_invalid"),
        (&own, id.as_str(), Some(other_secret.as_str()), "lease_invalid"),
        (&own, id.as_str(), Some(guess.as_str()), "lease_invalid"),
        (&own, "nobody", Some(secret.as_str()), "no_enclosing_task"),
        (&site.other, id.as_str(), Some(secret.as_str()), "no_enclosing_task"),
    ] {
        let (status, answer) = site.call(token, id, lease).await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!(code)), "{answer}");
    }
    let (status, ended) =
        site.send(Method::DELETE, &format!("/v1/tasks/{id}"), &own, "application/json", String::new()).await;
    assert_eq!((status, &ended["engine_events"], &ended["engine_bypass_suspected"]), (200, &json!(1), &json!(false)));
    let (_, answer) = site.call(&own, &id, Some(&secret)).await;
    assert_eq!(answer["error"]["code"], "no_enclosing_task", "a closed one is over");
    // A lease outlives a restart, and a task its time.
    let (short, short_secret) = lease(&site.open(&json!({ "ttl_s": 1 })).await);
    running.stop();
    let running = site.llm.serve();
    assert_eq!(site.call(&own, &other_id, Some(&other_secret)).await.0, 200);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(site.call(&own, &short, Some(&short_secret)).await.1["error"]["code"], "no_enclosing_task");
    assert_eq!(site.llm.provider.calls(), 2);
    running.stop();
    let all = decisions(&site.llm.site.data());
    assert!(all.iter().any(|d| d.reason == "lease_invalid") && all.iter().any(|d| d.reason == "no_enclosing_task"));
    let allowed = all.iter().filter(|d| d.action == "call_engine" && d.verdict.name() == "allow");
    assert!(allowed.clone().all(|d| d.task.as_deref().is_some_and(|task| !task.is_empty())), "W7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_13_a_task_that_needed_an_engine_and_called_none_is_told_of() {
    let (site, running) = Site::start(&json!({}));
    let own = site.llm.site.token();
    for (body, suspected) in [(json!({ "llm": true }), true), (json!({ "llm": false }), false), (json!({}), false)] {
        let id = site.open(&body).await["task"].as_str().unwrap().to_owned();
        let (_, ended) =
            site.send(Method::DELETE, &format!("/v1/tasks/{id}"), &own, "application/json", String::new()).await;
        assert_eq!(ended["engine_bypass_suspected"], suspected, "{body}");
    }
    let listed = site.llm.site.ok(&["budget", "list", "--by", "task"]);
    assert_eq!(listed.matches("SUSPECTED").count(), 1, "{listed}");
    let http = reqwest::Client::builder().unix_socket(site.llm.site.data().join("operator.sock")).build().unwrap();
    let metrics = http.get("http://localhost/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("warden_engine_bypass_suspected_total 1"), "{metrics}");
    running.stop();
    assert!(std::fs::read_to_string(site.llm.site.dir.join("log")).unwrap().contains("was it gone around"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_09_the_hosts_members_of_a_state_are_the_hosts() {
    let (site, running) = Site::start(&json!({ "tasks": { "reserved_keys": ["house"] } }));
    let own = site.llm.site.token();
    let task = site.open(&json!({ "engine": "mock" })).await;
    let (id, secret) = lease(&task);
    let path = format!("/v1/tasks/{id}/state");
    let (status, state) = site.send(Method::GET, &path, &own, "application/json", String::new()).await;
    assert_eq!(status, 200);
    assert!(has_engine_context(&state));
    assert_eq!(extract_engine_factory(&state).unwrap().lease, secret);
    assert_eq!(state["meta"], json!({ "task_id": id, "engine_id": "mock" }));
    let (merge, patch) = ("application/merge-patch+json", "application/json-patch+json");
    let (status, state) =
        site.send(Method::PATCH, &path, &own, merge, json!({ "notes": { "a": 1 }, "list": [1] }).to_string()).await;
    assert_eq!((status, &state["notes"]), (200, &json!({ "a": 1 })), "{state}");
    let (status, _) = site
        .send(Method::PATCH, &path, &own, patch, json!([{ "op": "add", "path": "/list/-", "value": 2 }]).to_string())
        .await;
    assert_eq!(status, 200);
    for (method, kind, body) in [
        (Method::PATCH, merge, r#"{"worker_engine_factory":null}"#.to_owned()),
        (Method::PATCH, merge, r#"{"worker_engine_factor\u0079":{"lease":"x"}}"#.to_owned()),
        (Method::PATCH, merge, json!({ "notes": 7, "meta": { "engine_id": "claude" } }).to_string()),
        (Method::PATCH, merge, json!({ "house": 1 }).to_string()),
        (Method::PATCH, merge, json!({ "state_overrides": { "_workflow": 1 } }).to_string()),
        (
            Method::PATCH,
            patch,
            json!([{ "op": "move", "from": "/worker_engine_factory", "path": "/mine" }]).to_string(),
        ),
        (Method::PATCH, patch, json!([{ "op": "remove", "path": "/meta/task_id" }]).to_string()),
        (Method::PUT, "application/json", json!({ ENGINE_FACTORY_KEY: 1 }).to_string()),
    ] {
        let (status, answer) = site.send(method, &path, &own, kind, body.clone()).await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!("reserved_key")), "{body}: {answer}");
    }
    let (status, _) = site.send(Method::PATCH, &path, &own, merge, r#"{"a":1,"a":2}"#.into()).await;
    assert_eq!(status, 400);
    let (status, _) = site.send(Method::PATCH, &path, &own, "text/plain", "{}".into()).await;
    assert_eq!(status, 415);
    let (status, answer) = site
        .send(Method::PATCH, &path, &own, merge, json!({ "k": "ghp_aB3daB3daB3daB3daB3daB3daB3daB3daB3d" }).to_string())
        .await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("secret_found")));
    // Nothing of all this has happened, and a restart keeps what did.
    running.kill();
    let running = site.llm.serve();
    let (_, after) = site.send(Method::GET, &path, &own, "application/json", String::new()).await;
    assert_eq!((&after["notes"], &after["list"]), (&json!({ "a": 1 }), &json!([1, 2])), "{after}");
    assert_eq!(after[ENGINE_FACTORY_KEY]["lease"], secret.as_str());
    let (status, _) = site.send(Method::GET, &path, &site.other, "application/json", String::new()).await;
    assert_eq!(status, 404, "somebody else's task is as unknown as none");
    running.stop();
    let all = decisions(&site.llm.site.data());
    let refused: Vec<_> = all.iter().filter(|d| d.reason == "reserved_key").collect();
    assert!(!refused.is_empty() && refused.iter().all(|d| d.policies == ["charter/reserved_state"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_02_s0_21_s0_22_what_is_absent_is_no_engine_and_never_an_error() {
    let (site, running) =
        Site::start(&json!({ "zones": { "none": { "deny": ["mock", "claude", "gemini", "connect"] } } }));
    let own = site.llm.site.token();
    let id = site.open(&json!({})).await["task"].as_str().unwrap().to_owned();
    let resolve = async |body: &str| {
        site.send(Method::POST, &format!("/v1/tasks/{id}/engine"), &own, "application/json", body.to_owned()).await
    };
    let (status, engine) = resolve(r#"{"engine_id":"claude"}"#).await;
    assert_eq!((status, &engine["engine"]["id"]), (200, &json!("claude")), "{engine}");
    for (body, reason) in [(r#"{"engine_id":"nobody"}"#, "unknown_engine")] {
        let (status, engine) = resolve(body).await;
        assert_eq!((status, engine), (200, json!({ "engine": null, "reason": reason })));
    }
    for body in ["", "{}", r#"{"engine_id":""}"#, r#"{"engine_id":null}"#, r#"{"engine_id":42}"#, "null", "garbage"] {
        let (status, engine) = resolve(body).await;
        assert!(status == 200 && engine["engine"]["id"].is_string(), "{body}: {engine}");
    }
    // A host may put a task into a zone, and for another worker; a worker may not.
    let (status, answer) =
        site.send(Method::POST, "/v1/tasks", &own, "application/json", json!({ "zone": "none" }).to_string()).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("hosts_only")), "{answer}");
    let body = json!({ "zone": "none", "worker": "other", "session": "s1" }).to_string();
    let (status, task) = site.send(Method::POST, "/v1/tasks", &site.host, "application/json", body).await;
    assert_eq!(status, 201, "{task}");
    let (other_task, other_lease) = lease(&task);
    let (_, answer) = site.call(&site.other, &other_task, Some(&other_lease)).await;
    assert_eq!(answer["error"]["code"], "engine_not_in_zone");
    for (body, says) in [
        (r#"{"ttl_s":0}"#, "ttl_s"),
        (r#"{"typo":1}"#, "typo"),
        (r#"{"engine":"nobody"}"#, "configured engine"),
        ("[", "no task"),
    ] {
        let (status, answer) = site.send(Method::POST, "/v1/tasks", &own, "application/json", body.to_owned()).await;
        assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains(says), "{body}: {answer}");
    }
    running.stop();
    let unresolved = records(&site.llm.site.data()).into_iter().filter(|record| match &record.body {
        Body::Task(change) => serde_json::to_value(change).unwrap()["event"] == "unresolved",
        _ => false,
    });
    assert_eq!(unresolved.count(), 1, "operators see what workers did not have to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_have_to_name_its_task() {
    let workers = json!({ "assistant": { "budget": "team", "names_task": true }, "other": {} });
    let (site, running) = Site::start(&json!({ "workers": workers }));
    let (status, answer) = site.llm.chat("hello").await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("no_enclosing_task")), "{answer}");
    let (id, secret) = lease(&site.open(&json!({ "llm": true })).await);
    assert_eq!(site.call(&site.llm.site.token(), &id, Some(&secret)).await.0, 200);
    running.stop();
}

/// The convention's cases in the language of its workers, and the module against a real gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_03_the_python_module_keeps_the_convention() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let tests = Command::new("python3")
        .args(["-m", "unittest", "-v", "test_warden_engine"])
        .current_dir(&docs)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tests.stderr).into_owned();
    assert!(tests.status.success(), "{said}");
    assert!(said.matches("... ok").count() >= 20, "the convention has 20 cases: {said}");
    let (site, running) = Site::start(&json!({}));
    let task = site.open(&json!({ "llm": true, "engine": "connect" })).await;
    let id = task["task"].as_str().unwrap().to_owned();
    let script = "import json, sys, warden_engine as w\nstate = json.load(sys.stdin)\nengine = w.resolve_engine(state)\nprint(engine.execute('hello').content)\n";
    let (_, state) = site
        .send(Method::GET, &format!("/v1/tasks/{id}/state"), &site.llm.site.token(), "application/json", String::new())
        .await;
    let token = site.llm.site.token();
    let ran = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut child = Command::new("python3")
            .args(["-c", script])
            .current_dir(&docs)
            .env("WARDEN_TOKEN", token)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(state.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let ran = ran.await.unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "hello world", "{}", String::from_utf8_lossy(&ran.stderr));
    running.stop();
}

/// S0-20: there is no way around in the product, whatever the environment says.
#[test]
fn s0_20_no_switch_of_the_environment_lets_an_engine_be_called_unseen() {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for line in text.lines().filter(|line| line.contains("env::var")) {
            let words = ["BYPASS", "DISABLE", "SKIP", "INSECURE", "TEST", "MOCK"];
            assert!(!words.iter().any(|word| line.contains(word)), "{}: {line}", path.display());
        }
    }
}
