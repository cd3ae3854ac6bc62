//! What is found and what is not, format by format and disguise by disguise.

use super::disguises::disguises;
use super::registered::Registration;
use super::shape::{Part, Shape};
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;
use zeroize::Zeroizing;

/// As random as any.
pub(super) const KEYS: [u8; 56] = *b"f3J9x!qLz0Wm7RtYv2Kp8Nc4Hs6Bd1Ge5UaXoTiQ_ySjDkPfMhZwErCb";

const REGISTERED: &str = "k9Xv2QpLm7RtYw4Zb8NcHs3J";

fn key() -> MacKey {
    MacKey::new("t", [7; 32])
}

fn shipped() -> Scanner {
    Scanner::shipped(key())
}

fn with_values(values: &[(&str, &str)]) -> Scanner {
    let values = values.iter().map(|(name, value)| Registration {
        name: (*name).to_owned(),
        canary: name.starts_with("canary"),
        value: Zeroizing::new(value.as_bytes().to_vec()),
    });
    let sources = Sources { values: values.collect(), ..Sources::default() };
    Scanner::new(Engine::new(sources, KEYS, &key()).unwrap(), key())
}

fn read(value: &serde_json::Value) -> Json {
    let limits = crate::json::Limits { bytes_max: usize::MAX, depth_max: 128 };
    crate::json::parse(value.to_string().as_bytes(), limits).unwrap()
}

fn token() -> String {
    format!("ghp_{}", "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3")
}

/// A token of a shape.
fn sample(shape: &Shape, random: &mut Chance, length: impl Fn(usize, usize, &mut Chance) -> usize) -> Vec<u8> {
    let mut token = Vec::new();
    for part in &shape.parts {
        match part {
            Part::Literal(literals) => {
                let at = random.between(0, literals.len() - 1);
                token.extend_from_slice(&literals[at].text);
            }
            Part::Run { set, min, max } => {
                let bytes = set.bytes();
                let length = length(*min, *max, random);
                token.extend((0..length).map(|_| random.one(&bytes)));
            }
        }
    }
    token
}

/// A token that satisfies what else its format asks for.
fn example(format: &Format, shape: &Shape, random: &mut Chance) -> Option<String> {
    let length = |min: usize, max: usize, random: &mut Chance| random.between(min, max.min(min + 8));
    let mut some = None;
    for _ in 0..200 {
        let token = sample(shape, random, length);
        if super::random::entropy(&token) < format.entropy {
            continue;
        }
        let is_made = detect::looks_made(&token);
        let token = String::from_utf8(token).unwrap();
        if is_made {
            return Some(token);
        }
        some = some.or(Some(token));
    }
    some
}

/// A text in which a token of the format would stand.
fn context(format: &Format, token: &str) -> String {
    match format.near.first() {
        Some(word) => format!("{word}_key = {token}"),
        None => token.to_owned(),
    }
}

fn is_found(scan: &Scan, format: &Format, token: &str) -> bool {
    let tag = key().tag(token.as_bytes());
    let all = || scan.findings.iter().chain(&scan.suspicions);
    all().any(|finding| finding.format == format.id || finding.fingerprint.as_ref() == Some(&tag))
}

#[test]
fn x09_the_catalogue_is_well_formed_and_large() {
    let formats = shipped_formats();
    assert!(formats.len() >= 250, "{}", formats.len());
    let ids: std::collections::BTreeSet<_> = formats.iter().map(|format| &format.id).collect();
    assert_eq!(ids.len(), formats.len());
    for (text, line) in [
        ("a: A\n  = \"ab\" alnum{3}\na: B\n  = \"cd\"", 3),
        ("A: A", 1),
        ("  = \"ab\"", 1),
        ("a: A\n  = \"ab\" nothing{3}", 2),
        ("a: A\n  = \"ab\" alnum{9,3}", 2),
        ("a: A\n  = ( \"ab\"", 2),
        ("a: A\n  = alnum{32}", 2),
        ("a: A\n  near ab\n  = alnum{32}", 2),
    ] {
        assert_eq!(format::read(text).unwrap_err().line, line, "{text}");
    }
}

/// SplitMix64, seeded by `WARDEN_SEED`, or always the same.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = std::env::var("WARDEN_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(seed.unwrap_or(20_261_121))
    }

    /// From `min` to `max`, both included.
    fn between(&mut self, min: usize, max: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        min + usize::try_from((z ^ (z >> 31)) % (max - min + 1) as u64).unwrap()
    }

    fn one(&mut self, of: &[u8]) -> u8 {
        of[self.between(0, of.len() - 1)]
    }
}

