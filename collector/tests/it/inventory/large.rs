//! Inventories of a fleet's size: what a sync writes of them, and how long it takes.

use std::fmt::Write as _;
use std::time::Instant;

use infratrack_collector::audit::Actor;
use infratrack_collector::audit::verify::verify;
use infratrack_collector::inventory::documents::Kind;
use infratrack_collector::inventory::report::SyncReport;
use infratrack_collector::inventory::sync::{Options, sync};

use crate::harness::Collector;

/// A table of hosts, each with an address, a tag and an owner.
fn table(hosts: usize, owner: &str) -> String {
    let mut table = "name,instance_id,addresses,tags,owner\n".to_owned();
    for host in 0..hosts {
        let (high, low) = (host / 250, host % 250 + 1);
        let address = format!("10.{}.{}.{low}", high / 250, high % 250);
        writeln!(table, "host-{host:06},i-{host:08x},{address},batch,{owner}").unwrap();
    }
    table
}

async fn synced(collector: &Collector, table: String) -> SyncReport {
    let options = Options {
        source: "large".to_owned(),
        kind: Kind::Csv,
        dry_run: false,
        allow_empty: false,
        allow_shrink: false,
        resolve_names: false,
    };
    let actor = Actor::job("test");
    sync(&collector.server.app, &actor, options, table)
        .await
        .unwrap()
}

/// `cargo test -p infratrack-collector --test it how_long_a_large -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check; takes minutes; make soak"]
#[expect(clippy::print_stdout, reason = "what it measures is to be read")]
async fn how_long_a_large_inventory_takes() {
    for hosts in [50_000, 100_000] {
        let collector = Collector::start().await;
        for (what, owner) in [
            ("creates", "ops"),
            ("changes nothing", "ops"),
            ("changes", "dev"),
        ] {
            let table = table(hosts, owner);
            let began = Instant::now();
            let report = synced(&collector, table).await;
            let took = began.elapsed();
            println!(
                "{hosts} hosts, {what}: {took:?} ({} created, {} updated)",
                report.created.total, report.updated.total
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_sync_writes_every_host_once_and_an_audit_row_for_each_in_order() {
    const HOSTS: i64 = 5003;
    let collector = Collector::start().await;
    let report = synced(&collector, table(5003, "ops")).await;
    assert_eq!(report.created.total, 5003);
    let counted = async |sql: &'static str| -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&collector.pool)
            .await
            .unwrap()
    };
    let hosts = "select count(*) from hosts join host_liveness using (host_id) where owner = 'ops'";
    assert_eq!(counted(hosts).await, HOSTS);
    let linked = "select count(distinct host_id) from expected_hosts where source = 'large'";
    assert_eq!(counted(linked).await, HOSTS);
    // In the order of the document, and the sync after all of them.
    let names: Vec<String> = sqlx::query_scalar(
        "select after ->> 'name' from audit_log where action = 'host.create' order by audit_id",
    )
    .fetch_all(&collector.pool)
    .await
    .unwrap();
    assert_eq!(names.len(), 5003);
    assert!(names.is_sorted());
    let last: String =
        sqlx::query_scalar("select action from audit_log order by audit_id desc limit 1")
            .fetch_one(&collector.pool)
            .await
            .unwrap();
    assert_eq!(last, "inventory.sync");

    let report = synced(&collector, table(5003, "dev")).await;
    assert_eq!((report.updated.total, report.created.total), (5003, 0));
    let exact = "select count(*) from audit_log l join hosts h on l.subject_id = h.host_id::text
         where action = 'host.update' and subject_kind = 'host' and actor_kind = 'job' and actor_name = 'test'
           and before::text = '{\"owner\":\"ops\"}' and after::text = '{\"owner\":\"dev\"}'";
    assert_eq!(counted(exact).await, HOSTS);

    let app = &collector.server.app;
    let rows = 2 * HOSTS + 2;
    let report = crate::harness::eventually("the seals", || async {
        let report = verify(&app.pool, &app.blob, &app.ca.load()).await.unwrap();
        assert!(report.finding.is_none(), "{report:?}");
        (report.pending == 0).then_some(report)
    })
    .await;
    assert!(report.rows >= rows, "{report:?}");
}
