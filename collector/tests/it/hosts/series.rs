//! `/api/v1/hosts/{id}/metrics`: where a range is read, gaps as gaps, and what is not kept as unknown.

use http::{Method, StatusCode};
use infratrack_collector::store::series::NAMES;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::made;
use crate::harness::Collector;

/// A host without an agent, and its id.
async fn host(collector: &Collector) -> uuid::Uuid {
    let name = uuid::Uuid::new_v4().to_string();
    let host = made(collector, json!({"name": name})).await;
    host["id"].as_str().unwrap().parse().unwrap()
}

/// Heartbeats every 30 s from so long ago until so long ago, with that much CPU.
async fn beats(collector: &Collector, host: uuid::Uuid, from: Duration, to: Duration, cpu: f32) {
    let now = collector.clock.now();
    let made = sqlx::query(
        "insert into heartbeats (host_id, at, stream, n, claimed_at, received_at, cpu_ratio, load_1,
             memory_total_bytes, memory_available_bytes, swap_total_bytes, swap_used_bytes, disk_read_bytes_per_s,
             cpu_pressure_some_ratio, filesystems)
         select $1, at, $1, extract(epoch from at)::bigint, at, at, $4, 2, 1000, 250, 0, 0, 4096, 0.125,
             '[{\"mount\": \"/\", \"total_bytes\": 100, \"available_bytes\": 40, \"inodes_total\": 0, \"inodes_free\": 0}]'
         from generate_series($2, $3 - interval '1 second', interval '30 seconds') as at",
    )
    .bind(host)
    .bind(now - from)
    .bind(now - to)
    .bind(cpu)
    .execute(&collector.pool)
    .await;
    assert!(made.unwrap().rows_affected() > 0);
}

/// Sums of that table, a bucket every so many minutes.
async fn sums(
    collector: &Collector,
    host: uuid::Uuid,
    table: &str,
    days: (i64, i64),
    minutes: i32,
) {
    let sql = format!(
        "insert into {table} (host_id, at, samples, cpu_samples, cpu_ratio_sum, cpu_ratio_max, load_samples,
             load_1_sum, load_1_max, memory_samples, memory_used_ratio_sum, memory_used_ratio_max,
             disk_used_ratio_max, net_sent_bytes_per_s_max)
         select $1, at, 10, 10, 5, 0.75, 0, 0, null, 10, 2, 0.5, 0.6, 7
         from generate_series(date_bin('1 hour', $2, 'epoch'), $3, make_interval(mins => $4)) as at"
    );
    let now = collector.clock.now();
    let made = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(host)
        .bind(now - Duration::days(days.0))
        .bind(now - Duration::days(days.1))
        .bind(minutes)
        .execute(&collector.pool)
        .await;
    assert!(made.unwrap().rows_affected() > 0);
}

async fn metrics(collector: &Collector, host: uuid::Uuid, ago: Duration, more: &str) -> Value {
    let from = (collector.clock.now() - ago).format(&Rfc3339).unwrap();
    collector
        .get(&format!("/api/v1/hosts/{host}/metrics?from={from}{more}"))
        .await
}

fn series<'a>(document: &'a Value, name: &str) -> &'a Value {
    let mut all = document["series"].as_array().unwrap().iter();
    all.find(|series| series["name"] == name).unwrap()
}

