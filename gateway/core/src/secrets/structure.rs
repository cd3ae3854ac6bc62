//! Secrets that are told by their structure: private keys, credentials in URIs and headers, values of a Kubernetes secret.

use super::random::{distinct, roughness};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::ops::Range;

/// What is looked for behind a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Structure {
    PrivateKey,
    PuttyKey,
    CredentialUri,
    BearerHeader,
    BasicHeader,
    UserOption,
    KubernetesSecret,
}

/// How a PEM block begins, in small letters.
pub(super) const PRIVATE_KEY: &str = "-----begin";

/// Each with the text by which it is found, in small letters.
pub(super) const TRIGGERS: [(&str, Structure); 11] = [
    (PRIVATE_KEY, Structure::PrivateKey),
    ("private-lines:", Structure::PuttyKey),
    ("://", Structure::CredentialUri),
    ("bearer", Structure::BearerHeader),
    ("basic ", Structure::BasicHeader),
    (" -u ", Structure::UserOption),
    (" --user ", Structure::UserOption),
    ("kind: secret", Structure::KubernetesSecret),
    ("kind: 'secret'", Structure::KubernetesSecret),
    ("kind: \"secret\"", Structure::KubernetesSecret),
    ("kind=secret\n", Structure::KubernetesSecret),
];

/// Where a value lies.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) span: Range<usize>,
    /// Whether it proves nothing alone.
    pub(super) is_weak: bool,
}

impl Structure {
    pub(super) fn id(self) -> &'static str {
        match self {
            Structure::PrivateKey | Structure::PuttyKey => "private_key",
            Structure::CredentialUri => "credential_uri",
            Structure::BearerHeader => "bearer_token",
            Structure::BasicHeader | Structure::UserOption => "basic_credentials",
            Structure::KubernetesSecret => "kubernetes_secret",
        }
    }

    /// The work of looking for it, in bytes read.
    pub(super) fn effort(self) -> usize {
        match self {
            Structure::CredentialUri => 64,
            Structure::PrivateKey | Structure::PuttyKey | Structure::UserOption | Structure::BasicHeader => 256,
            Structure::BearerHeader => 1024,
            Structure::KubernetesSecret => 4096,
        }
    }

    /// The secret at `trigger`, and whether the text ended before that was clear.
    pub(super) fn at(self, text: &[u8], trigger: Range<usize>) -> (Option<Found>, bool) {
        match self {
            Structure::PrivateKey => private_key(text, trigger.start),
            Structure::PuttyKey => until_end(text, lines_of_base64(text, trigger.end), trigger.end),
            Structure::CredentialUri => credential_uri(text, trigger),
            Structure::BearerHeader => bearer(text, trigger),
            Structure::BasicHeader => {
                let is_open = text[trigger.end..].iter().take(512).all(|byte| is_base64(*byte));
                (basic(text, trigger.end), is_open)
            }
            Structure::UserOption => {
                let is_open = text[trigger.end..].iter().take(256).all(|byte| !byte.is_ascii_whitespace());
                (user_option(text, trigger), is_open)
            }
            Structure::KubernetesSecret => (kubernetes(text, trigger.start), false),
        }
    }
}

/// With whether it, or what comes before it, goes on to the end of the text.
fn until_end(text: &[u8], value: Option<Range<usize>>, from: usize) -> (Option<Found>, bool) {
    let end = value.as_ref().map_or(from, |value| value.end);
    let is_open = text.len() - end < LABEL_MAX && !text[end..].contains(&b'\n');
    (value.map(found), is_open)
}

