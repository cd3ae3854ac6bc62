//! `apps` and `compositions` of `warden.yaml`, and the files of `apps/`.

use super::RawConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use warden_adapters::sessions::Schemas;
use warden_core::catalogue::ty::Ty;
use warden_core::composition::resolve::MODEL_CLASSES;
use warden_core::json;
use warden_core::policy::shape::AppShape;
use warden_core::session::app::App;
use warden_core::session::check::apps;
use warden_core::session::raw::RawApp;
use warden_core::task::convention::RESERVED_KEYS;

/// Compositions: trees of agents.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawCompositions {
    /// What each model class stands for: `ENGINE/MODEL`, with `*` for any part. A node whose model is of a class that stands for nothing
    /// calls no engine.
    pub model_classes: BTreeMap<String, Vec<String>>,
}

/// Apps, checked.
#[derive(Clone, Default)]
pub struct Declared {
    /// By name.
    pub apps: BTreeMap<String, App>,
    /// What their sessions may be started with.
    pub schemas: Schemas,
    /// As policies speak of them.
    pub shapes: Vec<AppShape>,
    /// What may not be meant.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Declared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(&self.apps).finish()
    }
}

/// Reads the apps of the configuration, and those in files beside it. Everything that is wrong is told at once.
pub(super) fn declared(raw: &RawConfig, base: &Path) -> Result<Declared, String> {
    let mut all = BTreeMap::new();
    let mut places: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (name, app) in &raw.apps {
        all.insert(name.clone(), app.clone());
        places.insert(name.clone(), base.to_owned());
    }
    let folder = base.join("apps");
    for path in files(&folder)? {
        let shown = path.display().to_string();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).map_err(|e| format!("`{shown}`: {e}"))?;
        let app: RawApp = serde_saphyr::from_str(&text).map_err(|e| format!("`{shown}`: {e}"))?;
        if all.insert(name.clone(), app).is_some() {
            return Err(format!("`{shown}`: apps.{name} is in the configuration already"));
        }
        places.insert(name, folder.clone());
    }
    let servers: BTreeSet<String> = raw.servers.keys().cloned().collect();
    let reserved: Vec<&str> =
        RESERVED_KEYS.into_iter().chain(raw.tasks.reserved_keys.iter().map(String::as_str)).collect();
    let (apps, warnings) = apps(all, &servers, &reserved).map_err(|problems| problems.join("\n"))?;
    let (mut schemas, mut shapes) = (Schemas::default(), Vec::new());
    for (name, app) in &apps {
        let facts = app.facts.iter().map(|(name, fact)| (name.clone(), fact.is_flag())).collect();
        let mut shape = AppShape { name: name.clone(), overrides: None, facts, servers: app.servers.clone() };
        if let Some(file) = &app.state_overrides_schema {
            let path = places.get(name).map_or(base, PathBuf::as_path).join(file);
            let at = |what: String| format!("apps.{name}.state_overrides_schema: `{}`: {what}", path.display());
            let text = std::fs::read_to_string(&path).map_err(|e| at(e.to_string()))?;
            let schema = json::document(text.as_bytes(), json::Limits::default())
                .map_err(|e| at(format!("it is no JSON: {e}")))?;
            if !schema.is_object() {
                return Err(at("a schema is one JSON object".into()));
            }
            schemas.add(name, &schema).map_err(at)?;
            shape.overrides = Some(Ty::of_input_schema(&schema));
        }
        shapes.push(shape);
    }
    Ok(Declared { apps, schemas, shapes, warnings })
}

/// The files of apps, by name. A folder that is not there holds none.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| format!("`{}`: {e}", folder.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("`{}`: {e}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What each model class stands for.
pub(super) fn model_classes(raw: &RawConfig) -> Result<BTreeMap<String, Vec<String>>, String> {
    for (class, models) in &raw.compositions.model_classes {
        if !MODEL_CLASSES.contains(&class.as_str()) {
            let known = MODEL_CLASSES.join(", ");
            return Err(format!("compositions.model_classes.{}: no such class; known: {known}", class.escape_debug()));
        }
        for (number, model) in models.iter().enumerate() {
            let engine = model.split('/').next().unwrap_or_default();
            if !engine.contains('*') && !raw.engines.contains_key(engine) {
                return Err(format!(
                    "compositions.model_classes.{class}[{number}]: `{}`: there is no engine `{}`",
                    model.escape_debug(),
                    engine.escape_debug()
                ));
            }
        }
    }
    Ok(raw.compositions.model_classes.clone())
}
