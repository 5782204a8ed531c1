//! After power loss at any point the spool opens, and every promise it made holds.
//!
//! Real runs, recorded with `strace`. Where a machine forbids ptrace these fail, unless
//! `INFRATRACK_WITHOUT_PTRACE=1` says that this is known.

use std::collections::BTreeSet;

use infratrack_shared::wire::batch::Class;
use infratrack_testkit::power::campaign::{Campaign, plans};
use infratrack_testkit::power::disk::Seen;
use infratrack_testkit::power::mark::Mark;
use infratrack_testkit::power::strace;

const BINARY: &str = env!("CARGO_BIN_EXE_infratrack-spool-workload");

#[expect(
    clippy::print_stderr,
    reason = "a campaign's log names its seeds and counts"
)]
fn say(line: &str) {
    eprintln!("power: {line}");
}

/// Answers whether to go on; fails where nobody said that ptrace is forbidden here.
fn can_trace() -> bool {
    if strace::is_permitted() {
        return true;
    }
    let known = std::env::var_os(strace::WITHOUT).is_some_and(|value| value == "1");
    assert!(
        known,
        "strace is missing or ptrace is forbidden, so power loss can't be tested; \
         {}=1 goes on without",
        strace::WITHOUT
    );
    say("NOT TESTED: power loss, for want of ptrace");
    false
}

#[tokio::test]
async fn every_promise_holds_after_power_loss_at_any_point() {
    if !can_trace() {
        return;
    }
    let mut campaign = Campaign::new(BINARY).unwrap();
    for plan in plans(1, 60) {
        let run = campaign.record(plan, None).unwrap();
        campaign.crash(&run, 150).await.unwrap();
    }
    say(&format!("{:?}", campaign.finish(600).unwrap()));
}

#[tokio::test]
async fn a_crash_of_what_a_crash_left_breaks_no_promise_either() {
    if !can_trace() {
        return;
    }
    let mut campaign = Campaign::new(BINARY).unwrap();
    for plan in plans(1, 40) {
        campaign.crash_twice(plan, 40).await.unwrap();
    }
    say(&format!("{:?}", campaign.finish(130).unwrap()));
}

#[tokio::test]
#[ignore = "takes minutes; make soak"]
async fn every_promise_holds_over_thousands_of_crashes() {
    if !can_trace() {
        return;
    }
    let mut campaign = Campaign::new(BINARY).unwrap();
    for seed in 2..14 {
        for plan in plans(seed, 150) {
            let run = campaign.record(plan, None).unwrap();
            campaign.crash(&run, 200).await.unwrap();
        }
        for plan in plans(seed, 40) {
            campaign.crash_twice(plan, 50).await.unwrap();
        }
        say(&format!("seed {seed} is done"));
    }
    say(&format!("{:?}", campaign.finish(12_000).unwrap()));
}

/// The order that all of the above rests on, seen in the calls themselves.
#[tokio::test]
async fn what_a_critical_append_wrote_is_synced_before_it_returns() {
    if !can_trace() {
        return;
    }
    let [plain, ..] = plans(1, 60);
    let run = Campaign::new(BINARY).unwrap().record(plain, None).unwrap();
    let (mut begun, mut appends) = (None, 0);
    for (line, mark) in run.journal.marks() {
        if let Mark::Append { class, .. } = mark {
            begun = (*class == Class::Critical).then_some(line);
        }
        if let (Mark::Appended { .. }, Some(begun)) = (mark, begun) {
            let mut written = 0;
            let mut unsynced = BTreeSet::new();
            for seen in run.journal.calls_between(begun, line) {
                match seen {
                    Seen::Write(file) => {
                        written += 1;
                        unsynced.insert(file);
                    }
                    Seen::Sync(file) => {
                        unsynced.remove(&file);
                    }
                    Seen::Other(_) => {}
                }
            }
            assert!(written > 0, "nothing was written from {begun} to {line}");
            assert!(unsynced.is_empty(), "{unsynced:?} from {begun} to {line}");
            appends += 1;
        }
    }
    assert!(appends > 10, "{appends} appends");
}

/// A kill loses nothing that was written, so that a loss here is one of order, not of syncs.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_kill_at_any_named_point_breaks_no_promise() {
    let names = infratrack_agent::failpoint::NAMES.iter();
    let mut campaign = Campaign::new(BINARY).unwrap();
    for point in names.filter(|name| name.starts_with("spool::")) {
        let mut kills = 0;
        for seed in 1..4 {
            let [plain, quota, idle, _] = plans(seed, 150);
            for plan in [plain, quota, idle] {
                for times in [1, 2, 3, 5, 9, 20, 50] {
                    kills += u32::from(campaign.kill(plan, point, times).await.unwrap());
                }
            }
        }
        say(&format!("{point}: {kills} kills"));
        assert!(kills >= 5, "{point} was reached {kills} times");
    }
}
