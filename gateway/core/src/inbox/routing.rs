//! The routing catalogue: who answers for what. A file of the operators; a worker can only propose to change it.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// The entries.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Words or phrases that a question about it has.
    pub topics: Vec<String>,
    /// The answer to such a question.
    pub answer: String,
}

/// What is wrong with a routing catalogue: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("routes[{at}].{what}")]
pub struct Wrong {
    at: usize,
    what: String,
}

impl Routing {
    /// Nothing is there twice, and nothing is empty.
    pub fn check(&self) -> Result<(), Wrong> {
        for (at, route) in self.routes.iter().enumerate() {
            let wrong = |what: String| Err(Wrong { at, what });
            if route.name.trim().is_empty() {
                return wrong("name: it is empty".into());
            }
            if self.routes[..at].iter().any(|other| other.name == route.name) {
                return wrong(format!("name: `{}` is there twice", route.name.escape_debug()));
            }
            if route.topics.iter().all(|topic| words(topic).next().is_none()) {
                return wrong("topics: name at least one word".into());
            }
            if route.answer.trim().is_empty() {
                return wrong("answer: it is empty".into());
            }
        }
        Ok(())
    }

    /// The entry of this name.
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == name)
    }

    /// The entries that a text speaks of.
    pub fn spoken_of(&self, text: &str) -> Vec<&Route> {
        let said: Vec<String> = words(text).collect();
        let speaks = |topic: &String| {
            let topic: Vec<String> = words(topic).collect();
            !topic.is_empty() && said.windows(topic.len()).any(|window| window == topic)
        };
        self.routes.iter().filter(|route| route.topics.iter().any(speaks)).collect()
    }
}

/// The words of a text, in lower case.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}
