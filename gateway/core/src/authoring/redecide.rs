//! A recorded proposal, decided again under other policies. What cannot be known again is said, never guessed.

use crate::amount::Amount;
use crate::budget::BudgetFacts;
use crate::catalogue::Catalogue;
use crate::catalogue::input::Input;
use crate::catalogue::recorded::{self, is_cut};
use crate::decision::Enforced;
use crate::facts::{Facts, Mode};
use crate::policy::level::Level;
use crate::policy::probe;
use crate::policy::snapshot::{Case, Snapshot};
use crate::proposal::{AcknowledgeAsk, Ask, DoneTo, EngineAsk, EntityName, SiteAsk, TaskFacts, TaskId, Verb};
use crate::secrets::Finding;
use crate::session::SessionFacts;
use crate::verdict::{Evaluation, Verdict, evaluate};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;

/// What of a decision's record it takes to decide it again. The rest is not read: there are many.
#[derive(Clone, Debug, Deserialize)]
pub struct Recorded<'r> {
    /// When.
    pub ts: Timestamp,
    /// Its id.
    #[serde(borrow)]
    pub id: Cow<'r, str>,
    /// The worker's name.
    #[serde(borrow)]
    pub worker: Cow<'r, str>,
    /// The server, empty where there is none.
    #[serde(borrow)]
    pub server: Cow<'r, str>,
    /// The tool as the worker named it.
    #[serde(borrow, default)]
    pub tool: Option<Cow<'r, str>>,
    /// Who.
    pub principal: Named,
    /// The action's id.
    #[serde(borrow)]
    pub action: Cow<'r, str>,
    /// To what.
    pub resource: Named,
    /// What Cedar saw.
    pub context: Seen,
    /// How much of it stands here.
    #[serde(default)]
    pub level: Level,
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason code.
    #[serde(borrow)]
    pub reason: Cow<'r, str>,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// How many more denials it stands for.
    #[serde(default)]
    pub repeated: u64,
    /// Who held the worker to it.
    pub enforced: Enforced,
    /// What it was decided with.
    #[serde(borrow)]
    pub digests: Then<'r>,
}

/// Of the digests of then, what types depend on.
#[derive(Clone, Debug, Deserialize)]
pub struct Then<'r> {
    /// The tool catalogue.
    #[serde(borrow)]
    pub catalogue: Cow<'r, str>,
}

impl Recorded<'_> {
    /// The proposals that it says everything of: itself and, of a caller's, those that were the same to the letter.
    pub fn whole(&self) -> u64 {
        if self.enforced == Enforced::Caller { self.repeated + 1 } else { 1 }
    }

    /// The denials that were only counted: alike in worker, tool and reason, and who knows in what else.
    pub fn counted(&self) -> u64 {
        self.repeated + 1 - self.whole()
    }
}

/// An entity of a record.
#[derive(Clone, Debug, Deserialize)]
pub struct Named {
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Its id.
    pub id: String,
    /// What it was in.
    #[serde(default)]
    pub parents: Vec<String>,
}

/// The context of a record.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// Whether a person had acknowledged it.
    pub acknowledged: bool,
    /// How the worker ran.
    pub mode: Mode,
    /// One for each secret value.
    pub secret_findings: Vec<IgnoredAny>,
    /// How many values looked like secrets.
    pub secret_suspicions: i64,
    /// Pointers of what policy could not see.
    pub unseen: Vec<String>,
    /// Whether a path had a `..` segment.
    pub dot_segments: bool,
    /// What its budgets had.
    #[serde(default)]
    pub budget: Option<BudgetFacts>,
    /// Its task.
    #[serde(default)]
    pub task: Option<TaskFacts>,
    /// Its session.
    #[serde(default)]
    pub session: Option<SessionFacts>,
    /// The arguments, long texts cut.
    pub input: Value,
}

