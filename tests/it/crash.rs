//! Real crashes of the running gateway under load: `kill -9`, and a power cut.
//!
//! After each: no acknowledged decision is lost, each is there once, and nothing was forwarded without one.

use crate::support::{PERMIT_ALL, Site, Worker, number, records, verified};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use warden_adapters::journal::Reader;
use warden_adapters::view::{self, View};
use warden_core::journal::record::Body;
use warden_core::outcome::Happened;
use warden_core::verdict::Verdict;

/// An MCP server over HTTP in this process: the world, which remembers what was done to it whatever happens to the gateway.
#[derive(Clone, Default)]
struct World {
    effects: Arc<Mutex<Vec<String>>>,
}

impl World {
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let world = self.clone();
        let answer = async move |body: String| world.answer(&body);
        let router = axum::Router::new().route("/mcp", axum::routing::post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn answer(&self, body: &str) -> axum::response::Response {
        let asked: Value = serde_json::from_str(body).unwrap();
        let result = match asked["method"].as_str().unwrap() {
            "initialize" => {
                json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": { "name": "world", "version": "1" } })
            }
            "tools/list" => {
                let schema = json!({ "type": "object", "properties": { "marker": { "type": "string" } }, "required": ["marker"] });
                json!({ "tools": [{ "name": "mark", "inputSchema": schema }] })
            }
            "tools/call" => {
                let marker = asked["params"]["arguments"]["marker"].as_str().unwrap().to_owned();
                self.effects.lock().unwrap().push(marker);
                json!({ "content": [{ "type": "text", "text": "done" }] })
            }
            _ => return axum::http::StatusCode::ACCEPTED.into_response(),
        };
        // Its sessions are nothing to it.
        let session = warden_adapters::world::decision_id(warden_adapters::world::now()).to_string();
        ([("mcp-session-id", session)], axum::Json(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })))
            .into_response()
    }
}

/// Calls without end over so many connections, each with a marker of its own; those that were answered are noted.
async fn load(port: u16, token: String, round: usize, answered: Arc<Mutex<HashSet<String>>>) {
    let lanes = (0..number("WARDEN_CRASH_CONNECTIONS", 16)).map(|lane| {
        let (token, answered) = (token.clone(), answered.clone());
        tokio::spawn(async move {
            let mut worker = Worker::new(port, "world", &token);
            if worker.try_open().await.is_err() {
                return;
            }
            for n in 0.. {
                let marker = format!("r{round}l{lane}n{n}");
                let body = json!({ "jsonrpc": "2.0", "id": n, "method": "tools/call", "params": { "name": "mark", "arguments": { "marker": marker } } });
                let Ok(response) = worker.send(body.to_string().into_bytes()).await else { return };
                let Ok(text) = response.text().await else { return };
                if text.contains("done") {
                    answered.lock().unwrap().insert(marker);
                }
            }
        })
    });
    futures::future::join_all(lanes).await;
}

fn check(data: &Path, world: &World, answered: &HashSet<String>, seed: u64) {
    let verified = verified(data).unwrap_or_else(|e| panic!("seed={seed}: {e}"));
    let mut recorded: HashMap<String, usize> = HashMap::new();
    for record in records(data) {
        if let Body::Decision(d) = record.body
            && d.verdict == Verdict::Allow
            && let Some(marker) = d.context.input["marker"].as_str()
        {
            *recorded.entry(marker.to_owned()).or_default() += 1;
        }
    }
    let forwarded = world.effects.lock().unwrap().clone();
    let once: HashSet<&String> = forwarded.iter().collect();
    assert_eq!(once.len(), forwarded.len(), "seed={seed}: something was forwarded twice");
    for marker in answered.iter().chain(&forwarded) {
        let times = recorded.get(marker).copied();
        assert_eq!(times, Some(1), "seed={seed}: the decision on {marker} was acknowledged, and is recorded so often");
    }
    assert!(verified.records > 0);
}

/// What the gateway's view has, and what one made anew from the journal has.
fn same_view(data: &Path) {
    let mut reader = Reader::new(&data.join("journal"));
    let count = verified(data).unwrap().records;
    let own = View::open(&data.join("view"), 0, count).unwrap();
    assert!(own.next() > 0, "the view was not thrown away");
    own.catch_up(&mut reader, count, |_, _| {}).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let anew = View::open(temp.path(), 0, count).unwrap();
    anew.catch_up(&mut reader, count, |_, _| {}).unwrap();
    assert!(view::contents(&own).unwrap() == view::contents(&anew).unwrap(), "the view is not what the journal says");
}

