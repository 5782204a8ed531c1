//! What is installed and what there is to install, as it is reported.

use std::time::Duration;

use infratrack_shared::wire::packages::{Database, Group, Manager, UpdatesPart};

use super::bounded::Bounded;
use super::packages::{Found, installed_packages};
use super::updates::pending_updates;
use super::{Reason, Root};

/// A database of ten thousand packages is read in a fraction of it.
const LIMIT: Duration = Duration::from_secs(20);
const YUM_LOG: &str = "var/log/yum.log";

/// The databases, and whether one of them still hangs from an earlier reading.
pub struct InventorySource {
    root: Root,
    bounded: Bounded,
}

impl InventorySource {
    /// A source that reads below `root`.
    pub fn new(root: Root) -> Self {
        Self {
            root,
            bounded: Bounded::default(),
        }
    }

    /// Every database that is there, with what it has or why that is not known.
    pub async fn packages(&mut self) -> Result<Vec<Found>, Reason> {
        let root = self.root.clone();
        let read = move || installed_packages(&root);
        self.bounded.run("packages", LIMIT, read).await
    }

    /// How a database is told of: with whether its manager's log is there to tell what changed.
    pub fn database(&self, found: &Found) -> Database {
        let (manager, unknown, skipped) = match found {
            Found::Known(inventory) => (inventory.manager, None, inventory.skipped),
            Found::Unknown { manager, unknown } => (*manager, Some(unknown.clone()), 0),
        };
        Database {
            manager,
            unknown,
            skipped: skipped as u64,
            has_log: self.has_log(manager),
        }
    }

    fn has_log(&self, manager: Manager) -> bool {
        // yum's is root's alone where nobody changed that, and tells the agent nothing then.
        let has_yums = || manager == Manager::Rpm && self.root.open_file(YUM_LOG).is_ok();
        logs(manager).iter().any(|log| self.root.exists(log)) || has_yums()
    }

    /// What there is to install, or why that is not known.
    pub async fn updates(&mut self) -> Result<UpdatesPart, Reason> {
        let root = self.root.clone();
        let asked = move || pending_updates(&root);
        let told = self.bounded.run("updates", LIMIT, asked).await?;
        let mut whole = UpdatesPart::default();
        for (check, packages) in told {
            let manager = check.manager;
            whole.checks.push(check);
            if !packages.is_empty() {
                whole.pending.push(Group { manager, packages });
            }
        }
        Ok(whole)
    }
}

fn logs(manager: Manager) -> &'static [&'static str] {
    match manager {
        Manager::Dpkg => &["var/log/dpkg.log"],
        Manager::Rpm => &[
            "var/log/dnf.rpm.log",
            "var/log/dnf5.log",
            "var/log/zypp/history",
        ],
        Manager::Apk | Manager::Flatpak | Manager::Snap | Manager::Other => &[],
    }
}
