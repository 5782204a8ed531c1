//! The formats of package managers' databases. Whoever reads them brings the bytes: `collect/packages.rs` on a host, and the
//! fuzz targets, which take these files in by their paths.

pub mod apk;
pub mod dpkg;
mod lines;

use serde::Serialize;

/// Packages of one database at most: a damaged or hostile one does not take the memory of the host.
pub const MOST: usize = 50_000;
/// Of a field of a package; longer ones are cut.
pub const FIELD_BYTES: usize = 1024;

/// Whose database a package stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    Apk,
    Dpkg,
}

/// One package.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    pub name: String,
    /// As the package manager prints it, epoch and release included.
    pub version: String,
    pub arch: String,
    /// What it was built from, where that has another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The version of that, where it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// Who made it: dpkg's origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Unix time in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_at_s: Option<u64>,
    /// It stays as it is until somebody says otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// It is not wholly installed: how it is instead, in its package manager's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// What one database has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inventory {
    pub manager: Manager,
    /// Sorted by name, version and architecture, each once.
    pub packages: Vec<Package>,
    /// Entries that are left out: they make no sense, or are more than [`MOST`].
    pub skipped: usize,
}

impl Inventory {
    fn new(manager: Manager, mut packages: Vec<Package>, skipped: usize) -> Self {
        packages.sort_unstable();
        packages.dedup();
        Self {
            manager,
            packages,
            skipped,
        }
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<&str> {
        let packages = self.packages.iter();
        packages.map(|package| package.name.as_str()).collect()
    }
}

/// A field as it is kept: of one line, without what is no text, cut where it is too long.
fn field(text: &str) -> String {
    let mut text = text.trim().replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(FIELD_BYTES));
    text
}

/// The same where it says something.
fn said(text: &str) -> Option<String> {
    let text = field(text);
    (!text.is_empty()).then_some(text)
}
