//! `warden policy`.

use super::{config, say, table};
use crate::cli::{ErrorFormat, Global, Policy};
use crate::client::Client;
use crate::exit::{Failure, INVALID, Outcome};
use serde_json::json;
use warden_adapters::govern::{self, Listed, Status};
use warden_adapters::policy_folder;
use warden_core::policy::layer::digest;
use warden_core::policy::snapshot::Snapshot;
use warden_core::policy::{Problem, Problems};

/// Checks, lists and applies policies.
pub async fn run(global: &Global, policy: Policy) -> Outcome {
    match policy {
        Policy::Check { error_format } => check(global, error_format),
        Policy::List => list(global).await,
        Policy::Apply { digest } => {
            let client = Client::need(&super::data_dir(global)?)?;
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

fn check(global: &Global, format: ErrorFormat) -> Outcome {
    let config = config(global)?;
    let folder = govern::read_site(&config.setup)?;
    let catalogue = govern::load_catalogue(&config.setup.data_dir)?;
    let format = if global.json { ErrorFormat::Json } else { format };
    match Snapshot::build(govern::source(&config.setup, &folder, &catalogue)) {
        Ok(snapshot) => {
            let site: usize = folder.len();
            let found = digest(&folder);
            if format == ErrorFormat::Json {
                say(json!({ "valid": true, "files": site, "digest": found }));
            } else {
                let rules: usize = snapshot.layers.iter().map(|layer| layer.rules.len()).sum();
                say(format!("valid: {site} files, {rules} policies with the charter\n{found}"));
            }
            Ok(0)
        }
        Err(Problems(problems)) => {
            for problem in &problems {
                say(shown(problem, format));
            }
            let count = problems.len();
            Err(Failure { code: INVALID, message: format!("{count} problem{}", if count == 1 { "" } else { "s" }) })
        }
    }
}

fn shown(problem: &Problem, format: ErrorFormat) -> String {
    match format {
        ErrorFormat::Json => json!(problem).to_string(),
        ErrorFormat::Human => problem.to_string(),
        ErrorFormat::Plain => {
            let Problem { file, line, column, code, message, .. } = problem;
            format!("{file}:{line}:{column}: {code}: {}", message.replace('\n', " "))
        }
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
    let mut rows = vec![["POLICY", "EFFECT", "REASON", "AT"].map(str::to_owned).to_vec()];
    for Listed { id, effect, at, reason } in &status.policies {
        rows.push(vec![id.clone(), effect.clone(), reason.clone().unwrap_or_default(), at.clone()]);
    }
    say(table(&rows));
    say(format!("\napplied  {}", status.applied));
    if let Some(pending) = &status.pending {
        say(format!("pending  {pending}"));
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
    let catalogue = govern::load_catalogue(&config.setup.data_dir)?;
    let snapshot = Snapshot::build(govern::source(&config.setup, &site, &catalogue)).map_err(Failure::invalid)?;
    let pending = (folder != site).then(|| digest(&folder));
    Ok(Status { applied: digest(&site), pending, problems: Vec::new(), policies: govern::listed(&snapshot) })
}
