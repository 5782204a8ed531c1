//! `/api/v1/packages`, `/api/v1/updates` and `/api/v1/advisories`.

use http::Method;
use infratrack_collector::jobs::{patches, run};
use infratrack_collector::store::package_search::{self, Range, Which};
use infratrack_collector::store::update_search;
use infratrack_shared::version::deb;
use infratrack_shared::wire::packages::{PendingUpdate, UpdatesPart};
use serde_json::{Value, json};
use time::Duration;

use super::{asked, held, host, update};
use crate::harness::Collector;
use crate::hosts::call;

/// A field of every item, in order.
pub(super) fn of_items(answer: &Value, field: &str) -> Vec<String> {
    let items = answer["items"].as_array().unwrap();
    let fields = items.iter().map(|item| item[field].as_str().unwrap());
    fields.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_version_of_a_package_is_found_with_the_hosts_that_have_it() {
    let collector = Collector::start().await;
    let none = UpdatesPart::default();
    let old = host(
        &collector,
        &[("openssl", "3.0.13-1~deb12u1"), ("bash", "5")],
        &none,
    )
    .await;
    let new = host(
        &collector,
        &[("openssl", "3.0.13-1"), ("openssh", "9")],
        &none,
    )
    .await;
    let all = collector.get("/api/v1/packages?q=open").await;
    assert_eq!(of_items(&all, "name"), ["openssh", "openssl", "openssl"]);
    assert_eq!(all["total"], 3);
    let first = collector.get("/api/v1/packages?q=open&limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = collector
        .get(&format!("/api/v1/packages?q=open&limit=2&cursor={cursor}"))
        .await;
    assert_eq!(of_items(&rest, "version"), ["3.0.13-1"]);
    assert_eq!(rest["items"][0]["host_count"], 1);

    let below = collector
        .get("/api/v1/packages/hosts?name=openssl&version=%3C3.0.13-1")
        .await;
    assert_eq!(of_items(&below, "host_id"), [old.id.to_string()]);
    assert_eq!(
        (&below["total"], &below["host_count"]),
        (&json!(1), &json!(1))
    );
    let from = collector
        .get("/api/v1/packages/hosts?name=openssl&version=%3E%3D3.0.13-1&manager=dpkg")
        .await;
    assert_eq!(of_items(&from, "host_id"), [new.id.to_string()]);
    let path = format!("/api/v1/hosts/{}/packages?q=SSL", old.id);
    let of_host = collector.get(&path).await;
    assert_eq!(of_items(&of_host, "name"), ["openssl"]);
    assert_eq!(of_host["databases"][0]["manager"], "dpkg");
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_listed_by_what_is_due_first() {
    let collector = Collector::start().await;
    let installed = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
    let pending = vec![
        update("a", "2", None),
        update("b", "2", Some("unrated")),
        update("c", "2", Some("critical")),
        held(update("d", "2", Some("low"))),
    ];
    let host = host(&collector, &installed, &asked(None, pending)).await;
    let all = collector.get("/api/v1/updates").await;
    assert_eq!(of_items(&all, "name"), ["c", "b", "d", "a"]);
    let first = collector.get("/api/v1/updates?limit=3").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = collector
        .get(&format!("/api/v1/updates?limit=3&cursor={cursor}"))
        .await;
    assert_eq!(of_items(&rest, "name"), ["a"]);
    for (query, names) in [
        ("security=true", &["c", "b", "d"][..]),
        ("security=false", &["a"]),
        ("severity=critical", &["c"]),
        ("severity=unrated", &["b"]),
        ("blocked=true", &["d"]),
        ("advisory=DSA-b", &["b"]),
        ("q=a", &["a"]),
        ("overdue=true", &[]),
    ] {
        let answer = collector.get(&format!("/api/v1/updates?{query}")).await;
        assert_eq!(of_items(&answer, "name"), names, "{query}");
        assert_eq!(answer["total"], names.len(), "{query}");
    }
    collector.clock.advance(Duration::days(8));
    let overdue = collector.get("/api/v1/updates?overdue=true").await;
    assert_eq!(of_items(&overdue, "name"), ["c"]);
    let packages = collector
        .get("/api/v1/updates/packages?security=true")
        .await;
    assert_eq!(of_items(&packages, "name"), ["c", "b", "d"]);
    assert_eq!(packages["items"][0]["overdue_host_count"], 1);
    assert_eq!(packages["items"][2]["blocked_host_count"], 1);
    let advisories = collector.get("/api/v1/advisories").await;
    assert_eq!(of_items(&advisories, "id"), ["DSA-c", "DSA-b", "DSA-d"]);
    let of_host = collector
        .get(&format!("/api/v1/hosts/{}/updates", host.id))
        .await;
    assert_eq!(of_host["total"], 4);
    assert_eq!(of_host["checks"][0]["tool"], "apt");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_counted_once_whatever_architectures_they_have_a_package_for() {
    let collector = Collector::start().await;
    let foreign = |update: PendingUpdate| PendingUpdate {
        arch: "i386".to_owned(),
        ..update
    };
    let one = update("libc6", "2", Some("critical"));
    let two = vec![
        one.clone(),
        held(foreign(one.clone())),
        update("b", "2", None),
    ];
    host(&collector, &[], &asked(None, two)).await;
    host(&collector, &[], &asked(None, vec![one])).await;
    let packages = collector.get("/api/v1/updates/packages").await;
    assert_eq!(packages["total"], 2);
    assert_eq!(of_items(&packages, "name"), ["libc6", "b"]);
    let libc = &packages["items"][0];
    assert_eq!(libc["host_count"], 2, "{libc}");
    assert_eq!(libc["security_host_count"], 2, "{libc}");
    assert_eq!(libc["blocked_host_count"], 1, "{libc}");
    assert_eq!(libc["advisories"], json!(["DSA-libc6"]));
    let advisories = collector.get("/api/v1/advisories").await;
    assert_eq!(advisories["items"][0]["host_count"], 2);
    assert_eq!(advisories["items"][0]["packages"], json!(["libc6"]));
    // The sums are of everything, wherever a page begins.
    let first = collector.get("/api/v1/updates/packages?limit=1").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let path = format!("/api/v1/updates/packages?limit=1&cursor={cursor}");
    let rest = collector.get(&path).await;
    assert_eq!(
        (of_items(&rest, "name"), &rest["total"]),
        (vec!["b".to_owned()], &json!(2))
    );
    let cursor = rest["next_cursor"].as_str().unwrap();
    let path = format!("/api/v1/updates/packages?limit=1&cursor={cursor}");
    let none = collector.get(&path).await;
    assert_eq!((&none["items"], &none["total"]), (&json!([]), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_is_a_table_too_with_all_that_match() {
    let collector = Collector::start().await;
    let pending = vec![
        update("=a", "2", None),
        update("b", "2", Some("unrated")),
        held(update("c", "2", Some("low"))),
    ];
    host(&collector, &[], &asked(None, pending)).await;
    collector.host().await;
    for (path, column, values) in [
        ("/api/v1/updates?security=true", "name", &["b", "c"][..]),
        ("/api/v1/updates?q=%3D", "name", &["'=a"]),
        ("/api/v1/updates/packages", "name", &["b", "c", "'=a"]),
        ("/api/v1/advisories?severity=low", "packages", &["c"]),
        (
            "/api/v1/updates/hosts?state=security",
            "security_count",
            &["2"],
        ),
        ("/api/v1/updates/hosts?state=unknown", "update_count", &[""]),
    ] {
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}format");
        let answer = call(&collector, Method::GET, &format!("{path}=csv"), &[], "").await;
        assert_eq!(answer.status(), 200, "{path}");
        let mut reader = csv::Reader::from_reader(&answer.body()[..]);
        let place = reader
            .headers()
            .unwrap()
            .iter()
            .position(|name| name == column);
        let rows = reader
            .records()
            .map(|row| row.unwrap()[place.unwrap()].to_owned());
        assert_eq!(rows.collect::<Vec<_>>(), values, "{path}");
        let answer = call(&collector, Method::GET, &format!("{path}=ndjson"), &[], "").await;
        let lines = answer.body().split_inclusive(|byte| *byte == b'\n');
        let lines = lines.map(serde_json::from_slice::<Value>);
        assert_eq!(
            lines.collect::<Result<Vec<_>, _>>().unwrap().len(),
            values.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_read_in_the_order_of_the_index() {
    let collector = Collector::start().await;
    let mut connection = collector.pool.acquire().await.unwrap();
    // Of a table without rows any plan is as good.
    for way in ["enable_seqscan", "enable_sort"] {
        let sql = format!("set {way} = off");
        let sql = sqlx::AssertSqlSafe(sql);
        sqlx::query(sql).execute(&mut *connection).await.unwrap();
    }
    let after = Some((None, "b".to_owned(), "x".to_owned()));
    let which = update_search::Which::default();
    for after in [None, after] {
        let plan = update_search::explain(&mut connection, &which, after);
        let plan = plan.await.unwrap();
        assert!(plan.contains("pending_updates_due"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_an_overdue_update_is_degraded_and_a_tag_moves_the_date() {
    let collector = Collector::start_with(|config| {
        let mut within = config.patches.within.clone();
        within.unrated = Duration::DAY.unsigned_abs();
        config.patches.tags.insert("prod".to_owned(), within);
    })
    .await;
    let pending = vec![update("b", "2", Some("unrated"))];
    let host = host(&collector, &[("b", "1")], &asked(None, pending)).await;
    collector.clock.advance(Duration::days(2));
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(host.heartbeat(&collector));
    host.send(&collector, &batch).await.unwrap();
    let path = format!("/api/v1/hosts/{}", host.id);
    assert_eq!(collector.get(&path).await["status"], "healthy");
    let tagged = sqlx::query("update hosts set tags = array['prod'] where host_id = $1");
    tagged
        .bind(host.id.0)
        .execute(&collector.pool)
        .await
        .unwrap();
    let app = &collector.server.app;
    run::once(app, "patch_due", patches::run).await.unwrap();
    let judged = collector.get(&path).await;
    assert_eq!(judged["status"], "degraded", "{judged}");
    assert_eq!(judged["reasons"][0], "a security update is overdue");
    let overview = collector.get("/api/v1/overview").await;
    let needs = overview["needs"].as_array().unwrap();
    let need = needs.iter().find(|need| need["code"] == "security_overdue");
    assert_eq!(need.unwrap()["count"], 1);
    let summary = collector.get("/api/v1/updates/summary").await;
    let today = summary["days"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&today["overdue_hosts"], &today["security_count"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_tell_is_unknown_and_not_without_updates() {
    let collector = Collector::start().await;
    let told = host(&collector, &[], &asked(None, vec![])).await;
    let pending = vec![update("b", "2", Some("low"))];
    let locked = host(&collector, &[], &asked(Some("it is locked"), pending)).await;
    let silent = collector.host().await;
    let unknown = collector.get("/api/v1/updates/hosts?state=unknown").await;
    let mut ids = of_items(&unknown, "host_id");
    ids.sort_unstable();
    let mut expected = [locked.id.to_string(), silent.id.to_string()];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let hosts = collector.get("/api/v1/updates/hosts").await;
    let of = |id: String| {
        let hosts = hosts["items"].as_array().unwrap();
        let found = hosts.iter().find(|host| host["host_id"] == id.as_str());
        found.unwrap().clone()
    };
    assert_eq!(of(told.id.to_string())["update_count"], 0);
    assert_eq!(of(locked.id.to_string())["unknown"], "apt: it is locked");
    let silent = of(silent.id.to_string());
    assert_eq!(silent["update_count"], Value::Null);
    assert_eq!(silent["unknown"], "nothing was reported yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_version_is_an_index_scan() {
    let collector = Collector::start().await;
    let key = deb::Version::split("3").sort_key();
    let which = Which {
        name: Some("openssl".to_owned()),
        ranges: vec![Range {
            manager: "dpkg",
            from: None,
            before: Some(key),
        }],
        ..Which::default()
    };
    let mut connection = collector.pool.acquire().await.unwrap();
    let sql = "set enable_seqscan = off";
    sqlx::query(sql).execute(&mut *connection).await.unwrap();
    let plan = package_search::explain(&mut connection, &which)
        .await
        .unwrap();
    assert!(!plan.contains("Seq Scan"), "{plan}");
    assert!(plan.contains("packages_version"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_filter_is_refused_with_its_name() {
    let collector = Collector::start().await;
    for (path, name) in [
        ("/api/v1/packages?q=a%00b", "q"),
        ("/api/v1/packages?manager=apt", "manager"),
        ("/api/v1/packages/hosts?version=1", "name"),
        ("/api/v1/updates?severity=severe", "severity"),
        ("/api/v1/updates/hosts?state=bad", "state"),
        ("/api/v1/updates?cursor=x", "cursor"),
    ] {
        let (status, answer) = collector.api(Method::GET, path, "").await;
        assert_eq!(status, 400, "{path}");
        assert_eq!(answer["errors"][0]["parameter"], name, "{answer}");
    }
}
