//! The brain that has no model: it answers clear routing questions, keeps changes of the catalogue for a person, and leaves everything
//! else to one. The same message always gets the same draft.

use super::message::Message;
use super::plan::Draft;
use super::routing::{Routing, words};
use crate::json::Json;

/// A clear question is short.
const QUESTION_MAX: usize = 2000;

/// Whoever speaks of these may have one in hand: nobody answers that unattended, and no model is shown it.
const CUSTODY: [&str; 26] = [
    "password",
    "passwords",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "secrets",
    "token",
    "tokens",
    "credential",
    "credentials",
    "apikey",
    "api key",
    "access key",
    "private key",
    "signing key",
    "vault",
    "keytab",
    "passwort",
    "kennwort",
    "zugangsdaten",
    "mot de passe",
    "contrase\u{f1}a",
    "clave",
    "senha",
];
/// The same in scripts that do not part their words.
const CUSTODY_ANYWHERE: [&str; 7] = [
    "\u{43f}\u{430}\u{440}\u{43e}\u{43b}",
    "\u{5bc6}\u{7801}",
    "\u{5bc6}\u{78bc}",
    "\u{5bc6}\u{94a5}",
    "\u{30d1}\u{30b9}\u{30ef}\u{30fc}\u{30c9}",
    "\u{643}\u{644}\u{645}\u{629} \u{627}\u{644}\u{645}\u{631}\u{648}\u{631}",
    "\u{643}\u{644}\u{645}\u{629} \u{627}\u{644}\u{633}\u{631}",
];
/// What touches what runs.
const PRODUCTION: [&str; 31] = [
    "production",
    "prod",
    "deploy",
    "deployment",
    "rollback",
    "roll back",
    "restart",
    "reboot",
    "shutdown",
    "shut down",
    "delete",
    "drop",
    "truncate",
    "terminate",
    "destroy",
    "migrate",
    "migration",
    "scale",
    "apply",
    "rotate",
    "revoke",
    "disable",
    "enable",
    "grant",
    "firewall",
    "dns",
    "merge",
    "publish",
    "purge",
    "wipe",
    "failover",
];
/// What asks for another routing catalogue.
const CHANGES: [&str; 14] = [
    "add a route",
    "add route",
    "new route",
    "change the route",
    "change route",
    "update the route",
    "update route",
    "remove the route",
    "remove route",
    "rename the route",
    "routing change",
    "catalogue",
    "catalog",
    "reroute",
];
/// How a routing question begins.
const QUESTIONS: [&str; 17] = [
    "who handles",
    "who owns",
    "who is responsible",
    "who takes care",
    "who do i",
    "whom do i",
    "who should i",
    "who can i",
    "where do i",
    "where should i",
    "where can i",
    "which team",
    "which agent",
    "which queue",
    "how do i reach",
    "point of contact",
    "who runs",
];

/// Whether a message speaks of secrets: no brain is asked about it.
pub fn speaks_of_secrets(message: &Message) -> bool {
    message.texts().any(|(_, text)| {
        let said: Vec<String> = words(text).collect();
        says(&said, &CUSTODY) || CUSTODY_ANYWHERE.iter().any(|word| text.to_lowercase().contains(word))
    })
}

fn says(said: &[String], phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        said.windows(phrase.len()).any(|window| window == phrase)
    })
}

/// What this brain makes of a message.
pub fn draft(message: &Message, routing: &Routing) -> Draft {
    let text = format!("{} {}", message.subject, message.body);
    let said: Vec<String> = words(&text).collect();
    let says = |phrases: &[&str]| says(&said, phrases);
    let escalate = |reason: &str| Draft { escalate: true, reason: reason.to_owned(), ..Draft::default() };
    if said.is_empty() {
        return escalate("there is nothing in it");
    }
    if speaks_of_secrets(message) {
        return escalate("it speaks of secrets: nobody takes one into their hands here");
    }
    if says(&PRODUCTION) {
        return escalate("it is about something that runs");
    }
    if says(&CHANGES) {
        let diff = Json::String(format!("# asked for by {}\n{}\n\n{}\n", message.from, message.subject, message.body));
        return one("propose_catalog_diff", "diff", diff, "it asks for another routing catalogue");
    }
    if !says(&QUESTIONS) || text.len() > QUESTION_MAX || !message.attachments.is_empty() {
        return escalate("it is no clear routing question");
    }
    match routing.spoken_of(&text).as_slice() {
        [route] => one("route_answer", "route", Json::String(route.name.clone()), "a routing question"),
        [] => escalate("no route speaks of it"),
        _ => escalate("more than one route speaks of it"),
    }
}

fn one(kind: &str, name: &str, value: Json, reason: &str) -> Draft {
    let action = Json::Object(vec![("kind".into(), Json::String(kind.to_owned())), (name.to_owned(), value)]);
    Draft { actions: vec![action], escalate: false, reason: reason.to_owned() }
}
