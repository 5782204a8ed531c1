//! What the hosts of the sample fleet have installed, and what there is to install on them.

use infratrack_shared::codec;
use infratrack_shared::wire::event::{PackageAction, PackageChange};
use infratrack_shared::wire::packages::{
    Blocked, BlockedWhy, Database, Group, Manager, PACKAGES, Package, PackagesPart, PendingUpdate,
    UPDATES, UpdateCheck, UpdatesPart,
};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::member::{Member, Role, Trouble};
use crate::agents::lane::Keeper;
use crate::clock::Clock;
use crate::config::Patches;

/// Name, version, and source where that has another name.
type Known = (&'static str, &'static str, Option<&'static str>);

const EVERYWHERE: [Known; 16] = [
    ("apt", "2.6.1", None),
    ("base-files", "12.4+deb12u9", None),
    ("bash", "5.2.15-2+b7", None),
    ("ca-certificates", "20230311+deb12u1", None),
    ("coreutils", "9.1-1", None),
    ("curl", "7.88.1-10+deb12u8", None),
    ("dpkg", "1.21.22", None),
    ("infratrack-agent", "0.1.0-1", None),
    ("libc6", "2.36-9+deb12u9", Some("glibc")),
    ("libcurl4", "7.88.1-10+deb12u8", Some("curl")),
    ("libssl3", "3.0.15-1~deb12u1", Some("openssl")),
    ("openssh-server", "1:9.2p1-2+deb12u3", Some("openssh")),
    ("openssl", "3.0.15-1~deb12u1", None),
    ("systemd", "252.33-1~deb12u1", None),
    ("tzdata", "2024b-0+deb12u1", None),
    ("vim-tiny", "2:9.0.1378-2", Some("vim")),
];
const ON_EL: [Known; 8] = [
    ("almalinux-release", "9.5-1.el9", None),
    ("bash", "5.1.8-9.el9", None),
    ("curl", "7.76.1-31.el9", None),
    ("glibc", "2.34-125.el9_5.1", None),
    ("openssh-server", "8.7p1-43.el9.alma.2", Some("openssh")),
    ("openssl", "1:3.2.2-6.el9_5", None),
    ("openssl-libs", "1:3.2.2-6.el9_5", Some("openssl")),
    ("systemd", "252-46.el9_5.2", None),
];
/// Name, installed, candidate, whether for security.
const UPDATES_OF_DEBIAN: [(&str, &str, &str, bool); 5] = [
    ("libssl3", "3.0.15-1~deb12u1", "3.0.16-1~deb12u1", true),
    ("openssl", "3.0.15-1~deb12u1", "3.0.16-1~deb12u1", true),
    ("curl", "7.88.1-10+deb12u8", "7.88.1-10+deb12u12", false),
    ("libcurl4", "7.88.1-10+deb12u8", "7.88.1-10+deb12u12", false),
    ("tzdata", "2024b-0+deb12u1", "2025a-0+deb12u1", false),
];
const UPDATES_OF_EL: [(&str, &str, &str, bool); 3] = [
    ("openssl-libs", "1:3.2.2-6.el9_5", "1:3.2.2-6.el9_5.1", true),
    ("openssl", "1:3.2.2-6.el9_5", "1:3.2.2-6.el9_5.1", true),
    ("glibc", "2.34-125.el9_5.1", "2.34-125.el9_5.8", false),
];

/// Stores both for a host.
pub(super) async fn store(
    connection: &mut PgConnection,
    policy: &Patches,
    member: Member,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    // Pending for long only where something is wrong anyway.
    let days = if member.trouble() == Some(Trouble::RebootRequired) {
        41
    } else {
        member.roll("pending for days", 20)
    };
    let then = now - Duration::days(days.cast_signed());
    let keeper = Keeper::new(&Clock::from_fn(move || then), policy);
    let packages = codec::to_value(&packages(member, now))?;
    keeper
        .store_first(connection, member.host(), PACKAGES, packages)
        .await?;
    let updates = codec::to_value(&updates(member, now))?;
    keeper
        .store_first(connection, member.host(), UPDATES, updates)
        .await
}

/// How many updates are pending, and how many of them for security.
pub(super) fn counts(member: Member) -> (usize, usize) {
    let pending = some(member).min(UPDATES_OF_DEBIAN.len());
    let security = UPDATES_OF_DEBIAN.iter().take(pending);
    (pending, security.filter(|(.., security)| *security).count())
}

fn some(member: Member) -> usize {
    usize::try_from(member.roll("updates", 6)).unwrap_or_default()
}

fn is_el(member: Member) -> bool {
    member.system().id == "almalinux"
}

/// The log that tells of it.
pub(super) fn log(member: Member) -> &'static str {
    if is_el(member) {
        "/var/log/dnf.rpm.log"
    } else {
        "/var/log/apt/history.log"
    }
}

