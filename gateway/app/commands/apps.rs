//! `warden apps`.

use super::{config, data_dir, plain, say, table, tell};
use crate::cli::{Apps, Global};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use serde_json::json;
use std::collections::BTreeSet;
use warden_adapters::govern;
use warden_core::policy::snapshot::Snapshot;
use warden_core::session::unknown::unknown_tools;

/// Checks and lists apps.
pub async fn run(global: &Global, apps: Apps) -> Outcome {
    match apps {
        Apps::Check => check(global),
        Apps::List => list(global).await,
    }
}

/// The apps alone could be right and their facts unknown to a policy, so the policies are loaded with them.
fn check(global: &Global) -> Outcome {
    let config = config(global)?;
    let site = govern::read_site(&config.setup)?;
    let source = govern::source_at_rest(&config.setup, &site)?;
    let apps = &config.apps.apps;
    let mut warnings = config.apps.warnings.clone();
    warnings.extend(apps.values().flat_map(|app| unknown_tools(app, &source.catalogue)));
    let servers = apps.values().flat_map(|app| &app.servers);
    let unasked: BTreeSet<&String> = servers.filter(|server| !source.catalogue.servers.contains_key(*server)).collect();
    Snapshot::build(source).map_err(|problems| match unasked.iter().next() {
        None => Failure::invalid(problems),
        // Policies name tools, and these are known once their server was asked.
        Some(server) => Failure::invalid(format!(
            "{problems}\nthe tools of `{server}` are not known yet: start `warden serve` once without these policies, and check again"
        )),
    })?;
    if global.json {
        say(json!({ "valid": true, "apps": apps.keys().collect::<Vec<_>>(), "warnings": warnings }));
        return Ok(0);
    }
    warnings.iter().for_each(|warning| tell(format!("warning: {}", plain(warning))));
    if apps.is_empty() {
        tell("no app is declared: put one into `apps/NAME.yaml` beside the configuration, or under `apps:` in it");
        return Ok(0);
    }
    for (name, app) in apps {
        let (statuses, facts) = (app.statuses.len(), app.facts.len());
        let servers = app.servers.join(", ");
        say(format!(
            "{name}: {}-…, {statuses} statuses, {} terminal tools, {facts} facts; servers: {}",
            app.session_id_prefix,
            app.terminal_tools.len(),
            if servers.is_empty() { "none" } else { &servers }
        ));
    }
    Ok(0)
}

async fn list(global: &Global) -> Outcome {
    let config = config(global)?;
    let open = match Client::connect(&data_dir(global)?)? {
        Some(client) => Some(client.get("/v1/sessions").await?),
        None => None,
    };
    let count = |app: &str| {
        let sessions = open.as_ref()?["sessions"].as_array()?;
        Some(sessions.iter().filter(|session| session["app"] == app && session["terminal"] == false).count())
    };
    let rows = config.apps.apps.iter().map(|(name, app)| (name, app, count(name)));
    if global.json {
        let shown = rows.map(|(name, app, open)| {
            json!({ "app": name, "prefix": app.session_id_prefix, "servers": app.servers, "open": open, "max_sessions": app.max_sessions })
        });
        say(json!({ "apps": shown.collect::<Vec<_>>() }));
        return Ok(0);
    }
    let mut all = vec![["APP", "PREFIX", "OPEN", "SERVERS"].map(str::to_owned).to_vec()];
    for (name, app, open) in rows {
        let open = open.map_or_else(|| "?".to_owned(), |open| format!("{open} of {}", app.max_sessions));
        all.push(vec![name.clone(), app.session_id_prefix.clone(), open, app.servers.join(", ")]);
    }
    if all.len() == 1 {
        tell("no app is declared")
    } else {
        say(table(&all))
    }
    Ok(0)
}
