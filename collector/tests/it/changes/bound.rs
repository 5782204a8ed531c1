//! Tokens whose runs are of one repository: what they claim, and whose changes they may add to.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Collector;
use crate::hosts::call;

const PLAN: &str = r#"{"format_version":"1.2","resource_changes":[]}"#;

async fn token(collector: &Collector, repository: &str) -> String {
    let new = json!({"name": repository, "scopes": ["ingest"], "repository": repository});
    let (status, made) = collector
        .api(Method::POST, "/api/v1/tokens", &new.to_string())
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["repository"], repository);
    format!("Bearer {}", made["token"].as_str().unwrap())
}

async fn post(
    collector: &Collector,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, Value) {
    let answer = call(collector, Method::POST, path, headers, body).await;
    let document = serde_json::from_slice(answer.body()).unwrap();
    (answer.status(), document)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_repository_writes_nobody_elses_history() {
    let collector = Collector::start().await;
    let infra = token(&collector, "team/infra").await;
    let shop = token(&collector, "team/shop").await;
    let plan = async |credential: &str, claims: &[(&str, &str)]| {
        let headers = [&[("authorization", credential)], claims].concat();
        post(&collector, "/ingest/terraform", &headers, PLAN).await
    };
    let explicit = ("infratrack-change-id", "CHG-1");
    let own = ("infratrack-repository", "git@git.example:Team/Infra.git");
    let (status, first) = plan(&infra, &[explicit, own]).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    let (status, refused) = plan(&shop, &[own]).await;
    assert_eq!(
        (status, &refused["type"]),
        (StatusCode::FORBIDDEN, &json!("other_repository"))
    );
    // Another's change by its id.
    let (status, refused) = plan(&shop, &[explicit]).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    // What says nothing is of the token's repository.
    let (status, second) = plan(&shop, &[]).await;
    assert_eq!(status, StatusCode::CREATED, "{second}");
    let path = format!("/api/v1/changes/{}", second["change_id"].as_str().unwrap());
    assert_eq!(
        collector.get(&path).await["change"]["repository"],
        "team/shop"
    );

    let play = |remote: &str| {
        let start = json!({"kind": "start", "at": "2026-01-01T10:00:00.000Z", "format": 1,
            "git": {"remote": remote, "commit": "0123456789abcdef"}});
        json!({"run": Uuid::new_v4(), "first_seq": 1, "records": [start]}).to_string()
    };
    let credential = [("authorization", shop.as_str())];
    for (remote, wanted) in [
        ("https://git.example/team/infra.git", StatusCode::FORBIDDEN),
        ("https://git.example/team/shop.git", StatusCode::OK),
    ] {
        let (status, answer) =
            post(&collector, "/ingest/ansible", &credential, &play(remote)).await;
        assert_eq!(status, wanted, "{answer}");
    }
    let total = collector.get("/api/v1/changes").await["total"].clone();
    assert_eq!(total, 3);
    let new = json!({"name": "x", "role": "viewer", "repository": "a/b"}).to_string();
    let (status, refused) = collector.api(Method::POST, "/api/v1/tokens", &new).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
}
