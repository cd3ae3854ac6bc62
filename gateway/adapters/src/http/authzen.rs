//! The decision door: any policy enforcement point asks in the words of the
//! [OpenID AuthZEN Authorization API 1.0](https://openid.net/specs/authorization-api-1_0.html). What is decided here is
//! recorded as `enforced: caller`, and nothing is forwarded.

use super::worker::WorkerPlane;
use crate::identity::{Role, Token};
use crate::mcp::headers::{correlation, is_json};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use warden_core::json::{self, Json};
use warden_core::pipeline;
use warden_core::policy::snapshot::Snapshot;
use warden_core::proposal::{Ask, Correlation, DoneTo, Door, EntityName, Mode, Proposal, SiteAsk, Verb};
use warden_core::verdict::Verdict;

/// Evaluations in one request.
const EVALUATIONS_MAX: usize = 1000;
/// Bytes that the defaults of one request come to, in all its evaluations.
const DEFAULTS_BYTES_MAX: usize = 16 << 20;
/// Evaluations of one request that are on their way at once: they share the journal's writes.
const AT_ONCE: usize = 64;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The routes.
pub fn routes() -> Router<Arc<WorkerPlane>> {
    Router::new()
        .route("/access/v1/evaluation", post(evaluation))
        .route("/access/v1/evaluations", post(evaluations))
        .route("/.well-known/authzen-configuration", get(configuration))
        .layer(axum::middleware::from_fn(with_request_id))
}

/// An answer carries the id that its request had.
async fn with_request_id(request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).cloned();
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn configuration(State(plane): State<Arc<WorkerPlane>>, headers: HeaderMap) -> Response {
    if let Err(response) = super::guard(&headers, &plane.allowed_hosts) {
        return *response;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let base = plane.public_url.clone().unwrap_or_else(|| format!("http://{host}"));
    axum::Json(json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": format!("{base}/access/v1/evaluation"),
        "access_evaluations_endpoint": format!("{base}/access/v1/evaluations"),
    }))
    .into_response()
}

async fn evaluation(State(plane): State<Arc<WorkerPlane>>, headers: HeaderMap, body: Body) -> Response {
    answered(async {
        let (caller, asked) = read(&plane, &headers, body).await?;
        let asked = Question::read(&asked, &Json::Null, "")?;
        Ok(decide(&plane, &caller, asked).await)
    })
    .await
}

async fn evaluations(State(plane): State<Arc<WorkerPlane>>, headers: HeaderMap, body: Body) -> Response {
    answered(async {
        let (caller, asked) = read(&plane, &headers, body).await?;
        let items = match asked.get("evaluations") {
            None | Some(Json::Null) => &[][..],
            Some(Json::Array(items)) => items,
            Some(_) => return Err(bad("evaluations: it is no array")),
        };
        if items.is_empty() {
            let asked = Question::read(&asked, &Json::Null, "")?;
            return Ok(decide(&plane, &caller, asked).await);
        }
        if items.len() > EVALUATIONS_MAX {
            return Err(bad(&format!(
                "evaluations: {}, and at most {EVALUATIONS_MAX} are decided at once",
                items.len()
            )));
        }
        // Each evaluation gets the defaults, so many of them may be many times the request.
        let defaults = ["subject", "action", "resource", "context"].into_iter().filter_map(|name| asked.get(name));
        let bytes: usize = defaults.map(|json| json.to_value().to_string().len()).sum();
        if bytes * items.len() > DEFAULTS_BYTES_MAX {
            return Err(bad(&format!(
                "evaluations: {} with defaults of {bytes} bytes are too many: ask for fewer at once",
                items.len()
            )));
        }
        let semantic = Semantic::read(&asked)?;
        // Everything is read before anything is decided.
        let mut questions = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            questions.push(Question::read(item, &asked, &format!("evaluations[{number}]."))?);
        }
        let decisions = match semantic.stops_at() {
            None => {
                let decisions = questions.into_iter().map(|question| decide(&plane, &caller, question));
                futures::stream::iter(decisions).buffered(AT_ONCE).collect::<Vec<_>>().await
            }
            Some(last) => {
                let mut decisions = Vec::new();
                for question in questions {
                    let decision = decide(&plane, &caller, question).await;
                    let over = decision["decision"] == last;
                    decisions.push(decision);
                    if over {
                        break;
                    }
                }
                decisions
            }
        };
        Ok(json!({ "evaluations": decisions }))
    })
    .await
}

