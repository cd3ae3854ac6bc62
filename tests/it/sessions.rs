//! Sessions end to end: started, counted, ended by what really ran, and taken up again by people.

use crate::support::{Site, decisions, odd_server, records};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use warden_core::journal::record::Body;
use warden_core::session::SessionEvent;

/// A gateway with one app whose tools are those of the odd server.
pub struct Desk {
    pub site: Site,
    pub http: reqwest::Client,
}

pub const ALL: &str = "@id(\"all\") permit (principal, action, resource);";

/// `mark` ends a session; `echo` is for anything else.
pub fn app() -> Value {
    json!({
        "session_id_prefix": "CASE",
        "statuses": {
            "done": { "name": "done", "terminal": true, "kind": "success" },
            "handed_on": { "name": "handed_on", "terminal": true, "kind": "escalation" },
            "unclear": { "name": "unclear", "terminal": true, "kind": "needs_review" },
        },
        "default_terminal_status": "unclear",
        "terminal_tools": [
            { "tool_name": "mark", "status": "handed_on", "match_args": { "marker": "people" }, "extract_fields": { "team": ["args.marker"] } },
            { "tool_name": "mark", "status": "done", "extract_fields": { "marker": ["args.marker"] } },
        ],
        "servers": ["odd"],
        "state_overrides_schema": "overrides.json",
        "facts": { "marks": { "count": "odd/mark" } },
    })
}

impl Desk {
    pub fn new(policies: &str, app: &Value, more: &Value) -> Self {
        let site = Site::odd();
        site.policies(policies);
        let mut config = json!({ "apps": { "case": app } });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        std::fs::write(
            site.dir.join("overrides.json"),
            json!({ "type": "object", "additionalProperties": false, "properties": {
                "environment": { "type": "string" }, "priority": { "type": "integer" } } })
            .to_string(),
        )
        .unwrap();
        let desk = Self { site, http: reqwest::Client::new() };
        desk.configure(&config);
        desk
    }

    /// The configuration, beside the odd server.
    fn configure(&self, config: &Value) {
        let mut server = odd_server(&self.site.dir.join("effects"));
        server["command"].as_array_mut().unwrap().push("notes".into());
        self.site.configure(&json!({ "odd": server }), config);
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.site.port);
        let answer = self.http.post(url).bearer_auth(token).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    pub async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.site.port);
        let answer = self.http.get(url).bearer_auth(token).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    pub async fn start(&self) -> String {
        let (status, said) = self.post(&self.site.token(), "/v1/sessions", &json!({ "app": "case" })).await;
        assert_eq!(status, 201, "{said}");
        said["session"].as_str().unwrap().to_owned()
    }

    /// An MCP client whose every request names a session.
    pub async fn client(&self, session: Option<&str>) -> Client {
        Client::open(self, session, "odd", &self.site.token()).await.unwrap_or_else(|answer| panic!("{answer}"))
    }

    pub fn token_of(&self, worker: &str, role: &str) -> String {
        self.cli(&["token", "issue", worker, "--role", role])["token"].as_str().unwrap().to_owned()
    }

    pub fn cli(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = [args, &["--json"]].concat();
        serde_json::from_str(&self.site.ok(&all)).unwrap()
    }
}

/// See [`Desk::client`].
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
    session: Option<String>,
    task: Option<String>,
    mcp: String,
}

