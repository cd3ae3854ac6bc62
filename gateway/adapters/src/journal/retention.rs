//! Retention: whole sealed segments are dropped, the oldest first. Their leaf hashes stay, so earlier proofs still hold.

use super::recover;
use super::segment;
use super::{Journal, lock, root_text};
use jiff::Timestamp;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use warden_core::journal::proof;
use warden_core::journal::record::{Body, Record, Retention};
use warden_core::journal::state::State;
use warden_core::journal::tree::Hash;
use warden_core::port::Room;

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retain {
    /// Nothing older than this.
    pub age: Option<Duration>,
    /// No more bytes than this.
    pub bytes: Option<u64>,
}

/// Segments that may go: those that no start needs, no hold keeps and no held proposal is in.
struct Plan {
    files: Vec<PathBuf>,
    first_seq: u64,
    next_seq: u64,
    root: Hash,
    why: &'static str,
}

/// Segments that always stay: the one that is written, and the one before it.
const STAY: usize = 2;
/// Times within a segment may lie before its first one: by what was in flight, or by a clock that was set back.
const CROSSING: jiff::SignedDuration = jiff::SignedDuration::from_hours(26);
/// Snapshots that stay.
const SNAPSHOTS: usize = 3;

impl Journal {
    /// Drops what is not kept any more. Recorded before it happens; says what was dropped.
    pub async fn retain(&self, keep: Retain, now: Timestamp, operator: Option<&str>) -> io::Result<Option<Retention>> {
        let journal = self.clone();
        let planned =
            tokio::task::spawn_blocking(move || journal.plan(keep, now)).await.map_err(io::Error::other)??;
        let Some(plan) = planned else { return Ok(None) };
        self.hashes_are_safe(&plan)?;
        let dropped = Retention {
            segments: plan.files.len() as u64,
            first_seq: plan.first_seq,
            next_seq: plan.next_seq,
            root: root_text(&plan.root),
            why: if operator.is_some() { "operator" } else { plan.why }.into(),
            operator: operator.map(str::to_owned),
        };
        let record = Record::new(now, Body::Retention(dropped.clone()));
        self.append(record, Room::Reserved).await.map_err(io::Error::other)?;
        let journal = self.clone();
        tokio::task::spawn_blocking(move || journal.remove(&plan.files)).await.map_err(io::Error::other)??;
        Ok(Some(dropped))
    }

    fn plan(&self, keep: Retain, now: Timestamp) -> io::Result<Option<Plan>> {
        let dir = &self.shared.dir;
        let segments = segment::list(&dir.join("journal"))?;
        let state = self.head().state;
        if let Some((first, path)) = segments.first().filter(|(first, _)| *first > state.first_seq) {
            return Err(io::Error::other(format!(
                "`{}`: what was before sequence number {first} is missing, and no record says that retention dropped it: nothing is dropped; run `warden audit verify`",
                path.display()
            )));
        }
        let sizes: Vec<u64> =
            segments.iter().map(|(_, path)| std::fs::metadata(path).map_or(0, |meta| meta.len())).collect();
        let mut total: u64 = sizes.iter().sum();
        let (mut files, mut waiting, mut why, mut last) = (Vec::new(), Vec::new(), "age", None);
        for (number, pair) in segments.windows(2).enumerate().take(segments.len().saturating_sub(STAY)) {
            let [(_, path), (next, next_path)] = pair else { break };
            let span = (time_of(path), time_of(next_path));
            let is_old = matches!((keep.age, span.1), (Some(age), Some(end)) if older(end, now, age));
            let is_much = keep.bytes.is_some_and(|bytes| total > bytes);
            let needed = state.acks.parked.values().any(|parked| parked.seq < *next) || is_held(&state, span);
            if !(is_old || is_much) || needed {
                break;
            }
            // A start must find a snapshot of what it does not find records of.
            let found = recover::snapshot_of(&self.shared.dir, *next, next_path).map_err(io::Error::other)?;
            if !is_old {
                why = "size";
            }
            total -= sizes[number];
            waiting.push(path.clone());
            // A segment that was begun without room has none; a later one has.
            if let Some(head) = found {
                files.append(&mut waiting);
                last = Some((*next, head.tree.root()));
            }
        }
        Ok(match (last, segments.first()) {
            (Some((next_seq, root)), Some((first_seq, _))) => {
                Some(Plan { files, first_seq: *first_seq, next_seq, root, why })
            }
            _ => None,
        })
    }

    /// The hashes of what goes were synced with the snapshot behind it. If they are wrong, nothing could ever prove it again.
    fn hashes_are_safe(&self, plan: &Plan) -> io::Result<()> {
        let root = proof::root(&mut lock(&self.shared.tree).files, plan.next_seq)?;
        if root == plan.root {
            return Ok(());
        }
        Err(io::Error::other(
            "the tree's files do not have the hashes of what would be dropped: nothing is dropped; a restart mends them",
        ))
    }

    /// Removes segments, the oldest first.
    fn remove(&self, files: &[PathBuf]) -> io::Result<()> {
        let disk = &self.shared.disk;
        files.iter().try_for_each(|path| disk.remove(path))?;
        disk.sync_dir(&self.shared.dir.join("journal"))?;
        for old in recover::old_snapshots(&self.shared.dir, SNAPSHOTS)? {
            // The first segment that is left starts with one; it stays.
            let first = segment::list(&self.shared.dir.join("journal"))?.first().map(|(first, _)| *first);
            let of = old.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
            if of.is_some() && of < first {
                disk.remove(&old)?;
            }
        }
        Ok(())
    }
}

/// The time of a segment's first record.
fn time_of(path: &std::path::Path) -> Option<Timestamp> {
    recover::first_record(path).map(|record| record.ts)
}

fn older(than: Timestamp, now: Timestamp, age: Duration) -> bool {
    u128::try_from(now.duration_since(than).as_millis()).is_ok_and(|ms| ms > age.as_millis())
}

/// Whether a hold keeps records of that time. What has no readable time is kept by any.
fn is_held(state: &State, (start, end): (Option<Timestamp>, Option<Timestamp>)) -> bool {
    state.holds.values().any(|hold| {
        let ends_before = matches!((hold.since, end), (Some(since), Some(end)) if since.duration_since(end) > CROSSING);
        let starts_after =
            matches!((hold.until, start), (Some(until), Some(start)) if start.duration_since(until) > CROSSING);
        !(ends_before || starts_after)
    })
}
