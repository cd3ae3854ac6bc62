//! `cargo bench --bench log`: a log of a million decisions, made by a running gateway: what it takes to start on it, to look
//! into it, to make its view anew, and to notice that somebody changed it.
//!
//! WARDEN_DECISIONS sets the number, WARDEN_LOAD_S the seconds of load (60).

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a bench says what it means")]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use warden_core::journal::frame;

const LANES: usize = 16;
/// Questions of one request.
const BATCH: usize = 50;
const WORKERS: usize = 50;
const SERVERS: usize = 20;
const QUERIES: usize = 300;

#[tokio::main]
async fn main() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (wanted, seconds) = (number("WARDEN_DECISIONS", 1_000_000), number("WARDEN_LOAD_S", 60));
    let site = Site::make();
    let mut running = site.serve();
    let client = site.operator();

    let asked = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let is_over = move |asked: &AtomicU64| {
        asked.load(Ordering::Relaxed) >= wanted && begun.elapsed() >= Duration::from_secs(seconds)
    };
    let lanes: Vec<_> = (0..LANES).map(|lane| tokio::spawn(site.load(lane, asked.clone(), is_over))).collect();
    let mut most = 0;
    while !lanes.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        most = most.max(site.ready(&client).await.map_or(0, |ready| ready["view_lag"].as_u64().unwrap()));
    }
    let load = begun.elapsed();
    let decisions = asked.load(Ordering::Relaxed);
    println!(
        "{decisions} decisions asked in {:.1} s: {:.0}/s over {LANES} connections",
        load.as_secs_f64(),
        decisions as f64 / load.as_secs_f64()
    );
    let since = Instant::now();
    site.view_done(&client).await;
    println!(
        "view: at most {most} records behind under load; level {:.2} s after it (expected within 10)",
        since.elapsed().as_secs_f64()
    );

    let mut times = Vec::new();
    for n in 0..QUERIES {
        let key = match n % 6 {
            0 => format!("worker=w{}", n % WORKERS),
            1 => format!("server=s{}", n % SERVERS),
            2 => format!("verdict={}", ["allow", "deny", "escalate"][n % 3]),
            3 => format!("reason={}", ["not_on_allowlist", "allowed", "nothing_like_it"][n % 3]),
            4 => format!("session=session-{}", n * 7),
            _ => format!("policy=site/{}", ["all", "odd_workers", "none"][n % 3]),
        };
        let at = Instant::now();
        let page = site.get(&client, &format!("/v1/decisions?limit=50&{key}")).await.unwrap();
        times.push((at.elapsed().as_secs_f64() * 1e3, page["records"].as_array().unwrap().len(), key));
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (p50, p95, worst) = (&times[QUERIES / 2], &times[QUERIES * 95 / 100], times.last().unwrap());
    println!(
        "first page of one key: p50 {:.1} ms, p95 {:.1} ms (expected under 50), worst {:.1} ms ({})",
        p50.0, p95.0, worst.0, worst.2
    );

    // Killed under load.
    let more = asked.load(Ordering::Relaxed) + 20_000;
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| tokio::spawn(site.load(lane, asked.clone(), move |asked| asked.load(Ordering::Relaxed) > more)))
        .collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    running.kill().unwrap();
    running.wait().unwrap();
    for lane in lanes {
        let _ = lane.await;
    }
    let begun = Instant::now();
    running = site.serve();
    let ready = begun.elapsed();
    println!("start after kill -9: {:.2} s until it serves (expected under 1)", ready.as_secs_f64());
    site.view_done(&client).await;
    stop(running);

    let records = site.verify(&[]).1["records"].as_u64().unwrap();
    let view = folder(&site.data().join("view"));
    println!(
        "{records} records (denials that repeat are counted into one); view: {:.0} bytes a decision (expected <= 200); journal: {:.0}; tree: {:.0}",
        view as f64 / records as f64,
        folder(&site.data().join("journal")) as f64 / records as f64,
        folder(&site.data().join("tree")) as f64 / records as f64
    );
    std::fs::remove_dir_all(site.data().join("view")).unwrap();
    let begun = Instant::now();
    let running = site.serve();
    site.view_done(&client).await;
    println!("view made anew: {:.0} records/s", records as f64 / begun.elapsed().as_secs_f64());
    stop(running);

    let begun = Instant::now();
    let (code, said) = site.verify(&[]);
    println!(
        "\nverify: exit {code} in {:.1} s: {} records, {}",
        begun.elapsed().as_secs_f64(),
        said["records"],
        said["root"]
    );
    tamper(&site);
}

