//! The no-secret engine beside validating JSON and beside a bare Aho-Corasick over the same keywords, in one run.
//!
//! `cargo bench --bench secrets`. The figures are ratios: this machine, or any, is as fast as it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench says what it means"
)]

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};
use std::hint::black_box;
use std::time::{Duration, Instant};
use warden_core::json::{self, Json, Limits};
use warden_core::mac::MacKey;
use warden_core::secrets::registered::Registration;
use warden_core::secrets::{Engine, Scanner, Sources};
use zeroize::Zeroizing;

/// As the gateway has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long each figure is measured, as the best of [`ROUNDS`].
const ROUND: Duration = Duration::from_millis(150);
const ROUNDS: usize = 7;
const LIMITS: Limits = Limits { bytes_max: usize::MAX, depth_max: 128 };

fn main() {
    let key = MacKey::new("bench", [3; 32]);
    let mut random = Random(0x5eed);
    let values = (0..1000).map(|number| Registration {
        name: format!("value_{number}"),
        canary: false,
        value: Zeroizing::new(
            random.text(32, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").into_bytes(),
        ),
    });
    let sources = Sources { values: values.collect(), ..Sources::default() };
    let started = Instant::now();
    let engine = Engine::new(sources, [5; 56], &key).expect("an engine");
    println!("prepared {} formats and 1,000 registered values in {:?}", engine.formats().len(), started.elapsed());
    let keywords: Vec<Vec<u8>> = engine.keywords().to_vec();
    let bare = AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(&keywords)
        .expect("the keywords build");
    println!("bare automaton: {} keywords, {} MiB", keywords.len(), bare.memory_usage() >> 20);
    let scanner = Scanner::new(engine, key);
    let only = std::env::var("WARDEN_PAYLOAD").ok();
    println!(
        "\n{:>8} {:>22} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9}",
        "bytes", "payload", "validate", "bare AC", "scan", "read+scan", "scan/AC", "to benign"
    );
    for size in [1 << 10, 16 << 10, 1 << 20] {
        let mut benign = 0.0;
        for (name, text) in
            payloads(size).into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| name.contains(only)))
        {
            let rate = measure(&scanner, &bare, &text, name, &mut benign);
            if name == "benign" {
                benign = rate;
            }
        }
    }
}

/// Prints a line, and returns the scan's rate in MB/s.
fn measure(scanner: &Scanner, bare: &AhoCorasick, text: &str, name: &str, benign: &mut f64) -> f64 {
    let json = json::parse(text.as_bytes(), LIMITS).expect("JSON");
    let validate = rate(text.len(), || drop(serde_json::from_str::<serde::de::IgnoredAny>(black_box(text))));
    let automaton = rate(text.len(), || {
        black_box(bare.find_overlapping_iter(black_box(text)).count());
    });
    let scan = rate(text.len(), || drop(black_box(scanner.scan(black_box(&json), ""))));
    let both = rate(text.len(), || {
        let json: Json = json::parse(black_box(text.as_bytes()), LIMITS).expect("JSON");
        drop(black_box(scanner.scan(&json, "")));
    });
    let against = if *benign > 0.0 { format!("{:9.2}", scan / *benign) } else { "        -".to_owned() };
    println!(
        "{:>8} {name:>22} {validate:>10.0} {automaton:>10.0} {scan:>10.0} {both:>10.0} {:>9.2} {against}",
        text.len(),
        scan / automaton
    );
    scan
}

/// Bytes a microsecond, the best of some rounds.
fn rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..ROUNDS {
        let (started, mut times) = (Instant::now(), 0u32);
        while started.elapsed() < ROUND {
            work();
            times += 1;
        }
        best = best.max(bytes as f64 * f64::from(times) / started.elapsed().as_secs_f64() / 1e6);
    }
    best
}

