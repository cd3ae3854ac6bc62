//! Acknowledgements held against their promises: random interleavings of everything that workers, operators, the clock and crashes do.

use crate::oracle::Chance;
use crate::support::scanner;
use crate::support_policy::source;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use warden_core::ack::{AckEvent, Runs};
use warden_core::decision::{Decision, Sealed};
use warden_core::journal::record::{Body, Record};
use warden_core::journal::state::State;
use warden_core::json::{Json, Limits};
use warden_core::mcp;
use warden_core::outcome::{Happened, Reply};
use warden_core::pipeline::ack::{self, Grant, Live};
use warden_core::pipeline::{self, Answer, Gate, Permit, Upstream};
use warden_core::policy::snapshot::Snapshot;
use warden_core::port::{Clock, Ids, Journal, JournalError, Receipt, Room, SealFailed, Vault};
use warden_core::proposal::{Correlation, DecisionId, Proposal};
use warden_core::rpc::Message;
use warden_core::secrets::Scanner;
use warden_core::verdict::Verdict;

const HELD_FOR: SignedDuration = SignedDuration::from_secs(100);
const ALLOWED: &str = r#"
    @id("held") permit (principal, action in Action::"call_tool", resource) when { context.acknowledged };
    @id("people") permit (principal is Operator, action == Action::"acknowledge", resource);
"#;
const FORBIDDEN: &str = r#"
    @id("people") permit (principal is Operator, action == Action::"acknowledge", resource);
"#;

/// What a crash leaves: the records that were synced, and the keys.
#[derive(Default)]
struct Disk {
    records: Mutex<Vec<Arc<Record>>>,
    synced: Mutex<usize>,
    keys: Mutex<HashMap<DecisionId, ()>>,
    results: Mutex<HashMap<DecisionId, Vec<u8>>>,
}

#[derive(Clone)]
struct Memory {
    disk: Arc<Disk>,
    now: Arc<AtomicI64>,
    ids: Arc<AtomicU64>,
    /// Appends fail as long as it is above 0.
    failing: Arc<AtomicU64>,
    scanner: Arc<Scanner>,
}

impl Journal for Memory {
    async fn append(&self, record: Record, _room: Room) -> Result<Receipt, JournalError> {
        tokio::task::yield_now().await;
        if self.failing.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok() {
            return Err(JournalError::Full);
        }
        let mut records = self.disk.records.lock().unwrap();
        records.push(Arc::new(record));
        *self.disk.synced.lock().unwrap() = records.len();
        Ok(Receipt { seq: records.len() as u64 - 1 })
    }

    async fn note(&self, record: Record) {
        self.disk.records.lock().unwrap().push(Arc::new(record));
    }

    async fn decision_at(&self, seq: u64) -> Option<Decision> {
        tokio::task::yield_now().await;
        match &self.disk.records.lock().unwrap().get(usize::try_from(seq).unwrap())?.body {
            Body::Decision(decision) => Some(Decision::clone(decision)),
            _ => None,
        }
    }
}

impl Clock for Memory {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now.fetch_add(1, Ordering::AcqRel)).unwrap()
    }
}

impl Ids for Memory {
    fn decision(&self, _now: Timestamp) -> DecisionId {
        DecisionId::new(format!("d{:06}", self.ids.fetch_add(1, Ordering::AcqRel)))
    }
}

impl Vault for Memory {
    fn seal(&self, id: &DecisionId, proposal: &[u8]) -> Result<Sealed, SealFailed> {
        self.disk.keys.lock().unwrap().insert(id.clone(), ());
        let ct = String::from_utf8(proposal.to_vec()).unwrap();
        Ok(Sealed { kid: id.to_string(), nonce: String::new(), ct })
    }

    fn unseal(&self, id: &DecisionId, sealed: &Sealed) -> Result<Vec<u8>, SealFailed> {
        let there = self.disk.keys.lock().unwrap().contains_key(id) && sealed.kid == id.as_str();
        there.then(|| sealed.ct.clone().into_bytes()).ok_or_else(|| SealFailed("no key".into()))
    }

    fn seal_input(&self, _: &str, _: &DecisionId, _: &[u8]) -> Result<Sealed, SealFailed> {
        Err(SealFailed("not here".into()))
    }

