//! `q`: words of every kind, kept in step with facts and metadata.

use http::{Method, StatusCode};
use serde_json::json;

use super::{made, say};
use crate::harness::Collector;

async fn found(collector: &Collector, q: &str) -> Vec<String> {
    let encoded = q.bytes().fold(String::new(), |encoded, byte| {
        format!("{encoded}%{byte:02X}")
    });
    let page = collector
        .get(&format!("/api/v1/hosts?fields=name&q={encoded}"))
        .await;
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|host| host["name"].as_str().unwrap().to_owned())
        .collect()
}

/// A host as its agent tells it.
fn facts() -> [(&'static str, serde_json::Value); 8] {
    [
        (
            "facts.identity",
            json!({"hostname": "prod-web-01.example.org", "machine_id": "ab".repeat(16)}),
        ),
        (
            "facts.os",
            json!({"id": "debian", "pretty_name": "Debian GNU/Linux 12 (bookworm)"}),
        ),
        (
            "facts.kernel",
            json!({"release": "6.1.0-28-amd64", "arch": "x86_64"}),
        ),
        ("facts.cpu", json!({"model": "AMD EPYC 7763", "threads": 8})),
        (
            "facts.mounts",
            json!({"mounts": {"/srv/data": {"source": "/dev/mapper/vg0-srv", "type": "xfs"}}}),
        ),
        (
            "facts.listening",
            json!({"sockets": [{"protocol": "tcp", "port": 5432, "process": "postgres"}]}),
        ),
        (
            "facts.network",
            json!({"interfaces": {"eth0": {"mac": "52:54:00:12:34:56",
            "addresses": ["10.3.7.5/24", "fe80::1/64", "2001:db8::5/64", "nonsense"]}}}),
        ),
        (
            "facts.cloud",
            json!({"provider": "aws", "instance_id": "i-0abc123"}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_by_each_kind_of_word() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    for (key, body) in facts() {
        say(&collector, &host, 1, key, body).await;
    }
    let other = json!({"name": "db-7", "owner": "Storage Team", "environment": "staging",
                       "tags": ["role:db", "dc1"], "addresses": ["10.30.0.9", "2001:db8:7::1"]});
    made(&collector, other).await;
    let web = vec!["prod-web-01.example.org".to_owned()];
    for q in [
        "web",
        "WEB",
        "prod-w",
        "eb-0",
        "web-01.exa",
        "example",
        "10.3.",
        "10.3.7.5",
        "2001:db8::",
        "debian",
        "bookworm",
        "6.1.0-28",
        "amd64",
        "x86_64",
        "epyc",
        "/srv",
        "srv/data",
        "vg0",
        "5432",
        "postgres",
        "52:54:00",
        "i-0abc",
        "abab",
        "web epyc 10.3",
        "(bookworm)",
    ] {
        assert_eq!(found(&collector, q).await, web, "{q}");
    }
    for q in [
        "storage",
        "team",
        "staging",
        "role:db",
        "role",
        "10.30.",
        "2001:db8:7",
        "DB-",
    ] {
        assert_eq!(found(&collector, q).await, ["db-7"], "{q}");
    }
    // Words are ANDed; what is no beginning of a word is not found, but in a name.
    for q in [
        "web storage",
        "ookworm",
        "orage",
        "%",
        "_",
        "\\",
        "nothing:*",
        "&|!",
    ] {
        assert_eq!(found(&collector, q).await, Vec::<String>::new(), "{q}");
    }
    assert_eq!(found(&collector, "").await.len(), 2);
    assert_eq!(found(&collector, "2001:db8:").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_keeps_step_with_facts_and_edits() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    say(&collector, &host, 1, "facts.os", json!({"id": "debian"})).await;
    assert_eq!(found(&collector, "debian").await.len(), 1);
    say(&collector, &host, 2, "facts.os", json!({"id": "almalinux"})).await;
    assert_eq!(found(&collector, "debian").await.len(), 0);
    assert_eq!(found(&collector, "almalinux").await.len(), 1);
    // A list of facts without it takes its words away.
    say(&collector, &host, 3, "facts", json!(["facts.kernel"])).await;
    assert_eq!(found(&collector, "almalinux").await.len(), 0);

    let made = made(&collector, json!({"name": "old", "owner": "alice"})).await;
    let path = format!("/api/v1/hosts/{}", made["id"].as_str().unwrap());
    let body = json!({"name": "new", "owner": null, "tags": ["blue"]}).to_string();
    let answer = super::call(
        &collector,
        Method::PATCH,
        &path,
        &[("if-match", "*")],
        &body,
    )
    .await;
    assert_eq!(answer.status(), StatusCode::OK);
    for (q, count) in [("old", 0), ("alice", 0), ("new", 1), ("blue", 1)] {
        assert_eq!(found(&collector, q).await.len(), count, "{q}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_of_any_size_and_shape_can_be_searched_and_stored() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let words: Vec<_> = (0..5000)
        .map(|n| format!("word{n}-{}", "x".repeat(90)))
        .collect();
    say(&collector, &host, 1, "facts.large", json!({"words": words})).await;
    say(
        &collector,
        &host,
        1,
        "facts.small",
        json!({"a": "needle", "b": ["\\'\"", "", "   ", "-", "\u{1f600}"]}),
    )
    .await;
    assert_eq!(
        found(&collector, "needle").await.len(),
        1,
        "what is large leaves room for what is small"
    );
    assert_eq!(found(&collector, "\u{1f600}").await.len(), 1);
    assert_eq!(found(&collector, "word1").await.len(), 1);
    assert_eq!(
        found(&collector, &format!("word0-{}", "x".repeat(90)))
            .await
            .len(),
        1
    );
    let dead = collector
        .count(
            "select count(*) from dead_letters where host_id = $1",
            &host,
        )
        .await;
    assert_eq!(dead, 0);
}
