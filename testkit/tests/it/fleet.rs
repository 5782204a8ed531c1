//! The simulated fleet and its ledger against a collector in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use infratrack_collector::agents::enroll::{TokenOptions, create_token};
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::server::{self, Addresses, Server};
use infratrack_testkit::fleet::{Fleet, FleetConfig, Stats, Tokens};
use infratrack_testkit::ledger::{self, Item};
use infratrack_testkit::postgres::TestDatabase;
use sqlx::PgPool;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_agrees_with_the_tables_although_the_collector_went_away() {
    let database = TestDatabase::create().await.unwrap();
    let data_dir = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (collector, pool) = start(&database, data_dir.path(), [any; 3]).await.unwrap();
    let Addresses {
        agents,
        enroll,
        operators,
    } = collector.addresses;
    let token = token(&collector, &pool).await.unwrap();
    let fleet = Fleet::start(FleetConfig {
        count: 20,
        disk: 2,
        interval: Duration::from_millis(200),
        events_per_beat: 2,
        backlog: 300,
        batch_records: 100,
        pace: Duration::from_millis(20),
        wait: Duration::from_millis(100),
        backoff_scale: 0.02,
        drain: DEADLINE,
        ..FleetConfig::new(agents, enroll, Tokens::Given(vec![token]))
    })
    .await
    .unwrap();

    until(&fleet, |stats| stats.records_acknowledged > 3000).await;
    collector.stop().await;
    until(&fleet, |stats| {
        stats.errors.keys().any(|kind| kind.starts_with("connect"))
    })
    .await;
    let again = start(&database, data_dir.path(), [agents, enroll, operators]);
    let (collector, _) = again.await.unwrap();
    until(&fleet, |stats| {
        stats.records_acknowledged > 6500 && stats.reconnects >= 20
    })
    .await;
    let mut report = fleet.stop().await.unwrap();

    let ledger = &report.ledger;
    assert_eq!(ledger.acknowledged_records(), ledger.records.len());
    assert_eq!(ledger.acknowledged_heartbeats(), ledger.heartbeats.len());
    assert_eq!(report.stats.forks, 0);
    let verdict = ledger::verify(&pool, ledger).await.unwrap();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.records_stored, ledger.records.len());
    assert_eq!(verdict.heartbeats_stored, ledger.heartbeats.len());
    assert_eq!(verdict.records_declared_lost, 0);

    // The check is one: it finds what the tables lack.
    let (host, stream, n) = *ledger.heartbeats.keys().next().unwrap();
    let n = n + 1_000_000;
    report
        .ledger
        .add(&Item::HeartbeatAcknowledged { host, stream, n });
    let verdict = ledger::verify(&pool, &report.ledger).await.unwrap();
    assert_eq!(verdict.violations.len(), 1, "{verdict}");
    collector.stop().await;
}

async fn start(
    database: &TestDatabase,
    data_dir: &Path,
    [agents, enroll, operators]: [SocketAddr; 3],
) -> anyhow::Result<(Server, PgPool)> {
    let mut config = Config {
        data_dir: data_dir.to_owned(),
        ..Config::default()
    };
    config.agents.listen = agents;
    config.enroll.listen = enroll;
    config.operators.listen = operators;
    config.ingest.host_batches_per_second = 1000;
    config.ingest.host_batches_burst = 1000;
    let options = database.connect_options();
    let own = server::connect(options.clone(), &config).await?;
    let pool = server::connect(options, &config).await?;
    let server = Server::start(config, Clock::system(), own).await?;
    Ok((server, pool))
}

async fn token(collector: &Server, pool: &PgPool) -> anyhow::Result<String> {
    let (app, options) = (
        &collector.app,
        TokenOptions {
            max_uses: 500,
            ..TokenOptions::default()
        },
    );
    let pin = app.ca.load().root_pin(app.clock.now())?;
    let token = create_token(
        pool,
        pin,
        &options,
        &infratrack_collector::audit::Actor::job("test"),
        app.clock.now(),
    )
    .await;
    Ok(token?.reveal())
}

async fn until(fleet: &Fleet, reached: impl Fn(&Stats) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached(&fleet.stats()) {
        assert!(Instant::now() < deadline, "{}", fleet.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
