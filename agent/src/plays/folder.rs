//! The folder that callbacks leave plays in, and what of it is taken: files of those who may write there, and no links, pipes
//! or anything else. What is passed over is told once.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use infratrack_shared::time::UnixMillis;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use uuid::Uuid;

use super::lock;

/// A play stops writing there, and writes how it ended.
const FILE_BYTES: u64 = 257 * 1024 * 1024;
/// How long a run that was set aside is there for whoever wonders.
const DAMAGED_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Entries that are looked at: the rest comes when these are gone.
const ENTRIES: usize = 10_000;
/// In a mode: what is made in a folder gets its group.
const SET_GROUP_ID: u32 = 0o2000;
const WRITABLE_BY_ALL: u32 = 0o002;

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// In a set-group-id folder: the group whose members write there.
    group: Option<u32>,
    /// By the file's name; empty for the folder itself.
    passed_over: BTreeMap<String, String>,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            group: None,
            passed_over: BTreeMap::new(),
        }
    }

    /// Whether what is made here is for a group too.
    pub(super) fn is_shared(&self) -> bool {
        self.group.is_some()
    }

    pub(super) fn file(&self, run: &str, extension: &str) -> PathBuf {
        self.path.join(format!("{run}.{extension}"))
    }

    /// The runs that are here, the oldest first; none where there is no folder that can be used. What was set aside long ago
    /// goes.
    pub(super) fn runs(&mut self, now: UnixMillis) -> Option<Vec<String>> {
        match self.look(now) {
            Ok(runs) => {
                let is_here = |name: &String| runs.iter().any(|(_, run)| run == name);
                self.passed_over.retain(|name, _| is_here(name));
                Some(runs.into_iter().map(|(_, run)| run).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.pass_over("", &error.to_string());
                None
            }
        }
    }

    fn look(&mut self, now: UnixMillis) -> io::Result<Vec<((i64, i64), String)>> {
        let found = fs::symlink_metadata(&self.path)?;
        if !found.is_dir() {
            return Err(io::Error::other("is no directory"));
        }
        if ![0, geteuid().as_raw()].contains(&found.uid()) {
            return Err(io::Error::other("is neither root's nor the agent's"));
        }
        if found.mode() & WRITABLE_BY_ALL != 0 {
            return Err(io::Error::other("can be written by everybody"));
        }
        let is_shared = found.mode() & SET_GROUP_ID != 0;
        self.group = is_shared.then_some(found.gid());
        let mut runs = Vec::new();
        for entry in fs::read_dir(&self.path)?.take(ENTRIES) {
            let entry = entry?;
            let name = entry.file_name();
            // What is gone since is gone.
            let (Some(name), Ok(found)) = (name.to_str(), entry.metadata()) else {
                continue;
            };
            if let Some(run) = name.strip_suffix(".spool") {
                runs.push(((found.mtime(), found.mtime_nsec()), run.to_owned()));
            } else if is_damaged(name) && is_old(&found, now) {
                self.remove_damaged(name);
            }
        }
        runs.sort_unstable();
        Ok(runs)
    }

    fn remove_damaged(&self, name: &str) {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed a play that was set aside"),
            // It costs nothing but its room, and is tried again.
            Err(error) => tracing::debug!(%error, path = %path.display(), "cannot remove"),
        }
    }

    /// The run's file, if it is one that is shipped.
    pub(super) fn open(&mut self, run: &str) -> Option<File> {
        let opened = self.opened(run);
        match opened {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.pass_over(run, &error.to_string());
                None
            }
        }
    }

    fn opened(&self, run: &str) -> io::Result<File> {
        if !is_run(run) {
            return Err(io::Error::other("is not named by a run"));
        }
        // A pipe is not waited for.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .custom_flags(flags.bits())
            .open(self.file(run, "spool"))?;
        let found = file.metadata()?;
        match self.objection(&found) {
            None => Ok(file),
            Some(why) => Err(io::Error::other(why)),
        }
    }

    fn objection(&self, found: &Metadata) -> Option<&'static str> {
        let is_ours = [0, geteuid().as_raw()].contains(&found.uid());
        if !found.is_file() {
            Some("is no file")
        } else if found.nlink() > 1 {
            Some("has another name too")
        } else if !is_ours && self.group != Some(found.gid()) {
            Some("is of somebody who has no business here")
        } else if found.len() > FILE_BYTES {
            Some("is larger than a play's spool gets")
        } else {
            None
        }
    }

    /// Says once why a run, or the folder, is left alone.
    pub(super) fn pass_over(&mut self, run: &str, why: &str) {
        if self.passed_over.get(run).is_some_and(|told| told == why) {
            return;
        }
        let folder = self.path.display();
        tracing::warn!(%folder, run, why, "a play's spool is passed over");
        self.passed_over.insert(run.to_owned(), why.to_owned());
    }

    /// The lock of the one who ships from here, or who shortens runs; none where somebody else has it.
    pub(super) fn lock(&mut self, now: UnixMillis) -> Option<File> {
        let taken = self.lock_file().and_then(|file| {
            let is_ours = lock::take(&file, now)?;
            Ok(is_ours.then_some(file))
        });
        match taken {
            Ok(file) => file,
            Err(error) => {
                self.pass_over("", &error.to_string());
                None
            }
        }
    }

    fn lock_file(&self) -> io::Result<File> {
        let name = match self.group {
            Some(_) => "forwarder.lock".to_owned(),
            None => format!("forwarder-{}.lock", geteuid()),
        };
        let mode = if self.is_shared() { 0o660 } else { 0o600 };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(self.path.join(name))?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("its lock is no file"));
        }
        if found.mode() & 0o777 != mode && found.uid() == geteuid().as_raw() {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(file)
    }
}

/// Whether it is a run's, and no other file of somebody's.
fn is_damaged(name: &str) -> bool {
    let run = name.strip_suffix(".damaged");
    run.is_some_and(is_run)
}

fn is_run(name: &str) -> bool {
    Uuid::parse_str(name).is_ok_and(|id| id.to_string() == name)
}

/// By when it was renamed: the play itself may have been old by then.
fn is_old(found: &Metadata, now: UnixMillis) -> bool {
    let set_aside = UnixMillis(found.ctime().saturating_mul(1000));
    let kept_ms = i64::try_from(DAMAGED_KEPT.as_millis()).unwrap_or(i64::MAX);
    found.is_file() && now.millis_since(set_aside) > kept_ms
}
