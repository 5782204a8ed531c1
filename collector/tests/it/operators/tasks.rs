//! The log of what operators did on a host.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::credentials::{call, send};
use crate::harness::{Collector, Host};

async fn write_down(collector: &Collector, host: &Host, kind: &str, at: &str) -> Value {
    let body = json!({"host_id": host.id, "kind": kind, "title": format!("a {kind}"), "at": at});
    let (status, task) = collector
        .api(Method::POST, "/api/v1/tasks", &body.to_string())
        .await;
    assert_eq!(status, StatusCode::CREATED, "{task}");
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_on_a_host_is_listed_the_latest_first() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let (early, late) = ("2026-01-02T03:04:05Z", "2026-01-03T03:04:05Z");
    for (kind, at) in [("patch", early), ("reboot", late), ("other", early)] {
        write_down(&collector, &host, kind, at).await;
    }
    let mut seen = Vec::new();
    let mut path = format!("/api/v1/tasks?host_id={}&limit=1", host.id);
    let first = path.clone();
    loop {
        let page = collector.get(&path).await;
        assert_eq!(page["total"], 3);
        seen.push(page["items"][0]["kind"].as_str().unwrap().to_owned());
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("{first}&cursor={next}");
        if seen.len() == 3 {
            // A page that was full may have been the last.
            assert_eq!(collector.get(&path).await["items"], json!([]));
            break;
        }
    }
    assert_eq!(seen.first().map(String::as_str), Some("reboot"));
    seen.sort();
    assert_eq!(seen, ["other", "patch", "reboot"]);
    for (filter, count) in [
        ("kind=patch", 1),
        ("status=done", 3),
        ("status=failed", 0),
        ("from=2026-01-03T00:00:00Z", 1),
        ("to=2026-01-03T00:00:00Z&kind=other", 1),
    ] {
        let page = collector.get(&format!("/api/v1/tasks?{filter}")).await;
        assert_eq!(page["total"], count, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_changed_by_who_saw_it_and_deleted() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let made = write_down(&collector, &host, "patch", "2026-01-02T03:04:05Z").await;
    let path = format!("/api/v1/tasks/{}", made["id"].as_str().unwrap());
    let token = collector.admin_token.clone();
    let read = send(
        &collector,
        Method::GET,
        &path,
        &[("x-api-token", &token)],
        "",
    )
    .await;
    let tag = read.headers()["etag"].to_str().unwrap().to_owned();
    let change = async |body: Value| {
        let headers = [("x-api-token", token.as_str()), ("if-match", tag.as_str())];
        call(
            &collector,
            Method::PATCH,
            &path,
            &headers,
            &body.to_string(),
        )
        .await
    };
    let (status, task) = change(json!({"status": "failed", "notes": "grub"})).await;
    assert_eq!(status, StatusCode::OK, "{task}");
    assert_eq!(
        (&task["status"], &task["title"]),
        (&json!("failed"), &json!("a patch"))
    );
    let late = change(json!({"status": "done"})).await;
    assert_eq!(late.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(collector.get(&path).await["status"], "failed");
    let delete = async || collector.api(Method::DELETE, &path, "").await.0;
    assert_eq!(delete().await, StatusCode::NO_CONTENT);
    assert_eq!(delete().await, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_none_is_refused_with_its_field() {
    let collector = Collector::start().await;
    let host = collector.host().await.id;
    let nobody = uuid::Uuid::nil();
    for (body, pointer) in [
        (
            json!({"host_id": nobody, "kind": "patch", "title": "x"}),
            "/host_id",
        ),
        (
            json!({"host_id": host, "kind": "dance", "title": "x"}),
            "/kind",
        ),
        (
            json!({"host_id": host, "kind": "patch", "title": " "}),
            "/title",
        ),
        (
            json!({"host_id": host, "kind": "patch", "title": "x".repeat(201)}),
            "/title",
        ),
        (
            json!({"host_id": host, "kind": "patch", "title": "x", "status": "?"}),
            "/status",
        ),
        (
            json!({"host_id": host, "kind": "patch", "title": "x", "notes": "x".repeat(16 * 1024 + 1)}),
            "/notes",
        ),
        (
            json!({"host_id": host, "kind": "patch", "title": "x", "notes": "\0"}),
            "/notes",
        ),
        (
            json!({"host_id": host, "kind": "patch", "title": "x", "at": "yesterday"}),
            "/at",
        ),
        (
            json!({"host_id": host, "kind": "patch", "title": "x", "when": 1}),
            "/when",
        ),
        (json!({"host_id": host, "kind": "patch"}), "/title"),
    ] {
        let (status, problem) = collector
            .api(Method::POST, "/api/v1/tasks", &body.to_string())
            .await;
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
    assert_eq!(collector.get("/api/v1/tasks").await["total"], 0);
}