    fn keep(&self, id: &DecisionId, result: &[u8]) -> Result<(), SealFailed> {
        self.disk.results.lock().unwrap().insert(id.clone(), result.to_vec());
        Ok(())
    }

    fn kept(&self, id: &DecisionId) -> Result<Vec<u8>, SealFailed> {
        self.disk.results.lock().unwrap().get(id).cloned().ok_or_else(|| SealFailed("nothing is kept".into()))
    }

    fn destroy(&self, id: &DecisionId) -> Result<(), SealFailed> {
        self.disk.keys.lock().unwrap().remove(id);
        self.disk.results.lock().unwrap().remove(id);
        Ok(())
    }

    fn scanner(&self) -> &Arc<Scanner> {
        &self.scanner
    }
}

/// What really happened: the decision that allowed it, and the arguments that arrived.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Vec<(DecisionId, Value)>>>);

impl Upstream for World {
    async fn forward(&self, permit: Permit) -> Reply {
        let decision = permit.decision().clone();
        let message: Value = serde_json::from_str(permit.into_payload().as_str()).unwrap();
        self.0.lock().unwrap().push((decision, message["params"]["arguments"].clone()));
        tokio::task::yield_now().await;
        let raw = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#.to_owned();
        Reply::Answered { raw, body: Json::Object(vec![("content".into(), Json::Array(vec![]))]), is_error: false }
    }
}

/// An upstream during whose work the power goes.
struct PowerCut<'w>(&'w World);

impl Upstream for PowerCut<'_> {
    async fn forward(&self, permit: Permit) -> Reply {
        self.0.forward(permit).await;
        std::future::pending().await
    }
}

struct Sim {
    memory: Memory,
    gate: Gate<Memory>,
    world: World,
    site: &'static str,
    rpc: u64,
}

fn call(marker: usize, worker: &str, rpc: u64) -> Proposal {
    let text = json!({ "jsonrpc": "2.0", "id": rpc, "method": "tools/call",
        "params": { "name": "write", "arguments": { "path": format!("m{marker}"), "count": marker }, "_meta": { "n": rpc } } });
    let message = Message::parse(text.to_string().as_bytes(), Limits::default()).unwrap();
    let mut proposal = mcp::propose(mcp::From::Worker, message, worker, &format!("c{rpc}"), "alpha").unwrap();
    proposal.correlation = Correlation { session: Some("s".into()), ..Correlation::default() };
    proposal
}

impl Sim {
    fn new() -> Self {
        let memory = Memory {
            disk: Arc::default(),
            now: Arc::new(AtomicI64::new(1_700_000_000_000)),
            ids: Arc::default(),
            failing: Arc::default(),
            scanner: scanner(),
        };
        let gate = Gate::new(memory.clone(), snapshot(ALLOWED)).holding(Default::default(), HELD_FOR);
        Self { memory, gate, world: World::default(), site: ALLOWED, rpc: 0 }
    }

    /// What was not synced is gone, and so is everything in memory.
    async fn crash(&mut self) {
        let records: Vec<_> = {
            let mut records = self.memory.disk.records.lock().unwrap();
            records.truncate(*self.memory.disk.synced.lock().unwrap());
            records.clone()
        };
        let mut state = State::default();
        for (seq, record) in records.iter().enumerate() {
            state.apply(seq as u64, record);
        }
        self.memory.failing.store(0, Ordering::Release);
        let open: Vec<_> = state.open.keys().cloned().collect();
        self.gate.acks(|live| *live = Live::of(state.acks));
        pipeline::settle_crashed(&self.gate, open).await.unwrap();
    }

    fn proposal(&mut self, chance: &mut Chance) -> Proposal {
        self.rpc += 1;
        call(chance.below(3), "ann", self.rpc)
    }

    /// Some id that was ever held; those that still are, more often.
    fn held(&self, chance: &mut Chance) -> DecisionId {
        let (now, over): (Vec<_>, Vec<_>) = self.gate.acks(|live| {
            let kept = live.acks.kept.keys().cloned();
            (live.acks.parked.keys().cloned().chain(kept).collect(), live.acks.ended.keys().cloned().collect())
        });
        let from = if over.is_empty() || (!now.is_empty() && chance.below(4) > 0) { now } else { over };
        if from.is_empty() { DecisionId::new("nobody") } else { from[chance.below(from.len())].clone() }
    }

