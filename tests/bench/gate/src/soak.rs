//! `gate soak`: many workers for long, while policies change and the server is killed again and again.

use crate::Outcome;
use crate::check::{Checked, check};
use crate::load::WARDEN;
use crate::process::{Process, allow_files, free_ports};
use crate::site::{PERMIT_ALL, Site, folder};
use crate::stats::median;
use crate::worker::{Counts, End, Worker};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

const MINUTE: Duration = Duration::from_secs(60);
/// In each minute: when a policy changes, and when the server is killed.
const APPLY: Duration = Duration::from_secs(15);
const KILL: Duration = Duration::from_secs(45);
/// How long the server is away.
const AWAY: Duration = Duration::from_millis(500);
const SAMPLE: Duration = Duration::from_secs(5);
const PROGRESS: Duration = Duration::from_secs(10);
/// What Warden may take to end.
const ENDING: Duration = Duration::from_secs(60);
/// How much more memory it may have at the end.
const GROWTH: f64 = 1.2;
const FORBIDDEN: &str = "@id(\"no_erase\") forbid (principal, action == Action::\"up/erase\", resource);\n";

/// How many, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// The program
    #[arg(long, default_value = WARDEN, hide_default_value = true)]
    warden: PathBuf,
    /// Workers, each with its own token and session
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    workers: u64,
    /// Minutes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Other calls, in another order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the journal is written: a folder on a disk
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was done to the gateway while it worked.
struct Disturbed {
    applied: u64,
    killed: u64,
    /// Held, since it is killed with it.
    upstream: Option<Process>,
}

/// What is there when the time is over.
struct Ended {
    seconds: u64,
    counts: Arc<Counts>,
    checked: Checked,
    disturbed: Disturbed,
    rss: (f64, f64),
    verified: Value,
    log: String,
    /// Each alone makes the run fail.
    problems: Vec<String>,
}

impl Soak {
    /// Runs, checks and tells. What went wrong can be looked into afterwards.
    pub(crate) async fn run(self) -> Outcome<ExitCode> {
        allow_files()?;
        let [upstream, warden] = free_ports().await?;
        let names: Vec<String> = (0..self.workers).map(|number| format!("worker-{number}")).collect();
        let folder = folder(self.dir.as_deref())?;
        let executed = folder.path().join("executed");
        let server = start(upstream, &executed).await?;
        let site = Site::make(&self.warden, folder, (warden, upstream), &names).await?;
        site.policy("all.cedar", PERMIT_ALL)?;
        site.policy("forbidden.cedar", FORBIDDEN)?;
        let gateway = site.serve().await?;
        eprintln!("issuing {} tokens", names.len());
        let tokens = site.issue(&names).await?;
        let ended = self.soak(&site, gateway, (server, upstream, &executed), &tokens).await?;
        if self.json {
            println!("{}", ended.json());
        } else {
            ended.print();
        }
        if ended.problems.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("gate: what is left of it is in {}", site.keep().display());
        Ok(ExitCode::from(2))
    }

    async fn soak(
        &self,
        site: &Site,
        gateway: Process,
        (server, port, executed): (Process, u16, &Path),
        tokens: &[String],
    ) -> Outcome<Ended> {
        let (begun, counts) = (Instant::now(), Arc::new(Counts::default()));
        let until = begun + MINUTE * u32::try_from(self.minutes)?;
        let mut workers = JoinSet::new();
        for (number, token) in tokens.iter().enumerate() {
            workers.spawn(Worker::new(number, site.door(token), until, self.seed, counts.clone()).work());
        }
        let mut problems = Vec::new();
        let mut disturbed = Disturbed { applied: 0, killed: 0, upstream: Some(server) };
        let (ended, samples, disturbance, ()) = tokio::join!(
            workers.join_all(),
            sample(&gateway, begun, until),
            self.disturb(site, &mut disturbed, (port, executed), begun),
            progress(&gateway, &counts, begun, until),
        );
        problems.extend(disturbance.err().map(|e| e.to_string()));
        let mut calls = Vec::new();
        for ended in ended {
            match ended {
                Ok(of_one) => calls.extend(of_one),
                Err(e) => problems.push(format!("a worker could not go on: {e}")),
            }
        }
        // Streams are still open.
        problems.extend(gateway.stop(ENDING).await.err().map(|e| format!("warden: {e}")));
        let verified =
            site.run(&["--json", "audit", "verify"]).await.unwrap_or_else(|e| json!(e.to_string()).to_string());
        let verified: Value = serde_json::from_str(&verified)?;
        let checked = check(&calls, &std::fs::read_to_string(executed)?);
        let seconds = begun.elapsed().as_secs();
        let rss = compared(&samples, self.minutes);
        let mut ended = Ended { seconds, counts, checked, disturbed, rss, verified, log: site.logged(), problems };
        ended.judge();
        Ok(ended)
    }

    async fn disturb(
        &self,
        site: &Site,
        disturbed: &mut Disturbed,
        (port, executed): (u16, &Path),
        begun: Instant,
    ) -> Outcome<()> {
        for minute in 0..u32::try_from(self.minutes)? {
            sleep_until(begun + MINUTE * minute + APPLY).await;
            apply(site, minute).await?;
            disturbed.applied += 1;
            sleep_until(begun + MINUTE * minute + KILL).await;
            if let Some(upstream) = disturbed.upstream.take() {
                upstream.kill().await?;
            }
            sleep(AWAY).await;
            disturbed.upstream = Some(start(port, executed).await?);
            disturbed.killed += 1;
        }
        Ok(())
    }
}

