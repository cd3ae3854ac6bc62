//! What loads, and is hardly meant.

use crate::catalogue::ty::Ty;
use crate::policy::est;
use crate::policy::layer::{LayerName, Rule};
use crate::policy::probe;
use crate::policy::slice::Slice;
use crate::policy::snapshot::{Case, Snapshot, Target};
use crate::policy::{Problem, Severity, nearest};
use crate::proposal::{DoneTo, Verb};
use crate::verdict::{Verdict, under_charter};
use cedar_policy::{ActionConstraint, Effect, PolicyId, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// All warnings about the policies of the site. Those of compositions are made of their documents, which are checked by themselves.
pub fn lint(snapshot: &Snapshot) -> Vec<Problem> {
    let cases: Vec<Case<'_>> = snapshot.cases().collect();
    let applied = applied(&cases);
    let charter = Charter { snapshot, known: RefCell::default() };
    let mut found = Vec::new();
    for rule in snapshot.layers.iter().filter(|layer| layer.name == LayerName::Site).flat_map(|layer| &layer.rules) {
        let of_rule = applied.get(rule.policy.id()).map_or(&[][..], Vec::as_slice);
        found.extend(unscoped(rule));
        found.extend(misplaced_advice(rule));
        found.extend(unknown_values(snapshot, rule));
        // Who does a site's own actions to what is not known before it is asked.
        if of_rule.is_empty() && speaks_of_wardens(snapshot, rule) && !snapshot.workers().is_empty() {
            found.push(warn(
                rule,
                "dead_rule",
                "no worker and no target fits its scope: it can never decide",
                "look at `warden tools list` and at `workers:`, or remove it",
            ));
        } else {
            found.extend(under_the_charter(&charter, rule, of_rule));
        }
    }
    found.extend(tools_without_rule(snapshot));
    found
}

/// Whether a rule's scope names no action of the site's own, nor a group of them.
fn speaks_of_wardens(snapshot: &Snapshot, rule: &Rule) -> bool {
    // What is said of engines and inboxes waits for the first of them; who acknowledges is no worker.
    let waits = |uid: &cedar_policy::EntityUid| {
        let verb = Verb::ALL.into_iter().find(|verb| verb.action() == uid.id().unescaped());
        match verb.map(Verb::done_to) {
            Some(DoneTo::Engine) => !snapshot.has_engines(),
            Some(DoneTo::Inbox) => !snapshot.has_inboxes(),
            Some(DoneTo::Held) => true,
            Some(DoneTo::App) => !snapshot.has_apps(),
            Some(DoneTo::Node) => !snapshot.has_nodes(),
            Some(DoneTo::Server | DoneTo::StateKey | DoneTo::Plane) => false,
            None => uid.id().unescaped() == "inbox" && !snapshot.has_inboxes(),
        }
    };
    let own = |uid: &cedar_policy::EntityUid| snapshot.is_sites_own(uid) || waits(uid);
    match rule.policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => !own(&uid),
        ActionConstraint::In(uids) => !uids.iter().any(own),
    }
}

fn warn(rule: &Rule, code: &str, message: impl Into<String>, help: impl Into<String>) -> Problem {
    Problem { severity: Severity::Warning, ..Problem::of(rule, code, message, Some(help.into())) }
}

/// The cases that each rule is in the slice of.
fn applied<'c, 's>(cases: &'c [Case<'s>]) -> HashMap<PolicyId, Vec<&'c Case<'s>>> {
    let mut by_slice: HashMap<*const Slice, Vec<PolicyId>> = HashMap::new();
    let mut applied: HashMap<PolicyId, Vec<&Case<'_>>> = HashMap::new();
    for case in cases {
        let Some(slice) = &case.slice else { continue };
        let ids = by_slice.entry(std::sync::Arc::as_ptr(slice)).or_insert_with(|| {
            let whole = slice.beside.as_deref().unwrap_or(slice);
            whole.plain.policies().map(|policy| policy.id().clone()).collect()
        });
        for id in ids.iter() {
            applied.entry(id.clone()).or_default().push(case);
        }
    }
    applied
}

