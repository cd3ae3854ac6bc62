//! Files that are made from the code: they must be what the code makes. `UPDATE_EXPECT=1` writes them.

use std::fmt::Write;
use std::path::Path;

fn check(path: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == made,
        "`{}` is not what the code makes: run with UPDATE_EXPECT=1 and look at the change",
        path.display()
    );
}

#[test]
fn the_schema_of_the_configuration() {
    check("schemas/config.json", &warden::config::json_schema());
}

#[test]
fn the_pages_of_reason_codes() {
    let mut text = String::from(
        "# Reason codes\n\nWhy a proposal was refused. Generated from `gateway/core/src/reason.rs`. Rules of a site add codes of their own with\n`@reason`. A worker is told the advice and never the code.\n",
    );
    for reason in warden_core::reason::REASONS {
        let _ = write!(
            text,
            "\n## `{}`\n\n{}\n\n- The worker is advised: {}.\n- The operator: {}\n",
            reason.code, reason.meaning, reason.advice, reason.remedy
        );
    }
    check("docs/reasons.md", &text);
}

#[test]
fn every_charter_reason_has_a_page() {
    let site = warden_core::policy::snapshot::Source::default();
    let snapshot = warden_core::policy::snapshot::Snapshot::build(site).unwrap();
    for rule in &snapshot.layers[0].rules {
        let code = rule.reason.as_deref().unwrap();
        assert!(warden_core::reason::REASONS.iter().any(|reason| reason.code == code), "{code}");
    }
}

/// A page that leaves out a key is one that nobody finds it on.
#[test]
fn s3_21_the_page_of_engines_has_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&warden::config::json_schema()).unwrap();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/engines.md")).unwrap();
    for part in ["RawEngine", "RawPrices", "RawPrice", "RawBudget", "RawLimit", "RawZone"] {
        let keys = schema["$defs"][part]["properties"].as_object().unwrap_or_else(|| panic!("{part} is in the schema"));
        for key in keys.keys() {
            let there = page.contains(&format!("`{key}`"))
                || page.contains(&format!("{key}:"))
                || page.contains(&format!("`{key}."));
            assert!(there, "docs/engines.md does not say what `{key}` of {part} is");
        }
    }
}
