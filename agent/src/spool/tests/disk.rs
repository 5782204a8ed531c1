//! Restarts of a spool on disk: what stays, what a kill may cost, what holds the directory.

use std::collections::BTreeSet;
use std::sync::Arc;

use infratrack_shared::wire::batch::Class;
use tempfile::tempdir;

use super::super::backend::{Backend, Key};
use super::super::disk::{Disk, Place};
use super::super::{Spool, SpoolConfig, SpoolError, files};
use super::{NOW, acknowledge, expected, next, next_part, numbered, open, said, seqs, texts};

#[tokio::test]
async fn a_restart_keeps_everything() {
    let dir = tempdir().unwrap();
    let (spool, report) = open(dir.path()).await;
    assert!(report.fresh);
    let stream = spool.stream();
    spool
        .append(Class::Critical, numbered(1..=5))
        .await
        .unwrap();
    spool.append(Class::Beat, numbered(1..=2)).await.unwrap();
    spool.put("dpkg", "offset".into()).await.unwrap();
    acknowledge(&spool, Class::Critical, 2, NOW).await;
    let before = next(&spool).await;
    spool.close().await.unwrap();

    let (spool, report) = open(dir.path()).await;
    assert_eq!(report, super::OpenReport::default());
    assert_eq!(spool.stream(), stream);
    assert_eq!(next(&spool).await, before);
    assert_eq!(spool.get("dpkg").await.unwrap().unwrap(), "offset");
    assert_eq!(
        spool.append(Class::Critical, numbered([6])).await.unwrap(),
        6
    );
    assert_eq!(spool.append(Class::Beat, numbered([3])).await.unwrap(), 3);
    let back = [expected(stream, Class::Critical, 1)];
    spool.rewind(&back, NOW).await.unwrap();
    let critical = &next(&spool).await.unwrap().parts[0];
    assert_eq!(seqs(critical), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn records_and_the_value_that_comes_with_them_survive_a_kill_together() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    for n in 1..=3 {
        let value = n.to_string().into();
        let records = numbered([2 * n - 1, 2 * n]);
        spool.append_with(records, "place", value).await.unwrap();
    }
    let copy = tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let (spool, _) = open(copy.path()).await;
    assert_eq!(
        texts(&next_part(&spool).await),
        ["1", "2", "3", "4", "5", "6"]
    );
    assert_eq!(spool.get("place").await.unwrap().unwrap(), "3");
    // Killed between the commit and its watermark: both are there or neither.
    let watermark = std::fs::read(copy.path().join("watermark")).unwrap();
    let records = numbered([7, 8]);
    spool
        .append_with(records, "place", "4".into())
        .await
        .unwrap();
    let between = tempdir().unwrap();
    copy_dir(copy.path(), between.path());
    std::fs::write(between.path().join("watermark"), watermark).unwrap();
    let (killed, _) = open(between.path()).await;
    let place = killed.get("place").await.unwrap().unwrap();
    let count = next_part(&killed).await.records.len();
    assert!((count, &place[..]) == (8, b"4") || (count, &place[..]) == (6, b"3"));

    let too_large = vec![0; 70_000].into();
    let refused = spool.append_with(numbered([9]), "place", too_large).await;
    assert!(matches!(refused, Err(SpoolError::TooLarge { .. })));
    assert_eq!(next_part(&spool).await.records.len(), 8);
}

#[tokio::test]
async fn a_killed_spool_keeps_what_append_took() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    for n in 1..=20 {
        spool.append(Class::Critical, numbered([n])).await.unwrap();
    }
    let copy = tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let (spool, report) = open(copy.path()).await;
    assert_eq!(report, super::OpenReport::default());
    let part = next_part(&spool).await;
    assert_eq!((seqs(&part).len(), part.lost.len()), (20, 0));
}

#[tokio::test]
async fn heartbeat_numbers_never_repeat_over_kills() {
    let dir = tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let (spool, _) = open(dir.path()).await;
        for _ in 0..3 {
            let number = spool.heartbeat_number().await.unwrap();
            assert!(number > last, "{number} after {last}");
            last = number;
        }
    }
}

#[tokio::test]
async fn beat_numbers_are_not_used_again_after_a_kill() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    let copy = tempdir().unwrap();
    let last = spool.append(Class::Beat, numbered(1..=3)).await.unwrap();
    copy_dir(dir.path(), copy.path());
    let (spool, _) = open(copy.path()).await;
    let again = spool.append(Class::Beat, numbered([4])).await.unwrap();
    assert!(again > last, "{again} after {last}");
    let part = next_part(&spool).await;
    let told: u64 = part.lost.iter().map(|lost| lost.to - lost.from + 1).sum();
    assert_eq!(told + part.records.len() as u64, again);
}

