//! Postgres gone in the middle: nothing acknowledged that is not stored, nothing stored twice.

use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_agent::uplink::UplinkError;
use infratrack_collector::postgres::PrivatePostgres;
use infratrack_testkit::postgres::{durable_cluster, reachable_tempdir};
use infratrack_testkit::proxy::{Fault, Proxy, Upstream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::time::Instant;

use crate::harness::{Collector, eventually, eventually_within, part};

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
    // Its children outlive it for a moment, in which they may still store.
    let away = eventually("Postgres to be gone", || async {
        host.send(&collector, &batch).await.err()
    });
    let away = away.await;
    let UplinkError::Refused {
        status,
        retry_after,
        ..
    } = away
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

/// A peer that is gone without a word is noticed within this.
const NOTICED: Duration = Duration::from_secs(35);

/// A way to Postgres that can be hurt.
async fn by_proxy(postgres: &PrivatePostgres) -> (Proxy, PgConnectOptions) {
    let socket = postgres.connect_options().get_socket().unwrap().clone();
    let proxy = Proxy::start(Upstream::Unix(socket.join(".s.PGSQL.5432")));
    let proxy = proxy.await.unwrap();
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(proxy.address().port())
        .ssl_mode(PgSslMode::Disable)
        .username("infratrack")
        .database("infratrack");
    (proxy, options)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_postgres_that_fell_silent_are_replaced_and_nobody_waits_for_them() {
    let dir = reachable_tempdir().unwrap();
    let postgres = durable_cluster(dir.path()).await.unwrap();
    let (proxy, options) = by_proxy(&postgres).await;
    let collector = Collector::over(options).await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.parts = vec![part(&collector, &[1, 2])];
    host.send(&collector, &batch).await.unwrap();
    // As by a firewall between the two that was restarted: whoever waits for an answer waits for ever.
    proxy.forget();
    batch.parts = vec![part(&collector, &[3, 4])];
    let silent_since = Instant::now();
    let ack = loop {
        match host.send(&collector, &batch).await {
            Ok(ack) => break ack,
            Err(UplinkError::Refused { status, .. }) => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            }
            Err(other) => panic!("{other}"),
        }
        assert!(silent_since.elapsed() < NOTICED, "still waiting");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(ack.cursors[0].acked_seq, 4);
    assert!(proxy.fired() > 0, "it was felt");
    eventually_within(NOTICED, "the pool's connections to be replaced", || async {
        let (status, _) = collector.api(Method::GET, "/health", "").await;
        (status == StatusCode::OK).then_some(())
    })
    .await;

    // And a collector that is told to stop while nothing passes ends.
    proxy.set(Fault::HalfOpen);
    batch.parts = vec![part(&collector, &[5])];
    let mut connection = host.connect(&collector).await;
    let asking = tokio::spawn(async move { crate::harness::send(&mut connection, &batch).await });
    let before = proxy.fired();
    eventually("the database to be silent", || async {
        (proxy.fired() > before).then_some(())
    })
    .await;
    let stopped = tokio::time::timeout(NOTICED * 2, collector.server.stop()).await;
    stopped.expect("the collector ends");
    asking.await.unwrap().expect_err("it was not stored");
    postgres.stop().await;
}

/// Over a unix socket they say nothing, so it is asked what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_asked_to_probe_its_connections() {
    let collector = Collector::start().await;
    let asked: Vec<String> = sqlx::query_scalar(
        "select name || ' ' || reset_val from pg_settings
         where name like 'tcp\\_%' and source = 'client' order by name",
    )
    .fetch_all(&collector.pool)
    .await
    .unwrap();
    let expected = [
        "tcp_keepalives_count 4",
        "tcp_keepalives_idle 10",
        "tcp_keepalives_interval 5",
        "tcp_user_timeout 30000",
    ];
    assert_eq!(asked, expected);
}
