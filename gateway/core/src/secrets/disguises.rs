//! A text in each disguise of the product's promise, for tests here and of the whole gateway.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

/// The disguises of the product's promise, each of one text.
pub(crate) fn disguises(text: &str) -> Vec<(&'static str, serde_json::Value)> {
    let in_json = json!({ "a": { "b": [text] } }).to_string();
    let escaped: String = text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let wide: String = text
        .chars()
        .map(|c| match u32::from(c) {
            code @ 0x21..=0x7e => char::from_u32(code + 0xfee0).unwrap(),
            _ => c,
        })
        .collect();
    let alike: String = text
        .chars()
        .map(|c| match c {
            'a' => 'а',
            'c' => 'с',
            'e' => 'е',
            'o' => 'о',
            'p' => 'р',
            'x' => 'х',
            'y' => 'у',
            'A' => 'А',
            'B' => 'В',
            'E' => 'Е',
            'K' => 'К',
            'M' => 'М',
            'H' => 'Н',
            'O' => 'О',
            'P' => 'Р',
            'C' => 'С',
            'T' => 'Т',
            c => c,
        })
        .collect();
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap();
    let spaced: String = text.chars().flat_map(|c| [c, ' ']).collect();
    vec![
        ("plain", json!({ "text": text })),
        ("in a sentence", json!([format!("please use {text} for it")])),
        ("json", json!({ "text": in_json })),
        ("json twice", json!({ "text": json!({ "x": in_json }).to_string() })),
        ("json and escapes", json!({ "text": format!("{{\"a\": \"{escaped}\"}}") })),
        ("base64", json!({ "text": STANDARD.encode(text) })),
        ("base64url", json!({ "text": URL_SAFE_NO_PAD.encode(text) })),
        ("base64 twice", json!({ "text": STANDARD.encode(STANDARD.encode(text)) })),
        (
            "base64 in a sentence",
            json!({ "text": format!("it is {} there", STANDARD.encode(format!("see {text} !"))) }),
        ),
        ("hex", json!({ "text": text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>() })),
        ("percent", json!({ "text": text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>() })),
        ("escapes", json!({ "text": escaped })),
        ("zero width", json!({ "text": text.chars().flat_map(|c| [c, '\u{200b}']).collect::<String>() })),
        ("full width", json!({ "text": wide })),
        ("lookalikes", json!({ "text": alike })),
        ("spaces", json!({ "text": spaced })),
        (
            "lines",
            json!({ "text": text.as_bytes().chunks(6).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n  ") }),
        ),
        ("adjacent strings", json!({ "parts": [&text[..middle], &text[middle..]] })),
        ("backwards", json!({ "text": text.chars().rev().collect::<String>() })),
    ]
}
