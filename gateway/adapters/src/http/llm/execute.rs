//! `POST /execute`: a prompt in, its answer out, from any engine. llm-connect's clients speak it.

use super::Llm;
use super::answer::{ended, malformed, refused, response};
use super::call::{Tried, arguments, name};
use super::door::{Caller, body_of, caller, checked, fine_model, nowhere, token};
use super::headers;
use crate::engines::Engine;
use crate::engines::prompt::{Failed, Prompt, within};
use crate::http::worker::WorkerPlane;
use crate::identity::Token;
use crate::mcp::exchange::Exchange;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use warden_core::json::{self, Json};
use warden_core::llm::Api;
use warden_core::llm::refusal::No;
use warden_core::llm::request::{self, Asked};
use warden_core::outcome::{Lost, Metered, Reply};
use warden_core::pipeline::{self, Answer, Permit, Upstream};
use warden_core::proposal::Verb;

/// The first pause before a prompt is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// What a worker sends. Members that are not known here are ignored, as llm-connect does.
pub(super) async fn take(State(plane): State<Arc<WorkerPlane>>, request_headers: HeaderMap, body: Body) -> Response {
    match read(&plane, &request_headers, body).await {
        Ok((call, token)) => {
            let (exchange, awaited) = Exchange::new(None);
            let llm = plane.llm.clone();
            tokio::spawn(async move {
                let mut caller = caller(&llm, &token, &request_headers).await;
                let named = call.body.get("engine").and_then(Json::as_str).filter(|engine| !engine.is_empty());
                caller.wants = caller.wants.or_else(|| named.map(str::to_owned));
                exchange.whole(run(&llm, call, caller, &exchange).await);
            });
            awaited.response().await
        }
        Err(no) => response(Api::Execute, &no, None),
    }
}

struct Asks {
    prompt: Prompt,
    asked: Asked,
    body: Json,
    headers: HeaderMap,
    bytes: usize,
}

async fn read(plane: &WorkerPlane, request_headers: &HeaderMap, body: Body) -> Result<(Asks, Token), No> {
    checked(plane, request_headers)?;
    let token = token(plane, request_headers)?;
    let (text, body) = body_of(plane, body).await?;
    let bad = |what: String| malformed(400, "malformed_request", what);
    let asked = request::read(Api::Execute, &body, None).map_err(|e| bad(e.to_string()))?;
    let text_of = |name: &str| body.get(name).and_then(Json::as_str).map(str::to_owned);
    let prompt = Prompt {
        prompt: text_of("prompt").ok_or_else(|| bad("`prompt`: it is missing, or no text".into()))?,
        system: text_of("system"),
        model: asked.model.clone(),
        max_tokens: asked.max_output,
    };
    if !asked.model.is_empty() && !fine_model(&asked.model) {
        return Err(bad("`model`: it is no name of a model".into()));
    }
    let headers = headers::for_provider(request_headers);
    Ok((Asks { prompt, asked, body, headers, bytes: text.len() }, token))
}

/// The same for a worker that Warden runs by itself: what the engine said, or the reason code of why it said nothing.
pub(crate) async fn complete(
    llm: &Llm,
    worker: &str,
    engine: Option<&str>,
    prompt: String,
    run_id: &str,
) -> Result<String, String> {
    let (task, of) = llm.tasks.ambient(worker, None, Some(run_id.to_owned())).await.map_err(str::to_owned)?;
    let caller = Caller {
        delegate: None,
        worker: worker.to_owned(),
        host: None,
        task,
        of: Some(of),
        barred: None,
        wants: engine.map(str::to_owned),
        patience: None,
    };
    let text = json!({ "prompt": prompt }).to_string();
    let body = json::parse(text.as_bytes(), llm.settings.worker).map_err(|_| "prompt_too_large".to_owned())?;
    let asked = request::read(Api::Execute, &body, None).map_err(|_| "malformed_request".to_owned())?;
    let prompt = Prompt { prompt, system: None, model: String::new(), max_tokens: None };
    let call = Asks { prompt, asked, body, headers: HeaderMap::new(), bytes: text.len() };
    // Nobody hangs up on it.
    let (exchange, _awaited) = Exchange::new(None);
    let response = run(llm, call, caller, &exchange).await;
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, llm.settings.server.bytes_max).await.map_err(|_| "failed".to_owned())?;
    let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let refused = said.pointer("/error/code").and_then(serde_json::Value::as_str);
    match (head.status.is_success(), refused, said["content"].as_str()) {
        // One that is held is accepted, and not done.
        (true, None, content) => Ok(content.unwrap_or_default().to_owned()),
        (_, refused, _) => Err(refused.unwrap_or("failed").to_owned()),
    }
}

