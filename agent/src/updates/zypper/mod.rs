//! What zypper would upgrade: `list-updates` tells what it would install, with `--all` what there is; patches tell which of it
//! mends vulnerabilities. Called by the unit of the check.

mod patches;
mod repositories;
mod xml;

use std::collections::BTreeSet;
use std::io::Read;

use infratrack_shared::wire::packages::{Blocked, BlockedWhy, Manager, PendingUpdate};
use patches::Patch;
use repositories::Repositories;

use super::rpm::{Installed, order};
use super::tool::{Check, Host, Output};
use super::{Answer, Reason, Told};

const LOCKS: &str = "etc/zypp/locks";
const LOCKS_BYTES: u64 = 1024 * 1024;
/// Patches on one command line.
const PATCHES: usize = 200;
/// Advisories of one update.
const ADVISORIES: usize = 50;
/// Some repositories could not be used, and all others were.
const SOME_SKIPPED: i32 = 106;

/// Asks zypper.
pub async fn check(host: &Host) -> Answer {
    let check = Check::new(host);
    Answer::new(Manager::Rpm, "zypper", told(&check).await)
}

async fn told(check: &Check<'_>) -> Result<Told, Reason> {
    let (repositories, mut warnings) = Repositories::read(check)?;
    let wanted = list(check, &["list-updates"], &mut warnings).await?;
    let wanted: BTreeSet<_> = updates(&wanted).into_iter().map(|one| one.key()).collect();
    let all = list(check, &["list-updates", "--all"], &mut warnings).await?;
    let patches = patches(check, &mut warnings).await?;
    // Only tells what a package is built from.
    let installed = Installed::read(check).await.ok();
    let locks = locks(check);
    let pending = updates(&all).into_iter().map(|update| {
        let blocked = (!wanted.contains(&update.key())).then(|| blocked(&locks, &update.name));
        let source = installed
            .as_ref()
            .and_then(|all| all.newest(&update.name, &update.arch)?.source.clone());
        let update = PendingUpdate {
            source,
            ..update.pending()
        };
        PendingUpdate {
            blocked,
            ..judged(update, &patches, &repositories)
        }
    });
    let pending = pending.collect();
    warnings.dedup();
    Ok(Told {
        pending,
        metadata_at_s: repositories.brought_at_s(),
        warnings,
    })
}

async fn zypper(check: &Check<'_>, options: &[&str], args: &[&str]) -> Result<Output, Reason> {
    let base = ["--non-interactive", "--no-refresh"];
    let args = base.iter().chain(options).chain(args);
    check.run("zypper", args).await
}

/// What it lists, as XML.
async fn list(
    check: &Check<'_>,
    args: &[&str],
    warnings: &mut Vec<String>,
) -> Result<String, Reason> {
    let output = zypper(check, &["--xmlout"], args).await?;
    match output.code {
        0 => {}
        SOME_SKIPPED => warnings.push("zypper could not use all repositories".to_owned()),
        code => {
            let errors = xml::texts(&output.text, "message", |attribute| {
                attribute("type") == Some("error".to_owned())
            });
            return Err(match errors.into_iter().next() {
                Some(error) => format!("zypper: {error}"),
                None => format!("zypper ended with {code}"),
            });
        }
    }
    Ok(output.text)
}

/// A newer version of an installed package.
struct Update {
    name: String,
    arch: String,
    installed: String,
    candidate: String,
    repository: Option<String>,
}

impl Update {
    fn key(&self) -> [String; 3] {
        [self.name.clone(), self.arch.clone(), self.candidate.clone()]
    }

    fn pending(self) -> PendingUpdate {
        PendingUpdate {
            name: self.name,
            arch: self.arch,
            installed: self.installed,
            candidate: self.candidate,
            repository: self.repository,
            ..PendingUpdate::default()
        }
    }
}

