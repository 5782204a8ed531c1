//! What goes of backups by itself, and what never does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Method, StatusCode};
use infratrack_collector::jobs::{backup_garbage, backup_retention};
use infratrack_shared::backup::{PackHash, Refs, Salt, Sealed, Table, joined};
use infratrack_shared::ids::{BackupRunId, SnapshotId};
use infratrack_shared::wire::backup::{BeginRun, Begun, Ended, Missing, MissingAsked, Outcome};
use infratrack_shared::wire::path;
use uuid::Uuid;

use super::{Client, Pack, Protected, missing, now};
use crate::harness::{Collector, Host};

/// Two days go by, for what goes.
pub(super) async fn age(collector: &Collector) {
    for sql in [
        "update packs set stored_at = stored_at - interval '49 hours', condemned_at = condemned_at - interval '49 hours'",
        "update snapshots set deleted_at = deleted_at - interval '49 hours'",
        "update volumes set deleted_at = deleted_at - interval '49 hours', collected_at = null",
    ] {
        sqlx::query(sql).execute(&collector.pool).await.unwrap();
    }
}

async fn retain(collector: &Collector) {
    let app = Arc::clone(&collector.server.app);
    backup_retention::run(app).await.unwrap();
}

pub(super) async fn collect(collector: &Collector) {
    let app = Arc::clone(&collector.server.app);
    backup_garbage::run(app).await.unwrap();
}

pub(super) fn file(collector: &Collector, volume: &Protected, hash: PackHash) -> PathBuf {
    let hex = hash.to_string();
    let name = format!("blobs/backups/{}/packs/{}/{hex}", volume.id, &hex[..2]);
    collector.data_dir.path().join(name)
}

async fn left(collector: &Collector) -> Vec<Uuid> {
    sqlx::query_scalar("select snapshot_id from snapshots where deleted_at is null order by at")
        .fetch_all(&collector.pool)
        .await
        .unwrap()
}

