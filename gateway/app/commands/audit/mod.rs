//! `warden audit`.

pub(super) mod log;
mod manage;
pub(super) mod print;
mod verify;

use super::{data_dir, time};
use crate::cli::{Audit, Global, Query as Flags};
use crate::exit::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use log::Log;
use std::path::Path;
use warden_adapters::review::shown;
use warden_adapters::view::Query;
use warden_core::journal::record::Record;

/// Shows the log, checks it, and says how it is kept.
pub async fn run(global: &Global, audit: Audit) -> Outcome {
    if let Audit::Verify { file, key, witness } = &audit {
        return verify::run(global, file.as_deref(), key, witness);
    }
    let dir = data_dir(global)?;
    match audit {
        Audit::Tail { follow, lines } => {
            let newest = Query { limit: Some(lines), ..Query::default() };
            listed(global, &dir, &newest, follow, true).await
        }
        Audit::Query(flags) => {
            let follow = flags.follow;
            listed(global, &dir, &flags.query()?, follow, follow).await
        }
        Audit::Show { id } => {
            let found = Log::open(&dir).await?.show(&id).await?;
            let found =
                found.ok_or_else(|| Failure::no(format!("no decision `{}` in this journal", super::plain(&id))))?;
            print::shown(global, &found);
            Ok(0)
        }
        Audit::Timeline(of) => {
            let query = Query {
                session: of.session,
                task: of.task,
                run: of.run,
                before: of.before,
                limit: Some(of.limit),
                ..Query::default()
            };
            let found = Log::open(&dir).await?.timeline(&query).await?;
            found.iter().for_each(|record| print::record(global, record));
            Ok(0)
        }
        Audit::Stats(flags) => {
            let query = Query { before: None, limit: None, ..flags.query()? };
            print::stats(global, &Log::open(&dir).await?.stats(&query).await?);
            Ok(0)
        }
        Audit::Export { since, until, format, output } => {
            manage::export(global, &dir, (since, until), format, &output).await
        }
        Audit::Checkpoint => manage::checkpoint(global, &dir).await,
        Audit::Proof { seq, size } => manage::proof(&dir, seq, size).await,
        Audit::RotateKey => manage::rotate_key(global, &dir).await,
        Audit::Hold(command) => manage::hold(global, &dir, command).await,
        Audit::Drop { keep_days, keep_mb } => manage::drop_old(global, &dir, keep_days, keep_mb).await,
        Audit::Erase { worker } => manage::erase(global, &dir, &worker).await,
        Audit::Verify { .. } => Ok(0),
    }
}

/// What the log says of a session, oldest first.
pub(super) async fn timeline_of(dir: &Path, session: &str, limit: usize) -> Result<Vec<serde_json::Value>, Failure> {
    let query = Query { session: Some(session.to_owned()), limit: Some(limit), ..Query::default() };
    Log::open(dir).await?.timeline(&query).await
}

/// Prints what matches, oldest first where it goes on with what comes.
async fn listed(global: &Global, dir: &Path, query: &Query, follow: bool, oldest_first: bool) -> Outcome {
    let log = Log::open(dir).await?;
    if follow && !log.is_live() {
        return Err(Failure::failed("nothing to follow: no gateway runs on this data folder"));
    }
    let (mut records, next_seq) = log.query(query).await?;
    let oldest = records.last().and_then(|record| record["seq"].as_u64());
    if oldest_first {
        records.reverse();
    }
    records.iter().for_each(|record| print::record(global, record));
    if !follow {
        if !oldest_first && Some(records.len()) == query.limit && !global.json {
            super::tell(format_args!("more: --before {}", oldest.unwrap_or_default()));
        }
        return Ok(0);
    }
    let followed = log.records(Some(next_seq), None, |seq, stored| {
        let record = Record::from_bytes(stored).map_err(Failure::failed)?;
        if query.matches(&record) {
            print::record(global, &shown(seq, &record, log.keys()));
        }
        Ok(())
    });
    followed.await?;
    Ok(0)
}

impl Flags {
    fn query(self) -> Result<Query, Failure> {
        let query = Query {
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            worker: self.worker,
            session: self.session,
            task: self.task,
            run: self.run,
            server: self.server,
            tool: self.tool,
            action: self.action,
            verdict: self.verdict,
            enforced: self.enforced,
            policy: self.policy,
            reason: self.reason,
            fingerprint: self.fingerprint,
            kind: self.kind,
            before: self.before,
            limit: Some(self.limit),
            min_seq: self.min_seq,
        };
        query.check().map_err(|what| Failure::invalid(format!("--{what}")))?;
        Ok(query)
    }
}

/// A progress bar on stderr; nothing where that is no terminal.
struct Bar(ProgressBar);

fn bar(what: &'static str) -> Bar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent}% {elapsed} ETA {eta}");
    let bar = ProgressBar::new(0).with_message(what);
    Bar(match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    })
}

impl Bar {
    fn at(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
