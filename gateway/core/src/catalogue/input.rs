//! Arguments made visible to policy: a JSON value read by its [`Ty`], exactly or not at all.

use super::ty::{Extra, Kind, Ty};
use crate::json::{Json, push_pointer};
use cedar_policy::RestrictedExpression as Expression;
use serde_json::Value;

/// Why arguments are refused: a stable reason code, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The tool's schema does not know it.
    #[error("argument `{0}` is not declared by the tool's schema")]
    Undeclared(String),
    /// The tool's schema requires it.
    #[error("argument `{0}` is missing")]
    Missing(String),
    /// Of another type than the schema says.
    #[error("argument `{0}` is not of the declared type")]
    WrongType(String),
    /// A number that Cedar cannot hold exactly: 64-bit integers, decimals with four digits.
    #[error("number `{0}` cannot be represented exactly")]
    OutOfRange(String),
    /// Not among the texts the schema lists.
    #[error("argument `{0}` is not one of the declared values")]
    NotInEnum(String),
}

impl Refusal {
    /// The same with its pointer rewritten.
    #[must_use]
    pub fn with_pointer(self, rewrite: impl Fn(&str) -> String) -> Self {
        match self {
            Refusal::Undeclared(at) => Refusal::Undeclared(rewrite(&at)),
            Refusal::Missing(at) => Refusal::Missing(rewrite(&at)),
            Refusal::WrongType(at) => Refusal::WrongType(rewrite(&at)),
            Refusal::OutOfRange(at) => Refusal::OutOfRange(rewrite(&at)),
            Refusal::NotInEnum(at) => Refusal::NotInEnum(rewrite(&at)),
        }
    }

    /// The reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Undeclared(_) => "argument_undeclared",
            Refusal::Missing(_) => "argument_missing",
            Refusal::WrongType(_) => "argument_wrong_type",
            Refusal::OutOfRange(_) => "argument_out_of_range",
            Refusal::NotInEnum(_) => "argument_not_in_enum",
        }
    }
}

/// Arguments as policy sees them, as the record keeps them, and what neither shows.
#[derive(Clone, Debug)]
pub struct Input {
    /// `context.input`; absent when nothing of it can be seen.
    pub cedar: Option<Expression>,
    /// The same for the record.
    pub record: Value,
    /// JSON pointers of what policy cannot see.
    pub unseen: Vec<String>,
}

/// Reads `arguments` by `ty`. Every argument ends up in the value, in `unseen`, or refuses the call.
pub fn read(ty: &Ty, arguments: &Json) -> Result<Input, Refusal> {
    let mut unseen = Vec::new();
    let seen = value(ty, arguments, &mut String::new(), &mut unseen)?;
    let (cedar, record) = match seen {
        Some((cedar, record)) => (Some(cedar), record),
        None => (None, Value::Null),
    };
    Ok(Input { cedar, record, unseen })
}

type Seen = Option<(Expression, Value)>;

/// `Expression`s are built from pairs, never from Cedar's JSON, so `{"__entity": …}` is plain data.
fn value(ty: &Ty, json: &Json, at: &mut String, unseen: &mut Vec<String>) -> Result<Seen, Refusal> {
    let wrong = |at: &String| Refusal::WrongType(at.clone());
    Ok(Some(match (ty, json) {
        (Ty::Unseen, _) => {
            unseen.push(at.clone());
            return Ok(None);
        }
        (Ty::Text(members), Json::String(text)) => {
            if members.as_ref().is_some_and(|members| !members.contains(text)) {
                return Err(Refusal::NotInEnum(at.clone()));
            }
            (Expression::new_string(text.clone()), Value::from(text.as_str()))
        }
        (Ty::Bool, Json::Bool(b)) => (Expression::new_bool(*b), Value::from(*b)),
        (Ty::Long, Json::Number(text)) => {
            let n = whole(text).ok_or_else(|| Refusal::OutOfRange(at.clone()))?;
            (Expression::new_long(n), Value::from(n))
        }
        (Ty::Decimal, Json::Number(text)) => {
            let n = decimal(text).ok_or_else(|| Refusal::OutOfRange(at.clone()))?;
            (Expression::new_decimal(n.as_str()), serde_json::json!({ "decimal": n }))
        }
        (Ty::Set(item), Json::Array(items)) => {
            let mut seen = Pairs::default();
            for (index, json) in items.iter().enumerate() {
                let one = inside(at, &index.to_string(), |at| value(item, json, at, unseen)?.ok_or_else(|| wrong(at)))?;
                seen.push(one);
            }
            (Expression::new_set(seen.cedar), Value::Array(seen.record))
        }
        (Ty::Map(item), Json::Object(members)) => {
            let mut seen = Pairs::default();
            for (name, json) in members {
                let (cedar, record) = inside(at, name, |at| value(item, json, at, unseen)?.ok_or_else(|| wrong(at)))?;
                let key = Expression::new_string(name.clone());
                let entry = record_of([("key".into(), key), ("value".into(), cedar)], at)?;
                seen.push((entry, serde_json::json!({ "key": name, "value": record })));
            }
            (Expression::new_set(seen.cedar), Value::Array(seen.record))
        }
        (Ty::Record(fields, extra), Json::Object(members)) => {
            let (mut cedar, mut record) = (Vec::with_capacity(members.len()), serde_json::Map::new());
            for (name, json) in members {
                let seen = inside(at, name, |at| match fields.get(name) {
                    None if *extra == Extra::Refuse => Err(Refusal::Undeclared(at.clone())),
                    None => value(&Ty::Unseen, json, at, unseen),
                    Some(field) if *json == Json::Null && field.nullable => Ok(None),
                    Some(field) => value(&field.ty, json, at, unseen),
                })?;
                if let Some((expression, value)) = seen {
                    cedar.push((name.clone(), expression));
                    record.insert(name.clone(), value);
                }
            }
            for (name, field) in fields {
                if field.required && !members.iter().any(|(n, _)| n == name) {
                    push_pointer(at, name);
                    return Err(Refusal::Missing(at.clone()));
                }
            }
            (record_of(cedar, at)?, Value::Object(record))
        }
        (Ty::Kinds(kinds), json) => return one_of(kinds, json, at, unseen),
        _ => return Err(wrong(at)),
    }))
}

