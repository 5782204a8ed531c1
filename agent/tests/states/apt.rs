//! Roots of apt: repositories with Release files of this test's making, brought by `apt-get update`.
//!
//! What is pending must be what `apt list --upgradable` lists, and what libapt says by its Python binding: a third way, which also
//! tells what is kept back and which newer versions a pin refuses.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use infratrack_agent::collect::Root;
use infratrack_agent::updates::{Answer, Host};
use infratrack_shared::wire::packages::BlockedWhy;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::state::{State, ask, run, write};

/// libapt's own word: for each newer version whether it would be installed, is kept back or is refused.
const ORACLE: &str = r#"
import apt_pkg
apt_pkg.init_config()
apt_pkg.config.set("Dir::Bin::ischroot", "/bin/false")
apt_pkg.init_system()
cache = apt_pkg.Cache(None)
dep = apt_pkg.DepCache(cache)
dep.init()
newer = {}
# The archives of these states that say of themselves that they are only for who asks.
unasked = {"now", "stable-backports", "experimental"}
for package in cache.packages:
    now, wanted = package.current_ver, dep.get_candidate_ver(package)
    if now is None:
        continue
    compare = lambda version: apt_pkg.version_compare(version.ver_str, now.ver_str)
    if wanted is not None and compare(wanted) > 0:
        newer[package.get_fullname(False), now.arch] = (package, wanted, "wanted")
    else:
        offers = lambda version: any(f.archive not in unasked for f, _ in version.file_list)
        refused = [version for version in package.version_list if compare(version) > 0 and offers(version)]
        if refused:
            newer[package.get_fullname(False), now.arch] = (package, refused[0], "refused")
dep.upgrade(True)
for (name, arch), (package, version, how) in newer.items():
    if how == "wanted" and not dep.marked_upgrade(package):
        how = "kept"
    print(package.name, arch, version.ver_str, how)
"#;

/// A root with its apt configuration.
pub(crate) struct AptRoot {
    pub(crate) keep: TempDir,
}

impl AptRoot {
    pub(crate) fn new(state: &State) -> Self {
        let apt_root = Self {
            keep: tempfile::tempdir().unwrap(),
        };
        let root = apt_root.keep.path();
        for directory in ["lists/partial", "archives"] {
            fs::create_dir_all(root.join("var/lib/apt").join(directory)).unwrap();
        }
        for directory in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/sources.list.d",
            "var/lib/dpkg/updates",
            "var/cache/apt/archives/partial",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        state.write_files(root);
        let status = state.section("status").unwrap_or_default();
        let status = filled(status, &["Status: install ok installed"]);
        write(&root.join("var/lib/dpkg/status"), &status);
        apt_root.configure(state.section("options").unwrap_or_default());
        let mut sources = String::new();
        for (name, repository) in state.named("repository") {
            let place = root.join("repositories").join(name);
            lay_out(&place, repository);
            writeln!(sources, "deb [trusted=yes] file:{} ./", place.display()).unwrap();
        }
        // A repository that is configured once its neighbours have been asked has no lists.
        if state.section("not updated").is_none() {
            write(&root.join("etc/apt/sources.list"), &sources);
            if !sources.is_empty() {
                apt_root.update();
            }
        }
        for (name, repository) in state.named("later repository") {
            let place = root.join("repositories").join(name);
            lay_out(&place, repository);
            writeln!(sources, "deb [trusted=yes] file:{} ./", place.display()).unwrap();
        }
        write(&root.join("etc/apt/sources.list"), &sources);
        apt_root.subscribe(state);
        apt_root
    }

    fn configure(&self, options: &str) {
        let root = self.keep.path().display();
        let configuration = format!(
            "Dir \"{root}\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\nAPT::Sandbox::User \"root\";\n\
             APT::Machine-ID \"0123456789abcdef0123456789abcdef\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; \"i386\"; }};\n{options}"
        );
        write(&self.keep.path().join("apt.conf"), &configuration);
    }

    fn update(&self) {
        run(self.apt("apt-get").args(["update", "-qq"]), &[]);
    }

