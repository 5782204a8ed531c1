//! How runs end, by whose word, and when what they made was.

use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_shared::codec;
use infratrack_shared::ids::{BackupRunId, SnapshotId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::backup::{
    Beat, Beaten, EndRun, Ended, Order, Outcome, Program, Progress, Snapshots, SnapshotsAsked,
    Source,
};
use infratrack_shared::wire::batch::{Class, Part};
use infratrack_shared::wire::path;

use super::{Client, Protected, ended, not_found, now, state};
use crate::harness::{Collector, Host, eventually, record};

const YEAR_MS: i64 = 365 * 86_400_000;

async fn end(client: &Client<'_>, end: &EndRun) {
    let _: Ended = client.call(path::BACKUP_END, end).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_hears_of_was_interrupted_until_its_host_says_how_it_was() {
    let often = |config: &mut infratrack_collector::config::Config| {
        let every = infratrack_collector::config::Interval(Duration::from_millis(200));
        config.jobs.intervals.insert("stale_runs".to_owned(), every);
    };
    let collector = Collector::start_with(often).await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let interrupted = ended("failed", "interrupted");
    let at = now(&collector);
    let run = volume.run(&client, at).await;
    let progress = Progress {
        bytes: u64::MAX,
        ..Progress::default()
    };
    // A beat keeps it, and brings what somebody wants.
    collector.clock.advance(time::Duration::seconds(100));
    let beat = Beat { run, progress };
    let beaten: Beaten = client.call(path::BACKUP_BEAT, &beat).await.unwrap();
    assert_eq!(beaten.order, Order::GoOn);
    sqlx::query("update backup_runs set orders = 'cancel'")
        .execute(&collector.pool)
        .await
        .unwrap();
    collector.clock.advance(time::Duration::seconds(100));
    let beaten: Beaten = client.call(path::BACKUP_BEAT, &beat).await.unwrap();
    assert_eq!(beaten.order, Order::Cancel);
    collector.clock.advance(time::Duration::seconds(121));
    let is_over = async |run| {
        eventually("the run to be over", || async {
            (state(&collector, run).await == interrupted).then_some(())
        })
        .await;
    };
    is_over(run).await;
    let detail = async |run: BackupRunId| -> Option<String> {
        let detail = sqlx::query_scalar("select detail from backup_runs where run_id = $1");
        detail.bind(run.0).fetch_one(&collector.pool).await.unwrap()
    };
    let told = EndRun {
        detail: Some("the pro\0cess was killed".to_owned() + &"x".repeat(5000)),
        ..volume.end(run, at, Outcome::Ok)
    };
    end(&client, &told).await;
    assert_eq!(state(&collector, run).await, interrupted);
    let said = detail(run).await.unwrap();
    assert!(said.starts_with("the pro\u{fffd}cess was killed"));
    assert_eq!(said.chars().count(), 4000);
    let other = EndRun {
        detail: Some("another".to_owned()),
        ..told
    };
    end(&client, &other).await;
    assert_eq!(
        detail(run).await.unwrap(),
        said,
        "said again it changes nothing"
    );

    // Its snapshot was committed: then it was as its host says.
    let at = now(&collector);
    let run = volume.run(&client, at).await;
    let pack = volume.pack(&[b"one"]);
    client.put_pack(run, pack.hash, &pack.bytes).await;
    let id = SnapshotId::random();
    let snapshot = volume.sealed(&volume.head(&host, id, at, &[&pack]));
    let put = client.put_snapshot(run, id, &snapshot).await;
    assert_eq!(put.status, StatusCode::CREATED);
    collector.clock.advance(time::Duration::seconds(121));
    is_over(run).await;
    end(&client, &volume.end(run, at, Outcome::Ok)).await;
    assert_eq!(state(&collector, run).await, ended("ok", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn ok_needs_a_snapshot_and_a_clock_that_is_right() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let at = now(&collector);
    let run = volume.run(&client, at).await;
    end(&client, &volume.end(run, at, Outcome::Ok)).await;
    assert_eq!(
        state(&collector, run).await,
        ended("failed", "internal_error")
    );
    let run = volume.run(&client, at).await;
    let failed = EndRun {
        reason: Some("exit_code".to_owned()),
        errors: vec!["nul\0".to_owned(); 200],
        errors_total: 3,
        ..volume.end(run, at, Outcome::Failed)
    };
    end(&client, &failed).await;
    assert_eq!(state(&collector, run).await, ended("failed", "exit_code"));
    let errors: (Vec<String>, i64) =
        sqlx::query_as("select errors, errors_total from backup_runs where run_id = $1")
            .bind(run.0)
            .fetch_one(&collector.pool)
            .await
            .unwrap();
    assert_eq!((errors.0.len(), errors.1), (100, 100));

    // A year ahead and a year behind: dated by the collector, and never ok.
    for skew in [YEAR_MS, -YEAR_MS] {
        let wrong = UnixMillis(at.0 + skew);
        let run = volume.run(&client, wrong).await;
        let pack = volume.pack(&[b"one"]);
        client.put_pack(run, pack.hash, &pack.bytes).await;
        let id = SnapshotId::random();
        let snapshot = volume.sealed(&volume.head(&host, id, wrong, &[&pack]));
        client.put_snapshot(run, id, &snapshot).await;
        end(&client, &volume.end(run, wrong, Outcome::Ok)).await;
        assert_eq!(
            state(&collector, run).await,
            ended("incomplete", "clock_wrong")
        );
        let is_so: bool = sqlx::query_scalar(
            "select s.at = r.started_at and s.is_clock_wrong and r.ended_at <= $2
             and (select last_snapshot_at from volumes) <= $2
             from snapshots s join backup_runs r using (run_id) where run_id = $1",
        )
        .bind(run.0)
        .bind(collector.clock.now())
        .fetch_one(&collector.pool)
        .await
        .unwrap();
        assert!(is_so, "{skew}");
    }

    // Pages of what there is, newest first.
    let ask = |before| SnapshotsAsked {
        volume: volume.id,
        before,
    };
    let all: Snapshots = client
        .call(path::BACKUP_SNAPSHOTS, &ask(None))
        .await
        .unwrap();
    assert!(
        all.snapshots
            .is_sorted_by_key(|one| std::cmp::Reverse((one.at, one.id)))
    );
    let before = Some(all.snapshots[0].id);
    let rest: Snapshots = client
        .call(path::BACKUP_SNAPSHOTS, &ask(before))
        .await
        .unwrap();
    assert_eq!(rest.snapshots, all.snapshots[1..]);
}

/// Brings ends by the host's spool.
async fn bring(collector: &Collector, host: &Host, first_seq: u64, ends: &[EndRun]) {
    let records = (first_seq..).zip(ends).map(|(seq, end)| {
        let body = codec::to_value(end).unwrap();
        record(seq, "backup_result", body, now(collector))
    });
    let mut batch = host.batch(collector);
    batch.parts = vec![Part {
        class: Class::Critical,
        first_seq,
        lost: Vec::new(),
        records: records.collect(),
    }];
    let ack = host.send(collector, &batch).await.unwrap();
    assert!(ack.rejected.is_empty(), "{:?}", ack.rejected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_collector_could_not_be_told_comes_by_the_spool() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    let client = Client::of(&host, &collector);
    let volume = Protected::of(&collector, &host, "db").await;
    let at = now(&collector);
    let source = Source {
        external: Some(Program {
            program: "restic".to_owned(),
        }),
        ..Source::default()
    };
    let restic = Protected::insert(
        &collector.pool,
        &host,
        "restic",
        source,
        collector.clock.now(),
    )
    .await;
    let told = volume.run(&client, at).await;
    let [untold, external, foreign] = [(); 3].map(|()| BackupRunId::random());
    let away = EndRun {
        reason: Some("collector_away".to_owned()),
        ..volume.end(untold, at, Outcome::Failed)
    };
    let cancelled = volume.end(told, at, Outcome::Cancelled);
    let ends = [away, cancelled, restic.end(external, at, Outcome::Ok)];
    bring(&collector, &host, 1, &ends).await;
    let not_its_own = volume.end(foreign, at, Outcome::Ok);
    let of_another = volume.end(told, at, Outcome::Ok);
    bring(&collector, &other, 1, &[not_its_own.clone(), of_another]).await;
    for (run, expected) in [
        (untold, ended("failed", "collector_away")),
        (told, ended("cancelled", "cancelled")),
        (external, ended("ok", "")),
    ] {
        assert_eq!(state(&collector, run).await, expected);
    }
    let foreign = Client::of(&other, &collector)
        .call::<Ended>(path::BACKUP_END, &not_its_own)
        .await;
    assert_eq!(foreign, Err(not_found()));
    let rows: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from backup_runs), (select count(*) from snapshots where size_bytes is null),
             (select count(*) from events where kind = 'backup_result')",
    )
    .fetch_one(&collector.pool)
    .await
    .unwrap();
    assert_eq!(rows, (3, 1, 5));
    bring(&collector, &host, 4, &ends).await;
    assert_eq!(state(&collector, external).await, ended("ok", ""));
    // What another tool has cannot be read here.
    let ask = SnapshotsAsked {
        volume: restic.id,
        before: None,
    };
    let list: Snapshots = client.call(path::BACKUP_SNAPSHOTS, &ask).await.unwrap();
    assert_eq!(list.snapshots, []);
    stays_while_it_has_volumes(&collector, &host).await;
}

/// A host with what is protected cannot be deleted, and one that had it can.
async fn stays_while_it_has_volumes(collector: &Collector, host: &Host) {
    let delete = format!("/api/v1/hosts/{}", host.id);
    let retire = format!("{delete}/retire");
    collector.api(Method::POST, &retire, "{}").await;
    let left = async || collector.api(Method::DELETE, &delete, "").await;
    let (status, problem) = left().await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &"volumes_left".into())
    );
    let sql = async |sql: &'static str| {
        sqlx::query(sql).execute(&collector.pool).await.unwrap();
    };
    sql("update volumes set deleted_at = now()").await;
    assert_eq!(left().await.1["type"], "volumes_left");
    sql("delete from snapshots").await;
    assert_eq!(left().await.1["type"], "volumes_left", "its keys are there");
    sql("delete from volume_keys").await;
    assert_eq!(left().await.0, StatusCode::NO_CONTENT);
    let runs: i64 = sqlx::query_scalar("select count(*) from backup_runs")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(runs, 0);
}