#[tokio::test]
async fn concurrent_appends_all_get_numbers_of_their_own() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    let appends = (0..100).map(|n| {
        let spool = spool.clone();
        tokio::spawn(async move { spool.append(Class::Critical, numbered([n])).await })
    });
    let mut numbers = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        numbers.push(append.await.unwrap().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    assert_eq!(seqs(&next_part(&spool).await), numbers);
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_kept_and_told() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    spool
        .append(Class::Critical, numbered(1..=3))
        .await
        .unwrap();
    spool.close().await.unwrap();
    edit(dir.path(), &Key::record(0, Class::Critical, 2), |value| {
        value[1] = 2;
    });

    let (spool, report) = open(dir.path()).await;
    assert_eq!((report.unread_records, report.damaged.len()), (1, 0));
    let part = next_part(&spool).await;
    assert_eq!(texts(&part), ["1", "3"]);
    assert_eq!((part.lost[0].from, part.lost[0].to), (2, 2));
    acknowledge(&spool, Class::Critical, 3, NOW).await;
    spool.close().await.unwrap();

    let (_, report) = open(dir.path()).await;
    assert_eq!(report.unread_records, 1);
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_sent_after_the_upgrade() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    let three = numbered(1..=3);
    spool.append(Class::Critical, three).await.unwrap();
    spool.close().await.unwrap();
    let version = |key: &Key, version: u8| edit(dir.path(), key, |value| value[1] = version);
    version(&Key::record(0, Class::Critical, 2), 2);
    let (spool, _) = open(dir.path()).await;
    assert_eq!(texts(&next_part(&spool).await), ["1", "3"]);
    acknowledge(&spool, Class::Critical, 3, NOW).await;
    spool.close().await.unwrap();

    version(&Key::unread(0), 1);
    let (spool, report) = open(dir.path()).await;
    assert_eq!(report.damaged.len(), 0);
    let part = next_part(&spool).await;
    assert_eq!((part.first_seq, texts(&part)), (4, vec!["2".to_owned()]));
    spool.close().await.unwrap();
    let (spool, report) = open(dir.path()).await;
    assert_eq!(report, super::OpenReport::default());
    assert_eq!(texts(&next_part(&spool).await), ["2"]);
}

#[tokio::test]
async fn a_spool_of_a_newer_version_is_kept_and_sent_after_the_upgrade() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    let three = numbered(1..=3);
    spool.append(Class::Critical, three).await.unwrap();
    acknowledge(&spool, Class::Critical, 1, NOW).await;
    let newer = spool.stream();
    spool.close().await.unwrap();
    version_of_the_watermark(dir.path(), 2);

    let (spool, report) = open(dir.path()).await;
    assert!(report.fresh);
    let aside = report.newer.unwrap();
    let own = spool.stream();
    assert_ne!(own, newer);
    let one = numbered([4]);
    spool.append(Class::Critical, one).await.unwrap();
    spool.close().await.unwrap();
    let (spool, report) = open(dir.path()).await;
    assert_eq!(
        (report, aside.exists()),
        (super::OpenReport::default(), true)
    );
    spool.close().await.unwrap();

    version_of_the_watermark(&aside, 1);
    let (spool, _) = open(dir.path()).await;
    assert!(!aside.exists());
    let first = next(&spool).await.unwrap();
    assert_eq!(
        (first.stream, texts(&first.parts[0])),
        (newer, vec!["2".to_owned(), "3".to_owned()])
    );
    let done = super::cursor(newer, Class::Critical, 3);
    spool.acknowledge(&[done], NOW).await.unwrap();
    let then = next(&spool).await.unwrap();
    assert_eq!(
        (then.stream, texts(&then.parts[0])),
        (own, vec!["4".to_owned()])
    );
}

fn version_of_the_watermark(root: &std::path::Path, version: u8) {
    let path = root.join("watermark");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4] = version;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_closed_spool_says_so() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    let other = spool.clone();
    spool.close().await.unwrap();
    let appended = other.append(Class::Critical, vec![said("late")]).await;
    assert!(matches!(appended, Err(SpoolError::Closed)));
}

#[tokio::test]
async fn a_spool_that_another_process_holds_is_left_alone() {
    let dir = tempdir().unwrap();
    let (_held, _) = open(dir.path()).await;
    let second = Spool::open(SpoolConfig::new(dir.path()), NOW).await;
    assert!(matches!(second, Err(SpoolError::Held { .. })));
}

/// Changes one stored value behind the spool's back.
pub(super) fn edit(root: &std::path::Path, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
    let ledger = files::load_ledger(root).unwrap();
    let place = Place {
        root: root.to_owned(),
        lock: Arc::new(std::fs::File::open(root.join("lock")).unwrap()),
        program: None,
        idle: std::time::Duration::MAX,
    };
    let mut disk = Disk::open(&place, ledger.generation).unwrap();
    let mut value = disk.get(key).unwrap().unwrap().to_vec();
    change(&mut value);
    disk.apply(vec![(key.clone(), Some(value.into()))], None)
        .unwrap();
    disk.sync().unwrap();
}

/// The files as a kill would leave them, while their owner goes on.
pub(super) fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The store is closed after every step, so that each begins with a copy of it.
#[tokio::test]
async fn a_spool_whose_store_is_always_idle_is_the_same_spool() {
    let dir = tempdir().unwrap();
    let config = SpoolConfig {
        idle: std::time::Duration::ZERO,
        ..SpoolConfig::new(dir.path())
    };
    let (spool, _) = Spool::open(config, NOW).await.unwrap();
    let mut stores = BTreeSet::new();
    let mut named = || {
        let ledger = files::load_ledger(dir.path()).unwrap();
        assert_eq!(files::generations(dir.path()).unwrap(), [ledger.generation]);
        stores.insert(ledger.generation);
    };
    for round in 0..4 {
        let records = numbered(10 * round..10 * round + 10);
        let last = spool.append(Class::Critical, records).await.unwrap();
        spool.put("cursor", last.to_string().into()).await.unwrap();
        named();
        let part = next_part(&spool).await;
        assert_eq!(seqs(&part), (10 * round + 1..=last).collect::<Vec<_>>());
        named();
        acknowledge(&spool, Class::Critical, last, NOW).await;
        named();
        let kept = spool.get("cursor").await.unwrap().unwrap();
        assert_eq!(kept, last.to_string());
        spool.heartbeat_number().await.unwrap();
        named();
    }
    assert!(stores.len() > 8, "{stores:?}");
    spool.close().await.unwrap();
}
