//! What dnf would upgrade: dnf5, dnf (4) or yum, by the metadata that root's own runs have brought. Advisories tell which of it
//! mends vulnerabilities, where a repository has any.
//!
//! None of the three resolves dependencies for a user without rights, so an update that lacks something is told as one
//! that waits for nothing. Called by the unit of the check.

mod advisories;
mod query;
mod repositories;

use std::collections::BTreeMap;
use std::path::Path;

use advisories::Advisory;
use infratrack_shared::wire::packages::{Blocked, BlockedWhy, Manager, PendingUpdate};
use query::Candidate;
use repositories::Repositories;

use super::rpm::{Installed, order, refusal};
use super::tool::{Check, Host, Output};
use super::{Answer, Reason, Told};

/// The locks of dnf 5.
const LOCKS: &str = "etc/dnf/versionlock.toml";

/// Which of them it is. What they say differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    Dnf5,
    Dnf4,
    Yum3,
}

impl Flavour {
    /// The one that `dnf` is on this host. Each may be there under the name of another.
    fn find(host: &Host) -> Option<(Self, &'static str)> {
        let named = ["dnf", "dnf5", "yum"];
        let (program, path) = named
            .iter()
            .find_map(|name| Some((*name, host.find(name)?)))?;
        let real = path.canonicalize().unwrap_or(path);
        let real = real.file_name().map(|name| name.to_string_lossy());
        let flavour = match real.as_deref() {
            Some(name) if name.starts_with("dnf5") => Self::Dnf5,
            Some(name) if name.starts_with("yum") => Self::Yum3,
            _ => Self::Dnf4,
        };
        Some((flavour, program))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dnf5 => "dnf5",
            Self::Dnf4 => "dnf",
            Self::Yum3 => "yum",
        }
    }
}

/// Asks it.
pub async fn check(host: &Host) -> Answer {
    let Some((flavour, program)) = Flavour::find(host) else {
        let reason = "neither dnf nor yum is there".to_owned();
        return Answer::new(Manager::Rpm, "dnf", Err(reason));
    };
    let check = Check::new(host);
    let dnf = Dnf {
        check: &check,
        flavour,
        program,
    };
    Answer::new(Manager::Rpm, flavour.name(), dnf.told().await)
}

struct Dnf<'a> {
    check: &'a Check<'a>,
    flavour: Flavour,
    program: &'static str,
}

/// Whether what the operator excludes and locks is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excludes {
    Heeded,
    Ignored,
}

