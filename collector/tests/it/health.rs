//! `/health`, before the database answers and when it no longer lets the collector in; and `doctor`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use infratrack_collector::postgres::PrivatePostgres;
use infratrack_testkit::postgres::{durable_cluster, reachable_tempdir};
use infratrack_testkit::process::Process;
use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};

use crate::harness::{Collector, eventually};

const PASSWORD: &str = "correct-horse";
const REFUSED: &str = "Postgres refuses the configured credentials";

/// A role with a password, which is asked for, and a database of its own.
async fn guarded(postgres: &PrivatePostgres, dir: &Path) -> (PgConnection, PgConnectOptions) {
    let all = postgres.connect_options();
    let hba = dir.join("postgres/cluster/pg_hba.conf");
    std::fs::write(
        hba,
        "local all guarded scram-sha-256\nlocal all all trust\n",
    )
    .unwrap();
    let mut admin = PgConnection::connect_with(&all).await.unwrap();
    for sql in [
        "select pg_reload_conf()",
        "create role guarded login password 'correct-horse'",
        "create database guarded owner guarded",
    ] {
        admin.execute(sql).await.unwrap();
    }
    let options = all
        .username("guarded")
        .password(PASSWORD)
        .database("guarded");
    (admin, options)
}

async fn get(port: u16, path: &str) -> Option<(StatusCode, String)> {
    get_as(port, path, "*/*").await
}

