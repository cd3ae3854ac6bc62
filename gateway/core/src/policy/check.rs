//! What a policy must not say: Cedar's own strict validation, at level 1, and names that nobody has.

use super::layer::{Layer, Rule};
use super::schema::{Builder, Footprint};
use super::snapshot::{Source, Worker};
use super::{Problem, Span, nearest};
use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicyId, PolicySet, ValidationMode, Validator};
use miette::Diagnostic;
use std::collections::{BTreeMap, BTreeSet};

/// What policies can name.
pub(super) struct Known<'a> {
    pub(super) workers: &'a [Worker],
    pub(super) groups: &'a [String],
    pub(super) source: &'a Source,
}

impl Known<'_> {
    /// Entity literals of types that are not enumerated: a typo in them would be a rule that never fires.
    fn unknown(&self, literal: &EntityUid) -> Option<(String, Vec<String>)> {
        let id: &str = literal.id().as_ref();
        let (is_known, all): (bool, Vec<String>) = match literal.type_name().basename() {
            "Worker" => {
                let worker = id.split('/').next().unwrap_or(id);
                (self.workers.iter().any(|w| w.name == worker), self.workers.iter().map(|w| w.name.clone()).collect())
            }
            "Group" => (self.groups.iter().any(|group| group == id), self.groups.to_vec()),
            "Tool" => {
                let known = id.split_once('/').is_some_and(|(server, tool)| {
                    self.source.catalogue.tool(server, tool).is_some()
                        || tool == "*" && self.source.servers.iter().any(|s| s == server)
                });
                let tools = |server: &String| {
                    let tools = self.source.catalogue.servers.get(server).into_iter().flatten();
                    tools.map(|(tool, _)| format!("{server}/{tool}")).collect::<Vec<_>>()
                };
                (known, self.source.servers.iter().flat_map(tools).collect())
            }
            _ => (true, Vec::new()),
        };
        (!is_known).then(|| (literal.to_string(), all))
    }
}

/// More names than this are not listed.
const KNOWN_MAX: usize = 12;

/// Everything that is wrong with a layer's policies.
pub(super) fn validate(layer: &Layer, builder: &Builder<'_>, known: &Known<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut by_footprint: BTreeMap<(u8, String, String), Vec<&Rule>> = BTreeMap::new();
    for rule in &layer.rules {
        for literal in rule.policy.entity_literals() {
            if let Some((literal, all)) = known.unknown(&literal) {
                let named = literal.split_once('"').map_or("", |(_, id)| id.trim_end_matches('"'));
                let help = match (nearest(named, all.iter().map(String::as_str)), all.len()) {
                    (Some(near), _) => format!("did you mean `{near}`?"),
                    (None, 1..=KNOWN_MAX) => format!("known: {}", all.join(", ")),
                    (None, _) => "check the spelling, and that the server has been listed once".to_owned(),
                };
                let mut problem =
                    Problem::of(rule, "unknown_entity", format!("no such entity: `{literal}`"), Some(help));
                problem.narrow_to(rule, &literal);
                problems.push(problem);
            }
        }
        by_footprint.entry(footprint(&rule.policy)).or_default().push(rule);
    }
    for ((kind, server, tool), rules) in by_footprint {
        let footprint = match kind {
            0 => Footprint::None,
            1 => Footprint::Tool(&server, &tool),
            2 => Footprint::Server(&server),
            _ => Footprint::All,
        };
        let found = check(&rules, builder, footprint);
        // A condition may speak of an action that the cut schema lacks: the whole schema has the last word.
        let found = match footprint {
            Footprint::All => found,
            _ if found.is_empty() => found,
            _ => check(&rules, builder, Footprint::All),
        };
        // A name that nobody has is told once, and better than the validator can.
        let told = |found: &Problem| {
            found.message.contains("enumerated entity type")
                && problems.iter().any(|known: &Problem| known.code == "unknown_entity" && known.policy == found.policy)
        };
        let found: Vec<Problem> = found.into_iter().filter(|found| !told(found)).collect();
        problems.extend(found);
    }
    problems
}

