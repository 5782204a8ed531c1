//! `ansible-inventory --list`: hosts by their variables, groups by their hosts and children.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{DEPTH, Document, Found, Refused, address, escaped, is_name, path, value};

/// The cloud's id, as the inventory plugins of clouds name it.
const INSTANCE_ID: [&str; 7] = [
    "instance_id",
    "ec2_instance_id",
    "do_id",
    "hcloud_id",
    "vmid",
    "openstack/id",
    "infratrack_instance_id",
];
/// Where Ansible connects to; a name may stand there too.
const HOST: [&str; 2] = ["ansible_host", "ansible_ssh_host"];
const ADDRESSES: [&str; 19] = [
    "ansible_host",
    "ansible_ssh_host",
    "private_ip_address",
    "public_ip_address",
    "private_ip",
    "public_ip",
    "ec2_private_ip_address",
    "ec2_ip_address",
    "do_ip_address",
    "do_networks/v4/*/ip_address",
    "do_networks/v6/*/ip_address",
    "ipv4",
    "ipv6",
    "hcloud_ipv4",
    "private_ipv4_addresses/*",
    "public_ipv4_address/*",
    "networkInterfaces/*/networkIP",
    "networkInterfaces/*/accessConfigs/*/natIP",
    "openstack/accessIPv4",
];
/// Objects of tags.
const TAGS: [&str; 4] = ["tags", "labels", "ec2_tags", "hcloud_labels"];
/// Lists of tags.
const TAG_LISTS: [&str; 2] = ["do_tags", "infratrack_tags"];

/// The only field of an object that stands for a text in which nothing is a template.
const UNSAFE: &str = "__ansible_unsafe";
/// Likewise for what is encrypted.
const VAULT: &str = "__ansible_vault";

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default)]
    hostvars: BTreeMap<String, &'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Group {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
}

/// Reads an inventory.
pub fn read(text: &str) -> Result<Document, Refused> {
    let parts: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|error| {
        Refused::whole(format!(
            "is not the JSON of ansible-inventory --list: {error}"
        ))
    })?;
    let Some(meta) = parts.get("_meta") else {
        return Err(Refused::whole(format!(
            "has no _meta, so it is not of ansible-inventory --list{}",
            super::terraform::looks_like(&parts)
        )));
    };
    let meta: Meta<'_> = serde_json::from_str(meta.get())
        .map_err(|error| Refused::at("/_meta", format!("is refused: {error}")))?;
    let mut groups = BTreeMap::new();
    for (name, raw) in parts.iter().filter(|(name, _)| *name != "_meta") {
        let group: Group = serde_json::from_str(raw.get()).map_err(|error| {
            Refused::at(
                format!("/{}", escaped(name)),
                format!("is refused: {error}"),
            )
        })?;
        groups.insert(name.as_str(), group);
    }
    let members = members(&groups)?;
    let (mut document, mut keys) = (Document::default(), BTreeSet::new());
    let mut names: BTreeSet<&str> = members.keys().copied().collect();
    names.extend(meta.hostvars.keys().map(String::as_str));
    for name in names {
        let place = format!("/_meta/hostvars/{}", escaped(name));
        let variables = meta
            .hostvars
            .get(name)
            .map_or(Ok(Value::Null), |raw| value(&place, raw))?;
        let mut found = found(name, &unmarked(variables));
        let groups = members.get(name).into_iter().flatten();
        found
            .tags
            .extend(groups.map(|group| format!("group:{group}")));
        document.push(&place, found, &mut keys)?;
    }
    Ok(document)
}

