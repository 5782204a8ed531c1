//! Who a login is: the same person as before, and nobody else.

use infratrack_collector::login::password;
use infratrack_collector::store::users;
use serde_json::json;
use uuid::Uuid;

use super::browser::Browser;
use super::hostile::claims;
use super::rig::{Rig, SECRET};
use super::{URL, collector, ready, sessions};
use crate::harness::Collector;

/// Logs somebody in; answers the page's status.
async fn log_in(
    rig: &Rig,
    collector: &Collector,
    subject: &str,
    name: &str,
    groups: serde_json::Value,
) -> u16 {
    let mut browser = Browser::new(collector);
    let (_, to) = browser.get("/login/oidc").await;
    let to = to.unwrap();
    let asked = |wanted: &str| {
        let mut pairs = to.query_pairs();
        pairs
            .find(|(name, _)| name == wanted)
            .unwrap()
            .1
            .into_owned()
    };
    let mut claims = claims(&rig.issuer, &asked("nonce"));
    claims["sub"] = subject.into();
    claims["preferred_username"] = name.into();
    claims.as_object_mut().unwrap().remove("groups");
    if !groups.is_null() {
        claims["groups"] = groups;
    }
    let token = rig.key().sign(&claims);
    rig.change(|ways| ways.token = token);
    let pairs = [
        ("state", asked("state")),
        ("code", "x".to_owned()),
        ("iss", rig.issuer.clone()),
    ];
    let back = format!("{URL}/login/oidc/callback");
    let back = openidconnect::url::Url::parse_with_params(&back, pairs).unwrap();
    browser.step(&back, None).await.0.status
}

async fn people(collector: &Collector) -> Vec<(String, String, bool)> {
    sqlx::query_as("select name, role, password_hash is not null from users order by name")
        .fetch_all(&collector.pool)
        .await
        .unwrap()
}

fn person(name: &str, role: &str, has_password: bool) -> (String, String, bool) {
    (name.to_owned(), role.to_owned(), has_password)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_leads_to_no_other_account_and_the_role_is_set_anew() {
    let rig = Rig::start().await;
    let collector = collector(&rig.issuer, SECRET, |_| {}).await;
    ready(&collector).await;
    let local = users::User {
        user_id: Uuid::new_v4(),
        name: "ada".to_owned(),
        role: "admin".to_owned(),
        password_hash: Some(password::hash("correct horse battery").unwrap()),
        created_at: collector.clock.now(),
        disabled_at: None,
        must_change_password: false,
    };
    let mut connection = collector.pool.acquire().await.unwrap();
    users::insert(&mut connection, &local, "test")
        .await
        .unwrap();

    assert_eq!(
        log_in(&rig, &collector, "1", "ada", json!(["staff"])).await,
        200
    );
    assert_eq!(
        log_in(&rig, &collector, "2", "Ada", json!(["sre"])).await,
        200
    );
    let expected = [
        person("ada", "admin", true),
        person("ada-2", "viewer", false),
        person("ada-3", "admin", false),
    ];
    assert_eq!(people(&collector).await, expected);
    let of_local: i64 = sqlx::query_scalar("select count(*) from sessions where user_id = $1")
        .bind(local.user_id)
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(of_local, 0);

    // Other groups, another role; another name, the same user.
    assert_eq!(
        log_in(&rig, &collector, "2", "countess", json!(["staff"])).await,
        200
    );
    let expected = [
        person("ada", "admin", true),
        person("ada-2", "viewer", false),
        person("ada-3", "viewer", false),
    ];
    assert_eq!(people(&collector).await, expected);
    let changes =
        "select string_agg(actor_name || ' ' || action, ', ' order by audit_id) from audit_log";
    let changes: String = sqlx::query_scalar(changes)
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    let expected = "ada-2 user.create, ada-2 session.begin, ada-3 user.create, ada-3 session.begin, \
                    ada-3 user.update, ada-3 session.begin";
    assert_eq!(changes, expected);
    // No password lets a user of the provider in, and none can be given to one.
    let changed = users::update_password(&mut connection, "ada-2", "x", false)
        .await
        .unwrap();
    assert_eq!(changed, 0);
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let attempt = infratrack_collector::login::attempt(&collector.server.app, "ada-2", "", address);
    let refused = infratrack_collector::login::Attempt::Refused;
    assert_eq!(
        format!("{:?}", attempt.await.unwrap()),
        format!("{refused:?}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_user_and_one_without_groups_are_refused() {
    let rig = Rig::start().await;
    let collector = collector(&rig.issuer, SECRET, |_| {}).await;
    ready(&collector).await;
    assert_eq!(
        log_in(&rig, &collector, "1", "ada", json!("sre")).await,
        200
    );
    assert_eq!(log_in(&rig, &collector, "1", "ada", json!([])).await, 403);
    let mut connection = collector.pool.acquire().await.unwrap();
    let now = Some(collector.clock.now());
    users::update_disabled(&mut connection, "ada", now)
        .await
        .unwrap();
    let before = sessions(&collector).await;
    assert_eq!(
        log_in(&rig, &collector, "1", "ada", json!("sre")).await,
        403
    );
    assert_eq!(sessions(&collector).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_not_in_the_token_are_asked_for_and_only_of_the_same_person() {
    let rig = Rig::start().await;
    let collector = collector(&rig.issuer, SECRET, |_| {}).await;
    ready(&collector).await;
    let nothing = serde_json::Value::Null;
    rig.change(|ways| ways.user_info = Some(json!({ "sub": "1", "groups": ["sre"] })));
    assert_eq!(
        log_in(&rig, &collector, "1", "ada", nothing.clone()).await,
        200
    );
    assert_eq!(people(&collector).await, [person("ada", "admin", false)]);
    assert_eq!(log_in(&rig, &collector, "2", "bob", nothing).await, 502);
    assert_eq!(rig.hits("userinfo"), 2);
    // Without need nobody asks.
    assert_eq!(
        log_in(&rig, &collector, "3", "eve", json!(["staff"])).await,
        200
    );
    assert_eq!(rig.hits("userinfo"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_role_lets_everybody_in_whom_the_provider_knows() {
    let rig = Rig::start().await;
    let collector = collector(&rig.issuer, SECRET, |config| {
        config.oidc.default_role = "viewer".to_owned();
    })
    .await;
    ready(&collector).await;
    assert_eq!(log_in(&rig, &collector, "1", "ada", json!([])).await, 200);
    assert_eq!(people(&collector).await, [person("ada", "viewer", false)]);
}
