//! A transaction that lines are added to, and what is told of it in the end.

use std::collections::{BTreeMap, BTreeSet};

use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::event::{PackageAction, PackageChange, PackageTransaction};
use infratrack_shared::wire::packages::Manager;

use super::transactions::{LOGS, Settings, Spot};
use super::{MOST_CHANGES, Said, TRANSACTION_BYTES, rpm, via};

/// Of one package, whose states are remembered.
const ARCHITECTURES: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Its first line in each log.
    pub from: [Option<Spot>; LOGS],
    pub started_at: i64,
    pub last_at: i64,
    command: Option<String>,
    requested_by: Option<String>,
    error: Option<String>,
    /// What apt was about to do.
    planned: Vec<PackageChange>,
    /// What dpkg or rpm did.
    changes: Vec<PackageChange>,
    /// Where in `changes` a package is.
    by_name: BTreeMap<String, Vec<usize>>,
    left_out: usize,
    /// What is kept, about.
    bytes: usize,
    /// dpkg's last word on a package, by its name.
    states: BTreeMap<String, Vec<State>>,
    /// Packages between an action and the state that ends it.
    unsettled: BTreeSet<(String, String)>,
    has_run: bool,
    elements: u32,
    scripts: u32,
}

#[derive(Debug)]
struct State {
    arch: String,
    version: String,
    word: String,
}

impl Open {
    pub(super) fn new(at: i64) -> Self {
        Self {
            started_at: at,
            last_at: at,
            ..Self::default()
        }
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.planned.is_empty() || !self.changes.is_empty()
    }

