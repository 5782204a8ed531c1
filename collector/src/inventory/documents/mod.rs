//! Documents of inventories, as lists of the hosts in them: pure functions, no input panics, every limit is here.
//!
//! Knows nothing of the rest of the collector: `fuzz/` takes these files in by their path.

pub mod ansible;
pub mod csv;
pub mod path;
pub mod terraform;

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// A document at most.
pub const DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// Hosts of a document at most.
pub const MOST_ENTRIES: usize = 100_000;
/// How deep modules, groups and the variables of a host may be nested.
pub const DEPTH: usize = 128;
/// A text that is looked at may have this many bytes.
pub const TEXT_BYTES: usize = 64 * 1024;
/// Bytes of a name, as of a DNS name.
pub const NAME_BYTES: usize = 253;
/// Bytes of the cloud's id of an instance.
pub const INSTANCE_ID_BYTES: usize = 512;
/// Bytes of what names a host in its source.
const KEY_BYTES: usize = 2048;
/// Addresses of a host that are kept.
pub const MOST_ADDRESSES: usize = 64;
/// Tags of a host that are kept.
pub const MOST_TAGS: usize = 64;
/// Characters of a tag.
const TAG_CHARS: usize = 64;
/// Characters of owner and environment.
const TEXT_CHARS: usize = 128;
/// Warnings that are kept; all are counted.
const MOST_WARNINGS: usize = 100;

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `ansible-inventory --list`.
    Ansible,
    /// `terraform show -json`, of a state.
    Terraform,
    Csv,
}

impl Kind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ansible => "ansible",
            Self::Terraform => "terraform",
            Self::Csv => "csv",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Ansible, Self::Terraform, Self::Csv]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// A host as an inventory knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Names it in its source: the instance id, else what is unique there.
    pub key: String,
    pub name: String,
    pub instance_id: Option<String>,
    /// Sorted, each once; none that every host has.
    pub addresses: Vec<IpAddr>,
    /// Sorted, each once; groups are `group:name`.
    pub tags: Vec<String>,
    pub environment: Option<String>,
    pub owner: Option<String>,
    /// It is there, and said to be gone: terminated, say.
    pub destroyed: bool,
}

/// What a document says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    pub entries: Vec<Entry>,
    /// What was left out of it, and where; the first hundred.
    pub warnings: Vec<String>,
    pub warning_count: usize,
    /// Names that entries have in place of addresses.
    pub lookups: Vec<Lookup>,
}

/// A name that could be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Whose: its place among the entries.
    pub entry: usize,
    /// Where that stands in the document.
    pub place: String,
    pub name: String,
}

/// Why a document is refused. Place and detail make a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place} {detail}")]
pub struct Refused {
    /// A JSON pointer, or `line 3`; "the document" as a whole.
    pub place: String,
    pub detail: String,
}

impl Refused {
    pub(super) fn at(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            detail: detail.into(),
        }
    }

    pub(super) fn whole(detail: impl Into<String>) -> Self {
        Self::at("the document", detail)
    }
}

/// Reads a document.
pub fn read(kind: Kind, bytes: &[u8]) -> Result<Document, Refused> {
    if bytes.len() > DOCUMENT_BYTES {
        let detail = format!("has over {DOCUMENT_BYTES} bytes");
        return Err(Refused::whole(detail));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let detail = "is UTF-16, as PowerShell's > writes it; send UTF-8";
        return Err(Refused::whole(detail));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Refused::whole(format!("is not UTF-8 at byte {}", error.valid_up_to())))?;
    match kind {
        Kind::Ansible => ansible::read(text),
        Kind::Terraform => terraform::read(text),
        Kind::Csv => csv::read(text),
    }
}

