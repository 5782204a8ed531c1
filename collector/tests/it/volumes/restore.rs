//! Real agents get back from a real collector what they backed up, or what another host did and they have a grant for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use http::{Method, StatusCode};
use infratrack_agent::backup::chunks::Meter;
use infratrack_agent::backup::keys::{Held, Keys, Recovery};
use infratrack_agent::backup::remote;
use infratrack_agent::backup::restore::{
    self, KeySources, Opened, Options, Remote, Restored, Source, SourceError,
};
use infratrack_shared::ids::VolumeId;
use infratrack_shared::wire::backup::Outcome;
use serde_json::{Value, json};

use super::agent::{Rig, noise, tree};
use super::{path, send};
use crate::harness::Host;

const PATIENCE: Duration = Duration::from_secs(2);

/// A volume, from a host that may not be its own.
pub(super) struct Reader {
    pub(super) remote: Remote,
    keys: KeySources,
}

impl Reader {
    /// On the host that the volume is of.
    pub(super) fn own(rig: &Rig, volume: &Value) -> Self {
        let volume = id(volume);
        Self {
            remote: Remote::new(rig.backups.collector.clone(), volume, PATIENCE),
            keys: KeySources::own(&rig.backups.state_dir, volume),
        }
    }

    /// On another, with a recovery identity.
    pub(super) fn other(rig: &Rig, host: &Host, volume: &Value) -> Self {
        let volume = id(volume);
        let address = rig.collector.server.addresses.agents.to_string();
        let collector = remote::Collector::new(host.dir.path().to_owned(), vec![address]);
        Self {
            remote: Remote::new(collector, volume, PATIENCE),
            keys: KeySources {
                recovery: Some(rig.recovery()),
                ..KeySources::own(host.dir.path(), volume)
            },
        }
    }

    pub(super) fn open(&self) -> anyhow::Result<Opened> {
        let found = self.remote.snapshots(None)?;
        let newest = found.snapshots.first().expect("there is a snapshot");
        let key = |id| self.keys.find(id, || self.remote.wrapped_key(id));
        Opened::open(&self.remote, self.remote.volume(), newest.id, key)
    }

    pub(super) fn restore(&self, to: &Path, options: &Options) -> (Restored, u64) {
        fs::create_dir_all(to).unwrap();
        let (opened, meter) = (self.open().unwrap(), Meter::default());
        let (from, root) = (opened.fetcher(&self.remote), &opened.manifest.root);
        let restored = restore::restore(from, root, to, options, &meter).unwrap();
        (restored, self.remote.read_bytes())
    }
}

fn id(volume: &Value) -> VolumeId {
    volume["id"].as_str().unwrap().parse().unwrap()
}

/// Restoring blocks its thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn www(rig: &Rig) -> PathBuf {
    let www = rig.dir.path().join("www");
    fs::create_dir_all(www.join("a/b")).unwrap();
    fs::write(www.join("a/large"), noise(1, 3_000_000)).unwrap();
    for number in 0..100_u8 {
        let folder = www.join(format!("a/b/{}", number % 10));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(number.to_string()), noise(number, 1000)).unwrap();
    }
    www
}

