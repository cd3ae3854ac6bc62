//! The apps that are shipped, end to end: their own files, their own servers, sessions as workers and operators see them.

use crate::support::{INITIALIZE, Running, Site, Worker, decisions, refusal};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use warden_core::verdict::Verdict;

/// The apps, their servers, and which tools of these only read.
const SHIPPED: [(&str, &str, [&str; 2]); 2] =
    [("code-review", "reviews", ["list_files", "read_diff"]), ("incident", "incidents", ["read_logs", "read_runbook"])];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shipped(app: &str) -> PathBuf {
    root().join("policies/apps").join(app)
}

/// A site with the starter policies, and the files of all shipped apps as they are.
fn site() -> Site {
    let site = Site::temporary(&json!({}));
    let server = |name: &str| {
        let script = root().join("tests/it/servers").join(format!("{name}.py"));
        json!({ "command": ["python3", script, site.dir.join("effects")] })
    };
    site.configure(&json!({ "reviews": server("reviews"), "incidents": server("incidents") }), &json!({}));
    std::fs::create_dir_all(site.dir.join("apps")).unwrap();
    for (app, ..) in SHIPPED {
        for entry in std::fs::read_dir(shipped(app)).unwrap() {
            let from = entry.unwrap().path();
            let folder = match from.extension().and_then(|extension| extension.to_str()) {
                Some("cedar") => "policies",
                Some("yaml" | "json") => "apps",
                _ => continue,
            };
            std::fs::copy(&from, site.dir.join(folder).join(from.file_name().unwrap())).unwrap();
        }
    }
    site
}

/// Each tool is classified as what it is.
fn serve(site: &Site) -> Running {
    let running = site.serve();
    for (_, server, reads) in SHIPPED {
        site.ok(&["tools", "classify", &format!("{server}/*"), "write"]);
        for tool in reads {
            site.ok(&["tools", "classify", &format!("{server}/{tool}"), "read"]);
        }
    }
    running
}

/// The worker plane, asked by somebody.
struct Plane {
    base: String,
    token: String,
}

