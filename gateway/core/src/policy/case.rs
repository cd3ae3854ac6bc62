//! What a verdict is asked about: who does what to what, found in the snapshot with the policies that can matter for it.

use super::entities::uid;
use super::reads::Reads;
use super::slice::{Lineage, Slice};
use super::snapshot::{SiteTarget, Snapshot, Target};
use crate::proposal::{AcknowledgeAsk, Ask, EntityName, SiteAsk, Verb, is_within};
use cedar_policy::EntityUid;
use std::borrow::Cow;
use std::sync::Arc;

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

/// A worker, with what is prepared for it.
pub(super) struct Bound {
    pub(super) uid: EntityUid,
    pub(super) record: Arc<serde_json::Value>,
    /// By target; none when the worker's composition cannot be resolved.
    pub(super) slices: Option<Vec<Arc<Slice>>>,
    /// The same without a composition, for nodes and what they come from.
    pub(super) of_site: Option<Vec<Arc<Slice>>>,
    pub(super) composition: Option<String>,
}

impl Snapshot {
    /// Finds the worker and the target of what is asked. A tool that is not catalogued is `call_tool/unlisted`.
    pub fn case(&self, worker: &str, server: &str, ask: &Ask) -> Result<Case<'_>, NoCase> {
        if let Ask::Acknowledge(ask) = ask {
            return self.acknowledge_case(ask);
        }
        let bound = self.workers.get(worker).ok_or(NoCase::Worker)?;
        let number = match ask {
            Ask::Site(ask) => return self.site_case(bound, ask),
            Ask::Verb(Verb::Operate) => self.targets.operate,
            Ask::Engine(ask) => {
                let engine = self.targets.engines.get(&ask.engine).ok_or(NoCase::Engine)?;
                match ask.verb {
                    Verb::CallEngine => engine.call,
                    Verb::ProposeToolCall => engine.tool_call,
                    _ => return Err(NoCase::Action),
                }
            }
            Ask::Inbox { inbox, verb } => {
                let verbs = self.targets.inboxes.get(inbox).ok_or(NoCase::Inbox)?;
                *verbs.get(verb).ok_or(NoCase::Action)?
            }
            Ask::Session { app, .. } => *self.targets.apps.get(app).ok_or(NoCase::App)?,
            Ask::Delegate { node } => {
                // Whose a node is stands in its name.
                let below = node != worker && is_within(node, worker);
                *self.targets.nodes.get(node).filter(|_| below).ok_or(NoCase::Node)?
            }
            Ask::State { key } => {
                *self.targets.state.get(key).or_else(|| self.targets.state.get("")).ok_or(NoCase::Action)?
            }
            ask => {
                let server = self.targets.servers.get(server).ok_or(NoCase::Server)?;
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
        Ok(bound.case(&self.targets.all[number], number))
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

    /// Whether a list shows this to a worker: neither it nor, of a node, anything above it is sure to be refused.
    pub fn is_listed(&self, worker: &str, server: &str, ask: &Ask) -> bool {
        let listed = |case: &Case<'_>| case.slice.as_ref().is_some_and(|slice| slice.listed);
        self.case(worker, server, ask)
            .is_ok_and(|case| listed(&case) && self.above(&case).all(|above| above.as_ref().is_some_and(listed)))
    }

    /// What a verdict on a case reads of the context, of a node with what is asked of all above it. Everything, where that cannot be told.
    pub fn reads<'c>(&self, case: &'c Case<'_>) -> Cow<'c, Reads> {
        let Some(own) = &case.slice else { return Cow::Owned(Reads::whole()) };
        let mut all = Cow::Borrowed(&own.reads);
        for above in self.above(case) {
            match above.and_then(|above| above.slice) {
                Some(slice) => all.to_mut().merge(&slice.reads),
                None => return Cow::Owned(Reads::whole()),
            }
        }
        all
    }

    /// The question whether an operator may acknowledge something held. Compositions are for workers and say nothing of it.
    fn acknowledge_case<'s>(&'s self, ask: &AcknowledgeAsk) -> Result<Case<'s>, NoCase> {
        let named = |ty: &str, id: &str| uid(ty, id).map_err(|_| NoCase::Type);
        let (principal, resource) = (named("Operator", &ask.operator)?, named(&ask.resource.ty, &ask.resource.id)?);
        let lineage =
            |uid: &EntityUid| Lineage::new(uid.clone(), self.entities.ancestors(uid).into_iter().flatten().cloned());
        let action = Lineage::new(self.targets.acknowledge.action.clone(), []);
        let slice = self.site.index.slice(&lineage(&principal), &action, &lineage(&resource));
        let known = self.targets.all.iter().find(|target| target.resource == resource);
        let of = serde_json::json!({ "type": ask.resource.ty, "id": ask.resource.id });
        Ok(Case {
            principal_record: Record::Named(serde_json::json!({ "type": "Operator", "id": ask.operator })),
            principal: Cow::Owned(principal),
            target: &self.targets.acknowledge,
            resource_record: known.map_or(Record::Named(of), |target| Record::Known(&target.resource_record)),
            resource: Cow::Owned(resource),
            slice: Some(slice),
            in_composition: false,
            number: None,
        })
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

    /// Every worker with every target that it can be asked about with, and every action of the site's own, for probes and tests.
    pub fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        let own = self.workers.values().flat_map(|bound| {
            let targets = self.targets.all.iter().enumerate();
            let own = targets.filter(|(_, target)| target.is_for(bound.uid.id().unescaped()));
            own.map(|(number, target)| bound.case(target, number))
        });
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
