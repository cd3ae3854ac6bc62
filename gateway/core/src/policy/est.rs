//! A look into conditions, on Cedar's JSON policy form (EST): what they say of `context.acknowledged`, the same with it
//! taken for true, and the same without a scope.

use cedar_policy::{Effect, Policy};
use serde_json::{Value, json};

/// `context` stands by itself, where `acknowledged` could be smuggled out of sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BareContext;

/// In which direction an expression moves when `context.acknowledged` becomes true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Polarity {
    /// It does not mention it.
    None,
    /// Towards true.
    Rising,
    /// Towards false.
    Falling,
    /// Nobody can say by looking.
    Mixed,
}

impl Polarity {
    fn flip(self) -> Self {
        match self {
            Self::Rising => Self::Falling,
            Self::Falling => Self::Rising,
            other => other,
        }
    }

    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, one) | (one, Self::None) => one,
            (a, b) if a == b => a,
            _ => Self::Mixed,
        }
    }

    fn opaque(self) -> Self {
        if self == Self::None { self } else { Self::Mixed }
    }
}

/// Whether acknowledging can only help this policy along. Sound by syntax, so a policy may be refused that a solver
/// would find harmless.
pub fn acknowledgement_helps(policy: &Policy) -> Result<bool, BareContext> {
    let Ok(est) = policy.to_json() else { return Ok(false) };
    let mut all = Polarity::None;
    for (unless, body) in conditions(&est) {
        if stands_bare(body) {
            return Err(BareContext);
        }
        let polarity = polarity(body);
        all = all.join(if unless { polarity.flip() } else { polarity });
    }
    Ok(match policy.effect() {
        Effect::Permit => matches!(all, Polarity::None | Polarity::Rising),
        Effect::Forbid => matches!(all, Polarity::None | Polarity::Falling),
    })
}

/// A policy prepared for a slice: its scope, known to be true there, taken away; and the same with
/// `context.acknowledged` taken for true, when it mentions it.
pub fn prepare(policy: &Policy) -> Option<(Policy, Option<Policy>)> {
    let mut est = policy.to_json().ok()?;
    for part in ["principal", "action", "resource"] {
        est[part] = json!({ "op": "All" });
    }
    let mut acknowledged = est.clone();
    let mut mentions = false;
    for condition in acknowledged.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(body) = condition.get_mut("body") {
            mentions |= take_for(body, true);
        }
    }
    let plain = Policy::from_json(Some(policy.id().clone()), est).ok()?;
    let acknowledged =
        if mentions { Some(Policy::from_json(Some(policy.id().clone()), acknowledged).ok()?) } else { None };
    Some((plain, acknowledged))
}

/// Whether a policy has conditions at all.
pub fn is_conditional(policy: &Policy) -> bool {
    policy.to_json().map_or(true, |est| conditions(&est).next().is_some())
}

/// A part of a rule's conditions that has to be true, or, from an `unless`, false, for the rule to match.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// It stood in an `unless`: it has to be false.
    pub unless: bool,
    /// The expression.
    pub body: Value,
}

impl Clause {
    /// As Cedar writes it.
    pub fn text(&self) -> String {
        let text = text_of(&self.body);
        if self.unless { format!("unless {text}") } else { text }
    }

    /// As a condition of a policy.
    pub fn condition(&self) -> Value {
        json!({ "kind": if self.unless { "unless" } else { "when" }, "body": self.body })
    }
}

/// The conditions of a policy as clauses: a `when` is split at its `&&`, an `unless` at its `||`.
pub fn clauses(policy: &Policy) -> Vec<Clause> {
    fn split<'e>(expression: &'e Value, at: &str, into: &mut Vec<&'e Value>) {
        match operation(expression) {
            Some((operator, operands)) if operator == at => {
                ["left", "right"].into_iter().filter_map(|side| operands.get(side)).for_each(|e| split(e, at, into));
            }
            _ => into.push(expression),
        }
    }
    let Ok(est) = policy.to_json() else { return Vec::new() };
    let mut all = Vec::new();
    for (unless, body) in conditions(&est) {
        let mut parts = Vec::new();
        split(body, if unless { "||" } else { "&&" }, &mut parts);
        all.extend(parts.into_iter().map(|body| Clause { unless, body: body.clone() }));
    }
    all
}

