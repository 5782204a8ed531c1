//! Room on the disk: the quota's order, and files that become small again.

use infratrack_shared::wire::batch::{Class, LostReason};
use tempfile::tempdir;

use super::super::{Spool, SpoolConfig, files};
use super::{Budget, NOW, acknowledge, boot, expected, next, open, said, seqs};

const MIB: u64 = 1024 * 1024;
const BATCH: Budget = Budget {
    records: 500,
    bytes: 4 << 20,
    items: 100_000,
};

/// Appends `count` records of about 800 bytes, a hundred at a time.
async fn fill(spool: &Spool, class: Class, count: u64) -> u64 {
    let mut last = 0;
    for _ in 0..count / 100 {
        let text = "x".repeat(750);
        let records = (0..100).map(|_| said(&text)).collect();
        last = spool.append(class, records).await.unwrap();
    }
    last
}

/// Acknowledges everything of the class, as a collector would.
async fn drain(spool: &Spool, class: Class) -> (u64, u64) {
    let (mut sent, mut gone) = (0, 0);
    while let Some(outgoing) = spool.next(BATCH, boot()).await.unwrap() {
        let part = &outgoing.parts[0];
        assert_eq!(part.class, class);
        sent += part.records.len() as u64;
        let ranges = part.lost.iter();
        gone += ranges.map(|lost| lost.to - lost.from + 1).sum::<u64>();
        let to = part.lost.last().map_or(0, |lost| lost.to);
        let to = part.records.last().map_or(to, |record| record.seq.max(to));
        acknowledge(spool, class, to, NOW).await;
    }
    (sent, gone)
}

#[tokio::test]
async fn a_drained_backlog_gives_its_space_back() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    let stream = spool.stream();
    spool.put("dpkg", "offset".into()).await.unwrap();
    let last = fill(&spool, Class::Critical, 20_000).await;
    let full = files::size_on_disk(dir.path());
    assert!(full > 20 * MIB, "{full} bytes are not worth a rotation");
    assert_eq!(drain(&spool, Class::Critical).await, (20_000, 0));
    let empty = files::size_on_disk(dir.path());
    assert!(empty < 16 * MIB, "{empty} bytes for an empty spool");
    assert_eq!(files::generations(dir.path()).unwrap().len(), 1);

    let back = [expected(stream, Class::Critical, last - 99)];
    spool.rewind(&back, NOW).await.unwrap();
    let part = &next(&spool).await.unwrap().parts[0];
    assert_eq!(seqs(part), (last - 99..=last).collect::<Vec<_>>());
    assert_eq!(spool.get("dpkg").await.unwrap().unwrap(), "offset");
    spool.close().await.unwrap();

    let (spool, report) = open(dir.path()).await;
    assert_eq!((report.damaged.len(), spool.stream()), (0, stream));
    assert_eq!(fill(&spool, Class::Critical, 100).await, last + 100);
}

async fn open_with_quota(dir: &std::path::Path, quota_bytes: u64) -> Spool {
    let config = SpoolConfig {
        quota_bytes,
        ..SpoolConfig::new(dir)
    };
    Spool::open(config, NOW).await.unwrap().0
}

#[tokio::test]
async fn at_the_quota_the_oldest_records_yield_and_are_counted() {
    let dir = tempdir().unwrap();
    let quota = 8 * MIB;
    let spool = open_with_quota(dir.path(), quota).await;
    let all = fill(&spool, Class::Critical, 30_000).await;
    let size = files::size_on_disk(dir.path());
    assert!(size < quota + quota / 10, "{size} bytes of {quota}");
    let first = next(&spool).await.unwrap();
    let lost = first.parts[0].lost[0];
    assert_eq!((lost.from, lost.reason), (1, LostReason::Quota));
    let (sent, gone) = drain(&spool, Class::Critical).await;
    assert_eq!(sent + gone, all);
    assert!(sent > 2_000, "{sent} records in {quota} bytes");
}

#[tokio::test]
async fn near_the_quota_beats_are_counted_and_not_kept() {
    let dir = tempdir().unwrap();
    // The file grows in leaps: 32 MiB leave 5 MiB from where beats are refused to where a rotation makes room.
    let spool = open_with_quota(dir.path(), 32 * MIB).await;
    while spool.usage().size_bytes < 12 * MIB + MIB / 2 {
        fill(&spool, Class::Critical, 100).await;
    }
    fill(&spool, Class::Beat, 100).await;
    assert_eq!(spool.usage().beat_records, 0);
    let beat = &next(&spool).await.unwrap().parts[1];
    assert_eq!(beat.lost, [super::lost(1, 100, LostReason::Quota)]);
}

#[tokio::test]
async fn no_record_is_big_enough_for_a_file_of_its_own() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    for size in [1, 700, 751, 752, 753, 1_000, 5_000, 60_000] {
        for _ in 0..30 {
            let record = said(&"x".repeat(size));
            spool.append(Class::Critical, vec![record]).await.unwrap();
        }
    }
    for generation in files::generations(dir.path()).unwrap() {
        let blobs = files::generation_dir(dir.path(), generation).join("blobs");
        let blobs = std::fs::read_dir(blobs).unwrap();
        assert_eq!(blobs.count(), 0);
    }
    assert_eq!(drain(&spool, Class::Critical).await, (240, 0));
}
