//! The generator: many connections, so many requests under way at once, each awaited before the next.
//!
//! It runs on one thread of this process, whose CPU time is the generator's alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use super::connection::{Buffers, Connection, Target};
use super::members::Registry;
use super::sender::Sender;

/// Handshakes under way at once; the collector allows an address 32.
const HANDSHAKES: usize = 16;
/// Loopback addresses that are connected from in turn.
const ADDRESSES: usize = 100;

/// A host and its open connection.
#[derive(Debug)]
pub struct Line {
    pub sender: Sender,
    connection: Connection,
    /// Requests that are encoded already.
    backlog: Vec<Vec<u8>>,
}

/// How hard and how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub in_flight: usize,
    pub lasts: Duration,
    /// Requests a second over all; none: each slot's next follows its last.
    pub rate: Option<f64>,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Driven {
    /// Answered with 200.
    pub acknowledged: u64,
    /// Answered with another status.
    pub refused: BTreeMap<u16, u64>,
    pub elapsed: Duration,
    /// Of each acknowledged one, from when it was due, in microseconds; ascending.
    pub latencies_us: Vec<u32>,
}

impl Driven {
    /// How many were refused, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// The latency that a share of the requests, 0 to 1, is within, in milliseconds.
    pub fn latency_ms(&self, share: f64) -> f64 {
        quantile(&self.latencies_us, share).map_or(f64::NAN, |us| f64::from(us) / 1000.0)
    }

    fn note(&mut self, status: u16, since: Instant) {
        if status == 200 {
            self.acknowledged += 1;
            let us = since.elapsed().as_micros();
            self.latencies_us
                .push(u32::try_from(us).unwrap_or(u32::MAX));
        } else {
            *self.refused.entry(status).or_default() += 1;
        }
    }

    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.latencies_us.extend(other.latencies_us);
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
    }
}

fn quantile(ascending: &[u32], share: f64) -> Option<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index below the length"
    )]
    let index = (ascending.len().saturating_sub(1) as f64 * share).round() as usize;
    ascending.get(index).copied()
}

/// Opens a connection for each sender, which sends its first heartbeat: a collector waits for that, but not long.
pub async fn open(
    registry: &Arc<Registry>,
    target: &Target,
    senders: Vec<Sender>,
) -> anyhow::Result<(Vec<Line>, Driven)> {
    let begin = Instant::now();
    let slots = deal(senders.into_iter().enumerate(), HANDSHAKES);
    let tasks = slots
        .into_iter()
        .map(|slot| open_slot(Arc::clone(registry), target.clone(), slot));
    finish(all(tasks).await?, begin)
}

async fn open_slot(
    registry: Arc<Registry>,
    target: Target,
    senders: Vec<(usize, Sender)>,
) -> anyhow::Result<(Vec<Line>, Driven)> {
    let (mut buffers, mut driven) = (Buffers::default(), Driven::default());
    let mut lines = Vec::with_capacity(senders.len());
    for (index, mut sender) in senders {
        let from = u8::try_from(2 + index % ADDRESSES)?;
        let tls = registry.tls_of(&sender.member);
        let connection = Connection::open(&target, tls, from).await;
        let mut connection = connection.context("cannot open a connection")?;
        let due = Instant::now();
        sender.live(&mut buffers.request)?;
        driven.note(connection.exchange(&mut buffers).await?, due);
        lines.push(Line {
            sender,
            connection,
            backlog: Vec::new(),
        });
    }
    Ok((lines, driven))
}

/// Ends the connections.
pub fn close(lines: Vec<Line>) -> Vec<Sender> {
    lines.into_iter().map(|line| line.sender).collect()
}

/// Sends live heartbeats, each line in turn.
pub async fn live(lines: Vec<Line>, load: Load) -> anyhow::Result<(Vec<Line>, Driven)> {
    let begin = Instant::now();
    let slots = deal(lines, load.in_flight);
    let count = slots.len();
    let tasks = slots.into_iter().enumerate().map(|(index, lines)| {
        let every = load
            .rate
            .map(|rate| Duration::from_secs_f64(count as f64 / rate));
        // The slots begin one after another over their interval.
        let first = every.map_or(begin, |every| {
            begin + every.mul_f64(index as f64 / count as f64)
        });
        live_slot(lines, (first, every), begin + load.lasts)
    });
    finish(all(tasks).await?, begin)
}

