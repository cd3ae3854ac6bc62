//! Recorded arguments, read back for policy to see them again.

use super::ty::{Kind, Ty};
use cedar_policy::RestrictedExpression as Expression;
use serde_json::Value;

/// Recorded arguments do not have the type that the catalogue now says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherType;

/// `context.input` as it was, by its type and its record. `lost` is told the first name of every argument of which something is
/// missing: a text that was cut, or a secret value that was masked. What stands for it in the expression means nothing.
pub fn restore(ty: &Ty, record: &Value, lost: &mut Vec<String>) -> Result<Option<Expression>, OtherType> {
    match (ty, record) {
        (Ty::Unseen, _) | (_, Value::Null) => Ok(None),
        (Ty::Record(fields, _), Value::Object(members)) => {
            let mut pairs = Vec::with_capacity(members.len());
            for (name, value) in members {
                let field = fields.get(name).ok_or(OtherType)?;
                let mut whole = true;
                let expression = value_of(&field.ty, value, &mut whole)?;
                if !whole {
                    lost.push(name.clone());
                }
                pairs.push((name.clone(), expression));
            }
            Expression::new_record(pairs).map(Some).map_err(|_| OtherType)
        }
        // What is no record has no names.
        (ty, value) => {
            let mut whole = true;
            let expression = value_of(ty, value, &mut whole)?;
            if !whole {
                lost.push(String::new());
            }
            Ok(Some(expression))
        }
    }
}

/// Whether something of a recorded value is missing: a text that was cut, or a secret value that was masked.
pub fn is_cut(record: &Value) -> bool {
    let masked = |text: &str| text.contains("[secret:");
    match record {
        Value::String(text) => masked(text),
        Value::Array(items) => items.iter().any(is_cut),
        Value::Object(members) => {
            let is_head = members.len() == 3 && ["cut", "bytes", "tag"].iter().all(|name| members.contains_key(*name));
            is_head || members.iter().any(|(name, value)| masked(name) || is_cut(value))
        }
        _ => false,
    }
}

fn value_of(ty: &Ty, record: &Value, whole: &mut bool) -> Result<Expression, OtherType> {
    Ok(match (ty, record) {
        (Ty::Text(_), Value::String(text)) => {
            // A value may have looked like this by itself; taking it for lost is the safe mistake.
            *whole &= !text.contains("[secret:");
            Expression::new_string(text.clone())
        }
        (Ty::Text(_), Value::Object(cut)) => {
            *whole = false;
            Expression::new_string(cut.get("cut").and_then(Value::as_str).ok_or(OtherType)?.to_owned())
        }
        (Ty::Bool, Value::Bool(b)) => Expression::new_bool(*b),
        (Ty::Long, Value::Number(n)) => Expression::new_long(n.as_i64().ok_or(OtherType)?),
        (Ty::Decimal, Value::Object(decimal)) => {
            Expression::new_decimal(decimal.get("decimal").and_then(Value::as_str).ok_or(OtherType)?)
        }
        (Ty::Set(item), Value::Array(items)) => {
            let items: Result<Vec<_>, _> = items.iter().map(|value| value_of(item, value, whole)).collect();
            Expression::new_set(items?)
        }
        (Ty::Map(item), Value::Array(entries)) => {
            let mut all = Vec::with_capacity(entries.len());
            for entry in entries {
                let key = value_of(&Ty::Text(None), entry.get("key").ok_or(OtherType)?, whole)?;
                let value = value_of(item, entry.get("value").ok_or(OtherType)?, whole)?;
                let pairs = [("key".to_owned(), key), ("value".to_owned(), value)];
                all.push(Expression::new_record(pairs).map_err(|_| OtherType)?);
            }
            Expression::new_set(all)
        }
        (Ty::Record(fields, _), Value::Object(members)) => {
            let mut pairs = Vec::with_capacity(members.len());
            for (name, value) in members {
                pairs.push((name.clone(), value_of(&fields.get(name).ok_or(OtherType)?.ty, value, whole)?));
            }
            Expression::new_record(pairs).map_err(|_| OtherType)?
        }
        (Ty::Kinds(kinds), Value::Object(members)) => {
            let (name, value) = members.iter().next().filter(|_| members.len() == 1).ok_or(OtherType)?;
            let ty = kinds.iter().find(|(kind, _)| Kind::name(**kind) == name).map(|(_, ty)| ty).ok_or(OtherType)?;
            Expression::new_record([(name.clone(), value_of(ty, value, whole)?)]).map_err(|_| OtherType)?
        }
        _ => return Err(OtherType),
    })
}

