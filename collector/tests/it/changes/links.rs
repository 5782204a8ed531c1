//! Which hosts runs are linked to: at once, when a state or an apply tells more, when an agent enrolls.

use std::process::Command;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::harness::{Collector, Host, eventually};
use crate::hosts::{call, say};

/// A host whose agent says these facts.
async fn host(collector: &Collector, facts: &[(&str, Value)]) -> Host {
    let host = collector.host().await;
    for (seq, (key, body)) in (1..).zip(facts) {
        say(collector, &host, seq, key, body.clone()).await;
    }
    let is_there = || async {
        let query = "select count(*) from facts where host_id = $1";
        let count: i64 = sqlx::query_scalar(query)
            .bind(host.id.0)
            .fetch_one(&collector.pool)
            .await
            .unwrap();
        (usize::try_from(count).unwrap() >= facts.len()).then_some(())
    };
    eventually("the facts", is_there).await;
    host
}

fn named(name: &str) -> (&'static str, Value) {
    (
        "facts.identity",
        json!({"hostname": name, "machine_id": Uuid::new_v4().simple().to_string()}),
    )
}

fn at(address: &str, mac: &str) -> (&'static str, Value) {
    let interface = json!({"mac": mac, "addresses": [format!("{address}/24")]});
    ("facts.network", json!({"interfaces": {"eth0": interface}}))
}

fn cloud(id: &str) -> (&'static str, Value) {
    (
        "facts.dmi",
        json!({"cloud": {"provider": "aws", "instance_id": id}}),
    )
}

fn change(address: &str, actions: &[&str], before: &Value, after: &Value) -> Value {
    json!({"address": address, "mode": "managed", "type": "aws_instance", "name": "x",
        "provider_name": "registry.terraform.io/hashicorp/aws",
        "change": {"actions": actions, "before": before, "after": after, "after_unknown": {}}})
}

fn plan(changes: &[Value]) -> String {
    json!({"format_version": "1.2", "terraform_version": "1.11.4", "resource_changes": changes})
        .to_string()
}

async fn post(collector: &Collector, headers: &[(&str, &str)], body: &str) -> Value {
    let answer = call(collector, Method::POST, "/ingest/terraform", headers, body).await;
    assert_eq!(answer.status(), StatusCode::CREATED, "{:?}", answer.body());
    serde_json::from_slice(answer.body()).unwrap()
}

async fn again(collector: &Collector) {
    let app = &collector.server.app;
    eventually("the job's turn", || async {
        let run =
            infratrack_collector::jobs::run::once(app, "change_links", async |app, connection| {
                infratrack_collector::links::run(app, connection).await
            });
        run.await.unwrap().map(drop)
    })
    .await;
}

/// The links of a run: role, state, host, method, confidence.
async fn links(
    collector: &Collector,
    run: &Value,
) -> Vec<(String, String, Option<Uuid>, Option<String>)> {
    let run: Uuid = run.as_str().unwrap().parse().unwrap();
    sqlx::query_as(
        "select role, state, host_id, method || ' ' || confidence from change_links where run_id = $1
         order by ordinal, role",
    )
    .bind(run)
    .fetch_all(&collector.pool)
    .await
    .unwrap()
}

fn linked(role: &str, host: &Host, by: &str) -> (String, String, Option<Uuid>, Option<String>) {
    let (role, state) = (role.to_owned(), "linked".to_owned());
    (role, state, Some(host.id.0), Some(by.to_owned()))
}