impl Document {
    /// Counts something that is not as it should be, and keeps it while there is room.
    pub fn warn(&mut self, place: &str, detail: &str) {
        self.warning_count += 1;
        if self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(format!("{place} {detail}"));
        }
    }

    /// Adds an entry as it may be kept; what makes no host is refused, what makes no tag is left out.
    fn push(
        &mut self,
        place: &str,
        found: Found,
        keys: &mut BTreeSet<String>,
    ) -> Result<(), Refused> {
        if self.entries.len() >= MOST_ENTRIES {
            return Err(Refused::at(
                place,
                format!(
                    "is host number {}; {MOST_ENTRIES} are the most",
                    MOST_ENTRIES + 1
                ),
            ));
        }
        let name = found.name.trim();
        if name.is_empty() || name.len() > NAME_BYTES || name.contains(char::is_control) {
            let detail =
                format!("has no name of 1 to {NAME_BYTES} bytes without control characters");
            return Err(Refused::at(place, detail));
        }
        let instance_id = found
            .instance_id
            .map(|id| id.trim().to_owned())
            .filter(|id| !id.is_empty());
        if instance_id
            .as_ref()
            .is_some_and(|id| id.len() > INSTANCE_ID_BYTES || id.contains(char::is_control))
        {
            let detail = format!(
                "has an instance id that is longer than {INSTANCE_ID_BYTES} bytes or no plain text"
            );
            return Err(Refused::at(place, detail));
        }
        // Two entries of one instance are a conflict, and each is to have a name.
        let by_id = instance_id.clone().filter(|id| !keys.contains(id));
        let key = by_id.unwrap_or(found.key);
        if key.is_empty() || key.len() > KEY_BYTES || key.contains('\0') {
            let detail = "has a name in its source that is too long or no plain text";
            return Err(Refused::at(place, detail));
        }
        if !keys.insert(key.clone()) {
            return Err(Refused::at(place, "is there twice"));
        }
        let addresses = self.addresses(place, found.addresses);
        let tags = self.tags(place, found.tags);
        let entry = Entry {
            key,
            name: name.to_owned(),
            instance_id,
            addresses,
            tags,
            environment: self.text(place, found.environment),
            owner: self.text(place, found.owner),
            destroyed: found.destroyed,
        };
        if let Some(name) = found.lookup {
            self.lookups.push(Lookup {
                entry: self.entries.len(),
                place: place.to_owned(),
                name,
            });
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Adds what a name resolved to, by the rules for addresses in documents.
    pub fn add_addresses(&mut self, lookup: &Lookup, found: &[IpAddr]) {
        let Some(entry) = self.entries.get_mut(lookup.entry) else {
            return;
        };
        let mut all = std::mem::take(&mut entry.addresses);
        all.extend(found);
        let all = self.addresses(&lookup.place, all);
        if let Some(entry) = self.entries.get_mut(lookup.entry) {
            entry.addresses = all;
        }
    }

    fn addresses(&mut self, place: &str, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        addresses.retain(|address| is_of_one_host(*address));
        addresses.sort();
        addresses.dedup();
        if addresses.len() > MOST_ADDRESSES {
            self.warn(place, "has more addresses than are kept");
            addresses.truncate(MOST_ADDRESSES);
        }
        addresses
    }

    fn tags(&mut self, place: &str, mut tags: Vec<String>) -> Vec<String> {
        let count = tags.len();
        tags.retain(|tag| is_tag(tag));
        if tags.len() < count {
            self.warn(place, "has tags that can be none here; they were left out");
        }
        tags.sort();
        tags.dedup();
        if tags.len() > MOST_TAGS {
            self.warn(place, "has more tags than are kept");
            tags.truncate(MOST_TAGS);
        }
        tags
    }

    fn text(&mut self, place: &str, text: Option<String>) -> Option<String> {
        let text = text
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())?;
        if text.chars().count() > TEXT_CHARS || text.contains(char::is_control) {
            self.warn(
                place,
                "has an owner or environment that is too long; it was left out",
            );
            return None;
        }
        Some(text)
    }
}

/// A host as it stands in a document.
#[derive(Debug, Default)]
struct Found {
    key: String,
    name: String,
    instance_id: Option<String>,
    addresses: Vec<IpAddr>,
    /// What stands in place of an address.
    lookup: Option<String>,
    tags: Vec<String>,
    environment: Option<String>,
    owner: Option<String>,
    destroyed: bool,
}

/// Letters, digits and `-_.:/=+@`, as for tags that operators set.
pub fn is_tag(tag: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.:/=+@".contains(char);
    (1..=TAG_CHARS).contains(&tag.len()) && tag.chars().all(plain)
}

/// Loopback, link-local and unspecified ones say nothing of who has them.
fn is_of_one_host(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// What DNS could know: no address, also none in a form that only some programs read, and no template.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    let labels = text.strip_suffix('.').unwrap_or(text);
    let last = labels.rsplit('.').next().unwrap_or_default();
    text.len() <= NAME_BYTES
        && labels.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// An address, with or without the length of its network's prefix.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.trim().split('/').next().unwrap_or_default();
    let address: IpAddr = plain.parse().ok()?;
    Some(address.to_canonical())
}

/// Reads a value that a document has as raw JSON, with its place.
fn value(place: &str, raw: &serde_json::value::RawValue) -> Result<Value, Refused> {
    let value: Value = serde_json::from_str(raw.get())
        .map_err(|error| Refused::at(place, format!("is refused: {error}")))?;
    match long_text(&value) {
        None => Ok(value),
        Some(pointer) => {
            let detail = format!("has over {TEXT_BYTES} bytes");
            Err(Refused::at(format!("{place}{pointer}"), detail))
        }
    }
}

/// The place of a text that is too long. No deeper than `serde_json` reads, 128.
fn long_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (text.len() > TEXT_BYTES).then(String::new),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| long_text(item).map(|rest| format!("/{index}{rest}"))),
        Value::Object(fields) => fields.iter().find_map(|(key, item)| {
            if key.len() > TEXT_BYTES {
                return Some(String::new());
            }
            long_text(item).map(|rest| format!("/{}{rest}", escaped(key)))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// A key of a JSON pointer (RFC 6901, section 3).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
