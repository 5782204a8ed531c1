//! The made-up fleet: shown as a real one is, kept alive, told apart, and gone without a trace.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_collector::audit::Actor;
use infratrack_collector::config::Interval;
use infratrack_collector::sample::{self, Fleet, SampleError};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::harness::{Collector, eventually};
use crate::patches::pages::page;

/// The whole fleet has two hours of heartbeats; these are enough.
pub(crate) fn small() -> Fleet {
    Fleet {
        hosts: 70,
        heartbeats: time::Duration::minutes(12),
        sums: time::Duration::hours(30),
    }
}

pub(crate) async fn load(collector: &Collector, fleet: Fleet) -> Result<u32, SampleError> {
    let app = &collector.server.app;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    sample::load(&collector.pool, fleet, &[], cutoffs, &Actor::job("test")).await
}

async fn remove(collector: &Collector) -> Result<u64, SampleError> {
    let now = collector.clock.now();
    sample::remove(&collector.pool, now, &Actor::job("test")).await
}

/// Rows of every table but those that tell of the collectors themselves, the audit log, and the dictionary of packages,
/// which keeps what it has learned.
async fn counts(pool: &PgPool) -> BTreeMap<String, i64> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select tablename::text from pg_tables where schemaname = 'public'
           and tablename not in ('jobs', 'job_runs', 'collectors', 'collector_downtimes', 'packages')
           and tablename not like 'audit\\_%'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut counts = BTreeMap::new();
    for table in tables {
        let sql = AssertSqlSafe(format!("select count(*) from \"{table}\""));
        let count = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        counts.insert(table, count);
    }
    counts
}

fn items(page: &Value) -> &[Value] {
    page["items"].as_array().unwrap()
}

fn codes(page: &Value) -> Vec<String> {
    let all = items(page)
        .iter()
        .flat_map(|host| host["reason_codes"].as_array().unwrap());
    all.map(|code| code.as_str().unwrap().to_owned()).collect()
}

