//! A Postgres that is there and refuses: rights, connections, disk. It shows on `/health` and in words, agents
//! are told to come back, and when it takes again nobody has to do anything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_agent::uplink::UplinkError;
use infratrack_collector::postgres::PrivatePostgres;
use infratrack_collector::server;
use infratrack_testkit::postgres::{durable_cluster, reachable_tempdir};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Uid;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};

use crate::harness::{Collector, Host, eventually, part, record};

/// One 503 with a time to come back. Answers what it says.
async fn put_off(host: &Host, collector: &Collector, seqs: &[u64]) -> StatusCode {
    let mut batch = host.batch(collector);
    batch.parts = vec![part(collector, seqs)];
    match host.send(collector, &batch).await {
        Err(UplinkError::Refused {
            status,
            retry_after,
            ..
        }) => {
            assert!(retry_after >= Some(Duration::from_secs(5)));
            status
        }
        other => panic!("{other:?}"),
    }
}

/// What is wrong by `/health`, once something is.
async fn complaint(collector: &Collector) -> Value {
    eventually("a complaint", || async {
        let (status, health) = collector.api(Method::GET, "/health", "").await;
        (status == StatusCode::SERVICE_UNAVAILABLE).then_some(health)
    })
    .await
}

/// Sends until it is stored, and all is well again.
async fn recovered(host: &Host, collector: &Collector, seqs: &[u64]) {
    let mut batch = host.batch(collector);
    batch.parts = vec![part(collector, seqs)];
    eventually("the batch to be stored", || async {
        host.send(collector, &batch).await.ok()
    })
    .await;
    eventually("good health", || async {
        let (status, _) = collector.api(Method::GET, "/health", "").await;
        (status == StatusCode::OK).then_some(())
    })
    .await;
    let sql = "select count(*) from events where host_id = $1 and seq is not null";
    let last = i64::try_from(*seqs.last().unwrap()).unwrap();
    assert_eq!(collector.count(sql, host).await, last);
}

/// A role that is no superuser, with a database of its own.
async fn limited(postgres: &PrivatePostgres, dir: &Path) -> (PgConnection, PgConnectOptions) {
    let all = postgres.connect_options();
    let hba = dir.join("postgres/cluster/pg_hba.conf");
    std::fs::write(hba, "local all all trust\n").unwrap();
    let mut admin = PgConnection::connect_with(&all).await.unwrap();
    for sql in [
        "select pg_reload_conf()",
        "create role limited login",
        "create database limited owner limited",
    ] {
        admin.execute(sql).await.unwrap();
    }
    admin.close().await.unwrap();
    let admin = PgConnection::connect_with(&all.clone().database("limited")).await;
    let options = all.username("limited").database("limited");
    server::migrate(options.clone()).await.unwrap();
    (admin.unwrap(), options)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rights_or_a_free_connection_health_says_so_and_all_recovers_by_itself() {
    let dir = reachable_tempdir().unwrap();
    let postgres = durable_cluster(dir.path()).await.unwrap();
    let (mut admin, options) = limited(&postgres, dir.path()).await;
    let collector = Collector::over(options).await;
    let host = collector.host().await;
    recovered(&host, &collector, &[1]).await;

    admin
        .execute("revoke insert on events from limited")
        .await
        .unwrap();
    let status = put_off(&host, &collector, &[2]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let health = complaint(&collector).await;
    assert_eq!(health["checks"][2]["name"], "writes");
    assert_eq!(
        health["checks"][2]["detail"],
        "the configured role lacks rights in the database"
    );
    admin
        .execute("grant insert on events to limited")
        .await
        .unwrap();
    recovered(&host, &collector, &[2]).await;

    admin
        .execute("alter role limited connection limit 0")
        .await
        .unwrap();
    let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where usename = 'limited'";
    let ended: i64 = sqlx::query_scalar(ended)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(ended > 0, "the collector had connections");
    put_off(&host, &collector, &[3]).await;
    eventually("the reason", || async {
        let (_, health) = collector.api(Method::GET, "/health", "").await;
        (health["checks"]
            .to_string()
            .contains("takes no more connections"))
        .then_some(())
    })
    .await;
    admin
        .execute("alter role limited connection limit -1")
        .await
        .unwrap();
    recovered(&host, &collector, &[3]).await;
    collector.server.stop().await;
    postgres.stop().await;
}

/// A file system of memory, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let tmpfs = Some("tmpfs");
        let may = Uid::effective().is_root();
        let done = may && mount(tmpfs, path, tmpfs, MsFlags::empty(), Some(options)).is_ok();
        done.then(|| Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Also where a failed test left a server that still has it open.
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// Takes all the room there is.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let mut chunk = vec![0; 64 * 1024];
    while !chunk.is_empty() {
        if file.write_all(&chunk).is_err() {
            chunk.truncate(chunk.len() / 2);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test that can't run says so")]
#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_health_says_so_and_with_room_again_all_is_stored_once() {
    let dir = reachable_tempdir().unwrap();
    let place = dir.path().join("small");
    let Some(small) = Small::mount(&place, "size=192m,mode=755") else {
        eprintln!("not run: only root may mount a file system to fill");
        return;
    };
    let mut postgres = durable_cluster(&place).await.unwrap();
    let collector = Collector::over(postgres.connect_options()).await;
    let host = collector.host().await;
    recovered(&host, &collector, &[1]).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let supervised = tokio::spawn(async move {
        tokio::select! {
            error = postgres.supervise() => panic!("{error}"),
            _ = stopped => postgres.stop().await,
        }
    });
    let ballast = place.join("ballast");
    fill(&ballast);
    // Some room is left in pages and logs that are there; what needs a new page has none.
    let mut batch = host.batch(&collector);
    let mut seq = 2;
    let complaint = loop {
        // Random, so that Postgres can't make it small.
        let body = rmpv::Value::from(hex::encode(rand::random::<[u8; 30_000]>()));
        batch.parts = vec![part(&collector, &[seq])];
        batch.parts[0].records = vec![record(seq, "test", body, batch.sent_at)];
        match host.send(&collector, &batch).await {
            Ok(_) => seq += 1,
            Err(UplinkError::Refused { status, .. }) => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                break complaint(&collector).await;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(seq < 2000, "the disk never was full");
    };
    assert_eq!(complaint["status"], "failing", "{complaint}");
    std::fs::remove_file(&ballast).unwrap();
    eventually("the batch to be stored", || async {
        host.send(&collector, &batch).await.ok()
    })
    .await;
    recovered(&host, &collector, &[seq + 1]).await;
    collector.server.stop().await;
    drop(stop);
    supervised.await.unwrap();
    drop(small);
}
