//! Processes that this one starts, and ends with all that they have started.

use crate::Outcome;
use crate::tree;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// What a start may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// What killed processes take to be gone, at most.
const DYING: Duration = Duration::from_secs(5);
/// A process that works less than so much of one core has done what it does at its start.
const IDLE: f64 = 0.1;
const LAST_WORDS: usize = 15;

/// A process that listens. When this is dropped, it and all below it are killed.
pub(crate) struct Process {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // The first is the one that might start others again.
        let pids = tree::tree(self.pid);
        pids.iter().for_each(|pid| kill(*pid));
        let begun = Instant::now();
        while begun.elapsed() < DYING && (matches!(self.child.try_wait(), Ok(None)) || tree::rss(&pids) > 0.0) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

impl Process {
    /// Starts it, and waits until it listens. It has nothing of this one's environment but `PATH`, and what it says
    /// goes into a file of `dir`.
    pub(crate) async fn start(mut command: Command, name: &str, dir: &Path, port: u16) -> Outcome<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log)?;
        command.stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().map_err(|e| format!("{:?}: {e}", command.as_std().get_program()))?;
        let pid = child.id().ok_or("it ended at once")?;
        let (mut process, begun) = (Self { child, pid, log }, Instant::now());
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("it ended: {status}\n{}", process.last_words()).into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("nothing listens on port {port}\n{}", process.last_words()).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(process)
    }

    /// Another role of this program. It ends with this one, whose end of its stdin is closed then.
    pub(crate) async fn own(role: &str, dir: &Path, port: u16, args: &[&str]) -> Outcome<Self> {
        let mut command = command(&std::env::current_exe()?, dir);
        command.args([role, "--port", &port.to_string()]).args(args).stdin(Stdio::piped());
        Self::start(command, role, dir, port).await
    }

    /// Waits until it does nothing more, but not for long.
    pub(crate) async fn settle(&self) {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        while begun.elapsed() < PATIENCE {
            let before = tree::cpu(&self.pids());
            tokio::time::sleep(second).await;
            if tree::cpu(&self.pids()) - before < IDLE {
                return;
            }
        }
    }

    /// It, and all below it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        tree::tree(self.pid)
    }

    /// The end of what it has said.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

/// A program with next to nothing in its environment: no keys, no proxies, no settings of whoever runs this.
pub(crate) fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}
