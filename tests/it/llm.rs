//! The LLM doors, in front of a provider that does its worst.

use crate::llm_provider::{LlmSite, answered, chat, streams};
use crate::support::{decisions, records};
use serde_json::{Value, json};
use std::time::Duration;
use warden_core::journal::record::Body;
use warden_core::outcome::{Happened, Outcome};

const SECRET: &str = "ghp_aB3daB3daB3daB3daB3daB3daB3daB3daB3d";

fn team() -> Value {
    json!({ "team": { "limits": [{ "tokens": 1_000_000, "micro_usd": 1_000_000_000 }] } })
}

fn outcomes(site: &LlmSite) -> Vec<Outcome> {
    let of = |record: warden_core::journal::record::Record| match record.body {
        Body::Outcome(outcome) => Some(outcome),
        _ => None,
    };
    records(&site.site.data()).into_iter().filter_map(of).collect()
}

fn last(site: &LlmSite) -> Value {
    // An outcome is written behind the answer, within moments.
    std::thread::sleep(Duration::from_millis(60));
    serde_json::to_value(outcomes(site).last().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_passes_byte_for_byte_and_carries_its_task() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    let body = r#"{"model":"gpt-x","max_tokens":10,"x_unknown":{"a":1.50,"b":[1e3]},"messages":[{"role":"user","content":"h\u00e9"}]}"#;
    let request = site.http.post(site.url("/v1/chat/completions")).header("api-key", site.site.token());
    let request = request.header("cookie", "mine").header("x-stainless-lang", "python").body(body.to_owned());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (decision, task) =
        (response.headers()["x-warden-decision"].clone(), response.headers()["x-warden-task"].clone());
    assert!(response.text().await.unwrap().contains("\"vendor\":1.5"));
    let came = site.provider.last();
    assert_eq!(came.body["x_unknown"], json!({ "a": 1.50, "b": [1e3] }));
    let header = |name: &str| came.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    assert_eq!(
        (header("authorization"), header("cookie"), header("api-key")),
        (Some("Bearer provider-key"), None, None)
    );
    assert_eq!(header("x-stainless-lang"), Some("python"));
    running.stop();
    let all = decisions(&site.site.data());
    let call = all.iter().find(|d| d.action == "call_engine").unwrap();
    assert_eq!(call.id.as_str(), decision.to_str().unwrap());
    assert_eq!(call.task.as_deref(), Some(task.to_str().unwrap()), "W7: it carries its task");
    assert_eq!(
        call.context.input,
        json!({ "api": "chat", "model": "gpt-x", "stream": false, "tools": [], "max_tokens": 10 })
    );
    let outcome = &outcomes(&site)[0];
    let engine = outcome.engine.as_ref().unwrap();
    assert_eq!((engine.engine.as_str(), engine.task.as_str()), ("mock", task.to_str().unwrap()));
    let settled = serde_json::to_value(&outcome.settled).unwrap();
    assert_eq!(settled, json!({ "tokens": 8, "micro_usd": 11, "basis": "reported" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w04_a_secret_in_a_prompt_never_reaches_the_provider() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    for (path, body) in streams(&format!("use {SECRET}")) {
        let (status, answer) = answered(site.post(path, &body).send().await.unwrap()).await;
        assert_eq!(status, 403, "{answer}");
        assert!(answer.to_string().contains("secret_found"), "{answer}");
    }
    let (status, _) = site.ask("/execute", &json!({ "prompt": SECRET })).await;
    assert_eq!(status, 403);
    let header = site.post("/v1/chat/completions", &chat("hello")).header("x-note", SECRET);
    assert_eq!(header.send().await.unwrap().status(), 403, "nor in a header");
    assert_eq!(site.provider.calls(), 0);
    assert_eq!(site.spent(), (0, 0));
    running.stop();
    assert!(!std::fs::read_to_string(site.site.dir.join("log")).unwrap().contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w04_a_secret_in_an_answer_never_reaches_the_worker() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    for (path, body) in streams("say-secret") {
        let text = site.stream(path, &body).await;
        assert!(!text.contains("aB3daB3d") && text.contains("result_withheld"), "{path}: {text}");
        assert_eq!(last(&site)["happened"], "withheld");
    }
    let (status, answer) = site.chat("say-secret").await;
    assert_eq!((status, answer["error"]["code"].as_str()), (403, Some("result_withheld")), "{answer}");
    running.stop();
    // The operators may prefer what is left of it.
    site.configure(&team(), &json!({ "secrets": { "results": { "call_engine": "redact" } } }));
    let running = site.serve();
    for (path, body) in streams("say-secret") {
        let text = site.stream(path, &body).await;
        assert!(!text.contains("aB3d") && text.contains("[secret:github"), "{path}: {text}");
    }
    let (status, answer) = site.chat("say-secret").await;
    assert_eq!(status, 200);
    assert!(answer.to_string().contains("[secret:github"), "{answer}");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_call_is_a_proposal_of_its_own_and_a_refused_one_becomes_a_text() {
    let site = LlmSite::new(&team());
    let rule = r#"@id("engines") permit (principal, action in [Action::"call_engine", Action::"propose_tool_call"], resource);
@id("no_wipe") @reason("no_wiping") @advice("do not wipe")
forbid (principal, action == Action::"propose_tool_call", resource) when { context.input.tool == "wipe" };"#;
    let running = site.serve();
    for (path, body) in streams("call-tool") {
        assert!(site.stream(path, &body).await.contains("wipe"), "{path}");
    }
    running.stop();
    let all = decisions(&site.site.data());
    assert_eq!(all.iter().filter(|d| d.action == "propose_tool_call").count(), 3, "each is decided");
    assert!(all.iter().filter(|d| d.engine.is_some()).all(|d| d.task.is_some()), "W7");
    site.site.policies(rule);
    let running = site.serve();
    site.site.ok(&[
        "policy",
        "apply",
        &site.operator(&["policy", "list"])[0]["pending"].as_str().map_or_else(|| pending(&site), str::to_owned),
    ]);
    let wholes = [
        ("/v1/chat/completions", chat("call-tool")),
        ("/v1/responses", json!({ "model": "gpt-x", "input": "call-tool" })),
        (
            "/v1/messages",
            json!({ "model": "claude-x", "max_tokens": 9, "messages": [{ "role": "user", "content": "call-tool" }] }),
        ),
        ("/v1beta/models/gemini-x:generateContent", json!({ "contents": [{ "parts": [{ "text": "call-tool" }] }] })),
    ];
    for (path, body) in streams("call-tool").into_iter().chain(wholes) {
        let text = site.stream(path, &body).await;
        assert!(text.contains("no_wiping") && text.contains("do not wipe"), "{path}: {text}");
        for word in ["tool_use\"", "functionCall", "tool_calls\"", "function_call\"", "\\\"/a\\\""] {
            assert!(!text.contains(word), "{path}: `{word}` in {text}");
        }
    }
    running.stop();
}

/// The digest of the policy folder as it is now.
fn pending(site: &LlmSite) -> String {
    let text = site.site.ok(&["policy", "list"]);
    let at = text
        .find("sha256:")
        .map(|_| text.match_indices("sha256:").map(|(at, _)| text[at..at + 71].to_owned()).collect::<Vec<_>>());
    at.unwrap().into_iter().next_back().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_does_wrong_is_settled_recorded_and_told() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    // What happens, the worker's status, the outcome, by what it was settled.
    for (prompt, status, happened, basis) in [
        ("status=429", 429, "failed", "released"),
        ("status=500", 500, "failed", "released"),
        ("garbage", 502, "unknown", "unknown"),
        ("hang-up-first", 502, "unknown", "unknown"),
        ("wait=5000", 504, "unknown", "unknown"),
        ("usage=none", 200, "done", "estimated"),
        ("usage=-5,3", 200, "done", "estimated"),
        ("usage=0,0", 200, "done", "estimated"),
    ] {
        let before = site.spent().0;
        let (said, answer) = site.chat(prompt).await;
        assert_eq!(said, status, "{prompt}: {answer}");
        let outcome = last(&site);
        assert_eq!(outcome["happened"], happened, "{prompt}: {outcome}");
        assert_eq!(outcome["settled"]["basis"], basis, "{prompt}: {outcome}");
        let (spent, reserved) = site.spent();
        assert_eq!(reserved, 0, "{prompt}: nothing stays set aside");
        let reserved = decisions(&site.site.data()).last().unwrap().reserved.as_ref().unwrap().amount.tokens;
        assert_eq!(spent - before, if basis == "released" { 0 } else { reserved }, "{prompt}");
    }
    assert!(site.chat("status=500").await.1["error"]["message"] == "the provider says no", "its own words pass");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_off_is_settled_at_the_estimate_and_nobody_hangs() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    for prompt in ["half", "huge-line", "silent half"] {
        for (path, body) in streams(prompt) {
            let text = tokio::time::timeout(Duration::from_secs(60), site.stream(path, &body)).await.unwrap();
            assert!(text.contains("error"), "{prompt} {path}: {}", &text[..text.len().min(400)]);
            let outcome = last(&site);
            assert_eq!(
                (&outcome["happened"], &outcome["settled"]["basis"]),
                (&json!("unknown"), &json!("unknown")),
                "{prompt} {path}"
            );
        }
    }
    // The worker is gone in the middle.
    for (path, body) in streams("slow=200") {
        let mut response = site.post(path, &body).send().await.unwrap();
        response.chunk().await.unwrap().unwrap();
        drop(response);
        tokio::time::sleep(Duration::from_millis(900)).await;
        let outcome = last(&site);
        assert_eq!(
            (&outcome["happened"], &outcome["settled"]["basis"]),
            (&json!("cancelled"), &json!("unknown")),
            "{path}"
        );
    }
    assert_eq!(site.spent().1, 0);
    let (status, _) = site.chat("and it still serves").await;
    assert_eq!(status, 200);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_its_usage_to_warden_and_not_to_who_did_not_ask() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    let (path, mut body) = streams("usage=40,2")[0].clone();
    let text = site.stream(path, &body).await;
    assert!(!text.contains("usage") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(site.provider.last().body["stream_options"], json!({ "include_usage": true }));
    body["stream_options"] = json!({ "include_usage": true });
    assert!(site.stream(path, &body).await.contains("\"prompt_tokens\":40"));
    for (path, body) in streams("usage=40,2") {
        site.stream(path, &body).await;
        assert_eq!(last(&site)["settled"]["tokens"], 42, "{path}");
    }
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_none_is_told_so_in_the_apis_own_shape() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    let raw = |path: &str, body: &'static str| site.http.post(site.url(path)).bearer_auth(site.site.token()).body(body);
    for (path, body, status, says) in [
        ("/v1/chat/completions", "{", 400, "malformed_request"),
        ("/v1/chat/completions", r#"{"model":"gpt-x","model":"gpt-y"}"#, 400, "there twice"),
        ("/v1/chat/completions", "{}", 400, "`model`"),
        ("/v1/chat/completions", r#"{"model":"gpt-x","max_tokens":-1}"#, 400, "`max_tokens`"),
        ("/v1/chat/completions", r#"{"model":"nobody","messages":[]}"#, 404, "unknown_model"),
        ("/v1/messages", r#"{"model":"gpt-x","messages":[]}"#, 404, "\"type\":\"not_found_error\""),
        ("/v1beta/models/gemini-x:fly", "{}", 404, "\"status\":\"NOT_FOUND\""),
        ("/v1beta/models/..%2f..%2fx:generateContent", "{}", 400, "INVALID_ARGUMENT"),
        ("/execute", r#"{"prompt":7}"#, 400, "`prompt`"),
    ] {
        let response = raw(path, body).send().await.unwrap();
        let (said, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert_eq!(said, status, "{path} {body}: {text}");
        assert!(text.contains(says), "{path} {body}: {text}");
    }
    let nobody = site.http.post(site.url("/v1/messages")).header("x-api-key", "guess").body("{}").send().await.unwrap();
    let (status, answer) = answered(nobody).await;
    assert_eq!((status, &answer["error"]["type"]), (401, &json!("authentication_error")));
    // Out of all proportion, and within nobody's budget.
    let huge = json!({ "model": "gpt-x", "n": 9, "max_tokens": 18_446_744_073_709_551_615u64, "messages": [] });
    assert_eq!(site.ask("/v1/chat/completions", &huge).await.0, 402);
    assert_eq!(site.provider.calls(), 0);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_18_each_try_is_decided_and_each_engine_in_its_place_is_a_proposal_of_its_own() {
    let site = LlmSite::new(&team());
    let mut engines = site.provider.engines();
    engines["mock"]["retries"] = json!(2);
    engines["mock"]["fallback"] = json!(["spare"]);
    engines["spare"] = engines["mock"].clone();
    engines["spare"]["fallback"] = json!([]);
    engines["spare"]["retries"] = json!(0);
    // The first choice is the one that names the model; both do.
    engines["mock"]["models"] = json!(["gpt-x"]);
    site.configure(
        &team(),
        &json!({ "engines": engines, "workers": { "assistant": { "budget": "team", "engine": "mock" } } }),
    );
    let running = site.serve();
    let (status, _) = site.chat("status=503").await;
    assert_eq!(status, 503);
    assert_eq!(site.provider.calls(), 4, "three tries, and the spare");
    assert_eq!(site.spent(), (0, 0), "a refusal costs nothing");
    let (status, _) = answered(
        site.post("/v1/chat/completions", &chat("wait=2000"))
            .header("x-warden-timeout-ms", "300")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(status, 504, "the caller's time-out bounds it all");
    let calls = site.provider.calls();
    let (status, _) = answered(
        site.post("/v1/chat/completions", &chat("a")).header("x-warden-timeout-ms", "0").send().await.unwrap(),
    )
    .await;
    assert_eq!((status, site.provider.calls()), (504, calls), "no time, nothing sent");
    running.stop();
    let engines: Vec<_> = decisions(&site.site.data()).into_iter().filter_map(|d| d.engine).take(4).collect();
    assert_eq!(engines, ["mock", "mock", "mock", "spare"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_22_a_prompt_is_answered_by_any_engine() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    for (model, engine) in [("gpt-x", "mock"), ("claude-x", "claude"), ("gemini-x", "gemini"), ("connect-1", "connect")]
    {
        let body = json!({ "prompt": "hello", "model": model, "something": "unknown" });
        let (status, answer) = site.ask("/execute", &body).await;
        assert_eq!(status, 200, "{model}: {answer}");
        assert_eq!((&answer["content"], &answer["engine"]), (&json!("hello world"), &json!(engine)), "{answer}");
        assert_eq!(answer["usage"], json!({ "input_tokens": 5, "output_tokens": 3 }));
        assert!(answer["task"].is_string() && answer["decision"].is_string());
    }
    let (status, answer) =
        site.ask("/execute", &json!({ "prompt": "hello", "engine": "claude", "model": "claude-x" })).await;
    assert_eq!((status, &answer["engine"]), (200, &json!("claude")));
    let (status, answer) = site.ask("/execute", &json!({ "prompt": "status=429", "model": "gpt-x" })).await;
    assert_eq!((status, &answer["error"]["message"]), (429, &json!("the provider says no")));
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_16_a_program_gets_the_prompt_on_its_input_and_ends_with_its_call() {
    let site = LlmSite::new(&team());
    let fake = site.site.dir.join("claude.py");
    std::fs::write(
        &fake,
        r#"import sys, json, os, time
if "--version" in sys.argv:
    print("1.2.3 (fake)"); sys.exit(0)
assert "-p" in sys.argv and "hello" not in " ".join(sys.argv)
text = sys.stdin.read()
open(os.path.join(os.path.dirname(__file__), "pid"), "w").write(str(os.getpid()))
if "fail" in text:
    sys.stderr.write("it failed: " + text); sys.exit(3)
if "flood" in text:
    while True: sys.stdout.write("x" * 65536)
if "sleep" in text:
    time.sleep(60)
print(json.dumps({"type": "result", "is_error": False, "result": "you said " + text, "usage": {"input_tokens": 4, "output_tokens": 6}}))
"#,
    )
    .unwrap();
    let mut engines = site.provider.engines();
    engines["code"] = json!({ "kind": "claude-code", "command": ["python3", fake], "models": ["code"], "retries": 0, "timeout_s": 3,
        "prices": { "as_of": "2026-11-01", "models": { "code": { "input": 1, "output": 1 } } } });
    engines["gone"] = json!({ "kind": "claude-code", "command": ["/nowhere/claude"], "models": ["gone"], "retries": 0,
        "prices": { "as_of": "2026-11-01", "models": { "gone": { "input": 1, "output": 1 } } } });
    site.configure(&team(), &json!({ "engines": engines }));
    let running = site.serve();
    let ask =
        async |prompt: &str, model: &str| site.ask("/execute", &json!({ "prompt": prompt, "model": model })).await;
    let (status, answer) = ask("hello", "code").await;
    assert_eq!((status, &answer["content"]), (200, &json!("you said hello")), "{answer}");
    assert_eq!(last(&site)["settled"]["tokens"], 10);
    for (prompt, model, status) in
        [("fail", "code", 502), ("flood", "code", 502), ("sleep", "code", 504), ("hello", "gone", 502)]
    {
        assert_eq!(ask(prompt, model).await.0, status, "{prompt} {model}");
        assert_eq!(site.spent().1, 0, "{prompt}");
        if model == "code" {
            let pid: u32 = std::fs::read_to_string(site.site.dir.join("pid")).unwrap().parse().unwrap();
            let running =
                || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
            for _ in 0..50 {
                if !running() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(!running(), "{prompt}: the process is gone");
        }
    }
    assert_eq!(last(&site)["happened"], "not_sent");
    let pinged = site.site.run(&["--json", "engines", "ping"]);
    assert_eq!(pinged.status.code(), Some(2), "one of them is not there");
    let pinged = String::from_utf8(pinged.stdout).unwrap();
    assert!(pinged.contains("1.2.3 (fake)"), "{pinged}");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_14_s0_17_engines_are_chosen_in_order_and_kept_to_their_zone() {
    let site = LlmSite::new(&team());
    let zones = json!({ "eu": { "allow": ["claude"] }, "none": { "allow": ["claude"], "deny": ["claude"] } });
    let workers = json!({ "assistant": { "budget": "team", "zone": "eu" }, "other": {} });
    site.configure(&team(), &json!({ "zones": zones, "workers": workers }));
    let running = site.serve();
    let (status, answer) = site.chat("hello").await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("engine_not_in_zone")), "{answer}");
    assert_eq!(site.provider.calls(), 0);
    let claude = json!({ "model": "claude-x", "max_tokens": 9, "messages": [{ "role": "user", "content": "hello" }] });
    assert_eq!(site.ask("/v1/messages", &claude).await.0, 200);
    let unknown = site.post("/v1/messages", &claude).header("x-warden-engine", "nobody").send().await.unwrap();
    assert_eq!(unknown.status(), 200, "an unknown wish falls to the next, with a warning");
    let wrong = site.post("/v1/messages", &claude).header("x-warden-engine", "mock").send().await.unwrap();
    assert_eq!(wrong.status(), 400, "an engine that lacks the API is no silent detour");
    let engines: Value = site
        .http
        .get(site.url("/v1/engines"))
        .bearer_auth(site.site.token())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let available =
        |id: &str| engines["engines"].as_array().unwrap().iter().find(|e| e["id"] == id).unwrap()["available"] == true;
    assert!(available("claude") && !available("mock"), "{engines}");
    running.stop();
    let log = std::fs::read_to_string(site.site.dir.join("log")).unwrap();
    assert!(log.contains("no such engine"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_is_shown_to_operators() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    site.chat("usage=40,2").await;
    site.chat("hello").await;
    assert_eq!(last(&site)["happened"], serde_json::to_value(Happened::Done).unwrap());
    let (by_worker, by_engine) =
        (site.operator(&["budget", "list", "--by", "worker"]), site.operator(&["budget", "list", "--by", "engine"]));
    assert_eq!(by_worker["name"], "assistant");
    assert_eq!((&by_engine["calls"], &by_engine["spent"]["tokens"]), (&json!(2), &json!(50)));
    let by_task = site.operator(&["budget", "list", "--by", "task"]);
    assert_eq!((&by_task["ambient"], &by_task["calls"]), (&json!(true), &json!(2)));
    assert!(site.site.ok(&["budget", "list"]).contains("team"));
    assert!(site.site.ok(&["engines", "list"]).contains("2026-11-01"));
    let http = reqwest::Client::builder().unix_socket(site.site.data().join("operator.sock")).build().unwrap();
    let metrics = http.get("http://localhost/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        r#"warden_engine_calls_total{engine="mock",outcome="done"} 2"#,
        r#"warden_engine_tokens_total{engine="mock",direction="in"} 45"#,
        r#"warden_budget_spent{budget="team",unit="tokens"} 50"#,
        r#"warden_budget_reserved{budget="team",unit="tokens"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_traced_where_operators_ask_for_it_and_nothing_of_what_is_said() {
    let (listener, told) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), std::sync::mpsc::channel());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some(body) = crate::llm_provider::one_post(&stream) {
                let _ = told.0.send(body);
            }
        }
    });
    let traces = json!({ "url": format!("http://127.0.0.1:{port}/v1/traces") });
    let site = LlmSite::with(&team(), &json!({ "traces": traces }));
    let running = site.serve();
    site.chat("usage=40,2 a-very-private-word").await;
    site.chat(&format!("a-very-private-word {SECRET}")).await;
    // Whatever is left is told at the end.
    running.stop();
    let mut spans = Vec::new();
    while spans.len() < 2 {
        let body = told.1.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(!body.to_string().contains("private-word"));
        let scope = &body["resourceSpans"][0]["scopeSpans"][0];
        assert_eq!(scope["schemaUrl"], "https://opentelemetry.io/schemas/1.37.0");
        spans.extend(scope["spans"].as_array().unwrap().clone());
    }
    let attribute = |span: &Value, name: &str| {
        let all = span["attributes"].as_array().unwrap();
        all.iter()
            .find(|a| a["key"] == name)
            .map(|a| a["value"]["stringValue"].as_str().or(a["value"]["intValue"].as_str()).unwrap().to_owned())
    };
    let called = spans.iter().find(|span| attribute(span, "warden.verdict").as_deref() == Some("allow")).unwrap();
    assert_eq!((&called["name"], &called["kind"]), (&json!("chat gpt-x"), &json!(3)));
    for (name, value) in [
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-x"),
        ("gen_ai.usage.input_tokens", "40"),
        ("gen_ai.usage.output_tokens", "2"),
        ("warden.engine", "mock"),
    ] {
        assert_eq!(attribute(called, name).as_deref(), Some(value), "{name}");
    }
    let id = attribute(called, "warden.decision").unwrap();
    assert_eq!(called["traceId"], id.replace('-', ""));
    let denied = spans.iter().find(|span| attribute(span, "warden.verdict").as_deref() == Some("deny")).unwrap();
    assert_eq!(
        (attribute(denied, "error.type").as_deref(), &denied["status"]),
        (Some("secret_found"), &json!({ "code": 2 }))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_tokens_costs_none_and_paths_that_are_not_served_say_so() {
    let site = LlmSite::new(&team());
    let running = site.serve();
    let body = json!({ "model": "claude-x", "messages": [{ "role": "user", "content": "hello" }] });
    assert_eq!(site.ask("/v1/messages/count_tokens?beta=true", &body).await.0, 200);
    assert_eq!(site.spent(), (0, 0));
    let secret = json!({ "model": "claude-x", "messages": [{ "role": "user", "content": SECRET }] });
    assert_eq!(site.ask("/v1/messages/count_tokens", &secret).await.0, 403, "it is looked at like any other call");
    let (status, answer) = site.ask("/v1/embeddings", &body).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("no_such_path")));
    let get = site.http.get(site.url("/v1/responses")).bearer_auth(site.site.token()).send().await.unwrap();
    assert_eq!(get.status(), 426);
    running.stop();
}
