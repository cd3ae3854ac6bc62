//! The schema of a snapshot: the charter's base, the servers and groups as enumerated types, an action per tool.
//!
//! Built as JSON, not text, so that odd tool names cannot be mis-escaped. Cedar records do not extend, so each
//! action's context repeats the fields of `Base`, taken from the parsed base so that the two cannot drift.

use super::shape::{self, AppShape};
use super::site::SiteSchema;
use crate::catalogue::ty::{Extra, Field, Ty};
use crate::catalogue::{Catalogue, server_name, tool_name};
use crate::proposal::Verb;
use cedar_policy::{Schema, SchemaFragment};
use serde_json::{Map, Value, json};

/// The base schema's text.
pub const BASE: &str = include_str!("../../../../schemas/warden.cedarschema");

/// Why no schema can be built; a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// The tools that an action of the schema stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Footprint<'a> {
    /// None at all.
    None,
    /// One tool: server and name.
    Tool(&'a str, &'a str),
    /// Those of one server.
    Server(&'a str),
    /// All.
    All,
}

/// The base schema in Cedar's JSON form.
pub fn base() -> Result<Value, Error> {
    let (fragment, _) =
        SchemaFragment::from_cedarschema_str(BASE).map_err(|e| Error(format!("the base schema: {e}")))?;
    fragment.to_json_value().map_err(|e| Error(format!("the base schema: {e}")))
}

/// Makes schemas for the same servers, groups and tools, whole or cut to a footprint: a policy that names one tool
/// is validated against that tool's schema, so that loading stays linear.
pub struct Builder<'a> {
    base: Value,
    fields: Map<String, Value>,
    catalogue: &'a Catalogue,
    servers: &'a [String],
}

impl<'a> Builder<'a> {
    /// Checks every name.
    pub fn new(
        catalogue: &'a Catalogue,
        servers: &'a [String],
        groups: &[String],
        site: &SiteSchema,
        apps: &[AppShape],
    ) -> Result<Self, Error> {
        let mut base = base()?;
        session_of(&mut base, apps)?;
        let names: Vec<String> = apps.iter().map(|app| app.name.clone()).collect();
        for server in servers {
            server_name(server).map_err(Error)?;
        }
        for (name, members) in [("Server", servers), ("Group", groups), ("App", &names)] {
            // An enumerated type has at least one member; without any, no literal of the type can match anyway.
            if !members.is_empty() {
                base[""]["entityTypes"][name] = json!({ "enum": members });
            }
        }
        let fields = base.pointer("//commonTypes/Base/attributes").and_then(Value::as_object).cloned();
        let fields = fields.ok_or_else(|| Error("the base schema has no type `Base`".into()))?;
        let mut builder = Self { base, fields, catalogue, servers };
        for verb in Verb::ALL {
            let context = builder.context(&verb_input(verb));
            let at = format!("//actions/{}/appliesTo/context", verb.action());
            match builder.base.pointer_mut(&at) {
                Some(place) => *place = context,
                None => return Err(Error(format!("the base schema has no action `{}`", verb.action()))),
            }
        }
        for (name, entity) in &site.entity_types {
            builder.base[""]["entityTypes"][name] = entity.clone();
            // What a caller asked about a site's own thing can be acknowledged like anything else.
            let held = builder.base.pointer_mut("//actions/acknowledge/appliesTo/resourceTypes");
            if let Some(held) = held.and_then(Value::as_array_mut) {
                held.push(name.clone().into());
            }
        }
        for (name, action) in &site.actions {
            let groups: Vec<Value> = action.groups.iter().map(|group| json!({ "id": group })).collect();
            let mut declared = json!({ "memberOf": groups });
            // An action that applies to nothing is a group.
            if !action.principals.is_empty() {
                declared["appliesTo"] = json!({ "principalTypes": action.principals, "resourceTypes": action.resources,
                    "context": builder.context(&action.input) });
            }
            builder.base[""]["actions"][name] = declared;
        }
        Ok(builder)
    }

    /// The schema in Cedar's JSON form.
    pub fn json(&self, footprint: Footprint<'_>) -> Result<Value, Error> {
        let mut schema = self.base.clone();
        let Some(actions) = schema.pointer_mut("//actions").and_then(Value::as_object_mut) else {
            return Err(Error("the base schema has no actions".into()));
        };
        for server in self.servers {
            let group = format!("{server}/*");
            actions.insert(group.clone(), json!({ "memberOf": [{ "id": "call_tool" }] }));
            for (name, tool) in self.catalogue.servers.get(server).into_iter().flatten() {
                let wanted = match footprint {
                    Footprint::None => false,
                    Footprint::Tool(s, t) => s == server && t == name,
                    Footprint::Server(s) => s == server,
                    Footprint::All => true,
                };
                if !wanted {
                    continue;
                }
                tool_name(name).map_err(Error)?;
                let action = json!({ "memberOf": [{ "id": group }], "appliesTo": {
                    "principalTypes": ["Worker"], "resourceTypes": ["Tool"], "context": self.context(&tool.input()) } });
                let id = format!("{server}/{name}");
                if actions.insert(id.clone(), action).is_some() {
                    return Err(Error(format!("action `{id}` is there twice")));
                }
            }
        }
        Ok(schema)
    }

    /// The schema, ready for validation.
    pub fn schema(&self, footprint: Footprint<'_>) -> Result<Schema, Error> {
        Schema::from_json_value(self.json(footprint)?).map_err(|e| Error(format!("the generated schema: {e}")))
    }

