//! Faults by seed against real processes: what a spool took is in the tables once, in order.
//!
//! `INFRATRACK_SEED` repeats a run, `INFRATRACK_FAULTS` makes the long one longer or shorter, and
//! `INFRATRACK_KINDS` (`KillAgents,FillDisk`) has it keep to some kinds.

use std::collections::BTreeMap;
use std::time::Duration;

use infratrack_testkit::nemesis::{Campaign, Fault, Outcome, Setup, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The verdict is clean, nothing is lost, and every kind that was asked for has happened.
fn judge(outcome: &Outcome, least: u64) {
    let Outcome { verdict, fired, .. } = outcome;
    assert!(verdict.is_whole(), "{verdict}\n{fired:?}");
    let happened: u64 = fired.values().sum();
    assert!(happened >= least, "{happened} happened: {fired:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_faults_of_each_target_lose_and_double_nothing() {
    let campaign = Campaign {
        seed: number("INFRATRACK_SEED").unwrap_or(11),
        faults: 25,
        kinds: Fault::ALL.to_vec(),
        agents: 6,
        event_bytes: 0,
    };
    let outcome = campaign.run().await.unwrap();
    judge(&outcome, 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_the_last_commits_costs_no_critical_record() {
    let mut world = World::with(Setup {
        has_replica: true,
        ..Setup::new(6, 1)
    })
    .await
    .unwrap();
    world.progress().await.unwrap();
    let forgotten = world.fail_over(Duration::from_secs(3)).await.unwrap();
    assert!(forgotten > 50, "{forgotten} records were forgotten");
    world.progress().await.unwrap();
    let verdict = world.drain_and_verify(true).await.unwrap();
    world.stop().await;
    assert!(verdict.is_whole(), "{verdict}");
    assert!(verdict.records_stored > 100, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour; make soak"]
async fn a_thousand_faults_of_every_kind_lose_and_double_nothing() {
    let mut kinds = Fault::ALL.to_vec();
    kinds.push(Fault::FillDisk);
    if let Ok(named) = std::env::var("INFRATRACK_KINDS") {
        kinds.retain(|kind| named.split(',').any(|name| name == format!("{kind:?}")));
    }
    let faults = usize::try_from(number("INFRATRACK_FAULTS").unwrap_or(1000)).unwrap();
    let mut all: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut seed = number("INFRATRACK_SEED").unwrap_or_else(rand::random);
    let mut left = faults;
    while left > 0 {
        let some = left.min(100);
        let campaign = Campaign {
            seed,
            faults: some,
            kinds: kinds.clone(),
            agents: 6,
            event_bytes: 0,
        };
        let outcome = campaign.run().await.unwrap();
        judge(&outcome, some as u64 / 2);
        for (fault, count) in outcome.fired {
            *all.entry(fault).or_default() += count;
        }
        left -= some;
        seed = seed.wrapping_add(1);
    }
    assert!(
        faults < 1000 || all.values().all(|count| *count > 0),
        "{all:?}"
    );
}