/// As [`Footprint`], owned: kind, server, tool.
fn footprint(policy: &Policy) -> (u8, String, String) {
    let of = |uid: &EntityUid| {
        let id: &str = uid.id().as_ref();
        match id.split_once('/') {
            _ if id == "call_tool/unlisted" => (0, String::new(), String::new()),
            Some((server, "*")) => (2, server.to_owned(), String::new()),
            Some((server, tool)) => (1, server.to_owned(), tool.to_owned()),
            None if ["call_tool", "effect"].contains(&id) => (3, String::new(), String::new()),
            None => (0, String::new(), String::new()),
        }
    };
    match policy.action_constraint() {
        ActionConstraint::Any => (3, String::new(), String::new()),
        ActionConstraint::Eq(uid) => of(&uid),
        ActionConstraint::In(uids) => match uids.as_slice() {
            [one] => of(one),
            _ => (3, String::new(), String::new()),
        },
    }
}

fn check(rules: &[&Rule], builder: &Builder<'_>, footprint: Footprint<'_>) -> Vec<Problem> {
    let schema = match builder.schema(footprint) {
        Ok(schema) => schema,
        Err(e) => return vec![Problem::general(e.to_string())],
    };
    let set = match PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone())) {
        Ok(set) => set,
        Err(e) => return vec![Problem::general(e.to_string())],
    };
    let result = Validator::new(schema).validate_with_level(&set, ValidationMode::Strict, 1);
    let mut said: BTreeMap<PolicyId, (Said, BTreeSet<String>)> = BTreeMap::new();
    let errors = result.validation_errors().map(|e| (e.policy_id(), Said::by(e)));
    let warnings = result.validation_warnings().filter(|w| !is_of_a_name(w)).map(|w| (w.policy_id(), Said::by(w)));
    for (id, what) in errors.chain(warnings) {
        // One message a policy: a mistake in a group's rule would be told once for each tool.
        let text = what.message.clone();
        said.entry(id.clone()).or_insert((what, BTreeSet::new())).1.insert(text);
    }
    let mut problems = Vec::new();
    for rule in rules {
        let Some((Said { message, help, span }, all)) = said.remove(rule.policy.id()) else { continue };
        let about = format!("for policy `{}`", rule.policy.id());
        let message = message.trim_start_matches(&about).trim_start_matches([',', ':', ' ']).to_owned();
        let (message, help) = match all.len() {
            1 => (message, help),
            n if message.contains("`input") && !names_one(&rule.policy) => (
                format!("{message} (and {} more like it)", n - 1),
                Some("`context.input` is typed per tool: name the tools in the scope, `action == Action::\"SERVER/TOOL\"`".into()),
            ),
            n => (format!("{message} (and {} more)", n - 1), help),
        };
        let mut problem = Problem::of(rule, "invalid", message, help);
        if let Some(span) = span {
            problem.narrow(rule, span);
        }
        problems.push(problem);
    }
    problems
}

/// A tool's name may be in another script than its server's, and policies have to name it: what looks alike is flagged where tools
/// are listed.
fn is_of_a_name(warning: &cedar_policy::ValidationWarning) -> bool {
    use cedar_policy::ValidationWarning::{ConfusableIdentifier, MixedScriptIdentifier};
    matches!(warning, MixedScriptIdentifier(_) | ConfusableIdentifier(_))
}

/// Whether the scope names one action.
fn names_one(policy: &Policy) -> bool {
    matches!(policy.action_constraint(), ActionConstraint::Eq(_))
}

/// What the validator says of one place.
struct Said {
    message: String,
    help: Option<String>,
    span: Option<Span>,
}

impl Said {
    fn by(error: &(impl Diagnostic + ToString)) -> Self {
        let label = error.labels().and_then(|mut labels| labels.next());
        Self {
            message: error.to_string(),
            help: error.help().map(|help| help.to_string()),
            span: label.map(|label| Span { offset: label.offset(), length: label.len() }),
        }
    }
}
