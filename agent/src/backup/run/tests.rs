//! Runs from their beginning to their end: real programs, real files, real TLS; the collector's tables are in memory.

mod server;

use std::fs;
use std::time::Instant;

use age::secrecy::ExposeSecret;
use infratrack_shared::backup::{
    ChunkId, Content, Head, Manifest, PackHash, SnapshotKind, SnapshotState, TreeReader, VolumeKey,
};
use infratrack_shared::codec::{Limits, decode};
use infratrack_shared::ids::VolumeId;
use infratrack_shared::wire::backup::{Files, Order, Program, Snapshot, Source};
use tempfile::TempDir;

use self::server::Server;
use super::*;
use crate::backup::keys::Recovery;

/// A host with its collector and who can recover its keys.
struct Rig {
    dir: TempDir,
    server: Server,
    host: Host,
    volume: Volume,
}

impl Rig {
    /// With this script as the program `db`.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("agent"));
        let volume = Volume {
            id: VolumeId::random(),
            name: "shop".to_owned(),
            source: Source {
                command: Some(Program {
                    program: "db".to_owned(),
                }),
                ..Source::default()
            },
            is_database: true,
            schedule: None,
            jitter_s: 0,
            closed_windows: Vec::new(),
            bandwidth: None,
            pre_hook: None,
            post_hook: None,
            is_catalog_visible: false,
            is_paused: false,
            is_drill_due: false,
        };
        let host = Host {
            collector: Collector::new(dir.path().join("agent"), Vec::new()),
            state_dir: dir.path().join("backup"),
            allowed: dir.path().join("backup.toml"),
            hostname: "db1".to_owned(),
            clock: Clock::system(),
            patience: Duration::from_secs(20),
        };
        let identities = [0, 1].map(|_| age::x25519::Identity::generate());
        let secret = identities[1].to_string();
        fs::write(dir.path().join("identity"), secret.expose_secret()).unwrap();
        let public = identities.map(|identity| format!("{:?}", identity.to_public().to_string()));
        let after = dir.path().join("after");
        let text = format!(
            "recipients = [{}]\n\
             [programs.db]\nargv = [\"/bin/sh\", \"-c\", '''{script}''']\n\
             directory = {:?}\n\
             [hooks.good]\nargv = [\"/bin/sh\", \"-c\", \"echo . >>{}\"]\n\
             [hooks.bad]\nargv = [\"/bin/sh\", \"-c\", \"echo no >&2; exit 7\"]\n",
            public.join(", "),
            dir.path(),
            after.display()
        );
        fs::write(&host.allowed, text).unwrap();
        Self {
            dir,
            server,
            host,
            volume,
        }
    }

    fn run(&self) -> EndRun {
        self.server.kept().volume = Some(self.volume.clone());
        run(&self.host, &self.volume, Trigger::Host, |_| {}).unwrap()
    }

    /// What the collector was told last.
    fn told(&self) -> EndRun {
        self.server.kept().ended.last().unwrap().clone()
    }

    fn key(&self) -> VolumeKey {
        let recovery = Recovery::of_file(&self.dir.path().join("identity")).unwrap();
        let begun = &self.server.kept().begun[0];
        let wrapped = begun.key.as_ref().unwrap();
        recovery.unwrap(self.volume.id, &wrapped.age).unwrap()
    }

    /// Fetches content as a restore does.
    fn content(&self, key: &VolumeKey, content: &Content) -> Vec<u8> {
        let chunks: Vec<ChunkId> = content.chunks().unwrap().unwrap();
        let mut collector = self.host.collector.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let places = collector.places(self.volume.id, &chunks).await.unwrap();
            let mut bytes = Vec::new();
            for id in &chunks {
                let place = places.places.iter().find(|place| place.id == *id).unwrap();
                let (offset, length) = (u64::from(place.offset), u64::from(place.length));
                let pack: PackHash = place.pack;
                let sealed = collector.pack_bytes(self.volume.id, pack, offset, length);
                let sealed = sealed.await.unwrap();
                let origin = infratrack_shared::backup::Sealed {
                    salt: place.salt,
                    algorithm: place.algorithm,
                    counter: place.counter,
                };
                let plain = origin.open(key, self.volume.id, id, &sealed);
                bytes.extend(plain.unwrap());
            }
            bytes
        })
    }

    fn snapshot(&self, id: SnapshotId) -> bytes::Bytes {
        let mut collector = self.host.collector.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let snapshot = runtime.block_on(collector.snapshot(self.volume.id, id));
        snapshot.unwrap()
    }
}

