//! Names of kernels (`uname -r`), as distributions make them: which kernel it is, and which of two of the same kind is
//! the newer. Two kinds are never compared: the siblings of a Raspberry Pi are installed side by side at one version.
//!
//! What has no form that is listed here is somebody's own, and not guessed at.

use infratrack_shared::version::{deb, rpm};

/// Names as package managers of `.deb`, Alpine, Arch and SUSE have them: `version-flavour`.
const FLAVOURS: &[&str] = &[
    // Debian, each also as cloud- and rt-.
    "686",
    "686-pae",
    "amd64",
    "arm64",
    "arm64-16k",
    "armmp",
    "armmp-lpae",
    "loong64",
    "marvell",
    "powerpc64le",
    "powerpc64le-64k",
    "riscv64",
    "s390x",
    // Ubuntu.
    "aws",
    "aws-64k",
    "aws-fips",
    "azure",
    "azure-fde",
    "azure-fips",
    "bluefield",
    "fips",
    "gcp",
    "gcp-64k",
    "gcp-fips",
    "generic",
    "generic-64k",
    "generic-lpae",
    "gke",
    "gkeop",
    "ibm",
    "intel",
    "intel-iotg",
    "kvm",
    "laptop",
    "lowlatency",
    "lowlatency-64k",
    "nvidia",
    "nvidia-64k",
    "nvidia-lowlatency",
    "oem",
    "oracle",
    "oracle-64k",
    "raspi",
    "raspi-nolpae",
    "raspi-realtime",
    "realtime",
    "starfive",
    // Proxmox.
    "pve",
    // Raspberry Pi OS: of 12 and later, and of before.
    "rpi-2712",
    "rpi-2712-rt",
    "rpi-v6",
    "rpi-v7",
    "rpi-v7l",
    "rpi-v8",
    "rpi-v8-rt",
    "+",
    "v7+",
    "v7l+",
    "v8+",
    "v8-16k+",
    // SUSE.
    "64kb",
    "debug",
    "default",
    "kvmsmall",
    "longterm",
    "pae",
    "preempt",
    "rt",
    "rt_debug",
    // Alpine.
    "edge",
    "lts",
    "rpi",
    "rpi2",
    "rpi4",
    "stable",
    "virt",
    // Arch.
    "arch",
    "hardened",
    "zen",
    "MANJARO",
    // Gentoo.
    "gentoo",
    "gentoo-dist",
];
/// Debian's additions to a flavour's name.
const VARIANTS: &[&str] = &["cloud-", "rt-"];
/// What Debian and the Raspberry Pi add to a version: no flavour.
const ORIGINS: &[&str] = &["deb", "bpo", "rpt"];
/// Names of machines as rpm has them.
const ARCHES: &[&str] = &[
    "aarch64",
    "armv7hl",
    "i686",
    "loongarch64",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390x",
    "x86_64",
];
/// In the release of rpms of distributions that have one kernel of each kind.
const DISTRIBUTIONS: &[&str] = &[".el", ".fc", "amzn", ".azl", ".cm2", ".oe", ".mga", ".an"];

/// A kernel of a distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Kernels of one flavour take each other's place.
    pub flavour: String,
    /// Sorts as the versions do.
    pub key: Vec<u8>,
}

impl Release {
    /// `None` for what is no kernel, or none that is known here.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._~".contains(&byte);
        let is_name = text.len() <= 128 && text.bytes().all(fits);
        if !is_name || !text.starts_with(|char: char| char.is_ascii_digit()) {
            return None;
        }
        of_rpm(text).or_else(|| of_others(text))
    }
}

/// `5.14.0-503.11.1.el9_5.x86_64`, `…+debug`: compared as rpm does.
fn of_rpm(text: &str) -> Option<Release> {
    let (head, arch, variant) = ARCHES.iter().find_map(|arch| {
        let (head, variant) = text.rsplit_once(&format!(".{arch}"))?;
        let is_end = variant.is_empty() || variant.starts_with(['+', '.', '-']);
        is_end.then_some((head, *arch, variant))
    })?;
    let (version, release) = head.split_once('-')?;
    let has = |part: &&&str| release.contains(**part);
    // ELRepo's kernel-lt and kernel-ml differ by nothing in their names.
    if release.contains("elrepo") || !DISTRIBUTIONS.iter().any(|part| has(&part)) {
        return None;
    }
    let kinds = ["uek", ".plus", ".rt"];
    let kind = kinds.iter().find(has).copied().unwrap_or("kernel");
    Some(Release {
        flavour: format!("{kind}{variant}.{arch}"),
        key: rpm::sort_key(None, version, release),
    })
}

