//! One fact as it goes to the collector: its state key, its body, the hash of the body.
//!
//! The body is safe to store wherever it ends: no NUL in a text (jsonb refuses it), no text over
//! the wire's limit, and the same bytes for the same host (sources keep their lists in order).

use infratrack_shared::codec;
use infratrack_shared::digest::Digest;
use infratrack_shared::limits;
use rmpv::{Utf8String, Value};
use serde::Serialize;

use super::Reason;

/// What one source says of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The state key: `facts.os`, `facts.kernel`, …
    pub key: String,
    /// A map; `{"unknown": reason}` where the source has nothing to say.
    pub body: Value,
    /// [`Digest::of`] the body's MessagePack.
    pub hash: Digest,
}

impl Fact {
    /// The fact of a source that answered `body`, or failed.
    pub(super) fn new(key: &str, body: Result<Value, Reason>) -> Self {
        let body = clean(body.unwrap_or_else(|reason| unknown(&reason)));
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &body).expect("writing to memory cannot fail");
        Self {
            key: key.to_owned(),
            hash: Digest::of(&bytes),
            body,
        }
    }
}

/// What stands where a value could not be had.
pub(super) fn unknown(reason: &str) -> Value {
    Value::Map(vec![("unknown".into(), reason.into())])
}

/// A source's answer as the wire's value.
pub(super) fn to_value<T: Serialize + ?Sized>(body: &T) -> Result<Value, Reason> {
    codec::to_value(body).map_err(|error| error.to_string())
}

/// `text` without NUL and within the wire's limit.
pub(super) fn clean_text(mut text: String) -> String {
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
    }
    if text.len() > limits::STRING_BYTES {
        text.truncate(text.floor_char_boundary(limits::STRING_BYTES));
    }
    text
}

fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean_string(text)),
        Value::Array(values) => Value::Array(values.into_iter().map(clean).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (clean(key), clean(value)))
                .collect(),
        ),
        scalar @ (Value::Nil
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::Binary(_)
        | Value::Ext(..)) => scalar,
    }
}

fn clean_string(text: Utf8String) -> Utf8String {
    clean_text(text.into_str().unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_stored_without_nul_and_cut_at_the_wire_limit_between_characters() {
        let long = "é".repeat(limits::STRING_BYTES);
        let body = Value::Map(vec![("a\0".into(), Value::Array(vec![long.into()]))]);
        let fact = Fact::new("facts.x", Ok(body));
        let [(key, value)] = fact.body.as_map().unwrap().as_slice() else {
            panic!("one entry");
        };
        assert_eq!(key.as_str(), Some("a\u{fffd}"));
        let text = value.as_array().unwrap().first().unwrap().as_str().unwrap();
        assert_eq!(text.len(), limits::STRING_BYTES);
    }

    #[test]
    fn the_hash_is_that_of_the_body_as_it_travels() {
        let fact = Fact::new("facts.x", Err("no such file".to_owned()));
        assert_eq!(fact.body, unknown("no such file"));
        assert_eq!(fact.hash, Digest::of(&codec::encode(&fact.body).unwrap()));
    }
}
