//! The system's health, the search, and the keys.

use http::{Method, StatusCode};
use serde_json::json;

use super::Browser;
use crate::harness::{Collector, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn health_shows_jobs_versions_clocks_and_what_waits() {
    let collector = Collector::start().await;
    let viewer = Browser::of(&collector, "ada", "viewer").await;
    let page = eventually("the collector to say that it is alive", || async {
        let page = viewer.get("/settings/health").await;
        let is_there = page.text.contains(">alive<") && page.text.contains("<td>liveness</td>");
        is_there.then_some(page)
    })
    .await;
    page.is(StatusCode::OK)
        .has("No host yet.")
        .has("Postgres 1")
        .has("the blob store answers")
        .has("heartbeats_")
        .has("leads");
    let host = collector.host().await;
    let page = viewer.get("/settings/health").await;
    // It has not said anything yet: unknown, and no 0.
    page.has("<span class=\"muted\">unknown</span></td><td class=\"number\">1</td>");
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(host.heartbeat(&collector));
    host.send(&collector, &batch).await.unwrap();
    let page = viewer.get("/settings/health").await;
    page.has("within 1 s</span></td><td class=\"number\">1</td>");
    let system = collector.get("/api/v1/system").await;
    assert_eq!(system["skew"]["right"], 1, "{system}");
    assert_eq!(system["waiting"]["dead_letters"], 0);
    assert_eq!(system["collectors"][0]["id"], system["collector_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_finds_hosts_pages_and_actions_that_the_reader_may_go_to() {
    let collector = Collector::start().await;
    let viewer = Browser::of(&collector, "ada", "viewer").await;
    let admin = Browser::of(&collector, "root", "admin").await;
    for number in 0..12 {
        let name = format!("web-{number}.example");
        let body = json!({"name": name, "addresses": ["192.0.2.7"]}).to_string();
        let (status, made) = collector.api(Method::POST, "/api/v1/hosts", &body).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
    }
    let found = viewer.get("/search?q=web").await;
    found
        .is(StatusCode::OK)
        .has("web-0.example")
        .has("2 more hosts")
        .has("192.0.2.7")
        .has("badge unknown");
    for (browser, may) in [(&viewer, false), (&admin, true)] {
        let page = browser.get("/search?q=token").await;
        assert_eq!(page.text.contains("href=\"/settings/tokens/new\""), may);
        let keys = browser.get("/settings/account").await;
        assert_eq!(keys.text.contains("data-keys=\"g a\""), may);
        keys.has("data-keys=\"g h\"").has("data-keys=\"?\"");
    }
    viewer.get("/search").await.has("Your account").has("Hosts");
    viewer
        .get("/search?q=nothing-is-called-so")
        .await
        .has("Nothing is called so");
    let hostile = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%E2%80%AE%00";
    let answer = viewer.get(&format!("/search?q={hostile}")).await;
    answer.lacks("<script>alert");
    assert!(!answer.status.is_server_error());
    let long = "x".repeat(6000);
    let answer = viewer.get(&format!("/search?q={long}")).await;
    assert!(!answer.status.is_server_error());
}
