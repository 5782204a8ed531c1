//! Snaps and flatpaks: what each has of its own beside the package manager's database, which only root or a library can read.

use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use super::{Reason, Root};
use crate::packages::{Inventory, MOST, Manager, Package, flatpak, snap};

/// Where snaps are mounted.
const SNAPS: [&str; 2] = ["snap", "var/lib/snapd/snap"];
const FLATPAKS: &str = "var/lib/flatpak";
const FILE_BYTES: u64 = 1024 * 1024;

/// The revision of each snap that is in use.
pub(super) fn of_snap(root: &Root) -> Result<Option<Inventory>, Reason> {
    let is_used = root.exists("var/lib/snapd/snaps");
    let Some(place) = SNAPS.iter().find(|place| is_used && root.exists(place)) else {
        return Ok(None);
    };
    let (mut packages, mut skipped) = (Vec::new(), 0);
    for name in root.names(place)? {
        let current = format!("{place}/{name}/current");
        if !root.exists(&current) {
            // Programs of snaps stand here too, and snaps that are switched off.
            continue;
        }
        let package =
            text(root, &format!("{current}/meta/snap.yaml")).and_then(|text| snap::parse(&text));
        match package {
            Some(package) if packages.len() < MOST => packages.push(Package {
                installed_at_s: changed_at(&root.path(&current)),
                ..package
            }),
            Some(_) | None => skipped += 1,
        }
    }
    Ok(Some(Inventory::new(Manager::Snap, packages, skipped)))
}

/// Applications and runtimes of the whole host: `KIND/NAME/ARCH/BRANCH/active`.
pub(super) fn of_flatpak(root: &Root) -> Option<Inventory> {
    if !root.exists(FLATPAKS) {
        return None;
    }
    let names = |path: &str| root.names(path).unwrap_or_default();
    let (mut packages, mut skipped) = (Vec::new(), 0);
    for kind in ["app", "runtime"] {
        let kind = format!("{FLATPAKS}/{kind}");
        for name in names(&kind) {
            for arch in names(&format!("{kind}/{name}")) {
                for branch in names(&format!("{kind}/{name}/{arch}")) {
                    let active = format!("{kind}/{name}/{arch}/{branch}/active");
                    if !root.exists(&format!("{active}/metadata")) {
                        // `current` is a link to one of the others.
                        continue;
                    }
                    if packages.len() >= MOST {
                        skipped += 1;
                        continue;
                    }
                    let version = version(root, &active, &name);
                    let package =
                        flatpak::package(&name, &arch, version.as_deref().unwrap_or(&branch));
                    packages.push(Package {
                        installed_at_s: changed_at(&root.path(&active)),
                        ..package
                    });
                }
            }
        }
    }
    Some(Inventory::new(Manager::Flatpak, packages, skipped))
}

fn version(root: &Root, active: &str, name: &str) -> Option<String> {
    let share = format!("{active}/files/share");
    let places = [
        format!("{share}/metainfo/{name}.metainfo.xml"),
        format!("{share}/metainfo/{name}.appdata.xml"),
        format!("{share}/appdata/{name}.appdata.xml"),
    ];
    let mut texts = places.iter().filter_map(|place| text(root, place));
    texts.find_map(|text| flatpak::newest_release(&text))
}

fn text(root: &Root, path: &str) -> Option<String> {
    let mut text = Vec::new();
    root.open(path, FILE_BYTES)
        .ok()?
        .read_to_end(&mut text)
        .ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The link is made anew with each version.
fn changed_at(link: &Path) -> Option<u64> {
    let changed = link.symlink_metadata().ok()?.modified().ok()?;
    Some(
        changed
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    #[test]
    fn snaps_are_what_is_mounted_as_current() {
        let (_keep, root) = fixture::host(&[
            ("var/lib/snapd/snaps/core22_1.snap", ""),
            ("snap/bin/core22", ""),
            ("snap/README", ""),
            (
                "snap/core22/1/meta/snap.yaml",
                "name: core22\nversion: '20240111'\narchitectures:\n- amd64\n",
            ),
            ("snap/core22/current", "->1"),
            ("snap/odd/2/meta/snap.yaml", "version: 1\n"),
            ("snap/odd/current", "->2"),
        ]);
        let inventory = of_snap(&root).unwrap().unwrap();
        assert_eq!((inventory.names(), inventory.skipped), (vec!["core22"], 1));
        assert!(inventory.packages[0].installed_at_s.is_some());
        let (_keep, root) = fixture::host(&[("snap/other", "")]);
        assert_eq!(of_snap(&root).unwrap(), None);
    }

    #[test]
    fn flatpaks_have_the_version_of_their_newest_release_or_their_branch() {
        let app = "var/lib/flatpak/app/org.x.App/x86_64/stable/active";
        let (_keep, root) = fixture::host(&[
            (
                &format!("{app}/metadata"),
                "[Application]\nname=org.x.App\n",
            ),
            (
                &format!("{app}/files/share/metainfo/org.x.App.metainfo.xml"),
                "<component><releases><release date=\"2024-01-01\" version=\"2.1\"/><release version=\"2.0\"/></releases></component>",
            ),
            ("var/lib/flatpak/app/org.x.App/current", "->x86_64/stable"),
            (
                "var/lib/flatpak/runtime/org.x.Platform/x86_64/23.08/active/metadata",
                "[Runtime]\n",
            ),
        ]);
        let inventory = of_flatpak(&root).unwrap();
        let told: Vec<_> = inventory
            .packages
            .iter()
            .map(|one| (one.name.as_str(), one.version.as_str(), one.arch.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("org.x.App", "2.1", "x86_64"),
                ("org.x.Platform", "23.08", "x86_64")
            ]
        );
    }
}
