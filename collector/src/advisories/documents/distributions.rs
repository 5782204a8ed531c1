//! The names that publishers have for distributions, as one: `debian:12`, `ubuntu:22.04`, `rhel:9`.
//!
//! The other side, what a host calls itself, is `host_distribution` in the migrations.

use super::{Applies, Distribution};

/// Debian's releases by their names.
const DEBIAN: [(&str, &str); 9] = [
    ("jessie", "8"),
    ("stretch", "9"),
    ("buster", "10"),
    ("bullseye", "11"),
    ("bookworm", "12"),
    ("trixie", "13"),
    ("forky", "14"),
    ("duke", "15"),
    ("sid", "sid"),
];

/// A distribution of Debian by its code name; one that is not known here is kept by its name.
pub fn debian(codename: &str) -> Distribution {
    let known = DEBIAN.iter().find(|(name, _)| *name == codename);
    let version = known.map_or(codename, |(_, version)| version);
    of("debian", version, "dpkg", Applies::Source)
}

fn of(id: &str, version: &str, manager: &'static str, applies: Applies) -> Distribution {
    Distribution {
        name: format!("{id}:{version}"),
        manager,
        applies,
        is_extra: false,
    }
}

/// An ecosystem of OSV. None: it is no distribution, or one that hosts can't be told to be.
pub fn of_ecosystem(ecosystem: &str) -> Option<Distribution> {
    let (family, release) = ecosystem.split_once(':')?;
    match family {
        "Debian" => number(release).map(|version| of("debian", version, "dpkg", Applies::Source)),
        "Ubuntu" => ubuntu(release),
        "Alpine" => {
            let version = number(release.strip_prefix('v')?)?;
            Some(of("alpine", version, "apk", Applies::Source))
        }
        "AlmaLinux" => Some(of("almalinux", major(release)?, "rpm", Applies::Binary)),
        "Rocky Linux" => Some(of("rocky", major(release)?, "rpm", Applies::Either)),
        // Streams of their own, such as `rhel_eus`, are not what a host's version tells.
        "Red Hat" => {
            let version = release.strip_prefix("enterprise_linux:")?;
            Some(of("rhel", major(version)?, "rpm", Applies::Binary))
        }
        "SUSE" => suse(release),
        "openSUSE" => opensuse(release),
        _ => None,
    }
}

fn ubuntu(release: &str) -> Option<Distribution> {
    let (release, is_extra) = match release.strip_prefix("Pro:") {
        // Builds for FIPS have versions of their own: they begin with no number, and are left out.
        Some(release) => (release, true),
        None => (release, false),
    };
    let version = number(release.split(':').next()?)?;
    Some(Distribution {
        is_extra,
        ..of("ubuntu", version, "dpkg", Applies::Source)
    })
}

/// `Linux Enterprise Server 15 SP5`, or a module of it, of which a host does not say which it has.
fn suse(release: &str) -> Option<Distribution> {
    let rest = release.strip_prefix("Linux Enterprise ")?;
    let id = match rest {
        rest if rest.starts_with("Desktop ") => "sled",
        rest if rest.starts_with("Server ") || rest.starts_with("Module ") => "sles",
        _ => return None,
    };
    let words: Vec<_> = rest.split(' ').collect();
    let (version, pack) = match words.as_slice() {
        [.., version, pack] if pack.starts_with("SP") => (*version, pack.strip_prefix("SP")?),
        [.., version] => (*version, ""),
        [] => return None,
    };
    // `15 SP4-LTSS` is for who pays longer: its fixes are no others.
    let pack = pack.split('-').next().unwrap_or_default();
    let version = number(version.split('-').next()?)?;
    let version = match pack {
        "" => version.to_owned(),
        pack => format!("{version}.{}", number(pack)?),
    };
    Some(of(id, &version, "rpm", Applies::Source))
}

fn opensuse(release: &str) -> Option<Distribution> {
    if release == "Tumbleweed" {
        return Some(Distribution {
            name: "opensuse-tumbleweed".to_owned(),
            ..of("", "", "rpm", Applies::Source)
        });
    }
    let version = number(release.strip_prefix("Leap ")?)?;
    Some(of("opensuse-leap", version, "rpm", Applies::Source))
}

