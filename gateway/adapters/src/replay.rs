//! The recorded proposals of a time, decided again under other policies.

use crate::archive;
use crate::journal::segments;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use warden_core::authoring::redecide::{self, Cannot, Recorded, Redecider};
use warden_core::journal::frame::{self, SEGMENT_HEADER};
use warden_core::policy::snapshot::Snapshot;
use warden_core::verdict::Verdict;

/// Which proposals are decided again.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// Of one worker.
    pub worker: Option<String>,
}

/// What changes, for proposals that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// The recorded verdict.
    pub from: &'static str,
    /// The candidate's.
    pub to: &'static str,
    /// The worker.
    pub worker: String,
    /// `SERVER/TOOL`, or the action.
    pub tool: String,
    /// The rules that decide under the candidate; its reason code where there are none.
    pub by: String,
}

/// How many, and one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Proposals, those that one record stands for included.
    pub count: u64,
    /// The id of the first.
    pub example: String,
    first: Option<Timestamp>,
}

/// What a replay came to.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Decisions that were decided again.
    pub decided: u64,
    /// Those with the same verdict.
    pub same: u64,
    /// What changes.
    pub changes: HashMap<Change, Group>,
    /// By rule of the candidate: how many proposals it decides.
    pub coverage: HashMap<String, u64>,
    /// What cannot be decided again, and why.
    pub left_out: BTreeMap<Cannot, Group>,
    /// How long it took.
    pub took: Duration,
    /// Time spent by all threads together.
    pub worked: Duration,
}

/// Decides the recorded proposals of the journal in `dir` again, with as many threads as asked for. `progress` is told how many records
/// were read, and of how many bytes in all.
pub fn run(
    dir: &Path,
    snapshot: &Snapshot,
    span: &Span,
    threads: usize,
    progress: impl Fn(u64, u64) + Sync,
) -> io::Result<Replayed> {
    let begun = Instant::now();
    let segments = segments(dir)?;
    let sizes: io::Result<Vec<u64>> = segments.iter().map(|(_, path)| Ok(path.metadata()?.len())).collect();
    let total: u64 = sizes?.iter().sum();
    let (next, read) = (AtomicUsize::new(0), AtomicU64::new(0));
    let last = segments.len().saturating_sub(1);
    let threads = threads.clamp(1, segments.len().max(1));
    let catalogues = |digest: &str| archive::catalogue(dir, digest).ok().flatten();
    let work = || -> io::Result<Replayed> {
        let since = Instant::now();
        let mut own = Replayed::default();
        let mut redecider = Redecider::new(snapshot, &catalogues);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, path)) = segments.get(number) else { break };
            match std::fs::read(path) {
                // Retention dropped it meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(io::Error::new(e.kind(), format!("cannot read `{}`: {e}", path.display()))),
                Ok(bytes) => {
                    let end = own.segment(&bytes, span, &mut redecider, &mut |more| {
                        progress(read.fetch_add(more, Ordering::Relaxed) + more, total);
                    });
                    // The last one may be written to meanwhile.
                    if number < last && bytes.get(end..).is_some_and(|rest| rest.iter().any(|b| *b != 0)) {
                        own.leave_out(Cannot::Damaged, &path.display().to_string(), None, 1);
                    }
                }
            }
        }
        own.worked = since.elapsed();
        Ok(own)
    };
    let all: io::Result<Vec<Replayed>> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, io::Result<Replayed>>| {
            handle.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the replay ended early")))
        };
        handles.into_iter().map(join).collect()
    });
    let mut whole = Replayed::default();
    all?.into_iter().for_each(|part| whole.add(part));
    whole.took = begun.elapsed();
    Ok(whole)
}

/// Bytes after which progress is told.
const TELL: u64 = 1 << 20;

