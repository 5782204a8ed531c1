//! When something is due: cron of five fields (crontab(5)), in UTC, each host a little later at a time of its own.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::time::UnixMillis;

/// A schedule that is longer is none.
const BYTES: usize = 100;

/// A schedule.
#[derive(Clone)]
pub struct Schedule(Cron);

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadSchedule {
    #[error("has more than {BYTES} bytes")]
    Long,
    #[error("is no cron expression of five fields: {0}")]
    Fields(String),
    #[error("is never due")]
    Never,
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        if text.len() > BYTES {
            return Err(BadSchedule::Long);
        }
        let parser = CronParser::builder();
        let parser = parser.seconds(Seconds::Disallowed).year(Year::Disallowed);
        let cron = parser.build().parse(text);
        let schedule = cron.map(Self);
        let schedule = schedule.map_err(|error| BadSchedule::Fields(error.to_string()))?;
        // The 30th of February.
        let is_due = schedule.next_after(UnixMillis(0)).is_some();
        if is_due {
            Ok(schedule)
        } else {
            Err(BadSchedule::Never)
        }
    }
}

impl Schedule {
    /// When it is due next, later than `at`. `None`: not before the calendar ends.
    pub fn next_after(&self, at: UnixMillis) -> Option<UnixMillis> {
        let at = jiff::Timestamp::from_millisecond(at.0).ok()?;
        let at: DateTime = at.to_zoned(TimeZone::UTC).datetime();
        let next = self.0.find_next_occurrence(&at, false).ok()?;
        let next = next.to_zoned(TimeZone::UTC).ok()?;
        Some(UnixMillis(next.timestamp().as_millisecond()))
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({})", self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        let at: jiff::Timestamp = text.parse().unwrap();
        UnixMillis(at.as_millisecond())
    }

    #[test]
    fn it_is_due_as_crontab_says_in_utc() {
        for (schedule, from, next) in [
            (
                "0 2 * * *",
                "2026-11-23T01:59:59.999Z",
                "2026-11-23T02:00:00Z",
            ),
            ("0 2 * * *", "2026-11-23T02:00:00Z", "2026-11-24T02:00:00Z"),
            (
                "*/15 * * * *",
                "2026-11-23T02:00:01Z",
                "2026-11-23T02:15:00Z",
            ),
            (
                "30 3 * * sun",
                "2026-11-23T00:00:00Z",
                "2026-11-29T03:30:00Z",
            ),
            ("0 0 29 2 *", "2026-11-23T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Either day (crontab(5)): the 13th, and each Friday.
            ("0 0 13 * 5", "2026-11-23T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("@daily", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"),
        ] {
            let schedule: Schedule = schedule.parse().unwrap();
            assert_eq!(
                schedule.next_after(at(from)),
                Some(at(next)),
                "{schedule:?}"
            );
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in [
            "",
            "* * * *",
            "0 0 2 * * *",
            "61 * * * *",
            "a b c d e",
            "* * * * * * *",
        ] {
            assert!(
                matches!(bad.parse::<Schedule>(), Err(BadSchedule::Fields(_))),
                "{bad}"
            );
        }
        assert_eq!(
            "0 0 30 2 *".parse::<Schedule>().unwrap_err(),
            BadSchedule::Never
        );
        let long = format!("0 {} * * *", "1,".repeat(60));
        assert_eq!(long.parse::<Schedule>().unwrap_err(), BadSchedule::Long);
    }
}