/// What security updates are installed with.
pub(super) fn upgrade_command(member: Member) -> &'static str {
    if is_el(member) {
        "/usr/bin/dnf upgrade --security -y"
    } else {
        "/usr/bin/apt-get -y install openssl libssl3"
    }
}

/// The security updates that were installed last.
pub(super) fn upgraded(member: Member) -> Vec<PackageChange> {
    let (names, versions) = if is_el(member) {
        (
            ["openssl-libs", "openssl"],
            ["1:3.2.2-5.el9_5", "1:3.2.2-6.el9_5"],
        )
    } else {
        (
            ["libssl3", "openssl"],
            ["3.0.14-1~deb12u2", "3.0.15-1~deb12u1"],
        )
    };
    let [from, to] = versions.map(str::to_owned);
    let changed = names.map(|name| PackageChange {
        action: PackageAction::Upgraded,
        name: name.to_owned(),
        arch: if is_el(member) { "x86_64" } else { "amd64" }.to_owned(),
        from: Some(from.clone()),
        to: Some(to.clone()),
        ..PackageChange::default()
    });
    changed.into()
}

pub(super) fn manager(member: Member) -> Manager {
    if is_el(member) {
        Manager::Rpm
    } else {
        Manager::Dpkg
    }
}

fn packages(member: Member, now: OffsetDateTime) -> PackagesPart {
    let of_role: &[Known] = match member.role() {
        Role::Web => &[
            ("nginx", "1.22.1-9", None),
            ("nginx-common", "1.22.1-9", Some("nginx")),
        ],
        Role::Db => &[("postgresql-15", "15.8-0+deb12u1", None)],
        Role::Cache | Role::Ci | Role::Edge => &[("docker.io", "20.10.24+dfsg1-1+b3", None)],
    };
    let all: Vec<&Known> = if is_el(member) {
        ON_EL.iter().collect()
    } else {
        EVERYWHERE.iter().chain(of_role).collect()
    };
    let installed = now - Duration::days(60 + member.roll("installed", 90).cast_signed());
    let package = |&&(name, version, source): &&Known| Package {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: if is_el(member) { "x86_64" } else { "amd64" }.to_owned(),
        source: source.map(str::to_owned),
        vendor: is_el(member).then(|| "AlmaLinux".to_owned()),
        installed_at_s: u64::try_from(installed.unix_timestamp()).ok(),
        held: name.starts_with("postgresql"),
        ..Package::default()
    };
    PackagesPart {
        databases: vec![Database {
            manager: manager(member),
            has_log: true,
            ..Database::default()
        }],
        put: vec![Group {
            manager: manager(member),
            packages: all.iter().map(package).collect(),
        }],
        gone: Vec::new(),
    }
}

fn updates(member: Member, now: OffsetDateTime) -> UpdatesPart {
    let all: &[_] = if is_el(member) {
        &UPDATES_OF_EL
    } else {
        &UPDATES_OF_DEBIAN
    };
    let update = |&(name, installed, candidate, security): &(&str, &str, &str, bool)| {
        let advisory = if is_el(member) {
            "ALSA-2025:1330"
        } else {
            "DSA-5856-1"
        };
        PendingUpdate {
            name: name.to_owned(),
            arch: if is_el(member) { "x86_64" } else { "amd64" }.to_owned(),
            installed: installed.to_owned(),
            candidate: candidate.to_owned(),
            source: None,
            repository: Some(repository(member, security).to_owned()),
            security: Some(security),
            severity: (security && is_el(member)).then(|| "important".to_owned()),
            advisories: security.then(|| advisory.to_owned()).into_iter().collect(),
            blocked: (name == "curl" && member.roll("held", 9) == 0).then_some(Blocked {
                why: BlockedWhy::Held,
                detail: None,
            }),
        }
    };
    let lists = now - Duration::hours(member.roll("lists", 24).cast_signed());
    let interrupted = member.roll("interrupted", 40) == 0;
    let check = UpdateCheck {
        manager: manager(member),
        tool: if is_el(member) { "dnf" } else { "apt" }.to_owned(),
        unknown: interrupted.then(|| "an update was interrupted".to_owned()),
        metadata_at_s: u64::try_from(lists.unix_timestamp()).ok(),
        warnings: Vec::new(),
    };
    let pending = if interrupted {
        Vec::new()
    } else {
        all.iter().take(some(member)).map(update).collect()
    };
    UpdatesPart {
        checks: vec![check],
        pending: vec![Group {
            manager: manager(member),
            packages: pending,
        }],
    }
}

fn repository(member: Member, is_security: bool) -> &'static str {
    match (is_el(member), is_security) {
        (true, _) => "baseos",
        (false, true) => "Debian-Security:12/stable-security",
        (false, false) => "Debian:12.9/stable",
    }
}
