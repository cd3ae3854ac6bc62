//! A question in the words of Cedar, and the answer of whole layers: no slices, nothing prepared. What slices are held
//! against.

use crate::policy::entities::{deepest, uid};
use crate::policy::layer::LayerName;
use crate::policy::snapshot::Snapshot;
use crate::verdict::Verdict;
use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, Policy, PolicySet, PrincipalConstraint, Request,
};
use serde_json::{Map, Value, json};

/// What is asked. `context` is in Cedar's JSON form and complete, see [`Question::new`].
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Who.
    pub principal: EntityUid,
    /// Does what.
    pub action: EntityUid,
    /// To what.
    pub resource: EntityUid,
    /// Under which circumstances.
    pub context: Value,
}

/// What whole layers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// The policies that decided, sorted: of the question as it stands and, when it escalates, acknowledged.
    pub policies: Vec<String>,
    /// Policies that failed.
    pub errors: Vec<String>,
}

/// The base fields of a context with nothing remarkable about it.
pub fn plain() -> Map<String, Value> {
    let plain = json!({ "acknowledged": false, "mode": { "__entity": { "type": "Mode", "id": "execute" } },
        "secret_findings": 0, "secret_suspicions": 0, "unseen": [], "dot_segments": false });
    match plain {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// An entity's uid as Cedar reads it in a policy, escapes included.
fn read_uid(text: &str) -> Option<EntityUid> {
    // Nothing but a uid can stand there.
    let policy = Policy::parse(None, format!("permit (principal == {text}, action, resource);")).ok()?;
    match policy.principal_constraint() {
        PrincipalConstraint::Eq(uid) => Some(uid),
        _ => None,
    }
}

impl Question {
    /// A question whose context says only what matters: base fields that are missing are plain ones, and so is `input` for an
    /// action that has one. The error says what does not fit the schema.
    pub fn new(snapshot: &Snapshot, uids: [&str; 3], context: &Map<String, Value>) -> Result<Self, String> {
        let uid = |what: &str, text: &str| -> Result<EntityUid, String> {
            read_uid(text).ok_or_else(|| format!("{what} `{}` is no entity: write `Type::\"id\"`", text.escape_debug()))
        };
        let mut whole = plain();
        whole.extend(context.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut question = Self {
            principal: uid("principal", uids[0])?,
            action: uid("action", uids[1])?,
            resource: uid("resource", uids[2])?,
            context: Value::Object(whole),
        };
        if let Err(e) = question.request(snapshot, None) {
            // An action with arguments has an input, if only an empty one.
            if question.context.get("input").is_some() {
                return Err(e);
            }
            question.context["input"] = json!({});
            let misses_input = e.contains("attribute `input`");
            question.request(snapshot, None).map_err(|with_one| if misses_input { with_one } else { e })?;
        }
        Ok(question)
    }

    /// Whether it says that it is acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.context["acknowledged"] == true
    }

    /// As a request, validated against the schema; acknowledged or not, as it stands when nothing is said of that.
    pub fn request(&self, snapshot: &Snapshot, acknowledged: Option<bool>) -> Result<Request, String> {
        let mut context = self.context.clone();
        if let Some(acknowledged) = acknowledged {
            context["acknowledged"] = acknowledged.into();
        }
        let schema = snapshot.schema();
        let context = Context::from_json_value(context, Some((schema, &self.action)))
            .map_err(|e| format!("the context does not fit the schema: {}", deepest(&e)))?;
        Request::new(self.principal.clone(), self.action.clone(), self.resource.clone(), context, Some(schema))
            .map_err(|e| format!("the request does not fit the schema: {}", deepest(&e)))
    }

    /// The layers that decide it, as one set.
    pub fn layers(&self, snapshot: &Snapshot) -> PolicySet {
        let worker = self.principal.id().unescaped();
        let bound = self.is_by_worker().then(|| snapshot.composition(worker)).flatten();
        let prefix = bound.map(|name| format!("{}{name}/", LayerName::Composition.prefix()));
        let mut all = PolicySet::new();
        for layer in &snapshot.layers {
            let of_it = |prefix: &String| {
                layer.rules.iter().all(|rule| AsRef::<str>::as_ref(rule.policy.id()).starts_with(prefix))
            };
            if layer.name != LayerName::Composition || prefix.as_ref().is_some_and(of_it) {
                // Ids are prefixed by layer and unique within one.
                let _ = all.merge(&layer.set(), false);
            }
        }
        all
    }

    /// The same asked by everything above a node of a composition, the nearest first: a node never does what the charter and the site keep
    /// from these.
    pub fn above(&self, snapshot: &Snapshot) -> Vec<Question> {
        let name = self.principal.id().unescaped();
        let ends = name.match_indices('/').map(|(end, _)| &name[..end]).filter(|_| self.is_by_worker());
        let known = ends.rev().filter(|above| snapshot.is_known(above));
        known.filter_map(|above| Some(Question { principal: uid("Worker", above).ok()?, ..self.clone() })).collect()
    }

    fn is_by_worker(&self) -> bool {
        self.principal.type_name().basename() == "Worker"
    }

    /// What `set` says of it.
    pub fn answer(&self, snapshot: &Snapshot, set: &PolicySet, entities: &Entities) -> Result<Answer, String> {
        let asked = [self.request(snapshot, None)?, self.request(snapshot, Some(true))?];
        let worker = self.principal.id().unescaped();
        Ok(answer(&asked, set, entities, snapshot.composition(worker).is_some()))
    }
}

/// What `set` says of a request as it stands, and acknowledged.
pub fn answer(asked: &[Request; 2], set: &PolicySet, entities: &Entities, in_composition: bool) -> Answer {
    let ask = |request: &Request| {
        let response = Authorizer::new().is_authorized(request, set, entities);
        let policies: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        let errors: Vec<String> = response
            .diagnostics()
            .errors()
            .map(|e| match e {
                cedar_policy::AuthorizationError::PolicyEvaluationError(e) => e.policy_id().to_string(),
            })
            .collect();
        let permitted = |layer: LayerName| policies.iter().any(|id| id.starts_with(layer.prefix()));
        let allowed = response.decision() == Decision::Allow
            && permitted(LayerName::Site)
            && (!in_composition || permitted(LayerName::Composition));
        (allowed && errors.is_empty(), policies, errors)
    };
    let (allowed, mut policies, mut errors) = ask(&asked[0]);
    let verdict = match (allowed, errors.is_empty()) {
        (true, _) => Verdict::Allow,
        (false, false) => Verdict::Deny,
        (false, true) => {
            let (allowed, more, failed) = ask(&asked[1]);
            errors = failed;
            if allowed {
                policies.extend(more);
                Verdict::Escalate
            } else {
                Verdict::Deny
            }
        }
    };
    policies.sort_unstable();
    policies.dedup();
    errors.sort_unstable();
    Answer { verdict, policies, errors }
}
