//! State: the newest version wins, within a stream and between streams.

use infratrack_shared::digest::Digest;
use infratrack_shared::ids::StreamId;
use infratrack_shared::wire::batch::{FACTS, StatePart};
use serde_json::json;

use crate::harness::{Collector, Host};

fn fact(key: &str, version: u64, text: &str) -> StatePart {
    let body = rmpv::Value::Map(vec![("text".into(), text.into())]);
    let new_hash = Digest::of(&infratrack_shared::codec::encode(&body).unwrap());
    StatePart {
        key: key.to_owned(),
        version,
        base_hash: None,
        new_hash,
        part: 0,
        parts: 1,
        body,
    }
}

async fn stored(collector: &Collector, host: &Host) -> serde_json::Value {
    collector
        .get(&format!("/api/v1/hosts/{}/facts", host.id))
        .await["items"][0]["body"]
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_and_an_older_stream_change_nothing() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    for (version, text) in [(2, "second"), (1, "first")] {
        batch.state = vec![fact("facts.os", version, text)];
        let ack = host.send(&collector, &batch).await.unwrap();
        assert_eq!(ack.state[0].version, version);
    }
    assert_eq!(stored(&collector, &host).await, json!({"text": "second"}));
    let old = batch.stream;
    batch.stream = StreamId::random();
    batch.state = vec![fact("facts.os", 1, "newer stream")];
    host.send(&collector, &batch).await.unwrap();
    assert_eq!(
        stored(&collector, &host).await,
        json!({"text": "newer stream"})
    );
    batch.stream = old;
    batch.state = vec![fact("facts.os", 99, "older stream")];
    host.send(&collector, &batch).await.unwrap();
    assert_eq!(
        stored(&collector, &host).await,
        json!({"text": "newer stream"})
    );
    let changes = collector
        .count(
            "select count(*) from fact_changes where host_id = $1",
            &host,
        )
        .await;
    assert_eq!(changes, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_with_another_hash_is_asked_for_the_whole() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let part = fact("facts.os", 1, "a");
    let hash = Digest::of_set([("facts.os", part.new_hash)]);
    let mut batch = host.batch(&collector);
    let mut heartbeat = host.heartbeat(&collector);
    heartbeat.facts_hash = Some(hash);
    batch.heartbeat = Some(heartbeat.clone());
    let ack = host.send(&collector, &batch).await.unwrap();
    assert_eq!(ack.want_whole[0].key, "facts");
    batch.state = vec![part];
    assert!(
        host.send(&collector, &batch)
            .await
            .unwrap()
            .want_whole
            .is_empty()
    );
    batch.state.clear();
    assert!(
        host.send(&collector, &batch)
            .await
            .unwrap()
            .want_whole
            .is_empty()
    );
    heartbeat.facts_hash = Some(Digest::of(b"changed"));
    batch.heartbeat = Some(heartbeat);
    assert_eq!(
        host.send(&collector, &batch)
            .await
            .unwrap()
            .want_whole
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_that_the_list_leaves_out_is_gone_and_its_hash_agrees_again() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let kept = fact("facts.os", 2, "a");
    let mut batch = host.batch(&collector);
    batch.state = vec![fact("facts.dropped", 1, "b"), kept.clone()];
    host.send(&collector, &batch).await.unwrap();
    let mut heartbeat = host.heartbeat(&collector);
    heartbeat.facts_hash = Some(Digest::of_set([("facts.os", kept.new_hash)]));
    batch.heartbeat = Some(heartbeat);
    batch.state.clear();
    let ack = host.send(&collector, &batch).await.unwrap();
    assert_eq!(ack.want_whole[0].key, FACTS);
    // An older list than the facts changes nothing, nor does what is no list.
    for (version, body) in [
        (1, rmpv::Value::Array(vec!["facts.os".into()])),
        (8, "facts.os".into()),
        (9, rmpv::Value::Array(vec!["facts.os".into()])),
    ] {
        assert_eq!(facts(&collector, &host).await.len(), 2);
        batch.state = vec![StatePart {
            body,
            ..fact(FACTS, version, "")
        }];
        let ack = host.send(&collector, &batch).await.unwrap();
        assert_eq!(ack.state[0].version, version);
    }
    assert_eq!(facts(&collector, &host).await, ["facts.os"]);
    batch.state.clear();
    let ack = host.send(&collector, &batch).await.unwrap();
    assert!(ack.want_whole.is_empty());
    let sql = "select count(*) from fact_changes where host_id = $1 and new_body is null";
    assert_eq!(collector.count(sql, &host).await, 1);
}

async fn facts(collector: &Collector, host: &Host) -> Vec<String> {
    let path = format!("/api/v1/hosts/{}/facts", host.id);
    let facts = collector.get(&path).await;
    let items = facts["items"].as_array().unwrap();
    items
        .iter()
        .map(|fact| fact["key"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_of_a_fact_is_rejected_by_key_and_version() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut batch = host.batch(&collector);
    let delta = StatePart {
        base_hash: Some(Digest::of(b"base")),
        ..fact("facts.cpu", 3, "delta")
    };
    batch.state = vec![delta, fact("facts.os", 1, "whole")];
    let ack = host.send(&collector, &batch).await.unwrap();
    assert_eq!(ack.rejected[0].key.as_deref(), Some("facts.cpu"));
    assert_eq!(ack.rejected[0].version, Some(3));
    assert_eq!(ack.state[0].key, "facts.os");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_called_what_its_identity_says() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let body = rmpv::Value::Map(vec![("hostname".into(), "renamed\0".into())]);
    let mut batch = host.batch(&collector);
    batch.state = vec![StatePart {
        body,
        ..fact("facts.identity", 1, "")
    }];
    host.send(&collector, &batch).await.unwrap();
    let shown = collector.get(&format!("/api/v1/hosts/{}", host.id)).await;
    assert_eq!(shown["name"], "renamed\u{fffd}");
}
