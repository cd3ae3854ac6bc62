//! What operators add to the schema, so that other programs can ask for decisions about things Warden does not know:
//! entity types, and actions on them. An action declares `context: { input: { … } }`; Warden adds the facts that every
//! action has. Nothing of Warden's own can be declared again.

use super::layer::SourceFile;
use super::{Problem, Problems, Span, place};
use crate::catalogue::ty::{Extra, Field, Ty};
use cedar_policy::SchemaFragment;
use miette::Diagnostic;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Types that refer to types are followed this far.
const DEPTH_MAX: usize = 8;

/// The schema fragments of a site, checked and merged.
#[derive(Clone, Debug, Default)]
pub struct SiteSchema {
    /// Entity types in Cedar's JSON form.
    pub entity_types: Map<String, Value>,
    /// Actions by id.
    pub actions: BTreeMap<String, SiteAction>,
}

/// An action that a site declares.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteAction {
    /// The entity types that may do it.
    pub principals: Vec<String>,
    /// The entity types that it is done to.
    pub resources: Vec<String>,
    /// Actions it is in.
    pub groups: Vec<String>,
    /// The type of `context.input`.
    pub input: Ty,
}

/// Files of a site that are schema fragments.
pub fn is_fragment(file: &SourceFile) -> bool {
    file.name.ends_with(".cedarschema")
}

/// The site's entities, in Cedar's JSON form.
pub fn is_entities(file: &SourceFile) -> bool {
    file.name.ends_with(".json")
}

/// Reads the fragments. `base` is Warden's own schema in JSON form.
pub fn read(files: &[SourceFile], base: &Value) -> Result<SiteSchema, Problems> {
    let (mut site, mut common, mut declared, mut problems) =
        (SiteSchema::default(), Map::new(), Vec::new(), Vec::new());
    for file in files.iter().filter(|file| is_fragment(file)) {
        match fragment(file) {
            Ok(parts) => {
                for (kind, name) in clashes(&parts, base, &site.entity_types, &common, &declared) {
                    let message = format!("{kind} `{name}` is declared already");
                    problems.push(problem(file, message, "give it a name of its own"));
                }
                site.entity_types.extend(parts.entity_types);
                common.extend(parts.common_types);
                declared.extend(parts.actions.into_iter().map(|(name, action)| (file, name, action)));
            }
            Err(problem) => problems.push(*problem),
        }
    }
    for (file, name, action) in declared {
        match site_action(&action, &common, base) {
            Ok(action) => drop(site.actions.insert(name, action)),
            Err(what) => problems.push(problem(file, format!("action `{name}`: {what}"), HELP)),
        }
    }
    // References between fragments are resolved once, so that nothing of a site's own names is left in Warden's schema.
    for entity in site.entity_types.values_mut() {
        for part in ["shape", "tags"] {
            if let Some(ty) = entity.get_mut(part) {
                *ty = resolved(ty, &common, 0);
            }
        }
    }
    if problems.is_empty() { Ok(site) } else { Err(Problems(problems)) }
}

const HELP: &str = "for example: action \"pay\" appliesTo { principal: [User], resource: [Account], context: { input: { amount?: Long } } };";

struct Parts {
    entity_types: Map<String, Value>,
    common_types: Map<String, Value>,
    actions: Map<String, Value>,
}

