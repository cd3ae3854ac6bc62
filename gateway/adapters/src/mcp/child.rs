//! One stdio server as a child process: lines in, lines out, and an end in every case.

use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use warden_core::pipeline::Payload;
use warden_core::rpc::one_line;
use warden_core::secrets::Scanner;

/// How a server is started. Comes from the configuration, never from a worker.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCommand {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment beside `PATH`, `HOME`, `LANG`, `TMPDIR` and `USER`, which it gets from Warden.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
}

impl std::fmt::Debug for ServerCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments and values may be secrets.
        write!(f, "ServerCommand({}, {} arguments)", self.program, self.args.len())
    }
}

impl ServerCommand {
    /// What starts it: in a process group of its own, killed when nobody holds it any more.
    pub fn process(&self) -> Command {
        let mut process = Command::new(&self.program);
        process.args(&self.args).env_clear().kill_on_drop(true).process_group(0);
        process.envs(INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        process.envs(&self.env);
        if let Some(cwd) = &self.cwd {
            process.current_dir(cwd);
        }
        process
    }
}

const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "TMPDIR", "USER"];
/// How long a server may take to end by itself, and again after `SIGTERM`.
const PATIENCE: Duration = Duration::from_secs(2);
/// Messages on their way in either direction; more wait, which is the back-pressure.
const IN_FLIGHT: usize = 64;

/// What a server wrote.
#[derive(Debug)]
pub enum Line {
    /// A line, without its end.
    Text(Vec<u8>),
    /// A line longer than the limit. Nothing after it is read.
    TooLong,
}

/// A running server.
#[derive(Debug)]
pub struct Child {
    input: mpsc::Sender<Payload>,
    stop: watch::Sender<bool>,
}

impl Child {
    /// Starts a server. The receiver ends when the server does.
    pub fn spawn(
        name: &str,
        command: &ServerCommand,
        line_max: usize,
        scanner: &Arc<Scanner>,
    ) -> io::Result<(Self, mpsc::Receiver<Line>)> {
        let mut process = command.process();
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = process.spawn()?;
        // Known only until the process was waited for.
        let group = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let missing = || io::Error::other("no pipe to the server");
        let mut stdin = process.stdin.take().ok_or_else(missing)?;
        let stdout = process.stdout.take().ok_or_else(missing)?;
        let stderr = process.stderr.take().ok_or_else(missing)?;
        let (input, mut inputs) = mpsc::channel::<Payload>(IN_FLIGHT);
        let (output, outputs) = mpsc::channel(IN_FLIGHT);
        let (stop, mut stopped) = watch::channel(false);
        tokio::spawn(tell(name.to_owned(), stderr, Arc::clone(scanner)));
        tokio::spawn(read_lines(stdout, line_max, output));
        let name = name.to_owned();
        tokio::spawn(async move {
            loop {
                let payload = tokio::select! {
                    payload = inputs.recv() => payload,
                    _ = stopped.wait_for(|stop| *stop) => None,
                    _ = process.wait() => break,
                };
                let Some(payload) = payload else { break };
                let line = [one_line(payload.as_str()).as_bytes(), b"\n"].concat();
                let written = async { stdin.write_all(&line).await.is_ok() && stdin.flush().await.is_ok() };
                // A server that reads nothing can be stopped all the same.
                let written = tokio::select! {
                    written = written => written,
                    _ = stopped.wait_for(|stop| *stop) => false,
                    _ = process.wait() => false,
                };
                if !written {
                    break;
                }
            }
            drop((inputs, stdin));
            end(&name, process, group).await;
        });
        Ok((Self { input, stop }, outputs))
    }

    /// Sends a message; false when the server is gone.
    pub async fn send(&self, payload: Payload) -> bool {
        self.input.send(payload).await.is_ok()
    }

    /// Ends the server: its input is closed, then it is asked, then it is killed.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
    }
}

/// Close stdin, wait, `SIGTERM`, wait, `SIGKILL`; to the whole process group, since launchers start others.
async fn end(name: &str, mut process: tokio::process::Child, group: Option<Pid>) {
    for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
        if let (Some(signal), Some(group)) = (signal, group) {
            let _ = kill_process_group(group, signal);
        }
        if let Ok(Ok(status)) = tokio::time::timeout(PATIENCE, process.wait()).await {
            tracing::debug!(server = name, %status, "the server ended");
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::TERM);
            }
            return;
        }
    }
}

async fn read_lines(stdout: impl AsyncRead + Unpin, line_max: usize, output: mpsc::Sender<Line>) {
    let mut reader = BufReader::with_capacity(1 << 16, stdout);
    let mut line = Vec::new();
    loop {
        let Ok(chunk) = reader.fill_buf().await else { return };
        if chunk.is_empty() {
            return;
        }
        let (part, whole) = match chunk.iter().position(|b| *b == b'\n') {
            Some(end) => (&chunk[..end], true),
            None => (chunk, false),
        };
        let used = part.len() + usize::from(whole);
        let too_long = line.len() + part.len() > line_max;
        if !too_long {
            line.extend_from_slice(part);
        }
        reader.consume(used);
        if too_long {
            let _ = output.send(Line::TooLong).await;
            return;
        }
        if whole && !line.trim_ascii().is_empty() && output.send(Line::Text(std::mem::take(&mut line))).await.is_err() {
            return;
        }
        if whole {
            line.clear();
        }
    }
}

/// What a server says on its error stream goes to the log, without secrets.
async fn tell(name: String, stderr: impl AsyncRead + Unpin, scanner: Arc<Scanner>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A server that never ends its line is cut, not buffered without end.
        let mut limited = tokio::io::AsyncReadExt::take(&mut reader, 1 << 14);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                tracing::debug!(server = name, "{}", scanner.hide(text.trim_end()).escape_debug());
            }
        }
    }
}
