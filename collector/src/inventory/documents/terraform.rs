//! `terraform show -json` of a state, `OpenTofu`'s too: the resources that are hosts, by a table of their types.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Document, Found, Refused, path, value};

/// What a type of resource says where. Paths are as in [`path`].
struct Type {
    name: &'static str,
    instance_id: &'static [&'static str],
    names: &'static [&'static str],
    addresses: &'static [&'static str],
    tags: &'static [&'static str],
}

const fn of(
    name: &'static str,
    instance_id: &'static [&'static str],
    names: &'static [&'static str],
    addresses: &'static [&'static str],
    tags: &'static [&'static str],
) -> Type {
    Type {
        name,
        instance_id,
        names,
        addresses,
        tags,
    }
}

const AZURE: [&str; 4] = [
    "private_ip_address",
    "private_ip_addresses/*",
    "public_ip_address",
    "public_ip_addresses/*",
];

/// The resources that are hosts. docs/inventory.md has this table in words.
#[rustfmt::skip]
const TYPES: [Type; 17] = [
    of("aws_instance", &["id"], &["tags_all/Name", "tags/Name", "private_dns", "id"],
       &["private_ip", "public_ip", "ipv6_addresses/*"], &["tags_all", "tags"]),
    of("aws_spot_instance_request", &["spot_instance_id"], &["tags_all/Name", "tags/Name", "spot_instance_id"],
       &["private_ip", "public_ip", "ipv6_addresses/*"], &["tags_all", "tags"]),
    of("google_compute_instance", &["instance_id"], &["name", "hostname"],
       &["network_interface/*/network_ip", "network_interface/*/access_config/*/nat_ip"], &["labels", "tags"]),
    of("azurerm_linux_virtual_machine", &["virtual_machine_id", "id"], &["computer_name", "name"], &AZURE, &["tags"]),
    of("azurerm_windows_virtual_machine", &["virtual_machine_id", "id"], &["computer_name", "name"], &AZURE, &["tags"]),
    of("azurerm_virtual_machine", &["id"], &["os_profile/*/computer_name", "name"], &[], &["tags"]),
    of("digitalocean_droplet", &["id"], &["name"], &["ipv4_address", "ipv4_address_private", "ipv6_address"], &["tags"]),
    of("hcloud_server", &["id"], &["name"], &["ipv4_address", "ipv6_address", "network/*/ip"], &["labels"]),
    of("vultr_instance", &["id"], &["hostname", "label"], &["main_ip", "internal_ip", "v6_main_ip"], &["tags"]),
    of("openstack_compute_instance_v2", &["id"], &["name"],
       &["access_ip_v4", "access_ip_v6", "network/*/fixed_ip_v4", "network/*/fixed_ip_v6"], &["metadata", "tags"]),
    of("vsphere_virtual_machine", &["uuid", "id"], &["name"], &["default_ip_address", "guest_ip_addresses/*"], &[]),
    of("libvirt_domain", &["id"], &["name"], &["network_interface/*/addresses/*"], &[]),
    of("proxmox_vm_qemu", &["vmid", "id"], &["name"], &["default_ipv4_address", "ssh_host"], &["tags"]),
    of("proxmox_virtual_environment_vm", &["vm_id", "id"], &["name"], &["ipv4_addresses/*/*", "ipv6_addresses/*/*"], &["tags"]),
    of("linode_instance", &["id"], &["label"], &["ip_address", "private_ip_address", "ipv4/*", "ipv6"], &["tags"]),
    of("scaleway_instance_server", &["id"], &["name"], &["public_ips/*/address", "private_ips/*/address", "public_ip", "private_ip"], &["tags"]),
    of("oci_core_instance", &["id"], &["display_name"], &["private_ip", "public_ip"], &["freeform_tags"]),
];

#[derive(Deserialize)]
struct State<'a> {
    format_version: Option<String>,
    #[serde(borrow)]
    values: Option<Values<'a>>,
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    root_module: Option<Module<'a>>,
}

#[derive(Deserialize)]
struct Module<'a> {
    #[serde(borrow, default)]
    resources: Vec<Resource<'a>>,
    #[serde(borrow, default)]
    child_modules: Vec<Module<'a>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    address: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    mode: String,
    /// Of an object that was replaced and is still to be destroyed.
    deposed_key: Option<String>,
    #[serde(borrow)]
    values: Option<&'a RawValue>,
}

