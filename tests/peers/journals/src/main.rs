//! `journals`: what a durable append costs in Warden's journal, beside a bare file and embedded stores, on one disk and
//! in one run.

mod append;
mod cell;
mod disk;
mod engines;
mod group;
mod records;
mod report;
mod stats;
mod stop;

use cell::{Figures, Span};
use clap::Parser;
use disk::Disk;
use engines::Kind;
use records::Records;
use report::{Report, Row};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use stop::Stop;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// What may fail, with a sentence for whoever runs it.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The one of the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads of the appenders, for every engine.
const WORKERS: usize = 2;
/// Plain writes before each cell.
const DISK_WRITES: usize = 50;

/// Durable appends: Warden's journal beside a bare file and embedded stores
///
/// An appender appends a record of 600 bytes, waits until it would survive a power cut, and appends the next. Every
/// engine commits what waits at the same time as one group. In each round every engine comes once at each number of
/// appenders, each round starting with another one; what is told are medians of the rounds. Ratios are taken in each
/// round, against `bare` in the same round.
///
/// Engines: `bare`, a file of zeros, write and fdatasync, the floor under every journal; `warden`, the gateway's
/// journal with its Merkle tree and its records made and serialised; `sqlite` with a WAL and synchronous=FULL; `sled`
/// with an fdatasync after its flush; `fjall` with SyncData; `redb` with immediate durability.
///
/// Exit codes: 0 measured, 1 not.
#[derive(Debug, Parser)]
#[command(
    name = "journals",
    max_term_width = 100,
    after_help = "Examples:\n  journals\n  journals --engines bare,warden --appenders 64 --rounds 9\n  journals --dir /mnt/nvme --json > journals.json"
)]
struct Cli {
    /// Rounds; the median of them is told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds that are measured for one engine at one number of appenders, after 300 ms that are not
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Which engines, in this order. Without `bare` there are no ratios
    #[arg(long, value_enum, value_delimiter = ',', default_value = "bare,warden,sqlite,sled,fjall,redb")]
    engines: Vec<Kind>,
    /// How many append at the same time, one number or several
    #[arg(long, value_delimiter = ',', default_value = "1,8,64", value_parser = clap::value_parser!(u32).range(1..=1024))]
    appenders: Vec<u32>,
    /// A folder on the disk that is measured. A temporary one is made in it and removed at the end [default: where this
    /// program lies, below the target folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON object, with every round, in place of the tables
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match measure(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("journals: {}", told(&*e));
            ExitCode::FAILURE
        }
    }
}

/// An error with what caused it.
fn told(e: &dyn Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let more = e.to_string();
        // Some say their cause themselves.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    text
}

fn measure(cli: &Cli) -> Outcome<()> {
    let (engines, appenders) = (once_each(&cli.engines), once_each(&cli.appenders));
    let parent = match &cli.dir {
        Some(dir) => dir.clone(),
        None => std::env::current_exe()?.parent().ok_or("name a folder with --dir")?.to_owned(),
    };
    let dir = tempfile::Builder::new()
        .prefix("journals-")
        .tempdir_in(&parent)
        .map_err(|e| format!("cannot make a folder in `{}`: {e}", parent.display()))?;
    let mut bench = Bench {
        runtime: Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?,
        disk: Disk::open(dir.path())?,
        records: Records::new(),
        dir,
        measured: Duration::from_secs(cli.seconds.into()),
        stop: Stop::default(),
    };
    bench.stop.listen(&bench.runtime)?;

    let mut rows: Vec<Row> = Vec::new();
    for &appenders in &appenders {
        rows.extend(engines.iter().map(|&engine| Row::new(engine, appenders)));
    }
    for round in 0..cli.rounds as usize {
        for &appenders in &appenders {
            for at in 0..engines.len() {
                let engine = engines[(at + round) % engines.len()];
                let fdatasync = bench.disk.measure(DISK_WRITES)?;
                let figures = bench.cell(engine, appenders).map_err(|e| format!("{}: {}", engine.name(), told(&*e)))?;
                eprintln!(
                    "round {} of {}, {appenders:>3} appenders, {:<6} {:>8.0} records/s (one fdatasync before: {fdatasync:.0} µs)",
                    round + 1,
                    cli.rounds,
                    engine.name(),
                    figures.rate
                );
                let row = rows.iter_mut().find(|row| row.engine == engine && row.appenders == appenders);
                row.ok_or("a row is missing")?.rounds.push(figures);
            }
        }
    }
    let report = Report { rows, fdatasync: bench.disk.micros(), rounds: cli.rounds, seconds: cli.seconds };
    if cli.json {
        println!("{:#}", report.json());
    } else {
        print!("{report}");
    }
    bench.close()
}

/// The values without repetition, in their order.
fn once_each<T: Copy + PartialEq>(values: &[T]) -> Vec<T> {
    let mut once = Vec::new();
    for &value in values {
        if !once.contains(&value) {
            once.push(value);
        }
    }
    once
}

/// What all cells of a run share.
struct Bench {
    runtime: Runtime,
    disk: Disk,
    records: Records,
    dir: TempDir,
    measured: Duration,
    stop: Stop,
}

impl Bench {
    /// One engine, new and empty, at one number of appenders.
    fn cell(&mut self, engine: Kind, appenders: u32) -> Outcome<Figures> {
        let dir = tempfile::tempdir_in(self.dir.path())?;
        let span = Span { appenders: appenders as usize, measured: self.measured };
        let figures = engine.measure(dir.path(), &self.runtime, &self.records, span, &self.stop);
        let removed = dir.close();
        if self.stop.asked() {
            return Err("interrupted".into());
        }
        let figures = figures?;
        removed.map_err(|e| format!("cannot remove its folder: {e}"))?;
        // Nobody else pays for what it left behind.
        self.disk.settle()?;
        Ok(figures)
    }

    fn close(self) -> Outcome<()> {
        drop(self.disk);
        let path = self.dir.path().to_owned();
        self.dir.close().map_err(|e| format!("cannot remove `{}`: {e}", path.display()).into())
    }
}
