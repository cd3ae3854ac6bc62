//! Streams: whatever the cuts, the same is found and no value goes on.

use super::registered::Registration;
use super::stream::{Flow, HELD_MAX, Piece, Released, Stream};
use super::tests::KEYS;
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use zeroize::Zeroizing;

const VALUE: &str = "k9Xv2QpLm7RtYw4Zb8NcHs3J";
const TOKEN: &str = "ghp_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3";

/// So many bytes of a value stand nowhere else.
const CHANCE: usize = 5;

fn scanner() -> Arc<Scanner> {
    let key = MacKey::new("t", [7; 32]);
    let value = Registration { name: "db".into(), canary: false, value: Zeroizing::new(VALUE.as_bytes().to_vec()) };
    let engine = Engine::new(Sources { values: vec![value], ..Sources::default() }, KEYS, &key).unwrap();
    Arc::new(Scanner::new(engine, key))
}

fn piece(text: &str) -> Vec<Piece> {
    vec![Piece { channel: "/choices/0".into(), text: text.into() }]
}

/// What a worker reads, and what was found; nothing read when the stream ended.
fn run(scanner: &Arc<Scanner>, pieces: &[&str], replaces: bool) -> (Option<String>, Scan, String) {
    let mut stream = Stream::new(Arc::clone(scanner), replaces);
    let (mut text, mut ended) = (String::new(), false);
    let mut take = |flow: Flow<String>, text: &mut String| match flow {
        Flow::On(released) => {
            for Released { event, texts } in released {
                text.push_str(texts.into_iter().next().flatten().as_deref().unwrap_or(&event));
            }
        }
        Flow::Ends => ended = true,
    };
    for part in pieces {
        take(stream.push((*part).to_owned(), &piece(part)), &mut text);
    }
    take(stream.finish(), &mut text);
    let read = (!ended).then(|| text.clone());
    (read, stream.scan().clone(), text)
}

fn kinds(scan: &Scan) -> Vec<(String, Option<String>)> {
    let mut kinds: Vec<_> =
        scan.findings.iter().map(|found| (found.format.clone(), found.fingerprint.clone())).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Texts with a value that a worker must not read, the value, and how much of its beginning may be gone before it is told.
fn texts() -> Vec<(String, String, usize)> {
    let encoded = STANDARD.encode(format!("password is {VALUE} ok"));
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw".repeat(2);
    let key = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----");
    vec![
        (format!("Use {TOKEN} for it."), TOKEN.into(), 0),
        (format!("{{\"token\": \"{TOKEN}\"}}"), TOKEN.into(), 0),
        (format!("the value is {VALUE}, and so on"), VALUE.into(), 3),
        (format!("as base64 {encoded} done"), encoded, 15),
        (format!("postgres://admin:{}@db.example.com/x end", "s3cr3tPwd99"), "s3cr3tPwd99".into(), 0),
        (format!("a key {key} end"), body, 0),
        (format!("spelled {} end", VALUE.replace("", " ").trim()), VALUE.replace("", " ").trim().into(), 6),
    ]
}

#[test]
fn w04_a_stream_split_anywhere_gives_the_same_findings_and_lets_no_value_go() {
    let scanner = scanner();
    for (text, value, gone_max) in texts() {
        let (_, whole, _) = run(&scanner, &[&text], true);
        assert!(!whole.findings.is_empty(), "{text}");
        for at in (1..text.len()).filter(|at| text.is_char_boundary(*at)) {
            for replaces in [true, false] {
                let (read, scan, gone) = run(&scanner, &[&text[..at], &text[at..]], replaces);
                assert_eq!(kinds(&scan), kinds(&whole), "{text} at {at}");
                assert_eq!(read.is_some(), replaces, "{text} at {at}");
                assert!(!gone.contains(&value[..gone_max + CHANCE]), "{text} at {at}: {gone}");
            }
        }
    }
}

#[test]
fn w04_a_stream_of_single_characters_lets_no_value_go() {
    let scanner = scanner();
    for (text, value, gone_max) in texts() {
        let single: Vec<String> = text.chars().map(String::from).collect();
        let (read, scan, _) = run(&scanner, &single.iter().map(String::as_str).collect::<Vec<_>>(), true);
        let (_, whole, _) = run(&scanner, &[&text], true);
        assert_eq!(kinds(&scan), kinds(&whole), "{text}");
        let read = read.unwrap();
        assert!(!read.contains(&value[..gone_max + CHANCE]), "{read}");
        assert!(read.contains("[secret:"), "{read}");
    }
}

#[test]
fn w04_a_value_in_a_stream_is_replaced_and_the_rest_is_as_it_was() {
    let scanner = scanner();
    let (read, ..) = run(&scanner, &["Use gh", "p_aB3dE5gH7jK9mN1p", "Q2rS4tU6vW8xY0zA1bC3 for", " it."], true);
    let fingerprint = scanner.key().tag(TOKEN.as_bytes());
    assert_eq!(read.unwrap(), format!("Use [secret:github_personal_access_token:{fingerprint}] for it."));
}

#[test]
fn ordinary_text_goes_on_as_it_comes() {
    let scanner = scanner();
    let text = "The build of the gateway passed with three warnings, see https://example.com/builds/12 for what they are. \
                Commit 3f785ae9bdc012 fixes two of them, and the password policy is not changed by it.";
    let mut stream = Stream::new(scanner, true);
    let mut held = 0;
    for word in text.split_inclusive(' ') {
        match stream.push((), &piece(word)) {
            Flow::On(released) => held = held.max(1 - released.len().min(1)),
            Flow::Ends => panic!("{word}"),
        }
    }
    assert_eq!(held, 0);
}

#[test]
fn a_held_event_holds_those_behind_it() {
    let mut stream = Stream::new(scanner(), true);
    assert_eq!(stream.push(1, &piece("it is ghp_")), Flow::On(vec![]));
    let other = vec![Piece { channel: "/choices/1".into(), text: "hello".into() }];
    assert_eq!(stream.push(2, &other), Flow::On(vec![]));
    assert_eq!(stream.push(3, &[]), Flow::On(vec![]));
    let Flow::On(released) = stream.push(4, &piece(" tokens begin so. ")) else { panic!("it ends") };
    assert_eq!(released.iter().map(|released| released.event).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn s1_33_what_is_held_too_long_ends_the_stream_as_unscannable() {
    let mut stream = Stream::new(scanner(), true);
    let mut random = 7u64;
    let mut ends = None;
    for round in 0..100 {
        let text: String = (0..1000)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(random >> 33) as usize % 52])
            })
            .collect();
        if stream.push((), &piece(&text)) == Flow::Ends {
            ends = Some(round);
            break;
        }
    }
    assert_eq!(ends, Some(HELD_MAX / 1000 + 1));
    assert!(stream.scan().unscannable);
    assert_eq!(stream.push((), &piece("more")), Flow::Ends);
}

