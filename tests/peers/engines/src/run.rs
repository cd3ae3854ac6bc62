//! A run: the provider and all targets are started, heated, measured in turn, and ended.

use crate::Outcome;
use crate::answers::Mode;
use crate::cell::{Cell, Row};
use crate::measure::measure;
use crate::ports::Ports;
use crate::process::Process;
use crate::report::Head;
use crate::targets::{Kind, Place, Started, Target};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// What each target gets of each mode before anything counts: some compile themselves as they run.
const HEAT: Duration = Duration::from_secs(2);
const HEATERS: usize = 16;

/// What to compare, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Warden's program
    #[arg(long, value_name = "PATH")]
    warden: Option<PathBuf>,
    /// Where the other gateways are installed, as `install-peers` does it
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "direct,bare,warden,portkey,litellm")]
    targets: Vec<Kind>,
    /// How answers come
    #[arg(long, value_enum, value_delimiter = ',', default_value = "unary,sse")]
    answers: Vec<Mode>,
    /// Clients at once
    #[arg(long, default_value = "1,16,64", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    clients: Vec<u64>,
    /// Rounds; their medians are told
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Seconds that each figure takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Worker processes of litellm; as many as there are cores if not given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    litellm_workers: Option<u64>,
    /// Where a site with its journal is made: a folder on a disk
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Measures, and tells each cell as it is done.
    pub(crate) async fn run(self) -> Outcome<ExitCode> {
        let below = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("engines-").tempdir_in(&below);
        let dir = dir.map_err(|e| format!("`{}`: {e}", below.display()))?;
        let cores = std::thread::available_parallelism()?.get();
        let mut ports = Ports::new()?;
        let mock = ports.next()?;
        let mut place = Place {
            provider: Arc::new(Process::own("mock", dir.path(), mock, &[]).await?),
            mock,
            dir: dir.path().canonicalize()?,
            ports,
            warden: self.warden.clone(),
            peers: self.peers.clone(),
            workers: self.litellm_workers.unwrap_or(cores as u64),
        };
        self.say(&format!("{cores} cores; {} rounds of {} s", self.rounds, self.seconds));
        let (targets, mut well) = self.start(&mut place).await;
        self.heat(&targets).await;
        self.say(&format!("\n{Head}"));
        let mut rows = Vec::new();
        for &mode in &self.answers {
            for &clients in &self.clients {
                let (clients, rounds) = (usize::try_from(clients)?, usize::try_from(self.rounds)?);
                let cell = Cell { mode, clients, rounds, time: Duration::from_secs(self.seconds) };
                let measured = cell.measure(&targets).await;
                measured.iter().for_each(|row| self.say(&row.to_string()));
                rows.extend(measured);
            }
        }
        if self.json {
            let rows: Vec<_> = rows.iter().map(Row::json).collect();
            println!("{}", json!({ "cores": cores, "rounds": self.rounds, "seconds": self.seconds, "rows": rows }));
        }
        for row in &rows {
            if let Some(error) = &row.first_error {
                eprintln!("engines: {} {} {}: {error}", row.name, row.mode.name(), row.clients);
                well = false;
            }
        }
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// One after the other. Says which are left out, and whether none failed.
    async fn start(&self, place: &mut Place) -> (Vec<Target>, bool) {
        let (mut targets, mut well) = (Vec::new(), true);
        for &kind in &self.targets {
            match kind.start(place).await {
                Ok(Started::Runs(target, how)) => {
                    self.say(&format!("{}: {how}", kind.name()));
                    targets.push(target);
                }
                Ok(Started::Absent(why)) => self.say(&format!("{}: skipped: {why}", kind.name())),
                Err(e) => {
                    eprintln!("engines: {} does not start: {e}", kind.name());
                    well = false;
                }
            }
        }
        (targets, well)
    }

    async fn heat(&self, targets: &[Target]) {
        for target in targets {
            for &mode in &self.answers {
                measure(target, mode, HEATERS, HEAT).await;
            }
        }
    }

    fn say(&self, line: &str) {
        if !self.json {
            println!("{line}");
        }
    }
}
