//! The limits of the container the agent runs in, from cgroup v2 or v1.
//!
//! The limit that counts is the container's, not that of the agent's own service inside it, so the
//! group asked is that of process 1 and those above it. Used by memory, cpu and pressure; pointless on a host.

use super::mounts::{self, Mount};
use super::{Reason, Root};

/// A v1 limit from here on means "none" (the kernel's page counter at its end).
const UNLIMITED_BYTES: u64 = 1 << 62;

/// What a container may use of memory and what it does use, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupMemory {
    pub(super) limit: Option<u64>,
    /// Without the page cache that would go first.
    pub(super) used: Option<u64>,
    pub(super) swap_limit: Option<u64>,
    pub(super) swap_used: Option<u64>,
}

/// The container's memory; a reason where no memory controller is in sight.
pub(super) fn memory(root: &Root) -> Result<CgroupMemory, Reason> {
    let mounts = mounts::read(root)?;
    if let Some(mount) = v1_mount(&mounts, "memory") {
        let group = group_of_init(root, |controllers| {
            controllers.split(',').any(|c| c == "memory")
        });
        return tightest(root, mount, &group, memory_v1);
    }
    let mount = v2_mount(&mounts).ok_or("no cgroup filesystem is mounted")?;
    let group = group_of_init(root, str::is_empty);
    tightest(root, mount, &group, memory_v2)
}

/// The directory of the container's group in the v2 hierarchy.
pub(super) fn v2_directory(root: &Root) -> Result<String, Reason> {
    let mounts = mounts::read(root)?;
    let mount = v2_mount(&mounts).ok_or("no cgroup v2 hierarchy is mounted")?;
    let group = group_of_init(root, str::is_empty);
    Ok(format!("{}{}", mount.point, below(mount, &group)))
}

/// How many CPUs the container may keep busy, where that is limited.
pub(super) fn cpu_quota(root: &Root) -> Option<f64> {
    let mounts = mounts::read(root).ok()?;
    if let Some(mount) = v1_mount(&mounts, "cpu") {
        let quota = root.find_number(&format!("{}/cpu.cfs_quota_us", mount.point))?;
        let period = root.find_number(&format!("{}/cpu.cfs_period_us", mount.point))?;
        return ratio(quota, period);
    }
    let max = root.find(&format!("{}/cpu.max", v2_mount(&mounts)?.point))?;
    let (quota, period) = max.split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

fn ratio(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

fn v1_mount<'a>(mounts: &'a [Mount], controller: &str) -> Option<&'a Mount> {
    mounts.iter().find(|mount| {
        mount.kind == "cgroup"
            && mount
                .super_options
                .split(',')
                .any(|option| option == controller)
    })
}

fn v2_mount(mounts: &[Mount]) -> Option<&Mount> {
    mounts.iter().find(|mount| mount.kind == "cgroup2")
}

/// The group of process 1 in the hierarchy whose controllers `wanted` accepts (cgroups(7)).
fn group_of_init(root: &Root, wanted: impl Fn(&str) -> bool) -> String {
    let text = root.read("proc/1/cgroup").unwrap_or_default();
    let group = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let group = fields.next()?;
        wanted(controllers).then_some(group)
    });
    // systemd as a container's process 1 puts itself one level below the container's group.
    let group = group.unwrap_or("/").trim_end_matches("/init.scope");
    group.to_owned()
}

/// The group's path below the mount point.
fn below<'a>(mount: &Mount, group: &'a str) -> &'a str {
    // Where only the container's own part of the tree is mounted, its paths begin below that part.
    let below = match group.strip_prefix(mount.root.trim_end_matches('/')) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => "",
    };
    below.trim_end_matches('/')
}

