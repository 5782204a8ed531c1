//! A disk that is full and freed again, or read-only: a file system of a few MiB in memory. And one that fails.
//! Needs the right to mount.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use infratrack_shared::wire::batch::Class;
use tempfile::{TempDir, tempdir};
use tokio::time::{Instant, sleep};

use super::super::{Spool, SpoolConfig, SpoolError};
use super::{Budget, NOW, boot, cursor, open, said};

/// How long after there is room again the spool may take to notice.
const RESUMED: Duration = Duration::from_secs(60);

struct Mounted(TempDir);

impl Mounted {
    /// `None`, and said so, where nothing may be mounted here.
    #[expect(clippy::print_stderr, reason = "a test that was left out says so")]
    fn new(size: &str) -> Option<Self> {
        let dir = tempdir().unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("NOT TESTED: a full disk, for want of the right to mount one");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(done.unwrap().success());
    }
}

fn record(number: u64) -> super::NewRecord {
    said(&format!("{number:06}{}", "x".repeat(700)))
}

/// Appends until the disk is full; answers how many records were taken in all.
async fn fill(spool: &Spool, mut taken: u64) -> u64 {
    loop {
        match spool.append(Class::Critical, vec![record(taken + 1)]).await {
            Ok(_) => taken += 1,
            Err(SpoolError::DiskFull) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Everything that was taken, in order, once.
async fn drain(spool: &Spool) -> Vec<u64> {
    let budget = Budget {
        records: 500,
        bytes: 4 << 20,
        items: 100_000,
    };
    let mut numbers = Vec::new();
    while let Some(outgoing) = spool.next(budget, boot()).await.unwrap() {
        let part = &outgoing.parts[0];
        assert_eq!(part.lost, []);
        let texts = super::texts(part);
        numbers.extend(texts.iter().map(|text| text[..6].parse::<u64>().unwrap()));
        let to = part.records.last().unwrap().seq;
        let done = [cursor(outgoing.stream, Class::Critical, to)];
        spool.acknowledge(&done, NOW).await.unwrap();
    }
    numbers
}

/// All that was taken is there, in order. The one that was refused last, when the disk was full, may be too:
/// nothing was promised of it, either way.
fn assert_kept(mut numbers: Vec<u64>, taken: u64) {
    numbers.dedup();
    let last = numbers.last().copied().unwrap_or_default();
    assert!((taken..=taken + 1).contains(&last), "{last} of {taken}");
    assert!(numbers.into_iter().eq(1..=last), "in order, none missing");
}

#[tokio::test]
async fn a_full_disk_blocks_and_loses_nothing_and_is_noticed_when_freed() {
    let Some(disk) = Mounted::new("6m") else {
        return;
    };
    let spool_dir = disk.path().join("spool");
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let (spool, _) = open(&spool_dir).await;
    let taken = fill(&spool, 0).await;
    assert!(taken > 100, "{taken} records in 6 MiB");
    let refused = spool.append(Class::Critical, vec![record(taken + 1)]).await;
    assert!(matches!(
        refused,
        Err(SpoolError::Pausing | SpoolError::DiskFull)
    ));

    fs::remove_file(&ballast).unwrap();
    let deadline = Instant::now() + RESUMED;
    while let Err(error) = spool.append(Class::Critical, vec![record(taken + 1)]).await {
        assert!(Instant::now() < deadline, "still {error}");
        sleep(Duration::from_millis(20)).await;
    }
    assert_kept(drain(&spool).await, taken + 1);
}

/// Takes all the room there is; answers the file that has it.
fn take_all_room(disk: &Mounted) -> PathBuf {
    let path = disk.path().join("ballast");
    let mut ballast = fs::File::create(&path).unwrap();
    let mut block = vec![0; 64 * 1024];
    while !block.is_empty() {
        if ballast.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    path
}

#[tokio::test]
async fn a_start_on_a_full_disk_lives_on_the_reserve() {
    let Some(disk) = Mounted::new("6m") else {
        return;
    };
    let spool_dir = disk.path().join("spool");
    let (spool, _) = open(&spool_dir).await;
    let hundred = (1..=100).map(record).collect();
    spool.append(Class::Critical, hundred).await.unwrap();
    spool.close().await.unwrap();
    take_all_room(&disk);
    let (spool, report) = open(&spool_dir).await;
    assert_eq!(report, super::OpenReport::default());
    assert_eq!(drain(&spool).await, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_spool_that_filled_its_disk_starts_again_and_drains_without_a_hand() {
    let Some(disk) = Mounted::new("12m") else {
        return;
    };
    let (mut spool, _) = open(disk.path()).await;
    let mut taken = fill(&spool, 0).await;
    for _ in 0..3 {
        // Fails where the disk is full.
        drop(spool.close().await);
        spool = open(disk.path()).await.0;
        taken = fill(&spool, taken).await;
    }
    drop(spool.close().await);
    let (spool, report) = open(disk.path()).await;
    assert_eq!(report, super::OpenReport::default());
    assert_kept(drain(&spool).await, taken);
    // With the last of them acknowledged, there is room again.
    let next = spool.append(Class::Critical, vec![record(taken + 1)]).await;
    assert!(next.unwrap() > taken);
}

#[tokio::test]
async fn a_start_without_any_room_says_so_and_costs_nothing() {
    let Some(disk) = Mounted::new("6m") else {
        return;
    };
    let spool_dir = disk.path().join("spool");
    let (spool, _) = open(&spool_dir).await;
    let taken = fill(&spool, 0).await;
    // Fails, for the disk is full.
    drop(spool.close().await);
    let ballast = take_all_room(&disk);
    let refused = Spool::open(SpoolConfig::new(&spool_dir), NOW).await;
    assert!(matches!(refused, Err(SpoolError::DiskFull)));
    fs::remove_file(&ballast).unwrap();
    let (spool, report) = open(&spool_dir).await;
    assert_eq!(report, super::OpenReport::default());
    assert_kept(drain(&spool).await, taken);
}

#[tokio::test]
async fn a_spool_that_can_only_be_read_is_refused_untouched() {
    let Some(disk) = Mounted::new("6m") else {
        return;
    };
    let (spool, _) = open(disk.path()).await;
    let hundred = (1..=100).map(record).collect();
    spool.append(Class::Critical, hundred).await.unwrap();
    spool.close().await.unwrap();
    remount(&disk, "ro");
    let refused = Spool::open(SpoolConfig::new(disk.path()), NOW).await;
    let Err(SpoolError::Io { source, .. }) = refused else {
        panic!("opened");
    };
    assert_eq!(source.kind(), ErrorKind::ReadOnlyFilesystem);
    remount(&disk, "rw");
    let (spool, report) = open(disk.path()).await;
    assert_eq!(report, super::OpenReport::default());
    assert_eq!(drain(&spool).await, (1..=100).collect::<Vec<_>>());
}

fn remount(disk: &Mounted, how: &str) {
    let done = Command::new("mount")
        .args(["-o", &format!("remount,{how}")])
        .arg(disk.path())
        .status();
    assert!(done.unwrap().success());
}

/// ext4 on a file of its own.
struct Image {
    dir: TempDir,
}

impl Image {
    /// `None`, and said so, where there is nothing to make it with.
    #[expect(clippy::print_stderr, reason = "a test that was left out says so")]
    fn new() -> Option<Self> {
        let image = Self {
            dir: tempdir().unwrap(),
        };
        let file = fs::File::create(image.file()).unwrap();
        file.set_len(32 << 20).unwrap();
        fs::create_dir(image.path()).unwrap();
        let made = Command::new("mkfs.ext4")
            .arg("-q")
            .arg(image.file())
            .status();
        let has_tools = Command::new("xfs_io").arg("-V").output().is_ok();
        if has_tools && made.is_ok_and(|status| status.success()) && image.mount() {
            return Some(image);
        }
        eprintln!(
            "NOT TESTED: a disk that fails, for want of xfs_io, mkfs.ext4 or the right to mount"
        );
        None
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    fn mount(&self) -> bool {
        let mut mount = Command::new("mount");
        let mounted = mount
            .args(["-o", "loop"])
            .arg(self.file())
            .arg(self.path())
            .status();
        mounted.is_ok_and(|status| status.success())
    }

    fn unmount(&self) -> bool {
        let done = Command::new("umount").arg(self.path()).status();
        done.is_ok_and(|status| status.success())
    }

    /// From here on it reads and writes nothing, as a disk that is gone.
    fn fail(&self) {
        let mut command = Command::new("xfs_io");
        let done = command
            .args(["-x", "-c", "shutdown"])
            .arg(self.path())
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_said_and_costs_nothing_that_was_taken() {
    let Some(image) = Image::new() else {
        return;
    };
    let (spool, _) = open(&image.path()).await;
    let hundred = (1..=100).map(record).collect();
    spool.append(Class::Critical, hundred).await.unwrap();
    image.fail();
    let refused = spool.append(Class::Critical, vec![record(101)]).await;
    let Err(SpoolError::Io { source, .. }) = &refused else {
        panic!("{refused:?}");
    };
    assert!(
        source.to_string().contains("Input/output error"),
        "{source}"
    );
    drop(spool.close().await);
    let refused = Spool::open(SpoolConfig::new(image.path()), NOW).await;
    assert!(matches!(refused, Err(SpoolError::Io { .. })));
    let deadline = Instant::now() + RESUMED;
    while !image.unmount() {
        assert!(
            Instant::now() < deadline,
            "the spool holds files of a disk that is gone"
        );
        sleep(Duration::from_millis(50)).await;
    }
    assert!(image.mount());
    let (spool, report) = open(&image.path()).await;
    assert_eq!(report, super::OpenReport::default());
    assert_kept(drain(&spool).await, 100);
}
