//! The packages that are installed on this host, as its package managers' own databases say: read as they are, without a
//! lock and without running the package manager; rpm's alone by the unit that runs rpm. What can't be read is said so and why.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::answers::{Question, ask};
use super::{Reason, Root, apps};
use crate::packages::dpkg::Database;
use crate::packages::{Inventory, Manager, apk};

const STATUS: &str = "var/lib/dpkg/status";
/// What a run of dpkg that goes on has not merged yet: files of digits, in their order (`lib/dpkg/dbmodify.c`).
const UPDATES: &str = "var/lib/dpkg/updates";
/// Of images without dpkg: a file a package.
const STATUS_D: &str = "var/lib/dpkg/status.d";
const INFO: &str = "var/lib/dpkg/info";
/// apk's, and where apk 3 of a merged `/usr` keeps it.
const INSTALLED: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// Of each of its formats, where it was and where it is on newer hosts.
const RPM_DATABASES: [&str; 6] = [
    "usr/lib/sysimage/rpm/Packages",
    "usr/lib/sysimage/rpm/Packages.db",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/rpmdb.sqlite",
];
pub(super) const RPM: Question = Question {
    name: "rpm",
    inputs: &[
        "usr/lib/sysimage/rpm/Packages",
        "usr/lib/sysimage/rpm/Packages.db",
        "usr/lib/sysimage/rpm/rpmdb.sqlite",
        "usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
        "var/lib/rpm/Packages",
        "var/lib/rpm/Packages.db",
        "var/lib/rpm/rpmdb.sqlite",
        "var/lib/rpm/rpmdb.sqlite-wal",
    ],
};
/// Of a database at most; a larger one is not read, and said to be too large.
const FILE_BYTES: u64 = 128 * 1024 * 1024;

/// A database that is there, with what it has, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Found {
    Known(Inventory),
    Unknown { manager: Manager, unknown: String },
}

/// Reads every database that the host has.
pub fn installed_packages(root: &Root) -> Vec<Found> {
    let mut found = Vec::new();
    for (manager, inventory) in [
        (Manager::Apk, of_apk(root)),
        (Manager::Dpkg, of_dpkg(root)),
        (Manager::Flatpak, Ok(apps::of_flatpak(root))),
        (Manager::Rpm, of_rpm(root)),
        (Manager::Snap, apps::of_snap(root)),
    ] {
        match inventory {
            Ok(None) => {}
            Ok(Some(inventory)) => found.push(Found::Known(inventory)),
            Err(unknown) => found.push(Found::Unknown { manager, unknown }),
        }
    }
    found
}

pub(crate) fn of_apk(root: &Root) -> Result<Option<Inventory>, Reason> {
    let Some(path) = INSTALLED.iter().find(|path| root.exists(path)) else {
        return Ok(None);
    };
    let said = |error: std::io::Error| format!("/{path}: {error}");
    let file = root.open(path, FILE_BYTES).map_err(said)?;
    apk::parse(file).map(Some).map_err(said)
}

pub(crate) fn of_dpkg(root: &Root) -> Result<Option<Inventory>, Reason> {
    let has_status = root.exists(STATUS);
    if !has_status && !root.exists(STATUS_D) {
        return Ok(None);
    }
    let mut database = Database::default();
    let mut add = |path: &str| {
        let added = root
            .open(path, FILE_BYTES)
            .and_then(|file| database.add(file));
        added.map_err(|error| format!("/{path}: {error}"))
    };
    if has_status {
        add(STATUS)?;
        let updates = root.names(UPDATES).unwrap_or_default();
        let is_update = |name: &&String| name.bytes().all(|byte| byte.is_ascii_digit());
        for name in updates.iter().filter(is_update) {
            add(&format!("{UPDATES}/{name}"))?;
        }
    } else {
        let names = root.names(STATUS_D)?;
        let is_entry = |name: &&String| !name.ends_with(".md5sums");
        for name in names.iter().filter(is_entry) {
            add(&format!("{STATUS_D}/{name}"))?;
        }
    }
    let mut inventory = database.inventory();
    for package in &mut inventory.packages {
        package.installed_at_s = installed_at(root, &package.name, &package.arch);
    }
    Ok(Some(inventory))
}

/// As the unit has answered that runs rpm.
fn of_rpm(root: &Root) -> Result<Option<Inventory>, Reason> {
    if !has_rpm_database(root) {
        return Ok(None);
    }
    let asked = ask(root, &[&RPM]);
    match RPM.answer(root) {
        Ok(Found::Known(inventory)) if is_tool_only(root, &inventory) => Ok(None),
        Ok(Found::Known(inventory)) => Ok(Some(inventory)),
        Ok(Found::Unknown { unknown, .. }) => Err(unknown),
        // Nobody misses it on a host that is dpkg's.
        Err(_) if root.exists(STATUS) => Ok(None),
        Err(reason) => Err(asked.err().unwrap_or(reason)),
    }
}

