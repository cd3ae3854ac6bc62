//! A request that shows something, made as plain as it can be.

use cedar_policy::{Context, Entities, EntityUid, Request, Schema};
use serde_json::{Map, Value, json};
use warden_core::authoring::question;

/// So many workers are tried.
const TRIED_MAX: usize = 50;

/// A request with the entities that it speaks of.
#[derive(Clone, Debug)]
pub struct Witness {
    /// The request.
    pub request: Request,
    /// Its entities.
    pub entities: Entities,
}

impl Witness {
    /// The same request, acknowledged or not.
    pub(super) fn with_acknowledged(&self, schema: &Schema, acknowledged: bool) -> Result<Request, String> {
        let parts = (self.request.principal(), self.request.action(), self.request.resource(), self.request.context());
        let (Some(principal), Some(action), Some(resource), Some(context)) = parts else {
            return Err("the witness is no whole request".into());
        };
        let mut context = context.to_json_value().map_err(|e| e.to_string())?;
        context["acknowledged"] = acknowledged.into();
        request(schema, [principal, action, resource], context)
    }

    /// The same with as little about it as `holds` lets be: a worker and a tool that there are, and facts that are plain.
    #[must_use]
    pub fn simplest(self, schema: &Schema, real: &Entities, holds: impl Fn(&Self) -> bool) -> Self {
        let mut best = self.with_real(schema, real, &holds);
        for (name, plain) in question::plain() {
            let changed = best.changed(schema, |context| drop(context.insert(name.clone(), plain.clone())));
            best = changed.filter(&holds).unwrap_or(best);
        }
        best
    }

    /// With a configured worker and a catalogued tool in place of made-up ones, if there are any that do.
    fn with_real(self, schema: &Schema, real: &Entities, holds: &impl Fn(&Self) -> bool) -> Self {
        let (Some(action), Some(context)) = (self.request.action(), self.request.context()) else { return self };
        let Ok(context) = context.to_json_value() else { return self };
        let mut unacknowledged = context.clone();
        unacknowledged["acknowledged"] = false.into();
        let mut plain = context.clone();
        for (name, value) in question::plain() {
            plain[name] = value;
        }
        let of = |uid: Option<&EntityUid>, named: Option<&str>| -> Vec<EntityUid> {
            let Some(uid) = uid else { return Vec::new() };
            let mut all: Vec<EntityUid> = real
                .iter()
                .map(cedar_policy::Entity::uid)
                .filter(|other| other.type_name() == uid.type_name())
                .filter(|other| named.is_none_or(|named| other.id().unescaped() == named))
                .collect();
            all.sort_by_key(ToString::to_string);
            all.truncate(TRIED_MAX);
            all.push(uid.clone());
            all
        };
        let id = action.id().unescaped().to_owned();
        let tool = id.contains('/').then_some(id.as_str());
        let resources = of(self.request.resource(), tool);
        for principal in of(self.request.principal(), None) {
            for resource in &resources {
                // What is real stands as it is; what is made up is as the solver made it.
                let kept = self.entities.iter().filter(|made| real.get(&made.uid()).is_none()).cloned();
                let entities = Entities::from_entities(real.iter().cloned().chain(kept), Some(schema));
                let Ok(entities) = entities else { continue };
                // A request that nobody acknowledged says most.
                for context in [&unacknowledged, &plain, &context] {
                    let Ok(request) = request(schema, [&principal, action, resource], context.clone()) else {
                        continue;
                    };
                    let candidate = Self { request, entities: entities.clone() };
                    if holds(&candidate) {
                        return candidate;
                    }
                }
            }
        }
        self
    }

    fn changed(&self, schema: &Schema, change: impl FnOnce(&mut Map<String, Value>)) -> Option<Self> {
        let (principal, action, resource) =
            (self.request.principal()?, self.request.action()?, self.request.resource()?);
        let mut context = self.request.context()?.to_json_value().ok()?;
        change(context.as_object_mut()?);
        let request = request(schema, [principal, action, resource], context).ok()?;
        Some(Self { request, entities: self.entities.clone() })
    }

    /// As JSON: principal, action, resource, context, and entities in Cedar's form.
    pub fn to_json(&self) -> Value {
        let uid = |uid: Option<&cedar_policy::EntityUid>| uid.map(ToString::to_string).unwrap_or_default();
        let context = self.request.context().and_then(|context| context.to_json_value().ok()).unwrap_or_default();
        // Those of the request and what they are in: the rest is the solver's or the site's, and says nothing here.
        let asked = [self.request.principal(), self.request.resource()];
        let mut named: Vec<EntityUid> = asked.into_iter().flatten().cloned().collect();
        for uid in named.clone() {
            named.extend(self.entities.ancestors(&uid).into_iter().flatten().cloned());
        }
        let mut entities: Vec<Value> =
            named.iter().filter_map(|uid| self.entities.get(uid)?.to_json_value().ok()).collect();
        entities.retain(|entity| entity["attrs"] != json!({}) || entity["parents"] != json!([]));
        entities.sort_by_key(|entity| entity["uid"].to_string());
        entities.dedup();
        json!({
            "principal": uid(self.request.principal()), "action": uid(self.request.action()),
            "resource": uid(self.request.resource()), "context": context, "entities": entities })
    }
}

fn request(schema: &Schema, uids: [&EntityUid; 3], context: Value) -> Result<Request, String> {
    let [principal, action, resource] = uids;
    let context = Context::from_json_value(context, Some((schema, action))).map_err(|e| e.to_string())?;
    Request::new(principal.clone(), action.clone(), resource.clone(), context, Some(schema)).map_err(|e| e.to_string())
}
