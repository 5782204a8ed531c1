//! A collector without a file descriptor left: it waits without spinning, and goes on when there is one.

use std::process::Command;
use std::time::Duration;

use infratrack_testkit::fleet::{Fleet, FleetConfig};
use infratrack_testkit::nemesis::World;
use tokio::net::TcpStream;

/// So many more than it has may it open.
const MORE: usize = 30;
const LOOK: Duration = Duration::from_secs(2);
/// What it may cost meanwhile: accepting is tried ten times a second.
const CPU: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_accepting_pauses_and_goes_on_by_itself() {
    let world = World::start(0, 1).await.unwrap();
    let config = FleetConfig {
        count: 5,
        interval: Duration::from_millis(200),
        ..world.fleet_config().unwrap()
    };
    let agents = config.agents;
    let fleet = Fleet::start(config).await.unwrap();
    let connected = async {
        while fleet.stats().heartbeats_acknowledged < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), connected)
        .await
        .expect("all of them report");
    let collector = world.collector();
    let pid = collector.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    // prlimit(1) of util-linux: a running process's limit.
    let limit = format!("--nofile={}", open + MORE);
    let limited = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &limit])
        .status()
        .unwrap();
    assert!(limited.success());
    let mut crowd = Vec::new();
    for _ in 0..MORE * 4 {
        crowd.push(TcpStream::connect(agents).await.unwrap());
    }
    tokio::time::sleep(LOOK).await;
    let log = std::fs::read_to_string(world.collector_log()).unwrap();
    assert!(log.contains("cannot accept a connection"), "it has run out");
    let before = collector.cpu_time().unwrap();
    tokio::time::sleep(LOOK).await;
    let cost = collector.cpu_time().unwrap().saturating_sub(before);
    assert!(cost < CPU, "{cost:?} in {LOOK:?}");
    drop(crowd);
    let late = Fleet::start(FleetConfig {
        count: 5,
        interval: Duration::from_millis(200),
        ..world.fleet_config().unwrap()
    })
    .await
    .unwrap();
    tokio::time::sleep(LOOK).await;
    for fleet in [fleet, late] {
        let stats = fleet.stop().await.unwrap().stats;
        assert!(stats.errors.is_empty(), "{stats}");
        assert_eq!(stats.heartbeats_offered, stats.heartbeats_acknowledged);
    }
    world.stop().await;
}
