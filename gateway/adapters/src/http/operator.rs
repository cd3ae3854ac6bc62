//! The operator plane: a Unix socket with mode 0600, for named operators. Nothing here is a worker's: one that comes is
//! refused, and the attempt is a recorded decision.

use super::{audit, bearer, error, guard};
use crate::acks::Acker;
use crate::engines::Engines;
use crate::govern::{self, Classify, Governor};
use crate::hub::embedded::Embedded;
use crate::identity::{Identities, Role};
use crate::inbox::Runner;
use crate::journal::checkpoint::Notary;
use crate::journal::witness::Witnesses;
use crate::journal::{Health, Retain};
use crate::secrets::Sources;
use crate::sessions::SessionBook;
use crate::view::Shelf;
use crate::world::{World, now};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::serve::IncomingStream;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::UnixListener;
use warden_core::catalogue::alike::alike;
use warden_core::catalogue::{Catalogue, Effect, Tool, hash_of};
use warden_core::journal::record::Retention;
use warden_core::json::Json as Strict;
use warden_core::pipeline::{self, Gate};
use warden_core::policy::layer::Standing;
use warden_core::port::JournalError;
use warden_core::proposal::{Ask, Correlation, Door, Mode, Proposal, Verb};

/// What the operator plane works with.
pub struct OperatorPlane {
    /// The gate.
    pub gate: Arc<Gate<World>>,
    /// What decides.
    pub governor: Arc<Governor>,
    /// Who may speak.
    pub identities: Arc<RwLock<Identities>>,
    /// The queryable log, once it is open.
    pub view: Arc<Shelf>,
    /// User ids of workers, with their names: peers that are turned away.
    pub worker_uids: HashMap<u32, String>,
    /// Whether a worker may have the gateway's own user id.
    pub same_uid: bool,
    /// Further names of this machine, for the TCP listener.
    pub allowed_hosts: Vec<String>,
    /// What signs the log.
    pub notary: Notary,
    /// Whether its key is a file that the configuration names.
    pub signer_is_given: bool,
    /// Who keeps what is signed.
    pub witnesses: Arc<Witnesses>,
    /// One change of who may speak, of keys and of what is kept at a time.
    pub changing: tokio::sync::Mutex<()>,
    /// Where registered values and packs of rules are.
    pub secrets: Sources,
    /// All engines.
    pub engines: Arc<Engines>,
    /// What runs once it is acknowledged.
    pub acker: Arc<Acker>,
    /// Sessions.
    pub sessions: Arc<SessionBook>,
    /// The inbox worker, where one is configured.
    pub runner: Option<Arc<Runner>>,
    /// The hub in the data folder, where no other is configured.
    pub hub: Option<Embedded>,
}

/// The user at the other end of the socket.
#[derive(Clone, Debug)]
pub struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|cred| cred.uid()) }
    }
}

/// The operator a request comes from.
#[derive(Clone)]
pub(super) struct By(pub(super) String);

/// How the gateway is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Whether proposals can be allowed.
    pub ready: bool,
    /// `good`, `full` or `failed: …`.
    pub journal: String,
    /// Number of records.
    pub records: u64,
    /// The Merkle root over them.
    pub root: String,
    /// Whether the queryable log is open.
    pub view: bool,
    /// Records that it has not taken in yet.
    pub view_lag: u64,
    /// Records of the newest checkpoint.
    pub signed: u64,
    /// Records that no witness has seen; nothing without a witness.
    pub unwitnessed: Option<u64>,
    /// Held proposals.
    pub held: usize,
    /// The digest of what decides.
    pub policy: String,
    /// Whether the site's policies are recorded and not enforced.
    #[serde(default)]
    pub shadow: bool,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

