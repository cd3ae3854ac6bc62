//! A policy folder on the desk: its files, with the workers, servers and tools that they speak about.

use crate::cli::{Desk as Args, Global};
use crate::config::Config;
use crate::exit::Failure;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use warden_adapters::{govern, policy_folder};
use warden_core::catalogue::Catalogue;
use warden_core::policy::Problems;
use warden_core::policy::layer::SourceFile;
use warden_core::policy::load::{self, Loaded};
use warden_core::policy::snapshot::{Snapshot, Source, Worker};

/// See the module.
pub(super) struct Desk {
    /// The folder.
    pub(super) dir: PathBuf,
    /// Everything a snapshot is built from.
    pub(super) source: Source,
    /// The configuration, where there is one.
    pub(super) config: Option<Config>,
    /// Another charter to try out.
    pub(super) charter: Option<Vec<SourceFile>>,
}

/// Which tool catalogue goes first, where there are two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefer {
    /// That of the data folder: the tools as they are.
    Live,
    /// `cases/catalogue.json`: the tools that the cases were written for.
    Pinned,
}

impl Desk {
    /// Opens `args.dir`, or the configuration's policy folder.
    ///
    /// With a configuration, its workers, servers, schema fragments and entities are used. Without one the folder has to
    /// speak for itself: `cases/workers.json` (`{"NAME": ["GROUP", …]}`) and `cases/catalogue.json`.
    pub(super) fn open(global: &Global, args: &Args, prefer: Prefer) -> Result<Self, Failure> {
        let config = match (&args.dir, global.config.exists()) {
            // Only the default may be absent.
            (Some(_), false) if global.config == Path::new("warden.yaml") => None,
            _ => Some(super::config(global)?),
        };
        let dir = match (&args.dir, &config) {
            (Some(dir), _) => dir.clone(),
            (None, Some(config)) => config.setup.policy_dir.clone(),
            (None, None) => return Err(Failure::invalid("no policy folder")),
        };
        if !dir.is_dir() {
            return Err(Failure::invalid(format!("`{}` is no folder", dir.display())));
        }
        let catalogue = catalogue(args, &dir, config.as_ref(), prefer)?;
        let source = match &config {
            Some(config) => {
                let site = config.setup.site_with(&dir)?;
                let standings = policy_folder::standings(&config.setup.data_dir)?;
                govern::source(&config.setup, &site, &catalogue, &standings, &config.compositions()?)
            }
            None => Source {
                site: files(&dir)?,
                workers: workers(&dir)?,
                servers: catalogue.servers.keys().cloned().collect(),
                catalogue,
                ..Source::default()
            },
        };
        let charter = args.charter.as_deref().map(charter).transpose()?;
        Ok(Self { dir, source, config, charter })
    }

    /// The same with the files of another folder.
    pub(super) fn with_folder(&self, dir: &Path) -> Result<Source, Failure> {
        if !dir.is_dir() {
            return Err(Failure::invalid(format!("`{}` is no folder", dir.display())));
        }
        let site = match &self.config {
            Some(config) => config.setup.site_with(dir)?,
            None => files(dir)?,
        };
        Ok(Source { site, ..self.source.clone() })
    }

    /// What would decide with these policies.
    pub(super) fn snapshot(&self, source: Source) -> Result<Snapshot, Problems> {
        match &self.charter {
            None => Snapshot::build(source),
            Some(charter) => Snapshot::on_trial(source, charter),
        }
    }

    /// What would decide, without a look at what it would allow.
    pub(super) fn on_trial(&self) -> Result<Snapshot, Problems> {
        Snapshot::on_trial(self.source.clone(), &self.charter.clone().unwrap_or_else(load::charter))
    }

    /// The policies, read and checked, and nothing prepared from them.
    pub(super) fn loaded(&self, source: &Source) -> Result<Loaded, Problems> {
        match &self.charter {
            None => Loaded::new(source),
            Some(charter) => Loaded::with_charter(source, charter),
        }
    }

    /// The folder of cases.
    pub(super) fn cases(&self) -> PathBuf {
        self.dir.join("cases")
    }
}

/// The policy files of a folder that stands by itself.
fn files(dir: &Path) -> Result<Vec<SourceFile>, Failure> {
    let mut files = policy_folder::read(dir)?;
    files.extend(policy_folder::read_schemas(&dir.join("schemas"))?);
    files.extend(policy_folder::read_entities(&dir.join("entities.json"))?);
    Ok(files)
}

/// The files of a charter.
fn charter(dir: &Path) -> Result<Vec<SourceFile>, Failure> {
    let files = policy_folder::read(dir)?;
    if files.is_empty() {
        return Err(Failure::invalid(format!("`{}` holds no .cedar file", dir.display())));
    }
    Ok(files)
}

fn catalogue(args: &Args, dir: &Path, config: Option<&Config>, prefer: Prefer) -> Result<Catalogue, Failure> {
    if let Some(file) = &args.catalogue {
        return Ok(govern::read_catalogue(file)?);
    }
    let live = match config {
        Some(config) => govern::load_catalogue(&config.setup.data_dir)?,
        None => Catalogue::default(),
    };
    let pinned = dir.join("cases/catalogue.json");
    match pinned.is_file() && (prefer == Prefer::Pinned || live.servers.is_empty()) {
        true => Ok(govern::read_catalogue(&pinned)?),
        false => Ok(live),
    }
}

fn workers(dir: &Path) -> Result<Vec<Worker>, Failure> {
    let file = dir.join("cases/workers.json");
    let text = match std::fs::read_to_string(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let all: BTreeMap<String, Vec<String>> = serde_json::from_str(&text)
        .map_err(|e| Failure::invalid(format!("`{}`: {e}; it is {{\"WORKER\": [\"GROUP\", …]}}", file.display())))?;
    Ok(all.into_iter().map(|(name, groups)| Worker { name, groups, composition: None, owner: None }).collect())
}
