//! Token buckets, one for each host or credential, so that a flood of one is that one's alone.

use std::collections::HashMap;
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

#[cfg(test)]
mod tests {
    use super::*;

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
