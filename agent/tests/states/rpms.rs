//! Roots with rpm's database, and repositories with advisories, of packages that are built here.
//!
//! A package is a line: `NAME-[EPOCH:]VERSION-RELEASE.ARCH`, and what else its spec file says, after commas. An advisory is a
//! line: `ID TYPE SEVERITY PACKAGE…`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;
use tempfile::TempDir;

use crate::state::{State, run, write};

/// Whether rpm may work in a root; says so where it may not.
#[expect(clippy::print_stderr, reason = "a test that can't run says so")]
pub(crate) fn is_possible() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        eprintln!("not run: only root may have rpm work in a root");
    }
    is_root
}

/// A root in which rpm has installed what the state says.
pub(crate) struct RpmRoot {
    pub(crate) keep: TempDir,
}

impl RpmRoot {
    pub(crate) fn new(state: &State) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let root = Self { keep };
        // Debian's rpm keeps its database in the home of whoever runs it.
        write(&root.home().join(".rpmmacros"), "%_dbpath /var/lib/rpm\n");
        state.write_files(&root.path());
        fs::create_dir_all(root.path().join("var/lib/rpm")).unwrap();
        fs::create_dir_all(root.path().join("var/tmp")).unwrap();
        run(root.rpm().arg("--initdb"), &[]);
        let built = root.build("installed", state.section("installed").unwrap_or_default());
        if !built.is_empty() {
            // Some are there in two versions.
            let args = ["-i", "--nodeps", "--force", "--justdb", "--noscripts"];
            run(root.rpm().args(args).args(debian()).args(built), &[]);
        }
        for (name, packages) in state.named("repository") {
            root.lay_out(name, packages, state);
        }
        root
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.keep.path().join("root")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.keep.path().join("home")
    }

    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        self.keep.path().join("repositories").join(name)
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", self.home()).env("LC_ALL", "C");
        // Python heeds it whatever else is set.
        command.env_remove("LANGUAGE");
        command
    }

    fn rpm(&self) -> Command {
        let mut command = self.command("rpm");
        command.arg("--root").arg(self.path());
        command
    }

    /// The files of the packages, built at once.
    fn build(&self, name: &str, packages: &str) -> Vec<PathBuf> {
        let place = self.keep.path().join("built").join(name);
        let mut built = Vec::new();
        for line in packages.lines().filter(|line| !line.trim().is_empty()) {
            let (package, more) = line.split_once(", ").unwrap_or((line, ""));
            let [name, epoch, version, release, arch] = parts(package);
            let mut spec = format!(
                "Name: {name}\nEpoch: {epoch}\nVersion: {version}\nRelease: {release}\nSummary: a package\nLicense: none\n"
            );
            if epoch == "0" {
                spec = spec.replace("Epoch: 0\n", "");
            }
            if arch == "noarch" {
                spec.push_str("BuildArch: noarch\n");
            }
            for field in more.split(", ").filter(|field| !field.is_empty()) {
                writeln!(spec, "{field}").unwrap();
            }
            spec.push_str("%description\na package\n%files\n");
            let path = place.join(format!("{package}.spec"));
            write(&path, &spec);
            let topdir = format!("_topdir {}", place.display());
            let mut rpmbuild = self.command("rpmbuild");
            rpmbuild.args(["-bb", "--quiet", "--nodeps", "--define", &topdir]);
            rpmbuild.args(["--define", "_build_id_links none"]);
            run(rpmbuild.args(["--target", arch.as_str()]).arg(&path), &[]);
            let file = format!("{name}-{version}-{release}.{arch}.rpm");
            built.push(place.join("RPMS").join(&arch).join(file));
        }
        built
    }

    /// A repository with the advisories of the section of its name.
    fn lay_out(&self, name: &str, packages: &str, state: &State) {
        let place = self.repository(name);
        fs::create_dir_all(&place).unwrap();
        for file in self.build(name, packages) {
            fs::copy(&file, place.join(file.file_name().unwrap())).unwrap();
        }
        run(self.command("createrepo_c").arg("-q").arg(&place), &[]);
        let advisories = state.section(&format!("advisories {name}"));
        let Some(advisories) = advisories else {
            return;
        };
        let path = self.keep.path().join(format!("{name}-updateinfo.xml"));
        write(&path, &updateinfo(advisories));
        let mut modify = self.command("modifyrepo_c");
        modify
            .arg("--mdtype=updateinfo")
            .arg(&path)
            .arg(place.join("repodata"));
        run(&mut modify, &[]);
    }
}

/// Debian's rpm installs only what it is made to.
fn debian() -> Vec<&'static str> {
    let is_debian = Path::new("/etc/debian_version").exists();
    is_debian.then_some("--force-debian").into_iter().collect()
}

fn parts(package: &str) -> [String; 5] {
    let (rest, arch) = package.rsplit_once('.').unwrap();
    let mut parts = rest.rsplitn(3, '-');
    let release = parts.next().unwrap();
    let version = parts.next().unwrap();
    let name = parts.next().unwrap();
    let (epoch, version) = version.split_once(':').unwrap_or(("0", version));
    [name, epoch, version, release, arch].map(str::to_owned)
}

fn updateinfo(advisories: &str) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<updates>".to_owned();
    for line in advisories.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<_> = line.split(' ').collect();
        let [id, kind, severity, packages @ ..] = words.as_slice() else {
            panic!("no advisory: {line}");
        };
        write!(
            text,
            "<update from=\"x\" status=\"final\" type=\"{kind}\" version=\"1\"><id>{id}</id><title>{id}</title>\
             <issued date=\"2024-01-01 00:00:00\"/><severity>{severity}</severity><pkglist><collection short=\"c\"><name>c</name>"
        )
        .unwrap();
        for package in packages {
            let [name, epoch, version, release, arch] = parts(package);
            write!(
                text,
                "<package name=\"{name}\" version=\"{version}\" release=\"{release}\" epoch=\"{epoch}\" arch=\"{arch}\">\
                 <filename>{name}-{version}-{release}.{arch}.rpm</filename></package>"
            )
            .unwrap();
        }
        text.push_str("</collection></pkglist></update>");
    }
    text.push_str("</updates>\n");
    text
}