impl Dnf<'_> {
    async fn told(&self) -> Result<Told, Reason> {
        let (repositories, mut warnings) = self.repositories().await?;
        if self.flavour == Flavour::Dnf5 && self.check.host.root.exists(LOCKS) {
            // No option makes it look past them.
            warnings.push(format!("updates that /{LOCKS} holds back are not told"));
        }
        let installed = Installed::read(self.check).await?;
        let wanted = self.candidates(Excludes::Heeded).await?;
        let sources = self.sources().await?;
        let is_wanted = |name: &str| wanted.iter().any(|one| one.name == name);
        let all = match sources
            .as_ref()
            .map(|sources| sources.names().all(is_wanted))
        {
            // Nothing is left out: to ask again would tell the same.
            Some(true) => Vec::new(),
            Some(false) | None => self.candidates(Excludes::Ignored).await?,
        };
        let advisories = if wanted.is_empty() && all.is_empty() {
            Vec::new()
        } else {
            self.advisories().await?
        };
        let mut pending = BTreeMap::new();
        for (candidates, is_wanted) in [(&wanted, true), (&all, false)] {
            for candidate in candidates {
                let key = (candidate.name.clone(), candidate.arch.clone());
                if pending.contains_key(&key) {
                    continue;
                }
                let update = update(candidate, &installed, &advisories, &repositories);
                pending.extend(update.map(|mut update| {
                    let told = sources.as_ref().and_then(|all| {
                        all.get(&candidate.version, &candidate.name, &candidate.arch)
                    });
                    if let Some(source) = told {
                        update.source.clone_from(source);
                    }

                    let blocked = (!is_wanted).then(|| Blocked {
                        why: BlockedWhy::Pinned,
                        detail: Some("excluded or locked".to_owned()),
                    });
                    (key, PendingUpdate { blocked, ..update })
                }));
            }
        }
        Ok(Told {
            pending: pending.into_values().collect(),
            metadata_at_s: repositories.brought_at_s(),
            warnings,
        })
    }

    /// Plugins of others ask servers, and some want rights. Only the one that locks versions is heeded; dnf 5 has that
    /// built in.
    async fn run(&self, excludes: Excludes, args: &[&str]) -> Result<Output, Reason> {
        let options: &[&str] = match (self.flavour, excludes) {
            (Flavour::Dnf5, Excludes::Heeded) => &["--disable-plugin=*"],
            (Flavour::Dnf5, Excludes::Ignored) => {
                &["--disable-plugin=*", "--setopt=disable_excludes=*"]
            }
            (Flavour::Dnf4, Excludes::Heeded) => {
                &["--disableplugin=*", "--enableplugin=versionlock"]
            }
            // What is disabled here can't be enabled beside it.
            (Flavour::Yum3, Excludes::Heeded) => {
                &["--disableplugin=product-id,rhnplugin,subscription-manager"]
            }
            (Flavour::Dnf4 | Flavour::Yum3, Excludes::Ignored) => {
                &["--disableplugin=*", "--disableexcludes=all"]
            }
        };
        let args = ["-C", "-q"].iter().chain(options).chain(args);
        self.check.run(self.program, args).await
    }

    async fn repositories(&self) -> Result<(Repositories, Vec<String>), Reason> {
        let args: &[&str] = match self.flavour {
            Flavour::Dnf5 => &["repo", "list"],
            Flavour::Dnf4 | Flavour::Yum3 => &["repolist"],
        };
        let output = self.run(Excludes::Heeded, args).await?;
        if output.code != 0 {
            return Err(refusal(self.program, &output));
        }
        let place = Path::new(match self.flavour {
            Flavour::Dnf5 => "var/cache/libdnf5",
            Flavour::Dnf4 => "var/cache/dnf",
            Flavour::Yum3 => "var/cache/yum",
        });
        Repositories::read(self.check, &output.text, place)
    }

    /// What it says itself: only this heeds what a repository weighs. Built from what, is asked for apart.
    async fn candidates(&self, excludes: Excludes) -> Result<Vec<Candidate>, Reason> {
        let command = match self.flavour {
            Flavour::Dnf5 => "check-upgrade",
            Flavour::Dnf4 | Flavour::Yum3 => "check-update",
        };
        let output = self.run(excludes, &[command]).await?;
        // 100: there are some.
        match output.code {
            0 | 100 => Ok(query::columns(&output.text)),
            _ => Err(refusal(self.program, &output)),
        }
    }

    /// Of all newer versions, also those that are left out. yum has no such query without extra programs.
    async fn sources(&self) -> Result<Option<query::Sources>, Reason> {
        if self.flavour == Flavour::Yum3 {
            return Ok(None);
        }
        let format = format!("--queryformat={}", query::FORMAT);
        let args = ["repoquery", "--upgrades", &format];
        let output = self.run(Excludes::Ignored, &args).await?;
        if output.code != 0 {
            return Err(refusal(self.program, &output));
        }
        Ok(Some(query::sources(&output.text)))
    }

    async fn advisories(&self) -> Result<Vec<Advisory>, Reason> {
        let args: &[&str] = match self.flavour {
            Flavour::Dnf5 => &["advisory", "list", "--json"],
            Flavour::Dnf4 => &["updateinfo", "list"],
            Flavour::Yum3 => &["updateinfo", "list", "updates"],
        };
        let mut output = self.run(Excludes::Ignored, args).await?;
        if output.code != 0 && self.flavour == Flavour::Dnf5 {
            // The first of them print no JSON.
            output = self.run(Excludes::Ignored, &["advisory", "list"]).await?;
        }
        if output.code != 0 {
            return Err(refusal(self.program, &output));
        }
        Ok(advisories::parse(&output.text))
    }
}

fn update(
    candidate: &Candidate,
    installed: &Installed,
    advisories: &[Advisory],
    repositories: &Repositories,
) -> Option<PendingUpdate> {
    let now = installed.newest(&candidate.name, &candidate.arch)?;
    let (from, to) = (order(&now.version), order(&candidate.version));
    if to <= from {
        return None;
    }
    let told: Vec<_> = advisories
        .iter()
        .filter(|one| one.name == candidate.name && one.arch == candidate.arch)
        .filter(|one| one.order > from && one.order <= to)
        .collect();
    let (security, severity) = advisories::verdict(&told);
    let has_advisories = repositories.has_advisories(&candidate.repository);
    let mut ids: Vec<_> = told.iter().map(|one| one.id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(advisories::MOST);
    Some(PendingUpdate {
        name: candidate.name.clone(),
        arch: now.arch.clone(),
        installed: now.version.clone(),
        candidate: candidate.version.clone(),
        source: now.source.clone(),
        repository: Some(candidate.repository.clone()),
        security: (security || has_advisories).then_some(security),
        severity,
        advisories: ids,
        blocked: None,
    })
}
