//! The log on the operator plane: queries, one decision, timelines, counts, the records themselves, checkpoints and proofs. Who
//! reads is recorded before the answer.

use super::error;
use super::operator::{By, OperatorPlane, Plane, unavailable};
use crate::export::{Format, Manifest};
use crate::journal::{Retain, TreeFiles};
use crate::keys::Keys;
use crate::review::{self, all_shown};
use crate::view::{self, Query, View};
use crate::world::now;
use axum::body::Body as HttpBody;
use axum::extract::{Path, Query as Params, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use warden_core::journal::proof;
use warden_core::journal::record::{Body, Hold, HoldChange, KeyChange, Read, Record};
use warden_core::journal::tree::hex;
use warden_core::pipeline;
use warden_core::port::{Journal as _, Room};

/// A page has at most so many records.
const LIMIT_MAX: usize = 10_000;
/// How long a query waits for the view.
const VIEW_PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for what is there when it is asked.
const VIEW_LAG: Duration = Duration::from_millis(500);
/// Records of a stream that are read at once.
const STREAM_PART: u64 = 256;
/// And bytes, about.
const STREAM_BYTES: usize = 1 << 20;
/// How often a stream that follows looks for more.
const FOLLOW: Duration = Duration::from_millis(100);

/// The routes.
pub(super) fn routes() -> Router<Arc<OperatorPlane>> {
    Router::new()
        .route("/v1/decisions", get(decisions))
        .route("/v1/decisions/{id}", get(decision))
        .route("/v1/timeline", get(timeline))
        .route("/v1/stats", get(stats))
        .route("/v1/records", get(records))
        .route("/v1/exports", get(export))
        .route("/v1/checkpoint", get(checkpoint))
        .route("/v1/checkpoint/rotate", post(rotate))
        .route("/v1/witnesses", get(witnesses))
        .route("/v1/proofs/inclusion", get(inclusion))
        .route("/v1/proofs/consistency", get(consistency))
        .route("/v1/holds", get(holds).post(place_hold))
        .route("/v1/holds/{name}", delete(release_hold))
        .route("/v1/retention", post(retain))
        .route("/v1/erasures", post(erase))
}

/// Whether a look was recorded. On a full disk an operator still sees, and the answer says that nobody wrote it down.
pub(super) async fn recorded(plane: &OperatorPlane, by: &By, how: &str, query: Value) -> bool {
    let read = Read { operator: by.0.clone(), how: how.into(), query };
    let done = plane.gate.ports.append(Record::new(now(), Body::Read(read)), Room::Ordinary).await;
    if let Err(e) = &done {
        tracing::warn!(operator = by.0, error = %e, "a look into the log was not recorded");
    }
    done.is_ok()
}

/// Runs a look at the view, once it is open and has what the query waits for.
async fn look<T: Send + 'static>(
    plane: Arc<OperatorPlane>,
    min_seq: Option<u64>,
    look: impl FnOnce(&View, &OperatorPlane) -> io::Result<T> + Send + 'static,
) -> Result<T, Box<Response>> {
    // What was decided before somebody asked is there, unless the view is far behind. Their own look, the last record, is not
    // waited for.
    let newest = plane.gate.ports.journal.next_seq().checked_sub(2);
    let wanted = min_seq.or(newest);
    let patience = if min_seq.is_some() { VIEW_PATIENCE } else { VIEW_LAG };
    let waited = async {
        while plane.view.get().is_none_or(|view| wanted.is_some_and(|seq| view.next() <= seq)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(patience, waited).await.is_err() && min_seq.is_some() {
        return Err(Box::new(unavailable("the queryable log has not come to that sequence number; try again")));
    }
    let looked = tokio::task::spawn_blocking(move || {
        let view = plane.view.get();
        let view =
            view.ok_or_else(|| io::Error::other("the queryable log is still being opened; try again in a moment"))?;
        look(&view, &plane)
    });
    match looked.await.map_err(io::Error::other) {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(e)) | Err(e) => Err(Box::new(unavailable(&e.to_string()))),
    }
}

fn keys(plane: &OperatorPlane) -> Option<&Keys> {
    Some(&plane.gate.ports.keys)
}

fn answered<T: IntoResponse>(answer: Result<T, Box<Response>>) -> Response {
    match answer {
        Ok(answer) => answer.into_response(),
        Err(response) => *response,
    }
}

/// A page of records.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Page {
    /// The records, newest first; of a timeline, oldest first.
    records: Vec<Value>,
    /// `before` of the next page; null on the last one.
    next_before: Option<u64>,
    /// The first sequence number that was not looked at: where to follow from.
    next_seq: u64,
    /// Whether this look is in the log.
    recorded: bool,
}

