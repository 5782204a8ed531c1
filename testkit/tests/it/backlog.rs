//! The backlog of an outage drains, a long life passes, and neither disk nor memory stays taken.

use std::process::Command;

use infratrack_testkit::backlog::{Lived, Took};
use serde::de::DeserializeOwned;

const MIB: u64 = 1024 * 1024;

/// Runs a subcommand in a process of its own; answers what it said.
#[expect(clippy::print_stderr, reason = "what it took belongs in the log")]
fn run<T: DeserializeOwned>(arguments: &[&str]) -> T {
    let directory = tempfile::tempdir().expect("a directory");
    let done = Command::new(env!("CARGO_BIN_EXE_infratrack-spool-workload"))
        .arg(arguments[0])
        .arg(directory.path())
        .args(&arguments[1..])
        .output()
        .expect("it runs");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    eprintln!("{arguments:?}: {}", String::from_utf8_lossy(&done.stdout));
    serde_json::from_slice(&done.stdout).expect("it says what it took")
}

#[test]
fn a_small_backlog_gives_its_disk_back() {
    let took: Took = run(&["backlog", "--records", "30000", "--bytes", "700"]);
    assert!(took.full_disk_bytes > 21_000_000, "{took:?}");
    assert!(took.drained_disk_bytes <= 16 * MIB, "{took:?}");
    assert!(took.peak_rss_bytes <= 48 * MIB, "{took:?}");
}

#[test]
#[ignore = "takes a minute; make soak"]
fn a_backlog_of_137_mb_drains_and_gives_disk_and_memory_back() {
    let took: Took = run(&["backlog", "--records", "200000", "--bytes", "700"]);
    assert!(took.full_disk_bytes > 137_000_000, "{took:?}");
    assert!(took.drained_disk_bytes <= 16 * MIB, "{took:?}");
    assert!(took.peak_rss_bytes <= 48 * MIB, "{took:?}");
}

#[test]
#[ignore = "takes minutes; make soak"]
fn memory_does_not_grow_over_a_hundred_thousand_heartbeats() {
    let lived: Lived = run(&["live", "--heartbeats", "100000"]);
    let grown = lived.late_rss_bytes.saturating_sub(lived.early_rss_bytes);
    assert!(lived.early_rss_bytes > 0 && grown <= 2 * MIB, "{lived:?}");
    assert!(lived.disk_bytes <= 16 * MIB, "{lived:?}");
}
