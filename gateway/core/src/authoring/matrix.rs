//! Who may do what: workers by tools, as a text that a review can read as a diff.
//!
//! Arguments are not known, so a cell holds the best and the worst verdict that they could bring about: every clause that
//! reads `context.input` is taken for what helps, and then for what hinders.

use crate::policy::est;
use crate::policy::probe;
use crate::policy::reads::Reads;
use crate::policy::slice::Slice;
use crate::policy::snapshot::{Case, Snapshot};
use crate::proposal::Ask;
use crate::verdict::{Verdict, decide};
use cedar_policy::{Effect, Policy, PolicySet};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The verdicts that arguments can bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Cell {
    best: u8,
    worst: u8,
}

impl Cell {
    /// As it is drawn.
    pub fn mark(self) -> String {
        let mark = |rank| match rank {
            2 => "✔",
            1 => "?",
            _ => "✘",
        };
        if self.best == self.worst {
            mark(self.best).into()
        } else {
            format!("{}{}", mark(self.best), mark(self.worst))
        }
    }
}

/// Which arguments are supposed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suppose {
    Best,
    Worst,
}

/// The cell of one worker and one tool. A node of a composition never gets more than what is above it.
pub fn cell(snapshot: &Snapshot, case: &Case<'_>) -> Cell {
    snapshot.above(case).fold(of_one(snapshot, case), |cell, above| {
        let above = above.map_or(Cell { best: 0, worst: 0 }, |above| of_one(snapshot, &above));
        Cell { best: cell.best.min(above.best), worst: cell.worst.min(above.worst) }
    })
}

fn of_one(snapshot: &Snapshot, case: &Case<'_>) -> Cell {
    let Some(slice) = &case.slice else { return Cell { best: 0, worst: 0 } };
    let rank = |suppose, facts| match snapshot.request(case, facts) {
        Ok(request) => decide(snapshot, &supposed(slice, suppose), &request, case.in_composition).verdict.rank(),
        Err(_) => Verdict::Deny.rank(),
    };
    let facts = probe::facts(&case.target.input);
    let (best, mut worst) = (rank(Suppose::Best, &facts), rank(Suppose::Worst, &facts));
    if facts.input.unseen.is_empty() && case.target.input.can_hide() {
        let mut hidden = facts.clone();
        hidden.input.unseen.push(String::new());
        worst = worst.min(rank(Suppose::Worst, &hidden));
    }
    Cell { best, worst }
}

fn supposed(slice: &Slice, suppose: Suppose) -> Slice {
    let set = |set: &PolicySet| {
        let policies = set.policies().filter_map(|policy| supposed_policy(policy, suppose));
        PolicySet::from_policies(policies).unwrap_or_default()
    };
    Slice {
        reads: slice.reads.clone(),
        reads_principal: slice.reads_principal,
        plain: set(&slice.plain),
        acknowledged: slice.acknowledged.as_ref().map(set),
        liftable: slice.liftable.clone(),
        permits_more: slice.permits_more,
        listed: slice.listed,
        beside: None,
    }
}

/// The policy with the clauses that read arguments taken for true; nothing when one of them is taken for false.
fn supposed_policy(policy: &Policy, suppose: Suppose) -> Option<Policy> {
    if Reads::of([policy]).of_input().is_none() {
        return Some(policy.clone());
    }
    let helps = (policy.effect() == Effect::Permit) == (suppose == Suppose::Best);
    let kept: Vec<est::Clause> = est::clauses(policy)
        .into_iter()
        .filter(|clause| {
            let mut reads = Reads::default();
            reads.add(&clause.body);
            reads.of_input().is_none()
        })
        .collect();
    helps.then(|| est::with_conditions(policy, &kept)).flatten()
}

/// The whole as a text: a row for each catalogued tool, a column for each set of workers that are treated alike.
pub fn render(snapshot: &Snapshot) -> String {
    let tools: Vec<(&String, &String)> = {
        let servers = &snapshot.catalogue().servers;
        servers.iter().flat_map(|(server, tools)| tools.keys().map(move |tool| (server, tool))).collect()
    };
    let mut columns: BTreeMap<Vec<String>, Vec<&str>> = BTreeMap::new();
    for worker in snapshot.workers() {
        let mark = |(server, tool): &(&String, &String)| {
            let case = snapshot.case(worker, server, &Ask::Tool { name: (*tool).clone() });
            case.map_or_else(|_| "✘".into(), |case| cell(snapshot, &case).mark())
        };
        columns.entry(tools.iter().map(mark).collect()).or_default().push(worker);
    }
    let mut columns: Vec<(Vec<String>, Vec<&str>)> = columns.into_iter().collect();
    columns.sort_by(|a, b| a.1.cmp(&b.1));
    let mut text = String::from(
        "# Who may call what: ✔ unattended, ? when a person acknowledges it, ✘ not at all.\n\
         # Two marks: the arguments decide; the best first, then the worst.\n",
    );
    for (number, (_, workers)) in columns.iter().enumerate() {
        let _ = writeln!(text, "# {}: {}", number + 1, workers.join(", "));
    }
    let name = |(server, tool): &(&String, &String)| format!("{server}/{tool}").escape_debug().to_string();
    let names: Vec<String> = tools.iter().map(name).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut head = format!("{:width$}", "");
    for number in 1..=columns.len() {
        let _ = write!(head, "  {number:<2}");
    }
    let _ = writeln!(text, "\n{}", head.trim_end());
    for (row, name) in names.iter().enumerate() {
        let mut line = format!("{name:width$}");
        for (marks, _) in &columns {
            let _ = write!(line, "  {:<2}", marks[row]);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