/// A permit for anybody, to anything, by itself.
fn unscoped(rule: &Rule) -> Option<Problem> {
    let policy = &rule.policy;
    let open = policy.effect() == Effect::Permit
        && matches!(policy.principal_constraint(), PrincipalConstraint::Any | PrincipalConstraint::Is(_))
        && matches!(policy.resource_constraint(), ResourceConstraint::Any | ResourceConstraint::Is(_));
    let narrowed = || {
        let exact = matches!(policy.action_constraint(), ActionConstraint::Eq(uid) if AsRef::<str>::as_ref(uid.id()).contains('/'));
        let asks = |clause: &est::Clause| ["principal", "resource"].iter().any(|name| est::names(&clause.body, name));
        exact || est::mentions_acknowledged(policy) || est::clauses(policy).iter().any(asks)
    };
    let typed = matches!(policy.principal_constraint(), PrincipalConstraint::Is(ty) if ty.basename() != "Worker");
    (open && !typed && policy.annotation("unscoped").is_none() && !narrowed()).then(|| {
        warn(
            rule,
            "unscoped_permit",
            "it permits every worker, on every resource",
            "name a principal or a resource; when it is meant, say why: `@unscoped(\"any worker may connect\")`",
        )
    })
}

/// Words that nobody is ever told.
fn misplaced_advice(rule: &Rule) -> Option<Problem> {
    let policy = &rule.policy;
    let permits_at_once = policy.effect() == Effect::Permit && !est::mentions_acknowledged(policy);
    let word = ["advice", "reason"].into_iter().find(|word| policy.annotation(word).is_some())?;
    if permits_at_once {
        let help = "advice belongs to a forbid, or to a permit that says `context.acknowledged`";
        return Some(warn(
            rule,
            "unreachable_advice",
            format!("nobody is ever told its `@{word}`: it only allows"),
            help,
        ));
    }
    (policy.effect() == Effect::Permit && rule.reason.is_some()).then(|| {
        warn(
            rule,
            "unreachable_advice",
            "a permit's `@reason` is told to nobody: a proposal that waits for it has the reason of the forbid, or `acknowledgement_required`",
            "leave `@reason` out; `@advice` is told",
        )
    })
}

/// A permit whose every target the charter shuts, or holds for a person while it asks for none.
fn under_the_charter<'s>(charter: &Charter<'s>, rule: &Rule, cases: &[&Case<'s>]) -> Option<Problem> {
    if rule.policy.effect() != Effect::Permit || cases.is_empty() {
        return None;
    }
    let mentions = est::mentions_acknowledged(&rule.policy);
    let mut worst = Verdict::Deny;
    let mut by = BTreeSet::new();
    for case in cases {
        let (verdict, policies) = charter.alone(case)?;
        if verdict.rank() > worst.rank() {
            worst = verdict;
        }
        by.extend(policies);
    }
    // A changed tool waits for an operator, not for another policy.
    if by.iter().all(|id| id == "charter/changed_tool_attended") {
        return None;
    }
    let by = by.into_iter().collect::<Vec<_>>().join(", ");
    match (worst, mentions) {
        (Verdict::Deny, _) => Some(warn(
            rule,
            "shadowed_by_charter",
            format!("the charter forbids everything it permits, whoever says yes ({by})"),
            "remove it",
        )),
        (Verdict::Escalate, false) => Some(warn(
            rule,
            "shadowed_by_charter",
            format!("the charter holds everything it permits for a person ({by})"),
            "say so: `when { context.acknowledged }`; or classify the tools, if they can be taken back",
        )),
        _ => None,
    }
}

/// A verdict of the charter, and its rules that led to it.
type Alone = (Verdict, Vec<String>);

/// What the charter makes of plain proposals, if everything else permitted them. Asked once for each case, however many rules there are.
struct Charter<'s> {
    snapshot: &'s Snapshot,
    known: RefCell<HashMap<(String, *const Target), Option<Alone>>>,
}

impl<'s> Charter<'s> {
    fn alone(&self, case: &Case<'s>) -> Option<Alone> {
        let key = (case.principal.to_string(), std::ptr::from_ref(case.target));
        let ask = || {
            let evaluation = under_charter(self.snapshot, case, &probe::facts(&case.target.input))?;
            let own = evaluation.policies.into_iter().filter(|id| id.starts_with("charter/"));
            Some((evaluation.verdict, own.collect()))
        };
        self.known.borrow_mut().entry(key).or_insert_with(ask).clone()
    }
}