#[test]
fn what_a_program_writes_comes_back_with_a_recovery_identity_alone() {
    let rig = Rig::new("head -c 9000000 /dev/urandom | tee copy");
    let ended = rig.run();
    assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");
    assert_eq!(rig.told(), ended);
    assert_eq!((ended.progress.files, ended.progress.bytes), (1, 9_000_000));
    assert!(ended.new_bytes > 9_000_000 && ended.progress.sent_bytes > 9_000_000);
    fs::remove_dir_all(rig.host.state_dir.join("keys")).unwrap();
    let key = rig.key();
    let (head, manifest) = Manifest::open(&rig.snapshot(ended.snapshot.unwrap()), &key).unwrap();
    assert_eq!(
        (head.state, head.kind),
        (SnapshotState::Ok, SnapshotKind::Command)
    );
    assert_eq!((head.host_id, head.bytes), (rig.server.host, 9_000_000));
    assert_eq!(manifest.source, ["db"]);
    let mut reader = TreeReader::default();
    reader.feed(&rig.content(&key, &manifest.root));
    let node = reader.next_node().unwrap().unwrap();
    let content = rig.content(&key, node.content.as_ref().unwrap());
    assert!(content == fs::read(rig.dir.path().join("copy")).unwrap());
    assert!(rig.server.kept().beats >= 1);
}

