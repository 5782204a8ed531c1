//! The first run: from an empty page to the first host, and what is next.

use http::header::SET_COOKIE;
use http::{Method, StatusCode};
use infratrack_agent::identity::Identity;
use infratrack_collector::roles::Role;
use infratrack_shared::token::EnrollToken;

use super::{between, form, page, role, text};
use crate::harness::Collector;
use crate::hosts::call;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_fleet_offers_a_token_that_brings_the_first_host_in() {
    let collector = Collector::start().await;
    let html = page(&collector, "/hosts").await;
    assert!(
        html.contains("No host yet") && html.contains("action=\"/hosts/first-token\""),
        "{html}"
    );
    let operator = role(&collector, Role::Operator).await;
    let seen = call(
        &collector,
        Method::GET,
        "/hosts",
        &[("authorization", &operator)],
        "",
    )
    .await;
    assert!(!text(&seen).contains("first-token") && text(&seen).contains("No host yet"));
    let refused = form(&collector, "/hosts/first-token", Some(&operator), &[]).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);

    let made = form(&collector, "/hosts/first-token", None, &[]).await;
    assert_eq!(made.headers()["cache-control"], "no-store");
    let html = text(&made);
    assert!(
        html.contains("Waiting for the first host") && html.contains("data-live=\"/live/hosts\""),
        "{html}"
    );
    let endpoint = collector.server.app.config.enroll_endpoint();
    assert!(
        html.contains(&format!("--collector {endpoint} --token-stdin")),
        "{html}"
    );
    assert!(html.contains("agent_enroll_endpoint="), "{html}");
    let token = between(&html, "echo ", " |")[0];
    // It is shown once.
    assert!(!page(&collector, "/hosts").await.contains(token));
    let token: EnrollToken = token.parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    collector.enroll(&identity, &token).await.unwrap();

    let html = page(&collector, "/hosts").await;
    assert!(
        html.contains("test-host") && html.contains("What is next?"),
        "{html}"
    );
    let dismissed = form(&collector, "/hosts/steps", None, &[]).await;
    let cookie = dismissed.headers()[SET_COOKIE].to_str().unwrap();
    let headers = [("cookie", cookie.split(';').next().unwrap())];
    let seen = call(&collector, Method::GET, "/hosts", &headers, "").await;
    assert!(!text(&seen).contains("What is next?"));
    // Who has two hosts has seen how it goes.
    collector.host().await;
    assert!(!page(&collector, "/hosts").await.contains("What is next?"));
}
