//! From the log to the spool: durable once, whatever fails in between.

use std::fs::{self, File};
use std::io::Write;

use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::event::PackageTransaction;
use tempfile::TempDir;

use super::*;
use crate::spool::Budget;
use crate::watch::{Area, Watch};

/// 2026-11-22T14:00:00Z.
const NOW: UnixMillis = UnixMillis(1_795_356_000_000);
const LONG: Duration = Duration::from_secs(30);
const ALL: Budget = Budget {
    records: 500,
    bytes: usize::MAX,
    items: usize::MAX,
};

fn host() -> (TempDir, Root) {
    let keep = tempfile::tempdir().unwrap();
    fs::create_dir_all(keep.path().join("var/log")).unwrap();
    let root = Root::new(keep.path());
    (keep, root)
}

/// A run of dpkg that changes `count` packages.
fn append(host: &TempDir, minute: u32, name: &str, count: usize) {
    let path = host.path().join("var/log/dpkg.log");
    let mut log = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    let time = format!("2026-11-22 13:{minute:02}:00");
    writeln!(log, "{time} startup archives install").unwrap();
    let mut lines = Vec::new();
    for number in 0..count {
        let package = format!("{name}{number}:all");
        writeln!(lines, "{time} install {package} <none> 1.0").unwrap();
        writeln!(lines, "{time} status installed {package} 1.0").unwrap();
    }
    log.write_all(&lines).unwrap();
}

fn task(spool: &Spool) -> Task {
    Task {
        spool: spool.clone(),
        clock: Clock::from_fn(|| NOW),
        boot_id: BootId::random(),
        told: Arc::new(Notify::new()),
        problems: Vec::new(),
    }
}

async fn told(spool: &Spool) -> Vec<PackageTransaction> {
    let Some(outgoing) = spool.next(ALL, BootId::random()).await.unwrap() else {
        return Vec::new();
    };
    let records = outgoing.parts.into_iter().flat_map(|part| part.records);
    records
        .map(|record| {
            let Body::Event(body) = &record.body else {
                panic!("{record:?}");
            };
            let event = Event::from_body(&record.kind, body).unwrap();
            let Event::PackageTransaction(transaction) = event else {
                panic!("{event:?}");
            };
            transaction
        })
        .collect()
}

#[tokio::test]
async fn what_is_read_is_in_the_spool_once_and_its_place_with_it() {
    let (host, root) = host();
    append(&host, 1, "one", 1);
    let spool = Spool::in_memory(NOW);
    let mut task = task(&spool);
    let mut reader = LogReader::new(root.clone(), None);
    assert_eq!(task.turn(&mut reader).await, LOOK);
    assert_eq!(told(&spool).await.len(), 1);
    task.told.notified().await;

    // As after a crash right behind the commit.
    let saved = spool.get(NAME).await.unwrap().unwrap();
    assert_eq!(reader.saved(), Some(&saved[..]));
    let mut again = LogReader::new(root, Some(saved.to_vec()));
    task.turn(&mut again).await;
    assert_eq!(told(&spool).await.len(), 1);

    append(&host, 2, "two", 2500);
    while task.turn(&mut again).await < LOOK {}
    let all = told(&spool).await;
    let parts = &all[1..];
    assert!(parts.len() > 2 && parts.iter().all(|part| part.parts as usize == parts.len()));
    let changes: usize = parts.iter().map(|part| part.changes.len()).sum();
    assert_eq!(changes, 2500);
}

#[tokio::test]
async fn a_record_has_the_time_at_which_it_happened_and_no_boot_that_is_not_known() {
    let task = task(&Spool::in_memory(NOW));
    let record = |ago_ms: i64| {
        let transaction = PackageTransaction {
            started_at: NOW.plus_millis(-ago_ms),
            ..PackageTransaction::default()
        };
        task.record(transaction).unwrap()
    };
    let (recent, old, future) = (record(1), record(1_000_000_000_000), record(-5000));
    assert_eq!(
        (recent.at, recent.boot_id),
        (NOW.plus_millis(-1), task.boot_id)
    );
    assert!(recent.mono_ms > 0);
    assert_eq!(old.at, NOW.plus_millis(-1_000_000_000_000));
    assert_eq!((old.mono_ms, old.boot_id), (0, BootId::default()));
    assert_eq!((future.at, future.boot_id), (NOW, task.boot_id));
}

#[tokio::test]
async fn what_the_spool_does_not_take_is_read_again() {
    let (host, root) = host();
    append(&host, 1, "one", 1);
    let closed = Spool::in_memory(NOW);
    let dir = tempfile::tempdir().unwrap();
    let config = crate::spool::SpoolConfig::new(dir.path().join("spool"));
    let (spool, _) = Spool::open(config, NOW).await.unwrap();
    let mut refused = task(&spool);
    spool.clone().close().await.unwrap();
    let mut reader = LogReader::new(root, None);
    assert_eq!(refused.turn(&mut reader).await, RETRY);
    let mut taken = task(&closed);
    taken.turn(&mut reader).await;
    assert_eq!(told(&closed).await.len(), 1);
}

#[tokio::test]
async fn a_change_in_the_log_is_told_by_itself() {
    let (host, root) = host();
    let spool = Spool::in_memory(NOW);
    let watch = Watch::start(&root);
    let clock = Clock::from_fn(|| NOW);
    let logs = PackageLogs::start(
        root,
        spool.clone(),
        clock,
        BootId::random(),
        watch.of(Area::Logs),
    );
    append(&host, 1, "one", 1);
    timeout(LONG, logs.told()).await.unwrap();
    append(&host, 2, "two", 1);
    timeout(LONG, logs.told()).await.unwrap();
    assert_eq!(told(&spool).await.len(), 2);
}
