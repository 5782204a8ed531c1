//! What a host says about its boot, its kernels and its packages, as it is read: nothing is decided here.

use std::io;
use std::os::unix::fs::MetadataExt;

use super::boot::Boot;
use super::kernels;
use crate::collect::{Found, Reason, Root, cpu, identity, mounts, packages, virtualization};
use crate::packages::Manager;
use crate::restart::{self, release};

/// Files that ask for a reboot, and the list of who asked, where there is one. `/run/crond.reboot` is none: cron notes there
/// that it ran its `@reboot` jobs.
const MARKERS: &[(&str, &str)] = &[
    ("run/reboot-required", "run/reboot-required.pkgs"),
    ("var/run/reboot-required", "var/run/reboot-required.pkgs"),
    // libzypp's.
    ("run/reboot-needed", ""),
    ("var/run/reboot-needed", ""),
    ("run/ostree/staged-deployment", ""),
];
/// What writes the marker when a package asks for it.
const WRITERS: &[&str] = &[
    "usr/share/update-notifier/notify-reboot-required",
    "etc/kernel/postinst.d/unattended-upgrades",
    "etc/kernel/postinst.d/update-notifier",
    "etc/kernel/postinst.d/reboot-notifier",
];
/// libzypp writes one; dnf, which may be there beside it, does not.
const ZYPPER: &str = "usr/bin/zypper";
const DNF: &str = "usr/bin/dnf";
const RPM: &[&str] = &["var/lib/rpm", "usr/lib/sysimage/rpm"];

/// A file that asks for a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) path: String,
    pub(super) packages: Vec<String>,
    pub(super) written_at: Option<i64>,
    /// `/run` is empty after a boot; a `/var/run` that is a directory of its own is not.
    pub(super) outlives_boot: bool,
}

/// Kernels that are there as files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kernels {
    /// That have an image.
    pub(super) images: Vec<String>,
    /// That have modules, and no image of their name.
    pub(super) with_modules: Vec<String>,
    /// Where could not be looked, and why.
    pub(super) unread: Vec<Reason>,
}

/// Everything that is asked of the host, but for its processes.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    pub(super) container: Option<String>,
    pub(super) is_wsl: bool,
    pub(super) is_vm: bool,
    pub(super) is_image_based: bool,
    pub(super) release: Option<String>,
    /// `/proc/sys/kernel/version`.
    pub(super) built: String,
    pub(super) boot_id: Option<String>,
    pub(super) boot: Option<Boot>,
    pub(super) markers: Vec<Marker>,
    pub(super) marker_writer: Option<String>,
    pub(super) kernels: Kernels,
    /// What the boot loader is told to boot, where that is written down.
    pub(super) boots_into: Option<String>,
    pub(super) boot_loader_unknown: Option<Reason>,
    pub(super) databases: Vec<Found>,
    pub(super) has_rpm: bool,
    pub(super) need_reboot: Vec<String>,
    pub(super) has_needrestart: bool,
    pub(super) live_patches: Vec<String>,
    /// `GenuineIntel`, `AuthenticAMD`.
    pub(super) cpu_vendor: Option<String>,
}

impl Host {
    pub(super) fn read(root: &Root) -> Self {
        let container = virtualization::container(root);
        let hypervisor = virtualization::hypervisor(root);
        let is_container = container.is_some();
        let mut host = Self {
            is_wsl: hypervisor.as_deref() == Some("wsl"),
            is_vm: hypervisor.is_some(),
            is_image_based: root.exists("run/ostree-booted"),
            release: root.find(super::RELEASE),
            built: root.find("proc/sys/kernel/version").unwrap_or_default(),
            boot_id: identity::boot_id(root).ok().map(|id| id.to_string()),
            boot: Boot::read(root),
            container,
            ..Self::default()
        };
        // A container's packages and kernels are of no meaning here.
        if is_container {
            return host;
        }
        host.markers = markers(root);
        host.marker_writer = marker_writer(root);
        let is_on_demand = is_boot_on_demand(root);
        host.kernels = kernel_files(root, is_on_demand);
        match boots_into(root, is_on_demand) {
            Ok(target) => host.boots_into = target,
            Err(reason) => host.boot_loader_unknown = Some(reason),
        }
        host.need_reboot = need_reboot(root);
        host.databases = packages::installed_packages(root);
        // Debian has rpm as a tool, too, and EL dpkg: whose packages are there counts.
        let is_of_dpkg = kernels::packages(&host, Manager::Dpkg).next().is_some();
        host.has_rpm = !is_of_dpkg && RPM.iter().any(|path| root.exists(path));
        host.has_needrestart = root.exists("usr/sbin/needrestart");
        host.live_patches = live_patches(root);
        host.cpu_vendor = cpu::vendor(root);
        host
    }
}

