//! Backups as release 0.1.0 spoke of them: every document with every field in use, and the least of some.

use infratrack_shared::backup::{Algorithm, ChunkId, KeyId, PackHash, Refs, Salt};
use infratrack_shared::ids::{BackupRunId, DrillId, HostId, SnapshotId, VolumeId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::backup::{
    Beat, Beaten, BeginRun, Begun, EndRun, Ended, Files, Missing, MissingAsked, Order, Outcome,
    PackStored, Place, Places, PlacesAsked, Program, Progress, Snapshot, SnapshotStored, Snapshots,
    SnapshotsAsked, Source, Trigger, Volume, Volumes, VolumesAsked, WrappedKey, reason,
};
use infratrack_shared::wire::drill::{
    BeginDrill, BegunDrill, CheckOutcome, DrillBeat, DrillCheck, DrillMode, DrillReport, EndDrill,
};
use serde_bytes::ByteBuf;
use uuid::Uuid;

use crate::check;

/// 2026-01-01T00:00:00Z.
const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
const RUN: BackupRunId = BackupRunId(id(0x20));
const DRILL: DrillId = DrillId(id(0x23));
const VOLUME: VolumeId = VolumeId(id(0x21));
const SNAPSHOT: SnapshotId = SnapshotId(id(0x22));

const fn id(n: u8) -> Uuid {
    Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 | n as u128)
}

/// The names of what is recorded.
pub(crate) const NAMES: [&str; 28] = [
    "backup-beat",
    "backup-beaten",
    "backup-begin-external",
    "backup-begin-locked",
    "backup-begin-run",
    "backup-begun",
    "backup-end-least",
    "backup-drill-beat",
    "backup-drill-begin",
    "backup-drill-begin-least",
    "backup-drill-begun",
    "backup-drill-end",
    "backup-drill-end-least",
    "backup-ended",
    "backup-missing",
    "backup-missing-asked",
    "backup-pack-stored",
    "backup-places",
    "backup-places-asked",
    "backup-places-asked-with-neighbors",
    "backup-snapshot-missing",
    "backup-snapshot-stored",
    "backup-snapshots",
    "backup-snapshots-asked",
    "backup-volume-command",
    "backup-volume-external",
    "backup-volumes",
    "backup-volumes-asked",
];

fn volume() -> Volume {
    Volume {
        id: VOLUME,
        name: "etc".to_owned(),
        source: Source {
            files: Some(Files {
                paths: vec!["/etc".to_owned(), "/srv".to_owned()],
                excludes: vec!["*.tmp".to_owned()],
                crosses_file_systems: true,
            }),
            ..Source::default()
        },
        is_database: true,
        schedule: Some("0 3 * * *".to_owned()),
        jitter_s: 900,
        closed_windows: vec![(480, 1080), (1380, 60)],
        bandwidth: Some(10_000_000),
        pre_hook: Some("freeze".to_owned()),
        post_hook: Some("thaw".to_owned()),
        is_catalog_visible: true,
        is_paused: true,
        is_drill_due: false,
    }
}

/// With nothing but what has to be.
fn least(source: Source) -> Volume {
    Volume {
        id: VOLUME,
        name: "db".to_owned(),
        source,
        is_database: false,
        schedule: None,
        jitter_s: 0,
        closed_windows: Vec::new(),
        bandwidth: None,
        pre_hook: None,
        post_hook: None,
        is_catalog_visible: false,
        is_paused: false,
        is_drill_due: false,
    }
}

fn program(program: &str) -> Program {
    let program = program.to_owned();
    Program { program }
}

fn key() -> WrappedKey {
    WrappedKey {
        id: KeyId::new([4; 16]),
        age: ByteBuf::from(b"age-encryption.org/v1\n".to_vec()),
        recipients: vec!["age1one".to_owned(), "age1two".to_owned()],
    }
}

fn begin() -> BeginRun {
    BeginRun {
        protocol: 1,
        run: RUN,
        volume: VOLUME,
        trigger: Trigger::Schedule,
        started_at: NOW,
        agent: "0.1.0".to_owned(),
        key: Some(key()),
        parent: Some(SNAPSHOT),
        has_lock: false,
    }
}

fn progress() -> Progress {
    Progress {
        files: 10,
        bytes: 1_000,
        files_expected: Some(20),
        bytes_expected: Some(2_000),
        sent_bytes: 500,
        packs: 1,
    }
}

fn refs() -> Refs {
    let mut refs = Refs::default();
    for counter in [0, 1, 2, 9, 65_535] {
        refs.insert(Salt::new([1; 16]), counter);
    }
    refs.insert(Salt::new([2; 16]), 7);
    refs
}

fn snapshot() -> Snapshot {
    Snapshot {
        id: SNAPSHOT,
        host: HostId(id(4)),
        at: NOW,
        is_whole: true,
        files: 10,
        bytes: 1_000,
    }
}

pub(crate) fn end() -> EndRun {
    EndRun {
        run: RUN,
        volume: VOLUME,
        trigger: Trigger::Command,
        started_at: NOW,
        ended_at: UnixMillis(NOW.0 + 60_000),
        outcome: Outcome::Incomplete,
        reason: Some(reason::UNREADABLE_FILES.to_owned()),
        detail: Some("2 files could not be read".to_owned()),
        errors: vec!["/srv/x: permission denied".to_owned()],
        errors_total: 2,
        progress: progress(),
        new_bytes: 700,
        snapshot: Some(SNAPSHOT),
        cpu_ms: 1_234,
    }
}

fn end_least() -> EndRun {
    EndRun {
        outcome: Outcome::Ok,
        reason: None,
        detail: None,
        errors: Vec::new(),
        errors_total: 0,
        progress: Progress::default(),
        new_bytes: 0,
        snapshot: None,
        cpu_ms: 0,
        ..end()
    }
}