    fn context(&self, input: &Ty) -> Value {
        let mut attributes = self.fields.clone();
        if let Some(input) = input.to_cedar() {
            attributes.insert("input".into(), input);
        }
        json!({ "type": "Record", "attributes": attributes })
    }
}

/// Fills in what the declared apps add to the type of a session: their overrides and their facts.
fn session_of(base: &mut Value, apps: &[AppShape]) -> Result<(), Error> {
    let overrides = shape::overrides(apps).map_err(Error)?;
    let facts: Map<String, Value> = shape::facts(apps)
        .into_iter()
        .map(|(name, is_flag)| (name.to_owned(), json!({ "type": if is_flag { "Boolean" } else { "Long" } })))
        .collect();
    let at = "//commonTypes/Session/attributes";
    let Some(session) = base.pointer_mut(at) else { return Err(Error("the base schema has no type `Session`".into())) };
    session["facts"] = json!({ "type": "Record", "attributes": facts });
    session["overrides"] = overrides.to_cedar().unwrap_or_else(|| json!({ "type": "Record", "attributes": {} }));
    Ok(())
}

/// The same schema with nothing that a session has to have: for requests that hold what their policies read of it.
pub fn with_optional_session(mut schema: Value) -> Value {
    for at in ["//commonTypes/Session/attributes", "//commonTypes/Session/attributes/facts/attributes"] {
        let attributes = schema.pointer_mut(at).and_then(Value::as_object_mut).into_iter().flatten();
        attributes.for_each(|(_, attribute)| attribute["required"] = false.into());
    }
    schema
}

/// What policy sees of the parameters of a verb. Parameters that MCP does not know for it are refused, since some readers
/// fold case and would take `URI` for `uri`; what a server asks of a worker is free in form.
pub fn verb_input(verb: Verb) -> Ty {
    let seen = |required| Field { ty: Ty::Text(None), required, nullable: false };
    let unseen = |required| Field { ty: Ty::Unseen, required, nullable: false };
    let (fields, extra): (&[(&str, Field)], Extra) = match verb {
        Verb::ReadResource | Verb::SubscribeResource => (&[("uri", seen(true))], Extra::Refuse),
        Verb::Listen => {
            let texts = || Field { ty: Ty::Set(Box::new(Ty::Text(None))), required: false, nullable: false };
            return Ty::Record([("uris".to_owned(), texts()), ("tasks".to_owned(), texts())].into(), Extra::Refuse);
        }
        Verb::GetPrompt => (&[("name", seen(true)), ("arguments", unseen(false))], Extra::Refuse),
        Verb::Complete => {
            (&[("ref", unseen(true)), ("argument", unseen(true)), ("context", unseen(false))], Extra::Refuse)
        }
        Verb::ListTools | Verb::ListResources | Verb::ListPrompts => (&[("cursor", seen(false))], Extra::Refuse),
        Verb::CallEngine => {
            let long = Field { ty: Ty::Long, required: false, nullable: false };
            let texts = Field { ty: Ty::Set(Box::new(Ty::Text(None))), required: true, nullable: false };
            let fields = [
                ("api", seen(true)),
                ("model", seen(true)),
                ("stream", Field { ty: Ty::Bool, required: true, nullable: false }),
                ("max_tokens", long),
                ("tools", texts),
            ];
            let fields = fields.into_iter().map(|(name, field)| (name.to_owned(), field));
            return Ty::Record(fields.collect(), Extra::Refuse);
        }
        Verb::ProposeToolCall => (&[("api", seen(true)), ("model", seen(true)), ("tool", seen(true))], Extra::Refuse),
        Verb::WriteState => (&[("key", seen(true)), ("task", seen(true))], Extra::Refuse),
        Verb::RouteAnswer | Verb::Reply => {
            let long = Field { ty: Ty::Long, required: true, nullable: false };
            let fields = [("message", seen(true)), ("to", seen(true)), ("route", seen(false)), ("length", long)];
            let fields = fields.into_iter().map(|(name, field)| (name.to_owned(), field));
            return Ty::Record(fields.collect(), Extra::Refuse);
        }
        Verb::ProgressNote | Verb::MarkRead => (&[("message", seen(true))], Extra::Refuse),
        Verb::ProposeCatalogDiff => (&[("message", seen(true)), ("hash", seen(true))], Extra::Refuse),
        Verb::Acknowledge => {
            let flag = || Field { ty: Ty::Bool, required: true, nullable: false };
            let fields = [("worker", seen(true)), ("action", seen(true)), ("own", flag()), ("scope", flag())];
            let fields = fields.into_iter().map(|(name, field)| (name.to_owned(), field));
            return Ty::Record(fields.collect(), Extra::Refuse);
        }
        Verb::StartSession => (&[("app", seen(true))], Extra::Refuse),
        Verb::StartDelegate => {
            let ttl = Field { ty: Ty::Long, required: true, nullable: false };
            let fields = [("node", seen(true)), ("ttl_s", ttl)].into_iter();
            return Ty::Record(fields.map(|(name, field)| (name.to_owned(), field)).collect(), Extra::Refuse);
        }
        Verb::FollowTask => (&[("taskId", seen(false)), ("cursor", seen(false))], Extra::Refuse),
        Verb::Connect | Verb::Sample | Verb::Elicit | Verb::ListRoots | Verb::Operate => (&[], Extra::Unseen),
    };
    Ty::Record(fields.iter().map(|(name, field)| ((*name).to_owned(), field.clone())).collect(), extra)
}
