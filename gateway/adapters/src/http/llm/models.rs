//! What a worker may call: engines, and their models by name.

use super::Llm;
use super::answer::{malformed, response};
use super::door::token;
use crate::engines::Engine;
use crate::http::worker::WorkerPlane;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use warden_core::amount::Amount;
use warden_core::llm::Api;
use warden_core::proposal::{Ask, EngineAsk, TaskFacts, TaskId, Verb};

type Plane = State<Arc<WorkerPlane>>;

/// Whether a worker may call an engine, as far as scopes of policies say.
pub(in crate::http) fn is_available(llm: &Llm, worker: &str, zone: Option<&str>, engine: &str) -> bool {
    let ask = EngineAsk {
        engine: engine.to_owned(),
        verb: Verb::CallEngine,
        task: TaskId::new(""),
        facts: TaskFacts::default(),
        at_most: Amount::ZERO,
        priced: true,
    };
    let listed = || llm.gate.snapshot().is_listed(worker, "", &Ask::Engine(Box::new(ask)));
    llm.engines.admits(zone, engine) && (llm.gate.is_in_shadow() || listed())
}

/// Engines as a worker is told of them.
pub(super) async fn engines(State(plane): Plane, headers: HeaderMap) -> Response {
    let token = match token(&plane, &headers) {
        Ok(token) => token,
        Err(no) => return response(Api::Execute, &no, None),
    };
    let llm = &plane.llm;
    let zone = llm.given(&token.worker).zone;
    let shown = |engine: &Arc<Engine>| {
        json!({ "id": engine.id, "kind": engine.kind.name(), "capabilities": engine.capabilities(),
            "available": is_available(llm, &token.worker, zone.as_deref(), &engine.id) })
    };
    axum::Json(json!({ "engines": llm.engines.iter().map(shown).collect::<Vec<_>>() })).into_response()
}

/// Models by name, with their engine and whether it speaks one of these APIs. Patterns name none.
fn models<'p>(plane: &'p WorkerPlane, worker: &str, apis: &[Api]) -> Vec<(&'p str, &'p str)> {
    let llm = &plane.llm;
    let zone = llm.given(worker).zone;
    let mut all = Vec::new();
    for engine in llm.engines.iter().filter(|engine| apis.iter().any(|api| engine.speaks.contains(api))) {
        if !is_available(llm, worker, zone.as_deref(), &engine.id) {
            continue;
        }
        let priced = engine.prices.iter().map(|(pattern, _)| pattern).filter(|pattern| engine.serves(pattern.as_str()));
        let named = engine.models.iter().chain(priced).filter(|pattern| pattern.is_exact());
        all.extend(named.map(|pattern| (pattern.as_str(), engine.id.as_str())));
        all.extend(engine.model.as_deref().map(|model| (model, engine.id.as_str())));
    }
    all.sort_unstable();
    all.dedup_by_key(|(model, _)| *model);
    all
}

/// What a worker asks about its models, and the names it is told. Anthropic's SDK and OpenAI's ask the same path, and tell
/// themselves apart by a header.
struct Question<'p> {
    is_anthropic: bool,
    api: Api,
    known: Vec<(&'p str, &'p str)>,
}

fn question<'p>(plane: &'p WorkerPlane, headers: &HeaderMap) -> Result<Question<'p>, Box<Response>> {
    let is_anthropic = headers.contains_key("anthropic-version");
    let (api, apis): (_, &[Api]) = match is_anthropic {
        true => (Api::Messages, &[Api::Messages]),
        false => (Api::Chat, &[Api::Chat, Api::Responses]),
    };
    let token = token(plane, headers).map_err(|no| Box::new(response(api, &no, None)))?;
    Ok(Question { is_anthropic, api, known: models(plane, &token.worker, apis) })
}

pub(super) async fn list(State(plane): Plane, headers: HeaderMap) -> Response {
    let Question { is_anthropic, known, .. } = match question(&plane, &headers) {
        Ok(question) => question,
        Err(refused) => return *refused,
    };
    let shown: Vec<Value> = known.into_iter().map(|(model, engine)| shown(is_anthropic, model, engine)).collect();
    let body = match is_anthropic {
        true => {
            json!({ "first_id": shown.first().map(|model| &model["id"]), "last_id": shown.last().map(|model| &model["id"]),
            "has_more": false, "data": shown })
        }
        false => json!({ "object": "list", "data": shown }),
    };
    axum::Json(body).into_response()
}

fn shown(is_anthropic: bool, model: &str, engine: &str) -> Value {
    match is_anthropic {
        true => json!({ "type": "model", "id": model, "display_name": model, "created_at": "1970-01-01T00:00:00Z" }),
        false => json!({ "id": model, "object": "model", "created": 0, "owned_by": engine }),
    }
}

pub(super) async fn one(State(plane): Plane, Path(model): Path<String>, headers: HeaderMap) -> Response {
    let Question { is_anthropic, api, known } = match question(&plane, &headers) {
        Ok(question) => question,
        Err(refused) => return *refused,
    };
    match known.into_iter().find(|(known, _)| *known == model) {
        Some((model, engine)) => axum::Json(shown(is_anthropic, model, engine)).into_response(),
        None => response(api, &malformed(404, "unknown_model", "no such model is named here".into()), None),
    }
}

pub(super) async fn gemini(State(plane): Plane, headers: HeaderMap) -> Response {
    let token = match token(&plane, &headers) {
        Ok(token) => token,
        Err(no) => return response(Api::Gemini, &no, None),
    };
    let shown = models(&plane, &token.worker, &[Api::Gemini]).into_iter().map(|(model, _)| {
        json!({ "name": format!("models/{model}"), "displayName": model,
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent"] })
    });
    axum::Json(json!({ "models": shown.collect::<Vec<_>>() })).into_response()
}
