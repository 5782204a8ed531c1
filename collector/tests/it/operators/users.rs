//! Users and sessions through the API.

use http::{Method, StatusCode};
use infratrack_collector::api::csrf;
use serde_json::{Value, json};

use super::credentials::{call, send};
use super::logins::{PASSWORD, cookie, log_in, user};
use crate::harness::Collector;

async fn patch(
    collector: &Collector,
    name: &str,
    tag: Option<&str>,
    body: Value,
) -> (StatusCode, Value) {
    let admin = format!("Bearer {}", collector.admin_token);
    let mut headers = vec![("authorization", admin.as_str())];
    headers.extend(tag.map(|tag| ("if-match", tag)));
    let path = format!("/api/v1/users/{name}");
    call(collector, Method::PATCH, &path, &headers, &body.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_changed_by_who_saw_them_as_they_are() {
    let collector = Collector::start().await;
    let new = json!({"name": "Bob", "role": "member", "password": PASSWORD}).to_string();
    let (status, bob) = collector.api(Method::POST, "/api/v1/users", &new).await;
    assert_eq!(
        (status, &bob["role"]),
        (StatusCode::CREATED, &json!("operator"))
    );
    let again = collector.api(Method::POST, "/api/v1/users", &new).await;
    assert_eq!(again.0, StatusCode::CONFLICT);
    let (session, _) = cookie(&log_in(&collector, "", "bob", PASSWORD).await);

    let admin = [("x-api-token", collector.admin_token.as_str())];
    let read = send(&collector, Method::GET, "/api/v1/users/bob", &admin, "").await;
    let tag = read.headers()["etag"].to_str().unwrap();
    let lead = json!({"role": "lead"});
    let without = patch(&collector, "bob", None, lead.clone()).await;
    assert_eq!(without.0, StatusCode::PRECONDITION_REQUIRED);
    assert_eq!(
        patch(&collector, "bob", Some(tag), lead.clone()).await.1["role"],
        "lead"
    );
    let late = patch(&collector, "bob", Some(tag), lead).await;
    assert_eq!(late.0, StatusCode::PRECONDITION_FAILED);
    // Whose role changed logs in again.
    let with_session = [("cookie", session.as_str())];
    let after = call(
        &collector,
        Method::GET,
        "/api/v1/session",
        &with_session,
        "",
    )
    .await;
    assert_eq!(after.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_admin_stays_and_the_log_has_no_passwords() {
    let collector = Collector::start().await;
    user(&collector, "ada", "admin").await;
    let new = json!({"name": "bob", "role": "viewer", "password": PASSWORD}).to_string();
    collector.api(Method::POST, "/api/v1/users", &new).await;
    let password = json!({"password": "another battery staple"});
    assert_eq!(
        patch(&collector, "bob", Some("*"), password).await.0,
        StatusCode::OK
    );
    for body in [json!({"role": "lead"}), json!({"disabled": true})] {
        let (status, problem) = patch(&collector, "ada", Some("*"), body).await;
        assert_eq!(
            (status, &problem["type"]),
            (StatusCode::CONFLICT, &json!("last_admin"))
        );
    }
    let (status, _) = collector.api(Method::DELETE, "/api/v1/users/ada", "").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = collector.api(Method::DELETE, "/api/v1/users/bob", "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(collector.get("/api/v1/users").await["total"], 1);
    let log = "select string_agg(to_jsonb(a)::text, ' ') from audit_log a";
    let log = sqlx::query_scalar::<_, String>(log)
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    for action in ["user.create", "user.update", "user.delete"] {
        assert!(log.contains(action), "{log}");
    }
    for secret in ["argon2", PASSWORD, "another battery staple"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_sees_and_ends_their_own_sessions_and_admins_all() {
    let collector = Collector::start().await;
    user(&collector, "ada", "viewer").await;
    user(&collector, "bob", "viewer").await;
    let (ada, _) = cookie(&log_in(&collector, "", "ada", PASSWORD).await);
    let (second, _) = cookie(&log_in(&collector, "", "ada", PASSWORD).await);
    let (bob, _) = cookie(&log_in(&collector, "", "bob", PASSWORD).await);
    let list = async |session: &str| {
        call(
            &collector,
            Method::GET,
            "/api/v1/sessions",
            &[("cookie", session)],
            "",
        )
        .await
        .1
    };
    let all = collector.get("/api/v1/sessions").await;
    assert_eq!(all["total"], 3);
    let of_ada = list(&ada).await;
    assert_eq!(of_ada["total"], 2, "{of_ada}");
    let of_bob = list(&bob).await["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let end = async |session: &str, id: &str| {
        let token = csrf::token(session.split_once('=').unwrap().1);
        let headers = [("cookie", session), ("x-csrf-token", token.as_str())];
        call(
            &collector,
            Method::DELETE,
            &format!("/api/v1/sessions/{id}"),
            &headers,
            "",
        )
        .await
        .0
    };
    assert_eq!(end(&ada, &of_bob).await, StatusCode::NOT_FOUND);
    let newest = of_ada["items"][0]["id"].as_str().unwrap();
    assert_eq!(end(&ada, newest).await, StatusCode::NO_CONTENT);
    let left = list(&second).await;
    assert_eq!(left["type"], "unauthorized", "{left}");
    let (status, _) = collector
        .api(Method::DELETE, &format!("/api/v1/sessions/{of_bob}"), "")
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(list(&bob).await["type"], "unauthorized");
}
