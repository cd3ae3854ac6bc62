//! One figure: so many clients, each asking again as soon as it is answered, for so long.

use crate::answers::Mode;
use crate::client::Client;
use crate::stats::percentile;
use crate::targets::Target;
use crate::tree;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WARM_UP: Duration = Duration::from_millis(500);
/// After an error, so that one that is gone is not asked thousands of times.
const PAUSE: Duration = Duration::from_millis(50);

/// What one round said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Whole answers a second.
    pub(crate) rate: f64,
    /// Microseconds of the middle call.
    pub(crate) p50: f64,
    /// Microseconds that 99 of 100 calls do not exceed.
    pub(crate) p99: f64,
    /// Microseconds of a processor for each call.
    pub(crate) cpu: f64,
    /// MiB in memory at the end.
    pub(crate) rss: f64,
    /// Calls without a whole answer, those of the warm-up too.
    pub(crate) errors: u64,
}

/// One client's calls: when each ended, and how long it took.
#[derive(Default)]
struct Calls {
    done: Vec<(Instant, Duration)>,
    errors: u64,
    first_error: Option<String>,
}

/// Figures, and what went wrong first.
pub(crate) async fn measure(target: &Target, mode: Mode, clients: usize, time: Duration) -> (Figures, Option<String>) {
    let (stop, pids) = (Arc::new(AtomicBool::new(false)), target.process.pids());
    let mut loops = JoinSet::new();
    for _ in 0..clients {
        let mut client = Client::new(&target.door, mode);
        // Connected before any of them asks; one that cannot says so when it is asked.
        let _ = client.connect().await;
        loops.spawn(ask_on(client, stop.clone()));
    }
    tokio::time::sleep(WARM_UP).await;
    let (from, cpu_from) = (Instant::now(), tree::cpu(&pids));
    tokio::time::sleep(time).await;
    let (to, cpu_to) = (Instant::now(), tree::cpu(&pids));
    stop.store(true, Ordering::Relaxed);
    // A call ends by itself.
    let ended = loops.join_all().await;
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
        rss: tree::rss(&target.process.pids()),
        errors: ended.iter().map(|calls| calls.errors).sum(),
    };
    (figures, ended.into_iter().find_map(|calls| calls.first_error))
}

async fn ask_on(mut client: Client, stop: Arc<AtomicBool>) -> Calls {
    let mut calls = Calls::default();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match client.call().await {
            Ok(()) => {
                let now = Instant::now();
                calls.done.push((now, now - begun));
            }
            Err(e) => {
                calls.errors += 1;
                calls.first_error.get_or_insert_with(|| e.to_string());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    calls
}
