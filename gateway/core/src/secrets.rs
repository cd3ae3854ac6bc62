//! The no-secret fact: token formats found in decoded strings.
//!
//! Scanning looks at strings as they are after JSON is unescaped, member names included, never at wire bytes: there a
//! `\u0067hp_…` would pass. A finding keeps its format and its place and never the value.

use crate::json::{Json, push_pointer};
use crate::mac::MacKey;
use regex::{Regex, RegexSet};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

/// A secret value, by what and where it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// The token format, for example `github_token`.
    pub format: String,
    /// JSON pointer of the string. Masked, since a member's name can be a secret as well.
    pub at: String,
}

/// A published token format.
struct Format {
    name: &'static str,
    /// Facts of the provider's documentation: prefix, alphabet, length.
    pattern: &'static str,
}

const FORMATS: [Format; 19] = [
    Format { name: "aws_access_key_id", pattern: r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b" },
    Format { name: "github_token", pattern: r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b" },
    Format { name: "github_fine_grained_token", pattern: r"\bgithub_pat_[A-Za-z0-9_]{60,255}\b" },
    Format { name: "gitlab_token", pattern: r"\bglpat-[A-Za-z0-9_\-]{20,}" },
    Format { name: "anthropic_key", pattern: r"\bsk-ant-[a-z0-9]{3,8}-[A-Za-z0-9_\-]{24,}" },
    Format {
        name: "openai_key",
        pattern: r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_\-]{32,}|\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}\b|\bsk-[A-Za-z0-9]{48}\b",
    },
    Format { name: "slack_token", pattern: r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}" },
    Format {
        name: "slack_webhook",
        pattern: r"hooks\.slack\.com/(?:services|workflows)/T[A-Za-z0-9]{6,}/[A-Za-z0-9/]{16,}",
    },
    Format { name: "google_api_key", pattern: r"\bAIza[A-Za-z0-9_\-]{35}" },
    Format { name: "stripe_key", pattern: r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}" },
    Format { name: "npm_token", pattern: r"\bnpm_[A-Za-z0-9]{36}\b" },
    Format { name: "pypi_token", pattern: r"\bpypi-[A-Za-z0-9_\-]{50,}" },
    Format { name: "sendgrid_key", pattern: r"\bSG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}" },
    Format { name: "huggingface_token", pattern: r"\bhf_[A-Za-z]{34}\b" },
    Format { name: "digitalocean_token", pattern: r"\bdo[opr]_v1_[a-f0-9]{64}\b" },
    Format { name: "json_web_token", pattern: r"\beyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{16,}" },
    Format {
        name: "private_key",
        pattern: r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?s:.{32,}?)(?:-----END|\z)",
    },
    Format { name: "warden_token", pattern: r"\bwd[no]_[a-f0-9]{64}\b" },
    Format {
        name: "credential_uri",
        pattern: r"\b[a-z][a-z0-9+.\-]{1,24}://[^\s/:@\x22']{1,64}:[^\s/@\x22'$\{<*]{4,}@[A-Za-z0-9.\-]+",
    },
];

/// Every format has one of these texts in it. Looking for them alone is many times faster, and most texts have none.
const HINTS: &str = r"AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|glpat-|sk-|xox|hooks\.slack\.com|AIza|[sr]k_live_|[sr]k_test_|npm_|pypi-|SG\.|hf_|do[opr]_v1_|eyJ|-----BEGIN|wd[no]_|://";

struct Compiled {
    hint: Regex,
    any: RegexSet,
    each: Vec<Regex>,
}

#[expect(clippy::expect_used, reason = "the patterns are constants, and a test compiles them")]
static COMPILED: LazyLock<Compiled> = LazyLock::new(|| Compiled {
    hint: Regex::new(HINTS).expect("the hints compile"),
    any: RegexSet::new(FORMATS.iter().map(|format| format.pattern)).expect("formats compile"),
    each: FORMATS.iter().map(|format| Regex::new(format.pattern).expect("a format compiles")).collect(),
});

/// Compiles the formats now, so that the first proposal does not pay for it.
pub fn prepare() {
    LazyLock::force(&COMPILED);
}

/// The names of the formats that are found.
pub fn formats() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|format| format.name)
}

/// Findings that are told of one value.
const FINDINGS_MAX: usize = 64;
/// Bytes of a finding's pointer; a member's name can be very long.
const POINTER_MAX: usize = 256;

/// Every secret in the strings and member names of `json`. `at` is where `json` stands.
pub fn scan(json: &Json, at: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    json.each_string(&mut at.to_owned(), &mut |pointer, text| {
        each(text, |format, _| {
            // Enough to refuse and to show; a message may hold very many.
            if findings.len() == FINDINGS_MAX {
                return;
            }
            findings.push(Finding { format: format.to_owned(), at: hide_pointer(pointer) });
        });
    });
    findings
}

/// The first format that is found in `text`.
pub fn first(text: &str) -> Option<&'static str> {
    if !COMPILED.hint.is_match(text) {
        return None;
    }
    COMPILED.any.matches(text).iter().next().map(|index| FORMATS[index].name)
}

/// `text` with each secret replaced by its format and keyed tag, for everything that is written down.
pub fn mask<'t>(text: &'t str, key: &MacKey) -> Cow<'t, str> {
    replace(text, |format, value| format!("[secret:{format}:{}]", key.tag(value.as_bytes())))
}

/// `text` with each secret replaced by its format.
pub fn hide(text: &str) -> Cow<'_, str> {
    replace(text, |format, _| format!("[secret:{format}]"))
}

