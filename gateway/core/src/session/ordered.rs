//! Maps read strictly: no key twice, and where it matters in the order of the file.

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

/// Writes entries as a map, in their order. For `#[serde(with = "…")]`.
pub fn serialize<V: Serialize, S: Serializer>(entries: &[(String, V)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(entries.len()))?;
    for (key, value) in entries {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

/// Reads a map in the order in which it is written. Fails at a key that is there twice.
pub fn deserialize<'de, V: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, V)>, D::Error> {
    from.deserialize_map(Entries(PhantomData))
}

/// Reads a map whose order means nothing. Fails at a key that is there twice, which readers take to mean either value.
pub fn once<'de, V: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, V>, D::Error> {
    Ok(deserialize(from)?.into_iter().collect())
}

struct Entries<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format_args!("key `{}` is there twice", key.escape_debug())));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "super")]
        ordered: Vec<(String, u8)>,
        #[serde(deserialize_with = "once")]
        sorted: BTreeMap<String, u8>,
    }

    #[test]
    fn s2_40_a_map_keeps_the_order_of_the_file() {
        let text = r#"{"ordered":{"z":1,"a":2,"m":3},"sorted":{"b":1,"a":2}}"#;
        let both: Both = serde_json::from_str(text).unwrap();
        assert_eq!(both.ordered, [("z".into(), 1), ("a".into(), 2), ("m".into(), 3)]);
        assert!(serde_json::to_string(&both).unwrap().starts_with(r#"{"ordered":{"z":1,"a":2,"m":3}"#));
    }

    #[test]
    fn s2_40_a_key_that_is_there_twice_is_refused() {
        for text in [r#"{"ordered":{"a":1,"b":2,"a":1},"sorted":{}}"#, r#"{"ordered":{},"sorted":{"a":1,"a":2}}"#] {
            let error = serde_json::from_str::<Both>(text).unwrap_err().to_string();
            assert!(error.contains("key `a` is there twice"), "{error}");
        }
        assert!(
            serde_json::from_str::<Both>(r#"{"ordered":[],"sorted":{}}"#).unwrap_err().to_string().contains("a map")
        );
    }
}
