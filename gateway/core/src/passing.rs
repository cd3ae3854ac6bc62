//! An answer too large to be held, read and scanned as it passes.
//!
//! It is cut into blocks. A block goes on only after the one behind it was scanned together with its end, so a secret value
//! that lies across the cut is found before its first byte has left. Memory is two blocks, whatever the answer's length.
//! What is read of the JSON is what the gate needs: which request it answers, and whether it says that it failed.

use crate::rpc::Id;
use crate::secrets::{Finding, Scanner};
use std::sync::Arc;

/// Bytes of a block.
const BLOCK: usize = 64 << 10;
/// How much of the text before a block is scanned once more with it.
const OVERLAP: usize = 8 << 10;
/// Nesting that is read.
const DEPTH_MAX: usize = 128;
/// Names and values that the gate looks at are no longer than this.
const VALUE_MAX: usize = 1024;

/// Why it must not go on. What the receiver has by then, no JSON reader takes for a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// It holds a secret value.
    Secret(Finding),
    /// It is not one JSON-RPC answer.
    NotAnAnswer(&'static str),
}

/// What it was, once it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// The request it answers.
    pub id: Option<Id>,
    /// Whether it has an `error`, or a `result` with `isError`.
    pub failed: bool,
    /// Its length in bytes.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Passing {
    scanner: Arc<Scanner>,
    /// Bytes that were scanned; what follows them is not yet.
    scanned: Vec<u8>,
    /// Bytes that were read since.
    block: Vec<u8>,
    reader: Reader,
    bytes: u64,
}

impl Passing {
    /// Nothing of it has come yet.
    pub fn new(scanner: Arc<Scanner>) -> Self {
        Self { scanner, scanned: Vec::new(), block: Vec::new(), reader: Reader::default(), bytes: 0 }
    }