/// `6.1.0-28-cloud-amd64`, `6.6.51+rpt-rpi-v8`, `6.11.6-arch1-1`: numbers first, then the flavour.
fn of_others(text: &str) -> Option<Release> {
    let mut parts = text.split('-').peekable();
    let first = parts.next()?;
    let (number, origin) = first.split_once('+').unwrap_or((first, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !number.contains('.')
        || !number
            .split('.')
            .all(|part| !part.is_empty() && is_number(part))
    {
        return None;
    }
    let is_origin = ORIGINS.iter().any(|name| origin.starts_with(name));
    let mut version = first.to_owned();
    let mut flavour: Vec<&str> = Vec::new();
    if first.ends_with('+') && origin.is_empty() {
        flavour.push("+");
    } else if !origin.is_empty() && !is_origin {
        return None;
    }
    let mut is_arch = false;
    while let Some(part) = parts.next_if(|part| is_version(part)) {
        is_arch |= part.starts_with("arch");
        // A candidate is before what it is a candidate for.
        version.push(if part.starts_with("rc") { '~' } else { '-' });
        version.push_str(part);
    }
    flavour.extend(parts);
    if flavour.is_empty() && is_arch {
        flavour.push("arch");
    }
    let flavour = flavour.join("-");
    let plain = VARIANTS.iter().find_map(|part| flavour.strip_prefix(part));
    if ![flavour.as_str(), plain.unwrap_or(&flavour)]
        .iter()
        .any(|name| FLAVOURS.contains(name))
    {
        return None;
    }
    Some(Release {
        flavour,
        key: deb::Version::split(&version).sort_key(),
    })
}

/// A number of the distribution's: `28`, `0.deb11.7`, `arch1`, `rc5`.
fn is_version(part: &str) -> bool {
    let rest = ["arch", "hardened", "zen", "rc"]
        .iter()
        .find_map(|name| part.strip_prefix(name))
        .unwrap_or(part);
    // Machines whose name begins as a number does.
    rest.starts_with(|char: char| char.is_ascii_digit()) && !["686", "64kb"].contains(&part)
}

/// The name of Alpine's kernel of a package: `linux-lts` 6.6.58-r0 is 6.6.58-0-lts.
pub fn of_alpine(package: &str, version: &str) -> Option<String> {
    let flavour = package.strip_prefix("linux-")?;
    let (version, revision) = version.rsplit_once("-r")?;
    let name = format!("{version}-{revision}-{flavour}");
    Release::parse(&name).map(|_| name)
}

/// The name in a package of dpkg: `linux-image-6.1.0-28-amd64`. Those without a whole version depend on the newest and are
/// none: `linux-image-amd64`, `linux-image-6.12-amd64`.
pub fn of_package(package: &str) -> Option<&str> {
    const BEFORE: &[&str] = &[
        "linux-image-unsigned-",
        "linux-image-",
        "proxmox-kernel-",
        "pve-kernel-",
    ];
    let name = BEFORE.iter().find_map(|part| package.strip_prefix(part))?;
    let name = name.strip_suffix("-unsigned").unwrap_or(name);
    let name = name.strip_suffix("-signed").unwrap_or(name);
    let version = name.split(['-', '+']).next()?;
    let is_whole = version.split('.').count() >= 3 || name.contains("-rc");
    (is_whole && name.starts_with(|char: char| char.is_ascii_digit())).then_some(name)
}

/// The name of a kernel of a package of rpm: `kernel-core` `5.14.0-503.11.1.el9_5` for `x86_64`. `kernel` itself needs the one
/// of its own version where there is a `-core`, and is the kernel where there is none (EL 7, Amazon).
pub fn of_rpm_package(package: &str, version: &str, arch: &str) -> Option<String> {
    const PACKAGES: &[(&str, &str)] = &[
        ("kernel", ""),
        ("kernel-core", ""),
        ("kernel-debug-core", "+debug"),
        ("kernel-64k-core", "+64k"),
        ("kernel-rt-core", "+rt"),
        ("kernel-uek", ""),
        ("kernel-uek-core", ""),
    ];
    let (_, variant) = PACKAGES.iter().find(|(name, _)| *name == package)?;
    // EL 8 has it in the release.
    let variant = if version.contains(".rt") { "" } else { variant };
    let name = format!("{version}.{arch}{variant}");
    Release::parse(&name).map(|_| name)
}

/// The name in a file of `/boot`: `vmlinuz-6.1.0-28-amd64`.
pub fn of_file(file: &str) -> Option<&str> {
    const BEFORE: &[&str] = &[
        "vmlinuz-", "vmlinux-", "kernel-", "Image-", "image-", "zImage-", "bzImage-",
    ];
    let name = BEFORE.iter().find_map(|part| file.strip_prefix(part))?;
    let name = name
        .strip_suffix(".gz")
        .or_else(|| name.strip_suffix(".xz"));
    let name = name.unwrap_or_else(|| file.split_once('-').map_or("", |(_, name)| name));
    // A rescue image is of no version: vmlinuz-0-rescue-….
    let is_version = name.starts_with(|char: char| char.is_ascii_digit()) && name.contains('.');
    is_version.then_some(name)
}

/// The version of its package as the running kernel tells it (`/proc/sys/kernel/version`), where the distribution
/// puts it there: `#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)`, `#136-Ubuntu SMP …` of 5.15.0-126-generic.
pub fn package_version(release: &str, built: &str) -> Option<String> {
    if let Some((_, after)) = built.rsplit_once(" Debian ") {
        let version = after.split(' ').next()?;
        let is_version = version.starts_with(|char: char| char.is_ascii_digit());
        return is_version.then(|| version.to_owned());
    }
    let number = built.strip_prefix('#')?.split(' ').next()?;
    let number = number.strip_suffix("-Ubuntu")?;
    if !number.starts_with(|char: char| char.is_ascii_digit()) {
        return None;
    }
    let mut parts = release.splitn(3, '-');
    let (version, abi) = (parts.next()?, parts.next()?);
    Some(format!("{version}-{abi}.{number}"))
}

/// Whether two packages are the same build. A rebuild for an architecture (`+b1`) carries the same kernel.
pub fn is_same_build(one: &str, other: &str) -> bool {
    let without = |text: &str| {
        let (head, rebuild) = text.rsplit_once("+b")?;
        let is_number = !rebuild.is_empty() && rebuild.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| head.to_owned())
    };
    let key = |text: &str| {
        let text = without(text).unwrap_or_else(|| text.to_owned());
        deb::Version::split(&text).sort_key()
    };
    key(one) == key(other)
}

#[cfg(test)]
mod tests;
