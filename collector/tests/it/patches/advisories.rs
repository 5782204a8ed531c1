//! Imported advisories: what they say of hosts, by API and page, and what becomes of a feed that can't be read.

use std::path::{Path, PathBuf};

use infratrack_collector::advisories;
use infratrack_collector::config::advisories::Feed;
use infratrack_collector::config::{Config, Interval};
use infratrack_shared::wire::packages::{Group, Manager, PACKAGES, Package, PackagesPart, UPDATES};
use serde_json::{Value, json};
use sqlx::Executor;
use time::Duration;

use super::api::of_items;
use super::pages::page;
use super::{asked, update};
use crate::agents::lane::{dpkg, of_dpkg, package, part, send};
use crate::harness::{Collector, Host};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/advisories")
        .join(name)
}

fn feed(name: &str, format: &str, location: &Path) -> Feed {
    let format = serde_json::from_value(json!(format)).unwrap();
    Feed {
        name: name.to_owned(),
        format,
        location: location.display().to_string(),
    }
}

async fn with(feeds: Vec<Feed>) -> Collector {
    let collector = Collector::start_with(move |config: &mut Config| {
        config.advisories.feeds = feeds;
        // Once at the start; then the test does it.
        let rarely = Interval(Duration::days(7).unsigned_abs());
        config
            .jobs
            .intervals
            .insert("advisories".to_owned(), rarely);
    })
    .await;
    collector.job_has_run("advisories").await;
    collector
}

async fn import(collector: &Collector) -> anyhow::Result<()> {
    advisories::run(collector.server.app.clone()).await
}

/// A host of this distribution with these packages.
async fn host(collector: &Collector, os: Value, packages: PackagesPart) -> Host {
    let host = collector.host().await;
    let mut batch = host.batch(collector);
    batch.state = vec![part("facts.os", 1, "os", &os)];
    let ack = host.send(collector, &batch).await.unwrap();
    assert_eq!(ack.state.len(), 1);
    let state = vec![part(PACKAGES, 1, "packages", &packages)];
    let (_, late) = send(collector, &host, state).await;
    assert_eq!(late.unwrap().state.len(), 1);
    host
}

fn bookworm() -> Value {
    json!({"id": "debian", "version": "12", "codename": "bookworm"})
}

/// libssl3 and libssl-dev are built from openssl; curl is of another vendor on this one.
fn of_debian(openssl: &str, curl: &str) -> PackagesPart {
    let built = |name: &str| Package {
        source: Some("openssl".to_owned()),
        ..package((name, openssl))
    };
    PackagesPart {
        databases: dpkg(None),
        put: of_dpkg(vec![
            built("libssl3"),
            built("libssl-dev"),
            package(("curl", curl)),
        ]),
        gone: Vec::new(),
    }
}

fn of_rpm(packages: &[(&str, &str, &str)]) -> PackagesPart {
    let of = |(name, version, vendor): &(&str, &str, &str)| Package {
        vendor: Some((*vendor).to_owned()),
        ..package((name, version))
    };
    PackagesPart {
        databases: Vec::new(),
        put: vec![Group {
            manager: Manager::Rpm,
            packages: packages.iter().map(of).collect(),
        }],
        gone: Vec::new(),
    }
}

/// `id package state`, a line each.
fn lines(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().unwrap().iter();
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    items
        .map(|item| {
            let [id, package, state] = ["id", "package", "state"].map(|name| text(item, name));
            format!("{id} {package} {state}").trim().to_owned()
        })
        .collect()
}

async fn of_host(collector: &Collector, host: &Host) -> Vec<String> {
    lines(
        &collector
            .get(&format!("/api/v1/hosts/{}/advisories", host.id))
            .await,
    )
}

async fn with_the_tracker() -> Collector {
    let path = fixture("tracker.json");
    let collector = with(vec![feed("debian", "debian-tracker", &path)]).await;
    import(&collector).await.unwrap();
    collector
}

