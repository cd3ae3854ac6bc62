//! Makes an [`App`] of what people wrote, or says everything that is wrong with it at once: where, and with which value.

use super::app::{App, Rule, Source};
use super::harvest::{CERTAIN, thousandths};
use super::history::{Counts, FACTS_MAX, Fact};
use super::id;
use super::raw::{RawApp, RawFact, RawGates, RawKind, RawRisk, RawRule, RawStatus};
use super::risk::{Gates, Risk, listed};
use super::status::{BUILT_IN, Kind, StatusDef};
use crate::catalogue::Effect;
use std::collections::{BTreeMap, BTreeSet};

/// The longest name of anything, in bytes.
const NAME_MAX: usize = 128;
/// How much of a wrong value a message repeats, in characters.
const SHOWN_MAX: usize = 80;

/// What is in order, with warnings; or all problems.
pub type Checked<T> = Result<(T, Vec<String>), Vec<String>>;

/// Checks all apps: each by itself, and that no two make names of sessions that are, or look, the same.
pub fn apps(
    raw: BTreeMap<String, RawApp>,
    known_servers: &BTreeSet<String>,
    reserved: &[&str],
) -> Checked<BTreeMap<String, App>> {
    let (mut checked, mut warnings, mut problems) = (BTreeMap::new(), Vec::new(), alike(&raw));
    for (name, raw) in raw {
        match App::check(&name, raw, known_servers, reserved) {
            Ok((app, more)) => {
                warnings.extend(more);
                checked.insert(name, app);
            }
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok((checked, warnings)) } else { Err(problems) }
}

/// Prefixes that differ make names that differ ([`id`]). People take some for the same nevertheless: those that differ in case
/// or in hyphens at their end.
fn alike(raw: &BTreeMap<String, RawApp>) -> Vec<String> {
    let (mut first, mut problems) = (BTreeMap::new(), Vec::new());
    for (app, RawApp { session_id_prefix: prefix, .. }) in raw {
        let (of, before) = *first.entry(prefix.trim_end_matches('-').to_ascii_lowercase()).or_insert((app, prefix));
        if of != app {
            let how = if before == prefix { "is" } else { "is easily taken for" };
            let (prefix, before) = (quoted(prefix), quoted(before));
            problems.push(format!("apps.{app}.session_id_prefix={prefix} {how} the prefix {before} of apps.{of}"));
        }
    }
    problems
}

impl App {
    /// Checks one app. `known_servers` are the configured MCP servers; `reserved` the fields of a session that only its host
    /// writes.
    pub fn check(name: &str, raw: RawApp, known_servers: &BTreeSet<String>, reserved: &[&str]) -> Checked<App> {
        let mut check = Check { at: format!("apps.{name}"), problems: Vec::new(), warnings: Vec::new() };
        check.app_name(name);
        check.identity(&raw);
        check.statuses(&raw);
        check.rules(&raw, reserved);
        check.harvest(&raw);
        check.escalation(&raw);
        check.servers(&raw, known_servers);
        check.risks(&raw);
        check.gates(&raw.gates);
        check.limits(&raw);
        let facts = check.facts(&raw);
        match check.problems.is_empty() {
            true => Ok((App { facts, ..made(name, raw) }, check.warnings)),
            false => Err(check.problems),
        }
    }
}

/// What is found, below one app.
struct Check {
    at: String,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Check {
    fn problem(&mut self, what: impl AsRef<str>) {
        self.problems.push(format!("{}.{}", self.at, what.as_ref()));
    }

    fn warning(&mut self, what: impl AsRef<str>) {
        self.warnings.push(format!("{}.{}", self.at, what.as_ref()));
    }

    fn app_name(&mut self, name: &str) {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fine) {
            self.problems.push(format!("apps: the name {} is not 1 to 64 of a-z, 0-9, `.`, `_`, `-`", quoted(name)));
        }
    }

    fn identity(&mut self, raw: &RawApp) {
        if !id::is_prefix(&raw.session_id_prefix) {
            let prefix = quoted(&raw.session_id_prefix);
            let max = id::PREFIX_MAX;
            self.problem(format!("session_id_prefix={prefix} is not 1 to {max} ASCII letters, digits and hyphens"));
        }
    }

    fn statuses(&mut self, raw: &RawApp) {
        for (key, RawStatus { name, terminal, kind }) in &raw.statuses {
            let at = format!("statuses[{}]", quoted(key));
            if let Some(fault) = fault(key) {
                self.problem(format!("{at} {fault}"));
            }
            if name != key {
                self.problem(format!("{at}.name={} is not the key that it stands under", quoted(name)));
            }
            if BUILT_IN.contains(&key.as_str()) {
                self.problem(format!("{at} is a status that every session has; it cannot be declared"));
            }
            if *kind == RawKind::Pending && *terminal {
                self.problem(format!(
                    "{at}.kind='pending' says that the session goes on, and terminal=true that it does not"
                ));
            }
        }
        match &raw.default_terminal_status {
            None if raw.statuses.is_empty() => {}
            None => self.problem("default_terminal_status is required when statuses is non-empty"),
            Some(default) if raw.statuses.is_empty() => {
                self.problem(format!("default_terminal_status={} is set, and statuses is empty", quoted(default)));
            }
            Some(default) => {
                if let Some(fault) = unfit(raw, default) {
                    self.problem(format!("default_terminal_status={} {fault}", quoted(default)));
                }
            }
        }
    }

    fn rules(&mut self, raw: &RawApp, reserved: &[&str]) {
        if raw.statuses.is_empty() && !raw.terminal_tools.is_empty() {
            self.problem(format!("terminal_tools has {} of them, and statuses is empty", raw.terminal_tools.len()));
        }
        for (i, rule) in raw.terminal_tools.iter().enumerate() {
            let (status, tool) = (quoted(&rule.status), quoted(&rule.tool_name));
            if let Some(fault) = fault(&rule.tool_name) {
                self.problem(format!("terminal_tools[{i}].tool_name={tool} {fault}"));
            }
            if let Some(fault) = fault(&rule.status) {
                self.problem(format!("terminal_tools[{i}].status={status} (tool_name={tool}) {fault}"));
            } else if let Some(fault) = unfit(raw, &rule.status).filter(|_| !raw.statuses.is_empty()) {
                self.problem(format!("terminal_tools[{i}].status={status} (tool_name={tool}) {fault}"));
            }
            self.fields(i, rule, reserved);
            let hides = |other: &&RawRule| {
                let asks_no_more =
                    other.match_args.iter().all(|(name, value)| rule.match_args.get(name) == Some(value));
                other.tool_name == rule.tool_name && asks_no_more
            };
            if let Some(earlier) = raw.terminal_tools.iter().take(i).position(|other| hides(&other)) {
                let why = format!("terminal_tools[{earlier}] takes every call that would fit it");
                self.warning(format!("terminal_tools[{i}] (tool_name={tool}) is never reached: {why}"));
            }
        }
    }

    fn fields(&mut self, i: usize, rule: &RawRule, reserved: &[&str]) {
        for (field, sources) in &rule.extract_fields {
            let at = format!("terminal_tools[{i}].extract_fields[{}]", quoted(field));
            if let Some(fault) = fault(field) {
                self.problem(format!("{at} {fault}"));
            }
            if reserved.contains(&field.as_str()) {
                self.problem(format!("{at} is reserved: only the host writes it"));
            }
            if sources.is_empty() {
                self.problem(format!("{at} names no place to take it from"));
            }
            for (j, source) in sources.iter().enumerate().filter(|(_, source)| Source::parse(source).is_none()) {
                self.problem(format!("{at}[{j}]={} is neither args.NAME nor result.NAME", quoted(source)));
            }
        }
    }

    fn harvest(&mut self, raw: &RawApp) {
        self.names("harvest_terminal_tools", &raw.harvest_terminal_tools, fault);
        self.names("patch_tools", &raw.patch_tools, fault);
        self.names("signals", &raw.signals, fault);
        if raw.signals.is_empty() {
            self.problem("signals is empty: a worker could say nothing");
        }
        let is_terminal = |tool: &String| raw.terminal_tools.iter().any(|rule| rule.tool_name == *tool);
        for (i, tool) in raw.harvest_terminal_tools.iter().enumerate().filter(|(_, tool)| is_terminal(tool)) {
            let tool = quoted(tool);
            self.warning(format!("harvest_terminal_tools[{i}]={tool} is in terminal_tools too: it ends sessions"));
        }
        let is_typed = |tool: &String| is_terminal(tool) || raw.harvest_terminal_tools.contains(tool);
        for (i, tool) in raw.patch_tools.iter().enumerate().filter(|(_, tool)| is_typed(tool)) {
            let tool = quoted(tool);
            self.warning(format!("patch_tools[{i}]={tool} is a terminal tool too: its patch is not read"));
        }
    }

    fn escalation(&mut self, raw: &RawApp) {
        self.names("escalation_teams", &raw.escalation_teams, blank);
        if let Some((tool, fault)) = raw.escalate_action_tool_name.as_ref().and_then(|tool| Some((tool, fault(tool)?)))
        {
            self.problem(format!("escalate_action_tool_name={} {fault}", quoted(tool)));
        }
        let Some(team) = &raw.escalate_action_default_team else { return };
        let shown = quoted(team);
        if let Some(fault) = blank(team) {
            self.problem(format!("escalate_action_default_team={shown} {fault}"));
        } else if !raw.escalation_teams.is_empty() && !raw.escalation_teams.contains(team) {
            let teams = list(&raw.escalation_teams);
            self.problem(format!("escalate_action_default_team={shown} is not in escalation_teams: {teams}"));
        }
    }

    fn servers(&mut self, raw: &RawApp, known: &BTreeSet<String>) {
        self.names("servers", &raw.servers, |_| None);
        for (i, server) in raw.servers.iter().enumerate().filter(|(_, server)| !known.contains(*server)) {
            self.problem(format!(
                "servers[{i}]={} is no configured server; configured: {}",
                quoted(server),
                list(known)
            ));
        }
        if let Some((path, fault)) = raw.state_overrides_schema.as_ref().and_then(|path| Some((path, blank(path)?))) {
            self.problem(format!("state_overrides_schema={} {fault}", quoted(path)));
        }
    }

    fn risks(&mut self, raw: &RawApp) {
        for (at, risks) in [("risk", &raw.risk), ("production_risk", &raw.production_risk)] {
            for pattern in risks.keys() {
                let shown = quoted(pattern);
                let parts = pattern.split_once('/');
                if let Some(fault) = fault(pattern) {
                    self.problem(format!("{at}[{shown}] {fault}"));
                } else if parts.is_some_and(|(server, tool)| server.is_empty() || tool.is_empty()) {
                    self.problem(format!("{at}[{shown}] is neither SERVER/TOOL nor the name of a tool"));
                } else if let Some((server, _)) = parts.filter(|(server, _)| !server.contains('*'))
                    && !raw.servers.iter().any(|own| own == server)
                {
                    let servers = list(&raw.servers);
                    self.warning(format!("{at}[{shown}] is of no server of this app; servers: {servers}"));
                }
            }
        }
        let usual = checked(raw.risk.clone());
        for (pattern, raised) in checked(raw.production_risk.clone()) {
            // Of a pattern only the very same one says what it was; single calls are held to the higher risk anyway.
            let same = usual.get(&pattern).copied();
            let before = if pattern.contains('*') { same } else { same.or_else(|| listed(&usual, &pattern)) };
            if before.is_some_and(|before| raised < before) {
                let shown = quoted(&pattern);
                self.problem(format!("production_risk[{shown}] is lower than the usual risk; it can only be higher"));
            }
        }
    }

    fn gates(&mut self, gates: &RawGates) {
        self.names("gates.environments", &gates.environments, blank);
        if let Some(fault) = fault(&gates.environment_field) {
            self.problem(format!("gates.environment_field={} {fault}", quoted(&gates.environment_field)));
        }
        let least = gates.min_confidence;
        let exact = thousandths(least).is_some_and(|n| (f64::from(n) / f64::from(CERTAIN) - least).abs() < 1e-9);
        if !exact {
            self.problem(format!("gates.min_confidence={least} is not from 0 to 1 with at most three decimals"));
        }
        if !gates.risks.contains(&RawRisk::High) {
            self.warning("gates.risks lacks 'high': such tools run and nobody is asked");
        }
    }

    fn limits(&mut self, raw: &RawApp) {
        if raw.max_sessions == 0 {
            self.problem("max_sessions=0 lets no session open; it is at least 1");
        }
        if raw.max_open_s == Some(0) {
            self.problem("max_open_s=0 lets no session stay open; it is at least 1, or absent");
        }
    }

    fn facts(&mut self, raw: &RawApp) -> BTreeMap<String, Fact> {
        if raw.facts.len() > FACTS_MAX {
            self.problem(format!("facts has {} of them, and at most {FACTS_MAX} are kept", raw.facts.len()));
        }
        let mut facts = BTreeMap::new();
        for (name, fact) in &raw.facts {
            let at = format!("facts[{}]", quoted(name));
            let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(fine) {
                self.problem(format!("{at}: policies name it, so use letters, digits and `_`"));
            }
            match self::fact(fact) {
                Ok(fact) => drop(facts.insert(name.clone(), fact)),
                Err(fault) => self.problem(format!("{at}{fault}")),
            }
        }
        facts
    }

    /// A list of names, none of them there twice; case makes no difference.
    fn names(&mut self, at: &str, all: &[String], fault: impl Fn(&str) -> Option<&'static str>) {
        let mut seen = BTreeMap::new();
        for (i, name) in all.iter().enumerate() {
            if let Some(fault) = fault(name) {
                self.problem(format!("{at}[{i}]={} {fault}", quoted(name)));
            }
            let first = *seen.entry(name.to_ascii_lowercase()).or_insert(i);
            if first != i {
                self.problem(format!("{at}[{i}]={} is there already: {at}[{first}]", quoted(name)));
            }
        }
    }
}

/// A fact, or what is wrong with it.
fn fact(raw: &RawFact) -> Result<Fact, String> {
    let kinds = [("count", &raw.count), ("sum", &raw.sum), ("distinct", &raw.distinct), ("seen", &raw.seen)];
    let mut given = kinds.into_iter().filter_map(|(kind, tools)| Some((kind, tools.clone()?.into_vec())));
    let (Some((kind, tools)), None) = (given.next(), given.next()) else {
        return Err(": say exactly one of `count`, `sum`, `distinct` and `seen`".into());
    };
    if tools.is_empty() {
        return Err(format!(".{kind} names no tool; `*` stands for all"));
    }
    if let Some(bad) = tools.iter().find(|tool| !tool.contains('/') && *tool != "*") {
        return Err(format!(".{kind}={} is no SERVER/TOOL, with `*` and `?`", quoted(bad)));
    }
    let counts = match (kind, raw.of.clone()) {
        ("count", None) => Counts::Calls,
        ("sum", Some(of)) => Counts::Sum(of),
        ("distinct", Some(of)) => Counts::Distinct(of),
        ("seen", of) => Counts::Seen(of),
        ("count", Some(_)) => return Err(".of is for `sum`, `distinct` and `seen`".into()),
        _ => return Err(format!(".of is missing: `{kind}` is about an argument")),
    };
    let effect = match raw.effect.as_deref().map(str::parse::<Effect>) {
        None => None,
        Some(Ok(effect)) => Some(effect),
        Some(Err(fault)) => return Err(format!(".effect: {fault}")),
    };
    if raw.within_s == Some(0) {
        return Err(".within_s=0 is no window".into());
    }
    Ok(Fact { counts, tools, given: raw.given.clone(), effect, within_s: raw.within_s })
}

/// Why a status is not one that a session can end with.
fn unfit(raw: &RawApp, status: &str) -> Option<String> {
    match raw.statuses.get(status) {
        None => Some(format!("is no declared status; declared: {}", list(raw.statuses.keys()))),
        Some(RawStatus { terminal: true, .. }) => None,
        Some(_) => {
            let terminal = raw.statuses.iter().filter(|(_, status)| status.terminal).map(|(name, _)| name);
            Some(format!("references a non-terminal status; terminal: {}", list(terminal)))
        }
    }
}

/// What is wrong with the name of a status, a tool, a signal or a field.
fn fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        _ if name.len() > NAME_MAX => Some("is longer than 128 bytes"),
        _ if name.contains(|c: char| c.is_whitespace() || c.is_control()) => Some("has blanks or control characters"),
        _ => None,
    }
}

