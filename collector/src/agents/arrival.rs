//! When something happened, from three clocks: the host's claim, how long ago it was by the host's
//! uptime, our own.
//!
//! Order never depends on this (it is boot and sequence number); partitions and pictures do.

use infratrack_shared::time::UnixMillis;

/// Up to this much, a host's clock is taken at its word.
const TRUSTED_SKEW_MS: i64 = 5 * 60 * 1000;
/// From here on, what is trusted now may not have been when it was sent before, or the other way round.
const DOUBTED_SKEW_MS: i64 = 4 * 60 * 1000;
/// A claim further in the past is moved up to here.
const OLDEST_MS: i64 = 30 * 24 * 3600 * 1000;
/// A claim further in the future is moved down to here.
const NEWEST_MS: i64 = 5 * 60 * 1000;

/// A time to file something under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective {
    pub at: UnixMillis,
    /// The same thing sent again may be given another time.
    pub may_move: bool,
}

/// What a batch says of the host's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    pub received_at: UnixMillis,
    /// The wall clock less ours.
    pub skew_ms: i64,
    /// The uptime at sending.
    pub mono_ms: Option<u64>,
}

/// The host's clock less ours when it sent the batch, transit included.
pub fn skew_ms(sent_at: UnixMillis, received_at: UnixMillis) -> i64 {
    sent_at.millis_since(received_at)
}

/// The time to file a record under that the host claims happened at `claimed`, and at `mono_ms` of its
/// uptime where it is of the boot that sends it.
pub fn effective(claimed: UnixMillis, mono_ms: Option<u64>, clocks: Clocks) -> Effective {
    let received_at = clocks.received_at;
    let age_ms = mono_ms
        .zip(clocks.mono_ms)
        .and_then(|(then, now)| i64::try_from(now.checked_sub(then)?).ok());
    // Of another boot only the wall clock knows; how far it was off then is not known.
    let ours = match age_ms {
        Some(age_ms) => received_at.plus_millis(-age_ms),
        None => claimed.plus_millis(clocks.skew_ms.saturating_neg()),
    };
    let off_ms = claimed.millis_since(ours).saturating_abs();
    let best = if off_ms <= TRUSTED_SKEW_MS {
        claimed
    } else {
        ours
    };
    let at = best.clamp(
        received_at.plus_millis(-OLDEST_MS),
        received_at.plus_millis(NEWEST_MS),
    );
    Effective {
        at,
        may_move: at != claimed || off_ms > DOUBTED_SKEW_MS || age_ms.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn clocks(skew_ms: i64, mono_ms: Option<u64>) -> Clocks {
        Clocks {
            received_at: NOW,
            skew_ms,
            mono_ms,
        }
    }

    #[test]
    fn a_trusted_clock_is_taken_at_its_word() {
        let claimed = NOW.plus_millis(-3_602_000);
        let filed = effective(claimed, Some(0), clocks(2_000, Some(3_600_000)));
        let expected = Effective {
            at: claimed,
            may_move: false,
        };
        assert_eq!(filed, expected);
    }

    #[test]
    fn a_record_of_another_boot_is_corrected_by_the_skew_of_this_one() {
        let skew = -10 * 365 * 24 * 3_600_000;
        let filed = effective(NOW.plus_millis(skew - 60_000), None, clocks(skew, Some(1)));
        let expected = Effective {
            at: NOW.plus_millis(-60_000),
            may_move: true,
        };
        assert_eq!(filed, expected);
    }

    #[test]
    fn a_clock_that_was_set_after_the_record_does_not_matter_in_the_same_boot() {
        // No clock at boot: 1970. Then the time came over the network.
        let filed = effective(UnixMillis(5_000), Some(5_000), clocks(0, Some(65_000)));
        let expected = Effective {
            at: NOW.plus_millis(-60_000),
            may_move: true,
        };
        assert_eq!(filed, expected);
        // Sent live before that, it was filed there too.
        let live = Clocks {
            received_at: NOW.plus_millis(-60_000),
            ..clocks(UnixMillis(5_000).millis_since(NOW), Some(5_000))
        };
        assert_eq!(effective(UnixMillis(5_000), Some(5_000), live), expected);
    }

    #[test]
    fn near_the_end_of_trust_a_record_may_have_been_filed_elsewhere() {
        let filed = effective(NOW.plus_millis(270_000), Some(7), clocks(0, Some(7)));
        assert_eq!((filed.at, filed.may_move), (NOW.plus_millis(270_000), true));
    }

    #[test]
    fn the_future_and_the_distant_past_are_clamped() {
        let future = effective(NOW.plus_millis(86_400_000), None, clocks(0, None));
        assert_eq!(future.at, NOW.plus_millis(NEWEST_MS));
        let past = effective(UnixMillis(0), None, clocks(0, None));
        assert_eq!(past.at, NOW.plus_millis(-OLDEST_MS));
        let ancient = effective(NOW, Some(0), clocks(0, Some(u64::MAX / 2)));
        assert_eq!(ancient.at, NOW.plus_millis(-OLDEST_MS));
        for extreme in [i64::MIN, i64::MAX] {
            let filed = effective(UnixMillis(extreme), None, clocks(extreme, None));
            assert!(filed.may_move && filed.at.millis_since(NOW).abs() <= OLDEST_MS);
        }
    }
}
