//! The wall clock as a parameter: production reads the system's, tests set their own.

use std::fmt;
use std::sync::Arc;

use infratrack_shared::time::UnixMillis;
use time::OffsetDateTime;

use crate::store;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// The system's wall clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's clock"
    )]
    pub fn system() -> Self {
        Self(Arc::new(|| microseconds(OffsetDateTime::now_utc())))
    }

    /// A clock that tells what `now` answers.
    pub fn from_fn(now: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || microseconds(now())))
    }

    /// The time, in the microseconds that Postgres keeps.
    pub fn now(&self) -> OffsetDateTime {
        (self.0)()
    }

    /// The time as the wire has it.
    pub fn unix_millis(&self) -> UnixMillis {
        store::unix_millis(self.now())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

fn microseconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.nanosecond() / 1000 * 1000)
        .unwrap_or(at)
}
