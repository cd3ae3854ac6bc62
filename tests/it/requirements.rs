//! The page of requirements beside the tests that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How many rows each part has.
const PARTS: [(&str, usize); 6] = [("X", 18), ("S0", 22), ("S1", 47), ("S2", 62), ("S3", 26), ("S4", 41)];
/// Rows that no test holds, and the page says why.
const WAIVED: [&str; 4] = ["S0-15", "S2-62", "S4-28", "S4-36"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The names of all tests: functions, and those that `holds!` makes of a line.
fn tests() -> BTreeSet<String> {
    let (mut open, mut found): (Vec<PathBuf>, _) =
        (vec![root().join("gateway"), root().join("tests")], BTreeSet::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let skipped = ["target", "peers", "bench"].iter().any(|name| path.ends_with(name));
            if !skipped {
                open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(functions(&text));
            let made = text.split("holds! {").nth(1).unwrap_or_default().split("\n}").next().unwrap_or_default();
            let names = made.lines().filter_map(|line| line.trim().split_once(':')).map(|(name, _)| name.to_owned());
            found.extend(names.filter(|name| name.starts_with('s')));
        }
    }
    found
}

fn functions(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        if let Some((_, rest)) = line.split_once("fn ") {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if std::mem::take(&mut is_test) {
                found.insert(name);
            }
        }
    }
    found
}

/// By row: what stands under `held by`.
fn rows() -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for line in read("docs/requirements.md").lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, .., held] = cells.as_slice() else { continue };
        let is_row = id.split_once('-').is_some_and(|(part, number)| {
            PARTS.iter().any(|(known, _)| *known == part) && number.parse::<usize>().is_ok()
        });
        if is_row {
            assert!(rows.insert((*id).to_owned(), (*held).to_owned()).is_none(), "{id} stands there twice");
        }
    }
    rows
}

fn named(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_row_names_a_test_that_is_there_or_says_why_not() {
    let (rows, tests) = (rows(), tests());
    let expected: BTreeSet<String> =
        PARTS.iter().flat_map(|(part, rows)| (1..=*rows).map(move |n| format!("{part}-{n:02}"))).collect();
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for (id, held) in &rows {
        if WAIVED.contains(&id.as_str()) {
            assert!(held.starts_with("waived: "), "{id}: {held}");
            continue;
        }
        let names = named(held);
        assert!(!names.is_empty(), "{id} is held by nothing");
        for name in names {
            assert!(tests.contains(name), "{id}: there is no test `{name}`");
        }
    }
}

#[test]
fn every_row_of_sessions_and_compositions_is_in_the_name_of_a_test() {
    let tests = tests();
    for id in rows().keys().filter(|id| id.starts_with("S2") || id.starts_with("S4")) {
        let number = id.to_lowercase().replace('-', "_");
        let carries = |name: &String| format!("_{name}_").contains(&format!("_{number}_"));
        assert!(WAIVED.contains(&id.as_str()) || tests.iter().any(carries), "{id} is in no test's name");
    }
}

#[test]
fn s1_46_the_page_of_the_security_model_names_tests_that_are_there() {
    let (page, tests) = (read("docs/security-model.md"), tests());
    let looks_like_one = |name: &&str| {
        let mut chars = name.chars();
        let head =
            chars.next().is_some_and(|c| c == 's' || c == 'w') && chars.next().is_some_and(|c| c.is_ascii_digit());
        head && name.contains('_')
    };
    let names: Vec<&str> = named(&page).into_iter().filter(looks_like_one).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let start = name.trim_end_matches('…');
        assert!(tests.iter().any(|test| test.starts_with(start)), "there is no test `{name}`");
    }
}
