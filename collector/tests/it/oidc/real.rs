//! Logins by a real provider, with its forms.

use http::Method;
use infratrack_testkit::provider::{CLIENT_SECRET, Provider};
use openidconnect::url::Url;

use super::browser::Browser;
use super::{URL, collector, ready, sessions};
use crate::harness::Collector;

async fn start() -> (Provider, Collector) {
    let callback = format!("{URL}/login/oidc/callback");
    let provider = tokio::task::spawn_blocking(move || Provider::start(&callback));
    let provider = provider.await.unwrap().unwrap();
    let collector = collector(&provider.issuer, CLIENT_SECRET, |_| {}).await;
    ready(&collector).await;
    (provider, collector)
}

async fn is_in(browser: &mut Browser) -> bool {
    browser.get("/hosts").await.0.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_a_real_provider_begins_a_session_with_the_role_of_the_groups() {
    let (_provider, collector) = start().await;
    let mut browser = Browser::new(&collector);
    let (login, _) = browser.get("/login").await;
    assert!(
        login.text.contains("href=\"/login/oidc\""),
        "{}",
        login.text
    );

    let way = "/login/oidc?next=%2Fhosts%3Fq%3Dx%26y";
    let (page, forms) = browser.log_in(way, "ada.staff.sre", false).await;
    assert_eq!(forms, ["login", "consent"]);
    assert_eq!(
        (page.status, page.url.path()),
        (200, "/login/oidc/callback")
    );
    // A redirect would be made without the session's cookie: browsers keep a Strict one back there.
    let refresh = "<meta http-equiv=\"refresh\" content=\"0;url=/hosts?q=x&#38;y\">";
    assert!(page.text.contains(refresh), "{}", page.text);
    assert!(!page.text.contains("<script>"));
    let session = &page.set_cookies[0];
    assert!(session.starts_with("__Host-infratrack="), "{session}");
    assert!(
        session.contains("; HttpOnly; SameSite=Strict; "),
        "{session}"
    );
    assert!(is_in(&mut browser).await);
    // What bound the login to this browser is gone.
    assert!(browser.cookie("__Host-infratrack-oidc").is_none());

    let row: (String, String, Option<String>, String, String) = sqlx::query_as(
        "select u.name, u.role, u.password_hash, i.issuer, i.subject from users u join user_identities i using (user_id)",
    )
    .fetch_one(&collector.pool)
    .await
    .unwrap();
    let issuer = collector.server.app.config.oidc.issuer.clone();
    let name = "ada.staff.sre".to_owned();
    assert_eq!(row, (name.clone(), "admin".to_owned(), None, issuer, name));

    // The second time is the same user, whom the provider knows by its own session.
    browser.forget("__Host-infratrack");
    let (page, forms) = browser.log_in("/login/oidc", "nobody", false).await;
    assert_eq!((page.status, forms.len()), (200, 0));
    let users: i64 = sqlx::query_scalar("select count(*) from users")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(users, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_no_group_is_told_which_would_do() {
    let (_provider, collector) = start().await;
    let mut browser = Browser::new(&collector);
    let (page, _) = browser.log_in("/login/oidc", "bob.guests", false).await;
    assert_eq!(page.status, 403);
    let words = "You are in none of the groups that may log in here: sre, staff.";
    assert!(page.text.contains(words), "{}", page.text);
    assert_eq!(sessions(&collector).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_again_asks_for_the_password_again_and_only_the_same_user_may_finish_it() {
    let (_provider, collector) = start().await;
    let mut browser = Browser::new(&collector);
    let refused = browser.get("/login/oidc?again=1").await.0;
    assert_eq!(refused.status, 403);
    browser.log_in("/login/oidc", "ada.sre", false).await;
    let before = browser.cookie("__Host-infratrack").unwrap().clone();
    let (page, forms) = browser
        .log_in("/login/oidc?again=1&next=/hosts", "ada.sre", false)
        .await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(forms, ["login"]);
    assert_ne!(*browser.cookie("__Host-infratrack").unwrap(), before);
    assert!(is_in(&mut browser).await);
    // The session before has ended with it.
    assert_eq!(sessions(&collector).await, 1);

    let (page, _) = browser
        .log_in("/login/oidc?again=1", "eve.sre", false)
        .await;
    assert_eq!(page.status, 403);
    assert!(page.text.contains("as somebody else"), "{}", page.text);
    assert_eq!(sessions(&collector).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_and_a_code_are_good_once_and_a_code_only_with_its_verifier() {
    let (provider, collector) = start().await;
    let mut browser = Browser::new(&collector);
    let (at, _) = browser.log_in("/login/oidc", "ada.sre", true).await;
    let callback = at.url;
    assert_eq!(callback.path(), "/login/oidc/callback");
    let cookie = browser.cookie("__Host-infratrack-oidc").unwrap().clone();
    let (done, _) = browser.step(&callback, None).await;
    assert_eq!(done.status, 200);
    assert_eq!(sessions(&collector).await, 1);

    // The same address again, by who has the cookie too.
    let mut thief = Browser::new(&collector);
    thief.get("/login/oidc").await;
    *thief.cookie("__Host-infratrack-oidc").unwrap() = cookie;
    let (replayed, _) = thief.step(&callback, None).await;
    assert_eq!(replayed.status, 400);
    assert!(
        replayed.text.contains("finished already"),
        "{}",
        replayed.text
    );

    // The used code under a state of the thief's own.
    let code = |url: &Url| {
        let mut pairs = url.query_pairs();
        pairs
            .find(|(name, _)| name == "code")
            .unwrap()
            .1
            .into_owned()
    };
    let (_, to) = thief.get("/login/oidc").await;
    let to = to.unwrap();
    let (_, state) = to.query_pairs().find(|(name, _)| name == "state").unwrap();
    let mut forged = callback.clone();
    forged
        .query_pairs_mut()
        .clear()
        .append_pair("state", &state)
        .append_pair("code", &code(&callback))
        .append_pair("iss", &provider.issuer);
    let (replayed, _) = thief.step(&forged, None).await;
    assert_eq!(replayed.status, 502);
    assert!(replayed.text.contains("invalid_grant"), "{}", replayed.text);
    assert_eq!(sessions(&collector).await, 1);

    // A fresh code, by who has even our secret, but not what the challenge was made of.
    let (at, _) = Browser::new(&collector)
        .log_in("/login/oidc", "ada.sre", true)
        .await;
    for verifier in [
        "",
        "&code_verifier=0123456789012345678901234567890123456789012",
    ] {
        let body = format!(
            "grant_type=authorization_code&code={}&redirect_uri={URL}/login/oidc/callback{verifier}",
            code(&at.url)
        );
        let answer = token_request(&provider, &body).await;
        assert_eq!(answer.0, 400, "{}", answer.1);
        assert!(answer.1.contains("invalid_grant"), "{}", answer.1);
    }
}

async fn token_request(provider: &Provider, body: &str) -> (u16, String) {
    use base64::Engine;
    use http_body_util::{BodyExt, Full};
    let encoded = "infratrack:a+secret%3A+of+the+rig%2F%2B%25";
    let credentials = base64::engine::general_purpose::STANDARD.encode(encoded);
    let address = provider.issuer.strip_prefix("http://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(Method::POST)
        .uri("/token")
        .header("host", address)
        .header("authorization", format!("Basic {credentials}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(bytes::Bytes::from(body.to_owned())));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_gone_costs_a_message_and_no_session() {
    let (mut provider, collector) = start().await;
    let mut browser = Browser::new(&collector);
    let (at, _) = browser.log_in("/login/oidc", "ada.sre", true).await;
    provider.kill().unwrap();
    let (page, _) = browser.step(&at.url, None).await;
    assert_eq!(page.status, 503);
    assert!(page.text.contains("can&#39;t be reached"), "{}", page.text);
    assert_eq!(sessions(&collector).await, 0);
}
