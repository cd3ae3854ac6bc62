//! The log as commands read it: through the running gateway, or from the folder when none runs.

use super::bar;
use crate::client::Client;
use crate::exit::{Failure, NO};
use crate::gateway::anchors;
use serde_json::Value;
use std::path::Path;
use warden_adapters::export::{Format, Manifest, VERSION};
use warden_adapters::files::DataDir;
use warden_adapters::journal::{Reader, TreeFiles, checkpoint, verify};
use warden_adapters::keys::Keys;
use warden_adapters::review::{self, Shown, all_shown};
use warden_adapters::view::{self, Query, Stats, View};
use warden_core::journal::note::Note;
use warden_core::journal::proof::{self, Leaves};

/// See the module.
pub(in crate::commands) enum Log {
    Gateway(Client, Option<Keys>),
    Folder(Box<Folder>),
}

/// A data folder that this process has locked. Looks into it are not recorded: nothing writes.
pub(in crate::commands) struct Folder {
    lock: DataDir,
    view: View,
    keys: Keys,
}

impl Folder {
    fn reader(&self) -> Reader {
        Reader::new(&self.lock.path().join("journal"))
    }
}

impl Log {
    pub(in crate::commands) async fn open(dir: &Path) -> Result<Self, Failure> {
        if let Some(client) = Client::connect(dir)? {
            // Without the folder's keys what is sealed stays so.
            return Ok(Self::Gateway(client, Keys::open(dir).ok()));
        }
        let lock = DataDir::open(dir)?;
        let keys = Keys::open(dir)?;
        let verifying = bar("reading the journal");
        let verified =
            verify(dir, &anchors(dir, &keys.verifiers()?, &[])?, |done, all| verifying.at(done as u64, all as u64))?;
        drop(verifying);
        let view = View::open(&dir.join("view"), verified.first_seq, verified.records)?;
        let indexing = bar("indexing");
        view.catch_up(&mut Reader::new(&dir.join("journal")), verified.records, |done, all| indexing.at(done, all))?;
        drop(indexing);
        Ok(Self::Folder(Box::new(Folder { lock, view, keys })))
    }

    /// What matches, and the first sequence number that was not looked at.
    pub(super) async fn query(&self, query: &Query) -> Result<(Vec<Value>, u64), Failure> {
        self.page("/v1/decisions", query, view::run).await
    }

    pub(super) async fn timeline(&self, query: &Query) -> Result<Vec<Value>, Failure> {
        Ok(self.page("/v1/timeline", query, view::timeline).await?.0)
    }

    async fn page(
        &self,
        path: &str,
        query: &Query,
        find: fn(&View, &mut Reader, &Query) -> std::io::Result<Vec<view::Found>>,
    ) -> Result<(Vec<Value>, u64), Failure> {
        match self {
            Self::Gateway(client, _) => {
                let page = client.get(&with(path, query)).await?;
                if page["recorded"] == false {
                    crate::commands::tell("this look was not recorded: the journal takes no ordinary records now");
                }
                let records = page["records"].as_array().cloned().unwrap_or_default();
                Ok((records, page["next_seq"].as_u64().unwrap_or_default()))
            }
            Self::Folder(folder) => {
                let found = find(&folder.view, &mut folder.reader(), query)?;
                Ok((all_shown(&found, Some(&folder.keys)), folder.view.next()))
            }
        }
    }

    pub(super) async fn stats(&self, query: &Query) -> Result<Stats, Failure> {
        match self {
            Self::Gateway(client, _) => {
                serde_json::from_value(client.get(&with("/v1/stats", query)).await?).map_err(Failure::failed)
            }
            Self::Folder(folder) => Ok(view::stats(&folder.view, query)?),
        }
    }

    pub(in crate::commands) async fn show(&self, id: &str) -> Result<Option<Shown>, Failure> {
        match self {
            Self::Gateway(client, _) => match client.get(&format!("/v1/decisions/{}", percent(id))).await {
                Ok(shown) => serde_json::from_value(shown).map(Some).map_err(Failure::failed),
                Err(failure) if failure.code == NO => Ok(None),
                Err(failure) => Err(failure),
            },
            Self::Folder(folder) => {
                let dir = folder.lock.path();
                Ok(review::show(&folder.view, &mut folder.reader(), dir, Some(&folder.keys), id)?)
            }
        }
    }