/// Why a record cannot be decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cannot {
    /// It was refused before any policy was asked, and would be again.
    NotByPolicy,
    /// Its arguments are not in the record, and policies read them.
    NoInput,
    /// Its arguments are sealed, and policies read them.
    Sealed,
    /// An argument that policies read was cut, or held a secret value.
    Cut,
    /// Its worker is not configured any more.
    Worker,
    /// Its server is not configured any more.
    Server,
    /// Its engine is not configured any more.
    Engine,
    /// Its tool or action is not known any more.
    Action,
    /// An entity of the site's own that it names is gone.
    Entity,
    /// The tool's arguments have other types now.
    Types,
    /// It was not recorded by itself: a denial like it was, and it was counted there.
    Counted,
    /// The tool catalogue of then is not kept.
    Catalogue,
    /// Its context has fields or values that this Warden does not know.
    Unknown,
    /// A segment cannot be read to its end.
    Damaged,
}

impl Cannot {
    /// As it is shown.
    pub fn says(self) -> &'static str {
        match self {
            Cannot::NotByPolicy => "refused before any policy was asked",
            Cannot::NoInput => "arguments not recorded (level `metadata`), and rules read them",
            Cannot::Sealed => "arguments sealed (level `sealed`), and rules read them",
            Cannot::Cut => "an argument that rules read was cut or masked in the record",
            Cannot::Worker => "worker not configured any more",
            Cannot::Server => "server not configured any more",
            Cannot::Engine => "engine not configured any more",
            Cannot::Action => "tool or action not known any more",
            Cannot::Entity => "an entity that it names is gone",
            Cannot::Types => "the tool's arguments have other types now",
            Cannot::Counted => "denials that were only counted, beside one like them",
            Cannot::Catalogue => "the tool catalogue of then is not kept, and another one is there now",
            Cannot::Damaged => "segments that cannot be read to their end: `warden audit verify`",
            Cannot::Unknown => "the record cannot be read as a decision",
        }
    }
}

/// Reads a record when it is a decision.
pub fn read(payload: &[u8]) -> Option<Result<Recorded<'_>, Cannot>> {
    // Records begin with version, time and kind.
    let head = payload.get(..payload.len().min(96)).unwrap_or_default();
    memchr::memmem::find(head, br#""kind":"decision""#)?;
    Some(serde_json::from_slice(payload).map_err(|_| Cannot::Unknown))
}

/// The tool catalogue of a digest; nothing when it is not kept.
pub type Catalogues<'c> = dyn Fn(&str) -> Option<Catalogue> + Sync + 'c;

/// Decides again, under one snapshot.
pub struct Redecider<'s> {
    snapshot: &'s Snapshot,
    /// The catalogue of a digest, where it is kept.
    catalogues: &'s Catalogues<'s>,
    /// By digest, then by tool: whether its arguments had the types that they have now.
    same: HashMap<String, Option<HashMap<String, bool>>>,
    kept: HashMap<String, Catalogue>,
}

impl<'s> Redecider<'s> {
    /// Under `snapshot`; `catalogues` knows the tool catalogues of then.
    pub fn new(snapshot: &'s Snapshot, catalogues: &'s Catalogues<'s>) -> Self {
        Self { snapshot, catalogues, same: HashMap::new(), kept: HashMap::new() }
    }

    /// The verdict on a recorded proposal.
    pub fn decide(&mut self, recorded: &Recorded<'_>) -> Result<Evaluation, Cannot> {
        let (case, facts) = self.again(recorded)?;
        let evaluation = evaluate(self.snapshot, &case, &facts);
        // What does not fit the schema any more is only denied as a defect.
        if evaluation.reason == "request_invalid" { Err(Cannot::Types) } else { Ok(evaluation) }
    }

