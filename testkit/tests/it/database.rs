//! A database that is away, slow, or loses races: agents are put off, pages answer, and nothing is lost.
//!
//! `INFRATRACK_OUTAGE_S` and `INFRATRACK_AGENTS` make the long forms shorter or smaller.

use std::time::Duration;

use http::StatusCode;
use infratrack_collector::config::Config;
use infratrack_testkit::fleet::{Fleet, FleetConfig, FleetReport, Stats};
use infratrack_testkit::ledger;
use infratrack_testkit::nemesis::{Setup, World};
use infratrack_testkit::proxy::Fault;
use tokio::time::Instant;

/// What waited is stored within this of the outage's end.
const DRAINED: Duration = Duration::from_secs(300);
/// What a collector may take more in an outage: its queue, and what is on the way there.
const MORE_BYTES: u64 = 128 * 1024 * 1024;
/// The slowest page but for one in a hundred.
const PAGE: Duration = Duration::from_secs(2);

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(default)
}

async fn until(fleet: &Fleet, what: &str, reached: impl Fn(&Stats) -> bool) {
    let deadline = Instant::now() + DRAINED;
    while !reached(&fleet.stats()) {
        assert!(Instant::now() < deadline, "{what}: {}", fleet.stats());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything that was offered is stored, once and in order.
async fn assert_whole(world: &World, report: &FleetReport) -> anyhow::Result<()> {
    let verdict = ledger::verify(world.pool(), &report.ledger).await?;
    assert!(verdict.is_whole(), "{verdict}");
    assert_eq!(
        report.ledger.acknowledged_records(),
        report.ledger.records.len(),
        "{}",
        report.stats
    );
    assert_eq!(verdict.records_stored, report.ledger.records.len());
    Ok(())
}

#[expect(clippy::print_stderr, reason = "what was measured")]
async fn outage(agents: usize, lasts: Duration) -> anyhow::Result<()> {
    let world = World::start(0, 1).await?;
    let config = FleetConfig {
        count: agents,
        wait: Duration::from_millis(500),
        drain: DRAINED,
        ..world.fleet_config()?
    };
    let fleet = Fleet::start(config).await?;
    let beats = 2 * agents as u64;
    until(&fleet, "heartbeats", |stats| {
        stats.heartbeats_acknowledged >= beats
    })
    .await;
    let calm = fleet.stats();
    assert!(calm.errors.is_empty(), "{calm}");
    let before = world.collector().memory_bytes("VmHWM")?;
    world.database().set(Fault::Reset);
    tokio::time::sleep(lasts).await;
    let away = fleet.stats();
    world.database().set(Fault::None);
    let healed = Instant::now();
    let waited = away.records_offered - away.records_acknowledged;
    until(&fleet, "the backlog", |stats| {
        stats.records_acknowledged >= away.records_offered
    })
    .await;
    let drained = healed.elapsed();
    let report = fleet.stop().await?;
    let more = world.collector().memory_bytes("VmHWM")? - before;
    eprintln!(
        "{agents} agents, {lasts:?} without Postgres: {waited} records waited, stored within {drained:?}; \
         the collector took {} MiB more\n{}",
        more >> 20,
        report.stats
    );
    assert!(world.database().fired() > 0, "Postgres was away");
    let put_off = away.errors.get("refused: 503 unavailable");
    assert!(
        put_off.is_some_and(|times| *times >= agents as u64),
        "{away}"
    );
    assert_eq!(away.errors.len(), 1, "put off, and nothing else: {away}");
    assert!(waited >= agents as u64, "{away}");
    assert!(more <= MORE_BYTES, "{more} bytes more");
    assert_whole(&world, &report).await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_agents_are_put_off_and_lose_nothing() {
    outage(20, Duration::from_secs(8)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a quarter of an hour; make soak"]
async fn ten_minutes_without_postgres_are_made_up_for_within_five() {
    let agents = usize::try_from(number("INFRATRACK_AGENTS", 200)).unwrap();
    let lasts = Duration::from_secs(number("INFRATRACK_OUTAGE_S", 600));
    outage(agents, lasts).await.unwrap();
}

/// Asks for what operators look at, one thing after the other, until told to stop; how long each took.
async fn browse(world: &World, lasts: Duration) -> anyhow::Result<Vec<Duration>> {
    let api = world.operators_api()?;
    let pages = ["/api/v1/hosts", "/api/v1/hosts?status=unhealthy"];
    let (until, mut took) = (Instant::now() + lasts, Vec::new());
    while Instant::now() < until {
        for page in pages {
            let asked = Instant::now();
            let (status, _) = api.get(page).await?;
            assert_eq!(status, StatusCode::OK, "{page} after {took:?}");
            took.push(asked.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    took.sort_unstable();
    Ok(took)
}

#[expect(clippy::print_stderr, reason = "what was measured")]
async fn slow(lasts: Duration) -> anyhow::Result<()> {
    let world = World::start(0, 2).await?;
    let config = FleetConfig {
        count: 20,
        drain: DRAINED,
        ..world.fleet_config()?
    };
    let fleet = Fleet::start(config).await?;
    until(&fleet, "heartbeats", |stats| {
        stats.heartbeats_acknowledged >= 20
    })
    .await;
    world.slow_commits(Duration::from_millis(500)).await?;
    let before = fleet.stats().records_acknowledged;
    let with_slow = browse(&world, lasts).await?;
    let stored = fleet.stats().records_acknowledged - before;
    assert!(stored > 0, "slow commits are commits");
    let (locked, with_lock) = tokio::try_join!(world.lock_cursors(lasts), browse(&world, lasts))?;
    assert!(locked, "the cursors were locked");
    let slow_commits = world.commits_as_ever().await?;
    assert!(slow_commits > 0, "commits were slow");
    let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
    eprintln!(
        "pages p99 {:?} with {slow_commits} slow commits, {:?} with the cursors locked",
        p99(&with_slow),
        p99(&with_lock)
    );
    assert!(p99(&with_slow) <= PAGE && p99(&with_lock) <= PAGE);
    let log = std::fs::read_to_string(world.collector_log())?;
    assert!(!log.contains("pool timed out"), "the pool was exhausted");
    let report = fleet.stop().await?;
    assert_whole(&world, &report).await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_commits_and_locked_cursors_keep_no_page_waiting() {
    slow(Duration::from_secs(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; make soak"]
async fn half_a_minute_of_slow_commits_and_locked_cursors_keeps_no_page_waiting() {
    slow(Duration::from_secs(30)).await.unwrap();
}

fn eight_writers(config: &mut Config) {
    config.ingest.writers = 8;
}

/// Two collectors, each with eight writers, and the agents of both.
#[expect(clippy::print_stderr, reason = "what was measured")]
async fn contend(lasts: Duration) -> anyhow::Result<()> {
    let mut world = World::with(Setup {
        change: eight_writers,
        ..Setup::new(40, 3)
    })
    .await?;
    world.progress().await?;
    let sql = "select deadlocks from pg_stat_database where datname = current_database()";
    let until = Instant::now() + lasts;
    let mut switched = 0;
    while Instant::now() < until {
        // What one has begun for a host, the other meets.
        switched += u32::from(world.switch_collector().await?);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let failed = world.fail_commits(Duration::from_secs(2)).await?;
    world.progress().await?;
    let verdict = world.drain_and_verify(false).await?;
    let deadlocks: i64 = sqlx::query_scalar(sql).fetch_one(world.pool()).await?;
    eprintln!("switched {switched} times, {failed} updates failed by the nemesis\n{verdict}");
    assert!(switched > 3 && failed > 5, "{switched}, {failed}");
    assert!(verdict.is_whole(), "{verdict}");
    // Those by the nemesis are none that Postgres has seen.
    assert_eq!(deadlocks, 0);
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_writers_never_deadlock_and_lost_races_are_run_again() {
    contend(Duration::from_secs(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes; make soak"]
async fn sixteen_writers_never_deadlock_in_five_minutes() {
    contend(Duration::from_secs(300)).await.unwrap();
}

/// The same agents alternate between two collectors, of which one stands still for a while.
async fn paused(lasts: Duration) -> anyhow::Result<()> {
    let mut world = World::start(6, 4).await?;
    world.progress().await?;
    assert!(world.switch_from_paused(lasts).await?);
    // Whatever it had begun before, it goes on with, beside its successor.
    let mut switched = 0;
    for _ in 0..6 {
        switched += u32::from(world.switch_collector().await?);
        world.progress().await?;
    }
    assert!(switched > 2, "{switched}");
    let verdict = world.drain_and_verify(false).await?;
    assert!(verdict.is_whole(), "{verdict}");
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_woken_stores_nothing_again() {
    paused(Duration::from_secs(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes; make soak"]
async fn a_collector_that_is_woken_after_a_minute_stores_nothing_again() {
    paused(Duration::from_secs(60)).await.unwrap();
}
