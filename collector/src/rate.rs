//! Token buckets, one for each host or credential, so that a flood of one is that one's alone.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How much each may do.
#[derive(Debug)]
pub struct Rates<K> {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Eq + Hash> Rates<K> {
    /// `per_second` on average, `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: f64::from(per_second.max(1)),
            burst: f64::from(burst.max(1)),
            buckets: Mutex::default(),
        }
    }

    /// Takes one token and answers how many are left, or how long until there is one.
    pub fn take(&self, key: K) -> Result<f64, Duration> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(key).or_insert(Bucket {
            tokens: self.burst,
            at: now,
        });
        let earned = now.duration_since(bucket.at).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + earned).min(self.burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64(
                (1.0 - bucket.tokens) / self.per_second,
            ));
        }
        bucket.tokens -= 1.0;
        Ok(bucket.tokens)
    }

    /// Forgets those whose bucket is full again: they are as if never seen.
    pub fn sweep(&self) {
        let now = Instant::now();
        let full = Duration::from_secs_f64(self.burst / self.per_second);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, bucket| now.duration_since(bucket.at) < full);
    }
}

/// At most one thing at a time of each.
#[derive(Debug)]
pub struct OneEach<K>(Mutex<HashSet<K>>);

impl<K> Default for OneEach<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A turn; over when it is dropped.
#[derive(Debug)]
pub struct Turn<'a, K: Eq + Hash + Copy> {
    all: &'a OneEach<K>,
    key: K,
}

impl<K: Eq + Hash + Copy> OneEach<K> {
    /// The turn of `key`, or none where it has one already.
    pub fn begin(&self, key: K) -> Option<Turn<'_, K>> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Made only where it is one: a turn that is dropped is over.
        if under_way.insert(key) {
            Some(Turn { all: self, key })
        } else {
            None
        }
    }
}

impl<K: Eq + Hash + Copy> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        let mut under_way = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_over_when_it_is_dropped() {
        let turns = OneEach::default();
        let turn = turns.begin("a");
        assert!(turn.is_some() && turns.begin("a").is_none() && turns.begin("b").is_some());
        drop(turn);
        assert!(turns.begin("a").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_then_the_rate_and_only_for_that_one() {
        let rates = Rates::new(2, 3);
        let (noisy, quiet) = ("noisy", "quiet");
        assert_eq!((0..5).filter(|_| rates.take(noisy).is_ok()).count(), 3);
        assert_eq!(rates.take(noisy), Err(Duration::from_millis(500)));
        assert!(rates.take(quiet).is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..5).filter(|_| rates.take(noisy).is_ok()).count(), 2);
        tokio::time::advance(Duration::from_secs(2)).await;
        rates.sweep();
        assert!(rates.buckets.lock().expect("not poisoned").is_empty());
    }
}
