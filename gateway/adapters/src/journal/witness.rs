//! Witnesses: whoever keeps checkpoints where the gateway's folder cannot be changed along with them.
//!
//! A file on another mount gets each checkpoint appended, an HTTP endpoint gets each posted, and a witness of
//! [C2SP tlog-witness](https://c2sp.org/tlog-witness) checks that each continues the last one, and signs it.

use super::Journal;
use super::checkpoint::{Notary, Signed, at};
use super::recover::Anchor;
use crate::mcp::server::HttpServer;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use warden_core::journal::note::{Checkpoint, Note, Signature, VerifierKey};
use warden_core::journal::proof;

/// Where checkpoints go.
#[derive(Clone, Debug)]
pub enum Target {
    /// A file that grows.
    File(PathBuf),
    /// An endpoint that takes the note as the body of a `POST`; any 2xx means that it keeps it.
    Http(Arc<HttpServer>),
    /// A tlog-witness, with what its signatures are checked with.
    Tlog(Arc<HttpServer>, VerifierKey),
}

/// A target with its name.
#[derive(Clone, Debug)]
pub struct Witness {
    /// As it is shown: a path, or a host.
    pub name: String,
    /// Where.
    pub target: Target,
}

/// How a witness is.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Number of records of the last checkpoint that it has.
    pub size: u64,
    /// When it took that.
    pub at: Option<Timestamp>,
    /// Why it did not take the newest one.
    pub error: Option<String>,
}

/// All witnesses of a gateway, and what they have.
#[derive(Default)]
pub struct Witnesses {
    all: Vec<Arc<Mutex<Status>>>,
}

/// The answer of a witness may not be longer.
const ANSWER_MAX: usize = 64 << 10;
/// How long a witness may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries of a witness that did not take a checkpoint; doubled each time up to a minute.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// As much of a file's end is read: hundreds of thousands of notes.
const NOTES_MAX: u64 = 64 << 20;

impl Witnesses {
    /// Gives each target each checkpoint, the newest one when it is slower than they come.
    pub fn start(targets: &[Witness], notary: &Notary, journal: &Journal, data_dir: &Path) -> Self {
        let all = targets.iter().map(|witness| {
            let status = Arc::new(Mutex::new(Status { name: witness.name.clone(), ..Status::default() }));
            let task = Task {
                witness: witness.clone(),
                status: status.clone(),
                journal: journal.clone(),
                kept: kept(data_dir, &witness.name),
            };
            tokio::spawn(task.run(notary.latest()));
            status
        });
        Self { all: all.collect() }
    }

