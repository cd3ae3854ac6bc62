//! A plan in what a model said: in a fence or not, with prose around it. Whatever is doubtful is no plan.

use super::plan::Draft;
use crate::json::{self, Json, Limits};

/// Longer answers hold no plan.
const ANSWER_MAX: usize = 256 << 10;
const LIMITS: Limits = Limits { bytes_max: ANSWER_MAX, depth_max: 16 };
/// How many beginnings are looked at.
const TRIES_MAX: usize = 256;

/// The first whole JSON object of `text` that has the shape of a plan: with `actions`, or with `escalate`.
pub fn extract(text: &str) -> Option<Draft> {
    if text.len() > ANSWER_MAX {
        return None;
    }
    let mut from = 0;
    for _ in 0..TRIES_MAX {
        let start = from + text.get(from..)?.find('{')?;
        let whole = balanced(&text[start..]);
        let read = whole.and_then(|whole| json::parse(whole.as_bytes(), LIMITS).ok());
        if let Some(draft) = read.as_ref().and_then(draft) {
            return Some(draft);
        }
        // What is an object and no plan may stand beside one, never inside of one.
        from = match (whole, read) {
            (Some(whole), Some(_)) => start + whole.len(),
            _ => start + 1,
        };
    }
    None
}

fn draft(json: &Json) -> Option<Draft> {
    let actions = match json.get("actions") {
        Some(Json::Array(actions)) => actions.clone(),
        Some(_) => return None,
        None => Vec::new(),
    };
    let escalate = json.get("escalate");
    if json.get("actions").is_none() && escalate.is_none() {
        return None;
    }
    // Whatever is not a plain no is a yes.
    let escalate = !matches!(escalate, None | Some(Json::Bool(false) | Json::Null));
    let reason = json.get("reason").and_then(Json::as_str).unwrap_or_default().to_owned();
    Some(Draft { actions, escalate, reason })
}

/// As much of `text`, which begins with `{`, as closes all that it opens, strings aside.
fn balanced(text: &str) -> Option<&str> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return text.get(..=at);
                }
            }
            _ => {}
        }
    }
    None
}