fn one_of(
    kinds: &std::collections::BTreeMap<Kind, Ty>,
    json: &Json,
    at: &mut String,
    unseen: &mut Vec<String>,
) -> Result<Seen, Refusal> {
    let kind = match json {
        Json::String(_) => Kind::String,
        Json::Bool(_) => Kind::Boolean,
        Json::Number(_) if kinds.contains_key(&Kind::Integer) => Kind::Integer,
        Json::Number(_) => Kind::Number,
        Json::Array(_) => Kind::Array,
        Json::Object(_) if kinds.contains_key(&Kind::Map) => Kind::Map,
        Json::Object(_) => Kind::Object,
        Json::Null => return Err(Refusal::WrongType(at.clone())),
    };
    let Some(ty) = kinds.get(&kind) else {
        let free = kinds.len() == 3 && kinds.contains_key(&Kind::Number) && kinds.contains_key(&Kind::Boolean);
        return match kind {
            // The schema gives no type at all: what is not a scalar is named and not shown.
            Kind::Array | Kind::Object if free => value(&Ty::Unseen, json, at, unseen),
            _ => Err(Refusal::WrongType(at.clone())),
        };
    };
    let Some((cedar, record)) = value(ty, json, at, unseen)? else {
        return Err(Refusal::WrongType(at.clone()));
    };
    let cedar = record_of([(kind.name().to_owned(), cedar)], at)?;
    Ok(Some((cedar, serde_json::json!({ kind.name(): record }))))
}

#[derive(Default)]
struct Pairs {
    cedar: Vec<Expression>,
    record: Vec<Value>,
}

impl Pairs {
    fn push(&mut self, (cedar, record): (Expression, Value)) {
        self.cedar.push(cedar);
        self.record.push(record);
    }
}

fn inside<T>(at: &mut String, step: &str, read: impl FnOnce(&mut String) -> Result<T, Refusal>) -> Result<T, Refusal> {
    let end = at.len();
    push_pointer(at, step);
    let done = read(at);
    at.truncate(end);
    done
}

fn record_of(pairs: impl IntoIterator<Item = (String, Expression)>, at: &str) -> Result<Expression, Refusal> {
    Expression::new_record(pairs).map_err(|_| Refusal::WrongType(at.to_owned()))
}

/// A 64-bit integer, also when written `3.0` or `3e2`.
fn whole(text: &str) -> Option<i64> {
    let (digits, scale) = digits(text)?;
    if scale > 0 { None } else { digits.checked_mul(10i64.checked_pow(scale.unsigned_abs())?) }
}

/// A Cedar decimal: 64 bits with four fractional digits.
fn decimal(text: &str) -> Option<String> {
    let (digits, scale) = digits(text)?;
    if scale > 4 {
        return None;
    }
    let units = digits.checked_mul(10i64.checked_pow((4 - scale).unsigned_abs())?)?;
    let (sign, units) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
    Some(format!("{sign}{}.{:04}", units / 10_000, units % 10_000))
}

