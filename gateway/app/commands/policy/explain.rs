//! `warden policy explain`.

use super::desk::{Desk, Prefer};
use crate::cli::{Desk as DeskArgs, Global, PolicyExplain};
use crate::commands::audit::log::Log;
use crate::commands::{config, data_dir, decide, plain, say};
use crate::exit::{Failure, Outcome};
use serde_json::{Value, json};
use std::path::Path;
use warden_adapters::{archive, govern, policy_folder};
use warden_core::authoring::explain::{Explanation, explain, look};
use warden_core::authoring::redecide::{Recorded, Redecider};
use warden_core::decision::Enforced;
use warden_core::policy::snapshot::{Digests, Snapshot};

/// Explains a proposal of a file, or a recorded decision.
pub(super) async fn run(global: &Global, args: &PolicyExplain) -> Outcome {
    let file = Path::new(&args.what);
    if args.what == "-" || file.is_file() {
        let config = config(global)?;
        let snapshot = now(global, args)?;
        let proposal = decide::proposal(file)?;
        let scanner = decide::scanner(&config)?;
        let (case, facts) = look(&snapshot, &proposal, &scanner)
            .map_err(|reason| Failure::no(format!("denied before any policy is asked: {reason} (docs/reasons.md)")))?;
        let explanation = explain(&snapshot, &case, &facts).map_err(Failure::failed)?;
        let asked = format!("{} {}", proposal.worker, case.target.action);
        tell(global, &explanation, &asked, &snapshot.digests, None);
        return Ok(0);
    }
    let dir = data_dir(global)?;
    let log = Log::open(&dir).await?;
    let shown = log.show(&args.what).await?.ok_or_else(|| {
        Failure::no(format!("`{}` is neither a file nor a decision of this journal", plain(&args.what)))
    })?;
    drop(log);
    let text = shown.decision.to_string();
    let recorded: Recorded<'_> = serde_json::from_str(&text).map_err(Failure::failed)?;
    let digests: Digests = serde_json::from_value(shown.decision["digests"].clone()).map_err(Failure::failed)?;
    let of_then = !args.now && args.policies.is_none();
    let snapshot = if of_then { then(&dir, &digests, &recorded)? } else { now(global, args)? };
    let catalogues = |digest: &str| archive::catalogue(&dir, digest).ok().flatten();
    let (case, facts) = Redecider::new(&snapshot, &catalogues).again(&recorded).map_err(|why| {
        Failure::no(format!(
            "decision {} ({}, {}) cannot be looked at again: {}",
            recorded.id,
            recorded.verdict.name(),
            plain(&recorded.reason),
            why.says()
        ))
    })?;
    let explanation = explain(&snapshot, &case, &facts).map_err(Failure::failed)?;
    let shadowed = recorded.enforced == Enforced::Shadow;
    if of_then && !shadowed && recorded.reason != "tool_changed" && explanation.verdict != recorded.verdict {
        return Err(Failure::no(format!(
            "decision {} was `{}`, and what is kept of that time would make it `{}`: something is missing of it, so it is not explained; `--now` explains it by the policies of now",
            recorded.id,
            recorded.verdict.name(),
            explanation.verdict.name()
        )));
    }
    let asked = format!("{} {}", recorded.worker, case.target.action);
    tell(global, &explanation, &asked, &snapshot.digests, Some(&shown.decision));
    Ok(0)
}

/// What decides now, or a folder that is tried out.
fn now(global: &Global, args: &PolicyExplain) -> Result<Snapshot, Failure> {
    let desk = DeskArgs { dir: args.policies.clone(), catalogue: None, charter: None };
    if args.policies.is_some() {
        return Snapshot::build(Desk::open(global, &desk, Prefer::Live)?.source).map_err(Failure::invalid);
    }
    let config = config(global)?;
    let site = match policy_folder::applied(&config.setup.data_dir)? {
        Some(site) => site,
        None => govern::read_site(&config.setup)?,
    };
    Snapshot::build(govern::source_at_rest(&config.setup, &site)?).map_err(Failure::invalid)
}

/// What decided then.
fn then(dir: &Path, digests: &Digests, recorded: &Recorded<'_>) -> Result<Snapshot, Failure> {
    let kept = archive::source(dir, digests)?.ok_or_else(|| {
        Failure::no(format!(
            "the policies of then ({}) are not kept: `--now` explains it by those of now",
            digests.policy
        ))
    })?;
    let (mut source, charter) = kept;
    // Who was in which group stands in the record itself.
    for worker in source.workers.iter_mut().filter(|worker| worker.name == recorded.worker) {
        if recorded.principal.ty == "Worker" {
            worker.groups.clone_from(&recorded.principal.parents);
        }
    }
    Snapshot::on_trial(source, &charter).map_err(Failure::failed)
}

fn tell(global: &Global, explanation: &Explanation, asked: &str, digests: &Digests, decision: Option<&Value>) {
    if global.json {
        say(json!({ "explanation": explanation, "policy": digests.policy, "decision": decision.map(|d| &d["id"]) }));
        return;
    }
    say(format!("{}  {}  {}", explanation.verdict.name(), plain(&explanation.reason), plain(asked)));
    if let Some(decision) = decision {
        let text = |name: &str| plain(decision[name].as_str().unwrap_or_default());
        say(format!("recorded as {} {} at {}, decision {}", text("verdict"), text("reason"), text("ts"), text("id")));
    }
    say(format!("under {}\n", digests.policy));
    for error in &explanation.errors {
        say(format!("error: {}", plain(error)));
    }
    for layer in &explanation.layers {
        say(format!("{:<12} {}", layer.layer, layer.says));
        for rule in &layer.rules {
            let state = match (rule.matches, rule.fails_at.is_empty()) {
                (true, _) => "matches".to_owned(),
                (false, true) => "does not match".to_owned(),
                (false, false) => format!("fails at `{}`", rule.fails_at.join("` and `")),
            };
            say(format!("  {:<7} {}  {state}  ({})", rule.effect, rule.id, rule.at));
        }
        if layer.left_out > 0 {
            say(format!("  and {} more whose scope fits and that do not match", layer.left_out));
        }
        if layer.elsewhere > 0 {
            say(format!("  and {} for others or for something else", layer.elsewhere));
        }
    }
    if let Some(advice) = &explanation.advice {
        say(format!("\nadvice: {}", plain(advice)));
    }
    if !explanation.nearest.is_empty() {
        say("\nit would be");
    }
    for way in &explanation.nearest {
        say(format!("  {:<9} if {}", way.verdict.name(), plain(&way.changes.join(", and "))));
    }
}