/// Two of Debian 12: one with old versions, one with fixed and with others'; and one of Debian 11.
async fn three(collector: &Collector) -> [Host; 3] {
    let old = of_debian("3.0.11-1~deb12u2", "7.88.1-10+deb12u8");
    // Older than upstream's release that mends it; the distribution's has it by a backport.
    let new = of_debian("3.0.13-1~deb12u1", "8.9.1-2~bpo12+1");
    let eleven = of_debian("1.1.1w-0+deb11u1", "7.74.0");
    [
        host(collector, bookworm(), old).await,
        host(collector, bookworm(), new).await,
        host(collector, json!({"id": "debian", "version": "11"}), eleven).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backported_fix_counts_and_the_states_are_kept_apart() {
    let collector = with_the_tracker().await;
    let [old, new, eleven] = three(&collector).await;
    assert_eq!(
        of_host(&collector, &old).await,
        [
            "TEMP-0000000-A1B2C3 openssl unknown",
            "CVE-2024-9681 curl affected",
            "CVE-2024-4741 openssl no_fix",
            "CVE-2023-5678 openssl affected",
        ]
    );
    assert_eq!(
        of_host(&collector, &new).await,
        [
            "TEMP-0000000-A1B2C3 openssl unknown",
            "CVE-2024-9681 curl unknown",
            "CVE-2024-4741 openssl no_fix",
            "CVE-2023-5678 openssl fixed",
        ]
    );
    assert_eq!(
        of_host(&collector, &eleven).await,
        [
            "CVE-2024-4741 openssl not_affected",
            "CVE-2023-5678 openssl no_fix"
        ]
    );
    let other = json!({"id": "devuan", "version": "5"});
    let other = host(&collector, other, of_debian("1", "1")).await;
    let path = format!("/api/v1/hosts/{}/advisories", other.id);
    let none = collector.get(&path).await;
    assert_eq!(
        (&none["is_known"], &none["distribution"]),
        (&json!(false), &json!("devuan:5"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_s_list_goes_on_and_an_advisory_counts_its_hosts() {
    let collector = with_the_tracker().await;
    let [old, ..] = three(&collector).await;
    let path = format!("/api/v1/hosts/{}/advisories?limit=1&state=affected", old.id);
    let first = collector.get(&path).await;
    assert_eq!((lines(&first).len(), &first["total"]), (1, &json!(2)));
    assert_eq!(first["items"][0]["fixed_version"], "7.88.1-10+deb12u9");
    assert_eq!(first["counts"]["no_fix"], 1);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = collector.get(&format!("{path}&cursor={cursor}")).await;
    assert_eq!(lines(&rest), ["CVE-2023-5678 openssl affected"]);

    let detail = collector.get("/api/v1/advisories/CVE-2023-5678").await;
    assert_eq!(
        detail["host_counts"],
        json!({"affected": 1, "no_fix": 1, "not_affected": 0, "fixed": 1, "unknown": 0})
    );
    assert_eq!(detail["statements"][0]["distribution"], "debian:11");
    let hosts = "/api/v1/advisories/CVE-2023-5678/hosts";
    assert_eq!(collector.get(hosts).await["total"], 3);
    let affected = collector.get(&format!("{hosts}?state=affected")).await;
    assert_eq!(of_items(&affected, "host_id"), [old.id.to_string()]);
    assert_eq!(affected["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_in_the_fleet_is_listed_and_what_is_no_advisory_is_missing() {
    let collector = with_the_tracker().await;
    three(&collector).await;
    import(&collector).await.unwrap();
    let open = collector
        .get("/api/v1/advisories/open?state=affected")
        .await;
    assert_eq!(of_items(&open, "id"), ["CVE-2024-9681", "CVE-2023-5678"]);
    assert_eq!(open["items"][1]["host_counts"]["no_fix"], 1);
    let curl = collector
        .get("/api/v1/advisories/open?state=unknown&q=curl")
        .await;
    assert_eq!(of_items(&curl, "id"), ["CVE-2024-9681"]);
    for (path, status) in [
        ("/api/v1/advisories/CVE-1-1", 404),
        ("/api/v1/advisories/CVE-1-1/hosts", 404),
        ("/api/v1/advisories/open?state=fixed", 400),
        ("/api/v1/advisories/CVE-2023-5678/hosts?state=x", 400),
    ] {
        let (answered, _) = collector.api(http::Method::GET, path, "").await;
        assert_eq!(answered, status, "{path}");
    }
}

/// A host of Debian 12 with updates: a rebuild of the fixed version, one from elsewhere, and one that mends nothing.
async fn with_updates(collector: &Collector) -> Host {
    let [installed, curl] = ["3.0.11-1~deb12u2", "7.88.1-10+deb12u8"];
    let host = host(collector, bookworm(), of_debian(installed, curl)).await;
    let pending = |name: &str, installed: &str, candidate: &str| {
        let mut update = update(name, candidate, None);
        installed.clone_into(&mut update.installed);
        update.repository = Some("Debian-Security:12/stable-security".to_owned());
        update
    };
    let mut elsewhere = pending("libssl-dev", installed, "3.0.14-1");
    elsewhere.repository = Some("Elsewhere:stable".to_owned());
    let pending = vec![
        pending("libssl3", installed, "3.0.13-1~deb12u1+b1"),
        elsewhere,
        pending("curl", curl, "7.88.1-10+deb12u8+b2"),
    ];
    let updates = asked(None, pending);
    send(
        collector,
        &host,
        vec![part(UPDATES, 2, "updates", &updates)],
    )
    .await;
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_names_what_its_candidate_mends() {
    let collector = with_the_tracker().await;
    let host = with_updates(&collector).await;
    let path = format!("/api/v1/hosts/{}/updates", host.id);
    let answer = collector.get(&path).await;
    assert_eq!(of_items(&answer, "name"), ["curl", "libssl-dev", "libssl3"]);
    let items = answer["items"].as_array().unwrap().iter();
    let named: Vec<_> = items.map(|item| item["cves"].clone()).collect();
    assert_eq!(named, [json!([]), json!([]), json!(["CVE-2023-5678"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_show_what_is_mended_and_what_has_no_fix_yet() {
    let collector = with_the_tracker().await;
    let host = with_updates(&collector).await;
    let html = page(&collector, &format!("/hosts/{}/updates", host.id)).await;
    assert!(html.contains("/advisories/CVE-2023-5678"), "{html}");
    let (_, rest) = html.split_once("No fix yet").unwrap();
    assert!(rest.contains("/advisories/CVE-2024-4741"), "{html}");
    let of_host = format!("/hosts/{}/advisories", host.id);
    for (path, words) in [
        ("/patches?view=vulnerabilities", "Feeds"),
        ("/patches?view=vulnerabilities&state=no_fix", "Feeds"),
        ("/advisories/CVE-2023-5678", "3.0.13-1~deb12u1"),
        ("/advisories/CVE-2024-4741?state=no_fix", "no fix yet"),
        (&of_host, "CVE-2023-5678"),
        (&format!("{of_host}?state=no_fix"), "CVE-2024-4741"),
    ] {
        let html = page(&collector, path).await;
        assert!(html.contains(words), "{path}: {html}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_of_others_are_unknown_and_those_of_rpm_go_by_their_own_versions() {
    let collector = with(vec![
        feed("osv", "osv", &fixture("osv.jsonl")),
        feed("rhel", "oval", &fixture("redhat.oval.xml")),
    ])
    .await;
    import(&collector).await.unwrap();
    let alma = json!({"id": "almalinux", "version": "9.4"});
    let of_alma = of_rpm(&[("openssl-libs", "1:3.0.7-24.el9", "AlmaLinux")]);
    let own = host(&collector, alma.clone(), of_alma).await;
    assert_eq!(
        of_host(&collector, &own).await,
        ["ALSA-2024:2447 openssl-libs affected"]
    );
    let of_other = of_rpm(&[("openssl-libs", "1:3.0.7-24.el9", "Somebody Else")]);
    let other = host(&collector, alma, of_other).await;
    assert_eq!(
        of_host(&collector, &other).await,
        ["ALSA-2024:2447 openssl-libs unknown"]
    );
    let rhel = json!({"id": "rhel", "version": "9.3"});
    let of_rhel = of_rpm(&[("openssl-libs", "1:3.0.7-27.el9", "Red Hat, Inc.")]);
    let rhel = host(&collector, rhel, of_rhel).await;
    assert_eq!(
        of_host(&collector, &rhel).await,
        [
            "RHSA-2024:2447 openssl-libs fixed",
            "CVE-2024-1086 openssl-libs not_affected",
            "CVE-2024-0002 openssl-libs no_fix",
        ]
    );
    let detail = collector.get("/api/v1/advisories/CVE-2023-5678").await;
    let advisories = detail["advisories"].as_array().unwrap();
    assert!(advisories.contains(&json!("ALSA-2024:2447")));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_subscriptions_and_orders_that_are_not_known_are_told_apart() {
    let collector = with(vec![feed("osv", "osv", &fixture("osv.jsonl"))]).await;
    import(&collector).await.unwrap();
    let rocky = json!({"id": "rocky", "version": "9.5"});
    for (version, state) in [
        ("1.0-1.el9", "not_affected"),
        ("1.2-1.el9", "affected"),
        ("2.2-1.el9", "no_fix"),
        ("2.5-1.el9", "fixed"),
    ] {
        let of_rocky = of_rpm(&[("tool", version, "Rocky Enterprise Software Foundation")]);
        let host = host(&collector, rocky.clone(), of_rocky).await;
        assert_eq!(
            of_host(&collector, &host).await,
            [format!("RLSA-2024:1 tool {state}")],
            "{version}"
        );
    }
    let ubuntu = json!({"id": "ubuntu", "version": "18.04"});
    for (version, state) in [
        ("1.1.1-1ubuntu2.1~18.04.23", "affected"),
        ("1.1.1-1ubuntu2.1~18.04.23+esm5", "fixed"),
    ] {
        let packages = PackagesPart {
            databases: dpkg(None),
            put: of_dpkg(vec![package(("openssl", version))]),
            gone: Vec::new(),
        };
        let host = host(&collector, ubuntu.clone(), packages).await;
        assert_eq!(
            of_host(&collector, &host).await,
            [format!("CVE-2024-2511 openssl {state}")],
            "{version}"
        );
    }
    let alpine = json!({"id": "alpine", "version": "3.18.4"});
    for (version, state) in [("3.1.4-r1", "fixed"), ("3.1.4-r0", "unknown")] {
        let packages = PackagesPart {
            put: vec![Group {
                manager: Manager::Apk,
                packages: vec![package(("openssl", version))],
            }],
            ..PackagesPart::default()
        };
        let host = host(&collector, alpine.clone(), packages).await;
        assert_eq!(
            of_host(&collector, &host).await,
            [format!("CVE-2023-5678 openssl {state}")],
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_cannot_be_read_keeps_what_it_said_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tracker.json");
    std::fs::copy(fixture("tracker.json"), &path).unwrap();
    let collector = with(vec![feed("debian", "debian-tracker", &path)]).await;
    import(&collector).await.unwrap();
    let feeds = collector.get("/api/v1/advisories/feeds").await;
    assert_eq!(
        (
            &feeds["items"][0]["statement_count"],
            &feeds["items"][0]["error"]
        ),
        (&json!(7), &Value::Null)
    );
    let host = host(
        &collector,
        bookworm(),
        of_debian("3.0.11-1~deb12u2", "7.88.1"),
    )
    .await;
    let before = of_host(&collector, &host).await;

    std::fs::write(
        &path,
        "{\"openssl\": {\"CVE-2023-5678\": {\"releases\": 7}}}",
    )
    .unwrap();
    collector.clock.advance(Duration::hours(2));
    let error = import(&collector).await.unwrap_err();
    assert!(format!("{error:#}").contains("line 1, column"), "{error:#}");
    let feeds = collector.get("/api/v1/advisories/feeds").await;
    let said = feeds["items"][0]["error"].as_str().unwrap();
    assert!(said.contains("tracker.json: line 1, column"), "{said}");
    assert_eq!(of_host(&collector, &host).await, before);
    let html = page(&collector, "/patches?view=vulnerabilities").await;
    assert!(html.contains("not read"), "{html}");

    std::fs::write(&path, "{}").unwrap();
    collector.clock.advance(Duration::hours(2));
    import(&collector).await.unwrap();
    assert!(of_host(&collector, &host).await.is_empty());
}

/// The statements that the collector asks these tables by, as they were checked when it was built.
fn questions() -> Vec<String> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let mut questions = Vec::new();
    for entry in std::fs::read_dir(cache).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let statement: Value = serde_json::from_str(&text).unwrap();
        let sql = statement["query"].as_str().unwrap();
        let is_asked =
            sql.contains("advisory_verdicts") || sql.contains("join advisory_statements");
        if is_asked && !sql.starts_with("insert") {
            questions.push(sql.to_owned());
        }
    }
    questions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_s_advisories_and_an_advisory_s_hosts_are_index_scans() {
    let collector = Collector::start().await;
    let mut connection = collector.pool.acquire().await.unwrap();
    for sql in [
        "set enable_seqscan = off",
        "set plan_cache_mode = force_generic_plan",
    ] {
        connection.execute(sql).await.unwrap();
    }
    let questions = questions();
    assert_eq!(questions.len(), 6, "{questions:#?}");
    for sql in questions {
        let count = (1..20)
            .filter(|number| sql.contains(&format!("${number}")))
            .count();
        let nulls = vec!["null"; count].join(", ");
        let prepare = format!("prepare asked as {sql}");
        connection
            .execute(sqlx::AssertSqlSafe(prepare))
            .await
            .unwrap();
        let explain = format!("explain (costs off) execute asked({nulls})");
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
            .persistent(false)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(!plan.contains("Seq Scan"), "{sql}\n{plan}");
        connection.execute("deallocate asked").await.unwrap();
    }
}
