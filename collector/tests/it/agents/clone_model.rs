//! Random interleavings of machines that share one host, with restarts and lost answers, against an oracle:
//! what was acknowledged is in the tables once, and what no machine was confused about is where it belongs.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use time::Duration;

use crate::agents::clone::{Machine, beats, conflicts, hidden, stored};
use crate::harness::Collector;

/// Steps of one run.
const STEPS: usize = 60;

struct Run {
    collector: Collector,
    machines: Vec<Machine>,
    random: StdRng,
    restarts: bool,
}

impl Run {
    async fn new(seed: u64, count: usize, restarts: bool) -> Self {
        let collector = Collector::start().await;
        let mut original = Machine::new(&collector).await;
        original.goes_on(&collector).await;
        let copies = ["b", "c"].map(|name| original.copy(name));
        let mut machines = vec![original];
        machines.extend(copies.into_iter().take(count - 1));
        Self {
            collector,
            machines,
            random: StdRng::seed_from_u64(seed),
            restarts,
        }
    }

    async fn steps(&mut self) {
        for _ in 0..STEPS {
            let wait = Duration::milliseconds(self.random.random_range(1_000..40_000));
            self.collector.clock.advance(wait);
            let which = self.random.random_range(0..self.machines.len());
            let machine = &mut self.machines[which];
            for _ in 0..self.random.random_range(0..3) {
                machine.emit(&self.collector);
            }
            if self.restarts && self.random.random_bool(0.1) {
                machine.restart();
            }
            let (live, heard) = (self.random.random_bool(0.7), self.random.random_bool(0.85));
            drop(machine.report(&self.collector, live, heard).await);
        }
        // Everybody gets rid of what is left.
        for _ in 0..8 {
            for machine in &mut self.machines {
                self.collector.clock.advance(Duration::seconds(1));
                drop(machine.report(&self.collector, true, true).await);
            }
        }
    }

    /// Every machine has been acknowledged everything, and each of it is stored once, over all hosts.
    async fn nothing_is_lost_or_doubled(&self, seed: u64) {
        let mut times = BTreeMap::<String, usize>::new();
        for tag in stored(&self.collector).await.into_values().flatten() {
            *times.entry(tag).or_default() += 1;
        }
        let more: Vec<_> = times.iter().filter(|(_, times)| **times != 1).collect();
        assert!(more.is_empty(), "seed {seed}: {more:?}");
        for machine in &self.machines {
            assert!(
                !machine.has_unacknowledged(),
                "seed {seed}: {}",
                machine.name
            );
            let missing = machine
                .acknowledged
                .iter()
                .find(|tag| !times.contains_key(*tag));
            assert_eq!(missing, None, "seed {seed}");
        }
    }

    /// Each machine's records and heartbeats are under one host, its own.
    async fn each_has_its_own(&self, seed: u64) {
        let stored = stored(&self.collector).await;
        let found = conflicts(&self.collector, &self.machines[0].host).await;
        assert_eq!(found.len(), self.machines.len() - 1, "seed {seed}");
        let mut owners: BTreeSet<_> = found.iter().map(hidden).collect();
        owners.insert(self.machines[0].host.id.0);
        for machine in &self.machines {
            let instance = machine.host.instance.to_string();
            let owner = found
                .iter()
                .find(|found| found["clone_instance"] == instance);
            let owner = owner.map_or(machine.host.id.0, hidden);
            assert!(owners.remove(&owner), "seed {seed}: {}", machine.name);
            let of_it = |tag: &&String| tag.starts_with(machine.name);
            let there: BTreeSet<_> = stored[&owner].iter().collect();
            let all = stored.values().flatten().filter(of_it).collect();
            assert_eq!(there, all, "seed {seed}: {}", machine.name);
            let beats: BTreeSet<_> = beats(&self.collector, owner).await.into_iter().collect();
            let acknowledged: BTreeSet<_> = machine.beats.iter().copied().collect();
            assert!(
                beats.is_superset(&acknowledged),
                "seed {seed}: {}",
                machine.name
            );
        }
        // All of it by one of them at least.
        let names: BTreeSet<_> = self.machines.iter().map(|machine| machine.name).collect();
        assert_eq!(names.len(), stored.len(), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_in_any_order_have_everything_once_and_each_its_own() {
    for seed in 0..12 {
        let mut run = Run::new(seed, 2, false).await;
        run.steps().await;
        run.nothing_is_lost_or_doubled(seed).await;
        run.each_has_its_own(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_in_any_order_have_everything_once() {
    for seed in 100..108 {
        let mut run = Run::new(seed, 3, false).await;
        run.steps().await;
        run.nothing_is_lost_or_doubled(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_restart_in_between_have_everything_once() {
    for seed in 200..212 {
        let mut run = Run::new(seed, 2, true).await;
        run.steps().await;
        run.nothing_is_lost_or_doubled(seed).await;
    }
}
