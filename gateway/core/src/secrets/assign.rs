//! Generic assignments: `password = "…"`, `api_key: …`, `--token …`. A name that says secret, and a value that looks like one.
//!
//! This proves nothing, so it gives suspicions. What a build writes down, hashes, ids and versions, has to pass.

use super::random::{distinct, entropy, roughness};
use std::ops::Range;

/// What a name promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noun {
    /// Something that people make up.
    Password,
    /// Something that programs make.
    Token,
    /// The same, by a word that is used for much else.
    Key,
}

/// The words that start an assignment's name or stand in it.
pub(super) const NOUNS: [(&str, Noun); 13] = [
    ("pass", Noun::Password),
    ("pwd", Noun::Password),
    ("pswd", Noun::Password),
    ("secret", Noun::Token),
    ("token", Noun::Token),
    ("apikey", Noun::Token),
    ("credential", Noun::Token),
    ("auth", Noun::Token),
    ("access", Noun::Token),
    ("salt", Noun::Token),
    ("creds", Noun::Token),
    ("signature", Noun::Token),
    ("key", Noun::Key),
];

/// Words of a name that say that its value is none.
const HARMLESS: [&str; 60] = [
    "hash",
    "sha",
    "sha1",
    "sha256",
    "sha512",
    "md5",
    "digest",
    "checksum",
    "integrity",
    "fingerprint",
    "public",
    "pub",
    "commit",
    "etag",
    "cursor",
    "page",
    "next",
    "type",
    "expires",
    "expiry",
    "count",
    "limit",
    "name",
    "url",
    "uri",
    "path",
    "file",
    "filename",
    "dir",
    "format",
    "length",
    "size",
    "max",
    "min",
    "idempotency",
    "primary",
    "foreign",
    "cache",
    "object",
    "partition",
    "sort",
    "version",
    "at",
    "date",
    "time",
    "publishable",
    "author",
    "authority",
    "authors",
    "node",
    "ref",
    "sri",
    "label",
    "field",
    "column",
    "index",
    "metadata",
    "passenger",
    "passengers",
    "passed",
];

/// Texts that stand for a value.
const STAND_INS: [&str; 22] = [
    "placeholder",
    "example",
    "redacted",
    "dummy",
    "your_",
    "your-",
    "yourpass",
    "changeme",
    "change_me",
    "insert",
    "undefined",
    "os.environ",
    "process.env",
    "getenv",
    "env.",
    "secrets.",
    "config.",
    "settings.",
    "[secret:",
    "xxxxx",
    "*****",
    ".....",
];

/// The suspicious value that is assigned to the name around `noun`, if there is one. What is read of it is taken from `effort`.
pub(super) fn suspicious(text: &[u8], noun: Range<usize>, kind: Noun, effort: &mut usize) -> Option<Range<usize>> {
    // Most words are followed by nothing that could be a value, and that is seen at once.
    let end = noun.end + text[noun.end..].iter().take(30).take_while(|byte| is_name(**byte)).count();
    let (value, quoted, operator) = value_after(text, end)?;
    *effort = effort.saturating_sub(value.len() * READINGS);
    if !is_worth_it(&text[value.clone()]) {
        return None;
    }
    let before =
        text[noun.start.saturating_sub(40)..noun.start].iter().rev().take_while(|byte| is_name(**byte)).count();
    let name = noun.start - before..end;
    let words = words(&text[name.clone()]);
    // Within a hash or a key, any three letters stand somewhere.
    let is_inside = roughness(&text[name.clone()]) > 0.45
        || name
            .start
            .checked_sub(1)
            .is_some_and(|before| matches!(text[before], b'+' | b'/') && name.len() > noun.len() + 12);
    if is_inside {
        return None;
    }
    let said = words.iter().any(|word| says(word, kind));
    if !said || words.iter().any(|word| HARMLESS.contains(&word.as_str())) || ends_in_id(&words) {
        return None;
    }
    looks_secret(&text[value.clone()], kind, words.len(), quoted, operator).then_some(value)
}

