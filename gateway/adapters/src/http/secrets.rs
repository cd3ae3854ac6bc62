//! Registered values and the allowlist, over the operator plane.

use super::error;
use super::operator::{By, OperatorPlane, Plane, unavailable};
use crate::secrets::{self, store};
use crate::world::now;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use warden_core::secrets::Engine;
use warden_core::secrets::registered::{self, Registration};
use zeroize::Zeroizing;

pub(super) fn routes() -> Router<Arc<OperatorPlane>> {
    Router::new()
        .route("/v1/secrets", get(listed))
        .route("/v1/secrets/registered", post(register))
        .route("/v1/secrets/registered/{name}", delete(forget))
        .route("/v1/secrets/allowed", post(allow))
        .route("/v1/secrets/allowed/{fingerprint}", delete(disallow))
}

/// What is looked for and what may pass, without any value.
async fn listed(State(plane): Plane) -> Response {
    let engine = plane.gate.ports.scanner.engine();
    let dir = &plane.governor.setup().data_dir;
    let (kept, allowed) = match (store::names(dir), store::allowed(dir)) {
        (Ok(kept), Ok(allowed)) => (kept, allowed),
        (Err(e), _) | (_, Err(e)) => return unavailable(&e.to_string()),
    };
    let registered = engine.registered().iter().map(|known| {
        let from = if kept.contains(&known.name) { "register" } else { "warden.yaml" };
        json!({ "name": known.name, "canary": known.canary, "fingerprint": known.fingerprint, "from": from })
    });
    Json(json!({
        "formats": engine.formats().len(),
        "registered": registered.collect::<Vec<_>>(),
        "allowed": allowed,
    }))
    .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    name: String,
    value: String,
    #[serde(default)]
    canary: bool,
}

