//! Tasks with a scope, end to end: what a host declares, what runs, and what asks.

use crate::sessions::{Client, Desk};
use crate::support::decisions;
use serde_json::{Value, json};

const SCOPE: &str = include_str!("../../policies/apps/task-scope.cedar");
const REST: &str = "@id(\"rest\") permit (principal, action, resource) unless { action in Action::\"call_tool\" };";

fn desk() -> Desk {
    let app = json!({ "session_id_prefix": "CASE" });
    Desk::new(&format!("{SCOPE}\n{REST}"), &app, &json!({}))
}

async fn call(desk: &Desk, token: &str, task: &str, marker: &str) -> Option<String> {
    let client = Client::open(desk, None, "odd", token).await.unwrap().in_task(task);
    client.why(desk, "mark", json!({ "marker": marker })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_was_given_for_runs_and_the_rest_asks() {
    let desk = desk();
    let running = desk.site.serve_classified();
    desk.site.ok(&["tools", "classify", "odd/mark", "--authority", "marker"]);
    let shown: Value = serde_json::from_str(&desk.site.ok(&["tools", "show", "odd/mark", "--json"])).unwrap();
    assert_eq!(shown["authority"], json!(["/marker"]), "{shown}");
    let host = desk.token_of("assistant", "host");
    let scope = json!({ "tools": ["odd/mark"], "prompt": "Please mark Anna@Example.com, and nobody else.", "directory": ["ops@example.com"] });
    let (status, opened) = desk.post(&host, "/v1/tasks", &scope).await;
    assert_eq!(status, 201, "{opened}");
    let task = opened["task"].as_str().unwrap().to_owned();
    let own = desk.site.token();
    for (marker, runs) in [
        ("anna@example.com", true),
        ("ops@example.com", true),
        ("eve@example.com", false),
        ("hanna@example.com", false),
    ] {
        let why = call(&desk, &own, &task, marker).await;
        assert_eq!(why, (!runs).then(|| "out_of_task".to_owned()), "{marker}");
    }
    let client = Client::open(&desk, None, "odd", &own).await.unwrap().in_task(&task);
    assert_eq!(client.why(&desk, "echo", json!({ "text": "a" })).await.as_deref(), Some("out_of_task"), "another tool");
    // A task of the worker's own has no scope, and neither has no task at all.
    let (_, plain) = desk.post(&own, "/v1/tasks", &json!({})).await;
    assert_eq!(
        call(&desk, &own, plain["task"].as_str().unwrap(), "anna@example.com").await.as_deref(),
        Some("out_of_task")
    );
    assert_eq!(call(&desk, &own, "", "anna@example.com").await.as_deref(), Some("out_of_task"));
    // Nor does the task of somebody else help.
    let other = desk.token_of("other", "worker");
    assert_eq!(call(&desk, &other, &task, "anna@example.com").await.as_deref(), Some("out_of_task"));
    // It is there after a restart, and gone with the task.
    running.kill();
    let running = desk.site.serve();
    assert_eq!(call(&desk, &own, &task, "anna@example.com").await, None);
    let url = format!("http://127.0.0.1:{}/v1/tasks/{task}", desk.site.port);
    assert_eq!(desk.http.delete(url).bearer_auth(&host).send().await.unwrap().status(), 200);
    assert_eq!(call(&desk, &own, &task, "anna@example.com").await.as_deref(), Some("out_of_task"));
    running.stop();
    assert!(
        std::fs::read_dir(desk.site.data().join("tasks")).unwrap().all(|f| f
            .unwrap()
            .path()
            .extension()
            .is_none_or(|e| e != "scope"))
    );
    let journal: Vec<u8> = desk
        .site
        .data()
        .join("journal")
        .read_dir()
        .unwrap()
        .flat_map(|f| std::fs::read(f.unwrap().path()).unwrap())
        .collect();
    let journal = String::from_utf8_lossy(&journal).into_owned();
    assert!(
        !journal.contains("nobody else") && !journal.contains("ops@example.com\"]"),
        "prompt and directory stand in no record"
    );
    let asked = decisions(&desk.site.data())
        .into_iter()
        .find(|d| d.reason == "out_of_task" && d.tool.as_deref() == Some("mark"))
        .unwrap();
    assert_eq!(asked.context.task.unwrap().scope.unvouched, ["marker"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_is_a_hosts_to_declare_and_has_bounds() {
    let desk = desk();
    let running = desk.site.serve_classified();
    let own = desk.site.token();
    for said in [json!({ "tools": [] }), json!({ "prompt": "x" }), json!({ "directory": [] })] {
        let (status, answer) = desk.post(&own, "/v1/tasks", &said).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (403, Some("hosts_only")), "{said}");
    }
    let host = desk.token_of("assistant", "host");
    for said in [
        json!({ "tools": "odd/mark" }),
        json!({ "prompt": "x".repeat(65 << 10) }),
        json!({ "directory": vec!["x"; 10_001] }),
        json!({ "tools": ["x".repeat(600)] }),
    ] {
        let (status, answer) = desk.post(&host, "/v1/tasks", &said).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("malformed_request")), "{answer}");
    }
    running.stop();
}
