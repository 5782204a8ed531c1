//! What there is to install on a host, by its package managers' own resolvers, without network and locks; and what rpm's
//! database has, which only rpm can read.
//!
//! A package manager takes far more memory than the agent. So this is the program of a unit of its own, which a
//! connection to a socket starts. Whoever connects says names of [`NAMES`], and nothing else is taken from there; the
//! answer to each is a file, `<name>.json` in the unit's runtime directory, which `collect/updates.rs` and
//! `collect/packages.rs` read. Called by `infratrack-agent check-updates`.

pub mod apk;
pub mod apt;
pub mod dnf;
pub mod rpm;
mod tool;
pub mod zypper;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use infratrack_shared::wire::packages::{Manager, PendingUpdate, UpdateCheck};
use serde::{Deserialize, Serialize};
pub use tool::Host;

/// What starts the unit, below the root.
pub const SOCKET: &str = "run/infratrack-updates.sock";
/// Where its answers are, below the root.
pub const RESULTS: &str = "run/infratrack-updates";
/// What can be asked: a package manager for updates, and `rpm` for what is installed.
pub const NAMES: &[&str] = &["apk", "apt", "dnf", "flatpak", "rpm", "snap", "zypper"];
/// Updates that are told of one package manager at most.
pub const MOST: usize = 20_000;

/// All names together are shorter.
const NAMES_BYTES: u64 = 64;
const NAMES_LIMIT: Duration = Duration::from_secs(5);
const WARNINGS: usize = 20;
const TEXT_BYTES: usize = 300;

/// Why something is not known, in words for whoever looks at the host.
type Reason = String;

/// What there is to install, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub check: UpdateCheck,
    pub pending: Vec<PendingUpdate>,
}

/// What a package manager has told, before it is cut to what can be kept.
#[derive(Default)]
struct Told {
    pending: Vec<PendingUpdate>,
    metadata_at_s: Option<u64>,
    warnings: Vec<String>,
}

impl Answer {
    fn new(manager: Manager, tool: &str, told: Result<Told, Reason>) -> Self {
        let mut check = UpdateCheck {
            manager,
            tool: tool.to_owned(),
            ..UpdateCheck::default()
        };
        let mut told = told.unwrap_or_else(|reason| {
            check.unknown = Some(cut(&reason));
            Told::default()
        });
        // Where not all can be told, what mends a vulnerability is.
        told.pending
            .sort_by(|a, b| (a.security != Some(true), a).cmp(&(b.security != Some(true), b)));
        if told.pending.len() > MOST {
            let more = told.pending.len() - MOST;
            told.warnings.insert(0, format!("{more} more are not told"));
            told.pending.truncate(MOST);
        }
        told.pending.sort_unstable();
        check.metadata_at_s = told.metadata_at_s;
        let mut warnings: Vec<_> = told.warnings.iter().map(|text| cut(text)).collect();
        warnings.dedup();
        warnings.truncate(WARNINGS);
        check.warnings = warnings;
        Self {
            check,
            pending: told.pending,
        }
    }
}

/// A text of one line, without what is no text, cut where it is too long.
fn cut(text: &str) -> String {
    let mut text = text.trim().replace('\0', "\u{fffd}").replace('\n', " ");
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

/// Reads names from the connection at standard input and leaves an answer to each in `$RUNTIME_DIRECTORY`.
pub fn main() -> anyhow::Result<()> {
    let names = asked()?;
    for name in names.split_ascii_whitespace() {
        ensure!(
            NAMES.contains(&name),
            "no package manager of this name is known: {name:?}"
        );
    }
    let results = std::env::var_os("RUNTIME_DIRECTORY").context("RUNTIME_DIRECTORY is not set")?;
    let results = PathBuf::from(results);
    let host = Host::here(std::env::temp_dir());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for name in names.split_ascii_whitespace() {
        let file = Unanswered::new(&results, name)?;
        file.store(&runtime.block_on(answer(&host, name))?)?;
    }
    Ok(())
}

fn asked() -> anyhow::Result<String> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream
        .set_read_timeout(Some(NAMES_LIMIT))
        .context("standard input is not a connection")?;
    let mut names = String::new();
    stream.take(NAMES_BYTES).read_to_string(&mut names)?;
    Ok(names)
}

/// The answer to one of [`NAMES`], as it is stored.
pub async fn answer(host: &Host, name: &str) -> anyhow::Result<Vec<u8>> {
    let answer = match name {
        "apk" => apk::check(host).await,
        "apt" => apt::check(host).await,
        "dnf" => dnf::check(host).await,
        "rpm" => return Ok(serde_json::to_vec(&rpm::installed(host).await)?),
        "zypper" => zypper::check(host).await,
        "flatpak" => by_network(Manager::Flatpak, "flatpak"),
        _ => by_network(Manager::Snap, "snap"),
    };
    Ok(serde_json::to_vec(&answer)?)
}

/// Of one that keeps no lists on the host.
fn by_network(manager: Manager, tool: &str) -> Answer {
    let reason = format!("{tool} asks its servers anew each time, and no network is used here");
    Answer::new(manager, tool, Err(reason))
}

/// The file of an answer that is being worked out. It bears the time of the question: what changes meanwhile may not
/// be in the answer, and is newer than it.
struct Unanswered {
    path: PathBuf,
    beside: PathBuf,
    asked_at: std::time::SystemTime,
}

impl Unanswered {
    fn new(results: &Path, name: &str) -> anyhow::Result<Self> {
        let path = results.join(format!("{name}.json"));
        let beside = path.with_extension("new");
        let asked_at = File::create(&beside)
            .and_then(|file| file.metadata()?.modified())
            .with_context(|| beside.display().to_string())?;
        Ok(Self {
            path,
            beside,
            asked_at,
        })
    }

    /// Beside it first, so that a reader sees the one before or this.
    fn store(self, answer: &[u8]) -> anyhow::Result<()> {
        fs::write(&self.beside, answer)
            .and_then(|()| File::options().write(true).open(&self.beside))
            .and_then(|file| file.set_modified(self.asked_at))
            .with_context(|| self.beside.display().to_string())?;
        fs::rename(&self.beside, &self.path).with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_updates_those_for_security_are_told() {
        let update = |index: usize| PendingUpdate {
            name: format!("p{index:05}"),
            security: Some(index == MOST + 1),
            ..PendingUpdate::default()
        };
        let told = Told {
            pending: (0..MOST + 2).map(update).collect(),
            ..Told::default()
        };
        let answer = Answer::new(Manager::Dpkg, "apt", Ok(told));
        assert_eq!(answer.pending.len(), MOST);
        assert_eq!(answer.check.warnings, ["2 more are not told"]);
        assert_eq!(answer.pending[MOST - 1].security, Some(true));
    }

    #[test]
    fn an_answer_is_as_old_as_its_question() {
        let results = tempfile::tempdir().unwrap();
        let asked = Unanswered::new(results.path(), "apt").unwrap();
        let asked_at = asked.asked_at;
        asked.store(b"{}").unwrap();
        let stored = results.path().join("apt.json").metadata().unwrap();
        assert_eq!((stored.modified().unwrap(), stored.len()), (asked_at, 2));
        assert_eq!(fs::read_dir(results.path()).unwrap().count(), 1);
    }
}