/// Whether a value in Cedar's JSON form holds only texts that its type lists.
pub fn fits(ty: &Ty, value: &Value) -> bool {
    match (ty, value) {
        (Ty::Text(Some(members)), Value::String(text)) => members.contains(text),
        (Ty::Set(item), Value::Array(items)) => items.iter().all(|value| fits(item, value)),
        (Ty::Map(item), Value::Array(entries)) => entries.iter().all(|entry| fits(item, &entry["value"])),
        (Ty::Record(fields, _), Value::Object(members)) => {
            members.iter().all(|(name, value)| fields.get(name).is_none_or(|field| fits(&field.ty, value)))
        }
        (Ty::Kinds(kinds), Value::Object(members)) => members.iter().all(|(name, value)| {
            kinds.iter().find(|(kind, _)| Kind::name(**kind) == name).is_none_or(|(_, ty)| fits(ty, value))
        }),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::input::read;
    use crate::json::{Limits, parse};
    use proptest::prelude::*;
    use serde_json::json;

    fn ty() -> Ty {
        Ty::of_input_schema(&json!({ "type": "object", "properties": {
            "path": { "type": "string" }, "count": { "type": "integer" }, "price": { "type": "number" },
            "deep": { "type": "object", "properties": { "on": { "type": "boolean" }, "tags": { "type": "array", "items": { "type": "string" } } } },
            "env": { "type": "object", "additionalProperties": { "type": "string" } },
            "id": { "anyOf": [{ "type": "string" }, { "type": "integer" }] } } }))
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_what_policy_saw(path in ".{0,40}", count in any::<i64>(), cents in -9999i32..9999, on: bool, tags in proptest::collection::vec("[a-z]{0,4}", 0..4), number: bool) {
            let id = if number { json!(count) } else { json!(path) };
            let arguments = json!({ "path": path, "count": count, "price": f64::from(cents) / 100.0, "deep": { "on": on, "tags": tags }, "env": { "a": path }, "id": id });
            let json = parse(arguments.to_string().as_bytes(), Limits::default()).unwrap();
            let seen = read(&ty(), &json).unwrap();
            let mut lost = Vec::new();
            let again = restore(&ty(), &seen.record, &mut lost).unwrap().unwrap();
            let context = |e: Expression| cedar_policy::Context::from_pairs([("input".to_owned(), e)]).unwrap().to_json_value().unwrap();
            prop_assert_eq!(context(again), context(seen.cedar.unwrap()));
            prop_assert_eq!(lost.is_empty(), !path.contains("[secret:"));
        }
    }

    #[test]
    fn what_was_cut_or_masked_is_named() {
        let mut lost = Vec::new();
        let record = json!({ "path": { "cut": "/srv/", "bytes": 900, "tag": "k1:ab" }, "count": 1, "deep": { "on": true, "tags": ["[secret:x:k1:ab]"] } });
        restore(&ty(), &record, &mut lost).unwrap();
        assert_eq!(lost, ["path", "deep"]);
        assert_eq!(restore(&ty(), &json!({ "gone": 1 }), &mut lost), Err(OtherType));
        assert_eq!(restore(&ty(), &json!({ "count": "1" }), &mut lost), Err(OtherType));
    }
}
