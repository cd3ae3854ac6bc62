//! Rules in shadow, a site in shadow, and recorded decisions decided again and explained.

use crate::support::{PERMIT_ALL, Running, Site, Worker, decisions, records, refusal};
use serde_json::{Value, json};
use warden_core::decision::Enforced;
use warden_core::journal::record::{Body, PolicyEvent};
use warden_core::verdict::Verdict;

fn json_of(site: &Site, args: &[&str]) -> Value {
    let text = site.ok(&[&["--json"], args].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn apply(site: &Site) {
    let status = json_of(site, &["policy", "list"]);
    site.ok(&["policy", "apply", status["pending"].as_str().unwrap()]);
}

async fn call(worker: &mut Worker, tool: &str, marker: &str) -> bool {
    let answer = worker.call(tool, json!({ "marker": marker })).await;
    answer["result"]["isError"] != true && answer.get("error").is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permit_in_shadow_is_recorded_and_never_decides() {
    let site = Site::odd();
    site.policies(
        "@id(\"connect\") permit (principal, action in Action::\"protocol\", resource);\n\
         @id(\"trial\") @mode(\"shadow\") permit (principal, action in Action::\"call_tool\", resource) when { resource.effect == Effect::\"write\" };",
    );
    let _running = site.serve_classified();
    let mut worker = site.worker().await;
    assert!(!call(&mut worker, "mark", "a").await);
    assert!(site.effects().is_empty(), "a rule in shadow lets nothing through");
    let decided = decisions(&site.data());
    let mark = decided.iter().find(|d| d.tool.as_deref() == Some("mark")).unwrap();
    let would_be = mark.would_be.as_ref().unwrap();
    assert_eq!(
        (mark.verdict, mark.enforced, mark.reason.as_str()),
        (Verdict::Deny, Enforced::Gateway, "not_on_allowlist")
    );
    assert_eq!(
        (would_be.verdict, would_be.policies.as_slice()),
        (Verdict::Allow, ["site/trial".to_owned()].as_slice())
    );
    assert!(decided.iter().filter(|d| d.action == "connect").all(|d| d.would_be.is_none()), "it says nothing of these");
    // Promoted, after its replay: it decides.
    let shown = site.ok(&["policy", "promote", "trial", "--yes"]);
    assert!(shown.contains("deny → allow") && shown.contains("odd/mark"), "{shown}");
    assert!(call(&mut worker, "mark", "b").await);
    assert_eq!(site.effects(), ["mark \"b\""]);
    let moded = records(&site.data()).into_iter().find_map(|record| match record.body {
        Body::Policy(change) if change.event == PolicyEvent::Moded => Some(change),
        _ => None,
    });
    assert_eq!(moded.unwrap().operator.as_deref(), Some("operator"));
    let acts = site.ok(&["--json", "audit", "query", "--kind", "operator"]);
    assert!(acts.contains("policy_promote"), "{acts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbid_goes_into_shadow_by_an_operator_alone_and_comes_back_when_it_is_rewritten() {
    let site = Site::odd();
    let guarded = |reason: &str| {
        format!(
            "{PERMIT_ALL}@id(\"no_mark\") @reason(\"{reason}\") forbid (principal, action == Action::\"odd/mark\", resource);\n"
        )
    };
    site.policies(PERMIT_ALL);
    site.serve_classified().stop();
    // Text alone must not take a guard away.
    site.policies(&guarded("a").replace("@id(\"no_mark\")", "@id(\"no_mark\") @mode(\"shadow\")"));
    let refused = site.run(&["policy", "check", "--error-format", "plain"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("a forbid has no `@mode`"));
    site.policies(&guarded("a"));
    let running = site.serve();
    apply(&site);
    let mut worker = site.worker().await;
    assert!(!call(&mut worker, "mark", "a").await);
    // Nobody looked at a replay: nothing changes.
    assert_eq!(site.run(&["policy", "demote", "no_mark"]).status.code(), Some(3));
    assert!(!call(&mut worker, "mark", "b").await);
    for (id, code, why) in
        [("charter/no_secret", 2, "its rules have no mode"), ("no_mrk", 2, "did you mean `site/no_mark`?")]
    {
        let output = site.run(&["policy", "demote", id, "--yes"]);
        assert_eq!(output.status.code(), Some(code));
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
    }
    // What was shown is what is done, or nothing is.
    let http = reqwest::Client::builder().unix_socket(site.data().join("operator.sock")).build().unwrap();
    let token = std::fs::read_to_string(site.data().join("operator.token")).unwrap();
    let request = http.post("http://localhost/v1/policies/mode").bearer_auth(token.trim());
    let stale = request.json(&json!({ "id": "no_mark", "mode": "shadow", "shown": "sha256:00" })).send().await.unwrap();
    assert_eq!(stale.status().as_u16(), 409);
    let shown = site.ok(&["policy", "demote", "no_mark", "--yes"]);
    assert!(shown.contains("deny → allow"), "{shown}");
    assert!(call(&mut worker, "mark", "c").await);
    let last = decisions(&site.data()).pop().unwrap();
    assert_eq!(
        (last.verdict, last.would_be.as_ref().unwrap().reason.as_str()),
        (Verdict::Allow, "a"),
        "recorded apart"
    );
    assert!(site.ok(&["policy", "list"]).lines().any(|line| line.contains("site/no_mark") && line.contains("shadow")));
    // It stays so over a restart.
    running.stop();
    let _running = site.serve();
    let mut worker = site.worker().await;
    assert!(call(&mut worker, "mark", "d").await);
    // Laid out otherwise it says the same. Saying something else, it is another rule, and decides.
    site.policies(&guarded("b").replace(", resource)", ",\n  resource)"));
    apply(&site);
    assert!(call(&mut worker, "mark", "d2").await);
    site.policies(
        &guarded("b").replace("odd/mark\", resource)", "odd/mark\", resource) when { context.input.marker != \"x\" }"),
    );
    let listed = site.ok(&["policy", "list"]);
    assert!(listed.contains("site/no_mark is live again"), "{listed}");
    apply(&site);
    assert!(!call(&mut worker, "mark", "e").await);
    assert_eq!(site.effects(), ["mark \"c\"", "mark \"d\"", "mark \"d2\""]);
    // And back to what was demoted once: that was said of the rule before, and is forgotten.
    site.policies(&guarded("a"));
    apply(&site);
    assert!(!call(&mut worker, "mark", "f").await);
    // A permit in shadow stays there, whatever it says by now.
    let extra = "@id(\"extra\") permit (principal, action == Action::\"odd/mark\", resource) when { context.input.marker like \"g*\" };\n";
    site.policies(extra);
    apply(&site);
    site.ok(&["policy", "demote", "extra", "--yes"]);
    site.policies(&extra.replace("g*", "*"));
    apply(&site);
    assert!(site.ok(&["policy", "list"]).lines().any(|line| line.contains("site/extra") && line.contains("shadow")));
}

fn in_shadow(site: &Site) -> Running {
    site.serve_with(&["--shadow"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w01_a_site_in_shadow_enforces_nothing_but_the_charter_and_says_so_everywhere() {
    let site = Site::odd();
    site.policies(
        "@id(\"nobody\") permit (principal == Worker::\"other\", action, resource);\n\
         @id(\"broken\") forbid (principal, action == Action::\"odd/number\", resource) when { 9223372036854775807 + context.input.n > 0 };",
    );
    site.serve_classified().stop();
    let running = in_shadow(&site);
    let mut worker = site.worker().await;
    assert!(call(&mut worker, "mark", "through").await, "the site would refuse it");
    assert!(worker.call("number", json!({ "n": 5 })).await.get("error").is_none(), "so would a rule that fails");
    // The charter is enforced: a secret, and what cannot be taken back.
    assert_eq!(
        refusal(&worker.call("mark", json!({ "marker": format!("ghp_{}", "aB3dE5gH7j".repeat(3) + "kL8mN2") })).await)
            .0,
        "denied"
    );
    site.ok(&["tools", "classify", "odd/wait", "irreversible"]);
    assert_ne!(refusal(&worker.call("wait", json!({ "seconds": 0 })).await).0, "none");
    assert_eq!(site.effects(), ["mark \"through\"", "number \"\""]);
    let decided = decisions(&site.data());
    let of = |tool: &str| decided.iter().filter(|d| d.tool.as_deref() == Some(tool)).collect::<Vec<_>>();
    let mark = of("mark");
    assert_eq!(
        (mark[0].verdict, mark[0].enforced, mark[0].reason.as_str()),
        (Verdict::Allow, Enforced::Shadow, "not_enforced")
    );
    let would_be = mark[0].would_be.as_ref().unwrap();
    assert_eq!((would_be.verdict, would_be.reason.as_str()), (Verdict::Deny, "not_on_allowlist"));
    assert_eq!(of("number")[0].would_be.as_ref().unwrap().reason, "policy_error");
    assert_eq!(
        (mark[1].verdict, mark[1].enforced, mark[1].reason.as_str()),
        (Verdict::Deny, Enforced::Gateway, "secret_found")
    );
    assert_eq!(of("wait")[0].enforced, Enforced::Gateway);
    let http = reqwest::Client::builder().unix_socket(site.data().join("operator.sock")).build().unwrap();
    let ready: Value = http.get("http://localhost/readyz").send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["shadow"], true);
    assert!(ready["warnings"][0].as_str().unwrap().starts_with("SHADOW"), "{ready}");
    running.stop();
    let log = std::fs::read_to_string(site.dir.join("log")).unwrap();
    let since = log.find("--shadow").unwrap();
    let from = log[..since].rfind('\n').map_or(0, |at| at + 1);
    assert!(log[from..].lines().all(|line| line.starts_with("[SHADOW: not enforced]")), "{log}");
    assert!(
        records(&site.data())
            .iter()
            .any(|r| matches!(&r.body, Body::Policy(c) if c.event == PolicyEvent::Started && c.shadow))
    );
    // And back: enforced.
    let _running = site.serve();
    let mut worker = Worker::new(site.port, "odd", &site.token());
    assert_ne!(worker.request("initialize", json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } })).await["error"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_decides_again_what_was_recorded_and_guesses_nothing() {
    let site = Site::odd();
    site.configure(
        &json!({ "odd": crate::support::odd_server(&site.dir.join("effects")) }),
        &json!({ "journal": { "segment_mb": 4, "reserved_mb": 1, "levels": { "odd/long": "metadata" } } }),
    );
    let rules = |marker: &str| {
        format!(
            "@id(\"connect\") permit (principal, action in Action::\"protocol\", resource);\n\
            @id(\"marks\") permit (principal, action == Action::\"odd/mark\", resource) when {{ context.input.marker like \"{marker}\" }};\n\
            @id(\"echoes\") permit (principal, action in [Action::\"odd/echo\", Action::\"odd/long\"], resource);\n"
        )
    };
    site.policies(&rules("a*"));
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    for marker in ["apple", "aster", "bean"] {
        call(&mut worker, "mark", marker).await;
    }
    call(&mut worker, "mark", &format!("a{}", "x".repeat(600))).await;
    worker.call("echo", json!({ "text": "y".repeat(600) })).await;
    worker.call("long", json!({ "bytes": 3 })).await;
    worker.call("mark", json!({ "marker": 1 })).await;
    // Under the policies that decided, nothing changes: whatever can be decided again is decided the same.
    let same = json_of(&site, &["policy", "replay"]);
    assert_eq!((&same["changes"], same["decided"] == same["same"]), (&json!([]), true), "{same:#}");
    assert_eq!(same["coverage"]["site/marks"], 2, "{same:#}");
    assert_eq!(same["coverage"]["site/echoes"], 2, "a long text and level `metadata` that no rule reads are no loss");
    let left_out = |told: &Value, why: &str| {
        let all = told["left_out"].as_array().unwrap();
        all.iter().find(|group| group["why"].as_str().unwrap().contains(why)).map(|group| group["count"].clone())
    };
    assert_eq!(left_out(&same, "cut or masked"), Some(json!(1)), "{same:#}");
    assert_eq!(left_out(&same, "before any policy"), Some(json!(1)), "{same:#}");
    // Denials of one kind are counted after the first few: nobody knows what else was in them.
    for number in 0..30 {
        call(&mut worker, "mark", &format!("b{number}")).await;
    }
    // A candidate beside it.
    let candidate = tempfile::tempdir().unwrap();
    let text = rules("b*").replace("@id(\"echoes\")", "@id(\"sized\") permit (principal, action == Action::\"odd/long\", resource) when { context.input.bytes < 9 };\n@id(\"echoes\")").replace("[Action::\"odd/echo\", Action::\"odd/long\"]", "[Action::\"odd/echo\"]");
    std::fs::write(candidate.path().join("c.cedar"), text).unwrap();
    let told =
        json_of(&site, &["policy", "replay", candidate.path().to_str().unwrap(), "--since", "1h", "--threads", "2"]);
    let change = |to: &str| told["changes"].as_array().unwrap().iter().find(|c| c["to"] == to).unwrap().clone();
    let (count, counted) = (change("allow")["count"].as_u64().unwrap(), left_out(&told, "only counted"));
    assert!((2..31).contains(&count) && change("allow")["by"] == "site/marks", "{told:#}");
    let counted = counted.and_then(|counted| counted.as_u64()).unwrap_or_default();
    assert!(count + counted <= 32, "what was counted is not decided again: {told:#}");
    assert_eq!((&change("deny")["count"], &change("deny")["from"]), (&json!(2), &json!("allow")), "{told:#}");
    assert_eq!(change("deny")["tool"], "odd/mark");
    assert_eq!(left_out(&told, "level `metadata`"), Some(json!(1)), "now a rule reads it: {told:#}");
    let text = site.ok(&["policy", "replay", candidate.path().to_str().unwrap()]);
    assert!(
        text.starts_with("coverage: ") && text.contains("deny → allow"),
        "what becomes more allowed stands first: {text}"
    );
    // An example can be explained, by the rules of then and by those of the candidate.
    let id = change("allow")["example"].as_str().unwrap().to_owned();
    let then = json_of(&site, &["policy", "explain", &id]);
    assert_eq!(
        (&then["explanation"]["verdict"], &then["explanation"]["nearest"][0]["changes"]),
        (&json!("deny"), &json!(["`marker` is \"ax\""])),
        "{then:#}"
    );
    let shown = site.ok(&["policy", "explain", &id, "--policies", candidate.path().to_str().unwrap()]);
    assert!(shown.contains("permits it: site/marks"), "{shown}");
    // A candidate that cannot be loaded is said before the log is read.
    std::fs::write(candidate.path().join("c.cedar"), "permit").unwrap();
    let refused = site.run(&["policy", "replay", candidate.path().to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing was replayed"), "{refused:?}");
    // What is gone from the configuration is named, without a gateway as well.
    running.stop();
    site.configure(&json!({}), &json!({}));
    let empty = tempfile::tempdir().unwrap();
    std::fs::write(
        empty.path().join("c.cedar"),
        "@id(\"c\") permit (principal, action in Action::\"protocol\", resource);",
    )
    .unwrap();
    let told = json_of(&site, &["policy", "replay", empty.path().to_str().unwrap()]);
    assert!(left_out(&told, "server not configured").unwrap().as_u64().unwrap() >= 6, "{told:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_explained_by_the_policies_of_its_time() {
    let site = Site::odd();
    let rule = |like: &str| {
        format!(
            "{PERMIT_ALL}@id(\"only\") @reason(\"wrong_mark\") @advice(\"use another mark\") forbid (principal, action == Action::\"odd/mark\", resource)\nunless {{ context.input.marker like \"{like}\" || context.acknowledged }};\n"
        )
    };
    site.policies(&rule("ok-*"));
    let running = site.serve_classified();
    let mut worker = site.worker().await;
    let held = worker.call("mark", json!({ "marker": "no" })).await;
    assert_eq!(refusal(&held).0, "held");
    let id = decisions(&site.data()).into_iter().rev().find(|d| d.tool.is_some()).unwrap().id.to_string();
    site.policies(&rule("*"));
    apply(&site);
    let then = site.ok(&["policy", "explain", &id]);
    assert!(then.starts_with("escalate  wrong_mark  assistant Action::\"odd/mark\""), "{then}");
    assert!(
        then.contains("forbids it, unless a person acknowledges it: site/only")
            && then.contains("advice: use another mark"),
        "{then}"
    );
    assert!(then.contains("allow     if `marker` is \"ok-x\""), "{then}");
    assert!(site.ok(&["policy", "explain", &id, "--now"]).starts_with("allow  allowed"));
    running.stop();
    assert!(site.ok(&["policy", "explain", &id]).starts_with("escalate"), "without a gateway as well");
    let file = site.dir.join("p.json");
    std::fs::write(
        &file,
        json!({ "worker": "assistant", "server": "odd", "tool": "wait", "arguments": { "seconds": 1 } }).to_string(),
    )
    .unwrap();
    assert!(site.ok(&["policy", "explain", file.to_str().unwrap()]).starts_with("allow"));
    assert_eq!(site.run(&["policy", "explain", "01a1ffb5-0000-7000-8000-000000000000"]).status.code(), Some(2));
}
