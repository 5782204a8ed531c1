//! Which attributes of which resources tell the host that a resource is. The table is data: an operator's configuration
//! may add to it, and a tag `infratrack_host` names a host whatever the type.

mod known;
mod shape;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::json::Json;

pub(super) use self::shape::has_shape;

/// The tag, label or metadata key that names a host.
const TAG: &str = "infratrack_host";
/// Where tags stand.
const TAGS: [&str; 6] = [
    "tags",
    "tags_all",
    "labels",
    "metadata",
    "annotations",
    "effective_labels",
];
/// Values of one mark that are kept.
const MOST: usize = 32;
/// The longest value that can name a host.
const LONGEST: usize = 255;

/// What a value is, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// The tag: an id or a name of a host.
    Host,
    /// The provider's id of the instance.
    InstanceId,
    /// Of the DMI.
    Uuid,
    /// Of the DMI.
    Serial,
    /// `/etc/machine-id`, which clones of a disk share.
    MachineId,
    Mac,
    PublicAddress,
    PrivateAddress,
    /// A full name in the DNS.
    Fqdn,
    Name,
}

impl Mark {
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::InstanceId => "instance_id",
            Self::Uuid => "uuid",
            Self::Serial => "serial",
            Self::MachineId => "machine_id",
            Self::Mac => "mac",
            Self::PublicAddress => "public_address",
            Self::PrivateAddress => "private_address",
            Self::Fqdn => "fqdn",
            Self::Name => "name",
        }
    }
}

/// Values that may name a host, by what they are.
pub type Values = BTreeMap<Mark, Vec<String>>;

/// An attribute of a type and what it is. In `path`, `/` goes down and `*` is each item of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: String,
    pub mark: Mark,
    /// The resource is not the host, but refers to it.
    #[serde(default)]
    pub affects: bool,
}

/// All rules, by type.
#[derive(Clone, Debug)]
pub struct Table {
    is: Rules,
    affects: Rules,
}

type Rules = BTreeMap<String, Vec<(String, Mark)>>;

impl Default for Table {
    fn default() -> Self {
        Self::with(&[])
    }
}

impl Table {
    /// The built-in rules and some more.
    pub fn with(more: &[Rule]) -> Self {
        let mut table = Self {
            is: built_in(known::IS),
            affects: built_in(known::AFFECTS),
        };
        for rule in more {
            let rules = if rule.affects {
                &mut table.affects
            } else {
                &mut table.is
            };
            let own = rules.entry(rule.kind.clone()).or_default();
            own.push((rule.path.clone(), rule.mark));
        }
        table
    }

    /// Whether resources of a type are hosts, or are attached to some.
    pub(super) fn has(&self, kind: &str) -> bool {
        self.is.contains_key(kind) || self.affects.contains_key(kind)
    }

    /// What the attribute `id` of a type is.
    pub fn of_id(&self, kind: &str) -> impl Iterator<Item = Mark> {
        let own = self.is.get(kind).into_iter().flatten();
        own.filter(|(path, _)| path == "id").map(|(_, mark)| *mark)
    }

    /// The values of a resource that may name the host that others attach it to.
    pub fn affected(&self, kind: &str, side: Side<'_>) -> Values {
        let mut marks = Values::new();
        of_rules(&self.affects, kind, side, &mut marks);
        marks
    }

    /// The values of a resource that may name the host that it is.
    pub fn marks(&self, kind: &str, side: Side<'_>) -> Values {
        let mut marks = Values::new();
        of_rules(&self.is, kind, side, &mut marks);
        let mut add = |mark, text: &str| add(&mut marks, mark, text);
        for tags in TAGS.iter().filter_map(|name| side.get(name)) {
            if let Some(host) = tags.get(TAG).and_then(Side::text) {
                add(Mark::Host, host);
            }
            for tag in tags.items().filter_map(Side::text) {
                if let Some((TAG, host)) = tag.split_once([':', '=']) {
                    add(Mark::Host, host);
                }
            }
        }
        marks
    }
}

/// Values of a resource, with what is said to be sensitive of them: that names no host.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    pub value: &'a Json,
    pub mask: Option<&'a Json>,
}

impl<'a> Side<'a> {
    /// Values of which nothing is sensitive.
    pub fn plain(value: &'a Json) -> Self {
        Self { value, mask: None }
    }

    /// Unless all of it is sensitive.
    fn seen(self) -> Option<Self> {
        (self.mask != Some(&Json::Bool(true))).then_some(self)
    }

    fn get(self, name: &str) -> Option<Self> {
        let value = self.seen()?.value.get(name)?;
        let mask = self.mask.and_then(|mask| mask.get(name));
        Some(Self { value, mask })
    }

    fn items(self) -> impl Iterator<Item = Self> {
        let values = self.seen().map(|side| side.value.items());
        let masks = self.mask.map(Json::items).unwrap_or_default();
        let values = values.unwrap_or_default().iter().enumerate();
        values.map(|(index, value)| Self {
            value,
            mask: masks.get(index),
        })
    }

    fn scalar(self) -> Option<&'a str> {
        self.seen()?.value.scalar()
    }

    fn text(self) -> Option<&'a str> {
        self.seen()?.value.as_str()
    }
}

fn built_in(rules: &[known::BuiltIn]) -> Rules {
    let mut table = Rules::new();
    for (kinds, paths) in rules {
        for kind in *kinds {
            let own = table.entry((*kind).to_owned()).or_default();
            own.extend(paths.iter().map(|(path, mark)| ((*path).to_owned(), *mark)));
        }
    }
    table
}