async fn decisions(State(plane): Plane, Extension(by): Extension<By>, Params(query): Params<Query>) -> Response {
    page(plane, by, "query", query, view::run).await
}

async fn timeline(State(plane): Plane, Extension(by): Extension<By>, Params(query): Params<Query>) -> Response {
    if [&query.session, &query.task, &query.run].iter().all(|name| name.is_none()) {
        return error(StatusCode::BAD_REQUEST, "invalid", "a timeline is of a `session`, a `task` or a `run`");
    }
    page(plane, by, "timeline", query, view::timeline).await
}

async fn page(
    plane: Arc<OperatorPlane>,
    by: By,
    how: &str,
    mut query: Query,
    find: fn(&View, &mut crate::journal::Reader, &Query) -> io::Result<Vec<view::Found>>,
) -> Response {
    if let Err(what) = query.check() {
        return error(StatusCode::BAD_REQUEST, "invalid", &what);
    }
    let limit = query.limit.unwrap_or(50);
    if limit > LIMIT_MAX {
        return error(
            StatusCode::BAD_REQUEST,
            "invalid",
            &format!("`limit` is at most {LIMIT_MAX}: use `before` for more"),
        );
    }
    query.limit = Some(limit);
    let recorded = recorded(&plane, &by, how, json!(query)).await;
    let looked = look(plane, query.min_seq, move |view, plane| {
        let next_seq = view.next();
        let found = find(view, &mut plane.gate.ports.journal.reader(), &query)?;
        // Outcomes come along with a timeline's decisions and are not counted.
        let own: Vec<u64> = found.iter().filter(|(_, record)| query.matches(record)).map(|(seq, _)| *seq).collect();
        Ok(Page {
            next_before: own.iter().min().copied().filter(|_| own.len() >= limit),
            next_seq,
            records: all_shown(&found, keys(plane)),
            recorded,
        })
    });
    answered(looked.await.map(Json))
}

async fn decision(State(plane): Plane, Extension(by): Extension<By>, Path(id): Path<String>) -> Response {
    recorded(&plane, &by, "show", json!({ "id": id })).await;
    let looked = look(plane, None, move |view, plane| {
        let data_dir = &plane.governor.setup().data_dir;
        review::show(view, &mut plane.gate.ports.journal.reader(), data_dir, keys(plane), &id)
    });
    answered(looked.await.map(|shown| match shown {
        Some(shown) => Json(shown).into_response(),
        None => error(StatusCode::NOT_FOUND, "no_such_decision", "no such decision in this journal"),
    }))
}

async fn stats(State(plane): Plane, Extension(by): Extension<By>, Params(query): Params<Query>) -> Response {
    if query.before.is_some() || query.limit.is_some() || query.kind.is_some() {
        return error(
            StatusCode::BAD_REQUEST,
            "invalid",
            "`before`, `limit` and `kind` mean nothing here: all decisions count",
        );
    }
    if let Err(what) = query.check() {
        return error(StatusCode::BAD_REQUEST, "invalid", &what);
    }
    recorded(&plane, &by, "stats", json!(query)).await;
    answered(look(plane, query.min_seq, move |view, _| view::stats(view, &query)).await.map(Json))
}

