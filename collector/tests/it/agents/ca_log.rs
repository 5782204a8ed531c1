//! A database that forgot: what was issued and revoked since its backup comes back from the log.

use std::process::{Command, Stdio};

use bytes::Bytes;
use http::{Method, StatusCode};
use infratrack_agent::identity::Identity;
use infratrack_collector::blob::Key;
use infratrack_collector::ca::Ca;
use infratrack_collector::ca_log::replay::{Report, replay};
use infratrack_collector::ca_log::{self, Entry, Kind, LogError};
use infratrack_collector::jobs;
use infratrack_shared::wire::enroll::{RenewRequest, RenewResponse};
use infratrack_shared::wire::{PROTOCOL, path};
use serde_bytes::ByteBuf;
use sqlx::{ConnectOptions, PgPool};
use time::Duration;

use crate::harness::{Collector, Host, eventually, refusal};

/// Waits until the log has all there is.
async fn logged(collector: &Collector) {
    let sql = "select count(*) from agent_certs where issue_logged_at is null
               or (revoked_at is not null and revocation_logged_at is null)";
    eventually("the log to be written", || async {
        let left: i64 = sqlx::query_scalar(sql)
            .fetch_one(&collector.pool)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
}

/// Renews the host's certificate and uses it from here on.
async fn renew(host: &Host, collector: &Collector) {
    let request = RenewRequest {
        protocol: PROTOCOL,
        csr: ByteBuf::from(host.identity.request().unwrap()),
        instance: None,
    };
    let mut connection = host.connect(collector).await;
    let (_, renewed): (_, RenewResponse) = connection.call(path::RENEW, &request).await.unwrap();
    host.identity.store_next(&renewed.chain).unwrap();
    host.identity.promote_next().unwrap();
}

async fn revoke(host: &Host, collector: &Collector) {
    let path = format!("/api/v1/hosts/{}/revoke", host.id);
    let (status, _) = collector.api(Method::POST, &path, "").await;
    assert_eq!(status, StatusCode::OK);
}

/// As if a backup from before `serials` were issued had been restored.
async fn forget(pool: &PgPool, serials: &[Vec<u8>]) {
    let sql = "delete from agent_certs where serial = any($1)";
    let gone = sqlx::query(sql).bind(serials).execute(pool).await.unwrap();
    assert_eq!(gone.rows_affected(), serials.len() as u64);
}

async fn forget_host(pool: &PgPool, host: &Host) {
    for sql in [
        "delete from agent_certs where host_id = $1",
        "delete from enrollments where host_id = $1",
        "delete from hosts where host_id = $1",
    ] {
        sqlx::query(sql)
            .bind(host.id.0)
            .execute(pool)
            .await
            .unwrap();
    }
}

async fn forget_revocation(pool: &PgPool, host: &Host) {
    let sql = "update agent_certs set revoked_at = null, revoked_by = null, revoked_reason = null,
               revocation_stored_at = null, revocation_logged_at = null where host_id = $1";
    let changed = sqlx::query(sql)
        .bind(host.id.0)
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(changed.rows_affected(), 1);
}

fn serial(identity: &Identity) -> Vec<u8> {
    hex::decode(identity.current().unwrap().serial).unwrap()
}

async fn replayed(collector: &Collector) -> Report {
    let app = &collector.server.app;
    replay(&app.pool, &app.blob, &app.ca.load(), app.clock.now())
        .await
        .unwrap()
}

/// The name of an object on the host's certificate.
async fn object(collector: &Collector, host: &Host, kind: Kind) -> Key {
    let not_after: time::OffsetDateTime =
        sqlx::query_scalar("select not_after from agent_certs where serial = $1")
            .bind(serial(&host.identity))
            .fetch_one(&collector.pool)
            .await
            .unwrap();
    ca_log::key(not_after.date(), &serial(&host.identity), kind).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_lets_renewed_and_new_hosts_in_and_keeps_revoked_ones_out() {
    let collector = Collector::start().await;
    let (renewed, stolen) = (collector.host().await, collector.host().await);
    // From here on, the backup knows nothing.
    renew(&renewed, &collector).await;
    let new = collector.host().await;
    revoke(&stolen, &collector).await;
    logged(&collector).await;
    let collector = collector
        .restarted(async |pool| {
            forget(pool, &[serial(&renewed.identity)]).await;
            forget_host(pool, &new).await;
            forget_revocation(pool, &stolen).await;
        })
        .await;
    for host in [&renewed, &new] {
        host.send(&collector, &host.batch(&collector))
            .await
            .unwrap();
    }
    let refused = refusal(stolen.send(&collector, &stolen.batch(&collector)).await);
    assert_eq!(
        refused,
        (StatusCode::FORBIDDEN, "certificate_revoked".to_owned())
    );
    let shown = collector.get(&format!("/api/v1/hosts/{}", new.id)).await;
    assert_eq!(shown["name"], "test-host");
    assert!(replayed(&collector).await.is_quiet(), "all is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_replay_the_log_by_hand() {
    let collector = Collector::start().await;
    let (host, stolen) = (collector.host().await, collector.host().await);
    revoke(&stolen, &collector).await;
    logged(&collector).await;
    forget(&collector.pool, &[serial(&host.identity)]).await;
    forget_revocation(&collector.pool, &stolen).await;
    let config = collector.data_dir.path().join("collector.toml");
    let text = format!("data_dir = {:?}", collector.data_dir.path());
    std::fs::write(&config, text).unwrap();
    let database = collector.database.as_ref().unwrap();
    let url = database.connect_options().to_url_lossy();
    let output = Command::new(env!("CARGO_BIN_EXE_infratrack-collector"))
        .arg("--config")
        .arg(&config)
        .args(["ca", "replay"])
        .env("DATABASE_URL", url.as_str())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("3 objects"), "{said}");
    assert!(
        said.contains("restored 1 certificates of 0 lost hosts"),
        "{said}"
    );
    assert!(said.contains("1 revocations"), "{said}");
    host.send(&collector, &host.batch(&collector))
        .await
        .unwrap();
    // The collector that runs learns of it like of any revocation.
    eventually("the revoked host to be refused", || async {
        let sent = stolen.send(&collector, &stolen.batch(&collector)).await;
        sent.is_err().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_or_damaged_object_is_reported_and_the_rest_is_replayed() {
    let collector = Collector::start().await;
    let (good, damaged, stranger) = (
        collector.host().await,
        collector.host().await,
        collector.host().await,
    );
    logged(&collector).await;
    let blob = &collector.server.app.blob;
    let damaged_key = object(&collector, &damaged, Kind::Issued).await;
    let bytes = blob
        .find_bytes(&damaged_key, 16_384)
        .await
        .unwrap()
        .unwrap();
    let mut turned = bytes.to_vec();
    turned[40] ^= 1;
    blob.delete(&damaged_key).await.unwrap();
    blob.put_bytes(&damaged_key, Bytes::from(turned))
        .await
        .unwrap();
    // A revocation by someone who can write to the store and has no key.
    let forged_key = object(&collector, &stranger, Kind::Revoked).await;
    let dir = tempfile::tempdir().unwrap();
    let their_ca = Ca::open_or_create(dir.path(), "infratrack", collector.clock.now()).unwrap();
    let revoked = Entry::Revoked(ca_log::Revoked {
        serial: ByteBuf::from(serial(&stranger.identity)),
        host_id: stranger.id,
        revoked_at: collector.clock.clock().unix_millis(),
        by: "nobody".to_owned(),
        reason: "mischief".to_owned(),
    });
    let object = ca_log::seal(&their_ca, &revoked).unwrap();
    blob.put_bytes(&forged_key, object).await.unwrap();
    let nonsense = Key::new("ca-log/2999-01-01/nonsense").unwrap();
    blob.put_bytes(&nonsense, Bytes::new()).await.unwrap();
    let hosts = [&good, &damaged];
    forget(&collector.pool, &hosts.map(|host| serial(&host.identity))).await;
    let report = replayed(&collector).await;
    assert_eq!(
        (report.certificates_restored, report.revocations_restored),
        (1, 0)
    );
    let mut refused: Vec<&Key> = report.refused.iter().map(|(key, _)| key).collect();
    refused.sort();
    let mut expected = [&damaged_key, &forged_key, &nonsense];
    expected.sort();
    assert_eq!(refused, expected);
    let forged = report.refused.iter().find(|(key, _)| *key == forged_key);
    assert!(matches!(forged, Some((_, LogError::Signer))), "{forged:?}");
    for host in [&good, &stranger] {
        host.send(&collector, &host.batch(&collector))
            .await
            .unwrap();
    }
    let refused = refusal(damaged.send(&collector, &damaged.batch(&collector)).await);
    assert_eq!(refused.1, "certificate_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_blob_store_is_away_issuing_and_revoking_go_on_and_the_log_follows() {
    let collector = Collector::start().await;
    let log = collector.data_dir.path().join("blobs/ca-log");
    // A file where the log's directory has to be: every write fails.
    std::fs::write(&log, b"in the way").unwrap();
    let (host, revoked) = (collector.host().await, collector.host().await);
    renew(&host, &collector).await;
    revoke(&revoked, &collector).await;
    let app = std::sync::Arc::clone(&collector.server.app);
    eventually("the job to fail: the store is away", || async {
        let ran = jobs::run::once(&app, "ca_log", jobs::ca_log::run).await;
        matches!(ran.unwrap(), Some(jobs::run::Done::ButFor(_))).then_some(())
    })
    .await;
    std::fs::remove_file(&log).unwrap();
    logged(&collector).await;
    for (host, kind) in [
        (&host, Kind::Issued),
        (&revoked, Kind::Issued),
        (&revoked, Kind::Revoked),
    ] {
        let key = object(&collector, host, kind).await;
        let blob = &collector.server.app.blob;
        let bytes = blob
            .find_bytes(&key, 16_384)
            .await
            .unwrap()
            .expect("written");
        let entry = ca_log::unseal(&collector.server.app.ca.load(), &key, &bytes).unwrap();
        assert_eq!(entry.kind(), kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_there_before_is_kept_if_sound_and_replaced_if_not() {
    let collector = Collector::start().await;
    let (sound, forged) = (collector.host().await, collector.host().await);
    logged(&collector).await;
    let blob = &collector.server.app.blob;
    let read = async |key: &Key| blob.find_bytes(key, 16_384).await.unwrap().unwrap();
    let sound_key = object(&collector, &sound, Kind::Issued).await;
    let before = read(&sound_key).await;
    let forged_key = object(&collector, &forged, Kind::Issued).await;
    blob.delete(&forged_key).await.unwrap();
    blob.put_bytes(&forged_key, Bytes::from_static(b"forged"))
        .await
        .unwrap();
    // A crash between the object and the mark, or a backup from between.
    sqlx::query("update agent_certs set issue_logged_at = null")
        .execute(&collector.pool)
        .await
        .unwrap();
    logged(&collector).await;
    assert_eq!(read(&sound_key).await, before);
    let bytes = read(&forged_key).await;
    ca_log::unseal(&collector.server.app.ca.load(), &forged_key, &bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_revoked_and_deleted_does_not_come_back() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    revoke(&host, &collector).await;
    logged(&collector).await;
    forget_host(&collector.pool, &host).await;
    let report = replayed(&collector).await;
    assert!(report.is_quiet(), "{report:?}");
    assert_eq!(report.listed, 2);
    let hosts = "select count(*) from hosts where host_id = $1";
    assert_eq!(collector.count(hosts, &host).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_of_long_ago_that_the_database_learns_today_is_acted_upon() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    host.send(&collector, &host.batch(&collector))
        .await
        .unwrap();
    // No notification: one may be missed.
    let sql =
        "update agent_certs set revoked_at = $2, revocation_stored_at = $3 where host_id = $1";
    let now = collector.clock.now();
    sqlx::query(sql)
        .bind(host.id.0)
        .bind(now - Duration::days(10))
        .bind(now)
        .execute(&collector.pool)
        .await
        .unwrap();
    eventually("the revoked host to be refused", || async {
        let sent = host.send(&collector, &host.batch(&collector)).await;
        sent.is_err().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_forgets_what_the_tables_forget() {
    let collector = Collector::start().await;
    let old = collector.host().await;
    logged(&collector).await;
    let key = object(&collector, &old, Kind::Issued).await;
    let app = std::sync::Arc::clone(&collector.server.app);
    // 30 days until it expires, 90 remembered.
    collector.clock.advance(Duration::days(119));
    jobs::ca_log::remove_old(app.clone()).await.unwrap();
    assert!(app.blob.find(&key).await.unwrap().is_some());
    collector.clock.advance(Duration::days(2));
    jobs::ca_log::remove_old(app.clone()).await.unwrap();
    assert!(app.blob.find(&key).await.unwrap().is_none());
}
