//! Real agents back real files and programs up into a real collector, and get them back from a copy of its store.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use http::{Method, StatusCode};
use infratrack_agent::backup::chunks::Meter;
use infratrack_agent::backup::keys::Recovery;
use infratrack_agent::backup::remote;
use infratrack_agent::backup::restore::{Bucket, KeySources, Opened, Options, restore, verify};
use infratrack_agent::backup::run::{self, Host as BackupHost};
use infratrack_agent::clock::Clock;
use infratrack_shared::ids::VolumeId;
use infratrack_shared::wire::backup::{EndRun, Outcome, Trigger, Volume};
use serde_json::{Value, json};

use super::{create, send};
use crate::harness::{Collector, Host, eventually};
use crate::metrics::scrape;

/// A host with a `backup.toml`, and somebody who can recover its keys.
pub(super) struct Rig {
    pub(super) collector: Collector,
    pub(super) host: Host,
    pub(super) dir: tempfile::TempDir,
    pub(super) backups: BackupHost,
}

impl Rig {
    pub(super) async fn new(programs: &str) -> Self {
        let collector = Collector::start().await;
        let host = collector.host().await;
        let dir = tempfile::tempdir().unwrap();
        let address = collector.server.addresses.agents;
        let backups = backups(dir.path(), programs, (host.dir.path(), address));
        Self {
            collector,
            host,
            dir,
            backups,
        }
    }

    pub(super) async fn volume(&self, source: Value) -> Value {
        let body =
            json!({"host_id": self.host.id, "name": "shop", "source": source, "rpo_s": 3600});
        let (status, made) = create(&self.collector, &body).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made
    }

    /// As the daemon has it run.
    pub(super) async fn run(&self) -> EndRun {
        run_of(&self.backups).await
    }

    pub(super) fn recovery(&self) -> Recovery {
        Recovery::of_file(&self.dir.path().join("identity")).unwrap()
    }

    /// What the store of objects has, with nothing but the identity of who recovers.
    pub(super) fn restore(&self, id: &str, to: &Path) {
        let volume: VolumeId = id.parse().unwrap();
        let store = self.collector.data_dir.path().join("blobs");
        let bucket = Bucket::open(&store, volume).unwrap();
        restored(&bucket, self.recovery(), to);
    }
}

/// A `backup.toml` in a directory, and there too who can recover keys, for the host of this identity.
pub(super) fn backups(
    dir: &Path,
    programs: &str,
    (identity, agents): (&Path, SocketAddr),
) -> BackupHost {
    let identities = [0, 1].map(|_| age::x25519::Identity::generate());
    let secret = identities[1].to_string();
    fs::write(dir.join("identity"), secret.expose_secret()).unwrap();
    let public = identities.map(|identity| format!("{:?}", identity.to_public().to_string()));
    let allowed = dir.join("backup.toml");
    let (recipients, root) = (public.join(", "), dir.to_str().unwrap());
    let text = format!("recipients = [{recipients}]\nallowed_paths = [{root:?}]\n{programs}");
    fs::write(&allowed, text).unwrap();
    fs::set_permissions(&allowed, fs::Permissions::from_mode(0o600)).unwrap();
    BackupHost {
        collector: remote::Collector::new(identity.to_owned(), vec![agents.to_string()]),
        state_dir: dir.join("state"),
        allowed,
        hostname: "db1".to_owned(),
        clock: Clock::system(),
        patience: Duration::from_secs(20),
    }
}

/// Runs the host's one volume.
pub(super) async fn run_of(backups: &BackupHost) -> EndRun {
    let mut collector = backups.collector.clone();
    let volumes = collector.volumes().await.unwrap().volumes;
    let [volume] = <[Volume; 1]>::try_from(volumes).unwrap();
    let host = backups.clone();
    let run =
        tokio::task::spawn_blocking(move || run::run(&host, &volume, Trigger::Command, |_| ()));
    run.await.unwrap().unwrap()
}

/// The newest snapshot, with nothing but the bucket and the identity of who recovers.
pub(super) fn restored(bucket: &Bucket, recovery: Recovery, to: &Path) {
    assert_eq!(bucket.check_packs(), []);
    let keys = KeySources {
        recovery: Some(recovery),
        ..KeySources::own(to, bucket.volume())
    };
    let key = |id| keys.find(id, || bucket.wrapped_key(id));
    let opened = Opened::open(bucket, bucket.volume(), bucket.latest().unwrap(), key).unwrap();
    let (fetcher, root) = (|| opened.fetcher(bucket), &opened.manifest.root);
    let meter = Meter::default();
    fs::create_dir(to).unwrap();
    let options = Options::default();
    let restored = restore(fetcher(), root, to, &options, &meter).unwrap();
    assert!(restored.errors.is_empty(), "{restored:?}");
    let verified = verify(fetcher(), root, &options, &meter).unwrap();
    assert!(verified.errors.is_empty(), "{verified:?}");
}

