//! One layer's policies, read from text and refused unless they can be trusted to mean what they say.

use super::{Problem, Problems, Span, est, text};
use crate::catalogue::sha256_hex;
use cedar_policy::{Effect, Policy, PolicyId, PolicySet};
use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The layers, each its own policy set, never one merged text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerName {
    /// Compiled in, forbids only.
    Charter,
    /// The operators' `policies/*.cedar`.
    Site,
    /// A tree of agents, resolved.
    Composition,
}

impl LayerName {
    /// The prefix of its policies' ids.
    pub fn prefix(self) -> &'static str {
        match self {
            LayerName::Charter => "charter/",
            LayerName::Site => "site/",
            LayerName::Composition => "composition/",
        }
    }

    /// The layer that a prefixed id belongs to.
    pub fn of(id: &PolicyId) -> Option<Self> {
        let id: &str = id.as_ref();
        [Self::Charter, Self::Site, Self::Composition].into_iter().find(|layer| id.starts_with(layer.prefix()))
    }
}

/// A policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, relative to the policy folder.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Whether a rule decides. Cedar has no word for it: `@mode` of a site's permit says it, or an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It decides.
    #[default]
    Live,
    /// It is evaluated beside what decides, and recorded apart.
    Shadow,
}

impl Standing {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Live => "live",
            Standing::Shadow => "shadow",
        }
    }
}

/// A standing that an operator has said, of a rule that says what it said then. One that says something else is another rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stood {
    /// Whether it decides.
    pub standing: Standing,
    /// [`Rule::hash`].
    pub of: String,
}

/// One policy with what people want to know of it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The policy; its id is the layer's prefix and its `@id`.
    pub policy: Policy,
    /// The file it stands in.
    pub file: String,
    /// The line it starts at, from 1.
    pub line: usize,
    /// Its bytes in the file.
    pub span: Span,
    /// Whether it decides.
    pub standing: Standing,
    /// `@reason`: the code that a refusal by it carries.
    pub reason: Option<String>,
    /// `@advice`: what a worker can do instead.
    pub advice: Option<String>,
    /// `@severity`.
    pub severity: Option<String>,
}

/// A layer, loaded.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Which.
    pub name: LayerName,
    /// Its policies, in the order of files and text.
    pub rules: Vec<Rule>,
    /// SHA-256 over file names and texts, `sha256:` and hex.
    pub digest: String,
}

impl Rule {
    /// SHA-256 of what it says, `sha256:` and hex: annotations and layout are no part of that.
    pub fn hash(&self) -> String {
        let mut est = self.policy.to_json().unwrap_or_default();
        if let Some(members) = est.as_object_mut() {
            members.shift_remove("annotations");
        }
        crate::catalogue::hash_of(&est)
    }
}

impl Layer {
    /// Reads a layer. Refuses templates, missing or duplicate ids, a charter permit, reasons that are no code, and
    /// policies in which acknowledgement could make something less allowed.
    pub fn load(name: LayerName, files: &[SourceFile]) -> Result<Self, Problems> {
        Self::load_as(name, name.prefix(), files)
    }

    /// Reads the layer of one composition; its name is part of the ids, since two compositions may use the same ones.
    pub fn composition(name: &str, files: &[SourceFile]) -> Result<Self, Problems> {
        Self::load_as(LayerName::Composition, &format!("{}{name}/", LayerName::Composition.prefix()), files)
    }

    fn load_as(name: LayerName, prefix: &str, files: &[SourceFile]) -> Result<Self, Problems> {
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        let mut seen: HashMap<String, String> = HashMap::new();
        for file in files {
            let unreadable = text::refused(file);
            if !unreadable.is_empty() {
                problems.extend(unreadable);
                continue;
            }
            let set: PolicySet = match file.text.parse() {
                Ok(set) => set,
                Err(e) => {
                    problems.extend(parse_problems(file, &e));
                    continue;
                }
            };
            for template in set.templates() {
                let mut place = Place::start(file);
                place.advance_to(&template.to_cedar());
                problems.push(place.problem(
                    "template",
                    None,
                    "templates are not accepted",
                    "write the policy out, without slots",
                ));
            }
            let mut place = Place::start(file);
            for policy in in_order(&set) {
                place.advance_to(&policy.to_cedar().unwrap_or_default());
                match rule(name, prefix, &place, policy) {
                    Ok(rule) => {
                        let id = rule.policy.id().to_string();
                        let at = format!("{}:{}", rule.file, rule.line);
                        if let Some(before) = seen.insert(id.clone(), at) {
                            let message = format!("`@id` stands at {before} already");
                            problems.push(place.problem(
                                "duplicate_id",
                                Some(&id),
                                &message,
                                "give each policy an id of its own",
                            ));
                        }
                        rules.push(rule);
                    }
                    Err(problem) => problems.push(*problem),
                }
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        Ok(Self { name, rules, digest: digest(files) })
    }

    /// The policies that decide, as one set.
    pub fn set(&self) -> PolicySet {
        let live = self.rules.iter().filter(|rule| rule.standing == Standing::Live);
        // Ids were checked to be unique.
        PolicySet::from_policies(live.map(|rule| rule.policy.clone())).unwrap_or_default()
    }
}

/// SHA-256 over the names and texts of policy files.
pub fn digest(files: &[SourceFile]) -> String {
    let all: Vec<(&str, &str)> = files.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
    sha256_hex(serde_json::json!(all).to_string().as_bytes())
}

/// The policies in the order of their text: parsing numbers them, and a set forgets the order.
fn in_order(set: &PolicySet) -> Vec<&Policy> {
    let number = |policy: &Policy| {
        let id: &str = policy.id().as_ref();
        id.trim_start_matches("policy").parse::<usize>().unwrap_or(usize::MAX)
    };
    let mut policies: Vec<&Policy> = set.policies().collect();
    policies.sort_by_key(|policy| number(policy));
    policies
}

/// A place in a file that only moves on, so that a long file is read once.
struct Place<'f> {
    file: &'f SourceFile,
    offset: usize,
    end: usize,
    line: usize,
}

impl<'f> Place<'f> {
    fn start(file: &'f SourceFile) -> Self {
        Self { file, offset: 0, end: 0, line: 1 }
    }

