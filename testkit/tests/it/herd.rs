//! A whole fleet that lost its collector and finds it again: nobody comes back in step.
//!
//! `INFRATRACK_AGENTS` and `INFRATRACK_OUTAGE_S` make it smaller or shorter.

use std::time::Duration;

use infratrack_testkit::fleet::{Fleet, FleetConfig, FleetReport, Stats};
use infratrack_testkit::ledger;
use infratrack_testkit::nemesis::World;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::Instant;

/// All are back within this.
const BACK: Duration = Duration::from_secs(180);
/// Handshakes are counted in windows of this.
const WINDOW_S: usize = 10;
/// What a collector of 10,000 may hold.
const RSS_BYTES: u64 = 600 * 1024 * 1024;

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(default)
}

/// MiB of the collector at its peak.
fn assert_small(world: &World) -> u64 {
    let rss = world.collector().memory_bytes("VmHWM");
    let rss = rss.expect("the collector runs");
    assert!(rss <= RSS_BYTES, "{rss} bytes");
    rss >> 20
}

/// Whoever is told to come back later is told by these, and by nothing else.
fn assert_only_put_off(stats: &Stats) {
    let mut refusals = stats
        .errors
        .keys()
        .filter(|kind| kind.starts_with("refused"));
    let known = |kind: &String| kind.contains("429") || kind.contains("503");
    assert!(refusals.all(known), "{stats}");
}

async fn until(what: &str, limit: Duration, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Connections made in each second from now on, until all `agents` have one again.
async fn returns(fleet: &Fleet, agents: u64) -> Vec<u64> {
    let began = fleet.stats().reconnects;
    let (start, mut before, mut each) = (Instant::now(), began, Vec::new());
    while before < began + agents {
        assert!(
            start.elapsed() < BACK,
            "{} of {agents} are back",
            before - began
        );
        tokio::time::sleep_until(start + Duration::from_secs(each.len() as u64 + 1)).await;
        let now = fleet.stats().reconnects;
        each.push(now - before);
        before = now;
    }
    each
}

#[expect(clippy::print_stderr, reason = "what was measured")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes and both cores; make soak"]
async fn ten_thousand_agents_come_back_one_after_another() {
    let agents = number("INFRATRACK_AGENTS", 10_000);
    let outage = Duration::from_secs(number("INFRATRACK_OUTAGE_S", 240));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut world = World::start(0, 1).await.unwrap();
    let config = FleetConfig {
        count: usize::try_from(agents).unwrap(),
        interval: Duration::from_secs(30),
        wait: Duration::from_secs(60),
        // An hour's heartbeats and as many events wait in each spool from the start.
        backlog: 120,
        drain: Duration::from_secs(120),
        ..world.fleet_config().unwrap()
    };
    let fleet = Fleet::start(config).await.unwrap();
    until("the backlog", BACK, || {
        fleet.stats().records_acknowledged >= agents * 120
    })
    .await;
    until("heartbeats of all", BACK, || {
        fleet.stats().heartbeats_acknowledged >= agents * 2
    })
    .await;
    let calm = fleet.stats();
    assert_only_put_off(&calm);
    let rss = assert_small(&world);

    assert!(world.kill_collector(outage).await.unwrap());
    let each = returns(&fleet, agents).await;
    let windows: Vec<u64> = each
        .chunks(WINDOW_S)
        .map(|some| some.iter().sum())
        .collect();
    let mean = agents as f64 / each.len() as f64;
    let peak = each.iter().copied().max().unwrap_or_default() as f64 / mean;
    eprintln!("{calm}\ncollector at its peak: {rss} MiB");
    eprintln!(
        "back in {} s, per 10 s: {windows:?}, peak second {peak:.1} times the mean",
        each.len()
    );
    assert!(peak <= 3.0, "{peak}: {each:?}");

    // No echo: once they are back, nobody goes away again.
    let back = fleet.stats().reconnects;
    until("heartbeats after it", BACK, || {
        fleet.stats().heartbeats_acknowledged >= calm.heartbeats_acknowledged + agents * 4
    })
    .await;
    assert_eq!(fleet.stats().reconnects, back, "an echo");
    assert_small(&world);
    let FleetReport { stats, ledger } = fleet.stop().await.unwrap();
    eprintln!("{stats}");
    for kind in stats
        .errors
        .keys()
        .filter(|kind| kind.starts_with("refused"))
    {
        assert!(kind.contains("429") || kind.contains("503"), "{kind}");
    }
    let verdict = ledger::verify(world.pool(), &ledger).await.unwrap();
    world.stop().await;
    assert!(verdict.is_whole(), "{verdict}");
    assert_eq!(verdict.records_stored, ledger.records.len(), "{verdict}");
}