/// `text = digits × 10^-scale`, without trailing zeros, or nothing when that takes more than 64 bits.
fn digits(text: &str) -> Option<(i64, i32)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let kept = all.trim_end_matches('0');
    if kept.is_empty() || kept == "-" {
        return Some((0, 0));
    }
    let cut = i32::try_from(all.len() - kept.len()).ok()?;
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(cut)?.checked_sub(exponent)?;
    // Far outside 64 bits either way; and `pow` must not be asked for it.
    if scale.abs() > 40 { None } else { Some((kept.parse().ok()?, scale)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Limits;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn check(schema: Value, arguments: &str, expected: Expect) {
        let ty = Ty::of_input_schema(&schema);
        let arguments = crate::json::parse(arguments.as_bytes(), Limits::default()).unwrap();
        let shown = match read(&ty, &arguments) {
            Ok(input) => format!("{} unseen={:?}", input.record, input.unseen),
            Err(refusal) => format!("{}: {refusal}", refusal.code()),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn arguments_are_seen_named_or_refused() {
        let edit = || {
            json!({"type": "object", "required": ["path"], "properties": {
                "path": {"type": "string"}, "head": {"type": "number"}, "count": {"type": "integer"},
                "order": {"type": "string", "enum": ["up", "down"]}, "options": {"type": "object"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "id": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}}})
        };
        check(
            edit(),
            r#"{"path":"/a","head":1.50,"count":3.0}"#,
            expect![[r#"{"path":"/a","head":{"decimal":"1.5000"},"count":3} unseen=[]"#]],
        );
        check(
            edit(),
            r#"{"path":"/a","tags":["x","y"],"labels":{"k":"v"}}"#,
            expect![[r#"{"path":"/a","tags":["x","y"],"labels":[{"key":"k","value":"v"}]} unseen=[]"#]],
        );
        check(edit(), r#"{"path":"/a","options":{"deep":1}}"#, expect![[r#"{"path":"/a"} unseen=["/options"]"#]]);
        check(edit(), r#"{"path":"/a","id":7}"#, expect![[r#"{"path":"/a","id":{"integer":7}} unseen=[]"#]]);
        check(edit(), r#"{"path":"/a","id":null}"#, expect![[r#"{"path":"/a"} unseen=[]"#]]);
        check(
            edit(),
            r#"{"path":"/a","Path":"/b"}"#,
            expect!["argument_undeclared: argument `/Path` is not declared by the tool's schema"],
        );
        check(edit(), r#"{"head":1}"#, expect!["argument_missing: argument `/path` is missing"]);
        check(
            edit(),
            r#"{"path":["/a"]}"#,
            expect!["argument_wrong_type: argument `/path` is not of the declared type"],
        );
        check(
            edit(),
            r#"{"path":"/a","order":"sideways"}"#,
            expect!["argument_not_in_enum: argument `/order` is not one of the declared values"],
        );
        check(
            edit(),
            r#"{"path":"/a","count":9223372036854775808}"#,
            expect!["argument_out_of_range: number `/count` cannot be represented exactly"],
        );
        check(
            edit(),
            r#"{"path":"/a","head":0.10000000000000001}"#,
            expect!["argument_out_of_range: number `/head` cannot be represented exactly"],
        );
        check(
            edit(),
            r#"{"path":"/a","head":1e99999999999}"#,
            expect!["argument_out_of_range: number `/head` cannot be represented exactly"],
        );
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        for (text, long, dec) in [
            ("0", Some(0), Some("0.0000")),
            ("-0.0", Some(0), Some("0.0000")),
            ("1200", Some(1200), Some("1200.0000")),
            ("12e2", Some(1200), Some("1200.0000")),
            ("0.0001", None, Some("0.0001")),
            ("-0.5", None, Some("-0.5000")),
            ("0.00001", None, None),
            ("9223372036854775807", Some(i64::MAX), None),
            ("1e30", None, None),
            ("1e-999999999", None, None),
        ] {
            assert_eq!((whole(text), decimal(text).as_deref()), (long, dec), "{text}");
        }
    }

    #[test]
    fn a_schema_that_is_no_object_is_unseen_and_hides_nothing() {
        check(json!(true), r#"{"a":1}"#, expect![[r#"null unseen=[""]"#]]);
        check(
            json!({"type": "object"}),
            r#"{"a":1}"#,
            expect!["argument_undeclared: argument `/a` is not declared by the tool's schema"],
        );
        check(json!({"type": "object", "additionalProperties": true}), r#"{"a":1}"#, expect![[r#"{} unseen=["/a"]"#]]);
        let recursive = json!({"type": "object", "properties": {"n": {"$ref": "#"}}});
        check(recursive, r#"{"n":{"n":{}}}"#, expect![[r#"{"n":{}} unseen=["/n/n"]"#]]);
    }

    #[test]
    fn a_schema_that_multiplies_is_cut_short() {
        let branches = |next: &str| json!({"anyOf": vec![json!({"$ref": next}); 60]});
        let mut hostile = json!({"type": "object", "properties": {"a": {"$ref": "#/d/0"}}, "d": {}});
        for n in 0..8 {
            hostile["d"][n.to_string()] = branches(&format!("#/d/{}", n + 1));
        }
        hostile["d"]["8"] = json!({"type": "string"});
        check(hostile, r#"{"a":"x"}"#, expect![[r#"{} unseen=["/a"]"#]]);
    }
}
