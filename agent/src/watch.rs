//! Which of the host's files about packages changed: the logs of package managers, their databases, or what updates are
//! computed from.
//!
//! The kernel tells (inotify); where it can't, because its limits are reached or the files are on a network, everything counts as
//! changed once a minute. What changes within a second is told once. Directories are watched for what comes and goes in
//! them, and only the logs themselves for what is written, so that other programs' logs wake nobody.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::collect::Root;

/// What comes within it is one change.
const GATHER: Duration = Duration::from_millis(500);
/// Directories that were not there are looked for again, and without inotify everything counts as changed.
const POLL: Duration = Duration::from_secs(60);

/// What may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// What package managers write down of what they do.
    Logs,
    /// What is installed.
    Databases,
    /// Sources of packages, and the lists that were brought from there.
    UpdateInputs,
}

const AREAS: [Area; 3] = [Area::Logs, Area::Databases, Area::UpdateInputs];

/// Directories, and of those with others' files in them, the names that count.
const DIRECTORIES: &[(Area, &str, &[&str])] = &[
    (
        Area::Logs,
        "var/log",
        &["dpkg.log", "dnf.log", "dnf.rpm.log", "dnf5.log"],
    ),
    (Area::Logs, "var/log/apt", &["history.log"]),
    (Area::Logs, "var/log/zypp", &["history"]),
    (Area::Databases, "var/lib/dpkg", &["status"]),
    (Area::Databases, "var/lib/dpkg/status.d", &[]),
    (Area::Databases, "var/lib/rpm", &[]),
    (Area::Databases, "usr/lib/sysimage/rpm", &[]),
    (Area::Databases, "lib/apk/db", &["installed"]),
    (Area::Databases, "usr/lib/apk/db", &["installed"]),
    // What the unit answers that asks package managers.
    (Area::UpdateInputs, "run/infratrack-updates", &[]),
    (Area::UpdateInputs, "var/lib/apt/lists", &[]),
    (Area::UpdateInputs, "etc/apt", &[]),
    (Area::UpdateInputs, "etc/apt/sources.list.d", &[]),
    (Area::UpdateInputs, "etc/apt/preferences.d", &[]),
    (Area::UpdateInputs, "etc/yum.repos.d", &[]),
    (Area::UpdateInputs, "etc/dnf", &[]),
    (Area::UpdateInputs, "var/cache/dnf", &[]),
    (Area::UpdateInputs, "etc/zypp/repos.d", &[]),
    (Area::UpdateInputs, "etc/apk", &[]),
    (Area::UpdateInputs, "var/cache/apk", &[]),
];
/// Taken and given back by whoever only looks.
const LOCKS: [&str; 5] = ["lock", "-lock", "lock-frontend", "-shm", "-wal"];

/// Tells changes. Ends its task when it is dropped.
#[derive(Debug)]
pub struct Watch {
    changes: BTreeMap<Area, watch::Receiver<u64>>,
    task: JoinHandle<()>,
}

/// The changes of one area, for one who waits for them.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<u64>);

impl Watch {
    /// Watches below `root`, from a task of its own.
    pub fn start(root: &Root) -> Self {
        let (mut counts, mut changes) = (Counts::default(), BTreeMap::new());
        for area in AREAS {
            let (count, receiver) = watch::channel(0);
            counts.0.insert(area, count);
            changes.insert(area, receiver);
        }
        let base = root.path("");
        let task = tokio::spawn(async move {
            if let Err(error) = told_by_kernel(base, &counts).await {
                tracing::warn!(%error, "files about packages are looked at every minute");
            }
            loop {
                sleep(POLL).await;
                counts.all_changed();
            }
        });
        Self { changes, task }
    }

    /// The changes of an area from here on.
    pub fn of(&self, area: Area) -> Changes {
        let changes = self.changes.get(&area);
        Changes(changes.expect("every area has a count").clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Changes {
    /// Waits for a change since the one before. It may be given up and asked again; nothing is missed.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody watches any more: the agent is stopping.
            std::future::pending::<()>().await;
        }
    }
}

/// Tells that something has come into one directory.
#[derive(Debug)]
pub struct Arrivals(AsyncFd<Kernel>);

impl Arrivals {
    /// From here on.
    pub fn of(directory: &Path) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let comes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(directory, comes)?;
        Ok(Self(registered(Kernel(inotify))?))
    }

    /// Waits for it. It may be given up and asked again; nothing is missed. An error where the directory is gone.
    pub async fn next(&mut self) -> std::io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut is_gone = false;
        loop {
            match ready.get_inner().0.read_events() {
                Ok(events) => {
                    let gone = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF;
                    is_gone |= events.iter().any(|event| event.mask.intersects(gone));
                }
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        if is_gone {
            return Err(Errno::ENOENT.into());
        }
        Ok(())
    }
}

#[derive(Default)]
struct Counts(BTreeMap<Area, watch::Sender<u64>>);

impl Counts {
    fn all_changed(&self) {
        for area in AREAS {
            self.changed(area);
        }
    }

