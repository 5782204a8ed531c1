//! What may stand in a host's metadata, and what an edit makes of a row.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::problem::Problem;
use crate::store::hosts::edit::EditRow;

/// Bytes of a name, as of a DNS name.
const NAME_BYTES: usize = 253;
/// Characters of owner and environment.
const TEXT_CHARS: usize = 128;
/// Bytes of notes.
const NOTES_BYTES: usize = 16 * 1024;
/// Tags of a host.
pub const MOST_TAGS: usize = 64;
/// Characters of a tag.
const TAG_CHARS: usize = 64;
/// Addresses of a host.
const MOST_ADDRESSES: usize = 64;

/// A JSON merge patch (RFC 7396). `null` gives a field back: to what the host or its inventory says, or to nothing.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HostPatch {
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    pub tags: Option<Option<Vec<String>>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub owner: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub environment: Option<Option<String>>,
    /// Markdown.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub notes: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    pub addresses: Option<Option<Vec<String>>>,
}

/// A field that is there, be it `null`; one that is not there is `None` by default.
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl HostPatch {
    /// Makes of `row` what the patch says. From then on what it set is the operator's.
    pub fn apply(&self, row: &mut EditRow) -> Result<(), Problem> {
        match &self.name {
            Some(Some(wanted)) => row.name = name("/name", wanted)?,
            Some(None) if row.origin == "manual" => {
                return Err(Problem::field("/name", "is needed where no agent tells it"));
            }
            Some(None) | None => {}
        }
        if let Some(wanted) = &self.tags {
            row.tags = tags("/tags", wanted.as_deref().unwrap_or_default())?;
        }
        if let Some(wanted) = &self.owner {
            row.owner = text("/owner", wanted.as_deref())?;
        }
        if let Some(wanted) = &self.environment {
            row.environment = text("/environment", wanted.as_deref())?;
        }
        if let Some(wanted) = &self.notes {
            row.notes = notes("/notes", wanted.as_deref())?;
        }
        if let Some(wanted) = &self.addresses {
            row.addresses = addresses("/addresses", wanted.as_deref().unwrap_or_default())?;
        }
        for (field, wanted) in [
            ("name", self.name.as_ref().map(Option::is_some)),
            ("tags", self.tags.as_ref().map(Option::is_some)),
            ("owner", self.owner.as_ref().map(Option::is_some)),
            (
                "environment",
                self.environment.as_ref().map(Option::is_some),
            ),
            ("notes", self.notes.as_ref().map(Option::is_some)),
            ("addresses", self.addresses.as_ref().map(Option::is_some)),
        ] {
            if let Some(is_set) = wanted {
                mark(row, field, is_set);
            }
        }
        Ok(())
    }
}

/// Notes that a field is the operator's, or no longer.
pub fn mark(row: &mut EditRow, field: &str, is_set: bool) {
    row.edited.retain(|edited| edited != field);
    if is_set {
        row.edited.push(field.to_owned());
        row.edited.sort();
    }
}

/// A host's name.
pub fn name(place: &str, wanted: &str) -> Result<String, Problem> {
    let wanted = wanted.trim();
    if wanted.is_empty() || wanted.len() > NAME_BYTES || wanted.contains(char::is_control) {
        let detail = format!("must have 1 to {NAME_BYTES} bytes without control characters");
        return Err(Problem::field(place, detail));
    }
    Ok(wanted.to_owned())
}

/// Owner or environment; an empty one is none.
pub fn text(place: &str, wanted: Option<&str>) -> Result<Option<String>, Problem> {
    let wanted = wanted.map(str::trim).filter(|wanted| !wanted.is_empty());
    if wanted
        .is_some_and(|text| text.chars().count() > TEXT_CHARS || text.contains(char::is_control))
    {
        let detail = format!("must have at most {TEXT_CHARS} characters, none of them for control");
        return Err(Problem::field(place, detail));
    }
    Ok(wanted.map(str::to_owned))
}

fn notes(place: &str, wanted: Option<&str>) -> Result<Option<String>, Problem> {
    let wanted = wanted.filter(|wanted| !wanted.is_empty());
    if wanted.is_some_and(|text| text.len() > NOTES_BYTES || text.contains('\0')) {
        let detail = format!("must have at most {NOTES_BYTES} bytes, none of them 0");
        return Err(Problem::field(place, detail));
    }
    Ok(wanted.map(str::to_owned))
}

