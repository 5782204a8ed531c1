//! `facts.block_devices`: disks and volumes with their partitions, from `/sys/block`.
//!
//! Loop and memory devices come and go with packages and are nobody's hardware; they are left out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root};

/// `/sys` gives sizes in sectors of this many bytes, whatever the disk has.
const SECTOR_BYTES: u64 = 512;

#[derive(Serialize)]
struct Facts {
    devices: BTreeMap<String, Device>,
}

#[derive(Serialize)]
struct Device {
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// A mapped device's name: `vg0-root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// A RAID's level: `raid1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    raid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotational: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_only: Option<bool>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    partitions: BTreeMap<String, Partition>,
}

#[derive(Serialize)]
struct Partition {
    size_bytes: u64,
}

/// The body of `facts.block_devices`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let devices = root
        .names("sys/block")?
        .into_iter()
        .filter(|name| {
            !["loop", "ram"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .filter_map(|name| device(root, &name).map(|device| (name, device)))
        .collect();
    to_value(&Facts { devices })
}

/// The device, unless it is an empty drive.
fn device(root: &Root, name: &str) -> Option<Device> {
    let at = format!("sys/block/{name}");
    let size_bytes = size(root, &at).filter(|size| *size > 0)?;
    let text = |file: &str| root.find(&format!("{at}/{file}"));
    let flag = |file: &str| root.find_flag(&format!("{at}/{file}"));
    Some(Device {
        size_bytes,
        vendor: text("device/vendor").filter(|vendor| !vendor.starts_with("0x")),
        model: text("device/model"),
        name: text("dm/name"),
        raid: text("md/level"),
        rotational: flag("queue/rotational"),
        removable: flag("removable"),
        read_only: flag("ro"),
        partitions: partitions(root, &at),
    })
}

fn partitions(root: &Root, device: &str) -> BTreeMap<String, Partition> {
    let names = root.names(device).unwrap_or_default();
    names
        .into_iter()
        .filter(|name| root.exists(&format!("{device}/{name}/partition")))
        .filter_map(|name| {
            let size_bytes = size(root, &format!("{device}/{name}"))?;
            Some((name, Partition { size_bytes }))
        })
        .collect()
}

fn size(root: &Root, at: &str) -> Option<u64> {
    root.find_number(&format!("{at}/size"))?
        .checked_mul(SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::fixture;

    #[test]
    fn disks_have_their_partitions_and_empty_drives_and_loops_are_left_out() {
        let (_keep, root) = fixture::host(&[
            ("sys/block/loop0/size", "100\n"),
            ("sys/block/sr0/size", "0\n"),
            ("sys/block/dm-0/size", "8\n"),
            ("sys/block/dm-0/dm/name", "vg0-root\n"),
            ("sys/block/sda/size", "2000409264\n"),
            ("sys/block/sda/removable", "0\n"),
            ("sys/block/sda/ro", "0\n"),
            ("sys/block/sda/queue/rotational", "1\n"),
            ("sys/block/sda/device/vendor", "ATA     \n"),
            ("sys/block/sda/device/model", "Samsung SSD 870 \n"),
            ("sys/block/sda/sda1/partition", "1\n"),
            ("sys/block/sda/sda1/size", "2048\n"),
            ("sys/block/vda/size", "2\n"),
            ("sys/block/vda/device/vendor", "0x1af4\n"),
        ]);
        let expected = json!({"devices": {
            "dm-0": {"size_bytes": 4096, "name": "vg0-root"},
            "sda": {
                "size_bytes": 2_000_409_264_u64 * 512, "vendor": "ATA", "model": "Samsung SSD 870",
                "rotational": true, "removable": false, "read_only": false,
                "partitions": {"sda1": {"size_bytes": 1_048_576}},
            },
            "vda": {"size_bytes": 1024},
        }});
        assert_eq!(fixture::json(&collect(&root).unwrap()), expected);
    }
}
