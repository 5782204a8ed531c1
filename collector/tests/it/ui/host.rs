//! The Host page in a browser.

use infratrack_shared::ids::HostId;
use serde_json::{Value, json};

use super::{collector, play};
use crate::harness::Collector;
use crate::hosts::made;
use crate::hosts::touched::bad_day;

/// The windows in which flows are played: what each changes is its own.
const WINDOWS: [&str; 6] = [
    "light-1440",
    "light-360",
    "dark-1440",
    "dark-360",
    "light-1440-plain",
    "light-360-plain",
];

async fn first(collector: &Collector, query: &str) -> Value {
    let page = collector
        .get(&format!("/api/v1/hosts?limit=1&{query}"))
        .await;
    page["items"][0]["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_host_is_looked_at_and_looked_after_in_a_browser() {
    let collector = collector().await;
    let mut spare = serde_json::Map::new();
    for window in WINDOWS {
        let host = made(&collector, json!({"name": format!("spare-{window}")})).await;
        spare.insert(window.to_owned(), host["id"].clone());
    }
    let never = collector.host().await;
    let job = json!({
        "host": first(&collector, "reason=reboot_required&liveness=online").await,
        "offline": first(&collector, "liveness=offline").await,
        "never": never.id,
        "spare": spare,
    });
    assert!(
        job["host"].is_string() && job["offline"].is_string(),
        "{job}"
    );
    let id = job["host"].as_str().unwrap().parse().unwrap();
    bad_day(&collector, HostId(id)).await;
    play(&collector, "host", job).await;
}
