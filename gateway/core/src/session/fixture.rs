//! An app for tests.

use super::app::{App, Rule, Source};
use super::raw::RawApp;
use super::status::{Kind, StatusDef};

pub(super) fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

pub(super) fn rule(tool: &str, status: &str) -> Rule {
    Rule { tool_name: tool.into(), status: status.into(), extract_fields: Vec::new(), match_args: [].into() }
}

impl Rule {
    pub(super) fn taking(mut self, field: &str, sources: &[&str]) -> Self {
        let sources = sources.iter().map(|text| Source::parse(text).unwrap()).collect();
        self.extract_fields.push((field.into(), sources));
        self
    }

    pub(super) fn given(mut self, arg: &str, value: serde_json::Value) -> Self {
        self.match_args.insert(arg.into(), value);
        self
    }
}

/// One that declares nothing: its sessions never change by themselves.
pub(super) fn bare() -> App {
    let (app, _) = App::check("a", RawApp::default(), &[].into(), &[]).unwrap();
    app
}

/// One that has a status of every kind, and two rules.
pub(super) fn app() -> App {
    let mut app = bare();
    for (name, terminal, kind) in [
        ("in_progress", false, Kind::Pending),
        ("done", true, Kind::Success),
        ("failed", true, Kind::Failure),
        ("handed_on", true, Kind::Escalation),
        ("needs_review", true, Kind::NeedsReview),
    ] {
        app.statuses.insert(name.into(), StatusDef { name: name.into(), terminal, kind });
    }
    app.default_terminal_status = Some("needs_review".into());
    app.terminal_tools = vec![
        rule("mark_done", "done").taking("resolution", &["args.summary", "result.text"]),
        rule("call_people", "handed_on").taking("team", &["args.team", "result.team"]),
    ];
    app
}
