//! Documents of every kind become hosts; what operators said stays; what left is missing; a preview tells it all.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{by_name, csv, post, terraform};
use crate::harness::Collector;

const ANSIBLE: &str = r#"{"_meta": {"hostvars": {"web-1": {"ansible_host": "10.0.0.1", "infratrack_environment": "prod"},
    "db-1": {"ansible_host": "10.0.0.2"}}}, "all": {"children": ["web"]}, "web": {"hosts": ["web-1"]},
    "ungrouped": {"hosts": ["db-1"]}}"#;

fn total(report: &Value, what: &str) -> i64 {
    report[what]["total"].as_i64().unwrap()
}

/// A report without what no two runs share.
fn plain(mut report: Value) -> Value {
    report["dry_run"] = Value::Null;
    for created in report["created"]["items"].as_array_mut().unwrap() {
        created["host_id"] = Value::Null;
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_makes_hosts_and_the_same_document_again_changes_nothing() {
    let collector = Collector::start().await;
    for (kind, content_type, document) in [
        ("ansible", "application/json", ANSIBLE),
        (
            "csv",
            "text/csv",
            "name,addresses,owner\nweb-2,10.0.1.1,ops\nweb-3,10.0.1.2,\n",
        ),
        (
            "terraform",
            "application/json",
            r#"{"format_version": "1.0", "values": {"root_module": {"resources": [
            {"address": "hcloud_server.a", "mode": "managed", "type": "hcloud_server", "name": "a",
             "values": {"id": "4711", "name": "a", "ipv4_address": "192.0.2.1", "labels": {"role": "web"}}},
            {"address": "hcloud_server.b", "mode": "managed", "type": "hcloud_server", "name": "b",
             "values": {"id": "4712", "name": "b", "ipv4_address": "192.0.2.2"}}]}}}"#,
        ),
    ] {
        let how = format!("source={kind}&kind={kind}");
        let (status, report) = post(&collector, &how, content_type, document).await;
        assert_eq!(status, StatusCode::OK, "{report}");
        assert_eq!(
            (total(&report, "created"), &report["entries"]),
            (2, &json!(2)),
            "{report}"
        );
        let (_, again) = post(&collector, &how, content_type, document).await;
        assert_eq!(
            (total(&again, "created"), total(&again, "updated")),
            (0, 0),
            "{again}"
        );
        assert_eq!(again["unchanged"], 2);
    }
    let web = by_name(&collector, "web-1").await;
    assert_eq!(
        (web["origin"].as_str(), web["environment"].as_str()),
        (Some("inventory"), Some("prod"))
    );
    assert_eq!(
        (&web["addresses"], &web["tags"]),
        (&json!(["10.0.0.1"]), &json!(["group:web"]))
    );
    assert_eq!(web["status"], "unknown");
    let audit = collector.get("/api/v1/audit?action=inventory.sync").await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 6);
    let made = collector.get("/api/v1/audit?action=host.create").await;
    assert_eq!(made["items"].as_array().unwrap().len(), 6);
    assert_eq!(collector.get("/api/v1/inventory/sources").await["total"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_edited_is_not_overwritten() {
    let collector = Collector::start().await;
    csv(
        &collector,
        "",
        "name,addresses,tags,owner\nweb-1,10.0.0.1,a,ops\n",
    )
    .await;
    let host = by_name(&collector, "web-1").await;
    let path = format!("/api/v1/hosts/{}", host["id"].as_str().unwrap());
    let patch = json!({"owner": "mine", "tags": ["mine"]}).to_string();
    let headers = [
        ("if-match", "*"),
        ("content-type", "application/merge-patch+json"),
    ];
    let edited = crate::hosts::call(&collector, Method::PATCH, &path, &headers, &patch).await;
    assert_eq!(edited.status(), StatusCode::OK);
    let report = csv(
        &collector,
        "",
        "name,addresses,tags,owner,environment\nweb-1,10.0.0.7,b,dev,prod\n",
    )
    .await;
    assert_eq!(total(&report, "updated"), 1, "{report}");
    let host = collector.get(&path).await;
    assert_eq!(
        (&host["owner"], &host["tags"]),
        (&json!("mine"), &json!(["mine"]))
    );
    assert_eq!(
        (&host["addresses"], &host["environment"]),
        (&json!(["10.0.0.7"]), &json!("prod"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_left_is_missing_and_never_deleted_and_comes_back() {
    let collector = Collector::start().await;
    let (all, less) = ("name\na\nb\nc\n", "name\na\nb\n");
    csv(&collector, "", all).await;
    let id = by_name(&collector, "c").await["id"].clone();
    let report = csv(&collector, "", less).await;
    assert_eq!(report["missing"]["items"][0]["host_id"], id, "{report}");
    let host = by_name(&collector, "c").await;
    assert!(
        host["missing_since"].is_string() && host["retired_at"].is_null(),
        "{host}"
    );
    assert_eq!(
        collector.get("/api/v1/hosts?state=missing").await["total"],
        1
    );
    // Once is enough.
    assert_eq!(total(&csv(&collector, "", less).await, "missing"), 0);
    let report = csv(&collector, "", all).await;
    assert_eq!(
        (total(&report, "returned"), total(&report, "created")),
        (1, 0),
        "{report}"
    );
    let host = by_name(&collector, "c").await;
    assert_eq!((&host["id"], &host["missing_since"]), (&id, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_says_what_the_run_does_and_does_nothing() {
    let collector = Collector::start().await;
    csv(&collector, "", "name,owner\na,x\nb,x\nc,x\nd,x\n").await;
    csv(&collector, "", "name,owner\na,x\nb,x\nd,x\n").await;
    let next = "name,owner,tags\na,y,t\nc,x,no§tag\nd,x,\ne,x,\n";
    let rows = "select count(*) from audit_log where action <> $1::text";
    let count = async || -> i64 {
        sqlx::query_scalar(rows)
            .bind("x")
            .fetch_one(&collector.pool)
            .await
            .unwrap()
    };
    let before = count().await;
    let preview = csv(&collector, "dry_run=true", next).await;
    assert_eq!(count().await, before);
    assert_eq!(collector.get("/api/v1/hosts").await["total"], 4);
    let run = csv(&collector, "", next).await;
    assert_eq!(plain(preview), plain(run.clone()));
    for what in ["created", "missing", "returned", "warnings"] {
        assert_eq!(total(&run, what), 1, "{what}: {run}");
    }
    let changed: Vec<_> = run["updated"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["key"].clone())
        .collect();
    assert_eq!(changed, ["a", "c"], "c is no longer missing");
    assert_eq!(run["updated"]["items"][0]["before"]["owner"], "x");
    assert_eq!(run["updated"]["items"][0]["after"]["owner"], "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_inventory_does_not_make_a_fleet_missing() {
    let collector = Collector::start().await;
    csv(&collector, "", "name\na\nb\nc\n").await;
    for (document, code, allowed) in [
        ("name\na\n", "inventory_shrunk", "allow_shrink=true"),
        ("name\n", "inventory_empty", "allow_empty=true"),
    ] {
        let how = "source=s&kind=csv";
        let (status, problem) = post(&collector, how, "text/csv", document).await;
        assert_eq!(
            (status, problem["type"].as_str().unwrap().contains(code)),
            (StatusCode::CONFLICT, true),
            "{problem}"
        );
        csv(&collector, allowed, document).await;
    }
    assert_eq!(
        collector.get("/api/v1/hosts?state=missing").await["total"],
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_unique_is_a_conflict_and_makes_no_host() {
    let collector = Collector::start().await;
    for _ in 0..2 {
        let body = json!({"name": "twin", "allow_duplicate_name": true}).to_string();
        let (status, _) = collector.api(Method::POST, "/api/v1/hosts", &body).await;
        assert_eq!(status, StatusCode::CREATED);
    }
    let report = csv(&collector, "", "name,addresses\ntwin,\nx,10.0.0.1\n").await;
    assert_eq!(
        (total(&report, "conflicts"), total(&report, "created")),
        (1, 1),
        "{report}"
    );
    let report = csv(
        &collector,
        "",
        "name,addresses\ntwin,\nx,10.0.0.1\ny,10.0.0.1\n",
    )
    .await;
    assert_eq!(
        (total(&report, "conflicts"), total(&report, "created")),
        (2, 0),
        "{report}"
    );
    assert_eq!(collector.get("/api/v1/hosts").await["total"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_where() {
    let collector = Collector::start().await;
    let plan = r#"{"format_version": "1.2", "planned_values": {}}"#;
    for (how, content_type, document, status, words) in [
        (
            "source=s&kind=csv",
            "text/csv",
            "name,colour\n",
            422,
            "line 1 has the column",
        ),
        (
            "source=s&kind=terraform",
            "application/json",
            plan,
            422,
            "looks like a plan",
        ),
        (
            "source=s&kind=ansible",
            "application/json",
            r#"{"_meta": {"hostvars": 3}}"#,
            422,
            "/_meta is refused",
        ),
        (
            "source=s&kind=puppet",
            "text/csv",
            "name\n",
            400,
            "kind must be one of",
        ),
        (
            "source=a%20b&kind=csv",
            "text/csv",
            "name\n",
            400,
            "source must have",
        ),
        ("kind=csv", "text/csv", "name\n", 400, "source must have"),
        ("from=nowhere", "text/csv", "", 400, "from names no source"),
        (
            "source=s&kind=csv&colour=1",
            "text/csv",
            "name\n",
            400,
            "colour",
        ),
        (
            "source=s&kind=csv",
            "text/plain",
            "name\n",
            415,
            "Content-Type",
        ),
    ] {
        let (got, problem) = post(&collector, how, content_type, document).await;
        assert_eq!(got.as_u16(), status, "{how}: {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{how}: {problem}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_has_its_size_and_a_source_its_kind() {
    let collector = Collector::start().await;
    let long = format!("name\n{}", "x".repeat(16 * 1024 * 1024));
    let (status, _) = post(&collector, "source=s&kind=csv", "text/csv", &long).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    csv(&collector, "", "name\na\n").await;
    let (status, problem) = post(
        &collector,
        "source=s&kind=ansible",
        "application/json",
        ANSIBLE,
    )
    .await;
    assert_eq!(
        (
            status,
            problem["type"].as_str().unwrap().contains("inventory_kind")
        ),
        (StatusCode::CONFLICT, true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_under_another_key_is_the_same_host() {
    let collector = Collector::start().await;
    csv(&collector, "", "name,addresses\na,10.0.0.1\n").await;
    let id = by_name(&collector, "a").await["id"].clone();
    let report = csv(
        &collector,
        "allow_shrink=true",
        "name,addresses,instance_id\na,10.0.0.1,i-1\n",
    )
    .await;
    assert_eq!(
        (total(&report, "created"), total(&report, "missing")),
        (0, 0),
        "{report}"
    );
    let host = by_name(&collector, "a").await;
    assert_eq!(
        (&host["id"], &host["instance_id"], &host["missing_since"]),
        (&id, &json!("i-1"), &Value::Null)
    );
    // Another instance under its name is another host.
    let report = terraform(&collector, "", &[("a", "i-2", "10.0.0.9")]).await;
    assert_eq!(total(&report, "created"), 1, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_source_is_synced_by_name_by_its_interval_and_from_the_page() {
    let collector = Collector::start_with(|config| {
        let file = config.data_dir.join("hosts.csv");
        std::fs::write(&file, "name\na\n").unwrap();
        let source =
            |name: &str, interval: Option<u64>| infratrack_collector::config::inventory::Source {
                name: name.to_owned(),
                kind: infratrack_collector::inventory::documents::Kind::Csv,
                file: Some(file.clone()),
                s3: None,
                resolve_names: false,
                interval: interval.map(std::time::Duration::from_secs),
            };
        config.inventory.sources = vec![source("asked", None), source("own", Some(3600))];
    })
    .await;
    crate::harness::eventually("the sync by interval", || async {
        let sources = collector.get("/api/v1/inventory/sources").await;
        (sources["items"][0]["source"] == "own").then_some(())
    })
    .await;
    let (status, report) = post(
        &collector,
        "from=asked&dry_run=true",
        "application/json",
        "",
    )
    .await;
    assert_eq!(
        (status, &report["unchanged"]),
        (StatusCode::OK, &json!(1)),
        "{report}"
    );
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let page = crate::hosts::call(
        &collector,
        Method::POST,
        "/inventory/sync",
        &headers,
        "from=asked&dry_run=true",
    )
    .await;
    let html = String::from_utf8_lossy(page.body()).into_owned();
    assert_eq!(page.status(), StatusCode::OK, "{html}");
    assert!(html.contains("A sync of asked would do this"), "{html}");
    let page = crate::hosts::call(
        &collector,
        Method::POST,
        "/inventory/sync",
        &headers,
        "from=asked&dry_run=false",
    )
    .await;
    assert!(String::from_utf8_lossy(page.body()).contains("asked was synced"));
    let page = crate::hosts::call(&collector, Method::GET, "/inventory", &[], "").await;
    assert!(String::from_utf8_lossy(page.body()).contains("no agent reports"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_ansible_host_is_looked_up_only_where_that_is_asked_for() {
    // Every resolver knows the first without asking anybody (inet_aton(3)); nobody will ever know the second.
    let document = r#"{"_meta": {"hostvars": {"web": {"ansible_host": "0x0a000001"},
        "db": {"ansible_host": "db.invalid"}}}, "all": {"hosts": ["web", "db"]}}"#;
    let collector = Collector::start_with(|config| {
        let file = config.data_dir.join("hosts.json");
        std::fs::write(&file, document).unwrap();
        let source = infratrack_collector::config::inventory::Source {
            name: "own".to_owned(),
            kind: infratrack_collector::inventory::documents::Kind::Ansible,
            file: Some(file),
            s3: None,
            resolve_names: true,
            interval: None,
        };
        config.inventory.sources = vec![source];
    })
    .await;
    for (how, addresses, warnings) in [
        ("source=s&kind=ansible", json!([]), 0),
        (
            "source=s&kind=ansible&resolve_names=true",
            json!(["10.0.0.1"]),
            1,
        ),
        ("from=own", json!(["10.0.0.1"]), 1),
    ] {
        let (status, report) = post(&collector, how, "application/json", document).await;
        assert_eq!(status, StatusCode::OK, "{report}");
        assert_eq!(total(&report, "warnings"), warnings, "{how}: {report}");
        assert_eq!(
            by_name(&collector, "web").await["addresses"],
            addresses,
            "{how}"
        );
        if warnings > 0 {
            let words = "/_meta/hostvars/db has the name db.invalid, which does not resolve";
            assert_eq!(report["warnings"]["items"][0], words);
        }
    }
    assert_eq!(by_name(&collector, "db").await["addresses"], json!([]));
}
