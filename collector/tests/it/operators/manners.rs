//! What every route of the API has in common: keys for sending again, shares, and what is refused.

use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{Method, StatusCode};
use infratrack_collector::audit::{self, Actor, Change};
use infratrack_collector::roles::routes;
use infratrack_collector::store::idempotency_keys::{self, Claim, Cutoffs};
use serde_json::json;
use time::Duration;
use uuid::Uuid;

use super::credentials::{call, send};
use crate::harness::Collector;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_with_its_key_is_carried_out_once() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let path = format!("/api/v1/hosts/{}/commands", host.id);
    let body = json!({"action": "refresh_facts"}).to_string();
    let token = collector.admin_token.clone();
    let post = async |key: &str, body: &str| {
        let headers = [("x-api-token", token.as_str()), ("idempotency-key", key)];
        send(&collector, Method::POST, &path, &headers, body).await
    };
    let first = post("one", &body).await;
    let again = post("one", &body).await;
    assert_eq!(
        (first.status(), again.status()),
        (StatusCode::CREATED, StatusCode::CREATED)
    );
    assert_eq!(first.body(), again.body());
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let other = post("one", &json!({"action": "renew"}).to_string()).await;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(post("", &body).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        post(&"k".repeat(256), &body).await.status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(post("two", &body).await.status(), StatusCode::CREATED);
    // What was refused did nothing, and its key is free.
    assert_eq!(
        post("three", "{}").await.status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(post("three", &body).await.status(), StatusCode::CREATED);
    assert_eq!(collector.get(&path).await["total"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_with_one_key_one_is_carried_out() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let path = format!("/api/v1/hosts/{}/commands", host.id);
    let body = json!({"action": "refresh_facts"}).to_string();
    let headers = [
        ("x-api-token", collector.admin_token.as_str()),
        ("idempotency-key", "one"),
    ];
    let sent = (0..8).map(|_| call(&collector, Method::POST, &path, &headers, &body));
    let answers = futures_util::future::join_all(sent).await;
    for (status, document) in answers {
        let under_way =
            status == StatusCode::CONFLICT && document["type"] == "idempotency_under_way";
        assert!(
            under_way || status == StatusCode::CREATED,
            "{status} {document}"
        );
    }
    assert_eq!(collector.get(&path).await["total"], 1);
}

/// A key as a collector leaves it that ended in the middle of a request.
async fn left_behind(collector: &Collector, carried_out: bool) {
    let left = "update idempotency_keys set status = null, body = null, carried_out = $1, collector_id = $2";
    let gone = "insert into collectors (collector_id, hostname, version, started_at, alive_at)
                values ($1, 'gone', '0', now(), $2)";
    let (id, now) = (Uuid::new_v4(), collector.clock.now());
    let left = sqlx::query(left).bind(carried_out).bind(id);
    left.execute(&collector.pool).await.unwrap();
    let gone = sqlx::query(gone).bind(id).bind(now);
    gone.execute(&collector.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_collector_that_ended_says_what_came_of_it() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let path = format!("/api/v1/hosts/{}/commands", host.id);
    let body = json!({"action": "refresh_facts"}).to_string();
    let token = collector.admin_token.clone();
    let post = async |key: &str| {
        let headers = [("x-api-token", token.as_str()), ("idempotency-key", key)];
        let (status, body) = call(&collector, Method::POST, &path, &headers, &body).await;
        (status, body["type"].as_str().unwrap_or_default().to_owned())
    };
    let under_way = (StatusCode::CONFLICT, "idempotency_under_way".to_owned());
    let lost = (StatusCode::CONFLICT, "idempotency_answer_lost".to_owned());
    assert_eq!(post("one").await.0, StatusCode::CREATED);
    for (carried_out, then) in [(false, None), (true, Some(lost))] {
        left_behind(&collector, carried_out).await;
        // It may be alive.
        assert_eq!(post("one").await, under_way);
        collector.clock.advance(Duration::seconds(11));
        let answer = post("one").await;
        assert!(then.is_none_or(|then| then == answer), "{answer:?}");
        assert_eq!(answer.0 == StatusCode::CREATED, !carried_out, "{answer:?}");
    }
    assert_eq!(collector.get(&path).await["total"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_a_key_changes_nothing() {
    let collector = Collector::start().await;
    let now = collector.clock.now();
    let mut connection = collector.pool.acquire().await.unwrap();
    let claim = |id| Claim {
        credential: "user:ada".to_owned(),
        key_hash: [7; 32],
        id,
    };
    let (slow, next) = (claim(Uuid::new_v4()), claim(Uuid::new_v4()));
    let id = collector.server.app.id;
    let cutoffs = |now| Cutoffs {
        alive_at: now,
        taken_at: now,
    };
    idempotency_keys::insert(&mut connection, &slow, b"same", id, now)
        .await
        .unwrap();
    let later = now + Duration::minutes(2);
    let taken = idempotency_keys::update_claim(&mut connection, &next, id, later, cutoffs(later));
    assert_eq!(taken.await.unwrap(), 1);
    let actor = |claim: &Claim| Actor {
        claim: Some(Arc::new(claim.clone())),
        ..Actor::command_line()
    };
    let change = || Change::new("host.update", "host", "one");
    let late = audit::record(&mut connection, &actor(&slow), change(), later).await;
    assert!(late.unwrap_err().to_string().contains("Idempotency-Key"));
    audit::record(&mut connection, &actor(&next), change(), later)
        .await
        .unwrap();
    // What is carried out stays with who did it.
    let much_later = later + Duration::hours(1);
    let taken =
        idempotency_keys::update_claim(&mut connection, &slow, id, much_later, cutoffs(much_later));
    assert_eq!(taken.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_not_kept_for_who_asks_again() {
    let collector = Collector::start().await;
    let body = json!({"name": "ci", "role": "viewer"}).to_string();
    let headers = [
        ("x-api-token", collector.admin_token.as_str()),
        ("idempotency-key", "one"),
    ];
    let (status, made) = call(&collector, Method::POST, "/api/v1/tokens", &headers, &body).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, again) = call(&collector, Method::POST, "/api/v1/tokens", &headers, &body).await;
    assert_eq!(
        (status, &again["type"]),
        (StatusCode::CONFLICT, &json!("idempotency_secret"))
    );
    let kept = "select string_agg(coalesce(encode(body, 'escape'), ''), '') from idempotency_keys";
    let kept = sqlx::query_scalar::<_, String>(kept)
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert!(!kept.contains(made["token"].as_str().unwrap()), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_asks_too_much_waits_and_others_do_not() {
    let collector = Collector::start_with(|config| {
        config.operators.requests_per_second = 1;
        config.operators.requests_burst = 5;
    })
    .await;
    let new = json!({"name": "quiet", "role": "viewer"}).to_string();
    let (_, quiet) = collector.api(Method::POST, "/api/v1/tokens", &new).await;
    let ask = async |token: &str| {
        send(
            &collector,
            Method::GET,
            "/api/v1/session",
            &[("x-api-token", token)],
            "",
        )
        .await
    };
    let first = ask(&collector.admin_token).await;
    assert_eq!(
        first.headers()["ratelimit-policy"],
        "\"credential\";q=5;w=5"
    );
    assert_eq!(first.headers()["ratelimit"], "\"credential\";r=3;t=2");
    let mut refused = None;
    for _ in 0..8 {
        let answer = ask(&collector.admin_token).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
        }
    }
    let refused = refused.unwrap();
    let wait: u64 = refused.headers()[RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(
        ask(quiet["token"].as_str().unwrap()).await.status(),
        StatusCode::OK
    );
    // Guesses have a share too, of their address.
    let guess = format!("it_{}_{}_00000000", "0".repeat(16), "0".repeat(64));
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(ask(&guess).await.status());
    }
    assert_eq!(statuses.first(), Some(&StatusCode::UNAUTHORIZED));
    assert_eq!(statuses.last(), Some(&StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_no_route_knows_is_named() {
    let collector = Collector::start().await;
    let mut tried = 0;
    for route in routes().iter().filter(|route| route.operation.is_some()) {
        let nil = Uuid::nil().to_string();
        let parts = route
            .path
            .split('/')
            .map(|part| if part.starts_with('{') { &nil } else { part });
        let path = format!("{}?nonsense=1", parts.collect::<Vec<_>>().join("/"));
        let (status, problem) = collector.api(route.method.clone(), &path, "{}").await;
        let at = format!("{} {path}: {problem}", route.method);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{at}");
        assert_eq!(problem["errors"][0]["parameter"], "nonsense", "{at}");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_cannot_hold_is_the_requests_fault() {
    let collector = Collector::start().await;
    for path in [
        "/api/v1/hosts?q=%00",
        "/api/v1/tokens/%00",
        "/api/v1/enroll-tokens/a%00b/approve",
    ] {
        let method = if path.ends_with("approve") {
            Method::POST
        } else {
            Method::GET
        };
        let (status, problem) = collector.api(method, path, "").await;
        assert!(status.is_client_error(), "{path}: {status} {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_and_can_be_browsed() {
    let collector = Collector::start().await;
    let document = collector.get("/api/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let headers = [("x-api-token", collector.admin_token.as_str())];
    let page = send(
        &collector,
        Method::GET,
        "/api/docs/index.html",
        &headers,
        "",
    )
    .await;
    assert_eq!(page.status(), StatusCode::OK);
    let start = send(
        &collector,
        Method::GET,
        "/api/docs/swagger-initializer.js",
        &headers,
        "",
    )
    .await;
    let start = String::from_utf8(start.body().to_vec()).unwrap();
    assert!(start.contains("/api/v1/openapi.json"), "{start}");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self';"), "{policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_forgotten_after_a_day() {
    let collector = Collector::start().await;
    let body = json!({"name": "ci", "role": "viewer"}).to_string();
    let headers = [
        ("x-api-token", collector.admin_token.as_str()),
        ("idempotency-key", "one"),
    ];
    let make = async || {
        call(&collector, Method::POST, "/api/v1/tokens", &headers, &body)
            .await
            .0
    };
    assert_eq!(make().await, StatusCode::CREATED);
    collector.clock.advance(Duration::hours(25));
    let mut connection = collector.pool.acquire().await.unwrap();
    let now = collector.clock.now();
    infratrack_collector::api::idempotency::sweep(&mut connection, now)
        .await
        .unwrap();
    assert_eq!(make().await, StatusCode::CREATED);
}