impl OperatorPlane {
    /// The routes.
    pub fn router(self: Arc<Self>) -> Router {
        let named = Router::new()
            .merge(audit::routes())
            .merge(super::secrets::routes())
            .merge(super::budgets::routes())
            .merge(super::acks::routes())
            .merge(super::hub::routes())
            .merge(super::inbox::routes())
            .merge(super::sessions::operator::routes())
            .merge(super::compositions::routes())
            .route("/v1/policies", get(policies))
            .route("/v1/policies/apply", post(apply))
            .route("/v1/policies/mode", post(mode))
            .route("/v1/tools", get(tools))
            .route("/v1/tools/classify", post(classify))
            .route("/v1/tools/approve", post(approve))
            .route("/v1/tools/pin", post(pin))
            .route("/v1/tokens", get(tokens).post(issue))
            .route("/v1/tokens/{id}", delete(revoke_token))
            .route("/v1/operators", get(operators).post(add_operator))
            .route("/v1/operators/{name}", delete(revoke_operator))
            .layer(middleware::from_fn_with_state(self.clone(), named_only));
        Router::new()
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .merge(named)
            .fallback(async || error(StatusCode::NOT_FOUND, "no_such_path", "the operator plane has no such path"))
            .method_not_allowed_fallback(async || {
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path takes other methods")
            })
            .layer(middleware::map_response(in_one_shape))
            .layer(middleware::from_fn_with_state(self.clone(), peers_only))
            .layer(middleware::from_fn(super::to_its_end))
            .with_state(self)
    }

    /// How the gateway is.
    pub fn ready(&self) -> Ready {
        let journal = &self.gate.ports.journal;
        let health = journal.health();
        let (records, root, held) =
            journal.look(|head| (head.tree.size(), head.tree.root(), head.state.acks.parked.len()));
        let mut warnings = Vec::new();
        if self.view.get().is_none() {
            warnings.push("the queryable log is being opened: queries wait, decisions do not".to_owned());
        }
        for witness in self.witnesses.status() {
            warnings
                .extend(witness.error.map(|e| format!("witness `{}` did not take the checkpoint: {e}", witness.name)));
        }
        if self.gate.is_in_shadow() {
            warnings.insert(0, "SHADOW: the site's policies are recorded and not enforced; the charter is".to_owned());
        }
        if self.same_uid {
            warnings.push("a worker may have the gateway's user id: acknowledgements hold against the model, not against code the worker runs".to_owned());
        }
        Ready {
            ready: health == Health::Good,
            journal: match health {
                Health::Good => "good".into(),
                Health::Full => "full".into(),
                Health::Failed(why) => format!("failed: {why}"),
            },
            records,
            root: crate::journal::root_text(&root),
            view: self.view.get().is_some(),
            view_lag: self.view_lag(),
            signed: self.notary.latest().borrow().as_ref().map_or(0, |signed| signed.checkpoint.size),
            unwitnessed: self.unwitnessed(),
            held,
            policy: self.gate.snapshot().digests.policy.clone(),
            shadow: self.gate.is_in_shadow(),
            warnings,
        }
    }

    /// Records that the view has not taken in yet.
    pub fn view_lag(&self) -> u64 {
        let records = self.gate.ports.journal.next_seq();
        records.saturating_sub(self.view.get().map_or(0, |view| view.next()))
    }

    /// Records that no witness has seen; nothing without a witness.
    pub fn unwitnessed(&self) -> Option<u64> {
        let records = self.gate.ports.journal.next_seq();
        self.witnesses.status().iter().map(|witness| records.saturating_sub(witness.size)).min()
    }

    /// Drops what is not kept any more, from the journal and from the view.
    pub async fn drop_old(&self, keep: Retain, operator: Option<&str>) -> std::io::Result<Option<Retention>> {
        let _one_at_a_time = self.changing.lock().await;
        let dropped = self.gate.ports.journal.retain(keep, now(), operator).await?;
        if let Some(dropped) = &dropped {
            tracing::info!(
                segments = dropped.segments,
                next_seq = dropped.next_seq,
                why = dropped.why,
                "retention dropped segments"
            );
            let (view, first) = (self.view.get(), dropped.next_seq);
            let forget = move || view.map_or(Ok(()), |view| view.forget_before(first));
            let forgotten =
                tokio::task::spawn_blocking(forget).await.map_err(std::io::Error::other).and_then(|done| done);
            if let Err(e) = forgotten {
                // The segments are gone all the same, and their records with them.
                tracing::warn!(error = %e, "the queryable log still knows what was dropped");
            }
        }
        Ok(dropped)
    }