/// A platform as OVAL definitions name it.
pub fn of_platform(platform: &str) -> Option<Distribution> {
    let after = |before: &str| Some(platform.strip_prefix(before)?.trim());
    let first = |text: &str| number(text.split([' ', '(']).next()?).map(str::to_owned);
    if let Some(rest) = after("Debian GNU/Linux ") {
        let version = first(rest)?;
        return Some(of("debian", &version, "dpkg", Applies::Either));
    }
    if let Some(rest) = after("Ubuntu ") {
        return Some(of("ubuntu", &first(rest)?, "dpkg", Applies::Either));
    }
    if let Some(rest) = after("openSUSE ") {
        return opensuse(rest).map(|found| Distribution {
            applies: Applies::Binary,
            ..found
        });
    }
    if let Some(rest) = after("SUSE ") {
        return suse(rest).map(|found| Distribution {
            applies: Applies::Binary,
            ..found
        });
    }
    let families = [
        ("Red Hat Enterprise Linux ", "rhel"),
        ("AlmaLinux ", "almalinux"),
        ("Rocky Linux ", "rocky"),
        ("Oracle Linux ", "ol"),
    ];
    families.into_iter().find_map(|(family, id)| {
        let version = first(after(family)?)?;
        Some(of(id, major(&version)?, "rpm", Applies::Binary))
    })
}

/// Digits and dots.
fn number(text: &str) -> Option<&str> {
    let fits = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let is_number = text.starts_with(|char: char| char.is_ascii_digit()) && text.bytes().all(fits);
    is_number.then_some(text)
}

fn major(release: &str) -> Option<&str> {
    number(release.split(['.', ':']).next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_names_are_those_that_hosts_have() {
        let name = |ecosystem: &str| of_ecosystem(ecosystem).map(|found| found.name);
        for (ecosystem, is) in [
            ("Debian:12", "debian:12"),
            ("Ubuntu:22.04:LTS", "ubuntu:22.04"),
            ("Ubuntu:Pro:16.04:LTS", "ubuntu:16.04"),
            ("Ubuntu:24.10", "ubuntu:24.10"),
            ("Alpine:v3.20", "alpine:3.20"),
            ("AlmaLinux:9", "almalinux:9"),
            ("Rocky Linux:8", "rocky:8"),
            ("Red Hat:enterprise_linux:9::baseos", "rhel:9"),
            ("Red Hat:enterprise_linux:8.6::appstream", "rhel:8"),
            ("SUSE:Linux Enterprise Server 15 SP5", "sles:15.5"),
            ("SUSE:Linux Enterprise Server 15 SP4-LTSS", "sles:15.4"),
            (
                "SUSE:Linux Enterprise Module for Basesystem 15 SP6",
                "sles:15.6",
            ),
            ("SUSE:Linux Enterprise Server 15", "sles:15"),
            ("openSUSE:Leap 15.6", "opensuse-leap:15.6"),
            ("openSUSE:Tumbleweed", "opensuse-tumbleweed"),
        ] {
            assert_eq!(name(ecosystem).as_deref(), Some(is), "{ecosystem}");
        }
        for none in [
            "",
            "Debian",
            "Alpine",
            "npm",
            "PyPI:x",
            "Red Hat:rhel_eus:9.2::baseos",
            "Ubuntu:Pro:FIPS:18.04:LTS",
            "SUSE:Manager Server 4.3",
            "SUSE:Linux Enterprise Server x SPy",
            "Debian:",
            "Alpine:edge",
        ] {
            assert_eq!(name(none), None, "{none}");
        }
        assert!(of_ecosystem("Ubuntu:Pro:16.04:LTS").is_some_and(|found| found.is_extra));
        assert_eq!(debian("trixie").name, "debian:13");
        assert_eq!(debian("later").name, "debian:later");
        let platform = |text: &str| of_platform(text).map(|found| found.name);
        for (text, is) in [
            ("Debian GNU/Linux 12", "debian:12"),
            ("Ubuntu 22.04 LTS", "ubuntu:22.04"),
            ("Red Hat Enterprise Linux 9", "rhel:9"),
            ("Oracle Linux 8", "ol:8"),
            ("AlmaLinux 9", "almalinux:9"),
            ("SUSE Linux Enterprise Server 15 SP5", "sles:15.5"),
            ("openSUSE Leap 15.5", "opensuse-leap:15.5"),
        ] {
            assert_eq!(platform(text).as_deref(), Some(is), "{text}");
        }
        assert_eq!(platform("Microsoft Windows 10"), None);
    }
}
