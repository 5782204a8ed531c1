//! `facts.dmi`: what the firmware says of the machine, and the cloud it betrays.
//!
//! Serial number and UUID are readable by root only; an agent without rights leaves them out. The
//! cloud's instance id ties a Terraform resource to this host, so it is given only where it is
//! certain: from the firmware, else from cloud-init's record of this boot.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root};

const FIELDS: &[(&str, &str)] = &[
    ("vendor", "sys_vendor"),
    ("product", "product_name"),
    ("product_version", "product_version"),
    ("family", "product_family"),
    ("sku", "product_sku"),
    ("serial", "product_serial"),
    ("uuid", "product_uuid"),
    ("board_vendor", "board_vendor"),
    ("board_product", "board_name"),
    ("bios_vendor", "bios_vendor"),
    ("bios_version", "bios_version"),
    ("bios_date", "bios_date"),
    ("chassis_type", "chassis_type"),
];
/// What vendors write who have nothing to say, in lower case.
const PLACEHOLDERS: &[&str] = &[
    "0123456789",
    "default string",
    "n/a",
    "none",
    "not applicable",
    "not available",
    "not specified",
    "system manufacturer",
    "system product name",
    "system serial number",
    "system version",
    "to be filled by o.e.m.",
    "unknown",
];
/// Every virtual machine of Azure has this tag on its chassis.
const AZURE_CHASSIS: &str = "7783-7084-3265-9085-8269-3286-77";

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Cloud {
    provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<String>,
}

/// The body of `facts.dmi`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let mut facts: BTreeMap<&str, rmpv::Value> = FIELDS
        .iter()
        .filter_map(|(name, file)| Some((*name, field(root, file)?.into())))
        .collect();
    if let Some(cloud) = cloud(root) {
        facts.insert("cloud", to_value(&cloud)?);
    }
    if facts.is_empty() {
        return Err("no firmware tables (/sys/class/dmi/id)".to_owned());
    }
    to_value(&facts)
}

fn field(root: &Root, file: &str) -> Option<String> {
    let text = root.find(&format!("sys/class/dmi/id/{file}"))?;
    let is_placeholder = PLACEHOLDERS.contains(&text.to_lowercase().as_str());
    (!is_placeholder).then_some(text)
}

fn cloud(root: &Root) -> Option<Cloud> {
    let field = |file| field(root, file);
    let text = |file| field(file).unwrap_or_default();
    let (vendor, product) = (text("sys_vendor"), text("product_name"));
    let chassis = text("chassis_asset_tag");
    let (provider, told) = if vendor == "Amazon EC2" {
        (
            "aws",
            field("board_asset_tag").filter(|id| id.starts_with("i-")),
        )
    } else if text("bios_version").contains("amazon") || xen_uuid_is_amazons(root) {
        // The older instances, on Xen.
        ("aws", None)
    } else if product == "Google Compute Engine" {
        ("gcp", None)
    } else if chassis == AZURE_CHASSIS {
        (
            "azure",
            field("product_uuid").map(|uuid| uuid.to_lowercase()),
        )
    } else if vendor == "DigitalOcean" {
        ("digitalocean", field("product_serial"))
    } else if vendor == "Hetzner" {
        ("hetzner", field("product_serial"))
    } else if chassis == "OracleCloud.com" {
        ("oracle", None)
    } else if vendor == "Alibaba Cloud" {
        ("alibaba", None)
    } else if vendor == "Scaleway" {
        (
            "scaleway",
            field("product_uuid").map(|uuid| uuid.to_lowercase()),
        )
    } else if vendor == "Vultr" {
        ("vultr", field("product_serial"))
    } else if vendor == "Akamai" || vendor == "Linode" {
        ("linode", None)
    } else if vendor.starts_with("OpenStack") || product.starts_with("OpenStack") {
        (
            "openstack",
            field("product_uuid").map(|uuid| uuid.to_lowercase()),
        )
    } else {
        return None;
    };
    // Written at each boot, unlike the copy on the disk, which an image may have brought along.
    let instance_id = told.or_else(|| root.find("run/cloud-init/.instance-id"));
    Some(Cloud {
        provider,
        instance_id,
    })
}

fn xen_uuid_is_amazons(root: &Root) -> bool {
    root.find("sys/hypervisor/uuid")
        .is_some_and(|uuid| uuid.starts_with("ec2"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::fixture;

    fn told(files: &[(&str, &str)]) -> Option<Cloud> {
        let in_place: Vec<_> = files
            .iter()
            .map(|(file, text)| {
                let directory = if file.contains('/') {
                    ""
                } else {
                    "sys/class/dmi/id/"
                };
                (format!("{directory}{file}"), *text)
            })
            .collect();
        let in_place: Vec<_> = in_place
            .iter()
            .map(|(file, text)| (file.as_str(), *text))
            .collect();
        let (_keep, root) = fixture::host(&in_place);
        cloud(&root)
    }

    #[test]
    fn clouds_are_known_by_their_firmware() {
        let amazon = ("sys_vendor", "Amazon EC2\n");
        let boot = ("run/cloud-init/.instance-id", "4711\n");
        for (files, provider, id) in [
            (
                vec![amazon, ("board_asset_tag", "i-0abc\n")],
                "aws",
                Some("i-0abc"),
            ),
            (
                vec![amazon, ("board_asset_tag", "Not Specified\n")],
                "aws",
                None,
            ),
            (vec![("bios_version", "4.11.amazon\n")], "aws", None),
            (
                vec![("sys/hypervisor/uuid", "ec2e1916-9099\n")],
                "aws",
                None,
            ),
            (
                vec![("product_name", "Google Compute Engine\n"), boot],
                "gcp",
                Some("4711"),
            ),
            (
                vec![
                    ("chassis_asset_tag", AZURE_CHASSIS),
                    ("product_uuid", "AB-C"),
                ],
                "azure",
                Some("ab-c"),
            ),
            (
                vec![("sys_vendor", "DigitalOcean"), ("product_serial", "99")],
                "digitalocean",
                Some("99"),
            ),
            (
                vec![("sys_vendor", "Hetzner\n"), boot],
                "hetzner",
                Some("4711"),
            ),
        ] {
            let expected = Cloud {
                provider,
                instance_id: id.map(str::to_owned),
            };
            assert_eq!(told(&files), Some(expected), "{files:?}");
        }
        assert_eq!(told(&[("sys_vendor", "Dell Inc."), boot]), None);
    }

    #[test]
    fn what_the_vendor_left_blank_is_left_out() {
        let (_keep, root) = fixture::host(&[
            ("sys/class/dmi/id/sys_vendor", "Supermicro\n"),
            ("sys/class/dmi/id/product_name", "Default string\n"),
            (
                "sys/class/dmi/id/product_version",
                "To Be Filled By O.E.M.\n",
            ),
            ("sys/class/dmi/id/bios_date", "05/11/2023\n"),
        ]);
        let expected = json!({"vendor": "Supermicro", "bios_date": "05/11/2023"});
        assert_eq!(fixture::json(&collect(&root).unwrap()), expected);
    }

    #[test]
    fn without_firmware_tables_there_is_a_reason() {
        let (_keep, root) = fixture::host(&[]);
        assert!(collect(&root).unwrap_err().contains("/sys/class/dmi/id"));
    }
}
