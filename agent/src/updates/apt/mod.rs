//! What apt would upgrade. `apt-cache policy` tells which versions there are and which of them apt wants; the simulation of an
//! upgrade tells which it would install; what is wanted and stays behind is blocked, and here it is found out by what.
//!
//! Nothing here takes a lock or the network, and apt needs no rights for it. Called by the unit of the check.

mod blocked;
mod lists;
mod policy;
mod simulation;

use std::collections::{BTreeMap, BTreeSet};

use infratrack_shared::wire::packages::{Blocked, BlockedWhy, Manager, Package, PendingUpdate};
use lists::Lists;
use policy::{Releases, Table, Version};
use simulation::{Name, Simulation};

use super::tool::{Check, Host};
use super::{Answer, Reason, Told};
use crate::collect::installed_dpkg;
use crate::packages::dpkg::Database;

/// Ubuntu's lists of what subscribers get, kept beside apt's own on hosts that are not subscribed.
const ESM: &str = "var/lib/ubuntu-advantage/apt-esm";
const STATUS: &str = "var/lib/dpkg/status";
const UPDATES: &str = "var/lib/dpkg/updates";
/// Names on one command line: well below what the kernel takes.
const NAMES: usize = 4_000;
/// Versions on one command line, of which apt prints whole descriptions.
const VERSIONS: usize = 500;
/// Of more updates than this, what they are built from is taken from what is installed.
const MOST_SHOWN: usize = 4_000;

/// Asks apt.
pub async fn check(host: &Host) -> Answer {
    let check = Check::new(host);
    Answer::new(Manager::Dpkg, "apt", told(&check).await)
}

async fn told(check: &Check<'_>) -> Result<Told, Reason> {
    interrupted(check)?;
    let lists = lists::read(check).await?;
    let installed = Installed::read(check).await?;
    let simulation = simulate(check, &["dist-upgrade"]).await?;
    let mut told = Told {
        metadata_at_s: lists.brought_at_s,
        warnings: [lists.warnings.clone(), simulation.warnings.clone()].concat(),
        pending: Vec::new(),
    };
    let mut found = find(check, &installed, lists, &[]).await?;
    told.warnings.append(&mut found.warnings);
    let mut updates = found.updates;
    blocked::explain(check, &mut updates, &simulation, &installed).await?;
    for update in subscribers(check, &installed).await? {
        updates.entry(update.0).or_insert(update.1);
    }
    told.pending = updates.into_values().map(|found| found.update).collect();
    Ok(told)
}

/// What dpkg has not merged into its status apt does not see.
fn interrupted(check: &Check<'_>) -> Result<(), Reason> {
    let names = check.host.root.names(UPDATES).unwrap_or_default();
    let is_update = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    if names.iter().any(is_update) {
        return Err(
            "dpkg is at work or was interrupted; if it is not, dpkg --configure -a goes on"
                .to_owned(),
        );
    }
    Ok(())
}

/// What is installed, as apt names it.
struct Installed(BTreeMap<Name, Package>);

impl Installed {
    async fn read(check: &Check<'_>) -> Result<Self, Reason> {
        let output = check
            .run("apt-config", ["shell", "ARCH", "APT::Architecture"])
            .await?;
        let native = output
            .text
            .trim()
            .trim_start_matches("ARCH=")
            .trim_matches('\'');
        if output.code != 0 || native.is_empty() {
            return Err(simulation::refusal(&output));
        }
        let inventory = installed_dpkg(&check.host.root)?;
        let inventory = inventory.ok_or("dpkg has no database here")?;
        let named = inventory.packages.into_iter().map(|package| {
            let is_native = package.arch == "all" || package.arch == native;
            let arch = (!is_native).then(|| package.arch.clone());
            ((package.name.clone(), arch), package)
        });
        Ok(Self(named.collect()))
    }

    /// As apt is asked for them; what can't be a name is no argument either.
    fn names(&self) -> Vec<String> {
        let is_name = |text: &str| {
            let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            text.bytes().all(is_sign) && !text.starts_with('-')
        };
        let names = self.0.keys();
        let names =
            names.filter(|(name, arch)| is_name(name) && arch.as_deref().is_none_or(is_name));
        names.map(told_name).collect()
    }
}

