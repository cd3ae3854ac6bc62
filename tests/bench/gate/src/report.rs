//! What `gate load` found: a table, and two sentences about it.

use crate::measure::Figures;
use crate::stats::median;
use serde_json::{Value, json};
use std::fmt;

/// The medians of a target.
pub(crate) struct Row {
    target: &'static str,
    connections: u64,
    figures: Figures,
}

impl Row {
    /// Of what its rounds said.
    pub(crate) fn new(target: &'static str, connections: u64, rounds: &[Figures]) -> Self {
        let of = |part: fn(&Figures) -> f64| median(rounds.iter().map(part).collect());
        let figures = Figures {
            rate: of(|f| f.rate),
            p50: of(|f| f.p50),
            p99: of(|f| f.p99),
            cpu: of(|f| f.cpu),
            peak: of(|f| f.peak),
        };
        Self { target, connections, figures }
    }

    fn json(&self) -> Value {
        let Figures { rate, p50, p99, cpu, peak } = self.figures;
        json!({
            "target": self.target, "connections": self.connections, "calls_per_s": rate, "p50_us": p50, "p99_us": p99,
            "cpu_us_per_call": cpu, "peak_rss_mib": peak,
        })
    }
}

/// All of it.
#[derive(Default)]
pub(crate) struct Loaded {
    /// By connections, then by target.
    pub(crate) rows: Vec<Row>,
    /// Microseconds that a small durable write takes on this disk.
    pub(crate) fdatasync: f64,
    /// What was answered wrongly or not at all.
    pub(crate) errors: Vec<String>,
}

/// A figure with what is expected of it.
struct Verdict {
    what: &'static str,
    value: f64,
    expected: &'static str,
    good: bool,
    because: String,
}

impl Verdict {
    fn json(&self) -> Value {
        let Self { what, value, expected, good, because } = self;
        json!({ "what": what, "value": value, "expected": expected, "ok": good, "because": because })
    }
}

impl Loaded {
    fn of(&self, target: &str, connections: u64) -> Option<Figures> {
        self.rows.iter().find(|row| row.target == target && row.connections == connections).map(|row| row.figures)
    }

    /// The second needs figures of a single connection.
    fn verdicts(&self) -> Vec<Verdict> {
        let most = self.rows.iter().map(|row| row.connections).max().unwrap_or_default();
        let rate = |target| self.of(target, most).unwrap_or_default().rate;
        let ratio = rate("warden") / rate("proxy").max(f64::MIN_POSITIVE);
        let mut verdicts = vec![Verdict {
            what: "warden/proxy rate",
            value: ratio,
            expected: ">= 0.45",
            good: ratio >= 0.45,
            because: format!("{:.0} / {:.0} calls/s at {most} connections", rate("warden"), rate("proxy")),
        }];
        if let (Some(direct), Some(proxy), Some(warden)) =
            (self.of("direct", 1), self.of("proxy", 1), self.of("warden", 1))
        {
            let (added, hop) = (warden.p50 - direct.p50, proxy.p50 - direct.p50);
            let over = added - (self.fdatasync + 2.0 * hop);
            verdicts.push(Verdict {
                what: "p50 over one fdatasync and two hops, µs",
                value: over,
                expected: "<= 0",
                good: over <= 0.0,
                because: format!(
                    "{added:.0} added - ({:.0} fdatasync + 2 x {hop:.0} hop) at 1 connection",
                    self.fdatasync
                ),
            });
        }
        verdicts
    }

    /// One object.
    pub(crate) fn json(&self) -> Value {
        json!({
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(), "fdatasync_us": self.fdatasync,
            "verdicts": self.verdicts().iter().map(Verdict::json).collect::<Vec<_>>(), "errors": self.errors,
        })
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>11}  {:<7} {:>9} {:>9} {:>9} {:>12} {:>9}",
            "connections", "target", "calls/s", "p50 µs", "p99 µs", "CPU µs/call", "peak MiB"
        )?;
        for Row { target, connections, figures: Figures { rate, p50, p99, cpu, peak } } in &self.rows {
            writeln!(f, "{connections:>11}  {target:<7} {rate:>9.0} {p50:>9.0} {p99:>9.0} {cpu:>12.1} {peak:>9.1}")?;
        }
        writeln!(f, "\n600 bytes and fdatasync: {:.0} µs; errors: {}", self.fdatasync, self.errors.len())?;
        for Verdict { what, value, expected, good, because } in self.verdicts() {
            let said = if good { "ok" } else { "MISSED" };
            writeln!(f, "{what}: {value:.2} (expected {expected}) {said}: {because}")?;
        }
        Ok(())
    }
}
