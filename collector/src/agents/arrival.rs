//! When something happened, from three clocks: the host's claim, the host's skew, our own.
//!
//! Order never depends on this (it is boot and sequence number); partitions and pictures do.

use infratrack_shared::time::UnixMillis;

/// Up to this much, a host's clock is taken at its word.
const TRUSTED_SKEW_MS: i64 = 5 * 60 * 1000;
/// A claim further in the past is moved up to here.
const OLDEST_MS: i64 = 30 * 24 * 3600 * 1000;
/// A claim further in the future is moved down to here.
const NEWEST_MS: i64 = 5 * 60 * 1000;

/// A time to file something under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective {
    pub at: UnixMillis,
    /// Not the host's own claim: the same thing sent again may be given another time.
    pub corrected: bool,
}

/// The host's clock less ours when it sent the batch, transit included.
pub fn skew_ms(sent_at: UnixMillis, received_at: UnixMillis) -> i64 {
    sent_at.millis_since(received_at)
}

/// The time to file a record under that the host claims happened at `claimed`.
pub fn effective(claimed: UnixMillis, skew_ms: i64, received_at: UnixMillis) -> Effective {
    let trusted = skew_ms.saturating_abs() <= TRUSTED_SKEW_MS;
    let ours = if trusted {
        claimed
    } else {
        claimed.plus_millis(skew_ms.saturating_neg())
    };
    let at = ours.clamp(
        received_at.plus_millis(-OLDEST_MS),
        received_at.plus_millis(NEWEST_MS),
    );
    Effective {
        at,
        corrected: at != claimed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn a_trusted_clock_is_taken_at_its_word() {
        let claimed = NOW.plus_millis(-3_600_000);
        let filed = effective(claimed, 2_000, NOW);
        assert_eq!(
            filed,
            Effective {
                at: claimed,
                corrected: false
            }
        );
    }

    #[test]
    fn a_clock_that_is_far_off_is_corrected_by_its_skew() {
        let skew = -10 * 365 * 24 * 3_600_000;
        let filed = effective(NOW.plus_millis(skew - 60_000), skew, NOW);
        assert_eq!(
            filed,
            Effective {
                at: NOW.plus_millis(-60_000),
                corrected: true
            }
        );
    }

    #[test]
    fn the_future_and_the_distant_past_are_clamped() {
        assert_eq!(
            effective(NOW.plus_millis(86_400_000), 0, NOW).at,
            NOW.plus_millis(NEWEST_MS)
        );
        assert_eq!(
            effective(UnixMillis(0), 0, NOW).at,
            NOW.plus_millis(-OLDEST_MS)
        );
        for extreme in [i64::MIN, i64::MAX] {
            let filed = effective(UnixMillis(extreme), extreme, NOW);
            assert!(filed.corrected && filed.at.millis_since(NOW).abs() <= OLDEST_MS);
        }
    }
}