async fn count(collector: &Collector, sql: &'static str) -> i64 {
    let counted = sqlx::query_scalar(sql).fetch_one(&collector.pool);
    counted.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_preview_lets_go_is_deleted_and_after_two_days_of_grace_removed() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let mut made = Vec::new();
    for content in [b"0", b"1", b"2", b"3", b"4"] {
        let pack = volume.pack(&[content, b"common"]);
        let id = volume.backed_up(&client, now(&collector), &pack).await;
        made.push((id, pack));
    }
    // Rules that would keep nothing were never set: nothing goes.
    retain(&collector).await;
    assert_eq!(left(&collector).await.len(), 5);
    sqlx::query("update volumes set retention = '{\"last\": 2}'")
        .execute(&collector.pool)
        .await
        .unwrap();
    let hold = format!("/api/v1/snapshots/{}/hold", made[0].0);
    let held = collector.api(Method::PUT, &hold, r#"{"because": "audit"}"#);
    assert_eq!(held.await.0, StatusCode::OK);
    let snapshots = format!("/api/v1/volumes/{}/snapshots", volume.id);
    let preview = collector.get(&snapshots).await;
    let rows = preview["items"].as_array().unwrap().iter();
    let kept = rows.filter(|row| row["kept_because"] != serde_json::json!([]));
    let mut kept: Vec<Uuid> = kept
        .map(|row| row["snapshot"]["id"].as_str().unwrap().parse().unwrap())
        .collect();
    kept.reverse();
    assert_eq!(kept, [made[0].0.0, made[3].0.0, made[4].0.0]);
    // The second is what a run that is under way relies on.
    let begin = BeginRun {
        parent: Some(made[1].0),
        ..volume.begin(BackupRunId::random(), now(&collector))
    };
    let _: Begun = client.call(path::BACKUP_RUNS, &begin).await.unwrap();
    retain(&collector).await;
    assert_eq!(left(&collector).await.len(), 4);
    let end = volume.end(begin.run, now(&collector), Outcome::Failed);
    let _: Ended = client.call(path::BACKUP_END, &end).await.unwrap();
    retain(&collector).await;
    retain(&collector).await;
    assert_eq!(left(&collector).await, kept);
    let audited = "select count(*) from audit_log where action = 'snapshot.expire'";
    assert_eq!(count(&collector, audited).await, 2);
    assert_eq!(count(&collector, "select count(*) from snapshots").await, 5);
    collect(&collector).await;
    let condemned = "select count(*) from packs where condemned_at is not null";
    assert_eq!(count(&collector, condemned).await, 0, "all are young");
    age(&collector).await;
    retain(&collector).await;
    assert_eq!(count(&collector, "select count(*) from snapshots").await, 3);
    collect(&collector).await;
    assert_eq!(count(&collector, condemned).await, 2);
    let there = |pack: &Pack| file(&collector, &volume, pack.hash).exists();
    assert!(made.iter().all(|(_, pack)| there(pack)));
    age(&collector).await;
    collect(&collector).await;
    let still: Vec<_> = made.iter().map(|(_, pack)| there(pack)).collect();
    assert_eq!(still, [true, false, false, true, true]);
    assert_eq!(count(&collector, "select count(*) from packs").await, 3);
    assert_eq!(count(&collector, "select count(*) from origins").await, 3);

    // Who holds one keeps it from people, too.
    let delete = async |at: usize| {
        let path = format!("{snapshots}/{}", made[at].0);
        collector.api(Method::DELETE, &path, "").await
    };
    let (status, problem) = delete(0).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "snapshot_held");
    assert_eq!(delete(4).await.0, StatusCode::NO_CONTENT);
    assert_eq!(delete(4).await.0, StatusCode::NOT_FOUND);
    let is_newest = "select count(*) from volumes v join snapshots s on s.at = v.last_ok_at and s.deleted_at is null";
    assert_eq!(count(&collector, is_newest).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_volume_goes_by_and_by_and_then_its_host_may() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let pack = volume.pack(&[b"one"]);
    volume.backed_up(&client, now(&collector), &pack).await;
    // In the store, and in no row: old ones go, new ones may be on their way.
    let orphans: Vec<_> = [b"old", b"new"]
        .map(|content| volume.pack(&[content]))
        .into();
    for (pack, days) in orphans.iter().zip([3, 0]) {
        let path = file(&collector, &volume, pack.hash);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &pack.bytes).unwrap();
        let at = std::fs::metadata(&path).unwrap().modified().unwrap();
        let at = at - std::time::Duration::from_secs(days * 86_400);
        let opened = std::fs::File::options().write(true).open(&path).unwrap();
        opened.set_modified(at).unwrap();
    }
    age(&collector).await;
    collect(&collector).await;
    let there = |pack: &Pack| file(&collector, &volume, pack.hash).exists();
    assert_eq!((there(&orphans[0]), there(&orphans[1])), (false, true));
    assert!(there(&pack));

    let path = format!("/api/v1/volumes/{}", volume.id);
    let deleted = collector.api(Method::DELETE, &path, "").await;
    assert_eq!(deleted.0, StatusCode::NO_CONTENT);
    retain(&collector).await;
    assert_eq!(left(&collector).await.len(), 1, "it may be a mistake");
    for _ in 0..4 {
        age(&collector).await;
        retain(&collector).await;
        collect(&collector).await;
    }
    for table in [
        "select count(*) from volumes",
        "select count(*) from volume_keys",
        "select count(*) from backup_runs",
        "select count(*) from chunks",
    ] {
        assert_eq!(count(&collector, table).await, 0, "{table}");
    }
    let objects = format!("blobs/backups/{}", volume.id);
    let objects = collector.data_dir.path().join(objects);
    assert!(!there(&pack) && !there(&orphans[1]), "{objects:?}");
    assert_eq!(std::fs::read_dir(objects.join("keys")).unwrap().count(), 0);
    let host_path = format!("/api/v1/hosts/{}", host.id);
    let retire = format!("{host_path}/retire");
    collector.api(Method::POST, &retire, "{}").await;
    let gone = collector.api(Method::DELETE, &host_path, "").await;
    assert_eq!(gone.0, StatusCode::NO_CONTENT);
}

