//! `POST /ingest/terraform`, and the changes that come of it.

use std::io::Write;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::Collector;

/// Of a sensitive variable.
const CANARY: &str = "hunter2-not-a-real-secret";

/// The header of a token with a role or a scope, made by the API.
async fn bearer(collector: &Collector, new: Value) -> String {
    let path = "/api/v1/tokens";
    let (status, made) = collector.api(Method::POST, path, &new.to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    format!("Bearer {}", made["token"].as_str().unwrap())
}

/// A plan that updates one resource and has a secret in many places, some without a mark.
fn plan() -> Value {
    json!({
        "format_version": "1.2", "terraform_version": "1.11.4",
        "variables": {"s": {"value": CANARY}},
        "resource_changes": [{
            "address": format!("a.b[\"{CANARY}\"]"), "mode": "managed", "type": "a", "name": "b", "index": CANARY,
            "provider_name": "registry.example/x/a",
            "change": {"actions": ["update"], "before": {"p": "old", "n": 1, "copy": "x"},
                "after": {"p": CANARY, "n": 2, "copy": format!("pre-{CANARY}-post")},
                "after_unknown": {}, "before_sensitive": {"p": true}, "after_sensitive": {"p": true}},
        }],
        "output_changes": {"o": {"actions": ["create"], "before": null, "after": CANARY, "after_unknown": false,
            "before_sensitive": true, "after_sensitive": true}},
        "checks": [{"address": {"kind": "check", "to_display": "check.c"}, "status": "fail",
            "instances": [{"problems": [{"message": format!("{CANARY} is bad")}]}]}],
        "configuration": {"root_module": {"variables": {"s": {"sensitive": true}}}},
    })
}

async fn post(
    collector: &Collector,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (StatusCode, Value) {
    let answer = posted(collector, headers, body).await;
    let document = serde_json::from_slice(answer.body()).unwrap();
    (answer.status(), document)
}

async fn posted(
    collector: &Collector,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/ingest/terraform")
        .header("host", "test");
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", format!("Bearer {}", collector.admin_token));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(body.into());
    collector.request(request.body(body).unwrap()).await
}

/// The secret is neither in the tables nor in what can be downloaded.
async fn is_nowhere(collector: &Collector, kept: &str) {
    let stored: Vec<String> = sqlx::query_scalar(
        "select t::text from changes t union all select t::text from change_runs t
         union all select t::text from change_resources t union all select t::text from change_keys t",
    )
    .fetch_all(&collector.pool)
    .await
    .unwrap();
    assert!(stored.len() >= 4, "{stored:?}");
    for text in stored.iter().map(String::as_str).chain([kept]) {
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_becomes_a_change_without_its_secrets() {
    let collector = Collector::start().await;
    let credential = bearer(
        &collector,
        json!({"name": "pipeline", "scopes": ["ingest"]}),
    )
    .await;
    let headers = [
        ("authorization", credential.as_str()),
        (
            "infratrack-repository",
            "https://bot:pass@git.example/team/infra.git",
        ),
        ("infratrack-commit", "0123456789abcdef"),
        ("infratrack-actor", "ada"),
        ("infratrack-workspace", "prod"),
    ];
    let (status, taken) = post(&collector, &headers, plan().to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{taken}");
    assert_eq!(taken["kind"], "plan");
    assert_eq!(taken["summary"]["change"], 1);
    assert_eq!(taken["summary"]["outputs"], 1);
    assert_eq!(taken["summary"]["checks"]["fail"], 1);
    assert!(taken["redactions"].as_i64().unwrap() >= 5, "{taken}");

    let (status, again) = post(&collector, &headers, plan().to_string()).await;
    assert_eq!(
        (status, &again["run_id"]),
        (StatusCode::OK, &taken["run_id"])
    );
    let list = collector
        .get("/api/v1/changes?repository=https%3A%2F%2Fgit.example%2Fteam%2Finfra.git")
        .await;
    assert_eq!(list["total"], 1, "{list}");
    let row = &list["items"][0];
    assert_eq!(
        (&row["title"], &row["actor"]),
        (&json!("Terraform plan of prod"), &json!("ada"))
    );
    assert_eq!(
        (&row["outcome"], &row["change_count"]),
        (&json!("planned"), &json!(1))
    );
    let path = format!("/api/v1/changes/{}", taken["change_id"].as_str().unwrap());
    let change = collector.get(&path).await;
    assert_eq!(change["runs"][0]["brought_by"], "pipeline", "{change}");
    let run = format!("{path}/runs/{}", taken["run_id"].as_str().unwrap());
    let resources = collector.get(&format!("{run}/resources")).await;
    let resource = &resources["items"][0];
    assert_eq!(resource["address"], "a.b[\"[redacted]\"]");
    let what: Vec<_> = resource["attributes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["what"])
        .collect();
    assert_eq!(what, ["changed", "changed", "sensitive_changed"]);
    let artifact =
        crate::hosts::call(&collector, Method::GET, &format!("{run}/artifact"), &[], "").await;
    assert_eq!(
        artifact.headers()["content-disposition"]
            .to_str()
            .unwrap()
            .split(';')
            .next(),
        Some("attachment")
    );
    let kept = String::from_utf8_lossy(artifact.body()).into_owned();
    serde_json::from_str::<Value>(&kept).unwrap();
    is_nowhere(&collector, &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_share_a_key_are_one_change_and_others_are_not() {
    let collector = Collector::start().await;
    let events = concat!(
        r#"{"@level":"info","type":"version","terraform":"1.11.4"}"#,
        "\n",
        r#"{"@level":"info","type":"apply_start","hook":{"resource":{"addr":"a.b"},"action":"update"}}"#,
        "\n",
        r#"{"@level":"info","type":"apply_complete","hook":{"resource":{"addr":"a.b"},"action":"update","elapsed_seconds":2}}"#,
        "\n",
        r#"{"@level":"info","type":"change_summary","changes":{"add":0,"change":1,"remove":0,"operation":"apply"}}"#,
        "\n",
    );
    let commit = [
        ("infratrack-repository", "team/infra"),
        ("infratrack-commit", "0123456789abcdef"),
    ];
    let (_, planned) = post(&collector, &commit, plan().to_string()).await;
    let (status, applied) = post(&collector, &commit, events).await;
    assert_eq!(
        (status, &applied["kind"]),
        (StatusCode::CREATED, &json!("apply")),
        "{applied}"
    );
    assert_eq!(applied["change_id"], planned["change_id"]);
    let change = collector
        .get(&format!(
            "/api/v1/changes/{}",
            planned["change_id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(change["change"]["outcome"], "succeeded");
    assert_eq!(change["runs"].as_array().unwrap().len(), 2);

    let other = [commit[0], ("infratrack-commit", "fedcba9876543210")];
    let (_, elsewhere) = post(&collector, &other, plan().to_string()).await;
    assert_ne!(elsewhere["change_id"], planned["change_id"]);
    // Somebody tells it apart.
    let mut named = commit.to_vec();
    named.push(("infratrack-change-id", "CHG-1"));
    let (_, first) = post(&collector, &named, plan().to_string()).await;
    named[2].1 = "CHG-2";
    let (_, second) = post(&collector, &named, plan().to_string()).await;
    assert_ne!(first["change_id"], second["change_id"]);
    // Nothing but how it ended.
    let (status, failed) = post(
        &collector,
        &[("infratrack-stage", "apply"), ("infratrack-exit-code", "1")],
        "",
    )
    .await;
    assert_eq!(status, StatusCode::CREATED, "{failed}");
    let failed = collector.get("/api/v1/changes?outcome=failed").await;
    assert_eq!(failed["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_document_of_terraform_is_refused_and_leaves_nothing() {
    let collector = Collector::start().await;
    let viewer = bearer(&collector, json!({"name": "looks", "role": "viewer"})).await;
    let none = post(&collector, &[("authorization", viewer.as_str())], "{}").await;
    assert_eq!(none.0, StatusCode::FORBIDDEN);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..65 {
        bomb.write_all(&spaces).unwrap();
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let many = format!(
        "{{\"format_version\":\"1.2\",\"resource_changes\":[{}0]}}",
        "{\"address\":\"a\",\"change\":{\"actions\":[\"create\"]}},".repeat(200_000)
    );
    for (headers, body, status, code) in [
        (
            &[][..],
            Bytes::from("{\"version\":4,\"serial\":1}"),
            422,
            "other_document",
        ),
        (
            &[],
            Bytes::from(format!("$ terraform show\n{}", plan())),
            422,
            "invalid",
        ),
        (
            &[],
            Bytes::from("{\"format_version\":\"2.0\",\"resource_changes\":[]}"),
            422,
            "unknown_version",
        ),
        (&[], Bytes::from(bomb.finish().unwrap()), 413, "too_large"),
        (&[], Bytes::from(deep), 422, "invalid"),
        (&[], Bytes::from(many), 422, "too_many"),
        (
            &[("infratrack-stage", "destroy")],
            Bytes::from(plan().to_string()),
            400,
            "invalid",
        ),
        (
            &[("infratrack-run-url", "javascript:x")],
            Bytes::from(plan().to_string()),
            400,
            "invalid",
        ),
        (
            &[("content-encoding", "br")],
            Bytes::from(plan().to_string()),
            415,
            "unsupported_media_type",
        ),
    ] {
        let (answered, problem) = post(&collector, headers, body).await;
        assert_eq!(
            (answered.as_u16(), &problem["type"]),
            (status, &json!(code)),
            "{problem}"
        );
        assert!(!problem.to_string().contains(CANARY), "{problem}");
    }
    assert_eq!(collector.get("/api/v1/changes").await["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn utf_16_and_packed_plans_are_read() {
    let collector = Collector::start().await;
    let text = plan().to_string();
    let wide: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(text.encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    for body in [wide, packed.finish().unwrap()] {
        let (_, taken) = post(&collector, &[], body).await;
        assert_eq!(taken["summary"]["change"], 1, "{taken}");
    }
}
