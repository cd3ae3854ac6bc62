//! `warden policy`.

mod check;
mod desk;
mod diff;
mod explain;
mod fmt;
mod new;
mod prove;
mod replay;
mod standing;
mod test;

use super::{config, data_dir, plain, say, table};
use crate::cli::{Global, Policy};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use warden_adapters::govern::{self, Listed, Status};
use warden_adapters::policy_folder;
use warden_core::policy::layer::{Standing, digest};
use warden_core::policy::snapshot::Snapshot;

/// Checks, lists and applies policies.
pub async fn run(global: &Global, policy: Policy) -> Outcome {
    match policy {
        Policy::Check { desk, error_format, deny_warnings } => check::run(global, &desk, error_format, deny_warnings),
        Policy::Fmt { path, check } => fmt::run(global, path, check),
        Policy::Prove(args) => prove::run(global, &args).await,
        Policy::Diff(args) => diff::run(global, &args).await,
        Policy::Explain(args) => explain::run(global, &args).await,
        Policy::New(args) => new::run(global, &args),
        Policy::Promote(args) => standing::run(global, &args, Standing::Live).await,
        Policy::Demote(args) => standing::run(global, &args, Standing::Shadow).await,
        Policy::Replay(args) => replay::run(global, &args),
        Policy::Test(args) => test::run(global, &args),
        Policy::List => list(global).await,
        Policy::Apply { digest } => {
            let client = Client::need(&data_dir(global)?)?;
            let answer = client.post("/v1/policies/apply", &json!({ "digest": digest })).await?;
            if global.json {
                say(&answer);
            } else {
                say(format!("applied {}", answer["applied"].as_str().unwrap_or_default()));
            }
            Ok(0)
        }
    }
}

/// For work of unknown length; nothing where nobody looks.
fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{spinner} {pos} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

/// A request of a solver, for people.
fn tell_request(request: &Value) {
    for part in ["principal", "action", "resource"] {
        say(format!("  {part:9} {}", plain(request[part].as_str().unwrap_or_default())));
    }
    say(format!("  context   {}", plain(&request["context"].to_string())));
    for entity in request["entities"].as_array().into_iter().flatten() {
        say(format!("  entity    {}", plain(&entity.to_string())));
    }
}

async fn list(global: &Global) -> Outcome {
    let config = config(global)?;
    let status: Status = match Client::connect(&config.setup.data_dir)? {
        Some(client) => serde_json::from_value(client.get("/v1/policies").await?).map_err(Failure::failed)?,
        None => offline(&config)?,
    };
    if global.json {
        say(json!(status));
        return Ok(0);
    }
    let mut rows = vec![["POLICY", "EFFECT", "MODE", "REASON", "AT"].map(str::to_owned).to_vec()];
    for Listed { id, effect, at, reason, mode } in &status.policies {
        let mode = if *mode == Standing::Live { "" } else { mode.name() };
        rows.push(vec![id.clone(), effect.clone(), mode.into(), reason.clone().unwrap_or_default(), plain(at)]);
    }
    say(table(&rows));
    say("");
    for (layer, digest) in &status.layers {
        say(format!("{layer:<12} {digest}"));
    }
    say(format!("\napplied  {}", status.applied));
    if status.policy != status.applied {
        say(format!("decides  {} (with the modes of rules that operators have changed)", status.policy));
    }
    if let Some(pending) = &status.pending {
        say(format!("pending  {pending}"));
        for (rule, standing) in &status.modes {
            say(format!("with it, {rule} is {} again: it says something else now", standing.name()));
        }
        if status.problems.is_empty() {
            say(format!(
                "\nThe policy folder differs from what decides. To make it decide:\n  warden policy apply {pending}"
            ));
        } else {
            say("\nThe policy folder differs from what decides, and cannot be applied:");
            status.problems.iter().for_each(say);
        }
    }
    Ok(0)
}

fn offline(config: &crate::config::Config) -> Result<Status, Failure> {
    let folder = govern::read_site(&config.setup)?;
    let site = policy_folder::applied(&config.setup.data_dir)?.unwrap_or_else(|| folder.clone());
    let snapshot = Snapshot::build(govern::source_at_rest(&config.setup, &site)?).map_err(Failure::invalid)?;
    let pending = (folder != site).then(|| digest(&folder));
    let layers = govern::layers(&snapshot);
    Ok(Status {
        applied: digest(&site),
        pending,
        modes: BTreeMap::new(),
        problems: Vec::new(),
        policies: govern::listed(&snapshot),
        policy: snapshot.digests.policy.clone(),
        layers,
    })
}
