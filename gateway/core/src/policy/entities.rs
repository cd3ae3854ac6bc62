//! The entities of a snapshot: workers, what they act on, and what the site adds.

use super::layer::SourceFile;
use super::site::{self, SiteSchema};
use super::slice::Lineage;
use super::snapshot::{Target, Worker};
use super::{Problem, Problems};
use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression as Expression, Schema};
use std::collections::{HashMap, HashSet};

pub(crate) fn uid(ty: &str, id: &str) -> Result<EntityUid, String> {
    let ty: EntityTypeName = ty.parse().map_err(|e| format!("entity type `{ty}`: {e}"))?;
    Ok(EntityUid::from_type_name_and_id(ty, EntityId::new(id)))
}

/// A node is in what is right above it, and so in everything that is in.
fn worker_parents(worker: &Worker) -> Result<Vec<EntityUid>, String> {
    let above = worker.name.rsplit_once('/').map(|(above, _)| uid("Worker", above));
    above.into_iter().chain(worker.groups.iter().map(|group| uid("Group", group))).collect()
}

pub(super) fn worker_lineage(worker: &Worker) -> Result<Lineage, String> {
    let above = worker.name.match_indices('/').map(|(at, _)| uid("Worker", &worker.name[..at]));
    let ancestors: Vec<EntityUid> =
        above.chain(worker.groups.iter().map(|group| uid("Group", group))).collect::<Result<_, _>>()?;
    Ok(Lineage::new(uid("Worker", &worker.name)?, ancestors))
}

pub(super) fn entities(workers: &[Worker], targets: &[Target], schema: &Schema) -> Result<Entities, String> {
    let mut all = Vec::new();
    for worker in workers {
        let parents = worker_parents(worker)?.into_iter().collect();
        all.push(Entity::new_no_attrs(uid("Worker", &worker.name)?, parents));
    }
    for target in targets {
        let record = &target.resource_record;
        let text = |name: &str| Expression::new_string(record[name].as_str().unwrap_or_default().to_owned());
        let own = match record["type"].as_str() {
            Some("Engine") => HashMap::from([("kind".to_owned(), text("kind")), ("zone".to_owned(), text("zone"))]),
            Some("StateKey") => {
                HashMap::from([("reserved".to_owned(), Expression::new_bool(record["reserved"] == true))])
            }
            _ => HashMap::new(),
        };
        if !own.is_empty() {
            // The two verbs of an engine are done to one entity.
            if !all.iter().any(|entity: &Entity| entity.uid() == target.resource) {
                all.push(Entity::new(target.resource.clone(), own, HashSet::new()).map_err(|e| e.to_string())?);
            }
            continue;
        }
        let Some(effect) = record.get("effect").and_then(serde_json::Value::as_str) else { continue };
        let flag = |name: &str| Expression::new_bool(record[name] == true);
        let attributes = HashMap::from([
            ("effect".to_owned(), Expression::new_entity_uid(uid("Effect", effect)?)),
            ("open_world".to_owned(), flag("open_world")),
            ("listed".to_owned(), flag("listed")),
            ("changed".to_owned(), flag("changed")),
        ]);
        let parents: HashSet<EntityUid> = target.resource_parents.iter().cloned().collect();
        all.push(Entity::new(target.resource.clone(), attributes, parents).map_err(|e| e.to_string())?);
    }
    Entities::from_entities(all, Some(schema)).map_err(|e| format!("entities: {e}"))
}

/// The operators' entities beside Warden's own, which they cannot add to.
pub(super) fn with_site_entities(
    own: Entities,
    files: &[SourceFile],
    site: &SiteSchema,
    schema: &Schema,
) -> Result<Entities, Problems> {
    let mut all = own;
    for file in files.iter().filter(|file| site::is_entities(file)) {
        let problem = |message: String| {
            let help = Some("see https://docs.cedarpolicy.com/auth/entities-syntax.html".to_owned());
            Problems(vec![Problem {
                file: file.name.clone(),
                code: "site_entities".into(),
                help,
                ..Problem::general(message)
            }])
        };
        // The parser's own words may quote an attribute's value; it is the operators' file, and they read them.
        let theirs = Entities::from_json_str(&file.text, None).map_err(|e| problem(deepest(&e)))?;
        if let Some(foreign) = theirs.iter().find(|e| !site.entity_types.contains_key(&e.uid().type_name().to_string()))
        {
            return Err(problem(format!("`{}` is not of a type that the site's schema declares", foreign.uid())));
        }
        let everything: Vec<Entity> = all.into_iter().chain(theirs).collect();
        all = Entities::from_entities(everything, Some(schema)).map_err(|e| problem(deepest(&e)))?;
    }
    Ok(all)
}

/// The innermost cause of an error, which says what is wrong.
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    let said = error.to_string();
    match said.contains("untagged enum RawCedarValueJson") {
        true => "a number must be a whole one of 64 bits; a decimal is {\"__extn\": {\"fn\": \"decimal\", \"arg\": \"1.5\"}}".into(),
        false => said,
    }
}
