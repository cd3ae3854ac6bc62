//! The corpus of the fuzz targets, as tests.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::path::Path;

fn run(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "{}", corpus.display());
    for file in files {
        println!("{}", file.display());
        check(&std::fs::read(file).unwrap());
    }
}

#[test]
fn envelope() {
    run("envelope", targets::envelope);
}

#[test]
fn policy_loader() {
    run("policy_loader", targets::policy_loader);
}

#[test]
fn replay() {
    run("replay", targets::replay);
}
