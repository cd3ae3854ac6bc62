//! A policy snapshot: everything a verdict needs, prepared once. One snapshot serves a proposal from its first to its
//! last evaluation.

use super::compile;
use super::context::Shape;
use super::layer::{Layer, Rule, SourceFile, Standing, Stood};
use super::level::{ByAction, Inbound, Level, Levels};
use super::load::Loaded;
use super::shape::AppShape;
use super::site::{self, SiteSchema};
use super::slice::{Index, Lineage, Slice};
use super::targets::{Targets, targets};
use super::{Problem, Problems, probe};
use crate::catalogue::authority::Marks;
use crate::catalogue::ty::Ty;
use crate::catalogue::{Catalogue, HeaderParam, Tool, sha256_hex};
use crate::composition::register::Checked;
use crate::facts::Facts;
use crate::proposal::{AcknowledgeAsk, Ask, EntityName, SiteAsk, Verb, is_within};
use cedar_policy::{
    Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId, Request, RestrictedExpression as Expression,
    Schema,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
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
    entities: Entities,
    targets: Vec<Target>,
    servers: HashMap<String, Server>,
    engines: HashMap<String, EngineTargets>,
    /// By member; the one of all others under the empty name.
    state: HashMap<String, usize>,
    inboxes: HashMap<String, HashMap<Verb, usize>>,
    operate: usize,
    /// By name.
    apps: HashMap<String, usize>,
    /// By whole name.
    nodes: HashMap<String, usize>,
    acknowledge: Target,
    /// By worker.
    owners: HashMap<String, String>,
    site: Site,
    workers: HashMap<String, Bound>,
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
struct Site {
    /// Of its actions and their groups.
    names: HashSet<String>,
    actions: HashMap<String, SiteTarget>,
    index: Index,
}

struct SiteTarget {
    target: Target,
    principals: Vec<String>,
    resources: Vec<String>,
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

struct Bound {
    uid: EntityUid,
    record: Arc<serde_json::Value>,
    /// By target; none when the worker's composition cannot be resolved.
    slices: Option<Vec<Arc<Slice>>>,
    /// The same without a composition, for nodes and what they come from.
    of_site: Option<Vec<Arc<Slice>>>,
    composition: Option<String>,
}

/// What a verdict is asked about: one worker, one target, found in the snapshot.
#[derive(Clone)]
pub struct Case<'s> {
    /// Who.
    pub principal: Cow<'s, EntityUid>,
    /// Who, for the record.
    pub principal_record: Record<'s>,
    /// The action, with the type of its arguments.
    pub target: &'s Target,
    /// What it is done to.
    pub resource: Cow<'s, EntityUid>,
    /// That, for the record.
    pub resource_record: Record<'s>,
    /// The policies that can matter; none when the worker's composition cannot be resolved.
    pub slice: Option<Arc<Slice>>,
    /// Whether a composition permit is needed as well.
    pub in_composition: bool,
    /// The target's place among the snapshot's; none of a site's own action.
    pub(super) number: Option<usize>,
}

/// An entity for the record.
#[derive(Clone)]
pub enum Record<'s> {
    /// Of the configuration and the catalogue.
    Known(&'s Arc<serde_json::Value>),
    /// As a caller named it, which may hold anything.
    Named(serde_json::Value),
}

impl Record<'_> {
    /// The value.
    pub fn value(&self) -> &serde_json::Value {
        match self {
            Record::Known(value) => value,
            Record::Named(value) => value,
        }
    }
}

