//! What is appended: random text, made before anything is measured, the same in every run.

use crate::stats::Chance;
use std::sync::Arc;

/// Bytes of a record as it is stored.
pub(crate) const RECORD: usize = 600;
const SEED: u64 = 20_261_121;
/// They come again after more bytes than any compression looks back.
const DIFFERENT: usize = 4096;
/// A prime: appenders that start at different places stay there.
const APART: usize = 61;

/// Texts of [`RECORD`] random bytes.
#[derive(Clone)]
pub(crate) struct Records(Arc<[String]>);

impl Records {
    pub(crate) fn new() -> Self {
        let mut chance = Chance(SEED);
        Self((0..DIFFERENT).map(|_| chance.text(RECORD)).collect())
    }

    /// All of them again and again, from a place of `appender`'s own on.
    pub(crate) fn of(&self, appender: usize) -> Texts {
        Texts { all: self.clone(), at: appender * APART }
    }
}

/// See [`Records::of`].
pub(crate) struct Texts {
    all: Records,
    at: usize,
}

impl Texts {
    /// The first `length` bytes of the next text.
    pub(crate) fn next(&mut self, length: usize) -> &str {
        self.at += 1;
        &self.all.0[self.at % DIFFERENT][..length]
    }
}

/// A record of an engine that stores bytes.
pub(crate) fn json(texts: &mut Texts) -> Vec<u8> {
    const HEAD: &str = r#"{"v":1,"kind":"decision","input":""#;
    const TAIL: &str = r#""}"#;
    [HEAD, texts.next(RECORD - HEAD.len() - TAIL.len()), TAIL].concat().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_json_of_one_size_and_differ() {
        let records = Records::new();
        let (mut one, mut other) = (records.of(0), records.of(1));
        let (one, other) = (json(&mut one), json(&mut other));
        assert_eq!((one.len(), other.len()), (RECORD, RECORD));
        assert_ne!(one, other);
        assert!(serde_json::from_slice::<serde_json::Value>(&one).unwrap()["input"].is_string());
    }
}