#[test]
fn one_long_event_with_a_candidate_at_its_end_waits_for_the_next() {
    let mut stream = Stream::new(scanner(), true);
    assert_eq!(stream.push(1, &piece(&format!("{} ghp_", "some words ".repeat(4000)))), Flow::On(vec![]));
    let Flow::On(released) = stream.push(2, &piece(" is a prefix. ")) else { panic!("it ends") };
    assert_eq!(released.len(), 2);
}

#[test]
fn a_stream_of_too_many_channels_ends() {
    let mut stream = Stream::new(scanner(), true);
    let ends = (0..2000).any(|number| {
        let piece = Piece { channel: number.to_string(), text: "a ".into() };
        stream.push((), &[piece]) == Flow::Ends
    });
    assert!(ends && stream.scan().unscannable);
}

#[test]
fn a_candidate_that_ended_holds_nothing() {
    for begin in ["see %67hp_aB3 it. ", "\\\"Authorization:\\\"Bearer it. ", "\\n-----BEGIN it. ", "%6b9Xv it. "] {
        let mut stream = Stream::new(scanner(), true);
        let mut released = 0;
        for text in [begin, "and then ", "more words ", "come along. "] {
            let Flow::On(events) = stream.push((), &piece(text)) else { panic!("{begin}") };
            released += events.len();
        }
        assert!(released >= 3, "{begin}: {released}");
    }
}

#[test]
fn events_without_text_are_not_held_for_ever() {
    let mut stream = Stream::new(scanner(), true);
    assert_eq!(stream.push((), &piece("ghp_aB3")), Flow::On(vec![]));
    assert!((0..20_000).any(|_| stream.push((), &[]) == Flow::Ends));
    assert!(stream.scan().unscannable);
}

#[test]
fn w04_a_character_that_becomes_several_is_one_place() {
    let key = MacKey::new("t", [7; 32]);
    let value =
        Registration { name: "v".into(), canary: false, value: Zeroizing::new(b"k9Xv2QpLm7RtYw4Zb8N1/2".to_vec()) };
    let scanner = Arc::new(Scanner::new(
        Engine::new(Sources { values: vec![value], ..Sources::default() }, KEYS, &key).unwrap(),
        key,
    ));
    let wide: String = "k9Xv2QpLm7RtYw4Zb8N".chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect();
    let (first, rest) = wide.split_at(30);
    let (read, scan, _) = run(&scanner, &[first, &format!("{rest}½")], true);
    assert_eq!(kinds(&scan)[0].0, "registered_value");
    assert!(read.unwrap().contains("[secret:registered_value"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn w04_however_a_stream_is_cut_the_findings_are_the_same(
        order in prop::collection::vec(0usize..8, 1..8),
        cuts in prop::collection::vec(1usize..12, 1..40),
    ) {
        let scanner = scanner();
        let encoded = STANDARD.encode(format!("password is {VALUE} ok"));
        let parts = ["some words, ", &format!("{TOKEN} "), " and ", &format!("{VALUE} "), ". ", &format!("{encoded} "), " ünd ｇｈｐ ", "https://example.com/a?b=c "];
        let text: String = order.iter().map(|at| parts[*at]).collect();
        let chars: Vec<char> = text.chars().collect();
        let (mut at, mut pieces) = (0, Vec::new());
        for cut in cuts.iter().cycle() {
            if at >= chars.len() {
                break;
            }
            pieces.push(chars[at..chars.len().min(at + cut)].iter().collect::<String>());
            at += cut;
        }
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let (read, scan, _) = run(&scanner, &pieces, true);
        let (_, whole, _) = run(&scanner, &[&text], true);
        prop_assert_eq!(kinds(&scan), kinds(&whole));
        let read = read.unwrap();
        prop_assert!(!read.contains(&VALUE[3..]) && !read.contains(TOKEN), "{}", read);
        prop_assert_eq!(scan.findings.is_empty(), read == text);
    }
}
