//! Budgets and engines for operators: what there is, what was spent, more of it, a stop to it, and whether engines answer.

use super::error;
use super::operator::{By, OperatorPlane, Plane, unavailable};
use crate::engines::claude_code::ClaudeCode;
use crate::engines::{Engine, Kind};
use crate::world::now;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use warden_core::amount::Amount;
use warden_core::budget::ledger::Node;
use warden_core::budget::{Budget, Limit};
use warden_core::journal::record::{Body, BudgetChange, Record};
use warden_core::port::{Journal, Room};

/// How long an engine may take to answer a ping.
const PING: Duration = Duration::from_secs(10);
/// Shares of one budget that are shown, the latest used first.
const SHARES_MAX: usize = 100;

/// The routes.
pub(super) fn routes() -> Router<Arc<OperatorPlane>> {
    Router::new()
        .route("/v1/budgets", get(list))
        .route("/v1/budgets/grant", post(grant))
        .route("/v1/budgets/freeze", post(freeze))
        .route("/v1/budgets/show/{*name}", get(show))
        .route("/v1/engines", get(engines))
        .route("/v1/engines/ping", post(ping))
}

fn limits(limits: &[Limit], node: &Node) -> Value {
    let time = now();
    let shown = limits.iter().map(|limit| {
        let account = node.account(limit.per, time);
        json!({ "unit": limit.unit, "per": limit.per, "total": limit.total, "granted": account.granted.of(limit.unit),
            "spent": account.spent.of(limit.unit), "reserved": node.reserved.of(limit.unit), "left": node.left(limit, time) })
    });
    Value::Array(shown.collect())
}

/// One budget as operators see it.
fn shown(plane: &OperatorPlane, name: &str, budget: &Budget) -> Value {
    let (node, shares) = plane.gate.counted(|counted| {
        (counted.ledger.node(name).cloned().unwrap_or_default(), counted.ledger.shares(name).count())
    });
    json!({ "name": name, "parent": budget.parent, "workers": plane.gate.budgets().workers_of(name),
        "limits": limits(&budget.limits, &node), "spent": node.life.spent, "reserved": node.reserved,
        "frozen": node.frozen, "shares": shares })
}

async fn list(State(plane): Plane) -> Response {
    let budgets: Vec<Value> = plane.gate.budgets().iter().map(|(name, budget)| shown(&plane, name, budget)).collect();
    let (spend, tasks) = plane.gate.counted(|counted| {
        let open = counted.tasks.all_open().map(|(id, work)| {
            json!({ "task": id, "worker": work.task.worker, "open": true, "ambient": work.task.ambient,
                "calls": work.engine_events, "spent": work.spent })
        });
        let over = counted.tasks.recent().map(|(id, ended)| {
            json!({ "task": id, "worker": ended.worker, "open": false, "ambient": false, "calls": ended.engine_events,
                "spent": ended.spent, "engine_bypass_suspected": ended.engine_bypass_suspected })
        });
        (counted.spend.clone(), open.chain(over).collect::<Vec<_>>())
    });
    let sums = |all: &std::collections::BTreeMap<String, warden_core::journal::state::Spent>| -> Vec<Value> {
        all.iter().map(|(name, spent)| json!({ "name": name, "calls": spent.calls, "spent": spent.amount })).collect()
    };
    let spend = json!({ "workers": sums(&spend.workers), "engines": sums(&spend.engines), "tasks": tasks });
    Json(json!({ "budgets": budgets, "spend": spend })).into_response()
}

async fn show(State(plane): Plane, Path(name): Path<String>) -> Response {
    let budgets = plane.gate.budgets();
    let Some(budget) = budgets.of_node(&name) else { return absent(&name) };
    if name.contains('/') {
        let node = plane.gate.counted(|counted| counted.ledger.node(&name).cloned());
        let Some(node) = node else { return absent(&name) };
        return Json(share(&name, budgets.limits(&name), &node)).into_response();
    }
    let mut shown = shown(&plane, &name, budget);
    let mut shares: Vec<(String, Node)> = plane
        .gate
        .counted(|counted| counted.ledger.shares(&name).map(|(name, node)| (name.clone(), node.clone())).collect());
    shares.sort_by_key(|(_, node)| std::cmp::Reverse(node.last));
    let told = shares.iter().take(SHARES_MAX).map(|(name, node)| share(name, budgets.limits(name), node));
    shown["shared"] = Value::Array(told.collect());
    Json(shown).into_response()
}

fn share(name: &str, of: &[Limit], node: &Node) -> Value {
    json!({ "name": name, "limits": limits(of, node), "spent": node.life.spent, "reserved": node.reserved,
        "frozen": node.frozen, "last": node.last })
}

