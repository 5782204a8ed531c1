//! Faults by seed against real processes, and a verdict over every record that was accepted.
//!
//! A [`World`] is a Postgres, two collectors and a fleet of agents with spools on disk, each a process of its
//! own, with a faulty proxy before the collectors and one before Postgres. A [`Campaign`] throws faults at
//! it, a few at a time; after each burst all of it must come to work again without a hand. In the end the
//! fleet drains, and the tables are held against its ledger: every record that a spool took is there once,
//! in order. Everything but the kernel's timing follows from the seed, which each run prints.

mod daemon;
mod disk;
mod fault;
mod hurt;
mod node;
mod points;
mod replica;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::ledger::Verdict;
pub use daemon::Daemon;
pub use fault::Fault;
pub(crate) use node::free_addresses;
pub use world::{Setup, World};

/// Most faults at once.
const AT_ONCE: usize = 3;
/// How long a fault lasts at most, in milliseconds.
const LASTS_MS: u64 = 1500;

/// What is to be done to a world.
#[derive(Clone, Debug)]
pub struct Campaign {
    pub seed: u64,
    /// So many faults in all.
    pub faults: usize,
    /// The kinds to choose from.
    pub kinds: Vec<Fault>,
    /// Agents in the fleet.
    pub agents: usize,
    /// What each of their events carries.
    pub event_bytes: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    /// How often each kind really happened.
    pub fired: BTreeMap<Fault, u64>,
    /// How often each named point was where a process ended.
    pub points: BTreeMap<&'static str, u64>,
}

impl Campaign {
    /// Runs it in a world of its own. Fails where the world does not come back.
    #[expect(
        clippy::print_stderr,
        reason = "a failed run is found again by its seed"
    )]
    pub async fn run(&self) -> anyhow::Result<Outcome> {
        eprintln!("nemesis: seed {}, {} faults", self.seed, self.faults);
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut world = World::with(Setup {
            event_bytes: self.event_bytes,
            ..Setup::new(self.agents, self.seed)
        })
        .await?;
        let outcome = self.attack(&mut world, &mut random).await;
        if let Ok(Outcome {
            verdict,
            fired,
            points,
        }) = &outcome
        {
            eprintln!("{verdict}\n{fired:?}\n{points:?}");
        }
        let dir = world.stop().await;
        let whole = |outcome: &Outcome| outcome.verdict.is_whole();
        if !outcome.as_ref().is_ok_and(whole) {
            let kept = dir.keep();
            eprintln!(
                "nemesis: seed {}: logs, ledger, spools and database in {}",
                self.seed,
                kept.display()
            );
        }
        outcome.with_context(|| format!("seed {}", self.seed))
    }

    async fn attack(&self, world: &mut World, random: &mut StdRng) -> anyhow::Result<Outcome> {
        let mut fired: BTreeMap<Fault, u64> = self.kinds.iter().map(|kind| (*kind, 0)).collect();
        world.progress().await?;
        let mut left = self.faults;
        while left > 0 {
            let burst = burst(&self.kinds, random, left);
            left -= burst.len();
            for (fault, lasts) in burst {
                let draw = random.random();
                let happened = fault.happen(world, lasts, draw).await;
                let happened = happened.with_context(|| format!("{fault:?}"))?;
                *fired.entry(fault).or_default() += u64::from(happened);
            }
            for (fault, count) in world.heal() {
                *fired.entry(fault).or_default() += count;
            }
            world.progress().await?;
        }
        let verdict = world.drain_and_verify(false).await?;
        Ok(Outcome {
            verdict,
            fired,
            points: world.points().clone(),
        })
    }
}

/// A few faults that don't undo each other, each with how long it lasts before the next one comes.
fn burst(kinds: &[Fault], random: &mut StdRng, most: usize) -> Vec<(Fault, Duration)> {
    let count = random.random_range(1..=AT_ONCE).min(most);
    let mut burst: Vec<(Fault, Duration)> = Vec::new();
    for _ in 0..count {
        let fault = *kinds
            .choose(random)
            .expect("a campaign has kinds of faults");
        if burst
            .iter()
            .all(|(other, _)| other.target() != fault.target())
        {
            let lasts = Duration::from_millis(random.random_range(50..LASTS_MS));
            burst.push((fault, lasts));
        }
    }
    burst
}