/// Asks the group and all above it that can be seen; the smallest limit holds.
fn tightest(
    root: &Root,
    mount: &Mount,
    group: &str,
    ask: fn(&Root, &str) -> CgroupMemory,
) -> Result<CgroupMemory, Reason> {
    let mut found: Option<CgroupMemory> = None;
    let mut below = below(mount, group);
    loop {
        let here = ask(root, &format!("{}{below}", mount.point));
        let tighter = match (found.and_then(|found| found.limit), here.limit) {
            (Some(found), Some(here)) => here < found,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if tighter || found.is_none() {
            found = Some(here);
        }
        let Some((above, _)) = below.rsplit_once('/') else {
            break;
        };
        below = above;
    }
    found
        .filter(|found| *found != CgroupMemory::default())
        .ok_or_else(|| "the container's cgroup keeps no account of memory".to_owned())
}

fn memory_v2(root: &Root, group: &str) -> CgroupMemory {
    let number = |file: &str| root.find_number(&format!("{group}/{file}"));
    let cache = stat(root, group, "inactive_file");
    CgroupMemory {
        limit: number("memory.max"),
        used: number("memory.current").map(|used| used.saturating_sub(cache)),
        swap_limit: number("memory.swap.max"),
        swap_used: number("memory.swap.current"),
    }
}

fn memory_v1(root: &Root, group: &str) -> CgroupMemory {
    let number = |file: &str| root.find_number(&format!("{group}/memory.{file}"));
    let limited = |limit: &u64| *limit < UNLIMITED_BYTES;
    let cache = stat(root, group, "total_inactive_file");
    let limit = number("limit_in_bytes").filter(limited);
    let used = number("usage_in_bytes");
    let with_swap = number("memsw.limit_in_bytes").filter(limited);
    let used_with_swap = number("memsw.usage_in_bytes");
    CgroupMemory {
        limit,
        used: used.map(|used| used.saturating_sub(cache)),
        swap_limit: with_swap
            .zip(limit)
            .map(|(with, without)| with.saturating_sub(without)),
        swap_used: used_with_swap
            .zip(used)
            .map(|(with, without)| with.saturating_sub(without)),
    }
}

fn stat(root: &Root, group: &str, name: &str) -> u64 {
    let text = root
        .read(&format!("{group}/memory.stat"))
        .unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const V1: &str = include_str!("../../tests/fixtures/mountinfo-docker-v1");
    const V2: &str = include_str!("../../tests/fixtures/mountinfo-docker");

    #[test]
    fn v2_with_its_own_namespace_has_the_limit_at_the_mount_point() {
        let (_keep, root) = fixture::host(&[
            ("proc/self/mountinfo", V2),
            ("proc/1/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
            ("sys/fs/cgroup/memory.current", "209715200\n"),
            (
                "sys/fs/cgroup/memory.stat",
                "anon 1000\ninactive_file 9715200\n",
            ),
            ("sys/fs/cgroup/memory.swap.max", "max\n"),
            ("sys/fs/cgroup/memory.swap.current", "0\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
        ]);
        let expected = CgroupMemory {
            limit: Some(512 << 20),
            used: Some(200_000_000),
            swap_limit: None,
            swap_used: Some(0),
        };
        assert_eq!(memory(&root), Ok(expected));
        assert_eq!(cpu_quota(&root), Some(1.5));
    }

    #[test]
    fn v2_under_the_hosts_namespace_takes_the_tightest_limit_on_the_way_up() {
        let group = "sys/fs/cgroup/kubepods.slice/pod1.slice/cri-1.scope";
        let (_keep, root) = fixture::host(&[
            ("proc/self/mountinfo", V2),
            (
                "proc/1/cgroup",
                "0::/kubepods.slice/pod1.slice/cri-1.scope\n",
            ),
            (&format!("{group}/memory.max"), "max\n"),
            (&format!("{group}/memory.current"), "5\n"),
            (
                "sys/fs/cgroup/kubepods.slice/pod1.slice/memory.max",
                "1073741824\n",
            ),
            ("sys/fs/cgroup/kubepods.slice/memory.max", "8589934592\n"),
        ]);
        assert_eq!(memory(&root).unwrap().limit, Some(1 << 30));
    }

    #[test]
    fn the_agents_own_service_limit_is_not_the_containers() {
        let (_keep, root) = fixture::host(&[
            ("proc/self/mountinfo", V2),
            ("proc/1/cgroup", "0::/init.scope\n"),
            (
                "proc/self/cgroup",
                "0::/system.slice/infratrack-agent.service\n",
            ),
            ("sys/fs/cgroup/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/init.scope/memory.max", "1\n"),
            (
                "sys/fs/cgroup/system.slice/infratrack-agent.service/memory.max",
                "67108864\n",
            ),
        ]);
        assert_eq!(memory(&root).unwrap().limit, Some(1 << 30));
    }

    #[test]
    fn v1_reads_the_part_of_the_tree_that_is_mounted_and_knows_the_kernels_no_limit() {
        let files = |limit: &'static str| {
            fixture::host(&[
                ("proc/self/mountinfo", V1),
                (
                    "proc/1/cgroup",
                    "9:memory:/docker/5e1f\n3:cpu,cpuacct:/docker/5e1f\n",
                ),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\n"),
                (
                    "sys/fs/cgroup/memory/memory.stat",
                    "cache 5\ntotal_inactive_file 1000\n",
                ),
            ])
        };
        let (_keep, root) = files("268435456\n");
        let limited = memory(&root).unwrap();
        assert_eq!((limited.limit, limited.used), (Some(256 << 20), Some(2000)));
        let (_keep, root) = files("9223372036854771712\n");
        assert_eq!(memory(&root).unwrap().limit, None);
    }

    #[test]
    fn without_a_memory_controller_there_is_a_reason() {
        let (_keep, root) = fixture::host(&[("proc/self/mountinfo", V2)]);
        let reason = "the container's cgroup keeps no account of memory";
        assert_eq!(memory(&root), Err(reason.to_owned()));
    }
}
