//! What declared apps add to the schema: the types of what their sessions are started with, and the names of their facts.

use crate::catalogue::ty::{Extra, Field, Ty};
use std::collections::BTreeMap;

/// An app, as policies speak of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppShape {
    /// Its name.
    pub name: String,
    /// The type of what its sessions are started with; none when nobody said.
    pub overrides: Option<Ty>,
    /// Its facts, and whether each is a `Bool`. The others are a `Long`.
    pub facts: BTreeMap<String, bool>,
    /// The servers whose tools are its own.
    pub servers: Vec<String>,
}

/// The type of all overrides: every field of every app, none of them required. Refuses one field with two types.
pub fn overrides(apps: &[AppShape]) -> Result<Ty, String> {
    let mut all: BTreeMap<String, (Ty, &str)> = BTreeMap::new();
    for app in apps {
        let Some(Ty::Record(fields, _)) = &app.overrides else { continue };
        for (name, field) in fields {
            match all.get(name) {
                Some((ty, first)) if *ty != field.ty => {
                    return Err(format!(
                        "apps.{}.state_overrides_schema: `{}` has another type than in `{first}`, and policies see one field: give it another name",
                        app.name,
                        name.escape_debug()
                    ));
                }
                _ => drop(all.insert(name.clone(), (field.ty.clone(), &app.name))),
            }
        }
    }
    let field = |ty| Field { ty, required: false, nullable: true };
    Ok(Ty::Record(all.into_iter().map(|(name, (ty, _))| (name, field(ty))).collect(), Extra::Unseen))
}

/// The facts of all apps. One that two apps declare has one kind; [`kinds_agree`] has looked at that.
pub fn facts(apps: &[AppShape]) -> BTreeMap<&str, bool> {
    apps.iter().flat_map(|app| &app.facts).map(|(name, is_flag)| (name.as_str(), *is_flag)).collect()
}

/// Refuses a fact that is a `Bool` in one app and a `Long` in another.
pub fn kinds_agree(apps: &[AppShape]) -> Result<(), String> {
    let mut known: BTreeMap<&str, (bool, &str)> = BTreeMap::new();
    for app in apps {
        for (name, is_flag) in &app.facts {
            match known.get(name.as_str()) {
                Some((other, first)) if other != is_flag => {
                    return Err(format!("apps.{}.facts.{name}: it is of another kind in `{first}`", app.name));
                }
                _ => drop(known.insert(name, (*is_flag, &app.name))),
            }
        }
    }
    Ok(())
}