impl Plane {
    fn of(site: &Site) -> Self {
        Self { base: format!("http://127.0.0.1:{}", site.port), token: site.token() }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = reqwest::Client::new().get(format!("{}{path}", self.base));
        Self::said(request.bearer_auth(&self.token).send().await.unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = reqwest::Client::new().post(format!("{}{path}", self.base));
        Self::said(request.bearer_auth(&self.token).json(body).send().await.unwrap()).await
    }

    async fn said(response: reqwest::Response) -> (u16, Value) {
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    async fn start(&self, app: &str, overrides: Value) -> String {
        let (status, said) = self.post("/v1/sessions", &json!({ "app": app, "state_overrides": overrides })).await;
        assert_eq!(status, 201, "{said}");
        said["session"].as_str().unwrap().to_owned()
    }

    async fn session(&self, id: &str) -> Value {
        let (status, said) = self.get(&format!("/v1/sessions/{id}")).await;
        assert_eq!(status, 200, "{said}");
        said
    }

    /// Whoever asks while a call is on its way is told to ask again.
    async fn finalise(&self, id: &str) -> Value {
        for _ in 0..50 {
            let (status, said) = self.post(&format!("/v1/sessions/{id}/finalise"), &json!({})).await;
            if status != 429 {
                assert_eq!(status, 200, "{said}");
                return said;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("`{id}` is busy for too long");
    }
}

/// A worker whose every request belongs to a session.
async fn inside(site: &Site, server: &str, session: &str) -> Worker {
    let mut worker = named(site, server, session);
    worker.open().await;
    worker
}

fn named(site: &Site, server: &str, session: &str) -> Worker {
    let mut worker = Worker::new(site.port, server, &site.token());
    worker.headers = vec![("x-warden-session", session.to_owned())];
    worker
}

/// A call that runs, and what it says.
async fn ran(worker: &mut Worker, tool: &str, arguments: Value) -> Value {
    let answer = worker.call(tool, arguments).await;
    assert_eq!(answer["result"]["isError"], false, "{tool}: {answer}");
    answer["result"]["structuredContent"].clone()
}

/// A call that is held, and its decision.
async fn held(worker: &mut Worker, tool: &str, arguments: Value) -> String {
    let answer = worker.call(tool, arguments).await;
    assert_eq!(refusal(&answer).0, "held", "{tool}: {answer}");
    refusal(&answer).1.to_owned()
}

async fn denied(worker: &mut Worker, tool: &str, arguments: Value) {
    let answer = worker.call(tool, arguments).await;
    assert_eq!(refusal(&answer).0, "denied", "{tool}: {answer}");
}

/// How often a tool ran.
fn times(site: &Site, what: &str) -> usize {
    site.effects().iter().filter(|effect| effect.starts_with(what)).count()
}

/// Why calls of a tool were denied, the oldest first.
fn reasons(site: &Site, action: &str) -> Vec<String> {
    let of = decisions(&site.data()).into_iter().filter(|d| d.action == action && d.verdict == Verdict::Deny);
    of.map(|d| d.reason.to_string()).collect()
}

fn staging() -> Value {
    json!({ "environment": "staging", "service": "api" })
}

fn production() -> Value {
    json!({ "environment": "production", "service": "api", "severity": 1 })
}

fn older() -> Value {
    json!({ "service": "api", "to_version": "41" })
}

/// A review whose worker reads, notes and gives one verdict.
async fn reviewed(verdict: &str, status: &str) {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let id = plane.start("code-review", json!({ "repository": "pool", "change": 7 })).await;
    let mut worker = inside(&site, "reviews", &id).await;
    assert_eq!(ran(&mut worker, "list_files", json!({})).await["files"].as_array().unwrap().len(), 3);
    ran(&mut worker, "read_diff", json!({ "path": "src/pool.rs" })).await;
    ran(&mut worker, "add_note", json!({ "path": "src/pool.rs", "line": 1, "text": "why 64?" })).await;
    let patch = json!({ "finding": "the pool grows", "confidence": 0.8, "signal": "success" });
    ran(&mut worker, "note_finding", json!({ "patch": patch })).await;
    let review = ran(&mut worker, "submit_review", json!({ "verdict": verdict, "summary": "as noted" })).await;
    assert_eq!(review["notes"], 1);

    let said = plane.finalise(&id).await;
    assert_eq!(
        (&said["transitioned"], &said["status"], &said["from"]),
        (&json!(true), &json!(status), &json!("running"))
    );
    assert_eq!((&said["cause"]["by"], &said["cause"]["tool"]), (&json!("tool"), &json!("reviews/submit_review")));
    let session = plane.session(&id).await;
    assert_eq!(session["fields"], json!({ "summary": "as noted", "review": format!("R-{verdict}") }));
    assert_eq!(
        (&session["terminal"], &session["confidence"], &session["signal"]),
        (&json!(true), &json!(0.8), &json!("success"))
    );
    // It is over once, and only read from then on.
    let again = plane.finalise(&id).await;
    assert_eq!((&again["transitioned"], &again["status"]), (&json!(false), &json!(status)));
    ran(&mut worker, "read_diff", json!({ "path": "README.md" })).await;
    denied(&mut worker, "add_note", json!({ "path": "README.md", "line": 1, "text": "late" })).await;
    assert_eq!((times(&site, "submit_review"), times(&site, "add_note")), (1, 1));
    running.stop();
    assert_eq!(reasons(&site, "reviews/add_note"), ["review_over"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_a_review_that_approves_is_approved() {
    reviewed("approve", "approved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_a_review_that_asks_for_changes_has_asked_for_them() {
    reviewed("request_changes", "changes_requested").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_a_review_that_comments_is_commented() {
    reviewed("comment", "commented").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_24_a_review_without_a_verdict_gets_the_default_of_its_own_app() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let (review, incident) = (plane.start("code-review", json!({})).await, plane.start("incident", staging()).await);
    let mut worker = inside(&site, "reviews", &review).await;
    ran(&mut worker, "read_diff", json!({ "path": "README.md" })).await;
    // What failed gave no verdict.
    let answer = worker.call("submit_review", json!({ "verdict": "comment", "summary": "s", "fail": true })).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let said = plane.finalise(&review).await;
    assert_eq!(
        (&said["status"], &said["cause"]["by"]),
        (&json!("unreviewed"), &json!("default_terminal_status")),
        "{said}"
    );
    assert_eq!(plane.session(&review).await["kind"], "needs_review");
    let said = plane.finalise(&incident).await;
    assert_eq!(said["status"], "needs_review", "{said}");
    running.stop();
}

/// An app's sessions are not started with what its schema does not know, and that takes no id.
async fn refused_at_the_start(app: &str, prefix: &str, fine: Value, wrong: &[(Value, &str)]) {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    for (overrides, named) in wrong {
        let (status, said) = plane.post("/v1/sessions", &json!({ "app": app, "state_overrides": overrides })).await;
        assert_eq!((status, &said["error"]["code"]), (422, &json!("overrides_invalid")), "{overrides}: {said}");
        assert!(said["error"]["message"].as_str().unwrap().contains(named), "{overrides}: {said}");
    }
    let (_, all) = plane.get("/v1/sessions").await;
    assert_eq!(all["sessions"], json!([]));
    let id = plane.start(app, fine.clone()).await;
    assert!(id.starts_with(&format!("{prefix}-")) && id.ends_with("-001"), "{id}");
    assert_eq!(plane.session(&id).await["state_overrides"], fine);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_53_a_review_is_not_started_with_a_key_that_nobody_knows() {
    let wrong = [
        (json!({ "repository": "pool", "branch": "main" }), "branch"),
        (json!({ "change": "seven" }), "change"),
        // What the other app is started with.
        (staging(), "environment"),
    ];
    refused_at_the_start("code-review", "REVIEW", json!({ "repository": "pool", "change": 7 }), &wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_53_an_incident_is_not_started_with_a_key_that_nobody_knows() {
    let wrong = [
        (json!({ "environment": "staging", "service": "api", "region": "eu" }), "region"),
        (json!({ "environment": "staging", "service": "api", "severity": "1" }), "severity"),
        (json!({ "environment": "staging" }), "service"),
        (json!({ "repository": "pool", "environment": "staging", "service": "api" }), "repository"),
    ];
    refused_at_the_start("incident", "INC", production(), &wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_54_what_a_review_is_started_with_is_what_policy_sees() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let approve = || json!({ "verdict": "approve", "summary": "fine" });
    let id = plane.start("code-review", json!({ "min_diffs": 2, "repository": null })).await;
    assert_eq!(plane.session(&id).await["state_overrides"], json!({ "min_diffs": 2 }), "what is nothing is left out");
    let mut worker = inside(&site, "reviews", &id).await;
    denied(&mut worker, "submit_review", approve()).await;
    for path in ["src/pool.rs", "src/pool.rs"] {
        ran(&mut worker, "read_diff", json!({ "path": path })).await;
        denied(&mut worker, "submit_review", approve()).await;
    }
    ran(&mut worker, "read_diff", json!({ "path": "src/lib.rs" })).await;
    ran(&mut worker, "submit_review", approve()).await;
    // A second verdict takes a person.
    let second = json!({ "verdict": "comment", "summary": "one more thing" });
    held(&mut worker, "submit_review", second.clone()).await;
    assert_eq!(plane.session(&id).await["status"], "awaiting_input");
    assert_eq!(plane.finalise(&id).await["transitioned"], false, "it waits for a person");

    let id = plane.start("code-review", json!({ "comment_only": true })).await;
    let mut worker = inside(&site, "reviews", &id).await;
    ran(&mut worker, "read_diff", json!({ "path": "src/lib.rs" })).await;
    denied(&mut worker, "submit_review", approve()).await;
    ran(&mut worker, "submit_review", second).await;
    assert_eq!(plane.finalise(&id).await["status"], "commented");
    running.stop();
    let expected = ["diffs_unread", "diffs_unread", "diffs_unread", "comments_only"];
    assert_eq!(reasons(&site, "reviews/submit_review"), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_54_an_incident_works_where_and_on_what_it_was_started_for() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let id = plane.start("incident", staging()).await;
    let mut worker = inside(&site, "incidents", &id).await;
    denied(&mut worker, "restart_service", json!({ "service": "billing" })).await;
    ran(&mut worker, "restart_service", json!({ "service": "api" })).await;
    // Once, and after a restricted runbook only with a person.
    ran(&mut worker, "rollback", older()).await;
    denied(&mut worker, "rollback", json!({ "service": "api", "to_version": "40" })).await;
    ran(&mut worker, "read_runbook", json!({ "name": "api/latency" })).await;
    ran(&mut worker, "restart_service", json!({ "service": "api" })).await;
    ran(&mut worker, "read_runbook", json!({ "name": "restricted/failover" })).await;
    held(&mut worker, "restart_service", json!({ "service": "api" })).await;
    // Another session has another history.
    let other = plane.start("incident", staging()).await;
    let mut worker = inside(&site, "incidents", &other).await;
    ran(&mut worker, "rollback", older()).await;
    for n in 0..3 {
        ran(&mut worker, "notify_oncall", json!({ "team": "platform", "summary": format!("page {n}") })).await;
    }
    denied(&mut worker, "notify_oncall", json!({ "team": "platform" })).await;
    assert_eq!((times(&site, "restart_service"), times(&site, "rollback"), times(&site, "notify_oncall")), (2, 2, 3));
    running.stop();
    assert_eq!(reasons(&site, "incidents/restart_service"), ["other_service"]);
    assert_eq!(reasons(&site, "incidents/rollback"), ["one_rollback"]);
    assert_eq!(reasons(&site, "incidents/notify_oncall"), ["pages_per_hour"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_an_incident_that_is_mended_is_resolved() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let id = plane.start("incident", staging()).await;
    let mut worker = inside(&site, "incidents", &id).await;
    ran(&mut worker, "read_logs", json!({ "service": "api" })).await;
    // An unsure worker restarts nothing by itself; what it says last of its hypothesis counts.
    let patch = json!({ "summary": "slow answers", "confidence": 0.4 });
    ran(&mut worker, "update_incident", json!({ "patch": patch })).await;
    let waits = held(&mut worker, "restart_service", json!({ "service": "api" })).await;
    site.ok(&["ack", "refuse", &waits, "--reason", "find out first"]);
    let hypothesis =
        json!({ "cause": "the pool is too small", "confidence": 0.9, "confidence_rationale": "the log says so" });
    ran(&mut worker, "submit_hypothesis", hypothesis).await;
    assert_eq!(plane.session(&id).await["status"], "running", "a hypothesis ends nothing");
    ran(&mut worker, "rollback", older()).await;
    ran(&mut worker, "mark_resolved", json!({ "resolution": "back to 41" })).await;
    let said = plane.finalise(&id).await;
    assert_eq!((&said["transitioned"], &said["status"]), (&json!(true), &json!("resolved")), "{said}");
    let session = plane.session(&id).await;
    assert_eq!(session["fields"], json!({ "resolution": "back to 41", "closed_as": "resolved" }));
    assert_eq!((&session["confidence"], &session["signal"]), (&json!(0.9), &json!("success")));
    assert_eq!(session["rationale"], "the log says so");
    denied(&mut worker, "restart_service", json!({ "service": "api" })).await;
    assert_eq!(times(&site, "restart_service"), 0);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_an_incident_whose_worker_pages_a_team_is_escalated_to_it() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    // People are called in production as anywhere.
    let id = plane.start("incident", production()).await;
    let mut worker = inside(&site, "incidents", &id).await;
    let paged = ran(&mut worker, "notify_oncall", json!({ "team": "database", "summary": "disks" })).await;
    let said = plane.finalise(&id).await;
    assert_eq!((&said["status"], &said["cause"]["tool"]), (&json!("escalated"), &json!("incidents/notify_oncall")));
    let session = plane.session(&id).await;
    assert_eq!((&session["escalated_to"], &session["kind"]), (&json!("database"), &json!("escalation")));
    assert_eq!(session["fields"], json!({ "team": "database", "page": paged["page"] }));
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_a_rollback_in_production_waits_for_a_person_and_runs_once() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let id = plane.start("incident", production()).await;
    let mut worker = inside(&site, "incidents", &id).await;
    ran(&mut worker, "read_logs", json!({ "service": "api" })).await;
    let waits = held(&mut worker, "rollback", older()).await;
    let session = plane.session(&id).await;
    assert_eq!((&session["status"], &session["held"]), (&json!("awaiting_input"), &json!([waits])), "{session}");
    let said = plane.finalise(&id).await;
    assert_eq!((&said["transitioned"], &said["status"]), (&json!(false), &json!("awaiting_input")));
    // What was held is not counted: the rule of one rollback still has room for it.
    assert_eq!(held(&mut worker, "rollback", older()).await, waits, "it is held once");
    assert_eq!(times(&site, "rollback"), 0);

    site.ok(&["ack", "grant", &waits, "--reason", "41 was fine"]);
    assert_eq!(plane.session(&id).await["status"], "running");
    ran(&mut worker, "rollback", older()).await;
    assert_eq!(times(&site, "rollback"), 1);
    denied(&mut worker, "rollback", older()).await;
    // Who closes it in production waits as well.
    let waits = held(&mut worker, "mark_resolved", json!({ "resolution": "back to 41" })).await;
    site.ok(&["ack", "grant", &waits, "--reason", "it is"]);
    ran(&mut worker, "mark_resolved", json!({ "resolution": "back to 41" })).await;
    assert_eq!(plane.finalise(&id).await["status"], "resolved");
    assert_eq!((times(&site, "rollback"), times(&site, "mark_resolved")), (1, 1));
    running.stop();
    assert_eq!(reasons(&site, "incidents/rollback"), ["one_rollback"]);
    let all = decisions(&site.data());
    let granted = all.iter().filter(|d| d.acknowledged.is_some()).count();
    assert_eq!(granted, 2);
}

/// A task's scope is a permit of its own, and no way around what the app keeps for people.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_60_a_task_that_covers_a_call_does_not_open_the_gates_of_the_app() {
    let site = site();
    std::fs::copy(root().join("policies/apps/task-scope.cedar"), site.dir.join("policies/task-scope.cedar")).unwrap();
    let running = serve(&site);
    let host = site.ok(&["token", "issue", "assistant", "--role", "host", "--json"]);
    let host = serde_json::from_str::<Value>(&host).unwrap()["token"].as_str().unwrap().to_owned();
    let host = Plane { token: host, ..Plane::of(&site) };
    let scope = json!({ "worker": "assistant", "tools": ["incidents/restart_service"], "directory": ["api"] });
    let (status, task) = host.post("/v1/tasks", &scope).await;
    assert_eq!(status, 201, "{task}");
    let plane = Plane::of(&site);
    for (overrides, runs) in [(staging(), true), (production(), false)] {
        let mut worker = inside(&site, "incidents", &plane.start("incident", overrides).await).await;
        worker.headers.push(("x-warden-task", task["task"].as_str().unwrap().to_owned()));
        let restart = json!({ "service": "api" });
        match runs {
            true => drop(ran(&mut worker, "restart_service", restart).await),
            false => drop(held(&mut worker, "restart_service", restart).await),
        }
    }
    assert_eq!(times(&site, "restart_service"), 1);
    running.stop();
    let held: Vec<_> = decisions(&site.data()).into_iter().filter(|d| d.verdict == Verdict::Escalate).collect();
    assert_eq!(held.iter().map(|d| d.reason.to_string()).collect::<Vec<_>>(), ["gated"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_37_s2_41_an_operator_hands_an_incident_to_a_team_that_is_paged_once() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let id = plane.start("incident", production()).await;
    let resume = |more: &[&str]| site.run(&[&["session", "resume", id.as_str()], more].concat());
    let waits = |session: &Value| session["status"] == "awaiting_input" && session["held"].as_array().is_some();
    // What runs is nobody's to hand on.
    assert!(!resume(&["--escalate"]).status.success());
    let mut worker = inside(&site, "incidents", &id).await;
    held(&mut worker, "rollback", older()).await;

    let unknown = resume(&["--escalate", "--team", "marketing"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("marketing") && said.contains("platform"), "{said}");
    assert!(waits(&plane.session(&id).await));
    assert_eq!(times(&site, "notify_oncall"), 0);
    // Of the roster, and nobody of it can be reached: it waits as before.
    let failed = resume(&["--escalate", "--team", "network"]);
    assert!(!failed.status.success(), "{failed:?}");
    assert!(waits(&plane.session(&id).await));

    let done = resume(&["--escalate", "--team", "database"]);
    assert!(done.status.success(), "{done:?}");
    assert!(!resume(&["--escalate", "--team", "database"]).status.success(), "it does not wait any more");
    let pages: Vec<String> = site
        .effects()
        .into_iter()
        .filter(|effect| effect.starts_with("notify_oncall") && effect.contains("database"))
        .collect();
    assert_eq!(pages, [format!("notify_oncall {{\"session\": \"{id}\", \"team\": \"database\"}}")]);
    let session = plane.session(&id).await;
    assert_eq!((&session["status"], &session["escalated_to"]), (&json!("escalated"), &json!("database")), "{session}");
    assert_eq!(session["fields"]["team"], "database");
    assert!(session.get("held").is_none(), "what was held is refused: {session}");
    denied(&mut worker, "rollback", older()).await;
    assert_eq!(times(&site, "rollback"), 0);

    let shown: Value = serde_json::from_str(&site.ok(&["session", "show", &id, "--json"])).unwrap();
    let events: Vec<&str> = shown["events"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["started", "resume_failed", "status"]);
    running.stop();
    // The page is a call like any other: decided and recorded, with the operator's name.
    let all = decisions(&site.data());
    let paged: Vec<_> = all.iter().filter(|d| d.action == "incidents/notify_oncall").collect();
    assert_eq!(paged.len(), 2);
    assert!(paged.iter().all(|d| d.verdict == Verdict::Allow && d.caller.as_deref() == Some("operator")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_49_a_session_reaches_nothing_of_another_app() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let (review, incident) = (plane.start("code-review", json!({})).await, plane.start("incident", staging()).await);
    for (own, server, foreign, tool) in
        [(&incident, "incidents", "reviews", "list_files"), (&review, "reviews", "incidents", "read_runbook")]
    {
        let arguments = || if tool == "list_files" { json!({}) } else { json!({ "name": "api/latency" }) };
        // It does not even connect.
        let (status, said) = named(&site, foreign, own).raw(INITIALIZE).await;
        assert_eq!(status, 403, "{said}");
        // Over a connection that belongs to no session it sees and calls nothing.
        let mut worker = Worker::new(site.port, foreign, &site.token());
        worker.open().await;
        denied(&mut worker, tool, arguments()).await;
        worker.headers = vec![("x-warden-session", own.clone())];
        let listed = worker.request("tools/list", json!({})).await;
        assert!(listed["result"]["tools"].is_null() && listed["error"].is_object(), "{listed}");
        denied(&mut worker, tool, arguments()).await;
        // At home it lists its own.
        let mut worker = inside(&site, server, own).await;
        let listed = worker.request("tools/list", json!({})).await;
        let names: Vec<&str> =
            listed["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert!(names.len() >= 5 && !names.contains(&tool), "{names:?}");
    }
    assert_eq!(site.effects(), Vec::<String>::new());
    running.stop();
    for action in ["reviews/list_files", "incidents/read_runbook"] {
        assert_eq!(reasons(&site, action), ["server_of_an_app", "server_of_an_app"], "{action}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_s2_49_a_session_is_its_own_workers_alone() {
    let site = site();
    let running = serve(&site);
    let plane = Plane::of(&site);
    let id = plane.start("incident", staging()).await;
    let issued = site.ok(&["token", "issue", "other"]);
    let token = issued.split_whitespace().find(|word| word.starts_with("wt")).unwrap_or(issued.trim()).to_owned();
    let other = Plane { base: plane.base.clone(), token: token.clone() };
    assert_eq!(other.get(&format!("/v1/sessions/{id}")).await.0, 404);
    assert_eq!(other.post(&format!("/v1/sessions/{id}/finalise"), &json!({})).await.0, 404);
    assert_eq!(other.get("/v1/sessions").await.1["sessions"], json!([]));
    let mut worker = Worker::new(site.port, "incidents", &token);
    worker.open().await;
    worker.headers = vec![("x-warden-session", id.clone())];
    denied(&mut worker, "read_logs", json!({ "service": "api" })).await;
    // Nor does a name that was never given make a session.
    worker.headers = vec![("x-warden-session", "INC-20200101-001".to_owned())];
    denied(&mut worker, "read_logs", json!({ "service": "api" })).await;
    assert_eq!(site.effects(), Vec::<String>::new());
    assert_eq!(plane.session(&id).await["status"], "running");
    running.stop();
    assert_eq!(reasons(&site, "incidents/read_logs"), ["unknown_session", "unknown_session"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_59_an_app_is_files_and_nothing_else() {
    let site = site();
    let running = serve(&site);
    site.ok(&["apps", "check"]);
    let checked = site.run(&["policy", "check", "--deny-warnings"]);
    assert!(checked.status.success(), "{checked:?}");
    running.stop();
}
