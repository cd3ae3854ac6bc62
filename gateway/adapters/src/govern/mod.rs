//! What decides, and how it changes: the applied policies, the tool catalogue, the snapshot made of them. Every change is
//! recorded before it takes effect, and one is made at a time.

mod compositions;
mod modes;
mod tools;

use crate::archive;
use crate::compositions::{self as registry, Compositions};
use crate::files::write_private;
use crate::mcp::Settings;
use crate::mcp::server::Server;
use crate::policy_folder;
use crate::world::{World, now};
pub use compositions::NotRegistered;
use modes::standings_after;
pub use modes::standings_with;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;
pub use tools::{Classify, discover};
use warden_core::catalogue::Catalogue;
use warden_core::composition::idle::idle_keys;
use warden_core::composition::register::Checked;
use warden_core::journal::record::{Body, OperatorAct, PolicyChange, PolicyEvent, Record};
use warden_core::pipeline::Gate;
use warden_core::policy::Problems;
use warden_core::policy::layer::{LayerName, SourceFile, Standing, Stood, digest};
use warden_core::policy::level::{ByAction, Inbound, Levels};
use warden_core::policy::shape::AppShape;
use warden_core::policy::snapshot::{Engine, Snapshot, Source, Worker};
use warden_core::port::{Journal, JournalError, Room};

/// What a snapshot is built from besides policies and catalogue.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The data folder.
    pub data_dir: PathBuf,
    /// The operators' policy folder.
    pub policy_dir: PathBuf,
    /// The folder of the site's schema fragments; it need not be there.
    pub schema_dir: PathBuf,
    /// The file of the site's entities; it need not be there.
    pub entities_file: PathBuf,
    /// All workers.
    pub workers: Vec<Worker>,
    /// All servers.
    pub servers: BTreeMap<String, Server>,
    /// All engines, as policies speak of them.
    pub engines: Vec<Engine>,
    /// All inboxes.
    pub inboxes: Vec<String>,
    /// All apps, as policies speak of them.
    pub apps: Vec<AppShape>,
    /// What each model class stands for, as `ENGINE/MODEL`.
    pub model_classes: BTreeMap<String, Vec<String>>,
    /// Members of state documents that are the host's, beside the convention's.
    pub reserved_keys: Vec<String>,
    /// Bounds.
    pub settings: Settings,
    /// How much of decisions is written down.
    pub levels: Levels,
    /// What becomes of answers with a secret value in them.
    pub results: ByAction<Inbound>,
}

impl Setup {
    /// The model classes that stand for something.
    pub fn classes(&self) -> BTreeSet<String> {
        self.model_classes.iter().filter(|(_, models)| !models.is_empty()).map(|(class, _)| class.clone()).collect()
    }

    /// What a composition's keys name that is not there.
    pub fn idle_keys(&self, checked: &Checked, catalogue: &Catalogue) -> Vec<String> {
        let servers: Vec<&str> = self.servers.keys().map(String::as_str).collect();
        let engines: Vec<&str> = self.engines.iter().map(|engine| engine.id.as_str()).collect();
        idle_keys(checked, &servers, catalogue, &engines)
    }

    /// The operators' files with the policies of `dir`: schema fragments and entities are where they always are.
    pub fn site_with(&self, dir: &Path) -> io::Result<Vec<SourceFile>> {
        policy_folder::examples_apart(dir)?;
        let mut files = policy_folder::read(dir)?;
        files.extend(policy_folder::read_schemas(&self.schema_dir)?);
        files.extend(policy_folder::read_entities(&self.entities_file)?);
        Ok(files)
    }
}

/// See the module.
pub struct Governor {
    gate: Arc<Gate<World>>,
    setup: Setup,
    state: Mutex<State>,
    asked: Mutex<HashMap<String, Instant>>,
}

