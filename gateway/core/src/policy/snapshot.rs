//! A policy snapshot: everything a verdict needs, prepared once. One snapshot serves a proposal from its first to its
//! last evaluation.

use super::case::Bound;
pub use super::case::{Case, NoCase, Record};
use super::compile;
use super::context::Shape;
use super::entities::{entities, uid, with_site_entities, worker_lineage};
use super::layer::{Layer, Rule, SourceFile, Standing, Stood};
use super::level::{ByAction, Inbound, Level, Levels};
use super::load::Loaded;
use super::reads::Reads;
use super::shape::AppShape;
use super::site::SiteSchema;
use super::slice::{Index, Lineage, Slice};
use super::targets::{Targets, targets};
use super::{Problem, Problems, probe};
use crate::catalogue::authority::Marks;
use crate::catalogue::ty::Ty;
use crate::catalogue::{Catalogue, HeaderParam, Tool, sha256_hex};
use crate::composition::register::Checked;
use crate::facts::Facts;
use crate::proposal::{Verb, is_within};
use cedar_policy::{Context, Entities, EntityUid, PolicyId, Request, Schema};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A worker that policies can speak about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// The groups it is in.
    pub groups: Vec<String>,
    /// The composition it is bound to, if any: `SLUG@VERSION`.
    pub composition: Option<String>,
    /// The person whose it is: nobody acknowledges for oneself.
    pub owner: Option<String>,
}

/// An engine that policies can speak about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Its id.
    pub id: String,
    /// What it is: `openai`, `anthropic`, `gemini`, `openrouter`, `llm-connect` or `claude-code`.
    pub kind: String,
    /// Where it is, in an operator's words; empty when nobody said.
    pub zone: String,
}

/// What a snapshot is built from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The operators' files: policies, schema fragments, entities.
    pub site: Vec<SourceFile>,
    /// The registered compositions that workers are bound to, by `SLUG@VERSION`.
    pub trees: BTreeMap<String, Arc<Checked>>,
    /// The policies of compositions, by name. Those of [`Self::trees`] are made of these at each build.
    pub compositions: BTreeMap<String, Vec<SourceFile>>,
    /// The engines and models of each class, as `ENGINE/MODEL` with `*`: what a composition's strategy may use.
    pub model_classes: BTreeMap<String, Vec<String>>,
    /// All declared apps.
    pub apps: Vec<AppShape>,
    /// All workers.
    pub workers: Vec<Worker>,
    /// All servers.
    pub servers: Vec<String>,
    /// All engines.
    pub engines: Vec<Engine>,
    /// All inboxes: the agents whose messages a worker handles.
    pub inboxes: Vec<String>,
    /// Members of state documents that belong to the host, beside the convention's.
    pub reserved_keys: Vec<String>,
    /// All known tools.
    pub catalogue: Catalogue,
    /// How much is written down.
    pub levels: Levels,
    /// What becomes of answers with a secret value in them.
    pub results: ByAction<Inbound>,
    /// What operators have said of the standing of site rules, by `@id`.
    pub standings: BTreeMap<String, Stood>,
}

/// What a snapshot was made of, for the record. Each is `sha256:` and hex.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// The compiled-in charter.
    pub charter: String,
    /// The site's policy files.
    pub policy: String,
    /// The generated schema.
    pub schema: String,
    /// The tool catalogue.
    pub catalogue: String,
}

/// An action on a resource, with what it takes to ask about it.
#[derive(Debug)]
pub struct Target {
    /// The action.
    pub action: EntityUid,
    /// The resource.
    pub resource: EntityUid,
    /// The resource's attributes and parents, for the record.
    pub resource_record: Arc<serde_json::Value>,
    /// The type of the arguments.
    pub input: Ty,
    /// Arguments marked as paths.
    pub paths: Vec<String>,
    /// Arguments that a modern client repeats in headers.
    pub header_params: Vec<HeaderParam>,
    /// How much of a decision about it is written down.
    pub level: Level,
    /// What becomes of an answer with a secret value in it.
    pub inbound: Inbound,
    pub(super) action_lineage: Vec<EntityUid>,
    pub(super) resource_parents: Vec<EntityUid>,
}