#[test]
fn what_the_collector_has_is_not_sent_again() {
    let rig = Rig::new("cat data");
    let mut data = vec![0; 3_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    fs::write(rig.dir.path().join("data"), &data).unwrap();
    let (first, second) = (rig.run(), rig.run());
    assert_eq!((first.outcome, second.outcome), (Outcome::Ok, Outcome::Ok));
    assert!(second.new_bytes < 1_000, "{}", second.new_bytes);
    let keys = |at: usize| rig.server.kept().begun[at].key.clone().unwrap();
    assert_eq!(keys(0), keys(1));
}

#[test]
fn files_are_backed_up_and_unchanged_ones_are_not_sent_again() {
    let mut rig = Rig::new("");
    let folder = fs::canonicalize(rig.dir.path()).unwrap().join("data");
    fs::create_dir(&folder).unwrap();
    for (name, length) in [("small", 10), ("large", 3_000_000)] {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        fs::write(folder.join(name), bytes).unwrap();
    }
    let text = fs::read_to_string(&rig.host.allowed).unwrap();
    let text = format!("allowed_paths = [{folder:?}]\n{text}");
    fs::write(&rig.host.allowed, text).unwrap();
    let path = folder.to_str().unwrap().to_owned();
    rig.volume.source = Source {
        files: Some(Files {
            paths: vec![path],
            ..Files::default()
        }),
        ..Source::default()
    };
    let first = rig.run();
    assert_eq!(first.outcome, Outcome::Ok, "{first:?}");
    assert_eq!((first.progress.files, first.progress.bytes), (2, 3_000_010));
    let second = rig.run();
    assert_eq!(second.outcome, Outcome::Ok, "{second:?}");
    // Folders above it may change meanwhile, and are told anew.
    assert!(second.new_bytes < 10_000, "{}", second.new_bytes);
    let kept = rig.server.kept();
    assert_eq!(kept.begun[1].parent, first.snapshot);
    let bytes = |at: usize| Head::of_snapshot(&kept.snapshots[at]).unwrap().bytes;
    assert_eq!((bytes(0), bytes(1)), (3_000_010, 3_000_010));
    drop(kept);
    rig.volume.source.files = Some(Files {
        paths: vec!["/etc".to_owned()],
        ..Files::default()
    });
    assert_eq!(rig.run().reason.as_deref(), Some(reason::NOT_ALLOWED));
}

#[test]
fn a_failed_program_leaves_no_snapshot_and_what_comes_after_runs() {
    let mut rig = Rig::new("head -c 5000000 /dev/urandom; echo broken >&2; exit 3");
    rig.volume.post_hook = Some("good".to_owned());
    let ended = rig.run();
    assert_eq!(ended.outcome, Outcome::Failed);
    assert_eq!(ended.reason.as_deref(), Some(reason::EXIT_CODE));
    assert_eq!(ended.detail.as_deref(), Some("it ended with 3; broken"));
    assert!(ended.snapshot.is_none() && rig.server.kept().snapshots.is_empty());
    assert!(rig.dir.path().join("after").exists());
    assert_eq!(rig.told(), ended);
}

#[test]
fn hooks_decide_whether_a_run_is_good() {
    let mut rig = Rig::new("echo data");
    rig.volume.pre_hook = Some("bad".to_owned());
    rig.volume.post_hook = Some("good".to_owned());
    let ended = rig.run();
    assert_eq!(ended.outcome, Outcome::Failed);
    assert_eq!(ended.reason.as_deref(), Some(reason::PRE_HOOK));
    assert!(rig.dir.path().join("after").exists());
    rig.volume.pre_hook = Some("good".to_owned());
    rig.volume.post_hook = Some("bad".to_owned());
    let ended = rig.run();
    assert_eq!(ended.outcome, Outcome::Incomplete, "{ended:?}");
    assert_eq!(ended.reason.as_deref(), Some(reason::POST_HOOK));
    let snapshot = rig.server.kept().snapshots.last().unwrap().clone();
    let head = Head::of_snapshot(&snapshot).unwrap();
    assert_eq!(head.state, SnapshotState::Incomplete);
    rig.volume.pre_hook = Some("nobody-knows".to_owned());
    assert_eq!(rig.run().reason.as_deref(), Some(reason::PRE_HOOK));
}

#[test]
fn a_dump_is_compared_with_the_last_good_one() {
    let rig = Rig::new("echo data");
    rig.server.kept().last_ok = Some(Snapshot {
        id: SnapshotId::random(),
        host: rig.server.host,
        at: UnixMillis(0),
        is_whole: true,
        files: 1,
        bytes: 1_000,
    });
    let ended = rig.run();
    assert_eq!(ended.reason.as_deref(), Some(reason::SHRUNK));
    assert!(rig.server.kept().snapshots.is_empty());
}

#[test]
fn a_run_that_somebody_cancels_ends_soon() {
    let rig = Rig::new("echo data; exec sleep 600");
    rig.server.kept().order = Order::Cancel;
    let begun = Instant::now();
    let ended = rig.run();
    assert_eq!(ended.outcome, Outcome::Cancelled, "{ended:?}");
    assert_eq!(ended.reason.as_deref(), Some(reason::CANCELLED));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn without_a_sound_configuration_nothing_is_run_and_the_collector_hears_why() {
    let rig = Rig::new("echo run >ran");
    let text = fs::read_to_string(&rig.host.allowed).unwrap();
    let without = |text: &str| {
        fs::write(&rig.host.allowed, text).unwrap();
        rig.run().reason.unwrap()
    };
    let (_, rest) = text.split_once('\n').unwrap();
    assert_eq!(without(rest), reason::NO_RECIPIENTS);
    assert_eq!(without("recipients = 1"), reason::CONFIGURATION);
    let (recipients, _) = text.split_once('\n').unwrap();
    assert_eq!(without(recipients), reason::UNKNOWN_PROGRAM);
    assert_eq!(rig.server.kept().ended.len(), 3);
    assert!(!rig.dir.path().join("ran").exists());
}

#[test]
fn a_collector_that_is_away_is_told_later_by_what_is_left_for_the_daemon() {
    let mut rig = Rig::new("echo data");
    rig.host.patience = Duration::ZERO;
    rig.host.collector =
        Collector::new(rig.dir.path().join("agent"), vec!["127.0.0.1:1".to_owned()]);
    let ended = rig.run();
    assert_eq!(ended.outcome, Outcome::Failed);
    assert_eq!(ended.reason.as_deref(), Some(reason::COLLECTOR_AWAY));
    let path = rig
        .host
        .state_dir
        .join("results")
        .join(ended.run.to_string());
    let left: EndRun = decode(&fs::read(path).unwrap(), &Limits::default()).unwrap();
    assert_eq!(left, ended);
}

#[test]
fn another_tools_run_is_told_without_a_key() {
    let mut rig = Rig::new("exit 0");
    let command = rig.volume.source.command.take();
    rig.volume.source.external = command;
    let ended = rig.run();
    assert_eq!(ended.outcome, Outcome::Ok);
    assert!(ended.snapshot.is_none());
    assert!(rig.server.kept().begun[0].key.is_none());
}

#[test]
fn one_volume_has_one_run() {
    let rig = Rig::new("echo data");
    let _held = VolumeLock::take(&rig.host.state_dir, rig.volume.id).unwrap();
    let refused = run(&rig.host, &rig.volume, Trigger::Host, |_| {});
    assert!(matches!(refused, Err(NoRun::UnderWay)));
}
