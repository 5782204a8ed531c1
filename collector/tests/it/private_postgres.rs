//! The private Postgres through what happens to it: kills at every moment, two collectors on one directory,
//! another release's binaries.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use infratrack_collector::postgres::{PostgresError, PrivatePostgres, private_connect_options};
use infratrack_testkit::postgres::reachable_tempdir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::harness::eventually;

/// No start or stop in here takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// As a collector starts it, but with little memory.
async fn start(dir: &Path) -> Result<PrivatePostgres, PostgresError> {
    tokio::time::timeout(LIMIT, PrivatePostgres::start(dir, &["shared_buffers=8MB"]))
        .await
        .expect("a start is bounded in time")
}

async fn stop(postgres: PrivatePostgres) {
    tokio::time::timeout(LIMIT, postgres.stop())
        .await
        .expect("a stop is bounded in time");
}

async fn connect(dir: &Path) -> Option<PgConnection> {
    let options = private_connect_options(dir).await.unwrap();
    PgConnection::connect_with(&options).await.ok()
}

/// Leaves a mark in the database that is there after whatever follows.
async fn mark(dir: &Path) {
    let mut connection = connect(dir).await.unwrap();
    let sql = "create table mark (n int); insert into mark values (42)";
    connection.execute(sqlx::raw_sql(sql)).await.unwrap();
    connection.close().await.unwrap();
}

async fn find_mark(dir: &Path) -> Option<i32> {
    let mut connection = connect(dir).await?;
    let read = sqlx::query_scalar("select n from mark");
    read.fetch_one(&mut connection).await.ok()
}

/// The server's process, as its own lock says.
fn postmaster(dir: &Path) -> Option<i32> {
    let lock = fs::read_to_string(dir.join("postgres/cluster/postmaster.pid")).ok()?;
    lock.lines().next()?.trim().parse().ok()
}

fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// What an interrupted `initdb` leaves, or one in the middle works in.
fn unfinished(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("postgres")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().contains("cluster.new"))
        .collect()
}

/// `infratrack-collector serve` with its private Postgres, as a process that can be killed.
struct Serve {
    process: Child,
}

impl Serve {
    fn start(dir: &Path) -> Self {
        let config = dir.join("collector.toml");
        let listen = "listen = \"127.0.0.1:0\"";
        let text = format!(
            "data_dir = \"{}\"\n[agents]\n{listen}\n[enroll]\n{listen}\n[operators]\n{listen}\n",
            dir.display()
        );
        fs::write(&config, text).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_infratrack-collector"))
            .arg("--config")
            .arg(config)
            .arg("serve")
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("serve.log")).unwrap())
            .spawn()
            .unwrap();
        Self { process }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // In order, so that a failed test leaves no Postgres behind; after a kill there is nobody.
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            kill(
                Pid::from_raw(self.process.id().cast_signed()),
                Signal::SIGTERM,
            )
            .ok();
            self.process.wait().ok();
        }
    }
}

#[tokio::test]
async fn what_is_stored_is_there_after_a_stop_and_a_start() {
    let dir = reachable_tempdir().unwrap();
    let postgres = start(dir.path()).await.unwrap();
    mark(dir.path()).await;
    stop(postgres).await;
    assert_eq!(postmaster(dir.path()), None, "it stopped in order");
    let postgres = start(dir.path()).await.unwrap();
    assert_eq!(find_mark(dir.path()).await, Some(42));
    stop(postgres).await;
}

#[tokio::test]
async fn a_killed_server_is_started_again_with_its_data() {
    let dir = reachable_tempdir().unwrap();
    let mut postgres = start(dir.path()).await.unwrap();
    mark(dir.path()).await;
    let first = postmaster(dir.path()).unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let again = eventually("the server to be back", || async {
        let pid = postmaster(dir.path()).filter(|pid| *pid != first)?;
        (find_mark(dir.path()).await == Some(42)).then_some(pid)
    });
    tokio::select! {
        error = postgres.supervise() => panic!("the supervisor gave up: {error}"),
        pid = again => assert!(runs(pid)),
    }
    stop(postgres).await;
}

#[tokio::test]
async fn the_server_of_a_killed_collector_is_taken_over() {
    let dir = reachable_tempdir().unwrap();
    let mut collector = Serve::start(dir.path());
    eventually("the collector's database", || connect(dir.path())).await;
    mark(dir.path()).await;
    let orphan = postmaster(dir.path()).unwrap();
    collector.kill();
    assert!(runs(orphan), "the server outlives its collector");
    let postgres = start(dir.path()).await.unwrap();
    assert!(!runs(orphan));
    assert_ne!(postmaster(dir.path()), Some(orphan));
    assert_eq!(find_mark(dir.path()).await, Some(42));
    stop(postgres).await;
}

