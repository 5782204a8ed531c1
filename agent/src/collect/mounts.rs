//! `facts.mounts`, and the reading of `/proc/self/mountinfo` for everyone who needs a mount.
//!
//! A real mount is one that holds data of its own: no kernel interface, no image that is full by
//! nature, no container's layer seen from its host, and each filesystem once however often it is
//! bound elsewhere. Filesystems in the heartbeat are the same list.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root};

const MOUNTINFO: &str = "proc/self/mountinfo";

/// Types that hold data. Whatever is not named here is a kernel interface, an image or unheard of.
const REAL: &[&str] = &[
    "9p", "afs", "apfs", "bcachefs", "beegfs", "btrfs", "ceph", "cifs", "ecryptfs", "exfat",
    "ext2", "ext3", "ext4", "f2fs", "fuseblk", "gfs2", "gpfs", "hfsplus", "jfs", "lustre", "minix",
    "msdos", "nfs", "nfs4", "nilfs2", "ntfs", "ntfs3", "ocfs2", "orangefs", "reiserfs", "smb3",
    "ubifs", "ufs", "vfat", "virtiofs", "vmhgfs", "xfs", "zfs",
];
/// FUSE filesystems with a capacity worth watching.
const REAL_FUSE: &[&str] = &[
    "fuse.ceph",
    "fuse.glusterfs",
    "fuse.juicefs",
    "fuse.mergerfs",
    "fuse.moosefs",
    "fuse.sshfs",
];
/// Where container engines keep one mount a layer, a dataset or a pod's volume.
const ENGINE_DIRECTORIES: &[&str] = &[
    "/var/lib/docker/",
    "/var/lib/containers/storage/",
    "/var/lib/containerd/",
    "/run/containerd/",
];
/// Part of a filesystem bound below these is a file of configuration in a container or a sandbox.
const CONFIGURATION: &[&str] = &["/etc/", "/dev/", "/run/", "/proc/", "/sys/"];

/// One line of mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor`; the same for each mount of one filesystem.
    pub(super) device: String,
    /// The directory of the filesystem that is mounted.
    pub(super) root: String,
    pub(super) point: String,
    pub(super) options: String,
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) super_options: String,
}

#[derive(Serialize)]
struct Facts {
    mounts: BTreeMap<String, MountFact>,
}

#[derive(Serialize)]
struct MountFact {
    source: String,
    #[serde(rename = "type")]
    kind: String,
    options: String,
}

/// The body of `facts.mounts`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let mounts = real(read(root)?)
        .into_iter()
        .map(|mount| {
            let fact = MountFact {
                source: without_password(&mount.source),
                kind: mount.kind,
                options: mount.options,
            };
            (mount.point, fact)
        })
        .collect();
    to_value(&Facts { mounts })
}

/// Every mount the agent sees.
pub(super) fn read(root: &Root) -> Result<Vec<Mount>, Reason> {
    Ok(parse(&root.text(MOUNTINFO)?))
}

/// The real mounts, ordered by their mount point.
pub(super) fn real(mounts: Vec<Mount>) -> Vec<Mount> {
    // A mount hides what was mounted there before.
    let visible: HashMap<String, Mount> = mounts
        .into_iter()
        .map(|mount| (mount.point.clone(), mount))
        .collect();
    let mut by_device: HashMap<String, Mount> = HashMap::new();
    for mount in visible.into_values().filter(is_real) {
        let best = by_device
            .entry(mount.device.clone())
            .or_insert_with(|| mount.clone());
        if preference(&mount) < preference(best) {
            *best = mount;
        }
    }
    let mut mounts: Vec<_> = by_device.into_values().collect();
    mounts.sort_unstable_by(|a, b| a.point.cmp(&b.point));
    mounts
}

/// Of several mounts of one filesystem, the shortest path is the one people know it by.
fn preference(mount: &Mount) -> (usize, &str) {
    (mount.point.len(), &mount.point)
}