    /// A worker that reaches for this plane is a proposal like any other; the charter forbids it.
    async fn refuse_worker(&self, worker: &str, what: &str) -> Response {
        let proposal = Proposal {
            door: Door::OperatorPlane,
            worker: worker.to_owned(),
            connection: String::new(),
            server: String::new(),
            method: what.to_owned(),
            ask: Ask::Verb(Verb::Operate),
            arguments: Strict::Object(vec![]),
            envelope: Strict::String(what.to_owned()),
            payload: String::new(),
            caller: None,
            correlation: Correlation::default(),
            mode: Mode::default(),
            barred: None,
        };
        pipeline::handle(&self.gate, proposal, &crate::mcp::link::Nowhere).await;
        error(StatusCode::FORBIDDEN, "operators_only", "this plane is for operators; the attempt is recorded")
    }

    pub(super) async fn act(&self, by: &By, act: &str, object: &str) -> Result<(), Box<Response>> {
        self.governor.act(&by.0, act, object).await.map_err(|e: JournalError| Box::new(unavailable(&e.to_string())))
    }

    /// Changes who may speak: recorded, then written, then in force.
    async fn change<T>(
        &self,
        by: &By,
        (act, object): (&str, &str),
        change: impl FnOnce(&mut Identities) -> std::io::Result<T>,
    ) -> Result<T, Box<Response>> {
        let _one_at_a_time = self.changing.lock().await;
        let mut next = self.identities.read().unwrap_or_else(PoisonError::into_inner).clone();
        let done = change(&mut next).map_err(|e| Box::new(error(StatusCode::CONFLICT, "refused", &e.to_string())))?;
        self.act(by, act, object).await?;
        next.save(&self.governor.setup().data_dir).map_err(|e| Box::new(unavailable(&e.to_string())))?;
        *self.identities.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(done)
    }
}

pub(super) type Plane = State<Arc<OperatorPlane>>;

