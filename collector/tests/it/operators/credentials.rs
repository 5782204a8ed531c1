//! What credentials are worth: tokens that end, proxies that are believed, requests of other sites, and who proves who
//! they are again.

use bytes::Bytes;
use http::header::COOKIE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use infratrack_collector::api::csrf;
use infratrack_collector::login::setup;
use infratrack_collector::roles::{Access, routes};
use infratrack_collector::secret::Source;
use serde_json::{Value, json};
use time::Duration;

use super::logins::{PASSWORD, cookie, log_in, user};
use crate::harness::Collector;

const SECRET: &str = "a secret of the proxy, long enough";

pub(super) async fn call(
    collector: &Collector,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, Value) {
    let response = send(collector, method, path, headers, body).await;
    let document = serde_json::from_slice(response.body()).unwrap_or_default();
    (response.status(), document)
}

pub(super) async fn send(
    collector: &Collector,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Bytes> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    let body = Full::new(Bytes::from(body.to_owned()));
    collector.request(request.body(body).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_what_it_was_made_for_until_it_ends_or_is_revoked() {
    let collector = Collector::start().await;
    let new = json!({"name": "ci", "role": "read", "lifetime_s": 3600, "cidr": "127.0.0.0/8"});
    let (status, made) = collector
        .api(Method::POST, "/api/v1/tokens", &new.to_string())
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let text = made["token"].as_str().unwrap();
    let id = made["id"].as_str().unwrap();
    assert!(text.starts_with(&format!("it_{id}_")));
    assert_eq!(made["role"], "viewer");
    let bearer = format!("Bearer {text}");
    for header in [("authorization", bearer.as_str()), ("x-api-token", text)] {
        let (status, who) = call(&collector, Method::GET, "/api/v1/session", &[header], "").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(who["name"], "ci");
        assert_eq!(who["role"], "viewer");
    }
    let row = collector.get(&format!("/api/v1/tokens/{id}")).await;
    assert!(row["last_used_at"].is_string(), "{row}");
    assert_eq!(row["last_used_from"], "127.0.0.1/32");
    let stored = sqlx::query_scalar::<_, String>(
        "select to_jsonb(t)::text from api_tokens t where token_id = $1",
    );
    let stored = stored.bind(id).fetch_one(&collector.pool).await.unwrap();
    let (_, secret) = infratrack_collector::login::token::parse(text).unwrap();
    assert!(!stored.contains(secret), "{stored}");

    let header = [("authorization", bearer.as_str())];
    collector.clock.advance(Duration::minutes(59));
    assert_eq!(
        call(&collector, Method::GET, "/api/v1/hosts", &header, "")
            .await
            .0,
        StatusCode::OK
    );
    collector.clock.advance(Duration::minutes(2));
    assert_eq!(
        call(&collector, Method::GET, "/api/v1/hosts", &header, "")
            .await
            .0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_should_have_is_not_made() {
    let collector = Collector::start().await;
    for (body, pointer) in [
        (json!({"name": "x"}), "/role"),
        (json!({"name": "x", "role": "root"}), "/role"),
        (json!({"name": "", "role": "viewer"}), "/name"),
        (json!({"name": "x".repeat(129), "role": "viewer"}), "/name"),
        (json!({"name": "a\nb", "role": "viewer"}), "/name"),
        (
            json!({"name": "x", "scopes": ["ingest", "all"]}),
            "/scopes/1",
        ),
        (
            json!({"name": "x", "role": "viewer", "lifetime_s": 31_536_001}),
            "/lifetime_s",
        ),
        (
            json!({"name": "x", "role": "viewer", "lifetime_s": 0}),
            "/lifetime_s",
        ),
        (
            json!({"name": "x", "role": "viewer", "cidr": "nowhere"}),
            "/cidr",
        ),
        (
            json!({"name": "x", "role": "viewer", "expires": 1}),
            "/expires",
        ),
    ] {
        let (status, problem) = collector
            .api(Method::POST, "/api/v1/tokens", &body.to_string())
            .await;
        assert_eq!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}: {problem}"
        );
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{body}: {problem}"
        );
    }
}

/// Trusts a proxy at this machine.
async fn behind_a_proxy() -> Collector {
    Collector::start_with(|config| {
        let path = config.data_dir.join("proxy-secret");
        std::fs::write(&path, SECRET).unwrap();
        config.operators.users_from = vec!["127.0.0.1/32".parse().unwrap()];
        config.operators.users_from_secret_file = Some(Source::File(path));
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_word_for_a_user_is_taken_with_its_secret_only() {
    let collector = behind_a_proxy().await;
    let whoami = async |headers: &[(&str, &str)]| {
        call(&collector, Method::GET, "/api/v1/session", headers, "").await
    };
    let (secret, ada) = (("x-proxy-secret", SECRET), ("x-user", "ada"));
    let (status, who) = whoami(&[secret, ada, ("x-role", "member")]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&who["name"], &who["kind"], &who["role"]),
        (&json!("ada"), &json!("proxy"), &json!("operator"))
    );
    assert_eq!(whoami(&[secret, ada]).await.1["role"], "viewer");
    for headers in [
        &[ada, ("x-role", "admin")][..],
        &[
            ("x-proxy-secret", "another secret of another proxy"),
            ada,
            ("x-role", "admin"),
        ],
        &[secret, ("x-role", "admin")],
        &[secret, ada, ("x-user", "eve"), ("x-role", "viewer")],
    ] {
        assert_eq!(
            whoami(headers).await.0,
            StatusCode::UNAUTHORIZED,
            "{headers:?}"
        );
    }
    let (status, problem) = whoami(&[secret, ada, ("x-role", "root")]).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::FORBIDDEN, &json!("proxy_identity"))
    );
    // A browser behind the proxy that another site made do this.
    let headers = [
        secret,
        ada,
        ("x-role", "admin"),
        ("origin", "https://evil.example"),
    ];
    let (status, problem) = call(&collector, Method::POST, "/api/v1/tokens", &headers, "{}").await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::FORBIDDEN, &json!("cross_origin"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_no_trusted_proxy_wrote_are_as_if_not_there() {
    let trusting = Collector::start_with(|config| {
        let path = config.data_dir.join("proxy-secret");
        std::fs::write(&path, SECRET).unwrap();
        config.operators.users_from = vec!["192.0.2.0/24".parse().unwrap()];
        config.operators.users_from_secret_file = Some(Source::File(path));
    })
    .await;
    let headers = [
        ("x-proxy-secret", SECRET),
        ("x-user", "ada"),
        ("x-role", "admin"),
    ];
    for collector in [&trusting, &Collector::start().await] {
        let (status, _) = call(collector, Method::GET, "/api/v1/session", &headers, "").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        user(collector, "bob", "viewer").await;
        let (session, _) = cookie(&log_in(collector, "", "bob", PASSWORD).await);
        let mut headers = headers.to_vec();
        headers.push((COOKIE.as_str(), &session));
        let (_, who) = call(collector, Method::GET, "/api/v1/session", &headers, "").await;
        assert_eq!(
            (&who["name"], &who["role"]),
            (&json!("bob"), &json!("viewer"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_unsafe_route_takes_a_sessions_request_from_elsewhere_or_without_its_token() {
    let collector = Collector::start().await;
    user(&collector, "ada", "admin").await;
    let (session, _) = cookie(&log_in(&collector, "", "ada", PASSWORD).await);
    let token = csrf::token(session.split_once('=').unwrap().1);
    let mut tried = 0;
    for route in routes().iter().filter(|route| !route.method.is_safe()) {
        let nil = uuid::Uuid::nil().to_string();
        let parts = route
            .path
            .split('/')
            .map(|part| if part.starts_with('{') { &nil } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        for (headers, code) in [
            (
                &[("origin", "https://evil.example"), ("x-csrf-token", &token)][..],
                "cross_origin",
            ),
            (
                &[("origin", "null"), ("x-csrf-token", &token)],
                "cross_origin",
            ),
            (
                &[("sec-fetch-site", "cross-site"), ("x-csrf-token", &token)],
                "cross_origin",
            ),
            (
                &[("sec-fetch-site", "same-site"), ("x-csrf-token", &token)],
                "cross_origin",
            ),
            (&[("origin", "http://test")], "csrf"),
            (
                &[("origin", "http://test"), ("x-csrf-token", "0000")],
                "csrf",
            ),
        ] {
            if code == "csrf" && route.access == Access::Public {
                continue;
            }
            let mut headers = headers.to_vec();
            headers.push((COOKIE.as_str(), &session));
            let (status, problem) =
                call(&collector, route.method.clone(), &path, &headers, "").await;
            let at = format!("{} {path} {headers:?}: {problem}", route.method);
            assert_eq!(
                (status, &problem["type"]),
                (StatusCode::FORBIDDEN, &json!(code)),
                "{at}"
            );
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
    // None of them logged ada out.
    let headers = [(COOKIE.as_str(), session.as_str())];
    assert_eq!(
        call(&collector, Method::GET, "/api/v1/session", &headers, "")
            .await
            .0,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matters_most_needs_a_recent_proof_of_who_it_is() {
    let collector = Collector::start().await;
    user(&collector, "ada", "admin").await;
    let (session, _) = cookie(&log_in(&collector, "", "ada", PASSWORD).await);
    let token = csrf::token(session.split_once('=').unwrap().1);
    let headers = [
        (COOKIE.as_str(), session.as_str()),
        ("x-csrf-token", token.as_str()),
    ];
    let new = json!({"name": "x", "role": "viewer"}).to_string();
    let make = async || call(&collector, Method::POST, "/api/v1/tokens", &headers, &new).await;
    assert_eq!(make().await.0, StatusCode::CREATED);
    collector.clock.advance(Duration::minutes(11));
    assert_eq!(make().await.1["type"], "step_up_required");
    let prove = async |password: &str| {
        let body = json!({"password": password}).to_string();
        call(
            &collector,
            Method::POST,
            "/api/v1/session/step-up",
            &headers,
            &body,
        )
        .await
    };
    let (status, problem) = prove("something else").await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::FORBIDDEN, &json!("wrong_password"))
    );
    assert_eq!(make().await.1["type"], "step_up_required");
    assert_eq!(prove(PASSWORD).await.0, StatusCode::NO_CONTENT);
    assert_eq!(make().await.0, StatusCode::CREATED);
    // Guessing here is slowed down as at the login.
    let mut last = StatusCode::OK;
    for _ in 0..12 {
        last = prove("something else").await.0;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_an_empty_database_makes_one_admin_once() {
    let collector = Collector::start().await;
    let app = &collector.server.app;
    let form = |path: &str, name: &str, password: &str| {
        let token = path.split_once('=').unwrap().1;
        format!(
            "token={token}&name={name}&password={}",
            password.replace(' ', "+")
        )
    };
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let submit = async |body: &str| send(&collector, Method::POST, "/setup", &headers, body).await;
    let old = setup::link(app).await.unwrap().unwrap();
    collector.clock.advance(Duration::minutes(61));
    assert_eq!(
        submit(&form(&old, "ada", PASSWORD)).await.status(),
        StatusCode::GONE
    );
    let link = setup::link(app).await.unwrap().unwrap();
    let other = setup::link(app).await.unwrap().unwrap();
    assert_eq!(
        send(&collector, Method::GET, &link, &[], "").await.status(),
        StatusCode::OK
    );
    assert_eq!(
        submit("token=0000&name=eve&password=correct+horse+battery")
            .await
            .status(),
        StatusCode::GONE
    );
    assert_eq!(
        submit(&form(&link, "ada", "short")).await.status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let made = submit(&form(&link, "Ada", PASSWORD)).await;
    assert_eq!(made.status(), StatusCode::SEE_OTHER);
    let session = cookie(&made).0;
    let (_, who) = call(
        &collector,
        Method::GET,
        "/api/v1/session",
        &[("cookie", &session)],
        "",
    )
    .await;
    assert_eq!(
        (&who["name"], &who["role"]),
        (&json!("ada"), &json!("admin"))
    );
    for used in [&link, &other] {
        assert_eq!(
            submit(&form(used, "eve", PASSWORD)).await.status(),
            StatusCode::GONE
        );
    }
    assert_eq!(setup::link(app).await.unwrap(), None);
}