async fn get_as(port: u16, path: &str, accept: &str) -> Option<(StatusCode, String)> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(connection);
    let request = Request::builder().uri(path).header("host", "test");
    let request = request.header("accept", accept);
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Nobody learns who was refused, or with what.
fn tells_nothing(text: &str) {
    for secret in ["guarded", "wrong-horse", PASSWORD, "postgres://", "socket"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_no_longer_good_shows_on_health_while_connections_last() {
    let dir = reachable_tempdir().unwrap();
    let postgres = durable_cluster(dir.path()).await.unwrap();
    let (mut admin, options) = guarded(&postgres, dir.path()).await;
    infratrack_collector::server::migrate(options.clone())
        .await
        .unwrap();
    let collector = Collector::over(options).await;
    assert_eq!(collector.get("/health").await["status"], "ok");
    admin
        .execute("alter role guarded password 'another'")
        .await
        .unwrap();
    let (health, text) = eventually("the refusal to show", || async {
        let (status, health) = collector.api(Method::GET, "/health", "").await;
        let text = health.to_string();
        (status == StatusCode::SERVICE_UNAVAILABLE && text.contains(REFUSED))
            .then_some((health, text))
    })
    .await;
    assert_eq!(health["status"], "failing");
    tells_nothing(&text);
    // What it has still works.
    assert_eq!(collector.get("/health/ready").await["status"], "ok");
    assert_eq!(collector.get("/health/live").await["status"], "ok");
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'guarded'";
    let ended = sqlx::query(sql).execute(&mut admin).await.unwrap();
    assert!(ended.rows_affected() > 0, "it had connections");
    eventually("ready to say no", || async {
        let (status, ready) = collector.api(Method::GET, "/health/ready", "").await;
        tells_nothing(&ready.to_string());
        (status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    assert_eq!(collector.get("/health/live").await["status"], "ok");
    admin
        .execute("alter role guarded password 'correct-horse'")
        .await
        .unwrap();
    eventually("good health", || async {
        let (status, _) = collector.api(Method::GET, "/health", "").await;
        (status == StatusCode::OK).then_some(())
    })
    .await;
    collector.server.stop().await;
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_starts_with_a_wrong_password_says_so_and_starts_when_it_is_right() {
    let dir = reachable_tempdir().unwrap();
    let postgres = durable_cluster(dir.path()).await.unwrap();
    let (mut admin, options) = guarded(&postgres, dir.path()).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let config = dir.path().join("collector.toml");
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let text = format!(
        "data_dir = '{}'\n[operators]\nlisten = '127.0.0.1:{port}'\n[agents]\nlisten = '127.0.0.1:0'\n\
         [enroll]\nlisten = '127.0.0.1:0'\n",
        data.display()
    );
    std::fs::write(&config, text).unwrap();
    let log = dir.path().join("collector.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_infratrack-collector"));
    command.arg("--config").arg(&config).arg("serve").env(
        "DATABASE_URL",
        options
            .clone()
            .password("wrong-horse")
            .to_url_lossy()
            .as_str(),
    );
    let start = |command: &mut Command| Process::start(command, &log, Stdio::null()).unwrap();
    let mut stopped = start(&mut command);
    eventually("health to say so", || async {
        let (status, text) = get(port, "/health").await?;
        (status == StatusCode::SERVICE_UNAVAILABLE && text.contains(REFUSED)).then_some(())
    })
    .await;
    for (path, expected) in [
        ("/health/ready", StatusCode::SERVICE_UNAVAILABLE),
        ("/health/live", StatusCode::OK),
        ("/hosts", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let (status, text) = get(port, path).await.unwrap();
        assert_eq!(status, expected, "{path}");
        tells_nothing(&text);
    }
    let (status, page) = get_as(port, "/hosts", "text/html,*/*").await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.contains("<h1>The collector is starting</h1>") && page.contains(REFUSED));
    tells_nothing(page.split_once("</style>").unwrap().1);
    stopped.signal(Signal::SIGTERM);
    let ended = stopped.ended(Duration::from_secs(10)).await.unwrap();
    assert!(ended.success(), "it is told to stop and stops: {ended}");

    let waiting = start(&mut command);
    eventually("health to say so again", || async {
        let (status, _) = get(port, "/health").await?;
        (status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    admin
        .execute("alter role guarded password 'wrong-horse'")
        .await
        .unwrap();
    eventually("the collector to work", || async {
        let (status, text) = get(port, "/health").await?;
        (status == StatusCode::OK && text.contains("migrations")).then_some(())
    })
    .await;
    let said = std::fs::read_to_string(&log).unwrap();
    for secret in ["wrong-horse", PASSWORD] {
        assert!(!said.contains(secret), "{said}");
    }
    drop(waiting);
    postgres.stop().await;
}

/// `doctor` as it is run beside a collector.
fn doctor(collector: &Collector, settings: &str, url: Option<&str>) -> (Output, Vec<Value>) {
    let config = collector.data_dir.path().join("doctor.toml");
    let text = format!(
        "data_dir = '{}'\n{settings}",
        collector.data_dir.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let database = collector.database.as_ref().unwrap();
    let own = database.connect_options().to_url_lossy();
    let output = Command::new(env!("CARGO_BIN_EXE_infratrack-collector"))
        .arg("--config")
        .arg(&config)
        .args(["doctor", "--json"])
        .env("DATABASE_URL", url.unwrap_or(own.as_str()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let findings = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, findings)
}

/// How `name` is, and its words.
fn finding(findings: &[Value], name: &str, status: &str) -> String {
    let found = findings
        .iter()
        .find(|finding| finding["name"] == name && finding["status"] == status);
    let found = found.unwrap_or_else(|| panic!("{name} {status}: {findings:?}"));
    assert!(status == "ok" || found["advice"].is_string(), "{found}");
    found["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_is_wrong_and_what_to_do() {
    let collector = Collector::start().await;
    let (output, findings) = doctor(&collector, "", None);
    // The tests' Postgres does not sync: that is what it is told, and nothing else.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    finding(&findings, "database settings", "fail");
    for well in [
        "configuration",
        "data directory",
        "permissions",
        "certificate authority",
        "blob store",
        "database",
        "migrations",
        "clock",
    ] {
        finding(&findings, well, "ok");
    }

    let ca = collector.data_dir.path().join("ca");
    let key = ca.join("issuing.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let blobs = collector.data_dir.path().join("blobs/doctor");
    std::fs::remove_dir_all(&blobs).unwrap();
    std::fs::write(&blobs, b"in the way").unwrap();
    sqlx::query("delete from _sqlx_migrations where version = 2")
        .execute(&collector.pool)
        .await
        .unwrap();
    let (_, findings) = doctor(&collector, "", None);
    let readable = finding(&findings, "permissions", "fail");
    assert!(readable.contains("issuing.key has mode 0644"), "{readable}");
    finding(&findings, "blob store", "fail");
    let missing = finding(&findings, "migrations", "fail");
    assert!(missing.contains("1 are not applied"), "{missing}");

    std::fs::remove_file(ca.join("root.pem")).unwrap();
    let gone = "postgres://nobody:secret-word@127.0.0.1:1/nothing";
    let (output, findings) = doctor(&collector, "", Some(gone));
    finding(&findings, "certificate authority", "fail");
    finding(&findings, "database", "fail");
    let said =
        String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(
        !said.contains("secret-word") && !said.contains("nobody"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_knows_a_key_of_another_certificate_and_one_that_expires() {
    let collector = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let settings = |certificate: &str, key: &str| {
        format!(
            "[operators]\ntls_certificate_file = '{}'\ntls_key_file = '{}'\n",
            file(certificate),
            file(key)
        )
    };
    let now =
        time::OffsetDateTime::from(std::fs::metadata(dir.path()).unwrap().modified().unwrap());
    for (name, days) in [("long", 90), ("short", 3), ("over", -1)] {
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["infratrack.example".to_owned()]).unwrap();
        params.not_before = now - time::Duration::days(30);
        params.not_after = now + time::Duration::days(days) + time::Duration::hours(1);
        let certificate = params.self_signed(&pair).unwrap();
        std::fs::write(file(&format!("{name}.pem")), certificate.pem()).unwrap();
        let key = file(&format!("{name}.key"));
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    for (certificate, key, status) in [
        ("long.pem", "long.key", "ok"),
        ("short.pem", "short.key", "warn"),
        ("over.pem", "over.key", "fail"),
        ("long.pem", "short.key", "fail"),
        ("gone.pem", "long.key", "fail"),
    ] {
        let (_, findings) = doctor(&collector, &settings(certificate, key), None);
        finding(&findings, "operators' TLS", status);
    }
}