    /// The case and the facts of a recorded proposal.
    pub fn again(&mut self, recorded: &Recorded<'_>) -> Result<(Case<'s>, Facts), Cannot> {
        if !by_policy(&recorded.reason) {
            return Err(Cannot::NotByPolicy);
        }
        let case = self.case(recorded)?;
        if let Some(tool) = &recorded.tool {
            self.same_types(&recorded.digests.catalogue, &recorded.server, tool)?;
        }
        let seen = &recorded.context;
        if seen.unseen.iter().any(|pointer| pointer.contains("[secret:") || pointer.contains('…')) {
            return Err(Cannot::Cut);
        }
        let reads = self.snapshot.reads(&case);
        let of_start = reads.member("session").and_then(|session| session.member("overrides"));
        let started = seen.session.iter().flat_map(|session| &session.overrides);
        if of_start.is_some_and(|read| started.into_iter().any(|(name, value)| read.has(name) && is_cut(value))) {
            return Err(Cannot::Cut);
        }
        let read = reads.of_input();
        let ty = &case.target.input;
        let mut lost = Vec::new();
        let input = recorded::restore(ty, &seen.input, &mut lost).map_err(|_| Cannot::Types)?;
        let input = match (input, &recorded.level) {
            (input, Level::Facts) => input,
            (Some(input), _) => Some(input),
            // Nothing is guessed where nothing is read.
            (None, level) => match (&read, level) {
                (None, _) => probe::sample(ty),
                (Some(_), Level::Sealed) => return Err(Cannot::Sealed),
                (Some(_), _) => return Err(Cannot::NoInput),
            },
        };
        if read.is_some_and(|read| lost.iter().any(|name| read.has(name))) {
            return Err(Cannot::Cut);
        }
        let many = |n: usize| vec![nothing(); n];
        let facts = Facts {
            acknowledged: seen.acknowledged,
            mode: seen.mode,
            findings: many(seen.secret_findings.len()),
            suspicions: many(usize::try_from(seen.secret_suspicions).unwrap_or_default()),
            dot_segments: seen.dot_segments,
            budget: seen.budget,
            task: seen.task.clone(),
            session: seen.session.clone(),
            input: Input { cedar: input, record: Value::Null, unseen: seen.unseen.clone() },
        };
        Ok((case, facts))
    }

    /// Whether a tool's arguments are read now as they were then: what policy saw of them is in the record, and what it would see now
    /// is not.
    fn same_types(&mut self, digest: &str, server: &str, tool: &str) -> Result<(), Cannot> {
        if digest == self.snapshot.digests.catalogue {
            return Ok(());
        }
        if !self.same.contains_key(digest) {
            let kept = (self.catalogues)(digest);
            self.same.insert(digest.to_owned(), kept.as_ref().map(|_| HashMap::new()));
            self.kept.extend(kept.map(|kept| (digest.to_owned(), kept)));
        }
        let (Some(Some(known)), Some(then)) = (self.same.get_mut(digest), self.kept.get(digest)) else {
            return Err(Cannot::Catalogue);
        };
        let now = self.snapshot.catalogue();
        let alike = || match (then.tool(server, tool), now.tool(server, tool)) {
            (Some(then), Some(now)) => then.paths == now.paths && then.input() == now.input(),
            (None, None) => true,
            _ => false,
        };
        match *known.entry(format!("{server}/{tool}")).or_insert_with(alike) {
            true => Ok(()),
            false => Err(Cannot::Types),
        }
    }

