//! The signed repository, laid out by its script and served in the hub: apt installs and upgrades from it, dnf does
//! in a root of its own, and both refuse what was changed after it was signed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use infratrack_testkit::rig::said;

use crate::control::{Control, eventually, repository};

const PORT: &str = "8000";

/// A repository with a key of its own, served until this is dropped.
pub(crate) struct Repository {
    dir: tempfile::TempDir,
    server: Child,
    url: String,
}

impl Repository {
    pub(crate) fn serve(control: &Control<'_>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let home = dir.path().join("gnupg");
        fs::create_dir(&home)?;
        said(Command::new("chmod").arg("700").arg(&home))?;
        let key = "Packages of a test";
        let make = [
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--quick-generate-key",
            key,
        ];
        said(
            Command::new("gpg")
                .env("GNUPGHOME", &home)
                .args(make)
                .args(["rsa3072", "sign", "never"]),
        )?;
        let served = dir.path().join("served");
        said(
            Command::new(repository().join("packaging/tools/repository.sh"))
                .env("GNUPGHOME", &home)
                .arg(&served)
                .arg(key),
        )?;
        said(
            Command::new("gpgconf")
                .env("GNUPGHOME", &home)
                .args(["--kill", "all"]),
        )?;
        let address = control.rig.hub_address();
        let mut server = control.rig.hub("python3");
        server.args(["-m", "http.server", PORT, "--bind", &address, "--directory"]);
        let server = server
            .arg(&served)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let url = format!("http://{address}:{PORT}");
        let repository = Self { dir, server, url };
        let ready = format!(
            "python3 -c 'import urllib.request as r; r.urlopen(\"{}/infratrack.asc\")'",
            repository.url
        );
        eventually(Duration::from_secs(10), || control.run(&ready).map(drop))?;
        Ok(repository)
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("served").join(below)
    }

    /// Where hosts find what is below it.
    pub(crate) fn url(&self, below: &str) -> String {
        format!("{}/{below}", self.url)
    }

