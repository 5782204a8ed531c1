//! Whether something that is done again and again works: the last attempt speaks, for a while.
//!
//! The writers and the sign of life each have one, and `/health` asks them: a database that can be read may
//! still take nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A failure is forgotten after this. Where nobody tries, nothing is known: a collector that its load balancer
/// took out is not out for ever.
const SPEAKS: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug, Default)]
pub struct Condition(Mutex<Option<Failed>>);

#[derive(Clone, Copy, Debug)]
struct Failed {
    at: Instant,
    why: &'static str,
}

impl Condition {
    /// It worked.
    pub fn succeeded(&self) {
        self.set(None);
    }

    /// It did not.
    pub fn failed(&self, why: &'static str) {
        self.set(Some(Failed {
            at: Instant::now(),
            why,
        }));
    }

    /// Why the last attempt failed, if that was not long ago.
    pub fn failure(&self) -> Option<&'static str> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|failed| failed.at.elapsed() < SPEAKS)
            .map(|failed| failed.why)
    }

    fn set(&self, last: Option<Failed>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_speaks_until_the_next_success_or_for_a_while() {
        let condition = Condition::default();
        assert_eq!(condition.failure(), None);
        condition.failed("full");
        assert_eq!(condition.failure(), Some("full"));
        condition.succeeded();
        assert_eq!(condition.failure(), None);
        condition.failed("full");
        tokio::time::advance(SPEAKS).await;
        assert_eq!(condition.failure(), None);
    }
}
