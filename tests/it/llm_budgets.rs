//! Budgets hold: in a model, under 64 callers at once, over drops, time-outs and `kill -9`.

use crate::llm_provider::{LlmSite, chat};
use crate::support::{number, records};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use warden_core::amount::{Amount, Unit};
use warden_core::budget::ledger::{Ledger, Reservation};
use warden_core::budget::{Budget, Budgets, Each, Limit, Per};
use warden_core::journal::record::Body;
use warden_core::proposal::{Correlation, DecisionId};

const WORKERS: [&str; 3] = ["wa", "wb", "wc"];

fn tokens(total: u64, per: Per) -> Limit {
    Limit { unit: Unit::Tokens, total, per }
}

/// `a` above `b` above `c`, each with a worker; `b` counts by the hour, `c` by session as well.
fn tree() -> Budgets {
    let budget =
        |parent: Option<&str>, limits| Budget { parent: parent.map(str::to_owned), limits, ..Budget::default() };
    let mut c = budget(Some("b"), vec![tokens(60, Per::Day)]);
    c.each = BTreeMap::from([(Each::Session, vec![tokens(25, Per::Life)])]);
    let money = Limit { unit: Unit::MicroUsd, total: 90, per: Per::Life };
    let all = [
        ("a", budget(None, vec![tokens(200, Per::Life), money])),
        ("b", budget(Some("a"), vec![tokens(50, Per::Hour)])),
        ("c", c),
    ];
    let workers = WORKERS.into_iter().zip(["a", "b", "c"]).map(|(worker, of)| (worker.to_owned(), of.to_owned()));
    let all = all.into_iter().map(|(name, budget)| (name.to_owned(), budget));
    Budgets::new(all.collect(), workers.collect(), BTreeMap::new()).unwrap()
}

#[derive(Clone, Debug)]
enum Act {
    Reserve { worker: usize, session: u8, amount: Amount, minutes: i64 },
    Settle { which: usize, percent: u64 },
    Release { which: usize },
    Grant { budget: usize, amount: Amount },
    Freeze { budget: usize, frozen: bool },
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let amount = || (0u64..30, 0u64..12).prop_map(|(tokens, micro_usd)| Amount { tokens, micro_usd });
    prop_oneof![
        // The clock goes back at times.
        6 => (0usize..3, 0u8..3, amount(), -40i64..90).prop_map(|(worker, session, amount, minutes)| Act::Reserve { worker, session, amount, minutes }),
        4 => (any::<usize>(), 0u64..101).prop_map(|(which, percent)| Act::Settle { which, percent }),
        2 => any::<usize>().prop_map(|which| Act::Release { which }),
        1 => (0usize..3, amount()).prop_map(|(budget, amount)| Act::Grant { budget, amount }),
        1 => (0usize..3, any::<bool>()).prop_map(|(budget, frozen)| Act::Freeze { budget, frozen }),
        1 => Just(Act::Crash),
    ]
}

/// What happened, kept as it happened: every sum is made anew from it.
#[derive(Default)]
struct Plain {
    /// Each call: its chain, its time, what it is counted with, and whether it is over.
    calls: Vec<(DecisionId, Reservation, Option<Amount>, bool)>,
    grants: Vec<(String, Amount, Timestamp)>,
    frozen: BTreeMap<String, bool>,
    latest: Timestamp,
}

impl Plain {
    fn used(&self, node: &str, limit: &Limit, at: Timestamp) -> u64 {
        let counts = |time: Timestamp| limit.per.window(time) >= limit.per.window(at);
        let of = self.calls.iter().filter(|call| call.1.budgets.iter().any(|name| name == node));
        of.map(|(_, reservation, used, over)| match (over, used) {
            (false, _) => reservation.amount.of(limit.unit),
            (true, Some(used)) if counts(reservation.at) => used.of(limit.unit),
            (true, _) => 0,
        })
        .sum()
    }

    /// What was let through in the window of `at`, and is not given back.
    fn admitted(&self, node: &str, limit: &Limit, at: Timestamp) -> u64 {
        let counts = |time: Timestamp| limit.per.window(time) >= limit.per.window(at);
        let of = self.calls.iter().filter(|call| counts(call.1.at) && call.1.budgets.iter().any(|name| name == node));
        of.map(|(_, reservation, used, over)| match (over, used) {
            (false, _) => reservation.amount.of(limit.unit),
            (true, used) => used.unwrap_or_default().of(limit.unit),
        })
        .sum()
    }

