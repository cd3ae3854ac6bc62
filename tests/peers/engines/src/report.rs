//! The table, a row at a time, and the same as JSON.

use crate::cell::Row;
use crate::measure::Figures;
use serde_json::{Value, json};
use std::fmt;

/// What the columns are.
pub(crate) struct Head;

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<6} {:>7}  {:<8} {:>9} {:>12} {:>9} {:>9} {:>12} {:>8} {:>8}",
            "answer",
            "clients",
            "target",
            "calls/s",
            "rate to bare",
            "p50 µs",
            "p99 µs",
            "CPU µs/call",
            "RSS MiB",
            "errors"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { rate, p50, p99, cpu, rss, errors } = self.figures;
        let to_bare = self.to_bare.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        write!(
            f,
            "{:<6} {:>7}  {:<8} {rate:>9.0} {to_bare:>12} {p50:>9.0} {p99:>9.0} {cpu:>12.1} {rss:>8.1} {errors:>8}",
            self.mode.name(),
            self.clients,
            self.name
        )
    }
}

impl Row {
    /// One object.
    pub(crate) fn json(&self) -> Value {
        let Figures { rate, p50, p99, cpu, rss, errors } = self.figures;
        json!({
            "answer": self.mode.name(), "clients": self.clients, "target": self.name, "calls_per_s": rate,
            "rate_to_bare": self.to_bare, "p50_us": p50, "p99_us": p99, "cpu_us_per_call": cpu, "rss_mib": rss,
            "errors": errors, "first_error": self.first_error,
        })
    }
}
