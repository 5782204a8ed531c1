//! The formats of package managers' databases and logs. Whoever reads them brings the bytes: `collect/packages.rs` and
//! `collect/package_logs.rs` on a host, and the fuzz targets, which take these files in by their paths.

pub mod apk;
pub mod dpkg;
pub mod flatpak;
mod lines;
pub mod log;
pub mod rpm;
pub mod snap;

pub use infratrack_shared::wire::packages::{Manager, Package};
use serde::{Deserialize, Serialize};

/// Packages of one database at most: a damaged or hostile one does not take the memory of the host.
pub const MOST: usize = 50_000;
/// Of a field of a package; longer ones are cut.
pub const FIELD_BYTES: usize = 1024;

/// What one database has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub manager: Manager,
    /// Sorted by name, version and architecture, each once.
    pub packages: Vec<Package>,
    /// Entries that are left out: they make no sense, or are more than [`MOST`].
    pub skipped: usize,
}

impl Inventory {
    /// Of packages in any order.
    pub fn new(manager: Manager, mut packages: Vec<Package>, skipped: usize) -> Self {
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
