//! Which packages the host's package manager would upgrade, by its own resolver, without network and locks.
//!
//! A package manager takes far more memory than the agent. So this is the program of a unit of its own, which a
//! connection to a socket starts. Whoever connects says a package manager's name, and nothing else is taken
//! from there; the answer is a file, `<name>.json` in the unit's runtime directory, which the agent reads as
//! the fact `updates`. Called by `infratrack-agent check-updates`.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::timeout;

/// The only package manager so far.
pub const APT: &str = "apt";
/// What starts the unit, below the root.
pub const SOCKET: &str = "run/infratrack-updates.sock";
/// Where its answers are, below the root.
pub const RESULTS: &str = "run/infratrack-updates";

const APT_GET: &str = "/usr/bin/apt-get";
const LISTS: &str = "/var/lib/apt/lists";
/// Names are short; more is not read.
const NAME_BYTES: u64 = 16;
const NAME_LIMIT: Duration = Duration::from_secs(5);
/// A resolver that takes longer is as good as hung.
const APT_LIMIT: Duration = Duration::from_secs(90);
/// More lines than any host has packages.
const OUTPUT_BYTES: usize = 4 * 1024 * 1024;
/// The most updates told by name.
const PACKAGES: usize = 500;

/// What there is to install, or why that is not known.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Updates {
    manager: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
    /// When the newest of the lists that were asked was brought, Unix time in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    lists_at_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    security: Option<usize>,
    /// By name, at most 500, security first.
    packages: Vec<Update>,
}

/// An installed package that would be upgraded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Update {
    name: String,
    installed: String,
    candidate: String,
    security: bool,
}

/// Reads a name from the connection at standard input and leaves the answer in `$RUNTIME_DIRECTORY`.
pub fn main() -> anyhow::Result<()> {
    let name = asked()?;
    ensure!(
        name == APT,
        "no package manager of this name is known: {name:?}"
    );
    let results = std::env::var_os("RUNTIME_DIRECTORY").context("RUNTIME_DIRECTORY is not set")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let updates = runtime.block_on(apt());
    store(&PathBuf::from(results), &updates)
}

fn asked() -> anyhow::Result<String> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream
        .set_read_timeout(Some(NAME_LIMIT))
        .context("standard input is not a connection")?;
    let mut name = String::new();
    stream.take(NAME_BYTES).read_to_string(&mut name)?;
    Ok(name.trim_end().to_owned())
}

async fn apt() -> Updates {
    let unknown = |reason: anyhow::Error| Updates {
        manager: APT,
        unknown: Some(format!("{reason:#}")),
        lists_at_s: None,
        pending: None,
        security: None,
        packages: Vec::new(),
    };
    let asked = async {
        let lists_at = newest_list(Path::new(LISTS))?;
        let text = simulate().await?;
        anyhow::Ok((lists_at, parse(&text)))
    };
    match asked.await {
        Ok((lists_at, packages)) => told(lists_at, packages),
        Err(reason) => unknown(reason),
    }
}

fn told(lists_at: SystemTime, mut packages: Vec<Update>) -> Updates {
    packages.sort_by(|a, b| (!a.security, &a.name).cmp(&(!b.security, &b.name)));
    let pending = packages.len();
    let security = packages.iter().filter(|update| update.security).count();
    packages.truncate(PACKAGES);
    let since = lists_at.duration_since(SystemTime::UNIX_EPOCH);
    Updates {
        manager: APT,
        unknown: None,
        lists_at_s: since.ok().map(|since| since.as_secs()),
        pending: Some(pending),
        security: Some(security),
        packages,
    }
}

/// Without lists apt says that there is nothing to do, which nobody knows then.
fn newest_list(lists: &Path) -> anyhow::Result<SystemTime> {
    let entries = fs::read_dir(lists).with_context(|| lists.display().to_string())?;
    let is_list = |name: &str| name.ends_with("_InRelease") || name.ends_with("_Release");
    let times = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_list))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok());
    times
        .max()
        .context("no package lists: apt-get update has not run")
}

