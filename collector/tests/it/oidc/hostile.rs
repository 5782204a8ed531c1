//! Whatever a token or an answer claims, it is not believed without reason.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::header::LOCATION;
use infratrack_collector::clock::Clock;
use openidconnect::url::Url;
use serde_json::{Value, json};
use sha2::Sha256;

use super::browser::{Browser, Page};
use super::rig::{Key, Rig, SECRET, signed_part};
use super::{URL, collector, ready, sessions};
use crate::harness::{Collector, eventually};

/// Claims that are as they should be.
pub(super) fn claims(issuer: &str, nonce: &str) -> Value {
    let now = Clock::system().now().unix_timestamp();
    json!({
        "iss": issuer, "aud": "infratrack", "sub": "1", "nonce": nonce, "iat": now, "exp": now + 300,
        "auth_time": now, "preferred_username": "mallory", "groups": ["sre"],
    })
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

async fn start() -> (Rig, Collector) {
    let rig = Rig::start().await;
    let collector = collector(&rig.issuer, SECRET, |_| {}).await;
    ready(&collector).await;
    (rig, collector)
}

fn asked(url: &Url, wanted: &str) -> String {
    let mut pairs = url.query_pairs();
    pairs
        .find(|(name, _)| name == wanted)
        .unwrap()
        .1
        .into_owned()
}

fn callback(pairs: &[(&str, &str)]) -> Url {
    Url::parse_with_params(&format!("{URL}/login/oidc/callback"), pairs).unwrap()
}

/// A login that the provider answers with the token that is made of good claims.
async fn log_in(rig: &Rig, browser: &mut Browser, token: impl FnOnce(Value) -> String) -> Page {
    let (_, to) = browser.get("/login/oidc").await;
    let to = to.unwrap();
    assert_eq!(asked(&to, "code_challenge_method"), "S256");
    let token = token(claims(&rig.issuer, &asked(&to, "nonce")));
    rig.change(|ways| ways.token = token);
    let back = callback(&[
        ("state", &asked(&to, "state")),
        ("code", "x"),
        ("iss", &rig.issuer),
    ]);
    browser.step(&back, None).await.0
}

/// HMAC, as `alg` HS256 has it.
fn hs256(header: &Value, claims: &Value, key: &[u8]) -> String {
    let input = signed_part(header, claims);
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    let mac = mac.chain_update(&input).finalize().into_bytes();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(mac))
}

type Forgery = (&'static str, &'static str, fn(&Key, Value) -> String);