async fn live_slot(
    mut lines: Vec<Line>,
    (mut due, every): (Instant, Option<Duration>),
    end: Instant,
) -> anyhow::Result<(Vec<Line>, Driven)> {
    let (mut buffers, mut driven) = (Buffers::default(), Driven::default());
    'time: loop {
        for line in &mut lines {
            if every.is_some() {
                tokio::time::sleep_until(due).await;
            } else {
                due = Instant::now();
            }
            if due >= end {
                break 'time;
            }
            line.sender.live(&mut buffers.request)?;
            let status = line.connection.exchange(&mut buffers).await?;
            driven.note(status, due);
            due += every.unwrap_or_default();
        }
    }
    Ok((lines, driven))
}

/// Gives each line a backlog, encoded.
pub fn queue(
    lines: &mut [Line],
    encode: impl Fn(&mut Sender) -> anyhow::Result<Vec<Vec<u8>>>,
) -> anyhow::Result<()> {
    for line in lines {
        line.backlog = encode(&mut line.sender)?;
    }
    Ok(())
}

/// Sends the backlogs to their end, `in_flight` lines at once.
pub async fn replay(lines: Vec<Line>, in_flight: usize) -> anyhow::Result<(Vec<Line>, Driven)> {
    let begin = Instant::now();
    let tasks = deal(lines, in_flight).into_iter().map(replay_slot);
    finish(all(tasks).await?, begin)
}

async fn replay_slot(mut lines: Vec<Line>) -> anyhow::Result<(Vec<Line>, Driven)> {
    let (mut buffers, mut driven) = (Buffers::default(), Driven::default());
    for line in &mut lines {
        for request in std::mem::take(&mut line.backlog) {
            buffers.request = request;
            let due = Instant::now();
            let status = line.connection.exchange(&mut buffers).await?;
            driven.note(status, due);
        }
    }
    Ok((lines, driven))
}

fn finish(slots: Vec<(Vec<Line>, Driven)>, begin: Instant) -> anyhow::Result<(Vec<Line>, Driven)> {
    let elapsed = begin.elapsed();
    let (mut lines, mut driven) = (Vec::new(), Driven::default());
    for (some, part) in slots {
        lines.extend(some);
        driven.add(part);
    }
    driven.latencies_us.sort_unstable();
    driven.elapsed = elapsed;
    anyhow::ensure!(driven.acknowledged > 0, "nothing was acknowledged");
    Ok((lines, driven))
}

/// Deals `items` to `slots`, or to as many as there are items.
fn deal<T>(items: impl IntoIterator<Item = T>, slots: usize) -> Vec<Vec<T>> {
    let mut dealt: Vec<Vec<T>> = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match dealt.get_mut(index % slots.max(1)) {
            Some(slot) => slot.push(item),
            None => dealt.push(vec![item]),
        }
    }
    dealt
}

/// Runs all tasks on this thread.
async fn all<T: 'static, F: Future<Output = anyhow::Result<T>> + 'static>(
    tasks: impl Iterator<Item = F>,
) -> anyhow::Result<Vec<T>> {
    let local = LocalSet::new();
    let mut set = JoinSet::new();
    for task in tasks {
        set.spawn_local_on(task, &local);
    }
    local
        .run_until(async move {
            let mut results = Vec::with_capacity(set.len());
            while let Some(done) = set.join_next().await {
                results.push(done??);
            }
            Ok(results)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::{deal, quantile};

    #[test]
    fn items_are_dealt_evenly_and_no_slot_is_empty() {
        assert_eq!(deal(0..5, 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(deal(0..2, 5), [vec![0], vec![1]]);
        assert!(deal(0..0, 5).is_empty());
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<u32> = (0..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
