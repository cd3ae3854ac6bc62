//! What operators set by action or group of actions: how much of a decision is written down, and what becomes of an answer
//! with a secret value in it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much of what Cedar saw is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All of it, long strings cut: the decision can be replayed.
    #[default]
    Facts,
    /// All of it, with `context.input` encrypted under a key of its worker, which can be destroyed.
    Sealed,
    /// All but `context.input`: replay cannot use it.
    Metadata,
}

impl Level {
    /// Whether this is the default, which is not written.
    pub fn is_facts(&self) -> bool {
        *self == Level::Facts
    }
}

/// What becomes of an answer that holds a secret value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inbound {
    /// Nobody is given it.
    #[default]
    Withhold,
    /// It is handed on with `[secret:FORMAT:FINGERPRINT]` in place of the value.
    Redact,
}

/// How much of each decision is written down.
pub type Levels = ByAction<Level>;

/// Settings by action (`files/read_file`, `read_resource`) or group (`files/*`, `call_tool`, `server_request`, `*`). The
/// narrowest one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByAction<T>(BTreeMap<String, T>);

impl<T: Copy + Default> ByAction<T> {
    /// Of an operator's configuration. A snapshot refuses names that mean nothing to it.
    pub fn new(settings: BTreeMap<String, T>) -> Self {
        Self(settings)
    }

    /// The first name that is none of these.
    pub fn unknown(&self, known: impl Fn(&str) -> bool) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| *name != "*" && !known(name))
    }

    /// What is set for an action that is in these groups, the narrowest first.
    pub fn of<'n>(&self, action: &'n str, groups: impl IntoIterator<Item = &'n str>) -> T {
        let mut names = std::iter::once(action).chain(groups).chain(["*"]);
        names.find_map(|name| self.0.get(name).copied()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_level_counts_and_a_name_that_means_nothing_is_refused() {
        let levels = |pairs: &[(&str, Level)]| Levels::new(pairs.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect());
        let some = levels(&[("*", Level::Metadata), ("mail/*", Level::Sealed), ("mail/list", Level::Facts)]);
        assert_eq!(some.of("mail/list", ["mail/*", "call_tool"]), Level::Facts);
        assert_eq!(some.of("mail/send", ["mail/*", "call_tool"]), Level::Sealed);
        assert_eq!(some.of("files/read", ["files/*", "call_tool"]), Level::Metadata);
        assert_eq!(Levels::default().of("files/read", []), Level::Facts);
        assert_eq!(some.unknown(|name| name.starts_with("mail/")), None);
        assert_eq!(levels(&[("cal_tool", Level::Facts)]).unknown(|name| name == "call_tool"), Some("cal_tool"));
    }
}
