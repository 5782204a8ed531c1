//! The states `packages` and `updates`: what is installed on a host, and what there is to install.
//!
//! Either travels as the parts of one version ([`crate::wire::batch::StatePart`]), because a host may have many
//! thousands. `packages` is sent whole once, then as what changed; `updates` is sent whole whenever it changes.

use serde::{Deserialize, Serialize};

/// The state key of what is installed: parts of [`PackagesPart`].
pub const PACKAGES: &str = "packages";
/// The state key of what there is to install: parts of [`UpdatesPart`].
pub const UPDATES: &str = "updates";

/// Whose database a package stands in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    Apk,
    Dpkg,
    Flatpak,
    Rpm,
    Snap,
    /// One that a newer agent knows.
    #[default]
    #[serde(other)]
    Other,
}

/// A package that is installed, or was and is half gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    pub name: String,
    /// As the package manager prints it, epoch and release included.
    pub version: String,
    pub arch: String,
    /// What it was built from, where that has another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The version of that, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// Who made it: dpkg's origin, rpm's vendor, a snap's publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Unix time in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_at_s: Option<u64>,
    /// It stays as it is until somebody says otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// It is not wholly installed: how it is instead, in its package manager's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// What a package is known by within its database: one can be there in many versions (kernels) and architectures.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackageKey {
    pub name: String,
    pub version: String,
    pub arch: String,
}

/// How a database was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Database {
    pub manager: Manager,
    /// It is there and could not be read: why. What was known of it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// Entries that were left out: they make no sense, or are too many.
    #[serde(default)]
    pub skipped: u64,
    /// What is installed and removed is told by events too.
    #[serde(default)]
    pub has_log: bool,
}

/// One part of a version of [`PACKAGES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagesPart {
    /// In part 0: every database that the host has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Database>,
    /// What is there: of a whole, all of it; of a delta, what is new or is other than it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<Group<Package>>,
    /// Of a delta: what is there no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Group<PackageKey>>,
}

/// Some of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group<T> {
    pub manager: Manager,
    pub packages: Vec<T>,
}

/// How a package manager was asked for updates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateCheck {
    /// Whose packages it would replace.
    pub manager: Manager,
    /// Who was asked: `apt`, `dnf`, `dnf5`, `yum`, `zypper`, `apk`, `snap`, `flatpak`.
    pub tool: String,
    /// What there is to install can't be known: why. What was known of it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// When the lists that it answered from were brought, Unix time in seconds: the oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_at_s: Option<u64>,
    /// What makes the answer doubtful although there is one: a source without lists, say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A newer version of a package that is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PendingUpdate {
    pub name: String,
    pub arch: String,
    pub installed: String,
    pub candidate: String,
    /// What the candidate is built from, where that has another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where it comes from, as the package manager calls it: `Debian-Security:12/stable-security`, `updates`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Whether it mends a vulnerability; none where nothing says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<bool>,
    /// In the words of who published it: `critical`, `important`, `moderate`, `low`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Advisories that it comes with: `RHSA-2024:1234`, `DSA-5678-1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advisories: Vec<String>,
    /// Why an upgrade would not install it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
}

/// Why an update waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blocked {
    pub why: BlockedWhy,
    /// What says so: the pin, the share of hosts that have it by now, what it conflicts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What an update waits for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum BlockedWhy {
    /// Somebody holds the package.
    Held,
    /// A preference, an exclusion or a version lock keeps it.
    Pinned,
    /// It is given to some hosts first, and this is none of them yet.
    Phased,
    /// It would remove something, or lacks something.
    Dependencies,
    /// Its repository is for subscribers, and this host is not subscribed (Ubuntu's ESM).
    Subscription,
    #[default]
    #[serde(other)]
    Other,
}

/// One part of a version of [`UPDATES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatesPart {
    /// In part 0: everybody who was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<UpdateCheck>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<Group<PendingUpdate>>,
}
