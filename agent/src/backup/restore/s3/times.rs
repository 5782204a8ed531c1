//! By which time requests are signed. A store refuses what is signed many minutes before or after its own time, and a host that is
//! restored anew may have any: so the store's is taken where the two are apart.

use std::sync::atomic::{AtomicI64, Ordering};

use http::HeaderMap;
use http::header::DATE;
use jiff::Timestamp;

use crate::clock::Clock;

/// Clocks that are no further apart have not caused a refusal.
const APART_MS: i64 = 60_000;

/// This host's clock, and how far the store's is ahead of it.
#[derive(Debug)]
pub(super) struct Times {
    clock: Clock,
    ahead_ms: AtomicI64,
}

impl Times {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            ahead_ms: AtomicI64::new(0),
        }
    }

    /// The store's time, as far as it is known.
    pub(super) fn now(&self) -> Timestamp {
        let ours = self.clock.now().0;
        let theirs = ours.saturating_add(self.ahead_ms.load(Ordering::Relaxed));
        Timestamp::from_millisecond(theirs).unwrap_or_default()
    }

    /// Takes the time of an answer that refused something. Whether it was another than was thought.
    pub(super) fn correct(&self, headers: &HeaderMap) -> bool {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let Some(theirs) = date.map(|date| date.timestamp().as_millisecond()) else {
            return false;
        };
        let known = self.now().as_millisecond();
        if known.abs_diff(theirs) <= APART_MS.unsigned_abs() {
            return false;
        }
        let ahead_ms = theirs.saturating_sub(self.clock.now().0);
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        tracing::warn!(
            "the store's clock is {} s ahead of this host's: requests are signed by the store's",
            ahead_ms / 1000
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use infratrack_shared::time::UnixMillis;

    use super::*;

    #[test]
    fn the_stores_time_is_taken_where_ours_is_far_from_it_and_nowhere_else() {
        let of = |date: &'static str| HeaderMap::from_iter([(DATE, date.parse().unwrap())]);
        let times = Times::new(Clock::from_fn(|| UnixMillis(784_111_777_000)));
        assert!(!times.correct(&HeaderMap::new()));
        assert!(!times.correct(&of("yesterday")));
        assert!(!times.correct(&of("Sun, 06 Nov 1994 08:49:00 GMT")));
        assert!(times.correct(&of("Sun, 06 Nov 1994 09:49:37 GMT")));
        assert_eq!(times.now().as_second(), 784_111_777 + 3600);
        assert!(!times.correct(&of("Sun, 06 Nov 1994 09:49:37 GMT")));
    }
}