/// Three changes, three complaints.
fn tamper(site: &Site) {
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(site.data().join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    segments.sort();
    let show = |what: &str, site: &Site, args: &[&str]| {
        let (code, said) = site.verify(args);
        println!("{what}: exit {code}: {}", said["error"].as_str().unwrap_or("good"));
    };
    let (middle, last) = (&segments[segments.len() / 2], segments.last().unwrap());
    let whole = std::fs::read(middle).unwrap();
    let mut flipped = whole.clone();
    flipped[1_000_003] ^= 1;
    std::fs::write(middle, &flipped).unwrap();
    show("one byte flipped", site, &[]);
    std::fs::write(middle, &whole).unwrap();
    let whole = std::fs::read(last).unwrap();
    write(last, &whole, |frames| drop(frames.remove(100)));
    show("one record dropped, checksums repaired", site, &[]);
    let checkpoint = site.data().join("checkpoint");
    let own = std::fs::read(&checkpoint).unwrap();
    write(last, &whole, |frames| frames.truncate(frames.len() - 1000));
    std::fs::remove_file(&checkpoint).unwrap();
    show(
        "tail and checkpoint cut off, a witness looks",
        site,
        &["--witness", site.dir.path().join("witness").to_str().unwrap()],
    );
    std::fs::write(last, &whole).unwrap();
    std::fs::write(&checkpoint, &own).unwrap();
    show("all put back", site, &[]);
}

/// Writes a segment anew from changed frames, with good sequence numbers and checksums.
fn write(path: &Path, bytes: &[u8], change: impl FnOnce(&mut Vec<(u64, Vec<u8>)>)) {
    let header = frame::read_header(bytes).unwrap().unwrap();
    let mut frames = Vec::new();
    frame::walk(bytes, header.first_seq, |frame| {
        frames.push((frame.batch, frame.payload.to_vec()));
        Ok::<(), frame::Damage>(())
    })
    .unwrap();
    change(&mut frames);
    let mut made = frame::header(&header).to_vec();
    for (seq, (batch, payload)) in (header.first_seq..).zip(&frames) {
        frame::push(&mut made, seq, (*batch).min(seq), payload);
    }
    made.resize(bytes.len(), 0);
    std::fs::write(path, made).unwrap();
}

fn stop(mut running: Child) {
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    running.wait().unwrap();
}

fn folder(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let (path, meta) = (entry.as_ref().unwrap().path(), entry.as_ref().unwrap().metadata().unwrap());
            if meta.is_dir() { folder(&path) } else { meta.len() }
        })
        .sum()
}

struct Site {
    dir: tempfile::TempDir,
    port: u16,
    token: String,
}

const POLICIES: &str = r#"
@id("all") permit (principal, action == Action::"list_tools", resource);
@id("tools") permit (principal, action in Action::"call_tool", resource);
@id("odd_workers") @reason("odd_worker") forbid (principal in Group::"odd", action == Action::"list_tools", resource);
"#;

