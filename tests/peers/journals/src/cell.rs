//! One measurement: some appenders, for some time.

use crate::Outcome;
use crate::append::Appender;
use crate::stats::percentile;
use crate::stop::Stop;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Not counted: the first batches find cold caches and threads that are not there yet.
const WARM_UP: Duration = Duration::from_millis(300);

/// How many append, and how long.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) appenders: usize,
    pub(crate) measured: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Records a second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
}

/// Lets each of `appenders` append until the time is over. What ends in time counts.
pub(crate) fn run<A: Appender>(
    runtime: &Runtime,
    appenders: Vec<A>,
    measured: Duration,
    stop: &Stop,
) -> Outcome<Figures> {
    let from = Instant::now() + WARM_UP;
    let to = from + measured;
    let running: Vec<_> =
        appenders.into_iter().map(|appender| runtime.spawn(keep_appending(appender, from, to, stop.clone()))).collect();
    let mut micros = Vec::new();
    for appender in running {
        micros.extend(runtime.block_on(appender)??);
    }
    if micros.is_empty() {
        return Err("not one record became durable in time; try more --seconds".into());
    }
    micros.sort_by(f64::total_cmp);
    Ok(Figures {
        rate: micros.len() as f64 / measured.as_secs_f64(),
        p50: percentile(&micros, 50),
        p99: percentile(&micros, 99),
    })
}

/// Microseconds of each append that ended in time.
async fn keep_appending<A: Appender>(mut appender: A, from: Instant, to: Instant, stop: Stop) -> Outcome<Vec<f64>> {
    let mut micros = Vec::new();
    loop {
        let record = appender.next();
        let begun = Instant::now();
        appender.append(record).await?;
        let ended = Instant::now();
        if ended >= to || stop.asked() {
            return Ok(micros);
        }
        if ended >= from {
            micros.push((ended - begun).as_secs_f64() * 1e6);
        }
    }
}
