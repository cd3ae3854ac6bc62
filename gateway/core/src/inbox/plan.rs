//! What is to be done about a message: a draft of some brain, and the plan that guardrails leave of it. They only ever take away.

use super::message::Message;
use super::routing::Routing;
use crate::json::Json;
use crate::proposal::Verb;

/// More actions than any message needs.
const ACTIONS_MAX: usize = 8;
/// Longer answers are no answers to a message.
const BODY_MAX: usize = 32 << 10;

/// What a brain would do. Nothing of it is trusted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The actions, as the brain wrote them.
    pub actions: Vec<Json>,
    /// Whether it would rather have a person look.
    pub escalate: bool,
    /// Why, in its words.
    pub reason: String,
}

/// One action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answers with an entry of the routing catalogue, and marks the message as read.
    RouteAnswer {
        /// The entry.
        route: String,
        /// Its answer.
        body: String,
    },
    /// Answers, and marks the message as read.
    Reply {
        /// The answer. One without is not sent.
        body: String,
    },
    /// Leaves a note of progress.
    ProgressNote {
        /// The note. One without is not left.
        text: String,
    },
    /// Marks the message as read.
    MarkRead,
    /// Proposes a change of the routing catalogue, which a person may make.
    ProposeCatalogDiff {
        /// The change.
        diff: String,
    },
}

impl Action {
    /// The verb that policies know.
    pub fn verb(&self) -> Verb {
        match self {
            Action::RouteAnswer { .. } => Verb::RouteAnswer,
            Action::Reply { .. } => Verb::Reply,
            Action::ProgressNote { .. } => Verb::ProgressNote,
            Action::MarkRead => Verb::MarkRead,
            Action::ProposeCatalogDiff { .. } => Verb::ProposeCatalogDiff,
        }
    }

    /// Its text, if it has one.
    pub fn text(&self) -> &str {
        match self {
            Action::RouteAnswer { body, .. } | Action::Reply { body } => body,
            Action::ProgressNote { text } => text,
            Action::ProposeCatalogDiff { diff } => diff,
            Action::MarkRead => "",
        }
    }

    /// Whether it says nothing where it should say something.
    pub fn is_empty(&self) -> bool {
        !matches!(self, Action::MarkRead) && self.text().trim().is_empty()
    }
}

/// What is left of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// These, in this order.
    Act(Vec<Action>),
    /// Nothing: a person looks at the message. A reason code says why.
    Escalate(&'static str),
}

/// Holds a draft against the guardrails that no brain and no setting can move. Policies are asked about what is left, action by action.
pub fn validate(draft: &Draft, message: &Message, routing: &Routing) -> Plan {
    if draft.escalate {
        return Plan::Escalate("brain_escalated");
    }
    if draft.actions.is_empty() {
        return Plan::Escalate("nothing_planned");
    }
    if draft.actions.len() > ACTIONS_MAX {
        return Plan::Escalate("too_many_actions");
    }
    let mut actions = Vec::new();
    for drafted in &draft.actions {
        match read(drafted, message, routing) {
            Ok(action) => actions.push(action),
            // One unsafe action makes the whole message a person's.
            Err(reason) => return Plan::Escalate(reason),
        }
    }
    let answers = |action: &Action| matches!(action, Action::RouteAnswer { .. } | Action::Reply { .. });
    if actions.iter().filter(|action| answers(action)).count() > 1 {
        return Plan::Escalate("too_many_answers");
    }
    // An answer marks its message as read by itself, and nothing marks it before.
    let answered = actions.iter().any(answers);
    let marks = actions.contains(&Action::MarkRead);
    actions.retain(|action| *action != Action::MarkRead);
    if marks && !answered {
        actions.push(Action::MarkRead);
    }
    Plan::Act(actions)
}

fn read(drafted: &Json, message: &Message, routing: &Routing) -> Result<Action, &'static str> {
    let Json::Object(members) = drafted else { return Err("action_malformed") };
    let kind = drafted.get("kind").and_then(Json::as_str).ok_or("action_malformed")?;
    let text = |name: &str| match drafted.get(name) {
        Some(Json::String(text)) if text.len() <= BODY_MAX => Ok(text.clone()),
        Some(Json::String(_)) => Err("answer_too_long"),
        None => Ok(String::new()),
        Some(_) => Err("action_malformed"),
    };
    // What is not known is not ignored: a brain that says `to` means somebody.
    let only = |known: &[&str]| match members.iter().all(|(name, _)| name == "kind" || known.contains(&name.as_str())) {
        true => Ok(()),
        false => Err("action_malformed"),
    };
    // A message may be named, and then it is this one.
    if drafted.get("message").is_some_and(|named| named.as_str() != Some(&message.id)) {
        return Err("other_message");
    }
    match kind {
        "route_answer" => {
            only(&["message", "route"])?;
            let name = text("route")?;
            let route = routing.route(&name).ok_or("route_unknown")?;
            Ok(Action::RouteAnswer { route: route.name.clone(), body: route.answer.clone() })
        }
        "reply" => only(&["message", "body"]).and(Ok(Action::Reply { body: text("body")? })),
        "progress_note" => only(&["message", "text"]).and(Ok(Action::ProgressNote { text: text("text")? })),
        "mark_read" => only(&["message"]).and(Ok(Action::MarkRead)),
        "propose_catalog_diff" => {
            only(&["message", "diff"])?;
            let diff = text("diff")?;
            if diff.trim().is_empty() { Err("action_malformed") } else { Ok(Action::ProposeCatalogDiff { diff }) }
        }
        "escalate" => Err("brain_escalated"),
        _ => Err("action_unknown"),
    }
}
