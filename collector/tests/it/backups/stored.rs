//! What is stored, and read again.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::StatusCode;
use infratrack_agent::identity::Identity;
use infratrack_shared::backup::{Manifest, joined};
use infratrack_shared::ids::{BackupRunId, SnapshotId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::backup::{
    Begun, Ended, Missing, MissingAsked, Outcome, Places, PlacesAsked, Snapshots, SnapshotsAsked,
    Volumes, VolumesAsked,
};
use infratrack_shared::wire::{PROTOCOL, path};
use infratrack_testkit::postgres::TestDatabase;
use sqlx::PgPool;

use super::{Client, Pack, Protected, ended, missing, now, program, state};
use crate::harness::{Collector, Host, enroll_at};
use crate::program::{Program, url};
use crate::secrets::aws;

async fn asked(client: &Client<'_>, run: BackupRunId, pack: &Pack) -> Vec<u8> {
    let ids = joined(&pack.ids);
    let ask = MissingAsked { run, ids };
    let missing: Missing = client.call(path::BACKUP_MISSING, &ask).await.unwrap();
    missing.held.into_vec()
}

/// As it is answered where all of a pack is held.
fn held(pack: &Pack) -> Vec<u8> {
    let chunks = (0..pack.ids.len()).map(|counter| {
        let counter = u16::try_from(counter).unwrap().to_be_bytes();
        [&[1], pack.salt.as_bytes().as_slice(), &counter].concat()
    });
    chunks.flatten().collect()
}

/// Everything a host does, each step sent twice as where an answer was lost.
async fn round_trip(client: &Client<'_>, volume: &Protected, at: UnixMillis) -> SnapshotId {
    let ask = VolumesAsked { protocol: PROTOCOL };
    let volumes: Volumes = client.call(path::BACKUP_VOLUMES, &ask).await.unwrap();
    let known: Vec<_> = volumes.volumes.iter().map(|known| known.id).collect();
    assert_eq!(known, [volume.id]);
    assert_eq!(volumes.volumes[0].closed_windows, [(480, 1080)]);
    assert_eq!(volumes.volumes[0].source, program());
    let run = BackupRunId::random();
    for _ in 0..2 {
        let begin = volume.begin(run, at);
        let begun: Begun = client.call(path::BACKUP_RUNS, &begin).await.unwrap();
        assert_eq!(begun.volume, volumes.volumes[0]);
        assert_eq!((begun.lease_ms, begun.last_ok), (120_000, None));
    }
    let pack = volume.pack(&[b"one", b"two", &vec![7; 100_000]]);
    assert_eq!(asked(client, run, &pack).await, [0; 3 * 19]);
    let id = SnapshotId::random();
    let snapshot = volume.sealed(&volume.head(client.host, id, at, &[&pack]));
    let early = client.put_snapshot(run, id, &snapshot).await;
    assert_eq!(early.status, StatusCode::CONFLICT);
    assert_eq!(missing(&early).len(), 3);
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let put = client.put_pack(run, pack.hash, &pack.bytes).await;
        assert_eq!(put.status, status);
    }
    assert_eq!(asked(client, run, &pack).await, held(&pack));
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let put = client.put_snapshot(run, id, &snapshot).await;
        assert_eq!((put.status, missing(&put).len()), (status, 0));
    }
    for _ in 0..2 {
        let end = volume.end(run, at, Outcome::Ok);
        let _: Ended = client.call(path::BACKUP_END, &end).await.unwrap();
    }
    restored(client, volume, id, &snapshot, &pack).await;
    id
}

