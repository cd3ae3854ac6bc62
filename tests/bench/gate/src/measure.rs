//! One figure: so many clients, each asking again as soon as it is answered, for so long.

use crate::Outcome;
use crate::client::{Ask, Client, Door, echoes};
use crate::process::Process;
use crate::stats::percentile;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WARM_UP: Duration = Duration::from_millis(500);
/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What clients ask, and the process whose cost it is.
pub(crate) struct Target {
    /// For people.
    pub(crate) name: &'static str,
    /// Where.
    pub(crate) door: Door,
    /// Who.
    pub(crate) process: Process,
}

/// What one round said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Calls a second.
    pub(crate) rate: f64,
    /// Microseconds of the middle call.
    pub(crate) p50: f64,
    /// Microseconds that 99 of 100 calls do not exceed.
    pub(crate) p99: f64,
    /// Microseconds of a processor for each call.
    pub(crate) cpu: f64,
    /// MiB in memory, at most.
    pub(crate) peak: f64,
}

/// One client's calls: when each ended, and how long it took. An error ends them.
#[derive(Default)]
struct Calls {
    done: Vec<(Instant, Duration)>,
    error: Option<String>,
}

/// Figures, and what went wrong.
pub(crate) async fn measure(target: &Target, clients: usize, time: Duration) -> Outcome<(Figures, Vec<String>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut loops = JoinSet::new();
    for number in 0..clients {
        let mut client = Client::connect(target.door.clone()).await?;
        let opened = tokio::time::timeout(PATIENCE, client.open()).await;
        opened.map_err(Into::into).flatten().map_err(|e| format!("{}: {e}", target.name))?;
        loops.spawn(ask_on(client, number, stop.clone()));
    }
    tokio::time::sleep(WARM_UP).await;
    target.process.forget_peak()?;
    let (from, cpu_from) = (Instant::now(), target.process.cpu()?);
    tokio::time::sleep(time).await;
    let (to, cpu_to) = (Instant::now(), target.process.cpu()?);
    stop.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(PATIENCE, loops.join_all()).await;
    let ended = ended.map_err(|_| format!("{}: no answer within {} s", target.name, PATIENCE.as_secs()))?;
    let in_time = |(at, _): &&(Instant, Duration)| (from..to).contains(at);
    let done = ended.iter().flat_map(|calls| calls.done.iter().filter(in_time));
    let mut micros: Vec<f64> = done.map(|(_, took)| took.as_secs_f64() * 1e6).collect();
    micros.sort_by(f64::total_cmp);
    let count = micros.len() as f64;
    let figures = Figures {
        rate: count / (to - from).as_secs_f64(),
        p50: percentile(&micros, 50),
        p99: percentile(&micros, 99),
        cpu: (cpu_to - cpu_from) * 1e6 / count.max(1.0),
        peak: target.process.peak()?,
    };
    let errors = ended.into_iter().filter_map(|calls| calls.error).map(|e| format!("{}: {e}", target.name)).collect();
    Ok((figures, errors))
}

async fn ask_on(mut client: Client, number: usize, stop: Arc<AtomicBool>) -> Calls {
    let mut calls = Calls::default();
    while !stop.load(Ordering::Relaxed) {
        let text = format!("client {number} call {}", calls.done.len());
        let begun = Instant::now();
        match client.ask(Ask::Echo, &text).await {
            Ok(answer) if answer.result().is_ok_and(|result| echoes(result, &text)) => {
                let now = Instant::now();
                calls.done.push((now, now - begun));
            }
            Ok(answer) => {
                calls.error = Some(answer.shown());
                return calls;
            }
            Err(e) => {
                calls.error = Some(e.to_string());
                return calls;
            }
        }
    }
    calls.error = client.close().await.err().map(|e| e.to_string());
    calls
}