/// The policy with other conditions.
pub fn with_conditions(policy: &Policy, clauses: &[Clause]) -> Option<Policy> {
    let mut est = policy.to_json().ok()?;
    est["conditions"] = clauses.iter().map(Clause::condition).collect();
    Policy::from_json(Some(policy.id().clone()), est).ok()
}

/// An expression as Cedar writes it.
pub fn text_of(expression: &Value) -> String {
    let est = json!({ "effect": "permit", "principal": { "op": "All" }, "action": { "op": "All" }, "resource": { "op": "All" },
        "conditions": [{ "kind": "when", "body": expression }] });
    let text = Policy::from_json(None, est).map(|policy| policy.to_string()).unwrap_or_default();
    let body = text.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(body, _)| body);
    body.trim().to_owned()
}

/// The names of an attribute that is reached from `context`: `context.input.path` is `["input", "path"]`.
pub fn context_path(expression: &Value) -> Option<Vec<&str>> {
    if is_context(expression) {
        return Some(Vec::new());
    }
    let operands = expression.get(".")?;
    let mut path = context_path(operands.get("left")?)?;
    path.push(operands.get("attr")?.as_str()?);
    Some(path)
}

/// Whether an expression speaks of a variable: `principal`, `action`, `resource`, `context`.
pub fn names(expression: &Value, variable: &str) -> bool {
    expression.get("Var").is_some_and(|name| name == variable)
        || parts(expression).into_iter().any(|part| names(part, variable))
}

/// Whether a condition of a policy looks at who asks; also where that cannot be told.
pub fn mentions_principal(policy: &Policy) -> bool {
    fn inside(expression: &Value) -> bool {
        names(expression, "principal") || parts(expression).into_iter().any(inside)
    }
    policy.to_json().map_or(true, |est| conditions(&est).any(|(_, body)| inside(body)))
}

/// Whether a policy says anything of `context.acknowledged`.
pub fn mentions_acknowledged(policy: &Policy) -> bool {
    fn inside(expression: &Value) -> bool {
        is_acknowledged(expression) || parts(expression).into_iter().any(inside)
    }
    policy.to_json().is_ok_and(|est| conditions(&est).any(|(_, body)| inside(body)))
}

/// A policy with `context.acknowledged` taken for a constant.
pub fn with_acknowledged(policy: &Policy, value: bool) -> Option<Policy> {
    let mut est = policy.to_json().ok()?;
    for condition in est.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(body) = condition.get_mut("body") {
            take_for(body, value);
        }
    }
    Policy::from_json(Some(policy.id().clone()), est).ok()
}

pub(crate) fn conditions(est: &Value) -> impl Iterator<Item = (bool, &Value)> {
    let all = est.get("conditions").and_then(Value::as_array).into_iter().flatten();
    all.map(|condition| (condition["kind"] == "unless", &condition["body"]))
}

fn is_context(expression: &Value) -> bool {
    expression.get("Var").is_some_and(|name| name == "context")
}

fn of_context<'e>(expression: &'e Value, operator: &str) -> Option<&'e Value> {
    let operands = expression.get(operator)?;
    is_context(operands.get("left")?).then(|| operands.get("attr"))?
}

fn is_acknowledged(expression: &Value) -> bool {
    of_context(expression, ".").is_some_and(|attribute| attribute == "acknowledged")
}

/// `context has acknowledged` is always true: every action's context has it.
fn has_acknowledged(expression: &Value) -> bool {
    of_context(expression, "has")
        .is_some_and(|attribute| *attribute == "acknowledged" || *attribute == json!(["acknowledged"]))
}