/// Tags, sorted, each once.
pub fn tags(place: &str, wanted: &[String]) -> Result<Vec<String>, Problem> {
    for (index, tag) in wanted.iter().enumerate() {
        let plain = |char: char| char.is_ascii_alphanumeric() || "-_.:/=+@".contains(char);
        if tag.is_empty() || tag.len() > TAG_CHARS || !tag.chars().all(plain) {
            let detail = format!(
                "must have 1 to {TAG_CHARS} characters: letters, digits and - _ . : / = + @"
            );
            return Err(Problem::field(format!("{place}/{index}"), detail));
        }
    }
    let mut tags = wanted.to_vec();
    tags.sort();
    tags.dedup();
    if tags.len() > MOST_TAGS {
        return Err(Problem::field(
            place,
            format!("must be at most {MOST_TAGS} tags"),
        ));
    }
    Ok(tags)
}

/// Addresses without a prefix length, sorted, each once.
pub fn addresses(place: &str, wanted: &[String]) -> Result<Vec<String>, Problem> {
    let mut addresses = Vec::with_capacity(wanted.len());
    for (index, text) in wanted.iter().enumerate() {
        let address: IpAddr = text
            .trim()
            .parse()
            .map_err(|_| Problem::field(format!("{place}/{index}"), "must be an IP address"))?;
        addresses.push(address);
    }
    addresses.sort();
    addresses.dedup();
    if addresses.len() > MOST_ADDRESSES {
        let detail = format!("must be at most {MOST_ADDRESSES} addresses");
        return Err(Problem::field(place, detail));
    }
    Ok(addresses.iter().map(ToString::to_string).collect())
}

/// What of a row differs: as it was and as it is, for the audit log.
pub fn difference(before: &EditRow, after: &EditRow) -> (Value, Value) {
    let object = |row: &EditRow| match serde_json::to_value(row) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let (mut was, mut is) = (object(before), object(after));
    let same: Vec<String> = was
        .iter()
        .filter(|(field, value)| is.get(*field) == Some(value))
        .map(|(field, _)| field.clone())
        .collect();
    for field in same {
        was.remove(&field);
        is.remove(&field);
    }
    (Value::Object(was), Value::Object(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_sorted_and_bounded() {
        let some = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            tags("/tags", &some(&["b:1", "a", "b:1"])).unwrap(),
            some(&["a", "b:1"])
        );
        let long = "x".repeat(TAG_CHARS + 1);
        for bad in ["", "a b", "a,b", "a;b", "ä", "a\0", &long] {
            let problem = tags("/tags", &some(&["fine", bad])).unwrap_err();
            assert_eq!(
                problem.errors[0].pointer.as_deref(),
                Some("/tags/1"),
                "{bad}"
            );
        }
        let many: Vec<_> = (0..=MOST_TAGS).map(|n| format!("t{n}")).collect();
        assert!(tags("/tags", &many).is_err());
        assert!(tags("/tags", &many[1..]).is_ok());
    }

    #[test]
    fn every_text_has_its_limit() {
        assert!(name("/name", &"x".repeat(NAME_BYTES)).is_ok());
        for bad in ["", " ", "a\nb", &"x".repeat(NAME_BYTES + 1)] {
            assert!(name("/name", bad).is_err(), "{bad}");
        }
        assert!(text("/owner", Some(&"ä".repeat(TEXT_CHARS))).is_ok());
        assert!(text("/owner", Some(&"ä".repeat(TEXT_CHARS + 1))).is_err());
        assert_eq!(text("/owner", Some(" ")).unwrap(), None);
        assert!(notes("/notes", Some(&"x".repeat(NOTES_BYTES))).is_ok());
        assert!(notes("/notes", Some(&"x".repeat(NOTES_BYTES + 1))).is_err());
        let many: Vec<_> = (0..=MOST_ADDRESSES)
            .map(|n| format!("10.0.0.{n}"))
            .collect();
        assert!(addresses("/addresses", &many).is_err());
        assert!(addresses("/addresses", &many[1..]).is_ok());
        assert!(addresses("/addresses", &["10.0.0.0/8".to_owned()]).is_err());
    }
}
