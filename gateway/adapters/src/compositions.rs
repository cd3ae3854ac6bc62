//! Registered compositions, as they stand in the data folder: one file each, named by slug and version, and never another one under the
//! same name.

use crate::files::{create_private_dir, write_private};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warden_core::catalogue::sha256_hex;
use warden_core::composition::problem::Problem;
use warden_core::composition::register::{Caps, Checked, check};
use warden_core::json::{self, Limits};

/// The kinds of provider that a tool can have: an MCP server of the configuration, or a tool that its worker brings along.
pub const PROVIDER_KINDS: [&str; 2] = ["mcp_server", "builtin"];

/// The longest document, in bytes.
pub const DOCUMENT_MAX: usize = 8 << 20;
/// How deep a document in JSON is nested at most.
const DEPTH_MAX: usize = 120;

/// One of them.
#[derive(Clone, Debug)]
pub struct Registered {
    /// As it was registered.
    pub document: Arc<Value>,
    /// As it is enforced.
    pub checked: Arc<Checked>,
}

/// All of them, by `SLUG@VERSION`.
pub type Compositions = BTreeMap<String, Registered>;

/// Reads a document strictly. `classes` are the model classes that the configuration fills.
pub fn read(document: &Value, classes: &BTreeSet<String>) -> Result<Checked, Vec<Problem>> {
    let kinds = PROVIDER_KINDS.map(str::to_owned);
    check(document, &Caps::default(), &kinds, classes, sha256_hex)
}

/// A document as it is handed in, in JSON. A member that is there twice is refused: one of the two would say nothing.
pub fn document(bytes: &[u8]) -> Result<Value, json::Error> {
    json::document(bytes, Limits { bytes_max: DOCUMENT_MAX, depth_max: DEPTH_MAX })
}

/// The name that workers are bound to.
pub fn reference(checked: &Checked) -> String {
    format!("{}@{}", checked.slug, checked.version)
}

fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("compositions")
}

/// Reads all of them. One that cannot be read is told of and left out: who is bound to it may do nothing.
pub fn load(data_dir: &Path, classes: &BTreeSet<String>) -> io::Result<Compositions> {
    let files = match std::fs::read_dir(dir(data_dir)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Compositions::new()),
        files => files?,
    };
    let mut all = Compositions::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let read = std::fs::read(&path).map_err(|e| e.to_string()).and_then(|bytes| {
            let document: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
            let checked = read(&document, classes).map_err(|problems| told(&problems))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match reference(&checked) == name {
                true => Ok((name, Registered { document: Arc::new(document), checked: Arc::new(checked) })),
                false => Err(format!("it is `{}` by what it says", reference(&checked))),
            }
        });
        match read {
            Ok((name, registered)) => drop(all.insert(name, registered)),
            Err(why) => {
                tracing::error!(file = %path.display(), why, "a composition cannot be read: who is bound to it may do nothing")
            }
        }
    }
    Ok(all)
}

/// Problems as one text.
pub fn told(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{}: {}", problem.pointer, problem.message)).collect::<Vec<_>>().join("; ")
}

/// Writes one.
pub fn keep(data_dir: &Path, reference: &str, registered: &Registered) -> io::Result<()> {
    create_private_dir(&dir(data_dir))?;
    // Slug and version are of letters, digits and a few marks, none of which is a separator.
    let path = dir(data_dir).join(format!("{reference}.json"));
    write_private(&path, registered.document.to_string().as_bytes())
}
