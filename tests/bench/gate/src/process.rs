//! Processes that this one starts, looks at, and ends.

use crate::Outcome;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// A journal may have to be verified first.
const PATIENCE: Duration = Duration::from_secs(90);
/// What a killed process takes to be gone, at most.
const DYING: Duration = Duration::from_secs(5);

/// A process that listens. It is killed when this is dropped, and seen off: not every system has somebody who does that
/// for those whose parent is gone.
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < DYING {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Process {
    /// Starts it, and waits until it listens.
    pub(crate) async fn start(mut command: Command, port: u16) -> Outcome<Self> {
        let child = command.spawn()?;
        let pid = child.id().ok_or("it ended at once")?;
        let (mut process, begun) = (Self { child, pid }, Instant::now());
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("{:?} ended: {status}", command.as_std().get_program()).into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("nothing listens on port {port}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(process)
    }

    /// Another role of this program. It ends with this one, whose end of its stdin is closed then.
    pub(crate) async fn own(role: &str, port: u16, args: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([role, "--port", &port.to_string()]).args(args).stdin(Stdio::piped());
        Self::start(command, port).await
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) -> Outcome<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and what it comes to; an error when it does not end.
    pub(crate) async fn stop(mut self, patience: Duration) -> Outcome<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        rustix::process::kill_process(pid, Signal::TERM)?;
        let ended = tokio::time::timeout(patience, self.child.wait()).await;
        match ended.map_err(|_| format!("it did not end within {} s of SIGTERM", patience.as_secs()))?? {
            status if status.success() => Ok(()),
            status => Err(format!("it ended after SIGTERM with {status}").into()),
        }
    }

    /// Seconds on a processor so far, its own and the system's for it.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        let stat = self.read("stat")?;
        // The name in parentheses may hold anything; `utime` and `stime` are the 12th and 13th after it.
        let fields = stat.rsplit_once(')').ok_or("`stat` cannot be read")?.1;
        let ticks: Result<Vec<u64>, _> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect();
        Ok(ticks?.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// MiB in memory.
    pub(crate) fn rss(&self) -> Outcome<f64> {
        self.status("VmRSS:")
    }

    /// The most MiB in memory, since that was last forgotten.
    pub(crate) fn peak(&self) -> Outcome<f64> {
        self.status("VmHWM:")
    }

    /// Begins the peak again from what there is now.
    pub(crate) fn forget_peak(&self) -> Outcome<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5")?)
    }

    fn status(&self, name: &str) -> Outcome<f64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("`status` cannot be read")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    fn read(&self, file: &str) -> Outcome<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.pid))?)
    }
}

/// Ports that nobody listens on. They lie below those that the system gives to connections: one of these could
/// otherwise take the port of a server while it is away.
pub(crate) async fn free_ports<const N: usize>() -> Outcome<[u16; N]> {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000)?;
    let (mut held, mut ports) = (Vec::new(), [0; N]);
    for port in first..first + 2_000 {
        if held.len() < N
            && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
        {
            ports[held.len()] = port;
            held.push(listener);
        }
    }
    if held.len() < N { Err("no port is free".into()) } else { Ok(ports) }
}

/// As many open files as the system allows: a thousand workers have more than the usual limit.
pub(crate) fn allow_files() -> Outcome<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    Ok(rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