/// What is wrong with a text that may have blanks in its middle.
fn blank(text: &str) -> Option<&'static str> {
    match text {
        _ if text.trim().is_empty() => Some("is empty"),
        _ if text.trim() != text => Some("has blanks around it"),
        _ if text.contains(char::is_control) => Some("has control characters"),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("'{}{more}'", shown.escape_debug())
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What was checked, as the rest of Warden knows it.
fn made(name: &str, raw: RawApp) -> App {
    let status = |(key, raw): (String, RawStatus)| {
        (key, StatusDef { name: raw.name, terminal: raw.terminal, kind: raw.kind.into() })
    };
    App {
        name: name.to_owned(),
        session_id_prefix: raw.session_id_prefix,
        statuses: raw.statuses.into_iter().map(status).collect(),
        default_terminal_status: raw.default_terminal_status,
        terminal_tools: raw.terminal_tools.into_iter().map(Rule::from).collect(),
        harvest_terminal_tools: raw.harvest_terminal_tools,
        patch_tools: raw.patch_tools,
        escalate_action_tool_name: raw.escalate_action_tool_name,
        escalate_action_default_team: raw.escalate_action_default_team,
        escalation_teams: raw.escalation_teams,
        servers: raw.servers,
        state_overrides_schema: raw.state_overrides_schema,
        signals: raw.signals,
        risk: checked(raw.risk),
        production_risk: checked(raw.production_risk),
        gates: Gates {
            risks: raw.gates.risks.into_iter().map(Risk::from).collect(),
            environments: raw.gates.environments,
            environment_field: raw.gates.environment_field,
            // Without a number nobody is sure enough.
            min_confidence: thousandths(raw.gates.min_confidence).unwrap_or(CERTAIN),
        },
        max_sessions: raw.max_sessions,
        max_open_s: raw.max_open_s,
        facts: BTreeMap::new(),
    }
}

fn checked(risks: BTreeMap<String, RawRisk>) -> BTreeMap<String, Risk> {
    risks.into_iter().map(|(pattern, risk)| (pattern, risk.into())).collect()
}

impl From<RawRule> for Rule {
    fn from(raw: RawRule) -> Self {
        let places = |sources: Vec<String>| sources.iter().filter_map(|source| Source::parse(source)).collect();
        let extract_fields = raw.extract_fields.into_iter().map(|(field, sources)| (field, places(sources))).collect();
        Rule { tool_name: raw.tool_name, status: raw.status, extract_fields, match_args: raw.match_args }
    }
}

impl From<RawKind> for Kind {
    fn from(raw: RawKind) -> Self {
        match raw {
            RawKind::Success => Kind::Success,
            RawKind::Failure => Kind::Failure,
            RawKind::Escalation => Kind::Escalation,
            RawKind::NeedsReview => Kind::NeedsReview,
            RawKind::Pending => Kind::Pending,
        }
    }
}

impl From<RawRisk> for Risk {
    fn from(raw: RawRisk) -> Self {
        match raw {
            RawRisk::Low => Risk::Low,
            RawRisk::Medium => Risk::Medium,
            RawRisk::High => Risk::High,
        }
    }
}