fn waits(role: &str, state: &str) -> (String, String, Option<Uuid>, Option<String>) {
    (role.to_owned(), state.to_owned(), None, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ambiguous_links_nobody() {
    let collector = Collector::start().await;
    let one = host(
        &collector,
        &[
            named("web-1"),
            at("10.0.0.5", "02:00:00:00:00:01"),
            cloud("i-1"),
        ],
    )
    .await;
    let two = host(
        &collector,
        &[named("web-2"), at("10.0.0.5", "02:00:00:00:00:02")],
    )
    .await;
    let three = host(
        &collector,
        &[named("web-3"), at("10.0.0.7", "02:00:00:00:00:03")],
    )
    .await;
    let update = |address, value: Value| change(address, &["update"], &value, &value);
    let taken = post(
        &collector,
        &[],
        &plan(&[
            update("a", json!({"id": "i-1", "private_ip": "10.0.0.5"})),
            update("b", json!({"private_ip": "10.0.0.5"})),
            update("c", json!({"private_ip": "10.0.0.7"})),
            update("d", json!({"tags": {"Name": "web-2"}})),
            update(
                "e",
                json!({"tags": {"infratrack_host": "web-3", "Name": "web-1"}}),
            ),
            change(
                "f",
                &["no-op"],
                &json!({"id": "i-1"}),
                &json!({"id": "i-1"}),
            ),
        ]),
    )
    .await;
    assert_eq!(
        links(&collector, &taken["run_id"]).await,
        [
            linked("is", &one, "instance_id certain"),
            waits("is", "ambiguous"),
            linked("is", &three, "private_address low"),
            linked("is", &two, "name low"),
            linked("is", &three, "host certain"),
        ]
    );
    assert_eq!(taken["linked_hosts"], 3, "{taken}");
    let change = format!("/api/v1/changes/{}", taken["change_id"].as_str().unwrap());
    assert_eq!(collector.get(&change).await["change"]["host_count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_changes_nothing_links_its_host() {
    let collector = Collector::start().await;
    let one = host(&collector, &[named("web-1"), cloud("i-1")]).await;
    let value = json!({"id": "i-1"});
    let stays = |address| change(address, &["no-op"], &value, &value);
    let mut imported = stays("aws_instance.imported");
    imported["change"]["importing"] = json!({"id": "i-1"});
    let changes = [stays("aws_instance.same"), imported];
    let taken = post(&collector, &[], &plan(&changes)).await;
    assert_eq!(
        links(&collector, &taken["run_id"]).await,
        [linked("is", &one, "instance_id certain")]
    );
    assert_eq!(taken["linked_hosts"], 1, "{taken}");
    let summary = &taken["summary"];
    assert_eq!(
        (&summary["import"], &summary["no_op"]),
        (&json!(1), &json!(2))
    );
}

/// What the uploader would send of a document.
fn uploaded(document: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document).unwrap();
    let uploader = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/bin/infratrack-plan");
    let mut command = Command::new("python3");
    let arguments = [uploader, "plan", file.path().to_str().unwrap(), "--dry-run"];
    let done = command.args(arguments).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_without_marks_link_by_ids_and_addresses_and_keep_none_of_them() {
    let collector = Collector::start().await;
    let id = "i-0123412341234abcd";
    let one = host(&collector, &[named("web-1"), cloud(id)]).await;
    let two = host(
        &collector,
        &[named("web-2"), at("10.0.0.7", "02:00:00:00:00:03")],
    )
    .await;
    let update = |address, value: &Value| change(address, &["update"], value, value);
    let of_one = json!({"id": id, "password": "never-to-be-seen"});
    let of_two = json!({"private_ip": "10.0.0.7", "tags": {"Name": "web-1"}});
    let mut stranger = update("own_server.x", &of_one);
    stranger["type"] = json!("own_server");
    let resources = [
        update("aws_instance.a", &of_one),
        update("aws_instance.b", &of_two),
        update("aws_instance.c", &json!({"tags": {"Name": "web-1"}})),
        stranger,
    ];
    let document = plan(&resources).replace("\"1.2\"", "\"0.1\"");
    for document in [uploaded(&document), document] {
        let taken = post(&collector, &[], &document).await;
        assert_eq!(
            links(&collector, &taken["run_id"]).await,
            [
                linked("is", &one, "instance_id certain"),
                linked("is", &two, "private_address low"),
            ]
        );
        let path = format!("/changes/{}", taken["change_id"].as_str().unwrap());
        let run = taken["run_id"].as_str().unwrap();
        let kept = format!("/api/v1{path}/runs/{run}/resources");
        let kept = collector.get(&kept).await.to_string();
        let artifact = format!("/api/v1{path}/runs/{run}/artifact");
        let artifact = call(&collector, Method::GET, &artifact, &[], "").await;
        let artifact = String::from_utf8_lossy(artifact.body()).into_owned();
        for text in [kept, artifact] {
            for value in [id, "10.0.0.7", "never-to-be-seen"] {
                assert!(
                    text.contains("aws_instance.a") && !text.contains(value),
                    "{text}"
                );
            }
        }
    }
}

/// The events of an apply of ten minutes that creates an instance, and when it began.
fn apply(ended: OffsetDateTime, address: &str, id: &str) -> (String, String) {
    let began = (ended - Duration::minutes(10)).format(&Rfc3339).unwrap();
    let hook = json!({"resource": {"addr": address, "resource_type": "aws_instance"}, "action": "create",
        "id_key": "id", "id_value": id, "elapsed_seconds": 1});
    let events = [
        json!({"@level": "info", "type": "version", "terraform": "1.11.4", "ui": "1.2"}),
        json!({"@level": "info", "@timestamp": began, "type": "apply_complete", "hook": hook}),
        json!({"@level": "info", "@timestamp": ended.format(&Rfc3339).unwrap(), "type": "change_summary",
            "changes": {"add": 1, "change": 0, "remove": 0, "operation": "apply"}}),
    ];
    (began, events.map(|event| event.to_string()).join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_waits_for_its_host() {
    let collector = Collector::start().await;
    let before = host(&collector, &[named("web-1")]).await;
    let headers = [("infratrack-workspace", "prod")];
    let create = |address| {
        change(
            address,
            &["create"],
            &Value::Null,
            &json!({"tags": {"Name": "web-1"}}),
        )
    };
    let planned = post(
        &collector,
        &headers,
        &plan(&[create("aws_instance.a"), create("aws_instance.b")]),
    )
    .await;
    assert_eq!(planned["linked_hosts"], 0, "{planned}");
    assert_eq!(
        links(&collector, &planned["run_id"]).await,
        [waits("is", "pending"), waits("is", "pending")]
    );
    let path = format!("/api/v1/changes/{}", planned["change_id"].as_str().unwrap());
    let waiting = collector.get(&format!("{path}/links?state=pending")).await;
    assert_eq!(waiting["total"], 2, "{waiting}");
    assert_eq!(waiting["items"][0]["name"], "aws_instance.a");
    assert_eq!(waiting["items"][0]["marks"], json!({"name": ["web-1"]}));
    let page = call(&collector, Method::GET, &path["/api/v1".len()..], &[], "").await;
    let page = String::from_utf8(page.into_body().to_vec()).unwrap();
    assert!(page.contains("Without a host"), "{page}");
    // The apply tells the id of the one, the state that of the other.
    let ended = collector.clock.now().replace_nanosecond(0).unwrap();
    let (began, apply) = apply(ended, "aws_instance.a", "i-10");
    let applied = post(
        &collector,
        &[headers[0], ("infratrack-stage", "apply")],
        &apply,
    )
    .await;
    assert_eq!(applied["change_id"], planned["change_id"]);
    let runs = collector.get(&path).await["runs"].clone();
    let apply_run = &runs[0];
    assert_eq!(
        (&apply_run["kind"], &apply_run["started_at"]),
        (&json!("apply"), &json!(began))
    );
    let state = json!({"format_version": "1.0", "terraform_version": "1.11.4", "values": {"root_module": {"resources": [
        {"address": "aws_instance.b", "mode": "managed", "type": "aws_instance", "name": "b",
         "provider_name": "x", "values": {"id": "i-11"}}]}}});
    post(&collector, &headers, &state.to_string()).await;
    let a = host(&collector, &[named("web-1"), cloud("i-10")]).await;
    let b = host(&collector, &[named("other"), cloud("i-11")]).await;
    again(&collector).await;
    let of_plan = [
        linked("is", &a, "instance_id certain"),
        linked("is", &b, "instance_id certain"),
    ];
    assert_eq!(links(&collector, &planned["run_id"]).await, of_plan);
    assert_eq!(links(&collector, &applied["run_id"]).await, of_plan[..1]);
    assert_eq!(collector.get(&path).await["change"]["host_count"], 2);
    let hosts = collector.get(&format!("{path}/hosts")).await;
    assert_eq!(hosts["items"][1]["host_id"], json!(a.id), "{hosts}");
    assert_eq!(hosts["items"][1]["links"].as_array().unwrap().len(), 2);
    assert_ne!(before.id, a.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_has_two_hosts_and_the_ledger_knows_the_one_that_is_gone() {
    let collector = Collector::start().await;
    let old = host(&collector, &[named("web-1"), cloud("i-1")]).await;
    let headers = [("infratrack-workspace", "prod")];
    let value = json!({"id": "i-1", "tags": {"Name": "web-1"}});
    let replace = change(
        "aws_instance.a",
        &["delete", "create"],
        &value,
        &json!({"tags": {"Name": "web-1"}}),
    );
    let planned = post(&collector, &headers, &plan(&[replace])).await;
    assert_eq!(
        links(&collector, &planned["run_id"]).await,
        [
            waits("is", "pending"),
            linked("was", &old, "instance_id certain")
        ]
    );
    let is_destroyed = async || {
        let path = "/api/v1/inventory/expected?state=destroyed_reporting";
        let rows = collector.get(path).await;
        rows["items"].as_array().unwrap().len()
    };
    assert_eq!(is_destroyed().await, 0);
    let hook = |action: &str, id: Value| {
        json!({"@level": "info", "type": "apply_complete", "hook": {"resource": {"addr": "aws_instance.a"}, "action": action,
            "id_key": "id", "id_value": id}})
    };
    let apply = format!(
        "{}\n{}",
        hook("delete", Value::Null),
        hook("create", json!("i-2"))
    );
    let applied = post(
        &collector,
        &[headers[0], ("infratrack-stage", "apply")],
        &apply,
    )
    .await;
    let new = host(&collector, &[named("web-1"), cloud("i-2")]).await;
    again(&collector).await;
    let both = [
        linked("is", &new, "instance_id certain"),
        linked("was", &old, "instance_id certain"),
    ];
    for run in [&planned, &applied] {
        assert_eq!(links(&collector, &run["run_id"]).await, both);
    }
    // It still reports, which nobody expects of a machine that is gone.
    say(&collector, &old, 9, "facts.os", json!({"id": "debian"})).await;
    eventually("the ledger", async || {
        (is_destroyed().await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plays_find_hosts_by_machine_address_and_name_and_those_that_enroll_later() {
    let collector = Collector::start().await;
    let machine = json!({"hostname": "db-1", "machine_id": "0123456789abcdef0123456789abcdef"});
    let db = host(&collector, &[("facts.identity", machine)]).await;
    let web = host(
        &collector,
        &[
            named("web-1.example.com"),
            at("192.0.2.7", "02:00:00:00:00:01"),
        ],
    )
    .await;
    let records = json!([
        {"kind": "start", "at": "2026-01-01T10:00:00.000Z", "format": 1, "playbook": "site.yml"},
        {"kind": "host", "number": 0, "name": "primary", "machine_id": "0123456789abcdef0123456789abcdef"},
        {"kind": "host", "number": 1, "name": "front", "ansible_host": "192.0.2.7"},
        {"kind": "host", "number": 2, "name": "web-1"},
        {"kind": "host", "number": 3, "name": "localhost", "ansible_host": "127.0.0.1"},
        {"kind": "host", "number": 4, "name": "later"},
    ]);
    let run = Uuid::new_v4();
    let body = json!({"run": run, "first_seq": 1, "records": records}).to_string();
    let answer = call(&collector, Method::POST, "/ingest/ansible", &[], &body).await;
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    let later = host(&collector, &[named("later")]).await;
    again(&collector).await;
    assert_eq!(
        links(&collector, &json!(run)).await,
        [
            linked("play", &db, "machine_id high"),
            linked("play", &web, "public_address medium"),
            linked("play", &web, "name low"),
            linked("play", &later, "name low"),
        ]
    );
    let touched: Vec<Uuid> =
        sqlx::query_scalar("select host_id from change_hosts where run_id = $1 order by host_id")
            .bind(run)
            .fetch_all(&collector.pool)
            .await
            .unwrap();
    let mut all = vec![db.id.0, web.id.0, later.id.0];
    all.sort_unstable();
    assert_eq!(touched, all);
}
