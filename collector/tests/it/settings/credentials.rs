//! Secrets are shown on the page that makes them and nowhere after; what brings hosts in, and what throws them out.

use http::{Method, StatusCode};
use infratrack_agent::identity::Identity;
use infratrack_shared::token::EnrollToken;
use time::Duration;

use super::Browser;
use crate::harness::{Collector, eventually};

const HOSTILE: &str = "<script>alert(1)</script>\u{202e}=cmd|'/C calc'!A0";

/// Pages on which a secret could turn up again.
async fn nowhere(browser: &Browser<'_>, secret: &str) {
    for page in [
        "/settings/tokens",
        "/settings/enrollment",
        "/settings/sessions",
        "/settings/health",
        "/audit",
        "/search?q=token",
        "/api/v1/audit?format=csv",
        "/api/v1/tokens",
        "/api/v1/enroll-tokens",
    ] {
        browser.get(page).await.is(StatusCode::OK).lacks(secret);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_works_and_is_revoked() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    let fields = [
        ("name", HOSTILE),
        ("role", "viewer"),
        ("days", "7"),
        ("cidr", "127.0.0.1"),
    ];
    let made = admin.post("/settings/tokens", &fields).await;
    made.is(StatusCode::OK)
        .has("only time")
        .lacks("<script>alert");
    let token = made
        .between("<pre class=\"copy\" data-secret>", "</pre>")
        .to_owned();
    assert!(token.starts_with("it_"), "{token}");
    let secret = token.rsplit('_').next().unwrap();
    nowhere(&admin, secret).await;
    let with_token = async || {
        let request = http::Request::builder()
            .uri("/api/v1/hosts")
            .header("host", "test")
            .header("x-api-token", &token)
            .body(http_body_util::Full::default());
        collector.request(request.unwrap()).await.status()
    };
    assert_eq!(with_token().await, StatusCode::OK);
    let list = admin.get("/settings/tokens").await;
    list.lacks("<script>alert")
        .has("only from 127.0.0.1")
        .has("ends soon")
        .has("from 127.0.0.1");
    let id = token.split('_').nth(1).unwrap();
    let revoke = format!("/settings/tokens/{id}/revoke");
    admin.post(&revoke, &[]).await.sends_to("/settings/tokens");
    admin
        .get("/settings/tokens")
        .await
        .has("revoked")
        .lacks(&format!("popovertarget=\"revoke-{id}"));
    assert_eq!(with_token().await, StatusCode::UNAUTHORIZED);
    admin.post(&revoke, &[]).await.is(StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_should_have_is_not_made_and_what_was_typed_stays() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    for (role, scope, days, cidr, said) in [
        ("", "false", "7", "", "Role must be there where no scope is"),
        ("root", "false", "7", "", "Role must be viewer"),
        (
            "viewer",
            "false",
            "never",
            "",
            "Days must be a whole number",
        ),
        (
            "viewer",
            "false",
            "100000",
            "",
            "Days must be from 1 to 365",
        ),
        (
            "viewer",
            "false",
            "7",
            "nowhere",
            "Network must be an address",
        ),
    ] {
        let fields = [
            ("name", "a \"quoted\" name"),
            ("role", role),
            ("scope_ingest", scope),
            ("days", days),
            ("cidr", cidr),
        ];
        let refused = admin.post("/settings/tokens", &fields).await;
        refused
            .is(StatusCode::UNPROCESSABLE_ENTITY)
            .has(said)
            .has("quoted");
    }
    let scoped = [("name", "ci"), ("scope_ingest", "true"), ("days", "7")];
    admin
        .post("/settings/tokens", &scoped)
        .await
        .is(StatusCode::OK);
    assert_eq!(
        collector.get("/api/v1/tokens").await["items"][0]["scopes"][0],
        "ingest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrollment_token_is_shown_once_with_what_to_type_and_lets_in_whom_it_is_said_to() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    admin.get("/settings/enrollment").await.has("No open token");
    let fields = [
        ("hours", "2"),
        ("uses", "3"),
        ("tags", "web, eu"),
        ("approval_required", "true"),
    ];
    let made = admin.post("/settings/enrollment", &fields).await;
    let endpoint = collector.server.app.config.enroll_endpoint();
    made.is(StatusCode::OK)
        .has("apt install")
        .has("dnf install")
        .has("ansible-playbook")
        .has(&format!("--collector {endpoint} --token-stdin"));
    let token = made
        .between("<pre class=\"copy\" data-secret>", "</pre>")
        .to_owned();
    nowhere(&admin, &token).await;
    let parsed: EnrollToken = token.parse().unwrap();
    admin
        .get("/settings/enrollment")
        .await
        .has("0 of 3")
        .has("asks for approval")
        .has("web");

    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    let id = parsed.id();
    let approve = format!("/settings/enrollment/{id}/approve");
    let approving = async {
        let waiting = eventually("the host to wait", || async {
            let page = admin.get("/settings/enrollment").await;
            page.text.contains("Let 1 in").then_some(page)
        });
        waiting.await.has("Waiting to be let in").has("test-host");
        let done = admin.post(&approve, &[]).await;
        done.sends_to("/settings/enrollment");
    };
    let (enrolled, ()) = tokio::join!(collector.enroll(&identity, &parsed), approving);
    enrolled.unwrap();
    admin
        .get("/settings/enrollment")
        .await
        .lacks("Waiting to be let in")
        .has("1 of 3");
    let delete = format!("/settings/enrollment/{id}/delete");
    admin
        .post(&delete, &[])
        .await
        .sends_to("/settings/enrollment");
    admin.get("/settings/enrollment").await.has("No open token");
    admin.post(&delete, &[]).await.is(StatusCode::NOT_FOUND);
    for (name, value, said) in [
        ("hours", "169", "Hours must be from 1 to 168"),
        ("uses", "501", "Max uses must be from 1 to 500"),
        ("host_id", "web-1", "Host must be the id"),
        ("cidr", "x", "Network must be an address"),
    ] {
        let refused = admin.post("/settings/enrollment", &[(name, value)]).await;
        refused.is(StatusCode::UNPROCESSABLE_ENTITY).has(said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_listed_by_how_they_are_and_revoked_with_the_reason() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    admin
        .get("/settings/certificates")
        .await
        .has("No certificate yet");
    collector.host().await;
    let list = admin.get("/settings/certificates").await;
    list.is(StatusCode::OK).has("test-host").has(">valid<");
    admin
        .get("/settings/certificates?q=TEST-h&state=valid")
        .await
        .has("test-host");
    admin
        .get("/settings/certificates?q=%25")
        .await
        .has("No certificate is so");
    admin
        .get("/settings/certificates?state=expired")
        .await
        .has("No certificate is so");
    admin
        .get("/settings/certificates?state=odd")
        .await
        .is(StatusCode::BAD_REQUEST);
    let certificate = collector.get("/api/v1/certificates").await["items"][0].clone();
    let ends = certificate["not_after"].as_str().unwrap();
    let ends =
        time::OffsetDateTime::parse(ends, &time::format_description::well_known::Rfc3339).unwrap();
    let until_soon = ends - collector.clock.now() - Duration::days(13);
    if until_soon.is_positive() {
        admin
            .get("/settings/certificates?state=expiring")
            .await
            .has("No certificate is so");
    }

    let viewer = Browser::of(&collector, "bob", "viewer").await;
    viewer
        .get("/settings/certificates")
        .await
        .has("test-host")
        .lacks("Revoke…");
    let serial = certificate["serial"].as_str().unwrap();
    let revoke = format!("/settings/certificates/{serial}/revoke");
    viewer
        .post(&revoke, &[("reason", "none")])
        .await
        .is(StatusCode::FORBIDDEN);
    let done = admin.post(&revoke, &[("reason", HOSTILE)]).await;
    done.sends_to(&format!(
        "/settings/certificates?host_id={}",
        certificate["host_id"].as_str().unwrap()
    ));
    let revoked = admin.get("/settings/certificates?state=revoked").await;
    revoked
        .has("by ada")
        .has("=cmd|")
        .lacks("<script>alert")
        .lacks("Revoke…");
    let again = format!("/api/v1/certificates/{serial}/revoke");
    let (status, _) = collector.api(Method::POST, &again, "").await;
    assert_eq!(status, StatusCode::CONFLICT);
}