fn numbers(values: &Value) -> Vec<Option<f64>> {
    values
        .as_array()
        .unwrap()
        .iter()
        .map(Value::as_f64)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_null_in_every_series_and_a_downtime_is_named() {
    let collector = Collector::start().await;
    let host = host(&collector).await;
    let minutes = Duration::minutes;
    beats(&collector, host, minutes(60), minutes(40), 0.5).await;
    beats(&collector, host, minutes(20), minutes(0), 0.25).await;
    let now = collector.clock.now();
    sqlx::query("insert into collector_downtimes values ($1, $2)")
        .bind(now - minutes(40))
        .bind(now - minutes(20))
        .execute(&collector.pool)
        .await
        .unwrap();
    let document = metrics(&collector, host, minutes(60), "").await;
    assert_eq!(
        (&document["source"], &document["step_s"]),
        (&json!("raw"), &json!(60))
    );
    assert_eq!(document["samples"], 80);
    let at = document["at"].as_array().unwrap();
    assert!((60..=62).contains(&at.len()));
    assert!(
        at.windows(2)
            .all(|two| two[1].as_i64() == two[0].as_i64().map(|at| at + 60))
    );
    let names: Vec<_> = document["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, NAMES);
    let cpu = series(&document, "cpu_ratio");
    for values in [&cpu["avg"], &cpu["max"]] {
        let values = numbers(values);
        assert_eq!(values.len(), at.len());
        let gap: Vec<_> = values.iter().skip_while(|v| v.is_some()).collect();
        let gap = gap.iter().take_while(|v| v.is_none()).count();
        assert!((19..=20).contains(&gap), "{values:?}");
        let halves = values.iter().flatten().filter(|v| **v > 0.4).count();
        assert!((20..=21).contains(&halves), "{values:?}");
    }
    assert_eq!(
        cpu["summary"],
        json!({"min": 0.25, "avg": 0.375, "max": 0.5})
    );
    let memory = series(&document, "memory_used_ratio");
    assert_eq!(
        memory["summary"],
        json!({"min": 0.75, "avg": 0.75, "max": 0.75})
    );
    assert_eq!(
        series(&document, "disk_used_ratio")["summary"]["max"]
            .as_f64()
            .map(|v| (v * 10.0).round()),
        Some(6.0)
    );
    assert_eq!(
        series(&document, "disk_read_bytes_per_s")["unit"],
        "bytes_per_s"
    );
    let downtimes = document["downtimes"].as_array().unwrap();
    assert_eq!(downtimes.len(), 1);
    let parsed = OffsetDateTime::parse(downtimes[0]["to"].as_str().unwrap(), &Rfc3339).unwrap();
    assert!((parsed - (now - minutes(20))).abs() < Duration::MILLISECOND);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_said_is_null_and_not_0() {
    let collector = Collector::start().await;
    let host = host(&collector).await;
    beats(
        &collector,
        host,
        Duration::minutes(20),
        Duration::ZERO,
        0.25,
    )
    .await;
    let document = metrics(&collector, host, Duration::minutes(60), "").await;
    // A host without swap has no share of it, and nobody said a temperature.
    for unknown in ["swap_used_ratio", "temperature_max_celsius"] {
        let unknown = series(&document, unknown);
        assert!(numbers(&unknown["avg"]).iter().all(Option::is_none));
        assert_eq!(
            unknown["summary"],
            json!({"min": null, "avg": null, "max": null})
        );
        assert_eq!(unknown["is_kept"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_ranges_are_read_from_sums_and_end_with_what_is_not_summed_yet() {
    let collector = Collector::start().await;
    let host = host(&collector).await;
    sums(&collector, host, "heartbeats_5m", (20, 1), 5).await;
    sums(&collector, host, "heartbeats_1h", (200, 1), 60).await;
    beats(
        &collector,
        host,
        Duration::minutes(10),
        Duration::ZERO,
        0.25,
    )
    .await;
    for (days, source) in [(7, "5m"), (30, "5m"), (60, "1h"), (365, "1h")] {
        let document = metrics(&collector, host, Duration::days(days), "&points=600").await;
        assert_eq!(document["source"], source, "{days}");
        let cpu = series(&document, "cpu_ratio");
        let values = numbers(&cpu["avg"]);
        assert!(
            values.len() <= 600 && values.len() > 250,
            "{days}: {}",
            values.len()
        );
        // Summed, then a day without any, then what came just now.
        assert!(values.contains(&Some(0.5)), "{days}");
        assert_eq!(values.iter().flatten().next_back(), Some(&0.25), "{days}");
        assert_eq!(
            (&cpu["summary"]["max"], &cpu["is_kept"]),
            (&json!(0.75), &json!(true))
        );
        let sent = series(&document, "net_sent_bytes_per_s");
        assert_eq!(
            sent["summary"],
            json!({"min": null, "avg": null, "max": 7.0})
        );
        // Sums have none of it: the last minutes are not shown for all the time.
        let pressure = series(&document, "cpu_pressure_some_ratio");
        assert_eq!(pressure["is_kept"], false);
        assert!(numbers(&pressure["max"]).iter().all(Option::is_none));
        let load = series(&document, "load_1");
        assert_eq!(load["summary"], json!({"min": 2.0, "avg": 2.0, "max": 2.0}));
    }
    let short = metrics(&collector, host, Duration::days(5), "&points=2").await;
    assert_eq!(short["at"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_heartbeats_begin_late_their_sums_tell_what_was_before() {
    let collector = Collector::start().await;
    let host = host(&collector).await;
    sums(&collector, host, "heartbeats_5m", (2, 0), 5).await;
    beats(
        &collector,
        host,
        Duration::minutes(20),
        Duration::ZERO,
        0.25,
    )
    .await;
    let day = metrics(&collector, host, Duration::hours(20), "").await;
    assert_eq!(day["source"], "5m");
    let known = numbers(&series(&day, "cpu_ratio")["avg"])
        .iter()
        .flatten()
        .count();
    assert!(known > 200, "{known}");
    // A host that is as old as its heartbeats has no sums before them.
    let young = self::host(&collector).await;
    beats(
        &collector,
        young,
        Duration::minutes(20),
        Duration::ZERO,
        0.25,
    )
    .await;
    assert_eq!(
        metrics(&collector, young, Duration::hours(20), "").await["source"],
        "raw"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_none_is_refused_and_a_host_that_never_reported_has_no_values() {
    let collector = Collector::start().await;
    let host = host(&collector).await;
    let path = format!("/api/v1/hosts/{host}/metrics");
    let document = collector.get(&path).await;
    assert_eq!(
        (&document["samples"], &document["step_s"]),
        (&json!(0), &json!(300))
    );
    assert!(
        numbers(&series(&document, "cpu_ratio")["avg"])
            .iter()
            .all(Option::is_none)
    );
    for refused in [
        "from=2999-01-01T00:00:00Z",
        "from=2020-01-02T00:00:00Z&to=2020-01-01T00:00:00Z",
        "from=1800-01-01T00:00:00Z",
        "from=yesterday",
        "points=1",
        "points=601",
        "step=1",
    ] {
        let (status, _) = collector
            .api(Method::GET, &format!("{path}?{refused}"), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    }
    let nobody = format!("/api/v1/hosts/{}/metrics", uuid::Uuid::nil());
    assert_eq!(
        collector.api(Method::GET, &nobody, "").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_reads_one_host_by_the_key() {
    let collector = Collector::start().await;
    let mut connection = collector.pool.acquire().await.unwrap();
    sqlx::query("set enable_seqscan = off")
        .execute(&mut *connection)
        .await
        .unwrap();
    for table in ["heartbeats", "heartbeats_5m", "heartbeats_1h"] {
        let sql = format!(
            "explain select date_bin('1 hour', at, 'epoch'), count(*) from {table}
             where host_id = gen_random_uuid() and at >= now() - interval '1 day' and at < now() group by 1"
        );
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        assert!(!plan.join("\n").contains("Seq Scan"), "{plan:?}");
    }
}