pub(super) fn below(to: &Path, path: &Path) -> PathBuf {
    to.join(path.strip_prefix("/").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_its_files_back_with_its_own_key_and_reads_little_for_one_of_them() {
    let rig = Rig::new("").await;
    let www = www(&rig);
    let made = rig.volume(json!({"files": {"paths": [www]}})).await;
    let ended = rig.run().await;
    assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");
    blocking(move || {
        let to = rig.dir.path().join("back");
        let reader = Reader::own(&rig, &made);
        let (restored, _) = reader.restore(&to, &Options::default());
        assert_eq!(
            (restored.errors_total, restored.files),
            (0, 101),
            "{restored:?}"
        );
        assert_eq!(tree(&below(&to, &www)), tree(&www));

        // What is there is left; what a restore that was stopped did not come to is written.
        fs::remove_dir_all(below(&to, &www).join("a/b/3")).unwrap();
        let again = Reader::own(&rig, &made);
        let (restored, read) = again.restore(&to, &Options::default());
        assert_eq!(
            (restored.errors_total, restored.left),
            (0, 91),
            "{restored:?}"
        );
        assert!(read < 500_000, "{read} bytes");
        assert_eq!(tree(&below(&to, &www)), tree(&www));

        let options = Options {
            paths: vec![format!("{}/a/b/7/47", www.display())],
            ..Options::default()
        };
        let to = rig.dir.path().join("one");
        let reader = Reader::own(&rig, &made);
        let (restored, read) = reader.restore(&to, &options);
        assert_eq!(
            (restored.errors_total, restored.files),
            (0, 1),
            "{restored:?}"
        );
        assert!(read < 500_000, "{read} bytes");
        let there = fs::read(below(&to, &www).join("a/b/7/47")).unwrap();
        assert!(there == noise(47, 1000));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_restores_by_a_grant_and_a_recovery_identity_and_not_without() {
    let program = "[programs.db]\nargv = [\"/bin/echo\", \"a dump\"]\n";
    let rig = Rig::new(program).await;
    let made = rig.volume(json!({"command": {"program": "db"}})).await;
    assert_eq!(rig.run().await.outcome, Outcome::Ok);
    let other = rig.collector.host().await;
    let grant = json!({"host_id": other.id, "reason": "moved"});
    let grants = format!("{}/grants", path(&made));
    let (rig, made, other) = blocking(move || {
        let reader = Reader::other(&rig, &other, &made);
        let refused = reader.remote.snapshots(None).unwrap_err();
        let is_none = matches!(&refused, SourceError::Unreadable { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound);
        assert!(is_none, "{refused:?}");
        (rig, made, other)
    })
    .await;
    let (status, granted) = send(&rig.collector, Method::POST, &grants, None, &grant).await;
    assert_eq!(status, StatusCode::CREATED, "{granted}");
    let (rig, made, other) = blocking(move || {
        let reader = Reader::other(&rig, &other, &made);
        let opened = reader.open().unwrap();
        let mut out = Vec::new();
        let from = opened.fetcher(&reader.remote);
        restore::dump(from, &opened.manifest.root, None, &mut out).unwrap();
        assert_eq!(out, b"a dump\n");
        let without = Reader {
            keys: KeySources::own(other.dir.path(), id(&made)),
            ..reader
        };
        let error = without.open().unwrap_err().to_string();
        assert!(error.contains("pass a recovery identity"), "{error}");
        rewrapped(&rig, &other, without);
        (rig, made, other)
    })
    .await;
    let grant = format!("{grants}/{}", granted["id"].as_str().unwrap());
    let (status, _) = send(&rig.collector, Method::DELETE, &grant, None, &Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    blocking(move || {
        let reader = Reader::other(&rig, &other, &made);
        assert!(reader.remote.snapshots(None).is_err());
    })
    .await;
}

/// With the key that its own host wrapped for the other's identity.
fn rewrapped(rig: &Rig, other: &Host, reader: Reader) {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string().parse().unwrap();
    let keys = Keys::of(&rig.backups.state_dir, reader.remote.volume());
    let [held] = <[Held; 1]>::try_from(keys.all().unwrap()).unwrap();
    let [secret, key] = ["own-identity", "wrapped"].map(|name| other.dir.path().join(name));
    fs::write(&secret, identity.to_string().expose_secret()).unwrap();
    fs::write(&key, keys.wrap_for(&held, &recipient).unwrap()).unwrap();
    let mut keys = reader.keys.with_file(&key).unwrap();
    keys.recovery = Some(Recovery::of_file(&secret).unwrap());
    let reader = Reader { keys, ..reader };
    let opened = reader.open().unwrap();
    let mut out = Vec::new();
    let from = opened.fetcher(&reader.remote);
    restore::dump(from, &opened.manifest.root, None, &mut out).unwrap();
    assert_eq!(out, b"a dump\n");
}

fn packs(rig: &Rig, volume: &Value) -> Vec<PathBuf> {
    let blobs = rig.collector.data_dir.path().join("blobs");
    let packs = blobs.join(format!("backups/{}/packs", id(volume)));
    let files = tree(&packs)
        .into_iter()
        .filter(|(_, bytes)| bytes.is_some());
    files.map(|(path, _)| packs.join(path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_damaged_is_named_and_no_file_has_it() {
    let rig = Rig::new("").await;
    let www = www(&rig);
    let made = rig.volume(json!({"files": {"paths": [www]}})).await;
    assert_eq!(rig.run().await.outcome, Outcome::Ok);
    // The largest has the contents.
    let pack = packs(&rig, &made)
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len());
    let pack = pack.unwrap();
    blocking(move || {
        let good = fs::read(&pack).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&pack, bad).unwrap();
        let to = rig.dir.path().join("flipped");
        let (restored, _) = Reader::own(&rig, &made).restore(&to, &Options::default());
        assert_eq!(restored.errors_total, 1, "{restored:?}");
        assert!(
            restored.errors[0].what.contains("does not open"),
            "{restored:?}"
        );
        let back = tree(&below(&to, &www));
        assert_eq!(
            back.len(),
            tree(&www).len() - 1,
            "the large file alone is missing"
        );

        // A pack that is gone is not what ends the rest.
        fs::remove_file(&pack).unwrap();
        let to = rig.dir.path().join("gone");
        let (restored, _) = Reader::own(&rig, &made).restore(&to, &Options::default());
        assert_eq!(restored.errors_total, 101, "{restored:?}");

        // Whole again, what is missing comes.
        fs::write(&pack, good).unwrap();
        let (restored, _) = Reader::own(&rig, &made).restore(&to, &Options::default());
        assert_eq!(restored.errors_total, 0, "{restored:?}");
        assert_eq!(tree(&below(&to, &www)), tree(&www));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_ends_a_restore_and_the_next_goes_on() {
    let rig = Rig::new("").await;
    let www = www(&rig);
    let made = rig.volume(json!({"files": {"paths": [www]}})).await;
    assert_eq!(rig.run().await.outcome, Outcome::Ok);
    blocking(move || {
        let to = rig.dir.path().join("back");
        fs::create_dir(&to).unwrap();
        let reader = Reader::own(&rig, &made);
        let opened = reader.open().unwrap();
        let nowhere = vec!["127.0.0.1:1".to_owned()];
        let collector = remote::Collector::new(rig.host.dir.path().to_owned(), nowhere);
        let away = Remote::new(collector, reader.remote.volume(), PATIENCE);
        let (from, root) = (opened.fetcher(&away), &opened.manifest.root);
        let (options, meter) = (Options::default(), Meter::default());
        let ended = restore::restore(from, root, &to, &options, &meter).unwrap_err();
        assert!(
            ended.to_string().contains("nothing more can be read"),
            "{ended}"
        );
        let (restored, _) = reader.restore(&to, &options);
        assert_eq!(restored.errors_total, 0, "{restored:?}");
        assert_eq!(tree(&below(&to, &www)), tree(&www));
    })
    .await;
}