fn fragment(file: &SourceFile) -> Result<Parts, Box<Problem>> {
    let refuse = |what: String, help: &str| Box::new(problem(file, what, help));
    let (fragment, warnings) = SchemaFragment::from_cedarschema_str(&file.text).map_err(|e| {
        let offset = e.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset());
        let (line, column) = place(&file.text, offset);
        let span = Some(Span { offset, length: 0 });
        Box::new(Problem { line, column, span, ..problem(file, e.to_string(), HELP) })
    })?;
    if let Some(warning) = warnings.into_iter().next() {
        return Err(refuse(warning.to_string(), "choose another name"));
    }
    let json = fragment.to_json_value().map_err(|e| refuse(e.to_string(), HELP))?;
    let Value::Object(namespaces) = json else { return Err(refuse("it is no schema".into(), HELP)) };
    let mut parts = Parts { entity_types: Map::new(), common_types: Map::new(), actions: Map::new() };
    for (name, mut namespace) in namespaces {
        if !name.is_empty() {
            return Err(refuse(format!("namespace `{name}`"), "declare types and actions outside of namespaces"));
        }
        let mut take = |what: &str| match namespace.get_mut(what).map(Value::take) {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        parts =
            Parts { entity_types: take("entityTypes"), common_types: take("commonTypes"), actions: take("actions") };
    }
    Ok(parts)
}

/// What is declared twice, here or in Warden's own schema. Ids with a `/` are those of tools.
fn clashes<'p>(
    parts: &'p Parts,
    base: &Value,
    entity_types: &Map<String, Value>,
    common: &Map<String, Value>,
    actions: &[(&SourceFile, String, Value)],
) -> Vec<(&'static str, &'p str)> {
    let in_base = |kind: &str, name: &str| base[""][kind].get(name).is_some();
    let mut found = Vec::new();
    for name in parts.entity_types.keys() {
        if in_base("entityTypes", name) || in_base("commonTypes", name) || entity_types.contains_key(name) {
            found.push(("entity type", name.as_str()));
        }
    }
    for name in parts.common_types.keys() {
        if in_base("commonTypes", name) || in_base("entityTypes", name) || common.contains_key(name) {
            found.push(("type", name.as_str()));
        }
    }
    for name in parts.actions.keys() {
        if in_base("actions", name) || name.contains('/') || actions.iter().any(|(_, known, _)| known == name) {
            found.push(("action", name.as_str()));
        }
    }
    found
}

fn site_action(action: &Value, common: &Map<String, Value>, base: &Value) -> Result<SiteAction, String> {
    let names = |at: &str| -> Vec<String> {
        let names = action.pointer(at).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let groups = action.get("memberOf").and_then(Value::as_array);
    let groups: Vec<String> =
        groups.into_iter().flatten().filter_map(|group| Some(group.get("id")?.as_str()?.to_owned())).collect();
    // Policies of Warden's other groups count on attributes that a site's resources lack.
    let own = |group: &&String| {
        group.contains('/') || (*group != "effect" && base[""]["actions"].get(group.as_str()).is_some())
    };
    if let Some(group) = groups.iter().find(own) {
        return Err(format!("it cannot be in `{group}`"));
    }
    let context = action.pointer("/appliesTo/context").map(|context| resolved(context, common, 0));
    let mut input = Ty::Record(BTreeMap::new(), Extra::Unseen);
    let attributes = context.as_ref().and_then(|context| context.get("attributes")).and_then(Value::as_object);
    for (name, ty) in attributes.into_iter().flatten() {
        if name != "input" {
            return Err(format!("its context declares `{name}`, and callers can set `input` alone"));
        }
        input = typed(ty)?;
        if !matches!(input, Ty::Record(..)) {
            return Err("its `input` is no record".into());
        }
    }
    Ok(SiteAction {
        principals: names("/appliesTo/principalTypes"),
        resources: names("/appliesTo/resourceTypes"),
        groups,
        input,
    })
}

/// `ty` with every name of a common type replaced by what it stands for.
fn resolved(ty: &Value, common: &Map<String, Value>, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return ty.clone();
    }
    let name = ty.get("name").or(ty.get("type")).and_then(Value::as_str);
    if let Some(meant) = name.and_then(|name| common.get(name)) {
        let mut meant = resolved(meant, common, depth + 1);
        if let (Some(required), Some(object)) = (ty.get("required"), meant.as_object_mut()) {
            object.insert("required".into(), required.clone());
        }
        return meant;
    }
    match ty {
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), resolved(value, common, depth))).collect()
        }
        other => other.clone(),
    }
}

