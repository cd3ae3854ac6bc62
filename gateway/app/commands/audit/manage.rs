//! What changes how the log is kept: keys, holds, retention, erasure. Each is recorded before it happens.

use super::log::percent;
use super::{bar, time};
use crate::cli::{ExportFormat, Global, HoldCommand};
use crate::client::Client;
use crate::commands::{plain, say, table};
use crate::exit::{Failure, Outcome};
use serde_json::{Value, json};
use std::path::Path;
use warden_adapters::export::{Exporter, Format, proof_of};
use warden_adapters::view::Query;

/// Writes an export.
pub(super) async fn export(
    global: &Global,
    dir: &Path,
    (since, until): (Option<String>, Option<String>),
    format: ExportFormat,
    output: &Path,
) -> Outcome {
    let (since, until) = (time("since", since)?, time("until", until)?);
    if output.exists() {
        return Err(Failure::no(format!("`{}` is there already: nothing was written", output.display())));
    }
    let format = match format {
        ExportFormat::Ndjson => Format::Ndjson,
        ExportFormat::Ocsf => Format::Ocsf,
        ExportFormat::Cloudevents => Format::Cloudevents,
        ExportFormat::Csv => Format::Csv,
    };
    let log = super::log::Log::open(dir).await?;
    let query = Query { since, until, ..Query::default() };
    let mut exporter = Exporter::start(output, (since, until), format, async || log.manifest(&query).await).await?;
    let (from, to, first) = (exporter.manifest().from, exporter.manifest().to, exporter.next());
    if first > from {
        crate::commands::tell(format_args!("going on at sequence number {first}, where it was broken off"));
    }
    let writing = bar("exporting");
    if first < to {
        let taken = log.records(Some(first), Some(to), |seq, stored| {
            writing.at(seq + 1 - from, to - from);
            exporter.push(seq, stored).map_err(Failure::from)
        });
        taken.await?;
    }
    drop(writing);
    let manifest = exporter.finish()?;
    if global.json {
        say(
            json!({ "file": output, "proof": proof_of(output), "from": manifest.from, "to": manifest.to, "verifier": manifest.verifier }),
        );
    } else {
        say(format!(
            "{} records, {} to {}\nfile   {}\nproof  {}\ncheck  warden audit verify {} --key {}",
            manifest.to - manifest.from,
            manifest.from,
            manifest.to.saturating_sub(1),
            output.display(),
            proof_of(output).display(),
            output.display(),
            manifest.verifier
        ));
    }
    Ok(0)
}

/// The newest checkpoint, its key, and who has seen it.
pub(super) async fn checkpoint(global: &Global, dir: &Path) -> Outcome {
    let client = Client::need(dir)?;
    let note = client.text("/v1/checkpoint").await?;
    let seen = client.get("/v1/witnesses").await?;
    if global.json {
        say(json!({ "checkpoint": note, "verifier": seen["verifier"], "witnesses": seen["witnesses"] }));
        return Ok(0);
    }
    say(format!("{note}\nkey  {}", seen["verifier"].as_str().unwrap_or_default()));
    let empty = Vec::new();
    let witnesses = seen["witnesses"].as_array().unwrap_or(&empty);
    let row = |witness: &Value| {
        let text = |name: &str| plain(witness[name].as_str().unwrap_or("-"));
        vec![text("name"), witness["size"].to_string(), text("at"), text("error")]
    };
    if witnesses.is_empty() {
        say("no witness: whoever can write the data folder could cut the end of the log off unseen (docs/audit.md)");
    } else {
        let head = ["witness", "records", "since", "problem"].map(str::to_owned).to_vec();
        say(table(&std::iter::once(head).chain(witnesses.iter().map(row)).collect::<Vec<_>>()));
    }
    Ok(0)
}

/// Shows that a record is in the log.
pub(super) async fn proof(dir: &Path, seq: u64, size: Option<u64>) -> Outcome {
    let size = size.map(|size| format!("&size={size}")).unwrap_or_default();
    let proof = Client::need(dir)?.get(&format!("/v1/proofs/inclusion?seq={seq}{size}")).await?;
    say(serde_json::to_string_pretty(&proof).unwrap_or_default());
    Ok(0)
}

/// Signs with a fresh key from here on.
pub(super) async fn rotate_key(global: &Global, dir: &Path) -> Outcome {
    let rotated = Client::need(dir)?.post("/v1/checkpoint/rotate", &json!({})).await?;
    if global.json {
        say(rotated);
    } else {
        say(format!(
            "new key  {}\nbefore   {}",
            rotated["verifier"].as_str().unwrap_or_default(),
            rotated["replaces"].as_str().unwrap_or_default()
        ));
        say("The next checkpoint is signed with both. Tell whoever checks this log, and its witnesses.");
    }
    Ok(0)
}

/// Holds.
pub(super) async fn hold(global: &Global, dir: &Path, command: HoldCommand) -> Outcome {
    let client = Client::need(dir)?;
    match command {
        HoldCommand::Add { name, since, until } => {
            let (since, until) = (time("since", since)?, time("until", until)?);
            let placed = client.post("/v1/holds", &json!({ "name": name, "since": since, "until": until })).await?;
            say(if global.json { placed.to_string() } else { format!("held: {}", plain(&name)) });
        }
        HoldCommand::Release { name } => {
            let released = client.delete(&format!("/v1/holds/{}", percent(&name))).await?;
            say(if global.json { released.to_string() } else { format!("released: {}", plain(&name)) });
        }
        HoldCommand::List => {
            let holds = client.get("/v1/holds").await?;
            if global.json {
                say(holds);
                return Ok(0);
            }
            let row = |(name, hold): (&String, &Value)| {
                let text = |part: &str, otherwise: &str| hold[part].as_str().unwrap_or(otherwise).to_owned();
                vec![plain(name), text("since", "the beginning"), text("until", "for ever")]
            };
            let rows: Vec<Vec<String>> = holds["holds"].as_object().into_iter().flatten().map(row).collect();
            say(if rows.is_empty() { "no holds".to_owned() } else { table(&rows) });
        }
    }
    Ok(0)
}

/// Drops old segments now.
pub(super) async fn drop_old(global: &Global, dir: &Path, days: Option<u32>, mb: Option<u64>) -> Outcome {
    let answer = Client::need(dir)?.post("/v1/retention", &json!({ "days": days, "mb": mb })).await?;
    if global.json {
        say(answer);
        return Ok(0);
    }
    let dropped = &answer["dropped"];
    say(match dropped["segments"].as_u64() {
        Some(segments) => {
            format!("{segments} segments dropped; the first record that is left is {}", dropped["next_seq"])
        }
        None => "nothing to drop: what is left is younger, held, needed for a start, or within that size".to_owned(),
    });
    Ok(0)
}

/// Makes the sealed arguments of a worker unreadable for good.
pub(super) async fn erase(global: &Global, dir: &Path, worker: &str) -> Outcome {
    let answer = Client::need(dir)?.post("/v1/erasures", &json!({ "worker": worker })).await?;
    if global.json {
        say(answer);
        return Ok(0);
    }
    let sealed = if answer["sealed"] == true {
        "the key of its sealed arguments is destroyed"
    } else {
        "it had no sealed arguments"
    };
    say(format!("erased: {}: {sealed}; {} held proposals cannot be read any more", plain(worker), answer["held"]));
    say("What was recorded at level `facts` stays until retention drops it: see `journal.levels`.");
    Ok(0)
}
