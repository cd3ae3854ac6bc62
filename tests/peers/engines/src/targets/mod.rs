//! What is measured, each in a file of its own.

mod litellm;
mod portkey;
mod warden;

use crate::Outcome;
use crate::answers::{KEY, Mode};
use crate::ask::Door;
use crate::client::Client;
use crate::ports::Ports;
use crate::process::Process;
use clap::ValueEnum;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the first whole answer may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// The targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The provider itself
    Direct,
    /// A bare proxy
    Bare,
    /// Warden
    Warden,
    /// The gateway of Portkey
    Portkey,
    /// The proxy of litellm
    Litellm,
}

/// Where targets are started, and what they need.
pub(crate) struct Place {
    /// The provider.
    pub(crate) provider: Arc<Process>,
    /// Its port.
    pub(crate) mock: u16,
    /// For whatever they write.
    pub(crate) dir: PathBuf,
    /// For them.
    pub(crate) ports: Ports,
    /// The program.
    pub(crate) warden: Option<PathBuf>,
    /// Where the others are installed.
    pub(crate) peers: Option<PathBuf>,
    /// Processes of litellm.
    pub(crate) workers: u64,
}

/// What clients ask, and the process whose cost it is.
pub(crate) struct Target {
    /// Which.
    pub(crate) kind: Kind,
    /// Where.
    pub(crate) door: Door,
    /// Who.
    pub(crate) process: Arc<Process>,
}

/// What came of a start.
pub(crate) enum Started {
    /// And how it runs, for people.
    Runs(Target, String),
    /// With the reason.
    Absent(String),
}

impl Kind {
    /// As it is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Bare => "bare",
            Kind::Warden => "warden",
            Kind::Portkey => "portkey",
            Kind::Litellm => "litellm",
        }
    }

    /// Starts it, and waits until it has answered and is idle again.
    pub(crate) async fn start(self, place: &mut Place) -> Outcome<Started> {
        let started = match self {
            Kind::Direct => {
                let target = Target { kind: self, door: Door::new(place.mock, KEY)?, process: place.provider.clone() };
                Started::Runs(target, "the provider, one thread".to_owned())
            }
            Kind::Bare => bare(place).await?,
            Kind::Warden => warden::start(place).await?,
            Kind::Portkey => portkey::start(place).await?,
            Kind::Litellm => litellm::start(place).await?,
        };
        if let Started::Runs(target, _) = &started {
            target.answers().await?;
            target.process.settle().await;
        }
        Ok(started)
    }
}

async fn bare(place: &mut Place) -> Outcome<Started> {
    let port = place.ports.next()?;
    let process = Process::own("bare", &place.dir, port, &["--upstream", &place.mock.to_string()]).await?;
    let target = Target { kind: Kind::Bare, door: Door::new(port, KEY)?, process: Arc::new(process) };
    Ok(Started::Runs(target, "a proxy that reads nothing, a thread per core".to_owned()))
}

impl Place {
    /// Where an OpenAI client would find the provider.
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.mock)
    }
}

impl Target {
    /// Waits for a whole answer: some listen before they can give one.
    async fn answers(&self) -> Outcome<()> {
        let (begun, mut client) = (Instant::now(), Client::new(&self.door, Mode::Unary));
        while let Err(e) = client.call().await {
            if begun.elapsed() > PATIENCE {
                return Err(format!("it does not answer: {e}\n{}", self.process.last_words()).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}
