//! dpkg's database: `status`, what a run of dpkg that goes on has in `updates/`, and `status.d/` of images without dpkg.
//!
//! Formats: dpkg(1), deb822(5), and `lib/dpkg/dbmodify.c` for `updates/`: files of digits, each of which has whole entries
//! that take the place of those before, in their order.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::time::SystemTime;

use super::lines::next_line;
use super::{Inventory, MOST, Manager, Package, field, said};
use crate::collect::Root;

const STATUS: &str = "var/lib/dpkg/status";
const UPDATES: &str = "var/lib/dpkg/updates";
const STATUS_D: &str = "var/lib/dpkg/status.d";
const INFO: &str = "var/lib/dpkg/info";
/// Of a database at most; the largest seen have 20 MiB.
const FILE_BYTES: u64 = 128 * 1024 * 1024;

/// The database of a host that has one.
pub(super) fn collect(root: &Root) -> Result<Option<Inventory>, String> {
    let has_status = root.exists(STATUS);
    if !has_status && !root.exists(STATUS_D) {
        return Ok(None);
    }
    let mut entries = Entries::default();
    if has_status {
        entries.read(root, STATUS)?;
        let updates = root.names(UPDATES).unwrap_or_default();
        let is_update = |name: &&String| name.bytes().all(|byte| byte.is_ascii_digit());
        for name in updates.iter().filter(is_update) {
            entries.read(root, &format!("{UPDATES}/{name}"))?;
        }
    } else {
        let names = root.names(STATUS_D)?;
        let is_entry = |name: &&String| !name.ends_with(".md5sums");
        for name in names.iter().filter(is_entry) {
            entries.read(root, &format!("{STATUS_D}/{name}"))?;
        }
    }
    let mut inventory = entries.inventory();
    for package in &mut inventory.packages {
        package.installed_at_s = installed_at(root, &package.name, &package.arch);
    }
    Ok(Some(inventory))
}

/// The packages of one file as dpkg writes `status`.
pub fn parse(file: impl BufRead) -> std::io::Result<Inventory> {
    let mut entries = Entries::default();
    entries.add(file)?;
    Ok(entries.inventory())
}

/// dpkg writes the list of a package's files anew whenever it unpacks it.
fn installed_at(root: &Root, name: &str, arch: &str) -> Option<u64> {
    let lists = [
        format!("{INFO}/{name}:{arch}.list"),
        format!("{INFO}/{name}.list"),
    ];
    let written = lists
        .iter()
        .find_map(|list| root.path(list).metadata().ok()?.modified().ok())?;
    Some(
        written
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs(),
    )
}

/// Packages by name and architecture, `None` for those that are gone.
#[derive(Default)]
struct Entries {
    by_name: BTreeMap<(String, String), Option<Package>>,
    skipped: usize,
}

impl Entries {
    fn read(&mut self, root: &Root, path: &str) -> Result<(), String> {
        let file = root
            .open(path, FILE_BYTES)
            .map_err(|error| format!("/{path}: {error}"))?;
        self.add(file).map_err(|error| format!("/{path}: {error}"))
    }

    fn add(&mut self, mut file: impl BufRead) -> std::io::Result<()> {
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
        if entry.is_empty() {
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

    fn inventory(self) -> Inventory {
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
    fn is_empty(&self) -> bool {
        !self.has_lines
    }

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
    use std::process::Command;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::collect::fixture;

    fn names(inventory: &Inventory) -> Vec<&str> {
        inventory
            .packages
            .iter()
            .map(|package| package.name.as_str())
            .collect()
    }

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
        let inventory = parse(text.as_bytes()).unwrap();
        assert_eq!(
            names(&inventory),
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

    #[test]
    fn what_a_run_of_dpkg_has_not_merged_yet_takes_the_place_of_what_was() {
        let (_keep, root) = fixture::host(&[
            (
                "var/lib/dpkg/status",
                "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n\
                Package: b\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n",
            ),
            (
                "var/lib/dpkg/updates/0001",
                "Package: a\nStatus: install ok unpacked\nVersion: 2\nArchitecture: all\n",
            ),
            (
                "var/lib/dpkg/updates/0002",
                "Package: a\nStatus: install ok installed\nVersion: 2\nArchitecture: all\n",
            ),
            (
                "var/lib/dpkg/updates/0003",
                "Package: b\nStatus: purge ok not-installed\nArchitecture: all\n",
            ),
            ("var/lib/dpkg/updates/tmp.i", "Package: c\n"),
            ("var/lib/dpkg/info/a.list", "/.\n"),
        ]);
        let inventory = collect(&root).unwrap().unwrap();
        assert_eq!(names(&inventory), ["a"]);
        let a = &inventory.packages[0];
        assert_eq!((a.version.as_str(), a.broken.as_deref()), ("2", None));
        assert!(a.installed_at_s.is_some());
    }

    #[test]
    fn an_image_without_dpkg_has_a_file_for_each_package() {
        let (_keep, root) = fixture::host(&[
            (
                "var/lib/dpkg/status.d/base",
                "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
            ),
            ("var/lib/dpkg/status.d/base.md5sums", "0  etc/os-release\n"),
        ]);
        let inventory = collect(&root).unwrap().unwrap();
        assert_eq!(
            (names(&inventory), inventory.skipped),
            (vec!["base-files"], 0)
        );
        let (_keep, root) = fixture::host(&[]);
        assert_eq!(collect(&root).unwrap(), None);
    }

    #[test]
    fn this_machine_has_what_dpkg_says() {
        let format = "${db:Status-Want} ${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\n";
        let Ok(told) = Command::new("dpkg-query")
            .args(["-W", "-f", format])
            .output()
        else {
            return;
        };
        let told = String::from_utf8(told.stdout).unwrap();
        let is_there =
            |line: &&str| !line.contains(" config-files\t") && !line.contains(" not-installed\t");
        let mut told: Vec<_> = told.lines().filter(is_there).map(str::to_owned).collect();
        let inventory = collect(&Root::default()).unwrap().unwrap();
        assert!(
            !told.is_empty()
                && inventory
                    .packages
                    .iter()
                    .all(|one| one.installed_at_s.is_some())
        );
        let mut ours: Vec<_> = inventory
            .packages
            .into_iter()
            .map(|one| {
                let want = if one.held { "hold" } else { "install" };
                let state = one.broken.as_deref().unwrap_or("installed");
                let source = one.source.as_ref().unwrap_or(&one.name);
                format!(
                    "{want} {state}\t{}\t{}\t{}\t{source}",
                    one.name, one.version, one.arch
                )
            })
            .collect();
        told.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, told);
    }

    #[test]
    fn a_database_that_is_no_file_is_not_waited_for() {
        let (keep, root) = fixture::host(&[("var/lib/dpkg/other", "")]);
        let fifo = keep.path().join(STATUS);
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let reason = collect(&root).unwrap_err();
        assert!(reason.contains("is no file"), "{reason}");
    }
}
