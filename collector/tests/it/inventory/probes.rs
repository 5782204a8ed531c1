//! Hosts without an agent: green, yellow and red by what probes find, and only inside the configured networks.

use std::time::Duration;

use infratrack_collector::config::Interval;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::{Collector, eventually};

/// Probes 127.0.0.0/30 every 5 minutes of the test's clock.
async fn collector(port: u16) -> Collector {
    Collector::start_with(|config| {
        config.probes.networks = vec!["127.0.0.0/30".parse().unwrap()];
        config.probes.ports = vec![port];
        config.probes.icmp = false;
        config.probes.timeout = Duration::from_millis(300);
        let often = Interval(Duration::from_millis(200));
        config.jobs.intervals.insert("probes".to_owned(), often);
    })
    .await
}

async fn add(collector: &Collector, name: &str, address: &str) -> String {
    let body = serde_json::json!({"name": name, "addresses": [address]}).to_string();
    let (_, host) = collector
        .api(http::Method::POST, "/api/v1/hosts", &body)
        .await;
    host["id"].as_str().unwrap().to_owned()
}

/// Waits for the next probe of a host, the `count`th.
async fn probed(collector: &Collector, id: &str, count: usize) -> Value {
    let path = format!("/api/v1/hosts/{id}/probes");
    eventually("the probe", || async {
        let probes = collector.get(&path).await;
        (probes["items"].as_array().unwrap().len() >= count).then(|| probes["items"][0].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_answers_is_green_and_turns_yellow_and_red_by_the_probes_it_misses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let collector = collector(port).await;
    let id = add(&collector, "quiet", "127.0.0.1").await;
    let path = format!("/api/v1/hosts/{id}");
    let probe = probed(&collector, &id, 1).await;
    assert_eq!(
        (&probe["ok"], probe["via"].as_str()),
        (&Value::Bool(true), Some(format!("tcp/{port}").as_str()))
    );
    let host = collector.get(&path).await;
    assert_eq!(
        (host["status"].as_str(), host["liveness"].as_str()),
        (Some("healthy"), Some("online")),
        "{host}"
    );
    assert!(host["last_seen_at"].is_string());
    // Longer than an agent may be silent, and not due yet.
    collector.clock.advance(time::Duration::minutes(4));
    assert_eq!(collector.get(&path).await["status"], "healthy");

    // An address that nobody answers for: what is sent there is dropped without a word.
    sqlx::query("update hosts set addresses = '{127.0.0.3}' where host_id = $1::uuid")
        .bind(&id)
        .execute(&collector.pool)
        .await
        .unwrap();
    let silent = silent(port).await;
    for (count, status, liveness) in [
        (2, "healthy", "online"),
        (3, "degraded", "late"),
        (4, "unhealthy", "offline"),
    ] {
        collector.clock.advance(time::Duration::minutes(5));
        let probe = probed(&collector, &id, count).await;
        assert_eq!(probe["ok"], false, "the fault did not fire: {probe}");
        let host = collector.get(&path).await;
        assert_eq!(
            (host["status"].as_str(), host["liveness"].as_str()),
            (Some(status), Some(liveness)),
            "{host}"
        );
    }
    eventually("the event", || async {
        let events = collector.get(&format!("{path}/events")).await;
        let mut items = events["items"].as_array().unwrap().iter();
        items
            .any(|event| event["kind"] == "host_offline")
            .then_some(())
    })
    .await;
    drop(silent);
    collector.clock.advance(time::Duration::minutes(5));
    assert_eq!(
        probed(&collector, &id, 5).await["ok"],
        true,
        "it refuses, so it is there"
    );
    assert_eq!(collector.get(&path).await["status"], "healthy");
}

/// A listener whose queue is full, so that the kernel drops what comes, as a host that is off does.
async fn silent(port: u16) -> impl Sized {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 3], port)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let connect = tokio::net::TcpStream::connect(("127.0.0.3", port));
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), connect).await {
            waiting.push(stream);
        }
    }
    assert!(waiting.len() < 4, "the queue is not full");
    (socket, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_an_address_outside_the_networks_or_to_a_host_with_an_agent() {
    let outside = TcpListener::bind("127.0.0.5:0").await.unwrap();
    let port = outside.local_addr().unwrap().port();
    let inside = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let of_agent = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let collector = collector(port).await;
    let agent = collector.host().await;
    sqlx::query("update hosts set addresses = '{127.0.0.2}' where host_id = $1")
        .bind(agent.id.0)
        .execute(&collector.pool)
        .await
        .unwrap();
    let far = add(&collector, "outside", "127.0.0.5").await;
    let id = add(&collector, "inside", "127.0.0.1").await;
    probed(&collector, &id, 1).await;
    collector.clock.advance(time::Duration::minutes(5));
    probed(&collector, &id, 2).await;
    let accepted = tokio::time::timeout(Duration::from_secs(5), inside.accept()).await;
    accepted.expect("the host inside is probed").unwrap();
    for listener in [outside, of_agent] {
        let accepted = tokio::time::timeout(Duration::from_millis(300), listener.accept()).await;
        assert!(accepted.is_err(), "{accepted:?}");
    }
    let host = collector.get(&format!("/api/v1/hosts/{far}")).await;
    assert_eq!(host["status"], "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_hundred_probes_are_kept_and_what_they_found_is_not_believed_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = collector(listener.local_addr().unwrap().port()).await;
    let id = add(&collector, "kept", "127.0.0.1").await;
    probed(&collector, &id, 1).await;
    sqlx::query(
        "insert into probes (host_id, at, ok)
         select $1::uuid, now() - make_interval(days => n), false from generate_series(1, 150) as n",
    )
    .bind(&id)
    .execute(&collector.pool)
    .await
    .unwrap();
    collector.clock.advance(time::Duration::minutes(5));
    let rows = "select count(*) from probes where host_id = $1::uuid";
    eventually("the old ones to go", || async {
        let count: i64 = sqlx::query_scalar(rows)
            .bind(&id)
            .fetch_one(&collector.pool)
            .await
            .unwrap();
        (count == 100).then_some(())
    })
    .await;
    // Nobody probes it any more.
    sqlx::query("update hosts set addresses = '{10.0.0.1}' where host_id = $1::uuid")
        .bind(&id)
        .execute(&collector.pool)
        .await
        .unwrap();
    collector.clock.advance(time::Duration::minutes(16));
    let host = collector.get(&format!("/api/v1/hosts/{id}")).await;
    assert_eq!(
        (host["status"].as_str(), host["reason_codes"][0].as_str()),
        (Some("unknown"), Some("unprobed")),
        "{host}"
    );
}