/// Bytes that are no other's.
pub(super) fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub(super) fn tree(root: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                found.push((name, None));
                folders.push(path);
            } else {
                found.push((name, Some(fs::read(path).unwrap())));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_backed_up_once_and_come_back_from_the_store_and_a_key_alone() {
    let rig = Rig::new("").await;
    let www = rig.dir.path().join("www");
    fs::create_dir_all(www.join("a/b")).unwrap();
    fs::write(www.join("a/large"), noise(1, 5_000_000)).unwrap();
    for number in 0..50_u8 {
        fs::write(www.join(format!("a/b/{number}")), noise(number, 1000)).unwrap();
    }
    fs::write(www.join("empty"), "").unwrap();
    let made = rig.volume(json!({"files": {"paths": [www]}})).await;
    let id = made["id"].as_str().unwrap();

    let first = rig.run().await;
    assert_eq!(first.outcome, Outcome::Ok, "{first:?}");
    assert_eq!(first.progress.files, 52, "{first:?}");
    let volume = rig.collector.get(&format!("/api/v1/volumes/{id}")).await;
    assert_eq!(
        (&volume["status"], &volume["last_state"]),
        (&json!("ok"), &json!("ok"))
    );
    let kept = rig
        .collector
        .get(&format!("/api/v1/volumes/{id}/snapshots"))
        .await;
    assert_eq!(kept["total"], 1, "{kept}");
    assert_eq!(kept["items"][0]["snapshot"]["files"], 52);
    assert_eq!(kept["items"][0]["kept_because"][0], "last_whole");
    let scraped = scrape(&rig.collector).await;
    for line in [
        "storage_volume_count{status=\"ok\"} 1\n",
        "backup_last_success_timestamp{volume=\"shop\",host=\"test-host\"} ",
    ] {
        assert!(scraped.contains(line), "{line} is not in\n{scraped}");
    }

    let to = rig.dir.path().join("back");
    rig.restore(id, &to);
    let back = to.join(www.strip_prefix("/").unwrap());
    assert_eq!(tree(&back), tree(&www));

    // Unchanged files are not sent again, a changed one is.
    fs::write(www.join("a/b/7"), "changed").unwrap();
    let second = rig.run().await;
    assert_eq!(second.outcome, Outcome::Ok, "{second:?}");
    assert!(second.progress.sent_bytes < 64 * 1024, "{second:?}");
    let runs = rig
        .collector
        .get(&format!("/api/v1/backup-runs?volume={id}"))
        .await;
    assert_eq!(runs["total"], 2, "{runs}");
    assert_eq!(
        runs["items"][0]["snapshot_id"],
        json!(second.snapshot),
        "{runs}"
    );
    let to = rig.dir.path().join("again");
    rig.restore(id, &to);
    let back = to.join(www.strip_prefix("/").unwrap());
    assert_eq!(tree(&back), tree(&www));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_fails_is_no_backup_and_its_reason_is_told() {
    let flag = tempfile::NamedTempFile::new().unwrap();
    let script = format!("cat {}; exit $(cat {0} | wc -c)", flag.path().display());
    let program = format!("[programs.db]\nargv = [\"/bin/sh\", \"-c\", \"{script}\"]\n");
    let rig = Rig::new(&program).await;
    let made = rig.volume(json!({"command": {"program": "db"}})).await;
    let path = format!("/api/v1/volumes/{}", made["id"].as_str().unwrap());
    for (content, reason) in [("", "empty_output"), ("x", "exit_code")] {
        fs::write(flag.path(), content).unwrap();
        let ended = rig.run().await;
        assert_eq!(ended.outcome, Outcome::Failed, "{ended:?}");
        let volume = rig.collector.get(&path).await;
        assert_eq!(volume["last_state"], "failed", "{volume}");
        assert_eq!(volume["last_reason"], reason, "{volume}");
        assert_eq!(volume["status"], "failing", "{volume}");
    }
    let kept = rig.collector.get(&format!("{path}/snapshots")).await;
    assert_eq!(kept["total"], 0, "{kept}");
    assert_eq!(figures(&rig.collector).await, [2, 2, 0]);
    let timeline = format!("/api/v1/hosts/{}/timeline?kinds=backup", rig.host.id);
    let told = rig.collector.get(&timeline).await;
    assert_eq!(told["items"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(told["items"][0]["title"], "Backup of shop: failed");
    assert_eq!(told["items"][0]["body"]["reason"], "exit_code", "{told}");
    // The promise is broken an hour after it was made.
    rig.collector.clock.advance(time::Duration::hours(1));
    assert_eq!(rig.collector.get(&path).await["status"], "late");
    let late = rig.collector.get("/api/v1/volumes?status=late").await;
    assert_eq!(late["total"], 1, "{late}");
    assert_eq!(figures(&rig.collector).await, [2, 2, 1]);
}

/// Runs, failures and whether it is late, as they are scraped of the one volume.
async fn figures(collector: &Collector) -> [u64; 3] {
    let text = scrape(collector).await;
    [
        "backup_operations_total",
        "backup_failures_total",
        "backup_rpo_violation",
    ]
    .map(|name| {
        let line = format!("{name}{{volume=\"shop\",host=\"test-host\"}} ");
        let value = text.lines().find_map(|found| found.strip_prefix(&line));
        value.expect(name).parse().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_from_the_collector() {
    let program = "[programs.db]\nargv = [\"/bin/sh\", \"-c\", \"echo begun; exec sleep 60\"]\n";
    let rig = Rig::new(program).await;
    let made = rig.volume(json!({"command": {"program": "db"}})).await;
    let id = made["id"].as_str().unwrap();
    let cancel = async {
        let run = eventually("the run is listed", || async {
            let volume = rig.collector.get(&format!("/api/v1/volumes/{id}")).await;
            volume["running"].as_str().map(str::to_owned)
        });
        let path = format!("/api/v1/backup-runs/{}/orders", run.await);
        let order = json!({"order": "cancel"});
        let (status, run) = send(&rig.collector, Method::POST, &path, None, &order).await;
        assert_eq!(status, StatusCode::OK, "{run}");
        path
    };
    let (ended, path) = tokio::join!(rig.run(), cancel);
    assert_eq!(ended.outcome, Outcome::Cancelled, "{ended:?}");
    let again = json!({"order": "pause"});
    let (status, problem) = send(&rig.collector, Method::POST, &path, None, &again).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("run_ended"))
    );
    let runs = rig
        .collector
        .get(&format!("/api/v1/backup-runs?volume={id}&state=cancelled"))
        .await;
    assert_eq!(runs["total"], 1, "{runs}");
}
