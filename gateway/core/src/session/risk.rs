//! Which calls of a session wait for a person: by the risk of the tool, where the session works, and how sure its worker is.

use super::app::App;
use super::harvest::CERTAIN;
use crate::glob::fits;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The risk of a tool, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Nobody needs to know.
    Low,
    /// People are told.
    Medium,
    /// A person decides.
    High,
}

/// What a risk means for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handling {
    /// It runs.
    Auto,
    /// It runs, and people are told.
    Notify,
    /// It waits for a person.
    Approve,
}

impl Risk {
    /// What it means for a call.
    pub fn handling(self) -> Handling {
        match self {
            Risk::Low => Handling::Auto,
            Risk::Medium => Handling::Notify,
            Risk::High => Handling::Approve,
        }
    }
}

/// What waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gates {
    /// Tools of these risks, everywhere.
    pub risks: BTreeSet<Risk>,
    /// Environments in which every tool but those of low risk waits.
    pub environments: Vec<String>,
    /// The field of a session that says which environment it works in.
    pub environment_field: String,
    /// How sure a worker has to be for any tool but those of low risk, in thousandths.
    pub min_confidence: u16,
}

impl Gates {
    /// Whether an environment is one of those that are gated. Case does not matter: `Production` is no way around.
    pub fn holds(&self, environment: &str) -> bool {
        self.environments.iter().any(|gated| gated.eq_ignore_ascii_case(environment.trim()))
    }
}

/// The risk that a list gives `SERVER/TOOL`. Its whole name comes first, then patterns with a server, then the tool's own name,
/// then patterns of such; of two patterns the one with more fixed characters, of two alike the higher risk. Nothing when it is
/// not in the list.
pub fn listed(risks: &BTreeMap<String, Risk>, tool: &str) -> Option<Risk> {
    let (server, bare) = match tool.split_once('/') {
        Some((server, bare)) => (Some(server), bare),
        None => (None, tool),
    };
    let with_server = |pattern: &str| match (pattern.split_once('/'), server) {
        (Some((servers, tools)), Some(server)) => fits(servers, server) && fits(tools, bare),
        _ => false,
    };
    let without = |pattern: &str| !pattern.contains('/') && fits(pattern, bare);
    exact(risks, tool)
        .or_else(|| closest(risks, with_server))
        .or_else(|| exact(risks, bare))
        .or_else(|| closest(risks, without))
}

/// A key with a star in it stands for names and is none itself.
fn exact(risks: &BTreeMap<String, Risk>, name: &str) -> Option<Risk> {
    risks.get(name).copied().filter(|_| !name.contains(['*', '?']))
}

fn closest(risks: &BTreeMap<String, Risk>, fits: impl Fn(&str) -> bool) -> Option<Risk> {
    let fixed = |pattern: &str| pattern.chars().filter(|c| !matches!(c, '*' | '?')).count();
    let fitting = risks.iter().filter(|(pattern, _)| pattern.contains(['*', '?']) && fits(pattern));
    fitting.map(|(pattern, risk)| (fixed(pattern), *risk)).max().map(|(_, risk)| risk)
}

/// The risk of a tool where a session works. A gated environment only ever raises it. Nothing when the app does not list the
/// tool at all: then it is nobody's to run.
pub fn risk(app: &App, tool: &str, environment: Option<&str>) -> Option<Risk> {
    let usual = listed(&app.risk, tool)?;
    let raised =
        environment.filter(|environment| app.gates.holds(environment)).and_then(|_| listed(&app.production_risk, tool));
    Some(raised.map_or(usual, |raised| usual.max(raised)))
}

