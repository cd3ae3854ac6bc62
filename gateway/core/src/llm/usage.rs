//! What a call has used, as the provider says it.

use super::Api;
use crate::amount::Usage;
use crate::json::Json;

/// The usage that an answer, or an event of one, tells. Nothing when it tells none, or one that cannot be: a negative count, or no
/// token at all.
pub fn read(api: Api, body: &Json) -> Option<Usage> {
    let usage = match api {
        Api::Chat => openai(body.get("usage")?, ["prompt_tokens", "completion_tokens", "prompt_tokens_details"]),
        Api::Responses => {
            let usage = body.get("usage").or_else(|| body.get("response")?.get("usage"))?;
            openai(usage, ["input_tokens", "output_tokens", "input_tokens_details"])
        }
        Api::Messages => {
            let usage = body.get("usage").or_else(|| body.get("message")?.get("usage"))?;
            let (read, written) =
                (count(usage, "cache_read_input_tokens")?, count(usage, "cache_creation_input_tokens")?);
            Some(Usage {
                input: count(usage, "input_tokens")?.saturating_add(read).saturating_add(written),
                cached: read,
                cache_written: written,
                output: count(usage, "output_tokens")?,
            })
        }
        Api::Gemini => {
            if let Json::Array(answers) = body {
                return answers
                    .iter()
                    .filter_map(|answer| read(api, answer))
                    .fold(None, |all, now| Some(later(all, now)));
            }
            let usage = body.get("usageMetadata")?;
            let input = count(usage, "promptTokenCount")?.saturating_add(count(usage, "toolUsePromptTokenCount")?);
            let output = count(usage, "candidatesTokenCount")?.saturating_add(count(usage, "thoughtsTokenCount")?);
            Some(Usage { input, cached: count(usage, "cachedContentTokenCount")?, cache_written: 0, output })
        }
        Api::Execute => {
            let usage = body.get("usage")?;
            let of = |names: [&'static str; 2]| {
                let name = names.into_iter().find(|name| usage.get(name).is_some());
                name.map_or(Some(0), |name| count(usage, name))
            };
            let input = of(["input_tokens", "prompt_tokens"])?;
            let output = of(["output_tokens", "completion_tokens"])?;
            Some(Usage { input, output, ..Usage::default() })
        }
    };
    usage.filter(|usage| usage.tokens() > 0)
}

/// What a later event says beside what earlier ones did: counts are of the whole answer, and some events leave some out.
pub fn later(before: Option<Usage>, now: Usage) -> Usage {
    let before = before.unwrap_or_default();
    Usage {
        input: now.input.max(before.input),
        cached: now.cached.max(before.cached),
        cache_written: now.cache_written.max(before.cache_written),
        output: now.output.max(before.output),
    }
}

fn openai(usage: &Json, [input, output, details]: [&str; 3]) -> Option<Usage> {
    let cached = usage.get(details).map_or(Some(0), |details| count(details, "cached_tokens"))?;
    Some(Usage { input: count(usage, input)?, cached, cache_written: 0, output: count(usage, output)? })
}

/// A count; none is 0, and what is no count makes the whole unbelievable.
fn count(usage: &Json, name: &str) -> Option<u64> {
    match usage.get(name) {
        None | Some(Json::Null) => Some(0),
        Some(Json::Number(text)) => text.parse().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Limits, parse};

    fn of(api: Api, text: &str) -> Option<(u64, u64, u64, u64)> {
        let usage = read(api, &parse(text.as_bytes(), Limits::default()).unwrap())?;
        Some((usage.input, usage.cached, usage.cache_written, usage.output))
    }

    #[test]
    fn each_api_tells_it_in_its_own_way() {
        let chat = r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#;
        assert_eq!(of(Api::Chat, chat), Some((9, 4, 0, 3)));
        assert_eq!(
            of(Api::Responses, r#"{"response":{"usage":{"input_tokens":9,"output_tokens":3}}}"#),
            Some((9, 0, 0, 3))
        );
        let messages = r#"{"message":{"usage":{"input_tokens":9,"cache_read_input_tokens":5,"cache_creation_input_tokens":2,"output_tokens":1}}}"#;
        assert_eq!(of(Api::Messages, messages), Some((16, 5, 2, 1)));
        let gemini = r#"{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":3,"thoughtsTokenCount":2}}"#;
        assert_eq!(of(Api::Gemini, gemini), Some((9, 0, 0, 5)));
        assert_eq!(of(Api::Gemini, &format!("[{{}},{gemini}]")), Some((9, 0, 0, 5)), "an array of answers");
        assert_eq!(
            of(Api::Execute, r#"{"content":"x","usage":{"prompt_tokens":1,"completion_tokens":2}}"#),
            Some((1, 0, 0, 2))
        );
    }

    #[test]
    fn s3_26_a_count_that_cannot_be_is_none() {
        for text in [
            r#"{"usage":{"prompt_tokens":-9,"completion_tokens":3}}"#,
            r#"{"usage":{"prompt_tokens":1.5,"completion_tokens":3}}"#,
            r#"{"usage":{"prompt_tokens":"9","completion_tokens":3}}"#,
            r#"{"usage":{"prompt_tokens":99999999999999999999999,"completion_tokens":3}}"#,
            r#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
            r#"{"usage":null}"#,
            r#"{"usage":"much"}"#,
            "{}",
        ] {
            assert_eq!(of(Api::Chat, text), None, "{text}");
        }
    }

    #[test]
    fn later_events_add_to_what_earlier_ones_said() {
        let first = Usage { input: 9, output: 1, ..Usage::default() };
        let last = Usage { input: 0, output: 30, ..Usage::default() };
        assert_eq!(later(Some(first), last), Usage { input: 9, output: 30, ..Usage::default() });
    }
}
