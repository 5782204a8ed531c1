//! Hosts in a table, each with the verdict and the evidence that are expected: `tests/states/reboot/*.txt`. A state is a tree of
//! files that is read as a host is; only rpm's packages, whose database has no text, are there as the unit answers that runs rpm.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;
use crate::packages::{Inventory, Manager, Package};

const BOOT: i64 = 1_700_000_000;
/// Fewer, and something has been lost.
const LEAST: usize = 60;

struct State {
    name: String,
    expected: Expected,
    root: Root,
    rpm: Option<Vec<Package>>,
    status: String,
    _keep: tempfile::TempDir,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    required: Option<bool>,
    /// What the reason of an unknown verdict has in it.
    unknown: String,
    reasons: Vec<String>,
    hints: Vec<String>,
    services: Vec<String>,
}

#[test]
fn every_state_has_its_verdict_and_its_evidence() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/states/reboot");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut wrong = Vec::new();
    let mut states = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for state in text.split("\n== ").skip(1) {
            states += 1;
            let state = State::build(state);
            let found = state.found();
            if !is_as_expected(&state.expected, &found) {
                let file = file.display();
                wrong.push(format!(
                    "{file}: {}: {:?} {found:?}",
                    state.name, state.expected
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(states >= LEAST, "{states} states");
}

fn is_as_expected(expected: &Expected, found: &Expected) -> bool {
    let is_reason = match found.required {
        Some(_) => expected.unknown.is_empty(),
        None => !expected.unknown.is_empty() && found.unknown.contains(&expected.unknown),
    };
    let without = |one: &Expected| {
        let lists = [&one.reasons, &one.hints, &one.services];
        (one.required, lists.map(Clone::clone))
    };
    is_reason && without(expected) == without(found)
}

impl State {
    /// The name and the expectation, then a line for each thing that is there.
    fn build(text: &str) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut state = Self {
            name: lines.next().unwrap().to_owned(),
            expected: Expected::default(),
            root: Root::new(keep.path()),
            rpm: None,
            status: String::new(),
            _keep: keep,
        };
        state.file("proc/stat", &format!("btime {BOOT}\n"));
        state.file("proc/1/comm", "init\n");
        for line in lines.filter(|line| !line.is_empty()) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let is_known = state.expects(word, rest) || state.has(word, rest);
            assert!(is_known, "{}: {line}", state.name);
        }
        if !state.status.is_empty() {
            let status = state.status.clone();
            state.file("var/lib/dpkg/status", &status);
        }
        state
    }

    fn expects(&mut self, word: &str, rest: &str) -> bool {
        let words = || rest.split(' ').map(str::to_owned).collect();
        match word {
            "required" => self.expected.required = Some(rest == "yes"),
            "unknown" => self.expected.unknown = rest.to_owned(),
            "reasons" => self.expected.reasons = words(),
            "hints" => self.expected.hints = words(),
            "services" => self.expected.services = words(),
            _ => return false,
        }
        true
    }

    fn has(&mut self, word: &str, rest: &str) -> bool {
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            // What runs, and what it says of its build.
            "running" => {
                self.file("proc/sys/kernel/osrelease", &format!("{first}\n"));
                self.file("proc/sys/kernel/version", &format!("{second}\n"));
            }
            "image" => self.file(&format!("boot/vmlinuz-{first}"), ""),
            "modules" => {
                self.file(&format!("lib/modules/{first}/modules.dep"), "");
                self.file(&format!("lib/modules/{first}/kernel/fs/ext4.ko"), "");
            }
            // As a package brings it: both.
            "kernel" => {
                self.has("image", first);
                self.has("modules", first);
            }
            // Fedora, Arch: the image beside the modules.
            "usr-kernel" => {
                self.file(&format!("usr/lib/modules/{first}/vmlinuz"), "");
                self.file(&format!("usr/lib/modules/{first}/modules.dep"), "");
            }
            "file" => self.file(first, &second.replace("\\n", "\n")),
            "link" => {
                let path = self.path(first);
                symlink(second, path).unwrap();
            }
            "time" => self.time(first, second),
            "dpkg" => self.dpkg(first, second),
            "rpm-database" => {
                self.file("var/lib/rpm/rpmdb.sqlite", "");
                self.rpm.get_or_insert_default();
            }
            "rpm" => {
                self.has("rpm-database", "");
                let package = Package {
                    name: first.to_owned(),
                    version: "1-1".to_owned(),
                    installed_at_s: u64::try_from(BOOT + hours(second)).ok(),
                    ..Package::default()
                };
                self.rpm.get_or_insert_default().push(package);
            }
            "rpm-kernel" => {
                self.has("rpm-database", "");
                let package = Package {
                    name: first.to_owned(),
                    version: second.to_owned(),
                    arch: "x86_64".to_owned(),
                    ..Package::default()
                };
                self.rpm.get_or_insert_default().push(package);
            }
            // Its name, its group, and a file that it maps; the text of a mapping is the kernel's.
            "process" => self.process(first, second),
            _ => return false,
        }
        true
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.root.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn file(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    /// Hours since the boot at which the file was written.
    fn time(&self, path: &str, since_boot: &str) {
        let file = File::options()
            .append(true)
            .open(self.root.path(path))
            .unwrap();
        let at = u64::try_from(BOOT + hours(since_boot)).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        file.set_modified(at).unwrap();
    }

    /// Name, version, and the state where it is not installed.
    fn dpkg(&mut self, name: &str, rest: &str) {
        let (version, state) = rest
            .split_once(' ')
            .unwrap_or((rest, "install ok installed"));
        let entry = format!(
            "Package: {name}\nStatus: {state}\nArchitecture: amd64\nVersion: {version}\n\n"
        );
        self.status.push_str(&entry);
    }

    fn process(&self, id: &str, rest: &str) {
        let mut fields = rest.splitn(3, ' ');
        let mut next = || fields.next().unwrap_or_default();
        let (name, cgroup, mapped) = (next(), next(), next());
        self.file(&format!("proc/{id}/comm"), &format!("{name}\n"));
        self.file(&format!("proc/{id}/cgroup"), &format!("{cgroup}\n"));
        let line = format!("7f10c4a28000-7f10c4b7d000 r-xp 00026000 fe:01 393241      {mapped}\n");
        self.file(&format!("proc/{id}/maps"), &line);
    }

    fn found(&self) -> Expected {
        if let Some(packages) = &self.rpm {
            let inventory = Inventory::new(Manager::Rpm, packages.clone(), 0);
            let answer = serde_json::to_string(&inventory).unwrap();
            self.file("run/infratrack-updates/rpm.json", &answer);
        }
        let host = Host::read(&self.root);
        let facts = facts(&host, services::read(&self.root));
        let kinds = |all: &[Evidence]| all.iter().map(|one| one.kind.to_owned()).collect();
        let named = |one: &Service| one.unit.clone().or_else(|| one.process.clone());
        Expected {
            required: facts.required,
            unknown: facts.unknown.unwrap_or_default(),
            reasons: kinds(&facts.reasons),
            hints: kinds(&facts.hints),
            services: facts.services.iter().filter_map(named).collect(),
        }
    }
}

fn hours(text: &str) -> i64 {
    let hours: f64 = text.parse().unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "a few days at most")]
    let seconds = (hours * 3600.0) as i64;
    seconds
}
