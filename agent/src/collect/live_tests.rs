//! Collects on the machine the tests run on, whatever it is, and asserts what must hold anywhere.

use std::time::{Duration, Instant};

use infratrack_shared::wire::heartbeat::Heartbeat;
use infratrack_shared::{codec, limits};
use nix::time::{ClockId, clock_gettime};

use super::*;

fn cpu_us() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000
}

#[tokio::test]
async fn two_collections_of_facts_on_this_machine_have_the_same_hashes() {
    let root = Root::default();
    let mut sources = FactSources::new(root, "/nonexistent");
    let first = sources.collect().await;
    let second = sources.collect().await;
    let but_sockets = |facts: &[Fact]| {
        let facts = facts.iter().filter(|fact| fact.key != "facts.listening");
        facts.cloned().collect::<Vec<_>>()
    };
    assert_eq!(but_sockets(&first), but_sockets(&second));
    for key in [
        "facts.cpu",
        "facts.kernel",
        "facts.identity",
        "facts.listening",
        "facts.mounts",
        "facts.network",
        "facts.users",
    ] {
        let fact = first.iter().find(|fact| fact.key == key).unwrap();
        assert!(fixture::json(&fact.body)["unknown"].is_null(), "{key}");
    }
    for fact in first {
        let bytes = codec::encode(&fact.body).unwrap();
        let limits = codec::Limits::bytes(limits::STATE_PART_BYTES);
        codec::check(&bytes, &limits).unwrap();
    }
}

#[tokio::test]
async fn a_heartbeat_of_this_machine_is_sane() {
    let mut source = HeartbeatSource::new(Root::default());
    let beat = source.collect(Heartbeat::default()).await;
    let is_explained = |field: &str| beat.unknown.iter().any(|unknown| unknown.field == field);
    assert!(
        beat.memory_total_bytes.is_some_and(|total| total > 0)
            || is_explained("memory_total_bytes")
    );
    assert!(beat.uptime_s.is_some_and(|uptime| uptime > 0));
    assert!(beat.load_1.is_some());
    assert!(!beat.filesystems.is_empty());
    assert!(beat.agent.rss_bytes.is_some_and(|rss| rss > 0));
    let bytes = codec::encode(&beat).unwrap();
    assert_eq!(
        codec::decode::<Heartbeat>(&bytes, &codec::Limits::default()).unwrap(),
        beat
    );
}

#[test]
fn two_readings_of_this_machines_sockets_are_the_same_as_soon_as_none_comes_or_goes_between() {
    // Other tests listen for a moment, on ports of the kernel's choice.
    let deadline = Instant::now() + Duration::from_secs(30);
    let root = Root::default();
    loop {
        let first = listening::collect(&root).unwrap();
        let second = listening::collect(&root).unwrap();
        if first == second {
            return;
        }
        assert!(Instant::now() < deadline, "{first}\n{second}");
    }
}

/// `cargo test -p infratrack-agent --release -- --ignored --nocapture what_a_collection_costs`
#[tokio::test]
#[ignore = "a measurement, not a check"]
#[expect(clippy::print_stderr, reason = "it is there to print")]
async fn what_a_collection_costs() {
    const ROUNDS: u32 = 100;
    let mut sources = FactSources::new(Root::default(), "/etc/infratrack/facts.d");
    let mut heartbeats = HeartbeatSource::new(Root::default());
    let facts = sources.collect().await;
    for fact in &facts {
        eprintln!("{} {:?} {}", fact.key, fact.hash, fact.body);
    }
    let beat = heartbeats.collect(Heartbeat::default()).await;
    eprintln!("{beat:#?}");
    let rss = || process::own(&Root::default()).rss_bytes.unwrap_or_default() / 1024;
    let before = rss();
    let (wall, cpu) = (Instant::now(), cpu_us());
    for _ in 0..ROUNDS {
        sources.collect().await;
    }
    eprintln!(
        "facts: wall {:?}, cpu {} us",
        wall.elapsed() / ROUNDS,
        (cpu_us() - cpu) / i64::from(ROUNDS)
    );
    let (wall, cpu) = (Instant::now(), cpu_us());
    for _ in 0..ROUNDS {
        heartbeats.collect(Heartbeat::default()).await;
    }
    eprintln!(
        "heartbeat: wall {:?}, cpu {} us",
        wall.elapsed() / ROUNDS,
        (cpu_us() - cpu) / i64::from(ROUNDS)
    );
    eprintln!(
        "rss {before} KiB before, {} KiB after {ROUNDS} rounds of each",
        rss()
    );
}
