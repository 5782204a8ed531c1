//! What a page's answer says to the browser: what it may load, what went wrong, and what becomes of a form that came too
//! late.

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use infratrack_collector::api::csrf;
use time::Duration;

use crate::harness::Collector;
use crate::operators::logins::{self, PASSWORD, cookie, log_in};

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
        .header("accept", "text/html,application/xhtml+xml")
        .header(COOKIE, cookie)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("content-length", body.len())
        .body(Full::new(Bytes::from(body.to_owned())));
    collector.request(request.unwrap()).await
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

async fn session(collector: &Collector, role: &str) -> (String, String) {
    logins::user(collector, role, role).await;
    let (cookie, _) = cookie(&log_in(collector, "", role, PASSWORD).await);
    let token = csrf::token(cookie.split_once('=').unwrap().1);
    (cookie, token)
}

/// What stands in a hidden field of a page.
fn field<'a>(page: &'a str, name: &str) -> &'a str {
    let start = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.split_once(&start).unwrap();
    rest.split_once('"').unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_loads_what_carries_its_own_nonce_and_nothing_else() {
    let collector = Collector::start().await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let answer = send(&collector, Method::GET, "/login", "", "").await;
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"));
        assert!(!policy.contains("unsafe"), "{policy}");
        let page = text(&answer);
        let (_, rest) = policy.split_once("script-src 'nonce-").unwrap();
        let nonce = rest.split_once('\'').unwrap().0.to_owned();
        for tag in ["<script", "<link rel=\"stylesheet\""] {
            for (at, _) in page.match_indices(tag) {
                let end = page[at..].find('>').unwrap();
                assert!(
                    page[at..at + end].contains(&nonce),
                    "{}",
                    &page[at..at + end]
                );
            }
        }
        for inline in ["style=\"", "onclick=", "<style", "javascript:"] {
            assert!(!page.contains(inline), "{inline}");
        }
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_a_page_where_a_program_reads_a_problem() {
    let collector = Collector::start().await;
    let (cookie, _) = session(&collector, "viewer").await;
    let missing = "/hosts/00000000-0000-7000-8000-000000000000";
    for (path, status) in [
        (missing, StatusCode::NOT_FOUND),
        ("/_kit", StatusCode::FORBIDDEN),
        ("/hosts?limit=0", StatusCode::BAD_REQUEST),
        ("/no<b>where", StatusCode::NOT_FOUND),
    ] {
        let path = path.replace('<', "%3C").replace('>', "%3E");
        let answer = send(&collector, Method::GET, &path, &cookie, "").await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        let id = answer.headers()["x-request-id"].to_str().unwrap();
        let page = text(&answer);
        assert!(page.contains(id) && page.contains("<title>"), "{page}");
        assert!(!page.contains("<b>where"), "{page}");
    }
    let request = Request::get(missing)
        .header("host", "test")
        .header(COOKIE, &cookie);
    let answer = collector
        .request(request.body(Full::default()).unwrap())
        .await;
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
    let api = format!("/api/v1{missing}");
    let answer = send(&collector, Method::GET, &api, &cookie, "").await;
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_goes_on_to_the_page_that_was_wanted_if_it_is_one_of_ours() {
    let collector = Collector::start().await;
    logins::user(&collector, "ada", "viewer").await;
    let answer = send(&collector, Method::GET, "/inventory?state=absent", "", "").await;
    let to = answer.headers()[LOCATION].to_str().unwrap();
    assert_eq!(to, "/login?next=%2Finventory%3Fstate%3Dabsent");
    let page = text(&send(&collector, Method::GET, to, "", "").await);
    assert_eq!(field(&page, "next"), "/inventory?state=absent");
    for (next, to) in [
        ("%2Finventory", "/inventory"),
        ("%2F%2Fevil.example", "/"),
        ("https%3A%2F%2Fevil.example", "/"),
        ("", "/"),
    ] {
        let form = format!(
            "name=ada&password={}&next={next}",
            PASSWORD.replace(' ', "+")
        );
        let answer = send(&collector, Method::POST, "/login", "", &form).await;
        assert_eq!(answer.headers()[LOCATION], to, "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_sent_after_the_session_ended_waits_behind_the_login() {
    let collector = Collector::start().await;
    logins::user(&collector, "ada", "operator").await;
    let form = "csrf=old&from=a+%26+b&dry_run=true";
    let answer = send(&collector, Method::POST, "/inventory/sync", "", form).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let page = text(&answer);
    let kept = field(&page, "kept_body")
        .replace("&#38;", "&")
        .replace("&amp;", "&");
    assert_eq!(field(&page, "kept_action"), "/inventory/sync");
    assert_eq!(kept, "from=a+%26+b&dry_run=true");
    let encoded = kept
        .replace('%', "%25")
        .replace('&', "%26")
        .replace('+', "%2B");
    let login = |action: &str| {
        let password = PASSWORD.replace(' ', "+");
        format!("name=ada&password={password}&kept_action={action}&kept_body={encoded}")
    };
    let answer = send(
        &collector,
        Method::POST,
        "/login",
        "",
        &login("/inventory/sync"),
    )
    .await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (cookie, _) = cookie(&answer);
    let page = text(&answer);
    let token = csrf::token(cookie.split_once('=').unwrap().1);
    assert!(page.contains("action=\"/inventory/sync\""), "{page}");
    // Sent as the page's form would send it.
    let again = format!("csrf={token}&{kept}");
    let answer = send(&collector, Method::POST, "/inventory/sync", &cookie, &again).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(text(&answer).contains("Not synced"), "{}", text(&answer));
    // Whoever names another site goes nowhere.
    let answer = send(
        &collector,
        Method::POST,
        "/login",
        "",
        &login("//evil.example"),
    )
    .await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    // A button without any field is no loss.
    let answer = send(&collector, Method::POST, "/inventory/sync", "", "csrf=x").await;
    assert_eq!(answer.headers()[LOCATION], "/login");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_theme_is_kept_and_an_unknown_one_refused() {
    let collector = Collector::start().await;
    let answer = send(
        &collector,
        Method::POST,
        "/theme",
        "",
        "theme=dark&next=/login",
    )
    .await;
    assert_eq!(answer.headers()[LOCATION], "/login");
    let (cookie, _) = cookie(&answer);
    let page = text(&send(&collector, Method::GET, "/login", &cookie, "").await);
    assert!(page.contains("data-theme=\"dark\""), "{page}");
    let answer = send(&collector, Method::POST, "/theme", "", "theme=pink").await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_by_time_is_one_that_ended() {
    let collector = Collector::start().await;
    let (cookie, token) = session(&collector, "operator").await;
    collector.clock.advance(Duration::minutes(31));
    let form = format!("csrf={token}&from=x&dry_run=true");
    let answer = send(&collector, Method::POST, "/inventory/sync", &cookie, &form).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(text(&answer).contains("Your session is over."));
}