    /// Nothing that it began is under way, as far as its log tells.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled.is_empty() && self.elements == 0 && self.scripts == 0
    }

    pub(super) fn add(&mut self, said: Said, manager: Manager) {
        match said {
            Said::Command(command) => self.command = Some(command),
            Said::RequestedBy(user) => self.requested_by = Some(user),
            Said::Error(error) => self.error = self.error.take().or(Some(error)),
            Said::Planned(change) => {
                if self.planned.len() < MOST_CHANGES
                    && self.has_room(&change.name, change.to.as_ref())
                {
                    self.planned.push(change);
                } else {
                    self.left_out += 1;
                }
            }
            Said::Run => self.has_run = true,
            Said::Change(change) => self.change(change, manager),
            Said::Before {
                name,
                arch,
                version,
            } => self.before(&name, &arch, version),
            Said::State {
                name,
                arch,
                version,
                state,
            } => self.state(name, arch, version, state),
            Said::Elements(count) => self.elements = count,
            Said::Element => self.elements = self.elements.saturating_sub(1),
            Said::ScriptStarts => self.scripts = self.scripts.saturating_add(1),
            Said::ScriptEnds => self.scripts = self.scripts.saturating_sub(1),
            Said::Begin | Said::End => {}
        }
    }

    /// A hostile log must not take the agent's memory: a name is kept in some places, and so are a version and more.
    fn has_room(&mut self, name: &str, version: Option<&String>) -> bool {
        self.bytes += 256 + 4 * name.len() + 2 * version.map_or(0, String::len);
        self.bytes <= TRANSACTION_BYTES
    }

    fn change(&mut self, change: PackageChange, manager: Manager) {
        self.has_run = true;
        if manager == Manager::Dpkg {
            self.unsettle(&change.name, &change.arch);
        }
        let places = self.by_name.get(&change.name);
        let places = places.map(Vec::as_slice).unwrap_or_default();
        let last = places.iter().rev().find_map(|place| {
            let earlier = self.changes.get(*place)?;
            (earlier.arch == change.arch).then_some(*place)
        });
        if let Some(earlier) = last.and_then(|last| self.changes.get_mut(last)) {
            // The end of what the earlier line began.
            if change.action == PackageAction::Other {
                return;
            }
            if earlier.action == PackageAction::Removed && change.action == PackageAction::Purged {
                earlier.action = PackageAction::Purged;
                return;
            }
        }
        if self.changes.len() >= MOST_CHANGES || !self.has_room(&change.name, change.to.as_ref()) {
            self.left_out += 1;
            return;
        }
        let places = self.by_name.entry(change.name.clone()).or_default();
        places.push(self.changes.len());
        self.changes.push(change);
    }

    /// Of several architectures or none that fits, the one that has no version before yet.
    fn before(&mut self, name: &str, arch: &str, version: String) {
        let places = self.by_name.get(name);
        let places = places.map(Vec::as_slice).unwrap_or_default();
        let lacks = |place: &&usize| {
            let change = self.changes.get(**place);
            change.is_some_and(|change| change.from.is_none() && change.to.is_some())
        };
        let mut lacking: Vec<_> = places.iter().filter(lacks).copied().collect();
        lacking.sort_by_key(|place| {
            let change = self.changes.get(*place);
            change.is_none_or(|change| change.arch != arch)
        });
        let Some(change) = lacking
            .first()
            .and_then(|place| self.changes.get_mut(*place))
        else {
            return;
        };
        if let Some(to) = &change.to {
            change.action = rpm::replaced(&version, to);
        }
        change.from = Some(version);
    }

    fn unsettle(&mut self, name: &str, arch: &str) {
        if self.bytes < TRANSACTION_BYTES
            && self.unsettled.insert((name.to_owned(), arch.to_owned()))
        {
            self.bytes += 128 + name.len() + arch.len();
        }
    }

    fn state(&mut self, name: String, arch: String, version: String, state: String) {
        if is_final(&state) {
            self.unsettled.remove(&(name.clone(), arch.clone()));
        } else {
            self.unsettle(&name, &arch);
        }
        let is_known = self.states.contains_key(&name);
        if !is_known && !self.has_room(&name, None) {
            return;
        }
        let known = self.states.entry(name).or_default();
        known.retain(|known| known.arch != arch);
        if known.len() < ARCHITECTURES {
            known.push(State {
                arch,
                version,
                word: state,
            });
        }
    }

    /// What is told, where there is anything to tell.
    pub(super) fn finish(
        mut self,
        settings: &Settings,
        ended_at: Option<i64>,
    ) -> Option<PackageTransaction> {
        let is_whole = ended_at.is_some() && self.error.is_none();
        let mut changes = self.merged(is_whole);
        for change in &mut changes {
            change.left = self.left(change);
        }
        if changes.is_empty() && self.error.is_none() {
            return None;
        }
        if self.left_out > 0 {
            let note = format!("{} more changes are not listed", self.left_out);
            self.error = Some(match self.error.take() {
                Some(error) => format!("{error}; {note}"),
                None => note,
            });
        }
        Some(PackageTransaction {
            manager: settings.manager,
            source: settings.source.to_owned(),
            started_at: UnixMillis(self.started_at),
            ended_at: ended_at.map(UnixMillis),
            via: self.command.as_deref().and_then(via::of).map(str::to_owned),
            command: self.command,
            requested_by: self.requested_by,
            changes,
            error: self.error,
            part: 0,
            parts: 1,
        })
    }

    /// What was planned, as far as it was begun, and what was done besides.
    fn merged(&mut self, is_whole: bool) -> Vec<PackageChange> {
        let mut merged = Vec::with_capacity(self.planned.len());
        let mut is_planned = BTreeSet::new();
        for mut change in std::mem::take(&mut self.planned) {
            let places = self.by_name.get(&change.name);
            let done = places.into_iter().flatten().find(|place| {
                let done = self.changes.get(**place);
                done.is_some_and(|done| is_arch(&done.arch, &change.arch))
            });
            if let Some(place) = done {
                is_planned.insert(*place);
                if let Some(done) = self.changes.get(*place) {
                    // apt names the host's architecture for packages of all.
                    change.arch.clone_from(&done.arch);
                }
            } else if self.has_run && !is_whole && self.find_state(&change).is_none() {
                continue;
            }
            merged.push(change);
        }
        let changes = std::mem::take(&mut self.changes).into_iter().enumerate();
        let besides = changes.filter(|(place, _)| !is_planned.contains(place));
        merged.extend(besides.map(|(_, change)| change));
        merged
    }

    fn find_state(&self, change: &PackageChange) -> Option<&State> {
        let mut states = self.states.get(&change.name)?.iter();
        states.find(|state| is_arch(&state.arch, &change.arch))
    }

    /// How the package was left, where that is not what the action is for.
    fn left(&self, change: &PackageChange) -> Option<String> {
        let state = self.find_state(change)?;
        let is_as_meant = match change.action {
            PackageAction::Removed => ["config-files", "not-installed"].contains(&&*state.word),
            PackageAction::Purged => state.word == "not-installed",
            PackageAction::Installed
            | PackageAction::Reinstalled
            | PackageAction::Upgraded
            | PackageAction::Downgraded
            | PackageAction::Other => {
                let is_in = ["installed", "triggers-pending", "triggers-awaited"];
                if is_in.contains(&&*state.word)
                    && change.to.as_ref().is_some_and(|to| *to != state.version)
                {
                    return Some(format!("{} {}", state.word, state.version));
                }
                is_in.contains(&&*state.word)
            }
        };
        (!is_as_meant).then(|| state.word.clone())
    }
}

fn is_arch(of_dpkg: &str, of_apt: &str) -> bool {
    of_dpkg == of_apt || of_dpkg == "all" || of_dpkg.is_empty() || of_apt.is_empty()
}

/// Nothing is to follow by itself: triggers that wait are run later in the same run.
fn is_final(state: &str) -> bool {
    ["installed", "config-files", "not-installed"].contains(&state)
}