/// See the module.
pub struct Snapshot {
    schema: Schema,
    /// For requests that hold no more of a session than is read; none without apps.
    least_schema: Option<Schema>,
    pub(super) entities: Entities,
    pub(super) targets: Targets,
    /// By worker.
    owners: HashMap<String, String>,
    pub(super) site: Site,
    pub(super) workers: HashMap<String, Bound>,
    rules: HashMap<PolicyId, Rule>,
    shape: Shape,
    nodes_of: BTreeMap<String, Vec<String>>,
    /// By server and tool.
    marks: HashMap<String, HashMap<String, Marks>>,
    no_marks: Marks,
    catalogue: Catalogue,
    schema_text: String,
    /// What it was made of.
    pub digests: Arc<Digests>,
    /// The full layers, as the oracle of tests and for `policy list`.
    pub layers: Vec<Layer>,
}

/// The actions of the site's own schema, and the policies that can matter for them. Who does them to what is not known
/// before it is asked.
pub(super) struct Site {
    /// Of its actions and their groups.
    pub(super) names: HashSet<String>,
    pub(super) actions: HashMap<String, SiteTarget>,
    pub(super) index: Index,
}

pub(super) struct SiteTarget {
    pub(super) target: Target,
    pub(super) principals: Vec<String>,
    pub(super) resources: Vec<String>,
}

pub(super) struct Server {
    pub(super) tools: HashMap<String, usize>,
    pub(super) unlisted: usize,
    pub(super) verbs: HashMap<Verb, usize>,
}

#[derive(Clone, Copy)]
pub(super) struct EngineTargets {
    pub(super) call: usize,
    pub(super) tool_call: usize,
}

impl Snapshot {
    /// Loads, validates and prepares everything, and refuses what allows a known-forbidden probe.
    pub fn build(source: Source) -> Result<Self, Problems> {
        let source = compile::with_nodes(source);
        let loaded = Loaded::new(&source)?;
        let snapshot = Self::prepare(source, loaded)?;
        probe::run(&snapshot)?;
        Ok(snapshot)
    }

    /// The same under another charter and without probes: to try things out, never to serve.
    pub fn on_trial(source: Source, charter: &[SourceFile]) -> Result<Self, Problems> {
        let source = compile::with_nodes(source);
        let loaded = Loaded::with_charter(&source, charter)?;
        Self::prepare(source, loaded)
    }

