//! `warden audit verify`.

use super::bar;
use crate::cli::Global;
use crate::commands::{config, data_dir, say};
use crate::exit::{Failure, NO, Outcome};
use crate::gateway::anchors;
use std::path::{Path, PathBuf};
use warden_adapters::export::{self, Wrong};
use warden_adapters::journal::witness::{self, Target};
use warden_adapters::journal::{Anchor, OpenError, verify};
use warden_adapters::keys::Keys;
use warden_core::journal::note::VerifierKey;

/// Checks the journal, or an export.
pub(super) fn run(global: &Global, file: Option<&Path>, keys: &[String], witnesses: &[PathBuf]) -> Outcome {
    let given: Vec<Vec<VerifierKey>> = keys.iter().map(|key| read_keys(key)).collect::<Result<_, _>>()?;
    let given = given.concat();
    match file {
        Some(file) => bundle(global, file, given),
        None => journal(global, &given, witnesses),
    }
}

/// A key, or a file that holds one a line.
fn read_keys(text: &str) -> Result<Vec<VerifierKey>, Failure> {
    if let Ok(key) = VerifierKey::parse(text) {
        return Ok(vec![key]);
    }
    let held = std::fs::read_to_string(text).map_err(|e| {
        Failure::invalid(format!("--key: neither a key `NAME+ID+BASE64` nor a file that can be read ({e})"))
    })?;
    let keys = held.lines().filter(|line| !line.trim().is_empty()).map(VerifierKey::parse).collect::<Result<_, _>>();
    keys.map_err(|e| Failure::invalid(format!("--key: `{text}`: {e}")))
}

fn journal(global: &Global, given: &[VerifierKey], files: &[PathBuf]) -> Outcome {
    let dir = data_dir(global)?;
    let keys = Keys::open(&dir)?;
    // A folder alone is enough; with its configuration, witnesses are asked as well.
    let witnesses = match global.config.exists() {
        true => config(global)?.witnesses,
        false => Vec::new(),
    };
    // Whoever brings a key trusts that one alone.
    let trusted = if given.is_empty() { keys.verifiers()? } else { given.to_vec() };
    let mut anchors = anchors(&dir, &trusted, &witnesses).map_err(|e| tampered(global, &e.to_string()))?;
    for file in files {
        anchors.push(witness::anchor(file, &trusted).map_err(|e| tampered(global, &e.to_string()))?);
    }
    let reading = bar("reading the journal");
    let verified = match verify(&dir, &anchors, |done, all| reading.at(done as u64, all as u64)) {
        Ok(verified) => verified,
        Err(e @ OpenError::Damaged { .. }) => {
            drop(reading);
            return Err(tampered(global, &e.to_string()));
        }
        Err(e) => return Err(e.into()),
    };
    drop(reading);
    let seen = anchors.iter().filter(|anchor| !is_own(anchor, &dir)).map(|anchor| anchor.size).max();
    let window = seen.map(|seen| verified.records - seen);
    if global.json {
        let mut shown = serde_json::json!(verified);
        shown["good"] = true.into();
        shown["unwitnessed"] = serde_json::json!(window);
        say(shown);
        return Ok(0);
    }
    say(format!(
        "good: {} records in {} segments\nroot    {}\nheld    {}\nunknown {}",
        verified.records - verified.first_seq,
        verified.segments,
        verified.root,
        verified.held,
        verified.unknown
    ));
    if verified.first_seq > 0 {
        say(format!("dropped {} records before them, by retention; their hashes are there", verified.first_seq));
    }
    for signed in &verified.signed {
        say(format!("signed  {} records, as {} says", signed.size, signed.by));
    }
    match window {
        Some(window) => say(format!("window  {window} records are newer than what witnesses have")),
        None => say(
            "window  all of it: no witness has seen anything, so whoever can write here could cut the end off unseen",
        ),
    }
    for witness in &witnesses {
        if let Target::File(path) = &witness.target
            && !path.exists()
        {
            say(format!("missing `{}`: the witness's file is not there", path.display()));
        }
    }
    if let Some(at) = &verified.torn_at {
        say(format!("torn    {at}: a write was cut off there; nothing in it was acknowledged"));
    }
    Ok(0)
}

fn is_own(anchor: &Anchor, dir: &Path) -> bool {
    anchor.from == format!("`{}`", dir.join("checkpoint").display())
}

fn tampered(global: &Global, message: &str) -> Failure {
    if global.json {
        say(serde_json::json!({ "good": false, "error": message }));
    }
    Failure { code: NO, message: message.to_owned() }
}

fn bundle(global: &Global, file: &Path, mut keys: Vec<VerifierKey>) -> Outcome {
    if keys.is_empty()
        && let Ok(dir) = data_dir(global)
        && let Ok(own) = Keys::open(&dir).and_then(|keys| keys.verifiers())
    {
        keys = own;
    }
    if keys.is_empty() {
        return Err(Failure::invalid(
            "--key: an export is checked with the log's public key, which `warden audit checkpoint` shows; get it from somebody you trust, not from the export",
        ));
    }
    let reading = bar("reading the export");
    let checked = export::check(file, &keys, |done, all| reading.at(done, all));
    drop(reading);
    match checked {
        Ok(checked) if global.json => say(serde_json::json!({ "good": true, "export": checked })),
        Ok(checked) => say(format!(
            "good: {} records, {} to {}, of the log `{}`\nsigned  {} records, by {}",
            checked.records,
            checked.from,
            checked.to.saturating_sub(1),
            checked.origin,
            checked.size,
            checked.verifier,
        )),
        Err(e @ Wrong::Changed { .. }) => return Err(tampered(global, &e.to_string())),
        Err(e @ Wrong::Io { .. }) => return Err(Failure::failed(e)),
    }
    Ok(0)
}
