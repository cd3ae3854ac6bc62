//! What a worker says of its own work in the arguments of its calls: how sure it is, why, and how it goes on.

use super::app::App;
use super::rule::names;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The signal of a worker that called a tool which ends its part of the work.
pub const SUCCESS: &str = "success";
/// The longest rationale that is kept, in characters.
pub const RATIONALE_MAX: usize = 2000;
/// Certainty, in thousandths.
pub const CERTAIN: u16 = 1000;
/// Names of the argument that says why a worker is as sure as it is. The first that says anything counts.
const RATIONALE: [&str; 2] = ["confidence_rationale", "rationale"];

/// What a session's worker said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harvest {
    /// How sure it is, in thousandths from 0 to 1000.
    pub confidence: Option<u16>,
    /// How it goes on; one of the app's signals.
    pub signal: Option<String>,
    /// Why it is that sure.
    pub rationale: Option<String>,
    /// Whether a tool that ends its part of the work was called: from then on only such a tool says how sure it is.
    pub locked: bool,
    /// How many calls have changed it. Of two that are recorded in the other order the later one still counts.
    pub turn: u64,
}

impl Harvest {
    /// What stands after a call; nothing when that changes nothing. `shown` makes of a rationale what may be kept.
    pub fn after(&self, call: (&App, &str, &Value), shown: impl FnOnce(&str) -> String) -> Option<Self> {
        let (app, tool, args) = call;
        let mut next = self.clone();
        next.take(app, tool, args);
        next.rationale = next.rationale.map(|text| shown(&text));
        let changed = *self != next;
        next.turn += 1;
        changed.then_some(next)
    }

    /// Takes what one call says, from the oldest to the newest. Calls that did not run say nothing, and the pipeline
    /// hands none of them here. A value that cannot be read leaves what was said before, so that nobody who was unsure
    /// becomes sure by it.
    fn take(&mut self, app: &App, tool: &str, args: &Value) {
        if is_typed_terminal(app, tool) {
            self.locked = true;
            self.say_signal(app, SUCCESS);
            self.say_confidence(args);
        } else if app.patch_tools.iter().any(|named| names(named, tool)) {
            let Some(patch) = args.get("patch") else { return };
            if let Some(signal) = patch.get("signal").and_then(Value::as_str) {
                self.say_signal(app, signal);
            }
            if !self.locked {
                self.say_confidence(patch);
            }
        }
    }

    fn say_confidence(&mut self, said: &Value) {
        let rationale = RATIONALE.iter().filter_map(|name| said.get(name)?.as_str()).map(str::trim);
        let rationale = rationale.into_iter().find(|text| !text.is_empty());
        self.confidence = said.get("confidence").and_then(confidence).or(self.confidence);
        if let Some(rationale) = rationale {
            self.rationale = Some(rationale.chars().take(RATIONALE_MAX).collect());
        }
    }

    /// Kept as the app spells it.
    fn say_signal(&mut self, app: &App, said: &str) {
        let known = app.signals.iter().find(|signal| signal.eq_ignore_ascii_case(said.trim()));
        self.signal = known.cloned().or(self.signal.take());
    }
}

/// Whether a tool ends its worker's part of the work, whether or not it ends the session too: one of `terminal_tools`, or of
/// `harvest_terminal_tools`. A tool that is in both does both.
pub fn is_typed_terminal(app: &App, tool: &str) -> bool {
    let terminal = app.terminal_tools.iter().map(|rule| &rule.tool_name);
    terminal.chain(&app.harvest_terminal_tools).any(|named| names(named, tool))
}

/// How sure a value says that somebody is, in thousandths: a number, or one of three words.
pub fn confidence(value: &Value) -> Option<u16> {
    match value {
        Value::Number(number) => thousandths(number.as_f64()?),
        Value::String(word) => match word.trim().to_ascii_lowercase().as_str() {
            "high" => Some(900),
            "medium" => Some(600),
            "low" => Some(300),
            _ => None,
        },
        _ => None,
    }
}