    fn prepare(source: Source, loaded: Loaded) -> Result<Self, Problems> {
        let general = |message: String| Problems(vec![Problem::general(message)]);
        let Loaded {
            charter,
            site,
            compositions,
            site_schema,
            schema,
            least_schema,
            schema_text,
            schema_digest,
            standings,
        } = loaded;
        let mut targets = targets(&source).map_err(general)?;
        settings_known(&source, &targets.all, &site_schema)?;
        targets.all.iter_mut().chain([&mut targets.acknowledge]).for_each(|target| target.set(&source));
        let entities = entities(&source.workers, &targets.all, &schema).map_err(general)?;
        let entities = with_site_entities(entities, &source.site, &site_schema, &schema)?;
        let unpreparable = |e: super::slice::Unpreparable| general(format!("policy `{}` cannot be prepared", e.0));
        let plain = Index::new(&[&charter, &site]).map_err(unpreparable)?;
        let mut bound = BTreeMap::new();
        for (name, layer) in &compositions {
            bound.insert(name.clone(), plain.with(layer).map_err(unpreparable)?);
        }
        let nodes_of = compile::nodes(&source);
        let asked: Vec<(&Target, Lineage, Lineage)> = targets.all.iter().map(Target::with_lineages).collect();
        let mut workers = HashMap::new();
        for worker in &source.workers {
            let index = match &worker.composition {
                None => Some(&plain),
                Some(name) => bound.get(name),
            };
            let lineage = worker_lineage(worker).map_err(general)?;
            let slices = index.map(|index| slices_of(index, &lineage, &asked));
            let in_tree = worker.name.contains('/') || nodes_of.contains_key(&worker.name);
            let of_site = in_tree.then(|| slices_of(&plain, &lineage, &asked));
            let uid = uid("Worker", &worker.name).map_err(general)?;
            let record = Arc::new(serde_json::json!({ "type": "Worker", "id": worker.name, "parents": worker.groups }));
            workers.insert(
                worker.name.clone(),
                Bound { uid, record, slices, of_site, composition: worker.composition.clone() },
            );
        }
        let digests = Arc::new(Digests {
            charter: charter.digest.clone(),
            policy: policy_digest(&site, &compositions, &standings),
            schema: schema_digest,
            catalogue: source.catalogue.digest(),
        });
        let layers: Vec<Layer> = [charter, site].into_iter().chain(compositions.into_values()).collect();
        let rules = layers.iter().flat_map(|l| &l.rules).map(|r| (r.policy.id().clone(), r.clone())).collect();
        let shape = Shape::of(&source.apps).map_err(general)?;
        let snapshot = Self {
            schema,
            least_schema,
            entities,
            targets,
            owners: source.workers.iter().filter_map(|w| Some((w.name.clone(), w.owner.clone()?))).collect(),
            site: Site {
                names: site_schema.actions.keys().cloned().collect(),
                actions: site_targets(site_schema, &source).map_err(general)?,
                index: plain,
            },
            workers,
            rules,
            shape,
            nodes_of,
            marks: marks(&source.catalogue),
            no_marks: Marks::default(),
            catalogue: source.catalogue,
            schema_text,
            digests,
            layers,
        };
        Ok(snapshot)
    }

    /// Whether an operator is a worker itself, or its parent, or the owner of one of these.
    pub fn is_own(&self, operator: &str, worker: &str) -> bool {
        let same = |name: &str| name.eq_ignore_ascii_case(operator);
        // `a/b/c` is a node of `a/b`, and that of `a`.
        let ends = worker.match_indices('/').map(|(at, _)| at).chain([worker.len()]);
        ends.map(|end| &worker[..end]).any(|name| same(name) || self.owners.get(name).is_some_and(|owner| same(owner)))
    }

    /// Whether an action is one of the site's own, or a group of them.
    pub fn is_sites_own(&self, action: &EntityUid) -> bool {
        self.site.names.contains(action.id().unescaped())
    }

    /// The tools and verbs that the decision door knows beside the site's own actions.
    pub fn has_server(&self, server: &str) -> bool {
        self.targets.servers.contains_key(server)
    }

    /// Whether any engine is configured.
    pub fn has_engines(&self) -> bool {
        !self.targets.engines.is_empty()
    }

    /// Whether any app is configured.
    pub fn has_apps(&self) -> bool {
        !self.targets.apps.is_empty()
    }

    /// Whether any worker is bound to a composition with nodes.
    pub fn has_nodes(&self) -> bool {
        !self.targets.nodes.is_empty()
    }

    /// Whether policies can speak of a worker, or of a node.
    pub fn is_known(&self, worker: &str) -> bool {
        self.workers.contains_key(worker)
    }

    /// The nodes below a worker, by whole name.
    pub fn nodes_of(&self, worker: &str) -> &[String] {
        self.nodes_of.get(worker).map_or(&[], Vec::as_slice)
    }

    /// Whether any inbox is configured.
    pub fn has_inboxes(&self) -> bool {
        !self.targets.inboxes.is_empty()
    }

    /// The request that the facts make, validated against the schema. A failure means that facts and schema differ.
    pub fn request(&self, case: &Case<'_>, facts: &Facts) -> Result<Request, String> {
        self.ask(case, self.shape.context(facts, &Reads::whole())?, &self.schema)
    }

