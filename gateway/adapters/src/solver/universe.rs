//! All requests that a schema allows, one environment each: a type of principal, an action, a type of resource.

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, RequestEnv, Schema};
use cedar_policy_symcc::err::Error;
use cedar_policy_symcc::{CompiledPolicy, CompiledPolicySet, CompiledSchema};
use std::collections::{HashMap, HashSet};

/// See the module.
pub struct Universe {
    compiled: CompiledSchema,
    /// The environments, sorted by name, those of workers first.
    pub environments: Vec<Environment>,
    groups: HashMap<EntityUid, HashSet<EntityUid>>,
}

/// One kind of request.
pub struct Environment {
    env: RequestEnv,
    /// `Worker → files/read → Tool`.
    pub name: String,
    /// The action.
    pub action: EntityUid,
}

impl Universe {
    /// Of a schema. The error says why it cannot be spoken about.
    pub fn of(schema: &Schema) -> Result<Self, String> {
        let compiled = CompiledSchema::new(schema).map_err(|e| e.to_string())?;
        let actions = schema.action_entities().map_err(|e| e.to_string())?;
        let groups = actions
            .iter()
            .map(|action| {
                let above = actions.ancestors(&action.uid()).into_iter().flatten().cloned();
                (action.uid(), above.chain([action.uid()]).collect())
            })
            .collect();
        let mut environments: Vec<Environment> = schema
            .request_envs()
            .map(|env| {
                let id: &str = env.action().id().as_ref();
                let name = format!("{} → {} → {}", env.principal(), id.escape_debug(), env.resource());
                Environment { name, action: env.action().clone(), env }
            })
            .collect();
        let of_worker = |environment: &Environment| environment.env.principal().basename() == "Worker";
        environments.sort_by(|a, b| (!of_worker(a), &a.name).cmp(&(!of_worker(b), &b.name)));
        Ok(Self { compiled, environments, groups })
    }

    /// Whether a policy can matter for an environment, by its action alone.
    pub fn concerns(&self, policy: &Policy, environment: &Environment) -> bool {
        let is_in = |uid: &EntityUid| self.groups.get(&environment.action).is_some_and(|all| all.contains(uid));
        match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => uid == environment.action,
            ActionConstraint::In(uids) => uids.iter().any(is_in),
        }
    }

    /// Whether an environment's action is in a group.
    pub fn is_in(&self, environment: &Environment, group: &str) -> bool {
        let all = self.groups.get(&environment.action);
        all.is_some_and(|all| all.iter().any(|uid| AsRef::<str>::as_ref(uid.id()) == group))
    }

    /// The policies that concern an environment, compiled for it.
    pub fn set<'p>(
        &self,
        environment: &Environment,
        policies: impl IntoIterator<Item = &'p Policy>,
    ) -> Result<CompiledPolicySet, String> {
        let cut = policies.into_iter().filter(|policy| self.concerns(policy, environment)).cloned();
        let set = PolicySet::from_policies(cut).map_err(|e| e.to_string())?;
        let symbols = self.compiled.sym_env(&environment.env).map_err(said)?;
        let schema = self.compiled.schema();
        CompiledPolicySet::compile_with_custom_symenv(&set, &environment.env, schema, symbols).map_err(said)
    }

    /// A policy, compiled for an environment.
    pub fn policy(&self, environment: &Environment, policy: &Policy) -> Result<CompiledPolicy, String> {
        let symbols = self.compiled.sym_env(&environment.env).map_err(said)?;
        let schema = self.compiled.schema();
        CompiledPolicy::compile_with_custom_symenv(policy, &environment.env, schema, symbols).map_err(said)
    }
}

fn said(error: Error) -> String {
    match error {
        Error::PolicyNotWellTyped { errs } => {
            let all: Vec<String> = errs.iter().map(ToString::to_string).collect();
            format!("not well typed: {}", all.join("; "))
        }
        other => other.to_string(),
    }
}