/// A JSON pointer with each secret among its member names replaced by its format. Names are looked at unescaped: a `/` in
/// one stands as `~1` in the pointer.
pub fn hide_pointer(pointer: &str) -> String {
    let mut hidden = String::with_capacity(pointer.len());
    for step in pointer.split('/').skip(1) {
        if hidden.len() + step.len() > POINTER_MAX {
            hidden.push_str("/…");
            break;
        }
        push_pointer(&mut hidden, &hide(&step.replace("~1", "/").replace("~0", "~")));
    }
    hidden
}

fn replace(text: &str, with: impl Fn(&'static str, &str) -> String) -> Cow<'_, str> {
    let mut spans: Vec<(Range<usize>, &'static str)> = Vec::new();
    each(text, |format, span| spans.push((span, format)));
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    spans.sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
    let (mut masked, mut done) = (String::with_capacity(text.len()), 0);
    for (span, format) in spans {
        // Of overlapping findings the later ones still hide what the first left over.
        if span.end > done {
            let start = span.start.max(done);
            masked.push_str(&text[done..start]);
            masked.push_str(&with(format, &text[start..span.end]));
            done = span.end;
        }
    }
    masked.push_str(&text[done..]);
    Cow::Owned(masked)
}

fn each(text: &str, mut found: impl FnMut(&'static str, Range<usize>)) {
    if !COMPILED.hint.is_match(text) {
        return;
    }
    for index in COMPILED.any.matches(text) {
        for hit in COMPILED.each[index].find_iter(text) {
            found(FORMATS[index].name, hit.range());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made at run time, so that no scanner of this repository finds a token in it.
    fn example(format: &str) -> String {
        let a = |n: usize| "aB3dE5gH7jK9mN1p".chars().cycle().take(n).collect::<String>();
        match format {
            "aws_access_key_id" => format!("AKIA{}", "QRSTUVWXYZ234567"),
            "github_token" => format!("ghp_{}", a(36)),
            "github_fine_grained_token" => format!("github_pat_{}", a(82)),
            "gitlab_token" => format!("glpat-{}", a(20)),
            "anthropic_key" => format!("sk-ant-api03-{}", a(90)),
            "openai_key" => format!("sk-proj-{}", a(60)),
            "slack_token" => format!("xoxb-{}-{}", "123456789012", a(24)),
            "slack_webhook" => format!("hooks.slack.com/services/T{}/B{}/{}", "0AB1CD2EF", "0AB1CD2EF", a(24)),
            "google_api_key" => format!("AIza{}", a(35)),
            "stripe_key" => format!("sk_live_{}", a(24)),
            "npm_token" => format!("npm_{}", a(36)),
            "pypi_token" => format!("pypi-{}", a(60)),
            "sendgrid_key" => format!("SG.{}.{}", a(22), a(43)),
            "huggingface_token" => format!("hf_{}", "abCDefGHij".repeat(4).chars().take(34).collect::<String>()),
            "digitalocean_token" => format!("dop_v1_{}", "0123456789abcdef".repeat(4)),
            "json_web_token" => format!("eyJ{}.eyJ{}.{}", a(20), a(30), a(43)),
            "private_key" => format!("-----BEGIN RSA {} KEY-----\n{}\n-----END", "PRIVATE", a(64)),
            "warden_token" => format!("wdn_{}", "0123456789abcdef".repeat(4)),
            "credential_uri" => format!("postgres://app:{}@db.example", a(12)),
            other => panic!("no example of `{other}`"),
        }
    }

    fn found(text: &str) -> Vec<String> {
        scan(&Json::String(text.into()), "").into_iter().map(|f| f.format).collect()
    }

    #[test]
    fn every_format_is_found_and_its_near_miss_is_not() {
        for format in formats() {
            let secret = example(format);
            assert!(found(&format!("use {secret} now")).contains(&format.to_owned()), "{format}");
            let short: String = secret.chars().take(9).collect();
            assert!(found(&short).is_empty(), "{format}: {short}");
        }
    }

    #[test]
    fn x09_escapes_and_member_names_hide_nothing() {
        let token = example("github_token");
        let escaped: String = token.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        let json = crate::json::parse(
            format!(r#"{{"a":["{escaped}"],"{token}":1}}"#).as_bytes(),
            crate::json::Limits::default(),
        )
        .unwrap();
        let findings = scan(&json, "/params");
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[0].at, "/params/a/0");
        assert!(!findings[1].at.contains(&token));
    }

    #[test]
    fn w04_a_member_name_with_a_slash_is_hidden_in_pointers_too() {
        let secret = example("credential_uri");
        let json = Json::Object(vec![(secret.clone(), Json::String(secret))]);
        let findings = scan(&json, "/params");
        assert_eq!(findings.len(), 2);
        assert!(findings.iter().all(|f| f.at == "/params/[secret:credential_uri]"), "{findings:?}");
        assert_eq!(hide_pointer("/a~1b/c~0d"), "/a~1b/c~0d");
    }

    #[test]
    fn ordinary_text_is_not_a_secret() {
        for text in [
            "https://example.com:8080/a@b",
            "sk-learn",
            "-----BEGIN PUBLIC KEY-----",
            "git@github.com:a/b.git",
            "http://user:${PASSWORD}@host",
            "the AKIA prefix",
            "eyJhbGciOiJIUzI1NiJ9",
        ] {
            assert_eq!(found(text), Vec::<String>::new(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn w04_masking_leaves_nothing_to_find(parts in prop::collection::vec((0..FORMATS.len(), "[ a-z:/\"]{0,12}"), 1..5)) {
            let text: String = parts.iter().map(|(i, gap)| format!("{gap} {} ", example(FORMATS[*i].name))).collect();
            let masked = mask(&text, &MacKey::new("t", [7; 32])).into_owned();
            for (i, _) in &parts {
                prop_assert!(!masked.contains(&example(FORMATS[*i].name)), "{} is left in {masked}", FORMATS[*i].name);
            }
        }
    }
}
