//! Filters that combine, sorts that walk every host once, cursors that belong to one list, and plans.

use std::cmp::Ordering;

use http::{Method, StatusCode};
use infratrack_collector::api::hosts::query::HostsQuery;
use infratrack_collector::store::hosts::list::{self, Page};
use infratrack_collector::store::hosts::watch::{self, Watched};
use serde_json::Value;
use uuid::Uuid;

use super::{fleet, ids, walk};
use crate::harness::Collector;

type Holds = fn(&Value) -> bool;

fn has_tag(host: &Value, tag: &str) -> bool {
    host["tags"].as_array().unwrap().iter().any(|is| is == tag)
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_hold_one_by_one_and_all_together() {
    let collector = Collector::start().await;
    fleet(&collector, 1, 300).await;
    let all = walk(&collector, "state=all", 100).await;
    assert_eq!(all.len(), 300);
    let cases: [(&str, Holds); 18] = [
        ("status=unhealthy", |h| h["status"] == "unhealthy"),
        ("status=degraded,unknown", |h| {
            h["status"] == "degraded" || h["status"] == "unknown"
        }),
        ("liveness=late", |h| h["liveness"] == "late"),
        ("q=db-1", |h| h["name"].as_str().unwrap().contains("db-1")),
        ("tag=role:web", |h| has_tag(h, "role:web")),
        ("tag=role:web&tag=dc:1", |h| {
            has_tag(h, "role:web") && has_tag(h, "dc:1")
        }),
        ("tag=role:web,dc:1", |h| {
            has_tag(h, "role:web") && has_tag(h, "dc:1")
        }),
        ("not_tag=dc:1", |h| !has_tag(h, "dc:1")),
        ("owner=alice", |h| h["owner"] == "alice"),
        ("environment=prod", |h| h["environment"] == "prod"),
        ("origin=manual", |h| h["origin"] == "manual"),
        ("os=debian", |h| h["os_id"] == "debian"),
        ("agent_version=0.1", |h| h["agent_version"] == "0.1"),
        ("address=10.1.0.0/16", |h| {
            h["addresses"][0].as_str().unwrap().starts_with("10.1.")
        }),
        ("reason=disk_critical", |h| {
            h["reason_codes"]
                .as_array()
                .unwrap()
                .iter()
                .any(|code| code == "disk_critical")
        }),
        ("state=missing", |h| {
            h["retired_at"].is_null() && !h["missing_since"].is_null()
        }),
        ("state=retired", |h| !h["retired_at"].is_null()),
        ("state=active", |h| h["retired_at"].is_null()),
    ];
    for (query, holds) in cases {
        let base = if query.starts_with("state") {
            ""
        } else {
            "state=all&"
        };
        let found = walk(&collector, &format!("{base}{query}"), 500).await;
        let expected: Vec<_> = all.iter().filter(|host| holds(host)).cloned().collect();
        assert!(
            !expected.is_empty() && expected.len() < all.len(),
            "{query} tells nothing"
        );
        assert_eq!(ids(&found), ids(&expected), "{query}");
    }
    for (first, holds_first) in &cases[..15] {
        for (second, holds_second) in &cases[..15] {
            let (a, b) = (first.split('=').next(), second.split('=').next());
            if a == b {
                continue;
            }
            let found = walk(&collector, &format!("state=all&{first}&{second}"), 500).await;
            let both = all
                .iter()
                .filter(|host| holds_first(host) && holds_second(host));
            let expected: Vec<_> = both.cloned().collect();
            assert_eq!(ids(&found), ids(&expected), "{first} and {second}");
        }
    }
    // Without a word about it, retired hosts are not there.
    let active = walk(&collector, "", 500).await;
    assert!(active.iter().all(|host| host["retired_at"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_filtered_from_both_sides() {
    let collector = Collector::start().await;
    fleet(&collector, 2, 80).await;
    let all = walk(&collector, "state=all", 500).await;
    for field in ["created", "last_seen"] {
        let mut times: Vec<_> = all
            .iter()
            .filter_map(|h| h[format!("{field}_at")].as_str())
            .collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        for (side, order) in [("before", Ordering::Less), ("after", Ordering::Greater)] {
            let found = walk(
                &collector,
                &format!("state=all&{field}_{side}={middle}"),
                500,
            )
            .await;
            let holds = |h: &&Value| {
                let at = h[format!("{field}_at")].as_str();
                at.is_some_and(|at| at.cmp(middle) == order)
            };
            let expected: Vec<_> = all.iter().filter(holds).cloned().collect();
            assert!(!expected.is_empty());
            assert_eq!(ids(&found), ids(&expected), "{field} {side} {middle}");
        }
    }
}

/// As the API sorts: nulls last, whatever the direction.
fn compare(field: &str, is_descending: bool, a: &Value, b: &Value) -> Ordering {
    let rank = |host: &Value| match host["status"].as_str().unwrap() {
        "unhealthy" => 0,
        "degraded" => 1,
        "unknown" => 2,
        _ => 3,
    };
    let turned = |order: Ordering| {
        if is_descending {
            order.reverse()
        } else {
            order
        }
    };
    if field == "status" {
        return turned(rank(a).cmp(&rank(b)));
    }
    match (&a[field], &b[field]) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Number(a), Value::Number(b)) => {
            turned(a.as_f64().unwrap().total_cmp(&b.as_f64().unwrap()))
        }
        (a, b) => turned(a.as_str().unwrap().cmp(b.as_str().unwrap())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sort_walks_every_host_exactly_once_in_order() {
    let seed = rand::random_range(0..i32::MAX);
    // Thousands of pages, as fast as they come.
    let collector =
        Collector::start_with(|config| config.operators.requests_burst = 1_000_000).await;
    fleet(&collector, seed, 90).await;
    let all = ids(&walk(&collector, "state=all", 500).await);
    for field in [
        "name",
        "status",
        "last_seen_at",
        "created_at",
        "disk_used_ratio",
        "memory_used_ratio",
        "cpu_ratio",
        "agent_version",
    ] {
        for sign in ["", "-"] {
            for limit in [1, 7, 90] {
                let query = format!("state=all&sort={sign}{field}");
                let found = walk(&collector, &query, limit).await;
                assert_eq!(ids(&found), all, "seed {seed}: {query}, {limit} a page");
                let in_order = |pair: &[Value]| {
                    let order = compare(field, sign == "-", &pair[0], &pair[1]);
                    let id = |host: &Value| host["id"].as_str().unwrap().to_owned();
                    let by_id = id(&pair[0]).cmp(&id(&pair[1]));
                    let by_id = if sign == "-" { by_id.reverse() } else { by_id };
                    order.then(by_id).is_lt()
                };
                assert!(found.windows(2).all(in_order), "seed {seed}: {query}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_of_one_sort_and_filter_and_says_so() {
    let collector = Collector::start().await;
    fleet(&collector, 3, 20).await;
    let page = collector
        .get("/api/v1/hosts?limit=2&sort=-cpu_ratio&tag=all")
        .await;
    let cursor = page["next_cursor"].as_str().unwrap();
    for other in [
        "sort=cpu_ratio&tag=all",
        "sort=-cpu_ratio",
        "tag=all",
        "sort=-cpu_ratio&tag=all&state=all",
    ] {
        let path = format!("/api/v1/hosts?limit=2&{other}&cursor={cursor}");
        let (status, problem) = collector.api(Method::GET, &path, "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{other}");
        assert_eq!(problem["errors"][0]["parameter"], "cursor", "{problem}");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("another sort or filter")
        );
    }
    let path = format!("/api/v1/hosts?limit=3&sort=-cpu_ratio&tag=all&cursor={cursor}");
    assert_eq!(
        collector.api(Method::GET, &path, "").await.0,
        StatusCode::OK,
        "another limit is fine"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_a_query_is_named() {
    let collector = Collector::start().await;
    let many = format!("q={}", "a+".repeat(17));
    let long = format!("q={}", "a".repeat(257));
    let tags = format!("tag={}", ["x"; 17].join(","));
    for (query, parameter) in [
        ("nonsense=1", "nonsense"),
        ("status=healthy,fine", "status"),
        ("liveness=dead", "liveness"),
        ("state=gone", "state"),
        ("origin=space", "origin"),
        ("reason=bad", "reason"),
        ("address=10.0.0.0/40", "address"),
        ("last_seen_before=yesterday", "last_seen_before"),
        ("created_after=2026-13-01", "created_after"),
        ("sort=color", "sort"),
        ("fields=id,color", "fields"),
        ("format=xml", "format"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("tag=", "tag"),
        ("owner=", "owner"),
        (&many, "q"),
        (&long, "q"),
        (&tags, "tag"),
        ("cursor=e30", "cursor"),
    ] {
        let (status, problem) = collector
            .api(Method::GET, &format!("/api/v1/hosts?{query}"), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {problem}");
        assert_eq!(
            problem["errors"][0]["parameter"], parameter,
            "{query}: {problem}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_cut_hosts_in_lists_and_alone() {
    let collector = Collector::start().await;
    fleet(&collector, 4, 5).await;
    let page = collector
        .get("/api/v1/hosts?state=all&fields=id,name&limit=2")
        .await;
    assert_eq!(page["total"], 5);
    let host = page["items"][0].as_object().unwrap();
    assert_eq!(host.keys().collect::<Vec<_>>(), ["id", "name"]);
    let path = format!("/api/v1/hosts/{}", host["id"].as_str().unwrap());
    let one = collector.get(&format!("{path}?fields=notes,status")).await;
    assert_eq!(
        one.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["notes", "status"]
    );
    // The list of fields is the document's.
    let whole = collector.get(&path).await;
    let all = whole
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect::<Vec<_>>()
        .join(",");
    assert_eq!(collector.get(&format!("{path}?fields={all}")).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_list_of_hosts_reads_a_big_table_from_end_to_end() {
    let collector = Collector::start().await;
    fleet(&collector, 5, 500).await;
    let app = &collector.server.app;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let mut connection = collector.pool.acquire().await.unwrap();
    for query in [
        "status=unhealthy&sort=status",
        "reason=offline&liveness=offline&sort=-last_seen_at",
        "q=web+linux&sort=-disk_used_ratio",
        "tag=a&not_tag=b&owner=a&environment=b&origin=agent&os=debian&address=10.0.0.0/8",
        "agent_version=1&last_seen_before=2026-01-01T00:00:00Z&created_after=2026-01-01T00:00:00Z",
        "state=all&sort=-name",
    ] {
        let asked: HostsQuery = serde_html_form::from_str(query).unwrap();
        let page = Page {
            filter: asked.filter().unwrap(),
            sort: asked.sort().unwrap(),
            after: None,
            limit: 50,
            with_total: true,
        };
        let plan = list::explain(&mut connection, &page, cutoffs, false)
            .await
            .unwrap();
        assert!(plan.contains("host"), "{plan}");
        for table in [
            "heartbeats",
            "events",
            "facts",
            "fact_changes",
            "agent_certs",
        ] {
            assert!(
                !plan.contains(&format!("Seq Scan on {table}")),
                "{query}:\n{plan}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_watched_are_found_by_their_ids() {
    let collector = Collector::start().await;
    fleet(&collector, 5, 500).await;
    let app = &collector.server.app;
    let now = app.clock.now();
    let mut connection = collector.pool.acquire().await.unwrap();
    let sql = "select host_id from hosts limit 50";
    let hosts: Vec<Uuid> = sqlx::query_scalar(sql)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    // Of a table that is small here, all would be read.
    let sql = "set enable_seqscan = off";
    sqlx::query(sql).execute(&mut *connection).await.unwrap();
    for since in [None, Some(now)] {
        let watched = Watched {
            hosts: &hosts,
            anyway: &hosts[..1],
            since,
        };
        let cutoffs = app.silence.cutoffs(now);
        let plan = watch::explain(&mut connection, watched, cutoffs)
            .await
            .unwrap();
        assert!(plan.contains("host_id = ANY"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_judges_a_host_is_computed_in_place() {
    let collector = Collector::start().await;
    // A function that is called a row at a time takes many times as long: one that promises more than its body keeps.
    let plan: Vec<String> = sqlx::query_scalar(
        "explain (verbose, costs off)
         select host_status(l.last_seen_at, j.reasons), host_liveness_word(l, now(), now())
         from host_liveness l
         cross join lateral (select host_reasons(l, l.last_seen_at, now(), now(), now()) as reasons offset 0) j",
    )
    .fetch_all(&collector.pool)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("certificate_expiring"), "{plan}");
    for function in ["host_status(", "host_reasons(", "host_liveness_word("] {
        assert!(!plan.contains(function), "{plan}");
    }
}
