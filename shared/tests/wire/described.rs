//! docs/protocol.md says what the code says.

use std::collections::BTreeMap;

use infratrack_shared::limits;
use infratrack_shared::wire::event::Event;
use infratrack_shared::wire::{CONTENT_TYPE, FRAMES_CONTENT_TYPE, path};

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// The cells of the table rows below the heading `title`, to the next heading.
fn rows(title: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = PAGE.split_once(title).expect("the heading is there");
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| {
        row.split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect()
    })
    .skip(2)
    .collect()
}

/// The names of the public constants in a source file.
fn constants(source: &str) -> Vec<&str> {
    let lines = source.lines().map(str::trim_start);
    let names = lines.filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    names.collect()
}

#[test]
fn the_table_of_limits_is_that_of_the_code() {
    let source = include_str!("../../src/limits.rs");
    let values: BTreeMap<&str, u64> = [
        ("DEPTH", limits::DEPTH as u64),
        ("STRING_BYTES", limits::STRING_BYTES as u64),
        ("BATCH_WIRE_BYTES", limits::BATCH_WIRE_BYTES as u64),
        ("BATCH_BYTES", limits::BATCH_BYTES as u64),
        ("ITEMS", limits::ITEMS as u64),
        ("BATCH_RECORDS", limits::BATCH_RECORDS as u64),
        ("BATCH_PARTS", limits::BATCH_PARTS as u64),
        ("BATCH_LOST_RANGES", limits::BATCH_LOST_RANGES as u64),
        ("BATCH_COMMANDS_SEEN", limits::BATCH_COMMANDS_SEEN as u64),
        ("BATCH_STATE_PARTS", limits::BATCH_STATE_PARTS as u64),
        ("RECORD_BYTES", limits::RECORD_BYTES as u64),
        ("STATE_PART_BYTES", limits::STATE_PART_BYTES as u64),
        ("STATE_PARTS", limits::STATE_PARTS.into()),
        ("NAME_BYTES", limits::NAME_BYTES as u64),
        (
            "HEARTBEAT_FILESYSTEMS",
            limits::HEARTBEAT_FILESYSTEMS as u64,
        ),
        ("ENROLL_BYTES", limits::ENROLL_BYTES as u64),
        ("PLAYS_BYTES", limits::PLAYS_BYTES as u64),
        ("PLAYS_RECORDS", limits::PLAYS_RECORDS as u64),
        ("BACKUP_BYTES", limits::BACKUP_BYTES as u64),
        ("BACKUP_MISSING_IDS", limits::BACKUP_MISSING_IDS as u64),
        ("BACKUP_PLACES", limits::BACKUP_PLACES as u64),
        ("BACKUP_NEIGHBORS", limits::BACKUP_NEIGHBORS as u64),
        ("BACKUP_SNAPSHOTS", limits::BACKUP_SNAPSHOTS as u64),
        ("BACKUP_VOLUMES", limits::BACKUP_VOLUMES as u64),
        ("BACKUP_ERRORS", limits::BACKUP_ERRORS as u64),
        ("FRAME_BYTES", limits::FRAME_BYTES as u64),
        ("WAIT_MS", limits::WAIT_MS.into()),
        ("COMPRESS_ABOVE_BYTES", limits::COMPRESS_ABOVE_BYTES as u64),
        ("ZSTD_WINDOW_LOG", limits::ZSTD_WINDOW_LOG.into()),
    ]
    .into();
    let mut of_the_source = constants(source);
    of_the_source.sort_unstable();
    assert_eq!(of_the_source, values.keys().copied().collect::<Vec<_>>());
    let described: BTreeMap<&str, u64> = rows("\n## Limits")
        .iter()
        .map(|row| (row[0], row[1].parse().expect("a number")))
        .collect();
    assert_eq!(described, values);
}

#[test]
fn every_code_of_a_problem_is_described_with_its_status() {
    let source = include_str!("../../src/wire/problem.rs");
    let words = source.lines().filter_map(|line| {
        let (_, value) = line.trim().strip_prefix("pub const ")?.split_once('"')?;
        value.strip_suffix("\";")
    });
    let table = rows("\n## Status codes");
    let mut described: Vec<&str> = table.iter().map(|row| row[1]).collect();
    let mut words: Vec<&str> = words.collect();
    described.sort_unstable();
    words.sort_unstable();
    assert_eq!(described, words);
    // The status stands in the comment above each code.
    for row in &table {
        let constant = format!("\"{}\";", row[1]);
        let (before, _) = source.split_once(&constant).expect("found above");
        let comment = before.rsplit("///").next().unwrap_or_default().trim();
        assert!(comment.starts_with(row[0]), "{}: {comment}", row[1]);
    }
}

#[test]
fn every_reason_of_a_run_is_described() {
    let source = include_str!("../../src/wire/backup.rs");
    let (_, reasons) = source.split_once("pub mod reason").expect("it is there");
    let (_, described) = PAGE.split_once("Reasons: ").expect("the line is there");
    let described = described.split("\n\n").next().unwrap_or_default();
    for line in reasons.lines().filter(|line| line.contains("pub const")) {
        let word = line.split('"').nth(1).expect("a text");
        assert!(described.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn every_known_kind_of_event_is_described() {
    let described: Vec<&str> = rows("\n### Kinds of events").iter().map(|r| r[0]).collect();
    assert_eq!(described, Event::KINDS);
}

#[test]
fn paths_and_types_of_content_are_those_of_the_code() {
    for word in [
        path::BATCH,
        path::PLAYS,
        path::BACKUP_VOLUMES,
        path::BACKUP_RUNS,
        path::BACKUP_BEAT,
        path::BACKUP_END,
        path::BACKUP_MISSING,
        path::BACKUP_SNAPSHOTS,
        path::BACKUP_PLACES,
        path::BACKUP_DRILLS,
        path::BACKUP_DRILL_BEAT,
        path::BACKUP_DRILL_END,
        path::PACKS,
        path::SNAPSHOTS,
        path::RENEW,
        path::ENROLL,
        path::CHALLENGE,
        path::RETURN,
        CONTENT_TYPE,
        FRAMES_CONTENT_TYPE,
    ] {
        assert!(PAGE.contains(word), "{word}");
    }
}
