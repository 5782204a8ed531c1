//! What Prometheus gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::Full;
use infratrack_collector::jobs::fleet_metrics;

use crate::harness::Collector;

/// What is scraped, as the fleet is now.
pub(crate) async fn scrape(collector: &Collector) -> String {
    fleet_metrics::run(Arc::clone(&collector.server.app))
        .await
        .unwrap();
    let request = Request::get("/metrics")
        .header("host", "test")
        .header("x-api-token", &collector.admin_token);
    let response = collector
        .request(request.body(Full::default()).unwrap())
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    String::from_utf8(response.body().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_requests_jobs_queues_and_hosts() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    batch.heartbeat = Some(host.heartbeat(&collector));
    host.send(&collector, &batch).await.unwrap();
    assert_eq!(collector.get("/api/v1/hosts").await["total"], 1);
    let text = scrape(&collector).await;
    let id = host.id;
    for line in [
        format!("host_status_gauge{{host_id=\"{id}\",host=\"test-host\"}} 1"),
        "hosts{status=\"healthy\"} 1".to_owned(),
        "http_requests_total{listener=\"operators\",method=\"GET\",route=\"/api/v1/hosts\",status=\"200\"} 1".to_owned(),
        "http_requests_total{listener=\"agents\",method=\"POST\",route=\"/agent/v1/batch\",status=\"200\"} 1".to_owned(),
        "http_request_duration_seconds_count{listener=\"agents\",method=\"POST\",route=\"/agent/v1/batch\"} 1".to_owned(),
        "background_job_failures_total{job=\"alive\"} 0".to_owned(),
        "postgres_writable 1.0".to_owned(),
        "ingest_queue_ratio 0.0".to_owned(),
        "handshakes_failed_total{listener=\"agents\"} 0".to_owned(),
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("\n# EOF\n"));
    assert_eq!(documented(), scraped(&text), "docs/watching.md");
    assert_eq!(text.matches("# EOF").count(), 1);
    // A path of a stranger's making is no label.
    let request = Request::get("/such/a/path").header("host", "test");
    collector
        .request(request.body(Full::default()).unwrap())
        .await;
    let text = scrape(&collector).await;
    assert!(!text.contains("such"), "{text}");
    assert!(
        text.contains("route=\"none\",status=\"404\"} 1\n"),
        "{text}"
    );
}

/// The metrics that docs/watching.md lists, but for those that are there only while something is traced.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../../docs/watching.md");
    let table = page.split("\n## ").find(|part| part.starts_with("Metrics"));
    let rows = table.unwrap().lines().filter_map(|line| {
        let name = line.strip_prefix("| `")?.split_once('`')?.0;
        (!name.starts_with("trace_spans")).then(|| name.to_owned())
    });
    rows.collect()
}

/// Those that are scraped, by the names that one asks for them.
fn scraped(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        let suffix = if kind == "counter" { "_total" } else { "" };
        Some(format!("{name}{suffix}"))
    });
    types.collect()
}
