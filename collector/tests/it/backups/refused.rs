//! What is refused, and what another host is told: that there is nothing.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use infratrack_shared::backup::{Head, MAX_PACK_BYTES, MAX_SNAPSHOT_BYTES, PackHash, joined};
use infratrack_shared::ids::{BackupRunId, SnapshotId};
use infratrack_shared::limits;
use infratrack_shared::wire::backup::{
    Beat, Beaten, BeginRun, Begun, Ended, Missing, MissingAsked, Outcome, Places, PlacesAsked,
    Program, Progress, Snapshots, SnapshotsAsked, Source, Volumes, VolumesAsked, WrappedKey,
};
use infratrack_shared::wire::path;
use serde_bytes::ByteBuf;
use tokio::io::AsyncReadExt;

use super::{Client, Pack, Protected, Refused, invalid, missing, not_found, now};
use crate::harness::{Collector, Host, eventually};

/// What reading a volume comes to: each question's answer.
async fn reads(
    client: &Client<'_>,
    volume: &Protected,
    id: SnapshotId,
    pack: &Pack,
) -> [Result<(), Refused>; 4] {
    let snapshots = SnapshotsAsked {
        volume: volume.id,
        before: None,
    };
    let snapshots = client.call::<Snapshots>(path::BACKUP_SNAPSHOTS, &snapshots);
    let places = PlacesAsked {
        volume: volume.id,
        ids: joined(&pack.ids),
        has_neighbors: false,
    };
    let places = client.call::<Places>(path::BACKUP_PLACES, &places);
    let got = async |path: String| {
        let got = client.get(&path, None).await;
        (got.status == StatusCode::OK)
            .then_some(())
            .ok_or_else(|| got.refused())
    };
    [
        snapshots.await.map(drop),
        places.await.map(drop),
        got(format!("{}{}/{id}", path::SNAPSHOTS, volume.id)).await,
        got(format!("{}{}/{}", path::PACKS, volume.id, pack.hash)).await,
    ]
}

