//! The host's zone, for times that a log has without one.

use infratrack_shared::time::UnixMillis;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::collect::Root;
use crate::packages::log::{Civil, Stamp};

const LOCALTIME: &str = "etc/localtime";
/// Lines of two processes may be a little out of order, which is no repeated hour.
const OUT_OF_ORDER_MS: i64 = 60_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Zone(TimeZone);

impl Zone {
    /// The zone of `/etc/localtime`. Without one, or with one that can't be read, it is UTC, as for everything else on such a host.
    pub(super) fn read(root: &Root) -> Self {
        let bytes = root.bytes(LOCALTIME).unwrap_or_default();
        Self(TimeZone::tzif("", &bytes).unwrap_or(TimeZone::UTC))
    }

    /// When a line was written that follows one of `previous`. An hour that the clocks repeat is the first, or where that
    /// would be before the line before, the second.
    pub(super) fn at(&self, stamp: Stamp, previous: Option<i64>, now: UnixMillis) -> i64 {
        let civil = match stamp {
            Stamp::At(at) => return at.0,
            Stamp::Local(civil) | Stamp::Yearless(civil) => civil,
        };
        let Some((first, second)) = self.candidates(civil) else {
            return civil.as_utc().0;
        };
        let is_before = previous.is_some_and(|previous| first + OUT_OF_ORDER_MS < previous);
        if is_before && second <= now.0.saturating_add(OUT_OF_ORDER_MS) {
            second
        } else {
            first
        }
    }

    /// The same but for an hour that is repeated, and for one that the clocks left out.
    fn candidates(&self, civil: Civil) -> Option<(i64, i64)> {
        let narrow = |number: u8| i8::try_from(number).ok();
        let civil = DateTime::new(
            i16::try_from(civil.year).ok()?,
            narrow(civil.month)?,
            narrow(civil.day)?,
            narrow(civil.hour)?,
            narrow(civil.minute)?,
            narrow(civil.second)?,
            0,
        );
        let found = self.0.to_ambiguous_timestamp(civil.ok()?);
        let first = found.earlier().ok()?.as_millisecond();
        Some((first, found.later().ok()?.as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    /// 2024-10-27T00:00:00Z; Berlin repeats the hour that begins here, an hour later.
    const MIDNIGHT: i64 = 1_729_987_200_000;
    const HOUR: i64 = 3_600_000;
    /// Zoneinfo of one rule: `CET-1CEST,M3.5.0,M10.5.0/3`, as a file of version 2 without transitions.
    fn berlin() -> Vec<u8> {
        let header = |version: u8| {
            let mut bytes = b"TZif".to_vec();
            bytes.push(version);
            bytes.extend([0; 15]);
            // Counts: UT, standard, leap, transitions, types, characters.
            for count in [0_u32, 0, 0, 0, 1, 4] {
                bytes.extend(count.to_be_bytes());
            }
            bytes.extend(3600_i32.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(b"CET\0");
            bytes
        };
        let rule = b"\nCET-1CEST,M3.5.0,M10.5.0/3\n";
        [header(b'2'), header(b'2'), rule.to_vec()].concat()
    }

    fn local(text: &str) -> Stamp {
        Stamp::local(&format!("2024-10-27 {text}")).unwrap().0
    }

    #[test]
    fn in_the_hour_that_is_repeated_the_order_of_the_lines_decides() {
        let (keep, root) = fixture::host(&[("etc/x", "")]);
        std::fs::write(keep.path().join(LOCALTIME), berlin()).unwrap();
        let zone = Zone::read(&root);
        let now = UnixMillis(MIDNIGHT + 24 * HOUR);
        let mut previous = None;
        let times = [
            "01:59:59", "02:10:00", "02:59:00", "02:58:59", "02:00:01", "02:30:00", "03:00:00",
        ];
        let told = times.map(|text| {
            let at = zone.at(local(text), previous, now);
            previous = Some(at);
            (at - MIDNIGHT) / 1000
        });
        assert_eq!(told, [-1, 600, 3540, 3539, 3601, 5400, 7200]);

        // What would be in the future is not meant.
        let now = UnixMillis(MIDNIGHT + 3_540_000);
        let at = zone.at(local("02:00:01"), Some(MIDNIGHT + 3_540_000), now);
        assert_eq!(at, MIDNIGHT + 1000);
    }

    #[test]
    fn without_a_zone_it_is_utc() {
        for files in [&[("etc/x", "")][..], &[(LOCALTIME, "no zone")]] {
            let (_keep, root) = fixture::host(files);
            let zone = Zone::read(&root);
            let at = zone.at(local("00:00:01"), None, UnixMillis(0));
            assert_eq!(at, MIDNIGHT + 1000);
        }
    }
}
