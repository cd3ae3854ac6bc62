//! Every action on every resource that the configuration and the catalogue lead to.

use super::entities::uid;
use super::level::{Inbound, Level};
use super::schema::verb_input;
use super::snapshot::{Engine, EngineTargets, Server, Source, Target};
use crate::catalogue::ty::Ty;
use crate::catalogue::{Effect as ToolEffect, Tool};
use crate::proposal::{DoneTo, Verb};
use crate::task::convention::RESERVED_KEYS;
use cedar_policy::EntityUid;
use std::collections::HashMap;
use std::sync::Arc;

/// All targets, and the place of each by what is asked.
pub(super) struct Targets {
    pub(super) all: Vec<Target>,
    pub(super) servers: HashMap<String, Server>,
    pub(super) engines: HashMap<String, EngineTargets>,
    /// By member; the one of all others under the empty name.
    pub(super) state: HashMap<String, usize>,
    pub(super) inboxes: HashMap<String, HashMap<Verb, usize>>,
    pub(super) operate: usize,
    /// By name.
    pub(super) apps: HashMap<String, usize>,
    /// By whole name.
    pub(super) nodes: HashMap<String, usize>,
    /// Whose resource is any other's, so it is in no list.
    pub(super) acknowledge: Target,
}

pub(super) fn targets(source: &Source) -> Result<Targets, String> {
    let mut targets = Vec::new();
    let mut servers = HashMap::new();
    let mut add = |target: Target| {
        targets.push(target);
        targets.len() - 1
    };
    for name in &source.servers {
        let server = uid("Server", name)?;
        let actions = |id: &str| -> Result<Vec<EntityUid>, String> {
            ["call_tool", "effect"].into_iter().chain([id]).map(|id| uid("Action", id)).collect()
        };
        let mut tools = HashMap::new();
        for (tool_name, tool) in source.catalogue.servers.get(name).into_iter().flatten() {
            let number = add(Target {
                action: uid("Action", &format!("{name}/{tool_name}"))?,
                resource: uid("Tool", &format!("{name}/{tool_name}"))?,
                resource_record: Arc::new(tool_record(
                    name,
                    tool_name,
                    tool.effect(),
                    tool.open_world.unwrap_or(true),
                    Some(tool),
                )),
                input: tool.input(),
                paths: tool.paths.clone(),
                header_params: tool.header_params(),
                level: Level::default(),
                inbound: Inbound::default(),
                action_lineage: actions(&format!("{name}/*"))?,
                resource_parents: vec![server.clone()],
            });
            tools.insert(tool_name.clone(), number);
        }
        // No tool is called `*`, so this resource is nobody else's.
        let unlisted = add(Target {
            action: uid("Action", "call_tool/unlisted")?,
            resource: uid("Tool", &format!("{name}/*"))?,
            resource_record: Arc::new(tool_record(name, "*", ToolEffect::Production, true, None)),
            input: Ty::Unseen,
            paths: Vec::new(),
            header_params: Vec::new(),
            level: Level::default(),
            inbound: Inbound::default(),
            action_lineage: vec![uid("Action", "call_tool")?, uid("Action", "effect")?],
            resource_parents: vec![server.clone()],
        });
        let mut verbs = HashMap::new();
        for verb in Verb::ALL.into_iter().filter(|verb| verb.done_to() == DoneTo::Server) {
            let groups: &[&str] = match verb {
                Verb::Connect | Verb::ListTools | Verb::ListResources | Verb::ListPrompts => &["protocol"],
                verb if verb.is_server_request() => &["server_request", "effect"],
                _ => &["effect"],
            };
            let number = add(Target {
                action: uid("Action", verb.action())?,
                resource: server.clone(),
                resource_record: Arc::new(serde_json::json!({ "type": "Server", "id": name })),
                input: verb_input(verb),
                paths: Vec::new(),
                header_params: Vec::new(),
                level: Level::default(),
                inbound: Inbound::default(),
                action_lineage: groups.iter().map(|g| uid("Action", g)).collect::<Result<_, _>>()?,
                resource_parents: Vec::new(),
            });
            verbs.insert(verb, number);
        }
        servers.insert(name.clone(), Server { tools, unlisted, verbs });
    }
    let operate = add(Target {
        action: uid("Action", Verb::Operate.action())?,
        resource: uid("Plane", "operator")?,
        resource_record: Arc::new(serde_json::json!({ "type": "Plane", "id": "operator" })),
        input: verb_input(Verb::Operate),
        paths: Vec::new(),
        header_params: Vec::new(),
        level: Level::default(),
        inbound: Inbound::default(),
        action_lineage: vec![uid("Action", "govern")?, uid("Action", "effect")?],
        resource_parents: Vec::new(),
    });
    let mut single = |verb: Verb, record: serde_json::Value| -> Result<usize, String> {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        Ok(add(Target {
            action: uid("Action", verb.action())?,
            resource: uid(&text("type"), &text("id"))?,
            resource_record: Arc::new(record),
            input: verb_input(verb),
            paths: Vec::new(),
            header_params: Vec::new(),
            level: Level::default(),
            inbound: Inbound::default(),
            action_lineage: vec![uid("Action", "effect")?],
            resource_parents: Vec::new(),
        }))
    };
    let mut engines = HashMap::new();
    for Engine { id, kind, zone } in &source.engines {
        let record = serde_json::json!({ "type": "Engine", "id": id, "kind": kind, "zone": zone });
        let call = single(Verb::CallEngine, record.clone())?;
        let tool_call = single(Verb::ProposeToolCall, record)?;
        engines.insert(id.clone(), EngineTargets { call, tool_call });
    }
    let mut state = HashMap::new();
    let reserved = RESERVED_KEYS.into_iter().chain(source.reserved_keys.iter().map(String::as_str));
    for (key, reserved) in reserved.map(|key| (key, true)).chain([("", false)]) {
        // No member is called `*` in a policy: it stands for all that are not reserved.
        let id = if key.is_empty() { "*" } else { key };
        let record = serde_json::json!({ "type": "StateKey", "id": id, "reserved": reserved });
        state.insert(key.to_owned(), single(Verb::WriteState, record)?);
    }
    let mut inboxes = HashMap::new();
    for inbox in &source.inboxes {
        let mut verbs = HashMap::new();
        for verb in Verb::OF_INBOX {
            let record = serde_json::json!({ "type": "Inbox", "id": inbox });
            let number = single(verb, record)?;
            verbs.insert(verb, number);
        }
        inboxes.insert(inbox.clone(), verbs);
    }
    let mut apps = HashMap::new();
    for app in &source.apps {
        let record = serde_json::json!({ "type": "App", "id": app.name });
        apps.insert(app.name.clone(), single(Verb::StartSession, record)?);
    }
    let mut nodes = HashMap::new();
    // Only a node of a composition has a `/` in its name.
    for node in source.workers.iter().filter(|worker| worker.name.contains('/')) {
        let record = serde_json::json!({ "type": "Worker", "id": node.name });
        nodes.insert(node.name.clone(), single(Verb::StartDelegate, record)?);
    }
    let mut numbers: Vec<usize> = inboxes.values().flat_map(HashMap::values).copied().collect();
    numbers.sort_unstable();
    for number in numbers {
        targets[number].action_lineage.insert(0, uid("Action", "inbox")?);
    }
    let acknowledge = Target {
        action: uid("Action", Verb::Acknowledge.action())?,
        // Only cases have one.
        resource: uid("Action", Verb::Acknowledge.action())?,
        resource_record: Arc::new(serde_json::Value::Null),
        input: verb_input(Verb::Acknowledge),
        paths: Vec::new(),
        header_params: Vec::new(),
        level: Level::default(),
        inbound: Inbound::default(),
        action_lineage: Vec::new(),
        resource_parents: Vec::new(),
    };
    Ok(Targets { all: targets, servers, engines, state, inboxes, operate, apps, nodes, acknowledge })
}

fn tool_record(
    server: &str,
    name: &str,
    effect: ToolEffect,
    open_world: bool,
    tool: Option<&Tool>,
) -> serde_json::Value {
    let mut record = serde_json::json!({
        "type": "Tool", "id": format!("{server}/{name}"), "parents": [server],
        "effect": effect, "open_world": open_world, "listed": tool.is_some() });
    // Said only when it is so: records are many.
    if tool.is_some_and(|tool| tool.changed.is_some()) {
        record["changed"] = true.into();
    }
    record
}