/// How often a value is read until it is judged.
const READINGS: usize = 8;

/// Whether there is a letter and something else in a value that is long enough.
fn is_worth_it(value: &[u8]) -> bool {
    value.len() >= 6
        && value.iter().any(u8::is_ascii_alphabetic)
        && value.iter().any(|byte| !byte.is_ascii_alphabetic() && !byte.is_ascii_whitespace())
}

fn says(word: &str, kind: Noun) -> bool {
    match kind {
        Noun::Password => {
            (word.starts_with("pass")
                && !word.starts_with("passi")
                && !word.starts_with("passp")
                && !word.starts_with("passt"))
                || word == "passphrase"
                || word.contains("passw")
                || word.ends_with("pass")
                    && word.len() <= 10
                    && !["bypass", "compass", "surpass", "encompass"].contains(&word)
                || word.contains("pwd")
                || word.contains("pswd")
        }
        Noun::Token => {
            ["secret", "token", "apikey", "credential", "salt", "creds", "signature"]
                .iter()
                .any(|noun| word.contains(noun))
                || word == "auth"
                || word == "access"
                || word.ends_with("auth")
        }
        Noun::Key => {
            word == "key"
                || word.ends_with("key") && !["monkey", "turkey", "hotkey", "donkey", "passkey"].contains(&word)
        }
    }
}