/// Which records a stream has.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Stream {
    /// From this sequence number on.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    /// Before this one; what there is now when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    /// Whether it goes on with what comes.
    follow: bool,
}

/// The records as they are stored, `{"seq": N, "record": RECORD}` a line. Reads the journal, so it needs no view.
async fn records(State(plane): Plane, Extension(by): Extension<By>, Params(wanted): Params<Stream>) -> Response {
    let next_seq = plane.gate.ports.journal.next_seq();
    recorded(&plane, &by, "stream", json!(wanted)).await;
    let to = wanted.to.unwrap_or(if wanted.follow { u64::MAX } else { next_seq });
    let from = wanted.from.unwrap_or(if wanted.follow { next_seq } else { 0 });
    let (lines, mut read) = mpsc::channel::<io::Result<Bytes>>(4);
    tokio::spawn(async move {
        let journal = plane.gate.ports.journal.clone();
        drop(plane);
        let (mut at, mut reader) = (from, journal.reader());
        while at < to {
            let end = journal.next_seq().min(to).min(at.saturating_add(STREAM_PART));
            if at >= end {
                if !wanted.follow {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(FOLLOW) => continue,
                    () = lines.closed() => return,
                }
            }
            let part = tokio::task::spawn_blocking(move || {
                let part = part(&mut reader, at, end);
                (reader, part)
            });
            let Ok((back, part)) = part.await else { return };
            reader = back;
            let (next, part) = match part {
                Ok((next, part)) => (next, Ok(part)),
                Err(e) => (u64::MAX, Err(e)),
            };
            at = next;
            if lines.send(part).await.is_err() {
                return;
            }
        }
    });
    let body = futures::stream::poll_fn(move |context| read.poll_recv(context));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], HttpBody::from_stream(body)).into_response()
}

/// Some records, and the first that is not among them.
fn part(reader: &mut crate::journal::Reader, from: u64, to: u64) -> io::Result<(u64, Bytes)> {
    let mut text = Vec::new();
    for seq in from..to {
        if text.len() >= STREAM_BYTES {
            return Ok((seq, text.into()));
        }
        // What retention dropped is not there.
        if let Some(stored) = reader.bytes(seq)? {
            text.extend_from_slice(Format::Ndjson.line(seq, &stored, "")?.as_bytes());
        }
    }
    Ok((to, text.into()))
}

/// A time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Span {
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// What an export of that time has, and its proof.
async fn export(State(plane): Plane, Extension(by): Extension<By>, Params(span): Params<Span>) -> Response {
    recorded(&plane, &by, "export", json!(span)).await;
    let verifier = plane.notary.verifier().to_string();
    let looked = look(plane.clone(), None, move |view, plane| {
        if let Err(e) = plane.notary.sign() {
            tracing::warn!(error = %e, "an export goes by the last checkpoint that could be signed");
        }
        let latest = plane.notary.latest();
        let signed = latest.borrow().clone().ok_or_else(|| io::Error::other("nothing is signed yet"))?;
        let size = signed.checkpoint.size;
        let journal = &plane.gate.ports.journal;
        let first = journal.reader().first()?;
        // The view has what the checkpoint has.
        view.catch_up(&mut journal.reader(), size, |_, _| {})?;
        let (from, to) = view.span(span.since, span.until)?;
        let to = to.min(size);
        let from = from.max(first).min(to);
        let range = journal.prove(|tree| proof::range(tree, from, to, size))?;
        Ok(Manifest {
            v: crate::export::VERSION,
            origin: signed.checkpoint.origin.clone(),
            from,
            to,
            since: span.since,
            until: span.until,
            checkpoint: signed.note.to_string(),
            verifier,
            range,
            format: Format::Ndjson,
        })
    });
    answered(looked.await.map(Json))
}

/// The newest checkpoint, as a signed note.
async fn checkpoint(State(plane): Plane) -> Response {
    let latest = plane.notary.latest().borrow().clone();
    match latest {
        Some(signed) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], signed.note.to_string()).into_response()
        }
        None => unavailable("nothing is signed yet"),
    }
}

