//! Damaged files: the spool opens without a hand, never panics, and what it says is lost is lost.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use infratrack_shared::wire::batch::{Class, LostReason};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::{TempDir, tempdir};

use super::super::{OpenReport, Spool, SpoolConfig, files};
use super::{Budget, NOW, acknowledge, boot, cursor, next, numbered, open, said};

const RECORDS: u64 = 600;
const ACKED: u64 = 200;
/// What a start may take.
const START: Duration = Duration::from_secs(30);

/// A spool with 400 unsent records of 600, and its directory.
async fn filled() -> TempDir {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    for start in (1..=RECORDS).step_by(20) {
        let text = |n: u64| said(&format!("{n:06}{}", "x".repeat(700)));
        let records = (start..start + 20).map(text).collect();
        spool.append(Class::Critical, records).await.unwrap();
    }
    acknowledge(&spool, Class::Critical, ACKED, NOW).await;
    spool.put("dpkg", "offset".into()).await.unwrap();
    spool.close().await.unwrap();
    // sled writes its snapshot when it opens a file that has something in it.
    open(dir.path()).await.0.close().await.unwrap();
    dir
}

/// What a collector gets: numbers with records, and numbers that are lost, of one stream.
async fn drain(spool: &Spool) -> Vec<(bool, BTreeSet<u64>, BTreeSet<u64>)> {
    let mut streams = Vec::new();
    let budget = Budget {
        records: 100,
        bytes: 1 << 20,
        items: 100_000,
    };
    let mut stream = None;
    let mut batches = 0;
    while let Some(outgoing) = spool.next(budget, boot()).await.unwrap() {
        batches += 1;
        assert!(batches <= RECORDS, "it sends the same again and again");
        if stream != Some(outgoing.stream) {
            stream = Some(outgoing.stream);
            let current = outgoing.stream == spool.stream();
            streams.push((current, BTreeSet::new(), BTreeSet::new()));
        }
        let (_, records, lost) = streams.last_mut().unwrap();
        for part in &outgoing.parts {
            assert_eq!(part.class, Class::Critical);
            let mut highest = part.first_seq - 1;
            for record in &part.records {
                let number = super::texts(&infratrack_shared::wire::batch::Part {
                    records: vec![record.clone()],
                    ..part.clone()
                });
                assert!(number[0].starts_with(&format!("{:06}", record.seq)));
                assert!(records.insert(record.seq));
                highest = highest.max(record.seq);
            }
            for range in &part.lost {
                assert_eq!(range.reason, LostReason::Damaged);
                lost.extend(range.from..=range.to);
                highest = highest.max(range.to);
            }
            let done = cursor(outgoing.stream, part.class, highest);
            spool.acknowledge(&[done], NOW).await.unwrap();
        }
    }
    streams
}

/// Opens what is in `dir` and holds it to what was appended. Answers how many records are lost.
async fn check(dir: &Path, what: &str) -> u64 {
    let opening = tokio::time::timeout(START, open(dir));
    let (spool, report) = opening.await.unwrap_or_else(|_| panic!("{what}: no start"));
    let streams = drain(&spool).await;
    let [(_, records, lost)] = streams.as_slice() else {
        panic!("{what}: {} streams", streams.len());
    };
    let all: BTreeSet<u64> = records.union(lost).copied().collect();
    assert!(records.is_disjoint(lost), "{what}");
    assert_eq!(all, (ACKED + 1..=RECORDS).collect(), "{what}");
    if report != OpenReport::default() {
        let told = report.damaged[0].classes[0];
        assert_eq!(told.class, Class::Critical, "{what}");
        assert_eq!(told.expected, RECORDS - ACKED, "{what}");
        assert_eq!(told.salvaged, records.len() as u64, "{what}");
        assert!(report.moved_to.as_ref().is_some_and(|bad| bad.exists()));
    }
    let appended = spool.append(Class::Critical, numbered([1])).await;
    assert!(appended.is_ok(), "{what}");
    spool.damage_told().await.unwrap();
    spool.close().await.unwrap();
    // Damage that nothing has read yet may show later (1 of 300 zeroed files): counted all the same.
    let (spool, report) = open(dir).await;
    let part = super::next_part(&spool).await;
    let expected = usize::from(report.damaged.is_empty());
    assert_eq!(
        (part.records.len(), part.lost.len()),
        (expected, 1 - expected)
    );
    spool.close().await.unwrap();
    lost.len() as u64
}

