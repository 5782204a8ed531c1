//! The Overview and the list of hosts in a browser; the first run.

use serde_json::json;

use super::{collector, play};
use crate::harness::Collector;
use crate::operators::logins::user;

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_and_the_list_of_hosts_work_in_a_browser() {
    play(&collector().await, "hosts", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_the_fleet_works_in_a_browser() {
    play(&collector().await, "changes", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_hosts_come_without_a_reload() {
    let collector = Collector::start_with(|config| {
        config.operators.requests_per_second = 1000;
        config.operators.requests_burst = 10_000;
    })
    .await;
    user(&collector, "admin", "admin").await;
    play(&collector, "first", json!({})).await;
    play(&collector, "arrives", json!({})).await;
}
