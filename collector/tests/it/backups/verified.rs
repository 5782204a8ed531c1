//! Packs and snapshots that are read again.

use std::sync::Arc;

use http::StatusCode;
use infratrack_collector::jobs::pack_verification;
use infratrack_shared::ids::BackupRunId;
use infratrack_shared::wire::backup::{BeginRun, Begun, Ended, Outcome};
use infratrack_shared::wire::path;

use super::garbage::file;
use super::{Client, Protected, now};
use crate::harness::Collector;

/// As after three months.
async fn verify(collector: &Collector) {
    for sql in [
        "update packs set stored_at = stored_at - interval '91 days', verified_at = verified_at - interval '91 days'",
        "update snapshots set arrived_at = arrived_at - interval '91 days', verified_at = verified_at - interval '91 days'",
    ] {
        sqlx::query(sql).execute(&collector.pool).await.unwrap();
    }
    let app = Arc::clone(&collector.server.app);
    pack_verification::run(app).await.unwrap();
}

async fn counts(collector: &Collector) -> (i64, i64) {
    sqlx::query_as(
        "select (select count(*) from packs where lost_at is not null), (select count(*) from chunks where is_lost)",
    )
    .fetch_one(&collector.pool)
    .await
    .unwrap()
}

fn metric(collector: &Collector, line: &str) -> bool {
    let app = &collector.server.app;
    app.metrics.encode(app).unwrap().contains(line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_found_and_the_next_backup_heals_it() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let pack = volume.pack(&[b"one", b"two", &[7; 5_000]]);
    let snapshot = volume.backed_up(&client, now(&collector), &pack).await;
    verify(&collector).await;
    assert_eq!(counts(&collector).await, (0, 0));
    assert!(metric(
        &collector,
        "backup_packs_verified_total{outcome=\"ok\"} 2"
    ));
    let file = file(&collector, &volume, pack.hash);
    let api = format!("/api/v1/volumes/{}", volume.id);
    let size = pack.bytes.len();
    // Header, a chunk, the table, the very end; cut short; gone.
    for at in [0, 60, size - 60, size - 1, usize::MAX, usize::MAX - 1] {
        let mut damaged = pack.bytes.to_vec();
        match damaged.get_mut(at) {
            Some(byte) => *byte ^= 1,
            None => damaged.truncate(size - 1),
        }
        std::fs::write(&file, &damaged).unwrap();
        if at == usize::MAX {
            std::fs::remove_file(&file).unwrap();
        }
        verify(&collector).await;
        assert_eq!(counts(&collector).await, (1, 3), "byte {at}");
        let shown = collector.get(&api).await;
        assert_eq!(shown["lost_chunks"], 3);
        let hit = serde_json::json!([snapshot.to_string()]);
        assert_eq!(shown["hit_snapshots"], hit);
        assert!(metric(&collector, "backup_chunks_lost 3"));
        let begin = BeginRun {
            parent: Some(snapshot),
            ..volume.begin(BackupRunId::random(), now(&collector))
        };
        let begun: Begun = client.call(path::BACKUP_RUNS, &begin).await.unwrap();
        assert_eq!(begun.lost.len(), 3);
        let put = client.put_pack(begin.run, pack.hash, &pack.bytes).await;
        assert_eq!(put.status, StatusCode::CREATED);
        let end = volume.end(begin.run, now(&collector), Outcome::Failed);
        let _: Ended = client.call(path::BACKUP_END, &end).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), pack.bytes);
        verify(&collector).await;
        assert_eq!(counts(&collector).await, (0, 0), "byte {at}");
        assert_eq!(collector.get(&api).await["lost_chunks"], 0);
    }
    assert!(metric(
        &collector,
        "backup_packs_verified_total{outcome=\"damaged\"} 5"
    ));
    assert!(metric(
        &collector,
        "backup_packs_verified_total{outcome=\"missing\"} 1"
    ));

    // A snapshot can't be sent again: it is said to be lost, and stays listed.
    let object = format!("blobs/backups/{}/snapshots/{snapshot}", volume.id);
    let object = collector.data_dir.path().join(object);
    let mut damaged = std::fs::read(&object).unwrap();
    damaged[40] ^= 1;
    std::fs::write(&object, damaged).unwrap();
    verify(&collector).await;
    let listed = collector.get(&format!("{api}/snapshots")).await;
    assert!(listed["items"][0]["snapshot"]["lost_at"].is_string());
}
