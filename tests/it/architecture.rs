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
        "schemars",
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
    let story = "invariant reason json glob rpc sse catalogue mac amount proposal mcp secrets task session budget composition llm facts policy verdict outcome ack inbox decision passing journal denials port pipeline authoring";
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

/// Words of applications, each as `words_like_this`. The list only grows.
const FOREIGN: [&str; 31] = [
    "add_note",
    "changes_requested",
    "code_review",
    "customer",
    "hypothesis",
    "incident",
    "invoice",
    "mark_resolved",
    "merge_request",
    "mitigation",
    "note_finding",
    "notify_oncall",
    "on_call",
    "oncall",
    "outage",
    "patient",
    "playbook",
    "postmortem",
    "pull_request",
    "read_diff",
    "read_logs",
    "remediate",
    "remediation",
    "restart_service",
    "runbook",
    "submit_hypothesis",
    "submit_review",
    "ticket",
    "triage",
    "unreviewed",
    "update_incident",
];
/// The hash of the list, its words joined by blanks.
const LOCKED: &str = "sha256:0553f4e0bad3ac05154a780101296d730de41c5d0f0c144a1706cbe6f26768bf";
/// Where one of them may stand nevertheless: a part of a path, and the word. It stays empty.
const FOREIGN_ALLOWED: [(&str, &str); 0] = [];

/// Places with one of `words`, comments included, and the entries of `allowed` that no place needs. A word is found however its parts are
/// joined (`pull_request`, `pull-request`, `pullRequest`, `Pull request`), in the plural as well, and not within another word.
fn foreign(sources: &[(String, String)], words: &[&str], allowed: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let (mut found, mut needed) = (Vec::new(), BTreeSet::new());
    for (path, text) in sources {
        for (number, line) in text.lines().enumerate() {
            let line = joined(line);
            for word in words.iter().filter(|word| stands_in(&line, word)) {
                match allowed.iter().position(|(place, allowed)| path.contains(place) && *allowed == *word) {
                    Some(entry) => drop(needed.insert(entry)),
                    None => found.push(format!("`{word}` in {path}:{}", number + 1)),
                }
            }
        }
    }
    let stale = allowed.iter().enumerate().filter(|(entry, _)| !needed.contains(entry));
    (found, stale.map(|(_, (place, word))| format!("nothing in `{place}` needs `{word}`")).collect())
}

/// In small letters, the parts of names and neighbouring words joined by `_`.
fn joined(line: &str) -> String {
    let (mut joined, mut before) = (String::new(), ' ');
    for c in line.chars() {
        if c.is_uppercase() && (before.is_lowercase() || before.is_ascii_digit()) {
            joined.push('_');
        }
        joined.extend(if matches!(c, ' ' | '-') { '_' } else { c }.to_lowercase());
        before = c;
    }
    joined
}

fn stands_in(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let after = after.strip_prefix('s').unwrap_or(after);
        !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    })
}

/// S2-58: the framework knows no application.
#[test]
fn s2_58_the_gateway_has_no_words_of_an_application() {
    let all = sources("gateway");
    assert!(all.len() > 100, "{} files: is this still where the gateway is?", all.len());
    let all: Vec<_> = all.into_iter().map(|(path, text)| (path.display().to_string(), text)).collect();
    let (found, stale) = foreign(&all, &FOREIGN, &FOREIGN_ALLOWED);
    assert!(found.is_empty() && stale.is_empty(), "{found:#?} {stale:#?}");
}

#[test]
fn s2_58_its_words_are_locked_and_those_of_the_shipped_apps_are_among_them() {
    assert!(FOREIGN_ALLOWED.is_empty(), "what would need an exception does not belong into the gateway");
    assert!(FOREIGN.is_sorted_by(|a, b| a < b), "sorted, and none of them twice");
    assert!(FOREIGN.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    assert_eq!(
        warden_core::catalogue::sha256_hex(FOREIGN.join(" ").as_bytes()),
        LOCKED,
        "add words, and take none away"
    );
    // The tools and statuses of shipped apps are such words, but for those that the gateway has words for itself.
    let general = ["approved", "commented", "escalated", "list_files", "needs_review", "resolved", "rollback"];
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let names = |text: &str, before: &str| -> Vec<String> {
        let name = |line: &str| line.strip_prefix(before)?.split(['(', ':', ' ']).next().map(str::to_owned);
        text.lines().filter_map(name).collect()
    };
    for app in ["incident", "code-review"] {
        let text = read(&format!("policies/apps/{app}/{app}.yaml"));
        let statuses = text.split("\nstatuses:\n").nth(1).unwrap().split("\ndefault").next().unwrap();
        let server = if app == "incident" { "incidents" } else { "reviews" };
        let tools = read(&format!("tests/it/servers/{server}.py"));
        let (statuses, tools) = (names(statuses, "  "), names(&tools, "def "));
        assert!(statuses.len() >= 3 && tools.len() >= 5, "{statuses:?} {tools:?}");
        for name in [app.replace('-', "_")].iter().chain(&statuses).chain(&tools) {
            let is_known = FOREIGN.iter().any(|word| stands_in(name, word)) || general.contains(&name.as_str());
            assert!(is_known, "`{name}` of `{app}` is no word of the list");
        }
    }
}

#[test]
fn s2_58_a_word_is_found_whole_and_however_it_is_written() {
    let one = |text: &str| foreign(&[("gateway/a.rs".into(), text.into())], &["incident", "pull_request"], &[]).0.len();
    for text in [
        "incident",
        "// An Incident.",
        "struct IncidentId;",
        "let old_incidents = 1;",
        "\"incident\"",
        "fn f(incident_id: u8)",
        "myIncident",
        "pull_request",
        "pull-requests",
        "Pull request",
        "PullRequest",
        "INCIDENT",
    ] {
        assert_eq!(one(text), 1, "{text}");
    }
    for text in ["coincidental", "incidental", "incidente", "pull. Request", "pull\nrequest", "push_pull_requested", ""]
    {
        assert_eq!(one(text), 0, "{text}");
    }
    assert_eq!(one("incident incident\nincident"), 2, "each line once");
}

#[test]
fn s2_58_an_exception_holds_for_its_place_and_goes_when_nothing_needs_it() {
    let sources = [("gateway/a.rs".to_owned(), "incident".to_owned()), ("gateway/b.rs".into(), "incident".into())];
    let (found, stale) = foreign(&sources, &["incident"], &[("gateway/a.rs", "incident")]);
    assert_eq!((found, stale), (vec!["`incident` in gateway/b.rs:1".to_owned()], vec![]));
    let (found, stale) =
        foreign(&sources[..1], &["incident"], &[("gateway/a.rs", "incident"), ("gateway/c.rs", "incident")]);
    assert_eq!((found, stale), (vec![], vec!["nothing in `gateway/c.rs` needs `incident`".to_owned()]));
}

/// There is one pipeline function, and it alone mints permits.
#[test]
fn w01_a_permit_is_made_in_one_place() {
    let made: usize = sources("gateway").iter().map(|(_, text)| code(text).matches("Permit { proposal").count()).sum();
    assert_eq!(made, 1, "only the pipeline mints one");
}
