//! The tool catalogue as it changes: what servers list, and what operators say of it.

use super::{Error, Governor, Setup, State, is_meant, save_catalogue};
use crate::mcp::discover;
use crate::pattern::Pattern;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warden_core::catalogue::{Catalogue, Effect, Tool, hash_of};
use warden_core::journal::record::PolicyEvent;
use warden_core::secrets::Scanner;

/// How long a server that gave no list is left alone.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What an operator says of tools.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classify {
    /// `SERVER/TOOL`, with `*` for any part of a name.
    pub tools: String,
    /// The effect.
    pub effect: Option<Effect>,
    /// Whether it reaches beyond the operators' machines.
    pub open_world: Option<bool>,
    /// Further names of path arguments.
    pub paths: Option<Vec<String>>,
    /// Groups they are in, for compositions; `none` for none.
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    /// Arguments that carry authority; `none` for none, `suggested` for those that the schema suggests.
    #[serde(default)]
    pub authority: Option<Vec<String>>,
}

/// Asks servers that were never listed for their tools. What goes wrong is told and does not keep Warden from starting:
/// such a server's tools stay unlisted.
pub async fn discover(setup: &Setup, catalogue: &mut Catalogue, scanner: &Arc<Scanner>) -> Vec<String> {
    let mut added = Vec::new();
    for (name, server) in &setup.servers {
        if catalogue.servers.get(name).is_some_and(|tools| !tools.is_empty()) {
            continue;
        }
        match discover::tools(name, server, setup.settings, scanner).await {
            Ok(tools) => {
                let learnt = catalogue.learn(name, &tools, true);
                for why in learnt.refused {
                    tracing::warn!(server = name, "{why}: it is not catalogued and cannot be called");
                }
                added.extend(learnt.added.into_iter().map(|tool| format!("{name}/{tool}")));
            }
            Err(e) => tracing::warn!("{e}; its tools stay unlisted until it answers"),
        }
    }
    added
}

impl Governor {
    /// Lists a server's tools once, if that never worked before.
    pub async fn ensure_listed(&self, server: &str) {
        let known = |state: &State| state.catalogue.servers.get(server).is_some_and(|tools| !tools.is_empty());
        if known(&*self.state.lock().await) {
            return;
        }
        {
            // A server without an answer is asked now and then, not by every worker that connects.
            let mut asked = self.asked.lock().await;
            if asked.get(server).is_some_and(|at| at.elapsed() < ASK_AGAIN) {
                return;
            }
            asked.insert(server.to_owned(), Instant::now());
        }
        let mut setup = self.setup.clone();
        setup.servers.retain(|name, _| name == server);
        // Operators' changes go on meanwhile.
        let mut found = Catalogue::default();
        let added = discover(&setup, &mut found, &self.gate.ports.scanner).await;
        let mut state = self.state.lock().await;
        if added.is_empty() || known(&state) {
            return;
        }
        let mut next = state.clone();
        next.catalogue.servers.extend(found.servers);
        if let Err(e) = self.change(&mut state, next, PolicyEvent::Catalogued, added).await {
            tracing::error!(server, error = %e, "the listed tools could not be taken into the catalogue");
        }
    }

    /// Takes in what a server lists now: differences wait for an operator, and a known tool with another definition is held for a person
    /// until then.
    pub async fn compare(&self, server: &str, tools: &[serde_json::Value]) {
        let mut state = self.state.lock().await;
        let mut next = state.clone();
        let learnt = next.catalogue.learn(server, tools, false);
        let news = learnt.waiting.len() + learnt.again.len() + learnt.returned.len();
        if news == 0 {
            return;
        }
        tracing::warn!(server, tools = news, "tools appeared or changed: `warden tools list` shows them");
        let known = |name: &&String| next.catalogue.tool(server, name).is_some();
        let turned = learnt.waiting.iter().filter(known).chain(&learnt.returned);
        let turned: Vec<String> = turned.map(|name| format!("{server}/{name}")).collect();
        // What decides is made anew when a tool starts or ends to be held, not whenever its server says something else again.
        let event = if learnt.returned.is_empty() { PolicyEvent::Quarantined } else { PolicyEvent::Returned };
        let done = match turned.is_empty() {
            true => save_catalogue(&self.setup.data_dir, &next.catalogue).map_err(Error::from).map(|()| *state = next),
            false => self.change(&mut state, next, event, turned).await,
        };
        if let Err(e) = done {
            tracing::error!(server, error = %e, "what the server lists now could not be taken into the catalogue");
        }
    }

    /// The catalogue of now, with what waits.
    pub async fn catalogue(&self) -> Catalogue {
        self.state.lock().await.catalogue.clone()
    }

