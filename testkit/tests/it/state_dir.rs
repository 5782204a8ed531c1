//! An agent whose state directory can't be used: it says so, ends, and touches nothing.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use infratrack_testkit::nemesis::{Daemon, World};
use infratrack_testkit::process::Process;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Uid;
use tokio::time::Instant;

/// It has ended, or reported, within this.
const LIMIT: Duration = Duration::from_secs(60);
/// nobody.
const STRANGER: u32 = 65_534;

/// A directory that can only be read, until it is dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn make(path: &Path) -> nix::Result<Self> {
        let none: Option<&str> = None;
        mount(Some(path), path, none, MsFlags::MS_BIND, none)?;
        let guard = Self(path.to_owned());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, path, none, flags, none)?;
        Ok(guard)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// Every file and what is in it.
fn contents(dir: &Path) -> std::io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contents(&path)?);
            found.insert(path, Vec::new());
        } else {
            let bytes = std::fs::read(&path)?;
            found.insert(path, bytes);
        }
    }
    Ok(found)
}

/// Lets it run until it has been heard of so often, and stops it in order.
async fn heard(world: &World, daemon: &mut Daemon, starts: i64) -> anyhow::Result<()> {
    daemon.start(None)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let sql = "select count(*) from events where kind = 'agent_start'";
        let heard: i64 = sqlx::query_scalar(sql).fetch_one(world.pool()).await?;
        if heard == starts {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "{heard} of {starts} starts");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.ended_in_order().await
}

/// Runs it until it has given up; answers its exit code and what it said.
async fn refused(daemon: &Daemon, command: &mut Command) -> anyhow::Result<(i32, String)> {
    let said_before = std::fs::read_to_string(daemon.log())?.len();
    let mut process = Process::start(command, &daemon.log(), Stdio::null())?;
    let status = process.ended(LIMIT).await?;
    let said = std::fs::read_to_string(daemon.log())?.split_off(said_before);
    Ok((status.code().unwrap_or_default(), said))
}

#[expect(clippy::print_stderr, reason = "a test that can't run says so")]
#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_cannot_be_used_is_named_and_left_as_it_is() {
    if !Uid::effective().is_root() {
        eprintln!("not run: only root may mount, and be somebody else");
        return;
    }
    let world = World::start(0, 1).await.unwrap();
    let mut daemon = world.daemon().await.unwrap();
    heard(&world, &mut daemon, 1).await.unwrap();
    let state = daemon.state_dir();
    let before = contents(&state).unwrap();
    assert!(before.len() > 5, "{:?}", before.keys());

    let read_only = ReadOnly::make(&state).unwrap();
    let mut command = daemon.command().unwrap();
    let (code, said) = refused(&daemon, &mut command).await.unwrap();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(said.contains(&*state.to_string_lossy()), "{said}");
    drop(read_only);
    assert_eq!(contents(&state).unwrap(), before);

    let mut command = daemon.command().unwrap();
    command.uid(STRANGER).gid(STRANGER);
    let (code, said) = refused(&daemon, &mut command).await.unwrap();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    assert!(said.contains(&*state.to_string_lossy()), "{said}");
    assert_eq!(contents(&state).unwrap(), before);

    heard(&world, &mut daemon, 2).await.unwrap();
    let gaps: i64 = sqlx::query_scalar("select count(*) from gaps")
        .fetch_one(world.pool())
        .await
        .unwrap();
    assert_eq!(gaps, 0);
    world.stop().await;
}