    /// How each is.
    pub fn status(&self) -> Vec<Status> {
        self.all.iter().map(|status| status.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Waits until each has what is signed, or for so long.
    pub async fn settle(&self, size: u64, patience: Duration) {
        let all = async {
            while self.status().iter().any(|status| status.size < size && status.error.is_none()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }
}

struct Task {
    witness: Witness,
    status: Arc<Mutex<Status>>,
    journal: Journal,
    kept: PathBuf,
}

impl Task {
    async fn run(self, mut latest: watch::Receiver<Option<Signed>>) {
        let mut again = AGAIN;
        loop {
            let signed = latest.borrow_and_update().clone();
            if let Some(signed) = signed {
                match self.give(&signed).await {
                    Ok(()) => {
                        again = AGAIN;
                        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
                        (status.size, status.at, status.error) =
                            (signed.checkpoint.size, Some(crate::world::now()), None);
                    }
                    Err(e) => {
                        let was = {
                            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
                            status.error.replace(e.clone())
                        };
                        if was.as_ref() != Some(&e) {
                            tracing::error!(witness = self.witness.name, "a witness did not take the checkpoint: {e}");
                        }
                        tokio::time::sleep(again).await;
                        again = (again * 2).min(AGAIN_MAX);
                        // A newer one, if there is one by now, else the same.
                        continue;
                    }
                }
            }
            if latest.changed().await.is_err() {
                return;
            }
        }
    }

    async fn give(&self, signed: &Signed) -> Result<(), String> {
        let given = match &self.witness.target {
            Target::File(path) => {
                let (path, note) = (path.clone(), signed.note.clone());
                apart(move || append(&path, &note).map_err(|e| e.to_string())).await
            }
            Target::Http(http) => {
                let (status, answer) = post(http, signed.note.to_string()).await?;
                status.is_success().then_some(()).ok_or_else(|| refused(status, &answer))
            }
            Target::Tlog(http, key) => return self.cosigned(http, key, signed).await,
        };
        given?;
        self.keep(&signed.note).await
    }

    /// What a witness is known to have is kept, so that a look offline finds it.
    async fn keep(&self, note: &Note) -> Result<(), String> {
        let (path, text) = (self.kept.clone(), note.to_string());
        apart(move || {
            let kept = crate::files::create_private_dir(path.parent().unwrap_or(Path::new(".")))
                .and_then(|()| crate::files::write_private(&path, text.as_bytes()));
            kept.map_err(|e| format!("`{}`: {e}", path.display()))
        })
        .await
    }

    async fn cosigned(&self, http: &HttpServer, key: &VerifierKey, signed: &Signed) -> Result<(), String> {
        let mut old = self.status.lock().unwrap_or_else(PoisonError::into_inner).size;
        // The second time with the size that the witness itself says it has.
        for _ in 0..2 {
            let new = signed.checkpoint.size;
            let journal = self.journal.clone();
            let proof = move || journal.prove(|tree| proof::consistency(tree, old, new)).map_err(|e| e.to_string());
            let path = apart(proof).await?;
            let lines: String = path.iter().map(|hash| format!("{}\n", base64(hash))).collect();
            let (status, answer) = post(http, format!("old {old}\n{lines}\n{}", signed.note)).await?;
            if status == StatusCode::CONFLICT {
                old = answer.trim().parse().map_err(|_| "409 without the size that it has".to_owned())?;
                if old > new {
                    return Err(format!(
                        "it has seen {old} records of this log, which has {new}: somebody cut this log, or made another one of its name"
                    ));
                }
                continue;
            }
            if !status.is_success() {
                return Err(refused(status, &answer));
            }
            let signatures: Vec<Signature> = answer.lines().filter_map(|line| Signature::parse(line).ok()).collect();
            let own = signatures.into_iter().find(|signature| key.verify(&signed.note.text, signature));
            let own = own.ok_or("its answer has no signature by its key")?;
            let mut note = signed.note.clone();
            note.signatures.push(own);
            return self.keep(&note).await;
        }
        Err("it names another size each time".to_owned())
    }
}

/// Does what may block where it blocks nobody. What hangs, on a mount that is gone, is waited for by this witness alone.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}

fn refused(status: StatusCode, answer: &str) -> String {
    format!("it answered {status}: {}", answer.chars().filter(|c| !c.is_control()).take(200).collect::<String>())
}

fn base64(hash: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::prelude::BASE64_STANDARD.encode(hash)
}

async fn post(http: &HttpServer, body: String) -> Result<(StatusCode, String), String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let asked = async {
        let answer = http.send(Method::POST, &headers, body).await.map_err(|_| "it cannot be reached".to_owned())?;
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|_| "its answer broke off or is too long".to_owned())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("it does not answer".to_owned()))
}

/// A pipe or a device would be waited for without end, and keeps nothing.
fn is_regular(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Err(at(path, "is no regular file, so it cannot keep checkpoints")),
        _ => Ok(()),
    }
}

/// Appends a note, durably, a blank line between two.
fn append(path: &Path, note: &Note) -> io::Result<()> {
    is_regular(path)?;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(format!("{note}\n").as_bytes())?;
    file.sync_data()
}

/// Where the last checkpoint that a witness took is kept.
fn kept(data_dir: &Path, whole: &str) -> PathBuf {
    let name: String =
        whole.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' }).collect();
    // Two names may look the same like this.
    let hash = warden_core::catalogue::sha256_hex(whole.as_bytes());
    data_dir.join("witnessed").join(format!("{}-{}.note", name.trim_matches('.'), &hash[7..15]))
}

/// The largest checkpoint in a file that grows: whoever can append to it can append an older one. What no key signed counts
/// for nothing, and a crash may have cut the end off. Nothing when there is no file, or no whole note in it.
fn largest_note(path: &Path, keys: &[VerifierKey]) -> io::Result<Option<Anchor>> {
    is_regular(path)?;
    let mut file = match std::fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| at(path, e))?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(NOTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(NOTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // A note is its text, a blank line, its signatures; another blank line parts it from the next.
    let parts: Vec<&str> = text.split("\n\n").collect();
    let mut notes: Vec<(u64, Note)> = parts
        .windows(2)
        .filter(|pair| pair[1].starts_with("— "))
        .filter_map(|pair| {
            let (text, signatures) = (pair[0].trim_start_matches('\n'), pair[1].trim_end_matches('\n'));
            let note = Note::parse(&format!("{text}\n\n{signatures}\n")).ok()?;
            Some((Checkpoint::parse(&note.text).ok()?.size, note))
        })
        .collect();
    notes.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let mut wrong = None;
    for (_, note) in notes {
        match note.checkpoint(keys) {
            Ok(checkpoint) => {
                let from = format!("`{}`", path.display());
                return Ok(Some(Anchor { size: checkpoint.size, root: checkpoint.root, from }));
            }
            Err(e) => wrong = wrong.or(Some(e)),
        }
    }
    match wrong {
        Some(e) => Err(at(path, e)),
        None => Ok(None),
    }
}

/// What witnesses hold a journal to: the files themselves, and for the others what they were known to have.
pub fn anchors(data_dir: &Path, witnesses: &[Witness], keys: &[VerifierKey]) -> io::Result<Vec<Anchor>> {
    let mut all = Vec::new();
    for witness in witnesses {
        let found = match &witness.target {
            Target::File(path) => {
                let (found, known) = (largest_note(path, keys)?, of_kept(data_dir, witness, keys)?);
                if found.is_none() && known.is_some() {
                    tracing::warn!(
                        witness = witness.name,
                        "the witness's file has no checkpoint; what it had is known"
                    );
                }
                // Whichever says more; the file's own word where they agree.
                match (found, known) {
                    (Some(found), Some(known)) if known.size > found.size => Some(known),
                    (found, known) => found.or(known),
                }
            }
            Target::Http(_) | Target::Tlog(..) => of_kept(data_dir, witness, keys)?,
        };
        all.extend(found);
    }
    Ok(all)
}

/// What a witness was known to have.
fn of_kept(data_dir: &Path, witness: &Witness, keys: &[VerifierKey]) -> io::Result<Option<Anchor>> {
    let found = super::checkpoint::anchor(&kept(data_dir, &witness.name), keys)?;
    Ok(found.map(|anchor| Anchor { from: format!("witness `{}`, as was known,", witness.name), ..anchor }))
}

/// What a file of somebody's choice holds a journal to: one note, or a witness's file.
pub fn anchor(path: &Path, keys: &[VerifierKey]) -> io::Result<Anchor> {
    largest_note(path, keys)?.ok_or_else(|| at(path, "no such file, or no signed checkpoint in it"))
}