/// `user_id` and the like name something, they do not prove it.
fn ends_in_id(words: &[String]) -> bool {
    words.last().is_some_and(|word| ["id", "ids", "kid", "guid", "uuid"].contains(&word.as_str()))
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// The words of `dbPassword`, `db_password`, `DB-PASSWORD`, in small letters.
fn words(name: &[u8]) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut before = b' ';
    for byte in name {
        let parts = !byte.is_ascii_alphanumeric() || byte.is_ascii_uppercase() && before.is_ascii_lowercase();
        if parts && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if byte.is_ascii_alphanumeric() {
            word.push(char::from(byte.to_ascii_lowercase()));
        }
        before = *byte;
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// How the value is joined to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `=`, `:`, `=>` and their kind.
    Assigns,
    /// `,`, `(`, `>`: of a call, or of markup.
    Follows,
    /// A space.
    None,
}

/// The value behind a name, whether it is quoted, and how it is joined.
pub(super) fn value_after(text: &[u8], name_end: usize) -> Option<(Range<usize>, bool, Operator)> {
    let mut at = name_end;
    let skip = |at: &mut usize, most: usize, set: &[u8]| {
        let count = text[*at..].iter().take(most).take_while(|byte| set.contains(byte)).count();
        *at += count;
        count
    };
    skip(&mut at, 4, b"\"'`\\])");
    let spaces = skip(&mut at, 4, b" \t");
    // `token string = …`, `token: str = …`
    if spaces > 0 || text.get(at) == Some(&b':') {
        let mut typed = at + usize::from(text.get(at) == Some(&b':'));
        skip(&mut typed, 2, b" &");
        let word = text[typed..].iter().take(20).take_while(|byte| byte.is_ascii_alphabetic()).count();
        let mut then = typed + word;
        skip(&mut then, 3, b" \t");
        if word > 1 && matches!(text.get(then..then + 1), Some(b"=")) {
            at = then;
        }
    }
    let start = at;
    skip(&mut at, 5, b"=:>,(|?.!+<- ");
    let operator = match &text[start..at] {
        used if used.iter().any(|byte| matches!(byte, b'=' | b':' | b'>')) => Operator::Assigns,
        used if used.iter().any(|byte| matches!(byte, b',' | b'(' | b'|')) => Operator::Follows,
        _ if spaces > 0 || at > start => Operator::None,
        _ => return None,
    };
    skip(&mut at, 12, b" \t\r\n");
    // `key="ClearTextPassword" value="…"`
    if text[at..].starts_with(b"value=") {
        at += 6;
    }
    let quotes = skip(&mut at, 6, b"\"'`\\([{");
    let quote =
        (quotes > 0).then(|| text[at - quotes..at].iter().rev().find(|byte| b"\"'`".contains(byte))).flatten().copied();
    let length = match quote {
        Some(quote) => text[at..].iter().take(VALUE_MAX).take_while(|byte| **byte != quote && **byte != b'\n').count(),
        None => {
            let ends = |byte: u8| byte.is_ascii_whitespace() || b"\"'`<>;,)]}&|".contains(&byte);
            text[at..].iter().take(VALUE_MAX).take_while(|byte| !ends(**byte)).count()
        }
    };
    let mut end = at + length;
    while end > at && matches!(text[end - 1], b'\\' | b'.' | b':') {
        end -= 1;
    }
    (end > at).then_some((at..end, quote.is_some(), operator))
}

/// No value is longer than this.
const VALUE_MAX: usize = 512;

fn looks_secret(value: &[u8], kind: Noun, words: usize, quoted: bool, operator: Operator) -> bool {
    if value.len() < 6 || stands_in(value) || is_named(value) {
        return false;
    }
    let count = |of: fn(&u8) -> bool| value.iter().filter(|byte| of(byte)).count();
    let (digits, letters) = (count(u8::is_ascii_digit), count(u8::is_ascii_alphabetic));
    let symbols = count(|byte| byte.is_ascii_punctuation() && !b"_-./:".contains(byte));
    let spaces = count(|byte| *byte == b' ');
    let joined = operator == Operator::Assigns || quoted && operator == Operator::Follows;
    let made_up = digits > 0 && letters > 1 || symbols > 0 && letters > 2;
    match kind {
        Noun::Password if joined => made_up && spaces * 6 <= value.len() && !is_number(value),
        Noun::Password => value.len() >= 8 && digits > 0 && letters > 1 && symbols > 0 && spaces == 0,
        _ => {
            let floor = match (kind, operator, quoted) {
                (Noun::Key, _, _) if words < 2 => 20,
                (_, Operator::None, _) => 16,
                _ => 10,
            };
            let varied = digits > 0 && letters > 1 || symbols > 1 && letters > 4;
            spaces == 0
                && value.len() >= floor
                && varied
                && entropy(value) >= 2.8
                && distinct(value) >= 6
                && (roughness(value) >= 0.28 || symbols > 2)
        }
    }
}

fn stands_in(value: &[u8]) -> bool {
    let small = value.to_ascii_lowercase();
    let text = String::from_utf8_lossy(&small);
    let variable = text.trim_start_matches(['$', '%', '@', '{', '(', '<', '#', '[']);
    STAND_INS.iter().any(|stand_in| text.contains(stand_in))
        || text.starts_with(['$', '%', '<', '@', '{', '['])
            && variable.bytes().take_while(|byte| is_name(*byte) || *byte == b' ').count() + 2 >= variable.len()
        || text.contains("()")
        || text.ends_with('(')
        || text.contains("://")
}

/// Ids and hashes that systems give out and that grant nothing: UUIDs, subresource integrity, `sha256:…`, versions, paths.
fn is_named(value: &[u8]) -> bool {
    let is_hex = |byte: &u8| byte.is_ascii_hexdigit();
    let uuid = value.len() == 36
        && value.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => is_hex(byte),
        });
    let prefixed = [&b"sha1-"[..], b"sha256-", b"sha384-", b"sha512-", b"sha256:", b"md5-", b"sha1:", b"pkg:", b"urn:"];
    let path = value.iter().filter(|byte| **byte == b'/').count() > 1 && roughness(value) < 0.4;
    uuid || prefixed.iter().any(|prefix| value.starts_with(prefix)) || path
}

/// A number, a date, a time, a version, an amount.
fn is_number(value: &[u8]) -> bool {
    value.iter().filter(|byte| byte.is_ascii_alphabetic()).count() <= 1
}
