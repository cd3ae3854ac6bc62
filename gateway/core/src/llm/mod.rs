//! The APIs of LLM providers, as far as a gateway has to understand them: what a request asks for and can use at most, what an
//! answer used, which tool calls it proposes, and how to say no in each API's own words. Everything else passes as it came.
//!
//! [`request`] reads requests, [`usage`] what was used, [`calls`] the tool calls of a whole answer, [`stream`] those of one that
//! comes in events, [`texts`] what of an event is to be scanned as running text, [`refusal`] says no.

pub mod calls;
pub mod refusal;
pub mod request;
pub mod stream;
pub mod texts;
pub mod usage;

use std::fmt;

/// An API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// OpenAI Chat Completions.
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Anthropic Messages.
    Messages,
    /// Gemini `generateContent` and `streamGenerateContent`.
    Gemini,
    /// A prompt and its answer: llm-connect's `/execute`.
    Execute,
}

impl Api {
    /// All of them.
    pub const ALL: [Api; 5] = [Api::Chat, Api::Responses, Api::Messages, Api::Gemini, Api::Execute];

    /// As policies (`context.input.api`), configurations and records have it.
    pub fn name(self) -> &'static str {
        match self {
            Api::Chat => "chat",
            Api::Responses => "responses",
            Api::Messages => "messages",
            Api::Gemini => "gemini",
            Api::Execute => "execute",
        }
    }

    /// The path of the endpoint, below a provider's base URL; Gemini's is made of the model.
    pub fn path(self) -> &'static str {
        match self {
            Api::Chat => "/chat/completions",
            Api::Responses => "/responses",
            Api::Messages => "/v1/messages",
            Api::Gemini => "/v1beta/models",
            Api::Execute => "/execute",
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|api| api.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|api| api.name()).collect();
            format!("`{text}` is none of {}", names.join(", "))
        })
    }
}