/// A whole run with a snapshot of these chunks.
async fn commit(
    volume: &Protected,
    client: &Client<'_>,
    (collector, packs): (&Collector, &[&Pack]),
    refs: Refs,
) -> SnapshotId {
    let at = now(collector);
    let (run, id) = (volume.run(client, at).await, SnapshotId::random());
    for pack in packs {
        let put = client.put_pack(run, pack.hash, &pack.bytes).await;
        assert!(put.status.is_success(), "{:?}", put.status);
    }
    let mut head = volume.head(client.host, id, at, &[]);
    head.refs = refs;
    let put = client.put_snapshot(run, id, &volume.sealed(&head)).await;
    assert_eq!(put.status, StatusCode::CREATED);
    let end = volume.end(run, at, Outcome::Ok);
    let _: Ended = client.call(path::BACKUP_END, &end).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_packs_are_written_anew_and_every_live_chunk_is_what_it_was() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let plain: Vec<Vec<u8>> = (0_u8..30)
        .map(|number| blake3::hash(&[number]).as_bytes().repeat(30))
        .collect();
    let packs: Vec<_> = plain
        .chunks(10)
        .map(|chunks| volume.pack(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>()))
        .collect();
    let all: Vec<_> = packs.iter().collect();
    let whole = volume.head(&host, SnapshotId::random(), now(&collector), &all);
    let whole = commit(&volume, &client, (&collector, &all), whole.refs).await;
    // Of two packs a fifth is needed, of the third more.
    let mut refs = Refs::default();
    for (pack, counters) in [(0, 0..2), (1, 4..6), (2, 0..5)] {
        for counter in counters {
            refs.insert(packs[pack].salt, counter);
        }
    }
    commit(&volume, &client, (&collector, &[]), refs.clone()).await;
    let delete = format!("/api/v1/volumes/{}/snapshots/{whole}", volume.id);
    collector.api(Method::DELETE, &delete, "").await;
    age(&collector).await;
    collect(&collector).await;
    let there = async || -> Vec<bool> {
        let files = packs
            .iter()
            .map(|pack| file(&collector, &volume, pack.hash));
        files.map(|file| file.exists()).collect()
    };
    assert_eq!(there().await, [true, true, true]);
    assert_eq!(readable(&collector, &volume, &refs).await, 9);
    age(&collector).await;
    collect(&collector).await;
    assert_eq!(there().await, [false, false, true]);
    assert_eq!(readable(&collector, &volume, &refs).await, 9);
    assert_eq!(count(&collector, "select count(*) from packs").await, 2);
    let chunks = count(&collector, "select count(*) from chunks").await;
    assert_eq!(chunks, 4 + 10);
    // A pack that is written anew is not sparse, and stays.
    age(&collector).await;
    collect(&collector).await;
    assert_eq!(count(&collector, "select count(*) from packs").await, 2);
    assert_eq!(readable(&collector, &volume, &refs).await, 9);
}

/// Opens every chunk of these, where the tables say that it is, out of objects that are what their names say.
async fn readable(collector: &Collector, volume: &Protected, refs: &Refs) -> usize {
    type Row = (Vec<u8>, i32, i32, i32, Vec<u8>, Vec<u8>);
    let rows: Vec<Row> = sqlx::query_as(
        "select o.salt, c.counter, c.offset_bytes, c.length_bytes, c.chunk_id, p.hash
         from chunks c join origins o using (origin_id) join packs p using (pack_id)
         where p.condemned_at is null and p.lost_at is null and not c.is_lost",
    )
    .fetch_all(&collector.pool)
    .await
    .unwrap();
    let mut packs: BTreeMap<Vec<u8>, (Vec<u8>, Table)> = BTreeMap::new();
    let mut found = Refs::default();
    for (salt, counter, offset, length, id, hash) in rows {
        let salt = Salt::new(salt.try_into().unwrap());
        let counter = u16::try_from(counter).unwrap();
        if !refs.contains(&salt, counter) {
            continue;
        }
        let (bytes, table) = packs.entry(hash.clone()).or_insert_with(|| {
            let hash = PackHash::new(hash.try_into().unwrap());
            let bytes = std::fs::read(file(collector, volume, hash)).unwrap();
            assert_eq!(PackHash::of(&bytes), hash);
            let table = Table::of_pack(&bytes).unwrap();
            (bytes, table)
        });
        let is_it = |sealed: &Sealed| sealed.salt == salt && sealed.counter == counter;
        let entry = table.entries.iter().find(|entry| is_it(&entry.sealed));
        let entry = entry.expect("the pack has the chunk");
        let range = entry.bytes();
        let place = (
            usize::try_from(offset).unwrap(),
            usize::try_from(length).unwrap(),
        );
        assert_eq!((range.start, range.len()), place);
        assert_eq!(entry.id.as_bytes().as_slice(), id);
        entry.open(&volume.key, volume.id, &bytes[range]).unwrap();
        found.insert(salt, counter);
    }
    assert_eq!(&found, refs);
    usize::try_from(found.len()).unwrap()
}

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A host, and what goes beside it.
struct Storm<'a> {
    collector: &'a Collector,
    host: &'a Host,
    volume: Protected,
    kept: BTreeMap<SnapshotId, Refs>,
    refused: u64,
}