/// A refusal of the request itself.
type Refused = Box<Response>;

async fn answered(work: impl Future<Output = Result<Value, Refused>>) -> Response {
    match work.await {
        Ok(decision) => axum::Json(decision).into_response(),
        Err(response) => *response,
    }
}

fn bad(what: &str) -> Refused {
    Box::new((StatusCode::BAD_REQUEST, format!("{what}\n")).into_response())
}

/// Who asks, and what they say it belongs to.
struct Caller {
    token: Token,
    correlation: Correlation,
}

async fn read(plane: &WorkerPlane, headers: &HeaderMap, body: Body) -> Result<(Caller, Json), Refused> {
    let token = plane.token(headers)?;
    let correlation = match token.role {
        Role::Pep => correlation(headers),
        Role::Host | Role::Worker => plane.belongs(&token, headers),
    };
    if !is_json(headers) {
        return Err(Box::new(
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send `Content-Type: application/json`\n").into_response(),
        ));
    }
    let body = plane.body(body).await?;
    let asked = json::parse(&body, plane.settings.worker).map_err(|e| bad(&e.to_string()))?;
    match asked {
        Json::Object(_) => Ok((Caller { token, correlation }, asked)),
        _ => Err(bad("the request is not one JSON object")),
    }
}

/// When several evaluations stop.
#[derive(Clone, Copy)]
enum Semantic {
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

impl Semantic {
    fn read(asked: &Json) -> Result<Self, Refused> {
        let semantic = asked.get("options").and_then(|options| options.get("evaluations_semantic"));
        match semantic.map(|semantic| semantic.as_str().unwrap_or_default()) {
            None | Some("execute_all") => Ok(Self::ExecuteAll),
            Some("deny_on_first_deny") => Ok(Self::DenyOnFirstDeny),
            Some("permit_on_first_permit") => Ok(Self::PermitOnFirstPermit),
            Some(_) => {
                Err(bad("options.evaluations_semantic: use execute_all, deny_on_first_deny or permit_on_first_permit"))
            }
        }
    }