impl Site {
    fn make() -> Self {
        // On a disk, not in memory.
        let dir = tempfile::Builder::new().prefix("log").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut site = Self { dir, port, token: String::new() };
        assert!(site.warden().arg("init").arg(site.dir.path()).output().unwrap().status.success());
        let workers: Value = (0..WORKERS)
            .map(|n| (format!("w{n}"), json!({ "groups": if n % 2 == 1 { vec!["odd"] } else { vec![] } })))
            .chain([("assistant".to_owned(), json!({}))])
            .collect::<serde_json::Map<_, _>>()
            .into();
        let servers: Value = (0..SERVERS)
            .map(|n| (format!("s{n}"), json!({ "url": "http://127.0.0.1:9/mcp" })))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let config = json!({ "listen": format!("127.0.0.1:{port}"), "same_uid": true, "workers": workers, "servers": servers,
            "witness": [{ "file": site.dir.path().join("witness") }] });
        std::fs::write(site.dir.path().join("warden.yaml"), config.to_string()).unwrap();
        std::fs::remove_dir_all(site.dir.path().join("policies")).unwrap();
        std::fs::create_dir(site.dir.path().join("policies")).unwrap();
        std::fs::write(site.dir.path().join("policies/bench.cedar"), POLICIES).unwrap();
        let running = site.serve();
        let issued = site.warden().args(["--json", "token", "issue", "assistant", "--role", "pep"]).output().unwrap();
        let issued: Value = serde_json::from_slice(&issued.stdout).unwrap();
        site.token = issued["token"].as_str().unwrap().to_owned();
        stop(running);
        site
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn warden(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warden"));
        command.env("WARDEN_LOG", "error").arg("--config").arg(self.dir.path().join("warden.yaml"));
        command
    }

    fn serve(&self) -> Child {
        let child = self.warden().arg("serve").stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
        child
    }

    /// Exit code, and what it says.
    fn verify(&self, args: &[&str]) -> (i32, Value) {
        let output = self.warden().args(["--json", "audit", "verify"]).args(args).output().unwrap();
        (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn operator(&self) -> reqwest::Client {
        reqwest::Client::builder().no_proxy().unix_socket(self.data().join("operator.sock")).build().unwrap()
    }

    async fn get(&self, client: &reqwest::Client, path: &str) -> reqwest::Result<Value> {
        let token = std::fs::read_to_string(self.data().join("operator.token")).unwrap();
        client.get(format!("http://localhost{path}")).bearer_auth(token.trim()).send().await?.json().await
    }

    async fn ready(&self, client: &reqwest::Client) -> Option<Value> {
        self.get(client, "/readyz").await.ok()
    }

    async fn view_done(&self, client: &reqwest::Client) {
        while self.ready(client).await.is_none_or(|ready| ready["view_lag"] != 0 || ready["view"] != true) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks without end, until it is over or the gateway is gone.
    fn load<F: Fn(&AtomicU64) -> bool + Send>(
        &self,
        lane: usize,
        asked: Arc<AtomicU64>,
        is_over: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let (url, token) = (format!("http://127.0.0.1:{}/access/v1/evaluations", self.port), self.token.clone());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        async move {
            let mut n = lane;
            while !is_over(&asked) {
                let questions: Vec<Value> = (0..BATCH)
                    .map(|_| {
                        n += LANES;
                        let (worker, server) = (n % WORKERS, n % SERVERS);
                        let (action, resource) = match n % 10 {
                            9 => (format!("s{server}/tool-{}", n % 300), json!({ "type": "Tool", "id": format!("s{server}/tool-{}", n % 300) })),
                            8 => ("read_resource".to_owned(), json!({ "type": "Server", "id": format!("s{server}"), "properties": { "uri": format!("file:///{n}") } })),
                            _ => ("list_tools".to_owned(), json!({ "type": "Server", "id": format!("s{server}") })),
                        };
                        json!({ "subject": { "type": "Worker", "id": format!("w{worker}") }, "action": { "name": action }, "resource": resource })
                    })
                    .collect();
                let request = http
                    .post(&url)
                    .bearer_auth(&token)
                    .header("x-warden-session", format!("session-{}", n / 1000))
                    .json(&json!({ "evaluations": questions }));
                let Ok(answer) = request.send().await else { return };
                if !answer.status().is_success() || answer.bytes().await.is_err() {
                    return;
                }
                asked.fetch_add(BATCH as u64, Ordering::Relaxed);
            }
        }
    }
}
