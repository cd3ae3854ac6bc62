//! What the fuzz targets check, and whether there was anything to check. The tests run the corpus through the same
//! functions.

#![allow(dead_code, reason = "each target uses one of them")]

use warden_core::journal::frame::{self, Damage};
use warden_core::journal::record::Record;
use warden_core::json::Limits;
use warden_core::mcp::{self, From};
use warden_core::policy::layer::{Layer, LayerName, SourceFile};
use warden_core::rpc::Message;

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