    /// The decision that is the last.
    fn stops_at(self) -> Option<bool> {
        match self {
            Self::ExecuteAll => None,
            Self::DenyOnFirstDeny => Some(false),
            Self::PermitOnFirstPermit => Some(true),
        }
    }
}

/// One evaluation, with everything its defaults gave it.
struct Question {
    subject: EntityName,
    action: String,
    resource: EntityName,
    /// The caller's context and all properties: what lands in `context.input`.
    input: Json,
}

impl Question {
    /// `at` is where `item` stands, for messages.
    fn read(item: &Json, defaults: &Json, at: &str) -> Result<Self, Refused> {
        if !matches!(item, Json::Object(_)) {
            return Err(bad(&format!("{}: it is no object", at.trim_end_matches('.'))));
        }
        let part = |name: &str| item.get(name).or_else(|| defaults.get(name));
        let needed = |name: &str| part(name).ok_or_else(|| bad(&format!("{at}{name}: missing")));
        let text = |json: &Json, name: &str, member: &str| -> Result<String, Refused> {
            let text = json.get(member).and_then(Json::as_str).filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| bad(&format!("{at}{name}.{member}: it is no text")))
        };
        let (subject, action, resource) = (needed("subject")?, needed("action")?, needed("resource")?);
        let entity = |json: &Json, name: &str| {
            Ok::<_, Refused>(EntityName { ty: text(json, name, "type")?, id: text(json, name, "id")? })
        };
        let mut input = match part("context") {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::Object(members)) => members.clone(),
            Some(_) => return Err(bad(&format!("{at}context: it is no object"))),
        };
        for (name, json) in [("subject", subject), ("action", action), ("resource", resource)] {
            match json.get("properties") {
                None | Some(Json::Null) => {}
                Some(Json::Object(members)) if members.is_empty() => {}
                Some(properties @ Json::Object(_)) => {
                    // It would be taken for the properties.
                    if input.iter().any(|(taken, _)| taken == name) {
                        return Err(bad(&format!("{at}context.{name}: this name is for the properties of the {name}")));
                    }
                    input.push((name.to_owned(), properties.clone()));
                }
                Some(_) => return Err(bad(&format!("{at}{name}.properties: it is no object"))),
            }
        }
        Ok(Self {
            subject: entity(subject, "subject")?,
            action: text(action, "action", "name")?,
            resource: entity(resource, "resource")?,
            input: Json::Object(input),
        })
    }

    /// As a proposal. Actions of Warden's own are asked about in the words of policies: `SERVER/TOOL` on
    /// `Tool::"SERVER/TOOL"`, or a verb on `Server::"SERVER"`, for a `Worker`.
    fn propose(self, Caller { token, correlation }: &Caller, snapshot: &Snapshot) -> Proposal {
        let own = self.subject.ty == "Worker" && self.subject.id == token.worker;
        let mut proposal = Proposal {
            door: Door::Authzen,
            worker: token.worker.clone(),
            connection: String::new(),
            server: String::new(),
            method: self.action.clone(),
            ask: Ask::Unknown,
            payload: self.text(),
            envelope: self.names(),
            arguments: self.input,
            caller: None,
            correlation: correlation.clone(),
            mode: Mode::default(),
            barred: (!own && token.role != Role::Pep).then_some("subject_of_another"),
        };
        let tool = self.action.split_once('/').filter(|(server, _)| snapshot.has_server(server));
        let verb = Verb::ALL.into_iter().find(|verb| verb.action() == self.action && verb.done_to() == DoneTo::Server);
        let wanted = match (tool, verb) {
            (Some((server, tool)), _) => {
                proposal.server = server.to_owned();
                proposal.ask = Ask::Tool { name: tool.to_owned() };
                Some(("Tool", self.action.as_str()))
            }
            (None, Some(verb)) => {
                proposal.server.clone_from(&self.resource.id);
                proposal.ask = Ask::Verb(verb);
                Some(("Server", self.resource.id.as_str()))
            }
            (None, None) => None,
        };
        match wanted {
            Some((ty, id)) => {
                let fits = self.subject.ty == "Worker" && self.resource.ty == ty && self.resource.id == id;
                if !fits {
                    proposal.barred = proposal.barred.or(Some("unknown_type"));
                }
                if self.subject.ty == "Worker" && self.subject.id != token.worker && proposal.barred.is_none() {
                    proposal.caller = Some(std::mem::replace(&mut proposal.worker, self.subject.id));
                }
            }
            None => {
                let ask = SiteAsk { principal: self.subject, action: self.action, resource: self.resource };
                proposal.ask = Ask::Site(Box::new(ask));
            }
        }
        proposal
    }

    /// The whole question as one text, by which an identical one is recognised.
    fn text(&self) -> String {
        json!([
            self.subject.ty,
            self.subject.id,
            self.action,
            self.resource.ty,
            self.resource.id,
            self.input.to_value()
        ])
        .to_string()
    }

    /// Everything but the input, to be scanned.
    fn names(&self) -> Json {
        let texts = [&self.subject.ty, &self.subject.id, &self.action, &self.resource.ty, &self.resource.id];
        Json::Array(texts.into_iter().map(|text| Json::String(text.clone())).collect())
    }
}

async fn decide(plane: &WorkerPlane, caller: &Caller, question: Question) -> Value {
    let proposal = question.propose(caller, &plane.gate.snapshot());
    match pipeline::advise(&plane.gate, proposal).await {
        Ok(id) => json!({ "decision": true, "context": { "verdict": Verdict::Allow, "id": id } }),
        Err(refusal) => {
            let mut context = json!({ "verdict": refusal.verdict, "reason": refusal.reason, "id": refusal.id });
            if let Some(advice) = refusal.advice {
                context["advice"] = advice.into();
            }
            json!({ "decision": false, "context": context })
        }
    }
}