    /// What an export of that time has, and its proof.
    pub(super) async fn manifest(&self, query: &Query) -> Result<Manifest, Failure> {
        match self {
            Self::Gateway(client, _) => {
                let query = Query { since: query.since, until: query.until, ..Query::default() };
                serde_json::from_value(client.get(&with("/v1/exports", &query)).await?).map_err(Failure::failed)
            }
            Self::Folder(folder) => {
                let dir = folder.lock.path();
                let verifiers = folder.keys.verifiers()?;
                let text = std::fs::read_to_string(checkpoint::file(dir)).map_err(|e| {
                    Failure::failed(format!(
                        "`{}`: {e}: start the gateway once, which signs the log",
                        checkpoint::file(dir).display()
                    ))
                })?;
                let signed = Note::parse(&text).map_err(Into::into).and_then(|note| note.checkpoint(&verifiers));
                let signed = signed.map_err(|e| Failure::no(format!("`{}`: {e}", checkpoint::file(dir).display())))?;
                // What no gateway has looked at since a crash may be anything: the leaves have to add up to what was signed.
                let tree = TreeFiles::read_only(dir)?;
                let leaves = tree.leaves(0, signed.size.min(tree.size()))?;
                if proof::root(&mut Leaves(&leaves), signed.size) != Ok(signed.root) {
                    return Err(Failure::failed(
                        "the tree's hashes are not all there: start the gateway once, which makes them",
                    ));
                }
                let (from, to) = folder.view.span(query.since, query.until)?;
                let to = to.min(signed.size);
                let from = from.max(folder.reader().first()?).min(to);
                Ok(Manifest {
                    v: VERSION,
                    origin: signed.origin.clone(),
                    from,
                    to,
                    since: query.since,
                    until: query.until,
                    checkpoint: text,
                    verifier: verifiers.last().map(ToString::to_string).unwrap_or_default(),
                    range: proof::range(&mut Leaves(&leaves), from, to, signed.size).map_err(Failure::failed)?,
                    format: Format::Ndjson,
                })
            }
        }
    }

    /// Gives each stored record from `from` to `to` in order; without `to`, for as long as the gateway runs.
    pub(super) async fn records(
        &self,
        from: Option<u64>,
        to: Option<u64>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Folder(folder) => {
                let mut reader = folder.reader();
                for seq in from.unwrap_or(0)..to.unwrap_or_else(|| folder.view.next()) {
                    if let Some(stored) = reader.bytes(seq)? {
                        take(seq, &stored)?;
                    }
                }
                Ok(())
            }
            Self::Gateway(client, _) => {
                let follow = if to.is_none() { "follow=true" } else { "follow=false" };
                let end = to.map(|to| format!("&to={to}")).unwrap_or_default();
                let start = from.map(|from| format!("&from={from}")).unwrap_or_default();
                client
                    .lines(&format!("/v1/records?{follow}{start}{end}"), |line| {
                        let line: Line<'_> = serde_json::from_str(line).map_err(Failure::failed)?;
                        take(line.seq, line.record.get().as_bytes())
                    })
                    .await
            }
        }
    }

    /// Where the log of a running gateway can be followed.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Gateway(..))
    }

    pub(super) fn keys(&self) -> Option<&Keys> {
        match self {
            Self::Gateway(_, keys) => keys.as_ref(),
            Self::Folder(folder) => Some(&folder.keys),
        }
    }
}

#[derive(serde::Deserialize)]
struct Line<'l> {
    seq: u64,
    #[serde(borrow)]
    record: &'l serde_json::value::RawValue,
}

/// The path of a query.
fn with(path: &str, query: &Query) -> String {
    let pairs = serde_json::to_value(query).unwrap_or_default();
    let pairs = pairs.as_object().into_iter().flatten().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={}", percent(&value))
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

pub(super) fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
