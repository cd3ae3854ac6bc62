//! Names that can be taken for one another by eye: [UTS #39](https://www.unicode.org/reports/tr39/) skeletons, case, separators.

use super::Catalogue;
use std::collections::{BTreeMap, BTreeSet};
use unicode_security::skeleton;

/// What a name looks like: letters that look the same are one letter, and case and separators do not count. A capital I looks like an l,
/// and a small one like an i, so there is more than one answer.
fn looks(name: &str) -> [String; 2] {
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_' | '.' | '/' | ' ')).collect();
    [skeleton(&plain.to_lowercase()).collect(), skeleton(&plain).collect::<String>().to_lowercase()]
}

/// For each tool, `SERVER/TOOL`, the others that it can be taken for. Tools that wait are looked at as well.
pub fn alike(catalogue: &Catalogue) -> BTreeMap<String, BTreeSet<String>> {
    let known = catalogue.servers.iter().flat_map(|(server, tools)| tools.keys().map(move |tool| (server, tool)));
    let waiting = catalogue.waiting.iter().flat_map(|(server, tools)| tools.keys().map(move |tool| (server, tool)));
    let mut by_look: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (server, tool) in known.chain(waiting) {
        for look in looks(tool) {
            by_look.entry(look).or_default().insert(format!("{server}/{tool}"));
        }
    }
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for group in by_look.into_values().filter(|group| group.len() > 1) {
        for tool in &group {
            // The same name at another server is told apart by the server's.
            let name = |tool: &str| tool.split_once('/').map(|(_, name)| name.to_owned());
            let others: BTreeSet<String> = group.iter().filter(|other| name(other) != name(tool)).cloned().collect();
            if !others.is_empty() {
                all.entry(tool.clone()).or_default().extend(others);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Tool;
    use serde_json::json;

    #[test]
    fn names_that_can_be_mistaken_are_found() {
        let mut catalogue = Catalogue::default();
        for (server, name) in [
            ("a", "read_file"),
            ("a", "read-file"),
            ("a", "reаd_file"), // with a Cyrillic а
            ("a", "write"),
            ("b", "write"),
            ("b", "wipe"),
            ("b", "see_file"),
            ("b", "see_fiIe"), // with a capital I
        ] {
            catalogue.servers.entry(server.into()).or_default().insert(name.into(), Tool::listed(json!({})));
        }
        catalogue.waiting.entry("b".into()).or_default().insert("Wіpe".into(), json!({})); // with a Cyrillic і
        let found = alike(&catalogue);
        assert_eq!(found["a/read_file"].len(), 2);
        assert!(!found.contains_key("a/write"), "the same name at another server");
        assert_eq!(found["b/wipe"], BTreeSet::from(["b/Wіpe".to_owned()]));
        assert_eq!(found["b/see_file"], BTreeSet::from(["b/see_fiIe".to_owned()]));
        assert_eq!(found.len(), 7);
    }
}
