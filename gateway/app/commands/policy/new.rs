//! `warden policy new`.

use super::desk::{Desk, Prefer};
use crate::cli::{Desk as DeskArgs, Global, NewRule, PolicyNew};
use crate::commands::{plain, say};
use crate::exit::{Failure, Outcome};
use dialoguer::{Input, Select};
use std::fmt::Write;
use std::io::IsTerminal;
use warden_core::catalogue::ty::Ty;
use warden_core::policy::layer::{Layer, LayerName, SourceFile};
use warden_core::policy::snapshot::{Snapshot, Source};

/// Writes one policy into a file of its own, by asking what to allow or from flags, and only if it loads with the others.
pub(super) fn run(global: &Global, args: &PolicyNew) -> Outcome {
    let desk_args = DeskArgs { dir: args.dir.clone(), catalogue: None, charter: None };
    let desk = Desk::open(global, &desk_args, Prefer::Live)?;
    let rule = Rule::asked(args, &desk.source)?;
    let name = format!("{}.cedar", rule.id);
    let path = desk.dir.join(&name);
    let taken = desk.source.site.iter().find(|file| file.text.contains(&format!("@id(\"{}\")", rule.id)));
    if path.exists() || taken.is_some() {
        let at = taken.map_or(name.clone(), |file| file.name.clone());
        return Err(Failure::no(format!("a policy `{}` stands in `{at}` already: give another name", rule.id)));
    }
    let text = rule.text(&desk.source)?;
    let mut site = desk.source.site.clone();
    site.push(SourceFile { name: name.clone(), text: text.clone() });
    Snapshot::build(Source { site, ..desk.source.clone() })
        .map_err(|e| Failure::invalid(format!("this would not load, so nothing was written:\n{text}\n{e}")))?;
    warden_adapters::files::replace(&path, text.as_bytes())?;
    if global.json {
        say(serde_json::json!({ "id": rule.id, "file": path, "text": text }));
        return Ok(0);
    }
    say(format!("{}:\n\n{text}", path.display()));
    say(
        "Nothing has changed yet. Look at what it would change, then apply it:\n  warden policy replay\n  warden policy list",
    );
    Ok(0)
}

/// What was answered.
struct Rule {
    id: String,
    kind: NewRule,
    worker: Option<String>,
    tool: String,
    argument: Option<(String, String)>,
}

impl Rule {
    fn asked(args: &PolicyNew, source: &Source) -> Result<Self, Failure> {
        let ask = Asking { interactive: std::io::stdin().is_terminal() && std::io::stderr().is_terminal() };
        let kinds = [NewRule::Allow, NewRule::Hold, NewRule::Deny];
        let kind = match args.kind {
            Some(kind) => kind,
            None => {
                let says = ["allow a call, unattended", "hold a call for a person", "deny a call, whoever says yes"];
                kinds[ask.one("What should the policy do?", &says, "KIND")?]
            }
        };
        let tools: Vec<String> = source
            .catalogue
            .servers
            .iter()
            .flat_map(|(server, tools)| tools.keys().map(move |tool| format!("{server}/{tool}")))
            .collect();
        let tool = match &args.tool {
            Some(tool) => tool.clone(),
            None if tools.is_empty() => {
                return Err(Failure::invalid(
                    "no tools are known yet: they are listed when the gateway starts with a server",
                ));
            }
            None => tools[ask.one("Which tool?", &tools, "--tool")?].clone(),
        };
        let mut people = vec!["every worker".to_owned()];
        people.extend(source.workers.iter().map(|worker| format!("worker {}", worker.name)));
        let mut groups: Vec<&String> = source.workers.iter().flat_map(|worker| &worker.groups).collect();
        groups.sort();
        groups.dedup();
        people.extend(groups.into_iter().map(|group| format!("group {group}")));
        let worker = match (&args.worker, &args.group) {
            (Some(worker), _) => Some(format!("Worker::{}", literal(worker))),
            (None, Some(group)) => Some(format!("Group::{}", literal(group))),
            (None, None) if !ask.interactive => None,
            (None, None) => match people[ask.one("For whom?", &people, "--worker")?].split_once(' ') {
                Some(("worker", name)) => Some(format!("Worker::{}", literal(name))),
                Some(("group", name)) => Some(format!("Group::{}", literal(name))),
                _ => None,
            },
        };
        let argument = match (&args.argument, &args.like) {
            (Some(argument), Some(like)) => Some((argument.clone(), like.clone())),
            (None, None) if ask.interactive => ask.argument(source, &tool)?,
            (None, None) => None,
            _ => return Err(Failure::invalid("--argument and --like belong together")),
        };
        let suggested = {
            let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
            format!("{}_{}", kind.word(), tool.chars().map(word).collect::<String>())
        };
        let id = match &args.name {
            Some(name) => name.clone(),
            None if ask.interactive => {
                Input::new().with_prompt("Its name").default(suggested).interact_text().map_err(Failure::failed)?
            }
            None => suggested,
        };
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            return Err(Failure::invalid(format!("name `{}`: letters, digits, `_` and `-`", id.escape_debug())));
        }
        Ok(Self { id, kind, worker, tool, argument })
    }

    fn text(&self, source: &Source) -> Result<String, Failure> {
        let principal = match &self.worker {
            None => "principal".to_owned(),
            Some(entity) if entity.starts_with("Group") => format!("principal in {entity}"),
            Some(entity) => format!("principal == {entity}"),
        };
        let whole_server = self.tool.ends_with("/*");
        let action = format!("action {} Action::{}", if whole_server { "in" } else { "==" }, literal(&self.tool));
        let condition = match &self.argument {
            None => None,
            Some((argument, like)) => Some(condition(source, &self.tool, argument, like)?),
        };
        let mut text = String::new();
        let says = match self.kind {
            NewRule::Allow => "runs unattended",
            NewRule::Hold => "runs when a person acknowledges it",
            NewRule::Deny => "never runs",
        };
        let limited = self.argument.as_ref();
        let limited =
            limited.map_or_else(String::new, |(argument, like)| format!(", where `{argument}` is like {like}"));
        // Names are a server's: none of them may end the comment.
        let _ = writeln!(text, "// {}", plain(&format!("{} {says}{limited}.", self.tool)));
        let _ = writeln!(text, "@id(\"{}\")", self.id);
        if self.kind == NewRule::Deny {
            let _ = writeln!(text, "@advice(\"use another tool, or ask an operator\")");
        }
        if self.kind == NewRule::Hold {
            let _ = writeln!(text, "@advice(\"wait for a person's acknowledgement\")");
        }
        if self.kind != NewRule::Deny && self.worker.is_none() && whole_server {
            let _ = writeln!(text, "@unscoped(\"every worker may use this server\")");
        }
        let effect = if self.kind == NewRule::Deny { "forbid" } else { "permit" };
        let _ = write!(text, "{effect} ({principal}, {action}, resource)");
        let held = (self.kind == NewRule::Hold).then(|| "context.acknowledged".to_owned());
        let all: Vec<String> = condition.into_iter().chain(held).collect();
        if !all.is_empty() {
            let _ = write!(text, "\nwhen {{ {} }}", all.join(" && "));
        }
        text.push_str(";\n");
        let pretty = super::fmt::pretty(&text)?;
        let file = SourceFile { name: "new".into(), text: pretty.clone() };
        let ids = Layer::load(LayerName::Site, &[file]).map_err(Failure::invalid)?;
        match ids.rules.as_slice() {
            [one] if one.policy.id().to_string() == format!("site/{}", self.id) => Ok(pretty),
            _ => Err(Failure::failed("what was written is not the one policy that was asked for: write it by hand")),
        }
    }
}

