//! Changes by hand: written down, edited, linked to hosts, found again.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::documents;
use crate::harness::Collector;
use crate::hosts::call;

const CHANGES: &str = "/api/v1/changes";

async fn send(
    collector: &Collector,
    method: Method,
    path: &str,
    tag: Option<&str>,
    body: &Value,
) -> (StatusCode, Value, String) {
    let headers: Vec<_> = tag.map(|tag| ("if-match", tag)).into_iter().collect();
    let answer = call(collector, method, path, &headers, &body.to_string()).await;
    let tag = answer.headers().get("etag");
    let tag = tag.map_or("", |tag| tag.to_str().unwrap()).to_owned();
    let document = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status(), document, tag)
}

async fn create(collector: &Collector, body: Value) -> Value {
    let (status, made, _) = send(collector, Method::POST, CHANGES, None, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made
}

fn path(change: &Value) -> String {
    format!("{CHANGES}/{}", change["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_written_down_edited_and_deleted_and_the_audit_log_tells_all() {
    let collector = Collector::start().await;
    let (first, second) = (collector.host().await.id, collector.host().await.id);
    let made = create(
        &collector,
        json!({
            "title": " Replaced the switch ", "note": "by **hand**", "started_at": "2026-01-01T10:00:00Z",
            "ended_at": "2026-01-01T11:00:00Z", "environment": "prod", "hosts": [first, first, second],
            "repository": "https://bot:pass@git.example/a.git", "run_url": "https://tickets.example/7",
        }),
    )
    .await;
    for (field, value) in [
        ("title", json!("Replaced the switch")),
        ("origin", json!("manual")),
        ("tools", json!(["manual"])),
        ("outcome", json!("succeeded")),
        ("actor", json!("test")),
        ("host_count", json!(2)),
        ("repository", json!("https://git.example/a.git")),
    ] {
        assert_eq!(made[field], value, "{field}: {made}");
    }
    let path = path(&made);
    let hosts = collector.get(&format!("{path}/hosts")).await;
    assert_eq!(hosts["total"], 2, "{hosts}");
    let link = &hosts["items"][0]["links"][0];
    assert_eq!(
        (&link["method"], &link["confidence"], &link["run_id"]),
        (&json!("manual"), &json!("certain"), &Value::Null)
    );
    assert_eq!(link["until"], "2026-01-01T11:00:00Z", "{link}");

    let patch = json!({"title": "Replaced both switches", "note": null, "hosts": [second], "ended_at": "2026-01-01T12:00:00Z"});
    let (status, ..) = send(&collector, Method::PATCH, &path, None, &patch).await;
    assert_eq!(status, StatusCode::PRECONDITION_REQUIRED);
    let (status, ..) = send(&collector, Method::PATCH, &path, Some("\"7\""), &patch).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let (status, is, tag) = send(&collector, Method::PATCH, &path, Some("\"1\""), &patch).await;
    assert_eq!((status, tag.as_str()), (StatusCode::OK, "\"2\""), "{is}");
    assert_eq!((&is["note"], &is["host_count"]), (&Value::Null, &json!(1)));
    let (status, same, tag) = send(&collector, Method::PATCH, &path, Some("*"), &patch).await;
    assert_eq!((status, tag.as_str()), (StatusCode::OK, "\"2\""), "{same}");
    let hosts = collector.get(&format!("{path}/hosts")).await;
    assert_eq!(
        hosts["items"][0]["links"][0]["until"],
        "2026-01-01T12:00:00Z"
    );
    assert_eq!(collector.get(&path).await["manual_hosts"], json!([second]));

    let (status, _) = collector.api(Method::DELETE, &path, "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = collector.api(Method::GET, &path, "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let audit = collector.get("/api/v1/audit?subject_kind=change").await;
    let rows = audit["items"].as_array().unwrap();
    let actions: Vec<_> = rows
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["change.delete", "change.update", "change.create"]);
    assert_eq!(rows[1]["before"]["title"], "Replaced the switch");
    assert_eq!(rows[1]["after"]["hosts"], json!([second]), "{}", rows[1]);
    assert!(rows[1]["after"].get("environment").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_is_refused_by_its_place() {
    let collector = Collector::start().await;
    let host = collector.host().await.id;
    let nobody = uuid::Uuid::nil();
    let begun = "2026-01-01T10:00:00Z";
    for (place, body) in [
        ("/title", json!({})),
        ("/title", json!({"title": " "})),
        ("/title", json!({"title": "x".repeat(201)})),
        ("/title", json!({"title": "a\nb"})),
        (
            "/note",
            json!({"title": "x", "note": "x".repeat(16 * 1024 + 1)}),
        ),
        ("/outcome", json!({"title": "x", "outcome": "fine"})),
        (
            "/ended_at",
            json!({"title": "x", "started_at": begun, "ended_at": "2025-01-01T10:00:00Z"}),
        ),
        (
            "/started_at",
            json!({"title": "x", "started_at": "1969-12-31T23:59:59Z"}),
        ),
        (
            "/started_at",
            json!({"title": "x", "started_at": "9999-12-31T23:59:59-23:00"}),
        ),
        (
            "/run_url",
            json!({"title": "x", "run_url": "javascript:alert(1)"}),
        ),
        (
            "/pull_request",
            json!({"title": "x", "pull_request": "a\u{7}"}),
        ),
        ("/actor", json!({"title": "x", "actor": "x".repeat(513)})),
        ("/hosts/1", json!({"title": "x", "hosts": [host, nobody]})),
        ("/hosts/0", json!({"title": "x", "hosts": ["web-1"]})),
        ("/hosts", json!({"title": "x", "hosts": vec![host; 1001]})),
        ("/origin", json!({"title": "x", "origin": "captured"})),
    ] {
        let (status, problem, _) = send(&collector, Method::POST, CHANGES, None, &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], place, "{problem}");
    }
    assert_eq!(collector.get(CHANGES).await["total"], 0);
    let most =
        json!({"title": "x".repeat(200), "note": "x".repeat(16 * 1024), "hosts": vec![host; 1000]});
    assert_eq!(create(&collector, most).await["host_count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_change_that_runs_made_the_note_and_hosts_are_peoples_and_stay() {
    let collector = Collector::start().await;
    let host = collector.host().await.id;
    let headers = [("infratrack-change-id", "CHG-1")];
    let planned = documents::plan(&[documents::resource(
        "a.b",
        &["create"],
        Value::Null,
        json!({}),
    )]);
    let taken = documents::terraform(&collector, &headers, &planned.to_string()).await;
    let path = format!("{CHANGES}/{}", taken["change_id"].as_str().unwrap());
    let note = json!({"note": "asked for by ada", "hosts": [host]});
    let (status, is, tag) = send(&collector, Method::PATCH, &path, Some("\"1\""), &note).await;
    assert_eq!(status, StatusCode::OK, "{is}");
    let before = is.clone();
    for body in [
        json!({"title": "x"}),
        json!({"outcome": "failed"}),
        json!({"run_url": null, "note": "x"}),
    ] {
        let (status, problem, _) = send(&collector, Method::PATCH, &path, Some(&tag), &body).await;
        assert_eq!(
            (status, &problem["type"]),
            (StatusCode::CONFLICT, &json!("captured"))
        );
    }
    let (status, problem) = collector.api(Method::DELETE, &path, "").await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("captured"))
    );
    documents::terraform(
        &collector,
        &headers,
        &documents::apply(&[("a.b", "create", true)]),
    )
    .await;
    let now = collector.get(&path).await;
    let change = &now["change"];
    assert_eq!(
        (&change["outcome"], &change["note"]),
        (&json!("succeeded"), &before["note"])
    );
    assert_eq!(
        (&change["host_count"], &now["manual_hosts"]),
        (&json!(1), &json!([host]))
    );
    // What a run brought is no edit.
    assert_eq!(change["version"], before["version"], "{now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_found_by_what_narrows_them_and_all_of_them_as_csv() {
    let collector = Collector::start().await;
    let host = collector.host().await.id;
    let changes = [
        json!({"title": "one", "actor": "ada", "repository": "a/b", "started_at": "2026-01-01T10:00:00Z", "hosts": [host]}),
        json!({"title": "two", "actor": "bob", "outcome": "failed", "started_at": "2026-01-02T10:00:00Z"}),
        json!({"title": "=three", "actor": "bob", "started_at": "2026-01-03T10:00:00Z"}),
    ];
    for change in changes {
        create(&collector, change).await;
    }
    documents::terraform(&collector, &[], &documents::plan(&[]).to_string()).await;
    for (query, titles) in [
        ("repository=a%2Fb", &["one"][..]),
        ("actor=bob&to=2026-01-03T00:00:00Z", &["two"]),
        ("outcome=failed", &["two"]),
        ("tool=manual", &["=three", "two", "one"]),
        ("tool=manual&from=2026-01-02T00:00:00Z", &["=three", "two"]),
        ("tool=terraform", &["Terraform plan"]),
        ("tool=ansible", &[]),
        (&format!("host={host}"), &["one"]),
        ("host=00000000-0000-0000-0000-000000000000", &[]),
    ] {
        let list = collector.get(&format!("{CHANGES}?{query}")).await;
        let items = list["items"].as_array().unwrap().iter();
        let found: Vec<_> = items.map(|row| row["title"].as_str().unwrap()).collect();
        assert_eq!(found, titles, "{query}");
        assert_eq!(list["total"], titles.len(), "{query}");
    }
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = collector
            .get(&format!("{CHANGES}?tool=manual&limit=2{cursor}"))
            .await;
        let items = page["items"].as_array().unwrap().iter();
        seen.extend(items.map(|row| row["title"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["=three", "two", "one"]);
    for bad in [
        "tool=chef",
        "outcome=ok",
        "format=csv&limit=2",
        "host=web-1",
    ] {
        let (status, problem) = collector
            .api(Method::GET, &format!("{CHANGES}?{bad}"), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {problem}");
    }
    let csv = call(
        &collector,
        Method::GET,
        &format!("{CHANGES}?format=csv&tool=manual"),
        &[],
        "",
    )
    .await;
    let text = String::from_utf8_lossy(csv.body()).into_owned();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains(",'=three,"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_same_hosts_at_about_the_same_time_are_possibly_related() {
    let collector = Collector::start().await;
    let (a, b) = (collector.host().await.id, collector.host().await.id);
    let change = |title: &str, begun: &str, over: &str, hosts: Value| {
        let at = |time: &str| format!("2026-01-01T{time}:00Z");
        json!({"title": title, "started_at": at(begun), "ended_at": at(over), "hosts": hosts})
    };
    let mine = create(&collector, change("mine", "10:00", "11:00", json!([a, b]))).await;
    for other in [
        change("before", "07:30", "08:00", json!([a])),
        change("too early", "07:30", "07:59", json!([a])),
        change("after", "13:00", "14:00", json!([a, b])),
        change("too late", "13:01", "14:00", json!([a])),
        change("meanwhile", "10:30", "10:31", json!([b])),
        change("all day", "00:00", "23:00", json!([b])),
        change("elsewhere", "10:30", "10:31", json!([])),
    ] {
        create(&collector, other).await;
    }
    let related = collector.get(&format!("{}/related", path(&mine))).await;
    let items = related["items"].as_array().unwrap().iter();
    let found: Vec<_> = items
        .map(|row| {
            (
                row["title"].as_str().unwrap(),
                row["shared_host_count"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("after", 2),
            ("meanwhile", 1),
            ("before", 1),
            ("all day", 1)
        ]
    );
}

/// Sends a form; answers the status, where it sends to, and the page.
async fn submit(
    collector: &Collector,
    path: &str,
    fields: &[(&str, &str)],
) -> (StatusCode, String, String) {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = serde_html_form::to_string(fields).unwrap();
    let answer = call(collector, Method::POST, path, &form, &body).await;
    let to = answer.headers().get("location");
    let to = to.map_or("", |to| to.to_str().unwrap()).to_owned();
    let page = String::from_utf8_lossy(answer.body()).into_owned();
    (answer.status(), to, page)
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_do_what_the_api_does_and_what_was_typed_is_not_lost() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let post = async |path: &str, fields: &[(&str, &str)]| submit(&collector, path, fields).await;
    let (status, _, page) = post("/changes", &[("title", "x"), ("hosts", "nobody")]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        page.contains("none is called nobody") && page.contains("value=\"x\""),
        "{page}"
    );
    let fields = [
        ("title", "Moved a rack"),
        ("hosts", "TEST-host"),
        ("note", "one\r\ntwo"),
        ("started_at", "2026-01-01T10:00"),
    ];
    let (status, page, why) = post("/changes", &fields).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{why}");
    let api = format!("/api/v1{page}");
    let made = collector.get(&api).await;
    assert_eq!(made["change"]["note"], "one\ntwo", "{made}");
    assert_eq!(made["manual_hosts"], json!([host.id]));
    let (status, ..) = post(
        &format!("{page}/note"),
        &[("version", "1"), ("note", "three")],
    )
    .await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let late = [("version", "1"), ("note", "typed for an hour")];
    let (status, _, text) = post(&format!("{page}/note"), &late).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert!(
        text.contains("typed for an hour") && text.contains("not done"),
        "{text}"
    );
    let id = host.id.to_string();
    let (status, ..) = post(
        &format!("{page}/hosts"),
        &[("version", "2"), ("remove", &id)],
    )
    .await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let (status, ..) = post(&format!("{page}/hosts"), &[("version", "3"), ("add", &id)]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let edit = [
        ("version", "4"),
        ("title", "Moved a rack twice"),
        ("outcome", "failed"),
    ];
    let (status, _, why) = post(&format!("{page}/edit"), &edit).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{why}");
    let is = collector.get(&api).await;
    let change = &is["change"];
    assert_eq!(
        (&change["title"], &change["actor"]),
        (&json!("Moved a rack twice"), &Value::Null)
    );
    assert_eq!(
        (&change["note"], &is["manual_hosts"]),
        (&json!("three"), &json!([host.id]))
    );
    assert_eq!(change["started_at"], "2026-01-01T10:00:00Z");
    let (status, to, _) = post(&format!("{page}/delete"), &[]).await;
    assert_eq!((status, to.as_str()), (StatusCode::SEE_OTHER, "/changes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_reads_and_an_operator_writes_and_neither_deletes() {
    let collector = Collector::start().await;
    let api = path(&create(&collector, json!({"title": "Moved a rack"})).await);
    let page = api.replace("/api/v1", "");
    for (role, may_write) in [("viewer", false), ("operator", true)] {
        let token = json!({"name": role, "role": role}).to_string();
        let (_, token) = collector.api(Method::POST, "/api/v1/tokens", &token).await;
        let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
        let headers = [("authorization", bearer.as_str())];
        let made = call(
            &collector,
            Method::POST,
            CHANGES,
            &headers,
            "{\"title\":\"x\"}",
        )
        .await;
        assert_eq!(made.status() == StatusCode::CREATED, may_write, "{role}");
        let gone = call(&collector, Method::DELETE, &api, &headers, "").await;
        assert_eq!(gone.status(), StatusCode::FORBIDDEN);
        let shown = call(&collector, Method::GET, &page, &headers, "").await;
        let shown = String::from_utf8_lossy(shown.body()).into_owned();
        assert_eq!(shown.contains("id=\"edit-note\""), may_write);
        assert!(!shown.contains("id=\"delete\""));
    }
}