#[derive(Clone)]
struct State {
    site: Vec<SourceFile>,
    catalogue: Catalogue,
    standings: BTreeMap<String, Stood>,
    compositions: Compositions,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policies cannot be loaded; what decided before still does.
    #[error(transparent)]
    Policies(#[from] Problems),
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It could not be recorded.
    #[error("the change could not be recorded: {0}")]
    Journal(#[from] JournalError),
    /// It makes no sense now.
    #[error("{0}")]
    Refused(String),
}

/// The policy folder beside what decides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The digest of what decides.
    pub applied: String,
    /// The digest of the folder, when it differs.
    pub pending: Option<String>,
    /// Rules whose mode applying the folder would change, since they say something else now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modes: BTreeMap<String, Standing>,
    /// What keeps the folder from being applied.
    pub problems: Vec<warden_core::policy::Problem>,
    /// The policies that decide.
    pub policies: Vec<Listed>,
    /// What decisions name: the digest of the policies with the modes that operators have changed.
    #[serde(default)]
    pub policy: String,
    /// The layers and their digests, the charter first.
    #[serde(default)]
    pub layers: Vec<(String, String)>,
}

/// One policy that decides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its id, layer first.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: String,
    /// File and line.
    pub at: String,
    /// `@reason`.
    pub reason: Option<String>,
    /// `live` or `shadow`.
    #[serde(default)]
    pub mode: Standing,
}

/// Reads what decides from the data folder. At the first start that is the policy folder as it stands, kept as applied.
pub fn load(setup: &Setup) -> Result<(Source, Snapshot), Error> {
    let site = match policy_folder::applied(&setup.data_dir)? {
        Some(site) => site,
        None => {
            let site = read_site(setup)?;
            Snapshot::build(source_at_rest(setup, &site)?)?;
            policy_folder::keep_applied(&setup.data_dir, &site)?;
            site
        }
    };
    let source = source_at_rest(setup, &site)?;
    let snapshot = Snapshot::build(source.clone())?;
    Ok((source, snapshot))
}

/// The operators' files as they stand: policies, schema fragments, entities. They are applied together.
pub fn read_site(setup: &Setup) -> io::Result<Vec<SourceFile>> {
    setup.site_with(&setup.policy_dir)
}

/// The catalogue file; none is an empty one.
pub fn load_catalogue(data_dir: &Path) -> io::Result<Catalogue> {
    match read_catalogue(&data_dir.join("catalogue.json")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Catalogue::default()),
        other => other,
    }
}

/// Reads a catalogue file.
pub fn read_catalogue(path: &Path) -> io::Result<Catalogue> {
    let bytes =
        std::fs::read(path).map_err(|e| io::Error::new(e.kind(), format!("cannot read `{}`: {e}", path.display())))?;
    serde_json::from_slice(&bytes).map_err(|e| {
        io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is not a tool catalogue: {e}", path.display()))
    })
}

/// Writes the catalogue file.
pub fn save_catalogue(data_dir: &Path, catalogue: &Catalogue) -> io::Result<()> {
    write_private(&data_dir.join("catalogue.json"), &serde_json::to_vec_pretty(catalogue)?)
}

/// Everything a snapshot is built from, with the catalogue and the standings of the data folder.
pub fn source_at_rest(setup: &Setup, site: &[SourceFile]) -> io::Result<Source> {
    let compositions = registry::load(&setup.data_dir, &setup.classes())?;
    let standings = policy_folder::standings(&setup.data_dir)?;
    Ok(source(setup, site, &load_catalogue(&setup.data_dir)?, &standings, &compositions))
}

/// Everything a snapshot is built from.
pub fn source(
    setup: &Setup,
    site: &[SourceFile],
    catalogue: &Catalogue,
    standings: &BTreeMap<String, Stood>,
    compositions: &Compositions,
) -> Source {
    let trees = compositions.iter().map(|(name, registered)| (name.clone(), registered.checked.clone()));
    Source {
        site: site.to_vec(),
        trees: trees.collect(),
        compositions: BTreeMap::new(),
        model_classes: setup.model_classes.clone(),
        apps: setup.apps.clone(),
        workers: setup.workers.clone(),
        servers: setup.servers.keys().cloned().collect(),
        engines: setup.engines.clone(),
        inboxes: setup.inboxes.clone(),
        reserved_keys: setup.reserved_keys.clone(),
        catalogue: catalogue.clone(),
        levels: setup.levels.clone(),
        results: setup.results.clone(),
        standings: standings.clone(),
    }
}

impl Governor {
    /// Of a gate that serves what `source` made.
    pub fn new(gate: Arc<Gate<World>>, setup: Setup, source: Source, compositions: Compositions) -> Self {
        let Source { site, catalogue, standings, .. } = source;
        let state = Mutex::new(State { site, catalogue, standings, compositions });
        Self { gate, setup, state, asked: Mutex::default() }
    }