fn typed(ty: &Value) -> Result<Ty, String> {
    let kind = ty.get("type").and_then(Value::as_str).unwrap_or_default();
    let name = match kind {
        "EntityOrCommon" | "Extension" => ty.get("name").and_then(Value::as_str).unwrap_or_default(),
        kind => kind,
    };
    Ok(match name {
        "String" | "__cedar::String" => Ty::Text(None),
        "Long" | "__cedar::Long" => Ty::Long,
        "Bool" | "Boolean" | "__cedar::Bool" => Ty::Bool,
        "decimal" | "__cedar::decimal" => Ty::Decimal,
        "Set" => Ty::Set(Box::new(typed(&ty["element"])?)),
        "Record" => {
            let attributes = ty.get("attributes").and_then(Value::as_object);
            let mut fields = BTreeMap::new();
            for (name, ty) in attributes.into_iter().flatten() {
                let required = ty.get("required").and_then(Value::as_bool).unwrap_or(true);
                fields.insert(name.clone(), Field { ty: typed(ty)?, required, nullable: !required });
            }
            Ty::Record(fields, Extra::Unseen)
        }
        other => {
            return Err(format!("`{other}` in its `input`: String, Long, Bool, decimal, Set and records can be sent"));
        }
    })
}

fn problem(file: &SourceFile, message: String, help: &str) -> Problem {
    Problem {
        code: "site_schema".into(),
        file: file.name.clone(),
        message,
        help: Some(help.into()),
        ..Problem::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<SiteSchema, String> {
        let base = SchemaFragment::from_cedarschema_str(super::super::schema::BASE).unwrap().0.to_json_value().unwrap();
        let file = SourceFile { name: "schemas/site/a.cedarschema".into(), text: text.into() };
        read(&[file], &base).map_err(|problems| problems.to_string())
    }

    #[test]
    fn actions_declare_what_callers_send() {
        let site = read_text(
            r#"type Money = { amount: Long, unit?: String };
               entity User = { email: String }; entity Account;
               action "pay" appliesTo { principal: [User], resource: [Account], context: { input: { money: Money, tags: Set<String> } } };
               action "look" appliesTo { principal: [User, Worker], resource: [Account] };"#,
        )
        .unwrap();
        let Ty::Record(fields, Extra::Unseen) = &site.actions["pay"].input else { panic!("a record") };
        assert_eq!(fields["tags"].ty, Ty::Set(Box::new(Ty::Text(None))));
        let Ty::Record(money, _) = &fields["money"].ty else { panic!("a record") };
        assert!(money["amount"].required && !money["unit"].required);
        assert_eq!(site.actions["look"].principals, ["User", "Worker"]);
    }

    #[test]
    fn w02_nothing_of_wardens_own_is_declared_again() {
        for (text, what) in [
            ("entity Worker;", "entity type `Worker`"),
            ("entity Effect enum [\"read\"];", "entity type `Effect`"),
            ("type Base = { a: Long };", "type `Base`"),
            ("entity U; action \"call_tool\" appliesTo { principal: [U], resource: [U] };", "action `call_tool`"),
            ("entity U; action \"fs/read\" appliesTo { principal: [U], resource: [U] };", "action `fs/read`"),
            ("entity U; action \"a\" in [\"protocol\"] appliesTo { principal: [U], resource: [U] };", "in `protocol`"),
            ("entity U; action \"a\" in [\"elicit\"] appliesTo { principal: [U], resource: [U] };", "in `elicit`"),
            (
                "entity U; action \"a\" appliesTo { principal: [U], resource: [U], context: { acknowledged: Bool } };",
                "declares `acknowledged`",
            ),
            (
                "entity U; action \"a\" appliesTo { principal: [U], resource: [U], context: { input: { u: U } } };",
                "`U` in its `input`",
            ),
            ("namespace N { entity U; }", "namespace `N`"),
            ("entity;", "schemas/site/a.cedarschema:1:"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