async fn run(llm: &Llm, mut call: Asks, caller: Caller, exchange: &Exchange) -> Response {
    let wanted = caller.wanted(llm);
    let wanted: Vec<Option<&str>> = wanted.iter().map(Option::as_deref).collect();
    let zone = caller.zone(llm);
    let first = match llm.engines.choose(Api::Execute, &call.asked.model, &wanted, zone.as_deref()) {
        Ok(first) => first,
        Err(reason) => return nowhere(llm, &caller, Api::Execute, &call.asked, reason).await,
    };
    let started = Instant::now();
    let others = llm.engines.instead_of(&first, Api::Execute, &call.asked.model);
    let model = call.asked.model.clone();
    let mut last: Option<(Tried, Arc<Engine>)> = None;
    for engine in std::iter::once(first).chain(others) {
        call.asked.model = if model.is_empty() { engine.model.clone().unwrap_or_default() } else { model.clone() };
        call.prompt.model = call.asked.model.clone();
        let deadline = started + caller.patience.unwrap_or(engine.timeout).min(engine.timeout);
        if last.is_some() && deadline <= Instant::now() {
            continue;
        }
        let mut goes_on = false;
        for tries in 0..=engine.retries {
            let tried = attempt(llm, &call, &caller, &engine, exchange, deadline).await;
            let again = tried.is_worth_another();
            goes_on = tried.is_worth_another_engine();
            if last.is_none() || !matches!(tried.answer, Answer::Refused(_)) {
                last = Some((tried, engine.clone()));
            }
            let pause = PAUSE * 2u32.saturating_pow(tries.min(8));
            if !again || tries == engine.retries || Instant::now() + pause >= deadline {
                break;
            }
            tokio::select! {
                () = sleep(pause) => {}
                // Nobody waits for the answer any more.
                () = exchange.left() => {
                    goes_on = false;
                    break;
                }
            }
        }
        if !goes_on {
            break;
        }
    }
    let task = caller.task.as_str();
    let Some((Tried { answer, head, late }, engine)) = last else {
        return response(Api::Execute, &malformed(500, "failed", "no engine was tried".into()), Some(task));
    };
    match answer {
        Answer::Refused(refusal) => response(Api::Execute, &refused(&refusal), Some(task)),
        Answer::Ended { id, .. } if late => response(Api::Execute, &super::answer::late(&id), Some(task)),
        Answer::Ended { id, reply } => response(Api::Execute, &ended(&id, &reply), Some(task)),
        Answer::Answered { id, payload, is_error, body, .. } => {
            let status = head.map_or(StatusCode::BAD_GATEWAY, |(status, _)| status);
            let text = if is_error {
                let message = body.get("error").and_then(Json::as_str).unwrap_or_default().to_owned();
                let decision = Some(id.to_string());
                let code = "engine_refused".to_owned();
                No { status: status.as_u16(), code, message, kind: "failed", decision, exceeded: None }
                    .body(Api::Execute)
                    .to_string()
            } else {
                // The answer was scanned; what Warden adds is its own.
                let said = [("engine", engine.id.as_str()), ("task", task), ("decision", id.as_str())];
                said.iter().fold(payload.into_text(), |text, (name, value)| {
                    json::with_member(&text, name, &json!(value).to_string()).unwrap_or(text)
                })
            };
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            name(response.headers_mut(), &id, task);
            response
        }
    }
}