    /// Takes the next bytes. What is returned may go on.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Stop> {
        let mut free = Vec::new();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.reader.read(now)?;
            self.bytes += now.len() as u64;
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK {
                free.append(&mut self.turn()?);
            }
        }
        Ok(free)
    }

    /// The rest, when there is no more to come.
    pub fn end(mut self) -> Result<(Vec<u8>, End), Stop> {
        let mut rest = self.turn()?;
        rest.append(&mut self.scanned);
        let end = self.reader.end()?;
        Ok((rest, End { bytes: self.bytes, ..end }))
    }

    /// Scans the block with the end of what came before it, and sets that free.
    fn turn(&mut self) -> Result<Vec<u8>, Stop> {
        let text = &mut self.reader.text;
        let found = self.scanner.scan_text(&String::from_utf8_lossy(text), "");
        if let Some(finding) = found.findings.into_iter().next() {
            return Err(Stop::Secret(Finding { at: self.reader.place(&self.scanner), ..finding }));
        }
        if found.unscannable {
            return Err(Stop::Secret(Finding::unscannable(&self.reader.place(&self.scanner))));
        }
        text.drain(..text.len().saturating_sub(OVERLAP));
        Ok(std::mem::replace(&mut self.scanned, std::mem::take(&mut self.block)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Inside {
    Array,
    /// And whether a name comes next.
    Object(bool),
}

/// A reader of JSON that keeps next to nothing. It does not check all of the grammar: the receiver does.
#[derive(Debug, Default)]
struct Reader {
    inside: Vec<Inside>,
    begun: bool,
    in_string: bool,
    is_name: bool,
    /// What follows a backslash, as far as it is there.
    escape: Option<Vec<u8>>,
    /// The first half of a surrogate pair.
    high: Option<u32>,
    /// Decoded strings, one a line: no pattern of a token crosses a line break.
    text: Vec<u8>,
    /// The string or number of now, while the gate may need it.
    value: Vec<u8>,
    /// The names of the outermost member and of the one in it.
    names: [String; 2],
    id: Option<Id>,
    answers: bool,
    failed: bool,
}

impl Reader {
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while let Some(byte) = bytes.first() {
            if self.in_string && self.escape.is_none() {
                // Most of a large answer is plain text.
                let plain = bytes.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(bytes.len());
                self.decoded(&bytes[..plain]);
                bytes = &bytes[plain..];
                let Some(byte) = bytes.first() else { break };
                self.string(*byte)?;
            } else if self.in_string {
                self.string(*byte)?;
            } else {
                self.token(*byte)?;
            }
            bytes = &bytes[1..];
        }
        Ok(())
    }

    fn token(&mut self, byte: u8) -> Result<(), Stop> {
        if byte.is_ascii_whitespace() {
            return Ok(());
        }
        if self.begun && self.inside.is_empty() {
            return Err(Stop::NotAnAnswer("something follows the message"));
        }
        match byte {
            b'{' => self.inside.push(Inside::Object(true)),
            b'[' if self.begun => self.inside.push(Inside::Array),
            b'}' | b']' => {
                self.scalar_ends();
                self.inside.pop();
            }
            b'"' if self.begun => {
                (self.in_string, self.is_name) = (true, self.inside.last() == Some(&Inside::Object(true)));
                self.value.clear();
                self.text.push(b'\n');
            }
            b',' => {
                self.scalar_ends();
                if let Some(Inside::Object(name)) = self.inside.last_mut() {
                    *name = true;
                }
            }
            b':' => {
                if let Some(Inside::Object(name)) = self.inside.last_mut() {
                    *name = false;
                }
            }
            scalar if self.begun => self.keep(&[scalar]),
            _ => return Err(Stop::NotAnAnswer("it is not one JSON object")),
        }
        self.begun = true;
        if self.inside.len() > DEPTH_MAX {
            return Err(Stop::NotAnAnswer("it is nested too deep"));
        }
        Ok(())
    }

    fn string(&mut self, byte: u8) -> Result<(), Stop> {
        if let Some(escape) = &mut self.escape {
            escape.push(byte);
            let escape = escape.clone();
            if escape[0] != b'u' {
                let plain = match escape[0] {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => other,
                };
                self.escape = None;
                self.decoded(&[plain]);
            } else if escape.len() == 5 {
                self.escape = None;
                let digits = std::str::from_utf8(&escape[1..]).ok();
                let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                self.unit(unit.ok_or(Stop::NotAnAnswer("a `\\u` escape has no four digits"))?);
            }
            return Ok(());
        }
        match byte {
            b'\\' => self.escape = Some(Vec::with_capacity(5)),
            b'"' => {
                self.in_string = false;
                return self.string_ends();
            }
            other => self.decoded(&[other]),
        }
        Ok(())
    }

    /// One UTF-16 unit of an escape ([RFC 8259 §7](https://www.rfc-editor.org/rfc/rfc8259#section-7)).
    fn unit(&mut self, unit: u32) {
        let code = match (self.high.take(), unit) {
            (_, 0xd800..=0xdbff) => {
                self.high = Some(unit);
                return;
            }
            (Some(high), 0xdc00..=0xdfff) => 0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00),
            (_, unit) => unit,
        };
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.decoded(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn decoded(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.inside.len() <= 2 && self.value.len() < VALUE_MAX {
            self.value.extend_from_slice(&bytes[..bytes.len().min(VALUE_MAX - self.value.len())]);
        }
    }

    fn string_ends(&mut self) -> Result<(), Stop> {
        let text = String::from_utf8_lossy(&self.value).into_owned();
        let depth = self.inside.len();
        if self.is_name && (1..=2).contains(&depth) {
            if depth == 1 {
                match text.as_str() {
                    "result" | "error" if self.answers => return Err(Stop::NotAnAnswer("it answers twice")),
                    "result" => self.answers = true,
                    "error" => (self.answers, self.failed) = (true, true),
                    "method" => return Err(Stop::NotAnAnswer("it is a request")),
                    _ => {}
                }
            }
            // These bring more than a result, and have to be looked at before a worker has them.
            if depth == 2
                && self.names[0] == "result"
                && ["inputRequests", "task", "tasks", "tools"].contains(&text.as_str())
            {
                return Err(Stop::NotAnAnswer("it brings questions, tasks or tools, and is too large to be looked at"));
            }
            self.names[depth - 1] = text;
        } else if depth == 2 && self.names[0] == "result" && self.names[1] == "resultType" && text != "complete" {
            return Err(Stop::NotAnAnswer("it is no complete result, and too large to be looked at"));
        } else if depth == 1 && self.names[0] == "id" {
            self.id = Some(Id::text(&text));
        }
        self.value.clear();
        Ok(())
    }

    fn scalar_ends(&mut self) {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.value)).into_owned();
        if text.is_empty() {
            return;
        }
        match self.inside.len() {
            1 if self.names[0] == "id" => self.id = Some(Id::number(&text)),
            2 if self.names[0] == "result" && self.names[1] == "isError" => self.failed |= text == "true",
            _ => {}
        }
    }

    fn place(&self, scanner: &Scanner) -> String {
        format!("/{}", scanner.hide(&self.names[0]))
    }

    fn end(self) -> Result<End, Stop> {
        if self.in_string || !self.inside.is_empty() || !self.begun {
            return Err(Stop::NotAnAnswer("it ends too early"));
        }
        if !self.answers {
            return Err(Stop::NotAnAnswer("it has neither `result` nor `error`"));
        }
        Ok(End { id: self.id, failed: self.failed, bytes: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scanner() -> Arc<Scanner> {
        Arc::new(Scanner::shipped(crate::mac::MacKey::new("t", [7; 32])))
    }

    fn pass(text: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, End), (Stop, Vec<u8>)> {
        let (mut passing, mut out, mut at) = (Passing::new(scanner()), Vec::new(), 0);
        for cut in cuts.iter().copied().chain([text.len()]) {
            let cut = cut.clamp(at, text.len());
            match passing.push(&text[at..cut]) {
                Ok(mut free) => out.append(&mut free),
                Err(stop) => return Err((stop, out)),
            }
            at = cut;
        }
        match passing.end() {
            Ok((mut rest, end)) => {
                out.append(&mut rest);
                Ok((out, end))
            }
            Err(stop) => Err((stop, out)),
        }
    }

    fn answer(filler: usize, text: &str) -> String {
        let result =
            serde_json::json!({ "content": [{ "type": "text", "text": format!("{}{text}", "x ".repeat(filler)) }] });
        format!(r#"{{"result":{result},"jsonrpc":"2.0","id":"a\u0062"}}"#)
    }

    #[test]
    fn what_it_answers_is_read_wherever_it_stands() {
        let (out, end) = pass(answer(100_000, "").as_bytes(), &[]).unwrap();
        assert_eq!(out, answer(100_000, "").as_bytes());
        assert_eq!((end.id, end.failed, end.bytes), (Some(Id::text("ab")), false, out.len() as u64));
        for (text, failed) in [
            (r#"{"id":7,"result":{"isError":true,"content":[]}}"#, true),
            (r#"{"id":7,"result":{"content":[{"isError":true}]}}"#, false),
            (r#"{"id":7,"error":{"code":1}}"#, true),
        ] {
            let end = pass(text.as_bytes(), &[]).unwrap().1;
            assert_eq!((end.id, end.failed), (Some(Id::number("7")), failed), "{text}");
        }
    }

    #[test]
    fn what_is_no_answer_stops() {
        for text in ["", "[]", "7", r#"{"id":1"#, r#"{"id":1}"#, r#"{"result":{},"error":{}}"#, r#"{"method":"ping"}"#]
        {
            assert!(matches!(pass(text.as_bytes(), &[]), Err((Stop::NotAnAnswer(_), _))), "{text}");
        }
        let deep = format!(r#"{{"result":{}"#, "[".repeat(10_000));
        assert!(matches!(pass(deep.as_bytes(), &[]), Err((Stop::NotAnAnswer(_), _))));
    }

    proptest! {
        /// However the bytes arrive, and wherever the token lies, no byte of it leaves.
        #[test]
        fn w04_no_part_of_a_token_passes(filler in 0usize..120_000, escaped: bool, cuts in proptest::collection::vec(0usize..250_000, 0..6)) {
            let token = format!("ghp_{}", "aB3d".repeat(9));
            let text = answer(filler, &format!(" {token} "));
            let text = if escaped { text.replace("ghp_", "\\u0067hp_") } else { text };
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (stop, out) = pass(text.as_bytes(), &cuts).unwrap_err();
            prop_assert!(matches!(stop, Stop::Secret(_)));
            prop_assert!(!String::from_utf8_lossy(&out).contains("hp_"));
        }

        #[test]
        fn any_cut_gives_the_same(text in "\\PC{0,40}", filler in 0usize..80_000, cut in 0usize..200_000) {
            let text = answer(filler, &text);
            prop_assert_eq!(pass(text.as_bytes(), &[cut]), pass(text.as_bytes(), &[]));
        }
    }
}
