//! Postgres gone in the middle: nothing acknowledged that is not stored, nothing stored twice.

use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_agent::uplink::UplinkError;
use infratrack_testkit::postgres::{durable_cluster, reachable_tempdir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Collector, eventually, part};

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_batches_are_503_and_after_it_is_back_they_count_once() {
    let dir = reachable_tempdir().unwrap();
    let mut postgres = durable_cluster(dir.path()).await.unwrap();
    let collector = Collector::over(postgres.connect_options()).await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.parts = vec![part(&collector, &[1, 2])];
    host.send(&collector, &batch).await.unwrap();
    kill(
        Pid::from_raw(postgres.pid().unwrap().cast_signed()),
        Signal::SIGKILL,
    )
    .unwrap();
    batch.parts = vec![part(&collector, &[3, 4])];
    let away = host.send(&collector, &batch).await;
    let Err(UplinkError::Refused {
        status,
        retry_after,
        ..
    }) = away
    else {
        panic!("{away:?}")
    };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(retry_after >= Some(Duration::from_secs(5)));
    let (status, health) = collector.api(Method::GET, "/health", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{health}");
    assert_eq!(health["checks"][0]["name"], "database");
    let pid = postgres.pid();
    let supervised = tokio::spawn(async move {
        // Only an error ends it; the abort below drops the server's handle.
        let error = postgres.supervise().await;
        panic!("{error}");
    });
    let ack = eventually("Postgres to be back", || async {
        host.send(&collector, &batch).await.ok()
    })
    .await;
    assert_eq!(ack.cursors[0].acked_seq, 4);
    let sql = "select count(*) from events where host_id = $1 and seq is not null";
    assert_eq!(collector.count(sql, &host).await, 4);
    supervised.abort();
    supervised.await.unwrap_err();
    let restarted =
        std::fs::read_to_string(dir.path().join("postgres/cluster/postmaster.pid")).unwrap();
    let restarted: i32 = restarted.lines().next().unwrap().parse().unwrap();
    assert_ne!(Some(restarted.cast_unsigned()), pid);
    kill(Pid::from_raw(restarted), Signal::SIGINT).unwrap();
    eventually("Postgres to stop", || async {
        (!dir.path().join("postgres/cluster/postmaster.pid").exists()).then_some(())
    })
    .await;
}