/// The expressions an expression is made of. A literal has none, and a record's members are not operators.
pub(crate) fn parts(expression: &Value) -> Vec<&Value> {
    let Some((operator, operands)) = operation(expression) else { return Vec::new() };
    match (operator, operands) {
        ("Value" | "Var" | "Slot", _) => Vec::new(),
        (_, Value::Object(members)) => members.values().collect(),
        (_, Value::Array(items)) => items.iter().collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn parts_mut(expression: &mut Value) -> Vec<&mut Value> {
    let Some((operator, operands)) =
        expression.as_object_mut().filter(|o| o.len() == 1).and_then(|o| o.iter_mut().next())
    else {
        return Vec::new();
    };
    match (operator.as_str(), operands) {
        ("Value" | "Var" | "Slot", _) => Vec::new(),
        (_, Value::Object(members)) => members.iter_mut().map(|(_, part)| part).collect(),
        (_, Value::Array(items)) => items.iter_mut().collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn operation(expression: &Value) -> Option<(&str, &Value)> {
    let members = expression.as_object().filter(|members| members.len() == 1)?;
    members.iter().next().map(|(operator, operands)| (operator.as_str(), operands))
}

fn stands_bare(expression: &Value) -> bool {
    if of_context(expression, ".").is_some() || of_context(expression, "has").is_some() {
        return false;
    }
    is_context(expression) || parts(expression).into_iter().any(stands_bare)
}

fn polarity(expression: &Value) -> Polarity {
    if is_acknowledged(expression) {
        return Polarity::Rising;
    }
    if has_acknowledged(expression) {
        return Polarity::None;
    }
    if let Some((operator, operands)) = operation(expression) {
        let side = |name: &str| operands.get(name).map_or(Polarity::None, polarity);
        match operator {
            "!" => return side("arg").flip(),
            "&&" | "||" => return side("left").join(side("right")),
            "if-then-else" => return side("if").opaque().join(side("then")).join(side("else")),
            "==" | "!=" => {
                for (one, other) in [("left", "right"), ("right", "left")] {
                    if let Some(constant) = operands.pointer(&format!("/{other}/Value")).and_then(Value::as_bool) {
                        let same = constant == (operator == "==");
                        return if same { side(one) } else { side(one).flip() };
                    }
                }
            }
            _ => {}
        }
    }
    parts(expression).into_iter().map(polarity).fold(Polarity::None, Polarity::join).opaque()
}

/// Puts a constant where `context.acknowledged` stood; whether it stood anywhere.
fn take_for(expression: &mut Value, value: bool) -> bool {
    if is_acknowledged(expression) {
        *expression = json!({ "Value": value });
        return true;
    }
    let mut any = false;
    for part in parts_mut(expression) {
        any |= take_for(part, value);
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helps(text: &str) -> Result<bool, BareContext> {
        acknowledgement_helps(&Policy::parse(None, text).unwrap())
    }

    #[test]
    fn acknowledgement_only_ever_helps() {
        for text in [
            "permit(principal, action, resource) when { context.acknowledged };",
            "permit(principal, action, resource) when { context[\"acknowledged\"] == true };",
            "permit(principal, action, resource) when { false != context.acknowledged && 1 < 2 };",
            "permit(principal, action, resource) unless { !context.acknowledged };",
            "forbid(principal, action, resource) unless { context.acknowledged };",
            "forbid(principal, action, resource) when { resource.x && !context.acknowledged };",
            "forbid(principal, action, resource) when { context has acknowledged };",
            "permit(principal, action, resource) when { \"context.acknowledged\" == context.x };",
            "permit(principal, action, resource) when { context.input.acknowledged };",
        ] {
            assert_eq!(helps(text), Ok(true), "{text}");
        }
        for text in [
            "forbid(principal, action, resource) when { context.acknowledged };",
            "permit(principal, action, resource) unless { context.acknowledged };",
            "permit(principal, action, resource) when { if context.acknowledged then resource.a else true };",
            "permit(principal, action, resource) when { context.acknowledged == resource.a };",
            "permit(principal, action, resource) when { [true].contains(context.acknowledged) };",
            "permit(principal, action, resource) when { context.acknowledged || !context.acknowledged };",
        ] {
            assert_eq!(helps(text), Ok(false), "{text}");
        }
        assert_eq!(
            helps("permit(principal, action, resource) when { {x: context}.x.acknowledged };"),
            Err(BareContext)
        );
        assert_eq!(helps("permit(principal, action, resource) when { context == resource };"), Err(BareContext));
    }

    #[test]
    fn a_record_called_value_is_not_mistaken_for_a_literal() {
        assert_eq!(
            helps("forbid(principal, action, resource) when { {Value: context.acknowledged}.Value };"),
            Ok(false)
        );
    }

    #[test]
    fn prepared_policies_lose_their_scope_and_their_question() {
        let text = "forbid(principal == Worker::\"a\", action, resource is Tool) when { resource.x } unless { context.acknowledged };";
        let (plain, acknowledged) = prepare(&Policy::parse(None, text).unwrap()).unwrap();
        let shown = plain.to_string();
        assert!(!shown.contains("Worker") && shown.contains("context"), "{shown}");
        let shown = acknowledged.unwrap().to_string();
        assert!(!shown.contains("acknowledged") && shown.contains("true"), "{shown}");
    }
}