    /// The same with no more in it than the policies of a slice read. What they read and is not there is an error, and so a deny.
    pub fn least_request(&self, case: &Case<'_>, slice: &Slice, facts: &Facts) -> Result<Request, String> {
        let schema = self.least_schema.as_ref().unwrap_or(&self.schema);
        self.ask(case, self.shape.context(facts, &slice.reads)?, schema)
    }

    fn ask(&self, case: &Case<'_>, context: Context, schema: &Schema) -> Result<Request, String> {
        let (principal, resource) = (case.principal.clone().into_owned(), case.resource.clone().into_owned());
        let action = case.target.action.clone();
        Request::new(principal, action, resource, context, Some(schema)).map_err(|e| e.to_string())
    }

    /// The entities, shared by all requests.
    pub fn entities(&self) -> &Entities {
        &self.entities
    }

    /// The rule behind a policy id.
    pub fn rule(&self, id: &PolicyId) -> Option<&Rule> {
        self.rules.get(id)
    }

    /// The arguments of a catalogued tool that a modern client repeats in headers.
    pub fn header_params(&self, server: &str, tool: &str) -> &[HeaderParam] {
        let number = self.targets.servers.get(server).and_then(|server| server.tools.get(tool));
        number.map_or(&[], |number| &self.targets.all[*number].header_params)
    }

    /// The arguments of a tool that carry authority. Of one that is not catalogued only their names are known.
    pub fn marks(&self, server: &str, tool: &str) -> &Marks {
        self.marks.get(server).and_then(|tools| tools.get(tool)).unwrap_or(&self.no_marks)
    }

    /// The catalogue it was built with.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The generated schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The composition a worker is bound to.
    pub fn composition(&self, worker: &str) -> Option<&str> {
        self.workers.get(worker)?.composition.as_deref()
    }

    /// The rules that decide, layer by layer.
    pub fn live_rules(&self) -> impl Iterator<Item = &Rule> {
        self.layers.iter().flat_map(|layer| &layer.rules).filter(|rule| rule.standing == Standing::Live)
    }

    /// The workers, sorted.
    pub fn workers(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.workers.keys().map(String::as_str).collect();
        all.sort_unstable();
        all
    }

    /// The generated schema in Cedar's text form, for authors and their editors.
    pub fn schema_text(&self) -> &str {
        &self.schema_text
    }
}

impl Target {
    fn with_lineages(&self) -> (&Self, Lineage, Lineage) {
        let action = Lineage::new(self.action.clone(), self.action_lineage.iter().cloned());
        let resource = Lineage::new(self.resource.clone(), self.resource_parents.iter().cloned());
        (self, action, resource)
    }

    /// Whether a worker can be asked about with it: of nodes only those below it.
    pub(super) fn is_for(&self, worker: &str) -> bool {
        let node = self.resource.id().unescaped();
        self.action.id().unescaped() != Verb::StartDelegate.action() || (node != worker && is_within(node, worker))
    }

    /// What operators have set for it.
    fn set(&mut self, source: &Source) {
        // Tools are in their server's group and in `call_tool`; the narrower one comes first.
        let mut groups: Vec<&str> = self.action_lineage.iter().map(|group| group.id().as_ref()).collect();
        groups.sort_by_key(|group| (!group.contains('/'), *group == "effect"));
        let action = self.action.id().as_ref();
        let (level, inbound) =
            (source.levels.of(action, groups.iter().copied()), source.results.of(action, groups.iter().copied()));
        (self.level, self.inbound) = (level, inbound);
    }
}

fn marks(catalogue: &Catalogue) -> HashMap<String, HashMap<String, Marks>> {
    let tools =
        |tools: &BTreeMap<String, Tool>| tools.iter().map(|(name, tool)| (name.clone(), tool.marks())).collect();
    catalogue.servers.iter().map(|(server, of)| (server.clone(), tools(of))).collect()
}

