//! What slows guessing down: after some failures in a row, each further one makes the next attempt wait twice as long.
//!
//! It counts by name and address, so that a stranger can't lock a user out; and, with more patience, by name alone,
//! for guesses that come from many addresses. Names that nobody has are counted alike.

use std::net::IpAddr;
use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::http::network;
use crate::store::login_failures::{self, Failures};

/// Failures that cost nothing, and the longest wait, for a name from an address.
const PAIR: (i32, Duration) = (5, Duration::from_mins(15));
/// For a name from anywhere.
const NAME: (i32, Duration) = (50, Duration::from_mins(1));
/// Without a failure for this long, those before are forgotten.
const MEMORY: Duration = Duration::from_hours(1);
/// What is kept of a name.
const NAME_CHARS: usize = 64;

/// What failures are counted by, sorted.
pub(super) fn subjects(name: &str, address: IpAddr) -> Vec<String> {
    let name: String = name
        .chars()
        .filter(|char| *char != '\0')
        .take(NAME_CHARS)
        .collect();
    vec![
        format!("name {name}"),
        format!("pair {} {name}", network(address)),
    ]
}

/// How long the next attempt has to wait.
pub(super) async fn wait(
    connection: &mut PgConnection,
    subjects: &[String],
    now: OffsetDateTime,
) -> sqlx::Result<Option<Duration>> {
    let failures = login_failures::list(connection, subjects, now - MEMORY).await?;
    Ok(failures
        .iter()
        .filter_map(|failures| left(failures, now))
        .max())
}

fn left(failures: &Failures, now: OffsetDateTime) -> Option<Duration> {
    let (free, longest) = if failures.subject.starts_with("pair ") {
        PAIR
    } else {
        NAME
    };
    let over = u32::try_from(failures.failures - free).ok()?;
    let wait = longest.min(Duration::from_secs(2_u64.saturating_pow(over)));
    let left = (failures.last_at + wait) - now;
    left.try_into()
        .ok()
        .filter(|left: &Duration| !left.is_zero())
}

/// An attempt failed.
pub(super) async fn failed(
    connection: &mut PgConnection,
    subjects: &[String],
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    login_failures::add(connection, subjects, now, now - MEMORY).await?;
    Ok(())
}

/// One succeeded.
pub(super) async fn forget(connection: &mut PgConnection, subjects: &[String]) -> sqlx::Result<()> {
    login_failures::delete(connection, subjects).await?;
    Ok(())
}

/// Deletes what is no longer counted.
pub async fn sweep(connection: &mut PgConnection, now: OffsetDateTime) -> sqlx::Result<()> {
    login_failures::delete_before(connection, now - MEMORY).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn after(subject: &str, failures: i32) -> Option<u64> {
        let failures = Failures {
            subject: subject.to_owned(),
            failures,
            last_at: NOW,
        };
        left(&failures, NOW).map(|left| left.as_secs())
    }

    #[test]
    fn waits_double_up_to_their_longest() {
        let pair =
            [4, 5, 6, 7, 14, 15, 1_000_000].map(|failures| after("pair 192.0.2.1 a", failures));
        let expected = [
            None,
            Some(1),
            Some(2),
            Some(4),
            Some(512),
            Some(900),
            Some(900),
        ];
        assert_eq!(pair, expected);
        let name = [49, 50, 55, 56, 1_000_000].map(|failures| after("name a", failures));
        assert_eq!(name, [None, Some(1), Some(32), Some(60), Some(60)]);
    }

    #[test]
    fn a_wait_passes() {
        let failures = Failures {
            subject: "pair 192.0.2.1 a".to_owned(),
            failures: 8,
            last_at: NOW - Duration::from_secs(7),
        };
        assert_eq!(left(&failures, NOW), Some(Duration::from_secs(1)));
        assert_eq!(left(&failures, NOW + Duration::from_secs(1)), None);
    }

    #[test]
    fn an_ipv6_host_is_one_whatever_address_it_takes() {
        let subjects = |address: &str| subjects("a", address.parse().unwrap());
        assert_eq!(subjects("2001:db8::1"), subjects("2001:db8::ffff:1"));
        assert_ne!(subjects("2001:db8::1"), subjects("2001:db8:0:1::1"));
        assert_eq!(subjects("::ffff:192.0.2.1"), subjects("192.0.2.1"));
        assert_ne!(subjects("192.0.2.2"), subjects("192.0.2.1"));
    }
}
