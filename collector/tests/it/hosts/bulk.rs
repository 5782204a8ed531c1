//! One action on all hosts that match: said before it is done, bounded, and written down.

use http::{Method, StatusCode};
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use serde_json::{Value, json};

use super::{call, fleet, ids, json as document, walk};
use crate::harness::Collector;

/// What an operator can edit of all hosts: what the liveness job writes is left out.
const EDITED: &str = "state=all&fields=id,name,owner,tags,environment,version";

async fn bulk(collector: &Collector, body: &Value) -> (StatusCode, Value) {
    collector
        .api(Method::POST, "/api/v1/hosts/bulk", &body.to_string())
        .await
}

async fn audited(collector: &Collector) -> i64 {
    sqlx::query_scalar("select count(*) from audit_log")
        .fetch_one(&collector.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_the_run_does() {
    let collector = Collector::start().await;
    // More than two transactions of them.
    fleet(&collector, 8, 2500).await;
    let prod = "environment=prod&fields=id,name,owner,tags,environment,version";
    let before = walk(&collector, prod, 500).await;
    let action = json!({"add_tags": ["moved"], "remove_tags": ["dc:1"], "set": {"owner": "carol"}});
    let mut body = json!({"filter": {"environment": "prod"}, "action": action, "dry_run": true,
                          "expected_total": before.len()});
    let (status, said) = bulk(&collector, &body).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!(
        (&said["matched"], &said["changed"]),
        (&json!(before.len()), &json!(before.len()))
    );
    assert_eq!(walk(&collector, prod, 500).await, before);
    assert_eq!(audited(&collector).await, 0);
    body["dry_run"] = json!(false);
    let (_, mut done) = bulk(&collector, &body).await;
    done["dry_run"] = json!(true);
    assert_eq!(done, said);
    let changed = walk(&collector, "tag=moved", 500).await;
    assert_eq!(ids(&changed), ids(&before));
    assert!(
        changed
            .iter()
            .all(|host| host["owner"] == "carol" && host["version"] == 2)
    );
    assert!(
        walk(&collector, "environment=prod&tag=dc:1", 500)
            .await
            .is_empty()
    );
    assert_eq!(
        audited(&collector).await,
        i64::try_from(before.len()).unwrap()
    );
    // Once more it changes nothing.
    let (_, again) = bulk(&collector, &body).await;
    assert_eq!(
        (&again["changed"], &again["unchanged"]),
        (&json!(0), &json!(before.len()))
    );
    assert_eq!(
        audited(&collector).await,
        i64::try_from(before.len()).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_total_than_expected_changes_nothing() {
    let collector = Collector::start().await;
    fleet(&collector, 9, 30).await;
    let before = walk(&collector, EDITED, 500).await;
    let body = json!({"filter": {"state": "all"}, "action": {"set": {"owner": "x"}}, "expected_total": 29});
    let (status, problem) = bulk(&collector, &body).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("total_differs"))
    );
    assert_eq!(walk(&collector, EDITED, 500).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_cannot_change_are_named_and_the_others_change() {
    let collector = Collector::start().await;
    fleet(&collector, 10, 40).await;
    let sql =
        "update hosts set tags = (select array_agg('t' || i) from generate_series(1, 64) as i)
               where host_id in (select host_id from hosts order by host_id limit 25)";
    sqlx::query(sql).execute(&collector.pool).await.unwrap();
    let body = json!({"filter": {"state": "all"}, "action": {"add_tags": ["one-more"]}});
    let (status, done) = bulk(&collector, &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&done["matched"], &done["changed"], &done["failed_total"]),
        (&json!(40), &json!(15), &json!(25))
    );
    assert_eq!(done["failed"].as_array().unwrap().len(), 20);
    assert_eq!(
        walk(&collector, "state=all&tag=one-more", 500).await.len(),
        15
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn to_retire_many_needs_a_lead() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let body = json!({"filter": {}, "action": {"retire": true}}).to_string();
    for (role, expected) in [
        (Role::Viewer, 403),
        (Role::Operator, 403),
        (Role::Lead, 200),
    ] {
        let mut connection = collector.pool.acquire().await.unwrap();
        let new = NewToken::of_role(role.name(), role, "test");
        let now = collector.clock.now();
        let (_, token) = token::create(&mut connection, &new, now).await.unwrap();
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let answer = call(
            &collector,
            Method::POST,
            "/api/v1/hosts/bulk",
            &headers,
            &body,
        )
        .await;
        assert_eq!(
            answer.status().as_u16(),
            expected,
            "{role:?}: {}",
            document(&answer)
        );
    }
    let valid = "select count(*) from agent_certs where host_id = $1 and revoked_at is null";
    assert_eq!(collector.count(valid, &host).await, 0);
    assert_eq!(walk(&collector, "state=retired", 10).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_an_action_is_named() {
    let collector = Collector::start().await;
    for (body, pointer) in [
        (json!({"filter": {}, "action": {}}), "/action"),
        (json!({"filter": {}}), "/action"),
        (json!({"action": {"retire": true}}), "/filter"),
        (
            json!({"filter": {"colour": "red"}, "action": {"retire": true}}),
            "/filter/colour",
        ),
        (
            json!({"filter": {"status": "fine"}, "action": {"retire": true}}),
            "/filter/status",
        ),
        (
            json!({"filter": {"limit": 5}, "action": {"retire": true}}),
            "/filter/limit",
        ),
        (
            json!({"filter": {}, "action": {"add_tags": ["a b"]}}),
            "/action/add_tags/0",
        ),
        (
            json!({"filter": {}, "action": {"add_tags": ["a"], "remove_tags": ["a"]}}),
            "/action/remove_tags",
        ),
        (
            json!({"filter": {}, "action": {"set": {"name": "x"}}}),
            "/action/set/name",
        ),
        (
            json!({"filter": {}, "action": {"set": {"owner": "x".repeat(129)}}}),
            "/action/set/owner",
        ),
    ] {
        let (status, problem) = bulk(&collector, &body).await;
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