    fn total(&self, node: &str, limit: &Limit, at: Timestamp) -> u64 {
        let granted =
            self.grants.iter().filter(|(of, _, time)| of == node && limit.per.window(*time) >= limit.per.window(at));
        limit.total + granted.map(|(_, amount, _)| amount.of(limit.unit)).sum::<u64>()
    }

    fn fits(&self, budgets: &Budgets, chain: &[String], amount: Amount, at: Timestamp) -> bool {
        chain.iter().all(|node| {
            !self.frozen.get(node).copied().unwrap_or(false)
                && budgets.limits(node).iter().all(|limit| {
                    let left = self.total(node, limit, at).saturating_sub(self.used(node, limit, at));
                    left > 0 && amount.of(limit.unit) <= left
                })
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The ledger says yes exactly where a plain sum over all that happened does, and nothing is ever over its ceiling.
    #[test]
    fn w06_the_ledger_is_what_a_plain_sum_says(acts in proptest::collection::vec(act(), 1..80)) {
        let (budgets, mut ledger, mut plain) = (tree(), Ledger::default(), Plain::default());
        let mut clock = Timestamp::from_second(1_790_000_000).unwrap();
        plain.latest = Timestamp::default();
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Reserve { worker, session, amount, minutes } => {
                    clock = clock.checked_add(jiff::SignedDuration::from_mins(minutes)).unwrap();
                    let session = (session > 0).then(|| format!("s{session}"));
                    let chain = budgets.chain(WORKERS[worker], &Correlation { session, ..Correlation::default() });
                    let id = DecisionId::new(format!("{number:04}"));
                    let at = clock.max(plain.latest);
                    let fits = plain.fits(&budgets, &chain, amount, at);
                    let reserved = ledger.reserve(&budgets, &id, chain.clone(), (amount, true), clock);
                    prop_assert_eq!(reserved.is_ok(), fits, "{:?}", reserved);
                    if let Ok((reservation, _)) = reserved {
                        prop_assert_eq!(&reservation, &Reservation { budgets: chain, amount, at });
                        ledger.keep(&id);
                        // What is not recorded leaves nothing behind.
                        let before = ledger.clone();
                        let denied = DecisionId::new("denied");
                        if ledger.reserve(&budgets, &denied, reservation.budgets.clone(), (Amount::ZERO, true), clock).is_ok() {
                            ledger.settle(&denied, None);
                        }
                        prop_assert_eq!(&ledger, &before);
                        plain.latest = at;
                        plain.calls.push((id, reservation, None, false));
                    }
                }
                Act::Settle { which, percent } if !plain.calls.is_empty() => {
                    let which = which % plain.calls.len();
                    let (id, reservation, used, over) = &mut plain.calls[which];
                    let part = |n: u64| n * percent / 100;
                    let amount = Amount { tokens: part(reservation.amount.tokens), micro_usd: part(reservation.amount.micro_usd) };
                    // Settled twice, the second time says nothing.
                    prop_assert_eq!(ledger.settle(id, Some(amount)).is_some(), !*over);
                    if !*over {
                        (*used, *over) = (Some(amount), true);
                    }
                }
                Act::Release { which } if !plain.calls.is_empty() => {
                    let which = which % plain.calls.len();
                    let (id, _, _, over) = &mut plain.calls[which];
                    prop_assert_eq!(ledger.settle(id, None).is_some(), !*over);
                    *over = true;
                }
                Act::Grant { budget, amount } => {
                    let name = ["a", "b", "c"][budget];
                    // Windows go by the latest time that was seen.
                    let at = clock.max(plain.latest);
                    ledger.grant(name, amount, at);
                    plain.grants.push((name.into(), amount, at));
                    plain.latest = plain.latest.max(at);
                }
                Act::Freeze { budget, frozen } => {
                    let name = ["a", "b", "c"][budget];
                    ledger.freeze(name, frozen, clock);
                    plain.frozen.insert(name.into(), frozen);
                }
                Act::Crash => {
                    // What is on its way is settled at the estimate.
                    for (id, reservation, used, over) in plain.calls.iter_mut().filter(|call| !call.3) {
                        ledger.settle(id, Some(reservation.amount));
                        (*used, *over) = (Some(reservation.amount), true);
                    }
                    // And everything is read again from what was kept.
                    let text = serde_json::to_string(&ledger).unwrap();
                    ledger = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(ledger.open(), 0);
                }
                Act::Settle { .. } | Act::Release { .. } => {}
            }
            let at = clock.max(plain.latest);
            for (name, node) in ledger.nodes() {
                for limit in budgets.limits(name) {
                    let (total, used) = (plain.total(name, limit, at), plain.used(name, limit, at));
                    // What is on its way from an earlier window may be more than this one has: it counts in that one.
                    let here = plain.admitted(name, limit, at);
                    prop_assert!(here <= total, "{name}: {here} of {total}");
                    prop_assert_eq!(node.left(limit, at), total.saturating_sub(used), "{} {:?}", name, limit);
                }
            }
        }
    }

    /// Whatever order records of calls that were on their way at once come to stand in, they add up to the same.
    #[test]
    fn a_ledger_made_of_records_is_the_one_that_wrote_them(amounts in proptest::collection::vec((1u64..9, 0usize..3, 0i64..200), 1..20), seed in any::<u64>()) {
        let (budgets, mut live, mut kept) = (tree(), Ledger::default(), Ledger::default());
        let mut records = Vec::new();
        let mut clock = Timestamp::from_second(1_790_000_000).unwrap();
        for (number, (amount, worker, minutes)) in amounts.into_iter().enumerate() {
            clock = clock.checked_add(jiff::SignedDuration::from_mins(minutes)).unwrap();
            let id = DecisionId::new(format!("{number:04}"));
            let chain = budgets.chain(WORKERS[worker], &Correlation::default());
            let amount = Amount { tokens: amount, micro_usd: 0 };
            if let Ok((reservation, _)) = live.reserve(&budgets, &id, chain, (amount, true), clock) {
                live.keep(&id);
                records.push((id, reservation));
            }
        }
        // Two neighbours change places as their records are written.
        if records.len() > 1 {
            let at = usize::try_from(seed % (records.len() as u64 - 1)).unwrap();
            records.swap(at, at + 1);
        }
        for (id, reservation) in &records {
            kept.set_aside(id.clone(), reservation.clone());
        }
        prop_assert_eq!(&live, &kept);
        for (number, (id, reservation)) in records.iter().enumerate() {
            let used = (number % 3 > 0).then_some(reservation.amount);
            live.settle(id, used);
        }
        for (number, (id, reservation)) in records.iter().enumerate().rev() {
            let used = (number % 3 > 0).then_some(reservation.amount);
            kept.settle(id, used);
        }
        prop_assert_eq!(live, kept);
    }
}

/// Callers at once.
const CALLERS: usize = 64;
/// Calls that the budget is for.
const CALLS: u64 = 20;

/// A call that is known to use what it is reserved at, to the token.
fn exact(wait_ms: u64, number: usize) -> (Value, u64) {
    let text = |input: u64| format!("usage={input:04},10 wait={wait_ms:04} call={number:06}");
    let bytes = chat(&text(0)).to_string().len() as u64;
    let input = bytes + 32;
    (chat(&text(input)), input + 10)
}

fn chain_of_three() -> Value {
    let wide = json!([{ "tokens": 1_000_000_000 }]);
    // Nothing to begin with: each run is granted what it needs.
    json!({ "a": { "limits": [{ "tokens": 0 }] }, "b": { "parent": "a", "limits": wide }, "c": { "parent": "b", "limits": wide } })
}

/// Sums over the journal: reported, unknown or estimated.
fn settled(site: &LlmSite) -> (u64, u64) {
    let (mut reported, mut guessed) = (0, 0);
    for record in records(&site.site.data()) {
        if let Body::Outcome(outcome) = record.body
            && let Some(settled) = outcome.settled
        {
            match serde_json::to_value(settled.basis).unwrap().as_str().unwrap() {
                "reported" => reported += settled.amount.tokens,
                "released" => assert_eq!(settled.amount.tokens, 0),
                _ => guessed += settled.amount.tokens,
            }
        }
    }
    (reported, guessed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Delays,
    Drops,
    Kill,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w06_s3_07_s3_09_sixty_four_callers_over_a_chain_never_overspend() {
    let workers: serde_json::Map<String, Value> = WORKERS
        .into_iter()
        .zip(["a", "b", "c"])
        .map(|(worker, budget)| (worker.to_owned(), json!({ "budget": budget })))
        .chain([("assistant".to_owned(), json!({}))])
        .collect();
    let site = Arc::new(LlmSite::with(&chain_of_three(), &json!({ "workers": workers })));
    let mut running = site.serve();
    let mut tokens_of = Vec::new();
    for worker in WORKERS {
        let issued = site.operator(&["token", "issue", worker]);
        tokens_of.push(issued["token"].as_str().unwrap().to_owned());
    }
    let seed = number("WARDEN_SEED", 7) as u64;
    let mut chance = fastrand_like(seed);
    for run in 0..number("WARDEN_BUDGET_RUNS", 8) {
        let trouble = [Trouble::None, Trouble::Delays, Trouble::Drops, Trouble::Kill][run % 4];
        let (_, each) = exact(0, 0);
        let root = site.operator(&["budget", "show", "a"]);
        let left = root["limits"][0]["left"].as_u64().unwrap();
        let needed = (CALLS * each).checked_sub(left).unwrap();
        if needed > 0 {
            site.operator(&["budget", "grant", "a", "--tokens", &needed.to_string()]);
        }
        let before = site.provider.calls();
        let answered = Arc::new(AtomicUsize::new(0));
        let mut callers = Vec::new();
        for caller in 0..CALLERS {
            let (site, token, answered) = (site.clone(), tokens_of[caller % 3].clone(), answered.clone());
            let wait = match trouble {
                Trouble::None => 0,
                _ => chance() % 40,
            };
            let late = trouble == Trouble::Drops && chance().is_multiple_of(5);
            let drops = trouble == Trouble::Drops && chance().is_multiple_of(3);
            let patience = Duration::from_millis(if drops { chance() % 60 } else { 30_000 });
            let start = Duration::from_millis(if trouble == Trouble::None { 0 } else { chance() % 80 });
            callers.push(tokio::spawn(async move {
                tokio::time::sleep(start).await;
                let (body, _) = exact(if late { 900 } else { wait }, run * 100 + caller);
                let mut request = site.http.post(site.url("/v1/chat/completions")).bearer_auth(token).json(&body);
                if late {
                    request = request.header("x-warden-timeout-ms", "150");
                }
                let Ok(Ok(response)) = tokio::time::timeout(patience, request.send()).await else { return };
                if response.status() == 200 && response.text().await.is_ok() {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        if trouble == Trouble::Kill {
            tokio::time::sleep(Duration::from_millis(20 + chance() % 60)).await;
            running.kill();
            running = site.serve();
        }
        for caller in callers {
            caller.await.unwrap();
        }
        // What was dropped may still be on its way.
        for _ in 0..200 {
            if site.operator(&["budget", "show", "a"])["reserved"]["tokens"] == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        let reached = (site.provider.calls() - before) as u64;
        assert!(reached <= CALLS, "run {run} ({trouble:?}): {reached} calls reached the provider");
        let root = site.operator(&["budget", "show", "a"]);
        let of = |name: &str| root["limits"][0][name].as_u64().unwrap();
        assert_eq!(of("reserved"), 0, "run {run} ({trouble:?})");
        assert!(of("spent") <= of("total") + of("granted"), "run {run}: {root}");
        if matches!(trouble, Trouble::None | Trouble::Delays) {
            assert_eq!(reached, CALLS, "run {run} ({trouble:?})");
            assert_eq!((answered.load(Ordering::SeqCst) as u64, of("left")), (CALLS, 0), "run {run} ({trouble:?})");
        }
        let (reported, guessed) = settled(&site);
        assert_eq!(
            of("spent"),
            reported + guessed,
            "run {run} ({trouble:?}): reported {reported}, at the estimate {guessed}"
        );
    }
    running.stop();
    println!("calls that reached the provider: {}", site.provider.calls());
}

/// A generator with a seed, so that a run can be made again.
fn fastrand_like(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_24_what_was_spent_survives_a_kill_exactly_and_what_was_sent_is_settled() {
    let site =
        LlmSite::new(&json!({ "team": { "limits": [{ "tokens": 100_000 }, { "tokens": 50_000, "per": "day" }] } }));
    let running = site.serve();
    site.chat("usage=40,2").await;
    site.site.ok(&["budget", "grant", "team", "--tokens", "7"]);
    let slow = site.post("/v1/chat/completions", &chat("wait=3000"));
    let on_its_way = tokio::spawn(async move { drop(slow.send().await) });
    while site.spent().1 == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (spent, reserved) = site.spent();
    assert_eq!(spent, 42);
    running.kill();
    let running = site.serve();
    assert_eq!(site.spent(), (42 + reserved, 0), "what was sent counts as the estimate");
    let team = site.operator(&["budget", "show", "team"]);
    assert_eq!((&team["limits"][0]["granted"], &team["limits"][1]["granted"]), (&json!(7), &json!(7)));
    let _ = on_its_way.await;
    // A snapshot of the state stands for the records before it.
    running.stop();
    let running = site.serve();
    assert_eq!(site.spent(), (42 + reserved, 0));
    running.stop();
    let crashed = records(&site.site.data()).into_iter().filter_map(|record| match record.body {
        Body::Outcome(outcome) if outcome.lost.is_some() => Some(serde_json::to_value(outcome).unwrap()),
        _ => None,
    });
    let crashed: Vec<Value> = crashed.collect();
    assert_eq!(crashed.len(), 1);
    assert_eq!((&crashed[0]["settled"]["basis"], &crashed[0]["engine"]["engine"]), (&json!("unknown"), &json!("mock")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x13_s3_06_a_budget_that_is_used_up_is_told_in_each_apis_words_and_nothing_is_sent() {
    let site = LlmSite::new(
        &json!({ "team": { "parent": "firm", "limits": [{ "tokens": 1000 }] }, "firm": { "limits": [{ "tokens": 0, "per": "day" }] } }),
    );
    let running = site.serve();
    let all = [
        ("/v1/chat/completions", chat("hello"), "/error/code", "/error/warden/budget"),
        ("/v1/responses", json!({ "model": "gpt-x", "input": "hello" }), "/error/code", "/error/warden/budget"),
        (
            "/v1/messages",
            json!({ "model": "claude-x", "max_tokens": 9, "messages": [] }),
            "/error/code",
            "/error/warden/budget",
        ),
        (
            "/v1beta/models/gemini-x:generateContent",
            json!({ "contents": [] }),
            "/error/details/0/reason",
            "/error/warden/budget",
        ),
        ("/execute", json!({ "prompt": "hello", "model": "gpt-x" }), "/error/code", "/error/warden/budget"),
    ];
    for (path, body, code, budget) in all {
        let (status, answer) = site.ask(path, &body).await;
        assert_eq!((status, answer.pointer(code)), (402, Some(&json!("budget_exceeded"))), "{path}: {answer}");
        let budget = answer.pointer(budget).unwrap();
        assert_eq!(
            (&budget["budget"], &budget["remaining"]),
            (&json!("firm"), &json!(0)),
            "{path}: the ancestor is named"
        );
        assert!(budget["requested"].as_u64().unwrap() > 0);
    }
    assert_eq!(site.provider.calls(), 0);
    site.site.ok(&["budget", "grant", "firm", "--tokens", "1000"]);
    assert_eq!(site.chat("hello").await.0, 200);
    site.site.ok(&["budget", "freeze", "firm"]);
    let (status, answer) = site.chat("hello").await;
    assert_eq!((status, &answer["error"]["code"]), (402, &json!("budget_frozen")));
    site.site.ok(&["budget", "freeze", "firm", "--off"]);
    assert_eq!(site.chat("hello").await.0, 200);
    // Nobody but an operator of this name has done it.
    running.stop();
    let acts: Vec<Value> = records(&site.site.data())
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Budget(change) => Some(serde_json::to_value(change).unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(acts.len(), 3);
    assert!(acts.iter().all(|act| act["operator"] == "operator" || act["operator"].is_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_08_an_answer_that_overshoots_is_recorded_first_and_kept_back() {
    let site = LlmSite::new(&json!({ "team": { "limits": [{ "tokens": 500 }] } }));
    let running = site.serve();
    let (status, answer) = site.chat("usage=900,90").await;
    assert_eq!((status, &answer["error"]["code"]), (402, &json!("budget_exceeded")), "{answer}");
    let budget = &answer["error"]["warden"]["budget"];
    assert_eq!((&budget["phase"], &budget["requested"]), (&json!("post"), &json!(990)), "{answer}");
    assert_eq!(site.spent(), (990, 0), "usage is never lost");
    assert_eq!(site.chat("hello").await.0, 402, "and later calls are refused");
    assert_eq!(site.provider.calls(), 1);
    running.kill();
    let running = site.serve();
    assert_eq!(site.spent(), (990, 0), "not by a crash either");
    running.stop();
    // A setting hands it on.
    let site = LlmSite::new(&json!({ "team": { "limits": [{ "tokens": 500 }], "overshoot": "return" } }));
    let running = site.serve();
    assert_eq!(site.chat("usage=900,90").await.0, 200);
    assert_eq!(site.chat("hello").await.0, 402);
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_without_a_price_is_refused_where_money_counts_and_only_there() {
    let claude = json!({ "model": "claude-x", "max_tokens": 9, "messages": [] });
    let mut site = LlmSite::new(&json!({ "team": { "limits": [{ "micro_usd": 1_000_000 }] } }));
    let mut engines = site.provider.engines();
    engines["claude"].as_object_mut().unwrap().remove("prices");
    site.configure(&json!({ "team": { "limits": [{ "micro_usd": 1_000_000 }] } }), &json!({ "engines": engines }));
    let running = site.serve();
    let (status, answer) = site.ask("/v1/messages", &claude).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("price_missing")), "{answer}");
    assert_eq!(site.chat("hello").await.0, 200, "one that has a price is served");
    running.stop();
    site.configure(&json!({ "team": { "limits": [{ "tokens": 1_000_000 }] } }), &json!({ "engines": engines }));
    let running = site.serve();
    assert_eq!(site.ask("/v1/messages", &claude).await.0, 200);
    running.stop();
    site.provider.port = 0;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_23_policies_see_what_is_left_and_an_answer_without_a_bound_gets_one() {
    let site = LlmSite::new(&json!({ "team": { "limits": [{ "tokens": 10_000 }] } }));
    site.site.policies(
        r#"@id("engines") permit (principal, action == Action::"call_engine", resource)
when { context has budget && context.budget has tokens_left && context.budget.tokens_left > 5000
  && context has task && context.task.ambient };"#,
    );
    let running = site.serve();
    let unbound = json!({ "model": "gpt-x", "messages": [{ "role": "user", "content": "usage=100,6000" }] });
    assert_eq!(site.ask("/v1/chat/completions", &unbound).await.0, 200);
    assert_eq!(site.provider.last().body["max_completion_tokens"], 100, "the engine's bound is added");
    let (status, answer) = site.ask("/v1/chat/completions", &unbound).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("not_on_allowlist")), "{answer}");
    assert_eq!(site.spent().1, 0, "a denial gives it back");
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_may_be_a_share_of_each_session_and_a_tool_may_cost() {
    let site = LlmSite::new(&json!({}));
    let limits = json!({ "team": { "limits": [{ "tokens": 100_000, "micro_usd": 1000 }], "each_session": [{ "tokens": 300 }] } });
    let odd = crate::support::odd_server(&site.site.dir.join("effects"));
    let mut server = odd.clone();
    server["cost"] = json!({ "echo": { "micro_usd": 300 } });
    let workers = json!({ "assistant": { "budget": "team" } });
    let engines = site.provider.engines();
    site.site
        .configure(&json!({ "odd": server }), &json!({ "budgets": limits, "engines": engines, "workers": workers }));
    site.site.policies(crate::support::PERMIT_ALL);
    let running = site.site.serve_classified();
    let host = site.operator(&["token", "issue", "assistant", "--role", "host"])["token"].as_str().unwrap().to_owned();
    let call = async |session: &str| {
        let request = site.http.post(site.url("/v1/chat/completions")).bearer_auth(&host);
        request.header("x-warden-session", session).json(&chat("usage=90,10")).send().await.unwrap().status().as_u16()
    };
    assert_eq!(call("one").await, 200);
    assert_eq!(call("one").await, 200);
    assert_eq!(call("one").await, 402, "its share is used up");
    assert_eq!(call("two").await, 200, "another session has its own");
    let team = site.operator(&["budget", "show", "team"]);
    assert_eq!(team["shared"].as_array().unwrap().len(), 2, "{team}");
    let mut worker = site.site.worker().await;
    for expected in ["none", "none", "denied"] {
        let answer = worker.call("echo", json!({ "text": "a" })).await;
        assert_eq!(crate::support::refusal(&answer).0, expected, "{answer}");
    }
    let team = site.operator(&["budget", "show", "team"]);
    let tools = 600;
    let calls: u64 = 3 * (90 + 20);
    assert_eq!(team["spent"]["micro_usd"], tools + calls, "{team}");
    running.stop();
}
