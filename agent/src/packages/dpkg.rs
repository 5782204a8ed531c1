//! The entries of dpkg's database: dpkg(1), deb822(5).

use std::collections::BTreeMap;
use std::io::BufRead;

use super::lines::next_line;
use super::{Inventory, MOST, Manager, Package, field, said};

/// Packages by name and architecture, `None` for those that are gone. An entry takes the place of one before.
#[derive(Debug, Default)]
pub struct Database {
    by_name: BTreeMap<(String, String), Option<Package>>,
    skipped: usize,
}

impl Database {
    /// Adds the entries of a file, in their order.
    pub fn add(&mut self, mut file: impl BufRead) -> std::io::Result<()> {
        let mut entry = Entry::default();
        let mut line = Vec::new();
        loop {
            let more = next_line(&mut file, &mut line)?;
            if !more || line.is_empty() {
                self.take(std::mem::take(&mut entry));
            }
            if !more {
                return Ok(());
            }
            entry.add(&String::from_utf8_lossy(&line));
        }
    }

    fn take(&mut self, entry: Entry) {
        if !entry.has_lines {
            return;
        }
        let is_new = |key| !self.by_name.contains_key(key);
        match entry.package() {
            Some((key, package)) if self.by_name.len() < MOST || !is_new(&key) => {
                self.by_name.insert(key, package);
            }
            _ => self.skipped += 1,
        }
    }

    /// What is there.
    pub fn inventory(self) -> Inventory {
        let packages = self.by_name.into_values().flatten().collect();
        Inventory::new(Manager::Dpkg, packages, self.skipped)
    }
}

/// The fields that are wanted of an entry.
#[derive(Default)]
struct Entry {
    has_lines: bool,
    name: String,
    status: Option<String>,
    version: String,
    arch: String,
    source: String,
    origin: String,
}

impl Entry {
    fn add(&mut self, line: &str) {
        self.has_lines |= !line.is_empty();
        // A field's second line and those after it belong to none that is wanted.
        if line.starts_with([' ', '\t']) {
            return;
        }
        let Some((name, value)) = line.split_once(':') else {
            return;
        };
        let wanted = match name.trim_end().to_ascii_lowercase().as_str() {
            "package" => &mut self.name,
            "version" => &mut self.version,
            "architecture" => &mut self.arch,
            "source" => &mut self.source,
            "origin" => &mut self.origin,
            "status" => {
                self.status = Some(field(value));
                return;
            }
            _ => return,
        };
        *wanted = field(value);
    }

    /// By its key, the package where there is any of it; `None` for what makes no sense.
    fn package(self) -> Option<((String, String), Option<Package>)> {
        if self.name.is_empty() {
            return None;
        }
        // An image's entry has no status: what is in the image is installed.
        let status = self.status.as_deref().unwrap_or("install ok installed");
        let mut words = status.split_ascii_whitespace();
        let (want, flag, state) = (words.next()?, words.next()?, words.next()?);
        let key = (self.name.clone(), self.arch.clone());
        if ["not-installed", "config-files"].contains(&state) {
            return Some((key, None));
        }
        if self.version.is_empty() {
            return None;
        }
        let (source, source_version) = source(&self.source);
        let is_whole = ["installed", "triggers-pending", "triggers-awaited"].contains(&state);
        let broken = match (is_whole, flag) {
            (true, "ok") => None,
            (true, flag) => Some(field(flag)),
            (false, _) => Some(field(state)),
        };
        let package = Package {
            name: self.name,
            version: self.version,
            arch: self.arch,
            source,
            source_version,
            vendor: said(&self.origin),
            installed_at_s: None,
            held: want == "hold",
            broken,
        };
        Some((key, Some(package)))
    }
}

/// `Source: name (version)`, each only where it is another than the package's.
fn source(text: &str) -> (Option<String>, Option<String>) {
    match text.split_once('(') {
        Some((name, version)) => (said(name), said(version.trim_end_matches(')'))),
        None => (said(text), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_package_where_any_of_it_is_there() {
        let text = "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nSource: openssl\n\
            Version: 3.0.17-1~deb12u2\nOrigin: Debian\nDescription: a library\n Version: 1\n .\n Package: other\n\n\
            Package: held\nstatus: hold ok installed\nVersion: 1:2-3\nArchitecture: all\nSource: held-source (1.5)\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n\
            Package: half\nStatus: install reinstreq half-installed\nVersion: 2\nArchitecture: amd64\n\n\
            Package: again\nStatus: install reinstreq installed\nVersion: 2\nArchitecture: amd64\n\n\
            Version: 1\nStatus: install ok installed\n\n\
            Package: no version\nStatus: install ok installed\n\n\
            Package: waits\nStatus: install ok triggers-pending\nVersion: 0~1\nArchitecture: amd64";
        let mut database = Database::default();
        database.add(text.as_bytes()).unwrap();
        let inventory = database.inventory();
        assert_eq!(
            inventory.names(),
            ["again", "half", "held", "libssl3", "waits"]
        );
        assert_eq!(inventory.skipped, 2);
        let found = |name: &str| {
            let mut all = inventory.packages.iter();
            all.find(|package| package.name == name).unwrap()
        };
        let ssl = found("libssl3");
        assert_eq!(
            (ssl.version.as_str(), ssl.arch.as_str()),
            ("3.0.17-1~deb12u2", "amd64")
        );
        assert_eq!(
            (ssl.source.as_deref(), ssl.vendor.as_deref(), ssl.held),
            (Some("openssl"), Some("Debian"), false)
        );
        let held = found("held");
        assert_eq!(
            (
                held.source.as_deref(),
                held.source_version.as_deref(),
                held.held
            ),
            (Some("held-source"), Some("1.5"), true)
        );
        assert_eq!(found("half").broken.as_deref(), Some("half-installed"));
        assert_eq!(found("again").broken.as_deref(), Some("reinstreq"));
        assert_eq!(found("waits").broken, None);
    }
}