fn told_name((name, arch): &Name) -> String {
    match arch {
        Some(arch) => format!("{name}:{arch}"),
        None => name.clone(),
    }
}

/// An update, and to how many of a hundred hosts it is given where not to all.
struct Found {
    update: PendingUpdate,
    phased: Option<u8>,
}

struct Finding {
    updates: BTreeMap<Name, Found>,
    warnings: Vec<String>,
}

/// Every package of which there is a newer version, by the lists that `extra` options name.
async fn find(
    check: &Check<'_>,
    installed: &Installed,
    lists: Lists,
    extra: &[String],
) -> Result<Finding, Reason> {
    let said = cached(check, extra, &["policy".to_owned()]).await?;
    let sources = Sources::new(policy::releases(&said), lists);
    let mut finding = Finding {
        updates: BTreeMap::new(),
        warnings: Vec::new(),
    };
    for names in installed.names().chunks(NAMES) {
        let said = cached(check, extra, &[&["policy".to_owned()], names].concat()).await?;
        for table in policy::tables(&said) {
            let name = (table.name.clone(), table.arch.clone());
            let Some(package) = installed.0.get(&name) else {
                continue;
            };
            if table.candidate() > table.installed() && table.installed().is_some() {
                finding.warnings.push(format!(
                    "{} would be put back to {}",
                    table.name, table.candidate
                ));
            }
            if let Some(found) = sources.judge(&table, package) {
                finding.updates.insert(name, found);
            }
        }
    }
    add_sources(check, &mut finding.updates, extra).await?;
    Ok(finding)
}

async fn cached(check: &Check<'_>, extra: &[String], args: &[String]) -> Result<String, Reason> {
    let output = check.run("apt-cache", extra.iter().chain(args)).await?;
    // It ends with 100 where one name of many is unknown to it.
    if output.code != 0 && output.text.is_empty() {
        return Err(simulation::refusal(&output));
    }
    Ok(output.text)
}

/// The lists, and who of their publishers keeps fixes apart.
struct Sources {
    releases: Releases,
    lists: Lists,
    vendors: BTreeSet<String>,
}

impl Sources {
    fn new(releases: Releases, lists: Lists) -> Self {
        let secured = releases.values().filter(|release| release.is_security());
        let mut vendors = lists.secured.clone();
        vendors.extend(secured.map(|release| release.vendor().to_owned()));
        Self {
            releases,
            lists,
            vendors,
        }
    }

    /// What apt wants in place of the installed version, or a newer one that it does not want.
    fn judge(&self, table: &Table, package: &Package) -> Option<Found> {
        let at = table.installed()?;
        let newer = table.versions.get(..at)?;
        let wanted = table.candidate().filter(|candidate| *candidate < at);
        let chosen = wanted.or_else(|| newer.iter().position(|version| self.offers(version)))?;
        let (candidate, now) = (newer.get(chosen)?, table.versions.get(at)?);
        if candidate.number == now.number {
            // Built anew elsewhere: another package to apt, yet no newer one.
            return None;
        }
        let pinned = wanted.is_none().then(|| {
            let (against, for_it) = (&candidate.priority, &now.priority);
            let detail = format!("priority {against}, the installed version's is {for_it}");
            blocked(BlockedWhy::Pinned, Some(detail))
        });
        let update = PendingUpdate {
            name: package.name.clone(),
            arch: package.arch.clone(),
            installed: now.number.clone(),
            candidate: candidate.number.clone(),
            source: package.source.clone(),
            repository: self.repository(candidate),
            security: self.security(&newer[chosen..], candidate),
            blocked: pinned,
            ..PendingUpdate::default()
        };
        Some(Found {
            update,
            phased: candidate.phased,
        })
    }

    /// Whether a list has it that is not only for who asks for it.
    fn offers(&self, version: &Version) -> bool {
        let mut lists = version.lists.iter();
        lists.any(|list| {
            let release = self.releases.get(list);
            release.is_some_and(|release| {
                release.archive != "now" && !self.lists.is_on_request(release)
            })
        })
    }

