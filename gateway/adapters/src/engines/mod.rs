//! Engines: LLM providers behind one trait, with what they cost, how long they may take, and who stands in for whom.
//!
//! [`Engine`] is one as configured, [`Engines`] all of them and which one a call goes to. A worker's own request passes to a
//! provider that speaks its API as it came; a prompt alone goes to any engine through [`prompt::Adapter`].

pub mod claude_code;
pub mod over_http;
pub mod prompt;

use crate::mcp::child::ServerCommand;
use crate::mcp::server::HttpServer;
use crate::pattern::Pattern;
use prompt::Adapter;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use warden_core::amount::{Amount, Price, Usage};
use warden_core::llm::Api;
use warden_core::llm::request::{Asked, Bounds};

/// What an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// OpenAI, or whatever speaks its APIs at another address.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Google Gemini.
    Gemini,
    /// OpenRouter.
    OpenRouter,
    /// llm-connect: a prompt in, its answer out.
    LlmConnect,
    /// The Claude Code command line.
    ClaudeCode,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] =
        [Kind::OpenAi, Kind::Anthropic, Kind::Gemini, Kind::OpenRouter, Kind::LlmConnect, Kind::ClaudeCode];

    /// As configurations and policies have it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::OpenAi => "openai",
            Kind::Anthropic => "anthropic",
            Kind::Gemini => "gemini",
            Kind::OpenRouter => "openrouter",
            Kind::LlmConnect => "llm-connect",
            Kind::ClaudeCode => "claude-code",
        }
    }

    /// The provider's own address.
    pub fn url(self) -> Option<&'static str> {
        match self {
            Kind::OpenAi => Some("https://api.openai.com/v1"),
            Kind::Anthropic => Some("https://api.anthropic.com"),
            Kind::Gemini => Some("https://generativelanguage.googleapis.com"),
            Kind::OpenRouter => Some("https://openrouter.ai/api/v1"),
            Kind::LlmConnect | Kind::ClaudeCode => None,
        }
    }

    /// The APIs that it speaks, unless it was said otherwise. Each takes a prompt.
    pub fn speaks(self) -> &'static [Api] {
        match self {
            Kind::OpenAi => &[Api::Chat, Api::Responses, Api::Execute],
            Kind::OpenRouter => &[Api::Chat, Api::Execute],
            Kind::Anthropic => &[Api::Messages, Api::Execute],
            Kind::Gemini => &[Api::Gemini, Api::Execute],
            Kind::LlmConnect | Kind::ClaudeCode => &[Api::Execute],
        }
    }

    /// The header that carries its key, and how.
    pub fn credential(self, key: &str) -> (&'static str, String) {
        match self {
            Kind::Anthropic => ("x-api-key", key.to_owned()),
            Kind::Gemini => ("x-goog-api-key", key.to_owned()),
            _ => ("authorization", format!("Bearer {key}")),
        }
    }

    /// The member of a request that bounds an answer, in its API.
    pub(crate) fn bounds_output(self, api: Api) -> &'static str {
        match api {
            Api::Chat if self == Kind::OpenAi => "max_completion_tokens",
            Api::Responses => "max_output_tokens",
            Api::Gemini => "maxOutputTokens",
            Api::Chat | Api::Messages | Api::Execute => "max_tokens",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("`{text}` is none of {}", names.join(", "))
        })
    }
}

/// One engine.
pub struct Engine {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is, in an operator's words.
    pub zone: String,
    /// The models that go there; all, when none is named.
    pub models: Vec<Pattern>,
    /// The APIs it speaks.
    pub speaks: BTreeSet<Api>,
    /// What models cost, the first that fits.
    pub prices: Vec<(Pattern, Price)>,
    /// When somebody last looked those prices up.
    pub prices_as_of: String,
    /// What its models take and give, for requests that do not say.
    pub bounds: Bounds,
    /// How long a call may take, with everything that is tried for it.
    pub timeout: Duration,
    /// How long it may be silent.
    pub silence: Duration,
    /// How often a call is tried again.
    pub retries: u32,
    /// Who stands in for it, in this order.
    pub fallback: Vec<String>,
    /// Whether streams are asked to tell their usage.
    pub asks_usage: bool,
    /// The member of a chat's request that bounds its answer, where it is another one than its kind's.
    pub chat_bound: Option<String>,
    /// The model of prompts that name none.
    pub model: Option<String>,
    /// Where requests go as they come; nothing when it takes prompts alone.
    pub http: Option<Arc<HttpServer>>,
    /// The program, of one that is a process.
    pub command: Option<ServerCommand>,
    /// What takes prompts.
    pub adapter: Arc<dyn Adapter>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({}, {}, {:?})", self.id, self.kind, self.http)
    }
}

