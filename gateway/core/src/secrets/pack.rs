//! Rule packs of operators: expressions with keywords, as gitleaks writes them.

use super::random::entropy;
use regex::bytes::{Regex, RegexBuilder};
use std::ops::Range;

/// A rule as a pack has it.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its id, for example `internal-api-key`.
    pub id: String,
    /// The expression.
    pub regex: String,
    /// Texts of which one stands in whatever it matches; case does not count.
    pub keywords: Vec<String>,
    /// Least Shannon entropy of the value, in bits a byte.
    pub entropy: Option<f32>,
    /// The group that is the value. 0 is the first group that took part, or all.
    pub secret_group: usize,
    /// Expressions for values that are none.
    pub allowed: Vec<String>,
    /// Texts which a value that is none holds, in small letters.
    pub stopwords: Vec<String>,
    /// Whether what it matches proves nothing.
    pub is_weak: bool,
}

/// Why a rule cannot be used. Says nothing of the expression: it may hold a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not an expression.
    #[error("its expression cannot be read")]
    Syntax,
    /// It would need too much memory.
    #[error("its expression is too large once its repetitions are written out")]
    TooLarge,
    /// An id of nothing.
    #[error("it has no id, or one longer than 128 bytes")]
    Id,
}

/// Memory of one compiled expression, in bytes.
const SIZE_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) id: String,
    pub(super) is_weak: bool,
    pub(super) keywords: Vec<String>,
    regex: Regex,
    entropy: f32,
    group: usize,
    allowed: Vec<Regex>,
    stopwords: Vec<String>,
}

impl Compiled {
    pub(super) fn new(rule: &Rule) -> Result<Self, Broken> {
        if rule.id.is_empty() || rule.id.len() > 128 {
            return Err(Broken::Id);
        }
        let compile = |text: &str| {
            let build = |text: &str| RegexBuilder::new(text).unicode(false).size_limit(SIZE_MAX).build();
            // Go reads a `{` that begins no repetition as itself.
            build(text).or_else(|first| build(&braces_escaped(text)).map_err(|_| first)).map_err(|e| match e {
                regex::Error::CompiledTooBig(_) => Broken::TooLarge,
                _ => Broken::Syntax,
            })
        };
        Ok(Self {
            id: rule.id.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
            is_weak: rule.is_weak,
            keywords: rule.keywords.iter().map(|word| word.to_lowercase()).filter(|word| !word.is_empty()).collect(),
            regex: compile(&rule.regex)?,
            entropy: rule.entropy.unwrap_or(0.0),
            group: rule.secret_group,
            allowed: rule.allowed.iter().map(|text| compile(text)).collect::<Result<_, _>>()?,
            stopwords: rule.stopwords.iter().map(|word| word.to_lowercase()).collect(),
        })
    }

    /// Calls `found` with the place of each value.
    pub(super) fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        for groups in self.regex.captures_iter(text) {
            let taken = match self.group {
                0 => (1..groups.len()).find_map(|at| groups.get(at)).filter(|group| !group.is_empty()),
                at => groups.get(at),
            };
            let Some(value) = taken.or_else(|| groups.get(0)) else { continue };
            let small = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
            let is_none = entropy(value.as_bytes()) <= self.entropy && self.entropy > 0.0
                || self.allowed.iter().any(|allowed| allowed.is_match(value.as_bytes()))
                || self.stopwords.iter().any(|word| small.contains(word.as_str()));
            if !is_none && !value.is_empty() {
                found(value.range());
            }
        }
    }
}

fn braces_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    let mut backslash = false;
    for (at, c) in text.char_indices() {
        let counts = || {
            let inner = text[at + 1..].split('}').next().unwrap_or_default();
            !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_digit() || byte == b',')
        };
        if c == '{' && !backslash && !counts() && !text[..at].ends_with(['p', 'P', 'x']) {
            escaped.push('\\');
        }
        backslash = c == '\\' && !backslash;
        escaped.push(c);
    }
    escaped
}