    /// What a playbook has to be told to install from it.
    pub(crate) fn variables(&self) -> String {
        format!(
            "-e agent_source=repository -e infratrack_repository_url={} -e infratrack_repository_key={}",
            self.url,
            self.path("infratrack.asc").display()
        )
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // A process that is gone already is what is wanted.
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// apt on a host takes nothing from lists that were changed.
pub(crate) fn apt_refuses_changes(
    control: &Control<'_>,
    repository: &Repository,
    host: &str,
) -> anyhow::Result<()> {
    let list = repository.path("apt/dists/stable/InRelease");
    let whole = fs::read_to_string(&list)?;
    fs::write(
        &list,
        whole.replace("Origin: Infratrack", "Origin: Somebody"),
    )?;
    let update = ["apt-get", "update", "--error-on=any"];
    let refused = control.rig.try_exec(host, &update)?;
    fs::write(&list, whole)?;
    ensure!(!refused.status.success(), "changed lists were taken");
    let why = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        why.contains("signature"),
        "refused for another reason: {why}"
    );
    control.rig.exec(host, &update).map(drop)
}

/// A root with a Debian userland, in which dnf installs; unmounted when this is dropped.
struct Root {
    dir: tempfile::TempDir,
}

impl Root {
    fn mount(image: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        for name in ["upper", "work", "root", "home", "repos"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let layers = format!(
            "lowerdir={},upperdir={dir}/upper,workdir={dir}/work",
            image.display(),
            dir = dir.path().display()
        );
        let root = Self { dir };
        said(
            Command::new("mount")
                .args(["-t", "overlay", "rpm-root", "-o", &layers])
                .arg(root.path()),
        )?;
        said(
            Command::new("mount")
                .args(["-t", "proc", "proc"])
                .arg(root.path().join("proc")),
        )?;
        // Debian's rpm would keep its database in the home of whoever calls it.
        fs::write(root.home().join(".rpmmacros"), "%_dbpath /var/lib/rpm\n")?;
        fs::write(root.dir.path().join("dnf.conf"), "[main]\n")?;
        Ok(root)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn inside(&self, program: &[&str]) -> anyhow::Result<String> {
        said(Command::new("chroot").arg(self.path()).args(program))
    }

    fn rpm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        said(
            Command::new("rpm")
                .env("HOME", self.home())
                .arg("--root")
                .arg(self.path())
                .args(arguments),
        )
    }

    fn dnf(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let set = |name: &str, path: &str| {
            format!("--setopt={name}={}", self.dir.path().join(path).display())
        };
        let mut dnf = Command::new("dnf");
        dnf.env("HOME", self.home())
            .arg("--installroot")
            .arg(self.path());
        dnf.args([set("reposdir", "repos"), set("cachedir", "cache")]);
        dnf.args(["-y", "--quiet", "--releasever=9", "--config"]);
        dnf.arg(self.dir.path().join("dnf.conf"));
        said(dnf.args(arguments))
    }

    /// A package that provides what the others need: the userland is there, but no rpm has brought it.
    fn provide(&self, packages: &[PathBuf]) -> anyhow::Result<()> {
        let mut needs = String::new();
        for package in packages {
            needs += &said(Command::new("rpm").args(["-qp", "--requires"]).arg(package))?;
        }
        let provides = needs
            .lines()
            .filter_map(|need| need.split_whitespace().next());
        let provides: Vec<_> = provides
            .filter(|need| !need.starts_with("rpmlib("))
            .map(|need| format!("Provides: {need}\n"))
            .collect();
        let spec = format!(
            "Name: userland\nVersion: 1\nRelease: 1\nSummary: What is there\nLicense: none\nBuildArch: noarch\n{}\
             %description\nWhat is there.\n%files\n",
            provides.concat()
        );
        let top = self.dir.path().join("rpmbuild");
        let spec_file = self.dir.path().join("userland.spec");
        fs::write(&spec_file, spec)?;
        let define = format!("_topdir {}", top.display());
        said(
            Command::new("rpmbuild")
                .args(["--quiet", "-bb", "--define", &define])
                .arg(&spec_file),
        )?;
        let built = top.join("RPMS/noarch/userland-1-1.noarch.rpm");
        let built = built.to_str().context("a path that is no text")?;
        self.rpm(&["-i", built]).map(drop)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Without it the directory can't be removed, which then says so.
        for mounted in [self.path().join("proc"), self.path()] {
            Command::new("umount").arg(mounted).status().ok();
        }
    }
}

/// dnf installs agent and collector, upgrades, goes back and removes them; only what is signed.
pub(crate) fn dnf_takes_what_is_signed(
    control: &Control<'_>,
    repository: &Repository,
) -> anyhow::Result<()> {
    let root = Root::mount(control.rig.image())?;
    let packages: Vec<_> = fs::read_dir(repository.path("rpm"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "rpm"))
        .collect();
    ensure!(
        packages.len() == 4,
        "two packages in two versions: {packages:?}"
    );
    root.provide(&packages)?;
    let repo = format!(
        "[infratrack]\nname=Infratrack\nbaseurl=file://{served}/rpm\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\n\
         gpgkey=file://{served}/infratrack.asc\n",
        served = repository.path("").display()
    );
    fs::write(root.dir.path().join("repos/infratrack.repo"), repo)?;
    root.dnf(&[
        "install",
        "infratrack-agent-0.1.0",
        "infratrack-collector-0.1.0",
    ])?;
    let users = root.inside(&["getent", "passwd", "infratrack", "infratrack-collector"])?;
    ensure!(users.lines().count() == 2, "users: {users}");
    let owner = root.inside(&["stat", "-c", "%U %a", "/var/lib/infratrack-agent"])?;
    ensure!(owner.trim() == "infratrack 700", "its state is {owner}");
    let plays = root.inside(&["stat", "-c", "%U %G %a", "/var/spool/infratrack/ansible"])?;
    ensure!(plays.trim() == "root infratrack 2770", "plays: {plays}");
    root.rpm(&["-V", "infratrack-agent", "infratrack-collector"])?;
    let enabled = root
        .path()
        .join("etc/systemd/system/multi-user.target.wants/infratrack-agent.service");
    ensure!(!enabled.exists(), "started without being asked to");

    let config = root.path().join("etc/infratrack/agent.toml");
    let edited = fs::read_to_string(&config)? + "# edited\n";
    fs::write(&config, &edited)?;
    for (words, version) in [
        (["upgrade", "infratrack-agent"], "0.1.1"),
        (["downgrade", "infratrack-agent"], "0.1.0"),
    ] {
        root.dnf(&words)?;
        let installed = root.rpm(&["-q", "--qf", "%{VERSION}", "infratrack-agent"])?;
        ensure!(installed == version, "after {words:?} there is {installed}");
        ensure!(
            fs::read_to_string(&config)? == edited,
            "the configuration was replaced"
        );
    }
    changed_is_refused(&root, repository)?;
    root.dnf(&["remove", "infratrack-agent", "infratrack-collector"])?;
    for gone in [
        "usr/bin/infratrack-agent",
        "usr/lib/systemd/system/infratrack-agent.service",
    ] {
        ensure!(!root.path().join(gone).exists(), "{gone} is left");
    }
    ensure!(
        root.path().join("var/lib/infratrack-agent").exists(),
        "state is removed with rpm, which knows no purge"
    );
    Ok(())
}

fn changed_is_refused(root: &Root, repository: &Repository) -> anyhow::Result<()> {
    let list = repository.path("rpm/repodata/repomd.xml");
    let whole = fs::read_to_string(&list)?;
    fs::write(&list, whole.replace("<revision>", "<revision>1"))?;
    let refused = root.dnf(&["makecache", "--refresh"]);
    fs::write(&list, whole)?;
    ensure!(refused.is_err(), "a changed repository was taken");
    root.dnf(&["makecache", "--refresh"]).map(drop)
}
