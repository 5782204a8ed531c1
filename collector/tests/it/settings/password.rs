//! Who was given a password by somebody else chooses another before all else.

use http::{Method, StatusCode};
use infratrack_collector::roles::{Access, routes};
use serde_json::json;

use super::{Browser, PASSWORD};
use crate::harness::Collector;

const GIVEN: &str = "given by the admin";

async fn given<'a>(collector: &'a Collector, admin: &Browser<'_>) -> Browser<'a> {
    let fields = [("name", "bob"), ("role", "admin"), ("password", GIVEN)];
    let made = admin.post("/settings/users", &fields).await;
    made.sends_to("/settings/users");
    Browser::log_in(collector, "bob", GIVEN).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_but_that_of_the_password_works_before_it_is_chosen() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    let bob = given(&collector, &admin).await;
    let nil = uuid::Uuid::nil().to_string();
    let (mut pages, mut calls) = (0, 0);
    for route in routes() {
        if route.access == Access::Public || route.before_password {
            continue;
        }
        let parts = route.path.split('/').map(|part| match part {
            part if part.starts_with('{') => nil.as_str(),
            part => part,
        });
        let path = parts.collect::<Vec<_>>().join("/");
        let body = (!route.method.is_safe()).then(|| format!("csrf={}", bob.csrf));
        let answer = bob.send(route.method.clone(), &path, body).await;
        let is_call = ["/api/v1/", "/ingest/", "/metrics"];
        if is_call.iter().any(|start| route.path.starts_with(start)) {
            answer
                .is(StatusCode::FORBIDDEN)
                .has("PUT /api/v1/session/password");
            calls += 1;
        } else {
            answer.sends_to("/password");
            pages += 1;
        }
    }
    assert!(pages > 20 && calls > 50, "{pages} {calls}");
    let open = routes().iter().filter(|route| route.before_password);
    let open: Vec<_> = open.map(|route| route.path.as_str()).collect();
    assert_eq!(
        open,
        [
            "/logout",
            "/password",
            "/password",
            "/api/v1/session/password"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_chosen_once_and_then_everything_is_open_again() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    let bob = given(&collector, &admin).await;
    let elsewhere = Browser::log_in(&collector, "bob", GIVEN).await.unwrap();
    admin
        .get("/settings/users")
        .await
        .has("has to choose a password");
    bob.get("/password")
        .await
        .is(StatusCode::OK)
        .has("Choose a password of your own");
    let mine = "chosen by bob himself";
    let (no, bad) = (StatusCode::FORBIDDEN, StatusCode::UNPROCESSABLE_ENTITY);
    for (current, new, again, status, said) in [
        ("something else", mine, mine, no, "not your current"),
        (GIVEN, "brief", "brief", bad, "12 characters"),
        (GIVEN, mine, "chosen by bob", bad, "differ"),
        (GIVEN, GIVEN, GIVEN, bad, "another one"),
    ] {
        let fields = [
            ("current_password", current),
            ("new_password", new),
            ("new_password_again", again),
        ];
        let refused = bob.post("/password", &fields).await;
        refused.is(status).has(said).lacks(new);
        bob.get("/settings/account").await.sends_to("/password");
    }
    // What was sent before is not lost.
    let sent = bob.post("/hosts/views", &[("name", "Mine & hers")]).await;
    sent.is(no)
        .has("Choose a password of your own")
        .has("name=\"kept_action\" value=\"/hosts/views\"");
    let fields = [
        ("current_password", GIVEN),
        ("new_password", mine),
        ("new_password_again", mine),
        ("kept_action", "/hosts/views"),
        ("kept_body", "name=Mine+%26+hers"),
    ];
    bob.post("/password", &fields)
        .await
        .is(StatusCode::OK)
        .has("Go on with what you sent")
        .has("Mine &#38; hers");
    bob.get("/settings/account").await.is(StatusCode::OK);
    assert_eq!(
        elsewhere.get("/settings/account").await.to,
        "/login?next=%2Fsettings%2Faccount"
    );
    assert!(Browser::log_in(&collector, "bob", GIVEN).await.is_none());
    let again = Browser::log_in(&collector, "bob", mine).await.unwrap();
    again
        .get("/settings/users")
        .await
        .lacks("has to choose a password");
    let log = collector
        .get("/api/v1/audit?action=user.change_password")
        .await;
    assert_eq!(log["items"][0]["actor_name"], "bob");
    assert!(!log.to_string().contains(mine));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_may_be_kept_or_is_ones_own_is_not_asked_for_again() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    let fields = [
        ("name", "eve"),
        ("role", "viewer"),
        ("password", GIVEN),
        ("keep", "true"),
    ];
    admin
        .post("/settings/users", &fields)
        .await
        .sends_to("/settings/users");
    let eve = Browser::log_in(&collector, "eve", GIVEN).await.unwrap();
    eve.get("/settings/account").await.is(StatusCode::OK);

    let body = json!({"password": PASSWORD, "new_password": "ada's own next one"}).to_string();
    let put = async |body: &str| {
        let request = http::Request::builder()
            .method(Method::PUT)
            .uri("/api/v1/session/password")
            .header("host", "test")
            .header("cookie", &admin.cookie)
            .header("x-csrf-token", &admin.csrf)
            .header("content-type", "application/json")
            .body(http_body_util::Full::from(body.to_owned()));
        collector.request(request.unwrap()).await.status()
    };
    assert_eq!(put(&body).await, StatusCode::NO_CONTENT);
    assert_eq!(put(&body).await, StatusCode::FORBIDDEN);
    let ada = Browser::log_in(&collector, "ada", "ada's own next one")
        .await
        .unwrap();
    ada.get("/settings/account").await.is(StatusCode::OK);
    // A token has no password.
    let (status, problem) = collector
        .api(Method::PUT, "/api/v1/session/password", &body)
        .await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("no_password"))
    );
}