impl Storm<'_> {
    /// What the collector does by itself, in any order, with or without days between.
    async fn beside(&self, choice: u64) {
        if choice & 1 == 1 {
            age(self.collector).await;
        }
        match choice >> 1 {
            0 => retain(self.collector).await,
            1 | 2 => {
                // A statement that waits for a lock for too long is done the next time.
                let app = Arc::clone(&self.collector.server.app);
                drop(backup_garbage::run(app).await);
            }
            _ => {}
        }
    }

    /// A backup of some of twelve contents, and what else happens while it is made.
    async fn step(&mut self, dice: &mut Dice) {
        let client = Client::of(self.host, self.collector);
        let at = now(self.collector);
        let run = self.volume.run(&client, at).await;
        let wanted = dice.roll(4096) | 1;
        let contents = (0_u8..12).filter(|number| wanted >> number & 1 == 1);
        let contents: Vec<_> = contents.map(|number| vec![number; 2_000]).collect();
        let ids: Vec<_> = contents
            .iter()
            .map(|c| self.volume.key.chunk_id(c))
            .collect();
        let ask = MissingAsked {
            run,
            ids: joined(&ids),
        };
        let asked = client.call(path::BACKUP_MISSING, &ask);
        let (held, ()) = tokio::join!(asked, self.beside(dice.roll(8)));
        let held: Missing = held.unwrap();
        let (mut refs, mut lacking) = (Refs::default(), Vec::new());
        for (row, content) in held.held.chunks_exact(19).zip(&contents) {
            if row[0] == 1 {
                let counter = u16::from_be_bytes(row[17..].try_into().unwrap());
                refs.insert(Salt::new(row[1..17].try_into().unwrap()), counter);
            } else {
                lacking.push(content.as_slice());
            }
        }
        if !lacking.is_empty() {
            let pack = self.volume.pack(&lacking);
            let put = client.put_pack(run, pack.hash, &pack.bytes);
            let (put, ()) = tokio::join!(put, self.beside(dice.roll(8)));
            assert_eq!(put.status, StatusCode::CREATED);
            for counter in 0..lacking.len() {
                refs.insert(pack.salt, counter.try_into().unwrap());
            }
        }
        self.finish(run, refs, dice).await;
    }

    async fn finish(&mut self, run: BackupRunId, refs: Refs, dice: &mut Dice) {
        let client = Client::of(self.host, self.collector);
        let (at, id) = (now(self.collector), SnapshotId::random());
        let mut head = self.volume.head(self.host, id, at, &[]);
        head.refs = refs.clone();
        let snapshot = self.volume.sealed(&head);
        // Some runs end without one.
        if dice.roll(5) > 0 {
            let put = client.put_snapshot(run, id, &snapshot);
            let (put, ()) = tokio::join!(put, self.beside(dice.roll(8)));
            if put.status == StatusCode::CREATED {
                self.kept.insert(id, refs);
            } else {
                self.refused += 1;
                let lacks = (put.status == StatusCode::CONFLICT).then(|| missing(&put));
                tracing::info!(?lacks, "not committed");
            }
        }
        let end = self.volume.end(run, at, Outcome::Ok);
        let _: Ended = client.call(path::BACKUP_END, &end).await.unwrap();
        let choice = dice.roll(8);
        let doomed = self.kept.keys().nth(usize::try_from(dice.roll(6)).unwrap());
        if let Some(doomed) = doomed.copied() {
            let path = format!("/api/v1/volumes/{}/snapshots/{doomed}", self.volume.id);
            let deleting = self.collector.api(Method::DELETE, &path, "");
            let (deleted, ()) = tokio::join!(deleting, self.beside(choice));
            if deleted.0 == StatusCode::NO_CONTENT {
                self.kept.remove(&doomed);
            }
        }
    }
}

/// So many backups while packs are collected, rewritten and removed, days going by in between.
async fn storm(steps: u64, seed: u64) {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let volume = Protected::of(&collector, &host, "db").await;
    let mut storm = Storm {
        collector: &collector,
        host: &host,
        volume,
        kept: BTreeMap::new(),
        refused: 0,
    };
    let mut dice = Dice(seed);
    for _ in 0..steps {
        storm.step(&mut dice).await;
        let mut all = Refs::default();
        storm.kept.values().for_each(|refs| all.unite(refs));
        readable(&collector, &storm.volume, &all).await;
    }
    // What was told to be held while a run was under way is there when it ends.
    assert_eq!(storm.refused, 0);
    let removed = "select count(*) from audit_log where action = 'pack.collect' and (after->>'removed')::int > 0";
    assert!(count(&collector, removed).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_live_chunk_goes_however_backups_and_collection_interleave() {
    storm(60, 0x1bad_5eed).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a thousand interleavings take minutes"]
async fn no_live_chunk_goes_in_a_thousand_interleavings() {
    for seed in 1..=4 {
        storm(250, seed * 0x9e37_79b9).await;
    }
}
