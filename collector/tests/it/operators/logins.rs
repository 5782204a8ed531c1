//! Logging in: who gets a session, what its cookie is worth, and what guessing costs.

use bytes::Bytes;
use http::header::{COOKIE, RETRY_AFTER, SET_COOKIE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use infratrack_collector::api::csrf;
use infratrack_collector::login::password;
use infratrack_collector::store::{sessions, users};
use time::Duration;
use uuid::Uuid;

use crate::harness::Collector;

pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) async fn user(collector: &Collector, name: &str, role: &str) {
    let user = users::User {
        user_id: Uuid::new_v4(),
        name: name.to_owned(),
        role: role.to_owned(),
        password_hash: Some(password::hash(PASSWORD).unwrap()),
        created_at: collector.clock.now(),
        disabled_at: None,
        must_change_password: false,
    };
    let mut connection = collector.pool.acquire().await.unwrap();
    let made = users::insert(&mut connection, &user, "test").await.unwrap();
    assert_eq!(made, 1);
}

async fn send(
    collector: &Collector,
    method: Method,
    path: &str,
    cookie: &str,
    body: &str,
) -> Response<Bytes> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "test")
        .header(COOKIE, cookie)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(body.to_owned())));
    collector.request(request.unwrap()).await
}

pub(crate) async fn log_in(
    collector: &Collector,
    cookie: &str,
    name: &str,
    password: &str,
) -> Response<Bytes> {
    let form = format!("name={name}&password={}", password.replace(' ', "+"));
    send(collector, Method::POST, "/login", cookie, &form).await
}

/// The cookie of an answer as a browser sends it back, and its attributes.
pub(crate) fn cookie(response: &Response<Bytes>) -> (String, String) {
    let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    (pair.to_owned(), attributes.to_owned())
}

async fn is_in(collector: &Collector, cookie: &str) -> bool {
    let response = send(collector, Method::GET, "/hosts", cookie, "").await;
    response.status() == StatusCode::OK
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_its_password_begins_a_session_with_the_users_role() {
    let collector = Collector::start().await;
    user(&collector, "ada", "viewer").await;
    let response = log_in(&collector, "", "Ada", PASSWORD).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let (session, attributes) = cookie(&response);
    assert_eq!(
        attributes,
        "Path=/; HttpOnly; SameSite=Strict; Max-Age=43200"
    );
    assert!(is_in(&collector, &session).await);
    let path = "/api/v1/enroll-tokens";
    let refused = send(&collector, Method::POST, path, &session, "").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);

    let bare = send(&collector, Method::POST, "/logout", &session, "").await;
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    let (_, secret) = session.split_once('=').unwrap();
    let form = format!("csrf={}", csrf::token(secret));
    let left = send(&collector, Method::POST, "/logout", &session, &form).await;
    assert_eq!(cookie(&left).0, "infratrack=");
    assert!(!is_in(&collector, &session).await);
}