    /// Takes in a tool's new definition, or a new tool, as an operator has seen it: by its hash. What was said of the definition before
    /// says nothing of it.
    pub async fn approve(&self, operator: &str, tool: &str, hash: &str, effect: Option<Effect>) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let mut next = state.clone();
        let (server, name) = tool.split_once('/').unwrap_or_default();
        let (waits, paths) = match next.catalogue.servers.get_mut(server).and_then(|tools| tools.get_mut(name)) {
            // That an argument is a path can only narrow what is allowed, so it is still so.
            Some(known) => (known.changed.take(), known.paths.clone()),
            None => {
                let waits = next.catalogue.waiting.get_mut(server).and_then(|waiting| waiting.remove(name));
                (waits, Vec::new())
            }
        };
        let Some(definition) = waits else {
            return Err(Error::Refused(format!("nothing of `{tool}` waits for an operator: see `warden tools list`")));
        };
        let mut fresh = Tool::listed(definition);
        if !is_meant(hash, &fresh.hash) {
            let now = &fresh.hash;
            return Err(Error::Refused(format!(
                "`{tool}` is `{now}` now, not `{hash}`: look at it again with `warden tools approve {tool}`"
            )));
        }
        (fresh.effect, fresh.paths) = (effect, paths);
        let now = fresh.hash.clone();
        next.catalogue.servers.entry(server.to_owned()).or_default().insert(name.to_owned(), fresh);
        next.catalogue.waiting.retain(|_, waiting| !waiting.is_empty());
        let act = ("tools_approve", format!("{tool} {now}"));
        self.change_by(&mut state, next, PolicyEvent::Approved, (operator, act), vec![tool.to_owned()]).await
    }

    /// Keeps to the definition in the catalogue and dismisses the other one, as an operator has seen it: by its hash. The tool stays held
    /// until its server lists the known definition again.
    pub async fn pin(&self, operator: &str, tool: &str, hash: &str) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let mut next = state.clone();
        let (server, name) = tool.split_once('/').unwrap_or_default();
        let known = next.catalogue.servers.get_mut(server).and_then(|tools| tools.get_mut(name));
        let Some(known) = known else {
            return Err(Error::Refused(format!("no catalogued tool is `{tool}`: see `warden tools list`")));
        };
        let Some(other) = known.changed.as_ref().map(hash_of) else {
            return Err(Error::Refused(format!("`{tool}` is as in the catalogue: nothing waits for an operator")));
        };
        if !is_meant(hash, &other) {
            return Err(Error::Refused(format!(
                "`{tool}` is listed as `{other}` now, not `{hash}`: look at it again with `warden tools approve {tool}`"
            )));
        }
        known.dismissed = Some(other.clone());
        let act = ("tools_pin", format!("{tool} {other}"));
        self.change_by(&mut state, next, PolicyEvent::Pinned, (operator, act), vec![tool.to_owned()]).await
    }

    /// Applies what an operator says of tools.
    pub async fn classify(&self, operator: &str, says: &Classify) -> Result<Vec<String>, Error> {
        let mut state = self.state.lock().await;
        let mut next = state.clone();
        let mut changed = Vec::new();
        for (server, tools) in &mut next.catalogue.servers {
            for (name, tool) in tools {
                let full = format!("{server}/{name}");
                if !Pattern::new(&says.tools).fits(&full) {
                    continue;
                }
                tool.effect = says.effect.or(tool.effect);
                tool.open_world = says.open_world.or(tool.open_world);
                if let Some(paths) = &says.paths {
                    tool.paths.clone_from(paths);
                }
                let is = |all: &[String], word: &str| all.iter().any(|one| one == word);
                if let Some(groups) = &says.groups {
                    tool.groups = groups.iter().filter(|group| *group != "none").cloned().collect();
                }
                match &says.authority {
                    Some(names) if is(names, "suggested") => tool.authority = None,
                    Some(names) => {
                        tool.authority = Some(names.iter().filter(|name| *name != "none").cloned().collect())
                    }
                    None => {}
                }
                changed.push(full);
            }
        }
        if changed.is_empty() {
            let waits = |(server, tools): (&String, &BTreeMap<String, serde_json::Value>)| {
                tools.keys().any(|name| Pattern::new(&says.tools).fits(&format!("{server}/{name}")))
            };
            let help = match next.catalogue.waiting.iter().any(waits) {
                true => "it is new: take it in with `warden tools approve`",
                false => "see `warden tools list`",
            };
            return Err(Error::Refused(format!("no catalogued tool matches `{}`: {help}", says.tools)));
        }
        let what = says.effect.map_or_else(String::new, |effect| format!(" as {effect}"));
        let act = ("tools_classify", format!("{}{what}", says.tools));
        self.change_by(&mut state, next, PolicyEvent::Classified, (operator, act), changed.clone()).await?;
        Ok(changed)
    }
}
