//! The running kernel beside the newest that is installed of its kind. Pure: `host.rs` reads, `decide.rs` asks.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::host::Host;
use crate::collect::{Found, Reason};
use crate::packages::{Manager, Package};
use crate::restart::release::{self, Release};

/// The running kernel beside those that are installed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Nothing newer of its kind is there.
    Newest,
    Newer(String),
    /// Of the same name, but of another version of its package: (running, installed).
    OtherBuild(String, String),
    /// A newer one is there, and the boot loader is told to boot the running one.
    Pinned(String),
    /// Not known, and a marker may say more.
    Incomparable(Reason),
    /// Not known, and a marker says nothing of it.
    Odd(Reason),
}

/// Whether a kernel is installed that a reboot would bring.
pub(super) fn compare(host: &Host) -> (Kernel, Option<String>) {
    let unknown = |reason: String| (Kernel::Incomparable(reason), None);
    if host.is_wsl {
        return unknown("the kernel of WSL is Windows'".to_owned());
    }
    if host.is_image_based {
        let reason = "a system of whole images (ostree): only a staged one is looked for";
        return unknown(reason.to_owned());
    }
    let Some(running) = &host.release else {
        return unknown("/proc/sys/kernel/osrelease cannot be read".to_owned());
    };
    let Some(own) = Release::parse(running) else {
        let reason = format!("{running} is no kernel of a distribution that is known here");
        return unknown(reason);
    };
    let installed = installed(host);
    let of_kind = installed.iter().filter_map(|name| {
        let found = Release::parse(name)?;
        (found.flavour == own.flavour).then_some((found.key, name))
    });
    let Some((key, newest)) = of_kind.max() else {
        let mut reason = format!("no kernel of the kind of {running} is installed");
        for unread in &host.kernels.unread {
            reason = format!("{reason}; {unread}");
        }
        return unknown(reason);
    };
    let found = match key.cmp(&own.key) {
        Ordering::Greater => of_boot_loader(host, running, newest),
        Ordering::Less => Kernel::Odd(format!(
            "the running kernel {running} is not installed, and those that are ({newest}) are older: it was removed, or \
             booted from elsewhere"
        )),
        Ordering::Equal => of_one_name(host, running),
    };
    (found, Some(newest.clone()))
}

/// Whether the next boot brings the newest. GRUB counts its entries from 0, which is the newest kernel.
fn of_boot_loader(host: &Host, running: &str, newest: &str) -> Kernel {
    let Some(target) = &host.boots_into else {
        return Kernel::Newer(newest.to_owned());
    };
    if ["", "0"].contains(&target.as_str()) || target.contains(newest) {
        Kernel::Newer(newest.to_owned())
    } else if target.contains(running) {
        Kernel::Pinned(target.clone())
    } else {
        Kernel::Odd(format!(
            "{newest} is installed, and the boot loader is told to boot {target:?}: whether that is it is not known"
        ))
    }
}

/// Debian fixes a kernel without another name where its modules still fit.
fn of_one_name(host: &Host, running: &str) -> Kernel {
    let running_version = release::package_version(running, &host.built);
    let package = |package: &&Package| release::of_package(&package.name) == Some(running);
    let installed = packages(host, Manager::Dpkg).find(package);
    match (running_version, installed) {
        (Some(running), Some(package)) if !release::is_same_build(&running, &package.version) => {
            Kernel::OtherBuild(running, package.version.clone())
        }
        _ => Kernel::Newest,
    }
}

/// The names of all kernels that could be booted.
fn installed(host: &Host) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = host.kernels.images.iter().cloned().collect();
    for package in packages(host, Manager::Dpkg) {
        if let (Some(name), None) = (release::of_package(&package.name), &package.broken) {
            names.insert(name.to_owned());
        }
    }
    for package in packages(host, Manager::Apk) {
        names.extend(release::of_alpine(&package.name, &package.version));
    }
    for package in packages(host, Manager::Rpm) {
        let name = release::of_rpm_package(&package.name, &package.version, &package.arch);
        names.extend(name);
    }
    // Modules alone say little: those of removed kernels stay where others added to them.
    if names.iter().all(|name| Release::parse(name).is_none()) {
        names.extend(host.kernels.with_modules.iter().cloned());
    }
    // What is there of a package that is not wholly installed.
    for (name, _) in incomplete(host) {
        names.remove(&name);
    }
    names
}

/// Kernels whose package is not wholly installed, and what dpkg calls that.
pub(super) fn incomplete(host: &Host) -> Vec<(String, String)> {
    let named = |package: &Package| {
        let name = release::of_package(&package.name)?;
        Some((name.to_owned(), package.broken.clone()?))
    };
    packages(host, Manager::Dpkg).filter_map(named).collect()
}

/// What a database has that could be read.
pub(super) fn packages(host: &Host, manager: Manager) -> impl Iterator<Item = &Package> {
    let known = host.databases.iter().filter_map(move |found| match found {
        Found::Known(inventory) if inventory.manager == manager => Some(&inventory.packages),
        Found::Known(_) | Found::Unknown { .. } => None,
    });
    known.flatten()
}