pub(super) fn has_rpm_database(root: &Root) -> bool {
    RPM_DATABASES.iter().any(|path| root.exists(path))
}

/// Whether rpm's packages make up this host.
pub(super) fn has_rpm(root: &Root) -> bool {
    let is_used = || match RPM.answer(root) {
        Ok(Found::Known(inventory)) => !is_tool_only(root, &inventory),
        _ => false,
    };
    has_rpm_database(root) && (!root.exists(STATUS) || is_used())
}

/// Where dpkg is the host's, whoever runs rpm leaves a database without packages.
fn is_tool_only(root: &Root, inventory: &Inventory) -> bool {
    inventory.packages.is_empty() && root.exists(STATUS)
}

/// dpkg writes the list of a package's files anew whenever it unpacks it.
fn installed_at(root: &Root, name: &str, arch: &str) -> Option<u64> {
    let lists = [
        format!("{INFO}/{name}:{arch}.list"),
        format!("{INFO}/{name}.list"),
    ];
    let written = lists
        .iter()
        .find_map(|list| root.path(list).metadata().ok()?.modified().ok())?;
    Some(
        written
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs(),
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::collect::fixture;

    #[test]
    fn what_a_run_of_dpkg_has_not_merged_yet_takes_the_place_of_what_was() {
        let (_keep, root) = fixture::host(&[
            (
                "var/lib/dpkg/status",
                "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n\
                Package: b\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n",
            ),
            (
                "var/lib/dpkg/updates/0001",
                "Package: a\nStatus: install ok unpacked\nVersion: 2\nArchitecture: all\n",
            ),
            (
                "var/lib/dpkg/updates/0002",
                "Package: a\nStatus: install ok installed\nVersion: 2\nArchitecture: all\n",
            ),
            (
                "var/lib/dpkg/updates/0003",
                "Package: b\nStatus: purge ok not-installed\nArchitecture: all\n",
            ),
            ("var/lib/dpkg/updates/tmp.i", "Package: c\n"),
            ("var/lib/dpkg/info/a.list", "/.\n"),
        ]);
        let inventory = of_dpkg(&root).unwrap().unwrap();
        assert_eq!(inventory.names(), ["a"]);
        let a = &inventory.packages[0];
        assert_eq!((a.version.as_str(), a.broken.as_deref()), ("2", None));
        assert!(a.installed_at_s.is_some());
    }

    #[test]
    fn an_image_without_dpkg_has_a_file_for_each_package() {
        let (_keep, root) = fixture::host(&[
            (
                "var/lib/dpkg/status.d/base",
                "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
            ),
            ("var/lib/dpkg/status.d/base.md5sums", "0  etc/os-release\n"),
        ]);
        let inventory = of_dpkg(&root).unwrap().unwrap();
        assert_eq!(
            (inventory.names(), inventory.skipped),
            (vec!["base-files"], 0)
        );
        let (_keep, root) = fixture::host(&[]);
        assert_eq!(of_dpkg(&root).unwrap(), None);
    }

    #[test]
    fn this_machine_has_what_dpkg_says() {
        let format = "${db:Status-Want} ${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\n";
        let Ok(told) = Command::new("dpkg-query")
            .args(["-W", "-f", format])
            .output()
        else {
            return;
        };
        let told = String::from_utf8(told.stdout).unwrap();
        let is_there =
            |line: &&str| !line.contains(" config-files\t") && !line.contains(" not-installed\t");
        let mut told: Vec<_> = told.lines().filter(is_there).map(str::to_owned).collect();
        let inventory = of_dpkg(&Root::default()).unwrap().unwrap();
        assert!(
            !told.is_empty()
                && inventory
                    .packages
                    .iter()
                    .all(|one| one.installed_at_s.is_some())
        );
        let mut ours: Vec<_> = inventory
            .packages
            .into_iter()
            .map(|one| {
                let want = if one.held { "hold" } else { "install" };
                let state = one.broken.as_deref().unwrap_or("installed");
                let source = one.source.as_ref().unwrap_or(&one.name);
                format!(
                    "{want} {state}\t{}\t{}\t{}\t{source}",
                    one.name, one.version, one.arch
                )
            })
            .collect();
        told.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, told);
    }

    #[test]
    fn a_database_that_is_no_file_is_not_waited_for() {
        let (keep, root) = fixture::host(&[("var/lib/dpkg/other", "")]);
        let fifo = keep.path().join(STATUS);
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let reason = of_dpkg(&root).unwrap_err();
        assert!(reason.contains("is no file"), "{reason}");
    }
}
