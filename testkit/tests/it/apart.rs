//! The spool's store in a process of its own: there while it is used, and never what a promise rests on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use infratrack_agent::spool::{Budget, NewRecord, Spool, SpoolConfig};
use infratrack_shared::ids::BootId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Body, Class};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const DEADLINE: Duration = Duration::from_secs(20);

/// A spool whose store has a process that may be idle for so long.
async fn open(dir: &TempDir, idle: Duration) -> Spool {
    let config = SpoolConfig {
        program: Some(env!("CARGO_BIN_EXE_infratrack-spool-workload").into()),
        idle,
        ..SpoolConfig::new(dir.path())
    };
    let (spool, report) = Spool::open(config, NOW).await.expect("it opens");
    assert!(report.damaged.is_empty(), "{report:?}");
    spool
}

/// The processes that have a store below `dir`.
fn stores(dir: &Path) -> Vec<Pid> {
    let needle = format!("spool-store\0{}/", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc") {
        let entry = entry.expect("readable");
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(&needle)
            && let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

fn said(text: &str) -> NewRecord {
    NewRecord {
        at: NOW,
        mono_ms: 7,
        boot_id: BootId::default(),
        kind: "test".to_owned(),
        body: Body::Event(text.into()),
    }
}

async fn sent(spool: &Spool) -> Vec<String> {
    let budget = Budget {
        records: 100,
        bytes: 1 << 20,
        items: 10_000,
    };
    let outgoing = spool.next(budget, BootId::default()).await;
    let outgoing = outgoing.expect("it reads").expect("records wait");
    let records = outgoing.parts.into_iter().flat_map(|part| part.records);
    let text = |body| match body {
        Body::Event(body) => body.as_str().unwrap_or_default().to_owned(),
        Body::Heartbeat(_) => String::new(),
    };
    records.map(|record| text(record.body)).collect()
}

#[tokio::test]
async fn an_idle_store_has_no_process_and_is_opened_by_the_next_use() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir, Duration::ZERO).await;
    for text in ["one", "two"] {
        spool
            .append(Class::Critical, vec![said(text)])
            .await
            .unwrap();
        // It rests after the answer: a later command has its answer after that.
        spool.heartbeat_number().await.unwrap();
        assert_eq!(stores(dir.path()), [], "after {text}");
    }
    assert_eq!(sent(&spool).await, ["one", "two"]);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_used_keeps_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir, Duration::MAX).await;
    spool
        .append(Class::Critical, vec![said("one")])
        .await
        .unwrap();
    let first = stores(dir.path());
    assert_eq!(first.len(), 1);
    spool
        .append(Class::Critical, vec![said("two")])
        .await
        .unwrap();
    assert_eq!(stores(dir.path()), first);
    spool.close().await.unwrap();
    assert_eq!(stores(dir.path()), []);
}

#[tokio::test]
async fn a_store_whose_process_is_killed_is_opened_again_with_all_it_promised() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir, Duration::MAX).await;
    spool
        .append(Class::Critical, vec![said("one")])
        .await
        .unwrap();
    for pid in stores(dir.path()) {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let refused = spool.append(Class::Critical, vec![said("refused")]).await;
    assert!(refused.is_err(), "{refused:?}");
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = spool.append(Class::Critical, vec![said("two")]).await {
        assert!(Instant::now() < deadline, "it stays closed: {error}");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sent(&spool).await, ["one", "two"]);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_store_outlives_the_signals_that_stop_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir, Duration::MAX).await;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        for pid in stores(dir.path()) {
            kill(pid, signal).unwrap();
        }
        spool
            .append(Class::Critical, vec![said("kept")])
            .await
            .unwrap();
    }
    spool.close().await.unwrap();
    let spool = open(&dir, Duration::MAX).await;
    assert_eq!(sent(&spool).await, ["kept"; 3]);
    spool.close().await.unwrap();
}