fn only_generation(dir: &Path) -> PathBuf {
    let generations = files::generations(dir).unwrap();
    assert_eq!(generations.len(), 1);
    files::generation_dir(dir, generations[0])
}

fn mutate(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Bit,
    Blocks,
    Cut,
}

impl Damage {
    fn to(self, bytes: &mut Vec<u8>, random: &mut StdRng) {
        match self {
            Self::Bit => {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            Self::Blocks => {
                for _ in 0..4 {
                    let at = random.random_range(0..bytes.len().div_ceil(4096)) * 4096;
                    let end = bytes.len().min(at + 4096);
                    bytes[at..end].fill(0);
                }
            }
            Self::Cut => bytes.truncate(random.random_range(0..bytes.len())),
        }
    }
}

/// Damages the store with each seed; answers how many records were lost.
async fn campaign(damage: Damage, seeds: Range<u64>) -> u64 {
    let whole = filled().await;
    let mut lost = 0;
    for seed in seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempdir().unwrap();
        super::disk::copy_dir(whole.path(), dir.path());
        let db = only_generation(dir.path()).join("db");
        mutate(&db, |bytes| damage.to(bytes, &mut random));
        lost += check(dir.path(), &format!("{damage:?}, seed {seed}")).await;
    }
    lost
}

/// Files the spool can do without: the others say what was in them.
const SPARE: [&str; 5] = ["snap.", "conf", "watermark", "opening", "reserve"];

fn find(dir: &Path, name: &str) -> PathBuf {
    let below = fs::read_dir(only_generation(dir)).unwrap();
    let paths = fs::read_dir(dir).unwrap().chain(below);
    let mut paths = paths.map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(name)
    };
    paths.find(named).unwrap_or_else(|| panic!("no {name}"))
}

/// Damages or removes each file that can be done without, with each seed: nothing may be lost.
async fn spare_campaign(seeds: Range<u64>) {
    let whole = filled().await;
    fs::write(whole.path().join("opening"), "1\n").unwrap();
    for seed in seeds {
        for name in SPARE {
            let mut random = StdRng::seed_from_u64(seed);
            let damages = [
                Some(Damage::Bit),
                Some(Damage::Blocks),
                Some(Damage::Cut),
                None,
            ];
            let damage = damages[random.random_range(0..damages.len())];
            let dir = tempdir().unwrap();
            super::disk::copy_dir(whole.path(), dir.path());
            let path = find(dir.path(), name);
            match damage {
                Some(damage) => mutate(&path, |bytes| damage.to(bytes, &mut random)),
                None => fs::remove_file(path).unwrap(),
            }
            let what = format!("{name}: {damage:?}, seed {seed}");
            assert_eq!(check(dir.path(), &what).await, 0, "{what}");
        }
    }
}

#[tokio::test]
async fn an_undamaged_spool_loses_nothing() {
    assert_eq!(check(filled().await.path(), "whole").await, 0);
}

#[tokio::test]
async fn flipped_bits_lose_what_is_told_and_no_more() {
    campaign(Damage::Bit, 0..12).await;
}

#[tokio::test]
async fn zeroed_blocks_lose_what_is_told_and_no_more() {
    assert!(
        campaign(Damage::Blocks, 0..12).await > 0,
        "no damage was done"
    );
}

#[tokio::test]
async fn cut_files_lose_what_is_told_and_no_more() {
    assert!(campaign(Damage::Cut, 0..12).await > 0, "no damage was done");
}

#[tokio::test]
async fn damage_to_snapshot_settings_watermark_or_marker_loses_nothing() {
    spare_campaign(0..6).await;
}

#[tokio::test]
#[ignore = "takes half a minute; make soak"]
async fn five_hundred_damaged_stores_open_and_tell_what_is_lost() {
    let cpu = cpu_time();
    let bits = campaign(Damage::Bit, 100..400).await;
    let blocks = campaign(Damage::Blocks, 100..200).await;
    let cuts = campaign(Damage::Cut, 100..200).await;
    assert!(bits > 0 && blocks > 0 && cuts > 0, "no damage was done");
    let each = cpu_time().saturating_sub(cpu) / 500;
    assert!(each < Duration::from_secs(5), "{each:?} of CPU for each");
}

