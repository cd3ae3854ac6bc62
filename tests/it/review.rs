//! Who was refused what, by which rule, when: the reviewer's commands, with and without a gateway.

use crate::support::{PERMIT_ALL, Running, Site, Worker, plain_decision, records, scanner, warden};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use warden_adapters::journal::{Journal, Options};
use warden_adapters::view::{self, Query, View};
use warden_core::decision::{Decision, Enforced};
use warden_core::journal::record::{Body, Read, Record};
use warden_core::outcome::{Outcome, Reply};
use warden_core::port::Room;
use warden_core::secrets::Scan;
use warden_core::verdict::Verdict;

const RULES: &str = "@id(\"all\") permit (principal, action, resource);\n// Nobody echoes.\n@id(\"no_echo\")\n@reason(\"no_echo_here\")\n@advice(\"mark instead\")\nforbid (principal, action == Action::\"odd/echo\", resource);\n";

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn query(site: &Site, args: &[&str]) -> Vec<Value> {
    lines(&site.ok(&[&["--json", "audit", "query"], args].concat()))
}

/// A gateway with a host's worker, after some calls of two sessions.
async fn after_some_calls() -> (Site, Running, String) {
    let site = Site::odd();
    site.policies(RULES);
    let running = site.serve_classified();
    let issued = site.ok(&["--json", "token", "issue", "assistant", "--role", "host"]);
    let host = serde_json::from_str::<Value>(&issued).unwrap()["token"].as_str().unwrap().to_owned();
    let mut plain = site.worker().await;
    plain.call("mark", json!({ "marker": "plain" })).await;
    for session in ["s-1", "s-2"] {
        let mut worker = Worker::new(site.port, "odd", &host);
        worker.open().await;
        worker.headers = vec![("x-warden-session", session.to_owned()), ("x-warden-run", format!("run-of-{session}"))];
        worker.call("mark", json!({ "marker": session })).await;
        worker.call("echo", json!({ "text": session })).await;
    }
    plain.headers = vec![("x-warden-session", "s-1".to_owned())];
    plain.call("mark", json!({ "marker": "claims a session that is not its own to name" })).await;
    (site, running, host)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reviewer_finds_a_decision_by_everything_it_is_known_by() {
    let (site, running, _) = after_some_calls().await;
    let newest = query(&site, &["--limit", "1"])[0]["seq"].as_u64().unwrap();
    let look = |site: &Site| {
        let tools = |args: &[&str]| -> Vec<String> {
            query(site, args)
                .iter()
                .map(|r| format!("{} {}", r["tool"].as_str().unwrap_or("-"), r["verdict"].as_str().unwrap_or("-")))
                .collect()
        };
        assert_eq!(tools(&["--reason", "no_echo_here"]), ["echo deny", "echo deny"]);
        assert_eq!(tools(&["--policy", "site/no_echo", "--session", "s-2"]), ["echo deny"]);
        assert_eq!(tools(&["--session", "s-1", "--verdict", "allow"]), ["mark allow"], "a worker names no session");
        assert_eq!(tools(&["--run", "run-of-s-2", "--tool", "odd/mark"]), ["mark allow"]);
        assert_eq!(tools(&["--enforced", "caller"]), Vec::<String>::new());
        assert_eq!(tools(&["--action", "odd/mark", "--worker", "assistant", "--server", "odd"]).len(), 4);
        assert_eq!(tools(&["--task", "none"]), Vec::<String>::new());
        let one = &query(site, &["--session", "s-1", "--tool", "odd/echo"])[0];
        let tag = one["payload_tag"].as_str().unwrap();
        assert_eq!(query(site, &["--fingerprint", tag]).len(), 1);
        // Pages neither overlap nor leave anything out.
        let all: Vec<u64> = query(site, &["--kind", "decision", "--limit", "1000"])
            .iter()
            .map(|r| r["seq"].as_u64().unwrap())
            .collect();
        let (mut paged, mut before) = (Vec::new(), u64::MAX);
        loop {
            let page = query(site, &["--kind", "decision", "--limit", "3", "--before", &before.to_string()]);
            let Some(last) = page.last() else { break };
            before = last["seq"].as_u64().unwrap();
            paged.extend(page.iter().map(|r| r["seq"].as_u64().unwrap()));
        }
        assert_eq!(paged, all);
        let ts =
            |n: usize| query(site, &["--kind", "decision", "--limit", "1000"])[n]["ts"].as_str().unwrap().to_owned();
        let since = query(site, &["--kind", "decision", "--since", &ts(2), "--until", &ts(0)]);
        assert_eq!(since.len(), 2);
        let stats: Value = serde_json::from_str(&site.ok(&["--json", "audit", "stats", "--session", "s-1"])).unwrap();
        assert_eq!(stats["verdicts"], json!({ "allow": 1, "deny": 1 }));
        assert_eq!((&stats["reasons"]["no_echo_here"], &stats["tools"]["odd/mark"]), (&json!(1), &json!(1)));
        let timeline = lines(&site.ok(&["--json", "audit", "timeline", "--session", "s-1"]));
        let kinds: Vec<&str> = timeline.iter().map(|r| r["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["decision", "outcome", "decision"], "{timeline:?}");
    };
    look(&site);
    assert_eq!(query(&site, &["--min-seq", &newest.to_string(), "--limit", "1"]).len(), 1);
    assert!(query(&site, &["--limit", "1000"]).iter().all(|r| r["kind"] != "read"), "looks are hidden");
    let reads = query(&site, &["--kind", "read", "--limit", "1000"]);
    let of = |how: &str| reads.iter().filter(|r| r["how"] == how && r["operator"] == "operator").count();
    assert!(of("query") > 10 && of("stats") == 1 && of("timeline") == 1, "{reads:?}");
    assert!(reads.iter().any(|r| r["query"]["reason"] == "no_echo_here"));
    running.stop();
    look(&site);
    assert_eq!(site.run(&["audit", "query", "--verdict", "maybe"]).status.code(), Some(3));
    assert_eq!(site.run(&["audit", "query", "--since", "yesterday"]).status.code(), Some(3));
    assert_eq!(site.run(&["audit", "timeline"]).status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_shown_with_the_rules_of_its_time() {
    let (site, running, _) = after_some_calls().await;
    let id = query(&site, &["--session", "s-1", "--tool", "odd/echo"])[0]["id"].as_str().unwrap().to_owned();
    // The rule is another one by now.
    site.policies(&RULES.replace("Nobody", "Somebody").replace("mark instead", "ask first"));
    let listed: Value = serde_json::from_str(&site.ok(&["--json", "policy", "list"])).unwrap();
    site.ok(&["policy", "apply", listed["pending"].as_str().unwrap()]);
    let look = |site: &Site| {
        let shown: Value = serde_json::from_str(&site.ok(&["--json", "audit", "show", &id])).unwrap();
        let rule = &shown["rules"][0];
        assert_eq!((&rule["id"], &rule["at"]), (&json!("site/no_echo"), &json!("test.cedar:3")), "{shown}");
        assert!(rule["text"].as_str().unwrap().contains("mark instead"), "{rule}");
        assert_eq!(shown["decision"]["advice"], "mark instead");
        assert!(shown.get("outcome").is_none(), "nothing was forwarded");
        assert_eq!(shown["decision"]["context"]["input"]["text"], "s-1");
        assert!(!shown["before"].as_array().unwrap().is_empty() && !shown["after"].as_array().unwrap().is_empty());
        let seq = shown["decision"]["seq"].to_string();
        let by_number: Value = serde_json::from_str(&site.ok(&["--json", "audit", "show", &seq])).unwrap();
        assert_eq!(by_number["decision"]["id"], id.as_str());
        let text = site.ok(&["audit", "show", &id]);
        for part in [
            "verdict  deny (no_echo_here)",
            "rules of that time",
            "site/no_echo (test.cedar:3)",
            "mark instead",
            "session  s-1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(site.run(&["audit", "show", "nothing"]).status.code(), Some(2));
    };
    look(&site);
    running.stop();
    look(&site);
}

/// Ends what follows when the test does.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_shows_what_matches_as_it_is_decided_and_is_one_look() {
    let site = Site::odd();
    site.policies(RULES);
    let _running = site.serve_classified();
    let mut child = warden()
        .arg("--config")
        .arg(site.dir.join("warden.yaml"))
        .args(["--json", "audit", "query", "--verdict", "deny", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    let follower = Follower(child);
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    let mut worker = site.worker().await;
    for n in 0..3 {
        worker.call("mark", json!({ "marker": n.to_string() })).await;
        worker.call("echo", json!({ "text": n.to_string() })).await;
    }
    for n in 0..3 {
        let record: Value = serde_json::from_str(&shown.next().unwrap().unwrap()).unwrap();
        assert_eq!((&record["tool"], &record["context"]["input"]["text"]), (&json!("echo"), &json!(n.to_string())));
    }
    drop(follower);
    let reads = query(&site, &["--kind", "read"]);
    assert_eq!(reads.iter().filter(|r| r["how"] == "stream").count(), 1, "{reads:?}");
}

fn any_record() -> impl Strategy<Value = Record> {
    let verdict = prop_oneof![Just(Verdict::Allow), Just(Verdict::Deny), Just(Verdict::Escalate)];
    let name = |most: usize| (0..most).prop_map(|n| format!("n{n}"));
    let decision =
        (verdict, name(3), name(2), name(4), proptest::option::of(name(3)), name(3), 0i64..2_000_000, any::<bool>());
    let decision = decision.prop_map(|(verdict, worker, server, reason, session, tag, at, caller)| {
        let decision = Decision {
            server,
            reason: reason.clone(),
            policies: vec![format!("site/{reason}"), "site/both".into()],
            session,
            payload_tag: tag,
            enforced: if caller { Enforced::Caller } else { Enforced::Gateway },
            ..plain_decision(verdict, &worker)
        };
        (at, Body::Decision(Arc::new(decision)))
    });
    let read = (0i64..2_000_000)
        .prop_map(|at| (at, Body::Read(Read { operator: "o".into(), how: "query".into(), query: json!({}) })));
    let outcome = (0i64..2_000_000).prop_map(|at| {
        let id = plain_decision(Verdict::Allow, "w").id;
        (at, Body::Outcome(Outcome::of(id, &Reply::Cancelled, Scan::default(), 1)))
    });
    prop_oneof![6 => decision, 1 => read, 1 => outcome].prop_map(|(at, body)| {
        Record::new(jiff::Timestamp::from_microsecond(1_700_000_000_000_000 + at).unwrap(), body)
    })
}

fn any_query() -> impl Strategy<Value = Query> {
    let some = |most: usize| proptest::option::weighted(0.3, (0..most).prop_map(|n| format!("n{n}")));
    let time = proptest::option::weighted(
        0.3,
        (0i64..2_000_000).prop_map(|at| jiff::Timestamp::from_microsecond(1_700_000_000_000_000 + at).unwrap()),
    );
    let verdict = proptest::option::weighted(0.3, prop_oneof![Just("allow".to_owned()), Just("deny".to_owned())]);
    let kind = proptest::option::weighted(0.3, prop_oneof![Just("decision".to_owned()), Just("read".to_owned())]);
    (
        some(4),
        some(4),
        some(4),
        some(4),
        verdict,
        kind,
        time.clone(),
        time,
        proptest::option::of(0u64..3000),
        1usize..60,
    )
        .prop_map(|(worker, session, fingerprint, reason, verdict, kind, since, until, before, limit)| Query {
            worker,
            session,
            fingerprint,
            reason,
            verdict,
            kind,
            since,
            until,
            before,
            limit: Some(limit),
            ..Query::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is asked, the view answers as a look at every record would; one that was closed and opened, and one that was made
    /// anew, answer the same.
    #[test]
    fn w08_the_view_answers_as_reading_everything_would(
        all in prop::collection::vec(any_record(), 1..2500), queries in prop::collection::vec(any_query(), 12),
        reopened in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let journal = runtime.block_on(async {
            let journal = Journal::open(dir.path(), scanner(), Options { segment_bytes: 1 << 20, reserved_bytes: 16 << 10, ..Options::default() }, &[]).unwrap();
            for part in all.chunks(500) {
                let appends = part.iter().map(|record| journal.append(record.clone(), Room::Ordinary));
                futures::future::join_all(appends).await.into_iter().for_each(|done| { done.unwrap(); });
            }
            journal
        });
        let at = dir.path().join("view");
        let mut reader = journal.reader();
        let stored: Vec<Record> = (0..journal.next_seq()).map(|seq| reader.record(seq).unwrap().unwrap()).collect();
        let first = View::open(&at, 0, journal.next_seq()).unwrap();
        first.catch_up(&mut reader, reopened.index(stored.len()) as u64, |_, _| {}).unwrap();
        first.close().unwrap();
        drop(first);
        let view = View::open(&at, 0, journal.next_seq()).unwrap();
        view.catch_up(&mut reader, journal.next_seq(), |_, _| {}).unwrap();
        let anew = View::open(&dir.path().join("anew"), 0, journal.next_seq()).unwrap();
        anew.catch_up(&mut reader, journal.next_seq(), |_, _| {}).unwrap();
        prop_assert_eq!(view::contents(&view).unwrap(), view::contents(&anew).unwrap());
        for query in queries {
            let expected: Vec<u64> = stored.iter().enumerate().rev().map(|(seq, record)| (seq as u64, record))
                .filter(|(seq, record)| query.before.is_none_or(|before| *seq < before) && query.matches(record))
                .map(|(seq, _)| seq).take(query.limit.unwrap()).collect();
            let found: Vec<u64> = view::run(&view, &mut reader, &query).unwrap().into_iter().map(|(seq, _)| seq).collect();
            prop_assert_eq!(&found, &expected, "{:?}", query);
            let counted = view::stats(&view, &query).unwrap();
            let unlimited = Query { kind: Some("decision".into()), before: None, ..query.clone() };
            let mut verdicts: BTreeMap<String, u64> = BTreeMap::new();
            for record in stored.iter().filter(|record| unlimited.matches(record)) {
                if let Body::Decision(decision) = &record.body {
                    *verdicts.entry(decision.verdict.name().into()).or_default() += 1;
                }
            }
            prop_assert_eq!(counted.verdicts, verdicts, "{:?}", query);
        }
        let ids: BTreeSet<String> = stored.iter().filter_map(|record| match &record.body {
            Body::Decision(decision) => Some(decision.id.to_string()),
            _ => None,
        }).take(5).collect();
        for id in ids {
            prop_assert_eq!(view::of_decision(&view, &mut reader, &id).unwrap().len(), 1);
        }
        journal.close();
    }
}

#[tokio::test]
async fn a_view_that_cannot_be_opened_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("view");
    let record = Record::new(warden_adapters::world::now(), Body::Decision(plain_decision(Verdict::Allow, "w").into()));
    let fill = |view: &View| (view.next()..3000).for_each(|seq| view.add(seq, &record).unwrap());
    let view = View::open(&at, 0, 3000).unwrap();
    fill(&view);
    view.close().unwrap();
    drop(view);
    for file in ["db", "conf"] {
        for damage in [b"".as_slice(), b"garbage garbage garbage garbage garbage garbage garbage garbage garbage"] {
            std::fs::write(at.join(file), damage).unwrap();
            let view = View::open(&at, 0, 3000).unwrap();
            fill(&view);
            let found = view::stats(&view, &Query::default()).unwrap();
            assert_eq!(found.decisions, 3000, "{file} {}", damage.len());
            view.close().unwrap();
        }
    }
    let site = Site::odd();
    site.policies(PERMIT_ALL);
    site.serve().stop();
    std::fs::write(site.data().join("view/db"), "garbage").unwrap();
    let running = site.serve();
    let newest = records(&site.data()).len() - 1;
    assert!(!query(&site, &["--min-seq", &newest.to_string()]).is_empty());
    running.stop();
}
