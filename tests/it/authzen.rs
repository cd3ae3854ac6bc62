//! The decision door, as a policy enforcement point sees it.

use crate::support::{PERMIT_ALL, Site, decisions, records};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use std::path::Path;
use warden_core::decision::Enforced;
use warden_core::journal::record::Body;
use warden_core::proposal::Door;

struct Pep {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Pep {
    /// A caller that may ask about everybody.
    fn of(site: &Site) -> Self {
        let issued: Value =
            serde_json::from_str(&site.ok(&["--json", "token", "issue", "assistant", "--role", "pep"])).unwrap();
        Self::new(site, issued["token"].as_str().unwrap())
    }

    fn new(site: &Site, token: &str) -> Self {
        Self { http: reqwest::Client::new(), base: format!("http://127.0.0.1:{}", site.port), token: token.into() }
    }

    async fn post(&self, path: &str, body: String) -> (u16, HeaderMap, String) {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let request = request.header("content-type", "application/json").header("x-request-id", "r-1");
        let response = request.body(body).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.text().await.unwrap())
    }

    async fn ask(&self, request: &Value) -> Value {
        let path = if request.get("evaluations").is_some() { "evaluations" } else { "evaluation" };
        let (status, headers, text) = self.post(&format!("/access/v1/{path}"), request.to_string()).await;
        assert_eq!((status, headers["x-request-id"].to_str().unwrap()), (200, "r-1"), "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// The todo scenario beside the odd server.
fn todo() -> Site {
    let site = Site::odd();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/todo");
    std::fs::create_dir_all(site.dir.join("schemas/site")).unwrap();
    for (from, to) in [
        ("todo.cedarschema", "schemas/site/todo.cedarschema"),
        ("todo.cedar", "policies/todo.cedar"),
        ("entities.json", "entities.json"),
    ] {
        std::fs::copy(source.join(from), site.dir.join(to)).unwrap();
    }
    std::fs::remove_file(site.dir.join("policies/test.cedar")).unwrap();
    site
}

const MORTY: &str = "CiRmZDE2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs";

fn question(subject: &str, action: &str, owner: Option<&str>) -> Value {
    let mut resource = json!({ "type": "todo", "id": "t" });
    if let Some(owner) = owner {
        resource["properties"] = json!({ "ownerID": owner });
    }
    json!({ "subject": { "type": "user", "id": subject }, "action": { "name": action }, "resource": resource })
}

#[tokio::test]
async fn a_pep_asks_about_the_sites_own_things() {
    let site = todo();
    let running = site.serve();
    let pep = Pep::of(&site);
    for (subject, action, owner, expected) in [
        (MORTY, "can_read_todos", None, true),
        (MORTY, "can_create_todo", None, true),
        (MORTY, "can_update_todo", Some("morty@the-citadel.com"), true),
        (MORTY, "can_update_todo", Some("rick@the-citadel.com"), false),
        ("nobody", "can_read_todos", None, true),
        ("nobody", "can_update_todo", Some("nobody"), false),
        (MORTY, "can_fly", None, false),
    ] {
        let answer = pep.ask(&question(subject, action, owner)).await;
        assert_eq!(answer["decision"], expected, "{subject} {action} {owner:?}: {answer}");
        assert!(answer["context"]["id"].is_string() && answer["context"]["verdict"].is_string(), "{answer}");
    }
    // Each is a question of its own, however many there are.
    for number in 0..8 {
        let answer = pep.ask(&question(&format!("u{number}"), "can_create_todo", None)).await;
        assert_eq!(answer["decision"], false);
    }
    // What is not declared cannot decide, and is named.
    let mut more = question(MORTY, "can_update_todo", Some("morty@the-citadel.com"));
    more["context"] = json!({ "time": "2026-11-21T00:00:00Z" });
    assert_eq!(pep.ask(&more).await["decision"], true);
    running.stop();
    let all = decisions(&site.data());
    let asked: Vec<_> = all.iter().filter(|d| d.door == Door::Authzen).collect();
    assert_eq!(asked.len(), 16);
    assert!(asked.iter().all(|d| d.enforced == Enforced::Caller && d.worker == "assistant"));
    assert_eq!(asked[3].principal["id"], MORTY);
    assert_eq!(asked[3].context.input["resource"]["ownerID"], "rick@the-citadel.com");
    assert_eq!(asked[14].principal["id"], "u7");
    assert_eq!(asked[15].context.unseen, ["/time"]);
    assert!(!records(&site.data()).iter().any(|r| matches!(r.body, Body::Outcome(_))), "nothing was forwarded");
    // Replayed, they get the same; without an entity that was there, nothing is guessed.
    let replay = || -> Value { serde_json::from_str(&site.ok(&["--json", "policy", "replay"])).unwrap() };
    let same = replay();
    assert_eq!((&same["changes"], &same["decided"], &same["same"]), (&json!([]), &json!(15), &json!(15)), "{same:#}");
    let file = site.dir.join("entities.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let left: Vec<Value> =
        serde_json::from_str::<Vec<Value>>(&text).unwrap().into_iter().filter(|e| e["uid"]["id"] != MORTY).collect();
    std::fs::write(&file, json!(left).to_string()).unwrap();
    let gone = replay();
    let named = gone["left_out"].as_array().unwrap().iter().find(|l| l["why"] == "an entity that it names is gone");
    assert_eq!((&gone["changes"], &named.unwrap()["count"]), (&json!([]), &json!(5)), "{gone:#}");
}

#[tokio::test]
async fn the_working_groups_questions_all_agree() {
    // The questions are others' data: they are run where they are at hand.
    let Ok(fixtures) = std::env::var("WARDEN_FIXTURES") else { return };
    let text = std::fs::read_to_string(Path::new(&fixtures).join("authzen_todo.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let site = todo();
    let _running = site.serve();
    let pep = Pep::of(&site);
    let mut asked = 0;
    for case in cases["evaluation"].as_array().unwrap() {
        assert_eq!(pep.ask(&case["request"]).await["decision"], case["expected"], "{case}");
        asked += 1;
    }
    for case in cases["evaluations"].as_array().unwrap() {
        let answer = pep.ask(&case["request"]).await;
        let decided: Vec<_> = answer["evaluations"].as_array().unwrap().iter().map(|e| e["decision"].clone()).collect();
        let expected: Vec<_> = case["expected"].as_array().unwrap().iter().map(|e| e["decision"].clone()).collect();
        assert_eq!(decided, expected, "{case}");
        asked += 1;
    }
    assert_eq!(asked, 43);
}

#[tokio::test]
async fn all_three_semantics() {
    let site = todo();
    let _running = site.serve();
    let pep = Pep::of(&site);
    let ask = async |semantic: Option<&str>| {
        let items: Vec<_> = ["can_create_todo", "can_fly", "can_read_todos", "can_fly"]
            .map(|action| json!({ "action": { "name": action } }))
            .into();
        let mut request = question(MORTY, "can_read_todos", None);
        request["evaluations"] = items.into();
        if let Some(semantic) = semantic {
            request["options"] = json!({ "evaluations_semantic": semantic });
        }
        let answer = pep.ask(&request).await;
        answer["evaluations"].as_array().unwrap().iter().map(|e| e["decision"] == true).collect::<Vec<_>>()
    };
    assert_eq!(ask(None).await, [true, false, true, false]);
    assert_eq!(ask(Some("execute_all")).await, [true, false, true, false]);
    assert_eq!(ask(Some("deny_on_first_deny")).await, [true, false]);
    assert_eq!(ask(Some("permit_on_first_permit")).await, [true]);
    let empty = json!({ "evaluations": [], "subject": { "type": "user", "id": MORTY },
        "action": { "name": "can_read_todos" }, "resource": { "type": "todo", "id": "t" } });
    assert_eq!(pep.ask(&empty).await["decision"], true, "none is the single evaluation");
}

#[tokio::test]
async fn a_worker_asks_about_itself_in_the_words_of_policies() {
    let site = Site::odd();
    site.policies(
        r#"@id("echo") permit (principal == Worker::"assistant", action == Action::"odd/echo", resource)
           when { context.input.text != "stop" };
           @id("attended") permit (principal, action == Action::"odd/fail", resource) when { context.acknowledged };"#,
    );
    let running = site.serve_classified();
    let own = Pep::new(&site, &site.token());
    let ask = |worker: &str, tool: &str, context: Value| {
        json!({ "subject": { "type": "Worker", "id": worker }, "action": { "name": format!("odd/{tool}") },
            "resource": { "type": "Tool", "id": format!("odd/{tool}") }, "context": context })
    };
    assert_eq!(own.ask(&ask("assistant", "echo", json!({ "text": "hello" }))).await["decision"], true);
    assert_eq!(own.ask(&ask("assistant", "echo", json!({ "text": "stop" }))).await["decision"], false);
    let held = own.ask(&ask("assistant", "fail", json!({}))).await;
    assert_eq!((&held["decision"], &held["context"]["verdict"]), (&json!(false), &json!("escalate")), "{held}");
    let secret = format!("ghp_{}", "aB3d".repeat(9));
    let found = own.ask(&ask("assistant", "echo", json!({ "text": secret }))).await;
    assert_eq!(found["context"]["reason"], "secret_found");
    let other = own.ask(&ask("other", "echo", json!({ "text": "hello" }))).await;
    assert_eq!(other["context"]["reason"], "subject_of_another");
    let pep = Pep::of(&site);
    let other = pep.ask(&ask("other", "echo", json!({ "text": "hello" }))).await;
    assert_eq!(other["context"]["reason"], "not_on_allowlist");
    let mut wrong = ask("assistant", "echo", json!({ "text": "hello" }));
    wrong["resource"]["id"] = "odd/other".into();
    assert_eq!(pep.ask(&wrong).await["context"]["reason"], "unknown_type");
    running.stop();
    let all = decisions(&site.data());
    let about_other = all.iter().find(|d| d.worker == "other").unwrap();
    assert_eq!(about_other.caller.as_deref(), Some("assistant"));
    let journal =
        std::fs::read(std::fs::read_dir(site.data().join("journal")).unwrap().next().unwrap().unwrap().path());
    assert!(!String::from_utf8_lossy(&journal.unwrap()).contains(&secret));
}

#[tokio::test]
async fn bad_questions_are_named_and_decide_nothing() {
    let site = todo();
    let running = site.serve();
    let pep = Pep::of(&site);
    let good = question(MORTY, "can_read_todos", None);
    let without = |name: &str| {
        let mut question = good.clone();
        question.as_object_mut().unwrap().remove(name);
        question.to_string()
    };
    let many = json!({ "subject": good["subject"], "action": good["action"], "resource": good["resource"],
        "evaluations": vec![json!({}); 10_000] });
    let swollen = json!({ "subject": good["subject"], "action": good["action"], "resource": good["resource"],
        "context": { "text": "x".repeat(1 << 20) }, "evaluations": vec![json!({}); 1000] });
    for (path, body, what) in [
        ("evaluation", "[]".to_owned(), "not one JSON object"),
        ("evaluation", "{".into(), "not JSON"),
        ("evaluation", without("subject"), "subject: missing"),
        ("evaluation", without("resource"), "resource: missing"),
        ("evaluation", r#"{"subject":{"type":"user"}}"#.into(), "action: missing"),
        (
            "evaluation",
            r#"{"subject":{"type":"user"},"action":{"name":"a"},"resource":{"type":"todo","id":"t"}}"#.into(),
            "subject.id",
        ),
        ("evaluation", r#"{"subject":{"type":"user","id":"a"},"subject":{}}"#.into(), "is there twice"),
        (
            "evaluation",
            r#"{"subject":1,"action":{"name":"a"},"resource":{"type":"todo","id":"t"}}"#.into(),
            "subject.type",
        ),
        ("evaluations", r#"{"evaluations":7}"#.into(), "evaluations: it is no array"),
        ("evaluations", r#"{"evaluations":[{}]}"#.into(), "evaluations[0].subject: missing"),
        ("evaluations", r#"{"evaluations":[1]}"#.into(), "evaluations[0]: it is no object"),
        ("evaluations", many.to_string(), "10000, and at most 1000"),
        ("evaluations", swollen.to_string(), "ask for fewer at once"),
    ] {
        let (status, headers, text) = pep.post(&format!("/access/v1/{path}"), body.clone()).await;
        assert!(status == 400 && text.contains(what), "{body}: {status} {text}");
        assert_eq!(headers["x-request-id"], "r-1");
    }
    let stranger = Pep::new(&site, "wdn_nobody");
    assert_eq!(stranger.post("/access/v1/evaluation", good.to_string()).await.0, 401);
    let unknown = json!({ "subject": { "type": "ghost", "id": "a" }, "action": { "name": "can_read_todos" },
        "resource": { "type": "todo", "id": "t" } });
    assert_eq!(pep.ask(&unknown).await["context"]["reason"], "unknown_type");
    running.stop();
    assert_eq!(decisions(&site.data()).len(), 1, "only the last was a question at all");
}

#[tokio::test]
async fn the_door_says_where_it_is() {
    let site = Site::odd();
    let _running = site.serve();
    let base = format!("http://127.0.0.1:{}", site.port);
    let found = reqwest::get(format!("{base}/.well-known/authzen-configuration")).await.unwrap();
    let found: Value = serde_json::from_str(&found.text().await.unwrap()).unwrap();
    assert_eq!(found["policy_decision_point"], base);
    assert_eq!(found["access_evaluation_endpoint"], format!("{base}/access/v1/evaluation"));
    assert_eq!(found["access_evaluations_endpoint"], format!("{base}/access/v1/evaluations"));
}

#[test]
fn a_sites_schema_and_entities_are_checked_like_policies() {
    for (file, text, what) in [
        ("schemas/site/a.cedarschema", "entity Worker;", "entity type `Worker` is declared already"),
        ("schemas/site/a.cedarschema", "entity;", "schemas/a.cedarschema:1:"),
        ("entities.json", "{", "entities.json"),
        (
            "entities.json",
            r#"[{"uid":{"type":"Worker","id":"assistant"},"attrs":{},"parents":[]}]"#,
            "not of a type that the site's schema declares",
        ),
        ("policies/a.cedar", "@id(\"a\") permit (principal is ghost, action, resource);", "ghost"),
    ] {
        let site = Site::odd();
        site.policies(PERMIT_ALL);
        let path = site.dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let output = site.run(&["policy", "check"]);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success() && said.contains(what), "{file}: {said}");
    }
}