/// What apt would do (apt-get(8), `--simulate`), in words that no locale changes.
async fn simulate() -> anyhow::Result<String> {
    let child = Command::new(APT_GET)
        .args(["--simulate", "--quiet=2"])
        .args(["--option", "Debug::NoLocking=true"])
        .args(["--option", "APT::Get::Show-User-Simulation-Note=false"])
        .arg("dist-upgrade")
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(APT_GET)?;
    let output = timeout(APT_LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("apt-get did not end within {} s", APT_LIMIT.as_secs()))??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "apt-get: {}",
            said.lines().next().unwrap_or("failed").trim()
        );
    }
    ensure!(output.stdout.len() <= OUTPUT_BYTES, "apt-get said too much");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The lines `Inst NAME [INSTALLED] (CANDIDATE ORIGIN:VERSION/SUITE, … [ARCH])`; one without an installed
/// version is a new package, no update.
fn parse(text: &str) -> Vec<Update> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Update> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let (installed, rest) = rest.strip_prefix('[')?.split_once("] (")?;
    let (candidate, rest) = rest.split_once(' ')?;
    let (origins, _) = rest.split_once(" [")?;
    Some(Update {
        name: name.to_owned(),
        installed: installed.to_owned(),
        candidate: candidate.to_owned(),
        security: origins.split(", ").any(is_security),
    })
}

/// Debian's archive of fixes, and suites named for them: Ubuntu's pockets, ESM's too.
fn is_security(origin: &str) -> bool {
    let (archive, suite) = origin.split_once('/').unwrap_or((origin, ""));
    archive.starts_with("Debian-Security:") || suite.ends_with("-security")
}

/// Beside it first, so that a reader sees the one before or this.
fn store(results: &Path, updates: &Updates) -> anyhow::Result<()> {
    let path = results.join(format!("{}.json", updates.manager));
    let beside = path.with_extension("new");
    fs::write(&beside, serde_json::to_vec(updates)?)
        .with_context(|| beside.display().to_string())?;
    fs::rename(&beside, &path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_apt_are_updates_and_security_is_told_by_origin_or_suite() {
        let text = "\
Inst libc6 [2.36-9+deb12u4] (2.36-9+deb12u9 Debian:12.8/stable [amd64])
Inst openssl [3.0.11-1] (3.0.15-1 Debian:12.8/stable, Debian-Security:12/stable-security [amd64]) [libssl3:amd64 ]
Inst linux-image-6.1.0-28-amd64 (6.1.119-1 Debian-Security:12/stable-security [amd64])
Inst curl [7.81.0-1ubuntu1.14] (7.81.0-1ubuntu1.18 Ubuntu:22.04/jammy-updates, Ubuntu:22.04/jammy-security [amd64])
Inst tool [1:1.0] (1:1.1 packages.example [all])
Conf libc6 (2.36-9+deb12u9 Debian:12.8/stable [amd64])
Remv old [1.0]
Inst broken [
";
        let told: Vec<_> = parse(text)
            .into_iter()
            .map(|update| (update.name, update.candidate, update.security))
            .collect();
        let expected = [
            ("libc6", "2.36-9+deb12u9", false),
            ("openssl", "3.0.15-1", true),
            ("curl", "7.81.0-1ubuntu1.18", true),
            ("tool", "1:1.1", false),
        ];
        let expected = expected.map(|(name, to, security)| (name.into(), to.into(), security));
        assert_eq!(told, expected);
    }

    #[test]
    fn many_updates_are_counted_whole_and_told_by_name_security_first() {
        let update = |index: usize| Update {
            name: format!("p{index:04}"),
            installed: "1".to_owned(),
            candidate: "2".to_owned(),
            security: index == 999,
        };
        let updates = told(SystemTime::UNIX_EPOCH, (0..1000).map(update).collect());
        assert_eq!((updates.pending, updates.security), (Some(1000), Some(1)));
        assert_eq!(updates.packages.len(), PACKAGES);
        assert_eq!(updates.packages[0].name, "p0999");
    }

    #[test]
    fn without_lists_nobody_knows() {
        let dir = tempfile::tempdir().unwrap();
        let error = newest_list(dir.path()).unwrap_err();
        assert!(error.to_string().starts_with("no package lists"), "{error}");
        fs::write(dir.path().join("deb.example_dists_stable_InRelease"), "").unwrap();
        newest_list(dir.path()).unwrap();
    }
}