/// Reads a state.
pub fn read(text: &str) -> Result<Document, Refused> {
    let parts: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|error| {
        Refused::whole(format!("is not the JSON of terraform show -json: {error}"))
    })?;
    if !parts.contains_key("values") || parts.contains_key("planned_values") {
        // A state without any resource has but its format.
        let bare = parts.keys().all(|key| {
            matches!(
                key.as_str(),
                "format_version" | "terraform_version" | "checks"
            )
        });
        if !bare || !parts.contains_key("format_version") {
            let detail = format!(
                "is not the state of terraform show -json{}",
                looks_like(&parts)
            );
            return Err(Refused::whole(detail));
        }
    }
    let state: State<'_> = serde_json::from_str(text)
        .map_err(|error| Refused::whole(format!("is refused: {error}")))?;
    let version = state.format_version.unwrap_or_default();
    let major = version.split('.').next().unwrap_or_default();
    if !matches!(major, "0" | "1") {
        let detail = format!(
            "is {:?}; states of format 0.x and 1.x are read",
            version.chars().take(20).collect::<String>()
        );
        return Err(Refused::at("/format_version", detail));
    }
    let (mut document, mut keys) = (Document::default(), BTreeSet::new());
    if let Some(module) = state.values.and_then(|values| values.root_module) {
        hosts("/values/root_module", &module, &mut document, &mut keys)?;
    }
    Ok(document)
}

/// Modules are no deeper than `serde_json` reads.
fn hosts(
    place: &str,
    module: &Module<'_>,
    document: &mut Document,
    keys: &mut BTreeSet<String>,
) -> Result<(), Refused> {
    for (index, resource) in module.resources.iter().enumerate() {
        let Some(kind) = TYPES.iter().find(|kind| kind.name == resource.kind) else {
            continue;
        };
        let (Some(raw), "managed") = (resource.values, resource.mode.as_str()) else {
            continue;
        };
        let place = format!("{place}/resources/{index}");
        let values = value(&format!("{place}/values"), raw)?;
        document.push(&place, found(kind, resource, &values), keys)?;
    }
    for (index, child) in module.child_modules.iter().enumerate() {
        hosts(
            &format!("{place}/child_modules/{index}"),
            child,
            document,
            keys,
        )?;
    }
    Ok(())
}

fn found(kind: &Type, resource: &Resource<'_>, values: &Value) -> Found {
    let deposed = resource.deposed_key.as_deref().unwrap_or_default();
    let state = path::text(values, &["instance_state", "state"]);
    Found {
        key: format!("{} {deposed}", resource.address)
            .trim_end()
            .to_owned(),
        name: path::text(values, kind.names).unwrap_or_else(|| resource.address.clone()),
        instance_id: path::text(values, kind.instance_id),
        addresses: path::addresses(values, kind.addresses),
        lookup: None,
        tags: path::tags(values, kind.tags),
        environment: path::tagged(values, kind.tags, &["environment", "env"]),
        owner: path::tagged(values, kind.tags, &["owner"]),
        destroyed: state.is_some_and(|state| state.eq_ignore_ascii_case("terminated")),
    }
}

