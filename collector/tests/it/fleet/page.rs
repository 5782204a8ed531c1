//! The Hosts page: filters, pages, sorts and links, and what it does with what is hostile.

use http::header::LOCATION;
use http::{Method, StatusCode};
use infratrack_collector::roles::Role;

use super::{between, page, plain, role, text};
use crate::harness::Collector;
use crate::hosts::{call, fleet, ids, walk};

/// The ids of the hosts on a page, in their order.
fn shown(html: &str) -> Vec<String> {
    let rows = between(html, "<tr id=\"host-", "\"");
    rows.into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_filtered_and_sorted_list_have_every_host_once_in_the_apis_order() {
    let collector = Collector::start().await;
    fleet(&collector, 31, 600).await;
    for query in [
        "tag=all&not_tag=dc%3A1&sort=-disk_used_ratio",
        "status=unhealthy%2Cdegraded&owner=alice&sort=status",
        "liveness=offline%2Clate&environment=prod&os=debian",
        "q=web&reason=disk_critical%2Cdisk_warning&columns=status%2Ctags&sort=last_seen_at",
    ] {
        let of_api: Vec<_> = query
            .split('&')
            .filter(|pair| !pair.starts_with("columns"))
            .collect();
        let wanted = walk(&collector, &of_api.join("&"), 50).await;
        let wanted: Vec<_> = wanted
            .iter()
            .map(|host| host["id"].as_str().unwrap().to_owned())
            .collect();
        let (mut path, mut found) = (format!("/hosts?{query}"), Vec::new());
        loop {
            let html = page(&collector, &path).await;
            found.extend(shown(&html));
            let links = html.split("<a href=\"");
            let mut links = links.filter_map(|link| link.split_once("\" rel=\"next\""));
            let Some((next, _)) = links.next() else {
                break;
            };
            path = plain(next);
            assert!(found.len() <= wanted.len(), "{query}");
        }
        assert!(!wanted.is_empty(), "{query}");
        assert_eq!(found, wanted, "{query}");
        // The same list as CSV, whatever it is sorted by.
        let html = page(&collector, &format!("/hosts?{query}")).await;
        let csv = between(&html, "href=\"/api/v1/hosts?", "\"");
        let csv = call(
            &collector,
            Method::GET,
            &format!("/api/v1/hosts?{}", plain(csv[0])),
            &[],
            "",
        )
        .await;
        assert_eq!(csv.status(), StatusCode::OK, "{query}");
        assert_eq!(text(&csv).lines().count(), wanted.len() + 1, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_by_status_are_those_of_the_other_filters() {
    let collector = Collector::start().await;
    fleet(&collector, 32, 400).await;
    let html = page(&collector, "/hosts?tag=all&status=degraded").await;
    for status in ["unhealthy", "degraded", "unknown", "healthy"] {
        let listed = collector
            .get(&format!("/api/v1/hosts?tag=all&status={status}"))
            .await;
        let count = between(&html, &format!(">{status} <span class=\"count\">"), "<");
        assert_eq!(count, [listed["total"].to_string()], "{status}");
    }
    // Without other filters the live stream keeps them.
    let html = page(&collector, "/hosts?view=all").await;
    let total = between(
        &html,
        "all <span class=\"count\" data-count=\"total\">",
        "<",
    );
    assert_eq!(
        total,
        [collector.get("/api/v1/hosts").await["total"].to_string()]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_becomes_an_address_and_an_address_that_asks_for_nothing_known_says_so() {
    let collector = Collector::start().await;
    collector.host().await;
    let sent = "/hosts?q=&status=late&status=";
    let path = "/hosts?q=&status=unhealthy&status=degraded&tag=a%2C+b&owner=&sort=";
    let response = call(&collector, Method::GET, path, &[], "").await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(
        response.headers()[LOCATION],
        "/hosts?status=unhealthy%2Cdegraded&tag=a&tag=b"
    );
    for (path, words) in [
        (sent, "status must be one of"),
        ("/hosts?color=red", "color"),
        ("/hosts?sort=color", "sort must be one of"),
        ("/hosts?columns=color", "columns must be some of"),
        ("/hosts?cursor=x", "cursor is not one"),
        (
            "/hosts?certificate_days=-1",
            "certificate_days must be from 0 to 3650",
        ),
    ] {
        let response = call(&collector, Method::GET, path, &[], "").await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        let html = text(&response);
        assert!(
            html.contains("This list can&#39;t be shown")
                || html.contains("This list can't be shown"),
            "{html}"
        );
        assert!(html.contains(words), "{path}: {html}");
        assert!(html.contains("/hosts?view=all"));
    }
    let html = page(&collector, "/hosts?q=nonesuch").await;
    assert!(html.contains("No host matches"), "{html}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_shown_what_it_may() {
    let collector = Collector::start().await;
    collector.host().await;
    for (who, acts, retires) in [
        (Role::Viewer, false, false),
        (Role::Operator, true, false),
        (Role::Lead, true, true),
    ] {
        let token = role(&collector, who).await;
        let headers = [("authorization", token.as_str())];
        let html = text(&call(&collector, Method::GET, "/hosts", &headers, "").await);
        assert_eq!(html.contains("id=\"bulk\""), acts, "{who:?}");
        assert_eq!(
            html.contains("type=\"checkbox\" name=\"id\""),
            acts,
            "{who:?}"
        );
        assert_eq!(html.contains("value=\"retire\""), retires, "{who:?}");
        assert_eq!(html.contains("name=\"is_shared\""), retires, "{who:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_reasons_and_certificates_are_filters() {
    let collector = Collector::start().await;
    fleet(&collector, 33, 60).await;
    let all = ids(&walk(&collector, "", 50).await);
    let two = format!("id={}%2C{}", all[3], all[7]);
    assert_eq!(
        ids(&walk(&collector, &two, 50).await),
        [all[3].clone(), all[7].clone()]
    );
    let sql = "insert into agent_certs (serial, host_id, spki_sha256, certificate, issued_at, not_after, issue_logged_at)
               select decode(md5(random()::text), 'hex'), $1, '', '', $2, $2 + make_interval(days => $3), $2";
    for (host, days) in [
        (&all[1], 13),
        (&all[2], 15),
        (&all[3], -1),
        (&all[4], 5),
        (&all[4], 25),
    ] {
        let host: uuid::Uuid = host.parse().unwrap();
        let inserted = sqlx::query(sql)
            .bind(host)
            .bind(collector.clock.now())
            .bind(days);
        inserted.execute(&collector.pool).await.unwrap();
    }
    // The newest one counts.
    let mut soon = vec![all[1].clone(), all[3].clone()];
    soon.sort();
    assert_eq!(
        ids(&walk(&collector, "certificate_days=14", 50).await),
        soon
    );
    let any = walk(&collector, "reason=late,offline", 50).await;
    let one = walk(&collector, "reason=late", 50).await.len()
        + walk(&collector, "reason=offline", 50).await.len();
    assert_eq!(any.len(), one);
    for refused in ["id=x", "certificate_days=4000", "reason=late,x"] {
        let (status, _) = collector
            .api(Method::GET, &format!("/api/v1/hosts?{refused}"), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_is_inert_in_every_cell_filter_and_view() {
    let collector = Collector::start().await;
    collector.host().await;
    let evil = "\"'><img src=x onerror=alert(1)>\u{202e}\u{0007}{{7*7}}";
    let sql = "update hosts set name = $1, tags = array[$1, $2], owner = $1, environment = $1, os_name = $1";
    let long = "x".repeat(64 * 1024);
    sqlx::query(sql)
        .bind(evil)
        .bind(&long)
        .execute(&collector.pool)
        .await
        .unwrap();
    sqlx::query("update host_liveness set agent_version = $1")
        .bind(evil)
        .execute(&collector.pool)
        .await
        .unwrap();
    let columns = "columns=status,why,tags,agent,environment,owner,os,addresses,origin";
    let mut query = vec![("q", "img"), ("owner", evil)];
    query.push(("tag", evil));
    let filtered = serde_html_form::to_string(&query).unwrap();
    for path in [
        format!("/hosts?{columns}"),
        format!("/hosts?{filtered}"),
        "/hosts".to_owned(),
    ] {
        let html = page(&collector, &path).await;
        assert!(html.contains("onerror"), "{path}");
        assert!(!html.contains("<img src=x"), "{path}");
        assert!(html.len() < 250_000, "{path}: {}", html.len());
        // What turns text around does not.
        assert!(!html.contains('\u{202e}'), "{path}");
    }
}
