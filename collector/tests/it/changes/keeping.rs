//! How long changes are there, what becomes of plays that nobody hears of, and what is counted of all that is posted.

use std::sync::Arc;

use http::{Method, StatusCode};
use infratrack_collector::blob::Key;
use infratrack_collector::jobs::{change_retention, fleet_metrics, interrupted_plays};
use serde_json::json;
use time::Duration;
use uuid::Uuid;

use crate::harness::Collector;
use crate::hosts::call;

const PLAN: &str = r#"{"format_version":"1.2","resource_changes":[]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn changes_past_their_retention_go_with_what_could_be_downloaded() {
    let collector = Collector::start().await;
    let app = &collector.server.app;
    let answer = call(&collector, Method::POST, "/ingest/terraform", &[], PLAN).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let taken: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    let key = format!("artifacts/{}.json", taken["run_id"].as_str().unwrap());
    let key = Key::new(key).unwrap();
    let at = collector.clock.now();
    let at = at
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let written =
        json!({"title": "A disk was swapped", "started_at": at, "ended_at": at}).to_string();
    let answer = call(&collector, Method::POST, "/api/v1/changes", &[], &written).await;
    assert_eq!(answer.status(), StatusCode::CREATED, "{answer:?}");
    change_retention::run(Arc::clone(app)).await.unwrap();
    assert_eq!(collector.get("/api/v1/changes").await["total"], 2);
    assert!(app.blob.find(&key).await.unwrap().is_some());
    collector.clock.advance(Duration::days(731));
    change_retention::run(Arc::clone(app)).await.unwrap();
    let left: i64 = sqlx::query_scalar(
        "select (select count(*) from change_runs) + (select count(*) from changes)",
    )
    .fetch_one(&collector.pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
    assert!(app.blob.find(&key).await.unwrap().is_none());
    // One row for all, and none where nothing was deleted.
    change_retention::run(Arc::clone(app)).await.unwrap();
    let told: Vec<(String, serde_json::Value)> =
        sqlx::query_as("select actor_name, before from audit_log where action = 'change.expire'")
            .fetch_all(&collector.pool)
            .await
            .unwrap();
    let counts = json!({"changes": 2, "by_hand": 1, "artifacts": 1});
    assert_eq!(told, [("change_retention".to_owned(), counts)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_play_that_nobody_hears_of_was_interrupted_until_somebody_does() {
    let collector = Collector::start().await;
    let app = &collector.server.app;
    let run = Uuid::new_v4();
    let now = collector.clock.now();
    let at = now
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let post = async |first_seq: u32, record: serde_json::Value| {
        let body = json!({"run": run, "first_seq": first_seq, "records": [record]}).to_string();
        let answer = call(&collector, Method::POST, "/ingest/ansible", &[], &body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    };
    let outcome = async || {
        let list = collector.get("/api/v1/changes").await;
        list["items"][0]["outcome"].as_str().unwrap().to_owned()
    };
    let close = async || {
        let mut connection = collector.pool.acquire().await.unwrap();
        interrupted_plays::run(app, &mut connection).await.unwrap();
    };
    post(
        1,
        json!({"kind": "start", "at": at, "format": 1, "playbook": "site.yml"}),
    )
    .await;
    collector.clock.advance(Duration::hours(5));
    close().await;
    assert_eq!(outcome().await, "running");
    collector.clock.advance(Duration::hours(2));
    close().await;
    assert_eq!(outcome().await, "interrupted");
    // Its spool was kept, and comes late.
    post(2, json!({"kind": "host", "number": 0, "name": "web1"})).await;
    assert_eq!(outcome().await, "running");
    post(3, json!({"kind": "end", "at": at, "outcome": "failed"})).await;
    assert_eq!(outcome().await, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_is_counted_by_what_became_of_it() {
    let collector = Collector::start().await;
    for (body, status) in [
        (PLAN, StatusCode::CREATED),
        (PLAN, StatusCode::OK),
        ("{", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let answer = call(&collector, Method::POST, "/ingest/terraform", &[], body).await;
        assert_eq!(answer.status(), status, "{:?}", answer.body());
    }
    fleet_metrics::run(Arc::clone(&collector.server.app))
        .await
        .unwrap();
    let app = &collector.server.app;
    let text = app.metrics.encode(app).unwrap();
    for line in [
        "change_documents_total{tool=\"terraform\",outcome=\"stored\"} 1",
        "change_documents_total{tool=\"terraform\",outcome=\"known\"} 1",
        "change_documents_total{tool=\"terraform\",outcome=\"refused\"} 1",
        "change_document_bytes_total{tool=\"terraform\",outcome=\"refused\"} 1",
        "change_redactions_total 0",
        "change_links{state=\"pending\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}
