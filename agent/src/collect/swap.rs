//! The swap devices in `facts.memory`, from `/proc/swaps` (proc(5)).
//!
//! How much of each is used moves by itself and is the heartbeat's. Called by memory, on hosts only:
//! a container sees its host's devices and owns none.

use serde::Serialize;

use super::mounts::unescape;
use super::{Reason, Root};

/// One device or file.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct SwapDevice {
    path: String,
    /// `partition` or `file`.
    kind: String,
    size_bytes: u64,
    /// The highest is used first; those without one of their own are negative.
    priority: i64,
}

/// The devices by their path; none is an answer too.
pub(super) fn devices(root: &Root) -> Result<Vec<SwapDevice>, Reason> {
    let text = root.text("proc/swaps")?;
    let mut devices: Vec<_> = text.lines().skip(1).filter_map(device).collect();
    devices.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(devices)
}

/// `path kind size used priority`, sizes in KiB.
fn device(line: &str) -> Option<SwapDevice> {
    let mut fields = line.split_whitespace();
    let (path, kind) = (fields.next()?, fields.next()?);
    let size_kib: u64 = fields.next()?.parse().ok()?;
    Some(SwapDevice {
        path: unescape(path),
        kind: kind.to_owned(),
        size_bytes: size_kib.checked_mul(1024)?,
        priority: fields.nth(1)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::fixture;

    const SWAPS: &str = include_str!("../../tests/fixtures/swaps-debian");

    #[test]
    fn devices_have_their_size_and_not_their_use() {
        let (_keep, root) = fixture::host(&[("proc/swaps", SWAPS)]);
        let expected = json!([
            {"path": "/dev/dm-1", "kind": "partition", "size_bytes": 999_420 * 1024, "priority": -2},
            {"path": "/dev/zram0", "kind": "partition", "size_bytes": 4_038_656_u64 * 1024,
             "priority": 100},
            {"path": "/srv/swap file", "kind": "file", "size_bytes": 2_097_148_u64 * 1024,
             "priority": -3},
        ]);
        assert_eq!(
            serde_json::to_value(devices(&root).unwrap()).unwrap(),
            expected
        );
    }

    #[test]
    fn no_device_is_an_answer_and_garbage_is_no_device() {
        let header = "Filename\tType\tSize\tUsed\tPriority\n";
        let garbage = "x\n/dev/a partition many 0 1\n/dev/b file 18446744073709551615 0 1\n";
        for text in [
            header.to_owned(),
            format!("{header}{garbage}"),
            String::new(),
        ] {
            let (_keep, root) = fixture::host(&[("proc/swaps", &text)]);
            assert_eq!(devices(&root), Ok(Vec::new()));
        }
        let (_keep, root) = fixture::host(&[]);
        assert!(devices(&root).unwrap_err().starts_with("/proc/swaps: "));
    }
}
