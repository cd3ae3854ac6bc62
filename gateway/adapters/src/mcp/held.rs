//! What is held, at this door: its worker waits for a while and is told so, a modern client is given a state to come back with, and
//! what was held runs under the id that the worker uses by then.

use super::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use warden_core::ack::{Ending, Runs, Stage};
use warden_core::json::{Json, replaced};
use warden_core::mac::MacKey;
use warden_core::pipeline::{Gate, Payload, Permit, Ports, Upstream};
use warden_core::proposal::{DecisionId, Proposal};
use warden_core::rpc::Id;

/// How often it is looked whether something has changed. A person takes longer.
const LOOK: Duration = Duration::from_millis(50);
/// How often a waiting worker is told that it still waits.
const TELL: Duration = Duration::from_secs(5);
/// A client that comes back with a state waits at least so long, whatever is configured: it would come back at once.
pub const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// What the states of Warden begin with. A server's own are passed on unseen.
const STATE: &str = "warden.held.";

/// An upstream whose worker can be told that it waits.
pub trait Waits: Upstream {
    /// Tells the worker once more, if it wants to hear of it.
    fn tell(&self, message: &str) -> impl Future<Output = ()> + Send;

    /// Ends when the worker does not wait any more.
    fn left(&self) -> impl Future<Output = ()> + Send;
}

/// How a held proposal stands, for whoever waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Nobody has decided, or it is on its way.
    Pending,
    /// It runs when its worker repeats it.
    Granted,
    /// Its result waits.
    Kept,
    /// It is over, or nothing is known of it.
    Over(Option<Ending>),
}

/// How a proposal of `worker` stands.
pub fn stands<P: Ports>(gate: &Gate<P>, id: &DecisionId, worker: &str) -> Stands {
    gate.acks(|live| {
        let acks = &live.acks;
        match acks.parked.get(id).filter(|parked| parked.worker == worker).map(|parked| &parked.stage) {
            Some(Stage::Granted { runs: Runs::OnRepeat, .. }) => return Stands::Granted,
            Some(_) => return Stands::Pending,
            None => {}
        }
        match acks.kept.get(id).is_some_and(|kept| kept.worker == worker) {
            true => Stands::Kept,
            // What has just ended may still be given a result to keep.
            false if live.is_busy(id) => Stands::Pending,
            false => Stands::Over(acks.ended.get(id).filter(|ended| ended.worker == worker).map(|ended| ended.ending)),
        }
    })
}

/// Waits until somebody has decided, but no longer than `patience`.
pub async fn settled<P: Ports>(gate: &Gate<P>, id: &DecisionId, worker: &str, patience: Duration) -> Stands {
    let until = Instant::now() + patience;
    loop {
        let stands = stands(gate, id, worker);
        if stands != Stands::Pending || Instant::now() >= until {
            return stands;
        }
        sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

/// The same, while the worker is told now and then; also ends when the worker does not wait any more.
pub async fn waited<P: Ports>(
    gate: &Gate<P>,
    id: &DecisionId,
    worker: &str,
    patience: Duration,
    upstream: &impl Waits,
) -> Stands {
    let message = format!("held: a person has to acknowledge this call (decision {id})");
    let tells = async {
        loop {
            upstream.tell(&message).await;
            sleep(TELL).await;
        }
    };
    tokio::select! {
        stands = settled(gate, id, worker, patience) => stands,
        () = tells => Stands::Pending,
        () = upstream.left() => Stands::Pending,
    }
}

/// Requests whose workers wait for a person, so that they can be taken back.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<Id, Arc<Notify>>>);

impl Waiting {
    /// Ends when the request with this id is taken back.
    pub async fn taken_back(&self, id: &Id) {
        let notify = Arc::new(Notify::new());
        lock(&self.0).insert(id.clone(), Arc::clone(&notify));
        let _until_dropped = Registered { waiting: self, id };
        notify.notified().await;
    }

    /// Takes a request back.
    pub fn take_back(&self, id: &Id) {
        if let Some(notify) = lock(&self.0).get(id) {
            notify.notify_one();
        }
    }
}

struct Registered<'w> {
    waiting: &'w Waiting,
    id: &'w Id,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        lock(&self.waiting.0).remove(self.id);
    }
}

fn seal(key: &MacKey, id: &DecisionId, worker: &str, server: &str) -> String {
    key.whole(serde_json::json!(["held", id, worker, server]).to_string().as_bytes())
}

/// The state with which a client comes back: it names what is held, and nobody else can make one.
pub fn state(key: &MacKey, id: &DecisionId, worker: &str, server: &str) -> String {
    format!("{STATE}{id}.{}", seal(key, id, worker, server))
}

/// What a client came back for.
pub enum CameBack {
    /// For nothing of Warden's.
    No,
    /// For this, which is the same call.
    For(DecisionId),
    /// With a state that is not its own, or for another call.
    Wrongly,
}

/// Reads the state of a proposal.
pub fn came_back<P: Ports>(gate: &Gate<P>, proposal: &Proposal) -> CameBack {
    let params = proposal.envelope.get("params");
    let Some(state) = params.and_then(|params| params.get("requestState")).and_then(Json::as_str) else {
        return CameBack::No;
    };
    let Some(rest) = state.strip_prefix(STATE) else { return CameBack::No };
    let Some((id, tag)) = rest.split_once('.') else { return CameBack::Wrongly };
    let (id, key) = (DecisionId::new(id), gate.ports.scanner().key());
    let sealed = serde_json::json!(["held", id, proposal.worker, proposal.server]).to_string();
    if !key.is_whole(sealed.as_bytes(), tag) {
        return CameBack::Wrongly;
    }
    let mut same = proposal.clone();
    if let Json::Object(members) = &mut same.envelope {
        for (name, value) in members.iter_mut() {
            if let ("params", Json::Object(params)) = (name.as_str(), value) {
                params.retain(|(name, _)| name != "requestState");
            }
        }
    }
    let tag = key.whole(same.sameness().as_bytes());
    let held = gate.acks(|live| {
        let acks = &live.acks;
        let parked = acks.parked.get(&id).and_then(|parked| parked.held.as_ref()).map(|held| held.tag.clone());
        parked
            .or_else(|| acks.kept.get(&id).map(|kept| kept.tag.clone()))
            .or_else(|| acks.ended.get(&id).map(|ended| ended.tag.clone()))
    });
    // What nothing is known of any more is over.
    if held.is_none_or(|held| held == tag) { CameBack::For(id) } else { CameBack::Wrongly }
}

/// The bytes of a permit under the id and the progress token that its message has now. Only what was stored has others.
pub fn payload(permit: Permit, id: &Id, token: Option<&Id>) -> Option<Payload> {
    let stored = permit.is_stored();
    let payload = permit.into_payload();
    if !stored {
        return Some(payload);
    }
    let text = replaced(payload.as_str(), &["id"], id.as_json())?;
    let with = token.and_then(|token| replaced(&text, &["params", "_meta", "progressToken"], token.as_json()));
    Some(Payload::own(with.unwrap_or(text)))
}
