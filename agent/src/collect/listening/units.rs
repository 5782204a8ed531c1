//! The systemd unit of a cgroup that is known by its id: the inode of its directory.
//!
//! The hierarchy is walked from above, a level at a time, until all are found; most are two levels down.
//! Called by `facts.listening`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::PathBuf;

use crate::collect::{Root, mounts};

/// The most directories looked into.
const DIRECTORIES: usize = 4096;
/// What a cgroup that is a unit ends in (systemd.unit(5)); slices hold units.
const UNITS: &[&str] = &[".service", ".scope", ".socket", ".mount", ".swap"];

/// The unit of each of the cgroups; those that are in none, or out of sight, are left out.
pub(super) fn of_groups(root: &Root, wanted: &HashSet<u64>) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    let mounts = mounts::read(root).unwrap_or_default();
    let Some(mount) = mounts.into_iter().find(|mount| mount.kind == "cgroup2") else {
        return found;
    };
    let top = root.path(&mount.point);
    // The group at the top is no unit, and nobody's child.
    let is_top = |group: &&u64| top.metadata().is_ok_and(|top| top.ino() == **group);
    let mut seen = wanted.iter().filter(is_top).count();
    let mut open: VecDeque<(PathBuf, Option<String>)> = [(top, None)].into();
    for _ in 0..DIRECTORIES {
        if seen == wanted.len() {
            break;
        }
        let Some((directory, unit)) = open.pop_front() else {
            break;
        };
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            // What a unit divides itself into is still the unit.
            let is_unit = UNITS.iter().any(|ending| name.ends_with(ending));
            let unit = unit.clone().or_else(|| is_unit.then_some(name));
            if wanted.contains(&entry.ino()) {
                seen += 1;
                found.extend(unit.clone().map(|unit| (entry.ino(), unit)));
            }
            open.push_back((entry.path(), unit));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const MOUNTINFO: &str = include_str!("../../../tests/fixtures/mountinfo-docker");

    #[test]
    fn a_group_is_of_the_unit_it_is_in_however_deep() {
        let (_keep, root) = fixture::host(&[
            ("proc/self/mountinfo", MOUNTINFO),
            ("sys/fs/cgroup/init.scope/cgroup.procs", "1\n"),
            ("sys/fs/cgroup/system.slice/ssh.service/cgroup.procs", "1\n"),
            (
                "sys/fs/cgroup/system.slice/docker.service/a/b/cgroup.procs",
                "1\n",
            ),
        ]);
        let inode = |path: &str| {
            let path = root.path(&format!("sys/fs/cgroup/{path}"));
            path.metadata().unwrap().ino()
        };
        let groups = [
            "init.scope",
            "system.slice",
            "system.slice/ssh.service",
            "system.slice/docker.service/a/b",
        ]
        .map(inode);
        let units = of_groups(&root, &groups.into());
        let told = groups.map(|group| units.get(&group).map(String::as_str));
        let expected = [
            Some("init.scope"),
            None,
            Some("ssh.service"),
            Some("docker.service"),
        ];
        assert_eq!(told, expected);
        assert!(of_groups(&root, &[u64::MAX].into()).is_empty());
    }
}