#[test]
fn x09_each_format_is_found_in_each_disguise() {
    let (scanner, mut random) = (shipped(), Chance::new());
    let (mut missed, mut tried) = (Vec::new(), 0);
    for format in shipped_formats() {
        for shape in format.shapes.iter().filter(|shape| !shape.is_squeezed) {
            let Some(token) = example(&format, shape, &mut random) else {
                missed.push(format!("{}: no example", format.id));
                continue;
            };
            let text = context(&format, &token);
            for (disguise, json) in disguises(&text) {
                // Without white space, or backwards, ordinary words could be taken for a token that is made of words, and
                // behind a companion word for one without a digit.
                let is_read_through = ["spaces", "lines", "adjacent strings", "backwards"].contains(&disguise);
                let is_wordy = !format.near.is_empty() && !token.bytes().any(|byte| byte.is_ascii_digit());
                if is_read_through && (is_wordy || !detect::looks_made(token.as_bytes())) {
                    continue;
                }
                tried += 1;
                if !is_found(&scanner.scan(&read(&json), ""), &format, &token) {
                    missed.push(format!("{} {disguise}: {text}", format.id));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{} of {tried} missed:\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn x09_near_misses_of_each_format_are_not_found() {
    let (scanner, mut random) = (shipped(), Chance::new());
    let mut wrong = Vec::new();
    for format in shipped_formats() {
        for shape in &format.shapes {
            let Some(last) = shape.parts.iter().rposition(|part| matches!(part, Part::Run { min: 2.., .. })) else {
                continue;
            };
            // One character too few in its last run.
            let mut short = shape.clone();
            if let Part::Run { min, max, .. } = &mut short.parts[last] {
                (*min, *max) = (*min - 1, *min - 1);
            }
            let token = sample(&short, &mut random, |min, _, _| min);
            let text = context(&format, &String::from_utf8(token.clone()).unwrap());
            let tag = key().tag(&token);
            let scan = scanner.scan_text(&text, "");
            // Another shape of the format may be shorter, and another part of the text be a token by itself.
            let others = format.shapes.iter().any(|other| {
                let gaps = text::Gaps::NONE;
                let attempt = shape::Attempt::new(text::Text::new(&token, &gaps));
                (0..token.len()).any(|at| other.at(&attempt, at, format.edges).is_some())
            });
            let found = scan
                .findings
                .iter()
                .find(|finding| finding.format == format.id && finding.fingerprint.as_ref() == Some(&tag));
            if let Some(finding) = found.filter(|_| !others) {
                wrong.push(format!("{} {finding:?}: {text}", format.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn x09_a_registered_value_is_found_in_each_disguise() {
    let mut random = Chance::new();
    for _ in 0..40 {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&*+,-./:;<=>?@^_~";
        let length = random.between(12, 59);
        let value: String = (0..length).map(|_| char::from(random.one(alphabet))).collect();
        if registered::check(value.as_bytes()).is_err() {
            continue;
        }
        let scanner = with_values(&[("the_key", &value)]);
        for (disguise, json) in disguises(&value) {
            let scan = scanner.scan(&read(&json), "");
            assert!(
                scan.findings.iter().any(|f| f.format == "registered_value"),
                "{disguise}: {value:?}: {json}: {scan:?}"
            );
            assert!(!format!("{scan:?}").contains(&value));
        }
    }
}

#[test]
fn x09_any_twelve_bytes_of_a_registered_value_are_found_and_eleven_are_not() {
    let value = "mF3kQ9zX7pL2vB8nR4tW6yH1";
    let scanner = with_values(&[("the_key", value)]);
    for start in 0..=value.len() - 12 {
        let piece = &value[start..start + 12];
        for text in [piece.to_owned(), format!("x{piece}y"), format!("some {piece} words")] {
            assert_eq!(scanner.scan_text(&text, "").findings.len(), 1, "{text}");
        }
        assert!(scanner.scan_text(&format!("({})", &value[start..start + 11]), "").is_clean());
    }
}

#[test]
fn registered_values_that_would_be_found_everywhere_are_refused_with_the_reason() {
    for (value, said) in [
        ("true", "4 bytes"),
        ("", "0 bytes"),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", "too regular"),
        ("abababababababababab", "too regular"),
        ("000000000000000000001", "too regular"),
    ] {
        assert!(registered::check(value.as_bytes()).unwrap_err().to_string().contains(said), "{value}");
    }
    assert!(registered::check(&vec![b'x'; 1 << 20]).unwrap_err().to_string().contains("1048576 bytes"));
}

#[test]
fn a_passphrase_is_found_and_its_words_alone_are_not() {
    let scanner = with_values(&[("phrase", "correct horse battery staple wagon")]);
    assert_eq!(scanner.scan_text("it is correct horse battery staple wagon!", "").findings.len(), 1);
    assert!(scanner.scan_text("a correct horse is a good horse", "").is_clean());
}

#[test]
fn a_connection_string_is_not_found_by_its_scheme() {
    let scanner = with_values(&[("db", "postgres://app:x9Kq2Lm7Rt4Wz@db.internal.example/orders")]);
    assert_eq!(scanner.scan_text("x9Kq2Lm7Rt4Wz@db", "").findings.len(), 1);
    for text in
        ["postgres://app:", "db.internal.example/orders is where it lives", "postgres://app@db.internal.example"]
    {
        assert!(scanner.scan_text(text, "").findings.is_empty(), "{text}");
    }
}

#[test]
fn canaries_have_a_format_of_their_own() {
    let scanner = with_values(&[("canary_1", "mF3kQ9zX7pL2vB8nR4tW6yH1")]);
    assert_eq!(scanner.scan_text("mF3kQ9zX7pL2vB8nR4tW6yH1", "").findings[0].format, "canary");
}

#[test]
fn one_value_has_one_fingerprint_however_it_is_hidden() {
    let scanner = shipped();
    let tag = key().tag(token().as_bytes());
    for (disguise, json) in disguises(&token()) {
        let scan = scanner.scan(&read(&json), "");
        assert!(scan.findings.iter().any(|f| f.fingerprint.as_ref() == Some(&tag)), "{disguise}: {scan:?}");
    }
}

#[test]
fn x09_a_finding_says_where_and_how() {
    let scanner = shipped();
    let scan = scanner
        .scan(&read(&json!({ "a/b": [1, { "c": STANDARD.encode(json!({ "t": token() }).to_string()) }] })), "/params");
    assert_eq!(scan.findings.len(), 1);
    assert_eq!(
        (scan.findings[0].at.as_str(), scan.findings[0].via.join(" ")),
        ("/params/a~1b/1/c", "base64".to_owned())
    );
    let name = read(&json!({ token(): 1 }));
    let scan = scanner.scan(&name, "");
    assert_eq!(scan.findings[0].at, "/[secret:github_personal_access_token]");
}

#[test]
fn what_builds_and_systems_write_down_is_no_secret() {
    let scanner = shipped();
    for text in [
        "https://example.com:8080/a@b",
        "sk-learn",
        "-----BEGIN PUBLIC KEY-----",
        "git@github.com:a/b.git",
        "http://user:${PASSWORD}@host",
        "the AKIA prefix",
        "\"integrity\": \"sha512-tEBHqDnIoM/1rXME1zgka9g6Q2lcoCkxHLuc7ODJ5BxbP5d4c2Z5cGgtXAku59200Cx7diuHTOYfSBD8n6mm8A==\"",
        "checksum = \"83fc039473c5595ace860d8c4fafa220ff474b3fc6bfdb4293327f1a37e94d86\"",
        "commit 2f73a3e3cf7e361613eadbd16bd5681de004fa5f",
        "session_id: 0192d2c3-9d5e-7c3b-8f0a-1b2c3d4e5f60",
        "password: ${DB_PASSWORD}",
        "token_type: bearer",
        "public_key: MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE",
        "the password must have eight characters",
        "token: <your token here>",
        "[secret:adobe_client_id:t:0123456789abcdef0123456789abcdef]",
        "secret=[secret:github_token:t:0123456789abcdef0123456789abcdef]",
    ] {
        let scan = scanner.scan_text(text, "");
        assert!(scan.is_clean() && scan.suspicions.is_empty(), "{text}: {scan:?}");
    }
}

#[test]
fn assignments_that_look_secret_are_suspicions() {
    let scanner = shipped();
    for text in [
        "password = hunter2!x",
        "DB_PASSWORD: \"s3cr3t-Pa55\"",
        "auth_token=9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c",
        "<password>Tr0ub4dor&3</password>",
        "{\"clientSecret\": \"Zx8Kq2Lm7Rt4WzPn5Vb3\"}",
    ] {
        let scan = scanner.scan_text(text, "");
        assert!(scan.findings.is_empty() && !scan.suspicions.is_empty(), "{text}: {scan:?}");
    }
}

#[test]
fn allowed_fingerprints_pass_until_they_end_and_registered_values_never_do() {
    let until: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    let value = "mF3kQ9zX7pL2vB8nR4tW6yH1";
    let allowed = [(key().tag(token().as_bytes()), Some(until)), (key().tag(value.as_bytes()), None)];
    let values =
        vec![Registration { name: "v".into(), canary: false, value: Zeroizing::new(value.as_bytes().to_vec()) }];
    let sources = Sources { allowed: allowed.into_iter().collect(), values, ..Sources::default() };
    let scanner = Scanner::new(Engine::new(sources, KEYS, &key()).unwrap(), key());
    scanner.tick("2026-11-30T00:00:00Z".parse().unwrap());
    assert!(scanner.scan_text(&token(), "").is_clean());
    // It is masked all the same: a log is no place for it.
    assert!(!scanner.mask(&token()).contains(&token()));
    assert_eq!(scanner.scan_text(value, "").findings.len(), 1);
    scanner.tick(until);
    assert_eq!(scanner.scan_text(&token(), "").findings.len(), 1);
}

#[test]
fn x09_a_payload_made_to_be_endless_is_unscannable_and_ends() {
    let scanner = shipped();
    let mut bomb = "the quick brown fox jumps over the lazy dog".to_owned();
    for _ in 0..12 {
        bomb = STANDARD.encode(&bomb);
    }
    let scan = scanner.scan_text(&bomb, "");
    assert!(scan.unscannable && !scan.is_clean());
    assert_eq!(scan.outbound("/x").findings, [Finding::unscannable("/x")]);
    for text in [
        "[".repeat(10_000),
        "{\"a\":".repeat(10_000),
        "\u{fffd}".repeat(1000),
        "\\ud800".repeat(1000),
        "%".repeat(10_000),
        "&#".repeat(10_000),
    ] {
        let _ = scanner.scan_text(&text, "");
    }
}

#[test]
fn a_file_of_its_type_is_scanned_once_decoded() {
    let scanner = with_values(&[("the_key", "mF3kQ9zX7pL2vB8nR4tW6yH1")]);
    let image = |inside: &[u8]| {
        let bytes = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0x80; 600], inside, &[0x81; 600]].concat();
        read(&json!({ "content": [{ "type": "image", "mimeType": "image/png", "data": STANDARD.encode(bytes) }] }))
    };
    assert!(scanner.scan(&image(b"nothing"), "").is_clean());
    let scan = scanner.scan(&image(b"mF3kQ9zX7pL2vB8nR4tW6yH1"), "/result");
    assert_eq!(scan.findings[0].at, "/result/content/0/data");
}

#[test]
fn a_broken_rule_of_a_pack_is_refused_without_its_text() {
    let rule = |regex: &str| pack::Rule { id: "a-rule".into(), regex: regex.into(), ..pack::Rule::default() };
    for regex in ["(unclosed", "a{1000}{1000}{1000}", "(?P<x"] {
        let sources = Sources { rules: vec![rule(regex)], ..Sources::default() };
        let said = Engine::new(sources, [0; 56], &key()).unwrap_err().to_string();
        assert!(!said.contains(regex), "{said}");
    }
    // What would take for ever elsewhere takes as long as the text is.
    let sources = Sources { rules: vec![rule("(x+x+)+y")], ..Sources::default() };
    let scanner = Scanner::new(Engine::new(sources, [0; 56], &key()).unwrap(), key());
    assert!(scanner.scan_text(&"x".repeat(100_000), "").is_clean());
    let found = scanner.scan_text("xxxxxy", "");
    assert_eq!(found.findings[0].format, "a_rule");
}

#[test]
fn w04_redacting_replaces_the_value_and_no_other_byte() {
    let scanner = with_values(&[("the_key", "mF3kQ9zX7pL2vB8nR4tW6yH1")]);
    let raw = format!(
        r#"{{"jsonrpc":"2.0", "id":1,"result":{{"n":1.50,"content":[{{"text":"a \u0067{} b"}}]}}}}"#,
        &token()[1..]
    );
    let (out, body) = redact::answer(&scanner, &raw, false).unwrap();
    let stamp = format!("[secret:github_personal_access_token:{}]", key().tag(token().as_bytes()));
    assert_eq!(out, raw.replace(&format!("\\u0067{}", &token()[1..]), &stamp));
    assert!(scanner.scan(&body, "").is_clean());
    let raw = format!(r#"{{"id":1,"result":["{}","{}","{}"]}}"#, "mF3kQ9zX", "7pL2vB8n", "R4tW6yH1");
    assert_eq!(redact::answer(&scanner, &raw, false), None, "what lies across strings is withheld");
}

/// Texts with a value that was once passed over, each for its own reason.
#[test]
fn x09_what_once_passed_is_found() {
    let scanner = with_values(&[("v", REGISTERED)]);
    let token = token();
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let wide = |text: &str| text.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect::<String>();
    let encoded = STANDARD.encode(&token);
    let folded = |columns: usize, with: &str| {
        let lines = encoded.as_bytes().chunks(columns).map(|line| String::from_utf8(line.to_vec()).unwrap());
        lines.collect::<Vec<_>>().join(with)
    };
    let long_header = format!("eyJ{}", "hbGciOiJIUzI1NiJ9aB3".repeat(6));
    let texts = [
        ("a stamp that is none", "[secret:postgres://app:S3cr3tPazz91@db.example.com/x".into()),
        (
            "a stamp around a key",
            format!(
                "[secret:-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----]",
                "MIIEvQIBADANBgkqhkiG9w0B".repeat(3)
            ),
        ),
        ("a stamp of another key", "datadog_api_key = [secret:x:k1:3f8a9c1e5b7d2046a8c0e1f3b5d79264]".into()),
        ("0x", format!("0x{}", hex(&token))),
        ("a path of hex", format!("/v1/{}", hex(&token))),
        ("a glued hex digit", format!("x-a{}", hex(&token))),
        ("folded at 16", folded(16, "\n")),
        ("folded at 24, indented", folded(24, "\n            ")),
        ("groups of four", folded(4, " ")),
        (
            "a hex dump",
            hex(&token)
                .as_bytes()
                .chunks(2)
                .map(|pair| String::from_utf8(pair.to_vec()).unwrap())
                .collect::<Vec<_>>()
                .join(" "),
        ),
        ("behind a long escaped text", format!("{}-{}", "%41".repeat(21833), percent(&token))),
        ("a JWT with escaped dots", format!("{long_header}%2E{long_header}%2EaB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3dE5")),
        ("beside what is no UTF-8", format!("{}.%FF", percent(&wide(REGISTERED)))),
        ("behind glued letters", format!("{}{encoded}", "z".repeat(13))),
        ("behind many glued letters", format!("{}{encoded}", "B".repeat(33))),
        ("control characters", token.chars().flat_map(|c| [c, '\u{7f}']).collect()),
        ("signs that are not drawn", token.chars().flat_map(|c| [c, '\u{fffa}']).collect()),
        ("a password like a variable", "postgres://app:$uper5ecretPw@db.example.com/x".into()),
        ("a password like a pattern", "postgres://app:*Xk29dkqpZZ@db.example.com/x".into()),
    ];
    let passed: Vec<_> = texts.iter().filter(|(_, text)| scanner.scan_text(text, "").findings.is_empty()).collect();
    assert!(passed.is_empty(), "{passed:?}");
    let objects = [
        ("a spaced name", json!({ token.chars().flat_map(|c| [c, ' ']).collect::<String>(): 1 })),
        ("pieces in names", json!({ (&REGISTERED[..8]): 1, (&REGISTERED[8..16]): 2, (&REGISTERED[16..]): 3 })),
        ("a name and its value", json!({ (&REGISTERED[..9]): &REGISTERED[9..] })),
    ];
    let passed: Vec<_> =
        objects.iter().filter(|(_, object)| scanner.scan(&read(object), "").findings.is_empty()).collect();
    assert!(passed.is_empty(), "{passed:?}");
    let greek = with_values(&[("v", "NYT7NQYZ4HBN9YKMXN2V")]);
    assert!(!greek.scan_text("\u{39d}YT7\u{39d}QYZ4HB\u{39d}9YKMX\u{39d}2V", "").is_clean());
}

#[test]
fn w04_a_flood_of_guesses_or_of_allowed_values_hides_nothing() {
    let allowed_value = "db_password = hunter2xQ9zz";
    let fingerprint = shipped().scan_text(allowed_value, "").suspicions[0].fingerprint.clone().unwrap();
    let sources = Sources { allowed: [(fingerprint, None)].into(), ..Sources::default() };
    let scanner = Scanner::new(Engine::new(sources, KEYS, &key()).unwrap(), key());
    let flood = format!("{} api_password = R3alS3cr3tPw!", format!("{allowed_value}\n").repeat(80));
    assert_eq!(scanner.scan_text(&flood, "").suspicions.len(), 1);
    let guesses: String = (0..80).map(|number| format!("password_{number} = hunter{number}!xQ9\n")).collect();
    assert_eq!(shipped().scan_text(&format!("{guesses}{}", token()), "").findings.len(), 1);
}

#[test]
fn w04_masking_leaves_no_disguise_beside_a_plain_value() {
    let scanner = with_values(&[("v", REGISTERED)]);
    let wide: String = REGISTERED.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect();
    let (token, spaced) = (token(), wide.replace("", " "));
    let percent: String = REGISTERED.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let encoded = STANDARD.encode(&token);
    for (text, hidden) in [
        (format!("{{\"a\":\"{token}\",\"b\":\"{encoded}\"}}"), encoded.clone()),
        (format!("{{\"a\":\"{REGISTERED}\",\"b\":\"{wide}\"}}"), wide.clone()),
        (format!("{REGISTERED} {}", spaced.trim()), spaced.trim().to_owned()),
        (format!("{wide} {}", spaced.trim()), spaced.trim().to_owned()),
        (format!("{REGISTERED} {}", percent.replace('%', " %").trim()), percent.clone()),
        (format!("{} {wide}", "%2525252541".repeat(200)), wide.clone()),
    ] {
        for masked in [scanner.mask(&text), scanner.hide(&text)] {
            assert!(!masked.contains(&hidden) && !masked.contains(REGISTERED) && !masked.contains(&token), "{masked}");
        }
    }
}

/// Texts made to take long: each ends, and is looked at or called unscannable.
#[test]
fn x15_texts_made_to_take_long_end() {
    let scanner = with_values(&[("v", REGISTERED)]);
    for piece in [
        "private-lines:",
        "key=",
        "nekot_fs-",
        "sf_token-",
        "bearer=1",
        "kind: secret data:a:b:c:",
        "%41 ",
        "://",
        "[secret:",
    ] {
        let text = piece.repeat((256 << 10) / piece.len());
        let _ = (scanner.scan_text(&text, ""), scanner.is_plain(&text));
    }
    let long = "n".repeat(100_000);
    let mut object = serde_json::Map::new();
    object.insert(long, json!(vec!["a"; 50_000]));
    assert!(scanner.scan(&read(&object.into()), "").is_clean());
    // Pointers of many findings behind many items.
    let mut items: Vec<serde_json::Value> = (0..100_000).map(serde_json::Value::from).collect();
    items.extend((0..60).map(|_| json!(token())));
    let scan = scanner.scan(&read(&json!(items)), "");
    assert_eq!(scan.findings.last().unwrap().at, "/100059");
    // Each blob has its own place.
    let file = |text: &str| json!({ "mimeType": "image/png", "data": STANDARD.encode([b"\x89PNG\r\n\x1a\n", &[0; 300][..], text.as_bytes()].concat()) });
    let scan = scanner.scan(&read(&json!({ "a": file("nothing at all"), "b": file(&token()) })), "");
    assert_eq!(scan.findings[0].at, "/b/data");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever stands around it and however it is hidden, nothing of a token is left in a masked text.
    #[test]
    fn w04_masking_leaves_nothing_to_find(before in "[ a-z:/\"\\PC]{0,20}", after in "[ a-z:/\"\\PC]{0,20}", which in 0usize..19) {
        let scanner = with_values(&[("the_key", "mF3kQ9zX7pL2vB8nR4tW6yH1")]);
        for value in [token(), "mF3kQ9zX7pL2vB8nR4tW6yH1".to_owned()] {
            let (disguise, json) = disguises(&value).swap_remove(which);
            let text = match json.get("text").and_then(|text| text.as_str()) {
                Some(text) => format!("{before} {text} {after}"),
                None => format!("{before} {json} {after}"),
            };
            let masked = scanner.mask(&text).into_owned();
            let left = scanner.scan_text(&masked, "");
            prop_assert!(left.findings.is_empty(), "{disguise}: {masked}: {left:?}");
        }
    }

    #[test]
    fn nothing_makes_it_fail(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let scanner = with_values(&[("the_key", "mF3kQ9zX7pL2vB8nR4tW6yH1")]);
        let _ = scanner.mask(&text);
        let _ = scanner.scan_text(&String::from_utf8_lossy(&bytes), "");
        let _ = scanner.scan_text(&STANDARD.encode(&bytes), "");
    }
}
