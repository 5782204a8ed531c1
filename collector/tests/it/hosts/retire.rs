//! Retired hosts, merged hosts, deleted hosts.

use http::{Method, StatusCode};
use infratrack_agent::identity::Identity;
use infratrack_collector::agents::enroll::TokenOptions;
use serde_json::{Value, json};

use super::{ids, made, say, walk};
use crate::harness::{Collector, Host, eventually, part, refusal};

async fn post(collector: &Collector, host: &str, what: &str, body: Value) -> (StatusCode, Value) {
    let path = format!("/api/v1/hosts/{host}/{what}");
    collector.api(Method::POST, &path, &body.to_string()).await
}

/// As if the host had been silent for an hour.
async fn silence(collector: &Collector, host: &Host) {
    let sql = "update host_liveness set last_seen_at = last_seen_at - interval '1 hour' where host_id = $1";
    sqlx::query(sql)
        .bind(host.id.0)
        .execute(&collector.pool)
        .await
        .unwrap();
}

async fn beat(collector: &Collector, host: &Host) {
    let mut batch = host.batch(collector);
    batch.heartbeat = Some(host.heartbeat(collector));
    batch.parts = vec![part(collector, &[1, 2, 3])];
    host.send(collector, &batch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_host_leaves_the_lists_and_its_agent_is_refused() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let id = host.id.to_string();
    beat(&collector, &host).await;
    let (status, shown) = post(&collector, &id, "retire", json!({})).await;
    assert_eq!(status, StatusCode::OK);
    assert!(shown["retired_at"].is_string());
    assert_eq!(
        post(&collector, &id, "retire", json!({})).await.1["version"],
        shown["version"]
    );
    assert!(walk(&collector, "", 10).await.is_empty());
    assert_eq!(
        ids(&walk(&collector, "state=retired", 10).await),
        std::slice::from_ref(&id)
    );
    eventually("the refusal", || async {
        let sent = host.send(&collector, &host.batch(&collector)).await;
        sent.is_err()
            .then(|| refusal(sent))
            .filter(|(status, _)| *status == StatusCode::FORBIDDEN)
    })
    .await;
    // A token made for it brings it back only when it is no longer retired.
    let enroll = async || {
        let token = collector
            .token(TokenOptions {
                host: Some(host.id),
                ..TokenOptions::default()
            })
            .await;
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        collector
            .enroll(&identity, &token)
            .await
            .map(|enrolled| (enrolled, Host::of(identity, dir)))
    };
    assert!(enroll().await.is_err());
    assert_eq!(
        post(&collector, &id, "unretire", json!({})).await.0,
        StatusCode::OK
    );
    let (enrolled, again) = enroll().await.unwrap();
    assert_eq!(enrolled, host.id);
    beat(&collector, &again).await;
    assert_eq!(walk(&collector, "liveness=online", 10).await.len(), 1);
}

/// An entry in the operators' log of a host.
async fn add_task(collector: &Collector, host: &Host) {
    let task = "insert into tasks values (gen_random_uuid(), $1, 'patch', 'done', 't', '', now(), now(), 'a', now(), 'a')";
    let task = sqlx::query(task).bind(host.id.0);
    task.execute(&collector.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_hosts_events_and_tags_are_with_the_other() {
    let collector = Collector::start().await;
    let (old, new) = (collector.host().await, collector.host().await);
    for host in [&old, &new] {
        beat(&collector, host).await;
    }
    say(&collector, &old, 1, "facts.os", json!({"id": "debian"})).await;
    let sql = "update hosts set tags = array['a', 'b'], owner = 'alice' where host_id = $1";
    sqlx::query(sql)
        .bind(old.id.0)
        .execute(&collector.pool)
        .await
        .unwrap();
    let (from, to) = (old.id.to_string(), new.id.to_string());
    add_task(&collector, &old).await;
    let (status, problem) = post(&collector, &from, "merge", json!({"into": to})).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("agent_reports"))
    );
    silence(&collector, &old).await;
    let (status, merged) = post(&collector, &from, "merge", json!({"into": to})).await;
    assert_eq!(status, StatusCode::OK, "{merged}");
    assert_eq!(merged["id"], to);
    assert_eq!(
        (&merged["tags"], &merged["owner"]),
        (&json!(["a", "b"]), &json!("alice"))
    );
    let events = collector
        .get(&format!("/api/v1/hosts/{to}/events?limit=500"))
        .await;
    let tests = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "test");
    assert_eq!(tests.count(), 6);
    let gone = collector.get(&format!("/api/v1/hosts/{from}")).await;
    assert_eq!(gone["merged_into"], to);
    assert!(gone["retired_at"].is_string());
    let beats = collector
        .get(&format!("/api/v1/hosts/{from}/heartbeats"))
        .await;
    assert_eq!(beats["total"], 2, "heartbeats stay under the old id");
    let history = "select count(*) from fact_changes where host_id = $1";
    assert_eq!(collector.count(history, &new).await, 1);
    let tasks = "select count(*) from tasks where host_id = $1";
    assert_eq!(collector.count(tasks, &new).await, 1);
    assert_eq!(
        ids(&walk(&collector, "", 10).await),
        std::slice::from_ref(&to)
    );
    for (host, what, into, code) in [
        (&from, "merge", &to, "merged"),
        (&to, "merge", &from, "retired"),
        (&from, "unretire", &to, "merged"),
    ] {
        let (status, problem) = post(&collector, host, what, json!({"into": into})).await;
        assert_eq!(
            (status, &problem["type"]),
            (StatusCode::CONFLICT, &json!(code))
        );
    }
    assert_eq!(
        post(&collector, &to, "merge", json!({"into": to}))
            .await
            .0
            .as_u16(),
        422
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_made_by_hand_takes_over_what_an_agents_host_knew() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    say(&collector, &host, 1, "facts.os", json!({"id": "debian"})).await;
    silence(&collector, &host).await;
    let target = made(&collector, json!({"name": "kept", "tags": ["mine"]})).await;
    let id = target["id"].as_str().unwrap();
    let (status, _) = post(
        &collector,
        &host.id.to_string(),
        "merge",
        json!({"into": id}),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    let facts = collector.get(&format!("/api/v1/hosts/{id}/facts")).await;
    assert_eq!(facts["items"][0]["body"]["id"], "debian");
    assert_eq!(ids(&walk(&collector, "q=debian", 10).await), [id]);
}

/// No table has a row of `host` but for the empty one that its certificates refer to; `other` has its own.
async fn nothing_is_left(collector: &Collector, host: &Host, other: &Host) {
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_attribute a join pg_class c on c.oid = a.attrelid
         where a.attname = 'host_id' and c.relkind in ('r', 'p') and not c.relispartition order by 1",
    )
    .fetch_all(&collector.pool)
    .await
    .unwrap();
    assert!(tables.len() > 12, "{tables:?}");
    for table in tables {
        let count = async |host: &Host| -> i64 {
            let sql = format!("select count(*) from {table} where host_id = $1");
            let sql = sqlx::AssertSqlSafe(sql);
            sqlx::query_scalar(sql)
                .bind(host.id.0)
                .fetch_one(&collector.pool)
                .await
                .unwrap()
        };
        let left = i64::from(["hosts", "agent_certs"].contains(&table.as_str()));
        assert_eq!(count(host).await, left, "{table}");
        if [
            "heartbeats",
            "events",
            "facts",
            "host_liveness",
            "agent_streams",
        ]
        .contains(&table.as_str())
        {
            assert!(
                count(other).await > 0,
                "{table}: the other host's rows stay"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_deleted_host_nothing_is_left_but_the_audit_and_its_refusal() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    for host in [&host, &other] {
        beat(&collector, host).await;
        say(&collector, host, 1, "facts.os", json!({"id": "debian"})).await;
    }
    let path = format!("/api/v1/hosts/{}", host.id);
    let (status, problem) = collector.api(Method::DELETE, &path, "").await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("agent_reports"))
    );
    post(&collector, &host.id.to_string(), "retire", json!({})).await;
    assert_eq!(
        collector.api(Method::DELETE, &path, "").await.0,
        StatusCode::NO_CONTENT
    );
    nothing_is_left(&collector, &host, &other).await;
    assert_eq!(
        collector.api(Method::GET, &path, "").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        collector.api(Method::DELETE, &path, "").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ids(&walk(&collector, "state=all", 10).await),
        [other.id.to_string()]
    );
    let audit: Vec<String> =
        sqlx::query_scalar("select action from audit_log where subject_id = $1 order by 1")
            .bind(host.id.to_string())
            .fetch_all(&collector.pool)
            .await
            .unwrap();
    assert_eq!(audit, ["host.delete", "host.enroll", "host.retire"]);
    let sent = host.send(&collector, &host.batch(&collector)).await;
    assert_eq!(refusal(sent).0, StatusCode::FORBIDDEN);
    // A restart replays the log of what was issued: the host does not come back.
    let collector = collector.restarted(async |_| {}).await;
    assert_eq!(
        ids(&walk(&collector, "state=all", 10).await),
        [other.id.to_string()]
    );
}
