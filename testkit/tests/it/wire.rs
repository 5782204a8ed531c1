//! What networks do to packets, between agents and a collector: nothing is lost, and who is gone is noticed.
//!
//! On a wire to a network namespace where this machine lets us lay one, else through the proxy, which knows
//! no packets: the tests say which.

use std::collections::HashSet;
use std::time::Duration;

use infratrack_testkit::nemesis::{Setup, World};
use infratrack_testkit::process::Process;
use infratrack_testkit::proxy::Fault;
use infratrack_testkit::wire::Weather;
use tokio::time::Instant;

/// A peer that is gone without a word is noticed within this.
const NOTICED: Duration = Duration::from_secs(35);

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(default)
}

/// A world behind a wire, that works.
async fn wired(agents: usize, seed: u64) -> anyhow::Result<World> {
    let mut world = World::with(Setup {
        has_wire: true,
        ..Setup::new(agents, seed)
    })
    .await?;
    world.progress().await?;
    Ok(world)
}

async fn drained(mut world: World) -> anyhow::Result<()> {
    world.progress().await?;
    let verdict = world.drain_and_verify(false).await?;
    anyhow::ensure!(verdict.is_whole(), "{verdict}");
    anyhow::ensure!(verdict.records_stored > 10, "{verdict}");
    world.stop().await;
    Ok(())
}

/// How long it took `process` to let go of all of `connections`.
async fn let_go(process: &Process, connections: &HashSet<u64>) -> anyhow::Result<Duration> {
    let since = Instant::now();
    loop {
        let held = process.sockets()?.intersection(connections).count();
        if held == 0 {
            return Ok(since.elapsed());
        }
        anyhow::ensure!(
            since.elapsed() < NOTICED,
            "{held} of {} connections are held after {NOTICED:?}",
            connections.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[expect(clippy::print_stderr, reason = "what was measured")]
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_gone_without_a_word_is_noticed_by_both_sides_and_costs_no_descriptor() {
    let world = wired(6, 1).await.unwrap();
    let Some(wire) = world.wire() else {
        return;
    };
    let (fleet, port) = world.fleet().unwrap();
    let deadline = Instant::now() + NOTICED;
    let (of_agents, of_collector) = loop {
        let of_agents = fleet.connections(port).unwrap();
        let of_collector = world.collector().connections(port).unwrap();
        if of_agents.len() == 6 && of_collector.len() == 6 {
            break (of_agents, of_collector);
        }
        assert!(Instant::now() < deadline, "{of_agents:?} {of_collector:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    wire.set(Weather::Silent).unwrap();
    let (agents, collector) = tokio::try_join!(
        let_go(fleet, &of_agents),
        let_go(world.collector(), &of_collector)
    )
    .unwrap();
    eprintln!("noticed by the agents after {agents:?}, by the collector after {collector:?}");
    assert!(wire.fired().unwrap() > 0, "packets were dropped");
    wire.set(Weather::Clear).unwrap();
    drained(world).await.unwrap();
}

#[expect(clippy::print_stderr, reason = "what was measured")]
async fn all_weathers(each: Duration) -> anyhow::Result<()> {
    let mut world = wired(6, 2).await?;
    for weather in [
        Weather::Loss(30),
        Weather::Twice(30),
        Weather::Late(30),
        Weather::Silent,
    ] {
        let Some(wire) = world.wire() else {
            return Ok(());
        };
        wire.set(weather)?;
        tokio::time::sleep(each).await;
        let fired = wire.fired()?;
        wire.set(Weather::Clear)?;
        eprintln!("{weather:?}: {fired} packets in {each:?}");
        anyhow::ensure!(fired > 0, "{weather:?} met no packet");
        world.progress().await?;
    }
    drained(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_doubled_and_overtaken_packets_lose_and_double_nothing() {
    all_weathers(Duration::from_secs(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes; make soak"]
async fn a_minute_of_each_weather_loses_and_doubles_nothing() {
    let each = Duration::from_secs(number("INFRATRACK_OUTAGE_S", 60));
    all_weathers(each).await.unwrap();
}

/// Each way, by the proxy: a delay needs netem, which not every kernel has.
async fn delayed(by: Duration) -> anyhow::Result<()> {
    let mut world = World::start(6, 3).await?;
    world.progress().await?;
    world.network().set(Fault::Delay(by));
    world.progress().await?;
    world.progress().await?;
    anyhow::ensure!(world.network().fired() > 0, "nothing was late");
    world.network().set(Fault::None);
    drained(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_way_loses_nothing() {
    delayed(Duration::from_millis(300)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute; make soak"]
async fn two_seconds_of_delay_lose_nothing() {
    delayed(Duration::from_secs(2)).await.unwrap();
}