/// A text that the tool's schema does not list: a rule that never fires.
fn unknown_values(snapshot: &Snapshot, rule: &Rule) -> Vec<Problem> {
    let actions = match rule.policy.action_constraint() {
        ActionConstraint::Any => Vec::new(),
        ActionConstraint::Eq(uid) => vec![uid],
        ActionConstraint::In(uids) => uids,
    };
    let mut compared = Vec::new();
    est::clauses(&rule.policy).iter().for_each(|clause| comparisons(&clause.body, &mut compared));
    let mut found = Vec::new();
    for (path, text) in compared {
        let types: Vec<Ty> = actions
            .iter()
            .filter_map(|action| {
                let id: &str = action.id().as_ref();
                let (server, tool) = id.split_once('/')?;
                Some(snapshot.catalogue().tool(server, tool)?.input())
            })
            .collect();
        let lists: Vec<&BTreeSet<String>> = types.iter().filter_map(|ty| members(ty, &path)).collect();
        if !lists.is_empty() && lists.len() == actions.len() && lists.iter().all(|members| !members.contains(&text)) {
            let all: BTreeSet<&str> = lists.into_iter().flatten().map(String::as_str).collect();
            let help = match nearest(&text, all.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("its schema lists {}", all.into_iter().collect::<Vec<_>>().join(", ")),
            };
            let what = format!("`context.input.{}` is never \"{}\"", path.join("."), text.escape_debug());
            found.push(warn(rule, "unknown_value", what, help));
        }
    }
    found
}

fn members<'t>(ty: &'t Ty, path: &[String]) -> Option<&'t BTreeSet<String>> {
    match (ty, path) {
        (Ty::Text(Some(members)), []) => Some(members),
        (Ty::Record(fields, _), [name, rest @ ..]) => members(&fields.get(name)?.ty, rest),
        (Ty::Set(item), []) => members(item, &[]),
        _ => None,
    }
}

/// Arguments that are compared with texts.
fn comparisons(expression: &Value, found: &mut Vec<(Vec<String>, String)>) {
    if let Some((operator @ ("==" | "!=" | "contains"), operands)) = est::operation(expression) {
        let argument = |side: &str| {
            let path = est::context_path(operands.get(side)?)?;
            match path.as_slice() {
                ["input", rest @ ..] if !rest.is_empty() => Some(rest.iter().map(|name| (*name).to_owned()).collect()),
                _ => None,
            }
        };
        let text = |side: &str| Some(operands.get(side)?.get("Value")?.as_str()?.to_owned());
        let sides: &[(&str, &str)] =
            if operator == "contains" { &[("left", "right")] } else { &[("left", "right"), ("right", "left")] };
        found.extend(sides.iter().filter_map(|(one, other)| Some((argument(one)?, text(other)?))));
    }
    est::parts(expression).into_iter().for_each(|part| comparisons(part, found));
}

/// Tools that no permit could ever let through, one warning a server.
fn tools_without_rule(snapshot: &Snapshot) -> Vec<Problem> {
    let mut open: BTreeSet<String> = BTreeSet::new();
    for case in snapshot.cases() {
        // A forbid that shuts a tool is a rule for it as well.
        let permits = |slice: &Slice| {
            let mut policies = slice.plain.policies();
            policies.any(|p| p.effect() == Effect::Permit && LayerName::of(p.id()) == Some(LayerName::Site))
        };
        if case.slice.as_deref().is_some_and(permits) {
            open.insert(case.target.action.id().unescaped().to_owned());
        }
    }
    let mut shut: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (server, tools) in &snapshot.catalogue().servers {
        if !snapshot.has_server(server) || snapshot.workers().is_empty() {
            continue;
        }
        for tool in tools.keys().filter(|tool| !open.contains(&format!("{server}/{tool}"))) {
            shut.entry(server).or_default().push(tool);
        }
    }
    let warning = |(server, tools): (&str, Vec<&str>)| Problem {
        code: "tool_without_rule".into(),
        severity: Severity::Warning,
        help: Some(format!(
            "permit `action == Action::\"{server}/{}\"` where it is wanted",
            tools.first().unwrap_or(&"…")
        )),
        ..Problem::general(format!("no permit's scope fits these tools of `{server}`: {}", tools.join(", ")))
    };
    shut.into_iter().map(warning).collect()
}
