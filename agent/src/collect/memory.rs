//! `facts.memory` and the heartbeat's memory and swap.
//!
//! A container's memory is its own limit. The host's `/proc/meminfo`, which most containers see, is
//! never passed off as theirs: without a limit the answer is "unknown" with the reason, except
//! where the container's meminfo is its own (lxcfs, `OpenVZ`).

use serde::Serialize;

use super::cgroup::{self, CgroupMemory};
use super::fact::{to_value, unknown};
use super::{Reason, Root, mounts, swap, virtualization};

/// Sizes in bytes; what is `None` has its reason in `unknown`, under the heartbeat's field name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: Option<u64>,
    pub(super) available: Option<u64>,
    pub(super) swap_total: Option<u64>,
    pub(super) swap_used: Option<u64>,
    pub(super) unknown: Vec<(&'static str, Reason)>,
}

#[derive(Serialize)]
struct Facts {
    total_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_total_bytes: Option<u64>,
    /// Left out in a container, which has none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_devices: Option<rmpv::Value>,
}

/// The body of `facts.memory`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let in_container = virtualization::container(root).is_some();
    let memory = read(root, in_container);
    let reason = |mut unknown: Vec<(_, Reason)>| unknown.drain(..).map(|(_, reason)| reason).next();
    let total_bytes = memory
        .total
        .ok_or_else(|| reason(memory.unknown).unwrap_or_default())?;
    let swap_devices = (!in_container).then(|| swap_devices(root));
    to_value(&Facts {
        total_bytes,
        swap_total_bytes: memory.swap_total,
        swap_devices: swap_devices.transpose()?,
    })
}

fn swap_devices(root: &Root) -> Result<rmpv::Value, Reason> {
    match swap::devices(root) {
        Ok(devices) => to_value(&devices),
        Err(reason) => Ok(unknown(&reason)),
    }
}

/// The memory of the host, or of the container the agent runs in.
pub(super) fn read(root: &Root, in_container: bool) -> Memory {
    let meminfo = match root.text("proc/meminfo") {
        Ok(text) => MemInfo::parse(&text),
        Err(reason) => return nothing(&reason),
    };
    if !in_container || meminfo_is_own(root) {
        return of_host(&meminfo);
    }
    match cgroup::memory(root) {
        Ok(limits) => of_container(&limits, &meminfo),
        Err(reason) => nothing(&reason),
    }
}

fn meminfo_is_own(root: &Root) -> bool {
    let lxcfs = mounts::read(root)
        .unwrap_or_default()
        .iter()
        .any(|mount| mount.point == "/proc/meminfo" && mount.kind == "fuse.lxcfs");
    lxcfs || (root.exists("proc/vz") && !root.exists("proc/bc"))
}

/// What is read of `/proc/meminfo`, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct MemInfo {
    total: Option<u64>,
    available: Option<u64>,
    swap_total: Option<u64>,
    swap_free: Option<u64>,
}

impl MemInfo {
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let slot = match name {
                "MemTotal" => &mut found.total,
                "MemAvailable" => &mut found.available,
                "SwapTotal" => &mut found.swap_total,
                "SwapFree" => &mut found.swap_free,
                _ => continue,
            };
            let kib: Option<u64> = value.split_whitespace().next().and_then(|n| n.parse().ok());
            *slot = kib.and_then(|kib| kib.checked_mul(1024));
        }
        found
    }
}

fn of_host(meminfo: &MemInfo) -> Memory {
    let mut memory = Memory {
        total: meminfo.total,
        available: meminfo.available,
        swap_total: meminfo.swap_total,
        swap_used: meminfo
            .swap_total
            .zip(meminfo.swap_free)
            .map(|(total, free)| total.saturating_sub(free)),
        unknown: Vec::new(),
    };
    explain(
        &mut memory,
        "/proc/meminfo does not say",
        "/proc/meminfo does not say",
    );
    memory
}

fn of_container(limits: &CgroupMemory, host: &MemInfo) -> Memory {
    // A limit at or above what the host has limits nothing.
    let total = limits
        .limit
        .filter(|limit| host.total.is_none_or(|host| *limit < host));
    let swap_total = limits
        .swap_limit
        .filter(|limit| host.swap_total.is_none_or(|host| *limit <= host));
    let mut memory = Memory {
        total,
        available: total
            .zip(limits.used)
            .map(|(total, used)| total.saturating_sub(used)),
        swap_total,
        swap_used: limits.swap_used,
        unknown: Vec::new(),
    };
    explain(
        &mut memory,
        "the container has no memory limit of its own",
        "the container has no swap limit of its own",
    );
    memory
}

