//! Which attributes of which resources tell the host that a resource is. The table is data: an operator's configuration
//! may add to it, and a tag `infratrack_host` names a host whatever the type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::json::Json;

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
            Self::Mac => "mac",
            Self::PublicAddress => "public_address",
            Self::PrivateAddress => "private_address",
            Self::Fqdn => "fqdn",
            Self::Name => "name",
        }
    }
}

/// An attribute of a type and what it is. In `path`, `/` goes down and `*` is each item of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: String,
    pub mark: Mark,
}

/// All rules, by type.
#[derive(Clone, Debug)]
pub struct Table {
    rules: BTreeMap<String, Vec<(String, Mark)>>,
}

impl Default for Table {
    fn default() -> Self {
        Self::with(&[])
    }
}

impl Table {
    /// The built-in rules and some more.
    pub fn with(more: &[Rule]) -> Self {
        let mut rules: BTreeMap<String, Vec<(String, Mark)>> = BTreeMap::new();
        for (kinds, paths) in BUILT_IN {
            for kind in *kinds {
                let own = rules.entry((*kind).to_owned()).or_default();
                own.extend(paths.iter().map(|(path, mark)| ((*path).to_owned(), *mark)));
            }
        }
        for rule in more {
            let own = rules.entry(rule.kind.clone()).or_default();
            own.push((rule.path.clone(), rule.mark));
        }
        Self { rules }
    }

    /// The values of a resource that may name a host.
    pub fn marks(&self, kind: &str, value: &Json) -> BTreeMap<Mark, Vec<String>> {
        let mut marks: BTreeMap<Mark, Vec<String>> = BTreeMap::new();
        let mut add = |mark: Mark, text: &str| {
            let values = marks.entry(mark).or_default();
            let is_value = !text.is_empty() && text.len() <= LONGEST && values.len() < MOST;
            if is_value && !values.iter().any(|value| value == text) {
                values.push(text.to_owned());
            }
        };
        for (path, mark) in self.rules.get(kind).into_iter().flatten() {
            let path: Vec<&str> = path.split('/').collect();
            each(value, &path, &mut |text| add(*mark, text));
        }
        for tags in TAGS.iter().filter_map(|name| value.get(name)) {
            if let Some(host) = tags.get(TAG).and_then(Json::as_str) {
                add(Mark::Host, host);
            }
            for tag in tags.items().iter().filter_map(Json::as_str) {
                if let Some((TAG, host)) = tag.split_once([':', '=']) {
                    add(Mark::Host, host);
                }
            }
        }
        marks.retain(|_, values| !values.is_empty());
        marks
    }
}

/// Calls `found` with every text or number at a path.
fn each(value: &Json, path: &[&str], found: &mut impl FnMut(&str)) {
    match path {
        [] => {
            if let Some(text) = value.scalar() {
                found(text);
            }
        }
        ["*", rest @ ..] => value
            .items()
            .iter()
            .for_each(|item| each(item, rest, found)),
        [name, rest @ ..] => {
            if let Some(value) = value.get(name) {
                each(value, rest, found);
            }
        }
    }
}

type Rules = (&'static [&'static str], &'static [(&'static str, Mark)]);