/// A share of 1 in thousandths, held within 0 and 1. What does not come out even is rounded down: nobody is surer than they
/// said. Nothing of what is no number.
pub fn thousandths(share: f64) -> Option<u16> {
    let held = share.is_finite().then(|| share.clamp(0.0, 1.0))?;
    // From 0 to 1000.
    Some((held * f64::from(CERTAIN)).floor() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proposal::DecisionId;
    use crate::session::fixture::{app, strings};
    use crate::session::{Ran, SessionChange, SessionEvent, Sessions, Started};
    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::{Map, json};

    fn sure() -> App {
        App { harvest_terminal_tools: strings(&["hand_in"]), patch_tools: strings(&["note"]), ..app() }
    }

    fn after(calls: &[(&str, Value)]) -> Harvest {
        let mut harvest = Harvest::default();
        calls.iter().for_each(|(tool, args)| harvest.take(&sure(), tool, args));
        harvest
    }

    fn said(confidence: Option<u16>, signal: Option<&str>, rationale: Option<&str>, locked: bool) -> Harvest {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Harvest { confidence, signal: text(signal), rationale: text(rationale), locked, turn: 0 }
    }

    #[test]
    fn what_two_calls_say_is_the_same_in_whichever_order_it_is_recorded() {
        let say = |before: &Harvest, share: f64| {
            before.after((&sure(), "note", &json!({ "patch": { "confidence": share } })), str::to_owned)
        };
        let first = say(&Harvest::default(), 0.3).unwrap();
        let second = say(&first, 0.8).unwrap();
        assert_eq!(say(&second, 0.8), None);
        let told = |harvests: [&Harvest; 2]| {
            let mut sessions = Sessions::default();
            let started = Started {
                app: "desk".into(),
                worker: "w".into(),
                by: None,
                decision: DecisionId::new("d0"),
                overrides: Map::new(),
            };
            let session = "DESK-20260101-001".to_owned();
            let change = SessionChange { session: session.clone(), event: SessionEvent::Started(started) };
            sessions.apply(Timestamp::UNIX_EPOCH, &change);
            for harvest in harvests {
                let ran = Ran {
                    session: session.clone(),
                    tool: "desk/note".into(),
                    said: None,
                    harvest: Some(harvest.clone()),
                };
                sessions.tell(&DecisionId::new("d1"), &ran);
            }
            sessions.get(&session).map(|session| session.harvest.clone())
        };
        assert_eq!(told([&first, &second]), Some(second.clone()));
        assert_eq!(told([&second, &first]), Some(second));
    }

    #[test]
    fn s2_31_a_patch_of_a_patch_tool_is_heard() {
        let args = json!({"patch": {"confidence": 0.4, "signal": "failed", "confidence_rationale": " thin \n"}});
        for tool in ["note", "desk/note", "desk:note", "desk__note"] {
            assert_eq!(after(&[(tool, args.clone())]), said(Some(400), Some("failed"), Some("thin"), false), "{tool}");
        }
        for tool in ["look", "xnote", "desk/notes"] {
            assert_eq!(after(&[(tool, args.clone())]), Harvest::default(), "{tool}");
        }
        assert_eq!(after(&[("note", json!({"patch": {"rationale": "thin"}}))]).rationale.as_deref(), Some("thin"));
        let long = json!({"patch": {"rationale": "ж".repeat(3000)}});
        assert_eq!(after(&[("note", long)]).rationale.unwrap().chars().count(), RATIONALE_MAX);
    }

    #[test]
    fn s2_31_a_patch_that_is_none_says_nothing() {
        for args in [
            json!({}),
            json!({"patch": null}),
            json!({"patch": "confidence"}),
            json!({"patch": ["confidence", 1]}),
            json!({"patch": 0.5}),
            json!({"confidence": 0.5, "signal": "failed"}),
            json!([]),
            json!(null),
        ] {
            assert_eq!(after(&[("note", args.clone())]), Harvest::default(), "{args}");
        }
    }

    #[test]
    fn s2_31_what_a_patch_is_silent_about_or_garbles_stays() {
        let first = ("note", json!({"patch": {"confidence": "low", "signal": "failed", "rationale": "thin"}}));
        for patch in
            [json!({}), json!({"confidence": "very", "signal": 7, "rationale": ""}), json!({"confidence": null})]
        {
            let harvest = after(&[first.clone(), ("note", json!({ "patch": patch }))]);
            assert_eq!(harvest, said(Some(300), Some("failed"), Some("thin"), false), "{patch}");
        }
    }

    #[test]
    fn s2_32_a_harvest_tool_is_heard_and_ends_nothing() {
        let args = json!({"confidence": 0.85, "confidence_rationale": "seen before"});
        let harvest = after(&[("desk/hand_in", args.clone())]);
        assert_eq!(harvest, said(Some(850), Some("success"), Some("seen before"), true));
        assert_eq!(crate::session::rule::matched(&sure(), "desk/hand_in", &args), None);
    }

    #[test]
    fn s2_32_a_tool_in_both_lists_is_heard_and_ends_the_session() {
        let mut app = sure();
        app.harvest_terminal_tools.push("mark_done".into());
        let mut harvest = Harvest::default();
        harvest.take(&app, "desk/mark_done", &json!({"confidence": 1}));
        assert_eq!(harvest, said(Some(1000), Some("success"), None, true));
        assert_eq!(crate::session::rule::matched(&app, "desk/mark_done", &json!({})), Some(0));
    }

    #[test]
    fn s2_33_tools_of_both_lists_mean_success_whatever_their_prefix() {
        for tool in ["mark_done", "desk/mark_done", "desk:call_people", "desk__hand_in", "hand_in"] {
            for args in [json!({}), json!(null), json!([1]), json!({"patch": {"confidence": 0.1, "signal": "failed"}})]
            {
                assert_eq!(after(&[(tool, args.clone())]), said(None, Some("success"), None, true), "{tool} {args}");
            }
        }
        assert!(!is_typed_terminal(&sure(), "note") && !is_typed_terminal(&sure(), "xmark_done"));
    }

    #[test]
    fn s2_34_after_a_terminal_tool_a_patch_changes_the_signal_alone() {
        let end = ("mark_done", json!({"confidence": 0.9, "rationale": "tested"}));
        let patch = ("note", json!({"patch": {"confidence": 0.1, "rationale": "no", "signal": "needs_input"}}));
        assert_eq!(after(&[end.clone(), patch.clone()]), said(Some(900), Some("needs_input"), Some("tested"), true));
        assert_eq!(after(&[patch.clone(), end]), said(Some(900), Some("success"), Some("tested"), true));
        // Locked without having said anything, it stays that way.
        let empty = ("mark_done", json!({}));
        assert_eq!(after(&[empty.clone(), patch.clone()]), said(None, Some("needs_input"), None, true));
        // And what was said before stays where the terminal tool is silent.
        assert_eq!(after(&[patch, empty]), said(Some(100), Some("success"), Some("no"), true));
    }

    #[test]
    fn s2_34_a_later_terminal_tool_has_the_last_word() {
        let (first, last) = (json!({"confidence": 0.9}), json!({"confidence": 0.2}));
        assert_eq!(after(&[("hand_in", first), ("mark_done", last)]).confidence, Some(200));
    }

    #[test]
    fn s2_35_confidence_is_a_number_or_one_of_three_words() {
        for (value, expected) in [
            (json!(0.85), Some(850)),
            (json!(0), Some(0)),
            (json!(1), Some(1000)),
            (json!(-3), Some(0)),
            (json!(-0.0), Some(0)),
            (json!(7), Some(1000)),
            (json!(1e300), Some(1000)),
            (json!(u64::MAX), Some(1000)),
            (json!(i64::MIN), Some(0)),
            (json!(0.5996), Some(599)),
            (json!("high"), Some(900)),
            (json!("medium"), Some(600)),
            (json!("low"), Some(300)),
            (json!(" High "), Some(900)),
            (json!(true), None),
            (json!(false), None),
            (json!(null), None),
            (json!(f64::NAN), None),
            (json!("0.9"), None),
            (json!("1"), None),
            (json!("NaN"), None),
            (json!("inf"), None),
            (json!("Infinity"), None),
            (json!("very high"), None),
            (json!(""), None),
            (json!([0.9]), None),
            (json!({"value": 0.9}), None),
        ] {
            assert_eq!(confidence(&value), expected, "{value}");
        }
        for share in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(thousandths(share), None);
        }
    }

    #[test]
    fn s2_36_a_signal_outside_the_vocabulary_is_dropped() {
        let patch = |signal: Value| ("note", json!({"patch": { "signal": signal }}));
        for signal in ["success", "failed", "needs_input"] {
            assert_eq!(after(&[patch(json!(signal))]).signal.as_deref(), Some(signal));
        }
        for signal in [json!("retry"), json!(""), json!(1), json!(null), json!(["failed"])] {
            assert_eq!(after(&[patch(signal.clone())]).signal, None, "{signal}");
            assert_eq!(after(&[patch(json!("failed")), patch(signal)]).signal.as_deref(), Some("failed"));
        }
        assert_eq!(after(&[patch(json!(" Failed"))]).signal.as_deref(), Some("failed"), "as the app spells it");
    }

    #[test]
    fn s2_36_an_app_with_other_signals_knows_no_success() {
        let app = App { signals: strings(&["retry"]), ..sure() };
        let mut harvest = Harvest::default();
        harvest.take(&app, "mark_done", &json!({"confidence": 0.5}));
        assert_eq!(harvest, said(Some(500), None, None, true));
        harvest.take(&app, "note", &json!({"patch": {"signal": "retry"}}));
        assert_eq!(harvest.signal.as_deref(), Some("retry"));
    }

    #[test]
    fn s2_35_every_thousandth_is_read_as_itself() {
        for n in 0..=1000 {
            let written = format!("{}.{:03}", n / 1000, n % 1000);
            assert_eq!(thousandths(written.parse().unwrap()), Some(n), "{written}");
        }
    }

    proptest! {
        #[test]
        fn s2_35_confidence_is_held_within_its_bounds_and_never_rounded_up(share in prop_oneof![any::<f64>(), 0.0..=1.0]) {
            let held = thousandths(share);
            prop_assert_eq!(held.is_some(), share.is_finite());
            prop_assert!(held.is_none_or(|held| held <= CERTAIN && f64::from(held) <= share.clamp(0.0, 1.0) * 1000.0));
        }
    }
}