async fn attempt(
    llm: &Llm,
    call: &Asks,
    caller: &Caller,
    engine: &Engine,
    exchange: &Exchange,
    deadline: Instant,
) -> Tried {
    let budgeted = llm.gate.budgets().charges(&caller.worker);
    let mut prompt = call.prompt.clone();
    if budgeted {
        prompt.max_tokens = prompt.max_tokens.or(Some(engine.bounds.output));
    }
    let cost = if budgeted { engine.at_most(&call.asked, call.bytes) } else { Default::default() };
    let mut proposal = caller.propose(llm, &engine.id, Verb::CallEngine, cost);
    proposal.method = Api::Execute.name().to_owned();
    proposal.arguments = arguments(Api::Execute, &call.asked);
    proposal.envelope = Json::Array(vec![call.body.clone(), headers::to_scan(&call.headers)]);
    proposal.payload = json!({ "prompt": prompt.prompt, "system": prompt.system, "model": prompt.model,
        "max_tokens": prompt.max_tokens })
    .to_string();
    let asks = Asking { llm, engine, exchange, prompt: &prompt, deadline, status: Mutex::default() };
    let answer = pipeline::handle(&llm.gate, proposal, &asks).await;
    let status = asks.status.into_inner().unwrap_or_else(PoisonError::into_inner);
    let late = deadline <= Instant::now() && matches!(answer, Answer::Ended { reply: Reply::NotSent, .. });
    Tried { answer, late, head: status.map(|status| (status, HeaderMap::new())) }
}

/// Puts a permitted prompt to its engine.
struct Asking<'a> {
    llm: &'a Llm,
    engine: &'a Engine,
    exchange: &'a Exchange,
    prompt: &'a Prompt,
    deadline: Instant,
    status: Mutex<Option<StatusCode>>,
}

impl Asking<'_> {
    fn answered(&self, status: u16, raw: &serde_json::Value, is_error: bool) -> Reply {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        let raw = raw.to_string();
        match json::parse(raw.as_bytes(), self.llm.settings.server) {
            Ok(body) => Reply::Answered { raw, body, is_error },
            Err(_) => Reply::Lost(Lost::Garbled),
        }
    }
}

impl Upstream for Asking<'_> {
    async fn forward(&self, permit: Permit) -> Reply {
        let meter = permit.meter();
        let done = tokio::select! {
            biased;
            done = within(self.engine.adapter.as_ref(), self.prompt, self.deadline) => done,
            () = self.exchange.left() => return Reply::Cancelled,
            () = self.llm.closed() => return Reply::Lost(Lost::Aborted),
        };
        let tell = |usage| {
            let Some(usage) = usage else { return false };
            meter.tell(Metered::Used(usage, self.engine.cost(&self.prompt.model, usage)));
            true
        };
        match done {
            Ok(completion) => {
                tell(completion.usage);
                let usage = completion.usage.map(|u| json!({ "input_tokens": u.input, "output_tokens": u.output }));
                let model = completion.model.as_deref().unwrap_or(&self.prompt.model);
                let raw = json!({ "content": completion.content, "model": model, "usage": usage });
                self.answered(200, &raw, false)
            }
            Err(Failed::NotSent(why)) => {
                tracing::warn!(engine = self.engine.id, why, "nothing was sent to the engine");
                Reply::NotSent
            }
            Err(Failed::Lost(lost)) => Reply::Lost(lost),
            Err(Failed::Refused { status, message, usage }) => {
                if !tell(usage) {
                    meter.tell(Metered::Refused);
                }
                self.answered(status, &json!({ "error": message }), true)
            }
        }
    }
}
