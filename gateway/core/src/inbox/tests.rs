//! Properties of plans and of what is read out of a model's words.

use super::answer::extract;
use super::message::Message;
use super::plan::{Action, Draft, Plan, validate};
use super::routing::{Route, Routing};
use super::rules;
use crate::json::Json;
use proptest::prelude::*;

fn routing() -> Routing {
    let route = |name: &str| Route { name: name.into(), topics: vec![name.into()], answer: format!("{name} desk") };
    Routing { routes: vec![route("ssh"), route("billing")] }
}

fn message() -> Message {
    Message { id: "m".into(), to: "ops".into(), from: "asker".into(), subject: "s".into(), ..Message::default() }
}

fn text(text: &str) -> Json {
    Json::String(text.into())
}

/// Actions, good and bad.
fn action() -> impl Strategy<Value = Json> {
    let kind = prop::sample::select(vec![
        "reply",
        "route_answer",
        "mark_read",
        "progress_note",
        "propose_catalog_diff",
        "escalate",
        "Reply",
        "deploy",
        "",
    ]);
    let name = prop::sample::select(vec!["body", "route", "text", "diff", "to", "message", "approved"]);
    let value = prop::sample::select(vec![text("ssh"), text("m"), text(""), text("x"), Json::Bool(true), Json::Null]);
    (kind, prop::collection::vec((name, value), 0..3)).prop_map(|(kind, more)| {
        let more = more.into_iter().map(|(name, value)| (name.to_owned(), value));
        Json::Object(std::iter::once(("kind".to_owned(), text(kind))).chain(more).collect())
    })
}

fn kind_of(action: &Json) -> &str {
    action.get("kind").and_then(Json::as_str).unwrap_or_default()
}

proptest! {
    #[test]
    fn s1_34_validation_only_ever_takes_away(actions in prop::collection::vec(action(), 0..12), escalate in any::<bool>()) {
        let draft = Draft { actions: actions.clone(), escalate, reason: String::new() };
        if let Plan::Act(plan) = validate(&draft, &message(), &routing()) {
            prop_assert!(!escalate);
            // Each that is left was drafted, under its exact name, as often at least.
            for action in &plan {
                let verb = action.verb().action();
                let drafted = actions.iter().filter(|drafted| kind_of(drafted) == verb).count();
                prop_assert!(drafted >= plan.iter().filter(|other| other.verb() == action.verb()).count());
                if let Action::RouteAnswer { route, body } = action {
                    // The catalogue's words, not the model's.
                    let routing = routing();
                    prop_assert_eq!(body, &routing.route(route).unwrap().answer);
                }
            }
            prop_assert!(actions.iter().all(|action| !["", "Reply", "deploy", "escalate"].contains(&kind_of(action))));
        }
    }

    #[test]
    fn s1_18_no_words_of_a_model_make_it_panic(said in "([{}\\[\\]\",:`\\\\a-z0-9 \\r\\n]|actions|escalate|true|\"kind\"){0,60}") {
        let _ = extract(&said);
    }

    #[test]
    fn s1_18_a_plan_is_found_whatever_stands_around_it(before in "[^{}\"]{0,40}", after in ".{0,40}") {
        let plan = r#"{"actions":[{"kind":"reply","body":"a } \" { b"}],"escalate":false}"#;
        let found = extract(&format!("{before}{plan}{after}"));
        prop_assert_eq!(found.map(|draft| draft.actions.len()), Some(1));
    }

    #[test]
    fn s1_15_the_same_message_gets_the_same_draft(subject in ".{0,60}", body in ".{0,200}") {
        let message = Message { subject, body, ..message() };
        let draft = rules::draft(&message, &routing());
        prop_assert_eq!(&draft, &rules::draft(&message, &routing()));
        // Rules answer with a route or leave it to a person, and do nothing else.
        prop_assert!(draft.actions.iter().all(|a| ["route_answer", "propose_catalog_diff"].contains(&kind_of(a))));
    }
}

#[test]
fn s1_15_s1_33_clear_questions_are_answered_and_nothing_else_is() {
    let draft = |subject: &str, body: &str| {
        let message = Message { subject: subject.into(), body: body.into(), ..message() };
        rules::draft(&message, &routing())
    };
    for question in ["Who handles SSH?", "where do I send a billing question", "Which team owns ssh access?"] {
        let draft = draft("Hello", question);
        assert_eq!(draft.actions.iter().map(kind_of).collect::<Vec<_>>(), ["route_answer"], "{question}: {draft:?}");
    }
    for other in [
        "",
        "Who handles SSH and billing?",
        "Who handles coffee?",
        "Who handles ssh? My password is on the note.",
        "Who handles ssh? Restart production.",
        "I like ssh.",
    ] {
        assert!(draft("", other).escalate, "{other}");
    }
    let change = draft("Routes", "please add a route for coffee");
    assert_eq!(change.actions.iter().map(kind_of).collect::<Vec<_>>(), ["propose_catalog_diff"]);
}
