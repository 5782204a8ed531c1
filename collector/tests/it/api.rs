//! What operators call: who may, what lists look like, and that errors say what is wrong.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use infratrack_shared::wire::heartbeat::FilesystemUsage;

use crate::harness::{Collector, Host};

async fn beat(collector: &Collector, host: &Host, used: u64) {
    let mut batch = host.batch(collector);
    let mut heartbeat = host.heartbeat(collector);
    heartbeat.filesystems = vec![FilesystemUsage {
        mount: "/".to_owned(),
        total_bytes: 100,
        available_bytes: 100 - used,
        inodes_total: 0,
        inodes_free: 0,
    }];
    batch.heartbeat = Some(heartbeat);
    host.send(collector, &batch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_listed_by_status_in_pages_with_reasons_in_words() {
    let collector = Collector::start().await;
    let (full, filling, fine, unseen) = (
        collector.host().await,
        collector.host().await,
        collector.host().await,
        collector.host().await,
    );
    for (host, used) in [(&full, 97), (&filling, 90), (&fine, 10)] {
        beat(&collector, host, used).await;
    }
    for (status, host, reasons) in [
        (
            "unhealthy",
            &full,
            serde_json::json!(["a filesystem is 97 % full"]),
        ),
        (
            "degraded",
            &filling,
            serde_json::json!(["a filesystem is 90 % full"]),
        ),
        ("healthy", &fine, serde_json::json!([])),
        ("unknown", &unseen, serde_json::json!([])),
    ] {
        let list = collector
            .get(&format!("/api/v1/hosts?status={status}"))
            .await;
        assert_eq!(list["total"], 1, "{list}");
        assert_eq!(list["items"][0]["id"], host.id.to_string());
        assert_eq!(list["items"][0]["reasons"], reasons);
        assert_eq!(list["next_cursor"], serde_json::Value::Null);
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/hosts?limit=3".to_owned();
    loop {
        let page = collector.get(&path).await;
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|host| host["id"].to_string()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/hosts?limit=3&cursor={cursor}");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

/// As if the hosts had been silent for so long while the collector listened.
async fn silence(collector: &Collector, seconds: i32) {
    let sql = "update host_liveness set last_seen_at = last_seen_at - make_interval(secs => $1)";
    sqlx::query(sql)
        .bind(f64::from(seconds))
        .execute(&collector.pool)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_becomes_late_then_offline_and_says_why_when_it_is_back() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    beat(&collector, &host, 10).await;
    let path = format!("/api/v1/hosts/{}", host.id);
    assert_eq!(collector.get(&path).await["liveness"], "online");
    silence(&collector, 80).await;
    assert_eq!(collector.get(&path).await["liveness"], "late");
    silence(&collector, 50).await;
    let shown = collector.get(&path).await;
    assert_eq!(
        (&shown["liveness"], &shown["status"]),
        (&"offline".into(), &"unhealthy".into())
    );
    let kinds = || async {
        let events = collector.get(&format!("{path}/events")).await;
        let items = events["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|e| (e["kind"].clone(), e["body"]["reason"].clone()))
            .collect::<Vec<_>>()
    };
    crate::harness::eventually("the offline event", || async {
        (kinds().await.first()?.0 == "host_offline").then_some(())
    })
    .await;
    beat(&collector, &host, 10).await;
    let back = crate::harness::eventually("the online event", || async {
        kinds()
            .await
            .into_iter()
            .next()
            .filter(|(kind, _)| kind == "host_online")
    })
    .await;
    assert_eq!(back.1, "network");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_without_a_collector_is_no_silence_of_the_hosts() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    beat(&collector, &host, 10).await;
    // The wall clock goes on while no sign of life is written: an hour without a collector.
    collector.clock.advance(time::Duration::hours(1));
    let path = format!("/api/v1/hosts/{}", host.id);
    crate::harness::eventually("the downtime to be noticed", || async {
        (collector.get(&path).await["liveness"] == "online").then_some(())
    })
    .await;
    let downtimes: i64 = sqlx::query_scalar("select count(*) from collector_downtimes")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(downtimes, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_request_is_named() {
    let collector = Collector::start().await;
    for (path, words) in [
        ("/api/v1/hosts?statsu=unhealthy", "unknown field `statsu`"),
        ("/api/v1/hosts?status=fine", "status must be one of"),
        ("/api/v1/hosts?limit=0", "limit must be from 1 to 500"),
        ("/api/v1/hosts?cursor=nonsense", "cursor is not one"),
        ("/api/v1/hosts/nonsense", "UUID"),
    ] {
        let (status, problem) = collector.api(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{path}: {problem}"
        );
        assert!(problem["request_id"].is_string());
    }
    let missing = format!("/api/v1/hosts/{}", uuid::Uuid::nil());
    assert_eq!(
        collector.api(Method::GET, &missing, "").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_503_with_the_part_that_is_wrong() {
    let collector = Collector::start().await;
    assert_eq!(collector.get("/health").await["status"], "ok");
    sqlx::query("delete from _sqlx_migrations where version > 3")
        .execute(&collector.pool)
        .await
        .unwrap();
    let (status, health) = collector.api(Method::GET, "/health", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health["checks"][1]["name"], "migrations");
    assert_eq!(health["checks"][1]["ok"], false);
}

/// A page as an operator's browser gets it.
async fn page(collector: &Collector, path: &str) -> Response<Bytes> {
    let request = Request::builder()
        .uri(path)
        .header("host", "test")
        .header("x-api-token", &collector.admin_token)
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = collector.request(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn pressure_and_temperature_are_shown_and_unknown_where_no_agent_tells_them() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let fields = [
        ("cpu_pressure_some_ratio", 0.125),
        ("memory_pressure_some_ratio", 0.25),
        ("memory_pressure_full_ratio", 0.0625),
        ("io_pressure_some_ratio", 0.5),
        ("io_pressure_full_ratio", 0.375),
        ("temperature_max_celsius", 48.5),
    ];
    let mut batch = host.batch(&collector);
    for told in [true, false] {
        let mut beat = host.heartbeat(&collector);
        if told {
            beat.cpu_pressure_some_ratio = Some(0.125);
            beat.memory_pressure_some_ratio = Some(0.25);
            beat.memory_pressure_full_ratio = Some(0.0625);
            beat.io_pressure_some_ratio = Some(0.5);
            beat.io_pressure_full_ratio = Some(0.375);
            beat.temperature_max_celsius = Some(48.5);
        }
        batch.heartbeat = Some(beat);
        host.send(&collector, &batch).await.unwrap();

        let path = format!("/api/v1/hosts/{}/heartbeats", host.id);
        let latest = collector.get(&path).await["items"][0].clone();
        for (field, value) in fields {
            let expected = told.then_some(value);
            assert_eq!(latest[field].as_f64(), expected, "{field}: {latest}");
        }
        let response = page(&collector, &format!("/hosts/{}", host.id)).await;
        let html = String::from_utf8(response.body().to_vec()).unwrap();
        let shown = if told {
            ["50 %, 38 %", "48 °C"]
        } else {
            ["unknown, unknown", "unknown"]
        };
        for (name, value) in ["Waiting for disks, stalled", "Hottest sensor"]
            .into_iter()
            .zip(shown)
        {
            let line = format!("<dt>{name}</dt><dd>{value}</dd>");
            assert!(html.contains(&line), "{line}: {html}");
        }
        collector.clock.advance(time::Duration::seconds(30));
        batch.sent_at = collector.clock.clock().unix_millis();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_show_a_host_and_hostile_names_stay_text() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    beat(&collector, &host, 97).await;
    let sql = "update hosts set name = '<script>alert(1)</script>'";
    sqlx::query(sql).execute(&collector.pool).await.unwrap();
    for path in ["/hosts".to_owned(), format!("/hosts/{}", host.id)] {
        let response = page(&collector, &path).await;
        let html = String::from_utf8(response.body().to_vec()).unwrap();
        assert!(html.contains("a filesystem is 97 % full"), "{html}");
        assert!(html.contains("&#60;script&#62;alert(1)"), "{html}");
        assert!(!html.contains("<script>alert"));
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(policy.contains("script-src 'nonce-"), "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_from_another_sites_page_is_refused() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/hosts/{}/refresh", host.id))
        .header("host", "collector.example")
        .header("origin", "https://evil.example")
        .header("x-api-token", &collector.admin_token)
        .body(Full::new(Bytes::new()))
        .unwrap();
    assert_eq!(
        collector.request(request).await.status(),
        StatusCode::FORBIDDEN
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_its_id_in_the_answer_and_in_a_problem() {
    let collector = Collector::start().await;
    let ask = async |path: &str, id: Option<&str>| {
        let mut request = Request::get(path)
            .header("host", "test")
            .header("x-api-token", &collector.admin_token);
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let response = collector
            .request(request.body(Full::default()).unwrap())
            .await;
        let id = response.headers()["x-request-id"].to_str().unwrap();
        let problem: serde_json::Value =
            serde_json::from_slice(response.body()).unwrap_or_default();
        (
            id.to_owned(),
            problem["request_id"].as_str().map(str::to_owned),
        )
    };
    assert_eq!(
        ask("/health", Some("abc-1")).await,
        ("abc-1".to_owned(), None)
    );
    let missing = "/api/v1/hosts/00000000-0000-0000-0000-000000000000";
    for path in [missing, "/nothing/here"] {
        let own = Some("from:elsewhere".to_owned());
        assert_eq!(
            ask(path, own.as_deref()).await,
            ("from:elsewhere".to_owned(), own)
        );
        let (made, told) = ask(path, Some("not an id")).await;
        assert!(uuid::Uuid::parse_str(&made).is_ok(), "{made}");
        assert_eq!(told, Some(made));
    }
}
