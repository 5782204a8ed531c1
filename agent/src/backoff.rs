//! How long to wait before the next attempt: always random, so that a fleet never comes back at once.

use std::time::Duration;

/// The longest an attempt is put off by failures alone.
const CAP: Duration = Duration::from_secs(120);
/// After a connection was lost without a word: whatever took it, took many.
pub const AFTER_LOSS: Duration = Duration::from_secs(30);

/// Counts failures since the last acknowledged batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An acknowledged batch, and nothing less, begins anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: full jitter up to 1 s x 2^n, the jitter after the cap.
    pub fn after_failure(&mut self) -> Duration {
        let most = Duration::from_secs(1_u64 << self.failures.min(7)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        up_to(most)
    }
}

/// The wait that a collector asked for with `Retry-After`: at least that, at most twice.
pub fn retry_after(asked: Duration) -> Duration {
    asked + up_to(asked)
}

/// A uniformly random part of `most`.
pub fn up_to(most: Duration) -> Duration {
    most.mul_f64(rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_cap_and_stay_random_there() {
        let mut backoff = Backoff::default();
        for failure in 0..40 {
            let most = Duration::from_secs(1 << failure.min(7)).min(CAP);
            assert!(backoff.after_failure() <= most);
        }
        let at_the_cap: Vec<_> = (0..200).map(|_| backoff.after_failure()).collect();
        assert!(at_the_cap.iter().any(|wait| *wait < CAP / 4));
        assert!(at_the_cap.iter().any(|wait| *wait > CAP / 4 * 3));
        assert!(at_the_cap.iter().all(|wait| *wait <= CAP));
        backoff.reset();
        assert!(backoff.after_failure() <= Duration::from_secs(1));
    }

    #[test]
    fn retry_after_is_a_lower_bound() {
        for _ in 0..100 {
            let wait = retry_after(Duration::from_secs(7));
            assert!((7.0..=14.0).contains(&wait.as_secs_f64()));
        }
    }
}