fn of_rules(rules: &Rules, kind: &str, side: Side<'_>, marks: &mut Values) {
    for (path, mark) in rules.get(kind).into_iter().flatten() {
        let path: Vec<&str> = path.split('/').collect();
        each(side, &path, &mut |text| add(marks, *mark, text));
    }
}

fn add(marks: &mut Values, mark: Mark, text: &str) {
    if text.is_empty() || text.len() > LONGEST {
        return;
    }
    let values = marks.entry(mark).or_default();
    if values.len() < MOST && !values.iter().any(|value| value == text) {
        values.push(text.to_owned());
    }
}

/// Calls `found` with every text or number at a path.
fn each(side: Side<'_>, path: &[&str], found: &mut impl FnMut(&str)) {
    match path {
        [] => {
            if let Some(text) = side.scalar() {
                found(text);
            }
        }
        ["*", rest @ ..] => side.items().for_each(|item| each(item, rest, found)),
        [name, rest @ ..] => {
            if let Some(side) = side.get(name) {
                each(side, rest, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(kind: &str, text: &str) -> Vec<String> {
        let value = Json::parse(text.as_bytes()).unwrap();
        line_of(&Table::default().marks(kind, Side::plain(&value)))
    }

    fn line_of(marks: &Values) -> Vec<String> {
        let each = marks
            .iter()
            .map(|(mark, values)| format!("{}={}", mark.name(), values.join(",")));
        each.collect()
    }

    #[test]
    fn what_tells_a_host_is_found_by_type() {
        let aws = r#"{"id":"i-1","private_ip":"10.0.0.1","public_ip":"","tags":{"Name":"web"},"tags_all":{"Name":"web"}}"#;
        assert_eq!(
            marks("aws_instance", aws),
            ["instance_id=i-1", "private_address=10.0.0.1", "name=web"]
        );
        let google = r#"{"instance_id":"12","name":"a","network_interface":[{"network_ip":"10.1.1.1","access_config":[{"nat_ip":"1.2.3.4"}]}]}"#;
        assert_eq!(
            marks("google_compute_instance", google),
            [
                "instance_id=12",
                "public_address=1.2.3.4",
                "private_address=10.1.1.1",
                "name=a"
            ]
        );
        let proxmox =
            r#"{"mac_addresses":["aa","bb"],"ipv4_addresses":[["127.0.0.1"],["10.0.0.9"]]}"#;
        assert_eq!(
            marks("proxmox_virtual_environment_vm", proxmox),
            ["mac=aa,bb", "private_address=127.0.0.1,10.0.0.9"]
        );
        assert_eq!(
            marks("hcloud_server", r#"{"id":42}"#),
            ["instance_id=42", "serial=42"]
        );
        assert!(marks("aws_s3_bucket", r#"{"id":"b"}"#).is_empty());
    }

    #[test]
    fn what_is_sensitive_names_no_host_however_short_it_is() {
        let text = r#"{"private_ip":"10.0.0.1","ipv6_addresses":["2001:db8::1","2001:db8::2"],
            "tags":{"Name":"db1","infratrack_host":"db1"}}"#;
        let value = Json::parse(text.as_bytes()).unwrap();
        let marks = |mask: &str| {
            let mask = Json::parse(mask.as_bytes()).unwrap();
            let side = Side {
                value: &value,
                mask: Some(&mask),
            };
            line_of(&Table::default().marks("aws_instance", side))
        };
        assert_eq!(
            marks(r#"{"tags":{"infratrack_host":true},"ipv6_addresses":[false,true]}"#),
            [
                "public_address=2001:db8::1",
                "private_address=10.0.0.1",
                "name=db1"
            ]
        );
        assert_eq!(
            marks(r#"{"tags":true,"ipv6_addresses":true}"#),
            ["private_address=10.0.0.1"]
        );
        assert!(marks("true").is_empty());
    }

    #[test]
    fn a_tag_names_a_host_of_any_type_and_configuration_adds_types() {
        for tags in [
            r#"{"tags":{"infratrack_host":"web-1"}}"#,
            r#"{"tags":["infratrack_host:web-1"]}"#,
            r#"{"labels":{"infratrack_host":"web-1"}}"#,
        ] {
            assert_eq!(marks("any_thing", tags), ["host=web-1"]);
        }
        let rule = Rule {
            kind: "own_server".to_owned(),
            path: "nics/*/mac".to_owned(),
            mark: Mark::Mac,
            affects: false,
        };
        let table = Table::with(&[rule]);
        let value = Json::parse(br#"{"nics":[{"mac":"aa"}]}"#).unwrap();
        assert_eq!(
            table.marks("own_server", Side::plain(&value))[&Mark::Mac],
            ["aa"]
        );
        let attached = Json::parse(br#"{"instance_id":"i-1","volume_id":"vol-1"}"#).unwrap();
        let attached = Side::plain(&attached);
        assert!(table.marks("aws_volume_attachment", attached).is_empty());
        let affected = table.affected("aws_volume_attachment", attached);
        assert_eq!(affected[&Mark::InstanceId], ["i-1"]);
        assert_eq!(
            table.of_id("hcloud_server").collect::<Vec<_>>(),
            [Mark::InstanceId, Mark::Serial]
        );
    }
}