async fn rotate(State(plane): Plane, Extension(by): Extension<By>) -> Response {
    let _one_at_a_time = plane.changing.lock().await;
    let old = plane.notary.verifier();
    let keys = plane.gate.ports.keys.clone();
    if plane.signer_is_given {
        let message = "the key is given by `journal.checkpoint_key`: put another file there, and restart with `--new-checkpoint-key`";
        return error(StatusCode::CONFLICT, "refused", message);
    }
    let made = Keys::new_signer(old.name());
    let Ok(signer) = made else { return unavailable("no key could be made") };
    let change = KeyChange {
        verifier: signer.verifier().to_string(),
        replaces: Some(old.to_string()),
        operator: Some(by.0.clone()),
    };
    let verifier = change.verifier.clone();
    // What checks both is remembered first: whatever stands in the log after a crash can be checked.
    let kept = keys.keep_verifier(signer.verifier()).and_then(|()| keys.keep_signer(&signer));
    if let Err(e) = kept {
        return unavailable(&e.to_string());
    }
    if let Err(e) = plane.gate.ports.append(Record::new(now(), Body::Key(change)), Room::Reserved).await {
        return unavailable(&e.to_string());
    }
    let notary = plane.notary.clone();
    let signed = tokio::task::spawn_blocking(move || notary.rotate(signer)).await.map_err(io::Error::other);
    match signed {
        Ok(Ok(())) => Json(json!({ "verifier": verifier, "replaces": old.to_string() })).into_response(),
        Ok(Err(e)) | Err(e) => unavailable(&e.to_string()),
    }
}