fn absent(name: &str) -> Response {
    let message = format!("there is no budget `{}`: `warden budget list`", name.escape_debug());
    error(StatusCode::NOT_FOUND, "not_found", &message)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    budget: String,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    micro_usd: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Freeze {
    budget: String,
    frozen: bool,
}

async fn grant(State(plane): Plane, Extension(by): Extension<By>, Json(asked): Json<Grant>) -> Response {
    let amount = Amount { tokens: asked.tokens, micro_usd: asked.micro_usd };
    if amount == Amount::ZERO {
        return error(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "say how much: tokens, micro-USD or both");
    }
    change(&plane, &by, asked.budget, Some(amount), None).await
}

async fn freeze(State(plane): Plane, Extension(by): Extension<By>, Json(asked): Json<Freeze>) -> Response {
    change(&plane, &by, asked.budget, None, Some(asked.frozen)).await
}

/// Recorded, then in force.
async fn change(
    plane: &OperatorPlane,
    By(operator): &By,
    budget: String,
    granted: Option<Amount>,
    frozen: Option<bool>,
) -> Response {
    let Some(of) = plane.gate.budgets().of_node(&budget) else { return absent(&budget) };
    let known = !budget.contains('/') || plane.gate.counted(|counted| counted.ledger.node(&budget).is_some());
    if !known {
        return absent(&budget);
    }
    let _one_at_a_time = plane.changing.lock().await;
    let ts = now();
    let at = plane.gate.counted(|counted| counted.ledger.time(ts));
    let change = BudgetChange { budget: budget.clone(), operator: operator.clone(), at, granted, frozen };
    if let Err(e) = plane.gate.ports.append(Record::new(ts, Body::Budget(change.clone())), Room::Reserved).await {
        return unavailable(&e.to_string());
    }
    plane.gate.counted(|counted| counted.changed(&change));
    let node = plane.gate.counted(|counted| counted.ledger.node(&budget).cloned().unwrap_or_default());
    let told = if budget.contains('/') {
        share(&budget, plane.gate.budgets().limits(&budget), &node)
    } else {
        shown(plane, &budget, of)
    };
    Json(told).into_response()
}

fn engine(engine: &Engine) -> Value {
    let prices = engine.prices.iter().map(|(models, price)| json!({ "models": models.as_str(), "price": price }));
    json!({ "id": engine.id, "kind": engine.kind.name(), "zone": engine.zone,
        "at": engine.http.as_ref().map(|http| http.place()),
        "models": engine.models.iter().map(crate::pattern::Pattern::as_str).collect::<Vec<_>>(),
        "speaks": engine.speaks.iter().map(|api| api.name()).collect::<Vec<_>>(),
        "capabilities": engine.capabilities(), "retries": engine.retries, "fallback": engine.fallback,
        "timeout_s": engine.timeout.as_secs(), "prices": prices.collect::<Vec<_>>(), "prices_as_of": engine.prices_as_of })
}

async fn engines(State(plane): Plane) -> Response {
    Json(json!({ "engines": plane.engines.iter().map(|one| engine(one)).collect::<Vec<_>>() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {
    #[serde(default)]
    engine: Option<String>,
}

async fn ping(State(plane): Plane, Json(asked): Json<Ping>) -> Response {
    let wanted: Vec<&Arc<Engine>> = match &asked.engine {
        None => plane.engines.iter().collect(),
        Some(id) => match plane.engines.get(id) {
            Some(engine) => vec![engine],
            None => {
                let message = format!("there is no engine `{}`: `warden engines list`", id.escape_debug());
                return error(StatusCode::NOT_FOUND, "not_found", &message);
            }
        },
    };
    let told = join_all(wanted.into_iter().map(|engine| async move {
        let started = Instant::now();
        let said = tokio::time::timeout(PING, pinged(engine)).await;
        let said = said.unwrap_or_else(|_| Err(format!("no answer within {} s", PING.as_secs())));
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match said {
            Ok(said) => json!({ "engine": engine.id, "ok": true, "said": said, "ms": ms }),
            Err(said) => json!({ "engine": engine.id, "ok": false, "said": said, "ms": ms }),
        }
    }));
    Json(json!({ "engines": told.await })).into_response()
}

/// Whether an engine is there and takes the key. Costs no token.
async fn pinged(engine: &Engine) -> Result<String, String> {
    let Some(http) = &engine.http else {
        return match &engine.command {
            Some(command) => ClaudeCode::version(command).await,
            None => Err("there is nothing to ask".into()),
        };
    };
    let path = match engine.kind {
        Kind::Anthropic => "/v1/models",
        Kind::Gemini => "/v1beta/models",
        Kind::LlmConnect => "/",
        Kind::OpenAi | Kind::OpenRouter | Kind::ClaudeCode => "/models",
    };
    let mut headers = HeaderMap::new();
    if engine.kind == Kind::Anthropic {
        let version = HeaderValue::from_static(crate::engines::over_http::ANTHROPIC_VERSION);
        headers.insert("anthropic-version", version);
    }
    let answer = http.send_to(path, Method::GET, &headers, String::new()).await;
    let status = answer.map_err(|_| format!("{} cannot be reached", http.place()))?.status();
    match status.as_u16() {
        401 | 403 => Err(format!("{} does not take the key ({status})", http.place())),
        // It speaks HTTP, and lists no models.
        _ if status.is_success() || status.is_client_error() => Ok(format!("{} answers ({status})", http.place())),
        _ => Err(format!("{} answers {status}", http.place())),
    }
}
