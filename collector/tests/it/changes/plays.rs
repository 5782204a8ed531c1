//! `POST /ingest/ansible`: records of plays, once and in their order.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Collector;
use crate::hosts::call;

fn start(commit: &str) -> Value {
    json!({"kind": "start", "at": "2026-01-01T10:00:00.000Z", "format": 1, "process": Uuid::new_v4(), "playbook_number": 1,
        "ansible_version": "2.19.14", "python_version": "3.11.7", "controller": "ci-1", "user": "ada",
        "playbook": "site.yml", "playbook_path": "/srv/site.yml", "check": false, "diff": false,
        "git": {"commit": commit, "branch": "main", "dirty": false, "remote": "https://git.example/team/infra.git"}})
}

fn records(commit: &str) -> Vec<Value> {
    let at = "2026-01-01T10:00:01.000Z";
    vec![
        start(commit),
        json!({"kind": "host", "number": 0, "name": "web1", "ansible_host": "192.0.2.1"}),
        json!({"kind": "host", "number": 1, "name": "web2"}),
        json!({"kind": "play", "at": at, "play": "p", "name": "Web", "batch": 1, "pattern": "web", "strategy": "linear",
            "hosts": "0-1", "host_count": 2}),
        json!({"kind": "task", "task": "t", "play": "p", "batch": 1, "at": at, "name": "Packages", "action": "ansible.builtin.apt"}),
        json!({"kind": "result", "task": "t", "batch": 1, "host": "web1", "status": "failed", "ended_at": at,
            "message": "no \u{0}package"}),
        json!({"kind": "task", "task": "t", "play": "p", "batch": 1, "ended_at": at, "ok": 1, "ok_hosts": "1"}),
        json!({"kind": "stats", "hosts": {
            "web1": {"ok": 0, "failures": 1, "unreachable": 0, "changed": 0, "skipped": 0, "rescued": 0, "ignored": 0},
            "web2": {"ok": 1, "failures": 0, "unreachable": 0, "changed": 0, "skipped": 0, "rescued": 0, "ignored": 0}}}),
        json!({"kind": "end", "at": "2026-01-01T10:00:02.000Z", "outcome": "failed"}),
    ]
}

async fn post(
    collector: &Collector,
    run: Uuid,
    first_seq: usize,
    records: &[Value],
) -> (StatusCode, Value) {
    let body = json!({"run": run, "first_seq": first_seq, "records": records}).to_string();
    let answer = call(collector, Method::POST, "/ingest/ansible", &[], &body).await;
    let document = serde_json::from_slice(answer.body()).unwrap();
    (answer.status(), document)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_play_is_told_in_pieces_and_each_record_counts_once() {
    let collector = Collector::start().await;
    let (run, all) = (Uuid::new_v4(), records("0123456789abcdef"));
    let (status, hole) = post(&collector, run, 2, &all[1..]).await;
    assert_eq!(
        (status, &hole["acked_seq"]),
        (StatusCode::CONFLICT, &json!(0)),
        "{hole}"
    );
    let (status, taken) = post(&collector, run, 1, &all[..6]).await;
    assert_eq!(
        (status, &taken["acked_seq"]),
        (StatusCode::OK, &json!(6)),
        "{taken}"
    );
    let change = format!("/api/v1/changes/{}", taken["change_id"].as_str().unwrap());
    assert_eq!(collector.get(&change).await["change"]["outcome"], "running");
    // The answer was lost: sent again, with what is new.
    for _ in 0..2 {
        let (_, taken) = post(&collector, run, 4, &all[3..]).await;
        assert_eq!(taken["acked_seq"], 9, "{taken}");
    }
    let known = collector.get(&change).await;
    assert_eq!(known["change"]["outcome"], "failed");
    assert_eq!(known["change"]["actor"], "ada");
    let of_run = &known["runs"][0];
    assert_eq!(
        (&of_run["summary"]["ok"], &of_run["summary"]["failures"]),
        (&json!(1), &json!(1))
    );
    let path = format!("{change}/runs/{run}");
    let tasks = collector.get(&format!("{path}/tasks")).await;
    assert_eq!(tasks["total"], 1, "{tasks}");
    let task = &tasks["items"][0];
    assert_eq!(
        (&task["name"], &task["ok"], &task["failed"]),
        (&json!("Packages"), &json!(1), &json!(1))
    );
    let results = collector.get(&format!("{path}/results")).await;
    assert_eq!(
        results["items"][0]["body"]["message"], "no \u{fffd}package",
        "{results}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_and_a_play_that_share_a_commit_are_one_change() {
    let collector = Collector::start().await;
    let commit = "0123456789abcdef";
    let headers = [
        ("infratrack-repository", "git@git.example:team/infra.git"),
        ("infratrack-commit", commit),
    ];
    let plan = r#"{"format_version":"1.2","resource_changes":[]}"#;
    let planned = call(
        &collector,
        Method::POST,
        "/ingest/terraform",
        &headers,
        plan,
    )
    .await;
    let planned: Value = serde_json::from_slice(planned.body()).unwrap();
    let (_, played) = post(&collector, Uuid::new_v4(), 1, &records(commit)).await;
    assert_eq!(
        planned["change_id"], played["change_id"],
        "{planned} {played}"
    );
    let list = collector.get("/api/v1/changes").await;
    assert_eq!(
        (&list["total"], &list["items"][0]["tools"]),
        (&json!(1), &json!(["ansible", "terraform"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_none_is_named_and_nothing_of_its_request_is_taken() {
    let collector = Collector::start().await;
    let run = Uuid::new_v4();
    let mut bad = records("0123456789abcdef");
    bad[5] = json!({"kind": "result", "task": "t"});
    let (status, problem) = post(&collector, run, 1, &bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["errors"][0]["pointer"], "/records/5", "{problem}");
    bad[5] = json!({"kind": "result", "message": "x".repeat(70_000)});
    let (status, problem) = post(&collector, run, 1, &bad).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{problem}");
    assert_eq!(problem["errors"][0]["pointer"], "/records/5", "{problem}");
    bad[5] =
        json!({"kind": "gap", "count": 1, "reason": "too_large", "at": "2026-01-01T10:00:01.000Z"});
    let (status, taken) = post(&collector, run, 1, &bad).await;
    assert_eq!(
        (status, &taken["acked_seq"]),
        (StatusCode::OK, &json!(9)),
        "{taken}"
    );
    let path = format!("/api/v1/changes/{}", taken["change_id"].as_str().unwrap());
    let warnings = collector.get(&path).await["runs"][0]["warnings"].clone();
    assert_eq!(warnings, json!(["1 events are missing: too_large"]));
}
