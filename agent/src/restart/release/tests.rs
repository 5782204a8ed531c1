use super::*;

fn flavour(name: &str) -> Option<String> {
    Some(Release::parse(name)?.flavour)
}

#[test]
fn kernels_of_one_kind_take_each_others_place_and_siblings_never() {
    for (name, expected) in [
        ("6.1.0-28-amd64", "amd64"),
        ("6.1.0-28-cloud-amd64", "cloud-amd64"),
        ("6.1.0-28-rt-amd64", "rt-amd64"),
        ("5.10.0-33-686-pae", "686-pae"),
        ("6.1.0-28-686", "686"),
        ("6.12.9+bpo-amd64", "amd64"),
        ("6.1.0-0.deb11.7-amd64", "amd64"),
        ("6.12.38+deb13-amd64", "amd64"),
        ("6.12.38+deb13-cloud-arm64", "cloud-arm64"),
        ("6.11-rc5-amd64", "amd64"),
        ("5.15.0-126-generic", "generic"),
        ("6.8.0-1018-aws", "aws"),
        ("6.8.12-4-pve", "pve"),
        ("6.6.51+rpt-rpi-v8", "rpi-v8"),
        ("6.6.51+rpt-rpi-2712", "rpi-2712"),
        ("5.15.84-v7l+", "v7l+"),
        ("5.15.84-v8+", "v8+"),
        ("5.15.84+", "+"),
        ("5.14.0-503.11.1.el9_5.x86_64", "kernel.x86_64"),
        ("5.14.0-503.11.1.el9_5.x86_64+debug", "kernel+debug.x86_64"),
        ("5.14.0-503.11.1.el9_5.aarch64+64k", "kernel+64k.aarch64"),
        ("4.18.0-553.rt7.342.el8_10.x86_64", ".rt.x86_64"),
        ("5.15.0-302.167.6.el9uek.x86_64", "uek.x86_64"),
        ("6.1.115-126.197.amzn2023.x86_64", "kernel.x86_64"),
        ("6.11.6-300.fc41.x86_64", "kernel.x86_64"),
        ("5.14.21-150500.55.83-default", "default"),
        ("6.4.0-150600.8.17-azure", "azure"),
        ("6.6.58-0-lts", "lts"),
        ("6.6.58-0-virt", "virt"),
        ("6.11.6-arch1-1", "arch"),
        ("6.6.60-1-lts", "lts"),
        ("6.11.6-zen1-1-zen", "zen"),
        ("6.11.6-hardened1-1-hardened", "hardened"),
        ("6.6.58-gentoo-dist", "gentoo-dist"),
    ] {
        assert_eq!(flavour(name).as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn what_is_somebodys_own_is_not_guessed_at() {
    for name in [
        "",
        "6",
        "amd64",
        "6.6.58",
        "6.18.44-fc-v657",
        "6.2.9-x86_64-linode160",
        "6.8.0-49-generic-mine",
        "6.8.0-mine",
        "6.1.0-28-amd64-dbg",
        "6.1.0-28-amd64.old",
        "6.6.30+mine-amd64",
        "5.15.153.1-microsoft-standard-WSL2",
        "6.11.6-1.el9.elrepo.x86_64",
        "5.14.0-mine.x86_64",
        "6..1-amd64",
        "6.1.0 28-amd64",
    ] {
        assert_eq!(flavour(name), None, "{name}");
    }
}

#[test]
fn versions_sort_as_their_package_manager_sorts_them() {
    for (older, newer) in [
        ("6.1.0-9-amd64", "6.1.0-28-amd64"),
        ("6.1.0-28-amd64", "6.12.9+bpo-amd64"),
        ("6.11-rc5-amd64", "6.11-amd64"),
        ("6.9.7-amd64", "6.10.1-amd64"),
        ("5.15.0-97-generic", "5.15.0-126-generic"),
        ("5.15.0-126-generic", "6.8.0-49-generic"),
        ("6.6.51+rpt-rpi-v8", "6.12.25+rpt-rpi-v8"),
        ("6.1.21-v8+", "6.6.20-v8+"),
        (
            "5.14.0-427.13.1.el9_4.x86_64",
            "5.14.0-503.11.1.el9_5.x86_64",
        ),
        (
            "5.14.0-503.11.1.el9_5.x86_64",
            "5.14.0-503.14.1.el9_5.x86_64",
        ),
        (
            "5.15.0-302.167.6.el9uek.x86_64",
            "6.12.0-100.28.2.el9uek.x86_64",
        ),
        ("6.12.0-0.rc5.44.fc42.x86_64", "6.12.0-65.fc42.x86_64"),
        ("5.14.21-150500.55.83-default", "6.4.0-150600.23.25-default"),
        ("6.6.58-0-lts", "6.6.58-1-lts"),
        ("6.11.6-arch1-1", "6.11.10-arch1-1"),
        ("6.11.6-arch1-1", "6.11.6-arch1-2"),
        ("6.11.6-zen1-1-zen", "6.12.0-zen1-1-zen"),
    ] {
        let [one, other] = [older, newer].map(|name| Release::parse(name).unwrap());
        assert_eq!(one.flavour, other.flavour, "{older} {newer}");
        assert!(one.key < other.key, "{older} {newer}");
    }
}

/// What `apt-cache show` said of every kernel in the archive of Debian 12, with security and backports, in November 2026.
const DEBIAN: &str = include_str!("../../../tests/fixtures/linux-images-debian");

#[test]
fn the_kernels_of_debians_archive_sort_as_the_versions_of_their_packages() {
    let kernels: Vec<_> = DEBIAN
        .lines()
        .map(|line| {
            let (package, version) = line.split_once('\t').unwrap();
            let release = Release::parse(of_package(package).unwrap()).unwrap();
            (package, release, deb::Version::split(version).sort_key())
        })
        .collect();
    let mut pairs = 0;
    for (one, release, version) in &kernels {
        for (other, other_release, other_version) in &kernels {
            if release.flavour == other_release.flavour {
                let orders = [
                    release.key.cmp(&other_release.key),
                    version.cmp(other_version),
                ];
                assert_eq!(orders[0], orders[1], "{one} {other}");
                pairs += 1;
            }
        }
    }
    assert!(pairs > 2000, "{pairs} pairs");
}

#[test]
fn packages_and_files_have_a_kernels_name_in_theirs_or_are_none() {
    for (package, expected) in [
        ("linux-image-6.1.0-28-amd64", Some("6.1.0-28-amd64")),
        (
            "linux-image-unsigned-5.15.0-126-generic",
            Some("5.15.0-126-generic"),
        ),
        (
            "linux-image-6.1.0-28-amd64-unsigned",
            Some("6.1.0-28-amd64"),
        ),
        ("proxmox-kernel-6.8.12-4-pve-signed", Some("6.8.12-4-pve")),
        ("linux-image-amd64", None),
        ("linux-image-6.12-amd64", None),
        ("linux-image-6.11-rc5-amd64", Some("6.11-rc5-amd64")),
        ("linux-image-generic-hwe-22.04", None),
        ("linux-image-extra-4.4.0-21-generic", None),
        ("linux-headers-6.1.0-28-amd64", None),
        ("proxmox-kernel-helper", None),
    ] {
        assert_eq!(of_package(package), expected, "{package}");
    }
    for (file, expected) in [
        ("vmlinuz-6.1.0-28-amd64", Some("6.1.0-28-amd64")),
        (
            "vmlinux-6.4.0-150600.23.25-default.gz",
            Some("6.4.0-150600.23.25-default"),
        ),
        ("kernel-6.6.58-gentoo-dist", Some("6.6.58-gentoo-dist")),
        ("vmlinuz-0-rescue-0123456789abcdef0123456789abcdef", None),
        ("vmlinuz-lts", None),
        ("vmlinuz", None),
        ("initrd.img-6.1.0-28-amd64", None),
        ("config-6.1.0-28-amd64", None),
    ] {
        assert_eq!(of_file(file), expected, "{file}");
    }
    assert_eq!(
        of_alpine("linux-lts", "6.6.58-r0").as_deref(),
        Some("6.6.58-0-lts")
    );
    assert_eq!(of_alpine("linux-firmware", "20240909-r0"), None);
    let rpm = |name, version| of_rpm_package(name, version, "x86_64");
    for (name, version, expected) in [
        (
            "kernel-core",
            "5.14.0-503.11.1.el9_5",
            Some("5.14.0-503.11.1.el9_5.x86_64"),
        ),
        (
            "kernel-rt-core",
            "5.14.0-503.11.1.el9_5",
            Some("5.14.0-503.11.1.el9_5.x86_64+rt"),
        ),
        (
            "kernel-rt-core",
            "4.18.0-553.rt7.342.el8_10",
            Some("4.18.0-553.rt7.342.el8_10.x86_64"),
        ),
        ("kernel-headers", "5.14.0-503.14.1.el9_5", None),
        ("kernel-tools", "5.14.0-503.14.1.el9_5", None),
        ("kernel-core", "1-1", None),
    ] {
        assert_eq!(rpm(name, version).as_deref(), expected, "{name} {version}");
    }
}

#[test]
fn the_running_kernel_tells_its_packages_version_where_the_distribution_lets_it() {
    let of = |release, built| package_version(release, built);
    let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)";
    assert_eq!(of("6.1.0-28-amd64", debian).as_deref(), Some("6.1.119-1"));
    let raspberry = "#1 SMP PREEMPT Debian 1:6.6.51-1+rpt3 (2024-10-08)";
    assert_eq!(
        of("6.6.51+rpt-rpi-v8", raspberry).as_deref(),
        Some("1:6.6.51-1+rpt3")
    );
    let ubuntu = "#136-Ubuntu SMP Wed Nov 6 10:38:22 UTC 2024";
    assert_eq!(
        of("5.15.0-126-generic", ubuntu).as_deref(),
        Some("5.15.0-126.136")
    );
    let hwe = "#136~20.04.1-Ubuntu SMP Thu Nov 14 16:38:05 UTC 2024";
    assert_eq!(
        of("5.15.0-126-generic", hwe).as_deref(),
        Some("5.15.0-126.136~20.04.1")
    );
    for other in [
        "#1 SMP PREEMPT_DYNAMIC Tue Oct 29 14:02:45 EDT 2024",
        "",
        "#1-Alpine SMP",
        "# Debian x",
    ] {
        assert_eq!(of("5.14.0-503.11.1.el9_5.x86_64", other), None, "{other}");
    }
    assert!(is_same_build("6.1.119-1", "6.1.119-1+b1"));
    assert!(!is_same_build("6.1.119-1", "6.1.128-1"));
}
