//! Keys of permission maps that name nothing there is. A mistyped `deny` denies nothing, and nobody would notice.

use super::permission::{Rule, Target};
use super::register::Checked;
use crate::catalogue::{Catalogue, Effect};
use std::collections::BTreeMap;

/// A note for each key that is about no server, no catalogued tool, no engine and no node of the composition, sorted. A tool may be listed
/// later, so this is never more than a note.
pub fn idle_keys(checked: &Checked, servers: &[&str], catalogue: &Catalogue, engines: &[&str]) -> Vec<String> {
    let maps = checked.nodes.iter().flat_map(|node| node.effective.maps());
    let named: BTreeMap<&str, &Rule> =
        maps.flat_map(|map| map.rules()).filter(|rule| rule.names_one()).map(|rule| (rule.key(), rule)).collect();
    let is_about_any = |rule: &Rule| {
        let server = |server: &&str| {
            let tools = catalogue.servers.get(*server).into_iter().flatten();
            let mut tools = tools.map(|(name, tool)| Target::Tool {
                server,
                tool: Some(name),
                is_read: tool.effect() == Effect::Read,
                is_bash: tool.groups.contains("bash"),
            });
            rule.is_about(&Target::Server { server, is_read: true }) || tools.any(|target| rule.is_about(&target))
        };
        let mut others = engines.iter().map(|id| Target::Engine { id });
        let mut below = checked.nodes.iter().map(|node| Target::Delegate { slug: &node.slug });
        servers.iter().any(server)
            || others.any(|target| rule.is_about(&target))
            || below.any(|target| rule.is_about(&target))
    };
    let idle = named.into_values().filter(|rule| !is_about_any(rule));
    idle.map(|rule| {
        let (key, grant) = (rule.key().escape_debug(), rule.grant().name());
        format!(
            "`{key}`: {grant} is about nothing there is now, no server, tool, engine or delegate: is it spelt right?"
        )
    })
    .collect()
}