    /// A fix is a fix also where a later version is in other lists.
    fn security(&self, newer: &[Version], candidate: &Version) -> Option<bool> {
        let of = |version: &Version| {
            let lists = version.lists.clone();
            lists
                .into_iter()
                .filter_map(|list| self.releases.get(&list))
        };
        if newer.iter().flat_map(of).any(policy::Release::is_security) {
            return Some(true);
        }
        let mut releases = of(candidate);
        let has_fixes = releases.any(|release| self.vendors.contains(release.vendor()));
        has_fixes.then_some(false)
    }

    fn repository(&self, version: &Version) -> Option<String> {
        let lists = version.lists.iter();
        let releases: Vec<_> = lists.filter_map(|list| self.releases.get(list)).collect();
        let security = releases.iter().find(|release| release.is_security());
        let name = security.or(releases.first())?.name();
        (!name.is_empty()).then_some(name)
    }
}

fn blocked(why: BlockedWhy, detail: Option<String>) -> Blocked {
    Blocked { why, detail }
}

/// What the candidates are built from, which need not be what the installed versions are.
async fn add_sources(
    check: &Check<'_>,
    updates: &mut BTreeMap<Name, Found>,
    extra: &[String],
) -> Result<(), Reason> {
    if updates.len() > MOST_SHOWN {
        return Ok(());
    }
    let mut known = BTreeMap::new();
    let versions = updates
        .iter()
        .map(|(name, found)| format!("{}={}", told_name(name), found.update.candidate));
    let versions: Vec<_> = versions.collect();
    for versions in versions.chunks(VERSIONS) {
        let shown = cached(check, extra, &[&["show".to_owned()], versions].concat()).await?;
        // An entry looks like one of dpkg's, and is as installed as that of an image.
        let mut entries = Database::default();
        let read = entries.add(shown.as_bytes());
        read.map_err(|error| format!("apt-cache: {error}"))?;
        for package in entries.inventory().packages {
            let source = package.source.filter(|source| *source != package.name);
            known.insert((package.name, package.version), source);
        }
    }
    for found in updates.values_mut() {
        let update = &mut found.update;
        let key = (update.name.clone(), update.candidate.clone());
        if let Some(source) = known.get(&key) {
            update.source.clone_from(source);
        }
    }
    Ok(())
}

async fn simulate(check: &Check<'_>, upgrade: &[&str]) -> Result<Simulation, Reason> {
    let options = [
        "--simulate",
        "--quiet",
        "--option=Debug::NoLocking=true",
        "--option=APT::Get::Show-User-Simulation-Note=false",
        // The unit has mounts of its own, which looks like a chroot; and in one, no update waits for its phase.
        "--option=Dir::Bin::ischroot=/bin/false",
    ];
    let output = check.run("apt-get", options.iter().chain(upgrade)).await?;
    simulation::read(&output)
}

/// What only subscribers of Ubuntu's extended maintenance get.
async fn subscribers(
    check: &Check<'_>,
    installed: &Installed,
) -> Result<BTreeMap<Name, Found>, Reason> {
    let root = &check.host.root;
    let lists = root
        .names(&format!("{ESM}/var/lib/apt/lists"))
        .unwrap_or_default();
    if !lists.iter().any(|name| name.contains("_Packages")) {
        return Ok(BTreeMap::new());
    }
    let place = |path: &str| root.path(path).display().to_string();
    let extra = [
        format!("--option=Dir::Etc={}/", place(&format!("{ESM}/etc/apt"))),
        format!(
            "--option=Dir::State={}/",
            place(&format!("{ESM}/var/lib/apt"))
        ),
        format!(
            "--option=Dir::Cache={}/",
            place(&format!("{ESM}/var/cache/apt"))
        ),
        format!("--option=Dir::State::status={}", place(STATUS)),
    ];
    let found = find(check, installed, Lists::default(), &extra).await?;
    let mut updates = found.updates;
    for found in updates.values_mut() {
        let detail = found.update.repository.clone();
        found.update.blocked = Some(blocked(BlockedWhy::Subscription, detail));
    }
    Ok(updates)
}