/// The policies that can matter for one worker, by target.
fn slices_of(index: &Index, worker: &Lineage, targets: &[(&Target, Lineage, Lineage)]) -> Vec<Arc<Slice>> {
    let nobodys = Lineage::new(worker.uid().clone(), []);
    let nothing = index.slice(&nobodys, &nobodys, &nobodys);
    let name = worker.uid().id().unescaped();
    let of = |(target, action, resource): &(&Target, Lineage, Lineage)| match target.is_for(name) {
        true => index.slice(worker, action, resource),
        false => Arc::clone(&nothing),
    };
    targets.iter().map(of).collect()
}

fn policy_digest(
    site: &Layer,
    compositions: &BTreeMap<String, Layer>,
    standings: &BTreeMap<String, Standing>,
) -> String {
    if compositions.is_empty() && standings.is_empty() {
        return site.digest.clone();
    }
    let all: BTreeMap<&str, &str> = std::iter::once(("site", site.digest.as_str()))
        .chain(compositions.iter().map(|(name, layer)| (name.as_str(), layer.digest.as_str())))
        .collect();
    sha256_hex(serde_json::json!([all, standings]).to_string().as_bytes())
}

/// A setting for an action that is not there would be one that nobody gets.
fn settings_known(source: &Source, targets: &[Target], site: &SiteSchema) -> Result<(), Problems> {
    let known = |name: &str| {
        let own = |uid: &EntityUid| uid.id().unescaped() == name;
        // A tool may be listed later; its server is configured.
        let server = name.split_once('/').is_some_and(|(server, _)| source.servers.iter().any(|known| known == server));
        let site =
            site.actions.iter().any(|(action, declared)| action == name || declared.groups.iter().any(|g| g == name));
        let verb = Verb::ALL.iter().any(|verb| verb.action() == name);
        let group = ["call_tool", "effect", "server_request", "protocol", "govern"].contains(&name);
        server || site || verb || group || targets.iter().any(|target| own(&target.action))
    };
    let unknown = source.levels.unknown(known).map(|name| ("journal.levels", name));
    match unknown.or_else(|| source.results.unknown(known).map(|name| ("secrets.results", name))) {
        None => Ok(()),
        Some((place, name)) => {
            let message = format!("{place}: `{}` is no action and no group of actions", name.escape_debug());
            let help = "use `SERVER/TOOL`, `SERVER/*`, `call_tool`, `server_request`, an action such as `read_resource`, or `*`";
            let problem = Problem::general(message);
            Err(Problems(vec![Problem { file: "warden.yaml".into(), help: Some(help.into()), ..problem }]))
        }
    }
}

fn site_targets(site: SiteSchema, source: &Source) -> Result<HashMap<String, SiteTarget>, String> {
    let mut all = HashMap::new();
    let groups: BTreeMap<String, Vec<String>> =
        site.actions.iter().map(|(name, action)| (name.clone(), action.groups.clone())).collect();
    for (name, action) in site.actions {
        if action.principals.is_empty() {
            continue;
        }
        let mut target = Target {
            action: uid("Action", &name)?,
            // Only cases have one.
            resource: uid("Action", &name)?,
            resource_record: Arc::new(serde_json::Value::Null),
            input: action.input,
            paths: Vec::new(),
            header_params: Vec::new(),
            level: Level::default(),
            inbound: Inbound::default(),
            action_lineage: ancestors(&name, &groups).iter().map(|g| uid("Action", g)).collect::<Result<_, _>>()?,
            resource_parents: Vec::new(),
        };
        target.set(source);
        all.insert(name, SiteTarget { target, principals: action.principals, resources: action.resources });
    }
    Ok(all)
}

/// All groups an action is in, groups of groups included.
fn ancestors(name: &str, groups: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let (mut all, mut next) = (BTreeSet::new(), groups.get(name).cloned().unwrap_or_default());
    while let Some(group) = next.pop() {
        if all.insert(group.clone()) {
            next.extend(groups.get(&group).cloned().unwrap_or_default());
        }
    }
    all
}