/// What else a document may be, for its refusal.
pub fn looks_like(parts: &BTreeMap<String, &RawValue>) -> String {
    let has = |key: &str| parts.contains_key(key);
    let what = if has("planned_values") || has("resource_changes") {
        "a plan; sync the state after apply, terraform show -json without a plan's file"
    } else if has("plan_format_version") {
        "a plan of HCP Terraform; sync the state after apply"
    } else if has("lineage") && has("serial") {
        "a raw state snapshot; send the output of terraform show -json"
    } else if has("@level") {
        "the log of terraform plan -json; send the output of terraform show -json"
    } else if has("_meta") {
        "an Ansible inventory; its kind is ansible"
    } else if has("values") {
        "a state of Terraform; its kind is terraform"
    } else {
        return String::new();
    };
    format!("; it looks like {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"{"format_version": "1.0", "terraform_version": "1.11.4", "values": {"outputs": {}, "root_module": {
      "resources": [
        {"address": "aws_instance.web[0]", "mode": "managed", "type": "aws_instance", "name": "web", "index": 0,
         "provider_name": "registry.terraform.io/hashicorp/aws", "schema_version": 1,
         "values": {"id": "i-0abc", "instance_state": "running", "private_ip": "10.0.0.1", "public_ip": "",
                    "ipv6_addresses": ["2001:db8::1"], "tags": {"Name": "web-1", "env": "prod"}, "tags_all": {"Name": "web-1", "env": "prod"}},
         "sensitive_values": {}},
        {"address": "aws_instance.web[1]", "mode": "managed", "type": "aws_instance", "name": "web", "index": 1, "deposed_key": "00c0ffee",
         "values": {"id": "i-0old", "instance_state": "terminated", "tags": null}},
        {"address": "data.aws_instance.other", "mode": "data", "type": "aws_instance", "name": "other", "values": {"id": "i-0data"}},
        {"address": "aws_s3_bucket.b", "mode": "managed", "type": "aws_s3_bucket", "name": "b", "values": {"id": "b"}}],
      "child_modules": [{"address": "module.do", "child_modules": [{"address": "module.do.module.x", "resources": [
        {"address": "module.do.module.x.digitalocean_droplet.d", "mode": "managed", "type": "digitalocean_droplet", "name": "d",
         "values": {"id": "3164444", "name": "drop-1", "ipv4_address": "203.0.113.5", "ipv4_address_private": "10.10.0.5", "tags": ["blue"]}},
        {"address": "module.do.module.x.proxmox_virtual_environment_vm.v", "mode": "managed", "type": "proxmox_virtual_environment_vm", "name": "v",
         "values": {"vm_id": 105, "name": "vm", "ipv4_addresses": [["127.0.0.1"], ["192.0.2.9"]]}}]}]}]}}}"#;

    #[test]
    fn hosts_are_found_in_every_module_by_the_table_of_types() {
        let document = read(STATE).expect("read");
        let names: Vec<_> = document
            .entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.key.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                ("web-1", "i-0abc"),
                ("i-0old", "i-0old"),
                ("drop-1", "3164444"),
                ("vm", "105")
            ]
        );
        let web = &document.entries[0];
        assert_eq!(web.addresses.len(), 2, "an empty text is no address");
        assert_eq!(web.tags, ["Name=web-1", "env=prod"]);
        assert_eq!(web.environment.as_deref(), Some("prod"));
        assert!(document.entries[1].destroyed && !web.destroyed);
        assert_eq!(document.entries[2].tags, ["blue"]);
        assert_eq!(
            document.entries[3].addresses.len(),
            1,
            "loopback is everybody's"
        );
    }

    #[test]
    fn a_state_without_resources_is_an_empty_inventory() {
        for text in [
            r#"{"format_version":"1.0"}"#,
            r#"{"format_version":"1.0","terraform_version":"1.9.0","values":{"root_module":{}}}"#,
        ] {
            assert_eq!(read(text), Ok(Document::default()), "{text}");
        }
    }

    #[test]
    fn what_is_no_state_is_refused_by_what_it_is() {
        for (text, words) in [
            (
                r#"{"format_version":"1.2","planned_values":{},"resource_changes":[]}"#,
                "it looks like a plan;",
            ),
            (
                r#"{"format_version":"1.2","planned_values":{},"values":{}}"#,
                "it looks like a plan;",
            ),
            (
                r#"{"version":4,"serial":3,"lineage":"x","resources":[]}"#,
                "a raw state snapshot",
            ),
            (r#"{"_meta":{}}"#, "an Ansible inventory"),
            (r#"{"@level":"info"}"#, "the log of terraform plan -json"),
            (
                "{}",
                "the document is not the state of terraform show -json",
            ),
            (
                r#"{"format_version":"2.0","values":{}}"#,
                "/format_version is \"2.0\"",
            ),
            (r#"{"values":{}}"#, "/format_version is \"\""),
            (
                r#"{"format_version":"1.0","values":{"root_module":{"resources":[{}]}}}"#,
                "missing field `address`",
            ),
            ("{} x", "trailing characters"),
            ("terraform show", "is not the JSON of terraform show -json"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