    async fn grant(&self, id: &DecisionId, operator: &str, runs: Runs) -> bool {
        let grant = Grant { id, operator, reason: "looks fine", hash: None, scope: None };
        ack::grant(&self.gate, grant, |_| runs).await.is_ok()
    }
}

fn snapshot(site: &str) -> Snapshot {
    let mut source = source(site, None);
    source.workers.retain(|worker| worker.name == "ann");
    source.workers[0].owner = Some("olga".into());
    source.servers = vec!["alpha".into()];
    source.catalogue.servers.remove("beta");
    source.catalogue.servers.get_mut("alpha").unwrap().retain(|name, _| name == "write");
    Snapshot::build(source).unwrap()
}

async fn step(sim: &mut Sim, chance: &mut Chance) {
    let runs = if chance.below(2) == 0 { Runs::Now } else { Runs::OnRepeat };
    match chance.below(24) {
        0..6 => {
            let proposal = sim.proposal(chance);
            pipeline::handle(&sim.gate, proposal, &sim.world).await;
        }
        6..11 => {
            let id = sim.held(chance);
            // The worker itself and its owner try as well.
            let operator = chance.one(&["alice", "alice", "bob", "ann", "Ann", "olga"]);
            let granted = sim.grant(&id, operator, runs).await;
            assert!(!granted || ["alice", "bob"].contains(&operator), "{operator} granted what is their own");
        }
        11 => {
            let id = sim.held(chance);
            let _ = ack::refuse(&sim.gate, &id, "bob", "no").await;
        }
        12..15 => {
            let id = sim.held(chance);
            ack::run_now(&sim.gate, &id, &sim.world).await;
        }
        15 | 16 => {
            let id = sim.held(chance);
            let worker = chance.one(&["ann", "ann", "bob"]);
            let answer = ack::collect(&sim.gate, &id, worker, Some(&sim.world)).await;
            assert!(worker == "ann" || matches!(answer, Answer::Refused(_)), "another worker was given something");
        }
        17 => {
            sim.memory.now.fetch_add(20_000 + 1000 * chance.below(60) as i64, Ordering::AcqRel);
            let _ = ack::expire(&sim.gate).await;
        }
        18 => sim.crash().await,
        // The power goes while something is on its way.
        19 => {
            let (id, proposal) = (sim.held(chance), sim.proposal(chance));
            let cut = PowerCut(&sim.world);
            let work = async {
                match chance.below(3) {
                    0 => drop(ack::run_now(&sim.gate, &id, &cut).await),
                    1 => drop(ack::collect(&sim.gate, &id, "ann", Some(&cut)).await),
                    _ => drop(pipeline::handle(&sim.gate, proposal, &cut).await),
                }
            };
            let many = async {
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! { () = work => {} () = many => {} }
            sim.crash().await;
        }
        // Everything at once.
        20 | 21 => {
            let id = sim.held(chance);
            let (one, other) = (sim.proposal(chance), sim.proposal(chance));
            let (gate, world) = (&sim.gate, &sim.world);
            let grant = || Grant { id: &id, operator: "alice", reason: "r", hash: None, scope: None };
            tokio::join!(
                async { drop(pipeline::handle(gate, one, world).await) },
                async { drop(ack::grant(gate, grant(), |_| runs).await) },
                async { drop(ack::refuse(gate, &id, "bob", "no").await) },
                async { drop(ack::run_now(gate, &id, world).await) },
                async { drop(pipeline::handle(gate, other, world).await) },
                async { drop(ack::collect(gate, &id, "ann", Some(world)).await) },
                async { drop(ack::run_now(gate, &id, world).await) },
                async { drop(ack::grant(gate, grant(), |_| runs).await) },
            );
        }
        // Loading policies takes a while, so they change now and then.
        22 if chance.below(3) == 0 || sim.site == FORBIDDEN => {
            sim.site = if sim.site == ALLOWED { FORBIDDEN } else { ALLOWED };
            sim.gate.serve(snapshot(sim.site));
        }
        22 => {}
        _ => sim.memory.failing.store(chance.below(3) as u64, Ordering::Release),
    }
}

/// The journal and what happened, held against W5.
fn check(sim: &Sim, seed: u64) {
    let records = sim.memory.disk.records.lock().unwrap().clone();
    let (mut held, mut granted, mut over, mut ran) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
    let mut allowed = HashMap::new();
    for (seq, record) in records.iter().enumerate() {
        match &record.body {
            Body::Decision(d) if d.verdict == Verdict::Escalate && d.again.is_none() => {
                held.insert(d.id.clone(), (record.ts, d.context.input.clone(), d.worker.clone()));
            }
            Body::Decision(d) if d.verdict == Verdict::Allow && d.action != "acknowledge" => {
                let by = d.acknowledged.as_ref().unwrap_or_else(|| panic!("seed {seed}: it ran without a yes"));
                let of = by.held.clone().unwrap();
                assert!(!over.contains_key(&of), "seed {seed}: {of} ran after it was over");
                assert_eq!(granted.get(&of), Some(&by.operator), "seed {seed}: {of} ran without this yes");
                assert!(ran.insert(of.clone(), seq).is_none(), "seed {seed}: {of} was allowed twice");
                let (since, input, worker) = &held[&of];
                assert_eq!((&d.context.input, &d.worker), (input, worker), "seed {seed}: other arguments");
                assert_ne!(by.operator, *worker, "seed {seed}");
                assert!(["alice", "bob"].contains(&by.operator.as_str()), "seed {seed}");
                assert!(record.ts.duration_since(*since) < HELD_FOR * 2, "seed {seed}: long after its time");
                allowed.insert(d.id.clone(), input.clone());
            }
            Body::Ack(change) => match (change.event, change.decision.clone()) {
                (AckEvent::Granted, Some(id)) => {
                    granted.insert(id, change.operator.clone().unwrap());
                }
                (AckEvent::Refused | AckEvent::Void, Some(id)) => drop(over.insert(id, seq)),
                _ => {}
            },
            Body::Outcome(outcome) if outcome.happened == Happened::Expired => {
                over.insert(outcome.decision.clone(), seq);
            }
            _ => {}
        }
    }
    let mut effects = HashMap::new();
    for (decision, arguments) in sim.world.0.lock().unwrap().iter() {
        assert_eq!(allowed.get(decision), Some(arguments), "seed {seed}: an effect without its recorded decision");
        *effects.entry(decision.clone()).or_insert(0) += 1;
    }
    assert!(effects.values().all(|n| *n == 1), "seed {seed}: one decision, two effects");
    // Nothing that is over can be read any more.
    for id in over.keys() {
        assert!(!sim.memory.disk.keys.lock().unwrap().contains_key(id), "seed {seed}: the key of {id} is still there");
    }
}

#[tokio::test]
async fn w05_s2_45_whatever_happens_in_whatever_order_an_acknowledgement_runs_once_and_only_what_was_held() {
    let runs = crate::support::number("WARDEN_ACK_RUNS", 150);
    let first = crate::oracle::seed();
    let mut effects = 0;
    for run in 0..runs {
        let seed = first.wrapping_add(run as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let (mut sim, mut chance) = (Sim::new(), Chance(seed));
        for _ in 0..40 {
            step(&mut sim, &mut chance).await;
        }
        check(&sim, seed);
        // What the running gateway knows is what its records add up to.
        sim.memory.failing.store(0, Ordering::Release);
        let live = sim.gate.acks(|live| live.acks.clone());
        let mut state = State::default();
        for (seq, record) in sim.memory.disk.records.lock().unwrap().iter().enumerate() {
            state.apply(seq as u64, record);
        }
        assert_eq!(live.parked, state.acks.parked, "seed {seed}");
        assert_eq!(live.kept, state.acks.kept, "seed {seed}");
        assert_eq!(live.ended, state.acks.ended, "seed {seed}");
        effects += sim.world.0.lock().unwrap().len();
    }
    assert!(effects > runs, "hardly anything ran: {effects} effects in {runs} runs");
}