#[tokio::test]
async fn a_second_collector_is_told_who_holds_the_directory() {
    let dir = reachable_tempdir().unwrap();
    let postgres = start(dir.path()).await.unwrap();
    let server = postmaster(dir.path());
    let refused = start(dir.path()).await.unwrap_err();
    let holder = format!(
        "another collector (process {}) holds {}",
        std::process::id(),
        dir.path().display()
    );
    assert_eq!(refused.to_string(), holder);
    assert_eq!(postmaster(dir.path()), server, "the first one's still runs");
    let again = start(dir.path()).await.unwrap_err();
    assert_eq!(again.to_string(), holder, "being refused changes nothing");
    stop(postgres).await;
    stop(start(dir.path()).await.unwrap()).await;
}

#[tokio::test]
async fn a_collector_killed_while_it_makes_the_cluster_makes_it_anew() {
    let dir = reachable_tempdir().unwrap();
    let mut collector = Serve::start(dir.path());
    let half = eventually("initdb to be half-way", || async {
        unfinished(dir.path())
            .into_iter()
            .find(|path| path.join("PG_VERSION").exists())
    })
    .await;
    collector.kill();
    assert!(!dir.path().join("postgres/cluster").exists());
    // Its initdb goes on without it.
    let postgres = start(dir.path()).await.unwrap();
    assert!(!half.exists());
    assert_eq!(unfinished(dir.path()), Vec::<PathBuf>::new());
    mark(dir.path()).await;
    stop(postgres).await;
}

#[tokio::test]
async fn what_an_interrupted_initdb_left_is_never_used() {
    let dir = reachable_tempdir().unwrap();
    // The names of this release and of the one before.
    for name in ["cluster.new", "cluster.new-0"] {
        let half = dir.path().join("postgres").join(name);
        fs::create_dir_all(half.join("base/1")).unwrap();
        fs::write(half.join("PG_VERSION"), "15\n").unwrap();
        fs::write(half.join("postgresql.conf"), "port = nonsense\n").unwrap();
    }
    let postgres = start(dir.path()).await.unwrap();
    assert_eq!(unfinished(dir.path()), Vec::<PathBuf>::new());
    mark(dir.path()).await;
    stop(postgres).await;
}

/// Deletes what a test put where its own directory's end does not reach.
struct Elsewhere(PathBuf);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[tokio::test]
async fn a_directory_the_server_cannot_reach_has_a_note_that_says_where_it_is() {
    let dir: TempDir = reachable_tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let postgres = start(dir.path()).await.unwrap();
    let note = dir.path().join("POSTGRES_IS_ELSEWHERE");
    if !Uid::effective().is_root() {
        assert!(!note.exists(), "the server runs as the directory's owner");
        assert!(dir.path().join("postgres/cluster/PG_VERSION").exists());
        stop(postgres).await;
        return;
    }
    let text = fs::read_to_string(note).unwrap();
    let (says, place) = text.trim_end().split_once("; its files are in ").unwrap();
    let _place = Elsewhere(place.into());
    assert_eq!(says, "Postgres' user can't reach this folder");
    assert!(Path::new(place).join("cluster/PG_VERSION").exists());
    mark(dir.path()).await;
    stop(postgres).await;
    // The folder is opened later: the data stays where it is, and is found there.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let postgres = start(dir.path()).await.unwrap();
    assert_eq!(find_mark(dir.path()).await, Some(42));
    stop(postgres).await;
}

#[tokio::test]
async fn a_cluster_that_became_unreachable_is_not_replaced_by_an_empty_one() {
    let dir = reachable_tempdir().unwrap();
    let postgres = start(dir.path()).await.unwrap();
    mark(dir.path()).await;
    stop(postgres).await;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    match start(dir.path()).await {
        Ok(postgres) => {
            assert!(!Uid::effective().is_root());
            assert_eq!(find_mark(dir.path()).await, Some(42));
            stop(postgres).await;
        }
        Err(error) => assert!(matches!(error, PostgresError::Unreachable(_)), "{error}"),
    }
}

#[tokio::test]
async fn a_cluster_of_another_release_says_which_one_it_needs() {
    let dir = reachable_tempdir().unwrap();
    stop(start(dir.path()).await.unwrap()).await;
    let version = dir.path().join("postgres/cluster/PG_VERSION");
    let installed = fs::read_to_string(&version).unwrap();
    fs::write(&version, "99\n").unwrap();
    let refused = start(dir.path()).await.unwrap_err();
    let cluster = dir.path().canonicalize().unwrap().join("postgres/cluster");
    let begins = format!("{} was made by Postgres 99, and", cluster.display());
    let text = refused.to_string();
    assert!(text.starts_with(&begins), "{text}");
    let PostgresError::OtherMajor { needs, found, .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(needs, 99);
    assert!(
        found.contains(&installed.trim().parse().unwrap()),
        "{found:?}"
    );
    fs::write(&version, "a page of zeros").unwrap();
    let refused = start(dir.path()).await.unwrap_err();
    assert!(matches!(refused, PostgresError::File { doing: "read", .. }));
    // Refused, not repaired: with its own release it is as it was.
    fs::write(&version, installed).unwrap();
    stop(start(dir.path()).await.unwrap()).await;
}