impl Engine {
    /// Whether a model goes there.
    pub fn serves(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| pattern.fits(model))
    }

    /// Whether the model is named, and does not only go there for want of names.
    fn names(&self, model: &str) -> bool {
        self.models.iter().any(|pattern| pattern.fits(model))
    }

    /// What a model costs, if anybody said.
    pub fn price(&self, model: &str) -> Option<Price> {
        self.prices.iter().find(|(pattern, _)| pattern.fits(model)).map(|(_, price)| *price)
    }

    /// The most that a request can use, and whether it is known what that costs.
    pub fn at_most(&self, asked: &Asked, bytes: usize) -> (Amount, bool) {
        // A program puts prompts of its own before a worker's.
        let asked = Asked { refers: asked.refers || self.kind == Kind::ClaudeCode, ..asked.clone() };
        let (input, output) = asked.at_most(bytes, self.bounds);
        let price = self.price(&asked.model);
        let micro_usd = price.map_or(0, |price| price.at_most(input, output));
        (Amount { tokens: input.saturating_add(output), micro_usd }, price.is_some() && !asked.dearer)
    }

    /// What a call came to.
    pub fn cost(&self, model: &str, usage: Usage) -> Amount {
        Amount { tokens: usage.tokens(), micro_usd: self.price(model).map_or(0, |price| price.of(usage)) }
    }

    /// The member by which an answer is bounded, and to how much.
    pub fn bound(&self, api: Api) -> (&str, u64) {
        let own = self.chat_bound.as_deref().filter(|_| api == Api::Chat);
        (own.unwrap_or_else(|| self.kind.bounds_output(api)), self.bounds.output)
    }

    /// What it can do.
    pub fn capabilities(&self) -> Vec<&'static str> {
        let mut all: Vec<&str> = self.speaks.iter().map(|api| api.name()).collect();
        if self.http.is_some() && self.speaks.iter().any(|api| *api != Api::Execute) {
            all.extend(["streaming", "tools"]);
        }
        all
    }
}

/// Where engines may be used: a name is allowed when it is not denied, and when nothing is allowed by name or it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Engines that may be used; all but the denied ones when empty.
    pub allow: BTreeSet<String>,
    /// Engines that may not, whatever is allowed.
    pub deny: BTreeSet<String>,
}

impl Zone {
    /// Whether an engine may be used in it.
    pub fn admits(&self, engine: &str) -> bool {
        !self.deny.contains(engine) && (self.allow.is_empty() || self.allow.contains(engine))
    }
}

/// All engines.
#[derive(Debug, Default)]
pub struct Engines {
    all: BTreeMap<String, Arc<Engine>>,
    zones: BTreeMap<String, Zone>,
}

/// Why no engine takes a call: a reason code.
pub type None = &'static str;

