//! What people, agents and programs do is in the audit log, and `GET /api/v1/audit` finds it.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use infratrack_collector::agents::enroll::TokenOptions;
use serde_json::{Value, json};

use crate::harness::{Collector, eventually};

async fn audit(collector: &Collector, query: &str) -> Vec<Value> {
    let page = collector.get(&format!("/api/v1/audit?{query}")).await;
    page["items"].as_array().unwrap().clone()
}

/// The one row that matches.
async fn only(collector: &Collector, query: &str) -> Value {
    let rows = audit(collector, query).await;
    assert_eq!(rows.len(), 1, "{query}: {rows:?}");
    rows[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_a_host_is_recorded_with_who_did_it_and_from_where() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let path = format!("/api/v1/hosts/{}", host.id);
    let command = r#"{"action": "refresh_facts"}"#;
    let (status, _) = collector
        .api(Method::POST, &format!("{path}/commands"), command)
        .await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, _) = collector
        .api(Method::POST, &format!("{path}/revoke"), "")
        .await;
    assert_eq!(status, StatusCode::OK);
    let (status, made) = collector
        .api(
            Method::POST,
            "/api/v1/enroll-tokens",
            r#"{"tags": ["web"]}"#,
        )
        .await;
    assert_eq!(status, StatusCode::CREATED);

    let enrolled = only(&collector, "action=host.enroll").await;
    assert_eq!(enrolled["actor_kind"], "agent");
    assert_eq!(enrolled["actor_address"], "127.0.0.1");
    assert_eq!(enrolled["subject_id"], host.id.to_string());
    assert_eq!(enrolled["after"]["hostname"], "test-host");
    let revoked = only(&collector, &format!("subject_id={}&actor=test", host.id)).await;
    assert_eq!(revoked["action"], "host.revoke");
    assert_eq!(revoked["actor_kind"], "token");
    assert_eq!(revoked["after"], json!({"revoked": 1}));
    let commanded = only(&collector, "action=command.create&actor=test").await;
    assert_eq!(commanded["after"]["host"], host.id.to_string());
    let request = commanded["request_id"].as_str().unwrap();
    let same = only(&collector, &format!("request_id={request}")).await;
    assert_eq!(same["id"], commanded["id"]);
    let token = only(
        &collector,
        "action=enroll_token.create&actor=test&subject_kind=enroll_token&limit=1",
    )
    .await;
    assert_eq!(token["subject_id"], made["id"]);
    assert_eq!(token["after"]["tags"], json!(["web"]));
    let secret = made["token"].as_str().unwrap();
    assert!(!token.to_string().contains(secret), "{token}");
    // Each is sealed soon.
    eventually("the seals", || async {
        let rows = audit(&collector, "").await;
        rows.iter().all(|row| row["seal"].is_i64()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_comes_newest_first_in_pages_and_whole_as_lines() {
    let collector = Collector::start().await;
    for number in 0..7 {
        collector.clock.advance(time::Duration::minutes(1));
        let tags = vec![format!("tag-{number}")];
        let options = TokenOptions {
            tags,
            ..TokenOptions::default()
        };
        collector.token(options).await;
    }
    let tags = |rows: &[Value]| -> Vec<String> {
        let tag = |row: &Value| row["after"]["tags"][0].as_str().unwrap().to_owned();
        rows.iter().map(tag).collect()
    };
    let query = "action=enroll_token.create";
    let first = collector
        .get(&format!("/api/v1/audit?{query}&limit=4"))
        .await;
    assert_eq!(first["total"], 7);
    let mut seen = first["items"].as_array().unwrap().clone();
    let cursor = first["next_cursor"].as_str().unwrap();
    seen.extend(audit(&collector, &format!("{query}&limit=4&cursor={cursor}")).await);
    let expected: Vec<_> = (0..7).rev().map(|number| format!("tag-{number}")).collect();
    assert_eq!(tags(&seen), expected);
    let (from, to) = (
        seen[4]["at"].as_str().unwrap(),
        seen[2]["at"].as_str().unwrap(),
    );
    let between = audit(&collector, &format!("{query}&from={from}&to={to}")).await;
    assert_eq!(tags(&between), ["tag-3", "tag-2"]);

    let request = Request::builder()
        .uri(format!("/api/v1/audit?{query}&format=ndjson"))
        .header("host", "test")
        .header("authorization", format!("Bearer {}", collector.admin_token))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = collector.request(request).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = String::from_utf8(response.body().to_vec()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(tags(&lines), expected);
    for refused in ["limit=501", "cursor=x", "from=yesterday", "actr=x"] {
        let path = format!("/api/v1/audit?{refused}");
        let (status, _) = collector.api(Method::GET, &path, "").await;
        assert!(status.is_client_error(), "{refused}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_longer_than_a_page_and_a_filter_needs_no_scan() {
    let collector = Collector::start().await;
    sqlx::query(
        "insert into audit_log (at, actor_kind, actor_name, action, subject_kind, subject_id)
         select now() + n * interval '1 second', 'job', 'test-' || n % 500, 'test.' || n % 100, 'test', n::text
         from generate_series(1, 20000) n",
    )
    .execute(&collector.pool)
    .await
    .unwrap();
    sqlx::query("analyze audit_log")
        .execute(&collector.pool)
        .await
        .unwrap();
    let request = Request::builder()
        .uri("/api/v1/audit?subject_kind=test&format=ndjson")
        .header("host", "test")
        .header("authorization", format!("Bearer {}", collector.admin_token))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = collector.request(request).await;
    let text = String::from_utf8(response.body().to_vec()).unwrap();
    assert_eq!(text.lines().count(), 20_000);
    for filter in [
        "actor_name = 'test-7'",
        "action = 'test.7'",
        "subject_kind = 'test' and subject_id = '7'",
        "request_id = 'x'",
        "at >= now() and at < now() + interval '1 minute'",
        "true",
    ] {
        let sql = format!(
            "explain select * from audit_log l left join audit_seals s using (audit_id) where {filter}
             order by at desc, l.audit_id desc limit 50"
        );
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&collector.pool)
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(!plan.contains("Seq Scan on audit_log"), "{filter}: {plan}");
    }
}
