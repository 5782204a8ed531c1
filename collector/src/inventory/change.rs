//! What an entry makes of a host: never what an operator set by hand, and never what its own agent tells.

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::documents::{Entry, MOST_TAGS};
use crate::store::inventories::KnownHost;

/// The host as its entry says; `before` is what the same source said the last time.
pub fn changed(
    host: &KnownHost,
    entry: &Entry,
    before: Option<&Entry>,
    now: OffsetDateTime,
) -> KnownHost {
    let mut made = host.clone();
    let is_ours = |field: &str| !host.edited.iter().any(|edited| edited == field);
    if !host.has_agent {
        if is_ours("name") {
            made.name.clone_from(&entry.name);
        }
        if is_ours("addresses") && !entry.addresses.is_empty() {
            made.addresses = entry.addresses.iter().map(ToString::to_string).collect();
        }
        if entry.instance_id.is_some() {
            made.instance_id.clone_from(&entry.instance_id);
        }
    }
    if made.instance_id.is_none() {
        made.instance_id.clone_from(&entry.instance_id);
    }
    if is_ours("tags") {
        made.tags = tags(&host.tags, entry, before);
    }
    if is_ours("owner") {
        let said = before.and_then(|before| before.owner.as_ref());
        said_or_taken_back(&mut made.owner, entry.owner.as_ref(), said);
    }
    if is_ours("environment") {
        let said = before.and_then(|before| before.environment.as_ref());
        said_or_taken_back(&mut made.environment, entry.environment.as_ref(), said);
    }
    made.missing_since = if entry.destroyed {
        host.missing_since.or(Some(now))
    } else {
        None
    };
    made
}

/// Those of the host that the source did not bring, and what it says. More than a host may have leaves it as it is.
fn tags(tags: &[String], entry: &Entry, before: Option<&Entry>) -> Vec<String> {
    let brought = |tag: &&String| before.is_some_and(|before| before.tags.contains(tag));
    let own = tags.iter().filter(|tag| !brought(tag));
    let mut made: Vec<_> = own.chain(&entry.tags).cloned().collect();
    made.sort();
    made.dedup();
    if made.len() > MOST_TAGS {
        tags.to_vec()
    } else {
        made
    }
}

fn said_or_taken_back(field: &mut Option<String>, says: Option<&String>, said: Option<&String>) {
    if says.is_some() {
        *field = says.cloned();
    } else if said.is_some() && field.as_ref() == said {
        *field = None;
    }
}

/// What differs, as objects of the fields before and after.
pub fn difference(before: &KnownHost, after: &KnownHost) -> (Value, Value) {
    let (mut was, mut is) = (Map::new(), Map::new());
    let fields = |host: &KnownHost| match serde_json::to_value(host) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let after = fields(after);
    for (name, value) in fields(before) {
        let made = after.get(&name).cloned().unwrap_or_default();
        if made != value {
            was.insert(name.clone(), value);
            is.insert(name, made);
        }
    }
    (Value::Object(was), Value::Object(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_an_operator_or_an_agent_said_stays() {
        let entry = Entry {
            name: "inventory".to_owned(),
            addresses: vec!["10.0.0.1".parse().expect("an address")],
            tags: texts(&["a"]),
            owner: Some("ops".to_owned()),
            ..Entry::default()
        };
        let mut host = KnownHost {
            name: "mine".to_owned(),
            edited: texts(&["name", "tags", "owner", "addresses"]),
            ..KnownHost::default()
        };
        assert_eq!(changed(&host, &entry, None, NOW), host);
        host.edited.clear();
        host.has_agent = true;
        let made = changed(&host, &entry, None, NOW);
        assert_eq!((made.name.as_str(), made.addresses.len()), ("mine", 0));
        assert_eq!(
            (made.tags.as_slice(), made.owner.as_deref()),
            (&texts(&["a"])[..], Some("ops"))
        );
    }

    #[test]
    fn a_source_takes_back_only_what_it_brought() {
        let said = Entry {
            tags: texts(&["a", "b"]),
            owner: Some("ops".to_owned()),
            environment: Some("prod".to_owned()),
            ..Entry::default()
        };
        let host = KnownHost {
            tags: texts(&["a", "b", "own"]),
            owner: Some("ops".to_owned()),
            environment: Some("test".to_owned()),
            ..KnownHost::default()
        };
        let says = Entry {
            tags: texts(&["b", "c"]),
            ..Entry::default()
        };
        let made = changed(&host, &says, Some(&said), NOW);
        assert_eq!(made.tags, texts(&["b", "c", "own"]));
        assert_eq!(
            (made.owner, made.environment.as_deref()),
            (None, Some("test"))
        );
    }
}