fn marker_writer(root: &Root) -> Option<String> {
    let is_zypper = root.exists(ZYPPER) && !root.exists(DNF);
    let writer = WRITERS.iter().find(|path| root.exists(path));
    let writer = writer.or(is_zypper.then_some(&ZYPPER));
    writer.map(|path| format!("/{path}"))
}

fn markers(root: &Root) -> Vec<Marker> {
    let place = |path: &str| {
        let found = root.path(path).metadata().ok()?;
        Some((found.dev(), found.ino()))
    };
    let is_one = place("var/run").is_some() && place("var/run") == place("run");
    let mut found = Vec::new();
    for (path, list) in MARKERS {
        let outlives_boot = path.starts_with("var/");
        let Ok(file) = root.path(path).metadata() else {
            continue;
        };
        if outlives_boot && is_one {
            continue;
        }
        let text = root.read(list).unwrap_or_default();
        found.push(Marker {
            path: format!("/{path}"),
            packages: restart::packages(&text),
            written_at: Some(file.mtime()),
            outlives_boot,
        });
    }
    found
}

/// A look at a `/boot` that is mounted on demand would mount it, and keep it so.
fn is_boot_on_demand(root: &Root) -> bool {
    let mounts = mounts::read(root).unwrap_or_default();
    let of_boot = |mount: &&mounts::Mount| mount.point == "/boot" && mount.kind == "autofs";
    mounts.iter().any(|mount| of_boot(&mount))
}

fn kernel_files(root: &Root, is_on_demand: bool) -> Kernels {
    let mut found = Kernels::default();
    if is_on_demand {
        let reason = "/boot is mounted on demand and was not looked at";
        found.unread.push(reason.to_owned());
    } else {
        match root.names("boot") {
            Ok(names) => {
                let images = names.iter().filter_map(|name| release::of_file(name));
                found.images.extend(images.map(str::to_owned));
            }
            Err(reason) => found.unread.push(reason),
        }
    }
    // One is a link to the other, but where `/usr` is not merged.
    let places = ["usr/lib/modules", "lib/modules"];
    for place in places {
        for name in root.names(place).unwrap_or_default() {
            let has = |file: &str| root.exists(&format!("{place}/{name}/{file}"));
            if has("vmlinuz") {
                found.images.push(name);
            } else if has("modules.dep") && has("kernel") {
                found.with_modules.push(name);
            }
        }
    }
    for names in [&mut found.images, &mut found.with_modules] {
        names.sort_unstable();
        names.dedup();
    }
    if let Err(reason) = root.names("lib/modules") {
        found.unread.push(reason);
    }
    found
}

/// `GRUB_DEFAULT`, or the entry that was saved where it says so; `None` where none is told. 0 is the newest.
fn boots_into(root: &Root, is_on_demand: bool) -> Result<Option<String>, Reason> {
    let value = |text: &str, name: &str| {
        let lines = text.lines().rev();
        let mut found = lines.filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        Some(found.next()?.trim_matches(['"', '\'']).to_owned())
    };
    // What is read later holds.
    let mut files = vec!["etc/default/grub".to_owned()];
    let more = root.names("etc/default/grub.d").unwrap_or_default();
    let more = more.iter().filter(|name| is_of_kind(name, "cfg"));
    files.extend(more.map(|name| format!("etc/default/grub.d/{name}")));
    let mut texts = files.iter().rev().filter_map(|file| root.read(file).ok());
    let default = texts.find_map(|text| value(&text, "GRUB_DEFAULT"));
    if default.as_deref() != Some("saved") {
        return Ok(default);
    }
    if is_on_demand {
        return Err("/boot is mounted on demand and was not looked at".to_owned());
    }
    let is_el = !root.exists("boot/grub") || root.exists("boot/grub2");
    let saved = if is_el {
        "boot/grub2/grubenv"
    } else {
        "boot/grub/grubenv"
    };
    match root.read(saved) {
        Ok(text) => Ok(value(&text, "saved_entry")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("/{saved}: {error}")),
    }
}

fn is_of_kind(name: &str, kind: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, found)| found == kind)
}

/// Packages that the administrator added to dnf's list.
fn need_reboot(root: &Root) -> Vec<String> {
    const LISTS: &str = "etc/dnf/plugins/needs-restarting.d";
    let mut lists = root.names(LISTS).unwrap_or_default();
    lists.retain(|name| is_of_kind(name, "conf"));
    let texts = lists
        .iter()
        .filter_map(|name| root.read(&format!("{LISTS}/{name}")).ok());
    texts.flat_map(|text| restart::packages(&text)).collect()
}

/// The live patches that are in force.
fn live_patches(root: &Root) -> Vec<String> {
    const PATCHES: &str = "sys/kernel/livepatch";
    let mut names = root.names(PATCHES).unwrap_or_default();
    names.retain(|name| root.find_flag(&format!("{PATCHES}/{name}/enabled")) == Some(true));
    names
}