fn found(span: Range<usize>) -> Found {
    Found { span, is_weak: false }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

/// Bytes of a PEM block that are looked at ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468)).
const PEM_MAX: usize = 16 << 10;
/// Bytes of the line before a key.
const LABEL_MAX: usize = 80;
/// Characters of a key's body: with fewer it is an example.
const BODY_MIN: usize = 32;

fn private_key(text: &[u8], start: usize) -> (Option<Found>, bool) {
    let label_max = text.len().min(start + LABEL_MAX);
    let label = &text[start..label_max];
    let Some(dashes) = label.windows(5).skip(10).position(|dashes| dashes == b"-----").map(|at| at + 10) else {
        let is_label =
            label.iter().all(|byte| byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || *byte == b'-');
        return (None, label_max == text.len() && is_label);
    };
    let words: Vec<u8> = label[10..dashes].iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let words = words.to_ascii_uppercase();
    let ends = |word: &[u8]| words.ends_with(word);
    if !(ends(b"PRIVATEKEY") || ends(b"PRIVATEKEYBLOCK")) {
        return (None, false);
    }
    let body = start + dashes + 5;
    let limit = text.len().min(body + PEM_MAX);
    let end = text[body..limit].windows(5).position(|dashes| dashes == b"-----").map_or(limit, |at| body + at);
    // Headers, line breaks and their escapes are no part of the body.
    let characters: Vec<u8> = text[body..end].iter().filter(|byte| byte.is_ascii_alphanumeric()).copied().collect();
    let is_key = characters.len() >= BODY_MIN && distinct(&characters) >= 8;
    (is_key.then(|| found(start..end)), end == text.len())
}

/// Lines of base64 from `start` on.
fn lines_of_base64(text: &[u8], start: usize) -> Option<Range<usize>> {
    let first = text[start..].iter().take(LABEL_MAX).position(|byte| *byte == b'\n').map(|at| start + at + 1)?;
    let length =
        text[first..].iter().take(PEM_MAX).take_while(|byte| is_base64(**byte) || byte.is_ascii_whitespace()).count();
    (length >= BODY_MIN).then_some(first..first + length)
}

/// `SCHEME://USER:PASSWORD@HOST` ([RFC 3986 §3.2.1](https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1)).
fn credential_uri(text: &[u8], separator: Range<usize>) -> (Option<Found>, bool) {
    let is_scheme = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+.-".contains(byte);
    let scheme = text[..separator.start].iter().rev().take(24).take_while(is_scheme).count();
    if scheme < 2 {
        return (None, false);
    }
    let authority = separator.end;
    let rest = &text[authority..text.len().min(authority + 512)];
    let ends = |byte: u8| byte.is_ascii_whitespace() || b"\"'`<>".contains(&byte);
    if !rest.contains(&b'@') {
        return (None, authority + rest.len() == text.len() && may_have_password(rest));
    }
    let whole = rest.iter().position(|byte| ends(*byte)).unwrap_or(rest.len());
    let is_open = authority + whole == text.len();
    // A password may hold a `/` or an `@` that nobody encoded: the last `@` before a path counts, else the last one.
    let path = rest[..whole].iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(whole);
    let at = rest[..path].iter().rposition(|byte| *byte == b'@');
    let at =
        at.or_else(|| rest[..whole].iter().rposition(|byte| *byte == b'@').filter(|at| has_host(&rest[at + 1..whole])));
    let Some(at) = at else { return (None, is_open) };
    let Some(colon) = rest[..at].iter().position(|byte| *byte == b':') else {
        // A token alone, as in `https://TOKEN@host`.
        let is_token = at >= 20 && roughness(&rest[..at]) >= 0.4 && rest[..at].iter().all(|byte| is_base64(*byte));
        return (is_token.then(|| found(authority..authority + at)), is_open);
    };
    let (user, password) = (&rest[..colon], &rest[colon + 1..at]);
    if user.contains(&b'/') || password.len() < 3 || stands_in(password) {
        return (None, is_open);
    }
    (Some(found(authority + colon + 1..authority + at)), is_open)
}

/// Whether what comes next can make a password of this. A path ends an address without one; what is no port may be one, and then
/// it may hold a `/` that nobody encoded.
fn may_have_password(rest: &[u8]) -> bool {
    if rest.iter().any(|byte| byte.is_ascii_whitespace() || b"\"'`<>".contains(byte)) {
        return false;
    }
    let authority = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let after_user = rest[..authority].iter().position(|byte| *byte == b':').map(|colon| &rest[colon + 1..authority]);
    authority == rest.len() || after_user.is_some_and(|port| !port.iter().all(u8::is_ascii_digit))
}

fn has_host(after: &[u8]) -> bool {
    let host = after.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte)).count();
    host >= 3 && (after[..host].contains(&b'.') || after.get(host) == Some(&b':') || after[..host] == *b"localhost")
}

/// `****`, `${PASSWORD}`, `<password>`, `[secret:…]`: nothing stands there.
fn stands_in(value: &[u8]) -> bool {
    let is_name =
        |name: &[u8]| name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-<>{}[]()$*.:/@ ".contains(byte));
    let is_constant =
        |name: &[u8]| name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
    let is_variable = match value {
        [b'$', b'{', name @ .., b'}'] | [b'$', b'(', name @ .., b')'] => is_name(name),
        [b'<', name @ .., b'>'] | [b'{', name @ .., b'}'] | [b'[', name @ .., b']'] | [b'%', name @ .., b'%'] => {
            is_name(name)
        }
        [b'$', name @ ..] => is_constant(name),
        _ => false,
    };
    distinct(value) == 1
        || is_variable
        || [&b"password"[..], b"pass", b"pwd", b"secret", b"token", b"xxx", b"..."]
            .contains(&&value.to_ascii_lowercase()[..])
}