fn nothing(reason: &str) -> Memory {
    let mut memory = Memory::default();
    explain(&mut memory, reason, reason);
    memory
}

fn explain(memory: &mut Memory, of_memory: &str, of_swap: &str) {
    for (field, value, reason) in [
        ("memory_total_bytes", memory.total, of_memory),
        ("memory_available_bytes", memory.available, of_memory),
        ("swap_total_bytes", memory.swap_total, of_swap),
        ("swap_used_bytes", memory.swap_used, of_swap),
    ] {
        if value.is_none() {
            memory.unknown.push((field, reason.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const MEMINFO: &str = include_str!("../../tests/fixtures/meminfo-debian");
    const DOCKER: &str = include_str!("../../tests/fixtures/mountinfo-docker");
    const LXC: &str = include_str!("../../tests/fixtures/mountinfo-lxc");
    const HOST_TOTAL: u64 = 8_077_736 * 1024;

    #[test]
    fn a_host_has_what_the_kernel_says() {
        let (_keep, root) = fixture::host(&[("proc/meminfo", MEMINFO)]);
        let memory = read(&root, false);
        assert_eq!(memory.total, Some(HOST_TOTAL));
        assert_eq!(memory.available, Some(6_543_212 * 1024));
        assert_eq!(memory.swap_total, Some(999_420 * 1024));
        assert_eq!(memory.swap_used, Some((999_420 - 987_654) * 1024));
        assert_eq!(memory.unknown, []);
    }

    #[test]
    fn a_container_has_its_limit_and_not_the_hosts_memory() {
        let (_keep, root) = fixture::host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/mountinfo", DOCKER),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
            ("sys/fs/cgroup/memory.current", "100000\n"),
            ("sys/fs/cgroup/memory.swap.max", "0\n"),
            ("sys/fs/cgroup/memory.swap.current", "0\n"),
        ]);
        let memory = read(&root, true);
        assert_eq!(memory.total, Some(512 << 20));
        assert_eq!(memory.available, Some((512 << 20) - 100_000));
        assert_eq!((memory.swap_total, memory.swap_used), (Some(0), Some(0)));
    }

    #[test]
    fn a_container_without_a_limit_says_unknown() {
        let (_keep, root) = fixture::host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/mountinfo", DOCKER),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/memory.current", "100000\n"),
        ]);
        let memory = read(&root, true);
        assert_eq!((memory.total, memory.available), (None, None));
        let reason = "the container has no memory limit of its own".to_owned();
        assert_eq!(
            memory.unknown.first(),
            Some(&("memory_total_bytes", reason))
        );
    }

    #[test]
    fn a_limit_above_the_hosts_memory_is_none() {
        let limits = CgroupMemory {
            limit: Some(HOST_TOTAL),
            ..CgroupMemory::default()
        };
        assert_eq!(of_container(&limits, &MemInfo::parse(MEMINFO)).total, None);
    }

    #[test]
    fn under_lxcfs_the_containers_meminfo_is_its_own() {
        let (_keep, root) =
            fixture::host(&[("proc/meminfo", MEMINFO), ("proc/self/mountinfo", LXC)]);
        assert_eq!(read(&root, true).total, Some(HOST_TOTAL));
    }

    #[test]
    fn the_fact_has_a_hosts_swap_devices_and_none_in_a_container() {
        let swaps = include_str!("../../tests/fixtures/swaps-debian");
        let told = |files: &[(&str, &str)]| {
            let (_keep, root) = fixture::host(files);
            fixture::json(&collect(&root).unwrap())
        };
        let meminfo = ("proc/meminfo", MEMINFO);
        let body = told(&[meminfo, ("proc/swaps", swaps)]);
        assert_eq!(body["swap_devices"].as_array().map(Vec::len), Some(3));
        assert!(told(&[meminfo])["swap_devices"]["unknown"].is_string());
        let body = told(&[meminfo, ("proc/swaps", swaps), ("proc/self/mountinfo", LXC)]);
        assert_eq!(body["total_bytes"], HOST_TOTAL);
        assert_eq!(body.get("swap_devices"), None);
    }

    #[test]
    fn numbers_that_are_none_are_unknown() {
        let text = "MemTotal: many kB\nMemAvailable: 18446744073709551615 kB\nnonsense\n";
        assert_eq!(MemInfo::parse(text), MemInfo::default());
    }
}