/// What writing into a run comes to.
async fn writes(
    client: &Client<'_>,
    volume: &Protected,
    run: BackupRunId,
    pack: &Pack,
) -> [Refused; 6] {
    let begin = volume.begin(
        BackupRunId::random(),
        infratrack_shared::time::UnixMillis(0),
    );
    let progress = Progress::default();
    let beat = Beat { run, progress };
    let ids = joined(&pack.ids);
    let ask = MissingAsked { run, ids };
    let end = volume.end(run, infratrack_shared::time::UnixMillis(0), Outcome::Ok);
    let id = SnapshotId::random();
    let snapshot = Bytes::from_static(b"none");
    [
        client
            .call::<Begun>(path::BACKUP_RUNS, &begin)
            .await
            .unwrap_err(),
        client
            .call::<Beaten>(path::BACKUP_BEAT, &beat)
            .await
            .unwrap_err(),
        client
            .call::<Missing>(path::BACKUP_MISSING, &ask)
            .await
            .unwrap_err(),
        client
            .call::<Ended>(path::BACKUP_END, &end)
            .await
            .unwrap_err(),
        client.put_pack(run, pack.hash, &pack.bytes).await.refused(),
        client.put_snapshot(run, id, &snapshot).await.refused(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_another_host_is_not_there_but_for_reading_by_a_grant_that_holds() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    let (client, stranger) = (
        Client::of(&host, &collector),
        Client::of(&other, &collector),
    );
    let volume = Protected::of(&collector, &host, "db").await;
    let pack = volume.pack(&[b"one"]);
    let id = volume.backed_up(&client, now(&collector), &pack).await;
    let run = volume.run(&client, now(&collector)).await;
    let ask = VolumesAsked { protocol: 1 };
    let told: Volumes = stranger.call(path::BACKUP_VOLUMES, &ask).await.unwrap();
    assert_eq!(told.volumes, []);
    let nothing = [const { Err(()) }; 4].map(|none: Result<(), ()>| none.map_err(|()| not_found()));
    assert_eq!(reads(&stranger, &volume, id, &pack).await, nothing);
    assert_eq!(
        writes(&stranger, &volume, run, &pack).await,
        [(); 6].map(|()| not_found())
    );

    let grant = "insert into backup_grants (grant_id, volume_id, host_id, reason, created_at, created_by, expires_at)
                 values (gen_random_uuid(), $1, $2, 'restore', now(), 'test', $3)";
    let expires_at = collector.clock.now() + Duration::from_secs(60);
    let grant = sqlx::query(grant)
        .bind(volume.id.0)
        .bind(other.id.0)
        .bind(expires_at);
    grant.execute(&collector.pool).await.unwrap();
    assert_eq!(reads(&stranger, &volume, id, &pack).await, [(); 4].map(Ok));
    assert_eq!(
        writes(&stranger, &volume, run, &pack).await,
        [(); 6].map(|()| not_found())
    );
    let sql = async |sql: &'static str| {
        sqlx::query(sql).execute(&collector.pool).await.unwrap();
    };
    sql("update backup_grants set revoked_at = now()").await;
    assert_eq!(reads(&stranger, &volume, id, &pack).await, nothing);
    sql("update backup_grants set revoked_at = null").await;
    collector.clock.advance(time::Duration::seconds(61));
    assert_eq!(reads(&stranger, &volume, id, &pack).await, nothing);

    // Deleted, it is there for nobody.
    assert_eq!(reads(&client, &volume, id, &pack).await, [(); 4].map(Ok));
    sql("update volumes set deleted_at = now()").await;
    assert_eq!(reads(&client, &volume, id, &pack).await, nothing);
    assert_eq!(
        writes(&client, &volume, run, &pack).await,
        [(); 6].map(|()| not_found())
    );
    for path in [
        "packs/x",
        "packs/x?run=y",
        "snapshots/",
        "packs/a/b/c",
        "backup/nothing",
    ] {
        let path = format!("/agent/v1/{path}");
        assert_eq!(
            client.get(&path, None).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn a_run_begins_with_a_key_for_two_and_as_the_only_one_of_its_volume() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let begin = || volume.begin(BackupRunId::random(), now(&collector));
    let refused = async |change: &dyn Fn(&mut BeginRun)| {
        let mut begin = begin();
        change(&mut begin);
        client
            .call::<Begun>(path::BACKUP_RUNS, &begin)
            .await
            .unwrap_err()
    };
    assert_eq!(refused(&|begin| begin.key = None).await, invalid());
    for change in [
        |key: &mut WrappedKey| drop(key.recipients.pop()),
        |key: &mut WrappedKey| key.recipients[1] = key.recipients[0].clone(),
        |key: &mut WrappedKey| key.recipients[1] = "age1\nx".to_owned(),
        |key: &mut WrappedKey| key.recipients = (0..51).map(|n| format!("age1{n}")).collect(),
        |key: &mut WrappedKey| key.age = ByteBuf::from(b"-----BEGIN AGE".to_vec()),
        |key: &mut WrappedKey| key.age.resize(33_000, 0),
    ] {
        let change = |begin: &mut BeginRun| begin.key.iter_mut().for_each(change);
        assert_eq!(refused(&change).await, invalid());
    }
    let version = refused(&|begin| begin.protocol = 9).await;
    assert_eq!(version.1, "protocol_unsupported");
    let kept: i64 = sqlx::query_scalar(
        "select (select count(*) from volume_keys) + (select count(*) from backup_runs)",
    )
    .fetch_one(&collector.pool)
    .await
    .unwrap();
    assert_eq!(kept, 0);
    assert!(!collector.data_dir.path().join("blobs/backups").exists());

    let first = begin();
    let _: Begun = client.call(path::BACKUP_RUNS, &first).await.unwrap();
    let busy = (StatusCode::CONFLICT, "volume_busy".to_owned());
    assert_eq!(refused(&|_| ()).await, busy);
    // Another wrapping of the same key changes nothing: what was there stays.
    let mut again = first.clone();
    again.key.as_mut().unwrap().age.push(b'!');
    let _: Begun = client.call(path::BACKUP_RUNS, &again).await.unwrap();
    let wrapped: Vec<u8> = sqlx::query_scalar("select wrapped from volume_keys")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(wrapped, volume.wrapped().age.into_vec());
    // It has the lock, and came late: what the host began after it is not its to end.
    let mut late = begin();
    late.has_lock = true;
    late.started_at.0 = first.started_at.0 - 1;
    let late = client.call::<Begun>(path::BACKUP_RUNS, &late).await;
    assert_eq!(late.map(drop), Err(busy.clone()));
    let dead = first;
    let mut first = begin();
    first.has_lock = true;
    let _: Begun = client.call(path::BACKUP_RUNS, &first).await.unwrap();
    assert_eq!(
        super::state(&collector, dead.run).await,
        super::ended("failed", "interrupted")
    );
    // With the lease over, the next one begins at once.
    collector.clock.advance(time::Duration::seconds(121));
    let _: Begun = client.call(path::BACKUP_RUNS, &begin()).await.unwrap();
    assert_eq!(
        super::state(&collector, first.run).await,
        super::ended("failed", "interrupted")
    );
    let progress = Progress::default();
    let beat = Beat {
        run: first.run,
        progress,
    };
    let late = client.call::<Beaten>(path::BACKUP_BEAT, &beat).await;
    assert_eq!(late, Err(not_found()));
    without_a_key(&collector, &client).await;
}

/// What another tool keeps needs no key, and has no packs.
async fn without_a_key(collector: &Collector, client: &Client<'_>) {
    let other = Source {
        external: Some(Program {
            program: "restic".to_owned(),
        }),
        ..Source::default()
    };
    let now = collector.clock.now();
    let external = Protected::insert(&collector.pool, client.host, "restic", other, now).await;
    let keyless = BeginRun {
        key: None,
        ..external.begin(BackupRunId::random(), self::now(collector))
    };
    let _: Begun = client.call(path::BACKUP_RUNS, &keyless).await.unwrap();
    let pack = external.pack(&[b"one"]);
    let put = client.put_pack(keyless.run, pack.hash, &pack.bytes).await;
    assert_eq!(put.refused(), invalid());
}

/// What is wrong before anybody looks into it.
async fn asked_badly(client: &Client<'_>, run: BackupRunId, pack: &Pack) {
    let put = |length: String| {
        let hash = pack.hash;
        format!(
            "PUT {}{hash}?run={run} HTTP/1.1\r\nhost: c\r\n{length}\r\n\r\n",
            path::PACKS
        )
    };
    let long = put(format!("content-length: {}", MAX_PACK_BYTES + 1));
    assert_eq!(client.raw_status(&long).await, 413);
    let chunked = put("transfer-encoding: chunked".to_owned());
    assert_eq!(client.raw_status(&(chunked + "0\r\n\r\n")).await, 411);
    let path = format!("{}{}?run={run}", path::PACKS, pack.hash);
    for method in [Method::POST, Method::DELETE, Method::PATCH] {
        let refused = client.send(method, &path, None, Bytes::new()).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    for ids in [vec![0; 33], vec![0; 32 * (limits::BACKUP_MISSING_IDS + 1)]] {
        let ids = ByteBuf::from(ids);
        let ask = MissingAsked { run, ids };
        let refused = client.call::<Missing>(path::BACKUP_MISSING, &ask).await;
        assert_eq!(refused, Err(invalid()));
    }
    let large = vec![0; limits::BACKUP_BYTES + 1];
    let answer = client
        .send(Method::POST, path::BACKUP_END, None, large.into())
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_not_whole_or_not_of_its_run_leaves_nothing() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let run = volume.run(&client, now(&collector)).await;
    let pack = volume.pack(&[b"one", &[1; 5000]]);
    let flipped = |at: usize| {
        let mut bytes = pack.bytes.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    // On its way, then before: its name is right, and it is none.
    let damaged = client.put_pack(run, pack.hash, &flipped(60)).await;
    assert_eq!(damaged.refused(), invalid());
    for at in [0, 47, pack.bytes.len() - 20, pack.bytes.len() - 1] {
        let bytes = flipped(at);
        let put = client.put_pack(run, PackHash::of(&bytes), &bytes).await;
        // A byte of an id is as good as any other: only who has the key can tell.
        if at != pack.bytes.len() - 20 {
            assert_eq!(put.refused(), invalid(), "{at}");
        }
    }
    let elsewhere = Protected::of(&collector, &host, "other").await;
    let foreign = elsewhere.pack(&[b"one"]);
    let put = client.put_pack(run, foreign.hash, &foreign.bytes).await;
    assert_eq!(put.refused(), invalid());
    let mut other_key = Protected::of(&collector, &host, "third").await;
    other_key.id = volume.id;
    let foreign = other_key.pack(&[b"one"]);
    let put = client.put_pack(run, foreign.hash, &foreign.bytes).await;
    assert_eq!(put.refused(), invalid());

    asked_badly(&client, run, &pack).await;
    let left: i64 = sqlx::query_scalar("select count(*) from packs where hash = $1")
        .bind(pack.hash.as_bytes().as_slice())
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
    let stored = client.put_pack(run, pack.hash, &pack.bytes).await;
    assert_eq!(stored.status, StatusCode::CREATED);
    let object = format!("{}{}/{}", path::PACKS, volume.id, pack.hash);
    let size = pack.bytes.len();
    for range in [
        "bytes=5-4",
        "bytes=-5",
        "bytes=0-",
        "octets=0-1",
        &format!("bytes=0-{size}"),
        "bytes=0-1,3-4",
    ] {
        let refused = client.get(&object, Some(range)).await.refused();
        assert_eq!(refused.1, "range_invalid", "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_of_its_run_and_has_all_it_needs_and_no_other_takes_its_place() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let at = now(&collector);
    let run = volume.run(&client, at).await;
    let (pack, absent) = (volume.pack(&[b"one", b"two"]), volume.pack(&[b"three"]));
    client.put_pack(run, pack.hash, &pack.bytes).await;
    let id = SnapshotId::random();
    let head = || volume.head(&host, id, at, &[&pack]);
    let put = async |head: &Head| {
        let snapshot = volume.sealed(head);
        client.put_snapshot(run, id, &snapshot).await
    };
    for change in [
        |head: &mut Head, _: &Host| head.snapshot_id = SnapshotId::random(),
        |head: &mut Head, _: &Host| head.volume_id = infratrack_shared::ids::VolumeId::random(),
        |head: &mut Head, other: &Host| head.host_id = other.id,
        |head: &mut Head, _: &Host| head.key_id = infratrack_shared::backup::KeyId::new([9; 16]),
    ] {
        let mut head = head();
        change(&mut head, &other);
        assert_eq!(put(&head).await.refused(), invalid());
    }
    let none = Bytes::from_static(b"ITSNAP\0\x01none");
    assert_eq!(
        client.put_snapshot(run, id, &none).await.refused(),
        invalid()
    );
    let long = format!(
        "PUT {}{id}?run={run} HTTP/1.1\r\nhost: c\r\ncontent-length: {}\r\n\r\n",
        path::SNAPSHOTS,
        MAX_SNAPSHOT_BYTES + 1
    );
    assert_eq!(client.raw_status(&long).await, 413);
    // An origin that is not there, and a counter beyond those that are.
    let mut needy = volume.head(&host, id, at, &[&pack, &absent]);
    needy.refs.insert(pack.salt, 7);
    let refused = put(&needy).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let refs = missing(&refused);
    assert_eq!(refs.len(), 2);
    assert!(refs.contains(&absent.salt, 0) && refs.contains(&pack.salt, 7));

    let first = head();
    assert_eq!(put(&first).await.status, StatusCode::CREATED);
    let differs = (StatusCode::CONFLICT, "snapshot_differs".to_owned());
    assert_eq!(put(&head()).await.refused(), differs);
    let second = SnapshotId::random();
    let snapshot = volume.sealed(&volume.head(&host, second, at, &[&pack]));
    let again = client.put_snapshot(run, second, &snapshot).await;
    assert_eq!(again.refused(), differs, "a run makes one");
    let end = volume.end(run, at, Outcome::Ok);
    let _: Ended = client.call(path::BACKUP_END, &end).await.unwrap();
    // Nor in a later run, and not by an object that nobody has a row of.
    let run = volume.run(&client, at).await;
    let snapshot = volume.sealed(&head());
    let later = client.put_snapshot(run, id, &snapshot).await;
    assert_eq!(later.refused(), differs);
    let dir = format!("blobs/backups/{}/snapshots", volume.id);
    let dir = collector.data_dir.path().join(dir);
    let third = SnapshotId::random();
    std::fs::write(dir.join(third.to_string()), b"another").unwrap();
    let snapshot = volume.sealed(&volume.head(&host, third, at, &[&pack]));
    let taken = client.put_snapshot(run, third, &snapshot).await;
    assert_eq!(taken.refused(), differs);
    let kept = std::fs::read(dir.join(id.to_string())).unwrap();
    assert!(Head::of_snapshot(&kept).unwrap() == first);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_take_as_much_memory_as_they_may_and_the_next_is_told_to_come_again() {
    let memory = 2 * MAX_PACK_BYTES;
    let change = |config: &mut infratrack_collector::config::Config| {
        config.backups.pack_memory_bytes = memory as u64;
    };
    let collector = Collector::start_with(change).await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let run = volume.run(&client, now(&collector)).await;
    let pack = volume.pack(&[b"one"]);
    let head = format!(
        "PUT {}{}?run={run} HTTP/1.1\r\nhost: c\r\ncontent-length: {MAX_PACK_BYTES}\r\n\r\n",
        path::PACKS,
        pack.hash
    );
    let full = [client.raw(&head).await, client.raw(&head).await];
    let free = || collector.server.app.backup_memory.free_bytes();
    eventually("both to have their memory", || async {
        (free() == 0).then_some(())
    })
    .await;
    let third = client.put_pack(run, pack.hash, &pack.bytes).await;
    let retry: u64 = third.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((2..=15).contains(&retry), "{retry}");
    assert_eq!(
        third.refused(),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable".to_owned())
    );
    for mut stream in full {
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.ok();
        stream.read_to_end(&mut Vec::new()).await.ok();
    }
    eventually("the memory to be free again", || async {
        (free() == memory).then_some(())
    })
    .await;
    let put = client.put_pack(run, pack.hash, &pack.bytes).await;
    assert_eq!(put.status, StatusCode::CREATED);
}
