//! Ten thousand connections that say nothing, and a fleet that goes on beside them.
//!
//! `INFRATRACK_AGENTS` makes it smaller.

use std::time::Duration;

use infratrack_testkit::fleet::{Fleet, FleetConfig};
use infratrack_testkit::ledger;
use infratrack_testkit::nemesis::World;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::Instant;

/// What a collector of all of them may hold.
const RSS_BYTES: u64 = 1024 * 1024 * 1024;
/// All are connected within this.
const CONNECTED: Duration = Duration::from_secs(600);
const LOAD: Duration = Duration::from_secs(60);
/// Of the busy agents, each of which sends one a second.
const BATCHES_PER_S: usize = 350;

fn number(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(default)
}

#[expect(clippy::print_stderr, reason = "what was measured")]
async fn crowd(idle: usize, busy: usize, lasts: Duration) -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let world = World::start(0, 1).await?;
    // An agent whose answer is held has a connection that says nothing until the next heartbeat.
    let crowd = Fleet::start(FleetConfig {
        count: idle,
        interval: Duration::from_secs(60),
        wait: Duration::from_secs(60),
        events_per_beat: 0,
        ..world.fleet_config()?
    })
    .await?;
    let deadline = Instant::now() + CONNECTED;
    while crowd.stats().heartbeats_acknowledged < idle as u64 {
        anyhow::ensure!(Instant::now() < deadline, "{}", crowd.stats());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let fleet = Fleet::start(FleetConfig {
        count: busy,
        ..world.fleet_config()?
    })
    .await?;
    tokio::time::sleep(lasts).await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", world.collector().pid()))?.count();
    let report = fleet.stop().await?;
    let idle_stats = crowd.stats();
    let rss = world.collector().memory_bytes("VmHWM")?;
    eprintln!(
        "{idle} idle and {busy} busy: {} MiB at its peak, {open} descriptors\nidle: {idle_stats}\nbusy: {}",
        rss >> 20,
        report.stats
    );
    anyhow::ensure!(open >= idle, "only {open} descriptors");
    anyhow::ensure!(rss <= RSS_BYTES, "{rss} bytes");
    anyhow::ensure!(idle_stats.errors.is_empty(), "{idle_stats}");
    anyhow::ensure!(report.stats.errors.is_empty(), "{}", report.stats);
    let (offered, stored) = (
        report.stats.heartbeats_offered,
        report.stats.heartbeats_acknowledged,
    );
    anyhow::ensure!(offered == stored, "{}", report.stats);
    let verdict = ledger::verify(world.pool(), &report.ledger).await?;
    anyhow::ensure!(verdict.is_whole(), "{verdict}");
    let crowd = crowd.stop().await?;
    let verdict = ledger::verify(world.pool(), &crowd.ledger).await?;
    anyhow::ensure!(verdict.is_whole(), "{verdict}");
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes and both cores; make soak"]
async fn ten_thousand_idle_connections_cost_a_busy_fleet_nothing() {
    let idle = number("INFRATRACK_AGENTS", 10_000);
    let busy = (idle * BATCHES_PER_S / 10_000).max(1);
    crowd(idle, busy, LOAD).await.unwrap();
}
