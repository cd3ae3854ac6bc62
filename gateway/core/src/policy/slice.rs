//! Slices: for one worker and one target, exactly the policies whose scopes match, with the scopes taken away.
//!
//! `is_authorized` looks at every policy of a set. An index by scope finds the few that can matter, and rewriting
//! their scopes once at load saves deciding them on every proposal. Slices of equal content are one slice.

use super::est;
use super::layer::{Layer, LayerName, Rule, Standing};
use super::reads::Reads;
use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint, ResourceConstraint,
};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The policies that can matter for one worker and one target.
#[derive(Debug)]
pub struct Slice {
    /// As written, scopes gone.
    pub plain: PolicySet,
    /// With `context.acknowledged` taken for true; absent when no policy mentions it.
    pub acknowledged: Option<PolicySet>,
    /// The forbids that mention it: only these can an acknowledgement lift.
    pub liftable: HashSet<PolicyId>,
    /// Whether a permit mentions it: only then can an acknowledgement permit more.
    pub permits_more: bool,
    /// Whether a list shows the target: a permit's scope matches in every layer, and no forbid is without condition.
    pub listed: bool,
    /// What the conditions read of the context, those of rules in shadow included.
    pub reads: Reads,
    /// Whether a condition looks at who asks. Otherwise whoever has this slice gets the same verdict by it.
    pub reads_principal: bool,
    /// The same with the rules in shadow; absent when there are none.
    pub beside: Option<Arc<Slice>>,
}

#[derive(Clone)]
struct Entry {
    plain: Policy,
    acknowledged: Option<Policy>,
    layer: LayerName,
    standing: Standing,
    effect: Effect,
    conditional: bool,
    reads: Reads,
    reads_principal: bool,
    principal: PrincipalConstraint,
    action: ActionConstraint,
    resource: ResourceConstraint,
}

/// The policies of some layers, found by scope.
pub struct Index {
    entries: Vec<Entry>,
    by_scope: HashMap<[Option<EntityUid>; 3], Vec<usize>>,
    needs_composition: bool,
    // A std mutex: nothing awaits while it is held.
    made: Mutex<HashMap<Vec<usize>, Arc<Slice>>>,
}

/// Something with its ancestors.
pub struct Lineage {
    uid: EntityUid,
    ancestors: HashSet<EntityUid>,
}

impl Lineage {
    /// Of `uid`, which is in all of `ancestors`.
    pub fn new(uid: EntityUid, ancestors: impl IntoIterator<Item = EntityUid>) -> Self {
        Self { uid, ancestors: ancestors.into_iter().collect() }
    }

    /// The thing itself.
    pub fn uid(&self) -> &EntityUid {
        &self.uid
    }

    fn is_in(&self, other: &EntityUid) -> bool {
        self.uid == *other || self.ancestors.contains(other)
    }

    fn keys(&self) -> Vec<Option<EntityUid>> {
        let own = std::iter::once(self.uid.clone());
        std::iter::once(None).chain(own.chain(self.ancestors.iter().cloned()).map(Some)).collect()
    }
}

/// A policy that Cedar's own JSON form cannot carry.
#[derive(Debug)]
pub struct Unpreparable(pub cedar_policy::PolicyId);

impl Index {
    /// Of all layers that a worker is under.
    pub fn new(layers: &[&Layer]) -> Result<Self, Unpreparable> {
        let mut index = Self {
            entries: Vec::new(),
            by_scope: HashMap::new(),
            needs_composition: layers.iter().any(|layer| layer.name == LayerName::Composition),
            made: Mutex::default(),
        };
        for layer in layers {
            for rule in &layer.rules {
                index.add(layer.name, rule)?;
            }
        }
        Ok(index)
    }

    /// The same with one layer more. What is prepared stays so.
    pub fn with(&self, layer: &Layer) -> Result<Self, Unpreparable> {
        let mut index = Self {
            entries: self.entries.clone(),
            by_scope: self.by_scope.clone(),
            needs_composition: self.needs_composition || layer.name == LayerName::Composition,
            made: Mutex::default(),
        };
        for rule in &layer.rules {
            index.add(layer.name, rule)?;
        }
        Ok(index)
    }

