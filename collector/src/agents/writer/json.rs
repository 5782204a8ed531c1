//! MessagePack values of agents as JSON that Postgres takes.
//!
//! Binaries become hexadecimal, those of 16 bytes (ids) UUIDs, keys of maps text; NUL, which Postgres refuses,
//! becomes U+FFFD. Called by `plan` for every event and fact, and for those of sample hosts, so the text is written without a tree between.

use rmpv::Value;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::store::storable;

/// As text, to be stored.
pub(crate) fn text(value: &Value) -> Box<RawValue> {
    // Nothing of it can fail: every key is a string.
    serde_json::value::to_raw_value(&AsJson(value)).unwrap_or_default()
}

/// As a tree, to be compared.
pub(super) fn tree(value: &Value) -> serde_json::Value {
    serde_json::to_value(AsJson(value)).unwrap_or_default()
}

struct AsJson<'a>(&'a Value);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Nil => serializer.serialize_unit(),
            Value::Boolean(value) => serializer.serialize_bool(*value),
            Value::Integer(value) => match (value.as_i64(), value.as_u64()) {
                (Some(value), _) => serializer.serialize_i64(value),
                (_, Some(value)) => serializer.serialize_u64(value),
                _ => serializer.serialize_unit(),
            },
            Value::F32(value) => serializer.serialize_f64(f64::from(*value)),
            Value::F64(value) => serializer.serialize_f64(*value),
            Value::String(text) => {
                let text = String::from_utf8_lossy(text.as_bytes());
                if text.contains('\0') {
                    serializer.serialize_str(&storable(&text))
                } else {
                    serializer.serialize_str(&text)
                }
            }
            Value::Binary(bytes) | Value::Ext(_, bytes) => match Uuid::from_slice(bytes) {
                Ok(id) => serializer.collect_str(&id),
                Err(_) => serializer.serialize_str(&hex::encode(bytes)),
            },
            Value::Array(values) => {
                let mut array = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    array.serialize_element(&Self(value))?;
                }
                array.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    if matches!(key, Value::String(_) | Value::Binary(_) | Value::Ext(..)) {
                        map.serialize_entry(&Self(key), &Self(value))?;
                    } else {
                        map.serialize_entry(text(key).get(), &Self(value))?;
                    }
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_and_tree_say_the_same() {
        let id = Uuid::from_u128(7);
        let value = Value::Map(vec![
            ("a\0b".into(), Value::Nil),
            (Value::from(3), Value::from(u64::MAX)),
            (Value::Array(vec![Value::Nil]), Value::F32(0.5)),
            (
                Value::Binary(vec![1, 2]),
                Value::Binary(id.as_bytes().to_vec()),
            ),
            ("back\\u0000slash".into(), Value::F64(f64::NAN)),
            ("list".into(), Value::Array(vec![true.into(), "x\0".into()])),
        ]);
        let expected = json!({
            "a\u{fffd}b": null,
            "3": u64::MAX,
            "[null]": 0.5,
            "0102": id.to_string(),
            "back\\u0000slash": null,
            "list": [true, "x\u{fffd}"],
        });
        assert_eq!(tree(&value), expected);
        let text = text(&value);
        let read: serde_json::Value = serde_json::from_str(text.get()).expect("JSON");
        assert_eq!(read, expected);
    }
}
