//! The corpus of the fuzz targets, as tests.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::path::Path;

fn run(target: &str, check: fn(&[u8]) -> bool) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "{}", corpus.display());
    let read = files.iter().filter(|file| check(&std::fs::read(file).unwrap())).count();
    assert!(
        read >= 2 && read < files.len(),
        "{read} of {} files can be read: both kinds belong into a corpus",
        files.len()
    );
}

#[test]
fn envelope() {
    run("envelope", targets::envelope);
}

#[test]
fn plan() {
    run("plan", targets::plan);
}

#[test]
fn policy_loader() {
    run("policy_loader", targets::policy_loader);
}

#[test]
fn replay() {
    run("replay", targets::replay);
}

#[test]
fn secret_stream() {
    run("secret_stream", targets::secret_stream);
}

#[test]
fn secret_views() {
    run("secret_views", targets::secret_views);
}
