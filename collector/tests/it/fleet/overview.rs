//! The Overview: each count is that of the list behind it; nothing to do is a state of its own; the trend is kept.

use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_collector::config::Interval;
use serde_json::Value;

use super::{between, page, plain};
use crate::harness::{Collector, eventually};
use crate::hosts::{call, fleet};

/// Of some hosts: clocks that are off, certificates of every age, conflicts, reboots.
async fn trouble(collector: &Collector) {
    for sql in [
        "update host_liveness l set skew_ms = k * 4000 - 60000, open_conflict_count = (k % 17 = 0)::int,
             reboot_required = k % 5 = 0, reboot_required_since = $1 - make_interval(days => k % 12)
         from (select host_id, (row_number() over (order by host_id))::int % 40 as k from host_liveness) as o
         where o.host_id = l.host_id",
        "insert into agent_certs (serial, host_id, spki_sha256, certificate, issued_at, not_after, issue_logged_at)
         select decode(md5(host_id::text), 'hex'), host_id, decode(md5(host_id::text), 'hex'), '', $1,
             $1 + make_interval(days => n % 40 - 2), $1
         from (select host_id, (row_number() over (order by host_id))::int as n from hosts) as o where n % 3 > 0",
    ] {
        let now = collector.clock.now();
        sqlx::query(sql).bind(now).execute(&collector.pool).await.unwrap();
    }
    let path = "/api/v1/inventory/sync?source=s&kind=csv";
    let document = "name\nabsent-1\nabsent-2\n";
    let headers = [("content-type", "text/csv")];
    let synced = call(collector, Method::POST, path, &headers, document).await;
    assert_eq!(synced.status(), StatusCode::OK, "{synced:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_count_is_that_of_the_list_behind_it() {
    let collector = Collector::start().await;
    fleet(&collector, 61, 700).await;
    trouble(&collector).await;
    let overview = collector.get("/api/v1/overview").await;
    let needs = overview["needs"].as_array().unwrap();
    let codes: Vec<_> = needs
        .iter()
        .map(|need| need["code"].as_str().unwrap())
        .collect();
    // All that can be wrong is wrong with some.
    assert_eq!(
        codes,
        [
            "offline",
            "identity_conflict",
            "late",
            "disk",
            "certificate",
            "clock_skew",
            "failed_units",
            "reboot_required",
            "absent",
            "missing",
            "unknown"
        ]
    );
    let html = page(&collector, "/").await;
    for need in needs {
        let (code, count) = (need["code"].as_str().unwrap(), &need["count"]);
        let listed = collector.get(need["api"].as_str().unwrap()).await;
        assert_eq!(listed["total"], *count, "{code}");
        let tile = between(&html, &format!("data-need=\"{code}\"><b>"), "</b>");
        assert_eq!(tile, [count.to_string()], "{code}");
        // The page behind it is there and is the same list.
        let link = need["page"].as_str().unwrap();
        let links = between(&html, "href=\"", "\"");
        assert!(links.iter().any(|found| plain(found) == link), "{link}");
        page(&collector, link).await;
    }
    let hosts = &overview["hosts"];
    for status in ["healthy", "degraded", "unhealthy", "unknown"] {
        let listed = collector
            .get(&format!("/api/v1/hosts?status={status}"))
            .await;
        assert_eq!(hosts[status], listed["total"], "{status}");
    }
    assert_eq!(
        hosts["total"],
        collector.get("/api/v1/hosts").await["total"]
    );
    assert!(!html.contains("All quiet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_quiet_is_said_and_so_is_that_there_is_no_host() {
    let collector = Collector::start().await;
    assert!(page(&collector, "/").await.contains("No host yet"));
    let host = collector.host().await;
    let html = page(&collector, "/").await;
    assert!(
        html.contains("nothing known") && !html.contains("All quiet"),
        "{html}"
    );
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(host.heartbeat(&collector));
    host.send(&collector, &batch).await.unwrap();
    let html = page(&collector, "/").await;
    assert!(
        html.contains("All quiet") && html.contains("all 1 host<"),
        "{html}"
    );
    assert!(!html.contains("data-need"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trend_is_written_by_the_hour_and_forgotten_in_the_end() {
    let often = Interval(Duration::from_millis(50));
    let collector = Collector::start_with(|config| {
        config
            .jobs
            .intervals
            .insert("fleet_counts".to_owned(), often);
    })
    .await;
    collector.host().await;
    let hours = async || -> Vec<Value> {
        let overview = collector.get("/api/v1/overview").await;
        overview["trend"].as_array().unwrap().clone()
    };
    let written = eventually("the first hour", || async { hours().await.pop() }).await;
    assert_eq!(
        (&written["unknown"], &written["healthy"]),
        (&1.into(), &0.into())
    );
    assert!(
        written["at"].as_str().unwrap().ends_with(":00:00Z"),
        "{written}"
    );
    collector.clock.advance(time::Duration::hours(1));
    eventually("the second", || async {
        (hours().await.len() == 2).then_some(())
    })
    .await;
    let html = page(&collector, "/").await;
    assert!(
        html.contains("<path class=\"unknown\" d=\"M0.0 100L0.0 0.0L600.0 0.0L600.0 100Z\""),
        "{html}"
    );
    collector.clock.advance(time::Duration::days(401));
    let kept = async || -> i64 {
        let count = sqlx::query_scalar("select count(*) from fleet_counts");
        count.fetch_one(&collector.pool).await.unwrap()
    };
    eventually("the old ones to go", || async {
        (kept().await == 1).then_some(())
    })
    .await;
}
