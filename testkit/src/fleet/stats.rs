//! What a fleet counts, without locks on the way of a request.
//!
//! Latencies go to buckets that are at most 3.2 % wide, so a percentile is right to that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// Buckets within a doubling.
const STEPS: u64 = 32;
/// Microseconds up to 2^36 (19 hours).
const BUCKETS: usize = 32 * 33;

/// Counts since the fleet's start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) records_offered: AtomicU64,
    pub(super) records_acknowledged: AtomicU64,
    pub(super) heartbeats_offered: AtomicU64,
    pub(super) heartbeats_acknowledged: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) commands: AtomicU64,
    pub(super) forks: AtomicU64,
    pub(super) latency: Latency,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// Counts an error by its kind.
    pub(super) fn error(&self, kind: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(kind).or_default() += 1;
    }

    /// The counts as they are, `elapsed` after the start.
    pub(super) fn snapshot(&self, agents: usize, elapsed: Duration) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = elapsed.as_secs_f64().max(0.001);
        let rate = |counter: &AtomicU64| get(counter) as f64 / seconds;
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        Stats {
            agents,
            elapsed_s: seconds,
            requests: get(&self.requests),
            requests_per_s: rate(&self.requests),
            records_offered: get(&self.records_offered),
            records_acknowledged: get(&self.records_acknowledged),
            records_per_s: rate(&self.records_acknowledged),
            heartbeats_offered: get(&self.heartbeats_offered),
            heartbeats_acknowledged: get(&self.heartbeats_acknowledged),
            heartbeats_per_s: rate(&self.heartbeats_acknowledged),
            p50_ms: self.latency.percentile_ms(0.5),
            p99_ms: self.latency.percentile_ms(0.99),
            p999_ms: self.latency.percentile_ms(0.999),
            max_ms: self.latency.percentile_ms(1.0),
            errors: errors.clone(),
            connects: get(&self.connects),
            reconnects: get(&self.reconnects),
            commands: get(&self.commands),
            forks: get(&self.forks),
        }
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// What a fleet did. Requests are those with an Ack; latencies are from the request to its Ack.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub agents: usize,
    pub elapsed_s: f64,
    pub requests: u64,
    pub requests_per_s: f64,
    pub records_offered: u64,
    pub records_acknowledged: u64,
    pub records_per_s: f64,
    pub heartbeats_offered: u64,
    pub heartbeats_acknowledged: u64,
    pub heartbeats_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// How often, by kind.
    pub errors: BTreeMap<String, u64>,
    pub connects: u64,
    pub reconnects: u64,
    /// Commands received and confirmed; simulated agents don't carry them out.
    pub commands: u64,
    pub forks: u64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "agents      {} for {:.1} s", self.agents, self.elapsed_s)?;
        writeln!(
            f,
            "requests    {} acknowledged, {:.1}/s",
            self.requests, self.requests_per_s
        )?;
        writeln!(
            f,
            "heartbeats  {} offered, {} acknowledged, {:.1}/s",
            self.heartbeats_offered, self.heartbeats_acknowledged, self.heartbeats_per_s
        )?;
        writeln!(
            f,
            "records     {} offered, {} acknowledged, {:.1}/s",
            self.records_offered, self.records_acknowledged, self.records_per_s
        )?;
        writeln!(
            f,
            "latency     p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms",
            self.p50_ms, self.p99_ms, self.p999_ms, self.max_ms
        )?;
        write!(
            f,
            "connections {} opened, {} of them again; forks {}, commands {}",
            self.connects, self.reconnects, self.forks, self.commands
        )?;
        for (kind, count) in &self.errors {
            write!(f, "\nerror       {kind}: {count}")?;
        }
        Ok(())
    }
}

/// A histogram of microseconds.
#[derive(Debug)]
pub(super) struct Latency {
    buckets: Box<[AtomicU64]>,
    max_us: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Latency {
    pub(super) fn record(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let last = self.buckets.len() - 1;
        if let Some(bucket) = self.buckets.get(bucket(us).min(last)) {
            add(bucket, 1);
        }
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// The latency that `part` of all did not exceed; 0 without any.
    fn percentile_ms(&self, part: f64) -> f64 {
        let max_ms = self.max_us.load(Ordering::Relaxed) as f64 / 1000.0;
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let wanted = part * counts.iter().sum::<u64>() as f64;
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted && seen > 0 {
                return (end_us(index) as f64 / 1000.0).min(max_ms);
            }
        }
        max_ms
    }
}

/// Below [`STEPS`] one bucket a microsecond, above it [`STEPS`] buckets a doubling.
fn bucket(us: u64) -> usize {
    let doubling = u64::from(us.checked_ilog2().unwrap_or(0)).saturating_sub(5);
    usize::try_from(doubling * STEPS + (us >> doubling)).unwrap_or(usize::MAX)
}

/// The first microsecond above a bucket.
fn end_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doubling = (bucket / STEPS).saturating_sub(1);
    (bucket - doubling * STEPS + 1) << doubling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_narrow_and_holds_what_falls_into_it() {
        let mut before = 0;
        for us in (0..200_000).chain([1 << 30, (1 << 36) - 1]) {
            let index = bucket(us);
            assert!(index >= before && index < BUCKETS, "{us}");
            before = index;
            let end = end_us(index);
            assert!(
                us < end && end as f64 <= (us + 1) as f64 * 1.033,
                "{us}: {end}"
            );
        }
    }

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let latency = Latency::default();
        assert!(latency.percentile_ms(0.5).abs() < f64::EPSILON);
        for ms in 1..=1000 {
            latency.record(Duration::from_millis(ms));
        }
        let near = |part: f64, ms: f64| (latency.percentile_ms(part) / ms - 1.0).abs() < 0.04;
        assert!(near(0.5, 500.0) && near(0.99, 990.0) && near(1.0, 1000.0));
    }
}