const BUILT_IN: &[Rules] = &[
    (
        &["aws_instance", "aws_spot_instance_request"],
        &[
            ("id", Mark::InstanceId),
            ("spot_instance_id", Mark::InstanceId),
            ("public_ip", Mark::PublicAddress),
            ("ipv6_addresses/*", Mark::PublicAddress),
            ("private_ip", Mark::PrivateAddress),
            ("secondary_private_ips/*", Mark::PrivateAddress),
            ("private_dns", Mark::Fqdn),
            ("public_dns", Mark::Fqdn),
            ("tags_all/Name", Mark::Name),
            ("tags/Name", Mark::Name),
        ],
    ),
    (
        &[
            "google_compute_instance",
            "google_compute_instance_from_template",
        ],
        &[
            ("instance_id", Mark::InstanceId),
            (
                "network_interface/*/access_config/*/nat_ip",
                Mark::PublicAddress,
            ),
            ("network_interface/*/network_ip", Mark::PrivateAddress),
            ("hostname", Mark::Fqdn),
            ("name", Mark::Name),
        ],
    ),
    (
        &[
            "azurerm_linux_virtual_machine",
            "azurerm_windows_virtual_machine",
            "azurerm_virtual_machine",
        ],
        &[
            ("virtual_machine_id", Mark::Uuid),
            ("public_ip_addresses/*", Mark::PublicAddress),
            ("private_ip_addresses/*", Mark::PrivateAddress),
            ("computer_name", Mark::Name),
            ("name", Mark::Name),
        ],
    ),
    (
        &["digitalocean_droplet"],
        &[
            ("id", Mark::InstanceId),
            ("id", Mark::Serial),
            ("ipv4_address", Mark::PublicAddress),
            ("ipv6_address", Mark::PublicAddress),
            ("ipv4_address_private", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["hcloud_server"],
        &[
            ("id", Mark::InstanceId),
            ("id", Mark::Serial),
            ("ipv4_address", Mark::PublicAddress),
            ("ipv6_address", Mark::PublicAddress),
            ("network/*/ip", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["vultr_instance", "vultr_bare_metal_server"],
        &[
            ("id", Mark::InstanceId),
            ("id", Mark::Serial),
            ("main_ip", Mark::PublicAddress),
            ("v6_main_ip", Mark::PublicAddress),
            ("internal_ip", Mark::PrivateAddress),
            ("hostname", Mark::Name),
        ],
    ),
    (
        &["openstack_compute_instance_v2"],
        &[
            ("id", Mark::InstanceId),
            ("id", Mark::Uuid),
            ("network/*/mac", Mark::Mac),
            ("access_ip_v4", Mark::PrivateAddress),
            ("access_ip_v6", Mark::PublicAddress),
            ("network/*/fixed_ip_v4", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["vsphere_virtual_machine"],
        &[
            ("uuid", Mark::Uuid),
            ("id", Mark::Uuid),
            ("network_interface/*/mac_address", Mark::Mac),
            ("default_ip_address", Mark::PrivateAddress),
            ("guest_ip_addresses/*", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["libvirt_domain"],
        &[
            ("id", Mark::Uuid),
            ("network_interface/*/mac", Mark::Mac),
            ("network_interface/*/addresses/*", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["proxmox_vm_qemu", "proxmox_lxc"],
        &[
            ("smbios/*/uuid", Mark::Uuid),
            ("network/*/macaddr", Mark::Mac),
            ("default_ipv4_address", Mark::PrivateAddress),
            ("ssh_host", Mark::PrivateAddress),
            ("name", Mark::Name),
            ("hostname", Mark::Name),
        ],
    ),
    (
        &["proxmox_virtual_environment_vm"],
        &[
            ("mac_addresses/*", Mark::Mac),
            ("ipv4_addresses/*/*", Mark::PrivateAddress),
            ("ipv6_addresses/*/*", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["linode_instance"],
        &[
            ("id", Mark::InstanceId),
            ("ip_address", Mark::PublicAddress),
            ("private_ip_address", Mark::PrivateAddress),
            ("label", Mark::Name),
        ],
    ),
    (
        &["scaleway_instance_server"],
        &[
            ("id", Mark::InstanceId),
            ("public_ip", Mark::PublicAddress),
            ("public_ips/*/address", Mark::PublicAddress),
            ("private_ip", Mark::PrivateAddress),
            ("private_ips/*/address", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["oci_core_instance"],
        &[
            ("id", Mark::InstanceId),
            ("public_ip", Mark::PublicAddress),
            ("private_ip", Mark::PrivateAddress),
            ("hostname_label", Mark::Name),
            ("display_name", Mark::Name),
        ],
    ),
    (
        &["yandex_compute_instance"],
        &[
            ("id", Mark::InstanceId),
            ("network_interface/*/nat_ip_address", Mark::PublicAddress),
            ("network_interface/*/ip_address", Mark::PrivateAddress),
            ("fqdn", Mark::Fqdn),
            ("name", Mark::Name),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(kind: &str, text: &str) -> Vec<String> {
        let value = Json::parse(text.as_bytes()).unwrap();
        let marks = Table::default().marks(kind, &value);
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
        };
        let table = Table::with(&[rule]);
        let value = Json::parse(br#"{"nics":[{"mac":"aa"}]}"#).unwrap();
        assert_eq!(table.marks("own_server", &value)[&Mark::Mac], ["aa"]);
    }
}