/// Ordinary traffic, and texts made to be slow.
fn payloads(size: usize) -> Vec<(&'static str, String)> {
    let mut random = Random(size as u64 + 1);
    let wrap = |text: &str| serde_json::json!({ "content": [{ "type": "text", "text": text }] }).to_string();
    let fill = |piece: &mut dyn FnMut() -> String| {
        let mut text = String::new();
        while text.len() < size {
            text.push_str(&piece());
        }
        text.truncate(size);
        text
    };
    let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let hex = b"0123456789abcdef";
    vec![
        ("benign", benign(size, &mut random)),
        ("nested base64", {
            use base64::Engine as _;
            let mut text = "the quick brown fox jumps over the lazy dog ".repeat(size / 150 + 1);
            while text.len() < size * 3 / 4 {
                text = base64::engine::general_purpose::STANDARD.encode(&text);
            }
            wrap(&text)
        }),
        ("random base64", {
            let text = random.text(size, base64);
            wrap(&text)
        }),
        ("hex hashes", {
            let text = fill(&mut || format!("{} ", random.text(64, hex)));
            wrap(&text)
        }),
        ("keywords", {
            let words = [
                "password", "token", "secret=", "api_key", "github", "slack", "aws", "azure", "stripe", "key:", "auth ",
            ];
            let text = fill(&mut || format!("{} ", words[random.below(words.len())]));
            wrap(&text)
        }),
        ("prefixes", {
            let words =
                ["ghp_", "sk-", "AKIA", "xoxb-", "eyJ", "glpat-", "SG.", "AIza", "npm_", "-----BEGIN ", "://", "hf_"];
            let text = fill(&mut || format!("{}{}", words[random.below(words.len())], random.text(6, base64)));
            wrap(&text)
        }),
        ("escapes", {
            let text = fill(&mut || format!("%{} ", random.text(2, hex)));
            wrap(&text)
        }),
        ("lookalikes", {
            let text = "ｇｈｐ＿ раѕѕ ".repeat(size / 20 + 1);
            wrap(&text)
        }),
        ("one byte strings", serde_json::json!(vec!["a"; size / 4]).to_string()),
        ("colons and equals", {
            let text = fill(&mut || "password=x:a=b;".to_owned());
            wrap(&text)
        }),
    ]
}

/// What a tool answers: records with names, ids, times, addresses and prose.
fn benign(size: usize, random: &mut Random) -> String {
    let words = [
        "the",
        "order",
        "was",
        "shipped",
        "on",
        "time",
        "and",
        "arrived",
        "in",
        "good",
        "state",
        "please",
        "review",
        "change",
        "before",
        "merging",
        "build",
        "passed",
        "with",
        "three",
        "warnings",
        "about",
        "unused",
        "variables",
        "meeting",
        "moved",
    ];
    let mut items = Vec::new();
    let mut length = 0;
    while length < size {
        let prose: Vec<&str> = (0..18).map(|_| words[random.below(words.len())]).collect();
        let item = serde_json::json!({
            "id": random.below(1_000_000), "name": format!("item {}", random.below(1000)), "done": random.below(2) == 0,
            "created_at": format!("2026-0{}-1{}T0{}:30:00Z", 1 + random.below(9), random.below(9), random.below(9)),
            "url": format!("https://api.example.com/v1/items/{}?page={}", random.below(9999), random.below(9)),
            "sha": random.text(40, b"0123456789abcdef"), "owner": { "login": "octo", "type": "User" },
            "description": prose.join(" "), "tags": ["a", "bb", "urgent"], "score": 0.5,
        });
        length += item.to_string().len() + 1;
        items.push(item);
    }
    let mut text = serde_json::Value::Array(items).to_string();
    if text.len() > size * 3 / 2 {
        // One item is more than the smallest size.
        text = serde_json::json!({ "description": text[..size * 3 / 4].replace(['"', '\\'], " ") }).to_string();
    }
    text
}

/// A small generator: the same texts in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or_default()
    }

    fn text(&mut self, length: usize, alphabet: &[u8]) -> String {
        (0..length).map(|_| char::from(alphabet[self.below(alphabet.len())])).collect()
    }
}