async fn witnesses(State(plane): Plane) -> Response {
    let records = plane.gate.ports.journal.next_seq();
    Json(json!({
        "records": records,
        "verifier": plane.notary.verifier().to_string(),
        "witnesses": plane.witnesses.status(),
    }))
    .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRecord {
    seq: u64,
    size: Option<u64>,
}

/// Against a signed checkpoint, unless a size is given.
async fn inclusion(State(plane): Plane, Params(OfRecord { seq, size }): Params<OfRecord>) -> Response {
    let notary = plane.notary.clone();
    proved(plane, move |tree| {
        let signed = notary.latest().borrow().clone().filter(|_| size.is_none());
        let size = size.or(signed.as_ref().map(|signed| signed.checkpoint.size)).unwrap_or(tree.size());
        if seq >= size || size > tree.size() {
            return Ok(None);
        }
        let path = proof::inclusion(tree, seq, size)?;
        let (leaf, root) = (tree.leaf(seq)?, proof::root(tree, size)?);
        let note = signed.map(|signed| signed.note.to_string());
        Ok(Some(json!({ "seq": seq, "size": size, "leaf": hex(&leaf), "root": hex(&root), "path": all_hex(&path), "checkpoint": note })))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfTrees {
    old: u64,
    new: Option<u64>,
}

async fn consistency(State(plane): Plane, Params(OfTrees { old, new }): Params<OfTrees>) -> Response {
    proved(plane, move |tree| {
        let new = new.unwrap_or(tree.size());
        if old > new || new > tree.size() {
            return Ok(None);
        }
        let path = proof::consistency(tree, old, new)?;
        let roots = (proof::root(tree, old)?, proof::root(tree, new)?);
        Ok(Some(json!({ "old": old, "new": new, "old_root": hex(&roots.0), "new_root": hex(&roots.1), "path": all_hex(&path) })))
    })
    .await
}

fn all_hex(path: &[warden_core::journal::tree::Hash]) -> Vec<String> {
    path.iter().map(hex).collect()
}

async fn proved(
    plane: Arc<OperatorPlane>,
    make: impl FnOnce(&mut TreeFiles) -> io::Result<Option<Value>> + Send + 'static,
) -> Response {
    let made =
        tokio::task::spawn_blocking(move || plane.gate.ports.journal.prove(make)).await.map_err(io::Error::other);
    match made {
        Ok(Ok(Some(proof))) => Json(proof).into_response(),
        Ok(Ok(None)) => {
            error(StatusCode::NOT_FOUND, "no_such_record", "the log has no such record, or was never that size")
        }
        Ok(Err(e)) | Err(e) => unavailable(&e.to_string()),
    }
}

async fn holds(State(plane): Plane) -> Response {
    Json(json!({ "holds": plane.gate.ports.journal.head().state.holds })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    name: String,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

async fn place_hold(State(plane): Plane, Extension(by): Extension<By>, Json(body): Json<Place>) -> Response {
    if let Err(what) = crate::identity::fine_name(&body.name) {
        return error(StatusCode::BAD_REQUEST, "invalid", &format!("`name`: {what}"));
    }
    if matches!((body.since, body.until), (Some(since), Some(until)) if since >= until) {
        return error(StatusCode::BAD_REQUEST, "invalid", "`since` is not before `until`: it would keep nothing");
    }
    if plane.gate.ports.journal.head().state.holds.contains_key(&body.name) {
        return error(
            StatusCode::CONFLICT,
            "refused",
            "there is a hold of that name: release it first, or take another name",
        );
    }
    let keeps = Hold { since: body.since, until: body.until };
    changed_hold(&plane, HoldChange { name: body.name, keeps: Some(keeps), operator: by.0 }).await
}

async fn release_hold(State(plane): Plane, Extension(by): Extension<By>, Path(name): Path<String>) -> Response {
    if !plane.gate.ports.journal.head().state.holds.contains_key(&name) {
        return error(StatusCode::NOT_FOUND, "not_found", "no such hold");
    }
    changed_hold(&plane, HoldChange { name, keeps: None, operator: by.0 }).await
}

async fn changed_hold(plane: &OperatorPlane, change: HoldChange) -> Response {
    let _no_drop_meanwhile = plane.changing.lock().await;
    let answer = Json(json!({ "name": change.name, "keeps": change.keeps }));
    match plane.gate.ports.append(Record::new(now(), Body::Hold(change)), Room::Reserved).await {
        Ok(_) => answer.into_response(),
        Err(e) => unavailable(&e.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keep {
    days: Option<u32>,
    mb: Option<u64>,
}

async fn retain(State(plane): Plane, Extension(by): Extension<By>, Json(body): Json<Keep>) -> Response {
    if body.days.is_none() && body.mb.is_none() {
        return error(StatusCode::BAD_REQUEST, "invalid", "say what is kept: `days`, `mb` or both");
    }
    let keep = Retain {
        age: body.days.map(|days| Duration::from_secs(u64::from(days) * 86_400)),
        bytes: body.mb.map(|mb| mb.saturating_mul(1 << 20)),
    };
    match plane.drop_old(keep, Some(&by.0)).await {
        Ok(dropped) => Json(json!({ "dropped": dropped })).into_response(),
        Err(e) => unavailable(&e.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Erase {
    worker: String,
}

/// Destroys what sealed arguments of a worker could be read with. Records stay as they are, and so do their hashes.
async fn erase(State(plane): Plane, Extension(by): Extension<By>, Json(Erase { worker }): Json<Erase>) -> Response {
    let _one_at_a_time = plane.changing.lock().await;
    if let Err(e) = plane.governor.act(&by.0, "worker_erase", &worker).await {
        return unavailable(&e.to_string());
    }
    let keys = &plane.gate.ports.keys;
    let own = plane.gate.acks(|live| live.acks.of(&worker));
    let held = own.len();
    // What nobody can read any more can never run.
    if let Err(e) = pipeline::ack::let_go(&plane.gate, own).await {
        return unavailable(&e.to_string());
    }
    match keys.destroy_worker(&worker) {
        Ok(sealed) => Json(json!({ "worker": worker, "sealed": sealed, "held": held })).into_response(),
        Err(e) => unavailable(&format!("the worker's key could not be destroyed: {e}")),
    }
}
