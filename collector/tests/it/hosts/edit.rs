//! Hosts without an agent, and edits that never overwrite what their author has not seen.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{call, json as document, made, say};
use crate::harness::Collector;

async fn patch(
    collector: &Collector,
    id: &str,
    tag: &str,
    body: &Value,
) -> (StatusCode, Value, String) {
    let path = format!("/api/v1/hosts/{id}");
    let answer = call(
        collector,
        Method::PATCH,
        &path,
        &[("if-match", tag)],
        &body.to_string(),
    )
    .await;
    let tag = answer
        .headers()
        .get("etag")
        .map(|tag| tag.to_str().unwrap().to_owned());
    (answer.status(), document(&answer), tag.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_an_agent_is_made_once() {
    let collector = Collector::start().await;
    let body = json!({"name": " router-1 ", "tags": ["net", "dc1", "net"], "owner": "ops", "environment": "prod",
                      "notes": "# Rack 7", "addresses": ["192.0.2.1", "2001:DB8::1"]});
    let answer = call(
        &collector,
        Method::POST,
        "/api/v1/hosts",
        &[],
        &body.to_string(),
    )
    .await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let host = document(&answer);
    let id = host["id"].as_str().unwrap();
    assert_eq!(answer.headers()["location"], *format!("/api/v1/hosts/{id}"));
    assert_eq!(answer.headers()["etag"], "\"1\"");
    for (field, value) in [
        ("name", json!("router-1")),
        ("tags", json!(["dc1", "net"])),
        ("addresses", json!(["192.0.2.1", "2001:db8::1"])),
        ("notes", json!("# Rack 7")),
        ("origin", json!("manual")),
        ("status", json!("unknown")),
        ("liveness", json!("never")),
        (
            "edited",
            json!(["addresses", "environment", "name", "notes", "owner", "tags"]),
        ),
    ] {
        assert_eq!(host[field], value, "{field}");
    }
    let (status, problem) = collector
        .api(Method::POST, "/api/v1/hosts", &body.to_string())
        .await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("name_taken"))
    );
    assert!(problem["detail"].as_str().unwrap().contains(id));
    let again = json!({"name": "router-1", "allow_duplicate_name": true});
    made(&collector, again).await;
    let audit: i64 =
        sqlx::query_scalar("select count(*) from audit_log where action = 'host.create'")
            .fetch_one(&collector.pool)
            .await
            .unwrap();
    assert_eq!(audit, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_make_a_name_at_once_one_is_refused() {
    let collector = Collector::start().await;
    let body = json!({"name": "same"}).to_string();
    let make = || collector.api(Method::POST, "/api/v1/hosts", &body);
    let (a, b, c, d) = tokio::join!(make(), make(), make(), make());
    let made = [a, b, c, d]
        .iter()
        .filter(|answer| answer.0 == StatusCode::CREATED)
        .count();
    assert_eq!(made, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_an_old_version_is_refused_and_none_is_lost() {
    let collector = Collector::start().await;
    let host = made(&collector, json!({"name": "a"})).await;
    let id = host["id"].as_str().unwrap();
    let path = format!("/api/v1/hosts/{id}");
    let (status, problem) = collector.api(Method::PATCH, &path, "{}").await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (428, &json!("if_match_required"))
    );
    let (status, edited, tag) = patch(&collector, id, "\"1\"", &json!({"owner": "alice"})).await;
    assert_eq!((status, tag.as_str()), (StatusCode::OK, "\"2\""));
    assert_eq!(
        (&edited["owner"], &edited["version"]),
        (&json!("alice"), &json!(2))
    );
    let (status, problem, _) = patch(&collector, id, "\"1\"", &json!({"owner": "bob"})).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (412, &json!("changed_since"))
    );
    assert_eq!(collector.get(&path).await["owner"], "alice");
    // What changes nothing is no version.
    let (_, _, tag) = patch(&collector, id, "\"2\"", &json!({"owner": "alice"})).await;
    assert_eq!(tag, "\"2\"");
    let bodies: Vec<_> = (0..6)
        .map(|n| json!({"notes": format!("by {n}")}))
        .collect();
    let all = bodies
        .iter()
        .map(|body| patch(&collector, id, "\"2\"", body));
    let answers = futures_util::future::join_all(all).await;
    let done: Vec<_> = answers
        .iter()
        .filter(|answer| answer.0 == StatusCode::OK)
        .collect();
    assert_eq!(done.len(), 1, "one of those who saw version 2");
    assert_eq!(collector.get(&path).await["notes"], done[0].1["notes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_edits_the_agent_does_not_overwrite_until_it_is_given_back() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let id = host.id.to_string();
    let network = |address: &str| json!({"interfaces": {"eth0": {"addresses": [address]}}});
    say(&collector, &host, 1, "facts.network", network("10.0.0.1/8")).await;
    say(
        &collector,
        &host,
        1,
        "facts.identity",
        json!({"hostname": "told-1"}),
    )
    .await;
    let path = format!("/api/v1/hosts/{id}");
    let told = collector.get(&path).await;
    assert_eq!(
        (&told["name"], &told["addresses"]),
        (&json!("told-1"), &json!(["10.0.0.1"]))
    );
    assert_eq!(told["version"], 1, "what agents say is no edit");
    let body = json!({"name": "mine", "addresses": ["192.0.2.9"]});
    let (status, edited, tag) = patch(&collector, &id, "\"1\"", &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(edited["edited"], json!(["addresses", "name"]));
    say(&collector, &host, 2, "facts.network", network("10.0.0.2/8")).await;
    say(
        &collector,
        &host,
        2,
        "facts.identity",
        json!({"hostname": "told-2"}),
    )
    .await;
    let still = collector.get(&path).await;
    assert_eq!(
        (&still["name"], &still["addresses"]),
        (&json!("mine"), &json!(["192.0.2.9"]))
    );
    let (status, back, _) = patch(
        &collector,
        &id,
        &tag,
        &json!({"name": null, "addresses": null}),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&back["name"], &back["addresses"]),
        (&json!("told-2"), &json!(["10.0.0.2"]))
    );
    assert_eq!(back["edited"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_an_edit_is_named_and_nothing_changes() {
    let collector = Collector::start().await;
    let host = made(&collector, json!({"name": "a"})).await;
    let id = host["id"].as_str().unwrap();
    let many_tags: Vec<_> = (0..65).map(|n| format!("t{n}")).collect();
    let many_addresses: Vec<_> = (0..65).map(|n| format!("10.0.0.{n}")).collect();
    for (body, pointer) in [
        (json!({"nmae": "b"}), "/nmae"),
        (json!({"name": null}), "/name"),
        (json!({"name": ""}), "/name"),
        (json!({"name": "x".repeat(254)}), "/name"),
        (json!({"name": 7}), "/name"),
        (json!({"tags": ["fine", "not fine"]}), "/tags/1"),
        (json!({"tags": ["x".repeat(65)]}), "/tags/0"),
        (json!({"tags": many_tags}), "/tags"),
        (json!({"owner": "x".repeat(129)}), "/owner"),
        (json!({"environment": "a\nb"}), "/environment"),
        (json!({"notes": "x".repeat(16 * 1024 + 1)}), "/notes"),
        (json!({"addresses": ["10.0.0.0/8"]}), "/addresses/0"),
        (json!({"addresses": many_addresses}), "/addresses"),
    ] {
        let (status, problem, _) = patch(&collector, id, "*", &body).await;
        assert_eq!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}: {problem}"
        );
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{body}: {problem}"
        );
    }
    assert_eq!(
        collector.get(&format!("/api/v1/hosts/{id}")).await["version"],
        1
    );
}