fn updates(text: &str) -> Vec<Update> {
    let mut updates: Vec<Update> = Vec::new();
    for tag in xml::tags(text) {
        match tag.name {
            "update" if tag.get("kind").as_deref() == Some("package") => {
                let fields = ["name", "arch", "edition-old", "edition"].map(|name| tag.get(name));
                if let [Some(name), Some(arch), Some(installed), Some(candidate)] = fields {
                    updates.push(Update {
                        name,
                        arch,
                        installed,
                        candidate,
                        repository: None,
                    });
                }
            }
            "source" => {
                if let Some(update) = updates.last_mut() {
                    update.repository = update.repository.take().or_else(|| tag.get("alias"));
                }
            }
            _ => {}
        }
    }
    // What is installed in several versions is listed for each of them.
    updates.sort_by_cached_key(|one| (one.key(), std::cmp::Reverse(order(&one.installed))));
    updates.dedup_by_key(|one| one.key());
    updates.retain(|one| order(&one.candidate) > order(&one.installed));
    updates
}

/// The patches that are needed, and which versions they ask for.
async fn patches(check: &Check<'_>, warnings: &mut Vec<String>) -> Result<Vec<Patch>, Reason> {
    let listed = list(check, &["list-patches"], warnings).await?;
    let needed = xml::tags(&listed)
        .filter(|tag| tag.name == "update" && tag.get("kind").as_deref() == Some("patch"));
    let needed: BTreeSet<_> = needed.filter_map(|tag| tag.get("name")).collect();
    let needed: Vec<_> = needed.iter().map(String::as_str).collect();
    let mut patches = Vec::new();
    for names in needed.chunks(PATCHES) {
        let output = zypper(
            check,
            &[],
            &[&["info", "-t", "patch", "--"], names].concat(),
        )
        .await?;
        patches.extend(patches::parse(&output.text));
    }
    Ok(patches)
}

fn judged(
    mut update: PendingUpdate,
    patches: &[Patch],
    repositories: &Repositories,
) -> PendingUpdate {
    let (from, to) = (order(&update.installed), order(&update.candidate));
    let with_arch = format!("{}.{}", update.name, update.arch);
    let is_of = |patch: &&Patch| {
        patch.fixes.iter().any(|(package, fixed)| {
            let is_named = *package == update.name || *package == with_arch;
            is_named && *fixed > from && *fixed <= to
        })
    };
    let of: Vec<_> = patches.iter().filter(is_of).collect();
    let security = of.iter().any(|patch| patch.is_security);
    let repository = update.repository.as_deref().unwrap_or_default();
    let is_told = security || repositories.has_patches(repository);
    update.security = is_told.then_some(security);
    let fixes = of.iter().filter(|patch| patch.is_security);
    update.severity = patches::worst(fixes.filter_map(|patch| patch.severity.as_deref()));
    let ids: BTreeSet<_> = of.iter().map(|patch| patch.name.clone()).collect();
    update.advisories = ids.into_iter().take(ADVISORIES).collect();
    update
}

/// The names of `solvable_name:` lines, some with a `*`.
fn locks(check: &Check<'_>) -> Vec<String> {
    let mut text = String::new();
    if let Ok(mut file) = check.host.root.open(LOCKS, LOCKS_BYTES) {
        // What is no text locks no package.
        let _ = file.read_to_string(&mut text);
    }
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("solvable_name:"));
    names.map(|name| name.trim().to_owned()).collect()
}

fn blocked(locks: &[String], name: &str) -> Blocked {
    let is_locked = |lock: &String| match lock.split_once('*') {
        Some((start, end)) => name.starts_with(start) && name.ends_with(end),
        None => lock == name,
    };
    match locks.iter().find(|lock| is_locked(lock)) {
        Some(lock) => Blocked {
            why: BlockedWhy::Pinned,
            detail: Some(format!("locked as {lock}")),
        },
        None => Blocked {
            why: BlockedWhy::Dependencies,
            detail: Some("kept back, or of another vendor".to_owned()),
        },
    }
}