/// Variables without Ansible's marks: of what is no template the text, of what a vault keeps nothing.
fn unmarked(value: Value) -> Value {
    match value {
        Value::Object(mut fields) if is_marked(&fields, UNSAFE) => {
            fields.remove(UNSAFE).map_or(Value::Null, unmarked)
        }
        Value::Object(fields) if is_marked(&fields, VAULT) => Value::Null,
        Value::Object(fields) => {
            // A tag whose value nobody knows is none.
            let known = fields.into_iter().filter(|(_, value)| {
                let fields = value.as_object();
                !fields.is_some_and(|fields| is_marked(fields, VAULT))
            });
            let plain = known.map(|(name, value)| (name, unmarked(value)));
            Value::Object(plain.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(unmarked).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn is_marked(fields: &Map<String, Value>, mark: &str) -> bool {
    fields.len() == 1 && fields.contains_key(mark)
}

fn found(name: &str, variables: &Value) -> Found {
    let text = |name: &str| path::text(variables, &[name]);
    let mut addresses = path::addresses(variables, &ADDRESSES);
    addresses.extend(address(name));
    let mut tags = path::tags(variables, &TAGS);
    tags.extend(path::tags(variables, &TAG_LISTS));
    let host = path::text(variables, &HOST).map(|host| host.trim().to_owned());
    let state = path::text(variables, &["state/name", "instance_state/name"]);
    Found {
        key: name.to_owned(),
        name: name.to_owned(),
        instance_id: path::text(variables, &INSTANCE_ID),
        addresses,
        lookup: host.filter(|host| address(host).is_none() && is_name(host)),
        tags,
        environment: text("infratrack_environment")
            .or_else(|| path::tagged(variables, &TAGS, &["environment", "env"])),
        owner: text("infratrack_owner").or_else(|| path::tagged(variables, &TAGS, &["owner"])),
        destroyed: state.is_some_and(|state| state == "terminated"),
    }
}

/// The groups of each host, those above its own among them; `all` and `ungrouped` say nothing.
fn members<'a>(
    groups: &'a BTreeMap<&'a str, Group>,
) -> Result<BTreeMap<&'a str, BTreeSet<&'a str>>, Refused> {
    let mut parents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, group) in groups {
        for child in &group.children {
            parents.entry(child).or_default().insert(name);
        }
    }
    let mut members: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, group) in groups {
        if group.hosts.is_empty() {
            continue;
        }
        let above = above(name, &parents)?;
        for host in &group.hosts {
            let of_host = members.entry(host).or_default();
            of_host.extend(
                above
                    .iter()
                    .filter(|name| !matches!(**name, "all" | "ungrouped")),
            );
        }
    }
    Ok(members)
}

/// The group and those above it; a ring of groups is gone round once.
fn above<'a>(
    name: &'a str,
    parents: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> Result<BTreeSet<&'a str>, Refused> {
    let mut above = BTreeSet::from([name]);
    let mut edge = vec![name];
    for _ in 0..DEPTH {
        let next = edge
            .iter()
            .filter_map(|name| parents.get(name))
            .flatten()
            .copied();
        edge = next.filter(|name| above.insert(name)).collect();
        if edge.is_empty() {
            return Ok(above);
        }
    }
    let detail = format!("has groups above it in more than {DEPTH} steps");
    Err(Refused::at(format!("/{}", escaped(name)), detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{
      "_meta": {"hostvars": {
        "web-1.example.org": {"ansible_host": "10.0.0.1", "instance_id": "i-0abc", "public_ip_address": "198.51.100.7",
            "tags": {"Name": "web-1", "Environment": "prod", "Owner": "ops"}, "state": {"code": 16, "name": "running"}},
        "drop-1": {"do_id": 3164444, "do_networks": {"v4": [{"ip_address": "203.0.113.5", "type": "public"},
            {"ip_address": "10.10.0.5", "type": "private"}], "v6": []}, "do_tags": ["blue", "not a tag"]},
        "old": {"instance_id": "i-0old", "state": {"name": "terminated"}, "ansible_host": "{{ jinja }}"}
      }},
      "all": {"children": ["ungrouped", "aws", "do"]},
      "aws": {"children": ["web"]},
      "web": {"hosts": ["web-1.example.org"]},
      "do": {"hosts": ["drop-1", "10.0.0.9"], "vars": {"ignored": true}}
    }"#;

    #[test]
    fn hosts_have_the_variables_of_their_cloud_and_all_groups_above_them() {
        let document = read(LIST).expect("read");
        let find = |name: &str| {
            document
                .entries
                .iter()
                .find(|entry| entry.name == name)
                .expect(name)
        };
        assert_eq!(document.entries.len(), 4);
        let web = find("web-1.example.org");
        assert_eq!(web.instance_id.as_deref(), Some("i-0abc"));
        assert_eq!(web.addresses.len(), 2);
        assert_eq!(
            web.tags,
            [
                "Environment=prod",
                "Name=web-1",
                "Owner=ops",
                "group:aws",
                "group:web"
            ]
        );
        assert_eq!(
            (web.environment.as_deref(), web.owner.as_deref()),
            (Some("prod"), Some("ops"))
        );
        let drop = find("drop-1");
        assert_eq!((drop.key.as_str(), drop.addresses.len()), ("3164444", 2));
        assert_eq!(drop.tags, ["blue", "group:do"]);
        assert!(find("old").destroyed && find("old").addresses.is_empty());
        assert_eq!(
            find("10.0.0.9").addresses.len(),
            1,
            "a name that is an address is one"
        );
        assert_eq!(document.warning_count, 1, "{:?}", document.warnings);
    }

    #[test]
    fn marked_texts_are_texts_and_what_a_vault_keeps_is_not_known() {
        let list = include_str!("../../../tests/fixtures/ansible/list-2.19.14.json");
        assert!(list.contains(UNSAFE) && list.contains(VAULT));
        let document = read(list).expect("read");
        let find = |name: &str| {
            let mut entries = document.entries.iter();
            entries.find(|entry| entry.name == name).expect(name)
        };
        let web = find("web-2.example.org");
        assert_eq!(web.instance_id.as_deref(), Some("i-0def"));
        assert_eq!(
            web.addresses,
            ["192.0.2.11".parse::<std::net::IpAddr>().expect("one")]
        );
        assert_eq!(web.owner.as_deref(), Some("{{ ops }}"));
        assert_eq!(web.tags, ["blue", "green", "group:web"]);
        let marked_tag = find("web-1.example.org");
        assert_eq!(
            marked_tag.tags,
            ["Environment=prod", "Owner=ops", "group:web"]
        );
        assert_eq!(marked_tag.owner.as_deref(), Some("ops"));
        let vaulted = find("vaulted.example.org");
        assert_eq!(
            (vaulted.instance_id.as_deref(), vaulted.key.as_str()),
            (None, "vaulted.example.org")
        );
        assert_eq!(vaulted.tags, ["Region=fra1", "group:web"]);
        assert_eq!(document.warning_count, 0, "{:?}", document.warnings);
    }

    #[test]
    fn what_is_no_inventory_is_refused_with_its_place() {
        let ring = r#"{"_meta": {"hostvars": {}}, "a": {"children": ["b"]}, "b": {"children": ["a"], "hosts": ["x"]}}"#;
        assert_eq!(
            read(ring).expect("read").entries[0].tags,
            ["group:a", "group:b"]
        );
        let long = format!(
            r#"{{"_meta": {{"hostvars": {{"a/b": {{"x": ["{}"]}}}}}}}}"#,
            "x".repeat(super::super::TEXT_BYTES + 1)
        );
        for (text, words) in [
            (
                "[]",
                "the document is not the JSON of ansible-inventory --list",
            ),
            ("{}", "the document has no _meta"),
            (
                r#"{"values": {}, "format_version": "1.0"}"#,
                "the document has no _meta, so it is not of ansible-inventory --list; it looks like a state",
            ),
            (r#"{"_meta": {"hostvars": []}}"#, "/_meta is refused"),
            (
                r#"{"_meta": {}, "w/eb": {"hosts": "x"}}"#,
                "/w~1eb is refused",
            ),
            (
                r#"{"_meta": {"hostvars": {"": {}}}}"#,
                "/_meta/hostvars/ has no name",
            ),
            (&long, "/_meta/hostvars/a~1b/x/0 has over"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with(words), "{error}");
        }
        let deep = format!(
            r#"{{"_meta": {{"hostvars": {{"a": {}{}}}}}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        let error = read(&deep).expect_err("deep").to_string();
        assert!(
            error.contains("/_meta/hostvars/a is refused: recursion limit"),
            "{error}"
        );
    }
}
