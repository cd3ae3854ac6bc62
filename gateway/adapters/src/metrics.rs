//! What `/metrics` shows, in OpenMetrics text.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;
use warden_core::invariant;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: String,
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
        Self {
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
