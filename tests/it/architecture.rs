//! The shape of the code, held: arrows, order, and what is absent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let (mut open, mut found) = (vec![root().join(dir)], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// Without its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(manifest)).unwrap();
    let section = text.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap().to_owned();
    section
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn core_depends_on_no_crate_that_could_do_io() {
    let allowed = [
        "aho-corasick",
        "base64",
        "cedar-policy",
        "crc32c",
        "crc32fast",
        "ed25519-dalek",
        "hmac",
        "jiff",
        "json-patch",
        "memchr",
        "miette",
        "regex",
        "serde",
        "serde_json",
        "sha2",
        "strsim",
        "thiserror",
        "unicode-normalization",
        "unicode-security",
        "zeroize",
    ];
    let there = dependencies("gateway/core/Cargo.toml");
    assert!(there.iter().all(|name| allowed.contains(&name.as_str())), "{there:?}");
    for word in [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::time",
        "tokio",
        "SystemTime",
        "Instant",
        "println!",
        "Timestamp::now",
    ] {
        for (path, text) in sources("gateway/core/src") {
            let is_test = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"));
            assert!(is_test || !code(&text).contains(word), "`{word}` in {}", path.display());
        }
    }
}

#[test]
fn arrows_point_one_way() {
    assert!(dependencies("gateway/adapters/Cargo.toml").contains("warden-core"));
    assert!(!dependencies("gateway/adapters/Cargo.toml").contains("warden"));
    assert!(dependencies("gateway/core/Cargo.toml").iter().all(|name| !name.starts_with("warden")));
}

/// Uses that point upwards, each with its reason.
const EXCEPTIONS: [(&str, &str); 1] = [
    // Probes run the serving code on the snapshot, before it serves.
    ("policy/probe.rs", "verdict"),
];

#[test]
fn core_modules_stand_in_the_order_of_a_request() {
    let lib = std::fs::read_to_string(root().join("gateway/core/src/lib.rs")).unwrap();
    let order: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let story = "invariant reason json rpc sse catalogue mac amount proposal mcp secrets task budget llm facts policy verdict outcome ack inbox decision passing journal denials port pipeline authoring";
    assert_eq!(order, story.split(' ').collect::<Vec<_>>(), "a new module takes its place, here and in `lib.rs`");
    for (path, text) in sources("gateway/core/src") {
        let inside = path.strip_prefix(root().join("gateway/core/src")).unwrap();
        let own = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        let Some(place) = order.iter().position(|module| *module == own) else { continue };
        for used in code(&text).split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(at) = order.iter().position(|module| *module == used) else { continue };
            assert!(
                at <= place || EXCEPTIONS.contains(&(inside.to_str().unwrap(), used.as_str())),
                "{}: `{own}` uses `{used}`, which comes after it",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_nothing_is_left_open() {
    let unfinished =
        [["to", "do!("], ["unimple", "mented!("], ["#[ig", "nore"], ["db", "g!("]].map(|parts| parts.concat());
    for (path, text) in sources("gateway").into_iter().chain(sources("tests/it")) {
        assert!(text.starts_with("//!"), "{} has no first line that says what it is for", path.display());
        for word in &unfinished {
            assert!(!text.contains(word.as_str()), "`{word}` in {}", path.display());
        }
    }
}

/// S2-58: the framework knows no application. The list only grows.
#[test]
fn s2_58_core_has_no_words_of_an_application() {
    let words = ["incident", "playbook", "customer", "invoice", "patient", "ticket"];
    for (path, text) in sources("gateway/core/src") {
        let text = text.to_lowercase();
        for word in words {
            assert!(
                !text.split(|c: char| !c.is_alphanumeric()).any(|found| found.trim_end_matches('s') == word),
                "`{word}` in {}",
                path.display()
            );
        }
    }
}

/// There is one pipeline function, and it alone mints permits.
#[test]
fn w01_a_permit_is_made_in_one_place() {
    let made: usize = sources("gateway").iter().map(|(_, text)| code(text).matches("Permit { proposal").count()).sum();
    assert_eq!(made, 1, "only the pipeline mints one");
}