async fn start(port: u16, executed: &Path) -> Outcome<Process> {
    Process::own("upstream", port, &["--log", executed.to_str().ok_or("the folder's name is no text")?]).await
}

/// Changes a policy file, and makes it decide.
async fn apply(site: &Site, minute: u32) -> Outcome<()> {
    let text = format!(
        "@id(\"minute_{minute}\") forbid (principal, action == Action::\"up/echo\", resource)\n\
         when {{ context.input.text == \"minute {minute}\" }};\n"
    );
    site.policy("minute.cedar", &text)?;
    let listed: Value = serde_json::from_str(&site.run(&["--json", "policy", "list"]).await?)?;
    let pending = listed["pending"].as_str().ok_or("a changed policy file is not pending")?;
    site.run(&["policy", "apply", pending]).await?;
    let listed: Value = serde_json::from_str(&site.run(&["--json", "policy", "list"]).await?)?;
    if listed["applied"] == pending && listed["pending"].is_null() {
        Ok(())
    } else {
        Err(format!("`policy apply {pending}` did not make it decide").into())
    }
}

/// Seconds and MiB, until it is time.
async fn sample(gateway: &Process, begun: Instant, until: Instant) -> Vec<(f64, f64)> {
    let mut samples = Vec::new();
    while Instant::now() < until {
        sleep(SAMPLE).await;
        if let Ok(rss) = gateway.rss() {
            samples.push((begun.elapsed().as_secs_f64(), rss));
        }
    }
    samples
}

async fn progress(gateway: &Process, counts: &Counts, begun: Instant, until: Instant) {
    while Instant::now() < until {
        sleep(PROGRESS).await;
        let ends: Vec<String> = End::ALL.iter().map(|(end, name)| format!("{name} {}", counts.of(*end))).collect();
        let rss = gateway.rss().unwrap_or_default();
        eprintln!("{:>5} s  {rss:>6.1} MiB  {}", begun.elapsed().as_secs(), ends.join("  "));
    }
}

/// The medians of the second and of the last minute; of the halves where these would be one.
fn compared(samples: &[(f64, f64)], minutes: u64) -> (f64, f64) {
    let (end, minute) = (minutes as f64 * 60.0, 60.0);
    let (early, late) = if minutes < 3 { (0.0..end / 2.0, end / 2.0) } else { (minute..2.0 * minute, end - minute) };
    let of = |wanted: &dyn Fn(f64) -> bool| median(samples.iter().filter(|s| wanted(s.0)).map(|s| s.1).collect());
    (of(&|at| early.contains(&at)), of(&|at| at >= late))
}

impl Ended {
    fn judge(&mut self) {
        let Checked { doubled, missing, leaked, .. } = self.checked;
        let (lost, odd) = (self.counts.of(End::Lost), self.counts.of(End::Odd));
        let zeros = [
            (lost, "calls lost"),
            (odd, "odd answers"),
            (doubled, "keys executed twice"),
            (missing, "results of calls that were never executed"),
            (leaked, "calls executed that were not to be"),
        ];
        self.problems.extend(zeros.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        if !self.is_clean() {
            self.problems.push(format!("the journal: {}", self.verified));
        }
        if self.ratio() > GROWTH {
            self.problems.push(format!("memory grew by {:.2} (expected <= {GROWTH})", self.ratio()));
        }
    }

    /// It could be read, nothing is cut off, and each allowed call has its outcome.
    fn is_clean(&self) -> bool {
        self.verified["records"].is_u64() && self.verified["torn_at"].is_null() && self.verified["unknown"] == 0
    }

    fn ratio(&self) -> f64 {
        self.rss.1 / self.rss.0.max(f64::MIN_POSITIVE)
    }

    /// Lines of Warden's log at this level.
    fn lines(&self, level: &str) -> usize {
        self.log.lines().filter(|line| line.contains(level)).count()
    }

    fn json(&self) -> Value {
        let Checked { doubled, missing, leaked, unknown_done } = self.checked;
        let counts = &self.counts;
        let ends: serde_json::Map<String, Value> =
            End::ALL.iter().map(|(end, name)| ((*name).to_owned(), counts.of(*end).into())).collect();
        let calls: u64 = End::ALL.iter().map(|(end, _)| counts.of(*end)).sum();
        json!({
            "seconds": self.seconds, "calls": calls, "ends": ends,
            "doubled": doubled, "missing": missing, "leaked": leaked, "unknown_done": unknown_done,
            "sessions": counts.sessions.load(Ordering::Relaxed), "not_begun": counts.not_begun.load(Ordering::Relaxed),
            "streams": counts.streams.load(Ordering::Relaxed), "heard": counts.heard.load(Ordering::Relaxed),
            "applied": self.disturbed.applied, "killed": self.disturbed.killed,
            "rss_early_mib": self.rss.0, "rss_late_mib": self.rss.1, "rss_ratio": self.ratio(),
            "verified": self.verified, "warnings": self.lines(" WARN "), "log_errors": self.lines(" ERROR "),
            "odd": counts.odd(), "problems": self.problems,
        })
    }

    fn print(&self) {
        let told = self.json();
        for (name, value) in told.as_object().into_iter().flatten() {
            match value {
                Value::Object(inner) => inner.iter().for_each(|(name, value)| println!("  {name:<14} {value}")),
                Value::Array(all) => all.iter().for_each(|one| println!("{name:<16} {one}")),
                Value::Number(n) if n.is_f64() => println!("{name:<16} {:.2}", n.as_f64().unwrap_or_default()),
                value => println!("{name:<16} {value}"),
            }
        }
        println!("{}", if self.problems.is_empty() { "ok" } else { "MISSED" });
    }
}
