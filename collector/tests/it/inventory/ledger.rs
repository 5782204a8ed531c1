//! The ledger: hosts that should report and don't, agents that no source knows, what was destroyed and still reports.

use serde_json::json;

use super::{by_name, csv, expected, terraform};
use crate::harness::{Collector, Host, eventually};
use crate::hosts::say;

/// A host whose agent says the cloud's id of its instance.
async fn agent(collector: &Collector, instance_id: &str) -> Host {
    let host = collector.host().await;
    say(
        collector,
        &host,
        1,
        "facts.cloud",
        json!({"provider": "aws", "instance_id": instance_id}),
    )
    .await;
    let path = format!("/api/v1/hosts/{}", host.id);
    eventually("the instance id", || async {
        (collector.get(&path).await["instance_id"] == instance_id).then_some(())
    })
    .await;
    host
}

async fn relink(collector: &Collector) {
    let app = &collector.server.app;
    eventually("the job's turn", || async {
        let run = infratrack_collector::jobs::run::once(
            app,
            "inventory_links",
            async |app, connection| {
                infratrack_collector::inventory::relink::run(app, connection).await
            },
        );
        run.await.unwrap().map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_has_who_does_not_report_who_is_unknown_and_who_outlived_the_destruction() {
    let collector = Collector::start().await;
    let known = agent(&collector, "i-1").await;
    let unknown = agent(&collector, "i-9").await;
    let state = [
        ("a", "i-1", "10.0.0.1"),
        ("b", "i-2", "10.0.0.2"),
        ("c", "i-3", "10.0.0.3"),
    ];
    let report = terraform(&collector, "", &state).await;
    assert_eq!(report["created"]["total"], 2, "{report}");
    assert_eq!(expected(&collector, "ok").await, ["a"]);
    assert_eq!(expected(&collector, "absent").await, ["b", "c"]);
    let rows = collector
        .get("/api/v1/inventory/expected?state=unexpected")
        .await;
    assert_eq!(
        rows["items"][0]["host_id"],
        unknown.id.to_string(),
        "{rows}"
    );
    // Its agent is told apart from its address: the row is the agent's own.
    let rows = collector.get("/api/v1/inventory/expected?state=ok").await;
    assert_eq!(rows["items"][0]["host_id"], known.id.to_string());
    assert_eq!(rows["items"][0]["linked_by"], "instance_id");

    terraform(&collector, "", &state[1..]).await;
    assert_eq!(expected(&collector, "gone").await, ["a"]);
    collector.clock.advance(time::Duration::seconds(1));
    let mut batch = known.batch(&collector);
    batch.heartbeat = Some(known.heartbeat(&collector));
    known.send(&collector, &batch).await.unwrap();
    eventually("the destroyed host's report", || async {
        (expected(&collector, "destroyed_reporting").await == ["a"]).then_some(())
    })
    .await;
    assert!(expected(&collector, "gone").await.is_empty());
    let pages = collector.get("/api/v1/inventory/expected?limit=2").await;
    assert_eq!(pages["total"], 4, "{pages}");
    let cursor = pages["next_cursor"].as_str().unwrap();
    let next = collector
        .get(&format!(
            "/api/v1/inventory/expected?limit=2&cursor={cursor}"
        ))
        .await;
    assert_eq!(next["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_enrolls_later_takes_its_entrys_row_over() {
    let collector = Collector::start().await;
    terraform(&collector, "", &[("a", "i-1", "10.0.0.1")]).await;
    let row = by_name(&collector, "10.0.0.1").await;
    let host = agent(&collector, "i-1").await;
    relink(&collector).await;
    assert_eq!(expected(&collector, "ok").await, ["a"]);
    let row = collector
        .get(&format!("/api/v1/hosts/{}", row["id"].as_str().unwrap()))
        .await;
    assert_eq!(row["merged_into"], host.id.to_string());
    let taken = collector.get(&format!("/api/v1/hosts/{}", host.id)).await;
    assert_eq!(taken["tags"], json!(["Name=a"]));
    // The next sync knows it.
    let report = terraform(&collector, "", &[("a", "i-1", "10.0.0.1")]).await;
    assert_eq!(
        (&report["created"]["total"], &report["conflicts"]["total"]),
        (&json!(0), &json!(0)),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_edited_or_found_by_its_name_is_shown_as_a_pair_to_merge() {
    let collector = Collector::start().await;
    // The name that the harness's agents enroll with.
    csv(&collector, "", "name\ntest-host\n").await;
    let row = by_name(&collector, "test-host").await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(host.heartbeat(&collector));
    host.send(&collector, &batch).await.unwrap();
    relink(&collector).await;
    let ledger = collector.get("/api/v1/inventory/expected?state=ok").await;
    let line = &ledger["items"][0];
    assert_eq!(line["host_id"], host.id.to_string(), "{ledger}");
    assert_eq!(
        (&line["duplicate_id"], &line["linked_by"]),
        (&row["id"], &json!("name"))
    );
    let merge = json!({"into": host.id}).to_string();
    let path = format!("/api/v1/hosts/{}/merge", row["id"].as_str().unwrap());
    let (status, answer) = collector.api(http::Method::POST, &path, &merge).await;
    assert_eq!(status, http::StatusCode::OK, "{answer}");
    let ledger = collector.get("/api/v1/inventory/expected?state=ok").await;
    assert_eq!(ledger["items"][0]["duplicate_id"], serde_json::Value::Null);
}