impl Engines {
    /// Checks the names.
    pub fn new(engines: Vec<Engine>, zones: BTreeMap<String, Zone>) -> Result<Self, String> {
        let all: BTreeMap<_, _> = engines.into_iter().map(|engine| (engine.id.clone(), Arc::new(engine))).collect();
        for (id, engine) in &all {
            if let Some(other) = engine.fallback.iter().find(|other| *other == id || !all.contains_key(*other)) {
                return Err(format!("engines.{id}.fallback: there is no other engine `{other}`"));
            }
        }
        for (zone, Zone { allow, deny }) in &zones {
            if let Some(other) = allow.iter().chain(deny).find(|engine| !all.contains_key(*engine)) {
                return Err(format!("zones.{zone}: there is no engine `{other}`"));
            }
        }
        Ok(Self { all, zones })
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Engine>> {
        self.all.values()
    }

    /// The engine of an id.
    pub fn get(&self, id: &str) -> Option<&Arc<Engine>> {
        self.all.get(id)
    }

    /// Whether an engine may be used in a zone. One that nobody configured admits none.
    pub fn admits(&self, zone: Option<&str>, engine: &str) -> bool {
        zone.is_none_or(|zone| self.zones.get(zone).is_some_and(|zone| zone.admits(engine)))
    }

    /// Whether a zone is configured.
    pub fn has_zone(&self, zone: &str) -> bool {
        self.zones.contains_key(zone)
    }

    /// The engine of a call: the first of `wanted` that is configured, for which a call through another API or of another model
    /// is an error; else one that names the model; else one that names none. An unknown name falls to the next with a warning.
    pub fn choose(
        &self,
        api: Api,
        model: &str,
        wanted: &[Option<&str>],
        zone: Option<&str>,
    ) -> Result<Arc<Engine>, None> {
        for id in wanted.iter().flatten().filter(|id| !id.is_empty()) {
            let Some(engine) = self.all.get(*id) else {
                tracing::warn!(engine = id.escape_debug().to_string(), "no such engine: the next in order is asked");
                continue;
            };
            if !engine.speaks.contains(&api) {
                return Err("engine_lacks_api");
            }
            // A prompt may leave the model to the engine.
            return if engine.serves(model) || model.is_empty() { Ok(engine.clone()) } else { Err("unknown_model") };
        }
        let speaks = |engine: &&Arc<Engine>| engine.speaks.contains(&api);
        // One that the zone does not admit is refused by name, when there is no other.
        let any = |fits: &dyn Fn(&Arc<Engine>) -> bool| {
            let all = || self.all.values().filter(speaks).filter(|engine| fits(engine));
            all().find(|engine| self.admits(zone, &engine.id)).or_else(|| all().next())
        };
        let named = any(&|engine| engine.names(model));
        let open = || any(&|engine| engine.models.is_empty() || model.is_empty());
        let admitted = |engine: &&Arc<Engine>| self.admits(zone, &engine.id);
        named.filter(admitted).or_else(|| open().filter(admitted)).or(named).or_else(open).cloned().ok_or(
            match self.all.values().any(|engine| engine.speaks.contains(&api)) {
                true => "unknown_model",
                false => "engine_lacks_api",
            },
        )
    }

    /// Who stands in for an engine at a call, in order.
    pub fn instead_of(&self, engine: &Engine, api: Api, model: &str) -> Vec<Arc<Engine>> {
        let others = engine.fallback.iter().filter_map(|id| self.all.get(id));
        others
            .filter(|other| other.speaks.contains(&api) && (other.serves(model) || model.is_empty()))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::prompt::{Completion, Failed, Prompt};
    use super::*;
    use futures::future::BoxFuture;

    struct Nothing;

    impl Adapter for Nothing {
        fn execute<'a>(&'a self, _: &'a Prompt) -> BoxFuture<'a, Result<Completion, Failed>> {
            Box::pin(async { Err(Failed::NotSent("nothing".into())) })
        }
    }

    fn engine(id: &str, kind: Kind, models: &[&str], fallback: &[&str]) -> Engine {
        Engine {
            id: id.into(),
            kind,
            zone: String::new(),
            models: models.iter().map(|model| Pattern::new(*model)).collect(),
            speaks: kind.speaks().iter().copied().collect(),
            prices: vec![(Pattern::new("m*"), Price { input: 1_000_000, output: 2_000_000, ..Price::default() })],
            prices_as_of: String::new(),
            bounds: Bounds { context: Some(1000), output: 10 },
            timeout: Duration::from_secs(1),
            silence: Duration::from_secs(1),
            retries: 0,
            fallback: fallback.iter().map(|id| (*id).to_owned()).collect(),
            asks_usage: true,
            chat_bound: None,
            model: None,
            http: None,
            command: None,
            adapter: Arc::new(Nothing),
        }
    }

    fn engines() -> Engines {
        let all = vec![
            engine("a", Kind::OpenAi, &["gpt-*"], &["b"]),
            engine("b", Kind::OpenRouter, &[], &[]),
            engine("c", Kind::Anthropic, &["claude-*"], &[]),
        ];
        let zones = [
            ("eu", Zone { allow: ["a".to_owned()].into(), deny: BTreeSet::new() }),
            ("no-a", Zone { allow: BTreeSet::new(), deny: ["a".to_owned()].into() }),
            ("both", Zone { allow: ["a".to_owned()].into(), deny: ["a".to_owned()].into() }),
        ];
        Engines::new(all, zones.into_iter().map(|(name, zone)| (name.to_owned(), zone)).collect()).unwrap()
    }

    #[test]
    fn s0_17_an_engine_is_found_in_order_and_never_silently_nowhere() {
        let engines = engines();
        let choose = |api, model, wanted: &[Option<&str>]| {
            engines.choose(api, model, wanted, None).map(|engine| engine.id.clone())
        };
        assert_eq!(choose(Api::Chat, "gpt-x", &[None, None]), Ok("a".into()));
        assert_eq!(choose(Api::Chat, "gpt-x", &[None, Some("b")]), Ok("b".into()));
        assert_eq!(
            choose(Api::Chat, "gpt-x", &[Some(""), Some("gone")]),
            Ok("a".into()),
            "empty and unknown fall through"
        );
        assert_eq!(choose(Api::Chat, "other", &[]), Ok("b".into()));
        assert_eq!(choose(Api::Chat, "other", &[Some("a")]), Err("unknown_model"));
        assert_eq!(choose(Api::Chat, "gpt-x", &[Some("c")]), Err("engine_lacks_api"));
        assert_eq!(choose(Api::Messages, "gpt-x", &[]), Err("unknown_model"));
        assert_eq!(choose(Api::Gemini, "gemini", &[]), Err("engine_lacks_api"));
        assert_eq!(choose(Api::Execute, "", &[]), Ok("a".into()));
        let within = |zone| engines.choose(Api::Chat, "gpt-x", &[], Some(zone)).map(|engine| engine.id.clone());
        assert_eq!((within("eu"), within("no-a"), within("nowhere")), (Ok("a".into()), Ok("b".into()), Ok("a".into())));
    }

    #[test]
    fn s0_14_a_denied_engine_is_denied_and_an_unknown_zone_admits_none() {
        let engines = engines();
        for (zone, engine, admits) in [
            (None, "a", true),
            (Some("eu"), "a", true),
            (Some("eu"), "b", false),
            (Some("no-a"), "a", false),
            (Some("no-a"), "b", true),
            (Some("both"), "a", false),
            (Some("nowhere"), "a", false),
        ] {
            assert_eq!(engines.admits(zone, engine), admits, "{zone:?} {engine}");
        }
    }

    #[test]
    fn names_that_mean_nothing_are_refused() {
        let error = Engines::new(vec![engine("a", Kind::OpenAi, &[], &["a"])], BTreeMap::new()).unwrap_err();
        assert!(error.contains("engines.a.fallback"), "{error}");
        let zone = Zone { allow: ["x".to_owned()].into(), deny: BTreeSet::new() };
        let error = Engines::new(vec![], BTreeMap::from([("z".into(), zone)])).unwrap_err();
        assert!(error.contains("zones.z") && error.contains("`x`"), "{error}");
    }

    #[test]
    fn a_call_is_reserved_at_its_dearest_and_costs_what_was_used() {
        let engine = engine("a", Kind::OpenAi, &[], &[]);
        let asked = Asked { model: "m1".into(), choices: 1, ..Asked::default() };
        let (most, priced) = engine.at_most(&asked, 68);
        assert_eq!((most, priced), (Amount { tokens: 110, micro_usd: 120 }, true));
        let used = Usage { input: 10, output: 5, ..Usage::default() };
        assert_eq!(engine.cost("m1", used), Amount { tokens: 15, micro_usd: 20 });
        assert!(!engine.at_most(&Asked { model: "x".into(), ..asked }, 68).1);
    }
}
