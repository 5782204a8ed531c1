//! Debian's releases as the mirror of this machine has them: a root of each by debootstrap, first without the archives of fixes
//! and updates, so that once they are configured there is something to install. What is told of it must be what that release's own
//! apt says of itself.
//!
//! Needs root and the network. Whatever debootstrap mounts is in a namespace of its own and ends with it.

mod machine;
mod said;
mod variants;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use infratrack_agent::collect::Root;
use infratrack_agent::updates::{Answer, Host};
use infratrack_shared::wire::packages::BlockedWhy;
use tempfile::TempDir;

use crate::apt::listed;
use crate::state::{ask, run, write};
use machine::Mirrors;

/// The oldest first. Which of them a mirror has changes with the years.
const RELEASES: [&str; 7] = [
    "stretch", "buster", "bullseye", "bookworm", "trixie", "forky", "sid",
];
/// Of a root that another process of this test is to look at.
const ROOT: &str = "INFRATRACK_RELEASE_ROOT";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
const APT: [&str; 3] = ["apt-get", "apt-cache", "apt-config"];

/// A root of a release, below `target`.
struct ReleaseRoot {
    keep: TempDir,
    release: String,
}

impl ReleaseRoot {
    /// None where the mirror does not have the release.
    fn new(release: &str, mirrors: &Mirrors) -> Option<Self> {
        let keep = tempfile::Builder::new()
            .prefix(&format!("{release}-"))
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let root = Self {
            keep,
            release: release.to_owned(),
        };
        let mut debootstrap = Command::new("unshare");
        debootstrap
            .args(["--mount", "--propagation", "private", "debootstrap"])
            .args(["--variant=minbase", "--include=locales", release])
            .arg(root.path())
            .arg(&mirrors.main);
        // One that is younger than this debootstrap is made as all are of late.
        let scripts = Path::new("/usr/share/debootstrap/scripts");
        if !scripts.join(release).exists() {
            debootstrap.arg(scripts.join("sid"));
        }
        mirrors.reach(&mut debootstrap);
        let output = debootstrap.output();
        let output = output.expect("make deps-releases installs debootstrap");
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("Failed getting release file") {
            return None;
        }
        assert!(output.status.success(), "debootstrap {release}: {said}");
        for program in APT {
            root.wrap(program);
        }
        Some(root)
    }

    fn path(&self) -> PathBuf {
        self.keep.path().join("root")
    }

    /// A program of the release, started as if it were this machine's.
    fn wrap(&self, program: &str) {
        let place = self.keep.path().join("programs").join(program);
        let root = self.path();
        let script = format!(
            "#!/bin/sh\nexec chroot '{}' {program} \"$@\"\n",
            root.display()
        );
        write(&place, &script);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Archives in place of those that are configured; answers which of them the mirrors have.
    fn configure(&self, mirrors: &Mirrors, archives: &[(&str, String)]) -> Vec<String> {
        let mut served = Vec::new();
        let list = self.path().join("etc/apt/sources.list");
        let line = |mirror: &str, suite: &str| format!("deb {mirror} {suite} main\n");
        let mut lines = line(&mirrors.main, &self.release);
        for (mirror, suite) in archives {
            let with = format!("{lines}{}", line(mirror, suite));
            write(&list, &with);
            if self.update(mirrors).status.success() {
                lines = with;
                served.push(suite.clone());
            }
        }
        write(&list, &lines);
        let updated = self.update(mirrors);
        assert!(updated.status.success(), "{}: {updated:?}", self.release);
        served
    }

    fn update(&self, mirrors: &Mirrors) -> Output {
        let mut update = inside(&self.path(), "apt-get");
        // A list that can't be had is no warning here.
        update.args(["update", "--option=APT::Update::Error-Mode=any"]);
        // A mirror may lag behind by more than a list of sid is valid for.
        update.arg("--option=Acquire::Check-Valid-Until=false");
        mirrors.reach(&mut update);
        update.output().unwrap()
    }
}

/// A program of the root, which speaks no language.
fn inside(root: &Path, program: &str) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).arg(program);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C");
    command
}

/// The root as the host that is asked.
fn host(root: &Path) -> Host {
    let programs = root.parent().unwrap().join("programs");
    Host {
        root: Root::new(root),
        programs: vec![programs],
        // What is named there is not in the root.
        env: vec![("TMPDIR".into(), "/tmp".into())],
        ..Host::here(root.parent().unwrap())
    }
}

