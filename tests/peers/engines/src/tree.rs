//! A process and all below it, as `/proc` tells them.

use crate::Outcome;
use std::collections::HashMap;

/// The process, and then its children, theirs, and so on, as they are now.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Ok([parent]) = numbers(pid, 1) {
            children.entry(u32::try_from(parent).unwrap_or_default()).or_default().push(pid);
        }
    }
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next) {
        pids.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    pids
}

/// Seconds on a processor so far, their own and the system's for them.
pub(crate) fn cpu(pids: &[u32]) -> f64 {
    let ticks: u64 = pids.iter().filter_map(|pid| numbers::<2>(*pid, 11).ok()).flatten().sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// MiB in memory. Pages that they share count for each.
pub(crate) fn rss(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| resident(*pid).ok()).sum()
}

fn resident(pid: u32) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("it has no memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Fields of `stat`, counted from the one after the name in parentheses, which may hold anything.
fn numbers<const N: usize>(pid: u32, from: usize) -> Outcome<[u64; N]> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').ok_or("`stat` cannot be read")?.1;
    let numbers: Result<Vec<u64>, _> = fields.split_whitespace().skip(from).take(N).map(str::parse).collect();
    numbers?.try_into().map_err(|_| "`stat` ends early".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn children_are_found_and_count() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let (own, pids) = (std::process::id(), tree(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pids[0] == own && pids.contains(&child.id()), "{pids:?}");
        assert!(rss(&[own]) > 0.1 && rss(&[]) == 0.0);
        assert!(cpu(&[own]) >= 0.0);
    }
}