fn begun() -> Begun {
    Begun {
        volume: volume(),
        lease_ms: 120_000,
        server_time: NOW,
        last_ok: Some(snapshot()),
        has_parent: true,
        lost: refs(),
    }
}

#[test]
fn recorded_documents_about_runs_decode_to_what_was_sent() {
    check("backup-volumes-asked", &VolumesAsked { protocol: 1 });
    let volumes = Volumes {
        volumes: vec![volume()],
        server_time: NOW,
    };
    check("backup-volumes", &volumes);
    let command = Source {
        command: Some(program("pg_dump")),
        ..Source::default()
    };
    check("backup-volume-command", &least(command));
    let external = Source {
        external: Some(program("restic")),
        ..Source::default()
    };
    check("backup-volume-external", &least(external));
    check("backup-begin-run", &begin());
    let without = BeginRun {
        key: None,
        parent: None,
        trigger: Trigger::Host,
        ..begin()
    };
    check("backup-begin-external", &without);
    let locked = BeginRun {
        has_lock: true,
        ..begin()
    };
    check("backup-begin-locked", &locked);
    check("backup-begun", &begun());
    let beat = Beat {
        run: RUN,
        progress: progress(),
    };
    check("backup-beat", &beat);
    let order = Order::Pause;
    check("backup-beaten", &Beaten { order });
    check("backup-end-least", &end_least());
    check("backup-ended", &Ended {});
}

#[test]
fn recorded_documents_about_chunks_decode_to_what_was_sent() {
    let ids = ByteBuf::from(vec![5; 64]);
    let asked = MissingAsked {
        run: RUN,
        ids: ids.clone(),
    };
    check("backup-missing-asked", &asked);
    let held = [vec![1; 19], vec![0; 19]].concat();
    let held = ByteBuf::from(held);
    check("backup-missing", &Missing { held });
    let hash = PackHash::new([6; 32]);
    check("backup-pack-stored", &PackStored { hash });
    check("backup-snapshot-stored", &SnapshotStored::default());
    check(
        "backup-snapshot-missing",
        &SnapshotStored { missing: refs() },
    );
    let asked = SnapshotsAsked {
        volume: VOLUME,
        before: Some(SNAPSHOT),
    };
    check("backup-snapshots-asked", &asked);
    let snapshots = Snapshots {
        snapshots: vec![snapshot()],
        keys: vec![key()],
    };
    check("backup-snapshots", &snapshots);
    let volume = VOLUME;
    let mut asked = PlacesAsked {
        volume,
        ids,
        has_neighbors: false,
    };
    check("backup-places-asked", &asked);
    asked.has_neighbors = true;
    check("backup-places-asked-with-neighbors", &asked);
    let place = Place {
        id: ChunkId::new([5; 32]),
        pack: hash,
        offset: 48,
        length: 100_000,
        salt: Salt::new([1; 16]),
        algorithm: Algorithm::ChaCha20Poly1305,
        counter: 9,
    };
    let places = vec![place];
    check("backup-places", &Places { places });
}

#[test]
fn a_word_of_a_newer_release_is_its_catch_all() {
    let bytes = crate::bytes(&"someday".into());
    assert_eq!(crate::decode::<Trigger>(&bytes), Trigger::Other);
    assert_eq!(crate::decode::<Order>(&bytes), Order::Other);
    assert_eq!(crate::decode::<Outcome>(&bytes), Outcome::Other);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list")]
fn recorded_documents_about_drills_decode_to_what_was_sent() {
    let begin = BeginDrill {
        protocol: 1,
        drill: DRILL,
        volume: VOLUME,
        trigger: Trigger::Host,
        started_at: NOW,
        agent: "0.1.0".to_owned(),
        mode: Some(DrillMode::Database),
    };
    check("backup-drill-begin", &begin);
    let least = BeginDrill {
        mode: None,
        trigger: Trigger::Schedule,
        ..begin
    };
    check("backup-drill-begin-least", &least);
    let begun = BegunDrill {
        volume: Volume {
            is_drill_due: true,
            ..volume()
        },
        mode: DrillMode::Full,
        lease_ms: 120_000,
        server_time: NOW,
    };
    check("backup-drill-begun", &begun);
    let beat = DrillBeat {
        drill: DRILL,
        progress: progress(),
    };
    check("backup-drill-beat", &beat);
    let checks = [
        ("pg_restore_list", CheckOutcome::Ok),
        ("row_counts", CheckOutcome::Failed),
        ("throwaway_cluster", CheckOutcome::Skipped),
    ];
    let checks = checks.map(|(name, outcome)| DrillCheck {
        name: name.to_owned(),
        outcome,
        detail: "detail".to_owned(),
    });
    let end = EndDrill {
        drill: DRILL,
        volume: VOLUME,
        started_at: NOW,
        ended_at: UnixMillis(NOW.0 + 1000),
        outcome: Outcome::Failed,
        reason: Some(reason::CHECK_FAILED.to_owned()),
        detail: Some("detail".to_owned()),
        report: DrillReport {
            snapshot: Some(SNAPSHOT),
            is_sampled: true,
            files: 1,
            bytes: 2,
            files_total: 3,
            bytes_total: 4,
            read_bytes: 5,
            mismatches: 6,
            differing: vec!["srv/a: it differs".to_owned()],
            restore_ms: 7,
            checks: checks.to_vec(),
            tools: vec![("pg_restore".to_owned(), "17.1".to_owned())],
        },
    };
    check("backup-drill-end", &end);
    let least = EndDrill {
        outcome: Outcome::Ok,
        reason: None,
        detail: None,
        report: DrillReport::default(),
        ..end
    };
    check("backup-drill-end-least", &least);
}