impl Replayed {
    /// Decides what stands in a segment; the offset of its end.
    fn segment(
        &mut self,
        bytes: &[u8],
        span: &Span,
        redecider: &mut Redecider<'_>,
        tell: &mut impl FnMut(u64),
    ) -> usize {
        let (mut offset, mut told) = (SEGMENT_HEADER, 0);
        // Where frames end, the segment does; whether it ends as it should is `audit verify`'s to say.
        while let Some(frame) = frame::at(bytes, offset) {
            offset = frame.end();
            if let Some(read) = redecide::read(frame.payload) {
                match read {
                    Ok(recorded) if span.holds(&recorded) => self.decide(&recorded, redecider),
                    Ok(_) => {}
                    Err(why) => {
                        self.left_out.entry(why).or_default().add(&format!("sequence number {}", frame.seq), None, 1)
                    }
                }
            }
            if offset as u64 - told >= TELL {
                tell(offset as u64 - told);
                told = offset as u64;
            }
        }
        tell((bytes.len() as u64).saturating_sub(told));
        offset
    }

    fn leave_out(&mut self, why: Cannot, id: &str, at: Option<Timestamp>, count: u64) {
        self.left_out.entry(why).or_default().add(id, at, count);
    }

    fn decide(&mut self, recorded: &Recorded<'_>, redecider: &mut Redecider<'_>) {
        let count = recorded.whole();
        if recorded.counted() > 0 {
            self.leave_out(Cannot::Counted, &recorded.id, Some(recorded.ts), recorded.counted());
        }
        let evaluation = match redecider.decide(recorded) {
            Ok(evaluation) => evaluation,
            Err(why) => {
                self.left_out.entry(why).or_default().add(&recorded.id, Some(recorded.ts), count);
                return;
            }
        };
        self.decided += count;
        for policy in &evaluation.policies {
            match self.coverage.get_mut(policy) {
                Some(counted) => *counted += count,
                None => drop(self.coverage.insert(policy.clone(), count)),
            }
        }
        if evaluation.verdict == recorded.verdict {
            self.same += count;
            return;
        }
        let tool = match &recorded.tool {
            Some(tool) => format!("{}/{tool}", recorded.server),
            None => recorded.action.clone().into_owned(),
        };
        let by = if evaluation.policies.is_empty() { evaluation.reason } else { evaluation.policies.join(", ") };
        let (from, to) = (recorded.verdict.name(), evaluation.verdict.name());
        let change = Change { from, to, worker: recorded.worker.clone().into_owned(), tool, by };
        self.changes.entry(change).or_default().add(&recorded.id, Some(recorded.ts), count);
    }

    fn add(&mut self, other: Self) {
        self.decided += other.decided;
        self.same += other.same;
        self.worked += other.worked;
        for (change, group) in other.changes {
            self.changes.entry(change).or_default().add(&group.example, group.first, group.count);
        }
        for (rule, count) in other.coverage {
            *self.coverage.entry(rule).or_default() += count;
        }
        for (why, group) in other.left_out {
            self.left_out.entry(why).or_default().add(&group.example, group.first, group.count);
        }
    }

    /// The changes, the riskiest first: what becomes more allowed, and of that what happens most.
    pub fn ranked(&self) -> Vec<(&Change, &Group)> {
        let rank =
            |name: &str| [Verdict::Deny, Verdict::Escalate, Verdict::Allow].iter().position(|v| v.name() == name);
        let mut all: Vec<(&Change, &Group)> = self.changes.iter().collect();
        all.sort_by(|(a, many), (b, few)| {
            let wider = |change: &Change| rank(change.to) > rank(change.from);
            (wider(b), few.count, *a).cmp(&(wider(a), many.count, *b))
        });
        all
    }
}

impl Group {
    fn add(&mut self, id: &str, at: Option<Timestamp>, count: u64) {
        self.count += count;
        if self.example.is_empty() || at.is_some_and(|at| self.first.is_none_or(|first| at < first)) {
            id.clone_into(&mut self.example);
            self.first = at;
        }
    }
}

impl Span {
    fn holds(&self, recorded: &Recorded<'_>) -> bool {
        self.since.is_none_or(|since| recorded.ts >= since)
            && self.until.is_none_or(|until| recorded.ts < until)
            && self.worker.as_ref().is_none_or(|worker| *worker == recorded.worker)
    }
}
