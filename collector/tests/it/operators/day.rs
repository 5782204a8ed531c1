//! The commands of docs/api.md, as they stand there, against the running listener.

use std::path::Path;
use std::process::Stdio;

use http::{Method, StatusCode};
use infratrack_shared::wire::heartbeat::FilesystemUsage;
use serde_json::json;
use tokio::process::Command;

use crate::harness::Collector;

/// The shell blocks of the page, one after another.
fn commands() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh\n").skip(1);
    let commands: Vec<_> = blocks
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    format!("set -euo pipefail\n{}", commands.join("\n"))
}

async fn fleet(collector: &Collector) {
    let full = collector.host().await;
    let mut batch = full.batch(collector);
    let mut heartbeat = full.heartbeat(collector);
    heartbeat.filesystems = vec![FilesystemUsage {
        mount: "/srv".to_owned(),
        total_bytes: 100,
        available_bytes: 3,
        inodes_total: 0,
        inodes_free: 0,
    }];
    batch.heartbeat = Some(heartbeat);
    full.send(collector, &batch).await.unwrap();
    for index in 0..320 {
        let environment = if index < 300 { "staging" } else { "production" };
        let host =
            json!({"name": format!("app-{index:03}"), "environment": environment}).to_string();
        let (status, made) = collector.api(Method::POST, "/api/v1/hosts", &host).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_in_the_life_is_as_the_page_says() {
    let collector = Collector::start_with(|config| config.operators.requests_burst = 10_000).await;
    fleet(&collector).await;
    let dir = tempfile::tempdir().unwrap();
    let run = Command::new("bash")
        .args(["-c", &commands()])
        .current_dir(dir.path())
        .env(
            "INFRATRACK",
            format!("http://{}", collector.server.addresses.operators),
        )
        .env("ADMIN", &collector.admin_token)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaints}");

    assert!(
        said.contains("test-host: a filesystem is 97 % full"),
        "{said}"
    );
    assert!(said.contains(r#""changed": 300"#), "{said}");
    assert!(said.contains(r#""owner": "team-web""#), "{said}");
    assert!(
        said.contains("task.create") && said.contains("host.update"),
        "{said}"
    );
    assert!(said.contains("night shift revoked at"), "{said}");
    let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let table = file("sunday.csv");
    assert_eq!(table.lines().next(), Some("name,status,owner,last_seen_at"));
    assert_eq!(table.lines().count(), 301);
    assert_eq!(file("names.txt").lines().count(), 321);
    let tagged = collector
        .get("/api/v1/hosts?tag=window:sunday&limit=1")
        .await;
    assert_eq!(tagged["total"], 300);
    let elsewhere = collector
        .get("/api/v1/hosts?environment=production&not_tag=window:sunday")
        .await;
    assert_eq!(elsewhere["total"], 20);
}
