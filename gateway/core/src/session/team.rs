//! Handing a session to people: to which team, with which tool, and how the session stands afterwards.

use super::app::{App, Rule};
use super::rule::{TEAM, names};
use serde::{Deserialize, Serialize};

/// What is to be done when a person hands a session on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// The tool that tells the team. Nothing is called when absent.
    pub tool: Option<String>,
    /// The team.
    pub team: Option<String>,
    /// The field of the session that the team is kept in.
    pub team_field: String,
    /// The status that the session gets. It stays as it is when absent.
    pub status: Option<String>,
}

/// Plans it. `team` is what the person chose, if anything. Fails, and nothing is done, when the team is not one of the app's, or
/// when there is none for a tool that needs one.
pub fn escalation(app: &App, team: Option<&str>) -> Result<Escalation, String> {
    let team = team.or(app.escalate_action_default_team.as_deref());
    let tool = app.escalate_action_tool_name.as_deref();
    match team {
        Some(team) => is_known(app, team)?,
        None if tool.is_some() => return Err(format!("no team is named, and there is no default; {}", roster(app))),
        None => {}
    }
    let rule = tool.and_then(|tool| rule(app, tool));
    let first_field = rule.and_then(|rule| rule.extract_fields.first()).map(|(field, _)| field.as_str());
    let status = rule.map(|rule| &rule.status).or(app.default_terminal_status.as_ref());
    Ok(Escalation {
        tool: tool.map(str::to_owned),
        team: team.map(str::to_owned),
        team_field: first_field.unwrap_or(TEAM).to_owned(),
        status: status.cloned(),
    })
}

/// The first rule of a tool, whatever arguments it asks for: the person who hands on gives none.
fn rule<'a>(app: &'a App, tool: &str) -> Option<&'a Rule> {
    app.terminal_tools.iter().find(|rule| names(&rule.tool_name, tool))
}

fn is_known(app: &App, team: &str) -> Result<(), String> {
    let known = app.escalation_teams.is_empty() || app.escalation_teams.iter().any(|known| known == team);
    match !team.trim().is_empty() && known {
        true => Ok(()),
        false => Err(format!("team '{}' cannot take it; {}", team.escape_debug(), roster(app))),
    }
}

fn roster(app: &App) -> String {
    match app.escalation_teams.as_slice() {
        [] => "any name will do".to_owned(),
        teams => format!("teams: {}", teams.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixture::{app, rule, strings};
    use serde_json::json;

    fn paging() -> App {
        App {
            escalate_action_tool_name: Some("pager/call_people".into()),
            escalate_action_default_team: Some("network".into()),
            escalation_teams: strings(&["network", "storage"]),
            ..app()
        }
    }

    #[test]
    fn s2_38_the_default_team_takes_what_names_none() {
        assert_eq!(escalation(&paging(), None).unwrap().team.as_deref(), Some("network"));
        assert_eq!(escalation(&paging(), Some("storage")).unwrap().team.as_deref(), Some("storage"));
    }

    #[test]
    fn s2_38_a_team_is_optional_where_no_tool_is_called() {
        let mut app = paging();
        app.escalate_action_default_team = None;
        let error = escalation(&app, None).unwrap_err();
        assert!(error.contains("no team is named") && error.contains("network, storage"), "{error}");
        app.escalate_action_tool_name = None;
        let planned = escalation(&app, None).unwrap();
        assert_eq!((planned.tool, planned.team, planned.team_field.as_str()), (None, None, "team"));
    }

    #[test]
    fn s2_39_the_tools_rule_says_how_the_session_stands_then() {
        let status = |app: &App| escalation(app, None).unwrap().status;
        let mut app = paging();
        assert_eq!(status(&app).as_deref(), Some("handed_on"));
        app.escalate_action_tool_name = Some("call_people".into());
        assert_eq!(status(&app).as_deref(), Some("handed_on"));
        app.escalate_action_tool_name = Some("pager/other".into());
        assert_eq!(status(&app).as_deref(), Some("needs_review"), "no rule: the default");
        app.escalate_action_tool_name = None;
        assert_eq!(status(&app).as_deref(), Some("needs_review"), "no tool: the default");
        app.default_terminal_status = None;
        assert_eq!(status(&app), None, "no default: it stays");
    }

    #[test]
    fn s2_39_of_two_rules_of_a_tool_the_first_counts_whatever_it_asks_for() {
        let mut app = paging();
        app.terminal_tools = vec![
            rule("call_people", "failed").given("loud", json!(true)).taking("whom", &["args.whom"]),
            rule("call_people", "handed_on"),
        ];
        let planned = escalation(&app, None).unwrap();
        assert_eq!((planned.status.as_deref(), planned.team_field.as_str()), (Some("failed"), "whom"));
    }

    #[test]
    fn s2_40_the_team_is_kept_under_the_first_field_of_the_rule() {
        let mut app = paging();
        app.terminal_tools =
            vec![rule("call_people", "handed_on").taking("zone", &["args.z"]).taking("a", &["args.a"])];
        assert_eq!(escalation(&app, None).unwrap().team_field, "zone", "the first in the file, not in the alphabet");
        app.terminal_tools = vec![rule("call_people", "handed_on")];
        assert_eq!(escalation(&app, None).unwrap().team_field, "team");
    }

    #[test]
    fn s2_41_a_team_outside_the_roster_is_refused_by_name() {
        for team in ["marketing", "", " ", "Network", " network"] {
            let error = escalation(&paging(), Some(team)).unwrap_err();
            assert!(error.contains(&format!("'{team}'")) && error.contains("network, storage"), "{error}");
        }
        let mut silent = paging();
        silent.escalate_action_tool_name = None;
        assert!(escalation(&silent, Some("marketing")).is_err(), "also where no tool is called");
    }

    #[test]
    fn s2_41_without_a_roster_any_team_will_do_but_none_at_all() {
        let app = App { escalation_teams: Vec::new(), ..paging() };
        assert_eq!(escalation(&app, Some("marketing")).unwrap().team.as_deref(), Some("marketing"));
        assert!(escalation(&app, Some("")).is_err() && escalation(&app, Some("\t")).is_err());
    }
}
