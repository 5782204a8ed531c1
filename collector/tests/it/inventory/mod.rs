//! Inventories become hosts and a ledger; hosts without an agent are probed.

mod large;
mod ledger;
mod probes;
mod sync;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::Collector;

/// Posts a document; `how` is the query.
async fn post(
    collector: &Collector,
    how: &str,
    content_type: &str,
    document: &str,
) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/api/v1/inventory/sync?{how}"))
        .header("host", "test")
        .header("content-type", content_type)
        .header("authorization", format!("Bearer {}", collector.admin_token))
        .body(Full::new(Bytes::from(document.to_owned())))
        .unwrap();
    let response = collector.request(request).await;
    let status = response.status();
    (
        status,
        serde_json::from_slice(response.body()).unwrap_or_default(),
    )
}

/// Syncs the hosts of a table as source `s`, and answers the report.
async fn csv(collector: &Collector, how: &str, document: &str) -> Value {
    let how = format!("source=s&kind=csv&{how}");
    let (status, report) = post(collector, &how, "text/csv", document).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    report
}

/// Syncs a state with these instances of EC2 (name, instance id, address), and answers the report.
async fn terraform(collector: &Collector, how: &str, instances: &[(&str, &str, &str)]) -> Value {
    let resources: Vec<_> = instances
        .iter()
        .map(|(name, id, address)| {
            json!({"address": format!("aws_instance.{name}"), "mode": "managed", "type": "aws_instance",
                   "name": name, "values": {"id": id, "private_ip": address, "tags_all": {"Name": name}}})
        })
        .collect();
    let state =
        json!({"format_version": "1.0", "values": {"root_module": {"resources": resources}}});
    let how = format!("source=tf&kind=terraform&{how}");
    let (status, report) = post(collector, &how, "application/json", &state.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    report
}

async fn by_name(collector: &Collector, name: &str) -> Value {
    let page = collector.get(&format!("/api/v1/hosts?q={name}")).await;
    assert_eq!(page["total"], 1, "{page}");
    page["items"][0].clone()
}

/// The names in a list of the ledger.
async fn expected(collector: &Collector, state: &str) -> Vec<String> {
    let page = collector
        .get(&format!("/api/v1/inventory/expected?state={state}"))
        .await;
    assert_eq!(page["total"], page["items"].as_array().unwrap().len());
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}