/// A little chance, the same for the same seed.
fn chance(seed: u64, below: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

#[tokio::test(flavor = "multi_thread")]
async fn w01_x08_kill_9_under_load_loses_nothing_acknowledged() {
    let world = World::default();
    let site = Site::temporary(&json!({ "world": { "url": world.serve().await } }));
    site.policies(PERMIT_ALL);
    site.serve_classified().stop();
    let answered = Arc::new(Mutex::new(HashSet::new()));
    let rounds = number("WARDEN_CRASH_ROUNDS", 10);
    for round in 0..rounds {
        let running = site.serve();
        let load = tokio::spawn(load(site.port, site.token(), round, answered.clone()));
        let wait = 300 + chance(round as u64, 500);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        running.kill();
        let _ = load.await;
        if round + 1 == rounds || round % 10 == 0 {
            check(&site.data(), &world, &answered.lock().unwrap(), round as u64);
        }
    }
    let answered = answered.lock().unwrap().len();
    assert!(answered > rounds, "there was load: {answered} calls in {rounds} rounds");
    let running = site.serve();
    // The view is opened beside the work, and on a busy machine after it: a query waits for it.
    site.ok(&["audit", "query", "--limit", "1"]);
    running.stop();
    let crashed = records(&site.data())
        .into_iter()
        .filter(|record| matches!(&record.body, Body::Outcome(o) if o.happened == Happened::Unknown))
        .count();
    let found = verified(&site.data()).unwrap();
    assert_eq!(found.unknown, 0, "what was open is recorded as unknown");
    same_view(&site.data());
    println!("{rounds} rounds, {answered} answered calls, {} records, {crashed} unknown outcomes", found.records);
}

#[tokio::test(flavor = "multi_thread")]
async fn w01_x08_a_power_cut_under_load_loses_nothing_acknowledged() {
    if !rustix::process::getuid().is_root() {
        println!("skipped: a power cut needs root");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let disk = match Disk::make(temp.path()) {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    // The world keeps what was done to it; the disk of the gateway does not.
    let world = World::default();
    let dir = disk.mount.join("site");
    let site = Site::at(&dir, &json!({ "world": { "url": world.serve().await } }));
    site.policies(PERMIT_ALL);
    site.serve_classified().stop();
    rustix::fs::syncfs(std::fs::File::open(&disk.mount).unwrap()).unwrap();
    let answered = Arc::new(Mutex::new(HashSet::new()));
    let rounds = number("WARDEN_POWER_CUTS", 10);
    for round in 0..rounds {
        let running = site.serve();
        let load = tokio::spawn(load(site.port, site.token(), round, answered.clone()));
        let wait = 300 + chance(1000 + round as u64, 500);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        disk.cut();
        // What the gateway does without a disk must not count either.
        tokio::time::sleep(Duration::from_millis(chance(2000 + round as u64, 100))).await;
        running.kill();
        let _ = load.await;
        disk.remount();
        if round + 1 == rounds || round % 10 == 0 {
            check(&site.data(), &world, &answered.lock().unwrap(), round as u64);
        }
    }
    let answered = answered.lock().unwrap().len();
    assert!(answered > rounds, "there was load: {answered} calls in {rounds} rounds");
    site.serve().stop();
    let found = verified(&site.data()).unwrap();
    same_view(&site.data());
    println!("{rounds} rounds, {answered} answered calls, {} records", found.records);
}

/// An ext4 image on a loop mount.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn make(dir: &Path) -> Result<Self, String> {
        let disk = Self { image: dir.join("image"), mount: dir.join("mount") };
        std::fs::create_dir(&disk.mount).unwrap();
        let image = std::fs::File::create(&disk.image).unwrap();
        image.set_len(1 << 30).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    /// `EXT4_IOC_SHUTDOWN` with flag 2: everything the file system's journal has not committed is gone.
    fn cut(&self) {
        let script = "import fcntl,os,struct,sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
        run(Command::new("python3").args(["-c", script]).arg(&self.mount)).unwrap();
    }

    fn remount(&self) {
        for _ in 0..100 {
            if run(Command::new("umount").arg(&self.mount)).is_ok() {
                self.mount().unwrap();
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the disk stays busy");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.mount));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
