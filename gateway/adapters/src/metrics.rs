//! What `/metrics` shows, in OpenMetrics text.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;
use warden_core::amount::{Amount, Unit};
use warden_core::invariant;
use warden_core::outcome::{EngineEvent, Outcome};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineCall {
    engine: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineTokens {
    engine: String,
    direction: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEngine {
    engine: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBudget {
    budget: String,
    unit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Promise {
    invariant: String,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    decisions: Family<Verdict, Counter>,
    unrecorded: Counter,
    append_seconds: Histogram,
    view_lag: Gauge,
    unwitnessed: Gauge,
    /// Chatter that passed.
    pub chatter: Counter,
    dropped: Family<Dropped, Counter>,
    /// Open MCP connections.
    pub connections: Gauge,
    violations: Family<Promise, Gauge>,
    engine_calls: Family<EngineCall, Counter>,
    engine_tokens: Family<EngineTokens, Counter>,
    engine_micro_usd: Family<OfEngine, Counter>,
    engine_seconds: Family<OfEngine, Histogram>,
    budget_spent: Family<OfBudget, Gauge>,
    budget_reserved: Family<OfBudget, Gauge>,
    /// Tasks that said they need an engine, and called none.
    pub bypasses: Counter,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("warden");
        let decisions = Family::default();
        registry.register("decisions", "Recorded decisions by verdict", decisions.clone());
        let unrecorded = Counter::default();
        registry.register(
            "unrecorded",
            "Records that could not be written; nothing moved for them",
            unrecorded.clone(),
        );
        let append_seconds = Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        registry.register("journal_append_seconds", "From a record's making to its receipt", append_seconds.clone());
        let chatter = Counter::default();
        registry.register("chatter", "Protocol messages that passed under a connection's decision", chatter.clone());
        let dropped = Family::default();
        registry.register("dropped", "Messages that led nowhere, by why", dropped.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open MCP connections", connections.clone());
        let violations = Family::default();
        registry.register(
            "invariant_violations",
            "Promises found broken; anything but 0 is a defect",
            violations.clone(),
        );
        let view_lag = Gauge::default();
        registry.register("view_lag_records", "Records that the queryable log has not taken in yet", view_lag.clone());
        let unwitnessed = Gauge::<i64>::default();
        registry.register(
            "unwitnessed_records",
            "Records that no witness has seen; -1 without a witness",
            unwitnessed.clone(),
        );
        let engine_calls = Family::default();
        registry.register("engine_calls", "Calls of engines by what came of them", engine_calls.clone());
        let engine_tokens = Family::default();
        registry.register("engine_tokens", "Tokens that were settled, in and out", engine_tokens.clone());
        let engine_micro_usd = Family::default();
        registry.register("engine_micro_usd", "Micro-USD that were settled", engine_micro_usd.clone());
        let engine_seconds =
            Family::<OfEngine, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 16)));
        registry.register("engine_seconds", "From a call's decision to the end of its answer", engine_seconds.clone());
        let budget_spent = Family::default();
        registry.register("budget_spent", "What was spent of each configured budget, ever", budget_spent.clone());
        let budget_reserved = Family::default();
        registry.register("budget_reserved", "What is set aside for calls on their way", budget_reserved.clone());
        let bypasses = Counter::default();
        registry.register(
            "engine_bypass_suspected",
            "Tasks that said they need an engine and called none",
            bypasses.clone(),
        );
        Self {
            engine_calls,
            engine_tokens,
            engine_micro_usd,
            engine_seconds,
            budget_spent,
            budget_reserved,
            bypasses,
            view_lag,
            unwitnessed,
            registry,
            decisions,
            unrecorded,
            append_seconds,
            chatter,
            dropped,
            connections,
            violations,
        }
    }

    pub(crate) fn appended(&self, took: Duration, written: bool) {
        self.append_seconds.observe(took.as_secs_f64());
        if !written {
            self.unrecorded.inc();
        }
    }

    pub(crate) fn decided(&self, verdict: &str) {
        self.decisions.get_or_create(&Verdict { verdict: verdict.into() }).inc();
    }

    /// How far the view and the witnesses are behind the journal.
    pub fn of_the_log(&self, view_lag: u64, unwitnessed: Option<u64>) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.view_lag.set(count(view_lag));
        self.unwitnessed.set(unwitnessed.map_or(-1, count));
    }

    /// What came of a call of an engine.
    pub fn called(&self, outcome: &Outcome) {
        let Some(EngineEvent { engine, usage, .. }) = &outcome.engine else { return };
        let happened = serde_json::to_value(outcome.happened).ok();
        let happened = happened.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        self.engine_calls.get_or_create(&EngineCall { engine: engine.clone(), outcome: happened.into() }).inc();
        let of_engine = OfEngine { engine: engine.clone() };
        self.engine_seconds.get_or_create(&of_engine).observe(Duration::from_millis(outcome.took_ms).as_secs_f64());
        if let Some(usage) = usage {
            for (direction, tokens) in [("in", usage.input), ("out", usage.output)] {
                let labels = EngineTokens { engine: engine.clone(), direction: direction.into() };
                self.engine_tokens.get_or_create(&labels).inc_by(tokens);
            }
        }
        if let Some(settled) = &outcome.settled {
            self.engine_micro_usd.get_or_create(&of_engine).inc_by(settled.amount.micro_usd);
        }
    }

    /// How the configured budgets are.
    pub fn of_budgets<'b>(&self, budgets: impl Iterator<Item = (&'b str, Amount, Amount)>) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (budget, spent, reserved) in budgets {
            for unit in Unit::ALL {
                let labels = OfBudget { budget: budget.to_owned(), unit: unit.to_string() };
                self.budget_spent.get_or_create(&labels).set(count(spent.of(unit)));
                self.budget_reserved.get_or_create(&labels).set(count(reserved.of(unit)));
            }
        }
    }

    /// A message that led nowhere.
    pub fn dropped(&self, reason: &'static str) {
        self.dropped.get_or_create(&Dropped { reason: reason.into() }).inc();
    }

    /// The text of now.
    pub fn text(&self) -> String {
        for invariant in invariant::ALL {
            let count = i64::try_from(invariant::violations(invariant)).unwrap_or(i64::MAX);
            self.violations.get_or_create(&Promise { invariant: format!("{invariant:?}") }).set(count);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