    /// The configuration it works with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Records that this decides from here on, and by what.
    pub async fn started(&self) -> Result<(), JournalError> {
        let snapshot = self.gate.snapshot();
        let change = self.says(PolicyEvent::Started, &snapshot);
        self.record(Body::Policy(change)).await
    }

    /// The policy folder beside what decides.
    pub async fn status(&self) -> Result<Status, Error> {
        let state = self.state.lock().await;
        let snapshot = self.gate.snapshot();
        let folder = read_site(&self.setup)?;
        let pending = (folder != state.site).then(|| digest(&folder));
        let (standings, modes) = standings_after(&folder, &state.standings);
        let modes = if pending.is_some() { modes } else { BTreeMap::new() };
        let problems = match &pending {
            Some(_) => match self.build(&State { site: folder, standings, ..state.clone() }).await {
                Err(Error::Policies(Problems(problems))) => problems,
                Err(other) => return Err(other),
                Ok(_) => Vec::new(),
            },
            None => Vec::new(),
        };
        Ok(Status {
            applied: digest(&state.site),
            modes,
            pending,
            problems,
            policies: listed(&snapshot),
            policy: snapshot.digests.policy.clone(),
            layers: layers(&snapshot),
        })
    }

    /// Makes the policy folder decide, if it still is what the operator looked at.
    pub async fn apply(&self, operator: &str, wanted: &str) -> Result<String, Error> {
        let mut state = self.state.lock().await;
        let folder = read_site(&self.setup)?;
        let now = digest(&folder);
        if !is_meant(wanted, &now) {
            return Err(Error::Refused(format!(
                "the policy folder is `{now}` now, not `{wanted}`: look at it again with `warden policy list`"
            )));
        }
        let (standings, modes) = standings_after(&folder, &state.standings);
        let next = State { site: folder, standings, ..state.clone() };
        let snapshot = self.build(&next).await?;
        self.act(operator, "policy_apply", &now).await?;
        let says = self.says(PolicyEvent::Applied, &snapshot);
        let change = PolicyChange { operator: Some(operator.to_owned()), modes, ..says };
        self.put(&mut state, next, snapshot, change).await?;
        Ok(now)
    }

    /// For `serve --watch`: applies a changed folder that loads.
    pub async fn apply_if_changed(&self) -> Result<bool, Error> {
        let mut state = self.state.lock().await;
        let folder = read_site(&self.setup)?;
        if folder == state.site {
            return Ok(false);
        }
        let (standings, modes) = standings_after(&folder, &state.standings);
        let next = State { site: folder, standings, ..state.clone() };
        let snapshot = self.build(&next).await?;
        let change = PolicyChange { modes, ..self.says(PolicyEvent::Watched, &snapshot) };
        self.put(&mut state, next, snapshot, change).await?;
        Ok(true)
    }

    /// Records an operator's act, before it takes effect.
    pub async fn act(&self, operator: &str, act: &str, object: &str) -> Result<(), JournalError> {
        let act = OperatorAct { operator: operator.into(), act: act.into(), object: object.into() };
        self.record(Body::Operator(act)).await
    }

    async fn record(&self, body: Body) -> Result<(), JournalError> {
        self.gate.ports.append(Record::new(now(), body), Room::Reserved).await.map(drop)
    }

    async fn build(&self, state: &State) -> Result<Snapshot, Error> {
        let source = source(&self.setup, &state.site, &state.catalogue, &state.standings, &state.compositions);
        // Validation takes milliseconds a policy at times; proposals go on meanwhile.
        let built = tokio::task::spawn_blocking(move || Snapshot::build(source)).await;
        Ok(built.map_err(io::Error::other)??)
    }

    /// Changes what decides, by what a server lists.
    async fn change(
        &self,
        state: &mut State,
        next: State,
        event: PolicyEvent,
        tools: Vec<String>,
    ) -> Result<(), Error> {
        let snapshot = self.build(&next).await?;
        let says = self.says(event, &snapshot);
        self.put(state, next, snapshot, PolicyChange { tools, ..says }).await
    }

    /// The same by an operator. What cannot be built is not recorded as done.
    async fn change_by(
        &self,
        state: &mut State,
        next: State,
        event: PolicyEvent,
        (operator, (act, object)): (&str, (&str, String)),
        tools: Vec<String>,
    ) -> Result<(), Error> {
        let snapshot = self.build(&next).await?;
        self.act(operator, act, &object).await?;
        let says = self.says(event, &snapshot);
        self.put(state, next, snapshot, PolicyChange { operator: Some(operator.to_owned()), tools, ..says }).await
    }

