//! Tools that an app names and that none of the servers lists. A terminal tool that is spelt wrong ends nothing, and nobody would notice.

use super::app::App;
use super::rule::names;
use crate::catalogue::Catalogue;
use crate::glob::fits;

/// A warning for each, with its place. Tools of a server that was never asked for its list are not known, and nothing is said of them.
pub fn unknown_tools(app: &App, catalogue: &Catalogue) -> Vec<String> {
    let all = tools(catalogue, catalogue.servers.keys());
    // An app without servers of its own hears of the calls of any.
    let own = if app.servers.is_empty() { all.clone() } else { tools(catalogue, app.servers.iter()) };
    let are_known = app.servers.iter().all(|server| catalogue.servers.contains_key(server));
    if own.is_empty() || !are_known {
        return Vec::new();
    }
    let rules = app.terminal_tools.iter().enumerate();
    let one = |place: &str, name: &String| (place.to_owned(), name.clone());
    let named = rules
        .map(|(n, rule)| (format!("terminal_tools[{n}].tool_name"), rule.tool_name.clone()))
        .chain(app.harvest_terminal_tools.iter().map(|name| one("harvest_terminal_tools", name)))
        .chain(app.patch_tools.iter().map(|name| one("patch_tools", name)))
        .chain(app.escalate_action_tool_name.iter().map(|name| one("escalate_action_tool_name", name)));
    let unheard_of = named.filter(|(_, name)| !own.iter().any(|tool| names(name, tool)));
    let counted = app.facts.iter().flat_map(|(name, fact)| fact.tools.iter().map(move |tool| (name, tool)));
    let uncounted = counted
        .filter(|(_, pattern)| !all.iter().any(|tool| fits(pattern, tool)))
        .map(|(name, pattern)| (format!("facts.{name}"), pattern.clone()));
    let warning = |(place, name): (String, String)| {
        format!("apps.{}.{place}='{}' is no tool that a server lists", app.name, name.escape_debug())
    };
    unheard_of.chain(uncounted).map(warning).collect()
}

fn tools<'c>(catalogue: &'c Catalogue, servers: impl Iterator<Item = &'c String>) -> Vec<String> {
    let of = |server: &'c String| {
        let tools = catalogue.servers.get(server).into_iter().flatten();
        tools.map(move |(tool, _)| format!("{server}/{tool}"))
    };
    servers.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::unknown_tools;
    use crate::catalogue::{Catalogue, Tool};
    use crate::session::fixture::{app, strings};
    use serde_json::json;

    #[test]
    fn a_tool_that_no_server_lists_is_told_with_its_place() {
        let tool = |name: &str| (name.to_owned(), Tool::listed(json!({ "name": name })));
        let desk = ["mark_done", "look"].map(tool).into();
        let catalogue = Catalogue { servers: [("desk".to_owned(), desk)].into(), ..Catalogue::default() };
        let mut app = app();
        app.servers = strings(&["desk"]);
        app.patch_tools = strings(&["look", "desk/lok"]);
        let told = ["terminal_tools[1].tool_name='call_people'", "patch_tools='desk/lok'"];
        assert_eq!(
            unknown_tools(&app, &catalogue),
            told.map(|what| format!("apps.a.{what} is no tool that a server lists"))
        );
        app.servers.push("pager".into());
        assert_eq!(unknown_tools(&app, &catalogue), [""; 0], "nobody knows what that server has");
    }
}