fn is_real(mount: &Mount) -> bool {
    if mount.point == "/" {
        // A container's root is an overlay, a live system's is memory: all there is, either way.
        return mount.kind != "rootfs";
    }
    let kind = mount.kind.as_str();
    let below = |prefixes: &[&str]| prefixes.iter().any(|at| mount.point.starts_with(at));
    (REAL.contains(&kind) || REAL_FUSE.contains(&kind))
        && !below(ENGINE_DIRECTORIES)
        && !(mount.root != "/" && below(CONFIGURATION))
}

/// Reads mountinfo (proc(5)); a line that is not in its shape is left out.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let mut filesystem = filesystem.split(' ');
    Some(Mount {
        device: mount.next()?.to_owned(),
        root: unescape(mount.next()?),
        point: unescape(mount.next()?),
        options: mount.next()?.to_owned(),
        kind: filesystem.next()?.to_owned(),
        source: unescape(filesystem.next()?),
        super_options: filesystem.next().unwrap_or_default().to_owned(),
    })
}

/// Undoes the kernel's way with blanks and backslashes: three octal digits. `/proc/swaps` has it too.
pub(super) fn unescape(field: &str) -> String {
    if !field.contains('\\') {
        return field.to_owned();
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.split_at_checked(3))
            .flatten()
            .and_then(|(digits, tail)| {
                let digits = std::str::from_utf8(digits).ok()?;
                Some((u8::from_str_radix(digits, 8).ok()?, tail))
            });
        let (byte, tail) = octal.unwrap_or((first, tail));
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A source may be a URL (`WebDAV`, object stores), and a URL may hold a password.
fn without_password(source: &str) -> String {
    let Some((scheme, rest)) = source.split_once("://") else {
        return source.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            let name = user.split(':').next().unwrap_or_default();
            let rest = rest.strip_prefix(user).unwrap_or_default();
            format!("{scheme}://{name}:***{rest}")
        }
        _ => source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const DEBIAN: &str = include_str!("../../tests/fixtures/mountinfo-debian");
    const DOCKER: &str = include_str!("../../tests/fixtures/mountinfo-docker");

    fn points(text: &str) -> Vec<String> {
        let mounts = real(parse(text));
        mounts.into_iter().map(|mount| mount.point).collect()
    }

    #[test]
    fn a_host_shows_each_filesystem_once_and_no_kernel_interface_image_or_container_layer() {
        assert_eq!(points(DEBIAN), ["/", "/boot/efi", "/mnt/nfs share", "/srv"]);
    }

    #[test]
    fn a_container_shows_its_root_and_its_volumes_but_no_bound_configuration() {
        assert_eq!(points(DOCKER), ["/", "/data"]);
    }

    #[test]
    fn a_mount_over_another_hides_it() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                    2 1 8:2 / /srv rw - ext4 /dev/sda2 rw\n\
                    3 1 0:9 / /srv rw - tmpfs none rw\n";
        assert_eq!(points(text), ["/"]);
    }

    #[test]
    fn broken_lines_are_left_out() {
        assert_eq!(
            parse("1 2 3\n - \n\nx - y z\n1 2 8:1 / /a - ext4 /dev/a\n"),
            []
        );
    }

    #[test]
    fn escapes_are_undone_and_what_only_looks_like_one_is_kept() {
        assert_eq!(unescape(r"a\040b\134c\9\04"), r"a b\c\9\04");
    }

    #[test]
    fn a_password_in_a_source_is_masked() {
        assert_eq!(
            without_password("https://me:pa@ss@dav.example/x"),
            "https://me:***@dav.example/x"
        );
        assert_eq!(
            without_password("https://dav.example/x"),
            "https://dav.example/x"
        );
        assert_eq!(without_password("nas:/export"), "nas:/export");
    }

    #[test]
    fn the_fact_has_source_type_and_options_by_mount_point() {
        let (_keep, root) = fixture::host(&[("proc/self/mountinfo", DEBIAN)]);
        let body = fixture::json(&collect(&root).unwrap());
        assert_eq!(
            body["mounts"]["/"],
            serde_json::json!({"source": "/dev/sda2", "type": "ext4", "options": "rw,relatime"})
        );
    }
}