    /// What a record says of a snapshot.
    fn says(&self, event: PolicyEvent, snapshot: &Snapshot) -> PolicyChange {
        PolicyChange {
            event,
            digests: (*snapshot.digests).clone(),
            operator: None,
            tools: Vec::new(),
            modes: BTreeMap::new(),
            shadow: self.gate.is_in_shadow(),
        }
    }

    /// Writes what a restart reads.
    fn write(&self, state: &State, next: &State) -> io::Result<()> {
        let dir = &self.setup.data_dir;
        // Standings first: one that nothing fits says nothing.
        if next.standings != state.standings {
            policy_folder::keep_standings(dir, &next.standings)?;
        }
        if next.catalogue != state.catalogue {
            save_catalogue(dir, &next.catalogue)?;
        }
        if next.site != state.site {
            policy_folder::keep_applied(dir, &next.site)?;
        }
        for (name, registered) in &next.compositions {
            if !state.compositions.contains_key(name) {
                registry::keep(dir, name, registered)?;
            }
        }
        Ok(())
    }

    /// Kept, recorded, written, in force: in this order.
    async fn put(&self, state: &mut State, next: State, snapshot: Snapshot, change: PolicyChange) -> Result<(), Error> {
        let event = change.event;
        let source = source(&self.setup, &next.site, &next.catalogue, &next.standings, &next.compositions);
        archive::keep(&self.setup.data_dir, &snapshot, &source)?;
        self.record(Body::Policy(change)).await?;
        if let Err(e) = self.write(state, &next) {
            // What decided before still does, here and after a restart: the record before this one says otherwise.
            let kept = self.says(PolicyEvent::Kept, &self.gate.snapshot());
            self.record(Body::Policy(kept)).await?;
            return Err(e.into());
        }
        if let Err(e) = write_schema(&self.setup.data_dir, &snapshot) {
            tracing::warn!(error = %e, "the schema for editors cannot be written");
        }
        tracing::info!(?event, policy = snapshot.digests.policy, "a new policy snapshot decides");
        self.gate.serve(snapshot);
        *state = next;
        Ok(())
    }
}

/// Leaves the generated schema where authors and their editors find it.
pub fn write_schema(data_dir: &Path, snapshot: &Snapshot) -> io::Result<()> {
    write_private(&data_dir.join("warden.cedarschema"), snapshot.schema_text().as_bytes())
}

/// The layers of a snapshot by name, with their digests.
pub fn layers(snapshot: &Snapshot) -> Vec<(String, String)> {
    let name = |name: LayerName| name.prefix().trim_end_matches('/').to_owned();
    snapshot.layers.iter().map(|layer| (name(layer.name), layer.digest.clone())).collect()
}

/// The policies of a snapshot, layer by layer.
pub fn listed(snapshot: &Snapshot) -> Vec<Listed> {
    let rules = snapshot.layers.iter().flat_map(|layer| &layer.rules);
    rules
        .map(|rule| Listed {
            id: rule.policy.id().to_string(),
            effect: rule.policy.effect().to_string(),
            at: format!("{}:{}", rule.file, rule.line),
            reason: rule.reason.clone(),
            mode: rule.standing,
        })
        .collect()
}

/// Hex digits of a digest.
const DIGITS_MIN: usize = 32;

/// Whether somebody means this digest. Half of its digits are enough, and no fewer: whoever makes two texts until their digests begin alike
/// would have one looked at and the other taken.
fn is_meant(said: &str, digest: &str) -> bool {
    let digits = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    let said = digits(said);
    said.len() >= DIGITS_MIN && digits(digest).starts_with(&said)
}

#[cfg(test)]
mod tests {
    use super::is_meant;

    #[test]
    fn a_digest_is_meant_by_half_of_its_digits_at_least() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert!([&digest, &digest[..39], &digest[7..39]].iter().all(|said| is_meant(said, &digest)));
        let other = format!("1{}", &digest[8..]);
        assert!(
            ![&digest[..38], "sha256:0", "sha256:", "01234567", other.as_str(), ""]
                .iter()
                .any(|said| is_meant(said, &digest))
        );
    }
}