async fn actions(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select action from audit_log where action like 'sample.%' order by audit_id",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_fleet_is_seen_found_and_removed_without_a_trace() {
    let collector = Collector::start().await;
    let before = counts(&collector.pool).await;
    assert_eq!(load(&collector, small()).await.unwrap(), 70);
    assert_eq!(load(&collector, small()).await.unwrap(), 0, "it is there");
    let all = collector.get("/api/v1/hosts?limit=500").await;
    assert_eq!(all["total"], 70);
    let with = |key: &str, word: &str| items(&all).iter().filter(|host| host[key] == word).count();
    for status in ["healthy", "degraded", "unhealthy", "unknown"] {
        assert!(with("status", status) >= 2, "{status}");
    }
    for liveness in ["online", "late", "offline", "never"] {
        assert!(with("liveness", liveness) >= 2, "{liveness}");
    }
    assert!(with("status", "healthy") > 40);
    let codes = codes(&all);
    for code in [
        "disk_critical",
        "disk_warning",
        "failed_units",
        "reboot_required",
        "clock_skew",
        "certificate_expiring",
        "identity_conflict",
        "late",
        "offline",
    ] {
        assert!(codes.iter().any(|found| found == code), "{code}: {codes:?}");
    }
    for search in [
        "q=db-004",
        "q=postgres",
        "q=6.1.0",
        "tag=sample&owner=team-data",
        "os=almalinux",
    ] {
        let found = collector.get(&format!("/api/v1/hosts?{search}")).await;
        assert!(found["total"].as_i64() >= Some(1), "{search}");
    }
    the_full_disk_has_a_past(&collector).await;

    assert_eq!(
        remove(&collector).await.unwrap(),
        71,
        "with the hidden clone"
    );
    assert_eq!(counts(&collector.pool).await, before);
    assert_eq!(remove(&collector).await.unwrap(), 0);
    assert_eq!(
        actions(&collector.pool).await,
        ["sample.load", "sample.remove"]
    );
    assert_eq!(load(&collector, small()).await.unwrap(), 70, "and again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_to_the_sample_fleet_is_on_the_pages_of_changes_and_hosts() {
    let collector = Collector::start().await;
    load(&collector, small()).await.unwrap();
    let list = collector.get("/api/v1/changes").await;
    assert_eq!(list["total"], 6, "{list}");
    for (query, count) in [
        ("tool=terraform", 3),
        ("tool=ansible", 3),
        ("tool=manual", 1),
        ("outcome=failed", 2),
        ("outcome=planned", 1),
    ] {
        let found = collector.get(&format!("/api/v1/changes?{query}")).await;
        assert_eq!(found["total"], count, "{query}: {found}");
    }
    for change in items(&list) {
        let id = change["id"].as_str().unwrap();
        assert!(change["host_count"].as_i64() >= Some(1), "{change}");
        let shown = page(&collector, &format!("/changes/{id}")).await;
        assert!(shown.contains(change["title"].as_str().unwrap()), "{shown}");
    }
    // One commit: planned, applied and played.
    let both = items(&list)
        .iter()
        .find(|change| change["tools"].as_array().unwrap().len() == 2);
    let rollout = collector
        .get(&format!(
            "/api/v1/changes/{}",
            both.unwrap()["id"].as_str().unwrap()
        ))
        .await;
    let kinds: Vec<_> = rollout["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| &run["kind"])
        .collect();
    assert_eq!(kinds, ["plan", "apply", "play"]);
    assert_eq!(rollout["change"]["host_count"], 4);
    let list = page(&collector, "/changes").await;
    for text in [
        "Replaced the switch of rack 12 in fra1",
        "Ansible play",
        "data-production",
    ] {
        assert!(list.contains(text), "{text}: {list}");
    }
    the_pages_of_hosts_tell_it(&collector).await;
}

/// A play failed for the full disk, and somebody installed something since.
async fn the_pages_of_hosts_tell_it(collector: &Collector) {
    let found = collector.get("/api/v1/hosts?q=db-004").await;
    let id = items(&found)[0]["id"].as_str().unwrap();
    let told = collector
        .get(&format!("/api/v1/hosts/{id}/what-changed"))
        .await;
    let gravities: Vec<_> = items(&told)
        .iter()
        .map(|item| item["gravity"].as_str().unwrap())
        .collect();
    assert_eq!(
        gravities,
        ["failed_change", "packages", "planned_only"],
        "{told}"
    );
    assert_eq!(told["counts"]["unattributed"], 1);
    let shown = page(collector, &format!("/hosts/{id}/what-changed")).await;
    assert!(
        shown.contains("ncdu") && shown.contains("Ansible play"),
        "{shown}"
    );
    let timeline = collector
        .get(&format!("/api/v1/hosts/{id}/timeline?limit=50"))
        .await;
    let kinds: Vec<_> = items(&timeline)
        .iter()
        .map(|item| item["kind"].as_str().unwrap())
        .collect();
    assert!(
        kinds.contains(&"change") && kinds.contains(&"package"),
        "{timeline}"
    );
    // What a play upgraded is the play's.
    let found = collector.get("/api/v1/hosts?q=web-001").await;
    let id = items(&found)[0]["id"].as_str().unwrap();
    let timeline = collector
        .get(&format!("/api/v1/hosts/{id}/timeline?limit=50"))
        .await;
    let upgraded = items(&timeline)
        .iter()
        .find(|item| item["kind"] == "package")
        .unwrap();
    assert!(upgraded["change_id"].is_string(), "{upgraded}");
}

/// Facts, heartbeats, events and tasks of one of them, as its page asks for them.
async fn the_full_disk_has_a_past(collector: &Collector) {
    let found = collector.get("/api/v1/hosts?q=db-004").await;
    let host = &items(&found)[0];
    assert!(host["disk_used_ratio"].as_f64() > Some(0.955), "{host}");
    assert_eq!(host["environment"], "production");
    let id = host["id"].as_str().unwrap();
    let facts = collector.get(&format!("/api/v1/hosts/{id}/facts")).await;
    assert!(facts["total"].as_i64() >= Some(14), "{facts}");
    let beats = collector
        .get(&format!("/api/v1/hosts/{id}/heartbeats?limit=500"))
        .await;
    assert!(items(&beats).len() > 20, "{}", items(&beats).len());
    let events = collector.get(&format!("/api/v1/hosts/{id}/events")).await;
    assert!(!items(&events).is_empty());
    let tasks = collector.get(&format!("/api/v1/tasks?host_id={id}")).await;
    assert_eq!(tasks["total"], 1, "{tasks}");
    let sums = "select count(*), max(cpu_ratio_sum / samples) < 1 from heartbeats_5m
                where host_id = $1::uuid and at > now() - interval '3 days'";
    let (sums, in_range): (i64, bool) = sqlx::query_as(sums)
        .bind(id.parse::<uuid::Uuid>().unwrap())
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert!(sums >= 30 * 12 - 2 && in_range, "{sums}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sample_hosts_stay_as_they_are_for_as_long_as_a_collector_runs() {
    // To the job that notices that no collector was alive, the jumps of the clock would be just that.
    let every = [("sample", 200), ("alive", 3_600_000)];
    let every = every.map(|(job, ms)| (job.to_owned(), Interval(Duration::from_millis(ms))));
    let collector = Collector::start_with(|config| config.jobs.intervals.extend(every)).await;
    load(&collector, small()).await.unwrap();
    let presence = || async {
        let all = collector.get("/api/v1/hosts?limit=500").await;
        let liveness = items(&all)
            .iter()
            .map(|host| host["liveness"].as_str().unwrap().to_owned());
        let mut counts = BTreeMap::new();
        liveness.for_each(|word| *counts.entry(word).or_insert(0) += 1);
        counts
    };
    let before = presence().await;
    assert!(before["online"] > 50, "{before:?}");
    for _ in 0..3 {
        collector.clock.advance(time::Duration::minutes(20));
        eventually("the fleet to look as before", || async {
            (presence().await == before).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sample_hosts_are_neither_loaded_between_real_ones_nor_removed_when_they_became_real() {
    let collector = Collector::start().await;
    let (status, made) = collector
        .api(
            Method::POST,
            "/api/v1/hosts",
            r#"{"name": "real.example.org", "tags": ["sample"]}"#,
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let refused = load(&collector, small()).await.unwrap_err();
    assert!(
        refused.to_string().contains("real.example.org"),
        "{refused}"
    );
    assert!(refused.to_string().contains("empty database"), "{refused}");
    assert_eq!(remove(&collector).await.unwrap(), 0, "the tag is anybody's");

    let collector = Collector::start().await;
    load(&collector, small()).await.unwrap();
    let found = collector.get("/api/v1/hosts?q=web-000").await;
    let id: uuid::Uuid = items(&found)[0]["id"].as_str().unwrap().parse().unwrap();
    let sql = "insert into agent_certs (serial, host_id, spki_sha256, certificate, issued_at, not_after, token_id)
               values ('\\x01', $1, '\\x01', '', now(), now(), 'some-token')";
    sqlx::query(sql)
        .bind(id)
        .execute(&collector.pool)
        .await
        .unwrap();
    let before = counts(&collector.pool).await;
    let refused = remove(&collector).await.unwrap_err();
    assert!(
        matches!(&refused, SampleError::Taken(name) if name.starts_with("web-000")),
        "{refused}"
    );
    // The collector's own job goes on adding heartbeats: what counts is that no row went away.
    let after = counts(&collector.pool).await;
    for (table, rows) in &before {
        assert!(
            after[table] >= *rows,
            "{table}: {rows} rows, then {}",
            after[table]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_that_hosts_are_made_up() {
    let collector = Collector::start().await;
    let shown = || async {
        let request = http::Request::get("/hosts")
            .header("host", "test")
            .header("authorization", format!("Bearer {}", collector.admin_token))
            .body(http_body_util::Full::default())
            .unwrap();
        let response = collector.request(request).await;
        String::from_utf8_lossy(response.body()).into_owned()
    };
    assert!(!shown().await.contains("made up"));
    load(&collector, small()).await.unwrap();
    let shown = shown().await;
    assert!(shown.contains("Sample hosts are shown"), "{shown}");
}
