//! What the fuzz targets check, and whether there was anything to check. The tests run the corpus through the same
//! functions.

#![allow(dead_code, reason = "each target uses one of them")]

use std::sync::{Arc, LazyLock};
use warden_core::inbox::answer;
use warden_core::inbox::message::Message as Mail;
use warden_core::inbox::plan::{Plan, validate};
use warden_core::inbox::routing::Routing;
use warden_core::journal::frame::{self, Damage};
use warden_core::journal::record::Record;
use warden_core::json::Limits;
use warden_core::mac::MacKey;
use warden_core::mcp::{self, From};
use warden_core::policy::layer::{Layer, LayerName, SourceFile};
use warden_core::rpc::Message;
use warden_core::secrets::registered::Registration;
use warden_core::secrets::stream::{Flow, Piece, Stream};
use warden_core::secrets::{Engine, Scan, Scanner, Sources};
use zeroize::Zeroizing;

/// A JSON-RPC message: no panic, and what is forwarded reads as what was decided on.
pub fn envelope(data: &[u8]) -> bool {
    let limits = Limits { bytes_max: 1 << 16, depth_max: 32 };
    let Ok(message) = Message::parse(data, limits) else { return false };
    let again = Message::parse(message.raw.as_bytes(), limits).expect("what is forwarded can be read");
    assert_eq!(message.kind, again.kind);
    assert!(!warden_core::rpc::one_line(&message.raw).contains(['\n', '\r']));
    for from in [From::Worker, From::Server] {
        if let Ok(proposal) = mcp::propose(from, message.clone(), "w", "c", "s") {
            assert_eq!(proposal.payload, message.raw);
        }
    }
    true
}

/// Policy text: no panic, and loading is a function of the text.
pub fn policy_loader(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let files = [SourceFile { name: "f.cedar".into(), text: text.into() }];
    let (one, other) = (Layer::load(LayerName::Site, &files), Layer::load(LayerName::Site, &files));
    match (one, other) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one.digest, other.digest);
            assert_eq!(one.rules.len(), one.set().policies().count());
            true
        }
        (Err(one), Err(_)) => {
            assert!(!one.0.is_empty());
            false
        }
        _ => panic!("loading differs"),
    }
}

/// A segment's bytes: no panic, and frames are dense.
pub fn replay(data: &[u8]) -> bool {
    let first = frame::read_header(data).ok().flatten().map_or(0, |header| header.first_seq);
    let mut next = first;
    let walked = frame::walk(data, first, |frame| {
        assert_eq!(frame.seq, next);
        next = next.wrapping_add(1);
        let _ = Record::from_bytes(frame.payload);
        Ok::<(), Damage>(())
    });
    if let Ok((end, tail)) = walked {
        assert_eq!(end, next);
        assert!(tail.offset() <= data.len().next_multiple_of(8).max(frame::SEGMENT_HEADER));
    }
    next > first
}

/// What is registered, and what the corpus hides in every way.
const VALUE: &str = "k9Xv2QpLm7RtYw4Zb8NcHs3J";

static SCANNER: LazyLock<Arc<Scanner>> = LazyLock::new(|| {
    let key = MacKey::new("t", [7; 32]);
    let value = Registration { name: "db".into(), canary: false, value: Zeroizing::new(VALUE.as_bytes().to_vec()) };
    let sources = Sources { values: vec![value], ..Sources::default() };
    let keys = *b"f3J9x!qLz0Wm7RtYv2Kp8Nc4Hs6Bd1Ge5UaXoTiQ_ySjDkPfMhZwErCb";
    Arc::new(Scanner::new(Engine::new(sources, keys, &key).expect("the value is fit"), key))
});

/// Any text, and any JSON, in every view: no panic, and nothing plain is left of what was masked.
pub fn secret_views(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let scan = SCANNER.scan_text(&text, "");
    let masked = SCANNER.mask(&text);
    assert!(SCANNER.is_plain(&masked), "{masked:?}");
    assert!(!masked.contains(VALUE));
    if let Ok(json) = warden_core::json::parse(data, Limits { bytes_max: 1 << 16, depth_max: 32 }) {
        let _ = SCANNER.scan(&json, "");
    }
    !scan.findings.is_empty()
}

/// A text in pieces as its first bytes say: no panic, what is found in the whole is found in the pieces, and the registered
/// value does not go on.
pub fn secret_stream(data: &[u8]) -> bool {
    let Some((cuts, text)) = data.split_at_checked(8) else { return false };
    let text = String::from_utf8_lossy(text);
    let chars: Vec<char> = text.chars().collect();
    let (mut pieces, mut at) = (Vec::new(), 0);
    for cut in cuts.iter().cycle() {
        if at >= chars.len() {
            break;
        }
        let end = chars.len().min(at + 1 + usize::from(*cut));
        pieces.push(chars[at..end].iter().collect::<String>());
        at = end;
    }
    let (cut, read) = streamed(&pieces);
    let (whole, _) = streamed(&[text.into_owned()]);
    let is_registered = |scan: &Scan| scan.findings.iter().any(|found| found.format == "registered_value");
    assert!(is_registered(&cut) || !is_registered(&whole) || cut.unscannable || whole.unscannable);
    assert!(cut.unscannable || !read.contains(&VALUE[3..]), "{read:?}");
    is_registered(&cut)
}

fn streamed(pieces: &[String]) -> (Scan, String) {
    let mut stream = Stream::new(Arc::clone(&SCANNER), true);
    let mut read = String::new();
    let mut take = |flow: Flow<String>| {
        if let Flow::On(released) = flow {
            for released in released {
                let text = released.texts.into_iter().next().flatten();
                read.push_str(&text.unwrap_or(released.event));
            }
        }
    };
    for piece in pieces {
        take(stream.push(piece.clone(), &[Piece { channel: "c".into(), text: piece.clone() }]));
    }
    take(stream.finish());
    (stream.scan().clone(), read)
}

/// What a model said: whether a plan is found in it. Guardrails only ever take away from that.
pub fn plan(data: &[u8]) -> bool {
    let said = String::from_utf8_lossy(data);
    let Some(draft) = answer::extract(&said) else { return false };
    let drafted = draft.actions.len();
    if let Plan::Act(actions) = validate(&draft, &Mail::default(), &Routing::default()) {
        assert!(!draft.escalate && actions.len() <= drafted);
    }
    true
}
