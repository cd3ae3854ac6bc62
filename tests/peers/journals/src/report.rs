//! What was found: a table for each number of appenders, or one JSON object.

use crate::cell::Figures;
use crate::engines::Kind;
use crate::records::RECORD;
use crate::stats::{median, percentile};
use serde_json::{Value, json};
use std::fmt;

/// An engine at a number of appenders, and what each round said.
pub(crate) struct Row {
    pub(crate) engine: Kind,
    pub(crate) appenders: u32,
    pub(crate) rounds: Vec<Figures>,
}

impl Row {
    pub(crate) fn new(engine: Kind, appenders: u32) -> Self {
        Self { engine, appenders, rounds: Vec::new() }
    }

    fn median(&self, part: fn(&Figures) -> f64) -> f64 {
        median(self.rounds.iter().map(part).collect())
    }

    /// The median of what each round says against the same round of `base`.
    fn ratio(&self, base: &Row, part: fn(&Figures) -> f64) -> f64 {
        median(self.rounds.iter().zip(&base.rounds).map(|(mine, base)| part(mine) / part(base)).collect())
    }
}

/// All of it.
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    /// Microseconds for each small durable write, sorted.
    pub(crate) fdatasync: Vec<f64>,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
}

impl Report {
    /// How fast and how slow a row is beside `bare`, where that was measured.
    fn to_bare(&self, row: &Row) -> Option<(f64, f64)> {
        let bare = self.rows.iter().find(|bare| bare.engine == Kind::Bare && bare.appenders == row.appenders)?;
        Some((row.ratio(bare, |f| f.rate), row.ratio(bare, |f| f.p50)))
    }

    pub(crate) fn json(&self) -> Value {
        let figures = |f: &Figures| json!({ "records_per_s": f.rate, "p50_us": f.p50, "p99_us": f.p99 });
        let row = |row: &Row| {
            let to_bare = self.to_bare(row);
            json!({
                "appenders": row.appenders,
                "engine": row.engine.name(),
                "records_per_s": row.median(|f| f.rate),
                "p50_us": row.median(|f| f.p50),
                "p99_us": row.median(|f| f.p99),
                "rate_to_bare": to_bare.map(|(rate, _)| rate),
                "p50_to_bare": to_bare.map(|(_, p50)| p50),
                "rounds": row.rounds.iter().map(figures).collect::<Vec<_>>(),
            })
        };
        json!({
            "record_bytes": RECORD,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "fdatasync_p50_us": percentile(&self.fdatasync, 50),
            "fdatasync_p99_us": percentile(&self.fdatasync, 99),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "records of {RECORD} bytes; {} rounds of {} s, medians", self.rounds, self.seconds)?;
        let fdatasync = |part| percentile(&self.fdatasync, part);
        let (p50, p99) = (fdatasync(50), fdatasync(99));
        writeln!(f, "{RECORD} bytes and fdatasync, nothing else: p50 {p50:.0} µs, p99 {p99:.0} µs")?;
        let mut appenders = None;
        for row in &self.rows {
            if appenders != Some(row.appenders) {
                appenders = Some(row.appenders);
                writeln!(f)?;
                writeln!(
                    f,
                    "{:>9}  {:<7}{:>10}{:>10}{:>10}{:>14}{:>13}",
                    "appenders", "engine", "records/s", "p50 µs", "p99 µs", "rate to bare", "p50 to bare"
                )?;
            }
            write!(
                f,
                "{:>9}  {:<7}{:>10.0}{:>10.0}{:>10.0}",
                row.appenders,
                row.engine.name(),
                row.median(|f| f.rate),
                row.median(|f| f.p50),
                row.median(|f| f.p99)
            )?;
            match self.to_bare(row) {
                Some((rate, p50)) => writeln!(f, "{rate:>14.2}{p50:>13.2}")?,
                None => writeln!(f, "{:>14}{:>13}", "-", "-")?,
            }
        }
        Ok(())
    }
}
