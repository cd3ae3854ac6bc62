//! A Warden in front of the upstream, set up as an operator would do it: with its own command line.

use crate::Outcome;
use crate::client::Door;
use crate::process::Process;
use serde_json::{Map, Value, json};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

/// Permits everything.
pub(crate) const PERMIT_ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";
const ISSUERS: usize = 4;
/// A long journal takes a while to verify.
const PATIENCE: Duration = Duration::from_secs(300);
const LAST_WORDS: usize = 10;

/// A folder with all that a gateway needs.
pub(crate) struct Site {
    dir: TempDir,
    program: PathBuf,
    port: u16,
}

impl Site {
    /// With these workers in one group, the server `up`, and otherwise what a configuration has by default.
    pub(crate) async fn make(program: &Path, dir: TempDir, ports: (u16, u16), workers: &[String]) -> Outcome<Self> {
        let program = program.canonicalize().map_err(|e| format!("`{}`: {e}", program.display()))?;
        let (port, upstream) = ports;
        let site = Self { dir, program, port };
        let first = workers.first().ok_or("no workers")?;
        run(site.command(&["init", "--worker", first]).arg(site.dir.path().join("site"))).await?;
        let workers: Map<String, Value> =
            workers.iter().map(|name| (name.clone(), json!({ "groups": ["load"] }))).collect();
        let config = json!({
            "listen": format!("127.0.0.1:{port}"), "same_uid": true, "workers": workers,
            "servers": { "up": { "url": format!("http://127.0.0.1:{upstream}/mcp") } },
        });
        // JSON is YAML.
        std::fs::write(site.config(), config.to_string())?;
        for entry in std::fs::read_dir(site.policies())? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(site)
    }

    /// Serves, with all tools classed as `write`. The policies have to be there, and the upstream, which is listed.
    pub(crate) async fn serve(&self) -> Outcome<Process> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.command(&["serve"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let running = Process::start(command, self.port).await.map_err(|e| format!("{e}: {}", self.last_words()))?;
        self.run(&["tools", "classify", "*", "write"]).await?;
        Ok(running)
    }

    /// A token of each worker, in their order.
    pub(crate) async fn issue(&self, workers: &[String]) -> Outcome<Vec<String>> {
        let mut issuers = JoinSet::new();
        for (number, part) in workers.chunks(workers.len().div_ceil(ISSUERS).max(1)).enumerate() {
            let commands: Vec<Command> = part.iter().map(|name| self.command(&["token", "issue", name])).collect();
            issuers.spawn(async move {
                let mut tokens = Vec::new();
                for mut command in commands {
                    tokens.push(run(&mut command).await?.trim().to_owned());
                }
                Outcome::Ok((number, tokens))
            });
        }
        let mut parts = issuers.join_all().await.into_iter().collect::<Outcome<Vec<_>>>()?;
        parts.sort();
        Ok(parts.into_iter().flat_map(|(_, tokens)| tokens).collect())
    }

    /// Runs a command of the operator, and gives what it printed.
    pub(crate) async fn run(&self, args: &[&str]) -> Outcome<String> {
        run(&mut self.command(args)).await
    }

    /// How a worker with that token reaches the upstream here.
    pub(crate) fn door(&self, token: &str) -> Door {
        Door { port: self.port, path: "/mcp/up", token: Some(token.to_owned()), modern: false }
    }

    /// Writes a policy file.
    pub(crate) fn policy(&self, name: &str, text: &str) -> Outcome<()> {
        Ok(std::fs::write(self.policies().join(name), text)?)
    }

    /// Where the journal is, too.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("site/data")
    }

    /// What the gateway has said.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The end of that.
    pub(crate) fn last_words(&self) -> String {
        let log = self.logged();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    /// Keeps the folder for whoever looks into what went wrong.
    pub(crate) fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    fn policies(&self) -> PathBuf {
        self.dir.path().join("site/policies")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("site/warden.yaml")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_remove("WARDEN_TOKEN").env_remove("WARDEN_OPERATOR_TOKEN").env_remove("WARDEN_DATA_DIR");
        command.env("WARDEN_LOG", "warn").arg("--config").arg(self.config()).args(args);
        command
    }
}

async fn run(command: &mut Command) -> Outcome<String> {
    let output = tokio::time::timeout(PATIENCE, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = output.map_err(|_| format!("{:?} does not end", command.as_std()))??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{:?}: {}: {said}", command.as_std(), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A new folder, below `dir` or where temporary ones are.
pub(crate) fn folder(dir: Option<&Path>) -> Outcome<TempDir> {
    let below = dir.map_or_else(std::env::temp_dir, Path::to_owned);
    let made = tempfile::Builder::new().prefix("gate-").tempdir_in(&below);
    made.map_err(|e| format!("`{}`: {e}", below.display()).into())
}
