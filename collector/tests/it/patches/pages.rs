//! The pages of packages and patches, and the timeline's items.

use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Class, Part};
use infratrack_shared::wire::event::{Event, PackageAction, PackageChange, PackageTransaction};
use infratrack_shared::wire::packages::{Manager, PACKAGES, PackagesPart};

use super::{asked, host, update};
use crate::agents::lane::{dpkg, of_dpkg, package, part, send, whole};
use crate::harness::{Collector, record};

pub(crate) async fn page(collector: &Collector, path: &str) -> String {
    let request = http::Request::get(path)
        .header("host", "test")
        .header("authorization", format!("Bearer {}", collector.admin_token))
        .body(http_body_util::Full::default())
        .unwrap();
    let answer = collector.request(request).await;
    let body = String::from_utf8(answer.body().to_vec()).unwrap();
    assert_eq!(answer.status(), 200, "{path}: {body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_shows_what_is_pending_and_inert() {
    let collector = Collector::start().await;
    let evil = "<script>alert(1)</script>";
    let pending = vec![
        update("tool", "2", Some("critical")),
        update(evil, "3", Some(evil)),
    ];
    let host = host(
        &collector,
        &[("tool", "1"), (evil, "1")],
        &asked(Some(evil), pending),
    )
    .await;
    for path in [
        "/patches".to_owned(),
        "/patches?view=packages".to_owned(),
        "/patches?view=advisories".to_owned(),
        "/patches?view=updates&q=t&security=true&severity=critical".to_owned(),
        "/packages".to_owned(),
        "/packages?name=tool".to_owned(),
        format!("/hosts/{}/packages", host.id),
        format!("/hosts/{}/updates", host.id),
    ] {
        let html = page(&collector, &path).await;
        assert!(!html.contains("<script>alert"), "{path}");
        assert!(
            html.contains("tool") || path == "/patches",
            "{path}: {html}"
        );
    }
    let found = page(&collector, "/search?q=too+1").await;
    assert!(found.contains("/packages?q=tool"), "{found}");
    let hosts = page(&collector, "/patches?state=unknown").await;
    assert!(hosts.contains(&host.id.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_one_item_and_what_no_log_tells_another() {
    let collector = Collector::start().await;
    let host = host(
        &collector,
        &[("tool", "1"), ("other", "1")],
        &asked(None, vec![]),
    )
    .await;
    let now = collector.clock.clock().unix_millis();
    let change = |name: &str| PackageChange {
        action: PackageAction::Upgraded,
        name: name.to_owned(),
        from: Some("1".to_owned()),
        to: Some("2".to_owned()),
        ..PackageChange::default()
    };
    let transaction = PackageTransaction {
        manager: Manager::Dpkg,
        source: "/var/log/dpkg.log".to_owned(),
        started_at: UnixMillis(now.0 - 1000),
        ended_at: Some(now),
        command: Some("apt-get upgrade".to_owned()),
        requested_by: Some("anna".to_owned()),
        changes: (0..400)
            .map(|number| change(&format!("package-{number}")))
            .collect(),
        parts: 1,
        ..PackageTransaction::default()
    };
    let mut batch = host.batch(&collector);
    let body = Event::PackageTransaction(transaction).to_body().unwrap();
    batch.parts = vec![Part {
        class: Class::Critical,
        first_seq: 1,
        lost: Vec::new(),
        records: vec![record(1, "package_transaction", body, now)],
    }];
    let ack = host.send(&collector, &batch).await.unwrap();
    assert!(ack.rejected.is_empty(), "{ack:?}");
    let mut held = package(("tool", "1"));
    held.held = true;
    let second = PackagesPart {
        databases: dpkg(None),
        put: of_dpkg(vec![held, package(("new", "1"))]),
        ..whole(&[])
    };
    send(&collector, &host, vec![part(PACKAGES, 3, "three", &second)]).await;
    let path = format!("/api/v1/hosts/{}/timeline?kinds=package", host.id);
    let timeline = collector.get(&path).await;
    let items = timeline["items"].as_array().unwrap();
    let titles: Vec<_> = items
        .iter()
        .map(|item| item["title"].as_str().unwrap())
        .collect();
    assert_eq!(
        titles,
        [
            "Packages: 1 installed, 1 removed, 1 held",
            "400 packages changed"
        ]
    );
    assert_eq!(items[1]["by"], "anna");
    assert_eq!(items[1]["detail"], "apt-get upgrade");
}
