//! A message of an inbox. All of it is data: nothing in it is an instruction to anybody here.

use serde::{Deserialize, Serialize};

/// The longest message that is looked at; a longer one waits for a person.
pub const BYTES_MAX: usize = 256 << 10;

/// One message, as a hub gives it. Members that are not known here are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The hub's id.
    pub id: String,
    /// The agent it is for.
    pub to: String,
    /// The sender of record: whoever the hub says it is from. An answer goes there and nowhere else.
    pub from: String,
    /// Its subject.
    #[serde(default)]
    pub subject: String,
    /// Its text.
    #[serde(default)]
    pub body: String,
    /// What was attached, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// Something attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its text.
    #[serde(default)]
    pub text: String,
}

impl Message {
    /// Every text of it, with where it stands.
    pub fn texts(&self) -> impl Iterator<Item = (String, &str)> {
        let own = [("/subject", &self.subject), ("/body", &self.body), ("/from", &self.from), ("/id", &self.id)];
        let own = own.into_iter().map(|(at, text)| (at.to_owned(), text.as_str()));
        let attached = self.attachments.iter().enumerate().flat_map(|(number, attached)| {
            [
                (format!("/attachments/{number}/name"), attached.name.as_str()),
                (format!("/attachments/{number}/text"), attached.text.as_str()),
            ]
        });
        own.chain(attached)
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.texts().map(|(_, text)| text.len()).sum()
    }
}