async fn register(State(plane): Plane, Extension(by): Extension<By>, body: Bytes) -> Response {
    // What is wrong with it is not told in its own words: those may be the value.
    let Ok(body) = serde_json::from_slice::<Register>(&body) else {
        let message = "an object with `name` and `value`, both strings, and perhaps `canary` is expected";
        return error(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message);
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if body.name.is_empty() || body.name.len() > 64 || !body.name.chars().all(is_name) {
        return error(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "`name`: use 1 to 64 letters, digits, `.`, `_`, `-`",
        );
    }
    let is_registered = plane.gate.ports.scanner.engine().registered().iter().any(|known| known.name == body.name);
    match store::names(&plane.governor.setup().data_dir) {
        Ok(kept) if is_registered && !kept.contains(&body.name) => {
            let message = format!("`{}` is the name of a value in `warden.yaml` already: use another one", body.name);
            return error(StatusCode::CONFLICT, "conflict", &message);
        }
        Ok(_) => {}
        Err(e) => return unavailable(&e.to_string()),
    }
    if !plane.gate.ports.scanner.scan_text(&body.name, "").is_clean() {
        return error(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "`name` holds a secret value itself");
    }
    let value = Zeroizing::new(body.value);
    let value = value.trim();
    if let Err(unfit) = registered::check(value.as_bytes()) {
        return error(StatusCode::UNPROCESSABLE_ENTITY, "unfit_value", &format!("`{}`: {unfit}", body.name));
    }
    let value = Zeroizing::new(value.as_bytes().to_vec());
    let registration = Registration { name: body.name.clone(), canary: body.canary, value };
    let fingerprint = plane.gate.ports.scanner.key().tag(&registration.value);
    let dir = plane.governor.setup().data_dir.clone();
    let keys = plane.gate.ports.keys.clone();
    let kept = move || store::register(&dir, &keys, &registration);
    match plane.change_secrets(&by, ("secret_register", &body.name), kept).await {
        Ok(()) => Json(json!({ "name": body.name, "canary": body.canary, "fingerprint": fingerprint })).into_response(),
        Err(response) => *response,
    }
}

async fn forget(State(plane): Plane, Extension(by): Extension<By>, Path(name): Path<String>) -> Response {
    let dir = plane.governor.setup().data_dir.clone();
    match store::names(&dir) {
        Ok(names) if names.contains(&name) => {}
        Ok(_) => {
            let message =
                "no such value was registered by `warden secrets register`; those of `warden.yaml` go from there";
            return error(StatusCode::NOT_FOUND, "not_found", message);
        }
        Err(e) => return unavailable(&e.to_string()),
    }
    let gone = name.clone();
    let forget = move || store::forget(&dir, &gone).map(drop);
    match plane.change_secrets(&by, ("secret_forget", &name), forget).await {
        Ok(()) => Json(json!({ "forgotten": name })).into_response(),
        Err(response) => *response,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    fingerprint: String,
    owner: String,
    reason: String,
    #[serde(default)]
    until: Option<Timestamp>,
}

async fn allow(State(plane): Plane, Extension(by): Extension<By>, Json(body): Json<Allow>) -> Response {
    let unfit = |message: &str| error(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message);
    let is_fingerprint = body.fingerprint.split_once(':').is_some_and(|(kid, tag)| {
        !kid.is_empty()
            && tag.len() == 32
            && tag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    if !is_fingerprint || body.fingerprint.len() > 64 {
        return unfit(
            "`fingerprint`: it looks like `k1a2b3c4:` and 32 hexadecimal digits in small letters, as findings show it",
        );
    }
    if body.owner.trim().is_empty() || body.reason.trim().is_empty() || body.owner.len() + body.reason.len() > 512 {
        return unfit("`owner` and `reason` say who answers for it and why, in 512 bytes together");
    }
    let scanner = &plane.gate.ports.scanner;
    if !(scanner.scan_text(&body.reason, "").is_clean() && scanner.scan_text(&body.owner, "").is_clean()) {
        return unfit("`owner` or `reason` holds a secret value itself");
    }
    if body.until.is_some_and(|until| until <= now()) {
        return unfit("`until` is over already");
    }
    if scanner.engine().registered().iter().any(|known| known.fingerprint == body.fingerprint) {
        let message = "a registered value never passes: take it from the register instead";
        return error(StatusCode::CONFLICT, "refused", message);
    }
    let Allow { fingerprint, owner, reason, until } = body;
    let entry = store::Allowed { fingerprint, owner, reason, until, by: by.0.clone(), since: now() };
    let (dir, kept) = (plane.governor.setup().data_dir.clone(), entry.clone());
    let allow = move || store::allow(&dir, kept);
    match plane.change_secrets(&by, ("secret_allow", &entry.fingerprint), allow).await {
        Ok(()) => Json(json!(entry)).into_response(),
        Err(response) => *response,
    }
}

async fn disallow(State(plane): Plane, Extension(by): Extension<By>, Path(fingerprint): Path<String>) -> Response {
    let dir = plane.governor.setup().data_dir.clone();
    match store::allowed(&dir) {
        Ok(all) if all.iter().any(|entry| entry.fingerprint == fingerprint) => {}
        Ok(_) => return error(StatusCode::NOT_FOUND, "not_found", "no such fingerprint is allowed"),
        Err(e) => return unavailable(&e.to_string()),
    }
    let gone = fingerprint.clone();
    let disallow = move || store::disallow(&dir, &gone).map(drop);
    match plane.change_secrets(&by, ("secret_disallow", &fingerprint), disallow).await {
        Ok(()) => Json(json!({ "disallowed": fingerprint })).into_response(),
        Err(response) => *response,
    }
}

impl OperatorPlane {
    /// Changes what is looked for: recorded, then written, then in force.
    async fn change_secrets(
        &self,
        by: &By,
        (act, object): (&str, &str),
        change: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), Box<Response>> {
        let _one_at_a_time = self.changing.lock().await;
        // Whether it could be in force, before anything is written.
        self.load_secrets(|| Ok(()), "nothing was changed").await?;
        self.act(by, act, object).await?;
        let engine = self.load_secrets(change, "written, and not in force").await?;
        self.gate.ports.scanner.serve(engine);
        Ok(())
    }

    async fn load_secrets(
        &self,
        first: impl FnOnce() -> std::io::Result<()> + Send + 'static,
        or: &str,
    ) -> Result<Engine, Box<Response>> {
        let (dir, keys) = (self.governor.setup().data_dir.clone(), self.gate.ports.keys.clone());
        let sources = self.secrets.clone();
        let load = move || {
            first()?;
            secrets::load(&dir, &keys, &sources)
        };
        let engine = tokio::task::spawn_blocking(load).await.map_err(|e| Box::new(unavailable(&e.to_string())))?;
        engine.map_err(|e: secrets::Error| Box::new(error(StatusCode::CONFLICT, "refused", &format!("{or}: {e}"))))
    }
}