#[tokio::test]
#[ignore = "takes half a minute; make soak"]
async fn hundreds_of_damaged_spare_files_lose_nothing() {
    spare_campaign(100..160).await;
}

/// Of this whole process, with whatever runs beside.
fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .unwrap()
        .into()
}

#[tokio::test]
async fn a_lost_watermark_loses_nothing() {
    for garbled in [false, true] {
        let dir = filled().await;
        let watermark = dir.path().join("watermark");
        if garbled {
            mutate(&watermark, |bytes| bytes[20] ^= 1);
        } else {
            fs::remove_file(watermark).unwrap();
        }
        assert_eq!(check(dir.path(), "no watermark").await, 0);
    }
}

#[tokio::test]
async fn a_deleted_store_is_a_counted_loss() {
    let dir = filled().await;
    fs::remove_dir_all(only_generation(dir.path())).unwrap();
    let (spool, report) = open(dir.path()).await;
    assert_eq!(report.damaged[0].classes[0].salvaged, 0);
    let outgoing = next(&spool).await.unwrap();
    let lost = outgoing.parts[0].lost[0];
    assert_eq!((lost.from, lost.to), (ACKED + 1, RECORDS));
}

#[tokio::test]
async fn small_values_and_heartbeat_numbers_outlive_damage() {
    let dir = tempdir().unwrap();
    let (spool, _) = open(dir.path()).await;
    spool.put("dpkg", "offset".into()).await.unwrap();
    spool
        .append(Class::Critical, numbered(1..=3))
        .await
        .unwrap();
    let number = spool.heartbeat_number().await.unwrap();
    let stream = spool.stream();
    spool.close().await.unwrap();
    let bad = super::super::backend::Key::record(0, Class::Critical, 2);
    super::disk::edit(dir.path(), &bad, |value| value[10] ^= 1);
    let (spool, report) = open(dir.path()).await;
    assert_eq!(report.damaged[0].classes[0].salvaged, 2);
    assert_ne!(spool.stream(), stream);
    assert_eq!(spool.get("dpkg").await.unwrap().unwrap(), "offset");
    assert!(spool.heartbeat_number().await.unwrap() > number);
    let outgoing = next(&spool).await.unwrap();
    assert_eq!(outgoing.stream, stream);
    assert_eq!(super::seqs(&outgoing.parts[0]), [1, 3]);
}

#[tokio::test]
async fn a_probe_that_dies_costs_the_spool_but_not_the_count() {
    let dir = filled().await;
    let config = SpoolConfig {
        program: Some("/bin/false".into()),
        ..SpoolConfig::new(dir.path())
    };
    let (spool, report) = Spool::open(config, NOW).await.unwrap();
    assert_eq!(report.damaged[0].classes[0].expected, RECORDS - ACKED);
    let lost = next(&spool).await.unwrap().parts[0].lost[0];
    assert_eq!((lost.from, lost.to), (ACKED + 1, RECORDS));
}

#[tokio::test]
async fn without_a_binary_to_probe_with_the_spool_is_read_in_process() {
    let dir = filled().await;
    let config = SpoolConfig {
        program: Some(dir.path().join("missing")),
        ..SpoolConfig::new(dir.path())
    };
    let (_, report) = Spool::open(config, NOW).await.unwrap();
    assert_eq!(report, OpenReport::default());
}

#[tokio::test]
async fn openings_that_never_end_lead_to_a_quarantine() {
    let dir = filled().await;
    fs::write(dir.path().join("opening"), "4").unwrap();
    let (spool, report) = open(dir.path()).await;
    assert_eq!(report.damaged[0].classes[0].salvaged, RECORDS - ACKED);
    let [(_, records, lost)] = &drain(&spool).await[..] else {
        panic!("more than the old stream is sent");
    };
    assert_eq!((records.len() as u64, lost.len()), (RECORDS - ACKED, 0));
}

#[tokio::test]
async fn damage_is_reported_at_every_start_until_it_is_told() {
    let dir = filled().await;
    fs::remove_dir_all(only_generation(dir.path())).unwrap();
    let (spool, first) = open(dir.path()).await;
    spool.close().await.unwrap();
    let (spool, second) = open(dir.path()).await;
    assert!(!first.damaged.is_empty());
    assert_eq!(second.damaged, first.damaged);
    spool.damage_told().await.unwrap();
    spool.close().await.unwrap();
    let (_, third) = open(dir.path()).await;
    assert_eq!(third, OpenReport::default());
}