/// What is forged, what is said of it, and how.
const FORGERIES: &[Forgery] = &[
    ("another issuer", "Invalid issuer", |key, good| {
        key.sign(&with(good, "iss", "https://login.example.org"))
    }),
    ("another audience", "Invalid audiences", |key, good| {
        key.sign(&with(good, "aud", "somebody-else"))
    }),
    (
        "an audience beside us",
        "not a trusted audience",
        |key, good| key.sign(&with(good, "aud", json!(["infratrack", "somebody-else"]))),
    ),
    ("another party", "made for another party", |key, good| {
        key.sign(&with(good, "azp", "somebody-else"))
    }),
    ("another nonce", "nonce mismatch", |key, good| {
        key.sign(&with(good, "nonce", "another"))
    }),
    ("no nonce", "missing nonce", |key, good| {
        key.sign(&with(good, "nonce", Value::Null))
    }),
    ("expired", "Expired", |key, good| {
        let exp = good["iat"].as_i64().unwrap() - 1;
        key.sign(&with(good, "exp", exp))
    }),
    (
        "issued in the future",
        "issued in the future",
        |key, good| {
            let iat = good["iat"].as_i64().unwrap() + 120;
            key.sign(&with(good, "iat", iat))
        },
    ),
    (
        "issued long ago",
        "issued before this login began",
        |key, good| {
            let iat = good["iat"].as_i64().unwrap() - 120;
            key.sign(&with(good, "iat", iat))
        },
    ),
    ("not valid yet", "not valid yet", |key, good| {
        let nbf = good["iat"].as_i64().unwrap() + 120;
        key.sign(&with(good, "nbf", nbf))
    }),
    ("alg none", "", |key, good| {
        format!(
            "{}.",
            signed_part(&json!({ "alg": "none", "kid": key.id }), &good)
        )
    }),
    ("alg none with a signature", "", |_, good| {
        format!("{}.AAAA", signed_part(&json!({ "alg": "none" }), &good))
    }),
    (
        "HS256 with our secret",
        "Disallowed signature algorithm",
        |_, good| hs256(&json!({ "alg": "HS256" }), &good, SECRET.as_bytes()),
    ),
    (
        "HS256 with the public key",
        "Disallowed signature algorithm",
        |key, good| {
            hs256(
                &json!({ "alg": "HS256", "kid": key.id }),
                &good,
                key.public(),
            )
        },
    ),
    (
        "a stranger's key of the same name",
        "Signature verification failed",
        |key, good| Key::new(&key.id).sign(&good),
    ),
    ("a key nobody knows", "No matching key", |_, good| {
        Key::new("nobody's").sign(&good)
    }),
    (
        "other claims under a good signature",
        "Signature verification failed",
        |key, good| {
            let signed = key.sign(&good);
            let (_, signature) = signed.rsplit_once('.').unwrap();
            let header = json!({ "alg": "ES256", "kid": key.id });
            format!(
                "{}.{signature}",
                signed_part(&header, &with(good, "sub", "2"))
            )
        },
    ),
    ("no token at all", "", |_, _| "nonsense".to_owned()),
    ("nobody", "", |key, good| {
        key.sign(&with(good, "sub", Value::Null))
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_token_begins_a_session() {
    let (rig, collector) = start().await;
    let mut browser = Browser::new(&collector);
    for (what, message, forge) in FORGERIES {
        let page = log_in(&rig, &mut browser, |good| forge(&rig.key(), good)).await;
        assert!([403, 502].contains(&page.status), "{what}: {}", page.status);
        assert!(page.text.contains(message), "{what}: {}", page.text);
        assert!(page.set_cookies.is_empty(), "{what}");
    }
    assert_eq!(sessions(&collector).await, 0);
    let users: i64 = sqlx::query_scalar("select count(*) from users")
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(users, 0);
    // The rig can do it right: that the forgeries failed was their fault.
    let page = log_in(&rig, &mut browser, |good| rig.key().sign(&good)).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(sessions(&collector).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_session_at_the_provider_is_no_proof_for_what_matters_most() {
    let (rig, collector) = start().await;
    let mut browser = Browser::new(&collector);
    let an_hour_ago = |good: Value| {
        let at = good["iat"].as_i64().unwrap() - 3600;
        with(good, "auth_time", at)
    };
    let key = rig.key();
    log_in(&rig, &mut browser, |good| key.sign(&an_hour_ago(good))).await;
    let (page, _) = browser.get("/step-up?next=/hosts").await;
    let link = "href=\"/login/oidc?again=1&amp;next=%2Fhosts\"";
    assert!(page.text.contains(link), "{}", page.text);
    let stale: bool = sqlx::query_scalar("select authenticated_at < $1 from sessions")
        .bind(collector.clock.now() - time::Duration::minutes(59))
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert!(stale);

    // A provider that asks nobody again is not believed.
    let (_, to) = browser.get("/login/oidc?again=1&next=/hosts").await;
    let to = to.unwrap();
    assert_eq!(
        (asked(&to, "prompt"), asked(&to, "max_age")),
        ("login".to_owned(), "0".to_owned())
    );
    let good = claims(&rig.issuer, &asked(&to, "nonce"));
    rig.change(|ways| ways.token = key.sign(&an_hour_ago(good)));
    let back = callback(&[
        ("state", &asked(&to, "state")),
        ("code", "x"),
        ("iss", &rig.issuer),
    ]);
    let page = browser.step(&back, None).await.0;
    assert_eq!(page.status, 403);
    assert!(
        page.text.contains("did not ask again who it is"),
        "{}",
        page.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_learned_without_a_restart_and_the_old_one_forgotten() {
    let (rig, collector) = start().await;
    let mut browser = Browser::new(&collector);
    let (old, new) = (rig.key(), Key::new("second"));
    let page = log_in(&rig, &mut browser, |good| old.sign(&good)).await;
    assert_eq!(page.status, 200);
    let fetched = rig.hits("jwks");
    rig.change(|ways| ways.keys = vec![new.clone()]);
    let page = log_in(&rig, &mut browser, |good| new.sign(&good)).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(rig.hits("jwks"), fetched + 1);

    let page = log_in(&rig, &mut browser, |good| old.sign(&good)).await;
    assert_eq!(page.status, 403);
    assert!(page.text.contains("No matching key"), "{}", page.text);
    // Keys that nobody has don't make us ask all the time, only after half a minute.
    assert_eq!(rig.hits("jwks"), fetched + 1);
    collector.clock.advance(time::Duration::seconds(31));
    let page = log_in(&rig, &mut browser, |good| old.sign(&good)).await;
    assert_eq!(page.status, 403);
    assert_eq!(rig.hits("jwks"), fetched + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_belongs_to_the_browser_the_login_and_the_provider_that_it_is_for() {
    let (rig, collector) = start().await;
    let mut browser = Browser::new(&collector);
    let (_, to) = browser.get("/login/oidc").await;
    let to = to.unwrap();
    let key = rig.key();
    let token = key.sign(&claims(&rig.issuer, &asked(&to, "nonce")));
    rig.change(|ways| ways.token = token);
    let state = asked(&to, "state");
    let good = callback(&[("state", &state), ("code", "x"), ("iss", &rig.issuer)]);

    let mut other = Browser::new(&collector);
    let none = other.step(&good, None).await.0;
    other.get("/login/oidc").await;
    let anothers = other.step(&good, None).await.0;
    let without = callback(&[("code", "x"), ("iss", &rig.issuer)]);
    let missing = browser.step(&without, None).await.0;
    let twice = Url::parse(&format!("{good}&state=x")).unwrap();
    let twice = browser.step(&twice, None).await.0;
    for page in [none, anothers, missing, twice] {
        assert_eq!(page.status, 400);
        assert!(
            page.text.contains("begun in another browser"),
            "{}",
            page.text
        );
    }
    // Another provider's answer (RFC 9207), and one that does not say whose it is.
    assert_eq!(rig.hits("token"), 0);
    for iss in [Some("https://login.example.org"), None] {
        let (_, to) = browser.get("/login/oidc").await;
        let state = asked(&to.unwrap(), "state");
        let mut pairs = vec![("state", state.as_str()), ("code", "x")];
        pairs.extend(iss.map(|iss| ("iss", iss)));
        let page = browser.step(&callback(&pairs), None).await.0;
        assert_eq!(page.status, 400);
        assert!(
            page.text.contains("another login provider"),
            "{}",
            page.text
        );
    }
    // No code left us for a stranger.
    assert_eq!(rig.hits("token"), 0);

    // After ten minutes it is over.
    let (_, to) = browser.get("/login/oidc").await;
    let state = asked(&to.unwrap(), "state");
    collector.clock.advance(time::Duration::minutes(10));
    let late = callback(&[("state", &state), ("code", "x"), ("iss", &rig.issuer)]);
    assert_eq!(browser.step(&late, None).await.0.status, 400);
    assert_eq!(sessions(&collector).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_refusal_is_told_in_our_words() {
    let (rig, collector) = start().await;
    let mut browser = Browser::new(&collector);
    for (error, words) in [
        ("access_denied", "you declined, or may not use Infratrack"),
        ("<script>alert(1)</script>", "it gave no reason"),
    ] {
        let (_, to) = browser.get("/login/oidc").await;
        let state = asked(&to.unwrap(), "state");
        let back = callback(&[
            ("state", &state),
            ("error", error),
            ("error_description", "<b>call 555</b>"),
            ("iss", &rig.issuer),
        ]);
        let page = browser.step(&back, None).await.0;
        assert_eq!(page.status, 403);
        assert!(page.text.contains(words), "{}", page.text);
        assert!(!page.text.contains("alert(1)") && !page.text.contains("555"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_under_way_are_bounded_by_address() {
    let (_rig, collector) = start().await;
    let mut browser = Browser::new(&collector);
    for _ in 0..20 {
        assert_eq!(browser.get("/login/oidc").await.0.status, 303);
    }
    assert_eq!(browser.get("/login/oidc").await.0.status, 429);
    collector.clock.advance(time::Duration::minutes(11));
    assert_eq!(browser.get("/login/oidc").await.0.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_never_ends_on_another_site() {
    let (rig, collector) = start().await;
    let mut browser = Browser::new(&collector);
    for next in [
        "//evil.example",
        "%2F%2Fevil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
        "https://evil.example",
    ] {
        let (_, to) = browser.get(&format!("/login/oidc?next={next}")).await;
        let to = to.unwrap();
        let token = rig.key().sign(&claims(&rig.issuer, &asked(&to, "nonce")));
        rig.change(|ways| ways.token = token);
        let state = asked(&to, "state");
        let back = callback(&[("state", &state), ("code", "x"), ("iss", &rig.issuer)]);
        let page = browser.step(&back, None).await.0;
        assert!(
            page.text.contains("content=\"0;url=/hosts\""),
            "{next}: {}",
            page.text
        );
        assert!(!page.text.contains("evil"), "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_at_start_is_found_when_it_comes() {
    let rig = Rig::start().await;
    let address = rig.issuer.strip_prefix("http://").unwrap().parse().unwrap();
    let issuer = rig.issuer.clone();
    drop(rig);
    let collector = collector(&issuer, SECRET, |_| {}).await;
    let mut browser = Browser::new(&collector);
    let page = browser.get("/login").await.0;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("unavailable"), "{}", page.text);
    assert!(!page.text.contains("href=\"/login/oidc\""));
    assert_eq!(browser.get("/login/oidc").await.0.status, 503);
    let _rig = Rig::start_on(address).await;
    ready(&collector).await;
    assert_eq!(browser.get("/login/oidc").await.0.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_too_long_from_elsewhere_or_of_another_issuer_are_not_taken() {
    let rig = Rig::start().await;
    let long = || axum::response::IntoResponse::into_response("x".repeat(1024 * 1024 + 1));
    let elsewhere = || {
        let to = [(LOCATION, "/stolen")];
        axum::response::IntoResponse::into_response((http::StatusCode::FOUND, to))
    };
    rig.change(|ways| ways.instead = Some(long));
    let collector = collector(&rig.issuer, SECRET, |_| {}).await;
    let provider = collector.server.app.oidc.as_ref().unwrap();
    let refused = async || format!("{:#}", provider.discover().await.unwrap_err());
    let error = refused().await;
    assert!(error.contains("longer than 1048576 bytes"), "{error}");
    rig.change(|ways| ways.instead = Some(elsewhere));
    let error = refused().await;
    assert!(error.contains("302"), "{error}");
    assert_eq!(rig.hits("/stolen"), 0);
    rig.change(|ways| {
        ways.instead = None;
        ways.metadata["issuer"] = "https://login.example.org".into();
    });
    let error = refused().await;
    assert!(error.contains("unexpected issuer"), "{error}");
    assert!(!provider.is_available());
    let issuer = rig.issuer.clone();
    rig.change(|ways| ways.metadata["issuer"] = issuer.into());
    eventually("it is learned", async || provider.discover().await.ok()).await;
    assert!(provider.is_available());
}
