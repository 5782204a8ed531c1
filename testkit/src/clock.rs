//! A wall clock that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use infratrack_collector::clock::Clock;
use time::{Duration, OffsetDateTime};

/// The system's time plus what the test added.
#[derive(Clone, Debug, Default)]
pub struct TestClock {
    ahead_ms: Arc<AtomicI64>,
}

impl TestClock {
    /// Puts the clock forward, or back.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.whole_milliseconds()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(millis, Ordering::SeqCst);
    }

    /// The clock as the collector takes it.
    pub fn clock(&self) -> Clock {
        let ahead = Arc::clone(&self.ahead_ms);
        let system = Clock::system();
        Clock::from_fn(move || system.now() + Duration::milliseconds(ahead.load(Ordering::SeqCst)))
    }

    /// What it tells.
    pub fn now(&self) -> OffsetDateTime {
        self.clock().now()
    }
}