/// A page but for what is of each answer alone: its nonce, and when it was made.
fn text(response: &Response<Bytes>) -> String {
    let mut text = String::from_utf8(response.body().to_vec()).unwrap();
    for start in [" nonce=\"", " data-now=\""] {
        while let Some(at) = text.find(start) {
            let value = at + start.len();
            let end = value + text[value..].find('"').unwrap();
            text.replace_range(at..=end, "");
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_name_get_the_same_answer() {
    let collector = Collector::start().await;
    user(&collector, "ada", "admin").await;
    let wrong = log_in(&collector, "", "ada", "something else").await;
    let unknown = log_in(&collector, "", "bob", "something else").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(text(&wrong).replace("\"ada\"", "\"bob\""), text(&unknown));
    assert!(!wrong.headers().contains_key(SET_COOKIE));
    let no_name = log_in(&collector, "", "a%00b%2Fc", PASSWORD).await;
    assert_eq!(no_name.status(), StatusCode::UNAUTHORIZED);
    let mut connection = collector.pool.acquire().await.unwrap();
    let now = Some(collector.clock.now());
    users::update_disabled(&mut connection, "ada", now)
        .await
        .unwrap();
    let disabled = log_in(&collector, "", "ada", PASSWORD).await;
    assert_eq!(text(&disabled), text(&wrong));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_takes_no_session_over_and_ends_the_one_before() {
    let collector = Collector::start().await;
    user(&collector, "ada", "viewer").await;
    let planted = "infratrack=0011223344556677";
    let (first, _) = cookie(&log_in(&collector, planted, "ada", PASSWORD).await);
    assert_ne!(first, planted);
    assert!(!is_in(&collector, planted).await);
    let (second, _) = cookie(&log_in(&collector, &first, "ada", PASSWORD).await);
    assert_ne!(second, first);
    assert!(!is_in(&collector, &first).await);
    assert!(is_in(&collector, &second).await);
    let mut connection = collector.pool.acquire().await.unwrap();
    sessions::delete_of_user(&mut connection, "ada")
        .await
        .unwrap();
    assert!(!is_in(&collector, &second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_half_an_hour_after_its_use_and_half_a_day_after_its_beginning() {
    let collector = Collector::start().await;
    user(&collector, "ada", "viewer").await;
    let (idle, _) = cookie(&log_in(&collector, "", "ada", PASSWORD).await);
    let minutes = Duration::minutes;
    collector.clock.advance(minutes(29));
    assert!(is_in(&collector, &idle).await);
    collector.clock.advance(minutes(29));
    // A page that asks for itself is nobody who uses it.
    let request = Request::get("/hosts")
        .header("host", "test")
        .header(COOKIE, &idle)
        .header("infratrack-unattended", "1");
    let response = collector
        .request(request.body(Full::default()).unwrap())
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    collector.clock.advance(minutes(2));
    assert!(!is_in(&collector, &idle).await);

    let (busy, _) = cookie(&log_in(&collector, "", "ada", PASSWORD).await);
    for _ in 0..28 {
        collector.clock.advance(minutes(25));
        assert!(is_in(&collector, &busy).await);
    }
    collector.clock.advance(minutes(21));
    assert!(!is_in(&collector, &busy).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_whether_there_is_such_a_user_or_not() {
    let collector = Collector::start().await;
    user(&collector, "ada", "viewer").await;
    for name in ["ada", "nobody"] {
        for _ in 0..5 {
            let refused = log_in(&collector, "", name, "a guess of many").await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        }
    }
    let counted: Vec<(String, i32)> =
        sqlx::query_as("select subject, failures from login_failures order by subject")
            .fetch_all(&collector.pool)
            .await
            .unwrap();
    let subjects = [
        "name ada",
        "name nobody",
        "pair 127.0.0.1 ada",
        "pair 127.0.0.1 nobody",
    ];
    assert_eq!(counted, subjects.map(|subject| (subject.to_owned(), 5)));
    // After some more, the wait is longer than this test.
    sqlx::query("update login_failures set failures = 17, last_at = $1")
        .bind(collector.clock.now())
        .execute(&collector.pool)
        .await
        .unwrap();
    for name in ["ada", "nobody"] {
        // The right one too: else an answer would tell.
        let later = log_in(&collector, "", name, PASSWORD).await;
        assert_eq!(later.status(), StatusCode::TOO_MANY_REQUESTS);
        let seconds: i64 = later.headers()[RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((600..=900).contains(&seconds), "{seconds}");
        assert!(!later.headers().contains_key(SET_COOKIE));
    }
    collector.clock.advance(Duration::minutes(15));
    let done = log_in(&collector, "", "ada", PASSWORD).await;
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    let left: Vec<String> =
        sqlx::query_scalar("select subject from login_failures order by subject")
            .fetch_all(&collector.pool)
            .await
            .unwrap();
    assert_eq!(left, ["name nobody", "pair 127.0.0.1 nobody"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_only_the_cookie_that_no_neighbour_can_set_counts() {
    let collector = Collector::start_with(|config| {
        config.operators.url = "https://infratrack.example".to_owned();
    })
    .await;
    user(&collector, "ada", "viewer").await;
    let (session, attributes) = cookie(&log_in(&collector, "", "ada", PASSWORD).await);
    assert!(session.starts_with("__Host-infratrack="), "{session}");
    assert!(attributes.ends_with("; Secure"), "{attributes}");
    assert!(is_in(&collector, &session).await);
    assert!(!is_in(&collector, session.strip_prefix("__Host-").unwrap()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_begins_a_session_that_ends_with_it() {
    let collector = Collector::start().await;
    let form = format!("token={}", collector.admin_token);
    let response = send(&collector, Method::POST, "/login", "", &form).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let (session, _) = cookie(&response);
    assert!(!session.contains("it_"), "the cookie holds the token");
    assert!(is_in(&collector, &session).await);
    sqlx::query("update api_tokens set revoked_at = $1")
        .bind(collector.clock.now())
        .execute(&collector.pool)
        .await
        .unwrap();
    assert!(!is_in(&collector, &session).await);
    let refused = send(&collector, Method::POST, "/login", "", &form).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_from_another_sites_page_is_refused() {
    let collector = Collector::start().await;
    user(&collector, "ada", "viewer").await;
    let form = format!("name=ada&password={}", PASSWORD.replace(' ', "+"));
    let request = Request::post("/login")
        .header("host", "test")
        .header("origin", "https://elsewhere.example")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)));
    let refused = collector.request(request.unwrap()).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
}