    fn add(&mut self, layer: LayerName, rule: &Rule) -> Result<(), Unpreparable> {
        let policy = &rule.policy;
        let (plain, acknowledged) = est::prepare(policy).ok_or_else(|| Unpreparable(policy.id().clone()))?;
        let number = self.entries.len();
        let (principal, resource) = (policy.principal_constraint(), policy.resource_constraint());
        let principal_key = match &principal {
            PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => {
                Some(uid.clone())
            }
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        };
        let resource_key = match &resource {
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                Some(uid.clone())
            }
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        };
        let action = policy.action_constraint();
        let actions = match &action {
            ActionConstraint::Any => vec![None],
            ActionConstraint::Eq(uid) => vec![Some(uid.clone())],
            ActionConstraint::In(uids) => uids.iter().cloned().map(Some).collect(),
        };
        for action in actions {
            let key = [principal_key.clone(), action, resource_key.clone()];
            self.by_scope.entry(key).or_default().push(number);
        }
        self.entries.push(Entry {
            plain,
            acknowledged,
            layer,
            standing: rule.standing,
            effect: policy.effect(),
            conditional: est::is_conditional(policy),
            reads: Reads::of([policy]),
            reads_principal: est::mentions_principal(policy),
            principal,
            action,
            resource,
        });
        Ok(())
    }

    /// The slice of one worker and one target.
    pub fn slice(&self, principal: &Lineage, action: &Lineage, resource: &Lineage) -> Arc<Slice> {
        let mut numbers = Vec::new();
        let (principals, resources) = (principal.keys(), resource.keys());
        for a in action.keys() {
            for p in &principals {
                for r in &resources {
                    if let Some(found) = self.by_scope.get(&[p.clone(), a.clone(), r.clone()]) {
                        numbers.extend(
                            found.iter().copied().filter(|n| self.entries[*n].applies(principal, action, resource)),
                        );
                    }
                }
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(numbers).or_insert_with_key(|numbers| Arc::new(self.build(numbers))).clone()
    }

    fn build(&self, numbers: &[usize]) -> Slice {
        let live: Vec<usize> =
            numbers.iter().copied().filter(|n| self.entries[*n].standing == Standing::Live).collect();
        let slice = self.build_of(&live);
        if live.len() == numbers.len() {
            return slice;
        }
        let all = self.build_of(numbers);
        Slice { reads: all.reads.clone(), reads_principal: all.reads_principal, beside: Some(Arc::new(all)), ..slice }
    }

    fn build_of(&self, numbers: &[usize]) -> Slice {
        let entries = || numbers.iter().map(|n| &self.entries[*n]);
        let set = |policies: Vec<Policy>| PolicySet::from_policies(policies).unwrap_or_default();
        let mentions = entries().any(|entry| entry.acknowledged.is_some());
        let permits = |layer| entries().any(|entry| entry.layer == layer && entry.effect == Effect::Permit);
        let mut reads = Reads::default();
        entries().for_each(|entry| reads.merge(&entry.reads));
        let shut = entries().any(|entry| entry.effect == Effect::Forbid && !entry.conditional);
        Slice {
            plain: set(entries().map(|entry| entry.plain.clone()).collect()),
            acknowledged: mentions
                .then(|| set(entries().map(|e| e.acknowledged.as_ref().unwrap_or(&e.plain).clone()).collect())),
            liftable: entries()
                .filter(|entry| entry.acknowledged.is_some() && entry.effect == Effect::Forbid)
                .map(|entry| entry.plain.id().clone())
                .collect(),
            reads,
            reads_principal: entries().any(|entry| entry.reads_principal),
            permits_more: entries().any(|e| e.acknowledged.is_some() && e.effect == Effect::Permit),
            listed: permits(LayerName::Site) && (!self.needs_composition || permits(LayerName::Composition)) && !shut,
            beside: None,
        }
    }
}

impl Entry {
    /// The index keys a scope by one entity, `==` and `in` alike; here the scope is decided exactly.
    fn applies(&self, principal: &Lineage, action: &Lineage, resource: &Lineage) -> bool {
        let principal_fits = match &self.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => principal.uid == *uid,
            PrincipalConstraint::In(uid) => principal.is_in(uid),
            PrincipalConstraint::Is(ty) => principal.uid.type_name() == ty,
            PrincipalConstraint::IsIn(ty, uid) => principal.uid.type_name() == ty && principal.is_in(uid),
        };
        let action_fits = match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => action.uid == *uid,
            ActionConstraint::In(uids) => uids.iter().any(|uid| action.is_in(uid)),
        };
        principal_fits
            && action_fits
            && match &self.resource {
                ResourceConstraint::Any => true,
                ResourceConstraint::Eq(uid) => resource.uid == *uid,
                ResourceConstraint::In(uid) => resource.is_in(uid),
                ResourceConstraint::Is(ty) => resource.uid.type_name() == ty,
                ResourceConstraint::IsIn(ty, uid) => resource.uid.type_name() == ty && resource.is_in(uid),
            }
    }
}