/// A condition on one argument, by its type. `*` stands for anything.
fn condition(source: &Source, tool: &str, argument: &str, like: &str) -> Result<String, Failure> {
    let (server, name) = tool.split_once('/').unwrap_or_default();
    let known = source.catalogue.tool(server, name).map(|tool| tool.input());
    let Some(Ty::Record(fields, _)) = known else {
        return Err(Failure::invalid(format!(
            "`{tool}` is no single tool of the catalogue, so its arguments are not known"
        )));
    };
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    let Some(field) = fields.get(argument) else {
        return Err(Failure::invalid(format!("`{tool}` has no argument `{argument}`: {}", names.join(", "))));
    };
    let path = match argument.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => format!("context.input.{argument}"),
        false => format!("context.input[{}]", literal(argument)),
    };
    let test = match &field.ty {
        Ty::Text(_) if like.contains('*') => format!("{path} like {}", pattern(like)),
        Ty::Text(_) => format!("{path} == {}", literal(like)),
        Ty::Long if like.parse::<i64>().is_ok() => format!("{path} <= {like}"),
        Ty::Bool if ["true", "false"].contains(&like) => format!("{path} == {like}"),
        _ => return Err(Failure::invalid(format!("`{argument}`: {like} is not of its type; write this one by hand"))),
    };
    let optional = !field.required || field.nullable;
    let has = format!(
        "context.input has {}",
        if argument.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            argument.to_owned()
        } else {
            literal(argument)
        }
    );
    Ok(if optional { format!("{has} && {test}") } else { test })
}

/// A text as Cedar writes it.
fn literal(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

/// A pattern: stars stay stars.
fn pattern(text: &str) -> String {
    format!("\"{}\"", text.split('*').map(|part| part.escape_debug().to_string()).collect::<Vec<_>>().join("*"))
}

struct Asking {
    interactive: bool,
}

impl Asking {
    fn one(&self, prompt: &str, items: &[impl std::fmt::Display], flag: &str) -> Result<usize, Failure> {
        if !self.interactive {
            return Err(Failure::invalid(format!(
                "nobody is there to be asked: give {flag}; see `warden policy new --help`"
            )));
        }
        Select::new().with_prompt(prompt).items(items).default(0).interact().map_err(Failure::failed)
    }

    fn argument(&self, source: &Source, tool: &str) -> Result<Option<(String, String)>, Failure> {
        let (server, name) = tool.split_once('/').unwrap_or_default();
        let Some(Ty::Record(fields, _)) = source.catalogue.tool(server, name).map(|tool| tool.input()) else {
            return Ok(None);
        };
        let mut items = vec!["whatever its arguments are".to_owned()];
        items.extend(fields.keys().map(|name| format!("where `{}` is …", plain(name))));
        let chosen = self.one("With which arguments?", &items, "--argument")?;
        let Some(argument) = chosen.checked_sub(1).and_then(|n| fields.keys().nth(n)) else { return Ok(None) };
        let like: String = Input::new()
            .with_prompt(format!("`{}` is (`*` stands for anything; a number is the most it may be)", plain(argument)))
            .interact_text()
            .map_err(Failure::failed)?;
        Ok(Some((argument.clone(), like)))
    }
}
