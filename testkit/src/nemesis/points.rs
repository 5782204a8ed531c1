//! Processes that are ended where they are most in the middle of something: at a named point of their code.
//!
//! The points are there with the feature `failpoints` alone. Each is taken once before any is taken again.

use std::collections::BTreeMap;
use std::time::Duration;

use infratrack_agent::failpoint as agent;
use infratrack_collector::failpoint as collector;
use nix::sys::signal::Signal;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::world::World;
use crate::process::Process;

/// A process comes by a point within this, where nothing else is in its way.
const REACH: Duration = Duration::from_secs(60);
/// Without a collector for this long, spools grow to where a rotation is worth it once they are drained.
const AWAY: Duration = Duration::from_secs(30);
/// It is ended the nth time it comes by, for n up to this.
const MOST_TIMES: f64 = 12.0;

/// The points of the agent that a simulated fleet comes by: it carries out no commands and renews nothing.
pub(super) fn of_the_fleet() -> impl Iterator<Item = &'static str> {
    let by_fleet = |name: &&&str| name.starts_with("spool::") || name.starts_with("uplink::");
    agent::NAMES.iter().filter(by_fleet).copied()
}

/// Which point is next, and how often each was reached.
#[derive(Debug)]
pub(super) struct Points {
    random: StdRng,
    collector: Vec<&'static str>,
    agents: Vec<&'static str>,
    pub(super) reached: BTreeMap<&'static str, u64>,
}

impl Points {
    pub(super) fn new(seed: u64) -> Self {
        let all = collector::NAMES.iter().copied().chain(of_the_fleet());
        Self {
            random: StdRng::seed_from_u64(seed),
            collector: Vec::new(),
            agents: Vec::new(),
            reached: all.map(|name| (name, 0)).collect(),
        }
    }

    fn next_of_collector(&mut self) -> &'static str {
        if self.collector.is_empty() {
            self.collector = collector::NAMES.to_vec();
            self.collector.shuffle(&mut self.random);
        }
        self.collector.pop().unwrap_or_default()
    }

    fn next_of_agents(&mut self) -> &'static str {
        if self.agents.is_empty() {
            self.agents = of_the_fleet().collect();
            self.agents.shuffle(&mut self.random);
        }
        self.agents.pop().unwrap_or_default()
    }
}

/// What the environment says to have a process end when it comes by `point`.
pub(super) fn armed(point: &str, draw: f64) -> String {
    // Rare ones are not waited for more than once.
    let is_rare = point.starts_with("spool::opening") || point.starts_with("spool::rotation");
    let passes = if is_rare { 0.0 } else { draw * MOST_TIMES };
    format!("{point}={passes:.0}*off->return")
}

/// Whether it ended at its point; if it never came by, it is killed.
pub(super) async fn ended_at_point(process: &mut Process) -> anyhow::Result<bool> {
    use std::os::unix::process::ExitStatusExt;
    if let Ok(status) = process.ended(REACH).await {
        return Ok(status.signal() == Some(Signal::SIGABRT as i32));
    }
    process.kill().await?;
    Ok(false)
}

impl World {
    /// Has the collector that agents talk to end at the next point.
    pub(super) async fn end_collector_at_point(&mut self, draw: f64) -> anyhow::Result<bool> {
        let point = self.points.next_of_collector();
        let (dir, database) = (self.dir.path(), self.database.address());
        let node = &mut self.collectors[self.current];
        node.process.kill().await?;
        node.restart(dir, self.current, database, Some(&armed(point, draw)))?;
        let reached = ended_at_point(&mut node.process).await?;
        self.note(point, reached)
    }

    /// Has all agents end when the first of them is at the next point.
    pub(super) async fn end_agents_at_point(&mut self, draw: f64) -> anyhow::Result<bool> {
        let Some(mut fleet) = self.fleet.take() else {
            return Ok(false);
        };
        fleet.kill().await?;
        let point = self.points.next_of_agents();
        let mut fleet = self.spawn_fleet(Some(&armed(point, draw)))?;
        if point.starts_with("spool::rotation") {
            self.collector().signal(Signal::SIGSTOP);
            tokio::time::sleep(AWAY).await;
            self.collector().signal(Signal::SIGCONT);
        }
        let reached = ended_at_point(&mut fleet).await?;
        self.fleet = Some(fleet);
        self.note(point, reached)
    }

    fn note(&mut self, point: &'static str, reached: bool) -> anyhow::Result<bool> {
        *self.points.reached.entry(point).or_default() += u64::from(reached);
        self.revive()?;
        Ok(reached)
    }
}
