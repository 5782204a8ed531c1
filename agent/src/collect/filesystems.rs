//! The heartbeat's filesystems: how full each is, in bytes and inodes.
//!
//! `statvfs` on a dead network mount never returns. Each mount is asked on a thread of its own with
//! a time limit, and one that hangs is not asked again while it does. Called by the heartbeat.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use infratrack_shared::limits::HEARTBEAT_FILESYSTEMS;
use infratrack_shared::wire::heartbeat::FilesystemUsage;
use nix::sys::statvfs::statvfs;
use tokio::time::Instant;

use super::bounded::Bounded;
use super::fact::clean_text;
use super::mounts::{self, Mount};
use super::{Reason, Root};

/// A local filesystem answers in microseconds, a living network one in milliseconds.
const EACH: Duration = Duration::from_secs(1);
/// However many hang at once, the heartbeat has to go out.
const ALL: Duration = Duration::from_secs(4);

type Ask = dyn Fn(&Path) -> Result<FilesystemUsage, Reason> + Send + Sync;

/// Asks each real mount how full it is, and remembers those that hang.
pub(super) struct Filesystems {
    ask: Arc<Ask>,
    each: Duration,
    bounded: Bounded,
}

/// What each mount said, and those that said nothing with the reason, by mount point.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) known: Vec<FilesystemUsage>,
    pub(super) unknown: Vec<(String, Reason)>,
}

impl Filesystems {
    pub(super) fn new() -> Self {
        Self {
            ask: Arc::new(ask),
            each: EACH,
            bounded: Bounded::default(),
        }
    }

    pub(super) async fn collect(&mut self, root: &Root) -> Result<Usage, Reason> {
        let mounts = mounts::real(mounts::read(root)?);
        Ok(self.usage(root, mounts).await)
    }

    async fn usage(&mut self, root: &Root, mounts: Vec<Mount>) -> Usage {
        let mut usage = Usage::default();
        let begun = Instant::now();
        let left_out = mounts.len().saturating_sub(HEARTBEAT_FILESYSTEMS);
        for mount in mounts.into_iter().take(HEARTBEAT_FILESYSTEMS) {
            let left = ALL.saturating_sub(begun.elapsed());
            let answer = if left.is_zero() {
                Err("not asked: other filesystems hang".to_owned())
            } else {
                let (ask, path) = (Arc::clone(&self.ask), root.path(&mount.point));
                let limit = self.each.min(left);
                let answer = self.bounded.run(&mount.point, limit, move || ask(&path));
                answer.await.and_then(|answer| answer)
            };
            match answer {
                Ok(found) => usage.known.push(FilesystemUsage {
                    mount: clean_text(mount.point),
                    ..found
                }),
                Err(reason) => usage.unknown.push((mount.point, reason)),
            }
        }
        if left_out > 0 {
            let reason = format!("{left_out} over the limit of {HEARTBEAT_FILESYSTEMS}");
            usage.unknown.push(("more filesystems".to_owned(), reason));
        }
        usage
    }
}

fn ask(path: &Path) -> Result<FilesystemUsage, Reason> {
    let found = statvfs(path).map_err(|error| error.desc().to_owned())?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Ok(FilesystemUsage {
        mount: String::new(),
        total_bytes: bytes(found.blocks()),
        available_bytes: bytes(found.blocks_available()),
        inodes_total: found.files(),
        inodes_free: found.files_free(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn mount(point: &str) -> Mount {
        Mount {
            point: point.to_owned(),
            ..Mount::default()
        }
    }

    #[tokio::test]
    async fn a_hung_mount_delays_no_other_and_is_asked_once_while_it_hangs() {
        let (release, hang) = mpsc::channel::<()>();
        let hang = Mutex::new(hang);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let mut filesystems = Filesystems::new();
        filesystems.each = Duration::from_millis(200);
        filesystems.ask = Arc::new(move |path| {
            if path == Path::new("/hung") {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = hang.lock().unwrap().recv();
            }
            Ok(FilesystemUsage::default())
        });
        let root = Root::default();
        let mounts = vec![mount("/a"), mount("/hung"), mount("/z")];
        for reason in [
            "no answer within 200 ms",
            "still hangs since an earlier reading",
        ] {
            let usage = filesystems.usage(&root, mounts.clone()).await;
            let known: Vec<_> = usage
                .known
                .iter()
                .map(|found| found.mount.as_str())
                .collect();
            assert_eq!(known, ["/a", "/z"]);
            assert_eq!(usage.unknown, [("/hung".to_owned(), reason.to_owned())]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        drop(release);
    }

    #[tokio::test]
    async fn this_hosts_root_has_a_size() {
        let usage = Filesystems::new().collect(&Root::default()).await.unwrap();
        let at_root = usage.known.iter().find(|found| found.mount == "/").unwrap();
        assert!(at_root.total_bytes > 0 && at_root.available_bytes <= at_root.total_bytes);
    }
}
