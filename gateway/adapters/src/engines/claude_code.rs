//! The Claude Code command line as an engine: one process a prompt. The prompt goes in on its standard input, where no other
//! process sees it, and the process ends with the call.

use super::prompt::{Adapter, Completion, Failed, Prompt};
use crate::mcp::child::ServerCommand;
use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use warden_core::amount::Usage;
use warden_core::json::{self, Json, Limits};
use warden_core::outcome::Lost;

/// See the module.
pub struct ClaudeCode {
    command: ServerCommand,
}

/// What is added to its arguments.
const ARGUMENTS: [&str; 10] = [
    "-p",
    "--output-format",
    "json",
    "--tools",
    "",
    "--strict-mcp-config",
    "--setting-sources",
    "",
    "--max-turns",
    "1",
];
/// Bytes of an answer.
const OUTPUT_MAX: u64 = 16 << 20;

impl ClaudeCode {
    /// By this program. It is asked for one answer in JSON, without tools, settings or servers of its own: it runs as the
    /// gateway's user, whose files are not a worker's to read.
    pub fn new(mut command: ServerCommand) -> Self {
        command.args.extend(ARGUMENTS.map(str::to_owned));
        command.cwd = Some("/".into());
        Self { command }
    }

    /// Whether the program is there: what it says of its version.
    pub async fn version(command: &ServerCommand) -> Result<String, String> {
        let mut process = command.process();
        process.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let output = process.output().await.map_err(|e| format!("`{}` cannot be started: {e}", command.program))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match output.status.success() {
            true => Ok(text.lines().next().unwrap_or_default().chars().take(80).collect()),
            false => Err(format!("`{} --version` ended with {}", command.program, output.status)),
        }
    }

    async fn run(&self, prompt: &Prompt) -> Result<Completion, Failed> {
        let mut process = self.command.process();
        if !prompt.model.is_empty() {
            process.args(["--model", &prompt.model]);
        }
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = process.spawn();
        let mut process =
            started.map_err(|e| Failed::NotSent(format!("`{}` cannot be started: {e}", self.command.program)))?;
        let group = Group(process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(Failed::NotSent("no pipe to the process".into()));
        };
        let text = match &prompt.system {
            Some(system) => format!("{system}\n\n{}", prompt.prompt),
            None => prompt.prompt.clone(),
        };
        // It may answer before it has read everything, and may write more than a pipe holds.
        let write = async {
            let _ = stdin.write_all(text.as_bytes()).await;
            drop(stdin);
        };
        let ((), output, errors) = tokio::join!(write, bounded(stdout, OUTPUT_MAX), counted(stderr));
        let Some(output) = output else {
            return Err(Failed::Lost(Lost::Garbled));
        };
        let status = process.wait().await.map_err(|_| Failed::Lost(Lost::Gone))?;
        // What it started and left behind ends with it.
        drop(group);
        if !status.success() {
            // What it says there may repeat the prompt.
            tracing::warn!(program = self.command.program, %status, bytes_of_errors = errors, "the engine's program failed");
        }
        let read = json::parse(&output, Limits { bytes_max: usize::MAX, depth_max: 64 });
        let used = read.as_ref().ok().and_then(usage);
        let failed = read.as_ref().is_ok_and(|body| body.get("is_error") == Some(&Json::Bool(true)));
        if failed || !status.success() {
            // Without a word on it, nobody knows what it used before.
            let usage = Some(used.ok_or(Failed::Lost(Lost::Gone))?);
            let message = format!("the engine's program ended with {status}");
            return Err(Failed::Refused { status: 502, message, usage });
        }
        let body = read.map_err(|_| Failed::Lost(Lost::Garbled))?;
        let content = body.get("result").and_then(Json::as_str).ok_or(Failed::Lost(Lost::Garbled))?;
        Ok(Completion { content: content.to_owned(), model: None, usage: used })
    }
}

impl Adapter for ClaudeCode {
    fn execute<'a>(&'a self, prompt: &'a Prompt) -> BoxFuture<'a, Result<Completion, Failed>> {
        Box::pin(self.run(prompt))
    }
}

/// The process and what it started. They end when nobody waits for them any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Its usage, in the words of Anthropic's API.
fn usage(body: &Json) -> Option<Usage> {
    warden_core::llm::usage::read(warden_core::llm::Api::Messages, body)
}

/// How much comes, which is read to its end and not kept.
async fn counted(mut from: impl AsyncRead + Unpin) -> u64 {
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await.unwrap_or_default()
}

/// Everything that comes, up to a bound; nothing when there is more.
async fn bounded(from: impl AsyncRead + Unpin, max: u64) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    from.take(max + 1).read_to_end(&mut all).await.ok()?;
    (all.len() as u64 <= max).then_some(all)
}
