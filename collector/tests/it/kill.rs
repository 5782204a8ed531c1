//! kill -9 of Postgres, collector and agent under a fleet: what was acknowledged is in the tables, once.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use infratrack_collector::postgres::private_connect_options;
use infratrack_testkit::fleet::{Fleet, FleetConfig, Tokens};
use infratrack_testkit::ledger::verify;
use infratrack_testkit::postgres::reachable_tempdir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::demo::{Demo, kinds, manifest};
use crate::harness::eventually;

/// Three ports that were free a moment ago.
pub(crate) fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

pub(crate) fn kill_process_in(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let pid: i32 = text.lines().next().unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Waits until the fleet has so many more acknowledgements than now.
async fn acknowledged(fleet: &Fleet, more: u64) {
    let before = fleet.stats().heartbeats_acknowledged;
    eventually("the fleet to be acknowledged", || async {
        (fleet.stats().heartbeats_acknowledged >= before + more).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_each_kill_is_in_the_tables_once() {
    let dir = reachable_tempdir().unwrap();
    let ports = free_ports();
    let [operators, agents, enroll] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut demo = Demo::start(dir.path(), ports);
    let first = manifest(dir.path()).await;
    let admin_token = first["admin_token"].as_str().unwrap().to_owned();
    let mut config = FleetConfig::new(
        agents,
        enroll,
        Tokens::Api {
            operators,
            admin_token,
        },
    );
    config.count = 200;
    config.disk = 4;
    config.events_per_beat = 2;
    config.backoff_scale = 0.05;
    config.drain = Duration::from_secs(20);
    let fleet = Fleet::start(config).await.unwrap();
    acknowledged(&fleet, 400).await;
    kill_process_in(&dir.path().join("postgres/cluster/postmaster.pid"));
    acknowledged(&fleet, 400).await;
    demo.signal(Signal::SIGKILL);
    assert!(!demo.ended().await);
    demo = Demo::start(dir.path(), ports);
    let second = manifest(dir.path()).await;
    acknowledged(&fleet, 400).await;
    kill_process_in(&dir.path().join("agent/agent.pid"));
    eventually("the agent to be back", || async {
        let starts = kinds(&second)
            .await
            .iter()
            .filter(|kind| *kind == "agent_start")
            .count();
        (starts == 3).then_some(())
    })
    .await;
    let report = fleet.stop().await.unwrap();
    let options = private_connect_options(dir.path()).await.unwrap();
    let pool = sqlx::PgPool::connect_with(options).await.unwrap();
    let verdict = verify(&pool, &report.ledger).await.unwrap();
    pool.close().await;
    assert!(verdict.is_clean(), "{verdict:?}");
    assert!(verdict.records_acknowledged >= 2400, "{verdict:?}");
    assert_eq!(verdict.records_declared_lost, 0, "{verdict:?}");
    assert!(
        report.stats.reconnects >= 200,
        "the kills were felt: {:?}",
        report.stats
    );
    demo.signal(Signal::SIGINT);
    assert!(demo.ended().await);
}