    fn case(&self, recorded: &Recorded<'_>) -> Result<Case<'s>, Cannot> {
        use crate::policy::snapshot::NoCase;
        let snapshot = self.snapshot;
        let action: &str = &recorded.action;
        let verb = Verb::ALL.into_iter().find(|verb| verb.action() == action);
        let ask = match (&recorded.tool, verb) {
            (Some(name), _) => Ask::Tool { name: name.clone().into_owned() },
            (None, Some(verb)) => match verb.done_to() {
                DoneTo::Engine => Ask::Engine(Box::new(EngineAsk {
                    engine: recorded.resource.id.clone(),
                    verb,
                    task: TaskId::new(""),
                    facts: TaskFacts::default(),
                    at_most: Amount::ZERO,
                    priced: true,
                })),
                DoneTo::StateKey => Ask::State { key: recorded.resource.id.clone() },
                DoneTo::Inbox => Ask::Inbox { inbox: recorded.resource.id.clone(), verb },
                DoneTo::App => Ask::Session { app: recorded.resource.id.clone(), overrides: serde_json::Map::new() },
                DoneTo::Node => Ask::Delegate { node: recorded.resource.id.clone() },
                DoneTo::Held => Ask::Acknowledge(Box::new(AcknowledgeAsk {
                    operator: recorded.principal.id.clone(),
                    resource: EntityName { ty: recorded.resource.ty.clone(), id: recorded.resource.id.clone() },
                })),
                DoneTo::Server | DoneTo::Plane => Ask::Verb(verb),
            },
            (None, None) => Ask::Site(Box::new(SiteAsk {
                principal: EntityName { ty: recorded.principal.ty.clone(), id: recorded.principal.id.clone() },
                action: action.to_owned(),
                resource: EntityName { ty: recorded.resource.ty.clone(), id: recorded.resource.id.clone() },
            })),
        };
        if matches!(ask, Ask::Site(_)) {
            // What was in something then, and is nowhere now, was taken out of the site's entities.
            let gone = |named: &Named| {
                let uid = cedar_policy::EntityUid::from_type_name_and_id(
                    named.ty.parse().ok()?,
                    cedar_policy::EntityId::new(&named.id),
                );
                (!named.parents.is_empty() && snapshot.entities().get(&uid).is_none()).then_some(())
            };
            if gone(&recorded.principal).or_else(|| gone(&recorded.resource)).is_some() {
                return Err(Cannot::Entity);
            }
        }
        let case = snapshot.case(&recorded.worker, &recorded.server, &ask).map_err(|why| match why {
            NoCase::Worker => Cannot::Worker,
            NoCase::Server => Cannot::Server,
            NoCase::Engine => Cannot::Engine,
            NoCase::Inbox | NoCase::App | NoCase::Node => Cannot::Action,
            NoCase::Action | NoCase::Type => Cannot::Action,
        })?;
        // A tool that is gone would be decided as an unlisted one, which it was not.
        let same = case.target.action.id().unescaped() == action || matches!(ask, Ask::Site(_));
        let now_listed = action == "call_tool/unlisted";
        if same || now_listed { Ok(case) } else { Err(Cannot::Action) }
    }
}

/// Whether a reason code is one that policies lead to, or the snapshot's layers.
fn by_policy(reason: &str) -> bool {
    const BEFORE: [&str; 38] = [
        "unknown_session",
        "session_stopped",
        "unknown_app",
        "unknown_node",
        "server_of_an_app",
        "uncountable_argument",
        "history_full",
        "session_busy",
        "too_many_sessions",
        "held_with_others",
        "acknowledgement_refused",
        "acknowledgement_void",
        "acknowledgement_over",
        "too_many_held",
        "not_the_held_call",
        "budget_exceeded",
        "budget_frozen",
        "price_missing",
        "no_enclosing_task",
        "lease_invalid",
        "unknown_engine",
        "unknown_model",
        "engine_lacks_api",
        "engine_not_in_zone",
        "timed_out",
        "too_many_tasks",
        "request_invalid",
        "malformed_request",
        "unknown_method",
        "unknown_type",
        "unknown_server",
        "unknown_worker",
        "subject_of_another",
        "task_of_another",
        "journal_full",
        "journal_failed",
        "journal_busy",
        "seal_failed",
    ];
    !BEFORE.contains(&reason) && !reason.starts_with("argument_")
}

/// A finding of which only the number matters.
fn nothing() -> Finding {
    Finding { format: String::new(), at: String::new(), fingerprint: None, via: Vec::new() }
}