/// What the framework refuses by itself, in the shape of all other errors.
async fn in_one_shape(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !status.is_client_error() || !kind.starts_with("text/plain") {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
    error(status, "invalid", &String::from_utf8_lossy(&text))
}

async fn peers_only(State(plane): Plane, request: Request, next: Next) -> Response {
    if let Err(response) = guard(request.headers(), &plane.allowed_hosts) {
        return *response;
    }
    let uid = request.extensions().get::<ConnectInfo<Peer>>().and_then(|info| info.0.uid);
    if let Some(worker) = uid.and_then(|uid| plane.worker_uids.get(&uid)).filter(|_| !plane.same_uid) {
        return plane.refuse_worker(worker, request.uri().path()).await;
    }
    next.run(request).await
}

async fn named_only(State(plane): Plane, mut request: Request, next: Next) -> Response {
    let who = {
        let identities = plane.identities.read().unwrap_or_else(PoisonError::into_inner);
        let secret = bearer(request.headers()).unwrap_or_default();
        match (identities.operator(secret), identities.worker(secret)) {
            (Some(operator), _) => Ok(By(operator.name.clone())),
            (None, Some(token)) => Err(Some(token.worker.clone())),
            (None, None) => Err(None),
        }
    };
    match who {
        Ok(by) => {
            request.extensions_mut().insert(by);
            next.run(request).await
        }
        Err(Some(worker)) => plane.refuse_worker(&worker, request.uri().path()).await,
        Err(None) => {
            let message = "an operator's bearer token is needed: `warden operator add NAME`";
            let mut response = error(StatusCode::UNAUTHORIZED, "unauthorized", message);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

pub(super) fn unavailable(message: &str) -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
}

fn governed(e: &govern::Error) -> Response {
    let (status, code) = match e {
        govern::Error::Policies(_) => (StatusCode::UNPROCESSABLE_ENTITY, "policies_invalid"),
        govern::Error::Refused(_) => (StatusCode::CONFLICT, "refused"),
        govern::Error::Io(_) | govern::Error::Journal(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    error(status, code, &e.to_string())
}

async fn readyz(State(plane): Plane) -> Response {
    let ready = plane.ready();
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

async fn metrics(State(plane): Plane) -> Response {
    let kind = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let metrics = &plane.gate.ports.metrics;
    metrics.of_the_log(plane.view_lag(), plane.unwitnessed());
    plane.gate.counted(|counted| {
        let known =
            plane.gate.budgets().iter().filter_map(|(name, _)| Some((name.as_str(), counted.ledger.node(name)?)));
        metrics.of_budgets(known.map(|(name, node)| (name, node.life.spent, node.reserved)));
    });
    (kind, metrics.text()).into_response()
}

async fn policies(State(plane): Plane) -> Response {
    match plane.governor.status().await {
        Ok(status) => Json(status).into_response(),
        Err(e) => governed(&e),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModeOf {
    id: String,
    mode: Standing,
    /// The digest of the policies that were replayed.
    shown: String,
}

async fn mode(State(plane): Plane, Extension(By(operator)): Extension<By>, Json(asked): Json<ModeOf>) -> Response {
    match plane.governor.moded(&operator, &asked.id, asked.mode, &asked.shown).await {
        Ok(policy) => Json(json!({ "id": asked.id, "mode": asked.mode, "policy": policy })).into_response(),
        Err(e) => governed(&e),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    tool: String,
    hash: String,
    #[serde(default)]
    effect: Option<Effect>,
}

async fn approve(State(plane): Plane, Extension(By(operator)): Extension<By>, Json(asked): Json<Approve>) -> Response {
    match plane.governor.approve(&operator, &asked.tool, &asked.hash, asked.effect).await {
        Ok(()) => Json(json!({ "tool": asked.tool })).into_response(),
        Err(e) => governed(&e),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    tool: String,
    hash: String,
}

async fn pin(State(plane): Plane, Extension(By(operator)): Extension<By>, Json(asked): Json<Pin>) -> Response {
    match plane.governor.pin(&operator, &asked.tool, &asked.hash).await {
        Ok(()) => Json(json!({ "tool": asked.tool })).into_response(),
        Err(e) => governed(&e),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apply {
    digest: String,
}

async fn apply(State(plane): Plane, Extension(by): Extension<By>, Json(body): Json<Apply>) -> Response {
    match plane.governor.apply(&by.0, &body.digest).await {
        Ok(digest) => Json(json!({ "applied": digest })).into_response(),
        Err(e) => governed(&e),
    }
}

/// A tool as operators see it.
fn shown_tool(server: &str, name: &str, tool: &Tool) -> Value {
    json!({
        "tool": format!("{server}/{name}"),
        "effect": tool.effect(),
        "classified": tool.effect.is_some(),
        "suggestion": tool.suggestion(),
        "open_world": tool.open_world.unwrap_or(true),
        "paths": tool.paths,
        "groups": tool.groups,
        "authority": tool.marks().names(),
        "changed": tool.changed,
        "dismissed": tool.dismissed.is_some(),
        "changed_hash": tool.changed.as_ref().map(hash_of),
        "waiting": false,
        "hash": tool.hash,
        "description": tool.definition.get("description"),
        "inputSchema": tool.definition.get("inputSchema"),
        "definition": tool.definition,
    })
}

/// All tools of a catalogue as operators see them, those that wait included.
pub fn shown_tools(catalogue: &Catalogue) -> Vec<Value> {
    let known = catalogue
        .servers
        .iter()
        .flat_map(|(server, tools)| tools.iter().map(move |(name, tool)| shown_tool(server, name, tool)));
    let waiting = catalogue.waiting.iter().flat_map(|(server, waiting)| {
        waiting.iter().map(move |(name, definition)| {
            let mut shown = shown_tool(server, name, &Tool::listed(definition.clone()));
            shown["waiting"] = json!(true);
            shown
        })
    });
    let alike = alike(catalogue);
    let mut all: Vec<Value> = known.chain(waiting).collect();
    for shown in &mut all {
        let others = shown["tool"].as_str().and_then(|tool| alike.get(tool));
        shown["alike"] = json!(others.into_iter().flatten().collect::<Vec<_>>());
    }
    all
}

async fn tools(State(plane): Plane) -> Response {
    Json(json!({ "tools": shown_tools(&plane.governor.catalogue().await) })).into_response()
}

async fn classify(State(plane): Plane, Extension(by): Extension<By>, Json(body): Json<Classify>) -> Response {
    match plane.governor.classify(&by.0, &body).await {
        Ok(tools) => Json(json!({ "tools": tools })).into_response(),
        Err(e) => governed(&e),
    }
}

async fn tokens(State(plane): Plane) -> Response {
    let identities = plane.identities.read().unwrap_or_else(PoisonError::into_inner);
    let tokens =
        identities.tokens.iter().map(|t| json!({ "id": t.id, "worker": t.worker, "role": t.role, "issued": t.issued }));
    Json(json!({ "tokens": tokens.collect::<Vec<_>>() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issue {
    worker: String,
    role: Role,
}

async fn issue(State(plane): Plane, Extension(by): Extension<By>, Json(body): Json<Issue>) -> Response {
    if !plane.governor.setup().workers.iter().any(|worker| worker.name == body.worker) {
        return error(StatusCode::CONFLICT, "unknown_worker", "no such worker in `warden.yaml`");
    }
    let issued = plane
        .change(&by, ("token_issue", &body.worker), |all| all.issue(&body.worker, body.role, &now().to_string()))
        .await;
    match issued {
        Ok((secret, token)) => Json(json!({ "id": token.id, "worker": token.worker, "token": secret })).into_response(),
        Err(response) => *response,
    }
}

async fn revoke_token(State(plane): Plane, Extension(by): Extension<By>, Path(id): Path<String>) -> Response {
    let known = plane.identities.read().unwrap_or_else(PoisonError::into_inner).tokens.iter().any(|t| t.id == id);
    if !known {
        return error(StatusCode::NOT_FOUND, "not_found", "no such token");
    }
    revoked(plane.change(&by, ("token_revoke", &id), |all| Ok(all.revoke_token(&id))).await, "token")
}

async fn operators(State(plane): Plane) -> Response {
    let identities = plane.identities.read().unwrap_or_else(PoisonError::into_inner);
    let operators = identities.operators.iter().map(|o| json!({ "name": o.name, "added": o.added }));
    Json(json!({ "operators": operators.collect::<Vec<_>>() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    name: String,
}

async fn add_operator(State(plane): Plane, Extension(by): Extension<By>, Json(body): Json<Add>) -> Response {
    let added =
        plane.change(&by, ("operator_add", &body.name), |all| all.add_operator(&body.name, &now().to_string())).await;
    match added {
        Ok(secret) => Json(json!({ "name": body.name, "token": secret })).into_response(),
        Err(response) => *response,
    }
}

async fn revoke_operator(State(plane): Plane, Extension(by): Extension<By>, Path(name): Path<String>) -> Response {
    let known =
        plane.identities.read().unwrap_or_else(PoisonError::into_inner).operators.iter().any(|o| o.name == name);
    if !known {
        return error(StatusCode::NOT_FOUND, "not_found", "no such operator");
    }
    let change = |all: &mut Identities| {
        if all.operators.len() == 1 && all.operators.iter().any(|o| o.name == name) {
            return Err(std::io::Error::other("the last operator stays: add another one first"));
        }
        Ok(all.revoke_operator(&name))
    };
    revoked(plane.change(&by, ("operator_revoke", &name), change).await, "operator")
}

fn revoked(done: Result<bool, Box<Response>>, what: &str) -> Response {
    match done {
        Ok(true) => Json(json!({ "revoked": true })).into_response(),
        Ok(false) => error(StatusCode::NOT_FOUND, "not_found", &format!("no such {what}")),
        Err(response) => *response,
    }
}