/// Whether a call waits for a person. A worker that does not say how sure it is, in thousandths, is taken to be sure; a tool
/// that the app does not list always waits.
pub fn gated(app: &App, tool: &str, environment: Option<&str>, confidence: Option<u16>) -> bool {
    let Some(risk) = risk(app, tool, environment) else { return true };
    let gates = &app.gates;
    let watched = environment.is_some_and(|environment| gates.holds(environment));
    let unsure = confidence.unwrap_or(CERTAIN) < gates.min_confidence;
    gates.risks.contains(&risk) || (risk.handling() != Handling::Auto && (watched || unsure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixture::bare;
    use proptest::prelude::*;

    fn risks(all: &[(&str, Risk)]) -> BTreeMap<String, Risk> {
        all.iter().map(|(pattern, risk)| ((*pattern).to_owned(), *risk)).collect()
    }

    use Risk::{High, Low, Medium};

    #[test]
    fn s2_60_risk_says_who_hears_of_a_call() {
        let handling = [Low, Medium, High].map(Risk::handling);
        assert_eq!(handling, [Handling::Auto, Handling::Notify, Handling::Approve]);
    }

    #[test]
    fn s2_60_the_closest_entry_says_the_risk() {
        let all = risks(&[
            ("desk/read", High),
            ("desk/*", Medium),
            ("desk/read_*", Low),
            ("*/write", High),
            ("read", Low),
            ("write", Low),
            ("look", Low),
            ("drop*", High),
            ("drop_note", Low),
        ]);
        for (tool, expected) in [
            ("desk/read", Some(High)),
            ("desk/read_all", Some(Low)),
            ("desk/close", Some(Medium)),
            ("desk/look", Some(Medium)),
            ("desk/write", Some(High)),
            ("other/write", Some(High)),
            ("other/read", Some(Low)),
            ("other/look", Some(Low)),
            ("other/read_all", None),
            ("other/drop_table", Some(High)),
            ("other/drop_note", Some(Low)),
            ("read", Some(Low)),
            ("desk", None),
            ("", None),
            ("desk/", Some(Medium)),
            ("Other/Read", None),
        ] {
            assert_eq!(listed(&all, tool), expected, "{tool}");
        }
    }

    #[test]
    fn s2_60_of_two_patterns_alike_the_higher_risk_counts() {
        for all in [[("desk/a*", Low), ("desk/*b", High)], [("desk/a*", High), ("desk/*b", Low)]] {
            assert_eq!(listed(&risks(&all), "desk/ab"), Some(High), "{all:?}");
        }
        assert_eq!(
            listed(&risks(&[("desk/*", Low), ("desk/read*", High)]), "desk/read_x"),
            Some(High),
            "more is fixed"
        );
    }

    #[test]
    fn s2_60_a_tool_whose_name_is_a_pattern_gains_nothing_by_it() {
        // As a name it would be in the list, and of low risk.
        assert_eq!(listed(&risks(&[("desk/*", Low), ("desk/**", High)]), "desk/*"), Some(High));
        assert_eq!(listed(&risks(&[("*", Low), ("*/*", High)]), "desk/*"), Some(High));
    }

    #[test]
    fn s2_60_a_star_is_any_part() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("read_*", "read_a", true),
            ("read_*", "xread_a", false),
            ("*_all", "read_all", true),
            ("*_all", "read_all_x", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("a*b*b", "ab", false),
            ("ab*ba", "aba", false),
            ("**", "x", true),
            ("*a*a*", "xaya", true),
            ("*a*a*", "xa", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    fn app() -> App {
        App {
            risk: risks(&[("desk/read", Low), ("desk/note", Medium), ("desk/drop", High)]),
            production_risk: risks(&[("desk/note", High), ("desk/drop", Low), ("desk/new", Low), ("desk/read", Low)]),
            ..bare()
        }
    }

    #[test]
    fn s2_60_production_only_ever_raises_a_risk() {
        for (tool, elsewhere, there) in [
            ("desk/note", Some(Medium), Some(High)),
            ("desk/drop", Some(High), Some(High)),
            ("desk/read", Some(Low), Some(Low)),
            ("desk/new", None, None),
        ] {
            assert_eq!(risk(&app(), tool, None), elsewhere, "{tool}");
            assert_eq!(risk(&app(), tool, Some("staging")), elsewhere, "{tool}");
            assert_eq!(risk(&app(), tool, Some("production")), there, "{tool}");
            assert_eq!(risk(&app(), tool, Some(" Production ")), there, "{tool}");
        }
    }

    #[test]
    fn s2_60_an_app_that_lists_no_tool_lets_none_run() {
        assert!(gated(&bare(), "desk/read", None, None));
        assert!(gated(&app(), "desk/unheard_of", Some("staging"), Some(1000)));
    }

    #[test]
    fn s2_61_risk_then_environment_then_confidence_say_what_waits() {
        let mut app = app();
        app.production_risk.clear();
        for (tool, environment, confidence, waits) in [
            ("desk/drop", None, None, true),
            ("desk/drop", Some("staging"), Some(1000), true),
            ("desk/note", None, None, false),
            ("desk/note", Some("production"), Some(1000), true),
            ("desk/note", Some("PRODUCTION"), None, true),
            ("desk/note", Some("staging"), Some(599), true),
            ("desk/note", Some("staging"), Some(600), false),
            ("desk/note", Some("staging"), Some(601), false),
            ("desk/note", None, Some(0), true),
            ("desk/read", Some("production"), Some(0), false),
            ("desk/read", None, Some(0), false),
        ] {
            assert_eq!(gated(&app, tool, environment, confidence), waits, "{tool} {environment:?} {confidence:?}");
        }
        app.gates.risks = [Low].into();
        assert!(gated(&app, "desk/read", None, None), "a gated risk waits, also the lowest");
        assert!(!gated(&app, "desk/drop", None, None), "one that is not gated does not");
        assert!(gated(&app, "desk/drop", Some("production"), None));
    }

    #[test]
    fn s2_61_a_risk_that_production_raises_is_gated_there() {
        let mut app = app();
        app.production_risk = risks(&[("desk/read", High)]);
        assert!(!gated(&app, "desk/read", None, None));
        assert!(gated(&app, "desk/read", Some("production"), None));
    }

    #[test]
    fn s2_61_who_says_nothing_is_sure_under_any_threshold() {
        let mut app = app();
        app.gates.min_confidence = 1000;
        assert!(!gated(&app, "desk/note", None, None) && gated(&app, "desk/note", None, Some(999)));
    }

    fn any_risk() -> impl Strategy<Value = Risk> {
        prop_oneof![Just(Low), Just(Medium), Just(High)]
    }

    proptest! {
        #[test]
        fn s2_60_s2_61_a_gated_environment_never_frees_a_call(
            usual in proptest::collection::btree_map("[a-c*]{1,2}(/[a-c*]{1,2})?", any_risk(), 0..5),
            there in proptest::collection::btree_map("[a-c*]{1,2}(/[a-c*]{1,2})?", any_risk(), 0..5),
            tool in "[a-c]{1,2}/[a-c]{1,2}", confidence in proptest::option::of(0u16..=1000),
        ) {
            let mut app = bare();
            (app.risk, app.production_risk) = (usual, there);
            prop_assert!(risk(&app, &tool, Some("production")) >= risk(&app, &tool, None));
            prop_assert!(!gated(&app, &tool, None, confidence) || gated(&app, &tool, Some("production"), confidence));
        }

        #[test]
        fn s2_61_who_is_surer_never_waits_more(tool in "desk/(read|note|drop|new)", one in 0u16..=1000, other in 0u16..=1000) {
            let waits = |confidence| gated(&app(), &tool, None, Some(confidence));
            prop_assert!(!waits(one.max(other)) || waits(one.min(other)));
        }
    }
}