impl Client {
    pub async fn open(desk: &Desk, session: Option<&str>, server: &str, token: &str) -> Result<Self, Value> {
        let mut client = Self {
            http: desk.http.clone(),
            url: format!("http://127.0.0.1:{}/mcp/{server}", desk.site.port),
            token: token.to_owned(),
            session: session.map(str::to_owned),
            task: None,
            mcp: String::new(),
        };
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        let answer = client.send(json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })).await;
        let (mcp, said) = answer;
        match mcp.filter(|_| said["error"].is_null()) {
            Some(mcp) => client.mcp = mcp,
            None => return Err(said),
        }
        client.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        Ok(client)
    }

    /// The same, within a task.
    pub fn in_task(self, task: &str) -> Self {
        Self { task: Some(task.to_owned()).filter(|task| !task.is_empty()), ..self }
    }

    pub async fn send(&self, message: Value) -> (Option<String>, Value) {
        let mut request = self.http.post(&self.url).bearer_auth(&self.token);
        request = request.header("accept", "application/json, text/event-stream");
        if !self.mcp.is_empty() {
            request = request.header("mcp-session-id", &self.mcp).header("mcp-protocol-version", "2025-06-18");
        }
        if let Some(session) = &self.session {
            request = request.header("x-warden-session", session);
        }
        if let Some(task) = &self.task {
            request = request.header("x-warden-task", task);
        }
        let answer = request.json(&message).send().await.unwrap();
        let mcp = answer.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        let body = text.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or(&text).trim().to_owned();
        (mcp, serde_json::from_str(&body).unwrap_or_default())
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        let id = uuid();
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool, "arguments": arguments } }))
            .await
            .1
    }

    /// Ends the MCP session, and with it the server's process.
    pub async fn close(&self) {
        let request = self.http.delete(&self.url).bearer_auth(&self.token).header("mcp-session-id", &self.mcp);
        let request = request.header("mcp-protocol-version", "2025-06-18");
        assert!(request.send().await.unwrap().status().is_success());
    }

    /// The decision of a refused call; nothing of one that ran.
    pub async fn refused(&self, tool: &str, arguments: Value) -> Option<String> {
        let answer = self.call(tool, arguments).await;
        let is_error = answer["result"]["isError"] == true || !answer["error"].is_null();
        let place = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let id = place("/result/_meta/warden~1decision").or_else(|| place("/error/data/decision"));
        is_error.then(|| id.unwrap_or_else(|| panic!("{tool}: {answer}")))
    }

    /// Why a call is refused: the reason code that operators see.
    pub async fn why(&self, desk: &Desk, tool: &str, arguments: Value) -> Option<String> {
        let id = self.refused(tool, arguments).await?;
        for _ in 0..100 {
            let shown = desk.site.run(&["audit", "show", &id, "--json"]);
            if let Ok(Value::Object(shown)) = serde_json::from_slice(&shown.stdout) {
                return shown["decision"]["reason"].as_str().map(str::to_owned);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} is not in the log");
    }
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("r{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn changes(site: &Site) -> Vec<(String, SessionEvent)> {
    let of = |record: warden_core::journal::record::Record| match record.body {
        Body::Session(change) => Some((change.session, change.event)),
        _ => None,
    };
    records(&site.data()).into_iter().filter_map(of).collect()
}

fn transitions(site: &Site) -> usize {
    changes(site).iter().filter(|(_, event)| matches!(event, SessionEvent::Status(_))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_18_s2_23_s2_29_s2_30_the_latest_call_that_ran_gives_the_status_and_none_the_default() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let session = desk.start().await;
    let client = desk.client(Some(&session)).await;
    client.call("mark", json!({ "marker": "people" })).await;
    client.call("mark", json!({ "marker": "all well" })).await;
    let (status, said) = desk.post(&token, &format!("/v1/sessions/{session}/finalise"), &json!({})).await;
    assert_eq!((status, &said["transitioned"], &said["status"]), (200, &json!(true), &json!("done")), "{said}");
    assert_eq!((&said["from"], &said["cause"]["tool"]), (&json!("running"), &json!("odd/mark")));
    assert_eq!(said["fields"], json!({ "marker": "all well" }));

    let other = desk.start().await;
    let client = desk.client(Some(&other)).await;
    client.call("mark", json!({ "marker": "people" })).await;
    let (_, said) = desk.post(&token, &format!("/v1/sessions/{other}/finalise"), &json!({})).await;
    assert_eq!((&said["status"], &said["escalated_to"]), (&json!("handed_on"), &json!("people")), "{said}");

    let third = desk.start().await;
    let (_, said) = desk.post(&token, &format!("/v1/sessions/{third}/finalise"), &json!({})).await;
    assert_eq!((&said["status"], &said["cause"]["by"]), (&json!("unclear"), &json!("default_terminal_status")));
    assert_eq!(said["reason"], "no terminal tool ran");
    let (_, again) = desk.post(&token, &format!("/v1/sessions/{third}/finalise"), &json!({})).await;
    assert_eq!(
        (&again["transitioned"], &again["status"]),
        (&json!(false), &json!("unclear")),
        "s2_26: it is never clobbered"
    );
    running.stop();
    assert_eq!(transitions(&desk.site), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_28_what_was_denied_or_held_says_nothing_of_its_session() {
    let policies = r#"
        @id("rest") permit (principal, action, resource) unless { action in Action::"call_tool" };
        @id("all") permit (principal, action in Action::"call_tool", resource) when { context.acknowledged };"#;
    let desk = Desk::new(policies, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let session = desk.start().await;
    let client = desk.client(Some(&session)).await;
    assert_eq!(client.why(&desk, "mark", json!({ "marker": "x" })).await.as_deref(), Some("acknowledgement_required"));
    let shown = desk.cli(&["session", "show", &session]);
    assert_eq!((&shown["status"], shown["held"].as_array().unwrap().len()), (&json!("awaiting_input"), 1), "{shown}");
    let (_, said) = desk.post(&token, &format!("/v1/sessions/{session}/finalise"), &json!({})).await;
    assert_eq!(said["transitioned"], false, "what waits for a person is not ended: {said}");
    let held = shown["held"][0].as_str().unwrap();
    desk.site.ok(&["ack", "refuse", held, "--reason", "no"]);
    let (_, said) = desk.post(&token, &format!("/v1/sessions/{session}/finalise"), &json!({})).await;
    assert_eq!(said["status"], "unclear", "a call that was refused ended nothing: {said}");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_53_s2_54_what_a_session_is_started_with_is_checked_kept_and_seen_by_policy() {
    let policies = r#"
        @id("all") permit (principal, action, resource);
        @id("production") @reason("not_in_production") forbid (principal, action == Action::"odd/mark", resource)
        when { context has session && context.session.overrides has environment && context.session.overrides.environment == "production" };"#;
    let desk = Desk::new(policies, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let start = async |overrides: Value| {
        desk.post(&token, "/v1/sessions", &json!({ "app": "case", "state_overrides": overrides })).await
    };
    for (overrides, word) in [
        (json!({ "enviroment": "production" }), "enviroment"),
        (json!({ "priority": "high" }), "priority"),
        (json!({ "worker_engine_factory": {} }), "worker_engine_factory"),
        (json!({ "meta": {} }), "meta"),
    ] {
        let (status, said) = start(overrides).await;
        assert_eq!((status, said["error"]["code"].as_str()), (422, Some("overrides_invalid")), "{said}");
        assert!(said["error"]["message"].as_str().unwrap().contains(word), "{said}");
    }
    let (status, said) = start(json!({ "environment": "production", "priority": null })).await;
    assert_eq!(status, 201, "{said}");
    let session = said["session"].as_str().unwrap().to_owned();
    assert!(session.starts_with("CASE-") && session.ends_with("-001"), "no id was used up before: {session}");
    assert_eq!(said["state_overrides"], json!({ "environment": "production" }), "null is absent");
    let client = desk.client(Some(&session)).await;
    assert_eq!(client.why(&desk, "mark", json!({ "marker": "x" })).await.as_deref(), Some("not_in_production"));
    running.stop();
    let running = desk.site.serve();
    let (_, shown) = desk.get(&token, &format!("/v1/sessions/{session}")).await;
    assert_eq!(shown["state_overrides"], json!({ "environment": "production" }), "they are there after a restart");
    let denied = decisions(&desk.site.data()).into_iter().find(|d| d.reason == "not_in_production").unwrap();
    assert_eq!(denied.context.session.unwrap().overrides["environment"], "production");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_49_a_session_of_another_worker_and_a_call_without_one_are_refused() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let session = desk.start().await;
    let other = desk.token_of("other", "worker");
    let (status, said) = desk.get(&other, &format!("/v1/sessions/{session}")).await;
    assert_eq!((status, said["error"]["code"].as_str()), (404, Some("unknown_session")));
    let (status, _) = desk.post(&other, &format!("/v1/sessions/{session}/finalise"), &json!({})).await;
    assert_eq!(status, 404);
    let theirs = Client::open(&desk, Some(&session), "odd", &other).await;
    assert!(theirs.is_err(), "not even connected");
    let without = desk.client(None).await;
    assert_eq!(without.why(&desk, "mark", json!({ "marker": "x" })).await.as_deref(), Some("server_of_an_app"));
    let ghost = Client::open(&desk, Some("CASE-20260101-999"), "odd", &desk.site.token()).await;
    assert!(ghost.is_err(), "a session that is not there");
    // `_meta` names it as well, where no header does.
    let call = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": { "name": "mark", "arguments": { "marker": "meta" },
        "_meta": { "warden/session": session } } });
    assert_eq!(without.send(call).await.1["result"]["content"][0]["text"], "done");
    running.stop();
    let reasons: BTreeSet<String> = decisions(&desk.site.data()).into_iter().map(|d| d.reason).collect();
    assert!(reasons.contains("unknown_session") && reasons.contains("server_of_an_app"), "{reasons:?}");
    assert_eq!(desk.site.effects(), ["mark \"meta\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_04_parallel_starts_get_distinct_ids_and_the_cap_holds() {
    let mut app = app();
    app["max_sessions"] = json!(200);
    let desk = Desk::new(ALL, &app, &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let body = json!({ "app": "case" });
    let start = || desk.post(&token, "/v1/sessions", &body);
    let said = futures_all((0..220).map(|_| start())).await;
    let ids: BTreeSet<&str> = said.iter().filter_map(|(_, said)| said["session"].as_str()).collect();
    let refused: Vec<_> = said.iter().filter(|(status, _)| *status != 201).collect();
    assert_eq!((ids.len(), refused.len()), (200, 20));
    assert!(
        refused.iter().all(|(status, said)| *status == 429 && said["error"]["code"] == "too_many_sessions"),
        "s2_56"
    );
    let one = *ids.first().unwrap();
    desk.post(&token, &format!("/v1/sessions/{one}/finalise"), &json!({})).await;
    assert_eq!(start().await.0, 201, "there is room again");
    running.stop();
}

pub async fn futures_all<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures::future::join_all(all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_27_of_many_finalisers_at_once_one_ends_the_session() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let session = desk.start().await;
    let path = format!("/v1/sessions/{session}/finalise");
    let all = futures_all((0..100).map(|_| async { desk.post(&token, &path, &json!({})).await })).await;
    let ended = all.iter().filter(|(_, said)| said["transitioned"] == true).count();
    assert_eq!(ended, 1);
    for (status, said) in &all {
        let busy = *status == 429 && said["error"]["code"] == "session_busy";
        assert!(*status == 200 || busy, "x_12: {status} {said}");
    }
    running.stop();
    assert_eq!(transitions(&desk.site), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_27_a_kill_in_the_middle_of_ending_leaves_one_end() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(desk.start().await);
    }
    let ending = futures_all(ids.iter().map(|id| {
        let url = format!("http://127.0.0.1:{}/v1/sessions/{id}/finalise", desk.site.port);
        let request = desk.http.post(url).bearer_auth(&token).json(&json!({}));
        tokio::spawn(async move { drop(request.send().await) });
        async {}
    }));
    ending.await;
    tokio::time::sleep(Duration::from_millis(3)).await;
    running.kill();
    let running = desk.site.serve();
    for id in &ids {
        let (status, said) = desk.post(&token, &format!("/v1/sessions/{id}/finalise"), &json!({})).await;
        assert_eq!((status, &said["status"]), (200, &json!("unclear")), "{said}");
    }
    running.stop();
    assert_eq!(transitions(&desk.site), 20, "exactly one end each");
}

/// `WARDEN_ONCE_RUNS` says how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_44_of_many_parallel_calls_only_one_is_forwarded_that_policy_allows_once() {
    let policies = r#"
        @id("rest") permit (principal, action, resource) unless { action == Action::"odd/mark" };
        @id("once") permit (principal, action == Action::"odd/mark", resource)
        when { context has session && context.session.facts.marks == 0 };"#;
    let runs = std::env::var("WARDEN_ONCE_RUNS").map_or(5, |runs| runs.parse().unwrap());
    let mut app = app();
    app["max_sessions"] = json!(runs + 1);
    let desk = Desk::new(policies, &app, &json!({}));
    let running = desk.site.serve_classified();
    for run in 0..runs {
        let session = desk.start().await;
        let client = desk.client(Some(&session)).await;
        let calls = (0..64).map(|_| client.refused("mark", json!({ "marker": "once" })));
        let ran = futures_all(calls).await.iter().filter(|refused| refused.is_none()).count();
        assert_eq!((ran, desk.site.effects().len()), (1, run + 1));
        client.close().await;
    }
    running.stop();
    // What was counted is folded from the records: it is the same after a restart.
    let running = desk.site.serve();
    let session = desk.cli(&["session", "list"])["sessions"][0]["session"].as_str().unwrap().to_owned();
    let client = desk.client(Some(&session)).await;
    assert!(client.refused("mark", json!({ "marker": "again" })).await.is_some());
    running.stop();
}

/// What is paused waits for a person; the tool that tells people is `mark`.
fn with_people() -> Value {
    let mut app = app();
    app["terminal_tools"][0] =
        json!({ "tool_name": "mark", "status": "handed_on", "extract_fields": { "marker": ["args.marker"] } });
    app["terminal_tools"].as_array_mut().unwrap().truncate(1);
    app["escalate_action_tool_name"] = json!("mark");
    app["escalate_action_default_team"] = json!("first");
    app["escalation_teams"] = json!(["first", "second"]);
    app
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_37_s2_41_s2_42_s2_43_s2_55_people_take_up_what_waits_and_nothing_else() {
    let desk = Desk::new(ALL, &with_people(), &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let session = desk.start().await;
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let early = desk.site.run(&["session", "resume", &session, "--input", "go on"]);
    assert!(said(&early).contains("not_awaiting_input (status=running)"), "{}", said(&early));
    desk.post(&token, &format!("/v1/sessions/{session}/pause"), &json!({ "reason": "which one?" })).await;
    // Two forms at once, or none that is known, are no decision of a person.
    let both = desk.site.run(&["session", "resume", &session, "--input", "x", "--escalate"]);
    assert_eq!(both.status.code(), Some(3), "s2_55");

    let secret =
        desk.site.run(&["session", "resume", &session, "--input", "use ghp_16C7e42F292c6912E7710c838347Ae178B4a"]);
    assert!(said(&secret).contains("secret"), "{}", said(&secret));
    assert_eq!(desk.site.run(&["session", "resume", &session, "--input", "  "]).status.code(), Some(3));
    // The worker waits for news, and is given what the person wrote.
    let waiting = {
        let (token, session) = (token.clone(), session.clone());
        let http = desk.http.clone();
        let port = desk.site.port;
        tokio::spawn(async move {
            let url = format!("http://127.0.0.1:{port}/v1/sessions/{session}/events?after=1&wait=20");
            http.get(url).bearer_auth(token).send().await.unwrap().json::<Value>().await.unwrap()
        })
    };
    desk.site.ok(&["session", "resume", &session, "--input", "the second one"]);
    let news = waiting.await.unwrap();
    assert_eq!(
        (&news["events"][0]["to"], &news["events"][0]["input"]),
        (&json!("running"), &json!("the second one")),
        "{news}"
    );
    let journal =
        std::fs::read(desk.site.data().join("journal").read_dir().unwrap().next().unwrap().unwrap().path()).unwrap();
    assert!(!String::from_utf8_lossy(&journal).contains("the second one"), "it is sealed");

    desk.post(&token, &format!("/v1/sessions/{session}/pause"), &json!({})).await;
    let unknown = desk.site.run(&["session", "resume", &session, "--escalate", "--team", "marketing"]);
    assert!(said(&unknown).contains("first, second"), "{}", said(&unknown));
    assert_eq!(desk.cli(&["session", "show", &session])["status"], "awaiting_input", "and it can be tried again");
    // Two at once tell people once.
    let both: Vec<_> = (0..2)
        .map(|_| {
            let config = desk.site.dir.join("warden.yaml");
            let args = ["session", "resume", &session, "--escalate", "--team", "second"].map(str::to_owned);
            std::thread::spawn(move || {
                crate::support::warden().arg("--config").arg(config).args(args).output().unwrap()
            })
        })
        .collect();
    let done = both
        .into_iter()
        .filter(|_| true)
        .map(|one| one.join().unwrap())
        .filter(|output| output.status.success())
        .count();
    assert_eq!(done, 1, "s2_44");
    assert_eq!(desk.site.effects(), ["mark \"second\""]);
    let shown = desk.cli(&["session", "show", &session]);
    assert_eq!((&shown["status"], &shown["escalated_to"]), (&json!("handed_on"), &json!("second")), "{shown}");
    assert_eq!(desk.site.run(&["session", "stop", &session]).status.code(), Some(2), "what is over is over");
    running.stop();
    let paged = decisions(&desk.site.data()).into_iter().find(|d| d.caller.as_deref() == Some("operator")).unwrap();
    assert_eq!((paged.worker.as_str(), paged.session.as_deref()), ("assistant", Some(session.as_str())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_37_a_tool_that_fails_leaves_the_session_waiting() {
    let policies = r#"
        @id("all") permit (principal, action, resource);
        @id("never") @reason("never_here") forbid (principal, action == Action::"odd/mark", resource);"#;
    let desk = Desk::new(policies, &with_people(), &json!({}));
    let running = desk.site.serve_classified();
    let session = desk.start().await;
    desk.post(&desk.site.token(), &format!("/v1/sessions/{session}/pause"), &json!({})).await;
    let output = desk.site.run(&["session", "resume", &session, "--escalate"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("resume_failed") && said.contains("never_here"), "{said}");
    let shown = desk.cli(&["session", "show", &session]);
    assert_eq!(shown["status"], "awaiting_input");
    assert!(shown["events"].as_array().unwrap().iter().any(|event| event["event"] == "resume_failed"), "{shown}");
    running.stop();
    assert!(desk.site.effects().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_57_only_what_failed_is_tried_again_and_how_often_is_counted() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let session = desk.start().await;
    let act = async |act: &str| {
        desk.post(&token, &format!("/v1/sessions/{session}/{act}"), &json!({ "reason": "it broke" })).await
    };
    assert_eq!(act("retry").await.0, 409, "it runs");
    assert_eq!(act("fail").await.1["status"], "error");
    let both = futures_all([act("retry"), act("retry")].into_iter()).await;
    let done: Vec<_> = both.iter().filter(|(status, _)| *status == 200).collect();
    assert_eq!(done.len(), 1, "{both:?}");
    assert_eq!((&done[0].1["status"], &done[0].1["retries"]), (&json!("running"), &json!(1)));
    assert_eq!(act("fly").await.0, 404);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_33_s2_54_confidence_gates_and_facts_are_what_policy_sees() {
    let policies = r#"
        @id("rest") permit (principal, action, resource) unless { action == Action::"odd/mark" };
        @id("sure") permit (principal, action == Action::"odd/mark", resource)
        when { context has session && !context.session.gated };
        @id("asked") permit (principal, action == Action::"odd/mark", resource) when { context.acknowledged };"#;
    let mut app = app();
    app["patch_tools"] = json!(["note"]);
    app["risk"] = json!({ "odd/mark": "medium", "odd/note": "low" });
    app["gates"] = json!({ "min_confidence": 0.6 });
    let desk = Desk::new(policies, &app, &json!({}));
    let running = desk.site.serve_classified();
    let session = desk.start().await;
    let client = desk.client(Some(&session)).await;
    let silent = desk.client(Some(&desk.start().await)).await;
    assert_eq!(
        silent.why(&desk, "mark", json!({ "marker": "unasked" })).await,
        None,
        "who says nothing is taken to be sure"
    );
    let noted = client.call("note", json!({ "patch": { "confidence": 0.5, "signal": "needs_input" } })).await;
    assert_eq!(noted["result"]["content"][0]["text"], "done", "{noted}");
    assert_eq!(
        client.why(&desk, "mark", json!({ "marker": "unsure" })).await.as_deref(),
        Some("acknowledgement_required")
    );
    client.call("note", json!({ "patch": { "confidence": 0.6 } })).await;
    assert_eq!(client.why(&desk, "mark", json!({ "marker": "sure" })).await, None, "the threshold itself is enough");
    let shown = desk.cli(&["session", "show", &session]);
    assert_eq!(
        (&shown["confidence"], &shown["signal"], &shown["calls"]),
        (&json!(0.6), &json!("success"), &json!(3)),
        "{shown}"
    );
    running.stop();
    let last = decisions(&desk.site.data()).into_iter().rfind(|d| d.tool.as_deref() == Some("mark")).unwrap();
    let facts = last.context.session.unwrap();
    assert_eq!((facts.calls, facts.same_tool, facts.confidence), (2, 0, Some(600)));
    assert_eq!(
        (facts.signal.as_deref(), json!(facts.facts)),
        (Some("needs_input"), json!({ "marks": 0 })),
        "what was held is given back"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeline_tells_a_session_from_its_start_to_its_end() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let session = desk.start().await;
    let client = desk.client(Some(&session)).await;
    client.call("mark", json!({ "marker": "x" })).await;
    desk.post(&desk.site.token(), &format!("/v1/sessions/{session}/finalise"), &json!({})).await;
    running.stop();
    let told = desk.site.ok(&["session", "timeline", &session]);
    let kinds: Vec<&str> = told.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"session"), "{told}");
    assert!(told.contains("running → done") && told.contains("odd/mark") && told.contains("done "), "{told}");
    assert_eq!(kinds.last(), Some(&"session"), "{told}");
    assert_eq!(desk.site.run(&["session", "timeline", "CASE-20200101-001"]).status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_48_an_app_is_what_it_was_at_the_start_whatever_becomes_of_its_file() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let session = desk.start().await;
    // Half a file, and another schema: nothing of it counts before a restart.
    std::fs::create_dir_all(desk.site.dir.join("apps")).unwrap();
    std::fs::write(desk.site.dir.join("apps/more.yaml"), "session_id_prefix: [").unwrap();
    std::fs::write(desk.site.dir.join("overrides.json"), r#"{"type":"object","maxProperties":0}"#).unwrap();
    let said = json!({ "app": "case", "state_overrides": { "environment": "staging" } });
    assert_eq!(desk.post(&desk.site.token(), "/v1/sessions", &said).await.0, 201);
    let (_, ended) = desk.post(&desk.site.token(), &format!("/v1/sessions/{session}/finalise"), &json!({})).await;
    assert_eq!(ended["status"], "unclear");
    // People can still look, and stop what runs.
    let other = desk.start().await;
    assert!(desk.site.ok(&["session", "list"]).contains(&other));
    desk.site.ok(&["session", "stop", &other, "--reason", "the file is being edited"]);
    running.stop();
    assert_eq!(
        desk.site.run(&["serve"]).status.code(),
        Some(3),
        "and a file that cannot be read is refused at the start"
    );
}

#[test]
fn s2_10_s2_17_an_app_that_cannot_be_is_refused_at_the_start_with_its_place() {
    let mut bad = app();
    bad["terminal_tools"][1]["status"] = json!("ghost");
    let desk = Desk::new(ALL, &bad, &json!({}));
    let output = desk.site.run(&["apps", "check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("apps.case.terminal_tools[1].status='ghost'"), "{said}");
    assert_eq!(desk.site.run(&["serve"]).status.code(), Some(3));

    // A file that was only half written.
    let desk = Desk::new(ALL, &app(), &json!({}));
    std::fs::create_dir_all(desk.site.dir.join("apps")).unwrap();
    std::fs::write(desk.site.dir.join("apps/half.yaml"), "session_id_prefix: HALF\nstatuses:\n  done: { name: do")
        .unwrap();
    let output = desk.site.run(&["apps", "check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("apps/half.yaml"), "{said}");
    std::fs::write(desk.site.dir.join("apps/half.yaml"), "session_id_prefix: HALF\n").unwrap();
    assert!(desk.site.ok(&["apps", "check"]).contains("half: HALF-"), "s2_12: a bare app is one");
    // s2_52: a schema that is none, and one that is not there.
    for (text, word) in [("{", "no JSON"), ("[]", "one JSON object"), (r#"{"type":"nothing"}"#, "no JSON Schema")] {
        std::fs::write(desk.site.dir.join("overrides.json"), text).unwrap();
        let said = String::from_utf8_lossy(&desk.site.run(&["apps", "check"]).stderr).into_owned();
        assert!(
            said.contains(word) && said.contains("apps.case.state_overrides_schema") && said.contains("overrides.json"),
            "{said}"
        );
    }
    std::fs::remove_file(desk.site.dir.join("overrides.json")).unwrap();
    assert_eq!(desk.site.run(&["apps", "check"]).status.code(), Some(3));
}

/// The odd server answers `told` with whatever stands in a file.
fn tells(desk: &Desk, result: &Value) {
    std::fs::write(desk.site.dir.join("effects.told"), result.to_string()).unwrap();
}

fn with_results() -> Value {
    let mut app = app();
    let rule = json!({ "tool_name": "told", "status": "done", "extract_fields": { "deep": ["result.deep"], "large": ["result.large"], "word": ["result.word"] } });
    app["terminal_tools"] = json!([rule]);
    app["state_overrides_schema"] = Value::Null;
    app
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x15_s2_21_whatever_a_session_is_given_can_be_read_back_after_a_kill() {
    let desk = Desk::new(ALL, &with_results(), &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let long = "x".repeat(20 << 10);
    for overrides in [
        json!({ "deep": nested(60) }),
        json!({ "deep": nested(120) }),
        json!({ "long": long }),
        json!({ "many": vec![1; 20_000] }),
    ] {
        let said = json!({ "app": "case", "state_overrides": overrides });
        let (status, answer) = desk.post(&token, "/v1/sessions", &said).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (422, Some("overrides_invalid")), "{answer}");
    }
    let session = desk.start().await;
    let client = desk.client(Some(&session)).await;
    let structured = json!({ "deep": nested(90), "large": vec!["text"; 150_000], "word": "fine" });
    tells(&desk, &json!({ "content": [], "structuredContent": structured }));
    assert!(client.call("told", json!({})).await["error"].is_null());
    desk.post(&token, &format!("/v1/sessions/{session}/finalise"), &json!({})).await;
    running.kill();
    let running = desk.site.serve();
    let (_, said) = desk.get(&token, &format!("/v1/sessions/{session}")).await;
    assert_eq!((&said["status"], &said["fields"]["word"]), (&json!("done"), &json!("fine")), "{said}");
    assert!(said["fields"]["large"].as_str().unwrap().starts_with('…') && said["fields"]["deep"].is_string(), "{said}");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_28_what_only_began_or_asks_back_has_not_run() {
    let desk = Desk::new(ALL, &with_results(), &json!({}));
    let running = desk.site.serve_classified();
    let session = desk.start().await;
    let client = desk.client(Some(&session)).await;
    for unfinished in [
        json!({ "task": { "taskId": "t", "status": "working" } }),
        json!({ "inputRequests": [{ "id": "a" }], "requestState": "s" }),
        json!({ "content": [], "isError": true, "structuredContent": { "word": "no" } }),
    ] {
        tells(&desk, &unfinished);
        client.call("told", json!({})).await;
    }
    let (_, said) = desk.post(&desk.site.token(), &format!("/v1/sessions/{session}/finalise"), &json!({})).await;
    assert_eq!(said["status"], "unclear", "{said}");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_43_a_stopped_session_does_nothing_more_not_even_what_was_granted() {
    let policies = r#"
        @id("rest") permit (principal, action, resource) unless { action == Action::"odd/mark" };
        @id("asked") permit (principal, action == Action::"odd/mark", resource) when { context.acknowledged };"#;
    let desk = Desk::new(policies, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let session = desk.start().await;
    let client = desk.client(Some(&session)).await;
    let held = client.refused("mark", json!({ "marker": "later" })).await.unwrap();
    desk.site.ok(&["ack", "grant", &held, "--reason", "fine"]);
    desk.site.ok(&["session", "stop", &session, "--reason", "enough"]);
    assert_eq!(client.why(&desk, "mark", json!({ "marker": "later" })).await.as_deref(), Some("session_stopped"));
    assert_eq!(client.why(&desk, "echo", json!({ "text": "a" })).await.as_deref(), Some("session_stopped"));
    running.stop();
    assert_eq!(desk.site.effects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x15_a_body_that_says_a_thing_twice_or_what_nobody_asked_is_refused() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let session = desk.start().await;
    let token = desk.site.token();
    let send = async |path: &str, body: &str| {
        let url = format!("http://127.0.0.1:{}{path}", desk.site.port);
        let answer = desk.http.post(url).bearer_auth(&token).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["error"]["message"].to_string())
    };
    let finalise = format!("/v1/sessions/{session}/finalise");
    for (path, body, word) in [
        ("/v1/sessions", r#"{"app":"case","state_overrides":{"environment":"a","environment":"b"}}"#, "is there twice"),
        ("/v1/sessions", r#"{"app":"case","app":"case"}"#, "is there twice"),
        (finalise.as_str(), "garbage", "not JSON"),
        (finalise.as_str(), r#"{"status":"done"}"#, "`status` is no member"),
    ] {
        let (status, said) = send(path, body).await;
        assert!(status == 400 && said.contains(word), "{path} {body}: {status} {said}");
    }
    let (_, shown) = desk.get(&token, &format!("/v1/sessions/{session}")).await;
    assert_eq!((&shown["status"], &shown["terminal"]), (&json!("running"), &json!(false)));
    // Who spoke for its worker is in the log.
    let host = desk.token_of("other", "host");
    let (status, said) = desk.post(&host, &format!("/v1/sessions/{session}/pause"), &json!({})).await;
    assert_eq!(status, 200, "{said}");
    running.stop();
    let callers: Vec<_> = changes(&desk.site)
        .into_iter()
        .filter_map(|(_, event)| match event {
            SessionEvent::Status(changed) => Some(changed.caller),
            _ => None,
        })
        .collect();
    assert_eq!(callers, [Some("other".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_43_s2_49_a_session_stays_whose_it_is_when_its_app_is_gone() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let (open, stopped) = (desk.start().await, desk.start().await);
    desk.site.ok(&["session", "stop", &stopped, "--reason", "enough"]);
    // s2_42: what is over does not wait, and is not stopped again.
    for (args, code) in [
        (["resume", &stopped, "--input", "on"], "not_awaiting_input"),
        (["stop", &stopped, "--reason", "on"], "is_over"),
    ] {
        let output = desk.site.run(&[&["session"], &args[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(&format!("{code} (status=stopped)")), "{said}");
    }
    running.stop();
    desk.configure(&json!({}));
    let running = desk.site.serve();
    let other = desk.token_of("other", "worker");
    for (token, session, why) in [
        (&desk.site.token(), &open, "unknown_app"),
        (&desk.site.token(), &stopped, "unknown_app"),
        (&other, &open, "unknown_session"),
    ] {
        let client = Client::open(&desk, None, "odd", token).await.unwrap();
        let client = Client { session: Some(session.clone()), ..client };
        assert_eq!(client.why(&desk, "echo", json!({ "text": "a" })).await.as_deref(), Some(why));
    }
    running.stop();
    assert_eq!(desk.site.effects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_56_many_sessions_are_open_at_once_and_their_list_has_pages() {
    let many: usize = std::env::var("WARDEN_SESSIONS").map_or(300, |many| many.parse().unwrap());
    let mut app = app();
    app["max_sessions"] = json!(many);
    let desk = Desk::new(ALL, &app, &json!({}));
    let running = desk.site.serve_classified();
    let token = desk.site.token();
    let body = json!({ "app": "case" });
    let mut ids = BTreeSet::new();
    while ids.len() < many {
        let next = (many - ids.len()).min(100);
        let said = futures_all((0..next).map(|_| desk.post(&token, "/v1/sessions", &body))).await;
        ids.extend(
            said.iter().map(|(_, said)| said["session"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()),
        );
    }
    assert_eq!(desk.post(&token, "/v1/sessions", &body).await.0, 429);
    let (mut after, mut listed) = (String::new(), BTreeSet::new());
    loop {
        let (_, page) = desk.get(&token, &format!("/v1/sessions?limit=128&after={after}")).await;
        listed
            .extend(page["sessions"].as_array().unwrap().iter().map(|one| one["session"].as_str().unwrap().to_owned()));
        match page["next_after"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(listed, ids);
    let last = ids.last().unwrap();
    let client = desk.client(Some(last)).await;
    assert_eq!(client.call("mark", json!({ "marker": "x" })).await["result"]["content"][0]["text"], "done");
    running.kill();
    let running = desk.site.serve();
    assert_eq!(
        desk.get(&token, &format!("/v1/sessions/{last}")).await.1["calls"],
        1,
        "all of it is there after a kill"
    );
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workers_own_question_counts_in_no_session_before_a_restart_and_after_it() {
    let desk = Desk::new(ALL, &app(), &json!({}));
    let running = desk.site.serve_classified();
    let (session, token) = (desk.start().await, desk.site.token());
    let question = json!({ "subject": { "type": "Worker", "id": "assistant" }, "action": { "name": "odd/mark" },
        "resource": { "type": "Tool", "id": "odd/mark" }, "context": { "marker": "x" } });
    let url = format!("http://127.0.0.1:{}/access/v1/evaluation", desk.site.port);
    let asked = desk.http.post(url).bearer_auth(&token).header("x-warden-session", &session);
    let answer: Value = asked.json(&question).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["decision"], true, "{answer}");
    assert_eq!(desk.get(&token, &format!("/v1/sessions/{session}")).await.1["calls"], 0);
    running.kill();
    let running = desk.site.serve();
    assert_eq!(desk.get(&token, &format!("/v1/sessions/{session}")).await.1["calls"], 0, "the records say the same");
    running.stop();
}