    fn changed(&self, area: Area) {
        if let Some(count) = self.0.get(&area) {
            count.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// inotify as tokio waits for it.
#[derive(Debug)]
struct Kernel(Inotify);

impl AsRawFd for Kernel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(
    deprecated,
    reason = "what is to take its place is unsafe, because a type's descriptor may change; that of `Kernel` never does"
)]
fn registered(kernel: Kernel) -> std::io::Result<AsyncFd<Kernel>> {
    AsyncFd::new(kernel)
}

/// Ends only with an error.
async fn told_by_kernel(base: PathBuf, counts: &Counts) -> std::io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let kernel = registered(Kernel(inotify))?;
    let mut watched = Watched {
        base,
        places: BTreeMap::new(),
    };
    watched.add_all(&kernel.get_ref().0)?;
    // What changed before it was watched.
    counts.all_changed();
    loop {
        let readable = tokio::time::timeout(POLL, kernel.readable()).await;
        if let Ok(ready) = readable {
            let mut ready = ready?;
            sleep(GATHER).await;
            let mut is_any = false;
            let mut areas = Vec::new();
            // At most what the kernel keeps, which is bounded.
            loop {
                match ready.get_inner().0.read_events() {
                    Ok(events) => {
                        is_any = true;
                        let told = events.iter().map(|event| watched.areas(event));
                        areas.extend(told.flatten());
                        areas.sort_unstable();
                        areas.dedup();
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            for area in areas {
                counts.changed(area);
            }
            if !is_any {
                continue;
            }
        }
        // Directories that have come since, and logs that have taken the place of rotated ones.
        if watched.add_all(&kernel.get_ref().0)? {
            counts.all_changed();
        }
    }
}

/// What is watched, by what the kernel calls it.
struct Watched {
    base: PathBuf,
    places: BTreeMap<PathBuf, (WatchDescriptor, Area, &'static [&'static str])>,
}

impl Watched {
    /// Watches what is there and is not watched yet. Answers whether there was any.
    fn add_all(&mut self, inotify: &Inotify) -> nix::Result<bool> {
        let comes_and_goes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        let mut is_any = false;
        for (area, directory, names) in DIRECTORIES {
            let place = self.base.join(directory);
            let mut flags = comes_and_goes;
            if *area != Area::Logs {
                // rpm writes into its database where it is.
                flags |= AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY;
            }
            is_any |= self.add(inotify, place.clone(), flags, *area, names)?;
            if *area == Area::Logs {
                for name in *names {
                    let written = AddWatchFlags::IN_MODIFY;
                    is_any |= self.add(inotify, place.join(name), written, *area, &[])?;
                }
            }
        }
        Ok(is_any)
    }

    fn add(
        &mut self,
        inotify: &Inotify,
        place: PathBuf,
        flags: AddWatchFlags,
        area: Area,
        names: &'static [&'static str],
    ) -> nix::Result<bool> {
        let added = match inotify.add_watch(&place, flags) {
            Ok(added) => added,
            // No more watches: all of it is polled.
            Err(error @ (Errno::ENOSPC | Errno::ENOMEM)) => return Err(error),
            Err(_) => {
                self.places.remove(&place);
                return Ok(false);
            }
        };
        let before = self.places.insert(place, (added, area, names));
        let is_other = |before: &(WatchDescriptor, _, _)| before.0 != added;
        if let Some((before, ..)) = before.filter(is_other) {
            // The file that was rotated away; gone already where it was deleted.
            let _ = inotify.rm_watch(before);
            return Ok(true);
        }
        Ok(before.is_none())
    }

    /// The areas that an event is of.
    fn areas(&self, event: &InotifyEvent) -> Vec<Area> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return AREAS.into();
        }
        let places = self.places.values();
        let its = places.filter(|(place, _, names)| {
            let name = event.name.as_deref().and_then(OsStr::to_str);
            let is_counted = |name: &str| {
                let is_lock =
                    name.starts_with("__db.") || LOCKS.iter().any(|lock| name.ends_with(lock));
                !is_lock && (names.is_empty() || names.contains(&name))
            };
            *place == event.wd && name.is_none_or(is_counted)
        });
        its.map(|(_, area, _)| *area).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn changed(changes: &mut Changes) {
        let waited = tokio::time::timeout(LONG, changes.next()).await;
        waited.expect("a change is told");
    }

    fn append(path: &Path, text: &str) {
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn a_change_is_told_to_whom_it_concerns_and_to_nobody_else() {
        let host = tempfile::tempdir().unwrap();
        let (log, dpkg) = (
            host.path().join("var/log"),
            host.path().join("var/lib/dpkg"),
        );
        for directory in [&log, &dpkg] {
            fs::create_dir_all(directory).unwrap();
        }
        append(&log.join("dpkg.log"), "one\n");
        let watch = Watch::start(&Root::new(host.path()));
        let [mut logs, mut databases] = [Area::Logs, Area::Databases].map(|area| watch.of(area));
        changed(&mut logs).await;
        changed(&mut databases).await;

        append(&log.join("syslog"), "nothing\n");
        append(&dpkg.join("lock"), "");
        append(&log.join("dpkg.log"), "two\n");
        changed(&mut logs).await;
        assert!(!databases.0.has_changed().unwrap());

        fs::write(dpkg.join("status-new"), "x").unwrap();
        fs::rename(dpkg.join("status-new"), dpkg.join("status")).unwrap();
        changed(&mut databases).await;

        fs::rename(log.join("dpkg.log"), log.join("dpkg.log.1")).unwrap();
        append(&log.join("dpkg.log"), "");
        changed(&mut logs).await;
        append(&log.join("dpkg.log"), "of the next month\n");
        changed(&mut logs).await;

        // A directory that comes later.
        fs::create_dir(log.join("apt")).unwrap();
        append(&log.join("apt/history.log"), "x");
        append(&log.join("dpkg.log"), "x");
        changed(&mut logs).await;
    }
}