/// A header's credentials ([RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1)).
fn bearer(text: &[u8], trigger: Range<usize>) -> (Option<Found>, bool) {
    let mut start = trigger.end;
    while start < text.len().min(trigger.end + 6) && b" :=\"'\\".contains(&text[start]) {
        start += 1;
    }
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    let length = text[start..].iter().take(2048).take_while(|byte| is_token(byte)).count();
    let value = &text[start..start + length];
    let is_open = start + length == text.len();
    let digits = value.iter().any(u8::is_ascii_digit);
    let is_random = start > trigger.end && length >= 16 && digits && roughness(value) >= 0.35 && distinct(value) >= 8;
    (is_random.then(|| Found { span: start..start + length, is_weak: length < 20 }), is_open)
}

/// `USER:PASSWORD` in base64 ([RFC 7617 §2](https://www.rfc-editor.org/rfc/rfc7617#section-2)).
fn basic(text: &[u8], start: usize) -> Option<Found> {
    let length = text[start..].iter().take(512).take_while(|byte| is_base64(**byte)).count();
    let decoded = STANDARD.decode(&text[start..start + length]).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let printable = decoded.iter().all(|byte| (b' '..=b'~').contains(byte));
    let has_password = decoded.len() - colon > 3 && !stands_in(&decoded[colon + 1..]);
    (printable && has_password).then(|| found(start..start + length))
}

/// `curl -u USER:PASSWORD`.
fn user_option(text: &[u8], trigger: Range<usize>) -> Option<Found> {
    let before = text[trigger.start.saturating_sub(200)..trigger.start].to_ascii_lowercase();
    // A command goes on behind a backslash at the end of its line.
    let line = before
        .iter()
        .enumerate()
        .rev()
        .find(|(at, byte)| **byte == b'\n' && !before[..*at].trim_ascii_end().ends_with(b"\\"));
    let line = &before[line.map_or(0, |(at, _)| at)..];
    if !line.windows(4).any(|word| word == b"curl" || word == b"wget") {
        return None;
    }
    let start = trigger.end + text[trigger.end..].iter().take(4).take_while(|byte| b" \"'".contains(byte)).count();
    let length = text[start..].iter().take(256).take_while(|byte| !byte.is_ascii_whitespace()).count();
    let value = text[start..start + length].trim_ascii();
    let colon = value.iter().position(|byte| *byte == b':')?;
    let quotes = |byte: &&u8| b"\"'\\".contains(byte);
    let first = colon + 1 + value[colon + 1..].iter().take_while(quotes).count();
    let last = value.len() - value[first..].iter().rev().take_while(quotes).count();
    let (user, password) = (&value[..colon], &value[first..last]);
    let is_there = password.len() >= 4 && password != user && !stands_in(password);
    is_there.then(|| found(start + first..start + last))
}

/// How far a manifest is looked at.
const MANIFEST_MAX: usize = 2048;

/// The first value of `data` in a manifest: base64 that is no template.
fn kubernetes(text: &[u8], kind: usize) -> Option<Found> {
    let (first, last) = (kind.saturating_sub(MANIFEST_MAX), text.len().min(kind + MANIFEST_MAX));
    let around = &text[first..last];
    let data = around
        .windows(5)
        .position(|word| word.eq_ignore_ascii_case(b"data:") || word.eq_ignore_ascii_case(b"data\""))?;
    let mut at = data + 5;
    while let Some(colon) = around[at..].iter().position(|byte| *byte == b':') {
        let start = at + colon + 1;
        let skipped = around[start..].iter().take(8).take_while(|byte| b" \"'\n|-".contains(byte)).count();
        let value = start + skipped;
        let length = around[value..].iter().take(4096).take_while(|byte| is_base64(**byte)).count();
        let text = &around[value..value + length];
        if length >= 10 && length % 4 == 0 && STANDARD.decode(text).is_ok() && roughness(text) >= 0.2 {
            return Some(Found { span: first + value..first + value + length, is_weak: true });
        }
        at = start;
    }
    None
}