/// Reads all of it back.
async fn restored(
    client: &Client<'_>,
    volume: &Protected,
    id: SnapshotId,
    snapshot: &Bytes,
    pack: &Pack,
) {
    let ask = SnapshotsAsked {
        volume: volume.id,
        before: None,
    };
    let list: Snapshots = client.call(path::BACKUP_SNAPSHOTS, &ask).await.unwrap();
    assert_eq!(list.keys, [volume.wrapped()]);
    assert_eq!(list.snapshots[0].id, id);
    let object = format!("{}{}/{id}", path::SNAPSHOTS, volume.id);
    let got = client.get(&object, None).await;
    assert_eq!((got.status, &got.body), (StatusCode::OK, snapshot));
    assert!(Manifest::open(&got.body, &volume.key).is_ok());
    let ids = joined(&pack.ids);
    let mut ask = PlacesAsked {
        volume: volume.id,
        ids,
        has_neighbors: false,
    };
    let places: Places = client.call(path::BACKUP_PLACES, &ask).await.unwrap();
    assert_eq!(places.places.len(), pack.ids.len());
    // The neighbors of one are all of its pack.
    ask.ids = joined(&pack.ids[..1]);
    let one: Places = client.call(path::BACKUP_PLACES, &ask).await.unwrap();
    assert_eq!(one.places.len(), 1);
    ask.has_neighbors = true;
    let near: Places = client.call(path::BACKUP_PLACES, &ask).await.unwrap();
    let near: BTreeSet<_> = near.places.iter().map(|place| place.offset).collect();
    let all: BTreeSet<_> = places.places.iter().map(|place| place.offset).collect();
    assert_eq!(near, all);
    for place in places.places {
        let object = format!("{}{}/{}", path::PACKS, volume.id, place.pack);
        let last = place.offset + place.length - 1;
        let range = format!("bytes={}-{last}", place.offset);
        let got = client.get(&object, Some(&range)).await;
        assert_eq!(got.status, StatusCode::PARTIAL_CONTENT);
        let of = format!("bytes {}-{last}/{}", place.offset, pack.bytes.len());
        assert_eq!(got.headers["content-range"], of.as_str());
        let sealed = infratrack_shared::backup::Sealed {
            salt: place.salt,
            algorithm: place.algorithm,
            counter: place.counter,
        };
        let opened = sealed.open(&volume.key, volume.id, &place.id, &got.body);
        assert!(opened.is_ok(), "{opened:?}");
    }
    let object = format!("{}{}/{}", path::PACKS, volume.id, pack.hash);
    let whole = client.get(&object, None).await;
    assert_eq!((whole.status, &whole.body), (StatusCode::OK, &pack.bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_stored_once_however_often_it_is_sent_and_comes_back_as_it_was() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let first = round_trip(&client, &volume, now(&collector)).await;
    let run: uuid::Uuid = sqlx::query_scalar("select run_id from backup_runs")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(state(&collector, BackupRunId(run)).await, ended("ok", ""));
    // The next run relies on it, and stores what is new alone.
    let again = volume.pack(&[b"one", b"three"]);
    let at = now(&collector);
    let begin = infratrack_shared::wire::backup::BeginRun {
        parent: Some(first),
        ..volume.begin(BackupRunId::random(), at)
    };
    let begun: Begun = client.call(path::BACKUP_RUNS, &begin).await.unwrap();
    assert!(begun.has_parent && begun.lost.is_empty());
    assert_eq!(begun.last_ok.unwrap().id, first);
    let answer = asked(&client, begin.run, &again).await;
    assert_eq!((answer[0], answer[19]), (1, 0));
    let objects: Vec<String> = ["packs", "snapshots", "keys"]
        .into_iter()
        .map(|kind| {
            let dir = format!("blobs/backups/{}/{kind}", volume.id);
            let dir = std::fs::read_dir(collector.data_dir.path().join(dir)).unwrap();
            let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(objects[0].len(), 2, "{objects:?}");
    assert_eq!(objects[1], first.to_string());
    assert_eq!(objects[2], format!("{}.age", volume.key.id()));
    let metrics = collector
        .server
        .app
        .metrics
        .encode(&collector.server.app)
        .unwrap();
    for line in [
        "backup_packs_total{outcome=\"stored\"} 1",
        "backup_packs_total{outcome=\"known\"} 1",
        "backup_packs_total{outcome=\"failed\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_and_snapshots_go_to_a_bucket_and_come_back_in_parts() {
    let aws = aws().await;
    aws.bucket("blobs").await.unwrap();
    let database = TestDatabase::create().await.unwrap();
    let mut program = Program::new("");
    let path = program.file("url", &url(&database, "none"));
    program.configure(&format!(
        "\n[s3]\nbucket = \"blobs\"\nprefix = \"prod\"\n[database]\nurl_file = {path:?}\n"
    ));
    program.environment.extend(aws.environment());
    let _running = program.serve();
    let listening = program.listening().await;
    let made = program.run(&["token", "enroll"]).stdout;
    let token: EnrollToken = String::from_utf8(made).unwrap().trim().parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    enroll_at(listening.enroll, &identity, &token)
        .await
        .unwrap();
    let host = Host::of(identity, dir);
    let pool = PgPool::connect_with(database.connect_options())
        .await
        .unwrap();
    let real = infratrack_collector::clock::Clock::system();
    let volume = Protected::insert(&pool, &host, "db", super::program(), real.now()).await;
    let client = Client {
        host: &host,
        address: listening.agents,
    };
    round_trip(&client, &volume, real.unix_millis()).await;
    let keys = aws.keys("blobs").await.unwrap();
    let of_volume = format!("prod/backups/{}/", volume.id);
    let ours = keys.iter().filter(|key| key.starts_with(&of_volume));
    assert_eq!(ours.count(), 3, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_was_condemned_lost_or_never_told_of_is_taken_again() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let pack = volume.pack(&[b"one", b"two"]);
    let parent = volume.backed_up(&client, now(&collector), &pack).await;
    let run = volume.run(&client, now(&collector)).await;
    let hex = pack.hash.to_string();
    let file = format!("blobs/backups/{}/packs/{}/{hex}", volume.id, &hex[..2]);
    let file = collector.data_dir.path().join(file);
    let sql = async |sql: &'static str| {
        sqlx::query(sql).execute(&collector.pool).await.unwrap();
    };
    let put = async || client.put_pack(run, pack.hash, &pack.bytes).await.status;
    sql("update packs set condemned_at = now()").await;
    assert_eq!(asked(&client, run, &pack).await, [0; 2 * 19]);
    assert_eq!(put().await, StatusCode::CREATED);
    assert_eq!(asked(&client, run, &pack).await, held(&pack));
    assert_eq!(put().await, StatusCode::OK);

    // Lost, for its object was damaged: what needs it says so until it is there again.
    let mut damaged = pack.bytes.to_vec();
    damaged[60] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    sql("update packs set lost_at = now()").await;
    sql("update chunks set is_lost = true").await;
    let begin = infratrack_shared::wire::backup::BeginRun {
        parent: Some(parent),
        ..volume.begin(run, now(&collector))
    };
    let begun: Begun = client.call(path::BACKUP_RUNS, &begin).await.unwrap();
    assert!(begun.has_parent);
    assert_eq!(begun.lost.len(), 2);
    assert_eq!(asked(&client, run, &pack).await, [0; 2 * 19]);
    let object = format!("{}{}/{}", path::PACKS, volume.id, pack.hash);
    assert_eq!(
        client.get(&object, None).await.status,
        StatusCode::NOT_FOUND
    );
    let id = SnapshotId::random();
    let at = now(&collector);
    let snapshot = volume.sealed(&volume.head(&host, id, at, &[&pack]));
    let early = client.put_snapshot(run, id, &snapshot).await;
    assert_eq!(
        (early.status, missing(&early).len()),
        (StatusCode::CONFLICT, 2)
    );
    assert_eq!(put().await, StatusCode::CREATED);
    assert_eq!(std::fs::read(&file).unwrap(), pack.bytes);
    let put_snapshot = async || client.put_snapshot(run, id, &snapshot).await.status;
    assert_eq!(put_snapshot().await, StatusCode::CREATED);

    // The process ended between the store and the tables, of a pack and of a snapshot.
    let lone = volume.pack(&[b"three"]);
    let hex = lone.hash.to_string();
    let dir = format!("blobs/backups/{}/packs/{}", volume.id, &hex[..2]);
    let dir = collector.data_dir.path().join(dir);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(hex), &lone.bytes).unwrap();
    let adopted = client.put_pack(run, lone.hash, &lone.bytes).await;
    assert_eq!(adopted.status, StatusCode::CREATED);
    assert_eq!(asked(&client, run, &lone).await, held(&lone));
    sql("update backup_runs set snapshot_id = null").await;
    sql("delete from snapshots where arrived_at = (select max(arrived_at) from snapshots)").await;
    assert_eq!(put_snapshot().await, StatusCode::CREATED);

    // A chunk that was moved stays where it is.
    sql("update chunks set pack_id = (select max(pack_id) from packs)").await;
    sql("update packs set condemned_at = now() where pack_id = (select min(pack_id) from packs)")
        .await;
    assert_eq!(put().await, StatusCode::CREATED);
    let moved: i64 = sqlx::query_scalar("select count(distinct pack_id) from chunks")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(moved, 1);
}