/// Why there is no such case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCase {
    /// No such worker.
    Worker,
    /// No such server.
    Server,
    /// No such engine.
    Engine,
    /// No such inbox.
    Inbox,
    /// No such app.
    App,
    /// No such node, or none of the worker's own.
    Node,
    /// No such action.
    Action,
    /// The action is not for entities of these types.
    Type,
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
        let Loaded { charter, site, compositions, site_schema, schema, schema_text, schema_digest, standings } = loaded;
        let Targets { mut targets, servers, engines, state, inboxes, operate, apps, nodes, mut acknowledge } =
            targets(&source).map_err(general)?;
        settings_known(&source, &targets, &site_schema)?;
        targets.iter_mut().for_each(|target| target.set(&source));
        acknowledge.set(&source);
        let entities = entities(&source.workers, &targets, &schema).map_err(general)?;
        let entities = with_site_entities(entities, &source.site, &site_schema, &schema)?;
        let unpreparable = |e: super::slice::Unpreparable| general(format!("policy `{}` cannot be prepared", e.0));
        let plain = Index::new(&[&charter, &site]).map_err(unpreparable)?;
        let mut bound = BTreeMap::new();
        for (name, layer) in &compositions {
            bound.insert(name.clone(), plain.with(layer).map_err(unpreparable)?);
        }
        let nodes_of = compile::nodes(&source);
        let mut workers = HashMap::new();
        for worker in &source.workers {
            let index = match &worker.composition {
                None => Some(&plain),
                Some(name) => bound.get(name),
            };
            let lineage = worker_lineage(worker).map_err(general)?;
            let slices = index.map(|index| slices_of(index, &lineage, &targets));
            let in_tree = worker.name.contains('/') || nodes_of.contains_key(&worker.name);
            let of_site = in_tree.then(|| slices_of(&plain, &lineage, &targets));
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
            entities,
            targets,
            servers,
            engines,
            state,
            inboxes,
            operate,
            apps,
            nodes,
            acknowledge,
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

    /// Finds the worker and the target of what is asked. A tool that is not catalogued is `call_tool/unlisted`.
    pub fn case(&self, worker: &str, server: &str, ask: &Ask) -> Result<Case<'_>, NoCase> {
        if let Ask::Acknowledge(ask) = ask {
            return self.acknowledge_case(ask);
        }
        let bound = self.workers.get(worker).ok_or(NoCase::Worker)?;
        let number = match ask {
            Ask::Site(ask) => return self.site_case(bound, ask),
            Ask::Verb(Verb::Operate) => self.operate,
            Ask::Engine(ask) => {
                let engine = self.engines.get(&ask.engine).ok_or(NoCase::Engine)?;
                match ask.verb {
                    Verb::CallEngine => engine.call,
                    Verb::ProposeToolCall => engine.tool_call,
                    _ => return Err(NoCase::Action),
                }
            }
            Ask::Inbox { inbox, verb } => {
                let verbs = self.inboxes.get(inbox).ok_or(NoCase::Inbox)?;
                *verbs.get(verb).ok_or(NoCase::Action)?
            }
            Ask::Session { app, .. } => *self.apps.get(app).ok_or(NoCase::App)?,
            Ask::Delegate { node } => {
                // Whose a node is stands in its name.
                let below = node != worker && is_within(node, worker);
                *self.nodes.get(node).filter(|_| below).ok_or(NoCase::Node)?
            }
            Ask::State { key } => *self.state.get(key).or_else(|| self.state.get("")).ok_or(NoCase::Action)?,
            ask => {
                let server = self.servers.get(server).ok_or(NoCase::Server)?;
                match ask {
                    Ask::Tool { name } => *server.tools.get(name).unwrap_or(&server.unlisted),
                    Ask::Verb(verb) => *server.verbs.get(verb).ok_or(NoCase::Action)?,
                    Ask::Engine(_)
                    | Ask::State { .. }
                    | Ask::Inbox { .. }
                    | Ask::Session { .. }
                    | Ask::Delegate { .. }
                    | Ask::Acknowledge(_)
                    | Ask::Site(_)
                    | Ask::Unknown => return Err(NoCase::Action),
                }
            }
        };
        Ok(bound.case(&self.targets[number], number))
    }

    /// The same asked by everything above a node, the nearest first, of the charter and the site alone: a node never does what these keep
    /// from what it comes from. The composition layer of a node bounds it by itself, and lets it have another model. Nothing for a worker
    /// that is no node.
    pub fn above<'s>(&'s self, case: &Case<'s>) -> impl Iterator<Item = Option<Case<'s>>> {
        let name = case.principal.id().unescaped();
        let ends: Vec<usize> = match case.principal.type_name().to_string().as_str() {
            "Worker" => name.match_indices('/').map(|(at, _)| at).collect(),
            _ => Vec::new(),
        };
        let own = self.workers.get(name);
        let (target, number) = (case.target, case.number);
        // Where the same rules fit and none looks at who asks, the answer is the one that is known already.
        let differs = |above: &&str| {
            let slice = |bound: Option<&'s Bound>| Some(Arc::clone(bound?.of_site.as_ref()?.get(number?)?));
            let (own, above) = (slice(own), slice(self.workers.get(*above)));
            !own.zip(above).is_some_and(|(own, above)| Arc::ptr_eq(&own, &above) && !own.reads_principal)
        };
        let names = ends.iter().rev().map(|end| &name[..*end]);
        let above: Vec<Option<&Bound>> = names.filter(differs).map(|name| self.workers.get(name)).collect();
        above
            .into_iter()
            .map(move |bound| bound.zip(number).and_then(|(bound, number)| bound.case_of_site(target, number)))
    }

    /// The question whether an operator may acknowledge something held. Compositions are for workers and say nothing of it.
    fn acknowledge_case<'s>(&'s self, ask: &AcknowledgeAsk) -> Result<Case<'s>, NoCase> {
        let named = |ty: &str, id: &str| uid(ty, id).map_err(|_| NoCase::Type);
        let (principal, resource) = (named("Operator", &ask.operator)?, named(&ask.resource.ty, &ask.resource.id)?);
        let lineage =
            |uid: &EntityUid| Lineage::new(uid.clone(), self.entities.ancestors(uid).into_iter().flatten().cloned());
        let action = Lineage::new(self.acknowledge.action.clone(), []);
        let slice = self.site.index.slice(&lineage(&principal), &action, &lineage(&resource));
        let known = self.targets.iter().find(|target| target.resource == resource);
        let of = serde_json::json!({ "type": ask.resource.ty, "id": ask.resource.id });
        Ok(Case {
            principal_record: Record::Named(serde_json::json!({ "type": "Operator", "id": ask.operator })),
            principal: Cow::Owned(principal),
            target: &self.acknowledge,
            resource_record: known.map_or(Record::Named(of), |target| Record::Known(&target.resource_record)),
            resource: Cow::Owned(resource),
            slice: Some(slice),
            in_composition: false,
            number: None,
        })
    }

    /// Whether an operator is a worker itself, or its parent, or the owner of one of these.
    pub fn is_own(&self, operator: &str, worker: &str) -> bool {
        let same = |name: &str| name.eq_ignore_ascii_case(operator);
        // `a/b/c` is a node of `a/b`, and that of `a`.
        let ends = worker.match_indices('/').map(|(at, _)| at).chain([worker.len()]);
        ends.map(|end| &worker[..end]).any(|name| same(name) || self.owners.get(name).is_some_and(|owner| same(owner)))
    }

    /// A question about the site's own things. A worker that is asked about is one of Warden's; everybody else is as the
    /// site's entities say, or has nothing but a name.
    fn site_case<'s>(&'s self, caller: &'s Bound, ask: &SiteAsk) -> Result<Case<'s>, NoCase> {
        let site = self.site.actions.get(&ask.action).ok_or(NoCase::Action)?;
        if !site.principals.contains(&ask.principal.ty) || !site.resources.contains(&ask.resource.ty) {
            return Err(NoCase::Type);
        }
        let bound = match ask.principal.ty.as_str() {
            "Worker" => Some(self.workers.get(&ask.principal.id).ok_or(NoCase::Worker)?),
            _ => None,
        };
        let named = |name: &EntityName| uid(&name.ty, &name.id).map_err(|_| NoCase::Type);
        let (principal, resource) = (named(&ask.principal)?, named(&ask.resource)?);
        let lineage = |uid: &EntityUid| {
            let ancestors = self.entities.ancestors(uid).into_iter().flatten().cloned();
            Lineage::new(uid.clone(), ancestors)
        };
        let action = Lineage::new(site.target.action.clone(), site.target.action_lineage.iter().cloned());
        // Their compositions say nothing of a site's own actions, so workers in one may do none of them.
        let in_composition = [Some(caller), bound].into_iter().flatten().any(|bound| bound.composition.is_some());
        let slice =
            (!in_composition).then(|| self.site.index.slice(&lineage(&principal), &action, &lineage(&resource)));
        let record = |uid: &EntityUid| {
            let parents = self.entities.ancestors(uid).into_iter().flatten().map(ToString::to_string);
            let (ty, id) = (uid.type_name().to_string(), uid.id().unescaped().to_owned());
            serde_json::json!({ "type": ty, "id": id, "parents": parents.collect::<Vec<_>>() })
        };
        Ok(Case {
            principal_record: Record::Named(record(&principal)),
            principal: Cow::Owned(principal),
            target: &site.target,
            resource_record: Record::Named(record(&resource)),
            resource: Cow::Owned(resource),
            slice,
            in_composition,
            number: None,
        })
    }

    /// Whether an action is one of the site's own, or a group of them.
    pub fn is_sites_own(&self, action: &EntityUid) -> bool {
        self.site.names.contains(action.id().unescaped())
    }

    /// Every worker with every target, and every action of the site's own, for probes and tests.
    pub fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        let own = self
            .workers
            .values()
            .flat_map(|bound| self.targets.iter().enumerate().map(|(number, target)| bound.case(target, number)));
        own.chain(self.site.actions.values().filter_map(|site| self.site_probe(site)))
    }

    /// A case of a site's action for entities that nobody has heard of.
    fn site_probe(&self, site: &SiteTarget) -> Option<Case<'_>> {
        let name = |types: &[String]| {
            let ty = types.iter().find(|ty| *ty != "Worker")?;
            Some(EntityName { ty: ty.clone(), id: "warden-probe".into() })
        };
        let action = site.target.action.id().unescaped().to_owned();
        let ask = SiteAsk { principal: name(&site.principals)?, action, resource: name(&site.resources)? };
        self.site_case(self.workers.values().next()?, &ask).ok()
    }

    /// The tools and verbs that the decision door knows beside the site's own actions.
    pub fn has_server(&self, server: &str) -> bool {
        self.servers.contains_key(server)
    }

    /// Whether any engine is configured.
    pub fn has_engines(&self) -> bool {
        !self.engines.is_empty()
    }

    /// Whether any app is configured.
    pub fn has_apps(&self) -> bool {
        !self.apps.is_empty()
    }

    /// Whether any worker is bound to a composition with nodes.
    pub fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
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
        !self.inboxes.is_empty()
    }

    /// The request that the facts make, validated against the schema. A failure means that facts and schema differ.
    pub fn request(&self, case: &Case<'_>, facts: &Facts) -> Result<Request, String> {
        let context = self.shape.context(facts)?;
        let (principal, resource) = (case.principal.clone().into_owned(), case.resource.clone().into_owned());
        Request::new(principal, case.target.action.clone(), resource, context, Some(&self.schema))
            .map_err(|e| e.to_string())
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
        let number = self.servers.get(server).and_then(|server| server.tools.get(tool));
        number.map_or(&[], |number| &self.targets[*number].header_params)
    }

    /// Whether a list shows this to a worker.
    pub fn is_listed(&self, worker: &str, server: &str, ask: &Ask) -> bool {
        self.case(worker, server, ask).is_ok_and(|case| case.slice.is_some_and(|slice| slice.listed))
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

impl Bound {
    fn case<'s>(&'s self, target: &'s Target, number: usize) -> Case<'s> {
        Case {
            principal: Cow::Borrowed(&self.uid),
            principal_record: Record::Known(&self.record),
            target,
            resource: Cow::Borrowed(&target.resource),
            resource_record: Record::Known(&target.resource_record),
            slice: self.slices.as_ref().map(|slices| slices[number].clone()),
            in_composition: self.composition.is_some(),
            number: Some(number),
        }
    }

    /// The same where only the charter and the site are asked.
    fn case_of_site<'s>(&'s self, target: &'s Target, number: usize) -> Option<Case<'s>> {
        let slice = self.of_site.as_ref()?[number].clone();
        Some(Case { slice: Some(slice), in_composition: false, ..self.case(target, number) })
    }
}

fn marks(catalogue: &Catalogue) -> HashMap<String, HashMap<String, Marks>> {
    let tools =
        |tools: &BTreeMap<String, Tool>| tools.iter().map(|(name, tool)| (name.clone(), tool.marks())).collect();
    catalogue.servers.iter().map(|(server, of)| (server.clone(), tools(of))).collect()
}

/// The policies that can matter for one worker, by target.
fn slices_of(index: &Index, worker: &Lineage, targets: &[Target]) -> Vec<Arc<Slice>> {
    let nobodys = Lineage::new(worker.uid().clone(), []);
    let of = |target: &Target| {
        // Nodes that are not below this one are never asked about: they share one slice.
        let node = target.resource.id().unescaped();
        let is_far = target.action.id().unescaped() == Verb::StartDelegate.action()
            && !is_within(node, worker.uid().id().unescaped());
        if is_far {
            return index.slice(&nobodys, &nobodys, &nobodys);
        }
        let action = Lineage::new(target.action.clone(), target.action_lineage.iter().cloned());
        let resource = Lineage::new(target.resource.clone(), target.resource_parents.iter().cloned());
        index.slice(worker, &action, &resource)
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

pub(super) fn uid(ty: &str, id: &str) -> Result<EntityUid, String> {
    let ty: EntityTypeName = ty.parse().map_err(|e| format!("entity type `{ty}`: {e}"))?;
    Ok(EntityUid::from_type_name_and_id(ty, EntityId::new(id)))
}

/// A node is in what is right above it, and so in everything that is in.
fn worker_parents(worker: &Worker) -> Result<Vec<EntityUid>, String> {
    let above = worker.name.rsplit_once('/').map(|(above, _)| uid("Worker", above));
    above.into_iter().chain(worker.groups.iter().map(|group| uid("Group", group))).collect()
}

fn worker_lineage(worker: &Worker) -> Result<Lineage, String> {
    let above = worker.name.match_indices('/').map(|(at, _)| uid("Worker", &worker.name[..at]));
    let ancestors: Vec<EntityUid> =
        above.chain(worker.groups.iter().map(|group| uid("Group", group))).collect::<Result<_, _>>()?;
    Ok(Lineage::new(uid("Worker", &worker.name)?, ancestors))
}

fn entities(workers: &[Worker], targets: &[Target], schema: &Schema) -> Result<Entities, String> {
    let mut all = Vec::new();
    for worker in workers {
        let parents = worker_parents(worker)?.into_iter().collect();
        all.push(Entity::new_no_attrs(uid("Worker", &worker.name)?, parents));
    }
    for target in targets {
        let record = &target.resource_record;
        let text = |name: &str| Expression::new_string(record[name].as_str().unwrap_or_default().to_owned());
        let own = match record["type"].as_str() {
            Some("Engine") => HashMap::from([("kind".to_owned(), text("kind")), ("zone".to_owned(), text("zone"))]),
            Some("StateKey") => {
                HashMap::from([("reserved".to_owned(), Expression::new_bool(record["reserved"] == true))])
            }
            _ => HashMap::new(),
        };
        if !own.is_empty() {
            // The two verbs of an engine are done to one entity.
            if !all.iter().any(|entity: &Entity| entity.uid() == target.resource) {
                all.push(Entity::new(target.resource.clone(), own, HashSet::new()).map_err(|e| e.to_string())?);
            }
            continue;
        }
        let Some(effect) = record.get("effect").and_then(serde_json::Value::as_str) else { continue };
        let flag = |name: &str| Expression::new_bool(record[name] == true);
        let attributes = HashMap::from([
            ("effect".to_owned(), Expression::new_entity_uid(uid("Effect", effect)?)),
            ("open_world".to_owned(), flag("open_world")),
            ("listed".to_owned(), flag("listed")),
            ("changed".to_owned(), flag("changed")),
        ]);
        let parents: HashSet<EntityUid> = target.resource_parents.iter().cloned().collect();
        all.push(Entity::new(target.resource.clone(), attributes, parents).map_err(|e| e.to_string())?);
    }
    Entities::from_entities(all, Some(schema)).map_err(|e| format!("entities: {e}"))
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

/// The operators' entities beside Warden's own, which they cannot add to.
fn with_site_entities(
    own: Entities,
    files: &[SourceFile],
    site: &SiteSchema,
    schema: &Schema,
) -> Result<Entities, Problems> {
    let mut all = own;
    for file in files.iter().filter(|file| site::is_entities(file)) {
        let problem = |message: String| {
            let help = Some("see https://docs.cedarpolicy.com/auth/entities-syntax.html".to_owned());
            Problems(vec![Problem {
                file: file.name.clone(),
                code: "site_entities".into(),
                help,
                ..Problem::general(message)
            }])
        };
        // The parser's own words may quote an attribute's value; it is the operators' file, and they read them.
        let theirs = Entities::from_json_str(&file.text, None).map_err(|e| problem(deepest(&e)))?;
        if let Some(foreign) = theirs.iter().find(|e| !site.entity_types.contains_key(&e.uid().type_name().to_string()))
        {
            return Err(problem(format!("`{}` is not of a type that the site's schema declares", foreign.uid())));
        }
        let everything: Vec<Entity> = all.into_iter().chain(theirs).collect();
        all = Entities::from_entities(everything, Some(schema)).map_err(|e| problem(deepest(&e)))?;
    }
    Ok(all)
}

/// The innermost cause of an error, which says what is wrong.
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    let said = error.to_string();
    match said.contains("untagged enum RawCedarValueJson") {
        true => "a number must be a whole one of 64 bits; a decimal is {\"__extn\": {\"fn\": \"decimal\", \"arg\": \"1.5\"}}".into(),
        false => said,
    }
}
