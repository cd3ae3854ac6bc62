//! `warden policy promote` and `demote`.

use super::replay;
use crate::cli::{Global, PolicyMode};
use crate::client::Client;
use crate::commands::{config, say, time};
use crate::exit::{Failure, Outcome};
use dialoguer::Confirm;
use serde_json::json;
use std::io::IsTerminal;
use warden_adapters::replay::Span;
use warden_adapters::{govern, policy_folder};
use warden_core::policy::layer::Standing;
use warden_core::policy::snapshot::{Snapshot, Source};

/// Shows what a mode would change, asks, and changes it through the gateway.
pub(super) async fn run(global: &Global, args: &PolicyMode, standing: Standing) -> Outcome {
    if !args.yes && !std::io::stdin().is_terminal() {
        return Err(Failure::invalid("nobody is there to be asked: look at `warden policy replay`, and say `--yes`"));
    }
    let config = config(global)?;
    let dir = &config.setup.data_dir;
    let client = Client::need(dir)?;
    let site = policy_folder::applied(dir)?.ok_or_else(|| Failure::invalid("no policies were ever applied here"))?;
    let source = govern::source_at_rest(&config.setup, &site)?;
    let now = Snapshot::build(source.clone()).map_err(Failure::invalid)?;
    let id = args.id.strip_prefix("site/").unwrap_or(&args.id);
    let standings = govern::standings_with(&now, &source.standings, id, standing).map_err(Failure::no)?;
    let candidate = Snapshot::build(Source { standings, ..source }).map_err(Failure::invalid)?;
    let span = Span { since: time("since", Some(args.since.clone()))?, ..Span::default() };
    let replayed = replay::shown(dir, &candidate, &span, None)?;
    if !global.json {
        say(format!("With site/{id} {}, on what was recorded since {}:\n", standing.name(), args.since));
        replay::tell(&candidate, &replayed);
    }
    if !args.yes && !agreed(id, standing)? {
        return Err(Failure::no("nothing was changed"));
    }
    let asked = json!({ "id": id, "mode": standing, "shown": candidate.digests.policy });
    let answer = client.post("/v1/policies/mode", &asked).await?;
    if global.json {
        say(json!({ "changed": answer, "replay": replay::as_json(&candidate, &replayed) }));
    } else {
        say(format!("site/{id} is {} now; the policies are {}", standing.name(), candidate.digests.policy));
    }
    Ok(0)
}

fn agreed(id: &str, standing: Standing) -> Result<bool, Failure> {
    let what = if standing == Standing::Live { "Let" } else { "Take" };
    let then = if standing == Standing::Live { "decide" } else { "into shadow" };
    Confirm::new().with_prompt(format!("{what} site/{id} {then}?")).default(false).interact().map_err(Failure::failed)
}