    /// To where `text` stands next.
    fn advance_to(&mut self, text: &str) {
        let rest = self.file.text.get(self.end..).unwrap_or_default();
        let Some(found) = rest.find(text) else { return };
        let offset = self.end + found;
        self.line += self.file.text[self.offset..offset].matches('\n').count();
        (self.offset, self.end) = (offset, offset + text.len());
    }

    fn span(&self) -> Span {
        Span { offset: self.offset, length: self.end - self.offset }
    }

    fn problem(&self, code: &str, policy: Option<&str>, message: &str, help: &str) -> Problem {
        let policy = policy.map(str::to_owned);
        Problem { policy, help: Some(help.into()), ..Problem::at(self.file, self.span(), code, message) }
    }
}

fn rule(layer: LayerName, prefix: &str, place: &Place<'_>, policy: &Policy) -> Result<Rule, Box<Problem>> {
    let refuse = |code: &str, message: &str, help: &str| {
        Box::new(place.problem(code, policy.annotation("id").filter(|id| !id.is_empty()), message, help))
    };
    let id = match policy.annotation("id") {
        Some(id) if !id.trim().is_empty() => id,
        _ => return Err(refuse("missing_id", "a policy without `@id`", "start it with `@id(\"a_name_of_its_own\")`")),
    };
    if layer == LayerName::Charter && policy.effect() == Effect::Permit {
        return Err(refuse("charter_permit", "the charter only forbids", "put permits into the site's policies"));
    }
    let standing = match (policy.annotation("mode"), layer, policy.effect()) {
        (None, ..) | (Some("live"), LayerName::Site, Effect::Permit) => Standing::Live,
        (Some("shadow"), LayerName::Site, Effect::Permit) => Standing::Shadow,
        (Some(_), LayerName::Site, Effect::Permit) => {
            return Err(refuse(
                "mode",
                "`@mode` is neither `shadow` nor `live`",
                "say `@mode(\"shadow\")`, or leave it out",
            ));
        }
        (Some(_), LayerName::Site, Effect::Forbid) => {
            return Err(refuse(
                "mode",
                "a forbid has no `@mode`: text alone must not take a guard away",
                "leave it out, apply it, and then `warden policy demote ID`",
            ));
        }
        (Some(_), ..) => {
            return Err(refuse("mode", "only a site's permit has a `@mode`", "leave it out"));
        }
    };
    let code = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if policy.annotation("reason").is_some_and(|reason| reason.is_empty() || !code(reason)) {
        return Err(refuse(
            "reason_code",
            "`@reason` is a code in snake_case",
            "for example `@reason(\"spends_money\")`; the sentence belongs into `@advice`",
        ));
    }
    match est::acknowledgement_helps(policy) {
        Ok(true) => {}
        Ok(false) => {
            return Err(refuse(
                "acknowledgement_polarity",
                "acknowledging could make something less allowed",
                "in a permit say `when { context.acknowledged }`, in a forbid `unless { context.acknowledged }`",
            ));
        }
        Err(est::BareContext) => {
            return Err(refuse(
                "bare_context",
                "`context` is used as a value",
                "name the field: `context.acknowledged`",
            ));
        }
    }
    Ok(Rule {
        policy: policy.new_id(PolicyId::new(format!("{prefix}{id}"))),
        file: place.file.name.clone(),
        line: place.line,
        span: place.span(),
        standing,
        reason: policy.annotation("reason").map(str::to_owned),
        advice: policy.annotation("advice").map(str::to_owned),
        severity: policy.annotation("severity").map(str::to_owned),
    })
}

fn parse_problems(file: &SourceFile, errors: &cedar_policy::ParseErrors) -> Vec<Problem> {
    errors
        .iter()
        .map(|e| {
            let label = e.labels().and_then(|mut labels| labels.next());
            let span = label.map_or(Span::default(), |label| Span { offset: label.offset(), length: label.len() });
            Problem { help: e.help().map(|help| help.to_string()), ..Problem::at(file, span, "syntax", e.to_string()) }
        })
        .collect()
}