    /// What Ubuntu's client keeps for hosts without a subscription.
    fn subscribe(&self, state: &State) {
        let root = self.keep.path();
        let esm = root.join("var/lib/ubuntu-advantage/apt-esm");
        let mut sources = String::new();
        for (name, repository) in state.named("subscribers' repository") {
            let place = root.join("repositories").join(name);
            lay_out(&place, repository);
            writeln!(sources, "deb [trusted=yes] file:{} ./", place.display()).unwrap();
        }
        if sources.is_empty() {
            return;
        }
        fs::create_dir_all(esm.join("var/lib/apt/lists/partial")).unwrap();
        fs::create_dir_all(esm.join("var/cache/apt/archives/partial")).unwrap();
        write(&esm.join("etc/apt/sources.list"), &sources);
        let mut update = self.apt("apt-get");
        update.args(["update", "-qq", "-o", &format!("Dir={}", esm.display())]);
        let place = |path: &str| esm.join(path).display().to_string();
        update.args(["-o", &format!("Dir::Etc={}/", place("etc/apt"))]);
        run(&mut update, &[]);
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.keep.path().join("apt.conf"));
        command.env("LC_ALL", "C").env_remove("LANGUAGE");
        command
    }

    pub(crate) fn host(&self) -> Host {
        let root = self.keep.path();
        Host {
            root: Root::new(root),
            env: vec![("APT_CONFIG".into(), root.join("apt.conf").into())],
            ..Host::here(root)
        }
    }

    fn said_by_libapt(&self) -> BTreeSet<String> {
        let mut python = self.apt("/usr/bin/python3");
        let output = run(python.args(["-c", ORACLE]), &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// The set that `apt list --upgradable` lists: `NAME/SUITE VERSION ARCH [upgradable from: VERSION]`.
pub(crate) fn listed(apt: &mut Command) -> BTreeSet<String> {
    let output = run(apt.args(["list", "--upgradable"]), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once('/')?;
        let mut words = rest.split(' ').skip(1);
        let (version, arch) = (words.next()?, words.next()?);
        // What was built here is another version to apt, and no newer one.
        if line.ends_with(&format!("from: {version}]")) {
            return None;
        }
        Some(format!("{name} {arch} {version}"))
    });
    lines.collect()
}

/// Entries with what each of them must have.
fn filled(entries: &str, fields: &[&str]) -> String {
    let mut text = String::new();
    for entry in entries
        .split("\n\n")
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        text.push_str(entry);
        for field in [
            "Architecture: amd64",
            "Maintainer: Nobody <nobody@infratrack.example>",
            "Description: a package",
        ]
        .iter()
        .chain(fields)
        {
            let (name, _) = field.split_once(':').unwrap();
            if !entry
                .lines()
                .any(|line| line.starts_with(&format!("{name}:")))
            {
                write!(text, "\n{field}").unwrap();
            }
        }
        text.push_str("\n\n");
    }
    text
}

/// Fields of a Release file, an empty line, and the packages.
fn lay_out(place: &Path, repository: &str) {
    let (release, packages) = repository.split_once("\n\n").unwrap_or((repository, ""));
    let digest = "SHA256: 0000000000000000000000000000000000000000000000000000000000000000";
    let packages = filled(packages, &["Filename: package.deb", "Size: 1", digest]);
    let digest: String = Sha256::digest(&packages)
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
    let date = "Date: Sat, 01 Nov 2025 00:00:00 UTC";
    let size = packages.len();
    let release = format!(
        "{}\n{date}\nSHA256:\n {digest} {size} Packages\n",
        release.trim()
    );
    write(&place.join("Packages"), &packages);
    write(&place.join("Release"), &release);
}

/// Our answer, held against those of the two others.
pub(crate) fn check(state: &State) -> Answer {
    let root = AptRoot::new(state);
    let answer = ask(&root.host(), "apt");
    if answer.check.unknown.is_none() {
        let without = |unwanted: &[BlockedWhy]| {
            let pending = answer.pending.iter().filter(|update| {
                let why = update.blocked.as_ref().map(|blocked| blocked.why);
                why.is_none_or(|why| !unwanted.contains(&why))
            });
            let lines = pending.map(|one| format!("{} {} {}", one.name, one.arch, one.candidate));
            lines.collect::<BTreeSet<_>>()
        };
        let subscription = BlockedWhy::Subscription;
        let wanted = without(&[subscription, BlockedWhy::Pinned]);
        assert_eq!(
            wanted,
            listed(&mut root.apt("apt")),
            "{}: apt list",
            state.name
        );
        let said = root.said_by_libapt();
        let all: BTreeSet<_> = said
            .iter()
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect();
        assert_eq!(without(&[subscription]), all, "{}: libapt", state.name);
        let of = |how: &str| -> BTreeSet<String> {
            let lines = said.iter().filter_map(|line| line.strip_suffix(how));
            lines.map(|line| line.trim().to_owned()).collect()
        };
        let refused: BTreeSet<_> = without(&[subscription])
            .difference(&wanted)
            .cloned()
            .collect();
        assert_eq!(refused, of(" refused"), "{}: libapt", state.name);
        let kept = [
            BlockedWhy::Held,
            BlockedWhy::Phased,
            BlockedWhy::Pinned,
            subscription,
        ];
        let open = without(&[&kept[..], &[BlockedWhy::Dependencies]].concat());
        let installed = of(" wanted");
        assert!(
            open.is_subset(&installed),
            "{}: {open:?} {installed:?}",
            state.name
        );
    }
    answer
}

#[test]
#[ignore = "other programs may install packages here meanwhile: make soak"]
fn this_machine_is_told_as_apt_tells_it() {
    let keep = tempfile::tempdir().unwrap();
    let answer = ask(&Host::here(keep.path()), "apt");
    let wanted = answer.pending.iter().filter(|update| {
        let why = update.blocked.as_ref().map(|blocked| blocked.why);
        why != Some(BlockedWhy::Pinned) && why != Some(BlockedWhy::Subscription)
    });
    let wanted = wanted.map(|one| format!("{} {} {}", one.name, one.arch, one.candidate));
    let listed = listed(Command::new("apt").env("LC_ALL", "C"));
    // Without lists, apt knows nothing, and says that there is nothing.
    assert!(
        answer.check.unknown.is_none() || listed.is_empty(),
        "{:?}",
        answer.check
    );
    assert_eq!(wanted.collect::<BTreeSet<_>>(), listed);
}

#[test]
fn every_state_of_apt_is_told_as_apt_tells_it() {
    State::each("apt", 30, check);
}
