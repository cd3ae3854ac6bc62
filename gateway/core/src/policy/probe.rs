//! Known-forbidden probes: proposals that no snapshot may allow. Run on the very snapshot that would serve, through the
//! same code, before it serves.

use super::snapshot::{Case, Snapshot};
use super::{Problem, Problems};
use crate::catalogue::Effect;
use crate::catalogue::input::Input;
use crate::catalogue::ty::Ty;
use crate::facts::{Facts, Mode};
use crate::secrets::Finding;
use crate::verdict::{Verdict, evaluate_alone};
use cedar_policy::RestrictedExpression as Expression;
use std::collections::HashSet;
use std::sync::Arc;

/// Refuses a snapshot that allows a probe, or lets it be acknowledged where nobody may.
pub(super) fn run(snapshot: &Snapshot) -> Result<(), Problems> {
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    for case in snapshot.cases() {
        // Whoever shares a slice that looks at nobody gets the same verdict by it: nodes are many, and their slices few.
        let alike = case.slice.as_ref().filter(|slice| !slice.reads_principal).map(Arc::as_ptr);
        if alike.is_some_and(|slice| !seen.insert((slice, std::ptr::from_ref(case.target)))) {
            continue;
        }
        for (name, facts, worst) in probes(&case) {
            // What is above a node could only lower it, and must not have to.
            let verdict = evaluate_alone(snapshot, &case, &facts).verdict;
            if verdict.rank() > worst.rank() {
                problems.push(Problem {
                    code: "probe_allowed".into(),
                    file: "charter".into(),
                    message: format!(
                        "probe `{name}` got `{}` for {} on {}, and never more than `{}` is safe",
                        verdict.name(),
                        case.target.action,
                        case.resource,
                        worst.name()
                    ),
                    help: Some("this is a defect of Warden: report it, and do not serve".into()),
                    ..Problem::default()
                });
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// Name, facts, and the most that may come of it.
fn probes(case: &Case<'_>) -> Vec<(&'static str, Facts, Verdict)> {
    let plain = || facts(&case.target.input);
    let mut probes = vec![(
        "a secret passes",
        Facts {
            acknowledged: true,
            findings: vec![Finding { format: "probe".into(), at: String::new(), fingerprint: None, via: Vec::new() }],
            ..plain()
        },
        Verdict::Deny,
    )];
    probes.push(("`..` in a path, unattended", Facts { dot_segments: true, ..plain() }, Verdict::Escalate));
    let action: &str = case.target.action.id().as_ref();
    if action == "operate" {
        probes.push(("a worker operates", Facts { acknowledged: true, ..plain() }, Verdict::Deny));
    }
    let effect = case.resource_record.value().get("effect").and_then(serde_json::Value::as_str);
    if let Some(effect) = effect {
        let mut unseen = plain();
        unseen.input.unseen = vec!["/probe".into()];
        probes.push(("unseen arguments, unattended", unseen, Verdict::Escalate));
        if [Effect::Irreversible, Effect::Production].iter().any(|e| e.name() == effect) {
            probes.push(("an irreversible effect, unattended", plain(), Verdict::Escalate));
        }
    }
    probes
}

/// Facts of a proposal with nothing remarkable about it.
pub(crate) fn facts(input: &Ty) -> Facts {
    let unseen = if *input == Ty::Unseen { vec![String::new()] } else { Vec::new() };
    Facts {
        acknowledged: false,
        mode: Mode::Execute,
        findings: Vec::new(),
        suspicions: Vec::new(),
        dot_segments: false,
        budget: None,
        task: None,
        session: None,
        input: Input { cedar: sample(input), record: serde_json::Value::Null, unseen },
    }
}

/// Some value of a type, so that the request is a valid one.
pub(crate) fn sample(ty: &Ty) -> Option<Expression> {
    Some(match ty {
        Ty::Text(members) => {
            let text = members.as_ref().and_then(|members| members.first().cloned());
            Expression::new_string(text.unwrap_or_default())
        }
        Ty::Long => Expression::new_long(0),
        Ty::Decimal => Expression::new_decimal("0.0"),
        Ty::Bool => Expression::new_bool(false),
        Ty::Set(_) | Ty::Map(_) => Expression::new_set([]),
        Ty::Kinds(kinds) => {
            let (kind, ty) = kinds.iter().next()?;
            Expression::new_record([(kind.name().to_owned(), sample(ty)?)]).ok()?
        }
        Ty::Record(fields, _) => {
            let required = fields.iter().filter(|(_, field)| field.required && !field.nullable);
            let pairs = required.filter_map(|(name, field)| Some((name.clone(), sample(&field.ty)?)));
            Expression::new_record(pairs).ok()?
        }
        Ty::Unseen => return None,
    })
}
