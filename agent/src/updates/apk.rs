//! What apk would upgrade: `apk version` tells which newer versions there are, a simulated upgrade which of them it would install.
//! Alpine's indices don't say which of it mends vulnerabilities. Called by the unit of the check.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use infratrack_shared::wire::packages::{Blocked, BlockedWhy, Manager, PendingUpdate};

use super::rpm::refusal;
use super::tool::{Check, Host};
use super::{Answer, Reason, Told};
use crate::collect::installed_apk;

const CACHES: [&str; 2] = ["etc/apk/cache", "var/cache/apk"];
const REPOSITORIES: &str = "etc/apk/repositories";
const WORLD: &str = "etc/apk/world";
const FILE_BYTES: u64 = 1024 * 1024;

/// Asks apk.
pub async fn check(host: &Host) -> Answer {
    let check = Check::new(host);
    Answer::new(Manager::Apk, "apk", told(&check).await)
}

async fn told(check: &Check<'_>) -> Result<Told, Reason> {
    let (metadata_at_s, warnings) = indices(check)?;
    let newer = apk(check, &["version", "-l", "<"]).await?;
    let upgraded = upgraded(&apk(check, &["--simulate", "upgrade"]).await?);
    let installed = installed_apk(&check.host.root)?.ok_or("apk has no database here")?;
    let installed: BTreeMap<_, _> = installed
        .packages
        .into_iter()
        .map(|package| (package.name.clone(), package))
        .collect();
    let world = text(check, WORLD);
    let pending = versions(&newer).into_iter().filter_map(|newer| {
        let package = installed.get(&newer.name)?;
        let blocked = (!upgraded.contains(&newer.name)).then(|| blocked(&world, &newer.name));
        Some(PendingUpdate {
            name: newer.name,
            arch: package.arch.clone(),
            installed: newer.installed,
            candidate: newer.candidate,
            source: package
                .source
                .clone()
                .filter(|source| *source != package.name),
            blocked,
            ..PendingUpdate::default()
        })
    });
    Ok(Told {
        pending: pending.collect(),
        metadata_at_s: Some(metadata_at_s),
        warnings,
    })
}

async fn apk(check: &Check<'_>, args: &[&str]) -> Result<String, Reason> {
    let options = ["--no-network", "--no-progress"];
    let output = check.run("apk", options.iter().chain(args)).await?;
    if output.code != 0 {
        return Err(refusal("apk", &output));
    }
    Ok(output.text)
}

/// When the oldest of the indices came that `apk update` has brought; without any, nobody knows of newer versions.
fn indices(check: &Check<'_>) -> Result<(u64, Vec<String>), Reason> {
    let root = &check.host.root;
    let mut times = Vec::new();
    for cache in CACHES {
        let names = root.names(cache).unwrap_or_default();
        let names = names.iter().filter(|name| name.starts_with("APKINDEX."));
        times = names
            .filter_map(|name| root.path(&format!("{cache}/{name}")).metadata().ok())
            .filter_map(|found| u64::try_from(found.mtime()).ok())
            .collect();
        if !times.is_empty() {
            break;
        }
    }
    let oldest = times.iter().min().copied();
    let oldest = oldest.ok_or("no package indices: apk update has not run")?;
    let repositories = text(check, REPOSITORIES);
    let wanted = repositories.lines().filter(|line| line.contains("://"));
    let wanted = wanted
        .filter(|line| !line.trim_start().starts_with('#'))
        .count();
    let missing = wanted.saturating_sub(times.len());
    let warning = (missing > 0).then(|| format!("no index of {missing} of {wanted} repositories"));
    Ok((oldest, warning.into_iter().collect()))
}

fn text(check: &Check<'_>, path: &str) -> String {
    let mut text = String::new();
    if let Ok(mut file) = check.host.root.open(path, FILE_BYTES) {
        // What is no text names no package either.
        let _ = file.read_to_string(&mut text);
    }
    text
}

/// A newer version of an installed package.
#[derive(Debug, PartialEq, Eq)]
struct Newer {
    name: String,
    installed: String,
    candidate: String,
}

/// The lines `NAME-VERSION < CANDIDATE`.
fn versions(text: &str) -> Vec<Newer> {
    let newer = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [package, "<", candidate, ..] = words.as_slice() else {
            return None;
        };
        // A version is `NUMBER-rNUMBER` at its end; names have dashes, too.
        let mut parts = package.rsplitn(3, '-');
        let (release, version, name) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Newer {
            name: name.to_owned(),
            installed: format!("{version}-{release}"),
            candidate: (*candidate).to_owned(),
        })
    });
    newer.collect()
}

/// The names of the lines `(1/3) Upgrading NAME (OLD -> NEW)`.
fn upgraded(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(") ")?;
        let rest = rest
            .strip_prefix("Upgrading ")
            .or(rest.strip_prefix("Replacing "))?;
        Some(rest.split_whitespace().next()?.to_owned())
    });
    names.collect()
}

/// What the operator wants of a package is a line of a file: `NAME`, `NAME=1.2.3-r0`, `NAME<2`, `NAME~1.2`.
fn blocked(world: &str, name: &str) -> Blocked {
    let mut wanted = world.split_whitespace();
    let pin = wanted.find(|wanted| {
        let rest = wanted.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['=', '<', '>', '~', '@']))
    });
    match pin {
        Some(pin) => Blocked {
            why: BlockedWhy::Pinned,
            detail: Some(super::cut(pin)),
        },
        None => Blocked {
            why: BlockedWhy::Dependencies,
            detail: Some("kept back".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dashes_are_told_from_versions() {
        let text = "Installed:                                Available:
musl-1.2.4-r0                           < 1.2.4-r2
ca-certificates-bundle-20230506-r0      < 20241121-r1
libfoo-1.0_rc1-r0 < 1.0-r0
";
        let told: Vec<_> = versions(text)
            .into_iter()
            .map(|newer| format!("{} {} {}", newer.name, newer.installed, newer.candidate))
            .collect();
        assert_eq!(
            told,
            [
                "musl 1.2.4-r0 1.2.4-r2",
                "ca-certificates-bundle 20230506-r0 20241121-r1",
                "libfoo 1.0_rc1-r0 1.0-r0"
            ]
        );
        let text = "(1/2) Upgrading musl (1.2.4-r0 -> 1.2.4-r2)\n(2/2) Installing new (1-r0)\nOK: 7 MiB in 15 packages\n";
        assert_eq!(upgraded(text), BTreeSet::from(["musl".to_owned()]));
    }

    #[test]
    fn a_pin_is_the_operators_line() {
        assert_eq!(
            blocked("a\nmusl-dev=1\nmusl=1.2.4-r0\n", "musl").why,
            BlockedWhy::Pinned
        );
        assert_eq!(blocked("musl\n", "musl").why, BlockedWhy::Dependencies);
    }
}
