//! `gate load`: the same call to a server itself, through a bare proxy and through Warden, in turn.

use crate::Outcome;
use crate::client::Door;
use crate::disk::Disk;
use crate::measure::{Figures, Target, measure};
use crate::process::{Process, allow_files, free_ports};
use crate::report::{Loaded, Row};
use crate::site::{PERMIT_ALL, Site, folder};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Where the main project puts what it builds.
pub(crate) const WARDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/release/warden");
/// Durable writes, over all rounds.
const WRITES: usize = 500;

/// What to compare, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The program
    #[arg(long, default_value = WARDEN, hide_default_value = true)]
    warden: PathBuf,
    /// Seconds that each figure takes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Rounds; their medians are told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Connections at once
    #[arg(long, default_value = "1,16,64", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    connections: Vec<u64>,
    /// Ask as MCP 2026-07-28 does, without sessions
    #[arg(long)]
    modern: bool,
    /// Where the journal is written while it is measured: a folder on a disk
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Load {
    /// Measures, and tells.
    pub(crate) async fn run(self) -> Outcome<ExitCode> {
        allow_files()?;
        let [upstream, proxy, warden] = free_ports().await?;
        let behind = Process::own("upstream", upstream, &[]).await?;
        let between = Process::own("proxy", proxy, &["--upstream", &upstream.to_string()]).await?;
        let workers = ["loader".to_owned()];
        let site = Site::make(&self.warden, folder(self.dir.as_deref())?, (warden, upstream), &workers).await?;
        site.policy("all.cedar", PERMIT_ALL)?;
        let gateway = site.serve().await?;
        let token = site.issue(&workers).await?.concat();
        let door = |port| Door { port, path: "/mcp", token: None, modern: self.modern };
        let targets = [
            Target { name: "direct", door: door(upstream), process: behind },
            Target { name: "proxy", door: door(proxy), process: between },
            Target { name: "warden", door: Door { modern: self.modern, ..site.door(&token) }, process: gateway },
        ];
        let loaded = self.measure(&targets, &mut Disk::open(&site.data())?).await;
        let loaded = loaded.map_err(|e| format!("{e}\nWarden's log: {}", site.last_words()))?;
        if self.json {
            println!("{}", loaded.json());
        } else {
            print!("{loaded}");
        }
        for error in loaded.errors.iter().take(5) {
            eprintln!("gate: {error}");
        }
        Ok(if loaded.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Every target in each round, each time in another order, so that none has the machine at its best.
    async fn measure(&self, targets: &[Target; 3], disk: &mut Disk) -> Outcome<Loaded> {
        let (time, mut loaded) = (Duration::from_secs(self.seconds), Loaded::default());
        let writes = WRITES.div_ceil(self.connections.len() * usize::try_from(self.rounds)?);
        for &connections in &self.connections {
            let clients = usize::try_from(connections)?;
            let mut figures: [Vec<Figures>; 3] = Default::default();
            for round in 0..usize::try_from(self.rounds)? {
                disk.measure(writes)?;
                for turn in 0..targets.len() {
                    let at = (turn + round) % targets.len();
                    let (measured, errors) = measure(&targets[at], clients, time).await?;
                    figures[at].push(measured);
                    loaded.errors.extend(errors);
                }
            }
            for (target, figures) in targets.iter().zip(&figures) {
                loaded.rows.push(Row::new(target.name, connections, figures));
            }
        }
        loaded.fdatasync = disk.median();
        Ok(loaded)
    }
}