/// What is told, held against all that the release's apt says of the same.
fn compare(host: &Host, root: &Path) -> Answer {
    let answer = ask(host, "apt");
    assert_eq!(answer.check.unknown, None, "{}", root.display());
    let name = |name: &str, arch: &str, version: &str| format!("{name} {arch} {version}");
    let told = answer.pending.iter();
    let told = told.map(|one| (name(&one.name, &one.arch, &one.candidate), one));
    let why = |blocked: &Option<infratrack_shared::wire::packages::Blocked>| {
        blocked.as_ref().map(|blocked| blocked.why)
    };
    let told: Vec<_> = told
        .filter(|(_, one)| why(&one.blocked) != Some(BlockedWhy::Pinned))
        .collect();
    let names: BTreeSet<_> = told.iter().map(|(name, _)| name.clone()).collect();
    let listed = listed(&mut inside(root, "apt"));
    assert_eq!(names, listed, "apt list --upgradable");

    let fixes = said::fixes(&run(
        inside(root, "apt").args(["list", "--upgradable", "--all-versions"]),
        &[],
    ));
    let has_fixes = said::has_security_lists(root);
    for (name, one) in &told {
        let expected = has_fixes.then(|| fixes.contains(name));
        assert_eq!(one.security, expected, "{name}: apt list --all-versions");
    }

    let simulated = said::simulated(&run(
        inside(root, "apt-get").args(["--simulate", "dist-upgrade"]),
        &[],
    ));
    let open = told.iter().filter(|(_, one)| one.blocked.is_none());
    let open: BTreeSet<_> = open.map(|(name, _)| name.clone()).collect();
    let wanted: BTreeSet<_> = simulated.keys().cloned().collect();
    assert_eq!(open, wanted, "apt-get --simulate dist-upgrade");
    for (name, one) in told.iter().filter(|(_, one)| one.blocked.is_none()) {
        let (origins, repository) = (&simulated[name], one.repository.as_deref().unwrap());
        assert!(
            origins.iter().any(|origin| origin == repository),
            "{name} is of {origins:?}, told is {repository}"
        );
    }
    answer
}

/// What came of a release, as a line for people.
fn try_release(release: &str, mirrors: &Mirrors) -> String {
    let Some(root) = ReleaseRoot::new(release, mirrors) else {
        return format!("{release}: not on this mirror");
    };
    let path = root.path();
    root.configure(mirrors, &[]);
    let bare = compare(&host(&path), &path).pending.len();
    let served = root.configure(mirrors, &mirrors.archives(release));
    let apt = run(inside(&path, "apt-get").arg("--version"), &[]).stdout;
    let apt = String::from_utf8(apt).unwrap();
    let apt = apt.split(' ').nth(1).unwrap();
    let plain = compare(&host(&path), &path);
    let fixes = plain.pending.iter();
    let fixes = fixes.filter(|one| one.security == Some(true)).count();
    let states = variants::all(&root, &plain);
    format!(
        "{release}: apt {apt}, with {}: {bare} pending before, {} after, {fixes} for security; {}",
        served.join(", "),
        plain.pending.len(),
        states.join(", ")
    )
}

#[test]
#[ignore = "downloads a root of each of Debian's releases: make soak"]
#[expect(clippy::print_stdout, reason = "which releases there were")]
fn every_release_of_the_mirror_is_told_as_its_apt_tells_it() {
    if !nix::unistd::geteuid().is_root() {
        println!("no release was tried: only root can make their roots");
        return;
    }
    let mirrors = Mirrors::of_this_machine();
    let only = std::env::var("INFRATRACK_RELEASES").unwrap_or_default();
    let is_asked = |release: &&str| only.is_empty() || only.split(' ').any(|one| one == *release);
    let mut failed = Vec::new();
    let mut tried = 0;
    for release in RELEASES.into_iter().filter(is_asked) {
        match catch_unwind(AssertUnwindSafe(|| try_release(release, &mirrors))) {
            Ok(line) => {
                tried += usize::from(!line.ends_with("not on this mirror"));
                println!("{line}");
            }
            Err(_) => failed.push(release),
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
    assert!(tried > 0, "the mirror has no release of Debian's");
}

#[test]
#[ignore = "run by the test above, in languages"]
fn a_root_in_the_language_of_the_caller() {
    // Without a root it was not called by that.
    if let Some(root) = std::env::var_os(ROOT) {
        let root = PathBuf::from(root);
        compare(&host(&root), &root);
    }
}
