//! What workers were told, held against what the server did.

use crate::worker::End;
use std::collections::HashMap;

/// Where the two differ; all of it should be 0, but for `unknown_done`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Keys that were executed more than once.
    pub(crate) doubled: u64,
    /// Calls with a result that were never executed.
    pub(crate) missing: u64,
    /// Calls that were executed although the worker was told that they were not, or would not be.
    pub(crate) leaked: u64,
    /// Calls of unknown end that were executed.
    pub(crate) unknown_done: u64,
}

/// Compares the calls with the server's file, which has a key on each line.
pub(crate) fn check(calls: &[(String, End)], executed: &str) -> Checked {
    let mut times: HashMap<&str, u64> = HashMap::new();
    executed.lines().for_each(|key| *times.entry(key).or_default() += 1);
    let mut checked = Checked { doubled: times.values().filter(|n| **n > 1).count() as u64, ..Checked::default() };
    for (key, end) in calls {
        match (end, times.contains_key(key.as_str())) {
            (End::Answered, false) => checked.missing += 1,
            (End::Listed | End::Refused | End::Unsent | End::Forgotten, true) => checked.leaked += 1,
            (End::Unknown, true) => checked.unknown_done += 1,
            _ => {}
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lie_is_found() {
        let ends = [End::Answered, End::Answered, End::Refused, End::Unsent, End::Unknown, End::Unknown, End::Lost];
        let calls: Vec<_> = ends.into_iter().enumerate().map(|(n, end)| (n.to_string(), end)).collect();
        let fine = Checked { unknown_done: 1, ..Checked::default() };
        assert_eq!(check(&calls, "0\n1\n4\n6\n"), fine);
        assert_eq!(check(&calls, "0\n1\n4\n1\n"), Checked { doubled: 1, ..fine });
        assert_eq!(check(&calls, "0\n2\n3\n5\n"), Checked { missing: 1, leaked: 2, unknown_done: 1, doubled: 0 });
    }
}
