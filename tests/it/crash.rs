//! Real crashes of the running gateway under load: `kill -9`, and a power cut.
//!
//! After each: no acknowledged decision is lost, and nothing was forwarded without one.

use crate::support::{PERMIT_ALL, Site, Worker, number, odd_server, records, verified};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use warden_core::journal::record::Body;
use warden_core::outcome::Happened;
use warden_core::verdict::Verdict;

const WORKERS: usize = 6;

/// Calls without end, each with a marker of its own; those that were answered are noted.
async fn load(port: u16, token: String, round: usize, answered: Arc<Mutex<HashSet<String>>>) {
    let lanes = (0..WORKERS).map(|lane| {
        let (token, answered) = (token.clone(), answered.clone());
        tokio::spawn(async move {
            let mut worker = Worker::new(port, "odd", &token);
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

fn check(data: &Path, effects: &Path, answered: &HashSet<String>, seed: u64) {
    let verified = verified(data).unwrap_or_else(|e| panic!("seed={seed}: {e}"));
    let recorded: HashSet<String> = records(data)
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Decision(d) if d.verdict == Verdict::Allow => d.context.input["marker"].as_str().map(str::to_owned),
            _ => None,
        })
        .collect();
    let forwarded: Vec<String> = std::fs::read_to_string(effects)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("mark \"").map(|rest| rest.trim_end_matches('"').to_owned()))
        .collect();
    let once: HashSet<&String> = forwarded.iter().collect();
    assert_eq!(once.len(), forwarded.len(), "seed={seed}: something was forwarded twice");
    for marker in answered {
        assert!(recorded.contains(marker), "seed={seed}: the decision on {marker} was acknowledged and is lost");
    }
    for marker in &forwarded {
        assert!(recorded.contains(marker), "seed={seed}: {marker} was forwarded without a decision");
    }
    assert!(verified.records > 0);
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
    let site = Site::odd();
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
        // The servers of a killed gateway end with their input.
        tokio::time::sleep(Duration::from_millis(200)).await;
        check(&site.data(), &site.dir.join("effects"), &answered.lock().unwrap(), round as u64);
    }
    let answered = answered.lock().unwrap().len();
    assert!(answered > rounds, "there was load: {answered} calls in {rounds} rounds");
    site.serve().stop();
    let crashed = records(&site.data())
        .into_iter()
        .filter(|record| matches!(&record.body, Body::Outcome(o) if o.happened == Happened::Unknown))
        .count();
    let verified = verified(&site.data()).unwrap();
    assert_eq!(verified.unknown, 0, "what was open is recorded as unknown");
    println!("{rounds} rounds, {answered} answered calls, {} records, {crashed} unknown outcomes", verified.records);
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
    let effects = temp.path().join("effects");
    let dir = disk.mount.join("site");
    let site = Site::at(&dir, &json!({ "odd": odd_server(&effects) }));
    site.policies(PERMIT_ALL);
    site.serve_classified().stop();
    rustix::fs::syncfs(std::fs::File::open(&disk.mount).unwrap()).unwrap();
    let answered = Arc::new(Mutex::new(HashSet::new()));
    let rounds = number("WARDEN_CRASH_ROUNDS", 10);
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
        tokio::time::sleep(Duration::from_millis(200)).await;
        disk.remount();
        check(&site.data(), &effects, &answered.lock().unwrap(), round as u64);
    }
    let answered = answered.lock().unwrap().len();
    assert!(answered > rounds, "there was load: {answered} calls in {rounds} rounds");
    site.serve().stop();
    let verified = verified(&site.data()).unwrap();
    println!("{rounds} rounds, {answered} answered calls, {} records", verified.records);
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
        image.set_len(256 << 20).unwrap();
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
